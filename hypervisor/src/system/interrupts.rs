//! Physical interrupts: taken here, whoever runs.

use super::domain::Activity;
use super::{console, passthrough, schedule, sharing};
use crate::arch::gic;
use core::sync::atomic::{AtomicU32, Ordering};

/// Interrupts served before guests get a chance again: more than there are sources.
const BATCH: usize = 64;

static HYPERVISOR_TIMER: AtomicU32 = AtomicU32::new(0);
static VIRTUAL_TIMER: AtomicU32 = AtomicU32::new(0);
static MAINTENANCE: AtomicU32 = AtomicU32::new(0);
static UART: AtomicU32 = AtomicU32::new(0);

/// Tells which interrupts are which; 0 for none.
pub fn identify(hypervisor_timer: u32, virtual_timer: u32, maintenance: u32, uart: u32) {
    HYPERVISOR_TIMER.store(hypervisor_timer, Ordering::Relaxed);
    VIRTUAL_TIMER.store(virtual_timer, Ordering::Relaxed);
    MAINTENANCE.store(maintenance, Ordering::Relaxed);
    UART.store(uart, Ordering::Relaxed);
}

/// The guests' virtual timer interrupt.
pub fn virtual_timer() -> u32 {
    VIRTUAL_TIMER.load(Ordering::Relaxed)
}

/// Serves what is pending on this CPU.
pub fn serve() {
    for _ in 0..BATCH {
        let Some(intid) = gic::acknowledge() else {
            return;
        };
        serve_one(intid);
    }
}

/// Serves one interrupt, to its priority drop. What stays active then is the guest's to deactivate. Not part of the loop, which is then short,
/// and ends sooner.
#[inline(never)]
fn serve_one(intid: u32) {
    let linked = match intid {
        0..32 => serve_private(intid),
        _ => passthrough::interrupt(intid).unwrap_or_else(|| serve_shared(intid)),
    };
    gic::drop_priority(intid);
    if !linked {
        gic::deactivate(intid);
    }
}

/// Returns whether the guest is to deactivate it.
fn serve_private(intid: u32) -> bool {
    if intid == gic::KICK {
        // What it is about was marked before: every way to a guest looks at it.
    } else if intid == VIRTUAL_TIMER.load(Ordering::Relaxed) {
        return virtual_timer_fired(intid);
    } else if intid == HYPERVISOR_TIMER.load(Ordering::Relaxed) {
        schedule::timer_expired();
    } else if intid == MAINTENANCE.load(Ordering::Relaxed) {
        // The condition holds until the list registers are as the interrupt controller wants them.
        if let Some(member) = schedule::loaded() {
            member.vcpu.demand_attention();
            schedule::synchronise(member);
        }
    } else {
        nobodys(intid);
    }
    false
}

/// Likewise: EL2's own devices, and those that are shared.
#[inline(never)]
fn serve_shared(intid: u32) -> bool {
    if intid == UART.load(Ordering::Relaxed) {
        console::receive();
    } else if !sharing::interrupt(intid) {
        nobodys(intid);
    }
    false
}

#[cold]
fn nobodys(intid: u32) {
    log::warn!("interrupt {intid} has no handler; it stays enabled in nobody's name");
}

fn virtual_timer_fired(intid: u32) -> bool {
    let Some(member) = schedule::loaded() else {
        return false;
    };
    if member.vcpu.activity() == Activity::Off {
        return false;
    }
    schedule::timer_taken();
    let kicks = member
        .domain
        .vgic
        .lock()
        .hardware_interrupt(member.vcpu.index, intid, intid);
    member.domain.kick(kicks);
    true
}
