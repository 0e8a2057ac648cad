//! The trace: what the sharing framework did, event by event, on every CPU.
//!
//! Each CPU keeps its own events in a ring of its own ([`coproc_core::ring`]), so that CPUs that switch different coprocessors at
//! the same time don't wait for each other. Readers want one story: [`merge::Cursor`] goes through all rings in
//! the order of time, a bounded number of events at a time, while the rings go on turning.

pub mod merge;

use coproc_core::ring::Ring;
use coproc_core::trace::TraceEvent;

/// Events kept per CPU: a switch of a coprocessor makes a dozen.
pub const CAPACITY: usize = 2048;

/// Where events are read from: the rings of all CPUs.
pub trait Rings {
    /// How many there are.
    fn count(&self) -> usize;

    /// Reads a ring.
    fn read(&self, ring: usize, visit: &mut dyn FnMut(&Ring<TraceEvent>));
}

/// Events that all rings together have forgotten.
pub fn lost(rings: &dyn Rings) -> u64 {
    let mut lost = 0_u64;
    for ring in 0..rings.count() {
        rings.read(ring, &mut |ring| lost = lost.saturating_add(ring.lost()));
    }
    lost
}
