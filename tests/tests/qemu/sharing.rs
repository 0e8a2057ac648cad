//! Two domains that want the same device all the time, each the whole of it.
//!
//! One run serves all the claims about it: they look at the same domains and the same books.

use std::sync::OnceLock;

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, coproc, number, text, vcoproc};
use qemu_boot::report::{CoprocReport, Record, Slice};

use crate::sharing;

const NAMES: [&str; 2] = ["d1", "d2"];
const JOBS: u64 = 48;

/// What the run left behind.
struct Outcome {
    /// When both were at work.
    early: CoprocReport,
    /// When both still were.
    late: CoprocReport,
    /// When both had ended.
    end: CoprocReport,
    done: Vec<Record>,
    /// All lines of both domains.
    output: Vec<String>,
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
    let options = format!("mode=stress jobs={JOBS}");
    let machine = Machine::boot(&sharing("sharing", &[&options, &options]), LIMIT)?;
    // Both at work: each has reported progress.
    for name in NAMES {
        machine.wait_domain(name, "progress", PATIENCE, |text| {
            text.starts_with("workload: progress").then_some(())
        })?;
    }
    let early = machine.query()?;
    // Both still at work: the first one has little left to do.
    machine.wait("the last jobs", PATIENCE, |_, text| {
        let progress = text.strip_prefix("workload: progress ")?;
        (Record::parse(progress).number("jobs")? >= JOBS - 8).then_some(())
    })?;
    let late = machine.query()?;
    let done = NAMES
        .iter()
        .map(|name| machine.done(name))
        .collect::<Result<Vec<_>>>()?;
    let end = machine.query()?;
    let output = NAMES.iter().flat_map(|name| machine.output(name)).collect();
    machine.finish()?;
    Ok(Outcome {
        early,
        late,
        end,
        done,
        output,
    })
}

/// Both finish ≥ 40 jobs without one wrong result, interrupts and all.
#[test]
fn both_domains_finish_their_jobs_and_every_result_is_right() {
    let outcome = outcome();
    for done in &outcome.done {
        assert_eq!(number(done, "jobs"), JOBS, "{done:?}");
        const { assert!(JOBS >= 40) };
        assert_eq!(number(done, "wrong"), 0, "{done:?}");
        assert_eq!(number(done, "factorials"), JOBS, "{done:?}");
        assert!(number(done, "dma_bytes") > JOBS * 1000, "{done:?}");
        assert!(number(done, "interrupts") >= JOBS, "{done:?}");
    }
    let wrong: Vec<_> = outcome
        .output
        .iter()
        .filter(|line| line.contains("WRONG"))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// They do so in turns, not one after the other.
#[test]
fn the_domains_alternate_on_the_device() {
    let slices = &outcome().end.slices;
    let turns = slices
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.domain != b.domain))
        .count();
    assert!(turns >= 10, "{turns} turns in {slices:#?}");
    for pair in slices.windows(2) {
        let [a, b] = pair else { continue };
        assert!(
            a.from_ns <= a.to_ns && a.to_ns <= b.from_ns,
            "two hold the device at once: {a:?} {b:?}"
        );
    }
    let switches = number(coproc(&outcome().end), "switches");
    assert!(
        switches as usize >= turns,
        "{switches} switches, {turns} turns"
    );
}

/// An interrupt goes to the domain whose work it announces: what a domain took is what was passed on to it, and at most one
/// for each switch that was found pending in the device and went with the saved context.
///
/// That each came once, to its owner and for its work is what the domains check at every job; see the wrong results.
#[test]
fn interrupts_are_attributed() {
    let outcome = outcome();
    for (name, done) in NAMES.iter().zip(&outcome.done) {
        let vcoproc = vcoproc(&outcome.end, name);
        let (taken, passed_on) = (number(done, "interrupts"), number(vcoproc, "interrupts"));
        let saved = number(vcoproc, "slices");
        assert!(
            (passed_on..=passed_on + saved).contains(&taken),
            "{name} took {taken}: {vcoproc:?}"
        );
    }
}

/// Equal domains have equal shares of the coproc's time while both want it.
#[test]
fn shares_of_two_equal_domains_are_within_45_and_55_per_cent() {
    let outcome = outcome();
    let contended = outcome.end.contended("0").expect("both want it");
    eprintln!("{contended:?}");
    assert!(contended.slices >= 10, "too little: {contended:?}");
    for name in NAMES {
        let share = contended.shares[name];
        assert!((45.0..=55.0).contains(&share), "{name}: {contended:?}");
    }
    // Over the whole run it's the same, but for the start and the end, when one was alone.
    for name in NAMES {
        let share = outcome.end.share("0", name).expect("a share");
        assert!((42.0..=58.0).contains(&share), "{name}: {share:.2} %");
    }
}

/// No nanosecond is lost or counted twice, at any time.
#[test]
fn the_books_balance_to_the_nanosecond() {
    let outcome = outcome();
    let reports = [&outcome.early, &outcome.late, &outcome.end];
    for report in reports {
        assert_books(report);
        let coproc = coproc(report);
        assert_eq!(number(coproc, "fault_ns"), 0, "{coproc:?}");
    }
    for pair in reports.windows(2) {
        let [before, after] = pair else { continue };
        for key in ["elapsed_ns", "charge_ns", "overhead_ns", "idle_ns"] {
            let (before, after) = (number(coproc(before), key), number(coproc(after), key));
            assert!(before <= after, "{key} went from {before} to {after}");
        }
    }
    // The timeline tells the same story as the ledger: what a domain is charged with is the time it held the device.
    for name in NAMES {
        let held = |slices: &[Slice]| -> u64 {
            let own = slices.iter().filter(|slice| slice.domain == name);
            own.map(|slice| slice.to_ns - slice.from_ns).sum()
        };
        let charged = number(vcoproc(&outcome.end, name), "charge_ns");
        // The timeline is asked for a moment later, and the last slice may still run.
        let held = held(&outcome.end.slices);
        assert!(
            held >= charged && held - charged < 1_000_000_000,
            "{name}: charged {charged} ns, held {held} ns"
        );
    }
}

/// While current, a domain reaches the registers without Baton: at most the first touch of a slice exits.
#[test]
fn at_most_one_exit_per_slice() {
    let outcome = outcome();
    for name in NAMES {
        let vcoproc = vcoproc(&outcome.end, name);
        assert!(number(vcoproc, "slices") >= 5, "{vcoproc:?}");
        assert!(number(vcoproc, "max_exits_per_slice") <= 1, "{vcoproc:?}");
        // One more than the slices that are over: the one that runs.
        assert!(
            number(vcoproc, "touches") <= number(vcoproc, "slices") + 1,
            "{vcoproc:?}"
        );
    }
}

/// Nobody's DMA left the domain's memory.
#[test]
fn work_within_the_rules_causes_no_iommu_faults() {
    for name in NAMES {
        let vcoproc = vcoproc(&outcome().end, name);
        assert_eq!(number(vcoproc, "iommu_faults"), 0);
        assert_eq!(text(vcoproc, "last_fault_address"), "-");
    }
}
