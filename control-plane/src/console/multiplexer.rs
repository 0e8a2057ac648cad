//! Output of many sources on one UART, line by line.
//!
//! Each source has a share of its own: a queue of complete lines and one line in the making. Whole
//! lines are taken from the queues in turn, so no source can starve or mix with another; a line
//! that doesn't fit into its source's share is dropped whole and counted, and the count is told
//! in the source's own output when there is room again.
//!
//! An unfinished line (a shell's prompt) is shown when its source has paused for a while, sooner
//! for the source that has the input focus, at once where it already stands on the screen. When
//! another source then has something to say, the screen's line is ended, and the unfinished line
//! is shown again from its start later. So on the UART each line has one source, and each finished
//! line of a source appears once in full, possibly after beginnings of itself. Nobody sees the
//! difference between a line and its beginning, but programs that read the UART can: a line ends in
//! CR LF, a beginning in [`CUT`], which no source can write.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use arrayvec::{ArrayString, ArrayVec};
use coproc_core::id::DomainId;
use coproc_core::time::{Duration, Instant};
use core::fmt::Write as _;

use super::input::Focus;

/// Bytes of finished lines that each source can have waiting.
pub const SHARE: usize = 8192;
/// A domain's line longer than this many bytes is cut into several.
pub const LINE_MAX: usize = 256;
/// The same for Baton's own lines, which are records.
pub const OWN_LINE_MAX: usize = 1024;
/// Silence after which an unfinished line is shown.
pub const IDLE: Duration = Duration::from_millis(200);
/// The same for the source that has the input focus.
pub const FOCUS_IDLE: Duration = Duration::from_millis(2);
/// The same, if it was on the screen and was pushed off by others: they must have been silent for so long.
pub const REDRAW: Duration = Duration::from_secs(1);

/// What ends the beginning of a line that will be shown again.
pub const CUT: &[u8] = b"\r\r\n";

/// Where output comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// Baton's messages.
    Baton,
    /// Baton's command line: its echo, prompt and answers.
    Shell,
    /// A domain's UART.
    Domain(DomainId),
}

/// What a source has lost because its share was full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    /// Lines, counted after cutting.
    pub lines: u64,
    /// Bytes in them.
    pub bytes: u64,
}

#[derive(Debug)]
struct Channel {
    source: Source,
    /// Finished lines, each closed by `\n`.
    queue: VecDeque<u8>,
    /// The line in the making.
    line: Vec<u8>,
    line_max: usize,
    /// How much of `line` may be shown, and is on the screen's current line.
    visible: usize,
    shown: usize,
    /// Length of `line` when it was last made visible.
    flushed: usize,
    /// When `line` last grew.
    touched: Instant,
    /// `line` was on the screen and another source's output pushed it off.
    displaced: bool,
    /// A carriage return whose successor isn't known yet.
    carriage_return: bool,
    lost: Lost,
    lost_untold: u64,
}

impl Channel {
    fn new(source: Source) -> Self {
        let line_max = match source {
            Source::Domain(_) => LINE_MAX,
            Source::Baton | Source::Shell => OWN_LINE_MAX,
        };
        Self {
            source,
            queue: VecDeque::with_capacity(SHARE),
            line: Vec::with_capacity(line_max),
            line_max,
            visible: 0,
            shown: 0,
            flushed: 0,
            touched: Instant::default(),
            displaced: false,
            carriage_return: false,
            lost: Lost::default(),
            lost_untold: 0,
        }
    }

    fn room(&self) -> usize {
        SHARE.saturating_sub(self.queue.len())
    }

    fn write(&mut self, byte: u8) {
        match byte {
            b'\n' => {
                self.carriage_return = false;
                self.finish();
            }
            b'\r' => self.carriage_return = true,
            // Tab, escape sequences, backspace and bell are what programs write to terminals.
            b'\t' | 0x1b | 0x08 | 0x07 | 0x20..=0x7e | 0x80.. => self.append(byte),
            0 => {}
            // The rest as ^X: neither lost nor able to stop the terminal (XOFF).
            _ => {
                self.append(b'^');
                self.append(byte ^ 0x40);
            }
        }
    }

    fn append(&mut self, byte: u8) {
        if core::mem::take(&mut self.carriage_return) && !self.line.is_empty() {
            self.append(b'\r');
        }
        if self.line.len() >= self.line_max {
            self.finish();
        }
        self.line.push(byte);
    }

    /// Moves the line into the queue, or drops it.
    fn finish(&mut self) {
        // What is on the screen already isn't queued again; then the queue is empty, so it fits.
        let rest = self.line.get(self.shown..).unwrap_or(&[]);
        let mut notice = ArrayString::<64>::new();
        if self.lost_untold != 0 && self.shown == 0 {
            let _ = writeln!(notice, "({} lines lost: output too fast)", self.lost_untold);
        }
        let needed = rest.len().saturating_add(1).saturating_add(notice.len());
        if needed > self.room() {
            self.lost_untold = self.lost_untold.saturating_add(1);
            self.lost.lines = self.lost.lines.saturating_add(1);
            self.lost.bytes = self.lost.bytes.saturating_add(self.line.len() as u64);
        } else {
            if !notice.is_empty() {
                self.lost_untold = 0;
            }
            self.queue.extend(notice.as_bytes());
            self.queue.extend(rest);
            self.queue.push_back(b'\n');
        }
        self.line.clear();
        self.visible = 0;
        self.shown = 0;
        self.flushed = 0;
        self.displaced = false;
    }

    fn flush(&mut self) {
        self.displaced = false;
        self.visible = self.line.len();
        self.flushed = self.line.len();
    }

    fn has_lines(&self) -> bool {
        !self.queue.is_empty()
    }

    fn has_fragment(&self) -> bool {
        self.shown < self.visible
    }

    fn take(&mut self) -> Option<u8> {
        if let Some(byte) = self.queue.pop_front() {
            return Some(byte);
        }
        if !self.has_fragment() {
            return None;
        }
        let byte = self.line.get(self.shown).copied();
        self.shown = self.shown.saturating_add(1);
        byte
    }
}

/// Where the screen's cursor stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cursor {
    LineStart,
    /// In a line of the channel with this index.
    Within(usize),
}

/// All sources, and what of them is on the screen.
#[derive(Debug)]
pub struct Multiplexer {
    channels: Vec<Channel>,
    focus: Source,
    cursor: Cursor,
    /// The channel that spoke last; the next one in turn comes after it.
    last: usize,
    /// When any source last wrote.
    latest: Instant,
    /// A tag or line end on its way out.
    staged: ArrayVec<u8, 24>,
}

impl Default for Multiplexer {
    fn default() -> Self {
        Self::new()
    }
}

impl Multiplexer {
    /// A multiplexer of Baton's own two sources; the command line has the focus.
    pub fn new() -> Self {
        let own = [Source::Baton, Source::Shell];
        let channels = own.into_iter().map(Channel::new).collect();
        Self {
            channels,
            focus: Source::Shell,
            cursor: Cursor::LineStart,
            last: 0,
            latest: Instant::default(),
            staged: ArrayVec::new(),
        }
    }

    /// Adds a domain. Allocates its whole share, so that writing never does.
    pub fn add(&mut self, domain: DomainId) {
        let source = Source::Domain(domain);
        if self.index(source).is_none() {
            self.channels.push(Channel::new(source));
        }
    }

    /// Tells who has the input focus.
    pub fn set_focus(&mut self, focus: Focus) {
        self.focus = match focus {
            Focus::Baton => Source::Shell,
            Focus::Domain(domain) => Source::Domain(domain),
        };
        if let Some(channel) = self.channels.iter_mut().find(|c| c.source == self.focus) {
            channel.flush();
        }
    }

    /// Takes output. What comes from a source that was never added is dropped.
    pub fn write(&mut self, source: Source, bytes: &[u8], now: Instant) {
        let Some(index) = self.index(source) else {
            return;
        };
        let Some(channel) = self.channels.get_mut(index) else {
            return;
        };
        for byte in bytes {
            channel.write(*byte);
        }
        channel.touched = now;
        self.latest = now;
        let on_screen = self.cursor == Cursor::Within(index) && channel.shown != 0;
        if self.focus == source && (on_screen || source == Source::Shell) {
            channel.flush();
        }
    }

    /// Whether a line of any length would find room in the source's share.
    pub fn has_room(&self, source: Source) -> bool {
        const NOTICE: usize = 64;
        let channel = self
            .index(source)
            .and_then(|index| self.channels.get(index));
        channel.is_some_and(|c| c.room() > c.line_max.saturating_add(NOTICE))
    }

    /// What `source` has lost so far.
    pub fn lost(&self, source: Source) -> Lost {
        let channel = self
            .index(source)
            .and_then(|index| self.channels.get(index));
        channel.map_or(Lost::default(), |channel| channel.lost)
    }

    /// Makes unfinished lines visible whose source has paused long enough.
    pub fn flush_idle(&mut self, now: Instant) {
        let (focus, latest) = (self.focus, self.latest);
        for channel in &mut self.channels {
            if due(channel, focus, latest).is_some_and(|due| due <= now) {
                channel.flush();
            }
        }
    }

    /// When the next unfinished line will have paused long enough.
    pub fn next_flush(&self) -> Option<Instant> {
        self.channels
            .iter()
            .filter_map(|channel| due(channel, self.focus, self.latest))
            .min()
    }

    /// The next byte for the UART.
    pub fn next_byte(&mut self) -> Option<u8> {
        loop {
            if let Some(byte) = self.staged.pop_at(0) {
                return Some(byte);
            }
            match self.cursor {
                Cursor::LineStart => {
                    let index = self.choose()?;
                    self.last = index;
                    self.cursor = Cursor::Within(index);
                    self.stage_tag(index);
                }
                Cursor::Within(index) => match self.take(index) {
                    Some(b'\n') => {
                        self.cursor = Cursor::LineStart;
                        self.stage(b"\r\n");
                    }
                    // The line is overwritten from its start, so it needs its tag again.
                    Some(b'\r') => {
                        self.stage(b"\r");
                        self.stage_tag(index);
                    }
                    Some(byte) => return Some(byte),
                    None => {
                        self.choose()?;
                        self.interrupt(index);
                        self.cursor = Cursor::LineStart;
                        self.stage(CUT);
                    }
                },
            }
        }
    }

    fn index(&self, source: Source) -> Option<usize> {
        self.channels
            .iter()
            .position(|channel| channel.source == source)
    }

    fn take(&mut self, index: usize) -> Option<u8> {
        self.channels.get_mut(index)?.take()
    }

    /// Who speaks next: sources with finished lines in turn, then unfinished lines.
    fn choose(&self) -> Option<usize> {
        let after = self.last.saturating_add(1);
        let turn = (after..self.channels.len()).chain(0..after);
        let mut fragment = None;
        for index in turn {
            let Some(channel) = self.channels.get(index) else {
                continue;
            };
            if channel.has_lines() {
                return Some(index);
            }
            if fragment.is_none() && channel.has_fragment() {
                fragment = Some(index);
            }
        }
        fragment
    }

    /// The unfinished line on the screen is pushed off it. The focused source's is shown again when
    /// all others have been silent for a while, or it has grown (a prompt after each line of a
    /// talkative domain would drown them); another's when it has grown, so that two never chase each other.
    fn interrupt(&mut self, index: usize) {
        let focus = self.focus;
        if let Some(channel) = self.channels.get_mut(index) {
            channel.shown = 0;
            channel.visible = 0;
            channel.displaced = channel.source == focus;
        }
    }

    fn stage(&mut self, bytes: &[u8]) {
        // Holds the longest tag and a line end; the result can't be an error.
        let _ = self.staged.try_extend_from_slice(bytes);
    }

    fn stage_tag(&mut self, index: usize) {
        let mut tag = ArrayString::<16>::new();
        let _ = match self.channels.get(index).map(|channel| channel.source) {
            Some(Source::Domain(domain)) => write!(tag, "[{domain}] "),
            _ => write!(tag, "[baton] "),
        };
        self.stage(tag.as_bytes());
    }
}

/// When the channel's unfinished line is to be shown, if it has grown since it last was. A prompt
/// is of no use while its command line doesn't get the input.
#[allow(clippy::arithmetic_side_effects)] // `Instant` saturates.
fn due(channel: &Channel, focus: Source, latest: Instant) -> Option<Instant> {
    let focused = channel.source == focus;
    if channel.displaced {
        return focused.then(|| latest + REDRAW);
    }
    if channel.source == Source::Shell && !focused {
        return None;
    }
    let idle = if focused { FOCUS_IDLE } else { IDLE };
    (channel.line.len() > channel.flushed).then(|| channel.touched + idle)
}
