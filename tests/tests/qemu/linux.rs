//! Unmodified Debian kernels as witnesses: what they say about the machine they were given.

use anyhow::{Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number, text};
use qemu_boot::report::Record;
use qemu_boot::setup::kernel::{Kernel, Series};
use qemu_boot::setup::stress::Stress;
use qemu_boot::{Artifacts, DomainSpec, Scenario};

/// How long the domains are under stress: as long as the kernels' own watchdogs need twice over (soft lockup 20 s, RCU stall 21 s).
const STRESS_SECONDS: u64 = 60;
/// How long where it's only about whether the programs run.
const SHORT_SECONDS: u64 = 3;

/// Domains of so many vCPUs each, which take turns on two CPUs, with a kernel of this series and the init `kernel-check`.
fn domains(name: &str, series: Series, vcpus: &[u32], options: &str) -> Result<Scenario> {
    let artifacts = Artifacts::get()?;
    let kernel = Kernel::of(artifacts.workspace(), series)?;
    let mut archive = artifacts.initramfs_with("kernel-check")?;
    Stress::ensure(artifacts.workspace())?.add_to(&mut archive)?;
    let ramdisk = artifacts.save_initramfs("kernel-check", archive)?;
    let mut scenario = Scenario::new(name);
    for (&vcpus, number) in vcpus.iter().zip(0..) {
        let mut domain = DomainSpec::linux(0, &format!("quiet panic=-1 {options}"));
        domain.vcpus = vcpus;
        domain.affinity = (0..vcpus).map(|vcpu| (number + vcpu) % 2).collect();
        domain.memory_kib = 384 << 10;
        domain.kernel = Some(kernel.image.clone());
        domain.ramdisk = Some(ramdisk.clone());
        scenario.domains.push(domain);
    }
    Ok(scenario)
}

/// Waits for a line of the domain's init; its values.
fn line(machine: &Machine, domain: &str, kind: &str) -> Result<Record> {
    let start = format!("check: {kind} ");
    machine.wait_domain(domain, kind, PATIENCE, |text| {
        text.strip_prefix(&start)
            .map(|values| Record::parse(&format!("{kind} {values}")))
    })
}

/// The kernel came to its end with this many CPUs, moved to where its seed told it, and has nothing to complain about.
fn assert_content(machine: &Machine, domain: &str, vcpus: u32) -> Result<()> {
    let done = line(machine, domain, "done")?;
    let said: Vec<_> = machine.output(domain);
    let complaints = said.iter().filter(|line| line.contains("complaint: "));
    ensure!(
        number(&done, "complaints") == 0,
        "{domain}: {:#?}",
        complaints.collect::<Vec<_>>()
    );
    assert_eq!(
        number(&done, "cpus"),
        u64::from(vcpus),
        "{domain}: {done:?}"
    );
    assert_eq!(text(&done, "kaslr"), "true", "{domain}: {done:?}");
    Ok(())
}

/// Kernels with 1, 2 and 4 vCPUs on the same two CPUs at once find all their CPUs, and take each of them down and up again.
fn boots_and_hotplugs(name: &str, series: Series) -> Result<()> {
    const VCPUS: [u32; 3] = [1, 2, 4];
    const ROUNDS: u64 = 4;
    let scenario = domains(name, series, &VCPUS, &format!("check.hotplug={ROUNDS}"))?;
    let machine = Machine::boot(&scenario, LIMIT)?;
    for (domain, vcpus) in ["d1", "d2", "d3"].into_iter().zip(VCPUS) {
        let kernel = line(&machine, domain, "kernel")?;
        assert!(
            text(&kernel, "release").starts_with(series.version()),
            "{kernel:?}"
        );
        assert_eq!(number(&kernel, "cpus"), u64::from(vcpus), "{kernel:?}");
        let hotplug = line(&machine, domain, "hotplug")?;
        let times = ROUNDS * u64::from(vcpus - 1);
        for key in ["downs", "ups"] {
            assert_eq!(number(&hotplug, key), times, "{domain}: {hotplug:?}");
        }
        assert_content(&machine, domain, vcpus)?;
    }
    machine.finish()
}

#[test]
fn debian_6_1_boots_on_any_number_of_vcpus_and_hotplugs_them() -> Result<()> {
    boots_and_hotplugs("linux-6.1", Series::V6_1)
}

#[test]
fn debian_6_12_boots_on_any_number_of_vcpus_and_hotplugs_them() -> Result<()> {
    boots_and_hotplugs("linux-6.12", Series::V6_12)
}

/// Two domains, of two vCPUs each, one with each kernel, run Debian's `stress-ng` and `cyclictest` on the same two CPUs for a minute: every
/// class gets on, everything that it verifies is right, every timer comes, and neither kernel complains.
#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn two_domains_under_stress_for_a_minute_have_nothing_to_complain_about() -> Result<()> {
    let options = format!("check.stress={STRESS_SECONDS}");
    let mut scenario = domains("linux-stress", Series::V6_1, &[2, 2], &options)?;
    let newer = Kernel::of(Artifacts::get()?.workspace(), Series::V6_12)?;
    scenario.domains[1].kernel = Some(newer.image);
    let machine = Machine::boot(&scenario, LIMIT)?;
    for domain in ["d1", "d2"] {
        let stress = assert_stress(&machine, domain, STRESS_SECONDS)?;
        for class in ["cpu", "vm", "switch", "timer", "futex"] {
            assert!(number(&stress, class) > 0, "{domain}: {class}: {stress:?}");
        }
    }
    machine.finish()
}

/// Debian's programs choose their functions by what the kernel says of the CPU: on one with every feature that QEMU knows they work, too.
#[test]
fn debian_s_programs_work_on_a_cpu_with_every_feature() -> Result<()> {
    let options = format!("check.stress={SHORT_SECONDS}");
    let mut scenario = domains("linux-max", Series::V6_12, &[2], &options)?;
    scenario.cpu = "max".to_owned();
    let machine = Machine::boot(&scenario, LIMIT)?;
    assert_stress(&machine, "d1", SHORT_SECONDS)?;
    machine.finish()
}

/// All that `stress-ng` verifies is right, `cyclictest`'s timers come, for so many seconds; and the kernel doesn't complain. Returns how far
/// each class came.
fn assert_stress(machine: &Machine, domain: &str, seconds: u64) -> Result<Record> {
    let stress = line(machine, domain, "stress-ng")?;
    assert_eq!(text(&stress, "exit"), "0", "{domain}: {stress:?}");
    assert_eq!(number(&stress, "failures"), 0, "{domain}: {stress:?}");
    let cyclic = line(machine, domain, "cyclictest")?;
    eprintln!("{domain}: {cyclic:?}");
    assert_eq!(text(&cyclic, "exit"), "0", "{domain}: {cyclic:?}");
    assert_eq!(number(&cyclic, "threads"), 2, "{domain}: {cyclic:?}");
    // Latencies are the emulator's and its host's. That the timers never stopped is Baton's.
    assert!(
        number(&cyclic, "wakeups") >= seconds,
        "{domain}: {cyclic:?}"
    );
    assert_content(machine, domain, 2)?;
    Ok(stress)
}
