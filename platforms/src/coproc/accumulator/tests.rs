//! The driver against the model. A copy of this file is a good start for another device: only `job` and the single cases change.

use alloc::vec;
use alloc::vec::Vec;

use coproc_core::driver::{Driver, Hardware, Step, Verdict};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width::Word};
use coproc_core::time::Duration;
use proptest::prelude::*;

use super::model::Accumulator as Model;
use super::offset::*;
use super::{Accumulator, OVER};

fn id(i: usize) -> VcoprocId {
    VcoprocId(i as u32)
}

/// Device and driver, and the framework's order of calls.
struct Rig {
    driver: Accumulator,
    device: Model,
    current: Option<usize>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            driver: Accumulator::new(),
            device: Model::default(),
            current: None,
        };
        rig.driver.probe(&mut rig.device).unwrap();
        for i in 0..2 {
            rig.driver.create(id(i)).unwrap();
        }
        rig
    }

    fn run(&mut self, limit: Duration, step: impl Fn(&mut Accumulator, &mut dyn Hardware) -> Step) {
        let start = self.device.now();
        loop {
            match step(&mut self.driver, &mut self.device) {
                Step::Done => break,
                Step::Again(after) => self.device.advance(after),
                Step::Failed(why) => panic!("{why}"),
            }
            assert!(self.device.now().since(start) <= limit, "as declared");
        }
    }

    fn take_out(&mut self) {
        let Some(i) = self.current.take() else { return };
        let declared = self.driver.description().worst_case;
        self.run(declared.refusal, |d, h| d.quiet(id(i), h));
        self.run(declared.stop, |d, h| d.drain(id(i), h));
        assert!(!self.device.line());
        self.run(declared.save, |d, h| d.save(id(i), h, None));
        self.run(declared.save, |d, h| d.scrub(id(i), h));
        for offset in [TERM, ROUNDS, SUM, ENABLE, INTERRUPT] {
            assert_eq!(self.device.read(0, offset, Word), 0, "{offset:#x} is left");
        }
    }

    fn put_in(&mut self, i: usize) {
        self.take_out();
        let declared = self.driver.description().worst_case;
        self.run(declared.restore, |d, h| d.restore(id(i), h, None));
        assert!(!self.device.line(), "a restore is silent");
        self.run(declared.restore, |d, h| d.replay(id(i), h));
        self.current = Some(i);
    }

    fn access(&mut self, i: usize, offset: u64, operation: Operation) -> Verdict {
        let access = Access {
            window: 0,
            offset,
            width: Word,
            operation,
        };
        let current = self.current == Some(i);
        let hardware = current.then_some(&mut self.device as &mut dyn Hardware);
        self.driver.access(id(i), &access, hardware)
    }
}

/// What a program does to the device.
#[derive(Clone, Copy, Debug)]
enum Op {
    Read(u64),
    Write(u64, u32),
    /// Wait until the bits are as told.
    Until(u64, u64, bool),
}

/// A job: ends with the device quiet, so that what it reads doesn't depend on time.
fn job() -> impl Strategy<Value = Vec<Op>> {
    let all = &[
        ID,
        TERM,
        ROUNDS,
        START,
        SUM,
        STATUS,
        ENABLE,
        ENABLE_SET,
        ENABLE_CLEAR,
        INTERRUPT,
        INTERRUPT_FORCE,
        0x30,
    ][..];
    let plain = &[
        TERM,
        ROUNDS,
        SUM,
        ENABLE_SET,
        ENABLE_CLEAR,
        INTERRUPT,
        INTERRUPT_FORCE,
        ID,
        STATUS,
    ][..];
    prop_oneof![
        2 => proptest::sample::select(all).prop_map(|o| vec![Op::Read(o)]),
        2 => (proptest::sample::select(plain), any::<u32>()).prop_map(|(o, v)| vec![Op::Write(o, v)]),
        3 => (any::<u32>(), 0..2000_u32, any::<bool>()).prop_map(|(term, rounds, acknowledge)| {
            let mut ops = vec![Op::Write(INTERRUPT, 1), Op::Write(TERM, term), Op::Write(ROUNDS, rounds), Op::Write(START, 1),
                Op::Until(STATUS, 1, false), Op::Until(INTERRUPT, OVER, true), Op::Read(SUM), Op::Read(TERM)];
            if acknowledge {
                ops.push(Op::Write(INTERRUPT, 1));
            }
            ops
        }),
    ]
}

/// What a program sees when it has the device for itself, and whether the line is asserted at its end.
fn alone(ops: &[Op]) -> (Vec<u64>, bool) {
    let mut device = Model::default();
    let mut seen = Vec::new();
    for op in ops {
        match *op {
            Op::Read(offset) => seen.push(device.read(0, offset, Word)),
            Op::Write(offset, value) => device.write(0, offset, Word, value.into()),
            Op::Until(offset, bits, set) => {
                while (device.read(0, offset, Word) & bits != 0) != set {}
            }
        }
    }
    (seen, device.line())
}

proptest! {
    /// Sharing changes nothing that a domain sees, whenever the switches come.
    #[test]
    fn shared_looks_like_alone(
        jobs in prop::array::uniform2(prop::collection::vec(job(), 0..14)),
        schedule in prop::collection::vec((0..2_usize, 0..16_u64), 1..200),
    ) {
        let programs = jobs.map(|jobs| jobs.concat());
        let mut rig = Rig::new();
        let (mut at, mut seen) = ([0, 0], [Vec::new(), Vec::new()]);
        let mut waits = 0;
        for (steps, (who, dice)) in schedule.into_iter().cycle().enumerate() {
            prop_assert!(steps < 100_000, "waits for ever: {at:?} of {programs:?}");
            if (0..2).all(|i| at[i] == programs[i].len()) {
                break;
            }
            let who = if at[who] < programs[who].len() { who } else { 1 - who };
            let op = programs[who][at[who]];
            // Who waits for queued work has to become current some time.
            if dice == 0 || waits > 30 {
                rig.put_in(who);
                waits = 0;
            }
            let verdict = match op {
                Op::Read(offset) | Op::Until(offset, ..) => rig.access(who, offset, Operation::Read),
                Op::Write(offset, value) => rig.access(who, offset, Operation::Write(value.into())),
            };
            let (Verdict::Value(value) | Verdict::Queued(value)) = verdict else {
                panic!("{op:?}: {verdict:?}");
            };
            match op {
                Op::Until(_, bits, set) if (value & bits != 0) != set => {
                    rig.device.advance(Duration::from_micros(dice * 10));
                    waits += 1;
                    continue;
                }
                Op::Read(_) => seen[who].push(value),
                _ => {}
            }
            at[who] += 1;
        }
        rig.take_out();
        for i in 0..2 {
            let (expected, line) = alone(&programs[i]);
            prop_assert_eq!(&seen[i], &expected, "domain {}: {:?}", i, programs[i]);
            prop_assert_eq!(rig.driver.interrupt_pending(id(i), 0, None), line);
        }
    }
}

#[test]
fn it_refuses_while_it_adds_and_stops_by_force() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.access(0, TERM, Operation::Write(7));
    rig.access(0, ROUNDS, Operation::Write(0xffff_ffff));
    rig.access(0, START, Operation::Write(1));
    rig.device.advance(Duration::from_millis(1));
    for _ in 0..10 {
        let step = rig.driver.quiet(id(0), &mut rig.device);
        assert!(matches!(step, Step::Again(_)));
    }
    assert_eq!(rig.driver.abort(id(0), &mut rig.device), Step::Done);
    assert!(!rig.driver.busy(id(0), &mut rig.device));
    assert!(
        rig.device.read(0, SUM, Word) >= 7000,
        "what was added stays"
    );
    assert_eq!(rig.driver.reset(&mut rig.device), Step::Done);
    assert_eq!(rig.device.read(0, SUM, Word), 0);

    rig.device.stops = false;
    rig.device.resets = false;
    rig.device.write(0, ROUNDS, Word, 0xffff_ffff);
    rig.device.write(0, START, Word, 1);
    let abort = rig.driver.abort(id(0), &mut rig.device);
    assert!(matches!(abort, Step::Again(_)));
    assert!(matches!(rig.driver.reset(&mut rig.device), Step::Again(_)));
}

#[test]
fn a_stop_waits_until_its_vcoproc_is_current() {
    let mut rig = Rig::new();
    assert_eq!(rig.access(0, CONTROL, Operation::Write(1)), Verdict::Park);
    rig.put_in(0);
    assert_eq!(
        rig.access(0, CONTROL, Operation::Write(1)),
        Verdict::Value(0)
    );
}

/// The guide quotes the driver; a quotation that isn't there any more is a lie.
#[test]
fn the_guide_quotes_what_is_there() {
    let guide = include_str!("../../../../docs/guides/coprocessor-in-an-afternoon.md");
    let source = include_str!("mod.rs");
    let quotes: Vec<_> = guide.split("```rust,ignore\n").skip(1).collect();
    assert_eq!(quotes.len(), 5);
    for quote in quotes {
        let quote = quote.split("```").next().unwrap();
        assert!(source.contains(quote.trim_end()), "not in mod.rs:\n{quote}");
    }
}
