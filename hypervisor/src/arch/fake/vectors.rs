//! What `vectors.S` and `float.S` do.

use super::{Event, Exception, Mode, Request, THIS, lock, machine, wait, with};
use crate::arch::exits::{self, Quick, RegisterFile, Registers};
use std::ops::Range;

/// Offsets in the CPU's block, as the vectors know them.
const CPU_VCPU: usize = 0;
const CPU_WORK: usize = 40;

const SYNCHRONOUS: u64 = 2;
const SERVED: u64 = 3;
const INTERRUPT: u64 = 4;
const SERROR: u64 = 5;

const HVC64: u64 = 0x16;
const SYSTEM: u64 = 0x18;
const DATA_ABORT: u64 = 0x24;

/// Registers that a procedure call may change, and so `enter` saves and `leave` loads.
fn is_caller_saved(index: usize) -> bool {
    matches!(index, 0..=18 | 30)
}

/// Registers that `save_callee_saved` saves; `enter` has x19, too.
const CALLEE_SAVED: Range<usize> = 20..30;

fn block() -> usize {
    with(|state, this| state.value(this, "tpidr_el2")) as usize
}

fn has_work() -> bool {
    // SAFETY: TPIDR_EL2 has the address of the CPU's block, whose layout the vectors rely on.
    unsafe { ((block() + CPU_WORK) as *const u32).read_volatile() != 0 }
}

/// The vCPU's registers are loaded and it runs; never returns.
#[unsafe(no_mangle)]
extern "C" fn resume_guest(first: *mut Registers) -> ! {
    let mut file = first;
    loop {
        // SAFETY: as for the vectors: the registers of the vCPU that was loaded.
        let mut running = unsafe { (*file).clone() };
        // SAFETY: as in `has_work`.
        unsafe { ((block() + CPU_VCPU) as *mut usize).write_volatile(file as usize) };
        with(|state, this| {
            state.write(this, "elr_el2", running.elr);
            state.write(this, "spsr_el2", running.spsr);
        });
        let kind = loop {
            let exception;
            (exception, running) = in_guest(running);
            // SAFETY: the file that was resumed, which is the vCPU's while this CPU has it.
            let saved = unsafe { &mut *file };
            match serve(exception, saved, &mut running) {
                Some(kind) => break kind,
                None => with(|state, this| {
                    running.elr = state.value(this, "elr_el2");
                    running.spsr = state.value(this, "spsr_el2");
                }),
            }
        };
        // SAFETY: likewise.
        let saved = unsafe { &mut *file };
        with(|state, this| {
            saved.elr = state.value(this, "elr_el2");
            saved.spsr = state.value(this, "spsr_el2");
        });
        // SAFETY: registers are the first thing in their file.
        let whole = unsafe { &*file.cast::<RegisterFile>() };
        file = exits::baton_exit(whole, kind);
    }
}

/// One exit as far as it needs not everything saved. Returns what `baton_exit` is called for; or else what the guest goes on with.
fn serve(exception: Exception, file: &mut Registers, running: &mut Registers) -> Option<u64> {
    let save = |file: &mut Registers, running: &Registers, from: fn(usize) -> bool| {
        for (index, (to, value)) in file.x.iter_mut().zip(running.x).enumerate() {
            if from(index) {
                *to = value;
            }
        }
    };
    let callee_saved = |index| CALLEE_SAVED.contains(&index);
    save(file, running, |index| is_caller_saved(index) || index == 19);
    let Exception::Synchronous(esr, ..) = exception else {
        save(file, running, callee_saved);
        return Some(if exception == Exception::Interrupt {
            INTERRUPT
        } else {
            SERROR
        });
    };
    let class = esr >> 26 & 0x3f;
    let pointer: *mut Registers = file;
    // SAFETY: registers are the first thing in their file.
    let whole = unsafe { &*pointer.cast::<RegisterFile>() };
    let all = match class {
        HVC64 => {
            let answered = exits::baton_call(whole) != 0;
            if !answered || has_work() {
                save(file, running, callee_saved);
                return Some(if answered { SERVED } else { SYNCHRONOUS });
            }
            false
        }
        DATA_ABORT | SYSTEM => {
            save(file, running, callee_saved);
            let quick = if class == DATA_ABORT {
                exits::baton_access(whole, esr)
            } else {
                exits::baton_register(whole, esr)
            };
            match quick {
                Quick::Unserved => return Some(SYNCHRONOUS),
                _ if has_work() => return Some(SERVED),
                Quick::ResumeAll => true,
                Quick::Resume => false,
            }
        }
        _ => {
            save(file, running, callee_saved);
            return Some(SYNCHRONOUS);
        }
    };
    for (index, (to, value)) in running.x.iter_mut().zip(file.x).enumerate() {
        if all || is_caller_saved(index) {
            *to = value;
        }
    }
    None
}

/// The guest runs until it takes an exception.
fn in_guest(registers: Registers) -> (Exception, Registers) {
    let this = THIS.get();
    let mut state = lock();
    let vttbr = state.value(this, "vttbr_el2");
    state.note(this, Event::Enter(vttbr, registers.elr));
    state.check_tlb(this);
    state.cpus[this].guest = registers;
    state.cpus[this].mode = Mode::Guest;
    machine().changed.notify_all();
    let exception = loop {
        match state.cpus[this].request.take() {
            Some(Request::Exit(exception)) => break exception,
            Some(Request::Run(task)) => {
                // As if an interrupt had asked for it.
                state.cpus[this].mode = Mode::El2;
                drop(state);
                task();
                state = lock();
                break Exception::Interrupt;
            }
            None if state.interrupted(this) => break Exception::Interrupt,
            None => state = wait(state),
        }
    };
    state.cpus[this].mode = Mode::El2;
    state.note(this, Event::Exit);
    let registers = state.cpus[this].guest.clone();
    let mut set = |name, value| state.cpus[this].registers.insert(name, value);
    set("elr_el2", registers.elr);
    set("spsr_el2", registers.spsr);
    if let Exception::Synchronous(esr, far, hpfar) = exception {
        set("esr_el2", esr);
        set("far_el2", far);
        set("hpfar_el2", hpfar);
    }
    (exception, registers)
}

/// CPTR_EL2.TFP.
const TRAPPED: u64 = 1 << 10;

/// FP and SIMD registers are out of the CPU.
#[unsafe(no_mangle)]
extern "C" fn float_save(area: *mut [u64; 66]) {
    let registers = with(|state, this| {
        assert_eq!(
            state.value(this, "cptr_el2") & TRAPPED,
            0,
            "EL2 traps itself"
        );
        state.cpus[this].float
    });
    // SAFETY: the caller's area.
    unsafe { *area = registers };
}

/// Into it.
#[unsafe(no_mangle)]
extern "C" fn float_load(area: *const [u64; 66]) {
    // SAFETY: the caller's area.
    let registers = unsafe { *area };
    with(|state, this| {
        assert_eq!(
            state.value(this, "cptr_el2") & TRAPPED,
            0,
            "EL2 traps itself"
        );
        state.cpus[this].float = registers;
    });
}
