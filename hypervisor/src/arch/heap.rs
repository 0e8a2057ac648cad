//! The heap: a part of the image, so that nothing has to be known to have it.

use super::registers::far_address;
use buddy_system_allocator::LockedHeap;
use core::cell::UnsafeCell;

const HEAP: usize = 4 << 20;

#[repr(C, align(4096))]
struct HeapArea(UnsafeCell<[u8; HEAP]>);
// SAFETY: handed to the allocator once, before anything else uses it.
unsafe impl Sync for HeapArea {}

#[unsafe(link_section = ".bss..large")]
static HEAP_AREA: HeapArea = HeapArea(UnsafeCell::new([0; HEAP]));

#[global_allocator]
static ALLOCATOR: LockedHeap<32> = LockedHeap::empty();

/// Makes the heap ready. Once, before anything uses it.
pub(super) fn start() {
    let area = far_address!(HEAP_AREA);
    // SAFETY: first and only use of the area.
    unsafe { ALLOCATOR.lock().init(area, HEAP) };
}

/// Bytes of the heap: (used, all).
pub fn heap_use() -> (usize, usize) {
    let heap = ALLOCATOR.lock();
    (heap.stats_alloc_actual(), heap.stats_total_bytes())
}
