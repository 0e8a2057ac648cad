//! The ordinary life of a shared coprocessor.

use crate::bench::*;
use coproc_core::coproc::{Condition, Detach, Reason, State};
use coproc_core::environment::{Environment, Stream};

#[test]
fn the_first_touch_maps_and_nothing_else_exits() {
    let mut rig = Rig::new(1, true);
    rig.write(1, VALUE, 5);
    assert_eq!(rig.coproc.state(), restoring_or_running(&rig));
    rig.run(10_000);
    for n in 0..100 {
        rig.write(1, VALUE, n);
        assert_eq!(rig.read(1, VALUE), Some(n));
    }
    let c = rig.counters(1);
    assert_eq!((c.touches, c.max_exits.max(1)), (1, 1));
    // Over many slices, each touched, at most one exit in each; and a lone one is never switched.
    for n in 0..50 {
        rig.write(1, VALUE, n);
        rig.run(SLICE.as_nanos());
    }
    let c = rig.counters(1);
    assert_eq!(c.max_exits, 1);
    assert!(c.touches <= c.slices + 1, "{c:?}");
    assert_eq!(c.switches, 1);
}

fn restoring_or_running(rig: &Rig) -> State {
    let state = rig.coproc.state();
    assert!(matches!(state, State::Restoring { .. } | State::Running(_)));
    state
}

#[test]
fn an_unused_one_costs_nothing_and_a_quiet_one_sleeps() {
    let mut rig = Rig::new(2, true);
    rig.run(50_000_000);
    let report = rig.coproc.report(rig.bench.now());
    assert_eq!(report.time.idle, report.time.elapsed);
    rig.write(1, VALUE, 1);
    rig.run(20 * SLICE.as_nanos());
    assert_eq!(
        rig.coproc.state(),
        State::Idle {
            resident: Some(v(1))
        }
    );
    assert_eq!(rig.bench.timer, None);
    let slices = rig.counters(1).slices;
    let charged = rig.charge(1);
    rig.run(20 * SLICE.as_nanos());
    assert_eq!(rig.counters(1).slices, slices);
    assert_eq!(rig.charge(1), charged, "a resident one idles for free");
    // Its context is still in the device: back at once, without restore.
    rig.bench.log.clear();
    assert_eq!(rig.read(1, VALUE), Some(1));
    let ops: Vec<_> = driver_ops(&rig);
    assert!(
        !ops.contains(&Op::Restore) && !ops.contains(&Op::Save),
        "{ops:?}"
    );
}

fn driver_ops(rig: &Rig) -> Vec<Op> {
    let ops = rig.bench.log.iter();
    ops.filter_map(|entry| match entry {
        Log::Driver(op, _) => Some(*op),
        _ => None,
    })
    .collect()
}

#[test]
fn the_order_of_a_switch_is_the_architecture_s() {
    let mut rig = Rig::new(2, true);
    rig.write(1, BUFFER, 11);
    rig.run(50_000);
    rig.write(2, DOORBELL, 7);
    rig.bench.log.clear();
    rig.run(2 * SLICE.as_nanos());
    let order = [
        Log::Unmap(v(1)),
        Log::Driver(Op::Quiet, v(1)),
        Log::Mask(true),
        Log::Driver(Op::Drain, v(1)),
        Log::Point(Stream::Abort),
        Log::Synced,
        Log::Faults,
        Log::Point(Stream::Save(v(1))),
        Log::Synced,
        Log::Driver(Op::Save, v(1)),
        Log::Driver(Op::Scrub, v(1)),
        Log::Point(Stream::Abort),
        Log::Synced,
        Log::Point(Stream::Save(v(2))),
        Log::Synced,
        Log::Driver(Op::Restore, v(2)),
        Log::Point(Stream::Abort),
        Log::Synced,
        Log::Point(Stream::Domain(v(2))),
        Log::Synced,
        Log::Driver(Op::Replay, v(2)),
        Log::Mask(false),
    ];
    let mut log = rig.bench.log.iter();
    for step in &order {
        assert!(
            log.any(|entry| entry == step),
            "{step:?} is missing or early"
        );
    }
    let Some(Log::Arm(Some(_))) = log.find(|entry| matches!(entry, Log::Arm(_))) else {
        panic!("the slice's timer is armed last");
    };
    assert_eq!(rig.bench.executed, [(v(2), 7)]);
    // And the buffer comes back to the one it belongs to.
    rig.run(10 * SLICE.as_nanos());
    rig.read(1, BUFFER);
    rig.run(10 * SLICE.as_nanos());
    assert_eq!(rig.guests[&v(1)].reads.last(), Some(&(BUFFER, 11)));
}

#[test]
fn an_untouched_slice_is_not_saved() {
    let mut rig = Rig::new(2, true);
    // A parked access whose vCPU never comes back for it.
    rig.write(1, BUFFER, 1);
    rig.run(50_000);
    let _ = rig.read(2, BUFFER);
    assert!(rig.guests[&v(2)].parked.is_some());
    rig.guests.get_mut(&v(2)).unwrap().parked = None;
    rig.run(SLICE.as_nanos() * 3 / 2);
    assert_eq!(rig.coproc.current(), Some(v(2)));
    rig.bench.log.clear();
    let _ = rig.read(1, BUFFER);
    rig.run(5 * SLICE.as_nanos());
    assert_eq!(rig.guests[&v(1)].reads.last(), Some(&(BUFFER, 1)));
    let saves = Log::Driver(Op::Save, v(2));
    let drains = Log::Driver(Op::Drain, v(2));
    assert!(!rig.bench.log.contains(&saves));
    assert!(rig.bench.log.contains(&drains));
}

#[test]
fn two_busy_ones_share_evenly() {
    for area in [false, true] {
        let mut rig = Rig::new(2, area);
        for n in 0..4_000 {
            for id in [1, 2] {
                rig.write(id, DOORBELL, n);
                rig.write(id, VALUE, n);
            }
            rig.run(100_000);
        }
        let (a, b) = (rig.charge(1), rig.charge(2));
        let share = a as f64 / (a + b) as f64;
        assert!((0.45..=0.55).contains(&share), "{share}");
        let report = rig.coproc.report(rig.bench.now());
        assert!(report.switches > 100, "{report:?}");
        assert!(report.switch_time.min <= report.switch_time.mean());
        assert!(report.switch_time.mean() <= report.switch_time.max);
        assert!(report.measured.save < report.declared.save);
    }
}

#[test]
fn shadow_answers_belong_to_the_asker() {
    let mut rig = Rig::new(2, false);
    rig.write(1, VALUE, 111);
    rig.run(50_000);
    // Two isn't current: its own values all the same (the bench compares).
    rig.write(2, VALUE, 222);
    assert_eq!(rig.read(2, VALUE), Some(222));
    assert_eq!(rig.read(1, VALUE), Some(111));
    assert_eq!(rig.read(2, STATUS), Some(0));
    rig.write(2, DOORBELL, 9);
    assert_eq!(rig.read(2, STATUS), Some(1), "queued work reads busy");
    rig.run(10 * SLICE.as_nanos());
    assert_eq!(rig.read(2, VALUE), Some(222));
    assert_eq!(rig.bench.executed, [(v(2), 9)]);
}

#[test]
fn while_it_refuses_reads_go_on_and_writes_wait() {
    let mut rig = Rig::new(2, false);
    rig.bench.device.job_time = 3 * SLICE.as_nanos();
    rig.write(1, VALUE, 1);
    rig.write(1, DOORBELL, 1);
    rig.write(2, DOORBELL, 2);
    rig.run(SLICE.as_nanos() + 100_000);
    assert!(matches!(rig.coproc.state(), State::Quiescing { .. }));
    assert_eq!(rig.read(1, STATUS), Some(1));
    rig.write(1, DOORBELL, 3);
    assert!(rig.guests[&v(1)].parked.is_some());
    assert_eq!(rig.bench.executed, [(v(1), 1)]);
    rig.run(30 * SLICE.as_nanos());
    assert_eq!(rig.bench.executed, [(v(1), 1), (v(2), 2), (v(1), 3)]);
    assert!(rig.guests[&v(1)].parked.is_none());
}

#[test]
fn windows_that_cannot_be_mapped_are_emulated() {
    let mut rig = Rig::new(1, false);
    rig.knobs().unmappable = true;
    rig.write(1, VALUE, 4);
    rig.write(1, DOORBELL, 4);
    assert_eq!(rig.read(1, VALUE), Some(4));
    assert_eq!(rig.counters(1).touches, 0);
    rig.knobs().unmappable = false;
    assert_eq!(rig.read(1, VALUE), Some(4));
    assert_eq!(rig.counters(1).touches, 1);
    rig.coproc.windows_changed(&mut rig.bench, v(1));
    assert_eq!(rig.bench.mapped, None);
    assert_eq!(rig.read(1, VALUE), Some(4));
    assert_eq!(rig.counters(1).touches, 2);
    rig.run(5 * SLICE.as_nanos());
    assert_eq!(rig.bench.executed, [(v(1), 4)]);
}

#[test]
fn detach_takes_the_context_out_first() {
    let mut rig = Rig::new(2, true);
    rig.write(1, BUFFER, 1);
    rig.run(50_000);
    rig.write(1, DOORBELL, 1);
    assert_eq!(rig.detach(1), Detach::Pending);
    assert!(rig.coproc.is_attached(v(1)));
    assert!(rig.attach(1).is_err());
    rig.write(1, VALUE, 1);
    assert!(rig.guests[&v(1)].faulted);
    rig.run(2 * SLICE.as_nanos());
    assert!(!rig.coproc.is_attached(v(1)));
    assert!(rig.bench.log.contains(&Log::Driver(Op::Scrub, v(1))));
    let reasons: Vec<_> = rig.coproc.slices().map(|slice| slice.reason).collect();
    assert_eq!(reasons, [Reason::Detached]);
    // A new one with the same name starts from nothing.
    rig.attach(1).unwrap();
    rig.read(1, BUFFER);
    rig.run(2 * SLICE.as_nanos());
    assert_eq!(rig.guests[&v(1)].reads.last(), Some(&(BUFFER, 0)));
    // One that isn't in the device goes at once.
    assert_eq!(rig.detach(2), Detach::Done);
    // And one that rests in it is scrubbed out of it.
    rig.run(10 * SLICE.as_nanos());
    assert!(matches!(
        rig.coproc.state(),
        State::Idle { resident: Some(_) }
    ));
    rig.bench.log.clear();
    let _ = rig.detach(1);
    rig.run(SLICE.as_nanos());
    assert!(!rig.coproc.is_attached(v(1)));
    assert!(rig.bench.log.contains(&Log::Driver(Op::Scrub, v(1))));
    assert_eq!(rig.coproc.state(), State::Idle { resident: None });
}

#[test]
fn detach_at_every_moment_of_a_switch() {
    for moment in 0..400 {
        let mut rig = Rig::new(2, true);
        rig.knobs().sync_again = 3;
        rig.write(1, BUFFER, 1);
        rig.write(2, DOORBELL, 2);
        rig.run(1_000_000 + moment * 5);
        let _ = rig.detach(2);
        rig.run(5 * SLICE.as_nanos());
        assert!(!rig.coproc.is_attached(v(2)), "{moment}");
        rig.read(1, BUFFER);
        rig.run(5 * SLICE.as_nanos());
        assert_eq!(rig.guests[&v(1)].reads.last(), Some(&(BUFFER, 1)));
    }
}

#[test]
fn a_refused_attach_leaves_nothing_behind() {
    let mut rig = Rig::new(1, false);
    rig.knobs().create_fail = 1;
    assert!(rig.attach(2).is_err());
    assert!(!rig.coproc.is_attached(v(2)));
    rig.attach(2).unwrap();
    assert!(rig.attach(2).is_err());
    rig.write(2, DOORBELL, 1);
    rig.run(SLICE.as_nanos());
    assert_eq!(rig.bench.executed, [(v(2), 1)]);
}

#[test]
fn the_trace_forgets_the_oldest_and_says_so() {
    let mut rig = Rig::new(1, false);
    for n in 0..1_100 {
        rig.write(1, VALUE, n);
        rig.run(SLICE.as_nanos());
    }
    assert_eq!(rig.coproc.slices().count(), coproc_core::coproc::CAPACITY);
    assert!(rig.coproc.slices_lost() > 50);
    let slices: Vec<_> = rig.coproc.slices().copied().collect();
    for pair in slices.windows(2) {
        assert!(pair[0].from <= pair[0].to && pair[0].to <= pair[1].from);
    }
    let report = rig.coproc.report(rig.bench.now());
    assert_eq!(report.slices_lost, rig.coproc.slices_lost());
    assert_ne!(report.vcoprocs[0].condition, Condition::Detaching);
}
