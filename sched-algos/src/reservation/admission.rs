//! Whether a set of reservations can be promised; see the module above for the bound.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use alloc::vec::Vec;

use coproc_core::algorithm::{AlgorithmError, MIN_SLICE, Parameters, Tuning};
use coproc_core::time::Duration;

use super::{MIN_BUDGET, Reserve};

/// Parts of the whole are counted in 2⁻⁴⁰, rounded up.
const WHOLE: u128 = 1 << 40;

/// The reservation that a configuration asks for, if it asks for one.
pub(super) fn reserve(parameters: &Parameters) -> Result<Option<Reserve>, AlgorithmError> {
    let wrong = |name, expected| Err(AlgorithmError::OutOfRange { name, expected });
    match (parameters.budget, parameters.period) {
        (None, None) => Ok(None),
        (Some(_), None) => wrong("period", "a period, since there is a budget"),
        (None, Some(_)) => wrong("budget", "a budget, since there is a period"),
        (Some(budget), Some(period)) => {
            if budget < MIN_BUDGET {
                return wrong("budget", "at least 100 us");
            }
            if budget > period {
                return wrong("budget", "at most the period");
            }
            Ok(Some(Reserve { budget, period }))
        }
    }
}

fn part(time: Duration, period: Duration) -> u128 {
    u128::from(time.as_nanos())
        .saturating_mul(WHOLE)
        .checked_add(u128::from(period.as_nanos()).saturating_sub(1))
        .and_then(|time| time.checked_div(u128::from(period.as_nanos())))
        .unwrap_or(u128::MAX)
}

/// Whether all of these can be promised together.
pub(super) fn admit(
    reserves: impl Iterator<Item = Reserve>,
    tuning: &Tuning,
) -> Result<(), AlgorithmError> {
    let mut all: Vec<Reserve> = Vec::new();
    for reserve in reserves {
        if all.try_reserve(1).is_err() {
            return Err(crate::table::NO_MEMORY);
        }
        all.push(reserve);
    }
    all.sort_unstable_by_key(|reserve| reserve.period);
    let own = tuning
        .switch
        .saturating_mul(2)
        .saturating_add(tuning.refusal)
        .saturating_add(MIN_SLICE);
    let blocked = tuning
        .refusal
        .saturating_add(tuning.switch)
        .saturating_add(MIN_SLICE.saturating_mul(2));
    let mut sum = 0_u128;
    for Reserve { budget, period } in all {
        sum = sum.saturating_add(part(budget.saturating_add(own), period));
        if sum.saturating_add(part(blocked, period)) > WHOLE {
            return Err(AlgorithmError::NotAdmitted(
                "more time reserved than there is, with the device's worst refusals and switches counted",
            ));
        }
    }
    Ok(())
}
