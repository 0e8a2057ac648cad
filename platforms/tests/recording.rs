//! A record of a machine, replayed: the driver of edu, the framework and round robin do what they did there.
//!
//! `recordings/edu.record` is the beginning of what two Linux domains did with QEMU's edu (`docs/guides/record.md` says how it is made).
//! A difference isn't always a fault; but it is never an accident.

use coproc_core::algorithm::Tuning;
use coproc_core::record::{Factory, ReplayError, replay};
use coproc_core::{Algorithm, Driver};

const RECORD: &str = include_str!("recordings/edu.record");

struct Replayer;

impl Factory for Replayer {
    fn driver(&self, name: &str) -> Option<Box<dyn Driver>> {
        platforms::coproc::by_name(name)
    }
    fn algorithm(&self, name: &str, tuning: &Tuning) -> Option<Box<dyn Algorithm>> {
        sched_algos::by_name(name, tuning)
    }
}

#[test]
fn edu_does_what_it_did_on_the_machine() {
    let summary = match replay(RECORD, &Replayer) {
        Ok(summary) => summary,
        Err(error) => panic!("{error}"),
    };
    // What makes this record worth keeping: both domains, several switches, factorials, DMA and interrupts.
    assert!(summary.slices >= 4, "{summary:?}");
    assert!(summary.accesses >= 100, "{summary:?}");
    assert!(summary.interrupts >= 2, "{summary:?}");
    assert!(summary.lines >= 4, "{summary:?}");
    assert!(summary.registers >= 200, "{summary:?}");
    assert!(!summary.full);
}

/// What a domain reads is what the device showed to the driver: each such value, changed, is found.
#[test]
fn a_changed_result_of_the_device_is_found() {
    let lines: Vec<_> = RECORD.lines().collect();
    // The factorial register, read by a domain, and by the driver for it.
    let results: Vec<_> = (1..lines.len())
        .filter(|at| lines[*at].starts_with("r 0 8 4 ") && lines[at - 1].starts_with("map "))
        .collect();
    assert!(results.len() >= 3, "{results:?}");
    for at in results {
        let changed = format!("{}1", lines[at]);
        let mut lines = lines.clone();
        lines[at] = &changed;
        match replay(&(lines.join("\n") + "\n"), &Replayer) {
            Err(ReplayError::Differs { line, .. }) => {
                assert!(line > at, "found before it was there");
            }
            other => panic!("line {}: {other:?}", at + 1),
        }
    }
}
