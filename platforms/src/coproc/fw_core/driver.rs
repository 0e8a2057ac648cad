//! Shares a firmware core: the driver, `baton,fw-core`.
//!
//! It isn't made of a register table. A table pays where registers are values that go out and in; here commands change other registers at once
//! (a start clears what the former run left, a stop ends it), must do so while away too, and half of the context is the firmware's and
//! has no register that a domain could name. But what an access does is written once all the same: the context that waits is the same
//! type as the one in the device.
//!
//! While its vcoproc is away a domain can start and stop its firmware and ring it, and all of that takes effect in the context, at once. So nothing
//! is queued but the wish to run; a doorbell is a pending interrupt, there as here.

use alloc::vec::Vec;

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{
    Description, Driver, DriverError, Failure, Hardware, Match, Step, Verdict, Window, WorstCase,
};
use coproc_core::id::VcoprocId;
use coproc_core::register::Width::{Double, Word};
use coproc_core::register::{Access, Operation};
use coproc_core::time::{Duration, Instant};
use fw_core_abi::{ID, REGISTERS_SIZE, host, interrupt};

use super::context::Context;
use super::core_registers::{
    COMMAND, CONTEXT, INTERRUPT_ENABLE, INTERRUPT_STATUS, STATE, command, register, state,
};

/// First wait between two questions whether the core rests: an IPI and an exit take some µs.
const POLL: Duration = Duration::from_micros(10);
/// Up to here the next one comes after as long as it has refused already.
const POLL_SOON: Duration = Duration::from_micros(100);
/// The longest one.
const POLL_LATE: Duration = Duration::from_millis(10);

/// When to ask again a core that has refused for so long. It may be the core's own CPU that asks: the more it does, the longer the
/// firmware takes to where it lets go, and where a question takes longer than the wait for the next one (an emulator on a busy host), for ever.
/// So later only every eighth of that time.
fn patience(refused: Duration) -> Duration {
    let late = Duration::from_nanos(refused.as_nanos() / 8);
    refused.min(POLL_SOON).max(late).clamp(POLL, POLL_LATE)
}

const DESCRIPTION: Description = Description {
    name: "baton,fw-core",
    matches: &[Match::FirmwareCore],
    windows: &[Window {
        name: "registers",
        index: 0,
        size: REGISTERS_SIZE,
        direct: false,
    }],
    interrupts: 1,
    streams: 1,
    own_iommu: false,
    save_area: 0,
    worst_case: WorstCase {
        // A critical section, or the way to where the firmware yields; what firmware should keep to.
        refusal: Duration::from_millis(10),
        stop: Duration::from_micros(200),
        save: Duration::from_micros(50),
        restore: Duration::from_micros(50),
    },
    refusal_bound: Duration::from_millis(100),
    slice: Duration::from_millis(5),
};

/// One vcoproc.
#[derive(Debug)]
struct Slot {
    id: VcoprocId,
    /// The registers, as they were when it left the device.
    context: Context,
    /// The truth is in the device.
    present: bool,
    /// Since when the core is asked to stop.
    asked: Option<Instant>,
}

/// The driver, for one firmware core.
#[derive(Debug, Default)]
pub struct FwCore {
    /// By id.
    slots: Vec<Slot>,
}

fn look(hardware: &mut dyn Hardware, offset: u64) -> u64 {
    hardware.read(0, offset, Double)
}

fn put(hardware: &mut dyn Hardware, offset: u64, value: u64) {
    hardware.write(0, offset, Double, value);
}

fn is(hardware: &mut dyn Hardware, bits: u64) -> bool {
    look(hardware, STATE) & bits == bits
}

/// What a domain may be answered for by the device; beyond are grants, which are the hypervisor's, and the core's own registers.
fn is_shared(access: &Access) -> bool {
    access.window == 0 && access.offset < host::GRANT
}

const UNKNOWN: Step = Step::Failed(Failure("fw-core: no such context"));

impl FwCore {
    /// Without contexts.
    pub const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    fn position(&self, who: VcoprocId) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&who, |slot| slot.id)
    }

    fn slot(&mut self, who: VcoprocId) -> Option<&mut Slot> {
        let at = self.position(who).ok()?;
        self.slots.get_mut(at)
    }
}

/// Answers from the saved context.
fn access_context(context: &mut Context, access: &Access) -> Verdict {
    match access.operation {
        Operation::Read => Verdict::Value(context.host_read(access.offset, access.width)),
        Operation::Write(value) => {
            context.host_write(access.offset, access.width, value);
            let works = matches!(access.offset, host::CONTROL | host::DOORBELL);
            if works && context.runs() {
                Verdict::Queued(0)
            } else {
                Verdict::Value(0)
            }
        }
    }
}

impl Driver for FwCore {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
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
        let id = hardware.read(0, host::ID, Word);
        expect("fw-core: identification", ID.into(), id)?;
        put(hardware, COMMAND, command::RESET);
        expect(
            "fw-core: state after reset",
            state::RESTING,
            look(hardware, STATE),
        )
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        let Err(at) = self.position(who) else {
            return Err(DriverError::Duplicate(who));
        };
        if self.slots.try_reserve(1).is_err() {
            return Err(DriverError::OutOfMemory);
        }
        let slot = Slot {
            id: who,
            context: Context::new(),
            present: false,
            asked: None,
        };
        self.slots.insert(at, slot);
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId) {
        if let Ok(at) = self.position(who) {
            self.slots.remove(at);
        }
    }

    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(slot) = self.slot(who) else {
            return UNKNOWN;
        };
        let now = hardware.now();
        let since = match slot.asked {
            Some(since) => since,
            None => {
                put(hardware, COMMAND, command::STOP);
                slot.asked = Some(now);
                now
            }
        };
        if is(hardware, state::RESTING) {
            slot.asked = None;
            return Step::Done;
        }
        Step::Again(patience(now.since(since)))
    }

    fn drain(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(slot) = self.slot(who) else {
            return UNKNOWN;
        };
        // One that was restored and never let run has its status in the context still.
        if slot.present {
            slot.present = false;
            // With what enables it: from here on the context answers for the line.
            for index in [INTERRUPT_STATUS, INTERRUPT_ENABLE] {
                slot.context.set(index, look(hardware, register(index)));
            }
        }
        put(hardware, register(INTERRUPT_STATUS), 0);
        if look(hardware, register(INTERRUPT_STATUS)) == 0 {
            Step::Done
        } else {
            Step::Failed(Failure("fw-core: the interrupt status doesn't clear"))
        }
    }

    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        _save_area: Option<DeviceAddress>,
    ) -> Step {
        let Some(slot) = self.slot(who) else {
            return UNKNOWN;
        };
        let mut saved = slot.context.save();
        for (index, value) in saved.iter_mut().enumerate() {
            if index != INTERRUPT_STATUS {
                *value = look(hardware, register(index));
            }
        }
        slot.context = Context::load(&saved);
        Step::Done
    }

    fn scrub(&mut self, _who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        put(hardware, COMMAND, command::RESET);
        if is(hardware, state::RESTING) && look(hardware, CONTEXT) == 0 {
            Step::Done
        } else {
            Step::Failed(Failure("fw-core: scrubbed while it executes"))
        }
    }

    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        _save_area: Option<DeviceAddress>,
    ) -> Step {
        let Some(slot) = self.slot(who) else {
            return UNKNOWN;
        };
        slot.asked = None;
        let number = u64::from(who.0).saturating_add(1);
        for (index, value) in slot.context.save().into_iter().enumerate() {
            let value = if index == INTERRUPT_STATUS { 0 } else { value };
            put(hardware, register(index), value);
        }
        put(hardware, CONTEXT, number);
        if is(hardware, state::RESTING) && look(hardware, CONTEXT) == number {
            Step::Done
        } else {
            Step::Failed(Failure("fw-core: restored while it executes"))
        }
    }

    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(slot) = self.slot(who) else {
            return UNKNOWN;
        };
        if !slot.present {
            slot.present = true;
            let pending = slot.context.get(INTERRUPT_STATUS);
            put(hardware, register(INTERRUPT_STATUS), pending);
            put(hardware, COMMAND, command::RUN);
        }
        Step::Done
    }

    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        let Some(slot) = self.slot(who) else {
            return Verdict::Fault;
        };
        if !is_shared(access) {
            return Verdict::Value(0);
        }
        let Some(hardware) = hardware else {
            return access_context(&mut slot.context, access);
        };
        Verdict::Value(match access.operation {
            Operation::Read => hardware.read(0, access.offset, access.width),
            Operation::Write(value) => {
                hardware.write(0, access.offset, access.width, value);
                0
            }
        })
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        let slot = self.position(who).ok().and_then(|at| self.slots.get(at));
        // What is in the device tells by itself: `busy`.
        slot.is_some_and(|slot| !slot.present && slot.context.runs())
    }

    fn busy(&mut self, _who: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        is(hardware, state::RUNNABLE)
    }

    fn interrupt_pending(
        &mut self,
        who: VcoprocId,
        index: usize,
        hardware: Option<&mut dyn Hardware>,
    ) -> bool {
        if index != 0 {
            return false;
        }
        match hardware {
            Some(hardware) => {
                let status = hardware.read(0, host::INTERRUPT_STATUS, Word);
                let enable = hardware.read(0, host::INTERRUPT_ENABLE, Word);
                status & enable & u64::from(interrupt::ALL) != 0
            }
            None => self.slot(who).is_some_and(|slot| slot.context.interrupts()),
        }
    }

    fn abort(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        if let Some(slot) = self.slot(who) {
            slot.asked = None;
        }
        put(hardware, COMMAND, command::FORCE_STOP);
        if is(hardware, state::RESTING) {
            Step::Done
        } else {
            Step::Again(POLL)
        }
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        for slot in &mut self.slots {
            slot.present = false;
            slot.asked = None;
        }
        put(hardware, COMMAND, command::RESET);
        if is(hardware, state::RESTING) {
            Step::Done
        } else {
            Step::Again(POLL)
        }
    }
}
