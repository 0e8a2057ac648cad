//! Several coprocs at once, each with its own algorithm, and domains that have none, one or two of them.

use anyhow::{Context as _, Result};
use baton_tests::{LIMIT, Machine, number, text};
use qemu_boot::report::{CoprocReport, Record};
use qemu_boot::scenario::CoprocSpec;
use qemu_boot::{DomainSpec, Scenario};

use crate::workload;

/// The vcoproc of a domain on one coproc.
fn vcoproc<'r>(report: &'r CoprocReport, coproc: &str, domain: &str) -> Result<&'r Record> {
    let mut all = report.vcoprocs.iter();
    all.find(|record| {
        record.text("coproc") == Some(coproc) && record.text("domain") == Some(domain)
    })
    .with_context(|| {
        format!(
            "no vcoproc of {domain} on coproc {coproc}: {:?}",
            report.vcoprocs
        )
    })
}

/// Three edu devices under round robin, weighted and null; two domains share the first, one has the second for itself though
/// another one could use it, one owns the third. All work at once; nobody's result is wrong, no time is lost.
#[test]
fn three_coprocs_with_three_algorithms_serve_four_domains_at_once() -> Result<()> {
    let mut scenario = Scenario::new("many");
    scenario.edu_devices = 3;
    for (slot, scheduler) in [(1, "rr"), (2, "weighted"), (3, "null")] {
        scenario.coprocs.push(CoprocSpec {
            scheduler: scheduler.to_owned(),
            ..CoprocSpec::edu(slot)
        });
    }
    // (coprocs, which of them the workload drives)
    let domains: [(&[usize], u32); 4] = [(&[0, 1], 0), (&[0], 0), (&[1], 0), (&[2], 0)];
    for ((coprocs, device), number) in domains.into_iter().zip(1..) {
        let options = format!("jobs=16 device={device}");
        let bootargs = format!("quiet panic=-1 {}", workload(number, &options));
        let mut domain = DomainSpec::linux((number - 1) % 2, &bootargs);
        domain.memory_kib = 256 << 10;
        domain.coprocs = coprocs.to_vec();
        scenario.domains.push(domain);
    }

    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2", "d3", "d4"] {
        let done = machine.done(name)?;
        assert_eq!(
            (number(&done, "jobs"), number(&done, "wrong")),
            (16, 0),
            "{name}: {done:?}"
        );
    }
    let report = machine.query()?;
    assert_eq!(report.coprocs.len(), 3);
    for (coproc, scheduler) in report.coprocs.iter().zip(["rr", "weighted", "null"]) {
        assert_eq!(text(coproc, "scheduler"), scheduler);
        let parts: u64 = ["charge_ns", "overhead_ns", "idle_ns", "fault_ns"]
            .iter()
            .map(|key| number(coproc, key))
            .sum();
        assert_eq!(parts, number(coproc, "elapsed_ns"), "{coproc:?}");
        assert_eq!(number(coproc, "fault_ns"), 0, "{coproc:?}");
    }
    let switches: Vec<u64> = report
        .coprocs
        .iter()
        .map(|coproc| number(coproc, "switches"))
        .collect();
    assert!(switches[0] >= 4, "two domains share coproc 0: {switches:?}");
    assert!(
        switches[1] <= 1 && switches[2] <= 1,
        "the others are used by one domain each: {switches:?}"
    );
    // A part that a domain has but doesn't use costs nothing.
    let unused = vcoproc(&report, "1", "d1")?;
    assert_eq!(
        (number(unused, "charge_ns"), number(unused, "slices")),
        (0, 0),
        "{unused:?}"
    );
    for (coproc, domain) in [("0", "d1"), ("0", "d2"), ("1", "d3"), ("2", "d4")] {
        let used = vcoproc(&report, coproc, domain)?;
        assert!(number(used, "charge_ns") > 1_000_000_000, "{used:?}");
        assert_eq!(number(used, "iommu_faults"), 0, "{used:?}");
    }
    machine.finish()
}
