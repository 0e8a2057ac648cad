//! The interface that a scheduling algorithm plugs in through.
//!
//! An algorithm sees vcoproc ids, times and weights, never a device. It decides whether to switch, to whom
//! and for how long; the framework decides *when it may be asked* and carries the decision out. Every
//! algorithm instance belongs to one coprocessor.
//!
//! It is asked ([`Algorithm::pick`]) when a slice is over and when an idle coprocessor gets work. In between there are two
//! questions more, because the moments that matter to a budget or a deadline aren't only the ends of slices:
//! [`Algorithm::next_event`] says when the algorithm wants to be heard next, and [`Algorithm::preempts`], asked at that moment, after a
//! wake and after every change of parameters, whether the running slice shall end before its time.

use crate::id::VcoprocId;
use crate::time::{Duration, Instant};

/// No slice is shorter than this, whatever an algorithm answers, and no event of its own comes sooner.
pub const MIN_SLICE: Duration = Duration::from_micros(20);

/// What a domain's configuration says about one vcoproc. Algorithms take what they know and ignore the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Relative share of time.
    pub weight: u32,
    /// Higher runs first.
    pub priority: u32,
    /// Time reserved in each period.
    pub budget: Option<Duration>,
    /// Length of a period.
    pub period: Option<Duration>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            weight: 1,
            priority: 0,
            budget: None,
            period: None,
        }
    }
}

/// What a coprocessor's configuration and its driver say to its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Length of a slice, before refusals.
    pub slice: Duration,
    /// Longest time of one switch, as the driver declares it: stopping, saving, restoring.
    pub switch: Duration,
    /// Longest time that the device refuses to stop, as the driver declares it.
    pub refusal: Duration,
    /// Longest time that one with work shall wait in favour of more important ones; `None`: without bound.
    pub starvation: Option<Duration>,
}

impl Tuning {
    /// Slices of this length on a device that switches in no time.
    pub const fn new(slice: Duration) -> Self {
        Self {
            slice,
            switch: Duration::ZERO,
            refusal: Duration::ZERO,
            starvation: None,
        }
    }
}

/// A decision.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pick {
    /// Who runs.
    pub who: VcoprocId,
    /// For how long; `None` until something else wakes.
    pub slice: Option<Duration>,
}

/// Why an algorithm refused an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AlgorithmError {
    /// The vcoproc is already known.
    #[error("{0} is already in the queue")]
    Duplicate(VcoprocId),
    /// The vcoproc is not known.
    #[error("{0} is not known to the algorithm")]
    Unknown(VcoprocId),
    /// A parameter is out of range.
    #[error("{name} is out of range: expected {expected}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// No room for another vcoproc, in memory or by admission control.
    #[error("{0}")]
    NotAdmitted(&'static str),
}

/// A scheduling algorithm for one coprocessor.
///
/// A vcoproc is added when it is attached and starts asleep. [`Algorithm::wake`] and [`Algorithm::sleep`] are
/// idempotent. [`Algorithm::pick`] returns a woken vcoproc or `None`. Unknown ids are ignored where no error can be returned.
///
/// Domains cause every call but [`Algorithm::add`], [`Algorithm::set_parameters`] and [`Algorithm::tune`]; only these may allocate.
pub trait Algorithm: Send {
    /// Its name, as `scheduler` in the device tree has it.
    fn name(&self) -> &'static str;

    /// Admits a vcoproc, asleep.
    ///
    /// # Errors
    /// [`AlgorithmError::Duplicate`], [`AlgorithmError::OutOfRange`], [`AlgorithmError::NotAdmitted`].
    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError>;

    /// Forgets a vcoproc.
    ///
    /// # Errors
    /// [`AlgorithmError::Unknown`].
    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError>;

    /// The vcoproc has work from now on. Told again to one that is awake whenever there is new evidence of it: a
    /// doorbell, a parked access, its first touch in a slice, a busy device at the slice's end.
    fn wake(&mut self, who: VcoprocId, now: Instant);

    /// The vcoproc touched the device in the slice that ended, but nothing of it is left to do: it may be about to
    /// go on, or not. It stays awake; until the next [`Algorithm::wake`] nothing is lost to it by waiting.
    fn linger(&mut self, _who: VcoprocId, _now: Instant) {}

    /// The vcoproc has no work from now on.
    fn sleep(&mut self, who: VcoprocId, now: Instant);

    /// The vcoproc used the coprocessor for `time`, refused time included.
    fn charge(&mut self, who: VcoprocId, time: Duration, now: Instant);

    /// Of the time charged, `time` was refused: used past the slice's end.
    fn refused(&mut self, who: VcoprocId, time: Duration, now: Instant);

    /// Who runs from now on, and for how long. `current` is the one whose context the coprocessor
    /// holds; its slice is over (or it has none) when this is asked.
    fn pick(&mut self, current: Option<VcoprocId>, now: Instant) -> Option<Pick>;

    /// Whether the running slice of `current` shall end before its time. Everything up to `now` has been charged. Asked after
    /// another one woke, after a change of parameters, and when [`Algorithm::next_event`] has come. If so,
    /// [`Algorithm::pick`] follows at once and may name the same one again.
    fn preempts(&mut self, _current: VcoprocId, _now: Instant) -> bool {
        false
    }

    /// When the next answer of [`Algorithm::preempts`] or [`Algorithm::pick`] may change by the passing of time alone, other
    /// than by the end of the slice: a budget is used up or filled again, a bound on waiting is reached. Asked
    /// after every other call, so it only has to hold until then.
    fn next_event(&self, _now: Instant) -> Option<Instant> {
        None
    }

    /// Changes one vcoproc's parameters, from the next pick on.
    ///
    /// # Errors
    /// [`AlgorithmError::Unknown`], [`AlgorithmError::OutOfRange`], [`AlgorithmError::NotAdmitted`].
    fn set_parameters(
        &mut self,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AlgorithmError>;

    /// Changes the coprocessor's tuning, from the next pick on.
    ///
    /// # Errors
    /// [`AlgorithmError::OutOfRange`].
    fn tune(&mut self, tuning: &Tuning) -> Result<(), AlgorithmError>;

    /// The parameters of every vcoproc, in no order, to hand them to another algorithm or to show them.
    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool));
}
