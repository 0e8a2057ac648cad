//! What Baton decides about domains while none of their instructions waits for it.
//!
//! Reading the device tree and the configuration, planning a domain and its device tree, its life, the console. None of it is on
//! the path of an exit, an interrupt or a switch, so it is compiled for size (the workspace's `Cargo.toml`), which is why it is a
//! crate; what is on such a path is in the library of `hypervisor`, which imports this one.
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

pub mod config;
pub mod console;
pub mod devicetree;
pub mod errata;
pub mod flash;
pub mod fw_cfg;
pub mod guest_tree;
pub mod image;
#[cfg(feature = "fault-injection")]
pub mod injection;
pub mod lifecycle;
pub mod memory;
pub mod passthrough;
pub mod speculation;
pub mod startup;
pub mod trace;
