//! The machine: memory, CPUs, PSCI, interrupt controller, timer, console, PCIe hosts, SMMUs.
//!
//! Found by `compatible` and by the bindings' own structure, never by an address or a name known from
//! one board. Where a binding leaves freedom (number of cells, order by name or by place, several
//! redistributor regions, windows behind buses) all of it is read.

pub mod gic;
pub mod pci;
pub mod rtc;
pub mod smmu;
pub mod uart;

pub use gic::{Gic, GicV2, GicV3, IntId, Interrupt, Trigger};
pub use pci::{PciHost, PciWindow, WindowKind};
pub use smmu::Smmu;
pub use uart::Uart;

use crate::devicetree::{Error, Node, Property, Region, Tree};
use crate::speculation::Hardening;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use coproc_core::sort;

/// All that the hypervisor needs to know of the board.
#[derive(Clone, Debug)]
pub struct Machine {
    /// RAM, ordered by address, without overlaps, adjoining banks joined.
    pub memory: Vec<Region>,
    /// Parts of it that belong to firmware or others: `/memreserve/`, the children of `/reserved-memory` that have
    /// a `reg`, and the words that CPUs poll until they are started: who can write there starts one where he likes. Not the device tree blob itself, whose place only the caller knows.
    pub reserved: Vec<Region>,
    /// The CPUs in the order of the tree; a CPU's index here is its number everywhere in the configuration.
    pub cpus: Vec<Cpu>,
    /// PSCI, if the firmware has it.
    pub psci: Option<Psci>,
    /// The interrupt controller.
    pub gic: Gic,
    /// The architected timer.
    pub timer: Timer,
    /// The console, if `/chosen` names one.
    pub uart: Option<Uart>,
    /// Registers of a real-time clock that can be read, if there is one.
    pub rtc: Option<Region>,
    /// PCIe host bridges with ECAM.
    pub pci_hosts: Vec<PciHost>,
    /// SMMUv3s.
    pub smmus: Vec<Smmu>,
    /// What is wanted against branch target injection: `baton,branch-hardening` of `/chosen`.
    pub hardening: Hardening,
}

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// Path of its node.
    pub path: String,
    /// Affinity fields of its MPIDR_EL1 (Arm ARM D24.2.92): Aff3 in bits 39:32, Aff2 to Aff0 in bits 23:0.
    pub mpidr: u64,
    /// How to start it.
    pub enable: EnableMethod,
    /// Which core it is: its first `compatible` string, or nothing.
    pub kind: String,
}

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// By PSCI CPU_ON.
    Psci,
    /// By writing its entry address here (Devicetree Specification v0.4, 3.8.1).
    SpinTable {
        /// `cpu-release-addr`.
        release: HostPhysical,
    },
    /// The tree doesn't say: only the boot CPU can be used.
    None,
}

/// How firmware is called.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Psci {
    /// The instruction.
    pub conduit: Conduit,
    /// The newest version that `compatible` promises.
    pub version: PsciVersion,
}

/// The instruction of an SMC calling convention call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// SMC.
    Smc,
    /// HVC.
    Hvc,
}

/// Version of PSCI in a `compatible`. 0.1, whose function numbers differ between boards, isn't supported.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum PsciVersion {
    /// `arm,psci-0.2`
    V0_2,
    /// `arm,psci-1.0`: 1.0 or later
    V1_0,
}

/// The interrupts of the architected timer (binding `arm,armv8-timer`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timer {
    /// Secure physical timer.
    pub secure: Option<Interrupt>,
    /// Non-secure EL1 physical timer.
    pub physical: Interrupt,
    /// Virtual timer.
    pub virt: Interrupt,
    /// Non-secure EL2 physical timer.
    pub hypervisor: Interrupt,
    /// `clock-frequency` in Hz, present only where firmware sets CNTFRQ wrong.
    pub frequency: Option<u32>,
}

impl Machine {
    /// Reads the machine from a tree.
    ///
    /// # Errors
    /// The first thing that is missing, malformed or beyond what Baton can use.
    pub fn from_tree(tree: &Tree<'_>) -> Result<Self, Error> {
        let gic = gic::find(tree)?;
        let (smmus, nodes) = smmu::find_all(tree)?;
        let cpus = cpus(tree)?;
        Ok(Self {
            memory: memory(tree)?,
            reserved: reserved(tree, &cpus)?,
            cpus,
            psci: psci(tree)?,
            timer: timer(tree)?,
            uart: uart::find(tree)?,
            rtc: rtc::find(tree),
            pci_hosts: pci::find_all(tree, &nodes)?,
            gic,
            smmus,
            hardening: hardening(tree)?,
        })
    }

    /// RAM that nobody has: `memory` without `reserved` and without `also` (the blob, the hypervisor's image, modules),
    /// in whole pages, ordered by address.
    pub fn free_memory(&self, also: &[Region]) -> Vec<Region> {
        let mut holes: Vec<Region> = self.reserved.iter().chain(also).copied().collect();
        sort::by_key(&mut holes, |region| *region);
        let mut free = Vec::new();
        for bank in &self.memory {
            let mut start = bank.address;
            for hole in holes.iter().filter(|hole| hole.overlaps(bank)) {
                push_pages(&mut free, start, hole.address);
                start = start.max(hole.end());
            }
            push_pages(&mut free, start, bank.end());
        }
        free
    }

    /// Whether a region lies wholly in RAM.
    pub fn is_ram(&self, region: &Region) -> bool {
        self.memory.iter().any(|bank| bank.contains(region))
    }
}

fn push_pages(list: &mut Vec<Region>, start: u64, end: u64) {
    let mask = PAGE_SIZE.wrapping_sub(1);
    let Some(start) = start.checked_add(mask).map(|start| start & !mask) else {
        return;
    };
    if let Some(size) = (end & !mask).checked_sub(start).filter(|size| *size > 0) {
        list.push(Region {
            address: start,
            size,
        });
    }
}

fn memory(tree: &Tree<'_>) -> Result<Vec<Region>, Error> {
    let mut banks = Vec::new();
    for node in tree
        .root()
        .children()
        .filter(|node| is_of_type(node, "memory") && node.is_available())
    {
        banks.extend(node.reg()?.into_iter().filter(|bank| bank.size > 0));
    }
    sort::by_key(&mut banks, |region| *region);
    let mut joined: Vec<Region> = Vec::new();
    for bank in banks {
        match joined.last_mut() {
            Some(last) if bank.address <= last.end() => {
                last.size = last.end().max(bank.end()).saturating_sub(last.address);
            }
            _ => joined.push(bank),
        }
    }
    if joined.is_empty() {
        return Err(tree.root().error(
            "no memory node with a size",
            "a node of device_type \"memory\" with reg",
        ));
    }
    Ok(joined)
}

/// By `device_type`, or by name where that old property is left out.
fn is_of_type(node: &Node<'_>, kind: &str) -> bool {
    match node.property("device_type") {
        Some(property) => property.string() == Ok(kind),
        None => node.base_name() == kind,
    }
}

fn reserved(tree: &Tree<'_>, cpus: &[Cpu]) -> Result<Vec<Region>, Error> {
    let mut list: Vec<Region> = tree.memory_reservations().collect();
    list.extend(cpus.iter().filter_map(|cpu| {
        match cpu.enable {
            EnableMethod::SpinTable { release } => Some(Region {
                address: release.get(),
                size: 8,
            })
            .filter(|word| word.address.checked_add(word.size).is_some()),
            _ => None,
        }
    }));
    if let Some(node) = tree.find("/reserved-memory") {
        for child in node.children().filter(Node::is_available) {
            list.extend(child.reg()?.into_iter().filter(|region| region.size > 0));
        }
    }
    sort::by_key(&mut list, |region| *region);
    Ok(list)
}

fn cpus(tree: &Tree<'_>) -> Result<Vec<Cpu>, Error> {
    let parent = tree
        .find("/cpus")
        .ok_or_else(|| tree.root().error("no node /cpus", "the CPUs"))?;
    let mut list: Vec<Cpu> = Vec::new();
    for node in parent.children().filter(|node| is_of_type(node, "cpu")) {
        // "disabled" of a CPU with an enable-method means not started yet; "fail" means unusable (Devicetree Specification v0.4, 3.8.1).
        let status = node
            .property("status")
            .map(|status| status.string())
            .transpose()?;
        if status.is_some_and(|status| status.starts_with("fail")) {
            continue;
        }
        let reg = node.required("reg", "the affinity fields of its MPIDR")?;
        let mpidr = reg.u64()?;
        if mpidr & !0xff_00ff_ffff != 0 {
            return Err(reg.error(
                format!("{mpidr:#x}"),
                "affinity fields in bits 39:32 and 23:0 only",
            ));
        }
        if list.iter().any(|cpu| cpu.mpidr == mpidr) {
            return Err(reg.error(format!("{mpidr:#x} once more"), "an MPIDR of its own"));
        }
        let enable = match node.property("enable-method") {
            None => EnableMethod::None,
            Some(method) => match method
                .strings()?
                .find(|method| ["psci", "spin-table"].contains(method))
            {
                Some("psci") => EnableMethod::Psci,
                Some(_) => EnableMethod::SpinTable {
                    release: HostPhysical::new(
                        node.required("cpu-release-addr", "where spin-table reads its entry")?
                            .u64()?,
                    ),
                },
                None => {
                    return Err(method.error("a method unknown here", "\"psci\" or \"spin-table\""));
                }
            },
        };
        list.push(Cpu {
            path: node.path(),
            mpidr,
            enable,
            kind: node.compatible().next().unwrap_or_default().into(),
        });
    }
    if list.is_empty() {
        return Err(parent.error("no CPU", "at least one child of device_type \"cpu\""));
    }
    Ok(list)
}

/// The secret from which the machine's kernel shall seed its generator of random numbers, `rng-seed`; empty if there is none. Not kept in
/// [`Machine`]: it is to be forgotten.
pub fn seed<'t>(tree: &'t Tree<'t>) -> &'t [u8] {
    chosen(tree, "rng-seed").map_or(&[], |seed| seed.value())
}

/// A property of `/chosen`.
#[inline(never)]
fn chosen<'t>(tree: &'t Tree<'t>, name: &str) -> Option<Property<'t>> {
    tree.find("/chosen")?.property(name)
}

fn hardening(tree: &Tree<'_>) -> Result<Hardening, Error> {
    let Some(property) = chosen(tree, "baton,branch-hardening") else {
        return Ok(Hardening::default());
    };
    let name = property.string()?;
    Hardening::by_name(name)
        .ok_or_else(|| property.error(crate::devicetree::quote(name), Hardening::NAMES))
}

fn psci(tree: &Tree<'_>) -> Result<Option<Psci>, Error> {
    let Some(node) = tree
        .find_compatible(&["arm,psci-1.0", "arm,psci-0.2"])
        .next()
    else {
        return Ok(None);
    };
    let method = node.required("method", "\"smc\" or \"hvc\"")?;
    let conduit = match method.string()? {
        "smc" => Conduit::Smc,
        "hvc" => Conduit::Hvc,
        other => return Err(method.error(crate::devicetree::quote(other), "\"smc\" or \"hvc\"")),
    };
    let version = if node.is_compatible(&["arm,psci-1.0"]) {
        PsciVersion::V1_0
    } else {
        PsciVersion::V0_2
    };
    Ok(Some(Psci { conduit, version }))
}

fn timer(tree: &Tree<'_>) -> Result<Timer, Error> {
    let node = tree
        .find_compatible(&["arm,armv8-timer"])
        .next()
        .ok_or_else(|| {
            tree.root()
                .error("no timer", "a node compatible with \"arm,armv8-timer\"")
        })?;
    let list = node.interrupts()?;
    let named = node.property("interrupt-names").is_some();
    // Without names the order is fixed: secure, non-secure, virtual, hypervisor.
    let one = |name: &'static str, place: usize| -> Result<Option<Interrupt>, Error> {
        let specifier = if named {
            node.interrupt_by_name(name)?
        } else {
            list.get(place).copied()
        };
        specifier
            .map(|specifier| gic::decode(&node, &specifier))
            .transpose()
    };
    let needed = |name: &'static str, place: usize| -> Result<Interrupt, Error> {
        one(name, place)?.ok_or_else(|| {
            node.error(
                format!("no interrupt \"{name}\""),
                "secure, non-secure, virtual and hypervisor timer",
            )
            .property("interrupts")
        })
    };
    Ok(Timer {
        secure: one("sec-phys", 0)?,
        physical: needed("phys", 1)?,
        virt: needed("virt", 2)?,
        hypervisor: needed("hyp-phys", 3)?,
        frequency: node
            .property("clock-frequency")
            .map(|property| property.u32())
            .transpose()?,
    })
}
