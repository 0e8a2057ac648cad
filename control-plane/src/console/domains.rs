//! What the console tells about domains, and about memory.

use crate::lifecycle::{Crash, State};
use arrayvec::ArrayVec;
use coproc_core::id::{CoprocId, DomainId};
use core::fmt;

/// One domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainReport {
    /// Its id.
    pub id: DomainId,
    /// Its state.
    pub state: State,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// RAM in MiB.
    pub memory_mib: u64,
    /// The CPUs its vCPUs run on: bit n is CPU n, counted as the device tree lists them.
    pub cpus: u64,
    /// The coprocs it shares.
    pub coprocs: ArrayVec<CoprocId, 16>,
}

impl DomainReport {
    const fn reason(&self) -> Option<Crash> {
        match self.state {
            State::Crashed(why) => Some(why),
            _ => None,
        }
    }
}

impl fmt::Display for DomainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            state,
            vcpus,
            memory_mib,
            ..
        } = self;
        write!(
            f,
            "domain id={id} state={state} vcpus={vcpus} memory_mib={memory_mib}"
        )?;
        f.write_str(" cpus=")?;
        write_list(
            f,
            (0..u64::BITS).filter(|cpu| self.cpus.wrapping_shr(*cpu) & 1 != 0),
        )?;
        f.write_str(" coprocs=")?;
        write_list(f, self.coprocs.iter().map(|coproc| coproc.0))?;
        match self.reason() {
            Some(why) => write!(f, " reason={why}"),
            None => f.write_str(" reason=-"),
        }
    }
}

fn write_list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = u32>) -> fmt::Result {
    let mut separator = "";
    for item in items {
        write!(f, "{separator}{item}")?;
        separator = ",";
    }
    if separator.is_empty() {
        f.write_str("-")
    } else {
        Ok(())
    }
}

/// What Baton has and uses, besides what belongs to domains.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct MemoryReport {
    /// Free bytes of RAM.
    pub free: u64,
    /// Bytes in use of Baton's own heap.
    pub heap: u64,
    /// Address spaces of the IOMMU.
    pub spaces: u64,
    /// VMIDs of firmware.
    pub firmware_vmids: u64,
    /// Whether something that was given back waits to be free: scrubbed, or forgotten by the IOMMU.
    pub pending: bool,
    /// VMIDs of domains.
    pub domain_vmids: u64,
}

impl fmt::Display for MemoryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            free,
            heap,
            spaces,
            firmware_vmids,
            pending,
            domain_vmids,
        } = self;
        write!(
            f,
            "memory free_bytes={free} heap_bytes={heap} spaces={spaces} firmware_vmids={firmware_vmids} pending={} \
             domain_vmids={domain_vmids}",
            u8::from(*pending)
        )
    }
}
