//! Shares, latencies and deadlines in simulated time, and random interleavings of everything.

extern crate std;

use super::simulation::{Habit, Phase, World, reserved, share};
use super::*;
use alloc::vec::Vec;
use core::cell::Cell;
use core::cmp::Ordering;
use proptest::prelude::*;

const MS: u64 = 1_000_000;
const SLICE: u64 = weighted::SLICE.as_nanos();

/// Asserts that the hogs' times are as these parts of the whole, within 2 %.
fn assert_shares(world: &World, from: &[u64], parts: &[(usize, f64)]) {
    let ran = |index: usize| (world.vcpus[index].ran - from.get(index).unwrap_or(&0)) as f64;
    let all: f64 = parts.iter().map(|(index, _)| ran(*index)).sum();
    for (index, part) in parts {
        let got = ran(*index) / all;
        assert!(
            (got - part).abs() <= 0.02,
            "vCPU {index} got {got:.4} instead of {part:.4}"
        );
    }
}

fn ran(world: &World) -> Vec<u64> {
    world.vcpus.iter().map(|vcpu| vcpu.ran).collect()
}

#[test]
fn names_are_exact() {
    for name in NAMES {
        assert_eq!(by_name(name, CpuSet::ALL).unwrap().name(), name);
    }
    for wrong in ["", "w", "weighted ", "Weighted", "credit"] {
        assert!(by_name(wrong, CpuSet::ALL).is_none(), "{wrong}");
    }
}

#[test]
fn sixteen_vcpus_share_two_cpus_by_weights() {
    let mut world = World::new(2, "weighted");
    for index in 0..16 {
        world.weighted(if index < 8 { 1 } else { 3 }, Habit::Hog);
    }
    world.run(100 * SLICE * 16);
    let parts: Vec<_> = (0..16)
        .map(|index| (index, if index < 8 { 1.0 } else { 3.0 } / 32.0))
        .collect();
    assert_shares(&world, &[], &parts);
    // No time is lost.
    assert_eq!(ran(&world).iter().sum::<u64>(), 2 * world.now);
}

#[test]
fn alone_there_is_no_timer() {
    for name in NAMES {
        let mut world = World::new(2, name);
        world.weighted(1, Habit::Hog);
        world.weighted(5, Habit::Hog);
        world.run(MS);
        assert_eq!(world.pool.next_event(0), None, "{name}");
        assert_eq!(world.pool.next_event(1), None, "{name}");
    }
}

#[test]
fn one_that_ran_alone_for_long_is_not_behind() {
    let mut world = World::new(1, "weighted");
    world.weighted(1, Habit::Hog);
    world.run(10_000 * MS);
    let before = ran(&world);
    world.weighted(1, Habit::Hog);
    world.run(100 * 2 * SLICE);
    assert_shares(&world, &before, &[(0, 0.5), (1, 0.5)]);
}

#[test]
fn a_weight_that_cannot_be_had_shuts_nobody_out_afterwards() {
    let mut world = World::new(2, "weighted");
    world.weighted(10, Habit::Hog);
    world.weighted(1, Habit::Hog);
    world.weighted(1, Habit::Hog);
    world.run(10_000 * MS);
    // One CPU for the heavy one, one for the others.
    assert_shares(&world, &[], &[(0, 0.5), (1, 0.25), (2, 0.25)]);
    // Now two heavy ones and two light ones on one CPU.
    for index in 0..3 {
        let id = world.vcpus[index].id;
        let weight = if index == 0 { 10 } else { 1 };
        let parameters = share(weight, CpuSet::only(0));
        let kick = world
            .pool
            .set_parameters(id, &parameters, world.instant())
            .unwrap();
        world.kick(kick);
    }
    let before = ran(&world);
    world.run(2_000 * MS);
    assert_shares(
        &world,
        &before,
        &[(0, 10.0 / 12.0), (1, 1.0 / 12.0), (2, 1.0 / 12.0)],
    );
}

/// Found by `any_interleaving`, once in half a million cases: a server took the CPU from whoever had just got it, and whoever that was had
/// lost its place in the queue, each time.
#[test]
fn one_that_is_preempted_as_soon_as_its_turn_comes_keeps_its_place() {
    let mut world = World::new(2, "deadline");
    let [first, all] = [CpuSet::only(0), CpuSet::ALL];
    // At home on CPU 0, but on CPU 1 when its next budget comes.
    world
        .add(&reserved(5 * MS, 10 * MS, all), Habit::Hog)
        .unwrap();
    // These two can't have their weights on what is left of CPU 0, so both lag as far as counts, the heavier one less.
    let heavier = world.add(&share(4, first), Habit::Hog).unwrap();
    let lighter = world.add(&share(3, first), Habit::Hog).unwrap();
    world.weighted(2, Habit::Hog);
    world.run(3_000 * MS);
    for who in [heavier, lighter] {
        let ran = world.vcpus[who].ran;
        assert!(ran >= 300 * MS, "{who}: {ran}");
    }
}

#[test]
fn a_sleeper_hardly_waits() {
    // It needs 1 % of a CPU, every 10 ms: whoever runs gives way at once.
    let mut world = World::new(2, "weighted");
    for _ in 0..6 {
        world.weighted(1, Habit::Hog);
    }
    let sleeper = world.weighted(
        1,
        Habit::Job {
            first: 3 * MS,
            work: MS / 10,
            period: 10 * MS,
        },
    );
    world.run(200 * MS);
    // At first all are equal.
    world.vcpus[sleeper].latency = 0;
    world.run(1_800 * MS);
    assert!(world.vcpus[sleeper].jobs >= 199);
    assert_eq!(world.vcpus[sleeper].latency, 0);
}

#[test]
fn affinity_is_kept_and_changes() {
    let mut world = World::new(2, "weighted");
    for _ in 0..2 {
        world.add(&share(1, CpuSet::only(0)), Habit::Hog).unwrap();
    }
    let free = world.weighted(1, Habit::Hog);
    world.run(1_000 * MS);
    assert_shares(&world, &[], &[(0, 0.25), (1, 0.25), (free, 0.5)]);
    let id = world.vcpus[1].id;
    let kick = world
        .pool
        .set_parameters(id, &share(1, CpuSet::only(1)), world.instant())
        .unwrap();
    world.kick(kick);
    let before = ran(&world);
    world.run(1_000 * MS);
    assert_shares(
        &world,
        &before,
        &[(0, 1.0 / 3.0), (1, 1.0 / 3.0), (free, 1.0 / 3.0)],
    );
    let nowhere = share(1, CpuSet::only(5));
    assert_eq!(
        world.pool.set_parameters(id, &nowhere, world.instant()),
        Err(ScheduleError::NoCpu)
    );
}

#[test]
fn null_gives_each_a_cpu_and_refuses_one_too_many() {
    let mut world = World::new(3, "null");
    // The second one has to make room for the third.
    let both: CpuSet = [0, 1].into_iter().collect();
    world.add(&share(1, both), Habit::Hog).unwrap();
    world.add(&share(1, CpuSet::ALL), Habit::Hog).unwrap();
    world.add(&share(1, CpuSet::only(0)), Habit::Hog).unwrap();
    let error = world.add(&share(1, CpuSet::ALL), Habit::Hog).unwrap_err();
    assert!(matches!(error, ScheduleError::NotAdmitted(_)));
    world.run(100 * MS);
    assert_eq!(ran(&world), [world.now; 3]);
}

#[test]
fn algorithms_are_exchanged_live() {
    let mut world = World::new(2, "weighted");
    for _ in 0..2 {
        world.weighted(1, Habit::Hog);
    }
    world.run(100 * MS);
    for name in ["null", "deadline", "weighted", "null", "weighted"] {
        let new = by_name(name, world.pool.cpus()).unwrap();
        let kick = world.pool.replace(new, world.instant()).unwrap();
        world.kick(kick);
        let before = ran(&world);
        world.run(100 * MS);
        assert_eq!(world.pool.algorithm(), name);
        for (now, before) in ran(&world).iter().zip(before) {
            assert_eq!(now - before, 100 * MS, "{name}");
        }
    }
    world.weighted(1, Habit::Hog);
    let new = by_name("null", world.pool.cpus()).unwrap();
    assert!(world.pool.replace(new, world.instant()).is_err());
    assert_eq!(world.pool.algorithm(), "weighted");
}

#[test]
fn deadline_admits_what_fits_and_no_more() {
    let mut world = World::new(2, "deadline");
    let everywhere = CpuSet::ALL;
    // 60 % each: one on each CPU, no third one.
    for _ in 0..2 {
        world
            .add(&reserved(6 * MS, 10 * MS, everywhere), Habit::Hog)
            .unwrap();
    }
    let third = world.add(&reserved(6 * MS, 10 * MS, everywhere), Habit::Hog);
    assert!(matches!(third, Err(ScheduleError::NotAdmitted(_))));
    let bad = world.add(&reserved(11 * MS, 10 * MS, everywhere), Habit::Hog);
    assert!(matches!(
        bad,
        Err(ScheduleError::OutOfRange { name: "budget", .. })
    ));
    // What a refused one asked for isn't kept.
    world
        .add(&reserved(3 * MS, 10 * MS, everywhere), Habit::Hog)
        .unwrap();
    world
        .add(&reserved(3 * MS, 10 * MS, CpuSet::only(1)), Habit::Hog)
        .unwrap();
}

/// One that wakes takes its home, where its budget counts, though another CPU could be had by weight.
#[test]
fn a_budget_counts_at_home() {
    let mut world = World::new(2, "deadline");
    for (budget, period, affinity, first) in [
        (MS / 10, 2 * MS, CpuSet::ALL, 15 * MS / 7),
        (253 * MS / 100, 23 * MS, CpuSet::ALL, 4 * MS / 7),
        (209 * MS / 100, 19 * MS, CpuSet::only(1), 36 * MS / 7),
    ] {
        let habit = Habit::Job {
            first,
            work: budget,
            period,
        };
        world
            .add(&reserved(budget, period, affinity), habit)
            .unwrap();
    }
    world.weighted(1, Habit::Hog);
    world.weighted(1001, Habit::Hog);
    world.run(1_000 * MS);
    assert!(
        world.vcpus[0].response <= 2 * MS,
        "{}",
        world.vcpus[0].response
    );
}

#[test]
fn a_budget_is_given_and_no_more_while_others_wait() {
    let mut world = World::new(1, "deadline");
    world
        .add(&reserved(2 * MS, 10 * MS, CpuSet::ALL), Habit::Hog)
        .unwrap();
    world
        .add(&reserved(3 * MS, 15 * MS, CpuSet::ALL), Habit::Hog)
        .unwrap();
    // The rest by weights, in which the two take part.
    world.weighted(98, Habit::Hog);
    world.run(3_000 * MS);
    assert_shares(
        &world,
        &[],
        &[(0, 0.2 + 0.006), (1, 0.2 + 0.006), (2, 0.6 - 0.012)],
    );
}

/// A key that counts how often it is compared.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Counted(u64);

std::thread_local! {
    static COMPARISONS: Cell<u64> = const { Cell::new(0) };
}

impl Ord for Counted {
    fn cmp(&self, other: &Self) -> Ordering {
        COMPARISONS.set(COMPARISONS.get() + 1);
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Counted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[test]
fn the_queue_costs_the_logarithm() {
    let worst = |count: u16| {
        let mut ready = ready::Ready::new();
        for who in 0..count {
            // Four affinities.
            assert!(ready.admit(
                VcpuId(who),
                CpuSet::only(usize::from(who % 4)) | CpuSet::only(7)
            ));
            ready.put(VcpuId(who), Counted(u64::from(who)));
        }
        let mut worst = 0;
        for round in 0..1000_u64 {
            COMPARISONS.set(0);
            let (key, who) = ready.best(7).unwrap();
            ready.take(who);
            ready.put(who, Counted(key.0 + 1 + round * 7919 % u64::from(count)));
            worst = worst.max(COMPARISONS.get());
        }
        worst
    };
    let (small, large) = (worst(64), worst(4096));
    // 64 times as many: six levels more in each of the two directions, and each level compares twice or thrice.
    assert!(large <= small + 2 * 6 * 3, "{small} to {large}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_global_rejects: 1 << 20, ..ProptestConfig::default() })]

    /// Whatever weights can be had are given within 2 % over 100 turns of each, whoever else sleeps and wakes.
    #[test]
    fn shares_follow_weights(
        cpus in 1..4_usize,
        weights in proptest::collection::vec(1..6_u32, 4..8),
        sleepers in proptest::collection::vec((1..8_u64, 20..60_u64), 0..3),
    ) {
        let sum: u32 = weights.iter().sum();
        // None is worth more than one CPU, with room for the sleepers.
        prop_assume!(weights.iter().all(|weight| *weight as usize * cpus * 10 <= sum as usize * 8));
        let mut world = World::new(cpus, "weighted");
        for weight in &weights {
            world.weighted(*weight, Habit::Hog);
        }
        for (work, period) in sleepers {
            world.weighted(1, Habit::Job { first: 0, work: work * MS / 8, period: period * MS });
        }
        world.run(100 * SLICE * u64::from(sum));
        let parts: Vec<_> = weights.iter().enumerate()
            .map(|(index, weight)| (index, f64::from(*weight) / f64::from(sum)))
            .collect();
        assert_shares(&world, &[], &parts);
    }

    /// Who wakes waits for a CPU no longer than the others may be ahead of it.
    #[test]
    fn waking_is_answered_soon(
        cpus in 1..4_usize,
        hogs in 1..8_usize,
        sleepers in proptest::collection::vec((0..5_000_u64, 1..20_u64, 5..60_u64), 1..4),
    ) {
        let mut world = World::new(cpus, "weighted");
        for _ in 0..hogs {
            world.weighted(1, Habit::Hog);
        }
        for (first, work, period) in &sleepers {
            // Each needs less than its share.
            let period = period * MS;
            let work = (work * MS / 20).min(period / (2 * (hogs + sleepers.len()) as u64));
            world.weighted(1, Habit::Job { first: *first * 1000, work, period });
        }
        world.run(500 * MS);
        // At first all are equal.
        for vcpu in &mut world.vcpus {
            vcpu.latency = 0;
        }
        world.run(2_500 * MS);
        // Only other sleepers are ahead: the jobs of all of them.
        let bound: u64 = world.vcpus.iter().map(|vcpu| match vcpu.habit {
            Habit::Job { work, .. } => work,
            _ => 0,
        }).sum::<u64>() + weighted::GRANULARITY.as_nanos();
        for vcpu in &world.vcpus {
            prop_assert!(vcpu.habit == Habit::Hog || vcpu.latency <= bound, "{} > {bound}", vcpu.latency);
        }
    }

    /// What was admitted ends within its period, whatever others do, on any CPUs.
    #[test]
    fn admitted_sets_miss_nothing(
        cpus in 1..4_usize,
        wanted in proptest::collection::vec((1..100_u64, 2..40_u64, 0..8_u8, 0..40_u64), 1..12),
        hogs in 0..4_u32,
    ) {
        let mut world = World::new(cpus, "deadline");
        let mut admitted = 0;
        for (percent, period, affinity, first) in wanted {
            let period = period * MS;
            let budget = (period * percent / 100).max(MS / 10);
            let affinity: CpuSet = if affinity < 4 { CpuSet::only(usize::from(affinity)) } else { CpuSet::ALL };
            let work = budget;
            admitted += usize::from(world.add(&reserved(budget, period, affinity), Habit::Job { first: first * MS / 7, work, period }).is_ok());
        }
        prop_assume!(admitted > 0);
        for weight in 0..hogs {
            world.weighted(1000 * weight + 1, Habit::Hog);
        }
        world.run(1_000 * MS);
        for vcpu in &world.vcpus {
            if let Habit::Job { first, period, .. } = vcpu.habit {
                prop_assert!(first + (vcpu.jobs + 2) * period > 1_000 * MS, "{} jobs", vcpu.jobs);
                prop_assert!(vcpu.response <= period, "{} in {period}", vcpu.response);
            }
        }
    }
}

/// A turn of slack in which the budget comes back ends with that budget: it isn't run on beyond it, before others with theirs.
#[test]
fn a_budget_that_comes_back_in_a_turn_of_slack_ends_that_turn() {
    let mut world = World::new(1, "deadline");
    for (budget, period, budgets, first) in [
        (100_000, 4 * MS, 2, 15),
        (1_350_000, 3 * MS, 4, 12),
        (870_000, 3 * MS, 2, 12),
    ] {
        let habit = Habit::Job {
            first: first * MS / 7,
            work: budgets * budget,
            period: budgets * period,
        };
        world
            .add(&reserved(budget, period, CpuSet::ALL), habit)
            .unwrap();
    }
    for _ in 0..4 {
        world.weighted(1, Habit::Hog);
    }
    world.run(1_000 * MS);
    for vcpu in &world.vcpus {
        if let Habit::Job { period, .. } = vcpu.habit {
            assert!(vcpu.response <= period, "{} in {period}", vcpu.response);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Work of several budgets gets one in each period: budgets come back at their deadlines, wherever their owner ran and was queued.
    #[test]
    fn budgets_come_back_in_time(
        cpus in 1..4_usize,
        wanted in proptest::collection::vec((1..60_u64, 2..20_u64, 2..5_u64, 0..40_u64), 1..8),
        hogs in 0..6_usize,
        weight in 1..20_u32,
    ) {
        let mut world = World::new(cpus, "deadline");
        let mut admitted = 0;
        for (percent, period, budgets, first) in wanted {
            let period = period * MS;
            let budget = (period * percent / 100).max(MS / 10);
            let mut parameters = reserved(budget, period, CpuSet::ALL);
            parameters.share.weight = weight;
            let habit = Habit::Job { first: first * MS / 7, work: budgets * budget, period: budgets * period };
            admitted += usize::from(world.add(&parameters, habit).is_ok());
        }
        prop_assume!(admitted > 0);
        for _ in 0..hogs {
            world.weighted(1, Habit::Hog);
        }
        world.run(1_000 * MS);
        for vcpu in &world.vcpus {
            if let Habit::Job { period, .. } = vcpu.habit {
                prop_assert!(vcpu.response <= period, "{} in {period}", vcpu.response);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Step(usize),
    Sleep(usize),
    Wake(usize),
    Time(usize, u64),
    Affinity(usize, u8),
    Weight(usize, u32),
    Reserve(usize, u64),
    Algorithm(usize),
    Add,
    Remove(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let number = || 0..16_usize;
    prop_oneof![
        12 => number().prop_map(Event::Step),
        4 => number().prop_map(Event::Sleep),
        6 => number().prop_map(Event::Wake),
        3 => (number(), 0..8_000_000_u64).prop_map(|(cpu, time)| Event::Time(cpu, time)),
        1 => (number(), any::<u8>()).prop_map(|(who, set)| Event::Affinity(who, set)),
        1 => (number(), 1..5_u32).prop_map(|(who, weight)| Event::Weight(who, weight)),
        1 => (number(), 1..6_u64).prop_map(|(who, budget)| Event::Reserve(who, budget)),
        1 => (0..3_usize).prop_map(Event::Algorithm),
        1 => Just(Event::Add),
        1 => number().prop_map(Event::Remove),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// CPUs in any phase of a switch, while vCPUs sleep, wake, come, go and change, and algorithms are exchanged: nothing is lost, nothing
    /// runs twice, nothing is stuck.
    #[test]
    fn any_interleaving(cpus in 1..5_usize, events in proptest::collection::vec(event(), 1..300)) {
        let mut world = World::new(cpus, "weighted");
        for _ in 0..4 {
            world.weighted(1, Habit::Obeys);
        }
        for event in events {
            let count = world.vcpus.len().max(1);
            let (now, set) = (world.instant(), world.pool.cpus());
            match event {
                Event::Step(cpu) => {
                    world.step(cpu % cpus);
                }
                Event::Sleep(cpu) => {
                    if world.cpus[cpu % cpus].phase == Phase::Guest {
                        world.sleep(cpu % cpus);
                    }
                }
                Event::Wake(who) => {
                    if !world.vcpus.is_empty() {
                        world.wake(who % count);
                    }
                }
                Event::Time(cpu, time) => {
                    world.now += time;
                    world.timer(cpu % cpus);
                }
                Event::Affinity(who, bits) => {
                    if let Some(id) = world.vcpus.get(who % count).map(|vcpu| vcpu.id) {
                        let affinity = (0..8).filter(|cpu| bits >> cpu & 1 != 0).collect();
                        let old = world.pool.report(id, now).unwrap().parameters;
                        if let Ok(kick) = world.pool.set_parameters(id, &Parameters { affinity, ..old }, now) {
                            world.kick(kick);
                        }
                    }
                }
                Event::Weight(who, weight) => {
                    if let Some(id) = world.vcpus.get(who % count).map(|vcpu| vcpu.id) {
                        let affinity = world.pool.report(id, now).unwrap().parameters.affinity;
                        if let Ok(kick) = world.pool.set_parameters(id, &share(weight, affinity), now) {
                            world.kick(kick);
                        }
                    }
                }
                Event::Reserve(who, budget) => {
                    if let Some(id) = world.vcpus.get(who % count).map(|vcpu| vcpu.id) {
                        let affinity = world.pool.report(id, now).unwrap().parameters.affinity;
                        let parameters = reserved(budget * MS, 10 * MS, affinity);
                        if let Ok(kick) = world.pool.set_parameters(id, &parameters, now) {
                            world.kick(kick);
                        }
                    }
                }
                Event::Algorithm(which) => {
                    let new = by_name(NAMES[which], set).unwrap();
                    if let Ok(kick) = world.pool.replace(new, now) {
                        world.kick(kick);
                    }
                }
                Event::Add => {
                    let _ = world.add(&share(1, CpuSet::ALL), Habit::Obeys);
                }
                Event::Remove(who) => {
                    if let Some(vcpu) = world.vcpus.get(who % count).cloned() && !vcpu.ready && vcpu.resident.is_none() {
                        match world.pool.remove(vcpu.id) {
                            Removal::Done => { world.vcpus.remove(who % count); }
                            Removal::Again(kick) => world.kick(kick),
                        }
                    }
                }
            }
            world.check();
        }
        world.settle();
        world.check_settled();
        // Everybody who wants to run does, sooner or later.
        let waiting: Vec<VcpuId> = world.vcpus.iter().filter(|vcpu| vcpu.ready).map(|vcpu| vcpu.id).collect();
        let before: Vec<u64> = world.vcpus.iter().map(|vcpu| vcpu.ran).collect();
        world.run(3_000 * MS);
        if world.pool.algorithm() != null::NAME {
            for (vcpu, before) in world.vcpus.iter().zip(before) {
                prop_assert!(!waiting.contains(&vcpu.id) || vcpu.ran > before, "{:?} never ran", vcpu.id);
            }
        }
    }
}
