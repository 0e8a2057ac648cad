//! The machine: clock, timer, device with memory of its own, IOMMU, windows, interrupt.
//!
//! It notes the first rule that is broken instead of panicking, so that the checker can show the shortest run to it, and so that
//! seeded faults ([`Mutant`]) can be seen to be caught.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use coproc_core::driver::{Failure, Hardware, Step};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::VcoprocId;
use coproc_core::iommu::{Faults, IommuError};
use coproc_core::register::Width;
use coproc_core::time::{Duration, Instant};

use crate::oracle::{Oracle, Trick};

/// A register of the context that is always readable from its saved copy.
pub const VALUE: u64 = 0x00;
/// Starts a job that ends in an interrupt.
pub const DOORBELL: u64 = 0x08;
/// Interrupt status, write 1 to clear.
pub const IRQ: u64 = 0x18;
/// Sets the interrupt status.
pub const RAISE: u64 = 0x20;
/// Device memory that belongs to the context; waits when not current.
pub const MEMORY: u64 = 0x28;
/// Device memory that doesn't: lost with the slice; waits when not current.
pub const SCRATCH: u64 = 0x30;
/// The device writes `MEMORY` to its save area.
pub const DMA_OUT: u64 = 0x38;
/// The device reads `MEMORY` from its save area.
pub const DMA_IN: u64 = 0x40;
/// Everything is 0 after this.
pub const RESET: u64 = 0x48;

pub const SLICE: Duration = Duration::from_millis(1);
pub const BOUND: Duration = Duration::from_millis(20);
/// Longer than every limit.
pub const LATE: u64 = 3_000_000_000;

/// Faults of the surroundings that the checker must find.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    KeepsWindows,
    KeepsStreams,
    SyncsEarly,
    ForgetsScrub,
    DropsDoorbell,
    ReplaysTwice,
    LeaksInterrupt,
    LosesInterrupt,
    SwapsContext,
    SkipsSave,
    NeverReleases,
    DeafTimer,
    LiesQuiet,
    WrongLine,
    ForgetsWake,
    SkewedClock,
    ResetLeavesScratch,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Device {
    pub value: u64,
    pub memory: u64,
    pub scratch: u64,
    pub irq: bool,
    pub job: Option<VcoprocId>,
}

#[derive(Debug)]
pub struct Machine {
    pub oracle: Oracle,
    pub mutant: Option<Mutant>,
    pub now: u64,
    pub timer: Option<u64>,
    /// Where the streams go.
    pub effective: Stream,
    /// Where they may go as well, until synced.
    pub pending: Option<Stream>,
    pub masked: bool,
    pub mapped: Option<VcoprocId>,
    pub device: Device,
    pub areas: BTreeMap<VcoprocId, u64>,
    pub lines: BTreeMap<VcoprocId, bool>,
    /// Jobs that ended and weren't acknowledged.
    pub outstanding: BTreeSet<VcoprocId>,
    pub executed: BTreeMap<VcoprocId, Vec<u64>>,
    pub released: BTreeSet<VcoprocId>,
    /// IOMMU records, and whose DMA it was.
    pub records: Vec<VcoprocId>,
    /// Faults booked, by the framework's word.
    pub notified: BTreeMap<VcoprocId, u64>,
    /// What `notified` should say.
    pub strayed: BTreeMap<VcoprocId, u64>,
    pub condemned: BTreeSet<VcoprocId>,
    /// Whose context the driver is working on; the flag: any (reset).
    pub subject: Option<(VcoprocId, bool)>,
    /// Those whose step failed or took too long.
    pub blamed: BTreeSet<VcoprocId>,
    /// Failures of which only the framework can say whose step it was.
    pub unowned: usize,
    /// Failures since the last reset that worked.
    pub failures: u32,
    /// A reset succeeded; with the next step that isn't part of it those failures are over. Until then the interrupt may still not settle, and that
    /// is one more.
    pub mended: bool,
    /// The clock jumped in this event.
    pub late: bool,
    pub violation: Option<String>,
    /// Calls of the framework into its surroundings so far.
    pub calls: u32,
    /// The job ends just before this call.
    pub finish_at: Option<u32>,
    /// This call fails, counted over those that can: `(countdown)`.
    pub fail_in: Option<u32>,
}

pub type Shared = Arc<Mutex<Machine>>;

impl Machine {
    pub fn new(oracle: Oracle, mutant: Option<Mutant>) -> Self {
        Self {
            oracle,
            mutant,
            now: 1_000,
            timer: None,
            effective: Stream::Domain(VcoprocId(999)),
            pending: None,
            masked: false,
            mapped: None,
            device: Device::default(),
            areas: BTreeMap::new(),
            lines: BTreeMap::new(),
            outstanding: BTreeSet::new(),
            executed: BTreeMap::new(),
            released: BTreeSet::new(),
            records: Vec::new(),
            notified: BTreeMap::new(),
            strayed: BTreeMap::new(),
            condemned: BTreeSet::new(),
            subject: None,
            blamed: BTreeSet::new(),
            unowned: 0,
            failures: 0,
            mended: false,
            late: false,
            violation: None,
            calls: 0,
            finish_at: None,
            fail_in: None,
        }
    }

    pub fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    pub fn require(&mut self, holds: bool, rule: impl FnOnce(&Self) -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(rule(self));
        }
    }

    fn targets(&self) -> [Stream; 2] {
        [self.effective, self.pending.unwrap_or(self.effective)]
    }

    /// Whether no transaction can reach another one's memory than `who`'s.
    pub fn confined(&self, who: VcoprocId) -> bool {
        self.targets().iter().all(|target| match target {
            Stream::Abort => true,
            Stream::Save(owner) | Stream::Domain(owner) => *owner == who,
        })
    }

    pub fn closed(&self) -> bool {
        self.targets() == [Stream::Abort; 2]
    }

    pub fn open_for(&self, who: VcoprocId) -> bool {
        self.targets() == [Stream::Domain(who); 2]
    }

    /// What must hold at any moment, between any two calls.
    pub fn always(&mut self) {
        if let Some(owner) = self.device.job {
            // Work that is going to be thrown away may be cut off from its memory; never given another's.
            let forced = self.failures > 0 || self.blamed.contains(&owner);
            let fine = self.targets().iter().all(|target| {
                *target == Stream::Domain(owner) || (forced && *target == Stream::Abort)
            });
            self.require(fine, |m| {
                format!(
                    "a job of {owner} runs with the streams at {:?}",
                    m.targets()
                )
            });
        }
        if let Some(owner) = self.mapped {
            self.require(self.open_for(owner), |m| {
                format!("windows of {owner} mapped, streams at {:?}", m.targets())
            });
        }
    }

    /// The boundary of every call from the framework.
    pub fn boundary(&mut self) {
        if self.finish_at == Some(self.calls) {
            self.finish();
        }
        self.calls += 1;
        self.always();
    }

    /// Whether this call, one of those that can fail, is to fail.
    pub fn fails_here(&mut self) -> bool {
        match &mut self.fail_in {
            Some(0) => {
                self.fail_in = None;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        }
    }

    /// The device's job ends.
    pub fn finish(&mut self) {
        if let Some(owner) = self.device.job.take() {
            self.device.irq = true;
            self.outstanding.insert(owner);
        }
    }

    /// A step of `who` failed, or will count as failed.
    pub fn blame(&mut self, who: Option<VcoprocId>) {
        self.blamed.extend(who);
        self.unowned += usize::from(who.is_none());
        self.failures += 1;
    }

    /// A step that isn't part of a reset: what was before the reset is over.
    pub fn begin_anew(&mut self) {
        if core::mem::take(&mut self.mended) {
            self.failures = 0;
        }
    }

    fn stream_owner(&self) -> Option<VcoprocId> {
        self.targets().iter().find_map(|target| match target {
            Stream::Abort => None,
            Stream::Save(who) | Stream::Domain(who) => Some(*who),
        })
    }

    /// `Done`, or what the adversary makes of it.
    pub fn answer(&mut self, who: Option<VcoprocId>, may_fail: bool) -> Step {
        if may_fail && self.fails_here() {
            self.blame(who);
            return Step::Failed(Failure("injected"));
        }
        let again = self.oracle.can(Trick::Again);
        let fail = may_fail && self.oracle.can(Trick::Fail);
        let choice = self
            .oracle
            .choose(1 + usize::from(again) + usize::from(fail));
        match (choice, again) {
            (0, _) => Step::Done,
            (1, true) => {
                self.oracle.spend(Trick::Again);
                if self.late {
                    self.blame(who);
                }
                Step::Again(Duration::ZERO)
            }
            _ => {
                self.oracle.spend(Trick::Fail);
                self.blame(who);
                Step::Failed(Failure("as told"))
            }
        }
    }

    /// A register access, by a guest in its mapped window or by the driver.
    pub fn read(&mut self, offset: u64) -> u64 {
        match offset {
            VALUE => self.device.value,
            IRQ => u64::from(self.device.irq),
            MEMORY => self.device.memory,
            SCRATCH => self.device.scratch,
            _ => u64::MAX,
        }
    }

    pub fn write(&mut self, offset: u64, value: u64) {
        match offset {
            VALUE => self.device.value = value,
            DOORBELL => {
                let [Stream::Domain(who), Stream::Domain(other)] = self.targets() else {
                    return self.require(false, |m| {
                        format!("a job started with the streams at {:?}", m.targets())
                    });
                };
                self.require(who == other, |_| "a job between two domains".into());
                // One that starts while another runs ends together with it.
                self.executed.entry(who).or_default().push(value);
                self.device.job = Some(who);
            }
            IRQ => self.device.irq &= value == 0,
            RAISE => self.device.irq |= value != 0,
            MEMORY => self.device.memory = value,
            SCRATCH => self.device.scratch = value,
            DMA_OUT | DMA_IN => {
                let [Stream::Save(who), Stream::Save(_)] = self.targets() else {
                    return self.require(false, |m| {
                        format!("save DMA with the streams at {:?}", m.targets())
                    });
                };
                if offset == DMA_OUT {
                    self.areas.insert(who, self.device.memory);
                } else {
                    self.device.memory = self.areas.get(&who).copied().unwrap_or(0);
                }
            }
            RESET => {
                let scratch = self.device.scratch;
                self.device = Device::default();
                if self.is(Mutant::ResetLeavesScratch) {
                    self.device.scratch = scratch;
                }
            }
            _ => {}
        }
    }
}

/// The machine as the framework sees it.
pub struct Env(pub Shared);

impl Env {
    pub fn lock(&self) -> MutexGuard<'_, Machine> {
        self.0.lock().unwrap()
    }

    fn call(&self) -> MutexGuard<'_, Machine> {
        let mut m = self.lock();
        m.boundary();
        m
    }
}

impl Hardware for Env {
    fn read(&mut self, window: usize, offset: u64, _: Width) -> u64 {
        let mut guard = self.call();
        let m = &mut *guard;
        m.driver_access(window);
        m.read(offset)
    }

    fn write(&mut self, window: usize, offset: u64, _: Width, value: u64) {
        let mut guard = self.call();
        let m = &mut *guard;
        m.driver_access(window);
        m.write(offset, value);
        m.always();
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.lock().now)
    }
}

impl Machine {
    /// No register access for one while anything of another's is reachable.
    fn driver_access(&mut self, window: usize) {
        self.require(window == 0, |_| "no such window".into());
        let fine = match self.subject {
            Some((_, true)) => self.closed(),
            Some((who, false)) => {
                self.confined(who) && self.mapped.is_none_or(|mapped| mapped == who)
            }
            None => false,
        };
        self.require(fine, |m| {
            format!(
                "a register access for {:?} with the streams at {:?}, mapped for {:?}",
                m.subject,
                m.targets(),
                m.mapped
            )
        });
    }
}

impl Environment for Env {
    fn now(&self) -> Instant {
        let m = self.lock();
        let skew = u64::from(m.is(Mutant::SkewedClock) && m.subject.is_none() && m.masked);
        Instant::from_nanos(m.now + skew)
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        let mut guard = self.call();
        let m = &mut *guard;
        let deaf = m.is(Mutant::DeafTimer) && m.pending.is_some();
        if !deaf {
            m.timer = at.map(Instant::as_nanos);
        }
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        self
    }

    fn mask_interrupts(&mut self, masked: bool) {
        let mut guard = self.call();
        let m = &mut *guard;
        let owned = m.effective != Stream::Abort && m.pending.is_none();
        m.require(masked || owned, |_| "unmasked while nobody owns it".into());
        m.masked = masked;
    }

    fn interrupt_asserted(&mut self, _: usize) -> bool {
        self.call().device.irq
    }

    fn interrupts_settled(&mut self) -> bool {
        let mut guard = self.call();
        let m = &mut *guard;
        let who = m.stream_owner();
        let answered = m.answer(who, false) == Step::Done;
        answered && (!m.device.irq || m.is(Mutant::LeaksInterrupt))
    }

    fn map_windows(&mut self, who: VcoprocId) -> bool {
        let mut guard = self.call();
        let m = &mut *guard;
        m.require(m.mapped.is_none() && m.open_for(who), |m| {
            format!("windows mapped for {who}, streams at {:?}", m.targets())
        });
        if m.oracle.plays(Trick::Unplaced) {
            return false;
        }
        m.mapped = Some(who);
        true
    }

    fn unmap_windows(&mut self, who: VcoprocId) {
        let mut guard = self.call();
        let m = &mut *guard;
        m.require(m.mapped == Some(who), |m| {
            format!("unmapped for {who}, mapped for {:?}", m.mapped)
        });
        if !m.is(Mutant::KeepsWindows) {
            m.mapped = None;
        }
    }

    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        let mut guard = self.call();
        let m = &mut *guard;
        m.require(m.mapped.is_none(), |_| "streams moved under windows".into());
        if target != Stream::Abort {
            m.begin_anew();
            m.require(m.closed(), |m| {
                format!("{:?} to {target:?} without abort and sync", m.targets())
            });
        }
        let culprit = match target {
            Stream::Abort => m.stream_owner(),
            Stream::Save(who) | Stream::Domain(who) => Some(who),
        };
        let failing = m.fails_here();
        if failing || m.oracle.plays(Trick::Fail) {
            m.blame(culprit);
            return Err(IommuError::Hardware("as told"));
        }
        if !(m.is(Mutant::KeepsStreams) && target == Stream::Abort) {
            m.pending = Some(target);
        }
        m.always();
        Ok(())
    }

    fn sync_streams(&mut self) -> Step {
        let mut guard = self.call();
        let m = &mut *guard;
        let who = m.stream_owner();
        let answer = m.answer(who, true);
        if answer == Step::Done && !m.is(Mutant::SyncsEarly) {
            m.effective = m.pending.take().unwrap_or(m.effective);
        }
        answer
    }

    fn take_faults(&mut self) -> Option<Faults> {
        let mut guard = self.call();
        let m = &mut *guard;
        if m.oracle.plays(Trick::Again) {
            return None;
        }
        let records = core::mem::take(&mut m.records);
        Some(Faults {
            count: records.len() as u64,
            ..Faults::default()
        })
    }

    fn set_interrupt(&mut self, who: VcoprocId, index: usize, pending: bool) {
        let mut guard = self.call();
        let m = &mut *guard;
        let who = match m.is(Mutant::WrongLine) {
            true if pending => VcoprocId(who.0 % 2 + 1),
            _ => who,
        };
        m.require(index == 0, |_| "no such line".into());
        m.require(!pending || m.outstanding.contains(&who), |_| {
            format!("{who} gets an interrupt that isn't its own")
        });
        m.lines.insert(who, pending);
    }

    fn release_parked(&mut self, who: VcoprocId) {
        let mut guard = self.call();
        let m = &mut *guard;
        if !m.is(Mutant::NeverReleases) {
            m.released.insert(who);
        }
    }

    fn notify(&mut self, who: VcoprocId, event: Event) {
        let mut guard = self.call();
        let m = &mut *guard;
        match event {
            Event::IommuFault(faults) => *m.notified.entry(who).or_default() += faults.count,
            Event::Faulted(_) | Event::Quarantined(_) => {
                m.condemned.insert(who);
            }
        }
    }
}
