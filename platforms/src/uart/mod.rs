//! UARTs: where the hypervisor's console goes.
//!
//! Boards differ in theirs, so the console knows the trait [`Uart`] only. Which driver serves the UART that `/chosen/stdout-path`
//! names is decided by its `compatible`. A report of a fault can't rely on a driver, whose lock the faulting code may hold; for that
//! each driver also says, as data, how a byte is sent with nothing but two registers: [`Polled`].

#[cfg(feature = "mini-uart")]
pub mod mini;
#[cfg(feature = "mini-uart")]
pub use mini::MiniUart;
#[cfg(feature = "scif")]
pub mod scif;
#[cfg(feature = "scif")]
pub use scif::Scif;

#[cfg(test)]
mod wire;

use coproc_core::register::Width;

/// A UART's registers.
pub trait Bus: Send {
    /// Reads a register; `offset` in bytes from the start of the node's `reg`.
    fn read(&mut self, offset: u64, width: Width) -> u64;

    /// Writes a register.
    fn write(&mut self, offset: u64, width: Width, value: u64);
}

/// What the console asks of a UART. No call waits for the device.
pub trait Uart: Send {
    /// Lets received bytes interrupt.
    fn listen(&mut self);

    /// Lets (or doesn't) room for output interrupt, too. Received bytes interrupt from now on, as after [`Uart::listen`].
    fn notify_room(&mut self, wanted: bool);

    /// Acknowledges what interrupted, where that takes more than serving it.
    fn acknowledge(&mut self);

    /// Sends a byte if there is room; tells whether there was.
    fn try_send(&mut self, byte: u8) -> bool;

    /// Takes a received byte, if there is one.
    fn receive(&mut self) -> Option<u8>;
}

/// How to send without a driver: wait until the status register, under `mask`, is `ready`; then write the byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Polled {
    /// Offset of the status register in bytes.
    pub status: u64,
    /// Its width.
    pub status_width: Width,
    /// The bits of it that tell of room.
    pub mask: u64,
    /// Their value when there is room.
    pub ready: u64,
    /// Offset of the data register in bytes.
    pub data: u64,
    /// Its width.
    pub data_width: Width,
}

/// UARTFR.TXFF, UARTDR (Arm DDI 0183, 3.3.3 and 3.3.1).
pub const PL011: Polled = Polled {
    status: 0x18,
    status_width: Width::Word,
    mask: 1 << 5,
    ready: 0,
    data: 0,
    data_width: Width::Word,
};
/// What the PL011's driver serves: SBSA's subset of it, too.
pub const PL011_COMPATIBLE: &[&str] = &["arm,pl011", "arm,sbsa-uart"];

impl Polled {
    /// Sends a byte when there is room, or after this many looks all the same: a report must end even if the UART is dead.
    pub fn send(&self, bus: &mut impl Bus, byte: u8, looks: u32) {
        for _ in 0..looks {
            if bus.read(self.status, self.status_width) & self.mask == self.ready {
                break;
            }
        }
        bus.write(self.data, self.data_width, u64::from(byte));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    /// Has room after so many looks.
    struct Slow {
        looks: u32,
        full: u64,
        sent: Vec<(u64, Width, u64)>,
    }

    impl Bus for Slow {
        fn read(&mut self, offset: u64, width: Width) -> u64 {
            assert_eq!((offset, width), (PL011.status, PL011.status_width));
            if self.looks == 0 {
                return 0x90;
            }
            self.looks -= 1;
            self.full
        }

        fn write(&mut self, offset: u64, width: Width, value: u64) {
            self.sent.push((offset, width, value));
        }
    }

    #[test]
    fn a_report_waits_for_room_and_not_for_ever() {
        for (looks, left) in [(0, 0), (7, 0), (30, 20)] {
            let mut slow = Slow {
                looks,
                full: 0xb0,
                sent: Vec::new(),
            };
            PL011.send(&mut slow, b'x', 10);
            assert_eq!(slow.looks, left);
            assert_eq!(slow.sent, [(0, Width::Word, 0x78)]);
        }
    }
}
