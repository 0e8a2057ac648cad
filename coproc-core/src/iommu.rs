//! The interface that an IOMMU plugs in through.
//!
//! An *address space* is a set of stage-2 tables with an identity of its own (SMMU: a VMID). It
//! holds ordinary memory only: a domain's RAM, or one vcoproc's save area; never register windows. A
//! *stream* (one master) points at one address space, or at nothing: abort, the state that every stream
//! starts in and that a switch passes through twice.
//!
//! Changing where a stream points takes effect only once [`Iommu::sync`] said [`Step::Done`];
//! until then the hardware may still use the old tables. Nothing here waits: the caller asks again later.

use crate::address::{DeviceAddress, HostPhysical};
use crate::driver::Step;
use crate::id::{SpaceId, StreamId};

/// One contiguous piece of memory in an address space. All three values are multiples of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// Where the device sees it.
    pub device: DeviceAddress,
    /// Where it is.
    pub host: HostPhysical,
    /// Length in bytes.
    pub size: u64,
}

/// Where a stream's transactions go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// Nowhere: each is ended with an abort, unrecorded.
    Abort,
    /// Through the tables of this address space; what they don't map is a recorded fault.
    Space(SpaceId),
}

/// What the IOMMU recorded against one stream since it was last asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Number of fault events. One bad transfer can cause many (QEMU's SMMU: one for every 4 bytes).
    pub count: u64,
    /// The device address of the latest event.
    pub last: Option<DeviceAddress>,
    /// Whether the latest event was a write.
    pub write: bool,
    /// Events were lost by an overflow of the hardware's queue, so `count` is a lower bound.
    /// The hardware doesn't say whose they were: it is set for every stream that was not on abort.
    pub overflow: bool,
}

impl Faults {
    /// Whether anything was recorded.
    pub const fn any(&self) -> bool {
        self.count != 0
    }
}

/// Why an IOMMU refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IommuError {
    /// No memory for tables.
    #[error("no memory left for IOMMU tables")]
    OutOfMemory,
    /// All address-space identities (SMMU: VMIDs; IPMMU: contexts) are taken.
    #[error("all of the IOMMU's address spaces are in use")]
    OutOfSpaces,
    /// The stream number is outside what this IOMMU serves.
    #[error("{0} is outside the IOMMU's range")]
    UnknownStream(StreamId),
    /// No such address space.
    #[error("{0} does not exist")]
    UnknownSpace(SpaceId),
    /// The space is still pointed at by a stream.
    #[error("{0} is still in use by a stream")]
    SpaceInUse(SpaceId),
    /// A mapping isn't page-aligned, is empty, overlaps another one or exceeds the input or output address size.
    #[error(
        "mapping of {size:#x} bytes at device address {device} is misaligned, overlapping or out of range"
    )]
    BadMapping {
        /// Start, as the device sees it.
        device: DeviceAddress,
        /// Length in bytes.
        size: u64,
    },
    /// The hardware lacks something (stage 2, a format), or reported an error that can't be cleared.
    #[error("IOMMU hardware: {0}")]
    Hardware(&'static str),
}

/// One IOMMU instance.
pub trait Iommu: Send {
    /// Makes an address space that maps `mappings`, readable and writable, and nothing else.
    ///
    /// # Errors
    /// [`IommuError::OutOfMemory`], [`IommuError::OutOfSpaces`], [`IommuError::BadMapping`]; nothing is left behind.
    fn create_space(&mut self, mappings: &[Mapping]) -> Result<SpaceId, IommuError>;

    /// Ends an address space; its identity and tables are reused only after an invalidation completed.
    /// Call [`Iommu::sync`] until done before the memory that it mapped is given to anybody else.
    ///
    /// # Errors
    /// [`IommuError::UnknownSpace`], [`IommuError::SpaceInUse`].
    fn destroy_space(&mut self, space: SpaceId) -> Result<(), IommuError>;

    /// How many address spaces there are, those included that are destroyed and not forgotten yet.
    fn spaces(&self) -> usize;

    /// Points `stream` at `target` and queues the invalidations for it. Does not wait: see [`Iommu::sync`].
    ///
    /// # Errors
    /// [`IommuError::UnknownStream`], [`IommuError::UnknownSpace`], [`IommuError::Hardware`].
    fn point(&mut self, stream: StreamId, target: Target) -> Result<(), IommuError>;

    /// Whether everything queued up to now has taken effect: `Done`, or `Again` (asked too early), or
    /// `Failed` (the IOMMU no longer answers). Bounded work per call; never spins.
    fn sync(&mut self) -> Step;

    /// Reads the hardware's fault records, at most a bounded number per call, into the per-stream accounts.
    /// Returns whether records may be left. Also to be called from the IOMMU's interrupt.
    fn collect_faults(&mut self) -> bool;

    /// Takes what was recorded against `stream` out of its account.
    fn take_faults(&mut self, stream: StreamId) -> Faults;
}
