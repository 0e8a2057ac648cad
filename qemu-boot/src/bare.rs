//! The suite's bare-metal guests (`tests/guests`), as kernel images.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::command;
use crate::image;
use crate::setup;
use crate::setup::toolchain::BARE;
use crate::workspace::{Workspace, write_if_changed};

/// Builds a bare-metal guest, by package; gives its image.
///
/// # Errors
/// If it can't be built.
pub fn guest(workspace: &Workspace, package: &str) -> Result<PathBuf> {
    let _lock = workspace.lock()?;
    let tools = setup::ensure(workspace)?;
    let mut cargo = tools.toolchain.cargo(workspace, "build", BARE);
    // The hypervisor's directory, whose dependencies are the same.
    let dir = workspace.target("hypervisor");
    cargo
        .args(["--package", package, "--bin", package, "--release"])
        .arg("--target-dir")
        .arg(&dir);
    command::run(&mut cargo).with_context(|| format!("building {package}"))?;
    let elf = dir.join(BARE).join("release").join(package);
    let bytes = std::fs::read(&elf).with_context(|| format!("reading {}", elf.display()))?;
    let flat = image::flatten(&bytes).with_context(|| elf.display().to_string())?;
    let raw = workspace.images()?.join(format!("{package}.img"));
    write_if_changed(&raw, &flat)?;
    Ok(raw)
}
