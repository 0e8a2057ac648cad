//! A coprocessor in virtual time: the device, its driver, and the hypervisor around them.
//!
//! The device works off a queue of jobs, one after the other. Asked to stop it goes on to its next boundary: soon for a
//! well-behaved job, never before the declared worst case for one of a refuser. What it hasn't done yet is its context.
//! Every register access, table change and save costs virtual time, so that overhead is real.

use std::collections::{BTreeMap, VecDeque};

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{
    Description, Driver, DriverError, Hardware, Step, Verdict, Window, WorstCase,
};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::VcoprocId;
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};

/// Writing a job's number here starts it.
pub const DOORBELL: u64 = 0x00;
const STATUS: u64 = 0x08;
const STOP: u64 = 0x10;
const QUEUE: u64 = 0x18;
const GO: u64 = 0x20;
const MOVE: u64 = 0x28;

const ACCESS: u64 = 100;
const SYNC: u64 = 500;
const MAP: u64 = 500;
const UNMAP: u64 = 1_500;
const CONTEXT: u64 = 10_000;
/// Progress between two boundaries at which a well-behaved job can be stopped, ns.
const BOUNDARY: u64 = 50_000;
/// Time that a refuser takes to stop, ns: the declared worst case, so that it is never aborted for it.
pub const REFUSAL: u64 = 500_000;

static DESCRIPTION: Description = Description {
    name: "simulated",
    matches: &[],
    windows: &[Window {
        name: "registers",
        index: 0,
        size: 4096,
        direct: true,
    }],
    interrupts: 0,
    streams: 1,
    own_iommu: false,
    save_area: 0,
    worst_case: WorstCase {
        refusal: Duration::from_nanos(REFUSAL),
        stop: Duration::from_micros(5),
        save: Duration::from_micros(15),
        restore: Duration::from_micros(15),
    },
    refusal_bound: Duration::from_millis(50),
    slice: Duration::from_millis(5),
};

/// One job.
#[derive(Clone, Copy, Debug)]
pub struct Job {
    /// Whose.
    pub who: VcoprocId,
    /// Work left, ns of device time.
    pub left: u64,
    /// When it was rung, ns.
    pub arrival: u64,
    /// When it shall be done, if it matters, ns.
    pub deadline: Option<u64>,
}

/// A job that is done.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The job.
    pub job: Job,
    /// When it was done, ns.
    pub at: u64,
}

/// The machine around one coprocessor.
#[derive(Debug)]
pub struct Machine {
    /// Virtual time, ns.
    pub now: u64,
    /// When the framework's timer expires, ns.
    pub timer: Option<u64>,
    /// Whose domain has the windows mapped.
    pub mapped: Option<VcoprocId>,
    /// Jobs done since this was last emptied.
    pub finished: Vec<Finished>,
    /// vCPUs let go since this was last emptied.
    pub released: Vec<VcoprocId>,
    /// Who got the device (true) or lost it (false), and when, since this was last emptied.
    pub turns: Vec<(VcoprocId, u64, bool)>,
    /// Vcoprocs that lost the device for good.
    pub faulted: u64,
    /// Those whose jobs can't be stopped at a boundary.
    pub refusers: Vec<VcoprocId>,
    jobs: Vec<Job>,
    free: Vec<usize>,
    queue: VecDeque<usize>,
    streams: Stream,
    /// When the device stops.
    stop: Option<u64>,
    halted: bool,
}

impl Machine {
    /// A machine at time zero with an idle device.
    pub fn new() -> Self {
        Self {
            now: 0,
            timer: None,
            mapped: None,
            finished: Vec::new(),
            released: Vec::new(),
            turns: Vec::new(),
            faulted: 0,
            refusers: Vec::new(),
            jobs: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            streams: Stream::Abort,
            stop: None,
            halted: false,
        }
    }

    /// Gives a job a number.
    pub fn register(&mut self, job: Job) -> u64 {
        let at = self.free.pop().unwrap_or_else(|| {
            self.jobs.push(job);
            self.jobs.len() - 1
        });
        self.jobs[at] = job;
        at as u64
    }

    fn works(&self) -> bool {
        matches!(self.streams, Stream::Domain(_)) && !self.halted
    }

    /// When the device finishes the job it is at, if nothing happens before.
    pub fn next_completion(&self) -> Option<u64> {
        let front = *self.queue.front()?;
        self.works().then(|| self.now + self.jobs[front].left)
    }

    /// Lets time pass; the device works.
    pub fn pass(&mut self, until: u64) {
        while self.now < until {
            let mut to = until;
            if let Some(stop) = self.stop {
                to = to.min(stop.max(self.now));
            }
            match self.queue.front().copied() {
                Some(front) if self.works() => {
                    let job = &mut self.jobs[front];
                    to = to.min(self.now + job.left);
                    job.left -= to - self.now;
                    if job.left == 0 {
                        let job = *job;
                        self.finished.push(Finished { job, at: to });
                        self.free.push(front);
                        self.queue.pop_front();
                    }
                }
                _ => {}
            }
            self.now = to;
            if self.stop.is_some_and(|stop| self.now >= stop) {
                self.stop = None;
                self.halted = true;
            }
        }
    }

    fn cost(&mut self, nanos: u64) {
        self.pass(self.now + nanos);
    }

    /// The time of the next boundary at which the device can stop.
    fn boundary(&self) -> u64 {
        let Some(front) = self.queue.front().filter(|_| self.works()) else {
            return self.now;
        };
        let job = self.jobs[*front];
        let wait = if self.refusers.contains(&job.who) {
            REFUSAL
        } else {
            (job.left % BOUNDARY).min(job.left)
        };
        self.now + wait
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

impl Hardware for Machine {
    fn read(&mut self, _: usize, offset: u64, _: Width) -> u64 {
        self.cost(ACCESS);
        match offset {
            STATUS => u64::from(!self.queue.is_empty() && !self.halted),
            STOP => match self.stop {
                Some(stop) => stop - self.now,
                None => 0,
            },
            QUEUE => self.queue.pop_front().map_or(u64::MAX, |job| job as u64),
            _ => 0,
        }
    }

    fn write(&mut self, _: usize, offset: u64, _: Width, value: u64) {
        self.cost(ACCESS);
        match offset {
            DOORBELL | QUEUE => self.queue.push_back(value as usize),
            STOP if self.stop.is_none() && !self.halted => {
                let at = self.boundary();
                if at > self.now {
                    self.stop = Some(at);
                } else {
                    self.halted = true;
                }
            }
            GO => self.halted = false,
            MOVE => self.cost(CONTEXT),
            _ => {}
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now)
    }
}

impl Environment for Machine {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer = at.map(Instant::as_nanos);
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        self
    }

    fn mask_interrupts(&mut self, _: bool) {
        self.cost(ACCESS);
    }

    fn interrupt_asserted(&mut self, _: usize) -> bool {
        false
    }

    fn interrupts_settled(&mut self) -> bool {
        true
    }

    fn map_windows(&mut self, who: VcoprocId) -> bool {
        self.cost(MAP);
        self.mapped = Some(who);
        true
    }

    fn unmap_windows(&mut self, _: VcoprocId) {
        self.cost(UNMAP);
        self.mapped = None;
    }

    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        self.cost(ACCESS);
        if let Stream::Domain(who) = self.streams {
            self.turns.push((who, self.now, false));
        }
        if let Stream::Domain(who) = target {
            self.turns.push((who, self.now, true));
        }
        self.streams = target;
        Ok(())
    }

    fn sync_streams(&mut self) -> Step {
        self.cost(SYNC);
        Step::Done
    }

    fn take_faults(&mut self) -> Option<Faults> {
        Some(Faults::default())
    }

    fn set_interrupt(&mut self, _: VcoprocId, _: usize, _: bool) {}

    fn release_parked(&mut self, who: VcoprocId) {
        self.released.push(who);
    }

    fn notify(&mut self, _: VcoprocId, event: Event) {
        if let Event::Faulted(_) | Event::Quarantined(_) = event {
            self.faulted += 1;
        }
    }
}

/// The driver: a context is the queue.
#[derive(Debug, Default)]
pub struct QueueDriver {
    contexts: BTreeMap<VcoprocId, VecDeque<u64>>,
}

impl QueueDriver {
    fn context(&mut self, who: VcoprocId) -> &mut VecDeque<u64> {
        self.contexts.entry(who).or_default()
    }
}

impl Driver for QueueDriver {
    fn description(&self) -> &'static Description {
        &DESCRIPTION
    }

    fn probe(&mut self, _: &mut dyn Hardware) -> Result<(), DriverError> {
        Ok(())
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        self.context(who).clear();
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId) {
        self.contexts.remove(&who);
    }

    fn quiet(&mut self, _: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        hardware.write(0, STOP, Width::Double, 1);
        match hardware.read(0, STOP, Width::Double) {
            0 => Step::Done,
            wait => Step::Again(Duration::from_nanos(wait)),
        }
    }

    fn drain(&mut self, _: VcoprocId, _: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        _: Option<DeviceAddress>,
    ) -> Step {
        hardware.write(0, MOVE, Width::Double, 1);
        loop {
            match hardware.read(0, QUEUE, Width::Double) {
                u64::MAX => return Step::Done,
                job => self.context(who).push_back(job),
            }
        }
    }

    fn scrub(&mut self, _: VcoprocId, _: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn restore(
        &mut self,
        _: VcoprocId,
        hardware: &mut dyn Hardware,
        _: Option<DeviceAddress>,
    ) -> Step {
        hardware.write(0, MOVE, Width::Double, 1);
        Step::Done
    }

    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        while let Some(job) = self.context(who).pop_front() {
            hardware.write(0, QUEUE, Width::Double, job);
        }
        hardware.write(0, GO, Width::Double, 1);
        Step::Done
    }

    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        match (access.operation, hardware) {
            (Operation::Write(job), None) => {
                self.context(who).push_back(job);
                Verdict::Queued(0)
            }
            (Operation::Write(job), Some(hardware)) => {
                hardware.write(0, DOORBELL, Width::Double, job);
                Verdict::Value(0)
            }
            (Operation::Read, _) => Verdict::Value(0),
        }
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        self.contexts
            .get(&who)
            .is_some_and(|queue| !queue.is_empty())
    }

    fn busy(&mut self, _: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        hardware.read(0, STATUS, Width::Double) != 0
    }

    fn interrupt_pending(&mut self, _: VcoprocId, _: usize, _: Option<&mut dyn Hardware>) -> bool {
        false
    }

    fn abort(&mut self, _: VcoprocId, _: &mut dyn Hardware) -> Step {
        Step::Done
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        while hardware.read(0, QUEUE, Width::Double) != u64::MAX {}
        Step::Done
    }
}
