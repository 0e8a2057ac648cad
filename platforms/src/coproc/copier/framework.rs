//! A hostile domain and an innocent one through the whole framework: a device that confines itself has no stream to cut.

use alloc::boxed::Box;
use alloc::vec::Vec;

use coproc_core::coproc::{Detach, Outcome, State};
use coproc_core::driver::{Driver as _, Hardware as _};
use coproc_core::environment::{Event, Stream};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::Duration;

use super::super::rig::{Device, Direct, Machine};
use super::offset::*;
use super::shadow::{BLOCK, VALID, WRITE};
use super::world::{HOST, PAGE, RAM, Shared, domain_of};
use super::{COPY, Copier, MMU, TRANSLATE, model};

const HOSTILE: VcoprocId = VcoprocId(1);
const INNOCENT: VcoprocId = VcoprocId(2);

impl Device for model::Copier<Shared> {
    fn advance(&mut self, by: Duration) {
        self.advance(by);
    }
    fn asserts(&self) -> bool {
        self.line()
    }
    /// Cuts nothing: it only tells whose memory may be touched, by the framework's own account.
    fn point(&mut self, target: Stream) {
        self.bus.allow(match target {
            Stream::Abort => None,
            Stream::Domain(who) => domain_of(who),
            Stream::Save(_) => panic!("it has no save area"),
        });
    }
}

type Rig = super::super::rig::Rig<model::Copier<Shared>>;

impl Rig {
    fn new(obeys: bool) -> Self {
        let world = Shared::new();
        let mut device = model::Copier::new(world.clone());
        device.obeys = obeys;
        let machine = Machine {
            device,
            direct: Direct::Window(COPY),
            timer: None,
            mapped: None,
            masked: false,
            lines: Vec::new(),
            events: Vec::new(),
        };
        let mut driver = Box::new(Copier::new());
        driver.connect(world.memory());
        let mut rig = Self::of(machine, driver, "rr", None);
        rig.attach(HOSTILE);
        rig.attach(INNOCENT);
        rig
    }

    fn world(&self) -> &Shared {
        &self.machine.device.bus
    }

    fn access(&mut self, who: VcoprocId, window: usize, offset: u64, op: Operation) -> Outcome {
        let width = match (window, offset) {
            (MMU, TABLE) => Width::Double,
            _ => Width::Word,
        };
        let access = Access {
            window,
            offset,
            width,
            operation: op,
        };
        self.wait(who, &access)
    }

    fn write(&mut self, who: VcoprocId, window: usize, offset: u64, value: u64) {
        let outcome = self.access(who, window, offset, Operation::Write(value));
        assert_eq!(outcome, Outcome::Value(0), "{window} {offset:#x}");
    }

    /// A domain copies its page 8 to its page 9, by tables of its own.
    fn copy(&mut self, who: VcoprocId) {
        let domain = domain_of(who).unwrap();
        let world = self.world().clone();
        world.store(domain, RAM, (RAM + PAGE) | VALID);
        world.store(domain, RAM + PAGE, (RAM + 8 * PAGE) | VALID);
        world.store(domain, RAM + PAGE + 8, (RAM + 9 * PAGE) | VALID | WRITE);
        world.store(domain, RAM + 8 * PAGE, 0x5ec7e7 + u64::from(who.0));
        self.write(who, MMU, TABLE, RAM | TRANSLATE);
        self.write(who, MMU, FLUSH, 1);
        for (offset, value) in [
            (SOURCE, 0),
            (DESTINATION, PAGE),
            (LENGTH, PAGE),
            (INTERRUPT, 1),
            (START, 1),
        ] {
            self.write(who, COPY, offset, value);
        }
    }

    fn assert_copied(&mut self, who: VcoprocId) {
        assert_eq!(
            self.access(who, COPY, INTERRUPT, Operation::Read),
            Outcome::Value(1)
        );
        let ram = self.world().ram(domain_of(who).unwrap());
        let at = (9 * PAGE) as usize;
        let word = (0x5ec7e7 + u64::from(who.0)).to_le_bytes();
        assert_eq!(ram[at..at + 8], word, "{who}");
        assert!(
            self.world().violations().is_empty(),
            "{:?}",
            self.world().violations()
        );
    }
}

#[test]
fn neighbours_share_it() {
    let mut rig = Rig::new(true);
    rig.copy(HOSTILE);
    rig.copy(INNOCENT);
    rig.pass(Duration::from_millis(50));
    rig.assert_copied(HOSTILE);
    rig.assert_copied(INNOCENT);
    assert!(rig.machine.events.is_empty());
}

/// All of the device's address space is one copy; the hostile domain starts it again and again, aimed at everything there is.
#[test]
fn the_innocent_one_works_beside_a_hostile_one() {
    let mut rig = Rig::new(true);
    let world = rig.world().clone();
    for round in 0..20_u64 {
        for entry in 0..16 {
            let target = HOST + (round * 16 + entry) % 48 * PAGE;
            world.store(0, RAM + entry * 8, target | VALID | WRITE | BLOCK);
        }
        rig.write(HOSTILE, MMU, TABLE, RAM | TRANSLATE);
        rig.write(HOSTILE, MMU, FLUSH, 1);
        rig.write(HOSTILE, COPY, LENGTH, 0xffff_ffff);
        rig.write(HOSTILE, COPY, START, 1);
        let outcome = rig.access(HOSTILE, MMU, CONTROL, Operation::Write(2));
        assert_eq!(outcome, Outcome::Fault);
        rig.copy(INNOCENT);
        rig.pass(Duration::from_millis(20));
        rig.assert_copied(INNOCENT);
    }
}

impl Rig {
    /// The hostile domain's copy never ends, past the bound.
    fn hang(obeys: bool) -> Self {
        let mut rig = Self::new(obeys);
        rig.machine.device.stuck = true;
        rig.copy(HOSTILE);
        rig.copy(INNOCENT);
        rig.pass(Duration::from_secs(10));
        rig.machine.device.stuck = false;
        rig
    }
}

#[test]
fn a_reset_leaves_no_bypass() {
    let mut rig = Rig::hang(true);
    assert!(matches!(
        rig.machine.events[..],
        [(HOSTILE, Event::Faulted(_))]
    ));
    let table = rig.machine.device.read(MMU, TABLE, Width::Double);
    assert_eq!(table & TRANSLATE, TRANSLATE);
    rig.pass(Duration::from_millis(20));
    rig.assert_copied(INNOCENT);
}

#[test]
fn what_cannot_be_reset_keeps_its_tables() {
    let mut rig = Rig::hang(false);
    assert!(matches!(rig.coproc.state(), State::Quarantined { .. }));
    let tables = rig.world().tables();
    for who in [HOSTILE, INNOCENT] {
        let detach = rig.coproc.detach(&mut rig.machine, who);
        assert_eq!(detach, Ok(Detach::Done));
    }
    // The device may still walk them: the set that is in it, and the empty root.
    assert_eq!(rig.world().tables(), 1 + (tables - 1) / 4);
}

#[test]
fn a_detached_domains_tables_are_gone() {
    let mut rig = Rig::new(true);
    rig.copy(HOSTILE);
    rig.copy(INNOCENT);
    rig.pass(Duration::from_millis(20));
    let before = rig.world().tables();
    let detach = rig.coproc.detach(&mut rig.machine, HOSTILE).unwrap();
    if detach == Detach::Pending {
        rig.pass(Duration::from_millis(20));
    }
    assert!(!rig.coproc.is_attached(HOSTILE));
    assert!(matches!(
        rig.coproc.state(),
        State::Idle { .. } | State::Running(_)
    ));
    assert_eq!(rig.world().tables(), before / 2 + 1);
    rig.copy(INNOCENT);
    rig.pass(Duration::from_millis(20));
    rig.assert_copied(INNOCENT);
}
