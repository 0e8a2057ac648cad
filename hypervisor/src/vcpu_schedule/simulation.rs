//! CPUs and vCPUs without hardware, which do with a [`Pool`] what `system/schedule.rs` does: each step of a switch (decide, save,
//! wait for another CPU's save, load) is a step of its own, so that everything else can happen in between.

use super::*;
use alloc::vec;
use alloc::vec::Vec;

/// What a CPU is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Executes the vCPU that is loaded.
    Guest,
    /// Waits for an interrupt; a vCPU may be loaded.
    Idle,
    /// Was told what to do: first saves what is loaded.
    Save(Option<VcpuId>),
    /// Loads this one, once it is loaded nowhere else.
    Load(VcpuId),
}

#[derive(Clone, Debug)]
pub struct Cpu {
    pub phase: Phase,
    pub loaded: Option<VcpuId>,
    /// It has been kicked.
    pub kicked: bool,
    /// What its timer is set to, by itself and at no other moment than when it asks the pool.
    pub armed: Option<u64>,
}

/// What a vCPU does when it's left alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// Nothing but what the test says.
    Obeys,
    /// Never sleeps.
    Hog,
    /// Works for `work` at the start of every `period`, from `first` on.
    Job { first: u64, work: u64, period: u64 },
}

#[derive(Clone, Debug)]
pub struct Vcpu {
    pub id: VcpuId,
    pub habit: Habit,
    /// Its activity: whether it wants a CPU.
    pub ready: bool,
    /// The CPU that has it loaded, as the other CPUs see it.
    pub resident: Option<usize>,
    pub ran: u64,
    left: u64,
    next: u64,
    woken: Option<u64>,
    /// Longest time from waking to executing.
    pub latency: u64,
    /// Jobs that ended, and the longest time one took.
    pub jobs: u64,
    pub response: u64,
}

pub struct World {
    pub pool: Pool,
    pub cpus: Vec<Cpu>,
    pub vcpus: Vec<Vcpu>,
    pub now: u64,
}

impl World {
    pub fn new(cpus: usize, algorithm: &str) -> Self {
        let set: CpuSet = (0..cpus).collect();
        Self {
            pool: Pool::new(set, by_name(algorithm, set).unwrap()),
            cpus: vec![
                Cpu {
                    phase: Phase::Idle,
                    loaded: None,
                    kicked: false,
                    armed: None,
                };
                cpus
            ],
            vcpus: Vec::new(),
            now: 0,
        }
    }

    pub fn instant(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    pub fn add(&mut self, parameters: &Parameters, habit: Habit) -> Result<usize, ScheduleError> {
        let (id, kick) = self.pool.add(parameters, self.instant())?;
        self.kick(kick);
        let next = match habit {
            Habit::Job { first, .. } => first,
            _ => self.now,
        };
        self.vcpus.push(Vcpu {
            id,
            habit,
            ready: false,
            resident: None,
            ran: 0,
            left: 0,
            next,
            woken: None,
            latency: 0,
            jobs: 0,
            response: 0,
        });
        Ok(self.vcpus.len() - 1)
    }

    pub fn weighted(&mut self, weight: u32, habit: Habit) -> usize {
        self.add(&share(weight, CpuSet::ALL), habit).unwrap()
    }

    pub fn kick(&mut self, cpus: CpuSet) {
        for cpu in cpus.iter() {
            self.cpus[cpu].kicked = true;
        }
    }

    fn position(&self, id: VcpuId) -> usize {
        self.vcpus.iter().position(|vcpu| vcpu.id == id).unwrap()
    }

    /// An event lets a vCPU go on.
    pub fn wake(&mut self, index: usize) {
        let vcpu = &mut self.vcpus[index];
        if !vcpu.ready {
            vcpu.ready = true;
            vcpu.woken = Some(self.now);
            let kick = self.pool.wake(vcpu.id, Instant::from_nanos(self.now));
            self.kick(kick);
        }
    }

    /// The vCPU that `cpu` executes waits for an event.
    pub fn sleep(&mut self, cpu: usize) {
        assert_eq!(self.cpus[cpu].phase, Phase::Guest);
        let index = self.position(self.cpus[cpu].loaded.unwrap());
        self.vcpus[index].ready = false;
        self.cpus[cpu].kicked = true;
    }

    /// One step of a CPU; returns whether there was anything to do.
    pub fn step(&mut self, cpu: usize) -> bool {
        let state = self.cpus[cpu].clone();
        match state.phase {
            Phase::Save(next) => {
                if let Some(loaded) = state.loaded {
                    let index = self.position(loaded);
                    assert_eq!(self.vcpus[index].resident, Some(cpu));
                    self.vcpus[index].resident = None;
                    self.cpus[cpu].loaded = None;
                }
                self.cpus[cpu].phase = next.map_or(Phase::Idle, Phase::Load);
                true
            }
            Phase::Load(next) => {
                let index = self.position(next);
                if self.vcpus[index].resident.is_some() {
                    return false;
                }
                let vcpu = &mut self.vcpus[index];
                vcpu.resident = Some(cpu);
                self.cpus[cpu].loaded = Some(next);
                self.cpus[cpu].phase = Phase::Guest;
                self.executes(index);
                true
            }
            Phase::Guest | Phase::Idle if state.kicked => {
                self.cpus[cpu].kicked = false;
                let ready: Vec<VcpuId> = self
                    .vcpus
                    .iter()
                    .filter(|vcpu| vcpu.ready)
                    .map(|vcpu| vcpu.id)
                    .collect();
                let decision = self.pool.reschedule(
                    cpu,
                    state.loaded,
                    |who| ready.contains(&who),
                    None,
                    Instant::from_nanos(self.now),
                );
                self.kick(decision.kick);
                self.arm(cpu);
                self.cpus[cpu].phase = match decision.run {
                    Some(next) if Some(next) == state.loaded => {
                        self.executes(self.position(next));
                        Phase::Guest
                    }
                    Some(next) => Phase::Save(Some(next)),
                    None if decision.unload => Phase::Save(None),
                    None => Phase::Idle,
                };
                true
            }
            _ => false,
        }
    }

    fn arm(&mut self, cpu: usize) {
        self.cpus[cpu].armed = self.pool.next_event(cpu).map(Instant::as_nanos);
    }

    /// A CPU's timer, if it has expired.
    pub fn timer(&mut self, cpu: usize) {
        if self.cpus[cpu].armed.is_some_and(|at| at <= self.now) {
            self.cpus[cpu].kicked |= self.pool.is_over(cpu, self.instant());
            self.arm(cpu);
        }
    }

    fn executes(&mut self, index: usize) {
        let vcpu = &mut self.vcpus[index];
        if let Some(woken) = vcpu.woken.take() {
            vcpu.latency = vcpu.latency.max(self.now - woken);
        }
    }

    /// Lets the CPUs finish what they were told, in no time.
    pub fn settle(&mut self) {
        for _ in 0..10_000 {
            let mut busy = false;
            for cpu in 0..self.cpus.len() {
                busy |= self.step(cpu);
            }
            self.check();
            if !busy {
                let stuck = self
                    .cpus
                    .iter()
                    .any(|cpu| matches!(cpu.phase, Phase::Load(_) | Phase::Save(_)));
                assert!(!stuck, "CPUs wait for each other: {:?}", self.cpus);
                return;
            }
        }
        panic!("the CPUs kick each other for ever");
    }

    /// What holds at every step.
    pub fn check(&self) {
        for vcpu in &self.vcpus {
            let holders: Vec<usize> = (0..self.cpus.len())
                .filter(|cpu| self.cpus[*cpu].loaded == Some(vcpu.id))
                .collect();
            assert!(holders.len() <= 1, "{:?} is loaded twice", vcpu.id);
            assert_eq!(holders.first().copied(), vcpu.resident);
        }
    }

    /// What holds when nothing is under way.
    pub fn check_settled(&mut self) {
        for index in 0..self.vcpus.len() {
            let Vcpu { id, ready, .. } = self.vcpus[index];
            let place = self.pool.report(id, self.instant()).unwrap().place;
            let executing = (0..self.cpus.len()).find(|cpu| {
                self.cpus[*cpu].phase == Phase::Guest && self.cpus[*cpu].loaded == Some(id)
            });
            match place {
                Place::Asleep => assert!(!ready, "{id:?} is lost"),
                Place::Running(cpu) => assert_eq!(executing, Some(cpu), "{id:?}"),
                Place::Queued => {
                    assert!(ready && executing.is_none(), "{id:?}");
                    for cpu in self.eligible(id).iter() {
                        assert_ne!(
                            self.cpus[cpu].phase,
                            Phase::Idle,
                            "CPU {cpu} is idle while {id:?} waits for it"
                        );
                        // Its turn has an end, or nobody's has.
                        assert!(
                            self.pool.algorithm() == null::NAME || self.cpus[cpu].armed.is_some(),
                            "{id:?} waits for CPU {cpu} for ever"
                        );
                    }
                }
            }
            if let Some(cpu) = executing {
                assert!(self.eligible(id).contains(cpu), "{id:?} on CPU {cpu}");
            }
        }
    }

    fn eligible(&mut self, id: VcpuId) -> CpuSet {
        let affinity = self
            .pool
            .report(id, self.instant())
            .unwrap()
            .parameters
            .affinity;
        affinity & self.pool.cpus()
    }

    /// What the passing of time brings about, now.
    fn events(&mut self) {
        for cpu in 0..self.cpus.len() {
            self.timer(cpu);
        }
        for index in 0..self.vcpus.len() {
            let vcpu = self.vcpus[index].clone();
            if vcpu.ready || vcpu.next > self.now {
                continue;
            }
            match vcpu.habit {
                Habit::Obeys => {}
                Habit::Hog => self.wake(index),
                Habit::Job { work, period, .. } => {
                    self.vcpus[index].left = work;
                    // Jobs that come while the last one isn't done are dropped.
                    let late = (self.now - vcpu.next) / period;
                    self.vcpus[index].next += (late + 1) * period;
                    self.wake(index);
                }
            }
        }
        for cpu in 0..self.cpus.len() {
            if self.cpus[cpu].phase != Phase::Guest {
                continue;
            }
            let index = self.position(self.cpus[cpu].loaded.unwrap());
            let vcpu = &mut self.vcpus[index];
            if let Habit::Job { period, .. } = vcpu.habit
                && vcpu.left == 0
                && vcpu.ready
            {
                vcpu.jobs += 1;
                vcpu.response = vcpu.response.max(self.now - (vcpu.next - period));
                self.sleep(cpu);
            }
        }
    }

    /// Lets time pass.
    pub fn run(&mut self, time: u64) {
        let end = self.now + time;
        loop {
            // What happens now may make more happen now.
            loop {
                self.events();
                if !self.cpus.iter().any(|cpu| cpu.kicked) {
                    break;
                }
                self.settle();
            }
            self.check_settled();
            if self.now >= end {
                return;
            }
            let mut next = end;
            for cpu in &self.cpus {
                if let Some(at) = cpu.armed {
                    next = next.min(at);
                }
                if cpu.phase == Phase::Guest {
                    let vcpu = &self.vcpus[self.position(cpu.loaded.unwrap())];
                    if vcpu.left > 0 {
                        next = next.min(self.now + vcpu.left);
                    }
                }
            }
            for vcpu in self.vcpus.iter().filter(|vcpu| !vcpu.ready) {
                if vcpu.habit != Habit::Obeys {
                    next = next.min(vcpu.next);
                }
            }
            let passed = next.max(self.now + 1) - self.now;
            for cpu in 0..self.cpus.len() {
                if self.cpus[cpu].phase == Phase::Guest {
                    let index = self.position(self.cpus[cpu].loaded.unwrap());
                    self.vcpus[index].ran += passed;
                    self.vcpus[index].left = self.vcpus[index].left.saturating_sub(passed);
                }
            }
            self.now += passed;
        }
    }
}

pub fn share(weight: u32, affinity: CpuSet) -> Parameters {
    Parameters {
        share: coproc_core::algorithm::Parameters {
            weight,
            ..Default::default()
        },
        affinity,
    }
}

pub fn reserved(budget: u64, period: u64, affinity: CpuSet) -> Parameters {
    Parameters {
        share: coproc_core::algorithm::Parameters {
            budget: Some(Duration::from_nanos(budget)),
            period: Some(Duration::from_nanos(period)),
            ..Default::default()
        },
        affinity,
    }
}
