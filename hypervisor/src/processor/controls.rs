//! What a CPU runs guests under, from its first one on.

use super::{Dsb, Processor, Register, Tlbi, Vectors};
use crate::speculation::BranchPredictor;
use crate::trap::controls::{GUEST, GUEST_DEBUG, GUEST_FLOAT, GUEST_NO_FLOAT, HypervisorControl};

/// Controls of EL1 that newer CPUs have.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Newer {
    /// HCRX_EL2.
    pub extended: bool,
    /// The fine-grained traps.
    pub fine_grained: bool,
}

impl Newer {
    /// Those of a CPU with this ID_AA64MMFR0_EL1 and ID_AA64MMFR1_EL1. Firmware that shows them lets EL2 have them (Linux,
    /// Documentation/arch/arm64/booting.rst: SCR_EL3.HXEn, SCR_EL3.FGTEn).
    pub const fn of(mmfr0: u64, mmfr1: u64) -> Self {
        Self {
            extended: mmfr1 >> 40 & 0xf != 0,
            fine_grained: mmfr0 >> 56 & 0xf != 0,
        }
    }
}

/// All zeroes: what EL2 would have to enable first isn't, the registers that a domain isn't shown trap, and all others don't. Reset, or
/// firmware, may have left anything.
fn begin_newer(cpu: &mut impl Processor, newer: Newer) {
    if newer.extended {
        cpu.write(Register::Hcrx, 0);
    }
    if newer.fine_grained {
        cpu.write(Register::Hfgrtr, 0);
        cpu.write(Register::Hfgwtr, 0);
        cpu.write(Register::Hfgitr, 0);
        cpu.write(Register::Hdfgrtr, 0);
        cpu.write(Register::Hdfgwtr, 0);
    }
}

/// Sets this CPU's controls of EL1. `vtcr` describes every stage 2; the tables of `nobody` map nothing; `counters` is the number of event
/// counters (PMCR_EL0.N), `midr` this CPU's MIDR_EL1: guests see the core that they run on, and stay on CPUs of one kind (their pool's); `newer`
/// is what else it has.
///
/// What a reset leaves in TLBs is nobody's word (Arm ARM DDI 0487, D8.16: TLB contents after a reset), VTTBR_EL2 may name any memory, and no other CPU's
/// broadcast reached this one before it was on: so each forgets for itself, when it can't learn anything new.
pub fn begin(
    cpu: &mut impl Processor,
    vtcr: u64,
    nobody: u64,
    counters: u64,
    midr: u64,
    newer: Newer,
) {
    cpu.write(Register::Vtcr, vtcr);
    cpu.write(Register::Vttbr, nobody);
    cpu.isb(); // tables that map nothing, before they are looked at
    cpu.write(Register::Hcr, GUEST.bits());
    cpu.write(Register::Cptr, GUEST_NO_FLOAT);
    cpu.write(Register::Mdcr, counters | GUEST_DEBUG.bits());
    cpu.write(Register::Hstr, 0);
    cpu.write(Register::Vpidr, midr);
    begin_newer(cpu, newer);
    cpu.isb(); // in force before a guest runs, and before what was learnt until now is forgotten
    cpu.tlbi(Tlbi::AllE1);
    cpu.dsb(Dsb::Nsh); // forgotten ...
    cpu.isb(); // ... before a guest runs
}

/// Lets EL1 use FP and SIMD registers, or traps that.
#[inline(always)]
pub fn set_float_trapped(cpu: &mut impl Processor, trapped: bool) {
    let control = if trapped { GUEST_NO_FLOAT } else { GUEST_FLOAT };
    cpu.write(Register::Cptr, control);
    cpu.isb(); // in force before the registers are touched, here or by the guest
}

/// Raises or lowers the virtual interrupt of a guest that has no interrupt controller (Arm ARM DDI 0487, D1.3.6: virtual interrupts). In
/// force at the return to EL1, which synchronises as an ISB does.
pub fn set_virtual_interrupt(cpu: &mut impl Processor, raised: bool) {
    let mut control = GUEST;
    control.set(HypervisorControl::VI, raised);
    cpu.write(Register::Hcr, control.bits());
}

/// Has exits do about the branch predictor what was decided for this CPU.
pub fn protect_exits(cpu: &mut impl Processor, predictor: BranchPredictor) {
    cpu.vectors(match predictor {
        BranchPredictor::Firmware(_) => Vectors::Hardened,
        _ => Vectors::Plain,
    });
    cpu.isb(); // in force before the first exit
}
