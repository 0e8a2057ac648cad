//! One coprocessor's machine, as the framework knows it: its timer, registers, interrupts, windows, streams, and its domains' views of them.

use super::{Device, NEVER, Reach, Share, Side};
use crate::arch::{cpu, timer};
use crate::system::domain::Domain;
use crate::system::firmware::{FirmwareCore, FirmwareShare};
use crate::system::node::Node;
use crate::system::pci::ConfigSpace;
use crate::system::{self, boot, schedule};
use alloc::boxed::Box;
use coproc_core::driver::{Hardware, Step};
use coproc_core::environment::{Environment, Event, Stream};
use coproc_core::id::{DomainId, VcoprocId};
use coproc_core::iommu::{Faults, IommuError, Target};
use coproc_core::record::Log;
use coproc_core::time::{Duration, Instant};
use coproc_core::trace::TraceEvent;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use hypervisor::vpci::{self, FunctionAddress};
use platforms::translation::Stage2Attributes;

/// A domain's IOMMU faults are told at most this often.
const FAULT_MESSAGES: Duration = Duration::from_secs(1);

/// The [`Environment`] of one coprocessor.
pub struct Machine<'a> {
    pub(super) side: &'a mut Side,
    pub(super) deadline: &'a AtomicU64,
    pub(super) timer_cpu: &'a AtomicUsize,
    pub(in crate::system) log: &'a mut Option<Box<Log>>,
}

#[inline]
fn domain(id: DomainId) -> Option<&'static Domain> {
    system::get()?.domains.iter().find(|domain| domain.id == id)
}

impl Machine<'_> {
    fn share(&mut self, who: VcoprocId) -> Option<&mut Share> {
        self.side.shares.iter_mut().find(|share| share.who == who)
    }

    #[inline]
    fn owner(&self, who: VcoprocId) -> Option<&'static Domain> {
        let share = self.side.shares.iter().find(|share| share.who == who)?;
        domain(share.domain)
    }

    /// Changes the physical function through the configuration space; `None` if it is none.
    pub(in crate::system) fn configure<R>(
        &self,
        change: impl FnOnce(&mut ConfigSpace, FunctionAddress) -> R,
    ) -> Option<R> {
        let Device::Pci { function, .. } = &self.side.device else {
            return None;
        };
        let space = boot::config_space()?;
        Some(change(&mut space.lock(), *function))
    }

    /// Nothing of the device reaches anybody, nor the other way round.
    pub(in crate::system) fn isolate(&mut self) {
        self.configure(|space, function| {
            vpci::set_interrupt_disable(space, function, true);
            vpci::set_bus_master(space, function, false);
            vpci::set_memory_decode(space, function, false);
        });
        if let Device::Node(node) = &mut self.side.device {
            node.isolate();
        }
    }

    /// What [`Self::isolate`] closed is open again, as far as the framework doesn't open it by itself.
    pub(in crate::system) fn open(&mut self) {
        self.configure(|space, function| {
            vpci::set_memory_decode(space, function, true);
            vpci::set_bus_master(space, function, true);
        });
        if let Device::Node(node) = &mut self.side.device {
            node.open();
        }
    }

    /// Whether no domain has a part in it, not even one that waits for its end.
    pub(in crate::system) fn is_deserted(&self) -> bool {
        self.side.shares.is_empty()
    }

    #[inline]
    pub(super) fn core(&self) -> Option<&'static FirmwareCore> {
        match &self.side.device {
            Device::Firmware(registers) => Some(registers.0),
            Device::Pci { .. } | Device::Node(_) => None,
        }
    }

    #[inline(never)]
    fn map_node(&mut self, who: VcoprocId) -> bool {
        let Some((node, share, domain)) = self.node(who) else {
            return false;
        };
        let mapped = node.map_windows(share, domain);
        if !mapped {
            self.unmap_windows(who);
        }
        mapped
    }

    /// The device and a share, if it's a node.
    fn node(&mut self, who: VcoprocId) -> Option<(&mut Node, &mut Share, &'static Domain)> {
        let Side { device, shares } = &mut *self.side;
        let Device::Node(node) = device else {
            return None;
        };
        let share = shares.iter_mut().find(|share| share.who == who)?;
        let domain = domain(share.domain)?;
        Some((node, share, domain))
    }

    /// Takes the memory of `who`'s firmware out of the domain's address space, until the domain touches it again.
    pub fn withdraw(&mut self, who: VcoprocId) {
        if let Some((firmware, domain, _)) = self.firmware(who) {
            firmware.displace(domain);
        }
    }

    /// The memory of `who`'s firmware, and its domain.
    pub(super) fn firmware(
        &mut self,
        who: VcoprocId,
    ) -> Option<(&mut FirmwareShare, &'static Domain, u8)> {
        let share = self.side.shares.iter_mut().find(|share| share.who == who)?;
        let domain = domain(share.domain)?;
        match &mut share.reach {
            Reach::Firmware(firmware) => Some((firmware, domain, share.slot)),
            Reach::Spaces { .. } | Reach::Unasked => None,
        }
    }
}

impl Environment for Machine<'_> {
    fn now(&self) -> Instant {
        timer::now()
    }

    fn arm_timer(&mut self, at: Option<Instant>) {
        self.timer_cpu
            .store(cpu::current().index(), Ordering::Relaxed);
        self.deadline
            .store(at.map_or(NEVER, Instant::as_nanos), Ordering::Relaxed);
        schedule::rearm();
    }

    fn hardware(&mut self) -> &mut dyn Hardware {
        match &mut self.side.device {
            Device::Pci { registers, .. } => registers,
            Device::Firmware(registers) => registers,
            Device::Node(node) => &mut node.registers,
        }
    }

    fn mask_interrupts(&mut self, masked: bool) {
        let set = |space: &mut ConfigSpace, function| {
            vpci::set_interrupt_disable(space, function, masked);
        };
        if self.configure(set).is_none()
            && let Device::Node(node) = &mut self.side.device
        {
            node.mask(masked);
        }
    }

    fn interrupt_asserted(&mut self, index: usize) -> bool {
        if let Some(asserted) = self.configure(vpci::interrupt_status) {
            return asserted;
        }
        match &self.side.device {
            Device::Firmware(registers) => registers.0.interrupt_asserted(),
            Device::Node(node) => node.asserted(index),
            Device::Pci { .. } => false,
        }
    }

    fn interrupts_settled(&mut self) -> bool {
        if let Device::Node(node) = &mut self.side.device {
            return node.settled();
        }
        // The line is shared with other functions: what counts is that this one doesn't assert it.
        !self.interrupt_asserted(0)
    }

    fn map_windows(&mut self, who: VcoprocId) -> bool {
        if let Device::Node(_) = &self.side.device {
            return self.map_node(who);
        }
        let Some(domain) = self.owner(who) else {
            return false;
        };
        let Side { device, shares } = &mut *self.side;
        let Device::Pci { windows, .. } = device else {
            return false;
        };
        let Some(share) = shares.iter_mut().find(|share| share.who == who) else {
            return false;
        };
        let mut complete = true;
        for (window, host) in windows.iter().filter(|(window, _)| window.direct) {
            let pci = domain.pci.lock();
            let address = pci.bus.bar_address(share.slot, window.index as u8);
            drop(pci);
            let Some(address) = address else {
                complete = false;
                break;
            };
            let result = domain.stage2.lock().map(
                address,
                *host,
                window.size,
                Stage2Attributes::DEVICE.encode(),
            );
            if let Err(error) = result {
                log::error!(
                    "{who}: window {} can't be mapped at {address:#x}: {error}",
                    window.name
                );
                complete = false;
                break;
            }
            share.mapped.push((address, window.size));
        }
        let complete = complete && !share.mapped.is_empty();
        if !complete {
            self.unmap_windows(who);
        }
        complete
    }

    fn unmap_windows(&mut self, who: VcoprocId) {
        let Some(domain) = self.owner(who) else {
            return;
        };
        let Some(share) = self.share(who) else {
            return;
        };
        for (address, size) in share.mapped.drain(..) {
            if let Err(error) = domain.stage2.lock().unmap(address, size) {
                // Windows are whole mappings of their own, so nothing is split and no memory needed.
                log::error!("{who}: window at {address:#x} can't be unmapped: {error}");
            }
        }
    }

    fn point_streams(&mut self, target: Stream) -> Result<(), IommuError> {
        match &mut self.side.device {
            Device::Pci { .. } => {}
            Device::Firmware(registers) => {
                registers.0.aim(match target {
                    Stream::Domain(who) => Some(who),
                    Stream::Abort | Stream::Save(_) => None,
                });
                return Ok(());
            }
            Device::Node(node) => {
                node.belongs_to(match target {
                    Stream::Domain(who) => Some(who),
                    Stream::Abort | Stream::Save(_) => None,
                });
                if node.streams.is_empty() {
                    return Ok(());
                }
            }
        }
        let mut space = |who, saving| match self.share(who).map(|share| &share.reach) {
            Some(Reach::Spaces { save, .. }) if saving => *save,
            Some(Reach::Spaces { domain, .. }) => Some(*domain),
            _ => None,
        };
        let space = match target {
            Stream::Abort => None,
            Stream::Save(who) => space(who, true),
            Stream::Domain(who) => space(who, false),
        };
        let target = space.map_or(Target::Abort, Target::Space);
        let Some(iommu) = boot::iommu() else {
            return Err(IommuError::Hardware("there is no IOMMU"));
        };
        match &self.side.device {
            Device::Pci { stream, .. } => iommu.lock().point(*stream, target),
            Device::Node(node) => node.point(&mut **iommu.lock(), target),
            Device::Firmware(_) => Ok(()),
        }
    }

    fn sync_streams(&mut self) -> Step {
        match &self.side.device {
            Device::Firmware(registers) => return registers.0.aimed(),
            Device::Node(node) if node.streams.is_empty() => return Step::Done,
            Device::Node(_) | Device::Pci { .. } => {}
        }
        match boot::iommu() {
            Some(iommu) => iommu.lock().sync(),
            None => Step::Done,
        }
    }

    fn take_faults(&mut self) -> Option<Faults> {
        match &self.side.device {
            Device::Firmware(registers) => return Some(registers.0.take_faults()),
            Device::Node(node) if node.streams.is_empty() => return Some(Faults::default()),
            Device::Node(_) | Device::Pci { .. } => {}
        }
        let Some(iommu) = boot::iommu() else {
            return Some(Faults::default());
        };
        let mut iommu = iommu.lock();
        if iommu.collect_faults() {
            return None;
        }
        Some(match &self.side.device {
            Device::Pci { stream, .. } => iommu.take_faults(*stream),
            Device::Node(node) => node.take_faults(&mut **iommu),
            Device::Firmware(_) => Faults::default(),
        })
    }

    fn set_interrupt(&mut self, who: VcoprocId, index: usize, pending: bool) {
        let Side { device, shares } = &mut *self.side;
        let Some(share) = shares.iter_mut().find(|share| share.who == who) else {
            return;
        };
        let Some(domain) = domain(share.domain) else {
            return;
        };
        match device {
            Device::Node(node) => node.set_interrupt(share, domain, index, pending),
            Device::Pci { .. } | Device::Firmware(_) => {
                domain.set_function_pending(share.slot, pending);
            }
        }
    }

    fn release_parked(&mut self, who: VcoprocId) {
        if let Some(domain) = self.owner(who) {
            domain.release_parked();
        }
    }

    fn trace(&mut self, event: &TraceEvent) {
        system::trace::keep(event);
    }

    fn notify(&mut self, who: VcoprocId, event: Event) {
        let now = timer::now();
        if let Event::Faulted(_) | Event::Quarantined(_) = event {
            // From here on its memory reads all-ones, too.
            self.withdraw(who);
        }
        let Some(share) = self.share(who) else {
            return;
        };
        let domain = share.domain;
        match event {
            Event::Faulted(why) => log::warn!("{domain}: {who} lost its coprocessor: {why}"),
            Event::Quarantined(why) => {
                log::error!("{domain}: {who}: its coprocessor is quarantined: {why}")
            }
            Event::IommuFault(faults) => {
                share.untold = share.untold.saturating_add(faults.count);
                if share.told == Instant::from_nanos(0) || now.since(share.told) >= FAULT_MESSAGES {
                    let kind = if faults.write { "write" } else { "read" };
                    let address = faults.last.unwrap_or_default();
                    let more = if faults.overflow { " or more" } else { "" };
                    log::warn!(
                        "{domain}: {who}: DMA outside its memory: {}{more} faults, last a {kind} at {address}",
                        share.untold
                    );
                    share.untold = 0;
                    share.told = now;
                }
            }
        }
    }
}
