//! Whether a set of reservations can be promised; see the module above for the bound.

use alloc::vec::Vec;

use coproc_core::algorithm::{AlgorithmError, MIN_SLICE, Tuning};
use coproc_core::sort;

use crate::bandwidth::{Reserve, WHOLE, part};

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
    sort::by_key(&mut all, |reserve| reserve.period);
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
