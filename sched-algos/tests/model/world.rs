//! Machine, framework and guests together: one event at a time, each followed by the checks.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, MutexGuard};

use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Coproc, Outcome, Settings, Situation, State};
use coproc_core::environment::Environment;
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::Instant;

use crate::algorithm::{Books, Policy, Watched};
use crate::driver::{Contexts, Model};
use crate::machine::*;
use crate::oracle::{Oracle, Trick};

/// What a guest may do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Deed {
    Ring,
    Read(u64),
    Write(u64),
    Ack,
}

/// One virtual CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Vcpu {
    Free,
    /// Blocked on this access.
    Parked(Deed),
    /// About to carry out this access.
    Ready(Deed),
    /// Has acknowledged at the device, and is about to deactivate the interrupt.
    Handled,
}

#[derive(Clone, Debug)]
pub struct Guest {
    /// One that works and one that handles interrupts.
    pub vcpus: [Vcpu; 2],
    /// What it may still do.
    pub plan: BTreeMap<Deed, u8>,
    /// Doorbells that were accepted, in order.
    pub rung: Vec<u64>,
    /// What it wrote last.
    pub written: BTreeMap<u64, u64>,
    fresh: u64,
    /// Detached, or lost the device, as far as it has seen.
    pub faulted: bool,
}

/// What is explored.
#[derive(Clone, Debug)]
pub struct Setup {
    pub vcoprocs: u32,
    /// The device saves by DMA.
    pub area: bool,
    pub any: bool,
    pub plan: Vec<(Deed, u8)>,
    pub tricks: Vec<(Trick, u8)>,
    pub mutant: Option<Mutant>,
    /// An algorithm by its name, as it is; the script is any bytes.
    pub named: Option<&'static str>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Move {
    Timer,
    EarlyTimer,
    LateTimer,
    JobEnds,
    Interrupt,
    LateInterrupt,
    Go(VcoprocId, usize),
    Begin(VcoprocId, Deed),
    Handle(VcoprocId),
    Deactivate(VcoprocId),
    Retry(VcoprocId, usize),
    Resample(VcoprocId),
    WindowsMoved(VcoprocId),
    Detach(VcoprocId),
    Attach(VcoprocId),
    Stray,
    CollectFaults,
}

#[derive(Default, Clone, Copy, Debug, PartialEq, Eq)]
struct Book {
    charge: u64,
    overhead: u64,
}

pub struct World {
    pub setup: Setup,
    pub machine: Shared,
    env: Env,
    pub coproc: Coproc,
    pub contexts: Contexts,
    pub books: Arc<std::sync::Mutex<Books>>,
    pub guests: BTreeMap<VcoprocId, Guest>,
    start: u64,
    booked: BTreeMap<VcoprocId, Book>,
    gone: Book,
    idle: u64,
    fault: u64,
    /// The books here are to be taken from the framework's, once.
    unseen: bool,
    /// Whether every event is followed by the checks.
    pub checking: bool,
}

pub fn v(id: u32) -> VcoprocId {
    VcoprocId(id)
}

impl World {
    pub fn new(setup: &Setup, script: &[u8]) -> Self {
        let machine: Shared = Arc::new(std::sync::Mutex::new(Machine::new(
            Oracle::new(script, &setup.tricks),
            setup.mutant,
        )));
        machine.lock().unwrap().oracle.sound = true;
        let contexts = Contexts::default();
        let books = Books::new(setup.any);
        let driver = Box::new(Model {
            machine: machine.clone(),
            contexts: contexts.clone(),
            area: setup.area,
        });
        let settings = Settings::of(&*driver);
        let algorithm: Box<dyn coproc_core::Algorithm> = match setup.named {
            Some(name) => {
                machine.lock().unwrap().oracle.any_bytes = true;
                sched_algos::by_name(name, &settings.tuning(&*driver)).unwrap()
            }
            None => Box::new(Watched {
                books: books.clone(),
                machine: machine.clone(),
            }),
        };
        let mut env = Env(machine.clone());
        let start = machine.lock().unwrap().now;
        let now = Instant::from_nanos(start);
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, now);
        coproc.start(&mut env).unwrap();
        let mut world = Self {
            setup: setup.clone(),
            machine,
            env,
            coproc,
            contexts,
            books,
            guests: BTreeMap::new(),
            start,
            booked: BTreeMap::new(),
            gone: Book::default(),
            idle: 0,
            fault: 0,
            unseen: false,
            checking: true,
        };
        for id in 1..=setup.vcoprocs {
            world.attach(v(id));
        }
        world.m().oracle.sound = false;
        world
    }

    pub fn m(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap()
    }

    pub fn attach(&mut self, who: VcoprocId) -> bool {
        let domain = DomainId(who.0 as u16);
        let answer = self
            .coproc
            .attach(&mut self.env, who, domain, &Parameters::default());
        if answer.is_err() {
            return false;
        }
        let earlier = self.guests.get(&who);
        let (plan, fresh) = match earlier {
            Some(guest) => (guest.plan.clone(), guest.fresh),
            None => (self.setup.plan.iter().copied().collect(), 0),
        };
        self.guests.insert(
            who,
            Guest {
                vcpus: [Vcpu::Free; 2],
                plan,
                rung: Vec::new(),
                written: BTreeMap::new(),
                fresh,
                faulted: false,
            },
        );
        self.booked.insert(who, Book::default());
        let mut m = self.m();
        // A new instance, for which everything begins anew.
        m.executed.remove(&who);
        m.areas.remove(&who);
        m.outstanding.remove(&who);
        m.condemned.remove(&who);
        m.blamed.remove(&who);
        m.notified.remove(&who);
        m.strayed.remove(&who);
        m.released.remove(&who);
        true
    }

    fn pass(&mut self, nanos: u64) {
        self.m().now += nanos;
        let book = |booked: &mut BTreeMap<VcoprocId, Book>, gone: &mut Book, who, charge| {
            let book = booked.get_mut(&who).unwrap_or(gone);
            if charge {
                book.charge += nanos;
            } else {
                book.overhead += nanos;
            }
        };
        let (booked, gone) = (&mut self.booked, &mut self.gone);
        match self.coproc.state() {
            State::Off | State::Starting | State::Idle { .. } => self.idle += nanos,
            State::Running(slice) | State::Quiescing { slice, .. } => {
                book(booked, gone, slice.who, true);
            }
            State::Resting { who, .. }
            | State::Saving { who, .. }
            | State::Restoring { next: who, .. } => book(booked, gone, who, false),
            State::Aborting { .. } | State::Resetting { .. } | State::Quarantined { .. } => {
                self.fault += nanos;
            }
            // An event takes a bounded number of steps; whose account is still open can't be seen from outside.
            State::Detached => self.unseen = true,
        }
    }

    /// Everything that may happen now. The first is what a sound machine would do.
    pub fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::with_capacity(16);
        let m = self.m();
        let can = |trick| m.oracle.can(trick);
        if m.device.irq && !m.masked {
            moves.push(Move::Interrupt);
        }
        for (who, guest) in &self.guests {
            for (at, vcpu) in guest.vcpus.iter().enumerate() {
                match vcpu {
                    Vcpu::Ready(_) => moves.push(Move::Go(*who, at)),
                    Vcpu::Handled => moves.push(Move::Deactivate(*who)),
                    _ => {}
                }
            }
            if m.lines.get(who) == Some(&true) && guest.vcpus[1] == Vcpu::Free {
                moves.push(Move::Handle(*who));
            }
        }
        if m.device.job.is_some() {
            moves.push(Move::JobEnds);
        }
        if m.timer.is_some() {
            moves.push(Move::Timer);
        }
        if m.oracle.sound {
            return moves;
        }
        if m.timer.is_some() {
            if can(Trick::Early) {
                moves.push(Move::EarlyTimer);
            }
            if can(Trick::Late) {
                moves.push(Move::LateTimer);
            }
        }
        if can(Trick::Spurious) {
            moves.push(Move::LateInterrupt);
        }
        if can(Trick::Stray)
            && let Some(owner) = m.device.job
            && m.open_for(owner)
        {
            moves.push(Move::Stray);
        }
        if !m.records.is_empty() {
            moves.push(Move::CollectFaults);
        }
        for (who, guest) in &self.guests {
            let attached = self.coproc.is_attached(*who);
            for (at, vcpu) in guest.vcpus.iter().enumerate() {
                if matches!(vcpu, Vcpu::Parked(_)) && can(Trick::Retry) {
                    moves.push(Move::Retry(*who, at));
                }
            }
            if guest.vcpus[0] == Vcpu::Free && !guest.faulted {
                let plan = guest.plan.iter().filter(|(_, left)| **left > 0);
                moves.extend(plan.map(|(deed, _)| Move::Begin(*who, *deed)));
            }
            if can(Trick::Meddle) {
                moves.push(Move::Resample(*who));
                moves.push(Move::WindowsMoved(*who));
            }
            if can(Trick::Detach) && attached {
                moves.push(Move::Detach(*who));
            }
            if can(Trick::Attach) && !attached {
                moves.push(Move::Attach(*who));
            }
        }
        moves
    }

    /// One move, chosen by the oracle. `None`: there is none left.
    pub fn step(&mut self) -> Option<Move> {
        let moves = self.moves();
        let count = moves.len();
        let chosen = *moves.get(self.m().oracle.choose(count))?;
        self.play(chosen);
        Some(chosen)
    }

    pub fn play(&mut self, chosen: Move) {
        self.pass(3);
        let spend = |world: &Self, trick| world.m().oracle.spend(trick);
        match chosen {
            Move::Timer | Move::LateTimer => {
                let due = self.m().timer.take().unwrap_or(0);
                let now = self.m().now;
                let mut wait = due.saturating_sub(now);
                if chosen == Move::LateTimer {
                    spend(self, Trick::Late);
                    wait += LATE;
                    self.m().late = true;
                }
                self.pass(wait);
                self.coproc.timer(&mut self.env);
                self.m().late = false;
            }
            Move::EarlyTimer => {
                spend(self, Trick::Early);
                self.coproc.timer(&mut self.env);
            }
            Move::JobEnds => self.m().finish(),
            Move::Interrupt => self.coproc.interrupt(&mut self.env, 0),
            Move::LateInterrupt => {
                spend(self, Trick::Spurious);
                self.coproc.interrupt(&mut self.env, 0);
            }
            Move::Go(who, at) | Move::Retry(who, at) => {
                if matches!(chosen, Move::Retry(..)) {
                    spend(self, Trick::Retry);
                }
                let (Vcpu::Ready(deed) | Vcpu::Parked(deed)) = self.guests[&who].vcpus[at] else {
                    panic!("{chosen:?} of a vCPU that does nothing");
                };
                self.issue(who, at, deed);
            }
            Move::Begin(who, deed) => {
                let guest = self.guests.get_mut(&who).unwrap();
                *guest.plan.get_mut(&deed).unwrap() -= 1;
                self.issue(who, 0, deed);
            }
            Move::Handle(who) => self.issue(who, 1, Deed::Ack),
            Move::Deactivate(who) | Move::Resample(who) => {
                if let Move::Deactivate(_) = chosen {
                    self.guests.get_mut(&who).unwrap().vcpus[1] = Vcpu::Free;
                } else {
                    spend(self, Trick::Meddle);
                }
                self.coproc.resample(&mut self.env, who, 0);
            }
            Move::WindowsMoved(who) => {
                spend(self, Trick::Meddle);
                self.coproc.windows_changed(&mut self.env, who);
            }
            Move::Detach(who) => {
                spend(self, Trick::Detach);
                let answer = self.coproc.detach(&mut self.env, who);
                self.m().require(answer.is_ok(), |_| format!("{answer:?}"));
            }
            Move::Attach(who) => {
                spend(self, Trick::Attach);
                self.retire();
                let quarantined = matches!(self.coproc.state(), State::Quarantined { .. });
                let attached = self.attach(who);
                self.m().require(attached != quarantined, |_| {
                    format!("attach of {who}: {attached}, quarantined: {quarantined}")
                });
            }
            Move::Stray => {
                spend(self, Trick::Stray);
                let mut m = self.m();
                let owner = m.device.job.unwrap();
                m.records.push(owner);
                *m.strayed.entry(owner).or_default() += 1;
            }
            Move::CollectFaults => {
                let _ = self.coproc.collect_faults(&mut self.env);
            }
        }
        self.retire();
        if self.checking {
            self.check();
        }
    }

    /// Books of those that are gone; vCPUs that were released.
    pub fn retire(&mut self) {
        let coproc = &self.coproc;
        let gone = &mut self.gone;
        self.booked.retain(|who, book| {
            let stays = coproc.is_attached(*who);
            if !stays {
                gone.charge += book.charge;
                gone.overhead += book.overhead;
            }
            stays
        });
        let released = core::mem::take(&mut self.m().released);
        for who in released {
            for vcpu in &mut self.guests.get_mut(&who).unwrap().vcpus {
                if let Vcpu::Parked(deed) = *vcpu {
                    *vcpu = Vcpu::Ready(deed);
                }
            }
        }
    }

    fn issue(&mut self, who: VcoprocId, at: usize, deed: Deed) {
        let fresh = u64::from(who.0) * 1_000 + self.guests[&who].fresh;
        let (offset, operation) = match deed {
            Deed::Ring => (DOORBELL, Operation::Write(fresh)),
            Deed::Read(offset) => (offset, Operation::Read),
            Deed::Write(offset) => (offset, Operation::Write(fresh)),
            Deed::Ack => (IRQ, Operation::Write(1)),
        };
        let access = Access {
            window: 0,
            offset,
            width: Width::Double,
            operation,
        };
        for _ in 0..5 {
            if self.m().mapped == Some(who) {
                let value = {
                    let mut m = self.m();
                    m.always();
                    match operation {
                        Operation::Read => m.read(offset),
                        Operation::Write(value) => {
                            m.write(offset, value);
                            0
                        }
                    }
                };
                return self.done(who, at, deed, fresh, value);
            }
            let outcome = self.coproc.access(&mut self.env, who, &access);
            // Releases during the call were for those that were parked before it.
            self.guests.get_mut(&who).unwrap().vcpus[at] = Vcpu::Free;
            self.retire();
            match outcome {
                Outcome::Value(value) => return self.done(who, at, deed, fresh, value),
                Outcome::Retry => {
                    if self.m().oracle.choose(2) == 1 {
                        // Other things happen before the vCPU is back in the guest.
                        self.guests.get_mut(&who).unwrap().vcpus[at] = Vcpu::Ready(deed);
                        return;
                    }
                }
                Outcome::Park => {
                    self.guests.get_mut(&who).unwrap().vcpus[at] = Vcpu::Parked(deed);
                    return;
                }
                Outcome::Fault => {
                    let own = self.coproc.situation();
                    let own = own.vcoprocs.iter().find(|own| own.id == who);
                    let lost = own.is_none_or(|own| own.faulted || own.detaching);
                    self.m()
                        .require(lost, |_| format!("{who} faults on {deed:?}"));
                    let guest = self.guests.get_mut(&who).unwrap();
                    guest.faulted = true;
                    guest.vcpus[at] = Vcpu::Free;
                    return;
                }
            }
        }
        self.m()
            .require(false, |_| format!("{who} retries {deed:?} for ever"));
    }

    fn done(&mut self, who: VcoprocId, at: usize, deed: Deed, fresh: u64, value: u64) {
        let guest = self.guests.get_mut(&who).unwrap();
        guest.vcpus[at] = Vcpu::Free;
        let mut fine = true;
        match deed {
            Deed::Ring => {
                guest.rung.push(fresh);
                guest.fresh += 1;
            }
            Deed::Write(offset) => {
                guest.written.insert(offset, fresh);
                guest.fresh += 1;
            }
            Deed::Read(offset) => {
                let own = guest.written.get(&offset).copied().unwrap_or(0);
                // What isn't part of the context may be lost, but is never another's.
                fine = value == own || (offset == SCRATCH && value == 0);
            }
            Deed::Ack => {
                guest.vcpus[at] = Vcpu::Handled;
                self.machine.lock().unwrap().outstanding.remove(&who);
            }
        }
        self.m()
            .require(fine, |_| format!("{who}: {deed:?} gave {value}"));
    }

    /// What holds after every event.
    fn check(&mut self) {
        let situation = self.coproc.situation();
        let report = self.coproc.report(Instant::from_nanos(self.m().now));
        let state = situation.state;
        let mut guard = self.machine.lock().unwrap();
        let m = &mut *guard;
        m.always();
        if let Some(owner) = m.mapped {
            let fine = self.coproc.current() == Some(owner);
            m.require(fine, |_| format!("mapped for {owner} in {state:?}"));
        }
        let fine = match state {
            State::Running(slice) => {
                m.open_for(slice.who) && (slice.until.is_none() || m.timer.is_some())
            }
            State::Idle { .. } => m.closed() && m.masked,
            State::Quarantined { .. } => m.masked && m.timer.is_none(),
            State::Off => true,
            _ => m.timer.is_some() && m.mapped.is_none(),
        };
        m.require(fine, |m| {
            let streams = (m.effective, m.pending);
            format!("{state:?}: streams {streams:?}, timer {:?}", m.timer)
        });
        // Every doorbell once, in order.
        for (who, guest) in &self.guests {
            let executed = m.executed.get(who).cloned().unwrap_or_default();
            m.require(guest.rung.starts_with(&executed), |_| {
                format!("{who} rang {:?}, executed {executed:?}", guest.rung)
            });
        }
        // The books, against those kept here from what was seen from outside.
        let time = &report.time;
        if core::mem::take(&mut self.unseen) {
            self.gone.charge = time.gone.charge.as_nanos();
            self.gone.overhead = time.gone.overhead.as_nanos();
            self.fault = time.fault.as_nanos();
            for r in &report.vcoprocs {
                let (charge, overhead) = (r.charge.as_nanos(), r.overhead.as_nanos());
                self.booked.insert(r.id, Book { charge, overhead });
            }
        }
        let sums = (time.gone.charge, time.gone.overhead, time.idle, time.fault);
        let sums = (
            sums.0.as_nanos(),
            sums.1.as_nanos(),
            sums.2.as_nanos(),
            sums.3.as_nanos(),
        );
        let own = (self.gone.charge, self.gone.overhead, self.idle, self.fault);
        let elapsed = time.elapsed.as_nanos() == m.now - self.start;
        m.require(time.balanced() && elapsed && sums == own, |_| {
            format!("books {sums:?}, should be {own:?}; {state:?}")
        });
        let charged = &self.books.lock().unwrap().charged;
        for r in &report.vcoprocs {
            let found = (r.charge.as_nanos(), r.overhead.as_nanos());
            let own = self.booked.get(&r.id).copied().unwrap_or_default();
            let fine = found == (own.charge, own.overhead);
            m.require(fine, |_| format!("{}: {found:?}, should be {own:?}", r.id));
            // The algorithm was told all of it, but for the account that is open.
            let open = state.holder() == Some(r.id)
                && matches!(state, State::Running(_) | State::Quiescing { .. });
            let alive = situation
                .vcoprocs
                .iter()
                .any(|s| s.id == r.id && !s.faulted && !s.detaching);
            if alive && charged.contains_key(&r.id) {
                let told = charged.get(&r.id).copied().unwrap_or(0);
                let fine = told == found.0 || (open && told < found.0);
                m.require(fine, |_| format!("{}: told {told}, used {}", r.id, found.0));
            }
        }
        // The fault is the one's whose step it was.
        let failures = m.failures;
        match state {
            State::Quarantined { .. } => {
                m.require(failures >= 2, |_| "quarantined for one failure".into());
            }
            _ => {
                let mut unowned = m.unowned;
                for own in situation.vcoprocs.iter().filter(|own| own.faulted) {
                    let blamed = m.blamed.contains(&own.id);
                    let guilty = blamed || unowned > 0;
                    unowned -= usize::from(!blamed && guilty);
                    m.require(guilty, |m| {
                        format!("{} faulted, guilty: {:?}", own.id, m.blamed)
                    });
                    let told = m.condemned.contains(&own.id);
                    m.require(told, |_| format!("{} was never told", own.id));
                }
            }
        }
        for (who, told) in m.notified.clone() {
            let strayed = m.strayed.get(&who).copied().unwrap_or(0);
            m.require(told <= strayed, |_| {
                format!("{told} IOMMU faults booked on {who}, which made {strayed}")
            });
        }
    }

    /// From here on the machine is sound and the guests only finish what they began: all of it must end, and well. The run is
    /// deterministic, so that its end can be checked for every state that was reached.
    pub fn settle(&mut self) {
        self.m().oracle.sound = true;
        for _ in 0..400 {
            if self.m().violation.is_some() {
                return;
            }
            let Some(next) = self.moves().first().copied() else {
                return self.check_end();
            };
            self.play(next);
        }
        let state = self.coproc.state();
        self.m()
            .require(false, |_| format!("never comes to rest, now {state:?}"));
    }

    fn check_end(&mut self) {
        let Situation {
            state, vcoprocs, ..
        } = self.coproc.situation();
        let mut guard = self.machine.lock().unwrap();
        let m = &mut *guard;
        let rests = match state {
            State::Idle { .. } | State::Quarantined { .. } => true,
            State::Running(slice) => slice.until.is_none(),
            _ => false,
        };
        m.require(rests, |_| format!("ends as {state:?}"));
        for own in &vcoprocs {
            m.require(!own.detaching, |_| format!("{} stays for ever", own.id));
        }
        for (who, guest) in &self.guests {
            let waits = guest
                .vcpus
                .iter()
                .any(|vcpu| matches!(vcpu, Vcpu::Parked(_)));
            m.require(!waits, |_| format!("{who} waits for ever"));
            let alive = vcoprocs.iter().any(|own| own.id == *who && !own.faulted);
            if alive {
                let executed = m.executed.get(who).cloned().unwrap_or_default();
                m.require(executed == guest.rung, |_| {
                    format!("{who} rang {:?}, at the end {executed:?}", guest.rung)
                });
                let heard = !m.outstanding.contains(who);
                m.require(heard, |_| format!("{who} never heard of a completion"));
            }
            let high = m.lines.get(who) == Some(&true);
            m.require(!high, |_| format!("the line of {who} stays up"));
        }
    }

    /// Whatever the future depends on, times cut down to what they are compared with. Time moves by 3 ns with every event and
    /// by jumps to the armed timer or far past every limit, so nothing else about a time can matter.
    pub fn fingerprint(&self) -> u64 {
        let mut h = DefaultHasher::new();
        let s = self.coproc.situation();
        let m = self.m();
        let now = Instant::from_nanos(m.now);
        let due = |at: Option<Instant>| at.map(|at| (at <= now, m.timer == Some(at.as_nanos())));
        let (state, until) = strip(s.state);
        state.hash(&mut h);
        due(until).hash(&mut h);
        due(s.resume).hash(&mut h);
        let waits = !matches!(s.state, State::Running(_) | State::Idle { .. });
        (waits && now.since(s.entered) >= BOUND).hash(&mut h);
        (s.dirty, s.suspect, s.stale).hash(&mut h);
        for own in &s.vcoprocs {
            let flags = (own.awake, own.used, own.parked, own.faulted, own.detaching);
            (own.id, flags).hash(&mut h);
        }
        (m.timer.is_some(), &m.device, m.masked, m.mapped).hash(&mut h);
        format!("{:?}{:?}", m.effective, m.pending).hash(&mut h);
        (&m.areas, &m.lines, &m.outstanding, &m.records).hash(&mut h);
        (&m.notified, &m.strayed, &m.condemned).hash(&mut h);
        (
            &m.blamed,
            m.unowned,
            m.failures.min(2),
            m.mended,
            &m.oracle.left,
        )
            .hash(&mut h);
        for (who, guest) in &self.guests {
            let executed = m.executed.get(who).map_or(0, Vec::len);
            (who, guest.vcpus, &guest.plan, guest.faulted).hash(&mut h);
            (guest.rung.len(), executed, &guest.written).hash(&mut h);
            guest.fresh.hash(&mut h);
        }
        self.contexts.lock().unwrap().hash(&mut h);
        let books = self.books.lock().unwrap();
        match &books.policy {
            Policy::Exact(rr) => format!("{rr:?}").hash(&mut h),
            Policy::Any => books.awake.hash(&mut h),
        }
        h.finish()
    }
}

/// A state without its times and counters, as text, and its slice's end.
fn strip(state: State) -> (String, Option<Instant>) {
    let mut until = None;
    let mut plain = state;
    if let State::Running(slice) | State::Quiescing { slice, .. } = &mut plain {
        until = slice.until.take();
        slice.since = Instant::default();
        slice.epoch = coproc_core::id::Epoch(0);
        slice.exits = 0;
    }
    if let State::Quiescing { since, refused, .. } = &mut plain {
        *since = Instant::default();
        *refused = false;
    }
    (format!("{plain:?}"), until)
}

impl World {
    /// Now, for those that look at the report.
    pub fn now(&self) -> Instant {
        Environment::now(&self.env)
    }

    pub fn env(&mut self) -> (&mut Coproc, &mut Env) {
        (&mut self.coproc, &mut self.env)
    }
}
