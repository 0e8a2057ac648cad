//! Random numbers for domains: the TRNG firmware interface, and seeds for their kernels.
//!
//! Entropy is the machine's or isn't there: nothing here makes any up, and who gets none is told so. What the machine has stands behind [`Source`].
//! A crate of its own, since nobody waits for any of this: it is compiled for size.
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

#[cfg(test)]
extern crate alloc;

pub mod seeds;
pub mod trng;

/// Where entropy comes from.
pub trait Source {
    /// Fills all of these words, three at most, each bit of them entropy, in bounded time; `false` if there isn't enough now.
    fn fill(&mut self, words: &mut [u64]) -> bool;

    /// The generator's name, as TRNG_GET_UUID has it in its registers.
    fn uuid(&mut self) -> [u32; 4];
}
