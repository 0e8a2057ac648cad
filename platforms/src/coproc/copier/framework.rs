//! A hostile domain and an innocent one through the whole framework: a device that confines itself has no stream to cut.

use alloc::boxed::Box;
use alloc::vec::Vec;

use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Coproc, Detach, Outcome, Settings, State};
use coproc_core::driver::{Driver, Hardware, Step};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};

use super::offset::*;
use super::shadow::{BLOCK, VALID, WRITE};
use super::tests::id;
use super::world::{HOST, PAGE, RAM, Shared, domain_of};
use super::{COPY, Copier, MMU, TRANSLATE, model};

const HOSTILE: VcoprocId = VcoprocId(1);
const INNOCENT: VcoprocId = VcoprocId(2);

/// The machine around the device.
struct Machine {
    device: model::Copier<Shared>,
    world: Shared,
    timer: Option<Instant>,
    mapped: Option<VcoprocId>,
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
        &mut self.device
    }
    fn mask_interrupts(&mut self, _: bool) {}
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
    /// Cuts nothing: it only tells whose memory may be touched, by the framework's own account.
    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        self.world.allow(match target {
            Stream::Abort => None,
            Stream::Domain(who) => domain_of(who),
            Stream::Save(_) => panic!("it has no save area"),
        });
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
        self.events.push((who, event));
    }
}

struct Rig {
    machine: Machine,
    coproc: Coproc,
}

impl Rig {
    fn new(obeys: bool) -> Self {
        let world = Shared::new();
        let mut device = model::Copier::new(world.clone());
        device.obeys = obeys;
        let mut machine = Machine {
            device,
            world: world.clone(),
            timer: None,
            mapped: None,
            events: Vec::new(),
        };
        let mut driver: Box<dyn Driver> = Box::new(Copier::new());
        driver.connect(world.memory());
        let settings = Settings::of(&*driver);
        let algorithm = sched_algos::by_name("rr", &Tuning::new(settings.slice)).unwrap();
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, machine.now());
        coproc.start(&mut machine).unwrap();
        let mut rig = Self { machine, coproc };
        for domain in 0..2 {
            rig.coproc
                .attach(
                    &mut rig.machine,
                    id(domain),
                    DomainId(domain as u16 + 1),
                    &Parameters::default(),
                )
                .unwrap();
        }
        rig
    }

    /// One access as the domain's CPU does it.
    fn access(&mut self, who: VcoprocId, window: usize, offset: u64, op: Operation) -> Outcome {
        let width = match (window, offset) {
            (MMU, TABLE) => Width::Double,
            _ => Width::Word,
        };
        for _ in 0..100 {
            if self.machine.mapped == Some(who) && window == COPY {
                let device = &mut self.machine.device;
                return Outcome::Value(match op {
                    Operation::Read => device.read(COPY, offset, width),
                    Operation::Write(value) => {
                        device.write(COPY, offset, width, value);
                        0
                    }
                });
            }
            let access = Access {
                window,
                offset,
                width,
                operation: op,
            };
            match self.coproc.access(&mut self.machine, who, &access) {
                Outcome::Retry => {}
                Outcome::Park => self.pass(Duration::from_millis(1)),
                done => return done,
            }
        }
        panic!("{who} gets nowhere");
    }

    fn write(&mut self, who: VcoprocId, window: usize, offset: u64, value: u64) {
        let outcome = self.access(who, window, offset, Operation::Write(value));
        assert_eq!(outcome, Outcome::Value(0), "{window} {offset:#x}");
    }

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

    /// A domain copies its page 8 to its page 9, by tables of its own.
    fn copy(&mut self, who: VcoprocId) {
        let domain = domain_of(who).unwrap();
        let world = self.machine.world.clone();
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
        let ram = self.machine.world.ram(domain_of(who).unwrap());
        let at = (9 * PAGE) as usize;
        let word = (0x5ec7e7 + u64::from(who.0)).to_le_bytes();
        assert_eq!(ram[at..at + 8], word, "{who}");
        assert!(
            self.machine.world.violations().is_empty(),
            "{:?}",
            self.machine.world.violations()
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
    let world = rig.machine.world.clone();
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
    let tables = rig.machine.world.tables();
    for who in [HOSTILE, INNOCENT] {
        let detach = rig.coproc.detach(&mut rig.machine, who);
        assert_eq!(detach, Ok(Detach::Done));
    }
    // The device may still walk them: the set that is in it, and the empty root.
    assert_eq!(rig.machine.world.tables(), 1 + (tables - 1) / 4);
}

#[test]
fn a_detached_domains_tables_are_gone() {
    let mut rig = Rig::new(true);
    rig.copy(HOSTILE);
    rig.copy(INNOCENT);
    rig.pass(Duration::from_millis(20));
    let before = rig.machine.world.tables();
    let detach = rig.coproc.detach(&mut rig.machine, HOSTILE).unwrap();
    if detach == Detach::Pending {
        rig.pass(Duration::from_millis(20));
    }
    assert!(!rig.coproc.is_attached(HOSTILE));
    assert!(matches!(
        rig.coproc.state(),
        State::Idle { .. } | State::Running(_)
    ));
    assert_eq!(rig.machine.world.tables(), before / 2 + 1);
    rig.copy(INNOCENT);
    rig.pass(Duration::from_millis(20));
    rig.assert_copied(INNOCENT);
}
