//! Coprocs: which physical devices are shared, by which driver, under which algorithm.
//!
//! Schema: `docs/bindings/baton,coprocs.yaml`. Driver and algorithm are names, compared exactly, never
//! by prefix: one that is almost right is a mistake, not a choice. Properties that the schema doesn't know are mistakes
//! too, since nobody would notice that a mistyped one has no effect.

use super::machine::Machine;
use super::shared_node::{self, SharedNode};
use crate::devicetree::{Error, Node, Property, Tree, quote};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::id::CoprocId;
use coproc_core::time::Duration;
use core::fmt;

/// Path of the node that holds them.
pub const COPROCS_PATH: &str = "/chosen/coprocs";

const COMPATIBLE: &str = "baton,coprocs";
const PROPERTIES: &[&str] = &[
    "reg",
    "driver",
    "device",
    "scheduler",
    "slice-us",
    "refusal-bound-us",
    "starvation-bound-us",
    "baton,record",
    shared_node::TRUSTED,
    "phandle",
    "linux,phandle",
    "status",
];

/// A driver or algorithm that the sources have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownName<'a> {
    /// Its name in a device tree.
    pub name: &'a str,
    /// The cargo feature that compiles it in.
    pub feature: &'a str,
    /// Whether it is compiled in.
    pub compiled_in: bool,
}

impl KnownName<'static> {
    /// Those of `all`: name, feature, and whether it is in this program. `sharing`: whether anything can be shared at all; `there`: what is compiled in, by
    /// feature and whether it is in this program.
    #[inline(never)]
    pub fn list(
        all: &[(&'static str, &'static str, bool)],
        sharing: bool,
        there: &dyn Fn(&str, bool) -> bool,
    ) -> Vec<Self> {
        let one = |&(name, feature, here)| Self {
            name,
            feature: if sharing { feature } else { "sharing" },
            compiled_in: sharing && there(feature, here),
        };
        all.iter().map(one).collect()
    }
}

/// The names that a configuration may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known<'a> {
    /// Drivers of coprocessors.
    pub drivers: &'a [KnownName<'a>],
    /// Scheduling algorithms.
    pub schedulers: &'a [KnownName<'a>],
}

/// A PCI function's address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PciFunction {
    /// Segment (Linux: domain).
    pub segment: u16,
    /// Bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

impl PciFunction {
    /// Requester ID: bus in bits 15:8, device in 7:3, function in 2:0.
    pub const fn requester_id(self) -> u16 {
        u16::from_be_bytes([self.bus, ((self.device & 31) << 3) | (self.function & 7)])
    }

    /// Reads `SSSS:BB:DD.F`, hexadecimal with exactly these numbers of digits, as `lspci -D` prints it.
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |digits: &str, count: usize| {
            let valid =
                digits.len() == count && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| valid)
        };
        let (segment, rest) = text.split_once(':')?;
        let (bus, rest) = rest.split_once(':')?;
        let (device, function) = rest.split_once('.')?;
        Some(Self {
            segment: hex(segment, 4)?,
            bus: u8::try_from(hex(bus, 2)?).ok()?,
            device: u8::try_from(hex(device, 2)?)
                .ok()
                .filter(|device| *device < 32)?,
            function: u8::try_from(hex(function, 1)?)
                .ok()
                .filter(|function| *function < 8)?,
        })
    }
}

impl fmt::Display for PciFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:04x}:{:02x}:{:02x}.{:x}",
            self.segment, self.bus, self.device, self.function
        )
    }
}

/// Where a coproc's device is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DeviceLocator {
    /// A PCI function: `device = "pci:0000:00:01.0"`.
    Pci(PciFunction),
    /// A node of the device tree, by its full path: `device = "/soc/dma-controller@e6700000"` or
    /// `device = <&dmac0>`.
    Node(String),
    /// A CPU, set aside as a firmware core: the path of its node, or a phandle.
    Cpu {
        /// Path of its node.
        path: String,
        /// Its index in [`Machine::cpus`].
        index: usize,
    },
}

impl fmt::Display for DeviceLocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci(function) => write!(f, "pci:{function}"),
            Self::Node(path) | Self::Cpu { path, .. } => f.write_str(path),
        }
    }
}

/// A coproc, as the user described it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CoprocConfig {
    /// Its number: `reg`.
    pub id: CoprocId,
    /// Path of its node, for messages.
    pub path: String,
    /// Its device.
    pub device: DeviceLocator,
    /// What the tree says of it, if that is where it is described.
    pub node: Option<SharedNode>,
    /// Name of its driver; known and compiled in.
    pub driver: String,
    /// Name of its scheduling algorithm; known and compiled in.
    pub scheduler: String,
    /// Length of a slice; the driver's own if `None`.
    pub slice: Option<Duration>,
    /// How long it may refuse to let go; the driver's own if `None`.
    pub refusal_bound: Option<Duration>,
    /// How long a vcoproc may wait at most, where the algorithm would let it wait for ever; no bound if `None`.
    pub starvation_bound: Option<Duration>,
    /// Whether all that is done with it is recorded.
    pub record: bool,
    /// Whether it is shared from boot on; if not (`status = "disabled"`), it is when somebody says so.
    pub shared: bool,
}

impl CoprocConfig {
    /// The error that its device isn't there, for whoever looks.
    pub fn device_absent(&self) -> Error {
        Error::new(
            self.path.clone(),
            format!("{}, where no device answers", self.device),
            "a device that is there",
        )
        .property("device")
        .remedy("correct the address or plug the device in")
    }

    /// The error that its driver doesn't drive the device there.
    pub fn device_unsuitable(&self, found: impl fmt::Display) -> Error {
        let expected = format!("a device that driver {} drives", quote(&self.driver));
        Error::new(
            self.path.clone(),
            format!("{} is {found}", self.device),
            expected,
        )
        .property("device")
        .remedy("correct the address or the driver")
    }
}

/// A coproc's node: what it says, or all that is wrong with it.
pub(super) struct Entry<'t> {
    pub node: Node<'t>,
    pub config: Result<CoprocConfig, Vec<Error>>,
}

/// All coprocs of the tree, and mistakes above the single coproc.
pub(super) fn read<'t>(
    tree: &'t Tree<'_>,
    machine: &Machine,
    known: &Known<'_>,
    warnings: &mut Vec<Error>,
) -> (Vec<Entry<'t>>, Vec<Error>) {
    let mut entries: Vec<Entry<'t>> = Vec::new();
    let mut errors = Vec::new();
    let Some(parent) = tree.find(COPROCS_PATH) else {
        return (entries, errors);
    };
    if !parent.is_compatible(&[COMPATIBLE]) {
        let error = match parent.property("compatible") {
            Some(property) => property.error("something else", "\"baton,coprocs\""),
            None => parent
                .error("missing", "\"baton,coprocs\"")
                .property("compatible"),
        };
        errors.push(error);
        return (entries, errors);
    }
    for node in parent
        .children()
        .filter(|node| node.is_available() || is_disabled(node))
    {
        let config = coproc(&node, machine, known, &entries, warnings);
        entries.push(Entry { node, config });
    }
    (entries, errors)
}

fn coproc(
    node: &Node<'_>,
    machine: &Machine,
    known: &Known<'_>,
    before: &[Entry<'_>],
    warnings: &mut Vec<Error>,
) -> Result<CoprocConfig, Vec<Error>> {
    let mut errors = Vec::new();
    if node.base_name() != "coproc" {
        errors.push(
            node.error(quote(node.name()), "a name of the form coproc@<reg>")
                .remedy("rename the node"),
        );
    }
    for property in node
        .properties()
        .filter(|property| !PROPERTIES.contains(&property.name()))
    {
        errors.push(unknown(
            &property,
            "a property of the schema baton,coprocs.yaml",
        ));
    }
    let earlier = || before.iter().filter_map(|entry| entry.config.as_ref().ok());
    let id = keep(&mut errors, id(node)).map(CoprocId);
    if let Some(other) = earlier().find(|other| Some(other.id) == id) {
        let found = format!("a number that {} has already", other.path);
        errors.push(node.error(found, "a number of its own").property("reg"));
    }
    let device = keep(&mut errors, device(node, machine));
    if let Some(other) = earlier().find(|other| Some(&other.device) == device.as_ref()) {
        let found = format!("{}, which {} shares already", other.device, other.path);
        errors.push(
            node.error(found, "a device of its own")
                .property("device")
                .remedy("drop one of the two"),
        );
    }
    let trusted = keep(&mut errors, flag(node, shared_node::TRUSTED)) == Some(true);
    let mut described = None;
    match (&device, node.property("device")) {
        (Some(DeviceLocator::Node(path)), Some(property)) => {
            let read = shared_node::read(&property, path, machine, trusted, warnings);
            described = keep(&mut errors, read);
        }
        (Some(other), _) if trusted => {
            let error = node.error(
                format!("trust for {other}"),
                "a device of the tree: only of these the DMA can be left alone",
            );
            errors.push(error.property(shared_node::TRUSTED).remedy("drop it"));
        }
        _ => {}
    }
    let driver = keep(&mut errors, name(node, "driver", known.drivers));
    let scheduler = keep(&mut errors, name(node, "scheduler", known.schedulers));
    let slice = keep(&mut errors, microseconds(node, "slice-us"));
    let refusal_bound = keep(&mut errors, microseconds(node, "refusal-bound-us"));
    let starvation_bound = keep(&mut errors, microseconds(node, "starvation-bound-us")).flatten();
    let record = keep(&mut errors, flag(node, "baton,record")) == Some(true);
    match (id, device, driver, scheduler, slice, refusal_bound) {
        (
            Some(id),
            Some(device),
            Some(driver),
            Some(scheduler),
            Some(slice),
            Some(refusal_bound),
        ) if errors.is_empty() => Ok(CoprocConfig {
            id,
            path: node.path(),
            device,
            node: described,
            driver,
            scheduler,
            slice,
            refusal_bound,
            starvation_bound,
            record,
            shared: node.is_available(),
        }),
        _ => Err(errors),
    }
}

/// Not to be used yet (Devicetree Specification v0.4, 2.3.4).
fn is_disabled(node: &Node<'_>) -> bool {
    node.property("status")
        .is_some_and(|status| status.string() == Ok("disabled"))
}

/// The value, or none with its error added to the list.
pub(super) fn keep<T>(errors: &mut Vec<Error>, result: Result<T, Error>) -> Option<T> {
    result.map_err(|error| errors.push(error)).ok()
}

/// The error for a property that no schema knows.
pub(super) fn unknown(property: &Property<'_>, expected: &'static str) -> Error {
    property
        .error("unknown property", expected)
        .remedy("correct its name or drop it")
}

fn id(node: &Node<'_>) -> Result<u32, Error> {
    node.required("reg", "the coproc's number, one cell")?.u32()
}

fn device(node: &Node<'_>, machine: &Machine) -> Result<DeviceLocator, Error> {
    const FORMS: &str = "\"pci:SSSS:BB:DD.F\", the full path of a node, or a phandle";
    let property = node.required("device", FORMS)?;
    // A cell can look like a short string; a phandle that exists is taken for one.
    if let Ok(target) = property.phandle() {
        return Ok(described(&target, machine));
    }
    if let Ok(phandle) = property.u32()
        && property.string().is_err()
    {
        return Err(property.error(format!("phandle {phandle:#x}, which no node has"), FORMS));
    }
    let text = property.string()?;
    if let Some(address) = text.strip_prefix("pci:") {
        return function(&property, text, address, machine).map(DeviceLocator::Pci);
    }
    match node.tree().find(text).filter(|found| found.path() == text) {
        Some(found) => Ok(described(&found, machine)),
        None => Err(property.error(format!("{}, which is no node", quote(text)), FORMS)),
    }
}

/// The PCI function with this address, which stands in `text` of a property.
pub(super) fn function(
    property: &Property<'_>,
    text: &str,
    address: &str,
    machine: &Machine,
) -> Result<PciFunction, Error> {
    let function = PciFunction::parse(address)
        .ok_or_else(|| property.error(quote(text), "\"pci:SSSS:BB:DD.F\" in hexadecimal digits"))?;
    let mut hosts = machine.pci_hosts.iter();
    if !hosts.any(|host| host.has_bus_of(function)) {
        return Err(property
            .error(
                quote(text),
                "a segment and bus below a PCIe host bridge of this machine",
            )
            .remedy("correct the address"));
    }
    Ok(function)
}

/// A device that is described in the tree: a CPU, or anything else.
fn described(node: &Node<'_>, machine: &Machine) -> DeviceLocator {
    let path = node.path();
    match machine.cpus.iter().position(|cpu| cpu.path == path) {
        Some(index) => DeviceLocator::Cpu { path, index },
        None => DeviceLocator::Node(path),
    }
}

fn name(node: &Node<'_>, which: &'static str, known: &[KnownName<'_>]) -> Result<String, Error> {
    let choice = || {
        let mut list = String::new();
        for one in known.iter().filter(|one| one.compiled_in) {
            list.push_str(if list.is_empty() { "one of " } else { ", " });
            list.push_str(&quote(one.name));
        }
        if list.is_empty() {
            String::from("a name (none is compiled in)")
        } else {
            list
        }
    };
    let property = node.required(which, choice())?;
    let text = property.string()?;
    match known.iter().find(|one| one.name == text) {
        Some(one) if one.compiled_in => Ok(String::from(text)),
        Some(one) => Err(property
            .error(
                format!("{}, which isn't compiled in", quote(text)),
                choice(),
            )
            .remedy(format!(
                "build with the cargo feature {}",
                quote(one.feature)
            ))),
        None => Err(property
            .error(format!("{}, which doesn't exist", quote(text)), choice())
            .remedy("correct the name")),
    }
}

fn flag(node: &Node<'_>, name: &'static str) -> Result<bool, Error> {
    match node.property(name) {
        None => Ok(false),
        Some(property) if property.value().is_empty() => Ok(true),
        Some(property) => {
            let found = format!("{} bytes", property.value().len());
            Err(property.error(found, "no value: the property is there or not"))
        }
    }
}

fn microseconds(node: &Node<'_>, name: &'static str) -> Result<Option<Duration>, Error> {
    let Some(property) = node.property(name) else {
        return Ok(None);
    };
    match property.u64()? {
        0 => Err(property.error("0", "at least 1 microsecond")),
        value => Ok(Some(Duration::from_micros(value))),
    }
}
