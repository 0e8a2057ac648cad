//! The sharing framework: vcoprocs, the switch, register emulation, interrupts, accounting.
//!
//! This is the ground floor of Baton. It knows no board, no register and no assembly, has no
//! `unsafe`, and builds on the host, so that everything that decides about a coprocessor can be
//! tested without one. What it needs from the machine stands in the traits [`Environment`] (the
//! hypervisor's side), [`Driver`] (one kind of coprocessor), [`Iommu`] (what confines DMA) and
//! [`Algorithm`] (who runs next, for how long).
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

pub mod address;
pub mod algorithm;
pub mod coproc;
pub mod driver;
pub mod environment;
pub mod id;
pub mod iommu;
pub mod memory;
pub mod paravirtual;
pub mod record;
pub mod register;
pub mod ring;
pub mod sort;
pub mod table;
pub mod time;
pub mod trace;

pub use algorithm::Algorithm;
pub use coproc::Coproc;
pub use driver::Driver;
pub use environment::Environment;
pub use iommu::Iommu;
