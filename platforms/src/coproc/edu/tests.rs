//! The driver against the model, switched as the framework switches.
//!
//! The main test is a comparison: the same program run alone on a bare device and run beside another domain's under
//! switches at arbitrary moments must see the same. The others aim at single corners.

use alloc::vec;
use alloc::vec::Vec;

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{Driver, DriverError, Hardware, SAVE_AREA, Step, Verdict};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};
use proptest::prelude::*;

use super::Edu;
use super::model::{Bus, Edu as Device};
use super::registers::*;

const RAM: u64 = 0x8000_0000;
const RAM_SIZE: usize = 0x4000;
const DOMAINS: usize = 3;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Target {
    Abort,
    Save(usize),
    Domain(usize),
}

/// Memory behind an IOMMU.
struct Spaces {
    target: Target,
    ram: Vec<Vec<u8>>,
    areas: Vec<Vec<u8>>,
}

impl Spaces {
    fn new(target: Target) -> Self {
        let ram = |i| (0..RAM_SIZE).map(|k| (k * 7 + k / 256 + i) as u8).collect();
        Self {
            target,
            ram: (0..DOMAINS).map(ram).collect(),
            areas: vec![vec![0; BUFFER_SIZE as usize]; DOMAINS],
        }
    }

    fn find(&mut self, address: DeviceAddress, length: usize) -> Option<&mut [u8]> {
        let (base, memory) = match self.target {
            Target::Abort => return None,
            Target::Save(i) => (SAVE_AREA.get(), &mut self.areas[i]),
            Target::Domain(i) => (RAM, &mut self.ram[i]),
        };
        let start = usize::try_from(address.get().checked_sub(base)?).ok()?;
        memory.get_mut(start..start.checked_add(length)?)
    }
}

impl Bus for Spaces {
    fn read(&mut self, address: DeviceAddress, into: &mut [u8]) -> bool {
        let found = self.find(address, into.len());
        found.map(|from| into.copy_from_slice(from)).is_some()
    }

    fn write(&mut self, address: DeviceAddress, from: &[u8]) -> bool {
        let found = self.find(address, from.len());
        found.map(|into| into.copy_from_slice(from)).is_some()
    }
}

fn id(i: usize) -> VcoprocId {
    VcoprocId(i as u32)
}

/// Device and driver, and the framework's order of calls.
struct Rig {
    device: Device<Spaces>,
    driver: Edu,
    current: Option<usize>,
    refusals: u32,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self {
            device: Device::new(Spaces::new(Target::Abort)),
            driver: Edu::new(),
            current: None,
            refusals: 0,
        };
        rig.driver.probe(&mut rig.device).unwrap();
        for i in 0..DOMAINS {
            rig.driver.create(id(i)).unwrap();
        }
        rig
    }

    /// Runs a step to its end; the time that it took.
    fn run(&mut self, step: impl Fn(&mut Edu, &mut dyn Hardware) -> Step) -> (u32, Duration) {
        let start = self.device.now();
        for agains in 0..100_000 {
            match step(&mut self.driver, &mut self.device) {
                Step::Done => return (agains, self.device.now().since(start)),
                Step::Again(after) => {
                    assert!(after > Duration::ZERO);
                    self.device.advance(after);
                }
                Step::Failed(why) => panic!("{why}"),
            }
        }
        panic!("never done");
    }

    fn take_out(&mut self, save: bool) {
        let Some(i) = self.current.take() else { return };
        self.refusals += self.run(|d, h| d.quiet(id(i), h)).0;
        self.run(|d, h| d.drain(id(i), h));
        assert!(!self.device.line(), "line after drain");
        if save {
            self.device.bus.target = Target::Save(i);
            let took = self
                .run(|d, h| d.save(id(i), h, Some(SAVE_AREA)))
                .1
                .as_micros();
            assert!(took <= Edu::new().description().worst_case.save.as_micros());
            self.run(|d, h| d.scrub(id(i), h));
        }
        self.device.bus.target = Target::Abort;
    }

    fn put_in(&mut self, i: usize) {
        self.device.bus.target = Target::Save(i);
        let rises = self.device.line_rises;
        let took = self
            .run(|d, h| d.restore(id(i), h, Some(SAVE_AREA)))
            .1
            .as_micros();
        assert!(took <= Edu::new().description().worst_case.restore.as_micros());
        assert_eq!(self.device.line_rises, rises, "a restore is silent");
        self.device.bus.target = Target::Domain(i);
        assert_eq!(
            self.run(|d, h| d.replay(id(i), h)).0,
            0,
            "replay is one call"
        );
        self.current = Some(i);
    }

    fn switch(&mut self, to: usize) {
        self.take_out(true);
        self.put_in(to);
    }

    fn access(&mut self, i: usize, offset: u64, width: Width, operation: Operation) -> Verdict {
        let access = Access {
            window: 0,
            offset,
            width,
            operation,
        };
        if self.current == Some(i) {
            self.driver.access(id(i), &access, Some(&mut self.device))
        } else {
            self.driver.access(id(i), &access, None)
        }
    }

    fn read(&mut self, i: usize, offset: u64) -> u64 {
        match self.access(i, offset, width_of(offset), Operation::Read) {
            Verdict::Value(value) => value,
            other => panic!("read of {offset:#x}: {other:?}"),
        }
    }

    fn write(&mut self, i: usize, offset: u64, value: u64) -> Verdict {
        self.access(i, offset, width_of(offset), Operation::Write(value))
    }

    fn dma(&mut self, i: usize, source: u64, destination: u64, count: u64, command: u64) {
        self.write(i, DMA_SOURCE, source);
        self.write(i, DMA_DESTINATION, destination);
        self.write(i, DMA_COUNT, count);
        assert_ne!(self.write(i, DMA_COMMAND, command), Verdict::Fault);
    }

    fn wait(&mut self) {
        self.device.advance(Duration::from_millis(101));
    }
}

fn width_of(offset: u64) -> Width {
    if offset < FIRST_WIDE {
        Width::Word
    } else {
        Width::Double
    }
}

/// What a program does to the device, one access at a time.
#[derive(Clone, Copy, Debug)]
enum Op {
    Read(u64, Width, u64),
    Write(u64, Width, u64),
    /// Wait until these bits are as told.
    Until(u64, u64, bool),
}

/// A whole job: every one ends with the device quiet, so what it reads doesn't depend on time.
#[derive(Clone, Debug)]
enum Job {
    Factorial(u32, bool),
    Dma {
        to_memory: bool,
        ram: u64,
        buffer: u64,
        count: u64,
        interrupt: bool,
        narrow: bool,
    },
    Liveness(u32),
    Raise(u32),
    Acknowledge(u32),
    Look(u64),
}

fn compile(jobs: &[Job]) -> Vec<Op> {
    use Width::{Double, Word};
    let all = u64::MAX;
    let mut ops = Vec::new();
    for job in jobs.iter().cloned() {
        match job {
            Job::Factorial(n, interrupt) => {
                let irqfact = if interrupt { STATUS_IRQFACT } else { 0 };
                ops.push(Op::Write(STATUS, Word, irqfact));
                ops.push(Op::Write(FACTORIAL, Word, n.into()));
                ops.push(Op::Until(STATUS, STATUS_COMPUTING, false));
                if interrupt {
                    ops.push(Op::Until(INTERRUPT_STATUS, INTERRUPT_FACTORIAL, true));
                    ops.push(Op::Read(INTERRUPT_STATUS, Word, all));
                    ops.push(Op::Write(ACKNOWLEDGE, Word, INTERRUPT_FACTORIAL));
                }
                ops.push(Op::Read(FACTORIAL, Word, all));
                ops.push(Op::Read(STATUS, Word, all));
            }
            Job::Dma {
                to_memory,
                ram,
                buffer,
                count,
                interrupt,
                narrow,
            } => {
                let (outer, inner) = (RAM + ram, BUFFER + buffer);
                let (source, destination, direction) = if to_memory {
                    (inner, outer, DMA_TO_MEMORY)
                } else {
                    (outer, inner, 0)
                };
                let width = if narrow { Word } else { Double };
                let irq = if interrupt { DMA_INTERRUPT } else { 0 };
                ops.push(Op::Write(DMA_SOURCE, width, source));
                ops.push(Op::Write(DMA_DESTINATION, width, destination));
                ops.push(Op::Write(DMA_COUNT, width, count));
                ops.push(Op::Write(DMA_COMMAND, width, DMA_RUN | direction | irq));
                ops.push(Op::Until(DMA_COMMAND, DMA_RUN, false));
                if interrupt {
                    ops.push(Op::Until(INTERRUPT_STATUS, INTERRUPT_DMA, true));
                    ops.push(Op::Read(INTERRUPT_STATUS, Word, all));
                    ops.push(Op::Write(ACKNOWLEDGE, Word, INTERRUPT_DMA));
                }
                ops.push(Op::Read(DMA_SOURCE, width, all));
                ops.push(Op::Read(DMA_COUNT, Double, all));
            }
            Job::Liveness(value) => ops.push(Op::Write(LIVENESS, Word, value.into())),
            Job::Raise(value) => ops.push(Op::Write(RAISE, Word, value.into())),
            Job::Acknowledge(value) => ops.push(Op::Write(ACKNOWLEDGE, Word, value.into())),
            Job::Look(offset) => {
                ops.push(Op::Read(offset, Word, all));
                // Only "run" of the command is context.
                let mask = if offset == DMA_COMMAND { DMA_RUN } else { all };
                if let Some(Op::Read(.., last)) = ops.last_mut() {
                    *last = mask;
                }
                if offset % 8 == 0 {
                    ops.push(Op::Read(offset, Double, mask));
                }
            }
        }
    }
    ops
}

/// A program under way.
struct Program {
    ops: Vec<Op>,
    at: usize,
    seen: Vec<u64>,
}

impl Program {
    fn new(jobs: &[Job]) -> Self {
        Self {
            ops: compile(jobs),
            at: 0,
            seen: Vec::new(),
        }
    }

    fn done(&self) -> bool {
        self.at >= self.ops.len()
    }

    /// Does one operation; `false` if it has to wait.
    fn step(&mut self, mut access: impl FnMut(u64, Width, Operation) -> u64) -> bool {
        let Some(&op) = self.ops.get(self.at) else {
            return false;
        };
        match op {
            Op::Read(offset, width, mask) => {
                let value = access(offset, width, Operation::Read);
                self.seen.push(value & mask);
            }
            Op::Write(offset, width, value) => {
                access(offset, width, Operation::Write(value));
            }
            Op::Until(offset, bits, set) => {
                let value = access(offset, width_of(offset), Operation::Read);
                if (value & bits != 0) != set {
                    return false;
                }
            }
        }
        self.at += 1;
        true
    }
}

fn on_device(device: &mut Device<Spaces>, offset: u64, width: Width, operation: Operation) -> u64 {
    match operation {
        Operation::Read => device.read(0, offset, width),
        Operation::Write(value) => {
            device.write(0, offset, width, value);
            0
        }
    }
}

/// What the program sees when it has the device for itself: reads, RAM, interrupt line at the end.
fn alone(i: usize, jobs: &[Job]) -> (Vec<u64>, Vec<u8>, bool) {
    let mut device = Device::new(Spaces::new(Target::Domain(i)));
    let mut program = Program::new(jobs);
    while !program.done() {
        if !program.step(|o, w, op| on_device(&mut device, o, w, op)) {
            device.advance(Duration::from_micros(437));
        }
    }
    let ram = device.bus.ram[i].clone();
    (program.seen, ram, device.line())
}

fn job() -> impl Strategy<Value = Job> {
    const LOOKS: &[u64] = &[
        ID,
        LIVENESS,
        FACTORIAL,
        STATUS,
        INTERRUPT_STATUS,
        RAISE,
        ACKNOWLEDGE,
        DMA_SOURCE,
        DMA_DESTINATION,
        DMA_COUNT,
        DMA_COMMAND,
        0x0c,
        0x84,
        0xa0,
        0xf_fff8,
    ];
    let dma = (
        any::<bool>(),
        0..0x2000_u64,
        0..4096_u64,
        0..=4096_u64,
        any::<bool>(),
        any::<bool>(),
    );
    // The two bits that the device raises itself stay out of hand-raised ones, else waiting for them is no wait.
    let bits = any::<u32>().prop_map(|bits| bits & !0x101);
    prop_oneof![
        3 => (prop_oneof![0..40_u32, 0..3_000_000_u32], any::<bool>()).prop_map(|(n, i)| Job::Factorial(n, i)),
        4 => dma.prop_map(|(to_memory, ram, buffer, count, interrupt, narrow)| Job::Dma {
            to_memory, ram, buffer, count: count.min(4096 - buffer), interrupt, narrow,
        }),
        1 => any::<u32>().prop_map(Job::Liveness),
        1 => bits.clone().prop_map(Job::Raise),
        1 => bits.prop_map(Job::Acknowledge),
        3 => proptest::sample::select(LOOKS).prop_map(Job::Look),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Sharing changes nothing that a domain sees, whenever the switches come.
    #[test]
    fn shared_looks_like_alone(
        jobs in prop::array::uniform2(prop::collection::vec(job(), 0..14)),
        schedule in prop::collection::vec((0..2_usize, 0..12_u8), 1..200),
    ) {
        let mut rig = Rig::new();
        let mut programs = [Program::new(&jobs[0]), Program::new(&jobs[1])];
        let mut schedule = schedule.into_iter().cycle();
        let mut stuck = 0;
        while !programs.iter().all(Program::done) {
            let (who, dice) = schedule.next().unwrap();
            let who = if programs[who].done() { 1 - who } else { who };
            if dice == 0 || stuck > 20 {
                rig.switch(if stuck > 20 { rig.current.map_or(0, |c| 1 - c) } else { who });
                stuck = 0;
            }
            let went_on = programs[who].step(|offset, width, operation| {
                match rig.access(who, offset, width, operation) {
                    Verdict::Value(value) | Verdict::Queued(value) => value,
                    other => panic!("{offset:#x} {width:?} {operation:?}: {other:?}"),
                }
            });
            if went_on {
                stuck = 0;
            } else {
                stuck += 1;
                rig.device.advance(Duration::from_micros(u64::from(dice) * 700));
            }
        }
        rig.take_out(true);
        prop_assert!(!rig.device.crashed);
        prop_assert_eq!(rig.device.refused_transfers, 0);
        for (i, program) in programs.iter().enumerate() {
            let (seen, ram, line) = alone(i, &jobs[i]);
            prop_assert_eq!(&program.seen, &seen, "domain {}", i);
            prop_assert!(rig.device.bus.ram[i] == ram, "memory of domain {}", i);
            prop_assert_eq!(rig.driver.interrupt_pending(id(i), 0, None), line);
        }
    }

    /// An emulated register is the device's register, whatever the access; doorbells included, on a device whose work never ends.
    #[test]
    fn emulation_is_the_device(accesses in prop::collection::vec(any_access(), 1..60)) {
        let mut rig = Rig::new();
        let mut device = Device::new(Spaces::new(Target::Abort));
        device.timing.computing = |_| Duration::MAX;
        device.timing.dma = Duration::MAX;
        device.timing.access = Duration::ZERO;
        for Access { offset, width, operation, .. } in accesses {
            let verdict = rig.access(0, offset, width, operation);
            let bad_shape = width < Width::Word || offset % width.bytes() != 0
                || offset + width.bytes() > WINDOW_SIZE;
            if bad_shape {
                prop_assert_eq!(verdict, Verdict::Fault);
                continue;
            }
            if let (DMA_COMMAND, Operation::Write(value)) = (offset, operation) {
                let mut get = |offset| device.read(0, offset, Width::Double);
                let idle = get(DMA_COMMAND) & 1 == 0;
                let inner = get(if value & 2 != 0 { DMA_SOURCE } else { DMA_DESTINATION });
                let end = u128::from(inner) + u128::from(get(DMA_COUNT));
                if idle && value & 1 != 0 && (inner < 0x40000 || end > 0x41000) {
                    prop_assert_eq!(verdict, Verdict::Fault);
                    continue;
                }
            }
            let value = on_device(&mut device, offset, width, operation);
            match (operation, verdict) {
                (Operation::Read, verdict) => prop_assert_eq!(verdict, Verdict::Value(value)),
                (Operation::Write(_), Verdict::Value(_) | Verdict::Queued(_)) => {}
                (_, other) => prop_assert!(false, "{:?}", other),
            }
            prop_assert_eq!(rig.driver.interrupt_pending(id(0), 0, None), device.line());
            let works = device.read(0, STATUS, Width::Word) & 1 != 0
                || device.read(0, DMA_COMMAND, Width::Double) & 1 != 0;
            prop_assert_eq!(rig.driver.has_work(id(0)), works);
        }
    }

    /// With the window trapped nothing that a domain does, at any moment of a switch, crashes the device, breaks the
    /// switch or panics.
    #[test]
    fn hostile_accesses_do_no_harm(
        steps in prop::collection::vec((any_access(), 0..40_u8, any::<bool>(), 0..2_usize), 1..300),
    ) {
        let mut rig = Rig::new();
        rig.device.timing.computing = |n| Duration::from_micros(u64::from(n % 3000));
        rig.put_in(0);
        let mut next = 1;
        // Where in the switch: 0 none, then quiet, drain, save, restore.
        let mut state = 0;
        for (access, dice, give, who) in steps {
            if state == 0 && dice > 30 {
                state = 1;
            }
            if state > 0 && dice % 2 == 0 {
                let out = 1 - next;
                let (driver, device) = (&mut rig.driver, &mut rig.device);
                device.bus.target = match state {
                    3 => Target::Save(out),
                    4 => Target::Save(next),
                    _ => Target::Abort,
                };
                let step = match state {
                    1 => driver.quiet(id(out), device),
                    2 => driver.drain(id(out), device),
                    3 => driver.save(id(out), device, Some(SAVE_AREA)),
                    _ => driver.restore(id(next), device, Some(SAVE_AREA)),
                };
                match step {
                    Step::Again(after) => device.advance(after),
                    Step::Failed(why) => prop_assert!(false, "{} in {}", why, state),
                    Step::Done if state == 4 => {
                        device.bus.target = Target::Domain(next);
                        prop_assert_eq!(driver.replay(id(next), device), Step::Done);
                        next = out;
                        state = 0;
                    }
                    Step::Done => state += 1,
                }
            }
            // The one that is not (any more) on the device gets no hardware; the one that leaves may or may not.
            let on_device = who == 1 - next && state < 2;
            let given = on_device && (give || state == 0);
            let hardware = if given { Some(&mut rig.device as &mut dyn Hardware) } else { None };
            rig.driver.access(id(who), &access, hardware);
            prop_assert!(!rig.device.crashed);
        }
        rig.device.advance(Duration::from_secs(20));
        prop_assert!(!rig.device.crashed);
    }

    /// An interrupt whose computation is over but which the device has yet to raise reaches its own domain, and no other, however
    /// late it comes and at whatever moment the switch begins.
    #[test]
    fn late_interrupts_reach_their_owner(
        check in 0..90_000_u64, raise in 0..5_000_000_u64, lead in 0..400_000_u64, irqfact: bool,
    ) {
        let mut rig = Rig::new();
        rig.device.timing.check = Duration::from_nanos(check);
        rig.device.timing.raise = Duration::from_nanos(raise);
        rig.put_in(0);
        rig.write(0, STATUS, if irqfact { STATUS_IRQFACT } else { 0 });
        rig.write(0, FACTORIAL, 5);
        rig.device.advance(Duration::from_nanos(lead));
        let rises = rig.device.line_rises;
        rig.take_out(true);
        let own = rig.device.line_rises - rises;
        prop_assert!(own <= 1);
        prop_assert_eq!(rig.driver.interrupt_pending(id(0), 0, None), irqfact);
        let rises = rig.device.line_rises;
        rig.put_in(1);
        rig.device.advance(Duration::from_millis(20));
        prop_assert_eq!(rig.device.line_rises, rises, "the other domain got an interrupt");
        prop_assert_eq!(rig.read(1, INTERRUPT_STATUS), 0);
        rig.switch(0);
        prop_assert_eq!(rig.device.line(), irqfact);
        prop_assert_eq!(rig.read(0, FACTORIAL), 120);
    }
}

fn any_access() -> impl Strategy<Value = Access> {
    let known = proptest::sample::select(
        &[
            ID,
            LIVENESS,
            FACTORIAL,
            STATUS,
            INTERRUPT_STATUS,
            RAISE,
            ACKNOWLEDGE,
            DMA_SOURCE,
            DMA_DESTINATION,
            DMA_COUNT,
            DMA_COMMAND,
        ][..],
    );
    let offset = prop_oneof![8 => known, 1 => 0..0x100_u64, 1 => 0..WINDOW_SIZE];
    let width = prop_oneof![
        4 => Just(Width::Word), 4 => Just(Width::Double), 1 => Just(Width::Half), 1 => Just(Width::Byte),
    ];
    let value = prop_oneof![
        2 => 0..8_u64, 2 => (BUFFER - 2)..(BUFFER + 4), 1 => BUFFER..=(BUFFER + BUFFER_SIZE),
        1 => 0..=4097_u64, 1 => any::<u64>(), 1 => Just(STATUS_IRQFACT),
    ];
    (offset, width, proptest::option::of(value)).prop_map(|(offset, width, value)| Access {
        window: 0,
        offset,
        width,
        operation: match value {
            Some(value) => Operation::Write(value & width.mask()),
            None => Operation::Read,
        },
    })
}

#[test]
fn no_byte_of_a_secret_reaches_another() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.device.bus.ram[0][..4096].fill(0xa5);
    rig.dma(0, RAM, BUFFER, 4096, DMA_RUN);
    rig.write(0, LIVENESS, 0xa5a5_a5a5);
    rig.wait();
    assert!(rig.device.buffer().iter().all(|&byte| byte == 0xa5));
    rig.write(0, FACTORIAL, 12);
    rig.write(0, RAISE, 0xa5);
    rig.switch(1);
    // A fresh context is a device after reset.
    assert!(rig.device.buffer().iter().all(|&byte| byte == 0));
    for offset in [
        LIVENESS,
        FACTORIAL,
        STATUS,
        INTERRUPT_STATUS,
        DMA_SOURCE,
        DMA_DESTINATION,
        DMA_COUNT,
        DMA_COMMAND,
    ] {
        assert_eq!(rig.read(1, offset), 0, "{offset:#x}");
    }
    rig.dma(1, BUFFER, RAM, 4096, DMA_RUN | DMA_TO_MEMORY);
    rig.wait();
    assert!(rig.device.bus.ram[1][..4096].iter().all(|&byte| byte == 0));
    rig.switch(0);
    assert!(rig.device.buffer().iter().all(|&byte| byte == 0xa5));
    assert_eq!(rig.read(0, LIVENESS), 0x5a5a_5a5a);
    assert_eq!(rig.read(0, FACTORIAL), 479_001_600);
    assert_eq!(rig.read(0, INTERRUPT_STATUS), 0xa5);
    assert!(rig.device.line());
}

#[test]
fn every_result_survives_a_switch() {
    let mut rig = Rig::new();
    rig.put_in(0);
    for n in 0..=36_u32 {
        rig.write(0, STATUS, STATUS_IRQFACT);
        rig.write(0, FACTORIAL, n.into());
        rig.wait();
        rig.write(0, ACKNOWLEDGE, INTERRUPT_FACTORIAL);
        rig.switch(1);
        rig.switch(0);
        let value = (1..=n).fold(1_u32, u32::wrapping_mul);
        assert_eq!(rig.read(0, FACTORIAL), u64::from(value), "{n}!");
        assert_eq!(rig.read(0, STATUS), STATUS_IRQFACT);
        assert!(!rig.device.line(), "restoring raised an interrupt");
    }
}

#[test]
fn work_under_way_refuses_until_it_is_done() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.dma(0, RAM, BUFFER, 16, DMA_RUN | DMA_INTERRUPT);
    assert!(rig.driver.busy(id(0), &mut rig.device));
    rig.take_out(true);
    assert!(rig.refusals >= 10, "{} refusals in 100 ms", rig.refusals);
    assert!(rig.driver.interrupt_pending(id(0), 0, None));
    assert_eq!(rig.read(0, INTERRUPT_STATUS), INTERRUPT_DMA);
    assert_eq!(rig.device.bus.areas[0][..16], rig.device.bus.ram[0][..16]);

    rig.device.timing.computing = |n| Duration::from_secs(if n > 34 { 4 } else { 0 });
    rig.put_in(1);
    rig.write(1, FACTORIAL, 0xffff_ffff);
    let start = rig.device.now();
    let refused = rig.run(|d, h| d.quiet(id(1), h));
    assert!(rig.device.now().since(start) >= Duration::from_millis(3990));
    assert!(refused.0 < 1000, "{} polls, without back-off", refused.0);
    assert!(!rig.driver.busy(id(1), &mut rig.device));
}

#[test]
fn the_leaving_owner_is_answered_and_queued() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.write(0, LIVENESS, 7);
    rig.write(0, STATUS, STATUS_IRQFACT);
    rig.dma(0, RAM, BUFFER, 16, DMA_RUN | DMA_INTERRUPT);
    let step = rig.driver.quiet(id(0), &mut rig.device);
    assert!(matches!(step, Step::Again(_)));
    // Still running: the device ignores writes to the DMA registers, a computation would be started and is queued.
    assert_eq!(rig.read(0, DMA_COMMAND), DMA_RUN | DMA_INTERRUPT);
    rig.write(0, DMA_COUNT, 99);
    assert_eq!(rig.read(0, DMA_COUNT), 16);
    assert_eq!(rig.write(0, FACTORIAL, 6), Verdict::Queued(0));
    assert_eq!(rig.write(0, FACTORIAL, 9), Verdict::Value(0), "ignored");
    assert_eq!(rig.read(0, STATUS), STATUS_IRQFACT | STATUS_COMPUTING);
    assert!(rig.driver.has_work(id(0)));
    rig.write(0, LIVENESS, 8);
    rig.wait();
    // Done in the device: seen, with its interrupt, and can be acknowledged.
    assert_eq!(rig.read(0, DMA_COMMAND), DMA_INTERRUPT);
    assert!(
        rig.driver
            .interrupt_pending(id(0), 0, Some(&mut rig.device))
    );
    rig.write(0, ACKNOWLEDGE, INTERRUPT_DMA);
    assert!(!rig.device.line());
    rig.dma(0, BUFFER, RAM + 4096, 16, DMA_RUN | DMA_TO_MEMORY);
    rig.take_out(true);
    assert_eq!(rig.read(0, LIVENESS), !8_u64 & 0xffff_ffff);
    assert_eq!(rig.read(0, FACTORIAL), 6);
    rig.put_in(1);
    assert_eq!(rig.read(1, STATUS), 0);
    rig.switch(0);
    assert!(!rig.driver.has_work(id(0)));
    rig.wait();
    assert_eq!(rig.read(0, FACTORIAL), 720);
    assert_eq!(rig.read(0, INTERRUPT_STATUS), INTERRUPT_FACTORIAL);
    let ram = &rig.device.bus.ram[0];
    assert_eq!(ram[4096..4112], ram[..16]);
}

#[test]
fn doorbells_are_replayed_in_their_order() {
    #[derive(Default)]
    struct Recorder(Vec<(u64, u64)>);
    impl Hardware for Recorder {
        fn read(&mut self, _: usize, _: u64, _: Width) -> u64 {
            0
        }
        fn write(&mut self, _: usize, offset: u64, _: Width, value: u64) {
            self.0.push((offset, value));
        }
        fn now(&self) -> Instant {
            Instant::default()
        }
    }
    for dma_first in [false, true] {
        let mut rig = Rig::new();
        rig.write(0, RAISE, 0x10);
        if dma_first {
            rig.dma(0, RAM, BUFFER, 4, DMA_RUN);
        }
        rig.write(0, FACTORIAL, 3);
        if !dma_first {
            rig.dma(0, RAM, BUFFER, 4, DMA_RUN);
        }
        let mut recorder = Recorder::default();
        assert_eq!(rig.driver.replay(id(0), &mut recorder), Step::Done);
        let of_interest = |w: &&(u64, u64)| [FACTORIAL, DMA_COMMAND, RAISE].contains(&w.0);
        let got: Vec<_> = recorder.0.iter().filter(of_interest).copied().collect();
        let (dma, factorial) = ((DMA_COMMAND, DMA_RUN), (FACTORIAL, 3));
        let expected = if dma_first {
            [(RAISE, 0x10), dma, factorial]
        } else {
            [(RAISE, 0x10), factorial, dma]
        };
        assert_eq!(got, expected);
        assert_eq!(
            recorder
                .0
                .iter()
                .rposition(|w| w.0 == DMA_COUNT)
                .map(|at| { recorder.0.iter().position(|w| w.0 == DMA_COMMAND).unwrap() > at }),
            Some(true),
            "registers before the command"
        );
    }
}

#[test]
fn an_untouched_slice_needs_no_save() {
    let mut rig = Rig::new();
    rig.put_in(0);
    rig.dma(0, RAM, BUFFER, 4096, DMA_RUN | DMA_INTERRUPT);
    rig.write(0, FACTORIAL, 7);
    rig.wait();
    rig.switch(1);
    rig.switch(0);
    // Gone on with after a rest in the device, without a restore.
    rig.write(0, LIVENESS, 3);
    assert_eq!(rig.driver.replay(id(0), &mut rig.device), Step::Done);
    assert_eq!(rig.read(0, LIVENESS), !3_u64 & 0xffff_ffff);
    let start = rig.device.now();
    rig.take_out(false);
    let took = rig.device.now().since(start);
    assert!(took < Edu::new().description().worst_case.stop, "{took}");
    assert_eq!(rig.read(0, INTERRUPT_STATUS), INTERRUPT_DMA);
    rig.put_in(1);
    rig.switch(0);
    assert_eq!(rig.read(0, FACTORIAL), 5040);
    assert_eq!(rig.read(0, INTERRUPT_STATUS), INTERRUPT_DMA);
    assert_eq!(rig.device.buffer(), &rig.device.bus.ram[0][..4096]);
}

#[test]
fn a_command_out_of_range_is_a_bus_error_and_starts_nothing() {
    let mut rig = Rig::new();
    for current in [false, true] {
        if current {
            rig.put_in(0);
        }
        for (source, destination, count, command) in [
            (RAM, BUFFER - 4, 4, DMA_RUN),
            (RAM, BUFFER + 4, 4096, DMA_RUN),
            (RAM, BUFFER, 4, DMA_RUN | DMA_TO_MEMORY),
            (BUFFER, RAM, u64::MAX, DMA_RUN | DMA_TO_MEMORY),
        ] {
            rig.write(0, DMA_SOURCE, source);
            rig.write(0, DMA_DESTINATION, destination);
            rig.write(0, DMA_COUNT, count);
            assert_eq!(rig.write(0, DMA_COMMAND, command), Verdict::Fault);
            assert_eq!(rig.read(0, DMA_COMMAND), 0);
            assert!(!rig.driver.has_work(id(0)));
        }
    }
    rig.wait();
    assert!(!rig.device.crashed);
}

#[test]
fn probe_accepts_only_a_quiet_edu() {
    let mut driver = Edu::new();
    let mut device = Device::new(Spaces::new(Target::Abort));
    device.write(0, RAISE, Width::Word, 0x77);
    device.write(0, STATUS, Width::Word, STATUS_IRQFACT);
    assert_eq!(driver.probe(&mut device), Ok(()));
    assert!(!device.line());
    assert_eq!(device.read(0, STATUS, Width::Word), 0);
    device.write(0, FACTORIAL, Width::Word, 0xffff_ffff);
    assert!(driver.probe(&mut device).is_err());

    struct Gone;
    impl Hardware for Gone {
        fn read(&mut self, _: usize, _: u64, width: Width) -> u64 {
            width.mask()
        }
        fn write(&mut self, _: usize, _: u64, _: Width, _: u64) {}
        fn now(&self) -> Instant {
            Instant::default()
        }
    }
    assert_eq!(
        driver.probe(&mut Gone),
        Err(DriverError::WrongDevice {
            what: "edu: identification",
            expected: 0x0100_00ed,
            found: 0xffff_ffff,
        })
    );
}

#[test]
fn contexts_are_made_once_and_end() {
    let mut rig = Rig::new();
    assert_eq!(rig.driver.create(id(0)), Err(DriverError::Duplicate(id(0))));
    rig.write(0, LIVENESS, 1);
    rig.driver.destroy(id(0));
    rig.driver.destroy(id(77));
    assert_eq!(
        rig.access(0, ID, Width::Word, Operation::Read),
        Verdict::Fault
    );
    assert!(matches!(
        rig.driver.quiet(id(0), &mut rig.device),
        Step::Failed(_)
    ));
    rig.driver.create(id(0)).unwrap();
    assert_eq!(rig.read(0, LIVENESS), 0, "nothing of the earlier one");
}

#[test]
fn a_transfer_that_never_ends_fails_the_step() {
    let mut rig = Rig::new();
    rig.device.timing.dma = Duration::MAX;
    let mut waited = Duration::ZERO;
    loop {
        match rig.driver.restore(id(0), &mut rig.device, Some(SAVE_AREA)) {
            Step::Again(after) => {
                waited += after;
                rig.device.advance(after);
            }
            Step::Failed(_) => break,
            Step::Done => panic!("restored without a transfer"),
        }
        assert!(waited < Duration::from_secs(3));
    }
    assert!(matches!(
        rig.driver.abort(id(0), &mut rig.device),
        Step::Failed(_)
    ));
    assert!(matches!(rig.driver.reset(&mut rig.device), Step::Failed(_)));
}
