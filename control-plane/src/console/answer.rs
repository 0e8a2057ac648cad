//! A command's answer, made line by line: any number of result lines, then `ok` or `error: …`.
//!
//! A state machine and not a loop, because the UART is slow: a timeline of a thousand slices takes
//! seconds to send, and nothing waits meanwhile. Programs read up to the closing line.

use arrayvec::ArrayString;
use coproc_core::id::{CoprocId, DomainId};
use coproc_core::time::Instant;
use core::fmt::{Display, Write as _};

use super::coprocs::RecordReport;
use super::cpus::CpuCommand;
use super::input::Focus;
use super::management::{Definition, Management, ManagementError};
use super::multiplexer::OWN_LINE_MAX;
use super::shell::{Command, HELP};
use crate::trace;
use crate::trace::merge::{Cursor, Found};

/// Steps that make no line, in one go: each is short, but a trace has thousands of events of no interest.
const SILENT_STEPS: usize = 8;

/// One line of an answer, without its end.
pub type Line = ArrayString<OWN_LINE_MAX>;

/// Bytes of a record in one answer; whoever wants more asks again.
const RECORD_BYTES: u64 = 64 << 10;

/// Text of an error, cut to this length.
type ErrorText = ArrayString<200>;

/// Where an answer stands.
#[derive(Clone, Debug)]
enum State {
    Help(usize),
    Domains(usize),
    /// Coprocs from this index on; then, with `members`, their vcoprocs.
    Coprocs {
        index: usize,
        members: bool,
    },
    /// The settings of the coproc at `index`, then its longest times.
    Settings {
        index: usize,
        worst: bool,
    },
    Vcoprocs {
        coproc: CoprocId,
        index: usize,
        then: usize,
    },
    /// Looks for the coproc whose histograms come next.
    HistogramsOf(usize),
    Histograms {
        coproc: CoprocId,
        vcoproc: usize,
        histogram: usize,
    },
    Trace {
        cursor: Cursor,
        shown: u64,
    },
    /// Looks for the coproc at `index`, whose timeline comes next.
    Timelines {
        index: usize,
    },
    Timeline {
        coproc: CoprocId,
        from: u64,
        then: usize,
    },
    Record {
        report: RecordReport,
        from: u64,
        end: u64,
    },
    /// The lines were told, the closing one follows.
    Told,
    Memory,
    Pools(usize),
    Devices(usize),
    /// All vCPUs, or those of one domain, which was found.
    Vcpus {
        index: usize,
        only: Option<DomainId>,
        found: bool,
    },
    /// The report on a domain's crash, from this line on.
    Crash(DomainId, usize),
    /// What was found in a domain's configuration, from this one on: mistakes, then warnings.
    Definition(Definition, usize),
    Act(Command),
    Failed(ErrorText),
    Done,
}

/// An answer in the making.
#[derive(Clone, Debug)]
pub struct Answer {
    state: State,
    /// Only this coproc, and whether it was found.
    only: Option<CoprocId>,
    found: bool,
    /// Slices that began later aren't told, or a busy system's timeline would never end.
    asked: Instant,
}

impl Answer {
    /// Starts the answer to `command`.
    pub fn new(command: Command, now: Instant) -> Self {
        let (state, only) = match command {
            Command::Help => (State::Help(0), None),
            Command::Domains => (State::Domains(0), None),
            Command::Memory => (State::Memory, None),
            Command::Devices => (State::Devices(0), None),
            Command::DomainReport(domain) => (State::Crash(domain, 0), None),
            Command::CoprocList => (
                State::Coprocs {
                    index: 0,
                    members: false,
                },
                None,
            ),
            Command::CoprocQuery(only) => (
                State::Coprocs {
                    index: 0,
                    members: true,
                },
                only,
            ),
            Command::CoprocTimeline(only) => (State::Timelines { index: 0 }, only),
            Command::CoprocHistogram(only) => (State::HistogramsOf(0), Some(only)),
            Command::Trace { coproc, from } => {
                let cursor = Cursor::new(coproc, from, now);
                (State::Trace { cursor, shown: 0 }, None)
            }
            Command::Cpus(CpuCommand::Pools) => (State::Pools(0), None),
            Command::Cpus(CpuCommand::Vcpus(only)) => {
                let (index, found) = (0, only.is_none());
                (State::Vcpus { index, only, found }, None)
            }
            Command::Empty | Command::Console(_) => (State::Done, None),
            act => (State::Act(act), None),
        };
        Self {
            state,
            only,
            found: false,
            asked: now,
        }
    }

    const fn closing(state: State) -> Self {
        Self {
            state,
            only: None,
            found: false,
            asked: Instant::from_nanos(0),
        }
    }

    /// Nothing but `ok`.
    pub const fn done() -> Self {
        Self::closing(State::Done)
    }

    /// Nothing but an error.
    pub fn failed(error: &impl Display) -> Self {
        Self::closing(failed(error))
    }

    /// The error for a console that isn't there.
    pub fn no_domain(focus: Focus) -> Self {
        match focus {
            Focus::Domain(domain) => Self::failed(&ManagementError::NoDomain(domain)),
            Focus::Baton => Self::done(),
        }
    }

    /// The user doesn't want the rest.
    pub fn interrupt(&mut self) {
        self.state = failed(&"interrupted, ask again");
    }

    /// Writes the next line, or none if it would take too long to find it: to be asked again. Returns false when it was the closing one.
    pub fn next_line(&mut self, management: &mut dyn Management, line: &mut Line) -> bool {
        // A line that is too long is cut; every report fits with all its numbers at their largest.
        for _ in 0..SILENT_STEPS {
            let closing = matches!(self.state, State::Failed(_) | State::Done);
            if self.step(management, line) {
                return !closing;
            }
        }
        true
    }

    /// Goes to the next state; returns whether it made a line.
    fn step(&mut self, management: &mut dyn Management, line: &mut Line) -> bool {
        match &mut self.state {
            State::Help(index) => match HELP.get(*index) {
                Some(text) => {
                    *index = index.saturating_add(1);
                    put(line, text)
                }
                None => self.finish(),
            },
            State::Domains(index) => match management.domain(*index) {
                Some(report) => {
                    *index = index.saturating_add(1);
                    put(line, &report)
                }
                None => self.finish(),
            },
            State::Coprocs { index, members } => {
                let Some(report) = management.coproc(*index) else {
                    return self.finish();
                };
                *index = index.saturating_add(1);
                if self.only.is_some_and(|only| only != report.id) {
                    return false;
                }
                self.found = true;
                if *members {
                    let index = index.saturating_sub(1);
                    let worst = false;
                    self.state = State::Settings { index, worst };
                }
                put(line, &report)
            }
            State::Settings { index, worst } => {
                let Some(report) = management.coproc(*index) else {
                    return self.finish();
                };
                if !core::mem::replace(worst, true) {
                    return put(line, &report.settings_line());
                }
                self.state = State::Vcoprocs {
                    coproc: report.id,
                    index: 0,
                    then: index.saturating_add(1),
                };
                put(line, &report.worst_line())
            }
            State::HistogramsOf(index) => {
                let Some(report) = management.coproc(*index) else {
                    return self.finish();
                };
                *index = index.saturating_add(1);
                if self.only == Some(report.id) {
                    self.found = true;
                    self.state = State::Histograms {
                        coproc: report.id,
                        vcoproc: 0,
                        histogram: 0,
                    };
                }
                false
            }
            State::Histograms {
                coproc,
                vcoproc,
                histogram,
            } => match management.histogram(*coproc, *vcoproc, *histogram) {
                Some(report) => {
                    *histogram = histogram.saturating_add(1);
                    put(line, &report)
                }
                None if *histogram == 0 => self.finish(),
                None => {
                    *histogram = 0;
                    *vcoproc = vcoproc.saturating_add(1);
                    false
                }
            },
            State::Devices(index) => match management.device(*index) {
                Some(report) => {
                    *index = index.saturating_add(1);
                    put(line, &report)
                }
                None => self.finish(),
            },
            State::Pools(index) => match management.pool(*index) {
                Some(report) => {
                    *index = index.saturating_add(1);
                    put(line, &report)
                }
                None => self.finish(),
            },
            State::Vcpus { index, only, found } => match (management.vcpu(*index), *only) {
                (Some(report), only) => {
                    *index = index.saturating_add(1);
                    if only.is_some_and(|only| only != report.domain) {
                        return false;
                    }
                    *found = true;
                    put(line, &report)
                }
                (None, Some(only)) if !*found => {
                    self.state = failed(&ManagementError::NoDomain(only));
                    false
                }
                (None, _) => self.finish(),
            },
            State::Trace { cursor, shown } => match cursor.next(management.trace()) {
                Found::Event(told) => {
                    *shown = shown.saturating_add(1);
                    put(line, &told)
                }
                Found::More => false,
                Found::End => {
                    let lost = trace::lost(management.trace());
                    let _ = write!(line, "trace shown={shown} lost={lost}");
                    self.finish();
                    true
                }
            },
            State::Vcoprocs {
                coproc,
                index,
                then,
            } => match management.vcoproc(*coproc, *index) {
                Some(report) => {
                    *index = index.saturating_add(1);
                    put(line, &report)
                }
                None => {
                    self.state = State::Coprocs {
                        index: *then,
                        members: true,
                    };
                    false
                }
            },
            State::Timelines { index } => {
                let Some(report) = management.coproc(*index) else {
                    return self.finish();
                };
                *index = index.saturating_add(1);
                if self.only.is_none_or(|only| only == report.id) {
                    self.found = true;
                    self.state = State::Timeline {
                        coproc: report.id,
                        from: 0,
                        then: *index,
                    };
                }
                false
            }
            State::Timeline { coproc, from, then } => match management.slice(*coproc, *from) {
                Some((number, slice)) if slice.from < self.asked && number >= *from => {
                    *from = number.saturating_add(1);
                    put(line, &slice)
                }
                _ => {
                    self.state = State::Timelines { index: *then };
                    false
                }
            },
            State::Record { report, from, end } => {
                // Each line stands behind a mark, for messages may come in between.
                line.push('|');
                let next = management.record(report.coproc, *from, line);
                if let Some(next) = next.filter(|_| *from < *end) {
                    *from = next;
                    return true;
                }
                line.clear();
                let _ = write!(line, "{report} next={from}");
                self.state = State::Told;
                true
            }
            State::Act(Command::CoprocRecord { coproc, from }) => {
                let from = *from;
                self.state = match management.recorded(*coproc) {
                    Ok(report) => State::Record {
                        report,
                        from,
                        end: report.bytes.min(from.saturating_add(RECORD_BYTES)),
                    },
                    Err(error) => failed(&error),
                };
                false
            }
            State::Crash(domain, index) => match management.crash(*domain, *index, line) {
                Ok(true) => {
                    *index = index.saturating_add(1);
                    true
                }
                Ok(false) => self.finish(),
                Err(error) => {
                    self.state = failed(&error);
                    false
                }
            },
            State::Definition(found, index) => {
                let (at, mistakes) = (*index, found.mistakes.len());
                *index = at.saturating_add(1);
                let warning = found.warnings.get(at.saturating_sub(mistakes));
                match (found.mistakes.get(at), warning) {
                    (Some(error), _) => put(line, &format_args!("mistake {error}")),
                    (None, Some(error)) => put(line, &format_args!("warning {error}")),
                    (None, None) if mistakes == 0 => self.finish(),
                    (None, None) => {
                        self.state =
                            failed(&format_args!("{mistakes} mistakes, nothing was changed"));
                        false
                    }
                }
            }
            State::Act(Command::DomainDefine(domain)) => {
                self.state = match management.define(*domain) {
                    Ok(found) => State::Definition(found, 0),
                    Err(error) => failed(&error),
                };
                false
            }
            State::Act(Command::FilePut { offset, part }) => match management.put(*offset, part) {
                Ok(bytes) => {
                    self.state = State::Told;
                    put(line, &format_args!("file bytes={bytes}"))
                }
                Err(error) => {
                    self.state = failed(&error);
                    false
                }
            },
            State::Memory => {
                self.state = State::Done;
                put(line, &management.memory())
            }
            State::Act(command) => {
                let result = match command {
                    Command::CoprocSet {
                        coproc,
                        name,
                        value,
                    } => management.set(*coproc, name, value),
                    Command::Domain(operation, domain) => management.operate(*domain, *operation),
                    Command::DomainCycle(domain, rounds) => management.cycle(*domain, *rounds),
                    Command::CoprocAttach { coproc, domain } => management.attach(*coproc, *domain),
                    Command::CoprocDetach { coproc, domain } => management.detach(*coproc, *domain),
                    #[cfg(feature = "fault-injection")]
                    Command::Inject(kind, nth) => {
                        let left = management.inject(*kind, *nth);
                        self.state = State::Told;
                        return put(line, &format_args!("inject left={left}"));
                    }
                    Command::CoprocShare(coproc) => management.share(*coproc),
                    Command::CoprocUnshare(coproc) => management.unshare(*coproc),
                    Command::Cpus(CpuCommand::SetPool { pool, scheduler }) => {
                        management.set_pool(*pool, scheduler)
                    }
                    Command::Cpus(CpuCommand::SetDomain { name, value }) => {
                        management.set_domain(name, value)
                    }
                    _ => Ok(()),
                };
                self.state = match result {
                    Ok(()) => State::Done,
                    Err(error) => failed(&error),
                };
                false
            }
            State::Failed(text) => {
                let _ = write!(line, "error: {text}");
                self.state = State::Done;
                true
            }
            State::Told => self.finish(),
            State::Done => put(line, &"ok"),
        }
    }

    /// Ends a list; asking for one coproc that isn't there is an error. Makes no line.
    fn finish(&mut self) -> bool {
        self.state = match self.only {
            Some(only) if !self.found => failed(&ManagementError::NoCoproc(only)),
            _ => State::Done,
        };
        false
    }
}

fn failed(error: &impl Display) -> State {
    let mut text = ErrorText::new();
    let _ = write!(text, "{error}");
    State::Failed(text)
}

fn put(line: &mut Line, content: &impl Display) -> bool {
    let _ = write!(line, "{content}");
    true
}
