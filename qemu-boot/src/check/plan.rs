//! What boot does with a configuration that was read, in boot's order, as far as it goes without hardware.
//!
//! The same pools, algorithms and drivers, the same sizes of memory; and the same consequences: what a domain had that can't be created is
//! there for the next one. Each function names the one of `hypervisor/src/system` that it stands for.

use control_plane::config::machine::{EnableMethod, Interrupt, PciHost};
use control_plane::config::{
    Configuration, CoprocConfig, DeviceLocator, Dma, DomainConfig, Machine, Module, Passed,
    PciFunction,
};
use control_plane::devicetree::{Error, Region};
use control_plane::guest_tree::layout::PCI_SLOTS;
use control_plane::guest_tree::{self, GicVersion};
use control_plane::image;
use control_plane::passthrough;
use coproc_core::address::PAGE_SIZE;
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::Settings;
use coproc_core::driver::Match;
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::time::Instant;
use coproc_core::{Algorithm, Driver};
use hypervisor::vcpu_schedule::{self, CpuSet, MAX_CPUS, Pool, VcpuId, placing};

use super::findings::{self, Fate, Findings};
use super::ram::{Ram, Taken};
use super::{Image, Options};

/// INTA, which functions have that have one interrupt.
const INTA: u8 = 1;
/// Domains that can be at a time, one VMID each.
const DOMAINS: usize = 95;

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
}

/// Does all of it.
pub fn run(
    machine: &Machine,
    configuration: &Configuration,
    options: &Options,
    tree: u64,
    findings: &mut Findings,
) {
    for error in configuration.errors() {
        findings.error(error);
    }
    for warning in &configuration.warnings {
        findings.warning(warning);
    }
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
    };
    plan.console();
    plan.secondaries();
    if options.features.sharing() {
        plan.coprocs();
    }
    plan.start_pools();
    plan.domains(tree);
    for image in &options.images {
        plan.whose(image);
    }
}

impl Plan<'_> {
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

    /// `start.rs`, `start_secondaries`: the first CPU of the tree is taken for the one that boots.
    fn secondaries(&mut self) {
        let mut number = 0;
        for (at, cpu) in self.machine.cpus.iter().enumerate() {
            let why = match cpu.enable {
                _ if at == 0 => None,
                EnableMethod::Psci if self.machine.psci.is_some() => None,
                EnableMethod::SpinTable { release } => {
                    let word = Region {
                        address: release.get(),
                        size: 8,
                    };
                    let usable = self.machine.is_ram(&word) && word.address.is_multiple_of(8);
                    let text = format!("cpu-release-addr: {release} is not a word of RAM");
                    (!usable).then_some(text)
                }
                _ => Some("the device tree says no way to start it".to_owned()),
            };
            if let Some(why) = why {
                let text = format!("CPU {:#x} stays off: {why}", cpu.mpidr);
                self.findings.remark(&cpu.path, text);
                number += 1;
                self.online.push(None);
                continue;
            }
            self.online.push((number < MAX_CPUS).then_some(number));
            number += 1;
        }
        if self.machine.cpus.len() > MAX_CPUS {
            let text = format!("more than {MAX_CPUS} CPUs: the others stay off");
            self.findings.remark("/cpus", text);
        }
        self.unchecked("that all CPUs but the first, which is taken for the one that boots, come");
    }

    fn unchecked(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.findings.not_checked.contains(&text) {
            self.findings.not_checked.push(text);
        }
    }

    /// `discovery.rs`, `start_coprocs`.
    fn coprocs(&mut self) {
        if self.machine.smmus.is_empty() {
            self.findings
                .remark("/", "no IOMMU: no coprocessor can be shared");
        }
        for config in &self.configuration.coprocs {
            match self.coproc(config) {
                Ok(instance) => {
                    self.used.extend(&instance.interrupts);
                    self.instances.push(instance);
                }
                Err(Some(error)) => self.findings.error(&error),
                Err(None) => {}
            }
        }
    }

    /// What sharing this one comes to. `None`: it can't be told.
    fn coproc(&mut self, config: &CoprocConfig) -> Result<Instance, Option<Error>> {
        let Some(driver) = platforms::coproc::by_name(&config.driver) else {
            let text = format!(
                "{}: driver {} is unknown to this program",
                config.path, config.driver
            );
            self.unchecked(text);
            return Err(None);
        };
        let facts = driver.description();
        let works = !self.machine.smmus.is_empty();
        let (interrupts, kind) = match &config.device {
            DeviceLocator::Cpu { index, .. } => {
                self.firmware_core(config, *index, facts.matches)?;
                (Vec::new(), Kind::Firmware)
            }
            DeviceLocator::Pci(function) => {
                let host = self.machine.pci_hosts.first();
                let host = host.ok_or_else(|| config.device_absent())?;
                config.is_below(host, *function)?;
                let pci = |one: &Match| matches!(one, Match::Pci { .. });
                if !facts.matches.iter().any(pci) {
                    return Err(Some(config.device_unsuitable("a PCI function")));
                }
                config.stream(host, *function, facts, works)?;
                let ids: Vec<String> = facts
                    .matches
                    .iter()
                    .filter_map(|one| match one {
                        Match::Pci { vendor, device } => Some(format!("{vendor:04x}:{device:04x}")),
                        _ => None,
                    })
                    .collect();
                self.unchecked(format!(
                    "{}: that {} is there, is {}, and has its interrupt at INTA",
                    config.path,
                    config.device,
                    ids.join(" or ")
                ));
                let interrupt = config.interrupt(host, *function, INTA)?;
                (vec![interrupt.intid.0], Kind::Function)
            }
            DeviceLocator::Node(_) => {
                let found = config.node.as_ref().ok_or_else(|| config.device_absent())?;
                found.suits(config, facts, works)?;
                if found.node.dma == Dma::Unconfined {
                    let text = format!(
                        "{}: {} can reach all memory: all who share it are trusted with that",
                        config.path, config.device
                    );
                    self.findings.remark(&config.path, text);
                }
                let interrupts = found.node.interrupts.iter().take(facts.interrupts);
                let confined = !found.streams().is_empty();
                (
                    interrupts.map(|interrupt| interrupt.intid.0).collect(),
                    Kind::Node { confined },
                )
            }
        };
        Ok(self.share(config, driver, interrupts, kind)?)
    }

    /// `start_firmware_core`.
    fn firmware_core(
        &mut self,
        config: &CoprocConfig,
        index: usize,
        matches: &[Match],
    ) -> Result<(), Error> {
        if !matches.contains(&Match::FirmwareCore) {
            return Err(config.device_unsuitable("a CPU"));
        }
        let refused = |found: String, expected| Err(config.device_error(found, expected));
        match self.online.get(index).copied().flatten() {
            None => refused(
                format!("{}, which does not run", config.device),
                "a CPU that Baton could start",
            ),
            Some(0) => refused(
                format!("{}, which Baton booted on", config.device),
                "another CPU",
            ),
            Some(_) => Ok(()),
        }
    }

    /// `share`, `custody::begin`.
    fn share(
        &mut self,
        config: &CoprocConfig,
        driver: Box<dyn Driver>,
        interrupts: Vec<u32>,
        kind: Kind,
    ) -> Result<Instance, Error> {
        let defaults = Settings::of(&*driver);
        let settings = Settings {
            slice: config.slice.unwrap_or(defaults.slice),
            refusal_bound: config.refusal_bound.unwrap_or(defaults.refusal_bound),
            starvation_bound: config.starvation_bound,
        };
        let tuning = settings.tuning(&*driver);
        let algorithm = sched_algos::by_name(&config.scheduler, &tuning);
        // All are in this program, and the name is one of theirs.
        let mut algorithm = algorithm.ok_or_else(|| {
            let found = config.scheduler.clone();
            config.device_error(found, "an algorithm that is compiled in")
        })?;
        if config.shared {
            algorithm.tune(&tuning).map_err(|error| {
                let found = format!("{}: {error}", config.device);
                config.device_error(found, "a device that the driver takes")
            })?;
        }
        let mut text = format!(
            "slices of {}, may refuse for {}",
            settings.slice, settings.refusal_bound
        );
        if let Some(bound) = settings.starvation_bound {
            text += &format!(", nobody starves for more than {bound}");
        }
        if config.record {
            text += ", recorded";
        }
        self.findings.coprocs.push(findings::Coproc {
            id: config.id.0,
            device: config.device.to_string(),
            driver: config.driver.clone(),
            scheduler: config.scheduler.clone(),
            settings: text,
            shared: config.shared,
        });
        Ok(Instance {
            id: config.id,
            path: config.path.clone(),
            driver,
            algorithm,
            interrupts,
            kind,
        })
    }

    /// `start.rs`, `start_pools`.
    fn start_pools(&mut self) {
        self.running.clone_from(&self.online);
        for config in &self.configuration.coprocs {
            let made = self.instances.iter().any(|made| made.id == config.id);
            if let (DeviceLocator::Cpu { index, .. }, true) = (&config.device, made)
                && let Some(place) = self.running.get_mut(*index)
            {
                *place = None;
            }
        }
        let mut used = CpuSet::NONE;
        for config in &self.configuration.pools {
            let there = |cpu: &usize| self.running.get(*cpu).copied().flatten();
            let cpus: CpuSet = config.cpus.iter().filter_map(there).collect();
            if cpus.is_empty() {
                let error = Error::new(
                    config.path.clone(),
                    "none of them runs vCPUs",
                    "a CPU that starts and is no firmware core",
                );
                self.findings.error(&error.property("cpus"));
            }
            used |= cpus;
            self.findings.pools.push(findings::Pool {
                id: config.id,
                scheduler: config.scheduler.to_owned(),
                cpus: (config.cpus.iter().copied())
                    .filter(|cpu| there(cpu).is_some())
                    .collect(),
            });
            if let Some(algorithm) = vcpu_schedule::by_name(config.scheduler, cpus) {
                self.pools.push((config.id, Pool::new(cpus, algorithm)));
            }
        }
        for (index, cpu) in self.running.iter().enumerate() {
            if cpu.is_some_and(|cpu| !used.contains(cpu)) {
                let text = format!("CPU {index} is in no pool: it runs no vCPU");
                self.findings.remark("/chosen/cpu-pools", text);
            }
        }
    }

    /// All domains get their places, then those that are enabled are made, then what they share.
    fn domains(&mut self, tree: u64) {
        let ram = Ram::new(self.machine, self.configuration, self.options.baton, tree);
        // What `free_memory` gives doesn't overlap.
        let Ok(mut ram) = ram else { return };
        let total: u64 = self.machine.memory.iter().map(|bank| bank.size).sum();
        self.findings.memory.total_kib = total >> 10;
        self.findings.memory.before_domains_kib = ram.free() >> 10;
        self.unchecked(format!(
            "where Baton ({} KiB) and the tree are loaded; taken to be 2 MiB and 128 MiB into RAM",
            self.options.baton >> 10
        ));
        let configuration = self.configuration;
        let mut created: Vec<DomainId> = Vec::new();
        let mut placed = Vec::new();
        for config in configuration.domains.iter().flatten() {
            if let Err(error) = self.place(config) {
                self.findings.error(&error);
            } else {
                placed.push(config.id);
            }
        }
        for domain in &configuration.domains {
            let config = match domain {
                Ok(config) => config,
                Err(rejected) => {
                    self.rejected(&rejected.path);
                    continue;
                }
            };
            let fate = if !placed.contains(&config.id) {
                Fate::NotCreated
            } else if !config.enabled {
                Fate::Waits
            } else if let Err(error) = self.create(config, created.len(), &mut ram) {
                self.findings.error(&error);
                Fate::NotCreated
            } else {
                created.push(config.id);
                Fate::Starts
            };
            self.describe(config, fate);
        }
        self.shared_memory(&created, &mut ram);
        self.findings.memory.left_kib = ram.free() >> 10;
    }

    fn rejected(&mut self, path: &str) {
        self.findings.domains.push(findings::Domain {
            node: path.to_owned(),
            id: None,
            fate: Fate::NotCreated,
            vcpus: 0,
            pool: None,
            memory_mib: 0,
            has: Vec::new(),
        });
    }

    /// `passthrough::prepare`, `Workshop::place`.
    fn place(&mut self, config: &DomainConfig) -> Result<(), Error> {
        let error = |found: String, expected| config.passthrough_error(found, expected);
        for passed in &config.passthrough {
            let name = passed.to_string();
            let interrupts = match passed {
                Passed::Node(node) => {
                    if node.dma == Dma::Unconfined {
                        let text = format!(
                            "{}: {name} can reach all memory: the domain is trusted with that",
                            config.path
                        );
                        self.findings.remark(&config.path, text);
                    }
                    node.interrupts.clone()
                }
                Passed::Pci(function, _) => {
                    self.unchecked(format!(
                        "{}: that {name} is there, and has its interrupt at INTA",
                        config.path
                    ));
                    vec![own_interrupt(
                        self.machine.pci_hosts.first(),
                        *function,
                        &name,
                        &error,
                    )?]
                }
            };
            passthrough::claim(config, &name, &interrupts, &mut self.used)?;
        }
        let Some((id, pool)) = self.pools.get_mut(config.pool) else {
            return Err(placing::no_pool(config));
        };
        let mut added: Vec<VcpuId> = Vec::new();
        for index in 0..config.cpus as usize {
            let now = Instant::from_nanos(0);
            let one = placing::parameters(config, index, &self.running).and_then(|parameters| {
                pool.add(&parameters, now)
                    .map_err(|error| placing::refusal(config, index, *id, pool.algorithm(), error))
            });
            match one {
                Ok((vcpu, _)) => added.push(vcpu),
                Err(error) => {
                    for vcpu in added {
                        // It never ran, so nothing is in its way.
                        let _ = pool.remove(vcpu);
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// `lifecycle::create_at_boot`: memory, a VMID, images, coprocs, beside so many `others`.
    fn create(&mut self, config: &DomainConfig, others: usize, ram: &mut Ram) -> Result<(), Error> {
        let mut taken = Taken::default();
        let mut attached = Vec::new();
        let result = ram
            .domain(config, &mut taken)
            .and_then(|()| {
                if others < DOMAINS {
                    return Ok(());
                }
                let expected = "at most 95 domains at a time, one VMID each";
                Err(Error::new(config.path.clone(), "one domain more", expected))
            })
            .and_then(|()| self.fill(config))
            .and_then(|()| self.connect(config, ram, &mut taken, &mut attached));
        if result.is_err() {
            for (at, who) in attached {
                let instance: &mut Instance = &mut self.instances[at];
                let _ = instance.algorithm.remove(who);
                instance.driver.destroy(who);
            }
            ram.give_back(taken);
        }
        result
    }

    /// `Images::new`.
    fn fill(&mut self, config: &DomainConfig) -> Result<(), Error> {
        let mut initrd = None;
        if !config.firmware {
            match self.image(&config.kernel)? {
                None => {
                    let at = config.kernel.region.address;
                    let text = format!("the kernel at {at:#x}: give it with --image {at:#x}=FILE");
                    self.unchecked(text);
                }
                Some(kernel) => {
                    let ramdisk = config.ramdisk.as_ref().map(|module| module.region.size);
                    let placed = image::of_domain(config, kernel, ramdisk)?;
                    initrd = placed.ramdisk.zip(ramdisk).map(|(at, size)| Region {
                        address: at.get(),
                        size,
                    });
                }
            }
        }
        for module in [Some(&config.kernel), config.ramdisk.as_ref()]
            .into_iter()
            .flatten()
        {
            self.image(module)?;
        }
        let host_memory = [Region {
            address: 0,
            size: config.memory,
        }];
        let gic = match &self.machine.gic {
            control_plane::config::machine::Gic::V3(_) => GicVersion::V3,
            control_plane::config::machine::Gic::V2(_) => GicVersion::V2,
        };
        guest_tree::of_domain(config, gic, initrd, None, &host_memory).map(|_| ())
    }

    /// What lies where this module is to be, cut to what the tree says of its size.
    fn image(&self, module: &Module) -> Result<Option<&[u8]>, Error> {
        let Region { address, size } = module.region;
        let mut images = self.options.images.iter();
        let Some(image) = images.find(|image| image.address == address) else {
            return Ok(None);
        };
        if image.bytes.len() as u64 > size {
            let found = format!(
                "{size:#x} bytes, but {} has {:#x}",
                image.file.display(),
                image.bytes.len()
            );
            let error = Error::new(module.path.clone(), found, "the file's size");
            return Err(error.property("reg"));
        }
        Ok(Some(&image.bytes))
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

    /// `load::connect`, `attachment::attach`: each coproc of the domain in turn.
    fn connect(
        &mut self,
        config: &DomainConfig,
        ram: &mut Ram,
        taken: &mut Taken,
        attached: &mut Vec<(usize, VcoprocId)>,
    ) -> Result<(), Error> {
        let refused = |found: String, expected: &'static str| {
            Error::new(config.path.clone(), found, expected).property("baton,coprocs")
        };
        let functions = config.passthrough.iter();
        let functions = functions.filter(|passed| matches!(passed, Passed::Pci(..)));
        // The host bridge is one, too.
        let mut slots = PCI_SLOTS.saturating_sub(1 + functions.count());
        if !config.passthrough.is_empty() {
            ram.space(config.memory, taken).map_err(|error| {
                config.passthrough_error(error.to_string(), "an IOMMU that works")
            })?;
        }
        for assignment in &config.coprocs {
            let mut instances = self.instances.iter_mut().enumerate();
            let Some((at, instance)) = instances.find(|(_, one)| one.id == assignment.coproc)
            else {
                let unknown = |coproc: &&CoprocConfig| {
                    coproc.id == assignment.coproc
                        && platforms::coproc::by_name(&coproc.driver).is_none()
                };
                if self
                    .configuration
                    .coprocs
                    .iter()
                    .any(|coproc| unknown(&coproc))
                {
                    continue;
                }
                return Err(config.coproc_unavailable(assignment.coproc));
            };
            if !matches!(instance.kind, Kind::Node { .. }) {
                slots = slots
                    .checked_sub(1)
                    .ok_or_else(|| refused("too many coprocs".to_owned(), "at most 31"))?;
            }
            let expected = "a coproc that takes the domain";
            let path = instance.path.clone();
            let none = |error: control_plane::memory::frames::FrameError| {
                refused(error.to_string(), expected)
            };
            match instance.kind {
                Kind::Firmware => {
                    let memory = fw_core_abi::IMAGE_SIZE + fw_core_abi::SHARED_SIZE;
                    ram.take(memory, PAGE_SIZE, taken).map_err(none)?;
                    ram.space(memory, taken).map_err(none)?;
                }
                Kind::Function | Kind::Node { confined: true } => {
                    ram.space(config.memory, taken).map_err(none)?;
                    let area = instance.driver.description().save_area;
                    ram.take(area, PAGE_SIZE, taken).map_err(none)?;
                }
                Kind::Node { confined: false } => {}
            }
            let who = VcoprocId(self.next);
            self.next += 1;
            let made = instance
                .driver
                .create(who)
                .map_err(|error| error.to_string());
            let added = made.and_then(|()| {
                let added = instance.algorithm.add(who, &assignment.parameters);
                added.map_err(|error| {
                    instance.driver.destroy(who);
                    error.to_string()
                })
            });
            added.map_err(|error| refused(format!("{path}: {error}"), expected))?;
            attached.push((at, who));
        }
        Ok(())
    }

    /// `shared_memory::create`.
    fn shared_memory(&mut self, created: &[DomainId], ram: &mut Ram) {
        for config in &self.configuration.shared {
            let other = |found: String, expected: &'static str| {
                Error::new(config.path.clone(), found, expected)
            };
            let missing = config.domains.iter().find(|id| !created.contains(id));
            let result = match missing {
                Some(id) => Err(
                    other(format!("{id}, which was not created"), "domains that work")
                        .property("domains"),
                ),
                None => ram
                    .take(config.size, config.size, &mut Taken::default())
                    .map_err(|error| other(error.to_string(), "free memory").property("size")),
            };
            match result {
                Err(error) => self.findings.error(&error),
                Ok(()) => self.findings.shared_memory.push(findings::Shared {
                    node: config.path.clone(),
                    kib: config.size >> 10,
                    domains: config.domains.iter().map(|id| id.0).collect(),
                }),
            }
        }
    }

    fn describe(&mut self, config: &DomainConfig, fate: Fate) {
        let pool = self.configuration.pools.get(config.pool);
        let mut domain = findings::Domain {
            node: config.path.clone(),
            id: Some(config.id.0),
            fate,
            vcpus: config.cpus,
            pool: pool.map(|pool| pool.id),
            memory_mib: config.memory >> 20,
            has: Vec::new(),
        };
        if fate != Fate::NotCreated {
            let kind = if config.firmware {
                "firmware"
            } else {
                "kernel"
            };
            domain.has.push(module(kind, &config.kernel));
            let ramdisk = config.ramdisk.as_ref();
            domain
                .has
                .extend(ramdisk.map(|file| module("ramdisk", file)));
            for assignment in &config.coprocs {
                let mut instances = self.instances.iter();
                let instance = instances.find(|instance| instance.id == assignment.coproc);
                let algorithm = instance.map_or("unknown", |instance| instance.algorithm.name());
                let part = part(algorithm, &assignment.parameters);
                let id = assignment.coproc.0;
                domain
                    .has
                    .push(format!("coproc {id} under {algorithm}{part}"));
            }
            for passed in &config.passthrough {
                domain.has.push(format!("{passed} for itself"));
            }
        }
        self.findings.domains.push(domain);
    }
}

fn module(kind: &str, module: &Module) -> String {
    let Region { address, size } = module.region;
    format!("{kind} of {} KiB at {address:#x}", size.div_ceil(1024))
}

/// The interrupt of a function that a domain gets for itself: `passthrough::functions::prepare`.
fn own_interrupt(
    host: Option<&PciHost>,
    function: PciFunction,
    name: &str,
    error: &dyn Fn(String, &'static str) -> Error,
) -> Result<Interrupt, Error> {
    let host = host.filter(|host| host.has_on_own_bus(function));
    let host = host.ok_or_else(|| passthrough::not_on_own_bus(name, error))?;
    let interrupt = host.intx_interrupt(function, INTA);
    interrupt.ok_or_else(|| passthrough::no_interrupt(name, error))
}

/// What an algorithm makes of a domain's parameters.
fn part(algorithm: &str, parameters: &Parameters) -> String {
    match (algorithm, parameters.budget, parameters.period) {
        ("reservation", Some(budget), Some(period)) => format!(", {budget} in each {period}"),
        ("weighted" | "reservation", _, _) => format!(", weight {}", parameters.weight),
        ("priority", _, _) => format!(", priority {}", parameters.priority),
        _ => String::new(),
    }
}
