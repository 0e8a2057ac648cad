//! The faults of Baton's ancestor, each with the test that it would fail.

use crate::bench::*;
use coproc_core::coproc::{Condition, Outcome, Reason, State};
use coproc_core::environment::{Environment, Event};
use coproc_core::iommu::Faults;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::Duration;

/// Both have something in the device, one is current.
fn two(area: bool) -> Rig {
    let mut rig = Rig::new(2, area);
    rig.write(1, VALUE, 1);
    rig.write(2, VALUE, 2);
    rig.run(50_000);
    rig
}

fn faulted(rig: &Rig, id: u32) -> bool {
    let report = rig.coproc.report(rig.bench.now());
    let v = report.vcoprocs.iter().find(|r| r.id == v(id)).unwrap();
    matches!(v.condition, Condition::Faulted(_))
}

/// 1: a failed step ended the hypervisor.
#[test]
fn a_failed_step_costs_one_vcoproc() {
    for op in [Op::Quiet, Op::Drain, Op::Save, Op::Scrub] {
        let mut rig = two(true);
        rig.knobs().fail.insert(op, 1);
        rig.write(2, DOORBELL, 1);
        rig.run(5 * SLICE.as_nanos());
        assert!(faulted(&rig, 1) && !faulted(&rig, 2), "{op:?}");
        assert_eq!(rig.bench.executed, [(v(2), 1)]);
        assert_eq!(rig.read(2, VALUE), Some(2));
        rig.write(1, VALUE, 1);
        assert!(rig.guests[&v(1)].faulted);
        let event = &rig.bench.events[0];
        assert!(matches!(event, (who, Event::Faulted(_)) if *who == v(1)));
    }
    for op in [Op::Restore, Op::Replay] {
        let mut rig = two(true);
        rig.knobs().fail.insert(op, 1);
        rig.write(2, DOORBELL, 1);
        rig.run(5 * SLICE.as_nanos());
        assert!(
            faulted(&rig, 2) && !faulted(&rig, 1),
            "{op:?} {:?} {:?}",
            rig.bench.events,
            rig.coproc.state()
        );
        assert_eq!(rig.read(1, VALUE), Some(1));
        rig.run(5 * SLICE.as_nanos());
        assert_eq!(rig.read(1, VALUE), Some(1));
    }
}

/// 1: and if nothing helps, the device is shut off, and everybody knows.
#[test]
fn a_failed_reset_quarantines() {
    let mut rig = two(true);
    rig.knobs().fail.insert(Op::Save, 1);
    rig.knobs().fail.insert(Op::Reset, 1);
    let _ = rig.read(2, BUFFER);
    assert!(rig.guests[&v(2)].parked.is_some());
    rig.run(5 * SLICE.as_nanos());
    assert!(matches!(rig.coproc.state(), State::Quarantined { .. }));
    assert!(faulted(&rig, 1) && faulted(&rig, 2));
    assert_eq!(rig.bench.events.len(), 2);
    assert!(rig.guests[&v(2)].parked.is_none(), "released");
    assert!(rig.guests[&v(2)].faulted);
    let before = rig.coproc.report(rig.bench.now()).time;
    rig.run(1_000);
    let after = rig.coproc.report(rig.bench.now()).time;
    let fault = after.fault.as_nanos() - before.fault.as_nanos();
    assert_eq!(fault, after.elapsed.as_nanos() - before.elapsed.as_nanos());
    assert!(rig.attach(3).is_err());
}

/// 1: an IOMMU that doesn't answer is no isolation.
#[test]
fn a_dead_iommu_quarantines_and_a_hiccup_does_not() {
    for (fails, quarantined) in [(1, false), (u32::MAX, true)] {
        let mut rig = two(false);
        rig.write(2, DOORBELL, 1);
        rig.knobs().sync_fail = fails;
        rig.run(5 * SLICE.as_nanos());
        let state = rig.coproc.state();
        assert_eq!(matches!(state, State::Quarantined { .. }), quarantined);
        assert_eq!(rig.bench.executed.is_empty(), quarantined);
    }
}

/// 2: refusals had no bound.
#[test]
fn a_hung_device_is_taken_away_by_force_at_the_bound() {
    let mut rig = two(true);
    rig.bench.device.hang = true;
    rig.write(1, DOORBELL, 1);
    rig.write(2, DOORBELL, 2);
    // Reset helps this device.
    rig.run(SLICE.as_nanos() + BOUND.as_nanos() / 2);
    assert!(!faulted(&rig, 1));
    assert!(matches!(rig.coproc.state(), State::Quiescing { .. }));
    rig.bench.device.hang = false;
    rig.knobs().again.insert(Op::Quiet, (10_000, 1_000_000));
    rig.run(BOUND.as_nanos() / 2 + 100_000);
    rig.knobs().again.clear();
    rig.run(3 * SLICE.as_nanos());
    assert!(faulted(&rig, 1) && !faulted(&rig, 2));
    assert_eq!(rig.bench.executed, [(v(1), 1), (v(2), 2)]);
    let c = rig.counters(1);
    assert!(c.refused >= BOUND && c.refused.as_nanos() < BOUND.as_nanos() + 1_000_000);
    let last = rig.coproc.slices().find(|slice| slice.vcoproc == v(1));
    assert_eq!(last.unwrap().reason, Reason::Aborted);
}

/// 2: nor had any other step.
#[test]
fn no_step_may_ask_for_ever() {
    for op in [Op::Drain, Op::Save, Op::Scrub, Op::Restore, Op::Replay] {
        let mut rig = two(true);
        rig.knobs().again.insert(op, (u32::MAX, 10_000_000));
        rig.write(2, DOORBELL, 1);
        rig.run(3_000_000_000);
        rig.knobs().again.clear();
        rig.run(10 * SLICE.as_nanos());
        let guilty = if matches!(op, Op::Restore | Op::Replay) {
            2
        } else {
            1
        };
        assert!(faulted(&rig, guilty), "{op:?}");
    }
}

/// 3: refused time was charged to nobody.
#[test]
fn refusing_is_charged() {
    let mut rig = two(false);
    rig.bench.device.job_time = 5 * SLICE.as_nanos();
    rig.write(1, DOORBELL, 1);
    rig.write(2, DOORBELL, 2);
    let mut steps = 0;
    while rig.coproc.state().holder() == Some(v(1)) && steps < 1_000 {
        rig.run(10_000);
        steps += 1;
    }
    let c = rig.counters(1);
    let charge = rig.charge(1);
    assert!(c.refusals > 2, "{c:?}");
    assert!(charge >= 5 * SLICE.as_nanos(), "{charge}");
    assert!(c.refused.as_nanos() > 3 * SLICE.as_nanos(), "{c:?}");
    assert!(c.refused.as_nanos() < charge);
    let slice = rig.coproc.slices().next().unwrap();
    assert_eq!(slice.to.since(slice.from).as_nanos(), charge);
    let measured = rig.coproc.report(rig.bench.now()).measured;
    assert!(measured.refusal >= c.refused, "the breach of promise shows");
}

/// 4: the slice began before the switch.
#[test]
fn the_switch_is_nobody_s_slice() {
    let mut rig = two(true);
    rig.knobs().again.insert(Op::Restore, (20, 50_000));
    rig.write(2, DOORBELL, 1);
    for _ in 0..10_000 {
        if rig.coproc.current() != Some(v(2)) {
            rig.run(1_000);
        }
    }
    let State::Running(slice) = rig.coproc.state() else {
        panic!("current, so running");
    };
    let length = slice.until.unwrap().since(slice.since);
    assert_eq!(length, SLICE);
    assert!(slice.until.unwrap().as_nanos() > rig.bench.now + SLICE.as_nanos() - 2_000);
    assert_eq!(rig.bench.timer, slice.until.map(|at| at.as_nanos()));
    let report = rig.coproc.report(rig.bench.now());
    assert!(report.switch_time.max >= Duration::from_millis(1));
    assert!(report.time.of(v(2)).overhead >= Duration::from_millis(1));
    assert!(report.measured.restore >= Duration::from_millis(1));
}

/// 5 and 6: a switch blocked a CPU, and the way in could not wait.
#[test]
fn every_step_may_wait_and_none_blocks() {
    let mut rig = two(true);
    for op in [
        Op::Quiet,
        Op::Drain,
        Op::Save,
        Op::Scrub,
        Op::Restore,
        Op::Replay,
    ] {
        rig.knobs().again.insert(op, (3, 40_000));
    }
    rig.knobs().sync_again = 5;
    rig.knobs().faults_again = 3;
    rig.knobs().unsettled = 3;
    rig.write(2, DOORBELL, 1);
    let mut longest = 0;
    for _ in 0..3_000 {
        let before = rig.bench.now;
        rig.run(1_000);
        longest = longest.max(rig.bench.now - before);
        // Somebody else's access is answered meanwhile, whatever the state.
        assert_eq!(rig.read(2, VALUE).or(Some(2)), Some(2));
    }
    assert!(longest < 3_000, "{longest}");
    assert_eq!(rig.bench.executed, [(v(2), 1)]);
}

/// 8: a wake-up in the moment of going to sleep was lost.
#[test]
fn no_wake_up_is_lost_at_any_moment() {
    for moment in 0..600 {
        let mut rig = two(true);
        rig.knobs().sync_again = 2;
        rig.knobs().again.insert(Op::Quiet, (1, 20_000));
        rig.run(2 * SLICE.as_nanos() - 20_000 + moment * 200);
        rig.write(1, DOORBELL, 1);
        rig.run(moment * 50);
        rig.write(2, DOORBELL, 2);
        rig.run(20 * SLICE.as_nanos());
        let mut executed = rig.bench.executed.clone();
        executed.sort_unstable();
        assert_eq!(executed, [(v(1), 1), (v(2), 2)], "moment {moment}");
    }
}

/// 10: a domain's access ended the hypervisor.
#[test]
fn any_access_has_an_answer() {
    let mut rig = two(false);
    for id in [1, 2, 3] {
        for window in [0, 1, usize::MAX] {
            for offset in [0, 3, 0xfff, u64::MAX] {
                let access = Access {
                    window,
                    offset,
                    width: Width::Byte,
                    operation: Operation::Write(u64::MAX),
                };
                if id == 1 && window != 0 {
                    // The model's hardware takes no other window.
                    continue;
                }
                let outcome = rig.coproc.access(&mut rig.bench, v(id), &access);
                if id == 3 {
                    assert_eq!(outcome, Outcome::Fault, "not attached");
                }
            }
        }
    }
}

/// 12: what was left in the device was there for the next one.
#[test]
fn the_next_one_finds_nothing() {
    let mut rig = Rig::new(2, true);
    rig.write(1, BUFFER, 0x5ec4e7);
    rig.write(1, VALUE, 0x5ec4e7);
    rig.run(1_000);
    let _ = rig.read(2, BUFFER);
    rig.run(3 * SLICE.as_nanos());
    assert_eq!(rig.guests[&v(2)].reads, [(BUFFER, 0)]);
    assert_eq!(rig.read(2, VALUE), Some(0));
    let _ = rig.read(1, BUFFER);
    rig.run(9 * SLICE.as_nanos());
    assert_eq!(rig.guests[&v(1)].reads.last(), Some(&(BUFFER, 0x5ec4e7)));
}

/// 13: a late interrupt went to the next one.
#[test]
fn an_interrupt_stays_with_its_owner() {
    let mut rig = two(true);
    rig.handlers = false;
    rig.bench.device.job_time = 2 * SLICE.as_nanos();
    rig.write(1, DOORBELL, 1);
    // One's job ends while it is asked to stop; two gets the device.
    rig.write(2, VALUE, 2);
    let _ = rig.read(2, BUFFER);
    rig.run(4 * SLICE.as_nanos());
    assert_eq!(
        rig.bench.lines.get(&v(1)),
        Some(&true),
        "seen, though not current"
    );
    assert_eq!(rig.bench.lines.get(&v(2)), Some(&false));
    assert!(rig.coproc.interrupt_pending(&mut rig.bench, v(1), 0));
    assert!(!rig.coproc.interrupt_pending(&mut rig.bench, v(2), 0));
    // It acknowledges in its saved context.
    if rig.coproc.current() != Some(v(1)) {
        rig.write(1, IRQ, 1);
        assert_eq!(rig.bench.lines.get(&v(1)), Some(&false));
    }
}

/// 13: what the device doesn't assert is dropped, what nobody owns is kept for its context.
#[test]
fn late_and_spurious_interrupts_are_counted_and_given_to_nobody() {
    let mut rig = two(true);
    rig.coproc.interrupt(&mut rig.bench, 0);
    assert_eq!(rig.coproc.report(rig.bench.now()).spurious_interrupts, 1);
    rig.coproc.interrupt(&mut rig.bench, 77);
    assert_eq!(rig.coproc.report(rig.bench.now()).spurious_interrupts, 2);
    rig.knobs().again.insert(Op::Save, (1, 100_000));
    rig.write(2, DOORBELL, 1);
    for _ in 0..10_000 {
        if !matches!(rig.coproc.state(), State::Saving { .. }) {
            rig.run(500);
        }
    }
    rig.bench.spurious_assert = true;
    rig.coproc.interrupt(&mut rig.bench, 0);
    rig.bench.spurious_assert = false;
    let report = rig.coproc.report(rig.bench.now());
    assert_eq!(report.late_interrupts, 1);
    assert!(report.vcoprocs.iter().all(|v| v.counters.interrupts == 0));
    assert!(rig.bench.lines.values().all(|high| !high));
}

/// A domain that never acknowledges silences itself only.
#[test]
fn an_unacknowledged_interrupt_is_masked_at_its_source() {
    let mut rig = two(false);
    rig.handlers = false;
    rig.write(1, DOORBELL, 1);
    rig.run(SLICE.as_nanos() / 2);
    assert!(rig.bench.masked);
    assert!(rig.bench.lines[&v(1)]);
    rig.coproc.resample(&mut rig.bench, v(1), 0);
    assert!(rig.bench.masked, "still asserted");
    rig.write(1, IRQ, 1);
    rig.coproc.resample(&mut rig.bench, v(1), 0);
    assert!(!rig.bench.masked);
    assert!(!rig.bench.lines[&v(1)]);
}

/// 14: nothing was accounted. The IOMMU's faults are the outgoing one's, though read after it.
#[test]
fn iommu_faults_are_the_outgoing_one_s() {
    let mut rig = two(true);
    rig.write(2, DOORBELL, 1);
    rig.knobs().faults_again = 3;
    rig.bench.iommu = Faults {
        count: 1_024,
        last: Some(coproc_core::address::DeviceAddress::new(0xdead_0000)),
        write: true,
        overflow: true,
    };
    rig.run(3 * SLICE.as_nanos());
    let c = rig.counters(1);
    assert_eq!(c.iommu_faults, 1_024);
    assert_eq!(c.last_fault.unwrap().get(), 0xdead_0000);
    assert!(c.faults_lost);
    assert_eq!(rig.counters(2).iommu_faults, 0);
    assert!(matches!(rig.bench.events[0], (who, Event::IommuFault(_)) if who == v(1)));
}

/// 13: a completion that no interrupt told of before the switch reaches its owner through its saved context, at once.
#[test]
fn a_drained_interrupt_is_delivered_from_the_saved_context() {
    let mut rig = two(false);
    rig.handlers = false;
    rig.bench.device.job_time = 3 * SLICE.as_nanos();
    rig.write(1, DOORBELL, 1);
    rig.write(2, DOORBELL, 2);
    rig.run(2 * SLICE.as_nanos());
    assert!(matches!(rig.coproc.state(), State::Quiescing { .. }));
    rig.bench.now += 2 * SLICE.as_nanos();
    rig.coproc.timer(&mut rig.bench);
    assert_eq!(rig.coproc.current(), Some(v(2)));
    assert_eq!(rig.counters(1).interrupts, 0);
    assert!(rig.bench.lines[&v(1)]);
    assert!(!rig.bench.lines.get(&v(2)).copied().unwrap_or(false));
}
