//! Steady work beside a domain that misbehaves: is it right, how long does it take, how late is a timer.
//!
//! A round computes over memory, calls, reads the interrupt controller, sends itself an interrupt and takes it. All of it is known beforehand.
//! Rounds never wait, so that their time is that of the CPU they get; after some of them, waits are timed.

use crate::gic;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::fmt::Write as _;
use guest_runtime::machine::{self, Console};

const ROUNDS: u64 = 400;
const WAITS: u64 = 100;
const WORDS: usize = 8192;
const SGI: u64 = 5;
const TIMER: u64 = 27;

struct Memory(UnsafeCell<[u64; WORDS]>);

// SAFETY: only the first CPU works.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new([0; WORDS]));

const fn step(value: u64) -> u64 {
    value
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1)
}

fn version() -> u64 {
    let value;
    // SAFETY: PSCI_VERSION; X1 to X3 may change by SMCCC 1.0.
    unsafe {
        asm!("hvc #0", inout("x0") 0x8400_0000u64 => value,
            out("x1") _, out("x2") _, out("x3") _, options(nostack));
    }
    value
}

/// Waits for an interrupt to be signalled, a while at most; whether it is `intid`, which is ended.
fn arrives(intid: u64) -> bool {
    for _ in 0..1000 {
        let taken = gic::take_here();
        if taken & 0x3ff == intid {
            gic::end_here(taken);
            return true;
        }
    }
    false
}

/// What is wrong in rounds.
#[derive(Default)]
struct Wrong {
    /// Words that aren't what was written.
    memory: u64,
    /// Other values than before.
    answers: u64,
    /// Interrupts that didn't come.
    signals: u64,
}

fn round(number: u64, typer: u64, wrong: &mut Wrong) {
    let memory = MEMORY.0.get().cast::<u64>();
    let mut value = number;
    for n in 0..WORDS {
        // SAFETY: within the array, which is this program's.
        unsafe { memory.wrapping_add(n).write_volatile(value) };
        value = step(value);
    }
    let mut value = number;
    for n in 0..WORDS {
        // SAFETY: as above.
        let found = unsafe { memory.wrapping_add(n).read_volatile() };
        wrong.memory += u64::from(found != value);
        value = step(value);
    }
    for _ in 0..20 {
        wrong.answers += u64::from(version() != 0x1_0001);
        wrong.answers += u64::from(gic::read32(gic::GICD + 4) != typer);
    }
    gic::send(SGI, 1);
    wrong.signals += u64::from(!arrives(SGI));
}

/// Does it once, or over and over, and says each time how it went.
pub fn run(turns: u64) -> ! {
    gic::start(&[SGI as u32, TIMER as u32]);
    gic::forward(true);
    let typer = gic::read32(gic::GICD + 4);
    for turn in 1..=turns {
        let (mut wrong, begin) = (Wrong::default(), machine::ticks());
        for number in 0..ROUNDS {
            round(number, typer, &mut wrong);
        }
        let ticks = machine::ticks() - begin;
        let (mut early, mut late, mut latest) = (0, 0, 0);
        for _ in 0..WAITS {
            let by = wait();
            early += u64::from(by.is_none());
            late += by.unwrap_or(0);
            latest = by.unwrap_or(0).max(latest);
        }
        let Wrong {
            memory,
            answers,
            signals,
        } = wrong;
        let _ = writeln!(
            Console,
            "work: done turn={turn} memory={memory} answers={answers} signals={signals} early={early} ticks={ticks} late={late} latest={latest}"
        );
    }
    loop {
        machine::wait();
    }
}

/// Waits for the timer; how late it was, unless too early. WFI may end for any reason.
fn wait() -> Option<u64> {
    let due = machine::ticks() + machine::frequency() / 2000;
    machine::start_timer(due);
    let mut signalled = 0u64;
    while signalled == 0 {
        machine::wait();
        // SAFETY: reads ISR_EL1.
        unsafe { asm!("mrs {}, isr_el1", out(reg) signalled, options(nostack)) };
    }
    let late = machine::ticks().checked_sub(due);
    machine::stop_timer();
    // It may have been withdrawn already.
    arrives(TIMER);
    late
}

/// The neighbour to compare with: never waits, does nothing else.
pub fn spin() -> ! {
    let _ = writeln!(Console, "work: spinning");
    loop {
        core::hint::spin_loop();
    }
}
