//! The UARTs that Baton's console can be on, as the machine has them.
//!
//! Drivers are [`platforms::uart`]'s, reached through the trait there, but for the PL011's: that is the `arm-pl011-uart` crate, which wants a pointer.

use super::mmio::Region;
use alloc::boxed::Box;
use alloc::string::String;
use arm_pl011_uart::{Interrupts, PL011Registers, Uart as Registers};
use coproc_core::register::Width;
use core::ptr::NonNull;
use platforms::uart::{self, Bus, Polled, Uart};
use safe_mmio::UniqueMmioPointer;

/// A driver, and how to do without.
pub struct Driver {
    compatible: &'static [&'static str],
    /// For reports.
    pub polled: Polled,
    make: fn(Region) -> Option<Box<dyn Uart>>,
}

/// All drivers that are compiled in.
const DRIVERS: &[Driver] = &[
    Driver {
        compatible: uart::PL011_COMPATIBLE,
        polled: uart::PL011,
        make: |region| Some(Box::new(Pl011::new(region)?)),
    },
    #[cfg(feature = "mini-uart")]
    Driver {
        compatible: uart::mini::COMPATIBLE,
        polled: uart::mini::POLLED,
        make: |region| Some(Box::new(uart::MiniUart::new(region))),
    },
    #[cfg(feature = "scif")]
    Driver {
        compatible: uart::scif::COMPATIBLE,
        polled: uart::scif::POLLED,
        make: |region| Some(Box::new(uart::Scif::new(region))),
    },
];

impl Driver {
    /// The driver of a UART with these `compatible` strings, the first of which that has one counts.
    pub fn of(compatible: &[String]) -> Option<&'static Self> {
        let mut names = compatible.iter();
        names.find_map(|name| {
            DRIVERS
                .iter()
                .find(|driver| driver.compatible.contains(&name.as_str()))
        })
    }

    /// Takes the UART in this region. Once for each UART.
    pub fn start(&self, region: Region) -> Option<Box<dyn Uart>> {
        (self.make)(region)
    }
}

impl Bus for Region {
    fn read(&mut self, offset: u64, width: Width) -> u64 {
        Region::read(self, offset, width)
    }

    fn write(&mut self, offset: u64, width: Width, value: u64) {
        Region::write(self, offset, width, value);
    }
}

/// A PL011, as firmware set it up.
struct Pl011(Registers<'static>);

impl Pl011 {
    fn new(region: Region) -> Option<Self> {
        let pointer = NonNull::new(region.virtual_address() as *mut PL011Registers)?;
        // SAFETY: the region is mapped as device memory for as long as Baton runs; only one `Pl011` is made, behind a lock.
        let mut uart = Registers::new(unsafe { UniqueMmioPointer::new(pointer) });
        uart.clear_interrupts(Interrupts::all());
        Some(Self(uart))
    }
}

impl Uart for Pl011 {
    fn listen(&mut self) {
        self.0
            .set_interrupt_masks(Interrupts::RXI | Interrupts::RTI);
    }

    fn notify_room(&mut self, wanted: bool) {
        let mut masks = Interrupts::RXI | Interrupts::RTI;
        masks.set(Interrupts::TXI, wanted);
        self.0.set_interrupt_masks(masks);
    }

    fn acknowledge(&mut self) {
        self.0.clear_interrupts(Interrupts::all());
    }

    fn try_send(&mut self, byte: u8) -> bool {
        if self.0.is_tx_fifo_full() {
            return false;
        }
        self.0.write_word(byte);
        true
    }

    /// One with a line error is dropped.
    fn receive(&mut self) -> Option<u8> {
        self.0.read_word().ok().flatten()
    }
}
