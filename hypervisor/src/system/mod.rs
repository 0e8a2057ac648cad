//! The running system: domains on CPUs, coprocessors between them.
//!
//! This is where the two halves meet: exits come in from `arch`, the library decides, `arch` carries it out. There is no
//! `unsafe` here.
//!
//! # Locks
//! Interrupts are always masked at EL2, so a lock is never taken twice on one CPU by an interrupt. A thread of execution
//! takes locks only downwards in this list:
//!
//! 1. the console: commands are carried out under it; then the file that somebody gives (`definition`)
//! 2. `Domain::control`: one domain's life
//! 3. what is buried (`attachment`)
//! 4. `Instance::core`: one coprocessor's framework and its device
//! 5. `Domain::power`
//! 6. `Domain::pci`: one domain's PCI functions; `Domain::given`: its own devices; `Domain::fixtures` (read), `Fixture::link`
//! 7. `Domain::uart`, `Domain::management`, `Domain::devices`, `Domain::flash`, `Vcpu::timer`
//! 8. `Domain::memory` (read), `Domain::stage2`: one domain's tables
//! 9. `Domain::vgic`
//! 10. `Vcpu::lists`: one vCPU's list registers
//! 11. `SharedPool`: one pool's scheduler, since a vCPU may be woken under any lock above
//! 12. the IOMMU ([`boot::iommu`])
//! 13. `FirmwareCore::state`: a firmware core's device
//! 14. the physical PCI configuration space ([`boot::config_space`])
//! 15. `System::gic`
//! 16. [`FRAMES`]
//! 17. the pool of seeds (`entropy`): nothing is locked under it
//! 18. one CPU's trace: nothing is locked under it
//! 19. the buffer of messages: so that a message may be logged under any lock
#![deny(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

pub mod attachment;
pub mod boot;
pub mod console;
pub mod custody;
pub mod definition;
pub mod devices;
#[cfg_attr(not(feature = "sharing"), path = "discovery_absent.rs")]
pub mod discovery;
pub mod domain;
pub mod emulation;
pub mod entropy;
pub mod exit;
#[cfg_attr(not(feature = "fw-core"), path = "firmware_absent.rs")]
pub mod firmware;
pub mod fixture;
pub mod flash;
pub mod interrupts;
pub mod lifecycle;
pub mod load;
pub mod management;
mod messages;
pub mod node;
pub mod passthrough;
pub mod pci;
pub mod places;
pub mod processors;
pub mod recording;
pub mod schedule;
pub mod shared_memory;
pub mod sharing;
pub mod site;
#[cfg(feature = "sharing")]
pub mod smmu;
pub mod start;
pub mod tables;
pub mod trace;
#[cfg(all(feature = "fault-injection", feature = "sharing"))]
pub mod unreliable;

use crate::arch;
use alloc::vec::Vec;
use hypervisor::config::machine::Machine;
use hypervisor::memory::frames::Frames;
use spin::{Mutex, Once};

/// Everything that exists once.
pub struct System {
    /// What the machine has.
    pub machine: Machine,
    /// For each CPU of the machine's list its number here (0 booted), if it runs.
    pub numbers: Vec<Option<usize>>,
    /// What was described at boot, for domains that are described later.
    pub described: definition::Described,
    /// The interrupt controller.
    pub gic: Mutex<arch::gic::Gic>,
    /// The shared coprocessors.
    pub instances: Vec<sharing::Instance>,
    /// Memory that domains share.
    pub shared: Vec<shared_memory::Region>,
    /// A place for each domain that was ever configured; whether it is there, its state tells.
    pub domains: places::Places,
}

static SYSTEM: Once<System> = Once::new();
/// Free memory: exists before the system does.
pub static FRAMES: Mutex<Frames> = Mutex::new(Frames::new());

/// Makes the system known to all CPUs.
pub fn publish(system: System) -> &'static System {
    SYSTEM.call_once(|| system)
}

/// All domains that have a place, once the system is complete.
pub fn domains() -> places::All<'static> {
    get().map_or_else(places::All::default, |system| system.domains.all())
}

/// The system, once it is complete.
pub fn get() -> Option<&'static System> {
    SYSTEM.get()
}
