//! All that touches the machine: counter, registers, interrupt controller, UART, power.

use core::arch::asm;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::tree::Tree;

// Where QEMU `virt` has them, until the device tree says something else.
static GICD: AtomicU64 = AtomicU64::new(0x0800_0000);
static GICR: AtomicU64 = AtomicU64::new(0x080a_0000);
static UART: AtomicU64 = AtomicU64::new(0x0900_0000);

const GICR_SIZE: u64 = 0x2_0000;
const GICR_SGI: u64 = 0x1_0000;
const GICR_WAKER: u64 = 0x14;
/// PCIe configuration space.
pub const ECAM: u64 = 0x40_1000_0000;
/// Start of PCI memory below 4 GiB.
pub const PCI_MEMORY: u64 = 0x1000_0000;
/// INTID of INTA of PCI slot 0.
pub const PCI_INTX: u32 = 35;
/// INTID of the physical timer.
pub const PHYSICAL_TIMER: u32 = 30;
/// INTID of the virtual timer.
pub const TIMER: u32 = 27;

/// Learns where the devices are.
pub fn find_devices(tree: &Tree<'_>) {
    for (place, compatible, index) in [
        (&GICD, b"arm,gic-v3".as_slice(), 0),
        (&GICR, b"arm,gic-v3", 1),
        (&UART, b"arm,pl011", 0),
        (&UART, b"arm,sbsa-uart", 0),
    ] {
        if let Some(address) = tree.address(compatible, index) {
            place.store(address, Ordering::Relaxed);
        }
    }
}

/// GICv3 distributor.
pub fn gicd() -> u64 {
    GICD.load(Ordering::Relaxed)
}

/// PL011, or what looks like one.
pub fn uart() -> u64 {
    UART.load(Ordering::Relaxed)
}

/// The virtual counter.
#[inline(always)]
pub fn ticks() -> u64 {
    let value;
    // SAFETY: reads a counter; a compiler barrier besides, as memory is not said to be untouched.
    unsafe { asm!("mrs {}, cntvct_el0", out(reg) value, options(nostack)) };
    value
}

/// The counter's frequency in Hz.
pub fn frequency() -> u64 {
    let value;
    // SAFETY: reads a register without side effect.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) value, options(nomem, nostack)) };
    value
}

/// Reads a 32-bit device register.
#[inline(always)]
pub fn read(address: u64) -> u32 {
    let value;
    // SAFETY: callers name device registers only; those aren't the compiler's memory. A plain LDR, which a trap describes.
    unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Writes a 32-bit device register.
#[inline(always)]
pub fn write(address: u64, value: u32) {
    // SAFETY: as for `read`.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// This vCPU's number.
pub fn number() -> u64 {
    let value: u64;
    // SAFETY: reads a register without side effect.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) value, options(nomem, nostack)) };
    value & 0xff
}

/// This vCPU's redistributor; its SGI_base follows RD_base.
fn redistributor() -> u64 {
    GICR.load(Ordering::Relaxed) + number() * GICR_SIZE
}

/// Prepares the interrupt controller for group 1 interrupts of any priority, and lets the CPU take them.
pub fn start_interrupts() {
    write(gicd(), 0x12); // ARE_NS, EnableGrp1A as seen without security extensions: bits 4 and 1
    write(redistributor() + GICR_WAKER, 0);
    // SAFETY: switches the CPU interface on; the vectors are in place.
    unsafe {
        asm!(
            "msr icc_sre_el1, {one}",
            "isb",
            "msr icc_pmr_el1, {all}",
            "msr icc_bpr1_el1, xzr",
            "msr icc_ctlr_el1, xzr",
            "msr icc_igrpen1_el1, {one}",
            "isb",
            "msr daifclr, #2",
            one = in(reg) 7u64,
            all = in(reg) 0xffu64,
            options(nostack)
        );
    }
}

/// Enables an interrupt: level-sensitive, group 1, middle priority, for this CPU.
pub fn enable_interrupt(intid: u32) {
    let private = intid < 32;
    let base = if private {
        redistributor() + GICR_SGI
    } else {
        gicd()
    };
    let (word, bit) = (u64::from(intid / 32) * 4, 1 << (intid % 32));
    let group = base + 0x80 + word;
    write(group, read(group) | bit);
    let priority = base + 0x400 + u64::from(intid & !3);
    let shift = intid % 4 * 8;
    write(priority, read(priority) & !(0xff << shift) | 0x80 << shift);
    if !private {
        // IROUTER: affinity 0.0.0.0.
        let route = gicd() + 0x6000 + u64::from(intid) * 8;
        write(route, 0);
        write(route + 4, 0);
    }
    write(base + 0x100 + word, bit);
}

/// Enables a shared interrupt as edge-triggered.
pub fn enable_edge(intid: u32) {
    let configuration = gicd() + 0xc00 + u64::from(intid / 16) * 4;
    write(configuration, read(configuration) | 2 << (intid % 16 * 2));
    enable_interrupt(intid);
}

/// Takes the highest-priority pending interrupt.
pub fn acknowledge() -> u32 {
    let value: u64;
    // SAFETY: the interrupt handler's part of the protocol.
    unsafe { asm!("mrs {}, icc_iar1_el1", out(reg) value, options(nostack)) };
    value as u32
}

/// Ends an interrupt.
pub fn end(intid: u32) {
    // SAFETY: the interrupt handler's part of the protocol.
    unsafe { asm!("msr icc_eoir1_el1, {}", in(reg) u64::from(intid), options(nostack)) };
}

/// Writes ICC_SGI1R_EL1.
#[inline(always)]
pub fn send_sgi(value: u64) {
    // SAFETY: sends interrupts that the handler knows.
    unsafe { asm!("msr icc_sgi1r_el1, {}", "isb", in(reg) value, options(nostack)) };
}

/// Makes the virtual timer fire at a counter value.
#[inline(always)]
pub fn start_timer(at: u64) {
    // SAFETY: the timer is this program's.
    unsafe {
        asm!(
            "msr cntv_cval_el0, {at}",
            "msr cntv_ctl_el0, {on}",
            "isb",
            at = in(reg) at,
            on = in(reg) 1u64,
            options(nostack)
        );
    }
}

/// Stops the virtual timer.
pub fn stop_timer() {
    // SAFETY: as above.
    unsafe { asm!("msr cntv_ctl_el0, xzr", "isb", options(nostack)) };
}

/// The physical counter.
pub fn physical_ticks() -> u64 {
    let value;
    // SAFETY: reads a counter, not ahead of what precedes.
    unsafe { asm!("isb", "mrs {}, cntpct_el0", out(reg) value, options(nostack)) };
    value
}

/// Makes the physical timer fire so many ticks from now; negative: at once.
pub fn start_physical_timer(ahead: i32) {
    // SAFETY: the timer is this program's.
    unsafe {
        asm!(
            "msr cntp_tval_el0, {ahead:x}",
            "msr cntp_ctl_el0, {on}",
            "isb",
            ahead = in(reg) ahead,
            on = in(reg) 1u64,
            options(nostack)
        );
    }
}

/// Masks the physical timer's interrupt; the timer goes on.
pub fn mask_physical_timer() {
    // SAFETY: as above.
    unsafe { asm!("msr cntp_ctl_el0, {}", "isb", in(reg) 3u64, options(nostack)) };
}

/// The physical timer's registers: control, compare value, timer value.
pub fn physical_timer() -> (u64, u64, u64) {
    let (control, compare, value);
    // SAFETY: reads registers without side effect, in this order.
    unsafe {
        asm!(
            "mrs {}, cntp_ctl_el0", "mrs {}, cntp_cval_el0", "mrs {}, cntp_tval_el0",
            out(reg) control, out(reg) compare, out(reg) value, options(nostack)
        );
    }
    (control, compare, value)
}

/// Waits for an interrupt.
pub fn wait() {
    // SAFETY: nothing but time passes.
    unsafe { asm!("wfi", options(nostack)) };
}

/// Waits for interrupts until one of them has made this true.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    loop {
        // SAFETY: interrupts are masked from the look at the condition to the wait, which ends with one that is pending, so none
        // is slept through.
        unsafe { asm!("msr daifset, #2", options(nostack)) };
        let is_done = done();
        if !is_done {
            wait();
        }
        // SAFETY: as above.
        unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) };
        if is_done {
            return;
        }
    }
}

/// Executes `count` % 16 instructions more than for `count` = 0.
///
/// A tick of the counter is 16 instructions. Spans shorter than that come out right in the mean only if they begin at every phase of a
/// tick equally often; added up over the repetitions, delays of 0, 1, 2, … see to that (triangular numbers take all values modulo 2ⁿ).
#[inline(always)]
pub fn shift_phase(count: u64) {
    // SAFETY: jumps into a row of NOPs, at most 15 before its end.
    unsafe {
        asm!(
            "adr {to}, 2f",
            "sub {to}, {to}, {count}, lsl #2",
            "br {to}",
            "nop", "nop", "nop", "nop", "nop",
            "nop", "nop", "nop", "nop", "nop",
            "nop", "nop", "nop", "nop", "nop",
            "2:",
            to = out(reg) _,
            count = in(reg) count % 16,
            options(nomem, nostack)
        );
    }
}

/// Keeps interrupts pending: they end a WFI, but aren't taken.
pub fn mask_interrupts() {
    // SAFETY: masks.
    unsafe { asm!("msr daifset, #2", options(nostack)) };
}

/// Starts vCPU 1 (PSCI CPU_ON).
pub fn start_second() -> Result<(), &'static str> {
    unsafe extern "C" {
        static second_start: u8;
    }
    let answer: u64;
    // SAFETY: the other vCPU begins at code meant for it, on a stack of its own.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") 0xc400_0003u64 => answer,
            inout("x1") 1u64 => _,
            inout("x2") (&raw const second_start) as u64 => _,
            inout("x3") 0u64 => _,
            options(nostack)
        );
    }
    if answer == 0 {
        Ok(())
    } else {
        Err("the second vCPU doesn't start")
    }
}

/// Switches the domain off.
pub fn off() -> ! {
    // SAFETY: PSCI SYSTEM_OFF; it doesn't come back.
    unsafe { asm!("hvc #0", in("x0") 0x8400_0008u64, options(nostack)) };
    loop {
        wait();
    }
}

/// The console.
pub struct Console;

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let uart = uart();
        for byte in text.bytes() {
            while read(uart + 0x18) & 1 << 5 != 0 {}
            write(uart, u32::from(byte));
        }
        Ok(())
    }
}
