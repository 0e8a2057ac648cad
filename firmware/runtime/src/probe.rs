//! Instructions that a firmware has no business with, for the hostile one.

use crate::exception::unexpected;
use core::arch::asm;
use fw_logic::probes::{PROBES, came};

macro_rules! functions {
    ($(($text:literal, $expectation:ident)),* $(,)?) => {
        const INSTRUCTIONS: [fn() -> u64; PROBES.len()] = [$({
            fn run() -> u64 {
                let mut value = 0_u64;
                // SAFETY: none can be given, it is what is tried. The firmware relies on none of what these instructions may change;
                // X0 to X3 count as changed, since calls answer there.
                unsafe {
                    asm!($text, inout("x9") value, out("x0") _, out("x1") _, out("x2") _, out("x3") _, options(nostack));
                }
                value
            }
            run
        }),*];
    };
}
fw_logic::probes!(functions);

/// Runs a probe; gives what came of it and its report's second word.
pub fn run(index: usize) -> (u64, u64) {
    let Some(instruction) = INSTRUCTIONS.get(index) else {
        return (came::NOTHING, 0);
    };
    match unexpected(instruction) {
        (value, None) => (came::EXECUTED, value),
        // Class 0: undefined (Arm ARM, ESR_EL1.EC).
        (_, Some(syndrome)) if syndrome >> 26 & 0x3f == 0 => (came::UNDEFINED, syndrome),
        (_, Some(syndrome)) => (came::EXCEPTION, syndrome),
    }
}

macro_rules! registers {
    ($($name:literal),* $(,)?) => {
        /// Registers that belong to the firmware, by name, and how to reach them.
        const REGISTERS: &[(fn() -> u64, fn(u64))] = &[$((
            || {
                let value;
                // SAFETY: reads a register that has no side effect.
                unsafe { asm!(concat!("mrs {0}, ", $name), out(reg) value, options(nomem, nostack)) };
                value
            },
            |value| {
                // SAFETY: with the MMU off, interrupts masked and no EL0, nothing depends on these registers' values.
                unsafe { asm!(concat!("msr ", $name, ", {0}"), "isb", in(reg) value, options(nomem, nostack)) };
            },
        )),*];
    };
}
registers!(
    "tpidr_el1",
    "tpidr_el0",
    "tpidrro_el0",
    "contextidr_el1",
    "ttbr0_el1",
    "ttbr1_el1",
    "mair_el1",
    "sp_el0",
    "cntv_cval_el0",
    "par_el1",
    "elr_el1",
    "spsr_el1",
    "esr_el1",
    "far_el1",
);
/// Those of them that keep what is written and that no exception changes: from the start.
const KEPT: usize = 9;

/// How many of the firmware's own registers aren't 0: before it wrote them, that is somebody else's value.
pub fn not_zero() -> u64 {
    REGISTERS.iter().filter(|(read, _)| read() != 0).count() as u64
}

/// Writes a pattern derived from `seed` to all registers that keep it; reading back tells what each keeps of it.
pub fn fill(seed: u64) -> [u64; KEPT] {
    let mut kept = [0; KEPT];
    for (index, (slot, (read, write))) in (1..).zip(kept.iter_mut().zip(REGISTERS)) {
        write(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(index)));
        *slot = read();
    }
    kept
}

/// How many registers no longer hold what [`fill`] left.
pub fn changed(kept: &[u64; KEPT]) -> u64 {
    let pairs = kept.iter().zip(REGISTERS);
    pairs.filter(|(value, (read, _))| read() != **value).count() as u64
}

/// Lets floating-point instructions through at EL1, as far as EL2 does.
pub fn allow_floating_point() {
    // SAFETY: CPACR_EL1.FPEN; the firmware's own code has no such instructions.
    unsafe { asm!("msr cpacr_el1, {0}", "isb", in(reg) 3_u64 << 20, options(nomem, nostack)) };
}

/// Branches to an address.
pub fn branch(address: u64) {
    // SAFETY: none can be given: it is what is tried, and the firmware expects to end here.
    unsafe { asm!("blr {0}", in(reg) address, clobber_abi("C")) };
}
