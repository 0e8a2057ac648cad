#![no_std]
#![forbid(unsafe_code)]
//! x

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod coproc;
pub mod iommu;
pub mod translation;
