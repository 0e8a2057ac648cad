//! What a domain is made of: taken, filled, connected, and given back.
//!
//! Each function is one step, short enough that EL2 goes on to look for interrupts in between; [`lifecycle`](super::lifecycle) puts them in
//! order, at boot as later, for a first life as for the next one. Whatever a step took is the domain's from then on, so that giving back
//! is the same from every point.

use super::attachment;
use super::devices::Devices;
use super::domain::{Domain, Vcpu};
use super::entropy;
use super::fixture::{self, Fixture};
use super::flash;
use super::passthrough::{self, Given};
use super::schedule;
use super::sharing::{Instance, Link};
use super::tables::TableFrames;
use super::{FRAMES, shared_memory};
use crate::arch::gic::interface;
use crate::arch::{context, gic, memory, timer};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use coproc_core::address::{GuestPhysical, HostPhysical};
use core::sync::atomic::Ordering;
use hypervisor::config::{DomainConfig, domains::Module};
use hypervisor::devicetree::{Error, Region};
use hypervisor::guest_tree::{self, layout};
use hypervisor::image;
use hypervisor::lifecycle::numbers::Numbers;
use hypervisor::management_port::ManagementPort;
use hypervisor::memory::frames::Piece;
use hypervisor::physical_timer::PhysicalTimer;
use hypervisor::startup::VMIDS as VMIDS_OF_DOMAINS;
use hypervisor::vcpu_schedule::{CpuSet, placing};
use hypervisor::vgic::{ListRegisters, Vgic};
use hypervisor::vpci::{self, SLOTS, Signals, VirtualBus, Window, Windows};
use hypervisor::vpl011::Vpl011;
use platforms::translation::{Stage2Attributes, TranslationError, TranslationTable};
use spin::Mutex;

const PAGE: u64 = 0x1000;
const GIBIBYTE: u64 = 1 << 30;
/// Bytes scrubbed or copied in a step: what takes no longer than EL2 may go without looking for an interrupt.
const CHUNK: u64 = 0x8000;
/// Bytes mapped in a step, if they aren't one block.
const MAP_CHUNK: u64 = 32 << 20;

/// VMIDs of domains; those above are firmware's and the IOMMU's. 0 is nobody's.
static VMIDS: Mutex<Numbers> = Mutex::new(Numbers::new(VMIDS_OF_DOMAINS));

/// Domains that have a VMID now.
pub fn vmids_lent() -> u32 {
    VMIDS.lock().lent()
}

const fn windows() -> Windows {
    Windows {
        mem32: Window {
            base: layout::PCI_MEM32_BASE,
            size: layout::PCI_MEM32_SIZE,
        },
        mem64: Window {
            base: layout::PCI_MEM64_BASE,
            size: layout::PCI_MEM64_SIZE,
        },
    }
}

/// A place for a domain: its vCPUs, all off, in their pool, and nothing else yet. `running`: for each CPU of the device tree its number here, if it
/// runs vCPUs. It is too large to be handed about on a stack.
///
/// # Errors
/// What is wrong, naming node and property.
pub fn place(
    config: &DomainConfig,
    running: &[Option<usize>],
    given: Given,
) -> Result<Box<Domain>, Error> {
    let pool = schedule::pools()
        .get(config.pool)
        .ok_or_else(|| placing::no_pool(config))?;
    let mut kick = CpuSet::NONE;
    let now = timer::now();
    let added = placing::add(
        config,
        pool.id,
        &mut pool.lock().pool,
        running,
        now,
        &mut kick,
    );
    schedule::announce(kick);
    let vcpu = |(index, id)| {
        Vcpu::new(
            index,
            config.pool,
            id,
            context::Context::new(index as u64, 0, 0),
            ListRegisters::new(interface::list_register_count()),
        )
    };
    let vcpus = added?.into_iter().enumerate().map(vcpu).collect();
    let bus = VirtualBus::new(windows(), layout::ECAM_SIZE);
    Ok(Box::new(Domain::new(config.clone(), vcpus, bus, given)))
}

#[inline(never)]
fn no_tables(config: &DomainConfig, error: TranslationError) -> Error {
    let found = format!("stage 2: {error}");
    Error::new(config.path.clone(), found, "memory for translation tables")
}

/// Takes memory, a VMID and empty tables for a domain that has none.
///
/// # Errors
/// What there isn't; what was taken so far is the domain's.
pub fn take(domain: &Domain, config: &DomainConfig, vmid: &mut Option<u8>) -> Result<(), Error> {
    {
        let mut memory = domain.memory.write();
        config.take_memory(&mut FRAMES.lock(), &mut memory)?;
    }
    let number = VMIDS.lock().take().ok_or_else(|| config.no_vmid())?;
    *vmid = Some(number);
    let geometry = super::start::stage2_geometry();
    let table = TranslationTable::new(&mut TableFrames { coherent: true }, geometry)
        .map_err(|error| no_tables(config, error))?;
    {
        let mut stage2 = domain.stage2.lock();
        stage2.vttbr = u64::from(number) << 48 | table.root().get();
        stage2.table = Some(table);
        // With a GICv2, the domain's CPU interface is the hardware's virtual one. Never in the IOMMU's tables, which are others.
        for (offset, page) in gic::v2::virtual_interface() {
            let at = layout::GICC_BASE.saturating_add(offset);
            stage2
                .map(at, page, PAGE, Stage2Attributes::DEVICE.encode())
                .map_err(|error| no_tables(config, error))?;
        }
    }
    passthrough::map(domain, &mut domain.stage2.lock())
        .map_err(|error| no_tables(config, error))?;
    if config.firmware {
        let banks = config.take_flash(&mut FRAMES.lock())?;
        flash::install(domain, banks).map_err(|error| no_tables(config, error))?;
    }
    Ok(())
}

/// Fills the next bit of the domain's flash, from `offset` on. Returns where to go on; `None`: it's full, or there is none.
///
/// # Errors
/// If the firmware isn't in RAM.
pub fn fill_flash(
    domain: &Domain,
    config: &DomainConfig,
    offset: u64,
) -> Result<Option<u64>, Error> {
    if !config.firmware {
        return Ok(None);
    }
    let firmware = file(&config.kernel)?;
    Ok(flash::fill(domain, firmware, offset, CHUNK))
}

/// A way through a domain's RAM, some bytes at a time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    piece: usize,
    offset: u64,
    /// Bytes before `piece`.
    before: u64,
}

impl Cursor {
    /// The next part: where it is in the domain and in the machine, and its size; no more than `most` gives for (guest address, host
    /// address, bytes left). `None` at the end.
    fn next(
        &mut self,
        pieces: &[Piece],
        most: impl FnOnce(u64, u64, u64) -> u64,
    ) -> Option<(u64, HostPhysical, u64)> {
        let mut piece = pieces.get(self.piece)?;
        if self.offset >= piece.size {
            self.before = self.before.saturating_add(piece.size);
            self.offset = 0;
            self.piece = self.piece.saturating_add(1);
            piece = pieces.get(self.piece)?;
        }
        let guest = layout::RAM_BASE
            .saturating_add(self.before)
            .saturating_add(self.offset);
        let host = piece.start.wrapping_add(self.offset);
        let left = piece.size.saturating_sub(self.offset);
        let size = most(guest, host.get(), left).min(left);
        self.offset = self.offset.saturating_add(size);
        Some((guest, host, size))
    }
}

/// Maps the next part of the domain's RAM. Returns whether there is more.
///
/// # Errors
/// If there is no memory for tables.
pub fn map(domain: &Domain, config: &DomainConfig, cursor: &mut Cursor) -> Result<bool, Error> {
    let memory = domain.memory.read();
    let part = cursor.next(&memory, |guest, host, left| {
        let block = (guest | host) & (GIBIBYTE - 1) == 0 && left >= GIBIBYTE;
        if block { GIBIBYTE } else { MAP_CHUNK }
    });
    let Some((guest, host, size)) = part else {
        return Ok(false);
    };
    let mapped = domain
        .stage2
        .lock()
        .map(guest, host, size, Stage2Attributes::RAM.encode());
    mapped.map_err(|error| no_tables(config, error))?;
    Ok(true)
}

/// Scrubs the next bit of the domain's RAM. Returns whether there is more.
pub fn scrub(domain: &Domain, cursor: &mut Cursor) -> bool {
    let memory = domain.memory.read();
    let Some((_, host, size)) = cursor.next(&memory, |_, _, _| CHUNK) else {
        return false;
    };
    memory::zero(host, size);
    // The domain starts with its caches off and must see zeroes.
    memory::flush(host, size);
    true
}

enum Source {
    File(&'static [u8]),
    Made(Vec<u8>),
}

impl Source {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::File(bytes) => bytes,
            Self::Made(bytes) => bytes,
        }
    }
}

/// What is put into a domain's memory, and how far that has come.
pub struct Images {
    parts: Vec<(GuestPhysical, Source)>,
    offset: u64,
    entry: GuestPhysical,
    argument: GuestPhysical,
}

impl Images {
    /// Kernel, ramdisk and device tree.
    ///
    /// # Errors
    /// What doesn't fit, or is no kernel.
    pub fn new(domain: &Domain, config: &DomainConfig) -> Result<Self, Error> {
        let ram = GuestPhysical::new(layout::RAM_BASE);
        if config.firmware {
            // QEMU starts it with the tree at the start of RAM, which no register says.
            return Ok(Self {
                parts: Vec::from([(ram, Source::Made(tree(domain, config, None)?))]),
                offset: 0,
                entry: GuestPhysical::new(layout::FLASH_BASE),
                argument: GuestPhysical::new(0),
            });
        }
        let kernel = file(&config.kernel)?;
        let ramdisk = config.ramdisk.as_ref().map(file).transpose()?;
        let placement = image::of_domain(config, kernel, ramdisk.map(|file| file.len() as u64))?;
        let mut parts = Vec::from([(placement.kernel, Source::File(kernel))]);
        if let (Some(file), Some(at)) = (ramdisk, placement.ramdisk) {
            parts.push((GuestPhysical::new(at.address), Source::File(file)));
        }
        let tree = tree(domain, config, placement.ramdisk)?;
        parts.push((placement.tree, Source::Made(tree)));
        Ok(Self {
            parts,
            offset: 0,
            entry: placement.kernel,
            argument: placement.tree,
        })
    }

    /// Copies the next bit. Returns whether there is more.
    pub fn copy(&mut self, domain: &Domain) -> bool {
        let Some((at, source)) = self.parts.last() else {
            return false;
        };
        let bytes = source.bytes();
        let from = self.offset as usize;
        let to = from.saturating_add(CHUNK as usize).min(bytes.len());
        let Some(part) = bytes.get(from..to).filter(|part| !part.is_empty()) else {
            self.parts.pop();
            self.offset = 0;
            return true;
        };
        let at = at.wrapping_add(self.offset);
        domain.store(at.get(), part);
        self.offset = to as u64;
        true
    }
}

/// The device tree of a domain.
fn tree(domain: &Domain, config: &DomainConfig, initrd: Option<Region>) -> Result<Vec<u8>, Error> {
    let memory = domain.memory.read();
    let host_memory: Vec<Region> = memory
        .iter()
        .map(|piece| Region {
            address: piece.start.get(),
            size: piece.size,
        })
        .collect();
    drop(memory);
    guest_tree::of_domain(
        config,
        gic::version(),
        initrd,
        entropy::seeds(),
        &host_memory,
    )
}

fn file(module: &Module) -> Result<&'static [u8], Error> {
    memory::shared(HostPhysical::new(module.region.address), module.region.size).ok_or_else(|| {
        let Region { address, size } = module.region;
        let found = format!("{size:#x} bytes at {address:#x}");
        Error::new(
            module.path.clone(),
            found,
            "a range of RAM apart from the hypervisor",
        )
        .property("reg")
    })
}

/// Makes everything of the domain as after power-on, vCPU 0 at its entry. All vCPUs are off, and it has no share.
pub fn reset(domain: &Domain, config: &DomainConfig, images: &Images) {
    // Virtual time starts with the domain.
    let offset = timer::counter();
    domain.offset.store(offset, Ordering::SeqCst);
    let vttbr = domain.stage2.lock().vttbr;
    // Nothing that a CPU remembers of an earlier life.
    crate::arch::mmu::invalidate_stage2(vttbr, 0..u64::MAX);
    // Nor of what was in this memory before: kernel and firmware have been written, and cleaned.
    memory::forget_instructions();
    for vcpu in &domain.vcpus {
        vcpu.context.reset();
        vcpu.context.place(vttbr, offset);
        vcpu.take_attention();
        *vcpu.progress.lock() = Default::default();
        *vcpu.timer.lock() = PhysicalTimer::new();
        vcpu.alarm.store(u64::MAX, Ordering::SeqCst);
    }
    if let Some(first) = domain.vcpus.first() {
        let (entry, argument) = (images.entry.get(), images.argument.get());
        first.registers.start_at(entry, argument);
    }
    domain.power.lock().reset();
    {
        let mut pci = domain.pci.lock();
        pci.bus = VirtualBus::new(windows(), layout::ECAM_SIZE);
        pci.links = [None; SLOTS];
        pci.signals = Signals::new();
        shared_memory::reset(domain, &mut pci);
    }
    if let Some(uart) = &domain.uart {
        *uart.lock() = Vpl011::new();
    }
    if let Some(port) = &domain.management {
        domain.at_port(port, ManagementPort::reset);
    }
    flash::reset(domain);
    {
        let mut devices = domain.devices.lock();
        *devices = Devices::new(offset, config);
        domain.alarm.store(u64::MAX, Ordering::SeqCst);
    }
    let mut vgic = domain.vgic.lock();
    *vgic = Vgic::of(gic::version(), config.cpus as usize, layout::SPIS as usize);
    for vcpu in &domain.vcpus {
        *vcpu.lists.lock() = ListRegisters::new(interface::list_register_count());
    }
}

/// Gives the domain the coprocessor at `number` of its configuration. Returns whether there is one.
///
/// # Errors
/// Why it can't be had; nothing of it is left behind.
pub fn connect(
    domain: &Domain,
    config: &DomainConfig,
    instances: &[Instance],
    number: usize,
) -> Result<bool, Error> {
    let Some(assignment) = config.coprocs.get(number) else {
        return Ok(false);
    };
    let mut found = instances.iter().enumerate();
    let Some((index, instance)) = found.find(|(_, instance)| instance.id == assignment.coproc)
    else {
        return Err(config.coproc_unavailable(assignment.coproc));
    };
    let slot = match &instance.description {
        Some(_) => domain.pci.lock().bus.free(),
        None => fixture::position(domain, instance.id),
    };
    let slot = slot.ok_or_else(|| config.too_many_coprocs())?;
    let link = attachment::attach(
        index,
        instance,
        domain.id,
        &domain.memory.read(),
        &assignment.parameters,
        slot,
    )
    .map_err(|error| config.coproc_refuses(error))?;
    if let Err(error) = show(domain, instance, slot, link) {
        if let Err(error) = attachment::detach(index, instance, link.who) {
            log::error!("{}: {error}", link.who);
        }
        return Err(config.coprocs_error(error.to_string(), "a free PCI slot"));
    }
    Ok(true)
}

/// Shows the domain its share: as a function on its bus, or behind a node of its tree.
///
/// # Errors
/// If the slot is taken; nothing is shown then.
pub fn show(
    domain: &Domain,
    instance: &Instance,
    slot: u8,
    link: Link,
) -> Result<(), vpci::SlotError> {
    let Some(description) = &instance.description else {
        if let Some(fixture) = domain.fixtures.read().get(usize::from(slot)) {
            fixture.connect(link);
        }
        return Ok(());
    };
    let mut pci = domain.pci.lock();
    pci.bus.attach(slot, description.clone())?;
    if let Some(place) = pci.links.get_mut(usize::from(slot)) {
        *place = Some(link);
    }
    Ok(())
}

/// Takes all its coprocessors away; [`attachment::holds`] tells how long that goes on.
pub fn disconnect(domain: &Domain, instances: &[Instance]) {
    let links: Vec<Link> = {
        let mut pci = domain.pci.lock();
        pci.signals = Signals::new();
        let links = core::mem::replace(&mut pci.links, [None; SLOTS]);
        for (slot, _) in (0u8..).zip(&links).filter(|(_, link)| link.is_some()) {
            if let Err(error) = pci.bus.detach(slot) {
                log::error!("{}: {error}", domain.id);
            }
        }
        let fixtures = domain.fixtures.read();
        let fixtures = fixtures.iter().filter_map(Fixture::disconnect);
        links.into_iter().flatten().chain(fixtures).collect()
    };
    for link in links {
        if let Some(instance) = instances.get(link.instance)
            && let Err(error) = attachment::detach(link.instance, instance, link.who)
        {
            log::error!(
                "{}: {} could not be taken back: {error}",
                domain.id,
                link.who
            );
        }
    }
}

/// Gives back tables, VMID and memory; the memory is scrubbed first, by and by ([`attachment::holds`]). No vCPU is on, no share is left.
pub fn give_back(domain: &Domain, vmid: &mut Option<u8>) {
    {
        let mut pci = domain.pci.lock();
        pci.bus = VirtualBus::new(windows(), layout::ECAM_SIZE);
        shared_memory::reset(domain, &mut pci);
    }
    let flash = domain.flash.lock().take();
    let mut stage2 = domain.stage2.lock();
    if let Some(table) = stage2.table.take() {
        // All of it, from all TLBs: then nobody walks the tables, and the VMID can be another's.
        crate::arch::mmu::invalidate_stage2(stage2.vttbr, 0..u64::MAX);
        table.destroy(&mut TableFrames { coherent: true });
    }
    stage2.vttbr = 0;
    drop(stage2);
    if let Some(number) = vmid.take() {
        VMIDS.lock().give_back(number);
    }
    let mut pieces = core::mem::take(&mut *domain.memory.write());
    pieces.extend(flash.iter().flatten().map(flash::Bank::memory));
    if !pieces.is_empty() {
        attachment::bury(domain.id, Vec::new(), pieces);
    }
}

/// Tells the vCPUs of the domain at this position of the system's list who they are, and their pool.
pub fn introduce(position: usize, domain: &'static Domain) {
    for vcpu in &domain.vcpus {
        let member = schedule::Member { domain, vcpu };
        vcpu.set_number(position);
        vcpu.registers.belong_to(member);
        schedule::enlist(member);
    }
}
