//! Pools of CPUs: more vCPUs than CPUs, shares by weight, algorithms exchanged live, and coprocessors that don't care.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, longest_slice, number, poll, text, vcoproc};
use qemu_boot::report::{CoprocReport, Record};
use qemu_boot::scenario::Edit;
use qemu_boot::{Artifacts, CoprocSpec, DomainSpec, Scenario};

use crate::workload;

/// A kernel that does nothing but run: an arm64 Image (Linux, Documentation/arch/arm64/booting.rst) whose first instruction branches to
/// itself.
fn hog_kernel(name: &str) -> Result<PathBuf> {
    const BRANCH_TO_ITSELF: u32 = 0x1400_0000;
    let mut image = vec![0_u8; 4096];
    image[0..4].copy_from_slice(&BRANCH_TO_ITSELF.to_le_bytes());
    image[16..24].copy_from_slice(&4096_u64.to_le_bytes());
    // Little-endian, pages of 4 KiB, anywhere in memory.
    image[24..32].copy_from_slice(&0b1010_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    let path = Artifacts::get()?
        .workspace()
        .target(&format!("{name}-hog.img"));
    fs::write(&path, image)?;
    Ok(path)
}

/// A domain that never sleeps, on any CPU.
fn hog(name: &str) -> Result<DomainSpec> {
    let mut domain = DomainSpec::linux(0, "");
    domain.affinity = Vec::new();
    domain.memory_kib = 64 << 10;
    domain.kernel = Some(hog_kernel(name)?);
    Ok(domain)
}

fn vcpus(machine: &Machine) -> Result<Vec<Record>> {
    let answer = machine.ask("vcpu list")?;
    let records = answer.iter().map(|line| Record::parse(line));
    Ok(records.filter(|record| record.kind == "vcpu").collect())
}

/// What each vCPU got of the CPUs within a time, in parts of all that they got together.
fn parts(machine: &Machine, time: Duration) -> Result<Vec<f64>> {
    let ran = || -> Result<Vec<u64>> {
        Ok(vcpus(machine)?
            .iter()
            .map(|vcpu| number(vcpu, "ran_ns"))
            .collect())
    };
    let before = ran()?;
    let wanted = 2 * time.as_nanos() as u64;
    let deltas = poll("CPU time used by the domains", PATIENCE, || {
        let deltas: Vec<u64> = ran()?.iter().zip(&before).map(|(a, b)| a - b).collect();
        Ok((deltas.iter().sum::<u64>() >= wanted).then_some(deltas))
    })?;
    let all: u64 = deltas.iter().sum();
    Ok(deltas
        .iter()
        .map(|delta| *delta as f64 / all as f64)
        .collect())
}

fn assert_parts(found: &[f64], expected: &[f64], when: &str) {
    eprintln!("{when}: {found:.4?}, expected {expected:.4?}");
    for (found, expected) in found.iter().zip(expected) {
        // Found: up to 3 points. When something is typed, the emulator goes on with one CPU for up to 100 ms, whatever the other one's timer
        // wants.
        assert!((found - expected).abs() <= 0.05, "{when}");
    }
}

/// Four domains that never sleep on two CPUs: shares by weight, by reservation, and with affinities, changed while they run.
#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn shares_of_the_cpus_follow_what_is_asked_and_algorithms_are_exchanged_live() -> Result<()> {
    let mut scenario = Scenario::new("pool-shares");
    let weights = [1, 2, 2, 3];
    for (weight, number) in weights.into_iter().zip(1..) {
        scenario.domains.push(hog("pool-shares")?);
        let node = format!("/chosen/domain@{number}");
        scenario = scenario.with_edit(Edit::cells(&node, "baton,cpu-weight", &[weight]));
    }
    // Time is instructions here, 1 ns each: a CPU whose thread the host lets wait isn't charged for that.
    scenario.qemu_args = ["-icount", "shift=0,sleep=off"].map(str::to_owned).to_vec();
    let machine = Machine::boot(&scenario, LIMIT)?;
    let pool = machine.ask("pool list")?.join("\n");
    assert!(
        pool.contains("pool id=0 scheduler=weighted cpus=0,1 vcpus=4"),
        "{pool}"
    );
    let time = Duration::from_secs(2);
    let eighths: Vec<f64> = weights
        .iter()
        .map(|weight| f64::from(*weight) / 8.0)
        .collect();
    assert_parts(&parts(&machine, time)?, &eighths, "by weights");

    machine.ask("domain set d1.weight 3")?;
    machine.ask("domain set d4.weight 1")?;
    let eighths: Vec<f64> = [3.0, 2.0, 2.0, 1.0].map(|weight| weight / 8.0).to_vec();
    assert_parts(&parts(&machine, time)?, &eighths, "by other weights");

    // Four vCPUs on two CPUs: not this one; and what was stays.
    let refusal = machine.refusal("pool set 0 scheduler null")?;
    assert!(refusal.contains("more vCPUs than CPUs"), "{refusal}");

    machine.ask("pool set 0 scheduler deadline")?;
    machine.ask("domain set d4.reservation 8000/10000")?;
    let refusal = machine.refusal("domain set d3.reservation 99990/100000")?;
    assert!(refusal.contains("more time reserved"), "{refusal}");
    let found = parts(&machine, time)?;
    eprintln!("d4 with 80 % of a CPU: {found:.4?}");
    assert!(found[3] >= 0.4 - 0.02, "{found:?}");

    machine.ask("domain set d4.reservation none")?;
    machine.ask("pool set 0 scheduler weighted")?;
    for domain in ["d1", "d2", "d3", "d4"] {
        machine.ask(&format!("domain set {domain}.weight 1"))?;
    }
    for domain in ["d1", "d2", "d3"] {
        machine.ask(&format!("domain set {domain}.affinity 0"))?;
    }
    machine.ask("domain set d4.affinity 1")?;
    let expected = [1.0 / 6.0, 1.0 / 6.0, 1.0 / 6.0, 0.5];
    assert_parts(&parts(&machine, time)?, &expected, "with affinities");
    let all = vcpus(&machine)?;
    assert!(all.iter().all(|vcpu| text(vcpu, "pool") == "0"), "{all:?}");
    assert_eq!(text(&all[3], "cpu"), "1");
    let migrations: u64 = all.iter().map(|vcpu| number(vcpu, "migrations")).sum();
    assert!(migrations > 0, "{all:?}");
    machine.finish()
}

/// Eight domains of two vCPUs each on two CPUs: all kernels bring up both, all do their jobs, while algorithms are exchanged under them.
#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn eight_domains_of_two_vcpus_work_on_two_cpus() -> Result<()> {
    let mut scenario = Scenario::new("pool-eight");
    scenario.edu_devices = 1;
    let mut edu = CoprocSpec::edu(1);
    edu.slice_us = 300_000;
    scenario.coprocs.push(edu);
    for number in 1..=8 {
        let bootargs = format!("panic=-1 {}", workload(number, "jobs=2"));
        let mut domain = DomainSpec::linux(0, &bootargs).with_coproc(0);
        domain.vcpus = 2;
        domain.affinity = Vec::new();
        domain.memory_kib = 192 << 10;
        scenario.domains.push(domain);
    }
    let machine = Machine::boot(&scenario, LIMIT)?;
    let names: Vec<String> = (1..=8).map(|number| format!("d{number}")).collect();
    machine.ask("pool set 0 scheduler deadline")?;
    machine.wait_domain("d1", "both CPUs", PATIENCE, |text| {
        text.contains("Brought up 1 node, 2 CPUs").then_some(())
    })?;
    machine.ask("pool set 0 scheduler weighted")?;
    for name in &names {
        machine.wait_domain(name, "both CPUs", PATIENCE, |text| {
            text.contains("Brought up 1 node, 2 CPUs").then_some(())
        })?;
    }
    for name in &names {
        let done = machine.done(name)?;
        assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (2, 0));
    }
    let all = vcpus(&machine)?;
    assert_eq!(all.len(), 16);
    for vcpu in &all {
        assert!(number(vcpu, "ran_ns") > 0, "{vcpu:?}");
        assert!(number(vcpu, "switches") > 0, "{vcpu:?}");
    }
    let migrations: u64 = all.iter().map(|vcpu| number(vcpu, "migrations")).sum();
    assert!(migrations > 0, "{all:?}");
    machine.finish()
}

/// Two firmwares share a core 3 : 1 while their domains get hardly any CPU, and while the algorithm for CPUs changes: the shares hold.
#[test]
fn shares_of_a_coproc_hold_while_vcpus_starve() -> Result<()> {
    let ramdisk = Artifacts::get()?.firmware_initramfs()?;
    let options = "mode=meter seconds=600";
    let mut scenario = Scenario::firmware("pool-starved", 2, &ramdisk, &[options, options]);
    scenario.coprocs[0].scheduler = "weighted".to_owned();
    scenario.domains.push(hog("pool-starved")?);
    // As above: what the emulator's threads wait for on a busy host is nobody's share.
    scenario.qemu_args = ["-icount", "shift=0,sleep=off"].map(str::to_owned).to_vec();
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        machine.wait_domain(name, "its firmware", PATIENCE, |text| {
            text.starts_with("workload: progress").then_some(())
        })?;
    }
    machine.ask("coproc set 0 d1.weight 3")?;
    // From here on the two have a thousandth of the only CPU.
    machine.ask("domain set d3.weight 2000")?;
    let share = |when: &str| -> Result<()> {
        let start = machine.query()?;
        let ran = |list: &[Record]| {
            list.iter()
                .map(|vcpu| number(vcpu, "ran_ns"))
                .collect::<Vec<_>>()
        };
        let cpu = ran(&vcpus(&machine)?);
        let charge = |report: &CoprocReport, name| number(vcoproc(report, name), "charge_ns");
        // Under -icount the emulator goes on with one CPU for up to 100 ms at a time, whatever the other one's timer wants, when something is
        // typed: here, at the queries. Such a slice becomes a debt, which isn't paid yet if the last query made it.
        let end = poll("seconds of the core's time", PATIENCE, || {
            let report = machine.query()?;
            let total = charge(&report, "d1") + charge(&report, "d2")
                - charge(&start, "d1")
                - charge(&start, "d2");
            let enough = total >= 2_000_000_000.max(20 * longest_slice(&report, 0));
            Ok(enough.then_some(report))
        })?;
        let after = ran(&vcpus(&machine)?);
        let used: Vec<u64> = after.iter().zip(&cpu).map(|(a, b)| a - b).collect();
        let first = charge(&end, "d1") - charge(&start, "d1");
        let second = charge(&end, "d2") - charge(&start, "d2");
        let part = first as f64 / (first + second) as f64;
        let debt = longest_slice(&end, 0) as f64 / (first + second) as f64;
        let tolerance = 0.02 + debt;
        eprintln!(
            "{when}: d1 has {part:.4} of the core, the longest slice was {debt:.4} of the time; CPU time {used:?} ns"
        );
        assert!((part - 0.75).abs() <= tolerance, "{when}: {part:.4}");
        let all: u64 = used.iter().sum();
        assert!(
            used[2] * 100 >= all * 85,
            "{when}: the others don't starve: {used:?}"
        );
        Ok(())
    };
    share("weighted")?;
    machine.ask("pool set 0 scheduler deadline")?;
    share("deadline")?;
    machine.ask("pool set 0 scheduler weighted")?;
    share("weighted again")?;
    machine.finish()
}

/// Two pools, each with its algorithm: a domain has its CPU for itself, whatever the three others do on theirs, which share it by weight.
#[test]
fn pools_keep_to_their_cpus() -> Result<()> {
    let mut scenario = Scenario::new("pool-two");
    let mut own = DomainSpec::linux(0, &format!("panic=-1 {}", workload(1, "jobs=4")));
    own.affinity = Vec::new();
    scenario.edu_devices = 1;
    scenario.coprocs.push(CoprocSpec::edu(1));
    scenario.domains.push(own.with_coproc(0));
    for _ in 0..3 {
        scenario.domains.push(hog("pool-two")?);
    }
    let pools = "/chosen/cpu-pools";
    scenario = scenario
        .with_edit(Edit::add_node(pools))
        .with_edit(Edit::string(pools, "compatible", "baton,cpu-pools"))
        .with_edit(Edit::cells(pools, "#address-cells", &[1]))
        .with_edit(Edit::cells(pools, "#size-cells", &[0]));
    for (number, scheduler) in [(0, "null"), (1, "weighted")] {
        let node = format!("{pools}/pool@{number}");
        scenario = scenario
            .with_edit(Edit::add_node(&node))
            .with_edit(Edit::cells(&node, "reg", &[number]))
            .with_edit(Edit::cells(&node, "cpus", &[number]))
            .with_edit(Edit::cells(&node, "phandle", &[0x7000 + number]))
            .with_edit(Edit::string(&node, "scheduler", scheduler));
    }
    for (domain, pool) in [(1, 0), (2, 1), (3, 1), (4, 1)] {
        let node = format!("/chosen/domain@{domain}");
        scenario = scenario.with_edit(Edit::cells(&node, "baton,cpu-pool", &[0x7000 + pool]));
    }
    let machine = Machine::boot(&scenario, LIMIT)?;
    let list = machine.ask("pool list")?.join("\n");
    for line in [
        "pool id=0 scheduler=null cpus=0 vcpus=1",
        "pool id=1 scheduler=weighted cpus=1 vcpus=3",
    ] {
        assert!(list.contains(line), "{list}");
    }
    let done = machine.done("d1")?;
    assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (4, 0));
    let all = vcpus(&machine)?;
    for vcpu in &all {
        let (pool, cpu) = (text(vcpu, "pool"), text(vcpu, "cpu"));
        assert_eq!(pool, cpu, "{vcpu:?}");
        assert_eq!(pool == "0", text(vcpu, "domain") == "d1", "{vcpu:?}");
        assert_eq!(number(vcpu, "migrations"), 0, "{vcpu:?}");
    }
    // What one pool may do, the other may not: there is one CPU for three.
    let refusal = machine.refusal("pool set 1 scheduler null")?;
    assert!(refusal.contains("more vCPUs than CPUs"), "{refusal}");
    machine.ask("pool set 0 scheduler weighted")?;
    machine.finish()
}
