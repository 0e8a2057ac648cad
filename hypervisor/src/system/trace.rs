//! The trace of the running system: one ring for each CPU.
//!
//! Each ring has a lock because the console reads it from whichever CPU it runs on; nobody else ever waits for it.

use crate::arch::cpu;
use alloc::vec::Vec;
use coproc_core::ring::Ring;
use coproc_core::trace::TraceEvent;
use hypervisor::trace::{CAPACITY, Rings};
use spin::{Mutex, Once};

static RINGS: Once<Vec<Mutex<Ring<TraceEvent>>>> = Once::new();

/// Keeps events from now on, of this many CPUs.
pub fn start(cpus: usize) {
    RINGS.call_once(|| {
        let ring = || Ring::new(CAPACITY, TraceEvent::EMPTY);
        let ring = || ring().unwrap_or_else(Ring::none);
        (0..cpus).map(|_| Mutex::new(ring())).collect()
    });
}

/// Keeps an event of this CPU.
pub fn keep(event: &TraceEvent) {
    let rings = RINGS.get().map_or(&[][..], Vec::as_slice);
    if let Some(ring) = rings.get(cpu::current().index()) {
        ring.lock().push(*event);
    }
}

/// All rings, for reading.
pub struct All;

impl Rings for All {
    fn count(&self) -> usize {
        RINGS.get().map_or(0, Vec::len)
    }

    fn read(&self, ring: usize, visit: &mut dyn FnMut(&Ring<TraceEvent>)) {
        if let Some(ring) = RINGS.get().and_then(|rings| rings.get(ring)) {
            visit(&ring.lock());
        }
    }
}
