//! A coprocessor that is recorded while two domains share it, and the record replayed here, without machine or device.

use std::sync::OnceLock;

use anyhow::{Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, Replayer, coproc, number, vcoproc};
use coproc_core::record::{ReplayError, Summary, replay};
use qemu_boot::report::{CoprocReport, Record};
use qemu_boot::scenario::{Action, Edit};

use crate::sharing;

const JOBS: u64 = 10;
const NAMES: [&str; 2] = ["d1", "d2"];

/// What the run left behind.
struct Outcome {
    record: String,
    done: Vec<Record>,
    /// After the last input of the record that is a domain's.
    end: CoprocReport,
}

fn outcome() -> &'static Outcome {
    static OUTCOME: OnceLock<Result<Outcome, String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| run().map_err(|error| format!("{error:#}")));
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => panic!("the run that this test judges failed: {error}"),
    }
}

fn run() -> Result<Outcome> {
    let options = format!("mode=stress jobs={JOBS} wait=1");
    let mut scenario = sharing("recording", &[&options, &options]);
    // A job takes some 200 ms.
    scenario.coprocs[0].slice_us = 300_000;
    scenario.edits.push(Edit {
        node: "/chosen/coprocs/coproc@0".into(),
        action: Action::Set("baton,record".into(), Vec::new()),
    });
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in NAMES {
        machine.release(name)?;
    }
    for name in NAMES {
        machine.wait_domain(name, "progress", PATIENCE, |text| {
            text.starts_with("workload: progress").then_some(())
        })?;
    }
    // What management does is an input too.
    for command in [
        "coproc set 0 slice-us 500000",
        "coproc set 0 scheduler weighted",
        "coproc set 0 d1.weight 3",
    ] {
        machine.ask(command)?;
    }
    let done = NAMES
        .iter()
        .map(|name| machine.done(name))
        .collect::<Result<Vec<_>>>()?;
    let end = machine.query()?;
    machine.ask("coproc detach 0 d2")?;
    let record = machine.record(0)?;
    std::fs::write(machine.log().with_extension("record"), &record)?;
    machine.finish()?;
    Ok(Outcome { record, done, end })
}

/// Nothing that the domains do gets past the record, and they don't notice it.
#[test]
fn recorded_domains_finish_their_jobs_and_reach_nothing_directly() {
    let outcome = outcome();
    for done in &outcome.done {
        assert_eq!(number(done, "jobs"), JOBS, "{done:?}");
        assert_eq!(number(done, "wrong"), 0, "{done:?}");
        assert!(number(done, "interrupts") >= JOBS, "{done:?}");
    }
    for name in NAMES {
        assert_eq!(number(vcoproc(&outcome.end, name), "touches"), 0);
    }
}

/// The real framework, driver and algorithms do on this host what they did at EL2, call by call.
#[test]
fn a_record_of_a_machine_replays_on_the_host_with_identical_results() {
    let outcome = outcome();
    let summary: Summary = match replay(&outcome.record, &Replayer) {
        Ok(summary) => summary,
        Err(error) => panic!("{error}"),
    };
    assert!(!summary.full, "{summary:?}");
    // What the replay counted is what the machine told.
    let emulated = NAMES.map(|name| number(vcoproc(&outcome.end, name), "emulated"));
    assert!(summary.accesses >= emulated.iter().sum(), "{summary:?}");
    let switches = number(coproc(&outcome.end), "switches");
    assert!(summary.slices >= switches && switches >= 4, "{summary:?}");
    assert!(summary.interrupts >= JOBS, "{summary:?}");
    assert!(summary.lines >= 4 * JOBS, "{summary:?}");
    for input in [">tune ", ">algorithm weighted", ">parameters ", ">detach "] {
        assert!(outcome.record.contains(input), "{input}");
    }
}

/// One bit of one register that the device showed, one answer that a domain got, one interrupt: each changed, each found.
#[test]
fn a_changed_answer_in_a_machines_record_is_detected() -> Result<()> {
    let record = &outcome().record;
    let lines: Vec<_> = record.lines().collect();
    // The last value that a domain read, the last line that went up for a domain, and the last interrupt.
    let last = |prefix: &str, suffix: &str| {
        let found = |line: &&str| line.starts_with(prefix) && line.ends_with(suffix);
        lines.iter().rposition(found)
    };
    let value = last("<v ", "").map(|at| (at, format!("{}0", lines[at])));
    let value = value.filter(|(at, _)| lines[*at] != "<v 0");
    let level = last("l ", " 1").map(|at| (at, lines[at].replace(" 1", " 0")));
    let asserted = last("a ", " 1").map(|at| (at, lines[at].replace(" 1", " 0")));
    let changes: Vec<_> = [value, level, asserted].into_iter().flatten().collect();
    ensure!(changes.len() >= 2, "{changes:?}");
    for (at, line) in changes {
        let mut changed: Vec<_> = lines.clone();
        changed[at] = &line;
        let error = replay(&(changed.join("\n") + "\n"), &Replayer);
        match error {
            Err(ReplayError::Differs { line, .. }) => ensure!(line > at, "line {line} for {at}"),
            other => anyhow::bail!("'{}' became '{line}': {other:?}", lines[at]),
        }
    }
    Ok(())
}
