//! Two vCPUs that wake each other by turns, each asleep in WFI while it is the other's.
//!
//! On two CPUs this is what an SGI to another CPU costs; on one CPU every turn is a switch from one vCPU to the other. Interrupts stay
//! masked in PSTATE: a pending one ends the WFI and is acknowledged behind it, so no handler is part of the number.

use crate::exits::measure;
use guest_runtime::machine;

/// The interrupt that says "your turn".
const TURN: u32 = 2;

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
    loop {
        pass_to(0);
        await_turn();
    }
}
