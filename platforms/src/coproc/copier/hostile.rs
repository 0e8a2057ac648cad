//! A domain that tries everything, beside one that works.

use alloc::vec;
use alloc::vec::Vec;

use coproc_core::driver::{Driver, Hardware, Step, Verdict};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::Duration;
use proptest::prelude::*;

use super::offset::*;
use super::shadow::{BLOCK, VALID, WRITE};
use super::tests::{Op, Rig, alone, id, perform};
use super::world::{BATON, HOST, PAGE, PAGES, RAM};
use super::{COPY, MMU, TRANSLATE};

const HOSTILE: usize = 0;
const INNOCENT: usize = 1;

/// What the hostile domain does, and what happens to it.
#[derive(Clone, Copy, Debug)]
enum Act {
    Access(Access),
    /// Its CPU writes its RAM: also while the device works, or its context moves.
    Store(u64, u64),
    Pass(u64),
    Switch(usize),
    /// The next operation of the innocent domain's program.
    Innocent,
}

/// A value that might do harm as an address or an entry.
fn poison() -> impl Strategy<Value = u64> {
    let place = prop_oneof![
        4 => (0..PAGES).prop_map(|page| RAM + page * PAGE),
        2 => (0..2 * PAGES).prop_map(|page| HOST + page * PAGE),
        2 => (0..16_u64).prop_map(|page| BATON + page * PAGE),
        1 => (PAGES - 2..PAGES + 70).prop_map(|page| RAM + page * PAGE),
        1 => (0..70_u64).prop_map(|page| 0xffff_ffff_f000 - page * PAGE),
        1 => any::<u64>(),
    ];
    let bits = prop_oneof![
        3 => Just(VALID | WRITE), 2 => Just(VALID | WRITE | BLOCK), 1 => Just(TRANSLATE), 1 => 0..4096_u64,
    ];
    (place, bits).prop_map(|(place, bits)| place | bits)
}

fn act() -> impl Strategy<Value = Act> {
    let registers = prop::sample::select(vec![
        (COPY, ID),
        (COPY, STATUS),
        (COPY, SOURCE),
        (COPY, DESTINATION),
        (COPY, LENGTH),
        (COPY, START),
        (COPY, INTERRUPT),
        (COPY, INTERRUPT_FORCE),
        (COPY, ENABLE),
        (MMU, TABLE),
        (MMU, FLUSH),
        (MMU, FAULT),
        (MMU, FAULT_ADDRESS),
        (MMU, CONTROL),
    ]);
    let usual = |(window, offset)| {
        if (window, offset) == (MMU, TABLE) {
            Width::Double
        } else {
            Width::Word
        }
    };
    let address = || {
        prop_oneof![
            6 => (0..8_u64, 0..4096_u64).prop_map(|(page, offset)| page * PAGE + offset),
            2 => 0..0x40_0000_u64, 1 => poison(), 1 => any::<u64>(),
        ]
    };
    let write = move |window, offset, value| {
        Act::Access(Access {
            window,
            offset,
            width: usual((window, offset)),
            operation: Operation::Write(value),
        })
    };
    let widths = prop::sample::select(vec![Width::Byte, Width::Half, Width::Word, Width::Double]);
    // Its RAM begins with what it uses as tables, which may point at each other and at themselves.
    let store = (0..4_u64, 0..70_u64, poison())
        .prop_map(|(page, word, value)| Act::Store(RAM + page * PAGE + word * 8, value));
    prop_oneof![
        4 => (registers, prop_oneof![poison(), address()]).prop_map(move |((w, o), v)| write(w, o, v)),
        2 => (0..3_usize, 0..0x1010_u64, widths, prop::option::of(any::<u64>())).prop_map(|(window, offset, width, value)| {
            let operation = value.map_or(Operation::Read, |value| Operation::Write(value & width.mask()));
            Act::Access(Access { window, offset, width, operation })
        }),
        3 => (0..4_u64, any::<bool>()).prop_map(move |(page, on)| write(MMU, TABLE, (RAM + page * PAGE) | u64::from(on))),
        3 => Just(write(MMU, FLUSH, 1)),
        2 => address().prop_map(move |a| write(COPY, SOURCE, a)),
        2 => address().prop_map(move |a| write(COPY, DESTINATION, a)),
        2 => prop_oneof![0..20_000_u64, any::<u64>()].prop_map(move |l| write(COPY, LENGTH, l)),
        4 => Just(write(COPY, START, 1)),
        8 => store,
        3 => (0..20_u64).prop_map(Act::Pass),
        2 => (0..2_usize).prop_map(Act::Switch),
        4 => Just(Act::Innocent),
    ]
}

/// Copies a page to another, six times in a row through its own tables, and looks at each interrupt.
fn innocent() -> Vec<Op> {
    let mut ops = Vec::new();
    for word in 0..512 {
        ops.push(Op::Store(
            RAM + 8 * PAGE + word * 8,
            word.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        ));
    }
    ops.push(Op::Store(RAM, (RAM + PAGE) | VALID));
    for page in 0..8 {
        ops.push(Op::Store(
            RAM + PAGE + page * 8,
            (RAM + (8 + page) * PAGE) | VALID | WRITE,
        ));
    }
    ops.extend([
        Op::Write(MMU, TABLE, RAM | TRANSLATE),
        Op::Write(MMU, FLUSH, 1),
    ]);
    for round in 0..6 {
        ops.extend([
            Op::Write(COPY, SOURCE, round * PAGE + round),
            Op::Write(COPY, DESTINATION, (round + 1) * PAGE + 5),
            Op::Write(COPY, LENGTH, 3000),
            Op::Write(COPY, START, 1),
            Op::Idle,
            Op::Read(COPY, INTERRUPT),
            Op::Read(MMU, FAULT),
            Op::Write(COPY, INTERRUPT, 1),
            Op::Read(MMU, TABLE),
        ]);
    }
    ops
}

struct Scene {
    rig: Rig,
    program: Vec<Op>,
    at: usize,
    seen: Vec<u64>,
}

impl Scene {
    fn new() -> Self {
        Self {
            rig: Rig::new(),
            program: innocent(),
            at: 0,
            seen: Vec::new(),
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Access(access) => {
                // Any answer will do, as long as there is one.
                let _: Verdict = self.rig.access(HOSTILE, &access);
            }
            Act::Store(at, word) => self.rig.world.store(HOSTILE, at, word),
            Act::Pass(time) => self.rig.device.advance(Duration::from_nanos(time * 250)),
            Act::Switch(to) => self.switch(to),
            Act::Innocent => self.innocent(),
        }
    }

    /// The framework's refusal: it may take its time, and the hostile domain's other CPU goes on meanwhile.
    fn switch(&mut self, to: usize) {
        if let Some(leaving) = self.rig.current {
            let mut word = 0;
            while self.rig.driver.quiet(id(leaving), &mut self.rig.device) != Step::Done {
                self.rig
                    .world
                    .store(HOSTILE, RAM + word % 512 * 8, BATON | VALID | WRITE);
                word += 1;
                self.rig.device.advance(Duration::from_micros(1));
            }
        }
        self.rig.put_in(to);
    }

    fn innocent(&mut self) {
        if let Some(&op) = self.program.get(self.at)
            && perform(&mut self.rig, INNOCENT, op, &mut self.seen)
        {
            self.at += 1;
        }
    }

    fn end(mut self) {
        self.switch(INNOCENT);
        while self.at < self.program.len() {
            self.rig.device.advance(Duration::from_micros(1));
            self.innocent();
        }
        self.rig.take_out();
        assert_eq!(
            self.rig.world.violations(),
            Vec::<alloc::string::String>::new()
        );
        let (seen, ram, _) = alone(&self.program);
        assert_eq!(self.seen, seen);
        assert!(self.rig.world.ram(INNOCENT) == ram, "the innocent's memory");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// Whatever a domain writes, wherever, whenever: no DMA for it leaves its RAM, no table is walked but Baton's, and the other one's work is right.
    #[test]
    fn no_dma_ever_leaves_the_domain(acts in prop::collection::vec(act(), 0..200)) {
        let mut scene = Scene::new();
        for act in acts {
            scene.act(act);
        }
        scene.end();
    }
}

fn write(rig: &mut Rig, window: usize, offset: u64, value: u64) -> Verdict {
    let width = if (window, offset) == (MMU, TABLE) {
        Width::Double
    } else {
        Width::Word
    };
    let operation = Operation::Write(value);
    rig.access(
        HOSTILE,
        &Access {
            window,
            offset,
            width,
            operation,
        },
    )
}

/// Tables, flush, and a copy of the first page of the device's to the second.
fn copy(rig: &mut Rig, first: u64, second: u64) {
    rig.world.store(HOSTILE, RAM, (RAM + PAGE) | VALID);
    rig.world.store(HOSTILE, RAM + PAGE, first);
    rig.world.store(HOSTILE, RAM + PAGE + 8, second);
    write(rig, MMU, TABLE, RAM | TRANSLATE);
    write(rig, MMU, FLUSH, 1);
    write(rig, COPY, DESTINATION, PAGE);
    write(rig, COPY, LENGTH, PAGE);
}

fn fault(rig: &mut Rig) -> u64 {
    rig.device.read(MMU, FAULT, Width::Word)
}

#[test]
fn an_address_of_the_machine_is_not_one_of_the_domain() {
    for target in [HOST + PAGE, BATON, RAM + PAGES * PAGE, 0, 0xffff_ffff_f000] {
        let mut rig = Rig::new();
        rig.put_in(HOSTILE);
        copy(&mut rig, (RAM + 8 * PAGE) | VALID, target | VALID | WRITE);
        write(&mut rig, COPY, START, 1);
        rig.device.advance(Duration::from_millis(1));
        assert_eq!(fault(&mut rig), 1, "{target:#x}");
        assert!(rig.world.violations().is_empty());
    }
}

#[test]
fn tables_changed_after_the_flush_change_nothing() {
    let mut rig = Rig::new();
    rig.world.store(HOSTILE, RAM + 8 * PAGE, 0x5ec7e7);
    rig.put_in(HOSTILE);
    copy(
        &mut rig,
        (RAM + 8 * PAGE) | VALID,
        (RAM + 9 * PAGE) | VALID | WRITE,
    );
    // The device has walked none of it yet.
    for word in 0..64 {
        rig.world
            .store(HOSTILE, RAM + word * 8, BATON | VALID | WRITE | BLOCK);
        rig.world.store(
            HOSTILE,
            RAM + PAGE + word * 8,
            (HOST + PAGE) | VALID | WRITE,
        );
    }
    write(&mut rig, COPY, START, 1);
    rig.device.advance(Duration::from_millis(1));
    assert_eq!(fault(&mut rig), 0);
    assert!(rig.world.violations().is_empty());
    let ram = rig.world.ram(HOSTILE);
    let at = (9 * PAGE) as usize;
    assert_eq!(
        ram[at..at + 8],
        0x5ec7e7_u64.to_le_bytes(),
        "copied as flushed"
    );
}

#[test]
fn switching_the_translation_off_maps_nothing() {
    let mut rig = Rig::new();
    rig.put_in(HOSTILE);
    copy(
        &mut rig,
        (RAM + 8 * PAGE) | VALID,
        (RAM + 9 * PAGE) | VALID | WRITE,
    );
    write(&mut rig, MMU, TABLE, HOST);
    write(&mut rig, MMU, FLUSH, 1);
    write(&mut rig, COPY, SOURCE, HOST);
    write(&mut rig, COPY, START, 1);
    rig.device.advance(Duration::from_millis(1));
    assert_eq!(fault(&mut rig), 1);
    // Nor does a reset, which would: it is a bus error.
    assert_eq!(write(&mut rig, MMU, CONTROL, 2), Verdict::Fault);
    rig.put_in(INNOCENT);
    assert_eq!(write(&mut rig, MMU, CONTROL, 2), Verdict::Fault);
    assert!(rig.world.violations().is_empty());
}

#[test]
fn what_the_device_remembers_ends_with_the_slice() {
    let mut rig = Rig::new();
    rig.put_in(HOSTILE);
    copy(
        &mut rig,
        (RAM + 8 * PAGE) | VALID,
        (RAM + 9 * PAGE) | VALID | WRITE,
    );
    write(&mut rig, COPY, START, 1);
    rig.device.advance(Duration::from_millis(1));
    assert_eq!(fault(&mut rig), 0);
    // The other one has no table, and starts the same copy.
    rig.put_in(INNOCENT);
    for (offset, value) in [(DESTINATION, PAGE), (LENGTH, 64), (START, 1)] {
        rig.device.write(COPY, offset, Width::Word, value);
    }
    rig.device.advance(Duration::from_millis(1));
    assert_eq!(fault(&mut rig), 1);
    assert!(rig.world.violations().is_empty());
}

#[test]
fn a_flush_under_a_copy_moves_no_table() {
    let mut rig = Rig::new();
    rig.world.store(HOSTILE, RAM + 10 * PAGE, 7);
    rig.put_in(HOSTILE);
    rig.world
        .store(HOSTILE, RAM + PAGE + 16, (RAM + 10 * PAGE) | VALID);
    copy(
        &mut rig,
        (RAM + 8 * PAGE) | VALID,
        (RAM + 9 * PAGE) | VALID | WRITE,
    );
    write(&mut rig, COPY, LENGTH, 2 * PAGE);
    write(&mut rig, COPY, START, 1);
    let root = rig.device.read(MMU, TABLE, Width::Double);
    rig.world.store(HOSTILE, RAM, 0);
    write(&mut rig, MMU, FLUSH, 1);
    assert_eq!(rig.device.read(MMU, TABLE, Width::Double), root);
    rig.device.advance(Duration::from_millis(1));
    assert_eq!(
        rig.device.read(MMU, FAULT_ADDRESS, Width::Word),
        2 * PAGE,
        "all that was mapped was copied"
    );
    // At rest it is taken.
    write(&mut rig, MMU, FLUSH, 1);
    assert_ne!(rig.device.read(MMU, TABLE, Width::Double), root);
}

#[test]
fn between_two_slices_the_device_translates_nothing() {
    let mut rig = Rig::new();
    rig.put_in(HOSTILE);
    copy(
        &mut rig,
        (RAM + 8 * PAGE) | VALID,
        (RAM + 9 * PAGE) | VALID | WRITE,
    );
    write(&mut rig, COPY, START, 1);
    rig.take_out();
    let after_reset = |rig: &mut Rig| assert_eq!(rig.driver.reset(&mut rig.device), Step::Done);
    for prepare in [|_: &mut Rig| {}, after_reset] {
        prepare(&mut rig);
        // What no domain can do now.
        for (offset, value) in [(SOURCE, 0), (DESTINATION, PAGE), (LENGTH, 64), (START, 1)] {
            rig.device.write(COPY, offset, Width::Word, value);
        }
        rig.device.advance(Duration::from_millis(1));
        assert_eq!(fault(&mut rig), 1);
        assert!(rig.world.violations().is_empty());
    }
}

#[test]
fn a_flush_behind_a_queued_copy_is_ignored_as_by_a_busy_device() {
    let mut rig = Rig::new();
    rig.world.store(HOSTILE, RAM + 8 * PAGE, 0x5ec7e7);
    copy(
        &mut rig,
        (RAM + 8 * PAGE) | VALID,
        (RAM + 9 * PAGE) | VALID | WRITE,
    );
    assert_eq!(write(&mut rig, COPY, START, 1), Verdict::Queued(0));
    rig.world.store(HOSTILE, RAM, 0);
    write(&mut rig, MMU, FLUSH, 1);
    rig.put_in(HOSTILE);
    rig.device.advance(Duration::from_millis(1));
    assert_eq!(fault(&mut rig), 0);
    let at = (9 * PAGE) as usize;
    assert_eq!(
        rig.world.ram(HOSTILE)[at..at + 8],
        0x5ec7e7_u64.to_le_bytes()
    );
}
