//! From the device tree to running domains.

use super::definition::Described;
use super::entropy;
use super::firmware;
use super::passthrough;
use super::places::Places;
use super::site::{Console, Site};
use super::{
    FRAMES, System, boot, console, devices, discovery, interrupts, lifecycle, load, pci, schedule,
};
use crate::arch::{
    self, context, cpu, errata, gic, guest, memory, mmu, power, report, timer, uart,
};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::address::HostPhysical;
use core::sync::atomic::{AtomicUsize, Ordering};
use hypervisor::config::machine::{self, Gic, Machine, PciHost, WindowKind};
use hypervisor::config::{Configuration, Known, KnownName};
use hypervisor::devicetree::{Error, Region, Tree};
use hypervisor::lifecycle::State;
use hypervisor::speculation::BranchPredictor;
use hypervisor::startup::{self, Starter, Unstartable};
use hypervisor::vpci::{self, ConfigAccess, FunctionAddress, HostWindow, WindowAllocator};
use platforms::translation::Geometry;
use spin::Mutex;

/// Bits of a domain's address: PCI's 64-bit window ends at 1 TiB.
pub const DOMAIN_ADDRESS_BITS: u8 = 40;

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
    if mmu::initialise(image, guest::physical_address_bits(), &[]).is_ok()
        && let Some(uart) = uart
        && let Some(driver) = uart::Driver::of(&uart.compatible)
        && let Ok(region) = mmu::map_device(
            HostPhysical::new(uart.registers.address),
            uart.registers.size,
        )
    {
        report::use_console(region, driver.polled);
    }
    fatal(format_args!("{message}"))
}

/// The boot CPU comes here, with the device tree's place and size.
pub fn boot(tree: HostPhysical, size: u64, image: HostPhysical) -> ! {
    console::start_log();
    // No parameter: parts of it are wiped when it has been read.
    let blob = memory::shared(tree, size).unwrap_or(&[]);
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
    if let Err(error) = mmu::initialise(image, guest::physical_address_bits(), &ram) {
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

    let names = |all| KnownName::list(all, cfg!(feature = "sharing"), &|_, here| here);
    let known = Known {
        drivers: &names(platforms::coproc::KNOWN),
        schedulers: &names(sched_algos::KNOWN),
    };
    let configuration = Configuration::from_tree(&parsed, &machine, &known);
    startup::tell(&configuration, &mut Console);
    set_clock(&machine);
    take_memory(&machine, &configuration, place, image);
    let secret = entropy::begin(&parsed, blob, tree);
    entropy::wipe(secret);

    errata::configure(conduit(&machine), machine.hardening);
    arch::entropy::configure(conduit(&machine));
    report_core(0, &errata::start());
    arch::entropy::start();
    let mut gic = start_gic(&machine);
    leave_no_tables();
    start_cpu(&mut gic, &machine);
    let online = start_secondaries(&machine);
    super::trace::start(online.iter().flatten().count());
    let host = start_pci(&machine);
    discovery::start_iommu(&machine, &mut gic);
    let mut site = Site::new(host, pci_windows(host), &mut gic, &online);
    startup::run(&configuration, &mut site);
    let Site {
        instances,
        domains,
        shared,
        running,
        ..
    } = site;
    let described = Described {
        modules: configuration.module_regions().collect(),
        coprocs: configuration.coprocs,
        pools: configuration.pools,
        running,
    };
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
    let system = super::publish(System {
        machine,
        numbers: online,
        described,
        gic: Mutex::new(gic),
        instances,
        shared,
        domains: Places::new(domains),
    });
    passthrough::distribute(system.domains.all());
    for (position, domain) in system.domains.all().enumerate() {
        load::introduce(position, domain);
    }
    let (used, heap) = arch::heap::heap_use();
    log::info!(
        "{} domains, {} coprocs; {} MiB free; heap {} of {} KiB",
        system
            .domains
            .iter()
            .filter(|domain| domain.control.lock().life.state() == State::Created)
            .count(),
        system.instances.len(),
        FRAMES.lock().total() >> 20,
        used >> 10,
        heap >> 10
    );
    console::listen();
    ONLINE.fetch_or(1 << 31, Ordering::SeqCst);
    for domain in system.domains.all() {
        if lifecycle::start(domain) {
            log::info!("{}: starts ({})", domain.id, domain.path);
        }
    }
    schedule::run()
}

/// The other CPUs come here.
pub fn secondary(index: usize) -> ! {
    timer::initialise();
    report_core(index, &errata::start());
    arch::entropy::start();
    gic::announce(cpu::current().affinity.load(Ordering::Relaxed));
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

/// Tells about each kind of core once.
fn report_core(index: usize, decision: &errata::Decision) {
    static TOLD: Mutex<ArrayVec<(u64, BranchPredictor), { cpu::MAX_CPUS }>> =
        Mutex::new(ArrayVec::new_const());
    let mut told = TOLD.lock();
    let kind = (decision.midr.0, decision.predictor);
    if told.contains(&kind) || told.try_push(kind).is_err() {
        return;
    }
    log::info!(
        "CPU {index}: MIDR_EL1 {:#x}, errata worked around: {}; branch predictor: {}",
        decision.midr.0,
        decision.errata,
        decision.predictor
    );
    if matches!(decision.predictor, BranchPredictor::Firmware(_)) {
        log::info!(
            "CPU {index}: a call of the firmware takes {} ns",
            decision.cost
        );
    }
}

/// How the firmware is called, if there is one.
fn conduit(machine: &Machine) -> Option<power::Conduit> {
    machine.psci.map(|psci| caller(psci.conduit))
}

const fn caller(conduit: machine::Conduit) -> power::Conduit {
    match conduit {
        machine::Conduit::Smc => power::Conduit::Smc,
        machine::Conduit::Hvc => power::Conduit::Hvc,
    }
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
    context::begin(platforms::translation::vtcr_el2(stage2_geometry()));
}

/// Makes the tables that CPUs have which run no vCPU: they map nothing.
fn leave_no_tables() {
    let mut frames = super::tables::TableFrames { coherent: true };
    match platforms::translation::TranslationTable::new(&mut frames, stage2_geometry()) {
        Ok(table) => context::use_when_empty(table.root().get()),
        Err(error) => fatal(format_args!("stage 2: {error}")),
    }
}

/// Shape of all stage 2 tables.
pub fn stage2_geometry() -> Geometry {
    let pa_bits = guest::physical_address_bits();
    match Geometry::stage2(DOMAIN_ADDRESS_BITS.min(pa_bits), pa_bits) {
        Ok(geometry) => geometry,
        Err(error) => fatal(format_args!("stage 2: {error}")),
    }
}

fn start_console(machine: &Machine) {
    let driver = |found: &machine::uart::Uart| {
        let driver = uart::Driver::of(&found.compatible)?;
        let registers = found.registers;
        let region = mmu::map_device(HostPhysical::new(registers.address), registers.size).ok()?;
        report::use_console(region, driver.polled);
        driver.start(region)
    };
    console::start(machine.uart.as_ref().and_then(driver));
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

fn take_memory(
    machine: &Machine,
    configuration: &Configuration,
    tree: Region,
    image: HostPhysical,
) {
    let image = Region {
        address: image.get(),
        size: mmu::image_size(),
    };
    let mut frames = FRAMES.lock();
    for region in configuration.free_memory(machine, [tree, image]) {
        if let Err(error) = frames.add(HostPhysical::new(region.address), region.size) {
            log::error!("memory at {:#x}: {error}", region.address);
        }
    }
}

fn start_gic(machine: &Machine) -> gic::Gic {
    let map =
        |region: &Region| match mmu::map_device(HostPhysical::new(region.address), region.size) {
            Ok(region) => region,
            Err(error) => fatal(format_args!(
                "the interrupt controller at {:#x}: {error}",
                region.address
            )),
        };
    let mut gic = match &machine.gic {
        Gic::V3(found) => {
            let redistributors: ArrayVec<_, 8> =
                found.redistributors.iter().take(8).map(map).collect();
            gic::Gic::v3(map(&found.distributor), redistributors)
        }
        Gic::V2(found) => {
            let Region { address, size } = found.virtual_cpu_interface;
            gic::Gic::v2(gic::v2::Parts {
                distributor: map(&found.distributor),
                cpu_interface: map(&found.cpu_interface),
                hypervisor_interface: map(&found.hypervisor_interface),
                virtual_interface: (HostPhysical::new(address), size),
            })
        }
    };
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
    let own = cpu::current().affinity.load(Ordering::Relaxed);
    let mut cpus = machine.cpus.iter();
    let booted = cpus.position(|cpu| cpu.mpidr == own);
    startup::start_cpus(machine, booted, &mut Console, &mut start_secondary)
}

fn start_secondary(index: usize, found: &machine::Cpu, way: Starter) -> Result<bool, String> {
    let Some(entry) = arch::boot::prepare_secondary(index, found.mpidr) else {
        return Ok(false);
    };
    match way {
        Starter::Psci(conduit) => power::cpu_on(caller(conduit), found.mpidr, entry)
            .map_err(|error| format!("PSCI CPU_ON: {error}"))?,
        // It may be Baton's own memory.
        Starter::SpinTable(release) if !power::release(release, entry) => {
            return Err(Unstartable::Word(release).to_string());
        }
        Starter::SpinTable(_) => {}
    }
    let limit = timer::now().saturating_add(coproc_core::time::Duration::from_secs(1));
    while ONLINE.load(Ordering::SeqCst) & 1 << index == 0 && timer::now() < limit {
        core::hint::spin_loop();
    }
    let came = ONLINE.load(Ordering::SeqCst) & 1 << index != 0;
    if !came {
        log::warn!("CPU {:#x} was started but did not come", found.mpidr);
    }
    Ok(came)
}

/// Finds the PCI functions, and keeps them quiet.
fn start_pci(machine: &Machine) -> Option<&PciHost> {
    machine.pci_hosts.first().filter(|host| {
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
    })
}

/// The windows for BARs.
fn pci_windows(host: Option<&PciHost>) -> WindowAllocator {
    let windows = host
        .into_iter()
        .flat_map(|host| &host.windows)
        .filter(|window| matches!(window.kind, WindowKind::Mem32 | WindowKind::Mem64));
    WindowAllocator::new(windows.map(|window| HostWindow {
        bus: window.pci_address,
        host: HostPhysical::new(window.cpu.address),
        size: window.cpu.size,
    }))
}

/// No function interrupts, masters the bus or decodes until somebody owns it.
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
                // Or what firmware placed might be in one page with what is placed later.
                vpci::set_memory_decode(&mut *space, address, false);
            }
        }
    }
}
