//! A coprocessor that the machine's tree describes: QEMU's PL061, shared.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, Replayer, assert_books, number, poll, text, vcoproc};
use coproc_core::record::replay;
use qemu_boot::report::Record;
use qemu_boot::scenario::{Action, Edit};
use qemu_boot::{Artifacts, CoprocSpec, DomainSpec, Scenario, bench};

/// Where QEMU has it.
const DEVICE: &str = "/pl061@9030000";

fn gpio() -> CoprocSpec {
    CoprocSpec {
        driver: "arm,pl061".to_owned(),
        device: DEVICE.to_owned(),
        scheduler: "rr".to_owned(),
        slice_us: 5_000,
        refusal_bound_us: 100_000,
    }
}

fn domain(cpu: u32, part: &str) -> Result<DomainSpec> {
    let mut domain = DomainSpec::linux(cpu, &format!("bench={part}")).with_coproc(0);
    domain.kernel = Some(bench::guest(Artifacts::get()?.workspace())?);
    domain.memory_kib = 64 << 10;
    Ok(domain)
}

/// Baton with the driver: the build that fails on demand, which is there already.
pub fn artifacts() -> Result<Artifacts> {
    Artifacts::get()?.variant("faults", &["--features", "fault-injection,pl061"])
}

/// What a domain counted.
fn told(machine: &Machine, name: &str) -> Result<Record> {
    machine.wait_domain(name, "its count", PATIENCE, |line| {
        assert!(!line.contains("error"), "{name}: {line}");
        line.strip_prefix("gpio: ").map(Record::parse)
    })
}

fn scenario(name: &str, parts: [&str; 2]) -> Result<Scenario> {
    let mut scenario = Scenario::new(name);
    scenario.memory_mib = 512;
    scenario.coprocs = vec![gpio()];
    scenario.domains = vec![domain(0, parts[0])?, domain(1, parts[1])?];
    Ok(scenario)
}

/// Two bare-metal domains share it on one boot: each finds only its own registers and has only its own interrupts while they alternate, by
/// one exit a slice; taken from a domain it reads all-ones, and given back it's as after a reset.
#[test]
fn domains_share_a_device_of_the_tree() -> Result<()> {
    let scenario = scenario("tree", ["gpioeven", "gpioodd"])?;
    let machine = Machine::boot_with(&artifacts()?, &scenario, LIMIT)?;
    assert_eq!(machine.errors(), [""; 0]);
    for name in ["d1", "d2"] {
        let told = told(&machine, name)?;
        assert!(number(&told, "rounds") > 100, "{name}: {told:?}");
        assert!(number(&told, "interrupts") > 50, "{name}: {told:?}");
        for key in ["empty", "unknown"] {
            assert_eq!(number(&told, key), 0, "{name}: {told:?}");
        }
    }
    let report = machine.query()?;
    assert_books(&report);
    let one = vcoproc(&report, "d1");
    assert!(number(one, "slices") > 20, "{one:?}");
    assert!(number(one, "max_exits_per_slice") <= 1, "{one:?}");
    assert!(number(one, "interrupts") > 0, "{one:?}");
    machine.wait_domain("d2", "its last line", PATIENCE, |line| {
        (line == "bench: done").then_some(())
    })?;
    machine.ask("coproc detach 0 d1")?;
    machine.wait_domain("d1", "all-ones", PATIENCE, |line| {
        (line == "gpio: gone").then_some(())
    })?;
    machine.ask("coproc attach 0 d1")?;
    machine.wait_domain("d1", "its last line", PATIENCE, |line| {
        (line == "bench: done").then_some(())
    })?;
    poll("nobody's device", PATIENCE, || {
        Ok((text(&machine.query()?.coprocs[0], "state") == "idle").then_some(()))
    })?;
    machine.finish()
}

/// Recorded, it is never mapped, the domains notice nothing, and the record replays here.
#[test]
fn a_record_of_a_device_of_the_tree_replays() -> Result<()> {
    let mut scenario = scenario("tree-record", ["gpioevenbrief", "gpiooddbrief"])?;
    scenario.edits.push(Edit {
        node: "/chosen/coprocs/coproc@0".into(),
        action: Action::Set("baton,record".into(), Vec::new()),
    });
    let machine = Machine::boot_with(&artifacts()?, &scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        let told = told(&machine, name)?;
        assert!(number(&told, "interrupts") > 0, "{name}: {told:?}");
        assert_eq!(number(&told, "empty"), 0, "{name}: {told:?}");
    }
    assert_eq!(number(vcoproc(&machine.query()?, "d1"), "touches"), 0);
    let record = machine.record(0)?;
    machine.finish()?;
    let summary = replay(&record, &Replayer).map_err(|error| anyhow::anyhow!("{error}"))?;
    // Each access that raises an interrupt is seen, so the physical one needn't come.
    assert!(summary.lines > 10 && summary.slices > 2, "{summary:?}");
    assert!(!summary.full, "{summary:?}");
    Ok(())
}
