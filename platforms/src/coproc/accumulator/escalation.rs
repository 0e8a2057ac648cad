//! A coprocessor that doesn't stop when asked, through the whole framework: stopped by force, reset, or given up; and who pays.

use alloc::boxed::Box;

use coproc_core::coproc::{Detach, Outcome, State};
use coproc_core::environment::Event;
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width::Word};
use coproc_core::time::Duration;

use super::super::rig::{Device, Direct, Machine};
use super::Accumulator;
use super::model::Accumulator as Model;
use super::offset::*;

const HOG: VcoprocId = VcoprocId(1);
const INNOCENT: VcoprocId = VcoprocId(2);

impl Device for Model {
    fn advance(&mut self, by: Duration) {
        self.advance(by);
    }
    fn asserts(&self) -> bool {
        self.line()
    }
}

type Rig = super::super::rig::Rig<Model>;

impl Rig {
    fn new(stops: bool, resets: bool) -> Self {
        let mut machine = Machine::<Model> {
            direct: Direct::Everything,
            ..Machine::default()
        };
        machine.device.stops = stops;
        machine.device.resets = resets;
        let mut rig = Self::of(machine, Box::new(Accumulator::new()), "rr", None);
        rig.attach(HOG);
        rig.attach(INNOCENT);
        rig
    }

    /// `None` if it would have to wait.
    fn access(&mut self, who: VcoprocId, offset: u64, operation: Operation) -> Option<Outcome> {
        let access = Access {
            window: 0,
            offset,
            width: Word,
            operation,
        };
        self.attempt(who, &access)
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
