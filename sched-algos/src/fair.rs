//! The arithmetic of fair shares by virtual time, for whatever is shared: coprocessors ([`crate::weighted`]) or CPUs (the vCPU
//! algorithms of the hypervisor).
//!
//! A flow's tag is the time that it was charged, divided by its weight (start-time fair queueing: P. Goyal, H. Vin, H. Cheng, SIGCOMM
//! 1996). Which flows there are and who runs is the algorithm's business; here is only what a tag becomes.

use coproc_core::algorithm::AlgorithmError;
use coproc_core::time::Duration;

/// The highest weight; the lowest is 1.
pub const MAX_WEIGHT: u32 = 65_535;

/// Virtual time: nanoseconds at weight 1, with 24 binary digits after the point. 128 bits never overflow.
pub type Virtual = u128;
const FRACTION: u32 = 24;

/// Virtual time that `time` takes at a weight.
#[inline]
pub fn scaled(time: Duration, weight: u32) -> Virtual {
    let time = u128::from(time.as_nanos()) << FRACTION;
    // Up to 18 minutes it is a division that a CPU has.
    if let Ok(short) = u64::try_from(time) {
        return Virtual::from(short.checked_div(u64::from(weight)).unwrap_or(short));
    }
    time.checked_div(u128::from(weight)).unwrap_or(time)
}

/// Whether a weight may be used.
///
/// # Errors
/// [`AlgorithmError::OutOfRange`].
pub fn check_weight(weight: u32) -> Result<(), AlgorithmError> {
    if (1..=MAX_WEIGHT).contains(&weight) {
        return Ok(());
    }
    Err(AlgorithmError::OutOfRange {
        name: "weight",
        expected: "1 to 65535",
    })
}

/// The present, in virtual time: it never goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Clock(Virtual);

impl Clock {
    /// The beginning.
    pub const fn new() -> Self {
        Self(0)
    }

    /// Now.
    pub const fn now(self) -> Virtual {
        self.0
    }

    /// It is at least `tag` now.
    pub fn advance(&mut self, tag: Virtual) {
        self.0 = self.0.max(tag);
    }

    /// The tag of one that may lag behind the present by `credit` at most: sleeping is no saving.
    pub fn bounded(self, tag: Virtual, credit: Duration, weight: u32) -> Virtual {
        tag.max(self.0.saturating_sub(scaled(credit, weight)))
    }

    /// The tag of one whose weight changes: what it owes, or is owed, keeps its worth in time.
    pub fn reweighted(self, tag: Virtual, old: u32, new: u32) -> Virtual {
        let convert = |span: Virtual| {
            span.saturating_mul(u128::from(old))
                .checked_div(u128::from(new))
                .unwrap_or(span)
        };
        if tag >= self.0 {
            self.0.saturating_add(convert(tag.saturating_sub(self.0)))
        } else {
            self.0.saturating_sub(convert(self.0.saturating_sub(tag)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_debt_keeps_its_worth(now in 0..1_u64 << 40, debt in 0..1_u64 << 40, old in 1..=MAX_WEIGHT, new in 1..=MAX_WEIGHT) {
            let mut clock = Clock::new();
            clock.advance(Virtual::from(now) << FRACTION);
            let tag = clock.now() + scaled(Duration::from_nanos(debt), old);
            let worth = clock.reweighted(tag, old, new) - clock.now();
            let expected = scaled(Duration::from_nanos(debt), new);
            // Rounded twice.
            prop_assert!(worth.abs_diff(expected) <= Virtual::from(old) + 1);
        }

        #[test]
        fn nobody_lags_more_than_the_credit(now in 0..1_u64 << 40, tag in 0..1_u64 << 40, weight in 1..=MAX_WEIGHT) {
            let mut clock = Clock::new();
            clock.advance(Virtual::from(now));
            let tag = Virtual::from(tag);
            let credit = Duration::from_nanos(1_000);
            let bounded = clock.bounded(tag, credit, weight);
            prop_assert!(bounded >= tag && bounded + scaled(credit, weight) >= clock.now());
            prop_assert!(bounded == tag || bounded <= clock.now());
        }
    }
}
