//! The coprocessors and their IOMMU: found, checked, and made ready to be shared.
//!
//! What is wrong with one of them is an error with its node and property, and costs nobody else anything.

use super::custody;
use super::firmware::{self, CoreRegisters};
use super::node::Node;
use super::sharing::{Device, Instance, Recipe, Registers, Side};
use super::site::{Console, Site};
use super::start::DOMAIN_ADDRESS_BITS;
use super::tables::TableFrames;
use super::{boot, recording, smmu};
use crate::arch::{cpu, gic, mmu, timer};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use coproc_core::coproc::Coproc;
use coproc_core::record::{Header, Log};
use core::sync::atomic::Ordering;
use hypervisor::config::machine::{Machine, PciHost, Trigger};
use hypervisor::config::{CoprocConfig, DeviceLocator, PciFunction};
use hypervisor::devicetree::Error;
use hypervisor::startup::{Identity, NO_IOMMU};
use hypervisor::vpci::{self, FunctionAddress, FunctionDescription, WindowAllocator};
use platforms::iommu::smmuv3::{Setup, Smmu};
use platforms::translation::TableMemory;

/// VMIDs of the IOMMU's address spaces; the CPUs' stage 2 has those below.
const IOMMU_VMIDS: core::ops::Range<u16> = 128..256;

/// Starts the IOMMU, with everything cut off.
pub fn start_iommu(machine: &Machine, gic: &mut gic::Gic) {
    let Some(found) = machine.smmus.first() else {
        log::warn!("{NO_IOMMU}");
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
            log::error!("{}: {error}; nothing behind it can be shared", found.path);
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

/// Makes a coprocessor ready, and shares it if it is to be shared. It is the next one of the site's.
///
/// # Errors
/// Why it can't be used.
pub fn start_coproc(site: &mut Site<'_>, config: &CoprocConfig) -> Result<Instance, Error> {
    let Site {
        host,
        windows,
        gic,
        online,
        instances,
        ..
    } = site;
    let driver = platforms::coproc::by_name(&config.driver).ok_or_else(|| {
        let found = config.driver.clone();
        config.device_error(found, "a driver that is compiled in")
    })?;
    let instance = match &config.device {
        DeviceLocator::Cpu { index, .. } => {
            start_firmware_core(config, driver, online.get(*index).copied().flatten())
        }
        DeviceLocator::Node(_) => start_node(config, driver, gic),
        DeviceLocator::Pci(function) => {
            start_function(*host, config, driver, *function, windows, gic)
        }
    }?;
    if let Device::Firmware(registers) = &instance.core().side.device {
        registers.0.belongs_to(instances.len());
    }
    let (path, device) = (&config.path, &config.device);
    if config.shared {
        log::info!("{path}: {device} shared by {}", config.scheduler);
    } else {
        log::info!("{path}: {device} not shared, it is disabled");
    }
    Ok(instance)
}

fn start_function(
    host: Option<&PciHost>,
    config: &CoprocConfig,
    driver: Box<dyn coproc_core::Driver>,
    function: PciFunction,
    allocator: &mut WindowAllocator,
    gic: &mut gic::Gic,
) -> Result<Instance, Error> {
    let other = |found, expected| config.device_error(found, expected);
    let host = config.bridge(host, function)?;
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
    vpci::disable_messages(space, address);
    let facts = driver.description();
    let found = Identity {
        vendor: description.vendor,
        device: description.device,
        pin: description.interrupt_pin,
    };
    let works = boot::iommu().is_some();
    let (stream, interrupt) = config.function(host, function, facts, works, found)?;
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
    let interrupts = Vec::from([interrupt.intid.0]);
    let instance = share(config, driver, Some(description), interrupts, device)?;
    let affinity = cpu::current().affinity.load(Ordering::Relaxed);
    gic.enable(
        interrupt.intid.0,
        interrupt.trigger == Trigger::Edge,
        affinity,
    )
    .map_err(|error| other(error.to_string(), "an interrupt that exists"))?;
    Ok(instance)
}

/// Makes a device of the machine's tree ready: its windows mapped for EL2, its interrupts enabled and masked.
fn start_node(
    config: &CoprocConfig,
    driver: Box<dyn coproc_core::Driver>,
    gic: &mut gic::Gic,
) -> Result<Instance, Error> {
    let other = |found, expected| config.device_error(found, expected);
    let facts = driver.description();
    let found = config.described(facts, boot::iommu().is_some(), &mut Console)?;
    let mut regions = Vec::new();
    for window in facts.windows {
        // It has been looked whether there is one, and nothing else in its pages.
        let Some(place) = found.node.registers.get(window.index) else {
            continue;
        };
        let size = place.size.checked_next_multiple_of(PAGE_SIZE);
        let region = mmu::map_device(HostPhysical::new(place.address), size.unwrap_or(place.size))
            .map_err(|error| other(error.to_string(), "mappable registers"))?;
        if regions.len() <= window.index {
            regions.resize(window.index.saturating_add(1), None);
        }
        if let Some(slot) = regions.get_mut(window.index) {
            *slot = Some(region);
        }
    }
    let affinity = cpu::current().affinity.load(Ordering::Relaxed);
    let mut lines = Vec::new();
    for interrupt in found.node.interrupts.iter().take(facts.interrupts) {
        let edge = interrupt.trigger == Trigger::Edge;
        gic.enable(interrupt.intid.0, edge, affinity)
            .map_err(|error| other(error.to_string(), "an interrupt that exists"))?;
        lines.push((gic.line(interrupt.intid.0), edge));
    }
    let streams = found.streams().to_vec();
    let node = Node::new(regions, facts.windows, lines.into_iter(), streams);
    let interrupts = node.interrupts().collect();
    share(config, driver, None, interrupts, Device::Node(node))
}

/// Sets a CPU aside as a firmware core; `number`: which it is here, if it runs.
fn start_firmware_core(
    config: &CoprocConfig,
    driver: Box<dyn coproc_core::Driver>,
    number: Option<usize>,
) -> Result<Instance, Error> {
    let other = |found, expected| config.device_error(found, expected);
    let number = config.firmware_core(driver.description(), number)?;
    let nothing = TableFrames { coherent: true }
        .allocate()
        .ok_or_else(|| other("no memory".to_string(), "memory for translation tables"))?;
    let core = firmware::reserve(number, nothing)
        .map_err(|found| other(format!("{}, {found}", config.device), "a CPU of its own"))?;
    let device = Device::Firmware(CoreRegisters(core));
    share(config, driver, Some(core.function()), Vec::new(), device)
}

/// The framework around a device that was found to suit its driver.
fn share(
    config: &CoprocConfig,
    driver: Box<dyn coproc_core::Driver>,
    description: Option<FunctionDescription>,
    interrupts: Vec<u32>,
    device: Device,
) -> Result<Instance, Error> {
    #[cfg(feature = "fault-injection")]
    let driver: Box<dyn coproc_core::Driver> = Box::new(super::unreliable::Unreliable(driver));
    let settings = config.settings(&*driver);
    let algorithm = config.algorithm(&settings, &*driver)?;
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
    let instance = Instance::new(path, description, interrupts, recipe, coproc, side, log);
    if config.shared {
        custody::begin(&instance).map_err(|error| config.not_taken(error))?;
    }
    Ok(instance)
}
