//! What commands are answered.

use super::system::RECORD_LINES;
use super::*;

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
fn a_file_comes_in_parts_and_all_mistakes_in_it_are_told() {
    let (mut console, mut system) = (console(), System::default());
    let mut says = |line: &str, answer: &[&str]| {
        assert_eq!(ask(&mut console, &mut system, line, T0), answer, "{line}");
    };
    let none = "error: no file of yours is here, begin with `file put 0 BASE64`";
    says("domain define d1", &[none]);
    says("file put 3 YWJj", &[none]);
    says("file put 0 YUJj", &["file bytes=3", "ok"]);
    let gap =
        "error: the file has 3 bytes so far, go on there or begin anew with `file put 0 BASE64`";
    says("file put 2 YWJj", &[gap]);
    says("file put 3 RA==", &["file bytes=4", "ok"]);
    let lost = "error: no domain d7, `domains` lists them";
    says("domain define d7", &[lost]);
    let found = [
        "mistake /: a; expected none",
        "mistake /: c; expected none",
        "warning /: B; expected none",
        "warning /: D; expected none",
        "error: 2 mistakes, nothing was changed",
    ];
    says("domain define d1", &found);
    says("file put 0 Qg==", &["file bytes=1", "ok"]);
    says("domain define d1", &["warning /: B; expected none", "ok"]);
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
            "error: unknown command `domain kill`, try create, pause, resume, restart, destroy, define, report, cycle or set"
        ]
    );
    assert_eq!(
        told("domain pause"),
        [
            "error: the domain is missing, write `domain create|pause|resume|restart|destroy|define|report|cycle dN`"
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
    assert_eq!(screen(&mut console), "\r\r\n[baton] input to d1\r\n");
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
