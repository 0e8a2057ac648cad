//! What is changed on the console while both domains are busy, and what comes of it.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, coproc, number, text, vcoproc};
use qemu_boot::report::{CoprocReport, Record};

use crate::sharing;

const NAMES: [&str; 2] = ["d1", "d2"];

/// The domains' charges between two reports, in ns.
fn charges(before: &CoprocReport, after: &CoprocReport) -> [u64; 2] {
    NAMES.map(|name| {
        let at = |report| number(vcoproc(report, name), "charge_ns");
        at(after) - at(before)
    })
}

/// Waits until the coproc was switched this many times more, both domains being at work.
fn after_switches(machine: &Machine, since: &CoprocReport, more: u64) -> Result<CoprocReport> {
    let target = number(coproc(since), "switches") + more;
    loop {
        // Each line of progress is a good moment to look.
        let mark = machine.mark();
        machine.wait_map(mark, "progress of a domain", PATIENCE, |line| {
            line.contains("workload: progress").then_some(())
        })?;
        let report = machine.query()?;
        if number(coproc(&report), "switches") >= target {
            return Ok(report);
        }
    }
}

/// Round robin first; then, live, the weighted algorithm at 3 : 1: shares as configured before and after (edu's slices being a
/// second: ±5 points), nothing lost, nothing wrong.
#[test]
fn an_algorithm_exchanged_live_gives_shares_by_weight() -> Result<()> {
    let options = "mode=stress jobs=90";
    let machine = Machine::boot(&sharing("live", &[options, options]), LIMIT)?;
    for name in NAMES {
        machine.wait_domain(name, "progress", PATIENCE, |text| {
            text.starts_with("workload: progress").then_some(())
        })?;
    }
    machine.ask("coproc set 0 scheduler weighted")?;
    machine.ask("coproc set 0 d1.weight 3")?;
    // A turn or two for what was decided before.
    let settled = after_switches(&machine, &machine.query()?, 3)?;
    assert_eq!(text(coproc(&settled), "scheduler"), "weighted");
    let weighted = after_switches(&machine, &settled, 10)?;
    let [first, second] = charges(&settled, &weighted);
    let share = first as f64 * 100.0 / (first + second) as f64;
    assert!(
        (70.0..=80.0).contains(&share),
        "{share:.1} % of {first} + {second} ns"
    );
    assert_books(&weighted);

    machine.ask("coproc set 0 scheduler rr")?;
    for name in NAMES {
        let done: Record = machine.done(name)?;
        assert_eq!(number(&done, "jobs"), 90, "{done:?}");
        assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    }
    let end = machine.query()?;
    assert_eq!(text(coproc(&end), "scheduler"), "rr");
    assert_books(&end);
    machine.finish()
}
