//! The context of one vcoproc on an `edu`, and the registers as a domain sees them out of it.
//!
//! At any time one of two is the truth, the device or the context, and the context knows which ([`Phase`]). Between them lies
//! the refusal: no access reaches the device any more except through here, but a factorial or a DMA may
//! still be under way. Then the registers that only the domain changes are already in the context, those that the device changes
//! by itself ([`Live`]) are still looked at in the device, and a doorbell is queued on top, so that nothing
//! of it is overwritten when the rest is taken out.
//!
//! The 4 KiB buffer isn't here: no register shows it, only the device's own DMA reaches it, so it lives in the save area.
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

use coproc_core::driver::{Hardware, Verdict};
use coproc_core::register::{Operation, Width};
use coproc_core::time::Instant;

use super::registers::*;

/// A start that the domain asked for while the device wasn't its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doorbell {
    /// Compute the factorial of this.
    Factorial(u32),
    /// Do the transfer that the DMA registers tell, with this command.
    Dma(u64),
}

/// What the device changes by itself, as last seen, while the domain's last work comes to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Live {
    /// A factorial is being computed.
    pub computing: bool,
    /// A DMA is running.
    pub running: bool,
    /// The factorial register.
    pub factorial: u32,
    /// The interrupt status.
    pub interrupts: u32,
    /// Interrupts that the domain has acknowledged and the device not yet.
    pub acknowledge: u32,
    /// The domain has changed IRQFACT and the device doesn't know yet.
    pub irqfact_changed: bool,
    /// A computation was seen under way with IRQFACT set: its end owes the domain an interrupt.
    pub owed: bool,
}

/// Who holds the truth.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The context.
    Away,
    /// The device.
    Present,
    /// The context for what the domain writes, the device for what it changes itself.
    Leaving(Live),
}

/// How far a step that takes several calls has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// No step is under way.
    Idle,
    /// Draining: an interrupt that was decided upon may still be on its way, since then.
    Settling(Instant),
    /// Draining: the fence computation runs, since then.
    Fencing(Instant),
    /// Saving: the buffer moves to the save area, since then.
    Saving(Instant),
    /// Restoring: the buffer moves to the device and the factorial is computed, since then.
    Restoring(Instant),
}

/// One vcoproc's context.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Who holds the truth.
    pub phase: Phase,
    /// Progress of the step under way.
    pub progress: Progress,
    /// Refusals in a row.
    pub refusals: u32,
    /// Liveness register as it reads.
    pub liveness: u32,
    /// Result of the last finished computation.
    pub factorial: u32,
    /// Whether the end of a computation raises an interrupt.
    pub irqfact: bool,
    /// Interrupt status; while the device holds the truth, what was raised on top of the device's.
    pub interrupts: u32,
    /// DMA source.
    pub source: u64,
    /// DMA destination.
    pub destination: u64,
    /// DMA count.
    pub count: u64,
    /// DMA command as it was left, without [`DMA_RUN`]. The other bits last until the next restore, whose own DMA overwrites them.
    pub command: u64,
    /// Doorbells in the order in which they were rung. The device takes one computation and one DMA at a time and
    /// ignores more, so two places are enough.
    pub queue: [Option<Doorbell>; 2],
}

impl Context {
    /// As the device is after reset.
    pub const fn new() -> Self {
        Self {
            phase: Phase::Away,
            progress: Progress::Idle,
            refusals: 0,
            liveness: 0,
            factorial: 0,
            irqfact: false,
            interrupts: 0,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            queue: [None; 2],
        }
    }

    /// The argument of the queued computation.
    pub fn queued_factorial(&self) -> Option<u32> {
        self.queue.iter().flatten().find_map(|bell| match *bell {
            Doorbell::Factorial(n) => Some(n),
            Doorbell::Dma(_) => None,
        })
    }

    /// The command of the queued DMA.
    pub fn queued_dma(&self) -> Option<u64> {
        self.queue.iter().flatten().find_map(|bell| match *bell {
            Doorbell::Dma(command) => Some(command),
            Doorbell::Factorial(_) => None,
        })
    }

    fn push(&mut self, bell: Doorbell) {
        if let Some(place) = self.queue.iter_mut().find(|place| place.is_none()) {
            *place = Some(bell);
        }
    }

    /// Takes over what only the domain changes, at the moment when it has lost its direct access.
    pub fn begin_leaving(&mut self, hardware: &mut dyn Hardware) {
        self.liveness = word(hardware, LIVENESS);
        self.irqfact = read(hardware, STATUS) & STATUS_IRQFACT != 0;
        self.source = hardware.read(0, DMA_SOURCE, Width::Double);
        self.destination = hardware.read(0, DMA_DESTINATION, Width::Double);
        self.count = hardware.read(0, DMA_COUNT, Width::Double);
        self.command = hardware.read(0, DMA_COMMAND, Width::Double) & !DMA_RUN;
        self.phase = Phase::Leaving(Live::default());
        self.look(hardware);
    }

    /// Passes on to the device what the domain meanwhile did to the work under way, and looks at how far that is. Nothing to
    /// do in other phases.
    pub fn look(&mut self, hardware: &mut dyn Hardware) {
        let irqfact = self.irqfact;
        let Phase::Leaving(live) = &mut self.phase else {
            return;
        };
        if core::mem::take(&mut live.irqfact_changed) {
            write(hardware, STATUS, if irqfact { STATUS_IRQFACT } else { 0 });
        }
        let acknowledge = core::mem::take(&mut live.acknowledge);
        if acknowledge != 0 {
            write(hardware, ACKNOWLEDGE, acknowledge.into());
        }
        live.computing = read(hardware, STATUS) & STATUS_COMPUTING != 0;
        live.running = hardware.read(0, DMA_COMMAND, Width::Double) & DMA_RUN != 0;
        live.factorial = word(hardware, FACTORIAL);
        // After the two above: what their ends have raised is seen here.
        live.interrupts = word(hardware, INTERRUPT_STATUS);
        live.owed |= live.computing && irqfact;
    }

    /// Answers an access that the device would take ([`Shape::Served`]), as the device itself would, doing no work.
    pub fn emulate(&mut self, offset: u64, width: Width, operation: Operation) -> Verdict {
        match operation {
            Operation::Read => Verdict::Value(self.load(offset) & width.mask()),
            Operation::Write(value) => self.store(offset, value & width.mask()),
        }
    }

    fn load(&self, offset: u64) -> u64 {
        let live = match self.phase {
            Phase::Leaving(live) => live,
            Phase::Away | Phase::Present => Live {
                factorial: self.factorial,
                ..Live::default()
            },
        };
        match offset {
            ID => ID_VALUE,
            LIVENESS => self.liveness.into(),
            FACTORIAL => self.queued_factorial().unwrap_or(live.factorial).into(),
            STATUS => {
                let computing = live.computing || self.queued_factorial().is_some();
                (if computing { STATUS_COMPUTING } else { 0 })
                    | (if self.irqfact { STATUS_IRQFACT } else { 0 })
            }
            INTERRUPT_STATUS => (self.interrupts | live.interrupts).into(),
            DMA_SOURCE => self.source,
            DMA_DESTINATION => self.destination,
            DMA_COUNT => self.count,
            DMA_COMMAND => self
                .queued_dma()
                .unwrap_or(self.command | if live.running { DMA_RUN } else { 0 }),
            _ => u64::MAX,
        }
    }

    fn store(&mut self, offset: u64, value: u64) -> Verdict {
        // The registers below 0x80 take 4 bytes only, so nothing is cut off here.
        let value32 = (value & 0xffff_ffff) as u32;
        let (computing, running) = match self.phase {
            Phase::Leaving(live) => (live.computing, live.running),
            Phase::Away | Phase::Present => (false, false),
        };
        let dma_locked = running || self.queued_dma().is_some();
        match offset {
            LIVENESS => self.liveness = !value32,
            FACTORIAL if !computing && self.queued_factorial().is_none() => {
                self.push(Doorbell::Factorial(value32));
                return Verdict::Queued(0);
            }
            STATUS => {
                self.irqfact = value & STATUS_IRQFACT != 0;
                if let Phase::Leaving(live) = &mut self.phase {
                    live.irqfact_changed = true;
                    // The domain itself made it uncertain whether the end raises one.
                    live.owed = false;
                }
            }
            RAISE => self.interrupts |= value32,
            ACKNOWLEDGE => {
                self.interrupts &= !value32;
                if let Phase::Leaving(live) = &mut self.phase {
                    live.interrupts &= !value32;
                    live.acknowledge |= value32;
                    live.owed &= u64::from(value32) & INTERRUPT_FACTORIAL == 0;
                }
            }
            DMA_SOURCE if !dma_locked => self.source = value,
            DMA_DESTINATION if !dma_locked => self.destination = value,
            DMA_COUNT if !dma_locked => self.count = value,
            DMA_COMMAND if !dma_locked && value & DMA_RUN != 0 => {
                if !dma_in_range(value, self.source, self.destination, self.count) {
                    return Verdict::Fault;
                }
                self.push(Doorbell::Dma(value));
                return Verdict::Queued(0);
            }
            _ => {}
        }
        Verdict::Value(0)
    }
}

/// Reads a 4-byte register.
pub fn read(hardware: &mut dyn Hardware, offset: u64) -> u64 {
    hardware.read(0, offset, Width::Word) & Width::Word.mask()
}

/// Reads a 4-byte register as such.
pub fn word(hardware: &mut dyn Hardware, offset: u64) -> u32 {
    (read(hardware, offset) & 0xffff_ffff) as u32
}

/// Writes a 4-byte register.
pub fn write(hardware: &mut dyn Hardware, offset: u64, value: u64) {
    hardware.write(0, offset, Width::Word, value);
}
