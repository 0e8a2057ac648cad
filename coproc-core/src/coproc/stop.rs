//! Beginning to share a device, ending that, and beginning again.
//!
//! Ending is nothing but detaching everybody: each context leaves the device the way it always does, and when the last one has
//! gone the device is quiet, its interrupt masked and its streams on abort, because that is what an idle
//! coprocessor without a context is. What is left to do is not to go on. A quarantined coprocessor can be ended too; to begin again it
//! must let itself be reset, since nobody knows what state it is in.

use alloc::boxed::Box;

use super::ledger::Bucket;
use super::stage::Stage;
use super::switch::Flow;
use super::{Coproc, Detach, Settings, StartError};
use crate::algorithm::Algorithm;
use crate::environment::{Environment, Stream};
use crate::time::Instant;

impl Coproc {
    /// Exchanges algorithm and settings of a coprocessor that is off.
    ///
    /// # Errors
    /// [`StartError::Started`]: of one that isn't.
    pub fn configure(
        &mut self,
        algorithm: Box<dyn Algorithm>,
        settings: Settings,
    ) -> Result<(), StartError> {
        if self.stage != Stage::Off {
            return Err(StartError::Started);
        }
        self.algorithm = algorithm;
        self.settings = settings;
        Ok(())
    }

    /// Takes the device over: interrupts masked, streams on abort, reset if it was quarantined, probed.
    ///
    /// A reset may take its time and fail after this has returned: then the coprocessor is quarantined (again).
    ///
    /// # Errors
    /// [`StartError`]; the coprocessor stays off, masked and cut off.
    pub fn start(&mut self, env: &mut dyn Environment) -> Result<(), StartError> {
        if self.stage != Stage::Off {
            return Err(StartError::Started);
        }
        env.mask_interrupts(true);
        env.point_streams(Stream::Abort)?;
        self.algorithm.tune(&self.settings.tuning(&*self.driver))?;
        if !self.broken {
            self.driver.probe(env.hardware())?;
        }
        let now = env.now();
        self.ending = false;
        self.resume = None;
        self.dirty = false;
        self.suspect = None;
        self.enter(env, now, Stage::Starting);
        self.advance(env);
        Ok(())
    }

    /// Ends the sharing: detaches everybody, and is off as soon as the last context has left the device. Until then it is
    /// [`Detach::Pending`], and [`Coproc::stage`] tells when it is over. Nobody can be attached any more.
    pub fn stop(&mut self, env: &mut dyn Environment) -> Detach {
        if self.stage != Stage::Off {
            self.ending = true;
        }
        // Each is asked once: from then on it is detaching.
        while let Some(next) = self.vcoprocs.iter().find(|v| !v.detaching) {
            let who = next.id;
            let _ = self.detach(env, who);
        }
        self.end(env);
        if self.stage == Stage::Off {
            Detach::Done
        } else {
            Detach::Pending
        }
    }

    /// Whether it is being stopped.
    pub const fn is_ending(&self) -> bool {
        self.ending
    }

    /// Goes off if that is wanted and nothing is left to be done before.
    pub(super) fn end(&mut self, env: &mut dyn Environment) {
        let over = match self.stage {
            Stage::Idle => self.holder.is_none(),
            Stage::Quarantined => true,
            _ => false,
        };
        if !self.ending || !over || !self.vcoprocs.is_empty() {
            return;
        }
        let now = env.now();
        self.turn(now, Bucket::Idle);
        env.mask_interrupts(true);
        env.arm_timer(None);
        self.ending = false;
        self.enter(env, now, Stage::Off);
    }

    /// The steps of starting, when no context is in the device.
    pub(super) fn step_start(&mut self, env: &mut dyn Environment) -> Flow {
        let answer = match self.stage {
            Stage::Starting => env.sync_streams(),
            Stage::ResettingReset => self.driver.reset(env.hardware()),
            _ => Self::settled(env),
        };
        match self.judge(env, &answer) {
            Ok(true) => {}
            Ok(false) => return Flow::Wait,
            Err(why) => {
                self.quarantine(env, why);
                return Flow::Wait;
            }
        }
        let now = env.now();
        match self.stage {
            Stage::Starting if self.broken => self.enter(env, now, Stage::ResettingReset),
            Stage::ResettingReset => self.enter(env, now, Stage::ResettingSettle),
            Stage::ResettingSettle => return self.recovered(env, now),
            _ => self.enter(env, now, Stage::Idle),
        }
        Flow::Go
    }

    fn recovered(&mut self, env: &mut dyn Environment, now: Instant) -> Flow {
        if self.driver.probe(env.hardware()).is_err() {
            self.quarantine(env, "the driver doesn't take the device after its reset");
            return Flow::Wait;
        }
        self.broken = false;
        self.enter(env, now, Stage::Idle);
        Flow::Go
    }
}
