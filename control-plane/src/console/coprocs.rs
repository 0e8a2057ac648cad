//! What the console tells about coprocs, their vcoprocs, and what these did.

use crate::trace::merge::Told;
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Settings, Spread};
use coproc_core::driver::WorstCase;
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::time::{Duration, Instant};
use coproc_core::trace::TraceKind;
use core::fmt;

/// One physical coprocessor. elapsed = Σ charge + overhead + idle + fault.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoprocReport {
    /// Its id.
    pub id: CoprocId,
    /// Name of its driver.
    pub driver: &'static str,
    /// Name of its scheduling algorithm.
    pub scheduler: &'static str,
    /// State of its switch machine, one lower-case word.
    pub state: &'static str,
    /// Whose context it holds.
    pub current: Option<VcoprocId>,
    /// Switches so far.
    pub switches: u64,
    /// Times that the device answered "not yet" when asked to stop.
    pub refusals: u64,
    /// Time since it came under management.
    pub elapsed: Duration,
    /// Sum of the vcoprocs' charges.
    pub charge: Duration,
    /// Saving, scrubbing, restoring, mapping.
    pub overhead: Duration,
    /// Nobody wanted it.
    pub idle: Duration,
    /// Aborting, resetting, quarantined.
    pub fault: Duration,
    /// Shortest switch, zero before the first.
    pub switch_min: Duration,
    /// Mean switch.
    pub switch_mean: Duration,
    /// Longest switch.
    pub switch_max: Duration,
    /// What its scheduling is set to.
    pub settings: Settings,
    /// The longest times that its driver promises.
    pub declared: WorstCase,
    /// The longest times measured.
    pub measured: WorstCase,
}

impl CoprocReport {
    /// The line about its settings.
    pub fn settings_line(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            let Settings {
                slice,
                refusal_bound,
                starvation_bound,
            } = self.settings;
            write!(f, "settings coproc={}", self.id.0)?;
            write_time(f, "slice", Some(slice))?;
            write_time(f, "refusal_bound", Some(refusal_bound))?;
            write_time(f, "starvation_bound", starvation_bound)
        })
    }

    /// The line about its longest times: promised, and measured.
    pub fn worst_line(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            write!(f, "worst coproc={}", self.id.0)?;
            let (d, m) = (&self.declared, &self.measured);
            for (key, time) in [
                ("declared_refusal", d.refusal),
                ("measured_refusal", m.refusal),
                ("declared_stop", d.stop),
                ("measured_stop", m.stop),
                ("declared_save", d.save),
                ("measured_save", m.save),
                ("declared_restore", d.restore),
                ("measured_restore", m.restore),
            ] {
                write_time(f, key, Some(time))?;
            }
            Ok(())
        })
    }
}

/// ` key_ns=…`.
fn write_time(f: &mut fmt::Formatter<'_>, key: &str, time: Option<Duration>) -> fmt::Result {
    match time {
        Some(time) => write!(f, " {key}_ns={}", time.as_nanos()),
        None => write!(f, " {key}_ns=-"),
    }
}

impl fmt::Display for CoprocReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            driver,
            scheduler,
            state,
            switches,
            refusals,
            ..
        } = self;
        write!(
            f,
            "coproc id={} driver={driver} scheduler={scheduler} state={state}",
            id.0
        )?;
        match self.current {
            Some(current) => write!(f, " current={current}")?,
            None => f.write_str(" current=-")?,
        }
        write!(f, " switches={switches} refusals={refusals}")?;
        let times = [
            ("elapsed", self.elapsed),
            ("charge", self.charge),
            ("overhead", self.overhead),
            ("idle", self.idle),
            ("fault", self.fault),
            ("switch_min", self.switch_min),
            ("switch_mean", self.switch_mean),
            ("switch_max", self.switch_max),
        ];
        times
            .iter()
            .try_for_each(|(key, time)| write!(f, " {key}_ns={}", time.as_nanos()))
    }
}

/// State of a vcoproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VcoprocState {
    /// The device holds its context.
    Current,
    /// Waits for its turn.
    Queued,
    /// Wants nothing.
    Asleep,
    /// Taken off the device for good after a fault.
    Faulted,
}

impl fmt::Display for VcoprocState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Current => "current",
            Self::Queued => "queued",
            Self::Asleep => "asleep",
            Self::Faulted => "faulted",
        })
    }
}

/// One domain's instance of a coprocessor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VcoprocReport {
    /// Its id.
    pub id: VcoprocId,
    /// The physical coprocessor.
    pub coproc: CoprocId,
    /// The domain.
    pub domain: DomainId,
    /// Its state.
    pub state: VcoprocState,
    /// Time charged to it.
    pub charge: Duration,
    /// Sum of the charges of all vcoprocs of the coproc at the same instant; the share's divisor.
    pub charge_total: Duration,
    /// Overhead it caused.
    pub overhead: Duration,
    /// Time past its slices' ends because the device refused; part of `charge`.
    pub refused: Duration,
    /// Slices it ran.
    pub slices: u64,
    /// Exits that mapped its windows.
    pub touches: u64,
    /// Most exits by register accesses in one slice while current.
    pub max_exits_per_slice: u64,
    /// Accesses emulated while it wasn't current.
    pub emulated: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// IOMMU faults it caused.
    pub iommu_faults: u64,
    /// Device address of the last of them.
    pub last_fault_address: Option<u64>,
    /// What the algorithm was told of it; `None` if it is no longer scheduled.
    pub parameters: Option<Parameters>,
    /// Half of its waits were no longer than this.
    pub wait_p50: Duration,
    /// 99 of 100.
    pub wait_p99: Duration,
    /// None was longer.
    pub wait_max: Duration,
}

impl VcoprocReport {
    /// Share of the coproc's charged time in hundredths of a percent, rounded to nearest.
    pub fn share(&self) -> u64 {
        let total = u128::from(self.charge_total.as_nanos());
        let part = u128::from(self.charge.as_nanos()).saturating_mul(10_000);
        let rounded = part
            .saturating_add(total >> 1)
            .checked_div(total)
            .unwrap_or(0);
        u64::try_from(rounded).unwrap_or(u64::MAX)
    }
}

impl fmt::Display for VcoprocReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            coproc,
            domain,
            state,
            ..
        } = self;
        let share = self.share();
        write!(
            f,
            "vcoproc id={id} coproc={} domain={domain} state={state}",
            coproc.0
        )?;
        write!(
            f,
            " charge_ns={} share={}.{:02}",
            self.charge.as_nanos(),
            share / 100,
            share % 100
        )?;
        write!(f, " overhead_ns={}", self.overhead.as_nanos())?;
        write!(f, " refused_ns={}", self.refused.as_nanos())?;
        let counts = [
            ("slices", self.slices),
            ("touches", self.touches),
            ("max_exits_per_slice", self.max_exits_per_slice),
            ("emulated", self.emulated),
            ("interrupts", self.interrupts),
            ("iommu_faults", self.iommu_faults),
        ];
        counts
            .iter()
            .try_for_each(|(key, count)| write!(f, " {key}={count}"))?;
        match self.last_fault_address {
            Some(address) => write!(f, " last_fault_address={address:#x}")?,
            None => f.write_str(" last_fault_address=-")?,
        }
        match self.parameters {
            Some(Parameters {
                weight, priority, ..
            }) => write!(f, " weight={weight} priority={priority}")?,
            None => f.write_str(" weight=- priority=-")?,
        }
        let reserved =
            |of: fn(&Parameters) -> Option<Duration>| self.parameters.as_ref().and_then(of);
        write_time(f, "budget", reserved(|p| p.budget))?;
        write_time(f, "period", reserved(|p| p.period))?;
        write_time(f, "wait_p50", Some(self.wait_p50))?;
        write_time(f, "wait_p99", Some(self.wait_p99))?;
        write_time(f, "wait_max", Some(self.wait_max))
    }
}

/// How long something took for one vcoproc, over many times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HistogramReport {
    /// The physical coprocessor.
    pub coproc: CoprocId,
    /// Whose times.
    pub vcoproc: VcoprocId,
    /// Of what: `switch`, `refusal` or `wait`.
    pub of: &'static str,
    /// The times.
    pub spread: Spread,
}

impl fmt::Display for HistogramReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            coproc,
            vcoproc,
            of,
            spread,
        } = self;
        write!(
            f,
            "histogram coproc={} vcoproc={vcoproc} of={of} count={}",
            coproc.0, spread.count
        )?;
        for (key, time) in [
            ("total", spread.total),
            ("min", spread.min),
            ("max", spread.max),
        ] {
            write_time(f, key, Some(time))?;
        }
        f.write_str(" below_us=")?;
        let mut separator = "";
        for (n, count) in spread.buckets.iter().enumerate() {
            if *count == 0 {
                continue;
            }
            // The last one has no bound.
            if n.saturating_add(1) < spread.buckets.len() {
                write!(f, "{separator}{}:{count}", Spread::bound(n).as_micros())?;
            } else {
                write!(f, "{separator}more:{count}")?;
            }
            separator = ",";
        }
        if separator.is_empty() {
            f.write_str("-")?;
        }
        Ok(())
    }
}

/// One event of the trace.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cpu, number, event } = self;
        write!(
            f,
            "event at_ns={} cpu={cpu} number={number} coproc={}",
            event.at.as_nanos(),
            event.coproc.0
        )?;
        match event.vcoproc {
            Some(vcoproc) => write!(f, " vcoproc={vcoproc}")?,
            None => f.write_str(" vcoproc=-")?,
        }
        write!(f, " epoch={} what=", event.epoch.0)?;
        match event.kind {
            TraceKind::Transition { from, to, reason } => {
                let reason = reason.map_or("-", |reason| reason.name());
                let spent = event.spent.as_nanos();
                write!(
                    f,
                    "transition from={from} to={to} spent_ns={spent} reason={reason}"
                )
            }
            TraceKind::Attached => f.write_str("attached"),
            TraceKind::Detaching => f.write_str("detaching"),
            TraceKind::Detached => f.write_str("detached"),
            TraceKind::Parameters => f.write_str("parameters"),
            TraceKind::Tuned => f.write_str("settings"),
            TraceKind::Algorithm(name) => write!(f, "scheduler scheduler={name}"),
            TraceKind::Failed(why) => write!(f, "failed why=\"{why}\""),
            TraceKind::Faulted(why) => write!(f, "faulted why=\"{why}\""),
            TraceKind::Quarantined(why) => write!(f, "quarantined why=\"{why}\""),
            TraceKind::IommuFaults(count) => write!(f, "iommu-faults count={count}"),
            TraceKind::Interrupt(index) => write!(f, "interrupt index={index}"),
            TraceKind::Drained => f.write_str("drained"),
            TraceKind::LateInterrupt(index) => write!(f, "late-interrupt index={index}"),
            TraceKind::SpuriousInterrupt(index) => write!(f, "spurious-interrupt index={index}"),
        }
    }
}

/// One residence of a vcoproc on its coproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SliceReport {
    /// The physical coprocessor.
    pub coproc: CoprocId,
    /// Who held it.
    pub vcoproc: VcoprocId,
    /// Its domain.
    pub domain: DomainId,
    /// From this time (step 7 of the switch).
    pub from: Instant,
    /// To this one (quiet); for the slice that is still running, now.
    pub to: Instant,
}

impl fmt::Display for SliceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            coproc,
            vcoproc,
            domain,
            from,
            to,
        } = self;
        let (from, to) = (from.as_nanos(), to.as_nanos());
        write!(
            f,
            "slice coproc={} vcoproc={vcoproc} domain={domain}",
            coproc.0
        )?;
        write!(f, " from_ns={from} to_ns={to}")
    }
}

/// How far a coprocessor's record is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RecordReport {
    /// The physical coprocessor.
    pub coproc: CoprocId,
    /// Bytes of text so far.
    pub bytes: u64,
    /// Lines so far.
    pub lines: u64,
    /// Inputs that came after the record was full.
    pub lost: u64,
}

impl fmt::Display for RecordReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            coproc,
            bytes,
            lines,
            lost,
        } = self;
        write!(
            f,
            "record coproc={} bytes={bytes} lines={lines} lost={lost}",
            coproc.0
        )
    }
}
