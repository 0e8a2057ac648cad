//! One pool: its CPUs, its vCPUs, and who is where.
//!
//! A CPU's *seat* says who shall run there (`current`) and whose registers are in it (`loaded`); the two differ while the CPU hasn't caught up,
//! and on an idle CPU, which keeps the last vCPU loaded, since that one mostly comes back. Four rules keep a vCPU on one CPU at a time:
//!
//! 1. `current` of a seat, or the queue, or asleep: a vCPU is in exactly one of these places, and only under the pool's lock it moves.
//! 2. A CPU changes what is loaded only by [`Pool::reschedule`], called by itself, and carries it out before it asks again.
//! 3. One that is current here but still loaded on another CPU is being saved there: the other CPU does nothing else first. Who loads it
//!    waits for that (`Vcpu::resident` in `system/domain/vcpu.rs`), having saved its own before, so two CPUs that exchange vCPUs don't wait for each other.
//! 4. One that is asleep and loaded on an idle CPU wakes *there*, without a queue, unless that CPU may not run it any more: then it is saved at once.

use super::{CpuSet, MAX_CPUS, Parameters, ScheduleError, VcpuAlgorithm, VcpuId};
use alloc::boxed::Box;
use alloc::vec::Vec;
use coproc_core::time::{Duration, Instant};
use sched_algos::heap::Heap;

/// Where a vCPU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// It wants no CPU.
    Asleep,
    /// It waits for one.
    Queued,
    /// It has this one, or gets it at once.
    Running(usize),
}

#[derive(Debug)]
struct Entry {
    parameters: Parameters,
    place: Place,
    /// The CPU that it had last.
    last: Option<usize>,
    /// The CPU whose timer looks after its virtual timer, while it is asleep and not loaded.
    keeper: Option<usize>,
    /// When it was queued.
    since: Instant,
    ran: Duration,
    waited: Duration,
    longest_wait: Duration,
    switches: u64,
    migrations: u64,
}

#[derive(Debug)]
struct Seat {
    current: Option<VcpuId>,
    loaded: Option<VcpuId>,
    /// Up to when `current` is charged.
    charged: Instant,
    /// When its turn began.
    began: Instant,
    /// When its turn ends; `None`: nobody waits.
    until: Option<Instant>,
    /// Virtual timers of those asleep that this CPU saved, in ns.
    timers: Heap<(u64, usize)>,
}

/// What a CPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Decision {
    /// Who runs there from now on; `None`: nobody.
    pub run: Option<VcpuId>,
    /// Nobody runs, and the one that is loaded has to be saved all the same: it may be on its way to another CPU.
    pub unload: bool,
    /// The CPUs that have to call [`Pool::reschedule`], too.
    pub kick: CpuSet,
}

/// Whether a vCPU is gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    /// It is, and its id is free.
    Done,
    /// It is awake or loaded; these CPUs have to call [`Pool::reschedule`], then ask again.
    Again(CpuSet),
}

/// What can be told about a vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcpuReport {
    /// Where it is.
    pub place: Place,
    /// What was configured.
    pub parameters: Parameters,
    /// The CPU that it had last.
    pub last: Option<usize>,
    /// Time on a CPU.
    pub ran: Duration,
    /// Time in the queue.
    pub waited: Duration,
    /// The longest time in the queue at a stretch.
    pub longest_wait: Duration,
    /// Times that it got a CPU that it didn't have.
    pub switches: u64,
    /// Of those, on another CPU than before.
    pub migrations: u64,
}

/// The earlier one of two times, of which either may be none.
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// A pool of CPUs.
pub struct Pool {
    cpus: CpuSet,
    algorithm: Box<dyn VcpuAlgorithm>,
    entries: Vec<Option<Entry>>,
    seats: [Seat; MAX_CPUS],
}

impl Pool {
    /// A pool with these CPUs and no vCPU yet.
    pub fn new(cpus: CpuSet, algorithm: Box<dyn VcpuAlgorithm>) -> Self {
        Self {
            cpus,
            algorithm,
            entries: Vec::new(),
            seats: core::array::from_fn(|_| Seat {
                current: None,
                loaded: None,
                charged: Instant::from_nanos(0),
                began: Instant::from_nanos(0),
                until: None,
                timers: Heap::new(),
            }),
        }
    }

    /// Its CPUs.
    pub const fn cpus(&self) -> CpuSet {
        self.cpus
    }

    /// Name of its algorithm.
    pub fn algorithm(&self) -> &'static str {
        self.algorithm.name()
    }

    /// Its vCPUs, in the order of their ids.
    pub fn vcpus(&self) -> impl Iterator<Item = VcpuId> + '_ {
        let ids = (0..=u16::MAX).zip(&self.entries);
        ids.filter(|(_, entry)| entry.is_some())
            .map(|(id, _)| VcpuId(id))
    }

    fn entry(&self, who: VcpuId) -> Option<&Entry> {
        self.entries.get(who.slot())?.as_ref()
    }

    fn entry_mut(&mut self, who: VcpuId) -> Option<&mut Entry> {
        self.entries.get_mut(who.slot())?.as_mut()
    }

    fn seat_mut(&mut self, cpu: usize) -> Option<&mut Seat> {
        self.seats.get_mut(cpu)
    }

    /// The parameters as an algorithm gets them: nothing but the pool's CPUs in the affinity.
    fn effective(&self, parameters: &Parameters) -> Result<Parameters, ScheduleError> {
        let affinity = parameters.affinity & self.cpus;
        if affinity.is_empty() {
            return Err(ScheduleError::NoCpu);
        }
        Ok(Parameters {
            affinity,
            ..*parameters
        })
    }

    /// Takes a vCPU in, asleep. Returns its id, and the CPUs that have to reschedule.
    ///
    /// # Errors
    /// [`ScheduleError`]; nothing is changed then.
    pub fn add(
        &mut self,
        parameters: &Parameters,
        now: Instant,
    ) -> Result<(VcpuId, CpuSet), ScheduleError> {
        let effective = self.effective(parameters)?;
        let free = self.entries.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.entries.len());
        let who = VcpuId(u16::try_from(slot).map_err(|_| ScheduleError::NoMemory)?);
        let slots = slot.saturating_add(1);
        let room = self.entries.try_reserve(1).is_ok()
            && self.seats.iter_mut().all(|seat| seat.timers.reserve(slots));
        if !room {
            return Err(ScheduleError::NoMemory);
        }
        self.algorithm.add(who, &effective)?;
        let entry = Some(Entry {
            parameters: *parameters,
            place: Place::Asleep,
            last: None,
            keeper: None,
            since: Instant::from_nanos(0),
            ran: Duration::ZERO,
            waited: Duration::ZERO,
            longest_wait: Duration::ZERO,
            switches: 0,
            migrations: 0,
        });
        match self.entries.get_mut(slot) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        // It may have moved another one (`null`).
        Ok((who, self.misplaced() | self.place_again(now)))
    }

    /// Lets go of a vCPU that is off. Its registers may still be on their way out of a CPU: that's for the caller to see (`Vcpu::resident`).
    pub fn remove(&mut self, who: VcpuId) -> Removal {
        let seats = self.seats.iter().enumerate();
        let holders: CpuSet = seats
            .filter(|(_, seat)| seat.loaded == Some(who) || seat.current == Some(who))
            .map(|(cpu, _)| cpu)
            .collect();
        let asleep = self
            .entry(who)
            .is_none_or(|entry| entry.place == Place::Asleep);
        if !asleep || !holders.is_empty() {
            return Removal::Again(holders);
        }
        self.forget_timer(who);
        if self.entry(who).is_some() {
            self.algorithm.remove(who);
        }
        if let Some(place) = self.entries.get_mut(who.slot()) {
            *place = None;
        }
        Removal::Done
    }

    /// Changes a vCPU. Returns the CPUs that have to reschedule.
    ///
    /// # Errors
    /// [`ScheduleError`]; nothing is changed then.
    pub fn set_parameters(
        &mut self,
        who: VcpuId,
        parameters: &Parameters,
        now: Instant,
    ) -> Result<CpuSet, ScheduleError> {
        let effective = self.effective(parameters)?;
        let place = self.entry(who).ok_or(ScheduleError::Unknown)?.place;
        self.charge_all(self.cpus, now);
        if place == Place::Queued {
            self.algorithm.take(who);
        }
        let result = self.algorithm.set_parameters(who, &effective);
        if let Err(error) = result {
            if place == Place::Queued {
                self.algorithm.put(who, now);
            }
            return Err(error);
        }
        if let Some(entry) = self.entry_mut(who) {
            entry.parameters = *parameters;
        }
        let kick = match place {
            Place::Queued => self.place(who, now, None),
            Place::Running(cpu) => CpuSet::only(cpu),
            Place::Asleep => CpuSet::NONE,
        };
        Ok(kick | self.misplaced() | self.place_again(now))
    }

    /// Another algorithm from now on. Returns the CPUs that have to reschedule: all.
    ///
    /// # Errors
    /// [`ScheduleError`], if the new one doesn't admit all vCPUs; the old one stays then, as it was.
    pub fn replace(
        &mut self,
        mut algorithm: Box<dyn VcpuAlgorithm>,
        now: Instant,
    ) -> Result<CpuSet, ScheduleError> {
        let ids: Vec<VcpuId> = self.vcpus().collect();
        for who in &ids {
            if let Some(entry) = self.entry(*who) {
                let parameters = self.effective(&entry.parameters)?;
                algorithm.add(*who, &parameters)?;
            }
        }
        self.charge_all(self.cpus, now);
        self.algorithm = algorithm;
        for seat in &mut self.seats {
            seat.until = None;
        }
        for who in &ids {
            match self.entry(*who).map(|entry| entry.place) {
                Some(Place::Running(_)) => self.algorithm.wake(*who, now),
                Some(Place::Queued) => {
                    self.algorithm.wake(*who, now);
                    self.algorithm.put(*who, now);
                }
                _ => {}
            }
        }
        Ok(self.place_again(now) | self.cpus)
    }

    /// Idle CPUs take what they may run since the last change of rules.
    #[inline]
    fn place_again(&mut self, now: Instant) -> CpuSet {
        let mut kick = CpuSet::NONE;
        for slot in 0..self.entries.len() {
            let Ok(slot) = u16::try_from(slot) else {
                break;
            };
            let who = VcpuId(slot);
            if self.entry(who).map(|entry| entry.place) == Some(Place::Queued) {
                self.algorithm.take(who);
                kick |= self.place(who, now, None);
            }
        }
        kick
    }

    /// The CPUs with a vCPU that may not be there any more.
    #[inline]
    fn misplaced(&self) -> CpuSet {
        let seats = self.seats.iter().enumerate();
        seats
            .filter(|(cpu, seat)| {
                let here = [seat.current, seat.loaded];
                here.into_iter()
                    .flatten()
                    .any(|who| !self.algorithm.eligible(who).contains(*cpu))
            })
            .map(|(cpu, _)| cpu)
            .collect()
    }

    /// A vCPU wants a CPU. Returns the CPUs that have to reschedule. Nothing happens to one that has a place already.
    pub fn wake(&mut self, who: VcpuId, now: Instant) -> CpuSet {
        if self.entry(who).map(|entry| entry.place) != Some(Place::Asleep) {
            return CpuSet::NONE;
        }
        self.forget_timer(who);
        self.algorithm.wake(who, now);
        self.place(who, now, None)
    }

    /// Finds a place for one that is awake and in no queue: an idle CPU, or else the queue. `except`: a CPU that is just deciding.
    fn place(&mut self, who: VcpuId, now: Instant, except: Option<usize>) -> CpuSet {
        let eligible = self.algorithm.eligible(who) & self.cpus;
        let last = self.entry(who).and_then(|entry| entry.last);
        // Where its registers are; where its caches are; where nobody's are; anywhere.
        let mut idle: Option<(usize, (bool, bool, bool))> = None;
        for cpu in eligible.iter().filter(|cpu| Some(*cpu) != except) {
            if let Some(seat) = self.seats.get(cpu)
                && seat.current.is_none()
            {
                let away = (
                    seat.loaded != Some(who),
                    Some(cpu) != last,
                    seat.loaded.is_some(),
                );
                if idle.is_none_or(|(_, least)| away < least) {
                    idle = Some((cpu, away));
                }
            }
        }
        if let Some((cpu, _)) = idle {
            self.occupy(cpu, who, now);
            return CpuSet::only(cpu);
        }
        if let Some(entry) = self.entry_mut(who) {
            entry.place = Place::Queued;
            entry.since = now;
        }
        self.charge_all(eligible, now);
        let home = self.algorithm.home(who);
        let mut victim: Option<(usize, VcpuId)> = None;
        for cpu in eligible.iter().filter(|cpu| Some(*cpu) != except) {
            let Some(running) = self.seats.get(cpu).and_then(|seat| seat.current) else {
                continue;
            };
            if !self.algorithm.preempts(who, running, cpu, now) {
                continue;
            }
            if home == Some(cpu) {
                victim = Some((cpu, running));
                break;
            }
            // Of those that it may take a CPU from, the last in order.
            let behind =
                victim.is_none_or(|(_, other)| self.algorithm.preempts(other, running, cpu, now));
            if behind {
                victim = Some((cpu, running));
            }
        }
        let event = |algorithm: &dyn VcpuAlgorithm| home.and_then(|cpu| algorithm.next_event(cpu));
        let before = event(&*self.algorithm);
        self.algorithm.put(who, now);
        let sooner = event(&*self.algorithm) != before;
        let mut kick = victim.map_or(CpuSet::NONE, |(cpu, _)| CpuSet::only(cpu));
        // Its home's timer is to be set by its home.
        if let Some(cpu) = home.filter(|_| sooner) {
            kick |= CpuSet::only(cpu);
        }
        for cpu in eligible.iter() {
            if self.shorten(cpu, now) {
                kick |= CpuSet::only(cpu);
            }
        }
        match except {
            Some(cpu) => kick.without(CpuSet::only(cpu)),
            None => kick,
        }
    }

    /// Gives a CPU to a vCPU that is in no queue.
    #[inline]
    fn occupy(&mut self, cpu: usize, who: VcpuId, now: Instant) {
        let loaded = self.seats.get(cpu).and_then(|seat| seat.loaded);
        if let Some(entry) = self.entry_mut(who) {
            if entry.place == Place::Queued {
                let waited = now.since(entry.since);
                entry.waited = entry.waited.saturating_add(waited);
                entry.longest_wait = entry.longest_wait.max(waited);
            }
            entry.place = Place::Running(cpu);
            if loaded != Some(who) {
                entry.switches = entry.switches.saturating_add(1);
            }
            if entry.last.is_some_and(|last| last != cpu) {
                entry.migrations = entry.migrations.saturating_add(1);
            }
            entry.last = Some(cpu);
        }
        if let Some(seat) = self.seat_mut(cpu) {
            seat.current = Some(who);
            seat.charged = now;
            seat.began = now;
            seat.until = None;
        }
    }

    #[inline]
    fn charge_all(&mut self, cpus: CpuSet, now: Instant) {
        for cpu in cpus.iter() {
            self.charge(cpu, now);
        }
    }

    #[inline]
    fn charge(&mut self, cpu: usize, now: Instant) {
        let Some(seat) = self.seats.get_mut(cpu) else {
            return;
        };
        let time = now.since(seat.charged);
        seat.charged = seat.charged.max(now);
        if let Some(who) = seat.current
            && time > Duration::ZERO
        {
            self.algorithm.charge(who, time, now);
            if let Some(entry) = self.entry_mut(who) {
                entry.ran = entry.ran.saturating_add(time);
            }
        }
    }

    /// CPU `cpu` asks what to do. `loaded`: whose registers are in it. `runnable`: whether a vCPU still wants a CPU. `timer`: when the
    /// virtual timer of the loaded one fires, if it does.
    pub fn reschedule(
        &mut self,
        cpu: usize,
        loaded: Option<VcpuId>,
        runnable: impl Fn(VcpuId) -> bool,
        timer: Option<Instant>,
        now: Instant,
    ) -> Decision {
        self.charge(cpu, now);
        let mut leaving = None;
        let mut queued = false;
        let Some(seat) = self.seats.get_mut(cpu) else {
            return Decision {
                run: None,
                unload: false,
                kick: CpuSet::NONE,
            };
        };
        seat.loaded = loaded;
        if let Some(current) = seat.current {
            let over = seat.until.is_some_and(|until| until <= now);
            if !runnable(current) {
                self.set_place(current, Place::Asleep);
                self.algorithm.sleep(current, now);
                self.vacate(cpu);
            } else if !self.algorithm.eligible(current).contains(cpu) {
                self.vacate(cpu);
                leaving = Some(current);
            } else if self.is_preempted(cpu, current, now)
                && let Some(next) = self.algorithm.pick(cpu, now)
            {
                self.forget_timer(next);
                self.occupy(cpu, next, now);
                leaving = Some(current);
            } else if over {
                // It competes with those that wait.
                queued = true;
                self.set_queued(current, now);
                self.algorithm.put(current, now);
                self.vacate(cpu);
                leaving = Some(current);
            }
        }
        if self.current(cpu).is_none()
            && let Some(next) = self.algorithm.pick(cpu, now)
        {
            self.forget_timer(next);
            self.occupy(cpu, next, now);
        }
        let mut kick = CpuSet::NONE;
        let current = self.current(cpu);
        if let Some(leaving) = leaving.filter(|leaving| Some(*leaving) != current) {
            if queued {
                self.algorithm.take(leaving);
            }
            kick |= self.place(leaving, now, Some(cpu));
        }
        let mut unload = false;
        if let Some(loaded) = loaded.filter(|loaded| Some(*loaded) != current) {
            let asleep = self
                .entry(loaded)
                .is_some_and(|entry| entry.place == Place::Asleep);
            let stays = asleep && self.algorithm.eligible(loaded).contains(cpu);
            unload = current.is_none() && !stays;
            if asleep && (unload || current.is_some()) {
                self.remember_timer(loaded, cpu, timer);
            }
        }
        self.shorten(cpu, now);
        if let Some(seat) = self.seats.get_mut(cpu) {
            if seat.current.is_none() {
                seat.until = None;
            }
            // Before it is asked again, the CPU has done as it was told.
            if current.is_some() {
                seat.loaded = current;
            } else if unload {
                seat.loaded = None;
            }
        }
        Decision {
            run: current,
            unload,
            kick,
        }
    }

    /// Ends the turn on this CPU when the algorithm says, if that's sooner than it would have. Returns whether it is.
    ///
    /// A turn may get shorter under way: somebody waits now, or what began as a turn of slack has become one of a budget.
    #[inline]
    fn shorten(&mut self, cpu: usize, now: Instant) -> bool {
        let Some(seat) = self.seats.get_mut(cpu) else {
            return false;
        };
        let Some(running) = seat.current else {
            return false;
        };
        let Some(turn) = self.algorithm.turn(running, cpu, now.since(seat.began)) else {
            return false;
        };
        let end = now.saturating_add(turn);
        let sooner = seat.until.is_none_or(|until| end < until);
        if sooner {
            seat.until = Some(end);
        }
        sooner
    }

    fn current(&self, cpu: usize) -> Option<VcpuId> {
        self.seats.get(cpu)?.current
    }

    fn vacate(&mut self, cpu: usize) {
        if let Some(seat) = self.seat_mut(cpu) {
            seat.current = None;
            seat.until = None;
        }
    }

    fn set_place(&mut self, who: VcpuId, place: Place) {
        if let Some(entry) = self.entry_mut(who) {
            entry.place = place;
        }
    }

    fn set_queued(&mut self, who: VcpuId, now: Instant) {
        if let Some(entry) = self.entry_mut(who) {
            entry.place = Place::Queued;
            entry.since = now;
        }
    }

    fn is_preempted(&mut self, cpu: usize, current: VcpuId, now: Instant) -> bool {
        let best = self.algorithm.best(cpu, now);
        best.is_some_and(|best| self.algorithm.preempts(best, current, cpu, now))
    }

    fn remember_timer(&mut self, who: VcpuId, cpu: usize, timer: Option<Instant>) {
        self.forget_timer(who);
        let Some(at) = timer else {
            return;
        };
        if let Some(entry) = self.entry_mut(who) {
            entry.keeper = Some(cpu);
        }
        if let Some(seat) = self.seat_mut(cpu) {
            seat.timers.set(who.slot(), (at.as_nanos(), who.slot()));
        }
    }

    #[inline]
    fn forget_timer(&mut self, who: VcpuId) {
        let keeper = self.entry_mut(who).and_then(|entry| entry.keeper.take());
        if let Some(seat) = keeper.and_then(|cpu| self.seats.get_mut(cpu)) {
            seat.timers.remove(who.slot());
        }
    }

    /// One whose virtual timer, looked after by this CPU, has fired. It's for the caller to wake it. Asked until `None`.
    pub fn due(&mut self, cpu: usize, now: Instant) -> Option<VcpuId> {
        let ((at, _), slot) = self.seats.get(cpu)?.timers.min()?;
        if at > now.as_nanos() {
            return None;
        }
        let who = VcpuId(u16::try_from(slot).ok()?);
        self.forget_timer(who);
        Some(who)
    }

    /// When this CPU has to be interrupted: by the end of a turn, an event of the algorithm, or a virtual timer that it looks after.
    #[inline]
    pub fn next_event(&self, cpu: usize) -> Option<Instant> {
        let seat = self.seats.get(cpu)?;
        let timer = seat
            .timers
            .min()
            .map(|((at, _), _)| Instant::from_nanos(at));
        let event = seat.current.and_then(|_| self.algorithm.next_event(cpu));
        earlier(earlier(seat.until, timer), event)
    }

    /// Whether this CPU has to reschedule because of the time alone.
    pub fn is_over(&self, cpu: usize, now: Instant) -> bool {
        let Some(seat) = self.seats.get(cpu) else {
            return false;
        };
        let event = seat.current.and_then(|_| self.algorithm.next_event(cpu));
        [seat.until, event]
            .into_iter()
            .flatten()
            .any(|at| at <= now)
    }

    /// What can be told about a vCPU. The time of those that run counts up to now.
    pub fn report(&mut self, who: VcpuId, now: Instant) -> Option<VcpuReport> {
        if let Some(Place::Running(cpu)) = self.entry(who).map(|entry| entry.place) {
            self.charge(cpu, now);
        }
        let entry = self.entry(who)?;
        Some(VcpuReport {
            place: entry.place,
            parameters: entry.parameters,
            last: entry.last,
            ran: entry.ran,
            waited: entry.waited,
            longest_wait: entry.longest_wait,
            switches: entry.switches,
            migrations: entry.migrations,
        })
    }
}
