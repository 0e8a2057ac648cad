//! One line for each answer.

use core::fmt::{Display, Write as _};
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use guest_runtime::machine::Console;

static DOMAIN: AtomicBool = AtomicBool::new(false);
static CHECKS: AtomicU32 = AtomicU32::new(0);
static WRONG: AtomicU32 = AtomicU32::new(0);

fn count(right: bool) {
    CHECKS.fetch_add(1, Ordering::Relaxed);
    if !right {
        WRONG.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the architecture fixes.
pub fn check(name: impl Display, got: u64, expected: u64) {
    count(got == expected);
    let _ = writeln!(
        Console,
        "check name={name} got={got:#x} expected={expected:#x}"
    );
}

/// Says that this is a domain.
pub fn in_a_domain() {
    DOMAIN.store(true, Ordering::Relaxed);
}

/// What a domain is promised, and other machines needn't do.
pub fn own(name: impl Display, got: u64, expected: u64) {
    if !DOMAIN.load(Ordering::Relaxed) {
        return open(name, got, "promised to domains only");
    }
    count(got == expected);
    let _ = writeln!(
        Console,
        "own name={name} got={got:#x} expected={expected:#x}"
    );
}

/// What the architecture leaves to the implementation.
pub fn open(name: impl Display, got: u64, reason: &str) {
    let _ = writeln!(Console, "open name={name} got={got:#x} reason={reason}");
}

/// The end.
pub fn done() {
    let (checks, wrong) = (
        CHECKS.load(Ordering::Relaxed),
        WRONG.load(Ordering::Relaxed),
    );
    let _ = writeln!(Console, "done checks={checks} wrong={wrong}");
}
