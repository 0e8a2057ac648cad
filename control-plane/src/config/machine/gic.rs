//! The interrupt controller and what its specifiers mean.
//!
//! Bindings: `arm,gic-v3` and `arm,gic` of the Linux kernel's `Documentation/devicetree/bindings/interrupt-controller`.

use crate::devicetree::{Error, Node, Region, Specifier, Tree};
use alloc::format;
use alloc::vec::Vec;
use core::fmt;

pub(in crate::config) const GICV3: &[&str] = &["arm,gic-v3"];
/// GICv2s with virtualisation extensions; the GIC of the Cortex-A9 has none.
pub(in crate::config) const GICV2: &[&str] = &[
    "arm,gic-400",
    "arm,cortex-a15-gic",
    "arm,cortex-a7-gic",
    "arm,cortex-a53-gic",
];

/// Size of one CPU's redistributor frames: RD_base and SGI_base, 64 KiB each (GICv3 architecture, 12.10).
pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// Number of an interrupt at the GIC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IntId(pub u32);

impl IntId {
    /// The INTID of a shared peripheral interrupt, counted from 0 as device trees do.
    pub const fn spi(number: u32) -> Self {
        Self(number.saturating_add(32))
    }

    /// The INTID of a private peripheral interrupt, counted from 0 as device trees do.
    pub const fn ppi(number: u32) -> Self {
        Self(number.saturating_add(16))
    }
}

impl fmt::Display for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INTID {}", self.0)
    }
}

/// What of a line the GIC looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// A change; the interrupt stays pending by itself.
    Edge,
    /// The level; pending as long as it's asserted. Also where the tree doesn't say.
    Level,
}

/// An interrupt as it reaches the GIC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interrupt {
    /// Its number.
    pub intid: IntId,
    /// Its trigger.
    pub trigger: Trigger,
}

/// The interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv3 or GICv4.
    V3(GicV3),
    /// GICv2 with virtualisation extensions.
    V2(GicV2),
}

/// GICv3 or GICv4, used through its system registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GicV3 {
    /// The distributor.
    pub distributor: Region,
    /// Regions of redistributors.
    pub redistributors: Vec<Region>,
    /// Bytes from one redistributor to the next, if it isn't told by GICR_TYPER.VLPIS alone.
    pub redistributor_stride: Option<u64>,
    /// The maintenance interrupt.
    pub maintenance: Interrupt,
}

/// GICv2 with virtualisation extensions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GicV2 {
    /// GICD.
    pub distributor: Region,
    /// GICC.
    pub cpu_interface: Region,
    /// GICH.
    pub hypervisor_interface: Region,
    /// GICV.
    pub virtual_cpu_interface: Region,
    /// The maintenance interrupt.
    pub maintenance: Interrupt,
}

impl Gic {
    /// The maintenance interrupt.
    pub fn maintenance(&self) -> Interrupt {
        match self {
            Self::V3(gic) => gic.maintenance,
            Self::V2(gic) => gic.maintenance,
        }
    }
}

pub(super) fn find(tree: &Tree<'_>) -> Result<Gic, Error> {
    let node = tree
        .find_compatible(GICV3)
        .next()
        .or_else(|| tree.find_compatible(GICV2).next());
    let node = node.ok_or_else(|| {
        tree.root().error(
            "no interrupt controller",
            "a GICv3, or a GICv2 with virtualisation extensions",
        )
    })?;
    let regions = node.cpu_reg()?;
    let maintenance = node.interrupts()?.first().copied().ok_or_else(|| {
        node.error("no interrupt", "the maintenance interrupt")
            .property("interrupts")
    })?;
    let maintenance = decode(&node, &maintenance)?;
    if node.is_compatible(GICV3) {
        let count = match node.property("#redistributor-regions") {
            Some(property) => property.u32()? as usize,
            None => 1,
        };
        let distributor = regions.first().copied();
        let redistributors = count
            .checked_add(1)
            .and_then(|end| regions.get(1..end))
            .map(<[Region]>::to_vec);
        let both = distributor.zip(redistributors.filter(|list| !list.is_empty()));
        let (distributor, redistributors) = both.ok_or_else(|| {
            let expected =
                format!("the distributor and {count} redistributor regions, at least one");
            node.error(format!("{} regions", regions.len()), expected)
                .property("reg")
        })?;
        let stride = node
            .property("redistributor-stride")
            .map(|property| property.u64())
            .transpose()?;
        return Ok(Gic::V3(GicV3 {
            distributor,
            redistributors,
            redistributor_stride: stride.filter(|stride| *stride != 0),
            maintenance,
        }));
    }
    match regions.as_slice() {
        &[
            distributor,
            cpu_interface,
            hypervisor_interface,
            virtual_cpu_interface,
            ..,
        ] => Ok(Gic::V2(GicV2 {
            distributor,
            cpu_interface,
            hypervisor_interface,
            virtual_cpu_interface,
            maintenance,
        })),
        _ => Err(node
            .error(
                format!("{} regions", regions.len()),
                "GICD, GICC, GICH and GICV",
            )
            .property("reg")),
    }
}

/// What an interrupt of `node` means at the GIC.
///
/// # Errors
/// Its controller isn't a GIC, or the specifier isn't one of the binding's.
pub fn decode(node: &Node<'_>, specifier: &Specifier<'_>) -> Result<Interrupt, Error> {
    let fail = |found: alloc::string::String, expected: &'static str| {
        Err(node.error(found, expected).property("interrupts"))
    };
    let controller = specifier.controller;
    if !controller.is_compatible(GICV3) && !controller.is_compatible(GICV2) {
        return fail(
            format!("an interrupt at {}", controller.path()),
            "an interrupt at the GIC",
        );
    }
    let mut cells = specifier.cells;
    let (Some(kind), Some(number), Some(flags)) = (cells.next(), cells.next(), cells.next()) else {
        return fail(
            format!("{} cells", specifier.cells.count_left()),
            "type, number and flags",
        );
    };
    // Type, how many numbers it has, INTID of number 0 (GICv3 architecture, 2.2.1).
    let (count, base) = match kind {
        0 => (988, 32),
        1 => (16, 16),
        2 => (1024, 4096),
        3 => (64, 1056),
        _ => {
            return fail(
                format!("type {kind}"),
                "0 (SPI), 1 (PPI), 2 (extended SPI) or 3 (extended PPI)",
            );
        }
    };
    let Some(intid) = number.checked_add(base).filter(|_| number < count) else {
        return fail(
            format!("number {number} of type {kind}"),
            "a number that the type has",
        );
    };
    // 1 rising, 2 falling, 4 high, 8 low; bits 15:8 are a PPI's CPU mask at a GICv2.
    let trigger = if flags & 3 != 0 {
        Trigger::Edge
    } else {
        Trigger::Level
    };
    Ok(Interrupt {
        intid: IntId(intid),
        trigger,
    })
}
