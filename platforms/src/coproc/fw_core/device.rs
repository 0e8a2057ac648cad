//! The firmware core as hardware would be: a page of registers, a context, and a processor that obeys it.
//!
//! Two parties use it under one lock. The framework's side is registers, nothing else. The reserved CPU's side is a handful of calls, and the point where
//! they meet is [`Device::orders`]: only there does the core begin to execute, and only there has it certainly stopped. Between two of
//! these calls an instruction of the firmware may be executing at any moment, whatever was written to the registers meanwhile;
//! so a stop isn't over before the core has come to ask.
//!
//! The domain may end a run and start another one while an instruction of the first still executes, and what that one
//! then does must not befall the second: from such a write until the next `orders` nothing that the core reports counts.

use coproc_core::register::Width;
use fw_core_abi::{local_interrupt, status};

use super::context::{Context, Start};
use super::core_registers::{
    COMMAND, CONTEXT, REGISTER, REGISTERS, STATE, command, register, state,
};

/// What the reserved CPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Orders {
    /// Nothing to execute: stay at EL2 until there is a kick.
    Rest,
    /// Execute this context's firmware.
    Run {
        /// The context's number.
        context: u32,
        /// From fresh registers. Given once: who is told it has to keep to it.
        start: Option<Start>,
    },
}

/// What the driver wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Want {
    Rest,
    Run,
    /// Rest, as soon as the firmware lets go.
    Stop,
}

/// A firmware core.
#[derive(Debug)]
pub struct Device {
    loaded: Option<u32>,
    context: Context,
    want: Want,
    /// Firmware may be executing.
    executing: bool,
    /// What may be executing belongs to a run that is over.
    stale: bool,
    kick: bool,
}

impl Default for Device {
    fn default() -> Self {
        Self::new()
    }
}

/// Which of the context's registers is at this offset.
fn index_of(offset: u64) -> Option<usize> {
    let index = usize::try_from(offset.checked_sub(REGISTER)? / 8).ok()?;
    (index < REGISTERS && register(index) == offset).then_some(index)
}

impl Device {
    /// As after power-on: no context, at rest.
    pub const fn new() -> Self {
        Self {
            loaded: None,
            context: Context::new(),
            want: Want::Rest,
            executing: false,
            stale: false,
            kick: false,
        }
    }

    /// The driver reads a register. What isn't there, or not in this width, reads 0.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        if offset < COMMAND {
            return self.context.host_read(offset, width);
        }
        match offset {
            _ if width != Width::Double => 0,
            STATE => self.state(),
            CONTEXT => self
                .loaded
                .map_or(0, |number| u64::from(number).saturating_add(1)),
            _ => index_of(offset).map_or(0, |index| self.context.get(index)),
        }
    }

    /// The driver writes a register. What isn't there, or not in this width, ignores it.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) {
        if offset < COMMAND {
            return self.host_write(offset, width, value);
        }
        if width != Width::Double {
            return;
        }
        if offset == COMMAND {
            return self.command(value);
        }
        if self.executing {
            return;
        }
        if offset == CONTEXT {
            let number = value.checked_sub(1);
            self.loaded = number.and_then(|number| u32::try_from(number).ok());
        } else if let Some(index) = index_of(offset) {
            self.context.set(index, value);
        }
    }

    /// What the domain in the device writes, passed on by the driver.
    fn host_write(&mut self, offset: u64, width: Width, value: u64) {
        let before = (self.context.status, self.context.pending);
        self.context.host_write(offset, width, value);
        if self.executing && (!self.context.is_started() || self.context.start.is_some()) {
            self.stale = true;
        }
        if before != (self.context.status, self.context.pending) && self.want != Want::Rest {
            self.kick = true;
        }
    }

    fn command(&mut self, command: u64) {
        match command {
            command::RUN if self.loaded.is_some() => {
                self.want = Want::Run;
                self.withdraw();
                self.kick |= self.context.runs();
            }
            command::STOP if self.want == Want::Run => {
                self.want = Want::Stop;
                if self.executing {
                    self.ask();
                } else {
                    self.try_to_stop();
                }
                // Unless it rests by now, the core has to hear of it.
                self.kick |= self.want == Want::Stop;
            }
            command::FORCE_STOP => {
                self.want = Want::Rest;
                self.withdraw();
                self.kick |= self.executing;
            }
            command::RESET => {
                *self = Self {
                    executing: self.executing,
                    stale: self.executing,
                    kick: self.kick || self.executing,
                    ..Self::new()
                };
            }
            _ => {}
        }
    }

    /// Nobody is asked to yield any more.
    fn withdraw(&mut self) {
        self.context.paravirtual.settle();
        self.context.pending &= !local_interrupt::YIELD;
    }

    /// Whether the firmware is where it may be taken off the core. Only told truly while it doesn't execute.
    fn lets_go(&self) -> bool {
        !self.context.runs()
            || self.context.start.is_some()
            || if self.context.paravirtual.is_asked() {
                self.context.paravirtual.has_yielded()
            } else {
                self.context.critical == 0
            }
    }

    /// Asks the firmware to yield, if its domain accepted that; once.
    fn ask(&mut self) {
        if self.context.runs() && self.context.start.is_none() && self.context.paravirtual.ask() {
            self.context.raise(local_interrupt::YIELD);
        }
    }

    /// Nothing executes: fulfils the wish to stop, if the firmware lets go. Else it is asked: it may have been woken since the wish.
    fn try_to_stop(&mut self) {
        if self.want != Want::Stop {
            return;
        }
        if self.lets_go() {
            self.want = Want::Rest;
            self.withdraw();
        } else {
            self.ask();
        }
    }

    fn state(&self) -> u64 {
        let mut bits = 0;
        let mut set = |bit, condition| {
            if condition {
                bits |= bit;
            }
        };
        let asked = self.context.paravirtual.is_asked();
        let refuses = self.want == Want::Stop && !self.lets_go();
        set(state::RESTING, !self.executing && self.want == Want::Rest);
        set(state::EXECUTING, self.executing);
        set(state::WAITING, self.context.status == status::WAITING);
        set(state::RUNNABLE, self.context.runs());
        set(state::REFUSES_CRITICAL, refuses && !asked);
        set(state::REFUSES_YIELD, refuses && asked);
        bits
    }

    /// Whether the core's interrupt to the domain in it is asserted (a level).
    pub fn interrupt_asserted(&self) -> bool {
        self.context.interrupts()
    }

    /// Whether something was written that the core has to be told of since this was asked last: the reserved CPU is to be interrupted, and to ask for
    /// its [`Device::orders`].
    pub fn take_kick(&mut self) -> bool {
        core::mem::take(&mut self.kick)
    }

    /// What the core is to do. The call itself says that the core executes nothing at this moment, and that all that the firmware did was told
    /// before; after an answer of [`Orders::Run`] it may be executing until the next call.
    pub fn orders(&mut self) -> Orders {
        self.executing = false;
        self.stale = false;
        self.try_to_stop();
        match self.loaded {
            Some(context) if self.want != Want::Rest && self.context.runs() => {
                self.executing = true;
                let start = self.context.start.take();
                Orders::Run { context, start }
            }
            _ => Orders::Rest,
        }
    }

    /// Whether what the core reports is of the run that is loaded.
    fn counts(&self) -> bool {
        self.executing && !self.stale && self.context.runs()
    }

    /// The firmware executed WFI. It waits only if no interrupt that it enabled is pending.
    pub fn waits(&mut self) {
        if self.counts() {
            self.context.wait();
        }
    }

    /// The firmware can't go on: syndrome in the form of `ESR_EL2`, the address that was accessed, the instruction's address.
    pub fn crashed(&mut self, syndrome: u64, address: u64, pc: u64) {
        if self.counts() {
            self.context.crash(syndrome, address, pc);
        }
    }

    /// The firmware accessed its page of local registers: a write of this value, or a read. `None`: nothing is there, an external abort.
    pub fn local_access(&mut self, offset: u64, width: Width, write: Option<u64>) -> Option<u64> {
        if !self.counts() {
            return Some(0);
        }
        match write {
            None => self.context.local_read(offset, width),
            Some(value) => self
                .context
                .local_write(offset, width, value & width.mask())
                .map(|()| 0),
        }
    }

    /// Whether the firmware's interrupt is asserted (a level).
    pub fn virtual_interrupt(&self) -> bool {
        self.context.is_interrupted()
    }
}
