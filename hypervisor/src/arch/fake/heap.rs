//! The host's heap.

/// There is nothing to do.
pub(super) fn start() {}

/// Bytes of the heap: (used, all). What is used isn't known.
pub fn heap_use() -> (usize, usize) {
    (0, 4 << 20)
}
