//! A domain's trapped access.
//!
//! Who answers depends on where the truth is. The current one gets the windows mapped and repeats the access; anybody
//! else is answered by the driver from the saved context, where a doorbell is queued and makes its vcoproc
//! willing. In between, while a context is on its way, neither copy is the truth, and the vCPU waits:
//!
//! | the vcoproc is | read | write |
//! |---|---|---|
//! | current | windows mapped, repeat | same |
//! | asked to stop, not yet quiet | from the device | waits |
//! | on its way in or out | waits | waits |
//! | resident in an idle device | woken; repeats or waits | same |
//! | anywhere else | from the saved context | into it, or queued, or waits |
//!
//! A current one whose driver holds something that the device can't show ([`Driver::shows_all`](crate::Driver::shows_all)) is answered by the driver, with the device at
//! hand, until it has taken that.
//!
//! A write while the device is asked to stop waits because it could start new work, and only the driver's register table knows
//! which; written into the saved context it would be lost by the save that follows. The wait ends when the vcoproc is
//! current again; a device that needs its domain to go on before it is quiet runs into the refusal bound.

use super::stage::Stage;
use super::state::Place;
use super::{Coproc, bump};
use crate::driver::Verdict;
use crate::environment::Environment;
use crate::id::VcoprocId;
use crate::register::{Access, Operation};

/// What becomes of a trapped access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Outcome {
    /// Done; a read returns this, for a write it means nothing.
    Value(u64),
    /// Go back to the same instruction: the windows are mapped now, or who is to answer has changed.
    Retry,
    /// Block the vCPU on this instruction until [`Environment::release_parked`], or until a virtual interrupt can be delivered; then
    /// the same instruction again. To be carried out before the coprocessor's lock is let go, or a release could be missed.
    Park,
    /// The vcoproc lost the device, or the driver says that the device would answer with a bus error.
    Fault,
}

impl Coproc {
    /// A domain accessed a window that isn't mapped for it, or a register that is always trapped.
    pub fn access(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        access: &Access,
    ) -> Outcome {
        let Some(v) = self.find_mut(who).filter(|v| v.alive()) else {
            return Outcome::Fault;
        };
        // It enters the queue at its first access; from then on at its doorbells, and whenever it has to wait.
        if !core::mem::replace(&mut v.used, true) {
            self.wake(env, who);
            if !self.alive(who) {
                return Outcome::Fault;
            }
        }
        if self.current() == Some(who) {
            return self.access_current(env, who, access);
        }
        match self.place(who) {
            Place::Current => self.access_current(env, who, access),
            Place::Stopping if access.operation == Operation::Read => {
                self.access_device(env, who, access)
            }
            Place::Context => self.access_context(env, who, access),
            Place::Resident => self.access_resident(env, who, access),
            _ => self.park(env, who),
        }
    }

    #[inline(always)]
    fn access_current(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        access: &Access,
    ) -> Outcome {
        let windows = self.description.windows;
        let direct = windows
            .iter()
            .any(|window| window.direct && window.index == access.window);
        let slice = &mut self.slice;
        if direct {
            // Also what is answered below: the claim of one exit per slice is about all of them.
            bump(&mut slice.exits);
        }
        if direct && !slice.mapped && self.driver.shows_all(who) && env.map_windows(who) {
            slice.mapped = true;
            self.touch(env, who);
            self.dirty = true;
            self.count(who, |c| bump(&mut c.touches));
            return Outcome::Retry;
        }
        self.access_device(env, who, access)
    }

    /// The slice is used from here on, and its owner has work.
    #[inline(always)]
    fn touch(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        if !self.stage.is_slice() || core::mem::replace(&mut self.slice.touched, true) {
            return;
        }
        if self.stage == Stage::Running {
            let now = env.now();
            self.settle(now);
            self.algorithm.wake(who, now);
            self.arm_slice(env, now);
        }
    }

    /// The driver answers, with the device at hand.
    fn access_device(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        access: &Access,
    ) -> Outcome {
        self.dirty = true;
        self.touch(env, who);
        self.count(who, |c| bump(&mut c.emulated));
        let verdict = self.driver.access(who, access, Some(env.hardware()));
        self.refresh_lines(env, who);
        match verdict {
            Verdict::Value(value) | Verdict::Queued(value) => Outcome::Value(value),
            Verdict::Park => self.park(env, who),
            Verdict::Fault => Outcome::Fault,
        }
    }

    /// The driver answers from the saved context.
    fn access_context(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        access: &Access,
    ) -> Outcome {
        let verdict = self.driver.access(who, access, None);
        if verdict != Verdict::Park {
            self.count(who, |c| bump(&mut c.emulated));
            // It may have acknowledged or masked an interrupt.
            self.context_lines(env, who);
        }
        match verdict {
            Verdict::Value(value) => Outcome::Value(value),
            Verdict::Queued(value) => {
                self.count(who, |c| bump(&mut c.queued));
                self.wake(env, who);
                Outcome::Value(value)
            }
            Verdict::Park => self.park(env, who),
            Verdict::Fault => Outcome::Fault,
        }
    }

    /// The device holds the context but is cut off: it becomes current first, mostly at once.
    fn access_resident(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        access: &Access,
    ) -> Outcome {
        match self.park(env, who) {
            Outcome::Retry if self.current() == Some(who) => self.access_current(env, who, access),
            other => other,
        }
    }

    /// The vCPU waits, unless the wake-up that this is has already got what it would wait for.
    fn park(&mut self, env: &mut dyn Environment, who: VcoprocId) -> Outcome {
        if let Some(v) = self.find_mut(who) {
            v.parked = true;
        }
        self.wake(env, who);
        match self.find_mut(who) {
            Some(v) if v.parked => {
                bump(&mut v.counters.parked);
                Outcome::Park
            }
            _ => Outcome::Retry,
        }
    }

    /// The domain moved its windows or switched them off: they are unmapped now, and mapped again at the next touch.
    #[inline(always)]
    pub fn windows_changed(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        if self.stage == Stage::Running
            && self.slice.who == who
            && core::mem::take(&mut self.slice.mapped)
        {
            env.unmap_windows(who);
        }
    }
}
