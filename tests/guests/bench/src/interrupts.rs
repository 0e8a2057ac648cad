//! Delivery of interrupts: from the instruction that causes one to the first of the handler.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_runtime::machine::{self, PHYSICAL_TIMER, TIMER, shift_phase, ticks};

const SPURIOUS: u32 = 1020;

/// Counter at the latest interrupt's arrival; 0: none since this was cleared.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static UNKNOWN: AtomicU64 = AtomicU64::new(0);
/// Ticks that the ends of interrupts took.
static ENDS: AtomicU64 = AtomicU64::new(0);
static DEVICE: AtomicU32 = AtomicU32::new(0);
static DEVICE_REGISTERS: AtomicU64 = AtomicU64::new(0);

/// What a row of interrupts took.
#[derive(Clone, Copy)]
pub struct Delivery {
    /// From cause to handler, summed up, in ticks.
    pub delivery: u64,
    /// The whole loops, acknowledgement and end of interrupt included, in ticks.
    pub round_trip: u64,
    /// The ends of interrupts alone (ICC_EOIR1_EL1), in ticks.
    pub ends: u64,
    /// Interrupts taken.
    pub taken: u64,
    /// Interrupts taken that nobody had asked for.
    pub unknown: u64,
}

/// The handler, called by the vector with the counter as it was on arrival.
#[unsafe(no_mangle)]
extern "C" fn bench_interrupt(arrival: u64) {
    let intid = machine::acknowledge();
    if intid >= SPURIOUS {
        UNKNOWN.fetch_add(1, Ordering::Relaxed);
        return;
    }
    if intid == TIMER {
        machine::stop_timer();
    } else if intid == PHYSICAL_TIMER {
        machine::mask_physical_timer();
    } else if intid == DEVICE.load(Ordering::Relaxed) {
        crate::device::acknowledge(DEVICE_REGISTERS.load(Ordering::Relaxed));
    } else if intid >= 16 && !crate::messages::take(intid) && !crate::gpio::take(intid) {
        UNKNOWN.fetch_add(1, Ordering::Relaxed);
    }
    let before = ticks();
    machine::end(intid);
    ENDS.fetch_add(ticks().wrapping_sub(before), Ordering::Relaxed);
    TAKEN.fetch_add(1, Ordering::Relaxed);
    ARRIVED.store(arrival, Ordering::Relaxed);
}

/// Interrupts since the last row that nobody had asked for.
pub fn unknown() -> u64 {
    UNKNOWN.load(Ordering::Relaxed)
}

/// Tells the handler which interrupt is the device's, and where its registers are.
pub fn set_device(intid: u32, registers: u64) {
    DEVICE_REGISTERS.store(registers, Ordering::Relaxed);
    DEVICE.store(intid, Ordering::Relaxed);
}

/// Causes one interrupt after the other and waits for each.
pub fn measure(repetitions: u64, mut cause: impl FnMut()) -> Delivery {
    let mut once = |n| {
        TAKEN.store(0, Ordering::Relaxed);
        UNKNOWN.store(0, Ordering::Relaxed);
        ENDS.store(0, Ordering::Relaxed);
        let mut delivery = 0u64;
        let start = ticks();
        for round in 0..n {
            ARRIVED.store(0, Ordering::Relaxed);
            shift_phase(round);
            let before = ticks();
            cause();
            let arrived = loop {
                let arrived = ARRIVED.load(Ordering::Relaxed);
                if arrived != 0 {
                    break arrived;
                }
            };
            delivery = delivery.wrapping_add(arrived.wrapping_sub(before));
        }
        Delivery {
            delivery,
            round_trip: ticks().wrapping_sub(start),
            ends: ENDS.load(Ordering::Relaxed),
            taken: TAKEN.load(Ordering::Relaxed),
            unknown: UNKNOWN.load(Ordering::Relaxed),
        }
    };
    once(16);
    once(repetitions)
}

/// The virtual timer, set to now.
pub fn timer(repetitions: u64) -> Delivery {
    measure(repetitions, || machine::start_timer(0))
}

/// SGI 1 to this CPU itself.
pub fn sgi_self(repetitions: u64) -> Delivery {
    measure(repetitions, || {
        machine::send_sgi(1 << 24 | 1);
    })
}

/// Sleeps for this many ticks.
pub fn sleep(ticks_long: u64) {
    ARRIVED.store(0, Ordering::Relaxed);
    machine::start_timer(ticks().wrapping_add(ticks_long));
    machine::wait_until(|| ARRIVED.load(Ordering::Relaxed) != 0);
}

/// Checks the physical timer: registers, an interrupt that ends a WFI no earlier than it should, and one that is due at once.
pub fn check_physical_timer() -> Result<(), &'static str> {
    const AHEAD: i32 = 100_000;
    for ahead in [AHEAD, 0, -AHEAD] {
        TAKEN.store(0, Ordering::Relaxed);
        let before = machine::physical_ticks();
        machine::start_physical_timer(ahead);
        machine::wait_until(|| TAKEN.load(Ordering::Relaxed) != 0);
        let after = machine::physical_ticks();
        let (control, compare, value) = machine::physical_timer();
        let set = before.wrapping_add_signed(i64::from(ahead));
        if control != 0b111 {
            return Err("CNTP_CTL_EL0 isn't enabled, masked and met");
        }
        if compare < set || compare > after {
            return Err(
                "CNTP_CVAL_EL0 isn't what was set by CNTP_TVAL_EL0, or the interrupt came early",
            );
        }
        if value >> 32 != 0 || value as u32 as i32 >= 0 {
            return Err(
                "CNTP_TVAL_EL0 of a timer that fired isn't negative, or is wider than 32 bits",
            );
        }
    }
    // Masked and met, it stays silent.
    sleep(u64::from(AHEAD.unsigned_abs()));
    match TAKEN.load(Ordering::Relaxed) {
        2 => Ok(()),
        _ => Err("a masked timer interrupts, or the virtual one doesn't"),
    }
}
