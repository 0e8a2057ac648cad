//! What is typed: to whom it goes, how it is edited, which command it is.

use super::*;

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
        ("domain define d2", Command::DomainDefine(DomainId(2))),
        (
            "file put 138 YmF0b24=",
            Command::FilePut {
                offset: 138,
                part: b"baton"[..].try_into().unwrap(),
            },
        ),
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
        (
            "file get 0",
            "`get` is no part of it, write `file put OFFSET BASE64`",
        ),
        (
            "file put -1 Zg==",
            "`-1` is no number of bytes, write `file put OFFSET BASE64`",
        ),
        (
            "file put 0",
            "a part of the file is missing, write `file put OFFSET BASE64`",
        ),
        (
            "file put 0 Zg",
            "`Zg` is no base64, write `file put OFFSET BASE64`",
        ),
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
