//! All of it at once: four domains, three edu devices and a firmware core under four algorithms, changed live, with one domain that does its worst.

use anyhow::{Context as _, Result};
use baton_tests::{
    LIMIT, Machine, PATIENCE, Rounds, after_switches, longest_slice, number, poll, text,
};
use qemu_boot::report::{CoprocReport, Record};
use qemu_boot::scenario::CoprocSpec;
use qemu_boot::{Artifacts, DomainSpec, Scenario};

use crate::firmware::NO_REFUSAL_US;
use crate::workload;

/// How long the domains work.
const SECONDS: u64 = 60;
/// The coproc under each algorithm; the last one is the firmware core.
const SCHEDULERS: [&str; 4] = ["rr", "priority", "reservation", "weighted"];
const EDU_SHARED: usize = 0;
const EDU_ATTACKED: usize = 1;
const EDU_OTHER: usize = 2;
const CORE: usize = 3;
/// These do no harm, with the mode of their firmware; all have `stress` on their edu.
const INNOCENT: [(&str, &str); 3] = [("d1", "meter"), ("d2", "meter"), ("d4", "jobs")];

/// d1 and d2 share an edu, d3 has one for its attacks, d4 one for its jobs; all four have firmware on one core: two meters, one that hangs, one that
/// computes checksums.
fn scenario() -> Result<Scenario> {
    let ramdisk = Artifacts::get()?.firmware_initramfs()?;
    let mut scenario = Scenario::new("everything");
    scenario.cpus = 3;
    scenario.edu_devices = 3;
    for (slot, scheduler) in (1..).zip(SCHEDULERS) {
        let mut coproc = match slot {
            4 => CoprocSpec::fw_core(2),
            _ => CoprocSpec::edu(slot),
        };
        coproc.scheduler = scheduler.to_owned();
        match slot {
            1 => coproc.slice_us = 400_000,
            // Switched 40 times a second, so that the trace's rings reach back for seconds: a busy host lets the test wait.
            4 => {
                coproc.slice_us = 25_000;
                coproc.refusal_bound_us = NO_REFUSAL_US;
            }
            _ => {}
        }
        scenario.coprocs.push(coproc);
    }
    let stress = format!("mode=stress seconds={SECONDS}");
    // The host's memory, and there another domain's: see `isolation`.
    let attack = format!("mode=dma-outside outside=0x70000000 seconds={SECONDS}");
    let meter = format!("mode=meter seconds={SECONDS}");
    let hung = format!("mode=watch image=hung seconds={SECONDS}");
    let sums = format!("mode=jobs image=checksum seconds={SECONDS}");
    let domains: [(usize, &str, &str); 4] = [
        (EDU_SHARED, &stress, &meter),
        (EDU_SHARED, &stress, &meter),
        (EDU_ATTACKED, &attack, &hung),
        (EDU_OTHER, &stress, &sums),
    ];
    for ((edu, workload_options, firmware_options), number) in domains.into_iter().zip(1_u32..) {
        let mut line = format!(
            "quiet panic=-1 {} firmware.name=d{number}",
            workload(number, workload_options)
        );
        for option in firmware_options.split_whitespace() {
            line.push_str(" firmware.");
            line.push_str(option);
        }
        let mut domain = DomainSpec::linux((number - 1) % 2, &line)
            .with_coproc(edu)
            .with_coproc(CORE);
        domain.memory_kib = 256 << 10;
        domain.ramdisk = Some(ramdisk.clone());
        scenario.domains.push(domain);
    }
    Ok(scenario)
}

/// A domain's part in a coproc.
#[track_caller]
fn part<'r>(report: &'r CoprocReport, coproc: usize, domain: &str) -> &'r Record {
    report
        .vcoproc_of(&coproc.to_string(), domain)
        .unwrap_or_else(|| panic!("{domain} has no part in coproc {coproc}: {report:?}"))
}

/// Asserts what the first of two domains has of what both were charged for the core between two reports, in per cent. A slice that was cut late, by an
/// emulator that waited for its host, is owed to the others at any moment.
#[track_caller]
fn assert_core_share(
    [before, after]: [&CoprocReport; 2],
    of: [&str; 2],
    expected: f64,
    tolerance: f64,
) {
    let [first, second] = of.map(|domain| {
        let at = |report| number(part(report, CORE, domain), "charge_ns");
        (at(after) - at(before)) as f64
    });
    let all = first + second;
    let found = first * 100.0 / all;
    let debt = longest_slice(after, CORE as u64) as f64 * 100.0 / all;
    eprintln!("core, {of:?}: {found:.2} % of {all} ns, the longest slice {debt:.2} %");
    let allowed = tolerance + debt;
    assert!(
        (found - expected).abs() <= allowed,
        "{found:.2} %, {expected} % was configured, {allowed:.2} points allowed"
    );
}

/// A domain's last line of the one of its two programs that runs in this mode.
fn done(machine: &Machine, name: &str, mode: &str) -> Result<Record> {
    machine.wait_domain(name, "the end of a program", PATIENCE, |text| {
        let record = Record::parse(text);
        (record.kind == "workload: done" && record.text("mode") == Some(mode)).then_some(record)
    })
}

/// The trace's events of one coproc from a time on.
fn trace(machine: &Machine, coproc: usize, from: u64) -> Result<Vec<Record>> {
    let answer = machine.ask(&format!("trace coproc {coproc} from {from}"))?;
    let records = answer.iter().map(|line| Record::parse(line));
    Ok(records.filter(|record| record.kind == "event").collect())
}

/// When something last happened to the core: it is never long ago.
fn lately(machine: &Machine, from: u64) -> Result<u64> {
    let events = trace(machine, CORE, from)?;
    let last = events.last().context("no event of the core")?;
    Ok(number(last, "at_ns"))
}

/// Asserts that each of these happened to a coproc since then.
fn assert_traced(machine: &Machine, coproc: usize, from: u64, kinds: &[&str]) -> Result<()> {
    let events = trace(machine, coproc, from)?;
    for kind in kinds {
        assert!(
            events.iter().any(|event| event.text("what") == Some(kind)),
            "no event '{kind}' of coproc {coproc} since {from}: {events:?}"
        );
    }
    Ok(())
}

/// 0 wrong results for the innocent, shares as configured before and after each change, every event in the trace.
#[test]
fn four_domains_four_coprocs_four_algorithms_and_everything_changes() -> Result<()> {
    let mut machine = Machine::boot(&scenario()?, LIMIT)?;
    machine.distrust("d3");
    // Two lines: one of each program.
    for (name, _) in INNOCENT {
        let mut lines = 0;
        machine.wait_domain(name, "work on both", PATIENCE, |text| {
            lines += usize::from(text.starts_with("workload: device slot="));
            (lines == 2).then_some(())
        })?;
    }
    machine.wait_domain("d3", "its firmware", PATIENCE, |text| {
        text.starts_with("workload: firmware ready").then_some(())
    })?;
    let report = machine.query()?;
    let schedulers: Vec<String> = report
        .coprocs
        .iter()
        .map(|coproc| text(coproc, "scheduler"))
        .collect();
    assert_eq!(schedulers, SCHEDULERS);

    // The rings are short where a core is switched 200 times a second: each event is asked for when it has just been.
    let before = lately(&machine, 0)?;
    let mark = machine.mark();
    machine.wait_map(mark, "a fault of d3", PATIENCE, |line| {
        line.contains("d3: ").then_some(())?;
        line.contains("DMA outside its memory").then_some(())
    })?;
    assert_traced(&machine, EDU_ATTACKED, before, &["iommu-faults"])?;

    // As booted: equal shares everywhere, the hung firmware's too.
    let start = after_switches(&machine, &report, EDU_SHARED, 2)?;
    let (rounds, equal) = Rounds::wait(&machine, &start, EDU_SHARED, "d2", 3)?;
    rounds.assert_share("d1", 50.0);
    let span = [&start, &equal];
    assert_core_share(span, ["d1", "d2"], 50.0, 1.0);
    assert_core_share(span, ["d1", "d3"], 50.0, 1.0);

    // Another algorithm for the shared edu, other weights on it and on the core; an attach and a detach meanwhile.
    let before = lately(&machine, 0)?;
    machine.ask("coproc set 0 scheduler weighted")?;
    machine.ask("coproc set 0 d2.weight 3")?;
    assert_traced(&machine, EDU_SHARED, before, &["scheduler", "parameters"])?;
    let before = lately(&machine, before)?;
    machine.ask("coproc set 3 d1.weight 2")?;
    assert_traced(&machine, CORE, before, &["transition", "parameters"])?;
    machine.ask("coproc attach 1 d1")?;
    assert_traced(&machine, EDU_ATTACKED, before, &["attached"])?;
    let settled = after_switches(&machine, &machine.query()?, EDU_SHARED, 3)?;
    let before = lately(&machine, before)?;
    machine.ask("coproc detach 1 d1")?;
    assert_traced(&machine, EDU_ATTACKED, before, &["detached"])?;
    let (rounds, changed) = Rounds::wait(&machine, &settled, EDU_SHARED, "d1", 3)?;
    assert_eq!(text(&changed.coprocs[EDU_SHARED], "scheduler"), "weighted");
    rounds.assert_share("d2", 75.0);
    let span = [&settled, &changed];
    for other in ["d2", "d3"] {
        let two_thirds = 200.0 / 3.0;
        assert_core_share(span, ["d1", other], two_thirds, two_thirds * 0.02);
    }

    // The one with the hung firmware loses the core; nobody else notices.
    let before = lately(&machine, before)?;
    machine.ask("coproc detach 3 d3")?;
    poll("the end of a detached vcoproc", PATIENCE, || {
        let gone = machine.query()?.vcoproc_of("3", "d3").is_none();
        Ok(gone.then_some(()))
    })?;
    assert_traced(&machine, CORE, before, &["detaching", "detached"])?;
    for (name, firmware) in INNOCENT {
        for mode in ["stress", firmware] {
            let done = done(&machine, name, mode)?;
            assert_eq!(number(&done, "wrong"), 0, "{name}: {done:?}");
        }
    }
    let attacks = done(&machine, "d3", "dma-outside")?;
    assert!(number(&attacks, "attempts") >= 4, "{attacks:?}");
    assert_eq!(number(&attacks, "leaked_bytes"), 0, "{attacks:?}");

    let end = machine.query()?;
    for coproc in &end.coprocs {
        let parts: u64 = ["charge_ns", "overhead_ns", "idle_ns", "fault_ns"]
            .iter()
            .map(|key| number(coproc, key))
            .sum();
        assert_eq!(parts, number(coproc, "elapsed_ns"), "{coproc:?}");
    }
    assert!(end.vcoproc_of("3", "d3").is_none(), "detached");
    assert!(end.vcoproc_of("1", "d1").is_none(), "detached");
    assert!(number(part(&end, EDU_ATTACKED, "d3"), "iommu_faults") > 0);
    for (coproc, name) in [(EDU_SHARED, "d1"), (EDU_SHARED, "d2"), (EDU_OTHER, "d4")] {
        assert_eq!(number(part(&end, coproc, name), "iommu_faults"), 0);
    }
    machine.finish()
}
