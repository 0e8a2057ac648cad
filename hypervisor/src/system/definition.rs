//! A domain's configuration from a file, when Baton runs.
//!
//! Read where it was asked for, in one go: the file is small for that reason. Until all of it was found right, what was in force is.

use super::domain::Domain;
use super::lifecycle::{self, Refused};
use super::passthrough::Given;
use super::{System, load};
use crate::arch;
use alloc::vec::Vec;
use coproc_core::id::DomainId;
use hypervisor::config::domains::file::{self, Found, Ground, Place};
use hypervisor::config::{CoprocConfig, DomainConfig, PoolConfig};
use hypervisor::console::file::{File, FileError};
use hypervisor::devicetree::Region;
use spin::Mutex;

/// The file, as far as it has come. Commands are carried out one at a time, so nobody waits for it.
static FILE: Mutex<File> = Mutex::new(File::new());

/// Bytes of EL2's heap that must be left for a file to be read: more than all mistakes in it, or a place, can take.
const HEAP: usize = 1 << 20;

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
    /// There is no place for one more.
    NoPlace,
}

/// Has a domain built from what `owner`'s file says of it, from now on; then the file is gone. One that wasn't known gets a place. If there is a mistake, it's in
/// what was found, and nothing has changed.
///
/// # Errors
/// [`Unread`]; nothing has changed.
pub fn define(owner: Option<DomainId>, id: DomainId) -> Result<Found, Unread> {
    let mut given = FILE.lock();
    let blob = given.get(owner).map_err(Unread::File)?;
    let (used, all) = arch::heap::heap_use();
    if all.saturating_sub(used) < HEAP {
        return Err(Unread::File(FileError::NoMemory));
    }
    let Some(system) = super::get() else {
        return Err(Unread::NoPlace);
    };
    let mut domains = system.domains.all();
    let found = match domains.find(|domain| domain.id == id) {
        Some(domain) => change(system, domain, blob).map_err(Unread::Domain)?,
        None => add(system, id, blob)?,
    };
    if found.errors.is_empty() {
        given.end();
    }
    Ok(found)
}

fn ground<'a>(system: &'a System, place: Option<Place<'a>>) -> Ground<'a> {
    let described = &system.described;
    Ground {
        machine: &system.machine,
        coprocs: &described.coprocs,
        pools: &described.pools,
        modules: &described.modules,
        place,
    }
}

#[cold]
fn change(system: &System, domain: &Domain, blob: &[u8]) -> Result<Found, Refused> {
    let vcpus = domain.vcpus.len() as u32;
    let read = |config: &_| {
        let place = Place { config, vcpus };
        file::read(blob, domain.id, &ground(system, Some(place)))
    };
    lifecycle::define(domain, read, &system.described.running)
}

/// A place can't be given back, so it is made last.
#[cold]
fn add(system: &'static System, id: DomainId, blob: &[u8]) -> Result<Found, Unread> {
    if system.domains.room() == 0 {
        return Err(Unread::NoPlace);
    }
    let mut found = file::read(blob, id, &ground(system, None));
    let Some(config) = found.domain.take() else {
        return Ok(found);
    };
    let given = Given::default();
    match load::place(&config, &system.described.running, given) {
        Ok(domain) => {
            if let Some((position, domain)) = system.domains.add(domain) {
                load::introduce(position, domain);
            }
            tell(&config);
        }
        Err(error) => found.errors.push(error),
    }
    Ok(found)
}

/// Says what is in force now.
pub fn tell(config: &DomainConfig) {
    log::info!("{}: a file's {} is in force", config.id, config.path);
}
