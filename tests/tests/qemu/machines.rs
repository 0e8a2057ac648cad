//! Machines other than the usual one: the same images and the same configuration, another interrupt controller, other CPUs, more or
//! fewer of them, other amounts of memory; and another board.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, number, text};
use qemu_boot::report::{Origin, Record};
use qemu_boot::scenario::Edit;
use qemu_boot::{CoprocSpec, DomainSpec, Scenario};

use crate::workload;

/// What of a machine differs.
struct Board {
    name: &'static str,
    gic: u32,
    cpu: &'static str,
    cpus: u32,
    memory_mib: u32,
}

impl Board {
    /// A machine of this kind with an edu, which these domains share: vCPUs' CPUs, memory in MiB, and more options.
    fn scenario(&self, domains: &[(&[u32], u64, &str)]) -> Scenario {
        let mut scenario = Scenario::new(self.name);
        scenario.gic = self.gic;
        scenario.cpu = self.cpu.to_owned();
        scenario.cpus = self.cpus;
        scenario.memory_mib = self.memory_mib;
        scenario.edu_devices = 1;
        scenario.coprocs.push(CoprocSpec::edu(1));
        for ((affinity, memory, options), number) in domains.iter().zip(1..) {
            // Not quiet: the kernel's own line is what counts.
            let bootargs = format!("panic=-1 {}", workload(number, options));
            let mut domain = DomainSpec::linux(0, &bootargs).with_coproc(0);
            domain.vcpus = affinity.len() as u32;
            domain.affinity = affinity.to_vec();
            domain.memory_kib = memory << 10;
            scenario.domains.push(domain);
        }
        scenario
    }
}

/// Waits until the domain's kernel has all its vCPUs.
fn has_cpus(machine: &Machine, domain: &str, count: usize) -> Result<()> {
    let line = match count {
        1 => "Brought up 1 node, 1 CPU".to_owned(),
        _ => format!("Brought up 1 node, {count} CPUs"),
    };
    machine.wait_domain(domain, "all its CPUs", PATIENCE, |text| {
        text.contains(&line).then_some(())
    })
}

fn works(machine: &Machine, domain: &str, jobs: u64) -> Result<()> {
    let done = machine.done(domain)?;
    assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (jobs, 0));
    assert!(number(&done, "interrupts") > 0, "{done:?}");
    Ok(())
}

/// Two domains of two vCPUs each share an edu on a GICv2. Linux's calls to other CPUs are SGIs, whose sender it reads; the device's
/// and the console's interrupts come by the distributor; timers are hardware-linked.
#[test]
fn gicv2_domains_share_a_device() -> Result<()> {
    let board = Board {
        name: "gicv2",
        gic: 2,
        cpu: "cortex-a57",
        cpus: 2,
        memory_mib: 3072,
    };
    let machine = Machine::boot(
        &board.scenario(&[
            (&[0, 1], 512, "jobs=6 wait=1"),
            (&[1, 0], 512, "jobs=6 wait=1"),
        ]),
        LIMIT,
    )?;
    for name in ["d1", "d2"] {
        has_cpus(&machine, name, 2)?;
    }
    for name in ["d1", "d2"] {
        // Typed, so it comes by the UART's interrupt to Baton and by the domain's to its program.
        machine.release(name)?;
    }
    for name in ["d1", "d2"] {
        works(&machine, name, 6)?;
    }
    assert_books(&machine.query()?);
    machine.finish()
}

/// One in-order core and 512 MiB are enough for a domain of 192 MiB.
#[test]
fn a_small_machine() -> Result<()> {
    let board = Board {
        name: "small-machine",
        gic: 3,
        cpu: "cortex-a53",
        cpus: 1,
        memory_mib: 512,
    };
    let machine = Machine::boot(&board.scenario(&[(&[0], 192, "jobs=2")]), LIMIT)?;
    works(&machine, "d1", 2)?;
    core_is(
        &machine,
        "speculative translation, cache cleaning",
        "not affected",
    )?;
    machine.finish()
}

/// What Baton says about its cores at boot.
fn core_is(machine: &Machine, errata: &str, predictor: &str) -> Result<()> {
    let wanted = format!("errata worked around: {errata}; branch predictor: {predictor}");
    machine.wait("its cores' errata", PATIENCE, |origin, text| {
        (origin == Origin::Baton && text.ends_with(&wanted)).then_some(())
    })
}

/// Four CPUs of another kind, with a GICv2: each domain has two of them for itself. At each exit of a guest the firmware is called first, as
/// the configuration wants; QEMU's has no remedy, but it answers.
#[test]
fn four_cpus_with_a_gicv2() -> Result<()> {
    let board = Board {
        name: "four-cpus",
        gic: 2,
        cpu: "cortex-a72",
        cpus: 4,
        memory_mib: 2048,
    };
    let scenario = board
        .scenario(&[(&[3, 1], 256, "jobs=2"), (&[0, 2], 256, "jobs=2")])
        .with_edit(Edit::string("/chosen", "baton,branch-hardening", "on"));
    let machine = Machine::boot(&scenario, LIMIT)?;
    core_is(
        &machine,
        "speculative translation",
        "firmware is called at each exit",
    )?;
    for name in ["d1", "d2"] {
        has_cpus(&machine, name, 2)?;
    }
    for name in ["d1", "d2"] {
        works(&machine, name, 2)?;
    }
    machine.finish()
}

/// Eight CPUs with every feature that QEMU knows, and 8 GiB: a domain may have a vCPU on each.
#[test]
fn a_large_machine() -> Result<()> {
    let board = Board {
        name: "large-machine",
        gic: 3,
        cpu: "max",
        cpus: 8,
        memory_mib: 8192,
    };
    let machine = Machine::boot(
        &board.scenario(&[(&[0, 1, 2, 3, 4, 5, 6, 7], 1024, "jobs=2")]),
        LIMIT,
    )?;
    has_cpus(&machine, "d1", 8)?;
    works(&machine, "d1", 2)?;
    machine.finish()
}

/// A Raspberry Pi 4 as Linux's own device tree describes it: RAM from address 0, a GIC-400 behind a bus that moves addresses, CPUs that wait in a
/// spin table, the console on the mini-UART, and no PSCI. Debian's kernel has a vCPU on each of the CPUs, and reads what is typed.
#[test]
fn raspi4b_boots_a_debian_domain() -> Result<()> {
    let mut scenario = Scenario::raspi4b("raspi4b");
    let bootargs = format!("panic=-1 {}", workload(1, "mode=idle wait=1"));
    let mut domain = DomainSpec::linux(0, &bootargs);
    domain.vcpus = 4;
    domain.affinity = vec![0, 1, 2, 3];
    domain.memory_kib = 256 << 10;
    scenario.domains.push(domain);
    let machine = Machine::boot(&scenario, LIMIT)?;
    has_cpus(&machine, "d1", 4)?;
    // Typed at the mini-UART, which interrupts.
    machine.release("d1")?;
    machine.wait_domain("d1", "its program", PATIENCE, |text| {
        (text == "workload: ready").then_some(())
    })?;
    let vcpus = machine.ask("vcpu list")?;
    let vcpus: Vec<Record> = vcpus
        .iter()
        .map(|line| Record::parse(line))
        .filter(|record| record.kind == "vcpu")
        .collect();
    let cpus: Vec<String> = vcpus.iter().map(|vcpu| text(vcpu, "cpu")).collect();
    assert_eq!(cpus, ["0", "1", "2", "3"], "{vcpus:?}");
    for vcpu in &vcpus {
        assert!(number(vcpu, "ran_ns") > 0, "{vcpu:?}");
    }
    // What the board doesn't have costs a warning, and nothing else does.
    let warnings: Vec<String> = machine.wait_baton("all that boot said", PATIENCE, {
        let mut warnings = Vec::new();
        move |text| {
            warnings.extend(text.strip_prefix("warning: ").map(str::to_owned));
            text.contains(" domains, ").then(|| warnings.clone())
        }
    })?;
    assert_eq!(
        warnings,
        ["no IOMMU: no PCI function can be shared, and no other device that does DMA"]
    );
    assert_eq!(machine.errors(), [""; 0]);
    machine.finish()
}

/// There too, what Baton can't use is told, although no driver is at work yet.
#[test]
fn raspi4b_tells_what_it_lacks() {
    let scenario = Scenario::raspi4b("raspi4b-lacks")
        .with_edit(Edit::remove_node("/soc/interrupt-controller@40041000"));
    let error = match Machine::boot(&scenario, LIMIT) {
        Ok(_) => panic!("Baton started without an interrupt controller"),
        Err(error) => format!("{error:#}"),
    };
    assert!(
        error.contains("fatal: /: no interrupt controller"),
        "{error}"
    );
}

/// A CPU whose word of the spin table isn't memory, or isn't the one that it polls, stays off, and costs the others nothing.
#[test]
fn raspi4b_goes_on_without_cpus_that_do_not_come() -> Result<()> {
    let release = |cpu, at| Edit::cells(&format!("/cpus/cpu@{cpu}"), "cpu-release-addr", &[0, at]);
    // The UART; and a word that nobody polls.
    let mut scenario = Scenario::raspi4b("raspi4b-cpus")
        .with_edit(release(1, 0xfe21_5040))
        .with_edit(release(3, 0x100_0000));
    let bootargs = format!("panic=-1 {}", workload(1, "mode=idle"));
    let mut domain = DomainSpec::linux(0, &bootargs);
    domain.vcpus = 2;
    domain.affinity = vec![2, 0];
    domain.memory_kib = 192 << 10;
    scenario.domains.push(domain);
    let machine = Machine::boot(&scenario, LIMIT)?;
    for warning in [
        "CPU 0x1 stays off: cpu-release-addr: 0xfe215040 is not a word of RAM",
        "CPU 0x3 was started but did not come",
    ] {
        machine.wait_baton(warning, PATIENCE, |text| {
            text.contains(warning).then_some(())
        })?;
    }
    has_cpus(&machine, "d1", 2)?;
    machine.wait_domain("d1", "its program", PATIENCE, |text| {
        (text == "workload: ready").then_some(())
    })?;
    machine.finish()
}
