//! Time reserved in each period, guaranteed by admission; the rest shared by weights.
//!
//! A vcoproc with a budget Q and a period T gets a constant bandwidth server (L. Abeni, G. Buttazzo, *Integrating multimedia
//! applications in hard real-time systems*, RTSS 1998): whenever it wakes it may use Q before its deadline, which is T later, and servers with
//! budget run earliest deadline first (C. Liu, J. Layland, JACM 20, 1973). A server that has used its budget gets the next one
//! at its deadline, not before (the *hard* variant), so an overrunning domain takes from itself only.
//!
//! - **Slack.** When no server has work and budget, everybody with work shares the coprocessor by weights ([`crate::weighted`]): servers out of
//!   budget as well as vcoprocs without a reservation. What is used there is charged to no budget.
//! - **Waking again.** One that wakes before its deadline goes on with what is left of its budget if that isn't more than its
//!   bandwidth allows until then, and else starts anew, as in the paper. Since another wake may cost another preemption, going on costs
//!   the worst case of that from its own budget.
//! - **Lingering.** A domain that touched the device and left it idle may come back in a microsecond or never. It stays awake for the
//!   slack, but its server sleeps, so that an idle wait doesn't eat the budget that its next job is to have.
//!
//! **Guarantees.** A vcoproc that gets at most one job every T, of at most Q, ends it within T: always, as long as the device keeps the
//! driver's declared worst case. A job is what one doorbell starts; Q has to cover it with the slices' own costs (one trap each). A change
//! of an admitted set gives freed time away at once, so deadlines may be missed within the period of the change.
//!
//! **Admission.** With S the declared switch, R the declared refusal, m the shortest slice, C = Q + 2 S + R + m (switched in, switched
//! out again for a preemption by it, refusing past its budget, budgets rounded up) and B = R + S + 2 m (it has to wait for the switch and the refusal of
//! one with a later deadline): for every k, in the order of periods, Σ C(i)/T(i) over i ≤ k, plus B/T(k), is at most 1 (T. Baker, *Stack-based
//! scheduling of realtime processes*, Real-Time Systems 3, 1991). Refusing longer than declared, up to the abort, is debt
//! that the next budgets pay.
//!
//! **Cost.** Wake, sleep, charge, pick: O(log n); admission O(n log n).

mod admission;

use coproc_core::Algorithm;
use coproc_core::algorithm::{AlgorithmError, MIN_SLICE, Parameters, Pick, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};

pub use crate::bandwidth::MIN_BUDGET;
use crate::bandwidth::Reserve;
use crate::heap::Heap;
use crate::table::{NO_MEMORY, Table};
use crate::weighted::Weighted;

/// Its name in the device tree.
pub const NAME: &str = "reservation";
#[derive(Clone, Copy, Debug)]
struct Server {
    reserve: Option<Reserve>,
    /// It has work that is to be served from the budget.
    active: bool,
    /// What is left in this period.
    left: Duration,
    /// What was used beyond the budgets so far.
    over: Duration,
    deadline: Instant,
    /// It was picked to use its budget, rather than slack.
    serving: bool,
    order: u64,
}

/// Reservations.
#[derive(Debug)]
pub struct Reservation {
    tuning: Tuning,
    table: Table<Server>,
    /// Active with budget, by deadline.
    ready: Heap<(Instant, u64)>,
    /// Active without budget, by deadline: when they get the next one.
    spent: Heap<(Instant, u64)>,
    slack: Weighted,
    /// The one picked last.
    last: Option<usize>,
}

impl Reservation {
    /// Nobody yet.
    pub const fn new(tuning: &Tuning) -> Self {
        Self {
            tuning: *tuning,
            table: Table::new(),
            ready: Heap::new(),
            spent: Heap::new(),
            slack: Weighted::new(tuning),
            last: None,
        }
    }

    /// Whether all of these could be promised together.
    fn admit(&self, extra: Option<Reserve>, without: Option<usize>) -> Result<(), AlgorithmError> {
        let others = self.table.rows().filter(|(slot, _)| Some(*slot) != without);
        let reserves = others.filter_map(|(_, row)| row.state.reserve);
        admission::admit(reserves.chain(extra), &self.tuning)
    }

    fn server(&mut self, slot: usize) -> Option<&mut Server> {
        self.table.row_mut(slot).map(|row| &mut row.state)
    }

    /// How far a budget may be overrun without becoming a debt: admission has counted that.
    fn allowance(&self) -> Duration {
        self.tuning.refusal.saturating_add(MIN_SLICE)
    }

    /// What another preemption in the same period costs at most.
    fn return_cost(&self) -> Duration {
        self.tuning
            .switch
            .saturating_mul(2)
            .saturating_add(self.tuning.refusal)
    }

    /// Puts an active server where it belongs.
    fn place(&mut self, slot: usize) {
        let Some(server) = self.table.row(slot).map(|row| row.state) else {
            return;
        };
        let key = (server.deadline, server.order);
        if !server.active {
            self.ready.remove(slot);
            self.spent.remove(slot);
        } else if server.left > Duration::ZERO {
            self.spent.remove(slot);
            self.ready.set(slot, key);
        } else {
            self.ready.remove(slot);
            self.spent.set(slot, key);
        }
    }

    /// A new period that ends at `deadline`.
    fn refill(&mut self, slot: usize, deadline: Instant) {
        let allowance = self.allowance();
        let Some(server) = self.server(slot) else {
            return;
        };
        let Some(reserve) = server.reserve else {
            return;
        };
        let debt = server.over.saturating_sub(allowance);
        server.left = reserve.budget.saturating_sub(debt);
        server.over = match debt.saturating_sub(reserve.budget) {
            Duration::ZERO => Duration::ZERO,
            rest => rest.saturating_add(allowance),
        };
        server.deadline = deadline;
    }

    /// Gives new budgets to those whose deadline has come.
    fn replenish(&mut self, now: Instant) {
        while let Some(((deadline, _), slot)) = self.spent.min() {
            let reserve = self.table.row(slot).and_then(|row| row.state.reserve);
            let Some(reserve) = reserve.filter(|_| deadline <= now) else {
                return;
            };
            let next = deadline.saturating_add(reserve.period);
            let late = now.saturating_add(reserve.period);
            self.refill(slot, if next > now { next } else { late });
            self.place(slot);
        }
    }

    /// A server that sleeps or lingers has work again.
    fn activate(&mut self, slot: usize, now: Instant) {
        let cost = self.return_cost();
        let Some(server) = self.server(slot) else {
            return;
        };
        let Some(reserve) = server.reserve.filter(|_| !server.active) else {
            return;
        };
        server.active = true;
        if server.deadline > now && reserve.allows(server.left, server.deadline.since(now)) {
            server.left = server.left.saturating_sub(cost);
        } else {
            self.refill(slot, now.saturating_add(reserve.period));
        }
        self.place(slot);
        // If it is running, on slack, then from here on its budget.
        if self.last == Some(slot)
            && self.ready.contains(slot)
            && let Some(server) = self.server(slot)
        {
            server.serving = true;
        }
    }

    fn deactivate(&mut self, slot: usize) {
        if let Some(server) = self.server(slot) {
            server.active = false;
            server.serving = false;
        }
        self.place(slot);
    }

    #[cfg(test)]
    pub(crate) fn steps(&self) -> u64 {
        self.ready.steps + self.spent.steps + self.slack.steps()
    }
}

impl Algorithm for Reservation {
    fn name(&self) -> &'static str {
        NAME
    }

    fn add(&mut self, who: VcoprocId, parameters: &Parameters) -> Result<(), AlgorithmError> {
        if self.table.slot(who).is_some() {
            return Err(AlgorithmError::Duplicate(who));
        }
        let reserve = Reserve::of(parameters)?;
        if reserve.is_some() {
            self.admit(reserve, None)?;
        }
        let slots = self.table.slots_after_add();
        if !self.ready.reserve(slots) || !self.spent.reserve(slots) {
            return Err(NO_MEMORY);
        }
        self.slack.add(who, parameters)?;
        let server = Server {
            reserve,
            active: false,
            left: Duration::ZERO,
            over: Duration::ZERO,
            deadline: Instant::from_nanos(0),
            serving: false,
            order: u64::from(who.0),
        };
        if let Err(error) = self.table.add(who, parameters, server) {
            // Just added.
            let _ = self.slack.remove(who);
            return Err(error);
        }
        Ok(())
    }

    fn remove(&mut self, who: VcoprocId) -> Result<(), AlgorithmError> {
        let slot = self.table.remove(who)?;
        self.ready.remove(slot);
        self.spent.remove(slot);
        if self.last == Some(slot) {
            self.last = None;
        }
        self.slack.remove(who)
    }

    fn wake(&mut self, who: VcoprocId, now: Instant) {
        if let Some(slot) = self.table.slot(who) {
            self.slack.wake(who, now);
            self.activate(slot, now);
        }
    }

    fn linger(&mut self, who: VcoprocId, _now: Instant) {
        if let Some(slot) = self.table.slot(who) {
            self.deactivate(slot);
        }
    }

    fn sleep(&mut self, who: VcoprocId, now: Instant) {
        if let Some(slot) = self.table.slot(who) {
            self.slack.sleep(who, now);
            self.deactivate(slot);
        }
    }

    fn charge(&mut self, who: VcoprocId, time: Duration, now: Instant) {
        let Some(slot) = self.table.slot(who) else {
            return;
        };
        match self.server(slot) {
            Some(server) if server.serving => {
                let over = time.saturating_sub(server.left);
                server.over = server.over.saturating_add(over);
                server.left = server.left.saturating_sub(time);
                self.place(slot);
            }
            _ => self.slack.charge(who, time, now),
        }
    }

    /// It is in the charge already.
    fn refused(&mut self, _who: VcoprocId, _time: Duration, _now: Instant) {}

    fn pick(&mut self, current: Option<VcoprocId>, now: Instant) -> Option<Pick> {
        self.replenish(now);
        let (pick, serving) = match self.ready.min() {
            Some((_, slot)) => {
                let row = self.table.row(slot)?;
                let left = row.state.left;
                // No crumbs: they would be rounded up.
                let whole = left <= self.tuning.slice.saturating_add(MIN_SLICE);
                let slice = Some(if whole { left } else { self.tuning.slice });
                let who = row.id;
                (Pick { who, slice }, true)
            }
            None => (self.slack.pick(current, now)?, false),
        };
        let slot = self.table.slot(pick.who)?;
        self.server(slot)?.serving = serving;
        self.last = Some(slot);
        Some(pick)
    }

    fn preempts(&mut self, current: VcoprocId, now: Instant) -> bool {
        self.replenish(now);
        let Some(slot) = self.table.slot(current) else {
            return false;
        };
        let best = self.ready.min().map(|(_, slot)| slot);
        let Some(server) = self.server(slot) else {
            return false;
        };
        if best == Some(slot) {
            // Whatever it ran on so far.
            server.serving = true;
            return false;
        }
        best.is_some() || (server.serving && server.left == Duration::ZERO)
    }

    fn next_event(&self, now: Instant) -> Option<Instant> {
        let refill = self.spent.min().map(|((deadline, _), _)| deadline);
        let row = self.last.and_then(|slot| self.table.row(slot));
        let running = row.filter(|row| row.state.serving && row.state.active);
        let used_up = running.map(|row| now.saturating_add(row.state.left));
        match (refill, used_up) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn set_parameters(
        &mut self,
        who: VcoprocId,
        parameters: &Parameters,
    ) -> Result<(), AlgorithmError> {
        let slot = self.table.slot(who).ok_or(AlgorithmError::Unknown(who))?;
        let reserve = Reserve::of(parameters)?;
        if reserve.is_some() {
            self.admit(reserve, Some(slot))?;
        }
        self.slack.set_parameters(who, parameters)?;
        let Some(row) = self.table.row_mut(slot) else {
            return Err(AlgorithmError::Unknown(who));
        };
        row.parameters = *parameters;
        let server = &mut row.state;
        if server.reserve == reserve {
            return Ok(());
        }
        // It starts anew; what it owes stays. If it is awake it gets its budget when next asked.
        server.reserve = reserve;
        server.left = Duration::ZERO;
        server.deadline = Instant::from_nanos(0);
        server.active = reserve.is_some() && self.slack.is_awake(who);
        server.serving = false;
        self.place(slot);
        Ok(())
    }

    fn tune(&mut self, tuning: &Tuning) -> Result<(), AlgorithmError> {
        crate::check_slice(tuning)?;
        let old = core::mem::replace(&mut self.tuning, *tuning);
        let result = self
            .admit(None, None)
            .and_then(|()| self.slack.tune(tuning));
        if result.is_err() {
            self.tuning = old;
        }
        result
    }

    fn snapshot(&self, visit: &mut dyn FnMut(VcoprocId, &Parameters, bool)) {
        self.slack.snapshot(visit);
    }
}

#[cfg(test)]
mod tests;
