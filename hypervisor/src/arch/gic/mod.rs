//! The physical interrupt controller, GICv2 or GICv3, whichever the machine has.
//!
//! Which one it is is known at boot and never changes. The functions that every interrupt takes ask one flag; a trait object would cost
//! more there and show nothing more.

pub mod interface;
mod shared;
pub mod v2;
mod v3;

pub use shared::SharedLine;

use super::mmio::Region;
use arrayvec::ArrayVec;
use hypervisor::vgic::Version;

/// Interrupts that CPUs send each other: look at your run queue and your vCPU's virtual interrupts.
pub const KICK: u32 = 0;
/// Of all interrupts.
const PRIORITY: u8 = 0x80;

/// Why the GIC can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GicError {
    /// No redistributor claims this CPU.
    #[error("no redistributor found for CPU affinity {0:#x}")]
    NoRedistributor(u64),
    /// The interrupt doesn't exist.
    #[error("interrupt {0} does not exist")]
    NoInterrupt(u32),
    /// The CPU hasn't told which CPU interface of a GICv2 is its own.
    #[error("CPU affinity {0:#x} has no CPU interface")]
    UnknownCpu(u64),
}

/// What is configured rarely: the distributor, and each CPU's own interrupts.
pub enum Gic {
    /// GICv3.
    V3(v3::Gic),
    /// GICv2.
    V2(v2::Gic),
}

/// Which version the machine has, and so its domains.
pub fn version() -> Version {
    if v2::in_use() {
        Version::V2
    } else {
        Version::V3
    }
}

impl Gic {
    /// A GICv3 with these mapped regions.
    pub fn v3(distributor: Region, redistributors: ArrayVec<Region, 8>) -> Self {
        Self::V3(v3::Gic::new(distributor, redistributors))
    }

    /// The GICv2 of these parts, from now on in use.
    pub fn v2(parts: v2::Parts) -> Self {
        Self::V2(v2::Gic::new(parts))
    }

    fn distributor(&self) -> &Region {
        match self {
            Self::V3(gic) => gic.region(),
            Self::V2(gic) => gic.region(),
        }
    }

    /// Resets the distributor.
    pub fn initialise(&mut self) {
        match self {
            Self::V3(gic) => gic.initialise(),
            Self::V2(gic) => gic.initialise(),
        }
    }

    /// Sets up what of the GIC is this CPU's.
    ///
    /// # Errors
    /// [`GicError`].
    pub fn initialise_cpu(&mut self, affinity: u64) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => gic.initialise_cpu(affinity),
            Self::V2(gic) => {
                gic.initialise_cpu();
                Ok(())
            }
        }
    }

    /// Enables an interrupt: private ones for the CPU with this affinity (a GICv2: for this CPU), shared ones routed to it.
    ///
    /// # Errors
    /// [`GicError`].
    pub fn enable(&mut self, intid: u32, edge: bool, affinity: u64) -> Result<(), GicError> {
        match self {
            Self::V3(gic) => gic.enable(intid, edge, affinity),
            Self::V2(gic) => gic.enable(intid, edge, affinity),
        }
    }

    /// Disables a shared interrupt, which is then neither pending nor active.
    pub fn disable(&mut self, intid: u32) {
        shared::disable(self.distributor(), intid);
    }

    /// Masks or unmasks a shared interrupt; what comes meanwhile stays pending.
    #[inline]
    pub fn mask(&mut self, intid: u32, masked: bool) {
        shared::mask(self.distributor(), intid, masked);
    }

    /// A shared interrupt, to be masked and looked at without this.
    #[cfg(feature = "sharing")]
    pub fn line(&self, intid: u32) -> SharedLine {
        SharedLine::new(*self.distributor(), intid)
    }

    /// Deactivates a shared interrupt, whichever CPU took it.
    #[inline]
    pub fn deactivate_shared(&mut self, intid: u32) {
        shared::deactivate(self.distributor(), intid);
    }

    /// Routes a shared interrupt to the CPU with this affinity.
    pub fn route(&mut self, intid: u32, affinity: u64) {
        match self {
            Self::V3(gic) => gic.route(intid, affinity),
            Self::V2(gic) => gic.route(intid, affinity),
        }
    }

    /// Whether a private interrupt of this CPU, which has this affinity, is active.
    pub fn private_active(&self, intid: u32, affinity: u64) -> bool {
        match self {
            Self::V3(gic) => gic.private_active(intid, affinity),
            Self::V2(gic) => gic.private_active(intid),
        }
    }

    /// Makes a private interrupt of this CPU, which has this affinity, active or inactive.
    pub fn set_private_active(&self, intid: u32, affinity: u64, active: bool) {
        match self {
            Self::V3(gic) => gic.set_private_active(intid, affinity, active),
            Self::V2(gic) => gic.set_private_active(intid, active),
        }
    }
}

/// Makes this CPU known to others as one that can be sent interrupts, before its own are set up.
pub fn announce(affinity: u64) {
    if v2::in_use() {
        v2::announce(affinity);
    }
}

/// Acknowledges the most urgent pending interrupt of this CPU, if there is one. It is active from here on, unless it is an SGI of a GICv2,
/// whose end must name its sender: that has ended already.
#[inline]
pub fn acknowledge() -> Option<u32> {
    if v2::in_use() {
        return v2::acknowledge();
    }
    v3::acknowledge()
}

/// Drops the running priority: the next interrupt can be acknowledged. The interrupt stays active.
#[inline]
pub fn drop_priority(intid: u32) {
    if v2::in_use() {
        return v2::drop_priority(intid);
    }
    v3::drop_priority(intid);
}

/// Deactivates an interrupt: it can become pending again.
#[inline]
pub fn deactivate(intid: u32) {
    if v2::in_use() {
        return v2::deactivate(intid);
    }
    v3::deactivate(intid);
}

/// Sends [`KICK`] to the CPU with this affinity.
#[inline]
pub fn kick(affinity: u64) {
    if v2::in_use() {
        return v2::kick(affinity);
    }
    v3::kick(affinity);
}
