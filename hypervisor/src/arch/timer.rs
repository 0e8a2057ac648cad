//! The system counter and EL2's own timer.
//!
//! This is the only place where ticks become time.

use super::registers::{CNTFRQ_EL0, CNTPCT_EL0, isb, write};
use coproc_core::time::Instant;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::physical_timer::virtual_deadline;
use tock_registers::interfaces::Readable;

static FREQUENCY: AtomicU64 = AtomicU64::new(0);

/// Ticks to nanoseconds, exact up to rounding down.
#[inline]
fn nanoseconds(ticks: u64, frequency: u64) -> u64 {
    let frequency = frequency.max(1);
    let seconds = ticks / frequency;
    let rest = ticks % frequency;
    seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(rest * 1_000_000_000 / frequency)
}

/// Nanoseconds to ticks, rounded up so that a timer never fires early.
fn ticks(nanoseconds: u64, frequency: u64) -> u64 {
    let seconds = nanoseconds / 1_000_000_000;
    let rest = nanoseconds % 1_000_000_000;
    seconds
        .saturating_mul(frequency)
        .saturating_add((rest * frequency).div_ceil(1_000_000_000))
}

/// Reads the counter's frequency; once per CPU. Stops this CPU's EL2 timer.
pub fn initialise() {
    FREQUENCY.store(CNTFRQ_EL0.get(), Ordering::Relaxed);
    write!("cnthp_ctl_el2", 0);
    // EL1 uses the physical counter freely; its physical timer traps and is emulated.
    write!("cnthctl_el2", 0b01);
    isb(); // in force before a guest runs
}

/// Now.
#[inline]
pub fn now() -> Instant {
    isb(); // the counter must not be read ahead of what precedes
    Instant::from_nanos(nanoseconds(
        CNTPCT_EL0.get(),
        FREQUENCY.load(Ordering::Relaxed),
    ))
}

/// The counter itself, in ticks: what a domain's virtual counter starts from.
pub fn counter() -> u64 {
    isb(); // not read ahead of what precedes
    CNTPCT_EL0.get()
}

/// The instant at which the counter has this value.
#[inline]
pub fn instant(counter: u64) -> Instant {
    Instant::from_nanos(nanoseconds(counter, FREQUENCY.load(Ordering::Relaxed)))
}

/// Arms this CPU's EL2 timer, or stops it.
pub fn arm(at: Option<Instant>) {
    match at {
        Some(at) => {
            write!(
                "cnthp_cval_el2",
                ticks(at.as_nanos(), FREQUENCY.load(Ordering::Relaxed))
            );
            write!("cnthp_ctl_el2", 1);
        }
        None => write!("cnthp_ctl_el2", 0),
    }
    isb(); // the comparator is set before the interrupt line is looked at again
}

/// The instant at which the loaded guest's virtual timer fires, if it is on and unmasked.
pub fn guest_deadline(control: u64, compare: u64, offset: u64) -> Option<Instant> {
    virtual_deadline(control, compare, offset).map(instant)
}
