//! Everything a kernel could do, by a seeded generator: random instructions, system registers, calls, addresses.
//!
//! Every try ends with an exception, its own, the BRK behind it, or the timer's; vectors and `enter` need nothing of the registers that it may
//! have changed, and the few that they do need aren't written. Left out besides is what would only be the end: PSCI's calls that switch
//! CPU or system off. Nothing is expected of the answers: what is shown is that others don't notice.
//!
//! The seed is the word behind `seed=` on the command line, and the physical counter, so that a restarted domain tries other things; it is
//! printed.

use crate::exception::{INTERRUPTIBLE, WORDS, code, mrs, msr, place, run as execute, write};
use crate::gic;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_runtime::machine::{self, Console};

/// Far above the image, in 64 MiB of RAM.
const SCRATCH: u64 = 0x4200_0000;

/// What a domain of 64 MiB has.
const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 64 << 20;
const CPU_ON: u64 = 0xc400_0003;
/// Where the words are executed: far from the image, so that few of the branches among them lead into it.
const CODE: u64 = 0x43f0_0000;

/// It has begun: what happens unexpectedly is its own doing.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// After an exception where none may be, on an empty stack: goes on, if it's this program that runs.
pub fn go_on(esr: u64, elr: u64) {
    if BEGUN.load(Ordering::Relaxed) {
        gic::write32(machine::uart() + 0x30, 0x301);
        let _ = writeln!(Console, "\nfuzz: lost at={elr:#x} esr={esr:#x}");
        run(b"again");
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: u64) -> u64 {
        (self.next() >> 32) % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        let n = self.below(from.len() as u64) as usize;
        from[n]
    }
}

/// Frames that exist, and ones that don't; the UART's data register would only fill the console.
const PLACES: &[(u64, u64)] = &[
    (gic::GICD, 0x1_0000),
    (gic::GICD, 0x1000),
    (gic::GICR, 0x4_0000),
    (gic::GICR + 0x1_0000, 0x1000),
    (gic::GICC, 0x2000),
    (0x0802_0000, 0x1000),
    (0x0808_0000, 0x2_0000),
    (0x0900_0004, 0xff0),
    (0x0901_0000, 0x1000),
    (0x0902_0000, 0x20),
    (0x0903_0000, 0x1000),
    (0x0a00_0000, 0x4000),
    (0x0c00_0000, 0x2000),
    (0x0000_0000, 0x800_0000),
    (0x0800_0000, 0x800_0000),
    (0x1000_0000, 0x2eff_0000),
    (0x1000_0000, 0x10_0000),
    (0x40_1000_0000, 0x10_0000),
    (0x40_1000_0000, 0x1000_0000),
    (0x40_0000_0000, 0x4000_0000),
    (0x4400_0000, 0x3c00_0000),
    (SCRATCH, 0x1_0000),
];

/// What the vectors and `enter` need: SCTLR, TTBR0, TTBR1, TCR, MAIR, VBAR, SP selection.
fn needed(word: u32) -> bool {
    // MSR (register) and MSR (immediate) of op0 0 to 3; bit 21 clear.
    if word & 0xffe0_0000 != 0xd500_0000 {
        return false;
    }
    let (op0, op1, crn, crm, op2) = (
        word >> 19 & 3,
        word >> 16 & 7,
        word >> 12 & 15,
        word >> 8 & 15,
        word >> 5 & 7,
    );
    op0 == 3
        && op1 == 0
        && matches!(
            (crn, crm, op2),
            (1, 0, 0) | (2, 0, 0..=2) | (10, 2, 0) | (12, 0, 0)
        )
        // MSR SPSel.
        || op0 == 0 && op1 == 0 && crn == 4 && op2 == 5
}

fn value(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => random.next(),
        1 => 1 << random.below(64),
        2 => u64::MAX << random.below(64),
        3 => random.below(0x100),
        4 => SCRATCH + (random.below(0x1_0000) & !7),
        _ => address(random),
    }
}

fn address(random: &mut Random) -> u64 {
    let (base, size) = random.pick(PLACES);
    let mask = random.pick(&[!0, !3, !3, !7, !15]);
    (base + random.next() % size) & mask
}

/// Loads and stores of every kind at [X0], with X1 and X2; atomics, cache maintenance, address translation.
const ACCESSES: &[u32] = &[
    0x3940_0001,
    0x7940_0001,
    0xb940_0001,
    0xf940_0001,
    0x3900_0001,
    0x7900_0001,
    0xb900_0001,
    0xf900_0001,
    0x3980_0001,
    0x7980_0001,
    0xb980_0001,
    0x39c0_0001,
    0x79c0_0001,
    0xa940_0801,
    0xa900_0801,
    0x2940_0801,
    0x2900_0801,
    0xb840_4401,
    0xf840_8c01,
    0xb800_4401,
    0xf800_8c01,
    0xc85f_7c01,
    0xc802_7c01,
    0x885f_fc01,
    0xc8df_fc01,
    0xc89f_fc01,
    0xb820_0001,
    0xf8e1_8001,
    0xc8a1_7c02,
    0x3dc0_0001,
    0x3d80_0001,
    0xad40_0801,
    0xad00_0801,
    0x4c40_7001,
    0x4c00_7001,
    0xd50b_7420,
    0xd50b_7a20,
    0xd50b_7b20,
    0xd50b_7e20,
    0xd508_7620,
    0xd50b_7520,
    0xd508_7800,
    0xd508_7820,
    0xf980_0000,
    0xd508_8720,
    0xd508_8320,
];

const CALLS: &[u64] = &[
    0x8400_0000,
    0xc400_0000,
    0x8000_0000,
    0xc600_0000,
    0x8600_0000,
    0xb200_0000,
    0,
];

/// A call that doesn't end this guest: not CPU_OFF, SYSTEM_OFF, SYSTEM_RESET, SYSTEM_RESET2.
fn call(random: &mut Random) -> u64 {
    loop {
        let numbers = random.pick(&[0x20, 0x100]);
        let id = random.pick(CALLS) | random.below(numbers);
        let power = id & 0xbf00_0000 == 0x8400_0000;
        if !(power && matches!(id & 0xffff, 2 | 8 | 9 | 0x12)) {
            return id;
        }
    }
}

struct Counts {
    tries: u64,
    completed: u64,
    undefined: u64,
    /// Aborts, traps, calls of the supervisor.
    others: u64,
    timer: u64,
}

fn restore() {
    for (name, value) in [
        // CPACR, MDSCR; the counter's control; the physical timer.
        ([3, 0, 1, 0, 2], 3 << 20),
        ([2, 0, 0, 2, 2], 0),
        ([3, 0, 14, 1, 0], 0),
        ([3, 3, 14, 2, 1], 0),
    ] {
        write(name, value);
    }
    // The interrupt controller as the timer needs it, no priority active.
    if gic::is_v2() {
        gic::write32(gic::GICC + 0xd0, 0);
    } else {
        gic::write32(gic::GICR + 0x14, 0);
        for name in [[3, 0, 12, 8, 4], [3, 0, 12, 9, 0], gic::IGRPEN0] {
            write(name, 0);
        }
    }
    gic::mask(0xff);
    gic::binary_point(8);
    gic::interface(true, false);
    gic::forward(true);
    gic::prepare(27, 0);
    // Whatever else is active or pending would keep the timer's away, or come in its place.
    for _ in 0..8 {
        let taken = gic::take();
        if taken & 0x3ff >= 1020 {
            break;
        }
        gic::end(taken);
    }
    if gic::signalled() != 0 {
        // Of the other group, or ever again.
        for word in (0..36).step_by(4) {
            for clear in [gic::CLEAR_ENABLE, gic::CLEAR_PENDING, gic::CLEAR_ACTIVE] {
                gic::write32(gic::GICD + clear + word, 0xffff_ffff);
            }
        }
        if gic::is_v2() {
            gic::write32(gic::GICD + gic::GROUP, 0);
            for word in (0..16).step_by(4) {
                gic::write32(gic::CLEAR_SGI + word, 0xffff_ffff);
            }
        } else {
            for clear in [gic::CLEAR_ENABLE, gic::CLEAR_PENDING, gic::CLEAR_ACTIVE] {
                gic::write32(gic::SGI + clear, 0xffff_ffff);
            }
        }
        gic::prepare(27, 0);
    }
}

fn words(random: &mut Random, registers: &mut [u64; 32]) -> ([u32; WORDS], usize) {
    let mut words = [0; WORDS];
    for register in registers.iter_mut() {
        *register = value(random);
    }
    let count = match random.below(8) {
        // Any words.
        0 | 1 => {
            let count = 1 + random.below(6) as usize;
            for word in words.iter_mut().take(count) {
                *word = random.next() as u32;
            }
            count
        }
        // Any of the system space.
        2 | 3 => {
            words[0] = 0xd500_0000 | random.next() as u32 & 0x003f_ffff;
            1
        }
        // System registers by name.
        4 => {
            let name = [
                3,
                random.pick(&[0, 0, 3, 4, 1]),
                random.below(16) as u32,
                random.below(16) as u32,
                random.below(8) as u32,
            ];
            words[0] = if random.below(2) == 0 {
                mrs(name)
            } else {
                msr(name)
            };
            1
        }
        5 => {
            registers[0] = call(random);
            if random.below(2) == 0 {
                registers[1] = random.below(4);
            }
            if random.below(512) == 0 {
                // The other vCPU, if there is one, somewhere in RAM: without vectors it soon is the domain's end.
                registers[..3].copy_from_slice(&[CPU_ON, 1, RAM + (random.below(RAM_SIZE) & !3)]);
            }
            words[0] = random.pick(&[0xd400_0002, 0xd400_0003])
                | ((random.below(4) as u32 & 1) * (random.below(0x1_0000) as u32)) << 5;
            1
        }
        _ => {
            registers[0] = address(random);
            words[0] = random.pick(ACCESSES);
            1
        }
    };
    for word in &mut words[..count] {
        if needed(*word) {
            *word = 0xd503_201f;
        }
    }
    (words, count)
}

/// FNV-1a.
fn number(word: &[u8]) -> u64 {
    word.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    })
}

/// Tries until it is ended.
pub fn run(seed: &[u8]) -> ! {
    let seed = number(seed) ^ machine::physical_ticks();
    let _ = writeln!(Console, "fuzz: begun seed={seed:#x}");
    BEGUN.store(true, Ordering::Relaxed);
    place(CODE);
    let mut random = Random(seed | 1);
    let mut counts = Counts {
        tries: 0,
        completed: 0,
        undefined: 0,
        others: 0,
        timer: 0,
    };
    loop {
        let mut registers = [0; 32];
        let (words, count) = words(&mut random, &mut registers);
        restore();
        machine::start_timer(machine::ticks() + machine::frequency() / 2000);
        let begin = machine::ticks();
        let ended = execute(&words[..count], &registers, INTERRUPTIBLE);
        let took = machine::ticks().wrapping_sub(begin);
        machine::stop_timer();
        if took > machine::frequency() / 150 {
            // Not necessarily its own doing: it may have waited for its CPU.
            let [x0, x1, x2, ..] = registers;
            gic::write32(machine::uart() + 0x30, 0x301);
            let _ = writeln!(
                Console,
                "\nfuzz: slow ticks={took} word={:#x} x0={x0:#x} x1={x1:#x} x2={x2:#x} elr={:#x} esr={:#x}",
                words[0], ended.elr, ended.esr
            );
        }
        counts.tries += 1;
        match ended.vector % 4 {
            0 if ended.completed() && ended.elr >= code() => counts.completed += 1,
            0 if ended.class() == 0 => counts.undefined += 1,
            0 => counts.others += 1,
            _ => counts.timer += 1,
        }
        if counts.tries.is_multiple_of(1000) {
            show(&counts);
        }
    }
}

fn show(counts: &Counts) {
    let Counts {
        tries,
        completed,
        undefined,
        others,
        timer,
    } = counts;
    // The UART may have been switched off.
    gic::write32(machine::uart() + 0x30, 0x301);
    let _ = writeln!(
        Console,
        "\nfuzz: progress tries={tries} completed={completed} undefined={undefined} others={others} interrupts={timer}"
    );
}
