//! What CPUs leak by speculating, and what Baton and its domains do about it: branch target injection (Spectre variant 2), speculative store bypass
//! (variant 4) and branch history injection (Spectre-BHB).
//!
//! Decided from a CPU's identity and its firmware's answers, so that every answer can be tested although no firmware at hand gives it. Domains
//! are told what holds for all CPUs, since their vCPUs may be on any. The mitigation of store bypass, where the firmware can switch it, stays on for
//! everybody, as KVM has it since Linux 5.10: domains are told that they need no call. A kernel that may switch it does so at each of its own
//! entries and exits, which here would each be an exit to EL2 and a call of EL3; and Baton would have to switch it at each exit as well.
//!
//! Sources: Arm DEN 0028 (SMCCC 1.4), 7 (SMCCC_ARCH_FEATURES, SMCCC_ARCH_WORKAROUND_1 to 3); Arm ARM DDI 0487, D19.2 (ID_AA64PFR0_EL1.CSV2);
//! Arm's "Cache Speculation Side-channels" and "Spectre-BHB" for the cores that aren't affected.

use crate::errata::{CORTEX_A35, CORTEX_A53, CORTEX_A55, Midr};
use core::fmt;

/// SMCCC's NOT_SUPPORTED.
pub const NOT_SUPPORTED: i32 = -1;
/// SMCCC's NOT_REQUIRED: nothing to call, on any CPU.
const NOT_REQUIRED: i32 = -2;
/// This CPU isn't affected; a call does no harm.
const UNAFFECTED: i32 = 1;

const SMCCC_VERSION: u32 = 0x8000_0000;
const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// The first version with SMCCC_ARCH_FEATURES.
const SMCCC_1_1: i32 = 0x0001_0001;

/// A call of the firmware against one vulnerability; the number is its function identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Workaround {
    /// SMCCC_ARCH_WORKAROUND_1: branch target injection (CVE-2017-5715).
    BranchTarget = 0x8000_8000,
    /// SMCCC_ARCH_WORKAROUND_2: speculative store bypass (CVE-2018-3639).
    StoreBypass = 0x8000_7fff,
    /// SMCCC_ARCH_WORKAROUND_3: branch history injection (CVE-2022-23960), and branch target injection.
    BranchHistory = 0x8000_3fff,
}

impl Workaround {
    /// By its function identifier.
    pub const fn by_id(id: u32) -> Option<Self> {
        match id {
            0x8000_8000 => Some(Self::BranchTarget),
            0x8000_7fff => Some(Self::StoreBypass),
            0x8000_3fff => Some(Self::BranchHistory),
            _ => None,
        }
    }
}

/// What there is against a vulnerability: on one CPU, or on all, where the last of these counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Remedy {
    /// Nothing is needed.
    #[default]
    Unneeded,
    /// The firmware's call.
    Call,
    /// Nothing that is known of.
    None,
}

/// What there is against each vulnerability.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Remedies {
    /// Branch target injection.
    pub branch_target: Remedy,
    /// Speculative store bypass. The call has been made where there is one.
    pub store_bypass: Remedy,
    /// Branch history injection.
    pub branch_history: Remedy,
}

impl Remedies {
    /// What there is on this CPU (`features`: ID_AA64PFR0_EL1). `firmware` is called with a function identifier and an argument, and
    /// answers NOT_SUPPORTED if there is none. Switches the mitigation of store bypass on if that can be switched.
    pub fn find(midr: Midr, features: u64, mut firmware: impl FnMut(u32, u32) -> i32) -> Self {
        let in_order =
            midr.is_any(CORTEX_A35) || midr.is_any(CORTEX_A53) || midr.is_any(CORTEX_A55);
        if in_order {
            return Self::default();
        }
        let can_be_asked = firmware(SMCCC_VERSION, 0) >= SMCCC_1_1;
        let mut ask = |workaround| {
            if !can_be_asked {
                return Remedy::None;
            }
            match (firmware(SMCCC_ARCH_FEATURES, workaround as u32), workaround) {
                (0, Workaround::StoreBypass) => {
                    firmware(workaround as u32, 1);
                    Remedy::Call
                }
                (0, _) => Remedy::Call,
                (UNAFFECTED, _) | (NOT_REQUIRED, Workaround::StoreBypass) => Remedy::Unneeded,
                _ => Remedy::None,
            }
        };
        // CSV2: 1 and 2, branch targets of one context don't serve another; 3, nor does branch history.
        let (own_targets, own_history) = match features >> 56 & 0xf {
            0 => (false, false),
            1 | 2 => (true, false),
            _ => (true, true),
        };
        let unless = |safe, remedy| if safe { Remedy::Unneeded } else { remedy };
        Self {
            branch_target: unless(own_targets, ask(Workaround::BranchTarget)),
            store_bypass: ask(Workaround::StoreBypass),
            branch_history: unless(own_history, ask(Workaround::BranchHistory)),
        }
    }

    /// What there is on CPUs of both kinds.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            branch_target: self.branch_target.max(other.branch_target),
            store_bypass: self.store_bypass.max(other.store_bypass),
            branch_history: self.branch_history.max(other.branch_history),
        }
    }

    /// What SMCCC_ARCH_FEATURES tells a domain about a call.
    pub const fn answer(&self, workaround: Workaround) -> i32 {
        match (self.against(workaround), workaround) {
            // Where PSTATE.SSBS is all there is, the domain has that itself, and is told as much: its ID registers show it.
            (Remedy::None, _) => NOT_SUPPORTED,
            (_, Workaround::StoreBypass) => NOT_REQUIRED,
            (Remedy::Call, _) => 0,
            (Remedy::Unneeded, _) => UNAFFECTED,
        }
    }

    /// What there is against what a call is for.
    pub const fn against(&self, workaround: Workaround) -> Remedy {
        match workaround {
            Workaround::BranchTarget => self.branch_target,
            Workaround::StoreBypass => self.store_bypass,
            Workaround::BranchHistory => self.branch_history,
        }
    }
}

/// What the configuration wants against branches that a guest has trained: `baton,branch-hardening`.
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

/// What a CPU does about its branch predictor when a guest exits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BranchPredictor {
    /// Nothing: the core isn't affected.
    Immune,
    /// The firmware is called before anything that could be misled.
    Firmware(Workaround),
    /// Nothing: the core may be affected, and the firmware has no remedy.
    Exposed,
    /// Nothing, as configured.
    Off,
}

impl BranchPredictor {
    /// What to do on a CPU with these remedies.
    pub const fn policy(remedies: Remedies, wanted: Hardening) -> Self {
        use Remedy::{Call, Unneeded};
        // The later call does what the earlier one does, too; and where there is only that, it leaves no history either (Cortex-A57, A72).
        match (wanted, remedies.branch_target, remedies.branch_history) {
            (Hardening::On, _, Call) => Self::Firmware(Workaround::BranchHistory),
            (Hardening::On, ..) => Self::Firmware(Workaround::BranchTarget),
            (_, Unneeded, Unneeded) => Self::Immune,
            (Hardening::Off, ..) => Self::Off,
            (Hardening::Auto, _, Call) => Self::Firmware(Workaround::BranchHistory),
            (Hardening::Auto, Call, _) => Self::Firmware(Workaround::BranchTarget),
            (Hardening::Auto, ..) => Self::Exposed,
        }
    }
}

impl fmt::Display for BranchPredictor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Immune => "not affected",
            Self::Firmware(_) => "firmware is called at each exit",
            Self::Exposed => "exposed, firmware has no remedy",
            Self::Off => "left alone, as configured",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errata::tests::arm;
    use crate::errata::{CORTEX_A57, CORTEX_A76};
    use alloc::vec::Vec;

    const TARGET: u32 = 0x8000_8000;
    const STORE: u32 = 0x8000_7fff;
    const HISTORY: u32 = 0x8000_3fff;

    /// Firmware of this version that answers this about the three calls.
    struct Firmware {
        version: i32,
        about: [i32; 3],
        /// Calls but those that only ask.
        calls: Vec<(u32, u32)>,
    }

    impl Firmware {
        const fn new(about: [i32; 3]) -> Self {
            Self {
                version: 0x1_0002,
                about,
                calls: Vec::new(),
            }
        }

        fn call(&mut self, function: u32, argument: u32) -> i32 {
            match (function, argument) {
                (0x8000_0000, _) => self.version,
                (0x8000_0001, TARGET) => self.about[0],
                (0x8000_0001, STORE) => self.about[1],
                (0x8000_0001, HISTORY) => self.about[2],
                call => {
                    self.calls.push(call);
                    0
                }
            }
        }

        fn on(&mut self, midr: Midr, csv2: u64) -> Remedies {
            Remedies::find(midr, csv2 << 56, |function, argument| {
                self.call(function, argument)
            })
        }
    }

    const fn all(remedy: Remedy) -> Remedies {
        Remedies {
            branch_target: remedy,
            store_bypass: remedy,
            branch_history: remedy,
        }
    }

    fn answers(remedies: Remedies) -> [i32; 3] {
        [TARGET, STORE, HISTORY].map(|id| remedies.answer(Workaround::by_id(id).unwrap()))
    }

    fn a57() -> Midr {
        arm(CORTEX_A57, 1, 3)
    }

    #[test]
    fn each_answer_of_the_firmware_becomes_one_for_domains() {
        // What it says about each, and what a domain is told.
        for (about, told) in [
            ([0; 3], [0, -2, 0]),
            ([1; 3], [1, -2, 1]),
            ([-1; 3], [-1; 3]),
            // Only defined for the call in the middle.
            ([-2; 3], [-1, -2, -1]),
            ([-3; 3], [-1; 3]),
            ([2; 3], [-1; 3]),
            ([i32::MIN; 3], [-1; 3]),
            ([0, -2, 0], [0, -2, 0]),
            ([0, -1, -1], [0, -1, -1]),
            ([1, 0, -1], [1, -2, -1]),
            ([-1, 1, 0], [-1, -2, 0]),
        ] {
            let remedies = Firmware::new(about).on(a57(), 0);
            assert_eq!(answers(remedies), told, "{about:?}");
        }
    }

    #[test]
    fn the_mitigation_of_store_bypass_is_switched_on_where_it_can_be() {
        for (about, calls) in [(0, &[(STORE, 1)][..]), (1, &[]), (-1, &[]), (-2, &[])] {
            let mut firmware = Firmware::new([0, about, 0]);
            firmware.on(a57(), 0);
            assert_eq!(firmware.calls, calls, "{about}");
        }
    }

    #[test]
    fn firmware_that_cannot_be_asked_is_not() {
        for version in [-1, 0x1_0000, 0] {
            let mut firmware = Firmware::new([0; 3]);
            firmware.version = version;
            assert_eq!(firmware.on(a57(), 0), all(Remedy::None), "{version:#x}");
            assert_eq!(firmware.calls, []);
        }
        // SMCCC 1.1 is where asking begins.
        let mut firmware = Firmware::new([0; 3]);
        firmware.version = 0x1_0001;
        assert_eq!(firmware.on(a57(), 0), all(Remedy::Call));
    }

    #[test]
    fn cores_that_are_not_affected_need_no_firmware() {
        let without = |midr, csv2| Firmware::new([-1; 3]).on(midr, csv2);
        for part in [CORTEX_A35, CORTEX_A53, CORTEX_A55] {
            let remedies = without(arm(part, 0, 4), 0);
            assert_eq!(remedies, all(Remedy::Unneeded), "{part:#x}");
            assert_eq!(answers(remedies), [1, -2, 1]);
        }
        let a76 = arm(CORTEX_A76, 4, 1);
        for (csv2, told) in [
            (0, [-1, -1, -1]),
            (1, [1, -1, -1]),
            (2, [1, -1, -1]),
            (3, [1, -1, 1]),
        ] {
            assert_eq!(answers(without(a76, csv2)), told, "{csv2}");
        }
        // A core of its own history that the firmware speaks for in the rest.
        let remedies = Firmware::new([0, 0, 0]).on(a76, 3);
        assert_eq!(answers(remedies), [1, -2, 1]);
    }

    #[test]
    fn of_several_cpus_the_worst_counts() {
        use Remedy::{Call, None, Unneeded};
        for (one, other, both) in [
            (Unneeded, Unneeded, Unneeded),
            (Unneeded, Call, Call),
            (Call, None, None),
            (Unneeded, None, None),
        ] {
            assert_eq!(all(one).and(all(other)), all(both));
            assert_eq!(all(other).and(all(one)), all(both));
        }
        // Each vulnerability for itself.
        let mixed = Remedies {
            branch_target: Call,
            ..all(Unneeded)
        };
        assert_eq!(mixed.and(all(Unneeded)), mixed);
    }

    #[test]
    fn the_branch_predictor_gets_what_the_core_needs() {
        use BranchPredictor::{Exposed, Firmware, Immune, Off};
        use Hardening::{Auto, On};
        use Remedy::{Call, None, Unneeded};
        use Workaround::{BranchHistory, BranchTarget};
        for (branch_target, branch_history, wanted, expected) in [
            (Unneeded, Unneeded, Auto, Immune),
            (Unneeded, Unneeded, Hardening::Off, Immune),
            (Unneeded, Unneeded, On, Firmware(BranchTarget)),
            (Call, None, Auto, Firmware(BranchTarget)),
            (Call, Unneeded, Auto, Firmware(BranchTarget)),
            (Call, Call, Auto, Firmware(BranchHistory)),
            (Call, Call, On, Firmware(BranchHistory)),
            (Unneeded, Call, Auto, Firmware(BranchHistory)),
            (None, Call, Auto, Firmware(BranchHistory)),
            (None, None, Auto, Exposed),
            (Unneeded, None, Auto, Exposed),
            (None, Unneeded, Auto, Exposed),
            (None, None, On, Firmware(BranchTarget)),
            (Call, Call, Hardening::Off, Off),
            (None, None, Hardening::Off, Off),
        ] {
            let remedies = Remedies {
                branch_target,
                branch_history,
                // Says nothing about branches.
                store_bypass: None,
            };
            let policy = BranchPredictor::policy(remedies, wanted);
            assert_eq!(policy, expected, "{remedies:?} {wanted:?}");
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
