//! What a guest's exception means, and what a guest gets back that did something it can't.
//!
//! Pure functions on register values, so that each encoding is tested on the host. Whatever isn't known
//! here is the guest's own business: it gets the exception that the architecture foresees.
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

pub mod controls;
pub mod float;
pub mod identification;
pub mod inject;
pub mod step;
pub mod syndrome;
