//! Which processor features a domain is shown.
//!
//! Those that are known to work, and of the machine's no others: HCR_EL2.TID3 brings every read here. A feature of a newer architecture may need a
//! control of EL2's, or registers that are switched, before a domain can use it, and libraries choose their functions by
//! what is shown: so a field that isn't listed reads as "not implemented", and a value above the listed one as that.
//!
//! Not listed because Baton doesn't switch or enable them: SVE, SME, MTE, pointer authentication, SCXTNUM_ELx (CSV2 above 1), MOPS, WFxT, RAS,
//! AMU, MPAM, GCS, LORegions, the registers behind ID_AA64MMFR3_EL1, performance monitors and trace; and what is EL2's alone.
//!
//! Source: Arm ARM DDI 0487, D19.2 (ID_AA64*_EL1, ID_*_EL1).

use super::syndrome::encoding;

/// Whether this is the name of an ID register (op0 = 3, op1 = 0, CRn = 0, CRm = 1 to 7).
pub const fn is_identification(name: u32) -> bool {
    name >= encoding(3, 0, 0, 1, 0) && name <= encoding(3, 0, 0, 7, 7)
}

/// The name of an ID register.
const fn id(crm: u32, op2: u32) -> u32 {
    encoding(3, 0, 0, crm, op2)
}

/// The greatest value of each of a register's 16 fields of 4 bits; 0xf stands for any, also for a 0xf that means "not implemented".
const fn limits(name: u32) -> u64 {
    const PFR0: u32 = id(4, 0);
    const PFR1: u32 = id(4, 1);
    const DFR0: u32 = id(5, 0);
    const ISAR0: u32 = id(6, 0);
    const ISAR1: u32 = id(6, 1);
    const ISAR2: u32 = id(6, 2);
    const ISAR3: u32 = id(6, 3);
    const MMFR0: u32 = id(7, 0);
    const MMFR1: u32 = id(7, 1);
    const MMFR2: u32 = id(7, 2);
    const PFR0_32: u32 = id(1, 0);
    const PFR1_32: u32 = id(1, 1);
    const DFR0_32: u32 = id(1, 2);
    const PFR2_32: u32 = id(3, 4);
    const DFR1_32: u32 = id(3, 5);
    match name {
        // CSV3, CSV2 (without SCXTNUM), DIT; the GIC's system registers, SIMD, FP; EL1, EL0.
        PFR0 => 0x1101_0000_01ff_0022,
        // SSBS, BTI.
        PFR1 => 0x21,
        // The OS double lock; two breakpoints, two watchpoints, which do nothing; debug as of v8.2.
        DFR0 => 0x0000_00f0_1010_1008,
        // RNDR, TLBI of ranges, FlagM2, FHM, DotProd, SM4, SM3, SHA3, RDM; LSE128, CRC32, SHA-512, SHA-1, PMULL.
        ISAR0 => 0x1221_1111_1031_2120,
        // I8MM, DGH, BF16, SPECRES2, SB, FRINTTS; LRCPC3, FCMA, JSCVT; DC CVADP.
        ISAR1 => 0x0011_2211_0031_1002,
        // LUT, CSSC, RPRFM, PRFMSLC, CLRBHB, BC, RPRES.
        ISAR2 => 0x0111_0100_1010_0010,
        // FAMINMAX.
        ISAR3 => 0x10,
        // ECV; ExS; granules, endianness, SNSMem, ASIDs, up to 52 bits of address.
        MMFR0 => 0x1000_1000_ff21_1126,
        // ECBHB, TIDCP1, nTLBPA, AFP, ETS3; PAN3, HPDS2, dirty bits.
        MMFR1 => 0x1011_1030_0030_2002,
        // E0PD, BBM, TTL; IDS, LSE2, TTST, CCIDX, 52 bits of virtual address, LSMAOC, UAO, CnP.
        MMFR2 => 0x1021_0021_1011_0111,
        // In the 32-bit view no RAS (31:28) nor AMU (23:20), and CSV2 as above;
        PFR0_32 => 0x0f01_ffff,
        // no virtualisation (27:24, 15:12);
        PFR1_32 => 0xf0ff_0fff,
        // no PMU (27:24) nor trace (23:12, 31:28);
        DFR0_32 => 0x0000_0fff,
        // no RAS (11:8);
        PFR2_32 => 0xff,
        DFR1_32 => 0,
        // else what there is.
        _ if name < id(4, 0) => u64::MAX,
        _ => 0,
    }
}

/// What a domain reads, given what the hardware says.
pub const fn shown(name: u32, hardware: u64) -> u64 {
    let limits = limits(name);
    let mut value = 0;
    let mut low = 0;
    while low < u64::BITS {
        let field = hardware.wrapping_shr(low) & 0xf;
        let limit = limits.wrapping_shr(low) & 0xf;
        value |= (if field < limit { field } else { limit }).wrapping_shl(low);
        low = low.wrapping_add(4);
    }
    value
}

/// What a domain with a GICv2 reads instead of this: no system registers of the GIC.
pub const fn without_gic_registers(name: u32, shown: u64) -> u64 {
    const PFR0: u32 = id(4, 0);
    const PFR1_32: u32 = id(1, 1);
    match name {
        PFR0 => shown & !field(24, 4),
        PFR1_32 => shown & !field(28, 4),
        _ => shown,
    }
}

/// What a domain reads instead of this where not every CPU has FEAT_RNG: none, since a vCPU may go to any.
pub const fn without_random_numbers(name: u32, shown: u64) -> u64 {
    const ISAR0: u32 = id(6, 0);
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

    /// Fields by register, CRm and op2, and lowest bit.
    #[test]
    fn what_would_trap_is_not_shown() {
        for (what, crm, op2, low) in [
            ("EL2", 4, 0, 8),
            ("EL3", 4, 0, 12),
            ("RAS", 4, 0, 28),
            ("SVE", 4, 0, 32),
            ("AMU", 4, 0, 44),
            ("MTE", 4, 1, 8),
            ("SME", 4, 1, 24),
            ("NMI", 4, 1, 36),
            ("GCS", 4, 1, 44),
            ("FPMR", 4, 2, 32),
            ("trace", 5, 0, 4),
            ("PMU", 5, 0, 8),
            ("SPE", 5, 0, 32),
            ("branch records", 5, 0, 52),
            ("TME", 6, 0, 24),
            ("APA", 6, 1, 4),
            ("API", 6, 1, 8),
            ("LS64", 6, 1, 60),
            ("WFxT", 6, 2, 0),
            ("APA3", 6, 2, 12),
            ("MOPS", 6, 2, 16),
            ("VHE", 7, 1, 8),
            ("LORegions", 7, 1, 16),
            ("nested virtualisation", 7, 2, 24),
            ("TCR2", 7, 3, 0),
            ("S1PIE", 7, 3, 8),
            ("the 32-bit PMU", 1, 2, 24),
        ] {
            let register = id(crm, op2);
            for value in 1..16 {
                let other = !(0xf << low);
                let read = shown(register, other | value << low);
                assert_eq!(read >> low & 0xf, 0, "{what}");
            }
        }
    }

    #[test]
    fn what_nobody_knows_is_not_shown() {
        for (crm, op2) in [
            (4, 3),
            (4, 4),
            (4, 5),
            (4, 6),
            (4, 7),
            (5, 1),
            (5, 4),
            (6, 7),
            (7, 4),
        ] {
            assert_eq!(shown(id(crm, op2), u64::MAX), 0, "CRm {crm}, op2 {op2}");
        }
        // A value of the future is shown as the last one that is known.
        let isar0 = id(6, 0);
        assert_eq!(shown(isar0, 0x3 << 4) >> 4, 2, "AES and PMULL");
        assert_eq!(shown(isar0, u64::MAX), limits(isar0));
        assert_eq!(
            shown(id(4, 0), 3 << 56),
            1 << 56,
            "CSV2 without SCXTNUM_ELx"
        );
    }

    #[test]
    fn what_works_is_shown() {
        // A Cortex-A57's, whose EL2, EL3 and PMU are hidden.
        for (name, hardware, read) in [
            (id(4, 0), 0x0100_2222, 0x0100_0022),
            (id(5, 0), 0x1030_5106, 0x1010_1006),
            (id(6, 0), 0x0001_1120, 0x0001_1120),
            (id(7, 0), 0x1124, 0x1124),
            (id(1, 0), 0x131, 0x131),
            (id(2, 0), 0x0210_1110, 0x0210_1110),
        ] {
            assert_eq!(shown(name, hardware), read, "{name:#x}");
        }
        let pfr0 = id(4, 0);
        assert_eq!(shown(pfr0, 0x00ff_0000), 0x00ff_0000, "neither FP nor SIMD");
        assert_eq!(without_gic_registers(pfr0, 0x0100_0011), 0x11);
        assert_eq!(without_gic_registers(pfr0 + 1, u64::MAX), u64::MAX);
        assert_eq!(without_gic_registers(id(1, 1), 0x1001_0000), 0x1_0000);
        let isar0 = id(6, 0);
        let all = shown(isar0, u64::MAX);
        assert_eq!(all >> 60, 1, "RNDR");
        assert_eq!(without_random_numbers(isar0, all), all & (u64::MAX >> 4));
        assert_eq!(without_random_numbers(isar0 + 1, all), all);
    }

    #[test]
    fn only_id_registers_are_id_registers() {
        assert!(is_identification(encoding(3, 0, 0, 4, 0)));
        assert!(!is_identification(encoding(3, 0, 0, 0, 5)));
        assert!(!is_identification(encoding(3, 3, 9, 12, 0)));
    }
}
