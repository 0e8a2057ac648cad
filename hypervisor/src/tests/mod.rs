//! The EL2 program on a machine that is not there (`arch/fake`): what it does of itself, and what guests can make it do.

mod boards;
mod boot;
mod calls;
#[cfg(feature = "fw-core")]
mod cores;
mod definition;
mod devices;
mod exits;
mod hostile;
mod interrupts;
mod neighbours;
mod rules;
#[cfg(feature = "sharing")]
mod sharing;
