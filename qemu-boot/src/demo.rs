//! The demo: two Linux domains share one edu device, and what came of it is judged.
//!
//! Its exit status is part of the promise: a demo that shows a nice picture although a result was wrong
//! would be worse than none. So every claim it makes is a check here, and one that fails is
//! named and fails the whole.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::Artifacts;
use crate::console::{Console, Mark};
use crate::qemu::Qemu;
use crate::report::{
    CoprocReport, Origin, Record, WorkloadLine, WorkloadResult, split_tag, workload_line,
};
use crate::scenario::{GUEST_CONSOLE, Scenario};
use crate::timeline;

/// Typed to switch the console's input to Baton: Ctrl-A three times.
pub const ESCAPE: &str = "\x01\x01\x01";
/// Most domains that the input is passed through on its way to Baton.
const MAX_DOMAINS: usize = 16;
/// What a terminal sends for the Enter key.
pub const ENTER: &str = "\r";
/// A command on Baton's console answers within this, and on a busy host, too.
const ANSWER: Duration = Duration::from_secs(60);
/// Equal domains' shares of the coproc's time, in per cent.
const FAIR: std::ops::RangeInclusive<f64> = 45.0..=55.0;
/// Slices, in whole rounds, from which on shares can be judged. A device that refuses to be switched within an operation makes single slices
/// longer, an edu by a tenth: four rounds are then within the bounds.
const ENOUGH_SLICES: usize = 8;
/// Jobs from which on a run must have that many slices.
const ENOUGH_JOBS: u32 = 40;

/// What the demo is asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Jobs for each domain.
    pub jobs: u32,
    /// Where the timeline goes; `None` stands for the usual place.
    pub svg: Option<PathBuf>,
    /// Longest time for the whole run.
    pub limit: Duration,
}

/// Domains by name and how their workloads ended.
pub type Results = BTreeMap<String, WorkloadResult>;

/// Boots Linux without Baton and runs the workload.
///
/// # Errors
/// If it can't be run to its end or a result was wrong.
pub fn native(artifacts: &Artifacts, options: &Options) -> Result<()> {
    println!(
        "Booting Debian's kernel ({}) directly, without Baton.",
        artifacts.kernel.version
    );
    let bootargs = format!(
        "{GUEST_CONSOLE} quiet panic=-1 workload.name=native workload.jobs={} workload.seed=1",
        options.jobs
    );
    let qemu = Qemu::native(artifacts, "demo-native", &bootargs, options.limit)?;
    let results = follow(&qemu, &["native".to_owned()], options)?;
    qemu.kill();
    print!("\n{}", table(&results, None));
    verdict(&check(&results, &["native".to_owned()], options.jobs, None))
}

/// Boots Baton with two domains and shows what came of it.
///
/// # Errors
/// If it can't be run to its end or a check fails.
pub fn shared(artifacts: &Artifacts, options: &Options) -> Result<()> {
    println!(
        "Booting Baton with two domains ({}) that share one edu device.",
        artifacts.kernel.version
    );
    let scenario = Scenario::sharing_edu("demo", 2, options.jobs);
    let names: Vec<String> = (1..=scenario.domains.len())
        .map(|n| format!("d{n}"))
        .collect();
    let qemu = Qemu::baton(artifacts, &scenario, options.limit)?;
    println!("The whole console goes to {}", qemu.log().display());
    let results = follow(&qemu, &names, options)?;
    let report = query(&qemu)?;
    qemu.kill();

    print!("\n{}", table(&results, Some(&report)));
    println!(
        "\nWho held the coproc:\n{}",
        timeline::text(&report.slices, 72)
    );
    let svg = options
        .svg
        .clone()
        .unwrap_or_else(|| artifacts.workspace().target("demo").join("timeline.svg"));
    if let Some(dir) = svg.parent() {
        std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    }
    let picture = timeline::svg("Who held the edu device", &report.slices);
    std::fs::write(&svg, picture).with_context(|| format!("writing {}", svg.display()))?;
    println!("The same as a picture: {}", svg.display());
    verdict(&check(&results, &names, options.jobs, Some(&report)))
}

/// Switches the console's input to Baton, from wherever it is: each escape moves it on by one, and Baton says to whom.
///
/// # Errors
/// If QEMU no longer reads, or Baton doesn't say that it has the input.
pub fn enter_baton(console: &Console) -> Result<()> {
    for _ in 0..=MAX_DOMAINS {
        let mark = console.mark();
        console.send(ESCAPE)?;
        let (_, arrived) = console.wait_map(mark, "who gets the input", ANSWER, |line| {
            let (Origin::Baton, text) = split_tag(line) else {
                return None;
            };
            let target = text.trim().split("input to ").nth(1)?;
            Some(target == "baton")
        })?;
        if arrived {
            return Ok(());
        }
    }
    bail!(
        "after {} escapes the input still isn't Baton's",
        MAX_DOMAINS + 1
    )
}

/// Types a command at Baton's console (which has the input, see [`enter_baton`]) and gives the
/// answer's lines, without tags and without the closing `ok`.
///
/// # Errors
/// If the answer is an error or doesn't come.
pub fn ask(console: &Console, command: &str) -> Result<Vec<String>> {
    ask_within(console, command, ANSWER)
}

/// The same, for whoever has less time.
///
/// # Errors
/// If the answer is an error or doesn't come within `limit`.
pub fn ask_within(console: &Console, command: &str, limit: Duration) -> Result<Vec<String>> {
    let mark = console.mark();
    console.send(&format!("{command}{ENTER}"))?;
    let mut answer = Vec::new();
    let (_, outcome) =
        console.wait_map(mark, &format!("the answer to '{command}'"), limit, |line| {
            let (Origin::Baton, text) = split_tag(line) else {
                return None;
            };
            let text = text.trim();
            if text == "ok" || text.starts_with("ok ") {
                Some(Ok(()))
            } else if text.starts_with("error") {
                Some(Err(text.to_owned()))
            } else {
                answer.push(text.to_owned());
                None
            }
        })?;
    match outcome {
        Ok(()) => Ok(answer),
        Err(text) => bail!("'{command}' on Baton's console: {text}"),
    }
}

/// Switches the console's input to Baton and asks about its coprocs.
///
/// # Errors
/// If it doesn't answer.
pub fn query(console: &Console) -> Result<CoprocReport> {
    enter_baton(console)?;
    let mut report = CoprocReport::default();
    for command in ["coproc query", "coproc timeline"] {
        for line in ask(console, command)? {
            report.take(&line);
        }
    }
    Ok(report)
}

/// Waits for every domain's workload to end, showing how far they are.
///
/// # Errors
/// If a workload or a kernel gives up, or the time is over.
pub fn follow(console: &Console, names: &[String], options: &Options) -> Result<Results> {
    let mut progress: BTreeMap<String, u64> = names.iter().map(|name| (name.clone(), 0)).collect();
    let mut results = Results::new();
    let mut meter = Meter::new(options.jobs);
    let what = format!("the end of {}", names.join(" and "));
    let (_, outcome) = console.wait_map(Mark::START, &what, options.limit, |line| {
        let (origin, text) = split_tag(line);
        let name = match origin {
            Origin::Domain(name) => name.to_owned(),
            Origin::Untagged => "native".to_owned(),
            Origin::Baton => return fatal(text).then(|| Err(line.to_owned())),
        };
        match workload_line(text) {
            Some(WorkloadLine::Progress(jobs)) => {
                progress.insert(name, jobs);
            }
            Some(WorkloadLine::Done(Some(result))) => {
                progress.insert(name.clone(), result.jobs);
                results.insert(name, result);
            }
            Some(WorkloadLine::Done(None) | WorkloadLine::Failed(_)) => {
                return Some(Err(line.to_owned()));
            }
            None if text.contains("Kernel panic") => return Some(Err(line.to_owned())),
            None => return None,
        }
        meter.show(&progress);
        names
            .iter()
            .all(|name| results.contains_key(name))
            .then_some(Ok(()))
    })?;
    meter.finish();
    match outcome {
        Ok(()) => Ok(results),
        Err(line) => bail!(
            "the run failed: {line}\n(all output is in {})",
            console.log().display()
        ),
    }
}

/// Whether a line of EL2's is its end.
fn fatal(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    text.starts_with("panic") || text.starts_with("fatal") || text.contains("unhandled exception")
}

/// The line that shows how far the domains are: rewritten in place on a terminal, otherwise printed
/// now and then.
struct Meter {
    jobs: u32,
    terminal: bool,
    started: Instant,
    shown: Option<Instant>,
}

impl Meter {
    fn new(jobs: u32) -> Self {
        Self {
            jobs,
            terminal: std::io::stdout().is_terminal(),
            started: Instant::now(),
            shown: None,
        }
    }

    fn show(&mut self, progress: &BTreeMap<String, u64>) {
        let pause = if self.terminal {
            Duration::from_millis(100)
        } else {
            Duration::from_secs(5)
        };
        if self.shown.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.shown = Some(Instant::now());
        let mut line = format!("{:4} s", self.started.elapsed().as_secs());
        for (name, done) in progress {
            let _ = write!(
                line,
                "   {name} {} {done:>3}/{} jobs",
                bar(*done, self.jobs),
                self.jobs
            );
        }
        let end = if self.terminal { "\x1b[K\r" } else { "\n" };
        print!("{line}{end}");
        let _ = std::io::stdout().flush();
    }

    fn finish(&self) {
        if self.terminal {
            print!("\x1b[K");
        }
        println!(
            "Finished after {:.1} s.",
            self.started.elapsed().as_secs_f64()
        );
    }
}

fn bar(done: u64, of: u32) -> String {
    let filled = (done.saturating_mul(20) / u64::from(of.max(1))).min(20);
    (0..20)
        .map(|cell| if cell < filled { '━' } else { '·' })
        .collect()
}

/// The results as a table.
pub fn table(results: &Results, report: Option<&CoprocReport>) -> String {
    let mut out = String::new();
    let _ = writeln!(
        out,
        "  {:<8} {:>6} {:>6} {:>11} {:>10} {:>11} {:>9}  share of coproc time (while both want it)",
        "domain", "jobs", "wrong", "factorials", "DMA bytes", "interrupts", "seconds"
    );
    for (name, result) in results {
        let share = report
            .and_then(|report| report.share("0", name))
            .map_or_else(|| "-".to_owned(), |share| format!("{share:.1} %"));
        let contended = report
            .and_then(|report| report.contended("0")?.shares.get(name).copied())
            .map_or_else(String::new, |share| format!(" ({share:.1} %)"));
        let _ = writeln!(
            out,
            "  {name:<8} {:>6} {:>6} {:>11} {:>10} {:>11} {:>9.1}  {share}{contended}",
            result.jobs,
            result.wrong,
            result.factorials,
            result.dma_bytes,
            result.interrupts,
            result.elapsed_ms as f64 / 1e3
        );
    }
    for coproc in report.iter().flat_map(|report| &report.coprocs) {
        let text = |key| coproc.text(key).unwrap_or("-").to_owned();
        let time = |key| coproc.number(key).map_or_else(|| "-".to_owned(), duration);
        let _ = writeln!(
            out,
            "\n  coproc {} ({}): {} switches, {} refusals; a switch took {} / {} / {} (least / mean / most)",
            text("id"),
            text("driver"),
            text("switches"),
            text("refusals"),
            time("switch_min_ns"),
            time("switch_mean_ns"),
            time("switch_max_ns")
        );
        let _ = writeln!(
            out,
            "  elapsed {} = charged {} + overhead {} + idle {} + fault {}",
            time("elapsed_ns"),
            time("charge_ns"),
            time("overhead_ns"),
            time("idle_ns"),
            time("fault_ns")
        );
    }
    out
}

/// A time with a fitting unit.
fn duration(ns: u64) -> String {
    match ns {
        0..=9_999 => format!("{ns} ns"),
        10_000..=9_999_999 => format!("{:.1} µs", ns as f64 / 1e3),
        10_000_000..=9_999_999_999 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// One thing that must hold, and whether it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The claim, with the numbers.
    pub claim: String,
    /// Whether it holds.
    pub holds: bool,
}

/// Everything that the demo claims, judged by the results (and by Baton's own books, if it ran).
pub fn check(
    results: &Results,
    names: &[String],
    jobs: u32,
    report: Option<&CoprocReport>,
) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut claim = |claim: String, holds: bool| checks.push(Check { claim, holds });
    for name in names {
        let Some(result) = results.get(name) else {
            claim(format!("{name} reported a result"), false);
            continue;
        };
        claim(
            format!("{name} did all {jobs} jobs ({})", result.jobs),
            result.jobs >= u64::from(jobs),
        );
        claim(
            format!("{name} saw no wrong result ({})", result.wrong),
            result.wrong == 0,
        );
        let contended = report.and_then(|report| report.contended("0"));
        match contended {
            Some(contended) if contended.slices >= ENOUGH_SLICES => {
                let share = contended.shares.get(name).copied().unwrap_or(0.0);
                claim(
                    format!(
                        "{name}'s share is within 45–55 % while both want the coproc ({share:.1} %)"
                    ),
                    FAIR.contains(&share),
                );
            }
            // A short run says nothing about shares; one that claims to be long must have them.
            _ if report.is_some() && jobs >= ENOUGH_JOBS => {
                claim(
                    format!("{name} had to share long enough to judge its share"),
                    false,
                );
            }
            _ => {}
        }
    }
    if let Some(report) = report {
        let Some(coproc) = report.coprocs.first() else {
            claim("Baton told about its coproc".to_owned(), false);
            return checks;
        };
        let switches = coproc.number("switches");
        claim(
            format!(
                "the coproc was switched between the domains ({})",
                switches.unwrap_or(0)
            ),
            switches.is_some_and(|switches| switches > 0),
        );
        if let Some((elapsed, parts)) = books(coproc) {
            claim(
                format!("the coproc's time adds up to the nanosecond ({parts} of {elapsed} ns)"),
                elapsed == parts,
            );
        } else {
            claim("Baton told all of the coproc's times".to_owned(), false);
        }
        claim(
            format!(
                "the timeline shows every domain ({} slices)",
                report.slices.len()
            ),
            names
                .iter()
                .all(|name| report.slices.iter().any(|slice| slice.domain == *name)),
        );
    }
    checks
}

/// A coproc's elapsed time and the sum of its parts, in ns.
fn books(coproc: &Record) -> Option<(u64, u64)> {
    let mut sum = 0_u64;
    for key in ["charge_ns", "overhead_ns", "idle_ns", "fault_ns"] {
        sum = sum.checked_add(coproc.number(key)?)?;
    }
    Some((coproc.number("elapsed_ns")?, sum))
}

/// Prints the checks; an error if one doesn't hold.
fn verdict(checks: &[Check]) -> Result<()> {
    println!();
    for check in checks {
        println!("  {} {}", if check.holds { "✓" } else { "✗" }, check.claim);
    }
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| !check.holds)
        .map(|check| check.claim.as_str())
        .collect();
    if failed.is_empty() {
        println!("\nAll {} checks hold.", checks.len());
        Ok(())
    } else {
        bail!(
            "{} of {} checks failed: {}",
            failed.len(),
            checks.len(),
            failed.join("; ")
        )
    }
}

#[cfg(test)]
mod tests;
