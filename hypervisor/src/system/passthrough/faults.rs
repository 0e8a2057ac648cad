//! DMA of a domain's own devices that the IOMMU stopped.

use super::Device;
use crate::arch::timer;
use crate::system::boot;
use crate::system::domain::Domain;
use coproc_core::address::DeviceAddress;
use coproc_core::iommu::Faults;
use coproc_core::time::{Duration, Instant};

/// A device's faults are told at most this often.
const MESSAGES: Duration = Duration::from_secs(1);

/// IOMMU faults of a device.
#[derive(Default)]
pub(super) struct Told {
    pub all: u64,
    untold: u64,
    pub last: Option<DeviceAddress>,
    told: Option<Instant>,
}

/// The IOMMU has records: those of devices here are noted.
pub fn collect() {
    let Some(iommu) = boot::iommu() else { return };
    for domain in crate::system::domains() {
        for device in &domain.given.devices {
            for stream in &device.streams {
                let faults = iommu.lock().take_faults(*stream);
                if faults.count > 0 {
                    note(domain, device, faults);
                }
            }
        }
    }
}

fn note(domain: &Domain, device: &Device, faults: Faults) {
    let mut told = device.faults.lock();
    told.all = told.all.saturating_add(faults.count);
    told.untold = told.untold.saturating_add(faults.count);
    told.last = faults.last.or(told.last);
    let now = timer::now();
    if told.told.is_none_or(|before| now.since(before) >= MESSAGES) {
        let kind = if faults.write { "write" } else { "read" };
        let more = if faults.overflow { " or more" } else { "" };
        log::warn!(
            "{}: {}: DMA outside its memory: {}{more} faults, last a {kind} at {}",
            domain.id,
            device.name,
            told.untold,
            faults.last.unwrap_or_default()
        );
        told.untold = 0;
        told.told = Some(now);
    }
}
