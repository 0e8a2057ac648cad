//! Domains, in Xen's dom0less shape with Baton's own properties.
//!
//! Binding: Xen's `docs/misc/arm/device-tree/booting.txt`; additions in
//! `docs/bindings/baton,domain.yaml`. Each domain is read on its own: its mistakes are collected, so that a user
//! corrects them in one go, and stop this domain alone. Baton's own properties (`baton,…`) must be spelt as in
//! the schema. A property of Xen's that Baton doesn't act on is a warning, since the same tree may be meant
//! for both.

pub mod file;
mod modules;
mod numbers;
mod parts;
mod reader;

use super::coprocs::{self, CoprocConfig, Known};
use super::machine::Machine;
use super::passthrough::{Passed, PassedNode};
use super::pools::{self, PoolConfig};
use super::shared_memory::{self, SharedMemory};
use crate::devicetree::{Error, Node, Region, Tree, quote};
use crate::lifecycle::policy::RestartPolicy;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::algorithm::Parameters;
use coproc_core::id::{CoprocId, DomainId};
use reader::Reader;

/// Most vCPUs of a domain.
pub const CPU_LIMIT: u32 = 8;
/// A domain's memory is a multiple of this, so that stage 2 maps it in blocks: 2 MiB.
pub const MEMORY_GRANULE: u64 = 2 << 20;
/// Greatest weight of a vcoproc.
pub const WEIGHT_LIMIT: u32 = 10_000;

const COMPATIBLE: &str = "xen,domain";

/// What `/chosen` asks for.
#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// The coprocs that are described without a mistake.
    pub coprocs: Vec<CoprocConfig>,
    /// The mistakes in the others.
    pub coproc_errors: Vec<Error>,
    /// The pools of CPUs that are described without a mistake; if there are none, one with all CPUs.
    pub pools: Vec<PoolConfig>,
    /// The mistakes in the others.
    pub pool_errors: Vec<Error>,
    /// The domains in the order of the tree: each to be started, or why not.
    pub domains: Vec<Result<DomainConfig, Rejected>>,
    /// The memory regions to be shared that are described without a mistake.
    pub shared: Vec<SharedMemory>,
    /// The mistakes in the others.
    pub shared_errors: Vec<Error>,
    /// What has no effect, and probably should have.
    pub warnings: Vec<Error>,
}

/// A domain that isn't created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rejected {
    /// Path of its node.
    pub path: String,
    /// All mistakes found; at least one.
    pub errors: Vec<Error>,
}

/// A domain to be created.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DomainConfig {
    /// Its number: `reg`, or else the unit address, or else one that is free.
    pub id: DomainId,
    /// Path of its node.
    pub path: String,
    /// Number of vCPUs, 1 to 8.
    pub cpus: u32,
    /// Size of its RAM in bytes, a multiple of 2 MiB.
    pub memory: u64,
    /// Whether it gets an emulated PL011.
    pub vpl011: bool,
    /// The kernel image, or firmware.
    pub kernel: Module,
    /// Whether it is firmware, which lies at address 0 and starts there.
    pub firmware: bool,
    /// The initial ramdisk.
    pub ramdisk: Option<Module>,
    /// The kernel's command line; may be empty.
    pub bootargs: String,
    /// Its coprocs.
    pub coprocs: Vec<Assignment>,
    /// Whether it may use the management protocol (`baton,control`).
    pub control: bool,
    /// What is done when it has ended.
    pub restart: RestartPolicy,
    /// Whether it's created at boot; if not (`status = "disabled"`), only when somebody asks for it.
    pub enabled: bool,
    /// For each vCPU the physical CPU (index in [`Machine::cpus`]) it's bound to; empty if the tree doesn't say.
    pub affinity: Vec<usize>,
    /// The pool that its vCPUs run in: an index in [`Configuration::pools`].
    pub pool: usize,
    /// What each of its vCPUs asks of the pool's algorithm.
    pub share: Parameters,
    /// The devices that it has for itself.
    pub passthrough: Vec<Passed>,
    /// Those of its coprocs that the machine's tree describes: its own tree does, too.
    pub fixtures: Vec<Fixture>,
}

/// A coproc's device that is a node of the domain's tree. It has its place there for good, whether the domain has a part in it now or not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fixture {
    /// Which.
    pub coproc: CoprocId,
    /// What the machine's tree says of it.
    pub node: PassedNode,
}

/// A file that the bootloader has put into memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Module {
    /// Path of its node.
    pub path: String,
    /// Where it is.
    pub region: Region,
}

/// A domain's part in a coproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Assignment {
    /// Which.
    pub coproc: CoprocId,
    /// What the coproc's algorithm is told about the domain's part.
    pub parameters: Parameters,
}

impl Configuration {
    /// Reads `/chosen`.
    pub fn from_tree(tree: &Tree<'_>, machine: &Machine, known: &Known<'_>) -> Self {
        let mut warnings = Vec::new();
        let (entries, coproc_errors) = coprocs::read(tree, machine, known, &mut warnings);
        let (pools, pool_errors) = pools::read(tree, machine);
        warnings.extend(pools::left_out(machine, &pools));
        let mut configuration = Self {
            coproc_errors,
            pools,
            pool_errors,
            warnings,
            ..Self::default()
        };
        let mut nodes = Vec::new();
        for node in tree.find("/chosen").iter().flat_map(Node::children) {
            if node.is_compatible(&[COMPATIBLE]) {
                if node.is_available() || is_disabled(&node) {
                    nodes.push(node);
                }
            } else if node.is_available() {
                configuration.warnings.extend(no_domain(&node));
            }
        }
        let numbers = numbers::given(&nodes);
        let mut modules: Vec<Module> = Vec::new();
        for (node, number) in nodes.into_iter().zip(numbers) {
            let mut reader = Reader {
                node,
                number,
                machine,
                coprocs: &entries,
                pools: &configuration.pools,
                before: &configuration.domains,
                modules: &modules,
                later: None,
                errors: Vec::new(),
                warnings: Vec::new(),
            };
            let domain = reader.read();
            let Reader {
                errors, warnings, ..
            } = reader;
            configuration.warnings.extend(warnings);
            configuration.domains.push(match domain {
                Some(domain) if errors.is_empty() => {
                    modules.push(domain.kernel.clone());
                    modules.extend(domain.ramdisk.clone());
                    Ok(domain)
                }
                _ => Err(Rejected {
                    path: node.path(),
                    errors,
                }),
            });
        }
        let (shared, shared_errors) = shared_memory::read(tree, &configuration.domains);
        configuration.shared = shared;
        configuration.shared_errors = shared_errors;
        for entry in entries {
            match entry.config {
                Ok(coproc) => configuration.coprocs.push(coproc),
                Err(errors) => configuration.coproc_errors.extend(errors),
            }
        }
        configuration
    }

    /// Where the modules of all domains to be created are: not to be overwritten before they are copied.
    pub fn module_regions(&self) -> impl Iterator<Item = Region> + '_ {
        let domains = self
            .domains
            .iter()
            .filter_map(|domain| domain.as_ref().ok());
        domains.flat_map(|domain| {
            core::iter::once(domain.kernel.region)
                .chain(domain.ramdisk.as_ref().map(|module| module.region))
        })
    }

    /// RAM that nobody has; `also`: what the boot loader has put somewhere besides, the tree and Baton.
    #[inline(never)]
    pub fn free_memory(&self, machine: &Machine, also: [Region; 2]) -> Vec<Region> {
        let mut taken = Vec::from(also);
        taken.extend(self.module_regions());
        machine.free_memory(&taken)
    }

    /// Every mistake, of pools and coprocs first, then of domains in order, then of shared memory.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        let domains = self
            .domains
            .iter()
            .filter_map(|domain| domain.as_ref().err());
        self.pool_errors
            .iter()
            .chain(&self.coproc_errors)
            .chain(domains.flat_map(|rejected| &rejected.errors))
            .chain(&self.shared_errors)
    }
}

/// What looks as if somebody had expected it to start, and isn't a domain.
fn no_domain(node: &Node<'_>) -> Option<Error> {
    let (found, expected) = if node.is_compatible(&["multiboot,module", "xen,multiboot-module"]) {
        (
            "a module of no domain",
            "modules in domains: there is no dom0",
        )
    } else if node.base_name() == "domain" {
        (
            "not compatible with \"xen,domain\"",
            "this in a domain's node",
        )
    } else {
        return None;
    };
    Some(node.error(found, expected).property("compatible"))
}

/// A domain that is described, but isn't created at boot.
fn is_disabled(node: &Node<'_>) -> bool {
    node.property("status")
        .is_some_and(|status| status.string() == Ok("disabled"))
}

impl core::fmt::Display for Rejected {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{} isn't created: {} mistakes",
            quote(&self.path),
            self.errors.len()
        )
    }
}
