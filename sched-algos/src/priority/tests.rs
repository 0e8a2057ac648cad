use super::*;
use crate::testing::{Model, assert_logarithmic, cost_per_decision};
use alloc::boxed::Box;
use alloc::vec::Vec;
use proptest::prelude::*;

const SLICE: u64 = 1_000_000;
const SWITCH: u64 = 20_000;

fn tuning(bound: Option<u64>) -> Tuning {
    Tuning {
        switch: Duration::from_nanos(SWITCH),
        starvation: bound.map(Duration::from_nanos),
        ..Tuning::new(Duration::from_nanos(SLICE))
    }
}

fn level(priority: u32) -> Parameters {
    Parameters {
        priority,
        ..Parameters::default()
    }
}

fn model(levels: &[u32], bound: Option<u64>) -> Model {
    let mut model = Model::new(Box::new(Priority::new(&tuning(bound))), tuning(bound));
    for (id, priority) in (0..).zip(levels) {
        model
            .algorithm
            .add(VcoprocId(id), &level(*priority))
            .unwrap();
    }
    model
}

#[test]
fn the_highest_runs_and_equals_take_turns() {
    let mut model = model(&[1, 2, 2], None);
    let arrivals = [(0, 0, u64::MAX), (0, 1, 20 * SLICE), (0, 2, 20 * SLICE)];
    model.run(30 * SLICE, &arrivals);
    assert_eq!(model.clients[&0].charge, 0);
    assert!(model.clients[&1].charge.abs_diff(model.clients[&2].charge) <= SLICE);
    model.run(60 * SLICE, &[]);
    assert!(model.clients[&0].charge > 10 * SLICE);
}

#[test]
fn a_preempted_one_keeps_the_rest_of_its_slice() {
    let mut model = model(&[1, 1, 2], None);
    // v2 interrupts v0 in the middle of its slice; v0 goes on before v1.
    let arrivals = [
        (0, 0, u64::MAX),
        (0, 1, u64::MAX),
        (SLICE / 2, 2, SLICE / 4),
    ];
    model.run(6 * SLICE, &arrivals);
    let order: Vec<_> = model.turns.iter().map(|turn| turn.who).collect();
    assert_eq!(order[..5], [0, 2, 2, 0, 1], "{order:?}");
    let first: u64 = model
        .turns
        .iter()
        .filter(|turn| turn.who == 0)
        .take(2)
        .map(|turn| turn.to - turn.from)
        .sum();
    assert!(first.abs_diff(SLICE) <= 2 * SWITCH, "{first}");
}

#[test]
fn without_a_bound_the_lowest_starves_and_with_one_it_does_not() {
    for bound in [None, Some(10 * SLICE)] {
        let mut model = model(&[0, 1], bound);
        model.run(1_000 * SLICE, &[(0, 0, u64::MAX), (0, 1, u64::MAX)]);
        let lowest = model.clients[&0];
        if bound.is_some() {
            assert!(lowest.charge > 80 * SLICE, "{lowest:?}");
            assert!(lowest.longest_wait <= 12 * SLICE + 2 * SWITCH, "{lowest:?}");
        } else {
            assert_eq!(lowest.charge, 0);
        }
    }
    assert!(Priority::new(&tuning(None)).tune(&tuning(Some(0))).is_err());
}

/// Two that used their slices up out of their turn, by refusing: both go to the level's end with a whole slice, and the answer stays the same.
#[test]
fn slices_used_up_out_of_turn_are_followed_by_whole_ones() {
    for slice in [SLICE, 1] {
        let mut algorithm = Priority::new(&Tuning::new(Duration::from_nanos(slice)));
        let now = Instant::from_nanos(0);
        for id in [1, 2].map(VcoprocId) {
            algorithm.add(id, &level(0)).unwrap();
            algorithm.wake(id, now);
            algorithm.charge(id, Duration::from_nanos(SLICE), now);
        }
        let first = algorithm.pick(None, now).unwrap();
        assert_eq!(first.slice, Some(Duration::from_nanos(slice)));
        assert_eq!(algorithm.pick(None, now), Some(first));
    }
}

#[test]
fn a_decision_among_1000_is_logarithmic() {
    let cost = |n| {
        let mut algorithm = Priority::new(&tuning(Some(50 * SLICE)));
        cost_per_decision(&mut algorithm, Priority::steps, n, |id| level(id % 7))
    };
    assert_logarithmic(cost(100), cost(1_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No turn goes to one while a higher one has work, but for those lifted by the bound; and with a bound nobody waits longer than it
    /// and one turn of everybody.
    #[test]
    fn the_order_and_the_bound_are_kept(
        levels in proptest::collection::vec((0..4_u32, 0..3 * SLICE), 2..7),
        bound in proptest::option::of(2 * SLICE..40 * SLICE),
        bursts in proptest::collection::vec((0..300 * SLICE, 0..7_u32, 1..6 * SLICE), 1..60),
    ) {
        let priorities: Vec<_> = levels.iter().map(|(priority, _)| *priority).collect();
        let n = levels.len() as u32;
        let mut model = model(&priorities, bound);
        for (id, (_, refusal)) in (0..).zip(&levels) {
            model.refusal.insert(id, *refusal);
        }
        let mut arrivals: Vec<_> = bursts
            .into_iter()
            .map(|(when, id, work)| (when, id % n, work))
            .collect();
        arrivals.sort_unstable();
        // One at the top that never ends.
        let top = (0..n).max_by_key(|id| priorities[*id as usize]).unwrap();
        arrivals.insert(0, (0, top, u64::MAX));
        model.run(900 * SLICE, &arrivals);
        match bound {
            None => for turn in &model.turns {
                let highest = priorities[top as usize];
                prop_assert_eq!(priorities[turn.who as usize], highest);
            },
            Some(bound) => for (id, client) in &model.clients {
                let turns: u64 = levels.iter().map(|(_, refusal)| SLICE + refusal + SWITCH).sum();
                prop_assert!(
                    client.longest_wait <= bound + turns + 100_000,
                    "v{} waited {}", id, client.longest_wait
                );
                // Nobody that ever had work is still waiting for its first turn.
                prop_assert!(client.charge > 0);
            },
        }
    }
}
