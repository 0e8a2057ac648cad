//! When a step of the switch fails.
//!
//! The framework's answer to a device that refuses without end, hangs, or loses its IOMMU is always the same ladder: streams to
//! abort, stop by force, reset; then the one vcoproc whose work it was has lost the device and all the others
//! go on with their saved contexts. Only if the reset fails, or the IOMMU can't confirm that the device is cut off, is the
//! coprocessor quarantined: nobody reaches it, everybody is told. Nothing here can stop the hypervisor.
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
use super::state::{AbortPhase, Reason, ResetPhase, State};
use super::switch::{Flow, MIN_LIMIT, limit};
use super::{Coproc, bump};
use crate::driver::Step;
use crate::environment::{Environment, Event, Stream};
use crate::id::VcoprocId;

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
        if matches!(self.state, State::Quiescing { .. }) {
            self.close_slice(now, Reason::Aborted, Bucket::Fault);
        }
        self.turn(now, Bucket::Fault);
        env.mask_interrupts(true);
        if env.point_streams(Stream::Abort).is_err() {
            return self.quarantine(env, why);
        }
        let phase = AbortPhase::Streams;
        self.enter(now, State::Aborting { guilty, why, phase });
    }

    pub(super) fn step_abort(
        &mut self,
        env: &mut dyn Environment,
        guilty: VcoprocId,
        why: &'static str,
        phase: AbortPhase,
    ) -> Flow {
        let (answer, bound) = match phase {
            AbortPhase::Streams => (env.sync_streams(), MIN_LIMIT),
            AbortPhase::Stop => (
                self.driver.abort(guilty, env.hardware()),
                limit(self.driver.description().worst_case.stop),
            ),
        };
        let done = self.judge(env, answer, bound);
        if done == Ok(false) {
            return Flow::Wait;
        }
        match phase {
            AbortPhase::Streams if done.is_err() => self.quarantine(env, why),
            AbortPhase::Streams => {
                let phase = AbortPhase::Stop;
                self.enter(env.now(), State::Aborting { guilty, why, phase });
            }
            // A device that can't be stopped may still be reset.
            AbortPhase::Stop => {
                let phase = ResetPhase::Reset;
                self.enter(env.now(), State::Resetting { guilty, why, phase });
            }
        }
        Flow::Go
    }

    pub(super) fn step_reset(
        &mut self,
        env: &mut dyn Environment,
        guilty: VcoprocId,
        why: &'static str,
        phase: ResetPhase,
    ) -> Flow {
        let answer: Step = match phase {
            ResetPhase::Reset => self.driver.reset(env.hardware()),
            ResetPhase::Settle => Self::settled(env),
            ResetPhase::Faults => self.faults_read(env),
        };
        let bound = match phase {
            ResetPhase::Reset => limit(self.driver.description().worst_case.stop),
            _ => MIN_LIMIT,
        };
        match self.judge(env, answer, bound) {
            Ok(true) => {}
            Ok(false) => return Flow::Wait,
            Err(_) => {
                self.quarantine(env, why);
                return Flow::Go;
            }
        }
        let now = env.now();
        let state = |phase| State::Resetting { guilty, why, phase };
        match phase {
            ResetPhase::Reset => self.enter(now, state(ResetPhase::Settle)),
            ResetPhase::Settle => self.enter(now, state(ResetPhase::Faults)),
            ResetPhase::Faults => {
                self.dirty = false;
                self.enter(now, State::Detached);
                self.condemn(env, guilty, Event::Faulted(why), why);
                if self.find(guilty).is_some_and(|v| v.detaching) {
                    self.forget(guilty);
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
        self.enter(now, State::Quarantined { why });
        let mut at = 0_usize;
        while let Some((who, detaching)) = self.vcoprocs.get(at).map(|v| (v.id, v.detaching)) {
            if detaching {
                // Nothing will ever take its context out; the device is cut off from its memory.
                self.forget(who);
            } else {
                self.condemn(env, who, Event::Quarantined(why), why);
                at = at.saturating_add(1);
            }
        }
    }
}
