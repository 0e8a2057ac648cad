//! Domains, framework and driver around a model of a device, for the drivers' tests: what is the same for each of them.

use alloc::boxed::Box;
use alloc::vec::Vec;

use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Coproc, Outcome, Settings};
use coproc_core::driver::{Driver, Hardware, Step};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::{Access, Operation};
use coproc_core::time::{Duration, Instant};

/// A model of a device, with its time.
pub trait Device: Hardware {
    fn advance(&mut self, by: Duration);
    fn asserts(&self) -> bool;
    fn point(&mut self, _: Stream) {}
}

/// Which windows a domain may reach without an exit.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub enum Direct {
    #[default]
    Nothing,
    Window(usize),
    Everything,
}

/// The machine around the device.
#[derive(Default)]
pub struct Machine<D> {
    pub device: D,
    pub direct: Direct,
    pub timer: Option<Instant>,
    pub mapped: Option<VcoprocId>,
    pub masked: bool,
    pub lines: Vec<(VcoprocId, bool)>,
    pub events: Vec<(VcoprocId, Event)>,
}

impl<D: Device> Environment for Machine<D> {
    fn now(&self) -> Instant {
        self.device.now()
    }
    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer = at;
    }
    fn hardware(&mut self) -> &mut dyn Hardware {
        if self.direct == Direct::Everything {
            assert_eq!(self.mapped, None, "reached while a domain may reach it too");
        }
        &mut self.device
    }
    fn mask_interrupts(&mut self, masked: bool) {
        self.masked = masked;
    }
    fn interrupt_asserted(&mut self, _: usize) -> bool {
        self.device.asserts()
    }
    fn interrupts_settled(&mut self) -> bool {
        !self.device.asserts()
    }
    fn map_windows(&mut self, who: VcoprocId) -> bool {
        assert!(self.direct != Direct::Nothing, "no window is direct");
        self.mapped = Some(who);
        true
    }
    fn unmap_windows(&mut self, who: VcoprocId) {
        assert_eq!(self.mapped.take(), Some(who));
    }
    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        self.device.point(target);
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

/// A coprocessor under the framework, and its machine.
pub struct Rig<D> {
    pub machine: Machine<D>,
    pub coproc: Coproc,
}

impl<D: Device> Rig<D> {
    /// Started, with nobody attached. `slice`: the driver's own if it's `None`.
    pub fn of(
        mut machine: Machine<D>,
        driver: Box<dyn Driver>,
        algorithm: &str,
        slice: Option<Duration>,
    ) -> Self {
        let own = Settings::of(&*driver);
        let settings = Settings {
            slice: slice.unwrap_or(own.slice),
            ..own
        };
        let algorithm = sched_algos::by_name(algorithm, &Tuning::new(settings.slice)).unwrap();
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, machine.now());
        coproc.start(&mut machine).unwrap();
        Self { machine, coproc }
    }

    pub fn attach(&mut self, who: VcoprocId) {
        let (domain, parameters) = (DomainId(who.0 as u16), Parameters::default());
        self.coproc
            .attach(&mut self.machine, who, domain, &parameters)
            .unwrap();
    }

    pub fn now(&self) -> Instant {
        self.machine.now()
    }

    /// One access as the domain's CPU does it; `None`: it waits.
    pub fn attempt(&mut self, who: VcoprocId, access: &Access) -> Option<Outcome> {
        let direct = match self.machine.direct {
            Direct::Nothing => false,
            Direct::Window(window) => window == access.window,
            Direct::Everything => true,
        };
        for _ in 0..4 {
            if direct && self.machine.mapped == Some(who) {
                let (window, offset, width) = (access.window, access.offset, access.width);
                let device = &mut self.machine.device;
                return Some(Outcome::Value(match access.operation {
                    Operation::Read => device.read(window, offset, width),
                    Operation::Write(value) => {
                        device.write(window, offset, width, value);
                        0
                    }
                }));
            }
            let outcome = self.coproc.access(&mut self.machine, who, access);
            self.deliver();
            match outcome {
                Outcome::Retry => {}
                Outcome::Park => return None,
                done => return Some(done),
            }
        }
        panic!("{who} gets nowhere");
    }

    /// One access, with the wait that it needs.
    pub fn wait(&mut self, who: VcoprocId, access: &Access) -> Outcome {
        for _ in 0..20_000 {
            if let Some(outcome) = self.attempt(who, access) {
                return outcome;
            }
            self.pass(Duration::from_micros(20));
        }
        panic!("{who} waits for ever: {:?}", self.coproc.state());
    }

    fn deliver(&mut self) {
        if self.machine.device.asserts() && !self.machine.masked {
            self.coproc.interrupt(&mut self.machine, 0);
        }
    }

    /// Lets time pass, with timer and interrupts.
    pub fn pass(&mut self, by: Duration) {
        let end = self.now() + by;
        while self.now() < end {
            let next = self.machine.timer.map_or(end, |at| at.min(end));
            let step = next.since(self.now()).max(Duration::from_nanos(1));
            self.machine.device.advance(step);
            self.deliver();
            if self.machine.timer.is_some_and(|at| at <= self.now()) {
                self.machine.timer = None;
                self.coproc.timer(&mut self.machine);
            }
        }
    }

    /// The books: nothing is lost.
    pub fn assert_books(&self) {
        let time = self.coproc.report(self.now()).time;
        assert!(time.balanced(), "to the nanosecond: {time:?}");
    }
}
