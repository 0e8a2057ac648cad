//! How a driver reaches memory, when its device brings its own IOMMU.
//!
//! Such a device reads translation tables out of memory, and whoever writes those tables decides what its DMA reaches. So no
//! domain may: the driver reads what a domain wrote into its own tables, once, judges the copy, and builds tables of its own
//! from it, in memory that no domain can write. This trait is all that it needs for that, and it can name neither another domain's
//! memory nor Baton's: what leaves [`Memory::translate`] lies in the RAM of the one who asks.
//!
//! It is given to the driver once ([`Driver::connect`](crate::Driver::connect)), before the first context is made.

use crate::address::{GuestPhysical, HostPhysical};
use crate::id::VcoprocId;

/// The memory behind one coprocessor: its domains' RAM, and tables of the driver's own.
pub trait Memory: Send {
    /// Where `size` bytes of the RAM of `who`'s domain are in the machine. `None` unless every byte is RAM that belongs to that domain
    /// and they are contiguous. Any values may be asked for.
    fn translate(&self, who: VcoprocId, at: GuestPhysical, size: u64) -> Option<HostPhysical>;

    /// Copies out of the RAM of `who`'s domain, each byte once. Returns whether all of it was that domain's RAM; if not,
    /// `into` holds nothing of use.
    #[must_use]
    fn read(&self, who: VcoprocId, at: GuestPhysical, into: &mut [u8]) -> bool;

    /// Memory for tables: `size` bytes (a multiple of 4 KiB), contiguous, page-aligned, zeroed, in no domain's reach. `None`: there is none.
    fn allocate(&mut self, size: u64) -> Option<HostPhysical>;

    /// Gives memory for tables back. The device must not be able to use it any more.
    fn free(&mut self, at: HostPhysical, size: u64);

    /// Writes into memory for tables, little-endian, each word in one store. What isn't such memory isn't written.
    fn write(&mut self, at: HostPhysical, words: &[u64]);

    /// Makes what was written visible to the device: to be called before it is told of it.
    fn publish(&mut self, at: HostPhysical, size: u64);
}
