//! What EL2 wrote, seen by who doesn't look into caches, or looks into another one.
//!
//! A guest that starts has its MMU and caches off, and a device may not snoop: they see memory (Arm ARM DDI 0487, D7.5: cache maintenance, the
//! point of coherency). Instruction caches needn't see stores at all (B2.2.5: concurrent modification and execution of instructions).

use super::{Dc, Dsb, Ic, Processor};

/// Cleans these bytes to the point of coherency.
#[inline(always)]
pub fn clean(cpu: &mut impl Processor, start: usize, bytes: usize) {
    let operation = cpu.cleaning();
    each_line(cpu, operation, start, bytes);
    cpu.dsb(Dsb::Sy); // the cleaning has reached memory before anything that follows
}

/// Cleans and invalidates these bytes to the point of coherency: the next load sees what others wrote to memory.
#[inline(always)]
pub fn flush(cpu: &mut impl Processor, start: usize, bytes: usize) {
    each_line(cpu, Dc::CleanInvalidate, start, bytes);
    cpu.dsb(Dsb::Sy); // caches hold nothing of the range before anything that follows
}

#[inline(always)]
fn each_line(cpu: &mut impl Processor, operation: Dc, start: usize, bytes: usize) {
    let line = cpu.cache_line().max(1);
    let mut at = start & !line.wrapping_sub(1);
    let lines = start
        .saturating_add(bytes)
        .saturating_sub(at)
        .div_ceil(line);
    for _ in 0..lines {
        cpu.dc(operation, at);
        at = at.wrapping_add(line);
    }
}

/// Makes stores to a table visible to its walker, in order before what follows: cleaned if the walker doesn't look into caches.
#[inline(always)]
pub fn publish(cpu: &mut impl Processor, start: usize, bytes: usize, coherent: bool) {
    if coherent {
        cpu.dsb(Dsb::Ishst); // descriptors are visible to the CPUs' walkers before what follows
    } else {
        clean(cpu, start, bytes);
    }
}

/// Makes stores visible to a device, before all later stores and register writes.
pub fn publish_to_device(cpu: &mut impl Processor, start: usize, bytes: usize, coherent: bool) {
    if coherent {
        cpu.dsb(Dsb::Sy); // it may be outside the inner shareable domain
    } else {
        clean(cpu, start, bytes);
    }
}

/// Makes sure that what a device has written is what is loaded next, after a register has told of it.
pub fn observe_device(cpu: &mut impl Processor, start: usize, bytes: usize, coherent: bool) {
    cpu.dsb(Dsb::Sy); // the register was read before the data is, or their lines are forgotten
    if !coherent {
        flush(cpu, start, bytes);
    }
}

/// No CPU executes what it fetched of memory that has been given new instructions since, and that was cleaned.
#[inline(always)]
pub fn forget_instructions(cpu: &mut impl Processor) {
    cpu.ic(Ic::IalluIs);
    cpu.dsb(Dsb::Ish); // forgotten by all CPUs ...
    cpu.isb(); // ... and by what this one has fetched already
}
