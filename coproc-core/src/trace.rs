//! What happened, one event at a time.
//!
//! A [`Report`](crate::coproc::Report) says how much; a trace says in which order, when, and why. The framework hands every
//! transition of its state machine, and everything that changes who may use the device, to
//! [`Environment::trace`](crate::Environment::trace), which keeps it or doesn't. An event is a plain copy of fixed size that borrows nothing, so
//! that keeping one costs a few stores.
//!
//! Between two transitions of one coprocessor lies the time that the later one says was [`spent`](TraceEvent::spent). The spans touch each other, so
//! from any transition to any later one they add up to the time that passed, to the nanosecond.

use crate::coproc::{Reason, Stage};
use crate::id::{CoprocId, Epoch, VcoprocId};
use crate::time::{Duration, Instant};

/// One event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceEvent {
    /// When.
    pub at: Instant,
    /// Transitions: time in the stage that ends here. Zero for all others.
    pub spent: Duration,
    /// The residence that was the last one to begin.
    pub epoch: Epoch,
    /// On which coprocessor.
    pub coproc: CoprocId,
    /// Whom it is about; a transition is about the one whose context is in the device or on its way.
    pub vcoproc: Option<VcoprocId>,
    /// What.
    pub kind: TraceKind,
}

impl TraceEvent {
    /// What fills a ring that has no events yet.
    pub const EMPTY: Self = Self {
        at: Instant::from_nanos(0),
        spent: Duration::ZERO,
        epoch: Epoch(0),
        coproc: CoprocId(0),
        vcoproc: None,
        kind: TraceKind::Tuned,
    };
}

/// What happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TraceKind {
    /// The state machine went on.
    Transition {
        /// The stage that ends.
        from: Stage,
        /// The stage that begins; the same if a slice is renewed.
        to: Stage,
        /// Why the slice ended, if one did.
        reason: Option<Reason>,
    },
    /// A domain got a vcoproc.
    Attached,
    /// A vcoproc is to go.
    Detaching,
    /// A vcoproc is gone.
    Detached,
    /// A vcoproc's parameters were changed.
    Parameters,
    /// The coprocessor's settings were changed.
    Tuned,
    /// The algorithm was exchanged for this one.
    Algorithm(&'static str),
    /// A step failed and the device is taken back by force; what failed.
    Failed(&'static str),
    /// The vcoproc lost the device for good, and why.
    Faulted(&'static str),
    /// Nobody reaches the device any more, and why.
    Quarantined(&'static str),
    /// The IOMMU recorded this many faults against the vcoproc; without one, against nobody that is still there.
    IommuFaults(u64),
    /// The physical interrupt with this index came, and is the vcoproc's: it was raised in this epoch.
    Interrupt(usize),
    /// The vcoproc left the device with interrupts pending, which went with its context: they are of this epoch, or an earlier one of its own.
    Drained,
    /// The physical interrupt with this index came when nobody could be its owner.
    LateInterrupt(usize),
    /// The physical interrupt with this index came, and the device didn't assert it.
    SpuriousInterrupt(usize),
}
