//! What a switch costs in the framework itself: all of coproc-core and an algorithm, on a device that does nothing.
//!
//! Two vcoprocs that always have work, so each expiry of the slice is a switch: windows unmapped, quiet, interrupt drained, streams to
//! abort, fault records, save, scrub, restore, streams to the next domain, running. Driver and environment answer
//! at once and do nothing, and are reached through the same trait objects as on the machine; their calls and returns count, their register
//! writes, of which there are none, don't.

use alloc::boxed::Box;
use core::hint::black_box;

use coproc_core::address::DeviceAddress;
use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Coproc, Outcome, Settings};
use coproc_core::driver::{
    Description, Driver, DriverError, Failure, Hardware, Step, Verdict, Window, WorstCase,
};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::ring::Ring;
use coproc_core::time::{Duration, Instant};
use coproc_core::trace::TraceEvent;

use crate::exits::measure;

/// Events that the trace keeps, as on the machine.
const TRACED: usize = 1024;
/// Expiries of the timer until there must have been a switch.
const MOST_EXPIRIES: u32 = 8;
const SLICE: Duration = Duration::from_millis(1);
const SIDES: [VcoprocId; 2] = [VcoprocId(1), VcoprocId(2)];

const fn description(save_area: u64) -> Description {
    Description {
        name: "null",
        matches: &[],
        windows: &[Window {
            name: "registers",
            index: 0,
            size: 4096,
            direct: true,
        }],
        interrupts: 1,
        streams: 1,
        own_iommu: false,
        save_area,
        worst_case: WorstCase {
            refusal: Duration::ZERO,
            stop: Duration::ZERO,
            save: Duration::ZERO,
            restore: Duration::ZERO,
        },
        refusal_bound: SLICE,
        slice: SLICE,
    }
}

static BY_REGISTERS: Description = description(0);
static BY_DMA: Description = description(4096);

/// Always busy, at once quiet, nothing to save.
struct Null(&'static Description);

impl Driver for Null {
    fn description(&self) -> &'static Description {
        self.0
    }

    fn probe(&mut self, _hardware: &mut dyn Hardware) -> Result<(), DriverError> {
        Ok(())
    }

    fn create(&mut self, _who: VcoprocId) -> Result<(), DriverError> {
        Ok(())
    }

    fn destroy(&mut self, _who: VcoprocId) {}

    fn quiet(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn drain(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn save(
        &mut self,
        _who: VcoprocId,
        _hardware: &mut dyn Hardware,
        _save_area: Option<DeviceAddress>,
    ) -> Step {
        Step::Done
    }

    fn scrub(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn restore(
        &mut self,
        _who: VcoprocId,
        _hardware: &mut dyn Hardware,
        _save_area: Option<DeviceAddress>,
    ) -> Step {
        Step::Done
    }

    fn replay(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn access(
        &mut self,
        _who: VcoprocId,
        _access: &Access,
        _hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        Verdict::Value(0)
    }

    fn has_work(&self, _who: VcoprocId) -> bool {
        false
    }

    fn busy(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> bool {
        true
    }

    fn interrupt_pending(
        &mut self,
        _who: VcoprocId,
        _index: usize,
        _hardware: Option<&mut dyn Hardware>,
    ) -> bool {
        false
    }

    fn abort(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("never asked"))
    }

    fn reset(&mut self, _hardware: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("never asked"))
    }
}

/// No registers.
struct Nothing;

impl Hardware for Nothing {
    fn read(&mut self, _window: usize, _offset: u64, width: Width) -> u64 {
        width.mask()
    }

    fn write(&mut self, _window: usize, _offset: u64, _width: Width, _value: u64) {}

    fn now(&self) -> Instant {
        Instant::from_nanos(0)
    }
}

/// A machine whose time goes from timer to timer.
struct Machine {
    now: Instant,
    armed: Option<Instant>,
    nothing: Nothing,
    trace: Ring<TraceEvent>,
}

impl Environment for Machine {
    fn now(&self) -> Instant {
        self.now
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        self.armed = at;
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        &mut self.nothing
    }

    fn mask_interrupts(&mut self, _masked: bool) {}

    fn interrupt_asserted(&mut self, _index: usize) -> bool {
        false
    }

    fn interrupts_settled(&mut self) -> bool {
        true
    }

    fn map_windows(&mut self, _who: VcoprocId) -> bool {
        true
    }

    fn unmap_windows(&mut self, _who: VcoprocId) {}

    fn point_streams(&mut self, _target: Stream) -> Result<(), IommuError> {
        Ok(())
    }

    fn sync_streams(&mut self) -> Step {
        Step::Done
    }

    fn take_faults(&mut self) -> Option<Faults> {
        Some(Faults::default())
    }

    fn set_interrupt(&mut self, _who: VcoprocId, _index: usize, _pending: bool) {}

    fn release_parked(&mut self, _who: VcoprocId) {}

    fn notify(&mut self, _who: VcoprocId, _event: Event) {}

    #[inline(always)]
    fn trace(&mut self, event: &TraceEvent) {
        self.trace.push(*event);
    }
}

const TOUCH: Access = Access {
    window: 0,
    offset: 0,
    width: Width::Word,
    operation: Operation::Read,
};

/// What happens in each slice.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// The first access maps the windows: its handling counts, too, and the context is saved.
    Touched,
    /// Nobody touches the device: nothing is saved.
    Untouched,
}

/// Ticks that `repetitions` switches took.
fn switches(
    name: &'static str,
    description: &'static Description,
    how: Use,
    repetitions: u64,
) -> Result<u64, &'static str> {
    let tuning = Tuning::new(SLICE);
    let algorithm = sched_algos::by_name(name, &tuning).ok_or("no such algorithm")?;
    let driver = Box::new(Null(description));
    let settings = Settings::of(&*driver);
    let mut machine = Machine {
        now: Instant::from_nanos(0),
        armed: None,
        nothing: Nothing,
        trace: Ring::new(TRACED, TraceEvent::EMPTY).ok_or("no memory for the trace")?,
    };
    let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, machine.now);
    // Through a pointer that the optimiser knows nothing about, as in the hypervisor.
    let env: &mut Machine = black_box(&mut machine);
    coproc
        .start(env)
        .map_err(|_| "the framework didn't start")?;
    let parameters = Parameters {
        budget: Some(Duration::from_micros(400)),
        period: Some(SLICE),
        ..Parameters::default()
    };
    for (who, domain) in SIDES.into_iter().zip(1..) {
        coproc
            .attach(env, who, DomainId(domain), &parameters)
            .map_err(|_| "a vcoproc was refused")?;
        // Its first access, which makes it want the device.
        let _ = coproc.access(env, who, &TOUCH);
    }
    let mut wrong = 0u64;
    let ticks = measure(repetitions, |n| {
        for _ in 0..n {
            let before = coproc.current();
            let mut expiries = 0;
            // An algorithm may also be heard without a switch; that is part of what it costs.
            while coproc.current() == before && expiries < MOST_EXPIRIES {
                if let Some(at) = env.armed {
                    env.now = at;
                }
                coproc.timer(env);
                expiries += 1;
            }
            let after = coproc.current();
            if after == before || after.is_none() {
                wrong += 1;
            }
            if how == Use::Touched
                && let Some(who) = after
                && coproc.access(env, who, &TOUCH) != Outcome::Retry
            {
                wrong += 1;
            }
        }
    });
    if wrong == 0 {
        Ok(ticks)
    } else {
        Err("the algorithm didn't switch")
    }
}

/// All rows of this module.
pub fn run(repetitions: u64, row: &mut dyn FnMut(&'static str, u64)) -> Result<(), &'static str> {
    for (name, algorithm, description, how) in [
        ("coproc_switch_framework", "rr", &BY_REGISTERS, Use::Touched),
        ("coproc_switch_framework_dma", "rr", &BY_DMA, Use::Touched),
        (
            "coproc_switch_framework_untouched",
            "rr",
            &BY_REGISTERS,
            Use::Untouched,
        ),
        (
            "coproc_switch_framework_weighted",
            "weighted",
            &BY_REGISTERS,
            Use::Touched,
        ),
        (
            "coproc_switch_framework_priority",
            "priority",
            &BY_REGISTERS,
            Use::Touched,
        ),
        (
            "coproc_switch_framework_reservation",
            "reservation",
            &BY_REGISTERS,
            Use::Touched,
        ),
    ] {
        row(name, switches(algorithm, description, how, repetitions)?);
    }
    Ok(())
}
