//! Starting CPUs and ending the machine, through the firmware.

use coproc_core::address::HostPhysical;
use smccc::{Hvc, Smc, psci};

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
pub fn cpu_on(
    conduit: Conduit,
    affinity: u64,
    entry: HostPhysical,
    argument: u64,
) -> Result<(), psci::Error> {
    match conduit {
        Conduit::Smc => psci::cpu_on::<Smc>(affinity, entry.get(), argument),
        Conduit::Hvc => psci::cpu_on::<Hvc>(affinity, entry.get(), argument),
    }
}
