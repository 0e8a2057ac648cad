//! What boot does with a configuration that was read, as far as it goes without hardware.
//!
//! Boot's own order ([`startup::run`]), the same pools, algorithms and drivers, the same sizes of memory; and the same consequences: what a domain had
//! that can't be created is there for the next one. What of each step touches hardware is in `hypervisor/src/system`: here it is taken for granted,
//! and listed.

mod coprocs;
mod domains;
mod summary;

use control_plane::config::machine::Cpu;
use control_plane::config::{
    Configuration, CoprocConfig, DeviceLocator, DomainConfig, Machine, PoolConfig, SharedMemory,
};
use control_plane::devicetree::Error;
use control_plane::startup::{self, Site, Starter, Voice};
use coproc_core::id::{CoprocId, DomainId};
use coproc_core::{Algorithm, Driver};
use hypervisor::vcpu_schedule::{Pool, placing};

use super::findings::{self, Findings};
use super::ram::Ram;
use super::{Image, Options};

/// INTA, which functions have that have one interrupt.
const INTA: u8 = 1;

/// A coproc that boot would have made.
struct Instance {
    id: CoprocId,
    path: String,
    driver: Box<dyn Driver>,
    algorithm: Box<dyn Algorithm>,
    /// A firmware core has none.
    interrupts: Vec<u32>,
    kind: Kind,
}

/// What a coproc is, for what a share in it takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Firmware,
    /// A PCI function, which takes one of the domain's slots.
    Function,
    /// A device of the tree, behind the IOMMU or not.
    Node {
        confined: bool,
    },
}

/// All that goes on.
struct Plan<'a> {
    machine: &'a Machine,
    configuration: &'a Configuration,
    options: &'a Options,
    findings: &'a mut Findings,
    /// For each CPU of the tree its number at run time, if it comes.
    online: Vec<Option<usize>>,
    /// The same, without firmware cores.
    running: Vec<Option<usize>>,
    instances: Vec<Instance>,
    pools: Vec<(u32, Pool)>,
    /// Interrupts that are somebody's.
    used: Vec<u32>,
    next: u32,
    ram: Ram,
    /// Who has memory, and all else; and how many PCI slots each has left.
    created: Vec<(DomainId, usize)>,
    /// Nodes of which nothing is made.
    left_out: Vec<String>,
}

/// Does all of it.
pub fn run(
    machine: &Machine,
    configuration: &Configuration,
    options: &Options,
    tree: u64,
    findings: &mut Findings,
) {
    startup::tell(configuration, findings);
    let mut plan = Plan {
        machine,
        configuration,
        options,
        findings,
        online: Vec::new(),
        running: Vec::new(),
        instances: Vec::new(),
        pools: Vec::new(),
        used: Vec::new(),
        next: 0,
        ram: Ram::new(machine, configuration, options.baton, tree),
        created: Vec::new(),
        left_out: Vec::new(),
    };
    plan.memory();
    plan.console();
    plan.secondaries();
    if options.features.sharing() && machine.smmus.is_empty() {
        plan.findings.remark("/", startup::NO_IOMMU);
    }
    startup::run(configuration, &mut plan);
    plan.findings.memory.left_kib = plan.ram.free() >> 10;
    plan.summary();
    for image in &options.images {
        plan.whose(image);
    }
}

impl Plan<'_> {
    fn memory(&mut self) {
        let total: u64 = self.machine.memory.iter().map(|bank| bank.size).sum();
        self.findings.memory.total_kib = total >> 10;
        self.findings.memory.before_domains_kib = self.ram.free() >> 10;
        self.unchecked(format!(
            "where Baton ({} KiB) and the tree are loaded; taken to be 2 MiB and 128 MiB into RAM",
            self.options.baton >> 10
        ));
    }

    fn console(&mut self) {
        match &self.machine.uart {
            None => self.findings.remark(
                "/chosen",
                "/chosen: stdout-path: names no UART; Baton says nothing, not even about mistakes",
            ),
            Some(uart) if !self.options.features.drives_uart(&uart.compatible) => {
                let text = format!(
                    "{}: no driver for {}; Baton says nothing, not even about mistakes",
                    uart.path,
                    uart.compatible.join(", ")
                );
                self.findings.remark(&uart.path, text);
            }
            Some(_) => {}
        }
    }

    fn secondaries(&mut self) {
        let mut all = |_: usize, _: &Cpu, _: Starter| Ok(true);
        self.online = startup::start_cpus(self.machine, Some(0), self.findings, &mut all);
        self.unchecked("that all CPUs but the first, which is taken for the one that boots, come");
    }

    fn unchecked(&mut self, text: impl Into<String>) {
        self.findings.unchecked(text.into());
    }

    /// An image that is no module's helps nobody.
    fn whose(&mut self, image: &Image) {
        let mut regions = self.configuration.module_regions();
        if !regions.any(|region| region.address == image.address) {
            let text = format!(
                "--image {:#x}={}: no module of a domain without mistakes lies there",
                image.address,
                image.file.display()
            );
            drop(regions);
            self.findings.remark("", text);
        }
    }
}

impl Site for Plan<'_> {
    fn voice(&mut self) -> &mut dyn Voice {
        self.findings
    }

    fn coproc(&mut self, config: &CoprocConfig) -> Result<(), Error> {
        if let Some(instance) = self.instance(config)? {
            self.used.extend(&instance.interrupts);
            self.instances.push(instance);
        }
        Ok(())
    }

    fn pools(&mut self, configs: &[PoolConfig]) {
        self.running.clone_from(&self.online);
        for config in &self.configuration.coprocs {
            let made = self.instances.iter().any(|made| made.id == config.id);
            if let (DeviceLocator::Cpu { index, .. }, true) = (&config.device, made)
                && let Some(place) = self.running.get_mut(*index)
            {
                *place = None;
            }
        }
        for config in configs {
            let cpus = config.cpus.iter().copied();
            let runs = |cpu: &usize| self.running.get(*cpu).copied().flatten().is_some();
            self.findings.pools.push(findings::Pool {
                id: config.id,
                scheduler: config.scheduler.to_owned(),
                cpus: cpus.filter(runs).collect(),
            });
        }
        self.pools = placing::pools(configs, &self.running, self.findings);
    }

    fn place(&mut self, config: &DomainConfig) -> Result<(), Error> {
        self.devices(config)?;
        self.vcpus(config)
    }

    fn create(&mut self, config: &DomainConfig) -> bool {
        match self.build(config) {
            Ok(slots) => self.created.push((config.id, slots)),
            Err(error) => {
                self.findings.error(&error);
                return false;
            }
        }
        true
    }

    fn share_memory(&mut self, config: &SharedMemory) -> Result<(), Error> {
        self.shared_memory(config)
    }

    fn left_out(&mut self, path: &str) {
        self.left_out.push(path.to_owned());
    }
}
