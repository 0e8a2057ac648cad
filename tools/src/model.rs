//! A model of the device and of its machine, for the tests: right by default, and wrong on demand.

use crate::edu;
use crate::machine::{Machine, Slot};
use std::io;
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Results of factorials are off by one.
    Factorial,
    /// A byte of the buffer changes while the program sleeps.
    Buffer,
    /// The buffer is someone else's after a sleep.
    Stale,
    /// Another's interrupt status shows up in place of ours.
    InterruptBits,
    /// An interrupt comes that nobody asked for.
    InterruptUncalled,
    /// An interrupt never comes.
    InterruptLost,
    /// Events are counted twice.
    InterruptTwice,
    /// The liveness register loses its value in a sleep.
    Liveness,
    /// It has another's value after a sleep.
    LivenessKept,
    /// The DMA source register loses its value in a sleep.
    DmaSource,
    /// The DMA count register reads a bit more than was written.
    DmaCount,
    /// The result register does.
    ResultLost,
    /// Transfers to memory write a byte too many.
    Overrun,
    /// Transfers to memory don't happen.
    NoWrite,
    /// The device never finishes a transfer.
    Stuck,
    /// Addresses outside memory deliver data.
    OutsideLeaks,
    /// The context of another with the secret in it is still there at the start.
    Secret,
    /// It is pulled after this many ms: reads are all-ones, writes vanish, interrupts stay away.
    Pulled(u64),
}

pub const SLOT_LEN: usize = 8192;
const SLOT_BASE: [u64; 2] = [0x4100_0000, 0x1_4200_0000];
pub const OUTSIDE: u64 = 0x80_0000_0000;
/// The key of the secret that [`Fault::Secret`] leaves behind.
pub const SECRET: u64 = 99;

pub struct Model {
    fault: Fault,
    now: Duration,
    liveness: u32,
    fact: u32,
    computing: Option<Duration>,
    irq_fact: bool,
    pending: u32,
    dma: [u64; 3],
    command: u32,
    dma_end: Option<Duration>,
    buffer: Vec<u8>,
    memory: [Vec<u8>; 2],
    masked: bool,
    events: u32,
    pub lines: std::rc::Rc<std::cell::RefCell<Vec<String>>>,
    /// Transfers started from or to an address outside both slots.
    pub outside: std::rc::Rc<std::cell::Cell<u64>>,
}

impl Model {
    pub fn new(fault: Fault) -> Self {
        let mut model = Self {
            fault,
            now: Duration::ZERO,
            liveness: 0,
            fact: 0,
            computing: None,
            irq_fact: false,
            pending: 0,
            dma: [0; 3],
            command: 0,
            dma_end: None,
            buffer: vec![0; edu::BUFFER_LEN],
            memory: [vec![0; SLOT_LEN], vec![0; SLOT_LEN]],
            masked: false,
            events: 0,
            lines: Default::default(),
            outside: Default::default(),
        };
        if fault == Fault::Secret {
            model.buffer[100..130].copy_from_slice(&crate::random::secret(SECRET)[..30]);
        }
        model
    }

    fn is_pulled(&self) -> bool {
        matches!(self.fault, Fault::Pulled(at) if self.now >= Duration::from_millis(at))
    }

    fn raise(&mut self, bits: u32) {
        self.pending |= bits;
        self.line();
    }

    fn line(&mut self) {
        if self.pending != 0
            && !self.masked
            && self.fault != Fault::InterruptLost
            && !self.is_pulled()
        {
            self.masked = true;
            self.events += 1 + u32::from(self.fault == Fault::InterruptTwice);
        }
    }

    fn advance(&mut self, time: Duration) {
        self.now += time;
        if self.computing.is_some_and(|end| end <= self.now) {
            self.computing = None;
            let wrong = u32::from(self.fault == Fault::Factorial);
            self.fact = edu::factorial(self.fact).wrapping_add(wrong);
            if self.irq_fact {
                let other = self.fault == Fault::InterruptBits;
                self.raise(if other {
                    0x101
                } else {
                    edu::INTERRUPT_FACTORIAL
                });
            }
        }
        if self.dma_end.is_some_and(|end| end <= self.now) && self.fault != Fault::Stuck {
            self.dma_end = None;
            self.move_data();
            self.command &= !edu::DMA_START;
            if self.command & edu::DMA_INTERRUPT != 0 {
                self.raise(edu::INTERRUPT_DMA);
            }
        }
    }

    fn move_data(&mut self) {
        let [source, destination, count] = self.dma;
        let count = count as usize;
        let from_device = self.command & edu::DMA_FROM_DEVICE != 0;
        let (device, memory) = match from_device {
            true => (source, destination),
            false => (destination, source),
        };
        let device = (device - edu::BUFFER_BASE) as usize;
        assert!(
            device + count <= edu::BUFFER_LEN,
            "this would have ended QEMU"
        );
        let slot = SLOT_BASE
            .iter()
            .position(|base| (*base..*base + SLOT_LEN as u64).contains(&memory));
        let part = &mut self.buffer[device..device + count];
        let Some(slot) = slot else {
            self.outside.set(self.outside.get() + 1);
            if !from_device {
                part.fill(if self.fault == Fault::OutsideLeaks {
                    0xee
                } else {
                    0
                });
            }
            return;
        };
        let at = (memory - SLOT_BASE[slot]) as usize;
        match from_device {
            true if self.fault == Fault::NoWrite => {}
            true => {
                self.memory[slot][at..at + count].copy_from_slice(part);
                if self.fault == Fault::Overrun && at + count < SLOT_LEN {
                    self.memory[slot][at + count] = 0;
                }
            }
            false => part.copy_from_slice(&self.memory[slot][at..at + count]),
        }
    }
}

fn slot_index(slot: Slot) -> usize {
    match slot {
        Slot::Outgoing => 0,
        Slot::Incoming => 1,
    }
}

impl Machine for Model {
    fn read32(&mut self, offset: usize) -> u32 {
        self.advance(Duration::from_micros(1));
        if self.is_pulled() {
            return u32::MAX;
        }
        match offset {
            edu::ID => edu::ID_VALUE,
            edu::LIVENESS => self.liveness,
            edu::FACTORIAL => self.fact,
            edu::STATUS => {
                u32::from(self.computing.is_some())
                    | if self.irq_fact {
                        edu::STATUS_INTERRUPT
                    } else {
                        0
                    }
            }
            edu::INTERRUPT_STATUS => self.pending,
            edu::DMA_COMMAND => self.command,
            _ => self.read64(offset) as u32,
        }
    }

    fn write32(&mut self, offset: usize, value: u32) {
        self.advance(Duration::from_micros(1));
        match offset {
            _ if self.is_pulled() => {}
            edu::LIVENESS => self.liveness = !value,
            edu::FACTORIAL if self.computing.is_none() => {
                self.fact = value;
                self.computing = Some(self.now + Duration::from_micros(5));
            }
            edu::STATUS => self.irq_fact = value & edu::STATUS_INTERRUPT != 0,
            edu::INTERRUPT_ACKNOWLEDGE => self.pending &= !value,
            edu::DMA_COMMAND if self.command & edu::DMA_START == 0 => {
                self.command = value;
                self.dma_end = Some(self.now + Duration::from_millis(100));
            }
            _ => self.write64(offset, value.into()),
        }
    }

    fn read64(&mut self, offset: usize) -> u64 {
        if self.is_pulled() {
            return u64::MAX;
        }
        match offset {
            edu::DMA_SOURCE => self.dma[0],
            edu::DMA_DESTINATION => self.dma[1],
            edu::DMA_COUNT => self.dma[2],
            _ => u64::MAX,
        }
    }

    fn write64(&mut self, offset: usize, value: u64) {
        if self.command & edu::DMA_START == 0 {
            match offset {
                edu::DMA_SOURCE => self.dma[0] = value,
                edu::DMA_DESTINATION => self.dma[1] = value,
                edu::DMA_COUNT => {
                    self.dma[2] = value + u64::from(self.fault == Fault::DmaCount);
                }
                _ => {}
            }
        }
    }

    fn wait_interrupt(&mut self, limit: Duration) -> io::Result<u32> {
        let deadline = self.now + limit;
        while self.events == 0 && self.now < deadline {
            let next = [self.computing, self.dma_end].into_iter().flatten().min();
            let until = next.map_or(deadline, |at| at.clamp(self.now, deadline));
            let step = until - self.now;
            self.advance(step.max(Duration::from_micros(1)));
        }
        Ok(std::mem::take(&mut self.events))
    }

    fn unmask_interrupt(&mut self) -> io::Result<()> {
        self.masked = false;
        self.line();
        Ok(())
    }

    fn slot_len(&self) -> usize {
        SLOT_LEN
    }

    fn physical(&mut self, slot: Slot, offset: usize) -> io::Result<u64> {
        Ok(SLOT_BASE[slot_index(slot)] + offset as u64)
    }

    fn store(&mut self, slot: Slot, offset: usize, bytes: &[u8]) {
        self.memory[slot_index(slot)][offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn load(&mut self, slot: Slot, offset: usize, bytes: &mut [u8]) {
        let len = bytes.len();
        bytes.copy_from_slice(&self.memory[slot_index(slot)][offset..offset + len]);
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, time: Duration) {
        self.advance(time);
        if time.is_zero() {
            return;
        }
        match self.fault {
            Fault::Buffer => self.buffer[0] ^= 1,
            Fault::Stale => self.buffer.fill(0xaa),
            Fault::InterruptUncalled => self.raise(edu::INTERRUPT_DMA),
            Fault::Liveness => self.liveness = 0,
            Fault::LivenessKept => self.liveness = 0x5ec_2e7,
            Fault::DmaSource if self.command & edu::DMA_START == 0 => self.dma[0] ^= 0x1000,
            Fault::ResultLost => self.fact ^= 1,
            _ => {}
        }
    }

    fn print(&mut self, line: &str) {
        assert!(!line.contains('\n'));
        self.lines.borrow_mut().push(line.into());
    }
}
