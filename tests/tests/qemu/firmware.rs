//! A firmware core: each domain brings its own program for it, and none of them can do more than use its own share.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result};
use baton_tests::{
    Held, LIMIT, Machine, PATIENCE, after_switches, assert_books, coproc, held, longest_slice,
    number, text, vcoproc,
};
use qemu_boot::report::{CoprocReport, Record};
use qemu_boot::{Artifacts, Scenario};

/// Refusal bound where nobody is to reach it: a busy host lets the emulator's threads wait for 100 ms, and a firmware that isn't run refuses.
pub const NO_REFUSAL_US: u32 = 5_000_000;

/// A machine whose last CPU is the firmware core of as many domains as there are options.
fn scenario(name: &str, options: &[&str]) -> Result<Scenario> {
    let ramdisk = Artifacts::get()?.firmware_initramfs()?;
    let mut scenario = Scenario::firmware(name, 3, &ramdisk, options);
    scenario.coprocs[0].refusal_bound_us = NO_REFUSAL_US;
    Ok(scenario)
}

/// Waits for a domain's line that begins so; its values.
fn line(machine: &Machine, domain: &str, start: &str) -> Result<Record> {
    machine.wait_domain(domain, start, PATIENCE, |text| {
        text.starts_with(start).then(|| Record::parse(text))
    })
}

/// The domains' charges between two reports, in ns.
fn charges<const N: usize>(
    before: &CoprocReport,
    after: &CoprocReport,
    names: [&str; N],
) -> [u64; N] {
    names.map(|name| {
        let at = |report| number(vcoproc(report, name), "charge_ns");
        at(after) - at(before)
    })
}

/// Of two reports: how much of the time was charged to somebody, so useful, in per cent.
fn useful(before: &CoprocReport, after: &CoprocReport) -> f64 {
    let over = |key| number(coproc(after), key) - number(coproc(before), key);
    over("charge_ns") as f64 * 100.0 / over("elapsed_ns") as f64
}

/// Jain's index: 1 when all are equal.
fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}

/// What the run of two honest firmwares left behind.
struct Honest {
    early: CoprocReport,
    late: CoprocReport,
    end: CoprocReport,
    done: Vec<Record>,
}

/// One run for the claims about two domains whose firmwares do their jobs: checksums, with critical sections, and a filter.
fn honest() -> &'static Honest {
    static OUTCOME: OnceLock<Result<Honest, String>> = OnceLock::new();
    let run = || -> Result<Honest> {
        let machine = Machine::boot(
            &scenario(
                "firmware-honest",
                &[
                    "image=checksum jobs=1500 critical=1",
                    "image=filter jobs=1500",
                ],
            )?,
            LIMIT,
        )?;
        for name in ["d1", "d2"] {
            line(&machine, name, "workload: progress")?;
        }
        let early = machine.query()?;
        let late = after_switches(&machine, &early, 0, 100)?;
        let done = ["d1", "d2"]
            .map(|name| machine.done(name))
            .into_iter()
            .collect::<Result<_>>()?;
        let end = machine.query()?;
        machine.finish()?;
        Ok(Honest {
            early,
            late,
            end,
            done,
        })
    };
    let outcome = OUTCOME.get_or_init(|| run().map_err(|error| format!("{error:#}")));
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => panic!("the run that this test judges failed: {error}"),
    }
}

/// Two domains, two firmwares, one core: all results are right, streams across jobs, granted RAM and interrupts included.
#[test]
fn two_firmwares_on_one_core_and_every_result_is_right() {
    for (done, image) in honest().done.iter().zip(["checksum", "filter"]) {
        assert_eq!(text(done, "image"), image);
        assert_eq!(
            (number(done, "jobs"), number(done, "wrong")),
            (1500, 0),
            "{done:?}"
        );
        assert!(number(done, "granted") >= 300, "{done:?}");
        assert!(number(done, "interrupts") >= 50, "{done:?}");
        // One may come between the driver's look and its sleep's end.
        assert!(number(done, "unannounced") <= 3, "{done:?}");
    }
    assert!(number(&honest().done[0], "critical") >= 200);
}

/// They alternate, and no nanosecond is lost.
#[test]
fn the_core_is_taken_from_a_firmware_from_outside() {
    let outcome = honest();
    let switches = number(coproc(&outcome.late), "switches");
    assert!(switches >= 100, "{switches} switches");
    for name in ["d1", "d2"] {
        let slices = number(vcoproc(&outcome.late, name), "slices");
        assert!(slices >= 40, "{name} had {slices} slices");
    }
    for report in [&outcome.early, &outcome.late, &outcome.end] {
        assert_books(report);
        assert_eq!(number(coproc(report), "fault_ns"), 0);
    }
    // What the domains' work caused no aborts: grants and windows are where they should be.
    for name in ["d1", "d2"] {
        assert_eq!(number(vcoproc(&outcome.end, name), "iommu_faults"), 0);
    }
}

/// What the run of two busy meters left behind. Shares are taken from a time in which nothing was typed (see [`Machine::progress`]).
struct Metered {
    /// The first one alone: before, after.
    alone: [CoprocReport; 2],
    /// Equal weights: before, after.
    equal: [CoprocReport; 2],
    /// What each held of it.
    equally: Held<2>,
    /// The same by weights 3 : 1.
    weighted: Held<2>,
    /// Weights 1 : 1 : 1, the third one refusing at almost every moment: before, after.
    refused: [CoprocReport; 2],
    /// What each held of it.
    refusing: Held<3>,
}

/// The time of which shares are taken: 300 slices and more.
const WINDOW: Duration = Duration::from_millis(1_500);

/// One run for the claims about time: firmwares that never wait, at slices of 5 ms.
fn metered() -> &'static Metered {
    static OUTCOME: OnceLock<Result<Metered, String>> = OnceLock::new();
    let run = || -> Result<Metered> {
        let options = "mode=meter seconds=600";
        let later = format!("{options} wait=1");
        let reluctant = format!("{options} image=reluctant wait=1");
        let mut scenario = scenario("firmware-meter", &[options, &later, &reluctant])?;
        scenario.coprocs[0].scheduler = "weighted".to_owned();
        // Time is instructions here, 2 ns each: what the emulator's threads wait for on a busy host is nobody's overhead.
        scenario.qemu_args = ["-icount", "shift=1,sleep=off"].map(str::to_owned).to_vec();
        let machine = Machine::boot(&scenario, LIMIT)?;
        // A line of progress comes every second: two of them are more than one second apart from what was typed, three more than two.
        machine.progress("d1", 1)?;
        let first = machine.query()?;
        machine.progress("d1", 3)?;
        let alone = machine.query()?;
        machine.release("d2")?;
        machine.progress("d2", 1)?;
        let start = machine.query()?;
        machine.progress("d1", 3)?;
        let equally = held(&machine.timeline()?, 0, WINDOW, ["d1", "d2"]);
        let equal = machine.query()?;
        machine.ask("coproc set 0 d1.weight 3")?;
        machine.progress("d1", 3)?;
        let weighted = held(&machine.timeline()?, 0, WINDOW, ["d1", "d2"]);
        machine.ask("coproc set 0 d1.weight 1")?;
        machine.release("d3")?;
        machine.progress("d3", 1)?;
        let before = machine.query()?;
        machine.progress("d1", 5)?;
        let refusing = held(&machine.timeline()?, 0, 2 * WINDOW, ["d1", "d2", "d3"]);
        let refused = machine.query()?;
        machine.finish()?;
        Ok(Metered {
            alone: [first, alone],
            equal: [start, equal],
            equally,
            weighted,
            refused: [before, refused],
            refusing,
        })
    };
    let outcome = OUTCOME.get_or_init(|| run().map_err(|error| format!("{error:#}")));
    match outcome {
        Ok(outcome) => outcome,
        Err(error) => panic!("the run that this test judges failed: {error}"),
    }
}

/// By weight 1 : 1 and 3 : 1 the shares are within 2 % of the weights over far more than 100 slices; Jain's index is at least 0.999.
#[test]
fn busy_firmwares_have_shares_by_weight() {
    let outcome = metered();
    for (held, weights) in [
        (outcome.equally, [1.0, 1.0]),
        (outcome.weighted, [3.0, 1.0]),
    ] {
        let total = held.total() as f64;
        assert!(total >= 0.98 * WINDOW.as_nanos() as f64, "{held:?}");
        let weight: f64 = weights.iter().sum();
        let shares = held.ns.map(|time| time as f64 / total);
        let by_weight: Vec<f64> = shares.iter().zip(weights).map(|(s, w)| s / w).collect();
        let jain = jain(&by_weight);
        eprintln!("weights {weights:?}: {held:?}, Jain {jain:.6}");
        for (share, own) in shares.iter().zip(weights) {
            let error = share - own / weight;
            assert!(
                error.abs() <= 0.02 + held.debt(),
                "{held:?} by {weights:?}: {error:.4}"
            );
        }
        // What Jain's index of two is when both are wrong by this part of their own, 0.999 without a debt.
        let wrong = 0.0316 + held.debt() * weight;
        assert!(
            jain >= 1.0 / (1.0 + wrong * wrong),
            "{held:?} by {weights:?}: {jain:.5}"
        );
    }
}

/// Who wants the core alone keeps it.
#[test]
fn a_single_willing_firmware_keeps_its_core() {
    let [before, after] = &metered().alone;
    let useful = useful(before, after);
    eprintln!("alone: {useful:.3} %");
    assert!(useful >= 99.9, "{useful:.3} %: {:?}", coproc(after));
    let switches = |report| number(coproc(report), "switches");
    assert_eq!(switches(before), switches(after));
}

/// Who refuses to be switched at almost every moment gains at most 1 % over its fair share: what it takes is charged.
#[test]
fn refusing_gains_a_firmware_nothing() {
    let [before, after] = &metered().refused;
    let held = metered().refusing;
    let share = held.ns[2] as f64 / held.total() as f64;
    let refused = |report| number(vcoproc(report, "d3"), "refused_ns");
    eprintln!("the refuser's share: {share:.4}, {held:?}");
    assert!(
        refused(after) > refused(before) + 200_000_000,
        "it does refuse"
    );
    assert!(share >= 0.3 - held.debt(), "it works, too: {held:?}");
    assert!(share <= 1.01 / 3.0 + held.debt(), "{held:?}");
}

/// With two on the core at slices of 5 ms, at least 98 % of the time is somebody's.
#[test]
fn switching_firmwares_leaves_98_per_cent_for_work() {
    let [before, after] = &metered().equal;
    let useful = useful(before, after);
    eprintln!("useful: {useful:.2} %");
    assert!(useful >= 98.0, "{useful:.2} %: {:?}", coproc(after));
    assert_books(after);
}

/// A firmware that tries all that it has no business with, one that hangs, and one that does its jobs: the last one doesn't notice, and
/// what the first one may not do is undefined.
#[test]
fn hostile_and_hung_firmware_are_contained() -> Result<()> {
    let machine = Machine::boot(
        &scenario(
            "firmware-hostile",
            &[
                "mode=hostile seconds=5",
                "image=checksum jobs=600",
                "mode=watch image=hung seconds=8",
            ],
        )?,
        LIMIT,
    )?;
    let hostile = machine.done("d1")?;
    let wrong: Vec<_> = machine.output("d1");
    let wrong: Vec<_> = wrong.iter().filter(|line| line.contains("WRONG")).collect();
    assert_eq!(number(&hostile, "wrong"), 0, "{wrong:#?}");
    assert!(number(&hostile, "undefined") >= 50, "{hostile:?}");
    // It went on afterwards, with its own registers, while others had the core.
    assert!(number(&hostile, "rounds") >= 100, "{hostile:?}");
    assert_eq!(
        (number(&hostile, "leaked"), number(&hostile, "lost")),
        (0, 0),
        "{hostile:?}"
    );
    let jobs = machine.done("d2")?;
    assert_eq!((number(&jobs, "jobs"), number(&jobs, "wrong")), (600, 0));
    // A hung firmware is just a busy one: it is switched like any other, and its domain can stop it.
    let hung = machine.done("d3")?;
    assert_eq!(
        (number(&hung, "lost"), number(&hung, "wrong")),
        (0, 0),
        "{hung:?}"
    );
    let report = machine.query()?;
    assert!(number(vcoproc(&report, "d3"), "slices") >= 20);
    assert_eq!(number(coproc(&report), "fault_ns"), 0);
    assert_books(&report);
    machine.finish()
}

/// Reads, writes and branches where a firmware has nothing end it and say where; grants of what isn't the domain's are refused; exit codes,
/// panics and wrong entries are told; and another domain's jobs go on beside all that.
#[test]
fn the_limits_of_firmware_hold() -> Result<()> {
    let machine = Machine::boot(
        &scenario(
            "firmware-limits",
            &["mode=limits timeout=20", "image=filter jobs=600"],
        )?,
        LIMIT,
    )?;
    let limits = machine.done("d1")?;
    let output = machine.output("d1");
    let wrong: Vec<_> = output
        .iter()
        .filter(|line| line.contains("WRONG"))
        .collect();
    assert_eq!(number(&limits, "wrong"), 0, "{wrong:#?}");
    assert_eq!(number(&limits, "contained"), 39, "{limits:?}");
    assert_eq!(number(&limits, "grants_refused"), 16, "{limits:?}");
    let jobs = machine.done("d2")?;
    assert_eq!((number(&jobs, "jobs"), number(&jobs, "wrong")), (600, 0));
    let report = machine.query()?;
    assert!(
        number(vcoproc(&report, "d1"), "iommu_faults") >= 20,
        "{report:?}"
    );
    assert_eq!(number(vcoproc(&report, "d2"), "iommu_faults"), 0);
    machine.finish()
}

/// A firmware that refuses for ever, by a critical section without end or by not yielding although its domain accepted to be asked, costs its
/// own domain the core (all registers read all-ones) and nobody else anything.
#[test]
fn firmware_that_never_lets_go_costs_its_own_domain_the_core() -> Result<()> {
    // Long enough that the third one isn't taken for one of these when its host lets it wait.
    const BOUND: Duration = Duration::from_millis(500);
    let mut scenario = scenario(
        "firmware-refuses",
        &[
            "mode=watch image=refuses seconds=60",
            "mode=watch image=no-yield paravirtual=1 seconds=60",
            "image=checksum jobs=1000",
        ],
    )?;
    scenario.coprocs[0].refusal_bound_us = BOUND.as_micros() as u32;
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        let done = machine.done(name)?;
        assert_eq!(number(&done, "lost"), 1, "{name}: {done:?}");
        let output = machine.output(name);
        let wrong: Vec<_> = output
            .iter()
            .filter(|line| line.contains("WRONG"))
            .collect();
        assert_eq!(number(&done, "wrong"), 0, "{name}: {wrong:#?}");
        let registers = line(&machine, name, "workload: registers")?;
        for key in ["status", "exit_code"] {
            assert_eq!(text(&registers, key), "0xffffffff", "{name}: {registers:?}");
        }
    }
    let jobs = machine.done("d3")?;
    assert_eq!((number(&jobs, "jobs"), number(&jobs, "wrong")), (1000, 0));
    let report = machine.query()?;
    let bound = BOUND.as_nanos() as u64;
    for name in ["d1", "d2"] {
        let state = text(vcoproc(&report, name), "state");
        assert!(
            state.to_ascii_lowercase().contains("fault"),
            "{name} is {state}"
        );
        // It was charged for its refusal, up to the bound and the slice before.
        let charge = number(vcoproc(&report, name), "charge_ns");
        assert!(charge >= bound, "{name}: {charge} ns");
    }
    assert_books(&report);
    machine.finish()
}

/// Whoever accepted to be asked, and answers, is switched all the same, beside one that never was asked; neither is faulted.
#[test]
fn firmware_that_yields_when_asked_shares_the_core() -> Result<()> {
    let mut scenario = scenario(
        "firmware-yields",
        &[
            "mode=meter paravirtual=1 seconds=600",
            "mode=meter seconds=600",
            "image=filter paravirtual=1 jobs=300",
        ],
    )?;
    // Round robin gives equal slices, and who is asked has some more until it answers: long on a busy host. This one takes that into account.
    scenario.coprocs[0].scheduler = "weighted".to_owned();
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        line(&machine, name, "workload: progress")?;
    }
    let jobs = machine.done("d3")?;
    assert_eq!((number(&jobs, "jobs"), number(&jobs, "wrong")), (300, 0));
    let before = machine.query()?;
    let after = after_switches(&machine, &before, 0, 100)?;
    let [asked, preempted] = charges(&before, &after, ["d1", "d2"]);
    let share = asked as f64 * 100.0 / (asked + preempted) as f64;
    let tolerance = 5.0 + longest_slice(&after, 0) as f64 * 100.0 / (asked + preempted) as f64;
    assert!(
        (share - 50.0).abs() <= tolerance,
        "{share:.1} %, {tolerance:.1} allowed"
    );
    assert_eq!(number(coproc(&after), "fault_ns"), 0);
    machine.finish()
}

/// A domain that drives an edu device and a firmware core at once, beside one that has only the core.
#[test]
fn one_domain_uses_an_edu_device_and_a_firmware_core() -> Result<()> {
    let mut scenario = scenario(
        "firmware-both",
        &["image=checksum jobs=500", "image=filter jobs=500"],
    )?;
    scenario.edu_devices = 1;
    scenario.coprocs.push(qemu_boot::CoprocSpec::edu(1));
    let domain = scenario.domains.first_mut().context("a domain")?;
    domain.coprocs.push(1);
    domain
        .bootargs
        .push_str(" workload.name=d1 workload.seed=1 workload.jobs=8");
    let machine = Machine::boot(&scenario, LIMIT)?;
    let end = |domain, jobs: u64| {
        machine.wait_domain(domain, "the end of a program", PATIENCE, |text| {
            let done = text
                .starts_with("workload: done")
                .then(|| Record::parse(text))?;
            (number(&done, "jobs") == jobs).then_some(done)
        })
    };
    for (domain, jobs) in [("d1", 500), ("d1", 8), ("d2", 500)] {
        let done = end(domain, jobs)?;
        assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    }
    machine.finish()
}

/// Two types of coprocs, four of them, each under its own algorithm, shared by four domains in various combinations, all at work at once.
#[test]
fn three_edu_devices_and_a_firmware_core_serve_four_domains() -> Result<()> {
    let mut scenario = scenario(
        "firmware-many",
        &[
            "image=checksum jobs=400",
            "image=filter jobs=400",
            "image=checksum jobs=400",
            "",
        ],
    )?;
    scenario.cpus = 5;
    scenario.coprocs[0].device = qemu_boot::CoprocSpec::fw_core(4).device;
    scenario.edu_devices = 3;
    for (slot, scheduler) in [(1, "weighted"), (2, "priority"), (3, "null")] {
        scenario.coprocs.push(qemu_boot::CoprocSpec {
            scheduler: scheduler.to_owned(),
            ..qemu_boot::CoprocSpec::edu(slot)
        });
    }
    let parts: [&[usize]; 4] = [&[0, 1], &[0, 1], &[0, 2], &[3]];
    for ((domain, coprocs), number) in scenario.domains.iter_mut().zip(parts).zip(1_u32..) {
        domain.coprocs = coprocs.to_vec();
        domain.affinity = vec![number - 1];
        if !coprocs.contains(&0) {
            // Nothing for the program that drives a firmware core.
            let words: Vec<&str> = domain.bootargs.split(' ').collect();
            let words = words
                .into_iter()
                .filter(|word| !word.starts_with("firmware."));
            domain.bootargs = words.collect::<Vec<_>>().join(" ");
        }
        let edu = format!(" workload.name=d{number} workload.seed={number} workload.jobs=8");
        domain.bootargs.push_str(&edu);
    }
    let machine = Machine::boot(&scenario, LIMIT)?;
    let ends = [
        ("d1", 8),
        ("d1", 400),
        ("d2", 8),
        ("d2", 400),
        ("d3", 8),
        ("d3", 400),
        ("d4", 8),
    ];
    for (domain, jobs) in ends {
        let done = machine.wait_domain(domain, "the end of a program", PATIENCE, |text| {
            let done = text
                .starts_with("workload: done")
                .then(|| Record::parse(text))?;
            (number(&done, "jobs") == jobs).then_some(done)
        })?;
        assert_eq!(number(&done, "wrong"), 0, "{domain}: {done:?}");
    }
    let report = machine.query()?;
    let algorithms: Vec<_> = report
        .coprocs
        .iter()
        .map(|coproc| text(coproc, "scheduler"))
        .collect();
    assert_eq!(algorithms, ["rr", "weighted", "priority", "null"]);
    for coproc in &report.coprocs {
        assert_eq!(number(coproc, "fault_ns"), 0, "{coproc:?}");
    }
    assert_books(&report);
    machine.finish()
}
