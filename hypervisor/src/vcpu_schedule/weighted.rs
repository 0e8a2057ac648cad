//! Shares of the CPUs in proportion to weights, with wake-up preemption.
//!
//! Start-time fair queueing as for coprocessors ([`sched_algos::fair`]), on several CPUs: whoever has the lowest tag among those that
//! wait runs where a CPU is free.
//!
//! - **Wake-up preemption.** One that slept starts at the present virtual time less at most one [`SLICE`], and takes a CPU at once from whom
//!   it is ahead of by more than [`GRANULARITY`]. So one that sleeps much and runs little hardly waits, and two that wake
//!   each other don't exchange the CPU for every microsecond.
//! - **Weights that can't be had.** A vCPU runs on one CPU at a time; a weight that would give it more than one CPU makes it lag
//!   behind for ever. How far a lag counts is bounded ([`LAG`]), or it would shut out the others when the set changes. But only once it
//!   has had a slice since: one that is preempted again and again as soon as its turn comes would lose its place each time, for ever.
//! - **Alone, no timer.** A turn has an end only while somebody else waits for that CPU.
//!
//! **Guarantees.** While the weights can be had, the times that two vCPUs get which both want to run, each divided by its weight, differ by at
//! most two slices of each, and one of credit if it slept. Waking: O(CPUs) comparisons; everything else O(log n).

use super::ready::Ready;
use super::{CpuSet, Parameters, ScheduleError, VcpuAlgorithm, VcpuId};
use alloc::vec::Vec;
use coproc_core::time::{Duration, Instant};
use sched_algos::fair::{Clock, Virtual, check_weight, scaled};

/// Its name in the device tree.
pub const NAME: &str = crate::config::pools::algorithm::WEIGHTED;
/// A turn while others wait.
pub const SLICE: Duration = Duration::from_millis(5);
/// Being ahead by less than this is no reason to take a CPU from somebody.
pub const GRANULARITY: Duration = Duration::from_micros(500);
/// Own time that one can be behind at most.
pub const LAG: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug)]
struct Flow {
    tag: Virtual,
    weight: u32,
    affinity: CpuSet,
    /// What it ran since its lag was last bounded.
    ran: Duration,
}

/// Weighted fair sharing.
#[derive(Debug)]
pub struct Weighted {
    flows: Vec<Option<Flow>>,
    /// By tag, equal ones in the order in which they came.
    ready: Ready<(Virtual, u64)>,
    clock: Clock,
    order: u64,
}

impl Default for Weighted {
    fn default() -> Self {
        Self::new()
    }
}

impl Weighted {
    /// Nobody yet.
    pub const fn new() -> Self {
        Self {
            flows: Vec::new(),
            ready: Ready::new(),
            clock: Clock::new(),
            order: 0,
        }
    }

    fn flow(&self, who: VcpuId) -> Option<Flow> {
        self.flows.get(who.slot()).copied().flatten()
    }

    fn flow_mut(&mut self, who: VcpuId) -> Option<&mut Flow> {
        self.flows.get_mut(who.slot())?.as_mut()
    }

    /// Whether somebody waits for this CPU.
    #[inline]
    pub(super) fn waits(&self, cpu: usize) -> bool {
        self.ready.best(cpu).is_some()
    }
}

impl VcpuAlgorithm for Weighted {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcpuId, parameters: &Parameters) -> Result<(), ScheduleError> {
        check_weight(parameters.share.weight)?;
        let slots = who.slot().saturating_add(1);
        let missing = slots.saturating_sub(self.flows.len());
        if self.flows.try_reserve(missing).is_err() || !self.ready.admit(who, parameters.affinity) {
            return Err(ScheduleError::NoMemory);
        }
        if self.flows.len() < slots {
            self.flows.resize(slots, None);
        }
        if let Some(place) = self.flows.get_mut(who.slot()) {
            *place = Some(Flow {
                tag: self.clock.now(),
                weight: parameters.share.weight,
                affinity: parameters.affinity,
                ran: Duration::ZERO,
            });
        }
        Ok(())
    }

    fn remove(&mut self, who: VcpuId) {
        self.ready.forget(who);
        if let Some(place) = self.flows.get_mut(who.slot()) {
            *place = None;
        }
    }

    fn set_parameters(
        &mut self,
        who: VcpuId,
        parameters: &Parameters,
    ) -> Result<(), ScheduleError> {
        check_weight(parameters.share.weight)?;
        if !self.ready.admit(who, parameters.affinity) {
            return Err(ScheduleError::NoMemory);
        }
        let clock = self.clock;
        let flow = self.flow_mut(who).ok_or(ScheduleError::Unknown)?;
        flow.tag = clock.reweighted(flow.tag, flow.weight, parameters.share.weight);
        flow.weight = parameters.share.weight;
        flow.affinity = parameters.affinity;
        Ok(())
    }

    fn eligible(&self, who: VcpuId) -> CpuSet {
        self.flow(who).map_or(CpuSet::NONE, |flow| flow.affinity)
    }

    fn wake(&mut self, who: VcpuId, _now: Instant) {
        let clock = self.clock;
        if let Some(flow) = self.flow_mut(who) {
            flow.tag = clock.bounded(flow.tag, SLICE, flow.weight);
        }
    }

    fn sleep(&mut self, _who: VcpuId, _now: Instant) {}

    fn put(&mut self, who: VcpuId, _now: Instant) {
        let clock = self.clock;
        let Some(flow) = self.flow_mut(who) else {
            return;
        };
        if flow.ran >= SLICE {
            flow.tag = clock.bounded(flow.tag, LAG, flow.weight);
            flow.ran = Duration::ZERO;
        }
        let tag = flow.tag;
        self.order = self.order.saturating_add(1);
        self.ready.put(who, (tag, self.order));
    }

    fn take(&mut self, who: VcpuId) {
        self.ready.take(who);
    }

    fn best(&mut self, cpu: usize, _now: Instant) -> Option<VcpuId> {
        self.ready.best(cpu).map(|(_, who)| who)
    }

    fn pick(&mut self, cpu: usize, _now: Instant) -> Option<VcpuId> {
        let ((tag, _), who) = self.ready.best(cpu)?;
        self.ready.take(who);
        self.clock.advance(tag);
        Some(who)
    }

    fn charge(&mut self, who: VcpuId, time: Duration, _now: Instant) {
        let Some(flow) = self.flow_mut(who) else {
            return;
        };
        flow.tag = flow.tag.saturating_add(scaled(time, flow.weight));
        flow.ran = flow.ran.saturating_add(time);
        // One that runs alone has turns without an end; the present goes on as if it had slices.
        let began = flow.tag.saturating_sub(scaled(SLICE, flow.weight));
        self.clock.advance(began);
    }

    fn preempts(&self, who: VcpuId, running: VcpuId, _cpu: usize, _now: Instant) -> bool {
        let (Some(who), Some(running)) = (self.flow(who), self.flow(running)) else {
            return false;
        };
        who.tag.saturating_add(scaled(GRANULARITY, who.weight)) < running.tag
    }

    fn turn(&self, _who: VcpuId, cpu: usize, ran: Duration) -> Option<Duration> {
        self.waits(cpu)
            .then(|| SLICE.saturating_sub(ran).max(GRANULARITY))
    }
}
