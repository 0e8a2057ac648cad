//! The driver against the model: a domain that behaves sees no difference.

use alloc::vec;
use alloc::vec::Vec;

use coproc_core::driver::{Confinement, Driver, DriverError, Hardware, Step, Unconfined, Verdict};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::Duration;
use proptest::prelude::*;

use super::model::{self, Bus};
use super::offset::*;
use super::shadow::{BLOCK, VALID, WRITE};
use super::world::{PAGE, PAGES, RAM, Shared};
use super::{COPY, Copier, MMU, TRANSLATE};

pub(super) fn id(domain: usize) -> VcoprocId {
    VcoprocId(domain as u32 + 1)
}

fn width(window: usize, offset: u64) -> Width {
    match (window, offset) {
        (MMU, TABLE) => Width::Double,
        _ => Width::Word,
    }
}

/// Device, driver and memory, and the framework's order of calls.
pub(super) struct Rig {
    pub(super) driver: Copier,
    pub(super) device: model::Copier<Shared>,
    pub(super) world: Shared,
    pub(super) current: Option<usize>,
}

impl Rig {
    pub(super) fn new() -> Self {
        let world = Shared::new();
        let mut rig = Self {
            driver: Copier::new(),
            device: model::Copier::new(world.clone()),
            world,
            current: None,
        };
        rig.driver.connect(rig.world.memory());
        rig.driver.probe(&mut rig.device).unwrap();
        for domain in 0..2 {
            rig.driver.create(id(domain)).unwrap();
        }
        rig
    }

    fn run(&mut self, limit: Duration, step: impl Fn(&mut Copier, &mut dyn Hardware) -> Step) {
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

    pub(super) fn take_out(&mut self) {
        let Some(i) = self.current.take() else { return };
        let declared = self.driver.description().worst_case;
        self.run(declared.refusal, |d, h| d.quiet(id(i), h));
        // From here on nothing may come any more.
        self.world.allow(None);
        self.run(declared.stop, |d, h| d.drain(id(i), h));
        assert!(!self.device.line());
        self.run(declared.save, |d, h| d.save(id(i), h, None));
        self.run(declared.save, |d, h| d.scrub(id(i), h));
        for offset in [SOURCE, DESTINATION, LENGTH, ENABLE, INTERRUPT] {
            let left = self.device.read(COPY, offset, Width::Word);
            assert_eq!(left, 0, "{offset:#x} is left");
        }
        for offset in [FAULT, FAULT_ADDRESS] {
            let left = self.device.read(MMU, offset, Width::Word);
            assert_eq!(left, 0, "{offset:#x} is left");
        }
    }

    pub(super) fn put_in(&mut self, i: usize) {
        self.take_out();
        let declared = self.driver.description().worst_case;
        self.run(declared.restore, |d, h| d.restore(id(i), h, None));
        assert!(!self.device.line(), "a restore is silent");
        self.world.allow(Some(i));
        self.run(declared.restore, |d, h| d.replay(id(i), h));
        self.current = Some(i);
    }

    /// An access as the domain's CPU does it: direct, where it may.
    pub(super) fn access(&mut self, i: usize, access: &Access) -> Verdict {
        if self.current == Some(i) && access.window == COPY {
            return Verdict::Value(match access.operation {
                Operation::Read => self.device.read(COPY, access.offset, access.width),
                Operation::Write(value) => {
                    self.device.write(COPY, access.offset, access.width, value);
                    0
                }
            });
        }
        let current = self.current == Some(i);
        let hardware = current.then_some(&mut self.device as &mut dyn Hardware);
        self.driver.access(id(i), access, hardware)
    }
}

/// What a program does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Read(usize, u64),
    Write(usize, u64, u64),
    /// Its CPU writes a word of its RAM.
    Store(u64, u64),
    /// Wait until the copy is over.
    Idle,
}

/// Pages of a domain's RAM: two roots, two leaf tables each, data.
const ROOTS: u64 = RAM;
const LEAVES: u64 = RAM + 2 * PAGE;
const DATA: u64 = 6;

/// An entry for a data page, or one outside the RAM; that one is writable, for where nothing is a device can only differ in what it looks at first.
fn target() -> impl Strategy<Value = u64> {
    (DATA..PAGES + 2, any::<bool>()).prop_map(|(page, write)| {
        let write = if write || page >= PAGES { WRITE } else { 0 };
        (RAM + page * PAGE) | VALID | write
    })
}

/// A job: ends at rest, and with nothing of its translations unflushed, so that what it reads doesn't depend on time.
fn job() -> impl Strategy<Value = Vec<Op>> {
    let tables = (
        0..2_u64,
        prop::collection::vec(
            (0..2_u64, 0..4_u64, prop_oneof![4 => target(), 1 => Just(0)]),
            0..8,
        ),
        any::<bool>(),
    );
    let device_address = || (0..5_u32, 0..4096_u32).prop_map(|(page, offset)| page * 4096 + offset);
    let far = prop_oneof![8 => device_address(), 1 => device_address().prop_map(|a| a + 64 * 4096), 1 => any::<u32>()];
    let copy = (
        device_address(),
        far,
        prop_oneof![6 => 1..9000_u32, 1 => any::<u32>()],
    );
    let data = (DATA..PAGES, 0..512_u64, any::<u64>());
    prop_oneof![
        2 => data.prop_map(|(page, word, value)| vec![Op::Store(RAM + page * PAGE + word * 8, value)]),
        1 => any::<u32>().prop_map(|v| vec![Op::Write(COPY, INTERRUPT, v.into()), Op::Write(COPY, ENABLE, (v >> 1).into()), Op::Write(COPY, INTERRUPT_FORCE, (v >> 2).into())]),
        1 => (0..2_u64).prop_map(|r| vec![Op::Write(MMU, TABLE, ROOTS + r * PAGE), Op::Read(MMU, TABLE), Op::Read(MMU, FLUSH)]),
        1 => any::<u32>().prop_map(|v| vec![Op::Write(MMU, FAULT, v.into()), Op::Read(MMU, FAULT_ADDRESS), Op::Read(COPY, ID)]),
        3 => tables.prop_map(|(root, entries, block)| {
            let mut ops = Vec::new();
            for (leaf, index, entry) in entries {
                ops.push(Op::Store(LEAVES + (root * 2 + leaf) * PAGE + index * 8, entry));
            }
            ops.push(Op::Store(ROOTS + root * PAGE, (LEAVES + root * 2 * PAGE) | VALID));
            let second = if block { (RAM + DATA * PAGE) | BLOCK | WRITE } else { LEAVES + (root * 2 + 1) * PAGE };
            ops.push(Op::Store(ROOTS + root * PAGE + 8, second | VALID));
            ops.extend([Op::Write(MMU, TABLE, (ROOTS + root * PAGE) | TRANSLATE), Op::Write(MMU, FLUSH, 1), Op::Read(MMU, TABLE)]);
            ops
        }),
        4 => copy.prop_map(|(from, to, length)| vec![
            // Only tables that were flushed may be in use: this doesn't test what is undefined.
            Op::Write(MMU, FLUSH, 1),
            Op::Write(COPY, INTERRUPT, 1), Op::Write(COPY, SOURCE, from.into()), Op::Write(COPY, DESTINATION, to.into()),
            Op::Write(COPY, LENGTH, length.into()), Op::Write(COPY, START, 1), Op::Idle, Op::Read(COPY, INTERRUPT),
            Op::Read(MMU, FAULT), Op::Read(MMU, FAULT_ADDRESS), Op::Read(COPY, SOURCE),
        ]),
    ]
}

/// The machine of a program that has it for itself: memory is where the device believes.
struct Alone(Vec<u8>);

impl Bus for Alone {
    fn read(&mut self, at: u64, into: &mut [u8], _: bool) -> bool {
        let from = at.checked_sub(RAM).map(|at| at as usize);
        let Some(bytes) = from.and_then(|at| self.0.get(at..at.checked_add(into.len())?)) else {
            return false;
        };
        into.copy_from_slice(bytes);
        true
    }
    fn write(&mut self, at: u64, data: &[u8]) -> bool {
        let to = at.checked_sub(RAM).map(|at| at as usize);
        let Some(bytes) = to.and_then(|at| self.0.get_mut(at..at.checked_add(data.len())?)) else {
            return false;
        };
        bytes.copy_from_slice(data);
        true
    }
}

/// What a program reads when it has the device for itself, its RAM at the end, and whether the line is asserted.
pub(super) fn alone(ops: &[Op]) -> (Vec<u64>, Vec<u8>, bool) {
    let mut device = model::Copier::new(Alone(vec![0; (PAGES * PAGE) as usize]));
    // As a new context is: nothing mapped. The first page is empty, so it can be the root.
    device.write(
        MMU,
        TABLE,
        Width::Double,
        (RAM + (PAGES - 1) * PAGE) | TRANSLATE,
    );
    device.write(MMU, FLUSH, Width::Word, 1);
    device.write(MMU, TABLE, Width::Double, 0);
    let mut seen = Vec::new();
    for op in ops {
        match *op {
            Op::Read(window, offset) => {
                seen.push(device.read(window, offset, width(window, offset)))
            }
            Op::Write(window, offset, value) => {
                device.write(window, offset, width(window, offset), value)
            }
            Op::Store(at, word) => assert!(device.bus().write(at, &word.to_le_bytes())),
            Op::Idle => while device.read(COPY, STATUS, Width::Word) != 0 {},
        }
    }
    let line = device.line();
    (seen, core::mem::take(&mut device.bus().0), line)
}

/// One operation of a program that shares; `false`: it has to wait.
pub(super) fn perform(rig: &mut Rig, who: usize, op: Op, seen: &mut Vec<u64>) -> bool {
    let access = |window, offset, operation| Access {
        window,
        offset,
        width: width(window, offset),
        operation,
    };
    let access = match op {
        Op::Read(window, offset) => access(window, offset, Operation::Read),
        Op::Write(window, offset, value) => access(window, offset, Operation::Write(value)),
        Op::Idle => access(COPY, STATUS, Operation::Read),
        Op::Store(at, word) => {
            rig.world.store(who, at, word);
            return true;
        }
    };
    let verdict = rig.access(who, &access);
    let (Verdict::Value(value) | Verdict::Queued(value)) = verdict else {
        panic!("{op:?}: {verdict:?}");
    };
    match op {
        Op::Idle => return value == 0,
        Op::Read(..) => seen.push(value),
        _ => {}
    }
    true
}

proptest! {
    /// Sharing changes nothing that a domain sees, whenever the switches come.
    #[test]
    fn shared_looks_like_alone(
        jobs in prop::array::uniform2(prop::collection::vec(job(), 0..14)),
        schedule in prop::collection::vec((0..2_usize, 0..16_u64), 1..200),
    ) {
        // With bypass, which a shared device doesn't have, a copy alone would go elsewhere.
        let programs = jobs.map(|jobs| {
            let mut on = false;
            let mut ops = Vec::new();
            for op in jobs.concat() {
                match op {
                    Op::Write(MMU, TABLE, value) => on = value & TRANSLATE != 0,
                    Op::Write(MMU, FLUSH, _) if !on => continue,
                    _ => {}
                }
                ops.push(op);
            }
            ops
        });
        let mut rig = Rig::new();
        let (mut at, mut seen) = ([0, 0], [Vec::new(), Vec::new()]);
        let mut waits = 0;
        for (steps, (who, dice)) in schedule.into_iter().cycle().enumerate() {
            prop_assert!(steps < 100_000, "waits for ever: {at:?} of {programs:?}");
            if (0..2).all(|i| at[i] == programs[i].len()) {
                break;
            }
            let who = if at[who] < programs[who].len() { who } else { 1 - who };
            if dice == 0 || waits > 30 {
                rig.put_in(who);
                waits = 0;
            }
            if perform(&mut rig, who, programs[who][at[who]], &mut seen[who]) {
                at[who] += 1;
            } else {
                rig.device.advance(Duration::from_nanos(dice * 300));
                waits += 1;
            }
        }
        rig.take_out();
        for i in 0..2 {
            let (expected, ram, line) = alone(&programs[i]);
            prop_assert_eq!(&seen[i], &expected, "domain {}: {:?}", i, programs[i]);
            prop_assert!(rig.world.ram(i) == ram, "domain {}'s memory: {:?}", i, programs[i]);
            prop_assert_eq!(rig.driver.interrupt_pending(id(i), 0, None), line);
        }
        prop_assert_eq!(rig.world.violations(), Vec::<alloc::string::String>::new());
    }
}

#[test]
fn it_confines_itself_and_is_shared_only_then() {
    let description = Copier::new().description();
    assert_eq!(description.confinement(false), Ok(Confinement::Own));
    assert_eq!(description.confinement(true), Err(Unconfined::Twice));
    let greedy = coproc_core::driver::Description {
        save_area: 4096,
        ..*description
    };
    assert_eq!(greedy.confinement(false), Err(Unconfined::SaveArea));
    let plain = super::super::accumulator::Accumulator::new();
    let plain = plain.description();
    assert_eq!(plain.confinement(true), Ok(Confinement::Iommu));
    assert_eq!(plain.confinement(false), Ok(Confinement::NoDma));
    let master = coproc_core::driver::Description {
        streams: 1,
        ..*plain
    };
    assert_eq!(master.confinement(true), Ok(Confinement::Iommu));
    assert_eq!(master.confinement(false), Err(Unconfined::Nothing));
}

#[test]
fn without_memory_there_is_no_device_and_no_context() {
    let world = Shared::new();
    let mut device = model::Copier::new(world.clone());
    let mut driver = Copier::new();
    assert_eq!(driver.probe(&mut device), Err(DriverError::Unconnected));
    assert_eq!(driver.create(id(0)), Err(DriverError::Unconnected));
    driver.connect(world.memory());
    driver.probe(&mut device).unwrap();
    let empty = world.tables();
    for left in 0..2 {
        world.0.lock().unwrap().tables_left = Some(left);
        assert_eq!(driver.create(id(0)), Err(DriverError::OutOfMemory));
        assert_eq!(world.tables(), empty, "nothing is left behind");
    }
    world.0.lock().unwrap().tables_left = None;
    driver.create(id(0)).unwrap();
    assert_eq!(driver.create(id(0)), Err(DriverError::Duplicate(id(0))));
    driver.destroy(id(0));
    assert_eq!(world.tables(), empty);
}

#[test]
fn tables_that_are_in_the_device_are_not_freed() {
    let mut rig = Rig::new();
    let all = rig.world.tables();
    rig.put_in(0);
    // The device was given up with the context in it.
    rig.driver.destroy(id(0));
    rig.driver.destroy(id(1));
    let sets = (all - 1) / 4;
    assert_eq!(rig.world.tables(), 1 + sets, "one set and the empty root");
}
