//! What the console tells about devices that one domain has for itself.

use coproc_core::address::DeviceAddress;
use coproc_core::id::DomainId;
use core::fmt;

/// One device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceReport {
    /// Whose.
    pub domain: DomainId,
    /// What it is called in the configuration.
    pub name: &'static str,
    /// Whether the domain has it now; else nobody has.
    pub given: bool,
    /// Physical interrupts taken.
    pub interrupts: u64,
    /// IOMMU faults of its streams.
    pub faults: u64,
    /// Where the last one was.
    pub last_fault: Option<DeviceAddress>,
}

impl fmt::Display for DeviceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            name,
            given,
            interrupts,
            faults,
            last_fault,
        } = self;
        write!(
            f,
            "device domain={domain} name={name} given={} interrupts={interrupts} iommu_faults={faults} last_fault_address=",
            u8::from(*given)
        )?;
        match last_fault {
            Some(address) => write!(f, "{address}"),
            None => f.write_str("-"),
        }
    }
}
