//! Memory that domains share, as each of them sees it: a function on its PCI bus.
//!
//! The memory itself is mapped into a domain while the domain's BAR decodes; the registers are always trapped. A ring takes
//! the locks of one domain at a time: the ringing one's are released before the other's are taken.

use super::domain::{Domain, Pci, Stage2};
use super::exit::Answer;
use super::{FRAMES, System};
use crate::arch::memory;
use alloc::vec::Vec;
use coproc_core::id::DomainId;
use coproc_core::register::{Operation, Width};
use hypervisor::config::SharedMemory;
use hypervisor::devicetree::Error;
use hypervisor::ivshmem::{self, Registers};
use hypervisor::lifecycle::State;
use hypervisor::memory::frames::Piece;
use platforms::translation::Stage2Attributes;

/// A region with those who share it.
pub struct Region {
    /// By peer number.
    peers: Vec<DomainId>,
}

/// One domain's end of a region.
pub struct Port {
    /// Index in [`System::shared`].
    region: usize,
    memory: Piece,
    slot: u8,
    registers: Registers,
    /// The domain's number among the peers.
    position: u16,
    /// Where the memory is mapped now.
    mapped: Option<u64>,
}

/// Makes region number `index` and plugs it into its domains, none of which has started.
///
/// # Errors
/// What it wants and there isn't.
pub fn create(config: &SharedMemory, domains: &[Domain], index: usize) -> Result<Region, Error> {
    let mut found = Vec::new();
    for id in &config.domains {
        let domain = domains
            .iter()
            .find(|domain| domain.id == *id && domain.control.lock().life.state() != State::Gone)
            .ok_or_else(|| config.not_created(*id))?;
        let slot = domain.pci.lock().bus.free();
        let slot = slot.ok_or_else(|| config.no_slot(*id))?;
        found.push((domain, slot));
    }
    let memory = FRAMES
        .lock()
        .allocate(config.size, config.size)
        .map_err(|error| config.no_memory(error))?;
    memory::zero(memory.start, memory.size);
    // A domain may look with its caches off.
    memory::flush(memory.start, memory.size);
    for ((domain, slot), position) in found.into_iter().zip(0u16..) {
        let mut pci = domain.pci.lock();
        // Never fails: the slot is free, and the configuration allows no size that a BAR can't have.
        pci.bus
            .attach(slot, ivshmem::description(config.size))
            .map_err(|_| config.no_slot(domain.id))?;
        pci.ports.push(Port {
            region: index,
            memory,
            slot,
            registers: Registers::new(position),
            position,
            mapped: None,
        });
    }
    log::info!(
        "{}: {} KiB for {} domains",
        config.path,
        config.size >> 10,
        config.domains.len()
    );
    Ok(Region {
        peers: config.domains.clone(),
    })
}

/// An access to what a BAR of `domain` covers; `None` if it isn't one of these functions'.
pub fn access(domain: &Domain, at: u64, width: Width, operation: Operation) -> Option<Answer> {
    let (value, ring) = {
        let mut pci = domain.pci.lock();
        let (slot, bar, offset) = pci.bus.find(at)?;
        let port = pci.ports.iter_mut().find(|port| port.slot == slot)?;
        if bar != ivshmem::REGISTERS {
            // The memory, although it decodes, isn't mapped: another mapping is in its place.
            return Some(Answer::Value(u64::MAX));
        }
        let (value, rung) = match operation {
            Operation::Read => (port.registers.read(offset, width), None),
            Operation::Write(value) => (0, port.registers.write(offset, width, value)),
        };
        let ring = rung.map(|peer| (port.region, peer));
        let level = port.registers.interrupt_level();
        domain.set_pending(&mut pci, slot, level);
        (value, ring)
    };
    if let (Some((region, peer)), Some(system)) = (ring, super::get()) {
        self::ring(system, region, peer);
    }
    Some(Answer::Value(value))
}

fn ring(system: &System, region: usize, peer: u16) {
    let found = system.shared.get(region);
    let Some(id) = found.and_then(|region| region.peers.get(usize::from(peer))) else {
        return;
    };
    let Some(domain) = system.domains.all().find(|domain| domain.id == *id) else {
        return;
    };
    let mut pci = domain.pci.lock();
    let mut ports = pci.ports.iter_mut();
    if let Some(port) = ports.find(|port| port.region == region) {
        port.registers.ring();
        let (slot, level) = (port.slot, port.registers.interrupt_level());
        domain.set_pending(&mut pci, slot, level);
    }
}

/// Whether the function in `slot`, if it is one of these, asserts its interrupt.
pub fn interrupt_pending(pci: &Pci, slot: u8) -> bool {
    let mut ports = pci.ports.iter();
    ports.any(|port| port.slot == slot && port.registers.interrupt_level())
}

/// BARs of the domain moved: its memory is mapped where it decodes now.
pub fn windows_changed(domain: &Domain, pci: &mut Pci) {
    let Pci { bus, ports, .. } = pci;
    if ports.is_empty() {
        return;
    }
    let mut stage2 = domain.stage2.lock();
    // First away, then to: one may come where another was.
    for port in ports.iter_mut() {
        let wanted = bus.bar_address(port.slot, ivshmem::MEMORY);
        if let Some(at) = port.mapped.filter(|at| wanted != Some(*at)) {
            match stage2.unmap(at, port.memory.size) {
                Ok(()) => port.mapped = None,
                Err(error) => {
                    log::error!("{}: shared memory stays at {at:#x}: {error}", domain.id);
                }
            }
        }
    }
    for port in ports.iter_mut().filter(|port| port.mapped.is_none()) {
        let Some(at) = bus.bar_address(port.slot, ivshmem::MEMORY) else {
            continue;
        };
        port.mapped = map(domain, &mut stage2, at, port.memory);
    }
}

/// The domain begins anew, on an empty bus: its ends of shared memory are as after power-on. The memory itself isn't touched, since it's the
/// others', too.
pub fn reset(domain: &Domain, pci: &mut Pci) {
    let Pci { bus, ports, .. } = pci;
    for port in ports {
        if let Some(at) = port.mapped.take()
            && let Err(error) = domain.stage2.lock().unmap(at, port.memory.size)
        {
            log::error!("{}: shared memory stays at {at:#x}: {error}", domain.id);
        }
        port.registers = Registers::new(port.position);
        if let Err(error) = bus.attach(port.slot, ivshmem::description(port.memory.size)) {
            log::error!(
                "{}: shared memory in slot {}: {error}",
                domain.id,
                port.slot
            );
        }
    }
}

fn map(domain: &Domain, stage2: &mut Stage2, at: u64, memory: Piece) -> Option<u64> {
    let how = Stage2Attributes::RAM.encode();
    match stage2.map(at, memory.start, memory.size, how) {
        Ok(()) => Some(at),
        Err(error) => {
            log::warn!("{}: no shared memory at {at:#x}: {error}", domain.id);
            None
        }
    }
}
