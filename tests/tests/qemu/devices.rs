//! The devices that a domain expects of its board, seen by an unmodified Linux.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number, poll, text};
use qemu_boot::demo::{self, ENTER};
use qemu_boot::device_tree::{Node, Tree};
use qemu_boot::machine_tree::{Defaults, Module, configure};
use qemu_boot::report::Record;
use qemu_boot::scenario::{Action, Edit};
use qemu_boot::setup::firmware::Firmware;
use qemu_boot::{Artifacts, CoprocSpec, DomainSpec, Scenario, SharedMemorySpec, bench, disk};

use crate::lifecycle::Program;

/// Their initial RAM file system, with this file.
fn ramdisk(name: &str, file: Option<(&str, &[u8])>) -> Result<PathBuf> {
    let artifacts = Artifacts::get()?;
    let mut archive = artifacts.initramfs_with("devices")?;
    archive.file("bin/batonctl", 0o755, &artifacts.program("batonctl")?)?;
    if let Some((path, bytes)) = file {
        archive.file(path, 0o644, bytes)?;
    }
    artifacts.save_initramfs(name, archive)
}

/// Domains whose init is the program `devices`, with these options.
fn domains(name: &str, options: &[&str]) -> Result<Scenario> {
    let ramdisk = ramdisk("devices", None)?;
    let mut scenario = Scenario::new(name);
    for (cpu, options) in (0..).zip(options) {
        let mut domain = DomainSpec::linux(cpu, &format!("quiet panic=-1 {options}"));
        domain.memory_kib = 256 << 10;
        domain.ramdisk = Some(ramdisk.clone());
        scenario.domains.push(domain);
    }
    Ok(scenario)
}

/// Debian's U-Boot and UEFI, built for QEMU's board, start at address 0 as they do there, find their device tree and their flash,
/// and come to their prompts, with either GIC. U-Boot's environment, saved, is in the flash. Each boots Debian's kernel from an NVMe disk of its own
/// (with a GICv3).
#[test]
fn firmware_for_qemu_comes_to_its_prompt() -> Result<()> {
    let artifacts = Artifacts::get()?;
    let firmware = Firmware::ensure(artifacts.workspace())?;
    let disk = artifacts.workspace().images()?.join("firmware.img");
    let kernel = std::fs::read(&artifacts.kernel.image)?;
    let ramdisk = artifacts.initramfs_with("kernel-check")?.finish()?;
    disk::fat(&disk, DISK_BYTES, &[(KERNEL, &kernel), (RAMDISK, &ramdisk)])?;
    for gic in [3, 2] {
        let mut scenario = Scenario::new(&format!("firmware-gic{gic}"));
        scenario.gic = gic;
        for (file, slot) in [&firmware.u_boot, &firmware.uefi].into_iter().zip(1..) {
            let kind = format!("nvme,serial={slot}");
            let device = scenario.add_disk(slot, &kind, &disk, ",snapshot=on");
            let mut domain = DomainSpec::firmware(slot - 1, file.clone()).with_device(&device);
            domain.vcpus = 2;
            domain.affinity = vec![0, 1];
            scenario.domains.push(domain);
        }
        let machine = Machine::boot(&scenario, LIMIT)?;
        machine.wait_domain("d1", "U-Boot's flash", PATIENCE, |line| {
            line.starts_with("Flash: 64 MiB").then_some(())
        })?;
        // UEFI waits for keys, first when it has cleared the screen, and goes on by itself later.
        machine.wait_prompt("[d2] \x1b[2J")?;
        machine.ask("console d2")?;
        machine.send(ENTER)?;
        machine.wait_prompt("or any other key to continue")?;
        machine.send(ENTER)?;
        for prompt in ["[d1] => ", "Shell> "] {
            machine.wait_prompt(prompt)?;
        }
        demo::enter_baton(&machine)?;
        // Where QEMU's second bank is; a checksum, then the first variable: "arch".
        machine.ask("console d1")?;
        machine.send(&format!("saveenv; md.l 4000004 1{ENTER}"))?;
        let saved = machine.wait_domain("d1", "its flash's contents", PATIENCE, |line| {
            line.strip_prefix("04000004: ").map(str::to_owned)
        })?;
        assert!(saved.starts_with("68637261"), "{saved}");
        if gic == 3 {
            firmware_boots_debian(&machine)?;
        } else {
            demo::enter_baton(&machine)?;
        }
        machine.finish()?;
    }
    Ok(())
}

/// U-Boot in d1 and UEFI in d2, at their prompts with the input at d1, boot what is on their disks.
fn firmware_boots_debian(machine: &Machine) -> Result<()> {
    // Lines longer than a UART's FIFO, typed at once.
    machine.send(&format!(
        "nvme scan; load nvme 0 $kernel_addr_r {KERNEL}; load nvme 0 $ramdisk_addr_r {RAMDISK}{ENTER}"
    ))?;
    machine.send(&format!(
        "setenv bootargs {LINE}; booti $kernel_addr_r $ramdisk_addr_r:$filesize $fdtcontroladdr{ENTER}"
    ))?;
    demo::enter_baton(machine)?;
    machine.ask("console d2")?;
    machine.send(&format!("fs0:\\{KERNEL} initrd=\\{RAMDISK} {LINE}{ENTER}"))?;
    demo::enter_baton(machine)?;
    for (domain, efi) in [("d1", "false"), ("d2", "true")] {
        let check = |kind: &str| {
            let start = format!("check: {kind} ");
            machine.wait_domain(domain, kind, PATIENCE, |line| {
                line.strip_prefix(&start).map(Record::parse)
            })
        };
        let kernel = check("kernel")?;
        assert_eq!(text(&kernel, "efi"), efi, "{kernel:?}");
        assert_eq!(number(&kernel, "cpus"), 2, "{kernel:?}");
        let done = check("done")?;
        assert_eq!(number(&done, "complaints"), 0, "{domain}: {done:?}");
    }
    Ok(())
}

/// On the disk that firmware boots from.
const KERNEL: &str = "linux.efi";
const RAMDISK: &str = "initrd.cpio";
const DISK_BYTES: u64 = 64 << 20;
/// The kernel's command line.
const LINE: &str = "console=ttyAMA0 quiet panic=-1";

/// A bare-metal guest sets its physical timer ahead and to the past: it interrupts, ends a WFI, and reads as the architecture says.
#[test]
fn the_physical_timer_fires_for_its_vcpu() -> Result<()> {
    let guest = bench::guest(Artifacts::get()?.workspace())?;
    let mut scenario = Scenario::new("physical-timer");
    // Two of them on one CPU: each one's timer goes on while the other one runs.
    for _ in 0..2 {
        let mut domain = DomainSpec::linux(0, "bench=timer");
        domain.kernel = Some(guest.clone());
        scenario.domains.push(domain);
    }
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        let last = machine.wait_domain(name, "its last line", PATIENCE, |line| {
            let last = line == "bench: done" || line.contains("error");
            last.then(|| line.to_owned())
        })?;
        assert_eq!(last, "bench: done", "{name}");
    }
    machine.finish()
}

/// Two domains that share memory each see it as a function that `uio_pci_generic` drives: it is zero at first, what the one
/// writes the other one reads, and each ring is one interrupt.
#[test]
fn domains_share_memory_and_ring_each_other() -> Result<()> {
    let mut scenario = domains("shared-memory", &["devices.shared"; 2])?;
    scenario.shared_memory.push(SharedMemorySpec {
        size: 64 << 10,
        domains: vec![1, 0],
    });
    let machine = Machine::boot(&scenario, LIMIT)?;
    for (name, peer) in [("d1", 1), ("d2", 0)] {
        let found = machine.wait_domain(name, "the exchange", PATIENCE, |line| {
            line.strip_prefix("devices: shared").map(Record::parse)
        })?;
        let expected = [
            ("peer", peer),
            ("size", 64 << 10),
            ("interrupts", 1),
            ("status", 1),
            ("again", 0),
            ("late", 0),
            ("wrong", 0),
        ];
        for (key, value) in expected {
            assert_eq!(number(&found, key), value, "{name}: {key}: {found:?}");
        }
    }
    machine.finish()
}

/// A file with domains 3 and 4, whose kernel lies there. Each has 16 MiB.
fn definitions(kernel: &Module) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    let mut chosen = Node::new("chosen");
    for number in [3, 4] {
        let mut node = Node::new(format!("domain@{number}"));
        node.set_strings("compatible", &["xen,domain"])
            .set_cells("#address-cells", &[2])
            .set_cells("#size-cells", &[2])
            .set_cells("cpus", &[1])
            .set_cells("memory", &[0, 16 << 10])
            .set("vpl011", []);
        let mut module = Node::new("module");
        let place = [kernel.address, kernel.size].map(u64::to_be_bytes);
        module
            .set_strings("compatible", &["multiboot,kernel"])
            .set("reg", place.as_flattened());
        node.children.push(module);
        chosen.children.push(node);
    }
    // What isn't about domains, and too much of it: batonctl leaves it out.
    let mut soc = Node::new("soc");
    soc.set("large", [7; 5000]);
    tree.root.children = vec![soc, chosen];
    tree.to_blob()
}

/// A domain with `baton,control` asks and does from a program what a person does on the console; one without can't.
#[test]
fn a_domain_that_may_manages_baton() -> Result<()> {
    let mut scenario = domains("management", &["devices.manage"; 2])?.with_edit(Edit {
        node: "/chosen/domain@1".into(),
        action: Action::Set("baton,control".into(), Vec::new()),
    });
    scenario.edu_devices = 1;
    scenario.coprocs.push(CoprocSpec::edu(1));
    // A third one isn't started; the first one defines it anew, and a fourth one, from a file that it has.
    let small = Program::says("small").calls(Program::SYSTEM_OFF);
    let small = small.domain("managed", 1)?;
    let kernel = small.kernel.clone().context("its kernel")?;
    scenario.domains.push(small);
    let disabled = Edit::string("/chosen/domain@3", "status", "disabled");
    scenario.edits.push(disabled);
    let own = |module: &Module| {
        let file = definitions(module)?;
        ramdisk("management", Some(("etc/domains.dtb", &file)))
    };
    // Of the same size as the file in the end, which says where things are.
    let (file, address, size) = (kernel.clone(), 0, 0);
    scenario.domains[0].ramdisk = Some(own(&Module {
        file,
        address,
        size,
    })?);
    let module = module(&scenario, &kernel)?;
    own(&module)?;
    ensure!(self::module(&scenario, &kernel)? == module, "it moved");
    let machine = Machine::boot(&scenario, LIMIT)?;
    let ended = |name: &str, command: &str| {
        machine.wait_domain(name, command, PATIENCE, |line| {
            let found = line.strip_prefix("devices: manage ").map(Record::parse)?;
            (found.text("command") == Some(command)).then_some(found)
        })
    };
    let expected = [
        ("domains", 0, 3),
        ("coproc_set_0_slice-us_7000", 0, 0),
        ("coproc_set_0_slice-us_none", 1, 0),
        ("domain_pause_d2", 0, 0),
        ("coproc_query_0", 0, 3),
        ("vcpu_list_d2", 0, 1),
        ("domain_define_d2_/etc/domains.dtb", 1, 0),
        ("domain_define_d3_/etc/domains.dtb", 0, 0),
        ("domain_create_d3", 0, 0),
        ("domain_define_d4_/etc/domains.dtb", 0, 0),
        ("domain_create_d4", 0, 0),
    ];
    for (command, status, lines) in expected {
        let found = ended("d1", command)?;
        assert_eq!(number(&found, "status"), status, "{found:?}");
        assert_eq!(number(&found, "lines"), lines, "{found:?}");
    }
    let file = ended("d1", "file")?;
    assert_eq!(number(&file, "status"), 1, "one of its lines is nonsense");
    assert!(number(&file, "lines") > 52, "help twice: {file:?}");
    for said in [
        "manage> settings coproc=0 slice_ns=7000000",
        "manage! error: a domain that is paused can't be defined, `domains` tells its state",
        "manage! error: unknown command `nonsense`",
    ] {
        machine.wait_domain("d1", said, PATIENCE, |line| {
            line.contains(said).then_some(())
        })?;
    }
    // On the console the same has happened, and who did it is told.
    let asked = machine.ask("coproc query 0")?;
    let changed = |line: &String| line.contains("slice_ns=7000000");
    assert!(asked.iter().any(changed), "{asked:?}");
    let state = |name: &str, state: &str| (name.to_owned(), state.to_owned());
    assert_eq!(machine.domains()?[1], state("d2", "paused"));
    // The boot knew of a third one of 8 MiB, and of no fourth one.
    for name in ["d3", "d4"] {
        machine.wait_domain(name, "its line", PATIENCE, |line| {
            (line == "small").then_some(())
        })?;
        let own = format!("domain id={name} state=off vcpus=1 memory_mib=16 ");
        poll(&own, PATIENCE, || {
            let told = machine.ask("domains")?.join("\n");
            Ok(told.contains(&own).then_some(()))
        })?;
    }
    machine.wait_baton("who did it", PATIENCE, |line| {
        line.contains("d1: domain pause d2").then_some(())
    })?;
    machine.ask("domain resume d2")?;
    let refused = ended("d2", "domains")?;
    assert_eq!(number(&refused, "status"), 2);
    machine.finish()
}

/// Where the boot loader puts a file.
fn module(scenario: &Scenario, file: &Path) -> Result<Module> {
    let artifacts = Artifacts::get()?;
    let defaults = Defaults {
        kernel: artifacts.kernel.image.clone(),
        ramdisk: artifacts.initramfs.clone(),
    };
    let mut scenario = scenario.clone();
    scenario.edits.clear();
    let modules = configure(&mut Tree::default(), &scenario, &defaults)?;
    let mut found = modules.into_iter().filter(|module| module.file == file);
    found.next().context("a file of no domain")
}

/// The clock shows the machine's time and its alarm interrupts; the watchdog lets a domain live as long as it is fed, restarts it
/// when it isn't, and the other domain doesn't notice.
#[test]
fn the_clock_tells_the_time_and_the_watchdog_bites() -> Result<()> {
    let now = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.unwrap_or(Duration::ZERO).as_secs()
    };
    let before = now();
    let scenario = domains("devices", &["devices.watchdog", ""])?.with_edit(Edit::string(
        "/chosen/domain@1",
        "baton,restart",
        "on-crash",
    ));
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        let clock = machine.wait_domain(name, "its clock", PATIENCE, |line| {
            line.strip_prefix("devices: clock").map(Record::parse)
        })?;
        assert_eq!(text(&clock, "name"), "rtc-pl031", "{clock:?}");
        let epoch = number(&clock, "epoch");
        assert!((before..=now()).contains(&epoch), "{before} {clock:?}");
        // The kernel has set its own clock by it.
        assert!(number(&clock, "kernel").abs_diff(epoch) <= 2, "{clock:?}");
        assert_eq!(number(&clock, "alarms"), 1, "{clock:?}");
        assert!((1000..15_000).contains(&number(&clock, "waited_ms")));
    }
    let fed = machine.wait_domain("d1", "a fed watchdog", PATIENCE, |line| {
        line.strip_prefix("devices: watchdog").map(Record::parse)
    })?;
    assert_eq!(text(&fed, "identity"), "SBSA-Generic-Watchdog");
    // Twice its time-out.
    assert!(number(&fed, "fed_s") >= 12, "{fed:?}");
    machine.wait_baton("the end of d1", PATIENCE, |line| {
        line.contains("d1: crashed (watchdog)").then_some(())
    })?;
    // Its kernel boots again, and its program finds the clock at work.
    let mut clocks = 0;
    machine.wait_domain("d1", "its second clock", PATIENCE, |line| {
        clocks += u32::from(line.starts_with("devices: clock"));
        (clocks == 2).then_some(())
    })?;
    let state = |id: &str, state: &str| (id.to_owned(), state.to_owned());
    assert_eq!(
        machine.domains()?,
        [state("d1", "running"), state("d2", "running")]
    );
    machine.finish()
}
