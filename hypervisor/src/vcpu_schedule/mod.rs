//! Which vCPU runs on which CPU: the part that decides.
//!
//! CPUs belong to pools, and each pool has one algorithm ([`VcpuAlgorithm`]), which can be exchanged while it runs. [`Pool`] knows where
//! every vCPU is (asleep, in the queue, on a CPU), the algorithm only who comes first. So an algorithm can be wrong about fairness but
//! can't lose a vCPU or run one twice, and what is common to all (idle CPUs, hand-over, affinity, timers, accounting) is written once.
//!
//! The ready vCPUs of a pool wait in *one* queue for all its CPUs, so no balancing is needed: a CPU without work takes whatever waits.
//! The price is one lock for each pool; it is taken when a vCPU sleeps, wakes or is switched, never on the way through an ordinary exit.
//!
//! Not here: registers, locks, interrupts. `system/schedule.rs` carries decisions out.

mod cpus;
mod deadline;
mod null;
pub mod placing;
mod pool;
mod ready;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod weighted;

pub use cpus::{CpuSet, MAX_CPUS};
pub use deadline::Deadline;
pub use null::Null;
pub use pool::{Decision, Place, Pool, Removal, VcpuReport};
pub use weighted::Weighted;

use alloc::boxed::Box;
use coproc_core::algorithm::AlgorithmError;
use coproc_core::time::{Duration, Instant};

/// A vCPU within its pool: a small number, given by [`Pool::add`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VcpuId(pub u16);

impl VcpuId {
    /// As an index.
    pub const fn slot(self) -> usize {
        self.0 as usize
    }
}

/// What the configuration says about one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Its share. Algorithms take what they know of it and ignore the rest.
    pub share: coproc_core::algorithm::Parameters,
    /// The CPUs that it may run on; those outside its pool are of no effect.
    pub affinity: CpuSet,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            share: coproc_core::algorithm::Parameters::default(),
            affinity: CpuSet::ALL,
        }
    }
}

/// Why something about a vCPU or its pool can't be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ScheduleError {
    /// A parameter is out of range.
    #[error("{name} is out of range: expected {expected}")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What would have been accepted.
        expected: &'static str,
    },
    /// The algorithm can't promise what is asked for besides what it promised already.
    #[error("{0}")]
    NotAdmitted(&'static str),
    /// None of the pool's CPUs is in the affinity.
    #[error("none of the pool's CPUs is in the affinity")]
    NoCpu,
    /// No such vCPU.
    #[error("no such vCPU in this pool")]
    Unknown,
    /// No memory for it.
    #[error("no memory for another vCPU")]
    NoMemory,
}

impl From<AlgorithmError> for ScheduleError {
    fn from(error: AlgorithmError) -> Self {
        match error {
            AlgorithmError::OutOfRange { name, expected } => Self::OutOfRange { name, expected },
            AlgorithmError::NotAdmitted(why) => Self::NotAdmitted(why),
            AlgorithmError::Duplicate(_) | AlgorithmError::Unknown(_) => Self::Unknown,
        }
    }
}

/// A scheduling algorithm for the vCPUs of one pool.
///
/// A vCPU is added asleep. Awake, it is either *queued* ([`Self::put`]) or runs ([`Self::pick`], [`Self::take`]); the pool tells which. The
/// pool calls nothing for a vCPU that it didn't add, and each call only in the state that it names. Guests cause every call but
/// [`Self::add`], [`Self::remove`] and [`Self::set_parameters`]: only these may take memory.
pub trait VcpuAlgorithm: Send {
    /// Its name, as `scheduler` in the device tree has it.
    fn name(&self) -> &'static str;

    /// Admits a vCPU, asleep. `parameters.affinity` has at least one CPU of the pool, and no other.
    ///
    /// # Errors
    /// [`ScheduleError`].
    fn add(&mut self, who: VcpuId, parameters: &Parameters) -> Result<(), ScheduleError>;

    /// Forgets a vCPU that is asleep.
    fn remove(&mut self, who: VcpuId);

    /// Changes a vCPU that isn't queued; nothing is changed on an error.
    ///
    /// # Errors
    /// [`ScheduleError`].
    fn set_parameters(&mut self, who: VcpuId, parameters: &Parameters)
    -> Result<(), ScheduleError>;

    /// Where it may run now: its affinity, or less.
    fn eligible(&self, who: VcpuId) -> CpuSet;

    /// The CPU on which it comes before others more than elsewhere, if there is one: it is put there if it preempts there.
    fn home(&self, _who: VcpuId) -> Option<usize> {
        None
    }

    /// One that slept is awake; it'll be queued or run next.
    fn wake(&mut self, who: VcpuId, now: Instant);

    /// One that ran sleeps.
    fn sleep(&mut self, who: VcpuId, now: Instant);

    /// Into the queue.
    fn put(&mut self, who: VcpuId, now: Instant);

    /// Out of the queue.
    fn take(&mut self, who: VcpuId);

    /// The best for this CPU in the queue.
    fn best(&mut self, cpu: usize, now: Instant) -> Option<VcpuId>;

    /// Takes the best for this CPU out of the queue: it runs from now on.
    fn pick(&mut self, cpu: usize, now: Instant) -> Option<VcpuId>;

    /// One that runs used a CPU for `time`, up to `now`.
    fn charge(&mut self, who: VcpuId, time: Duration, now: Instant);

    /// Whether `who`, which is awake and may run on `cpu`, shall run there at once instead of `running`.
    fn preempts(&self, who: VcpuId, running: VcpuId, cpu: usize, now: Instant) -> bool;

    /// How much longer one that has run for `ran` may keep `cpu`; `None`: nobody waits for that CPU, so no timer is needed.
    fn turn(&self, who: VcpuId, cpu: usize, ran: Duration) -> Option<Duration>;

    /// When `cpu` has to ask again though no turn is over: one that waits comes first from then on.
    fn next_event(&self, _cpu: usize) -> Option<Instant> {
        None
    }
}

pub use crate::config::pools::algorithm::NAMES;

/// Makes an algorithm for a pool with these CPUs, by its exact name.
pub fn by_name(name: &str, cpus: CpuSet) -> Option<Box<dyn VcpuAlgorithm>> {
    match name {
        weighted::NAME => Some(Box::new(Weighted::new())),
        deadline::NAME => Some(Box::new(Deadline::new(cpus))),
        null::NAME => Some(Box::new(Null::new(cpus))),
        _ => None,
    }
}
