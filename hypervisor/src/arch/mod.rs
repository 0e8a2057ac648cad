//! The half that touches hardware: everything `unsafe` of the EL2 program is in this folder.
//!
//! Each file is one narrow door. What goes through them is safe to call with any value, or says at its
//! one `unsafe` use why that use is sound.
//!
//! In host tests `fake` stands below it: a machine whose CPUs, memory and devices are the tests' own, and which keeps a trace. It has the
//! places of single instructions (`access`, `processor`, `registers`) and of what is assembly; everything else here runs there as it is.

#[cfg_attr(test, path = "fake/access.rs")]
mod access;
pub mod boot;
pub mod context;
pub mod cpu;
pub mod entropy;
pub mod errata;
pub mod exits;
#[cfg(test)]
pub mod fake;
#[cfg(feature = "fw-core")]
pub mod firmware;
pub mod gic;
pub mod guest;
#[cfg_attr(test, path = "fake/heap.rs")]
pub mod heap;
pub mod memory;
pub mod mmio;
pub mod mmu;
pub mod power;
#[cfg_attr(test, path = "fake/processor.rs")]
pub mod processor;
#[cfg_attr(test, path = "fake/registers.rs")]
pub mod registers;
pub mod report;
pub mod timer;
pub mod uart;

#[cfg(not(test))]
core::arch::global_asm!(
    include_str!("boot.S"),
    include_str!("vectors.S"),
    include_str!("float.S")
);
