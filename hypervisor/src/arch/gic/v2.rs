//! GICv2 with virtualisation extensions (Arm IHI 0048B): GICD, GICC and GICH.
//!
//! `arm-gic` has no list registers for it, no split of priority drop and deactivation, and no SPI targets, so the few registers
//! are written here. Like GICv3's, the CPU interface runs with EOImode = 1: a hardware-linked interrupt stays active until the *guest*
//! deactivates it. GICC and GICH are banked: each CPU reaches its own at the same address.
//!
//! Groups are left as they are at reset. Without Security Extensions that is group 0, with them Baton sees its own group 1 in the place
//! of it: the same bits mean what is meant, as Linux relies on, too.

use super::shared::{
    GICD_ICACTIVER, GICD_ICENABLER, GICD_ICPENDR, GICD_ISENABLER, is_shared, write_bit,
};
use super::{GicError, KICK, PRIORITY};
use crate::arch::cpu::MAX_CPUS;
use crate::arch::mmio::Region;
use crate::arch::processor::This;
use crate::arch::registers::dsb_sy;
use arrayvec::ArrayVec;
use coproc_core::address::HostPhysical;
use coproc_core::register::Width;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use hypervisor::processor::signals;
use hypervisor::vgic::{CpuInterface, Entry, ListRegisters, Maintenance, interface_pages};
use spin::Once;

const GICD_CTLR: u64 = 0;
const GICD_TYPER: u64 = 4;
const GICD_ISACTIVER: u64 = 0x300;
const GICD_IPRIORITYR: u64 = 0x400;
const GICD_ITARGETSR: u64 = 0x800;
const GICD_ICFGR: u64 = 0xc00;
const GICD_SGIR: u64 = 0xf00;

const GICC_CTLR: u64 = 0;
const GICC_PMR: u64 = 4;
const GICC_BPR: u64 = 8;
const GICC_IAR: u64 = 0xc;
const GICC_EOIR: u64 = 0x10;
/// Enable, and EOImode.
const GICC_CTLR_VALUE: u32 = 1 | 1 << 9;

const GICH_HCR: u64 = 0;
const GICH_VTR: u64 = 4;
const GICH_VMCR: u64 = 8;
const GICH_APR: u64 = 0xf0;
const GICH_LR: u64 = 0x100;

/// The mapped parts.
pub struct Parts {
    /// GICD.
    pub distributor: Region,
    /// GICC.
    pub cpu_interface: Region,
    /// GICH.
    pub hypervisor_interface: Region,
    /// GICV: physical address and size in bytes.
    pub virtual_interface: (HostPhysical, u64),
}

struct Known {
    parts: Parts,
    /// Offset of GICC_DIR.
    deactivate: u64,
}

static KNOWN: Once<Known> = Once::new();
static IN_USE: AtomicBool = AtomicBool::new(false);
/// For each CPU that came: its affinity, and the bit of its interface in GICD_ITARGETSR (0: none).
static INTERFACES: [(AtomicU64, AtomicU8); MAX_CPUS] =
    [const { (AtomicU64::new(0), AtomicU8::new(0)) }; MAX_CPUS];

/// Whether the machine's GIC is one.
#[inline(always)]
pub fn in_use() -> bool {
    IN_USE.load(Ordering::Relaxed)
}

/// The interface bit of the CPU with this affinity.
fn target(affinity: u64) -> Option<u8> {
    let known = INTERFACES.iter().map(|(of, bit)| {
        let bit = bit.load(Ordering::Acquire);
        (of.load(Ordering::Relaxed), bit)
    });
    known
        .filter(|(_, bit)| *bit != 0)
        .find(|(of, _)| *of == affinity)
        .map(|(_, bit)| bit)
}

/// Notes which interface this CPU, with this affinity, has.
pub fn announce(affinity: u64) {
    let Some(known) = KNOWN.get() else {
        return;
    };
    // Every byte of the first 32 names the reader. A single CPU reads zero, and is number 0.
    let read = known.parts.distributor.read32(GICD_ITARGETSR);
    let bit = read.to_le_bytes().into_iter().find(|byte| *byte != 0);
    if target(affinity).is_some() {
        return;
    }
    let index = crate::arch::cpu::current().index();
    if let Some((of, place)) = INTERFACES.get(index) {
        of.store(affinity, Ordering::Relaxed);
        place.store(bit.unwrap_or(1), Ordering::Release);
    }
}

/// The distributor. Of private interrupts it shows each CPU its own.
pub struct Gic {
    distributor: Region,
}

impl Gic {
    /// The GIC of these parts, which all CPUs use from now on.
    pub fn new(parts: Parts) -> Self {
        let [_, second] = interface_pages(parts.cpu_interface.size());
        let distributor = parts.distributor;
        KNOWN.call_once(|| Known {
            parts,
            deactivate: second,
        });
        IN_USE.store(true, Ordering::Relaxed);
        Self { distributor }
    }

    #[inline]
    fn limit(&self) -> u32 {
        ((self.distributor.read32(GICD_TYPER) & 0x1f) + 1) * 32
    }

    /// Resets the distributor: everything disabled, neither pending nor active.
    pub fn initialise(&mut self) {
        self.distributor.write32(GICD_CTLR, 0);
        for word in 1..u64::from(self.limit() / 32) {
            for register in [GICD_ICENABLER, GICD_ICPENDR, GICD_ICACTIVER] {
                self.distributor.write32(register + 4 * word, u32::MAX);
            }
        }
        self.distributor.write32(GICD_CTLR, 1);
    }

    /// Sets up this CPU's private interrupts, CPU interface and virtual interface.
    pub fn initialise_cpu(&mut self) {
        announce(crate::arch::cpu::current().affinity.load(Ordering::Relaxed));
        for register in [GICD_ICENABLER, GICD_ICPENDR, GICD_ICACTIVER] {
            self.distributor.write32(register, u32::MAX);
        }
        let Some(Known { parts, .. }) = KNOWN.get() else {
            return;
        };
        parts.cpu_interface.write32(GICC_PMR, 0xf0);
        parts.cpu_interface.write32(GICC_BPR, 0);
        parts.cpu_interface.write32(GICC_CTLR, GICC_CTLR_VALUE);
        for index in 0..list_register_count() as u64 {
            parts.hypervisor_interface.write32(GICH_LR + 4 * index, 0);
        }
        parts.hypervisor_interface.write32(GICH_VMCR, 0);
        parts.hypervisor_interface.write32(GICH_APR, 0);
        parts.hypervisor_interface.write32(GICH_HCR, 1);
        dsb_sy(); // in force before the first interrupt is looked for
    }

    /// Enables an interrupt: a private one of this CPU, or a shared one for the CPU with this affinity.
    ///
    /// # Errors
    /// [`GicError`].
    pub fn enable(&mut self, intid: u32, edge: bool, affinity: u64) -> Result<(), GicError> {
        if intid >= self.limit().min(1020) {
            return Err(GicError::NoInterrupt(intid));
        }
        let byte = u64::from(intid);
        self.distributor
            .write(GICD_IPRIORITYR + byte, Width::Byte, u64::from(PRIORITY));
        if intid >= 32 {
            let target = target(affinity).ok_or(GicError::UnknownCpu(affinity))?;
            self.distributor
                .write(GICD_ITARGETSR + byte, Width::Byte, u64::from(target));
        }
        if intid >= 16 {
            let register = GICD_ICFGR + u64::from(intid / 16) * 4;
            let bit = 2 << (intid % 16 * 2);
            let before = self.distributor.read32(register);
            let after = if edge { before | bit } else { before & !bit };
            self.distributor.write32(register, after);
        }
        write_bit(&self.distributor, GICD_ISENABLER, intid);
        Ok(())
    }

    /// Its registers.
    pub(super) fn region(&self) -> &Region {
        &self.distributor
    }

    /// See [`super::Gic::route`]. Goes nowhere else if the CPU hasn't told its interface.
    pub fn route(&mut self, intid: u32, affinity: u64) {
        if let Some(target) = target(affinity).filter(|_| is_shared(intid)) {
            let register = GICD_ITARGETSR + u64::from(intid);
            self.distributor
                .write(register, Width::Byte, u64::from(target));
        }
    }

    /// Whether a private interrupt of this CPU is active.
    pub fn private_active(&self, intid: u32) -> bool {
        self.distributor.read32(GICD_ISACTIVER) & 1 << (intid % 32) != 0
    }

    /// Makes a private interrupt of this CPU active or inactive.
    pub fn set_private_active(&self, intid: u32, active: bool) {
        let register = if active {
            GICD_ISACTIVER
        } else {
            GICD_ICACTIVER
        };
        self.distributor.write32(register, 1 << (intid % 32));
    }
}

/// See [`super::acknowledge`].
#[cold]
pub fn acknowledge() -> Option<u32> {
    let known = KNOWN.get()?;
    let interface = &known.parts.cpu_interface;
    let acknowledged = interface.read32(GICC_IAR);
    let intid = acknowledged & 0x3ff;
    if intid >= 1020 {
        return None;
    }
    if intid < 16 {
        interface.write32(GICC_EOIR, acknowledged);
        interface.write32(known.deactivate, acknowledged);
        dsb_sy(); // what the sender stored before is looked at only now
    }
    Some(intid)
}

/// See [`super::drop_priority`].
#[cold]
pub fn drop_priority(intid: u32) {
    if intid >= 16
        && let Some(known) = KNOWN.get()
    {
        known.parts.cpu_interface.write32(GICC_EOIR, intid);
    }
}

/// See [`super::deactivate`].
#[cold]
pub fn deactivate(intid: u32) {
    if intid >= 16
        && let Some(known) = KNOWN.get()
    {
        known.parts.cpu_interface.write32(known.deactivate, intid);
        dsb_sy(); // inactive before its source is looked at again
    }
}

/// See [`super::kick`].
#[cold]
pub fn kick(affinity: u64) {
    if let (Some(known), Some(target)) = (KNOWN.get(), target(affinity)) {
        signals::before(&mut This);
        let value = u32::from(target) << 16 | KICK;
        known.parts.distributor.write32(GICD_SGIR, value);
    }
}

/// What a domain is given as its CPU interface: offset there, host page of 4 KiB.
pub fn virtual_interface() -> ArrayVec<(u64, HostPhysical), 2> {
    let Some(known) = KNOWN.get() else {
        return ArrayVec::new();
    };
    let (base, size) = known.parts.virtual_interface;
    let pages = interface_pages(size).map(|offset| base.wrapping_add(offset));
    [0, 0x1000].into_iter().zip(pages).collect()
}

fn gich() -> Option<&'static Region> {
    KNOWN.get().map(|known| &known.parts.hypervisor_interface)
}

fn read(offset: u64) -> u32 {
    gich().map_or(0, |gich| gich.read32(offset))
}

fn write(offset: u64, value: u32) {
    if let Some(gich) = gich() {
        gich.write32(offset, value);
    }
}

/// Number of list registers (GICH_VTR.ListRegs + 1), at most 16.
#[inline]
pub fn list_register_count() -> usize {
    ((read(GICH_VTR) & 0x3f) as usize + 1).min(16)
}

/// Reads the list registers that `lists` says are in use.
#[cold]
pub fn read_lists(lists: &mut ListRegisters) {
    let in_use = lists.in_use;
    for (index, slot) in (0u64..).zip(&mut lists.lr) {
        if in_use & 1 << index != 0 {
            *slot = Entry::from_gich(read(GICH_LR + 4 * index)).0;
        }
    }
}

/// Writes the list registers in `which` from `lists`.
#[cold]
pub fn write_lists(lists: &ListRegisters, which: u16) {
    for (index, value) in (0u64..).zip(&lists.lr) {
        if which & 1 << index != 0 {
            write(GICH_LR + 4 * index, Entry(*value).to_gich());
        }
    }
}

/// Empties the list registers in `which`.
#[cold]
pub fn clear_lists(which: u16) {
    for index in (0..16).filter(|index| which & 1 << index != 0) {
        write(GICH_LR + 4 * index, 0);
    }
}

/// GICH_HCR: virtual CPU interface on, EOIcount 0, and these maintenance interrupts, which have GICv3's bits.
#[cold]
#[inline]
pub fn set_interface_control(maintenance: Maintenance) {
    write(GICH_HCR, 1 | maintenance.hcr_bits() as u32);
}

/// Switches the virtual CPU interface off, for good.
#[cfg(feature = "fw-core")]
pub fn disable_interface() {
    write(GICH_HCR, 0);
}

/// GICH_HCR.EOIcount.
#[cold]
#[inline]
pub fn deactivations_missed() -> u32 {
    read(GICH_HCR) >> 27
}

/// What of the guest's CPU interface decides about signalling.
#[cold]
pub fn interface() -> CpuInterface {
    CpuInterface::from_gich_vmcr(read(GICH_VMCR))
}

/// What the loaded guest set in its CPU interface: GICH_VMCR, GICH_APR.
#[cold]
pub fn save_interface() -> (u64, u64) {
    (u64::from(read(GICH_VMCR)), u64::from(read(GICH_APR)))
}

/// And back.
#[cold]
pub fn load_interface(vmcr: u64, active_priorities: u64) {
    write(GICH_VMCR, vmcr as u32);
    write(GICH_APR, active_priorities as u32);
}
