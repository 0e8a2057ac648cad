//! The SMMUv3 driver's way to its hardware, and its interrupts.

use super::{FRAMES, boot, passthrough, sharing};
use crate::arch::memory;
use crate::arch::mmio::Region;
use coproc_core::address::HostPhysical;
use coproc_core::register::Width;
use core::sync::atomic::{AtomicU32, Ordering};
use hypervisor::memory::frames::Piece;
use platforms::iommu::smmuv3::SmmuBus;

/// Registers by MMIO, memory from the machine's frames.
pub struct Bus(pub Region);

impl SmmuBus for Bus {
    fn read32(&mut self, offset: u64) -> u32 {
        self.0.read32(offset)
    }

    fn write32(&mut self, offset: u64, value: u32) {
        self.0.write32(offset, value);
    }

    fn write64(&mut self, offset: u64, value: u64) {
        self.0.write(offset, Width::Double, value);
    }

    fn allocate(&mut self, bytes: u64, alignment: u64) -> Option<HostPhysical> {
        let piece = FRAMES.lock().allocate(bytes, alignment).ok()?;
        memory::zero(piece.start, piece.size);
        memory::flush(piece.start, piece.size);
        Some(piece.start)
    }

    fn free(&mut self, start: HostPhysical, bytes: u64) {
        if let Err(error) = FRAMES.lock().free(Piece { start, size: bytes }) {
            log::error!("smmu: {error}");
        }
    }

    fn read_memory(&self, address: HostPhysical) -> u64 {
        memory::read64(address)
    }

    fn write_memory(&mut self, address: HostPhysical, value: u64) {
        memory::write64(address, value);
    }

    fn publish(&mut self, start: HostPhysical, bytes: u64, coherent: bool) {
        memory::publish_to_device(start, bytes, coherent);
    }

    fn observe(&mut self, start: HostPhysical, bytes: u64, coherent: bool) {
        memory::observe_device(start, bytes, coherent);
    }
}

static EVENT: AtomicU32 = AtomicU32::new(0);
static ERROR: AtomicU32 = AtomicU32::new(0);

/// Tells which interrupts are the SMMU's; 0 for none.
pub fn identify(event: u32, error: u32) {
    EVENT.store(event, Ordering::Relaxed);
    ERROR.store(error, Ordering::Relaxed);
}

/// Serves an interrupt; returns whether it is the SMMU's.
pub fn interrupt(intid: u32) -> bool {
    if intid != EVENT.load(Ordering::Relaxed) && intid != ERROR.load(Ordering::Relaxed) {
        return false;
    }
    if let Some(iommu) = boot::iommu() {
        // The lines are edges: what is left is asked for by the coprocessors, at the latest at the next switch.
        for _ in 0..4 {
            if !iommu.lock().collect_faults() {
                break;
            }
        }
    }
    sharing::collect_faults();
    passthrough::collect_faults();
    true
}
