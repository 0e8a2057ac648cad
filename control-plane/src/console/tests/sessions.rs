//! A control domain's half of management: lines in, answers out, whatever the other end does.

use super::super::session::{Door, Port, Session};
use super::*;
use core::cell::RefCell;

struct Wire(RefCell<Port>);

impl Door for Wire {
    fn with<R>(&self, how: impl FnOnce(&mut Port) -> R) -> R {
        how(&mut self.0.borrow_mut())
    }
}

struct Line {
    wire: Wire,
    session: Session,
    system: System,
    changes: Vec<String>,
}

impl Line {
    fn new() -> Self {
        Self {
            wire: Wire(RefCell::default()),
            session: Session::default(),
            system: System::with_slices(3),
            changes: Vec::new(),
        }
    }

    fn write(&self, text: &[u8]) -> bool {
        let mut port = self.wire.0.borrow_mut();
        text.iter()
            .fold(false, |ready, byte| port.feed(*byte) | ready)
    }

    fn work(&mut self) {
        let mut steps = 0;
        while self.session.poll(&self.wire, &mut self.system, T0, |line| {
            self.changes.push(line.into());
        }) {
            steps += 1;
            assert!(steps < 10_000, "it never ends");
        }
    }

    /// Reads until nothing more comes.
    fn read(&mut self) -> String {
        let mut all = Vec::new();
        loop {
            self.work();
            let byte = self.wire.0.borrow_mut().next_byte();
            match byte {
                Some(byte) => all.push(byte),
                None => return String::from_utf8(all).unwrap(),
            }
        }
    }

    fn ask(&mut self, line: &str) -> String {
        assert!(self.write(format!("{line}\n").as_bytes()));
        self.read()
    }
}

#[test]
fn a_domain_hears_what_the_console_shows() {
    let mut line = Line::new();
    let mut console = console();
    let mut system = System::with_slices(3);
    for question in [
        "help",
        "domains",
        "memory",
        "devices",
        "coproc query",
        "coproc timeline 0",
        "coproc histogram 0",
        "trace",
        "pool list",
        "vcpu list",
        "vcpu list d9",
        "coproc set 0 slice-us 5000",
        "coproc query 77",
        "nonsense",
        "domain pause",
    ] {
        let shown = ask(&mut console, &mut system, question, T0);
        let told: Vec<String> = line.ask(question).lines().map(String::from).collect();
        assert_eq!(told, shown, "{question}");
        let last = told.last().unwrap();
        assert!(
            last == "ok" || last.starts_with("error: "),
            "{question}: {last}"
        );
    }
    assert_eq!(line.changes, ["coproc set 0 slice-us 5000"]);
}

#[test]
fn what_is_no_command_is_told_or_ignored() {
    let mut line = Line::new();
    assert_eq!(
        line.ask("console d1"),
        "error: console: whose input that is, is said on the console\n"
    );
    let long = "x".repeat(LINE_LENGTH + 1);
    assert_eq!(line.ask(&long), "error: a command is 200 bytes at most\n");
    assert!(line.ask(&long[1..]).starts_with("error: unknown command"));
    line.write(b"memory\xc3\xa4\n");
    assert_eq!(line.read(), "error: a command is ASCII text\n");
    // A terminal that echoes the ends of answers.
    for echo in ["", "ok", "error: unknown command `ok`", "\r"] {
        assert_eq!(line.ask(echo), "");
    }
    assert!(line.changes.is_empty());
}

#[test]
fn too_much_at_once_is_told_and_the_next_line_is_a_line_again() {
    let mut line = Line::new();
    for _ in 0..40 {
        line.write(b"coproc set 0 slice-us 5000\n");
    }
    line.write(b"half a li");
    let told = line.read();
    // 512 bytes hold 18 whole lines.
    assert_eq!(told.matches("ok\n").count(), 18);
    assert!(
        told.ends_with("ok\nerror: more than 512 bytes came before the answer; they are lost\n"),
        "{told}"
    );
    assert_eq!(line.changes.len(), 18);
    assert!(line.ask("memory").ends_with("ok\n"));
}

#[test]
fn a_listener_that_leaves_takes_its_answer_along() {
    let mut line = Line::new();
    line.write(b"help\nmemory\nhalf");
    line.work();
    assert!(line.wire.0.borrow_mut().next_byte().is_some());
    line.wire.with(Port::hang_up);
    assert_eq!(line.read(), "");
    assert!(line.ask("memory").ends_with("ok\n"));
}

/// One line is made ahead, however long an answer is.
#[test]
fn who_does_not_read_holds_up_nobody() {
    let mut line = Line::new();
    line.write(b"help\n");
    line.work();
    line.work();
    let mut first = Vec::new();
    while let Some(byte) = line.wire.with(Port::next_byte) {
        first.push(byte);
    }
    assert_eq!(first, format!("{}\n", HELP[0]).as_bytes());
}

proptest! {
    /// Whatever comes when, and whoever reads how much: every line is answered once, and the end of the answer to the last one is seen.
    #[test]
    fn any_bytes_are_survived(pieces in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..80), 0usize..40, any::<bool>()), 0..40)) {
        let mut line = Line::new();
        for (bytes, reads, leaves) in pieces {
            line.write(&bytes);
            line.work();
            for _ in 0..reads {
                line.wire.with(Port::next_byte);
            }
            if leaves {
                line.wire.with(Port::hang_up);
            }
        }
        line.read();
        line.write(b"\n");
        line.read();
        prop_assert!(line.ask("memory").ends_with("ok\n"));
    }
}
