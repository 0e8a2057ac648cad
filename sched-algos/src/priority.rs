//! The most important one with work runs; equals take turns.
//!
//! Fixed priorities with round robin inside a level, as POSIX defines SCHED_RR (IEEE Std 1003.1, *Scheduling Policies*): one that is
//! preempted by a higher level keeps the rest of its slice and its place, one whose slice is used up goes to its level's end.
//! Here a level is [`Parameters::priority`], higher first, and there are 2³² of them.
//!
//! Strict priority starves. With [`Tuning::starvation`] set, one that has waited that long, counted from when it got work or last had the
//! device, goes before every level for one slice, the one that has waited longest first, and isn't preempted in it.
//!
//! **Guarantees.** Without the bound: while one of a level has work no lower one starts, and a running lower one is stopped
//! at once (the device's refusal apart). Inside a level as for round robin. With the bound b: n vcoprocs with work wait for
//! their next slice at most b + n (slice + refusal + switch).
//!
//! **Cost.** Wake, sleep, charge: O(log n). Pick, too, amortised: each one whose slice was used up out of its turn is put at its level's end once.
//! Weights and budgets are ignored.

use core::cmp::Reverse;

use coproc_core::Algorithm;
use coproc_core::algorithm::{AlgorithmError, MIN_SLICE, Parameters, Pick, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};

use crate::heap::Heap;
use crate::table::{NO_MEMORY, Table};

/// Its name in the device tree.
pub const NAME: &str = "priority";

#[derive(Clone, Copy, Debug)]
struct Turn {
    /// Charged since it was put at its level's end.
    used: Duration,
}

/// Fixed priorities.
#[derive(Debug)]
pub struct Priority {
    slice: Duration,
    bound: Option<Duration>,
    table: Table<Turn>,
    /// Those awake, by level and place.
    levels: Heap<(Reverse<u32>, u64)>,
    /// Those awake, by when they got work or last had the device.
    waiting: Heap<Instant>,
    /// The one that was picked because it had waited too long.
    lifted: Option<usize>,
    order: u64,
}

impl Priority {
    /// Nobody yet.
    pub const fn new(tuning: &Tuning) -> Self {
        Self {
            slice: tuning.slice,
            bound: tuning.starvation,
            table: Table::new(),
            levels: Heap::new(),
            waiting: Heap::new(),
            lifted: None,
            order: 0,
        }
    }

    /// Puts one at its level's end, with a whole slice.
    fn enqueue(&mut self, slot: usize) {
        self.order = self.order.saturating_add(1);
        let order = self.order;
        if let Some(row) = self.table.row_mut(slot) {
            row.state.used = Duration::ZERO;
            self.levels
                .set(slot, (Reverse(row.parameters.priority), order));
        }
    }

    fn leave(&mut self, slot: usize) {
        self.levels.remove(slot);
        self.waiting.remove(slot);
        if self.lifted == Some(slot) {
            self.lifted = None;
        }
    }

    /// Who has waited too long, if anybody.
    #[inline]
    fn starving(&self, now: Instant) -> Option<usize> {
        let (since, slot) = self.waiting.min()?;
        (now >= since.saturating_add(self.bound?)).then_some(slot)
    }

    /// What is left of its slice.
    fn rest(&self, slot: usize) -> Option<Duration> {
        let row = self.table.row(slot)?;
        Some(self.slice.saturating_sub(row.state.used))
    }

    /// Whether what is left of its slice isn't worth a switch.
    fn is_used_up(&self, slot: usize) -> bool {
        let least = MIN_SLICE.min(self.slice);
        self.rest(slot).is_some_and(|rest| rest < least)
    }

    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        self.levels.steps + self.waiting.steps
    }
}

impl Algorithm for Priority {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError> {
        let slots = self.table.slots_after_add();
        if !self.levels.reserve(slots) || !self.waiting.reserve(slots) {
            return Err(NO_MEMORY);
        }
        let turn = Turn {
            used: Duration::ZERO,
        };
        self.table.add(who, parameters, turn)?;
        Ok(())
    }

    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        let slot = self.table.remove(who)?;
        self.leave(slot);
        Ok(())
    }

    fn wake(&mut self, who: VcoprocId, now: Instant) {
        if let Some(slot) = self.table.slot(who)
            && !self.levels.contains(slot)
        {
            self.enqueue(slot);
            self.waiting.set(slot, now);
        }
    }

    fn sleep(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(slot) = self.table.slot(who) {
            self.leave(slot);
        }
    }

    fn charge(&mut self, who: VcoprocId, time: Duration, now: Instant) {
        let Some(slot) = self.table.slot(who) else {
            return;
        };
        if let Some(row) = self.table.row_mut(slot) {
            row.state.used = row.state.used.saturating_add(time);
        }
        if self.waiting.contains(slot) {
            self.waiting.set(slot, now);
        }
    }

    /// It is in the charge already.
    fn refused(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    fn pick(&mut self, current: Option<VcoprocId>, now: Instant) -> Option<Pick> {
        if let Some(slot) = current.and_then(|who| self.table.slot(who))
            && self.levels.contains(slot)
            && self.is_used_up(slot)
        {
            self.enqueue(slot);
        }
        self.lifted = self.starving(now);
        if let Some(slot) = self.lifted {
            return Some(Pick {
                who: self.table.id(slot)?,
                slice: Some(self.slice),
            });
        }
        // Slices used up while lifted, or by refusing. Once round is enough: each of them has a whole one then.
        for _ in 0..self.levels.len() {
            let (_, slot) = self.levels.min()?;
            if !self.is_used_up(slot) {
                break;
            }
            self.enqueue(slot);
        }
        let (_, slot) = self.levels.min()?;
        Some(Pick {
            who: self.table.id(slot)?,
            slice: self.rest(slot),
        })
    }

    fn preempts(&mut self, current: VcoprocId, now: Instant) -> bool {
        let Some(slot) = self.table.slot(current) else {
            return false;
        };
        if self.lifted == Some(slot) {
            return false;
        }
        if self.starving(now).is_some_and(|starving| starving != slot) {
            return true;
        }
        let own = self.table.row(slot).map(|row| row.parameters.priority);
        match (self.levels.min(), own) {
            (Some(((Reverse(best), _), _)), Some(own)) => best > own,
            _ => false,
        }
    }

    fn next_event(&self, _now: Instant) -> Option<Instant> {
        let bound = self.bound?;
        // Nothing ends the slice of one that was lifted.
        if self.lifted.is_some() {
            return None;
        }
        let (since, _) = self.waiting.min()?;
        Some(since.saturating_add(bound))
    }

    fn set_parameters(
        &mut self,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AlgorithmError> {
        let slot = self.table.slot(who).ok_or(AlgorithmError::Unknown(who))?;
        if let Some(row) = self.table.row_mut(slot) {
            let moved = row.parameters.priority != parameters.priority;
            row.parameters = *parameters;
            if moved && self.levels.contains(slot) {
                self.enqueue(slot);
            }
        }
        Ok(())
    }

    fn tune(&mut self, tuning: &Tuning) -> Result<(), AlgorithmError> {
        crate::check_slice(tuning)?;
        if tuning.starvation == Some(Duration::ZERO) {
            return Err(AlgorithmError::OutOfRange {
                name: "starvation bound",
                expected: "more than 0",
            });
        }
        self.slice = tuning.slice;
        self.bound = tuning.starvation;
        Ok(())
    }

    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        for (slot, row) in self.table.rows() {
            visit(row.id, &row.parameters, self.levels.contains(slot));
        }
    }
}

#[cfg(test)]
mod tests;
