//! A domain that executes, accesses and calls at random: others go on as before, and so does EL2.
//!
//! Two domains work beside it, one on its CPU and one on another. How long they take is compared under `-icount`, where nothing else of the host counts. There
//! all CPUs share one clock, so an idle CPU would make the others faster: the neighbour to compare with is one that only takes its CPU's time.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number, poll};
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, DomainSpec, Edit, Scenario, SharedMemorySpec, bare};

use crate::conformance;

/// Of the virtual counter in QEMU.
const TICKS_PER_MS: u64 = 62_500;
/// How many waits of a turn are timed.
const WAITS: u64 = 100;
/// How late a timer may be in the mean, and at most. Under `-icount` the emulator goes on with one CPU for up to 100 ms now and then, whatever
/// another one's timer wants, and so beside the other neighbour, too.
const LATE_MS: u64 = 1;
const LATEST_MS: u64 = 100;

/// What a working domain says of its turn, in ticks.
#[derive(Debug)]
struct Pace {
    ticks: u64,
    late: u64,
    latest: u64,
}

/// The working domains are d1 and d2, on CPUs 0 and 1; the neighbour is d3.
fn scenario(name: &str, work: &str, neighbour: &str, cpus: &[u32]) -> Result<Scenario> {
    let guest: PathBuf = bare::guest(Artifacts::get()?.workspace(), "conformance-guest")?;
    let domain = |part: &str, cpus: &[u32]| -> Result<DomainSpec> {
        conformance::domain(guest.clone(), part, cpus)
    };
    let mut scenario = Scenario::new(name);
    scenario.memory_mib = 1024;
    scenario.domains = vec![
        domain(work, &[0])?,
        domain(work, &[1])?,
        domain(neighbour, cpus)?,
    ];
    scenario.edits = vec![Edit::string("/chosen/domain@3", "baton,restart", "always")];
    // A function for the neighbour to find; its peer takes no notice of it.
    scenario.shared_memory = vec![SharedMemorySpec {
        size: 1 << 20,
        domains: vec![2, 1],
    }];
    Ok(scenario)
}

/// What a domain said so far with this beginning.
fn said(machine: &Machine, name: &str, beginning: &str) -> Vec<Record> {
    let output = machine.output(name);
    let lines = output
        .iter()
        .filter_map(|line| line.strip_prefix(beginning));
    lines
        .map(|text| Record::parse(&format!("line {text}")))
        .collect()
}

/// Waits until a working domain has had this many turns; the last. All were right.
fn works(machine: &Machine, name: &str, turns: usize) -> Result<Record> {
    let what = format!("turn {turns} of {name}");
    let done = poll(&what, PATIENCE, || {
        let done = said(machine, name, "work: done");
        Ok((done.len() >= turns).then_some(done))
    })?;
    for record in &done {
        for wrong in ["memory", "answers", "signals", "early"] {
            ensure!(number(record, wrong) == 0, "{name}: {record:?}");
        }
    }
    done.last().cloned().context("no turn")
}

/// How often the neighbour has tried, in all its lives; each thousand is told.
fn tries(machine: &Machine) -> usize {
    1000 * said(machine, "d3", "fuzz: progress").len()
}

/// EL2 answers, and both working domains are well.
fn all_is_well(machine: &Machine) -> Result<()> {
    let domains = machine.domains()?;
    for name in ["d1", "d2"] {
        let running = (name.to_owned(), "running".to_owned());
        ensure!(domains.contains(&running), "{domains:?}");
    }
    machine.ask("memory")?;
    let errors = machine.errors();
    ensure!(errors.is_empty(), "{errors:?}");
    Ok(())
}

/// The turn of both working domains beside this neighbour.
fn beside(name: &str, neighbour: &str) -> Result<(Machine, [Pace; 2])> {
    let mut scenario = scenario(name, "turn", neighbour, &[0])?;
    scenario.qemu_args = ["-icount", "shift=0,sleep=off"].map(str::to_owned).to_vec();
    let mut machine = Machine::boot(&scenario, LIMIT)?;
    machine.distrust("d3");
    let pace = |name: &str| -> Result<Pace> {
        let first = works(&machine, name, 1)?;
        eprintln!("{name} beside {neighbour}: {first:?}");
        Ok(Pace {
            ticks: number(&first, "ticks"),
            late: number(&first, "late"),
            latest: number(&first, "latest"),
        })
    };
    let paces = [pace("d1")?, pace("d2")?];
    Ok((machine, paces))
}

/// The work of others takes no longer beside it than beside one that only takes its CPU's time, within a twentieth; their timers come; the
/// console answers.
#[test]
fn a_domain_that_tries_everything_stops_and_slows_nobody() -> Result<()> {
    let (machine, before) = beside("fuzz-spin", "spin")?;
    machine.finish()?;
    let (machine, with) = beside("fuzz", "fuzz seed=first")?;
    for (before, with) in before.iter().zip(&with) {
        assert!(with.ticks * 20 <= before.ticks * 21, "{with:?}, {before:?}");
    }
    for pace in &with {
        assert!(pace.late <= WAITS * LATE_MS * TICKS_PER_MS, "{with:?}");
        assert!(pace.latest <= LATEST_MS * TICKS_PER_MS, "{with:?}");
    }
    all_is_well(&machine)?;
    let so_far = tries(&machine);
    poll("more tries", PATIENCE, || {
        Ok((tries(&machine) >= so_far + 2000).then_some(()))
    })?;
    all_is_well(&machine)?;
    let tried = said(&machine, "d3", "fuzz: progress");
    let last = tried.last().context("no progress")?;
    eprintln!("{last:?}");
    for (kind, least) in [
        ("tries", 5000),
        ("completed", 500),
        ("undefined", 500),
        ("others", 200),
    ] {
        assert!(number(last, kind) >= least, "{kind}: {last:?}");
    }
    for name in ["d1", "d2"] {
        machine.ask(&format!("domain restart {name}"))?;
        works(&machine, name, 2)?;
    }
    machine.finish()
}

/// With other seeds, interrupt controllers and CPUs, and a second vCPU that it may start anywhere.
#[test]
#[ignore = "takes minutes: cargo xtask test --long"]
fn whatever_it_tries_on_any_machine() -> Result<()> {
    for (gic, cpu, seed) in [
        (3, "cortex-a57", "second"),
        (3, "max", "third"),
        (2, "cortex-a57", "fourth"),
        (3, "cortex-a53", "fifth"),
        (2, "cortex-a72", "sixth"),
    ] {
        let mut scenario = scenario(
            &format!("fuzz-{seed}"),
            "work",
            &format!("fuzz seed={seed}"),
            &[0, 1],
        )?;
        scenario.gic = gic;
        scenario.cpu = cpu.to_owned();
        let mut machine = Machine::boot(&scenario, LIMIT)?;
        machine.distrust("d3");
        poll("its tries", LIMIT, || {
            all_is_well(&machine)?;
            // It is restarted by itself, but no more than five times a minute.
            let ended = machine
                .domains()?
                .into_iter()
                .any(|(name, state)| name == "d3" && ["off", "crashed"].contains(&state.as_str()));
            if ended {
                machine.ask("domain restart d3")?;
            }
            Ok((tries(&machine) >= 30_000).then_some(()))
        })?;
        let lives = said(&machine, "d3", "fuzz: begun").len();
        eprintln!("{seed}: {lives} lives");
        for name in ["d1", "d2"] {
            let turns = said(&machine, name, "work: done").len();
            works(&machine, name, turns + 2)?;
        }
        all_is_well(&machine)?;
        machine.finish()?;
    }
    Ok(())
}
