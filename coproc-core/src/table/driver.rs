//! The machinery: a [`Driver`] out of a table and a [`Device`].

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::context::{Context, Phase, Which, clear_latched, scrub};
use super::device::Device;
use super::emulate::{emulate, forward, live};
use super::register::{Met, Reg};
use crate::address::DeviceAddress;
use crate::driver::{Description, Driver, DriverError, Failure, Hardware, Step, Verdict};
use crate::id::VcoprocId;
use crate::memory::Memory;
use crate::register::Access;
use crate::time::Duration;

const UNKNOWN: Step = Step::Failed(Failure("the vcoproc has no context"));
/// How soon to look again at a status that was cleared and still reads as set.
const CLEARING: Duration = Duration::from_micros(50);

/// A driver for one device of the kind `D`.
#[derive(Debug)]
pub struct TableDriver<D: Device> {
    device: D,
    /// Sorted by id.
    contexts: Vec<(VcoprocId, Context<D::Own>)>,
}

impl<D: Device + Default> Default for TableDriver<D> {
    fn default() -> Self {
        Self::new()
    }
}

impl<D: Device + Default> TableDriver<D> {
    /// A driver with no context.
    pub fn new() -> Self {
        Self::with(D::default())
    }
}

#[inline]
fn find<S>(contexts: &mut [(VcoprocId, Context<S>)], who: VcoprocId) -> Option<&mut Context<S>> {
    let at = contexts.binary_search_by_key(&who, |(id, _)| *id).ok()?;
    contexts.get_mut(at).map(|(_, context)| context)
}

impl<D: Device> TableDriver<D> {
    /// Evaluated by the compiler for each `D`.
    const CHECKED: () = D::TABLE.assert_valid();

    /// Whether it has registers whose bits may have to be held.
    const HOLDS: bool = D::TABLE.holds();

    /// A driver with no context, for a device with constants of its own.
    pub fn with(device: D) -> Self {
        const { Self::CHECKED };
        Self {
            device,
            contexts: Vec::new(),
        }
    }

    /// The device's own functions.
    pub const fn device(&self) -> &D {
        &self.device
    }

    fn is_busy(device: &D, hardware: &mut dyn Hardware) -> bool {
        device.busy(&mut |reg: Reg| reg.read(hardware))
    }

    /// Brings a context that leaves up to date, or lets a present one begin to leave.
    fn follow(device: &mut D, context: &mut Context<D::Own>, hardware: &mut dyn Hardware) {
        match context.phase {
            Phase::Away => return,
            Phase::Present => {
                context.begin_leaving(hardware);
                context.look(hardware);
                device.looked(context);
                return device.request_stop(context, hardware);
            }
            Phase::Leaving => context.look(hardware),
        }
        device.looked(context);
    }
}

impl<D: Device> Driver for TableDriver<D> {
    fn description(&self) -> &'static Description {
        &D::TABLE.description
    }

    fn connect(&mut self, memory: Box<dyn Memory>) {
        self.device.connect(memory);
    }

    fn probe(&mut self, hardware: &mut dyn Hardware) -> Result<(), DriverError> {
        let expect = |what, expected, found| {
            if expected == found {
                Ok(())
            } else {
                Err(DriverError::WrongDevice {
                    what,
                    expected,
                    found,
                })
            }
        };
        for identity in D::TABLE.identity {
            let index = D::TABLE.find(identity.window, identity.offset);
            let reg = index.and_then(|index| D::TABLE.at(index));
            let found = reg.map_or(0, |reg| reg.read(hardware));
            expect(identity.what, identity.value, found & identity.mask)?;
        }
        // A probe doesn't wait: who left it working has to wait for it.
        let busy = u64::from(Self::is_busy(&self.device, hardware));
        expect("busy before it was shared", 0, busy)?;
        scrub(D::TABLE, hardware);
        if let Some((what, found)) = clear_latched(D::TABLE, hardware) {
            expect(what, 0, found)?;
        }
        self.device.probe(hardware)
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        let Err(at) = self.contexts.binary_search_by_key(&who, |(id, _)| *id) else {
            return Err(DriverError::Duplicate(who));
        };
        let mut context = Context::new(D::TABLE).ok_or(DriverError::OutOfMemory)?;
        self.contexts
            .try_reserve(1)
            .map_err(|_| DriverError::OutOfMemory)?;
        self.device.create(who, &mut context)?;
        self.contexts.insert(at, (who, context));
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId) {
        if let Ok(at) = self.contexts.binary_search_by_key(&who, |(id, _)| *id) {
            let (_, mut context) = self.contexts.remove(at);
            self.device.destroy(who, &mut context);
        }
    }

    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = find(&mut self.contexts, who) else {
            return UNKNOWN;
        };
        context.forget_progress();
        Self::follow(&mut self.device, context, hardware);
        if !Self::is_busy(&self.device, hardware) {
            context.refusals = 0;
            return Step::Done;
        }
        let (first, last) = (D::TABLE.poll.first, D::TABLE.poll.last);
        let times = 1_u64.wrapping_shl(context.refusals.min(32));
        context.refusals = context.refusals.saturating_add(1);
        Step::Again(first.saturating_mul(times).min(last))
    }

    fn drain(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = find(&mut self.contexts, who) else {
            return UNKNOWN;
        };
        if !context.under_way(Which::Drain, hardware.now()) {
            Self::follow(&mut self.device, context, hardware);
            if Self::is_busy(&self.device, hardware) {
                context.forget_progress();
                return Step::Again(D::TABLE.poll.last);
            }
            if context.phase == Phase::Leaving {
                // Once more, now that nothing changes any more.
                Self::follow(&mut self.device, context, hardware);
                context.leave();
            }
            context.take_latched(hardware);
        }
        let answer = match self.device.settle(context, hardware) {
            Step::Done if context.take_latched(hardware) => Step::Done,
            Step::Done => Step::Again(CLEARING),
            other => other,
        };
        context.judge(answer, hardware.now(), D::TABLE.description.worst_case.stop)
    }

    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step {
        let Some(context) = find(&mut self.contexts, who) else {
            return UNKNOWN;
        };
        if context.phase != Phase::Away {
            return Step::Failed(Failure("saved before it was quiet and drained"));
        }
        // The registers went into the context when it was drained.
        context.under_way(Which::Save, hardware.now());
        let answer = self.device.save(context, hardware, save_area);
        context.judge(answer, hardware.now(), D::TABLE.description.worst_case.save)
    }

    fn scrub(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = find(&mut self.contexts, who) else {
            return UNKNOWN;
        };
        context.under_way(Which::Scrub, hardware.now());
        let answer = self.device.scrub(context, hardware);
        if answer == Step::Done {
            scrub(D::TABLE, hardware);
        }
        context.judge(answer, hardware.now(), D::TABLE.description.worst_case.save)
    }

    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step {
        let Some(context) = find(&mut self.contexts, who) else {
            return UNKNOWN;
        };
        if !context.under_way(Which::Restore, hardware.now())
            && Self::is_busy(&self.device, hardware)
        {
            // It would ignore what comes now.
            context.forget_progress();
            return Step::Failed(Failure("restored while busy"));
        }
        let mut answer = self.device.restore(context, hardware, save_area);
        if answer == Step::Done {
            if clear_latched(D::TABLE, hardware).is_some() {
                answer = Step::Failed(Failure("an interrupt status can't be cleared"));
            } else {
                context.write_registers(hardware);
            }
        }
        context.judge(
            answer,
            hardware.now(),
            D::TABLE.description.worst_case.restore,
        )
    }

    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = find(&mut self.contexts, who) else {
            return UNKNOWN;
        };
        if context.phase == Phase::Present {
            // The device has held the truth all along: nothing was queued, and the shadows are stale.
            return Step::Done;
        }
        // Again, since the domain may have written to the context after the restore.
        context.write_registers(hardware);
        context.put_back(hardware);
        self.device.start(context, hardware);
        while let Some((reg, value)) = context.next_rung() {
            // Its parameters were locked while it was queued, so this can't fail unless this program is wrong; then one domain loses
            // its work, and not all of them the machine.
            let parameters = &mut |reg: Reg| context.get(reg);
            if self.device.allows(reg, value, parameters) {
                reg.write(hardware, value);
            } else {
                log::error!("{who}: a queued doorbell that isn't allowed was dropped");
            }
        }
        context.arrive();
        Step::Done
    }

    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        let Some(context) = find(&mut self.contexts, who) else {
            return Verdict::Fault;
        };
        let part = match D::TABLE.decode(access) {
            Met::Fault => return Verdict::Fault,
            Met::Hole(value) => return Verdict::Value(value),
            Met::Register(part) => part,
        };
        let device = &mut self.device;
        match (context.phase, hardware) {
            (Phase::Present, Some(hardware)) => forward(device, context, access, part, hardware),
            // The truth is out of reach.
            (Phase::Present, None) => Verdict::Park,
            (Phase::Leaving, Some(hardware)) => {
                Self::follow(device, context, hardware);
                let verdict = emulate(device, context, access, part, Some(&mut *hardware));
                Self::follow(device, context, hardware);
                verdict
            }
            (Phase::Leaving, None) | (Phase::Away, _) => {
                emulate(device, context, access, part, None)
            }
        }
    }

    fn shows_all(&self, who: VcoprocId) -> bool {
        if !Self::HOLDS {
            return true;
        }
        let at = self.contexts.binary_search_by_key(&who, |(id, _)| *id);
        let found = at.ok().and_then(|at| self.contexts.get(at));
        found.is_none_or(|(_, context)| !context.holds())
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        self.contexts
            .binary_search_by_key(&who, |(id, _)| *id)
            .ok()
            .and_then(|at| self.contexts.get(at))
            .is_some_and(|(_, context)| context.has_work())
    }

    fn busy(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        find(&mut self.contexts, who).is_some() && Self::is_busy(&self.device, hardware)
    }

    fn interrupt_pending(
        &mut self,
        who: VcoprocId,
        index: usize,
        hardware: Option<&mut dyn Hardware>,
    ) -> bool {
        let Some(context) = find(&mut self.contexts, who) else {
            return false;
        };
        match (context.phase, hardware) {
            // Stale; asked again with the device at hand.
            (Phase::Present, None) => false,
            (Phase::Present, Some(hardware)) => self
                .device
                .pending(index, &mut |reg| live(context, reg, hardware)),
            (Phase::Leaving, Some(hardware)) => {
                Self::follow(&mut self.device, context, hardware);
                self.device.pending(index, &mut |reg| context.get(reg))
            }
            (Phase::Leaving, None) | (Phase::Away, _) => {
                self.device.pending(index, &mut |reg| context.get(reg))
            }
        }
    }

    fn abort(&mut self, _who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        self.device.abort(hardware)
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        let answer = self.device.reset(hardware);
        if answer != Step::Done {
            return answer;
        }
        scrub(D::TABLE, hardware);
        if clear_latched(D::TABLE, hardware).is_some() {
            return Step::Failed(Failure("an interrupt status can't be cleared after reset"));
        }
        for (_, context) in &mut self.contexts {
            // Whatever was under way, the device holds nothing of it any more.
            context.forget_progress();
            context.phase = Phase::Away;
        }
        Step::Done
    }
}
