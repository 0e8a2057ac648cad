//! Lines of Baton and of the domains on one UART.

use super::*;

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
    assert_eq!(drain(&mut m), "\r\r\n[d2] hello\r\n");
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
    assert_eq!(drain(&mut m), "\r\r\n[d2] noise\r\n");
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
    assert_eq!(drain(&mut m), "\r\r\n[d2] noise\r\n");
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
            let row = &row[5..row.len() - 1];
            // `CUT` without its line feed.
            let beginning = row.strip_suffix(b"\r");
            let payload = beginning.unwrap_or(row);
            let foreign = |byte: &u8| *byte >= 0x80 && *byte != 0xf1 + source as u8;
            prop_assert!(!payload.iter().any(foreign));
            let (lines, position) = (&lines[source], &mut position[source]);
            let line = lines.get(*position).map_or(&[][..], Vec::as_slice);
            if beginning.is_some() {
                prop_assert!(line.starts_with(payload), "{payload:?} {line:?}");
            } else {
                prop_assert_eq!(payload, line);
                *position += 1;
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
