//! Message-signalled interrupts, of a function that a domain has alone and of one that two domains share.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE};
use qemu_boot::{Artifacts, CoprocSpec, DomainSpec, Scenario, bench};

/// A bare-metal guest programs the frame and edu's capability: each interrupt is one message, masked ones wait, none is lost that is
/// raised while nobody looks, none goes where there is no frame. Two more share another edu, and each computation is told by a
/// message. Linux finds the frame.
#[test]
fn functions_interrupt_by_messages() -> Result<()> {
    let artifacts = Artifacts::get()?;
    let guest = bench::guest(artifacts.workspace())?;
    let devices = artifacts.save_initramfs("messages", artifacts.initramfs_with("devices")?)?;
    let mut scenario = Scenario::new("messages");
    scenario.edu_devices = 2;
    scenario.coprocs = vec![CoprocSpec::edu(1), CoprocSpec::edu(2)];
    for (cpu, part, device) in [(0, "share", 0), (1, "share", 0), (1, "messages", 1)] {
        let mut domain = DomainSpec::linux(cpu, &format!("bench={part}")).with_coproc(device);
        domain.kernel = Some(guest.clone());
        domain.memory_kib = 64 << 10;
        scenario.domains.push(domain);
    }
    let mut linux = DomainSpec::linux(0, "panic=-1");
    linux.memory_kib = 256 << 10;
    linux.ramdisk = Some(devices);
    scenario.domains.push(linux);

    let machine = Machine::boot(&scenario, LIMIT)?;
    for (name, messages) in [("d1", 40), ("d2", 40), ("d3", 121)] {
        machine.wait_domain(name, "its last line", PATIENCE, |line| {
            let last = line == "bench: done" || line.contains("error");
            last.then(|| line.to_owned())
        })?;
        let output = machine.output(name);
        let told = output.iter().find_map(|line| {
            let count = line.strip_prefix("bench: messages=")?;
            count.parse::<u32>().ok()
        });
        assert_eq!(told, Some(messages), "{name}: {output:?}");
    }
    machine.wait_domain("d4", "the frame's driver", PATIENCE, |line| {
        let found = line.contains("GICv2m: range[mem 0x08020000-0x08020fff], SPI[80:143]");
        found.then_some(())
    })?;
    // A domain that is off has no vcoproc any more, but it had its slices.
    let report = machine.query()?;
    for name in ["d1", "d2"] {
        let slices = report.slices.iter().filter(|slice| slice.domain == name);
        assert!(slices.count() > 1, "{name}: {report:?}");
    }
    machine.finish()
}
