//! Devices that one domain has for itself.
//!
//! Their registers are mapped to the domain, their DMA reaches its memory and nothing else, and their interrupts are linked to the domain's own: EL2
//! takes one, puts it into a list register with the physical number in it (ICH_LR.HW), and doesn't see its end. Until the
//! domain ends it, it stays active, so a domain that doesn't silences nobody else. A shared coprocessor's never are
//! linked: there that would be somebody else.
//!
//! An interrupt goes to the CPU that has the vCPU which it is for; where that has moved, it follows with the next one ([`deliver`]).
//!
//! A device is given ([`entrust`]) before the domain starts and taken ([`withdraw`]) when its vCPUs are off, before anything of the
//! domain's memory is another's: interrupts disabled and inactive, bus mastering off, streams on abort and the IOMMU synchronised, and a
//! function reset if it can be. A device of the tree has no reset that is known here: the next life finds it as the last one left it.

#[cfg_attr(
    not(feature = "sharing"),
    expect(dead_code, reason = "without the IOMMU's driver there are no faults")
)]
mod faults;
mod functions;

#[cfg(feature = "sharing")]
pub use faults::collect as collect_faults;
pub use functions::{asserts, configured};

use super::domain::{Domain, Stage2};
use super::site::Console;
use super::{attachment, boot};
use crate::arch::{cpu, gic};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use coproc_core::address::DeviceAddress;
use coproc_core::driver::Step;
use coproc_core::id::{SpaceId, StreamId};
use coproc_core::iommu::{Mapping, Target};
use coproc_core::time::Instant;
use core::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use faults::Told;
use functions::Function;
use hypervisor::config::DomainConfig;
use hypervisor::config::machine::{Interrupt, PciHost, Trigger};
use hypervisor::console::devices::DeviceReport;
use hypervisor::devicetree::Error;
use hypervisor::guest_tree::layout;
use hypervisor::passthrough::{Arrival, Line, Pages, Place, plan};
use hypervisor::startup::{Parts, Stock};
use hypervisor::vgic::Version;
use hypervisor::vpci::WindowAllocator;
use platforms::translation::{Stage2Attributes, TranslationError};
use spin::Mutex;

const NOWHERE: usize = usize::MAX;
/// Interrupts that a GIC can have besides extended ones.
const INTIDS: usize = 1020;
/// Bits of a number in [`OWNERS`] that say which line of the domain: more than there are SPIs for.
const LINE_BITS: u32 = 5;

/// Whose a physical interrupt is: 0 nobody's, else one more than the domain's position and the line's index.
static OWNERS: [AtomicU16; INTIDS] = [const { AtomicU16::new(0) }; INTIDS];

/// A physical interrupt of a device.
pub struct Wire {
    /// Its number and trigger.
    interrupt: Interrupt,
    /// The domain's SPI that is it (counted from 0), unless a function sends messages.
    spi: u32,
    line: Line,
    /// It's enabled, and the domain's.
    live: AtomicBool,
    /// The CPU that it's routed to.
    routed: AtomicUsize,
    /// It's masked until the domain ends this INTID; 0: it isn't.
    masked_for: AtomicU32,
    count: AtomicU64,
}

/// One device.
pub struct Device {
    /// What it is called in the configuration.
    pub name: String,
    registers: Vec<Pages>,
    streams: Vec<StreamId>,
    /// Index of its first wire, and how many it has.
    wires: core::ops::Range<usize>,
    function: Option<Function>,
    faults: Mutex<Told>,
}

/// What changes of all devices of a domain together.
#[derive(Default)]
struct State {
    /// What their DMA reaches: the domain's RAM.
    space: Option<SpaceId>,
    /// Its streams point there, or are about to.
    pointed: bool,
    /// Functions are being reset, until then.
    resetting: Option<Instant>,
    /// Functions are as after a reset, as far as they have one.
    clean: bool,
    /// The domain has them.
    given: bool,
}

/// The devices of a domain.
#[derive(Default)]
pub struct Given {
    devices: Vec<Device>,
    wires: Vec<Wire>,
    state: Mutex<State>,
}

/// Makes the devices of a domain's configuration ready to be given to it. `used`: interrupts that are somebody's, to which theirs are added.
///
/// # Errors
/// What is wrong with one of them, naming node and property.
pub fn prepare(
    config: &DomainConfig,
    host: Option<&PciHost>,
    windows: &mut WindowAllocator,
    used: &mut Vec<u32>,
) -> Result<Given, Error> {
    let other = |found: String, expected: &'static str| config.passthrough_error(found, expected);
    let mut given = Given::default();
    let places = plan(&config.passthrough, &config.fixtures)
        .map_err(|full| other(full.to_string(), "less, or smaller devices"))?;
    let mut stock = Stock {
        host,
        iommu: boot::iommu().is_some(),
        used,
    };
    for (passed, place) in config.passthrough.iter().zip(places) {
        let Place {
            registers,
            spis,
            slot,
        } = place;
        let mut found = None;
        let mut look = |address| {
            let function = functions::find(address, &other)?;
            let pin = function.pin();
            found = Some(function);
            Ok(pin)
        };
        let Parts {
            interrupts,
            streams,
        } = stock.take(config, passed, &mut Console, &mut look)?;
        let function = found
            .map(|found| functions::prepare(found, slot.unwrap_or(0), windows, &other))
            .transpose()?;
        let first = given.wires.len();
        given
            .wires
            .extend(interrupts.iter().zip(spis).map(|(interrupt, spi)| Wire {
                interrupt: *interrupt,
                spi,
                line: Line::new(),
                live: AtomicBool::new(false),
                routed: AtomicUsize::new(NOWHERE),
                masked_for: AtomicU32::new(0),
                count: AtomicU64::new(0),
            }));
        given.devices.push(Device {
            name: passed.to_string(),
            registers,
            streams,
            wires: first..given.wires.len(),
            function,
            faults: Mutex::default(),
        });
    }
    Ok(given)
}

/// Says to interrupts whose they are. Once, before anything starts.
pub fn distribute<'a>(domains: impl Iterator<Item = &'a Domain>) {
    for (position, domain) in domains.enumerate() {
        for (index, wire) in domain.given.wires.iter().enumerate() {
            let number = position.wrapping_shl(LINE_BITS) | index;
            if let Some(owner) = OWNERS.get(wire.interrupt.intid.0 as usize) {
                owner.store((number as u16).wrapping_add(1), Ordering::SeqCst);
            }
        }
    }
}

/// Maps the registers of a domain's devices that have a fixed place.
///
/// # Errors
/// If there is no memory for tables.
pub fn map(domain: &Domain, stage2: &mut Stage2) -> Result<(), TranslationError> {
    let how = Stage2Attributes::DEVICE.encode();
    let devices = domain.given.devices.iter();
    for pages in devices.flat_map(|device| &device.registers) {
        stage2.map(pages.at, pages.host, pages.size, how)?;
    }
    Ok(())
}

/// Gives the domain its devices, but for their interrupts ([`enable`]). Returns whether that is done; if not, ask again.
///
/// # Errors
/// What the IOMMU has against it; then they aren't given.
pub fn entrust(domain: &Domain) -> Result<bool, Error> {
    let given = &domain.given;
    if given.devices.is_empty() {
        return Ok(true);
    }
    let other = |found: String| {
        Error::new(domain.path.clone(), found, "an IOMMU that works")
            .property(hypervisor::config::passthrough::PROPERTY)
    };
    let mut state = given.state.lock();
    if !functions::is_reset(given, &mut state) {
        return Ok(false);
    }
    let mut streams = given
        .devices
        .iter()
        .flat_map(|device| &device.streams)
        .peekable();
    if let (Some(iommu), Some(_)) = (boot::iommu(), streams.peek()) {
        let mut at = layout::RAM_BASE;
        let memory = domain.memory.read();
        let mappings: Vec<Mapping> = memory
            .iter()
            .map(|piece| {
                let device = DeviceAddress::new(at);
                at = at.saturating_add(piece.size);
                Mapping {
                    device,
                    host: piece.start,
                    size: piece.size,
                }
            })
            .collect();
        drop(memory);
        let mut iommu = iommu.lock();
        if !state.pointed {
            let space = match state.space {
                Some(space) => space,
                #[cfg(feature = "fault-injection")]
                None if hypervisor::injection::fails(hypervisor::injection::Kind::Allocation) => {
                    return Err(other("no VMID of the IOMMU is free".to_string()));
                }
                None => iommu
                    .create_space(&mappings)
                    .map_err(|error| other(error.to_string()))?,
            };
            state.space = Some(space);
            // What was left of an earlier life is nobody's.
            for stream in streams {
                let _ = iommu.take_faults(*stream);
                iommu
                    .point(*stream, Target::Space(space))
                    .map_err(|error| other(error.to_string()))?;
            }
            state.pointed = true;
        }
        match iommu.sync() {
            Step::Done => {}
            Step::Again(_) => return Ok(false),
            Step::Failed(failure) => return Err(other(failure.to_string())),
        }
    }
    functions::plug(domain).map_err(|error| other(error.to_string()))?;
    state.clean = false;
    state.given = true;
    Ok(true)
}

/// The domain starts: its devices may interrupt it.
pub fn enable(domain: &Domain) {
    let Some(system) = super::get() else { return };
    if !domain.given.state.lock().given {
        return;
    }
    for device in &domain.given.devices {
        let Some(wires) = domain.given.wires.get(device.wires.clone()) else {
            continue;
        };
        for wire in wires {
            wire.line.reset();
            wire.masked_for.store(0, Ordering::SeqCst);
            if device.function.is_none() {
                wire.line.aim(Some(layout_intid(wire.spi)));
            }
            let this = cpu::current();
            wire.routed.store(this.index(), Ordering::Relaxed);
            wire.live.store(true, Ordering::SeqCst);
            let edge = wire.interrupt.trigger == Trigger::Edge;
            let affinity = this.affinity.load(Ordering::Relaxed);
            let mut gic = system.gic.lock();
            gic.disable(wire.interrupt.intid.0);
            if let Err(error) = gic.enable(wire.interrupt.intid.0, edge, affinity) {
                log::error!("{}: {}: {error}", domain.id, device.name);
            }
        }
    }
    functions::begin(domain);
}

/// Takes all devices away from a domain whose vCPUs are off; [`is_withdrawn`] and [`attachment::holds`] tell when nothing of them is left.
pub fn withdraw(domain: &Domain) {
    let given = &domain.given;
    if given.devices.is_empty() {
        return;
    }
    for wire in &given.wires {
        // One that another CPU is serving now is ended there, or here.
        if wire.live.swap(false, Ordering::SeqCst)
            && let Some(system) = super::get()
        {
            system.gic.lock().disable(wire.interrupt.intid.0);
        }
    }
    functions::unplug(domain);
    let mut state = given.state.lock();
    state.given = false;
    if let Some(iommu) = boot::iommu() {
        let mut iommu = iommu.lock();
        for stream in given.devices.iter().flat_map(|device| &device.streams) {
            if let Err(error) = iommu.point(*stream, Target::Abort) {
                log::error!("{}: stream {stream:?}: {error}", domain.id);
            }
        }
    }
    state.pointed = false;
    functions::start_reset(given, &mut state);
    let space = state.space.take();
    drop(state);
    if let Some(space) = space {
        attachment::bury(domain.id, Vec::from([space]), Vec::new());
    }
}

/// Whether the functions that were taken away have come out of their reset.
pub fn is_withdrawn(domain: &Domain) -> bool {
    let given = &domain.given;
    given.devices.is_empty() || functions::is_reset(given, &mut given.state.lock())
}

const fn layout_intid(spi: u32) -> u32 {
    spi.wrapping_add(32)
}

/// A physical interrupt that is nobody else's arrived. `None`: nor is it a device's here; else whether a domain is to deactivate it.
pub fn interrupt(intid: u32) -> Option<bool> {
    let owner = OWNERS.get(intid as usize)?.load(Ordering::Relaxed);
    let number = usize::from(owner.checked_sub(1)?);
    let domain = super::get()?.domains.get(number.wrapping_shr(LINE_BITS))?;
    let mask = 1usize.wrapping_shl(LINE_BITS).wrapping_sub(1);
    let wire = domain.given.wires.get(number & mask)?;
    wire.count.fetch_add(1, Ordering::Relaxed);
    if !wire.live.load(Ordering::SeqCst) {
        return Some(false);
    }
    match wire.line.arrived() {
        Arrival::Linked(target) if gic::version() == Version::V2 => {
            Some(deliver_here(domain, wire, target))
        }
        Arrival::Linked(target) => {
            deliver(domain, wire, target);
            Some(true)
        }
        Arrival::Held => Some(true),
        Arrival::Again => Some(false),
    }
}

/// With a GICv2: links an interrupt only if the vCPU that it is for is in this CPU, else it is masked, and unmasked by its end
/// ([`ended`]). Architecturally a shared interrupt is active for all CPUs; in QEMU's GICv2 it is for the one that took it, so another one would take
/// it, too, and end it only for itself. Returns whether it's linked.
fn deliver_here(domain: &Domain, wire: &Wire, target: u32) -> bool {
    let physical = wire.interrupt.intid.0;
    let mut vgic = domain.vgic.lock();
    let home = vgic.home(target).and_then(|index| domain.vcpus.get(index));
    let this = cpu::current().index();
    let here = home.is_some_and(|vcpu| vcpu.resident.load(Ordering::Relaxed) == this);
    let kicks = if here {
        vgic.hardware_interrupt(0, target, physical)
    } else {
        wire.masked_for.store(target, Ordering::SeqCst);
        if let Some(system) = super::get() {
            system.gic.lock().mask(physical, true);
        }
        vgic.reported_interrupt(target)
    };
    drop(vgic);
    domain.kick(kicks);
    here
}

/// The domain ended one of its shared interrupts on this CPU: one that was masked for it goes on, here.
#[cold]
pub fn ended(domain: &Domain, intid: u32) {
    for wire in &domain.given.wires {
        let masked = &wire.masked_for;
        let mine = masked.compare_exchange(intid, 0, Ordering::SeqCst, Ordering::SeqCst);
        if mine.is_ok()
            && wire.live.load(Ordering::SeqCst)
            && let Some(system) = super::get()
        {
            let affinity = cpu::current().affinity.load(Ordering::Relaxed);
            let physical = wire.interrupt.intid.0;
            let mut gic = system.gic.lock();
            gic.deactivate_shared(physical);
            gic.route(physical, affinity);
            gic.mask(physical, false);
        }
    }
}

/// Links an interrupt that is active to the domain's `target`.
fn deliver(domain: &Domain, wire: &Wire, target: u32) {
    let physical = wire.interrupt.intid.0;
    let kicks = domain.vgic.lock().hardware_interrupt(0, target, physical);
    domain.kick(kicks);
    // The next one goes where the vCPU is that takes this one.
    let vcpu = kicks
        .iter()
        .next()
        .and_then(|index| domain.vcpus.get(index));
    let Some(vcpu) = vcpu else { return };
    let resident = vcpu.resident.load(Ordering::Relaxed);
    if let Some(target) = cpu::by_index(resident)
        && wire.routed.load(Ordering::Relaxed) != resident
        && let Some(system) = super::get()
    {
        wire.routed.store(resident, Ordering::Relaxed);
        let affinity = target.affinity.load(Ordering::Relaxed);
        system.gic.lock().route(physical, affinity);
    }
}

/// The devices of a domain.
pub fn list(domain: &'static Domain) -> impl Iterator<Item = DeviceReport> {
    let given = domain.given.state.lock().given;
    domain.given.devices.iter().map(move |device| {
        let wires = domain.given.wires.get(device.wires.clone());
        let counts = wires.unwrap_or_default().iter();
        let told = device.faults.lock();
        DeviceReport {
            domain: domain.id,
            name: &device.name,
            given,
            interrupts: counts
                .map(|wire| wire.count.load(Ordering::Relaxed))
                .fold(0, u64::saturating_add),
            faults: told.all,
            last_fault: told.last,
        }
    })
}
