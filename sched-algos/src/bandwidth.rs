//! Time reserved in each period: what a reservation is, what part of the whole it takes, and what a waking one keeps. For
//! coprocessors ([`crate::reservation`]) and for CPUs (the vCPU algorithms of the hypervisor).
//!
//! The rule for waking is the constant bandwidth server's: L. Abeni, G. Buttazzo, *Integrating multimedia applications in hard real-time
//! systems*, RTSS 1998.

use coproc_core::algorithm::{AlgorithmError, Parameters};
use coproc_core::time::Duration;

/// The smallest budget.
pub const MIN_BUDGET: Duration = Duration::from_micros(100);
/// Parts of the whole are counted in 2⁻⁴⁰, rounded up.
pub const WHOLE: u128 = 1 << 40;

/// Time promised in each period.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reserve {
    /// How much.
    pub budget: Duration,
    /// In each of these.
    pub period: Duration,
}

impl Reserve {
    /// The reservation that a configuration asks for, if it asks for one.
    ///
    /// # Errors
    /// [`AlgorithmError::OutOfRange`]: one without the other, less than [`MIN_BUDGET`], more than the period.
    pub fn of(parameters: &Parameters) -> Result<Option<Self>, AlgorithmError> {
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
                Ok(Some(Self { budget, period }))
            }
        }
    }

    /// Whether what is left of a budget is no more than its bandwidth allows in the time until its deadline.
    pub fn allows(&self, left: Duration, until: Duration) -> bool {
        let left = u128::from(left.as_nanos());
        let until = u128::from(until.as_nanos());
        left.saturating_mul(u128::from(self.period.as_nanos()))
            <= until.saturating_mul(u128::from(self.budget.as_nanos()))
    }
}

/// The part of [`WHOLE`] that `time` in each `period` is.
pub fn part(time: Duration, period: Duration) -> u128 {
    u128::from(time.as_nanos())
        .saturating_mul(WHOLE)
        .checked_add(u128::from(period.as_nanos()).saturating_sub(1))
        .and_then(|time| time.checked_div(u128::from(period.as_nanos())))
        .unwrap_or(u128::MAX)
}
