//! The switch itself, step by step.
//!
//! The order is the whole point. New work is made impossible *first* (windows unmapped), only then the device
//! is asked whether it is quiet; interrupts are drained while their owner is still known; the streams go to abort and the
//! IOMMU confirms it before another address space is named; the IOMMU's fault records are read while
//! only the outgoing one can have caused them. The way in is the mirror of it, and the slice begins when the domain can
//! touch the device, not before: a switch is nobody's slice.
//!
//! Every step has a limit of time, from the worst case that the driver declares. Past it the step counts as failed: a
//! device that hangs costs its domain the device, and no more.
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

use super::ledger::Bucket;
use super::state::{Reason, RestPhase, RestorePhase, SavePhase, Slice, State};
use super::trace::Record;
use super::{Coproc, bump};
use crate::algorithm::MIN_SLICE;
use crate::driver::{SAVE_AREA, Step};
use crate::environment::{Environment, Event, Stream};
use crate::id::{DomainId, Epoch, VcoprocId};
use crate::iommu::Faults;
use crate::time::{Duration, Instant};

/// Steps that one event may take. A full switch takes fewer than 20; the rest goes on from the timer.
pub(super) const MAX_STEPS: usize = 24;
/// A step isn't asked again sooner than this, whatever it answered.
pub(super) const MIN_AGAIN: Duration = Duration::from_micros(10);
/// No step's limit is shorter than this.
pub(super) const MIN_LIMIT: Duration = Duration::from_secs(1);
/// A step's limit is its declared worst case, this many times over.
pub(super) const LIMIT_FACTOR: u64 = 10;

/// Whether the machine can go on at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Flow {
    /// Another step is due.
    Go,
    /// Nothing to do before the next event.
    Wait,
}

/// Limit of a step with this declared worst case.
pub(super) fn limit(declared: Duration) -> Duration {
    declared.saturating_mul(LIMIT_FACTOR).max(MIN_LIMIT)
}

impl Coproc {
    pub(super) fn enter(&mut self, now: Instant, state: State) {
        self.state = state;
        self.entered = now;
        self.resume = None;
    }

    /// Takes all the steps that can be taken now, up to a bound.
    pub(super) fn advance(&mut self, env: &mut dyn Environment) {
        for _ in 0..MAX_STEPS {
            if self.step(env) == Flow::Wait {
                return;
            }
        }
        let now = env.now();
        env.arm_timer(Some(now));
    }

    /// Looks at a step's answer. `Ok(false)`: asked again later, the timer is armed.
    pub(super) fn judge(
        &mut self,
        env: &mut dyn Environment,
        answer: Step,
        limit: Duration,
    ) -> Result<bool, &'static str> {
        match answer {
            Step::Done => Ok(true),
            Step::Failed(failure) => Err(failure.0),
            Step::Again(after) => {
                let now = env.now();
                let deadline = self.entered.saturating_add(limit);
                if now >= deadline {
                    return Err("a step of the switch took longer than its limit");
                }
                let at = now.saturating_add(after.max(MIN_AGAIN)).min(deadline);
                self.resume = Some(at);
                env.arm_timer(Some(at));
                Ok(false)
            }
        }
    }

    /// Points the streams and, if the IOMMU takes it, enters the phase that waits for it.
    fn point(
        &mut self,
        env: &mut dyn Environment,
        target: Stream,
        guilty: VcoprocId,
        next: State,
    ) -> Flow {
        match env.point_streams(target) {
            Ok(()) => {
                if let Stream::Save(who) | Stream::Domain(who) = target {
                    self.suspect = Some(who);
                }
                self.enter(env.now(), next);
            }
            Err(_) => self.escalate(env, guilty, "the IOMMU refused to point the streams"),
        }
        Flow::Go
    }

    /// Books the time so far, also with the algorithm; the account stays open.
    pub(super) fn settle(&mut self, now: Instant) {
        let open = self.ledger.open();
        self.turn(now, open);
    }

    /// Books the time so far, also with the algorithm, and opens another account.
    pub(super) fn turn(&mut self, now: Instant, next: Bucket) {
        let before = self.ledger.open();
        let time = self.ledger.turn(now, next);
        if let Bucket::Charge(who) = before
            && time > Duration::ZERO
            && self.alive(who)
        {
            self.algorithm.charge(who, time, now);
        }
    }

    pub(super) fn step(&mut self, env: &mut dyn Environment) -> Flow {
        if let Some(at) = self.resume
            && env.now() < at
        {
            env.arm_timer(Some(at));
            return Flow::Wait;
        }
        match self.state {
            State::Off | State::Running(_) | State::Quarantined { .. } => Flow::Wait,
            State::Starting => {
                let answer = env.sync_streams();
                match self.judge(env, answer, MIN_LIMIT) {
                    Ok(true) => {
                        self.enter(env.now(), State::Idle { resident: None });
                        Flow::Go
                    }
                    Ok(false) => Flow::Wait,
                    Err(why) => {
                        self.quarantine(env, why);
                        Flow::Wait
                    }
                }
            }
            State::Idle { resident } => self.dispatch(env, resident),
            State::Detached => self.dispatch(env, None),
            State::Resting { who, phase } => self.step_rest(env, who, phase),
            State::Quiescing {
                slice, since, why, ..
            } => self.step_quiesce(env, slice, since, why),
            State::Saving { who, phase } => self.step_save(env, who, phase),
            State::Restoring {
                next,
                slice,
                resident,
                phase,
            } => self.step_restore(env, next, slice, resident, phase),
            State::Aborting { guilty, why, phase } => self.step_abort(env, guilty, why, phase),
            State::Resetting { guilty, why, phase } => self.step_reset(env, guilty, why, phase),
        }
    }

    /// Chooses who runs next. `resident`'s context is in the device.
    fn dispatch(&mut self, env: &mut dyn Environment, resident: Option<VcoprocId>) -> Flow {
        let now = env.now();
        self.stale = false;
        let Some(pick) = self.algorithm.pick(resident, now) else {
            self.idle(env, now, resident);
            return Flow::Wait;
        };
        let next = pick.who;
        if !self.alive(next) {
            // An algorithm that names somebody it was told to forget.
            if self.algorithm.remove(next).is_ok() {
                return Flow::Go;
            }
            self.idle(env, now, resident);
            return Flow::Wait;
        }
        match resident {
            Some(who) if who == next => {
                self.turn(now, Bucket::Overhead(next));
                let state = State::Restoring {
                    next,
                    slice: pick.slice,
                    resident: true,
                    phase: RestorePhase::OpenDomain,
                };
                self.point(env, Stream::Domain(next), next, state)
            }
            Some(who) => {
                self.evict(env, who);
                Flow::Go
            }
            None => self.restore(env, now, next, pick.slice),
        }
    }

    fn idle(&mut self, env: &mut dyn Environment, now: Instant, resident: Option<VcoprocId>) {
        self.switch_since = None;
        self.turn(now, Bucket::Idle);
        self.enter(now, State::Idle { resident });
        // Those that have work may be out of budget.
        let event = self.algorithm.next_event(now);
        env.arm_timer(event.map(|at| at.max(now.saturating_add(MIN_SLICE))));
    }

    /// Arms the timer of the running slice: for its end, or for the algorithm's next event before.
    pub(super) fn arm_slice(&mut self, env: &mut dyn Environment, now: Instant) {
        let State::Running(slice) = self.state else {
            return;
        };
        let soon = now.saturating_add(MIN_SLICE);
        // Others may have woken during the switch, or the algorithm been exchanged.
        if self.stale || self.algorithm.preempts(slice.who, now) {
            return env.arm_timer(Some(soon));
        }
        let event = self.algorithm.next_event(now).map(|at| at.max(soon));
        env.arm_timer(match (slice.until, event) {
            (Some(until), Some(event)) => Some(until.min(event)),
            (until, event) => until.or(event),
        });
    }

    /// Something may have changed the algorithm's mind: parameters, the passing of time, another algorithm.
    pub(super) fn reconsider(&mut self, env: &mut dyn Environment) {
        match self.state {
            State::Idle { .. } => self.advance(env),
            State::Running(slice) => {
                let now = env.now();
                self.settle(now);
                if self.stale || self.algorithm.preempts(slice.who, now) {
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

    /// Starts taking a context out of a device that idles or was just restored.
    pub(super) fn evict(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        let now = env.now();
        self.turn(now, Bucket::Overhead(who));
        self.switch_since.get_or_insert(now);
        self.step_since = now;
        // A context that will never come back is saved for nothing, but scrubbing follows saving.
        self.dirty = self.dirty || !self.alive(who);
        let phase = SavePhase::Quiet;
        self.enter(now, State::Saving { who, phase });
    }

    fn restore(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        next: VcoprocId,
        slice: Option<Duration>,
    ) -> Flow {
        self.turn(now, Bucket::Overhead(next));
        self.switch_since.get_or_insert(now);
        self.step_since = now;
        self.dirty = false;
        let phase = |phase| State::Restoring {
            next,
            slice,
            resident: false,
            phase,
        };
        if self.driver.description().save_area == 0 {
            self.enter(now, phase(RestorePhase::Restore));
            return Flow::Go;
        }
        self.point(env, Stream::Save(next), next, phase(RestorePhase::OpenArea))
    }

    fn step_restore(
        &mut self,
        env: &mut dyn Environment,
        next: VcoprocId,
        slice: Option<Duration>,
        resident: bool,
        phase: RestorePhase,
    ) -> Flow {
        let state = |phase| State::Restoring {
            next,
            slice,
            resident,
            phase,
        };
        let description = self.driver.description();
        let area = (description.save_area != 0).then_some(SAVE_AREA);
        let bound = limit(description.worst_case.restore);
        if phase == RestorePhase::Replay {
            // Not undone half way: a vcoproc on its way out gets none of its work replayed.
            if !self.alive(next) {
                self.evict(env, next);
                return Flow::Go;
            }
            if !resident || self.driver.has_work(next) {
                self.dirty |= self.driver.has_work(next);
                let worked = self.dirty;
                let answer = self.driver.replay(next, env.hardware());
                if let Some(flow) = self.held_up(env, next, answer, bound) {
                    return flow;
                }
                self.run(env, next, slice, resident, worked);
            } else {
                self.run(env, next, slice, resident, false);
            }
            return Flow::Wait;
        }
        let (answer, bound) = match phase {
            RestorePhase::Restore => (self.driver.restore(next, env.hardware(), area), bound),
            _ => (env.sync_streams(), MIN_LIMIT),
        };
        if let Some(flow) = self.held_up(env, next, answer, bound) {
            return flow;
        }
        match phase {
            RestorePhase::OpenArea => {
                self.enter(env.now(), state(RestorePhase::Restore));
                Flow::Go
            }
            RestorePhase::Restore if area.is_some() => {
                let after = state(RestorePhase::CloseArea);
                self.point(env, Stream::Abort, next, after)
            }
            RestorePhase::Restore | RestorePhase::CloseArea => {
                if !self.alive(next) {
                    self.evict(env, next);
                    return Flow::Go;
                }
                let after = state(RestorePhase::OpenDomain);
                self.point(env, Stream::Domain(next), next, after)
            }
            RestorePhase::OpenDomain | RestorePhase::Replay => {
                self.enter(env.now(), state(RestorePhase::Replay));
                Flow::Go
            }
        }
    }

    /// The domain may touch the device from here on; its slice begins at the end of this.
    fn run(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        length: Option<Duration>,
        resident: bool,
        touched: bool,
    ) {
        self.epoch = Epoch(self.epoch.0.saturating_add(1));
        let mut claimed = false;
        if let Some(v) = self.find_mut(who) {
            claimed = v.parked;
            v.parked = false;
            if !resident {
                bump(&mut v.counters.switches);
            }
        }
        // The lines first: they need to know that the truth is in the device now.
        let now = env.now();
        let mut slice = Slice {
            who,
            epoch: self.epoch,
            since: now,
            until: None,
            touched,
            claimed,
            mapped: false,
            exits: 0,
        };
        self.enter(now, State::Running(slice));
        self.refresh_lines(env, who);
        if claimed {
            env.release_parked(who);
        }
        let now = env.now();
        slice.since = now;
        slice.until = length.map(|length| now.saturating_add(length.max(MIN_SLICE)));
        self.turn(now, Bucket::Charge(who));
        self.enter(now, State::Running(slice));
        if let Some(since) = self.switch_since.take() {
            self.switch_time.record(now.since(since));
            self.measured.restore = self.measured.restore.max(now.since(self.step_since));
        }
        self.arm_slice(env, now);
    }

    /// Ends the running slice: renews it, lets the device rest, or begins to take it away.
    pub(super) fn slice_end(&mut self, env: &mut dyn Environment, why: Reason) {
        let State::Running(mut slice) = self.state else {
            return;
        };
        let who = slice.who;
        if slice.mapped {
            env.unmap_windows(who);
            slice.mapped = false;
        }
        self.state = State::Running(slice);
        let busy = self.driver.busy(who, env.hardware());
        let pending = self.live_pending(env, who);
        let now = env.now();
        self.settle(now);
        self.count(who, |c| {
            bump(&mut c.slices);
            c.max_exits = c.max_exits.max(slice.exits);
        });
        let parked = self.find(who).is_some_and(|v| v.parked);
        if !self.alive(who) {
            return self.quiesce(env, slice, Reason::Detached);
        }
        let willing = slice.touched || busy || pending || parked || self.driver.has_work(who);
        if !willing {
            if let Some(v) = self.find_mut(who) {
                v.awake = false;
            }
            self.algorithm.sleep(who, now);
        } else if busy || pending || parked || self.driver.has_work(who) {
            self.algorithm.wake(who, now);
        } else {
            self.algorithm.linger(who, now);
        }
        self.stale = false;
        match self.algorithm.pick(Some(who), now) {
            Some(pick) if pick.who == who && willing => {
                self.record(slice, now, Reason::Renewed);
                slice.since = now;
                slice.until = pick
                    .slice
                    .map(|length| now.saturating_add(length.max(MIN_SLICE)));
                slice.touched = false;
                slice.claimed = false;
                slice.exits = 0;
                self.enter(now, State::Running(slice));
                if parked {
                    if let Some(v) = self.find_mut(who) {
                        v.parked = false;
                    }
                    env.release_parked(who);
                }
                self.arm_slice(env, now);
            }
            Some(pick) if pick.who != who => self.quiesce(env, slice, why),
            _ if willing => self.quiesce(env, slice, Reason::Throttled),
            _ => {
                self.turn(now, Bucket::Overhead(who));
                self.record(slice, now, Reason::Slept);
                env.mask_interrupts(true);
                let phase = RestPhase::Abort;
                self.point(env, Stream::Abort, who, State::Resting { who, phase });
            }
        }
    }

    fn quiesce(&mut self, env: &mut dyn Environment, slice: Slice, why: Reason) {
        let since = env.now();
        self.enter(
            since,
            State::Quiescing {
                slice,
                since,
                refused: false,
                why,
            },
        );
    }

    fn step_quiesce(
        &mut self,
        env: &mut dyn Environment,
        slice: Slice,
        since: Instant,
        why: Reason,
    ) -> Flow {
        let who = slice.who;
        let answer = self.driver.quiet(who, env.hardware());
        if let Step::Again(_) = answer {
            bump(&mut self.refusals);
            self.count(who, |c| bump(&mut c.refusals));
            if let State::Quiescing { refused, .. } = &mut self.state {
                *refused = true;
            }
        }
        match self.judge(env, answer, self.settings.refusal_bound) {
            Ok(true) => {
                let now = env.now();
                self.close_slice(now, why, Bucket::Overhead(who));
                self.measured.refusal = self.measured.refusal.max(now.since(since));
                self.switch_since = Some(now);
                self.begin_drain(env, who);
                Flow::Go
            }
            Ok(false) => Flow::Wait,
            Err(why) => {
                let refused = matches!(answer, Step::Again(_));
                let why = if refused {
                    "the device refused to stop for longer than its bound"
                } else {
                    why
                };
                self.escalate(env, who, why);
                Flow::Go
            }
        }
    }

    /// Books a slice that went through [`State::Quiescing`].
    pub(super) fn close_slice(&mut self, now: Instant, reason: Reason, next: Bucket) {
        let State::Quiescing {
            slice,
            since,
            refused,
            ..
        } = self.state
        else {
            return;
        };
        self.turn(now, next);
        if refused {
            let time = now.since(since);
            self.count(slice.who, |c| c.refused = c.refused.saturating_add(time));
            if self.alive(slice.who) {
                self.algorithm.refused(slice.who, time, now);
            }
        }
        self.record(slice, now, reason);
    }

    fn record(&mut self, slice: Slice, to: Instant, reason: Reason) {
        let domain = self.find(slice.who).map_or(DomainId(0), |v| v.domain);
        self.trace.push(Record {
            vcoproc: slice.who,
            domain,
            epoch: slice.epoch,
            from: slice.since,
            to,
            reason,
        });
    }

    fn begin_drain(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        env.mask_interrupts(true);
        let now = env.now();
        self.step_since = now;
        let phase = SavePhase::Drain;
        self.enter(now, State::Saving { who, phase });
    }

    fn step_save(&mut self, env: &mut dyn Environment, who: VcoprocId, phase: SavePhase) -> Flow {
        let description = self.driver.description();
        let declared = description.worst_case;
        let area = (description.save_area != 0).then_some(SAVE_AREA);
        let (answer, bound) = match phase {
            SavePhase::Quiet => (
                self.driver.quiet(who, env.hardware()),
                self.settings.refusal_bound,
            ),
            SavePhase::Drain => (self.driver.drain(who, env.hardware()), limit(declared.stop)),
            SavePhase::Settle => (Self::settled(env), MIN_LIMIT),
            SavePhase::Faults => (self.faults_read(env), MIN_LIMIT),
            SavePhase::Save => (
                self.driver.save(who, env.hardware(), area),
                limit(declared.save),
            ),
            SavePhase::Scrub => (self.driver.scrub(who, env.hardware()), limit(declared.save)),
            SavePhase::Abort | SavePhase::OpenArea | SavePhase::CloseArea => {
                (env.sync_streams(), MIN_LIMIT)
            }
        };
        if let Some(flow) = self.held_up(env, who, answer, bound) {
            return flow;
        }
        let now = env.now();
        let state = |phase| State::Saving { who, phase };
        match phase {
            SavePhase::Quiet => self.begin_drain(env, who),
            SavePhase::Drain => {
                self.enter(now, state(SavePhase::Settle));
                // From here on the context has the status, the device none.
                self.context_lines(env, who);
            }
            SavePhase::Settle => {
                self.measured.stop = self.measured.stop.max(now.since(self.step_since));
                self.point(env, Stream::Abort, who, state(SavePhase::Abort));
            }
            SavePhase::Abort => self.enter(now, state(SavePhase::Faults)),
            SavePhase::Faults if !self.dirty => self.detached(now, who),
            SavePhase::Faults => {
                self.step_since = now;
                if area.is_some() {
                    self.point(env, Stream::Save(who), who, state(SavePhase::OpenArea));
                } else {
                    self.enter(now, state(SavePhase::Save));
                }
            }
            SavePhase::OpenArea => self.enter(now, state(SavePhase::Save)),
            SavePhase::Save => self.enter(now, state(SavePhase::Scrub)),
            SavePhase::Scrub if area.is_some() => {
                self.point(env, Stream::Abort, who, state(SavePhase::CloseArea));
            }
            SavePhase::Scrub | SavePhase::CloseArea => {
                self.measured.save = self.measured.save.max(now.since(self.step_since));
                self.detached(now, who);
            }
        }
        Flow::Go
    }

    /// `who`'s context is out of the device.
    fn detached(&mut self, now: Instant, who: VcoprocId) {
        self.dirty = false;
        self.enter(now, State::Detached);
        match self.find(who) {
            Some(v) if v.detaching => self.forget(who),
            // It was busy when its slice ended, and finished while it was asked to stop.
            Some(v) if v.alive() && !v.parked && !self.driver.has_work(who) => {
                self.algorithm.linger(who, now);
            }
            _ => {}
        }
    }

    /// Judges the answer of a step that `who` has the device for: `None`, it is done; else how to go on. A failure costs `who` the
    /// device.
    fn held_up(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        answer: Step,
        bound: Duration,
    ) -> Option<Flow> {
        match self.judge(env, answer, bound) {
            Ok(true) => None,
            Ok(false) => Some(Flow::Wait),
            Err(why) => {
                self.escalate(env, who, why);
                Some(Flow::Go)
            }
        }
    }

    fn step_rest(&mut self, env: &mut dyn Environment, who: VcoprocId, phase: RestPhase) -> Flow {
        let answer = match phase {
            RestPhase::Abort => env.sync_streams(),
            RestPhase::Faults => self.faults_read(env),
        };
        if let Some(flow) = self.held_up(env, who, answer, MIN_LIMIT) {
            return flow;
        }
        let now = env.now();
        match phase {
            RestPhase::Abort => {
                let phase = RestPhase::Faults;
                self.enter(now, State::Resting { who, phase });
            }
            RestPhase::Faults if !self.alive(who) => self.evict(env, who),
            RestPhase::Faults => {
                let resident = Some(who);
                self.enter(now, State::Idle { resident });
            }
        }
        Flow::Go
    }

    pub(super) fn settled(env: &mut dyn Environment) -> Step {
        if env.interrupts_settled() {
            Step::Done
        } else {
            Step::Again(MIN_AGAIN)
        }
    }

    /// Reads the IOMMU's records to the end. If they can't be read to the end in time the switch goes on: whose a fault was is
    /// book-keeping, and another device's flood of faults must not cost this device's domains anything.
    pub(super) fn faults_read(&mut self, env: &mut dyn Environment) -> Step {
        if self.collect_faults(env) {
            return Step::Done;
        }
        if env.now().since(self.entered) >= MIN_LIMIT {
            bump(&mut self.unattributed_faults);
            return Step::Done;
        }
        Step::Again(MIN_AGAIN)
    }

    /// The IOMMU has records: reads them and books them on the vcoproc whose memory the streams pointed at last. `false`: not all
    /// could be read in bounded time; to be called again, at the latest the switch does.
    pub fn collect_faults(&mut self, env: &mut dyn Environment) -> bool {
        let Some(faults) = env.take_faults() else {
            return false;
        };
        if faults.any() || faults.overflow {
            self.blame(env, faults);
        }
        true
    }

    fn blame(&mut self, env: &mut dyn Environment, faults: Faults) {
        let suspect = self.suspect;
        let Some(v) = suspect.and_then(|who| self.find_mut(who)) else {
            self.unattributed_faults = self.unattributed_faults.saturating_add(faults.count);
            return;
        };
        let who = v.id;
        let c = &mut v.counters;
        c.iommu_faults = c.iommu_faults.saturating_add(faults.count);
        c.faults_lost |= faults.overflow;
        if faults.last.is_some() {
            c.last_fault = faults.last;
        }
        if faults.any() {
            env.notify(who, Event::IommuFault(faults));
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
        v.awake = true;
        self.algorithm.wake(who, now);
        match self.state {
            State::Idle { .. } => self.advance(env),
            State::Running(slice) if news && slice.who != who => {
                self.settle(now);
                let unused = !slice.touched
                    && !slice.claimed
                    && !self.driver.busy(slice.who, env.hardware())
                    && !self.live_pending(env, slice.who);
                if unused
                    || slice.until.is_none()
                    || self.stale
                    || self.algorithm.preempts(slice.who, now)
                {
                    self.slice_end(env, Reason::Preempted);
                    self.advance(env);
                } else {
                    self.arm_slice(env, now);
                }
            }
            // The one on its way in was to have the device until something else wakes: that is now.
            State::Restoring {
                next, slice: None, ..
            } if news && next != who => self.stale = true,
            // Whatever is going on ends in a decision, and the algorithm knows now.
            _ => {}
        }
    }
}
