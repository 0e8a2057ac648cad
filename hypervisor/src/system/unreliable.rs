//! A driver that fails when it is told to: see `hypervisor::injection`.

use alloc::boxed::Box;
use coproc_core::Driver;
use coproc_core::address::DeviceAddress;
use coproc_core::driver::{Description, DriverError, Failure, Hardware, Step, Verdict};
use coproc_core::id::VcoprocId;
use coproc_core::memory::Memory;
use coproc_core::register::Access;
use hypervisor::injection::{self, Kind};

/// Any driver, made unreliable.
pub struct Unreliable(pub Box<dyn Driver>);

fn refuse() -> Result<(), DriverError> {
    if injection::fails(Kind::Driver) {
        return Err(DriverError::OutOfMemory);
    }
    Ok(())
}

fn fail() -> Option<Step> {
    injection::fails(Kind::Driver).then_some(Step::Failed(Failure("an injected fault")))
}

impl Driver for Unreliable {
    fn description(&self) -> &'static Description {
        self.0.description()
    }

    fn connect(&mut self, memory: Box<dyn Memory>) {
        self.0.connect(memory);
    }

    fn probe(&mut self, hardware: &mut dyn Hardware) -> Result<(), DriverError> {
        refuse()?;
        self.0.probe(hardware)
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        refuse()?;
        self.0.create(who)
    }

    fn destroy(&mut self, who: VcoprocId) {
        self.0.destroy(who);
    }

    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        fail().unwrap_or_else(|| self.0.quiet(who, hardware))
    }

    fn drain(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        fail().unwrap_or_else(|| self.0.drain(who, hardware))
    }

    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        area: Option<DeviceAddress>,
    ) -> Step {
        fail().unwrap_or_else(|| self.0.save(who, hardware, area))
    }

    fn scrub(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        fail().unwrap_or_else(|| self.0.scrub(who, hardware))
    }

    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        area: Option<DeviceAddress>,
    ) -> Step {
        fail().unwrap_or_else(|| self.0.restore(who, hardware, area))
    }

    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        fail().unwrap_or_else(|| self.0.replay(who, hardware))
    }

    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        self.0.access(who, access, hardware)
    }

    fn shows_all(&self, who: VcoprocId) -> bool {
        self.0.shows_all(who)
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        self.0.has_work(who)
    }

    fn busy(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        self.0.busy(who, hardware)
    }

    fn interrupt_pending(
        &mut self,
        who: VcoprocId,
        index: usize,
        hardware: Option<&mut dyn Hardware>,
    ) -> bool {
        self.0.interrupt_pending(who, index, hardware)
    }

    fn abort(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        self.0.abort(who, hardware)
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        fail().unwrap_or_else(|| self.0.reset(hardware))
    }
}
