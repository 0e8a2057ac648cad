//! The paravirtual opt-in where it is required: an engine that nothing can stop from outside.
//!
//! It works through its rounds and stops between two of them if it is asked and its firmware heeds that. So whoever uses it has to agree to that first. What
//! fw-core makes of the same block, where it is only offered, is tested there.

use std::collections::BTreeMap;

use coproc_core::address::DeviceAddress;
use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Coproc, Outcome, Settings};
use coproc_core::driver::{
    Description, Driver, DriverError, Failure, Hardware, Step, Verdict, Window, WorstCase,
};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::paravirtual::{self, Paravirtual, feature, register, status};
use coproc_core::register::Width::{self, Double, Word};
use coproc_core::register::{Access, Operation};
use coproc_core::time::{Duration, Instant};
use proptest::prelude::*;

/// Registers behind the paravirtual block: rounds to be done, a write adds.
const WORK: u64 = 0x20;
/// Rounds that are done.
const DONE: u64 = 0x28;
/// Of the engine only: write asks for a stop, reads whether it has stopped.
const HOLD: u64 = 0x30;
const RESET: u64 = 0x38;
/// How long a round takes.
const ROUND: Duration = Duration::from_micros(100);

/// The engine. A round under way can't be interrupted.
#[derive(Default)]
struct Engine {
    now: Instant,
    left: u64,
    done: u64,
    round: u64,
    asked: bool,
    held: bool,
    /// Its present firmware stops when it is asked.
    heeds: bool,
}

impl Engine {
    fn advance(&mut self, by: Duration) {
        for _ in 0..by.as_nanos() / 100 {
            self.now = self.now + Duration::from_nanos(100);
            if self.held || self.left == 0 {
                continue;
            }
            self.round += 100;
            if self.round >= ROUND.as_nanos() {
                self.round = 0;
                self.left -= 1;
                self.done += 1;
                self.held = self.asked && self.heeds;
            }
        }
    }
}

impl Hardware for Engine {
    fn read(&mut self, _: usize, offset: u64, _: Width) -> u64 {
        self.advance(Duration::from_nanos(100));
        match offset {
            WORK => self.left,
            DONE => self.done,
            HOLD => u64::from(self.held || self.left == 0),
            _ => 0,
        }
    }
    fn write(&mut self, _: usize, offset: u64, _: Width, value: u64) {
        self.advance(Duration::from_nanos(100));
        match offset {
            WORK => self.left = value,
            DONE => self.done = value,
            HOLD => {
                self.asked = value != 0;
                self.held &= self.asked;
            }
            RESET => (self.left, self.round, self.held, self.asked) = (0, 0, false, false),
            _ => {}
        }
    }
    fn now(&self) -> Instant {
        self.now
    }
}

static DESCRIPTION: Description = Description {
    name: "test,engine",
    matches: &[],
    windows: &[Window {
        name: "registers",
        index: 0,
        size: 0x1000,
        direct: false,
    }],
    interrupts: 0,
    streams: 0,
    save_area: 0,
    own_iommu: false,
    worst_case: WorstCase {
        refusal: ROUND,
        stop: ROUND,
        save: ROUND,
        restore: ROUND,
    },
    refusal_bound: Duration::from_millis(20),
    slice: Duration::from_millis(2),
};

#[derive(Clone, Copy)]
struct Context {
    agreement: Paravirtual,
    left: u64,
    done: u64,
}

#[derive(Default)]
struct EngineDriver(BTreeMap<VcoprocId, Context>);

impl EngineDriver {
    fn of(&mut self, who: VcoprocId) -> &mut Context {
        self.0.get_mut(&who).unwrap()
    }
}

impl Driver for EngineDriver {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }
    fn probe(&mut self, _: &mut dyn Hardware) -> Result<(), DriverError> {
        Ok(())
    }
    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        let context = Context {
            agreement: Paravirtual::new(0, feature::YIELD),
            left: 0,
            done: 0,
        };
        self.0.insert(who, context);
        Ok(())
    }
    fn destroy(&mut self, who: VcoprocId) {
        self.0.remove(&who);
    }
    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let agreement = &mut self.of(who).agreement;
        if agreement.ask() {
            hardware.write(0, HOLD, Double, 1);
        }
        if hardware.read(0, HOLD, Double) == 0 {
            return Step::Again(Duration::from_micros(50));
        }
        agreement.give();
        agreement.settle();
        Step::Done
    }
    fn drain(&mut self, _: VcoprocId, _: &mut dyn Hardware) -> Step {
        Step::Done
    }
    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        _: Option<DeviceAddress>,
    ) -> Step {
        self.of(who).left = hardware.read(0, WORK, Double);
        self.of(who).done = hardware.read(0, DONE, Double);
        Step::Done
    }
    fn scrub(&mut self, _: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        hardware.write(0, WORK, Double, 0);
        hardware.write(0, DONE, Double, 0);
        Step::Done
    }
    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        _: Option<DeviceAddress>,
    ) -> Step {
        hardware.write(0, DONE, Double, self.of(who).done);
        Step::Done
    }
    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        hardware.write(0, HOLD, Double, 0);
        let left = std::mem::take(&mut self.of(who).left);
        if left != 0 {
            hardware.write(0, WORK, Double, left);
        }
        Step::Done
    }
    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        let Access { offset, width, .. } = *access;
        let context = self.of(who);
        let (left, done, device) = match hardware {
            Some(hardware) => {
                let left = hardware.read(0, WORK, Double);
                (left, hardware.read(0, DONE, Double), Some(hardware))
            }
            None => (context.left, context.done, None),
        };
        match access.operation {
            Operation::Read if offset < paravirtual::SIZE => {
                Verdict::Value(context.agreement.read(offset, width))
            }
            Operation::Read if offset == WORK => Verdict::Value(left),
            Operation::Read if offset == DONE => Verdict::Value(done),
            Operation::Write(value) if offset < paravirtual::SIZE => {
                context.agreement.write(offset, width, value, left != 0);
                Verdict::Value(0)
            }
            Operation::Write(value) if offset == WORK && context.agreement.admits() => match device
            {
                Some(hardware) => {
                    hardware.write(0, WORK, Double, left + value);
                    Verdict::Value(0)
                }
                None => {
                    context.left = left + value;
                    Verdict::Queued(0)
                }
            },
            _ => Verdict::Value(0),
        }
    }
    fn has_work(&self, who: VcoprocId) -> bool {
        self.0.get(&who).is_some_and(|context| context.left != 0)
    }
    fn busy(&mut self, _: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        hardware.read(0, WORK, Double) != 0
    }
    fn interrupt_pending(&mut self, _: VcoprocId, _: usize, _: Option<&mut dyn Hardware>) -> bool {
        false
    }
    fn abort(&mut self, _: VcoprocId, _: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("nothing stops it from outside"))
    }
    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        hardware.write(0, RESET, Double, 1);
        Step::Done
    }
}

#[derive(Default)]
struct Machine {
    engine: Engine,
    stream: Option<VcoprocId>,
    /// Whose firmware heeds a request.
    heeding: Vec<VcoprocId>,
    timer: Option<Instant>,
    faulted: Vec<VcoprocId>,
}

impl Environment for Machine {
    fn now(&self) -> Instant {
        self.engine.now
    }
    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer = at;
    }
    fn hardware(&mut self) -> &mut dyn Hardware {
        &mut self.engine
    }
    fn mask_interrupts(&mut self, _: bool) {}
    fn interrupt_asserted(&mut self, _: usize) -> bool {
        false
    }
    fn interrupts_settled(&mut self) -> bool {
        true
    }
    fn map_windows(&mut self, _: VcoprocId) -> bool {
        false
    }
    fn unmap_windows(&mut self, _: VcoprocId) {}
    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        if let Stream::Domain(who) = target {
            self.stream = Some(who);
            self.engine.heeds = self.heeding.contains(&who);
        }
        Ok(())
    }
    fn sync_streams(&mut self) -> Step {
        Step::Done
    }
    fn take_faults(&mut self) -> Option<Faults> {
        Some(Faults::default())
    }
    fn set_interrupt(&mut self, _: VcoprocId, _: usize, _: bool) {}
    fn release_parked(&mut self, _: VcoprocId) {}
    fn notify(&mut self, who: VcoprocId, event: Event) {
        assert!(matches!(event, Event::Faulted(_)), "{event:?}");
        self.faulted.push(who);
    }
}

const A: VcoprocId = VcoprocId(1);
const B: VcoprocId = VcoprocId(2);

struct Rig {
    machine: Machine,
    coproc: Coproc,
    /// Who ever had rounds done for it.
    worked: Vec<VcoprocId>,
}

impl Rig {
    fn new(heeding: &[VcoprocId]) -> Self {
        let mut machine = Machine {
            heeding: heeding.to_vec(),
            ..Machine::default()
        };
        let driver = Box::<EngineDriver>::default();
        let settings = Settings::of(&*driver);
        let algorithm = sched_algos::by_name("rr", &Tuning::new(settings.slice)).unwrap();
        let now = machine.now();
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, now);
        coproc.start(&mut machine).unwrap();
        for who in [A, B] {
            let parameters = Parameters::default();
            let domain = DomainId(who.0 as u16);
            coproc
                .attach(&mut machine, who, domain, &parameters)
                .unwrap();
        }
        Self {
            machine,
            coproc,
            worked: vec![],
        }
    }

    fn access(&mut self, who: VcoprocId, offset: u64, width: Width, op: Operation) -> u64 {
        let access = Access {
            window: 0,
            offset,
            width,
            operation: op,
        };
        for _ in 0..10_000 {
            match self.coproc.access(&mut self.machine, who, &access) {
                Outcome::Value(value) => return value,
                Outcome::Fault => return width.mask(),
                Outcome::Retry => {}
                Outcome::Park => self.pass(Duration::from_micros(20)),
            }
        }
        panic!("{who} waits for ever");
    }

    fn read(&mut self, who: VcoprocId, offset: u64) -> u64 {
        let width = if offset < paravirtual::SIZE {
            Word
        } else {
            Double
        };
        self.access(who, offset, width, Operation::Read)
    }

    fn write(&mut self, who: VcoprocId, offset: u64, value: u64) {
        let width = if offset < paravirtual::SIZE {
            Word
        } else {
            Double
        };
        self.access(who, offset, width, Operation::Write(value));
    }

    fn accept(&mut self, who: VcoprocId) {
        let offered = self.read(who, register::OFFERED);
        self.write(who, register::ACCEPTED, offered);
    }

    fn pass(&mut self, by: Duration) {
        let end = self.machine.now() + by;
        while self.machine.now() < end {
            let next = self.machine.timer.map_or(end, |at| at.min(end));
            let step = next
                .since(self.machine.now())
                .max(Duration::from_nanos(100));
            self.machine.engine.advance(step);
            if self.machine.engine.left != 0 {
                self.worked.extend(self.machine.stream);
                self.worked.dedup();
            }
            if self
                .machine
                .timer
                .is_some_and(|at| at <= self.machine.now())
            {
                self.machine.timer = None;
                self.coproc.timer(&mut self.machine);
            }
        }
    }
}

#[test]
fn who_does_not_opt_in_where_it_is_required_never_works() {
    let mut rig = Rig::new(&[A, B]);
    assert_eq!(rig.read(A, register::ID), paravirtual::ID.into());
    assert_eq!(rig.read(A, register::REQUIRED), feature::YIELD.into());
    assert_eq!(rig.read(A, register::OFFERED), feature::YIELD.into());
    rig.accept(B);
    rig.write(A, WORK, 50);
    rig.write(B, WORK, 50);
    rig.pass(Duration::from_millis(50));
    assert_eq!((rig.read(A, DONE), rig.read(B, DONE)), (0, 50));
    assert_eq!(rig.worked, [B]);
    assert_eq!(rig.read(A, register::STATUS), status::REFUSED.into());
    assert_eq!(rig.read(B, register::STATUS), 0);
    assert_eq!(rig.machine.faulted, []);
    // It isn't too late.
    rig.accept(A);
    assert_eq!(rig.read(A, register::STATUS), 0);
    rig.write(A, WORK, 50);
    rig.pass(Duration::from_millis(50));
    assert_eq!(rig.read(A, DONE), 50);
}

#[test]
fn who_opts_in_and_yields_shares_it() {
    let mut rig = Rig::new(&[A, B]);
    for who in [A, B] {
        rig.accept(who);
        rig.write(who, WORK, 200);
    }
    rig.pass(Duration::from_millis(60));
    assert!(rig.worked.len() > 10, "by turns: {:?}", rig.worked);
    assert_eq!((rig.read(A, DONE), rig.read(B, DONE)), (200, 200));
    assert_eq!(rig.read(A, register::REQUEST), 0);
    assert_eq!(rig.machine.faulted, []);
}

#[test]
fn who_opts_in_and_does_not_yield_loses_it_and_nobody_else_does() {
    let mut rig = Rig::new(&[B]);
    for who in [A, B] {
        rig.accept(who);
        rig.write(who, WORK, 400);
    }
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.machine.faulted, [A]);
    assert_eq!(rig.read(A, DONE), u64::MAX);
    assert_eq!(rig.read(B, DONE), 400);
    let report = rig.coproc.report(rig.machine.now());
    let refused = report.vcoprocs[0].counters.refused;
    assert!(refused >= DESCRIPTION.refusal_bound, "{refused}");
    assert!(report.time.balanced());
}

#[test]
fn what_was_agreed_stands_while_it_works() {
    let mut rig = Rig::new(&[A, B]);
    rig.accept(A);
    rig.write(A, WORK, 50);
    rig.write(A, register::ACCEPTED, 0);
    assert_eq!(rig.read(A, register::ACCEPTED), feature::YIELD.into());
    rig.pass(Duration::from_millis(20));
    rig.write(A, register::ACCEPTED, 0);
    rig.write(A, WORK, 50);
    assert_eq!(rig.read(A, register::STATUS), status::REFUSED.into());
    assert_eq!(rig.read(A, DONE), 50);
}

proptest! {
    /// Only offered bits stick, nothing but whole accesses to the registers does anything, and what changes can be kept and put back.
    #[test]
    fn any_access(
        offered in 0..16_u32,
        required in 0..4_u32,
        steps in prop::collection::vec((0..6_u8, 0..0x40_u64, 0..4_usize, any::<u64>(), any::<bool>()), 0..60),
    ) {
        let mut block = Paravirtual::new(offered, required);
        for (what, offset, width, value, working) in steps {
            let width = [Width::Byte, Width::Half, Word, Double][width];
            let before = block;
            match what {
                0 => block.write(offset, width, value, working),
                1 => prop_assert_eq!(block.admits(), required & !block.accepted() == 0),
                2 => _ = block.ask(),
                3 => block.give(),
                4 => block.settle(),
                _ => _ = block.read(offset, width),
            }
            if what == 0 && (width != Word || offset != register::ACCEPTED || working) {
                prop_assert_eq!(block, before);
            }
            prop_assert_eq!(block.accepted() & !(offered | required), 0);
            prop_assert!(!block.has_yielded() || block.read(register::REQUEST, Word) != 0);
            let mut kept = Paravirtual::new(offered, required);
            kept.restore(block.save());
            prop_assert_eq!(kept, block);
        }
    }
}
