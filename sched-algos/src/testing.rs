//! What the tests of all algorithms share: a coprocessor in a few lines, that keeps the framework's promises to an
//! algorithm and takes as long to switch and to refuse as it is told.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::iter::Peekable;

use coproc_core::Algorithm;
use coproc_core::algorithm::{MIN_SLICE, Parameters, Tuning};
use coproc_core::id::VcoprocId;
use coproc_core::time::{Duration, Instant};
use proptest::prelude::*;

/// Work of one vcoproc.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Client {
    /// Work left, ns; `u64::MAX`: never ends.
    pub(crate) work: u64,
    /// Charged so far, ns.
    pub(crate) charge: u64,
    /// Work done so far, ns.
    pub(crate) done: u64,
    pub(crate) awake: bool,
    /// Since when it has had work without the device.
    waiting: Option<u64>,
    pub(crate) longest_wait: u64,
}

/// One turn on the coprocessor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) who: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

pub(crate) struct Model {
    pub(crate) algorithm: Box<dyn Algorithm>,
    pub(crate) tuning: Tuning,
    pub(crate) now: u64,
    pub(crate) clients: BTreeMap<u32, Client>,
    pub(crate) turns: Vec<Turn>,
    /// Time that each refuses when it has to stop busy, ns.
    pub(crate) refusal: BTreeMap<u32, u64>,
    /// When each client ran out of work.
    pub(crate) finished: Vec<(u32, u64)>,
    current: Option<u32>,
}

impl Model {
    pub(crate) fn new(mut algorithm: Box<dyn Algorithm>, tuning: Tuning) -> Self {
        algorithm.tune(&tuning).unwrap();
        Self {
            algorithm,
            tuning,
            now: 0,
            clients: BTreeMap::new(),
            turns: Vec::new(),
            refusal: BTreeMap::new(),
            finished: Vec::new(),
            current: None,
        }
    }

    fn at(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    pub(crate) fn give(&mut self, id: u32, work: u64) {
        let at = self.at();
        let client = self.clients.entry(id).or_default();
        client.work = client.work.saturating_add(work);
        client.awake = true;
        if self.current != Some(id) && client.waiting.is_none() {
            client.waiting = Some(self.now);
        }
        self.algorithm.wake(VcoprocId(id), at);
    }

    fn work(&mut self, id: u32, until: u64) {
        let span = until - self.now;
        let client = self.clients.get_mut(&id).unwrap();
        client.charge += span;
        let had = client.work;
        let done = had.min(span);
        client.done += done;
        if had != u64::MAX {
            client.work -= done;
            if had > 0 && client.work == 0 {
                self.finished.push((id, self.now + had));
            }
        }
        self.now = until;
        if span > 0 {
            let at = self.at();
            self.algorithm
                .charge(VcoprocId(id), Duration::from_nanos(span), at);
        }
    }

    /// Gives what has arrived by now.
    fn tell(&mut self, arrivals: &mut Peekable<impl Iterator<Item = (u64, u32, u64)>>) {
        while let Some((_, id, work)) = arrivals.next_if(|(when, _, _)| *when <= self.now) {
            self.give(id, work);
        }
    }

    /// Lets time pass until `until`, with `who` working, if anybody. What arrives meanwhile is told when it does, as the framework does.
    fn pass(
        &mut self,
        who: Option<u32>,
        until: u64,
        arrivals: &mut Peekable<impl Iterator<Item = (u64, u32, u64)>>,
    ) {
        loop {
            let arrival = arrivals.peek().map_or(until, |(when, _, _)| *when);
            let next = arrival.clamp(self.now, until);
            match who {
                Some(id) => self.work(id, next),
                None => self.now = next,
            }
            self.tell(arrivals);
            if self.now >= until {
                return;
            }
        }
    }

    /// Lets time pass until `end`, with work arriving by `arrivals`: sorted, (when, who, how much).
    pub(crate) fn run(&mut self, end: u64, arrivals: &[(u64, u32, u64)]) {
        let mut arrivals = arrivals.iter().copied().peekable();
        let mut decisions = 0;
        while self.now < end {
            decisions += 1;
            assert!(decisions < 2_000_000, "no progress");
            self.tell(&mut arrivals);
            let at = self.at();
            let arrival = arrivals.peek().map_or(end, |(when, _, _)| *when).min(end);
            let resident = self.current;
            let Some(pick) = self.algorithm.pick(resident.map(VcoprocId), at) else {
                assert!(
                    self.clients.values().all(|client| !client.awake),
                    "somebody is awake and nobody is picked"
                );
                let event = self.algorithm.next_event(at).map_or(end, Instant::as_nanos);
                self.now = arrival.min(event.max(self.now + MIN_SLICE.as_nanos()));
                self.current = None;
                continue;
            };
            let id = pick.who.0;
            assert!(self.clients[&id].awake, "v{id} is asleep");
            if resident != Some(id) {
                if let Some(old) = resident {
                    let busy = self.clients[&old].work > 0;
                    let refusal = self.refusal.get(&old).copied().unwrap_or(0);
                    if busy && refusal > 0 {
                        self.pass(Some(old), self.now + refusal, &mut arrivals);
                        if self.clients[&old].work == 0 {
                            let at = self.at();
                            self.algorithm.linger(VcoprocId(old), at);
                        }
                    }
                    let client = self.clients.get_mut(&old).unwrap();
                    if client.awake {
                        client.waiting = Some(self.now);
                    }
                }
                let until = self.now + self.tuning.switch.as_nanos();
                self.pass(None, until, &mut arrivals);
                self.current = Some(id);
            }
            let now = self.now;
            let client = self.clients.get_mut(&id).unwrap();
            if let Some(since) = client.waiting.take() {
                client.longest_wait = client.longest_wait.max(now - since);
            }
            let slice = pick.slice.unwrap_or(Duration::from_secs(1));
            let until = now + slice.max(MIN_SLICE).as_nanos();
            let worked = client.work > 0;
            loop {
                let at = self.at();
                if self.now >= until {
                    break;
                }
                if self.algorithm.preempts(VcoprocId(id), at) {
                    let soonest = now + MIN_SLICE.as_nanos();
                    if self.now < soonest {
                        self.pass(Some(id), soonest, &mut arrivals);
                    }
                    break;
                }
                let event = self.algorithm.next_event(at).map(Instant::as_nanos);
                let event = event.map_or(until, |event| event.max(self.now + MIN_SLICE.as_nanos()));
                // The last slice is finished, be it past the end.
                let arrival = arrivals.peek().map_or(until, |(when, _, _)| *when);
                self.work(id, until.min(event).min(arrival));
                self.tell(&mut arrivals);
            }
            self.turns.push(Turn {
                who: id,
                from: now,
                to: self.now,
            });
            let at = self.at();
            let client = self.clients.get_mut(&id).unwrap();
            if client.work > 0 {
                self.algorithm.wake(VcoprocId(id), at);
            } else if worked {
                self.algorithm.linger(VcoprocId(id), at);
            } else {
                client.awake = false;
                self.algorithm.sleep(VcoprocId(id), at);
            }
        }
    }
}

#[derive(Clone, Debug)]
enum Event {
    Add(u32, Parameters),
    Remove(u32),
    Wake(u32),
    Sleep(u32),
    Linger(u32),
    Change(u32, Parameters),
    Charge(u32, u64),
    Time(u64),
    Pick(bool),
    Preempts,
}

fn parameters() -> impl Strategy<Value = Parameters> {
    let reserve = proptest::option::of((100_000..3_000_000_u64, 3_000_000..40_000_000_u64));
    (0..6_u32, 0..3_u32, reserve).prop_map(|(weight, priority, reserve)| Parameters {
        weight,
        priority,
        budget: reserve.map(|(budget, _)| Duration::from_nanos(budget)),
        period: reserve.map(|(_, period)| Duration::from_nanos(period)),
    })
}

fn event() -> impl Strategy<Value = Event> {
    let id = || 0..6_u32;
    prop_oneof![
        (id(), parameters()).prop_map(|(id, p)| Event::Add(id, p)),
        id().prop_map(Event::Remove),
        id().prop_map(Event::Wake),
        id().prop_map(Event::Sleep),
        id().prop_map(Event::Linger),
        (id(), parameters()).prop_map(|(id, p)| Event::Change(id, p)),
        (id(), 0..5_000_000_u64).prop_map(|(id, time)| Event::Charge(id, time)),
        (0..20_000_000_u64).prop_map(Event::Time),
        any::<bool>().prop_map(Event::Pick),
        Just(Event::Preempts),
    ]
}

proptest! {
    /// Whatever happens in whatever order, every algorithm knows exactly those that were added and not removed, with their last accepted
    /// parameters and whether they have work; it picks one that has work, and somebody whenever anybody has; asked
    /// again it says the same; it never asks to be heard in the past without end.
    #[test]
    fn nothing_is_lost_or_duplicated(
        which in 0..crate::KNOWN.len(),
        starvation in proptest::option::of(1_000_000..9_000_000_u64),
        events in proptest::collection::vec(event(), 1..150),
    ) {
        let tuning = Tuning {
            slice: Duration::from_millis(1),
            switch: Duration::from_micros(30),
            refusal: Duration::from_micros(200),
            starvation: starvation.map(Duration::from_nanos),
        };
        let Some(mut algorithm) = crate::by_name(crate::KNOWN[which].0, &tuning) else {
            return Ok(());
        };
        let mut known: BTreeMap<u32, (Parameters, bool)> = BTreeMap::new();
        let mut now = Instant::from_nanos(1_000_000_000);
        let mut current = None;
        for event in events {
            match event {
                Event::Add(id, parameters) => {
                    let added = algorithm.add(VcoprocId(id), &parameters).is_ok();
                    prop_assert!(!added || !known.contains_key(&id));
                    if added {
                        known.insert(id, (parameters, false));
                    }
                }
                Event::Remove(id) => {
                    let removed = algorithm.remove(VcoprocId(id)).is_ok();
                    prop_assert_eq!(removed, known.remove(&id).is_some());
                }
                Event::Wake(id) => {
                    algorithm.wake(VcoprocId(id), now);
                    known.entry(id).and_modify(|(_, awake)| *awake = true);
                }
                Event::Sleep(id) => {
                    algorithm.sleep(VcoprocId(id), now);
                    known.entry(id).and_modify(|(_, awake)| *awake = false);
                }
                Event::Linger(id) => algorithm.linger(VcoprocId(id), now),
                Event::Change(id, parameters) => {
                    let changed = algorithm.set_parameters(VcoprocId(id), &parameters).is_ok();
                    prop_assert!(!changed || known.contains_key(&id));
                    if changed {
                        known.entry(id).and_modify(|(old, _)| *old = parameters);
                    }
                }
                Event::Charge(id, time) => {
                    algorithm.charge(VcoprocId(id), Duration::from_nanos(time), now);
                }
                Event::Time(time) => now = now + Duration::from_nanos(time),
                Event::Pick(with_current) => {
                    let pick = algorithm.pick(current.filter(|_| with_current), now);
                    let again = algorithm.pick(None, now);
                    prop_assert_eq!(pick.map(|pick| pick.who), again.map(|pick| pick.who));
                    let anybody = known.values().any(|(_, awake)| *awake);
                    prop_assert_eq!(pick.is_some(), anybody);
                    if let Some(pick) = pick {
                        prop_assert!(known[&pick.who.0].1, "{} sleeps", pick.who);
                        prop_assert!(pick.slice != Some(Duration::ZERO));
                    }
                    current = pick.map(|pick| pick.who);
                }
                Event::Preempts => {
                    if let Some(current) = current {
                        // Once it was heard it is content, or names somebody.
                        if algorithm.preempts(current, now) {
                            let _ = algorithm.pick(Some(current), now);
                        }
                    }
                }
            }
            let mut seen = BTreeMap::new();
            let mut twice = false;
            algorithm.snapshot(&mut |id, parameters, awake| {
                twice |= seen.insert(id.0, (*parameters, awake)).is_some();
            });
            prop_assert!(!twice);
            prop_assert_eq!(&seen, &known);
        }
    }
}

/// Heap levels that one decision takes on average, with `n` vcoprocs awake.
pub(crate) fn cost_per_decision<A: Algorithm>(
    algorithm: &mut A,
    steps: impl Fn(&A) -> u64,
    n: u32,
    parameters: impl Fn(u32) -> Parameters,
) -> f64 {
    let mut now = Instant::from_nanos(0);
    for id in 0..n {
        algorithm.add(VcoprocId(id), &parameters(id)).unwrap();
        algorithm.wake(VcoprocId(id), now);
    }
    let before = steps(algorithm);
    let decisions = 20_000;
    let mut current = None;
    for round in 0..decisions {
        let pick = algorithm.pick(current, now).unwrap();
        let slice = pick.slice.unwrap_or(Duration::from_millis(1));
        now = now + slice;
        algorithm.charge(pick.who, slice, now);
        if round % 3 == 0 {
            // One that comes and goes.
            let other = VcoprocId(round * 7 % n);
            algorithm.sleep(other, now);
            algorithm.wake(other, now);
        }
        current = Some(pick.who);
    }
    (steps(algorithm) - before) as f64 / f64::from(decisions)
}

/// That a decision among 1,000 costs at most what a logarithm allows: 10 times as many vcoprocs may add a constant, not a factor.
pub(crate) fn assert_logarithmic(few: f64, many: f64) {
    // At most five structures' updates in each, of log2(1000) = 10 levels.
    assert!(many <= 50.0, "{many} levels with 1,000");
    assert!(
        many <= 2.5 * few.max(1.0) + 5.0,
        "{few} levels with 100, {many} with 1,000"
    );
}
