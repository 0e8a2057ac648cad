//! The console as its two users see it: a person or a program on the UART, and the domains.

use super::input::{ESCAPE, Focus, Routed, Router};
use super::management::*;
use super::multiplexer::*;
use super::shell::{Command, Editor, HELP, LINE_LENGTH, parse};
use super::*;
use crate::lifecycle::{Crash, Operation, Refusal, State};
use crate::trace::Rings;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Reason, Settings, Spread, Stage};
use coproc_core::driver::WorstCase;
use coproc_core::id::{CoprocId, Epoch, VcoprocId};
use coproc_core::ring::Ring;
use coproc_core::time::Duration;
use coproc_core::trace::{TraceEvent, TraceKind};
use proptest::prelude::*;

const D1: DomainId = DomainId(1);
const D2: DomainId = DomainId(2);
const T0: Instant = Instant::from_nanos(0);

fn at(milliseconds: u64) -> Instant {
    Instant::from_nanos(milliseconds * 1_000_000)
}

fn multiplexer() -> Multiplexer {
    let mut multiplexer = Multiplexer::new();
    multiplexer.add(D1);
    multiplexer.add(D2);
    multiplexer
}

fn drain(multiplexer: &mut Multiplexer) -> String {
    let bytes: Vec<u8> = core::iter::from_fn(|| multiplexer.next_byte()).collect();
    String::from_utf8(bytes).unwrap()
}

fn d(n: u16) -> Source {
    Source::Domain(DomainId(n))
}

#[test]
fn lines_are_tagged_and_whole() {
    let mut m = multiplexer();
    m.write(d(1), b"one ", T0);
    m.write(d(2), b"two\r\n", T0);
    m.write(Source::Baton, b"three\n", T0);
    assert_eq!(drain(&mut m), "[d2] two\r\n[baton] three\r\n");
    m.write(d(1), b"more\r\r\n\n", T0);
    assert_eq!(drain(&mut m), "[d1] one more\r\n[d1] \r\n");
}

#[test]
fn sources_take_turns() {
    let mut m = multiplexer();
    m.write(d(1), b"a\nb\nc\n", T0);
    m.write(d(2), b"x\ny\n", T0);
    let lines = "[d1] a\r\n[d2] x\r\n[d1] b\r\n[d2] y\r\n[d1] c\r\n";
    assert_eq!(drain(&mut m), lines);
}

#[test]
fn an_unfinished_line_shows_after_a_pause_and_again_after_an_interruption() {
    let mut m = multiplexer();
    assert_eq!(m.next_flush(), None);
    m.write(d(1), b"login: ", at(1));
    assert_eq!(m.next_flush(), Some(at(201)));
    m.flush_idle(at(200));
    assert_eq!(drain(&mut m), "");
    m.flush_idle(at(201));
    assert_eq!(drain(&mut m), "[d1] login: ");
    assert_eq!(m.next_flush(), None);
    m.write(d(2), b"hello\n", at(300));
    assert_eq!(drain(&mut m), "\r\n[d2] hello\r\n");
    m.flush_idle(at(900));
    assert_eq!(drain(&mut m), "", "not shown again until it grows");
    m.write(d(1), b"root\n", at(901));
    assert_eq!(drain(&mut m), "[d1] login: root\r\n");
}

#[test]
fn the_focused_line_is_prompt_and_comes_back_by_itself() {
    let mut m = multiplexer();
    m.set_focus(Focus::Domain(D1));
    m.write(d(1), b"$ ", at(0));
    assert_eq!(m.next_flush(), Some(at(2)));
    m.flush_idle(at(2));
    assert_eq!(drain(&mut m), "[d1] $ ");
    m.write(d(1), b"l", at(3));
    assert_eq!(drain(&mut m), "l", "an echo shows at once");
    m.write(d(2), b"noise\n", at(4));
    assert_eq!(drain(&mut m), "\r\n[d2] noise\r\n");
    m.flush_idle(at(500));
    assert_eq!(
        drain(&mut m),
        "",
        "not after each line of a talkative neighbour"
    );
    m.write(d(2), b"more\n", at(600));
    m.flush_idle(at(1100));
    assert_eq!(drain(&mut m), "[d2] more\r\n");
    assert_eq!(m.next_flush(), Some(at(1600)));
    m.flush_idle(at(1600));
    assert_eq!(drain(&mut m), "[d1] $ l");
    m.write(d(2), b"noise\n", at(1700));
    assert_eq!(drain(&mut m), "\r\n[d2] noise\r\n");
    m.write(d(1), b"s\n", at(1701));
    assert_eq!(drain(&mut m), "[d1] $ ls\r\n", "and at once when finished");
}

#[test]
fn two_unfinished_lines_do_not_chase_each_other() {
    let mut m = multiplexer();
    m.set_focus(Focus::Domain(D1));
    m.write(d(1), b"$ ", T0);
    m.write(d(2), b"# ", T0);
    m.flush_idle(at(1000));
    let mut shown = drain(&mut m);
    m.flush_idle(at(2000));
    shown += &drain(&mut m);
    assert!(shown.len() < 60 && shown.ends_with("[d1] $ "), "{shown:?}");
    m.flush_idle(at(4000));
    assert_eq!(drain(&mut m), "");
}

#[test]
fn control_bytes_are_made_harmless() {
    let mut m = multiplexer();
    m.write(d(1), b"\x1b[1mb\x1b[0m\t\x13\x7f\0.\n", T0);
    assert_eq!(drain(&mut m), "[d1] \x1b[1mb\x1b[0m\t^S^?.\r\n");
    m.write(d(1), b" 10%\r 20%\r\n", T0);
    assert_eq!(drain(&mut m), "[d1]  10%\r[d1]  20%\r\n");
}

#[test]
fn long_lines_are_cut_so_that_others_get_their_turn() {
    let mut m = multiplexer();
    m.write(d(1), &[b'a'; LINE_MAX + 1], T0);
    assert_eq!(drain(&mut m), format!("[d1] {}\r\n", "a".repeat(LINE_MAX)));
    m.write(d(1), b"\n", T0);
    assert_eq!(drain(&mut m), "[d1] a\r\n");
    m.write(d(1), &[b'b'; LINE_MAX], T0);
    m.write(d(1), b"\n", T0);
    assert_eq!(
        drain(&mut m),
        format!("[d1] {}\r\n", "b".repeat(LINE_MAX)),
        "exactly as long"
    );
}

#[test]
fn a_flood_loses_its_own_lines_only_and_says_so() {
    let mut m = multiplexer();
    for n in 0..2000 {
        m.write(d(1), format!("line {n}\n").as_bytes(), T0);
    }
    m.write(d(2), b"calm\n", T0);
    let lost = m.lost(d(1)).lines;
    assert!(lost > 0);
    assert_eq!(m.lost(d(2)), Lost::default());
    let text = drain(&mut m);
    assert!(text.contains("[d2] calm\r\n"));
    assert_eq!(text.matches("[d1] line ").count() as u64, 2000 - lost);
    m.write(d(1), b"after\n", T0);
    let notice = format!("[d1] ({lost} lines lost: output too fast)\r\n[d1] after\r\n");
    assert_eq!(drain(&mut m), notice);
    m.write(d(1), b"later\n", T0);
    assert_eq!(drain(&mut m), "[d1] later\r\n", "told once");
}

#[test]
fn unknown_sources_are_dropped() {
    let mut m = multiplexer();
    m.write(d(9), b"who\n", T0);
    assert_eq!(drain(&mut m), "");
    assert!(!m.has_room(d(9)));
}

/// One step of a random run of the multiplexer.
#[derive(Clone, Debug)]
enum Step {
    Write(u16, Vec<u8>),
    Drain(usize),
    Flush,
    Focus(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let text = "[ -~]{0,20}\n?|\n{0,3}|[a-z]{300}";
    prop_oneof![
        4 => (1u16..=3, text).prop_map(|(n, text)| Step::Write(n, text.into_bytes())),
        2 => (0usize..200).prop_map(Step::Drain),
        1 => Just(Step::Flush),
        1 => (0u16..=3).prop_map(Step::Focus),
    ]
}

/// What a source should show: each line marked with its source and number, so that no two agree.
fn expected(lines: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![];
    for line in lines.split(|byte| *byte == b'\n') {
        if line.is_empty() {
            all.push(vec![]);
        }
        all.extend(line.chunks(LINE_MAX).map(<[u8]>::to_vec));
    }
    all.pop_if(|last| last.is_empty());
    all
}

proptest! {
    #[test]
    fn lines_never_mix_and_none_is_lost(steps in proptest::collection::vec(step(), 0..80)) {
        let mut m = multiplexer();
        m.add(DomainId(3));
        let mut written: [Vec<u8>; 3] = Default::default();
        let mut serial = 0;
        let mut screen = vec![];
        let mut now = 0;
        for step in steps {
            match step {
                Step::Write(n, text) => {
                    let all = &mut written[usize::from(n) - 1];
                    let mut bytes = vec![];
                    // A byte above 0x7f names the source, the digits make every line unique.
                    for byte in text {
                        let begins = all.iter().chain(&bytes).last().is_none_or(|b| *b == b'\n');
                        if begins {
                            serial += 1;
                            bytes.extend(format!("{serial}").bytes());
                        }
                        bytes.push(byte);
                        if byte != b'\n' {
                            bytes.push(0xf0 + n as u8);
                        }
                    }
                    if all.len() + bytes.len() < SHARE {
                        all.extend(&bytes);
                        m.write(d(n), &bytes, at(now));
                    }
                }
                Step::Drain(count) => screen.extend((0..count).map_while(|_| m.next_byte())),
                Step::Flush => {
                    now += 300;
                    m.flush_idle(at(now));
                }
                Step::Focus(0) => m.set_focus(Focus::Baton),
                Step::Focus(n) => m.set_focus(Focus::Domain(DomainId(n))),
            }
        }
        for (n, all) in (1u16..).zip(&mut written) {
            prop_assert_eq!(m.lost(d(n)), Lost::default());
            if all.last().is_some_and(|byte| *byte != b'\n') {
                all.push(b'\n');
                m.write(d(n), b"\n", at(now));
            }
        }
        screen.extend(core::iter::from_fn(|| m.next_byte()));
        prop_assert!(screen.is_empty() || screen.ends_with(b"\r\n"));
        let mut rows: Vec<&[u8]> = screen.split(|byte| *byte == b'\n').collect();
        rows.pop();
        let lines: Vec<_> = written.iter().map(|all| expected(all)).collect();
        let mut position = [0; 3];
        for row in rows {
            prop_assert!(row.starts_with(b"[d") && row[3..].starts_with(b"] ") && row.ends_with(b"\r"));
            let source = usize::from(row[2] - b'1');
            let payload = &row[5..row.len() - 1];
            let foreign = |byte: &u8| *byte >= 0x80 && *byte != 0xf1 + source as u8;
            prop_assert!(!payload.iter().any(foreign));
            let (lines, position) = (&lines[source], &mut position[source]);
            let next = lines.get(*position);
            if next.is_some_and(|line| line == payload) {
                *position += 1;
            } else {
                // A beginning that was interrupted, of this line or of the one just counted.
                let last = position.checked_sub(1).and_then(|p| lines.get(p));
                let beginning = |line: Option<&Vec<u8>>| line.is_some_and(|l| l.starts_with(payload));
                prop_assert!(beginning(next) || beginning(last), "{payload:?} {next:?}");
            }
        }
        for (lines, position) in lines.iter().zip(position) {
            prop_assert_eq!(lines.len(), position, "every line appeared in full, in order");
        }
    }

    #[test]
    fn random_bytes_never_break_the_console(
        steps in proptest::collection::vec((0u8..6, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..300)
    ) {
        let mut console = console();
        let mut system = System::default();
        for (n, (kind, byte, bytes)) in steps.into_iter().enumerate() {
            let now = at(n as u64);
            match kind {
                0 => console.write_domain(DomainId(u16::from(byte) % 4), &bytes, now),
                1 => console.log(&bytes, now),
                2 => for byte in bytes { console.input(byte, now); },
                3 => { console.poll(&mut system, now); },
                4 => console.flush_idle(now),
                _ => for _ in 0..byte { console.next_byte(); },
            }
        }
        while console.poll(&mut system, at(1000)) { while console.next_byte().is_some() {} }
        let mut rest = 0;
        while console.next_byte().is_some() { rest += 1; prop_assert!(rest < 10 * SHARE); }
    }

    #[test]
    fn no_line_breaks_the_parser(line in "\\PC{0,80}|(coproc|console|domains) [a-z]{0,7} [d0-9]{0,12} .{0,20}") {
        match parse(&line) {
            Ok(_) => {}
            Err(error) => prop_assert!(error.to_string().contains(", ")),
        }
    }
}

#[test]
fn three_escapes_rotate_and_fewer_are_delivered() {
    let mut router = Router::new();
    router.add(D1);
    router.add(D2);
    let mut seen = vec![];
    for _ in 0..3 {
        assert_eq!(router.feed(ESCAPE), Routed::Held);
        assert_eq!(router.feed(ESCAPE), Routed::Held);
        assert_eq!(router.feed(ESCAPE), Routed::Rotated);
        seen.push(router.focus());
    }
    assert_eq!(seen, [Focus::Domain(D1), Focus::Domain(D2), Focus::Baton]);
    router.set_focus(Focus::Domain(D2));
    router.feed(ESCAPE);
    let bytes = [ESCAPE, b'x'].into_iter().collect();
    assert_eq!(router.feed(b'x'), Routed::Deliver(Focus::Domain(D2), bytes));
    assert!(!router.set_focus(Focus::Domain(DomainId(7))));
    assert_eq!(router.focus(), Focus::Domain(D2));
}

fn type_into(editor: &mut Editor, bytes: &[u8]) -> (String, usize) {
    let mut echo = vec![];
    let mut entered = 0;
    for byte in bytes {
        let edited = editor.feed(*byte);
        echo.extend(edited.echo);
        entered += usize::from(edited.entered);
    }
    (String::from_utf8(echo).unwrap(), entered)
}

#[test]
fn the_editor_edits() {
    let mut editor = Editor::new();
    assert_eq!(
        type_into(&mut editor, b"helx\x7fp"),
        ("helx\x08 \x08p".to_string(), 0)
    );
    assert_eq!(editor.line(), "help");
    assert_eq!(
        type_into(&mut editor, b"\x15ok"),
        ("\x08 \x08".repeat(4) + "ok", 0)
    );
    type_into(&mut editor, b"\x1b[A\x1b[3~\x1bOP\x01!");
    assert_eq!(
        editor.line(),
        "ok!",
        "arrow and function keys are swallowed"
    );
    assert_eq!(type_into(&mut editor, b"\r\n"), ("\n".to_string(), 1));
    editor.clear();
    assert_eq!(type_into(&mut editor, b"\n\n").1, 2);
    type_into(&mut editor, b"abc");
    assert!(editor.feed(3).cancelled);
    assert_eq!(editor.line(), "");
    type_into(&mut editor, &[b'z'; LINE_LENGTH]);
    assert_eq!(editor.feed(b'z').echo.as_slice(), b"\x07");
    assert_eq!(editor.line().len(), LINE_LENGTH);
    assert_eq!(editor.feed(0x15).echo.len(), 3 * LINE_LENGTH);
}

#[test]
fn commands_are_typed() {
    let (c0, word) = (CoprocId(0), |text: &str| Word::from(text).unwrap());
    let commands = [
        ("  ", Command::Empty),
        ("help", Command::Help),
        ("domains", Command::Domains),
        ("coproc list", Command::CoprocList),
        ("coproc query", Command::CoprocQuery(None)),
        (" coproc  query 7 ", Command::CoprocQuery(Some(CoprocId(7)))),
        ("coproc timeline coproc0", Command::CoprocTimeline(Some(c0))),
        ("coproc histogram 0", Command::CoprocHistogram(c0)),
        (
            "trace",
            Command::Trace {
                coproc: None,
                from: T0,
            },
        ),
        (
            "trace from 2000000 coproc 7",
            Command::Trace {
                coproc: Some(CoprocId(7)),
                from: at(2),
            },
        ),
        (
            "coproc set 0 slice-us 20000",
            Command::CoprocSet {
                coproc: c0,
                name: word("slice-us"),
                value: word("20000"),
            },
        ),
        (
            "coproc attach 0 d2",
            Command::CoprocAttach {
                coproc: c0,
                domain: D2,
            },
        ),
        (
            "coproc detach 0 d1",
            Command::CoprocDetach {
                coproc: c0,
                domain: D1,
            },
        ),
        (
            "coproc record 0",
            Command::CoprocRecord {
                coproc: c0,
                from: 0,
            },
        ),
        (
            "coproc record 0 4711",
            Command::CoprocRecord {
                coproc: c0,
                from: 4711,
            },
        ),
        ("memory", Command::Memory),
        (
            "domain create d2",
            Command::Domain(Operation::Create, DomainId(2)),
        ),
        (
            "domain pause d2",
            Command::Domain(Operation::Pause, DomainId(2)),
        ),
        (
            "domain resume d2",
            Command::Domain(Operation::Resume, DomainId(2)),
        ),
        (
            "domain restart d2",
            Command::Domain(Operation::Restart, DomainId(2)),
        ),
        (
            "domain destroy d2",
            Command::Domain(Operation::Destroy, DomainId(2)),
        ),
        ("domain report d2", Command::DomainReport(DomainId(2))),
        (
            "domain cycle d2 1000",
            Command::DomainCycle(DomainId(2), 1000),
        ),
        ("coproc share coproc0", Command::CoprocShare(c0)),
        ("coproc unshare 0", Command::CoprocUnshare(c0)),
        ("console baton", Command::Console(Focus::Baton)),
        ("console d2", Command::Console(Focus::Domain(D2))),
    ];
    for (text, command) in commands {
        assert_eq!(parse(text), Ok(command), "{text}");
    }
}

#[test]
fn mistakes_are_named_with_a_remedy() {
    let mistakes = [
        ("hepl", "unknown command `hepl`, `help` lists the commands"),
        (
            "coproc lsit",
            "unknown command `coproc lsit`, try list, query, timeline, histogram, record, set, attach, detach, share or unshare",
        ),
        (
            "coproc attach 0",
            "the domain is missing, write `coproc attach ID dN`",
        ),
        (
            "coproc unshare",
            "the coproc's id is missing, write `coproc unshare ID`",
        ),
        (
            "coproc share 0 d1",
            "`d1` is one word too many, write `coproc share ID`",
        ),
        (
            "coproc query x",
            "`x` is no coproc id, write `coproc query [ID]`",
        ),
        (
            "coproc query +1",
            "`+1` is no coproc id, write `coproc query [ID]`",
        ),
        (
            "coproc query 4294967296",
            "`4294967296` is no coproc id, write `coproc query [ID]`",
        ),
        (
            "coproc histogram",
            "the coproc's id is missing, write `coproc histogram ID`",
        ),
        (
            "trace from now",
            "`now` is no time in ns, write `trace [coproc ID] [from NS]`",
        ),
        (
            "trace 0",
            "`0` is no part of it, write `trace [coproc ID] [from NS]`",
        ),
        ("console 2", "`2` is no console, write `console baton|dN`"),
        ("console d", "`d` is no console, write `console baton|dN`"),
        ("domains all", "`all` is one word too many, write `domains`"),
    ];
    for (text, error) in mistakes {
        assert_eq!(parse(text).unwrap_err().to_string(), error);
    }
    assert_eq!(
        parse(&"é".repeat(90))
            .unwrap_err()
            .to_string()
            .matches('é')
            .count(),
        16
    );
}

/// A system with two domains that share coproc 0; coproc 3 has nobody.
#[derive(Default)]
struct System {
    slices: u64,
    rings: RingsOf,
    cycles: u32,
}

/// The traces of its CPUs.
#[derive(Default)]
struct RingsOf(Vec<Ring<TraceEvent>>);

impl Rings for RingsOf {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn read(&self, ring: usize, visit: &mut dyn FnMut(&Ring<TraceEvent>)) {
        visit(&self.0[ring]);
    }
}

impl System {
    fn with_slices(slices: u64) -> Self {
        Self {
            slices,
            ..Self::default()
        }
    }
}

fn worst(ns: u64) -> WorstCase {
    let time = Duration::from_nanos;
    WorstCase {
        refusal: time(ns),
        stop: time(ns + 1),
        save: time(ns + 2),
        restore: time(ns + 3),
    }
}

impl Management for System {
    fn operate(&mut self, domain: DomainId, operation: Operation) -> Result<(), ManagementError> {
        if domain != DomainId(1) {
            return Err(ManagementError::NoDomain(domain));
        }
        match operation {
            Operation::Pause => Ok(()),
            operation => Err(ManagementError::Refused(Refusal {
                operation,
                state: State::Paused,
            })),
        }
    }

    fn crash(
        &mut self,
        domain: DomainId,
        index: usize,
        line: &mut dyn core::fmt::Write,
    ) -> Result<bool, ManagementError> {
        if domain != DomainId(1) {
            return Err(ManagementError::NoReport(domain));
        }
        if index < 3 {
            let _ = write!(line, "crash line={index}");
        }
        Ok(index < 3)
    }

    fn cycle(&mut self, _: DomainId, rounds: u32) -> Result<(), ManagementError> {
        self.cycles += rounds;
        Ok(())
    }

    fn memory(&mut self) -> MemoryReport {
        MemoryReport {
            free: 4096,
            heap: 7,
            spaces: 2,
            firmware_vmids: 1,
            pending: true,
            domain_vmids: 2,
        }
    }

    fn set(&mut self, coproc: CoprocId, name: &str, value: &str) -> Result<(), ManagementError> {
        let _ = coproc;
        super::setting::Setting::parse(name, value).map(drop)
    }

    fn attach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError> {
        Err(ManagementError::AlreadyAttached { coproc, domain })
    }

    fn detach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError> {
        Err(ManagementError::NotAttached { coproc, domain })
    }

    fn share(&mut self, coproc: CoprocId) -> Result<(), ManagementError> {
        Err(ManagementError::AlreadyShared(coproc))
    }

    fn unshare(&mut self, coproc: CoprocId) -> Result<(), ManagementError> {
        if coproc.0 == 7 {
            return Err(ManagementError::NoCoproc(coproc));
        }
        Err(ManagementError::NotShared(coproc))
    }

    fn domain(&mut self, index: usize) -> Option<DomainReport> {
        (index < 2).then(|| DomainReport {
            id: DomainId(index as u16 + 1),
            state: State::Running,
            vcpus: 1,
            memory_mib: 512,
            cpus: if index == 0 { 1 } else { 6 },
            coprocs: [CoprocId(0), CoprocId(3)]
                .into_iter()
                .take(index + 1)
                .collect(),
        })
    }

    fn coproc(&mut self, index: usize) -> Option<CoprocReport> {
        let ns = Duration::from_nanos;
        (index < 2).then(|| CoprocReport {
            id: CoprocId(3 * index as u32),
            driver: "qemu,edu",
            scheduler: "rr",
            state: if index == 0 { "running" } else { "idle" },
            current: (index == 0).then_some(VcoprocId(0)),
            switches: 5,
            refusals: 2,
            elapsed: ns(100),
            charge: ns(60),
            overhead: ns(30),
            idle: ns(9),
            fault: ns(1),
            switch_min: ns(3),
            switch_mean: ns(4),
            switch_max: ns(7),
            settings: Settings {
                slice: ns(1000),
                refusal_bound: ns(5000),
                starvation_bound: None,
            },
            declared: worst(50),
            measured: worst(20),
        })
    }

    fn vcoproc(&mut self, coproc: CoprocId, index: usize) -> Option<VcoprocReport> {
        let ns = Duration::from_nanos;
        (coproc.0 == 0 && index < 2).then(|| VcoprocReport {
            id: VcoprocId(index as u32),
            coproc,
            domain: DomainId(index as u16 + 1),
            state: if index == 0 {
                VcoprocState::Current
            } else {
                VcoprocState::Asleep
            },
            charge: ns(20 + 20 * index as u64),
            charge_total: ns(60),
            overhead: ns(15),
            refused: ns(4),
            slices: 3,
            touches: 2,
            max_exits_per_slice: 1,
            emulated: 8,
            interrupts: 6,
            iommu_faults: index as u64,
            last_fault_address: (index == 1).then_some(0xdead_0000),
            parameters: (index == 0).then(|| Parameters {
                weight: 3,
                budget: Some(ns(400)),
                ..Parameters::default()
            }),
            wait_p50: ns(10),
            wait_p99: ns(11),
            wait_max: ns(12),
        })
    }

    fn histogram(
        &mut self,
        coproc: CoprocId,
        vcoproc: usize,
        histogram: usize,
    ) -> Option<HistogramReport> {
        let of = *["switch", "refusal", "wait"].get(histogram)?;
        let mut spread = Spread::EMPTY;
        if of == "wait" {
            for us in [0, 3, 3, u64::MAX / 1000] {
                spread.record(Duration::from_micros(us));
            }
        }
        (coproc.0 == 0 && vcoproc < 2).then_some(HistogramReport {
            coproc,
            vcoproc: VcoprocId(vcoproc as u32),
            of,
            spread,
        })
    }

    fn device(&mut self, index: usize) -> Option<devices::DeviceReport> {
        let last_fault = [
            None,
            Some(coproc_core::address::DeviceAddress::new(0x7000_0000)),
        ];
        let names = ["/gpio@e2000000", "pci:0000:00:02.0"];
        Some(devices::DeviceReport {
            domain: DomainId(2),
            name: names.get(index)?,
            given: index == 1,
            interrupts: 3,
            faults: index as u64,
            last_fault: *last_fault.get(index)?,
        })
    }

    fn pool(&mut self, index: usize) -> Option<cpus::PoolReport> {
        (index == 0).then_some(cpus::PoolReport {
            id: 4,
            scheduler: "weighted",
            cpus: cpus::Cpus(0b101),
            vcpus: 2,
        })
    }

    fn vcpu(&mut self, index: usize) -> Option<cpus::VcpuReport> {
        let ns = Duration::from_nanos;
        (index < 2).then(|| cpus::VcpuReport {
            domain: DomainId(index as u16 + 1),
            index: 0,
            pool: 4,
            state: if index == 0 { "running" } else { "off" },
            cpu: (index == 0).then_some(2),
            affinity: cpus::Cpus(0b100),
            parameters: Parameters {
                weight: 3,
                budget: (index == 0).then_some(ns(500)),
                period: (index == 0).then_some(ns(900)),
                ..Parameters::default()
            },
            ran: ns(10),
            waited: ns(20),
            longest_wait: ns(5),
            switches: 7,
            migrations: 1,
        })
    }

    fn set_pool(&mut self, pool: u32, scheduler: &str) -> Result<(), ManagementError> {
        match pool {
            4 => {
                assert_eq!(scheduler, "deadline");
                Ok(())
            }
            _ => Err(ManagementError::NoPool(pool)),
        }
    }

    fn set_domain(&mut self, name: &str, value: &str) -> Result<(), ManagementError> {
        cpus::DomainSetting::parse(name, value).map(drop)
    }

    fn trace(&mut self) -> &dyn Rings {
        &self.rings
    }

    fn recorded(&mut self, coproc: CoprocId) -> Result<RecordReport, ManagementError> {
        match coproc.0 {
            0 => Ok(RecordReport {
                coproc,
                bytes: 10 * RECORD_LINES,
                lines: RECORD_LINES,
                lost: 3,
            }),
            _ => Err(ManagementError::NotRecorded(coproc)),
        }
    }

    fn record(
        &mut self,
        coproc: CoprocId,
        from: u64,
        line: &mut dyn core::fmt::Write,
    ) -> Option<u64> {
        // It grows while it is told.
        let there = from.is_multiple_of(10) && from < 20 * RECORD_LINES;
        (coproc.0 == 0 && there).then(|| {
            write!(line, "{from:09}").unwrap();
            from + 10
        })
    }

    fn slice(&mut self, coproc: CoprocId, from: u64) -> Option<(u64, SliceReport)> {
        // The two oldest have been overwritten.
        let number = from.max(2);
        (coproc.0 == 0 && number < self.slices).then(|| {
            let vcoproc = VcoprocId((number % 2) as u32);
            let slice = SliceReport {
                coproc,
                vcoproc,
                domain: DomainId(vcoproc.0 as u16 + 1),
                from: at(number),
                to: at(number + 1),
            };
            (number, slice)
        })
    }
}

/// Lines of ten bytes in a record.
const RECORD_LINES: u64 = 10_000;

fn console() -> Console {
    let mut console = Console::new();
    console.add_domain(D1);
    console.add_domain(D2);
    console.start(T0);
    console
}

fn screen(console: &mut Console) -> String {
    let bytes: Vec<u8> = core::iter::from_fn(|| console.next_byte()).collect();
    String::from_utf8(bytes).unwrap()
}

/// Types a line and returns the answer's lines, without prompt and echo.
fn ask(console: &mut Console, system: &mut System, line: &str, now: Instant) -> Vec<String> {
    for byte in line.bytes().chain([b'\r']) {
        assert_eq!(console.input(byte, now), Event::None);
    }
    let mut text = String::new();
    loop {
        let more = console.poll(system, now);
        text += &screen(console);
        if !more {
            break;
        }
    }
    // The first row is the prompt's, with the echo; the last is the next prompt or nothing.
    let mut rows = text.split("\r\n").skip(1).collect::<Vec<_>>();
    let last = rows.pop().unwrap();
    assert!(last.is_empty() || last == "[baton] > ", "{last}");
    let lines = rows
        .iter()
        .map(|row| row.strip_prefix("[baton] ").unwrap().to_string());
    lines.collect()
}

#[test]
fn answers_are_key_value_lines_closed_by_ok() {
    let (mut console, mut system) = (console(), System::with_slices(4));
    let coproc0 = "coproc id=0 driver=qemu,edu scheduler=rr state=running current=v0 switches=5 \
         refusals=2 elapsed_ns=100 charge_ns=60 overhead_ns=30 idle_ns=9 fault_ns=1 \
         switch_min_ns=3 switch_mean_ns=4 switch_max_ns=7";
    let domains = [
        "domain id=d1 state=running vcpus=1 memory_mib=512 cpus=0 coprocs=0 reason=-",
        "domain id=d2 state=running vcpus=1 memory_mib=512 cpus=1,2 coprocs=0,3 reason=-",
        "ok",
    ];
    assert_eq!(ask(&mut console, &mut system, "domains", T0), domains);
    let query = [
        coproc0,
        "settings coproc=0 slice_ns=1000 refusal_bound_ns=5000 starvation_bound_ns=-",
        "worst coproc=0 declared_refusal_ns=50 measured_refusal_ns=20 declared_stop_ns=51 \
         measured_stop_ns=21 declared_save_ns=52 measured_save_ns=22 declared_restore_ns=53 \
         measured_restore_ns=23",
        "vcoproc id=v0 coproc=0 domain=d1 state=current charge_ns=20 share=33.33 overhead_ns=15 \
         refused_ns=4 slices=3 touches=2 max_exits_per_slice=1 emulated=8 interrupts=6 \
         iommu_faults=0 last_fault_address=- weight=3 priority=0 budget_ns=400 period_ns=- \
         wait_p50_ns=10 wait_p99_ns=11 wait_max_ns=12",
        "vcoproc id=v1 coproc=0 domain=d2 state=asleep charge_ns=40 share=66.67 overhead_ns=15 \
         refused_ns=4 slices=3 touches=2 max_exits_per_slice=1 emulated=8 interrupts=6 \
         iommu_faults=1 last_fault_address=0xdead0000 weight=- priority=- budget_ns=- period_ns=- \
         wait_p50_ns=10 wait_p99_ns=11 wait_max_ns=12",
        "ok",
    ];
    assert_eq!(ask(&mut console, &mut system, "coproc query 0", T0), query);
    let list = ask(&mut console, &mut system, "coproc list", T0);
    assert_eq!(list.len(), 3);
    assert_eq!(list[0], coproc0);
    assert!(list[1].starts_with("coproc id=3 ") && list[1].contains(" current=- "));
    assert_eq!(ask(&mut console, &mut system, "coproc query", T0).len(), 9);
    let timeline = [
        "slice coproc=0 vcoproc=v0 domain=d1 from_ns=2000000 to_ns=3000000",
        "slice coproc=0 vcoproc=v1 domain=d2 from_ns=3000000 to_ns=4000000",
        "ok",
    ];
    assert_eq!(
        ask(&mut console, &mut system, "coproc timeline", at(9)),
        timeline
    );
    let help = ask(&mut console, &mut system, "help", T0);
    assert_eq!(help.len(), HELP.len() + 1);
}

#[test]
fn histograms_show_their_buckets() {
    let (mut console, mut system) = (console(), System::default());
    let lines = ask(&mut console, &mut system, "coproc histogram 0", T0);
    assert_eq!(lines.len(), 7);
    let none = "count=0 total_ns=0 min_ns=0 max_ns=0 below_us=-";
    assert_eq!(
        lines[0],
        format!("histogram coproc=0 vcoproc=v0 of=switch {none}")
    );
    assert_eq!(
        lines[5],
        "histogram coproc=0 vcoproc=v1 of=wait count=4 total_ns=18446744073709551615 min_ns=0 \
         max_ns=18446744073709551000 below_us=1:1,4:2,more:1"
    );
    assert_eq!(lines[6], "ok");
    let longest = HistogramReport {
        coproc: CoprocId(u32::MAX),
        vcoproc: VcoprocId(u32::MAX),
        of: "refusal",
        spread: Spread {
            count: u64::MAX,
            total: Duration::MAX,
            min: Duration::MAX,
            max: Duration::MAX,
            // A hundred years of one event a microsecond.
            buckets: [1 << 52; coproc_core::coproc::BUCKETS],
        },
    };
    assert!(longest.to_string().len() < OWN_LINE_MAX);
}

/// Devices that domains have for themselves are listed.
#[test]
fn devices_of_domains() {
    let mut console = Console::new();
    let mut system = System::default();
    let first = "device domain=d2 name=/gpio@e2000000 given=0 interrupts=3 iommu_faults=0 last_fault_address=-";
    let second = "device domain=d2 name=pci:0000:00:02.0 given=1 interrupts=3 iommu_faults=1 last_fault_address=0x70000000";
    assert_eq!(
        ask(&mut console, &mut system, "devices", T0),
        [first, second, "ok"]
    );
}

/// Pools and vCPUs are listed and changed.
#[test]
fn pools_and_vcpus() {
    let mut console = Console::new();
    let mut system = System::default();
    let mut told = |line: &str| ask(&mut console, &mut system, line, T0);
    assert_eq!(
        told("pool list"),
        ["pool id=4 scheduler=weighted cpus=0,2 vcpus=2", "ok"]
    );
    let second = "vcpu domain=d2 index=0 pool=4 state=off cpu=- affinity=2 weight=3 budget_ns=- period_ns=- ran_ns=10 \
                  waited_ns=20 longest_wait_ns=5 switches=7 migrations=1";
    assert_eq!(told("vcpu list d2"), [second, "ok"]);
    let all = told("vcpu list");
    assert_eq!(all.len(), 3);
    assert!(all[0].contains("state=running cpu=2 affinity=2 weight=3 budget_ns=500 period_ns=900"));
    assert_eq!(
        told("vcpu list d9"),
        ["error: no domain d9, `domains` lists them"]
    );
    assert_eq!(told("pool set 4 scheduler deadline"), ["ok"]);
    assert_eq!(
        told("pool set 5 scheduler deadline"),
        ["error: no pool 5, `pool list` lists them"]
    );
    assert_eq!(told("domain set d1.affinity 0,1"), ["ok"]);
    for (line, error) in [
        ("pool", "what to do is missing, write `pool list|set`"),
        (
            "pool frob",
            "`frob` is no part of it, write `pool list|set`",
        ),
        (
            "pool set x scheduler null",
            "`x` is no pool's number, write `pool set ID scheduler NAME`",
        ),
        (
            "pool set 4 slice 3",
            "`slice` is no parameter of a pool, write `pool set ID scheduler NAME`",
        ),
        ("vcpu list 1", "`1` is no domain, write `vcpu list [dN]`"),
        (
            "domain set d1.weight",
            "the value is missing, write `domain set dN.NAME VALUE`",
        ),
        (
            "domain set d1.weight 0",
            "`0` is no value for d1.weight, expected a weight of 1 to 10000",
        ),
    ] {
        assert_eq!(told(line), [format!("error: {error}")], "{line}");
    }
}

/// Operations on domains, with what is wrong told in one line; a crash's report ends where its lines do.
#[test]
fn domains_are_operated_and_their_crashes_told() {
    let mut console = console();
    let mut system = System::default();
    let mut told = |command: &str| ask(&mut console, &mut system, command, at(10));
    assert_eq!(told("domain pause d1"), ["ok"]);
    assert_eq!(
        told("domain pause d7"),
        ["error: no domain d7, `domains` lists them"]
    );
    assert_eq!(
        told("domain create d1"),
        ["error: a domain that is paused can't be created, `domains` tells its state"]
    );
    assert_eq!(
        told("domain report d1"),
        ["crash line=0", "crash line=1", "crash line=2", "ok"]
    );
    assert_eq!(
        told("domain report d2"),
        ["error: d2 never crashed, nothing is to be told"]
    );
    assert_eq!(
        told("domain kill d1"),
        [
            "error: unknown command `domain kill`, try create, pause, resume, restart, destroy, report, cycle or set"
        ]
    );
    assert_eq!(
        told("domain pause"),
        [
            "error: the domain is missing, write `domain create|pause|resume|restart|destroy|report|cycle dN`"
        ]
    );
    assert_eq!(
        told("domain cycle d1 many"),
        ["error: `many` is no number, write `domain cycle dN ROUNDS`"]
    );
    assert_eq!(told("domain cycle d1 1000"), ["ok"]);
    assert_eq!(system.cycles, 1000);
    let crashed = DomainReport {
        id: D1,
        state: State::Crashed(Crash::Watchdog),
        vcpus: 1,
        memory_mib: 4,
        cpus: 0,
        coprocs: arrayvec::ArrayVec::new(),
    };
    assert_eq!(
        crashed.to_string(),
        "domain id=d1 state=crashed vcpus=1 memory_mib=4 cpus=- coprocs=- reason=watchdog"
    );
}

/// The trace of all CPUs is one story; it can be asked for by coprocessor and by time, and says what it has forgotten.
#[test]
fn the_trace_is_told_in_order_of_time() {
    let event = |ms: u64, coproc: u32, kind| TraceEvent {
        at: at(ms),
        spent: Duration::from_nanos(ms),
        epoch: Epoch(2),
        coproc: CoprocId(coproc),
        vcoproc: (coproc == 0).then_some(VcoprocId(1)),
        kind,
    };
    let ring = |events: &[TraceEvent]| {
        let mut ring = Ring::new(4, TraceEvent::EMPTY).unwrap();
        events.iter().for_each(|event| ring.push(*event));
        ring
    };
    let run = TraceKind::Transition {
        from: Stage::Running,
        to: Stage::Quiescing,
        reason: Some(Reason::Expired),
    };
    let mut system = System::default();
    system.rings.0 = vec![
        ring(&[
            event(0, 0, TraceKind::Attached),
            event(1, 0, TraceKind::Attached),
            event(3, 0, run),
            event(4, 0, TraceKind::Faulted("it hangs")),
            event(9, 0, TraceKind::IommuFaults(7)),
        ]),
        ring(&[
            event(2, 3, TraceKind::Algorithm("rr")),
            event(8, 3, TraceKind::Tuned),
            event(20, 3, TraceKind::Tuned),
        ]),
    ];
    let mut console = console();
    let lines = ask(&mut console, &mut system, "trace", at(10));
    let expected = [
        "event at_ns=1000000 cpu=0 number=1 coproc=0 vcoproc=v1 epoch=2 what=attached",
        "event at_ns=2000000 cpu=1 number=0 coproc=3 vcoproc=- epoch=2 what=scheduler scheduler=rr",
        "event at_ns=3000000 cpu=0 number=2 coproc=0 vcoproc=v1 epoch=2 what=transition \
         from=running to=quiescing spent_ns=3 reason=expired",
        "event at_ns=4000000 cpu=0 number=3 coproc=0 vcoproc=v1 epoch=2 what=faulted \
         why=\"it hangs\"",
        "event at_ns=8000000 cpu=1 number=1 coproc=3 vcoproc=- epoch=2 what=settings",
        "event at_ns=9000000 cpu=0 number=4 coproc=0 vcoproc=v1 epoch=2 what=iommu-faults count=7",
        "trace shown=6 lost=1",
        "ok",
    ];
    assert_eq!(lines, expected);
    let some = ask(
        &mut console,
        &mut system,
        "trace coproc 3 from 5000000",
        at(10),
    );
    assert_eq!(some, [expected[4], "trace shown=1 lost=1", "ok"]);

    // Thousands of events of no interest: found little by little, without a line in between.
    let mut long = Ring::new(4096, TraceEvent::EMPTY).unwrap();
    (0..4096).for_each(|_| long.push(event(1, 0, TraceKind::Tuned)));
    system.rings.0[0] = long;
    console.input(b'x', T0);
    console.input(0x15, T0);
    screen(&mut console);
    for byte in *b"trace coproc 3\r" {
        console.input(byte, at(10));
    }
    let mut polls = 0;
    while console.poll(&mut system, at(10)) {
        polls += 1;
    }
    assert!(polls > 20, "looked at too much in one go: {polls}");
    let text = screen(&mut console);
    assert_eq!(text.matches("event ").count(), 2, "{text}");
    assert!(!text.contains("[baton] \r\n"), "empty lines: {text:?}");
}

#[test]
fn failures_are_closed_by_an_error() {
    let (mut console, mut system) = (console(), System::default());
    let errors = [
        (
            "nonsense",
            "error: unknown command `nonsense`, `help` lists the commands",
        ),
        (
            "coproc query 1",
            "error: no coproc 1, `coproc list` lists them",
        ),
        (
            "coproc timeline 1",
            "error: no coproc 1, `coproc list` lists them",
        ),
        (
            "coproc histogram 1",
            "error: no coproc 1, `coproc list` lists them",
        ),
        ("console d9", "error: no domain d9, `domains` lists them"),
        (
            "coproc share 0",
            "error: coproc 0 is shared already, `coproc query 0` shows it",
        ),
        (
            "coproc unshare 3",
            "error: coproc 3 is not shared, `coproc share 3` shares it",
        ),
        (
            "coproc unshare 7",
            "error: no coproc 7, `coproc list` lists them",
        ),
        (
            "coproc attach 0 d1",
            "error: d1 has a vcoproc of coproc 0 already, `coproc query 0` shows it",
        ),
        (
            "coproc set 0 a b",
            "error: no parameter `a`, `help` lists them",
        ),
    ];
    for (line, error) in errors {
        assert_eq!(ask(&mut console, &mut system, line, T0), [error]);
    }
}

#[test]
fn a_long_answer_loses_nothing_and_ends_although_slices_go_on() {
    let (mut console, mut system) = (console(), System::with_slices(u64::MAX));
    let lines = ask(&mut console, &mut system, "coproc timeline 0", at(1002));
    assert_eq!(lines.len(), 1001);
    assert_eq!(lines[1000], "ok");
    assert_eq!(console.multiplexer().lost(Source::Shell), Lost::default());
}

#[test]
fn a_record_is_told_in_pieces() {
    let (mut console, mut system) = (console(), System::default());
    let (mut from, mut text) = (0, String::new());
    let mut pieces = 0;
    while from < 10 * RECORD_LINES {
        let command = alloc::format!("coproc record 0 {from}");
        let lines = ask(&mut console, &mut system, &command, T0);
        let (last, record) = lines.split_last().unwrap();
        assert_eq!(last, "ok");
        let (end, record) = record.split_last().unwrap();
        for line in record {
            text.push_str(line.strip_prefix('|').unwrap());
            text.push('\n');
        }
        from += record.len() as u64 * 10;
        let expected =
            alloc::format!("record coproc=0 bytes=100000 lines=10000 lost=3 next={from}");
        assert_eq!(*end, expected);
        assert!(record.len() as u64 * 10 <= (64 << 10) + 10);
        pieces += 1;
    }
    assert_eq!(pieces, 2);
    let whole: String = (0..RECORD_LINES)
        .map(|n| alloc::format!("{:09}\n", n * 10))
        .collect();
    assert!(text == whole, "each line once");
    // No line begins there.
    assert_eq!(
        ask(&mut console, &mut system, "coproc record 0 7", T0),
        [
            "record coproc=0 bytes=100000 lines=10000 lost=3 next=7",
            "ok"
        ]
    );
    assert_eq!(
        ask(&mut console, &mut system, "coproc record 3", T0),
        ["error: coproc 3 is not recorded, give its node `baton,record`"]
    );
}

#[test]
fn an_answer_waits_for_room_and_can_be_interrupted() {
    let (mut console, mut system) = (console(), System::with_slices(u64::MAX));
    for byte in *b"coproc timeline\r" {
        console.input(byte, at(5000));
    }
    for _ in 0..1000 {
        assert!(
            console.poll(&mut system, at(5000)),
            "the UART takes nothing"
        );
    }
    assert_eq!(console.multiplexer().lost(Source::Shell), Lost::default());
    console.input(CTRL_C, at(5000));
    screen(&mut console);
    assert!(!console.poll(&mut system, at(5000)));
    assert_eq!(
        screen(&mut console),
        "[baton] error: interrupted, ask again\r\n[baton] > "
    );
}

#[test]
fn commands_typed_ahead_are_answered_in_turn() {
    let (mut console, mut system) = (console(), System::default());
    for byte in *b"domains\rnonsense\r" {
        console.input(byte, T0);
    }
    while console.poll(&mut system, T0) {}
    let text = screen(&mut console);
    let (domains, nonsense) = (
        text.find("id=d2").unwrap(),
        text.find("error: unknown").unwrap(),
    );
    assert!(domains < nonsense, "{text}");
    assert_eq!(text.matches("[baton] > ").count(), 3, "{text}");
}

#[test]
fn input_goes_to_the_focus_and_the_switch_is_announced() {
    let (mut console, mut system) = (console(), System::default());
    assert_eq!(screen(&mut console), "[baton] > ");
    for _ in 0..3 {
        assert_eq!(console.input(ESCAPE, T0), Event::None);
    }
    assert_eq!(console.focus(), Focus::Domain(D1));
    assert_eq!(screen(&mut console), "\r\n[baton] input to d1\r\n");
    let bytes = [b'x'].into_iter().collect();
    assert_eq!(console.input(b'x', T0), Event::ToDomain(D1, bytes));
    console.flush_idle(at(1000));
    assert_eq!(screen(&mut console), "", "no prompt meanwhile");
    assert!(console.set_focus(Focus::Baton, T0));
    assert_eq!(screen(&mut console), "[baton] input to baton\r\n[baton] > ");
    let answer = ask(&mut console, &mut system, "console d2", T0);
    assert!(answer.contains(&"input to d2".to_string()) && answer.contains(&"ok".to_string()));
    assert_eq!(console.focus(), Focus::Domain(D2));
}

#[test]
fn the_longest_report_fits_into_a_line() {
    let most = Duration::from_nanos(u64::MAX);
    let mut report = System::default().coproc(0).unwrap();
    for time in [
        &mut report.elapsed,
        &mut report.charge,
        &mut report.overhead,
        &mut report.idle,
        &mut report.fault,
        &mut report.switch_min,
        &mut report.switch_mean,
        &mut report.switch_max,
    ] {
        *time = most;
    }
    (report.switches, report.refusals, report.id.0) = (u64::MAX, u64::MAX, u32::MAX);
    assert!(
        report.to_string().len() < OWN_LINE_MAX - 200,
        "leaves room for long names"
    );
    report.settings.starvation_bound = Some(most);
    assert!(report.settings_line().to_string().len() < OWN_LINE_MAX / 2);
    assert!(report.worst_line().to_string().len() < OWN_LINE_MAX / 2);
    let mut vcoproc = System::default().vcoproc(CoprocId(0), 1).unwrap();
    (vcoproc.charge, vcoproc.charge_total) = (most, Duration::from_nanos(1));
    assert_eq!(vcoproc.share(), u64::MAX, "saturates");
    vcoproc.charge_total = Duration::ZERO;
    assert_eq!(vcoproc.share(), 0);
    vcoproc.charge_total = most;
    assert!(vcoproc.to_string().contains(" share=100.00 "));
    vcoproc.charge_total = Duration::from_nanos(1);
    vcoproc.parameters = Some(Parameters {
        weight: u32::MAX,
        priority: u32::MAX,
        budget: Some(most),
        period: Some(most),
    });
    for time in [
        &mut vcoproc.overhead,
        &mut vcoproc.refused,
        &mut vcoproc.wait_p50,
        &mut vcoproc.wait_p99,
        &mut vcoproc.wait_max,
    ] {
        *time = most;
    }
    for count in [
        &mut vcoproc.slices,
        &mut vcoproc.touches,
        &mut vcoproc.max_exits_per_slice,
        &mut vcoproc.emulated,
        &mut vcoproc.interrupts,
        &mut vcoproc.iommu_faults,
    ] {
        *count = u64::MAX;
    }
    vcoproc.last_fault_address = Some(u64::MAX);
    assert!(vcoproc.to_string().len() < OWN_LINE_MAX);
}
