//! `fw-workload`: a domain that loads firmware into its firmware core, gives it work, and checks what comes back.
//!
//! As for the edu device, what judges is here, behind the trait [`host::Host`], and tested against a model that runs the
//! very code of the firmware; the thin part that maps the function is in [`crate::os`].

pub mod driver;
pub mod host;
pub mod jobs;
pub mod limits;
#[cfg(test)]
mod model;
pub mod modes;
pub mod options;
