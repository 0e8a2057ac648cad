//! Where a domain finds the devices that it was given.
//!
//! Not where the host has them: a domain's address map is QEMU `virt`'s wherever Baton runs, so anything may be in
//! the way, RAM mostly, and a rule that held on some boards only would be no rule. Registers are
//! laid out one after another in a window that nothing else is in, interrupts are the next SPIs that nothing else uses, functions get PCI's slots from
//! the last one down; all in the order of the list, so that it is the same at each boot.

mod line;
#[cfg(test)]
mod tests;

pub use line::{Arrival, Line};

use crate::config::{Fixture, Passed, PassedNode};
use crate::guest_tree::layout::{
    PASSTHROUGH_BASE, PASSTHROUGH_SIZE, PASSTHROUGH_SPI, PASSTHROUGH_SPIS, PCI_SLOTS,
};
use alloc::vec::Vec;
use coproc_core::address::{HostPhysical, PAGE_SIZE};

/// Most PCI functions of one domain.
pub const FUNCTION_LIMIT: usize = 16;
/// A mapping that is so large is aligned to it: one block.
const BLOCK: u64 = 2 << 20;

/// Registers of a device: whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pages {
    /// Where the domain has them.
    pub at: u64,
    /// Where they are.
    pub host: HostPhysical,
    /// Bytes, a multiple of 4 KiB.
    pub size: u64,
}

/// Where the domain finds one device.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Place {
    /// Each region of its registers, in the order of `reg`. A function has none: the domain places it.
    pub registers: Vec<Pages>,
    /// The SPI (counted from 0) of each of its interrupts. A function has one.
    pub spis: Vec<u32>,
    /// The slot of a function.
    pub slot: Option<u8>,
}

/// Why devices don't fit into a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Full {
    /// The window is too small.
    #[error("registers beyond {} MiB", PASSTHROUGH_SIZE >> 20)]
    Registers,
    /// There are not so many SPIs.
    #[error("more than {PASSTHROUGH_SPIS} interrupts")]
    Interrupts,
    /// There are not so many slots.
    #[error("more than {FUNCTION_LIMIT} PCI functions")]
    Functions,
}

/// Gives each device its place: those that are the domain's own, then the nodes of its coprocs.
///
/// # Errors
/// [`Full`].
pub fn plan(devices: &[Passed], fixtures: &[Fixture]) -> Result<Vec<Place>, Full> {
    let mut room = Room {
        next: PASSTHROUGH_BASE,
        spis: PASSTHROUGH_SPI..PASSTHROUGH_SPI.saturating_add(PASSTHROUGH_SPIS),
    };
    let mut slots = (0..PCI_SLOTS as u8).rev().take(FUNCTION_LIMIT);
    let mut places = Vec::with_capacity(devices.len().saturating_add(fixtures.len()));
    for device in devices {
        places.push(match device {
            Passed::Node(node) => room.place(node)?,
            Passed::Pci(..) => Place {
                slot: Some(slots.next().ok_or(Full::Functions)?),
                spis: Vec::from([room.spi()?]),
                registers: Vec::new(),
            },
        });
    }
    for fixture in fixtures {
        places.push(room.place(&fixture.node)?);
    }
    Ok(places)
}

/// What is left.
struct Room {
    next: u64,
    spis: core::ops::Range<u32>,
}

impl Room {
    fn spi(&mut self) -> Result<u32, Full> {
        self.spis.next().ok_or(Full::Interrupts)
    }

    fn place(&mut self, node: &PassedNode) -> Result<Place, Full> {
        let end = PASSTHROUGH_BASE.saturating_add(PASSTHROUGH_SIZE);
        let mut place = Place::default();
        for region in &node.registers {
            let size = region.size.checked_next_multiple_of(PAGE_SIZE);
            let size = size.ok_or(Full::Registers)?;
            let alignment = if size >= BLOCK { BLOCK } else { PAGE_SIZE };
            let at = self.next.checked_next_multiple_of(alignment);
            let at = at.ok_or(Full::Registers)?;
            let behind = at.checked_add(size).filter(|behind| *behind <= end);
            self.next = behind.ok_or(Full::Registers)?;
            place.registers.push(Pages {
                at,
                host: HostPhysical::new(region.address),
                size,
            });
        }
        for _ in &node.interrupts {
            place.spis.push(self.spi()?);
        }
        Ok(place)
    }
}
