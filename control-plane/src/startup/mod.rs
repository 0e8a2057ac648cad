//! From a configuration to what is there of it: in which order, and what is said on the way.
//!
//! Stands once for a machine that boots and for one that is only thought of (`cargo xtask check`): [`run`] knows the order and what follows
//! from what, a [`Site`] does each step or finds out whether it could be done.

mod coproc;
mod cpus;
mod device;
mod domain;
#[cfg(test)]
mod tests;

pub use coproc::Identity;
pub use cpus::{Starter, Unstartable, start_cpus};
pub use device::{Parts, Stock};
pub use domain::VMIDS;

use crate::config::{Configuration, CoprocConfig, DomainConfig, PoolConfig, SharedMemory};
use crate::devicetree::Error;
use alloc::vec::Vec;
use core::fmt;

/// What is said of a machine that has no IOMMU.
pub const NO_IOMMU: &str =
    "no IOMMU: no PCI function can be shared, and no other device that does DMA";

/// Who hears what is found.
pub trait Voice {
    /// A mistake.
    fn error(&mut self, error: &Error);

    /// Something that has no effect, or hardly the intended one; a whole line about the node at `path`.
    fn warning(&mut self, path: &str, line: fmt::Arguments<'_>);

    /// Something that is taken for granted, likewise.
    fn note(&mut self, path: &str, line: fmt::Arguments<'_>);
}

/// Where it happens.
pub trait Site {
    /// Who hears what is found there.
    fn voice(&mut self) -> &mut dyn Voice;

    /// Makes a coproc ready, and shares it if it is to be shared.
    ///
    /// # Errors
    /// Why it can't be used; then the domains that name it find none.
    fn coproc(&mut self, config: &CoprocConfig) -> Result<(), Error>;

    /// Makes the pools, from the CPUs that are no coproc.
    fn pools(&mut self, configs: &[PoolConfig]);

    /// Makes a place for a domain: its devices, its vCPUs in their pool.
    ///
    /// # Errors
    /// What can't be had.
    fn place(&mut self, config: &DomainConfig) -> Result<(), Error>;

    /// Creates a domain that has a place. Returns whether it could be; if not, that was told, and nothing is left.
    fn create(&mut self, config: &DomainConfig) -> bool;

    /// Makes memory that domains share.
    ///
    /// # Errors
    /// Why it can't be; the domains go without.
    fn share_memory(&mut self, config: &SharedMemory) -> Result<(), Error>;

    /// What the node at `path` describes isn't made; why was told.
    fn left_out(&mut self, path: &str);
}

/// Tells what reading the configuration has found.
pub fn tell(configuration: &Configuration, voice: &mut dyn Voice) {
    for error in configuration.errors() {
        voice.error(error);
    }
    for warning in &configuration.warnings {
        voice.warning(warning.path(), format_args!("{warning}"));
    }
}

/// Makes all that is configured. What has a mistake costs nobody else anything.
///
/// All domains get their places before the first one is created, since a disabled one keeps its place, too; and all that are to start are there before
/// memory is shared between them.
pub fn run(configuration: &Configuration, site: &mut dyn Site) {
    for config in &configuration.coprocs {
        if let Err(error) = site.coproc(config) {
            site.voice().error(&error);
        }
    }
    site.pools(&configuration.pools);
    let mut placed = Vec::new();
    for config in configuration.domains.iter().flatten() {
        match site.place(config) {
            Ok(()) => placed.push(config),
            Err(error) => leave_out(site, &error, &config.path),
        }
    }
    for config in placed.into_iter().filter(|config| config.enabled) {
        if !site.create(config) {
            site.left_out(&config.path);
        }
    }
    for rejected in configuration
        .domains
        .iter()
        .filter_map(|domain| domain.as_ref().err())
    {
        site.left_out(&rejected.path);
    }
    for config in &configuration.shared {
        if let Err(error) = site.share_memory(config) {
            leave_out(site, &error, &config.path);
        }
    }
}

fn leave_out(site: &mut dyn Site, error: &Error, path: &str) {
    site.voice().error(error);
    site.left_out(path);
}
