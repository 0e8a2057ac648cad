//! What a job needs of the machine, as a trait.
//!
//! The real one maps the device through sysfs and waits on `/dev/uio`; the one in the tests is a model of the
//! device that can be told to misbehave. The memory that the device's DMA reaches is two separate slots, each
//! contiguous in physical memory: one to send from, one to receive into.

use std::io;
use std::time::Duration;

/// One of the two pieces of DMA memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Where data for the device is prepared.
    Outgoing,
    /// Where data from the device arrives.
    Incoming,
}

/// The device, its interrupt, the memory it reaches, time, and the console.
///
/// Errors are of the operating system: after one the run can't go on.
pub trait Machine {
    /// Reads a register of 4 bytes at this offset in BAR 0.
    fn read32(&mut self, offset: usize) -> u32;
    /// Writes a register of 4 bytes at this offset in BAR 0.
    fn write32(&mut self, offset: usize, value: u32);
    /// Reads a register of 8 bytes at this offset in BAR 0.
    fn read64(&mut self, offset: usize) -> u64;
    /// Writes a register of 8 bytes at this offset in BAR 0.
    fn write64(&mut self, offset: usize, value: u64);

    /// Waits at most `limit` for interrupts: how many came since the last call, 0 after a time-out.
    /// The function's interrupt is masked from the interrupt on.
    ///
    /// # Errors
    /// When the kernel can't wait for this device's interrupts.
    fn wait_interrupt(&mut self, limit: Duration) -> io::Result<u32>;
    /// Lets the function assert its interrupt again (PCI Command.InterruptDisable = 0).
    ///
    /// # Errors
    /// When the configuration space can't be written.
    fn unmask_interrupt(&mut self) -> io::Result<()>;

    /// Length in bytes of each slot of DMA memory; at least 4096.
    fn slot_len(&self) -> usize;
    /// The physical address of a byte of DMA memory.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    fn physical(&mut self, slot: Slot, offset: usize) -> io::Result<u64>;
    /// Writes to DMA memory; all of it is visible to the device afterwards.
    fn store(&mut self, slot: Slot, offset: usize, bytes: &[u8]);
    /// Reads DMA memory as the device left it.
    fn load(&mut self, slot: Slot, offset: usize, bytes: &mut [u8]);

    /// Time since the program's start.
    fn now(&self) -> Duration;
    /// Sleeps.
    fn sleep(&mut self, time: Duration);
    /// Prints one line on the console, in one piece; the newline is added.
    fn print(&mut self, line: &str);
}
