//! A firmware core as it is: the function through sysfs and uio, under the trait that the modes know.

use super::console;
use super::function::{Function, Uio};
use super::memory::DmaMemory;
use super::mmio::{self, Registers};
use super::system::about;
use crate::firmware::host::{Host, Window};
use crate::machine::Slot;
use fw_core_abi::{IMAGE_BAR, IMAGE_SIZE, REGISTERS_BAR, REGISTERS_SIZE, SHARED_BAR, SHARED_SIZE};
use std::fs;
use std::io;
use std::time::{Duration, Instant};

/// The real thing.
pub struct RealCore {
    uio: Uio,
    registers: Registers,
    image: Registers,
    shared: Registers,
    memory: DmaMemory,
    started: Instant,
}

impl RealCore {
    /// Binds and maps the function.
    ///
    /// # Errors
    /// When it can't be.
    pub fn open(function: &Function, memory: DmaMemory) -> io::Result<Self> {
        let uio = function.bind()?;
        let window = |bar, size: u64| Registers::map(&function.resource(bar)?, size as usize);
        Ok(Self {
            uio,
            registers: window(REGISTERS_BAR, REGISTERS_SIZE)?,
            image: window(IMAGE_BAR, IMAGE_SIZE)?,
            shared: window(SHARED_BAR, SHARED_SIZE)?,
            memory,
            started: Instant::now(),
        })
    }

    /// What was found, as `key=value`.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn describe(&mut self) -> io::Result<String> {
        let address = self.memory.physical(Slot::Outgoing, 0)?;
        Ok(format!(
            "uio={} grant={address:#x} grant_len={}",
            self.uio.name(),
            self.memory.slot_len()
        ))
    }

    fn window(&self, window: Window) -> &Registers {
        match window {
            Window::Registers => &self.registers,
            Window::Image => &self.image,
            Window::Shared => &self.shared,
        }
    }
}

impl Host for RealCore {
    fn read32(&mut self, window: Window, offset: u64) -> u32 {
        self.window(window).read32(offset as usize)
    }

    fn read64(&mut self, window: Window, offset: u64) -> u64 {
        self.window(window).read64(offset as usize)
    }

    fn write32(&mut self, window: Window, offset: u64, value: u32) {
        self.window(window).write32(offset as usize, value);
    }

    fn write64(&mut self, window: Window, offset: u64, value: u64) {
        self.window(window).write64(offset as usize, value);
    }

    fn barrier(&mut self) {
        mmio::barrier();
    }

    fn wait_interrupt(&mut self, limit: Duration) -> io::Result<u32> {
        self.uio.wait(limit)
    }

    fn unmask_interrupt(&mut self) -> io::Result<()> {
        self.uio.unmask()
    }

    fn grant_len(&self) -> usize {
        self.memory.slot_len()
    }

    fn grant_address(&mut self) -> io::Result<u64> {
        self.memory.physical(Slot::Outgoing, 0)
    }

    fn grant_store(&mut self, offset: usize, bytes: &[u8]) {
        self.memory.store(Slot::Outgoing, offset, bytes);
        self.memory.clean(Slot::Outgoing, offset, bytes.len());
    }

    fn firmware(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let path = format!("/firmware/{name}.bin");
        fs::read(&path).map_err(|error| about(path, error))
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&mut self, time: Duration) {
        std::thread::sleep(time);
    }

    fn print(&mut self, line: &str) {
        console::print(line);
    }
}
