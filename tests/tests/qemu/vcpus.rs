//! CPUs and vCPUs: several of a domain, several domains on one, and domains that end.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, coproc, number, poll, text, vcoproc};
use qemu_boot::report::CoprocReport;
use qemu_boot::report::Record;
use qemu_boot::{CoprocSpec, DomainSpec, Scenario};

use crate::{sharing, workload};

/// Two domains of two vCPUs each on the same two CPUs: both kernels bring up both, and both do their work.
#[test]
fn domains_with_two_vcpus_share_two_cpus() -> Result<()> {
    let mut scenario = Scenario::new("smp");
    scenario.edu_devices = 1;
    scenario.coprocs.push(CoprocSpec::edu(1));
    for (number, affinity) in [(1, vec![0, 1]), (2, vec![1, 0])] {
        // Not quiet: the kernel's own line is what counts.
        let bootargs = format!("panic=-1 {}", workload(number, "jobs=6"));
        let mut domain = DomainSpec::linux(0, &bootargs).with_coproc(0);
        domain.vcpus = 2;
        domain.affinity = affinity;
        scenario.domains.push(domain);
    }
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        machine.wait_domain(name, "both CPUs", PATIENCE, |text| {
            text.contains("Brought up 1 node, 2 CPUs").then_some(())
        })?;
    }
    for name in ["d1", "d2"] {
        let done = machine.done(name)?;
        assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (6, 0));
    }
    let answer = machine.ask("domains")?.join("\n");
    assert_eq!(answer.matches("vcpus=2 ").count(), 2, "{answer}");
    assert_eq!(answer.matches("cpus=0,1 ").count(), 2, "{answer}");
    assert_books(&machine.query()?);
    machine.finish()
}

/// Who alone wants the device has it: no switches, and another domain that never touches it costs nothing. Its slices are renewed by the
/// timer of the CPU that it runs on, which isn't CPU 0: the ancestor's timer was.
#[test]
fn a_domain_alone_on_its_coproc_is_never_switched() -> Result<()> {
    // Two slices of a second and more: a job takes about a quarter of one.
    let mut scenario = sharing("alone", &["jobs=12", "mode=idle"]);
    scenario.domains[0].affinity = vec![1];
    scenario.domains[1].affinity = vec![0];
    let machine = Machine::boot(&scenario, LIMIT)?;
    machine.wait_domain("d2", "its program", PATIENCE, |text| {
        (text == "workload: ready").then_some(())
    })?;
    let done = machine.done("d1")?;
    assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (12, 0));
    let report = machine.query()?;
    assert!(number(coproc(&report), "switches") <= 1, "{report:?}");
    assert_eq!(report.share("0", "d1"), Some(100.0));
    assert!(
        report.slices.iter().all(|slice| slice.domain == "d1"),
        "{report:?}"
    );
    let unused = vcoproc(&report, "d2");
    for key in ["charge_ns", "overhead_ns", "slices", "touches", "emulated"] {
        assert_eq!(number(unused, key), 0, "{key}: {unused:?}");
    }
    assert_eq!(text(unused, "state"), "asleep");
    assert_books(&report);
    // The slice is looked at every second, and given up when its owner has nothing to do: whatever ends it, ends it on the owner's CPU.
    let ends = poll("two ends of its slices", PATIENCE, || {
        let trace = machine.ask("trace coproc 0")?;
        let events = trace.iter().map(|line| Record::parse(line));
        let ends: Vec<_> = events
            .filter(|event| event.text("from") == Some("running"))
            .collect();
        Ok((ends.len() >= 2).then_some(ends))
    })?;
    for end in &ends {
        let reason = text(end, "reason");
        assert!(matches!(reason.as_str(), "renewed" | "slept"), "{ends:#?}");
        assert_eq!(number(end, "cpu"), 1, "{ends:#?}");
    }
    machine.finish()
}

/// A domain that switches itself off is off, its vcoproc is given back, and the other goes on.
#[test]
fn a_domain_that_switches_off_leaves_the_device_to_the_other() -> Result<()> {
    let options = ["mode=stress jobs=3 poweroff=1", "mode=stress jobs=24"];
    let machine = Machine::boot(&sharing("power-off", &options), LIMIT)?;
    let first = machine.done("d1")?;
    assert_eq!((number(&first, "jobs"), number(&first, "wrong")), (3, 0));
    machine.wait_baton("the end of d1", PATIENCE, |text| {
        text.contains("d1: switched itself off").then_some(())
    })?;
    let state = |id: &str, state: &str| (id.to_owned(), state.to_owned());
    assert_eq!(
        machine.domains()?,
        [state("d1", "off"), state("d2", "running")]
    );
    let gone = |report: &CoprocReport| report.vcoproc_of("0", "d1").is_none();
    poll("d1's vcoproc gone", PATIENCE, || {
        Ok(gone(&machine.query()?).then_some(()))
    })?;
    let second = machine.done("d2")?;
    assert_eq!((number(&second, "jobs"), number(&second, "wrong")), (24, 0));
    let end = machine.query()?;
    assert!(gone(&end), "{end:?}");
    assert_eq!(end.vcoprocs.len(), 1, "{end:?}");
    let refused = machine.refusal("coproc attach 0 d1")?;
    assert!(refused.contains("d1 is off"), "{refused}");
    assert_books(&end);
    machine.finish()
}
