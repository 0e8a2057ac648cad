//! Memory of the machine: who has which frame.

pub mod frames;
