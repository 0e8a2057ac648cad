//! The console's UART: a PL011, driven by the `arm-pl011-uart` crate.

use super::mmio::Region;
use arm_pl011_uart::{Interrupts, PL011Registers, Uart};
use core::ptr::NonNull;
use safe_mmio::UniqueMmioPointer;

/// The UART, as firmware set it up.
pub struct Pl011(Uart<'static>);

impl Pl011 {
    /// Takes the UART in this region.
    pub fn new(region: Region) -> Option<Self> {
        let pointer = NonNull::new(region.virtual_address() as *mut PL011Registers)?;
        // SAFETY: the region is mapped as device memory for as long as Baton runs; only one `Pl011` is made, behind a lock.
        let mut uart = Uart::new(unsafe { UniqueMmioPointer::new(pointer) });
        uart.clear_interrupts(Interrupts::all());
        Some(Self(uart))
    }

    /// Lets received bytes interrupt.
    pub fn listen(&mut self) {
        self.0
            .set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }

    /// Lets (or doesn't) room for output interrupt.
    pub fn notify_room(&mut self, wanted: bool) {
        let mut masks = Interrupts::RXI | Interrupts::RTI;
        masks.set(Interrupts::TXI, wanted);
        self.0.set_interrupt_masks(masks);
    }

    /// Acknowledges what interrupted.
    pub fn acknowledge(&mut self) {
        self.0.clear_interrupts(Interrupts::all());
    }

    /// Sends a byte if there is room.
    pub fn try_send(&mut self, byte: u8) -> bool {
        if self.0.is_tx_fifo_full() {
            return false;
        }
        self.0.write_word(byte);
        true
    }

    /// Takes a received byte; one with a line error is dropped.
    pub fn receive(&mut self) -> Option<u8> {
        self.0.read_word().ok().flatten()
    }
}
