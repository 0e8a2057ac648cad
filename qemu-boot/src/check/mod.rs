//! What Baton would say about a device tree, told without booting.
//!
//! No second reading of the configuration: the tree goes through the code that reads it at boot, and what boot then does with domains, pools and
//! coprocs is done by the same code in the same order (`plan`). What only hardware can answer (does a device answer, does a CPU
//! come) is taken for granted and listed, so that nobody takes silence for a yes.

pub mod features;
pub mod findings;
mod plan;
mod ram;
pub mod source;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use control_plane::config::Configuration;
use control_plane::config::domains::file::{self, Ground, Place};
use control_plane::config::machine::Machine;
use control_plane::devicetree::{Error, Tree};
use control_plane::image::Header;
use control_plane::startup::Voice as _;
use coproc_core::id::DomainId;

use crate::workspace::Workspace;

pub use features::Features;
pub use findings::Findings;

/// A file that the boot loader is to put at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The address.
    pub address: u64,
    /// The file's name, for messages.
    pub file: PathBuf,
    /// What is in it.
    pub bytes: Vec<u8>,
}

impl Image {
    /// Reads the file of `ADDRESS=FILE`; the address may be hexadecimal, as `0x…`.
    ///
    /// # Errors
    /// If it is neither, or the file can't be read.
    pub fn read(text: &str) -> Result<Self> {
        let (address, file) = text
            .split_once('=')
            .with_context(|| format!("--image {text}: expected ADDRESS=FILE"))?;
        let address = source::number(address)
            .with_context(|| format!("--image {text}: expected ADDRESS=FILE"))?;
        let file = PathBuf::from(file);
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        Ok(Self {
            address,
            file,
            bytes,
        })
    }
}

/// Bytes that Baton has in memory from the start on: those of the image that was built last, or, if none was, more than there were in any.
pub fn size_of_baton(workspace: &Workspace) -> u64 {
    const MOST: u64 = 8 << 20;
    std::fs::read(workspace.target("images/hypervisor.img"))
        .ok()
        .and_then(|image| Header::read(&image).ok())
        .map_or(MOST, |header| header.size)
}

/// What is checked besides the tree itself.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is compiled in.
    pub features: Features,
    /// Files whose contents are looked at.
    pub images: Vec<Image>,
    /// A domain that is to be defined when all runs, and the file for it.
    pub define: Option<(DomainId, Vec<u8>)>,
    /// Bytes of Baton's image and all that it has in memory from the start on.
    pub baton: u64,
}

/// Says all that Baton would say about this tree, and what it would do.
///
/// # Errors
/// If the blob is no device tree.
pub fn check(blob: &[u8], options: &Options) -> std::result::Result<Findings, Error> {
    let tree = Tree::new(blob)?;
    let mut findings = Findings::default();
    let machine = match Machine::from_tree(&tree) {
        Ok(machine) => machine,
        Err(error) => {
            findings.fatal(&error);
            return Ok(findings);
        }
    };
    findings.machine = Some(findings::Machine::of(&machine));
    let configuration = options
        .features
        .known(|known| Configuration::from_tree(&tree, &machine, known));
    plan::run(
        &machine,
        &configuration,
        options,
        blob.len() as u64,
        &mut findings,
    );
    if let Some((id, blob)) = &options.define {
        define(*id, blob, &machine, &configuration, &mut findings);
    }
    Ok(findings)
}

/// What `domain define` would say of a file.
fn define(
    id: DomainId,
    blob: &[u8],
    machine: &Machine,
    configuration: &Configuration,
    findings: &mut Findings,
) {
    let modules: Vec<_> = configuration.module_regions().collect();
    let mut domains = configuration.domains.iter().flatten();
    let config = domains.find(|domain| domain.id == id);
    let ground = Ground {
        machine,
        coprocs: &configuration.coprocs,
        pools: &configuration.pools,
        modules: &modules,
        place: config.map(|config| Place {
            config,
            vcpus: config.cpus,
        }),
    };
    let found = file::read(blob, id, &ground);
    for error in &found.errors {
        findings.error(error);
    }
    for warning in found.warnings {
        findings.warning(warning.path(), format_args!("{warning}"));
    }
    let what = "that its pool, the coprocs and the memory have what it asks for";
    findings.unchecked(format!("{id}, from its file: {what}"));
}

/// The domain and the file of `dN=FILE`.
///
/// # Errors
/// If it is neither, or as for [`source::read`].
pub fn definition(text: &str) -> Result<(DomainId, Vec<u8>)> {
    let wrong = || format!("--define {text}: expected dN=FILE");
    let (domain, file) = text.split_once('=').with_context(wrong)?;
    let number = domain.strip_prefix('d').with_context(wrong)?;
    let id = number.parse().with_context(wrong)?;
    Ok((DomainId(id), source::read(file.as_ref())?))
}
