//! Boards and what is on them: IOMMUs, coprocessor drivers, translation tables.
//!
//! Everything here reaches hardware through a trait, so it has no `unsafe` and runs in host tests against models: the SMMUv3 against
//! one of its queues and tables, the edu driver against one of the device.
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
#[cfg(test)]
extern crate std;

pub mod coproc;
pub mod iommu;
pub mod translation;
pub mod uart;
