//! One shared coprocessor: the switch between its vcoprocs, driven by events.
//!
//! Many domains use one device that can hold one context. This module decides when whose context is in it, and
//! carries that out so that no domain ever sees another one's bytes, interrupts or DMA. All of it is
//! one [`Coproc`] value that events are fed into (an access, a timer, an interrupt, management); each event does a bounded
//! number of short steps and returns. The caller holds the coprocessor's lock around each call and passes its
//! [`Environment`]; nothing here locks, waits or knows which CPU it runs on.
//!
//! - [`State`]: what there is to wait for, as data; [`Stage`]: the same as one byte, which the machine goes by.
//! - `switch`: what carries the steps, and the decisions; `leave` and `arrive`: the steps, in the order of the architecture's *The switch*.
//! - `blame`: whose fault an IOMMU's record is.
//! - `escalate`: what happens when a step fails: one vcoproc loses the device, in the worst case all of them, never the hypervisor.
//! - `stop`: ending the sharing, and beginning it again.
//! - `access`: a domain's trapped access.
//! - `interrupt`: whose interrupt it is; the virtual lines.
//! - [`Ledger`], [`Record`], [`Report`]: what can be asked about it.

mod access;
mod arrive;
mod blame;
mod escalate;
mod interrupt;
mod leave;
mod ledger;
mod report;
mod situation;
mod stage;
mod state;
mod stop;
mod switch;
mod timeline;
mod vcoproc;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::Cell;

pub use access::Outcome;
pub use ledger::{Account, Bucket, Ledger, Totals};
pub use report::{BUCKETS, Condition, Counters, Report, Spread, Spreads, VcoprocReport};
pub use situation::{Situation, Standing};
pub use stage::Stage;
pub use state::{AbortPhase, Reason, ResetPhase, RestPhase, RestorePhase, SavePhase, Slice, State};
pub use timeline::{CAPACITY, Record};

use crate::address::DeviceAddress;
use crate::algorithm::{Algorithm, AlgorithmError, Parameters, Tuning};
use crate::driver::{Description, Driver, DriverError, SAVE_AREA, WorstCase};
use crate::environment::Environment;
use crate::id::{CoprocId, DomainId, Epoch, VcoprocId};
use crate::iommu::IommuError;
use crate::ring::Ring;
use crate::time::{Duration, Instant};
use crate::trace::TraceKind;
use state::Stopping;
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
    #[inline(always)]
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
    /// The coprocessor isn't started, or is being stopped.
    #[error("the coprocessor is not shared")]
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
    /// The driver's constant facts, asked for once.
    description: &'static Description,
    algorithm: Box<dyn Algorithm>,
    settings: Settings,
    stage: Stage,
    /// Whose context is in the device or on its way, or whose work is being aborted.
    holder: Option<VcoprocId>,
    /// Running, quiescing: the slice. `who` is the holder.
    slice: Slice,
    /// Restoring: how long it may run.
    length: Option<Duration>,
    /// Restoring: the context was in the device already, only the streams are turned.
    resident: bool,
    /// Quiescing: since when, and why.
    stopping: Stopping,
    /// Aborting, resetting, quarantined: what failed.
    why: &'static str,
    /// When the present stage was entered.
    entered: Instant,
    /// When the present step is to be asked again.
    resume: Option<Instant>,
    /// The context in the device is newer than the saved one, or must be scrubbed away.
    dirty: bool,
    /// Whose address space the streams pointed at last: whose faults those are that the IOMMU has recorded.
    suspect: Option<VcoprocId>,
    /// The last decision isn't the present algorithm's: it is to be made again.
    stale: bool,
    /// It is being stopped: off when the last vcoproc has gone.
    ending: bool,
    /// It was quarantined, and not reset since.
    broken: bool,
    epoch: Epoch,
    /// Sorted by id.
    vcoprocs: Vec<Vcoproc>,
    /// Where the last one was found that something was to be done with: mostly the next one is the same.
    near: Cell<usize>,
    ledger: Ledger,
    timeline: Ring<Record>,
    switch_since: Option<Instant>,
    step_since: Instant,
    /// Of detached ones.
    switch_time_gone: Spread,
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
            description: driver.description(),
            driver,
            algorithm,
            settings,
            stage: Stage::Off,
            holder: None,
            slice: Slice {
                who: VcoprocId(0),
                epoch: Epoch(0),
                since: now,
                until: None,
                touched: false,
                claimed: false,
                mapped: false,
                exits: 0,
            },
            length: None,
            resident: false,
            stopping: Stopping {
                since: now,
                refused: false,
                reason: Reason::Expired,
            },
            why: "",
            entered: now,
            resume: None,
            dirty: false,
            suspect: None,
            stale: false,
            ending: false,
            broken: false,
            epoch: Epoch(0),
            vcoprocs: Vec::new(),
            near: Cell::new(0),
            ledger: Ledger::new(now),
            timeline: timeline::empty(),
            switch_since: None,
            step_since: now,
            switch_time_gone: Spread::EMPTY,
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
        match self.stage {
            _ if self.ending => return Err(AttachError::Off),
            Stage::Off => return Err(AttachError::Off),
            Stage::Quarantined => return Err(AttachError::Quarantined(self.why)),
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
        self.note(env, Some(who), TraceKind::Attached);
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
            self.note(env, Some(who), TraceKind::Detaching);
            if known {
                // Known since attach and until faulted.
                let _ = self.algorithm.remove(who);
            }
            self.lower_lines(env, who);
            env.release_parked(who);
            match self.stage {
                Stage::Running if self.holder == Some(who) => {
                    self.slice_end(env, Reason::Detached);
                    self.advance(env);
                }
                Stage::Idle if self.holder == Some(who) => {
                    let now = env.now();
                    self.evict(env, now, who);
                    self.advance(env);
                }
                _ => {}
            }
        }
        if self.is_attached(who) && self.holder != Some(who) {
            self.forget(env, who);
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
    #[inline(always)]
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
        self.note(env, Some(who), TraceKind::Parameters);
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
        self.note(env, None, TraceKind::Tuned);
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
        self.note(env, None, TraceKind::Algorithm(self.algorithm.name()));
        self.reconsider(env);
        Ok(())
    }

    /// What an algorithm for this coprocessor is told: the settings, and the driver's declared times.
    #[inline(always)]
    pub fn tuning(&self) -> Tuning {
        self.settings.tuning(&*self.driver)
    }

    /// The settings.
    pub const fn settings(&self) -> Settings {
        self.settings
    }

    /// The timer armed by [`Environment::arm_timer`] expired. Early and stale expiries do no harm.
    #[inline(always)]
    pub fn timer(&mut self, env: &mut dyn Environment) {
        if self.stage != Stage::Running {
            return self.advance(env);
        }
        if self.slice.until.is_none_or(|until| env.now() < until) {
            return self.reconsider(env);
        }
        self.slice_end(env, Reason::Expired);
        self.advance(env);
    }

    /// The vcoproc that has the device now.
    pub const fn current(&self) -> Option<VcoprocId> {
        match self.stage {
            Stage::Running => self.holder,
            _ => None,
        }
    }

    /// Which coprocessor this is.
    pub const fn id(&self) -> CoprocId {
        self.id
    }

    /// The driver's constant facts.
    pub const fn description(&self) -> &'static Description {
        self.description
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
        self.timeline.iter()
    }

    /// Slices that the trace forgot.
    pub fn slices_lost(&self) -> u64 {
        self.timeline.lost()
    }

    /// Where the driver finds the save area, if its device saves by DMA.
    fn save_area(&self) -> Option<DeviceAddress> {
        (self.description.save_area != 0).then_some(SAVE_AREA)
    }

    #[inline(always)]
    fn find(&self, who: VcoprocId) -> Option<&Vcoproc> {
        match self.vcoprocs.get(self.near.get()) {
            Some(v) if v.id == who => Some(v),
            _ => self.vcoprocs.get(self.search(who)?),
        }
    }

    #[inline(always)]
    fn find_mut(&mut self, who: VcoprocId) -> Option<&mut Vcoproc> {
        let near = self.near.get();
        let at = match self.vcoprocs.get(near) {
            Some(v) if v.id == who => near,
            _ => self.search(who)?,
        };
        self.vcoprocs.get_mut(at)
    }

    #[inline(never)]
    fn search(&self, who: VcoprocId) -> Option<usize> {
        let at = self.vcoprocs.binary_search_by_key(&who, |v| v.id).ok()?;
        self.near.set(at);
        // Accounts are kept in the same order.
        self.ledger.hint(at);
        Some(at)
    }

    #[inline(always)]
    fn count(&mut self, who: VcoprocId, add: impl FnOnce(&mut Counters)) {
        if let Some(v) = self.find_mut(who) {
            add(&mut v.counters);
        }
    }

    #[inline(always)]
    fn alive(&self, who: VcoprocId) -> bool {
        self.find(who).is_some_and(Vcoproc::alive)
    }

    /// Ends a vcoproc whose context isn't in the device.
    fn forget(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        if let Some(at) = self.search(who) {
            let gone = self.vcoprocs.remove(at);
            self.switch_time_gone.merge(&gone.spreads.switch);
            self.note(env, Some(who), TraceKind::Detached);
            self.driver.destroy(who);
            self.ledger.remove(who);
        }
    }
}

/// Counts one more.
const fn bump(counter: &mut u64) {
    *counter = counter.saturating_add(1);
}
