//! The device alone, and with its driver alone: what each side may rely on.

use alloc::format;
use alloc::vec;
use alloc::vec::Vec;

use coproc_core::driver::{Driver, Hardware as _, Step};
use coproc_core::environment::Stream;
use coproc_core::id::VcoprocId;
use coproc_core::register::Width::{self, Double, Word};
use coproc_core::time::Duration;
use fw_core_abi::{control, host, interrupt, local, local_interrupt, status};
use proptest::prelude::*;

use super::core_registers::{CONTEXT, REGISTERS, STATE, command, register, state};
use super::model::{Core, Op};
use super::{Device, FwCore, Orders, Start, core_registers};

/// A device with context 7 in it, under RUN.
fn running() -> Device {
    let mut device = Device::new();
    device.write(CONTEXT, Double, 8);
    command(&mut device, command::RUN);
    device.write(host::ENTRY, Double, 0x8000_0000);
    device.write(host::ARGUMENT, Double, 5);
    device.write(host::CONTROL, Word, control::START.into());
    assert!(device.take_kick(), "the core has to hear of a start");
    let start = Start {
        entry: 0x8000_0000,
        argument: 5,
    };
    assert_eq!(device.orders(), run(Some(start)));
    device
}

fn run(start: Option<Start>) -> Orders {
    Orders::Run { context: 7, start }
}

fn command(device: &mut Device, command: u64) {
    device.write(core_registers::COMMAND, Double, command);
}

fn is(device: &mut Device, bits: u64) -> bool {
    device.read(STATE, Double) & bits == bits
}

fn status_of(device: &mut Device) -> u64 {
    device.read(host::STATUS, Word)
}

fn set(device: &mut Device, offset: u64, value: u64) {
    assert_eq!(device.local_access(offset, Word, Some(value)), Some(0));
}

#[test]
fn power_on_is_rest() {
    let mut device = Device::new();
    assert!(is(&mut device, state::RESTING));
    assert_eq!(device.orders(), Orders::Rest);
    assert!(!device.take_kick() && !device.interrupt_asserted());
    command(&mut device, command::RUN);
    device.write(host::CONTROL, Word, control::START.into());
    assert_eq!(device.orders(), Orders::Rest, "no context is loaded");
}

#[test]
fn a_start_is_given_once_and_ignored_while_it_runs() {
    let mut device = running();
    device.write(host::ENTRY, Double, 0x8000_1000);
    device.write(host::CONTROL, Word, control::START.into());
    assert!(!device.take_kick());
    assert_eq!(device.orders(), run(None));
    assert_eq!(device.orders(), run(None));
}

#[test]
fn a_stop_is_over_when_the_core_has_asked() {
    let mut device = running();
    command(&mut device, command::STOP);
    assert!(device.take_kick() && !device.take_kick());
    assert!(
        !is(&mut device, state::RESTING),
        "it may still be executing"
    );
    assert_eq!(device.orders(), Orders::Rest);
    assert!(is(&mut device, state::RESTING | state::RUNNABLE));
    assert_eq!(device.orders(), Orders::Rest);
    command(&mut device, command::RUN);
    assert!(device.take_kick());
    assert_eq!(device.orders(), run(None));
}

#[test]
fn a_critical_section_refuses_until_its_end_and_never_force() {
    let mut device = running();
    set(&mut device, local::CRITICAL, 3);
    command(&mut device, command::STOP);
    assert_eq!(device.orders(), run(None));
    assert!(is(&mut device, state::REFUSES_CRITICAL));
    set(&mut device, local::CRITICAL, 0);
    assert_eq!(device.orders(), Orders::Rest);

    let mut device = running();
    set(&mut device, local::CRITICAL, 1);
    command(&mut device, command::STOP);
    command(&mut device, command::FORCE_STOP);
    assert!(!is(&mut device, state::RESTING));
    assert_eq!(device.orders(), Orders::Rest);
    assert!(is(&mut device, state::RESTING));
    command(&mut device, command::STOP);
    assert_eq!(device.orders(), Orders::Rest, "a stop starts nothing");
}

#[test]
fn who_accepted_is_asked_and_stops_only_by_yielding() {
    let mut device = Device::new();
    let accepted = host::PARAVIRTUAL + coproc_core::paravirtual::register::ACCEPTED;
    let request = host::PARAVIRTUAL + coproc_core::paravirtual::register::REQUEST;
    device.write(accepted, Word, 0xffff_ffff);
    assert_eq!(device.read(accepted, Word), 1, "only what is offered");
    device.write(CONTEXT, Double, 8);
    command(&mut device, command::RUN);
    device.write(host::CONTROL, Word, control::START.into());
    device.write(accepted, Word, 0);
    assert_eq!(device.read(accepted, Word), 1, "locked while it runs");
    device.orders();
    assert_eq!(device.local_access(local::FEATURES, Word, None), Some(1));
    set(&mut device, local::ENABLE, local_interrupt::YIELD.into());
    set(&mut device, local::YIELD, 1);
    assert_eq!(device.orders(), run(None), "nobody asked");

    command(&mut device, command::STOP);
    assert!(device.take_kick());
    assert_eq!(device.orders(), run(None));
    assert!(device.virtual_interrupt());
    assert_eq!(device.read(request, Word), 1);
    assert!(is(&mut device, state::REFUSES_YIELD));
    set(&mut device, local::YIELD, 1);
    assert_eq!(device.orders(), Orders::Rest);
    assert_eq!(device.read(request, Word), 0);
    command(&mut device, command::RUN);
    assert_eq!(device.orders(), run(None));
    assert!(!device.virtual_interrupt());
}

/// The stop finds it waiting, where nobody has to ask; but the core hasn't come to EL2's orders yet, and until then the domain rings.
#[test]
fn who_is_woken_while_it_is_to_stop_is_asked_too() {
    let mut device = Device::new();
    let accepted = host::PARAVIRTUAL + coproc_core::paravirtual::register::ACCEPTED;
    device.write(accepted, Word, 1);
    device.write(CONTEXT, Double, 8);
    command(&mut device, command::RUN);
    device.write(host::CONTROL, Word, control::START.into());
    device.orders();
    set(&mut device, local::ENABLE, local_interrupt::ALL.into());
    device.waits();
    command(&mut device, command::STOP);
    device.write(host::DOORBELL, Word, 1);
    assert_eq!(device.orders(), run(None));
    assert!(is(&mut device, state::REFUSES_YIELD));
    let pending = device.local_access(local::PENDING, Word, None);
    assert_eq!(pending, Some(local_interrupt::ALL.into()));
    set(&mut device, local::YIELD, 1);
    assert_eq!(device.orders(), Orders::Rest);
}

#[test]
fn who_refuses_for_long_is_asked_rarely() {
    let (mut driver, mut core) = (FwCore::new(), Core::default());
    let who = VcoprocId(7);
    core.stream = Stream::Domain(who);
    core.images.insert(who.0, vec![Op::Hang]);
    driver.create(who).unwrap();
    assert_eq!(driver.restore(who, &mut core, None), Step::Done);
    assert_eq!(driver.replay(who, &mut core), Step::Done);
    core.write(0, host::CONTROL, Word, control::START.into());
    core.advance(Duration::from_micros(50));
    set(&mut core.device, local::CRITICAL, 1);
    let started = core.now();
    let mut questions = 0;
    loop {
        let refused = core.now().since(started);
        let Step::Again(wait) = driver.quiet(who, &mut core) else {
            panic!("it refuses");
        };
        // What a switch takes longer by it.
        let longest = Duration::from_micros(10).max(refused);
        assert!(wait <= longest && wait <= Duration::from_millis(10));
        if refused >= Duration::from_millis(100) {
            break;
        }
        questions += 1;
        core.advance(wait);
    }
    assert!((40..80).contains(&questions), "{questions}");
}

#[test]
fn waiting_ends_with_an_enabled_interrupt_only_and_stops_at_once() {
    let mut device = running();
    device.waits();
    assert_eq!(status_of(&mut device), status::WAITING.into());
    assert_eq!(device.orders(), Orders::Rest);
    assert!(is(&mut device, state::WAITING) && !is(&mut device, state::RESTING));
    device.write(host::DOORBELL, Word, 1);
    assert_eq!(device.orders(), Orders::Rest, "it isn't enabled");
    command(&mut device, command::STOP);
    assert!(is(&mut device, state::RESTING), "nothing executes");

    let mut device = running();
    set(&mut device, local::ENABLE, local_interrupt::DOORBELL.into());
    device.waits();
    assert_eq!(device.orders(), Orders::Rest);
    device.take_kick();
    device.write(host::DOORBELL, Word, 1);
    assert!(device.take_kick());
    assert_eq!(device.orders(), run(None));
    assert!(device.virtual_interrupt());
    device.waits();
    assert_eq!(device.orders(), run(None), "WFI with a pending interrupt");
    set(&mut device, local::ACKNOWLEDGE, 1);
    assert!(!device.virtual_interrupt());
}

#[test]
fn exit_and_crash_are_told() {
    let mut device = running();
    device.write(host::INTERRUPT_ENABLE, Word, interrupt::ENDED.into());
    assert_eq!(
        device.local_access(local::OUTBOX, Double, Some(77)),
        Some(0)
    );
    assert!(!device.interrupt_asserted());
    set(&mut device, local::EXIT, 42);
    assert!(device.interrupt_asserted());
    assert_eq!(device.orders(), Orders::Rest);
    assert_eq!(status_of(&mut device), status::EXITED.into());
    assert_eq!(device.read(host::EXIT_CODE, Word), 42);
    assert_eq!(device.read(host::OUTBOX, Double), 77);
    device.write(host::INTERRUPT_ACKNOWLEDGE, Word, interrupt::ALL.into());
    assert!(!device.interrupt_asserted());

    let mut device = running();
    device.crashed(1, 2, 3);
    assert_eq!(device.orders(), Orders::Rest);
    assert_eq!(status_of(&mut device), status::CRASHED.into());
    let crash = [host::CRASH_SYNDROME, host::CRASH_ADDRESS, host::CRASH_PC];
    assert_eq!(crash.map(|offset| device.read(offset, Double)), [1, 2, 3]);
}

#[test]
fn what_an_ended_run_still_does_does_not_befall_the_next() {
    let mut device = running();
    device.write(host::CONTROL, Word, control::STOP.into());
    device.write(host::CONTROL, Word, control::START.into());
    // The first run's instructions, until the core asks.
    set(&mut device, local::CRITICAL, 1);
    set(&mut device, local::EXIT, 9);
    device.crashed(1, 2, 3);
    device.waits();
    assert_eq!(status_of(&mut device), status::RUNNING.into());
    assert!(matches!(
        device.orders(),
        Orders::Run { start: Some(_), .. }
    ));
    assert_eq!(device.local_access(local::CRITICAL, Word, None), Some(0));

    // The same if the first had ended by itself.
    let mut device = running();
    set(&mut device, local::EXIT, 9);
    device.write(host::CONTROL, Word, control::START.into());
    device.crashed(1, 2, 3);
    assert_eq!(status_of(&mut device), status::RUNNING.into());

    let mut device = running();
    command(&mut device, command::RESET);
    assert!(device.take_kick());
    set(&mut device, local::EXIT, 9);
    assert!(!is(&mut device, state::RESTING));
    assert_eq!(device.orders(), Orders::Rest);
    assert_eq!(device.read(host::STATUS, Word), status::STOPPED.into());
}

#[test]
fn a_context_isnt_exchanged_under_an_executing_core() {
    let mut device = running();
    device.write(CONTEXT, Double, 0);
    device.write(register(0), Double, 0);
    assert_eq!(device.read(CONTEXT, Double), 8);
    assert_eq!(device.orders(), run(None));
}

fn width() -> impl Strategy<Value = Width> {
    proptest::sample::select(&[Width::Byte, Width::Half, Width::Word, Width::Double][..])
}

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0..0x60_u64).prop_map(|n| n * 4),
        4 => (0x800..0xa00_u64).prop_map(|n| n & !7),
        1 => any::<u64>(),
    ]
}

proptest! {
    /// Whatever both sides do, in whatever order: no panic, and the core is never told to execute what was stopped.
    #[test]
    fn hostile_accesses(steps in prop::collection::vec(
        (0..10_u8, offset(), width(), any::<u64>(), 0..8_u64), 1..200,
    )) {
        let mut device = Device::new();
        let mut allowed = false;
        for (what, offset, width, value, small) in steps {
            match what {
                0 => _ = device.read(offset, width),
                1 => device.write(offset, width, value),
                2 => device.write(offset, width, small),
                3 => {
                    command(&mut device, small);
                    match small {
                        command::RUN => allowed = true,
                        command::FORCE_STOP | command::RESET => allowed = false,
                        _ => {}
                    }
                    prop_assert!(device.read(host::STATUS, Word) <= u64::from(u32::MAX));
                }
                4 => _ = device.local_access(offset, width, None),
                5 => _ = device.local_access(offset & 0x3f, width, Some(value)),
                6 => device.waits(),
                7 => device.crashed(value, offset, small),
                8 => _ = device.take_kick(),
                _ => {
                    let orders = device.orders();
                    if let Orders::Run { context, .. } = orders {
                        prop_assert_eq!(device.read(CONTEXT, Double), u64::from(context) + 1);
                        prop_assert!(is(&mut device, state::EXECUTING));
                    }
                    prop_assert!(device.read(STATE, Double) & 3 != 3);
                }
            }
            if what == 1 || what == 2 {
                // Such a write may have hit the command register.
                allowed |= offset == core_registers::COMMAND;
            }
            if !allowed {
                prop_assert_eq!(device.orders(), Orders::Rest);
            }
        }
    }

    /// All of a context goes out and in by the registers.
    #[test]
    fn registers_hold_all_of_it(
        steps in prop::collection::vec((0..4_u8, 0..0x60_u64, width(), any::<u64>()), 0..100),
    ) {
        let mut device = running();
        for (what, offset, width, value) in steps {
            match what {
                0 | 1 => device.write(offset * 4, width, value),
                2 => _ = device.local_access((offset * 4) & 0x3f, width, Some(value)),
                _ => device.waits(),
            }
        }
        command(&mut device, command::FORCE_STOP);
        device.orders();
        let mut other = Device::new();
        other.write(CONTEXT, Double, 8);
        for index in 0..REGISTERS {
            let value = device.read(register(index), Double);
            other.write(register(index), Double, value);
        }
        device.take_kick();
        prop_assert_eq!(format!("{device:?}"), format!("{other:?}"));
    }
}

proptest! {
    /// A context that leaves and comes back is the same, to the last register, critical section and all.
    #[test]
    fn the_driver_takes_all_of_it_out_and_in(
        interrupting in any::<bool>(),
        steps in prop::collection::vec((0..4_u8, 0..0x30_u64, width(), any::<u64>()), 0..60),
    ) {
        let mut driver = FwCore::new();
        let mut core = Core::default();
        let who = VcoprocId(7);
        driver.probe(&mut core).unwrap();
        driver.create(who).unwrap();
        prop_assert_eq!(driver.restore(who, &mut core, None), Step::Done);
        prop_assert_eq!(driver.replay(who, &mut core), Step::Done);
        let device = &mut core.device;
        device.write(host::CONTROL, Word, control::START.into());
        device.orders();
        if interrupting {
            device.write(host::INTERRUPT_ENABLE, Word, interrupt::ALL.into());
            device.local_access(local::OUTBOX, Double, Some(1));
        }
        for (what, offset, width, value) in steps {
            match what {
                0 | 1 => device.write(offset * 4, width, value),
                2 => _ = device.local_access((offset * 4) & 0x3f, width, Some(value)),
                _ => device.waits(),
            }
        }
        let all = |device: &mut Device| -> Vec<u64> {
            (0..REGISTERS).map(|index| device.read(register(index), Double)).collect()
        };
        command(device, command::FORCE_STOP);
        device.orders();
        let before = all(device);
        let line = device.interrupt_asserted();
        prop_assert_eq!(driver.quiet(who, &mut core), Step::Done);
        prop_assert_eq!(driver.drain(who, &mut core), Step::Done);
        prop_assert!(!core.device.interrupt_asserted());
        prop_assert_eq!(driver.interrupt_pending(who, 0, None), line);
        prop_assert_eq!(driver.save(who, &mut core, None), Step::Done);
        prop_assert_eq!(driver.scrub(who, &mut core), Step::Done);
        prop_assert_eq!(all(&mut core.device), all(&mut Device::new()));
        prop_assert_eq!(driver.restore(who, &mut core, None), Step::Done);
        prop_assert!(!core.device.interrupt_asserted(), "a restore is silent");
        prop_assert_eq!(driver.replay(who, &mut core), Step::Done);
        prop_assert_eq!(all(&mut core.device), before);
    }
}
