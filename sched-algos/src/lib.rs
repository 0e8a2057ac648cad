//! Scheduling algorithms for shared coprocessors, one a module, each behind a feature of its own.
//!
//! A coprocessor names its algorithm in the device tree; [`by_name`] makes it. [`KNOWN`] also lists those that
//! aren't compiled in, so that the error for such a name can say which feature is missing.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

#[cfg(feature = "rr")]
pub mod rr;

use alloc::boxed::Box;

use coproc_core::Algorithm;
use coproc_core::algorithm::Tuning;

/// Every algorithm of this crate: its name, the feature that compiles it in, and whether that was set.
pub const KNOWN: &[(&str, &str, bool)] = &[("rr", "rr", cfg!(feature = "rr"))];

/// Makes an instance of an algorithm, by its exact name. `None`: unknown, or not compiled in (see [`KNOWN`]).
pub fn by_name(name: &str, tuning: &Tuning) -> Option<Box<dyn Algorithm>> {
    match name {
        #[cfg(feature = "rr")]
        rr::NAME => Some(Box::new(rr::RoundRobin::new(tuning))),
        _ => {
            let _ = tuning;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coproc_core::time::Duration;

    #[test]
    fn every_compiled_in_name_makes_an_algorithm_of_that_name() {
        let tuning = Tuning {
            slice: Duration::from_millis(1),
        };
        for (name, _, compiled_in) in KNOWN {
            let made = by_name(name, &tuning).map(|algorithm| algorithm.name());
            assert_eq!(made, compiled_in.then_some(*name));
        }
        // The ancestor matched prefixes.
        for wrong in ["", "r", "rrr", "rr ", "RR"] {
            assert!(by_name(wrong, &tuning).is_none(), "{wrong:?}");
        }
    }
}
