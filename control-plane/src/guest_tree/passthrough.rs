//! The nodes of devices that the domain was given, and of coprocs that the machine's tree describes.
//!
//! A stock driver can't tell the one from the other: both are what the machine's tree says of them, at other addresses. They are below a bus of their own, since what a device's DMA addresses is said of buses: the domain's
//! addresses where an IOMMU translates, and the machine's where nothing does (`dma-ranges`).

use super::layout::RAM_BASE;
use super::{Error, GuestTree, LEVEL_HIGH, SPI};
use crate::config::machine::Trigger;
use crate::config::{Dma, Passed, PassedNode};
use crate::passthrough::Place;
use alloc::format;
use alloc::vec::Vec;
use vm_fdt::{FdtWriter, FdtWriterNode};

const EDGE_RISING: u32 = 1;
/// Clocks follow.
const FIRST_PHANDLE: u32 = 16;

/// Two buses for each of the two: of devices that see the domain's addresses, and of those that see the machine's.
pub(super) fn nodes(
    fdt: &mut FdtWriter,
    guest: &GuestTree<'_>,
    places: &[Place],
) -> Result<(), Error> {
    let mut phandle = FIRST_PHANDLE;
    let (own, shared) = places
        .split_at_checked(guest.devices.len())
        .unwrap_or_default();
    let own = guest.devices.iter().zip(own);
    let own = own.filter_map(|pair| match pair {
        (Passed::Node(node), place) => Some((node, place)),
        _ => None,
    });
    let shared = guest.fixtures.iter().zip(shared);
    let shared = shared.map(|(fixture, place)| (&fixture.node, place));
    let lists = [own.collect::<Vec<_>>(), shared.collect()];
    for (list, names) in lists.iter().zip([
        ["passthrough", "passthrough-unconfined"],
        ["coprocs", "coprocs-unconfined"],
    ]) {
        for (name, unconfined) in names.into_iter().zip([false, true]) {
            let on_it =
                |(node, _): &&(&PassedNode, &Place)| (node.dma == Dma::Unconfined) == unconfined;
            if list.iter().any(|one| on_it(&one)) {
                let node = bus(fdt, guest, name, unconfined)?;
                for (node, place) in list.iter().filter(on_it) {
                    device(fdt, node, place, &mut phandle)?;
                }
                fdt.end_node(node)?;
            }
        }
    }
    Ok(())
}

fn bus(
    fdt: &mut FdtWriter,
    guest: &GuestTree<'_>,
    name: &str,
    unconfined: bool,
) -> Result<FdtWriterNode, Error> {
    let bus = fdt.begin_node(name)?;
    fdt.property_string("compatible", "simple-bus")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    if unconfined {
        // The machine's address, the domain's, and the size.
        let mut at = RAM_BASE;
        let ranges = guest.host_memory.iter().flat_map(|part| {
            let range = [part.address, at, part.size];
            at = at.saturating_add(part.size);
            range
        });
        fdt.property_array_u64("dma-ranges", &ranges.collect::<Vec<u64>>())?;
    } else {
        fdt.property_null("dma-ranges")?;
    }
    Ok(bus)
}

fn device(
    fdt: &mut FdtWriter,
    node: &PassedNode,
    place: &Place,
    phandle: &mut u32,
) -> Result<(), Error> {
    let at = place.registers.first().map_or(0, |pages| pages.at);
    let mut clocks = Vec::new();
    for (index, frequency) in (0u32..).zip(&node.clocks) {
        let clock = fdt.begin_node(&format!("clock-{at:x}-{index}"))?;
        fdt.property_string("compatible", "fixed-clock")?;
        fdt.property_u32("#clock-cells", 0)?;
        fdt.property_u32("clock-frequency", *frequency)?;
        fdt.property_phandle(*phandle)?;
        fdt.end_node(clock)?;
        clocks.push(*phandle);
        *phandle = phandle.wrapping_add(1);
    }
    let written = fdt.begin_node(&format!("{}@{at:x}", node.name))?;
    for (name, value) in &node.properties {
        fdt.property(name, value)?;
    }
    let registers = place.registers.iter().zip(&node.registers);
    let reg = registers.flat_map(|(pages, region)| [pages.at, region.size]);
    fdt.property_array_u64("reg", &reg.collect::<Vec<u64>>())?;
    if !node.interrupts.is_empty() {
        let cells = node.interrupts.iter().zip(&place.spis);
        let cells = cells.flat_map(|(interrupt, spi)| {
            let flags = match interrupt.trigger {
                Trigger::Edge => EDGE_RISING,
                Trigger::Level => LEVEL_HIGH,
            };
            [SPI, *spi, flags]
        });
        fdt.property_array_u32("interrupts", &cells.collect::<Vec<u32>>())?;
    }
    if !clocks.is_empty() {
        fdt.property_array_u32("clocks", &clocks)?;
    }
    Ok(fdt.end_node(written)?)
}
