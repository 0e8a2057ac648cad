//! System registers that the `aarch64-cpu` crate doesn't have, and barriers.

use super::processor::This;
use hypervisor::processor::signals;

/// Reads a system register by name.
macro_rules! read {
    ($name:literal) => {{
        let value: u64;
        // SAFETY: reading one of the registers that this program names changes nothing but the destination.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register by name. Not `nomem`: the compiler must not move memory accesses across it.
macro_rules! write {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the registers that this program writes this way concern the guest's state, the GIC CPU
        // interface and the timers; none changes how EL2 itself sees memory.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags));
        }
    }};
}

/// Address of a symbol that may be more than 1 MiB away: the code model (`tiny`) takes nothing to be so far.
macro_rules! far_address {
    ($symbol:path) => {{
        let address: usize;
        // SAFETY: an address is put together; nothing is read. The linker refuses one of more than 48 bits.
        unsafe {
            core::arch::asm!(
                "movz {0}, #:abs_g2:{1}",
                "movk {0}, #:abs_g1_nc:{1}",
                "movk {0}, #:abs_g0_nc:{1}",
                out(reg) address, sym $symbol, options(pure, nomem, nostack, preserves_flags)
            );
        }
        address
    }};
}

pub(crate) use {far_address, read, write};

pub use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTPCT_EL0, ESR_EL2, FAR_EL2, HPFAR_EL2, MPIDR_EL1, TPIDR_EL2,
};

/// Synchronises the instruction stream with what was written to system registers before.
#[inline(always)]
pub fn isb() {
    aarch64_cpu::asm::barrier::isb(aarch64_cpu::asm::barrier::SY);
}

/// Waits until all memory accesses before it are complete, for every observer.
#[inline(always)]
pub fn dsb_sy() {
    aarch64_cpu::asm::barrier::dsb(aarch64_cpu::asm::barrier::SY);
}

/// See [`signals::sleep`].
#[inline(always)]
pub fn wait_for_interrupt() {
    signals::sleep(&mut This);
}

/// RNDRRS: 64 bits of a generator that took new entropy for them, if it could within what the CPU finds a reasonable time (Arm ARM DDI 0487,
/// RNDRRS: NZCV is 0b0100 if not). For CPUs that have FEAT_RNG.
pub fn rndrrs() -> Option<u64> {
    let (value, good): (u64, u64);
    // SAFETY: this CPU has the register, as every other does (`entropy::source`), and reading it changes nothing but the flags.
    unsafe {
        core::arch::asm!("mrs {value}, s3_3_c2_c4_1", "cset {good}, ne", value = out(reg) value, good = out(reg) good, options(nomem, nostack));
    }
    (good != 0).then_some(value)
}
