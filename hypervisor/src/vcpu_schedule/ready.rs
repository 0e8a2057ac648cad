//! The queue of a pool: the least key among those that may run on a CPU.
//!
//! Affinities make one heap useless, since its top may be for other CPUs. So there is one heap for each *different* affinity in use:
//! usually one, at most as many as somebody wrote down. Finding the best is O(affinities), moving one O(log n).

use super::{CpuSet, VcpuId};
use alloc::vec::Vec;
use sched_algos::heap::Heap;

/// vCPUs by key, with affinities.
#[derive(Debug)]
pub(super) struct Ready<K> {
    classes: Vec<(CpuSet, Heap<K>)>,
    /// The class of each vCPU.
    class_of: Vec<Option<usize>>,
}

impl<K: Ord + Copy> Ready<K> {
    pub(super) const fn new() -> Self {
        Self {
            classes: Vec::new(),
            class_of: Vec::new(),
        }
    }

    /// Makes room for a vCPU with this affinity, or changes the affinity of one that isn't queued. `false`: no memory.
    #[must_use]
    pub(super) fn admit(&mut self, who: VcpuId, affinity: CpuSet) -> bool {
        let slots = who.slot().saturating_add(1).max(self.class_of.len());
        let missing = slots.saturating_sub(self.class_of.len());
        if self.class_of.try_reserve(missing).is_err() {
            return false;
        }
        let found = self.classes.iter().position(|(set, _)| *set == affinity);
        let class = match found {
            Some(class) => class,
            None => {
                // One that nobody uses any more has room already.
                let free =
                    (0..self.classes.len()).find(|class| !self.class_of.contains(&Some(*class)));
                let class = free.unwrap_or(self.classes.len());
                if let Some((set, _)) = self.classes.get_mut(class) {
                    *set = affinity;
                } else if self.classes.try_reserve(1).is_ok() {
                    self.classes.push((affinity, Heap::new()));
                } else {
                    return false;
                }
                class
            }
        };
        let Some((_, heap)) = self.classes.get_mut(class) else {
            return false;
        };
        if !heap.reserve(slots) {
            return false;
        }
        if self.class_of.len() < slots {
            self.class_of.resize(slots, None);
        }
        if let Some(place) = self.class_of.get_mut(who.slot()) {
            *place = Some(class);
        }
        true
    }

    /// Forgets one that isn't queued.
    pub(super) fn forget(&mut self, who: VcpuId) {
        if let Some(place) = self.class_of.get_mut(who.slot()) {
            *place = None;
        }
    }

    #[inline]
    fn heap(&mut self, who: VcpuId) -> Option<&mut Heap<K>> {
        let class = self.class_of.get(who.slot()).copied().flatten()?;
        self.classes.get_mut(class).map(|(_, heap)| heap)
    }

    pub(super) fn put(&mut self, who: VcpuId, key: K) {
        if let Some(heap) = self.heap(who) {
            heap.set(who.slot(), key);
        }
    }

    pub(super) fn take(&mut self, who: VcpuId) {
        if let Some(heap) = self.heap(who) {
            heap.remove(who.slot());
        }
    }

    /// The best for this CPU.
    #[inline]
    pub(super) fn best(&self, cpu: usize) -> Option<(K, VcpuId)> {
        self.classes
            .iter()
            .filter(|(set, _)| set.contains(cpu))
            .filter_map(|(_, heap)| heap.min())
            .min()
            .and_then(|(key, slot)| Some((key, VcpuId(u16::try_from(slot).ok()?))))
    }
}
