//! Scheduling algorithms for shared coprocessors, one a module, each behind a feature of its own.
//!
//! A coprocessor names its algorithm in the device tree; [`by_name`] makes it. [`KNOWN`] also lists those that
//! aren't compiled in, so that the error for such a name can say which feature is missing.
//!
//! | algorithm | who runs | shares | wait | admission |
//! |---|---|---|---|---|
//! | `rr` | in turn | equal, but for refusals | n − 1 slices | everybody |
//! | `weighted` | lowest virtual time | by weights, refusals paid back | 2 (n − 1) slices at equal weights | everybody |
//! | `priority` | highest level, in turn inside | all to the highest | unbounded, or the starvation bound | everybody |
//! | `reservation` | earliest deadline with budget, then by weights | budget in each period | the period | by a schedulability test |
//! | `null` | its owner | all | none | one |
#![no_std]
#![forbid(unsafe_code)]
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

extern crate alloc;

pub mod bandwidth;
pub mod fair;
pub mod heap;
#[cfg(feature = "null")]
pub mod null;
#[cfg(feature = "priority")]
pub mod priority;
#[cfg(feature = "reservation")]
pub mod reservation;
#[cfg(feature = "rr")]
pub mod rr;
#[cfg(any(feature = "weighted", feature = "priority"))]
mod table;
#[cfg(test)]
mod testing;
#[cfg(feature = "weighted")]
pub mod weighted;

use alloc::boxed::Box;

use coproc_core::Algorithm;
use coproc_core::algorithm::Tuning;

/// Every algorithm of this crate: its name, the feature that compiles it in, and whether that was set.
pub const KNOWN: &[(&str, &str, bool)] = &[
    ("rr", "rr", cfg!(feature = "rr")),
    ("weighted", "weighted", cfg!(feature = "weighted")),
    ("priority", "priority", cfg!(feature = "priority")),
    ("reservation", "reservation", cfg!(feature = "reservation")),
    ("null", "null", cfg!(feature = "null")),
];

/// The names of all of them, for people.
pub const NAMES: &str = "rr, weighted, priority, reservation or null";

/// Makes an instance of an algorithm, by its exact name. `None`: unknown, or not compiled in (see [`KNOWN`]).
pub fn by_name(name: &str, tuning: &Tuning) -> Option<Box<dyn Algorithm>> {
    match name {
        #[cfg(feature = "rr")]
        rr::NAME => Some(Box::new(rr::RoundRobin::new(tuning))),
        #[cfg(feature = "weighted")]
        weighted::NAME => Some(Box::new(weighted::Weighted::new(tuning))),
        #[cfg(feature = "priority")]
        priority::NAME => Some(Box::new(priority::Priority::new(tuning))),
        #[cfg(feature = "reservation")]
        reservation::NAME => Some(Box::new(reservation::Reservation::new(tuning))),
        #[cfg(feature = "null")]
        null::NAME => Some(Box::new(null::Null::new(tuning))),
        _ => {
            let _ = tuning;
            None
        }
    }
}

/// A slice has to have a length.
#[cfg(any(feature = "rr", feature = "weighted", feature = "priority"))]
pub(crate) fn check_slice(tuning: &Tuning) -> Result<(), coproc_core::algorithm::AlgorithmError> {
    if tuning.slice > coproc_core::time::Duration::ZERO {
        return Ok(());
    }
    Err(coproc_core::algorithm::AlgorithmError::OutOfRange {
        name: "slice",
        expected: "more than 0",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use coproc_core::time::Duration;

    #[test]
    fn every_compiled_in_name_makes_an_algorithm_of_that_name() {
        let tuning = Tuning::new(Duration::from_millis(1));
        for (name, _, compiled_in) in KNOWN {
            let made = by_name(name, &tuning).map(|algorithm| algorithm.name());
            assert_eq!(made, compiled_in.then_some(*name));
        }
        let told: alloc::vec::Vec<_> = NAMES
            .split([',', ' '])
            .filter(|word| !word.is_empty() && *word != "or")
            .collect();
        assert!(
            told.iter().eq(KNOWN.iter().map(|(name, _, _)| name)),
            "{NAMES}"
        );
        // The ancestor matched prefixes.
        for wrong in ["", "r", "rrr", "rr ", "RR"] {
            assert!(by_name(wrong, &tuning).is_none(), "{wrong:?}");
        }
    }
}
