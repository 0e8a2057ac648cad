//! One simulation: an algorithm, a workload, a seed.
//!
//! The real framework and the real algorithm run here, unchanged, on the machine of [`super::machine`]; only the clock and the
//! device are made up. The loop takes the next thing that happens (a timer, a job's end, a job's beginning) and lets it
//! happen.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};

use anyhow::{Context, Result, bail};
use coproc_core::algorithm::Tuning;
use coproc_core::coproc::{Coproc, Outcome, Settings, Totals};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};

use super::machine::{DOORBELL, Job, Machine, QueueDriver};
use super::workload::{Behaviour, Random, Workload};

/// How long, and how, to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Length of a slice, ns.
    pub slice: u64,
    /// Virtual time, ns.
    pub time: u64,
    /// Goes on until this many jobs with a deadline are done, if the workload has such.
    pub jobs: u64,
    /// Seed of all randomness.
    pub seed: u64,
    /// Bound on waiting, for algorithms that know it, ns.
    pub starvation: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            slice: 5_000_000,
            time: 20_000_000_000,
            jobs: 0,
            seed: 1,
            starvation: None,
        }
    }
}

/// What one actor got.
#[derive(Clone, Copy, Debug, Default)]
pub struct Got {
    /// Jobs that it rang.
    pub rung: u64,
    /// Jobs done.
    pub done: u64,
    /// Jobs with a deadline that were done.
    pub due: u64,
    /// Jobs done after their deadline, or not done although it has passed.
    pub late: u64,
    waiting: Option<u64>,
    has_device: bool,
}

/// What came out.
#[derive(Clone, Debug)]
pub struct Outcomes {
    /// Where the time went.
    pub time: Totals,
    /// What each actor got, in the workload's order; its id is its index.
    pub got: Vec<Got>,
    /// Every wait for the device of one that had work, ns, sorted.
    pub waits: Vec<u64>,
    /// Context switches.
    pub switches: u64,
    /// Vcoprocs that lost the device.
    pub faulted: u64,
    /// Charge of each actor every 64th of the time, for pictures.
    pub samples: Vec<(u64, Vec<u64>)>,
}

struct Simulation<'a> {
    machine: Machine,
    coproc: Coproc,
    workload: &'a Workload,
    random: Random,
    arrivals: BinaryHeap<Reverse<(u64, usize)>>,
    blocked: BTreeMap<VcoprocId, VecDeque<u64>>,
    got: Vec<Got>,
    outstanding: Vec<VecDeque<Option<u64>>>,
    waits: Vec<u64>,
    due: u64,
}

/// Whether the algorithm takes all of the workload's vcoprocs.
///
/// # Errors
/// If the algorithm's name isn't known.
pub fn admits(algorithm: &str, workload: &Workload, options: &Options) -> Result<bool> {
    Ok(Simulation::new(algorithm, workload, options)?.is_some())
}

/// Runs one simulation. `None`: the algorithm doesn't admit the workload.
///
/// # Errors
/// If the algorithm's name isn't known, or the framework breaks a promise.
pub fn run(algorithm: &str, workload: &Workload, options: &Options) -> Result<Option<Outcomes>> {
    let Some(mut simulation) = Simulation::new(algorithm, workload, options)? else {
        return Ok(None);
    };
    let with_deadlines = workload
        .actors
        .iter()
        .any(|actor| matches!(actor.behaviour, Behaviour::Steady { .. }));
    let mut samples = Vec::new();
    let mut at = 0;
    let step = (options.time / 64).max(1);
    loop {
        at += step;
        simulation.until(at)?;
        let enough = !with_deadlines || simulation.due >= options.jobs;
        if at <= options.time {
            let time = simulation.time();
            let charges = simulation.ids().map(|id| time.of(id).charge.as_nanos());
            samples.push((at, charges.collect()));
        }
        if at + step > options.time && enough {
            break;
        }
    }
    simulation.end(samples).map(Some)
}

impl<'a> Simulation<'a> {
    fn new(algorithm: &str, workload: &'a Workload, options: &Options) -> Result<Option<Self>> {
        let driver = Box::new(QueueDriver::default());
        let mut settings = Settings::of(&*driver);
        settings.slice = Duration::from_nanos(options.slice);
        settings.starvation_bound = options.starvation.map(Duration::from_nanos);
        let tuning: Tuning = settings.tuning(&*driver);
        let algorithm = sched_algos::by_name(algorithm, &tuning)
            .with_context(|| format!("no algorithm is called {algorithm}"))?;
        let mut machine = Machine::new();
        let start = Instant::from_nanos(0);
        let mut coproc = Coproc::new(CoprocId(0), driver, algorithm, settings, start);
        coproc.start(&mut machine)?;
        let mut random = Random::new(options.seed);
        let mut arrivals = BinaryHeap::new();
        for (index, actor) in workload.actors.iter().enumerate() {
            let who = VcoprocId(u32::try_from(index)?);
            let domain = DomainId(u16::try_from(index)? + 1);
            if coproc
                .attach(&mut machine, who, domain, &actor.parameters)
                .is_err()
            {
                return Ok(None);
            }
            let first = match actor.behaviour {
                Behaviour::Hog(_) => 0,
                Behaviour::Refuser(_) => {
                    machine.refusers.push(who);
                    0
                }
                Behaviour::Steady { period, .. } => random.below(period),
                Behaviour::Bursty { pause, .. } => random.exponential(pause),
                Behaviour::Idle => continue,
            };
            arrivals.push(Reverse((first, index)));
        }
        let actors = workload.actors.len();
        Ok(Some(Self {
            machine,
            coproc,
            workload,
            random,
            arrivals,
            blocked: BTreeMap::new(),
            got: vec![Got::default(); actors],
            outstanding: vec![VecDeque::new(); actors],
            waits: Vec::new(),
            due: 0,
        }))
    }

    fn ids(&self) -> impl Iterator<Item = VcoprocId> + use<> {
        (0..self.workload.actors.len() as u32).map(VcoprocId)
    }

    fn time(&self) -> Totals {
        let now = Instant::from_nanos(self.machine.now);
        self.coproc.report(now).time
    }

    /// Lets everything happen up to `end`.
    fn until(&mut self, end: u64) -> Result<()> {
        let mut stuck = 0_u32;
        loop {
            let before = self.machine.now;
            self.pump();
            let arrival = self.arrivals.peek().map(|Reverse((when, _))| *when);
            let events = [self.machine.timer, self.machine.next_completion(), arrival];
            let Some(next) = events.into_iter().flatten().min().filter(|n| *n <= end) else {
                break;
            };
            self.machine.pass(next);
            if self.machine.timer.is_some_and(|at| at <= self.machine.now) {
                self.machine.timer = None;
                self.coproc.timer(&mut self.machine);
            } else if arrival.is_some_and(|at| at <= self.machine.now)
                && let Some(Reverse((when, index))) = self.arrivals.pop()
            {
                self.arrive(index, when);
            }
            stuck = if self.machine.now == before {
                stuck + 1
            } else {
                0
            };
            if stuck > 100_000 {
                bail!("no progress at {} ns", self.machine.now);
            }
        }
        self.machine.pass(end);
        self.pump();
        Ok(())
    }

    /// What is due of an actor's behaviour at `when`.
    fn arrive(&mut self, index: usize, when: u64) {
        let again = match self.workload.actors[index].behaviour {
            // Two at a time, so that the device never waits for the domain.
            Behaviour::Hog(work) | Behaviour::Refuser(work) => {
                self.ring(index, work, None);
                self.ring(index, work, None);
                None
            }
            Behaviour::Steady { work, period } => {
                self.ring(index, work, Some(when + period));
                Some(when + period + self.random.below(period / 20))
            }
            Behaviour::Bursty { work, most, pause } => {
                for _ in 0..=self.random.below(most) {
                    self.ring(index, work, None);
                }
                Some(when + self.random.exponential(pause))
            }
            Behaviour::Idle => None,
        };
        if let Some(when) = again {
            self.arrivals.push(Reverse((when, index)));
        }
    }

    fn ring(&mut self, index: usize, work: u64, deadline: Option<u64>) {
        let who = VcoprocId(index as u32);
        let job = self.machine.register(Job {
            who,
            left: work,
            arrival: self.machine.now,
            deadline,
        });
        let got = &mut self.got[index];
        got.rung += 1;
        if !got.has_device && got.waiting.is_none() {
            got.waiting = Some(self.machine.now);
        }
        self.outstanding[index].push_back(deadline);
        match self.blocked.get_mut(&who) {
            // Its vCPU waits.
            Some(queue) if !queue.is_empty() => queue.push_back(job),
            _ => self.write(who, job),
        }
    }

    /// The domain's store to the doorbell.
    fn write(&mut self, who: VcoprocId, job: u64) {
        let access = Access {
            window: 0,
            offset: DOORBELL,
            width: Width::Double,
            operation: Operation::Write(job),
        };
        loop {
            if self.machine.mapped == Some(who) {
                coproc_core::driver::Hardware::write(
                    &mut self.machine,
                    0,
                    DOORBELL,
                    Width::Double,
                    job,
                );
                return;
            }
            match self.coproc.access(&mut self.machine, who, &access) {
                Outcome::Value(_) | Outcome::Fault => return,
                Outcome::Retry => {}
                Outcome::Park => {
                    self.machine.released.retain(|released| *released != who);
                    self.blocked.entry(who).or_default().push_front(job);
                    return;
                }
            }
        }
    }

    /// Tells everybody what happened.
    fn pump(&mut self) {
        loop {
            for (who, when, has_device) in std::mem::take(&mut self.machine.turns) {
                let index = who.0 as usize;
                let got = &mut self.got[index];
                got.has_device = has_device;
                if !has_device && !self.outstanding[index].is_empty() {
                    got.waiting = Some(when);
                } else if has_device && let Some(since) = got.waiting.take() {
                    self.waits.push(when.saturating_sub(since));
                }
            }
            let finished = std::mem::take(&mut self.machine.finished);
            let released = std::mem::take(&mut self.machine.released);
            if finished.is_empty() && released.is_empty() {
                return;
            }
            for end in finished {
                let index = end.job.who.0 as usize;
                self.outstanding[index].pop_front();
                let got = &mut self.got[index];
                got.done += 1;
                if let Some(deadline) = end.job.deadline {
                    got.due += 1;
                    self.due += 1;
                    got.late += u64::from(end.at > deadline);
                }
                let behaviour = self.workload.actors[index].behaviour;
                if let Behaviour::Hog(work) | Behaviour::Refuser(work) = behaviour {
                    self.ring(index, work, None);
                }
            }
            for who in released {
                if let Some(job) = self.blocked.get_mut(&who).and_then(VecDeque::pop_front) {
                    self.write(who, job);
                    // The rest follows unless it has to wait again.
                    let waits =
                        self.blocked.get(&who).and_then(|queue| queue.front()) == Some(&job);
                    if !waits {
                        self.machine.released.push(who);
                    }
                }
            }
        }
    }

    fn end(mut self, samples: Vec<(u64, Vec<u64>)>) -> Result<Outcomes> {
        let now = self.machine.now;
        let report = self.coproc.report(Instant::from_nanos(now));
        if !report.time.balanced() {
            bail!("the books don't balance: {:?}", report.time);
        }
        for (got, outstanding) in self.got.iter_mut().zip(&self.outstanding) {
            if let Some(since) = got.waiting {
                self.waits.push(now.saturating_sub(since));
            }
            let passed = outstanding.iter().flatten().filter(|at| **at < now);
            got.late += passed.count() as u64;
        }
        self.waits.sort_unstable();
        Ok(Outcomes {
            switches: report.switches,
            time: report.time,
            got: self.got,
            waits: self.waits,
            faulted: self.machine.faulted,
            samples,
        })
    }
}
