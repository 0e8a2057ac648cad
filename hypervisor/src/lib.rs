#![no_std]
#![forbid(unsafe_code)]
//! The half of the EL2 program that decides.
//!
//! Parsing, emulation, bookkeeping: safe code that runs in host tests as it runs at EL2. The half that
//! touches hardware is the binary (`main.rs`): `arch` has everything unsafe, `system` puts the two together.

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
pub mod ivshmem;
pub mod lifecycle;
pub mod memory;
pub mod passthrough;
pub mod physical_timer;
pub mod processor;
pub mod psci;
pub mod trace;
pub mod trap;
pub mod v2m;
pub mod vcpu_schedule;
pub mod vgic;
pub mod vpci;
pub mod vpl011;
pub mod vpl031;
pub mod watchdog;
