//! A ring that forgets the oldest and counts what it forgot.
//!
//! Histories must never be the reason that memory runs out or that somebody waits: a ring takes all its memory when it is made, and
//! keeping one more item is a store. Items have sequence numbers from 0, so a reader that comes back later sees what it has missed.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// The last items of a history.
#[derive(Clone, Debug)]
pub struct Ring<T> {
    /// As many as a power of two.
    slots: Box<[T]>,
    /// Items ever kept: the sequence number of the next one.
    written: u64,
}

impl<T: Copy> Ring<T> {
    /// An empty ring for `capacity` items, rounded up to a power of two; `None`: no memory. `filler` is never seen.
    pub fn new(capacity: usize, filler: T) -> Option<Self> {
        let capacity = capacity.checked_next_power_of_two()?;
        let mut slots = Vec::new();
        slots.try_reserve_exact(capacity).ok()?;
        slots.resize(capacity, filler);
        Some(Self {
            slots: slots.into_boxed_slice(),
            written: 0,
        })
    }

    /// A ring that keeps nothing and loses everything.
    pub fn none() -> Self {
        Self {
            slots: Box::default(),
            written: 0,
        }
    }

    fn place(&self, number: u64) -> usize {
        number as usize & self.slots.len().wrapping_sub(1)
    }

    /// Keeps an item, instead of the oldest one if it must.
    #[inline(always)]
    pub fn push(&mut self, item: T) {
        let place = self.place(self.written);
        if let Some(slot) = self.slots.get_mut(place) {
            *slot = item;
        }
        self.written = self.written.wrapping_add(1);
    }

    /// Items forgotten: the sequence number of the oldest one that is kept.
    pub fn lost(&self) -> u64 {
        self.written.saturating_sub(self.slots.len() as u64)
    }

    /// Items ever kept: the sequence number that the next one gets.
    pub const fn written(&self) -> u64 {
        self.written
    }

    /// Items that are kept.
    pub fn len(&self) -> usize {
        self.written.min(self.slots.len() as u64) as usize
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item with this sequence number, if it is kept.
    pub fn get(&self, number: u64) -> Option<&T> {
        let kept = number >= self.lost() && number < self.written;
        kept.then(|| self.slots.get(self.place(number))).flatten()
    }

    /// What is kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (self.lost()..self.written).filter_map(|number| self.get(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    proptest! {
        /// It is a queue with a bound: nothing is lost before it is full, then always the oldest, and every loss is counted.
        #[test]
        fn like_a_bounded_queue(capacity in 1..20_usize, items in 0..100_u64) {
            let mut ring = Ring::new(capacity, u64::MAX).unwrap();
            let room = capacity.next_power_of_two();
            let mut model = VecDeque::new();
            for item in 0..items {
                ring.push(item * 7);
                model.push_back(item * 7);
                if model.len() > room {
                    model.pop_front();
                }
                prop_assert!(ring.iter().eq(model.iter()));
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.written(), item + 1);
                prop_assert_eq!(ring.lost(), item + 1 - model.len() as u64);
                for number in 0..items {
                    let kept = number >= ring.lost() && number <= item;
                    prop_assert_eq!(ring.get(number).copied(), kept.then_some(number * 7));
                }
            }
        }
    }

    #[test]
    fn without_memory_it_counts_only() {
        let mut ring = Ring::none();
        ring.push(1);
        assert_eq!((ring.lost(), ring.len(), ring.get(0)), (1, 0, None));
        assert!(Ring::new(usize::MAX, 0_u64).is_none());
        assert!(Ring::new(1 << 60, 0_u64).is_none());
    }
}
