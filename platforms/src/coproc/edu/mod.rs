//! Driver for QEMU's `edu` device, `qemu,edu`.
//!
//! The registers are a table; what stands below it is what the table can't say. The device was made for teaching drivers, not
//! for being shared, and each of its corners decides something here:
//!
//! * Nothing stops it: no abort, no reset. While it computes or moves data it refuses, and when its
//!   work never ends, it is quarantined.
//! * **Its buffer is reached by its own DMA only**, 100 ms per transfer, so it is saved and restored that way through a save area.
//! * **The factorial register can't be written**, only computed. All results are n! modulo 2³² for some n ≤ 34
//!   ([`registers::FACTORIALS`]), so restoring one is computing it again with IRQFACT off.
//! * **Command bits other than "run" can't be restored**, since the restoring DMA leaves its own. A domain
//!   that reads them back after a switch sees them clear; QEMU gives them no meaning after the start.
//! * **Status doesn't prove that no interrupt comes.** The end of a DMA clears "run" and raises its interrupt in one
//!   step, but a factorial is computed by a thread that (1) clears COMPUTING, (2) looks at IRQFACT, (3) waits for QEMU's big lock, (4) raises, (5) takes
//!   the next job. An interrupt raised at (4) after a switch would go to the wrong domain. So [`settle`](Device::settle) puts a *fence*
//!   behind it: with IRQFACT off it computes once more, and when that is over, the thread has been through (5), hence every earlier raise has
//!   happened. That is proof and not a delay. The fence computes the n whose factorial the register holds already, so
//!   that changes nothing. Switching IRQFACT off could come between (1) and (2) and cost the domain its own interrupt: two
//!   instructions of QEMU apart, so a short wait beforehand makes it unlikely, and if that
//!   computation was seen running, the driver knows that the interrupt is owed and supplies it. The last step of a restore
//!   switches IRQFACT on 100 ms after the last computation, by the same reasoning: STATUS is the last one in the table that is restored.
//! * **A DMA command whose device side is outside the buffer crashes QEMU.** Where the driver sees commands (queued, or window trapped)
//!   it answers such a one with a bus error and starts nothing; a queued one is judged again at replay. In a
//!   directly mapped window it sees none: whoever can't trust a domain so far maps nothing.
//!
//! The buffer needs no scrub: every restore overwrites all of it.
//! A replayed DMA changes the buffer, so a slice with replayed work counts as one that touched the device.

#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod registers;
#[cfg(test)]
mod tests;

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{Description, Failure, Hardware, Match, Step, Window, WorstCase};
use coproc_core::register::Width::{Double, Word};
use coproc_core::table::{
    Context, Device, Doorbell, Hole, Identity, Interrupt, Narrow, Poll, Reg, Register, Rules,
    Table, TableDriver,
};
use coproc_core::time::Duration;

use registers as at;
use registers::*;

/// One transfer takes the device this long (hw/misc/edu.c), whatever its size.
const TRANSFER: Duration = Duration::from_millis(100);
/// How often to look once a transfer is due.
const TRANSFER_POLL: Duration = Duration::from_millis(1);
/// From COMPUTING clear until the device's thread has surely looked at IRQFACT: two instructions, and what the host may add.
const SETTLE: Duration = Duration::from_micros(100);
/// How often to look at a computation of the driver's own: at most 34 multiplications and a thread's wake-up.
const FENCE_POLL: Duration = Duration::from_micros(50);

/// A register that takes 4 and 8 bytes, with the parameters of a DMA.
const fn dma(name: &'static str, offset: u64) -> Register {
    Register::read_write(name, offset, Double).narrow(Narrow::ZeroExtended)
}

const TABLE: &Table = &Table {
    description: Description {
        name: "qemu,edu",
        matches: &[Match::Pci {
            vendor: VENDOR,
            device: DEVICE,
        }],
        windows: &[Window {
            name: "bar0",
            index: 0,
            size: WINDOW_SIZE,
            direct: true,
        }],
        interrupts: 1,
        streams: 1,
        own_iommu: false,
        save_area: BUFFER_SIZE,
        worst_case: WorstCase {
            // A DMA and a factorial run side by side. 0xffff_ffff takes as many multiplications: seconds of the host's
            // time, so what is promised is what is enforced.
            refusal: Duration::from_secs(10),
            stop: Duration::from_millis(5),
            save: Duration::from_millis(150),
            restore: Duration::from_millis(150),
        },
        refusal_bound: Duration::from_secs(10),
        slice: Duration::from_secs(1),
    },
    rules: &[Rules {
        window: 0,
        narrowest: Word,
        widest: Double,
        hole: Hole::Ones,
    }],
    identity: &[Identity {
        what: "edu: identification",
        window: 0,
        offset: at::ID,
        mask: Word.mask(),
        value: ID_VALUE,
    }],
    registers: &[
        Register::constant("identification", at::ID, Word, ID_VALUE),
        Register::inverted("liveness", at::LIVENESS, Word),
        dma("dma source", at::DMA_SOURCE),
        dma("dma destination", at::DMA_DESTINATION),
        dma("dma count", at::DMA_COUNT),
        Register::doorbell(
            "dma command",
            at::DMA_COMMAND,
            Double,
            Doorbell {
                starts: DMA_RUN,
                busy: Some((at::DMA_COMMAND, DMA_RUN)),
                locks: &[at::DMA_SOURCE, at::DMA_DESTINATION, at::DMA_COUNT],
                ..Doorbell::ANY
            },
        )
        .narrow(Narrow::ZeroExtended)
        .volatile(DMA_RUN),
        Register::read_write("status", at::STATUS, Word)
            .writable(STATUS_IRQFACT)
            .volatile(STATUS_COMPUTING),
        Register::doorbell(
            "factorial",
            at::FACTORIAL,
            Word,
            Doorbell {
                busy: Some((at::STATUS, STATUS_COMPUTING)),
                ..Doorbell::ANY
            },
        )
        .volatile(Word.mask()),
        // After the two above: what their ends have raised is seen here.
        Register::status("interrupt status", at::INTERRUPT_STATUS, Word),
        Register::set_of("raise", at::RAISE, Word, at::INTERRUPT_STATUS).reads(Word.mask()),
        Register::clear_of("acknowledge", at::ACKNOWLEDGE, Word, at::INTERRUPT_STATUS)
            .reads(Word.mask()),
    ],
    interrupts: &[Interrupt {
        window: 0,
        status: at::INTERRUPT_STATUS,
        enable: None,
    }],
    poll: Poll {
        first: Duration::from_micros(200),
        last: Duration::from_millis(5),
    },
};

const FACTORIAL: Reg = TABLE.reg(0, at::FACTORIAL);
const STATUS: Reg = TABLE.reg(0, at::STATUS);
const INTERRUPT_STATUS: Reg = TABLE.reg(0, at::INTERRUPT_STATUS);
const ACKNOWLEDGE: Reg = TABLE.reg(0, at::ACKNOWLEDGE);
const DMA_SOURCE: Reg = TABLE.reg(0, at::DMA_SOURCE);
const DMA_DESTINATION: Reg = TABLE.reg(0, at::DMA_DESTINATION);
const DMA_COUNT: Reg = TABLE.reg(0, at::DMA_COUNT);
const DMA_COMMAND: Reg = TABLE.reg(0, at::DMA_COMMAND);

/// The driver, for one device.
pub type Edu = TableDriver<EduDevice>;

/// What is the device's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct EduDevice;

/// What is kept for each vcoproc beside its registers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    /// A computation was seen under way with IRQFACT set: its end owes the domain an interrupt.
    owed: bool,
}

fn is_computing(hardware: &mut dyn Hardware) -> bool {
    STATUS.read(hardware) & STATUS_COMPUTING != 0
}

fn is_running(hardware: &mut dyn Hardware) -> bool {
    DMA_COMMAND.read(hardware) & DMA_RUN != 0
}

/// Starts a transfer of the whole buffer.
fn start_transfer(hardware: &mut dyn Hardware, source: u64, destination: u64, command: u64) {
    DMA_SOURCE.write(hardware, source);
    DMA_DESTINATION.write(hardware, destination);
    DMA_COUNT.write(hardware, BUFFER_SIZE);
    DMA_COMMAND.write(hardware, command | DMA_RUN);
}

/// The argument that brings the saved result back.
fn argument(context: &Context<Own>) -> Option<u32> {
    factorial_argument(u32::try_from(context.saved(FACTORIAL)).ok()?)
}

impl Device for EduDevice {
    const TABLE: &'static Table = TABLE;
    type Own = Own;

    fn allows(&self, bell: Reg, value: u64, get: &mut dyn FnMut(Reg) -> u64) -> bool {
        bell != DMA_COMMAND
            || dma_in_range(value, get(DMA_SOURCE), get(DMA_DESTINATION), get(DMA_COUNT))
    }

    fn looked(&mut self, context: &mut Context<Own>) {
        let status = context.saved(STATUS);
        context.own.owed |= status & STATUS_COMPUTING != 0 && status & STATUS_IRQFACT != 0;
    }

    fn wrote(&mut self, context: &mut Context<Own>, reg: Reg, value: u64) {
        // With STATUS the domain itself made it uncertain whether the end raises one.
        if reg == STATUS || reg == ACKNOWLEDGE && value & INTERRUPT_FACTORIAL != 0 {
            context.own.owed = false;
        }
    }

    fn settle(&mut self, context: &mut Context<Own>, hardware: &mut dyn Hardware) -> Step {
        let now = hardware.now();
        match context.stage() {
            0 => {
                if argument(context).is_none() {
                    return Step::Failed(Failure("edu: the factorial register holds none"));
                }
                if core::mem::take(&mut context.own.owed) {
                    context.raise(INTERRUPT_STATUS, INTERRUPT_FACTORIAL);
                }
                context.advance(now);
                Step::Again(SETTLE)
            }
            1 if context.waited(now) < SETTLE => {
                Step::Again(SETTLE.saturating_sub(context.waited(now)))
            }
            1 => {
                STATUS.write(hardware, 0);
                FACTORIAL.write(hardware, argument(context).unwrap_or(0).into());
                context.advance(now);
                Step::Again(FENCE_POLL)
            }
            _ if is_computing(hardware) => Step::Again(FENCE_POLL),
            _ => Step::Done,
        }
    }

    fn save(
        &mut self,
        context: &mut Context<Own>,
        hardware: &mut dyn Hardware,
        area: Option<DeviceAddress>,
    ) -> Step {
        if context.stage() > 0 {
            return if is_running(hardware) {
                Step::Again(TRANSFER_POLL)
            } else {
                Step::Done
            };
        }
        let Some(area) = area else {
            return Step::Failed(Failure("edu: no save area"));
        };
        if is_running(hardware) {
            return Step::Failed(Failure("edu: saved before it was quiet"));
        }
        start_transfer(hardware, BUFFER, area.get(), DMA_TO_MEMORY);
        context.advance(hardware.now());
        Step::Again(TRANSFER)
    }

    fn restore(
        &mut self,
        context: &mut Context<Own>,
        hardware: &mut dyn Hardware,
        area: Option<DeviceAddress>,
    ) -> Step {
        if context.stage() == 0 {
            let Some(area) = area else {
                return Step::Failed(Failure("edu: no save area"));
            };
            let Some(argument) = argument(context) else {
                return Step::Failed(Failure("edu: the saved result is no factorial"));
            };
            STATUS.write(hardware, 0);
            FACTORIAL.write(hardware, argument.into());
            start_transfer(hardware, area.get(), BUFFER, 0);
            context.advance(hardware.now());
            return Step::Again(TRANSFER);
        }
        if is_running(hardware) || is_computing(hardware) {
            return Step::Again(TRANSFER_POLL);
        }
        if FACTORIAL.read(hardware) != context.saved(FACTORIAL) {
            return Step::Failed(Failure("edu: the factorial didn't come back"));
        }
        // The transfer's own took its place.
        context.set(DMA_COMMAND, 0);
        Step::Done
    }
}
