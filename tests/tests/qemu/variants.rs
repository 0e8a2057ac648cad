//! Other builds of Baton than the one that ships: one that fails on demand, and one without the framework.

use anyhow::{Context as _, Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number, text};
use qemu_boot::Artifacts;
use qemu_boot::demo::ENTER;
use qemu_boot::report::{Origin, Record, split_tag};
use qemu_boot::scenario::{CoprocSpec, Edit};
use std::time::{Duration, Instant};

use crate::lifecycle::Program;
use crate::sharing;

/// What must be as before when nothing is left behind.
#[derive(Debug, PartialEq, Eq)]
struct Holdings {
    free_bytes: u64,
    spaces: u64,
    domain_vmids: u64,
    firmware_vmids: u64,
    vcoprocs: Vec<(String, String)>,
    states: Vec<String>,
}

/// Bytes of heap that lists may have grown by.
const GROWTH: u64 = 2048;

/// Baton's holdings and its heap, when nothing waits to be given back any more.
fn holdings(machine: &Machine) -> Result<(Holdings, u64)> {
    let limit = Instant::now() + PATIENCE;
    let memory = loop {
        let answer = machine.ask("memory")?;
        let line = answer.iter().find(|line| line.starts_with("memory "));
        let memory = Record::parse(line.context("no memory line")?);
        if number(&memory, "pending") == 0 {
            break memory;
        }
        ensure!(Instant::now() < limit, "not everything was given back");
        std::thread::sleep(Duration::from_millis(20));
    };
    let report = machine.query()?;
    let vcoprocs = report.vcoprocs.iter();
    let holdings = Holdings {
        free_bytes: number(&memory, "free_bytes"),
        spaces: number(&memory, "spaces"),
        domain_vmids: number(&memory, "domain_vmids"),
        firmware_vmids: number(&memory, "firmware_vmids"),
        vcoprocs: vcoprocs
            .map(|v| (text(v, "coproc"), text(v, "domain")))
            .collect(),
        states: report.coprocs.iter().map(|c| text(c, "state")).collect(),
    };
    Ok((holdings, number(&memory, "heap_bytes")))
}

/// Lets the first, second, … call of a kind fail in `command`, until none is left that could; returns how many there were. After each
/// failure everything is as it was before; after the success `undo` makes it so.
fn each_fails(machine: &Machine, kind: &str, command: &str, undo: &str) -> Result<u64> {
    let (before, heap) = holdings(machine)?;
    for nth in 1..100 {
        machine.ask(&format!("inject {kind} {nth}"))?;
        let failed = machine.refusal(command);
        machine.ask(&format!("inject {kind} 0"))?;
        let over = failed.is_err();
        if over {
            machine.ask(undo)?;
        }
        let (after, used) = holdings(machine)?;
        assert_eq!(after, before, "{kind} {nth} of '{command}'");
        assert!(
            used <= heap + GROWTH,
            "{kind} {nth} of '{command}': the heap grew from {heap} to {used}"
        );
        if over {
            return Ok(nth - 1);
        }
    }
    anyhow::bail!("'{command}' never succeeds")
}

/// Has an operation on a domain done to its end. Returns the line that tells it, and the mistakes that were told on the way.
fn operate(machine: &Machine, command: &str) -> Result<(String, Vec<String>)> {
    let mark = machine.mark();
    machine.send(&format!("{command}{ENTER}"))?;
    let (mut begun, mut end, mut errors) = (false, None, Vec::new());
    let (_, outcome) = machine.wait_map(mark, command, PATIENCE, |line| {
        let (Origin::Baton, text) = split_tag(line) else {
            return None;
        };
        // What is found later may be told before the command is answered.
        match text {
            "ok" => begun = true,
            _ if !begun && text.contains(", `domain") => return Some(Err(text.to_owned())),
            _ if text.starts_with("error: ") => errors.push(text.to_owned()),
            _ if text.contains(": created, starts") || text.ends_with(": destroyed") => {
                end = Some(text.to_owned());
            }
            _ => {}
        }
        let end = end.take_if(|_| begun)?;
        Some(Ok((end, core::mem::take(&mut errors))))
    })?;
    outcome.map_err(|refused| anyhow::anyhow!("{command}: {refused}"))
}

/// Lets the first, second, … call of a kind fail while a domain is created, until none is left that could. Each time the domain is gone again, that was said,
/// and everything is as it was before; or it is there, because the call could be done without. Returns how many there were, and how many of them were fatal.
fn each_fails_in_creating(machine: &Machine, kind: &str, name: &str) -> Result<(u64, u64)> {
    let (before, heap) = holdings(machine)?;
    let gone = (name.to_owned(), "gone".to_owned());
    let mut fatal = 0;
    for nth in 1..100 {
        machine.ask(&format!("inject {kind} {nth}"))?;
        let (end, errors) = operate(machine, &format!("domain create {name}"))?;
        let answer = machine.ask(&format!("inject {kind} 0"))?;
        let left = answer.iter().find_map(|line| line.strip_prefix("inject "));
        let left = Record::parse(&format!("inject {}", left.context("what is left")?));
        let over = number(&left, "left") > 0;
        if end.ends_with("destroyed") {
            ensure!(!over, "{kind} {nth}: nothing failed, yet {errors:?}");
            let number = name.trim_start_matches('d');
            let path = format!("error: /chosen/domain@{number}: ");
            ensure!(
                errors.len() == 1 && errors[0].starts_with(&path),
                "{kind} {nth}: {errors:?}"
            );
            fatal += 1;
        } else {
            ensure!(errors.is_empty(), "{kind} {nth}: {errors:?}");
            operate(machine, &format!("domain destroy {name}"))?;
        }
        let (after, used) = holdings(machine)?;
        assert_eq!(after, before, "{kind} {nth} in creating {name}");
        assert!(
            used <= heap + GROWTH,
            "{kind} {nth} in creating {name}: the heap grew from {heap} to {used}"
        );
        assert!(machine.domains()?.contains(&gone), "{kind} {nth}");
        if over {
            return Ok((nth - 1, fatal));
        }
    }
    anyhow::bail!("{name} is never created")
}

/// Each allocation and each call of a driver fails in turn, in everything that management can do with a coprocessor and in creating a domain that has
/// two, flash and a device of its own, and nothing is left behind: no memory, no address space, no VMID, no vcoproc.
#[test]
fn whatever_fails_leaves_nothing_behind() -> Result<()> {
    let artifacts = crate::tree::artifacts()?;
    let mut scenario = sharing("faults", &["mode=idle wait=1", "mode=idle wait=1"]);
    scenario.cpus = 3;
    scenario.edu_devices = 3;
    scenario.coprocs.push(CoprocSpec::fw_core(2));
    scenario.coprocs.push(CoprocSpec::edu(2));
    const VERSION: u64 = 0x8400_0000;
    let mut small = Program::says("small").calls(VERSION).domain("small", 1)?;
    small.firmware = small.kernel.take();
    let small = small.with_coproc(0).with_coproc(1);
    scenario.domains.push(small.with_device("pci:0000:00:03.0"));
    let disabled = Edit::string("/chosen/domain@3", "status", "disabled");
    scenario.edits.push(disabled);
    let machine = Machine::boot_with(&artifacts, &scenario, LIMIT)?;
    // d1 keeps its share of the edu, which must not notice; whatever lists grow by, they have grown by after a first round.
    for (attach, detach) in [
        ("coproc attach 0 d2", "coproc detach 0 d2"),
        ("coproc attach 1 d2", "coproc detach 1 d2"),
    ] {
        if attach.contains("attach 0") {
            machine.ask(detach)?;
        }
        machine.ask(attach)?;
        machine.ask(detach)?;
        let allocations = each_fails(&machine, "allocation", attach, detach)?;
        let calls = each_fails(&machine, "driver", attach, detach)?;
        assert!(allocations >= 3, "{attach}: {allocations} allocations");
        assert_eq!(calls, 1, "{attach}: a context is made");
    }
    // What lists grow by is there after a first round.
    let (end, _) = operate(&machine, "domain create d3")?;
    assert!(end.contains("created"), "{end}");
    operate(&machine, "domain destroy d3")?;
    let (allocations, fatal) = each_fails_in_creating(&machine, "allocation", "d3")?;
    println!("{allocations} allocations make a domain, {fatal} are fatal");
    assert!(fatal >= 15, "{fatal} of {allocations}");
    // A second best piece of memory will do.
    assert_eq!(allocations - fatal, 1, "{allocations} in all");
    let (calls, fatal) = each_fails_in_creating(&machine, "driver", "d3")?;
    assert_eq!((calls, fatal), (2, 2), "a context of each coproc is made");
    for (id, share, unshare) in [
        (1, "coproc share 1", "coproc unshare 1"),
        (2, "coproc share 2", "coproc unshare 2"),
    ] {
        machine.ask(unshare)?;
        assert_eq!(holdings(&machine)?.0.states[id], "unshared");
        let calls = each_fails(&machine, "driver", share, unshare)?;
        assert_eq!(calls, 1, "{share}: the device is probed");
    }
    machine.finish()
}

/// Baton without the framework: neither framework nor algorithms nor IOMMU are in the image, domains run, and whoever describes a
/// coprocessor is told which feature is missing.
#[test]
fn without_the_framework_domains_run_and_coprocs_name_the_feature() -> Result<()> {
    let shipped = Artifacts::get()?;
    let arguments = ["--no-default-features", "--features", "qemu-virt"];
    let artifacts = shipped.variant("alone", &arguments)?;
    let has = |artifacts: &Artifacts, symbol: &str| -> Result<bool> {
        let elf = std::fs::read(&artifacts.hypervisor_elf)?;
        Ok(elf
            .windows(symbol.len())
            .any(|part| part == symbol.as_bytes()))
    };
    // Mangled: vCPUs are scheduled with that crate's heap and arithmetic, but not with its algorithms.
    for symbol in [
        "sched_algos7by_name",
        "sched_algos8weighted",
        "smmuv3",
        "fw_core",
        "TableDriver",
    ] {
        assert!(has(shipped, symbol)?, "{symbol}: not how symbols look");
        assert!(!has(&artifacts, symbol)?, "{symbol} is in the image");
    }

    let mut scenario = sharing("no-framework", &["mode=idle", "mode=idle"]);
    scenario.domains[0].coprocs.clear();
    let machine = Machine::boot_with(&artifacts, &scenario, LIMIT)?;
    let errors = machine.errors();
    let named = |line: &&String| {
        line.starts_with("/chosen/coprocs/coproc@0: driver: ") && line.contains("\"sharing\"")
    };
    assert!(errors.iter().any(|line| named(&line)), "{errors:#?}");
    assert_eq!(machine.domains()?, [("d1".into(), "running".into())]);
    machine.wait_domain("d1", "its program", PATIENCE, |text| {
        text.contains("workload: ready").then_some(())
    })?;
    assert!(
        machine
            .ask("coproc list")?
            .iter()
            .all(|line| !line.starts_with("coproc "))
    );
    machine.finish()
}
