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
pub fn domain(guest: PathBuf, part: &str, affinity: &[u32]) -> Result<DomainSpec> {
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
fn answers_alike(gic: u32, least: u64) -> Result<()> {
    let guest = guest()?;
    let workspace = Artifacts::get()?.workspace();
    let limit = Duration::from_secs(60);
    let name = format!("conformance-gic{gic}");
    let bare = Qemu::bare(
        workspace,
        &format!("{name}-bare"),
        &guest,
        gic,
        "conformance=check",
        limit,
    )?;
    let ended = |line: &str| line.starts_with("done ") || line.starts_with("error:");
    bare.wait_map(Mark::START, "the checks' end", limit, |line| {
        ended(line).then_some(())
    })?;
    bare.kill();
    let mut scenario = Scenario::new(&name);
    scenario.gic = gic;
    scenario.memory_mib = 1024;
    scenario.domains = vec![domain(guest, "domain", &[0, 1])?];
    let machine = Machine::boot(&scenario, LIMIT)?;
    let done = machine.wait_domain("d1", "the checks' end", PATIENCE, |text| {
        ended(text).then(|| Record::parse(text))
    })?;
    let (expected, output) = (bare.lines_after(Mark::START), machine.output("d1"));
    let wrong: Vec<_> = output
        .iter()
        .filter(|line| line.starts_with("check ") || line.starts_with("own "))
        .filter(|line| !right(line))
        .collect();
    ensure!(wrong.is_empty(), "{wrong:#?}");
    let (got, expected) = (checks(&output), checks(&expected));
    for (got, expected) in got.iter().zip(&expected) {
        assert_eq!(got, expected, "left: a domain; right: the bare machine");
    }
    assert_eq!(got.len(), expected.len());
    assert!(number(&done, "checks") >= least, "{done:?}");
    assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    machine.finish()
}

#[test]
fn a_domain_answers_as_the_architecture_and_the_bare_machine_do() -> Result<()> {
    answers_alike(3, 640)
}

#[test]
fn with_a_gicv2_a_domain_answers_as_the_bare_machine_does() -> Result<()> {
    answers_alike(2, 540)
}
