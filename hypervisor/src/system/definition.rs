//! A domain's configuration from a file, when Baton runs.
//!
//! Read where it was asked for, in one go: the file is small for that reason. Until all of it was found right, what was in force is.

use super::domain::Domain;
use super::lifecycle::{self, Refused};
use alloc::vec::Vec;
use coproc_core::id::DomainId;
use hypervisor::config::domains::file::{self, Found, Ground, Place};
use hypervisor::config::{CoprocConfig, PoolConfig};
use hypervisor::console::file::{File, FileError};
use hypervisor::devicetree::Region;
use spin::Mutex;

/// The file, as far as it has come. Commands are carried out one at a time, so nobody waits for it.
static FILE: Mutex<File> = Mutex::new(File::new());

/// What was described at boot, and can be referred to.
pub struct Described {
    /// The coprocs that can be used.
    pub coprocs: Vec<CoprocConfig>,
    /// The pools.
    pub pools: Vec<PoolConfig>,
    /// Where modules are.
    pub modules: Vec<Region>,
    /// For each CPU of the device tree its number here, if it runs vCPUs.
    pub running: Vec<Option<usize>>,
}

/// Takes a part of a file of `owner`, who is at the console if it's nobody. Returns how many bytes there are now.
///
/// # Errors
/// [`FileError`]; what was there is there still.
pub fn put(owner: Option<DomainId>, offset: u32, part: &[u8]) -> Result<usize, FileError> {
    FILE.lock().put(owner, offset as usize, part)
}

/// Why nothing was read.
pub enum Unread {
    /// The file.
    File(FileError),
    /// The domain.
    Domain(Refused),
}

/// Has the domain built from what `owner`'s file says of it, from now on; then the file is gone. If there is a mistake, it's in what was found, and nothing
/// has changed.
///
/// # Errors
/// [`Unread`]; nothing has changed.
pub fn define(owner: Option<DomainId>, domain: &Domain) -> Result<Found, Unread> {
    let mut given = FILE.lock();
    let blob = given.get(owner).map_err(Unread::File)?;
    let Some(system) = super::get() else {
        return Err(Unread::File(FileError::None));
    };
    let described = &system.described;
    let read = |now: &_| {
        let ground = Ground {
            machine: &system.machine,
            coprocs: &described.coprocs,
            pools: &described.pools,
            modules: &described.modules,
            place: Some(Place {
                config: now,
                vcpus: domain.vcpus.len() as u32,
            }),
        };
        file::read(blob, domain.id, &ground)
    };
    let found = lifecycle::define(domain, read, &described.running).map_err(Unread::Domain)?;
    if found.errors.is_empty() {
        given.end();
    }
    Ok(found)
}
