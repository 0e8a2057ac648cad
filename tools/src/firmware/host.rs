//! What the workload needs of the machine, as a trait.

use std::io;
use std::time::Duration;

/// One of the function's windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Registers.
    Registers,
    /// The image memory.
    Image,
    /// The shared memory.
    Shared,
}

/// The function, its interrupt, a piece of RAM to grant, the firmware files, time, and the console.
///
/// Errors are of the operating system: after one the run can't go on. Offsets are multiples of the access and inside the window.
pub trait Host {
    /// Reads 4 bytes.
    fn read32(&mut self, window: Window, offset: u64) -> u32;
    /// Reads 8 bytes.
    fn read64(&mut self, window: Window, offset: u64) -> u64;
    /// Writes 4 bytes.
    fn write32(&mut self, window: Window, offset: u64, value: u32);
    /// Writes 8 bytes.
    fn write64(&mut self, window: Window, offset: u64, value: u64);
    /// Orders what was written to memory before against what is written to registers after, and reads likewise.
    fn barrier(&mut self);

    /// Waits at most `limit` for interrupts: how many came since the last call, 0 after a time-out. The function's interrupt is masked from
    /// the interrupt on.
    ///
    /// # Errors
    /// When the kernel can't wait for this function's interrupts.
    fn wait_interrupt(&mut self, limit: Duration) -> io::Result<u32>;
    /// Lets the function assert its interrupt again.
    ///
    /// # Errors
    /// When the configuration space can't be written.
    fn unmask_interrupt(&mut self) -> io::Result<()>;

    /// Bytes of the piece of RAM that may be granted, a multiple of 4 KiB.
    fn grant_len(&self) -> usize;
    /// Its address, as the domain's kernel knows it.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    fn grant_address(&mut self) -> io::Result<u64>;
    /// Writes there; the firmware sees it afterwards.
    fn grant_store(&mut self, offset: usize, bytes: &[u8]);

    /// A firmware's image, by its name.
    ///
    /// # Errors
    /// If there is none of that name.
    fn firmware(&mut self, name: &str) -> io::Result<Vec<u8>>;

    /// Time since the program's start.
    fn now(&self) -> Duration;
    /// Sleeps.
    fn sleep(&mut self, time: Duration);
    /// Prints one line on the console, in one piece; the newline is added.
    fn print(&mut self, line: &str);
}
