//! Coprocessor drivers, found by name.
//!
//! The device tree names a driver as text, and each driver is a Cargo feature, so a name can be unknown, or known
//! but left out of this build. A person who configured the second must hear which feature to switch on, not that the
//! driver doesn't exist: so the list of known names doesn't depend on what is compiled in.

use alloc::boxed::Box;

use coproc_core::Driver;

#[cfg(any(test, feature = "accumulator"))]
pub mod accumulator;
#[cfg(any(test, feature = "copier"))]
pub mod copier;
#[cfg(feature = "edu")]
pub mod edu;
#[cfg(feature = "fw-core")]
pub mod fw_core;

#[cfg(any(test, feature = "pl061"))]
pub mod pl061;

#[cfg(test)]
mod recording;
#[cfg(test)]
mod rig;

/// All drivers there are: name as the device tree's `driver` has it, the Cargo feature that it needs, whether that is on.
pub const KNOWN: &[(&str, &str, bool)] = &[
    ("qemu,edu", "edu", cfg!(feature = "edu")),
    ("baton,fw-core", "fw-core", cfg!(feature = "fw-core")),
    (
        "example,accumulator",
        "accumulator",
        cfg!(feature = "accumulator"),
    ),
    ("example,copier", "copier", cfg!(feature = "copier")),
    ("arm,pl061", "pl061", cfg!(feature = "pl061")),
];

/// A new instance of the driver called `name`, for one physical coprocessor; `None` if the name is unknown or not
/// compiled in ([`KNOWN`] tells which).
pub fn by_name(name: &str) -> Option<Box<dyn Driver>> {
    match name {
        #[cfg(feature = "edu")]
        "qemu,edu" => Some(Box::new(edu::Edu::new())),
        #[cfg(feature = "fw-core")]
        "baton,fw-core" => Some(Box::new(fw_core::FwCore::new())),
        #[cfg(feature = "accumulator")]
        "example,accumulator" => Some(Box::new(accumulator::Accumulator::new())),
        #[cfg(feature = "copier")]
        "example,copier" => Some(Box::new(copier::Copier::new())),
        #[cfg(feature = "pl061")]
        "arm,pl061" => Some(Box::new(pl061::Pl061::new())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_compiled_in_name_is_found_and_is_its_own() {
        for &(name, _, compiled_in) in KNOWN {
            let driver = by_name(name);
            assert_eq!(driver.is_some(), compiled_in, "{name}");
            if let Some(driver) = driver {
                assert_eq!(driver.description().name, name);
            }
        }
        assert!(by_name("qemu,ed").is_none());
        assert!(by_name("").is_none());
    }
}
