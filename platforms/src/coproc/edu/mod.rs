//! Driver for QEMU's `edu` device, `qemu,edu`.
//!
//! The device was made for teaching drivers, not for being shared, and each of its corners decides something here:
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
//!   the next job. An interrupt raised at (4) after a switch would go to the wrong domain. So [`Drain`](Driver::drain) puts a *fence*
//!   behind it: with IRQFACT off it computes once more, and when that is over, the thread has been through (5), hence every earlier raise has
//!   happened. That is proof and not a delay. The fence computes the n whose factorial the register holds already, so
//!   that changes nothing. Switching IRQFACT off could come between (1) and (2) and cost the domain its own interrupt: two
//!   instructions of QEMU apart, so a short wait beforehand makes it unlikely, and if [`quiet`](Driver::quiet) had seen that
//!   computation running, the driver knows that the interrupt is owed and supplies it. The last step of a restore
//!   switches IRQFACT on 100 ms after the last computation, by the same reasoning.
//! * **A DMA command whose device side is outside the buffer crashes QEMU.** Where the driver sees commands (queued, or window trapped)
//!   it answers such a one with a bus error and starts nothing; a queued one is judged again at replay. In a
//!   directly mapped window it sees none: whoever can't trust a domain so far maps nothing.
//!
//! [`scrub`](Driver::scrub) has nothing to do: every restore overwrites every register and the whole buffer.
//! A replayed DMA changes the buffer, so a slice with replayed work counts as one that touched the device.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod context;
#[cfg(any(test, feature = "model"))]
pub mod model;
pub mod registers;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{
    Description, Driver, DriverError, Failure, Hardware, Match, Step, Verdict, Window, WorstCase,
};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};

use context::{Context, Doorbell, Live, Phase, Progress, read, word, write};
use registers::*;

/// One transfer takes the device this long (hw/misc/edu.c), whatever its size.
const TRANSFER: Duration = Duration::from_millis(100);
/// How often to look once a transfer is due.
const TRANSFER_POLL: Duration = Duration::from_millis(1);
/// How often to look while the domain's own transfer is under way.
const REFUSAL_DMA: Duration = Duration::from_millis(5);
/// First and last wait for the domain's own computation, doubled between: most take microseconds, some take seconds.
const REFUSAL_COMPUTING: (u64, u64) = (200_000, 5_000_000);
/// From COMPUTING clear until the device's thread has surely looked at IRQFACT: two instructions, and what the host may add.
const SETTLE: Duration = Duration::from_micros(100);
/// How often to look at a computation of the driver's own: at most 34 multiplications and a thread's wake-up.
const FENCE_POLL: Duration = Duration::from_micros(50);
/// A step that the device owes in 100 ms and hasn't done after this never ends.
const GIVE_UP: Duration = Duration::from_secs(2);

static DESCRIPTION: Description = Description {
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
};

const UNKNOWN: Step = Step::Failed(Failure("edu: the vcoproc has no context"));

/// The driver, for one device.
#[derive(Debug, Default)]
pub struct Edu {
    contexts: Vec<(VcoprocId, Context)>,
}

impl Edu {
    /// A driver with no context.
    pub const fn new() -> Self {
        Self {
            contexts: Vec::new(),
        }
    }

    fn context(&mut self, who: VcoprocId) -> Option<&mut Context> {
        self.contexts
            .iter_mut()
            .find(|(id, _)| *id == who)
            .map(|(_, context)| context)
    }
}

fn is_computing(hardware: &mut dyn Hardware) -> bool {
    read(hardware, STATUS) & STATUS_COMPUTING != 0
}

fn is_running(hardware: &mut dyn Hardware) -> bool {
    hardware.read(0, DMA_COMMAND, Width::Double) & DMA_RUN != 0
}

/// Starts a transfer of the whole buffer.
fn start_transfer(hardware: &mut dyn Hardware, source: u64, destination: u64, command: u64) {
    hardware.write(0, DMA_SOURCE, Width::Double, source);
    hardware.write(0, DMA_DESTINATION, Width::Double, destination);
    hardware.write(0, DMA_COUNT, Width::Double, BUFFER_SIZE);
    hardware.write(0, DMA_COMMAND, Width::Double, command | DMA_RUN);
}

/// Takes the interrupt status away from the device; whether it then reads 0.
fn take_interrupts(hardware: &mut dyn Hardware, into: &mut u32) -> bool {
    let pending = word(hardware, INTERRUPT_STATUS);
    if pending == 0 {
        return true;
    }
    *into |= pending;
    write(hardware, ACKNOWLEDGE, pending.into());
    word(hardware, INTERRUPT_STATUS) == 0
}

/// `Again(after)`, or `Failed` if the device should have been ready long ago.
fn again_since(now: Instant, since: Instant, after: Duration, what: &'static str) -> Step {
    if now.since(since) > GIVE_UP {
        Step::Failed(Failure(what))
    } else {
        Step::Again(after)
    }
}

/// Puts the registers that can be written into the device. IRQFACT last: see the module's text.
fn write_registers(context: &Context, hardware: &mut dyn Hardware) {
    write(hardware, LIVENESS, (!context.liveness).into());
    hardware.write(0, DMA_SOURCE, Width::Double, context.source);
    hardware.write(0, DMA_DESTINATION, Width::Double, context.destination);
    hardware.write(0, DMA_COUNT, Width::Double, context.count);
    let irqfact = if context.irqfact { STATUS_IRQFACT } else { 0 };
    write(hardware, STATUS, irqfact);
}

/// Passes an access of the current domain on to the device, unless it is a DMA command that mustn't reach it.
fn forward(access: &Access, hardware: &mut dyn Hardware) -> Verdict {
    let (offset, width) = (access.offset, access.width);
    let Operation::Write(value) = access.operation else {
        return Verdict::Value(hardware.read(0, offset, width) & width.mask());
    };
    let value = value & width.mask();
    if offset == DMA_COMMAND && value & DMA_RUN != 0 {
        if is_running(hardware) {
            return Verdict::Value(0);
        }
        let source = hardware.read(0, DMA_SOURCE, Width::Double);
        let destination = hardware.read(0, DMA_DESTINATION, Width::Double);
        let count = hardware.read(0, DMA_COUNT, Width::Double);
        if !dma_in_range(value, source, destination, count) {
            return Verdict::Fault;
        }
    }
    hardware.write(0, offset, width, value);
    Verdict::Value(0)
}

impl Driver for Edu {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn probe(&mut self, hardware: &mut dyn Hardware) -> Result<(), DriverError> {
        let expect = |what, expected, found| {
            if found == expected {
                Ok(())
            } else {
                Err(DriverError::WrongDevice {
                    what,
                    expected,
                    found,
                })
            }
        };
        expect("edu: identification", ID_VALUE, read(hardware, ID))?;
        // Nothing can stop it, and a probe doesn't wait: who left it working has to wait for it.
        let busy = u64::from(is_computing(hardware)) | u64::from(is_running(hardware));
        expect("edu: busy before it was shared", 0, busy)?;
        write(hardware, STATUS, 0);
        write(hardware, ACKNOWLEDGE, Width::Word.mask());
        let status = read(hardware, INTERRUPT_STATUS);
        expect("edu: interrupt status after acknowledge", 0, status)
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        if self.context(who).is_some() {
            return Err(DriverError::Duplicate(who));
        }
        self.contexts
            .try_reserve(1)
            .map_err(|_| DriverError::OutOfMemory)?;
        self.contexts.push((who, Context::new()));
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId) {
        self.contexts.retain(|(id, _)| *id != who);
    }

    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = self.context(who) else {
            return UNKNOWN;
        };
        context.progress = Progress::Idle;
        match context.phase {
            Phase::Present => context.begin_leaving(hardware),
            Phase::Leaving(_) => context.look(hardware),
            Phase::Away => {}
        }
        let (computing, running) = match context.phase {
            Phase::Leaving(live) => (live.computing, live.running),
            _ => (is_computing(hardware), is_running(hardware)),
        };
        if !computing && !running {
            context.refusals = 0;
            return Step::Done;
        }
        let (first, last) = REFUSAL_COMPUTING;
        let doubled = first.checked_shl(context.refusals.min(16)).unwrap_or(last);
        context.refusals = context.refusals.saturating_add(1);
        // With both under way the computation sets the pace: its end can't be foretold.
        Step::Again(if computing {
            Duration::from_nanos(doubled.min(last))
        } else {
            REFUSAL_DMA
        })
    }

    fn drain(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = self.context(who) else {
            return UNKNOWN;
        };
        let now = hardware.now();
        match context.progress {
            Progress::Settling(since) if now.since(since) < SETTLE => {
                Step::Again(SETTLE.saturating_sub(now.since(since)))
            }
            Progress::Settling(_) => {
                let argument = factorial_argument(context.factorial).unwrap_or(0);
                write(hardware, STATUS, 0);
                write(hardware, FACTORIAL, argument.into());
                context.progress = Progress::Fencing(now);
                Step::Again(FENCE_POLL)
            }
            Progress::Fencing(since) => {
                if is_computing(hardware) || !take_interrupts(hardware, &mut context.interrupts) {
                    let what = "edu: interrupts don't come to rest";
                    return again_since(now, since, FENCE_POLL, what);
                }
                context.progress = Progress::Idle;
                Step::Done
            }
            Progress::Idle | Progress::Saving(_) | Progress::Restoring(_) => {
                match context.phase {
                    Phase::Present => context.begin_leaving(hardware),
                    Phase::Leaving(_) => context.look(hardware),
                    Phase::Away => {}
                }
                if is_computing(hardware) || is_running(hardware) {
                    return Step::Again(REFUSAL_DMA);
                }
                if let Phase::Leaving(Live { owed, .. }) = context.phase {
                    let result = word(hardware, FACTORIAL);
                    if factorial_argument(result).is_none() {
                        return Step::Failed(Failure("edu: the factorial register holds none"));
                    }
                    context.factorial = result;
                    context.phase = Phase::Away;
                    if owed {
                        context.interrupts |= (INTERRUPT_FACTORIAL & 0xffff_ffff) as u32;
                    }
                }
                take_interrupts(hardware, &mut context.interrupts);
                context.progress = Progress::Settling(now);
                Step::Again(SETTLE)
            }
        }
    }

    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step {
        let Some(context) = self.context(who) else {
            return UNKNOWN;
        };
        let now = hardware.now();
        if let Progress::Saving(since) = context.progress {
            if is_running(hardware) {
                let what = "edu: the save transfer doesn't end";
                return again_since(now, since, TRANSFER_POLL, what);
            }
            context.progress = Progress::Idle;
            return Step::Done;
        }
        let Some(area) = save_area else {
            return Step::Failed(Failure("edu: no save area"));
        };
        if context.phase != Phase::Away || is_running(hardware) {
            return Step::Failed(Failure("edu: saved before it was quiet and drained"));
        }
        // The registers went into the context when it was drained.
        start_transfer(hardware, BUFFER, area.get(), DMA_TO_MEMORY);
        context.progress = Progress::Saving(now);
        Step::Again(TRANSFER)
    }

    fn scrub(&mut self, who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        match self.context(who) {
            Some(_) => Step::Done,
            None => UNKNOWN,
        }
    }

    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step {
        let Some(context) = self.context(who) else {
            return UNKNOWN;
        };
        let now = hardware.now();
        let Progress::Restoring(since) = context.progress else {
            let Some(area) = save_area else {
                return Step::Failed(Failure("edu: no save area"));
            };
            let Some(argument) = factorial_argument(context.factorial) else {
                return Step::Failed(Failure("edu: the saved result is no factorial"));
            };
            // It would ignore what comes now.
            if is_computing(hardware) || is_running(hardware) {
                return Step::Failed(Failure("edu: restored while busy"));
            }
            write(hardware, STATUS, 0);
            write(hardware, FACTORIAL, argument.into());
            start_transfer(hardware, area.get(), BUFFER, 0);
            context.progress = Progress::Restoring(now);
            return Step::Again(TRANSFER);
        };
        if is_running(hardware) || is_computing(hardware) {
            let what = "edu: the restore transfer doesn't end";
            return again_since(now, since, TRANSFER_POLL, what);
        }
        context.progress = Progress::Idle;
        if word(hardware, FACTORIAL) != context.factorial {
            return Step::Failed(Failure("edu: the factorial didn't come back"));
        }
        write(hardware, ACKNOWLEDGE, Width::Word.mask());
        if word(hardware, INTERRUPT_STATUS) != 0 {
            return Step::Failed(Failure("edu: an interrupt can't be acknowledged"));
        }
        context.command = 0;
        write_registers(context, hardware);
        Step::Done
    }

    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        let Some(context) = self.context(who) else {
            return UNKNOWN;
        };
        if context.phase == Phase::Present {
            // The device has held the truth all along: nothing was queued, and the context is stale.
            return Step::Done;
        }
        // Again, since the domain may have written to the context after the restore.
        write_registers(context, hardware);
        if context.interrupts != 0 {
            write(hardware, RAISE, context.interrupts.into());
            context.interrupts = 0;
        }
        for bell in core::mem::take(&mut context.queue).into_iter().flatten() {
            match bell {
                Doorbell::Factorial(n) => write(hardware, FACTORIAL, n.into()),
                // The registers are locked while one is queued, so this can't fail unless this program is wrong; then
                // one domain loses a transfer, and not all of them the machine.
                Doorbell::Dma(command)
                    if !dma_in_range(
                        command,
                        context.source,
                        context.destination,
                        context.count,
                    ) =>
                {
                    log::error!("edu: {who}: a queued transfer out of range was dropped");
                }
                Doorbell::Dma(command) => {
                    hardware.write(0, DMA_COMMAND, Width::Double, command);
                }
            }
        }
        context.phase = Phase::Present;
        context.refusals = 0;
        Step::Done
    }

    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        let Some(context) = self.context(who) else {
            return Verdict::Fault;
        };
        if access.window != 0 {
            return Verdict::Fault;
        }
        match shape(access.offset, access.width) {
            Shape::BusError => return Verdict::Fault,
            Shape::Ignored => return Verdict::Value(access.width.mask()),
            Shape::Served => {}
        }
        match (context.phase, hardware) {
            (Phase::Present, Some(hardware)) => forward(access, hardware),
            // The truth is out of reach.
            (Phase::Present, None) => Verdict::Park,
            (Phase::Leaving(_), Some(hardware)) => {
                context.look(hardware);
                let verdict = context.emulate(access.offset, access.width, access.operation);
                context.look(hardware);
                verdict
            }
            (Phase::Leaving(_), None) | (Phase::Away, _) => {
                context.emulate(access.offset, access.width, access.operation)
            }
        }
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        self.contexts
            .iter()
            .any(|(id, context)| *id == who && context.queue.iter().any(Option::is_some))
    }

    fn busy(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        self.context(who).is_some() && (is_computing(hardware) || is_running(hardware))
    }

    fn interrupt_pending(
        &mut self,
        who: VcoprocId,
        index: usize,
        hardware: Option<&mut dyn Hardware>,
    ) -> bool {
        let Some(context) = self.context(who) else {
            return false;
        };
        if index != 0 {
            return false;
        }
        match (&mut context.phase, hardware) {
            (Phase::Away, _) | (Phase::Present, None) => context.interrupts != 0,
            (Phase::Present, Some(hardware)) => word(hardware, INTERRUPT_STATUS) != 0,
            (Phase::Leaving(live), hardware) => {
                if let Some(hardware) = hardware {
                    live.interrupts = word(hardware, INTERRUPT_STATUS) & !live.acknowledge;
                }
                context.interrupts | live.interrupts != 0
            }
        }
    }

    fn abort(&mut self, _who: VcoprocId, _hardware: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("edu: has no means to stop its work"))
    }

    fn reset(&mut self, _hardware: &mut dyn Hardware) -> Step {
        Step::Failed(Failure("edu: has no reset"))
    }
}
