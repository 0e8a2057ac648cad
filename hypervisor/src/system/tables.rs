//! Memory for stage 2 tables: frames of the machine's RAM, reached through the linear mapping.

use crate::arch::memory;
use crate::system::FRAMES;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use hypervisor::memory::frames::Piece;
use platforms::translation::TableMemory;

/// Frames for tables that a walker reads coherently (the CPU's), or not.
#[derive(Clone, Copy, Debug)]
pub struct TableFrames {
    /// Whether the walker looks into the CPUs' caches.
    pub coherent: bool,
}

impl TableMemory for TableFrames {
    fn allocate(&mut self) -> Option<HostPhysical> {
        self.allocate_contiguous(1, PAGE_SIZE)
    }

    fn allocate_contiguous(&mut self, frames: usize, alignment: u64) -> Option<HostPhysical> {
        let size = PAGE_SIZE.checked_mul(frames as u64)?;
        let piece = FRAMES
            .lock()
            .allocate(size, alignment.max(PAGE_SIZE))
            .ok()?;
        memory::zero(piece.start, piece.size);
        Some(piece.start)
    }

    fn free(&mut self, frame: HostPhysical) {
        if let Err(error) = FRAMES.lock().free(Piece {
            start: frame,
            size: PAGE_SIZE,
        }) {
            log::error!("tables: {error}");
        }
    }

    fn read(&self, descriptor: HostPhysical) -> u64 {
        memory::read64(descriptor)
    }

    fn write(&mut self, descriptor: HostPhysical, value: u64) {
        memory::write64(descriptor, value);
    }

    fn publish(&mut self, start: HostPhysical, bytes: u64) {
        memory::publish(start, bytes, self.coherent);
    }
}
