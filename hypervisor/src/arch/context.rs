//! What is exchanged when another vCPU runs next.
//!
//! General registers are saved at every exit ([`super::exits`]). The rest stays in the hardware while EL2 works, since EL2 uses none of it, and is
//! exchanged only between two vCPUs, in the order of [`vcpu`]; FP and SIMD registers only if they are used ([`float`]).

use super::cpu::{self, MAX_CPUS};
use super::errata;
use super::gic::interface::Interface;
use super::processor::This;
use super::registers::read;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::errata::Errata;
use hypervisor::processor::controls::{self, Newer};
use hypervisor::processor::stage2;
use hypervisor::processor::vcpu::{self, Place, Vcpu};
use hypervisor::trap::float;

#[repr(C, align(16))]
struct Float([u64; 66]);

unsafe extern "C" {
    fn float_save(area: *mut Float);
    fn float_load(area: *const Float);
}

/// This CPU's FP and SIMD registers.
struct FloatRegisters;

impl float::Registers for FloatRegisters {
    type Area = Float;

    fn set_trapped(&mut self, trapped: bool) {
        controls::set_float_trapped(&mut This, trapped);
    }

    fn save(&mut self, into: &mut Float) {
        // SAFETY: the area is 528 bytes, 16-byte aligned, and exclusively ours.
        unsafe { float_save(into) };
    }

    fn load(&mut self, from: &Float) {
        // SAFETY: the area is 528 bytes, 16-byte aligned, and only read.
        unsafe { float_load(from) };
    }
}

struct FloatUnits([UnsafeCell<float::Unit>; MAX_CPUS]);
// SAFETY: each CPU uses its own only (`with_float`).
unsafe impl Sync for FloatUnits {}

static FLOAT_UNITS: FloatUnits =
    FloatUnits([const { UnsafeCell::new(float::Unit::new()) }; MAX_CPUS]);

/// The last name given to what was saved of a vCPU's FP and SIMD registers.
static FLOAT_NAMES: AtomicU64 = AtomicU64::new(0);

/// Does something about whose FP and SIMD registers are in this CPU.
fn with_float<T>(act: impl FnOnce(&mut float::Unit) -> T) -> Option<T> {
    let unit = FLOAT_UNITS.0.get(cpu::current().index())?;
    // SAFETY: only this CPU uses it, with interrupts masked, and what is done with it is all in this module: nobody comes here again within.
    Some(act(unsafe { &mut *unit.get() }))
}

struct State {
    vcpu: Vcpu,
    float: float::Saved<Float>,
    interface: Interface,
    timer_active: bool,
}

/// VTTBR_EL2 while no vCPU is loaded: tables that map nothing.
static NOBODY: AtomicU64 = AtomicU64::new(0);

/// Tells what VTTBR_EL2 is while no vCPU is loaded. Once, before the first CPU begins.
pub fn use_when_empty(vttbr: u64) {
    NOBODY.store(vttbr, Ordering::Relaxed);
}

/// Everything of a vCPU that isn't a general register.
pub struct Context {
    state: UnsafeCell<State>,
    vttbr: AtomicU64,
    timer_offset: AtomicU64,
}

// SAFETY: a context is used by its creator before the vCPU's first run, by who starts a vCPU that is off (`reset`, under its domain's power
// lock), and else only by the CPU that `Vcpu::resident` names: a CPU calls `load` after it has claimed that (acquire), and `save` before it gives
// it up (release). `save`, `load`, `loaded_deadline` and `reset` rely on it.
unsafe impl Sync for Context {}

impl Context {
    /// A vCPU as after reset: MMU off, interrupts masked, timer off.
    pub fn new(affinity: u64, vttbr: u64, timer_offset: u64) -> Self {
        Self {
            state: UnsafeCell::new(State {
                vcpu: Vcpu::new(affinity),
                float: float::Saved::new(Float([0; 66])),
                interface: Interface::default(),
                timer_active: false,
            }),
            vttbr: AtomicU64::new(vttbr),
            timer_offset: AtomicU64::new(timer_offset),
        }
    }

    /// Gives the vCPU other stage 2 tables and another virtual time, from the next time on that it is loaded.
    pub fn place(&self, vttbr: u64, timer_offset: u64) {
        self.vttbr.store(vttbr, Ordering::Relaxed);
        self.set_timer_offset(timer_offset);
    }

    /// Gives the vCPU another virtual time, from the next time on that it is loaded.
    pub fn set_timer_offset(&self, timer_offset: u64) {
        self.timer_offset.store(timer_offset, Ordering::Relaxed);
    }

    /// Back to the state after reset (PSCI CPU_ON). The vCPU isn't loaded.
    pub fn reset(&self) {
        // SAFETY: see `Sync`: a vCPU that is off is loaded nowhere, and who starts it holds its domain's power lock.
        let state = unsafe { &mut *self.state.get() };
        state.vcpu.reset();
        state.float = float::Saved::new(Float([0; 66]));
        state.interface = Interface::default();
        state.timer_active = false;
    }

    /// Leaves nothing of a vCPU that goes off in this CPU that would go on by itself: its timer, and walks of its tables, which may end
    /// soon.
    pub fn abandon() {
        with_float(|unit| unit.forget(&mut FloatRegisters));
        vcpu::stop_timer(&mut This);
        Self::leave_tables();
    }

    /// This CPU walks nobody's tables until a vCPU is loaded.
    pub fn leave_tables() {
        stage2::leave(&mut This, NOBODY.load(Ordering::Relaxed));
    }

    /// Takes the vCPU out of this CPU.
    pub fn save(&self, timer_active: bool) {
        // SAFETY: see `Sync`: this CPU has the vCPU loaded.
        let State {
            vcpu,
            float,
            interface,
            timer_active: active,
        } = unsafe { &mut *self.state.get() };
        vcpu.save(&mut This, |_| {
            with_float(|unit| {
                unit.leave(&mut FloatRegisters, float, || {
                    FLOAT_NAMES.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
                });
            });
            interface.save();
        });
        *active = timer_active;
    }

    /// The vCPU that is in this CPU was trapped as it used FP or SIMD registers; it gets its own. Returns whether it can repeat that now.
    #[inline]
    pub fn use_float(&self) -> bool {
        // SAFETY: see `Sync`: this CPU has the vCPU loaded.
        let state = unsafe { &mut *self.state.get() };
        with_float(|unit| unit.used(&mut FloatRegisters, &mut state.float)).unwrap_or(false)
    }

    /// When the virtual timer of the vCPU that is in this CPU fires, if it is on.
    pub fn loaded_deadline(&self) -> Option<coproc_core::time::Instant> {
        let offset = self.timer_offset.load(Ordering::Relaxed);
        super::timer::guest_deadline(read!("cntv_ctl_el0"), read!("cntv_cval_el0"), offset)
    }

    /// Puts the vCPU into this CPU. Returns whether its virtual timer's interrupt was active.
    pub fn load(&self) -> bool {
        // SAFETY: see `Sync`: this CPU is about to run the vCPU.
        let state = unsafe { &mut *self.state.get() };
        let place = Place {
            vttbr: self.vttbr.load(Ordering::Relaxed),
            timer_offset: self.timer_offset.load(Ordering::Relaxed),
        };
        let speculates = errata::has(Errata::SPECULATIVE_TRANSLATION);
        let State {
            vcpu,
            float,
            interface,
            ..
        } = state;
        vcpu.load(&mut This, place, speculates, |_| {
            with_float(|unit| unit.enter(&mut FloatRegisters, float));
            interface.load();
        });
        state.timer_active
    }
}

/// Sets what this CPU runs guests under: see [`controls::begin`]. Tables for nobody are there.
pub fn begin(vtcr: u64) {
    let counters = read!("pmcr_el0") >> 11 & 0x1f;
    let nobody = NOBODY.load(Ordering::Relaxed);
    let newer = Newer::of(read!("id_aa64mmfr0_el1"), read!("id_aa64mmfr1_el1"));
    let midr = read!("midr_el1");
    controls::begin(&mut This, vtcr, nobody, counters, midr, newer);
}
