//! From the device tree to running domains.

use super::firmware::{self, CoreRegisters};
use super::load::{self, Workshop};
use super::sharing::{Device, Instance, Recipe, Registers, Side};
use super::tables::TableFrames;
use super::{
    FRAMES, System, boot, console, devices, interrupts, pci, recording, schedule, shared_memory,
    smmu,
};
use crate::arch::{self, context, cpu, gic, mmu, power, report, timer, uart};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::address::HostPhysical;
use coproc_core::coproc::{Coproc, Settings};
use coproc_core::driver::{Confinement, Match, Unconfined};
use coproc_core::record::{Header, Log};
use core::sync::atomic::{AtomicUsize, Ordering};
use hypervisor::config::machine::{
    self, EnableMethod, Gic, Machine, PciHost, Trigger, UartKind, WindowKind,
};
use hypervisor::config::{Configuration, CoprocConfig, DeviceLocator, Known, KnownName};
use hypervisor::devicetree::{Error, Region, Tree};
use hypervisor::vpci::{
    self, ConfigAccess, FunctionAddress, FunctionDescription, HostWindow, WindowAllocator,
};
use platforms::iommu::smmuv3::{Setup, Smmu};
use platforms::translation::{Geometry, TableMemory};
use spin::Mutex;

/// VMIDs of the IOMMU's address spaces; the CPUs' stage 2 has those below.
const IOMMU_VMIDS: core::ops::Range<u16> = 128..256;
/// Bits of a domain's address: PCI's 64-bit window ends at 1 TiB.
const DOMAIN_ADDRESS_BITS: u8 = 40;

static ONLINE: AtomicUsize = AtomicUsize::new(0);

fn fatal(message: core::fmt::Arguments<'_>) -> ! {
    console::flush();
    report::emergency(format_args!(
        "[baton] fatal: {message}\n[baton] nothing was started\n"
    ));
    report::halt()
}

/// The machine can't be used as the tree describes it. Says so, if the tree has a console at least.
fn unusable(error: &Error, tree: &Tree<'_>, image: HostPhysical) -> ! {
    let message = error.to_string();
    let uart = machine::uart::find(tree).ok().flatten();
    // Without RAM: from here on the tree is out of reach.
    if mmu::initialise(image, context::physical_address_bits(), &[]).is_ok()
        && let Some(uart) = uart.filter(|uart| uart.kind == UartKind::Pl011)
        && let Ok(region) = mmu::map_device(
            HostPhysical::new(uart.registers.address),
            uart.registers.size,
        )
    {
        report::use_console(region);
    }
    fatal(format_args!("{message}"))
}

/// The boot CPU comes here.
pub fn boot(blob: &'static [u8], tree: HostPhysical, image: HostPhysical) -> ! {
    console::start_log();
    let parsed = match Tree::new(blob) {
        Ok(tree) => tree,
        // Without a tree there is no console: the report only stops the machine where a debugger finds it.
        Err(error) => fatal(format_args!("the device tree at {tree}: {error}")),
    };
    let machine = match Machine::from_tree(&parsed) {
        Ok(machine) => machine,
        Err(error) => unusable(&error, &parsed, image),
    };
    let ram: Vec<(u64, u64)> = machine
        .memory
        .iter()
        .map(|region| (region.address, region.end()))
        .collect();
    if let Err(error) = mmu::initialise(image, context::physical_address_bits(), &ram) {
        fatal(format_args!("EL2's translation tables: {error}"));
    }
    start_console(&machine);
    timer::initialise();
    let place = Region {
        address: tree.get(),
        size: blob.len() as u64,
    };
    if !machine.is_ram(&place) {
        fatal(format_args!(
            "the device tree at {tree} is not in RAM as it describes it"
        ));
    }
    log::info!(
        "Baton {} on {} CPUs",
        env!("CARGO_PKG_VERSION"),
        machine.cpus.len()
    );

    let known = known_names();
    let configuration = known.with(|known| Configuration::from_tree(&parsed, &machine, known));
    for error in configuration.errors() {
        log::error!("{error}");
    }
    for warning in &configuration.warnings {
        log::warn!("{warning}");
    }
    for config in configuration
        .domains
        .iter()
        .flatten()
        .filter(|config| config.control)
    {
        log::warn!("{}: baton,control has no effect yet", config.path);
    }
    set_clock(&machine);
    take_memory(&machine, &configuration, tree, blob.len() as u64, image);

    let mut gic = start_gic(&machine);
    start_cpu(&mut gic, &machine);
    mmu::invalidate_all_guests();
    let online = start_secondaries(&machine);
    start_iommu(&machine, &mut gic);
    super::trace::start(online.iter().flatten().count());
    let instances = start_coprocs(&machine, &configuration, &mut gic, &online);
    let geometry = stage2_geometry();

    // Firmware cores run no vCPU.
    let running: Vec<Option<usize>> = online
        .iter()
        .map(|number| number.filter(|number| !firmware::is_core(*number)))
        .collect();
    let mut workshop = Workshop::new(&instances, geometry, &running);
    let mut domains = Vec::new();
    for config in configuration.domains.iter().flatten() {
        match workshop.create(config) {
            Ok(domain) => domains.push(domain),
            Err(error) => {
                log::error!("{error}");
                log::error!("{} is not created", config.path);
            }
        }
    }
    for rejected in configuration
        .domains
        .iter()
        .filter_map(|domain| domain.as_ref().err())
    {
        log::error!("{} is not created", rejected.path);
    }
    if let Some(uart) = &machine.uart
        && let Some(interrupt) = uart.interrupt
        && let Err(error) = gic.enable(
            interrupt.intid.0,
            false,
            cpu::current().affinity.load(Ordering::Relaxed),
        )
    {
        log::warn!("{}: {error}; no input", uart.path);
    }
    let shared = shared_memory::create(&configuration.shared, &domains);
    let system = super::publish(System {
        machine,
        numbers: online,
        gic: Mutex::new(gic),
        instances,
        shared,
        domains,
    });
    load::distribute(&system.domains);
    let (used, heap) = arch::boot::heap_use();
    log::info!(
        "{} domains, {} coprocs; {} MiB free; heap {} of {} KiB",
        system.domains.len(),
        system.instances.len(),
        FRAMES.lock().total() >> 20,
        used >> 10,
        heap >> 10
    );
    console::listen();
    ONLINE.fetch_or(1 << 31, Ordering::SeqCst);
    for domain in &system.domains {
        log::info!("{}: starts ({})", domain.id, domain.path);
        load::start(domain);
    }
    schedule::run()
}

/// The other CPUs come here.
pub fn secondary(index: usize) -> ! {
    timer::initialise();
    ONLINE.fetch_or(1 << index, Ordering::SeqCst);
    // Until the boot CPU has made the system; it takes a moment, once.
    while ONLINE.load(Ordering::SeqCst) & 1 << 31 == 0 {
        core::hint::spin_loop();
    }
    if let Some(system) = super::get() {
        start_cpu(&mut system.gic.lock(), &system.machine);
    }
    if let Some(core) = firmware::here() {
        core.run()
    }
    schedule::run()
}

/// What every CPU does to itself.
fn start_cpu(gic: &mut gic::Gic, machine: &Machine) {
    let this = cpu::current();
    let affinity = this.affinity.load(Ordering::Relaxed);
    if let Err(error) = gic.initialise_cpu(affinity) {
        fatal(format_args!("{error}"));
    }
    let timers = [
        machine.timer.hypervisor,
        machine.gic.maintenance(),
        machine.timer.virt,
    ];
    // Firmware can start the virtual timer, but nobody would take its interrupt.
    let used = if firmware::here().is_some() { 2 } else { 3 };
    for intid in timers
        .iter()
        .take(used)
        .map(|interrupt| interrupt.intid.0)
        .chain([gic::KICK])
    {
        if let Err(error) = gic.enable(intid, false, affinity) {
            fatal(format_args!("{error}"));
        }
    }
    context::set_traps();
    let vtcr = platforms::translation::vtcr_el2(stage2_geometry());
    mmu::set_stage2_control(vtcr);
}

/// Shape of all stage 2 tables.
pub fn stage2_geometry() -> Geometry {
    let pa_bits = context::physical_address_bits();
    match Geometry::stage2(DOMAIN_ADDRESS_BITS.min(pa_bits), pa_bits) {
        Ok(geometry) => geometry,
        Err(error) => fatal(format_args!("stage 2: {error}")),
    }
}

fn start_console(machine: &Machine) {
    let Some(found) = &machine.uart else {
        return;
    };
    if found.kind != UartKind::Pl011 {
        return;
    }
    let registers = found.registers;
    let Ok(region) = mmu::map_device(HostPhysical::new(registers.address), registers.size) else {
        return;
    };
    report::use_console(region);
    if let Some(uart) = uart::Pl011::new(region) {
        console::start(uart);
    }
}

/// Reads the time of day, from the machine's PL031 if it has one.
fn set_clock(machine: &Machine) {
    /// RTCDR (Arm DDI 0224, 3.3.1): seconds.
    const DATA: u64 = 0;
    if let Some(found) = &machine.rtc
        && let Ok(region) = mmu::map_device(HostPhysical::new(found.address), found.size)
    {
        devices::set_wall_clock(region.read32(DATA));
    }
}

struct KnownNames {
    drivers: Vec<KnownName<'static>>,
    schedulers: Vec<KnownName<'static>>,
}

impl KnownNames {
    fn with<R>(&self, use_it: impl FnOnce(&Known<'_>) -> R) -> R {
        use_it(&Known {
            drivers: &self.drivers,
            schedulers: &self.schedulers,
        })
    }
}

fn known_names() -> KnownNames {
    let names = |known: &'static [(&'static str, &'static str, bool)]| {
        known
            .iter()
            .map(|(name, feature, compiled_in)| KnownName {
                name,
                feature,
                compiled_in: *compiled_in,
            })
            .collect()
    };
    KnownNames {
        drivers: names(platforms::coproc::KNOWN),
        schedulers: names(sched_algos::KNOWN),
    }
}

fn take_memory(
    machine: &Machine,
    configuration: &Configuration,
    tree: HostPhysical,
    tree_size: u64,
    image: HostPhysical,
) {
    let mut taken: Vec<Region> = configuration.module_regions().collect();
    taken.push(Region {
        address: tree.get(),
        size: tree_size,
    });
    taken.push(Region {
        address: image.get(),
        size: mmu::image_size(),
    });
    let mut frames = FRAMES.lock();
    for region in machine.free_memory(&taken) {
        if let Err(error) = frames.add(HostPhysical::new(region.address), region.size) {
            log::error!("memory at {:#x}: {error}", region.address);
        }
    }
}

fn start_gic(machine: &Machine) -> gic::Gic {
    let Gic::V3(found) = &machine.gic else {
        fatal(format_args!(
            "the interrupt controller is a GICv2, which is not built yet; expected a GICv3"
        ));
    };
    let map =
        |region: &Region| match mmu::map_device(HostPhysical::new(region.address), region.size) {
            Ok(region) => region,
            Err(error) => fatal(format_args!(
                "the interrupt controller at {:#x}: {error}",
                region.address
            )),
        };
    let redistributors: ArrayVec<_, 8> = found.redistributors.iter().take(8).map(map).collect();
    let mut gic = gic::Gic::new(map(&found.distributor), redistributors);
    gic.initialise();
    interrupts::identify(
        machine.timer.hypervisor.intid.0,
        machine.timer.virt.intid.0,
        machine.gic.maintenance().intid.0,
        machine
            .uart
            .as_ref()
            .and_then(|uart| uart.interrupt)
            .map_or(0, |interrupt| interrupt.intid.0),
    );
    gic
}

/// Starts the other CPUs. Returns, for each CPU of the tree, its number here if it runs: CPU 0 is the one that booted, wherever
/// it stands in the tree.
fn start_secondaries(machine: &Machine) -> Vec<Option<usize>> {
    let this = cpu::current();
    let own = this.affinity.load(Ordering::Relaxed);
    let mut online: Vec<Option<usize>> = machine
        .cpus
        .iter()
        .map(|cpu| (cpu.mpidr == own).then_some(0))
        .collect();
    let conduit = machine.psci.map(|psci| match psci.conduit {
        machine::Conduit::Smc => power::Conduit::Smc,
        machine::Conduit::Hvc => power::Conduit::Hvc,
    });
    let others = machine
        .cpus
        .iter()
        .zip(&mut online)
        .filter(|(cpu, _)| cpu.mpidr != own);
    for (index, (found, number)) in (1..cpu::MAX_CPUS).zip(others) {
        let Some((entry, argument)) = arch::boot::prepare_secondary(index) else {
            break;
        };
        let started = match (found.enable, conduit) {
            (EnableMethod::Psci, Some(conduit)) => {
                power::cpu_on(conduit, found.mpidr, entry, argument)
                    .map_err(|error| format!("PSCI CPU_ON: {error}"))
            }
            (EnableMethod::SpinTable { .. }, _) => {
                Err("starting by spin table is not built yet".to_string())
            }
            _ => Err("the device tree says no way to start it".to_string()),
        };
        if let Err(error) = started {
            log::warn!("CPU {:#x} stays off: {error}", found.mpidr);
            continue;
        }
        let limit = timer::now() + coproc_core::time::Duration::from_secs(1);
        while ONLINE.load(Ordering::SeqCst) & 1 << index == 0 && timer::now() < limit {
            core::hint::spin_loop();
        }
        if ONLINE.load(Ordering::SeqCst) & 1 << index == 0 {
            log::warn!("CPU {:#x} was started but did not come", found.mpidr);
        } else {
            *number = Some(index);
        }
    }
    online
}

fn start_iommu(machine: &Machine, gic: &mut gic::Gic) {
    let Some(found) = machine.smmus.first() else {
        log::warn!("no IOMMU: no coprocessor can be shared");
        return;
    };
    let region = match mmu::map_device(
        HostPhysical::new(found.registers.address),
        found.registers.size,
    ) {
        Ok(region) => region,
        Err(error) => {
            log::error!("{}: {error}", found.path);
            return;
        }
    };
    // All buses of a segment: 16 bits of requester id.
    let setup = Setup::new(16, DOMAIN_ADDRESS_BITS, IOMMU_VMIDS);
    match Smmu::new(smmu::Bus(region), setup) {
        Ok(smmu) => boot::set_iommu(Box::new(smmu)),
        Err(error) => {
            log::error!("{}: {error}; no coprocessor can be shared", found.path);
            return;
        }
    }
    let event = found.event.or(found.combined);
    let error = found.error.or(found.combined);
    smmu::identify(
        event.map_or(0, |event| event.intid.0),
        error.map_or(0, |error| error.intid.0),
    );
    let affinity = cpu::current().affinity.load(Ordering::Relaxed);
    for interrupt in [event, error].into_iter().flatten() {
        if let Err(error) = gic.enable(
            interrupt.intid.0,
            interrupt.trigger == Trigger::Edge,
            affinity,
        ) {
            log::error!("{}: {error}", found.path);
        }
    }
}

fn start_coprocs(
    machine: &Machine,
    configuration: &Configuration,
    gic: &mut gic::Gic,
    online: &[Option<usize>],
) -> Vec<Instance> {
    let mut instances = Vec::new();
    let host = machine.pci_hosts.first().filter(|host| {
        match mmu::map_device(HostPhysical::new(host.ecam.address), host.ecam.size) {
            Ok(ecam) => {
                boot::set_config_space(pci::ConfigSpace::new(ecam, host.first_bus));
                silence_functions();
                true
            }
            Err(error) => {
                log::error!("{}: {error}", host.path);
                false
            }
        }
    });
    let windows = host
        .into_iter()
        .flat_map(|host| &host.windows)
        .filter(|window| matches!(window.kind, WindowKind::Mem32 | WindowKind::Mem64));
    let mut windows = WindowAllocator::new(windows.map(|window| HostWindow {
        bus: window.pci_address,
        host: HostPhysical::new(window.cpu.address),
        size: window.cpu.size,
    }));
    for config in &configuration.coprocs {
        let started = match &config.device {
            DeviceLocator::Cpu { index, .. } => {
                start_firmware_core(config, online.get(*index).copied().flatten())
            }
            DeviceLocator::Pci(_) | DeviceLocator::Node(_) => match host {
                Some(host) => start_coproc(host, config, &mut windows, gic),
                None => Err(config.device_absent()),
            },
        };
        match started {
            Ok(instance) => {
                let index = instances.len();
                if let Device::Firmware(registers) = &instance.core.lock().side.device {
                    registers.0.belongs_to(index);
                }
                let (path, device) = (&config.path, &config.device);
                if config.shared {
                    log::info!("{path}: {device} shared by {}", config.scheduler);
                } else {
                    log::info!("{path}: {device} not shared, it is disabled");
                }
                instances.push(instance);
            }
            Err(error) => log::error!("{error}"),
        }
    }
    instances
}

/// No function interrupts or masters the bus until somebody owns it.
fn silence_functions() {
    let Some(space) = boot::config_space() else {
        return;
    };
    let mut space = space.lock();
    for device in 0..32 {
        for function in 0..8 {
            let address = FunctionAddress {
                bus: 0,
                device,
                function,
            };
            if space.read32(address, 0) as u16 == u16::MAX {
                continue;
            }
            // Header type 0 only: a bridge must go on mastering for what is behind it.
            if space.read32(address, 0xc) >> 16 & 0x7f == 0 {
                vpci::set_interrupt_disable(&mut *space, address, true);
                vpci::set_bus_master(&mut *space, address, false);
            }
        }
    }
}

fn start_coproc(
    host: &PciHost,
    config: &CoprocConfig,
    allocator: &mut WindowAllocator,
    gic: &mut gic::Gic,
) -> Result<Instance, Error> {
    let other = |found: alloc::string::String, expected: &'static str| {
        Error::new(config.path.clone(), found, expected).property("device")
    };
    let DeviceLocator::Pci(function) = &config.device else {
        return Err(other(
            config.device.to_string(),
            "a PCI function; other devices are not built yet",
        ));
    };
    if function.segment != host.segment || !host.has_bus_of(*function) {
        let found = format!("{}, which is not below {}", config.device, host.path);
        return Err(other(
            found,
            "a function of the first host bridge; more are not built yet",
        ));
    }
    let address = FunctionAddress {
        bus: function.bus,
        device: function.device,
        function: function.function,
    };
    let Some(space) = boot::config_space() else {
        return Err(config.device_absent());
    };
    let mut guard = space.lock();
    let space = &mut *guard;
    let description = vpci::describe(space, address).map_err(|error| match error {
        vpci::PhysicalError::Absent(_) => config.device_absent(),
        error => other(error.to_string(), "a usable PCI function"),
    })?;
    let driver = platforms::coproc::by_name(&config.driver)
        .ok_or_else(|| other(config.driver.clone(), "a driver that is compiled in"))?;
    let facts = driver.description();
    let suits = facts.matches.iter().any(|found| {
        matches!(found, Match::Pci { vendor, device } if *vendor == description.vendor && *device == description.device)
    });
    if !suits {
        let found = format!(
            "PCI device {:04x}:{:04x}",
            description.vendor, description.device
        );
        return Err(config.device_unsuitable(found));
    }
    match facts.confinement(host.stream(*function).is_some()) {
        Ok(Confinement::Iommu) | Err(Unconfined::Nothing) => {}
        Ok(Confinement::Own) => {
            let found = format!("{}, whose only IOMMU is its own", config.device);
            let expected =
                "a device behind an IOMMU; PCI functions that confine themselves are not built yet";
            return Err(other(found, expected));
        }
        Err(error) => {
            let found = format!("{}: {error}", config.device);
            return Err(other(found, "a device that one IOMMU confines"));
        }
    }
    // Only the first SMMU is driven: a device behind another one would not be confined by it.
    let stream = match host.stream(*function) {
        Some((0, stream)) if boot::iommu().is_some() => stream,
        Some((index, _)) if index > 0 => {
            let found = format!("{} behind SMMU number {index}", config.device);
            return Err(other(
                found,
                "a device behind the first SMMU; more are not built yet",
            ));
        }
        _ => {
            let found = format!("{}, which no IOMMU confines", config.device);
            return Err(other(found, "a device behind an IOMMU"));
        }
    };
    let interrupt = host
        .intx_interrupt(*function, description.interrupt_pin)
        .ok_or_else(|| {
            other(
                format!("{} without an interrupt", config.device),
                "an entry in interrupt-map",
            )
        })?;
    let placements = vpci::assign_bars(space, address, &description, allocator)
        .map_err(|error| other(error.to_string(), "room in the host bridge's windows"))?;
    let mut regions = [None; 6];
    let mut windows = Vec::new();
    for window in facts.windows {
        let placed = placements
            .get(window.index)
            .copied()
            .flatten()
            .filter(|placed| placed.size >= window.size);
        let Some(placed) = placed else {
            return Err(other(
                format!("BAR {} too small or absent", window.index),
                "the windows that the driver needs",
            ));
        };
        let region = mmu::map_device(placed.address, placed.size)
            .map_err(|error| other(error.to_string(), "mappable registers"))?;
        if let Some(slot) = regions.get_mut(window.index) {
            *slot = Some(region);
        }
        windows.push((*window, placed.address));
    }
    drop(guard);

    let device = Device::Pci {
        registers: Registers { regions },
        windows,
        function: address,
        stream,
    };
    let instance = share(config, driver, description, Some(interrupt.intid.0), device)?;
    let affinity = cpu::current().affinity.load(Ordering::Relaxed);
    gic.enable(
        interrupt.intid.0,
        interrupt.trigger == Trigger::Edge,
        affinity,
    )
    .map_err(|error| other(error.to_string(), "an interrupt that exists"))?;
    Ok(instance)
}

/// Sets a CPU aside as a firmware core; `number`: which it is here, if it runs.
fn start_firmware_core(config: &CoprocConfig, number: Option<usize>) -> Result<Instance, Error> {
    let other = |found: alloc::string::String, expected: &'static str| {
        Error::new(config.path.clone(), found, expected).property("device")
    };
    let driver = platforms::coproc::by_name(&config.driver)
        .ok_or_else(|| other(config.driver.clone(), "a driver that is compiled in"))?;
    let facts = driver.description();
    if !facts.matches.contains(&Match::FirmwareCore) {
        return Err(config.device_unsuitable("a CPU"));
    }
    let number = match number {
        None => {
            return Err(other(
                format!("{}, which does not run", config.device),
                "a CPU that Baton could start",
            ));
        }
        Some(0) => {
            return Err(other(
                format!("{}, which Baton booted on", config.device),
                "another CPU",
            ));
        }
        Some(number) => number,
    };
    let nothing = TableFrames { coherent: true }
        .allocate()
        .ok_or_else(|| other("no memory".to_string(), "memory for translation tables"))?;
    let core = firmware::reserve(number, nothing)
        .map_err(|found| other(format!("{}, {found}", config.device), "a CPU of its own"))?;
    let device = Device::Firmware(CoreRegisters(core));
    share(config, driver, core.function(), None, device)
}

/// The framework around a device that was found to suit its driver.
fn share(
    config: &CoprocConfig,
    driver: Box<dyn coproc_core::Driver>,
    description: FunctionDescription,
    interrupt: Option<u32>,
    device: Device,
) -> Result<Instance, Error> {
    let other = |found: alloc::string::String, expected: &'static str| {
        Error::new(config.path.clone(), found, expected).property("device")
    };
    let defaults = Settings::of(&*driver);
    let settings = Settings {
        slice: config.slice.unwrap_or(defaults.slice),
        refusal_bound: config.refusal_bound.unwrap_or(defaults.refusal_bound),
        starvation_bound: config.starvation_bound,
    };
    let algorithm = sched_algos::by_name(&config.scheduler, &settings.tuning(&*driver))
        .ok_or_else(|| other(config.scheduler.clone(), "an algorithm that is compiled in"))?;
    let now = timer::now();
    let log = config.record.then(|| {
        let header = Header {
            id: config.id,
            driver: driver.description().name,
            algorithm: algorithm.name(),
            settings,
            now,
        };
        Log::new(&header, recording::CAPACITY).map(Box::new)
    });
    if let Some(None) = log {
        let path = &config.path;
        log::error!("{path}: baton,record: no memory for a record; it is shared without one");
    }
    let recipe = Recipe {
        scheduler: config.scheduler.clone(),
        settings,
    };
    let coproc = Coproc::new(config.id, driver, algorithm, settings, now);
    let side = Side {
        device,
        shares: Vec::new(),
    };
    let path = config.path.clone();
    let log = log.flatten();
    let instance = Instance::new(path, description, interrupt, recipe, coproc, side, log);
    if config.shared {
        super::custody::begin(&instance).map_err(|error| {
            other(
                format!("{}: {error}", config.device),
                "a device that the driver takes",
            )
        })?;
    }
    Ok(instance)
}
