//! Devices that a domain has for itself, driven by unmodified drivers and by a bare-metal program.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use baton_tests::{Control, LIMIT, Machine, PATIENCE, number, poll, text};
use baton_tools::os::disk;
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, DomainSpec, Scenario, bench};

use crate::workload;

/// Presses the machine's power button, which is the PL061's line 3: down, and up 100 ms later.
fn press_button(control: &Control) -> Result<()> {
    control.execute("system_powerdown", "{}")
}

/// The line of `devices` about this device.
fn device(machine: &Machine, name: &str) -> Result<Record> {
    let answer = machine.ask("devices")?;
    let records = answer.iter().map(|line| Record::parse(line));
    let mut found = records.filter(|record| record.text("name") == Some(name));
    found
        .next()
        .with_context(|| format!("no {name} in {answer:?}"))
}

/// Where the hostile domain aims: in the machine that's the first Linux's memory, see `isolation`.
const OUTSIDE: u64 = 0x7000_0000;
const JOBS: u64 = 8;
/// Size of each disk.
const DISK_BYTES: u64 = 16 << 20;

fn linux(cpu: u32, options: &str, mib: u64) -> DomainSpec {
    let mut domain = DomainSpec::linux(cpu, &format!("quiet panic=-1 {options}"));
    domain.memory_kib = mib << 10;
    domain
}

/// A bare-metal guest that checks this edu's messages.
fn messages(slot: u32) -> Result<DomainSpec> {
    let mut domain = linux(0, "", 64).with_device(&format!("pci:0000:00:{slot:02x}.0"));
    domain.bootargs = "console=ttyAMA0 bench=messages".to_owned();
    domain.kernel = Some(bench::guest(Artifacts::get()?.workspace())?);
    Ok(domain)
}

/// A disk: its name in Linux, and how QEMU is told of it.
struct Disk(&'static str, &'static str);

const NVME: Disk = Disk("nvme0n1", "nvme,serial=baton");
const VIRTIO: Disk = Disk("vda", "virtio-blk-pci,iommu_platform=on,disable-legacy=on");

impl Disk {
    fn file(&self, scenario: &str) -> Result<PathBuf> {
        let images = Artifacts::get()?.workspace().images()?;
        Ok(images.join(format!("{scenario}-{}.img", self.0)))
    }
}

/// Adds a Linux that has the machine's PL031 and PL061, and these disks in the slots behind the edus.
fn add_board(scenario: &mut Scenario, disks: &[Disk]) -> Result<()> {
    let artifacts = Artifacts::get()?;
    let archive = artifacts.initramfs_with_drivers("devices")?;
    let names: Vec<_> = disks.iter().map(|Disk(name, _)| *name).collect();
    let options = format!("devices.passed devices.disks={}", names.join(","));
    let mut board = linux(0, &options, 192)
        .with_device("/pl031@9010000")
        .with_device("/pl061@9030000");
    board.vcpus = 2;
    board.affinity = vec![0, 1];
    board.ramdisk = Some(artifacts.save_initramfs("passthrough", archive)?);
    let first = scenario.edu_devices + 1;
    for (disk, slot) in disks.iter().zip(first..) {
        let file = disk.file(&scenario.name)?;
        File::create(&file)?.set_len(DISK_BYTES)?;
        board = board.with_device(&scenario.add_disk(slot, disk.1, &file, ""));
    }
    scenario.domains.push(board);
    Ok(())
}

/// By its own drivers the domain's kernel read from its disks what it had written, `times` times since the start, and it's in the disks' files.
fn disks_work(
    machine: &Machine,
    scenario: &str,
    name: &str,
    disks: &[Disk],
    times: usize,
) -> Result<()> {
    let tried = || -> Vec<Record> {
        let lines = machine.output(name);
        let found = lines
            .iter()
            .filter_map(|line| line.strip_prefix("devices: "));
        let disks = found.filter(|line| line.starts_with("disk "));
        disks.map(Record::parse).collect()
    };
    let tried = poll("its disks", PATIENCE, || {
        Ok(Some(tried()).filter(|tried| tried.len() == times * disks.len()))
    })?;
    for (tried, disk) in tried.iter().rev().zip(disks.iter().rev()) {
        assert_eq!(text(tried, "name"), disk.0, "{tried:?}");
        assert_eq!(number(tried, "size"), DISK_BYTES, "{tried:?}");
        assert_eq!(number(tried, "wrong"), 0, "{tried:?}");
        let written = number(tried, "written");
        assert!(written >= 1 << 20, "{tried:?}");
        let mut content = vec![0; usize::try_from(written)?];
        File::open(disk.file(scenario)?)?.read_exact(&mut content)?;
        let seed = number(tried, "seed");
        let words = content.chunks_exact(8).zip(0..);
        let wrong = words.filter(|(word, index)| **word != disk::word(seed, *index).to_le_bytes());
        assert_eq!(wrong.count(), 0, "{tried:?}");
    }
    Ok(())
}

/// Boots, with a way to the power button.
fn boot(mut scenario: Scenario) -> Result<(Machine, Control)> {
    let control = Control::of(&mut scenario)?;
    let machine = Machine::boot(&scenario, LIMIT)?;
    assert_eq!(machine.errors(), [""; 0]);
    Ok((machine, control))
}

/// Clock and button of `name` interrupt it: once for each alarm, on the CPU that its kernel asks for, and twice for each press.
fn board_works(machine: &Machine, name: &str, control: &Control) -> Result<()> {
    for cpu in 0..2 {
        let alarm = machine.wait_domain(name, "an alarm", PATIENCE, |line| {
            let alarm = line.strip_prefix("devices: alarm").map(Record::parse)?;
            (number(&alarm, "cpu") == cpu).then_some(alarm)
        })?;
        let counts = ["cpu0", "cpu1"].map(|key| number(&alarm, key));
        assert_eq!(counts, if cpu == 0 { [1, 0] } else { [0, 1] }, "{alarm:?}");
        assert!(number(&alarm, "epoch") > 1_700_000_000, "{alarm:?}");
    }
    machine.wait_domain(name, "the button", PATIENCE, |line| {
        line.contains("devices: button ready level=0").then_some(())
    })?;
    let edges = |count: u64| {
        machine.wait_domain(name, "both edges", PATIENCE, |line| {
            let record = Record::parse(line.strip_prefix("devices: button ")?);
            (record.number("level") == Some(0) && record.number("edges") == Some(count))
                .then_some(())
        })
    };
    const BUTTON: &str = "/pl061@9030000";
    let told = || -> Result<u64> { Ok(number(&device(machine, BUTTON)?, "interrupts")) };
    let (mut presses, mut interrupts) = (0, 0);
    // A domain that its host doesn't run while the button is down is told of both edges by one interrupt: once more, then.
    let mut press = || -> Result<[u64; 2]> {
        for _ in 0..5 {
            ensure!(told()? == interrupts, "interrupts without an edge");
            press_button(control)?;
            presses += 1;
            edges(2 * presses)?;
            let new = told()? - interrupts;
            interrupts += new;
            match new {
                2 => return Ok([presses, interrupts]),
                1 => eprintln!("{name}: one interrupt for two edges"),
                _ => bail!("{new} interrupts for two edges"),
            }
        }
        bail!("never an interrupt for each edge")
    };
    press()?;
    // The vCPUs move, and the interrupt with them: it's taken where it was, handed over, and re-routed.
    machine.ask(&format!("domain set {name}.affinity 1"))?;
    press()?;
    machine.ask(&format!("domain set {name}.affinity 0"))?;
    let [presses, interrupts] = press()?;
    let clock = device(machine, "/pl031@9010000")?;
    assert_eq!(number(&clock, "interrupts"), 2, "{clock:?}");
    // Paused, it is told later: of both edges by one interrupt, since the device remembers that there were some.
    assert_eq!(told()?, interrupts);
    machine.ask(&format!("domain pause {name}"))?;
    // The CPUs let go of it at their next exit.
    std::thread::sleep(Duration::from_millis(500));
    press_button(control)?;
    // Longer than the button is down.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(told()?, interrupts + 1, "active until the domain ends it");
    machine.ask(&format!("domain resume {name}"))?;
    edges(2 * (presses + 1))?;
    assert_eq!(told()?, interrupts + 1);
    Ok(())
}

/// Every check of the bare-metal guest is right, and it switched itself off: its function is nobody's.
fn messages_work(machine: &Machine, name: &str, function: &str) -> Result<()> {
    machine.wait_domain(name, "its last line", PATIENCE, |line| {
        (line == "bench: done").then_some(())
    })?;
    poll("its device back", PATIENCE, || {
        Ok((number(&device(machine, function)?, "given") == 0).then_some(()))
    })
}

/// The same with a GICv2, whose list registers are others: an edu, a board with a virtio disk besides.
#[test]
fn a_gicv2s_domains_have_devices_of_their_own() -> Result<()> {
    let mut scenario = Scenario::new("passthrough-gicv2");
    scenario.gic = 2;
    scenario.edu_devices = 1;
    scenario.memory_mib = 768;
    // Anywhere: it moves while its device works.
    let mut edu = linux(0, &workload(1, &format!("mode=stress jobs={JOBS}")), 192)
        .with_device("pci:0000:00:01.0");
    edu.affinity = vec![];
    scenario.domains = vec![edu];
    let disks = [NVME, VIRTIO];
    add_board(&mut scenario, &disks)?;
    let (machine, control) = boot(scenario)?;
    disks_work(&machine, "passthrough-gicv2", "d2", &disks, 1)?;
    board_works(&machine, "d2", &control)?;
    let done = machine.done("d1")?;
    assert_eq!(
        (number(&done, "jobs"), number(&done, "wrong")),
        (JOBS, 0),
        "{done:?}"
    );
    machine.finish()
}

/// d1 works with an edu, d2 aims another one at d1's memory, d3 drives a third one by messages, d4 has the machine's PL031 and PL061, and a disk.
fn four(name: &str) -> Result<Scenario> {
    let mut scenario = Scenario::new(name);
    scenario.edu_devices = 3;
    scenario.memory_mib = 1280;
    let honest = workload(1, &format!("mode=stress jobs={JOBS}"));
    let hostile = workload(2, &format!("mode=dma-outside outside={OUTSIDE:#x} jobs=2"));
    scenario.domains = vec![
        linux(0, &honest, 640).with_device("pci:0000:00:01.0"),
        linux(1, &hostile, 192).with_device("pci:0000:00:02.0"),
        messages(3)?,
    ];
    // One: the bridge has four interrupts.
    add_board(&mut scenario, &[NVME])?;
    Ok(scenario)
}

/// Linux drives a PL031, a PL061, an NVMe disk and two edus that are its domains' own; a bare-metal guest one by messages. Interrupts come as often as
/// the device asserts, where the domain wants them; DMA reaches the domain's memory only; restarted and created anew, domains have
/// their devices again.
#[test]
fn domains_have_devices_of_their_own() -> Result<()> {
    const NAME: &str = "passthrough";
    let (machine, control) = boot(four(NAME)?)?;
    disks_work(&machine, NAME, "d4", &[NVME], 1)?;
    board_works(&machine, "d4", &control)?;

    // DMA and interrupts of the honest one are right, and its own.
    let done = machine.done("d1")?;
    assert_eq!(number(&done, "jobs"), JOBS);
    assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    assert!(number(&done, "dma_bytes") > JOBS * 1000, "{done:?}");
    let edu = device(&machine, "pci:0000:00:01.0")?;
    assert!(
        number(&edu, "interrupts") >= number(&done, "interrupts"),
        "{edu:?} {done:?}"
    );
    assert_eq!(number(&edu, "iommu_faults"), 0, "{edu:?}");

    // The other one's leads nowhere, and only its own domain hears of it.
    let done = machine.done("d2")?;
    assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    assert!(number(&done, "attempts") >= 2, "{done:?}");
    assert_eq!(number(&done, "leaked_bytes"), 0, "{done:?}");
    let guilty = device(&machine, "pci:0000:00:02.0")?;
    assert!(number(&guilty, "iommu_faults") > 0, "{guilty:?}");
    let last = number(&guilty, "last_fault_address");
    assert!((OUTSIDE..OUTSIDE + 4096).contains(&last), "{guilty:?}");
    machine.wait_baton("the warning", PATIENCE, |line| {
        line.contains("d2: pci:0000:00:02.0: DMA outside its memory")
            .then_some(())
    })?;

    messages_work(&machine, "d3", "pci:0000:00:03.0")?;
    restarts(&machine)?;
    // The disk loses what the first life wrote.
    let mut disk = File::options().write(true).open(NVME.file(NAME)?)?;
    disk.write_all(&[0; 1 << 20])?;
    machine.ask("domain restart d4")?;
    disks_work(&machine, NAME, "d4", &[NVME], 2)?;
    machine.finish()
}

/// What a domain had is given back with it, and given again.
fn restarts(machine: &Machine) -> Result<()> {
    let spaces = |machine: &Machine| -> Result<u64> {
        let answer = machine.ask("memory")?;
        let line = answer.iter().find(|line| line.starts_with("memory "));
        Ok(number(&Record::parse(line.context("no answer")?), "spaces"))
    };
    let before = spaces(machine)?;
    let ends = |name: &str| {
        let lines = machine.output(name);
        lines
            .iter()
            .filter(|line| line.starts_with("workload: done"))
            .count()
    };
    for command in ["domain restart d1", "domain destroy d2"] {
        machine.ask(command)?;
    }
    poll("the end of d2", PATIENCE, || {
        let device = device(machine, "pci:0000:00:02.0")?;
        let gone = machine
            .domains()?
            .contains(&("d2".to_owned(), "gone".to_owned()));
        Ok((gone && number(&device, "given") == 0).then_some(()))
    })?;
    assert_eq!(
        spaces(machine)?,
        before - 1,
        "an address space for each domain with functions"
    );
    machine.ask("domain create d2")?;
    for name in ["d1", "d2"] {
        poll("its second life", PATIENCE, || {
            Ok((ends(name) == 2).then_some(()))
        })?;
    }
    let output = machine.output("d1");
    let done = output
        .iter()
        .rfind(|line| line.starts_with("workload: done"));
    let done = Record::parse(done.context("an end")?);
    assert_eq!(
        (number(&done, "jobs"), number(&done, "wrong")),
        (JOBS, 0),
        "{done:?}"
    );
    assert_eq!(text(&device(machine, "pci:0000:00:01.0")?, "given"), "1");
    assert_eq!(spaces(machine)?, before);
    Ok(())
}
