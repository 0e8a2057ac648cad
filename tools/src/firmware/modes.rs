//! The modes: what the program does with its firmware core, from start to last line.

use super::driver::{Driver, LOST};
use super::host::{Host, Window};
use super::options::{Mode, Options};
use super::{jobs, limits};
use crate::random::hash;
use crate::report;
use fw_core_abi::{host, status};
use fw_logic::probes::{
    LEAKED, LOST as CONTEXT_LOST, PROBED, PROBES, REPORT_STRIDE, REPORTS, ROUNDS, came, holds, task,
};
use fw_logic::protocol::{READY, WORK, kind};
use std::io;
use std::time::Duration;

/// Runs the mode in `options` to its end and prints its last line.
///
/// # Errors
/// When the system fails, or the firmware does what leaves nothing to be judged.
pub fn run<H: Host>(machine: H, options: &Options) -> io::Result<()> {
    let mut driver = Driver::new(machine, options.timeout);
    if options.paravirtual {
        driver.accept_yield()?;
    }
    let started = driver.host.now();
    if options.mode != Mode::Limits {
        driver.load_named(&options.image)?;
    }
    let extra = match options.mode {
        Mode::Jobs => jobs::run(&mut driver, options)?,
        Mode::Meter => meter(&mut driver, options)?,
        Mode::Watch => watch(&mut driver, options)?,
        Mode::Hostile => hostile(&mut driver, options)?,
        Mode::Limits => limits::run(&mut driver)?,
    };
    let elapsed = driver.host.now() - started;
    let mode = options.mode.to_string();
    let line = report::done(&options.name, &mode, &driver.totals, elapsed, &extra);
    driver.host.print(&line);
    Ok(())
}

/// Rounds of a second until the time is over.
fn seconds(options: &Options) -> impl Iterator<Item = Duration> {
    let mut left = options.duration();
    std::iter::from_fn(move || {
        let step = left.min(Duration::from_secs(1));
        left -= step;
        (!step.is_zero()).then_some(step)
    })
}

fn meter<H: Host>(driver: &mut Driver<H>, options: &Options) -> io::Result<String> {
    driver.start(0, 0);
    driver.wait_ready(kind::METER)?;
    let started = driver.host.now();
    let first = driver.host.read64(Window::Shared, WORK);
    for time in seconds(options) {
        driver.host.sleep(time);
        let work = driver.host.read64(Window::Shared, WORK);
        driver
            .host
            .print(&format!("workload: progress jobs={work} wrong=0"));
        if let Some(end) = driver.ended() {
            return Err(io::Error::other(format!("the firmware ended: {end}")));
        }
    }
    let last = driver.host.read64(Window::Shared, WORK);
    let elapsed = driver.host.now() - started;
    driver.stop();
    let work = last.saturating_sub(first);
    driver.totals.jobs = work;
    let rate = u128::from(work) * 1000 / elapsed.as_millis().max(1);
    Ok(format!(
        "image={} work={work} per_second={rate}",
        options.image
    ))
}

/// A firmware that misbehaves: either its domain loses the core, and everything reads all-ones, or it is as good as a busy one.
fn watch<H: Host>(driver: &mut Driver<H>, options: &Options) -> io::Result<String> {
    let kind = match options.image.as_str() {
        "refuses" => kind::REFUSES,
        "no-yield" | "meter" => kind::METER,
        _ => kind::HUNG,
    };
    driver.start(0, 0);
    let ready = READY | u64::from(kind);
    let timeout = driver.timeout();
    let outcome = driver.wait_for(timeout, |driver| {
        let found = driver.register64(host::OUTBOX);
        (found == ready || driver.status() == LOST).then_some(())
    })?;
    if outcome.is_none() {
        let state = driver.describe();
        return Err(io::Error::other(format!(
            "it doesn't say that it runs: {state}"
        )));
    }
    driver
        .host
        .print(&format!("workload: firmware ready kind={kind}"));
    let lost = driver.wait_for(options.duration(), |driver| {
        (driver.status() != status::RUNNING).then_some(())
    })?;
    let registers = driver.describe();
    driver
        .host
        .print(&format!("workload: registers {registers}"));
    driver.totals.jobs = 1;
    if lost.is_some() {
        let id = driver.register(host::ID);
        check_status(driver, "lost-status", LOST);
        driver.check("lost-id", LOST.into(), id.into());
        let outbox = driver.register64(host::OUTBOX);
        driver.check("lost-outbox", u64::MAX, outbox);
        // Writing to what is lost does nothing and hurts nobody.
        driver.start(0, 0);
        check_status(driver, "lost-status-after-start", LOST);
        let image = driver.host.read64(Window::Image, 0);
        let shared = driver.host.read64(Window::Shared, 0);
        driver.check("lost-image", u64::MAX, image);
        driver.check("lost-shared", u64::MAX, shared);
    } else {
        driver.stop();
        check_status(driver, "stopped", status::STOPPED);
    }
    let lost = u8::from(lost.is_some());
    Ok(format!("image={} lost={lost}", options.image))
}

fn check_status<H: Host>(driver: &mut Driver<H>, what: &str, expected: u32) {
    let found = driver.status();
    driver.check(what, expected.into(), found.into());
}

/// An instruction as one word.
fn word(text: &str) -> String {
    let last = text.rsplit('\n').next().unwrap_or(text);
    last.replace(", ", ",").replace(' ', "_")
}

fn hostile<H: Host>(driver: &mut Driver<H>, options: &Options) -> io::Result<String> {
    for index in 0..2 * PROBES.len() as u64 {
        driver.host.write64(Window::Shared, REPORTS + index * 8, 0);
    }
    for offset in [ROUNDS, CONTEXT_LOST, LEAKED] {
        driver.host.write64(Window::Shared, offset, 0);
    }
    let seed = hash(&options.name) ^ options.seed;
    driver.start(task::PROBES, seed);
    let timeout = driver.timeout();
    let outcome = driver.wait_for(timeout, |driver| {
        let probed = driver.register64(host::OUTBOX) == PROBED;
        probed.then_some(None).or_else(|| driver.ended().map(Some))
    })?;
    let reports: Vec<(u64, u64)> = (REPORTS..)
        .step_by(REPORT_STRIDE as usize)
        .take(PROBES.len())
        .map(|at| {
            let came = driver.host.read64(Window::Shared, at);
            (came, driver.host.read64(Window::Shared, at + 8))
        })
        .collect();
    if !matches!(outcome, Some(None)) {
        let first = reports.iter().position(|report| report.0 == came::NOTHING);
        let text = first.map_or("nothing", |index| PROBES[index].0);
        let state = driver.describe();
        let message = format!("the firmware ended at {}: {state}", word(text));
        return Err(io::Error::other(message));
    }
    driver.totals.jobs = PROBES.len() as u64;
    for ((text, expectation), (came, value)) in PROBES.iter().zip(&reports) {
        if !holds(*expectation, *came, *value) {
            let expected = format!("{expectation:?}");
            driver.wrong(&word(text), &expected, &format!("{came}:{value:#x}"));
        }
    }
    let count = |kind| reports.iter().filter(|report| report.0 == kind).count();
    let leaked = driver.host.read64(Window::Shared, LEAKED);
    driver.check("leaked", 0, leaked);

    // It still runs, whatever it did, and its context is its own.
    let mut rounds = 0;
    let mut stalled = 0;
    for time in seconds(options) {
        driver.host.sleep(time);
        let found = driver.host.read64(Window::Shared, ROUNDS);
        stalled += u64::from(found <= rounds);
        rounds = found;
    }
    let lost = driver.host.read64(Window::Shared, CONTEXT_LOST);
    driver.check("context-lost", 0, lost);
    driver.stop();
    Ok(format!(
        "probes={} undefined={} executed={} exceptions={} leaked={leaked} rounds={rounds} stalled={stalled} lost={lost}",
        PROBES.len(),
        count(came::UNDEFINED),
        count(came::EXECUTED),
        count(came::EXCEPTION),
    ))
}

#[cfg(test)]
mod tests;
