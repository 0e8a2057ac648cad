//! Which processor features a domain is shown.
//!
//! The ID registers of the machine, less what EL2 would trap: a feature that is shown must work. HCR_EL2.TID3 brings
//! every read here. Unknown fields of a newer architecture are hidden only where they'd need state
//! that Baton doesn't switch (SVE, SME, MTE, pointer authentication keys are not switched yet).

use super::syndrome::encoding;

/// Whether this is the name of an ID register (op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7).
pub const fn is_identification(name: u32) -> bool {
    name >= encoding(3, 0, 0, 1, 0) && name <= encoding(3, 0, 0, 7, 7)
}

/// What a domain reads, given what the hardware says.
pub const fn shown(name: u32, hardware: u64) -> u64 {
    const PFR0: u32 = encoding(3, 0, 0, 4, 0);
    const PFR1: u32 = encoding(3, 0, 0, 4, 1);
    const ZFR0: u32 = encoding(3, 0, 0, 4, 4);
    const SMFR0: u32 = encoding(3, 0, 0, 4, 5);
    const DFR0: u32 = encoding(3, 0, 0, 5, 0);
    const DFR1: u32 = encoding(3, 0, 0, 5, 1);
    const ISAR1: u32 = encoding(3, 0, 0, 6, 1);
    const ISAR2: u32 = encoding(3, 0, 0, 6, 2);
    const MMFR1: u32 = encoding(3, 0, 0, 7, 1);
    const MMFR2: u32 = encoding(3, 0, 0, 7, 2);
    const DFR0_32: u32 = encoding(3, 0, 0, 1, 2);
    match name {
        // No EL2 and EL3 (11:8, 15:12), SVE (35:32), MPAM (43:40), AMU (47:44), RAS (31:28).
        PFR0 => hardware & !field(8, 8) & !field(28, 4) & !field(32, 4) & !field(40, 8),
        // No MTE (11:8), RAS_frac (15:12), MPAM_frac (19:16), SME (27:24), random-number trap (31:28), NMI (39:36), GCS (47:44).
        PFR1 => hardware & !field(8, 12) & !field(24, 8) & !field(36, 4) & !field(44, 4),
        ZFR0 | SMFR0 | DFR1 => 0,
        // No PMU (11:8), trace (7:4), SPE (35:32), trace filter and buffer (43:40, 47:44), branch records (55:52).
        DFR0 => hardware & !field(4, 8) & !field(32, 4) & !field(40, 8) & !field(52, 4),
        // No PMU (27:24) nor trace (23:12) in the 32-bit view.
        DFR0_32 => hardware & !field(12, 16),
        // No pointer authentication: APA, API (11:4), GPA, GPI (31:24).
        ISAR1 => hardware & !field(4, 8) & !field(24, 8),
        // GPA3, APA3 (15:8).
        ISAR2 => hardware & !field(8, 8),
        // No VHE (11:8) to be had at EL1, no nested virtualisation (MMFR2.NV 27:24).
        MMFR1 => hardware & !field(8, 4),
        MMFR2 => hardware & !field(24, 4),
        _ => hardware,
    }
}

/// What a domain with a GICv2 reads instead of this: no system registers of the GIC.
pub const fn without_gic_registers(name: u32, shown: u64) -> u64 {
    const PFR0: u32 = encoding(3, 0, 0, 4, 0);
    match name {
        PFR0 => shown & !field(24, 4),
        _ => shown,
    }
}

/// What a domain reads instead of this where not every CPU has FEAT_RNG: none, since a vCPU may go to any.
pub const fn without_random_numbers(name: u32, shown: u64) -> u64 {
    const ISAR0: u32 = encoding(3, 0, 0, 6, 0);
    match name {
        ISAR0 => shown & !field(60, 4),
        _ => shown,
    }
}

const fn field(low: u32, bits: u32) -> u64 {
    (1u64.wrapping_shl(bits)).wrapping_sub(1).wrapping_shl(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_trap_is_not_shown() {
        let all = u64::MAX;
        assert_eq!(shown(encoding(3, 0, 0, 5, 0), all) >> 8 & 0xf, 0, "PMU");
        assert_eq!(shown(encoding(3, 0, 0, 4, 0), all) >> 32 & 0xf, 0, "SVE");
        assert_eq!(
            shown(encoding(3, 0, 0, 4, 0), all) & 0xff,
            0xff,
            "EL0 and EL1 stay"
        );
        assert_eq!(
            shown(encoding(3, 0, 0, 4, 0), all) >> 24 & 0xf,
            0xf,
            "the GIC's system registers stay"
        );
        let pfr0 = encoding(3, 0, 0, 4, 0);
        assert_eq!(without_gic_registers(pfr0, all), all & !(0xf << 24));
        assert_eq!(without_gic_registers(pfr0 + 1, all), all);
        let isar0 = encoding(3, 0, 0, 6, 0);
        assert_eq!(shown(isar0, all), all, "RNDR, which works");
        assert_eq!(without_random_numbers(isar0, all), all >> 4);
        assert_eq!(without_random_numbers(isar0 + 1, all), all);
        assert_eq!(shown(encoding(3, 0, 0, 4, 1), all) >> 8 & 0xf, 0, "MTE");
        assert_eq!(
            shown(encoding(3, 0, 0, 6, 1), all) >> 4 & 0xff,
            0,
            "pointer authentication"
        );
        assert_eq!(
            shown(encoding(3, 0, 0, 7, 0), all),
            all,
            "memory model untouched"
        );
    }

    #[test]
    fn only_id_registers_are_id_registers() {
        assert!(is_identification(encoding(3, 0, 0, 4, 0)));
        assert!(!is_identification(encoding(3, 0, 0, 0, 5)));
        assert!(!is_identification(encoding(3, 3, 9, 12, 0)));
    }
}
