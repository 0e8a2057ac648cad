//! Single operations of the device, each checked all round.
//!
//! An operation isn't right because its result is: its interrupt must be the one it asked for and no other,
//! the registers must still read as this program left them, and memory next to the transfer must be untouched.
//! Every difference is a `WRONG` line and makes the job wrong. Whoever shares the device with us has seconds of
//! it at a time, so only the time-out, a minute by default, says that an operation is lost.

use crate::edu::{self, DeviceRange};
use crate::machine::{Machine, Slot};
use crate::random::Random;
use crate::report::{self, Totals};
use std::fmt::Write;
use std::io;
use std::time::Duration;

/// At most this many `WRONG` lines are printed: enough to see what goes wrong, few enough to read.
const WRONG_LINES: u64 = 100;
/// Bytes on both sides of an incoming transfer that must stay as they were.
const GUARD: usize = 64;
const GUARD_BYTE: u8 = 0x5a;
/// How often it is looked whether a device that may be pulled is still there, while its interrupt is waited for.
const LOOK: Duration = Duration::from_millis(200);

/// Why a job ends early.
#[derive(Debug)]
pub enum Stop {
    /// An operation didn't finish in time, or couldn't be started safely; it has been reported, and the
    /// next job may try again.
    Abandoned,
    /// The operating system failed us; the run is over.
    System(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// How the end of an operation is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// By its interrupt.
    Interrupt,
    /// By reading the status.
    Polling,
}

/// A transfer between the device's buffer and a slot of DMA memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The part of the buffer.
    pub range: DeviceRange,
    /// Byte offset in the slot.
    pub memory_offset: usize,
    /// Use 8-byte accesses for the DMA registers even where 4 bytes would do.
    pub wide: bool,
    /// How its end is noticed.
    pub completion: Completion,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToDevice,
    FromDevice,
}

/// The device, with what this program knows about its state.
pub struct Edu<M> {
    /// The machine it is in.
    pub machine: M,
    /// What was done so far.
    pub totals: Totals,
    /// How often a status read said "busy".
    pub busy_reads: u64,
    /// The device may be pulled: that isn't a wrong result but the end, an error of kind [`io::ErrorKind::NotConnected`].
    pub hotplug: bool,
    lost: bool,
    timeout: Duration,
    job: u64,
    job_wrong: bool,
    recover: bool,
    wrong_lines: u64,
    buffer: Option<Vec<u8>>,
    liveness: Option<u32>,
    result: Option<u32>,
    dma: Option<(u64, u64, u64)>,
    scratch: Random,
}

impl<M: Machine> Edu<M> {
    /// A device about which nothing is known; `timeout` is for each of its operations.
    pub fn new(machine: M, timeout: Duration) -> Self {
        Self {
            machine,
            totals: Totals::default(),
            busy_reads: 0,
            hotplug: false,
            lost: false,
            timeout,
            job: 0,
            job_wrong: false,
            recover: false,
            wrong_lines: 0,
            buffer: None,
            liveness: None,
            result: None,
            dma: None,
            scratch: Random::keyed(&[0x5c4a]),
        }
    }

    /// Starts job number `job`; after an abandoned one, whatever came late is cleared away first.
    ///
    /// # Errors
    /// Of the operating system only.
    pub fn begin(&mut self, job: u64) -> Result<(), Stop> {
        self.job = job;
        self.job_wrong = false;
        if std::mem::take(&mut self.recover) {
            let everything = self.machine.read32(edu::INTERRUPT_STATUS);
            self.machine.write32(edu::INTERRUPT_ACKNOWLEDGE, everything);
            self.machine.unmask_interrupt()?;
            self.machine.wait_interrupt(Duration::ZERO)?;
            self.buffer = None;
            self.result = None;
            self.dma = None;
        }
        Ok(())
    }

    /// Ends the job and counts it.
    ///
    /// # Errors
    /// Hands on an error of the operating system; an abandoned job is wrong and over.
    pub fn end(&mut self, outcome: Result<(), Stop>) -> io::Result<()> {
        if self.lost {
            return Err(gone());
        }
        match outcome {
            Ok(()) => {}
            Err(Stop::Abandoned) => {
                self.job_wrong = true;
                self.recover = true;
            }
            Err(Stop::System(error)) => return Err(error),
        }
        self.totals.jobs += 1;
        self.totals.wrong += u64::from(self.job_wrong);
        Ok(())
    }

    /// Reports a wrong result; the job counts as wrong.
    pub fn wrong(&mut self, what: &str, expected: &str, found: &str) {
        if self.is_gone() {
            return;
        }
        self.job_wrong = true;
        self.wrong_lines += 1;
        if self.wrong_lines <= WRONG_LINES {
            let line = report::wrong(self.job, what, expected, found);
            self.machine.print(&line);
        }
    }

    /// Whether the device was pulled: nothing reads as anything but all-ones.
    fn is_gone(&mut self) -> bool {
        self.lost |= self.hotplug && self.machine.read32(edu::ID) == u32::MAX;
        self.lost
    }

    /// Reports `found` if it isn't `expected`.
    pub fn check(&mut self, what: &str, expected: u64, found: u64) {
        if expected != found {
            self.wrong(what, &format!("{expected:#x}"), &format!("{found:#x}"));
        }
    }

    /// What the buffer holds, as far as this program knows.
    pub fn buffer(&self) -> Option<&[u8]> {
        self.buffer.as_deref()
    }

    /// Takes over what the buffer was seen to hold.
    pub fn set_buffer(&mut self, bytes: Vec<u8>) {
        self.buffer = Some(bytes);
    }

    /// Writes the liveness register; from now on it must read as the inverse.
    pub fn set_liveness(&mut self, value: u32) {
        self.machine.write32(edu::LIVENESS, value);
        self.liveness = Some(value);
    }

    /// Writes the DMA registers without starting anything, and checks that they read back; whether they do.
    pub fn set_dma(&mut self, source: u64, destination: u64, count: u64, wide: bool) -> bool {
        for (offset, value) in [
            (edu::DMA_SOURCE, source),
            (edu::DMA_DESTINATION, destination),
            (edu::DMA_COUNT, count),
        ] {
            if wide || value > u64::from(u32::MAX) {
                self.machine.write64(offset, value);
            } else {
                self.machine.write32(offset, value as u32);
            }
        }
        self.dma = Some((source, destination, count));
        self.check_dma()
    }

    fn check_dma(&mut self) -> bool {
        let Some((source, destination, count)) = self.dma else {
            return true;
        };
        let found = (
            self.machine.read64(edu::DMA_SOURCE),
            self.machine.read64(edu::DMA_DESTINATION),
            u64::from(self.machine.read32(edu::DMA_COUNT)),
        );
        self.check("dma-source", source, found.0);
        self.check("dma-destination", destination, found.1);
        self.check("dma-count", count, found.2);
        found == (source, destination, count)
    }

    /// Checks that every register reads as this program left it; returns the number of reads.
    pub fn check_registers(&mut self) -> u64 {
        let found = self.machine.read32(edu::ID);
        self.check("id", edu::ID_VALUE.into(), found.into());
        if let Some(written) = self.liveness {
            let found = self.machine.read32(edu::LIVENESS);
            self.check("liveness", (!written).into(), found.into());
        }
        if let Some(result) = self.result {
            let found = self.machine.read32(edu::FACTORIAL);
            self.check("factorial-kept", result.into(), found.into());
        }
        self.check_dma();
        1 + u64::from(self.liveness.is_some())
            + u64::from(self.result.is_some())
            + if self.dma.is_some() { 3 } else { 0 }
    }

    /// Takes the factorial register as it is; it must stay so until the next factorial.
    pub fn adopt_result(&mut self) {
        self.result = Some(self.machine.read32(edu::FACTORIAL));
    }

    /// Chooses whether a factorial raises an interrupt, and checks that the status says so.
    pub fn set_factorial_interrupt(&mut self, on: bool) {
        let flag = if on { edu::STATUS_INTERRUPT } else { 0 };
        self.machine.write32(edu::STATUS, flag);
        let found = self.machine.read32(edu::STATUS) & edu::STATUS_INTERRUPT;
        self.check("status-interrupt", flag.into(), found.into());
    }

    /// Computes n! and checks it.
    ///
    /// # Errors
    /// [`Stop`]; what was abandoned has been reported.
    pub fn factorial(&mut self, n: u32, completion: Completion) -> Result<(), Stop> {
        self.expect_quiet()?;
        self.factorial_unchecked(n, completion)?;
        if completion == Completion::Polling {
            self.expect_quiet()?;
        }
        Ok(())
    }

    /// As [`Self::factorial`], but leaves interrupts to whoever has another operation under way.
    fn factorial_unchecked(&mut self, n: u32, completion: Completion) -> Result<(), Stop> {
        self.poll_until_clear(edu::STATUS, edu::STATUS_COMPUTING, "factorial-idle")?;
        self.set_factorial_interrupt(completion == Completion::Interrupt);
        self.result = None;
        self.machine.write32(edu::FACTORIAL, n);
        match completion {
            Completion::Interrupt => {
                self.take_interrupt(edu::INTERRUPT_FACTORIAL)?;
                let busy = self.machine.read32(edu::STATUS) & edu::STATUS_COMPUTING;
                self.check("busy-after-interrupt", 0, busy.into());
            }
            Completion::Polling => {
                self.poll_until_clear(edu::STATUS, edu::STATUS_COMPUTING, "factorial-done")?;
            }
        }
        let found = self.machine.read32(edu::FACTORIAL);
        let expected = edu::factorial(n);
        self.check("factorial", expected.into(), found.into());
        self.result = Some(expected);
        self.totals.factorials += 1;
        Ok(())
    }

    /// Moves `bytes` into the buffer. With `meanwhile`, computes that factorial while the transfer runs.
    ///
    /// # Errors
    /// [`Stop`]; what was abandoned has been reported.
    ///
    /// # Panics
    /// When `bytes` isn't as long as the range: a mistake of the caller.
    pub fn to_device(
        &mut self,
        bytes: &[u8],
        transfer: Transfer,
        meanwhile: Option<u32>,
    ) -> Result<(), Stop> {
        let range = transfer.range;
        assert_eq!(bytes.len(), range.len());
        let offset = transfer.memory_offset;
        self.machine.store(Slot::Outgoing, offset, bytes);
        let memory = self.machine.physical(Slot::Outgoing, offset)?;
        let known = self.buffer.take();
        self.transfer(Direction::ToDevice, memory, transfer, meanwhile)?;
        self.totals.dma_bytes += range.len() as u64;
        if range == DeviceRange::FULL {
            self.buffer = Some(bytes.to_vec());
        } else if let Some(mut buffer) = known {
            buffer[range.offset()..range.end()].copy_from_slice(bytes);
            self.buffer = Some(buffer);
        }
        Ok(())
    }

    /// Moves a part of the buffer to memory, and checks it against what is known of the buffer.
    ///
    /// # Errors
    /// [`Stop`]; what was abandoned has been reported.
    pub fn from_device(
        &mut self,
        transfer: Transfer,
        meanwhile: Option<u32>,
    ) -> Result<Vec<u8>, Stop> {
        let range = transfer.range;
        let start = transfer.memory_offset.saturating_sub(GUARD);
        let end = (transfer.memory_offset + range.len() + GUARD).min(self.machine.slot_len());
        let inner = transfer.memory_offset - start..transfer.memory_offset - start + range.len();

        // Memory gets what can't be right beforehand, so that a transfer that never happens shows.
        let expected = self
            .buffer()
            .map(|b| b[range.offset()..range.end()].to_vec());
        let mut window = vec![GUARD_BYTE; end - start];
        match &expected {
            Some(bytes) => {
                for (byte, right) in window[inner.clone()].iter_mut().zip(bytes) {
                    *byte = !right;
                }
            }
            None => self.scratch.fill(&mut window[inner.clone()]),
        }
        let canary = window[inner.clone()].to_vec();
        self.machine.store(Slot::Incoming, start, &window);
        let memory = self
            .machine
            .physical(Slot::Incoming, transfer.memory_offset)?;
        self.transfer(Direction::FromDevice, memory, transfer, meanwhile)?;
        self.totals.dma_bytes += range.len() as u64;
        self.machine.load(Slot::Incoming, start, &mut window);

        let guards = window[..inner.start].iter().chain(&window[inner.end..]);
        if let Some(byte) = guards.copied().find(|byte| *byte != GUARD_BYTE) {
            self.check("memory-beside-transfer", GUARD_BYTE.into(), byte.into());
        }
        let found = window[inner].to_vec();
        if let Some(expected) = expected {
            self.compare("buffer", range.offset(), &expected, &found);
        } else if found == canary && found.len() >= 8 {
            self.wrong("dma-from-device", "written", "untouched");
        }
        Ok(found)
    }

    /// One transfer between the buffer and an address of the caller's choice, in or out of our memory.
    /// What is known of the buffer becomes unknown if the address is the source.
    ///
    /// # Errors
    /// [`Stop`]; what was abandoned has been reported.
    pub fn transfer_at(
        &mut self,
        memory: u64,
        from_device: bool,
        transfer: Transfer,
    ) -> Result<(), Stop> {
        if from_device {
            self.transfer(Direction::FromDevice, memory, transfer, None)
        } else {
            self.buffer = None;
            self.transfer(Direction::ToDevice, memory, transfer, None)
        }
    }

    /// Reports the first difference, with the eight bytes from there on.
    pub fn compare(&mut self, what: &str, offset: usize, expected: &[u8], found: &[u8]) {
        let differs = |(right, byte): (&u8, &u8)| right != byte;
        let Some(first) = expected.iter().zip(found).position(differs) else {
            return;
        };
        let count = expected.iter().zip(found).filter(|p| differs(*p)).count();
        let what = format!("{what}+{:#x},{count}-bytes", offset + first);
        self.wrong(&what, &hex(&expected[first..]), &hex(&found[first..]));
    }

    fn transfer(
        &mut self,
        direction: Direction,
        memory: u64,
        transfer: Transfer,
        meanwhile: Option<u32>,
    ) -> Result<(), Stop> {
        self.poll_until_clear(edu::DMA_COMMAND, edu::DMA_START, "dma-idle")?;
        self.expect_quiet()?;
        let device = transfer.range.address();
        let (source, destination, command) = match direction {
            Direction::ToDevice => (memory, device, edu::DMA_START),
            Direction::FromDevice => (device, memory, edu::DMA_START | edu::DMA_FROM_DEVICE),
        };
        let count = transfer.range.len() as u64;
        if !self.set_dma(source, destination, count, transfer.wide) {
            // Started with a wrong device address or count, it could reach beyond the buffer.
            return Err(Stop::Abandoned);
        }
        let by_interrupt = transfer.completion == Completion::Interrupt;
        let interrupt = if by_interrupt { edu::DMA_INTERRUPT } else { 0 };
        self.machine.write32(edu::DMA_COMMAND, command | interrupt);
        if let Some(n) = meanwhile {
            self.factorial_unchecked(n, Completion::Polling)?;
        }
        if by_interrupt {
            self.take_interrupt(edu::INTERRUPT_DMA)?;
            let busy = self.machine.read32(edu::DMA_COMMAND) & edu::DMA_START;
            self.check("busy-after-interrupt", 0, busy.into());
        } else {
            self.poll_until_clear(edu::DMA_COMMAND, edu::DMA_START, "dma-done")?;
            self.expect_quiet()?;
        }
        self.check_dma();
        Ok(())
    }

    fn poll_until_clear(&mut self, register: usize, mask: u32, what: &str) -> Result<(), Stop> {
        let deadline = self.machine.now() + self.timeout;
        let mut reads = 0u32;
        loop {
            let value = self.machine.read32(register);
            if value & mask == 0 {
                return Ok(());
            }
            if value == u32::MAX && self.is_gone() {
                return Err(gone().into());
            }
            self.busy_reads += 1;
            if self.machine.now() >= deadline {
                let found = format!("{value:#x}-at-time-out");
                self.wrong(what, "0x0", &found);
                return Err(Stop::Abandoned);
            }
            // Eager first, patient later: both habits meet a device that isn't ours just then.
            reads += 1;
            if reads > 16 {
                self.machine.sleep(Duration::from_millis(1));
            }
        }
    }

    /// Waits for the interrupt whose status is exactly `bit`, acknowledges and unmasks it.
    fn take_interrupt(&mut self, bit: u32) -> Result<(), Stop> {
        let deadline = self.machine.now() + self.timeout;
        loop {
            let left = deadline.saturating_sub(self.machine.now());
            let look = if self.hotplug { LOOK } else { left };
            let events = self.machine.wait_interrupt(left.min(look))?;
            if self.is_gone() {
                return Err(gone().into());
            }
            if events == 0 && self.hotplug && self.machine.now() < deadline {
                continue;
            }
            let status = self.machine.read32(edu::INTERRUPT_STATUS);
            if events == 0 {
                let found = format!("none,status={status:#x}");
                self.wrong("interrupt-lost", &format!("{bit:#x}"), &found);
                return Err(Stop::Abandoned);
            }
            self.totals.interrupts += u64::from(events);
            self.check("interrupt-count", 1, events.into());
            self.acknowledge(status)?;
            self.check("interrupt", bit.into(), status.into());
            if status & bit != 0 {
                return Ok(());
            }
        }
    }

    fn acknowledge(&mut self, status: u32) -> Result<(), Stop> {
        self.machine.write32(edu::INTERRUPT_ACKNOWLEDGE, status);
        let after = self.machine.read32(edu::INTERRUPT_STATUS);
        self.check("interrupt-acknowledged", 0, after.into());
        Ok(self.machine.unmask_interrupt()?)
    }

    /// No operation that raises interrupts is under way: neither may there be an interrupt.
    fn expect_quiet(&mut self) -> Result<(), Stop> {
        let events = self.machine.wait_interrupt(Duration::ZERO)?;
        let status = self.machine.read32(edu::INTERRUPT_STATUS);
        if events != 0 || status != 0 {
            self.totals.interrupts += u64::from(events);
            let found = format!("{status:#x},events={events}");
            self.wrong("interrupt-uncalled", "none", &found);
            self.acknowledge(status)?;
        }
        Ok(())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the device is gone")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().take(8).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
