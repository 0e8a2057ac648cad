//! The way in: restore a context, turn the streams to the domain, begin the slice.

use super::ledger::Bucket;
use super::stage::Stage;
use super::state::Slice;
use super::switch::{Flow, done, then};
use super::{Coproc, bump};
use crate::algorithm::MIN_SLICE;
use crate::environment::{Environment, Stream};
use crate::id::{Epoch, VcoprocId};
use crate::time::{Duration, Instant};

impl Coproc {
    /// The one whose context is in the device goes on: only the streams have to be turned.
    pub(super) fn resume_resident(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        who: VcoprocId,
        length: Option<Duration>,
    ) -> Flow {
        self.turn(now, Bucket::Overhead(who));
        self.length = length;
        self.resident = true;
        self.point(env, now, Stream::Domain(who), Stage::RestoringOpenDomain)
    }

    /// Starts putting `next`'s context into the empty device.
    pub(super) fn restore(
        &mut self,
        env: &mut dyn Environment,
        now: Instant,
        next: VcoprocId,
        length: Option<Duration>,
    ) -> Flow {
        self.turn(now, Bucket::Overhead(next));
        self.switch_since.get_or_insert(now);
        self.step_since = now;
        self.dirty = false;
        self.holder = Some(next);
        self.length = length;
        self.resident = false;
        if self.save_area().is_some() {
            return self.point(env, now, Stream::Save(next), Stage::RestoringOpenArea);
        }
        self.enter(env, now, Stage::RestoringRestore);
        let restored = self.driver.restore(next, env.hardware(), None);
        done!(self, env, next, restored);
        let now = env.now();
        // It was alive when it was chosen, and nothing has happened since.
        let restored = self.point(env, now, Stream::Domain(next), Stage::RestoringOpenDomain);
        then!(self, restored, Stage::RestoringOpenDomain);
        let opened = self.restore_open_domain(env, next);
        then!(self, opened, Stage::RestoringReplay);
        self.restore_replay(env, next)
    }

    pub(super) fn restore_open_area(&mut self, env: &mut dyn Environment, next: VcoprocId) -> Flow {
        done!(self, env, next, env.sync_streams());
        let now = env.now();
        self.enter(env, now, Stage::RestoringRestore);
        Flow::Go
    }

    pub(super) fn restore_restore(&mut self, env: &mut dyn Environment, next: VcoprocId) -> Flow {
        let area = self.save_area();
        done!(
            self,
            env,
            next,
            self.driver.restore(next, env.hardware(), area)
        );
        let now = env.now();
        if area.is_some() {
            return self.point(env, now, Stream::Abort, Stage::RestoringCloseArea);
        }
        self.open_domain(env, now, next)
    }

    pub(super) fn restore_close_area(
        &mut self,
        env: &mut dyn Environment,
        next: VcoprocId,
    ) -> Flow {
        done!(self, env, next, env.sync_streams());
        let now = env.now();
        self.open_domain(env, now, next)
    }

    /// The context is in the device.
    #[inline(always)]
    fn open_domain(&mut self, env: &mut dyn Environment, now: Instant, next: VcoprocId) -> Flow {
        if !self.alive(next) {
            self.evict(env, now, next);
            return Flow::Go;
        }
        self.point(env, now, Stream::Domain(next), Stage::RestoringOpenDomain)
    }

    #[inline(always)]
    pub(super) fn restore_open_domain(
        &mut self,
        env: &mut dyn Environment,
        next: VcoprocId,
    ) -> Flow {
        done!(self, env, next, env.sync_streams());
        let now = env.now();
        self.enter(env, now, Stage::RestoringReplay);
        Flow::Go
    }

    #[inline(always)]
    pub(super) fn restore_replay(&mut self, env: &mut dyn Environment, next: VcoprocId) -> Flow {
        // Not undone half way: a vcoproc on its way out gets none of its work replayed.
        if !self.alive(next) {
            let now = env.now();
            self.evict(env, now, next);
            return Flow::Go;
        }
        let work = self.driver.has_work(next);
        let mut worked = false;
        if work || !self.resident {
            self.dirty |= work;
            worked = self.dirty;
            done!(self, env, next, self.driver.replay(next, env.hardware()));
        }
        self.run(env, next, worked);
        Flow::Wait
    }

    /// The domain may touch the device from here on; its slice begins at the end of this.
    #[inline(always)]
    fn run(&mut self, env: &mut dyn Environment, who: VcoprocId, touched: bool) {
        self.epoch = Epoch(self.epoch.0.saturating_add(1));
        let claimed = self
            .find_mut(who)
            .is_some_and(|v| core::mem::take(&mut v.parked));
        // The lines first: they need to know that the truth is in the device now.
        self.live_lines(env, who, true);
        if claimed {
            env.release_parked(who);
        }
        let now = env.now();
        let until = self
            .length
            .map(|length| now.saturating_add(length.max(MIN_SLICE)));
        self.slice = Slice {
            who,
            epoch: self.epoch,
            since: now,
            until,
            touched,
            claimed,
            mapped: false,
            exits: 0,
        };
        self.turn(now, Bucket::Charge(who));
        self.enter(env, now, Stage::Running);
        let switched = self.switch_since.take().map(|since| now.since(since));
        let restored = now.since(self.step_since);
        if switched.is_some() {
            self.measured.restore = self.measured.restore.max(restored);
        }
        let resident = self.resident;
        if let Some(v) = self.find_mut(who) {
            v.spreads.wait.record(now.since(v.waits_since));
            if let Some(time) = switched {
                v.spreads.switch.record(time);
            }
            if !resident {
                bump(&mut v.counters.switches);
            }
        }
        self.arm_slice(env, now);
    }
}
