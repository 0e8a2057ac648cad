//! The way out: end the slice, prove the device quiet, take interrupts, faults and context out of it.

use super::ledger::Bucket;
use super::stage::Stage;
use super::state::Reason;
use super::switch::{Flow, done, then};
use super::timeline::Record;
use super::{Coproc, bump};
use crate::algorithm::MIN_SLICE;
use crate::driver::Step;
use crate::environment::{Environment, Stream};
use crate::id::{DomainId, VcoprocId};
use crate::time::Instant;
use crate::trace::TraceKind;

impl Coproc {
    /// Ends the running slice: renews it, lets the device rest, or begins to take it away.
    pub(super) fn slice_end(&mut self, env: &mut dyn Environment, why: Reason) {
        if self.stage != Stage::Running {
            return;
        }
        let who = self.slice.who;
        if core::mem::take(&mut self.slice.mapped) {
            env.unmap_windows(who);
        }
        let busy = self.driver.busy(who, env.hardware());
        let pending = self.live_pending(env, who);
        let now = env.now();
        self.settle(now);
        let exits = self.slice.exits;
        let (mut alive, mut parked, mut domain) = (false, false, DomainId(0));
        if let Some(v) = self.find_mut(who) {
            bump(&mut v.counters.slices);
            v.counters.max_exits = v.counters.max_exits.max(exits);
            (alive, parked, domain) = (v.alive(), v.parked, v.domain);
        }
        if !alive {
            return self.quiesce(env, now, Reason::Detached);
        }
        let work = busy || pending || parked || self.driver.has_work(who);
        let willing = work || self.slice.touched;
        if work {
            self.algorithm.wake(who, now);
        } else if willing {
            self.algorithm.linger(who, now);
        } else {
            if let Some(v) = self.find_mut(who) {
                v.awake = false;
            }
            self.algorithm.sleep(who, now);
        }
        self.stale = false;
        let why = match self.algorithm.pick(Some(who), now) {
            Some(pick) if pick.who == who && willing => {
                self.record(domain, now, Reason::Renewed);
                let slice = &mut self.slice;
                slice.since = now;
                slice.until = pick
                    .slice
                    .map(|length| now.saturating_add(length.max(MIN_SLICE)));
                slice.touched = false;
                slice.claimed = false;
                slice.exits = 0;
                self.pass(env, now, Stage::Running, Some(Reason::Renewed));
                if parked {
                    if let Some(v) = self.find_mut(who) {
                        v.parked = false;
                    }
                    env.release_parked(who);
                }
                return self.arm_slice(env, now);
            }
            Some(pick) if pick.who != who => why,
            _ if willing => Reason::Throttled,
            _ => {
                self.turn(now, Bucket::Overhead(who));
                self.record(domain, now, Reason::Slept);
                env.mask_interrupts(true);
                let slept = Some(Reason::Slept);
                self.point_because(env, now, Stream::Abort, Stage::RestingAbort, slept);
                return;
            }
        };
        self.quiesce(env, now, why);
    }

    #[inline(always)]
    fn quiesce(&mut self, env: &mut dyn Environment, now: Instant, why: Reason) {
        self.stopping.since = now;
        self.stopping.refused = false;
        self.stopping.reason = why;
        self.pass(env, now, Stage::Quiescing, Some(why));
    }

    pub(super) fn quiescing(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        let answer = self.driver.quiet(who, env.hardware());
        if answer != Step::Done {
            return self.not_quiet(env, who, &answer);
        }
        let now = env.now();
        self.close_slice(now, self.stopping.reason, Bucket::Overhead(who));
        let refusal = now.since(self.stopping.since);
        self.measured.refusal = self.measured.refusal.max(refusal);
        self.switch_since = Some(now);
        self.begin_drain(env, now);
        let drained = self.save_drain(env, who);
        then!(self, drained, Stage::SavingSettle);
        let settled = self.save_settle(env, who);
        then!(self, settled, Stage::SavingAbort);
        let aborted = self.save_abort(env, who);
        then!(self, aborted, Stage::SavingFaults);
        let read = self.save_faults(env, who);
        then!(self, read, Stage::SavingSave);
        let saved = self.save_save(env, who);
        then!(self, saved, Stage::SavingScrub);
        self.save_scrub(env, who)
    }

    #[cold]
    #[inline(never)]
    fn not_quiet(&mut self, env: &mut dyn Environment, who: VcoprocId, answer: &Step) -> Flow {
        let refused = matches!(answer, Step::Again(_));
        if refused {
            bump(&mut self.refusals);
            self.count_one(who, |c| &mut c.refusals);
            self.stopping.refused = true;
        }
        match self.judge(env, answer) {
            Ok(_) => Flow::Wait,
            Err(why) => {
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

    /// Books a slice that went through [`Stage::Quiescing`].
    #[inline(always)]
    pub(super) fn close_slice(&mut self, now: Instant, reason: Reason, next: Bucket) {
        self.turn(now, next);
        let who = self.slice.who;
        let refused = self
            .stopping
            .refused
            .then(|| now.since(self.stopping.since));
        let mut domain = DomainId(0);
        if let Some(v) = self.find_mut(who) {
            domain = v.domain;
            // If it still has work it waits from here on.
            v.waits_since = now;
            if let Some(time) = refused {
                v.counters.refused = v.counters.refused.saturating_add(time);
                v.spreads.refusal.record(time);
                if v.alive() {
                    self.algorithm.refused(who, time, now);
                }
            }
        }
        self.record(domain, now, reason);
    }

    /// Writes the slice that is over into the timeline.
    #[inline(always)]
    fn record(&mut self, domain: DomainId, to: Instant, reason: Reason) {
        self.timeline.push(Record {
            vcoproc: self.slice.who,
            domain,
            epoch: self.slice.epoch,
            from: self.slice.since,
            to,
            reason,
        });
    }

    /// Starts taking a context out of a device that idles or was just restored.
    pub(super) fn evict(&mut self, env: &mut dyn Environment, now: Instant, who: VcoprocId) {
        self.turn(now, Bucket::Overhead(who));
        self.switch_since.get_or_insert(now);
        self.step_since = now;
        // A context that will never come back is saved for nothing, but scrubbing follows saving.
        self.dirty = self.dirty || !self.alive(who);
        self.enter(env, now, Stage::SavingQuiet);
    }

    #[inline(always)]
    fn begin_drain(&mut self, env: &mut dyn Environment, now: Instant) {
        env.mask_interrupts(true);
        self.step_since = now;
        self.enter(env, now, Stage::SavingDrain);
    }

    pub(super) fn save_quiet(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, self.driver.quiet(who, env.hardware()));
        let now = env.now();
        self.begin_drain(env, now);
        Flow::Go
    }

    #[inline(always)]
    pub(super) fn save_drain(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, self.driver.drain(who, env.hardware()));
        let now = env.now();
        self.enter(env, now, Stage::SavingSettle);
        // From here on the context has the status, the device none.
        if self.context_lines(env, who) {
            self.note(env, Some(who), TraceKind::Drained);
        }
        Flow::Go
    }

    #[inline(always)]
    pub(super) fn save_settle(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, Self::settled(env));
        let now = env.now();
        self.measured.stop = self.measured.stop.max(now.since(self.step_since));
        self.point(env, now, Stream::Abort, Stage::SavingAbort)
    }

    #[inline(always)]
    pub(super) fn save_abort(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, env.sync_streams());
        let now = env.now();
        self.enter(env, now, Stage::SavingFaults);
        Flow::Go
    }

    #[inline(always)]
    pub(super) fn save_faults(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, self.faults_read(env));
        let now = env.now();
        if !self.dirty {
            return self.detached(env, now, who);
        }
        self.step_since = now;
        if self.save_area().is_some() {
            return self.point(env, now, Stream::Save(who), Stage::SavingOpenArea);
        }
        self.enter(env, now, Stage::SavingSave);
        Flow::Go
    }

    pub(super) fn save_open_area(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, env.sync_streams());
        let now = env.now();
        self.enter(env, now, Stage::SavingSave);
        Flow::Go
    }

    #[inline(always)]
    pub(super) fn save_save(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        let area = self.save_area();
        done!(self, env, who, self.driver.save(who, env.hardware(), area));
        let now = env.now();
        self.enter(env, now, Stage::SavingScrub);
        Flow::Go
    }

    #[inline(always)]
    pub(super) fn save_scrub(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, self.driver.scrub(who, env.hardware()));
        let now = env.now();
        if self.save_area().is_some() {
            return self.point(env, now, Stream::Abort, Stage::SavingCloseArea);
        }
        self.saved(env, now, who)
    }

    pub(super) fn save_close_area(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, env.sync_streams());
        let now = env.now();
        self.saved(env, now, who)
    }

    #[inline(always)]
    fn saved(&mut self, env: &mut dyn Environment, now: Instant, who: VcoprocId) -> Flow {
        self.measured.save = self.measured.save.max(now.since(self.step_since));
        self.detached(env, now, who)
    }

    /// `who`'s context is out of the device, which is free for the next one.
    #[inline(always)]
    fn detached(&mut self, env: &mut dyn Environment, now: Instant, who: VcoprocId) -> Flow {
        self.dirty = false;
        // While it is known where: the next account will be another one's.
        self.ledger.settle(now);
        self.ledger.book();
        self.enter(env, now, Stage::Detached);
        self.holder = None;
        match self.find(who) {
            Some(v) if v.detaching => self.forget(env, who),
            // It was busy when its slice ended, and finished while it was asked to stop.
            Some(v) if v.alive() && !v.parked && !self.driver.has_work(who) => {
                self.algorithm.linger(who, now);
            }
            _ => {}
        }
        self.choose(env, now, None)
    }

    pub(super) fn rest_abort(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, env.sync_streams());
        let now = env.now();
        self.enter(env, now, Stage::RestingFaults);
        Flow::Go
    }

    pub(super) fn rest_faults(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Flow {
        done!(self, env, who, self.faults_read(env));
        let now = env.now();
        if self.alive(who) {
            self.enter(env, now, Stage::Idle);
        } else {
            self.evict(env, now, who);
        }
        Flow::Go
    }
}
