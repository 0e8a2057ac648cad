//! Domains, in Xen's dom0less shape with Baton's own properties.
//!
//! Binding: Xen's `docs/misc/arm/device-tree/booting.txt`; additions in
//! `docs/bindings/baton,domain.yaml`. Each domain is read on its own: its mistakes are collected, so that a user
//! corrects them in one go, and stop this domain alone. Baton's own properties (`baton,…`) must be spelt as in
//! the schema. A property of Xen's that Baton doesn't act on is a warning, since the same tree may be meant
//! for both.

use super::coprocs::{self, CoprocConfig, Entry, Known, keep, unknown};
use super::machine::Machine;
use super::passthrough::{self, Passed, PassedNode, Taken};
use super::pools::{self, PoolConfig};
use super::shared_memory::{self, SharedMemory};
use crate::devicetree::{Error, Node, Region, Tree, quote};
use crate::flash;
use crate::lifecycle::policy::RestartPolicy;
use crate::passthrough::plan;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use coproc_core::algorithm::Parameters;
use coproc_core::id::{CoprocId, DomainId};
use coproc_core::time::Duration;

/// Most vCPUs of a domain.
pub const CPU_LIMIT: u32 = 8;
/// A domain's memory is a multiple of this, so that stage 2 maps it in blocks: 2 MiB.
pub const MEMORY_GRANULE: u64 = 2 << 20;
/// Greatest weight of a vcoproc.
pub const WEIGHT_LIMIT: u32 = 10_000;

/// Properties with one cell for each of baton,coprocs, and what their cells are. A time of 0 is none.
const PER_COPROC: [(&str, &str); 4] = [
    ("baton,coproc-weights", "weights"),
    ("baton,coproc-priorities", "priorities"),
    ("baton,coproc-budgets-us", "budgets"),
    ("baton,coproc-periods-us", "periods"),
];

const COMPATIBLE: &str = "xen,domain";
const PROPERTIES: &[&str] = &[
    "compatible",
    "reg",
    "cpus",
    "memory",
    "vpl011",
    "bootargs",
    "baton,coprocs",
    "baton,coproc-weights",
    "baton,coproc-priorities",
    "baton,coproc-budgets-us",
    "baton,coproc-periods-us",
    "baton,control",
    "baton,cpu-affinity",
    "baton,cpu-pool",
    "baton,cpu-weight",
    "baton,cpu-budget-us",
    "baton,cpu-period-us",
    "baton,restart",
    passthrough::PROPERTY,
    passthrough::TRUSTED,
    "#address-cells",
    "#size-cells",
    "phandle",
    "linux,phandle",
    "status",
];

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
    /// Its number: `reg`, or else the unit address.
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
        let mut modules: Vec<Module> = Vec::new();
        for node in tree
            .find("/chosen")
            .iter()
            .flat_map(Node::children)
            .filter(|node| {
                node.is_available() || (is_disabled(node) && node.is_compatible(&[COMPATIBLE]))
            })
        {
            if !node.is_compatible(&[COMPATIBLE]) {
                if node.base_name() == "domain" {
                    let warning = node.error(
                        "not compatible with \"xen,domain\"",
                        "this in a domain's node",
                    );
                    configuration.warnings.push(warning.property("compatible"));
                }
                continue;
            }
            let mut reader = Reader {
                node,
                machine,
                coprocs: &entries,
                pools: &configuration.pools,
                before: &configuration.domains,
                modules: &modules,
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

impl DomainConfig {
    /// The error that there isn't memory enough, for whoever hands it out. `free`: bytes that there were.
    pub fn memory_does_not_fit(&self, free: u64) -> Error {
        let expected = format!("at most {} KiB, which is free", free / 1024);
        Error::new(
            self.path.clone(),
            format!("{} KiB", self.memory / 1024),
            expected,
        )
        .property("memory")
        .remedy("give the domain less memory or the machine more")
    }

    /// An error about its own devices.
    pub fn passthrough_error(&self, found: String, expected: &'static str) -> Error {
        Error::new(self.path.clone(), found, expected).property(passthrough::PROPERTY)
    }

    /// An error about one of its coprocs that shows only when it's brought up.
    pub fn coproc_unavailable(&self, coproc: CoprocId) -> Error {
        Error::new(
            self.path.clone(),
            format!("{coproc}, which can't be used"),
            "a coproc that works",
        )
        .property("baton,coprocs")
        .remedy("see the error of that coproc")
    }
}

/// A domain that is described, but isn't created at boot.
fn is_disabled(node: &Node<'_>) -> bool {
    node.property("status")
        .is_some_and(|status| status.string() == Ok("disabled"))
}

struct Reader<'r, 't> {
    node: Node<'t>,
    machine: &'r Machine,
    coprocs: &'r [Entry<'t>],
    pools: &'r [PoolConfig],
    before: &'r [Result<DomainConfig, Rejected>],
    /// Modules of earlier domains.
    modules: &'r [Module],
    errors: Vec<Error>,
    warnings: Vec<Error>,
}

impl Reader<'_, '_> {
    fn read(&mut self) -> Option<DomainConfig> {
        self.spelling();
        let id = self.id();
        let id = keep(&mut self.errors, id);
        let cpus = self.cpus();
        let cpus = keep(&mut self.errors, cpus);
        let memory = self.memory();
        let memory = keep(&mut self.errors, memory);
        let coprocs = self.assignments();
        let affinity = self.affinity(cpus);
        let affinity = keep(&mut self.errors, affinity);
        let pool = pools::of_domain(&self.node, self.pools);
        let pool = keep(&mut self.errors, pool);
        let share = pools::share(&self.node);
        let share = keep(&mut self.errors, share);
        if let (Some(affinity), Some(pool)) = (&affinity, pool.and_then(|at| self.pools.get(at)))
            && let Some(cpu) = affinity.iter().find(|cpu| !pool.cpus.contains(cpu))
        {
            let found = format!("CPU {cpu}, which is not in {}", pool.path);
            let error = self.node.error(found, "CPUs of the domain's pool");
            self.errors.push(error.property("baton,cpu-affinity"));
        }
        let restart = self.restart();
        let restart = keep(&mut self.errors, restart);
        let passthrough = self.passthrough();
        let fixtures = self.fixtures(&coprocs, &passthrough);
        let Modules {
            kernel,
            ramdisk,
            bootargs,
            firmware,
        } = self.boot_modules();
        let bootargs = self.bootargs(bootargs);
        let bootargs = keep(&mut self.errors, bootargs);
        if let (Some(memory), Some(kernel)) = (memory, &kernel) {
            let size = kernel
                .region
                .size
                .saturating_add(ramdisk.as_ref().map_or(0, |module| module.region.size));
            if firmware {
                self.check_firmware(kernel, ramdisk.as_ref());
            } else if size > memory {
                let found = format!(
                    "{} KiB, less than kernel and ramdisk together",
                    memory / 1024
                );
                self.errors.push(
                    self.node
                        .error(found, format!("more than {} KiB", size / 1024))
                        .property("memory"),
                );
            }
        }
        Some(DomainConfig {
            id: id?,
            path: self.node.path(),
            cpus: cpus?,
            memory: memory?,
            vpl011: self.node.property("vpl011").is_some(),
            kernel: kernel?,
            firmware,
            ramdisk,
            bootargs: bootargs?,
            coprocs,
            control: self.node.property("baton,control").is_some(),
            restart: restart?,
            enabled: self.node.is_available(),
            affinity: affinity?,
            pool: pool?,
            share: share?,
            passthrough,
            fixtures,
        })
    }

    fn passthrough(&mut self) -> Vec<Passed> {
        let before = self.before.iter().filter_map(|domain| domain.as_ref().ok());
        let taken = Taken {
            machine: self.machine,
            coprocs: self.coprocs,
            domains: before
                .map(|domain| (domain.path.as_str(), domain.passthrough.as_slice()))
                .collect(),
        };
        passthrough::read(&self.node, &taken, &mut self.errors, &mut self.warnings)
    }

    /// The coprocs that are devices of the tree, if there is room for them behind the devices given away.
    fn fixtures(&mut self, coprocs: &[Assignment], passthrough: &[Passed]) -> Vec<Fixture> {
        let entries = self.coprocs.iter();
        let known: Vec<&CoprocConfig> =
            entries.filter_map(|one| one.config.as_ref().ok()).collect();
        let fixture = |assignment: &Assignment| {
            let coproc = known.iter().find(|one| one.id == assignment.coproc)?;
            let node = coproc.node.as_ref()?.node.clone();
            Some(Fixture {
                coproc: coproc.id,
                node,
            })
        };
        let fixtures: Vec<Fixture> = coprocs.iter().filter_map(fixture).collect();
        if let Err(full) = plan(passthrough, &fixtures)
            && plan(passthrough, &[]).is_ok()
        {
            let error = self
                .node
                .error(full.to_string(), "fewer or smaller coprocs");
            self.errors.push(error.property("baton,coprocs"));
        }
        fixtures
    }

    fn restart(&self) -> Result<RestartPolicy, Error> {
        let Some(property) = self.node.property("baton,restart") else {
            return Ok(RestartPolicy::default());
        };
        let name = property.string()?;
        RestartPolicy::by_name(name)
            .ok_or_else(|| property.error(quote(name), "\"never\", \"on-crash\" or \"always\""))
    }

    fn spelling(&mut self) {
        for property in self
            .node
            .properties()
            .filter(|property| !PROPERTIES.contains(&property.name()))
        {
            if property.name().starts_with("baton,") {
                self.errors.push(unknown(
                    &property,
                    "a property of the schema baton,domain.yaml",
                ));
            } else {
                self.warnings
                    .push(unknown(&property, "a property that Baton acts on"));
            }
        }
        for name in ["vpl011", "baton,control", passthrough::TRUSTED] {
            if let Some(flag) = self
                .node
                .property(name)
                .filter(|flag| !flag.value().is_empty())
            {
                self.errors.push(flag.error(
                    format!("{} bytes", flag.value().len()),
                    "no value: the property is there or not",
                ));
            }
        }
    }

    fn id(&self) -> Result<DomainId, Error> {
        let (name, value) = match self.node.property("reg") {
            Some(property) => ("reg", Some(property.u64()?)),
            None => (
                "unit address",
                self.node
                    .unit_address()
                    .and_then(|unit| u64::from_str_radix(unit, 16).ok()),
            ),
        };
        let valid = value
            .and_then(|value| u16::try_from(value).ok())
            .filter(|value| *value != 0);
        let id = valid.map(DomainId).ok_or_else(|| {
            let found =
                value.map_or_else(|| String::from("no number"), |value| format!("{value:#x}"));
            self.node
                .error(
                    found,
                    "the domain's number, 1 to 0xffff, in reg or as unit address",
                )
                .property(name)
        })?;
        let other = self
            .before
            .iter()
            .filter_map(|domain| domain.as_ref().ok())
            .find(|other| other.id == id);
        match other {
            Some(other) => Err(self
                .node
                .error(
                    format!("{}, which {} has already", id.0, other.path),
                    "a number of its own",
                )
                .property(name)),
            None => Ok(id),
        }
    }

    fn cpus(&self) -> Result<u32, Error> {
        let property = self.node.required("cpus", "the number of vCPUs, 1 to 8")?;
        match property.u32()? {
            count @ 1..=CPU_LIMIT => Ok(count),
            count => Err(property.error(format!("{count}"), "the number of vCPUs, 1 to 8")),
        }
    }

    fn memory(&self) -> Result<u64, Error> {
        const EXPECTED: &str = "KiB as a 64-bit number, two cells";
        let property = self.node.required("memory", EXPECTED)?;
        let Ok(kib) = <[u8; 8]>::try_from(property.value()).map(u64::from_be_bytes) else {
            return Err(property
                .error(format!("{} bytes", property.value().len()), EXPECTED)
                .remedy("write <0 0x40000> for 256 MiB"));
        };
        let bytes = kib
            .checked_mul(1024)
            .filter(|bytes| *bytes != 0 && bytes.is_multiple_of(MEMORY_GRANULE));
        bytes.ok_or_else(|| property.error(format!("{kib} KiB"), "a multiple of 2048 KiB, not 0"))
    }

    fn assignments(&mut self) -> Vec<Assignment> {
        let Some(property) = self.node.property("baton,coprocs") else {
            for (name, _) in PER_COPROC {
                if let Some(found) = self.node.property(name) {
                    let error =
                        found.error("values without baton,coprocs", "a value for each coproc");
                    self.errors.push(error);
                }
            }
            return Vec::new();
        };
        let Some(phandles) = keep(&mut self.errors, property.cells()) else {
            return Vec::new();
        };
        let parameters = self.parameters(phandles.count_left());
        let mut list: Vec<Assignment> = Vec::new();
        for (at, phandle) in phandles.enumerate() {
            const EXPECTED: &str = "a phandle of a child of /chosen/coprocs";
            let target = self.node.tree().by_phandle(phandle);
            let entry = self.coprocs.iter().find(|entry| Some(entry.node) == target);
            match entry.map(|entry| (entry, &entry.config)) {
                None => {
                    let found = match target {
                        Some(node) => format!(
                            "phandle {phandle:#x} names {}, which is no coproc",
                            node.path()
                        ),
                        None => format!("phandle {phandle:#x} names no coproc"),
                    };
                    let error = property.error(found, EXPECTED);
                    self.errors
                        .push(error.remedy("add the node or drop the phandle"));
                }
                Some((entry, Err(_))) => {
                    let found = format!(
                        "phandle {phandle:#x} names {}, which has a mistake",
                        entry.node.path()
                    );
                    let error = property.error(found, "a coproc without mistakes");
                    self.errors.push(error.remedy("correct that node first"));
                }
                Some((_, Ok(coproc))) if !coproc.shared => {
                    let found = format!("{}, which is disabled", coproc.path);
                    let error = property.error(found, "a coproc that is shared from boot on");
                    self.errors
                        .push(error.remedy(
                            "set its status to \"okay\", or attach the domain at run time",
                        ));
                }
                Some((_, Ok(coproc))) if list.iter().any(|other| other.coproc == coproc.id) => {
                    self.errors
                        .push(property.error(format!("{} twice", coproc.path), "each coproc once"));
                }
                Some((_, Ok(coproc))) => {
                    list.push(Assignment {
                        coproc: coproc.id,
                        parameters: parameters.get(at).copied().unwrap_or_default(),
                    });
                }
            }
        }
        list
    }

    /// What the algorithms are told, for each of `count` coprocs.
    fn parameters(&mut self, count: usize) -> Vec<Parameters> {
        let [weights, priorities, budgets, periods] = PER_COPROC.map(|(name, kind)| {
            let values = self.values(name, kind, count);
            keep(&mut self.errors, values).unwrap_or_default()
        });
        let time = |times: &[u32], at: usize| {
            let time = times.get(at).copied().filter(|time| *time > 0)?;
            Some(Duration::from_micros(u64::from(time)))
        };
        let mut list = Vec::new();
        for at in 0..count {
            let (budget, period) = (time(&budgets, at), time(&periods, at));
            let wrong = match (budget, period) {
                (Some(budget), Some(period)) if budget > period => Some((
                    "baton,coproc-budgets-us",
                    format!("a budget of {budget} in {period}"),
                    "at most the period",
                )),
                (Some(_), None) => Some((
                    "baton,coproc-periods-us",
                    "no period for a budget".to_string(),
                    "a period for each budget",
                )),
                (None, Some(_)) => Some((
                    "baton,coproc-budgets-us",
                    "no budget for a period".to_string(),
                    "a budget for each period",
                )),
                _ => None,
            };
            if let Some((name, found, expected)) = wrong {
                self.errors
                    .push(self.node.error(found, expected).property(name));
            }
            list.push(Parameters {
                weight: weights.get(at).copied().unwrap_or(1),
                priority: priorities.get(at).copied().unwrap_or(0),
                budget,
                period,
            });
        }
        list
    }

    fn values(&self, name: &str, kind: &str, count: usize) -> Result<Vec<u32>, Error> {
        let Some(property) = self.node.property(name) else {
            return Ok(Vec::new());
        };
        let values: Vec<u32> = property.cells()?.collect();
        if values.len() != count {
            let expected = format!("{count}, one for each cell of baton,coprocs");
            return Err(property.error(format!("{} {kind}", values.len()), expected));
        }
        let bad = values
            .iter()
            .find(|value| kind == "weights" && !(1..=WEIGHT_LIMIT).contains(*value));
        match bad {
            Some(weight) => {
                Err(property.error(format!("weight {weight}"), "weights of 1 to 10000"))
            }
            None => Ok(values),
        }
    }

    fn affinity(&self, cpus: Option<u32>) -> Result<Vec<usize>, Error> {
        let Some(property) = self.node.property("baton,cpu-affinity") else {
            return Ok(Vec::new());
        };
        let mut list: Vec<usize> = property.cells()?.map(|cpu| cpu as usize).collect();
        let there = self.machine.cpus.len();
        if let Some(cpu) = list.iter().find(|cpu| **cpu >= there) {
            let expected = format!(
                "CPUs 0 to {}, counted in the order of /cpus",
                there.saturating_sub(1)
            );
            return Err(property
                .error(format!("CPU {cpu}"), expected)
                .remedy("name a CPU that the machine has"));
        }
        let Some(cpus) = cpus.map(|cpus| cpus as usize) else {
            return Ok(list);
        };
        // One cell stands for all vCPUs.
        if let &[all] = list.as_slice() {
            list.resize(cpus, all);
        }
        if list.len() != cpus {
            let expected = format!("1, or {cpus}, one for each vCPU");
            return Err(property.error(format!("{} cells", list.len()), expected));
        }
        Ok(list)
    }

    /// `bootargs` of the domain's node, or else of its kernel's; Xen puts it with the kernel.
    fn bootargs(&self, kernel: Option<String>) -> Result<String, Error> {
        match (self.node.property("bootargs"), kernel) {
            (None, kernel) => Ok(kernel.unwrap_or_default()),
            (Some(property), None) => property.string().map(String::from),
            (Some(property), Some(_)) => Err(property.error(
                "a second command line",
                "one, with the domain or with its kernel",
            )),
        }
    }

    fn boot_modules(&mut self) -> Modules {
        let mut modules = Modules {
            kernel: None,
            ramdisk: None,
            bootargs: None,
            firmware: false,
        };
        let mut kernel_seen = false;
        for node in self.node.children().filter(Node::is_available) {
            let is_firmware = node.is_compatible(&["multiboot,firmware"]);
            let is_kernel = node.is_compatible(&["multiboot,kernel"]) || is_firmware;
            let is_ramdisk = node.is_compatible(&["multiboot,ramdisk"]);
            if is_kernel == is_ramdisk {
                if node.is_compatible(&["multiboot,module"]) {
                    let expected = "either \"multiboot,kernel\" or \"multiboot,ramdisk\" besides";
                    self.errors.push(
                        node.error("\"multiboot,module\" alone or with both", expected)
                            .property("compatible"),
                    );
                } else {
                    self.warnings
                        .push(node.error("a node that Baton doesn't act on", "a module"));
                }
                continue;
            }
            if is_kernel {
                kernel_seen = true;
                modules.firmware |= is_firmware;
                let text = node
                    .property("bootargs")
                    .map(|property| property.string().map(String::from));
                modules.bootargs = keep(&mut self.errors, text.transpose()).flatten();
            }
            let region = self.module_region(&node);
            let Some(region) = keep(&mut self.errors, region) else {
                continue;
            };
            let module = Module {
                path: node.path(),
                region,
            };
            self.check_overlap(&module, modules.kernel.iter().chain(&modules.ramdisk));
            // The same file may serve two domains; half of one may not.
            self.check_overlap(
                &module,
                self.modules.iter().filter(|other| other.region != region),
            );
            let place = if is_kernel {
                &mut modules.kernel
            } else {
                &mut modules.ramdisk
            };
            match place {
                Some(first) => self.errors.push(
                    node.error(
                        format!("a second one besides {}", first.path),
                        "one kernel and at most one ramdisk",
                    )
                    .property("compatible"),
                ),
                None => *place = Some(module),
            }
        }
        if !kernel_seen {
            self.errors.push(
                self.node
                    .error(
                        "no kernel module",
                        "a child compatible with \"multiboot,kernel\"",
                    )
                    .property("compatible")
                    .remedy("add the kernel as a module"),
            );
        }
        modules
    }

    /// Firmware fetches what it starts by itself.
    fn check_firmware(&mut self, firmware: &Module, ramdisk: Option<&Module>) {
        if firmware.region.size > flash::SIZE {
            let found = format!("{:#x} bytes", firmware.region.size);
            let error = Error::new(firmware.path.clone(), found, "at most 64 MiB of firmware");
            self.errors.push(error.property("reg"));
        }
        if let Some(ramdisk) = ramdisk {
            let error = Error::new(
                ramdisk.path.clone(),
                "a ramdisk besides firmware",
                "a ramdisk for a kernel",
            );
            self.errors.push(error.property("compatible"));
        }
    }

    fn module_region(&self, node: &Node<'_>) -> Result<Region, Error> {
        let property = node.required("reg", "address and size of the module in memory")?;
        // Xen inherits these from further up, unlike the specification.
        let address_cells = inherited(&self.node, "#address-cells", 2)?;
        let size_cells = inherited(&self.node, "#size-cells", 1)?;
        let regions = node.reg_with_cells(address_cells, size_cells)?;
        let &[region] = regions.as_slice() else {
            return Err(property.error(format!("{} regions", regions.len()), "one region"));
        };
        if region.size == 0 {
            return Err(property.error(format!("{region}"), "a size that isn't 0"));
        }
        if !self.machine.is_ram(&region) {
            return Err(property
                .error(
                    format!("{region}, which isn't in RAM"),
                    "a region inside one bank of memory",
                )
                .remedy("correct the address or give the machine more memory"));
        }
        Ok(region)
    }

    fn check_overlap<'m>(&mut self, module: &Module, others: impl Iterator<Item = &'m Module>) {
        let mut others = others;
        if let Some(other) = others.find(|other| other.region.overlaps(&module.region)) {
            let found = format!(
                "{}, which overlaps {} of {}",
                module.region, other.region, other.path
            );
            self.errors.push(
                Error::new(module.path.clone(), found, "modules that don't overlap")
                    .property("reg"),
            );
        }
    }
}

struct Modules {
    kernel: Option<Module>,
    ramdisk: Option<Module>,
    bootargs: Option<String>,
    firmware: bool,
}

/// A number of cells from the node or the nearest ancestor that has one.
fn inherited(node: &Node<'_>, name: &str, default: usize) -> Result<usize, Error> {
    let mut node = Some(*node);
    while let Some(this) = node {
        if let Some(count) = this.cell_count(name)? {
            return Ok(count);
        }
        node = this.parent();
    }
    Ok(default)
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
