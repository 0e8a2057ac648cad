//! Interrupts: who raises which specifier at which controller (Devicetree Specification v0.4, 2.4).
//!
//! The meaning of a specifier is the controller's own business, so here it stays a sequence of cells.

use super::{Cells, Error, Node, Property};
use alloc::format;
use alloc::vec::Vec;

/// Longest chain of interrupt parents or nexus nodes that is followed: more is a loop.
const HOP_LIMIT: usize = 16;

/// One interrupt: the controller and the cells that name it there.
#[derive(Clone, Copy, Debug)]
pub struct Specifier<'t> {
    /// The node that takes the interrupt.
    pub controller: Node<'t>,
    /// The specifier, `#interrupt-cells` of the controller long.
    pub cells: Cells<'t>,
}

/// An `interrupt-map` (Devicetree Specification v0.4, 2.4.3.1).
#[derive(Clone, Debug)]
pub struct InterruptMap<'t> {
    /// Number of cells of a unit address, the first part of a child's key.
    pub address_cells: usize,
    /// The mask for a child's unit address and specifier, cell by cell.
    pub mask: Vec<u32>,
    /// The entries in order.
    pub entries: Vec<MapEntry<'t>>,
}

/// One row of an [`InterruptMap`].
#[derive(Clone, Copy, Debug)]
pub struct MapEntry<'t> {
    /// Unit address and specifier of the child, to be compared under the mask.
    pub child: Cells<'t>,
    /// Where the interrupt goes.
    pub target: Specifier<'t>,
}

impl<'t> InterruptMap<'t> {
    /// The first entry that matches a child's unit address and specifier, given as one sequence.
    pub fn find(&self, key: &[u32]) -> Option<Specifier<'t>> {
        let masked = || key.iter().zip(&self.mask).map(|(cell, mask)| cell & mask);
        if key.len() != self.mask.len() {
            return None;
        }
        self.entries
            .iter()
            .find(|entry| {
                entry
                    .child
                    .zip(&self.mask)
                    .map(|(cell, mask)| cell & mask)
                    .eq(masked())
            })
            .map(|entry| entry.target)
    }
}

impl<'t> Node<'t> {
    /// The controller or nexus that this node's interrupts go to: `interrupt-parent` here or in the
    /// nearest ancestor, or the nearest ancestor that takes interrupts itself.
    ///
    /// # Errors
    /// There is none, or a phandle on the way names no node.
    pub fn interrupt_parent(&self) -> Result<Node<'t>, Error> {
        let mut node = *self;
        for _ in 0..HOP_LIMIT {
            let next = match node.property("interrupt-parent") {
                Some(property) => property.phandle()?,
                None => node.parent().ok_or_else(|| {
                    self.error(
                        "no interrupt-parent here or above",
                        "a controller for its interrupts",
                    )
                })?,
            };
            if next.property("#interrupt-cells").is_some() {
                return Ok(next);
            }
            node = next;
        }
        Err(self.error(
            "a loop of interrupt parents",
            "a chain that ends at a controller",
        ))
    }

    /// All interrupts of this node, from `interrupts-extended` or else `interrupts`, each followed through
    /// nexus nodes to its controller; empty if there are none.
    ///
    /// # Errors
    /// A property is malformed, a phandle names no node, or a nexus has no entry for an interrupt.
    pub fn interrupts(&self) -> Result<Vec<Specifier<'t>>, Error> {
        let mut list = Vec::new();
        if let Some(property) = self.property("interrupts-extended") {
            let mut cells = property.cells()?;
            while let Some(phandle) = cells.next() {
                let specifier = specifier(&property, property.resolve(phandle)?, &mut cells)?;
                list.push(self.follow(specifier)?);
            }
        } else if let Some(property) = self.property("interrupts") {
            let parent = self.interrupt_parent()?;
            let mut cells = property.cells()?;
            while cells.count_left() > 0 {
                list.push(self.follow(specifier(&property, parent, &mut cells)?)?);
            }
        }
        Ok(list)
    }

    /// The interrupt with this name in `interrupt-names`.
    ///
    /// # Errors
    /// As [`Node::interrupts`]; or there are fewer interrupts than names.
    pub fn interrupt_by_name(&self, name: &str) -> Result<Option<Specifier<'t>>, Error> {
        let Some(names) = self.property("interrupt-names") else {
            return Ok(None);
        };
        let Some(at) = names.strings()?.position(|one| one == name) else {
            return Ok(None);
        };
        let list = self.interrupts()?;
        let found = list.get(at).copied().ok_or_else(|| {
            names.error(
                format!("a name for interrupt {at}"),
                format!("only {} names", list.len()),
            )
        })?;
        Ok(Some(found))
    }

    /// This node's `interrupt-map`; `None` if it isn't a nexus.
    ///
    /// # Errors
    /// The map is malformed or names a node that doesn't exist.
    pub fn interrupt_map(&self) -> Result<Option<InterruptMap<'t>>, Error> {
        let Some(property) = self.property("interrupt-map") else {
            return Ok(None);
        };
        let address_cells = self.address_cells()?;
        let own = self.required("#interrupt-cells", "the size of its children's specifiers")?;
        let own = own.node().cell_count("#interrupt-cells")?.unwrap_or(0);
        let key = address_cells.saturating_add(own);
        let mask = match self.property("interrupt-map-mask") {
            None => alloc::vec![u32::MAX; key],
            Some(mask) => {
                let cells: Vec<u32> = mask.cells()?.collect();
                if cells.len() != key {
                    return Err(
                        mask.error(format!("{} cells", cells.len()), format!("{key} cells"))
                    );
                }
                cells
            }
        };
        let mut entries = Vec::new();
        let mut cells = property.cells()?;
        while cells.count_left() > 0 {
            let truncated =
                || property.error("a truncated entry", "child, controller, and its specifier");
            let child = cells.take_cells(key).ok_or_else(truncated)?;
            let controller = property.resolve(cells.next().ok_or_else(truncated)?)?;
            // A controller without #address-cells has no unit addresses here, other than for `reg`.
            let skipped = controller.cell_count("#address-cells")?.unwrap_or(0);
            cells.take_cells(skipped).ok_or_else(truncated)?;
            entries.push(MapEntry {
                child,
                target: specifier(&property, controller, &mut cells)?,
            });
        }
        Ok(Some(InterruptMap {
            address_cells,
            mask,
            entries,
        }))
    }

    /// Follows a specifier of this node through nexus nodes.
    fn follow(&self, specifier: Specifier<'t>) -> Result<Specifier<'t>, Error> {
        let mut specifier = specifier;
        let mut unit = self.raw_unit_address();
        for _ in 0..HOP_LIMIT {
            let Some(map) = specifier.controller.interrupt_map()? else {
                return Ok(specifier);
            };
            let mut key: Vec<u32> = unit.into_iter().flatten().take(map.address_cells).collect();
            key.resize(map.address_cells, 0);
            key.extend(specifier.cells);
            let nexus = specifier.controller;
            specifier = map.find(&key).ok_or_else(|| {
                nexus
                    .error(
                        format!("no entry for an interrupt of {}", self.path()),
                        "an entry for it",
                    )
                    .property("interrupt-map")
            })?;
            unit = nexus.raw_unit_address();
        }
        Err(self.error(
            "a loop of interrupt maps",
            "a chain that ends at a controller",
        ))
    }

    fn raw_unit_address(&self) -> Option<Cells<'t>> {
        self.property("reg").and_then(|reg| reg.cells().ok())
    }
}

fn specifier<'t>(
    property: &Property<'t>,
    controller: Node<'t>,
    cells: &mut Cells<'t>,
) -> Result<Specifier<'t>, Error> {
    let count = controller
        .cell_count("#interrupt-cells")?
        .filter(|count| *count > 0)
        .ok_or_else(|| {
            property.error(
                format!(
                    "{} as controller, which has no #interrupt-cells",
                    controller.path()
                ),
                "an interrupt controller",
            )
        })?;
    let cells = cells.take_cells(count).ok_or_else(|| {
        property.error(
            "a truncated specifier",
            format!("{count} cells as {} says", controller.path()),
        )
    })?;
    Ok(Specifier { controller, cells })
}
