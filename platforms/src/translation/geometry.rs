//! Shape of a tree of tables, and the register fields that tell a walker about it.
//!
//! Stage 2 may save its first level by *concatenation*: up to 16 tables side by side as one root (Arm ARM DDI 0487,
//! D8.2.2 and the SL0 table of VTCR_EL2). It isn't only an optimisation: where the physical address has fewer than 44 bits, starting
//! at level 0 isn't allowed. So a 40-bit IPA starts at level 1 with two root tables. Below
//! 35 bits one could start at level 2, too; level 1 is kept down to 31 bits because only it has 1 GiB blocks.

use super::TranslationError;
use coproc_core::address::PAGE_SIZE;

/// Bits that an index into one table has.
const INDEX_BITS: u32 = 9;

/// Shape of a tree of tables with the 4 KiB granule.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    input_bits: u8,
    output_bits: u8,
    start_level: u8,
}

impl Geometry {
    /// Stage 2: `ipa_bits` of input, 25 to 48, on a machine with `pa_bits` of physical address.
    /// The latter is rounded down to a size that has an encoding, and limited to 48 bits, since the 4 KiB granule has no more without FEAT_LPA2.
    ///
    /// # Errors
    /// [`TranslationError::Unsupported`], also for an input larger than the physical address (not allowed at stage 2).
    pub const fn stage2(ipa_bits: u8, pa_bits: u8) -> Result<Self, TranslationError> {
        let start_level = match ipa_bits {
            25..=30 => 2,
            31..=43 => 1,
            44..=48 => 0,
            _ => return unsupported(ipa_bits, pa_bits),
        };
        let output_bits = output_bits(pa_bits);
        if pa_bits < 32 || pa_bits > 52 || ipa_bits > output_bits {
            return unsupported(ipa_bits, pa_bits);
        }
        Ok(Self {
            input_bits: ipa_bits,
            output_bits,
            start_level,
        })
    }

    /// Stage 1: `input_bits` of virtual address, 25 to 48 (48 is the natural choice for EL2).
    ///
    /// # Errors
    /// [`TranslationError::Unsupported`].
    pub const fn stage1(input_bits: u8, pa_bits: u8) -> Result<Self, TranslationError> {
        let start_level = match input_bits {
            25..=30 => 2,
            31..=39 => 1,
            40..=48 => 0,
            _ => return unsupported(input_bits, pa_bits),
        };
        if pa_bits < 32 || pa_bits > 52 {
            return unsupported(input_bits, pa_bits);
        }
        Ok(Self {
            input_bits,
            output_bits: output_bits(pa_bits),
            start_level,
        })
    }

    /// Bits of an input address.
    pub const fn input_bits(self) -> u8 {
        self.input_bits
    }

    /// Bits of an output address, at most 48.
    pub const fn output_bits(self) -> u8 {
        self.output_bits
    }

    /// Level that a walk starts at, 0 to 2.
    pub const fn start_level(self) -> u8 {
        self.start_level
    }

    /// First input address past the end.
    pub const fn input_end(self) -> u64 {
        1u64.wrapping_shl(self.input_bits as u32)
    }

    /// First output address past the end.
    pub const fn output_end(self) -> u64 {
        1u64.wrapping_shl(self.output_bits as u32)
    }

    /// Number of 4 KiB tables that make up the root: 1, or 2 to 16 concatenated ones.
    pub const fn root_frames(self) -> usize {
        let resolved = level_shift(self.start_level).wrapping_add(INDEX_BITS);
        1usize.wrapping_shl((self.input_bits as u32).saturating_sub(resolved))
    }

    /// Alignment of the root, in bytes: its size.
    pub const fn root_alignment(self) -> u64 {
        (self.root_frames() as u64).wrapping_mul(PAGE_SIZE)
    }

    /// T0SZ for VTCR_EL2, TCR_EL2 or an SMMU's STE.S2T0SZ.
    pub const fn t0sz(self) -> u64 {
        64u64.wrapping_sub(self.input_bits as u64)
    }

    /// SL0 for VTCR_EL2 or an SMMU's STE.S2SL0: 0 starts at level 2, 1 at level 1, 2 at level 0.
    pub const fn sl0(self) -> u64 {
        2u64.wrapping_sub(self.start_level as u64)
    }
}

const fn unsupported(input_bits: u8, output_bits: u8) -> Result<Geometry, TranslationError> {
    Err(TranslationError::Unsupported {
        input_bits,
        output_bits,
    })
}

/// log2 of the bytes that one entry of a table of this level covers.
pub(super) const fn level_shift(level: u8) -> u32 {
    match level {
        0 => 39,
        1 => 30,
        2 => 21,
        _ => 12,
    }
}

/// The encoding of a physical address size: ID_AA64MMFR0_EL1.PARange, TCR_EL2.PS, VTCR_EL2.PS, SMMU_IDR5.OAS, STE.S2PS.
/// Sizes between two steps are rounded down, those over 48 bits to 48.
pub const fn physical_address_size(bits: u8) -> u64 {
    match bits {
        0..=35 => 0,
        36..=39 => 1,
        40..=41 => 2,
        42..=43 => 3,
        44..=47 => 4,
        _ => 5,
    }
}

/// What [`physical_address_size`] encodes, in bits again.
const fn output_bits(pa_bits: u8) -> u8 {
    match physical_address_size(pa_bits) {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// Walks: write-back write-allocate (IRGN0, ORGN0), inner shareable (SH0), 4 KiB granule (TG0 = 0).
const COHERENT_WALK: u64 = 0b01 << 8 | 0b01 << 10 | 0b11 << 12;

/// VTCR_EL2 for stage 2 tables of this shape: T0SZ, SL0, IRGN0, ORGN0, SH0, TG0, PS; bit 31 RES1; VMIDs of 8 bits (VS = 0).
pub const fn vtcr_el2(geometry: Geometry) -> u64 {
    geometry.t0sz()
        | geometry.sl0() << 6
        | COHERENT_WALK
        | physical_address_size(geometry.output_bits) << 16
        | 1 << 31
}

/// TCR_EL2 (E2H = 0) for stage 1 tables of this shape: T0SZ, IRGN0, ORGN0, SH0, TG0, PS; bits 23 and 31 RES1.
pub const fn tcr_el2(geometry: Geometry) -> u64 {
    geometry.t0sz()
        | COHERENT_WALK
        | physical_address_size(geometry.output_bits) << 16
        | 1 << 23
        | 1 << 31
}
