//! Failures on demand, to show that whatever fails half-way leaves nothing behind. Never in a build that ships: feature `fault-injection`.
//!
//! One counter for each kind, counted down by every call that could fail; the one that reaches zero does.

use core::sync::atomic::{AtomicU32, Ordering};

/// What can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Frames, translation tables, address spaces, VMIDs.
    Allocation,
    /// Calls of coprocessor drivers that can fail.
    Driver,
}

static ALLOCATION: AtomicU32 = AtomicU32::new(0);
static DRIVER: AtomicU32 = AtomicU32::new(0);

fn counter(kind: Kind) -> &'static AtomicU32 {
    match kind {
        Kind::Allocation => &ALLOCATION,
        Kind::Driver => &DRIVER,
    }
}

/// Lets the `nth` call from now on fail; 0: none. Returns how many calls were missing until the one that was to fail before.
pub fn arm(kind: Kind, nth: u32) -> u32 {
    counter(kind).swap(nth, Ordering::Relaxed)
}

/// Whether this call is to fail.
pub fn fails(kind: Kind) -> bool {
    let before = counter(kind).try_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
        left.checked_sub(1)
    });
    before == Ok(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nth_fails_and_no_other() {
        arm(Kind::Driver, 3);
        let answers: [bool; 6] = core::array::from_fn(|_| fails(Kind::Driver));
        assert_eq!(answers, [false, false, true, false, false, false]);
        assert_eq!(arm(Kind::Driver, 9), 0);
        assert!(!fails(Kind::Driver));
        assert_eq!(arm(Kind::Driver, 0), 8);
    }
}
