//! What the framework itself keeps about one vcoproc; its context is the driver's.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use super::report::Counters;
use crate::id::{DomainId, VcoprocId};

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
    pub(super) counters: Counters,
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
            counters: Counters::default(),
        }
    }

    /// Whether it may use the device.
    pub(super) const fn alive(&self) -> bool {
        self.faulted.is_none() && !self.detaching
    }
}
