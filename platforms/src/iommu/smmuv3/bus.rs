//! What the driver needs of the machine: registers, memory, ordering.
//!
//! The driver names memory by physical address, as the SMMU does, and leaves reaching it to this trait. So it runs on an
//! identity map at EL2 and on a model in a host test, and a non-coherent SMMU (IDR0.COHACC = 0) changes nothing in it but the
//! `coherent` argument that it passes.

use crate::translation::TableMemory;
use coproc_core::address::{HostPhysical, PAGE_SIZE};

/// Registers and memory of one SMMU.
pub trait SmmuBus: Send {
    /// Reads a 32-bit register; `offset` from the start of page 0. Page 1 is at 0x10000.
    fn read32(&mut self, offset: u64) -> u32;

    /// Writes a 32-bit register.
    fn write32(&mut self, offset: u64, value: u32);

    /// Writes a 64-bit register (two 32-bit writes, low half first, are allowed).
    fn write64(&mut self, offset: u64, value: u64);

    /// Zeroed memory: `bytes` (a multiple of 4 KiB) in one piece at a multiple of `alignment` (a power of two, at least 4 KiB).
    fn allocate(&mut self, bytes: u64, alignment: u64) -> Option<HostPhysical>;

    /// Takes memory back, in whole or one 4 KiB frame at a time.
    fn free(&mut self, start: HostPhysical, bytes: u64);

    /// Reads 8 bytes, aligned, of memory allocated from here.
    fn read_memory(&self, address: HostPhysical) -> u64;

    /// Writes 8 bytes as one single-copy atomic store.
    fn write_memory(&mut self, address: HostPhysical, value: u64);

    /// Makes these bytes visible to the SMMU, before all later stores and register writes: cleaned to the point of
    /// coherency if not `coherent`, then `dsb` (full system or outer shareable: an SMMU may be outside the inner domain).
    fn publish(&mut self, start: HostPhysical, bytes: u64, coherent: bool);

    /// The converse, before memory that the SMMU wrote is read: a `dmb` after the register read that told of it, and, if not
    /// `coherent`, these bytes invalidated.
    fn observe(&mut self, start: HostPhysical, bytes: u64, coherent: bool);
}

/// Table memory out of a bus.
pub(super) struct Tables<'a, B: SmmuBus> {
    pub(super) bus: &'a mut B,
    pub(super) coherent: bool,
}

impl<B: SmmuBus> TableMemory for Tables<'_, B> {
    fn allocate(&mut self) -> Option<HostPhysical> {
        self.bus.allocate(PAGE_SIZE, PAGE_SIZE)
    }

    fn allocate_contiguous(&mut self, frames: usize, alignment: u64) -> Option<HostPhysical> {
        let bytes = (frames as u64).checked_mul(PAGE_SIZE)?;
        self.bus.allocate(bytes, alignment)
    }

    fn free(&mut self, frame: HostPhysical) {
        self.bus.free(frame, PAGE_SIZE);
    }

    fn read(&self, descriptor: HostPhysical) -> u64 {
        self.bus.read_memory(descriptor)
    }

    fn write(&mut self, descriptor: HostPhysical, value: u64) {
        self.bus.write_memory(descriptor, value);
    }

    fn publish(&mut self, start: HostPhysical, bytes: u64) {
        self.bus.publish(start, bytes, self.coherent);
    }
}
