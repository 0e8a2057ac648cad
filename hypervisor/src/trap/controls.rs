//! What traps to EL2, as named bits (Arm ARM DDI 0487, D19.2: HCR_EL2, MDCR_EL2, CPTR_EL2).

use bitflags::bitflags;

bitflags! {
    /// HCR_EL2.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct HypervisorControl: u64 {
        /// Stage 2 translates.
        const VM = 1;
        /// Physical FIQs come to EL2, virtual ones exist.
        const FMO = 1 << 3;
        /// The same for IRQs.
        const IMO = 1 << 4;
        /// The same for SErrors.
        const AMO = 1 << 5;
        /// A virtual IRQ is pending, whatever the virtual CPU interface says.
        const VI = 1 << 7;
        /// A guest's TLB, cache and predictor maintenance reaches the inner shareable domain.
        const FB = 1 << 9;
        /// A guest's barriers reach the inner shareable domain at least.
        const BSU_INNER = 1 << 10;
        /// WFI traps.
        const TWI = 1 << 13;
        /// Reads of ID registers trap.
        const TID3 = 1 << 18;
        /// SMC traps.
        const TSC = 1 << 19;
        /// Implementation-defined registers trap.
        const TIDCP = 1 << 20;
        /// ACTLR_EL1 traps.
        const TACR = 1 << 21;
        /// Cache maintenance by set and way traps.
        const TSW = 1 << 22;
        /// EL1 is AArch64.
        const RW = 1 << 31;
        /// LORegion registers trap.
        const TLOR = 1 << 35;
        /// Error record registers trap.
        const TERR = 1 << 36;
    }
}

bitflags! {
    /// MDCR_EL2, without the number of event counters (bits 4:0).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct DebugControl: u64 {
        /// PMCR_EL0 traps.
        const TPMCR = 1 << 5;
        /// The PMU's registers trap.
        const TPM = 1 << 6;
        /// Breakpoints, watchpoints and the debug control register trap.
        const TDA = 1 << 9;
        /// The OS lock and power-down registers trap.
        const TDOSA = 1 << 10;
        /// The debug ROM address registers trap.
        const TDRA = 1 << 11;
    }
}

/// What a domain runs under. Interrupts come here; an idle vCPU gives the CPU away; firmware is reached only through Baton; ID
/// registers show what is offered; a guest's maintenance reaches every CPU that it may have run on.
pub const GUEST: HypervisorControl = HypervisorControl::VM
    .union(HypervisorControl::FMO)
    .union(HypervisorControl::IMO)
    .union(HypervisorControl::AMO)
    .union(HypervisorControl::FB)
    .union(HypervisorControl::BSU_INNER)
    .union(HypervisorControl::TWI)
    .union(HypervisorControl::TID3)
    .union(HypervisorControl::TSC)
    .union(HypervisorControl::TIDCP)
    .union(HypervisorControl::TACR)
    .union(HypervisorControl::TSW)
    .union(HypervisorControl::RW)
    .union(HypervisorControl::TLOR)
    .union(HypervisorControl::TERR);

/// No PMU is offered, and the debug registers are the machine's.
pub const GUEST_DEBUG: DebugControl = DebugControl::all();

/// CPTR_EL2 with E2H = 0: its RES1 bits, which are TZ (SVE traps) and TSM (SME) where these exist, TTA (trace registers) and TAM (activity
/// monitors). FP and SIMD don't trap: see [`float`](super::float).
pub const GUEST_FLOAT: u64 = 0x33ff | 1 << 20 | 1 << 30;

/// The same with TFP: FP and SIMD trap, at EL2, too.
pub const GUEST_NO_FLOAT: u64 = GUEST_FLOAT | 1 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_design_asks_for_is_on() {
        for bit in [9, 13, 18, 19, 20, 22, 35, 36] {
            assert_ne!(GUEST.bits() & 1 << bit, 0, "HCR_EL2 bit {bit}");
        }
        assert_eq!(GUEST.bits() >> 10 & 0b11, 0b01, "BSU: inner shareable");
        assert_eq!(GUEST.bits() & (1 << 27 | 1 << 34), 0, "neither TGE nor E2H");
        assert_eq!(GUEST_FLOAT & 1 << 10, 0, "TFP");
        assert_eq!(GUEST_NO_FLOAT ^ GUEST_FLOAT, 1 << 10, "TFP");
    }
}
