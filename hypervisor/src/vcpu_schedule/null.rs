//! One vCPU for each CPU, and no timer.
//!
//! Every vCPU gets a CPU of its own when it is added, so nothing is decided later, nobody waits for another one, and EL2's timer never ends
//! a turn. A vCPU for which no CPU is left isn't admitted.
//!
//! Which CPU is a matching: an earlier vCPU moves to another CPU of its affinity if that makes room (H. Kuhn, *The Hungarian method for
//! the assignment problem*, 1955, on at most eight CPUs).

use super::{CpuSet, MAX_CPUS, Parameters, ScheduleError, VcpuAlgorithm, VcpuId};
use alloc::vec::Vec;
use coproc_core::time::{Duration, Instant};

/// Its name in the device tree.
pub const NAME: &str = crate::config::pools::algorithm::NULL;

/// One owner for each CPU.
#[derive(Debug)]
pub struct Null {
    cpus: CpuSet,
    affinity: Vec<Option<CpuSet>>,
    owners: [Option<VcpuId>; MAX_CPUS],
    /// Whether the owner waits in the queue: after an exchange of algorithms it may still run elsewhere.
    queued: CpuSet,
}

impl Null {
    /// Nobody on these CPUs yet.
    pub const fn new(cpus: CpuSet) -> Self {
        Self {
            cpus,
            affinity: Vec::new(),
            owners: [None; MAX_CPUS],
            queued: CpuSet::NONE,
        }
    }

    fn affinity(&self, who: VcpuId) -> CpuSet {
        let affinity = self.affinity.get(who.slot()).copied().flatten();
        affinity.unwrap_or(CpuSet::NONE) & self.cpus
    }

    #[inline]
    fn home(&self, who: VcpuId) -> Option<usize> {
        self.owners.iter().position(|owner| *owner == Some(who))
    }

    /// Gives it a CPU in `owners`, moving others if need be.
    fn settle(
        &self,
        owners: &mut [Option<VcpuId>; MAX_CPUS],
        who: VcpuId,
        affinity: CpuSet,
        tried: &mut CpuSet,
    ) -> bool {
        for cpu in affinity.iter() {
            if tried.contains(cpu) {
                continue;
            }
            *tried |= CpuSet::only(cpu);
            let other = owners.get(cpu).copied().flatten();
            // At most as deep as there are CPUs: each is tried once.
            if other.is_none_or(|other| self.settle(owners, other, self.affinity(other), tried)) {
                if let Some(place) = owners.get_mut(cpu) {
                    *place = Some(who);
                }
                return true;
            }
        }
        false
    }

    fn assign(&mut self, who: VcpuId, affinity: CpuSet) -> Result<(), ScheduleError> {
        let mut owners = self.owners;
        for place in &mut owners {
            if *place == Some(who) {
                *place = None;
            }
        }
        let mut tried = CpuSet::NONE;
        if !self.settle(&mut owners, who, affinity & self.cpus, &mut tried) {
            return Err(ScheduleError::NotAdmitted(
                "more vCPUs than CPUs: the algorithm null gives each a CPU of its own",
            ));
        }
        // Those in the queue wait where their CPU is now.
        let waiting: [bool; MAX_CPUS] = core::array::from_fn(|cpu| {
            let owner = owners.get(cpu).copied().flatten();
            let before = owner.and_then(|owner| self.home(owner));
            before.is_some_and(|before| self.queued.contains(before))
        });
        self.queued = (0..MAX_CPUS)
            .filter(|cpu| waiting.get(*cpu).copied().unwrap_or(false))
            .collect();
        self.owners = owners;
        Ok(())
    }
}

impl VcpuAlgorithm for Null {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcpuId, parameters: &Parameters) -> Result<(), ScheduleError> {
        let slots = who.slot().saturating_add(1);
        let missing = slots.saturating_sub(self.affinity.len());
        if self.affinity.try_reserve(missing).is_err() {
            return Err(ScheduleError::NoMemory);
        }
        if self.affinity.len() < slots {
            self.affinity.resize(slots, None);
        }
        self.set_parameters(who, parameters)
    }

    fn remove(&mut self, who: VcpuId) {
        for place in &mut self.owners {
            if *place == Some(who) {
                *place = None;
            }
        }
        if let Some(place) = self.affinity.get_mut(who.slot()) {
            *place = None;
        }
    }

    fn set_parameters(
        &mut self,
        who: VcpuId,
        parameters: &Parameters,
    ) -> Result<(), ScheduleError> {
        self.assign(who, parameters.affinity)?;
        if let Some(place) = self.affinity.get_mut(who.slot()) {
            *place = Some(parameters.affinity);
        }
        Ok(())
    }

    fn eligible(&self, who: VcpuId) -> CpuSet {
        self.home(who).map_or(CpuSet::NONE, CpuSet::only)
    }

    fn wake(&mut self, _who: VcpuId, _now: Instant) {}

    fn sleep(&mut self, _who: VcpuId, _now: Instant) {}

    fn put(&mut self, who: VcpuId, _now: Instant) {
        self.queued |= self.eligible(who);
    }

    fn take(&mut self, who: VcpuId) {
        self.queued = self.queued.without(self.eligible(who));
    }

    fn best(&mut self, cpu: usize, _now: Instant) -> Option<VcpuId> {
        let waits = self.queued.contains(cpu);
        let owner = self.owners.get(cpu).copied().flatten();
        owner.filter(|_| waits)
    }

    fn pick(&mut self, cpu: usize, now: Instant) -> Option<VcpuId> {
        let who = self.best(cpu, now)?;
        self.take(who);
        Some(who)
    }

    fn charge(&mut self, _who: VcpuId, _time: Duration, _now: Instant) {}

    /// Only from one that has to leave anyway.
    fn preempts(&self, who: VcpuId, running: VcpuId, cpu: usize, _now: Instant) -> bool {
        self.home(who) == Some(cpu) && self.home(running) != Some(cpu)
    }

    fn turn(&self, _who: VcpuId, _cpu: usize, _ran: Duration) -> Option<Duration> {
        None
    }
}
