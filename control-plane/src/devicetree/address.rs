//! Addresses: `reg` and its translation through `ranges` (Devicetree Specification v0.4, 2.3.5 to 2.3.8).

use super::{Error, Node, Property};
use alloc::format;
use alloc::vec::Vec;

/// Default number of cells of an address where the parent says nothing.
const DEFAULT_ADDRESS_CELLS: u32 = 2;
/// Default number of cells of a size where the parent says nothing.
const DEFAULT_SIZE_CELLS: u32 = 1;
/// More cells than this in an address, a size or an interrupt specifier are taken for a mistake.
const CELL_LIMIT: u32 = 8;

/// A span of addresses. `address + size` doesn't overflow.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Region {
    /// First address.
    pub address: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Region {
    /// The first address behind the region, saturating.
    pub const fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }

    /// Whether `other` lies wholly inside.
    pub const fn contains(&self, other: &Region) -> bool {
        self.address <= other.address && other.end() <= self.end()
    }

    /// Whether the two share a byte.
    pub const fn overlaps(&self, other: &Region) -> bool {
        self.address < other.end() && other.address < self.end()
    }
}

impl core::fmt::Display for Region {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:#x}+{:#x}", self.address, self.size)
    }
}

impl<'t> Node<'t> {
    /// A number-of-cells property of this node (`#interrupt-cells` and the like).
    ///
    /// # Errors
    /// It isn't one cell or is more than 8.
    pub fn cell_count(&self, name: &str) -> Result<Option<usize>, Error> {
        let Some(property) = self.property(name) else {
            return Ok(None);
        };
        match property.u32()? {
            count if count <= CELL_LIMIT => Ok(Some(count as usize)),
            count => Err(property.error(format!("{count}"), "at most 8 cells")),
        }
    }

    /// Cells of an address of this node's children (`#address-cells`, default 2).
    ///
    /// # Errors
    /// The property is malformed.
    pub fn address_cells(&self) -> Result<usize, Error> {
        Ok(self
            .cell_count("#address-cells")?
            .unwrap_or(DEFAULT_ADDRESS_CELLS as usize))
    }

    /// Cells of a size of this node's children (`#size-cells`, default 1).
    ///
    /// # Errors
    /// The property is malformed.
    pub fn size_cells(&self) -> Result<usize, Error> {
        Ok(self
            .cell_count("#size-cells")?
            .unwrap_or(DEFAULT_SIZE_CELLS as usize))
    }

    /// `reg` as the parent bus addresses it, in the cells the parent tells; empty if there is none.
    ///
    /// # Errors
    /// The length doesn't fit the cells, or a number doesn't fit 64 bits.
    pub fn reg(&self) -> Result<Vec<Region>, Error> {
        let (address, size) = match self.parent() {
            Some(parent) => (parent.address_cells()?, parent.size_cells()?),
            None => (DEFAULT_ADDRESS_CELLS as usize, DEFAULT_SIZE_CELLS as usize),
        };
        self.reg_with_cells(address, size)
    }

    /// `reg` read with these numbers of cells, for bindings that inherit them from further up.
    ///
    /// # Errors
    /// As [`Node::reg`].
    pub fn reg_with_cells(
        &self,
        address_cells: usize,
        size_cells: usize,
    ) -> Result<Vec<Region>, Error> {
        let Some(property) = self.property("reg") else {
            return Ok(Vec::new());
        };
        let mut regions = Vec::new();
        for mut group in property.groups(address_cells.saturating_add(size_cells))? {
            let numbers = group.number(address_cells).zip(group.number(size_cells));
            let region = numbers
                .map(|(address, size)| Region { address, size })
                .filter(|region| region.address.checked_add(region.size).is_some());
            regions.push(region.ok_or_else(|| too_large(&property))?);
        }
        Ok(regions)
    }

    /// `reg` as the CPUs address it: translated through the `ranges` of all buses above.
    ///
    /// # Errors
    /// As [`Node::reg`]; or a bus above doesn't pass a region on.
    pub fn cpu_reg(&self) -> Result<Vec<Region>, Error> {
        let mut regions = self.reg()?;
        let Some(parent) = self.parent() else {
            return Ok(regions);
        };
        for region in &mut regions {
            *region = parent
                .to_cpu(*region)
                .map_err(|error| error.remedy(format!("needed by {}", self.path())))?;
        }
        Ok(regions)
    }

    /// Translates a region of this bus's own address space to CPU addresses.
    ///
    /// # Errors
    /// This bus or one above has no `ranges` or none that holds the whole region.
    pub fn to_cpu(&self, region: Region) -> Result<Region, Error> {
        let mut region = region;
        let mut bus = *self;
        while let Some(parent) = bus.parent() {
            region = bus.through_ranges(&parent, region)?;
            bus = parent;
        }
        Ok(region)
    }

    fn through_ranges(&self, parent: &Node<'t>, region: Region) -> Result<Region, Error> {
        let ranges = self.required("ranges", "a bus that passes addresses on")?;
        if ranges.value().is_empty() {
            return Ok(region);
        }
        let (child, upper, size) = (
            self.address_cells()?,
            parent.address_cells()?,
            self.size_cells()?,
        );
        for mut group in ranges.groups(child.saturating_add(upper).saturating_add(size))? {
            let numbers = group
                .number(child)
                .zip(group.number(upper))
                .zip(group.number(size));
            // A window whose address isn't a plain number (PCI) can't hold a plain region.
            let Some(((from, to), size)) = numbers else {
                continue;
            };
            let window = Region {
                address: from,
                size,
            };
            if from.checked_add(size).is_some() && window.contains(&region) {
                let moved = region
                    .address
                    .checked_sub(from)
                    .and_then(|offset| to.checked_add(offset));
                return moved
                    .filter(|address| address.checked_add(region.size).is_some())
                    .map(|address| Region {
                        address,
                        size: region.size,
                    })
                    .ok_or_else(|| too_large(&ranges));
            }
        }
        Err(ranges.error(
            format!("no window that holds {region}"),
            "one window around the whole region",
        ))
    }
}

fn too_large(property: &Property<'_>) -> Error {
    property.error(
        "a region beyond 64 bits",
        "addresses and sizes inside 64 bits",
    )
}
