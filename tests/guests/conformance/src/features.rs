//! What the ID registers show can be used, on whatever CPU; a domain can't use what needs EL2's help and isn't shown.
//!
//! A feature that is shown and traps kills programs: libraries choose their functions by it.

use crate::exception::{UNDEFINED, mrs, probe, read, write};
use crate::report::{check, open, own};

const PFR0: [u32; 5] = [3, 0, 0, 4, 0];
const PFR1: [u32; 5] = [3, 0, 0, 4, 1];
const PFR2: [u32; 5] = [3, 0, 0, 4, 2];
const DFR0: [u32; 5] = [3, 0, 0, 5, 0];
const ISAR0: [u32; 5] = [3, 0, 0, 6, 0];
const ISAR1: [u32; 5] = [3, 0, 0, 6, 1];
const ISAR2: [u32; 5] = [3, 0, 0, 6, 2];
const MMFR0: [u32; 5] = [3, 0, 0, 7, 0];
const MMFR1: [u32; 5] = [3, 0, 0, 7, 1];
const MMFR2: [u32; 5] = [3, 0, 0, 7, 2];
const MMFR3: [u32; 5] = [3, 0, 0, 7, 3];

/// A feature: the ID register, its field's lowest bit and least value, and an instruction that there is then.
type Feature = (&'static str, [u32; 5], u32, u64, u32);

/// Instructions and registers that only the CPU decides about.
const PLAIN: &[Feature] = &[
    ("aes", ISAR0, 4, 1, 0x4e28_4800),
    ("pmull", ISAR0, 4, 2, 0x0ee0_e000),
    ("sha1", ISAR0, 8, 1, 0x5e28_0800),
    ("sha256", ISAR0, 12, 1, 0x5e28_2800),
    ("sha512", ISAR0, 12, 2, 0xcec0_8000),
    ("crc32", ISAR0, 16, 1, 0x1ac0_4000),
    ("rdm", ISAR0, 28, 1, 0x2e40_8400),
    ("sha3", ISAR0, 32, 1, 0xce00_0000),
    ("sm3", ISAR0, 36, 1, 0xce60_c000),
    ("sm4", ISAR0, 40, 1, 0xcec0_8400),
    ("dotprod", ISAR0, 44, 1, 0x6e80_9400),
    ("fhm", ISAR0, 48, 1, 0x4e20_ec00),
    ("flagm", ISAR0, 52, 1, 0xd500_401f),
    ("flagm2", ISAR0, 52, 2, 0xd500_405f),
    ("tlbi-os", ISAR0, 56, 1, 0xd508_811f),
    ("tlbi-range", ISAR0, 56, 2, 0xd508_8220),
    ("rndr", ISAR0, 60, 1, mrs([3, 3, 2, 4, 0])),
    ("jscvt", ISAR1, 12, 1, 0x1e7e_0000),
    ("fcma", ISAR1, 16, 1, 0x6e80_c400),
    ("frintts", ISAR1, 32, 1, 0x1e28_c000),
    ("sb", ISAR1, 36, 1, 0xd503_30ff),
    ("specres", ISAR1, 40, 1, 0xd50b_7380),
    ("bf16", ISAR1, 44, 1, 0x6e40_fc00),
    ("i8mm", ISAR1, 52, 1, 0x4e80_9c00),
    ("xs", ISAR1, 56, 1, 0xd508_931f),
    ("wfxt", ISAR2, 0, 2, 0xd503_1000),
    ("hbc", ISAR2, 20, 1, 0x5400_0030),
    ("cssc", ISAR2, 52, 1, 0xdac0_2000),
    ("ssbs", PFR1, 4, 2, mrs([3, 3, 4, 2, 6])),
    ("dit", PFR0, 48, 1, mrs([3, 3, 4, 2, 5])),
    ("pan", MMFR1, 20, 1, mrs([3, 0, 4, 2, 3])),
    ("uao", MMFR2, 4, 1, mrs([3, 0, 4, 2, 4])),
    ("ecv.virtual", MMFR0, 60, 1, mrs([3, 3, 14, 0, 6])),
    ("ecv.physical", MMFR0, 60, 1, mrs([3, 3, 14, 0, 5])),
];

/// What EL2 must enable, or whose state it must switch.
const HELPED: &[Feature] = &[
    ("sve", PFR0, 32, 1, mrs([3, 0, 1, 2, 0])),
    ("sme", PFR1, 24, 1, mrs([3, 0, 1, 2, 6])),
    ("mte", PFR1, 8, 2, mrs([3, 0, 1, 0, 6])),
    ("ras", PFR0, 28, 1, mrs([3, 0, 5, 3, 1])),
    ("amu", PFR0, 44, 1, mrs([3, 3, 13, 2, 0])),
    ("csv2.scxtnum", PFR0, 56, 2, mrs([3, 0, 13, 0, 7])),
    ("gcs", PFR1, 44, 1, mrs([3, 0, 2, 5, 0])),
    ("fpmr", PFR2, 32, 1, mrs([3, 3, 4, 4, 2])),
    ("pauth", ISAR1, 4, 1, mrs([3, 0, 2, 1, 0])),
    ("mops", ISAR2, 16, 1, 0x19c2_0420),
    ("mops-cpy", ISAR2, 16, 1, 0x1901_0440),
    ("lo", MMFR1, 16, 1, mrs([3, 0, 10, 4, 3])),
    ("tcr2", MMFR3, 0, 1, mrs([3, 0, 2, 0, 3])),
    ("sctlr2", MMFR3, 4, 1, mrs([3, 0, 1, 0, 3])),
    ("s1pie", MMFR3, 8, 1, mrs([3, 0, 10, 2, 3])),
    ("s1poe", MMFR3, 16, 1, mrs([3, 0, 10, 2, 4])),
    ("pmu", DFR0, 8, 1, mrs([3, 3, 9, 12, 0])),
    ("spe", DFR0, 32, 1, mrs([3, 0, 9, 9, 0])),
    ("trbe", DFR0, 44, 1, mrs([3, 0, 9, 11, 1])),
    ("brbe", DFR0, 52, 1, mrs([2, 1, 9, 0, 0])),
];

fn shown(&(_, register, low, least, _): &Feature) -> bool {
    let value = read(register) >> low & 0xf;
    value >= least && value != 0xf
}

fn outcome(&(.., instruction): &Feature) -> u64 {
    // FP and SIMD, SVE and SME are let through by EL1.
    write([3, 0, 1, 0, 2], 3 << 16 | 3 << 20 | 3 << 24);
    probe(instruction, [0; 4]).outcome()
}

/// Uses what is shown; returns whether it is.
fn used(feature: &Feature) -> bool {
    let shown = shown(feature);
    if shown {
        check(format_args!("shown.{}", feature.0), outcome(feature), 0);
    }
    shown
}

/// All of it. On a CPU whose EL2 is Baton's nothing of [`HELPED`] is there unless it's shown.
pub fn run() {
    for feature in PLAIN.iter().filter(|feature| !used(feature)) {
        open(feature.0, outcome(feature), "not shown");
    }
    for feature in HELPED.iter().filter(|feature| !used(feature)) {
        let name = format_args!("not-shown.{}", feature.0);
        own(name, outcome(feature), UNDEFINED);
    }
}
