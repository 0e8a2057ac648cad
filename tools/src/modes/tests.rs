//! Every mode against the model, right and wrong: a check that can't fail would prove nothing.

use super::*;
use crate::model::{Fault, Model, OUTSIDE, SECRET};

/// Runs a command line against a model with this fault: all lines, and the transfers outside memory.
fn lines(fault: Fault, command_line: &str) -> (Vec<String>, u64) {
    let (options, errors) = Options::parse(command_line);
    assert_eq!(errors, Vec::<String>::new());
    let model = Model::new(fault);
    let (lines, outside) = (model.lines.clone(), model.outside.clone());
    run(model, &options).expect("the model's system doesn't fail");
    let lines = lines.borrow().clone();
    (lines, outside.get())
}

fn field(line: &str, key: &str) -> u64 {
    let value = line
        .split(' ')
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
    value
        .unwrap_or_else(|| panic!("no {key} in {line}"))
        .parse()
        .expect("a number")
}

#[test]
fn forty_jobs_are_right_on_a_right_device() {
    for mode in ["jobs", "stress"] {
        let (lines, outside) = lines(Fault::None, &format!("workload.mode={mode}"));
        let last = lines.last().expect("a last line");
        assert_eq!(
            lines.iter().find(|line| line.contains("WRONG")),
            None,
            "{mode}"
        );
        assert!(last.starts_with(&format!(
            "workload: done name=linux mode={mode} jobs=40 wrong=0"
        )));
        assert_eq!(field(last, "factorials"), 40);
        assert!(field(last, "dma_bytes") > 80 * 1000);
        assert!(field(last, "interrupts") > 40);
        assert_eq!(outside, 0);
        assert_eq!(
            lines.iter().filter(|l| l.contains("progress")).count(),
            8,
            "{mode}"
        );
    }
}

#[test]
fn every_fault_is_noticed_under_its_name() {
    for (fault, what) in [
        (Fault::Factorial, "what=factorial "),
        (Fault::Buffer, "what=buffer+0x0,1-bytes "),
        (Fault::Stale, "what=buffer+"),
        (
            Fault::InterruptBits,
            "what=interrupt expected=0x1 found=0x101",
        ),
        (Fault::InterruptUncalled, "what=interrupt-uncalled "),
        (Fault::InterruptLost, "what=interrupt-lost "),
        (
            Fault::InterruptTwice,
            "what=interrupt-count expected=0x1 found=0x2",
        ),
        (Fault::Liveness, "what=liveness "),
        (Fault::DmaSource, "what=dma-source "),
        (Fault::DmaCount, "what=dma-count "),
        (Fault::ResultLost, "what=factorial-kept "),
        (Fault::Overrun, "what=memory-beside-transfer "),
        (Fault::NoWrite, "what=buffer+"),
        (Fault::Stuck, "what=dma-"),
    ] {
        let (lines, _) = lines(fault, "workload.jobs=30");
        let wrong = lines.iter().filter(|line| line.contains("WRONG"));
        let found = wrong.clone().any(|line| line.contains(what));
        assert!(found, "{fault:?}: {:?}", wrong.collect::<Vec<_>>());
        let last = lines.last().expect("a last line");
        assert_eq!(field(last, "jobs"), 30, "{fault:?}");
        assert!(field(last, "wrong") > 0, "{fault:?}");
    }
}

#[test]
fn a_time_bound_ends_the_run() {
    let (lines, _) = lines(Fault::None, "workload.seconds=20");
    let last = lines.last().expect("a last line");
    assert!(
        (20_000..22_000).contains(&field(last, "elapsed_ms")),
        "{last}"
    );
    assert!(field(last, "jobs") > 40);
}

#[test]
fn a_secret_is_found_if_and_only_if_it_is_there() {
    let line = format!("workload.mode=secret-read workload.secret={SECRET} workload.rounds=5");
    let (clean, _) = lines(Fault::None, &line);
    assert!(
        clean.contains(
            &"workload: secret found=0 rounds=5 nonzero_bytes=0 nonzero_registers=0".into()
        ),
        "{clean:?}"
    );
    assert_eq!(field(clean.last().expect("a last line"), "wrong"), 0);

    let (leaky, _) = lines(Fault::Secret, &line);
    let last = leaky.last().expect("a last line");
    assert_eq!(field(last, "found"), 5 * 23);
    assert_eq!(field(last, "wrong"), 5);

    let (marked, _) = lines(Fault::LivenessKept, &line);
    assert!(
        marked
            .iter()
            .any(|line| line.contains("nonzero_bytes=0") && field(line, "nonzero_registers") > 0),
        "{marked:?}"
    );

    let (lost, _) = lines(Fault::NoWrite, &line);
    assert_eq!(field(lost.last().expect("a last line"), "wrong"), 5);
}

#[test]
fn a_secret_is_written_and_held() {
    let line = "workload.mode=secret-write workload.hold=1 workload.seconds=5";
    let (right, _) = lines(Fault::None, line);
    assert_eq!(right[0], "workload: secret written");
    let last = right.last().expect("a last line");
    assert_eq!(field(last, "wrong"), 0, "{right:?}");
    assert!(field(last, "factorials") > 50);

    let (wrong, _) = lines(Fault::Liveness, line);
    assert!(field(wrong.last().expect("a last line"), "wrong") > 0);
}

#[test]
fn outside_attempts_are_made_and_leaks_counted() {
    let line = format!("workload.mode=dma-outside workload.outside={OUTSIDE:#x} workload.jobs=20");
    let (right, outside) = lines(Fault::None, &line);
    let last = right.last().expect("a last line");
    assert_eq!(outside, 20);
    assert!(right.contains(&"workload: outside attempts=20".into()));
    assert_eq!(
        (field(last, "wrong"), field(last, "leaked_bytes")),
        (0, 0),
        "{right:?}"
    );

    let (leaky, _) = lines(Fault::OutsideLeaks, &line);
    let last = leaky.last().expect("a last line");
    assert!(field(last, "leaked_bytes") > 0);
    assert!(field(last, "wrong") > 0);
}

#[test]
fn touches_are_checked_with_and_without_doorbells() {
    let (right, _) = lines(Fault::None, "workload.mode=touch workload.seconds=3");
    let last = right.last().expect("a last line");
    assert_eq!(field(last, "wrong"), 0, "{right:?}");
    assert!(field(last, "reads") > 1000);
    assert_eq!(
        (field(last, "doorbells"), field(last, "factorials")),
        (0, 0)
    );

    let line = "workload.mode=touch workload.seconds=3 workload.doorbell=1";
    let (right, _) = lines(Fault::None, line);
    let last = right.last().expect("a last line");
    assert_eq!(field(last, "wrong"), 0, "{right:?}");
    assert_eq!(field(last, "doorbells"), field(last, "factorials"));
    assert!(field(last, "busy_reads") > 0);

    for fault in [Fault::Factorial, Fault::InterruptUncalled] {
        let (wrong, _) = lines(fault, line);
        assert!(
            field(wrong.last().expect("a last line"), "wrong") > 0,
            "{fault:?}"
        );
    }
}

/// A device that is pulled is no wrong result: the run ends, whatever it was doing, with the error that says so.
#[test]
fn a_pulled_device_is_the_end_and_no_wrong_result() {
    for at in (0..4_000).step_by(37) {
        for mode in ["jobs", "stress"] {
            let (options, _) = Options::parse(&format!("workload.mode={mode} workload.hotplug=1"));
            let model = Model::new(Fault::Pulled(at));
            let lines = model.lines.clone();
            let error = run(model, &options).expect_err("the device is gone");
            assert_eq!(error.kind(), io::ErrorKind::NotConnected, "{mode} {at}");
            let lines = lines.borrow();
            assert!(
                !lines.iter().any(|line| line.contains("WRONG")),
                "{lines:?}"
            );
        }
    }
}
