//! A domain against the architecture, and against the same machine without Baton.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baton_tests::{Control, LIMIT, Machine, PATIENCE, number, text};
use qemu_boot::device_tree::Tree;
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, DomainSpec, Edit, Mark, Qemu, Scenario, bare};

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

/// What a domain is shown works, and what EL2 would have to do something for isn't there unless it is shown: on a CPU with every feature that QEMU
/// knows, and on one with some.
#[test]
fn what_a_domain_is_shown_works() -> Result<()> {
    for (cpu, least) in [("max", 30), ("neoverse-n1", 10)] {
        let mut scenario = Scenario::new(&format!("features-{cpu}"));
        scenario.cpu = cpu.to_owned();
        scenario.memory_mib = 512;
        scenario.domains = vec![domain(guest()?, "features", &[0])?];
        let machine = Machine::boot(&scenario, LIMIT)?;
        let done = machine.wait_domain("d1", "the checks' end", PATIENCE, |text| {
            text.starts_with("done ").then(|| Record::parse(text))
        })?;
        let output = machine.output("d1");
        let checks = output
            .iter()
            .filter(|line| line.starts_with("check ") || line.starts_with("own "));
        let wrong: Vec<_> = checks.filter(|line| !right(line)).collect();
        assert!(wrong.is_empty(), "{cpu}: {wrong:#?}");
        let count = |start| output.iter().filter(|line| line.starts_with(start)).count();
        assert!(count("check name=shown.") >= least, "{cpu}: {output:#?}");
        assert!(count("own name=not-shown.") >= 20, "{cpu}: {output:#?}");
        assert_eq!(number(&done, "wrong"), 0, "{cpu}: {done:?}");
        machine.finish()?;
    }
    Ok(())
}

/// The guest's lines that begin so, once there are this many.
fn lines(machine: &Machine, domain: &str, start: &str, count: usize) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    machine.wait_domain(domain, start, PATIENCE, move |text| {
        lines.extend(text.starts_with(start).then(|| text.to_owned()));
        (lines.len() == count).then(|| lines.clone())
    })
}

/// What is in memory of the seed in the machine's tree.
fn seed_in_memory(control: &Control) -> Result<Option<Vec<u8>>> {
    const RAM: u64 = 0x4000_0000;
    const MAGIC: [u8; 4] = 0xd00d_feed_u32.to_be_bytes();
    let memory = control.memory(RAM, 256 << 20)?;
    let places = memory.as_chunks::<4>().0.iter().enumerate();
    let mut trees = places
        .filter(|(_, word)| **word == MAGIC)
        .filter_map(|(place, _)| Tree::parse(&memory[4 * place..]).ok());
    // Domains have none in their own.
    let mut machine = trees
        .find(|tree| tree.clone().node_mut("/chosen/domain@1").is_some())
        .context("the machine's tree")?;
    let chosen = machine.node_mut("/chosen").context("/chosen")?;
    Ok(chosen.get("rng-seed").map(<[u8]>::to_vec))
}

/// Two domains check their random numbers and tell their seeds; then the first is restarted. Returns what each of the three starts told.
fn random(name: &str, cpu: &str, edits: &[Edit]) -> Result<[Record; 3]> {
    let guest = guest()?;
    let mut scenario = Scenario::new(name);
    scenario.cpu = cpu.to_owned();
    scenario.memory_mib = 1024;
    scenario.domains = vec![
        domain(guest.clone(), "random", &[0])?,
        domain(guest, "random", &[1])?,
    ];
    scenario.edits = edits.to_vec();
    let control = Control::of(&mut scenario)?;
    let machine = Machine::boot(&scenario, LIMIT)?;
    // Whoever reads it later learns nothing.
    let seed = seed_in_memory(&control)?;
    assert_eq!(seed.is_some(), edits.is_empty());
    assert!(seed.iter().flatten().all(|byte| *byte == 0), "{seed:x?}");
    let started = |domain: &str, count: usize| -> Result<Record> {
        let done = lines(&machine, domain, "done ", count)?;
        let done = Record::parse(&done[count - 1]);
        assert_eq!(number(&done, "wrong"), 0, "{:#?}", machine.output(domain));
        let least = if cpu == "max" { 90 } else { 6 };
        assert!(number(&done, "checks") >= least, "{done:?}");
        let seeds = lines(&machine, domain, "seeds ", count)?;
        Ok(Record::parse(&seeds[count - 1]))
    };
    let first = [started("d1", 1)?, started("d2", 1)?];
    machine.ask("domain restart d1")?;
    let again = started("d1", 2)?;
    machine.finish()?;
    let [first, second] = first;
    Ok([first, second, again])
}

/// Every start has seeds that no other has.
fn all_differ(starts: &[Record; 3]) {
    for (key, digits) in [("rng", 64), ("kaslr", 16)] {
        let seeds: BTreeSet<String> = starts.iter().map(|start| text(start, key)).collect();
        assert_eq!(seeds.len(), 3, "{starts:?}");
        assert!(seeds.iter().all(|seed| seed.len() == digits), "{starts:?}");
    }
}

/// On CPUs with FEAT_RNG a domain has the TRNG interface and seeds of its own, although the machine's tree has none.
#[test]
fn domains_get_the_random_numbers_of_the_cpus() -> Result<()> {
    let none = Edit::remove("/chosen", "rng-seed");
    let starts = random("random-cpu", "max", &[none])?;
    all_differ(&starts);
    Ok(())
}

/// With a seed in the machine's tree alone, each domain has one of its own; the TRNG interface isn't there.
#[test]
fn a_machine_s_seed_becomes_one_for_each_start_of_a_domain() -> Result<()> {
    let starts = random("random-seed", "cortex-a57", &[])?;
    all_differ(&starts);
    Ok(())
}

/// Without both there are no seeds that anybody could guess.
#[test]
fn without_entropy_there_are_no_seeds() -> Result<()> {
    let none = Edit::remove("/chosen", "rng-seed");
    for start in random("random-none", "cortex-a57", &[none])? {
        assert_eq!(
            (text(&start, "rng"), text(&start, "kaslr")),
            (String::new(), String::new())
        );
    }
    Ok(())
}
