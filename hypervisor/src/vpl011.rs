//! A domain's UART: a PL011 without a wire.
//!
//! The PL011 is chosen because everything a domain may boot speaks it: Linux (full driver and
//! SBSA subset), UEFI, U-Boot. Nothing is clocked here: a byte written to the data register is
//! handed to the caller at once, so the transmitter is always empty, and a byte typed by the user
//! is available at once. What takes time in hardware is therefore decided by rule:
//!
//! - The transmit interrupt becomes pending when a byte is sent (the FIFO "drained"), as drivers
//!   that fill the FIFO and wait for it expect.
//! - The receive time-out becomes pending whenever data waits: with no character clock, every
//!   pause counts as the 32 bit periods of silence the manual asks for. So no data is ever
//!   stranded below the FIFO's trigger level.
//! - What is typed while the FIFO is full waits, as it does in front of QEMU's: firmware polls its UART now and then, and
//!   a pasted line is longer than a FIFO.
//!
//! The receiver honours the enable bits; the transmitter doesn't, so that early consoles that
//! write before any set-up are seen. At reset the UART is enabled, as firmware would leave it,
//! because the SBSA driver never touches the control register.
//!
//! Source: Arm DDI 0183 (PrimeCell UART PL011 TRM), chapter 3; offsets and bits are its tables.

use arrayvec::ArrayVec;
use coproc_core::register::Width;

/// Size in bytes of the register window.
pub const WINDOW_SIZE: u64 = 0x1000;

/// Depth of the receive FIFO of revision r1p5 (16 in older ones).
pub const FIFO_DEPTH: usize = 32;

/// Typed bytes that wait for room in the FIFO, at most.
pub const WAITING: usize = 512;

const DR: u64 = 0x00;
const RSR: u64 = 0x04;
const FR: u64 = 0x18;
const ILPR: u64 = 0x20;
const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const DMACR: u64 = 0x48;

/// Overrun in the data register (bit 11) and in RSR (bit 3).
const DR_OE: u16 = 1 << 11;
const RSR_OE: u8 = 1 << 3;

const FR_CTS: u32 = 1 << 0;
const FR_DSR: u32 = 1 << 1;
const FR_DCD: u32 = 1 << 2;
const FR_RXFE: u32 = 1 << 4;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFE: u32 = 1 << 7;

const LCR_H_FEN: u8 = 1 << 4;

const CR_UARTEN: u16 = 1 << 0;
const CR_LBE: u16 = 1 << 7;
const CR_TXE: u16 = 1 << 8;
const CR_RXE: u16 = 1 << 9;

const INT_RX: u16 = 1 << 4;
const INT_TX: u16 = 1 << 5;
const INT_RT: u16 = 1 << 6;
const INT_OE: u16 = 1 << 10;
const INT_ALL: u16 = 0x7ff;

/// A virtual PL011, revision r1p5.
#[derive(Clone, Debug)]
pub struct Vpl011 {
    receive: ArrayVec<u16, FIFO_DEPTH>,
    /// Typed, and not in the FIFO yet.
    waiting: ArrayVec<u8, WAITING>,
    overrun: bool,
    rsr: u8,
    ilpr: u8,
    ibrd: u16,
    fbrd: u8,
    lcr_h: u8,
    cr: u16,
    ifls: u8,
    imsc: u16,
    ris: u16,
    dmacr: u8,
}

impl Default for Vpl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Vpl011 {
    /// A UART just out of reset, enabled.
    pub const fn new() -> Self {
        Self {
            receive: ArrayVec::new_const(),
            waiting: ArrayVec::new_const(),
            overrun: false,
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: CR_UARTEN | CR_TXE | CR_RXE,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
        }
    }

    /// Level of the combined interrupt output UARTINTR.
    pub const fn interrupt_level(&self) -> bool {
        self.ris & self.imsc != 0
    }

    /// Whether [`Self::receive`] would take a byte now.
    pub fn can_receive(&self) -> bool {
        self.is_listening() && self.receive.len() < self.depth()
    }

    /// A byte was typed: it waits if there is no room for it. Returns whether it was taken; [`Self::receive`] says why it wouldn't be.
    pub fn deliver(&mut self, byte: u8) -> bool {
        if self.waiting.is_empty() && self.can_receive() || self.waiting.is_full() {
            return self.receive(byte);
        }
        self.is_listening() && self.waiting.try_push(byte).is_ok()
    }

    /// What waits goes into the FIFO as far as there is room.
    fn refill(&mut self) {
        while self.can_receive()
            && let Some(byte) = self.waiting.pop_at(0)
        {
            self.receive(byte);
        }
    }

    /// A byte arrives on the (absent) wire. Returns whether it was taken.
    ///
    /// A full FIFO loses the byte and records an overrun, as hardware does; a caller that can
    /// hold bytes back asks [`Self::can_receive`] first. A disabled receiver ignores the byte.
    pub fn receive(&mut self, byte: u8) -> bool {
        if !self.is_listening() {
            return false;
        }
        let full = self.receive.len() >= self.depth();
        // Raised for a refused byte too: data waits, and its reader may have cleared the bit.
        self.ris |= INT_RT;
        if full {
            self.overrun = true;
            self.rsr |= RSR_OE;
            self.ris |= INT_OE;
            return false;
        }
        let flags = if core::mem::take(&mut self.overrun) {
            DR_OE
        } else {
            0
        };
        if self.receive.try_push(u16::from(byte) | flags).is_err() {
            return false;
        }
        if self.receive.len() >= self.trigger() {
            self.ris |= INT_RX;
        }
        true
    }

    /// Whether a load at `offset` may change anything: reading received data does.
    #[inline]
    pub const fn read_has_effect(offset: u64) -> bool {
        offset == DR
    }

    /// A load of `width` at `offset` from the window's start. Undefined registers read zero.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        let register = offset & !3;
        let value = match register {
            DR if offset == DR => self.read_data(),
            RSR => u32::from(self.rsr),
            FR => self.flags(),
            ILPR => u32::from(self.ilpr),
            IBRD => u32::from(self.ibrd),
            FBRD => u32::from(self.fbrd),
            LCR_H => u32::from(self.lcr_h),
            CR => u32::from(self.cr),
            IFLS => u32::from(self.ifls),
            IMSC => u32::from(self.imsc),
            RIS => u32::from(self.ris),
            MIS => u32::from(self.ris & self.imsc),
            DMACR => u32::from(self.dmacr),
            // PeriphID0-3 (part 0x011, designer 0x41, revision 3 = r1p5) and PCellID0-3.
            0xfe0 => 0x11,
            0xfe4 => 0x10,
            0xfe8 => 0x34,
            0xfec => 0x00,
            0xff0 => 0x0d,
            0xff4 => 0xf0,
            0xff8 => 0x05,
            0xffc => 0xb1,
            _ => 0,
        };
        let shift = ((offset & 3) as u32).wrapping_mul(8);
        u64::from(value.checked_shr(shift).unwrap_or(0)) & width.mask()
    }

    /// A store of `value` at `offset`. Returns the byte that it put on the wire, if any.
    ///
    /// Stores that don't start on a register, and stores to read-only registers, are ignored.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<u8> {
        let value = (value & width.mask()) as u32;
        match offset {
            DR => return self.write_data(value as u8),
            RSR => {
                self.rsr = 0;
                self.overrun = false;
            }
            ILPR => self.ilpr = value as u8,
            IBRD => self.ibrd = value as u16,
            FBRD => self.fbrd = value as u8 & 0x3f,
            LCR_H => {
                let value = value as u8;
                if (self.lcr_h ^ value) & LCR_H_FEN != 0 {
                    self.receive.clear();
                    self.ris &= !(INT_RX | INT_RT);
                }
                self.lcr_h = value;
                self.refill();
            }
            CR => {
                self.cr = value as u16 & 0xff87;
                self.refill();
            }
            IFLS => {
                self.ifls = value as u8 & 0x3f;
                if self.receive.len() < self.trigger() {
                    self.ris &= !INT_RX;
                } else {
                    self.ris |= INT_RX;
                }
            }
            IMSC => self.imsc = value as u16 & INT_ALL,
            ICR => self.ris &= !(value as u16),
            DMACR => self.dmacr = value as u8 & 0x7,
            _ => {}
        }
        None
    }

    /// Whether somebody listens: the receiver is enabled.
    pub const fn is_listening(&self) -> bool {
        self.cr & CR_UARTEN != 0 && self.cr & CR_RXE != 0
    }

    const fn depth(&self) -> usize {
        if self.lcr_h & LCR_H_FEN != 0 {
            FIFO_DEPTH
        } else {
            1
        }
    }

    /// Number of waiting bytes at which the receive interrupt becomes pending (IFLS.RXIFLSEL).
    const fn trigger(&self) -> usize {
        if self.lcr_h & LCR_H_FEN == 0 {
            return 1;
        }
        match (self.ifls >> 3) & 7 {
            0 => FIFO_DEPTH / 8,
            1 => FIFO_DEPTH / 4,
            2 => FIFO_DEPTH / 2,
            3 => FIFO_DEPTH / 4 * 3,
            _ => FIFO_DEPTH / 8 * 7,
        }
    }

    fn flags(&self) -> u32 {
        const IDLE: u32 = FR_CTS | FR_DSR | FR_DCD | FR_TXFE;
        if self.receive.is_empty() {
            IDLE | FR_RXFE
        } else if self.receive.len() >= self.depth() {
            IDLE | FR_RXFF
        } else {
            IDLE
        }
    }

    fn read_data(&mut self) -> u32 {
        let value = self.receive.pop_at(0).unwrap_or(0);
        if self.receive.len() < self.trigger() {
            self.ris &= !INT_RX;
        }
        if self.receive.is_empty() {
            self.ris &= !INT_RT;
        } else {
            self.ris |= INT_RT;
        }
        self.refill();
        u32::from(value)
    }

    fn write_data(&mut self, byte: u8) -> Option<u8> {
        self.ris |= INT_TX;
        if self.cr & CR_LBE != 0 {
            self.receive(byte);
            return None;
        }
        Some(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const W: Width = Width::Word;

    fn with_fifo() -> Vpl011 {
        let mut uart = Vpl011::new();
        uart.write(LCR_H, W, 0x70);
        uart
    }

    #[test]
    fn identifies_as_an_r1p5_pl011() {
        let mut uart = Vpl011::new();
        let id = |uart: &mut Vpl011, base: u64| {
            (0..4).fold(0u64, |id, i| id | uart.read(base + 4 * i, W) << (8 * i))
        };
        assert_eq!(id(&mut uart, 0xfe0), 0x0034_1011);
        assert_eq!(id(&mut uart, 0xff0), 0xb105_f00d);
    }

    #[test]
    fn every_byte_written_is_sent_and_there_is_always_room() {
        let mut uart = Vpl011::new();
        for byte in 0..=255u8 {
            assert_eq!(uart.read(FR, W) & 0x28, 0, "neither TXFF nor BUSY");
            assert_eq!(uart.write(DR, W, u64::from(byte) | 0xff00), Some(byte));
        }
        assert_ne!(uart.read(FR, W) & u64::from(FR_TXFE), 0);
    }

    #[test]
    fn transmit_interrupt_follows_the_driver_s_sequence() {
        let mut uart = with_fifo();
        assert!(!uart.interrupt_level());
        uart.write(DR, W, b'x'.into());
        assert!(!uart.interrupt_level(), "masked");
        uart.write(IMSC, W, INT_TX.into());
        assert!(uart.interrupt_level());
        uart.write(ICR, W, INT_TX.into());
        assert!(!uart.interrupt_level());
        uart.write(DR, W, b'y'.into());
        assert!(uart.interrupt_level());
        assert_eq!(uart.read(MIS, W), INT_TX.into());
    }

    #[test]
    fn receive_interrupt_by_level_and_time_out_whenever_data_waits() {
        let mut uart = with_fifo();
        uart.write(IMSC, W, INT_RX.into());
        for n in 1..=16u8 {
            assert!(!uart.interrupt_level(), "below half");
            assert!(uart.receive(n));
            assert_ne!(uart.read(RIS, W) & u64::from(INT_RT), 0);
        }
        assert!(uart.interrupt_level());
        assert_eq!(uart.read(DR, W), 1);
        assert!(!uart.interrupt_level());
        for n in 2..=16 {
            assert_ne!(uart.read(RIS, W) & u64::from(INT_RT), 0);
            assert_eq!(uart.read(DR, W), n);
        }
        assert_eq!(uart.read(RIS, W), 0);
        assert_ne!(uart.read(FR, W) & u64::from(FR_RXFE), 0);
    }

    #[test]
    fn clearing_does_not_strand_data() {
        let mut uart = with_fifo();
        uart.write(IMSC, W, u64::from(INT_RX | INT_RT));
        uart.receive(b'a');
        uart.write(ICR, W, INT_ALL.into());
        assert!(!uart.interrupt_level());
        uart.receive(b'b');
        assert!(uart.interrupt_level());
    }

    #[test]
    fn overrun_is_recorded_once_and_carried_by_the_next_byte() {
        let mut uart = Vpl011::new();
        assert!(uart.receive(b'a'), "without FIFO: one holding register");
        assert!(!uart.can_receive());
        assert_ne!(uart.read(FR, W) & u64::from(FR_RXFF), 0);
        assert!(!uart.receive(b'b'));
        assert_eq!(uart.read(RSR, W), RSR_OE.into());
        assert_ne!(uart.read(RIS, W) & u64::from(INT_OE), 0);
        assert_eq!(uart.read(DR, W), b'a'.into());
        assert!(uart.receive(b'c'));
        assert_eq!(uart.read(DR, W), u64::from(DR_OE) | u64::from(b'c'));
        assert!(uart.receive(b'd'));
        assert_eq!(uart.read(DR, W), b'd'.into());
        uart.write(RSR, W, 0);
        assert_eq!(uart.read(RSR, W), 0);
    }

    #[test]
    fn the_fifo_is_thirty_two_deep() {
        let mut uart = with_fifo();
        assert_eq!((0..40).filter(|n| uart.receive(*n)).count(), 32);
    }

    /// What software reads until nothing is there.
    fn read_all(uart: &mut Vpl011) -> alloc::vec::Vec<u8> {
        let mut read = alloc::vec![];
        while uart.read(FR, W) & u64::from(FR_RXFE) == 0 {
            read.push(uart.read(DR, W) as u8);
        }
        read
    }

    #[test]
    fn a_pasted_line_waits_for_a_reader() {
        let typed: alloc::vec::Vec<u8> = (0..WAITING + FIFO_DEPTH).map(|n| n as u8).collect();
        let mut uart = with_fifo();
        assert!(typed.iter().all(|byte| uart.deliver(*byte)));
        assert_eq!(uart.read(RSR, W), 0);
        assert!(!uart.deliver(0), "one too many is lost, and recorded");
        assert_eq!(uart.read(RSR, W), RSR_OE.into());
        assert_eq!(read_all(&mut uart), typed);
        // What waits comes after what is in the holding register.
        let mut uart = Vpl011::new();
        assert!(b"abc".iter().all(|byte| uart.deliver(*byte)));
        assert_eq!(uart.read(DR, W), b'a'.into());
        assert!(uart.deliver(b'd'));
        assert_eq!(read_all(&mut uart), b"bcd");
    }

    #[test]
    fn what_waits_goes_on_waiting_while_nobody_listens() {
        let mut uart = with_fifo();
        let enabled = uart.read(CR, W);
        let typed: alloc::vec::Vec<u8> = (0..50).collect();
        assert!(typed.iter().all(|byte| uart.deliver(*byte)));
        uart.write(CR, W, 0);
        assert!(!uart.deliver(50), "typed to nobody");
        // Changing the FIFO empties it, but not the wire.
        uart.write(LCR_H, W, 0x60);
        assert_ne!(uart.read(FR, W) & u64::from(FR_RXFE), 0);
        uart.write(CR, W, enabled);
        assert_eq!(read_all(&mut uart), typed[FIFO_DEPTH..]);
    }

    #[test]
    fn a_disabled_receiver_takes_nothing_and_records_no_overrun() {
        let mut uart = Vpl011::new();
        uart.write(CR, W, CR_UARTEN.into());
        assert!(!uart.receive(1) && !uart.can_receive());
        assert_eq!(uart.read(RIS, W), 0);
    }

    #[test]
    fn loopback_returns_what_is_sent() {
        let mut uart = with_fifo();
        uart.write(CR, W, u64::from(CR_UARTEN | CR_RXE | CR_TXE | CR_LBE));
        assert_eq!(uart.write(DR, W, 0x5a), None);
        assert_eq!(uart.read(DR, W), 0x5a);
    }

    #[test]
    fn narrow_accesses_see_their_part() {
        let mut uart = Vpl011::new();
        uart.write(IBRD, Width::Half, 0xabcd);
        assert_eq!(uart.read(IBRD, Width::Byte), 0xcd);
        assert_eq!(uart.read(IBRD + 1, Width::Byte), 0xab);
        assert_eq!(uart.write(DR, Width::Byte, 0x41), Some(0x41));
        uart.receive(9);
        assert_eq!(uart.read(DR + 1, Width::Byte), 0, "doesn't pop");
        assert_eq!(uart.read(DR, Width::Byte), 9);
    }

    proptest! {
        #[test]
        fn random_accesses_keep_the_invariants(
            steps in proptest::collection::vec((0u8..4, 0u64..0x1010, 0usize..4, any::<u64>()), 0..300)
        ) {
            let widths = [Width::Byte, Width::Half, Width::Word, Width::Double];
            let mut uart = Vpl011::new();
            for (kind, offset, width, value) in steps {
                let width = widths[width];
                match kind {
                    0 => prop_assert_eq!(uart.read(offset, width) & !width.mask(), 0),
                    1 => {
                        let sent = uart.write(offset, width, value);
                        prop_assert!(sent.is_none() || offset == DR);
                    }
                    2 => {
                        let room = uart.can_receive() || uart.is_listening() && !uart.waiting.is_full();
                        prop_assert_eq!(uart.deliver(value as u8), room);
                    }
                    _ => {
                        let could = uart.can_receive();
                        prop_assert_eq!(uart.receive(value as u8), could);
                    }
                }
                prop_assert!(uart.receive.len() <= FIFO_DEPTH);
                prop_assert!(uart.waiting.is_empty() || !uart.can_receive());
                let mis = uart.read(MIS, Width::Word);
                prop_assert_eq!(uart.interrupt_level(), mis != 0);
                let empty = uart.read(FR, Width::Word) & u64::from(FR_RXFE) != 0;
                prop_assert_eq!(empty, uart.receive.is_empty());
                if empty {
                    prop_assert_eq!(uart.ris & INT_RX, 0);
                }
            }
        }
    }
}
