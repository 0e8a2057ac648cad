//! Per-CPU data, found through TPIDR_EL2.
//!
//! The block's first words are known to the vectors. Everything else in it is atomic, so that no reference to it needs
//! to be exclusive.

use super::registers::{MPIDR_EL1, TPIDR_EL2, far_address};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use tock_registers::interfaces::{Readable, Writeable};

/// Most CPUs that one Baton uses; the linker script has as many stacks.
pub const MAX_CPUS: usize = 8;
const STACK: usize = 0x8000;
const GUARD: usize = 0x1000;

/// What one CPU has of its own.
#[repr(C)]
pub struct Cpu {
    /// Registers of the vCPU that runs: read by the vectors.
    vcpu: AtomicUsize,
    fault_stack: UnsafeCell<usize>,
    scratch: [UnsafeCell<u64>; 2],
    /// Top of the stack: where an exit begins.
    stack: UnsafeCell<usize>,
    /// Not 0: the next exit doesn't go straight back to the guest. Read by the vectors.
    work: AtomicU32,
    /// Which of the firmware's functions clears the branch predictor. Read by the hardened vectors.
    remedy: AtomicU32,
    /// Number of the CPU: its index in the machine's list.
    index: usize,
    /// MPIDR affinity.
    pub affinity: AtomicU64,
    /// Identity of the loaded vCPU: an opaque address, 0 if none.
    pub loaded: AtomicUsize,
}

// SAFETY: the cells are written before the CPU starts, and by its own vectors; everything else is atomic.
unsafe impl Sync for Cpu {}

impl Cpu {
    const fn new(index: usize) -> Self {
        Self {
            vcpu: AtomicUsize::new(0),
            fault_stack: UnsafeCell::new(0),
            scratch: [const { UnsafeCell::new(0) }; 2],
            stack: UnsafeCell::new(0),
            work: AtomicU32::new(0),
            remedy: AtomicU32::new(0),
            index,
            affinity: AtomicU64::new(0),
            loaded: AtomicUsize::new(0),
        }
    }

    /// Index in the machine's list of CPUs.
    #[inline(always)]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// The hardened vectors of this CPU call this function of the firmware's. Before they are in force.
    pub fn clear_predictor_by(&self, function: u32) {
        self.remedy.store(function, Ordering::Relaxed);
    }

    /// There is something that this CPU must see to before it resumes a guest: what it is was stored before.
    /// Who asks it of another CPU sends that an interrupt afterwards, since it may have looked just now.
    #[inline(always)]
    pub fn demand(&self) {
        // Release: whoever takes the demand (`take_demand`) sees what it is about.
        self.work.store(1, Ordering::Release);
    }

    /// Forgets the demand. What it may be about is looked at *after* this, so that what comes meanwhile is either seen or
    /// leaves its own demand.
    #[inline(always)]
    pub fn take_demand(&self) {
        // A read-modify-write, not a store: one that loses a demand has read it, and so sees what it is about. SeqCst, since
        // what is looked at next must not be read before.
        if self.work.load(Ordering::Relaxed) != 0 {
            self.work.swap(0, Ordering::SeqCst);
        }
    }
}

static CPUS: [Cpu; MAX_CPUS] = {
    let mut index = 0;
    let mut cpus = [const { Cpu::new(0) }; MAX_CPUS];
    while index < MAX_CPUS {
        cpus[index].index = index;
        index += 1;
    }
    cpus
};

unsafe extern "C" {
    static _stacks_start: u8;
}

/// Top of the stack of a CPU; `fault` for the one that faults are reported on.
pub fn stack_top(index: usize, fault: bool) -> usize {
    far_address!(_stacks_start) + (index * 2 + usize::from(fault) + 1) * (STACK + GUARD)
}

/// The unmapped pages: one under each stack.
pub fn guard_pages() -> impl Iterator<Item = usize> {
    (0..MAX_CPUS * 2).map(|stack| far_address!(_stacks_start) + stack * (STACK + GUARD))
}

/// Makes CPU `index` the one that this code runs on. Once per CPU, before anything uses [`current`].
pub fn adopt(index: usize) {
    let cpu = &CPUS[index];
    // SAFETY: only this CPU writes its own cells, here, before it takes any exception.
    unsafe {
        *cpu.fault_stack.get() = stack_top(index, true);
        *cpu.stack.get() = stack_top(index, false);
    }
    cpu.affinity
        .store(MPIDR_EL1.get() & 0xff_00ff_ffff, Ordering::Relaxed);
    TPIDR_EL2.set(core::ptr::from_ref(cpu) as u64);
}

/// The CPU that this code runs on.
#[inline(always)]
pub fn current() -> &'static Cpu {
    let address = TPIDR_EL2.get() as *const Cpu;
    // SAFETY: `adopt` put the address of a static there; guests can't write TPIDR_EL2.
    unsafe { &*address }
}

/// The data of CPU `index`.
pub fn by_index(index: usize) -> Option<&'static Cpu> {
    CPUS.get(index)
}
