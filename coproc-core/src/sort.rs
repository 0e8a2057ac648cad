//! Sorting in little code.
//!
//! The standard library's sorts are made for long lists: for each type 2 to 3 KB of code. What is sorted here (regions of memory, BARs,
//! reservations) is short and sorted rarely, so a heap sort does: no memory, and no list for which it is slow.

/// Sorts by a key. Equal ones come in any order.
pub fn by_key<T, K: Ord>(list: &mut [T], key: impl Fn(&T) -> K) {
    for root in (0..list.len() / 2).rev() {
        sift(list, root, &key);
    }
    let mut rest = list;
    while let Some(last) = rest.len().checked_sub(1) {
        rest.swap(0, last);
        let Some((_, heap)) = rest.split_last_mut() else {
            return;
        };
        sift(heap, 0, &key);
        rest = heap;
    }
}

/// Moves the item at `root` down until none below it is larger.
#[inline(never)]
fn sift<T, K: Ord>(heap: &mut [T], mut root: usize, key: &impl Fn(&T) -> K) {
    loop {
        let left = root.saturating_mul(2).saturating_add(1);
        let place = |at: usize| heap.get(at).map(|item| (key(item), at));
        // The larger one of the two below; none is less than any.
        let below = place(left).max(place(left.saturating_add(1)));
        let Some((largest, at)) = below else {
            return;
        };
        if place(root).is_none_or(|(own, _)| own >= largest) {
            return;
        }
        heap.swap(root, at);
        root = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sorts_like_the_standard_library(list in prop::collection::vec((0..40_u8, any::<u32>()), 0..200)) {
            let mut sorted = list.clone();
            by_key(&mut sorted, |item| item.0);
            prop_assert!(sorted.is_sorted_by_key(|item| item.0));
            let whole = |list: &[(u8, u32)]| {
                let mut all: Vec<_> = list.to_vec();
                all.sort_unstable();
                all
            };
            prop_assert_eq!(whole(&sorted), whole(&list));
            by_key(&mut sorted, |item| *item);
            prop_assert_eq!(&sorted, &whole(&list));
        }
    }
}
