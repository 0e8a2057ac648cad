//! What CPUs get wrong, and what Baton does about it on each.
//!
//! Decided from a CPU's identity, apart from the few instructions that carry it out: no machine at hand has every core, but every decision can be
//! tested. Errata are worked around on all CPUs if one of them is affected: what it costs the healthy ones is a few instructions.
//! Compiler and linker care for Cortex-A53's 835769 and 843419 (`.cargo/config.toml`). What every core that speculates shares is in
//! [`crate::speculation`].
//!
//! Sources: Arm's Software Developer Errata Notices of the cores named; Arm ARM DDI 0487, D19.2 (MIDR_EL1).

use bitflags::bitflags;
use core::fmt;

/// MIDR_EL1: which core this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Midr(pub u64);

pub(crate) const CORTEX_A53: u64 = 0xd03;
pub(crate) const CORTEX_A35: u64 = 0xd04;
pub(crate) const CORTEX_A55: u64 = 0xd05;
pub(crate) const CORTEX_A57: u64 = 0xd07;
const CORTEX_A72: u64 = 0xd08;
pub(crate) const CORTEX_A76: u64 = 0xd0b;

impl Midr {
    /// Whether it is this core of Arm's, from one revision (variant, revision) to another, both included.
    fn is(self, part: u64, from: (u64, u64), to: (u64, u64)) -> bool {
        const ARM: u64 = 0x41;
        let revision = (self.0 >> 20 & 0xf, self.0 & 0xf);
        self.0 >> 24 & 0xff == ARM && self.0 >> 4 & 0xfff == part && (from..=to).contains(&revision)
    }

    pub(crate) fn is_any(self, part: u64) -> bool {
        self.is(part, (0, 0), (15, 15))
    }
}

bitflags! {
    /// Errata that Baton works around.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Errata: u8 {
        /// Cortex-A57 834220: a fault of stage 2 may be reported where stage 1 has one, with an address that means nothing.
        const STAGE2_FAULT_ADDRESS = 1 << 0;
        /// Cortex-A57 1319537, A72 1319367, A53 1530924, A55 1530923, A76 1165522: a speculative address translation while a vCPU's registers are only in part
        /// in the CPU leaves an entry in the TLB that is neither guest's.
        const SPECULATIVE_TRANSLATION = 1 << 1;
        /// Cortex-A53 819472, 824069, 826319, 827319 (to r0p2) and 855873: `DC CVAC` may be overtaken by an eviction, corrupt data, or hang the
        /// interconnect; `DC CIVAC` does none of it. From r0p3 on firmware may make the one the other (CPUACTLR_EL1.ENDCCASCI), but can't
        /// be asked whether it did.
        const CACHE_CLEANING = 1 << 2;
    }
}

impl Errata {
    /// What this core has.
    pub fn of(midr: Midr) -> Self {
        let mut found = Self::empty();
        found.set(
            Self::STAGE2_FAULT_ADDRESS,
            midr.is(CORTEX_A57, (0, 0), (1, 2)),
        );
        found.set(
            Self::SPECULATIVE_TRANSLATION,
            midr.is_any(CORTEX_A57)
                || midr.is_any(CORTEX_A72)
                || midr.is_any(CORTEX_A53)
                || midr.is(CORTEX_A55, (0, 0), (2, 0))
                || midr.is(CORTEX_A76, (0, 0), (2, 0)),
        );
        found.set(Self::CACHE_CLEANING, midr.is_any(CORTEX_A53));
        found
    }
}

impl fmt::Display for Errata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none known");
        }
        let mut separator = "";
        for erratum in self.iter() {
            let name = match erratum {
                Self::STAGE2_FAULT_ADDRESS => "stage 2 fault address",
                Self::SPECULATIVE_TRANSLATION => "speculative translation",
                _ => "cache cleaning",
            };
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use alloc::string::ToString;

    pub(crate) fn arm(part: u64, variant: u64, revision: u64) -> Midr {
        Midr(0x41 << 24 | variant << 20 | 0xf << 16 | part << 4 | revision)
    }

    #[test]
    fn errata_end_with_the_revision_that_mends_them() {
        let translation = Errata::SPECULATIVE_TRANSLATION;
        let both = translation | Errata::STAGE2_FAULT_ADDRESS;
        let in_order = translation | Errata::CACHE_CLEANING;
        for (midr, expected) in [
            (arm(CORTEX_A57, 0, 0), both),
            (arm(CORTEX_A57, 1, 0), both),
            (arm(CORTEX_A57, 1, 2), both),
            (arm(CORTEX_A57, 1, 3), translation),
            (arm(CORTEX_A72, 0, 3), translation),
            (arm(CORTEX_A72, 1, 0), translation),
            (arm(CORTEX_A55, 2, 0), translation),
            (arm(CORTEX_A55, 2, 1), Errata::empty()),
            (arm(CORTEX_A76, 2, 0), translation),
            (arm(CORTEX_A76, 3, 0), Errata::empty()),
            (arm(CORTEX_A53, 0, 0), in_order),
            (arm(CORTEX_A53, 0, 2), in_order),
            (arm(CORTEX_A53, 0, 4), in_order),
            (arm(CORTEX_A35, 0, 0), Errata::empty()),
            // Another implementer's part of the same number.
            (
                Midr(arm(CORTEX_A57, 0, 0).0 & !(0xff << 24)),
                Errata::empty(),
            ),
        ] {
            assert_eq!(Errata::of(midr), expected, "{:#x}", midr.0);
        }
    }

    #[test]
    fn errata_are_named() {
        assert_eq!(Errata::empty().to_string(), "none known");
        assert_eq!(
            Errata::all().to_string(),
            "stage 2 fault address, speculative translation, cache cleaning"
        );
    }
}
