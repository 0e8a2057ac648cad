//! What CPUs get wrong, and what Baton does about it on each.
//!
//! Decided from a CPU's identity and its firmware's answers, apart from the few instructions that carry it out: no machine at hand has every
//! core, but every decision can be tested. Errata are worked around on all CPUs if one of them is affected: a vCPU goes from one kind to the
//! other, and what it costs the healthy ones is a few instructions. Linkers care for Cortex-A53's 843419 (`--fix-cortex-a53-843419`, part
//! of the target).
//!
//! Sources: Arm's Software Developer Errata Notices of the cores named; Arm DEN 0028 (SMCCC 1.2), 7; Arm ARM DDI 0487, D19.2 (MIDR_EL1,
//! ID_AA64PFR0_EL1.CSV2).

use bitflags::bitflags;
use core::fmt;

/// MIDR_EL1: which core this is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Midr(pub u64);

const CORTEX_A53: u64 = 0xd03;
const CORTEX_A35: u64 = 0xd04;
const CORTEX_A55: u64 = 0xd05;
const CORTEX_A57: u64 = 0xd07;
const CORTEX_A72: u64 = 0xd08;
const CORTEX_A76: u64 = 0xd0b;

impl Midr {
    /// Whether it is this core of Arm's, from one revision (variant, revision) to another, both included.
    fn is(self, part: u64, from: (u64, u64), to: (u64, u64)) -> bool {
        const ARM: u64 = 0x41;
        let revision = (self.0 >> 20 & 0xf, self.0 & 0xf);
        self.0 >> 24 & 0xff == ARM && self.0 >> 4 & 0xfff == part && (from..=to).contains(&revision)
    }

    fn is_any(self, part: u64) -> bool {
        self.is(part, (0, 0), (15, 15))
    }
}

bitflags! {
    /// Errata that Baton works around.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Errata: u8 {
        /// Cortex-A57 834220: a fault of stage 2 may be reported where stage 1 has one, with an address that means nothing.
        const STAGE2_FAULT_ADDRESS = 1 << 0;
        /// Cortex-A57 1319537, A72 1319367, A55 1530923, A76 1165522: a speculative address translation while a vCPU's registers are only in part
        /// in the CPU leaves an entry in the TLB that is neither guest's.
        const SPECULATIVE_TRANSLATION = 1 << 1;
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
                || midr.is(CORTEX_A55, (0, 0), (2, 0))
                || midr.is(CORTEX_A76, (0, 0), (2, 0)),
        );
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
                _ => "speculative translation",
            };
            write!(f, "{separator}{name}")?;
            separator = ", ";
        }
        Ok(())
    }
}

/// What the configuration wants against branch target injection (Spectre variant 2, CVE-2017-5715): `baton,branch-hardening`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Hardening {
    /// What the cores need and the firmware offers.
    #[default]
    Auto,
    /// The firmware is called at every exit of a guest, whatever it says about itself.
    On,
    /// It's never called.
    Off,
}

impl Hardening {
    /// The values of the property.
    pub const NAMES: &str = "\"auto\", \"on\" or \"off\"";

    /// By its name.
    pub fn by_name(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::Auto),
            "on" => Some(Self::On),
            "off" => Some(Self::Off),
            _ => None,
        }
    }
}

/// What firmware answers when asked for SMCCC_ARCH_WORKAROUND_1 on this CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Offer {
    /// It has none, or there is no firmware to ask.
    None,
    /// To be called.
    Call,
    /// This CPU needs no call.
    Unneeded,
}

/// What a CPU does about its branch predictor when a guest exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchPredictor {
    /// Nothing: the core isn't affected.
    Immune,
    /// The firmware is called before anything that could be misled.
    Firmware,
    /// Nothing: the core may be affected, and the firmware has no remedy.
    Exposed,
    /// Nothing, as configured.
    Off,
}

impl BranchPredictor {
    /// What to do on this core (`features`: ID_AA64PFR0_EL1).
    pub fn policy(midr: Midr, features: u64, offer: Offer, wanted: Hardening) -> Self {
        let own_contexts = features >> 56 & 0xf != 0;
        let in_order =
            midr.is_any(CORTEX_A35) || midr.is_any(CORTEX_A53) || midr.is_any(CORTEX_A55);
        match wanted {
            Hardening::On => Self::Firmware,
            _ if own_contexts || in_order || offer == Offer::Unneeded => Self::Immune,
            Hardening::Off => Self::Off,
            Hardening::Auto if offer == Offer::Call => Self::Firmware,
            Hardening::Auto => Self::Exposed,
        }
    }
}

impl fmt::Display for BranchPredictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Immune => "not affected",
            Self::Firmware => "firmware is called at each exit",
            Self::Exposed => "exposed, firmware has no remedy",
            Self::Off => "left alone, as configured",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn arm(part: u64, variant: u64, revision: u64) -> Midr {
        Midr(0x41 << 24 | variant << 20 | 0xf << 16 | part << 4 | revision)
    }

    #[test]
    fn errata_end_with_the_revision_that_mends_them() {
        let both = Errata::all();
        let translation = Errata::SPECULATIVE_TRANSLATION;
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
            (arm(CORTEX_A53, 0, 4), Errata::empty()),
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
            "stage 2 fault address, speculative translation"
        );
    }

    #[test]
    fn the_branch_predictor_gets_what_the_core_needs() {
        use BranchPredictor::{Exposed, Firmware, Immune, Off};
        let csv2 = 1 << 56;
        let a57 = arm(CORTEX_A57, 1, 3);
        let a53 = arm(CORTEX_A53, 0, 4);
        for (midr, features, offer, wanted, expected) in [
            (a57, 0, Offer::Call, Hardening::Auto, Firmware),
            (a57, 0, Offer::None, Hardening::Auto, Exposed),
            (a57, 0, Offer::Unneeded, Hardening::Auto, Immune),
            (a57, csv2, Offer::Call, Hardening::Auto, Immune),
            (a53, 0, Offer::None, Hardening::Auto, Immune),
            (a57, 0, Offer::Call, Hardening::Off, Off),
            (a53, 0, Offer::Call, Hardening::Off, Immune),
            (a57, csv2, Offer::None, Hardening::On, Firmware),
        ] {
            let policy = BranchPredictor::policy(midr, features, offer, wanted);
            assert_eq!(
                policy, expected,
                "{midr:x?} {features:#x} {offer:?} {wanted:?}"
            );
        }
    }

    #[test]
    fn hardening_has_three_names() {
        assert_eq!(Hardening::by_name("auto"), Some(Hardening::Auto));
        assert_eq!(Hardening::by_name("on"), Some(Hardening::On));
        assert_eq!(Hardening::by_name("off"), Some(Hardening::Off));
        assert_eq!(Hardening::by_name("yes"), None);
    }
}
