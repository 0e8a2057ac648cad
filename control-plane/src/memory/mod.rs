//! Memory of the machine: who has which frame, and how it is scrubbed.

pub mod blocks;
pub mod frames;
