use super::exits::{Exit, Exits, KEPT};
use super::numbers::Numbers;
use super::policy::{LIMIT, Limiter, RestartPolicy, WINDOW};
use super::progress::{DEPTH, Progress};
use super::report::{Exception, Report};
use super::*;
use alloc::collections::VecDeque;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::id::DomainId;
use coproc_core::time::Duration;
use proptest::prelude::*;

fn at(seconds: u64) -> Instant {
    Instant::from_nanos(0).saturating_add(Duration::from_secs(seconds))
}

fn running(policy: RestartPolicy) -> Lifecycle {
    let mut life = Lifecycle::new(policy);
    assert_eq!(life.request(Operation::Create), Ok(Action::Build));
    assert_eq!(life.built(true), None);
    assert!(life.start());
    assert_eq!(life.state(), State::Running);
    life
}

#[test]
fn the_whole_life_in_order() {
    let mut life = running(RestartPolicy::Never);
    assert_eq!(life.request(Operation::Pause), Ok(Action::Hold));
    assert_eq!(life.request(Operation::Resume), Ok(Action::Release));
    assert_eq!(life.request(Operation::Restart), Ok(Action::Rebuild));
    assert_eq!(life.built(true), Some(Action::Release));
    assert_eq!(life.ended(Ending::Off, at(1)), Some(Action::Retire));
    assert_eq!(life.state(), State::Off);
    assert_eq!(life.request(Operation::Restart), Ok(Action::Rebuild));
    assert_eq!(life.built(true), Some(Action::Release));
    assert_eq!(life.request(Operation::Destroy), Ok(Action::Dismantle));
    life.dismantled();
    assert_eq!(life.state(), State::Gone);
    assert_eq!(life.request(Operation::Create), Ok(Action::Build));
}

/// Every operation in every state: what goes, and that what doesn't changes nothing and says so.
#[test]
fn each_operation_fits_some_states_only() {
    use Operation::{Create, Destroy, Pause, Restart, Resume};
    let states = [
        (State::Gone, &[Create][..]),
        (State::Creating, &[]),
        (State::Created, &[Destroy]),
        (State::Running, &[Pause, Restart, Destroy]),
        (State::Paused, &[Resume, Restart, Destroy]),
        (State::Off, &[Restart, Destroy]),
        (State::Crashed(Crash::Watchdog), &[Restart, Destroy]),
        (State::Restarting, &[]),
        (State::Destroying, &[]),
    ];
    for (state, allowed) in states {
        for operation in [Create, Pause, Resume, Restart, Destroy] {
            let mut life = running(RestartPolicy::Never);
            life.state = state;
            let answer = life.request(operation);
            assert_eq!(
                answer.is_ok(),
                allowed.contains(&operation),
                "{operation} {state}"
            );
            if let Err(refusal) = answer {
                assert_eq!(life.state(), state);
                assert!(
                    refusal.to_string().contains(&state.to_string()),
                    "{refusal}"
                );
                assert!(!refusal.remedy().is_empty());
            }
        }
    }
    let refusal = Refusal {
        operation: Pause,
        state: State::Off,
    };
    assert_eq!(refusal.to_string(), "a domain that is off can't be paused");
}

#[test]
fn the_policy_says_what_follows_an_end() {
    use RestartPolicy::{Always, Never, OnCrash};
    let crash = Ending::Crash(Crash::NoVector);
    for (policy, how, state) in [
        (Never, Ending::Off, State::Off),
        (Never, Ending::Reset, State::Restarting),
        (Never, crash, State::Crashed(Crash::NoVector)),
        (OnCrash, Ending::Off, State::Off),
        (OnCrash, Ending::Reset, State::Restarting),
        (OnCrash, crash, State::Restarting),
        (Always, Ending::Off, State::Restarting),
        (Always, Ending::Reset, State::Restarting),
        (Always, crash, State::Restarting),
    ] {
        let mut life = running(policy);
        let action = life.ended(how, at(1));
        assert_eq!(life.state(), state, "{policy:?} {how:?}");
        let rebuilt = state == State::Restarting;
        assert_eq!(
            action,
            Some(if rebuilt {
                Action::Rebuild
            } else {
                Action::Retire
            })
        );
    }
    assert_eq!(RestartPolicy::by_name("on-crash"), Some(OnCrash));
    assert_eq!(RestartPolicy::by_name("sometimes"), None);
}

#[test]
fn a_crash_loop_ends() {
    let mut life = running(RestartPolicy::OnCrash);
    for second in 0..LIMIT as u64 {
        assert_eq!(
            life.ended(Ending::Crash(Crash::Nested), at(second)),
            Some(Action::Rebuild)
        );
        life.built(true);
    }
    assert_eq!(
        life.ended(Ending::Crash(Crash::Nested), at(10)),
        Some(Action::Retire)
    );
    assert_eq!(life.state(), State::Crashed(Crash::Nested));
    // A restart that somebody asks for begins anew; a domain that resets itself too often is stopped, too.
    assert_eq!(life.request(Operation::Restart), Ok(Action::Rebuild));
    life.built(true);
    for _ in 0..LIMIT {
        assert_eq!(life.ended(Ending::Reset, at(11)), Some(Action::Rebuild));
        life.built(true);
    }
    assert_eq!(life.ended(Ending::Reset, at(11)), Some(Action::Retire));
    assert_eq!(life.state(), State::Crashed(Crash::RestartLoop));
}

#[test]
fn what_cannot_be_built_ends_in_order() {
    let mut life = Lifecycle::new(RestartPolicy::Always);
    assert_eq!(life.request(Operation::Create), Ok(Action::Build));
    assert_eq!(life.built(false), Some(Action::Dismantle));
    life.dismantled();
    assert_eq!(life.state(), State::Gone);
    let mut life = running(RestartPolicy::Always);
    assert_eq!(life.request(Operation::Restart), Ok(Action::Rebuild));
    assert_eq!(life.built(false), Some(Action::Retire));
    assert_eq!(life.state(), State::Crashed(Crash::NotRebuilt));
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Request(Operation),
    Ended(Ending),
    Built(bool),
    Start,
    Dismantled,
}

fn step() -> impl Strategy<Value = Step> {
    let operation = prop_oneof![
        Just(Operation::Create),
        Just(Operation::Pause),
        Just(Operation::Resume),
        Just(Operation::Restart),
        Just(Operation::Destroy),
    ];
    let ending = prop_oneof![
        Just(Ending::Off),
        Just(Ending::Reset),
        Just(Ending::Crash(Crash::NoVector)),
    ];
    prop_oneof![
        2 => operation.prop_map(Step::Request),
        4 => ending.prop_map(Step::Ended),
        4 => proptest::bool::weighted(0.9).prop_map(Step::Built),
        2 => Just(Step::Start),
        1 => Just(Step::Dismantled),
    ]
}

proptest! {
    /// Whatever comes in whatever order: no job begins while another one is under way, and restarts that nobody
    /// asked for stay below the limit in every window.
    #[test]
    fn no_order_of_events_confuses_it(
        policy in prop_oneof![
            Just(RestartPolicy::Never), Just(RestartPolicy::OnCrash), Just(RestartPolicy::Always)
        ],
        steps in proptest::collection::vec((step(), 0u64..20), 1..200),
    ) {
        let mut life = Lifecycle::new(policy);
        let mut now = 0;
        let mut restarts: VecDeque<u64> = VecDeque::new();
        for (step, pause) in steps {
            now += pause;
            let before = life.state();
            let busy = matches!(before, State::Creating | State::Restarting | State::Destroying);
            match step {
                Step::Request(operation) => match life.request(operation) {
                    Ok(_) => {
                        prop_assert!(!busy);
                        prop_assert_ne!(life.state(), before);
                        if matches!(operation, Operation::Create | Operation::Restart) {
                            restarts.clear();
                        }
                    }
                    Err(_) => prop_assert_eq!(life.state(), before),
                },
                Step::Ended(how) => {
                    let action = life.ended(how, at(now));
                    let lives = matches!(before, State::Running | State::Paused);
                    prop_assert_eq!(action.is_some(), lives);
                    if action == Some(Action::Rebuild) {
                        restarts.push_back(now);
                        restarts.retain(|then| now - then < WINDOW.as_nanos() / 1_000_000_000);
                        prop_assert!(restarts.len() <= LIMIT);
                        prop_assert!(policy != RestartPolicy::Never || how == Ending::Reset);
                    }
                }
                Step::Built(success) => {
                    life.built(success);
                    if !matches!(before, State::Creating | State::Restarting) {
                        prop_assert_eq!(life.state(), before);
                    }
                }
                Step::Start => prop_assert_eq!(life.start(), before == State::Created),
                Step::Dismantled => {
                    life.dismantled();
                    prop_assert_eq!(life.state() != before, before == State::Destroying);
                }
            }
        }
    }

    #[test]
    fn the_last_exits_are_kept_newest_first(exits in proptest::collection::vec((any::<u32>(), any::<u32>()), 0..40)) {
        let mut ring = Exits::new();
        for (syndrome, pc) in &exits {
            ring.keep(u64::from(*syndrome), 0xffff_8000_0000_0000 | u64::from(*pc));
        }
        let kept: Vec<Exit> = ring.newest().collect();
        let expected: Vec<Exit> = exits.iter().rev().take(KEPT)
            .map(|(syndrome, pc)| Exit { syndrome: *syndrome, pc: *pc }).collect();
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn numbers_are_lent_once(steps in proptest::collection::vec(any::<Option<u8>>(), 0..300)) {
        let mut pool = Numbers::new(1..96);
        let mut lent: Vec<u8> = Vec::new();
        for step in steps {
            match step {
                None => match pool.take() {
                    Some(number) => {
                        prop_assert!((1..96).contains(&number) && !lent.contains(&number));
                        lent.push(number);
                    }
                    None => prop_assert_eq!(lent.len(), 95),
                },
                Some(which) if !lent.is_empty() => {
                    pool.give_back(lent.swap_remove(usize::from(which) % lent.len()));
                }
                Some(_) => {}
            }
            prop_assert_eq!(pool.lent() as usize, lent.len());
        }
    }
}

#[test]
fn the_limit_is_for_any_window_not_for_a_minute_of_the_clock() {
    let mut limiter = Limiter::new();
    for second in [0, 10, 20, 30, 59] {
        assert!(limiter.allow(at(second)));
    }
    assert!(!limiter.allow(at(59)));
    assert!(limiter.allow(at(60)), "the first one is a minute ago");
    assert!(!limiter.allow(at(69)));
    assert!(limiter.allow(at(70)));
}

#[test]
fn a_guest_that_gets_nowhere_is_noticed() {
    let vbar = 0x4000_0000;
    let mut progress = Progress::new();
    // Outside its vectors it may have any number.
    for count in 0..1000 {
        assert_eq!(
            progress.exception(0x4100_0000 + count * 4, vbar, vbar + 0x200),
            Ok(())
        );
    }
    // The vector's own first instruction.
    assert_eq!(
        progress.exception(vbar + 0x200, vbar, vbar + 0x200),
        Err(Crash::NoVector)
    );
    // Somewhere in the vectors, again and again.
    let mut progress = Progress::new();
    for _ in 1..DEPTH {
        assert_eq!(progress.exception(vbar + 0x204, vbar, vbar + 0x200), Ok(()));
    }
    assert_eq!(
        progress.exception(vbar + 0x204, vbar, vbar + 0x200),
        Err(Crash::Nested)
    );
    // A handler that gets out of its table in between.
    let mut progress = Progress::new();
    for _ in 0..100 {
        assert_eq!(progress.exception(vbar + 0x204, vbar, vbar + 0x200), Ok(()));
        assert_eq!(progress.exception(vbar + 0x800, vbar, vbar + 0x200), Ok(()));
    }
}

#[test]
fn a_report_tells_all_registers_and_exits_in_short_lines() {
    let report = Report {
        domain: DomainId(2),
        reason: Crash::NoVector,
        vcpu: 1,
        x: core::array::from_fn(|index| u64::MAX - index as u64),
        pc: 0xdead_0000,
        pstate: 0x3c5,
        el1: Exception {
            vbar: 0xbad,
            ttbr: [u64::MAX; 2],
            ..Exception::default()
        },
        exits: (0..16)
            .map(|index| Exit {
                syndrome: u32::MAX - index,
                pc: u32::MAX,
            })
            .collect(),
    };
    let lines: Vec<String> = (0..)
        .map_while(|index| report.line(index))
        .map(|line| line.to_string())
        .collect();
    assert_eq!(lines.len(), 2 + 8 + 4);
    assert_eq!(
        lines[0],
        "crash domain=d2 vcpu=1 reason=no-vector pc=0xdead0000 pstate=0x3c5"
    );
    let all = lines.join("\n");
    for number in 0..31u64 {
        assert!(all.contains(&alloc::format!(" x{number}={:#x}", u64::MAX - number)));
    }
    for number in 0..16u32 {
        assert!(all.contains(&alloc::format!("exit{number}_esr={:#x}", u32::MAX - number)));
    }
    assert!(all.contains("vbar_el1=0xbad"));
    assert!(lines.iter().all(|line| line.len() < 400), "{all}");
    let quiet = Report {
        exits: ArrayVec::new(),
        ..report
    };
    assert_eq!((0..).map_while(|index| quiet.line(index)).count(), 10);
}
