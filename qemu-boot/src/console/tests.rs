//! The console against ordinary programs.

use super::*;
use std::path::PathBuf;

const SOON: Duration = Duration::from_secs(10);

fn logs() -> PathBuf {
    let path = std::env::temp_dir().join(format!("baton-console-{}", std::process::id()));
    std::fs::create_dir_all(&path).unwrap();
    path
}

fn shell(name: &str, script: &str, limit: Duration) -> Console {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Console::spawn(name, command, &logs(), limit).unwrap()
}

/// Whether a process still runs: neither gone nor a zombie that nobody collected.
fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .ok()
        .and_then(|stat| stat.rsplit(") ").next().map(|rest| !rest.starts_with('Z')))
        .unwrap_or(false)
}

fn gone_soon(pid: u32) -> bool {
    let deadline = Instant::now() + SOON;
    while alive(pid) {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn a_line_that_will_be_shown_again_is_none() {
    let script = r"printf '[d1] done jobs=4\r\r\n[baton] ok\r\n[d1] done jobs=40\r\nplain\r\r\n[    0.1] x\r\r\n[baton] > \r\r\n'; sleep 9";
    let console = shell("beginning", script, SOON);
    console
        .wait_for_prompt(Mark::START, "[baton] > ", SOON)
        .unwrap();
    let lines = ["[baton] ok", "[d1] done jobs=40", "plain", "[    0.1] x"];
    assert_eq!(console.lines(), lines);
    let mark = console.mark();
    let soon = Duration::from_millis(10);
    assert!(console.wait_for_prompt(mark, "> ", soon).is_err());
}

#[test]
fn a_conversation_by_lines() {
    let console = shell(
        "talk",
        r"printf 'ready\r\n'; while read x; do echo got $x; done",
        SOON,
    );
    assert_eq!(console.wait_for("ready", SOON).unwrap(), "ready");
    for word in ["one", "two"] {
        let mark = console.mark();
        console.send(&format!("{word}\n")).unwrap();
        assert_eq!(
            console.wait_for_after(mark, "got", SOON).unwrap(),
            format!("got {word}")
        );
    }
    assert_eq!(console.lines(), ["ready", "got one", "got two"]);
    console.close_input();
    assert!(console.wait_exit(SOON).unwrap().success());
}

#[test]
fn every_line_is_shown_once_and_in_order() {
    let console = shell(
        "count",
        "for i in 1 2 3 4 5 6 7 8 9; do echo $i; done; sleep 1; echo end",
        SOON,
    );
    let mut seen = String::new();
    let (mark, ()) = console
        .wait_map(Mark::START, "the end", SOON, |line| {
            seen.push_str(line);
            (line == "end").then_some(())
        })
        .unwrap();
    assert_eq!(seen, "123456789end");
    assert!(console.lines_after(mark).is_empty());
}

#[test]
fn a_prompt_needs_no_line_end_but_a_line_does() {
    let console = shell("prompt", "printf 'baton> '; sleep 60", SOON);
    console
        .wait_for_prompt(Mark::START, "baton>", SOON)
        .unwrap();
    assert!(
        console
            .wait_for("baton>", Duration::from_millis(50))
            .is_err()
    );
}

#[test]
fn a_missing_line_is_an_error_that_shows_the_output() {
    let console = shell(
        "silent",
        "echo something else; sleep 60",
        Duration::from_secs(60),
    );
    let error = console
        .wait_for("hello", Duration::from_millis(300))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("'hello'") && error.contains("something else"),
        "{error}"
    );
    assert!(error.contains("silent.log"), "{error}");
}

#[test]
fn an_early_end_is_told_at_once_with_the_error_stream() {
    let console = shell("early", "echo broken >&2; exit 4", SOON);
    let started = Instant::now();
    let error = console
        .wait_for("hello", Duration::from_secs(60))
        .unwrap_err()
        .to_string();
    assert!(started.elapsed() < SOON);
    assert!(
        error.contains("exit status: 4") && error.contains("broken"),
        "{error}"
    );
}

#[test]
fn the_log_holds_the_command_and_the_output() {
    let console = shell("logged", "echo out; echo err >&2", SOON);
    console.wait_exit(SOON).unwrap();
    console.wait_for("out", SOON).unwrap();
    console.wait_for("err", SOON).unwrap();
    let log = std::fs::read_to_string(console.log()).unwrap();
    assert!(
        log.starts_with("# sh -c") && log.contains("\nout\n") && log.contains("err\n"),
        "{log}"
    );
}

#[test]
fn the_time_limit_kills_although_nobody_waits() {
    let console = shell(
        "limit",
        "echo on; exec sleep 600",
        Duration::from_millis(300),
    );
    assert!(gone_soon(console.pid()));
    let error = console.wait_for("never", SOON).unwrap_err().to_string();
    assert!(error.contains("time limit"), "{error}");
}

#[test]
fn dropping_kills() {
    let console = shell("drop", "exec sleep 600", Duration::from_secs(600));
    let pid = console.pid();
    assert!(alive(pid));
    drop(console);
    assert!(!alive(pid));
}

#[test]
fn a_child_outlives_the_thread_that_asked_for_it() {
    let console = thread::spawn(|| shell("thread", "exec sleep 600", Duration::from_secs(600)))
        .join()
        .unwrap();
    thread::sleep(Duration::from_millis(300));
    assert!(alive(console.pid()));
}

/// Not a test by itself: the process that `a_killed_parent_leaves_no_child` kills.
#[test]
#[ignore = "started by a_killed_parent_leaves_no_child"]
fn parent_to_be_killed() {
    let console = shell("orphan", "exec sleep 600", Duration::from_secs(600));
    println!("child={}", console.pid());
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn a_killed_parent_leaves_no_child() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "console::tests::parent_to_be_killed",
        "--ignored",
        "--nocapture",
    ]);
    let parent = Console::spawn("parent", command, &logs(), SOON * 3).unwrap();
    let line = parent.wait_for("child=", SOON).unwrap();
    let pid: u32 = line.rsplit('=').next().unwrap().parse().unwrap();
    assert!(alive(pid));
    parent.kill();
    assert!(gone_soon(pid), "process {pid} was left behind");
}
