//! One context's registers, and what reading and writing them does, on the domain's and on the firmware's side.
//!
//! A domain must not be able to tell whether its vcoproc is in the device. So what an access means isn't written twice, once for the device and once
//! for the saved context: both are this, and differ only in who calls it.

use coproc_core::paravirtual::{self, Paravirtual, feature};
use coproc_core::register::Width;
use fw_core_abi::{ID, control, host, interrupt, local, local_interrupt, status};

use super::core_registers::{INTERRUPT_STATUS, REGISTERS};

const PARAVIRTUAL_END: u64 = host::PARAVIRTUAL.saturating_add(paravirtual::SIZE);

/// Where firmware starts, with all registers 0 but X0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Address of the first instruction, as the firmware sees it.
    pub entry: u64,
    /// X0 at the first instruction.
    pub argument: u64,
}

/// The registers of one context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Context {
    pub(super) status: u32,
    entry: u64,
    argument: u64,
    /// A start that wasn't carried out yet.
    pub(super) start: Option<Start>,
    inbox: u64,
    outbox: u64,
    pub(super) interrupt_status: u32,
    interrupt_enable: u32,
    exit_code: u32,
    crash_syndrome: u64,
    crash_address: u64,
    crash_pc: u64,
    /// [`local_interrupt`]s.
    pub(super) pending: u32,
    enable: u32,
    pub(super) critical: u32,
    pub(super) paravirtual: Paravirtual,
}

/// Low 32 bits.
const fn word(value: u64) -> u32 {
    (value & 0xffff_ffff) as u32
}

impl Context {
    pub(super) const fn new() -> Self {
        Self {
            status: status::STOPPED,
            entry: 0,
            argument: 0,
            start: None,
            inbox: 0,
            outbox: 0,
            interrupt_status: 0,
            interrupt_enable: 0,
            exit_code: 0,
            crash_syndrome: 0,
            crash_address: 0,
            crash_pc: 0,
            pending: 0,
            enable: 0,
            critical: 0,
            paravirtual: Paravirtual::new(feature::YIELD, 0),
        }
    }

    /// Whether there is an instruction to be executed.
    pub(super) const fn runs(&self) -> bool {
        self.status == status::RUNNING
    }

    /// Whether it was started and hasn't ended.
    pub(super) const fn is_started(&self) -> bool {
        matches!(self.status, status::RUNNING | status::WAITING)
    }

    /// Whether the domain's interrupt is asserted.
    pub(super) const fn interrupts(&self) -> bool {
        self.interrupt_status & self.interrupt_enable != 0
    }

    /// Whether the firmware's interrupt is asserted.
    pub(super) const fn is_interrupted(&self) -> bool {
        self.pending & self.enable != 0
    }

    /// Raises the firmware's interrupts; ends its waiting, if it listens.
    pub(super) const fn raise(&mut self, bits: u32) {
        if self.is_started() {
            self.pending |= bits;
            if self.is_interrupted() {
                self.status = status::RUNNING;
            }
        }
    }

    /// The firmware executed WFI.
    pub(super) const fn wait(&mut self) {
        if self.runs() && !self.is_interrupted() {
            self.status = status::WAITING;
        }
    }

    /// Ends the run; what the domain has still to see of it stays.
    const fn end(&mut self, status: u32) {
        self.status = status;
        self.start = None;
        self.pending = 0;
        self.enable = 0;
        self.critical = 0;
        self.paravirtual.settle();
    }

    /// The firmware did what it can't go on from.
    pub(super) const fn crash(&mut self, syndrome: u64, address: u64, pc: u64) {
        self.end(status::CRASHED);
        self.crash_syndrome = syndrome;
        self.crash_address = address;
        self.crash_pc = pc;
        self.interrupt_status |= interrupt::ENDED;
    }

    /// A start from nothing: no trace of an earlier run is left.
    const fn start(&mut self) {
        if self.is_started() {
            return;
        }
        self.end(status::RUNNING);
        self.start = Some(Start {
            entry: self.entry,
            argument: self.argument,
        });
        self.outbox = 0;
        self.interrupt_status = 0;
        self.exit_code = 0;
        self.crash_syndrome = 0;
        self.crash_address = 0;
        self.crash_pc = 0;
    }

    /// The domain reads. What isn't there, or not in this width, reads 0.
    pub(super) const fn host_read(&self, offset: u64, width: Width) -> u64 {
        if offset >= host::PARAVIRTUAL && offset < PARAVIRTUAL_END {
            let offset = offset.saturating_sub(host::PARAVIRTUAL);
            return self.paravirtual.read(offset, width);
        }
        match (offset, width) {
            (host::ID, Width::Word) => ID as u64,
            (host::STATUS, Width::Word) => self.status as u64,
            (host::ENTRY, Width::Double) => self.entry,
            (host::ARGUMENT, Width::Double) => self.argument,
            (host::INBOX, Width::Double) => self.inbox,
            (host::OUTBOX, Width::Double) => self.outbox,
            (host::INTERRUPT_STATUS, Width::Word) => self.interrupt_status as u64,
            (host::INTERRUPT_ENABLE, Width::Word) => self.interrupt_enable as u64,
            (host::EXIT_CODE, Width::Word) => self.exit_code as u64,
            (host::CRASH_SYNDROME, Width::Double) => self.crash_syndrome,
            (host::CRASH_ADDRESS, Width::Double) => self.crash_address,
            (host::CRASH_PC, Width::Double) => self.crash_pc,
            _ => 0,
        }
    }

    /// The domain writes. What isn't there, or not in this width, ignores it.
    pub(super) const fn host_write(&mut self, offset: u64, width: Width, value: u64) {
        if offset >= host::PARAVIRTUAL && offset < PARAVIRTUAL_END {
            let offset = offset.saturating_sub(host::PARAVIRTUAL);
            let working = self.is_started();
            return self.paravirtual.write(offset, width, value, working);
        }
        match (offset, width) {
            (host::CONTROL, Width::Word) => match word(value) {
                control::START => self.start(),
                control::STOP if self.is_started() => self.end(status::STOPPED),
                _ => {}
            },
            (host::ENTRY, Width::Double) => self.entry = value,
            (host::ARGUMENT, Width::Double) => self.argument = value,
            (host::INBOX, Width::Double) => self.inbox = value,
            (host::DOORBELL, Width::Word) => self.raise(local_interrupt::DOORBELL),
            (host::INTERRUPT_ENABLE, Width::Word) => {
                self.interrupt_enable = word(value) & interrupt::ALL;
            }
            (host::INTERRUPT_ACKNOWLEDGE, Width::Word) => self.interrupt_status &= !word(value),
            _ => {}
        }
    }

    /// The firmware reads; `None` where no register is.
    pub(super) const fn local_read(&self, offset: u64, width: Width) -> Option<u64> {
        Some(match (offset, width) {
            (local::ID, Width::Word) => ID as u64,
            (local::PENDING, Width::Word) => self.pending as u64,
            (local::ENABLE, Width::Word) => self.enable as u64,
            (local::INBOX, Width::Double) => self.inbox,
            (local::CRITICAL, Width::Word) => self.critical as u64,
            (local::FEATURES, Width::Word) => self.paravirtual.accepted() as u64,
            // Write-only.
            (local::ACKNOWLEDGE | local::YIELD | local::EXIT, Width::Word)
            | (local::OUTBOX, Width::Double) => 0,
            _ => return None,
        })
    }

    /// The firmware writes; `None` where no register is.
    pub(super) const fn local_write(
        &mut self,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Option<()> {
        match (offset, width) {
            // Read-only.
            (local::ID | local::PENDING | local::FEATURES, Width::Word)
            | (local::INBOX, Width::Double) => {}
            (local::ENABLE, Width::Word) => self.enable = word(value) & local_interrupt::ALL,
            (local::ACKNOWLEDGE, Width::Word) => self.pending &= !word(value),
            (local::OUTBOX, Width::Double) => {
                self.outbox = value;
                self.interrupt_status |= interrupt::OUTBOX;
            }
            (local::CRITICAL, Width::Word) => self.critical = word(value),
            (local::YIELD, Width::Word) => self.paravirtual.give(),
            (local::EXIT, Width::Word) => {
                self.end(status::EXITED);
                self.exit_code = word(value);
                self.interrupt_status |= interrupt::ENDED;
            }
            _ => return None,
        }
        Some(())
    }

    /// All of it, as [`core_registers::register`](super::core_registers::register)s.
    pub(super) const fn save(&self) -> [u64; REGISTERS] {
        let (started, start) = match self.start {
            Some(start) => (1, start),
            None => (
                0,
                Start {
                    entry: 0,
                    argument: 0,
                },
            ),
        };
        [
            // The start's mark shares the status's register: the two change together.
            self.status as u64 | started << 32,
            self.entry,
            self.argument,
            start.entry,
            start.argument,
            self.inbox,
            self.interrupt_status as u64,
            self.interrupt_enable as u64,
            self.outbox,
            self.exit_code as u64,
            self.crash_syndrome,
            self.crash_address,
            self.crash_pc,
            self.pending as u64,
            self.enable as u64,
            self.critical as u64,
            self.paravirtual.save(),
        ]
    }

    /// The inverse of [`Context::save`].
    pub(super) const fn load(saved: &[u64; REGISTERS]) -> Self {
        let [
            status,
            entry,
            argument,
            start_entry,
            start_argument,
            inbox,
            interrupt_status,
            interrupt_enable,
            outbox,
            exit_code,
            crash_syndrome,
            crash_address,
            crash_pc,
            pending,
            enable,
            critical,
            agreement,
        ] = *saved;
        let mut context = Self::new();
        context.paravirtual.restore(agreement);
        let start = Start {
            entry: start_entry,
            argument: start_argument,
        };
        Self {
            status: word(status),
            entry,
            argument,
            start: if status >> 32 & 1 != 0 {
                Some(start)
            } else {
                None
            },
            inbox,
            outbox,
            interrupt_status: word(interrupt_status),
            interrupt_enable: word(interrupt_enable),
            exit_code: word(exit_code),
            crash_syndrome,
            crash_address,
            crash_pc,
            pending: word(pending),
            enable: word(enable),
            critical: word(critical),
            ..context
        }
    }

    /// One register of [`Context::save`].
    pub(super) fn get(&self, index: usize) -> u64 {
        self.save().get(index).copied().unwrap_or(0)
    }

    /// Writes one register of [`Context::save`].
    pub(super) fn set(&mut self, index: usize, value: u64) {
        let mut saved = self.save();
        if let Some(register) = saved.get_mut(index) {
            *register = value;
        }
        *self = Self::load(&saved);
    }
}

const _: () = assert!(INTERRUPT_STATUS < REGISTERS);
