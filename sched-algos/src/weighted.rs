//! Shares in proportion to weights, by virtual time.
//!
//! Start-time fair queueing (P. Goyal, H. Vin, H. Cheng, SIGCOMM 1996; for processors: P. Goyal, X. Guo, H. Vin, *A hierarchical CPU
//! scheduler for multimedia operating systems*, OSDI 1996). Each vcoproc has a tag, its virtual time: the time it was charged
//! divided by its weight. Whoever has the lowest tag runs. Unlike a deficit counter it needs no rounds, and unlike fair
//! queueing by finish times it needn't know beforehand how much of a slice will be used, which here nobody can: a
//! device may refuse to stop.
//!
//! - **Overrun is debt.** The tag advances by what was charged, refused time included. Who refuses waits the longer afterwards,
//!   asleep or not, so that refusing gains nothing.
//! - **Sleeping is no saving.** Who wakes starts at the present virtual time, less at most one slice: enough to make up for a short
//!   wait for its own interrupt, not enough to starve the others after a long sleep.
//!
//! **Guarantees.** While two vcoprocs both have work, the times they are charged, each divided by its weight, never differ by more
//! than (slice + refusal) / weight of the one plus the same of the other, plus the one slice of credit if one woke in between.
//! Nobody is preempted, so one with work starts at most after all the others have run up to its tag: with equal weights
//! 2 (n − 1) slices, refusals and switches.
//!
//! **Cost.** Wake, sleep, charge, pick: O(log n).

use coproc_core::Algorithm;
use coproc_core::algorithm::{AlgorithmError, Parameters, Pick, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};

pub use crate::fair::MAX_WEIGHT;
use crate::fair::{Clock, Virtual, check_weight, scaled};
use crate::heap::Heap;
use crate::table::{NO_MEMORY, Table};

/// Its name in the device tree.
pub const NAME: &str = "weighted";
#[derive(Clone, Copy, Debug)]
struct Flow {
    /// The virtual time up to which it has been served.
    tag: Virtual,
}

/// Weighted fair sharing.
#[derive(Debug)]
pub struct Weighted {
    slice: Duration,
    table: Table<Flow>,
    /// Those awake by tag, equal ones in the order in which they got there.
    awake: Heap<(Virtual, u64)>,
    /// The highest tag at which a slice began.
    clock: Clock,
    order: u64,
}

impl Weighted {
    /// Nobody yet.
    pub const fn new(tuning: &Tuning) -> Self {
        Self {
            slice: tuning.slice,
            table: Table::new(),
            awake: Heap::new(),
            clock: Clock::new(),
            order: 0,
        }
    }

    /// Whether it has work.
    #[cfg(feature = "reservation")]
    pub(crate) fn is_awake(&self, who: VcoprocId) -> bool {
        let slot = self.table.slot(who);
        slot.is_some_and(|slot| self.awake.contains(slot))
    }

    /// Puts one behind all those with its tag.
    fn enqueue(&mut self, slot: usize, tag: Virtual) {
        self.order = self.order.saturating_add(1);
        self.awake.set(slot, (tag, self.order));
    }

    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        self.awake.steps
    }
}

impl Algorithm for Weighted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError> {
        check_weight(parameters.weight)?;
        if !self.awake.reserve(self.table.slots_after_add()) {
            return Err(NO_MEMORY);
        }
        let tag = self.clock.now();
        self.table.add(who, parameters, Flow { tag })?;
        Ok(())
    }

    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        let slot = self.table.remove(who)?;
        self.awake.remove(slot);
        Ok(())
    }

    fn wake(&mut self, who: VcoprocId, _now: Instant) {
        let Some(slot) = self.table.slot(who) else {
            return;
        };
        if self.awake.contains(slot) {
            return;
        }
        let (clock, slice) = (self.clock, self.slice);
        let Some(row) = self.table.row_mut(slot) else {
            return;
        };
        let tag = clock.bounded(row.state.tag, slice, row.parameters.weight);
        row.state.tag = tag;
        self.enqueue(slot, tag);
    }

    fn sleep(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(slot) = self.table.slot(who) {
            self.awake.remove(slot);
        }
    }

    fn charge(&mut self, who: VcoprocId, time: Duration, _now: Instant) {
        let Some(slot) = self.table.slot(who) else {
            return;
        };
        let Some(row) = self.table.row_mut(slot) else {
            return;
        };
        let tag = row
            .state
            .tag
            .saturating_add(scaled(time, row.parameters.weight));
        row.state.tag = tag;
        if self.awake.contains(slot) {
            self.enqueue(slot, tag);
        }
    }

    /// It is in the charge already.
    fn refused(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    fn pick(&mut self, _current: Option<VcoprocId>, _now: Instant) -> Option<Pick> {
        let ((tag, _), slot) = self.awake.min()?;
        self.clock.advance(tag);
        Some(Pick {
            who: self.table.id(slot)?,
            slice: Some(self.slice),
        })
    }

    fn set_parameters(
        &mut self,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AlgorithmError> {
        let slot = self.table.slot(who).ok_or(AlgorithmError::Unknown(who))?;
        check_weight(parameters.weight)?;
        let clock = self.clock;
        let Some(row) = self.table.row_mut(slot) else {
            return Err(AlgorithmError::Unknown(who));
        };
        let tag = clock.reweighted(row.state.tag, row.parameters.weight, parameters.weight);
        row.parameters = *parameters;
        row.state.tag = tag;
        if self.awake.contains(slot) {
            self.enqueue(slot, tag);
        }
        Ok(())
    }

    fn tune(&mut self, tuning: &Tuning) -> Result<(), AlgorithmError> {
        crate::check_slice(tuning)?;
        self.slice = tuning.slice;
        Ok(())
    }

    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        for (slot, row) in self.table.rows() {
            visit(row.id, &row.parameters, self.awake.contains(slot));
        }
    }
}

#[cfg(test)]
mod tests;
