//! Memory for the code under test, handed out once and never taken back: it allocates at set-up only.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

const SIZE: usize = 2 << 20;

#[repr(align(65536))]
struct Heap {
    bytes: UnsafeCell<[u8; SIZE]>,
}

static USED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: `bytes` is never accessed as a whole; `USED` hands each part of it out once.
unsafe impl Sync for Heap {}

#[global_allocator]
#[unsafe(link_section = ".bss..large")]
static HEAP: Heap = Heap {
    bytes: UnsafeCell::new([0; SIZE]),
};

// SAFETY: each block lies within `bytes`, is aligned, and overlaps no other, since `USED` only grows. The guest has one CPU and its
// interrupt handler doesn't allocate.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let start = USED
            .load(Ordering::Relaxed)
            .next_multiple_of(layout.align());
        // The heap starts at such a boundary: larger alignments aren't asked for.
        if layout.align() > 65536 || layout.size() > SIZE.saturating_sub(start) {
            return core::ptr::null_mut();
        }
        USED.store(start + layout.size(), Ordering::Relaxed);
        self.bytes.get().cast::<u8>().wrapping_add(start)
    }

    unsafe fn dealloc(&self, _block: *mut u8, _layout: Layout) {}
}
