//! Names and accesses of the interrupt controller (Arm IHI 0069).

use crate::exception::{read, write};
use core::arch::asm;

pub const GICD: u64 = 0x0800_0000;
/// Redistributor 0, and the distance to the next.
pub const GICR: u64 = 0x080a_0000;
pub const GICR_SIZE: u64 = 0x2_0000;
/// SGI frame of redistributor 0.
pub const SGI: u64 = GICR + 0x1_0000;

pub const PMR: [u32; 5] = [3, 0, 4, 6, 0];
pub const IAR0: [u32; 5] = [3, 0, 12, 8, 0];
pub const EOIR0: [u32; 5] = [3, 0, 12, 8, 1];
pub const BPR0: [u32; 5] = [3, 0, 12, 8, 3];
pub const DIR: [u32; 5] = [3, 0, 12, 11, 1];
pub const RPR: [u32; 5] = [3, 0, 12, 11, 3];
pub const SGI1R: [u32; 5] = [3, 0, 12, 11, 5];
pub const IAR1: [u32; 5] = [3, 0, 12, 12, 0];
pub const EOIR1: [u32; 5] = [3, 0, 12, 12, 1];
pub const HPPIR1: [u32; 5] = [3, 0, 12, 12, 2];
pub const BPR1: [u32; 5] = [3, 0, 12, 12, 3];
pub const CTLR: [u32; 5] = [3, 0, 12, 12, 4];
pub const SRE: [u32; 5] = [3, 0, 12, 12, 5];
pub const IGRPEN0: [u32; 5] = [3, 0, 12, 12, 6];
pub const IGRPEN1: [u32; 5] = [3, 0, 12, 12, 7];
/// ISR_EL1: I is bit 7, F bit 6.
pub const ISR: [u32; 5] = [3, 0, 12, 1, 0];

/// Per-interrupt registers: offsets of word 0.
pub const GROUP: u64 = 0x80;
pub const SET_ENABLE: u64 = 0x100;
pub const CLEAR_ENABLE: u64 = 0x180;
pub const SET_PENDING: u64 = 0x200;
pub const CLEAR_PENDING: u64 = 0x280;
pub const SET_ACTIVE: u64 = 0x300;
pub const CLEAR_ACTIVE: u64 = 0x380;
pub const PRIORITY: u64 = 0x400;
pub const CONFIG: u64 = 0xc00;

macro_rules! access {
    ($load:ident, $store:ident, $ldr:literal, $str:literal) => {
        /// Reads a device register of this width.
        pub fn $load(address: u64) -> u64 {
            let value: u64;
            // SAFETY: callers name device registers only.
            unsafe { asm!($ldr, value = out(reg) value, at = in(reg) address, options(nostack)) };
            value
        }

        /// Writes a device register of this width.
        pub fn $store(address: u64, value: u64) {
            // SAFETY: as above.
            unsafe { asm!($str, value = in(reg) value, at = in(reg) address, options(nostack)) };
        }
    };
}

access!(
    read8,
    write8,
    "ldrb {value:w}, [{at}]",
    "strb {value:w}, [{at}]"
);
access!(
    read32,
    write32,
    "ldr {value:w}, [{at}]",
    "str {value:w}, [{at}]"
);
access!(
    read64,
    write64,
    "ldr {value}, [{at}]",
    "str {value}, [{at}]"
);

/// An interrupt's bit in a set of registers of distributor or this CPU's redistributor.
pub fn bit(set: u64, intid: u64) -> u64 {
    read32(base(intid) + set + intid / 32 * 4) >> (intid % 32) & 1
}

/// Writes an interrupt's bit there, zeros besides.
pub fn set(set: u64, intid: u64) {
    write32(base(intid) + set + intid / 32 * 4, 1 << (intid % 32));
}

/// Sets an interrupt's priority.
pub fn priority(intid: u64, value: u64) {
    write8(base(intid) + PRIORITY + intid, value);
}

/// Makes an SPI edge-triggered or level-sensitive.
pub fn edge(intid: u64, edge: bool) {
    let at = base(intid) + CONFIG + intid / 16 * 4;
    let mask = 2 << (intid % 16 * 2);
    let others = read32(at) & !mask;
    write32(at, if edge { others | mask } else { others });
}

/// Puts an interrupt into group 1 or 0.
pub fn group(intid: u64, one: bool) {
    let at = base(intid) + GROUP + intid / 32 * 4;
    let mask = 1 << (intid % 32);
    let others = read32(at) & !mask;
    write32(at, if one { others | mask } else { others });
}

fn base(intid: u64) -> u64 {
    if intid < 32 { SGI } else { GICD }
}

/// An interrupt that nothing but software causes: group 1, edge, for this CPU, this priority.
pub fn prepare(intid: u64, value: u64) {
    set(CLEAR_ENABLE, intid);
    group(intid, true);
    priority(intid, value);
    if intid >= 32 {
        edge(intid, true);
        write64(GICD + 0x6000 + intid * 8, 0);
    }
    set(CLEAR_PENDING, intid);
    set(CLEAR_ACTIVE, intid);
    set(SET_ENABLE, intid);
}

/// Whether an IRQ (bit 1) or FIQ (bit 0) is signalled.
pub fn signalled() -> u64 {
    read(ISR) >> 6 & 3
}

/// Takes the highest group 1 interrupt.
pub fn take() -> u64 {
    read(IAR1)
}

/// Ends a group 1 interrupt.
pub fn end(intid: u64) {
    write(EOIR1, intid);
}
