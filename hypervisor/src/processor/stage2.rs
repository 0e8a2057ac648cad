//! Which stage 2 this CPU translates by, and what CPUs remember of it.

use super::vcpu::Regime;
use super::{Dsb, Ic, Processor, Register, Tlbi};
use core::ops::Range;

const PAGE: u64 = 4096;

/// Pages up to which each is forgotten by itself.
pub const FEW: u64 = 64;

/// This CPU walks the tables of `nobody` until a vCPU is loaded: they map nothing, so nothing is learnt, whatever EL1's registers say.
#[inline(always)]
pub fn leave(cpu: &mut impl Processor, nobody: u64) {
    cpu.write(Register::Vttbr, nobody);
    cpu.isb(); // no walk begins in the old tables from here on
}

/// Makes sure that no CPU uses what the tables of `vttbr` mapped for this range until it was taken out of them, nor anything that stage 1 derived
/// from it. `speculates`: a CPU has [`SPECULATIVE_TRANSLATION`](crate::errata::Errata::SPECULATIVE_TRANSLATION).
///
/// Arm ARM DDI 0487, D8.16 (TLB maintenance): an invalidation by IPA doesn't reach combined entries, hence the second one, after the first is complete.
pub fn invalidate(cpu: &mut impl Processor, vttbr: u64, range: Range<u64>, speculates: bool) {
    cpu.dsb(Dsb::Ishst); // the changed descriptors are visible before the invalidation
    let before = cpu.read(Register::Vttbr);
    if before == vttbr {
        forget(cpu, range);
        cpu.isb(); // forgotten by what this CPU has fetched already, too
        return;
    }
    // EL1's registers are another guest's: no walk may mix the two (vcpu.rs).
    let regime = speculates.then(|| Regime::suspend(cpu));
    cpu.write(Register::Vttbr, vttbr);
    cpu.isb(); // the VMID below is that domain's
    forget(cpu, range);
    cpu.write(Register::Vttbr, before);
    if let Some(regime) = regime {
        regime.resume(cpu);
    }
    cpu.isb(); // the running guest's tables again; and as above
}

/// All CPUs forget a range of the VMID that is in VTTBR_EL2.
fn forget(cpu: &mut impl Processor, range: Range<u64>) {
    let first = range.start / PAGE;
    let end = range.end.div_ceil(PAGE);
    if end.saturating_sub(first) > FEW {
        cpu.tlbi(Tlbi::VmallS12E1Is);
    } else {
        for page in first..end {
            cpu.tlbi(Tlbi::IpaS2E1Is(page));
        }
        cpu.dsb(Dsb::Ish); // stage 2's are forgotten everywhere before the combined ones are
        cpu.tlbi(Tlbi::VmallE1Is);
    }
    cpu.dsb(Dsb::Ish); // forgotten by all CPUs
}

/// This CPU forgets what it knows of the guest that is loaded: translations by any ASID, and instructions. For a vCPU whose ASIDs may mean other
/// address spaces than those of the one before it, with the same VMID; and for memory that somebody else wrote code to.
pub fn forget_guest(cpu: &mut impl Processor) {
    cpu.tlbi(Tlbi::VmallE1);
    cpu.ic(Ic::Iallu);
    cpu.dsb(Dsb::Nsh); // both complete ...
    cpu.isb(); // ... before the guest runs
}
