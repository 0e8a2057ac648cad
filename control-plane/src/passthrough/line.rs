//! Which of the domain's interrupts a physical one is now.
//!
//! A device of the tree has one for good. A function's is INTx's or a message's as the domain programs it, or nobody's for a
//! while: masked, no bus mastering, an address where there is no frame. What arrives then is *held*: it stays active, so it
//! can't arrive again, until there is somebody, and is then deactivated. If the function still asserts its level the interrupt comes
//! again at once, and is a message that was masked; if not it was one that went astray, or was acknowledged by a driver that polls.
//!
//! Interrupt and programming may be on two CPUs at once: both write their half first and look at the other's then, so one of
//! the two sees it.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// No interrupt.
const NOBODY: u32 = 0;

/// The way of one physical interrupt.
#[derive(Debug, Default)]
pub struct Line {
    target: AtomicU32,
    held: AtomicBool,
}

/// What becomes of a physical interrupt that arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// It's linked to this INTID of the domain.
    Linked(u32),
    /// It stays active for nobody.
    Held,
    /// It's deactivated: there was nobody, and there is somebody now, who gets it if it comes again.
    Again,
}

impl Line {
    /// Leads nowhere.
    pub const fn new() -> Self {
        Self {
            target: AtomicU32::new(NOBODY),
            held: AtomicBool::new(false),
        }
    }

    /// The physical interrupt arrived.
    #[inline(always)]
    pub fn arrived(&self) -> Arrival {
        match self.target.load(Ordering::SeqCst) {
            NOBODY => {
                self.held.store(true, Ordering::SeqCst);
                if self.let_go() {
                    Arrival::Again
                } else {
                    Arrival::Held
                }
            }
            intid => Arrival::Linked(intid),
        }
    }

    /// Leads to this INTID from now on. Returns whether the physical interrupt was held, and is to be deactivated.
    pub fn aim(&self, target: Option<u32>) -> bool {
        self.target
            .store(target.unwrap_or(NOBODY), Ordering::SeqCst);
        self.let_go()
    }

    /// Out of reset: leads nowhere, and holds nothing.
    pub fn reset(&self) {
        self.target.store(NOBODY, Ordering::SeqCst);
        self.held.store(false, Ordering::SeqCst);
    }

    fn let_go(&self) -> bool {
        self.target.load(Ordering::SeqCst) != NOBODY && self.held.swap(false, Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn what_leads_nowhere_is_held_until_it_leads_somewhere() {
        let line = Line::new();
        assert!(!line.aim(Some(40)));
        assert_eq!(line.arrived(), Arrival::Linked(40));
        assert!(!line.aim(None));
        assert_eq!(line.arrived(), Arrival::Held);
        assert!(!line.aim(None), "still nobody");
        assert!(line.aim(Some(80)));
        assert!(!line.aim(Some(81)), "let go already");
        assert_eq!(line.arrived(), Arrival::Linked(81));
        assert!(!line.aim(None));
        assert_eq!(line.arrived(), Arrival::Held);
        line.reset();
        assert!(!line.aim(Some(80)), "forgotten");
    }

    /// However an arrival and a change meet, the interrupt is linked, or exactly one of the two lets it go: it never stays active for
    /// nobody, and is never deactivated twice.
    #[test]
    fn a_race_neither_loses_nor_doubles() {
        for _ in 0..2_000 {
            let line = Line::new();
            let (arrival, released) = std::thread::scope(|scope| {
                let arrival = scope.spawn(|| line.arrived());
                let released = line.aim(Some(80));
                (arrival.join().unwrap(), released)
            });
            match arrival {
                Arrival::Linked(intid) => assert!(intid == 80 && !released),
                Arrival::Again => assert!(!released),
                Arrival::Held => assert!(released),
            }
        }
    }
}
