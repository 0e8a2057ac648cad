//! A priority queue of slots whose keys may change and whose members may leave from anywhere.
//!
//! A binary heap (J. W. J. Williams, *Algorithm 232: Heapsort*, Communications of the ACM 7, 1964) that also knows where each slot
//! is. The least key is found in O(1); insert, change and removal are O(log n), and none of them takes memory:
//! [`Heap::reserve`] took it before. The standard library's heap can't remove from the middle, and its trees allocate when a domain
//! wakes up.

use alloc::vec::Vec;

/// Slots by key, the least first.
#[derive(Clone, Debug)]
pub struct Heap<K> {
    items: Vec<(K, usize)>,
    /// Where in `items` each slot is.
    places: Vec<Option<usize>>,
    /// Levels climbed or descended, ever.
    #[cfg(test)]
    pub(crate) steps: u64,
}

impl<K: Ord + Copy> Default for Heap<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Ord + Copy> Heap<K> {
    /// Nobody in it.
    pub const fn new() -> Self {
        Self {
            items: Vec::new(),
            places: Vec::new(),
            #[cfg(test)]
            steps: 0,
        }
    }

    /// Makes room for slots below `slots`. `false`: no memory.
    #[must_use]
    pub fn reserve(&mut self, slots: usize) -> bool {
        let items = slots.saturating_sub(self.items.len());
        let places = slots.saturating_sub(self.places.len());
        if self.items.try_reserve(items).is_err() || self.places.try_reserve(places).is_err() {
            return false;
        }
        if self.places.len() < slots {
            self.places.resize(slots, None);
        }
        true
    }

    /// The least key and its slot.
    pub fn min(&self) -> Option<(K, usize)> {
        self.items.first().copied()
    }

    /// How many slots are in it.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Whether a slot is in it.
    pub fn contains(&self, slot: usize) -> bool {
        self.place(slot).is_some()
    }

    /// Inserts a slot or changes its key. A slot that wasn't reserved is ignored.
    pub fn set(&mut self, slot: usize, key: K) {
        let at = match self.place(slot) {
            Some(at) => {
                if let Some(item) = self.items.get_mut(at) {
                    item.0 = key;
                }
                at
            }
            None => {
                let at = self.items.len();
                let Some(place) = self.places.get_mut(slot) else {
                    return;
                };
                *place = Some(at);
                self.items.push((key, slot));
                at
            }
        };
        let at = self.up(at);
        self.down(at);
    }

    /// Takes a slot out; nothing happens if it isn't in.
    pub fn remove(&mut self, slot: usize) {
        let Some(at) = self.places.get_mut(slot).and_then(Option::take) else {
            return;
        };
        let last = self.items.pop();
        if let (Some(last), Some(item)) = (last, self.items.get_mut(at)) {
            *item = last;
            self.settle(at);
            let at = self.up(at);
            self.down(at);
        }
    }

    fn place(&self, slot: usize) -> Option<usize> {
        self.places.get(slot).copied().flatten()
    }

    /// Writes down where the item at `at` is.
    #[inline]
    fn settle(&mut self, at: usize) {
        if let Some((_, slot)) = self.items.get(at)
            && let Some(place) = self.places.get_mut(*slot)
        {
            *place = Some(at);
        }
    }

    #[inline]
    fn less(&self, a: usize, b: usize) -> bool {
        match (self.items.get(a), self.items.get(b)) {
            (Some((a, _)), Some((b, _))) => a < b,
            _ => false,
        }
    }

    #[inline]
    fn swap(&mut self, a: usize, b: usize) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        self.items.swap(a, b);
        self.settle(a);
        self.settle(b);
    }

    #[inline]
    fn up(&mut self, mut at: usize) -> usize {
        while at > 0 {
            let parent = at.saturating_sub(1) / 2;
            if !self.less(at, parent) {
                break;
            }
            self.swap(at, parent);
            at = parent;
        }
        at
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let left = at.saturating_mul(2).saturating_add(1);
            if left >= self.items.len() {
                return;
            }
            let right = left.saturating_add(1);
            let child = if self.less(right, left) { right } else { left };
            if !self.less(child, at) {
                return;
            }
            self.swap(at, child);
            at = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// The least key is always on top, whatever is inserted, changed and removed, and no memory is taken after the reserve.
        #[test]
        fn the_least_is_on_top(
            events in proptest::collection::vec((0..40_usize, proptest::option::of(0..100_u32)), 1..200),
        ) {
            let mut heap: Heap<(u32, usize)> = Heap::new();
            prop_assert!(heap.reserve(40));
            let room = heap.items.capacity();
            let mut model: BTreeMap<usize, u32> = BTreeMap::new();
            for (slot, key) in events {
                match key {
                    Some(key) => {
                        heap.set(slot, (key, slot));
                        model.insert(slot, key);
                    }
                    None => {
                        heap.remove(slot);
                        model.remove(&slot);
                    }
                }
                let least = model.iter().map(|(slot, key)| (*key, *slot)).min();
                prop_assert_eq!(heap.min().map(|(key, _)| key), least);
                prop_assert_eq!(heap.min().map(|(_, slot)| slot), least.map(|(_, slot)| slot));
                for slot in 0..40 {
                    prop_assert_eq!(heap.contains(slot), model.contains_key(&slot));
                }
                prop_assert_eq!(heap.items.capacity(), room);
            }
            // Unreserved slots are ignored.
            heap.set(40, (0, 40));
            prop_assert!(!heap.contains(40));
        }
    }
}
