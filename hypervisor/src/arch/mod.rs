//! The half that touches hardware: everything `unsafe` of the EL2 program is in this folder.
//!
//! Each file is one narrow door. What goes through them is safe to call with any value, or says at its
//! one `unsafe` use why that use is sound.

mod access;
pub mod boot;
pub mod context;
pub mod cpu;
pub mod entropy;
pub mod errata;
pub mod exits;
#[cfg(feature = "fw-core")]
pub mod firmware;
pub mod gic;
pub mod guest;
pub mod heap;
pub mod memory;
pub mod mmio;
pub mod mmu;
pub mod power;
pub mod processor;
pub mod registers;
pub mod report;
pub mod timer;
pub mod uart;

core::arch::global_asm!(
    include_str!("boot.S"),
    include_str!("vectors.S"),
    include_str!("float.S")
);
