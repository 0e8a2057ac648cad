//! The vcoprocs that an algorithm knows, each with a number of its own.
//!
//! Ids are sparse and live as long as the system; an algorithm's other structures want small numbers. So each vcoproc gets
//! a *slot* when it is added, found by binary search, and everything else is kept by slot. Memory is taken when a vcoproc
//! is added, never later: what a domain does can't run out of it.

use alloc::vec::Vec;
use core::cell::Cell;

use coproc_core::algorithm::{AlgorithmError, Parameters};
use coproc_core::id::VcoprocId;

/// One vcoproc and what the algorithm keeps about it.
#[derive(Clone, Debug)]
pub(crate) struct Row<T> {
    pub(crate) id: VcoprocId,
    pub(crate) parameters: Parameters,
    pub(crate) state: T,
}

/// All of them.
#[derive(Clone, Debug)]
pub(crate) struct Table<T> {
    rows: Vec<Option<Row<T>>>,
    /// Empty rows; has room for all of them.
    free: Vec<usize>,
    /// Slots, sorted by id.
    index: Vec<(VcoprocId, usize)>,
    /// Where in the index the last one was found: mostly the next one is the same.
    near: Cell<usize>,
}

/// The error for every lack of memory.
pub(crate) const NO_MEMORY: AlgorithmError =
    AlgorithmError::NotAdmitted("no memory for another vcoproc");

impl<T> Table<T> {
    pub(crate) const fn new() -> Self {
        Self {
            rows: Vec::new(),
            free: Vec::new(),
            index: Vec::new(),
            near: Cell::new(0),
        }
    }

    /// Slots that there may be after one more [`Table::add`]: what other structures have to have room for.
    pub(crate) fn slots_after_add(&self) -> usize {
        self.rows.len().saturating_add(1)
    }

    #[inline]
    pub(crate) fn slot(&self, who: VcoprocId) -> Option<usize> {
        if let Some((id, slot)) = self.index.get(self.near.get())
            && *id == who
        {
            return Some(*slot);
        }
        let at = self.index.binary_search_by_key(&who, |(id, _)| *id).ok()?;
        self.near.set(at);
        self.index.get(at).map(|(_, slot)| *slot)
    }

    pub(crate) fn row(&self, slot: usize) -> Option<&Row<T>> {
        self.rows.get(slot)?.as_ref()
    }

    pub(crate) fn row_mut(&mut self, slot: usize) -> Option<&mut Row<T>> {
        self.rows.get_mut(slot)?.as_mut()
    }

    pub(crate) fn id(&self, slot: usize) -> Option<VcoprocId> {
        self.row(slot).map(|row| row.id)
    }

    /// By id.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (usize, &Row<T>)> {
        let slots = self.index.iter().map(|(_, slot)| *slot);
        slots.filter_map(|slot| Some((slot, self.row(slot)?)))
    }

    /// Adds one; on an error nothing has changed.
    pub(crate) fn add(
        &mut self,
        id: VcoprocId,
        parameters: &Parameters,
        state: T,
    ) -> Result<usize, AlgorithmError> {
        let Err(at) = self.index.binary_search_by_key(&id, |(id, _)| *id) else {
            return Err(AlgorithmError::Duplicate(id));
        };
        let rows = self.slots_after_add();
        let wanted = rows.saturating_sub(self.free.len());
        if self.index.try_reserve(1).is_err()
            || self.rows.try_reserve(1).is_err()
            || self.free.try_reserve(wanted).is_err()
        {
            return Err(NO_MEMORY);
        }
        let slot = self.free.pop().unwrap_or(self.rows.len());
        let row = Some(Row {
            id,
            parameters: *parameters,
            state,
        });
        match self.rows.get_mut(slot) {
            Some(place) => *place = row,
            None => self.rows.push(row),
        }
        self.index.insert(at, (id, slot));
        Ok(slot)
    }

    /// Forgets one and says which slot is empty now.
    pub(crate) fn remove(&mut self, id: VcoprocId) -> Result<usize, AlgorithmError> {
        let at = self
            .index
            .binary_search_by_key(&id, |(id, _)| *id)
            .map_err(|_| AlgorithmError::Unknown(id))?;
        let (_, slot) = self.index.remove(at);
        if let Some(row) = self.rows.get_mut(slot) {
            *row = None;
            self.free.push(slot);
        }
        Ok(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    proptest! {
        /// It is a map, its slots are never shared, and no call but add takes memory.
        #[test]
        fn like_a_map(events in proptest::collection::vec((0..8_u32, any::<bool>()), 1..80)) {
            let mut table: Table<u32> = Table::new();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            for (n, (id, add)) in (0_u32..).zip(events) {
                if add {
                    let added = table.add(VcoprocId(id), &Parameters::default(), n);
                    prop_assert_eq!(added.is_ok(), !model.contains_key(&id));
                    model.entry(id).or_insert(n);
                } else {
                    let room = table.free.capacity();
                    prop_assert_eq!(table.remove(VcoprocId(id)).is_ok(), model.remove(&id).is_some());
                    prop_assert_eq!(table.free.capacity(), room);
                }
                let rows: Vec<_> = table.rows().map(|(_, row)| (row.id.0, row.state)).collect();
                prop_assert_eq!(rows, model.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>());
                let mut slots: Vec<_> = table.rows().map(|(slot, _)| slot).collect();
                slots.sort_unstable();
                slots.dedup();
                prop_assert_eq!(slots.len(), model.len());
            }
        }
    }
}
