//! The machine on which a configuration is carried out: each step of [`hypervisor::startup`], which knows their order.

use super::domain::Domain;
use super::sharing::Instance;
use super::{console, discovery, firmware, lifecycle, load, passthrough, schedule, shared_memory};
use crate::arch::gic::Gic;
use alloc::vec::Vec;
use core::fmt;
use hypervisor::config::machine::PciHost;
use hypervisor::config::{CoprocConfig, DomainConfig, PoolConfig, SharedMemory};
use hypervisor::devicetree::Error;
use hypervisor::startup::{self, Voice};
use hypervisor::vcpu_schedule::placing;
use hypervisor::vpci::WindowAllocator;

/// The console, for what is found at boot.
pub struct Console;

impl Voice for Console {
    fn error(&mut self, error: &Error) {
        log::error!("{error}");
    }

    fn warning(&mut self, _: &str, line: fmt::Arguments<'_>) {
        log::warn!("{line}");
    }

    fn note(&mut self, _: &str, line: fmt::Arguments<'_>) {
        log::info!("{line}");
    }
}

/// What the steps work with, and what they have made.
pub struct Site<'a> {
    console: Console,
    /// Where PCI functions are.
    pub host: Option<&'a PciHost>,
    /// Addresses for their BARs.
    pub windows: WindowAllocator,
    /// The interrupt controller.
    #[cfg_attr(
        not(feature = "sharing"),
        expect(dead_code, reason = "coprocessors take interrupts of their own")
    )]
    pub gic: &'a mut Gic,
    /// For each CPU of the device tree its number here, if it runs.
    pub online: &'a [Option<usize>],
    /// Likewise, if it runs vCPUs.
    pub running: Vec<Option<usize>>,
    /// The coprocessors.
    pub instances: Vec<Instance>,
    /// Interrupts that are somebody's.
    pub used: Vec<u32>,
    /// A place for each domain.
    pub domains: Vec<Domain>,
    /// Memory that domains share.
    pub shared: Vec<shared_memory::Region>,
}

impl<'a> Site<'a> {
    /// With nothing made yet.
    pub const fn new(
        host: Option<&'a PciHost>,
        windows: WindowAllocator,
        gic: &'a mut Gic,
        online: &'a [Option<usize>],
    ) -> Self {
        Self {
            console: Console,
            host,
            windows,
            gic,
            online,
            running: Vec::new(),
            instances: Vec::new(),
            used: Vec::new(),
            domains: Vec::new(),
            shared: Vec::new(),
        }
    }
}

impl startup::Site for Site<'_> {
    fn voice(&mut self) -> &mut dyn Voice {
        &mut self.console
    }

    fn coproc(&mut self, config: &CoprocConfig) -> Result<(), Error> {
        let instance = discovery::start_coproc(self, config)?;
        self.used.extend(instance.interrupts());
        self.instances.push(instance);
        Ok(())
    }

    fn pools(&mut self, configs: &[PoolConfig]) {
        // Firmware cores run no vCPU.
        let online = self.online.iter();
        self.running = online
            .map(|number| number.filter(|number| !firmware::is_core(*number)))
            .collect();
        let pools = placing::pools(configs, &self.running, &mut self.console);
        schedule::start_pools(pools);
    }

    fn place(&mut self, config: &DomainConfig) -> Result<(), Error> {
        let given = passthrough::prepare(config, self.host, &mut self.windows, &mut self.used)?;
        let domain = load::place(config, &self.running, given)?;
        console::add_domain(config.id);
        self.domains.push(*domain);
        Ok(())
    }

    fn create(&mut self, config: &DomainConfig) -> bool {
        let mut domains = self.domains.iter();
        let domain = domains.find(|domain| domain.id == config.id);
        domain.is_some_and(|domain| lifecycle::create_at_boot(domain, &self.instances))
    }

    fn share_memory(&mut self, config: &SharedMemory) -> Result<(), Error> {
        let region = shared_memory::create(config, &self.domains, self.shared.len())?;
        self.shared.push(region);
        Ok(())
    }

    fn left_out(&mut self, path: &str) {
        log::error!("{path} is not created");
    }
}
