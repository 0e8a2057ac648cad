use super::*;
use crate::testing::{Model, assert_logarithmic, cost_per_decision};
use alloc::boxed::Box;
use alloc::vec::Vec;
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn tuning(switch: u64, refusal: u64) -> Tuning {
    Tuning {
        switch: Duration::from_nanos(switch),
        refusal: Duration::from_nanos(refusal),
        ..Tuning::new(Duration::from_millis(1))
    }
}

fn reserve(budget: u64, period: u64) -> Parameters {
    Parameters {
        budget: Some(Duration::from_nanos(budget)),
        period: Some(Duration::from_nanos(period)),
        ..Parameters::default()
    }
}

fn add(model: &mut Model, id: u32, parameters: Parameters) -> Result<(), AlgorithmError> {
    model.algorithm.add(VcoprocId(id), &parameters)
}

fn model(tuning: Tuning) -> Model {
    Model::new(Box::new(Reservation::new(&tuning)), tuning)
}

#[test]
fn admission_counts_refusals_and_switches() {
    let mut free = model(tuning(0, 0));
    add(&mut free, 1, reserve(5 * MS, 10 * MS)).unwrap();
    assert!(
        add(&mut free, 2, reserve(5 * MS, 10 * MS)).is_err(),
        "rounding isn't free"
    );
    add(&mut free, 2, reserve(4_900_000, 10 * MS)).unwrap();
    // The same set on a device that refuses for a millisecond.
    let mut slow = model(tuning(50_000, MS));
    add(&mut slow, 1, reserve(5 * MS, 10 * MS)).unwrap();
    assert!(add(&mut slow, 2, reserve(2_900_000, 10 * MS)).is_err());
    add(&mut slow, 2, reserve(1_500_000, 10 * MS)).unwrap();
    // Without a reservation everybody is welcome.
    add(&mut slow, 3, Parameters::default()).unwrap();
    // What was refused has left nothing behind; what is given back may be used again.
    slow.algorithm.remove(VcoprocId(1)).unwrap();
    add(&mut slow, 4, reserve(5 * MS, 10 * MS)).unwrap();
    // A change is admitted like an addition, a refused one changes nothing; nor does a tuning that breaks a promise.
    let four = VcoprocId(4);
    assert!(
        slow.algorithm
            .set_parameters(four, &reserve(8 * MS, 10 * MS))
            .is_err()
    );
    assert!(slow.algorithm.tune(&tuning(50_000, 3 * MS)).is_err());
    slow.algorithm
        .set_parameters(four, &reserve(4 * MS, 10 * MS))
        .unwrap();
    let mut seen = Vec::new();
    slow.algorithm
        .snapshot(&mut |id, p, _| seen.push((id.0, p.budget.map(Duration::as_nanos))));
    assert_eq!(seen, [(2, Some(1_500_000)), (3, None), (4, Some(4 * MS))]);
}

#[test]
fn half_a_reservation_is_an_error() {
    let mut model = model(tuning(0, 0));
    let whole = reserve(MS, 10 * MS);
    let no_period = Parameters {
        period: None,
        ..whole
    };
    let no_budget = Parameters {
        budget: None,
        ..whole
    };
    for wrong in [
        no_period,
        no_budget,
        reserve(2 * MS, MS),
        reserve(1, MS),
        reserve(0, 0),
    ] {
        let refused = add(&mut model, 1, wrong);
        assert!(
            matches!(refused, Err(AlgorithmError::OutOfRange { .. })),
            "{wrong:?}"
        );
    }
    add(&mut model, 1, whole).unwrap();
}

#[test]
fn an_overrunning_one_takes_only_slack() {
    let mut model = model(tuning(10_000, 0));
    add(&mut model, 1, reserve(2 * MS, 10 * MS)).unwrap();
    add(
        &mut model,
        2,
        Parameters {
            weight: 3,
            ..Parameters::default()
        },
    )
    .unwrap();
    model.run(10_000 * MS, &[(0, 1, u64::MAX), (0, 2, u64::MAX)]);
    let (a, b) = (model.clients[&1].charge, model.clients[&2].charge);
    let share = a as f64 / (a + b) as f64;
    // 20 % reserved, and a quarter of the rest.
    assert!((share - 0.4).abs() < 0.01, "{share}");
}

#[test]
fn nobody_with_a_reservation_loses_the_slack() {
    let mut model = model(tuning(10_000, 0));
    add(&mut model, 1, reserve(MS, 10 * MS)).unwrap();
    model.run(1_000 * MS, &[(0, 1, u64::MAX)]);
    assert!(
        model.clients[&1].charge > 999 * MS,
        "alone it has everything"
    );
}

#[test]
fn a_decision_among_1000_is_logarithmic() {
    let cost = |n: u32| {
        let mut algorithm = Reservation::new(&tuning(0, 0));
        cost_per_decision(&mut algorithm, Reservation::steps, n, |id| {
            if id % 2 == 0 {
                reserve(100_000, 200 * MS + u64::from(id) * MS)
            } else {
                Parameters::default()
            }
        })
    };
    assert_logarithmic(cost(100), cost(1_000));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Sets that are admitted miss no deadline: whatever their phases and jitter, whatever others without a reservation do, and
    /// however the device refuses within its declared worst case.
    #[test]
    fn admitted_sets_miss_no_deadline(
        switch in 0..60_000_u64,
        refusal in 0..900_000_u64,
        asked in proptest::collection::vec(
            (200_000..6 * MS, 3 * MS..60 * MS, 0..50 * MS, 0..5 * MS), 1..12),
        hogs in 0..3_u32,
        refusals in proptest::collection::vec(0..=100_u64, 16),
    ) {
        let end = 1_500 * MS;
        let mut model = model(tuning(switch, refusal));
        let mut arrivals = Vec::new();
        let mut jobs = Vec::new();
        for (id, (budget, period, phase, jitter)) in (0_u32..).zip(asked) {
            if add(&mut model, id, reserve(budget, period)).is_err() {
                continue;
            }
            let mut when = phase;
            while when < end {
                // Sporadic: at least a period apart. The rounding of the shortest slice is the budget's.
                arrivals.push((when, id, budget - 20_000));
                jobs.push((id, when + period));
                when += period + if jobs.len() % 3 == 0 { jitter } else { 0 };
            }
        }
        for id in 100..100 + hogs {
            add(&mut model, id, Parameters::default()).unwrap();
            arrivals.push((0, id, u64::MAX));
        }
        for (n, id) in (0..12).chain(100..103).enumerate() {
            model.refusal.insert(id, refusal * refusals[n] / 100);
        }
        arrivals.sort_unstable();
        model.run(end, &arrivals);
        for (id, deadline) in jobs {
            if deadline >= end {
                continue;
            }
            let at = model.finished.iter().position(|(who, _)| *who == id);
            prop_assert!(at.is_some(), "a job of v{} never ended", id);
            let (_, ended) = model.finished.remove(at.unwrap_or(0));
            prop_assert!(ended <= deadline, "v{} ended {} ns late", id, ended - deadline);
        }
    }
}
