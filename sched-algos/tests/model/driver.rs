//! A driver for the model's device that answers each step as the oracle says.

use std::collections::{BTreeMap, VecDeque};

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{
    Description, Driver, DriverError, Hardware, Step, Verdict, Window, WorstCase,
};
use coproc_core::environment::Stream;
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::Duration;

use crate::machine::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    Quiet,
    Drain,
    Save,
    Scrub,
    Restore,
    Replay,
    Access,
    Busy,
    Pending,
    Abort,
    Reset,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Context {
    pub value: u64,
    pub memory: u64,
    pub irq: bool,
    pub queue: VecDeque<u64>,
}

/// The contexts are shared with the world, which puts them into the fingerprint.
pub type Contexts = std::sync::Arc<std::sync::Mutex<BTreeMap<VcoprocId, Context>>>;

pub struct Model {
    pub machine: Shared,
    pub contexts: Contexts,
    pub area: bool,
}

const fn describe(save_area: u64) -> Description {
    Description {
        name: "model",
        matches: &[],
        windows: &[Window {
            name: "registers",
            index: 0,
            size: 4096,
            direct: true,
        }],
        interrupts: 1,
        streams: 1,
        own_iommu: false,
        save_area,
        worst_case: WorstCase {
            refusal: Duration::from_micros(100),
            stop: Duration::from_micros(10),
            save: Duration::from_micros(10),
            restore: Duration::from_micros(10),
        },
        refusal_bound: BOUND,
        slice: SLICE,
    }
}

static PLAIN: Description = describe(0);
static AREA: Description = describe(4096);

type Pins<'a> = &'a mut dyn Hardware;

fn get(hardware: Pins<'_>, offset: u64) -> u64 {
    hardware.read(0, offset, Width::Double)
}

fn put(hardware: Pins<'_>, offset: u64, value: u64) {
    hardware.write(0, offset, Width::Double, value);
}

impl Model {
    fn is(&self, mutant: Mutant) -> bool {
        self.machine.lock().unwrap().is(mutant)
    }

    /// The rules that hold for one kind of call, and the answer it shall give. The device is asynchronous: a job may end between
    /// any two of the calls that look at it.
    fn begin(&self, op: Op, who: VcoprocId) -> Step {
        let mut guard = self.machine.lock().unwrap();
        let m = &mut *guard;
        m.boundary();
        m.subject = Some((who, op == Op::Reset));
        m.begin_anew();
        if let Op::Quiet | Op::Busy | Op::Pending = op
            && m.device.job.is_some()
            && m.finish_at.is_none()
            && m.oracle.choose(2) == 1
        {
            m.finish();
        }
        let area = m.effective == Stream::Save(who) && m.pending.is_none();
        let unmapped = m.mapped.is_none();
        let fine = match op {
            Op::Quiet => unmapped,
            Op::Drain => unmapped && m.masked,
            Op::Save | Op::Scrub | Op::Restore => {
                (m.closed() || area) && unmapped && m.masked && m.device.job.is_none()
            }
            Op::Replay => m.open_for(who) && m.masked && unmapped,
            Op::Access => m.open_for(who),
            Op::Busy | Op::Pending => true,
            Op::Abort | Op::Reset => m.closed() && m.masked && unmapped,
        };
        m.require(fine, |m| {
            format!(
                "{op:?} for {who}: streams {:?}/{:?}, mapped {:?}, masked {}, job {:?}",
                m.effective, m.pending, m.mapped, m.masked, m.device.job
            )
        });
        match op {
            Op::Access | Op::Busy | Op::Pending => Step::Done,
            Op::Abort => {
                // No such means, or it works: both are sound.
                let before = m.failures;
                let answer = m.answer(None, true);
                if let Step::Failed(_) = answer {
                    m.failures = before;
                }
                answer
            }
            Op::Reset => {
                let answer = m.answer(None, true);
                m.mended = answer == Step::Done;
                answer
            }
            _ => m.answer(Some(who), true),
        }
    }

    fn end(&self) {
        self.machine.lock().unwrap().subject = None;
    }

    fn with<T>(&self, who: VcoprocId, what: impl FnOnce(&mut Context) -> T) -> Option<T> {
        let found = self.contexts.lock().unwrap().get_mut(&who).map(what);
        if found.is_none() {
            let mut m = self.machine.lock().unwrap();
            m.require(false, |_| format!("{who} has no context"));
        }
        found
    }

    fn step(
        &self,
        op: Op,
        who: VcoprocId,
        hardware: Pins<'_>,
        work: impl FnOnce(Pins<'_>) -> Option<()>,
    ) -> Step {
        let answer = self.begin(op, who);
        // A failure leaves its work half done; "again" hasn't begun.
        if !matches!(answer, Step::Again(_)) {
            let _ = work(hardware);
        }
        self.end();
        answer
    }
}

impl Driver for Model {
    fn description(&self) -> &'static Description {
        if self.area { &AREA } else { &PLAIN }
    }

    fn probe(&mut self, _: Pins<'_>) -> Result<(), DriverError> {
        Ok(())
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        if self.machine.lock().unwrap().fails_here() {
            return Err(DriverError::OutOfMemory);
        }
        let mut contexts = self.contexts.lock().unwrap();
        if contexts.contains_key(&who) {
            return Err(DriverError::Duplicate(who));
        }
        contexts.insert(who, Context::default());
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId) {
        self.contexts.lock().unwrap().remove(&who);
    }

    fn quiet(&mut self, who: VcoprocId, _: Pins<'_>) -> Step {
        let answer = self.begin(Op::Quiet, who);
        self.end();
        let mut guard = self.machine.lock().unwrap();
        let m = &mut *guard;
        if answer != Step::Done || m.device.job.is_none() || m.is(Mutant::LiesQuiet) {
            return answer;
        }
        // A refusal costs a trick, or there would be runs without end.
        if m.finish_at.is_none() && m.oracle.can(crate::oracle::Trick::Again) {
            m.oracle.spend(crate::oracle::Trick::Again);
            if m.late {
                m.blame(Some(who));
            }
        } else if m.finish_at.is_none() {
            m.finish();
            return Step::Done;
        }
        Step::Again(Duration::ZERO)
    }

    fn drain(&mut self, who: VcoprocId, hardware: Pins<'_>) -> Step {
        self.step(Op::Drain, who, hardware, |hardware| {
            let irq = get(hardware, IRQ) != 0;
            if !self.is(Mutant::LosesInterrupt) {
                self.with(who, |context| context.irq |= irq)?;
            }
            if !self.is(Mutant::LeaksInterrupt) {
                put(hardware, IRQ, 1);
            }
            Some(())
        })
    }

    fn save(&mut self, who: VcoprocId, hardware: Pins<'_>, area: Option<DeviceAddress>) -> Step {
        self.step(Op::Save, who, hardware, |hardware| {
            let value = get(hardware, VALUE);
            self.with(who, |context| context.value = value)?;
            if self.is(Mutant::SkipsSave) {
                return None;
            }
            if area.is_some() {
                put(hardware, DMA_OUT, 1);
            } else {
                let memory = get(hardware, MEMORY);
                self.with(who, |context| context.memory = memory)?;
            }
            Some(())
        })
    }

    fn scrub(&mut self, who: VcoprocId, hardware: Pins<'_>) -> Step {
        self.step(Op::Scrub, who, hardware, |hardware| {
            if !self.is(Mutant::ForgetsScrub) {
                put(hardware, SCRATCH, 0);
            }
            put(hardware, MEMORY, 0);
            Some(())
        })
    }

    fn restore(&mut self, who: VcoprocId, hardware: Pins<'_>, area: Option<DeviceAddress>) -> Step {
        self.step(Op::Restore, who, hardware, |hardware| {
            let (value, mut memory) = self.with(who, |c| (c.value, c.memory))?;
            put(hardware, VALUE, value);
            if self.is(Mutant::SwapsContext) {
                let contexts = self.contexts.lock().unwrap();
                memory = contexts.values().map(|c| c.memory).max().unwrap_or(0);
            }
            if area.is_some() {
                put(hardware, DMA_IN, 1);
            } else {
                put(hardware, MEMORY, memory);
            }
            Some(())
        })
    }

    fn replay(&mut self, who: VcoprocId, hardware: Pins<'_>) -> Step {
        self.step(Op::Replay, who, hardware, |hardware| {
            let irq = self.with(who, |context| core::mem::take(&mut context.irq))?;
            put(hardware, RAISE, u64::from(irq));
            let queue = self.with(who, |context| core::mem::take(&mut context.queue))?;
            let skip = usize::from(self.is(Mutant::DropsDoorbell));
            for value in queue.iter().skip(skip) {
                put(hardware, DOORBELL, *value);
                if self.is(Mutant::ReplaysTwice) {
                    put(hardware, DOORBELL, *value);
                }
            }
            Some(())
        })
    }

    fn access(&mut self, who: VcoprocId, access: &Access, hardware: Option<Pins<'_>>) -> Verdict {
        if let Some(hardware) = hardware {
            self.begin(Op::Access, who);
            let verdict = Verdict::Value(match access.operation {
                Operation::Read => get(hardware, access.offset),
                Operation::Write(value) => {
                    put(hardware, access.offset, value);
                    0
                }
            });
            self.end();
            return verdict;
        }
        self.with(who, |context| match (access.offset, access.operation) {
            (VALUE, Operation::Read) => Verdict::Value(context.value),
            (VALUE, Operation::Write(value)) => {
                context.value = value;
                Verdict::Value(0)
            }
            (DOORBELL, Operation::Write(value)) => {
                context.queue.push_back(value);
                Verdict::Queued(0)
            }
            (IRQ, Operation::Read) => Verdict::Value(u64::from(context.irq)),
            (IRQ, Operation::Write(_)) => {
                context.irq = false;
                Verdict::Value(0)
            }
            (MEMORY | SCRATCH, _) => Verdict::Park,
            _ => Verdict::Fault,
        })
        .unwrap_or(Verdict::Fault)
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        let contexts = self.contexts.lock().unwrap();
        contexts.get(&who).is_some_and(|c| !c.queue.is_empty())
    }

    fn busy(&mut self, who: VcoprocId, _: Pins<'_>) -> bool {
        self.begin(Op::Busy, who);
        self.end();
        self.machine.lock().unwrap().device.job.is_some()
    }

    fn interrupt_pending(&mut self, who: VcoprocId, _: usize, hardware: Option<Pins<'_>>) -> bool {
        let Some(hardware) = hardware else {
            return self.with(who, |context| context.irq).unwrap_or(false);
        };
        self.begin(Op::Pending, who);
        let pending = get(hardware, IRQ) != 0;
        self.end();
        pending
    }

    fn abort(&mut self, who: VcoprocId, _: Pins<'_>) -> Step {
        let answer = self.begin(Op::Abort, who);
        self.end();
        if answer == Step::Done {
            self.machine.lock().unwrap().device.job = None;
        }
        answer
    }

    fn reset(&mut self, hardware: Pins<'_>) -> Step {
        let answer = self.begin(Op::Reset, VcoprocId(0));
        if answer == Step::Done {
            put(hardware, RESET, 1);
        }
        self.end();
        answer
    }
}
