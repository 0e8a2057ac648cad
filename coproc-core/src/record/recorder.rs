//! Between the framework and its environment, writing down what is said.

use core::cell::RefCell;

use super::event::{Answer, Call, Event, Input, Told, plain};
use super::log::Log;
use crate::Coproc;
use crate::driver::{Hardware, Step};
use crate::environment::{self, Environment, Stream};
use crate::id::VcoprocId;
use crate::iommu::{Faults, IommuError};
use crate::register::Width;
use crate::time::Instant;
use crate::trace::TraceEvent;

/// An [`Environment`] that records another one, for one input.
pub struct Recorder<'a> {
    inner: &'a mut dyn Environment,
    /// A cell, since looking at the time changes it.
    log: RefCell<&'a mut Log>,
}

impl<'a> Recorder<'a> {
    /// Feeds `input` into the framework by `call`, which must be the method that it names with the arguments that it has, and records
    /// all that comes of it. `answer` says what `call`'s result is in a record.
    pub fn feed<R>(
        inner: &'a mut dyn Environment,
        log: &'a mut Log,
        coproc: &mut Coproc,
        input: Input<'_>,
        call: impl FnOnce(&mut Coproc, &mut dyn Environment) -> R,
        answer: impl FnOnce(&R) -> Answer,
    ) -> R {
        log.add(&Event::Input(input));
        let mut recorder = Self {
            inner,
            log: RefCell::new(log),
        };
        let result = call(coproc, &mut recorder);
        let log = recorder.log.into_inner();
        let current = coproc.current();
        if current != log.current {
            log.current = current;
            log.add(&Event::Current(current));
        }
        log.add(&Event::Answer(answer(&result)));
        log.commit();
        result
    }

    #[inline]
    fn note(&self, call: Call) {
        // Nobody else has it: the framework runs on one CPU at a time.
        if let Ok(mut log) = self.log.try_borrow_mut() {
            log.add(&Event::Call(call));
        }
    }
}

impl Hardware for Recorder<'_> {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        let value = self.inner.hardware().read(window, offset, width);
        self.note(Call::Read(window, offset, width, value));
        value
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.inner.hardware().write(window, offset, width, value);
        self.note(Call::Write(window, offset, width, value));
    }

    #[inline]
    fn now(&self) -> Instant {
        Environment::now(self)
    }
}

impl Environment for Recorder<'_> {
    #[inline]
    fn now(&self) -> Instant {
        let now = self.inner.now();
        self.note(Call::Now(now));
        now
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        self.inner.arm_timer(at);
        self.note(Call::ArmTimer(at));
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        self
    }

    fn mask_interrupts(&mut self, masked: bool) {
        self.inner.mask_interrupts(masked);
        self.note(Call::Mask(masked));
    }

    fn interrupt_asserted(&mut self, index: usize) -> bool {
        let asserted = self.inner.interrupt_asserted(index);
        self.note(Call::Asserted(index, asserted));
        asserted
    }

    fn interrupts_settled(&mut self) -> bool {
        let settled = self.inner.interrupts_settled();
        self.note(Call::Settled(settled));
        settled
    }

    /// Never: what the domain does without an exit nobody could record.
    fn map_windows(&mut self, who: VcoprocId) -> bool {
        self.note(Call::Map(who, false));
        false
    }

    fn unmap_windows(&mut self, who: VcoprocId) {
        self.inner.unmap_windows(who);
        self.note(Call::Unmap(who));
    }

    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        let result = self.inner.point_streams(target);
        self.note(Call::Point(target, result.is_ok()));
        result
    }

    fn sync_streams(&mut self) -> Step {
        let step = self.inner.sync_streams();
        self.note(Call::Sync(plain(step)));
        step
    }

    fn take_faults(&mut self) -> Option<Faults> {
        let faults = self.inner.take_faults();
        self.note(Call::Faults(faults));
        faults
    }

    fn set_interrupt(&mut self, who: VcoprocId, index: usize, pending: bool) {
        self.inner.set_interrupt(who, index, pending);
        self.note(Call::Line(who, index, pending));
    }

    fn release_parked(&mut self, who: VcoprocId) {
        self.inner.release_parked(who);
        self.note(Call::Release(who));
    }

    fn notify(&mut self, who: VcoprocId, event: environment::Event) {
        self.inner.notify(who, event);
        self.note(Call::Notify(who, Told::from(event)));
    }

    /// Not in the record: it follows from what is.
    fn trace(&mut self, event: &TraceEvent) {
        self.inner.trace(event);
    }
}
