//! Exceptions: one that was asked for is noted and stepped over, every other one ends the firmware.

use crate::core_registers::exit;
use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use fw_logic::protocol::exit as code;

/// Number of the vector for synchronous exceptions from this exception level with its own stack (Arm ARM, D1.3.1).
const SYNCHRONOUS: u64 = 4;
/// ESR_ELx.EC of SVC, whose return address is already the next instruction.
const EC_SVC: u64 = 0x15;

static EXPECTED: AtomicBool = AtomicBool::new(false);
static SYNDROME: AtomicU64 = AtomicU64::new(0);

// Each entry says its number; the common part saves what a Rust function may change.
global_asm!(
    ".section .vectors, \"ax\"",
    ".balign 2048",
    ".global fw_vectors",
    "fw_vectors:",
    ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15",
    ".balign 128",
    "stp x0, x1, [sp, #-16]!",
    "mov x0, #\\n",
    "b fw_vector_common",
    ".endr",
    ".balign 128",
    "fw_vector_common:",
    "stp x2, x3, [sp, #-16]!",
    "stp x4, x5, [sp, #-16]!",
    "stp x6, x7, [sp, #-16]!",
    "stp x8, x9, [sp, #-16]!",
    "stp x10, x11, [sp, #-16]!",
    "stp x12, x13, [sp, #-16]!",
    "stp x14, x15, [sp, #-16]!",
    "stp x16, x17, [sp, #-16]!",
    "stp x18, x30, [sp, #-16]!",
    "mrs x1, esr_el1",
    "mrs x2, elr_el1",
    "bl {handle}",
    "msr elr_el1, x0",
    "ldp x18, x30, [sp], #16",
    "ldp x16, x17, [sp], #16",
    "ldp x14, x15, [sp], #16",
    "ldp x12, x13, [sp], #16",
    "ldp x10, x11, [sp], #16",
    "ldp x8, x9, [sp], #16",
    "ldp x6, x7, [sp], #16",
    "ldp x4, x5, [sp], #16",
    "ldp x2, x3, [sp], #16",
    "ldp x0, x1, [sp], #16",
    "eret",
    ".previous",
    handle = sym handle,
);

/// Gives the address to return to.
extern "C" fn handle(vector: u64, syndrome: u64, pc: u64) -> u64 {
    let class = syndrome >> 26 & 0x3f;
    if vector != SYNCHRONOUS {
        exit(code::VECTOR | vector as u32);
    }
    if !EXPECTED.load(Ordering::Relaxed) {
        exit(code::EXCEPTION | class as u32);
    }
    EXPECTED.store(false, Ordering::Relaxed);
    SYNDROME.store(syndrome, Ordering::Relaxed);
    if class == EC_SVC {
        pc
    } else {
        pc.wrapping_add(4)
    }
}

/// Runs `action`, in which one instruction may end in an exception; gives that one's syndrome (ESR_EL1), and `action`'s value in any case.
pub fn unexpected<T>(action: impl FnOnce() -> T) -> (T, Option<u64>) {
    EXPECTED.store(true, Ordering::Relaxed);
    let value = action();
    let came = !EXPECTED.load(Ordering::Relaxed);
    EXPECTED.store(false, Ordering::Relaxed);
    (value, came.then(|| SYNDROME.load(Ordering::Relaxed)))
}
