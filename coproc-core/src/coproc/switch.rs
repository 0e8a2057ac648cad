//! The switch itself, step by step.
//!
//! The order is the whole point. New work is made impossible *first* (windows unmapped), only then the device
//! is asked whether it is quiet; interrupts are drained while their owner is still known; the streams go to abort and the
//! IOMMU confirms it before another address space is named; the IOMMU's fault records are read while
//! only the outgoing one can have caused them. The way in is the mirror of it, and the slice begins when the domain can
//! touch the device, not before: a switch is nobody's slice. The way out is in `leave`, the way in in `arrive`; here is what carries both, and
//! the decisions between them.
//!
//! Every step has a limit of time, from the worst case that the driver declares. Past it the step counts as failed: a
//! device that hangs costs its domain the device, and no more.
//!
//! Each step reads the clock once, when its answer is there: that is when its stage ends and the next one begins.

use super::ledger::Bucket;
use super::stage::Stage;
use super::state::Reason;
use super::{Coproc, bump};
use crate::algorithm::MIN_SLICE;
use crate::driver::Step;
use crate::environment::{Environment, Stream};
use crate::id::VcoprocId;
use crate::time::{Duration, Instant};
use crate::trace::{TraceEvent, TraceKind};

/// Steps, or rows of steps, that one event may take. A full switch takes 3, or 10 if the device saves by DMA; the rest goes on from the timer.
const MAX_STEPS: usize = 12;
/// A step isn't asked again sooner than this, whatever it answered.
pub(super) const MIN_AGAIN: Duration = Duration::from_micros(10);
/// No step's limit is shorter than this.
pub(super) const MIN_LIMIT: Duration = Duration::from_secs(1);
/// A step's limit is its declared worst case, this many times over.
const LIMIT_FACTOR: u64 = 10;

/// Whether the machine can go on at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Another step is due.
    Go,
    /// Nothing to do before the next event.
    Wait,
}

/// The answer of a step that somebody has the device for: if it is done the function goes on, else it returns how the machine does.
macro_rules! done {
    ($coproc:expr, $env:expr, $who:expr, $answer:expr) => {
        let answer: $crate::driver::Step = $answer;
        if !matches!(answer, $crate::driver::Step::Done) {
            return $coproc.held_up($env, $who, &answer);
        }
    };
}
pub(super) use done;

/// A step that is mostly done at once: if it was, and led to this stage, the function goes on with that stage's own step; if not, the
/// machine goes on from wherever it is. So a switch that nothing holds up never has to look up where it is.
macro_rules! then {
    ($coproc:expr, $step:expr, $stage:expr) => {
        let flow = $step;
        if flow == $crate::coproc::switch::Flow::Wait || $coproc.stage != $stage {
            return flow;
        }
    };
}
pub(super) use then;

impl Coproc {
    /// Goes on to another stage.
    #[inline(always)]
    pub(super) fn enter(&mut self, env: &mut dyn Environment, now: Instant, to: Stage) {
        self.pass(env, now, to, None);
    }

    /// Goes on to another stage; `reason` says why a slice ended.
    #[inline(always)]
    pub(super) fn pass(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        to: Stage,
        reason: Option<Reason>,
    ) {
        let from = core::mem::replace(&mut self.stage, to);
        // The counters of two CPUs may differ a little; the spans touch each other all the same.
        let spent = now.since(self.entered);
        self.entered = self.entered.saturating_add(spent);
        env.trace(&TraceEvent {
            at: self.entered,
            spent,
            epoch: self.epoch,
            coproc: self.id,
            vcoproc: self.holder,
            kind: TraceKind::Transition { from, to, reason },
        });
    }

    /// Traces what is no transition.
    #[inline(always)]
    pub(super) fn note(
        &self,
        env: &mut dyn Environment,
        vcoproc: Option<VcoprocId>,
        kind: TraceKind,
    ) {
        let event = TraceEvent {
            at: env.now(),
            spent: Duration::ZERO,
            epoch: self.epoch,
            coproc: self.id,
            vcoproc,
            kind,
        };
        env.trace(&event);
    }

    /// Takes all the steps that can be taken now, up to a bound.
    pub(super) fn advance(&mut self, env: &mut dyn Environment) {
        if let Some(at) = self.resume {
            if env.now() < at {
                return env.arm_timer(Some(at));
            }
            self.resume = None;
        }
        for _ in 0..MAX_STEPS {
            if self.step(env) == Flow::Wait {
                return;
            }
        }
        // The last of them may have led to where nothing is left to be done.
        if !matches!(self.stage, Stage::Quarantined | Stage::Off) {
            let now = env.now();
            env.arm_timer(Some(now));
        }
    }

    /// Longest time that the present stage may take.
    fn limit(&self) -> Duration {
        let worst = &self.description.worst_case;
        let declared = match self.stage {
            Stage::Quiescing | Stage::SavingQuiet => return self.settings.refusal_bound,
            Stage::SavingDrain | Stage::AbortingStop | Stage::ResettingReset => worst.stop,
            Stage::SavingSave | Stage::SavingScrub => worst.save,
            Stage::RestoringRestore | Stage::RestoringReplay => worst.restore,
            _ => Duration::ZERO,
        };
        declared.saturating_mul(LIMIT_FACTOR).max(MIN_LIMIT)
    }

    /// Looks at a step's answer. `Ok(false)`: asked again later, the timer is armed.
    #[inline(always)]
    pub(super) fn judge(
        &mut self,
        env: &mut dyn Environment,
        answer: &Step,
    ) -> Result<bool, &'static str> {
        match answer {
            Step::Done => Ok(true),
            Step::Failed(failure) => Err(failure.0),
            Step::Again(after) => {
                let now = env.now();
                let deadline = self.entered.saturating_add(self.limit());
                if now >= deadline {
                    return Err("a step of the switch took longer than its limit");
                }
                let at = now.saturating_add((*after).max(MIN_AGAIN)).min(deadline);
                self.resume = Some(at);
                env.arm_timer(Some(at));
                Ok(false)
            }
        }
    }

    /// A step that `who` has the device for isn't done: how to go on. A failure costs `who` the device.
    #[cold]
    #[inline(never)]
    pub(super) fn held_up(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        answer: &Step,
    ) -> Flow {
        match self.judge(env, answer) {
            Ok(_) => Flow::Wait,
            Err(why) => {
                self.escalate(env, who, why);
                Flow::Go
            }
        }
    }

    /// Points the streams and, if the IOMMU takes it, enters the stage that waits for it; `now` is when the one before was over.
    pub(super) fn point(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        target: Stream,
        next: Stage,
    ) -> Flow {
        self.point_because(env, now, target, next, None)
    }

    /// The same, at the end of a slice.
    #[inline(always)]
    pub(super) fn point_because(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        target: Stream,
        next: Stage,
        reason: Option<Reason>,
    ) -> Flow {
        if env.point_streams(target).is_err() {
            if let Some(guilty) = self.holder {
                self.escalate(env, guilty, "the IOMMU refused to point the streams");
            }
            return Flow::Go;
        }
        if let Stream::Save(who) | Stream::Domain(who) = target {
            self.suspect = Some(who);
        }
        self.pass(env, now, next, reason);
        Flow::Go
    }

    /// Tells the algorithm of the time so far; the account stays open.
    #[inline(always)]
    pub(super) fn settle(&mut self, now: Instant) {
        let time = self.ledger.settle(now);
        self.charge(self.ledger.open(), time, now);
    }

    /// Books the time so far, also with the algorithm, and opens another account.
    #[inline(always)]
    pub(super) fn turn(&mut self, now: Instant, next: Bucket) {
        let before = self.ledger.open();
        let time = self.ledger.turn(now, next);
        self.charge(before, time, now);
    }

    #[inline(always)]
    fn charge(&mut self, bucket: Bucket, time: Duration, now: Instant) {
        if let Bucket::Charge(who) = bucket
            && time > Duration::ZERO
        {
            self.charge_to(who, time, now);
        }
    }

    #[inline(never)]
    fn charge_to(&mut self, who: VcoprocId, time: Duration, now: Instant) {
        if self.alive(who) {
            self.algorithm.charge(who, time, now);
        }
    }

    /// One step of the present stage.
    fn step(&mut self, env: &mut dyn Environment) -> Flow {
        let Some(who) = self.holder else {
            return self.step_free(env);
        };
        match self.stage {
            Stage::Off
            | Stage::Starting
            | Stage::Running
            | Stage::Detached
            | Stage::Quarantined => Flow::Wait,
            Stage::Idle => self.dispatch(env, Some(who)),
            Stage::RestingAbort => self.rest_abort(env, who),
            Stage::RestingFaults => self.rest_faults(env, who),
            Stage::Quiescing => self.quiescing(env, who),
            Stage::SavingQuiet => self.save_quiet(env, who),
            Stage::SavingDrain => self.save_drain(env, who),
            Stage::SavingSettle => self.save_settle(env, who),
            Stage::SavingAbort => self.save_abort(env, who),
            Stage::SavingFaults => self.save_faults(env, who),
            Stage::SavingOpenArea => self.save_open_area(env, who),
            Stage::SavingSave => self.save_save(env, who),
            Stage::SavingScrub => self.save_scrub(env, who),
            Stage::SavingCloseArea => self.save_close_area(env, who),
            Stage::RestoringOpenArea => self.restore_open_area(env, who),
            Stage::RestoringRestore => self.restore_restore(env, who),
            Stage::RestoringCloseArea => self.restore_close_area(env, who),
            Stage::RestoringOpenDomain => self.restore_open_domain(env, who),
            Stage::RestoringReplay => self.restore_replay(env, who),
            Stage::AbortingStreams | Stage::AbortingStop => self.step_abort(env, who),
            Stage::ResettingReset | Stage::ResettingSettle | Stage::ResettingFaults => {
                self.step_reset(env, who)
            }
        }
    }

    /// A step of a device that nobody's context is in.
    #[inline(never)]
    fn step_free(&mut self, env: &mut dyn Environment) -> Flow {
        match self.stage {
            Stage::Starting | Stage::ResettingReset | Stage::ResettingSettle => {
                self.step_start(env)
            }
            Stage::Idle | Stage::Detached => self.dispatch(env, None),
            _ => Flow::Wait,
        }
    }

    /// Chooses who runs next. `resident`'s context is in the device.
    #[inline(always)]
    fn dispatch(&mut self, env: &mut dyn Environment, resident: Option<VcoprocId>) -> Flow {
        let now = env.now();
        self.choose(env, now, resident)
    }

    /// The same, where the time was read just now.
    #[inline(always)]
    pub(super) fn choose(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        resident: Option<VcoprocId>,
    ) -> Flow {
        self.stale = false;
        let Some(pick) = self.algorithm.pick(resident, now) else {
            self.idle(env, now);
            return Flow::Wait;
        };
        let next = pick.who;
        if !self.alive(next) {
            // An algorithm that names somebody it was told to forget.
            if self.algorithm.remove(next).is_ok() {
                return Flow::Go;
            }
            self.idle(env, now);
            return Flow::Wait;
        }
        match resident {
            Some(who) if who == next => self.resume_resident(env, now, who, pick.slice),
            Some(who) => {
                self.evict(env, now, who);
                Flow::Go
            }
            None => self.restore(env, now, next, pick.slice),
        }
    }

    fn idle(&mut self, env: &mut dyn Environment, now: Instant) {
        self.switch_since = None;
        self.turn(now, Bucket::Idle);
        if self.stage != Stage::Idle {
            self.enter(env, now, Stage::Idle);
        }
        // Those that have work may be out of budget.
        let event = self.algorithm.next_event(now);
        env.arm_timer(event.map(|at| at.max(now.saturating_add(MIN_SLICE))));
        if self.ending {
            self.end(env);
        }
    }

    /// Arms the timer of the running slice: for its end, or for the algorithm's next event before.
    #[inline(always)]
    pub(super) fn arm_slice(&mut self, env: &mut dyn Environment, now: Instant) {
        if self.stage != Stage::Running {
            return;
        }
        let soon = now.saturating_add(MIN_SLICE);
        // Others may have woken during the switch, or the algorithm been exchanged.
        if self.stale || self.algorithm.preempts(self.slice.who, now) {
            return env.arm_timer(Some(soon));
        }
        let event = self.algorithm.next_event(now).map(|at| at.max(soon));
        env.arm_timer(match (self.slice.until, event) {
            (Some(until), Some(event)) => Some(until.min(event)),
            (until, event) => until.or(event),
        });
    }

    /// Something may have changed the algorithm's mind: parameters, the passing of time, another algorithm.
    pub(super) fn reconsider(&mut self, env: &mut dyn Environment) {
        match self.stage {
            Stage::Idle => self.advance(env),
            Stage::Running => {
                let now = env.now();
                self.settle(now);
                if self.stale || self.algorithm.preempts(self.slice.who, now) {
                    self.slice_end(env, Reason::Preempted);
                    self.advance(env);
                } else {
                    self.arm_slice(env, now);
                }
            }
            // Whatever is going on ends in a decision or in a slice, which is considered at its start.
            _ => {}
        }
    }

    /// The vcoproc has work: a decision may be due.
    pub(super) fn wake(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        let now = env.now();
        let Some(v) = self.find_mut(who) else {
            return;
        };
        if !v.alive() {
            return;
        }
        let news = !v.awake;
        if news {
            v.awake = true;
            v.waits_since = now;
        }
        self.algorithm.wake(who, now);
        match self.stage {
            Stage::Idle => self.advance(env),
            Stage::Running if news && self.slice.who != who => {
                self.settle(now);
                let current = self.slice.who;
                let unused = !self.slice.touched
                    && !self.slice.claimed
                    && !self.driver.busy(current, env.hardware())
                    && !self.live_pending(env, current);
                if unused
                    || self.slice.until.is_none()
                    || self.stale
                    || self.algorithm.preempts(current, now)
                {
                    self.slice_end(env, Reason::Preempted);
                    self.advance(env);
                } else {
                    self.arm_slice(env, now);
                }
            }
            // The one on its way in was to have the device until something else wakes: that is now.
            Stage::RestoringOpenArea
            | Stage::RestoringRestore
            | Stage::RestoringCloseArea
            | Stage::RestoringOpenDomain
            | Stage::RestoringReplay
                if news && self.length.is_none() && self.holder != Some(who) =>
            {
                self.stale = true;
            }
            // Whatever is going on ends in a decision, and the algorithm knows now.
            _ => {}
        }
    }

    /// Whether the interrupt lines are neither pending nor active, as a step.
    pub(super) fn settled(env: &mut dyn Environment) -> Step {
        if env.interrupts_settled() {
            Step::Done
        } else {
            Step::Again(MIN_AGAIN)
        }
    }

    /// Counts one more of these on a vcoproc.
    pub(super) fn count_one(
        &mut self,
        who: VcoprocId,
        counter: impl FnOnce(&mut super::Counters) -> &mut u64,
    ) {
        self.count(who, |c| bump(counter(c)));
    }
}
