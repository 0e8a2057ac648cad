//! A record as text: one event a line, the first letters say which, numbers are hexadecimal and times relative to the last `n`.
//!
//! Text, so that a record can leave by any console, be read by people, cut and compared. A line takes some ten bytes.

use core::fmt;

use super::event::{Answer, Call, Event, Header, Input, TEXT, Told};
use crate::address::DeviceAddress;
use crate::algorithm::Parameters;
use crate::coproc::{Outcome, Settings};
use crate::driver::{Failure, Step};
use crate::environment::Stream;
use crate::id::{CoprocId, DomainId, VcoprocId};
use crate::iommu::Faults;
use crate::register::{Access, Operation, Width};
use crate::time::{Duration, Instant};

/// The first line, with the version of the format.
const MAGIC: &str = "baton-record 1";

/// What times are relative to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock(u64);

/// A line that isn't what [`Event`] or [`Header`] write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("line {line} of the record is none")]
pub struct SyntaxError {
    /// Its number; the first is 1.
    pub line: usize,
}

/// An optional number.
struct Maybe(Option<u64>);

impl fmt::Display for Maybe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number:x}"),
            None => f.write_str("-"),
        }
    }
}

fn span(span: Option<Duration>) -> Maybe {
    Maybe(span.map(Duration::as_nanos))
}

struct Share<'a>(&'a Parameters);

impl fmt::Display for Share<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Parameters {
            weight,
            priority,
            budget,
            period,
        } = *self.0;
        write!(
            f,
            "{weight:x} {priority:x} {} {}",
            span(budget),
            span(period)
        )
    }
}

struct Tuned(Settings);

impl fmt::Display for Tuned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Settings {
            slice,
            refusal_bound,
            starvation_bound,
        } = self.0;
        let (slice, bound) = (slice.as_nanos(), refusal_bound.as_nanos());
        write!(f, "{slice:x} {bound:x} {}", span(starvation_bound))
    }
}

struct Found(Faults);

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Faults {
            count,
            last,
            write,
            overflow,
        } = self.0;
        let (last, write, overflow) = (last.map(DeviceAddress::get), bit(write), bit(overflow));
        write!(f, "{count:x} {} {write} {overflow}", Maybe(last))
    }
}

const fn bit(truth: bool) -> u8 {
    truth as u8
}

impl Header<'_> {
    /// Writes the first lines.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn fmt::Write, clock: &mut Clock) -> fmt::Result {
        clock.0 = self.now.as_nanos();
        writeln!(out, "{MAGIC}")?;
        writeln!(out, "{:x} {} {}", self.id.0, self.driver, self.algorithm)?;
        writeln!(out, "{} {:x}", Tuned(self.settings), self.now.as_nanos())
    }
}

impl Event<'_> {
    /// Writes its line.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn fmt::Write, clock: &mut Clock) -> fmt::Result {
        match self {
            Self::Input(input) => input.write(out),
            Self::Call(call) => call.write(out, clock),
            Self::Current(who) => writeln!(out, "@{}", Maybe(who.map(|who| who.0.into()))),
            Self::Answer(answer) => match answer {
                Answer::Done => writeln!(out, "<"),
                Answer::Failed => writeln!(out, "<no"),
                Answer::Is(truth) => writeln!(out, "<is {}", bit(*truth)),
                Answer::Pending => writeln!(out, "<pending"),
                Answer::Outcome(Outcome::Value(value)) => writeln!(out, "<v {value:x}"),
                Answer::Outcome(Outcome::Retry) => writeln!(out, "<retry"),
                Answer::Outcome(Outcome::Park) => writeln!(out, "<park"),
                Answer::Outcome(Outcome::Fault) => writeln!(out, "<fault"),
            },
            Self::Full => writeln!(out, "!full"),
        }
    }
}

impl Input<'_> {
    fn write(&self, out: &mut dyn fmt::Write) -> fmt::Result {
        match self {
            Self::Start => writeln!(out, ">start"),
            Self::Attach(who, domain, parameters) => {
                let parameters = Share(parameters);
                writeln!(out, ">attach {:x} {:x} {parameters}", who.0, domain.0)
            }
            Self::Detach(who) => writeln!(out, ">detach {:x}", who.0),
            Self::Parameters(who, parameters) => {
                writeln!(out, ">parameters {:x} {}", who.0, Share(parameters))
            }
            Self::Tune(settings) => writeln!(out, ">tune {}", Tuned(*settings)),
            Self::Algorithm(name) => writeln!(out, ">algorithm {name}"),
            Self::Timer => writeln!(out, ">t"),
            Self::Access(who, access) => {
                let (who, window, offset) = (who.0, access.window, access.offset);
                let width = access.width.bytes();
                match access.operation {
                    Operation::Read => writeln!(out, ">r {who:x} {window:x} {offset:x} {width}"),
                    Operation::Write(value) => {
                        writeln!(out, ">w {who:x} {window:x} {offset:x} {width} {value:x}")
                    }
                }
            }
            Self::Interrupt(index) => writeln!(out, ">i {index:x}"),
            Self::Resample(who, index) => writeln!(out, ">resample {:x} {index:x}", who.0),
            Self::Pending(who, index) => writeln!(out, ">pending {:x} {index:x}", who.0),
            Self::WindowsChanged(who) => writeln!(out, ">windows {:x}", who.0),
            Self::CollectFaults => writeln!(out, ">faults"),
        }
    }
}

impl Call {
    fn write(&self, out: &mut dyn fmt::Write, clock: &mut Clock) -> fmt::Result {
        match *self {
            Self::Now(now) => {
                let since = now.as_nanos().wrapping_sub(clock.0);
                clock.0 = now.as_nanos();
                writeln!(out, "n {since:x}")
            }
            Self::ArmTimer(at) => {
                let at = at.map(|at| at.as_nanos().wrapping_sub(clock.0));
                writeln!(out, "t {}", Maybe(at))
            }
            Self::Mask(masked) => writeln!(out, "m {}", bit(masked)),
            Self::Asserted(index, truth) => writeln!(out, "a {index:x} {}", bit(truth)),
            Self::Settled(truth) => writeln!(out, "s {}", bit(truth)),
            Self::Map(who, mapped) => writeln!(out, "map {:x} {}", who.0, bit(mapped)),
            Self::Unmap(who) => writeln!(out, "unmap {:x}", who.0),
            Self::Point(target, done) => {
                let done = bit(done);
                match target {
                    Stream::Abort => writeln!(out, "p - {done}"),
                    Stream::Save(who) => writeln!(out, "ps {:x} {done}", who.0),
                    Stream::Domain(who) => writeln!(out, "pd {:x} {done}", who.0),
                }
            }
            Self::Sync(Step::Done) => writeln!(out, "y"),
            Self::Sync(Step::Again(after)) => writeln!(out, "y {:x}", after.as_nanos()),
            Self::Sync(Step::Failed(_)) => writeln!(out, "y -"),
            Self::Faults(None) => writeln!(out, "f -"),
            Self::Faults(Some(found)) => writeln!(out, "f {}", Found(found)),
            Self::Line(who, index, high) => {
                writeln!(out, "l {:x} {index:x} {}", who.0, bit(high))
            }
            Self::Release(who) => writeln!(out, "release {:x}", who.0),
            Self::Notify(who, Told::Faulted) => writeln!(out, "lost {:x}", who.0),
            Self::Notify(who, Told::Quarantined) => writeln!(out, "quarantined {:x}", who.0),
            Self::Notify(who, Told::IommuFault(faults)) => {
                writeln!(out, "astray {:x} {}", who.0, Found(faults))
            }
            Self::Read(window, offset, width, value) => {
                writeln!(out, "r {window:x} {offset:x} {} {value:x}", width.bytes())
            }
            Self::Write(window, offset, width, value) => {
                writeln!(out, "w {window:x} {offset:x} {} {value:x}", width.bytes())
            }
        }
    }
}

/// The words of a line.
struct Words<'a>(core::str::SplitAsciiWhitespace<'a>);

impl<'a> Words<'a> {
    fn word(&mut self) -> Option<&'a str> {
        self.0.next()
    }

    fn number(&mut self) -> Option<u64> {
        number(self.word()?)
    }

    fn maybe(&mut self) -> Option<Option<u64>> {
        match self.word()? {
            "-" => Some(None),
            word => number(word).map(Some),
        }
    }

    fn index(&mut self) -> Option<usize> {
        usize::try_from(self.number()?).ok()
    }

    fn who(&mut self) -> Option<VcoprocId> {
        u32::try_from(self.number()?).ok().map(VcoprocId)
    }

    fn truth(&mut self) -> Option<bool> {
        match self.word()? {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    fn width(&mut self) -> Option<Width> {
        match self.word()? {
            "1" => Some(Width::Byte),
            "2" => Some(Width::Half),
            "4" => Some(Width::Word),
            "8" => Some(Width::Double),
            _ => None,
        }
    }

    fn parameters(&mut self) -> Option<Parameters> {
        Some(Parameters {
            weight: u32::try_from(self.number()?).ok()?,
            priority: u32::try_from(self.number()?).ok()?,
            budget: self.maybe()?.map(Duration::from_nanos),
            period: self.maybe()?.map(Duration::from_nanos),
        })
    }

    fn settings(&mut self) -> Option<Settings> {
        Some(Settings {
            slice: Duration::from_nanos(self.number()?),
            refusal_bound: Duration::from_nanos(self.number()?),
            starvation_bound: self.maybe()?.map(Duration::from_nanos),
        })
    }

    fn faults(&mut self, count: u64) -> Option<Faults> {
        Some(Faults {
            count,
            last: self.maybe()?.map(DeviceAddress::new),
            write: self.truth()?,
            overflow: self.truth()?,
        })
    }

    /// What was read, unless there is more.
    fn end<T>(mut self, value: T) -> Option<T> {
        self.word().is_none().then_some(value)
    }
}

fn number(word: &str) -> Option<u64> {
    // `from_str_radix` would take a sign.
    let digits = word.bytes().all(|digit| digit.is_ascii_hexdigit());
    u64::from_str_radix(word, 16).ok().filter(|_| digits)
}

fn words(line: &str) -> Words<'_> {
    Words(line.split_ascii_whitespace())
}

/// The lines of a record, with their numbers.
pub(super) struct Reader<'a> {
    lines: core::iter::Enumerate<core::str::Lines<'a>>,
    clock: Clock,
}

impl<'a> Reader<'a> {
    /// Reads the header.
    pub(super) fn open(text: &'a str) -> Result<(Header<'a>, Self), SyntaxError> {
        let mut lines = text.lines();
        let none = |line| SyntaxError { line };
        if lines.next() != Some(MAGIC) {
            return Err(none(1));
        }
        let second = |line: &'a str| {
            let mut words = words(line);
            let id = CoprocId(u32::try_from(words.number()?).ok()?);
            let names = (words.word()?, words.word()?);
            words.end((id, names))
        };
        let third = |line: &str| {
            let mut words = words(line);
            let settings = words.settings()?;
            let now = words.number()?;
            words.end((settings, now))
        };
        let (id, (driver, algorithm)) = lines.next().and_then(second).ok_or(none(2))?;
        let (settings, now) = lines.next().and_then(third).ok_or(none(3))?;
        let header = Header {
            id,
            driver,
            algorithm,
            settings,
            now: Instant::from_nanos(now),
        };
        let mut lines = text.lines().enumerate();
        lines.nth(2);
        let clock = Clock(now);
        Ok((header, Self { lines, clock }))
    }

    /// The next event and the number of its line; `None` at the end.
    pub(super) fn next(&mut self) -> Option<Result<(usize, Event<'a>), SyntaxError>> {
        let (before, text) = self.lines.next()?;
        let line = before.saturating_add(1);
        let event = Event::parse(text, &mut self.clock);
        Some(event.map(|event| (line, event)).ok_or(SyntaxError { line }))
    }
}

impl<'a> Event<'a> {
    /// Reads a line.
    pub fn parse(line: &'a str, clock: &mut Clock) -> Option<Self> {
        if let Some(rest) = line.strip_prefix('>') {
            return Input::parse(rest).map(Self::Input);
        }
        if let Some(rest) = line.strip_prefix('<') {
            return parse_answer(rest).map(Self::Answer);
        }
        if let Some(rest) = line.strip_prefix('@') {
            let who = match words(rest).maybe()? {
                Some(who) => Some(VcoprocId(u32::try_from(who).ok()?)),
                None => None,
            };
            return Some(Self::Current(who));
        }
        if line == "!full" {
            return Some(Self::Full);
        }
        Call::parse(line, clock).map(Self::Call)
    }
}

fn parse_answer(text: &str) -> Option<Answer> {
    let mut words = words(text);
    let answer = match words.word() {
        None => Answer::Done,
        Some("no") => Answer::Failed,
        Some("is") => Answer::Is(words.truth()?),
        Some("pending") => Answer::Pending,
        Some("v") => Answer::Outcome(Outcome::Value(words.number()?)),
        Some("retry") => Answer::Outcome(Outcome::Retry),
        Some("park") => Answer::Outcome(Outcome::Park),
        Some("fault") => Answer::Outcome(Outcome::Fault),
        Some(_) => return None,
    };
    words.end(answer)
}

impl<'a> Input<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut words = words(text);
        let word = words.word()?;
        let input = match word {
            "start" => Self::Start,
            "attach" => {
                let who = words.who()?;
                let domain = DomainId(u16::try_from(words.number()?).ok()?);
                Self::Attach(who, domain, words.parameters()?)
            }
            "detach" => Self::Detach(words.who()?),
            "parameters" => Self::Parameters(words.who()?, words.parameters()?),
            "tune" => Self::Tune(words.settings()?),
            "algorithm" => Self::Algorithm(words.word()?),
            "t" => Self::Timer,
            "r" | "w" => {
                let who = words.who()?;
                let (window, offset) = (words.index()?, words.number()?);
                let width = words.width()?;
                let operation = match word {
                    "r" => Operation::Read,
                    _ => Operation::Write(words.number()?),
                };
                let access = Access {
                    window,
                    offset,
                    width,
                    operation,
                };
                Self::Access(who, access)
            }
            "i" => Self::Interrupt(words.index()?),
            "resample" => Self::Resample(words.who()?, words.index()?),
            "pending" => Self::Pending(words.who()?, words.index()?),
            "windows" => Self::WindowsChanged(words.who()?),
            "faults" => Self::CollectFaults,
            _ => return None,
        };
        words.end(input)
    }
}

impl Call {
    fn parse(text: &str, clock: &mut Clock) -> Option<Self> {
        let mut words = words(text);
        let word = words.word()?;
        let call = match word {
            "n" => {
                clock.0 = clock.0.wrapping_add(words.number()?);
                Self::Now(Instant::from_nanos(clock.0))
            }
            "t" => {
                let after = words.maybe()?;
                Self::ArmTimer(after.map(|t| Instant::from_nanos(clock.0.wrapping_add(t))))
            }
            "m" => Self::Mask(words.truth()?),
            "a" => Self::Asserted(words.index()?, words.truth()?),
            "s" => Self::Settled(words.truth()?),
            "map" => Self::Map(words.who()?, words.truth()?),
            "unmap" => Self::Unmap(words.who()?),
            "p" => {
                if words.word()? != "-" {
                    return None;
                }
                Self::Point(Stream::Abort, words.truth()?)
            }
            "ps" => Self::Point(Stream::Save(words.who()?), words.truth()?),
            "pd" => Self::Point(Stream::Domain(words.who()?), words.truth()?),
            "y" => Self::Sync(match words.word() {
                None => Step::Done,
                Some("-") => Step::Failed(Failure(TEXT)),
                Some(after) => Step::Again(Duration::from_nanos(number(after)?)),
            }),
            "f" => Self::Faults(match words.maybe()? {
                Some(count) => Some(words.faults(count)?),
                None => None,
            }),
            "l" => Self::Line(words.who()?, words.index()?, words.truth()?),
            "release" => Self::Release(words.who()?),
            "lost" => Self::Notify(words.who()?, Told::Faulted),
            "quarantined" => Self::Notify(words.who()?, Told::Quarantined),
            "astray" => {
                let who = words.who()?;
                let count = words.number()?;
                Self::Notify(who, Told::IommuFault(words.faults(count)?))
            }
            "r" | "w" => {
                let (window, offset) = (words.index()?, words.number()?);
                let (width, value) = (words.width()?, words.number()?);
                match word {
                    "r" => Self::Read(window, offset, width, value),
                    _ => Self::Write(window, offset, width, value),
                }
            }
            _ => return None,
        };
        words.end(call)
    }
}
