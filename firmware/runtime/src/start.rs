//! From the first instruction to Rust.

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use fw_logic::protocol::exit;

/// All general registers but X0 as they were at the first instruction, ORed together.
#[unsafe(no_mangle)]
static FW_INITIAL_REGISTERS: AtomicU64 = AtomicU64::new(0);

// X0 is the argument. Nothing is known of SPSel and DAIF but what the interface says; setting them costs nothing.
global_asm!(
    ".section .head, \"ax\"",
    ".global _start",
    "_start:",
    "orr x1, x1, x2",
    ".irp n, 3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30",
    "orr x1, x1, x\\n",
    ".endr",
    "mov x19, x1",
    "msr spsel, #1",
    "msr daifset, #0xf",
    "adrp x1, _stack_top",
    "add x1, x1, :lo12:_stack_top",
    "mov sp, x1",
    "adrp x1, _bss_start",
    "add x1, x1, :lo12:_bss_start",
    "adrp x2, _bss_end",
    "add x2, x2, :lo12:_bss_end",
    "0: cmp x1, x2",
    "b.hs 1f",
    "stp xzr, xzr, [x1], #16",
    "b 0b",
    "1: adrp x1, fw_vectors",
    "add x1, x1, :lo12:fw_vectors",
    "msr vbar_el1, x1",
    "isb",
    "adrp x1, FW_INITIAL_REGISTERS",
    "str x19, [x1, :lo12:FW_INITIAL_REGISTERS]",
    "mov x29, xzr",
    "mov x30, xzr",
    "bl firmware_main",
    "mov w0, #{returned_low}",
    "movk w0, #{returned_high}, lsl #16",
    "b fw_exit",
    ".previous",
    returned_low = const exit::RETURNED & 0xffff,
    returned_high = const exit::RETURNED >> 16,
);

/// All general registers but X0 as they were at the first instruction, ORed together: 0 if Baton does what it says.
pub fn initial_registers() -> u64 {
    FW_INITIAL_REGISTERS.load(Ordering::Relaxed)
}
