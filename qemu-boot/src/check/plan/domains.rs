//! Domains as boot would make them: `passthrough`, `load.rs`, `lifecycle.rs`, `attachment.rs`, `shared_memory.rs`.

use control_plane::config::machine::Gic;
use control_plane::config::{CoprocConfig, Dma, DomainConfig, Module, Passed, SharedMemory};
use control_plane::devicetree::{Error, Region};
use control_plane::guest_tree::layout::PCI_SLOTS;
use control_plane::guest_tree::{self, GicVersion};
use control_plane::image;
use control_plane::memory::frames::FrameError;
use control_plane::startup::{self, Stock};
use coproc_core::address::PAGE_SIZE;
use coproc_core::id::VcoprocId;
use coproc_core::time::Instant;
use hypervisor::vcpu_schedule::{CpuSet, placing};

use super::super::findings;
use super::super::ram::Taken;
use super::{INTA, Instance, Kind, Plan};

impl Plan<'_> {
    /// `passthrough::prepare`.
    pub(super) fn devices(&mut self, config: &DomainConfig) -> Result<(), Error> {
        let mut looked = Vec::new();
        let mut look = |function| {
            looked.push(function);
            Ok(INTA)
        };
        let mut stock = Stock {
            host: self.machine.pci_hosts.first(),
            iommu: !self.machine.smmus.is_empty(),
            used: &mut self.used,
        };
        let mut devices = config.passthrough.iter();
        let taken =
            devices.try_for_each(|one| stock.take(config, one, self.findings, &mut look).map(drop));
        for function in looked {
            self.unchecked(format!(
                "{}: that pci:{function} is there, and has its interrupt at INTA",
                config.path
            ));
        }
        taken
    }

    /// `load::place`.
    pub(super) fn vcpus(&mut self, config: &DomainConfig) -> Result<(), Error> {
        let found = self.pools.get_mut(config.pool);
        let (id, pool) = found.ok_or_else(|| placing::no_pool(config))?;
        let now = Instant::from_nanos(0);
        let mut kick = CpuSet::NONE;
        placing::add(config, *id, pool, &self.running, now, &mut kick).map(drop)
    }

    /// `lifecycle::create_at_boot`: memory, a VMID, images, coprocs. Returns how many PCI slots the domain has left.
    pub(super) fn build(&mut self, config: &DomainConfig) -> Result<usize, Error> {
        let mut taken = Taken::default();
        let mut attached = Vec::new();
        let result = self.make(config, &mut taken, &mut attached);
        if result.is_err() {
            for (at, who) in attached {
                let instance: &mut Instance = &mut self.instances[at];
                let _ = instance.algorithm.remove(who);
                instance.driver.destroy(who);
            }
            self.ram.give_back(taken);
        }
        result
    }

    fn make(
        &mut self,
        config: &DomainConfig,
        taken: &mut Taken,
        attached: &mut Vec<(usize, VcoprocId)>,
    ) -> Result<usize, Error> {
        self.ram.domain(config, taken)?;
        if self.created.len() >= startup::VMIDS.len() {
            return Err(config.no_vmid());
        }
        self.ram.tables(config, taken)?;
        self.fill(config)?;
        self.connect(config, taken, attached)
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
                    initrd = image::of_domain(config, kernel, ramdisk)?.ramdisk;
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
            Gic::V3(_) => GicVersion::V3,
            Gic::V2(_) => GicVersion::V2,
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

    /// `load::connect`, `attachment::attach`: each coproc of the domain in turn.
    fn connect(
        &mut self,
        config: &DomainConfig,
        taken: &mut Taken,
        attached: &mut Vec<(usize, VcoprocId)>,
    ) -> Result<usize, Error> {
        let functions = config.passthrough.iter();
        let functions = functions.filter(|passed| matches!(passed, Passed::Pci(..)));
        // The host bridge is one, too.
        let mut slots = PCI_SLOTS.saturating_sub(1 + functions.count());
        let confined = |passed: &Passed| match passed {
            Passed::Node(node) => matches!(node.dma, Dma::Confined(_)),
            Passed::Pci(..) => true,
        };
        if config.passthrough.iter().any(confined) {
            self.ram.space(config.memory, taken).map_err(|error| {
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
                let left = slots.checked_sub(1);
                slots = left.ok_or_else(|| config.too_many_coprocs())?;
            }
            let path = instance.path.clone();
            let none = |error: FrameError| config.coproc_refuses(error.to_string());
            match instance.kind {
                Kind::Firmware => {
                    let memory = fw_core_abi::IMAGE_SIZE + fw_core_abi::SHARED_SIZE;
                    self.ram.take(memory, PAGE_SIZE, taken).map_err(none)?;
                    self.ram.space(memory, taken).map_err(none)?;
                }
                Kind::Function | Kind::Node { confined: true } => {
                    self.ram.space(config.memory, taken).map_err(none)?;
                    let area = instance.driver.description().save_area;
                    self.ram.take(area, PAGE_SIZE, taken).map_err(none)?;
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
            added.map_err(|error| config.coproc_refuses(format!("{path}: {error}")))?;
            attached.push((at, who));
        }
        Ok(slots)
    }

    /// `shared_memory::create`.
    pub(super) fn shared_memory(&mut self, config: &SharedMemory) -> Result<(), Error> {
        let mut peers = Vec::new();
        for id in &config.domains {
            let mut created = self.created.iter();
            let peer = created.position(|(other, _)| other == id);
            let peer = peer.ok_or_else(|| config.not_created(*id))?;
            if self.created[peer].1 == 0 {
                return Err(config.no_slot(*id));
            }
            peers.push(peer);
        }
        self.ram
            .take(config.size, config.size, &mut Taken::default())
            .map_err(|error| config.no_memory(error))?;
        for peer in peers {
            self.created[peer].1 -= 1;
        }
        self.findings.shared_memory.push(findings::Shared {
            node: config.path.clone(),
            kib: config.size >> 10,
            domains: config.domains.iter().map(|id| id.0).collect(),
        });
        Ok(())
    }
}
