//! PCIe host bridges with ECAM (binding `pci-host-ecam-generic`; IEEE 1275 PCI bus binding 2.1).

use super::gic::{self, IntId, Interrupt};
use crate::config::PciFunction;
use crate::devicetree::{Error, Node, Region, Tree};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::id::StreamId;

/// Cells of a PCI address: phys.hi, phys.mid, phys.low.
const ADDRESS_CELLS: usize = 3;
/// Bytes of ECAM for one bus.
const BUS_SIZE: u64 = 1 << 20;

/// A PCIe host bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciHost {
    /// Path of its node.
    pub path: String,
    /// Configuration space: 4 KiB for each function, 1 MiB for each bus, beginning with `first_bus`.
    pub ecam: Region,
    /// The segment (Linux: PCI domain).
    pub segment: u16,
    /// First bus number.
    pub first_bus: u8,
    /// Last bus number.
    pub last_bus: u8,
    /// Windows for BARs.
    pub windows: Vec<PciWindow>,
    /// Whether DMA is coherent with the CPUs' caches.
    pub dma_coherent: bool,
    intx: Vec<IntxEntry>,
    /// phys.hi and the pin under `interrupt-map-mask`.
    intx_mask: (u32, u32),
    streams: Vec<StreamEntry>,
    stream_mask: u32,
}

/// A window through which the CPU reaches PCI memory or I/O space.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciWindow {
    /// Which space.
    pub kind: WindowKind,
    /// Whether it's prefetchable.
    pub prefetchable: bool,
    /// Its first address on the PCI side: what a BAR holds.
    pub pci_address: u64,
    /// Where the CPU sees it.
    pub cpu: Region,
}

/// The spaces of PCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WindowKind {
    /// I/O space.
    Io,
    /// Memory space below 4 GiB.
    Mem32,
    /// Memory space of 64-bit addresses.
    Mem64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct IntxEntry {
    phys_hi: u32,
    pin: u32,
    interrupt: Interrupt,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct StreamEntry {
    requester: u32,
    length: u32,
    smmu: usize,
    stream: u32,
}

impl PciHost {
    /// Whether this bridge leads to the function's bus.
    pub fn has_bus_of(&self, function: PciFunction) -> bool {
        function.segment == self.segment && (self.first_bus..=self.last_bus).contains(&function.bus)
    }

    /// Whether the function is on its own bus, not behind another bridge.
    pub fn has_on_own_bus(&self, function: PciFunction) -> bool {
        function.segment == self.segment && function.bus == self.first_bus
    }

    /// The interrupt that INTx `pin` (1 = INTA to 4 = INTD) of a function *on the root bus* arrives as. For
    /// one behind bridges pass the root port, with the pin swizzled at each bridge on the way.
    pub fn intx_interrupt(&self, function: PciFunction, pin: u8) -> Option<Interrupt> {
        let (address_mask, pin_mask) = self.intx_mask;
        let address = (u32::from(function.requester_id()) << 8) & address_mask;
        let pin = u32::from(pin) & pin_mask;
        self.intx
            .iter()
            .find(|entry| entry.phys_hi & address_mask == address && entry.pin & pin_mask == pin)
            .map(|entry| entry.interrupt)
    }

    /// Whether INTx of a function below it may arrive as this interrupt.
    pub fn raises(&self, intid: IntId) -> bool {
        let mut entries = self.intx.iter();
        entries.any(|entry| entry.interrupt.intid == intid)
    }

    /// The SMMU (index in [`Machine::smmus`](super::Machine::smmus)) that translates for a function, and the stream it
    /// sees. `None` if no SMMUv3 translates its DMA.
    pub fn stream(&self, function: PciFunction) -> Option<(usize, StreamId)> {
        let requester = u32::from(function.requester_id()) & self.stream_mask;
        self.streams.iter().find_map(|entry| {
            let offset = requester
                .checked_sub(entry.requester)
                .filter(|offset| *offset < entry.length)?;
            Some((entry.smmu, StreamId(entry.stream.checked_add(offset)?)))
        })
    }

    /// The CPU's view of a span of PCI addresses that lies in one window of this kind.
    pub fn to_cpu(&self, kind: WindowKind, pci: Region) -> Option<Region> {
        self.windows
            .iter()
            .filter(|window| window.kind == kind)
            .find_map(|window| {
                let whole = Region {
                    address: window.pci_address,
                    size: window.cpu.size,
                };
                let offset = pci
                    .address
                    .checked_sub(window.pci_address)
                    .filter(|_| whole.contains(&pci))?;
                Some(Region {
                    address: window.cpu.address.checked_add(offset)?,
                    size: pci.size,
                })
            })
    }

    /// Address of a function's 4 KiB of configuration space.
    pub fn configuration_space(&self, function: PciFunction) -> Option<Region> {
        if !self.has_bus_of(function) {
            return None;
        }
        let base = (u64::from(self.first_bus)) << 8;
        let offset = u64::from(function.requester_id())
            .checked_sub(base)?
            .checked_mul(4096)?;
        Some(Region {
            address: self.ecam.address.checked_add(offset)?,
            size: 4096,
        })
    }
}

pub(super) fn find_all(tree: &Tree<'_>, smmus: &[Node<'_>]) -> Result<Vec<PciHost>, Error> {
    let mut hosts: Vec<PciHost> = Vec::new();
    for node in tree.find_compatible(&["pci-host-ecam-generic"]) {
        let host = host(&node, smmus)?;
        let clash = hosts.iter().find(|other| {
            other.segment == host.segment
                && other.first_bus <= host.last_bus
                && host.first_bus <= other.last_bus
        });
        if let Some(other) = clash {
            return Err(node
                .error(
                    format!("segment {} and buses of {}", host.segment, other.path),
                    "a segment of its own",
                )
                .property("linux,pci-domain"));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

fn host(node: &Node<'_>, smmus: &[Node<'_>]) -> Result<PciHost, Error> {
    let regions = node.cpu_reg()?;
    let ecam = *regions
        .first()
        .ok_or_else(|| node.error("missing", "the ECAM region").property("reg"))?;
    let (first_bus, last_bus) = match node.property("bus-range") {
        None => (0, u8::MAX),
        Some(range) => {
            let mut cells = range.cells()?;
            let mut bus = || cells.next().and_then(|bus| u8::try_from(bus).ok());
            bus()
                .zip(bus())
                .filter(|(first, last)| first <= last)
                .ok_or_else(|| {
                    range.error(
                        "no range of buses",
                        "two cells, first and last bus, 0 to 255",
                    )
                })?
        }
    };
    let buses = u64::from(last_bus.saturating_sub(first_bus)).saturating_add(1);
    if ecam.size < buses.saturating_mul(BUS_SIZE) {
        return Err(node
            .error(
                format!("{:#x} bytes of ECAM", ecam.size),
                format!("1 MiB for each of {buses} buses"),
            )
            .property("reg"));
    }
    let segment = match node.property("linux,pci-domain") {
        None => 0,
        Some(property) => {
            let value = property.u32()?;
            u16::try_from(value)
                .map_err(|_| property.error(format!("{value:#x}"), "at most 0xffff"))?
        }
    };
    if node.address_cells()? != ADDRESS_CELLS {
        return Err(node
            .error(format!("{}", node.address_cells()?), "3 for a PCI bus")
            .property("#address-cells"));
    }
    let (intx, intx_mask) = intx(node)?;
    let stream_mask = node
        .property("iommu-map-mask")
        .map(|property| property.u32())
        .transpose()?;
    Ok(PciHost {
        path: node.path(),
        ecam,
        segment,
        first_bus,
        last_bus,
        windows: windows(node)?,
        dma_coherent: node.is_dma_coherent(),
        intx,
        intx_mask,
        streams: streams(node, smmus)?,
        stream_mask: stream_mask.unwrap_or(u32::MAX),
    })
}

fn windows(node: &Node<'_>) -> Result<Vec<PciWindow>, Error> {
    let ranges = node.required("ranges", "the windows of the bridge")?;
    let (Some(parent), size_cells) = (node.parent(), node.size_cells()?) else {
        return Ok(Vec::new());
    };
    let upper = parent.address_cells()?;
    let mut list = Vec::new();
    let group_size = ADDRESS_CELLS
        .saturating_add(upper)
        .saturating_add(size_cells);
    for mut group in ranges.groups(group_size)? {
        let bad = || {
            ranges.error(
                "a window beyond 64 bits",
                "addresses and sizes inside 64 bits",
            )
        };
        let phys_hi = group.next().ok_or_else(bad)?;
        let pci_address = group.number(2).ok_or_else(bad)?;
        let address = group.number(upper).ok_or_else(bad)?;
        let size = group.number(size_cells).ok_or_else(bad)?;
        let end = pci_address.checked_add(size).zip(address.checked_add(size));
        end.ok_or_else(bad)?;
        let kind = match (phys_hi >> 24) & 3 {
            1 => WindowKind::Io,
            2 => WindowKind::Mem32,
            3 => WindowKind::Mem64,
            _ => return Err(ranges.error("a window of configuration space", "I/O or memory space")),
        };
        let cpu = parent.to_cpu(Region { address, size })?;
        list.push(PciWindow {
            kind,
            prefetchable: phys_hi & (1 << 30) != 0,
            pci_address,
            cpu,
        });
    }
    Ok(list)
}

fn intx(node: &Node<'_>) -> Result<(Vec<IntxEntry>, (u32, u32)), Error> {
    let Some(map) = node.interrupt_map()? else {
        return Ok((Vec::new(), (0, 0)));
    };
    // Key: phys.hi, phys.mid, phys.low, pin. The middle two are 0 for a configuration address.
    let &[mask_hi, _, _, mask_pin] = map.mask.as_slice() else {
        return Err(node
            .error("not one cell", "1 for the INTx pins")
            .property("#interrupt-cells"));
    };
    let mut list = Vec::new();
    for entry in &map.entries {
        let mut child = entry.child;
        let phys_hi = child.next();
        let pin = child.nth(2);
        if let Some((phys_hi, pin)) = phys_hi.zip(pin) {
            list.push(IntxEntry {
                phys_hi,
                pin,
                interrupt: gic::decode(node, &entry.target)?,
            });
        }
    }
    Ok((list, (mask_hi, mask_pin)))
}

fn streams(node: &Node<'_>, smmus: &[Node<'_>]) -> Result<Vec<StreamEntry>, Error> {
    let Some(map) = node.property("iommu-map") else {
        return Ok(Vec::new());
    };
    let mut list = Vec::new();
    for mut group in map.groups(4)? {
        if let (Some(requester), Some(phandle), Some(stream), Some(length)) =
            (group.next(), group.next(), group.next(), group.next())
        {
            let iommu = map.resolve(phandle)?;
            // An IOMMU of another kind isn't driven here, so it counts as none.
            let Some(smmu) = smmus.iter().position(|node| node.path() == iommu.path()) else {
                continue;
            };
            list.push(StreamEntry {
                requester,
                length,
                smmu,
                stream,
            });
        }
    }
    Ok(list)
}
