//! The virtual GIC of a domain: distributor, redistributors, SGIs, list registers.
//!
//! A domain gets the version that the machine has. Both share all state and the way to and from list registers; what only
//! GICv2 has is in `v2`. The rest of this page speaks of GICv3.
//!
//! It follows the Arm GIC Architecture Specification, GICv3 and v4 (Arm IHI 0069H). What the
//! guest sees is the smallest GICv3 that stock systems run on: affinity routing only
//! (GICD_CTLR.ARE is 1, 12.9.4), one security state (GICD_CTLR.DS is 1), no LPIs, no message
//! based SPIs, no 1-of-N routing (GICD_TYPER.No1N is 1). vCPU n has the affinity 0.0.0.n.
//! Registers that only the left-out parts need read as zero and ignore writes, as the
//! specification says of them.
//!
//! All of it is plain state: no hardware is touched, list registers come and go as values
//! ([`ListRegisters`]), and whoever must be told is answered as a set of vCPUs ([`Kicks`]). So
//! one lock around a [`Vgic`] is enough, and every behaviour is tested on the host.
//!
//! **How it is used.** On the way into the guest, if [`needs_sync`](Vgic::needs_sync) (three
//! loads) says so, or the exit was a maintenance interrupt, or another vCPU goes on here:
//! 1. read back the list registers `in_use` (and ICH_HCR_EL2.EOIcount into `eoi_count`);
//! 2. [`collect`](Vgic::collect), which takes *everything* back into the [`Vgic`];
//! 3. deactivate the physical interrupts and sample the level sources that it names, and tell
//!    what they are with [`set_line`](Vgic::set_line);
//! 4. [`deliver`](Vgic::deliver), which fills the list registers anew, best priority first;
//! 5. write them, and the [`Maintenance`] enables (EOIcount 0) into ICH_HCR_EL2.
//!
//! Otherwise the list registers stay untouched in the hardware, where the guest takes and
//! ends interrupts without an exit. Folding all and filling anew, instead of patching, makes
//! every change of mind (disabled, rerouted, reprioritised, line dropped, evicted by something
//! more urgent) the same simple case. Detaching a vCPU from its CPU is just steps 1 to 3.
//!
//! **Known limits.** What a *running* vCPU took or ended since its list registers were filled
//! isn't visible in ISPENDR and ISACTIVER until it exits; a write to ICACTIVER for what is listed
//! there also ends what it takes between the write and that exit. A physical source whose level falls is seen when
//! its owner says so ([`hardware_withdrawn`](Vgic::hardware_withdrawn)): for the virtual timer, when the vCPU is loaded or looks at such registers. GICR_WAKER does its handshake but
//! holds nothing back. Group 0 interrupts take list registers even while the vCPU's
//! ICC_IGRPEN0_EL1 is 0, as GICD_CTLR alone decides here.

mod bank;
mod gich;
mod kicks;
mod list;
mod registers;
mod transfer;
mod v2;

#[cfg(test)]
mod linked_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod register_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod v2_tests;

pub use crate::guest_tree::GicVersion as Version;
pub use gich::interface_pages;
pub use kicks::Kicks;
pub use list::{CpuInterface, Entry, ListRegisters, MAX_LISTS, Maintenance};
pub use registers::{DISTRIBUTOR_SIZE, REDISTRIBUTOR_SIZE};
pub use transfer::Deactivated;

use alloc::vec::Vec;
use bank::{Bank, Bits, Groups, Wanted, bit};

/// Most vCPUs of one domain.
pub const MAX_VCPUS: usize = 8;

/// Most shared interrupts (INTID 32 to 991).
pub const MAX_SPIS: usize = 960;

/// SGIs are always edge-triggered (ICFGR0 is read-only).
const SGIS: u32 = 0xffff;

/// An interrupt input of the virtual GIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line {
    /// A shared one, by INTID (32 and up).
    Spi(u32),
    /// A private one of a vCPU.
    Ppi {
        /// Whose.
        vcpu: usize,
        /// INTID, 16 to 31.
        intid: u32,
    },
}

/// What is kept per vCPU besides its private interrupts.
#[derive(Clone, Copy, Default, Debug)]
struct Cpu {
    /// Bit w: the bank of INTIDs 32w and up has something for the list registers.
    summary: u32,
    /// Something in its list registers isn't as it should be any more, or physical interrupts
    /// and sources of its private interrupts wait to be seen to.
    resync: bool,
    /// GICR_WAKER.ProcessorSleep, and ChildrenAsleep, which follows at once.
    asleep: bool,
}

impl Cpu {
    /// The bank with this bit wants these of it.
    fn note(&mut self, word: u32, wanted: u32) {
        if wanted == 0 {
            self.summary &= !word;
        } else {
            self.summary |= word;
        }
    }
}

/// The virtual GIC of one domain.
#[derive(Clone, Debug)]
pub struct Vgic {
    /// The vCPUs' private banks, then the shared ones.
    banks: Vec<Bank>,
    cpus: Vec<Cpu>,
    /// GICD_IROUTER, by SPI. Empty in a GICv2.
    routes: Vec<u64>,
    groups: Groups,
    /// What GICD_CTLR reads besides the enables.
    control: u32,
    /// GICD_TYPER.
    typer: u32,
    /// What only a GICv2 has.
    v2: Option<v2::Legacy>,
    /// Bit w: the shared bank has physical interrupts to deactivate or sources to sample.
    chores: u32,
}

impl Vgic {
    /// A reset GIC for `vcpus` (1 to 8; others are cut to that) and `spis` shared interrupts
    /// (rounded up to a multiple of 32, at most 960), INTIDs 32 and up.
    pub fn new(vcpus: usize, spis: usize) -> Self {
        let vcpus = vcpus.clamp(1, MAX_VCPUS);
        let shared = spis.min(MAX_SPIS).div_ceil(32);
        let private = (0..vcpus).map(|vcpu| Bank::new(SGIS, vcpu));
        // IROUTER resets to 0 here: everything goes to vCPU 0.
        let banks = private
            .chain((0..shared).map(|_| Bank::new(0, 0)))
            .collect();
        Self {
            banks,
            cpus: (0..vcpus)
                .map(|_| Cpu {
                    asleep: true,
                    ..Cpu::default()
                })
                .collect(),
            routes: alloc::vec![0; shared.saturating_mul(32)],
            groups: Groups::default(),
            control: registers::CTLR_FIXED,
            // ITLinesNumber (4:0): 32·(N + 1) INTIDs.
            typer: registers::TYPER_FIXED | shared as u32,
            v2: None,
            chores: 0,
        }
    }

    /// A reset GIC of this version, otherwise like [`new`](Self::new).
    pub fn of(version: Version, vcpus: usize, spis: usize) -> Self {
        let vgic = Self::new(vcpus, spis);
        match version {
            Version::V2 => vgic.into_v2(),
            Version::V3 => vgic,
        }
    }

    /// Its version.
    pub const fn version(&self) -> Version {
        match self.v2 {
            Some(_) => Version::V2,
            None => Version::V3,
        }
    }

    /// Number of vCPUs.
    pub fn vcpus(&self) -> usize {
        self.cpus.len()
    }

    /// Number of shared interrupts.
    pub fn spis(&self) -> usize {
        self.banks
            .len()
            .saturating_sub(self.cpus.len())
            .saturating_mul(32)
    }

    /// Index of the bank of INTIDs 32·`word` and up, as `vcpu` sees it.
    #[inline]
    fn index(&self, vcpu: usize, word: usize) -> Option<usize> {
        let index = match word.checked_sub(1) {
            None if vcpu < self.cpus.len() => vcpu,
            None => return None,
            Some(shared) => self.cpus.len().checked_add(shared)?,
        };
        (index < self.banks.len()).then_some(index)
    }

    /// Bank index and bit number of an interrupt, as `vcpu` sees it.
    #[inline]
    fn find(&self, vcpu: usize, intid: u32) -> Option<(usize, u32)> {
        let index = self.index(vcpu, (intid >> 5) as usize)?;
        Some((index, intid & 31))
    }

    /// The word (INTID / 32) that a bank serves.
    fn word(&self, index: usize) -> u32 {
        match index.checked_sub(self.cpus.len()) {
            None => 0,
            Some(shared) => (shared as u32).wrapping_add(1),
        }
    }

    /// Recomputes what a bank wants of each vCPU, after any change; those who got more to do.
    fn refresh(&mut self, index: usize) -> Kicks {
        if index < self.cpus.len() {
            return self.refresh_private(index);
        }
        let word = bit(self.word(index));
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        let Wanted { forwarded, active } = bank.settle(self.groups);
        if bank.has_chores() {
            self.chores |= word;
        }
        let mut kicks = Kicks::NONE;
        let routed = bank.home.iter().zip(&bank.held).zip(&mut bank.wanted);
        for (vcpu, (((home, held), wanted), cpu)) in routed.zip(&mut self.cpus).enumerate() {
            let now = forwarded & home | active & held;
            if now & !*wanted != 0 {
                kicks |= Kicks::one(vcpu);
            }
            *wanted = now;
            cpu.note(word, now);
        }
        kicks
    }

    /// The same for the private bank of a vCPU, which every SGI and every timer's tick changes.
    fn refresh_private(&mut self, vcpu: usize) -> Kicks {
        let (Some(bank), Some(cpu)) = (self.banks.get_mut(vcpu), self.cpus.get_mut(vcpu)) else {
            return Kicks::NONE;
        };
        let Wanted { forwarded, active } = bank.settle(self.groups);
        let chores = bank.has_chores();
        let (Some(held), Some(wanted)) = (bank.held.get(vcpu), bank.wanted.get_mut(vcpu)) else {
            return Kicks::NONE;
        };
        let now = forwarded | active & held;
        let more = now & !*wanted != 0;
        *wanted = now;
        cpu.note(bit(0), now);
        cpu.resync |= chores;
        if more || chores {
            Kicks::one(vcpu)
        } else {
            Kicks::NONE
        }
    }

    /// Marks the list registers that hold any of these as outdated; the vCPUs concerned.
    #[inline]
    fn resync(&mut self, index: usize, bits: u32) -> Kicks {
        let listed = match self.banks.get(index) {
            Some(bank) if bits & bank.listed != 0 => bits & bank.listed,
            _ => return Kicks::NONE,
        };
        // A private bank's are listed by its own vCPU.
        if let Some(cpu) = self.cpus.get_mut(index) {
            cpu.resync = true;
            return Kicks::one(index);
        }
        self.outdate(index, listed)
    }

    fn outdate(&mut self, index: usize, listed: u32) -> Kicks {
        let mut kicks = Kicks::NONE;
        let Some(bank) = self.banks.get(index) else {
            return kicks;
        };
        for (vcpu, (held, cpu)) in bank.held.iter().zip(&mut self.cpus).enumerate() {
            if held & listed != 0 {
                cpu.resync = true;
                kicks |= Kicks::one(vcpu);
            }
        }
        kicks
    }

    /// Sets the level of an interrupt input. Level-sensitive: pending while high. Edge-triggered:
    /// a rise latches. Lines that don't exist are ignored.
    pub fn set_line(&mut self, line: Line, level: bool) -> Kicks {
        let found = match line {
            Line::Spi(intid) if intid >= 32 => self.find(0, intid),
            Line::Ppi { vcpu, intid } if (16..32).contains(&intid) => self.find(vcpu, intid),
            _ => None,
        };
        let Some((index, n)) = found else {
            return Kicks::NONE;
        };
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        let this = bit(n);
        if (bank.line & this != 0) == level {
            return Kicks::NONE;
        }
        bank.line ^= this;
        let edge = bank.edge & this != 0;
        if level && edge {
            bank.latch |= this;
        }
        // A level that rises while listed is seen at its deactivation; one that falls must be
        // retracted if the guest hasn't taken it; an edge makes it pending again. The end of a
        // hardware-linked one isn't seen.
        let kicks = if level == edge || bank.hardware & this != 0 {
            self.resync(index, this)
        } else {
            Kicks::NONE
        };
        kicks | self.refresh(index)
    }

    /// A pulse on an interrupt input: up and down again. An edge-triggered one latches.
    pub fn pulse(&mut self, line: Line) -> Kicks {
        self.set_line(line, true) | self.set_line(line, false)
    }

    /// A message: a [`pulse`](Self::pulse) on a shared interrupt whose end is to be reported ([`Deactivated::Line`]).
    pub fn message(&mut self, intid: u32) -> Kicks {
        if intid >= 32
            && let Some((index, n)) = self.find(0, intid)
            && let Some(bank) = self.banks.get_mut(index)
        {
            bank.watched |= bit(n);
        }
        self.pulse(Line::Spi(intid))
    }

    /// The physical interrupt `physical_intid` was acknowledged at EL2, its priority dropped, and
    /// it stays active until the guest deactivates the virtual `intid` (HW = 1), typically the
    /// virtual timer's. Should the guest never do that ([`Deactivated::Physical`]), EL2 must.
    /// Interrupts that don't exist and SGIs are ignored: deactivate the physical one, then.
    pub fn hardware_interrupt(&mut self, vcpu: usize, intid: u32, physical_intid: u32) -> Kicks {
        let Some((index, n)) = self.find(vcpu, intid).filter(|_| intid >= 16) else {
            return Kicks::NONE;
        };
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        bank.latch_hardware(n, physical_intid as u16);
        if bank.listed & bit(n) != 0 {
            // Nobody wants what is listed: the rest is computed when it is taken back.
            return self.resync(index, bit(n));
        }
        self.refresh(index)
    }

    /// The level of a private interrupt's physical source is low: unless the guest has taken it, it isn't pending any more, and the
    /// physical one is reported by the next [`collect`](Self::collect), before which this is to be called. Nothing happens if it isn't linked to a
    /// physical one.
    pub fn hardware_withdrawn(&mut self, vcpu: usize, intid: u32) {
        let Some((index, n)) = self.find(vcpu, intid).filter(|_| intid < 32) else {
            return;
        };
        match self.banks.get_mut(index) {
            Some(bank) if bank.hardware & bit(n) != 0 => bank.clear_pending(bit(n)),
            _ => return,
        }
        // Of a private interrupt nobody is told but the vCPU itself.
        let _ = self.resync(index, bit(n)) | self.refresh(index);
    }

    /// A shared interrupt whose physical one is masked and inactive: it is pending, and its end is reported
    /// ([`Deactivated::Line`]), whether it is edge-triggered or not. Interrupts that don't exist and private ones are ignored.
    pub fn reported_interrupt(&mut self, intid: u32) -> Kicks {
        let Some((index, n)) = self.find(0, intid).filter(|_| intid >= 32) else {
            return Kicks::NONE;
        };
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        bank.watched |= bit(n);
        bank.latch |= bit(n);
        self.resync(index, bit(n)) | self.refresh(index)
    }

    /// The vCPU that a shared interrupt is routed to, if to one that there is.
    pub fn home(&self, intid: u32) -> Option<usize> {
        let (index, n) = self.find(0, intid).filter(|_| intid >= 32)?;
        let homes = &self.banks.get(index)?.home;
        homes.iter().position(|home| home & bit(n) != 0)
    }

    /// The private interrupts of a vCPU whose physical ones (second number) are active and wait
    /// for the guest: what moves along when the vCPU moves to another CPU (there: made active by
    /// GICR_ISACTIVER0, here: deactivated). Collect first.
    pub fn hardware_in_flight(&self, vcpu: usize) -> impl Iterator<Item = (u32, u32)> {
        let bank = self.index(vcpu, 0).and_then(|index| self.banks.get(index));
        bank.into_iter()
            .flat_map(|bank| Bits(bank.hardware).map(|n| (n, u32::from(bank.physical(n)))))
    }

    /// The guest's write to ICC_SGI1R_EL1 (12.2 "ICC_SGI1R_EL1"): a target list (15:0) of Aff0
    /// values from 16·RS (47:44) on, Aff1 (23:16), Aff2 (39:32), Aff3 (55:48), INTID (27:24);
    /// or everyone but itself (IRM, bit 40).
    #[inline]
    pub fn sgi1r_write(&mut self, from_vcpu: usize, value: u64) -> Kicks {
        self.send_sgi(from_vcpu, value, true)
    }

    /// The same for ICC_SGI0R_EL1 and ICC_ASGI1R_EL1, which reach only SGIs in group 0.
    pub fn sgi0r_write(&mut self, from_vcpu: usize, value: u64) -> Kicks {
        self.send_sgi(from_vcpu, value, false)
    }

    #[inline]
    fn send_sgi(&mut self, from: usize, value: u64, group1: bool) -> Kicks {
        let everyone = u32::MAX.wrapping_shl(self.cpus.len() as u32) ^ u32::MAX;
        let targets = if value & 1 << 40 != 0 {
            everyone & !Kicks::one(from).mask()
        } else if value & 0x00ff_f0ff_00ff_0000 != 0 {
            0 // Aff3, RS, Aff2, Aff1: nobody lives there.
        } else {
            everyone & value as u32 & 0xffff
        };
        if targets == 0 {
            return Kicks::NONE;
        }
        self.latch_sgi(targets, (value >> 24) as u32 & 15, group1)
    }

    fn latch_sgi(&mut self, targets: u32, sgi: u32, group1: bool) -> Kicks {
        let this = bit(sgi);
        let mut kicks = Kicks::NONE;
        for vcpu in Bits(targets) {
            let vcpu = vcpu as usize; // its private bank's index, too
            let Some(bank) = self.banks.get_mut(vcpu) else {
                continue;
            };
            if group1 || bank.group & this == 0 {
                bank.latch |= this;
                kicks |= self.resync(vcpu, this) | self.refresh(vcpu);
            }
        }
        kicks
    }

    /// Whether anything is to be done for this vCPU before it goes on: collect, then deliver.
    #[inline]
    pub fn needs_sync(&self, vcpu: usize) -> bool {
        match self.cpus.get(vcpu) {
            Some(cpu) => cpu.summary | self.chores != 0 || cpu.resync,
            None => false,
        }
    }

    /// Whether an interrupt would be signalled to this vCPU if it ran: one that waits here, or
    /// one pending in these list registers (as they were last seen). It ends a WFI, whatever
    /// PSTATE.I says. The running priority isn't considered, so a WFI within a handler may end
    /// early, as it always may.
    pub fn pending_for(&self, vcpu: usize, cpu: CpuInterface, lists: &ListRegisters) -> bool {
        let listed = lists.entries().any(|entry| {
            entry.pending() && !entry.active() && cpu.signals(entry.priority(), entry.group1())
        });
        listed || self.waiting(vcpu, cpu)
    }

    fn waiting(&self, vcpu: usize, cpu: CpuInterface) -> bool {
        let summary = self.cpus.get(vcpu).map_or(0, |cpu| cpu.summary);
        Bits(summary).any(|word| {
            let index = self.index(vcpu, word as usize);
            let Some(bank) = index.and_then(|index| self.banks.get(index)) else {
                return false;
            };
            let wanted = bank.wanted.get(vcpu).copied().unwrap_or(0) & !bank.active;
            Bits(wanted).any(|n| cpu.signals(bank.priority(n), bank.group & bit(n) != 0))
        })
    }

    /// Resets a vCPU's redistributor, for PSCI CPU_ON or CPU_OFF. Its list registers are void
    /// (give it empty ones): shared interrupts that were pending in them wait for another vCPU
    /// or for this one, shared ones it had active aren't any more. Input levels stay.
    ///
    /// Physical interrupts that its private ones were linked to are reported by its next
    /// [`collect`](Self::collect), so on CPU_OFF call both before the vCPU leaves its CPU.
    pub fn reset_vcpu(&mut self, vcpu: usize) -> Kicks {
        let Some(cpu) = self.cpus.get_mut(vcpu) else {
            return Kicks::NONE;
        };
        *cpu = Cpu {
            asleep: true,
            ..Cpu::default()
        };
        let private = self.cpus.len();
        let mut kicks = Kicks::NONE;
        for index in 0..self.banks.len() {
            let Some(bank) = self.banks.get_mut(index) else {
                break;
            };
            if index == vcpu {
                let mut fresh = Bank::new(SGIS, vcpu);
                fresh.line = bank.line;
                if let Some(v2) = &mut self.v2 {
                    v2.reset(vcpu, &mut fresh);
                }
                core::mem::swap(bank, &mut fresh);
                bank.inherit(&fresh);
            } else if index >= private {
                bank.abandon(vcpu);
            } else {
                continue;
            }
            kicks |= self.refresh(index);
        }
        kicks
    }
}
