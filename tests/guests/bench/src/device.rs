//! The shared coprocessor as the domain sees it: QEMU's `edu`, a PCI function.
//!
//! Only what edu does at once is used: its identification register, and its interrupt raised and acknowledged. Its computations and
//! transfers take time of the host's and of the device's, not instructions.

use crate::exits::{measure, reads};
use crate::interrupts::{self, Delivery};
use guest_runtime::machine::{ECAM, PCI_INTX, PCI_MEMORY, enable_interrupt, read, write};

/// Device and vendor id.
const IDENTITY: u32 = 0x11e8_1234;
/// Identification: 0xRRrr00edu.
const ID: u64 = 0x00;
/// Interrupt status.
pub const STATUS: u64 = 0x24;
/// Raises interrupts.
pub const RAISE: u64 = 0x60;
/// Clears interrupts.
pub const ACKNOWLEDGE: u64 = 0x64;

/// The function, found and switched on.
pub struct Device {
    /// Its configuration space.
    pub space: u64,
    /// BAR 0.
    pub registers: u64,
    /// INTID of its INTx.
    pub intid: u32,
}

impl Device {
    /// Looks for edu on bus 0 and gives it an address.
    pub fn find() -> Result<Self, &'static str> {
        for slot in 0..32u32 {
            let space = ECAM + (u64::from(slot) << 15);
            if read(space) != IDENTITY {
                continue;
            }
            // BAR 0, then memory decoding and bus mastering.
            write(space + 0x10, PCI_MEMORY as u32);
            write(space + 0x4, 0x6);
            let pin = read(space + 0x3c) >> 8 & 0xff;
            if pin == 0 {
                return Err("the function has no interrupt pin");
            }
            let device = Self {
                space,
                registers: PCI_MEMORY,
                intid: PCI_INTX + (slot + pin - 1) % 4,
            };
            return Ok(device);
        }
        Err("there is no edu on bus 0")
    }

    /// Reads its identification register once.
    pub fn touch(&self) -> Result<(), &'static str> {
        if read(self.registers + ID) & 0xffff == 0x00ed {
            Ok(())
        } else {
            Err("the function isn't edu")
        }
    }

    /// Ticks that reads of the identification register take.
    pub fn reads(&self, repetitions: u64) -> u64 {
        measure(repetitions, |n| reads(self.registers + ID, n))
    }

    /// Its interrupt.
    pub fn interrupts(&self, repetitions: u64) -> Delivery {
        interrupts::set_device(self.intid, self.registers);
        enable_interrupt(self.intid);
        interrupts::measure(repetitions, || write(self.registers + RAISE, 1))
    }
}

/// The handler's part: takes the status and clears it.
pub fn acknowledge(registers: u64) {
    let status = read(registers + STATUS);
    write(registers + ACKNOWLEDGE, status);
}
