//! What a CPU that runs coprocessor firmware has different from one that runs domains.
//!
//! Firmware has no interrupt controller: the registers of the GIC's CPU interface trap, and its one interrupt is raised by HCR_EL2.VI
//! directly.

use super::gic::v2;
use super::processor::This;
use super::registers::{isb, read, write};
use hypervisor::processor::{controls, stage2};

/// ICC_SRE_EL2.Enable: EL1's accesses to ICC_SRE_EL1 don't trap.
const SRE_ENABLE: u64 = 1 << 3;
/// ICH_HCR_EL2.TC, TALL0, TALL1: EL1's accesses to ICC_* trap. En is 0: there is no virtual CPU interface.
const ALL_TRAP: u64 = 0b111 << 10;

/// Makes this CPU one that runs firmware, for ever. After the CPU interface was set up.
pub fn dedicate() {
    if v2::in_use() {
        // No firmware has the GIC mapped, and there are no system registers.
        return v2::disable_interface();
    }
    write!("icc_sre_el2", read!("icc_sre_el2") & !SRE_ENABLE);
    write!("ich_hcr_el2", ALL_TRAP);
    isb(); // in force before firmware runs
}

/// Raises or lowers the firmware's interrupt.
pub fn set_virtual_interrupt(raised: bool) {
    controls::set_virtual_interrupt(&mut This, raised);
}

/// Nobody's tables: an address that firmware's translation can't go wrong with while none is loaded.
pub fn use_tables(vttbr: u64) {
    stage2::leave(&mut This, vttbr);
}

/// The loaded firmware starts anew, in an image that somebody else wrote: nothing is left of what this CPU knew of its tables and instructions.
pub fn forget_firmware() {
    stage2::forget_guest(&mut This);
}
