//! Random guests on a randomly slow and failing machine.

use crate::bench::*;
use coproc_core::coproc::State;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Event {
    Write(u32, u64),
    Read(u32, u64),
    Ring(u32),
    Time(u64),
    Slow(usize, u32, u64),
    SlowIommu(u32, u32, u32),
    Fail(usize),
    Detach(u32),
    Attach(u32),
    Job(u64),
    Unmappable(bool),
    Moved(u32),
    StaleTimer,
    FaultInterrupt,
    Handlers(bool),
    Interrupt,
}

const STEPS: [Op; 6] = [
    Op::Quiet,
    Op::Drain,
    Op::Save,
    Op::Scrub,
    Op::Restore,
    Op::Replay,
];

fn event(failing: bool) -> impl Strategy<Value = Event> {
    let id = || 1..=3_u32;
    let reg = || prop_oneof![Just(VALUE), Just(BUFFER)];
    prop_oneof![
        6 => (id(), reg()).prop_map(|(id, reg)| Event::Write(id, reg)),
        6 => (id(), reg()).prop_map(|(id, reg)| Event::Read(id, reg)),
        6 => id().prop_map(Event::Ring),
        12 => (0..1_500_000_u64).prop_map(Event::Time),
        4 => (0..2_000_u64).prop_map(Event::Time),
        3 => (0..6_usize, 0..4_u32, 0..100_000_u64).prop_map(|(op, n, t)| Event::Slow(op, n, t)),
        2 => (0..4_u32, 0..4_u32, 0..4_u32).prop_map(|(a, b, c)| Event::SlowIommu(a, b, c)),
        1 => (0..6_usize).prop_map(move |op| if failing { Event::Fail(op) } else { Event::Time(9) }),
        1 => id().prop_map(move |id| if failing { Event::Detach(id) } else { Event::Ring(id) }),
        2 => id().prop_map(move |id| if failing { Event::Attach(id) } else { Event::Ring(id) }),
        1 => (1_000..3_000_000_u64).prop_map(Event::Job),
        1 => any::<bool>().prop_map(Event::Unmappable),
        1 => id().prop_map(Event::Moved),
        1 => Just(Event::StaleTimer),
        1 => Just(Event::FaultInterrupt),
        1 => any::<bool>().prop_map(Event::Handlers),
        1 => Just(Event::Interrupt),
    ]
}

fn play(area: bool, events: Vec<Event>) -> Rig {
    let mut rig = Rig::new(3, area);
    rig.bench.logging = false;
    let mut fresh = 1;
    for event in events {
        fresh += 1;
        match event {
            Event::Write(id, reg) => rig.write(id, reg, fresh),
            Event::Read(id, reg) => {
                let _ = rig.read(id, reg);
            }
            Event::Ring(id) => rig.write(id, DOORBELL, fresh),
            Event::Time(nanos) => rig.run(nanos),
            Event::Slow(op, times, nanos) => {
                rig.knobs().again.insert(STEPS[op], (times, nanos));
            }
            Event::SlowIommu(sync, faults, unsettled) => {
                let mut knobs = rig.knobs();
                knobs.sync_again = sync;
                knobs.faults_again = faults;
                knobs.unsettled = unsettled;
            }
            Event::Fail(op) => {
                rig.knobs().fail.insert(STEPS[op], 1);
            }
            Event::Detach(id) => {
                if rig.coproc.is_attached(v(id)) {
                    let _ = rig.detach(id);
                }
            }
            Event::Attach(id) => {
                // Refused unless the earlier one is gone.
                let gone = !rig.coproc.is_attached(v(id));
                assert_eq!(rig.attach(id).is_ok(), gone);
            }
            Event::Job(nanos) => rig.bench.device.job_time = nanos,
            Event::Unmappable(on) => {
                rig.knobs().unmappable = on;
                for id in 1..=3 {
                    rig.coproc.windows_changed(&mut rig.bench, v(id));
                }
            }
            Event::Moved(id) => rig.coproc.windows_changed(&mut rig.bench, v(id)),
            Event::StaleTimer => rig.coproc.timer(&mut rig.bench),
            Event::FaultInterrupt => {
                let _ = rig.coproc.collect_faults(&mut rig.bench);
            }
            Event::Handlers(on) => rig.handlers = on,
            Event::Interrupt => rig.coproc.interrupt(&mut rig.bench, 0),
        }
        rig.check();
    }
    // The guests have had enough; what they asked for still has to happen.
    rig.handlers = true;
    rig.run(400 * SLICE.as_nanos());
    crate::trace::agrees_with_the_books(&rig);
    crate::trace::interrupts_have_their_owners_epoch(&rig);
    rig
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    /// On a slow but sound machine everything that was asked for happens once, in order, and then there is rest.
    #[test]
    fn nothing_is_lost_or_done_twice(
        area in any::<bool>(),
        events in proptest::collection::vec(event(false), 1..120),
    ) {
        let rig = play(area, events);
        for (who, guest) in &rig.guests {
            prop_assert!(guest.parked.is_none(), "{} waits for ever", who);
            prop_assert!(!guest.faulted);
            let executed: Vec<u64> = rig.bench.executed.iter()
                .filter(|(owner, _)| owner == who)
                .map(|(_, value)| *value)
                .collect();
            prop_assert_eq!(&executed, &guest.rung);
        }
        let state = rig.coproc.state();
        prop_assert!(matches!(state, State::Idle { .. }), "{:?}", state);
        prop_assert!(rig.bench.lines.values().all(|high| !high));
        prop_assert!(rig.bench.outstanding.is_empty(), "a completion nobody heard of");
        prop_assert_eq!(rig.bench.timer, None);
    }

    /// With failing steps, detaches and attaches, those that didn't lose the device lose nothing.
    #[test]
    fn the_innocent_lose_nothing(
        area in any::<bool>(),
        events in proptest::collection::vec(event(true), 1..120),
    ) {
        let rig = play(area, events);
        for (who, guest) in &rig.guests {
            prop_assert!(guest.parked.is_none(), "{} waits for ever", who);
            if guest.faulted || !rig.coproc.is_attached(*who) {
                continue;
            }
            let report = rig.coproc.report(coproc_core::time::Instant::from_nanos(rig.bench.now));
            let own = report.vcoprocs.iter().find(|r| r.id == *who).unwrap();
            if matches!(own.condition, coproc_core::coproc::Condition::Faulted(_)) {
                continue;
            }
            let executed: Vec<u64> = rig.bench.executed.iter()
                .filter(|(owner, _)| owner == who)
                .map(|(_, value)| *value)
                .collect();
            prop_assert_eq!(&executed, &guest.rung);
        }
        let state = rig.coproc.state();
        prop_assert!(matches!(state, State::Idle { .. }), "{:?}", state);
    }
}
