//! A domain's management port (`baton,control`): a PL011 whose other end is Baton.
//!
//! A UART, because every operating system has a driver for it and any user program can open a terminal. What is said over it is
//! [`Port`]'s matter; here bytes pass between it and the UART, whose receive FIFO is filled as far as there is room, so that no byte of an answer is lost.

use crate::console::session::Port;
use crate::vpl011::Vpl011;
use coproc_core::register::{Operation, Width};

/// UART and port.
#[derive(Debug, Default)]
pub struct ManagementPort {
    uart: Vpl011,
    port: Port,
}

impl ManagementPort {
    /// The domain starts anew.
    pub fn reset(&mut self) {
        self.uart = Vpl011::new();
        self.port.hang_up();
    }

    /// An access of the domain. Returns what it reads, and whether Baton has something to do at the port.
    pub fn access(&mut self, offset: u64, width: Width, operation: Operation) -> (u64, bool) {
        let listened = self.uart.is_listening();
        let (value, mut work) = match operation {
            Operation::Read => {
                let value = self.uart.read(offset, width);
                self.pump();
                // Room for the next line, if there is one.
                (
                    value,
                    Vpl011::read_has_effect(offset) && self.port.is_drained(),
                )
            }
            Operation::Write(value) => {
                let sent = self.uart.write(offset, width, value);
                (0, sent.is_some_and(|byte| self.port.feed(byte)))
            }
        };
        if listened && !self.uart.is_listening() {
            self.port.hang_up();
        } else if !listened && self.uart.is_listening() {
            work = true;
        }
        (value, work)
    }

    /// What Baton does at the port.
    pub fn with<R>(&mut self, how: impl FnOnce(&mut Port) -> R) -> R {
        let result = how(&mut self.port);
        self.pump();
        result
    }

    /// Level of the interrupt output.
    pub const fn interrupt_level(&self) -> bool {
        self.uart.interrupt_level()
    }

    fn pump(&mut self) {
        while self.uart.can_receive()
            && let Some(byte) = self.port.next_byte()
        {
            self.uart.receive(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::console::session::Request;
    use alloc::string::String;
    use alloc::vec::Vec;

    const DR: u64 = 0;
    const FR: u64 = 0x18;
    const LCR_H: u64 = 0x2c;
    const CR: u64 = 0x30;
    const IMSC: u64 = 0x38;
    const W: Width = Width::Word;
    const LONG: &str = "a line that is longer than the FIFO of a PL011, which has 32 bytes";

    /// A domain's driver, which waits for interrupts, and Baton, which works when it's told to.
    struct Wire {
        port: ManagementPort,
        work: bool,
        /// Lines that are left of the answer.
        answer: Vec<&'static str>,
    }

    impl Wire {
        fn new() -> Self {
            let mut wire = Self {
                port: ManagementPort::default(),
                work: false,
                answer: Vec::new(),
            };
            wire.write(LCR_H, 0x70);
            wire.write(IMSC, 0x50);
            wire
        }

        fn write(&mut self, offset: u64, value: u64) {
            self.work |= self.port.access(offset, W, Operation::Write(value)).1;
        }

        fn read(&mut self, offset: u64) -> u64 {
            let (value, work) = self.port.access(offset, W, Operation::Read);
            self.work |= work;
            value
        }

        fn baton(&mut self) {
            if !core::mem::take(&mut self.work) {
                return;
            }
            let answer = &mut self.answer;
            self.port.with(|port| {
                if !port.is_drained() {
                    return;
                }
                if answer.is_empty()
                    && let Some(Request::Line(_)) = port.request()
                {
                    *answer = alloc::vec!["ok", LONG, "short", LONG];
                }
                if let Some(line) = answer.pop() {
                    port.tell(line);
                }
            });
        }

        fn say(&mut self, text: &[u8]) {
            for byte in text {
                self.write(DR, u64::from(*byte));
            }
        }

        fn hear(&mut self) -> String {
            let mut told = Vec::new();
            loop {
                self.baton();
                if !self.port.interrupt_level() {
                    return String::from_utf8(told).unwrap();
                }
                while self.read(FR) & 1 << 4 == 0 {
                    told.push(self.read(DR) as u8);
                }
            }
        }
    }

    #[test]
    fn a_driver_that_waits_for_interrupts_hears_the_whole_answer() {
        let mut wire = Wire::new();
        let answer = alloc::format!("{LONG}\nshort\n{LONG}\nok\n");
        for _ in 0..3 {
            wire.say(b"one\n");
            assert_eq!(wire.hear(), answer);
        }
        // Two lines at once are two answers.
        wire.say(b"one\ntwo\n");
        assert_eq!(wire.hear(), answer.repeat(2));
        assert_eq!(wire.hear(), "");
    }

    /// Linux switches the receiver off when the last user closes the terminal.
    #[test]
    fn who_closes_the_terminal_hears_nothing_of_it_later() {
        let mut wire = Wire::new();
        wire.say(b"one\ntwo\nhalf");
        wire.baton();
        assert_eq!(wire.read(DR), u64::from(b'a'));
        wire.write(CR, 0x101);
        wire.answer.clear();
        wire.write(LCR_H, 0);
        wire.write(LCR_H, 0x70);
        wire.write(CR, 0x301);
        assert_eq!(wire.hear(), "");
        wire.say(b"one\n");
        assert!(wire.hear().ends_with("\nok\n"));
    }
}
