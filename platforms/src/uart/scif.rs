//! The SCIF of Renesas's R-Car Gen3, the console of its boards (SCIF2 at 0xe6e8_8000).
//!
//! Its flags lie until they are cleared: TDFE ("at most the trigger level left to send") and RDF, DR ("bytes are there") stay set when they are no
//! longer true, each takes a read as 1 and a write of 0, and while one is set and enabled the interrupt line is. So whether there is room, or a byte,
//! is asked of the counts in SCFDR only, and a flag is cleared after whatever ends its cause, before the count is looked at a last time. An overrun
//! stops reception until it's cleared. Clock, baud rate and line settings are firmware's.
//!
//! No Renesas manual was at hand: registers and rules are those that Linux's `sh-sci.c` and Xen's `scif-uart.c` keep to. It never ran on a board.

use super::{Bus, Polled, Uart};
use coproc_core::register::Width;

/// SCSCR, 16 bits: what is on and what interrupts.
const SCSCR: u64 = 0x08;
const SCSCR_TIE: u16 = 1 << 7;
const SCSCR_RIE: u16 = 1 << 6;
const SCSCR_TE: u16 = 1 << 5;
const SCSCR_RE: u16 = 1 << 4;
/// Errors interrupt even without RIE.
const SCSCR_REIE: u16 = 1 << 3;
/// CKE: which clock, firmware's choice.
const SCSCR_CLOCK: u16 = 3;
/// SCFTDR, 8 bits: bytes to send.
const SCFTDR: u64 = 0x0c;
/// SCFSR, 16 bits: flags; FER and PER are the next received byte's.
const SCFSR: u64 = 0x10;
const SCFSR_ER: u16 = 1 << 7;
const SCFSR_TEND: u16 = 1 << 6;
const SCFSR_TDFE: u16 = 1 << 5;
const SCFSR_BRK: u16 = 1 << 4;
const SCFSR_FER: u16 = 1 << 3;
const SCFSR_PER: u16 = 1 << 2;
const SCFSR_RDF: u16 = 1 << 1;
const SCFSR_DR: u16 = 1 << 0;
/// SCFRDR, 8 bits: received bytes.
const SCFRDR: u64 = 0x14;
/// SCFCR, 16 bits: trigger levels, resets of the FIFOs.
const SCFCR: u64 = 0x18;
/// SCFDR, 16 bits: bytes in the FIFOs, to send in 12:8, received in 4:0.
const SCFDR: u64 = 0x1c;
/// SCLSR, 16 bits.
const SCLSR: u64 = 0x24;
const SCLSR_ORER: u16 = 1;

/// Bytes in each FIFO.
const FIFO: u16 = 16;

/// What it serves.
pub const COMPATIBLE: &[&str] = &["renesas,rcar-gen3-scif", "renesas,scif"];

/// SCFDR, whose bit 12 is set only at 16; SCFTDR.
pub const POLLED: Polled = Polled {
    status: SCFDR,
    status_width: Width::Half,
    mask: (FIFO as u64) << 8,
    ready: 0,
    data: SCFTDR,
    data_width: Width::Byte,
};

/// The UART, its speed as firmware set it.
#[derive(Debug)]
pub struct Scif<B> {
    bus: B,
    /// SCSCR without what interrupts.
    on: u16,
}

impl<B: Bus> Scif<B> {
    /// Takes the UART: both ways on, no interrupt yet. What was received or is being sent stays.
    pub fn new(mut bus: B) -> Self {
        let clock = bus.read(SCSCR, Width::Half) as u16 & SCSCR_CLOCK;
        let on = clock | SCSCR_TE | SCSCR_RE;
        let mut uart = Self { bus, on };
        uart.write(SCSCR, on);
        // Interrupts at the first byte received, and when half of the FIFO is free; no flow control.
        uart.write(SCFCR, 0);
        uart.forget_errors();
        uart
    }

    fn read(&mut self, register: u64) -> u16 {
        self.bus.read(register, Width::Half) as u16
    }

    fn write(&mut self, register: u64, value: u16) {
        self.bus.write(register, Width::Half, u64::from(value));
    }

    /// Clears these flags, as far as they are set.
    fn clear(&mut self, register: u64, flags: u16) {
        // What was read as 1 just now can be cleared; 1 changes nothing.
        if self.read(register) & flags != 0 {
            self.write(register, !flags);
        }
    }

    fn forget_errors(&mut self) {
        self.clear(SCFSR, SCFSR_ER | SCFSR_BRK);
        self.clear(SCLSR, SCLSR_ORER);
    }

    fn received(&mut self) -> bool {
        self.read(SCFDR) & 0x1f != 0
    }
}

impl<B: Bus> Uart for Scif<B> {
    fn listen(&mut self) {
        self.notify_room(false);
    }

    fn notify_room(&mut self, wanted: bool) {
        let room = if wanted { SCSCR_TIE } else { 0 };
        self.write(SCSCR, self.on | SCSCR_RIE | SCSCR_REIE | room);
    }

    fn acknowledge(&mut self) {
        self.forget_errors();
    }

    fn try_send(&mut self, byte: u8) -> bool {
        if self.read(SCFDR) >> 8 & 0x1f >= FIFO {
            return false;
        }
        self.bus.write(SCFTDR, Width::Byte, u64::from(byte));
        // They come back at once if they are still true.
        self.clear(SCFSR, SCFSR_TDFE | SCFSR_TEND);
        true
    }

    /// One with a line error is dropped.
    fn receive(&mut self) -> Option<u8> {
        for _ in 0..FIFO {
            if !self.received() {
                self.clear(SCFSR, SCFSR_RDF | SCFSR_DR);
                // A byte that came before the flags were cleared would interrupt no more.
                if !self.received() {
                    return None;
                }
            }
            let broken = self.read(SCFSR) & (SCFSR_FER | SCFSR_PER) != 0;
            let byte = self.bus.read(SCFRDR, Width::Byte) as u8;
            if !broken {
                return Some(byte);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{self, Model as _};
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const TX_TRIGGER: usize = 8;

    /// The device, as the drivers named above know it.
    #[derive(Default)]
    struct Model {
        received: VecDeque<(u8, bool)>,
        waiting: VecDeque<u8>,
        sent: Vec<u8>,
        control: u16,
        triggers: u16,
        flags: u16,
        /// Flags that were read as 1 and may be cleared.
        seen: u16,
        overrun: bool,
        overrun_seen: bool,
        lost: usize,
        /// A byte that comes after so many reads of SCFDR, at the worst moment.
        late: Option<(u32, u8)>,
    }

    impl Model {
        /// As firmware leaves it: polled output, an overrun, because nobody listened.
        fn found() -> Self {
            let mut model = Self {
                control: SCSCR_TE | SCSCR_RE | 2,
                triggers: 0x30,
                overrun: true,
                flags: SCFSR_ER | SCFSR_BRK,
                ..Self::default()
            };
            model.truth();
            model
        }

        /// Flags of sending are set while their cause is there; those of receiving only when a byte comes, which is the worst that they may do.
        fn truth(&mut self) {
            if self.waiting.len() <= TX_TRIGGER {
                self.flags |= SCFSR_TDFE;
            }
            if self.waiting.is_empty() {
                self.flags |= SCFSR_TEND;
            }
        }

        fn arrive(&mut self, byte: u8, broken: bool) -> bool {
            if self.control & SCSCR_RE == 0 || self.overrun {
                self.lost += 1;
                return false;
            }
            if self.received.len() == usize::from(FIFO) {
                self.overrun = true;
                self.lost += 1;
                return false;
            }
            self.received.push_back((byte, broken));
            self.flags |= SCFSR_RDF | if broken { SCFSR_ER } else { 0 };
            true
        }
    }

    impl wire::Model for Model {
        const FIFO: usize = FIFO as usize;

        fn type_in(&mut self, byte: u8) -> bool {
            self.arrive(byte, false)
        }

        fn shift_out(&mut self) {
            if self.control & SCSCR_TE != 0 {
                self.sent.extend(self.waiting.pop_front());
            }
            self.truth();
        }

        fn waiting(&self) -> usize {
            self.waiting.len()
        }

        fn sent(&self) -> &[u8] {
            &self.sent
        }

        fn asserted(&self) -> bool {
            let receive = SCFSR_RDF | SCFSR_DR | SCFSR_ER | SCFSR_BRK;
            self.control & SCSCR_TIE != 0 && self.flags & SCFSR_TDFE != 0
                || self.control & SCSCR_RIE != 0 && (self.flags & receive != 0 || self.overrun)
        }
    }

    impl wire::Wired for Scif<&mut Model> {
        type Model = Model;

        fn model(&mut self) -> &mut Model {
            self.bus
        }
    }

    impl Bus for &mut Model {
        fn read(&mut self, offset: u64, width: Width) -> u64 {
            let byte = matches!(offset, SCFTDR | SCFRDR);
            assert_eq!(width, if byte { Width::Byte } else { Width::Half });
            let value = match offset {
                SCSCR => self.control,
                SCFSR => {
                    let of_next = match self.received.front() {
                        Some((_, true)) => SCFSR_FER,
                        _ => 0,
                    };
                    self.seen |= self.flags;
                    self.flags | of_next
                }
                SCFRDR => {
                    let next = self.received.pop_front();
                    u16::from(next.expect("a byte where none was told").0)
                }
                SCFDR => {
                    let counts = self.waiting.len() << 8 | self.received.len();
                    match self.late.take() {
                        Some((0, byte)) => {
                            self.type_in(byte);
                        }
                        Some((left, byte)) => self.late = Some((left - 1, byte)),
                        None => {}
                    }
                    counts as u16
                }
                SCLSR => {
                    self.overrun_seen |= self.overrun;
                    u16::from(self.overrun)
                }
                other => panic!("read of {other:#x}"),
            };
            u64::from(value)
        }

        fn write(&mut self, offset: u64, width: Width, value: u64) {
            let value = value as u16;
            match (offset, width) {
                (SCSCR, Width::Half) => self.control = value,
                (SCFCR, Width::Half) => self.triggers = value,
                (SCFTDR, Width::Byte) => {
                    assert!(self.waiting.len() < usize::from(FIFO), "sent without room");
                    self.waiting.push_back(value as u8);
                }
                (SCFSR, Width::Half) => {
                    self.flags &= value | !self.seen;
                    self.seen &= value;
                    self.truth();
                }
                (SCLSR, Width::Half) => {
                    if value & 1 == 0 && self.overrun_seen {
                        self.overrun = false;
                        self.overrun_seen = false;
                    }
                }
                other => panic!("write of {other:x?}"),
            }
        }
    }

    #[test]
    fn it_is_taken_as_firmware_left_it_and_its_clock_kept() {
        let mut model = Model::found();
        model.waiting.extend(*b"firmware's last words");
        model.waiting.truncate(12);
        Scif::new(&mut model);
        assert_eq!(model.control, SCSCR_TE | SCSCR_RE | 2);
        assert_eq!(model.triggers, 0);
        assert_eq!(model.waiting.len(), 12);
        assert!(!model.overrun, "nothing would be received");
        model.type_in(b'a');
        assert_eq!(model.lost, 0);
    }

    #[test]
    fn room_interrupts_only_when_wanted_and_bytes_always() {
        let mut model = Model::found();
        let mut uart = Scif::new(&mut model);
        uart.bus.type_in(b'a');
        assert!(!uart.bus.asserted());
        uart.listen();
        assert!(uart.bus.asserted());
        assert_eq!((uart.receive(), uart.receive()), (Some(b'a'), None));
        assert!(!uart.bus.asserted());
        uart.notify_room(true);
        assert!(uart.bus.asserted(), "there is room");
        for byte in 0..FIFO as u8 {
            assert!(uart.try_send(byte));
        }
        assert!(!uart.try_send(0xff));
        assert!(!uart.bus.asserted(), "there is none");
        for _ in 0..FIFO {
            uart.bus.shift_out();
        }
        assert!(uart.bus.asserted());
        uart.notify_room(false);
        assert!(!uart.bus.asserted());
        uart.bus.type_in(b'b');
        assert!(uart.bus.asserted());
    }

    #[test]
    fn an_overrun_and_broken_bytes_end() {
        let mut model = Model::found();
        let mut uart = Scif::new(&mut model);
        uart.listen();
        for byte in 0..20 {
            uart.bus.arrive(byte, byte % 4 == 3);
        }
        assert_eq!(uart.bus.lost, 4);
        let mut taken = Vec::new();
        while uart.bus.asserted() {
            uart.acknowledge();
            while let Some(byte) = uart.receive() {
                taken.push(byte);
            }
        }
        assert_eq!(taken, [0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14]);
        uart.bus.type_in(b'a');
        assert_eq!(uart.receive(), Some(b'a'));
    }

    /// A byte that comes between the look at the count and the clearing of the flags is taken, or interrupts.
    #[test]
    fn no_byte_waits_unnoticed() {
        for reads in 0..3 {
            let mut model = Model::found();
            let mut uart = Scif::new(&mut model);
            uart.listen();
            uart.bus.type_in(b'a');
            uart.bus.late = Some((reads, b'b'));
            let mut taken = Vec::new();
            while let Some(byte) = uart.receive() {
                taken.push(byte);
            }
            assert!(taken == *b"ab" || uart.bus.asserted(), "{reads}: {taken:?}");
        }
    }

    #[test]
    fn a_report_needs_no_driver() {
        let mut model = Model::found();
        Scif::new(&mut model);
        for byte in *b"no room" {
            POLLED.send(&mut &mut model, byte, 1);
        }
        assert_eq!(model.waiting, *b"no room");
        model.waiting.extend([0; 9]);
        let full = (&mut model).read(POLLED.status, POLLED.status_width);
        assert_ne!(full & POLLED.mask, POLLED.ready);
    }

    proptest! {
        #[test]
        fn bytes_pass_in_order(steps in prop::collection::vec((0u8..4, any::<u8>()), 0..200)) {
            let mut model = Model::found();
            wire::bytes_pass_in_order(&mut Scif::new(&mut model), &steps)?;
        }
    }
}
