//! Domains, framework, driver, device and core together.

use alloc::boxed::Box;
use alloc::vec::Vec;

use coproc_core::coproc::{Outcome, State};
use coproc_core::environment::{Event, Stream};
use coproc_core::id::VcoprocId;
use coproc_core::register::Width::{self, Double, Word};
use coproc_core::register::{Access, Operation};
use coproc_core::time::Duration;
use fw_core_abi::{control, host};

use super::super::rig::{Device, Machine};
use super::FwCore;
use super::model::{Core, Op};

impl Device for Core {
    fn advance(&mut self, by: Duration) {
        self.advance(by);
    }
    fn asserts(&self) -> bool {
        self.device.interrupt_asserted()
    }
    fn point(&mut self, target: Stream) {
        self.stream = target;
    }
}

pub type Rig = super::super::rig::Rig<Core>;

/// What a domain sees of an access's end.
fn seen(outcome: Outcome, width: Width) -> u64 {
    match outcome {
        Outcome::Value(value) => value,
        _ => width.mask(),
    }
}

impl Rig {
    pub fn new(domains: u32, algorithm: &str, slice: Duration) -> Self {
        let driver = Box::new(FwCore::new());
        let mut rig = Self::of(Machine::default(), driver, algorithm, Some(slice));
        for who in 0..domains {
            rig.attach(VcoprocId(who));
        }
        rig
    }

    /// One access; `None`: it waits.
    pub fn try_access(
        &mut self,
        who: u32,
        offset: u64,
        width: Width,
        op: Operation,
    ) -> Option<u64> {
        let outcome = self.attempt(VcoprocId(who), &access(offset, width, op))?;
        Some(seen(outcome, width))
    }

    /// One access, with the wait that it needs.
    pub fn access(&mut self, who: u32, offset: u64, width: Width, op: Operation) -> u64 {
        let outcome = self.wait(VcoprocId(who), &access(offset, width, op));
        seen(outcome, width)
    }

    pub fn read(&mut self, who: u32, offset: u64) -> u64 {
        self.access(who, offset, width_of(offset), Operation::Read)
    }

    pub fn write(&mut self, who: u32, offset: u64, value: u64) {
        self.access(who, offset, width_of(offset), Operation::Write(value));
    }

    /// Loads firmware and starts it at its first instruction.
    pub fn start(&mut self, who: u32, image: &[Op], argument: u64) {
        self.machine.device.load(who, image);
        self.write(who, host::ENTRY, 0);
        self.write(who, host::ARGUMENT, argument);
        self.write(who, host::CONTROL, control::START.into());
    }

    pub fn status(&mut self, who: u32) -> u32 {
        self.read(who, host::STATUS) as u32
    }

    pub fn line(&self, who: u32) -> bool {
        self.machine.lines.contains(&(VcoprocId(who), true))
    }

    pub fn is_quarantined(&self) -> bool {
        matches!(self.coproc.state(), State::Quarantined { .. })
    }

    /// Nobody lost anything but who is named, and the time is all there.
    pub fn assert_only_faulted(&self, guilty: &[u32]) {
        assert!(!self.is_quarantined());
        let told: Vec<u32> = self.machine.events.iter().map(|(who, _)| who.0).collect();
        assert_eq!(told, guilty, "{:?}", self.machine.events);
        for (_, event) in &self.machine.events {
            assert!(matches!(event, Event::Faulted(_)));
        }
        self.assert_books();
    }
}

const fn access(offset: u64, width: Width, operation: Operation) -> Access {
    Access {
        window: 0,
        offset,
        width,
        operation,
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
