//! The machinery on a device that has one register of every kind, against a model of it; and each fault of a table.
//!
//! The main test is the comparison that a driver's own tests should have too: the same program alone on the bare device and
//! beside another domain's, switched at arbitrary moments, must see the same.

use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::Driver;
use crate::driver::{Description, Hardware, Step, Verdict, Window, WorstCase};
use crate::id::VcoprocId;
use crate::register::{Access, Operation, Width};
use crate::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const WORD: Width = Width::Word;

const DESCRIPTION: Description = Description {
    name: "zoo",
    matches: &[],
    windows: &[
        Window {
            name: "main",
            index: 0,
            size: 0x1000,
            direct: false,
        },
        Window {
            name: "second",
            index: 2,
            size: 0x100,
            direct: true,
        },
    ],
    interrupts: 1,
    streams: 0,
    own_iommu: false,
    save_area: 0,
    worst_case: WorstCase {
        refusal: MS,
        stop: MS,
        save: MS,
        restore: MS,
    },
    refusal_bound: MS,
    slice: MS,
};

const REGISTERS: &[Register] = &[
    Register::read_write("ctrl", 0x00, WORD).narrow(Narrow::Merged),
    Register::read_write("wide", 0x08, Width::Double)
        .narrow(Narrow::Merged)
        .reset(7),
    Register::aliased("mask", 0x10, WORD),
    Register::set_of("mask set", 0x14, WORD, 0x10),
    Register::clear_of("mask clear", 0x18, WORD, 0x10),
    Register::status("state", 0x30, WORD),
    Register::write_one_to_clear("events", 0x20, WORD).trap(Trap::Forward),
    Register::read_to_clear("errors", 0x24, WORD),
    Register::read_write("key", 0x28, WORD)
        .reads(0)
        .trap(Trap::Forward),
    Register::doorbell(
        "go",
        0x2c,
        WORD,
        Doorbell {
            busy: Some((0x30, 1)),
            locks: &[0x00],
            ..Doorbell::ANY
        },
    )
    .reads(0),
    Register::side_effect("fifo", 0x34, WORD),
    Register::read_write("hidden", 0x38, WORD)
        .away(Away::Fault)
        .trap(Trap::Fault),
    Register::read_write("base", 0x3c, WORD).trap(Trap::Shadow),
    Register::read_write("total", 0x40, WORD).volatile(0xffff_ffff),
    Register::doorbell(
        "mail",
        0x44,
        WORD,
        Doorbell {
            depth: 3,
            full: Full::Park,
            ..Doorbell::ANY
        },
    )
    .reads(0),
    Register::read_write("other", 0x08, Width::Half).window(2),
];

const RULES: &[Rules] = &[
    Rules {
        window: 0,
        narrowest: Width::Byte,
        widest: Width::Double,
        hole: Hole::Zero,
    },
    Rules {
        window: 2,
        narrowest: Width::Half,
        widest: Width::Half,
        hole: Hole::Fault,
    },
];

const TABLE: Table = Table {
    description: DESCRIPTION,
    rules: RULES,
    identity: &[],
    registers: REGISTERS,
    interrupts: &[Interrupt {
        window: 0,
        status: 0x20,
        enable: Some(0x10),
    }],
    poll: Poll {
        first: Duration::from_micros(1),
        last: Duration::from_micros(4),
    },
};

#[derive(Default)]
struct Zoo;

impl Device for Zoo {
    const TABLE: &'static Table = &TABLE;
    type Own = ();

    fn reset(&mut self, _: &mut dyn Hardware) -> Step {
        Step::Done
    }
}

/// The device. One access takes 1 µs.
#[derive(Default)]
struct Model {
    now: u64,
    ctrl: u64,
    wide: u64,
    mask: u64,
    events: u64,
    errors: u64,
    key: u64,
    work: Option<(u64, u64)>,
    hidden: u64,
    base: u64,
    total: u64,
    other: u64,
    fifo: Vec<u64>,
    writes: Vec<(u64, u64)>,
}

impl Model {
    fn new() -> Self {
        Self {
            wide: 7,
            ..Self::default()
        }
    }

    fn pass(&mut self, micros: u64) {
        self.now += micros;
        if let Some((end, value)) = self.work
            && self.now >= end
        {
            self.work = None;
            self.total = (self.total + value * (self.ctrl & 0xff) + self.key) & 0xffff_ffff;
            self.events |= 1;
            self.errors |= 1 << (value % 32);
        }
    }

    fn pending(&self) -> bool {
        self.events & self.mask != 0
    }
}

impl Hardware for Model {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        self.pass(1);
        let value = match (window, offset) {
            (0, 0x00..0x04) => self.ctrl >> (8 * offset),
            (0, 0x08..0x10) => self.wide >> (8 * (offset - 8)),
            (0, 0x10 | 0x14 | 0x18) => self.mask,
            (0, 0x20) => self.events,
            (0, 0x24) => core::mem::take(&mut self.errors),
            (0, 0x30) => self.work.is_some().into(),
            (0, 0x34) => self.fifo.pop().unwrap_or(0),
            (0, 0x38) => self.hidden,
            (0, 0x3c) => self.base,
            (0, 0x40) => self.total,
            (2, 0x08) => self.other,
            _ => 0,
        };
        value & width.mask()
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.pass(1);
        self.writes.push((offset, value));
        let merge = |old: &mut u64, shift: u64| {
            *old = (*old & !(width.mask() << shift)) | ((value & width.mask()) << shift);
        };
        match (window, offset) {
            (0, 0x00..0x04) if self.work.is_none() => merge(&mut self.ctrl, 8 * offset),
            (0, 0x08..0x10) => merge(&mut self.wide, 8 * (offset - 8)),
            (0, 0x14) => self.mask |= value,
            (0, 0x18) => self.mask &= !value,
            (0, 0x20) => self.events &= !value,
            (0, 0x28) => self.key = value,
            (0, 0x2c) if self.work.is_none() => self.work = Some((self.now + value % 64, value)),
            (0, 0x34) => self.fifo.push(value),
            (0, 0x38) => self.hidden = value,
            (0, 0x3c) => self.base = value,
            (0, 0x40) => self.total = value,
            (0, 0x44) => {
                self.total = (self.total * 31 + value) & 0xffff_ffff;
                self.events |= 4;
            }
            (2, 0x08) => self.other = value,
            _ => {}
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now * 1000)
    }
}

fn id(i: usize) -> VcoprocId {
    VcoprocId(i as u32)
}

struct Rig {
    driver: TableDriver<Zoo>,
    device: Model,
    current: Option<usize>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            driver: TableDriver::new(),
            device: Model::new(),
            current: None,
        };
        rig.driver.probe(&mut rig.device).unwrap();
        rig.driver.create(id(1)).unwrap();
        rig.driver.create(id(0)).unwrap();
        rig
    }

    fn run(&mut self, mut step: impl FnMut(&mut TableDriver<Zoo>, &mut Model) -> Step) {
        for _ in 0..1000 {
            match step(&mut self.driver, &mut self.device) {
                Step::Done => return,
                Step::Again(after) => self.device.pass(after.as_micros().max(1)),
                Step::Failed(why) => panic!("{why}"),
            }
        }
        panic!("never done");
    }

    fn take_out(&mut self) {
        if let Some(i) = self.current.take() {
            self.run(|d, h| d.quiet(id(i), h));
            self.run(|d, h| d.drain(id(i), h));
            assert_eq!((self.device.events, self.device.errors), (0, 0));
            self.run(|d, h| d.save(id(i), h, None));
            self.run(|d, h| d.scrub(id(i), h));
            let d = &self.device;
            let left = [d.ctrl, d.mask, d.key, d.total, d.other, d.hidden, d.base];
            assert_eq!(left, [0; 7], "scrubbed");
        }
    }

    fn put_in(&mut self, i: usize) {
        self.take_out();
        self.run(|d, h| d.restore(id(i), h, None));
        assert_eq!(self.driver.replay(id(i), &mut self.device), Step::Done);
        self.current = Some(i);
    }

    fn access(
        &mut self,
        i: usize,
        window: usize,
        offset: u64,
        width: Width,
        operation: Operation,
    ) -> Verdict {
        let access = Access {
            window,
            offset,
            width,
            operation,
        };
        let current = self.current == Some(i);
        let hardware = current.then_some(&mut self.device as &mut dyn Hardware);
        self.driver.access(id(i), &access, hardware)
    }

    fn read(&mut self, i: usize, offset: u64) -> Verdict {
        self.access(i, 0, offset, WORD, Operation::Read)
    }

    fn write(&mut self, i: usize, offset: u64, value: u64) -> Verdict {
        self.access(i, 0, offset, WORD, Operation::Write(value))
    }

    fn pending(&mut self, i: usize) -> bool {
        let current = self.current == Some(i);
        let hardware = current.then_some(&mut self.device as &mut dyn Hardware);
        self.driver.interrupt_pending(id(i), 0, hardware)
    }
}

#[derive(Clone, Debug)]
enum Op {
    Read(usize, u64, Width),
    Write(usize, u64, Width, u64),
    Until(u64, u64, bool),
}

fn job() -> impl Strategy<Value = Vec<Op>> {
    use Op::{Read, Until, Write};
    let plain = (
        proptest::sample::select(
            &[
                (0, 0, WORD),
                (0, 1, Width::Byte),
                (0, 2, Width::Half),
                (0, 8, Width::Double),
                (0, 12, WORD),
                (0, 14, Width::Half),
                (0, 0x14, WORD),
                (0, 0x18, WORD),
                (0, 0x28, WORD),
                (0, 0x3c, WORD),
                (0, 0x40, WORD),
                (0, 0x20, WORD),
                (0, 0x34, WORD),
                (2, 8, Width::Half),
            ][..],
        ),
        any::<u64>(),
    );
    let look = proptest::sample::select(
        &[
            0_u64, 8, 12, 0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x3c, 0x40, 0x44,
            0x50,
        ][..],
    );
    prop_oneof![
        4 => plain.prop_map(|((w, o, width), v)| alloc::vec![Write(w, o, width, v & width.mask())]),
        3 => look.prop_map(|o| alloc::vec![Read(0, o, WORD)]),
        1 => Just(alloc::vec![Read(2, 8, Width::Half), Read(0, 8, Width::Double), Read(0, 3, Width::Byte)]),
        3 => (0..1000_u64, any::<bool>()).prop_map(|(value, acknowledge)| {
            let mut ops = alloc::vec![Write(0, 0x20, WORD, 1), Write(0, 0x2c, WORD, value), Until(0x30, 1, false),
                Until(0x20, 1, true), Read(0, 0x40, WORD)];
            if acknowledge {
                ops.extend([Read(0, 0x24, WORD), Write(0, 0x20, WORD, 1), Read(0, 0x20, WORD)]);
            }
            ops
        }),
        2 => (0..9999_u64).prop_map(|value| alloc::vec![
            Write(0, 0x20, WORD, 4), Write(0, 0x44, WORD, value), Until(0x20, 4, true),
            Write(0, 0x20, WORD, 4), Read(0, 0x40, WORD),
        ]),
    ]
}

/// What of the program is seen alone; and whether the interrupt is pending at its end.
fn alone(ops: &[Op]) -> (Vec<u64>, bool) {
    let mut device = Model::new();
    // What the domain's writes do that never reach the device.
    let mut base = 0;
    let mut seen = Vec::new();
    for op in ops {
        match *op {
            Op::Read(0, 0x3c, _) => seen.push(base),
            Op::Read(window, offset, width) => seen.push(device.read(window, offset, width)),
            Op::Write(0, 0x3c, _, value) => base = value,
            Op::Write(window, offset, width, value) => device.write(window, offset, width, value),
            Op::Until(offset, bits, set) => {
                while (device.read(0, offset, WORD) & bits != 0) != set {
                    assert!(device.now < 10_000_000, "{op:?} of {ops:?}");
                }
            }
        }
    }
    (seen, device.pending())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Sharing changes nothing that a domain sees, whenever the switches come.
    #[test]
    fn shared_looks_like_alone(
        jobs in prop::array::uniform2(prop::collection::vec(job(), 0..16)),
        schedule in prop::collection::vec((0..2_usize, 0..12_u8), 1..200),
    ) {
        // A FIFO's content is no context here, so a program that leaves some behind and one that pops don't go together.
        let fifo = |op: &Op| matches!(op, Op::Read(0, 0x34, _));
        let programs = jobs.map(|jobs| jobs.concat().into_iter().filter(|op| !fifo(op)).collect::<Vec<_>>());
        let mut rig = Rig::new();
        let mut at = [0, 0];
        let mut seen = [Vec::new(), Vec::new()];
        let mut schedule = schedule.into_iter().cycle();
        let (mut stuck, mut steps) = (0, 0);
        while (0..2).any(|i| at[i] < programs[i].len()) {
            steps += 1;
            prop_assert!(steps < 100_000, "waits for ever: {at:?} of {programs:?}");
            let (who, dice) = schedule.next().unwrap();
            let who = if at[who] < programs[who].len() { who } else { 1 - who };
            if dice == 0 || stuck > 20 {
                rig.put_in(who);
                stuck = 0;
            }
            let (window, offset, width, operation) = match programs[who][at[who]] {
                Op::Read(window, offset, width) => (window, offset, width, Operation::Read),
                Op::Write(window, offset, width, value) => (window, offset, width, Operation::Write(value)),
                Op::Until(offset, ..) => (0, offset, WORD, Operation::Read),
            };
            let value = match rig.access(who, window, offset, width, operation) {
                Verdict::Value(value) => value,
                Verdict::Queued(value) => {
                    prop_assert!(rig.driver.has_work(id(who)));
                    value
                }
                Verdict::Park => {
                    prop_assert!(rig.current != Some(who));
                    rig.put_in(who);
                    continue;
                }
                Verdict::Fault => panic!("{offset:#x}"),
            };
            match programs[who][at[who]] {
                Op::Read(..) => seen[who].push(value),
                Op::Until(_, bits, set) if (value & bits != 0) != set => {
                    stuck += 1;
                    rig.device.pass(dice.into());
                    continue;
                }
                _ => {}
            }
            at[who] += 1;
            stuck = 0;
        }
        rig.take_out();
        for i in 0..2 {
            let (expected, pending) = alone(&programs[i]);
            prop_assert_eq!(&seen[i], &expected, "domain {}: {:?}", i, programs[i]);
            prop_assert_eq!(rig.pending(i), pending);
        }
    }

    /// No access at any moment panics, reaches the hidden register, or leaves a switch unfinished.
    #[test]
    fn hostile_accesses_do_no_harm(
        steps in prop::collection::vec((0..3_usize, 0..0x60_u64, 0..4_u8, any::<Option<u64>>(), 0..8_u8), 1..200),
    ) {
        let mut rig = Rig::new();
        rig.put_in(0);
        let mut leaving = false;
        for (window, offset, width, value, dice) in steps {
            let width = [Width::Byte, Width::Half, WORD, Width::Double][usize::from(width)];
            let operation = value.map_or(Operation::Read, |v| Operation::Write(v & width.mask()));
            let current = rig.current.unwrap();
            let who = if dice < 6 { current } else { 1 - current };
            rig.access(who, window, offset, width, operation);
            rig.pending(who);
            if dice == 1 || leaving {
                leaving = rig.driver.quiet(id(current), &mut rig.device) != Step::Done;
                if !leaving {
                    rig.put_in(1 - current);
                }
            }
            prop_assert_eq!(rig.device.hidden, 0);
            prop_assert_eq!(rig.device.base, 0);
        }
        rig.take_out();
    }
}

#[test]
fn a_status_that_cannot_be_put_back_is_carried() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.write(0, 0x14, 1);
    rig.write(0, 0x2c, 5);
    rig.put_in(1);
    assert!(rig.pending(0) && !rig.pending(1));
    assert_eq!(rig.read(1, 0x20), Verdict::Value(0));
    rig.put_in(0);
    assert_eq!(rig.device.events, 0, "nothing can set it in the device");
    assert!(rig.pending(0));
    assert_eq!(rig.read(0, 0x20), Verdict::Value(1));
    assert_eq!(rig.read(0, 0x24), Verdict::Value(1 << 5));
    assert_eq!(rig.read(0, 0x24), Verdict::Value(0), "read to clear");
    rig.write(0, 0x20, 1);
    assert_eq!(rig.read(0, 0x20), Verdict::Value(0));
    assert!(!rig.pending(0));
}

#[test]
fn doorbells_are_queued_to_their_depth_and_lock_their_parameters() {
    let mut rig = Rig::new();
    rig.put_in(1);
    rig.write(0, 0x00, 3);
    for value in 1..=3 {
        assert_eq!(rig.write(0, 0x44, value), Verdict::Queued(0));
    }
    assert_eq!(rig.write(0, 0x44, 4), Verdict::Park);
    assert_eq!(rig.read(0, 0x30), Verdict::Value(0));
    assert_eq!(rig.write(0, 0x2c, 10), Verdict::Queued(0));
    assert_eq!(rig.read(0, 0x30), Verdict::Value(1), "reads busy");
    assert_eq!(
        rig.write(0, 0x2c, 11),
        Verdict::Value(0),
        "ignored while busy"
    );
    rig.write(0, 0x00, 99);
    assert_eq!(rig.read(0, 0x00), Verdict::Value(3), "locked while busy");
    rig.device.writes.clear();
    rig.put_in(0);
    assert!(!rig.driver.has_work(id(0)));
    let bells = [0x44, 0x2c];
    let rung: Vec<_> = rig
        .device
        .writes
        .iter()
        .filter(|w| bells.contains(&w.0))
        .copied()
        .collect();
    assert_eq!(rung, [(0x44, 1), (0x44, 2), (0x44, 3), (0x2c, 10)]);
}

#[test]
fn what_is_neither_shadowed_nor_queued_parks_or_faults() {
    let mut rig = Rig::new();
    assert_eq!(rig.read(0, 0x34), Verdict::Park);
    assert_eq!(rig.write(0, 0x34, 1), Verdict::Park);
    assert_eq!(rig.read(0, 0x38), Verdict::Fault);
    assert_eq!(rig.access(0, 1, 0, WORD, Operation::Read), Verdict::Fault);
    assert_eq!(rig.access(0, 2, 8, WORD, Operation::Read), Verdict::Fault);
    assert_eq!(
        rig.access(0, 2, 0, Width::Half, Operation::Read),
        Verdict::Fault
    );
    assert_eq!(rig.read(0, 0x2), Verdict::Fault, "misaligned");
    assert_eq!(rig.read(0, 0x1000), Verdict::Fault);
    assert_eq!(rig.read(0, 0x50), Verdict::Value(0), "a hole");
    rig.put_in(0);
    assert_eq!(rig.read(0, 0x38), Verdict::Fault, "the current one too");
}

#[test]
fn a_reset_ends_what_was_under_way() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.write(0, 0x40, 77);
    rig.write(0, 0x14, 1);
    rig.device.events = 1;
    assert_eq!(rig.driver.reset(&mut rig.device), Step::Done);
    assert_eq!(
        (rig.device.events, rig.device.total, rig.device.mask),
        (0, 0, 0)
    );
    rig.current = None;
    rig.put_in(1);
    assert_eq!(rig.read(1, 0x40), Verdict::Value(0));
    assert!(matches!(
        rig.driver.abort(id(1), &mut rig.device),
        Step::Failed(_)
    ));
}

/// The table with these registers; what is wrong with it.
fn fault(registers: &'static [Register]) -> Option<(&'static str, &'static str)> {
    let table = Table {
        registers,
        interrupts: &[],
        description: Description {
            interrupts: 0,
            ..DESCRIPTION
        },
        ..TABLE
    };
    table
        .check()
        .err()
        .map(|error| (error.entry, error.problem))
}

/// A fault of a table with a register `a` and these others.
macro_rules! faulty {
    ($($what:literal: $register:expr;)*) => { $({
        const A: Register = Register::read_write("a", 0, WORD);
        let found = fault(const { &[A, $register] });
        let (entry, problem) = found.expect($what);
        assert_eq!(entry, "b");
        assert!(problem.contains($what), "expected {:?}, found {problem:?}", $what);
    })* };
}

#[test]
fn every_fault_of_a_register_is_found_and_named() {
    const ANY: Doorbell = Doorbell::ANY;
    assert_eq!(TABLE.check(), Ok(()));
    faulty! {
        "overlaps": Register::read_write("b", 2, Width::Half);
        "overlaps": Register::read_write("b", 0, Width::Double);
        "overlaps": Register::read_write("b", 8, WORD).narrow(Narrow::Addressed(0));
        "addressed bit by bit": Register::status("b", 8, WORD).narrow(Narrow::Addressed(4));
        "addressed bit by bit": Register::read_write("b", 8, WORD).narrow(Narrow::Addressed(12));
        "addressed bit by bit": Register::read_write("b", 8, WORD).narrow(Narrow::Addressed(6));
        "held, but": Register::status("b", 4, WORD).held();
        "not aligned": Register::read_write("b", 6, WORD);
        "outside": Register::read_write("b", 0x1000, WORD);
        "window doesn't exist": Register::read_write("b", 8, WORD).window(1);
        "refuse its width": Register::read_write("b", 8, WORD).window(2);
        "can't be direct": Register::read_write("b", 8, Width::Half).window(2).trap(Trap::Forward);
        "wider than": Register::read_write("b", 4, Width::Half).reset(0x10000);
        "only a doorbell": Register::read_write("b", 4, WORD).away(Away::Queue);
        "a shadow can't stand": Register::doorbell("b", 4, WORD, ANY).away(Away::Shadow);
        "a shadow can't stand": Register::side_effect("b", 4, WORD).away(Away::Shadow);
        "only a plain value": Register::status("b", 4, WORD).trap(Trap::Shadow);
        "can't be saved": Register::read_write("b", 4, WORD).reads(0);
        "can't restore": Register::aliased("b", 4, WORD);
        "can't be scrubbed": Register::constant("b", 4, WORD, 1).scrub(Scrub::Reset);
        "can't be put back": Register::write_one_to_clear("b", 4, WORD);
        "must be always trapped": Register::read_to_clear("b", 4, WORD).trap(Trap::Never).regenerated();
        "a part of it": Register::doorbell("b", 4, WORD, ANY).narrow(Narrow::Merged);
        "alias of a register that doesn't": Register::set_of("b", 4, WORD, 8);
        "not as wide": Register::set_of("b", 4, Width::Half, 0);
        "`depth` is 0": Register::doorbell("b", 4, WORD, Doorbell { depth: 0, ..ANY });
        "busy bits are in a register that": Register::doorbell("b", 4, WORD, Doorbell { busy: Some((8, 1)), ..ANY });
        "aren't volatile": Register::doorbell("b", 4, WORD, Doorbell { busy: Some((0, 1)), ..ANY });
        "locks a register that doesn't": Register::doorbell("b", 4, WORD, Doorbell { locks: &[8], ..ANY });
        "locks a register that can't": Register::doorbell("b", 4, WORD, Doorbell { locks: &[4], ..ANY });
    }
}

#[test]
fn every_fault_of_a_list_is_found_and_named() {
    let entry = |table: Table| table.check().err().map(|error| error.entry);
    assert_eq!(
        entry(Table {
            rules: &RULES[..1],
            ..TABLE
        }),
        Some("second")
    );
    const TWICE: &[Rules] = &[RULES[0], RULES[0], RULES[1]];
    assert_eq!(
        entry(Table {
            rules: TWICE,
            ..TABLE
        }),
        Some("main")
    );
    const MORE: &[Rules] = &[
        RULES[0],
        RULES[1],
        Rules {
            window: 9,
            ..RULES[0]
        },
    ];
    assert_eq!(
        entry(Table {
            rules: MORE,
            ..TABLE
        }),
        Some("rules")
    );
    assert_eq!(
        entry(Table {
            interrupts: &[],
            ..TABLE
        }),
        Some("interrupts")
    );
    const NOWHERE: &[Interrupt] = &[Interrupt {
        window: 0,
        status: 0x50,
        enable: None,
    }];
    assert_eq!(
        entry(Table {
            interrupts: NOWHERE,
            ..TABLE
        }),
        Some("interrupts")
    );
    const UNKNOWN: &[Identity] = &[Identity {
        what: "version",
        window: 0,
        offset: 0x50,
        mask: 1,
        value: 1,
    }];
    assert_eq!(
        entry(Table {
            identity: UNKNOWN,
            ..TABLE
        }),
        Some("version")
    );
    let poll = Poll {
        first: MS,
        last: Duration::ZERO,
    };
    assert_eq!(entry(Table { poll, ..TABLE }), Some("poll"));
    let own = Description {
        own_iommu: true,
        ..DESCRIPTION
    };
    let shadowed = Table {
        description: own,
        ..TABLE
    };
    assert_eq!(entry(shadowed), None);
    let open = Table {
        registers: &[],
        identity: &[],
        interrupts: &[],
        description: Description {
            interrupts: 0,
            ..own
        },
        ..TABLE
    };
    assert_eq!(entry(open), Some("own_iommu"));
    let error = Table { poll, ..TABLE }.check().unwrap_err();
    assert_eq!(
        alloc::format!("{error}"),
        "driver table `zoo`, `poll`: `first` must be above 0 and not above `last`"
    );
}
