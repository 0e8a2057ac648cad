//! What is measured, as numbers that can be compared.
//!
//! Where at least two domains are always busy, shares are judged among those: their charges, divided by their weights. Where fewer
//! are, nobody competes for a share, and what is judged is how much of its demand each got.

use serde::Serialize;

use super::run::{Options, Outcomes};
use super::workload::{Behaviour, Workload};

/// One algorithm on one workload.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The algorithm.
    pub algorithm: String,
    /// The workload.
    pub workload: &'static str,
    /// Jain's index of fairness of the weighted shares: 1 is even, 1/n is all to one.
    pub jain: f64,
    /// Largest relative deviation of a share from what the weights say.
    pub share_error_max: f64,
    /// How much more than its fair share a refuser got, relative; 0 where nobody refuses.
    pub refuser_gain: f64,
    /// Jobs done after their deadline, or never.
    pub deadline_misses: u64,
    /// Jobs with a deadline.
    pub deadline_jobs: u64,
    /// Jobs done.
    pub jobs: u64,
    /// Part of the time that wasn't idle which went into switching.
    pub overhead: f64,
    /// Part of the whole time in which a vcoproc had the device.
    pub charged: f64,
    /// 99th percentile of the times that one with work waited for the device, ns.
    pub wait_p99_ns: u64,
    /// The longest, ns.
    pub wait_max_ns: u64,
    /// Context switches.
    pub switches: u64,
    /// Virtual time, ns.
    pub time_ns: u64,
    /// Seed.
    pub seed: u64,
}

/// Jain's index (R. Jain, D. Chiu, W. Hawe, DEC-TR-301, 1984). 1 if there is nothing to compare.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    if squares == 0.0 {
        return 1.0;
    }
    sum * sum / (shares.len() as f64 * squares)
}

/// Measures an outcome.
pub fn measure(
    algorithm: &str,
    workload: &Workload,
    options: &Options,
    outcomes: &Outcomes,
) -> Row {
    let charges = (0..).zip(&workload.actors).map(|(index, actor)| {
        let id = coproc_core::id::VcoprocId(index);
        (actor, outcomes.time.of(id).charge.as_nanos() as f64)
    });
    let busy: Vec<_> = charges
        .filter(|(actor, _)| actor.behaviour.is_busy())
        .collect();
    let (mut error, mut gain) = (0.0_f64, 0.0_f64);
    let shares: Vec<f64> = if busy.len() >= 2 {
        let sum: f64 = busy.iter().map(|(_, charge)| charge).sum();
        let weights: f64 = busy
            .iter()
            .map(|(a, _)| f64::from(a.parameters.weight))
            .sum();
        let relative = busy.iter().map(|(actor, charge)| {
            let fair = f64::from(actor.parameters.weight) / weights;
            let share = if sum > 0.0 { charge / sum / fair } else { 0.0 };
            error = error.max((share - 1.0).abs());
            if let Behaviour::Refuser(_) = actor.behaviour {
                gain = if gain == 0.0 {
                    share - 1.0
                } else {
                    gain.max(share - 1.0)
                };
            }
            share
        });
        relative.collect()
    } else {
        let used = outcomes.got.iter().filter(|got| got.rung > 0);
        let served = used.map(|got| got.done as f64 / got.rung as f64);
        served
            .inspect(|part| error = error.max(1.0 - part))
            .collect()
    };
    let time = &outcomes.time;
    let (charge, overhead) = (time.charge.as_nanos(), time.overhead.as_nanos());
    let p99 = outcomes.waits.len().saturating_sub(1) * 99 / 100;
    let sum = |of: fn(&super::run::Got) -> u64| outcomes.got.iter().map(of).sum();
    Row {
        algorithm: algorithm.to_owned(),
        workload: workload.name,
        jain: jain(&shares),
        share_error_max: error,
        refuser_gain: gain,
        deadline_misses: sum(|got| got.late),
        deadline_jobs: sum(|got| got.due),
        jobs: sum(|got| got.done),
        overhead: overhead as f64 / (charge + overhead).max(1) as f64,
        charged: charge as f64 / time.elapsed.as_nanos().max(1) as f64,
        wait_p99_ns: outcomes.waits.get(p99).copied().unwrap_or(0),
        wait_max_ns: outcomes.waits.last().copied().unwrap_or(0),
        switches: outcomes.switches,
        time_ns: time.elapsed.as_nanos(),
        seed: options.seed,
    }
}
