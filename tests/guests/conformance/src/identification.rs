//! What is shown works; what isn't, is UNDEFINED.

use crate::exception::{MASKED, UNDEFINED, code, mrs, msr, probe, read, write};
use crate::gic;
use crate::report::{check, open, own};

const PFR0: [u32; 5] = [3, 0, 0, 4, 0];
const DFR0: [u32; 5] = [3, 0, 0, 5, 0];

/// Nothing of these is in a Cortex-A57, or at EL1 of any CPU.
const UNDEFINED_REGISTERS: &[(&str, [u32; 5])] = &[
    ("zcr_el1", [3, 0, 1, 2, 0]),
    ("gcr_el1", [3, 0, 1, 0, 6]),
    ("rgsr_el1", [3, 0, 1, 0, 5]),
    ("tfsr_el1", [3, 0, 5, 6, 0]),
    ("apiakeylo_el1", [3, 0, 2, 1, 0]),
    ("smcr_el1", [3, 0, 1, 2, 6]),
    ("rndr", [3, 3, 2, 4, 0]),
    ("hcr_el2", [3, 4, 1, 1, 0]),
    ("vttbr_el2", [3, 4, 2, 1, 0]),
    ("esr_el2", [3, 4, 5, 2, 0]),
    ("vbar_el2", [3, 4, 12, 0, 0]),
    ("cnthctl_el2", [3, 4, 14, 1, 0]),
    ("ich_hcr_el2", [3, 4, 12, 11, 0]),
    ("ich_lr0_el2", [3, 4, 12, 12, 0]),
    ("sctlr_el12", [3, 5, 1, 0, 0]),
    ("cntv_ctl_el02", [3, 5, 14, 3, 1]),
    ("scr_el3", [3, 6, 1, 1, 0]),
    ("icc_sre_el3", [3, 6, 12, 12, 5]),
    ("pmscr_el1", [3, 0, 9, 9, 0]),
    ("trbptr_el1", [3, 0, 9, 11, 1]),
    ("amcr_el0", [3, 3, 13, 2, 0]),
    ("mpam1_el1", [3, 0, 10, 5, 0]),
    ("unallocated-1-3", [3, 1, 3, 3, 3]),
    ("unallocated-7-6", [3, 7, 6, 6, 6]),
    ("icc_eoir1_el1-read", [3, 0, 12, 12, 1]),
    ("icc_sgi1r_el1-read", [3, 0, 12, 11, 5]),
];

/// Of a GICv3's CPU interface: undefined with a GICv2.
const INTERFACE_REGISTERS: &[(&str, [u32; 5])] = &[
    ("icc_sre_el1", gic::SRE),
    ("icc_iar1_el1", gic::IAR1),
    ("icc_pmr_el1", gic::PMR),
    ("icc_ctlr_el1", gic::CTLR),
    ("icc_igrpen1_el1", gic::IGRPEN1),
    ("icc_hppir1_el1", gic::HPPIR1),
];

/// All of it.
pub fn run(domain: bool) {
    check("currentel", read([3, 0, 4, 2, 2]), 4);
    check("mpidr", read([3, 0, 0, 0, 5]) & 0xff_80ff_ffff, 0x8000_0000);
    open("midr", read([3, 0, 0, 0, 0]), "CPU");
    open("ctr", read([3, 3, 0, 0, 1]), "caches");
    let pfr0 = read(PFR0);
    open("pfr0", pfr0, "features");
    check("pfr0.el1", u64::from(matches!(pfr0 >> 4 & 0xf, 1 | 2)), 1);
    check("pfr0.gic", pfr0 >> 24 & 0xf, u64::from(!gic::is_v2()));
    check("pfr0.sve", pfr0 >> 32 & 0xf, 0);
    let dfr0 = read(DFR0);
    open("dfr0", dfr0, "debug and PMU");
    for crm in 1..8 {
        for op2 in 0..8 {
            // All are readable, named or reserved.
            let end = probe(mrs([3, 0, 0, crm, op2]), [0; 4]);
            if !end.completed() {
                check("id-space.readable", u64::from(crm << 4 | op2), u64::MAX);
            }
        }
    }
    for crm in 4..8 {
        let last = read([3, 0, 0, crm, 7]);
        check("id-space.reserved", last, 0);
    }
    let shown = dfr0 >> 8 & 0xf;
    for (name, register) in [
        ("pmcr_el0", [3, 3, 9, 12, 0]),
        ("pmccntr_el0", [3, 3, 9, 13, 0]),
        ("pmintenset_el1", [3, 0, 9, 14, 1]),
        ("pmccfiltr_el0", [3, 3, 14, 15, 7]),
    ] {
        let got = probe(mrs(register), [0; 4]).outcome();
        let works = shown != 0 && shown != 0xf;
        check(name, u64::from(got == if works { 0 } else { UNDEFINED }), 1);
        if domain {
            own(name, got, UNDEFINED);
        }
    }
    if gic::is_v2() {
        for (name, register) in INTERFACE_REGISTERS {
            check(name, probe(mrs(*register), [0; 4]).outcome(), UNDEFINED);
        }
    }
    for (name, register) in UNDEFINED_REGISTERS {
        check(name, probe(mrs(*register), [0; 4]).outcome(), UNDEFINED);
    }
    for (name, register) in [
        ("hcr_el2-write", [3, 4, 1, 1, 0]),
        ("elr_el2-write", [3, 4, 4, 0, 1]),
        ("icc_iar1_el1-write", [3, 0, 12, 12, 0]),
        ("icc_rpr_el1-write", [3, 0, 12, 11, 3]),
        ("midr_el1-write", [3, 0, 0, 0, 0]),
        ("id_aa64pfr0_el1-write", PFR0),
        ("cntpct_el0-write", [3, 3, 14, 0, 1]),
        ("cntfrq_el0-write", [3, 3, 14, 0, 0]),
    ] {
        let got = probe(msr(register), [0; 4]).outcome();
        if name == "cntfrq_el0-write" {
            open(name, got, "writable at the highest implemented EL");
        } else {
            check(name, got, UNDEFINED);
        }
    }
    // The exception's own registers.
    let end = probe(mrs([3, 4, 1, 1, 0]), [0; 4]);
    check("undefined.esr", end.esr, 1 << 25);
    check("undefined.elr", end.elr, code());
    check("undefined.spsr", end.spsr & 0x3df, MASKED);
    check("undefined.vector", end.vector, 0);
    let trapped = probe(mrs([3, 0, 2, 1, 0]), [0; 4]);
    check("undefined.trapped.esr", trapped.esr, 1 << 25);
    check("undefined.trapped.spsr", trapped.spsr & 0x3df, MASKED);
    for (name, word, expected) in [
        ("udf", 0x0000_0000u32, UNDEFINED),
        ("hlt", 0xd440_0000, UNDEFINED),
        ("dcps1", 0xd4a0_0001, UNDEFINED),
        ("svc", 0xd400_0001, 0x115),
        ("sve-add", 0x0420_0000, UNDEFINED),
        ("mte-irg", 0x9ac0_1000, UNDEFINED),
        ("lse-ldadd", 0xb820_0000, UNDEFINED),
        ("fmov-d0", 0x9e67_0000, 0),
        ("crc32b", 0x1ac0_4000, 0),
        ("aese", 0x4e28_4800, 0),
        ("paciasp-is-a-hint", 0xd503_233f, 0),
        ("esb-is-a-hint", 0xd503_221f, 0),
        ("wfe", 0xd503_205f, 0),
        ("yield", 0xd503_203f, 0),
        ("tlbi-vmalle1", 0xd508_871f, 0),
        ("tlbi-alle1", 0xd50c_879f, UNDEFINED),
        ("dc-isw", 0xd508_7640, 0),
        ("dc-cisw", 0xd508_7e40, 0),
        ("at-s1e1r", 0xd508_7800, 0),
        ("at-s12e1r", 0xd50c_7880, UNDEFINED),
    ] {
        // FP and SIMD are let through by EL1.
        write([3, 0, 1, 0, 2], 3 << 20);
        check(name, probe(word, [0; 4]).outcome(), expected);
    }
    // Debug.
    write([2, 0, 0, 2, 2], 1 << 12);
    check("mdscr.kept", read([2, 0, 0, 2, 2]) & 1 << 12, 1 << 12);
    write([2, 0, 0, 2, 2], 0);
    check("mdscr.zero", read([2, 0, 0, 2, 2]) & 0xf001, 0);
    check("oslar", write([2, 0, 1, 0, 4], 0).outcome(), 0);
    open("oslsr", read([2, 0, 1, 1, 4]), "OS lock's model");
    open(
        "dbgbvr0",
        read([2, 0, 0, 0, 4]),
        "a domain has no breakpoints of its own yet",
    );
    check(
        "contextidr",
        {
            write([3, 0, 13, 0, 1], 0x1234);
            read([3, 0, 13, 0, 1])
        },
        0x1234,
    );
    write([3, 0, 1, 0, 1], u64::MAX);
    open("actlr", read([3, 0, 1, 0, 1]), "implementation defined");
}
