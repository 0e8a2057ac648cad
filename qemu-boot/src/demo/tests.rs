//! The demo's judgement, on console text such as Baton prints.

use super::*;
use std::process::Command;

const SOON: Duration = Duration::from_secs(10);

/// A Baton played by a shell script: it prints `boot`, and answers commands at its console.
fn played(name: &str, boot: &str) -> Console {
    let logs = std::env::temp_dir().join(format!("baton-demo-{}", std::process::id()));
    std::fs::create_dir_all(&logs).unwrap();
    let script = r#"
printf '%s\n' "$BOOT"
stdbuf -oL tr '\r\001' '\n\n' | while read -r line; do
  case "$line" in
    *"coproc query") printf '%s\r\n' '[baton] coproc id=0 driver=qemu,edu switches=9 refusals=2 elapsed_ns=1000 charge_ns=800 overhead_ns=150 idle_ns=50 fault_ns=0 switch_min_ns=1 switch_mean_ns=2 switch_max_ns=3' '[d1] ok' '[baton] vcoproc id=v0 coproc=0 domain=d1 charge_ns=410' '[baton] vcoproc id=v1 coproc=0 domain=d2 charge_ns=390' '[baton] ok';;
    *"coproc timeline")
      for n in 1 2 3 4 5 6 7 8; do
        printf '%s\r\n' "[baton] slice coproc=0 vcoproc=v0 domain=d1 from_ns=${n}000 to_ns=${n}400"
        printf '%s\r\n' "[baton] slice coproc=0 vcoproc=v1 domain=d2 from_ns=${n}450 to_ns=${n}850"
      done
      printf '%s\r\n' '[baton] ok';;
    "") printf '%s\r\n' '[baton] input to baton';;
    *) printf '%s\r\n' '[baton] error: unknown command';;
  esac
done
"#;
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("BOOT", boot);
    Console::spawn(name, command, &logs, SOON * 6).unwrap()
}

fn options() -> Options {
    Options {
        jobs: 40,
        svg: None,
        limit: SOON,
    }
}

fn names() -> Vec<String> {
    vec!["d1".to_owned(), "d2".to_owned()]
}

const DONE: &str = "\
[baton] Baton starts
[d1] workload: progress jobs=7
[d2] workload: done name=d2 jobs=40 wrong=0 factorials=40 dma_bytes=327680 interrupts=120 elapsed_ms=800
[d1] workload: done name=d1 jobs=40 wrong=0 factorials=40 dma_bytes=327680 interrupts=120 elapsed_ms=900";

#[test]
fn a_good_run_is_followed_queried_and_passes() {
    let console = played("good", DONE);
    let results = follow(&console, &names(), &options()).unwrap();
    assert_eq!(results.len(), 2);
    let report = query(&console).unwrap();
    assert_eq!(report.slices.len(), 16);
    let checks = check(&results, &names(), 40, Some(&report));
    assert!(checks.iter().all(|check| check.holds), "{checks:?}");
    assert_eq!(checks.len(), 9);
    verdict(&checks).unwrap();
    let table = table(&results, Some(&report));
    assert!(
        table.contains("51.2 %") && table.contains("9 switches, 2 refusals"),
        "{table}"
    );
    let error = ask(&console, "bogus").unwrap_err().to_string();
    assert!(error.contains("unknown command"), "{error}");
}

#[test]
fn what_ends_a_run_early() {
    for (name, line) in [
        ("failed", "[d1] workload: failed no device"),
        ("panic", "[d2] [    1.0] Kernel panic - not syncing"),
        ("el2", "[baton] panic: at mm.rs"),
        ("garbled", "[d1] workload: done name=d1"),
    ] {
        let console = played(name, line);
        let error = follow(&console, &names(), &options())
            .unwrap_err()
            .to_string();
        assert!(error.contains(line), "{error}");
    }
}

#[test]
fn a_missing_domain_is_waited_for_and_told() {
    let console = played("missing", DONE.rsplit_once('\n').unwrap().0);
    let brief = Options {
        limit: Duration::from_millis(300),
        ..options()
    };
    let error = follow(&console, &names(), &brief).unwrap_err().to_string();
    assert!(error.contains("the end of d1 and d2"), "{error}");
}

#[test]
fn every_kind_of_bad_result_fails_its_check() {
    let good = WorkloadResult {
        jobs: 40,
        ..WorkloadResult::default()
    };
    let mut results = Results::from([("d1".to_owned(), good.clone()), ("d2".to_owned(), good)]);
    let report = |lines: &[&str]| {
        let mut report = CoprocReport::default();
        lines.iter().for_each(|line| report.take(line));
        report
    };
    let coproc =
        "coproc id=0 switches=1 elapsed_ns=10 charge_ns=10 overhead_ns=0 idle_ns=0 fault_ns=0";
    let (fair1, fair2) = (
        "vcoproc id=v0 domain=d1 charge_ns=5",
        "vcoproc id=v1 domain=d2 charge_ns=5",
    );
    let slices = |domains: &[&str], times: [u64; 2], rounds: u64| -> Vec<String> {
        let mut lines = Vec::new();
        for round in 0..rounds {
            for (domain, time) in domains.iter().zip(times) {
                let from = 100 * round + if *domain == "d1" { 0 } else { 50 };
                let to = from + time;
                lines.push(format!(
                    "slice coproc=0 domain={domain} from_ns={from} to_ns={to}"
                ));
            }
        }
        lines
    };
    let failed = |results: &Results, lines: &[&str]| -> Vec<String> {
        check(results, &names(), 40, Some(&report(lines)))
            .into_iter()
            .filter(|check| !check.holds)
            .map(|check| check.claim)
            .collect()
    };
    let run = |results: &Results, own: &[&str], slices: &[String]| {
        let lines: Vec<&str> = own
            .iter()
            .copied()
            .chain(slices.iter().map(String::as_str))
            .collect();
        failed(results, &lines)
    };
    let fair = slices(&["d1", "d2"], [40, 40], 8);
    let all = [coproc, fair1, fair2];
    assert!(run(&results, &all, &fair).is_empty());
    let unfair = slices(&["d1", "d2"], [40, 20], 8);
    assert_eq!(run(&results, &all, &unfair).len(), 2);
    let short = slices(&["d1", "d2"], [40, 40], 4);
    assert_eq!(run(&results, &all, &short).len(), 2, "too short to judge");
    let alone = slices(&["d1"], [40, 0], 20);
    let claims = run(&results, &all, &alone);
    assert!(
        claims.iter().any(|claim| claim.contains("every domain")),
        "{claims:?}"
    );
    let leak = coproc.replace("idle_ns=0", "idle_ns=1");
    assert!(run(&results, &[&leak, fair1, fair2], &fair)[0].contains("adds up"));
    let still = coproc.replace("switches=1", "switches=0");
    assert!(run(&results, &[&still, fair1, fair2], &fair)[0].contains("switched"));
    assert!(failed(&results, &[]).len() >= 3);

    results.get_mut("d1").unwrap().wrong = 1;
    results.get_mut("d2").unwrap().jobs = 39;
    assert_eq!(run(&results, &all, &fair).len(), 2);
    results.remove("d2");
    let checks = check(&results, &names(), 40, None);
    assert!(
        checks
            .iter()
            .any(|check| !check.holds && check.claim.contains("d2 reported"))
    );
    assert!(verdict(&checks).is_err());
}
