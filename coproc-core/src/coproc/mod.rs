//! One shared coprocessor: the switch between its vcoprocs, driven by events.
//!
//! Many domains use one device that can hold one context. This module decides when whose context is in it, and
//! carries that out so that no domain ever sees another one's bytes, interrupts or DMA. All of it is
//! one [`Coproc`] value that events are fed into (an access, a timer, an interrupt, management); each event does a bounded
//! number of short steps and returns. The caller holds the coprocessor's lock around each call and passes its
//! [`Environment`]; nothing here locks, waits or knows which CPU it runs on.
//!
//! - [`state`](State): what there is to wait for, as data.
//! - `switch`: the steps, in the order of the architecture's *The switch*.
//! - `escalate`: what happens when a step fails: one vcoproc loses the device, in the worst case all of them, never the hypervisor.
//! - `access`: a domain's trapped access.
//! - `interrupt`: whose interrupt it is; the virtual lines.
//! - [`Ledger`], [`Record`], [`Report`]: what can be asked about it.
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

mod access;
mod escalate;
mod interrupt;
mod ledger;
mod report;
mod situation;
mod state;
mod switch;
mod trace;
mod vcoproc;

use alloc::boxed::Box;
use alloc::vec::Vec;

pub use access::Outcome;
pub use ledger::{Account, Bucket, Ledger, Totals};
pub use report::{BUCKETS, Condition, Counters, Report, Spread, VcoprocReport};
pub use situation::{Situation, Standing};
pub use state::{AbortPhase, Reason, ResetPhase, RestPhase, RestorePhase, SavePhase, Slice, State};
pub use trace::{CAPACITY, Record};

use crate::algorithm::{Algorithm, AlgorithmError, Parameters, Tuning};
use crate::driver::{Driver, DriverError, WorstCase};
use crate::environment::{Environment, Stream};
use crate::id::{CoprocId, DomainId, Epoch, VcoprocId};
use crate::iommu::IommuError;
use crate::time::{Duration, Instant};
use vcoproc::Vcoproc;

/// What the configuration says about a coprocessor; start from [`Settings::of`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Length of a slice, before refusals.
    pub slice: Duration,
    /// Longest time that the device may refuse before it is stopped by force.
    pub refusal_bound: Duration,
    /// Longest time that one with work waits in favour of more important ones, for algorithms that know importance.
    pub starvation_bound: Option<Duration>,
}

impl Settings {
    /// The driver's own defaults.
    pub fn of(driver: &dyn Driver) -> Self {
        let description = driver.description();
        Self {
            slice: description.slice,
            refusal_bound: description.refusal_bound,
            starvation_bound: None,
        }
    }

    /// What an algorithm is told of these settings and of the driver's declared worst case.
    pub fn tuning(&self, driver: &dyn Driver) -> Tuning {
        let declared = driver.description().worst_case;
        Tuning {
            slice: self.slice,
            switch: declared
                .stop
                .saturating_add(declared.save)
                .saturating_add(declared.restore),
            refusal: declared.refusal,
            starvation: self.starvation_bound,
        }
    }
}

/// Why a coprocessor could not be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StartError {
    /// It runs already.
    #[error("already started")]
    Started,
    /// The driver doesn't take the device.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The streams could not be cut off.
    #[error(transparent)]
    Iommu(#[from] IommuError),
    /// The algorithm doesn't take the settings.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
}

/// Why a vcoproc could not be attached, detached or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AttachError {
    /// There is one with this id.
    #[error("{0} is attached already")]
    Duplicate(VcoprocId),
    /// There is none with this id.
    #[error("{0} is not attached")]
    Unknown(VcoprocId),
    /// The vcoproc lost the device, or is being detached.
    #[error("{0} may not use the coprocessor any more")]
    Dead(VcoprocId),
    /// The coprocessor isn't started.
    #[error("the coprocessor is not started")]
    Off,
    /// The coprocessor is quarantined.
    #[error("the coprocessor is quarantined: {0}")]
    Quarantined(&'static str),
    /// No memory.
    #[error("no memory for another vcoproc")]
    OutOfMemory,
    /// The driver refused.
    #[error(transparent)]
    Driver(#[from] DriverError),
    /// The algorithm refused.
    #[error(transparent)]
    Algorithm(#[from] AlgorithmError),
}

/// How far a detach got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Detach {
    /// The vcoproc is gone; what the hypervisor held for it may be freed.
    Done,
    /// Its context is being taken out of the device. [`Coproc::is_attached`] says when it is gone.
    Pending,
}

/// One shared coprocessor.
pub struct Coproc {
    id: CoprocId,
    driver: Box<dyn Driver>,
    algorithm: Box<dyn Algorithm>,
    settings: Settings,
    state: State,
    /// When the present state or phase was entered.
    entered: Instant,
    /// When the present step is to be asked again.
    resume: Option<Instant>,
    /// The context in the device is newer than the saved one, or must be scrubbed away.
    dirty: bool,
    /// Whose address space the streams pointed at last: whose faults those are that the IOMMU has recorded.
    suspect: Option<VcoprocId>,
    /// The last decision isn't the present algorithm's: it is to be made again.
    stale: bool,
    epoch: Epoch,
    /// Sorted by id.
    vcoprocs: Vec<Vcoproc>,
    ledger: Ledger,
    trace: trace::Ring,
    switch_since: Option<Instant>,
    step_since: Instant,
    switch_time: Spread,
    measured: WorstCase,
    refusals: u64,
    aborts: u64,
    late_interrupts: u64,
    spurious_interrupts: u64,
    unattributed_faults: u64,
}

impl Coproc {
    /// A coprocessor that isn't started. Its books begin at `now`.
    pub fn new(
        id: CoprocId,
        driver: Box<dyn Driver>,
        algorithm: Box<dyn Algorithm>,
        settings: Settings,
        now: Instant,
    ) -> Self {
        Self {
            id,
            driver,
            algorithm,
            settings,
            state: State::Off,
            entered: now,
            resume: None,
            dirty: false,
            suspect: None,
            stale: false,
            epoch: Epoch(0),
            vcoprocs: Vec::new(),
            ledger: Ledger::new(now),
            trace: trace::Ring::new(),
            switch_since: None,
            step_since: now,
            switch_time: Spread::EMPTY,
            measured: WorstCase {
                refusal: Duration::ZERO,
                stop: Duration::ZERO,
                save: Duration::ZERO,
                restore: Duration::ZERO,
            },
            refusals: 0,
            aborts: 0,
            late_interrupts: 0,
            spurious_interrupts: 0,
            unattributed_faults: 0,
        }
    }

    /// Takes the device over: interrupts masked, streams on abort, probed.
    ///
    /// # Errors
    /// [`StartError`]; the coprocessor stays off, masked and cut off.
    pub fn start(&mut self, env: &mut dyn Environment) -> Result<(), StartError> {
        if !matches!(self.state, State::Off) {
            return Err(StartError::Started);
        }
        env.mask_interrupts(true);
        env.point_streams(Stream::Abort)?;
        self.algorithm.tune(&self.settings.tuning(&*self.driver))?;
        self.driver.probe(env.hardware())?;
        self.enter(env.now(), State::Starting);
        self.advance(env);
        Ok(())
    }

    /// Gives a domain a share. It has no work yet, and costs nothing until its first access.
    ///
    /// # Errors
    /// [`AttachError`]; nothing is left behind.
    pub fn attach(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        domain: DomainId,
        parameters: &Parameters,
    ) -> Result<(), AttachError> {
        match self.state {
            State::Off => return Err(AttachError::Off),
            State::Quarantined { why } => return Err(AttachError::Quarantined(why)),
            _ => {}
        }
        let Err(at) = self.vcoprocs.binary_search_by_key(&who, |v| v.id) else {
            return Err(AttachError::Duplicate(who));
        };
        if self.vcoprocs.try_reserve(1).is_err() {
            return Err(AttachError::OutOfMemory);
        }
        self.driver.create(who)?;
        if let Err(error) = self.algorithm.add(who, parameters) {
            self.driver.destroy(who);
            return Err(error.into());
        }
        if !self.ledger.add(who) {
            // Just added, so it is known: nothing to report.
            let _ = self.algorithm.remove(who);
            self.driver.destroy(who);
            return Err(AttachError::OutOfMemory);
        }
        self.vcoprocs.insert(at, Vcoproc::new(who, domain));
        self.lower_lines(env, who);
        Ok(())
    }

    /// Takes a domain's share away: from now on its accesses fault. If its context is in the device it is taken out
    /// first, and the detach is [`Detach::Pending`].
    ///
    /// # Errors
    /// [`AttachError::Unknown`].
    pub fn detach(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
    ) -> Result<Detach, AttachError> {
        let v = self.find_mut(who).ok_or(AttachError::Unknown(who))?;
        let first = !v.detaching;
        v.detaching = true;
        v.awake = false;
        v.parked = false;
        let known = v.faulted.is_none();
        if first {
            if known {
                // Known since attach and until faulted.
                let _ = self.algorithm.remove(who);
            }
            self.lower_lines(env, who);
            env.release_parked(who);
            match self.state {
                State::Running(slice) if slice.who == who => {
                    self.slice_end(env, Reason::Detached);
                    self.advance(env);
                }
                State::Idle { resident } if resident == Some(who) => {
                    self.evict(env, who);
                    self.advance(env);
                }
                _ => {}
            }
        }
        if self.is_attached(who) && self.state.holder() != Some(who) {
            self.forget(who);
        }
        Ok(if self.is_attached(who) {
            Detach::Pending
        } else {
            Detach::Done
        })
    }

    /// Whether the vcoproc may not use the coprocessor any more: faulted, being detached, or unknown.
    pub fn has_lost(&self, who: VcoprocId) -> bool {
        !self.alive(who)
    }

    /// Whether the vcoproc exists, be it on its way out.
    pub fn is_attached(&self, who: VcoprocId) -> bool {
        self.find(who).is_some()
    }

    /// Changes one vcoproc's parameters, at once: the running slice ends early if the algorithm wants it so.
    ///
    /// # Errors
    /// [`AttachError::Unknown`], [`AttachError::Dead`], [`AttachError::Algorithm`]; the old parameters stay.
    pub fn set_parameters(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AttachError> {
        let v = self.find(who).ok_or(AttachError::Unknown(who))?;
        if !v.alive() {
            return Err(AttachError::Dead(who));
        }
        self.algorithm.set_parameters(who, parameters)?;
        self.reconsider(env);
        Ok(())
    }

    /// Changes the settings. A running slice keeps its length unless the algorithm ends it.
    ///
    /// # Errors
    /// [`AlgorithmError::OutOfRange`], [`AlgorithmError::NotAdmitted`]; the old settings stay.
    pub fn tune(
        &mut self,
        env: &mut dyn Environment,
        settings: Settings,
    ) -> Result<(), AlgorithmError> {
        self.algorithm.tune(&settings.tuning(&*self.driver))?;
        self.settings = settings;
        self.reconsider(env);
        Ok(())
    }

    /// Exchanges the algorithm. All vcoprocs move over with their parameters, those with work keep it, and the running slice is decided
    /// anew at once; what the old algorithm remembered of the past (debts, used budgets) ends with it.
    ///
    /// # Errors
    /// The new algorithm's, if it doesn't take the settings or any of the vcoprocs; the old one stays as it was.
    pub fn replace_algorithm(
        &mut self,
        env: &mut dyn Environment,
        mut algorithm: Box<dyn Algorithm>,
    ) -> Result<(), AlgorithmError> {
        let now = env.now();
        // The books of the old one are closed, even if it stays.
        self.settle(now);
        algorithm.tune(&self.settings.tuning(&*self.driver))?;
        let mut moved = Ok(());
        self.algorithm.snapshot(&mut |who, parameters, awake| {
            if moved.is_ok() {
                moved = algorithm.add(who, parameters);
                if moved.is_ok() && awake {
                    algorithm.wake(who, now);
                }
            }
        });
        moved?;
        self.algorithm = algorithm;
        self.stale = true;
        self.reconsider(env);
        Ok(())
    }

    /// What an algorithm for this coprocessor is told: the settings, and the driver's declared times.
    pub fn tuning(&self) -> Tuning {
        self.settings.tuning(&*self.driver)
    }

    /// The settings.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The timer armed by [`Environment::arm_timer`] expired. Early and stale expiries do no harm.
    pub fn timer(&mut self, env: &mut dyn Environment) {
        match self.state {
            State::Running(slice) if slice.until.is_some_and(|until| env.now() >= until) => {
                self.slice_end(env, Reason::Expired);
                self.advance(env);
            }
            State::Running(_) => self.reconsider(env),
            _ => self.advance(env),
        }
    }

    /// What it is doing.
    pub const fn state(&self) -> State {
        self.state
    }

    /// The vcoproc that has the device now.
    pub const fn current(&self) -> Option<VcoprocId> {
        match self.state {
            State::Running(slice) => Some(slice.who),
            _ => None,
        }
    }

    /// Which coprocessor this is.
    pub const fn id(&self) -> CoprocId {
        self.id
    }

    /// The driver's constant facts.
    pub fn description(&self) -> &'static crate::driver::Description {
        self.driver.description()
    }

    /// The vcoprocs and their domains, by id.
    pub fn vcoprocs(&self) -> impl Iterator<Item = (VcoprocId, DomainId)> {
        self.vcoprocs.iter().map(|v| (v.id, v.domain))
    }

    /// The parameters of every vcoproc that is scheduled, and whether it has work.
    pub fn parameters(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        self.algorithm.snapshot(visit);
    }

    /// The last slices, oldest first; the running one isn't among them.
    pub fn slices(&self) -> impl Iterator<Item = &Record> {
        self.trace.iter()
    }

    /// Slices that the trace forgot.
    pub const fn slices_lost(&self) -> u64 {
        self.trace.lost()
    }

    fn find(&self, who: VcoprocId) -> Option<&Vcoproc> {
        let at = self.vcoprocs.binary_search_by_key(&who, |v| v.id).ok()?;
        self.vcoprocs.get(at)
    }

    fn find_mut(&mut self, who: VcoprocId) -> Option<&mut Vcoproc> {
        let at = self.vcoprocs.binary_search_by_key(&who, |v| v.id).ok()?;
        self.vcoprocs.get_mut(at)
    }

    fn count(&mut self, who: VcoprocId, add: impl FnOnce(&mut Counters)) {
        if let Some(v) = self.find_mut(who) {
            add(&mut v.counters);
        }
    }

    fn alive(&self, who: VcoprocId) -> bool {
        self.find(who).is_some_and(Vcoproc::alive)
    }

    /// Ends a vcoproc whose context isn't in the device.
    fn forget(&mut self, who: VcoprocId) {
        if let Ok(at) = self.vcoprocs.binary_search_by_key(&who, |v| v.id) {
            self.vcoprocs.remove(at);
            self.driver.destroy(who);
            self.ledger.remove(who);
        }
    }
}

/// Counts one more.
const fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
