//! The machine's memory, handed out as boot hands it out.
//!
//! Where Baton and the tree lie is the boot loader's choice: QEMU's is taken, 2 MiB and 128 MiB into RAM. Translation tables are
//! counted, generously, not built.

use control_plane::config::machine::Machine;
use control_plane::config::{Configuration, DomainConfig};
use control_plane::devicetree::{Error, Region};
use control_plane::memory::frames::{FrameError, Frames, Piece};
use coproc_core::address::{HostPhysical, PAGE_SIZE};

const BATON: u64 = 2 << 20;
const TREE: u64 = 128 << 20;

/// Free memory.
#[derive(Debug)]
pub struct Ram(Frames);

/// What is somebody's.
#[derive(Debug, Default)]
pub struct Taken(Vec<Piece>);

impl Ram {
    /// The machine's, without what is taken before any domain is.
    pub fn new(machine: &Machine, configuration: &Configuration, baton: u64, tree: u64) -> Self {
        let start = machine.memory.first().map_or(0, |bank| bank.address);
        let place = |offset, size| Region {
            address: start.saturating_add(offset),
            size,
        };
        let taken = [place(BATON, baton), place(TREE, tree)];
        let mut frames = Frames::new();
        for region in configuration.free_memory(machine, taken) {
            // Free ranges don't overlap, so it's never refused.
            let _ = frames.add(HostPhysical::new(region.address), region.size);
        }
        Self(frames)
    }

    /// Bytes free.
    pub fn free(&self) -> u64 {
        self.0.total()
    }

    /// A domain's RAM.
    pub fn domain(&mut self, config: &DomainConfig, taken: &mut Taken) -> Result<(), Error> {
        config.take_memory(&mut self.0, &mut taken.0)
    }

    /// Its tables and, if it begins with firmware, its flash.
    pub fn tables(&mut self, config: &DomainConfig, taken: &mut Taken) -> Result<(), Error> {
        // One for each GiB, those above, those of devices.
        self.take(tables(config.memory), PAGE_SIZE, taken)
            .map_err(|_| {
                let found = "stage 2: no memory".to_owned();
                Error::new(config.path.clone(), found, "memory for translation tables")
            })?;
        if config.firmware {
            taken.0.extend(config.take_flash(&mut self.0)?);
        }
        Ok(())
    }

    /// The tables of an IOMMU's space of so many bytes.
    pub fn space(&mut self, bytes: u64, taken: &mut Taken) -> Result<(), FrameError> {
        self.take(tables(bytes), PAGE_SIZE, taken)
    }

    /// One piece.
    pub fn take(&mut self, size: u64, align: u64, taken: &mut Taken) -> Result<(), FrameError> {
        let size = size.next_multiple_of(PAGE_SIZE);
        if size > 0 {
            taken.0.push(self.0.allocate(size, align)?);
        }
        Ok(())
    }

    /// Everything back.
    pub fn give_back(&mut self, taken: Taken) {
        for piece in taken.0 {
            // It was taken from here.
            let _ = self.0.free(piece);
        }
    }
}

/// Bytes of the tables that map so many bytes by blocks.
const fn tables(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 30).saturating_add(6) * PAGE_SIZE
}
