//! Checks of a PL061 (Arm DDI 0190) that domains share: each finds only its own registers, and has only its own interrupts.
//!
//! All pins that it uses are outputs and sensitive to a high level, so that it raises its interrupts itself. Measures nothing.

use crate::interrupts;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use guest_runtime::machine::{self, Console, read, ticks, write};
use guest_runtime::tree::Tree;

const DATA: u64 = 0x3fc;
const DIRECTION: u64 = 0x400;
const SENSE: u64 = 0x404;
const BOTH: u64 = 0x408;
const EVENT: u64 = 0x40c;
const ENABLE: u64 = 0x410;
const RAW: u64 = 0x414;
const MASKED: u64 = 0x418;
const CLEAR: u64 = 0x41c;
const IDENTITY: u64 = 0xfe0;

static REGISTERS: AtomicU64 = AtomicU64::new(0);
static INTID: AtomicU32 = AtomicU32::new(0);
static COUNT: AtomicU32 = AtomicU32::new(0);
/// All status bits that the handler found.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// Interrupts without a status bit.
static EMPTY: AtomicU32 = AtomicU32::new(0);

/// The handler's part: whether it is this interrupt.
pub fn take(intid: u32) -> bool {
    if intid != INTID.load(Ordering::Relaxed) {
        return false;
    }
    let registers = REGISTERS.load(Ordering::Relaxed);
    let status = read(registers + MASKED);
    // Pin down, then what is remembered of it.
    write(registers + (u64::from(status & 0xff) << 2), 0);
    write(registers + CLEAR, status);
    SEEN.fetch_or(status, Ordering::Relaxed);
    let counter = if status == 0 { &EMPTY } else { &COUNT };
    counter.fetch_add(1, Ordering::Relaxed);
    true
}

fn wait_for(done: impl Fn() -> bool, milliseconds: u64) -> bool {
    let end = ticks() + machine::frequency() / 1000 * milliseconds;
    while !done() {
        if ticks() >= end {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// One round: a pattern on the pins, read back bit by bit and as a whole, and one interrupt.
fn round(registers: u64, pins: u32, number: u32) -> Result<(), &'static str> {
    let pin = 1 << (number % 8);
    let pattern = number.wrapping_mul(0x9e37_79b1) >> 24 & pins & !pin;
    write(registers + (u64::from(pins) << 2), pattern);
    // QEMU's remembers levels, too.
    write(registers + CLEAR, 0xff);
    for (offset, value) in [
        (DATA, pattern),
        (u64::from(pattern) << 2, pattern),
        (DIRECTION, pins),
        (SENSE, pins),
        (BOTH, !pins & 0xff),
        (EVENT, pins),
        (ENABLE, 0),
        (MASKED, 0),
    ] {
        // Inputs are the board's.
        if read(registers + offset) & if offset == DATA { pins } else { 0xff } != value {
            return Err("a register doesn't read as it was written");
        }
    }
    if read(registers + RAW) & pattern != pattern {
        return Err("a high pin isn't in the raw status");
    }
    if pins & pin == 0 {
        return Ok(());
    }
    SEEN.store(0, Ordering::Relaxed);
    let before = COUNT.load(Ordering::Relaxed);
    write(registers + ENABLE, pin);
    write(registers + (u64::from(pin) << 2), pin);
    if !wait_for(|| COUNT.load(Ordering::Relaxed) != before, 10_000) {
        return Err("an interrupt is lost");
    }
    write(registers + ENABLE, 0);
    if SEEN.load(Ordering::Relaxed) != pin || COUNT.load(Ordering::Relaxed) != before + 1 {
        return Err("an interrupt that isn't its own, or one too many");
    }
    Ok(())
}

/// All of it: so many ms of rounds, then it's told how many. With `pulled` it waits for the device to be taken and given back.
pub fn check(
    tree: &Tree<'_>,
    pins: u32,
    milliseconds: u64,
    pulled: bool,
) -> Result<(), &'static str> {
    const NAME: &[u8] = b"arm,pl061";
    let registers = tree.address(NAME, 0).ok_or("no PL061 in the tree")?;
    let cells = tree.property_of(NAME, b"interrupts");
    let cells = cells.filter(|cells| cells.len() == 12);
    let spi = cells.and_then(|cells| cells.get(4..8)?.try_into().ok());
    let spi = u32::from_be_bytes(spi.ok_or("no interrupt in the tree")?);
    for name in [&b"clocks"[..], b"gpio-controller"] {
        tree.property_of(NAME, name)
            .ok_or("the node isn't as the machine's")?;
    }
    if read(registers + IDENTITY) != 0x61 {
        return Err("no PL061 where the tree says");
    }
    REGISTERS.store(registers, Ordering::Relaxed);
    INTID.store(spi + 32, Ordering::Relaxed);
    machine::enable_interrupt(spi + 32);
    for offset in [DIRECTION, SENSE, BOTH, EVENT, ENABLE] {
        if read(registers + offset) != 0 {
            return Err("not as after a reset");
        }
    }
    write(registers + DIRECTION, pins);
    write(registers + SENSE, pins);
    write(registers + EVENT, pins);
    write(registers + BOTH, !pins);
    let end = ticks() + machine::frequency() / 1000 * milliseconds;
    let mut number = 0;
    while ticks() < end {
        round(registers, pins, number)?;
        number += 1;
    }
    let (count, empty) = (COUNT.load(Ordering::Relaxed), EMPTY.load(Ordering::Relaxed));
    let unknown = interrupts::unknown();
    let _ = writeln!(
        Console,
        "gpio: rounds={number} interrupts={count} empty={empty} unknown={unknown}"
    );
    if !pulled {
        return Ok(());
    }
    // Seldom: where every access is recorded there isn't room for many.
    let identity = |wanted| {
        let rounds = (0..6_000).map(|_| interrupts::sleep(machine::frequency() / 100));
        rounds
            .map(|()| read(registers + IDENTITY))
            .any(|found| found == wanted)
    };
    if !identity(u32::MAX) {
        return Err("the device isn't taken");
    }
    write(registers + DIRECTION, 0xff);
    let _ = writeln!(Console, "gpio: gone");
    if !identity(0x61) {
        return Err("the device isn't given back");
    }
    if read(registers + DIRECTION) != 0 {
        return Err("its new context isn't empty");
    }
    Ok(())
}
