//! Messages of a domain's PCI functions: their ends, and looking again at what they came from.
//!
//! The frame is the library's, and so is when to look ([`Signals`]). Sources are sampled through the coprocessor's lock, which comes
//! before the bus's: so first it's asked who is concerned, then sampled, then told.

use super::domain::Domain;
use super::exit::{Answer, within};
use super::sharing::{self, Link};
use crate::arch::timer;
use arrayvec::ArrayVec;
use coproc_core::register::{Operation, Width};
use coproc_core::time::Instant;
use core::sync::atomic::Ordering;
use hypervisor::guest_tree::layout;
use hypervisor::v2m;
use hypervisor::vgic::Line;
use hypervisor::vpci::{SLOTS, Signals, VirtualFunction};

const NEVER: u64 = u64::MAX;

/// An access to the domain's frame; `None` if it isn't there.
pub fn access(domain: &Domain, at: u64, width: Width, operation: Operation) -> Option<Answer> {
    let offset = within(at, layout::V2M_BASE, layout::V2M_SIZE)?;
    let value = match operation {
        Operation::Read => v2m::read(offset, width),
        Operation::Write(value) => {
            if let Some(intid) = v2m::write(offset, width, value) {
                let kicks = domain.vgic.lock().pulse(Line::Spi(intid));
                domain.kick(kicks);
            }
            0
        }
    };
    Some(Answer::Value(value))
}

/// The domain ended an interrupt that a message can be.
pub fn ended(domain: &Domain, intid: u32) {
    let mut meant: ArrayVec<(u8, Link), SLOTS> = ArrayVec::new();
    {
        let pci = domain.pci.lock();
        for (slot, link) in (0..).zip(&pci.links) {
            let Some(link) = link else { continue };
            let sent = pci.bus.function(slot).map(VirtualFunction::msi);
            if sent.is_some_and(|msi| msi.enabled() && v2m::target(msi.message()) == Some(intid)) {
                let _ = meant.try_push((slot, *link));
            }
        }
    }
    for (slot, link) in &meant {
        sharing::resample(link);
        let mut pci = domain.pci.lock();
        pci.signals.ended(*slot, timer::now());
        watch(domain, &pci.signals);
    }
}

/// Sees to it that [`look`] comes in time.
#[inline]
pub fn watch(domain: &Domain, signals: &Signals) {
    let Some(next) = signals.next_look() else {
        return;
    };
    // One that is no longer needed stays: it costs less to come once for nothing than to be moved with every message.
    if domain.look.fetch_min(next.as_nanos(), Ordering::SeqCst) > next.as_nanos() {
        domain.keep_time_here();
    }
}

/// Looks at the sources that are due.
pub fn look(domain: &Domain, now: Instant) {
    if domain.look.load(Ordering::SeqCst) > now.as_nanos() {
        return;
    }
    domain.look.store(NEVER, Ordering::SeqCst);
    let due = domain.pci.lock().signals.due(now);
    for slot in due {
        if let Some(link) = domain.link(usize::from(slot)) {
            sharing::resample(&link);
        }
        domain.pci.lock().signals.looked(slot, now);
    }
    domain.refresh_interrupts(&mut domain.pci.lock());
}
