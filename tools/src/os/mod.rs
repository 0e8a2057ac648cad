//! How the program reaches its Linux: thin, and all of its `unsafe` in [`memory`] and [`mmio`].

pub mod console;
pub mod disk;
pub mod function;
pub mod memory;
pub mod mmio;
pub mod opening;
pub mod ready;
pub mod real;
pub mod real_core;
pub mod system;
pub mod terminal;
