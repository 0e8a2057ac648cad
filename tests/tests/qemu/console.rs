//! The EL2 console: commands and their answers, and where typed bytes go.

use anyhow::{Context as _, Result};
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, coproc, number, poll, text};
use qemu_boot::Mark;
use qemu_boot::demo::{ENTER, ESCAPE, enter_baton};
use qemu_boot::report::{CoprocReport, Origin, Record, split_tag};
use qemu_boot::scenario::{CoprocSpec, Edit};

use crate::sharing;

fn boot(name: &str) -> Result<Machine> {
    let machine = Machine::boot(
        &sharing(name, &["mode=idle wait=1", "mode=idle wait=1"]),
        LIMIT,
    )?;
    for domain in ["d1", "d2"] {
        machine.wait_domain(domain, "its program", PATIENCE, |text| {
            text.contains("waiting for a line").then_some(())
        })?;
    }
    Ok(machine)
}

/// Baton's own lines after a mark.
fn own_lines(machine: &Machine, mark: Mark) -> Vec<String> {
    let lines = machine.lines_after(mark);
    lines
        .iter()
        .filter_map(|line| match split_tag(line) {
            (Origin::Baton, text) => Some(text.to_owned()),
            _ => None,
        })
        .collect()
}

/// Every command has its answer, and every mistake an error that says what and what to do.
#[test]
fn commands_are_answered_and_mistakes_are_told() -> Result<()> {
    let machine = boot("console-commands")?;

    let help = machine.ask("help")?.join("\n");
    for command in ["domains", "coproc list", "coproc query", "trace", "console"] {
        assert!(help.contains(command), "{help}");
    }
    let running = |id: &str| (id.to_owned(), "running".to_owned());
    assert_eq!(machine.domains()?, [running("d1"), running("d2")]);

    let mut list = CoprocReport::default();
    for line in machine.ask("coproc list")? {
        list.take(&line);
    }
    assert_eq!((list.coprocs.len(), list.vcoprocs.len()), (1, 0));
    assert_eq!(text(coproc(&list), "driver"), "qemu,edu");
    assert_eq!(text(coproc(&list), "scheduler"), "rr");
    let query = machine.query()?;
    assert_eq!((query.coprocs.len(), query.vcoprocs.len()), (1, 2));
    // Nobody has touched it: it was never given to anyone.
    assert!(query.slices.is_empty(), "{query:?}");
    assert_eq!(number(coproc(&query), "switches"), 0);
    for vcoproc in &query.vcoprocs {
        assert_eq!(
            (number(vcoproc, "weight"), number(vcoproc, "wait_max_ns")),
            (1, 0)
        );
    }
    let mut histograms = machine.ask("coproc histogram 0")?;
    histograms.retain(|line| line.starts_with("histogram "));
    assert_eq!(histograms.len(), 6, "{histograms:?}");
    for line in &histograms {
        assert!(line.contains(" count=0 "), "{line}");
    }
    machine.send(ENTER)?;

    for (command, says) in [
        ("frobnicate", "unknown command `frobnicate`"),
        ("coproc", "missing"),
        ("coproc query 7", "no coproc 7"),
        ("coproc query x", "`x`"),
        ("domains now", "`now`"),
        ("console d9", "no domain d9"),
        ("coproc set 0 frob 5", "no parameter `frob`"),
        ("coproc set 0 slice-us soon", "`soon` is no value"),
        ("coproc set 0 d9.weight 2", "d9 has no vcoproc"),
        ("coproc attach 7 d1", "no coproc 7"),
        ("coproc attach 0 d1", "has a vcoproc of coproc 0 already"),
        ("coproc detach 0 d9", "no domain d9"),
        ("coproc histogram 7", "no coproc 7"),
        ("trace from soon", "`soon`"),
    ] {
        let error = machine.refusal(command)?;
        assert!(error.contains(says), "'{command}': {error}");
    }
    // A line longer than the editor's doesn't shut the console.
    let error = machine.refusal(&"x".repeat(500))?;
    assert!(error.contains("unknown command"), "{error}");
    assert_eq!(machine.domains()?, [running("d1"), running("d2")]);
    machine.finish()
}

/// A coprocessor is given and taken while the domain runs, and what was done shows.
#[test]
fn a_coproc_is_detached_and_attached_again() -> Result<()> {
    let machine = boot("console-attach")?;
    let shares = || -> Result<Vec<String>> {
        let report = machine.query()?;
        Ok(report
            .vcoprocs
            .iter()
            .map(|vcoproc| text(vcoproc, "domain"))
            .collect())
    };
    assert_eq!(shares()?, ["d1", "d2"]);
    machine.ask("coproc detach 0 d2")?;
    assert_eq!(shares()?, ["d1"]);
    let error = machine.refusal("coproc detach 0 d2")?;
    assert!(error.contains("d2 has no vcoproc"), "{error}");
    machine.ask("coproc attach 0 d2")?;
    assert_eq!(shares()?, ["d1", "d2"]);
    machine.ask("coproc set 0 d2.weight 3")?;
    machine.ask("coproc set 0 slice-us 500000")?;
    let told = machine.ask("coproc query 0")?.join("\n");
    for value in [
        " weight=3 ",
        " slice_ns=500000000 ",
        " measured_restore_ns=",
    ] {
        assert!(told.contains(value), "{value}: {told}");
    }

    // All of it is in the trace, in order, from the start on.
    let trace = machine.ask("trace coproc 0")?;
    let is_event = |line: &&String| line.starts_with("event ");
    let events: Vec<Record> = trace
        .iter()
        .filter(is_event)
        .map(|line| Record::parse(line))
        .collect();
    let shown = format!("trace shown={} lost=0", events.len());
    assert!(trace.contains(&shown), "{trace:?}");
    let times: Vec<u64> = events.iter().map(|event| number(event, "at_ns")).collect();
    assert!(times.is_sorted(), "{times:?}");
    let what: Vec<String> = events.iter().map(|event| text(event, "what")).collect();
    let expected = [
        "transition",
        "transition",
        "attached",
        "attached",
        "detaching",
        "detached",
        "attached",
        "parameters",
        "settings",
    ];
    assert_eq!(what, expected, "{trace:?}");
    assert_eq!(text(&events[0], "from"), "off");
    assert_eq!(text(&events[1], "to"), "idle");
    assert_ne!(text(&events[3], "vcoproc"), text(&events[6], "vcoproc"));
    let last = times.last().copied().unwrap_or(0);
    let rest = machine.ask(&format!("trace from {last}"))?;
    assert_eq!(rest.iter().filter(is_event).count(), 1, "{rest:?}");
    machine.finish()
}

/// Types a line at a domain; Baton has the input before and after.
fn type_at(machine: &Machine, domain: &str, line: &str) -> Result<()> {
    machine.ask(&format!("console {domain}"))?;
    machine.send(&format!("{line}{ENTER}"))?;
    let read = format!("workload: read \"{line}\"");
    machine.wait_domain(domain, &read, PATIENCE, |text| {
        text.contains(&read).then_some(())
    })?;
    enter_baton(machine)
}

/// What `coproc list` says of a coproc.
fn listed(machine: &Machine, id: &str, key: &str) -> Result<String> {
    let mut list = CoprocReport::default();
    for line in machine.ask("coproc list")? {
        list.take(&line);
    }
    let found = list.coprocs.iter().find(|c| c.text("id") == Some(id));
    Ok(text(found.context("it isn't listed")?, key))
}

fn until_unshared(machine: &Machine, id: &str) -> Result<()> {
    poll("state=unshared", PATIENCE, || {
        let state = listed(machine, id, "state")?;
        anyhow::ensure!(state == "unsharing" || state == "unshared", "{state}");
        Ok((state == "unshared").then_some(()))
    })
}

/// A coprocessor is taken from two busy domains and belongs to nobody; shared and attached again, it is found at a rescan and does
/// everything right. One that the device tree describes as disabled starts like that.
#[test]
fn a_coproc_is_unshared_while_busy_and_shared_again() -> Result<()> {
    // Three seconds of the device's time: neither is done when it is taken.
    let options = "mode=stress jobs=15 hotplug=1 wait=1";
    let mut scenario = sharing("console-share", &[options, options]);
    scenario.edu_devices = 2;
    scenario.coprocs.push(CoprocSpec::edu(2));
    let disabled = Edit::string("/chosen/coprocs/coproc@1", "status", "disabled");
    let machine = Machine::boot(&scenario.with_edit(disabled), LIMIT)?;
    let refused = |command: &str, says: &str| -> Result<()> {
        let error = machine.refusal(command)?;
        assert!(error.contains(says), "'{command}': {error}");
        Ok(())
    };

    assert_eq!(listed(&machine, "1", "state")?, "unshared");
    refused("coproc attach 1 d1", "coproc 1 is not shared")?;
    refused("coproc unshare 1", "coproc 1 is not shared")?;
    refused("coproc share 0", "coproc 0 is shared already")?;
    machine.ask("coproc share 1")?;
    machine.ask("coproc attach 1 d1")?;
    machine.ask("coproc unshare 1")?;
    until_unshared(&machine, "1")?;

    for domain in ["d1", "d2"] {
        machine.release(domain)?;
    }
    machine.ask("coproc set 0 scheduler weighted")?;
    poll("both at work", PATIENCE, || {
        let report = machine.query()?;
        let works = |vcoproc| number(vcoproc, "touches") > 0;
        Ok(report.vcoprocs.iter().all(works).then_some(()))
    })?;
    machine.ask("coproc unshare 0")?;
    until_unshared(&machine, "0")?;
    assert!(machine.query()?.vcoprocs.is_empty());
    refused("coproc attach 0 d1", "coproc 0 is not shared")?;
    refused("coproc set 0 slice-us 5000", "coproc 0 is not shared")?;
    for domain in ["d1", "d2"] {
        machine.wait_domain(domain, "that it lost the device", PATIENCE, |text| {
            text.contains("the device is gone").then_some(())
        })?;
    }

    machine.ask("coproc share 0")?;
    assert_eq!(listed(&machine, "0", "scheduler")?, "rr", "as configured");
    for domain in ["d1", "d2"] {
        machine.ask(&format!("coproc attach 0 {domain}"))?;
        type_at(&machine, domain, "again")?;
    }
    for domain in ["d1", "d2"] {
        let done = machine.done(domain)?;
        assert_eq!(number(&done, "jobs"), 15, "{done:?}");
        assert_eq!(number(&done, "wrong"), 0, "{done:?}");
        let output = machine.output(domain);
        assert!(
            !output.iter().any(|line| line.contains("WRONG")),
            "{output:?}"
        );
    }
    assert_books(&machine.query()?);
    machine.finish()
}

/// Input is one's alone: what is typed at a domain isn't a command of Baton's, nor the other way round.
#[test]
fn typed_bytes_go_to_one_place_at_a_time() -> Result<()> {
    let machine = boot("console-input")?;

    machine.ask("console d1")?;
    let mark = machine.mark();
    machine.send(&format!("domains{ENTER}"))?;
    machine.wait_domain("d1", "the line that was typed", PATIENCE, |text| {
        text.contains("workload: read \"domains\"").then_some(())
    })?;
    let own = own_lines(&machine, mark);
    assert!(
        !own.iter().any(|line| line.contains("domain id=")),
        "Baton took a domain's input for a command: {own:?}"
    );

    // Three times Ctrl-A hands the input on: d1, d2, Baton, d1, …
    for next in ["d2", "baton", "d1", "d2"] {
        let mark = machine.mark();
        machine.send(ESCAPE)?;
        let announced = machine.wait_for_after(mark, "input to ", PATIENCE)?;
        assert!(announced.ends_with(next), "{announced}, expected {next}");
    }
    machine.send(&format!("hello{ENTER}"))?;
    machine.wait_domain("d2", "the line that was typed", PATIENCE, |text| {
        text.contains("workload: read \"hello\"").then_some(())
    })?;
    machine.send(ESCAPE)?;
    machine.ask("domains")?;
    for (domain, word) in [("d1", "hello"), ("d2", "domains")] {
        let output = machine.output(domain);
        assert!(
            !output.iter().any(|line| line.contains(word)),
            "{domain} saw the other's input: {output:?}"
        );
    }
    machine.finish()
}
