//! Integration tests: Baton on a whole machine, judged by what appears on its one console.
//!
//! Unit tests show that each part does what its author meant; these show that the parts together do what
//! Baton promises, with an unmodified Linux as the witness. The domains' own programs do most of the judging, since
//! only they know what they wrote; the harness starts machines, reads lines, and compares the domains' testimony with
//! Baton's own books. A test can therefore fail on either side: a domain that was served wrongly says so, and
//! a number on Baton's console that doesn't fit the domains' numbers is a failure too.
//!
//! What the harness promises to whoever writes or runs a test:
//!
//! - **One machine at a time**, over all threads and processes that use the same target directory. Each has two busy
//!   vCPUs, and on a small computer two of them would measure each other.
//! - **An end.** Every machine has a time limit from its first instruction on, and every wait its own; waiting
//!   for a turn counts for neither. A line that can only mean failure (EL2 or a kernel gave up, a program can't go on)
//!   ends a wait at once, not at its limit.
//! - **Nothing left running**, however a test ends. [`Machine::finish`] even checks it.
//! - **A log.** Everything on the console is in `target/logs/NAME.log`; that of a failed run is kept under
//!   `target/logs/failed/`, where the next run doesn't overwrite it.
//! - **No sleeps as synchronisation.** What must happen in an order is ordered by lines: a domain that is to start
//!   later waits for one on its own console ([`Machine::release`]).
//!
//! Boots are what costs time, so one of them may serve several tests; each test still states one claim.

mod control;
mod rounds;
mod u_boot;

use std::fs::File;
use std::ops::Deref;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use coproc_core::algorithm::Tuning;
use coproc_core::record::Factory;
use coproc_core::{Algorithm, Driver};
use qemu_boot::demo::{self, ENTER};
use qemu_boot::report::{CoprocReport, Origin, Record, split_tag};
use qemu_boot::{Artifacts, Mark, Qemu, Scenario};

pub use control::Control;
pub use rounds::{Rounds, after_switches};

/// Longest life of a machine: a slow, busy host's emulator takes its time, and the longest tests take more than a minute on a fast one.
pub const LIMIT: Duration = Duration::from_secs(400);
/// Longest wait for something that takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A booted machine: [`Qemu`], with what tests ask of it.
#[derive(Debug)]
pub struct Machine {
    qemu: Qemu,
    finished: bool,
    /// Domains that may give up.
    untrusted: Vec<String>,
    /// Held as long as the machine runs.
    _turn: File,
}

impl Deref for Machine {
    type Target = Qemu;

    fn deref(&self) -> &Qemu {
        &self.qemu
    }
}

impl Machine {
    /// Builds what is out of date, waits for a turn, boots, and waits until Baton takes commands.
    ///
    /// # Errors
    /// If something can't be built, or Baton doesn't start.
    pub fn boot(scenario: &Scenario, limit: Duration) -> Result<Self> {
        Self::boot_with(Artifacts::get()?, scenario, limit)
    }

    /// The same with another Baton than the one that ships.
    ///
    /// # Errors
    /// If Baton doesn't start.
    pub fn boot_with(artifacts: &Artifacts, scenario: &Scenario, limit: Duration) -> Result<Self> {
        let turn = turn(&artifacts.workspace().target("boots.lock"))?;
        let qemu = Qemu::baton(artifacts, scenario, limit)?;
        let machine = Self::new(qemu, turn);
        machine.wait_for_commands()?;
        Ok(machine)
    }

    fn new(qemu: Qemu, turn: File) -> Self {
        Self {
            qemu,
            finished: false,
            untrusted: Vec::new(),
            _turn: turn,
        }
    }

    /// Waits until Baton takes commands.
    fn wait_for_commands(&self) -> Result<()> {
        self.wait_baton("the prompt", PATIENCE, |text| {
            text.contains(" domains, ").then_some(())
        })
    }

    /// Takes no notice from now on if this domain gives up: it is there to misbehave.
    pub fn distrust(&mut self, name: &str) {
        self.untrusted.push(name.to_owned());
    }

    /// Shows Baton's own lines, from the first on, to `look` until it gives something.
    ///
    /// # Errors
    /// If nothing is found in time, or someone gives up.
    pub fn wait_baton<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        self.wait(what, timeout, |origin, text| match origin {
            Origin::Baton => look(text),
            _ => None,
        })
    }

    /// Shows a domain's lines, from the first on, to `look` until it gives something.
    ///
    /// # Errors
    /// If nothing is found in time, or someone gives up.
    pub fn wait_domain<T>(
        &self,
        name: &str,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<T> {
        self.wait(&format!("{name}: {what}"), timeout, |origin, text| {
            (origin == Origin::Domain(name))
                .then(|| look(text))
                .flatten()
        })
    }

    /// Waits for `text` in a line that its source may never end, such as a prompt, tags included.
    ///
    /// # Errors
    /// If it doesn't come in time.
    pub fn wait_prompt(&self, text: &str) -> Result<()> {
        self.qemu.wait_for_prompt(Mark::START, text, PATIENCE)
    }

    /// Shows all lines, from the first on, to `look` until it gives something.
    ///
    /// # Errors
    /// If nothing is found in time, or someone gives up.
    pub fn wait<T>(
        &self,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(Origin<'_>, &str) -> Option<T>,
    ) -> Result<T> {
        let (_, outcome) = self.qemu.wait_map(Mark::START, what, timeout, |line| {
            let (origin, text) = split_tag(line);
            if self.gives_up(origin, text) {
                return Some(Err(line.to_owned()));
            }
            look(origin, text).map(Ok)
        })?;
        outcome.map_err(|line| {
            anyhow!(
                "{what} will never come: {line}\n(all output is in {})",
                self.qemu.log().display()
            )
        })
    }

    /// The last line of a domain's workload.
    ///
    /// # Errors
    /// If it doesn't come in time.
    pub fn done(&self, name: &str) -> Result<Record> {
        self.wait_domain(name, "the workload's end", PATIENCE, |text| {
            text.starts_with("workload: done")
                .then(|| Record::parse(text))
        })
    }

    /// Lets a domain go on whose program waits for a line (`workload.wait=1`). Baton has the input before and after.
    ///
    /// # Errors
    /// If it doesn't wait, or doesn't get the line.
    pub fn release(&self, name: &str) -> Result<()> {
        self.wait_domain(name, "waiting for a line", PATIENCE, |text| {
            text.contains("workload: waiting for a line").then_some(())
        })?;
        self.ask(&format!("console {name}"))?;
        self.send(&format!("go{ENTER}"))?;
        self.wait_domain(name, "the line that was typed", PATIENCE, |text| {
            text.contains("workload: read \"go\"").then_some(())
        })?;
        demo::enter_baton(self)
    }

    /// A command's answer. Baton must have the input, as it does after boot.
    ///
    /// # Errors
    /// If the answer is an error or doesn't come.
    pub fn ask(&self, command: &str) -> Result<Vec<String>> {
        demo::ask(&self.qemu, command)
    }

    /// The error that a command is answered with.
    ///
    /// # Errors
    /// If it isn't answered, or succeeds.
    pub fn refusal(&self, command: &str) -> Result<String> {
        match demo::ask(&self.qemu, command) {
            Ok(answer) => bail!("'{command}' was answered with success: {answer:?}"),
            Err(error) => {
                let text = format!("{error:#}");
                ensure!(
                    text.contains("error: "),
                    "'{command}' wasn't answered: {text}"
                );
                Ok(text)
            }
        }
    }

    /// What `coproc query` and `coproc timeline` answer.
    ///
    /// # Errors
    /// If they don't.
    pub fn query(&self) -> Result<CoprocReport> {
        let mut report = CoprocReport::default();
        for command in ["coproc query", "coproc timeline"] {
            for line in self.ask(command)? {
                report.take(&line);
            }
        }
        Ok(report)
    }

    /// What `coproc timeline` answers, and nothing else.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn timeline(&self) -> Result<CoprocReport> {
        let mut report = CoprocReport::default();
        for line in self.ask("coproc timeline")? {
            report.take(&line);
        }
        Ok(report)
    }

    /// Waits until a domain has printed this many more lines of progress. Nothing is typed meanwhile: under `-icount` the emulator goes on with
    /// one CPU for up to 100 ms, whatever the others' timers want, whenever something is.
    ///
    /// # Errors
    /// If they don't come in time.
    pub fn progress(&self, name: &str, lines: usize) -> Result<()> {
        let is = |text: &str| text.starts_with("workload: progress");
        let before = self.output(name).iter().filter(|text| is(text)).count();
        let mut seen = 0;
        self.wait_domain(name, "progress", PATIENCE, |text| {
            seen += usize::from(is(text));
            (seen >= before + lines).then_some(())
        })
    }

    /// The record of a coproc (`baton,record`), up to now.
    ///
    /// # Errors
    /// If there is none, or lines of it get lost on the way.
    pub fn record(&self, coproc: u32) -> Result<String> {
        let (mut record, mut from) = (String::new(), 0);
        loop {
            let answer = self.ask(&format!("coproc record {coproc} {from}"))?;
            for line in &answer {
                if let Some(line) = line.strip_prefix('|') {
                    record.push_str(line);
                    record.push('\n');
                }
            }
            let end = answer.iter().rev().find(|line| line.starts_with("record "));
            let end = end.with_context(|| format!("no end in {answer:?}"))?;
            let next = number(&Record::parse(end), "next");
            ensure!(
                record.len() as u64 == next,
                "{} bytes came of {next}",
                record.len()
            );
            if next == from {
                return Ok(record);
            }
            from = next;
        }
    }

    /// What `domains` answers: id and state of each.
    ///
    /// # Errors
    /// If it doesn't.
    pub fn domains(&self) -> Result<Vec<(String, String)>> {
        let answer = self.ask("domains")?;
        let records = answer.iter().map(|line| Record::parse(line));
        Ok(records
            .filter(|record| record.kind == "domain")
            .map(|record| (text(&record, "id"), text(&record, "state")))
            .collect())
    }

    /// All that a domain has printed so far.
    pub fn output(&self, name: &str) -> Vec<String> {
        let lines = self.qemu.lines();
        lines
            .iter()
            .filter_map(|line| match split_tag(line) {
                (Origin::Domain(domain), text) if domain == name => Some(text.to_owned()),
                _ => None,
            })
            .collect()
    }

    /// Baton's error lines so far.
    pub fn errors(&self) -> Vec<String> {
        let lines = self.qemu.lines();
        lines
            .iter()
            .filter_map(|line| match split_tag(line) {
                (Origin::Baton, text) => text.strip_prefix("error: ").map(str::to_owned),
                _ => None,
            })
            .collect()
    }

    /// Has Baton tell, for the log of a run that failed, what it knows; if it answers, and has the input.
    fn testify(&self) {
        const SOON: Duration = Duration::from_secs(5);
        for command in ["domains", "vcpu list", "coproc query", "trace"] {
            // A refusal is in the log, too.
            let _ = demo::ask_within(&self.qemu, command, SOON);
        }
    }

    /// Whether a line can only be the end of whoever prints it, and that matters.
    fn gives_up(&self, origin: Origin<'_>, text: &str) -> bool {
        match origin {
            Origin::Baton => {
                let text = text.to_ascii_lowercase();
                ["panic", "fatal"].iter().any(|word| text.starts_with(word))
                    || text.contains("unhandled exception")
                    || text.contains("quarantined")
            }
            Origin::Domain(name) if self.untrusted.iter().any(|other| other == name) => false,
            Origin::Domain(_) => {
                text.contains("Kernel panic") || text.starts_with("workload: ERROR")
            }
            Origin::Untagged => false,
        }
    }

    /// Ends the machine; everything a test wanted of it was there.
    ///
    /// # Errors
    /// If someone gave up unnoticed, the machine ended by itself, or is still there afterwards.
    pub fn finish(mut self) -> Result<()> {
        ensure!(
            self.qemu.exited().is_none(),
            "the machine ended by itself: {}",
            self.qemu.log().display()
        );
        for line in self.qemu.lines() {
            let (origin, text) = split_tag(&line);
            ensure!(!self.gives_up(origin, text), "while the test ran: {line}");
        }
        self.qemu.kill();
        let process = format!("/proc/{}", self.qemu.pid());
        ensure!(
            !Path::new(&process).exists(),
            "{process} is still there after the machine's end"
        );
        self.finished = true;
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        self.testify();
        self.qemu.kill();
        match keep(self.qemu.name(), self.qemu.log()) {
            Ok(kept) => eprintln!("the failed run's log is {kept}"),
            Err(error) => eprintln!("the failed run's log isn't kept: {error:#}"),
        }
    }
}

/// Copies a failed run's log to where no later run overwrites it.
fn keep(name: &str, log: &Path) -> Result<String> {
    let folder = log.with_file_name("failed");
    std::fs::create_dir_all(&folder)?;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let kept = folder.join(format!("{name}-{seconds}.log"));
    std::fs::copy(log, &kept)?;
    Ok(kept.display().to_string())
}

/// Waits until no other machine runs on this target directory; the turn ends when the file is closed.
fn turn(path: &Path) -> Result<File> {
    let file = File::create(path).with_context(|| format!("making {}", path.display()))?;
    file.lock()
        .with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// All drivers and algorithms of Baton, for replaying a record.
#[derive(Clone, Copy, Debug)]
pub struct Replayer;

impl Factory for Replayer {
    fn driver(&self, name: &str) -> Option<Box<dyn Driver>> {
        platforms::coproc::by_name(name)
    }

    fn algorithm(&self, name: &str, tuning: &Tuning) -> Option<Box<dyn Algorithm>> {
        sched_algos::by_name(name, tuning)
    }
}

/// A number of a record.
///
/// # Panics
/// If there is none of that name.
#[track_caller]
pub fn number(record: &Record, key: &str) -> u64 {
    record
        .number(key)
        .unwrap_or_else(|| panic!("no number {key} in {record:?}"))
}

/// A word of a record.
///
/// # Panics
/// If there is none of that name.
#[track_caller]
pub fn text(record: &Record, key: &str) -> String {
    record
        .text(key)
        .unwrap_or_else(|| panic!("no {key} in {record:?}"))
        .to_owned()
}

/// A domain's part in coproc 0.
///
/// # Panics
/// If it has none.
#[track_caller]
pub fn vcoproc<'a>(report: &'a CoprocReport, domain: &str) -> &'a Record {
    report
        .vcoproc_of("0", domain)
        .unwrap_or_else(|| panic!("{domain} has no vcoproc in {report:?}"))
}

/// Coproc 0 itself.
///
/// # Panics
/// If there is none.
#[track_caller]
pub fn coproc(report: &CoprocReport) -> &Record {
    let found = report.coprocs.iter().find(|c| c.text("id") == Some("0"));
    found.unwrap_or_else(|| panic!("no coproc 0 in {report:?}"))
}

/// What domains held of a coproc in a part of its timeline.
#[derive(Clone, Copy, Debug)]
pub struct Held<const N: usize> {
    /// Time of each, in ns.
    pub ns: [u64; N],
    /// By how much the longest slice was longer than its owner's usual ones, in ns. So much of a share may be wrong in the end: who was served
    /// beyond its slice (by an emulator that had something else to do, say) pays for it afterwards.
    pub overrun: u64,
}

impl<const N: usize> Held<N> {
    /// All of them together, in ns.
    pub fn total(&self) -> u64 {
        self.ns.iter().sum()
    }

    /// [`Self::overrun`] as a part of the whole.
    pub fn debt(&self) -> f64 {
        self.overrun as f64 / self.total() as f64
    }
}

/// What domains held of a coproc in a `window` of its timeline that ends [`TYPING`] before the timeline does: what is charged to them.
pub fn held<const N: usize>(
    report: &CoprocReport,
    id: u64,
    window: Duration,
    names: [&str; N],
) -> Held<N> {
    let slices = || report.slices.iter().filter(|slice| slice.coproc == id);
    let end = slices().map(|slice| slice.to_ns).max().unwrap_or(0);
    let end = end.saturating_sub(TYPING.as_nanos() as u64);
    let from = end.saturating_sub(window.as_nanos() as u64);
    let mut longest = 0;
    let ns = names.map(|name| {
        let lengths: Vec<u64> = slices()
            .filter(|slice| slice.domain == name && slice.to_ns > from && slice.from_ns < end)
            .map(|slice| slice.to_ns.min(end) - slice.from_ns.max(from))
            .collect();
        let held = lengths.iter().sum();
        longest = longest.max(overrun(lengths));
        held
    });
    let overrun = longest;
    Held { ns, overrun }
}

/// By how much the longest one is longer than the usual ones.
fn overrun(mut lengths: Vec<u64>) -> u64 {
    lengths.sort_unstable();
    let usual = lengths.get(lengths.len() / 2);
    let longest = lengths.last();
    longest
        .zip(usual)
        .map_or(0, |(longest, usual)| longest - usual)
}

/// Slices end late, if at all, when a command is typed: the end of a timeline is the command that asked for it.
pub const TYPING: Duration = Duration::from_millis(300);

/// The longest slice of a coproc in a report's timeline, in ns: by so much a share may be wrong at any moment, since who was served beyond its
/// slice (by an emulator that had to wait for its host, say) pays for it afterwards.
pub fn longest_slice(report: &CoprocReport, id: u64) -> u64 {
    let slices = report.slices.iter().filter(|slice| slice.coproc == id);
    slices
        .map(|slice| slice.to_ns - slice.from_ns)
        .max()
        .unwrap_or(0)
}

/// Asserts that a coproc's times add up to the nanosecond, and the domains' charges to the coproc's.
///
/// # Panics
/// If they don't.
#[track_caller]
pub fn assert_books(report: &CoprocReport) {
    let coproc = coproc(report);
    let parts = ["charge_ns", "overhead_ns", "idle_ns", "fault_ns"].map(|key| number(coproc, key));
    assert_eq!(
        number(coproc, "elapsed_ns"),
        parts.iter().sum::<u64>(),
        "elapsed is charge + overhead + idle + fault: {coproc:?}"
    );
}

/// Runs `condition` every half second until it gives something; for states that no line announces.
///
/// # Errors
/// If it fails, or gives nothing in time.
pub fn poll<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = condition()? {
            return Ok(found);
        }
        ensure!(
            Instant::now() < deadline,
            "{what} didn't come within {timeout:?}"
        );
        std::thread::sleep(Duration::from_millis(500));
    }
}
