//! Where tables live: the one thing the builder needs from the outside.
//!
//! The builder never holds a pointer. It names descriptors by their physical address, and whoever implements this trait
//! decides how to reach them: an identity map at EL2, a vector in a test. That the walker may be another observer, even one
//! that doesn't snoop caches (an SMMU with COHACC = 0), is the implementation's knowledge too: hence [`publish`](TableMemory::publish).

use coproc_core::address::HostPhysical;

/// Memory for translation tables, in frames of 4 KiB.
pub trait TableMemory {
    /// A zeroed frame, or `None` if there is none left.
    fn allocate(&mut self) -> Option<HostPhysical>;

    /// `frames` adjacent zeroed frames at a multiple of `alignment` bytes (a power of two), for concatenated root tables.
    /// They are given back one by one through [`free`](TableMemory::free).
    fn allocate_contiguous(&mut self, frames: usize, alignment: u64) -> Option<HostPhysical>;

    /// Takes a frame back. Its content is no longer zero.
    fn free(&mut self, frame: HostPhysical);

    /// Reads a descriptor. `descriptor` is a multiple of 8 within a frame allocated from here.
    fn read(&self, descriptor: HostPhysical) -> u64;

    /// Writes a descriptor as one single-copy atomic 64-bit store, so that a walker sees the old value or the new one.
    fn write(&mut self, descriptor: HostPhysical, value: u64);

    /// Makes the stores to these bytes visible to the walker, in order before all later stores: cleaned to the point of
    /// coherency if the walk isn't coherent, then `dsb ishst` (`dsb st` for a walker outside the inner shareable domain).
    fn publish(&mut self, start: HostPhysical, bytes: u64);
}
