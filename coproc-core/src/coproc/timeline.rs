//! The last slices: who had the device, from when to when.

use super::state::Reason;
use crate::id::{DomainId, Epoch, VcoprocId};
use crate::ring::Ring;
use crate::time::Instant;

/// Slices kept per coprocessor.
pub const CAPACITY: usize = 1024;

/// One slice that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Whose.
    pub vcoproc: VcoprocId,
    /// Its domain.
    pub domain: DomainId,
    /// Residence that it belongs to.
    pub epoch: Epoch,
    /// When it began.
    pub from: Instant,
    /// When the device was quiet again, or the slice was renewed.
    pub to: Instant,
    /// Why it ended.
    pub reason: Reason,
}

/// An empty timeline.
pub(super) fn empty() -> Ring<Record> {
    let start = Instant::from_nanos(0);
    let filler = Record {
        vcoproc: VcoprocId(0),
        domain: DomainId(0),
        epoch: Epoch(0),
        from: start,
        to: start,
        reason: Reason::Expired,
    };
    // Without memory for it there is no timeline, and everything else works.
    Ring::new(CAPACITY, filler).unwrap_or_else(Ring::none)
}
