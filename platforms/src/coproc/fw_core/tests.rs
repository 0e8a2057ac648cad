//! Firmware of several domains on one core, through the whole framework.

use alloc::vec;
use alloc::vec::Vec;

use coproc_core::algorithm::Parameters;
use coproc_core::coproc::Detach;
use coproc_core::environment::Event;
use coproc_core::id::VcoprocId;
use coproc_core::paravirtual::{self, feature};
use coproc_core::register::Operation;
use coproc_core::register::Width::{self, Double, Word};
use coproc_core::time::Duration;
use fw_core_abi::{control, host, interrupt, local, local_interrupt, status};
use proptest::prelude::*;

use super::core_registers::{REGISTERS, register};
use super::model::Op;
use super::rig::{Rig, width_of};

const ACCEPTED: u64 = host::PARAVIRTUAL + paravirtual::register::ACCEPTED;
const MS: Duration = Duration::from_millis(1);
/// Firmware that computes for ever.
const BUSY: &[Op] = &[Op::Work(10_000), Op::Jump(0)];
/// The same, and it listens to the request to yield.
const BUSY_AND_LISTENING: &[Op] = &[
    Op::Set(local::ENABLE, local_interrupt::YIELD),
    Op::Work(10_000),
    Op::Jump(1),
];
/// A request served by a doorbell, for ever: inbox in, `x` out.
const fn engine(what: Op) -> [Op; 6] {
    [
        Op::Set(local::ENABLE, local_interrupt::ALL),
        Op::Doorbell,
        Op::Work(300_000),
        what,
        Op::Outbox,
        Op::Jump(1),
    ]
}

#[test]
fn two_firmwares_at_once_never_mix() {
    let mut rig = Rig::new(2, "rr", Duration::from_micros(100));
    rig.start(0, &engine(Op::Checksum), 7);
    rig.start(1, &engine(Op::Filter), 1000);
    let mut expected = [7, 1000_u64];
    for round in 0..50_u64 {
        for who in 0..2 {
            rig.write(who, host::INBOX, round * 10 + u64::from(who));
            rig.write(who, host::DOORBELL, 1);
        }
        expected[0] = expected[0].wrapping_mul(31).wrapping_add(round * 10);
        expected[1] = expected[1] / 2 + round * 5;
        for who in 0..2 {
            let asked = rig.now();
            while rig.read(who, host::INTERRUPT_STATUS) == 0 {
                rig.pass(Duration::from_micros(30));
                assert!(rig.now().since(asked) < Duration::from_millis(10));
            }
            assert_eq!(rig.read(who, host::OUTBOX), expected[who as usize]);
            rig.write(who, host::INTERRUPT_ACKNOWLEDGE, interrupt::ALL.into());
        }
    }
    for who in 0..2 {
        let mut polls = 0;
        while rig.status(who) != status::WAITING {
            rig.pass(MS);
            polls += 1;
            assert!(polls < 10);
        }
    }
    rig.assert_only_faulted(&[]);
}

#[test]
fn a_bell_rung_while_away_is_heard_and_only_by_its_own() {
    let mut rig = Rig::new(2, "rr", MS);
    rig.start(0, &engine(Op::Checksum), 1);
    rig.pass(Duration::from_millis(5));
    assert_eq!(rig.status(0), status::WAITING);
    rig.start(1, BUSY, 0);
    rig.pass(Duration::from_millis(5));
    assert_eq!(rig.coproc.current(), Some(VcoprocId(1)));
    rig.write(1, host::DOORBELL, 1);
    rig.pass(Duration::from_millis(5));
    assert_eq!(rig.status(0), status::WAITING, "the other's bell");
    rig.write(0, host::INBOX, 5);
    rig.write(0, host::DOORBELL, 1);
    rig.write(0, host::INTERRUPT_ENABLE, interrupt::OUTBOX.into());
    rig.pass(Duration::from_millis(5));
    assert!(rig.line(0) && !rig.line(1));
    assert_eq!(rig.read(0, host::OUTBOX), 36);
    rig.assert_only_faulted(&[]);
}

#[test]
fn hung_firmware_loses_only_its_own_time() {
    let mut rig = Rig::new(2, "weighted", MS);
    rig.start(0, &[Op::Hang], 0);
    rig.start(1, &[Op::Work(50_000_000), Op::Exit], 3);
    let begun = rig.now();
    while rig.status(1) != status::EXITED {
        rig.pass(MS);
        assert!(rig.now().since(begun) < Duration::from_millis(200));
    }
    let took = rig.now().since(begun).as_micros();
    assert!(
        (99_000..108_000).contains(&took),
        "{took} us for 50 ms of work"
    );
    assert_eq!(rig.read(1, host::EXIT_CODE), 3);
    assert_eq!(rig.status(0), status::RUNNING);
    rig.assert_only_faulted(&[]);
    // And its domain may end it, wherever it is.
    rig.write(0, host::CONTROL, control::STOP.into());
    assert_eq!(rig.status(0), status::STOPPED);
    rig.pass(Duration::from_millis(5));
    rig.start(0, &[Op::Exit], 4);
    rig.pass(Duration::from_millis(5));
    assert_eq!(rig.read(0, host::EXIT_CODE), 4);
}

/// Firmware that never lets go, beside an innocent one: stopped by force at the bound, charged, and nobody else loses anything.
fn refuses_for_ever(rig: &mut Rig, image: &[Op]) {
    rig.start(0, image, 0);
    rig.start(1, &[Op::Work(5_000_000), Op::Exit], 3);
    let begun = rig.now();
    while rig.status(1) != status::EXITED {
        rig.pass(MS);
        assert!(rig.now().since(begun) < Duration::from_millis(200));
    }
    let took = rig.now().since(begun);
    assert!(took > Duration::from_millis(100), "the bound: {took}");
    assert_eq!(rig.read(1, host::EXIT_CODE), 3);
    rig.assert_only_faulted(&[0]);
    assert_eq!(rig.read(0, host::STATUS), 0xffff_ffff);
    let report = rig.coproc.report(rig.now());
    assert_eq!(report.aborts, 1);
    assert!(report.vcoprocs[0].counters.refused >= Duration::from_millis(100));
    assert_eq!(report.vcoprocs[1].counters.refusals, 0);
    // A fresh one in its place works.
    let detached = rig.coproc.detach(&mut rig.machine, VcoprocId(0));
    assert!(matches!(detached, Ok(Detach::Done)));
    rig.attach(VcoprocId(0));
    rig.start(0, &[Op::Exit], 8);
    rig.pass(Duration::from_millis(5));
    assert_eq!(rig.read(0, host::EXIT_CODE), 8);
}

#[test]
fn an_endless_critical_section_costs_only_its_owner() {
    let mut rig = Rig::new(2, "rr", MS);
    refuses_for_ever(&mut rig, &[Op::Set(local::CRITICAL, 1), Op::Hang]);
}

#[test]
fn who_opts_in_and_never_yields_is_stopped_by_force() {
    for image in [BUSY, BUSY_AND_LISTENING] {
        let mut rig = Rig::new(2, "rr", MS);
        rig.write(0, ACCEPTED, feature::YIELD.into());
        refuses_for_ever(&mut rig, image);
    }
}

#[test]
fn a_short_critical_section_only_delays() {
    let mut rig = Rig::new(2, "rr", MS);
    let critical = [
        Op::Set(local::CRITICAL, 1),
        Op::Work(1_700_000),
        Op::Set(local::CRITICAL, 0),
        Op::Jump(0),
    ];
    rig.start(0, &critical, 0);
    rig.start(1, &[Op::Work(20_000_000), Op::Exit], 3);
    rig.pass(Duration::from_millis(100));
    assert_eq!(rig.status(1), status::EXITED);
    rig.assert_only_faulted(&[]);
    let report = rig.coproc.report(rig.now());
    assert!(report.vcoprocs[0].counters.refusals > 0);
    assert!(report.measured.refusal > Duration::from_micros(500));
}

#[test]
fn who_opts_in_is_taken_off_where_it_yields_and_nowhere_else() {
    let mut rig = Rig::new(2, "rr", MS);
    rig.machine.device.polite.push(0);
    rig.write(0, ACCEPTED, feature::YIELD.into());
    rig.start(0, BUSY_AND_LISTENING, 0);
    rig.start(1, BUSY, 0);
    rig.pass(Duration::from_millis(100));
    let leaves = rig
        .coproc
        .slices()
        .filter(|slice| slice.vcoproc == VcoprocId(0))
        .count() as u64;
    let running = u64::from(rig.coproc.current() == Some(VcoprocId(0)));
    assert!(leaves >= 40, "{leaves}");
    assert!(
        rig.machine.device.yields.abs_diff(leaves) <= 1,
        "{leaves}, {running}"
    );
    assert!(rig.machine.device.useful[&1] > Duration::from_millis(40));
    rig.assert_only_faulted(&[]);
}

#[test]
fn the_end_is_told_by_an_interrupt_wherever_the_vcoproc_is() {
    let mut rig = Rig::new(2, "rr", MS);
    for who in 0..2 {
        rig.write(who, host::INTERRUPT_ENABLE, interrupt::ENDED.into());
    }
    rig.start(0, &[Op::Work(1000), Op::Crash], 0);
    rig.start(1, &[Op::Work(1000), Op::Exit], 0x1234);
    rig.pass(Duration::from_millis(10));
    assert!(rig.line(0) && rig.line(1));
    assert_eq!(rig.status(0), status::CRASHED);
    assert_eq!(rig.read(0, host::CRASH_SYNDROME), 0x9200_0010);
    assert_eq!(rig.read(0, host::CRASH_ADDRESS), 0xdead);
    assert_eq!(rig.read(0, host::CRASH_PC), 4);
    assert_eq!(rig.status(1), status::EXITED);
    assert_eq!(rig.read(1, host::EXIT_CODE), 0x1234);
    assert_eq!(rig.read(1, host::CRASH_SYNDROME), 0);
    for who in 0..2 {
        rig.write(who, host::INTERRUPT_ACKNOWLEDGE, interrupt::ALL.into());
        assert!(!rig.line(who));
    }
}

#[test]
fn a_start_finds_nothing_of_the_run_before() {
    let mut rig = Rig::new(1, "rr", MS);
    let first = [
        Op::Set(local::ENABLE, local_interrupt::ALL),
        Op::Set(local::CRITICAL, 5),
        Op::Outbox,
        Op::Hang,
    ];
    rig.start(0, &first, 77);
    rig.write(0, host::INTERRUPT_ENABLE, interrupt::ALL.into());
    rig.pass(MS);
    rig.write(0, host::DOORBELL, 1);
    assert!(rig.line(0));
    assert_eq!(rig.read(0, host::OUTBOX), 77);
    rig.write(0, host::CONTROL, control::STOP.into());
    let mut second = vec![];
    for offset in [local::ENABLE, local::CRITICAL, local::PENDING] {
        second.push(Op::Local(offset, Word, None));
        second.push(Op::Outbox);
        second.push(Op::Work(500_000));
    }
    second.push(Op::Exit);
    rig.start(0, &second, 1);
    assert!(!rig.line(0), "the first run's");
    assert_eq!(rig.read(0, host::OUTBOX), 0);
    for _ in 0..3 {
        rig.pass(Duration::from_micros(500));
        assert_eq!(rig.read(0, host::OUTBOX), 0);
    }
    rig.pass(MS);
    assert_eq!(rig.status(0), status::EXITED);
    assert_eq!(rig.read(0, host::EXIT_CODE), 0);
}

#[test]
fn the_device_holds_nothing_of_who_left() {
    let mut rig = Rig::new(2, "rr", MS);
    let image = [
        Op::Set(local::ENABLE, 3),
        Op::Set(local::CRITICAL, 0),
        Op::Outbox,
        Op::Hang,
    ];
    rig.start(0, &image, 0x5ec2e7);
    rig.write(0, host::INBOX, 0x5ec2e7);
    rig.pass(MS);
    let detached = rig.coproc.detach(&mut rig.machine, VcoprocId(0));
    assert!(detached.is_ok());
    rig.pass(Duration::from_millis(10));
    assert!(!rig.coproc.is_attached(VcoprocId(0)));
    let mut fresh = super::Device::new();
    for index in 0..REGISTERS {
        let found = rig.machine.device.device.read(register(index), Double);
        assert_eq!(found, fresh.read(register(index), Double), "{index}");
    }
    assert_eq!(rig.read(1, host::INBOX), 0);
}

/// Jain's index: 1 if all have the same.
fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares
        .iter()
        .fold((0.0, 0.0), |(sum, squares), x| (sum + x, squares + x * x));
    sum * sum / (shares.len() as f64 * squares)
}

#[test]
fn two_busy_ones_share_it_fairly_and_nearly_all_of_it_is_useful() {
    let mut rig = Rig::new(2, "weighted", Duration::from_millis(5));
    for who in 0..2 {
        rig.start(who, BUSY, 0);
    }
    let begun = rig.now();
    rig.pass(Duration::from_millis(510));
    let whole = rig.now().since(begun).as_nanos() as f64;
    assert!(rig.coproc.slices().count() >= 100);
    let useful: Vec<f64> = (rig.machine.device.useful.values())
        .map(|time| time.as_nanos() as f64)
        .collect();
    let share = useful.iter().sum::<f64>() / whole;
    assert!(jain(&useful) >= 0.999, "{} of {useful:?}", jain(&useful));
    assert!(share >= 0.98, "{share}");
    rig.assert_only_faulted(&[]);
}

#[test]
fn shares_follow_the_weights() {
    let mut rig = Rig::new(2, "weighted", Duration::from_millis(5));
    let parameters = Parameters {
        weight: 3 * Parameters::default().weight,
        ..Parameters::default()
    };
    rig.coproc
        .set_parameters(&mut rig.machine, VcoprocId(0), &parameters)
        .unwrap();
    for who in 0..2 {
        rig.start(who, BUSY, 0);
    }
    rig.pass(Duration::from_secs(1));
    let [first, second] = [0, 1].map(|who| rig.machine.device.useful[&who].as_nanos() as f64);
    let share = first / (first + second);
    assert!((share / 0.75 - 1.0).abs() <= 0.02, "{share}");
    assert!(((1.0 - share) / 0.25 - 1.0).abs() <= 0.02, "{share}");
}

#[test]
fn critical_sections_gain_nothing() {
    let mut rig = Rig::new(2, "weighted", Duration::from_millis(5));
    let section = [
        Op::Set(local::CRITICAL, 1),
        Op::Work(17_000_000),
        Op::Set(local::CRITICAL, 0),
        Op::Jump(0),
    ];
    rig.start(0, &section, 0);
    rig.start(1, BUSY, 0);
    rig.pass(Duration::from_secs(4));
    let [first, second] = [0, 1].map(|who| rig.machine.device.useful[&who].as_nanos() as f64);
    let share = first / (first + second);
    assert!(share <= 0.505, "{share}");
    let report = rig.coproc.report(rig.now());
    assert!(report.vcoprocs[0].counters.refused > Duration::from_millis(500));
    rig.assert_only_faulted(&[]);
}

/// What a domain's program does.
#[derive(Clone, Copy, Debug)]
enum Do {
    Load,
    Read(u64, Width),
    Write(u64, Width, u64),
    /// Until these bits of the register are set.
    Until(u64, u64),
    /// Until the firmware has ended.
    Ended,
}

/// A piece of firmware with all that its domain has to do meanwhile.
fn piece() -> impl Strategy<Value = (Vec<Op>, Vec<Do>)> {
    let exchange = (any::<u64>(), any::<bool>()).prop_map(|(word, checksum)| {
        let what = if checksum { Op::Checksum } else { Op::Filter };
        let acknowledge = Do::Write(host::INTERRUPT_ACKNOWLEDGE, Word, interrupt::OUTBOX.into());
        (
            vec![Op::Outbox, Op::Doorbell, what],
            vec![
                Do::Until(host::INTERRUPT_STATUS, interrupt::OUTBOX.into()),
                Do::Read(host::OUTBOX, Double),
                acknowledge,
                Do::Write(host::INBOX, Double, word),
                Do::Write(host::DOORBELL, Word, 1),
            ],
        )
    });
    prop_oneof![
        3 => exchange,
        2 => (1..400_000_u64).prop_map(|time| (vec![Op::Work(time)], vec![])),
        1 => (1..200_000_u64).prop_map(|time| {
            let section = |on| Op::Set(local::CRITICAL, on);
            (vec![section(1), Op::Work(time), section(0)], vec![])
        }),
        1 => proptest::sample::select(&[local::ID, local::CRITICAL, local::FEATURES, local::ENABLE][..])
            .prop_map(|offset| (vec![Op::Local(offset, Word, None)], vec![])),
    ]
}

/// A run of firmware from start to end, then a look at everything.
fn job() -> impl Strategy<Value = (Vec<Op>, Vec<Do>)> {
    let idle = prop::collection::vec(
        prop_oneof![
            (0..0x60_u64, Just(Word)).prop_map(|(o, w)| Do::Read(o * 4, w)),
            (0..0x30_u64, Just(Double)).prop_map(|(o, w)| Do::Read(o * 8, w)),
            any::<u64>().prop_map(|v| Do::Write(host::INTERRUPT_ENABLE, Word, v & 3)),
            any::<u64>().prop_map(|v| Do::Write(host::INBOX, Double, v)),
            any::<u64>().prop_map(|v| Do::Write(host::DOORBELL, Word, v)),
            any::<u64>().prop_map(|v| Do::Write(ACCEPTED, Word, v & 0xffff_ffff)),
        ],
        0..6,
    );
    let pieces = prop::collection::vec(piece(), 0..5);
    (idle, pieces, any::<u64>(), any::<bool>()).prop_map(|(idle, pieces, argument, crash)| {
        let mut image = vec![Op::Set(local::ENABLE, local_interrupt::ALL)];
        let mut acts = idle;
        acts.extend([
            Do::Load,
            Do::Write(host::ENTRY, Double, 0),
            Do::Write(host::ARGUMENT, Double, argument),
            Do::Write(host::CONTROL, Word, control::START.into()),
        ]);
        for (ops, own) in pieces {
            image.extend(ops);
            acts.extend(own);
        }
        image.push(if crash { Op::Crash } else { Op::Exit });
        acts.push(Do::Ended);
        let all = (0..0x18_u64).map(|n| n * 4);
        acts.extend(all.map(|offset| Do::Read(offset, width_of(offset))));
        (image, acts)
    })
}

/// Where one domain is in its jobs.
struct Program<'a> {
    jobs: &'a [(Vec<Op>, Vec<Do>)],
    at: (usize, usize),
    seen: Vec<u64>,
}

impl<'a> Program<'a> {
    fn new(jobs: &'a [(Vec<Op>, Vec<Do>)]) -> Self {
        let (at, seen) = ((0, 0), Vec::new());
        Self { jobs, at, seen }
    }

    fn is_over(&self) -> bool {
        self.at.0 >= self.jobs.len()
    }

    /// One step, if it needs no wait.
    fn step(&mut self, rig: &mut Rig, who: u32) {
        let Some((image, acts)) = self.jobs.get(self.at.0) else {
            return;
        };
        let Some(act) = acts.get(self.at.1) else {
            self.at = (self.at.0 + 1, 0);
            return;
        };
        let done = match *act {
            Do::Load => {
                rig.machine.device.load(who, image);
                true
            }
            Do::Read(offset, width) => {
                let value = rig.try_access(who, offset, width, Operation::Read);
                self.seen.extend(value);
                value.is_some()
            }
            Do::Write(offset, width, value) => rig
                .try_access(who, offset, width, Operation::Write(value))
                .is_some(),
            Do::Until(offset, bits) => rig
                .try_access(who, offset, Word, Operation::Read)
                .is_some_and(|value| value & bits != 0),
            Do::Ended => rig
                .try_access(who, host::STATUS, Word, Operation::Read)
                .is_some_and(|value| value >= status::EXITED.into()),
        };
        self.at.1 += usize::from(done);
    }
}

/// What the programs see when they run at once, and the state of their lines.
fn together(programs: &mut [Program<'_>], slice: Duration, dice: &[(usize, u64)]) -> Vec<bool> {
    let mut rig = Rig::new(programs.len() as u32, "rr", slice);
    for who in 0..programs.len() as u32 {
        rig.machine.device.polite.push(who);
    }
    for (steps, (who, time)) in dice.iter().cycle().enumerate() {
        if programs.iter().all(Program::is_over) {
            break;
        }
        assert!(steps < 200_000, "for ever");
        let who = who % programs.len();
        programs[who].step(&mut rig, who as u32);
        rig.pass(Duration::from_micros(*time));
    }
    rig.assert_only_faulted(&[]);
    (0..programs.len() as u32)
        .map(|who| rig.line(who))
        .collect()
}

fn any_width() -> impl Strategy<Value = Width> {
    proptest::sample::select(&[Width::Byte, Width::Half, Width::Word, Width::Double][..])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Sharing changes nothing that a domain sees, whenever the switches come.
    #[test]
    fn shared_looks_like_alone(
        jobs in prop::array::uniform3(prop::collection::vec(job(), 0..4)),
        slice in 20..400_u64,
        dice in prop::collection::vec((0..3_usize, 0..60_u64), 1..100),
    ) {
        let mut programs = jobs.each_ref().map(|jobs| Program::new(jobs));
        let dice_with_all: Vec<_> = dice.into_iter().chain([(0, 5), (1, 5), (2, 5)]).collect();
        let slice = Duration::from_micros(slice);
        let lines = together(&mut programs, slice, &dice_with_all);
        for (i, program) in programs.iter().enumerate() {
            let mut alone = [Program::new(program.jobs)];
            let line = together(&mut alone, Duration::from_secs(1000), &[(0, 5)]);
            prop_assert_eq!(&program.seen, &alone[0].seen, "domain {}", i);
            prop_assert_eq!(lines[i], line[0]);
        }
    }

    /// Start and stop at any moment, away or current or in the midst of a switch: what they end is over, what they start is whole.
    #[test]
    fn start_and_stop_at_any_moment(
        steps in prop::collection::vec((0..2_u32, 0..4_u8, 0..3_usize, 0..300_u64), 1..120),
    ) {
        let images: [&[Op]; 3] = [
            &[Op::Hang],
            &[Op::Set(local::CRITICAL, 1), Op::Work(150_000), Op::Exit],
            &engine(Op::Checksum),
        ];
        let mut rig = Rig::new(2, "rr", Duration::from_micros(100));
        for (who, what, image, time) in steps {
            match what {
                0 => rig.write(who, host::CONTROL, control::STOP.into()),
                1 => rig.write(who, host::DOORBELL, 1),
                _ => {
                    if !matches!(rig.status(who), status::RUNNING | status::WAITING) {
                        rig.start(who, images[image], 1);
                    }
                }
            }
            rig.pass(Duration::from_micros(time));
        }
        rig.assert_only_faulted(&[]);
        for who in 0..2 {
            rig.write(who, host::CONTROL, control::STOP.into());
            rig.start(who, &[Op::Work(100_000), Op::Exit], 40 + u64::from(who));
        }
        rig.pass(Duration::from_millis(5));
        for who in 0..2 {
            prop_assert_eq!(rig.status(who), status::EXITED);
            prop_assert_eq!(rig.read(who, host::EXIT_CODE), 40 + u64::from(who));
        }
    }

    /// A domain and its firmware that do whatever they like cost the other domain no answer.
    #[test]
    fn hostile_on_both_sides(
        image in prop::collection::vec(
            (0..0x40_u64, any_width(), prop::option::of(any::<u64>()), 0..8_u8), 1..20),
        acts in prop::collection::vec(
            (any::<bool>(), 0..0x1000_u64, any_width(), any::<u64>(), 0..200_u64), 1..80),
    ) {
        let mut hostile: Vec<Op> = image.into_iter().map(|(offset, width, write, what)| match what {
            0 => Op::Work(50_000),
            1 => Op::Doorbell,
            _ => Op::Local(offset & !3, width, write),
        }).collect();
        hostile.push(Op::Jump(0));
        let mut rig = Rig::new(2, "rr", Duration::from_micros(200));
        rig.start(0, &engine(Op::Checksum), 0);
        rig.start(1, &hostile, 0);
        let mut expected = 0_u64;
        for (near, offset, width, value, time) in acts {
            let offset = if near { offset & 0x9c } else { offset };
            let value = if near && offset == host::CONTROL { value % 3 } else { value };
            for op in [Operation::Write(value & width.mask()), Operation::Read] {
                rig.access(1, offset, width, op);
            }
            rig.pass(Duration::from_micros(time));
            rig.write(0, host::INBOX, value);
            rig.write(0, host::DOORBELL, 1);
            expected = expected.wrapping_mul(31).wrapping_add(value);
            let mut polls = 0;
            while rig.read(0, host::INTERRUPT_STATUS) == 0 {
                rig.pass(Duration::from_micros(100));
                polls += 1;
                prop_assert!(polls < 5000, "it waits for ever");
            }
            prop_assert_eq!(rig.read(0, host::OUTBOX), expected);
            rig.write(0, host::INTERRUPT_ACKNOWLEDGE, interrupt::ALL.into());
        }
        // The hostile one may have lost the core, by refusing; nobody else.
        let faulted = |(who, event): &(VcoprocId, Event)| (who.0, matches!(event, Event::Faulted(_)));
        for event in rig.machine.events.iter().map(faulted) {
            prop_assert_eq!(event, (1, true));
        }
    }
}
