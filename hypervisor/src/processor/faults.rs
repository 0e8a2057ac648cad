//! Where a guest's access went, when the processor doesn't say so, or can't be believed.

use super::{At, Processor, Register};
use crate::errata::Errata;
use crate::trap::syndrome;

/// PAR_EL1.F: there is no translation.
const FAILED: u64 = 1;

/// The guest-physical address of a data abort of stage 2 that wasn't on a walk, from ESR_EL2, FAR_EL2, HPFAR_EL2 and SPSR_EL2. `None`: stage 1 has
/// none for it, so the guest repeats the instruction and takes its own fault.
///
/// HPFAR_EL2 isn't valid after a permission fault (Arm ARM DDI 0487, D24.2: HPFAR_EL2). Cortex-A57 before r1p3 may report a fault of stage 2
/// for a load across a page's end that has one in stage 1 (erratum 834220): whether it has is asked first.
pub fn address(
    cpu: &mut impl Processor,
    errata: Errata,
    (esr, far, hpfar): (u64, u64, u64),
    spsr: u64,
) -> Option<u64> {
    if syndrome::is_permission_fault(esr) || errata.contains(Errata::STAGE2_FAULT_ADDRESS) {
        translate(cpu, far, spsr)
    } else {
        Some(syndrome::fault_address(hpfar, far))
    }
}

/// Whether a read that HPFAR_EL2 has at `address` can be one of Cortex-A57 834220's. Only the second page of a load across two can have a
/// fault that isn't its, and what of that reaches an emulated device, aligned as it must be, is the page's first address. The others are emulated
/// without a question.
#[inline(always)]
pub const fn may_cross_pages(address: u64) -> bool {
    address & 0xfff == 0
}

/// What the loaded guest's stage 1 makes of an address, for who the exception came from.
fn translate(cpu: &mut impl Processor, address: u64, spsr: u64) -> Option<u64> {
    const EXCEPTION_LEVEL: u64 = 0b1100;
    let who = if spsr & EXCEPTION_LEVEL == 0 {
        At::S1E0R
    } else {
        At::S1E1R
    };
    let before = cpu.read(Register::Par);
    cpu.at(who, address);
    cpu.isb(); // the result is there before it is read
    let result = cpu.read(Register::Par);
    cpu.write(Register::Par, before); // the guest's, which may be between its own AT and read
    (result & FAILED == 0).then_some(result & 0xf_ffff_ffff_f000 | address & 0xfff)
}
