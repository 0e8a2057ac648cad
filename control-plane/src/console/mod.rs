//! The EL2 console: one real UART for all domains and for the management command line.
//!
//! Output of every domain is cut into lines, each tagged with its source, so that a log of the one
//! UART can be taken apart again ([`multiplexer`]). Input goes to one place at a time: to a
//! domain's UART or to Baton's own command line ([`input`]). The command line ([`shell`]) turns
//! text into typed commands; they are executed through the [`management::Management`] trait, which
//! the other face of management, a control domain's ([`session`]), reaches, too.
//!
//! Nothing here waits: bytes for the UART are pulled out one by one as it has room
//! ([`Console::next_byte`]), and a long answer is made line by line as its lines find room
//! ([`Console::poll`]). Memory is bounded; a domain that writes faster than the UART drains loses
//! its own lines, counted, and never another's. No floating point anywhere: EL2 doesn't touch it.

pub mod answer;
pub mod coprocs;
pub mod cpus;
pub mod devices;
pub mod domains;
pub mod file;
pub mod input;
pub mod management;
pub mod multiplexer;
pub mod session;
pub mod setting;
pub mod shell;

#[cfg(test)]
mod tests;

use arrayvec::ArrayVec;
use coproc_core::id::DomainId;
use coproc_core::time::Instant;
use core::fmt::Write as _;

use answer::{Answer, Line};
use input::{Focus, Routed, Router};
use management::Management;
use multiplexer::{Multiplexer, Source};
use shell::{Command, Editor, parse};

/// Lines made in one [`Console::poll`], so that it stays short.
const LINES_PER_POLL: usize = 4;
/// Bytes typed while an answer is still running that are kept for afterwards.
const TYPE_AHEAD: usize = 256;
const PROMPT: &[u8] = b"> ";
const CTRL_C: u8 = 0x03;

/// What an input byte is for the caller to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Nothing.
    None,
    /// Put these bytes into the receive FIFO of the domain's UART.
    ToDomain(DomainId, ArrayVec<u8, 3>),
}

/// The whole console: multiplexer, input router, command line.
#[derive(Debug)]
pub struct Console {
    multiplexer: Multiplexer,
    router: Router,
    editor: Editor,
    answer: Option<Answer>,
    type_ahead: ArrayVec<u8, TYPE_AHEAD>,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// A console without domains; input goes to the command line.
    pub fn new() -> Self {
        Self {
            multiplexer: Multiplexer::new(),
            router: Router::new(),
            editor: Editor::new(),
            answer: None,
            type_ahead: ArrayVec::new(),
        }
    }

    /// Gives `domain` a place in the output and in the rotation of the input. Allocates.
    pub fn add_domain(&mut self, domain: DomainId) {
        self.multiplexer.add(domain);
        self.router.add(domain);
    }

    /// How many domains have a place.
    pub const fn domains(&self) -> usize {
        self.router.domains()
    }

    /// Shows the first prompt: the command line is ready.
    pub fn start(&mut self, now: Instant) {
        self.shell(PROMPT, now);
    }

    /// A domain's UART sent these bytes.
    pub fn write_domain(&mut self, domain: DomainId, bytes: &[u8], now: Instant) {
        self.multiplexer.write(Source::Domain(domain), bytes, now);
    }

    /// Baton's own messages.
    pub fn log(&mut self, bytes: &[u8], now: Instant) {
        self.multiplexer.write(Source::Baton, bytes, now);
    }

    /// Where input goes.
    pub const fn focus(&self) -> Focus {
        self.router.focus()
    }

    /// Sends input there. Returns false, and changes nothing, if there is no such domain.
    pub fn set_focus(&mut self, focus: Focus, now: Instant) -> bool {
        let found = self.router.set_focus(focus);
        if found {
            self.announce(now);
        }
        found
    }

    /// A byte arrived at the real UART.
    pub fn input(&mut self, byte: u8, now: Instant) -> Event {
        match self.router.feed(byte) {
            Routed::Held => Event::None,
            Routed::Rotated => {
                self.announce(now);
                Event::None
            }
            Routed::Deliver(Focus::Domain(domain), bytes) => Event::ToDomain(domain, bytes),
            Routed::Deliver(Focus::Baton, bytes) => {
                for byte in bytes {
                    self.type_byte(byte, now);
                }
                Event::None
            }
        }
    }

    /// Goes on with a command's answer as far as its lines find room. Returns whether there is
    /// more to do; call it again when the UART has drained.
    pub fn poll(&mut self, management: &mut dyn Management, now: Instant) -> bool {
        for _ in 0..LINES_PER_POLL {
            let Some(answer) = &mut self.answer else {
                break;
            };
            if !self.multiplexer.has_room(Source::Shell) {
                break;
            }
            let mut line = Line::new();
            let more = answer.next_line(management, &mut line);
            if line.is_empty() {
                break;
            }
            self.multiplexer.write(Source::Shell, line.as_bytes(), now);
            self.multiplexer.write(Source::Shell, b"\n", now);
            if !more {
                self.answer = None;
                self.shell(PROMPT, now);
                self.replay(now);
            }
        }
        self.answer.is_some()
    }

    /// The next byte for the real UART. Call it only when the UART has room for one.
    pub fn next_byte(&mut self) -> Option<u8> {
        self.multiplexer.next_byte()
    }

    /// Shows the lines that nobody has finished for a while; see [`Self::next_flush`].
    pub fn flush_idle(&mut self, now: Instant) {
        self.multiplexer.flush_idle(now);
    }

    /// When [`Self::flush_idle`] has something to do next, if ever.
    pub fn next_flush(&self) -> Option<Instant> {
        self.multiplexer.next_flush()
    }

    /// The multiplexer, for its loss counters.
    pub const fn multiplexer(&self) -> &Multiplexer {
        &self.multiplexer
    }

    fn shell(&mut self, bytes: &[u8], now: Instant) {
        self.multiplexer.write(Source::Shell, bytes, now);
    }

    fn announce(&mut self, now: Instant) {
        let focus = self.router.focus();
        self.multiplexer.set_focus(focus);
        let mut line = Line::new();
        let _ = writeln!(line, "input to {focus}");
        self.multiplexer.write(Source::Baton, line.as_bytes(), now);
    }

    fn replay(&mut self, now: Instant) {
        for byte in core::mem::take(&mut self.type_ahead) {
            self.type_byte(byte, now);
        }
    }

    fn type_byte(&mut self, byte: u8, now: Instant) {
        if let Some(answer) = &mut self.answer {
            if byte == CTRL_C {
                self.type_ahead.clear();
                answer.interrupt();
            } else {
                // Beyond the buffer's length typed bytes are lost, as on any line without echo.
                let _ = self.type_ahead.try_push(byte);
            }
            return;
        }
        let edited = self.editor.feed(byte);
        self.shell(&edited.echo, now);
        if edited.cancelled {
            self.shell(PROMPT, now);
        }
        if !edited.entered {
            return;
        }
        let command = parse(self.editor.line());
        self.editor.clear();
        self.answer = Some(match command {
            Ok(Command::Empty) => {
                self.shell(PROMPT, now);
                return;
            }
            Ok(Command::Console(focus)) => {
                if self.set_focus(focus, now) {
                    Answer::done()
                } else {
                    Answer::no_domain(focus)
                }
            }
            Ok(command) => Answer::new(command, now),
            Err(error) => Answer::failed(&error),
        });
    }
}
