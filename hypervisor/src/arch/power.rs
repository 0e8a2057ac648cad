//! Starting the other CPUs: through the firmware, or by the word of memory that they poll.

use super::memory;
use super::processor::{Hvc, Smc, This};
use coproc_core::address::HostPhysical;
use hypervisor::processor::signals;
use smccc::psci;

/// How the firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// By `smc`: firmware at EL3.
    Smc,
    /// By `hvc`: a hypervisor below us.
    Hvc,
}

/// Starts the CPU with this affinity at a physical address.
///
/// # Errors
/// What the firmware answered.
pub fn cpu_on(conduit: Conduit, affinity: u64, entry: HostPhysical) -> Result<(), psci::Error> {
    match conduit {
        Conduit::Smc => psci::cpu_on::<Smc>(affinity, entry.get(), 0),
        Conduit::Hvc => psci::cpu_on::<Hvc>(affinity, entry.get(), 0),
    }
}

/// Starts the CPU that polls the word at `release` (Devicetree Specification v0.4, 3.8.1) at a physical address. Returns whether the word
/// could be written: it must be RAM, 8 bytes aligned.
pub fn release(release: HostPhysical, entry: HostPhysical) -> bool {
    memory::write64(release, entry.get());
    // The CPU may poll with its MMU and caches off.
    memory::clean(release, 8);
    signals::wake(&mut This);
    memory::read64(release) == entry.get()
}
