use super::*;
use crate::testing::{Model, assert_logarithmic, cost_per_decision};
use alloc::boxed::Box;
use alloc::vec::Vec;
use proptest::prelude::*;

const SLICE: u64 = 1_000_000;

fn tuning() -> Tuning {
    Tuning {
        switch: Duration::from_micros(20),
        ..Tuning::new(Duration::from_nanos(SLICE))
    }
}

fn weight(weight: u32) -> Parameters {
    Parameters {
        weight,
        ..Parameters::default()
    }
}

fn model(weights: &[u32]) -> Model {
    let mut model = Model::new(Box::new(Weighted::new(&tuning())), tuning());
    for (id, w) in (0..).zip(weights) {
        model.algorithm.add(VcoprocId(id), &weight(*w)).unwrap();
    }
    model
}

#[test]
fn shares_are_as_the_weights() {
    let weights = [1, 2, 5, 12];
    let mut model = model(&weights);
    let arrivals: Vec<_> = (0..4).map(|id| (0, id, u64::MAX)).collect();
    model.run(2_000 * SLICE, &arrivals);
    let sum: u64 = model.clients.values().map(|client| client.charge).sum();
    for (id, w) in (0..).zip(weights) {
        let share = model.clients[&id].charge as f64 / sum as f64;
        let fair = f64::from(w) / 20.0;
        assert!(
            (share / fair - 1.0).abs() < 0.02,
            "v{id}: {share} of {fair}"
        );
    }
}

#[test]
fn refusing_gains_nothing_and_sleeping_saves_nothing() {
    let mut model = model(&[1, 1, 1, 1]);
    model.refusal.insert(0, 5 * SLICE);
    // v3 comes only after the others have shared for long.
    let arrivals = [
        (0, 0, u64::MAX),
        (0, 1, u64::MAX),
        (0, 2, u64::MAX),
        (1_000 * SLICE, 3, u64::MAX),
    ];
    model.run(1_000 * SLICE, &arrivals[..3]);
    let before: Vec<_> = (0..3).map(|id| model.clients[&id].charge).collect();
    let fair = before.iter().sum::<u64>() as f64 / 3.0;
    assert!(before[0] as f64 <= fair * 1.01, "{before:?}");
    model.run(1_400 * SLICE, &[(0, 3, u64::MAX)]);
    let after: Vec<_> = (0..3)
        .map(|id| model.clients[&id].charge - before[id as usize])
        .collect();
    let late = model.clients[&3].charge;
    // Its credit is one slice at most, the others' debts six.
    assert!(
        late <= after.iter().min().unwrap() + 8 * SLICE,
        "{late} {after:?}"
    );
}

#[test]
fn out_of_range_weights_change_nothing() {
    let mut weighted = Weighted::new(&tuning());
    let v = VcoprocId(1);
    assert!(weighted.add(v, &weight(0)).is_err());
    assert!(weighted.add(v, &weight(MAX_WEIGHT + 1)).is_err());
    weighted.add(v, &weight(MAX_WEIGHT)).unwrap();
    assert!(weighted.set_parameters(v, &weight(0)).is_err());
    weighted.snapshot(&mut |_, p, _| assert_eq!(p.weight, MAX_WEIGHT));
}

#[test]
fn a_decision_among_1000_is_logarithmic() {
    let cost = |n| {
        let mut algorithm = Weighted::new(&tuning());
        cost_per_decision(&mut algorithm, Weighted::steps, n, |id| weight(id % 9 + 1))
    };
    assert_logarithmic(cost(100), cost(1_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The fairness theorem: over any interval in which two both have work, their weighted times differ by no more than
    /// one slice with its refusal of each.
    #[test]
    fn weighted_times_stay_together(
        flows in proptest::collection::vec((1..20_u32, 0..6 * SLICE), 2..6),
    ) {
        let weights: Vec<_> = flows.iter().map(|(w, _)| *w).collect();
        let mut model = model(&weights);
        for (id, (_, refusal)) in (0..).zip(&flows) {
            model.refusal.insert(id, *refusal);
        }
        let arrivals: Vec<_> = (0..flows.len() as u32).map(|id| (0, id, u64::MAX)).collect();
        let longest = |id: usize| (SLICE + flows[id].1) as f64 / f64::from(weights[id]);
        let mut history = Vec::new();
        for step in 1..60 {
            model.run(step * 7 * SLICE, if step == 1 { &arrivals } else { &[] });
            let times: Vec<_> = (0..flows.len())
                .map(|id| model.clients[&(id as u32)].charge as f64 / f64::from(weights[id]))
                .collect();
            history.push(times);
        }
        for (n, late) in history.iter().enumerate() {
            for early in history.iter().take(n) {
                for a in 0..flows.len() {
                    for b in 0..a {
                        let lead = (late[a] - early[a]) - (late[b] - early[b]);
                        prop_assert!(
                            lead.abs() <= longest(a) + longest(b) + 1.0,
                            "v{a} and v{b} differ by {lead}"
                        );
                    }
                }
            }
        }
    }

    /// With equal weights nobody waits longer than two turns of all the others, refusals and switches included, if nobody is in debt.
    #[test]
    fn the_wait_is_bounded(
        n in 2..8_u32,
        bursts in proptest::collection::vec((0..400 * SLICE, 0..8_u32, 1..4 * SLICE), 1..60),
    ) {
        let mut model = model(&[1; 8]);
        let mut arrivals: Vec<_> = bursts
            .into_iter()
            .map(|(when, id, work)| (when, id % n, work))
            .collect();
        arrivals.sort_unstable();
        model.run(800 * SLICE, &arrivals);
        let bound = u64::from(2 * (n - 1) + 1) * (SLICE + 20_000);
        for (id, client) in &model.clients {
            prop_assert_eq!(client.work, 0, "v{}", id);
            prop_assert!(client.longest_wait <= bound, "v{} waited {}", id, client.longest_wait);
        }
    }
}
