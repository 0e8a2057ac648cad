//! The mini-UART of Broadcom's BCM2835 family, the Raspberry Pis' second UART and Linux's usual console there.
//!
//! BCM2711 ARM Peripherals, 2.2 and 2.3. It resembles a 16550 whose registers are 4 bytes apart. The registers count from the node's `reg`, which
//! begins at AUX_MU_IO_REG: AUX_ENABLES, which powers it, is another node's, so firmware must have switched the UART on
//! (`enable_uart=1` in the Pi's `config.txt`); clock and baud rate are firmware's, too. Its interrupt line is that of the whole auxiliary block, two
//! SPI masters included, which nobody here uses.

use super::{Bus, Polled, Uart};
use coproc_core::register::Width;

/// AUX_MU_IO: data.
const IO: u64 = 0x00;
/// AUX_MU_IER: what interrupts. The manual has the two bits the wrong way round; they are the 16550's.
const IER: u64 = 0x04;
const IER_RECEIVED: u32 = 1;
const IER_ROOM: u32 = 1 << 1;
/// AUX_MU_LCR; DLAB puts the baud rate in the place of IO and IER.
const LCR: u64 = 0x0c;
const LCR_8_BITS: u32 = 3;
/// AUX_MU_LSR.
const LSR: u64 = 0x14;
const LSR_RECEIVED: u32 = 1;
/// There is room for at least one byte.
const LSR_ROOM: u32 = 1 << 5;
/// AUX_MU_CNTL.
const CNTL: u64 = 0x20;
const CNTL_BOTH_WAYS: u32 = 3;

/// What it serves.
pub const COMPATIBLE: &[&str] = &["brcm,bcm2835-aux-uart"];

/// AUX_MU_LSR, AUX_MU_IO.
pub const POLLED: Polled = Polled {
    status: LSR,
    status_width: Width::Word,
    mask: LSR_ROOM as u64,
    ready: LSR_ROOM as u64,
    data: IO,
    data_width: Width::Word,
};

/// The UART, its baud rate as firmware set it.
#[derive(Debug)]
pub struct MiniUart<B> {
    bus: B,
}

impl<B: Bus> MiniUart<B> {
    /// Takes the UART: 8 bits, no flow control, both ways on, no interrupt yet. What was received stays.
    pub fn new(bus: B) -> Self {
        let mut uart = Self { bus };
        // LCR first: with DLAB set, the next write would go to the baud rate.
        uart.write(LCR, LCR_8_BITS);
        uart.write(IER, 0);
        uart.write(CNTL, CNTL_BOTH_WAYS);
        uart
    }

    // The block takes accesses of 32 bits only.
    fn read(&mut self, register: u64) -> u32 {
        self.bus.read(register, Width::Word) as u32
    }

    fn write(&mut self, register: u64, value: u32) {
        self.bus.write(register, Width::Word, u64::from(value));
    }
}

impl<B: Bus> Uart for MiniUart<B> {
    fn listen(&mut self) {
        self.write(IER, IER_RECEIVED);
    }

    fn notify_room(&mut self, wanted: bool) {
        let room = if wanted { IER_ROOM } else { 0 };
        self.write(IER, IER_RECEIVED | room);
    }

    fn acknowledge(&mut self) {
        // Levels: reading the bytes, or writing or masking, ends them.
    }

    fn try_send(&mut self, byte: u8) -> bool {
        if self.read(LSR) & LSR_ROOM == 0 {
            return false;
        }
        self.write(IO, u32::from(byte));
        true
    }

    fn receive(&mut self) -> Option<u8> {
        (self.read(LSR) & LSR_RECEIVED != 0).then(|| self.read(IO) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{self, Model as _};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const FIFO: usize = 8;

    /// The device, as the manual has it.
    #[derive(Default)]
    struct Model {
        received: VecDeque<u8>,
        waiting: VecDeque<u8>,
        sent: Vec<u8>,
        interrupts: u32,
        line: u32,
        control: u32,
        baud: u32,
    }

    impl Model {
        /// As firmware leaves it, or worse.
        fn found() -> Self {
            Self {
                line: 0x80,
                interrupts: 3,
                ..Self::default()
            }
        }
    }

    impl wire::Model for Model {
        const FIFO: usize = FIFO;

        fn type_in(&mut self, byte: u8) -> bool {
            let room = self.received.len() < FIFO && self.control & 1 != 0;
            if room {
                self.received.push_back(byte);
            }
            room
        }

        fn shift_out(&mut self) {
            if self.control & 2 != 0 {
                self.sent.extend(self.waiting.pop_front());
            }
        }

        fn waiting(&self) -> usize {
            self.waiting.len()
        }

        fn sent(&self) -> &[u8] {
            &self.sent
        }

        fn asserted(&self) -> bool {
            self.interrupts & 1 != 0 && !self.received.is_empty()
                || self.interrupts & 2 != 0 && self.waiting.is_empty()
        }
    }

    impl wire::Wired for MiniUart<&mut Model> {
        type Model = Model;

        fn model(&mut self) -> &mut Model {
            self.bus
        }
    }

    impl Bus for &mut Model {
        fn read(&mut self, offset: u64, width: Width) -> u64 {
            assert_eq!(width, Width::Word);
            let value = match offset {
                IO if self.line & 0x80 != 0 => self.baud & 0xff,
                IO => u32::from(
                    self.received
                        .pop_front()
                        .expect("a byte where none was told"),
                ),
                LSR => {
                    u32::from(!self.received.is_empty())
                        | u32::from(self.waiting.len() < FIFO) << 5
                        | u32::from(self.waiting.is_empty()) << 6
                }
                other => panic!("read of {other:#x}"),
            };
            u64::from(value)
        }

        fn write(&mut self, offset: u64, width: Width, value: u64) {
            assert_eq!(width, Width::Word);
            let value = value as u32;
            match offset {
                IO | IER if self.line & 0x80 != 0 => self.baud = value,
                IO => {
                    assert!(self.waiting.len() < FIFO, "no room");
                    self.waiting.push_back(value as u8);
                }
                IER => self.interrupts = value & 3,
                LCR => self.line = value & 0xff,
                CNTL => self.control = value,
                other => panic!("write of {other:#x}"),
            }
        }
    }

    #[test]
    fn it_is_taken_as_firmware_left_it_and_its_speed_kept() {
        let mut model = Model::found();
        model.baud = 270;
        MiniUart::new(&mut model);
        assert_eq!((model.baud, model.interrupts), (270, 0));
        assert_eq!((model.line, model.control), (3, 3));
    }

    #[test]
    fn room_interrupts_only_when_wanted_and_bytes_always() {
        let mut model = Model::found();
        let mut uart = MiniUart::new(&mut model);
        uart.bus.type_in(b'a');
        assert!(!uart.bus.asserted());
        uart.listen();
        assert!(uart.bus.asserted());
        assert_eq!((uart.receive(), uart.receive()), (Some(b'a'), None));
        assert!(!uart.bus.asserted());
        uart.notify_room(true);
        assert!(uart.bus.asserted());
        assert!(uart.try_send(b'x'));
        assert!(!uart.bus.asserted());
        uart.bus.shift_out();
        uart.notify_room(false);
        assert!(!uart.bus.asserted());
        uart.bus.type_in(b'b');
        assert!(uart.bus.asserted());
    }

    #[test]
    fn a_report_needs_no_driver() {
        let mut model = Model::found();
        MiniUart::new(&mut model);
        for byte in *b"no room" {
            POLLED.send(&mut &mut model, byte, 1);
        }
        assert_eq!(model.waiting, *b"no room");
    }

    proptest! {
        #[test]
        fn bytes_pass_in_order(steps in prop::collection::vec((0u8..4, any::<u8>()), 0..200)) {
            let mut model = Model::found();
            wire::bytes_pass_in_order(&mut MiniUart::new(&mut model), &steps)?;
        }
    }
}
