//! What a record consists of.

use crate::algorithm::Parameters;
use crate::coproc::{Detach, Outcome, Settings};
use crate::driver::{Failure, Step};
use crate::environment::{self, Stream};
use crate::id::{CoprocId, DomainId, VcoprocId};
use crate::iommu::Faults;
use crate::register::{Access, Width};
use crate::time::Instant;

/// What stands where a text was that only people read.
pub(super) const TEXT: &str = "as recorded";

/// How the coprocessor was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header<'a> {
    /// Its id.
    pub id: CoprocId,
    /// Name of its driver.
    pub driver: &'a str,
    /// Name of its algorithm.
    pub algorithm: &'a str,
    /// Its settings.
    pub settings: Settings,
    /// When its books begin.
    pub now: Instant,
}

/// One line of a record, after the header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event<'a> {
    /// Something is fed into the framework.
    Input(Input<'a>),
    /// The framework calls its environment or the device.
    Call(Call),
    /// Who has the device now, where that changed by the input.
    Current(Option<VcoprocId>),
    /// The framework's answer to the input.
    Answer(Answer),
    /// The record ends here, for want of room.
    Full,
}

/// What is fed into the framework: the methods of [`Coproc`](crate::Coproc).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input<'a> {
    /// `start`
    Start,
    /// `attach`
    Attach(VcoprocId, DomainId, Parameters),
    /// `detach`
    Detach(VcoprocId),
    /// `set_parameters`
    Parameters(VcoprocId, Parameters),
    /// `tune`
    Tune(Settings),
    /// `replace_algorithm`, by the algorithm's name
    Algorithm(&'a str),
    /// `timer`
    Timer,
    /// `access`
    Access(VcoprocId, Access),
    /// `interrupt`
    Interrupt(usize),
    /// `resample`
    Resample(VcoprocId, usize),
    /// `interrupt_pending`
    Pending(VcoprocId, usize),
    /// `windows_changed`
    WindowsChanged(VcoprocId),
    /// `collect_faults`
    CollectFaults,
}

/// The framework's answer to an input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing, or success.
    Done,
    /// An error. Which one isn't recorded.
    Failed,
    /// A truth.
    Is(bool),
    /// A detach that goes on.
    Pending,
    /// An access's.
    Outcome(Outcome),
}

impl From<bool> for Answer {
    fn from(truth: bool) -> Self {
        Self::Is(truth)
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl<E> From<&Result<(), E>> for Answer {
    fn from(result: &Result<(), E>) -> Self {
        result.as_ref().map_or(Self::Failed, |()| Self::Done)
    }
}

impl<E> From<&Result<Detach, E>> for Answer {
    fn from(result: &Result<Detach, E>) -> Self {
        match result {
            Ok(Detach::Done) => Self::Done,
            Ok(Detach::Pending) => Self::Pending,
            Err(_) => Self::Failed,
        }
    }
}

/// A call of [`Environment`](crate::Environment) or [`Hardware`](crate::driver::Hardware), with its answer last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    /// `now`
    Now(Instant),
    /// `arm_timer`
    ArmTimer(Option<Instant>),
    /// `mask_interrupts`
    Mask(bool),
    /// `interrupt_asserted`
    Asserted(usize, bool),
    /// `interrupts_settled`
    Settled(bool),
    /// `map_windows`
    Map(VcoprocId, bool),
    /// `unmap_windows`
    Unmap(VcoprocId),
    /// `point_streams`; whether it succeeded
    Point(Stream, bool),
    /// `sync_streams`
    Sync(Step),
    /// `take_faults`
    Faults(Option<Faults>),
    /// `set_interrupt`: a virtual line
    Line(VcoprocId, usize, bool),
    /// `release_parked`
    Release(VcoprocId),
    /// `notify`
    Notify(VcoprocId, Told),
    /// A read of the device: window, offset, width; the value
    Read(usize, u64, Width, u64),
    /// A write to the device
    Write(usize, u64, Width, u64),
}

/// [`environment::Event`] without its text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// The vcoproc is faulted.
    Faulted,
    /// The coprocessor is quarantined.
    Quarantined,
    /// The IOMMU recorded faults.
    IommuFault(Faults),
}

impl From<environment::Event> for Told {
    fn from(event: environment::Event) -> Self {
        match event {
            environment::Event::Faulted(_) => Self::Faulted,
            environment::Event::Quarantined(_) => Self::Quarantined,
            environment::Event::IommuFault(faults) => Self::IommuFault(faults),
        }
    }
}

/// A step's answer without its text.
pub(super) const fn plain(step: Step) -> Step {
    match step {
        Step::Failed(_) => Step::Failed(Failure(TEXT)),
        other => other,
    }
}

impl Call {
    /// The call as it is asked, with nothing in the place of its answer.
    pub(super) fn question(self) -> Self {
        match self {
            Self::Now(_) => Self::Now(Instant::default()),
            Self::Asserted(index, _) => Self::Asserted(index, false),
            Self::Settled(_) => Self::Settled(false),
            Self::Map(who, _) => Self::Map(who, false),
            Self::Point(target, _) => Self::Point(target, false),
            Self::Sync(_) => Self::Sync(Step::Done),
            Self::Faults(_) => Self::Faults(None),
            Self::Read(window, offset, width, _) => Self::Read(window, offset, width, 0),
            told => told,
        }
    }
}
