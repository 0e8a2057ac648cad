//! The host side of Baton: everything `cargo xtask` and the integration tests do on the
//! developer's machine.
//!
//! A user types one command and sees two domains share a device; a test author writes ten lines
//! and gets a booted machine. Both need the same chain, so it is a library first and a command
//! second: [`setup`] makes the tools and the distribution kernel exist, [`build`] compiles the
//! hypervisor and the guest programs, [`initramfs`] and [`machine_tree`] turn a typed
//! [`scenario::Scenario`] into files, [`qemu`] runs it, [`console`] reads what it says, and
//! [`demo`] judges the outcome.
//!
//! Nothing here runs on the target, so plain `std` and `anyhow` are right.

pub mod bare;
pub mod bench;
pub mod board;
pub mod build;
pub mod check;
pub mod command;
pub mod console;
pub mod demo;
pub mod device_tree;
pub mod disk;
pub mod image;
pub mod initramfs;
pub mod machine_tree;
pub mod qemu;
pub mod report;
pub mod scenario;
pub mod setup;
pub mod sim;
pub mod timeline;
pub mod workspace;

pub use board::Board;
pub use build::Artifacts;
pub use console::{Console, Mark};
pub use qemu::Qemu;
pub use scenario::{CoprocSpec, DomainSpec, Edit, Scenario, SharedMemorySpec};
pub use workspace::Workspace;
