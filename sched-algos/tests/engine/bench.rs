//! A machine with one coprocessor, and guests that use it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use coproc_core::address::DeviceAddress;
use coproc_core::algorithm::{Algorithm, Parameters};
use coproc_core::coproc::{Coproc, Outcome, Settings, State};
use coproc_core::driver::{
    Description, Driver, DriverError, Failure, Hardware, SAVE_AREA, Step, Verdict, Window,
    WorstCase,
};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};
use coproc_core::trace::TraceEvent;

/// Plain context register.
pub const VALUE: u64 = 0x00;
/// Writing starts a job that ends in an interrupt.
pub const DOORBELL: u64 = 0x08;
/// 1 while a job runs.
pub const STATUS: u64 = 0x10;
/// Interrupt status, write 1 to clear.
pub const IRQ: u64 = 0x18;
/// Raises the interrupt.
pub const RAISE: u64 = 0x20;
/// A context register that can be saved and restored only by the device's own DMA; waits when not current.
pub const BUFFER: u64 = 0x28;
const DMA_OUT: u64 = 0x30;
const DMA_IN: u64 = 0x38;
/// The driver tells the bench what it is doing.
const TAG: usize = 99;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u64)]
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

const OPS: [Op; 11] = [
    Op::Quiet,
    Op::Drain,
    Op::Save,
    Op::Scrub,
    Op::Restore,
    Op::Replay,
    Op::Access,
    Op::Busy,
    Op::Pending,
    Op::Abort,
    Op::Reset,
];

/// How the driver, the device and the IOMMU behave.
#[derive(Debug, Default)]
pub struct Knobs {
    /// How many more times each step says "again", and after how many ns.
    pub again: BTreeMap<Op, (u32, u64)>,
    /// How many more times a step fails.
    pub fail: BTreeMap<Op, u32>,
    /// How many more times the IOMMU's sync says "again".
    pub sync_again: u32,
    /// How many more times the IOMMU's sync fails.
    pub sync_fail: u32,
    /// How many more times the fault records can't be read to the end.
    pub faults_again: u32,
    /// How many more times the interrupt line is still active.
    pub unsettled: u32,
    /// Device registers read and written from now on take this long, in ns.
    pub access_time: u64,
    /// Guests can't place their windows.
    pub unmappable: bool,
    /// How many more times creating a context fails.
    pub create_fail: u32,
}

pub type Shared = Arc<Mutex<Knobs>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    Driver(Op, VcoprocId),
    Point(Stream),
    Synced,
    Map(VcoprocId),
    Unmap(VcoprocId),
    Mask(bool),
    Arm(Option<u64>),
    Faults,
    Line(VcoprocId, bool),
}

#[derive(Default, Debug)]
pub struct Device {
    value: u64,
    buffer: u64,
    irq: u64,
    job: Option<(VcoprocId, u64)>,
    dma_until: u64,
    pub job_time: u64,
    /// A job that never ends.
    pub hang: bool,
}

pub struct Bench {
    pub now: u64,
    pub device: Device,
    pub timer: Option<u64>,
    pub streams: Stream,
    pub synced: bool,
    pub masked: bool,
    pub mapped: Option<VcoprocId>,
    pub lines: BTreeMap<VcoprocId, bool>,
    pub released: Vec<VcoprocId>,
    pub events: Vec<(VcoprocId, Event)>,
    pub log: Vec<Log>,
    pub trace: Vec<TraceEvent>,
    pub logging: bool,
    /// Jobs that ended, less those acknowledged.
    pub outstanding: BTreeMap<VcoprocId, u64>,
    pub executed: Vec<(VcoprocId, u64)>,
    areas: BTreeMap<VcoprocId, u64>,
    pub iommu: Faults,
    pub spurious_assert: bool,
    knobs: Shared,
}

impl Bench {
    fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().unwrap()
    }

    fn note(&mut self, what: Log) {
        if self.logging {
            self.log.push(what);
        }
    }

    fn device_tick(&mut self) {
        if let Some((who, until)) = self.device.job
            && self.now >= until
            && !self.device.hang
        {
            self.device.job = None;
            self.device.irq = 1;
            *self.outstanding.entry(who).or_default() += 1;
        }
    }

    fn target(&self) -> Option<VcoprocId> {
        match self.streams {
            Stream::Abort => None,
            Stream::Save(who) | Stream::Domain(who) => Some(who),
        }
    }

    /// The rules that a driver's caller has to keep.
    fn check(&mut self, op: Op, who: VcoprocId) {
        self.device_tick();
        self.note(Log::Driver(op, who));
        if op != Op::Reset {
            assert!(
                self.target().is_none_or(|target| target == who),
                "{op:?} for {who} with the streams at {:?}",
                self.streams
            );
        }
        let closed = self.streams == Stream::Abort && self.synced;
        let area = self.synced && (self.streams == Stream::Save(who) || closed);
        match op {
            Op::Quiet => assert_eq!(self.mapped, None, "unmap comes before quiet"),
            Op::Drain => assert!(self.masked && self.mapped.is_none()),
            Op::Save | Op::Scrub | Op::Restore => {
                assert!(area && self.masked && self.mapped.is_none(), "{op:?}");
                assert!(self.device.job.is_none(), "{op:?} of a busy device");
            }
            Op::Replay => {
                assert!(self.synced && self.streams == Stream::Domain(who) && self.masked);
            }
            Op::Access => assert!(self.synced && self.streams == Stream::Domain(who)),
            Op::Abort | Op::Reset => assert!(closed && self.masked && self.mapped.is_none()),
            Op::Busy | Op::Pending => {}
        }
    }

    /// A guest's own access through its mapped window.
    pub fn guest(&mut self, who: VcoprocId, access: &Access) -> u64 {
        assert_eq!(self.mapped, Some(who));
        assert!(self.synced && self.streams == Stream::Domain(who));
        match access.operation {
            Operation::Read => self.read(0, access.offset, access.width),
            Operation::Write(value) => {
                self.write(0, access.offset, access.width, value);
                0
            }
        }
    }
}

impl Hardware for Bench {
    fn read(&mut self, window: usize, offset: u64, _: Width) -> u64 {
        let time = self.knobs().access_time;
        self.now += time;
        self.device_tick();
        assert_eq!(window, 0);
        match offset {
            VALUE => self.device.value,
            STATUS => u64::from(self.device.job.is_some() || self.now < self.device.dma_until),
            IRQ => self.device.irq,
            BUFFER => self.device.buffer,
            _ => u64::MAX,
        }
    }

    fn write(&mut self, window: usize, offset: u64, _: Width, value: u64) {
        if window == TAG + 1 {
            // Reset.
            self.device.job = None;
            self.device.dma_until = 0;
            return;
        }
        if window == TAG {
            return self.check(OPS[offset as usize], VcoprocId(value as u32));
        }
        let time = self.knobs().access_time;
        self.now += time;
        self.device_tick();
        match offset {
            VALUE => self.device.value = value,
            DOORBELL => {
                let Stream::Domain(who) = self.streams else {
                    panic!("a job started with the streams at {:?}", self.streams);
                };
                assert!(self.synced);
                // A job started while one runs ends together with it.
                self.executed.push((who, value));
                self.device.job = Some((who, self.now + self.device.job_time));
            }
            IRQ => self.device.irq &= !value,
            RAISE => self.device.irq |= value,
            BUFFER => self.device.buffer = value,
            DMA_OUT | DMA_IN => {
                let Stream::Save(who) = self.streams else {
                    panic!("save DMA with the streams at {:?}", self.streams);
                };
                assert!(self.synced);
                if offset == DMA_OUT {
                    self.areas.insert(who, self.device.buffer);
                } else {
                    self.device.buffer = self.areas.get(&who).copied().unwrap_or(0);
                }
                self.device.dma_until = self.now + 100;
            }
            _ => {}
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now)
    }
}

impl Environment for Bench {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.now)
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer = at.map(Instant::as_nanos);
        self.note(Log::Arm(self.timer));
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        self
    }

    fn mask_interrupts(&mut self, masked: bool) {
        if !masked {
            assert!(
                matches!(self.streams, Stream::Domain(_)) && self.synced,
                "unmasked while nobody owns the device"
            );
        }
        self.masked = masked;
        self.note(Log::Mask(masked));
    }

    fn interrupt_asserted(&mut self, _: usize) -> bool {
        self.device_tick();
        self.device.irq != 0 || self.spurious_assert
    }

    fn interrupts_settled(&mut self) -> bool {
        let mut knobs = self.knobs();
        let waiting = knobs.unsettled > 0;
        knobs.unsettled = knobs.unsettled.saturating_sub(1);
        drop(knobs);
        !waiting && self.device.irq == 0
    }

    fn map_windows(&mut self, who: VcoprocId) -> bool {
        assert_eq!(self.mapped, None);
        assert!(self.synced && self.streams == Stream::Domain(who));
        if self.knobs().unmappable {
            return false;
        }
        self.mapped = Some(who);
        self.note(Log::Map(who));
        true
    }

    fn unmap_windows(&mut self, who: VcoprocId) {
        assert_eq!(self.mapped, Some(who));
        self.mapped = None;
        self.now += 3;
        self.note(Log::Unmap(who));
    }

    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        assert_eq!(self.mapped, None, "streams moved under a mapped window");
        if target != Stream::Abort {
            assert!(
                self.streams == Stream::Abort && self.synced,
                "{:?} to {target:?} without abort and sync between",
                self.streams
            );
        }
        self.streams = target;
        self.synced = false;
        self.note(Log::Point(target));
        Ok(())
    }

    fn sync_streams(&mut self) -> Step {
        self.now += 2;
        let mut knobs = self.knobs();
        if knobs.sync_fail > 0 {
            knobs.sync_fail -= 1;
            return Step::Failed(Failure("sync"));
        }
        if knobs.sync_again > 0 {
            knobs.sync_again -= 1;
            return Step::Again(Duration::from_micros(30));
        }
        drop(knobs);
        self.synced = true;
        self.note(Log::Synced);
        Step::Done
    }

    fn take_faults(&mut self) -> Option<Faults> {
        let mut knobs = self.knobs();
        if knobs.faults_again > 0 {
            knobs.faults_again -= 1;
            return None;
        }
        drop(knobs);
        self.note(Log::Faults);
        Some(core::mem::take(&mut self.iommu))
    }

    fn set_interrupt(&mut self, who: VcoprocId, index: usize, pending: bool) {
        assert_eq!(index, 0);
        if pending {
            assert!(
                self.outstanding.get(&who).copied().unwrap_or(0) > 0,
                "{who} got an interrupt that isn't its own"
            );
        }
        if self.lines.insert(who, pending) != Some(pending) {
            self.note(Log::Line(who, pending));
        }
    }

    fn release_parked(&mut self, who: VcoprocId) {
        self.released.push(who);
    }

    fn notify(&mut self, who: VcoprocId, event: Event) {
        self.events.push((who, event));
    }

    fn trace(&mut self, event: &TraceEvent) {
        assert_eq!(event.coproc, CoprocId(0));
        self.trace.push(*event);
    }
}

#[derive(Default, Debug)]
struct Context {
    value: u64,
    irq: u64,
    /// Where the model without save DMA keeps the buffer.
    buffer: u64,
    queue: VecDeque<u64>,
    dma: u32,
}

/// A driver that does what its knobs say.
pub struct Model {
    contexts: BTreeMap<VcoprocId, Context>,
    area: bool,
    knobs: Shared,
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
            refusal: Duration::from_millis(1),
            stop: Duration::from_micros(10),
            save: Duration::from_micros(100),
            restore: Duration::from_micros(100),
        },
        refusal_bound: BOUND,
        slice: SLICE,
    }
}

pub const SLICE: Duration = Duration::from_millis(1);
pub const BOUND: Duration = Duration::from_millis(20);
static PLAIN: Description = describe(0);
static AREA: Description = describe(4096);

impl Model {
    /// Tells the bench what comes, and what the knobs say to it.
    fn tag(&mut self, op: Op, who: VcoprocId, hardware: &mut dyn Hardware) -> Option<Step> {
        let at = OPS.iter().position(|o| *o == op).unwrap() as u64;
        hardware.write(TAG, at, Width::Double, u64::from(who.0));
        let mut knobs = self.knobs.lock().unwrap();
        if let Some(left) = knobs.fail.get_mut(&op)
            && *left > 0
        {
            *left -= 1;
            return Some(Step::Failed(Failure("as told")));
        }
        if let Some((left, after)) = knobs.again.get_mut(&op)
            && *left > 0
        {
            *left -= 1;
            return Some(Step::Again(Duration::from_nanos(*after)));
        }
        None
    }

    fn context(&mut self, who: VcoprocId) -> &mut Context {
        self.contexts.get_mut(&who).expect("a context")
    }

    /// One DMA to or from the save area.
    fn dma(&mut self, who: VcoprocId, hardware: &mut dyn Hardware, command: u64) -> Step {
        if self.context(who).dma == 0 {
            self.context(who).dma = 1;
            hardware.write(0, command, Width::Double, 1);
        }
        if hardware.read(0, STATUS, Width::Double) != 0 {
            return Step::Again(Duration::from_nanos(100));
        }
        self.context(who).dma = 0;
        Step::Done
    }
}

impl Driver for Model {
    fn description(&self) -> &'static Description {
        if self.area { &AREA } else { &PLAIN }
    }

    fn probe(&mut self, _: &mut dyn Hardware) -> Result<(), DriverError> {
        Ok(())
    }

    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError> {
        let mut knobs = self.knobs.lock().unwrap();
        if knobs.create_fail > 0 {
            knobs.create_fail -= 1;
            return Err(DriverError::OutOfMemory);
        }
        if self.contexts.contains_key(&who) {
            return Err(DriverError::Duplicate(who));
        }
        self.contexts.insert(who, Context::default());
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId) {
        self.contexts.remove(&who);
    }

    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        if let Some(step) = self.tag(Op::Quiet, who, hardware) {
            return step;
        }
        if hardware.read(0, STATUS, Width::Double) != 0 {
            return Step::Again(Duration::from_micros(50));
        }
        Step::Done
    }

    fn drain(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        if let Some(step) = self.tag(Op::Drain, who, hardware) {
            return step;
        }
        let irq = hardware.read(0, IRQ, Width::Double);
        self.context(who).irq |= irq;
        hardware.write(0, IRQ, Width::Double, irq);
        assert_eq!(hardware.read(0, IRQ, Width::Double), 0);
        Step::Done
    }

    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step {
        if let Some(step) = self.tag(Op::Save, who, hardware) {
            return step;
        }
        self.context(who).value = hardware.read(0, VALUE, Width::Double);
        assert_eq!(save_area, self.area.then_some(SAVE_AREA));
        if self.area {
            return self.dma(who, hardware, DMA_OUT);
        }
        self.context(who).buffer = hardware.read(0, BUFFER, Width::Double);
        Step::Done
    }

    fn scrub(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        if let Some(step) = self.tag(Op::Scrub, who, hardware) {
            return step;
        }
        hardware.write(0, VALUE, Width::Double, 0);
        hardware.write(0, BUFFER, Width::Double, 0);
        Step::Done
    }

    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step {
        if let Some(step) = self.tag(Op::Restore, who, hardware) {
            return step;
        }
        hardware.write(0, VALUE, Width::Double, self.context(who).value);
        assert_eq!(save_area, self.area.then_some(SAVE_AREA));
        if self.area {
            return self.dma(who, hardware, DMA_IN);
        }
        hardware.write(0, BUFFER, Width::Double, self.context(who).buffer);
        Step::Done
    }

    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        if let Some(step) = self.tag(Op::Replay, who, hardware) {
            return step;
        }
        let irq = core::mem::take(&mut self.context(who).irq);
        hardware.write(0, RAISE, Width::Double, irq);
        while let Some(value) = self.context(who).queue.pop_front() {
            hardware.write(0, DOORBELL, Width::Double, value);
        }
        Step::Done
    }

    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict {
        if let Some(hardware) = hardware {
            self.tag(Op::Access, who, hardware);
            return Verdict::Value(match access.operation {
                Operation::Read => hardware.read(0, access.offset, access.width),
                Operation::Write(value) => {
                    hardware.write(0, access.offset, access.width, value);
                    0
                }
            });
        }
        let context = self.context(who);
        match (access.offset, access.operation) {
            (VALUE, Operation::Read) => Verdict::Value(context.value),
            (VALUE, Operation::Write(value)) => {
                context.value = value;
                Verdict::Value(0)
            }
            (STATUS, Operation::Read) => Verdict::Value(u64::from(!context.queue.is_empty())),
            (DOORBELL, Operation::Write(value)) => {
                context.queue.push_back(value);
                Verdict::Queued(0)
            }
            (IRQ, Operation::Read) => Verdict::Value(context.irq),
            (IRQ, Operation::Write(value)) => {
                context.irq &= !value;
                Verdict::Value(0)
            }
            (BUFFER, _) => Verdict::Park,
            _ => Verdict::Fault,
        }
    }

    fn has_work(&self, who: VcoprocId) -> bool {
        self.contexts
            .get(&who)
            .is_some_and(|context| !context.queue.is_empty())
    }

    fn busy(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> bool {
        self.tag(Op::Busy, who, hardware);
        hardware.read(0, STATUS, Width::Double) != 0
    }

    fn interrupt_pending(
        &mut self,
        who: VcoprocId,
        _: usize,
        hardware: Option<&mut dyn Hardware>,
    ) -> bool {
        match hardware {
            Some(hardware) => {
                self.tag(Op::Pending, who, hardware);
                hardware.read(0, IRQ, Width::Double) != 0
            }
            None => self.context(who).irq != 0,
        }
    }

    fn abort(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step {
        self.tag(Op::Abort, who, hardware)
            .unwrap_or(Step::Failed(Failure("no such means")))
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        if let Some(step) = self.tag(Op::Reset, VcoprocId(0), hardware) {
            return step;
        }
        hardware.write(TAG + 1, 0, Width::Double, 0);
        for context in self.contexts.values_mut() {
            context.dma = 0;
        }
        hardware.write(0, VALUE, Width::Double, 0);
        hardware.write(0, BUFFER, Width::Double, 0);
        hardware.write(0, IRQ, Width::Double, u64::MAX);
        Step::Done
    }
}

/// What a guest saw and waits for.
#[derive(Default, Debug)]
pub struct Guest {
    /// The access that its vCPU is parked on.
    pub parked: Option<Access>,
    /// Results of reads.
    pub reads: Vec<(u64, u64)>,
    /// What was written last, for those registers that keep it.
    pub written: BTreeMap<u64, u64>,
    /// Doorbells that were rung, in order.
    pub rung: Vec<u64>,
    /// An access faulted.
    pub faulted: bool,
    /// Exits of all accesses.
    pub exits: u64,
}

pub struct Rig {
    pub bench: Bench,
    pub coproc: Coproc,
    pub knobs: Shared,
    pub guests: BTreeMap<VcoprocId, Guest>,
    pub start: u64,
    /// Guests handle their interrupts at once.
    pub handlers: bool,
}

pub fn v(id: u32) -> VcoprocId {
    VcoprocId(id)
}

fn access(offset: u64, operation: Operation) -> Access {
    Access {
        window: 0,
        offset,
        width: Width::Double,
        operation,
    }
}

impl Rig {
    pub fn new(vcoprocs: u32, area: bool) -> Self {
        let slice = SLICE;
        let tuning = coproc_core::algorithm::Tuning::new(slice);
        Self::with(vcoprocs, area, sched_algos::by_name("rr", &tuning).unwrap())
    }

    pub fn with(vcoprocs: u32, area: bool, algorithm: Box<dyn Algorithm>) -> Self {
        let knobs = Shared::default();
        knobs.lock().unwrap().access_time = 1;
        let driver = Box::new(Model {
            contexts: BTreeMap::new(),
            area,
            knobs: knobs.clone(),
        });
        let mut bench = Bench {
            now: 1_000,
            device: Device {
                job_time: 200_000,
                ..Device::default()
            },
            timer: None,
            streams: Stream::Domain(v(999)),
            synced: true,
            masked: false,
            mapped: None,
            lines: BTreeMap::new(),
            released: Vec::new(),
            events: Vec::new(),
            log: Vec::new(),
            trace: Vec::new(),
            logging: true,
            outstanding: BTreeMap::new(),
            executed: Vec::new(),
            areas: BTreeMap::new(),
            iommu: Faults::default(),
            spurious_assert: false,
            knobs: knobs.clone(),
        };
        let settings = Settings::of(&*driver);
        let mut coproc = Coproc::new(
            CoprocId(0),
            driver,
            algorithm,
            settings,
            Environment::now(&bench),
        );
        coproc.start(&mut bench).unwrap();
        let mut rig = Self {
            start: 1_000,
            bench,
            coproc,
            knobs,
            guests: BTreeMap::new(),
            handlers: true,
        };
        for id in 1..=vcoprocs {
            rig.attach(id).unwrap();
        }
        rig
    }

    pub fn knobs(&self) -> MutexGuard<'_, Knobs> {
        self.knobs.lock().unwrap()
    }

    pub fn attach(&mut self, id: u32) -> Result<(), coproc_core::coproc::AttachError> {
        let domain = DomainId(id as u16);
        self.coproc
            .attach(&mut self.bench, v(id), domain, &Parameters::default())?;
        self.guests.insert(v(id), Guest::default());
        self.bench.outstanding.remove(&v(id));
        self.bench.areas.remove(&v(id));
        self.bench.executed.retain(|(who, _)| *who != v(id));
        Ok(())
    }

    pub fn write(&mut self, id: u32, offset: u64, value: u64) {
        self.issue(v(id), access(offset, Operation::Write(value)));
        self.pump();
    }

    /// `None`: the vCPU waits, or the access faulted.
    pub fn read(&mut self, id: u32, offset: u64) -> Option<u64> {
        let before = self.guests[&v(id)].reads.len();
        self.issue(v(id), access(offset, Operation::Read));
        let got = self.guests[&v(id)]
            .reads
            .get(before)
            .map(|(_, value)| *value);
        self.pump();
        got
    }

    fn issue(&mut self, who: VcoprocId, access: Access) {
        let guest = self.guests.get_mut(&who).unwrap();
        if guest.parked.is_some() {
            // Its vCPU waits.
            return;
        }
        for _ in 0..4 {
            if self.bench.mapped == Some(who) {
                let value = self.bench.guest(who, &access);
                self.done(who, access, value);
                return;
            }
            self.guests.get_mut(&who).unwrap().exits += 1;
            let outcome = self.coproc.access(&mut self.bench, who, &access);
            self.check();
            let guest = self.guests.get_mut(&who).unwrap();
            match outcome {
                Outcome::Value(value) => return self.done(who, access, value),
                Outcome::Retry => {}
                Outcome::Park => {
                    // A release before this moment would have been for an earlier wait.
                    self.bench.released.retain(|released| *released != who);
                    guest.parked = Some(access);
                    return;
                }
                Outcome::Fault => {
                    guest.faulted = true;
                    return;
                }
            }
        }
        panic!("an access that is retried for ever");
    }

    fn done(&mut self, who: VcoprocId, access: Access, value: u64) {
        let guest = self.guests.get_mut(&who).unwrap();
        match access.operation {
            Operation::Read => {
                guest.reads.push((access.offset, value));
                if let VALUE | BUFFER = access.offset {
                    let expected = guest.written.get(&access.offset).copied().unwrap_or(0);
                    assert_eq!(value, expected, "{who} read a value that isn't its own");
                }
            }
            Operation::Write(written) => match access.offset {
                VALUE | BUFFER => {
                    guest.written.insert(access.offset, written);
                }
                DOORBELL => guest.rung.push(written),
                IRQ => {
                    self.bench.outstanding.remove(&who);
                }
                _ => {}
            },
        }
    }

    /// Lets released vCPUs and interrupt handlers run, and the physical interrupt in.
    pub fn pump(&mut self) {
        for _ in 0..100 {
            self.bench.device_tick();
            if self.bench.device.irq != 0 && !self.bench.masked {
                self.coproc.interrupt(&mut self.bench, 0);
                assert!(self.bench.masked || self.bench.device.irq == 0);
                self.check();
                continue;
            }
            if !self.bench.released.is_empty() {
                let who = self.bench.released.remove(0);
                if let Some(guest) = self.guests.get_mut(&who)
                    && let Some(access) = guest.parked.take()
                {
                    self.issue(who, access);
                }
                continue;
            }
            // The handler of one that is parked would be parked as well: later.
            let mut lines = self.bench.lines.iter();
            let line = lines.find(|(who, high)| **high && self.guests[*who].parked.is_none());
            let (true, Some((&who, _))) = (self.handlers, line) else {
                return;
            };
            self.issue(who, access(IRQ, Operation::Write(1)));
            self.coproc.resample(&mut self.bench, who, 0);
            self.check();
        }
        panic!("never comes to rest");
    }

    /// Lets time pass, with all that happens meanwhile.
    pub fn run(&mut self, nanos: u64) {
        let end = self.bench.now + nanos;
        let mut events = 0;
        loop {
            self.pump();
            let job = match self.bench.device.job {
                Some((_, until)) if !self.bench.device.hang && !self.bench.masked => Some(until),
                _ => None,
            };
            let Some(next) = [self.bench.timer, job].into_iter().flatten().min() else {
                break;
            };
            if next > end {
                break;
            }
            events += 1;
            assert!(events < 200_000, "too many events");
            self.bench.now = self.bench.now.max(next);
            if self.bench.timer.is_some_and(|at| at <= self.bench.now) {
                self.bench.timer = None;
                self.coproc.timer(&mut self.bench);
                self.check();
            }
        }
        self.bench.now = self.bench.now.max(end);
        self.check();
    }

    pub fn detach(&mut self, id: u32) -> coproc_core::coproc::Detach {
        let answer = self.coproc.detach(&mut self.bench, v(id)).unwrap();
        self.check();
        self.pump();
        answer
    }

    pub fn stop(&mut self) -> coproc_core::coproc::Detach {
        let answer = self.coproc.stop(&mut self.bench);
        self.check();
        self.pump();
        answer
    }

    pub fn start(&mut self) -> Result<(), coproc_core::coproc::StartError> {
        let answer = self.coproc.start(&mut self.bench);
        self.check();
        answer
    }

    /// What holds after every event.
    pub fn check(&self) {
        let report = self.coproc.report(Environment::now(&self.bench));
        assert!(report.time.balanced(), "{:?}", report.time);
        assert_eq!(report.time.elapsed.as_nanos(), self.bench.now - self.start);
        let current = self.coproc.current();
        if let Some(mapped) = self.bench.mapped {
            assert_eq!(current, Some(mapped), "mapped for one that isn't current");
        }
        match self.coproc.state() {
            State::Running(slice) => {
                assert!(self.bench.synced && self.bench.streams == Stream::Domain(slice.who));
                assert!(slice.until.is_none() || self.bench.timer.is_some());
            }
            State::Idle { .. } | State::Detached | State::Quarantined { .. } => {
                assert_eq!(self.bench.streams, Stream::Abort);
                assert!(self.bench.masked);
            }
            State::Off => {
                assert_eq!(self.bench.streams, Stream::Abort);
                assert!(self.bench.masked && self.bench.timer.is_none());
                assert!(self.coproc.vcoprocs().next().is_none());
            }
            _ => assert!(self.bench.timer.is_some(), "nothing will go on"),
        }
    }

    pub fn counters(&self, id: u32) -> coproc_core::coproc::Counters {
        let report = self.coproc.report(Environment::now(&self.bench));
        let v = report.vcoprocs.iter().find(|r| r.id == v(id)).unwrap();
        v.counters
    }

    pub fn charge(&self, id: u32) -> u64 {
        let report = self.coproc.report(Environment::now(&self.bench));
        report.time.of(v(id)).charge.as_nanos()
    }
}
