//! A software model of the `edu` device, for host tests.
//!
//! It follows QEMU's hw/misc/edu.c where a driver could tell the difference, above all in time: a DMA ends 100 ms after its
//! command, in one step with its interrupt, while a factorial is computed by a thread of its own that clears COMPUTING, looks at
//! IRQFACT, and raises its interrupt, each at a later time that a test can choose. Time is virtual and only moves by
//! [`Edu::advance`] and by [`Timing::access`]. What would crash QEMU sets [`Edu::crashed`].
//!
//! It is written against QEMU's source and not against the driver, so it shares the register numbers with it, and
//! nothing of the behaviour.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "test code, never in the hypervisor; times saturate, the range was checked before"
)]

use alloc::boxed::Box;

use coproc_core::address::DeviceAddress;
use coproc_core::driver::Hardware;
use coproc_core::register::Width;
use coproc_core::time::{Duration, Instant};

use super::registers::*;

/// The memory that the device's DMA sees, IOMMU included.
pub trait Bus {
    /// Reads; `false` if the IOMMU refused, then `into` is undefined.
    fn read(&mut self, address: DeviceAddress, into: &mut [u8]) -> bool;
    /// Writes; `false` if the IOMMU refused.
    fn write(&mut self, address: DeviceAddress, from: &[u8]) -> bool;
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// One register access.
    pub access: Duration,
    /// One transfer.
    pub dma: Duration,
    /// The computation of n!.
    pub computing: fn(u32) -> Duration,
    /// From COMPUTING clear until the thread looks at IRQFACT.
    pub check: Duration,
    /// From there until the interrupt is raised.
    pub raise: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            access: Duration::from_nanos(500),
            dma: Duration::from_millis(100),
            computing: |n| Duration::from_nanos(20_000 + u64::from(n)),
            check: Duration::from_nanos(20),
            raise: Duration::from_micros(30),
        }
    }
}

/// Where the thread that computes factorials is; the times say when it gets further.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Thread {
    Waiting,
    Computing(u32, Instant),
    Checking(Instant),
    Raising(Instant),
}

/// The device.
#[derive(Debug)]
pub struct Edu<B> {
    /// What its DMA sees.
    pub bus: B,
    /// How long things take.
    pub timing: Timing,
    /// Whether a DMA's device side went outside the buffer: QEMU would be gone.
    pub crashed: bool,
    /// DMAs that the bus refused.
    pub refused_transfers: u64,
    /// How often the line went up.
    pub line_rises: u64,
    now: Instant,
    thread: Thread,
    dma_due: Option<Instant>,
    liveness: u32,
    factorial: u32,
    status: u32,
    interrupts: u32,
    source: u64,
    destination: u64,
    count: u64,
    command: u64,
    buffer: Box<[u8; BUFFER_SIZE as usize]>,
}

impl<B: Bus> Edu<B> {
    /// A device after power-on.
    pub fn new(bus: B) -> Self {
        Self {
            bus,
            timing: Timing::default(),
            crashed: false,
            refused_transfers: 0,
            line_rises: 0,
            now: Instant::from_nanos(0),
            thread: Thread::Waiting,
            dma_due: None,
            liveness: 0,
            factorial: 0,
            status: 0,
            interrupts: 0,
            source: 0,
            destination: 0,
            count: 0,
            command: 0,
            buffer: Box::new([0; BUFFER_SIZE as usize]),
        }
    }

    /// Whether the interrupt line is asserted.
    pub fn line(&self) -> bool {
        self.interrupts != 0
    }

    /// The buffer, as no register shows it.
    pub fn buffer(&self) -> &[u8] {
        &self.buffer[..]
    }

    /// Lets time pass, and everything happen that is due in it, in order.
    pub fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            let thread = match self.thread {
                Thread::Waiting => None,
                Thread::Computing(_, at) | Thread::Checking(at) | Thread::Raising(at) => Some(at),
            };
            let Some(next) = thread.into_iter().chain(self.dma_due).min() else {
                break;
            };
            if next > until {
                break;
            }
            self.now = self.now.max(next);
            if self.dma_due == Some(next) {
                self.dma_due = None;
                self.transfer();
            } else {
                self.thread_step();
            }
        }
        self.now = until;
    }

    fn thread_step(&mut self) {
        self.thread = match self.thread {
            Thread::Waiting => Thread::Waiting,
            Thread::Computing(n, _) => {
                // The thread multiplies 4,294,967,295 times for the largest n; from 34 on the product stays 0.
                self.factorial = (1..=n.min(34)).fold(1, u32::wrapping_mul);
                self.status &= !(STATUS_COMPUTING as u32);
                Thread::Checking(self.now + self.timing.check)
            }
            Thread::Checking(_) if u64::from(self.status) & STATUS_IRQFACT != 0 => {
                Thread::Raising(self.now + self.timing.raise)
            }
            Thread::Checking(_) => Thread::Waiting,
            Thread::Raising(_) => {
                self.raise(INTERRUPT_FACTORIAL as u32);
                Thread::Waiting
            }
        };
        self.take_job();
    }

    fn take_job(&mut self) {
        if self.thread == Thread::Waiting && u64::from(self.status) & STATUS_COMPUTING != 0 {
            let n = self.factorial;
            self.thread = Thread::Computing(n, self.now + (self.timing.computing)(n));
        }
    }

    fn raise(&mut self, bits: u32) {
        let before = self.interrupts;
        self.interrupts |= bits;
        self.line_rises += u64::from(before == 0 && self.interrupts != 0);
    }

    fn transfer(&mut self) {
        let to_memory = self.command & DMA_TO_MEMORY != 0;
        let (inner, outer) = if to_memory {
            (self.source, self.destination)
        } else {
            (self.destination, self.source)
        };
        let start = inner.checked_sub(BUFFER);
        let end = start.and_then(|start| start.checked_add(self.count));
        match (start, end) {
            (Some(start), Some(end)) if end <= BUFFER_SIZE => {
                let part = &mut self.buffer[start as usize..end as usize];
                let address = DeviceAddress::new(outer);
                let done = if to_memory {
                    self.bus.write(address, part)
                } else {
                    self.bus.read(address, part)
                };
                self.refused_transfers += u64::from(!done);
            }
            _ => self.crashed = true,
        }
        self.command &= !DMA_RUN;
        if self.command & DMA_INTERRUPT != 0 {
            self.raise(INTERRUPT_DMA as u32);
        }
    }
}

impl<B: Bus> Hardware for Edu<B> {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        self.advance(self.timing.access);
        let small = width == Width::Word;
        let wide = small || width == Width::Double;
        let value = match offset {
            _ if window != 0 || !offset.is_multiple_of(width.bytes()) => u64::MAX,
            0x00 if small => 0x0100_00ed,
            0x04 if small => self.liveness.into(),
            0x08 if small => self.factorial.into(),
            0x20 if small => self.status.into(),
            0x24 if small => self.interrupts.into(),
            0x80 if wide => self.source,
            0x88 if wide => self.destination,
            0x90 if wide => self.count,
            0x98 if wide => self.command,
            _ => u64::MAX,
        };
        value & width.mask()
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.advance(self.timing.access);
        let small = width == Width::Word;
        let wide = small || width == Width::Double;
        let value = value & width.mask();
        let value32 = value as u32;
        let running = self.command & DMA_RUN != 0;
        match offset {
            _ if window != 0 || !offset.is_multiple_of(width.bytes()) => {}
            0x04 if small => self.liveness = !value32,
            0x08 if small && u64::from(self.status) & STATUS_COMPUTING == 0 => {
                self.factorial = value32;
                self.status |= STATUS_COMPUTING as u32;
                self.take_job();
            }
            0x20 if small => {
                self.status &= !(STATUS_IRQFACT as u32);
                self.status |= value32 & STATUS_IRQFACT as u32;
            }
            0x60 if small => self.raise(value32),
            0x64 if small => self.interrupts &= !value32,
            0x80 if wide && !running => self.source = value,
            0x88 if wide && !running => self.destination = value,
            0x90 if wide && !running => self.count = value,
            0x98 if wide && !running && value & DMA_RUN != 0 => {
                self.command = value;
                self.dma_due = Some(self.now + self.timing.dma);
            }
            _ => {}
        }
    }

    fn now(&self) -> Instant {
        self.now
    }
}
