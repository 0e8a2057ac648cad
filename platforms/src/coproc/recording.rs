//! Record and replay on the host, with a driver that has a little of everything: a record replays, and one that was tampered with is found out.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use coproc_core::algorithm::{Algorithm, Parameters, Tuning};
use coproc_core::coproc::{Coproc, Outcome, Settings};
use coproc_core::driver::Driver;
use coproc_core::environment::Environment;
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::record::{
    Answer, Factory, Header, Input, Log, Recorder, ReplayError, Summary, replay,
};
use coproc_core::register::{Access, Operation, Width::Word};
use coproc_core::time::Duration;
use proptest::prelude::*;

use super::accumulator::Accumulator;
use super::accumulator::model::Accumulator as Model;
use super::accumulator::offset::*;
use super::rig::Machine;

struct Here;

impl Factory for Here {
    fn driver(&self, name: &str) -> Option<Box<dyn Driver>> {
        (name == "example,accumulator").then(|| Box::new(Accumulator::new()) as Box<dyn Driver>)
    }
    fn algorithm(&self, name: &str, tuning: &Tuning) -> Option<Box<dyn Algorithm>> {
        sched_algos::by_name(name, tuning)
    }
}

struct Rig {
    machine: Machine<Model>,
    coproc: Coproc,
    log: Log,
}

impl Rig {
    fn new(capacity: usize) -> Self {
        let mut machine = Machine::default();
        let driver: Box<dyn Driver> = Box::new(Accumulator::new());
        let settings = Settings::of(&*driver);
        let algorithm = sched_algos::by_name("rr", &settings.tuning(&*driver)).unwrap();
        let header = Header {
            id: CoprocId(3),
            driver: driver.description().name,
            algorithm: algorithm.name(),
            settings,
            now: machine.now(),
        };
        let mut log = Log::new(&header, capacity).unwrap();
        let mut coproc = Coproc::new(CoprocId(3), driver, algorithm, settings, machine.now());
        Recorder::feed(
            &mut machine,
            &mut log,
            &mut coproc,
            Input::Start,
            |c, env| c.start(env),
            |r| r.into(),
        )
        .unwrap();
        let mut rig = Self {
            machine,
            coproc,
            log,
        };
        for who in 0..2 {
            let (who, domain) = (VcoprocId(who), DomainId(who as u16 + 1));
            let parameters = Parameters::default();
            let input = Input::Attach(who, domain, parameters);
            let attach =
                |c: &mut Coproc, env: &mut dyn Environment| c.attach(env, who, domain, &parameters);
            rig.feed(input, attach, |r| r.into()).unwrap();
        }
        rig
    }

    fn feed<R>(
        &mut self,
        input: Input<'_>,
        call: impl FnOnce(&mut Coproc, &mut dyn Environment) -> R,
        answer: impl FnOnce(&R) -> Answer,
    ) -> R {
        Recorder::feed(
            &mut self.machine,
            &mut self.log,
            &mut self.coproc,
            input,
            call,
            answer,
        )
    }

    fn act(&mut self, act: Act) {
        let word = |who, offset, operation| {
            let access = Access {
                window: 0,
                offset,
                width: Word,
                operation,
            };
            (VcoprocId(who), access)
        };
        match act {
            Act::Access(who, offset, operation) => {
                let (who, access) = word(who, offset, operation);
                let call = |c: &mut Coproc, env: &mut dyn Environment| c.access(env, who, &access);
                let _: Outcome = self.feed(Input::Access(who, access), call, |r| (*r).into());
            }
            Act::Resample(who) => {
                let who = VcoprocId(who);
                let call = |c: &mut Coproc, env: &mut dyn Environment| c.resample(env, who, 0);
                self.feed(Input::Resample(who, 0), call, |()| Answer::Done);
                let call =
                    |c: &mut Coproc, env: &mut dyn Environment| c.interrupt_pending(env, who, 0);
                self.feed(Input::Pending(who, 0), call, |r| (*r).into());
            }
            Act::Pass(time) => self.pass(Duration::from_micros(time)),
        }
    }

    fn pass(&mut self, by: Duration) {
        let end = self.machine.now() + by;
        while self.machine.now() < end {
            let next = self.machine.timer.map_or(end, |at| at.min(end));
            let step = next.since(self.machine.now());
            let step = step.min(Duration::from_micros(20));
            self.machine
                .device
                .advance(step.max(Duration::from_nanos(1)));
            if (self.machine.timer).is_some_and(|at| at <= self.machine.now()) {
                self.machine.timer = None;
                let call = |c: &mut Coproc, env: &mut dyn Environment| c.timer(env);
                self.feed(Input::Timer, call, |()| Answer::Done);
            }
            if self.machine.device.line() && !self.machine.masked {
                let call = |c: &mut Coproc, env: &mut dyn Environment| c.interrupt(env, 0);
                self.feed(Input::Interrupt(0), call, |()| Answer::Done);
            }
        }
    }

    /// Two domains that add by turns.
    fn work() -> Self {
        let mut rig = Self::new(1 << 20);
        for round in 1..6 {
            for who in 0..2 {
                let write = |offset, value| Act::Access(who, offset, Operation::Write(value));
                for act in [
                    write(TERM, round),
                    write(ROUNDS, 100),
                    write(ENABLE_SET, 1),
                    write(START, 1),
                ] {
                    rig.act(act);
                }
            }
            rig.pass(Duration::from_millis(20));
            for who in 0..2 {
                rig.act(Act::Access(who, SUM, Operation::Read));
                rig.act(Act::Access(who, INTERRUPT, Operation::Write(1)));
                rig.act(Act::Resample(who));
            }
        }
        rig
    }
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Access(u32, u64, Operation),
    Resample(u32),
    Pass(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let offsets = vec![
        ID,
        TERM,
        ROUNDS,
        START,
        SUM,
        STATUS,
        ENABLE_SET,
        ENABLE_CLEAR,
        INTERRUPT,
        INTERRUPT_FORCE,
        CONTROL,
        0x1000,
        3,
    ];
    let access = (
        0..3_u32,
        prop::sample::select(offsets),
        any::<bool>(),
        0..3000_u64,
    );
    prop_oneof![
        6 => access.prop_map(|(who, offset, write, value)| {
            Act::Access(who, offset, if write { Operation::Write(value) } else { Operation::Read })
        }),
        1 => (0..2_u32).prop_map(Act::Resample),
        2 => (0..8000_u64).prop_map(Act::Pass),
    ]
}

proptest! {
    /// Whatever is recorded replays, whole or cut short.
    #[test]
    fn a_record_replays(acts in prop::collection::vec(act(), 0..80), capacity in prop_oneof![Just(1 << 20), 100..5000_usize]) {
        let mut rig = Rig::new(capacity);
        for act in acts {
            rig.act(act);
        }
        let summary = replay(rig.log.text(), &Here);
        prop_assert!(summary.is_ok(), "{summary:?}\n{}", rig.log.text());
        prop_assert_eq!(summary.unwrap().full, rig.log.lost() > 0);
    }
}

#[test]
fn work_is_in_the_record() {
    let rig = Rig::work();
    let summary = replay(rig.log.text(), &Here).unwrap();
    assert_eq!(summary.accesses, 5 * 2 * 6);
    assert!(summary.interrupts >= 5, "{summary:?}");
    assert_eq!(summary.lines, 20, "each job's interrupt rises and falls");
    assert!(
        summary.slices >= 10 && summary.registers > 100,
        "{summary:?}"
    );
    assert!(!summary.full);
    assert!(rig.log.text().contains("\n<v 5dc\n"), "15 × 100 were added");
}

/// Changes the `n`th line that `pick` wants.
fn tampered(
    text: &str,
    n: usize,
    pick: impl Fn(&str) -> Option<String>,
) -> Option<(usize, String)> {
    let (at, line) = text
        .lines()
        .enumerate()
        .skip(3)
        .filter_map(|(at, line)| Some((at, pick(line)?)))
        .nth(n)?;
    let mut lines: Vec<_> = text.lines().map(ToString::to_string).collect();
    lines[at] = line;
    Some((at + 1, lines.join("\n") + "\n"))
}

#[test]
fn a_changed_answer_is_detected() {
    let rig = Rig::work();
    let text = rig.log.text();
    // What the framework answered: found on that very line.
    let other = |line: &str| line.strip_prefix("<v ").map(|value| format!("<v {value}1"));
    for n in [0, 10, 40] {
        let (line, text) = tampered(text, n, other).unwrap();
        let error = replay(&text, &Here).unwrap_err();
        assert!(
            matches!(error, ReplayError::Differs { line: found, .. } if found == line),
            "{error}"
        );
    }
    // What the device answered: found where it has a consequence. Here the sum that a domain reads.
    let changed = text.replace("r 0 10 4 64\n", "r 0 10 4 65\n");
    assert_ne!(changed, text);
    let error = replay(&changed, &Here).unwrap_err();
    assert!(matches!(error, ReplayError::Differs { .. }), "{error}");
}

#[test]
fn a_changed_call_is_detected() {
    let rig = Rig::work();
    let text = rig.log.text();
    let changes: [fn(&str) -> Option<String>; 5] = [
        // A write to the device that the driver doesn't do.
        |line| line.strip_prefix("w 0 4 4 ").map(|_| "w 0 4 4 77".into()),
        // The same register, but a write instead of a read.
        |line| {
            line.strip_prefix("r 0 14 ")
                .map(|rest| format!("w 0 14 {rest}"))
        },
        // A virtual interrupt of somebody else.
        |line| {
            line.strip_prefix("l 0 0 ")
                .map(|rest| format!("l 1 0 {rest}"))
        },
        // Somebody else has the device.
        |line| (line == "@0").then(|| "@1".into()),
        // A doorbell that the domain didn't ring.
        |line| (line == ">w 0 0 c 4 1").then(|| ">w 0 0 8 4 1".into()),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let (_, text) =
            tampered(text, 0, change).unwrap_or_else(|| panic!("no line for {n}:\n{text}"));
        let error = replay(&text, &Here).unwrap_err();
        assert!(matches!(error, ReplayError::Differs { .. }), "{error}");
    }
    for missing in ["r 0 14 4 1", "<park", "n 64"] {
        let Some((_, cut)) = tampered(text, 0, |line| (line == missing).then(String::new)) else {
            continue;
        };
        let cut = cut.replace("\n\n", "\n");
        assert!(replay(&cut, &Here).is_err(), "{missing}");
    }
}

#[test]
fn what_is_no_record_is_refused() {
    let rig = Rig::work();
    let text = rig.log.text();
    assert!(matches!(replay("", &Here), Err(ReplayError::Syntax(e)) if e.line == 1));
    let bad = text.replacen("rr", "r r", 1);
    assert!(matches!(replay(&bad, &Here), Err(ReplayError::Syntax(e)) if e.line == 2));
    let bad = text.replacen(" rr", " nobody", 1);
    assert_eq!(
        replay(&bad, &Here),
        Err(ReplayError::Unknown("nobody".into()))
    );
    let (line, bad) = tampered(text, 5, |_| Some("?".into())).unwrap();
    assert!(matches!(replay(&bad, &Here), Err(ReplayError::Syntax(e)) if e.line == line));
    let after_the_end = format!("{text}!full\n>t\n");
    assert!(replay(&after_the_end, &Here).is_err());
    let full = format!("{text}!full\n");
    assert!(matches!(
        replay(&full, &Here),
        Ok(Summary { full: true, .. })
    ));
}
