//! A mark that there is something to look after, set by whoever leaves it and taken by whoever looks.
//!
//! Chosen over a count or a lock because looking is rare and asking is on every CPU's way to its guest: asking is one load. What is left
//! while somebody looks, at what he has passed already, must not be forgotten: the mark is taken *before* the look, never after.

use core::sync::atomic::{AtomicBool, Ordering};

/// See the module.
#[derive(Debug, Default)]
pub struct Reminder(AtomicBool);

impl Reminder {
    /// Nothing is to be looked after.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// There is something to look after; it must be there already.
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether there is.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Looks after it. `look` answers whether it leaves something.
    pub fn attend(&self, look: impl FnOnce() -> bool) {
        // A swap, no store: it reads what another CPU's `set` wrote, so that `look` sees what was left before it.
        self.0.swap(false, Ordering::SeqCst);
        if look() {
            self.set();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::AtomicU32;

    extern crate std;

    #[test]
    fn it_stays_while_something_is_left() {
        let reminder = Reminder::new();
        assert!(!reminder.is_set());
        reminder.set();
        reminder.attend(|| true);
        assert!(reminder.is_set());
        reminder.attend(|| false);
        assert!(!reminder.is_set());
    }

    #[test]
    fn what_comes_during_a_look_is_not_forgotten() {
        let reminder = Reminder::new();
        reminder.set();
        reminder.attend(|| {
            reminder.set();
            false
        });
        assert!(reminder.is_set());
    }

    /// Whatever was left before the mark was set is seen by the last look.
    #[test]
    fn two_cpus_leave_and_look() {
        const LEFT: u32 = 100_000;
        let (reminder, left, seen) = (Reminder::new(), AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let leaver = scope.spawn(|| {
                for _ in 0..LEFT {
                    left.fetch_add(1, Ordering::Relaxed);
                    reminder.set();
                }
            });
            while !leaver.is_finished() || reminder.is_set() {
                reminder.attend(|| {
                    seen.store(left.load(Ordering::Relaxed), Ordering::Relaxed);
                    false
                });
            }
        });
        assert_eq!(seen.into_inner(), LEFT);
    }
}
