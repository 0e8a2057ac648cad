//! PCI functions that one domain has for itself.
//!
//! The domain sees a function of the library's ([`hypervisor::vpci`]), as for a coprocessor, with the real one's ids; its BARs lead straight to the
//! registers. Of the real configuration space it changes bus mastering and Interrupt Disable, nothing else: everything that could
//! reach further (BARs, capabilities) stays the hypervisor's. MSI-X is not shown, vendor-specific capabilities can only be read. MSI is shown, but the real function
//! interrupts by INTx, which is linked to the SPI that the message names: another one can come only when the domain has ended that, and comes
//! if the function still asserts it then. So none is lost, whatever the function does meanwhile.

use super::{Given, State, Wire, layout_intid};
use crate::arch::mmio::Region;
use crate::arch::{mmu, timer};
use crate::system::boot;
use crate::system::domain::{Domain, Pci};
use crate::system::pci::ConfigSpace;
use crate::system::schedule;
use alloc::format;
use alloc::string::{String, ToString};
use coproc_core::address::PAGE_SIZE;
use hypervisor::config::PciFunction;
use hypervisor::devicetree::Error;
use hypervisor::v2m;
use hypervisor::vpci::{
    self, BARS, BarPlacement, FunctionAddress, FunctionDescription, PhysicalError, SlotError,
    WindowAllocator, virtio,
};
use platforms::translation::Stage2Attributes;
use spin::Mutex;

/// A PCI function of a domain.
pub struct Function {
    address: FunctionAddress,
    /// What the domain sees: BARs of whole pages.
    description: FunctionDescription,
    bars: [Option<BarPlacement>; BARS],
    slot: u8,
    /// Where each BAR is mapped for the domain now.
    mapped: Mutex<[Option<u64>; BARS]>,
}

/// A function that answers, kept quiet.
pub(super) struct Found {
    function: PciFunction,
    address: FunctionAddress,
    space: &'static Mutex<ConfigSpace>,
    description: FunctionDescription,
}

impl Found {
    /// Which INTx it has: 1 is INTA, 0 none.
    pub(super) const fn pin(&self) -> u8 {
        self.description.interrupt_pin
    }
}

/// Finds a function on the host bridge's own bus, and keeps it quiet.
pub(super) fn find(
    function: PciFunction,
    other: &dyn Fn(String, &'static str) -> Error,
) -> Result<Found, Error> {
    let absent = || {
        let found = format!("pci:{function}, where no device answers");
        let error = other(found, "a device that is there");
        error.remedy("correct the address or plug the device in")
    };
    let address = FunctionAddress {
        bus: function.bus,
        device: function.device,
        function: function.function,
    };
    let shared = boot::config_space().ok_or_else(absent)?;
    let mut space = shared.lock();
    let description = vpci::describe(&mut *space, address).map_err(|error| match error {
        PhysicalError::Absent(_) => absent(),
        error => other(error.to_string(), "a usable PCI function"),
    })?;
    vpci::set_bus_master(&mut *space, address, false);
    vpci::set_interrupt_disable(&mut *space, address, true);
    vpci::disable_messages(&mut *space, address);
    Ok(Found {
        function,
        address,
        space: shared,
        description,
    })
}

/// Gives the BARs of a function that was found addresses. It decodes from then on.
pub(super) fn prepare(
    found: Found,
    slot: u8,
    windows: &mut WindowAllocator,
    other: &dyn Fn(String, &'static str) -> Error,
) -> Result<Function, Error> {
    let Found {
        function,
        address,
        space,
        mut description,
    } = found;
    let mut space = space.lock();
    // A smaller one would be mapped with what else is in its page.
    for bar in description.bars.iter_mut().flatten() {
        bar.size = bar.size.max(PAGE_SIZE);
    }
    let bars = vpci::assign_bars(&mut *space, address, &description, windows)
        .map_err(|error| other(error.to_string(), "room in the host bridge's windows"))?;
    for bar in bars.iter().flatten() {
        if bar.address.get() & PAGE_SIZE.wrapping_sub(1) != 0 {
            let found = format!(
                "pci:{function}, with a BAR at {} within a page",
                bar.address
            );
            return Err(other(found, "BARs in pages of their own"));
        }
    }
    // The domain's view decides what it reaches; the function always decodes.
    vpci::set_memory_decode(&mut *space, address, true);
    if virtio::passes_iommu_by(&description, &mut Mapped(&bars)) {
        vpci::set_memory_decode(&mut *space, address, false);
        let found = format!("pci:{function}, a virtio function that passes the IOMMU by");
        let error = other(found, "one that offers VIRTIO_F_ACCESS_PLATFORM");
        return Err(error.remedy("in QEMU: add \"iommu_platform=on\" to its -device"));
    }
    Ok(Function {
        address,
        description,
        bars,
        slot,
        mapped: Mutex::new([None; BARS]),
    })
}

/// A function's BARs, a register of which is mapped for EL2 when it is asked for.
struct Mapped<'a>(&'a [Option<BarPlacement>; BARS]);

impl Mapped<'_> {
    fn register(&self, bar: u8, offset: u64) -> Option<Region> {
        const BYTES: u64 = 4;
        let bar = self.0.get(usize::from(bar)).copied()??;
        let address = bar.address.checked_add(offset)?;
        let inside = offset.checked_add(BYTES)? <= bar.size;
        inside.then(|| mmu::map_device(address, BYTES).ok())?
    }
}

impl virtio::Registers for Mapped<'_> {
    fn read32(&mut self, bar: u8, offset: u64) -> u32 {
        let register = self.register(bar, offset);
        register.map_or(u32::MAX, |register| register.read32(0))
    }

    fn write32(&mut self, bar: u8, offset: u64, value: u32) {
        if let Some(register) = self.register(bar, offset) {
            register.write32(0, value);
        }
    }
}

fn all(given: &Given) -> impl Iterator<Item = (&Function, Option<&Wire>)> {
    given.devices.iter().filter_map(|device| {
        let wire = given.wires.get(device.wires.start);
        Some((device.function.as_ref()?, wire))
    })
}

/// Begins to reset the functions that can be reset.
pub(super) fn start_reset(given: &Given, state: &mut State) {
    let Some(space) = boot::config_space() else {
        return;
    };
    let mut space = space.lock();
    let mut any = false;
    for (function, _) in all(given) {
        any |= vpci::start_reset(&mut *space, function.address);
    }
    state.clean = true;
    state.resetting = any.then(|| timer::now().saturating_add(vpci::RESET_TIME));
}

/// Whether the functions are as after a reset, which is begun if it wasn't.
pub(super) fn is_reset(given: &Given, state: &mut State) -> bool {
    if !state.clean {
        start_reset(given, state);
    }
    match state.resetting {
        None => true,
        Some(until) if timer::now() < until => false,
        Some(_) => {
            state.resetting = None;
            if let Some(space) = boot::config_space() {
                let mut space = space.lock();
                for (function, _) in all(given) {
                    let Function {
                        address,
                        description,
                        bars,
                        ..
                    } = function;
                    vpci::restore(&mut *space, *address, description, bars);
                }
            }
            true
        }
    }
}

/// Plugs the functions into the domain's bus, which is new.
pub(super) fn plug(domain: &Domain) -> Result<(), SlotError> {
    let mut pci = domain.pci.lock();
    for (function, _) in all(&domain.given) {
        pci.bus
            .attach(function.slot, function.description.clone())?;
    }
    Ok(())
}

/// The functions' interrupts lead where the domain's configuration says.
pub(super) fn begin(domain: &Domain) {
    let pci = domain.pci.lock();
    for (function, wire) in all(&domain.given) {
        apply(&pci, function, wire);
    }
}

/// Nothing of the functions reaches the domain any more, nor the other way round.
pub(super) fn unplug(domain: &Domain) {
    for (function, _) in all(&domain.given) {
        if let Some(space) = boot::config_space() {
            let mut space = space.lock();
            vpci::set_interrupt_disable(&mut *space, function.address, true);
            vpci::set_bus_master(&mut *space, function.address, false);
        }
        unmap(domain, function, |_| None);
    }
}

/// Unmaps the BARs that aren't at their `wanted` address.
fn unmap(domain: &Domain, function: &Function, wanted: impl Fn(u8) -> Option<u64>) {
    let mut mapped = function.mapped.lock();
    let placed = function.bars.iter().zip(mapped.iter_mut());
    for (index, (bar, mapped)) in (0u8..).zip(placed) {
        let (Some(bar), Some(at)) = (bar, *mapped) else {
            continue;
        };
        if wanted(index) == Some(at) {
            continue;
        }
        match domain.stage2.lock().unmap(at, bar.size) {
            Ok(()) => *mapped = None,
            // BARs are whole mappings of their own, so nothing is split and no memory needed.
            Err(error) => log::error!("{}: a BAR stays at {at:#x}: {error}", domain.id),
        }
    }
}

/// The domain wrote to the configuration space of the function in `slot`. `moved`: BARs may decode elsewhere now, those of others, too.
pub fn configured(domain: &Domain, pci: &mut Pci, slot: u8, moved: bool) {
    if domain.given.devices.is_empty() {
        return;
    }
    if moved {
        // First away, then to: one may come where another was.
        for (function, _) in all(&domain.given) {
            unmap(domain, function, |bar| {
                pci.bus.bar_address(function.slot, bar)
            });
        }
        for (function, _) in all(&domain.given) {
            map(domain, pci, function);
        }
    }
    let mut functions = all(&domain.given);
    if let Some((function, wire)) = functions.find(|(function, _)| function.slot == slot) {
        apply(pci, function, wire);
    }
}

fn map(domain: &Domain, pci: &Pci, function: &Function) {
    let mut mapped = function.mapped.lock();
    let placed = function.bars.iter().zip(mapped.iter_mut());
    for (index, (bar, mapped)) in (0u8..).zip(placed) {
        let (Some(bar), None) = (bar, *mapped) else {
            continue;
        };
        let Some(at) = pci.bus.bar_address(function.slot, index) else {
            continue;
        };
        let how = Stage2Attributes::DEVICE.encode();
        match domain.stage2.lock().map(at, bar.address, bar.size, how) {
            Ok(()) => *mapped = Some(at),
            Err(error) => log::warn!("{}: no BAR {index} at {at:#x}: {error}", domain.id),
        }
    }
}

/// Brings the real function, and where its interrupt leads, in agreement with what the domain wrote.
fn apply(pci: &Pci, function: &Function, wire: Option<&Wire>) {
    let Some(shown) = pci.bus.function(function.slot) else {
        return;
    };
    let messages = shown.msi().enabled();
    if let Some(space) = boot::config_space() {
        let mut space = space.lock();
        let masked = shown.interrupt_disabled() && !messages;
        vpci::set_interrupt_disable(&mut *space, function.address, masked);
        vpci::set_bus_master(&mut *space, function.address, shown.bus_master());
    }
    let Some(wire) = wire else { return };
    let target = match messages {
        true => shown.message().and_then(v2m::target),
        false => Some(layout_intid(wire.spi)),
    };
    if wire.line.aim(target) {
        schedule::deactivate(wire.interrupt.intid.0);
    }
}

/// Whether the function in `slot`, if it is one of these, asserts its interrupt.
pub fn asserts(domain: &Domain, slot: u8) -> bool {
    let mut functions = all(&domain.given);
    let found = functions.find(|(function, _)| function.slot == slot);
    found.is_some_and(|(function, _)| {
        boot::config_space()
            .is_some_and(|space| vpci::interrupt_status(&mut *space.lock(), function.address))
    })
}
