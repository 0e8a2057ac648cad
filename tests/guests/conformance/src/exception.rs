//! Executing something and seeing which exception it ends with.

use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// EL1 on SP_EL0, everything masked: an exception finds SP_EL1 as it was.
pub const MASKED: u64 = 0x3c4;
/// The same with IRQs let through.
pub const INTERRUPTIBLE: u64 = 0x344;
/// BRK #0.
const BREAK: u32 = 0xd420_0000;
const CLASS_BREAK: u64 = 0x3c;
/// Words of the code page.
pub const WORDS: usize = 16;

unsafe extern "C" {
    fn enter(registers: *const [u64; 32], pc: u64, pstate: u64);
    static frame: UnsafeCell<[u64; 32]>;
}

#[repr(align(4096))]
struct Page(UnsafeCell<[u32; 1024]>);

// SAFETY: only the first CPU executes probes.
unsafe impl Sync for Page {}

static CODE: Page = Page(UnsafeCell::new([BREAK; 1024]));

/// How an execution ended.
#[derive(Clone, Copy)]
pub struct End {
    /// X0 to X3.
    pub x: [u64; 4],
    pub esr: u64,
    pub elr: u64,
    pub spsr: u64,
    pub far: u64,
    /// Which of the 16 vectors.
    pub vector: u64,
}

impl End {
    /// ESR's exception class.
    pub fn class(&self) -> u64 {
        self.esr >> 26
    }

    /// All instructions were executed.
    pub fn completed(&self) -> bool {
        self.vector.is_multiple_of(4) && self.class() == CLASS_BREAK
    }

    /// 0 if all were executed, otherwise ESR's class and a one above it.
    pub fn outcome(&self) -> u64 {
        if self.completed() {
            0
        } else {
            0x100 | self.class()
        }
    }
}

/// What [`End::outcome`] gives for UNDEFINED.
pub const UNDEFINED: u64 = 0x100;

/// Where [`run`] puts its words, if not into `CODE`.
static PLACE: AtomicU64 = AtomicU64::new(0);

/// Where [`run`] puts its words.
pub fn code() -> u64 {
    match PLACE.load(Ordering::Relaxed) {
        0 => CODE.0.get().expose_provenance() as u64,
        place => place,
    }
}

/// Lets [`run`] put its words into this page of RAM, which nobody else uses.
pub fn place(at: u64) {
    PLACE.store(at, Ordering::Relaxed);
}

/// Goes to `pc`.
pub fn go(registers: &[u64; 32], pc: u64, pstate: u64) -> End {
    // SAFETY: `enter` keeps what must be kept; what is executed there is the caller's affair. The frame was written meanwhile.
    unsafe {
        enter(registers, pc, pstate);
        let end = frame.get().read_volatile();
        End {
            x: [end[0], end[1], end[2], end[3]],
            esr: end[4],
            elr: end[5],
            spsr: end[6],
            far: end[7],
            vector: end[8],
        }
    }
}

/// Executes these words with these registers (X0 to X30, SP_EL0).
pub fn run(words: &[u32], registers: &[u64; 32], pstate: u64) -> End {
    let page = core::ptr::with_exposed_provenance_mut::<u32>(code() as usize);
    for n in 0..WORDS {
        let word = words.get(n).copied().unwrap_or(BREAK);
        // SAFETY: within the page, which nobody else uses.
        unsafe {
            page.wrapping_add(n).write_volatile(word);
            asm!("dc cvau, {}", in(reg) page.wrapping_add(n), options(nostack));
        }
    }
    // SAFETY: makes the words seen by instruction fetches.
    unsafe {
        asm!("dsb ish", "ic ialluis", "dsb ish", "isb", options(nostack));
    }
    go(registers, code(), pstate)
}

/// Executes one word with X0 to X3.
pub fn probe(word: u32, x: [u64; 4]) -> End {
    let mut registers = [0; 32];
    registers[..4].copy_from_slice(&x);
    run(&[word], &registers, MASKED)
}

/// MRS X0, register, by op0, op1, CRn, CRm, op2.
pub const fn mrs(name: [u32; 5]) -> u32 {
    let [op0, op1, crn, crm, op2] = name;
    0xd520_0000 | (op0 & 3) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
}

/// MSR register, X0.
pub const fn msr(name: [u32; 5]) -> u32 {
    mrs(name) & !(1 << 21)
}

/// Reads a system register: its value, or all ones if that isn't possible.
pub fn read(name: [u32; 5]) -> u64 {
    let end = probe(mrs(name), [0; 4]);
    if end.completed() { end.x[0] } else { u64::MAX }
}

/// Writes a system register.
pub fn write(name: [u32; 5], value: u64) -> End {
    let isb = 0xd503_3fdf;
    let mut registers = [0; 32];
    registers[0] = value;
    run(&[msr(name), isb], &registers, MASKED)
}
