//! Translation tables of the VMSAv8-64 format with the 4 KiB granule.
//!
//! One builder serves three walkers, because all three read the same format: the CPU's stage 2 (domains),
//! the SMMU's stage 2 (coprocessors' DMA) and EL2's own stage 1. What differs — attribute bits, where the tables are
//! allocated, how a TLB is told — comes from the caller: attributes as a value, memory as a [`TableMemory`],
//! invalidation as a closure. So the builder touches no hardware, has no `unsafe`, and is tested
//! on the host against a model that watches every store.
//!
//! Three promises that a walker running meanwhile depends on:
//! - **Break before make** (Arm ARM DDI 0487, D8.16.1): a valid entry is never replaced by a different valid
//!   one; between the two lie an invalid one and the caller's invalidation.
//! - **Published before linked**: a new table is complete and visible before any entry points at it.
//! - **Invalidated before freed**: a table goes back to its allocator only after the invalidation of
//!   everything it translated, so no walk cache leads into reused memory.
//!
//! And one for the caller: an operation that fails leaves the translation as it was. Tables are therefore
//! reserved before anything is written. A reserve is chained through the first word of its own frames, because a heap that
//! could fail halfway, or a fixed bound, would be needed otherwise.

mod attributes;
mod geometry;
mod memory;
mod table;
#[cfg(test)]
mod tests;

pub use attributes::{
    Attributes, Shareability, Stage1Access, Stage1Attributes, Stage2Access, Stage2Attributes,
    Stage2Memory,
};
pub use geometry::{Geometry, physical_address_size, tcr_el2, vtcr_el2};
pub use memory::TableMemory;
pub use table::{Leaf, Translation, TranslationTable};

use core::ops::Range;

/// What an unmapping calls when entries of a range became invalid and before anything else is put there:
/// the walker's TLBs must not hold anything for these input addresses when it returns.
pub type Invalidate<'a> = dyn FnMut(Range<u64>) + 'a;

/// Why a table operation was refused. The translation is as it was before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TranslationError {
    /// Start, output or size isn't a multiple of 4 KiB, or the size is 0.
    #[error("range of {size:#x} bytes at {input:#x} is empty or not a multiple of 4 KiB")]
    Misaligned {
        /// Start of the range, input side.
        input: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// The range exceeds the input or the output address size.
    #[error("range of {size:#x} bytes at {input:#x} exceeds the address size")]
    OutOfRange {
        /// Start of the range, input side.
        input: u64,
        /// Its length in bytes.
        size: u64,
    },
    /// Something is mapped there already.
    #[error("{input:#x} is mapped already")]
    Overlap {
        /// The first input address that is.
        input: u64,
    },
    /// Nothing is mapped there.
    #[error("{input:#x} is not mapped")]
    NotMapped {
        /// The first input address that isn't.
        input: u64,
    },
    /// No frame left for a table.
    #[error("no memory left for translation tables")]
    OutOfMemory,
    /// The architecture has no such configuration with the 4 KiB granule.
    #[error("no tables for {input_bits} input and {output_bits} output address bits")]
    Unsupported {
        /// Input address bits.
        input_bits: u8,
        /// Output address bits.
        output_bits: u8,
    },
}
