//! Making a domain out of its configuration.
//!
//! Everything that a domain needs is taken step by step; if a step fails, all earlier ones are undone in
//! reverse, so that a domain that can't be created leaves nothing behind.

use super::attachment;
use super::devices::Devices;
use super::domain::{Domain, Life, Stage2, Vcpu};
use super::flash::{self, Bank};
use super::schedule;
use super::sharing::{Instance, Link};
use super::tables::TableFrames;
use super::{FRAMES, console};
use crate::arch::{context, memory, timer};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use coproc_core::address::{GuestPhysical, HostPhysical};
use coproc_core::id::VcoprocId;
use hypervisor::config::{DomainConfig, domains::Module};
use hypervisor::devicetree::{Error, Region};
use hypervisor::guest_tree::{self, GuestTree, layout};
use hypervisor::image::{self, Header};
use hypervisor::memory::frames::{FrameError, Piece};
use hypervisor::psci::{DomainPower, Workarounds};
use hypervisor::vcpu_schedule::{CpuSet, Parameters, ScheduleError, VcpuId};
use hypervisor::vgic::{ListRegisters, Vgic};
use hypervisor::vpci::{SLOTS, VirtualBus, Window, Windows};
use platforms::translation::{Geometry, Stage2Attributes, TranslationTable};

/// Shared interrupts of a domain's interrupt controller.
const SPIS: usize = 64;
const BLOCK: u64 = 0x20_0000;
/// VMIDs above are firmware's and the IOMMU's.
const VMID_LAST: u64 = 95;
const GIBIBYTE: u64 = 1 << 30;

/// What has been taken so far for a domain that isn't complete.
#[derive(Default)]
struct Taken {
    memory: Vec<Piece>,
    flash: Vec<Piece>,
    table: Option<TranslationTable>,
    attached: Vec<(usize, VcoprocId)>,
    /// Places in pools.
    scheduled: Vec<(usize, VcpuId)>,
}

impl Taken {
    fn undo(self, instances: &[Instance]) {
        for (index, who) in self.attached {
            if let Some(instance) = instances.get(index)
                && let Err(error) = attachment::detach(index, instance, who)
            {
                log::error!("{who} could not be taken back: {error}");
            }
        }
        for (pool, who) in self.scheduled {
            if let Some(pool) = schedule::pools().get(pool) {
                // It never ran, so nothing is in its way.
                let _ = pool.lock().pool.remove(who);
            }
        }
        if let Some(table) = self.table {
            table.destroy(&mut TableFrames { coherent: true });
        }
        // The IOMMU may know it until the shares are gone.
        attachment::bury(Vec::new(), [self.memory, self.flash].concat());
        attachment::settle(instances);
    }
}

/// What domains are made of.
pub struct Workshop<'a> {
    /// The coprocessors, in the order of the system's list.
    pub instances: &'a [Instance],
    /// Bits of a domain's address.
    pub geometry: Geometry,
    /// For each CPU of the device tree its number here, if it runs.
    pub online: &'a [Option<usize>],
    next_vmid: u64,
    next_timekeeper: usize,
}

impl<'a> Workshop<'a> {
    /// A workshop with these coprocessors and CPUs.
    pub const fn new(
        instances: &'a [Instance],
        geometry: Geometry,
        online: &'a [Option<usize>],
    ) -> Self {
        Self {
            instances,
            geometry,
            online,
            next_vmid: 1,
            next_timekeeper: 0,
        }
    }

    /// Makes a domain.
    ///
    /// # Errors
    /// What is wrong, naming node and property; everything taken was given back.
    pub fn create(&mut self, config: &DomainConfig) -> Result<Domain, Error> {
        let mut taken = Taken::default();
        match self.build(config, &mut taken) {
            Ok(domain) => Ok(domain),
            Err(error) => {
                taken.undo(self.instances);
                Err(error)
            }
        }
    }

    fn build(&mut self, config: &DomainConfig, taken: &mut Taken) -> Result<Domain, Error> {
        let other = |found: String, expected: &'static str| {
            Error::new(config.path.clone(), found, expected)
        };
        take_memory(config, taken)?;

        let mut tables = TableFrames { coherent: true };
        let mut table = TranslationTable::new(&mut tables, self.geometry)
            .map_err(|error| other(format!("stage 2: {error}"), "memory for translation tables"))?;
        let root = table.root();
        let mut at = layout::RAM_BASE;
        let mut result = Ok(());
        for piece in &taken.memory {
            result = result.and_then(|()| {
                table.map(
                    &mut tables,
                    at,
                    piece.start,
                    piece.size,
                    Stage2Attributes::RAM.encode(),
                )
            });
            at = at.saturating_add(piece.size);
        }
        if config.firmware {
            taken.flash = flash::allocate(file(&config.kernel)?)
                .map_err(|error| other(error.to_string(), "memory for flash"))?
                .to_vec();
        }
        let flash = flash_banks(&taken.flash);
        for bank in flash.iter().flatten() {
            let memory = bank.memory();
            result = result.and_then(|()| {
                let how = flash::attributes();
                table.map(&mut tables, bank.base(), memory.start, memory.size, how)
            });
        }
        taken.table = Some(table);
        result
            .map_err(|error| other(format!("stage 2: {error}"), "memory for translation tables"))?;

        let entry = self.place(config, &taken.memory)?;
        let vmid = self.next_vmid;
        if vmid > VMID_LAST {
            return Err(other(
                format!("domain number {vmid}"),
                "at most 95 domains, one VMID each",
            ));
        }
        let vttbr = vmid << 48 | root.get();
        let (bus, links) = self.connect(config, taken)?;
        // Virtual time starts with the domain.
        let offset = timer::counter();
        let vcpus = self.vcpus(config, taken, vttbr, offset)?;
        if let Some(first) = vcpus.first() {
            first.registers.start_at(entry.0.get(), entry.1.get());
        }

        let affinities = (0..u64::from(config.cpus)).collect::<Vec<_>>();
        let Some(table) = taken.table.take() else {
            return Err(other("no stage 2".to_string(), "stage 2 tables"));
        };
        self.next_vmid += 1;
        console::add_domain(config.id);
        let domain = Domain::new(
            config.id,
            config.path.clone(),
            vcpus,
            core::mem::take(&mut taken.memory),
            DomainPower::new(affinities, Workarounds::default()),
            bus,
            links,
            config.vpl011,
            Devices::new(offset, config),
            flash,
            self.timekeeper(),
            Stage2 { table, vttbr },
            Vgic::new(config.cpus as usize, SPIS),
        );
        // From here on they belong to the domain.
        taken.scheduled.clear();
        domain.set_life(Life::Created);
        Ok(domain)
    }

    /// Puts kernel, ramdisk and device tree into the domain's memory. Returns its entry and the tree's address.
    fn place(
        &self,
        config: &DomainConfig,
        pieces: &[Piece],
    ) -> Result<(GuestPhysical, GuestPhysical), Error> {
        let ram = GuestPhysical::new(layout::RAM_BASE);
        if config.firmware {
            // QEMU starts it with the tree at the start of RAM, which no register says.
            store(pieces, ram, &tree(config, None)?);
            return Ok((
                GuestPhysical::new(layout::FLASH_BASE),
                GuestPhysical::new(0),
            ));
        }
        let kernel = file(&config.kernel)?;
        let ramdisk = config.ramdisk.as_ref().map(file).transpose()?;
        let header = Header::read(kernel).map_err(|error| {
            Error::new(
                config.kernel.path.clone(),
                format!("a file that {error}"),
                "a raw arm64 Image",
            )
            .property("reg")
        })?;
        let placement = image::place(
            &header,
            ramdisk.map(|file| file.len() as u64),
            ram,
            config.memory,
        )
        .map_err(|error| {
            Error::new(
                config.path.clone(),
                format!("a kernel that {error}"),
                "more memory",
            )
            .property("memory")
        })?;
        store(pieces, placement.kernel, kernel);
        let mut initrd = None;
        if let (Some(file), Some(at)) = (ramdisk, placement.ramdisk) {
            store(pieces, at, file);
            initrd = Some(Region {
                address: at.get(),
                size: file.len() as u64,
            });
        }
        store(pieces, placement.tree, &tree(config, initrd)?);
        Ok((placement.kernel, placement.tree))
    }

    /// Gives the domain its coprocessors.
    fn connect(
        &self,
        config: &DomainConfig,
        taken: &mut Taken,
    ) -> Result<(VirtualBus, [Option<Link>; SLOTS]), Error> {
        let other = |found: String, expected: &'static str| {
            Error::new(config.path.clone(), found, expected).property("baton,coprocs")
        };
        let windows = Windows {
            mem32: Window {
                base: layout::PCI_MEM32_BASE,
                size: layout::PCI_MEM32_SIZE,
            },
            mem64: Window {
                base: layout::PCI_MEM64_BASE,
                size: layout::PCI_MEM64_SIZE,
            },
        };
        let mut bus = VirtualBus::new(windows, layout::ECAM_SIZE);
        let mut links: [Option<Link>; SLOTS] = [None; SLOTS];
        for assignment in &config.coprocs {
            let mut found = self.instances.iter().enumerate();
            let Some((index, instance)) =
                found.find(|(_, instance)| instance.id == assignment.coproc)
            else {
                return Err(other(
                    format!("{}, which can't be used", assignment.coproc),
                    "a coproc that works",
                )
                .remedy("see the error of that coproc"));
            };
            let slot = bus
                .free()
                .ok_or_else(|| other("too many coprocs".into(), "at most 31"))?;
            let link = attachment::attach(
                index,
                instance,
                config.id,
                &taken.memory,
                &assignment.parameters,
                slot,
            )
            .map_err(|error| other(error, "a coproc that takes the domain"))?;
            taken.attached.push((index, link.who));
            bus.attach(slot, instance.description.clone())
                .map_err(|error| other(error.to_string(), "a free PCI slot"))?;
            if let Some(place) = links.get_mut(usize::from(slot)) {
                *place = Some(link);
            }
        }
        Ok((bus, links))
    }

    /// The CPU whose timer looks after a domain's devices: each that runs in turn.
    fn timekeeper(&mut self) -> usize {
        let running = self.online.iter().flatten().count().max(1);
        let turn = self.next_timekeeper % running;
        self.next_timekeeper = turn + 1;
        self.online.iter().flatten().nth(turn).copied().unwrap_or(0)
    }

    fn vcpus(
        &self,
        config: &DomainConfig,
        taken: &mut Taken,
        vttbr: u64,
        offset: u64,
    ) -> Result<Vec<Vcpu>, Error> {
        let refused = |property: &'static str, found: String, expected: &'static str| {
            Error::new(config.path.clone(), found, expected).property(property)
        };
        let pool = schedule::pools().get(config.pool).ok_or_else(|| {
            refused(
                "baton,cpu-pool",
                "no pool".to_string(),
                "a pool with a CPU that runs",
            )
        })?;
        let mut vcpus = Vec::new();
        for index in 0..config.cpus as usize {
            let mut parameters = Parameters {
                share: config.share,
                affinity: CpuSet::ALL,
            };
            if let Some(wanted) = config.affinity.get(index) {
                let running = self.online.get(*wanted).copied().flatten();
                let cpu = running.ok_or_else(|| {
                    let found = format!("CPU {wanted}, which does not run domains");
                    let expected = "a CPU that started and is no firmware core";
                    refused("baton,cpu-affinity", found, expected)
                })?;
                parameters.affinity = CpuSet::only(cpu);
            }
            let mut inner = pool.lock();
            let added = inner.pool.add(&parameters, timer::now());
            let algorithm = inner.pool.algorithm();
            drop(inner);
            let (id, kick) = added.map_err(|error| {
                let found = format!("vCPU {index} in pool {} ({algorithm}): {error}", pool.id);
                let property = match error {
                    ScheduleError::NoCpu => "baton,cpu-affinity",
                    ScheduleError::OutOfRange { .. } => "baton,cpu-weight",
                    _ if config.share.budget.is_some() => "baton,cpu-budget-us",
                    _ => "cpus",
                };
                refused(property, found, "what the pool can give")
            })?;
            schedule::announce(kick);
            taken.scheduled.push((config.pool, id));
            vcpus.push(Vcpu::new(
                index,
                config.pool,
                id,
                context::Context::new(index as u64, vttbr, offset),
                ListRegisters::new(context::list_register_count()),
            ));
        }
        Ok(vcpus)
    }
}

/// Takes the domain's RAM: in as few, as large and as well aligned pieces as there are, zeroed.
fn take_memory(config: &DomainConfig, taken: &mut Taken) -> Result<(), Error> {
    let mut left = config.memory;
    while left > 0 {
        let alignment = if left >= GIBIBYTE { GIBIBYTE } else { BLOCK };
        let mut frames = FRAMES.lock();
        let free = frames.total();
        let piece = frames
            .allocate(left, alignment)
            .or_else(|_| frames.allocate(left, BLOCK))
            .or_else(|error| {
                // Not in one piece: the largest there is, in whole blocks, then the rest.
                match error {
                    FrameError::Exhausted { largest, .. }
                        if largest >= 2 * BLOCK && largest < left =>
                    {
                        frames.allocate((largest - BLOCK) & !(BLOCK - 1), BLOCK)
                    }
                    error => Err(error),
                }
            });
        drop(frames);
        let Ok(piece) = piece else {
            let given: u64 = taken.memory.iter().map(|piece| piece.size).sum();
            return Err(config.memory_does_not_fit(free.saturating_add(given)));
        };
        memory::zero(piece.start, piece.size);
        // The domain starts with its caches off and must see zeroes.
        memory::flush(piece.start, piece.size);
        taken.memory.push(piece);
        left -= piece.size;
    }
    Ok(())
}

/// The device tree of a domain.
fn tree(config: &DomainConfig, initrd: Option<Region>) -> Result<Vec<u8>, Error> {
    guest_tree::build(&GuestTree {
        memory: config.memory,
        cpus: config.cpus,
        uart: config.vpl011,
        flash: config.firmware,
        pci: true,
        bootargs: &config.bootargs,
        initrd,
        rng_seed: &[],
    })
    .map_err(|error| {
        Error::new(
            config.path.clone(),
            format!("device tree: {error}"),
            "a description that a tree can hold",
        )
    })
}

fn flash_banks(pieces: &[Piece]) -> Option<[Bank; 2]> {
    match pieces {
        [code, variables] => Some([Bank::new(0, *code), Bank::new(1, *variables)]),
        _ => None,
    }
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

/// Copies to a domain's memory, which may be in several pieces, so that the domain sees it with its caches off.
fn store(pieces: &[Piece], at: GuestPhysical, data: &[u8]) {
    let mut base = layout::RAM_BASE;
    for piece in pieces {
        let start = at.get().max(base);
        let end = (at.get() + data.len() as u64).min(base + piece.size);
        if start < end {
            let host = piece.start.wrapping_add(start - base);
            let from = (start - at.get()) as usize;
            if let Some(part) = data.get(from..from + (end - start) as usize) {
                memory::store(host, part);
                memory::clean(host, part.len() as u64);
            }
        }
        base += piece.size;
    }
}

/// Tells all vCPUs of the system who they are, and their pools.
pub fn distribute(domains: &'static [Domain]) {
    for (position, domain) in domains.iter().enumerate() {
        for vcpu in &domain.vcpus {
            let member = schedule::Member { domain, vcpu };
            vcpu.set_number(position);
            vcpu.registers.belong_to(member);
            schedule::enlist(member);
        }
    }
}

/// Lets the first vCPU of a domain run.
pub fn start(domain: &Domain) {
    domain.set_life(Life::Running);
    if let Some(first) = domain.vcpus.first() {
        first.start();
    }
}
