//! Time reserved in each period, guaranteed by admission; the rest of the CPUs shared by weights.
//!
//! A vCPU with a budget Q and a period T has a constant bandwidth server (the rules: [`sched_algos::bandwidth`]): when it wakes it may use Q
//! until its deadline, T later; with its budget used up it gets the next one at its deadline, not before. Each server has a *home*, one CPU of its
//! affinity, given at admission; there, servers with budget run earliest deadline first, before everything else. What is left of all CPUs goes
//! by weights ([`super::Weighted`]) to everybody: vCPUs without a budget, and servers beyond theirs or away from home.
//!
//! Partitioned and not global, since one CPU's test is exact (C. Liu, J. Layland, JACM 20, 1973: Σ Q/T ≤ 1), holds with any affinities, and
//! one server with a large share costs the others nothing. A server runs elsewhere too while a CPU has nothing better to do; this uses its
//! budget, too, and can only bring its work forward.
//!
//! **Guarantees.** A vCPU with at most Q of work every T ends each within T of its waking, as long as it may run (EL2's own work, a park on a
//! coprocessor, aren't counted). **Admission.** For each home, Σ (Q + [`SWITCHING`]) / T ≤ 1. Homes are chosen one by one, the least
//! reserved first, so a set that just fits may be refused; an affinity of one CPU settles it.

use super::weighted::Weighted;
use super::{CpuSet, MAX_CPUS, Parameters, ScheduleError, VcpuAlgorithm, VcpuId};
use alloc::vec::Vec;
use coproc_core::time::{Duration, Instant};
use sched_algos::bandwidth::{Reserve, WHOLE, part};
use sched_algos::heap::Heap;

/// Its name in the device tree.
pub const NAME: &str = crate::config::pools::algorithm::DEADLINE;
/// What two switches of vCPUs, in and out, cost at most; counted to every budget at admission.
pub const SWITCHING: Duration = Duration::from_micros(50);

/// Periods that one charge looks at.
const PERIODS: usize = 8;

#[derive(Clone, Copy, Debug)]
struct Server {
    reserve: Reserve,
    home: usize,
    /// What is left until the deadline.
    left: Duration,
    deadline: Instant,
}

impl Server {
    /// A new budget, if the old one is used up and its time over.
    #[inline]
    fn refill(&mut self, now: Instant) {
        if self.left > Duration::ZERO || self.deadline > now {
            return;
        }
        let next = self.deadline.saturating_add(self.reserve.period);
        let late = now.saturating_add(self.reserve.period);
        self.deadline = if next > now { next } else { late };
        self.left = self.reserve.budget;
    }
}

impl Server {
    /// Used `time` up to `now`. Returns what of that no budget covered.
    ///
    /// One that runs beyond its budget comes by the next one at its deadline, and from there on uses that: had it run on for nothing and kept the
    /// whole budget for what is left of the period, others would miss their deadlines.
    fn charge(&mut self, time: Duration, now: Instant) -> Duration {
        let mut at = Instant::from_nanos(now.as_nanos().saturating_sub(time.as_nanos()));
        let mut beyond = Duration::ZERO;
        for _ in 0..PERIODS {
            let used = self.left.min(now.since(at));
            self.left = self.left.saturating_sub(used);
            at = at.saturating_add(used);
            if self.left > Duration::ZERO || self.deadline > now {
                return beyond.saturating_add(now.since(at));
            }
            let gap = self.deadline.since(at);
            beyond = beyond.saturating_add(gap);
            at = at.saturating_add(gap);
            self.refill(at);
        }
        // It had a CPU for many periods, so nobody was in want of it. A period that begins now is nobody's loss.
        self.left = self.reserve.budget;
        self.deadline = now.saturating_add(self.reserve.period);
        beyond.saturating_add(now.since(at))
    }
}

/// Order among servers: by deadline, equal ones by number.
type Due = Heap<(Instant, usize)>;

/// Budgets and periods.
#[derive(Debug)]
pub struct Deadline {
    cpus: CpuSet,
    servers: Vec<Option<Server>>,
    /// For each home the queued ones with budget.
    ready: [Due; MAX_CPUS],
    /// For each home the queued ones without: they get one at their deadline.
    spent: [Due; MAX_CPUS],
    slack: Weighted,
}

impl Deadline {
    /// Nobody on these CPUs yet.
    pub fn new(cpus: CpuSet) -> Self {
        Self {
            cpus,
            servers: Vec::new(),
            ready: core::array::from_fn(|_| Heap::new()),
            spent: core::array::from_fn(|_| Heap::new()),
            slack: Weighted::new(),
        }
    }

    fn server(&self, who: VcpuId) -> Option<&Server> {
        self.servers.get(who.slot())?.as_ref()
    }

    fn server_mut(&mut self, who: VcpuId) -> Option<&mut Server> {
        self.servers.get_mut(who.slot())?.as_mut()
    }

    /// A home for a reservation, the present one if possible.
    fn admit(
        &self,
        who: VcpuId,
        reserve: Reserve,
        affinity: CpuSet,
    ) -> Result<usize, ScheduleError> {
        let cost =
            |reserve: Reserve| part(reserve.budget.saturating_add(SWITCHING), reserve.period);
        let reserved = |cpu: usize| {
            let servers = self.servers.iter().enumerate();
            let others = servers.filter(|(slot, _)| *slot != who.slot());
            others
                .filter_map(|(_, server)| server.as_ref())
                .filter(|server| server.home == cpu)
                .fold(0_u128, |sum, server| {
                    sum.saturating_add(cost(server.reserve))
                })
        };
        let present = self.server(who).map(|server| server.home);
        (affinity & self.cpus)
            .iter()
            .map(|cpu| (Some(cpu) != present, reserved(cpu), cpu))
            .filter(|(_, sum, _)| sum.saturating_add(cost(reserve)) <= WHOLE)
            .min()
            .map(|(_, _, cpu)| cpu)
            .ok_or(ScheduleError::NotAdmitted(
                "more time reserved than its CPUs have, with 50 us for switching in each period",
            ))
    }

    /// Its deadline, if it has a budget to use on this CPU.
    #[inline]
    fn urgent(&self, who: VcpuId, cpu: usize) -> Option<Instant> {
        let server = self.server(who)?;
        (server.home == cpu && server.left > Duration::ZERO).then_some(server.deadline)
    }

    /// Out of the queues of its home.
    fn withdraw(&mut self, who: VcpuId) {
        if let Some(home) = self.server(who).map(|server| server.home) {
            for queues in [&mut self.ready, &mut self.spent] {
                if let Some(queue) = queues.get_mut(home) {
                    queue.remove(who.slot());
                }
            }
        }
    }

    /// Into the queue of its home that it belongs to.
    fn enrol(&mut self, who: VcpuId, now: Instant) {
        let Some(server) = self.server_mut(who) else {
            return;
        };
        server.refill(now);
        let (home, left, deadline) = (server.home, server.left, server.deadline);
        let queues = if left > Duration::ZERO {
            &mut self.ready
        } else {
            &mut self.spent
        };
        if let Some(queue) = queues.get_mut(home) {
            queue.set(who.slot(), (deadline, who.slot()));
        }
    }

    fn replenish(&mut self, cpu: usize, now: Instant) {
        while let Some(((deadline, _), slot)) = self.spent.get(cpu).and_then(Heap::min) {
            let Ok(slot) = u16::try_from(slot) else {
                return;
            };
            if deadline > now {
                return;
            }
            self.withdraw(VcpuId(slot));
            self.enrol(VcpuId(slot), now);
        }
    }
}

impl VcpuAlgorithm for Deadline {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcpuId, parameters: &Parameters) -> Result<(), ScheduleError> {
        let slots = who.slot().saturating_add(1);
        let missing = slots.saturating_sub(self.servers.len());
        if self.servers.try_reserve(missing).is_err() {
            return Err(ScheduleError::NoMemory);
        }
        for queue in self.ready.iter_mut().chain(&mut self.spent) {
            if !queue.reserve(slots) {
                return Err(ScheduleError::NoMemory);
            }
        }
        if self.servers.len() < slots {
            self.servers.resize(slots, None);
        }
        self.slack.add(who, parameters)?;
        let result = self.set_parameters(who, parameters);
        if result.is_err() {
            self.slack.remove(who);
        }
        result
    }

    fn remove(&mut self, who: VcpuId) {
        self.slack.remove(who);
        if let Some(place) = self.servers.get_mut(who.slot()) {
            *place = None;
        }
    }

    fn set_parameters(
        &mut self,
        who: VcpuId,
        parameters: &Parameters,
    ) -> Result<(), ScheduleError> {
        let reserve = Reserve::of(&parameters.share)?;
        let home = reserve
            .map(|reserve| self.admit(who, reserve, parameters.affinity))
            .transpose()?;
        self.slack.set_parameters(who, parameters)?;
        let place = self
            .servers
            .get_mut(who.slot())
            .ok_or(ScheduleError::Unknown)?;
        let (Some(reserve), Some(home)) = (reserve, home) else {
            *place = None;
            return Ok(());
        };
        match place {
            // Another home alone takes nothing from the budget.
            Some(server) if server.reserve == reserve => server.home = home,
            // It starts anew when it is next queued or charged.
            _ => {
                *place = Some(Server {
                    reserve,
                    home,
                    left: Duration::ZERO,
                    deadline: Instant::from_nanos(0),
                });
            }
        }
        Ok(())
    }

    fn eligible(&self, who: VcpuId) -> CpuSet {
        self.slack.eligible(who)
    }

    fn home(&self, who: VcpuId) -> Option<usize> {
        self.server(who).map(|server| server.home)
    }

    fn wake(&mut self, who: VcpuId, now: Instant) {
        self.slack.wake(who, now);
        if let Some(server) = self.server_mut(who) {
            let until = server.deadline.since(now);
            if server.deadline <= now || !server.reserve.allows(server.left, until) {
                server.left = server.reserve.budget;
                server.deadline = now.saturating_add(server.reserve.period);
            }
        }
    }

    fn sleep(&mut self, who: VcpuId, now: Instant) {
        self.slack.sleep(who, now);
    }

    fn put(&mut self, who: VcpuId, now: Instant) {
        self.slack.put(who, now);
        self.enrol(who, now);
    }

    fn take(&mut self, who: VcpuId) {
        self.slack.take(who);
        self.withdraw(who);
    }

    fn best(&mut self, cpu: usize, now: Instant) -> Option<VcpuId> {
        self.replenish(cpu, now);
        match self.ready.get(cpu).and_then(Heap::min) {
            Some((_, slot)) => u16::try_from(slot).ok().map(VcpuId),
            None => self.slack.best(cpu, now),
        }
    }

    fn pick(&mut self, cpu: usize, now: Instant) -> Option<VcpuId> {
        let who = self.best(cpu, now)?;
        self.take(who);
        Some(who)
    }

    fn charge(&mut self, who: VcpuId, time: Duration, now: Instant) {
        let beyond = match self.server_mut(who) {
            Some(server) => server.charge(time, now),
            None => time,
        };
        if beyond > Duration::ZERO {
            self.slack.charge(who, beyond, now);
        }
    }

    fn preempts(&self, who: VcpuId, running: VcpuId, cpu: usize, now: Instant) -> bool {
        match (self.urgent(who, cpu), self.urgent(running, cpu)) {
            (Some(mine), Some(other)) => mine < other,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => self.slack.preempts(who, running, cpu, now),
        }
    }

    fn turn(&self, who: VcpuId, cpu: usize, ran: Duration) -> Option<Duration> {
        match (self.urgent(who, cpu), self.server(who)) {
            (Some(_), Some(server)) => self.slack.waits(cpu).then_some(server.left),
            _ => self.slack.turn(who, cpu, ran),
        }
    }

    fn next_event(&self, cpu: usize) -> Option<Instant> {
        let ((deadline, _), _) = self.spent.get(cpu)?.min()?;
        Some(deadline)
    }
}
