//! The example firmwares without the machine under them.
//!
//! A firmware is hard to look into while it runs, so all that it decides and computes sits here, forbids `unsafe` and is tested on the
//! host; what touches the core is in `fw-runtime`. The domain's program uses the same crate: the protocol has one definition, and the
//! results that it compares with are computed by code whose own tests know the right answers from elsewhere.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod checksum;
pub mod engine;
pub mod filter;
pub mod probes;
pub mod protocol;
