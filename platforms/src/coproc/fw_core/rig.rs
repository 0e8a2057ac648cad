//! Domains, framework, driver, device and core together.

use alloc::boxed::Box;
use alloc::vec::Vec;

use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Coproc, Outcome, Settings, State};
use coproc_core::driver::{Driver, Hardware, Step};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::Width::{self, Double, Word};
use coproc_core::register::{Access, Operation};
use coproc_core::time::{Duration, Instant};
use fw_core_abi::{control, host};

use super::FwCore;
use super::model::{Core, Op};

/// The machine around the device.
#[derive(Default)]
pub struct Machine {
    pub core: Core,
    timer: Option<Instant>,
    masked: bool,
    pub lines: Vec<(u32, bool)>,
    pub events: Vec<(u32, Event)>,
}

impl Environment for Machine {
    fn now(&self) -> Instant {
        self.core.now()
    }
    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer = at;
    }
    fn hardware(&mut self) -> &mut dyn Hardware {
        &mut self.core
    }
    fn mask_interrupts(&mut self, masked: bool) {
        self.masked = masked;
    }
    fn interrupt_asserted(&mut self, _: usize) -> bool {
        self.core.device.interrupt_asserted()
    }
    fn interrupts_settled(&mut self) -> bool {
        !self.core.device.interrupt_asserted()
    }
    fn map_windows(&mut self, _: VcoprocId) -> bool {
        panic!("no window is direct")
    }
    fn unmap_windows(&mut self, _: VcoprocId) {
        panic!("no window is direct")
    }
    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        self.core.stream = target;
        Ok(())
    }
    fn sync_streams(&mut self) -> Step {
        Step::Done
    }
    fn take_faults(&mut self) -> Option<Faults> {
        Some(Faults::default())
    }
    fn set_interrupt(&mut self, who: VcoprocId, _: usize, pending: bool) {
        self.lines.retain(|(id, _)| *id != who.0);
        self.lines.push((who.0, pending));
    }
    fn release_parked(&mut self, _: VcoprocId) {}
    fn notify(&mut self, who: VcoprocId, event: Event) {
        self.events.push((who.0, event));
    }
}

pub struct Rig {
    pub machine: Machine,
    pub coproc: Coproc,
}

impl Rig {
    pub fn new(domains: u32, algorithm: &str, slice: Duration) -> Self {
        let mut machine = Machine::default();
        let driver: Box<dyn Driver> = Box::new(FwCore::new());
        let settings = Settings {
            slice,
            ..Settings::of(&*driver)
        };
        let algorithm = sched_algos::by_name(algorithm, &Tuning::new(slice)).unwrap();
        let now = machine.now();
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, now);
        coproc.start(&mut machine).unwrap();
        let mut rig = Self { machine, coproc };
        for who in 0..domains {
            rig.attach(who);
        }
        rig
    }

    pub fn attach(&mut self, who: u32) {
        let parameters = Parameters::default();
        let domain = DomainId(who as u16);
        self.coproc
            .attach(&mut self.machine, VcoprocId(who), domain, &parameters)
            .unwrap();
    }

    pub fn now(&self) -> Instant {
        self.machine.core.now()
    }

    /// One access; `None`: it waits.
    pub fn try_access(
        &mut self,
        who: u32,
        offset: u64,
        width: Width,
        op: Operation,
    ) -> Option<u64> {
        let access = Access {
            window: 0,
            offset,
            width,
            operation: op,
        };
        for _ in 0..4 {
            let outcome = self
                .coproc
                .access(&mut self.machine, VcoprocId(who), &access);
            self.deliver();
            match outcome {
                Outcome::Retry => {}
                Outcome::Park => return None,
                Outcome::Value(value) => return Some(value),
                // As the domain sees it.
                Outcome::Fault => return Some(width.mask()),
            }
        }
        panic!("{who} gets nowhere");
    }

    /// One access, with the wait that it needs.
    pub fn access(&mut self, who: u32, offset: u64, width: Width, op: Operation) -> u64 {
        for _ in 0..20_000 {
            if let Some(value) = self.try_access(who, offset, width, op) {
                return value;
            }
            self.pass(Duration::from_micros(20));
        }
        panic!("{who} waits for ever: {:?}", self.coproc.state());
    }

    pub fn read(&mut self, who: u32, offset: u64) -> u64 {
        self.access(who, offset, width_of(offset), Operation::Read)
    }

    pub fn write(&mut self, who: u32, offset: u64, value: u64) {
        self.access(who, offset, width_of(offset), Operation::Write(value));
    }

    /// Loads firmware and starts it at its first instruction.
    pub fn start(&mut self, who: u32, image: &[Op], argument: u64) {
        self.machine.core.load(who, image);
        self.write(who, host::ENTRY, 0);
        self.write(who, host::ARGUMENT, argument);
        self.write(who, host::CONTROL, control::START.into());
    }

    pub fn status(&mut self, who: u32) -> u32 {
        self.read(who, host::STATUS) as u32
    }

    fn deliver(&mut self) {
        if self.machine.core.device.interrupt_asserted() && !self.machine.masked {
            self.coproc.interrupt(&mut self.machine, 0);
        }
    }

    /// Lets time pass, with timer and interrupts.
    pub fn pass(&mut self, by: Duration) {
        let end = self.now() + by;
        while self.now() < end {
            let next = self.machine.timer.map_or(end, |at| at.min(end));
            let step = next.since(self.now()).max(Duration::from_nanos(1));
            self.machine.core.advance(step);
            self.deliver();
            if self.machine.timer.is_some_and(|at| at <= self.now()) {
                self.machine.timer = None;
                self.coproc.timer(&mut self.machine);
            }
        }
    }

    pub fn line(&self, who: u32) -> bool {
        self.machine.lines.contains(&(who, true))
    }

    pub fn is_quarantined(&self) -> bool {
        matches!(self.coproc.state(), State::Quarantined { .. })
    }

    /// Nobody lost anything but who is named, and the time is all there.
    pub fn assert_only_faulted(&self, guilty: &[u32]) {
        assert!(!self.is_quarantined());
        let told: Vec<u32> = self.machine.events.iter().map(|(who, _)| *who).collect();
        assert_eq!(told, guilty, "{:?}", self.machine.events);
        for (_, event) in &self.machine.events {
            assert!(matches!(event, Event::Faulted(_)));
        }
        let time = self.coproc.report(self.now()).time;
        assert!(time.balanced(), "to the nanosecond: {time:?}");
    }
}

/// The width that the register at this offset has.
pub fn width_of(offset: u64) -> Width {
    match offset {
        host::ENTRY | host::ARGUMENT | host::INBOX | host::OUTBOX => Double,
        host::CRASH_SYNDROME | host::CRASH_ADDRESS | host::CRASH_PC => Double,
        _ => Word,
    }
}
