//! The interrupt controller of either version (GICv3: Arm IHI 0069, GICv2: Arm IHI 0048): names, accesses, and what both have.
//!
//! Interrupts are of the group whose interrupts a kernel takes there: 1 with a GICv3, 0 with a GICv2.

use crate::exception::{read, write};
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_runtime::machine;
use guest_runtime::tree::Tree;

pub const GICD: u64 = 0x0800_0000;
/// CPU interface of a GICv2.
pub const GICC: u64 = 0x0801_0000;
/// Redistributor 0, and the distance to the next.
pub const GICR: u64 = 0x080a_0000;
pub const GICR_SIZE: u64 = 0x2_0000;
/// SGI frame of redistributor 0.
pub const SGI: u64 = GICR + 0x1_0000;

/// Registers of a GICv2's CPU interface.
pub const GICC_CTLR: u64 = GICC;
pub const GICC_PMR: u64 = GICC + 4;
pub const GICC_BPR: u64 = GICC + 8;
pub const GICC_IAR: u64 = GICC + 0xc;
pub const GICC_EOIR: u64 = GICC + 0x10;
pub const GICC_RPR: u64 = GICC + 0x14;
pub const GICC_HPPIR: u64 = GICC + 0x18;
pub const GICC_AIAR: u64 = GICC + 0x20;
pub const GICC_AEOIR: u64 = GICC + 0x24;
pub const GICC_AHPPIR: u64 = GICC + 0x28;
pub const GICC_DIR: u64 = GICC + 0x1000;
/// Distributor registers that only a GICv2 has.
pub const TARGETS: u64 = 0x800;
pub const SGIR: u64 = GICD + 0xf00;
pub const CLEAR_SGI: u64 = GICD + 0xf10;
pub const SET_SGI: u64 = GICD + 0xf20;

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
    read16,
    write16,
    "ldrh {value:w}, [{at}]",
    "strh {value:w}, [{at}]"
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
    if intid < 32 && !is_v2() { SGI } else { GICD }
}

static V2: AtomicBool = AtomicBool::new(false);

/// Learns which version it is.
pub fn find(tree: &Tree<'_>) {
    let v2 = tree.address(b"arm,cortex-a15-gic", 0).is_some();
    V2.store(v2, Ordering::SeqCst);
}

/// Whether it is a GICv2.
pub fn is_v2() -> bool {
    V2.load(Ordering::SeqCst)
}

/// Lets this CPU, the second one, take these private interrupts.
pub fn start(intids: &[u32]) {
    if is_v2() {
        write32(GICC_PMR, 0xff);
        write32(GICC_CTLR, 1);
    } else {
        machine::start_interrupts();
        machine::mask_interrupts();
    }
    for intid in intids {
        if is_v2() {
            write8(GICD + PRIORITY + u64::from(*intid), 0x80);
            write32(GICD + SET_ENABLE, 1 << intid);
        } else {
            machine::enable_interrupt(*intid);
        }
    }
}

/// Where an SPI goes: to this CPU number, or nowhere.
pub fn route(intid: u64, cpu: Option<u64>) {
    if is_v2() {
        let target = cpu.map_or(0, |cpu| 1 << cpu);
        write8(GICD + TARGETS + intid, target);
    } else {
        write64(GICD + 0x6000 + intid * 8, cpu.unwrap_or(0x77));
    }
}

/// An interrupt that nothing but software causes: edge, for this CPU, this priority.
pub fn prepare(intid: u64, value: u64) {
    set(CLEAR_ENABLE, intid);
    group(intid, !is_v2());
    priority(intid, value);
    if intid >= 32 {
        edge(intid, true);
        route(intid, Some(0));
    }
    set(CLEAR_PENDING, intid);
    set(CLEAR_ACTIVE, intid);
    set(SET_ENABLE, intid);
}

/// Lets the distributor pass interrupts on, or only those of the other group.
pub fn forward(on: bool) {
    write32(
        GICD,
        if is_v2() {
            2 - u64::from(on)
        } else {
            1 + 2 * u64::from(on)
        },
    );
}

/// Lets the CPU interface pass interrupts on; with `split`, their end drops the priority only.
pub fn interface(on: bool, split: bool) {
    let (on, split) = (u64::from(on), u64::from(split));
    if is_v2() {
        write32(GICC_CTLR, on | split << 9);
    } else {
        write(CTLR, split << 1);
        write(IGRPEN1, on);
    }
}

/// Sets the priority mask.
pub fn mask(value: u64) {
    if is_v2() {
        write32(GICC_PMR, value);
    } else {
        write(PMR, value);
    }
}

/// How many of a priority's upper bits decide about preemption: 1, 5, or all there are (8).
pub fn binary_point(bits: u64) {
    if is_v2() {
        write32(GICC_BPR, 7 - bits.min(7));
    } else {
        write(BPR1, 8 - bits);
    }
}

/// The running priority; 0xff: none.
pub fn running() -> u64 {
    if is_v2() {
        read32(GICC_RPR)
    } else {
        read(RPR) & 0xff
    }
}

/// The highest interrupt that is pending.
pub fn highest() -> u64 {
    if is_v2() {
        read32(GICC_HPPIR)
    } else {
        read(HPPIR1)
    }
}

/// Deactivates an interrupt.
pub fn deactivate(intid: u64) {
    if is_v2() {
        write32(GICC_DIR, intid);
    } else {
        write(DIR, intid);
    }
}

/// Sends SGI `intid` to the CPUs in this mask.
pub fn send(intid: u64, cpus: u64) {
    if is_v2() {
        write32(SGIR, cpus << 16 | intid);
    } else {
        write(SGI1R, intid << 24 | cpus);
    }
}

/// Sends SGI `intid` to all others.
pub fn send_others(intid: u64) {
    if is_v2() {
        write32(SGIR, 1 << 24 | intid);
    } else {
        write(SGI1R, intid << 24 | 1 << 40);
    }
}

/// Whether an IRQ (bit 1) or FIQ (bit 0) is signalled.
pub fn signalled() -> u64 {
    read(ISR) >> 6 & 3
}

/// Takes the highest interrupt. A GICv2 says in bits 12 to 10 which CPU sent an SGI.
pub fn take() -> u64 {
    if is_v2() {
        read32(GICC_IAR)
    } else {
        read(IAR1)
    }
}

/// Ends an interrupt, by what [`take`] gave.
pub fn end(taken: u64) {
    if is_v2() {
        write32(GICC_EOIR, taken);
    } else {
        write(EOIR1, taken);
    }
}

/// [`take`] on the second CPU, which can't use probes.
pub fn take_here() -> u64 {
    if is_v2() {
        read32(GICC_IAR)
    } else {
        machine::acknowledge().into()
    }
}

/// [`end`] there.
pub fn end_here(taken: u64) {
    if is_v2() {
        write32(GICC_EOIR, taken);
    } else {
        machine::end(taken as u32);
    }
}
