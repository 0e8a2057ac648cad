//! The command line: an editor for one line, and a parser from text to typed commands.
//!
//! The language is small on purpose: words, no quoting, no variables. Whoever wants more runs a
//! program on the other end of the UART, for which every answer is made to be read.

use arrayvec::ArrayVec;
use coproc_core::id::{CoprocId, DomainId};
use coproc_core::time::Instant;

use super::cpus::CpuCommand;
use super::file::{self, Part};
use super::input::Focus;
use super::management::Word;
use crate::lifecycle::Operation;

/// Longest line that can be typed, in bytes.
pub const LINE_LENGTH: usize = 200;

/// What `help` shows.
pub const HELP: [&str; 28] = [
    "domains                        list the domains",
    "domain create|destroy dN       build domain N from its configuration and start it, or give back all it has",
    "domain pause|resume|restart dN hold it, let it go on, start it anew",
    "file put OFFSET BASE64         give a part of a device tree with a domain's configuration",
    "domain define dN               build domain N from that file's configuration from now on",
    "domain report dN               its last crash: registers and exits",
    "domain cycle dN ROUNDS         create and destroy it so many times: for those who look for leaks",
    "memory                         what is free, and what Baton uses",
    "devices                        devices that one domain has for itself",
    "coproc list                    list the shared coprocessors",
    "coproc query [ID]              coprocessors and their vcoprocs, with times and counters",
    "coproc timeline [ID]           who held which coprocessor, from when to when",
    "coproc histogram ID            how long switches, refusals and waits took, for each vcoproc",
    "trace [coproc ID] [from NS]    what was done to the coprocessors, event by event, from this time on",
    "coproc record ID [BYTE]        the record of a coprocessor with `baton,record`, from this byte on",
    "coproc set ID NAME VALUE       change slice-us, refusal-bound-us, starvation-bound-us, scheduler,",
    "                               dN.weight, dN.priority, dN.reservation (BUDGET/PERIOD in us, or none)",
    "coproc attach ID dN            give domain N a vcoproc of the coprocessor",
    "coproc detach ID dN            take it away",
    "coproc share ID                share a coprocessor that belongs to nobody",
    "coproc unshare ID              take it away from all domains, and share it no more",
    "pool list                      list the pools of CPUs",
    "pool set ID scheduler NAME     change its algorithm: weighted, deadline or null",
    "vcpu list [dN]                 vCPUs, with times and counters",
    "domain set dN.NAME VALUE       change weight, reservation (BUDGET/PERIOD in us, or none), affinity of its vCPUs",
    "console baton|dN               send input to the command line or to domain N",
    "help                           this text",
    "Ctrl-A three times             send input to the next one",
];

/// A command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// A line without words.
    Empty,
    /// `help`
    Help,
    /// `domains`
    Domains,
    /// `domain create|pause|resume|restart|destroy dN`
    Domain(Operation, DomainId),
    /// `file put OFFSET BASE64`
    FilePut {
        /// Where it belongs.
        offset: u32,
        /// What it is.
        part: Part,
    },
    /// `domain define dN`
    DomainDefine(DomainId),
    /// `domain report dN`
    DomainReport(DomainId),
    /// `domain cycle dN ROUNDS`
    DomainCycle(DomainId, u32),
    /// `memory`
    Memory,
    /// `devices`
    Devices,
    /// `inject allocation|driver N`
    #[cfg(feature = "fault-injection")]
    Inject(crate::injection::Kind, u32),
    /// `coproc list`
    CoprocList,
    /// `coproc query [ID]`
    CoprocQuery(Option<CoprocId>),
    /// `coproc timeline [ID]`
    CoprocTimeline(Option<CoprocId>),
    /// `coproc histogram ID`
    CoprocHistogram(CoprocId),
    /// `trace [coproc ID] [from NS]`
    Trace {
        /// Of this coprocessor only.
        coproc: Option<CoprocId>,
        /// From this time on.
        from: Instant,
    },
    /// `coproc record ID [BYTE]`
    CoprocRecord {
        /// Whose record.
        coproc: CoprocId,
        /// From which byte on.
        from: u64,
    },
    /// `coproc set ID NAME VALUE`
    CoprocSet {
        /// Whose parameter.
        coproc: CoprocId,
        /// Its name.
        name: Word,
        /// Its value.
        value: Word,
    },
    /// `coproc attach ID dN`
    CoprocAttach {
        /// Which coprocessor.
        coproc: CoprocId,
        /// For which domain.
        domain: DomainId,
    },
    /// `coproc detach ID dN`
    CoprocDetach {
        /// Which coprocessor.
        coproc: CoprocId,
        /// From which domain.
        domain: DomainId,
    },
    /// `coproc share ID`
    CoprocShare(CoprocId),
    /// `coproc unshare ID`
    CoprocUnshare(CoprocId),
    /// About pools and vCPUs.
    Cpus(CpuCommand),
    /// `console baton|dN`
    Console(Focus),
}

/// What is wrong with a line; reads "what, remedy".
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// The first word is no command.
    #[error("unknown command `{0}`, `help` lists the commands")]
    Unknown(Word),
    /// The word after `domain` is none of its commands.
    #[error(
        "unknown command `domain {0}`, try create, pause, resume, restart, destroy, define, report, cycle or set"
    )]
    UnknownDomain(Word),
    /// The word after `coproc` is none of its commands.
    #[error(
        "unknown command `coproc {0}`, try list, query, timeline, histogram, record, set, attach, detach, share or unshare"
    )]
    UnknownCoproc(Word),
    /// A word is missing.
    #[error("{0} is missing, write `{1}`")]
    Missing(&'static str, &'static str),
    /// A word isn't what its place asks for.
    #[error("`{0}` is no {1}, write `{2}`")]
    Invalid(Word, &'static str, &'static str),
    /// There are words too many.
    #[error("`{0}` is one word too many, write `{1}`")]
    Extra(Word, &'static str),
}

/// A word cut to what an error shows.
pub(super) fn shorten(text: &str) -> Word {
    let mut word = Word::new();
    for character in text.chars() {
        if word.try_push(character).is_err() {
            break;
        }
    }
    word
}

struct Words<'a> {
    rest: core::str::SplitAsciiWhitespace<'a>,
    usage: &'static str,
}

impl<'a> Words<'a> {
    fn required(&mut self, what: &'static str) -> Result<&'a str, ParseError> {
        self.rest
            .next()
            .ok_or(ParseError::Missing(what, self.usage))
    }

    fn invalid<T>(&self, word: &str, what: &'static str) -> Result<T, ParseError> {
        Err(ParseError::Invalid(shorten(word), what, self.usage))
    }

    fn coproc_id(&self, word: &str) -> Result<CoprocId, ParseError> {
        match number(word.strip_prefix("coproc").unwrap_or(word)) {
            Some(id) => Ok(CoprocId(id)),
            None => self.invalid(word, "coproc id"),
        }
    }

    fn coproc(&mut self) -> Result<CoprocId, ParseError> {
        let word = self.required("the coproc's id")?;
        self.coproc_id(word)
    }

    fn optional_coproc(&mut self) -> Result<Option<CoprocId>, ParseError> {
        self.rest
            .next()
            .map(|word| self.coproc_id(word))
            .transpose()
    }

    fn domain_id(&self, word: &str, what: &'static str) -> Result<DomainId, ParseError> {
        match word.strip_prefix('d').and_then(number) {
            Some(id) => Ok(DomainId(id)),
            None => self.invalid(word, what),
        }
    }

    fn domain(&mut self) -> Result<DomainId, ParseError> {
        let word = self.required("the domain")?;
        self.domain_id(word, "domain")
    }

    fn word(&mut self, what: &'static str) -> Result<Word, ParseError> {
        let word = self.required(what)?;
        match Word::from(word) {
            Ok(word) => Ok(word),
            Err(_) => self.invalid(word, "word of at most 32 characters"),
        }
    }
}

impl Command {
    /// Whether it's more than a question.
    pub const fn changes(&self) -> bool {
        match self {
            Self::Empty
            | Self::Help
            | Self::Domains
            | Self::FilePut { .. }
            | Self::DomainReport(_)
            | Self::Memory
            | Self::Devices
            | Self::CoprocList
            | Self::CoprocQuery(_)
            | Self::CoprocTimeline(_)
            | Self::CoprocHistogram(_)
            | Self::Trace { .. }
            | Self::CoprocRecord { .. }
            | Self::Cpus(CpuCommand::Pools | CpuCommand::Vcpus(_)) => false,
            #[cfg(feature = "fault-injection")]
            Self::Inject(..) => true,
            Self::Domain(..)
            | Self::DomainDefine(_)
            | Self::DomainCycle(..)
            | Self::CoprocSet { .. }
            | Self::CoprocAttach { .. }
            | Self::CoprocDetach { .. }
            | Self::CoprocShare(_)
            | Self::CoprocUnshare(_)
            | Self::Cpus(CpuCommand::SetPool { .. } | CpuCommand::SetDomain { .. })
            | Self::Console(_) => true,
        }
    }
}

/// Digits only: the standard parser takes a sign.
fn number<T: core::str::FromStr>(text: &str) -> Option<T> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    if digits { text.parse().ok() } else { None }
}

/// Parses one line.
pub fn parse(line: &str) -> Result<Command, ParseError> {
    let mut words = Words {
        rest: line.split_ascii_whitespace(),
        usage: "",
    };
    let Some(first) = words.rest.next() else {
        return Ok(Command::Empty);
    };
    let command = match first {
        "help" | "?" => {
            words.usage = "help";
            Command::Help
        }
        "domains" => {
            words.usage = "domains";
            Command::Domains
        }
        "memory" => {
            words.usage = "memory";
            Command::Memory
        }
        "devices" => {
            words.usage = "devices";
            Command::Devices
        }
        #[cfg(feature = "fault-injection")]
        "inject" => {
            words.usage = "inject allocation|driver N";
            let kind = match words.required("what is to fail")? {
                "allocation" => crate::injection::Kind::Allocation,
                "driver" => crate::injection::Kind::Driver,
                word => return words.invalid(word, "kind of fault"),
            };
            let word = words.required("which one")?;
            match number(word) {
                Some(nth) => Command::Inject(kind, nth),
                None => return words.invalid(word, "number"),
            }
        }
        "console" => {
            words.usage = "console baton|dN";
            match words.required("baton or a domain")? {
                "baton" => Command::Console(Focus::Baton),
                word => Command::Console(Focus::Domain(words.domain_id(word, "console")?)),
            }
        }
        "domain" => parse_domain(&mut words)?,
        "file" => parse_file(&mut words)?,
        "coproc" => parse_coproc(&mut words)?,
        "trace" => parse_trace(&mut words)?,
        "pool" | "vcpu" => Command::Cpus(parse_cpus(first, &mut words)?),
        word => return Err(ParseError::Unknown(shorten(word))),
    };
    match words.rest.next() {
        Some(extra) => Err(ParseError::Extra(shorten(extra), words.usage)),
        None => Ok(command),
    }
}

fn parse_trace(words: &mut Words<'_>) -> Result<Command, ParseError> {
    words.usage = "trace [coproc ID] [from NS]";
    let (mut coproc, mut from) = (None, Instant::from_nanos(0));
    while let Some(word) = words.rest.next() {
        match word {
            "coproc" => coproc = Some(words.coproc()?),
            "from" => {
                let word = words.required("the time")?;
                let Some(time) = number(word) else {
                    return words.invalid(word, "time in ns");
                };
                from = Instant::from_nanos(time);
            }
            _ => return words.invalid(word, "part of it"),
        }
    }
    Ok(Command::Trace { coproc, from })
}

fn parse_cpus(first: &str, words: &mut Words<'_>) -> Result<CpuCommand, ParseError> {
    words.usage = match first {
        "pool" => "pool list|set",
        _ => "vcpu list [dN]",
    };
    Ok(match (first, words.required("what to do")?) {
        ("pool", "list") => {
            words.usage = "pool list";
            CpuCommand::Pools
        }
        ("vcpu", "list") => {
            let domain = words.rest.next();
            let domain = domain.map(|word| words.domain_id(word, "domain"));
            CpuCommand::Vcpus(domain.transpose()?)
        }
        ("pool", "set") => {
            words.usage = "pool set ID scheduler NAME";
            let word = words.required("the pool's number")?;
            let Some(pool) = number(word) else {
                return words.invalid(word, "pool's number");
            };
            match words.required("the parameter's name")? {
                "scheduler" => {}
                word => return words.invalid(word, "parameter of a pool"),
            }
            CpuCommand::SetPool {
                pool,
                scheduler: words.word("the algorithm's name")?,
            }
        }
        (_, word) => return words.invalid(word, "part of it"),
    })
}

fn parse_file(words: &mut Words<'_>) -> Result<Command, ParseError> {
    words.usage = "file put OFFSET BASE64";
    match words.required("what to do")? {
        "put" => {}
        word => return words.invalid(word, "part of it"),
    }
    let word = words.required("where it belongs")?;
    let Some(offset) = number(word) else {
        return words.invalid(word, "number of bytes");
    };
    let word = words.required("a part of the file")?;
    match file::decode(word) {
        Some(part) => Ok(Command::FilePut { offset, part }),
        None => words.invalid(word, "base64"),
    }
}

fn parse_domain(words: &mut Words<'_>) -> Result<Command, ParseError> {
    words.usage = "domain create|pause|resume|restart|destroy|define|report|cycle dN";
    let operation = match words.required("what to do")? {
        "create" => Operation::Create,
        "pause" => Operation::Pause,
        "resume" => Operation::Resume,
        "restart" => Operation::Restart,
        "destroy" => Operation::Destroy,
        "define" => {
            words.usage = "domain define dN";
            return Ok(Command::DomainDefine(words.domain()?));
        }
        "set" => {
            words.usage = "domain set dN.NAME VALUE";
            return Ok(Command::Cpus(CpuCommand::SetDomain {
                name: words.word("the parameter's name")?,
                value: words.word("the value")?,
            }));
        }
        "report" => {
            words.usage = "domain report dN";
            return Ok(Command::DomainReport(words.domain()?));
        }
        "cycle" => {
            words.usage = "domain cycle dN ROUNDS";
            let domain = words.domain()?;
            let rounds = words.required("the number of rounds")?;
            return match number(rounds) {
                Some(rounds) => Ok(Command::DomainCycle(domain, rounds)),
                None => words.invalid(rounds, "number"),
            };
        }
        other => return Err(ParseError::UnknownDomain(shorten(other))),
    };
    Ok(Command::Domain(operation, words.domain()?))
}

fn parse_coproc(words: &mut Words<'_>) -> Result<Command, ParseError> {
    words.usage = "coproc list|query|timeline|histogram|record|set|attach|detach|share|unshare";
    Ok(match words.required("what to do")? {
        "list" => {
            words.usage = "coproc list";
            Command::CoprocList
        }
        "query" => {
            words.usage = "coproc query [ID]";
            Command::CoprocQuery(words.optional_coproc()?)
        }
        "timeline" => {
            words.usage = "coproc timeline [ID]";
            Command::CoprocTimeline(words.optional_coproc()?)
        }
        "histogram" => {
            words.usage = "coproc histogram ID";
            Command::CoprocHistogram(words.coproc()?)
        }
        "record" => {
            words.usage = "coproc record ID [BYTE]";
            Command::CoprocRecord {
                coproc: words.coproc()?,
                from: match words.rest.next() {
                    None => 0,
                    Some(word) => match number(word) {
                        Some(from) => from,
                        None => words.invalid(word, "byte")?,
                    },
                },
            }
        }
        "set" => {
            words.usage = "coproc set ID NAME VALUE";
            let coproc = words.coproc()?;
            let name = words.word("the parameter's name")?;
            Command::CoprocSet {
                coproc,
                name,
                value: words.word("the value")?,
            }
        }
        "attach" => {
            words.usage = "coproc attach ID dN";
            Command::CoprocAttach {
                coproc: words.coproc()?,
                domain: words.domain()?,
            }
        }
        "detach" => {
            words.usage = "coproc detach ID dN";
            Command::CoprocDetach {
                coproc: words.coproc()?,
                domain: words.domain()?,
            }
        }
        "share" => {
            words.usage = "coproc share ID";
            Command::CoprocShare(words.coproc()?)
        }
        "unshare" => {
            words.usage = "coproc unshare ID";
            Command::CoprocUnshare(words.coproc()?)
        }
        other => return Err(ParseError::UnknownCoproc(shorten(other))),
    })
}

/// What one typed byte led to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Edited {
    /// Bytes to show.
    pub echo: ArrayVec<u8, { LINE_LENGTH * 3 }>,
    /// The line is complete.
    pub entered: bool,
    /// The line was thrown away by Ctrl-C; a new prompt is due.
    pub cancelled: bool,
}

impl Edited {
    fn show(&mut self, bytes: &[u8]) {
        // As long as the line, three bytes each: it can't overflow.
        let _ = self.echo.try_extend_from_slice(bytes);
    }
}

/// Position within an escape sequence of a terminal (arrow keys), which is swallowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Escape {
    None,
    Begun,
    Sequence,
}

/// The line being typed.
#[derive(Clone, Debug)]
pub struct Editor {
    line: arrayvec::ArrayString<LINE_LENGTH>,
    escape: Escape,
    after_return: bool,
}

impl Default for Editor {
    fn default() -> Self {
        Self::new()
    }
}

impl Editor {
    /// An empty line.
    pub const fn new() -> Self {
        Self {
            line: arrayvec::ArrayString::new_const(),
            escape: Escape::None,
            after_return: false,
        }
    }

    /// What has been typed.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// Starts anew.
    pub fn clear(&mut self) {
        self.line.clear();
    }

    /// Takes a typed byte.
    pub fn feed(&mut self, byte: u8) -> Edited {
        let mut edited = Edited::default();
        let after_return = core::mem::replace(&mut self.after_return, byte == b'\r');
        match (self.escape, byte) {
            (Escape::Begun, b'[' | b'O') => {
                self.escape = Escape::Sequence;
                return edited;
            }
            (Escape::Sequence, 0x20..=0x3f) => return edited,
            (Escape::Sequence, 0x40..=0x7e) => {
                self.escape = Escape::None;
                return edited;
            }
            _ => self.escape = Escape::None,
        }
        match byte {
            // Some send both; the second one isn't another line.
            b'\n' if after_return => {}
            b'\r' | b'\n' => {
                edited.show(b"\n");
                edited.entered = true;
            }
            0x08 | 0x7f => {
                self.rub_out(&mut edited);
            }
            // Ctrl-U
            0x15 => while self.rub_out(&mut edited) {},
            // Ctrl-C
            0x03 => {
                self.line.clear();
                edited.show(b"^C\n");
                edited.cancelled = true;
            }
            0x1b => self.escape = Escape::Begun,
            0x20..=0x7e => {
                if self.line.try_push(char::from(byte)).is_ok() {
                    edited.show(&[byte]);
                } else {
                    edited.show(b"\x07");
                }
            }
            _ => {}
        }
        edited
    }
    /// Removes the last character; returns whether there was one.
    fn rub_out(&mut self, edited: &mut Edited) -> bool {
        let removed = self.line.pop().is_some();
        if removed {
            edited.show(b"\x08 \x08");
        }
        removed
    }
}
