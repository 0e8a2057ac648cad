//! Management by a domain: the second face of the command line, for programs.
//!
//! A domain with `baton,control` has one more UART, whose other end is here. A line is a command, the same as on the console; the answer is the same
//! lines, up to `ok` or `error: …`. There is no echo and no prompt, since a program reads them. A domain's terminal may echo what it gets, so lines that
//! close an answer are no commands: two that answer each other would do so for ever.
//!
//! It is two halves, because commands are carried out under the console's lock, which comes before all others, while bytes come and go under a lock of the
//! domain's: [`Port`] holds bytes, [`Session`] the answer under way. A domain that doesn't read holds up nobody: a line is made when the one before
//! it was taken.

use super::answer::{Answer, Line};
use super::management::Management;
use super::multiplexer::OWN_LINE_MAX;
use super::shell::{Command, LINE_LENGTH, parse};
use arrayvec::ArrayVec;
use coproc_core::time::Instant;

/// Bytes that may come before they are asked for: a line, and more behind it.
const INPUT: usize = 512;
/// A line and its end.
const OUTPUT: usize = OWN_LINE_MAX + 1;

/// What is wrong with a line before it's looked at.
const TOO_MUCH: &str = "more than 512 bytes came before the answer; they are lost";
const TOO_LONG: &str = "a command is 200 bytes at most";
const NO_TEXT: &str = "a command is ASCII text";
const NO_CONSOLE: &str = "console: whose input that is, is said on the console";

/// The domain's half: what has come from it, and what goes to it.
#[derive(Debug, Default)]
pub struct Port {
    input: ArrayVec<u8, INPUT>,
    /// Bytes were lost, and nobody was told.
    lost: bool,
    output: ArrayVec<u8, OUTPUT>,
    taken: usize,
    /// Who listens now isn't who listened then.
    listener: u32,
}

/// A line that came, or why it's none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// What it says.
    Line(ArrayVec<u8, LINE_LENGTH>),
    /// What is wrong.
    Mistake(&'static str),
}

impl Port {
    /// Takes a byte; returns whether a line is complete, and somebody should look.
    pub fn feed(&mut self, byte: u8) -> bool {
        if self.lost || self.input.try_push(byte).is_err() {
            self.lost = true;
        }
        self.lost || matches!(byte, b'\n' | b'\r')
    }

    /// The next byte for the domain.
    pub fn next_byte(&mut self) -> Option<u8> {
        let byte = self.output.get(self.taken).copied()?;
        self.taken = self.taken.saturating_add(1);
        Some(byte)
    }

    /// Whether it has taken everything.
    pub fn is_drained(&self) -> bool {
        self.taken >= self.output.len()
    }

    /// Nobody listens any more: what was said and what was to be answered concerns nobody.
    pub fn hang_up(&mut self) {
        *self = Self {
            listener: self.listener.wrapping_add(1),
            ..Self::default()
        };
    }

    /// Takes the next line.
    pub fn request(&mut self) -> Option<Request> {
        let end = self
            .input
            .iter()
            .position(|byte| matches!(byte, b'\n' | b'\r'));
        let Some(end) = end else {
            return core::mem::take(&mut self.lost).then(|| {
                self.input.clear();
                Request::Mistake(TOO_MUCH)
            });
        };
        let mut line = ArrayVec::new();
        let mut fits = true;
        for byte in self.input.drain(..=end).take(end) {
            fits &= line.try_push(byte).is_ok();
        }
        Some(if fits {
            Request::Line(line)
        } else {
            Request::Mistake(TOO_LONG)
        })
    }

    /// Has this line, without its end, for the domain, which has taken the one before.
    pub fn tell(&mut self, line: &str) {
        self.output.clear();
        self.taken = 0;
        for byte in line.bytes().chain([b'\n']) {
            // As long as the longest line.
            let _ = self.output.try_push(byte);
        }
    }
}

/// Reaches a domain's [`Port`] under its lock, for as long as one call takes.
pub trait Door {
    /// Does something with it.
    fn with<R>(&self, how: impl FnOnce(&mut Port) -> R) -> R;
}

/// Baton's half: the answer under way.
#[derive(Debug, Default)]
pub struct Session {
    answer: Option<Answer>,
    listener: u32,
}

impl Session {
    /// Goes on: takes a line, carries it out, makes the next line of its answer, one of each at most. `changed` hears of a command that isn't only a question, before
    /// it's carried out. Returns whether there is more to do before the domain reads or writes.
    pub fn poll(
        &mut self,
        door: &impl Door,
        management: &mut dyn Management,
        now: Instant,
        changed: impl FnOnce(&str),
    ) -> bool {
        let (listener, drained) = door.with(|port| (port.listener, port.is_drained()));
        if self.listener != listener {
            self.listener = listener;
            self.answer = None;
        }
        if !drained {
            return false;
        }
        if self.answer.is_none() {
            let Some(request) = door.with(Port::request) else {
                return false;
            };
            self.answer = begin(&request, now, changed);
        }
        let Some(answer) = &mut self.answer else {
            return true;
        };
        let mut line = Line::new();
        let more = answer.next_line(management, &mut line);
        if !more {
            self.answer = None;
        }
        if line.is_empty() {
            return true;
        }
        door.with(|port| {
            if port.listener == listener {
                port.tell(&line);
            }
        });
        false
    }
}

/// The answer to a line; none to one that asks nothing.
fn begin(request: &Request, now: Instant, changed: impl FnOnce(&str)) -> Option<Answer> {
    let line = match request {
        Request::Line(line) => line,
        Request::Mistake(what) => return Some(Answer::failed(what)),
    };
    let Some(line) = core::str::from_utf8(line)
        .ok()
        .filter(|line| line.is_ascii())
    else {
        return Some(Answer::failed(&NO_TEXT));
    };
    if line == "ok" || line.starts_with("error: ") {
        return None;
    }
    match parse(line) {
        Ok(Command::Empty) => None,
        Ok(Command::Console(_)) => Some(Answer::failed(&NO_CONSOLE)),
        Ok(command) => {
            if command.changes() {
                changed(line);
            }
            Some(Answer::new(command, now))
        }
        Err(error) => Some(Answer::failed(&error)),
    }
}
