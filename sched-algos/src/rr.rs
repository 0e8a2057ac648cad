//! Round robin: each one that has work gets the same slice, in turn.
//!
//! The oldest time-sharing policy (for its analysis: L. Kleinrock, *Analysis of a time-shared processor*, Naval Research Logistics
//! Quarterly 11, 1964) and the only one of Baton's ancestor. Weights, priorities and budgets are ignored.
//!
//! **Guarantees.** With n vcoprocs willing, each waits at most n − 1 slices, refusals and switches for its next
//! slice; nobody starves. Shares are equal only as far as slices are used up alike: refused time is charged, but not taken from
//! later slices (that is what the weighted algorithms do).
//!
//! **Cost.** The queue is a doubly linked ring in a slab, so wake, sleep and pick are O(1) after a binary search for
//! the id, O(log n). Memory is taken when a vcoproc is added, never later, so nothing that a domain
//! does can run out of it.

use alloc::vec::Vec;
use core::cell::Cell;

use coproc_core::Algorithm;
use coproc_core::algorithm::{AlgorithmError, Parameters, Pick, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};

/// Its name in the device tree.
pub const NAME: &str = "rr";

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: VcoprocId,
    parameters: Parameters,
    /// Neighbours in the queue; `None`: asleep.
    links: Option<Links>,
    /// Not in use; may be taken by the next one added.
    free: bool,
}

#[derive(Clone, Copy, Debug)]
struct Links {
    previous: usize,
    next: usize,
}

/// Round robin.
#[derive(Debug)]
pub struct RoundRobin {
    slice: Duration,
    slab: Vec<Entry>,
    /// Slab positions, sorted by id.
    index: Vec<(VcoprocId, usize)>,
    /// Where in the index the last one was found: mostly the next one is the same.
    near: Cell<usize>,
    /// The head of the ring: whose turn it is.
    head: Option<usize>,
}

impl RoundRobin {
    /// An empty queue.
    pub const fn new(tuning: &Tuning) -> Self {
        Self {
            slice: tuning.slice,
            slab: Vec::new(),
            index: Vec::new(),
            near: Cell::new(0),
            head: None,
        }
    }

    #[inline(always)]
    fn slot(&self, who: VcoprocId) -> Option<usize> {
        if let Some((id, slot)) = self.index.get(self.near.get())
            && *id == who
        {
            return Some(*slot);
        }
        let at = self.index.binary_search_by_key(&who, |(id, _)| *id).ok()?;
        self.near.set(at);
        self.index.get(at).map(|(_, slot)| *slot)
    }

    fn links(&mut self, slot: usize) -> Option<&mut Links> {
        self.slab.get_mut(slot)?.links.as_mut()
    }

    /// Puts a sleeping one at the ring's end: before the head.
    #[inline(never)]
    fn link(&mut self, slot: usize) -> Option<()> {
        let (previous, next) = match self.head {
            None => (slot, slot),
            Some(head) => (self.links(head)?.previous, head),
        };
        self.slab.get_mut(slot)?.links = Some(Links { previous, next });
        if self.head.is_none() {
            self.head = Some(slot);
        }
        self.links(previous)?.next = slot;
        self.links(next)?.previous = slot;
        Some(())
    }

    #[inline(always)]
    fn unlink(&mut self, slot: usize) -> Option<()> {
        let Links { previous, next } = self.slab.get_mut(slot)?.links.take()?;
        if next == slot {
            self.head = None;
            return Some(());
        }
        if self.head == Some(slot) {
            self.head = Some(next);
        }
        self.links(previous)?.next = next;
        self.links(next)?.previous = previous;
        Some(())
    }
}

impl Algorithm for RoundRobin {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError> {
        let Err(at) = self.index.binary_search_by_key(&who, |(id, _)| *id) else {
            return Err(AlgorithmError::Duplicate(who));
        };
        if self.index.try_reserve(1).is_err() || self.slab.try_reserve(1).is_err() {
            return Err(AlgorithmError::NotAdmitted("no memory for another vcoproc"));
        }
        let entry = Entry {
            id: who,
            parameters: *parameters,
            links: None,
            free: false,
        };
        let slot = match self.slab.iter().position(|entry| entry.free) {
            Some(slot) => slot,
            None => {
                self.slab.push(entry);
                self.slab.len().saturating_sub(1)
            }
        };
        if let Some(place) = self.slab.get_mut(slot) {
            *place = entry;
        }
        self.index.insert(at, (who, slot));
        Ok(())
    }

    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        let at = self
            .index
            .binary_search_by_key(&who, |(id, _)| *id)
            .map_err(|_| AlgorithmError::Unknown(who))?;
        let (_, slot) = self.index.remove(at);
        // Nothing to unlink if it sleeps.
        let _ = self.unlink(slot);
        if let Some(entry) = self.slab.get_mut(slot) {
            entry.free = true;
        }
        Ok(())
    }

    fn wake(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(slot) = self.slot(who)
            && self.links(slot).is_none()
        {
            let _ = self.link(slot);
        }
    }

    fn sleep(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(slot) = self.slot(who) {
            let _ = self.unlink(slot);
        }
    }

    fn charge(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    fn refused(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    /// The head's turn. If the head is the one whose slice is over it goes to the end first; asking again before the one picked
    /// has run gives the same answer.
    fn pick(&mut self, current: Option<VcoprocId>, _now: Instant) -> Option<Pick> {
        let head = self.head?;
        let who = self.slab.get(head)?.id;
        let slot = if current == Some(who) {
            self.links(head)?.next
        } else {
            head
        };
        self.head = Some(slot);
        Some(Pick {
            who: self.slab.get(slot)?.id,
            slice: Some(self.slice),
        })
    }

    fn set_parameters(
        &mut self,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AlgorithmError> {
        let slot = self.slot(who).ok_or(AlgorithmError::Unknown(who))?;
        if let Some(entry) = self.slab.get_mut(slot) {
            entry.parameters = *parameters;
        }
        Ok(())
    }

    fn tune(&mut self, tuning: &Tuning) -> Result<(), AlgorithmError> {
        crate::check_slice(tuning)?;
        self.slice = tuning.slice;
        Ok(())
    }

    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        for (id, slot) in &self.index {
            if let Some(entry) = self.slab.get(*slot) {
                visit(*id, &entry.parameters, entry.links.is_some());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::VecDeque;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const NOW: Instant = Instant::from_nanos(0);

    fn fresh() -> RoundRobin {
        RoundRobin::new(&Tuning::new(Duration::from_millis(3)))
    }

    fn pick(rr: &mut RoundRobin, current: Option<u32>) -> Option<u32> {
        rr.pick(current.map(VcoprocId), NOW).map(|pick| {
            assert_eq!(pick.slice, Some(rr.slice));
            pick.who.0
        })
    }

    #[test]
    fn takes_turns_and_repeats_its_answer() {
        let mut rr = fresh();
        for id in 1..=3 {
            rr.add(VcoprocId(id), &Parameters::default()).unwrap();
            rr.wake(VcoprocId(id), NOW);
        }
        assert_eq!(pick(&mut rr, None), Some(1));
        assert_eq!(pick(&mut rr, Some(1)), Some(2));
        assert_eq!(pick(&mut rr, None), Some(2));
        assert_eq!(pick(&mut rr, Some(1)), Some(2));
        assert_eq!(pick(&mut rr, Some(2)), Some(3));
        rr.sleep(VcoprocId(1), NOW);
        assert_eq!(pick(&mut rr, Some(3)), Some(2));
        rr.wake(VcoprocId(1), NOW);
        assert_eq!(pick(&mut rr, Some(2)), Some(3));
        assert_eq!(pick(&mut rr, Some(3)), Some(1));
    }

    #[test]
    fn says_what_it_refuses() {
        let mut rr = fresh();
        let (a, p) = (VcoprocId(7), Parameters::default());
        assert_eq!(rr.remove(a), Err(AlgorithmError::Unknown(a)));
        assert_eq!(rr.set_parameters(a, &p), Err(AlgorithmError::Unknown(a)));
        rr.add(a, &p).unwrap();
        assert_eq!(rr.add(a, &p), Err(AlgorithmError::Duplicate(a)));
        let zero = Tuning::new(Duration::ZERO);
        assert!(rr.tune(&zero).is_err());
        assert_eq!(rr.slice, Duration::from_millis(3));
    }

    #[derive(Clone, Debug)]
    enum Event {
        Add(u32),
        Remove(u32),
        Wake(u32),
        Sleep(u32),
        Next,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            (0..6_u32).prop_map(Event::Add),
            (0..6_u32).prop_map(Event::Remove),
            (0..6_u32).prop_map(Event::Wake),
            (0..6_u32).prop_map(Event::Sleep),
            Just(Event::Next),
        ]
    }

    proptest! {
        /// The ring in the slab does what a plain queue does.
        #[test]
        fn like_a_plain_queue(events in proptest::collection::vec(event(), 1..200)) {
            let mut rr = fresh();
            let mut known: Vec<u32> = Vec::new();
            let mut queue: VecDeque<u32> = VecDeque::new();
            let mut current = None;
            for event in events {
                match event {
                    Event::Add(id) => {
                        let fresh = !known.contains(&id);
                        let added = rr.add(VcoprocId(id), &Parameters::default());
                        prop_assert_eq!(added.is_ok(), fresh);
                        if fresh {
                            known.push(id);
                        }
                    }
                    Event::Remove(id) => {
                        prop_assert_eq!(rr.remove(VcoprocId(id)).is_ok(), known.contains(&id));
                        known.retain(|k| *k != id);
                        queue.retain(|k| *k != id);
                    }
                    Event::Wake(id) => {
                        rr.wake(VcoprocId(id), NOW);
                        if known.contains(&id) && !queue.contains(&id) {
                            queue.push_back(id);
                        }
                    }
                    Event::Sleep(id) => {
                        rr.sleep(VcoprocId(id), NOW);
                        queue.retain(|k| *k != id);
                    }
                    Event::Next => {
                        if queue.front().copied() == current && current.is_some() {
                            queue.rotate_left(1);
                        }
                        let expected = queue.front().copied();
                        prop_assert_eq!(pick(&mut rr, current), expected);
                        current = expected;
                    }
                }
                let mut awake = Vec::new();
                rr.snapshot(&mut |id, _, is_awake| {
                    if is_awake {
                        awake.push(id.0);
                    }
                });
                let mut wanted: Vec<u32> = queue.iter().copied().collect();
                wanted.sort_unstable();
                prop_assert_eq!(awake, wanted);
            }
        }
    }
}
