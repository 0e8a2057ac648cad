//! Two vCPUs that wake each other by turns, each asleep in WFI while it is the other's.
//!
//! On two CPUs this is what an SGI to another CPU costs; on one CPU every turn is a switch from one vCPU to the other. Interrupts stay
//! masked in PSTATE: a pending one ends the WFI and is acknowledged behind it, so no handler is part of the number.
//!
//! Before anything is counted both use their FP and SIMD registers by turns, and each must find its own.

use crate::exits::measure;
use core::arch::asm;
use core::sync::atomic::{AtomicBool, Ordering};
use guest_runtime::machine;

/// The interrupt that says "your turn".
const TURN: u32 = 2;

/// Turns with FP and SIMD registers: more than those for which a hypervisor may believe that they go on to be used.
const FLOAT_TURNS: u64 = 24;

/// The other side found something wrong in its registers.
static SPOILT: AtomicBool = AtomicBool::new(false);

/// Writes `value`, in each register another one, to V0 to V31; then passes the turn, waits for it, and gives whether all have it still. Every third
/// turn they are left alone.
fn float_turn(value: u64, to: u64) -> bool {
    if value.is_multiple_of(3) {
        pass_to(to);
        await_turn();
        return true;
    }
    // SAFETY: the compiler uses none of these registers for this target, and CPACR_EL1 lets them be used.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "msr cpacr_el1, {enable}", "isb", "msr fpcr, {mode}",
            "dup v0.2d, {value}",
            ".irp n, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "add {value}, {value}, #1", "dup v\\n\\().2d, {value}",
            ".endr",
            enable = in(reg) 3u64 << 20, mode = in(reg) (value & 3) << 22, value = inout(reg) value << 8 => _,
            options(nostack, nomem)
        );
    }
    pass_to(to);
    await_turn();
    let (mut wrong, mode): (u64, u64);
    // SAFETY: as above.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "mov {wrong}, xzr", "mrs {mode}, fpcr",
            ".irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
            "umov {part}, v\\n\\().d[0]", "eor {part}, {part}, {value}", "orr {wrong}, {wrong}, {part}",
            "umov {part}, v\\n\\().d[1]", "eor {part}, {part}, {value}", "orr {wrong}, {wrong}, {part}",
            "add {value}, {value}, #1",
            ".endr",
            wrong = out(reg) wrong, mode = out(reg) mode, part = out(reg) _, value = inout(reg) value << 8 => _,
            options(nostack, nomem)
        );
    }
    wrong |= mode ^ (value & 3) << 22;
    wrong == 0
}

fn prepare() {
    machine::start_interrupts();
    machine::mask_interrupts();
    machine::enable_interrupt(TURN);
}

fn pass_to(vcpu: u64) {
    machine::send_sgi(u64::from(TURN) << 24 | 1 << vcpu);
}

fn await_turn() {
    loop {
        machine::wait();
        let intid = machine::acknowledge();
        if intid == TURN {
            machine::end(intid);
            return;
        }
    }
}

/// Ticks of `turns` turns; there and back are two.
pub fn run(turns: u64) -> Result<u64, &'static str> {
    prepare();
    machine::start_second()?;
    // The other one says that it is ready.
    await_turn();
    let mut kept = true;
    for turn in 0..FLOAT_TURNS {
        kept &= float_turn(0x1000 + turn, 1);
    }
    if !kept || SPOILT.load(Ordering::Relaxed) {
        return Err("FP or SIMD registers changed while the other vCPU ran");
    }
    Ok(measure(turns / 2, |rounds| {
        for _ in 0..rounds {
            pass_to(1);
            await_turn();
        }
    }))
}

/// The other side.
#[unsafe(no_mangle)]
extern "C" fn guest_second(_context: u64) -> ! {
    prepare();
    pass_to(0);
    await_turn();
    for turn in 0..FLOAT_TURNS {
        if !float_turn(0x2001 + turn, 0) {
            SPOILT.store(true, Ordering::Relaxed);
        }
    }
    loop {
        pass_to(0);
        await_turn();
    }
}
