//! Physical interrupts: taken here, whoever runs.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

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
        let linked = serve_one(intid);
        gic::drop_priority(intid);
        if !linked {
            gic::deactivate(intid);
        }
    }
}

/// Serves one interrupt; returns whether the guest is to deactivate it.
fn serve_one(intid: u32) -> bool {
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
    } else if intid == UART.load(Ordering::Relaxed) {
        console::receive();
    } else if !sharing::interrupt(intid) {
        let linked = passthrough::interrupt(intid);
        if linked.is_none() {
            log::warn!("interrupt {intid} has no handler; it stays enabled in nobody's name");
        }
        return linked == Some(true);
    }
    false
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
