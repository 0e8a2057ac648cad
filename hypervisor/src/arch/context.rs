//! A vCPU's registers, and what is exchanged when another vCPU runs next.
//!
//! General registers are saved at every exit, by the vectors, as far as the exit needs them. The rest stays in the hardware while EL2 works, since
//! EL2 uses none of it, and is exchanged only between two vCPUs; FP and SIMD registers only if they are used ([`float`]).

use super::cpu::{self, MAX_CPUS};
use super::errata;
use super::gic::v2;
use super::registers::{isb, read, write};
use crate::system::schedule::Member;
use aarch64_cpu::registers::{ESR_EL2, FAR_EL2, HPFAR_EL2};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::errata::Errata;
use hypervisor::lifecycle::exits::Exits;
use hypervisor::lifecycle::report;
use hypervisor::psci;
use hypervisor::trap::inject::{self, Before, Exception};
use hypervisor::trap::{controls, float};
use hypervisor::vgic::{CpuInterface, ListRegisters, Maintenance};
use spin::Once;
use tock_registers::interfaces::Readable;

/// What the vectors save: their layout is known to `vectors.S`.
#[repr(C, align(16))]
#[derive(Clone, Debug, Default)]
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

macro_rules! system_registers {
    ($($field:ident = $name:literal),* $(,)?) => {
        /// EL1 and EL0 system registers.
        #[derive(Clone, Debug, Default)]
        struct SystemRegisters { $($field: u64),* }

        impl SystemRegisters {
            fn save(&mut self) { $(self.$field = read!($name);)* }
            fn load(&self) { $(write!($name, self.$field);)* }
        }
    };
}

system_registers! {
    actlr = "actlr_el1", cpacr = "cpacr_el1",
    ttbr0 = "ttbr0_el1", ttbr1 = "ttbr1_el1", mair = "mair_el1", amair = "amair_el1",
    vbar = "vbar_el1", contextidr = "contextidr_el1", esr = "esr_el1", far = "far_el1",
    afsr0 = "afsr0_el1", afsr1 = "afsr1_el1", par = "par_el1", csselr = "csselr_el1",
    tpidr_el0 = "tpidr_el0", tpidrro = "tpidrro_el0", tpidr_el1 = "tpidr_el1",
    sp_el0 = "sp_el0", sp_el1 = "sp_el1", elr = "elr_el1", spsr = "spsr_el1",
    cntkctl = "cntkctl_el1", mdscr = "mdscr_el1",
}

/// What says whether and how EL1 and EL0 are translated.
struct Regime {
    sctlr: u64,
    tcr: u64,
}

impl Regime {
    /// SCTLR_EL1 after reset: MMU and caches off, the RES1 bits.
    const RESET: Self = Self {
        sctlr: 0x30d0_0800,
        tcr: 0,
    };

    fn save(&mut self) {
        self.sctlr = read!("sctlr_el1");
        self.tcr = read!("tcr_el1");
    }

    fn load(&self) {
        write!("sctlr_el1", self.sctlr);
        write!("tcr_el1", self.tcr);
    }

    /// Nothing is translated from here to [`Self::resume`], not even speculatively: no walk begins (TCR_EL1.EPD0, EPD1), and then with the MMU on
    /// (SCTLR_EL1.M) an address that isn't in the TLB has no translation.
    fn suspend() {
        write!("tcr_el1", read!("tcr_el1") | 1 << 7 | 1 << 23);
        isb(); // no walks before ...
        write!("sctlr_el1", read!("sctlr_el1") | 1);
        isb(); // ... the MMU is on, and both before any other register changes
    }

    /// In the opposite order: walks come last.
    fn resume(&self) {
        isb(); // stage 2 and all other registers are this vCPU's
        write!("sctlr_el1", self.sctlr);
        isb(); // with the MMU as it has it
        write!("tcr_el1", self.tcr);
    }
}

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
        let control = if trapped {
            controls::GUEST_NO_FLOAT
        } else {
            controls::GUEST_FLOAT
        };
        write!("cptr_el2", control);
        isb(); // in force before the registers are touched, here or by the guest
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

macro_rules! list_register {
    ($operation:ident, $index:expr $(, $value:expr)?) => {
        match $index {
            0 => $operation!("ich_lr0_el2" $(, $value)?),
            1 => $operation!("ich_lr1_el2" $(, $value)?),
            2 => $operation!("ich_lr2_el2" $(, $value)?),
            3 => $operation!("ich_lr3_el2" $(, $value)?),
            4 => $operation!("ich_lr4_el2" $(, $value)?),
            5 => $operation!("ich_lr5_el2" $(, $value)?),
            6 => $operation!("ich_lr6_el2" $(, $value)?),
            7 => $operation!("ich_lr7_el2" $(, $value)?),
            8 => $operation!("ich_lr8_el2" $(, $value)?),
            9 => $operation!("ich_lr9_el2" $(, $value)?),
            10 => $operation!("ich_lr10_el2" $(, $value)?),
            11 => $operation!("ich_lr11_el2" $(, $value)?),
            12 => $operation!("ich_lr12_el2" $(, $value)?),
            13 => $operation!("ich_lr13_el2" $(, $value)?),
            14 => $operation!("ich_lr14_el2" $(, $value)?),
            _ => $operation!("ich_lr15_el2" $(, $value)?),
        }
    };
}

/// Number of list registers (ICH_VTR_EL2.ListRegs + 1).
pub fn list_register_count() -> usize {
    if v2::in_use() {
        return v2::list_register_count();
    }
    (read!("ich_vtr_el2") & 0x1f) as usize + 1
}

/// Reads the list registers that `lists` says are in use.
pub fn read_lists(lists: &mut ListRegisters) {
    if v2::in_use() {
        return v2::read_lists(lists);
    }
    let mut used = lists.in_use;
    while used != 0 {
        let index = used.trailing_zeros() as usize;
        used &= used - 1;
        if let Some(slot) = lists.lr.get_mut(index) {
            *slot = list_register!(read, index);
        }
    }
}

/// Writes the list registers in `which` from `lists`.
pub fn write_lists(lists: &ListRegisters, which: u16) {
    if v2::in_use() {
        return v2::write_lists(lists, which);
    }
    let mut which = which;
    while which != 0 {
        let index = which.trailing_zeros() as usize;
        which &= which - 1;
        if let Some(value) = lists.lr.get(index) {
            list_register!(write, index, *value);
        }
    }
}

/// Empties the list registers in `which`.
pub fn clear_lists(which: u16) {
    if v2::in_use() {
        return v2::clear_lists(which);
    }
    let mut which = which;
    while which != 0 {
        let index = which.trailing_zeros();
        which &= which - 1;
        list_register!(write, index, 0);
    }
}

/// ICH_HCR_EL2: virtual CPU interface on, EOIcount 0, and these maintenance interrupts. With entries not present in list
/// registers the guest's ICC_DIR_EL1 traps, too (TDIR); a GICv2's GICV_DIR only counts.
pub fn set_interface_control(maintenance: Maintenance) {
    if v2::in_use() {
        return v2::set_interface_control(maintenance);
    }
    let deactivation = if maintenance.entry_not_present {
        1 << 14
    } else {
        0
    };
    write!("ich_hcr_el2", 1 | maintenance.hcr_bits() | deactivation);
}

/// ICH_HCR_EL2.EOIcount: deactivations that found no list register.
pub fn deactivations_missed() -> u32 {
    if v2::in_use() {
        return v2::deactivations_missed();
    }
    (read!("ich_hcr_el2") >> 27) as u32 & 0x1f
}

/// Whether the loaded guest's virtual timer asserts its interrupt: CNTV_CTL_EL0 ENABLE and ISTATUS, not IMASK.
pub fn timer_asserts() -> bool {
    read!("cntv_ctl_el0") & 7 == 5
}

/// What of the guest's CPU interface decides about signalling.
pub fn interface() -> CpuInterface {
    if v2::in_use() {
        return v2::interface();
    }
    CpuInterface::from_vmcr(read!("ich_vmcr_el2"))
}

struct State {
    regime: Regime,
    system: SystemRegisters,
    float: float::Saved<Float>,
    vmcr: u64,
    active_priorities: [u64; 4],
    timer_control: u64,
    timer_compare: u64,
    vmpidr: u64,
    vpidr: u64,
    timer_active: bool,
}

/// VTTBR_EL2 while no vCPU is loaded: tables that map nothing.
static NOBODY: AtomicU64 = AtomicU64::new(0);

/// Tells what VTTBR_EL2 is while no vCPU is loaded. Once, before the first is.
pub fn use_when_empty(vttbr: u64) {
    NOBODY.store(vttbr, Ordering::Relaxed);
}

impl State {
    /// The CPU interface. Of a GICv3's active priorities, group 1's.
    fn save_interface(&mut self) {
        if v2::in_use() {
            (self.vmcr, self.active_priorities[0]) = v2::save_interface();
            return;
        }
        self.vmcr = read!("ich_vmcr_el2");
        let groups = priority_groups();
        self.active_priorities[0] = read!("ich_ap1r0_el2");
        if groups > 1 {
            self.active_priorities[1] = read!("ich_ap1r1_el2");
        }
        if groups > 2 {
            self.active_priorities[2] = read!("ich_ap1r2_el2");
            self.active_priorities[3] = read!("ich_ap1r3_el2");
        }
    }

    fn load_interface(&self) {
        if v2::in_use() {
            return v2::load_interface(self.vmcr, self.active_priorities[0]);
        }
        write!("ich_vmcr_el2", self.vmcr);
        let groups = priority_groups();
        write!("ich_ap1r0_el2", self.active_priorities[0]);
        if groups > 1 {
            write!("ich_ap1r1_el2", self.active_priorities[1]);
        }
        if groups > 2 {
            write!("ich_ap1r2_el2", self.active_priorities[2]);
            write!("ich_ap1r3_el2", self.active_priorities[3]);
        }
    }
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
                regime: Regime::RESET,
                system: SystemRegisters::default(),
                float: float::Saved::new(Float([0; 66])),
                vmcr: 0,
                active_priorities: [0; 4],
                timer_control: 0,
                timer_compare: 0,
                vmpidr: 1 << 31 | affinity,
                vpidr: read!("midr_el1"),
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
        state.regime = Regime::RESET;
        state.system = SystemRegisters::default();
        state.float = float::Saved::new(Float([0; 66]));
        state.vmcr = 0;
        state.active_priorities = [0; 4];
        state.timer_control = 0;
        state.timer_active = false;
    }

    /// Leaves nothing of a vCPU that goes off in this CPU that would go on by itself: its timer, and walks of its tables, which may end
    /// soon.
    pub fn abandon() {
        with_float(|unit| unit.forget(&mut FloatRegisters));
        write!("cntv_ctl_el0", 0);
        Self::leave_tables(); // also: the timer is off before its interrupt's state is looked at
    }

    /// This CPU walks nobody's tables until a vCPU is loaded.
    pub fn leave_tables() {
        write!("vttbr_el2", NOBODY.load(Ordering::Relaxed));
        isb(); // no walk begins in the old tables from here on
    }

    /// Takes the vCPU out of this CPU.
    pub fn save(&self, timer_active: bool) {
        // SAFETY: see `Sync`: this CPU has the vCPU loaded.
        let state = unsafe { &mut *self.state.get() };
        state.regime.save();
        state.system.save();
        with_float(|unit| {
            unit.leave(&mut FloatRegisters, &mut state.float, || {
                FLOAT_NAMES.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
            });
        });
        state.save_interface();
        state.timer_control = read!("cntv_ctl_el0");
        state.timer_compare = read!("cntv_cval_el0");
        state.timer_active = timer_active;
        write!("cntv_ctl_el0", 0);
        isb(); // the timer is off before its interrupt's state is looked at
    }

    /// The vCPU that is in this CPU was trapped as it used FP or SIMD registers; it gets its own. Returns whether it can repeat that now.
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
        let guarded = errata::has(Errata::SPECULATIVE_TRANSLATION);
        if guarded {
            Regime::suspend();
        } else {
            state.regime.load();
        }
        write!("vttbr_el2", self.vttbr.load(Ordering::Relaxed));
        write!("vmpidr_el2", state.vmpidr);
        write!("vpidr_el2", state.vpidr);
        state.system.load();
        with_float(|unit| unit.enter(&mut FloatRegisters, &mut state.float));
        state.load_interface();
        write!("cntvoff_el2", self.timer_offset.load(Ordering::Relaxed));
        write!("cntv_cval_el0", state.timer_compare);
        write!("cntv_ctl_el0", state.timer_control);
        if guarded {
            state.regime.resume();
        }
        isb(); // all of it before the guest's first instruction
        state.timer_active
    }
}

/// Number of ICH_AP1R registers: ICH_VTR_EL2.PREbits 5 has one, 6 two, 7 four.
fn priority_groups() -> u32 {
    match (read!("ich_vtr_el2") >> 26) & 7 {
        0..=4 => 1,
        5 => 2,
        _ => 4,
    }
}

/// What the loaded guest's EL1 says about its last exception.
pub fn exception_state() -> report::Exception {
    report::Exception {
        sp: read!("sp_el1"),
        vbar: read!("vbar_el1"),
        esr: read!("esr_el1"),
        elr: read!("elr_el1"),
        far: read!("far_el1"),
        spsr: read!("spsr_el1"),
        sctlr: read!("sctlr_el1"),
        ttbr: [read!("ttbr0_el1"), read!("ttbr1_el1")],
    }
}

/// The loaded guest's VBAR_EL1.
pub fn vector_base() -> u64 {
    read!("vbar_el1")
}

/// Gives the running guest an exception; its registers are changed to go on at its vector.
pub fn inject(registers: &mut Registers, exception: Exception) {
    let before = Before {
        pc: registers.elr,
        pstate: registers.spsr,
        vbar: read!("vbar_el1"),
    };
    let after = inject::take(exception, before);
    write!("elr_el1", after.elr);
    write!("spsr_el1", after.spsr);
    write!("esr_el1", after.esr);
    if let Some(far) = after.far {
        write!("far_el1", far);
    }
    registers.elr = after.pc;
    registers.spsr = after.pstate;
}

/// Reads the ID register with this name (`trap::syndrome::encoding`).
pub fn identification(name: u32) -> u64 {
    macro_rules! table {
        ($($crm:literal $op2:literal $text:literal)*) => {
            match (name >> 3 & 0xf, name & 7) {
                $(($crm, $op2) => read!($text),)*
                _ => 0,
            }
        };
    }
    table! {
        1 0 "s3_0_c0_c1_0" 1 1 "s3_0_c0_c1_1" 1 2 "s3_0_c0_c1_2" 1 3 "s3_0_c0_c1_3"
        1 4 "s3_0_c0_c1_4" 1 5 "s3_0_c0_c1_5" 1 6 "s3_0_c0_c1_6" 1 7 "s3_0_c0_c1_7"
        2 0 "s3_0_c0_c2_0" 2 1 "s3_0_c0_c2_1" 2 2 "s3_0_c0_c2_2" 2 3 "s3_0_c0_c2_3"
        2 4 "s3_0_c0_c2_4" 2 5 "s3_0_c0_c2_5" 2 6 "s3_0_c0_c2_6" 2 7 "s3_0_c0_c2_7"
        3 0 "s3_0_c0_c3_0" 3 1 "s3_0_c0_c3_1" 3 2 "s3_0_c0_c3_2" 3 4 "s3_0_c0_c3_4"
        3 5 "s3_0_c0_c3_5" 3 6 "s3_0_c0_c3_6"
        4 0 "s3_0_c0_c4_0" 4 1 "s3_0_c0_c4_1" 4 2 "s3_0_c0_c4_2" 4 4 "s3_0_c0_c4_4" 4 5 "s3_0_c0_c4_5"
        5 0 "s3_0_c0_c5_0" 5 1 "s3_0_c0_c5_1" 5 4 "s3_0_c0_c5_4" 5 5 "s3_0_c0_c5_5"
        6 0 "s3_0_c0_c6_0" 6 1 "s3_0_c0_c6_1" 6 2 "s3_0_c0_c6_2" 6 3 "s3_0_c0_c6_3"
        7 0 "s3_0_c0_c7_0" 7 1 "s3_0_c0_c7_1" 7 2 "s3_0_c0_c7_2" 7 3 "s3_0_c0_c7_3" 7 4 "s3_0_c0_c7_4"
    }
}

/// The loaded guest's MDSCR_EL1, which is switched with it.
pub fn debug_control() -> u64 {
    read!("mdscr_el1")
}

/// Changes it: single-stepping (SS) and its lock (KDE, MDE, TDCC) are the guest's own; halting debug isn't offered.
pub fn set_debug_control(value: u64) {
    const GUEST: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;
    write!("mdscr_el1", value & GUEST);
}

/// Physical address bits that the CPU implements (ID_AA64MMFR0_EL1.PARange), at most 48.
pub fn physical_address_bits() -> u8 {
    match read!("id_aa64mmfr0_el1") & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// The syndrome of the exit that is being handled: ESR_EL2, FAR_EL2, HPFAR_EL2.
pub fn syndrome() -> (u64, u64, u64) {
    (ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get())
}

/// The guest-physical address that the loaded guest's stage 1 has for an address, if it has one: for faults that leave
/// HPFAR_EL2 without. As EL1 reads it.
pub fn translate(address: u64) -> Option<u64> {
    let result: u64;
    let before = read!("par_el1");
    // SAFETY: a translation changes only PAR_EL1, which is the guest's: it is put back.
    unsafe {
        core::arch::asm!(
            "at s1e1r, {address}", "isb", "mrs {result}, par_el1",
            address = in(reg) address, result = out(reg) result, options(nostack, preserves_flags)
        );
    }
    write!("par_el1", before);
    const FAILED: u64 = 1;
    (result & FAILED == 0).then_some(result & 0xf_ffff_ffff_f000 | address & 0xfff)
}

/// The vectors come here with a hypercall of a guest whose registers that a procedure call may change are saved. Returns whether it
/// was answered: 0 or 1.
#[unsafe(no_mangle)]
extern "C" fn baton_call(file: &RegisterFile) -> u64 {
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
extern "C" fn baton_access(file: &RegisterFile, esr: u64) -> Quick {
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
extern "C" fn baton_register(file: &RegisterFile, esr: u64) -> Quick {
    let Some(member) = file.owner.get() else {
        return Quick::Unserved;
    };
    // SAFETY: as in `baton_call`.
    let registers = unsafe { &mut *file.registers.get() };
    file.keep_word(esr);
    crate::system::emulation::register(*member, registers, esr)
}

/// Moves the guest on to its next instruction, while ELR stays in the system register.
#[inline(always)]
pub fn skip_instruction() {
    write!("elr_el2", read!("elr_el2").wrapping_add(4));
}

/// Guest-physical address of a stage 2 fault.
#[inline(always)]
pub fn fault_address() -> u64 {
    hypervisor::trap::syndrome::fault_address(read!("hpfar_el2"), read!("far_el2"))
}

/// The vectors come here with everything of the guest saved that EL2 uses; what this returns is resumed.
#[unsafe(no_mangle)]
extern "C" fn baton_exit(file: &RegisterFile, kind: u64) -> *mut Registers {
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

/// Sets this CPU's trap controls: see [`controls`].
pub fn set_traps() {
    write!("hcr_el2", controls::GUEST.bits());
    write!("cptr_el2", controls::GUEST_NO_FLOAT);
    let counters = (read!("pmcr_el0") >> 11) & 0x1f;
    write!("mdcr_el2", counters | controls::GUEST_DEBUG.bits());
    write!("hstr_el2", 0);
    isb(); // in force before a guest runs
}

/// Goes to the guest for the first time on this CPU; the stack of the caller is forgotten.
pub fn start(registers: *mut Registers) -> ! {
    unsafe extern "C" {
        fn resume_guest(registers: *mut Registers) -> !;
    }
    // SAFETY: the registers belong to the vCPU or firmware that was just loaded.
    unsafe { resume_guest(registers) }
}
