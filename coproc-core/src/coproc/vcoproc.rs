//! What the framework itself keeps about one vcoproc; its context is the driver's.

use super::report::{Counters, Spreads};
use crate::id::{DomainId, VcoprocId};
use crate::time::Instant;

/// One domain's share in a coprocessor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vcoproc {
    pub(super) id: VcoprocId,
    pub(super) domain: DomainId,
    /// Has work, as the algorithm was told.
    pub(super) awake: bool,
    /// Has accessed the device at least once.
    pub(super) used: bool,
    /// A vCPU waits on an access.
    pub(super) parked: bool,
    /// Lost the device, and why.
    pub(super) faulted: Option<&'static str>,
    /// On its way out.
    pub(super) detaching: bool,
    /// Since when it has work and isn't current; while it is either of the two, when it last became so.
    pub(super) waits_since: Instant,
    pub(super) counters: Counters,
    pub(super) spreads: Spreads,
}

impl Vcoproc {
    pub(super) fn new(id: VcoprocId, domain: DomainId) -> Self {
        Self {
            id,
            domain,
            awake: false,
            used: false,
            parked: false,
            faulted: None,
            detaching: false,
            waits_since: Instant::from_nanos(0),
            counters: Counters::default(),
            spreads: Spreads::EMPTY,
        }
    }

    /// Whether it may use the device.
    pub(super) const fn alive(&self) -> bool {
        self.faulted.is_none() && !self.detaching
    }
}
