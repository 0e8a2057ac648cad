//! The physical PCI configuration space: ECAM.

use crate::arch::mmio::Region;
use coproc_core::register::Width;
use hypervisor::vpci::{ConfigAccess, FunctionAddress};

/// ECAM of one host bridge.
pub struct ConfigSpace {
    region: Region,
    first_bus: u8,
}

impl ConfigSpace {
    /// The mapped ECAM that begins with `first_bus`.
    pub const fn new(region: Region, first_bus: u8) -> Self {
        Self { region, first_bus }
    }

    fn offset(&self, function: FunctionAddress, offset: u16) -> Option<u64> {
        let first = u64::from(self.first_bus) << 20;
        function
            .ecam_offset()
            .checked_sub(first)?
            .checked_add(u64::from(offset & 0xffc))
    }
}

impl ConfigAccess for ConfigSpace {
    fn read32(&mut self, function: FunctionAddress, offset: u16) -> u32 {
        self.offset(function, offset).map_or(u32::MAX, |offset| {
            self.region.read(offset, Width::Word) as u32
        })
    }

    fn write32(&mut self, function: FunctionAddress, offset: u16, value: u32) {
        if let Some(offset) = self.offset(function, offset) {
            self.region.write(offset, Width::Word, u64::from(value));
        }
    }
}
