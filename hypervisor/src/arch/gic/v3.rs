//! GICv3: system registers, and the `arm-gic` crate for the rest.
//!
//! The `arm-gic` crate drives distributor and redistributors; the CPU interface runs with split priority drop and
//! deactivation (ICC_CTLR_EL1.EOImode = 1), since a hardware-linked interrupt stays active until the *guest* deactivates it.

use super::shared::is_shared;
use super::{GicError, KICK, PRIORITY};
use crate::arch::mmio::Region;
use crate::arch::processor::This;
use crate::arch::registers::{isb, read, write};
use arm_gic::gicv3::registers::{Gicd, GicrSgi};
use arm_gic::gicv3::{GicDistributor, GicRedistributor, Group};
use arm_gic::{IntId, Trigger};
use coproc_core::register::Width;
use core::ptr::NonNull;
use hypervisor::processor::signals;
use safe_mmio::UniqueMmioPointer;

/// Bytes of one redistributor: control and SGI frames (GICv3).
const REDISTRIBUTOR: u64 = 0x2_0000;

/// What ICC_IAR1_EL1 says when nothing is pending.
const NONE: u32 = 1023;

/// Routing of a shared interrupt (Arm IHI 0069, 12.9).
const GICD_IROUTER: u64 = 0x6000;

/// The distributor and where the redistributors are.
pub struct Gic {
    distributor: Region,
    redistributors: arrayvec::ArrayVec<Region, 8>,
}

fn interrupt(intid: u32) -> Result<IntId, GicError> {
    match intid {
        0..16 => Ok(IntId::sgi(intid)),
        16..32 => Ok(IntId::ppi(intid - 16)),
        32..1020 => Ok(IntId::spi(intid - 32)),
        _ => Err(GicError::NoInterrupt(intid)),
    }
}

impl Gic {
    /// The GIC with these mapped regions.
    pub fn new(distributor: Region, redistributors: arrayvec::ArrayVec<Region, 8>) -> Self {
        Self {
            distributor,
            redistributors,
        }
    }

    fn distributor(&mut self) -> Option<GicDistributor<'_>> {
        let pointer = NonNull::new(self.distributor.virtual_address() as *mut Gicd)?;
        // SAFETY: the region is mapped as device memory for as long as Baton runs, and `&mut self` makes this the only user.
        Some(GicDistributor::new(unsafe {
            UniqueMmioPointer::new(pointer)
        }))
    }

    /// The control frame of the redistributor that belongs to this CPU affinity.
    fn redistributor_frame(&self, affinity: u64) -> Result<(Region, u64), GicError> {
        for region in &self.redistributors {
            let mut offset = 0;
            while offset + REDISTRIBUTOR <= region.size() {
                let typer = u64::from(region.read32(offset + 8))
                    | u64::from(region.read32(offset + 12)) << 32;
                let found = typer >> 32;
                let wanted = (affinity >> 32 & 0xff) << 24 | affinity & 0xff_ffff;
                if found == wanted {
                    return Ok((*region, offset));
                }
                if typer & 1 << 4 != 0 {
                    break;
                }
                // GICv4 redistributors (VLPIS) have two frames more.
                offset += if typer & 2 != 0 {
                    2 * REDISTRIBUTOR
                } else {
                    REDISTRIBUTOR
                };
            }
        }
        Err(GicError::NoRedistributor(affinity))
    }

    #[inline]
    fn redistributor(&mut self, affinity: u64) -> Result<GicRedistributor<'_>, GicError> {
        let (region, offset) = self.redistributor_frame(affinity)?;
        let address = region.virtual_address() + offset as usize;
        let pointer =
            NonNull::new(address as *mut GicrSgi).ok_or(GicError::NoRedistributor(affinity))?;
        // SAFETY: as for the distributor; the frame lies within the mapped region.
        Ok(GicRedistributor::new(unsafe {
            UniqueMmioPointer::new(pointer)
        }))
    }

    /// Resets the distributor: everything disabled, group 1, affinity routing on.
    pub fn initialise(&mut self) {
        if let Some(mut distributor) = self.distributor() {
            distributor.enable_group1_non_secure(false);
            distributor.enable_affinity_routing_non_secure(true);
            distributor.configure_default_settings();
            distributor.enable_group1_non_secure(true);
        }
    }

    /// Sets up this CPU's redistributor and CPU interface.
    ///
    /// # Errors
    /// [`GicError::NoRedistributor`].
    pub fn initialise_cpu(&mut self, affinity: u64) -> Result<(), GicError> {
        let (region, offset) = self.redistributor_frame(affinity)?;
        // GICR_WAKER.ProcessorSleep: awake, then wait for the children to follow.
        region.write32(offset + 0x14, region.read32(offset + 0x14) & !2);
        for _ in 0..1_000_000 {
            if region.read32(offset + 0x14) & 4 == 0 {
                break;
            }
        }
        let mut redistributor = self.redistributor(affinity)?;
        redistributor.configure_default_settings();

        write!("icc_sre_el2", read!("icc_sre_el2") | 0b1001);
        isb(); // the system registers exist from here on
        write!("icc_ctlr_el1", read!("icc_ctlr_el1") & !1 | 0b10);
        write!("icc_pmr_el1", 0xf0);
        write!("icc_bpr1_el1", 0);
        write!("icc_igrpen1_el1", 1);
        write!("ich_hcr_el2", 1);
        write!("ich_vmcr_el2", 0);
        isb(); // in force before the first interrupt is looked for
        Ok(())
    }

    /// Enables an interrupt: private ones for the CPU with this affinity, shared ones routed to it.
    ///
    /// # Errors
    /// [`GicError`].
    pub fn enable(&mut self, intid: u32, edge: bool, affinity: u64) -> Result<(), GicError> {
        let id = interrupt(intid)?;
        let trigger = if edge { Trigger::Edge } else { Trigger::Level };
        let bad = |_| GicError::NoInterrupt(intid);
        if intid < 32 {
            let mut redistributor = self.redistributor(affinity)?;
            redistributor
                .set_interrupt_priority(id, PRIORITY)
                .map_err(bad)?;
            redistributor.set_group(id, Group::Group1NS).map_err(bad)?;
            if intid >= 16 {
                redistributor.set_trigger(id, trigger).map_err(bad)?;
            }
            redistributor.enable_interrupt(id, true).map_err(bad)
        } else {
            let mut distributor = self.distributor().ok_or(GicError::NoInterrupt(intid))?;
            distributor
                .set_interrupt_priority(id, PRIORITY)
                .map_err(bad)?;
            distributor.set_group(id, Group::Group1NS).map_err(bad)?;
            distributor.set_trigger(id, trigger).map_err(bad)?;
            distributor.set_routing(id, Some(affinity)).map_err(bad)?;
            distributor.enable_interrupt(id, true).map_err(bad)
        }
    }

    /// Its registers.
    pub(super) fn region(&self) -> &Region {
        &self.distributor
    }

    /// See [`super::Gic::route`].
    pub fn route(&mut self, intid: u32, affinity: u64) {
        if is_shared(intid) {
            let register = GICD_IROUTER + u64::from(intid) * 8;
            self.distributor
                .write(register, Width::Double, affinity & 0xff_00ff_ffff);
        }
    }

    /// Whether a private interrupt of the CPU with this affinity is active.
    pub fn private_active(&self, intid: u32, affinity: u64) -> bool {
        let Ok((region, offset)) = self.redistributor_frame(affinity) else {
            return false;
        };
        region.read32(offset + 0x1_0300) & 1 << (intid % 32) != 0
    }

    /// Makes a private interrupt of the CPU with this affinity active or inactive.
    pub fn set_private_active(&self, intid: u32, affinity: u64, active: bool) {
        if let Ok((region, offset)) = self.redistributor_frame(affinity) {
            let register = if active { 0x1_0300 } else { 0x1_0380 };
            region.write32(offset + register, 1 << (intid % 32));
        }
    }
}

/// Acknowledges the most urgent pending interrupt of this CPU, if there is one. It is active from here on.
pub fn acknowledge() -> Option<u32> {
    let intid = read!("icc_iar1_el1") as u32 & 0xff_ffff;
    (intid != NONE).then_some(intid)
}

/// Drops the running priority: the next interrupt can be acknowledged. The interrupt stays active.
pub fn drop_priority(intid: u32) {
    write!("icc_eoir1_el1", u64::from(intid));
    isb(); // the running priority is lower before the next acknowledge
}

/// Deactivates an interrupt: it can become pending again.
pub fn deactivate(intid: u32) {
    write!("icc_dir_el1", u64::from(intid));
    isb(); // inactive before its source is looked at again
}

/// Sends [`KICK`] to the CPU with this affinity. In one place: inlined, it costs its callers registers whether they kick or not.
#[inline(never)]
pub fn kick(affinity: u64) {
    signals::send(&mut This, affinity, KICK);
}
