//! Debian's Xen, the hypervisor that the bench measures Baton against.
//!
//! Fetched only by the bench, like the kernel without being installed; the release's own version, whichever that is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::private_apt::{PrivateApt, dependency};
use super::say;
use crate::workspace::Workspace;

/// Depends on the release's hypervisor among others.
const METAPACKAGE: &str = "xen-system-arm64";

/// A Xen that can be booted.
#[derive(Clone, Debug)]
pub struct Xen {
    /// Its image, which follows the arm64 boot protocol.
    pub image: PathBuf,
    /// The package and its version.
    pub version: String,
}

impl Xen {
    /// Finds it or fetches it, one process at a time.
    ///
    /// # Errors
    /// If it can't be fetched.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let dir = workspace.target("setup/debian-xen");
        let (image, version) = (dir.join("xen"), dir.join("version"));
        if !image.is_file() || !version.is_file() {
            let scratch = workspace.target("setup/scratch-xen");
            fetch(&dir, &scratch).context("fetching Debian's Xen")?;
            std::fs::remove_dir_all(&scratch).context("removing the scratch directory")?;
        }
        let version = std::fs::read_to_string(version).context("reading Xen's version")?;
        Ok(Self { image, version })
    }
}

fn fetch(dir: &Path, scratch: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let apt = PrivateApt::new(scratch, None)?;
    say("asking Debian for Xen, to measure against (less than 1 MB, once)");
    apt.get("apt-get", &["update", "-q"])?;
    let depends = apt.depends(METAPACKAGE)?;
    let package = dependency(&depends, "xen-hypervisor-4")
        .with_context(|| format!("{METAPACKAGE} depends on no hypervisor:\n{depends}"))?;
    let (tree, version) = apt.unpack(&package)?;
    let file = package.replace("xen-hypervisor-", "xen-");
    let part = dir.join("xen.part");
    std::fs::copy(tree.join("boot").join(&file), &part)
        .with_context(|| format!("{package} has no /boot/{file}"))?;
    std::fs::write(dir.join("version"), version).context("keeping Xen's version")?;
    // Last, so that what is there is whole.
    std::fs::rename(&part, dir.join("xen")).context("keeping Xen")
}
