//! Everything that can be asked about a coprocessor, as one value.
//!
//! The management module shows it, tests compare it. It is a copy: nothing in it keeps the coprocessor locked.

use alloc::vec::Vec;

use super::Coproc;
use super::ledger::Totals;
use super::stage::Stage;
use super::vcoproc::Vcoproc;
use crate::address::DeviceAddress;
use crate::driver::WorstCase;
use crate::id::{CoprocId, DomainId, VcoprocId};
use crate::time::{Duration, Instant};

/// Buckets of a [`Spread`]: the n-th counts spans below 2ⁿ µs, the last one all longer ones too.
pub const BUCKETS: usize = 32;

/// How long something took, over many times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spread {
    /// How many times.
    pub count: u64,
    /// Sum.
    pub total: Duration,
    /// Shortest; zero if there were none.
    pub min: Duration,
    /// Longest.
    pub max: Duration,
    /// Histogram by powers of two of microseconds.
    pub buckets: [u64; BUCKETS],
}

impl Spread {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        count: 0,
        total: Duration::ZERO,
        min: Duration::ZERO,
        max: Duration::ZERO,
        buckets: [0; BUCKETS],
    };

    /// Counts one.
    #[inline(always)]
    pub fn record(&mut self, span: Duration) {
        self.min = if self.count == 0 {
            span
        } else {
            self.min.min(span)
        };
        self.max = self.max.max(span);
        self.count = self.count.saturating_add(1);
        self.total = self.total.saturating_add(span);
        let bits = u64::BITS.saturating_sub(span.as_micros().leading_zeros()) as usize;
        let last = BUCKETS.saturating_sub(1);
        if let Some(bucket) = self.buckets.get_mut(bits.min(last)) {
            *bucket = bucket.saturating_add(1);
        }
    }

    /// Counts all of `other`, too.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.min = if self.count == 0 {
            other.min
        } else {
            self.min.min(other.min)
        };
        self.max = self.max.max(other.max);
        self.count = self.count.saturating_add(other.count);
        self.total = self.total.saturating_add(other.total);
        for (bucket, more) in self.buckets.iter_mut().zip(other.buckets) {
            *bucket = bucket.saturating_add(more);
        }
    }

    /// The longest that the n-th bucket counts, rounded up: 2ⁿ µs; the last one is open.
    pub const fn bound(bucket: usize) -> Duration {
        Duration::from_micros(1_u64.wrapping_shl(bucket as u32))
    }

    /// A span that at least `thousandths` of all don't exceed: the bound of the bucket that holds that quantile, but never more than the longest.
    /// Zero if there were none.
    pub fn quantile(&self, thousandths: u64) -> Duration {
        let all = u128::from(self.count);
        let rank = all
            .saturating_mul(u128::from(thousandths))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0_u128;
        for (n, bucket) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(u128::from(*bucket));
            if seen >= rank && n.saturating_add(1) < BUCKETS {
                return Self::bound(n).min(self.max);
            }
        }
        self.max
    }

    /// The mean; zero if there were none.
    pub fn mean(&self) -> Duration {
        let mean = self.total.as_nanos().checked_div(self.count);
        Duration::from_nanos(mean.unwrap_or(0))
    }
}

/// How long things took for one vcoproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Spreads {
    /// Switches to it: from the device being quiet (or from idle) to its first possible touch.
    pub switch: Spread,
    /// Refusals at the ends of its slices that were refused at all: from the end to quiet, or to force.
    pub refusal: Spread,
    /// Waits: from having work, or from its slice's end with work left, to its first possible touch.
    pub wait: Spread,
}

impl Spreads {
    /// Nothing yet.
    pub const EMPTY: Self = Self {
        switch: Spread::EMPTY,
        refusal: Spread::EMPTY,
        wait: Spread::EMPTY,
    };
}

/// What was counted for one vcoproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Slices, renewed ones included.
    pub slices: u64,
    /// Times that its context was put into the device.
    pub switches: u64,
    /// Exits that mapped the direct windows.
    pub touches: u64,
    /// Most exits by accesses of the current one to direct windows in one slice.
    pub max_exits: u64,
    /// Accesses answered by the driver, from the saved context or for always-trapped registers.
    pub emulated: u64,
    /// Accesses that had to wait until current.
    pub parked: u64,
    /// Doorbells queued while not current.
    pub queued: u64,
    /// Physical interrupts passed on.
    pub interrupts: u64,
    /// Times that the device answered "not yet" when asked to stop.
    pub refusals: u64,
    /// Time from slice end to quiet, when it refused; part of its charge.
    pub refused: Duration,
    /// Faults that the IOMMU recorded (a lower bound if it lost some).
    pub iommu_faults: u64,
    /// Device address of the last one.
    pub last_fault: Option<DeviceAddress>,
    /// Whether the IOMMU's queue overflowed while it had the device.
    pub faults_lost: bool,
}

/// What one vcoproc is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// It has the device, or is on its way in or out.
    Current,
    /// It has work and waits for its turn.
    Queued,
    /// It has no work.
    Asleep,
    /// It lost the device for good.
    Faulted(&'static str),
    /// It is being detached.
    Detaching,
}

/// One vcoproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VcoprocReport {
    /// Which.
    pub id: VcoprocId,
    /// Its domain.
    pub domain: DomainId,
    /// What it is doing.
    pub condition: Condition,
    /// Time that it had the device.
    pub charge: Duration,
    /// Switch time that it caused.
    pub overhead: Duration,
    /// The rest.
    pub counters: Counters,
}

/// One coprocessor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// Which.
    pub id: CoprocId,
    /// Its driver.
    pub driver: &'static str,
    /// Its algorithm.
    pub algorithm: &'static str,
    /// What it is doing.
    pub state: &'static str,
    /// Whose context is in the device, or on its way in or out.
    pub holder: Option<VcoprocId>,
    /// Why it is quarantined, if it is.
    pub quarantined: Option<&'static str>,
    /// Where the time went.
    pub time: Totals,
    /// Contexts put into the device.
    pub switches: u64,
    /// From one vcoproc's quiet (or from idle) to the next one's first possible touch.
    pub switch_time: Spread,
    /// Refusals of all, detached ones included.
    pub refusals: u64,
    /// Devices stopped by force.
    pub aborts: u64,
    /// Physical interrupts that came when nobody could be their owner: masked, and left to the context that was on its way out.
    pub late_interrupts: u64,
    /// Physical interrupts that the device didn't assert any more.
    pub spurious_interrupts: u64,
    /// IOMMU faults whose vcoproc is detached, and times that the records could not be read to the end.
    pub unattributed_faults: u64,
    /// What the driver's author promises.
    pub declared: WorstCase,
    /// The longest measured.
    pub measured: WorstCase,
    /// Slices that the trace forgot.
    pub slices_lost: u64,
    /// The vcoprocs, by id.
    pub vcoprocs: Vec<VcoprocReport>,
}

impl Coproc {
    /// Everything that can be asked about the coprocessor.
    pub fn report(&self, now: Instant) -> Report {
        let time = self.ledger.at(now);
        let mut switch_time = self.switch_time_gone;
        for v in &self.vcoprocs {
            switch_time.merge(&v.spreads.switch);
        }
        let vcoprocs = self
            .vcoprocs
            .iter()
            .map(|v| {
                let account = time.of(v.id);
                VcoprocReport {
                    id: v.id,
                    domain: v.domain,
                    condition: self.condition(v),
                    charge: account.charge,
                    overhead: account.overhead,
                    counters: v.counters,
                }
            })
            .collect();
        Report {
            id: self.id,
            driver: self.description.name,
            algorithm: self.algorithm.name(),
            state: self.stage.state(),
            holder: self.holder,
            quarantined: (self.stage == Stage::Quarantined).then_some(self.why),
            time,
            switches: switch_time.count,
            switch_time,
            refusals: self.refusals,
            aborts: self.aborts,
            late_interrupts: self.late_interrupts,
            spurious_interrupts: self.spurious_interrupts,
            unattributed_faults: self.unattributed_faults,
            declared: self.description.worst_case,
            measured: self.measured,
            slices_lost: self.timeline.lost(),
            vcoprocs,
        }
    }

    /// How long things took for one vcoproc, while it is attached.
    pub fn spreads(&self, who: VcoprocId) -> Option<&Spreads> {
        self.find(who).map(|v| &v.spreads)
    }

    fn condition(&self, v: &Vcoproc) -> Condition {
        if v.detaching {
            Condition::Detaching
        } else if let Some(why) = v.faulted {
            Condition::Faulted(why)
        } else if self.holder == Some(v.id) && self.stage != Stage::Idle {
            Condition::Current
        } else if v.awake {
            Condition::Queued
        } else {
            Condition::Asleep
        }
    }
}
