//! The lines of a record, in memory of a fixed size.

use alloc::vec::Vec;
use core::fmt;

use super::event::{Event, Header};
use super::text::Clock;
use crate::id::VcoprocId;

/// Room that is kept for the line that says that there is no more.
const LAST: usize = "!full\n".len();

/// A record in the making. It takes no more memory than it was made with, and ends at the last whole input that fits.
#[derive(Debug)]
pub struct Log {
    text: Vec<u8>,
    capacity: usize,
    clock: Clock,
    /// Length up to the last whole input.
    whole: usize,
    /// Lines up to there.
    lines: u64,
    /// Inputs that are not in it any more.
    lost: u64,
    full: bool,
    pub(super) current: Option<VcoprocId>,
}

impl Log {
    /// A record with room for `capacity` bytes of text, header included. `None` without memory, or if not even the header fits.
    pub fn new(header: &Header<'_>, capacity: usize) -> Option<Self> {
        let mut text = Vec::new();
        text.try_reserve_exact(capacity).ok()?;
        let mut log = Self {
            text,
            capacity: capacity.checked_sub(LAST)?,
            clock: Clock::default(),
            whole: 0,
            lines: 0,
            lost: 0,
            full: false,
            current: None,
        };
        let mut clock = log.clock;
        header.write(&mut log, &mut clock).ok()?;
        log.clock = clock;
        log.commit();
        Some(log)
    }

    /// Adds a line, if there is room. What follows the last whole input isn't seen before [`Log::commit`].
    pub(super) fn add(&mut self, event: &Event<'_>) {
        if self.full {
            return;
        }
        let mut clock = self.clock;
        self.full = event.write(self, &mut clock).is_err();
        self.clock = clock;
    }

    /// An input is over: it is part of the record now, or the record ended before it.
    pub(super) fn commit(&mut self) {
        if self.full {
            if self.lost == 0 {
                self.text.truncate(self.whole);
                // There was room kept for it, and lengths of memory can't overflow.
                self.capacity = self.capacity.saturating_add(LAST);
                let _ = Event::Full.write(self, &mut Clock::default());
                self.whole = self.text.len();
                self.lines = self.lines.saturating_add(1);
            }
            self.lost = self.lost.saturating_add(1);
            return;
        }
        let new = self.text.get(self.whole..).unwrap_or_default();
        let lines = new.iter().filter(|byte| **byte == b'\n').count() as u64;
        self.lines = self.lines.saturating_add(lines);
        self.whole = self.text.len();
    }

    /// The record so far.
    pub fn text(&self) -> &str {
        let whole = self.text.get(..self.whole).unwrap_or_default();
        core::str::from_utf8(whole).unwrap_or_default()
    }

    /// Bytes so far.
    pub const fn bytes(&self) -> usize {
        self.whole
    }

    /// The line that begins at this byte of the text, without its end, and where the next one begins; `None` behind the last, or if none begins there.
    /// Takes no longer for a long record.
    pub fn line_at(&self, byte: usize) -> Option<(&str, usize)> {
        let text = self.text.get(..self.whole)?;
        if let Some(before) = byte.checked_sub(1)
            && text.get(before) != Some(&b'\n')
        {
            return None;
        }
        let rest = text.get(byte..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let line = core::str::from_utf8(rest.get(..length)?).ok()?;
        Some((line, byte.saturating_add(length).saturating_add(1)))
    }

    /// Lines so far.
    pub const fn lines(&self) -> u64 {
        self.lines
    }

    /// Inputs that came after the record was full.
    pub const fn lost(&self) -> u64 {
        self.lost
    }
}

impl fmt::Write for Log {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let after = self.text.len().saturating_add(text.len());
        if after > self.capacity {
            return Err(fmt::Error);
        }
        self.text.extend_from_slice(text.as_bytes());
        Ok(())
    }
}
