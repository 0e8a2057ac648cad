//! What is changed on the console while both domains are busy, and what comes of it.

use anyhow::Result;
use baton_tests::{
    LIMIT, Machine, PATIENCE, Rounds, after_switches, assert_books, coproc, number, text,
};
use qemu_boot::report::Record;

use crate::sharing;

const NAMES: [&str; 2] = ["d1", "d2"];
/// 15 seconds of the device's time and more; what is asked of d1 takes about 9.
const JOBS: u64 = 75;

/// Round robin first; then, live, the weighted algorithm at 3 : 1: shares as configured (edu's slices being so long: ±5 points), nothing
/// lost, nothing wrong.
#[test]
fn an_algorithm_exchanged_live_gives_shares_by_weight() -> Result<()> {
    let options = format!("mode=stress jobs={JOBS} wait=1");
    let mut scenario = sharing("live", &[&options, &options]);
    scenario.coprocs[0].slice_us = 500_000;
    let machine = Machine::boot(&scenario, LIMIT)?;
    // Both at once, however long their kernels take.
    for name in NAMES {
        machine.release(name)?;
    }
    for name in NAMES {
        machine.wait_domain(name, "progress", PATIENCE, |text| {
            text.starts_with("workload: progress").then_some(())
        })?;
    }
    machine.ask("coproc set 0 scheduler weighted")?;
    machine.ask("coproc set 0 d1.weight 3")?;
    // A turn or two for what was decided before.
    let settled = after_switches(&machine, &machine.query()?, 0, 2)?;
    assert_eq!(text(coproc(&settled), "scheduler"), "weighted");
    let (rounds, weighted) = Rounds::wait(&machine, &settled, 0, "d2", 4)?;
    rounds.assert_share("d1", 75.0);
    assert_books(&weighted);

    machine.ask("coproc set 0 scheduler rr")?;
    for name in NAMES {
        let done: Record = machine.done(name)?;
        assert_eq!(number(&done, "jobs"), JOBS, "{done:?}");
        assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    }
    let end = machine.query()?;
    assert_eq!(text(coproc(&end), "scheduler"), "rr");
    assert_books(&end);
    machine.finish()
}
