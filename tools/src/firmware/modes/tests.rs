//! Every mode against the model, right and wrong.

use super::*;
use crate::firmware::model::{Fault, Model};

fn lines(fault: Fault, command_line: &str) -> (Vec<String>, io::Result<()>) {
    let (options, errors) = Options::parse(command_line);
    assert_eq!(errors, Vec::<String>::new());
    let model = Model::new(fault);
    let lines = model.lines.clone();
    let outcome = run(model, &options);
    let lines = lines.borrow().clone();
    (lines, outcome)
}

fn last(fault: Fault, command_line: &str) -> String {
    let (lines, outcome) = lines(fault, command_line);
    assert!(outcome.is_ok(), "{outcome:?}: {lines:?}");
    lines.last().expect("a last line").clone()
}

fn field(line: &str, key: &str) -> u64 {
    let value = line
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    let value = value.unwrap_or_else(|| panic!("no {key} in {line}"));
    value.parse().expect("a number")
}

#[test]
fn jobs_are_right_with_either_firmware() {
    for image in ["checksum", "filter"] {
        for more in [
            "",
            "firmware.grant=0",
            "firmware.depth=4 firmware.critical=1",
        ] {
            let line = last(Fault::None, &format!("firmware.image={image} {more}"));
            assert!(
                line.starts_with("workload: done name=linux mode=jobs jobs=400 wrong=0 "),
                "{line}"
            );
            assert!(field(&line, "dma_bytes") > 400_000, "{line}");
            assert!(field(&line, "interrupts") >= 100, "{line}");
            assert_eq!(field(&line, "unannounced"), 0, "{line}");
            assert_eq!(field(&line, "granted") > 50, more != "firmware.grant=0");
            assert_eq!(field(&line, "critical") > 50, more.contains("critical"));
        }
    }
}

#[test]
fn every_fault_makes_wrong_results() {
    let wrong = |fault, image: &str| {
        let line = last(fault, &format!("firmware.image={image}"));
        field(&line, "wrong")
    };
    for image in ["checksum", "filter"] {
        assert!(wrong(Fault::Grant, image) > 50, "{image}");
    }
    // From there on all of that stream.
    assert!(wrong(Fault::ContextLost, "checksum") > 60);
    assert!(wrong(Fault::ContextLost, "filter") > 200);
    assert!(wrong(Fault::Output, "filter") > 200);
}

#[test]
fn a_firmware_that_no_longer_answers_is_an_error_that_says_why() {
    let failure = |fault| {
        let (_, outcome) = lines(fault, "firmware.timeout=1");
        outcome.expect_err(&format!("{fault:?}")).to_string()
    };
    assert!(failure(Fault::Deaf).contains("no answer in time: status=0x1"));
    let crash = failure(Fault::Crash);
    assert!(
        crash.contains("status=0x4") && crash.contains("address=0x1234"),
        "{crash}"
    );
    assert!(failure(Fault::ImageRot).contains("image at 0x800"));
}

#[test]
fn interrupts_that_never_come_are_counted() {
    let line = last(Fault::Silent, "firmware.jobs=20");
    assert_eq!((field(&line, "jobs"), field(&line, "wrong")), (20, 0));
    assert!(field(&line, "unannounced") >= 10, "{line}");
}

#[test]
fn limits_hold_and_are_noticed_where_they_do_not() {
    let good = last(Fault::None, "firmware.mode=limits");
    assert_eq!(field(&good, "wrong"), 0, "{good}");
    assert_eq!(
        (field(&good, "contained"), field(&good, "grants_refused")),
        (39, 16)
    );
    let open = last(Fault::Open, "firmware.mode=limits");
    assert_eq!(field(&open, "contained"), 0);
    assert!(field(&open, "wrong") >= 39, "{open}");
    let generous = last(Fault::Generous, "firmware.mode=limits");
    assert_eq!(field(&generous, "grants_refused"), 0);
    assert!(field(&generous, "wrong") >= 17, "{generous}");
}

#[test]
fn hostile_firmware_is_judged() {
    let options = "firmware.mode=hostile firmware.seconds=3";
    let good = last(Fault::None, options);
    assert_eq!(field(&good, "wrong"), 0, "{good}");
    assert_eq!(field(&good, "probes"), PROBES.len() as u64);
    assert_eq!((field(&good, "stalled"), field(&good, "lost")), (0, 0));
    let (lines, _) = lines(Fault::Hole, options);
    assert!(
        lines
            .iter()
            .any(|line| line.contains("WRONG") && line.contains("what=smc_#0 ")),
        "{lines:?}"
    );
    assert_eq!(field(&last(Fault::Leak, options), "wrong"), 2);
}

#[test]
fn a_lost_core_is_told_from_a_busy_one() {
    for image in ["hung", "refuses", "meter"] {
        let line = last(
            Fault::None,
            &format!("firmware.mode=watch firmware.image={image}"),
        );
        assert_eq!((field(&line, "lost"), field(&line, "wrong")), (0, 0));
    }
    let (lines, _) = lines(Fault::Lost, "firmware.mode=watch firmware.image=refuses");
    let last = lines.last().expect("a last line");
    assert_eq!(
        (field(last, "lost"), field(last, "wrong")),
        (1, 0),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|l| l.starts_with("workload: registers status=0xffffffff "))
    );
}

#[test]
fn work_is_metered() {
    let line = last(
        Fault::None,
        "firmware.mode=meter firmware.seconds=5 firmware.paravirtual=1",
    );
    assert_eq!(field(&line, "work"), 42, "six looks of seven units");
    assert_eq!(field(&line, "per_second"), 8);
}
