//! A domain's node, property by property.
//!
//! A mistake doesn't end the reading, so that all are told at once.

use super::modules::Modules;
use super::numbers;
use super::{CPU_LIMIT, DomainConfig, MEMORY_GRANULE, Module, Rejected};
use crate::config::coprocs::{Entry, keep, unknown};
use crate::config::machine::Machine;
use crate::config::passthrough::{self, Passed, Taken};
use crate::config::pools::{self, PoolConfig};
use crate::devicetree::{Error, Node, Property, Region, quote};
use crate::lifecycle::policy::RestartPolicy;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::id::DomainId;

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

/// What a domain that is described after boot finds, and can't change.
#[derive(Clone, Copy)]
pub(super) struct Later<'r> {
    /// Where the boot loader has put modules that are still there.
    pub(super) modules: &'r [Region],
    /// Devices that the domain has for itself.
    pub(super) passthrough: &'r [Passed],
}

/// A domain's node, being read.
pub(super) struct Reader<'r, 't> {
    pub(super) node: Node<'t>,
    /// Its number if it asks for none.
    pub(super) number: Option<DomainId>,
    pub(super) machine: &'r Machine,
    pub(super) coprocs: &'r [Entry<'t>],
    pub(super) pools: &'r [PoolConfig],
    pub(super) before: &'r [Result<DomainConfig, Rejected>],
    /// Modules of earlier domains.
    pub(super) modules: &'r [Module],
    /// What has been there since boot, if that is over.
    pub(super) later: Option<Later<'r>>,
    pub(super) errors: Vec<Error>,
    pub(super) warnings: Vec<Error>,
}

impl Reader<'_, '_> {
    pub(super) fn read(&mut self) -> Option<DomainConfig> {
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
        if let Some(later) = &self.later {
            let kept = passthrough::same_as_before(&self.node, later.passthrough);
            keep(&mut self.errors, kept);
            return later.passthrough.to_vec();
        }
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
            // ImageBuilder's scripts for Xen give vpl011 a value.
            let is_flag = |flag: &Property<'_>| {
                flag.value().is_empty() || (name == "vpl011" && flag.value() == [0, 0, 0, 1])
            };
            if let Some(flag) = self.node.property(name).filter(|flag| !is_flag(flag)) {
                self.errors.push(flag.error(
                    format!("{} bytes", flag.value().len()),
                    "no value: the property is there or not",
                ));
            }
        }
    }

    fn id(&self) -> Result<DomainId, Error> {
        let Some((name, id)) = numbers::asked(&self.node)? else {
            return self.number.ok_or_else(|| {
                let expected = "the domain's number, 1 to 0xffff, in reg or as unit address";
                self.node.error("no number, and none is left", expected)
            });
        };
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
}
