//! Which part of a range an instruction can clear that clears whole blocks: scrubbing is most of what a boot and a restart do, and a block at a time
//! takes a tenth of the instructions that a loop of stores takes.

use core::ops::Range;

/// The bytes that DC ZVA clears at once, from DCZID_EL0 (Arm ARM DDI 0487, D19.2.36): BS (3:0) is log2 of the words, DZP (4) prohibits it.
pub const fn zeroed_at_once(dczid: u64) -> Option<usize> {
    if dczid & 1 << 4 != 0 {
        return None;
    }
    Some(4 << (dczid & 0xf))
}

/// The whole blocks within `start..start + bytes`; empty if there is none. `block`: a power of two, in bytes.
pub const fn whole(start: usize, bytes: usize, block: usize) -> Range<usize> {
    let mask = block.wrapping_sub(1);
    let end = start.saturating_add(bytes);
    let last = end & !mask;
    match start.checked_add(mask) {
        Some(first) if first & !mask <= last => first & !mask..last,
        _ => end..end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_as_the_register_says() {
        assert_eq!(zeroed_at_once(4), Some(64));
        assert_eq!(zeroed_at_once(9), Some(2048));
        assert_eq!(zeroed_at_once(1 << 4 | 4), None);
    }

    proptest! {
        /// Whole blocks inside the range, and nothing left out that would be one more; at the end of the address space, too.
        #[test]
        fn blocks_are_whole_and_all(start in 0..10_000_usize, bytes in 0..10_000_usize, shift in 2..12_u32, high in any::<bool>()) {
            let start = if high { usize::MAX - start } else { start };
            let bytes = bytes.min(usize::MAX - start);
            let block = 1 << shift;
            let Range { start: first, end: last } = whole(start, bytes, block);
            prop_assert!(start <= first && first <= last && last <= start + bytes);
            if first < last {
                prop_assert!(first % block == 0 && last % block == 0);
                prop_assert!(first - start < block && start + bytes - last < block);
            } else {
                prop_assert!(bytes < 2 * block);
            }
        }
    }
}
