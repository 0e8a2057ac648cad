//! Round trips into the hypervisor and back, in loops of fixed instructions.
//!
//! Each loop is the operation, its operands where it destroys them, a decrement and a branch: two or three instructions besides the
//! operation. They are part of the number, as in the numbers of other hypervisors that these are compared with.

use core::arch::asm;
use guest_runtime::machine::{gicd, ticks, uart};

/// PSCI_VERSION.
const VERSION: u64 = 0x8400_0000;
/// PSCI_FEATURES.
const FEATURES: u64 = 0x8400_000a;
const CPU_ON: u64 = 0xc400_0003;

/// Ticks that `repetitions` of something took; once before, for what happens only at first.
pub fn measure(repetitions: u64, mut run: impl FnMut(u64)) -> u64 {
    run(16);
    let before = ticks();
    run(repetitions);
    ticks() - before
}

fn version(repetitions: u64) {
    // SAFETY: an SMCCC call, which leaves x18 to x30 and memory alone.
    unsafe {
        asm!(
            "2: mov x0, {function}",
            "hvc #0",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            function = in(reg) VERSION,
            n = inout(reg) repetitions => _,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
            out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack)
        );
    }
}

fn features(repetitions: u64) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "2: mov x0, {function}",
            "mov x1, {about}",
            "hvc #0",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            function = in(reg) FEATURES,
            about = in(reg) CPU_ON,
            n = inout(reg) repetitions => _,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _,
            out("x6") _, out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _,
            out("x12") _, out("x13") _, out("x14") _, out("x15") _, out("x16") _, out("x17") _,
            options(nostack)
        );
    }
}

/// Reads a register again and again.
pub fn reads(address: u64, repetitions: u64) {
    // SAFETY: callers name device registers whose reads have no side effect.
    unsafe {
        asm!(
            "2: ldr {value:w}, [{address}]",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            value = out(reg) _,
            address = in(reg) address,
            n = inout(reg) repetitions => _,
            options(nostack)
        );
    }
}

/// SGI 0 for no CPU: an empty target list.
fn sgi_none(repetitions: u64) {
    // SAFETY: interrupts nobody.
    unsafe {
        asm!(
            "2: msr icc_sgi1r_el1, xzr",
            "subs {n}, {n}, #1",
            "b.ne 2b",
            n = inout(reg) repetitions => _,
            options(nostack)
        );
    }
}

/// The empty loop, which shows that a tick is what it is taken for.
fn nothing(repetitions: u64) {
    // SAFETY: counts down.
    unsafe {
        asm!(
            "2: subs {n}, {n}, #1",
            "b.ne 2b",
            n = inout(reg) repetitions => _,
            options(nomem, nostack)
        );
    }
}

/// All rows of this module: name and ticks.
pub fn run(repetitions: u64, row: &mut dyn FnMut(&'static str, u64)) {
    row("loop", measure(repetitions, nothing));
    row("hvc", measure(repetitions, version));
    row("hvc_features", measure(repetitions, features));
    let mut register = |name, address| row(name, measure(repetitions, |n| reads(address, n)));
    // GICD_TYPER, GICD_ISENABLER1, UARTFR, UARTRIS.
    register("gicd_read", gicd() + 0x4);
    register("gicd_isenabler_read", gicd() + 0x104);
    register("uart_read", uart() + 0x18);
    register("uart_ris_read", uart() + 0x3c);
    row("sgi_none", measure(repetitions, sgi_none));
}
