//! What the device tree says: the machine, the coprocs to share, and the domains to start.
//!
//! Everything here turns a [`Tree`](crate::devicetree::Tree) into owned, checked values before
//! anything is started, so that the rest of the hypervisor never reads a property and never finds
//! a mistake half-way. [`Machine`] is what the board has; it's needed whole, so its first mistake
//! is its only answer. [`Configuration`] is what the user wrote under `/chosen`; there a mistake stops only
//! the domain or coproc it's in, and all mistakes are told at once.

pub mod coprocs;
pub mod domains;
pub mod machine;
pub mod passthrough;
pub mod pools;
pub mod shared_memory;
pub mod shared_node;
#[cfg(test)]
pub(crate) mod tests;

pub use coprocs::{CoprocConfig, DeviceLocator, Known, KnownName, PciFunction};
pub use domains::{Assignment, Configuration, DomainConfig, Fixture, Module, Rejected};
pub use machine::Machine;
pub use passthrough::{Dma, Mastery, Passed, PassedNode};
pub use pools::PoolConfig;
pub use shared_memory::SharedMemory;
pub use shared_node::SharedNode;
