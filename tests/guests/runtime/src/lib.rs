//! What bare-metal guest programs have in common: entry, device tree, interrupt controller, UART, power.
//!
//! A guest includes `start.S` besides, which calls its `guest_main(tree, begun)` and, on the second vCPU, `guest_second(context)`, and
//! brings its own `vectors`. On a host there is nothing here.
#![cfg_attr(target_os = "none", no_std)]
#![cfg(target_os = "none")]

pub mod machine;
pub mod tree;
