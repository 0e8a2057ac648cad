//! What the hostile firmware tries, and what must come of it.
//!
//! The list is a macro so that the firmware makes instructions of the very texts that the domain prints: `probes!(consume)` calls
//! `consume!` with one `("instruction", Expectation)` for each. Every instruction uses X9 alone.

/// What must come of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Undefined: anything else is a hole.
    Undefined,
    /// Undefined, or it reads 0: a register that firmware may have, fresh.
    UndefinedOrZero,
    /// It may do what it likes to its own context.
    Either,
}

/// What came of it, as the firmware reports it.
pub mod came {
    /// Not tried yet.
    pub const NOTHING: u64 = 0;
    /// Executed.
    pub const EXECUTED: u64 = 1;
    /// Undefined instruction: exception class 0.
    pub const UNDEFINED: u64 = 2;
    /// Another exception.
    pub const EXCEPTION: u64 = 3;
}

/// Where in the shared memory the reports begin, each [`REPORT_STRIDE`] bytes: what came (u64), X9 afterwards or the syndrome (u64).
pub const REPORTS: u64 = 0x1000;
/// Bytes of a report.
pub const REPORT_STRIDE: u64 = 16;
/// u64: rounds of the check that the firmware's own context is kept, after all probes.
pub const ROUNDS: u64 = 0x20;
/// u64: how often it wasn't.
pub const LOST: u64 = 0x28;
/// u64: how many registers weren't zero at the start although they belong to this firmware alone.
pub const LEAKED: u64 = 0x30;

/// What the firmware is told to do, by X0 at its start.
pub mod task {
    /// All probes, then the check of its context for ever.
    pub const PROBES: u64 = 0;
    /// Reads 4 bytes at the address in the inbox, says so in the outbox.
    pub const READ: u64 = 1;
    /// Writes 4 bytes there.
    pub const WRITE: u64 = 2;
    /// Branches there.
    pub const BRANCH: u64 = 3;
    /// Exits with the code in the inbox.
    pub const EXIT: u64 = 4;
    /// Panics.
    pub const PANIC: u64 = 5;
}

/// In the outbox when the access of [`task::READ`] or [`task::WRITE`] went through.
pub const WENT_THROUGH: u64 = 0x676f_6e65_7468;
/// In the outbox when all probes are done.
pub const PROBED: u64 = 0x7072_6f62_6564;

/// Calls `$consume!` with all probes. See the module.
#[macro_export]
macro_rules! probes {
    ($consume:ident) => {
        $consume! {
            // Calls into firmware and hypervisor.
            ("smc #0", Undefined),
            ("hvc #0", Undefined),
            ("hvc #0x4a48", Undefined),
            // The interrupt controller: all of GICv3's registers at EL1, and EL2's.
            ("mrs x9, S3_0_C4_C6_0", Undefined),    // ICC_PMR_EL1
            ("msr S3_0_C4_C6_0, x9", Undefined),
            ("mrs x9, S3_0_C12_C8_0", Undefined),   // ICC_IAR0_EL1
            ("msr S3_0_C12_C8_1, x9", Undefined),   // ICC_EOIR0_EL1
            ("mrs x9, S3_0_C12_C8_2", Undefined),   // ICC_HPPIR0_EL1
            ("mrs x9, S3_0_C12_C8_3", Undefined),   // ICC_BPR0_EL1
            ("mrs x9, S3_0_C12_C8_4", Undefined),   // ICC_AP0R0_EL1
            ("mrs x9, S3_0_C12_C9_0", Undefined),   // ICC_AP1R0_EL1
            ("msr S3_0_C12_C11_1, x9", Undefined),  // ICC_DIR_EL1
            ("mrs x9, S3_0_C12_C11_3", Undefined),  // ICC_RPR_EL1
            ("msr S3_0_C12_C11_5, x9", Undefined),  // ICC_SGI1R_EL1
            ("msr S3_0_C12_C11_6, x9", Undefined),  // ICC_ASGI1R_EL1
            ("msr S3_0_C12_C11_7, x9", Undefined),  // ICC_SGI0R_EL1
            ("mrs x9, S3_0_C12_C12_0", Undefined),  // ICC_IAR1_EL1
            ("msr S3_0_C12_C12_1, x9", Undefined),  // ICC_EOIR1_EL1
            ("mrs x9, S3_0_C12_C12_2", Undefined),  // ICC_HPPIR1_EL1
            ("mrs x9, S3_0_C12_C12_3", Undefined),  // ICC_BPR1_EL1
            ("mrs x9, S3_0_C12_C12_4", Undefined),  // ICC_CTLR_EL1
            ("msr S3_0_C12_C12_4, x9", Undefined),
            // ICC_SRE_EL1: a constant where there is no memory-mapped CPU interface to choose, and EL2 can't take it away then.
            ("mrs x9, S3_0_C12_C12_5", Either),
            ("mrs x9, S3_0_C12_C12_6", Undefined),  // ICC_IGRPEN0_EL1
            ("mrs x9, S3_0_C12_C12_7", Undefined),  // ICC_IGRPEN1_EL1
            ("msr S3_0_C12_C12_7, x9", Undefined),
            ("mrs x9, S3_4_C12_C11_0", Undefined),  // ICH_HCR_EL2
            ("msr S3_4_C12_C12_0, x9", Undefined),  // ICH_LR0_EL2
            // EL2's and EL3's registers.
            ("mrs x9, hcr_el2", Undefined),
            ("msr hcr_el2, x9", Undefined),
            ("msr vttbr_el2, x9", Undefined),
            ("mrs x9, elr_el2", Undefined),
            ("mrs x9, sctlr_el3", Undefined),
            ("tlbi alle1", Undefined),
            ("tlbi vmalls12e1is", Undefined),
            ("at s12e1r, x9", Undefined),
            // Debug and performance counters.
            ("mrs x9, mdscr_el1", Undefined),
            ("mrs x9, S2_0_C0_C0_4", Undefined),    // DBGBVR0_EL1
            ("msr S2_0_C1_C0_4, x9", Undefined),    // OSLAR_EL1
            ("mrs x9, mdccsr_el0", Undefined),
            ("mrs x9, pmcr_el0", Undefined),
            ("msr pmcr_el0, x9", Undefined),
            ("mrs x9, pmccntr_el0", Undefined),
            ("msr pmintenset_el1, x9", Undefined),
            // Implementation-defined: CPUACTLR_EL1, CPUECTLR_EL1, L2CTLR_EL1 of the Cortex-A57.
            ("mrs x9, S3_1_C15_C2_0", Undefined),
            ("msr S3_1_C15_C2_1, x9", Undefined),
            ("mrs x9, S3_1_C11_C0_2", Undefined),
            ("mrs x9, actlr_el1", Either),
            // The physical timer is the machine's; the virtual one can't be taken away before ARMv8.6, and is the firmware's own then.
            ("mrs x9, cntp_ctl_el0", UndefinedOrZero),
            ("mrs x9, cntp_cval_el0", UndefinedOrZero),
            ("msr cntp_tval_el0, xzr", Either),
            ("mrs x9, cntps_ctl_el1", Undefined),
            ("mrs x9, cnthctl_el2", Undefined),
            ("mrs x9, cntv_ctl_el0", Either),
            ("mrs x9, cntvct_el0", Either),
            ("mrs x9, cntpct_el0", Either),
            ("mrs x9, cntfrq_el0", Either),
            // Cache maintenance by set and way.
            ("dc isw, xzr", Either),
            ("dc csw, xzr", Either),
            ("dc cisw, xzr", Either),
            // Floating point: another firmware's values must not be there.
            (".arch_extension fp\nfmov x9, d7", UndefinedOrZero),
            (".arch_extension fp\nfmov d7, x9", Either),
            // What a firmware may ask about the core, and translations of its own.
            ("mrs x9, midr_el1", Either),
            ("mrs x9, mpidr_el1", Either),
            ("mrs x9, id_aa64pfr0_el1", Either),
            ("mrs x9, id_aa64mmfr0_el1", Either),
            ("mrs x9, id_aa64dfr0_el1", Either),
            ("mrs x9, ccsidr_el1", Either),
            ("mrs x9, clidr_el1", Either),
            ("tlbi vmalle1is", Either),
            ("tlbi vae1is, xzr", Either),
            ("at s1e1r, xzr", Either),
            ("ic ialluis", Either),
            ("sevl\nwfe", Either),
            ("yield", Either),
            ("svc #0", Either),
            ("brk #1", Either),
            ("hlt #1", Either),
            (".inst 0", Undefined),
        }
    };
}

macro_rules! list {
    ($(($text:literal, $expectation:ident)),* $(,)?) => {
        /// All probes, in the order of the reports.
        pub const PROBES: &[(&str, Expectation)] = &[$(($text, Expectation::$expectation)),*];
    };
}
probes!(list);

/// Whether this is what must have come of a probe, given what the firmware reports.
pub fn holds(expectation: Expectation, came: u64, value: u64) -> bool {
    match (expectation, came) {
        (_, came::UNDEFINED) => true,
        (Expectation::Undefined, _) => false,
        (Expectation::UndefinedOrZero, came::EXECUTED) => value == 0,
        (Expectation::UndefinedOrZero, _) => false,
        (Expectation::Either, came) => matches!(came, came::EXECUTED | came::EXCEPTION),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fw_core_abi::SHARED_SIZE;

    #[test]
    fn reports_fit_and_no_probe_is_twice_there() {
        let count = PROBES.len() as u64;
        assert!(count >= 60);
        assert!(REPORTS + count * REPORT_STRIDE <= SHARED_SIZE);
        let texts: std::collections::BTreeSet<_> = PROBES.iter().map(|probe| probe.0).collect();
        assert_eq!(texts.len(), PROBES.len());
    }

    #[test]
    fn holes_are_told_from_what_is_allowed() {
        use Expectation::*;
        assert!(holds(Undefined, came::UNDEFINED, 0));
        assert!(!holds(Undefined, came::EXECUTED, 0));
        assert!(!holds(Undefined, came::EXCEPTION, 0));
        assert!(!holds(Undefined, came::NOTHING, 0));
        assert!(holds(UndefinedOrZero, came::EXECUTED, 0));
        assert!(!holds(UndefinedOrZero, came::EXECUTED, 1));
        assert!(holds(Either, came::EXECUTED, 1));
        assert!(!holds(Either, came::NOTHING, 0));
    }
}
