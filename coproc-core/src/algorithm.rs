//! The interface that a scheduling algorithm plugs in through.
//!
//! An algorithm sees vcoproc ids, times and weights, never a device. It decides whether to switch, to whom
//! and for how long; the framework decides *when it may be asked* and carries the decision out. Every
//! algorithm instance belongs to one coprocessor.

use crate::id::VcoprocId;
use crate::time::{Duration, Instant};

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

/// What a coprocessor's configuration says to its algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tuning {
    /// Length of a slice, before refusals.
    pub slice: Duration,
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
/// idempotent. [`Algorithm::pick`] returns a woken vcoproc or `None`.
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

    /// The vcoproc has work from now on.
    fn wake(&mut self, who: VcoprocId, now: Instant);

    /// The vcoproc has no work from now on.
    fn sleep(&mut self, who: VcoprocId, now: Instant);

    /// The vcoproc used the coprocessor for `time`, refused time included.
    fn charge(&mut self, who: VcoprocId, time: Duration, now: Instant);

    /// Of the time charged, `time` was refused: used past the slice's end.
    fn refused(&mut self, who: VcoprocId, time: Duration, now: Instant);

    /// Who runs from now on, and for how long. `current` is the one whose context the coprocessor
    /// holds; its slice is over (or it has none) when this is asked.
    fn pick(&mut self, current: Option<VcoprocId>, now: Instant) -> Option<Pick>;

    /// Whether `woken`, which just woke, shall end the running slice of `current` at once.
    fn preempts(&self, woken: VcoprocId, current: VcoprocId, now: Instant) -> bool;

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
