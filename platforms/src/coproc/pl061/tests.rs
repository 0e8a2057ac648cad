//! The driver against the model of the device.

use alloc::vec::Vec;

use coproc_core::driver::{Driver, Hardware, Step, Verdict};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width, Width::Word};
use coproc_core::time::Duration;
use proptest::prelude::*;

use super::Pl061;
use super::model::Pl061 as Model;
use super::offset::*;

fn id(i: usize) -> VcoprocId {
    VcoprocId(i as u32)
}

/// Device and driver, and the framework's order of calls.
struct Rig {
    driver: Pl061,
    device: Model,
    current: Option<usize>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            driver: Pl061::new(),
            device: Model::default(),
            current: None,
        };
        rig.driver.probe(&mut rig.device).unwrap();
        for i in 0..2 {
            rig.driver.create(id(i)).unwrap();
        }
        rig
    }

    fn run(&mut self, limit: Duration, step: impl Fn(&mut Pl061, &mut dyn Hardware) -> Step) {
        let start = self.device.now();
        assert_eq!(step(&mut self.driver, &mut self.device), Step::Done);
        assert!(self.device.now().since(start) <= limit, "as declared");
    }

    fn take_out(&mut self) {
        let Some(i) = self.current.take() else { return };
        let declared = self.driver.description().worst_case;
        self.run(declared.refusal, |d, h| d.quiet(id(i), h));
        self.run(declared.stop, |d, h| d.drain(id(i), h));
        assert!(!self.device.line());
        self.run(declared.save, |d, h| d.save(id(i), h, None));
        self.run(declared.save, |d, h| d.scrub(id(i), h));
        assert_eq!(self.device.driven(), 0);
        for offset in [DIRECTION, SENSE, BOTH, EVENT, ENABLE, FUNCTION] {
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
        assert!(!self.driver.has_work(id(i)));
    }

    fn access(&mut self, i: usize, offset: u64, width: Width, operation: Operation) -> Verdict {
        let access = Access {
            window: 0,
            offset,
            width,
            operation,
        };
        let current = self.current == Some(i);
        // What the framework maps is the device's own.
        if current && self.driver.shows_all(id(i)) {
            return Verdict::Value(match operation {
                Operation::Read => self.device.read(0, offset, width),
                Operation::Write(value) => {
                    self.device.write(0, offset, width, value);
                    0
                }
            });
        }
        let hardware = current.then_some(&mut self.device as &mut dyn Hardware);
        self.driver.access(id(i), &access, hardware)
    }

    fn read(&mut self, i: usize, offset: u64) -> u64 {
        match self.access(i, offset, Word, Operation::Read) {
            Verdict::Value(value) => value,
            other => panic!("{offset:#x}: {other:?}"),
        }
    }

    fn write(&mut self, i: usize, offset: u64, value: u64) {
        let verdict = self.access(i, offset, Word, Operation::Write(value));
        // A write while away is to be seen on the pins; what was an edge is over at once.
        let wants = self.current != Some(i) && offset != CLEAR;
        let queued = matches!(verdict, Verdict::Queued(0));
        assert!(queued || verdict == Verdict::Value(0), "{offset:#x}");
        assert!(queued || !wants, "{offset:#x}");
        assert!(!wants || self.driver.has_work(id(i)));
    }

    fn pending(&mut self, i: usize) -> bool {
        let current = self.current == Some(i);
        let hardware = current.then_some(&mut self.device as &mut dyn Hardware);
        self.driver.interrupt_pending(id(i), 0, hardware)
    }
}

/// What a program does to the device.
#[derive(Clone, Copy, Debug)]
enum Op {
    Read(u64, Width),
    Write(u64, Width, u64),
}

fn op() -> impl Strategy<Value = Op> {
    let registers = [
        DIRECTION, SENSE, BOTH, EVENT, ENABLE, RAW, MASKED, CLEAR, FUNCTION, PERIPHERAL, CELL,
        0x424, 0x800,
    ];
    let offset = prop_oneof![
        2 => (0..=0xff_u64).prop_map(|bits| bits << 2),
        1 => Just(DATA),
        5 => proptest::sample::select(registers.to_vec()),
    ];
    let width = prop_oneof![3 => Just(Word), 1 => Just(Width::Byte)];
    (offset, width, any::<bool>(), any::<u8>()).prop_map(|(offset, width, write, value)| {
        if write {
            Op::Write(offset, width, value.into())
        } else {
            Op::Read(offset, width)
        }
    })
}

/// What a program sees when it has the device for itself, what its pins are then, and whether the line is asserted.
fn alone(ops: &[Op], board: u8) -> (Vec<u64>, u8, bool) {
    let mut device = Model::default();
    device.drive(board);
    device.write(0, CLEAR, Word, 0xff);
    let mut seen = Vec::new();
    for op in ops {
        match *op {
            Op::Read(offset, width) => seen.push(device.read(0, offset, width)),
            Op::Write(offset, width, value) => device.write(0, offset, width, value),
        }
    }
    (seen, device.driven(), device.line())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Sharing changes nothing that a domain sees, whenever the switches come.
    #[test]
    fn shared_looks_like_alone(
        programs in prop::array::uniform2(prop::collection::vec(op(), 0..40)),
        schedule in prop::collection::vec((0..2_usize, 0..8_u64), 1..120),
    ) {
        let mut rig = Rig::new();
        let (mut at, mut seen) = ([0, 0], [Vec::new(), Vec::new()]);
        for (who, dice) in schedule.into_iter().cycle() {
            if (0..2).all(|i| at[i] == programs[i].len()) {
                break;
            }
            let who = if at[who] < programs[who].len() { who } else { 1 - who };
            if dice == 0 {
                rig.put_in(who);
            }
            let (verdict, read) = match programs[who][at[who]] {
                Op::Read(offset, width) => (rig.access(who, offset, width, Operation::Read), true),
                Op::Write(offset, width, value) => (rig.access(who, offset, width, Operation::Write(value)), false),
            };
            let (Verdict::Value(value) | Verdict::Queued(value)) = verdict else { panic!("{verdict:?}") };
            if read {
                seen[who].push(value);
            }
            at[who] += 1;
        }
        for i in 0..2 {
            let (expected, driven, line) = alone(&programs[i], 0);
            prop_assert_eq!(&seen[i], &expected, "domain {}: {:?}", i, programs[i]);
            prop_assert_eq!(rig.pending(i), line);
            rig.put_in(i);
            prop_assert_eq!(rig.device.driven(), driven);
            prop_assert_eq!(rig.pending(i), line);
        }
    }

    /// Any access has an answer, whoever has the device.
    #[test]
    fn hostile_accesses_do_no_harm(accesses in prop::collection::vec((0..2_usize, any::<u64>(), 0..4_u32, any::<Option<u64>>(), any::<bool>()), 0..60)) {
        let mut rig = Rig::new();
        for (who, offset, width, value, switch) in accesses {
            if switch {
                rig.put_in(who);
            }
            let width = [Width::Byte, Width::Half, Word, Width::Double][width as usize];
            let operation = value.map_or(Operation::Read, Operation::Write);
            for offset in [offset, offset & 0xfff] {
                let access = Access { window: 0, offset, width, operation };
                let hardware = (rig.current == Some(who)).then_some(&mut rig.device as &mut dyn Hardware);
                let _ = rig.driver.access(id(who), &access, hardware);
            }
        }
        rig.take_out();
    }
}

/// An edge that a switch found stays until it's cleared: while away, and back in the device, which knows nothing of it.
#[test]
fn an_edge_is_held_until_it_is_cleared() {
    let mut rig = Rig::new();
    rig.put_in(0);
    for (offset, value) in [(EVENT, 0x0f), (ENABLE, 0x03)] {
        rig.write(0, offset, value);
    }
    rig.device.drive(0x07);
    assert_eq!((rig.read(0, RAW), rig.read(0, MASKED)), (0x07, 0x03));
    assert!(rig.driver.shows_all(id(0)) && rig.pending(0));
    rig.put_in(1);
    assert!(rig.pending(0) && !rig.pending(1));
    assert_eq!(rig.read(1, RAW), 0, "the other one's edges");
    assert_eq!((rig.read(0, RAW), rig.read(0, MASKED)), (0x07, 0x03));
    rig.write(0, CLEAR, 1);
    rig.put_in(0);
    assert!(!rig.driver.shows_all(id(0)) && rig.pending(0));
    assert_eq!((rig.read(0, RAW), rig.read(0, MASKED)), (0x06, 0x02));
    // One that comes now is the device's own, and seen with it.
    rig.device.drive(0x0f);
    assert_eq!((rig.read(0, RAW), rig.read(0, MASKED)), (0x0e, 0x02));
    rig.write(0, ENABLE, 0x04);
    assert_eq!(rig.read(0, MASKED), 0x04);
    rig.write(0, CLEAR, 0x06);
    assert!(
        rig.driver.shows_all(id(0)),
        "the window may be mapped again"
    );
    assert!(!rig.pending(0));
    assert_eq!(rig.read(0, RAW), 0x08);
}

/// A level is the truth of the moment, wherever its owner is.
#[test]
fn a_level_follows_its_pin() {
    let mut rig = Rig::new();
    rig.put_in(0);
    for (offset, value) in [
        (DIRECTION, 1),
        (SENSE, 1),
        (EVENT, 1),
        (ENABLE, 1),
        (DATA, 1),
    ] {
        rig.write(0, offset, value);
    }
    assert!(rig.device.line() && rig.pending(0));
    rig.put_in(1);
    assert!(!rig.device.line() && rig.pending(0) && !rig.pending(1));
    rig.write(0, CLEAR, 1);
    assert!(rig.pending(0), "a level can't be cleared");
    rig.write(0, 0x004, 0);
    assert!(!rig.pending(0));
    rig.write(0, 0x004, 1);
    rig.put_in(0);
    assert!(rig.device.line() && rig.pending(0) && rig.driver.shows_all(id(0)));
}

/// The address says which bits are meant, away as in the device.
#[test]
fn data_is_addressed_bit_by_bit() {
    let mut rig = Rig::new();
    for current in [0, 1] {
        rig.put_in(current);
        rig.write(0, DIRECTION, 0xf0);
        rig.write(0, DATA, 0);
        rig.write(0, 0x0aa << 2, 0xff);
        assert_eq!(rig.read(0, DATA), 0xa0, "inputs take none");
        rig.write(0, 0x080 << 2, 0);
        assert_eq!((rig.read(0, DATA), rig.read(0, 0)), (0x20, 0));
        assert_eq!(
            (rig.read(0, 0x020 << 2), rig.read(0, 0x0c0 << 2)),
            (0x20, 0)
        );
    }
}

#[test]
fn another_device_is_refused() {
    struct Other;
    impl Hardware for Other {
        fn read(&mut self, _: usize, offset: u64, _: Width) -> u64 {
            if offset == PERIPHERAL { 0x31 } else { 0x10 }
        }
        fn write(&mut self, _: usize, _: u64, _: Width, _: u64) {}
        fn now(&self) -> coproc_core::time::Instant {
            coproc_core::time::Instant::from_nanos(0)
        }
    }
    let error = Pl061::new().probe(&mut Other).unwrap_err();
    assert!(std::format!("{error}").contains("GPIOPeriphID0"), "{error}");
}
