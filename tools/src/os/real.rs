//! The machine as it is: the device through sysfs and uio, under the trait that the jobs know.

use super::console;
use super::function::{Function, Uio};
use super::memory::DmaMemory;
use super::mmio::Registers;
use crate::edu;
use crate::machine::{Machine, Slot};
use std::io;
use std::time::{Duration, Instant};

/// The real thing.
pub struct RealMachine {
    uio: Uio,
    registers: Registers,
    memory: DmaMemory,
    started: Instant,
}

impl RealMachine {
    /// Binds and maps the function.
    pub fn open(function: &Function, memory: DmaMemory) -> io::Result<Self> {
        let uio = function.bind()?;
        let registers = Registers::map(&function.resource(0)?, edu::BAR_LEN)?;
        Ok(Self {
            uio,
            registers,
            memory,
            started: Instant::now(),
        })
    }

    /// What was found, as `key=value`.
    pub fn describe(&mut self) -> io::Result<String> {
        Ok(format!(
            "uio={} slot_len={} outgoing={:#x} incoming={:#x}",
            self.uio.name(),
            self.memory.slot_len(),
            self.memory.physical(Slot::Outgoing, 0)?,
            self.memory.physical(Slot::Incoming, 0)?,
        ))
    }

    /// Whether the device is what it should be.
    pub fn check_identity(&mut self) -> io::Result<()> {
        match self.registers.read32(edu::ID) {
            edu::ID_VALUE => Ok(()),
            other => Err(io::Error::other(format!(
                "edu identification: found {other:#010x}, expected {:#010x}",
                edu::ID_VALUE
            ))),
        }
    }
}

impl Machine for RealMachine {
    fn read32(&mut self, offset: usize) -> u32 {
        self.registers.read32(offset)
    }

    fn write32(&mut self, offset: usize, value: u32) {
        self.registers.write32(offset, value);
    }

    fn read64(&mut self, offset: usize) -> u64 {
        self.registers.read64(offset)
    }

    fn write64(&mut self, offset: usize, value: u64) {
        self.registers.write64(offset, value);
    }

    fn wait_interrupt(&mut self, limit: Duration) -> io::Result<u32> {
        self.uio.wait(limit)
    }

    fn unmask_interrupt(&mut self) -> io::Result<()> {
        self.uio.unmask()
    }

    fn slot_len(&self) -> usize {
        self.memory.slot_len()
    }

    fn physical(&mut self, slot: Slot, offset: usize) -> io::Result<u64> {
        self.memory.physical(slot, offset)
    }

    fn store(&mut self, slot: Slot, offset: usize, bytes: &[u8]) {
        self.memory.store(slot, offset, bytes);
    }

    fn load(&mut self, slot: Slot, offset: usize, bytes: &mut [u8]) {
        self.memory.load(slot, offset, bytes);
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        if !time.is_zero() {
            std::thread::sleep(time);
        }
    }

    fn print(&mut self, line: &str) {
        console::print(line);
    }
}
