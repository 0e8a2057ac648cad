//! The machine's RAM as EL2 reaches it: mapped linearly at [`super::mmu::DIRECT_BASE`].
//!
//! This memory belongs to no Rust object. Domains and devices write it whenever they like, so it's reached only by
//! volatile accesses and copies, never by reference; what must be parsed (the device tree, modules) is in ranges that nobody
//! was given. Every function checks that the range is RAM that was announced by [`announce`].

use super::access;
use super::mmu::DIRECT_BASE;
use super::processor::This;
use super::registers::read;
use arrayvec::ArrayVec;
use coproc_core::address::HostPhysical;
use hypervisor::memory::blocks;
use hypervisor::processor::caches;
use spin::Once;

/// Ranges of RAM that the linear mapping has.
static RAM: Once<ArrayVec<(u64, u64), 16>> = Once::new();
/// The one range that the boot tables have.
static EARLY: Once<(u64, u64)> = Once::new();

/// Tells which range the boot tables have, until [`announce`].
pub fn announce_early(start: u64, end: u64) {
    EARLY.call_once(|| (start, end));
}

/// Tells which ranges (start, end) the linear mapping has. Once, when it has them.
pub fn announce(ranges: ArrayVec<(u64, u64), 16>) {
    RAM.call_once(|| ranges);
}

fn pointer(start: HostPhysical, bytes: u64) -> Option<*mut u8> {
    let end = start.get().checked_add(bytes)?;
    let within = |&(low, high): &(u64, u64)| low <= start.get() && end <= high;
    let known = match RAM.get() {
        Some(ranges) => ranges.iter().any(within),
        None => EARLY.get().is_some_and(within),
    };
    known.then(|| (DIRECT_BASE + start.get() as usize) as *mut u8)
}

/// Reads an aligned 64-bit word; 0 if it isn't RAM.
pub fn read64(address: HostPhysical) -> u64 {
    match pointer(address, 8) {
        // SAFETY: `pointer` checked that this is mapped RAM; alignment is masked; volatile, since others may write it.
        Some(pointer) if address.is_aligned(8) => unsafe { access::read64(pointer.cast()) },
        _ => 0,
    }
}

/// Writes an aligned 64-bit word, in one store; ignored if it isn't RAM.
pub fn write64(address: HostPhysical, value: u64) {
    if let (Some(pointer), true) = (pointer(address, 8), address.is_aligned(8)) {
        // SAFETY: as for `read64`; no Rust object lives in this memory.
        unsafe { access::write64(pointer.cast(), value) }
    }
}

/// Fills with zeroes. Returns whether the range was RAM.
pub fn zero(start: HostPhysical, bytes: u64) -> bool {
    let Some(pointer) = pointer(start, bytes) else {
        return false;
    };
    let (begin, bytes) = (pointer as usize, bytes as usize);
    let end = begin.saturating_add(bytes);
    let Some(block) = blocks::zeroed_at_once(read!("dczid_el0")) else {
        clear(begin, end);
        return true;
    };
    let whole = blocks::whole(begin, bytes, block);
    clear(begin, whole.start);
    let mut at = whole.start;
    while at < whole.end {
        // SAFETY: a store of zeroes to the block at `at`, which is within mapped RAM in which no Rust object lives.
        unsafe { access::clear_block(at) };
        at = at.wrapping_add(block);
    }
    clear(whole.end, end);
    true
}

/// Fills what `pointer` said to be RAM with zeroes, by stores.
fn clear(begin: usize, end: usize) {
    let bytes = end.saturating_sub(begin);
    // SAFETY: `zero` got the range from `pointer`: mapped RAM in which no Rust object lives.
    unsafe { access::clear(begin as *mut u8, bytes) };
}

/// Copies `data` to RAM. Returns whether the range was RAM.
pub fn store(start: HostPhysical, data: &[u8]) -> bool {
    let Some(pointer) = pointer(start, data.len() as u64) else {
        return false;
    };
    // SAFETY: the destination is mapped RAM in which no Rust object lives; a caller's slice can't overlap it, unless it came
    // from `shared`, whose ranges nobody writes.
    unsafe { access::copy(data.as_ptr(), pointer, data.len()) };
    true
}

/// Copies RAM to `into`, as memory has it: a domain may have written it with its caches off. Returns whether the range was RAM.
pub fn load(start: HostPhysical, into: &mut [u8]) -> bool {
    let bytes = into.len() as u64;
    let Some(pointer) = pointer(start, bytes) else {
        return false;
    };
    flush(start, bytes);
    // SAFETY: the source is mapped RAM; what others write to it meanwhile makes the bytes old or new, all of them valid. `into` can't
    // overlap it, since no Rust object lives there.
    unsafe { core::ptr::copy(pointer, into.as_mut_ptr(), into.len()) };
    true
}

/// A range of RAM as a slice.
///
/// Only for ranges that are never written while the slice is used: the device tree and the boot modules, which the
/// frame allocator doesn't have. `None` if it isn't RAM.
pub fn shared(start: HostPhysical, bytes: u64) -> Option<&'static [u8]> {
    let pointer = pointer(start, bytes)?;
    // SAFETY: mapped RAM; callers keep the promise in this function's documentation.
    Some(unsafe { core::slice::from_raw_parts(pointer, bytes as usize) })
}

/// Cleans a range to the point of coherency, for observers whose accesses don't look into caches. Nothing if it isn't RAM.
pub fn clean(start: HostPhysical, bytes: u64) {
    if let Some(pointer) = pointer(start, bytes) {
        caches::clean(&mut This, pointer as usize, bytes as usize);
    }
}

/// Cleans and invalidates a range to the point of coherency. Nothing if it isn't RAM.
pub fn flush(start: HostPhysical, bytes: u64) {
    if let Some(pointer) = pointer(start, bytes) {
        caches::flush(&mut This, pointer as usize, bytes as usize);
    }
}

/// See [`caches::publish_to_device`]. Nothing if it isn't RAM.
#[cfg(feature = "sharing")]
pub fn publish_to_device(start: HostPhysical, bytes: u64, coherent: bool) {
    if let Some(pointer) = pointer(start, bytes) {
        caches::publish_to_device(&mut This, pointer as usize, bytes as usize, coherent);
    }
}

/// See [`caches::observe_device`]. Nothing if it isn't RAM.
#[cfg(feature = "sharing")]
pub fn observe_device(start: HostPhysical, bytes: u64, coherent: bool) {
    if let Some(pointer) = pointer(start, bytes) {
        caches::observe_device(&mut This, pointer as usize, bytes as usize, coherent);
    }
}

/// No CPU executes what it fetched of memory that has been given new instructions since, and that was cleaned.
pub fn forget_instructions() {
    caches::forget_instructions(&mut This);
}

/// Makes stores visible to a table walker: cleaned if it doesn't look into caches. Nothing if it isn't RAM.
pub fn publish(start: HostPhysical, bytes: u64, coherent: bool) {
    if let Some(pointer) = pointer(start, bytes) {
        caches::publish(&mut This, pointer as usize, bytes as usize, coherent);
    }
}
