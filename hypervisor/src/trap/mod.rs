//! What a guest's exception means, and what a guest gets back that did something it can't.
//!
//! Pure functions on register values, so that each encoding is tested on the host. Whatever isn't known
//! here is the guest's own business: it gets the exception that the architecture foresees.

pub mod controls;
pub mod float;
pub mod identification;
pub mod inject;
pub mod step;
pub mod syndrome;
