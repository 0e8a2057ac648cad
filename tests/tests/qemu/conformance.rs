//! A domain against the architecture, and against the same machine without Baton.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number};
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, DomainSpec, Mark, Qemu, Scenario, bare};

fn guest() -> Result<PathBuf> {
    bare::guest(Artifacts::get()?.workspace(), "conformance-guest")
}

/// A domain that runs the bare-metal guest: 64 MiB, nothing to boot from.
fn domain(guest: PathBuf, part: &str, affinity: &[u32]) -> Result<DomainSpec> {
    let ramdisk = guest.with_extension("ramdisk");
    std::fs::write(&ramdisk, b"none").context("the guest's ramdisk")?;
    Ok(DomainSpec {
        vcpus: affinity.len() as u32,
        affinity: affinity.to_vec(),
        memory_kib: 64 << 10,
        kernel: Some(guest),
        ramdisk: Some(ramdisk),
        ..DomainSpec::linux(0, &format!("conformance={part}"))
    })
}

fn checks(lines: &[String]) -> Vec<&str> {
    let lines = lines.iter().map(|line| line.trim());
    lines.filter(|line| line.starts_with("check ")).collect()
}

/// Checks that an answer of the guest's was as expected.
fn right(line: &str) -> bool {
    let word = |key: &str| {
        let mut words = line.split(' ');
        words.find_map(|word| word.strip_prefix(key).map(str::to_owned))
    };
    word("got=") == word("expected=")
}

/// Registers, injection, priorities, timers, PSCI error codes, aborts and ID registers are checked one by one, and the
/// machine without Baton answers each check alike.
#[test]
fn a_domain_answers_as_the_architecture_and_the_bare_machine_do() -> Result<()> {
    let guest = guest()?;
    let workspace = Artifacts::get()?.workspace();
    let limit = Duration::from_secs(60);
    let bare = Qemu::bare(
        workspace,
        "conformance-bare",
        &guest,
        3,
        "conformance=check",
        limit,
    )?;
    bare.wait_for("done checks=", limit)?;
    bare.kill();
    let mut scenario = Scenario::new("conformance");
    scenario.memory_mib = 1024;
    scenario.domains = vec![domain(guest, "domain", &[0, 1])?];
    let machine = Machine::boot(&scenario, LIMIT)?;
    let done = machine.wait_domain("d1", "the checks' end", PATIENCE, |text| {
        let gave_up = text.starts_with("error:");
        (gave_up || text.starts_with("done ")).then(|| Record::parse(text))
    })?;
    let (expected, output) = (bare.lines_after(Mark::START), machine.output("d1"));
    let wrong: Vec<_> = output
        .iter()
        .filter(|line| line.starts_with("check ") || line.starts_with("own "))
        .filter(|line| !right(line))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    assert!(number(&done, "checks") >= 500, "{done:?}");
    assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    let (got, expected) = (checks(&output), checks(&expected));
    assert!(expected.len() >= 480, "{} checks", expected.len());
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected, "left: a domain; right: the bare machine");
    }
    assert_eq!(got.len(), expected.len());
    machine.finish()
}
