//! Making everything exist that a build or a run needs, without asking.
//!
//! The promise is that a clone plus one command is enough. So each thing is looked for first, which takes
//! milliseconds; what is missing is fetched with the reason printed; and only installing packages on
//! the machine needs root. A user without root is shown the one command to run.
//! The domains' kernel is *not* installed: it is fetched through a private package database under
//! the target directory ([`kernel`]), so the user's own package system never hears of a foreign architecture.

pub mod apt;
pub mod firmware;
pub mod kernel;
pub mod packages;
mod private_apt;
mod stamp;
pub mod stress;
pub mod toolchain;
pub mod xen;

use anyhow::Result;

use crate::workspace::Workspace;
use kernel::Kernel;
use toolchain::Toolchain;

/// What setting up has found or made.
#[derive(Clone, Debug)]
pub struct Tools {
    /// How to compile for the hypervisor and the domains.
    pub toolchain: Toolchain,
    /// The domains' kernel and modules.
    pub kernel: Kernel,
}

/// Sets up what is missing. The caller holds [`Workspace::lock`].
///
/// # Errors
/// If something is missing and can't be fetched, or needs root; the message says what to do.
pub fn ensure(workspace: &Workspace) -> Result<Tools> {
    packages::ensure(&[packages::Need::Qemu])?;
    let toolchain = Toolchain::ensure(workspace)?;
    let kernel = Kernel::ensure(workspace)?;
    Ok(Tools { toolchain, kernel })
}

/// A line about what is being done, on the error stream like cargo's own.
pub(crate) fn say(text: &str) {
    eprintln!("setup: {text}");
}
