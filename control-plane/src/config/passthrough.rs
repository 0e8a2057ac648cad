//! Devices that one domain gets as its own: `baton,passthrough` in its node.
//!
//! Each is named by a string, the path of its node or `pci:SSSS:BB:DD.F`, as a coproc's `device` is; in the source of a tree a
//! label outside of brackets (`&gpio0`) is the path. Whatever would give the domain more than that device is refused here: a page or an
//! interrupt that another device has, too, and DMA that no IOMMU confines, unless `baton,trusted-dma` says that the domain is trusted with it.
//!
//! What the domain's tree says of a device is its node on the host, without what refers to other nodes: only clocks of a fixed
//! frequency are made again. What is left out although a driver might miss it is a warning.

use super::coprocs::{self, DeviceLocator, Entry, PciFunction};
use super::machine::gic::{self, Interrupt};
use super::machine::{IntId, Machine};
use crate::devicetree::{Error, Node, Property, Region, quote};
use crate::passthrough;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use coproc_core::address::PAGE_SIZE;
use coproc_core::id::StreamId;
use core::fmt;

/// The property with the list.
pub const PROPERTY: &str = "baton,passthrough";
/// The property that trusts the domain with DMA that nothing confines.
pub const TRUSTED: &str = "baton,trusted-dma";

/// A device that a domain gets as its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Passed {
    /// A device that the tree describes.
    Node(PassedNode),
    /// A PCI function, behind the first SMMU.
    Pci(PciFunction, StreamId),
}

impl Passed {
    /// Whether it is the one with this locator.
    pub fn is(&self, device: &DeviceLocator) -> bool {
        match (self, device) {
            (Self::Node(node), DeviceLocator::Node(path)) => node.path == *path,
            (Self::Pci(function, _), DeviceLocator::Pci(other)) => function == other,
            _ => false,
        }
    }
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(node) => f.write_str(&node.path),
            Self::Pci(function, _) => write!(f, "pci:{function}"),
        }
    }
}

/// A device that the tree describes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PassedNode {
    /// Path of its node.
    pub path: String,
    /// Name of its node before the unit address.
    pub name: String,
    /// Its registers, as CPUs address them; each begins with a page, and no other device is in their pages.
    pub registers: Vec<Region>,
    /// Its interrupts, all shared ones (SPIs) and its own.
    pub interrupts: Vec<Interrupt>,
    /// What its DMA reaches.
    pub dma: Dma,
    /// Frequency in Hz of each of its clocks.
    pub clocks: Vec<u32>,
    /// What else its node in the domain's tree has: name and value.
    pub properties: Vec<(String, Vec<u8>)>,
}

/// What a device's DMA reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Dma {
    /// Nothing in the tree says that it does any.
    None,
    /// What the first SMMU lets these streams reach.
    Confined(Vec<StreamId>),
    /// All memory: the domain is trusted.
    Unconfined,
}

/// Properties that mean nothing in the domain's tree, or are made anew there.
const REPLACED: &[&str] = &[
    "reg",
    "interrupts",
    "interrupts-extended",
    "interrupt-parent",
    "phandle",
    "linux,phandle",
    "status",
    "iommus",
    "clocks",
    "ranges",
    "dma-ranges",
    "#address-cells",
    "#size-cells",
];
/// Properties with phandles in them, besides those that end in one of [`REFERENCE_ENDS`] or begin with one of [`REFERENCE_STARTS`].
const REFERENCES: &[&str] = &[
    "power-domains",
    "resets",
    "dmas",
    "phys",
    "phy-handle",
    "mboxes",
    "memory-region",
    "nvmem-cells",
    "interconnects",
    "msi-parent",
    "thermal-sensors",
    "iommu-map",
    "gpios",
    "operating-points-v2",
];
const REFERENCE_ENDS: &[&str] = &["-supply", "-gpios", "-gpio"];
const REFERENCE_STARTS: &[&str] = &["pinctrl-", "assigned-"];
/// Signs that a device is a bus master. A tree need not have any.
const MASTERS: &[&str] = &[
    "dma-coherent",
    "dma-noncoherent",
    "dma-ranges",
    "dma-channels",
    "#dma-cells",
    "memory-region",
    "iommu-map",
];

/// Who has what already.
pub(super) struct Taken<'r, 't> {
    pub machine: &'r Machine,
    pub coprocs: &'r [Entry<'t>],
    /// Path of a domain's node, and its devices.
    pub domains: Vec<(&'r str, &'r [Passed])>,
}

/// The devices of a domain, with mistakes and warnings.
pub(super) fn read(
    node: &Node<'_>,
    taken: &Taken<'_, '_>,
    errors: &mut Vec<Error>,
    warnings: &mut Vec<Error>,
) -> Vec<Passed> {
    let mut list: Vec<Passed> = Vec::new();
    let trusted = node.property(TRUSTED);
    let Some(property) = node.property(PROPERTY) else {
        if let Some(trusted) = trusted {
            let found = format!("trust without {PROPERTY}");
            errors.push(trusted.error(found, "devices that the trust is for"));
        }
        return list;
    };
    let names = match property.strings() {
        Ok(names) => names,
        Err(error) => {
            errors.push(error.remedy(
                "name devices by path or as \"pci:SSSS:BB:DD.F\"; a label stands outside of <>",
            ));
            return list;
        }
    };
    for name in names {
        let passed =
            one(&property, name, taken, trusted.is_some(), warnings).and_then(|passed| match list
                .iter()
                .any(|other| same(other, &passed))
            {
                true => Err(property.error(format!("{passed} twice"), "each device once")),
                false => Ok(passed),
            });
        match passed {
            Ok(passed) => list.push(passed),
            Err(error) => errors.push(error),
        }
    }
    if let Err(full) = passthrough::plan(&list, &[]) {
        errors.push(property.error(full.to_string(), "less, or smaller devices"));
    }
    list
}

/// Whether a node that is read after boot names the devices that its domain has had since then: none is given or taken any more.
pub(super) fn same_as_before(node: &Node<'_>, kept: &[Passed]) -> Result<(), Error> {
    let mut expected = String::from("none, as at boot");
    for (at, passed) in kept.iter().enumerate() {
        expected = match at {
            0 => format!("those of boot: {passed}"),
            _ => format!("{expected}, {passed}"),
        };
    }
    let Some(property) = node.property(PROPERTY) else {
        return match kept {
            [] => Ok(()),
            _ => Err(node.error("missing", expected).property(PROPERTY)),
        };
    };
    let mut kept = kept.iter();
    let mut names = property.strings()?;
    let known = |name: &str| kept.next().is_some_and(|passed| passed.to_string() == name);
    match names.all(known) && kept.next().is_none() {
        true => Ok(()),
        false => Err(property.error("other devices", expected)),
    }
}

fn same(one: &Passed, other: &Passed) -> bool {
    match (one, other) {
        (Passed::Node(one), Passed::Node(other)) => one.path == other.path,
        (Passed::Pci(one, _), Passed::Pci(other, _)) => one == other,
        _ => false,
    }
}

fn one(
    property: &Property<'_>,
    name: &str,
    taken: &Taken<'_, '_>,
    trusted: bool,
    warnings: &mut Vec<Error>,
) -> Result<Passed, Error> {
    const FORMS: &str = "\"pci:SSSS:BB:DD.F\" or the full path of a node";
    let passed = if let Some(address) = name.strip_prefix("pci:") {
        let function = coprocs::function(property, name, address, taken.machine)?;
        Passed::Pci(function, stream(property, name, function, taken.machine)?)
    } else {
        let tree = property.node().tree();
        let found = tree.find(name).filter(|found| found.path() == name);
        let Some(node) = found else {
            let found = format!("{}, which is no node", quote(name));
            return Err(property
                .error(found, FORMS)
                .remedy("correct the path or drop it"));
        };
        if !node.is_available() {
            let error = property.error(format!("{name}, which is disabled"), "a device in use");
            return Err(error.remedy("set its status to \"okay\" or drop it"));
        }
        unused(property, &node, taken.machine)?;
        let described = described(property, &node, taken.machine, warnings)?;
        let dma = dma(property, &node, taken.machine, trusted)?;
        Passed::Node(PassedNode { dma, ..described })
    };
    let coprocs = taken.coprocs.iter();
    for coproc in coprocs.filter_map(|entry| entry.config.as_ref().ok()) {
        if passed.is(&coproc.device) {
            let found = format!("{passed}, which {} shares", coproc.path);
            let error = property.error(found, "a device that isn't shared");
            return Err(error.remedy("drop one of the two"));
        }
    }
    for (domain, devices) in &taken.domains {
        if devices.iter().any(|other| same(other, &passed)) {
            let found = format!("{passed}, which {domain} has");
            let error = property.error(found, "a device that no other domain has");
            return Err(error.remedy("give it to one domain"));
        }
    }
    Ok(passed)
}

/// Whether the device is there for others than Baton.
pub(super) fn unused(
    property: &Property<'_>,
    node: &Node<'_>,
    machine: &Machine,
) -> Result<(), Error> {
    match own_use(node, machine) {
        Some(whose) => {
            let found = format!("{}, {whose}", node.path());
            Err(property.error(found, "a device that Baton has no use for"))
        }
        None => Ok(()),
    }
}

/// What Baton itself does with a device.
fn own_use(node: &Node<'_>, machine: &Machine) -> Option<&'static str> {
    let path = node.path();
    if node.is_compatible(gic::GICV3) || node.is_compatible(gic::GICV2) {
        return Some("the interrupt controller");
    }
    if node.is_compatible(&["arm,armv8-timer"]) {
        return Some("the timer");
    }
    if machine.uart.as_ref().is_some_and(|uart| uart.path == path) {
        return Some("Baton's console");
    }
    if node.property("#iommu-cells").is_some() || machine.smmus.iter().any(|smmu| smmu.path == path)
    {
        return Some("an IOMMU");
    }
    // An ITS reads and writes memory by itself, and either kind raises whatever interrupt it's told to.
    if node.property("msi-controller").is_some() {
        return Some("which turns messages into interrupts");
    }
    if machine.pci_hosts.iter().any(|host| host.path == path) {
        return Some("a PCIe host bridge, whose functions are passed one by one");
    }
    machine
        .cpus
        .iter()
        .any(|cpu| cpu.path == path)
        .then_some("a CPU")
}

/// The stream of a PCI function.
fn stream(
    property: &Property<'_>,
    name: &str,
    function: PciFunction,
    machine: &Machine,
) -> Result<StreamId, Error> {
    let mut hosts = machine.pci_hosts.iter();
    let found = hosts
        .find(|host| host.has_bus_of(function))
        .and_then(|host| host.stream(function));
    match found {
        Some((0, stream)) => Ok(stream),
        found => {
            let found = match found {
                Some((number, _)) => {
                    format!("{}, which is behind SMMU number {number}", quote(name))
                }
                None => format!("{}, whose DMA no SMMUv3 confines", quote(name)),
            };
            // It addresses the host's memory, not the domain's, so trust alone would not make it work.
            Err(property.error(found, "a function behind the first SMMUv3"))
        }
    }
}

/// A device of the tree, all but its DMA.
pub(super) fn described(
    property: &Property<'_>,
    node: &Node<'_>,
    machine: &Machine,
    warnings: &mut Vec<Error>,
) -> Result<PassedNode, Error> {
    let path = node.path();
    let registers = node.cpu_reg()?;
    if registers.is_empty() || registers.iter().any(|region| region.size == 0) {
        let found = format!("{path}, which has no registers");
        return Err(property.error(found, "a device with registers"));
    }
    for region in &registers {
        own_pages(property, node, region, machine)?;
    }
    let mut interrupts: Vec<Interrupt> = Vec::new();
    for specifier in node.interrupts()? {
        let interrupt = gic::decode(node, &specifier)?;
        if interrupt.intid.0 < 32 || interrupt.intid.0 >= 1020 {
            let found = format!("{path}, whose {} is no SPI", interrupt.intid);
            return Err(property.error(found, "a device whose interrupts are SPIs"));
        }
        if let Some(other) = other_source(node, interrupt.intid, machine) {
            let found = format!("{path}, whose {} is {other}'s, too", interrupt.intid);
            let error = property.error(found, "a device that shares no interrupt");
            return Err(error.remedy("who doesn't end such an interrupt silences the others"));
        }
        if interrupts.iter().any(|one| one.intid == interrupt.intid) {
            let found = format!("{path}, which has {} twice", interrupt.intid);
            return Err(property.error(found, "an interrupt for each source"));
        }
        interrupts.push(interrupt);
    }
    let mut properties = Vec::new();
    let clocks = clocks(node);
    for own in node.properties() {
        let name = own.name();
        let refers = REFERENCES.contains(&name)
            || REFERENCE_ENDS.iter().any(|end| name.ends_with(end))
            || REFERENCE_STARTS.iter().any(|start| name.starts_with(start));
        let lost_clocks = name == "clocks" && clocks.is_none();
        let nameless = name == "clock-names" && clocks.is_none();
        if refers || lost_clocks {
            // The host's pins stay as they are.
            if !name.starts_with("pinctrl-") {
                let expected = if lost_clocks {
                    "clocks that are all \"fixed-clock\""
                } else {
                    "nothing that refers to another node"
                };
                warnings.push(own.error("left out of the domain's tree", expected));
            }
        } else if !REPLACED.contains(&name) && !nameless {
            properties.push((name.to_string(), own.value().to_vec()));
        }
    }
    if let Some(child) = node.children().next() {
        let found = format!("{}, which is left out of the domain's tree", child.name());
        warnings.push(node.error(found, "a device without nodes below it"));
    }
    Ok(PassedNode {
        path,
        name: node.base_name().to_string(),
        registers,
        interrupts,
        dma: Dma::None,
        clocks: clocks.unwrap_or_default(),
        properties,
    })
}

/// The pages that a region is in, if it begins with one and nobody else is there.
fn own_pages(
    property: &Property<'_>,
    node: &Node<'_>,
    region: &Region,
    machine: &Machine,
) -> Result<(), Error> {
    let path = node.path();
    let mask = PAGE_SIZE.wrapping_sub(1);
    let size = region.size.checked_add(mask).map(|size| size & !mask);
    let pages = size.map(|size| Region { size, ..*region }).filter(|pages| {
        pages.address & mask == 0 && pages.address.checked_add(pages.size).is_some()
    });
    let Some(pages) = pages else {
        let found = format!("{path}, whose registers at {region} begin within a page");
        let error = property.error(found, "registers in pages of 4 KiB of their own");
        return Err(error.remedy("whoever has a page has all that is in it"));
    };
    if machine.memory.iter().any(|bank| bank.overlaps(&pages)) {
        let found = format!("{path}, whose registers at {region} are in RAM");
        return Err(property.error(found, "registers outside of RAM"));
    }
    let mut windows = machine.pci_hosts.iter().flat_map(|host| &host.windows);
    if windows.any(|window| window.cpu.overlaps(&pages)) {
        let found = format!("{path}, whose registers at {region} are in a window of PCI");
        return Err(property.error(found, "registers outside of PCI's windows"));
    }
    for other in node.tree().nodes().filter(|other| other != node) {
        // What isn't a CPU's address, the children of an I2C bus for example, is no register.
        let found = other.cpu_reg().unwrap_or_default();
        if found
            .iter()
            .any(|found| found.size > 0 && found.overlaps(&pages))
        {
            let found = format!(
                "{path}, whose registers at {region} share a page with {}",
                other.path()
            );
            let error = property.error(found, "registers in pages of 4 KiB of their own");
            return Err(error.remedy("whoever has a page has all that is in it"));
        }
    }
    Ok(())
}

/// Who else raises this interrupt.
fn other_source(node: &Node<'_>, intid: IntId, machine: &Machine) -> Option<String> {
    let raises = |other: &Node<'_>| {
        let list = other.interrupts().unwrap_or_default();
        let mut decoded = list.iter().filter_map(|one| gic::decode(other, one).ok());
        decoded.any(|one| one.intid == intid)
    };
    let mut others = node.tree().nodes().filter(|other| other != node);
    if let Some(other) = others.find(raises) {
        return Some(other.path());
    }
    let mut hosts = machine.pci_hosts.iter();
    let host = hosts.find(|host| host.raises(intid))?;
    Some(host.path.clone())
}

fn dma(
    property: &Property<'_>,
    node: &Node<'_>,
    machine: &Machine,
    trusted: bool,
) -> Result<Dma, Error> {
    let why = match mastery(node, machine)? {
        Mastery::None => return Ok(Dma::None),
        Mastery::Confined(streams) => return Ok(Dma::Confined(streams)),
        _ if trusted => return Ok(Dma::Unconfined),
        Mastery::Loose(why) => why,
    };
    let found = format!("{}, {why}", node.path());
    let error = property.error(found, "a device whose DMA the first SMMUv3 confines");
    Err(error.remedy(format!(
        "if the domain may reach all memory of the machine, say so by {TRUSTED}"
    )))
}

/// What the tree says of a device's DMA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Mastery {
    /// Nothing.
    None,
    /// That the first SMMUv3 confines these streams.
    Confined(Vec<StreamId>),
    /// That it does some, or is behind something, that nothing confines: why.
    Loose(String),
}

/// Looks whether a device is a bus master, and what is in front of it.
pub(super) fn mastery(node: &Node<'_>, machine: &Machine) -> Result<Mastery, Error> {
    let Some(iommus) = node.property("iommus") else {
        let sign = MASTERS.iter().find(|sign| node.property(sign).is_some());
        return Ok(sign.map_or(Mastery::None, |sign| {
            Mastery::Loose(format!("which has {sign} and no iommus"))
        }));
    };
    let mut cells = iommus.cells()?;
    let mut streams = Vec::new();
    while let Some(phandle) = cells.next() {
        let iommu = iommus.resolve(phandle)?;
        let count = iommu.cell_count("#iommu-cells")?.unwrap_or(0);
        let arguments = cells
            .take_cells(count)
            .ok_or_else(|| iommus.error("a truncated entry", format!("{count} cells")))?;
        let first = machine
            .smmus
            .first()
            .filter(|smmu| smmu.path == iommu.path());
        match (first, arguments.last()) {
            (Some(_), Some(stream)) if count == 1 => streams.push(StreamId(stream)),
            _ => return Ok(Mastery::Loose(format!("which is behind {}", iommu.path()))),
        }
    }
    if streams.is_empty() {
        return Ok(Mastery::Loose("whose iommus names none".to_string()));
    }
    Ok(Mastery::Confined(streams))
}

/// The frequency of each clock, if all are fixed.
fn clocks(node: &Node<'_>) -> Option<Vec<u32>> {
    let Some(property) = node.property("clocks") else {
        return Some(Vec::new());
    };
    let mut cells = property.cells().ok()?;
    let mut list = Vec::new();
    while let Some(phandle) = cells.next() {
        let clock = property.resolve(phandle).ok()?;
        let count = clock.cell_count("#clock-cells").ok()??;
        cells.take_cells(count)?;
        if !clock.is_compatible(&["fixed-clock"]) {
            return None;
        }
        list.push(clock.property("clock-frequency")?.u32().ok()?);
    }
    Some(list)
}
