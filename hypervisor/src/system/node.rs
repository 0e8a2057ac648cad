//! A coprocessor that the machine's tree describes: any number of windows, interrupts and streams.
//!
//! It has no configuration space, so its source of interrupts is the distributor. Two things follow. What tells that a line is asserted is that a CPU has *taken* it:
//! the framework is told so and asks the driver right afterwards, so that nothing is believed that the device doesn't say itself. And
//! each level-sensitive line is masked by itself, while the domain whose context is in the device has it pending, so that one that isn't served keeps
//! no other from coming. An edge is never masked: it comes once for each time.

use super::domain::Domain;
use super::sharing::{Registers, Share};
use crate::arch::gic::SharedLine;
use crate::arch::mmio::Region;
use alloc::vec::Vec;
use coproc_core::driver::Window;
use coproc_core::id::{StreamId, VcoprocId};
use coproc_core::iommu::{Faults, Iommu, IommuError, Target};
use hypervisor::vgic::Line;
use platforms::translation::Stage2Attributes;

/// A physical interrupt.
struct Wire {
    line: SharedLine,
    edge: bool,
    masked: bool,
    /// A CPU has taken it, and the framework is being told; of an edge: or will be.
    taken: bool,
}

impl Wire {
    fn mask(&mut self, masked: bool) {
        if core::mem::replace(&mut self.masked, masked) != masked {
            self.line.mask(masked);
        }
    }
}

/// The device.
pub struct Node {
    /// Its registers.
    pub registers: Registers<Vec<Option<Region>>>,
    /// The driver's windows.
    windows: &'static [Window],
    wires: Vec<Wire>,
    /// Its streams; if there are none, the framework's questions about them have been answered when they are asked.
    pub streams: Vec<StreamId>,
    /// Whose context is in the device and in use, or about to be.
    owner: Option<VcoprocId>,
}

impl Node {
    /// A device with these registers by window index, and these interrupts, edge-triggered or not, which are enabled. They are masked from here on.
    #[cfg(feature = "sharing")]
    pub fn new(
        regions: Vec<Option<Region>>,
        windows: &'static [Window],
        lines: impl Iterator<Item = (SharedLine, bool)>,
        streams: Vec<StreamId>,
    ) -> Self {
        let wire = |(line, edge): (SharedLine, bool)| {
            line.mask(true);
            Wire {
                line,
                edge,
                masked: true,
                taken: false,
            }
        };
        Self {
            registers: Registers { regions },
            windows,
            wires: lines.map(wire).collect(),
            streams,
            owner: None,
        }
    }

    /// The numbers of its interrupts.
    #[cfg(feature = "sharing")]
    pub fn interrupts(&self) -> impl Iterator<Item = u32> {
        self.wires.iter().map(|wire| wire.line.intid())
    }

    /// A CPU took the interrupt.
    pub fn taken(&mut self, index: usize) {
        if let Some(wire) = self.wires.get_mut(index) {
            wire.taken = true;
        }
    }

    /// The framework knows of it.
    pub fn told(&mut self, index: usize) {
        if let Some(wire) = self.wires.get_mut(index).filter(|wire| !wire.edge) {
            wire.taken = false;
        }
    }

    /// Nothing comes from it until it is opened.
    pub fn isolate(&mut self) {
        self.owner = None;
        for wire in &mut self.wires {
            wire.mask(true);
            wire.taken = false;
        }
    }

    /// Edges may come. A level may when somebody owns the device.
    pub fn open(&mut self) {
        for wire in self.wires.iter_mut().filter(|wire| wire.edge) {
            wire.line.forget();
            wire.mask(false);
        }
    }

    /// Masks what was taken, or lets all come.
    #[inline(never)]
    pub fn mask(&mut self, masked: bool) {
        for wire in self.wires.iter_mut().filter(|wire| !wire.edge) {
            if !masked || wire.taken {
                wire.mask(masked);
            }
        }
    }

    /// Whether the interrupt was taken.
    pub fn asserted(&self, index: usize) -> bool {
        self.wires.get(index).is_some_and(|wire| wire.taken)
    }

    /// Whether no interrupt of the device, which is quiet, is on its way: then what comes is another's.
    #[inline(never)]
    pub fn settled(&mut self) -> bool {
        let mut settled = true;
        for wire in &mut self.wires {
            settled &= !wire.line.is_active();
            if wire.edge {
                wire.line.forget();
                wire.taken = false;
            }
        }
        settled
    }

    /// Sets a line of a domain.
    #[inline(never)]
    pub fn set_interrupt(
        &mut self,
        share: &mut Share,
        domain: &Domain,
        index: usize,
        pending: bool,
    ) {
        let fixtures = domain.fixtures.read();
        let fixture = fixtures.get(usize::from(share.slot));
        let spi = fixture.and_then(|fixture| fixture.spis.get(index).copied());
        drop(fixtures);
        let (Some(wire), Some(spi)) = (self.wires.get_mut(index), spi) else {
            return;
        };
        let line = Line::Spi(spi.wrapping_add(32));
        let bit = 1_u64.wrapping_shl(index as u32);
        let before = share.lines & bit != 0;
        share.lines = if pending {
            share.lines | bit
        } else {
            share.lines & !bit
        };
        let owns = self.owner == Some(share.who);
        if wire.edge {
            let again = owns && core::mem::take(&mut wire.taken);
            if pending && (again || !before) {
                let kicks = domain.vgic.lock().pulse(line);
                domain.kick(kicks);
            }
            return;
        }
        if owns {
            wire.mask(pending);
        }
        if pending != before {
            domain.set_line(line, pending);
        }
    }

    /// Maps the direct windows where the domain's tree has them. `false`: it couldn't be done.
    pub fn map_windows(&self, share: &mut Share, domain: &Domain) -> bool {
        let fixtures = domain.fixtures.read();
        let Some(fixture) = fixtures.get(usize::from(share.slot)) else {
            return false;
        };
        let direct = self.windows.iter().filter(|window| window.direct);
        for window in direct {
            let Some(pages) = fixture.registers.get(window.index) else {
                return false;
            };
            let how = Stage2Attributes::DEVICE.encode();
            let mapped = domain
                .stage2
                .lock()
                .map(pages.at, pages.host, pages.size, how);
            if let Err(error) = mapped {
                log::error!(
                    "{}: window {} can't be mapped at {:#x}: {error}",
                    share.who,
                    window.name,
                    pages.at
                );
                return false;
            }
            share.mapped.push((pages.at, pages.size));
        }
        !share.mapped.is_empty()
    }

    /// Whose context the device is to work with.
    pub fn belongs_to(&mut self, who: Option<VcoprocId>) {
        self.owner = who;
    }

    /// Points its streams.
    ///
    /// # Errors
    /// [`IommuError`].
    #[inline(never)]
    pub fn point(&self, iommu: &mut dyn Iommu, target: Target) -> Result<(), IommuError> {
        let mut streams = self.streams.iter();
        streams.try_for_each(|stream| iommu.point(*stream, target))
    }

    /// Takes what was recorded against its streams.
    #[inline(never)]
    pub fn take_faults(&self, iommu: &mut dyn Iommu) -> Faults {
        let mut all = Faults::default();
        for stream in &self.streams {
            let found = iommu.take_faults(*stream);
            all.count = all.count.saturating_add(found.count);
            all.overflow |= found.overflow;
            if found.any() {
                (all.last, all.write) = (found.last, found.write);
            }
        }
        all
    }
}
