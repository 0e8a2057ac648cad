//! Decisions that don't wait for a slice's end, and changes while everything runs: parameters, settings, the algorithm itself.

use crate::bench::*;
use coproc_core::algorithm::{Algorithm, AlgorithmError, Parameters, Pick, Tuning};
use coproc_core::coproc::{AttachError, State};
use coproc_core::environment::Environment;
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};
use proptest::prelude::*;

fn make(name: &str) -> Box<dyn Algorithm> {
    sched_algos::by_name(name, &Tuning::new(SLICE)).unwrap()
}

fn at_level(priority: u32) -> Parameters {
    Parameters {
        priority,
        ..Parameters::default()
    }
}

fn now(rig: &Rig) -> Instant {
    Environment::now(&rig.bench)
}

/// Lets nobody run but in the first millisecond of every ten; asks for nothing else.
struct Windows {
    who: Option<VcoprocId>,
    awake: bool,
}

const WINDOW: u64 = 1_000_000;
const CYCLE: u64 = 10_000_000;

impl Algorithm for Windows {
    fn name(&self) -> &'static str {
        "windows"
    }
    fn add(&mut self, who: VcoprocId, _: &Parameters) -> Result<(), AlgorithmError> {
        self.who = Some(who);
        Ok(())
    }
    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        self.who
            .take()
            .map(drop)
            .ok_or(AlgorithmError::Unknown(who))
    }
    fn wake(&mut self, _: VcoprocId, _: Instant) {
        self.awake = true;
    }
    fn sleep(&mut self, _: VcoprocId, _: Instant) {
        self.awake = false;
    }
    fn charge(&mut self, _: VcoprocId, _: Duration, _: Instant) {}
    fn refused(&mut self, _: VcoprocId, _: Duration, _: Instant) {}
    fn pick(&mut self, _: Option<VcoprocId>, now: Instant) -> Option<Pick> {
        let open = now.as_nanos() % CYCLE < WINDOW && self.awake;
        let who = self.who.filter(|_| open)?;
        Some(Pick { who, slice: None })
    }
    fn preempts(&mut self, _: VcoprocId, now: Instant) -> bool {
        now.as_nanos() % CYCLE >= WINDOW
    }
    fn next_event(&self, now: Instant) -> Option<Instant> {
        let begin = now.as_nanos() / CYCLE * CYCLE;
        let next = if now.as_nanos() - begin < WINDOW {
            begin + WINDOW
        } else {
            begin + CYCLE
        };
        self.awake.then_some(Instant::from_nanos(next))
    }
    fn set_parameters(&mut self, _: VcoprocId, _: &Parameters) -> Result<(), AlgorithmError> {
        Ok(())
    }
    fn tune(&mut self, _: &Tuning) -> Result<(), AlgorithmError> {
        Ok(())
    }
    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        if let Some(who) = self.who {
            visit(who, &Parameters::default(), self.awake);
        }
    }
}

#[test]
fn a_throttled_one_runs_again_without_any_event_from_outside() {
    let windows = Windows {
        who: None,
        awake: false,
    };
    let mut rig = Rig::with(1, true, Box::new(windows));
    rig.bench.device.hang = true;
    rig.bench.device.job_time = 1;
    rig.write(1, VALUE, 1);
    let mut charged = Vec::new();
    for _ in 0..5 {
        // Touched in every window, so it has work at the end of each.
        rig.run(CYCLE / 20);
        rig.write(1, VALUE, 2);
        rig.run(CYCLE - CYCLE / 20);
        charged.push(rig.charge(1));
    }
    for pair in charged.windows(2) {
        let span = pair[1] - pair[0];
        assert!(span.abs_diff(WINDOW) < 50_000, "{charged:?}");
    }
}

#[test]
fn a_change_of_parameters_takes_effect_at_once() {
    let mut rig = Rig::with(2, true, make("priority"));
    rig.bench.device.hang = true;
    rig.write(1, VALUE, 1);
    rig.run(10_000);
    rig.write(2, DOORBELL, 1);
    rig.run(10_000);
    assert_eq!(rig.coproc.current(), Some(v(1)));
    let bench = &mut rig.bench;
    rig.coproc
        .set_parameters(bench, v(2), &at_level(1))
        .unwrap();
    rig.check();
    rig.run(100_000);
    assert_eq!(rig.coproc.current(), Some(v(2)));
    let unknown = rig
        .coproc
        .set_parameters(&mut rig.bench, v(9), &at_level(1));
    assert_eq!(unknown, Err(AttachError::Unknown(v(9))));
}

/// Whatever step of the switch to a lower one the higher one's doorbell falls into.
#[test]
fn a_wake_during_the_switch_is_not_forgotten() {
    for delay in 0..40 {
        let mut rig = Rig::with(2, true, make("priority"));
        let bench = &mut rig.bench;
        rig.coproc
            .set_parameters(bench, v(2), &at_level(1))
            .unwrap();
        for op in [Op::Restore, Op::Replay] {
            rig.knobs().again.insert(op, (2, 15_000));
        }
        rig.write(1, DOORBELL, 1);
        rig.run(delay * 1_000);
        rig.write(2, DOORBELL, 2);
        rig.run(150_000);
        // The first one's job takes 200 us and can't be stopped; it may have started before.
        let second = rig.bench.executed.contains(&(v(2), 2));
        let stopping = matches!(rig.coproc.state(), State::Quiescing { .. });
        assert!(
            second || stopping,
            "delay {delay}: {:?}",
            rig.coproc.state()
        );
    }
}

#[test]
fn a_new_algorithm_takes_all_or_nothing() {
    let mut rig = Rig::with(3, true, make("weighted"));
    for id in 1..=3 {
        let parameters = Parameters {
            weight: id,
            priority: 10 - id,
            budget: Some(Duration::from_micros(200)),
            period: Some(Duration::from_millis(90)),
        };
        let bench = &mut rig.bench;
        rig.coproc
            .set_parameters(bench, v(id), &parameters)
            .unwrap();
    }
    rig.write(1, VALUE, 1);
    rig.write(2, DOORBELL, 2);
    rig.run(10_000);
    let list = |rig: &Rig| {
        let mut all = Vec::new();
        rig.coproc
            .parameters(&mut |id, p, awake| all.push((id, *p, awake)));
        all
    };
    let before = list(&rig);
    assert_eq!(before.len(), 3);
    let refused = rig.coproc.replace_algorithm(&mut rig.bench, make("null"));
    assert!(matches!(refused, Err(AlgorithmError::NotAdmitted(_))));
    rig.check();
    assert_eq!(rig.coproc.report(now(&rig)).algorithm, "weighted");
    assert_eq!(list(&rig), before);
    for name in ["priority", "reservation", "rr", "weighted"] {
        rig.coproc
            .replace_algorithm(&mut rig.bench, make(name))
            .unwrap();
        rig.check();
        assert_eq!(rig.coproc.report(now(&rig)).algorithm, name);
        let parameters: Vec<_> = list(&rig).iter().map(|(id, p, _)| (*id, *p)).collect();
        let expected: Vec<_> = before.iter().map(|(id, p, _)| (*id, *p)).collect();
        assert_eq!(parameters, expected);
    }
    rig.run(20 * SLICE.as_nanos());
    assert!(rig.bench.executed.contains(&(v(2), 2)));
}

/// From an owner without a timer to sharing, at any moment of its first restore too.
#[test]
fn an_endless_slice_ends_with_its_algorithm() {
    for delay in 0..60 {
        let mut rig = Rig::with(1, true, make("null"));
        rig.knobs().again.insert(Op::Restore, (2, 15_000));
        rig.write(1, DOORBELL, 1);
        rig.run(delay * 1_000);
        rig.coproc
            .replace_algorithm(&mut rig.bench, make("rr"))
            .unwrap();
        rig.check();
        rig.attach(2).unwrap();
        rig.write(2, DOORBELL, 2);
        rig.write(1, VALUE, 5);
        rig.run(5 * SLICE.as_nanos());
        assert!(rig.bench.executed.contains(&(v(2), 2)), "delay {delay}");
        assert!(rig.bench.executed.contains(&(v(1), 1)), "delay {delay}");
    }
}

#[derive(Clone, Debug)]
enum Event {
    Write(u32, u64),
    Ring(u32),
    Time(u64),
    Slow(usize, u64),
    Replace(usize),
    Change(u32, Parameters),
    Slice(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let id = || 1..=3_u32;
    let reserve = proptest::option::of((100_000..400_000_u64, 20_000_000..90_000_000_u64));
    let parameters =
        (0..4_u32, 0..3_u32, reserve).prop_map(|(weight, priority, reserve)| Parameters {
            weight,
            priority,
            budget: reserve.map(|(budget, _)| Duration::from_nanos(budget)),
            period: reserve.map(|(_, period)| Duration::from_nanos(period)),
        });
    prop_oneof![
        3 => (id(), prop_oneof![Just(VALUE), Just(BUFFER)]).prop_map(|(id, r)| Event::Write(id, r)),
        4 => id().prop_map(Event::Ring),
        4 => (0..3_000_000_u64).prop_map(Event::Time),
        4 => (0..3_000_u64).prop_map(Event::Time),
        1 => (0..4_usize, 0..100_000_u64).prop_map(|(op, time)| Event::Slow(op, time)),
        3 => (0..sched_algos::KNOWN.len()).prop_map(Event::Replace),
        2 => (id(), parameters).prop_map(|(id, p)| Event::Change(id, p)),
        1 => (0..3_000_000_u64).prop_map(Event::Slice),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Algorithms, parameters and slices change at any moment; every doorbell is executed once, in order, and in the end all is quiet.
    #[test]
    fn no_change_loses_or_repeats_work(events in proptest::collection::vec(event(), 1..80)) {
        let mut rig = Rig::new(3, true);
        rig.bench.logging = false;
        let mut fresh = 0;
        for event in events {
            fresh += 1;
            match event {
                Event::Write(id, register) => rig.write(id, register, fresh),
                Event::Ring(id) => rig.write(id, DOORBELL, fresh),
                Event::Time(time) => rig.run(time),
                Event::Slow(op, time) => {
                    let op = [Op::Quiet, Op::Save, Op::Restore, Op::Drain][op];
                    rig.knobs().again.insert(op, (2, time));
                }
                Event::Replace(which) => {
                    let name = sched_algos::KNOWN[which].0;
                    let before = rig.coproc.report(now(&rig)).algorithm;
                    let answer = rig.coproc.replace_algorithm(&mut rig.bench, make(name));
                    let expected = if answer.is_ok() { name } else { before };
                    prop_assert_eq!(rig.coproc.report(now(&rig)).algorithm, expected);
                    rig.pump();
                }
                Event::Change(id, parameters) => {
                    let _ = rig.coproc.set_parameters(&mut rig.bench, v(id), &parameters);
                    rig.pump();
                }
                Event::Slice(slice) => {
                    let mut settings = rig.coproc.settings();
                    settings.slice = Duration::from_nanos(slice);
                    prop_assert_eq!(rig.coproc.tune(&mut rig.bench, settings).is_ok(), slice > 0);
                    rig.pump();
                }
            }
            rig.check();
            let mut known = Vec::new();
            rig.coproc.parameters(&mut |id, _, _| known.push(id.0));
            prop_assert_eq!(known, [1, 2, 3]);
        }
        rig.run(2_000_000_000);
        for (who, guest) in &rig.guests {
            let executed: Vec<u64> = rig.bench.executed.iter()
                .filter(|(owner, _)| owner == who)
                .map(|(_, value)| *value)
                .collect();
            prop_assert_eq!(&executed, &guest.rung);
            prop_assert!(guest.parked.is_none());
        }
        let state = rig.coproc.state();
        prop_assert!(matches!(state, State::Idle { .. }), "{:?}", state);
    }
}
