#![no_std]
#![forbid(unsafe_code)]
//! The half of the EL2 program that decides.
//!
//! Parsing, emulation, bookkeeping: safe code that runs in host tests as it runs at EL2. The half that
//! touches hardware is the binary (`main.rs`): `arch` has everything unsafe, `system` puts the two together.
//! What none of its paths runs often is in a crate of its own, which is compiled for size, and stands here under its names.
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

#[cfg(feature = "fault-injection")]
pub use control_plane::injection;
pub use control_plane::{
    config, console, devicetree, errata, flash, fw_cfg, guest_tree, image, lifecycle, memory,
    passthrough, speculation, startup, trace,
};

pub mod ivshmem;
pub mod management_port;
pub mod physical_timer;
pub mod processor;
pub mod psci;
pub mod reminder;
pub mod trap;
pub mod v2m;
pub mod vcpu_schedule;
pub mod vgic;
pub mod vpci;
pub mod vpl011;
pub mod vpl031;
pub mod watchdog;
