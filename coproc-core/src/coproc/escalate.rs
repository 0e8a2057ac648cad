//! When a step of the switch fails.
//!
//! The framework's answer to a device that refuses without end, hangs, or loses its IOMMU is always the same ladder: streams to
//! abort, stop by force, reset; then the one vcoproc whose work it was has lost the device and all the others
//! go on with their saved contexts. Only if the reset fails, or interrupts don't settle after it, or the IOMMU can't confirm that the device is cut
//! off, is the coprocessor quarantined: nobody reaches it, everybody is told. Nothing here can stop the hypervisor.

use super::ledger::Bucket;
use super::stage::Stage;
use super::state::Reason;
use super::switch::Flow;
use super::{Coproc, bump};
use crate::driver::Step;
use crate::environment::{Environment, Event, Stream};
use crate::id::VcoprocId;
use crate::trace::TraceKind;

impl Coproc {
    /// Starts taking the device away from `guilty` by force.
    pub(super) fn escalate(
        &mut self,
        env: &mut dyn Environment,
        guilty: VcoprocId,
        why: &'static str,
    ) {
        let now = env.now();
        bump(&mut self.aborts);
        self.switch_since = None;
        self.note(env, Some(guilty), TraceKind::Failed(why));
        let mut reason = None;
        if self.stage == Stage::Quiescing {
            reason = Some(Reason::Aborted);
            self.close_slice(now, Reason::Aborted, Bucket::Fault);
        }
        self.turn(now, Bucket::Fault);
        env.mask_interrupts(true);
        if env.point_streams(Stream::Abort).is_err() {
            return self.quarantine(env, why);
        }
        self.holder = Some(guilty);
        self.why = why;
        self.pass(env, now, Stage::AbortingStreams, reason);
    }

    pub(super) fn step_abort(&mut self, env: &mut dyn Environment, guilty: VcoprocId) -> Flow {
        let streams = self.stage == Stage::AbortingStreams;
        let answer = if streams {
            env.sync_streams()
        } else {
            self.driver.abort(guilty, env.hardware())
        };
        let done = self.judge(env, &answer);
        if done == Ok(false) {
            return Flow::Wait;
        }
        if !streams {
            // A device that can't be stopped may still be reset.
            let now = env.now();
            self.enter(env, now, Stage::ResettingReset);
        } else if done.is_ok() {
            let now = env.now();
            self.enter(env, now, Stage::AbortingStop);
        } else {
            self.quarantine(env, self.why);
        }
        Flow::Go
    }

    pub(super) fn step_reset(&mut self, env: &mut dyn Environment, guilty: VcoprocId) -> Flow {
        let answer: Step = match self.stage {
            Stage::ResettingReset => self.driver.reset(env.hardware()),
            Stage::ResettingSettle => Self::settled(env),
            _ => self.faults_read(env),
        };
        match self.judge(env, &answer) {
            Ok(true) => {}
            Ok(false) => return Flow::Wait,
            Err(_) => {
                self.quarantine(env, self.why);
                return Flow::Go;
            }
        }
        let now = env.now();
        match self.stage {
            Stage::ResettingReset => self.enter(env, now, Stage::ResettingSettle),
            Stage::ResettingSettle => self.enter(env, now, Stage::ResettingFaults),
            _ => {
                self.dirty = false;
                self.enter(env, now, Stage::Detached);
                self.holder = None;
                let why = self.why;
                self.condemn(env, guilty, Event::Faulted(why), why);
                if self.find(guilty).is_some_and(|v| v.detaching) {
                    self.forget(env, guilty);
                }
            }
        }
        Flow::Go
    }

    /// One vcoproc loses the device for good.
    fn condemn(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        event: Event,
        why: &'static str,
    ) {
        let Some(v) = self.find_mut(who) else {
            return;
        };
        let known = v.alive();
        v.faulted.get_or_insert(why);
        v.awake = false;
        v.parked = false;
        if known {
            // Known from attach until now.
            let _ = self.algorithm.remove(who);
        }
        self.lower_lines(env, who);
        env.release_parked(who);
        self.note(env, Some(who), TraceKind::Faulted(why));
        env.notify(who, event);
    }

    /// The device can't be brought back: nobody reaches it any more.
    pub(super) fn quarantine(&mut self, env: &mut dyn Environment, why: &'static str) {
        let now = env.now();
        self.turn(now, Bucket::Fault);
        env.mask_interrupts(true);
        // If this fails too there is nothing left to cut it off with; it was on its way to abort before.
        let _ = env.point_streams(Stream::Abort);
        env.arm_timer(None);
        self.why = why;
        self.broken = true;
        self.enter(env, now, Stage::Quarantined);
        self.holder = None;
        self.note(env, None, TraceKind::Quarantined(why));
        let mut at = 0_usize;
        while let Some((who, detaching)) = self.vcoprocs.get(at).map(|v| (v.id, v.detaching)) {
            if detaching {
                // Nothing will ever take its context out; the device is cut off from its memory.
                self.forget(env, who);
            } else {
                self.condemn(env, who, Event::Quarantined(why), why);
                at = at.saturating_add(1);
            }
        }
        self.end(env);
    }
}
