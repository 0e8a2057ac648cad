//! What the programs inside a domain decide, apart from how they reach the machine.
//!
//! The workload is the witness of every sharing test: two domains drive one device and each checks
//! all that it gets back. A witness that can't tell wrong from right is worth nothing, so everything
//! that judges sits here, behind the small [`machine::Machine`] trait, and is tested on the host
//! against a model of the device that can be told to misbehave. The thin part that mounts, maps and
//! polls is in [`os`], with all of the `unsafe`.

#![deny(unsafe_code)]

pub mod definition;
pub mod edu;
pub mod firmware;
pub mod job;
pub mod kernel_log;
pub mod machine;
pub mod management;
#[cfg(test)]
mod model;
pub mod modes;
pub mod operation;
pub mod options;
pub mod os;
pub mod random;
pub mod report;
pub mod stress;
