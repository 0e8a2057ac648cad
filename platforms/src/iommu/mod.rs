//! IOMMUs: what confines a coprocessor's DMA to one domain's memory.
//!
//! Each kind implements [`coproc_core::Iommu`] and is a feature of this crate, so a board compiles in only what it has.

#[cfg(feature = "smmuv3")]
pub mod smmuv3;
