//! Domains that end, are held, are started again and taken apart, while another one goes on working.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number, poll, text};
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, CoprocSpec, DomainSpec, Edit, Scenario};

use crate::sharing;

/// A bare-metal program so small that it is written down as it is executed.
pub struct Program(Vec<u32>);

impl Program {
    /// PSCI's.
    pub const SYSTEM_OFF: u64 = 0x8400_0008;

    /// Prints a line on the domain's UART.
    pub fn says(line: &str) -> Self {
        let mut program = Self(Vec::new());
        program.load(0, 0x0900_0000);
        for byte in line.bytes().chain(*b"\n") {
            program.load(1, u64::from(byte));
            program.0.push(0x3900_0001); // strb w1, [x0]
        }
        program
    }

    /// Loads a number into a register.
    fn load(&mut self, register: u32, value: u64) {
        for half in 0..4u32 {
            let bits = (value >> (16 * half)) as u32 & 0xffff;
            let base = if half == 0 { 0xd280_0000 } else { 0xf280_0000 }; // movz, movk
            self.0.push(base | half << 21 | bits << 5 | register);
        }
    }

    /// Ends by a PSCI call, or stays where it is after it.
    pub fn calls(mut self, function: u64) -> Self {
        self.load(0, function);
        self.0.extend([0xd400_0002, 0x1400_0000]); // hvc #0; b .
        self
    }

    /// Ends by a jump.
    fn jumps(mut self, to: u64) -> Self {
        self.load(2, 0x1234_5678_9abc_def0);
        self.load(0, to);
        self.0.push(0xd61f_0000); // br x0
        self
    }

    /// Domain with this program as its kernel, 8 MiB large.
    pub fn domain(&self, name: &str, cpu: u32) -> Result<DomainSpec> {
        let mut image = Vec::new();
        image.extend(0x1400_0010u32.to_le_bytes()); // b .+64
        image.extend([0; 12]);
        image.extend(4096u64.to_le_bytes());
        image.extend(0xau64.to_le_bytes());
        image.extend([0; 24]);
        image.extend(*b"ARM\x64\0\0\0\0");
        image.extend(self.0.iter().flat_map(|word| word.to_le_bytes()));
        image.resize(4096, 0);
        let file = |suffix: &str, bytes: &[u8]| -> Result<PathBuf> {
            let images = Artifacts::get()?.workspace().images()?;
            let path = images.join(format!("lifecycle-{name}.{suffix}"));
            std::fs::write(&path, bytes).with_context(|| path.display().to_string())?;
            Ok(path)
        };
        Ok(DomainSpec {
            memory_kib: 8 << 10,
            kernel: Some(file("img", &image)?),
            ramdisk: Some(file("ramdisk", b"none")?),
            ..DomainSpec::linux(cpu, "none")
        })
    }
}

/// The state of a domain becomes this.
fn until(machine: &Machine, name: &str, state: &str) -> Result<()> {
    poll(&format!("{name} {state}"), PATIENCE, || {
        let domains = machine.domains()?;
        Ok(domains
            .contains(&(name.to_owned(), state.to_owned()))
            .then_some(()))
    })
}

/// A domain has said so many lines that begin so.
fn lines(machine: &Machine, name: &str, start: &str, count: usize) -> Result<()> {
    let mut seen = 0;
    machine.wait_domain(name, start, PATIENCE, |text| {
        seen += usize::from(text.starts_with(start));
        (seen == count).then_some(())
    })
}

fn memory(machine: &Machine) -> Result<Record> {
    poll("nothing that waits to be free", PATIENCE, || {
        let answer = machine.ask("memory")?;
        let report = answer
            .iter()
            .map(|line| Record::parse(line))
            .find(|record| record.kind == "memory")
            .context("no memory line")?;
        Ok((number(&report, "pending") == 0).then_some(report))
    })
}

/// A domain with a vcoproc is created and destroyed a thousand times, and nothing is missing afterwards.
#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn a_thousand_rounds_leave_nothing_behind() -> Result<()> {
    let mut scenario = Scenario::new("rounds");
    scenario.edu_devices = 1;
    scenario.coprocs.push(CoprocSpec::edu(1));
    let guest = Program::says("tiny").calls(Program::SYSTEM_OFF);
    scenario
        .domains
        .push(guest.domain("off", 0)?.with_coproc(0));
    let machine = Machine::boot(&scenario, LIMIT)?;
    until(&machine, "d1", "off")?;
    let before = memory(&machine)?;
    machine.ask("domain cycle d1 1000")?;
    let end = machine.wait_baton("the end of the rounds", PATIENCE, |text| {
        text.contains("1000 rounds; ").then(|| text.to_owned())
    })?;
    println!("{end}");
    for what in ["free_bytes=", "vmids=", "heap_bytes="] {
        let (_, after) = end.split_once(what).context("a number")?;
        let mut words = after.split([' ', ',']);
        let (then, now) = (words.next(), words.nth(1));
        ensure!(then.is_some() && then == now, "{what}: {end}");
    }
    until(&machine, "d1", "gone")?;
    machine.ask("domain create d1")?;
    until(&machine, "d1", "off")?;
    let after = memory(&machine)?;
    for key in ["free_bytes", "spaces", "domain_vmids"] {
        assert_eq!(number(&before, key), number(&after, key), "{key}");
    }
    // It lived that often: at least every other life went to its end by itself.
    let lives = machine
        .output("d1")
        .iter()
        .filter(|line| *line == "tiny")
        .count();
    assert!(lives >= 500, "{lives}");
    machine.finish()
}

/// One domain restarts itself, is held, destroyed and created again; one crashes and is restarted until that is too often; one is
/// created only when it's asked for. Meanwhile another one works, and every one of its results is right.
#[test]
fn lives_begin_and_end_while_another_domain_works() -> Result<()> {
    let options = ["mode=stress jobs=1000000", "mode=stress jobs=3 reboot=1"];
    let mut scenario = sharing("lives", &options);
    let crash = Program::says("jump").jumps(0x2_0000_0000);
    let off = Program::says("tiny").calls(Program::SYSTEM_OFF);
    scenario.domains.push(crash.domain("crash", 1)?);
    scenario.domains.push(off.domain("disabled", 1)?);
    scenario.edits.extend([
        Edit::string("/chosen/domain@3", "baton,restart", "on-crash"),
        Edit::string("/chosen/domain@4", "status", "disabled"),
    ]);
    let mut machine = Machine::boot(&scenario, LIMIT)?;
    machine.distrust("d2");

    // A crash loop ends, with a report.
    until(&machine, "d3", "crashed")?;
    // What a domain said may be shown after an answer of Baton's.
    lines(&machine, "d3", "jump", 6)?;
    let report = machine.ask("domain report d3")?.join("\n");
    for part in [
        "reason=no-vector pc=0x200 ",
        " x2=0x123456789abcdef0 ",
        " elr_el1=0x200 ",
        " far_el1=0x200 ",
        "exit0_esr=0x82",
    ] {
        assert!(report.contains(part), "{part}: {report}");
    }
    let refused = machine.refusal("domain pause d3")?;
    assert!(
        refused.contains("a domain that is crashed can't be paused"),
        "{refused}"
    );

    // Created when somebody asks.
    assert!(machine.output("d4").is_empty());
    assert!(machine.domains()?.contains(&("d4".into(), "gone".into())));
    machine.ask("domain create d4")?;
    until(&machine, "d4", "off")?;
    lines(&machine, "d4", "tiny", 1)?;
    assert_eq!(machine.output("d4"), ["tiny"]);

    // A reboot, as Linux asks for it.
    machine.wait_baton("d2's restart", PATIENCE, |text| {
        (text == "d2: restarted").then_some(())
    })?;
    let done = |machine: &Machine| {
        let output = machine.output("d2");
        output
            .iter()
            .filter(|line| line.starts_with("workload: done"))
            .count()
    };
    // At the beginning of its third life, it doesn't restart for seconds.
    lines(&machine, "d2", "workload: start", 3)?;
    assert_eq!(done(&machine), 2);

    // Held: it says nothing more, while the other one's slices go on.
    machine.ask("domain pause d2")?;
    let slices = |machine: &Machine| -> Result<u64> {
        let report = machine.query()?;
        Ok(number(baton_tests::vcoproc(&report, "d1"), "slices"))
    };
    // In this order: what it said before has been shown by then.
    let then = slices(&machine)?;
    let said = machine.output("d2").len();
    poll("d1 at work", PATIENCE, || {
        Ok((slices(&machine)? > then + 3).then_some(()))
    })?;
    assert_eq!(
        machine.output("d2").len(),
        said,
        "of a domain that is paused"
    );
    assert!(machine.domains()?.contains(&("d2".into(), "paused".into())));
    let ends = done(&machine);
    machine.ask("domain resume d2")?;
    poll("d2's next end", PATIENCE, || {
        Ok((done(&machine) > ends).then_some(()))
    })?;

    // Destroyed, and created again.
    poll("d2 between two restarts", PATIENCE, || {
        Ok(machine.ask("domain destroy d2").ok())
    })?;
    until(&machine, "d2", "gone")?;
    let free = number(&memory(&machine)?, "free_bytes");
    assert!(
        !machine
            .query()?
            .vcoprocs
            .iter()
            .any(|one| text(one, "domain") == "d2")
    );
    machine.ask("domain create d2")?;
    let ends = done(&machine);
    poll("d2's work in its new life", PATIENCE, || {
        Ok((done(&machine) > ends).then_some(()))
    })?;
    assert!(number(&memory(&machine)?, "free_bytes") + (256 << 20) <= free);

    let jumps = machine.output("d3");
    let jumps = jumps.iter().filter(|line| *line == "jump").count();
    assert_eq!(jumps, 6, "the first life and five restarts");

    // Nobody was served wrongly in any life, and the one that had only one went on through all this.
    for name in ["d1", "d2"] {
        for line in machine.output(name) {
            assert!(
                !line.contains("wrong=") || line.contains("wrong=0"),
                "{line}"
            );
        }
    }
    machine.finish()
}
