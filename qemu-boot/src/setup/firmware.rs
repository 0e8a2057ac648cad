//! Debian's firmware for QEMU `virt`: U-Boot and UEFI, unmodified, as images for domains.
//!
//! Fetched only when somebody asks for it, which tests do; the demo needs none.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::private_apt::PrivateApt;
use super::say;
use crate::workspace::Workspace;

/// Package, file in it, and the name under which the file is kept.
const FILES: [(&str, &str, &str); 2] = [
    (
        "u-boot-qemu",
        "usr/lib/u-boot/qemu_arm64/u-boot.bin",
        "u-boot.bin",
    ),
    (
        "qemu-efi-aarch64",
        "usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
        "QEMU_EFI.fd",
    ),
];

/// Firmware images.
#[derive(Clone, Debug)]
pub struct Firmware {
    /// U-Boot for QEMU's arm64 board.
    pub u_boot: PathBuf,
    /// EDK2's ArmVirtQemu.
    pub uefi: PathBuf,
}

impl Firmware {
    /// Finds the images or fetches them, one process at a time.
    ///
    /// # Errors
    /// If they can't be fetched.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let dir = workspace.target("setup/debian-firmware");
        let firmware = Self {
            u_boot: dir.join(FILES[0].2),
            uefi: dir.join(FILES[1].2),
        };
        if !firmware.u_boot.is_file() || !firmware.uefi.is_file() {
            let scratch = workspace.target("setup/scratch-firmware");
            fetch(&dir, &scratch).context("fetching Debian's firmware for QEMU")?;
            std::fs::remove_dir_all(&scratch).context("removing the scratch directory")?;
        }
        Ok(firmware)
    }
}

fn fetch(dir: &Path, scratch: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let apt = PrivateApt::new(scratch, None)?;
    say("asking Debian for U-Boot and UEFI (about 5 MB, once)");
    apt.get("apt-get", &["update", "-q"])?;
    for (package, file, name) in FILES {
        let (tree, _) = apt.unpack(package)?;
        // Last, so that what is there is whole.
        let part = dir.join(format!("{name}.part"));
        std::fs::copy(tree.join(file), &part)
            .with_context(|| format!("{package} has no {file}"))?;
        std::fs::rename(&part, dir.join(name)).context("keeping the firmware")?;
    }
    Ok(())
}
