//! A coprocessor that doesn't stop when asked, through the whole framework: stopped by force, reset, or given up; and who pays.

use alloc::boxed::Box;
use alloc::vec::Vec;

use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Coproc, Detach, Outcome, Settings, State};
use coproc_core::driver::{Driver, Hardware, Step};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::{Access, Operation, Width::Word};
use coproc_core::time::{Duration, Instant};

use super::Accumulator;
use super::model::Accumulator as Model;
use super::offset::*;

const HOG: VcoprocId = VcoprocId(1);
const INNOCENT: VcoprocId = VcoprocId(2);

/// The machine around the device.
#[derive(Default)]
struct Machine {
    device: Model,
    timer: Option<Instant>,
    mapped: Option<VcoprocId>,
    masked: bool,
    lines: Vec<(VcoprocId, bool)>,
    events: Vec<(VcoprocId, Event)>,
}

impl Environment for Machine {
    fn now(&self) -> Instant {
        self.device.now()
    }
    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer = at;
    }
    fn hardware(&mut self) -> &mut dyn Hardware {
        assert_eq!(self.mapped, None, "reached while a domain may reach it too");
        &mut self.device
    }
    fn mask_interrupts(&mut self, masked: bool) {
        self.masked = masked;
    }
    fn interrupt_asserted(&mut self, _: usize) -> bool {
        self.device.line()
    }
    fn interrupts_settled(&mut self) -> bool {
        !self.device.line()
    }
    fn map_windows(&mut self, who: VcoprocId) -> bool {
        self.mapped = Some(who);
        true
    }
    fn unmap_windows(&mut self, who: VcoprocId) {
        assert_eq!(self.mapped.take(), Some(who));
    }
    fn point_streams(&mut self, _: Stream) -> Result<(), IommuError> {
        Ok(())
    }
    fn sync_streams(&mut self) -> Step {
        Step::Done
    }
    fn take_faults(&mut self) -> Option<Faults> {
        Some(Faults::default())
    }
    fn set_interrupt(&mut self, who: VcoprocId, _: usize, pending: bool) {
        self.lines.retain(|(id, _)| *id != who);
        self.lines.push((who, pending));
    }
    fn release_parked(&mut self, _: VcoprocId) {}
    fn notify(&mut self, who: VcoprocId, event: Event) {
        self.events.push((who, event));
    }
}

struct Rig {
    machine: Machine,
    coproc: Coproc,
}

impl Rig {
    fn new(stops: bool, resets: bool) -> Self {
        let mut machine = Machine::default();
        machine.device.stops = stops;
        machine.device.resets = resets;
        let driver: Box<dyn Driver> = Box::new(Accumulator::new());
        let settings = Settings::of(&*driver);
        let algorithm = sched_algos::by_name("rr", &Tuning::new(settings.slice)).unwrap();
        let now = machine.now();
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, now);
        coproc.start(&mut machine).unwrap();
        let mut rig = Self { machine, coproc };
        for who in [HOG, INNOCENT] {
            rig.attach(who);
        }
        rig
    }

    fn attach(&mut self, who: VcoprocId) {
        let domain = DomainId(who.0 as u16);
        let parameters = Parameters::default();
        self.coproc
            .attach(&mut self.machine, who, domain, &parameters)
            .unwrap();
    }

    /// One access as the domain's CPU does it; `None` if it would have to wait.
    fn access(&mut self, who: VcoprocId, offset: u64, operation: Operation) -> Option<Outcome> {
        for _ in 0..3 {
            if self.machine.mapped == Some(who) {
                let device = &mut self.machine.device;
                return Some(Outcome::Value(match operation {
                    Operation::Read => device.read(0, offset, Word),
                    Operation::Write(value) => {
                        device.write(0, offset, Word, value);
                        0
                    }
                }));
            }
            let access = Access {
                window: 0,
                offset,
                width: Word,
                operation,
            };
            match self.coproc.access(&mut self.machine, who, &access) {
                Outcome::Retry => {}
                Outcome::Park => return None,
                done => return Some(done),
            }
        }
        panic!("{who} gets nowhere");
    }

    fn write(&mut self, who: VcoprocId, offset: u64, value: u64) {
        let outcome = self.access(who, offset, Operation::Write(value));
        assert_eq!(outcome, Some(Outcome::Value(0)));
    }

    fn add(&mut self, who: VcoprocId, term: u64, rounds: u64) {
        self.write(who, TERM, term);
        self.write(who, ROUNDS, rounds);
        self.write(who, START, 1);
    }

    /// Lets time pass, with the timer.
    fn pass(&mut self, by: Duration) {
        let end = self.machine.now() + by;
        while self.machine.now() < end {
            let next = self.machine.timer.map_or(end, |at| at.min(end));
            let step = next.since(self.machine.now());
            self.machine
                .device
                .advance(step.max(Duration::from_nanos(1)));
            if (self.machine.timer).is_some_and(|at| at <= self.machine.now()) {
                self.machine.timer = None;
                self.coproc.timer(&mut self.machine);
            }
        }
    }

    /// The hog starts what never ends, the innocent one waits with its own work, and time passes.
    fn hang(stops: bool, resets: bool) -> Self {
        let mut rig = Self::new(stops, resets);
        rig.add(HOG, 1, 0xffff_ffff);
        rig.add(INNOCENT, 3, 100);
        rig.pass(Duration::from_secs(10));
        rig
    }

    fn assert_only_the_hog_is_faulted(&mut self) {
        assert!(matches!(
            self.machine.events[..],
            [(HOG, Event::Faulted(_))]
        ));
        let outcome = self.access(HOG, ID, Operation::Read);
        assert_eq!(outcome, Some(Outcome::Fault));
        let sum = self.access(INNOCENT, SUM, Operation::Read);
        assert_eq!(sum, Some(Outcome::Value(300)), "exactly its own work");
        assert!(self.machine.lines.iter().all(|line| *line != (HOG, true)));
    }

    /// The books: nothing is lost, and the hog pays for what it refused.
    fn assert_books(&self) {
        let time = self.coproc.report(self.machine.now()).time;
        assert!(time.balanced(), "to the nanosecond: {time:?}");
    }
}

#[test]
fn willing_neighbours_share_it() {
    let mut rig = Rig::new(true, true);
    rig.add(HOG, 1, 100);
    rig.add(INNOCENT, 3, 100);
    rig.pass(Duration::from_millis(100));
    for (who, sum) in [(HOG, 100), (INNOCENT, 300)] {
        let found = rig.access(who, SUM, Operation::Read);
        assert_eq!(found, Some(Outcome::Value(sum)));
    }
    assert!(rig.machine.events.is_empty());
    rig.assert_books();
}

#[test]
fn refusal_past_the_bound_is_stopped_by_force_and_costs_only_the_guilty_one() {
    let mut rig = Rig::hang(true, true);
    rig.assert_only_the_hog_is_faulted();
    rig.assert_books();
    // It may come back, with a fresh context.
    assert!(matches!(
        rig.coproc.detach(&mut rig.machine, HOG),
        Ok(Detach::Done)
    ));
    rig.attach(HOG);
    rig.pass(Duration::from_secs(1));
    rig.write(HOG, SUM, 5);
    rig.add(HOG, 2, 10);
    rig.pass(Duration::from_secs(1));
    let sum = rig.access(HOG, SUM, Operation::Read);
    assert_eq!(sum, Some(Outcome::Value(25)));
}

#[test]
fn what_cannot_be_stopped_is_reset() {
    let mut rig = Rig::hang(false, true);
    rig.assert_only_the_hog_is_faulted();
    rig.assert_books();
}

#[test]
fn what_cannot_be_reset_is_quarantined_and_everybody_told() {
    let mut rig = Rig::hang(false, false);
    assert!(matches!(rig.coproc.state(), State::Quarantined { .. }));
    for who in [HOG, INNOCENT] {
        let told = |e: &&(VcoprocId, Event)| e.0 == who && matches!(e.1, Event::Quarantined(_));
        assert_eq!(rig.machine.events.iter().filter(told).count(), 1);
        let outcome = rig.access(who, ID, Operation::Read);
        assert_eq!(outcome, Some(Outcome::Fault));
    }
    assert!(rig.machine.masked);
    assert_eq!(rig.machine.mapped, None);
    assert_eq!(rig.machine.timer, None);
    rig.assert_books();
}
