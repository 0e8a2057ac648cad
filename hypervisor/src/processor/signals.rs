//! Telling other CPUs something: what it is about is visible before they hear of it, and before this one sleeps.
//!
//! An SGI, an event or an interrupt taken orders no memory accesses of the CPU that sends or sleeps (Arm ARM DDI 0487, B2.3: barriers; Arm IHI 0069, 12.2: a
//! write of ICC_SGI1R_EL1 is synchronised as any other of a system register).

use super::{Dsb, Processor};

/// Sends SGI `number` (below 16) to the CPU with this affinity (MPIDR_EL1: Aff3 in bits 39:32), by a GICv3's CPU interface.
#[inline(always)]
pub fn send(cpu: &mut impl Processor, affinity: u64, number: u32) {
    /// Where ICC_SGI1R_EL1 has Aff3, Aff2, Aff1 and the SGI; its bits 15:0 are CPUs by their Aff0.
    const FIELDS: [(u64, u64); 3] = [(32, 48), (16, 32), (8, 16)];
    let aff0 = affinity & 0xf;
    let mut value = u64::from(number & 0xf) << 24 | 1 << aff0;
    for (from, to) in FIELDS {
        value |= (affinity >> from & 0xff) << to;
    }
    before(cpu);
    cpu.sgi(value);
    cpu.isb(); // sent before what follows, for instance sleeping
}

/// What another CPU is told about is visible to it: before it is told by a store to a GICv2's distributor.
#[inline(always)]
pub fn before(cpu: &mut impl Processor) {
    cpu.dsb(Dsb::Ishst); // stores are visible before the signal arrives
}

/// Sleeps until an interrupt is pending, masked or not.
#[inline(always)]
pub fn sleep(cpu: &mut impl Processor) {
    cpu.dsb(Dsb::Sy); // stores (a vCPU's state) are visible to whoever sends the interrupt
    cpu.wfi();
}

/// Wakes all CPUs that wait for an event.
#[inline(always)]
pub fn wake(cpu: &mut impl Processor) {
    cpu.dsb(Dsb::Sy); // who wakes sees why, even with its caches off if that was cleaned
    cpu.sev();
}
