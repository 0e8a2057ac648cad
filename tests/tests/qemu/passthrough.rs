//! Devices that a domain has for itself, driven by unmodified drivers and by a bare-metal program.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use baton_tests::{Machine, PATIENCE, number, poll, text};
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, DomainSpec, Scenario, bench};

use crate::workload;

/// Presses the machine's power button, which is the PL061's line 3: down, and up 100 ms later.
fn press_button(control: &Path) -> Result<()> {
    let stream = UnixStream::connect(control).context("QEMU's control socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut answers = BufReader::new(stream.try_clone()?).lines();
    let mut next = || {
        answers
            .next()
            .context("QEMU closed its control socket")?
            .map_err(anyhow::Error::from)
    };
    ensure!(next()?.contains("QMP"));
    for command in ["qmp_capabilities", "system_powerdown"] {
        (&stream).write_all(format!("{{\"execute\": \"{command}\"}}\n").as_bytes())?;
        while !next()?.contains("return") {}
    }
    Ok(())
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

/// d1 works with an edu, d2 aims another one at d1's memory, d3 drives a third one by messages, d4 has the machine's PL031 and PL061.
fn scenario(name: &str, gic: u32) -> Result<Scenario> {
    let artifacts = Artifacts::get()?;
    let guest = bench::guest(artifacts.workspace())?;
    let devices = artifacts.save_initramfs("passthrough", artifacts.initramfs_with("devices")?)?;
    let mut scenario = Scenario::new(name);
    scenario.gic = gic;
    scenario.edu_devices = 3;
    scenario.memory_mib = 1280;
    let linux = |cpu, options: &str, mib: u64| {
        let mut domain = DomainSpec::linux(cpu, &format!("quiet panic=-1 {options}"));
        domain.memory_kib = mib << 10;
        domain
    };
    let honest = workload(1, &format!("mode=stress jobs={JOBS}"));
    let hostile = workload(2, &format!("mode=dma-outside outside={OUTSIDE:#x} jobs=2"));
    let mut messages = linux(0, "", 64).with_device("pci:0000:00:03.0");
    messages.bootargs = "console=ttyAMA0 bench=messages".to_owned();
    messages.kernel = Some(guest);
    let mut board = linux(0, "devices.passed", 192)
        .with_device("/pl031@9010000")
        .with_device("/pl061@9030000");
    board.vcpus = 2;
    board.affinity = vec![0, 1];
    board.ramdisk = Some(devices);
    scenario.domains = vec![
        linux(0, &honest, 640).with_device("pci:0000:00:01.0"),
        linux(1, &hostile, 192).with_device("pci:0000:00:02.0"),
        messages,
        board,
    ];
    Ok(scenario)
}

fn works(name: &str, gic: u32) -> Result<()> {
    let mut scenario = scenario(name, gic)?;
    let control = Artifacts::get()?
        .workspace()
        .logs()?
        .join(format!("{name}.qmp"));
    let _ = std::fs::remove_file(&control);
    scenario.qemu_args.extend([
        "-qmp".to_owned(),
        format!("unix:{},server=on,wait=off", control.display()),
    ]);
    let machine = Machine::boot(&scenario, Duration::from_secs(400))?;
    assert_eq!(machine.errors(), [""; 0]);

    // Each alarm is one interrupt, on the CPU that the kernel asks for.
    for cpu in 0..2 {
        let alarm = machine.wait_domain("d4", "an alarm", PATIENCE, |line| {
            let alarm = line.strip_prefix("devices: alarm").map(Record::parse)?;
            (number(&alarm, "cpu") == cpu).then_some(alarm)
        })?;
        let counts = ["cpu0", "cpu1"].map(|key| number(&alarm, key));
        assert_eq!(counts, if cpu == 0 { [1, 0] } else { [0, 1] }, "{alarm:?}");
        assert!(number(&alarm, "epoch") > 1_700_000_000, "{alarm:?}");
    }
    machine.wait_domain("d4", "the button", PATIENCE, |line| {
        line.contains("devices: button ready level=0").then_some(())
    })?;
    for press in 1..=2 {
        press_button(&control)?;
        machine.wait_domain("d4", "both edges", PATIENCE, |line| {
            line.contains(&format!("devices: button level=0 edges={}", 2 * press))
                .then_some(())
        })?;
    }
    let (clock, buttons) = (
        device(&machine, "/pl031@9010000")?,
        device(&machine, "/pl061@9030000")?,
    );
    assert_eq!(number(&clock, "interrupts"), 2, "{clock:?}");
    assert_eq!(number(&buttons, "interrupts"), 4, "{buttons:?}");

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

    machine.wait_domain("d3", "its last line", PATIENCE, |line| {
        (line == "bench: done").then_some(())
    })?;
    // It switched itself off: its function is nobody's.
    poll("its device back", PATIENCE, || {
        let device = device(&machine, "pci:0000:00:03.0")?;
        Ok((number(&device, "given") == 0).then_some(()))
    })?;
    restarts(&machine)?;
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

/// Linux drives a PL031, a PL061 and two edus that are its domains' own; a bare-metal guest one by messages. Interrupts come as often as
/// the device asserts, where the domain wants them; DMA reaches the domain's memory only; restarted and created anew, domains have
/// their devices again.
#[test]
fn domains_have_devices_of_their_own() -> Result<()> {
    works("passthrough", 3)
}
