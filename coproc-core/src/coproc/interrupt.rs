//! Whose interrupt it is.
//!
//! A physical interrupt says that the device wanted something a while ago. By the time that it is handled the device may have
//! been taken from the one it was for. So the handler believes nothing: it reads the owner and the device's
//! status again, and passes on only what the device asserts now for the one whose context is in it. What comes in between
//! two owners is masked at its source; the status stays in the device until it is drained into the context it belongs to.
//!
//! A virtual line is never an event of its own, only ever the truth of the moment, taken from wherever it is: the device
//! for the one whose context is in it, the saved context for all others. The source stays masked while the line is
//! high, so that a domain that doesn't acknowledge costs nothing.

use super::stage::Stage;
use super::state::Place;
use super::{Coproc, bump};
use crate::environment::Environment;
use crate::id::VcoprocId;
use crate::trace::TraceKind;

impl Coproc {
    fn lines(&self) -> usize {
        self.description.interrupts
    }

    /// The physical interrupt `index` was taken.
    pub fn interrupt(&mut self, env: &mut dyn Environment, index: usize) {
        if index >= self.lines() || !env.interrupt_asserted(index) {
            bump(&mut self.spurious_interrupts);
            return self.note(env, None, TraceKind::SpuriousInterrupt(index));
        }
        // At its source, so that the interrupt controller's line can be let go.
        env.mask_interrupts(true);
        if !self.stage.is_slice() {
            bump(&mut self.late_interrupts);
            self.note(env, self.holder, TraceKind::LateInterrupt(index));
        } else if self.alive(self.slice.who) {
            let who = self.slice.who;
            self.count_one(who, |c| &mut c.interrupts);
            env.set_interrupt(who, index, true);
            self.note(env, Some(who), TraceKind::Interrupt(index));
        }
        if self.stage == Stage::Quiescing {
            // What the device refused for may just have ended.
            self.resume = None;
            self.advance(env);
        }
    }

    /// The vcoproc's virtual interrupt `index` was deactivated, or unmasked, or its configuration space written: sets the line from the
    /// truth again, and unmasks the source if the device asserts nothing.
    pub fn resample(&mut self, env: &mut dyn Environment, who: VcoprocId, index: usize) {
        if index >= self.lines() {
            return;
        }
        if !self.alive(who) {
            return self.lower_lines(env, who);
        }
        match self.place(who) {
            Place::Current | Place::Stopping | Place::Resident => self.refresh_lines(env, who),
            Place::Context | Place::Leaving | Place::Arriving => {
                self.context_lines(env, who);
            }
            // Set from the context as soon as that has the status; or lowered for ever.
            Place::Draining | Place::Lost => {}
        }
    }

    /// Whether the vcoproc's interrupt `index` is pending, before the domain's own masking (PCI: Status.INTx).
    pub fn interrupt_pending(
        &mut self,
        env: &mut dyn Environment,
        who: VcoprocId,
        index: usize,
    ) -> bool {
        if index >= self.lines() || !self.alive(who) {
            return false;
        }
        let hardware = match self.place(who) {
            Place::Current | Place::Stopping | Place::Resident => true,
            Place::Draining => {
                if self.driver.interrupt_pending(who, index, None) {
                    return true;
                }
                true
            }
            Place::Context | Place::Leaving | Place::Arriving => false,
            Place::Lost => return false,
        };
        if hardware {
            let hardware = Some(env.hardware());
            self.driver.interrupt_pending(who, index, hardware)
        } else {
            self.driver.interrupt_pending(who, index, None)
        }
    }

    /// Whether any interrupt is pending in the device, which holds `who`'s context.
    #[inline(always)]
    pub(super) fn live_pending(&mut self, env: &mut dyn Environment, who: VcoprocId) -> bool {
        (0..self.lines()).any(|index| {
            let hardware = Some(env.hardware());
            self.driver.interrupt_pending(who, index, hardware)
        })
    }

    /// Sets the lines of the one whose context is in the device. While it may use the device the source is unmasked when
    /// nothing is asserted, and masked otherwise.
    #[inline(always)]
    pub(super) fn refresh_lines(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        self.live_lines(env, who, self.stage.is_slice());
    }

    /// The same; `owned`: it may use the device.
    #[inline(always)]
    pub(super) fn live_lines(&mut self, env: &mut dyn Environment, who: VcoprocId, owned: bool) {
        let mut any = false;
        for index in 0..self.lines() {
            let hardware = Some(env.hardware());
            let pending = self.driver.interrupt_pending(who, index, hardware)
                || env.interrupt_asserted(index);
            any |= pending;
            env.set_interrupt(who, index, pending);
        }
        if owned {
            env.mask_interrupts(any);
        }
    }

    /// Sets the lines of one whose interrupt status is in its saved context.
    /// Returns whether any is pending.
    #[inline(always)]
    pub(super) fn context_lines(&mut self, env: &mut dyn Environment, who: VcoprocId) -> bool {
        let mut any = false;
        for index in 0..self.lines() {
            let pending = self.alive(who) && self.driver.interrupt_pending(who, index, None);
            any |= pending;
            env.set_interrupt(who, index, pending);
        }
        any
    }

    /// Takes the lines from one that lost the device.
    #[inline(always)]
    pub(super) fn lower_lines(&mut self, env: &mut dyn Environment, who: VcoprocId) {
        for index in 0..self.lines() {
            env.set_interrupt(who, index, false);
        }
    }
}
