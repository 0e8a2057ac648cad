//! Where the vectors come to, and what they save: a vCPU's general registers.
//!
//! They are saved at every exit as far as the exit needs them (`vectors.S`).

use super::registers::{ESR_EL2, read, write};
use crate::system::schedule::Member;
use core::cell::UnsafeCell;
use hypervisor::lifecycle::exits::Exits;
use hypervisor::psci;
use hypervisor::trap::step;
use spin::Once;
use tock_registers::interfaces::Readable;

/// What the vectors save: their layout is known to `vectors.S`.
#[repr(C, align(16))]
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Registers {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where the guest goes on.
    pub elr: u64,
    /// Its processor state.
    pub spsr: u64,
}

impl Registers {
    /// The value of Xn; 31 reads as zero.
    pub fn get(&self, index: usize) -> u64 {
        self.x.get(index).copied().unwrap_or(0)
    }

    /// Sets Xn; 31 is discarded.
    pub fn set(&mut self, index: usize, value: u64) {
        if let Some(register) = self.x.get_mut(index) {
            *register = value;
        }
    }
}

/// A vCPU's general registers at a fixed place, where the vectors find them, and whose they are.
#[repr(C)]
pub struct RegisterFile {
    registers: UnsafeCell<Registers>,
    owner: Once<Member>,
    exits: UnsafeCell<Exits>,
}

// SAFETY: used by its creator before the vCPU's first run, by who starts a vCPU that is off (`start_at`), and else only by the CPU that has
// the vCPU loaded (`Vcpu::resident`): there by the vectors, and by the exit handler through the reference that they hand over. From one
// CPU to the next it goes by release and acquire of `resident` (`system::schedule`).
unsafe impl Sync for RegisterFile {}

impl RegisterFile {
    /// All zero.
    pub const fn new() -> Self {
        Self {
            registers: UnsafeCell::new(Registers {
                x: [0; 31],
                elr: 0,
                spsr: 0,
            }),
            owner: Once::new(),
            exits: UnsafeCell::new(Exits::new()),
        }
    }

    /// A copy of the registers, and the last exits. For a vCPU that this CPU has loaded, on the way out of an exit.
    pub fn snapshot(&self) -> (Registers, Exits) {
        // SAFETY: see `Sync`: only this CPU uses them, and it's in the exit handler.
        unsafe { ((*self.registers.get()).clone(), (*self.exits.get()).clone()) }
    }

    /// Keeps an exit of the vCPU, for a report: one that will probably be served at once.
    #[inline(always)]
    fn keep_word(&self, esr: u64) {
        // SAFETY: as for the registers: only the CPU that runs the vCPU does this, in the exit handler.
        unsafe { (*self.exits.get()).keep_word(esr) };
    }

    /// Likewise one that takes more.
    fn keep(&self, esr: u64) {
        let pc = read!("elr_el2");
        // SAFETY: as for the registers: only the CPU that runs the vCPU does this, in the exit handler.
        unsafe { (*self.exits.get()).keep(esr, pc) };
    }

    /// What the vectors load from.
    pub const fn pointer(&self) -> *mut Registers {
        self.registers.get()
    }

    /// Tells once and for all which vCPU's registers these are. Firmware's are nobody's: its exits aren't answered at once.
    pub fn belong_to(&self, member: Member) {
        self.owner.call_once(|| member);
    }

    /// Sets a vCPU that is off to its first instruction: EL1h, everything masked, `x0` given.
    pub fn start_at(&self, entry: u64, x0: u64) {
        let mut registers = Registers {
            elr: entry,
            spsr: 0x3c5,
            ..Registers::default()
        };
        registers.set(0, x0);
        // SAFETY: see `Sync`: a vCPU that is off runs nowhere.
        unsafe {
            *self.registers.get() = registers;
            *self.exits.get() = Exits::new();
        }
    }
}

/// The vectors come here with a hypercall of a guest whose registers that a procedure call may change are saved. Returns whether it
/// was answered: 0 or 1.
#[unsafe(no_mangle)]
pub(super) extern "C" fn baton_call(file: &RegisterFile) -> u64 {
    // SAFETY: the vectors hand over the file of the vCPU that exited, which nobody else uses until it is resumed.
    let registers = unsafe { &mut *file.registers.get() };
    match psci::constant(registers.x[0], registers.x[1]) {
        Some(value) if file.owner.is_completed() => {
            registers.x[0] = value;
            1
        }
        _ => 0,
    }
}

/// What `vectors.S` does after [`baton_access`] and [`baton_register`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u64)]
pub enum Quick {
    /// Served; X19 to X29 are as they were.
    Resume = 0,
    /// Served; any register may have changed.
    ResumeAll = 1,
    /// Not served, nothing has changed: [`Exit::Synchronous`] follows.
    Unserved = 2,
}

/// What [`baton_exit`] is called for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// An exception of the guest, not served yet.
    Synchronous,
    /// One that was served already, but this CPU has something to do.
    Served,
    /// An interrupt.
    Interrupt,
    /// An SError.
    SError,
}

/// The vectors come here with a guest's data abort, all general registers saved. ELR and SPSR stay in the system registers.
#[unsafe(no_mangle)]
pub(super) extern "C" fn baton_access(file: &RegisterFile, esr: u64) -> Quick {
    let Some(member) = file.owner.get() else {
        return Quick::Unserved;
    };
    // SAFETY: as in `baton_call`.
    let registers = unsafe { &mut *file.registers.get() };
    file.keep_word(esr);
    crate::system::emulation::access(*member, registers, esr)
}

/// Likewise with a trapped access to a system register.
#[unsafe(no_mangle)]
pub(super) extern "C" fn baton_register(file: &RegisterFile, esr: u64) -> Quick {
    let Some(member) = file.owner.get() else {
        return Quick::Unserved;
    };
    // SAFETY: as in `baton_call`.
    let registers = unsafe { &mut *file.registers.get() };
    file.keep_word(esr);
    crate::system::emulation::register(*member, registers, esr)
}

/// Moves the guest on to its next instruction, while its state stays in the system registers.
#[inline(always)]
pub fn skip_instruction() {
    let pstate = read!("spsr_el2");
    if pstate & step::AARCH32 != 0 {
        return skip_instruction_in_aarch32(pstate);
    }
    write!("elr_el2", read!("elr_el2").wrapping_add(4));
}

#[cold]
#[inline(never)]
fn skip_instruction_in_aarch32(pstate: u64) {
    let (elr, spsr) = step::over(read!("elr_el2"), pstate, ESR_EL2.get());
    write!("elr_el2", elr);
    write!("spsr_el2", spsr);
}

/// Guest-physical address of a stage 2 fault.
#[inline(always)]
pub fn fault_address() -> u64 {
    hypervisor::trap::syndrome::fault_address(read!("hpfar_el2"), read!("far_el2"))
}

/// The vectors come here with everything of the guest saved that EL2 uses; what this returns is resumed.
#[unsafe(no_mangle)]
pub(super) extern "C" fn baton_exit(file: &RegisterFile, kind: u64) -> *mut Registers {
    let kind = match kind {
        2 => Exit::Synchronous,
        3 => Exit::Served,
        4 => Exit::Interrupt,
        _ => Exit::SError,
    };
    if kind == Exit::Synchronous {
        let esr = ESR_EL2.get();
        // Those two were kept before.
        if !matches!(esr >> 26 & 0x3f, 0x18 | 0x24) {
            file.keep(esr);
        }
    }
    // SAFETY: as in `baton_call`.
    let registers = unsafe { &mut *file.registers.get() };
    crate::system::exit::handle(file.owner.get().copied(), registers, kind)
}

/// Goes to the guest for the first time on this CPU; the stack of the caller is forgotten.
pub fn start(registers: *mut Registers) -> ! {
    unsafe extern "C" {
        fn resume_guest(registers: *mut Registers) -> !;
    }
    // SAFETY: the registers belong to the vCPU or firmware that was just loaded.
    unsafe { resume_guest(registers) }
}
