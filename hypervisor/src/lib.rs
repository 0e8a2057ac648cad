#![no_std]
#![forbid(unsafe_code)]
//! x

extern crate alloc;

pub mod psci;
pub mod vpci;
pub mod vpl011;
