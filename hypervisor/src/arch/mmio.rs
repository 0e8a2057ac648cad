//! Ranges of device registers, and the only accesses to them.

use super::access;
use coproc_core::address::HostPhysical;
use coproc_core::register::Width;

/// A mapped range of device registers.
#[derive(Clone, Copy, Debug)]
pub struct Region {
    base: usize,
    size: usize,
}

impl Region {
    /// The region at `physical`, `size` bytes, once `mmu` mapped it at `virtual_address` as device memory.
    pub(super) const fn new(virtual_address: usize, size: usize) -> Self {
        Self {
            base: virtual_address,
            size,
        }
    }

    /// Size in bytes.
    pub const fn size(&self) -> u64 {
        self.size as u64
    }

    /// Virtual address of the region's start, for crates that want a pointer.
    pub(in crate::arch) const fn virtual_address(&self) -> usize {
        self.base
    }

    #[inline]
    fn at(&self, offset: u64, width: Width) -> Option<usize> {
        let offset = usize::try_from(offset).ok()?;
        let bytes = width.bytes() as usize;
        let end = offset.checked_add(bytes)?;
        (end <= self.size && offset % bytes == 0).then_some(self.base + offset)
    }

    /// Reads a register; all-ones outside the region or misaligned.
    #[inline]
    pub fn read(&self, offset: u64, width: Width) -> u64 {
        let Some(address) = self.at(offset, width) else {
            return width.mask();
        };
        // SAFETY: `at` checked that the access lies within a region mapped as device memory for as long as Baton runs.
        let value = unsafe { access::load(address, width) };
        value & width.mask()
    }

    /// Writes a register; ignored outside the region or misaligned.
    #[inline]
    pub fn write(&self, offset: u64, width: Width, value: u64) {
        let Some(address) = self.at(offset, width) else {
            return;
        };
        // SAFETY: as for `read`; that the device does no harm with the value is what the IOMMU is for.
        unsafe { access::store(address, width, value) };
    }

    /// Reads a 32-bit register.
    #[inline]
    pub fn read32(&self, offset: u64) -> u32 {
        self.read(offset, Width::Word) as u32
    }

    /// Writes a 32-bit register.
    #[inline]
    pub fn write32(&self, offset: u64, value: u32) {
        self.write(offset, Width::Word, u64::from(value));
    }
}

/// Where device registers of the machine appear at EL2: at a fixed distance from their physical address.
pub const fn device_address(physical: HostPhysical) -> usize {
    super::mmu::DEVICE_BASE + physical.get() as usize
}
