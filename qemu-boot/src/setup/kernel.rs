//! The domains' operating system: Debian's arm64 kernel, unmodified.
//!
//! It is fetched with apt, which checks Debian's signature, but from a package database of its own under the
//! target directory: the usual `dpkg --add-architecture arm64` would change how the user's machine
//! installs everything else, and would need root. Only the kernel image, some modules and the device tree of one board are
//! kept of its 60 MB.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use super::private_apt::{PrivateApt, dependency, entries, file_name};
use super::stamp::Stamp;
use super::{packages, say};
use crate::command;
use crate::workspace::Workspace;

/// Raised whenever what is fetched or how it is laid out changes: older results are fetched again.
const RECIPE: u32 = 4;
const METAPACKAGE: &str = "linux-image-arm64";
/// The Raspberry Pi 4's device tree, in the package's directory of device trees and here.
const RASPBERRY_PI: &str = "bcm2711-rpi-4-b.dtb";
const MODULES: [&str; 3] = ["uio", "uio_pci_generic", "sbsa_gwdt"];
/// Drivers of PCI functions that a domain has for itself; kept with what they need.
const DRIVERS: [&str; 3] = ["nvme", "virtio_pci", "virtio_blk"];

/// A kernel and the modules that demo and tests need.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The raw arm64 `Image`.
    pub image: PathBuf,
    /// Modules by name and file, in the order in which they must be loaded.
    pub modules: Vec<(String, PathBuf)>,
    /// Likewise the drivers of PCI functions, which only some tests need.
    pub drivers: Vec<(String, PathBuf)>,
    /// The device tree of the Raspberry Pi 4.
    pub raspberry_pi: PathBuf,
    /// The package and its version.
    pub version: String,
}

/// A kernel series that Debian ships, each with the suite that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Series {
    /// 6.1, Debian 12's.
    V6_1,
    /// 6.12, Debian 13's.
    V6_12,
}

impl Series {
    fn suite(self) -> &'static str {
        match self {
            Self::V6_1 => "bookworm",
            Self::V6_12 => "trixie",
        }
    }

    /// What versions of it begin with.
    pub fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1.",
            Self::V6_12 => "6.12.",
        }
    }
}

impl Kernel {
    /// Finds the kernel or fetches it.
    ///
    /// # Errors
    /// If it can't be fetched or isn't what was expected.
    pub fn ensure(workspace: &Workspace) -> Result<Self> {
        Self::from_suite(workspace, None)
    }

    /// The same for a kernel of this series, one process at a time.
    ///
    /// # Errors
    /// If it can't be fetched or isn't what was expected.
    pub fn of(workspace: &Workspace, series: Series) -> Result<Self> {
        let _lock = workspace.lock()?;
        let suite = series.suite();
        let own = PrivateApt::default_suite()?;
        let kernel = Self::from_suite(workspace, (suite != own).then_some(suite))?;
        let start = format!("linux-image-{}", series.version());
        ensure!(
            kernel.version.starts_with(&start),
            "{suite} was expected to have a kernel {}, not {}",
            series.version(),
            kernel.version
        );
        Ok(kernel)
    }

    /// `None` stands for the machine's own release.
    fn from_suite(workspace: &Workspace, suite: Option<&str>) -> Result<Self> {
        let suffix = suite.map(|suite| format!("-{suite}")).unwrap_or_default();
        let dir = workspace.target(&format!("setup/debian-arm64{suffix}"));
        if let Some(stamp) = Stamp::read(&dir, RECIPE, None) {
            return Ok(Self::at(&dir, &stamp));
        }
        if !command::exists("apt-get") || !command::exists("dpkg-deb") {
            bail!(
                "fetching Debian's arm64 kernel takes apt-get and dpkg-deb, which this machine doesn't have"
            );
        }
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
        let scratch = workspace.target("setup/scratch");
        let stamp = fetch(&dir, &scratch, suite).context("fetching Debian's arm64 kernel")?;
        std::fs::remove_dir_all(&scratch).context("removing the scratch directory")?;
        say(&format!("the domains' kernel is {}", stamp.version));
        Ok(Self::at(&dir, &stamp))
    }

    fn at(dir: &Path, stamp: &Stamp) -> Self {
        let names = stamp.names().filter_map(|name| name.strip_suffix(".ko"));
        let files = names.map(|name| (name.to_owned(), dir.join(format!("{name}.ko"))));
        let (modules, drivers) = files.partition(|(name, _)| MODULES.contains(&name.as_str()));
        Self {
            image: dir.join("Image"),
            modules,
            drivers,
            raspberry_pi: dir.join(RASPBERRY_PI),
            version: stamp.version.clone(),
        }
    }
}

fn fetch(dir: &Path, scratch: &Path, suite: Option<&str>) -> Result<Stamp> {
    let apt = PrivateApt::new(scratch, suite)?;
    say("asking Debian for its arm64 kernel (about 70 MB, once)");
    apt.get("apt-get", &["update", "-q"])?;
    let depends = apt.depends(METAPACKAGE)?;
    let package = dependency(&depends, "linux-image-")
        .with_context(|| format!("{METAPACKAGE} depends on no kernel:\n{depends}"))?;
    let (tree, version) = apt.unpack(&package)?;

    let image = entries(&tree.join("boot"))?
        .into_iter()
        .find(|path| file_name(path).starts_with("vmlinuz-"))
        .context("the package holds no /boot/vmlinuz-*")?;
    let bytes = raw_image(&image)?;
    std::fs::write(dir.join("Image"), bytes).context("writing the kernel")?;
    let trees = entries(&tree.join("usr/lib"))?
        .into_iter()
        .find(|path| file_name(path).starts_with("linux-image-"))
        .context("the package holds no device trees")?;
    std::fs::copy(
        trees.join("broadcom").join(RASPBERRY_PI),
        dir.join(RASPBERRY_PI),
    )
    .context("copying the Raspberry Pi's device tree")?;
    let mut names = vec!["Image".to_owned(), RASPBERRY_PI.to_owned()];
    for module in MODULES.into_iter().chain(DRIVERS) {
        add_module(dir, &tree, module, &mut names)?;
    }
    Stamp::write(dir, RECIPE, &version, &names)
}

/// Keeps a module after those that it needs, each once.
fn add_module(dir: &Path, tree: &Path, module: &str, names: &mut Vec<String>) -> Result<()> {
    let name = format!("{module}.ko");
    if names.contains(&name) {
        return Ok(());
    }
    let Some(file) = find_below_modules(tree, |file| is_module(file, module))? else {
        ensure!(
            is_built_in(tree, module)?,
            "the kernel has no module {module}"
        );
        return Ok(());
    };
    let bytes = plain(&file)?;
    for needed in depends(&bytes) {
        add_module(dir, tree, &needed, names)?;
    }
    std::fs::write(dir.join(&name), bytes).context("writing a module")?;
    names.push(name);
    Ok(())
}

/// The modules that a module says it needs, in its section `.modinfo`: `depends=`, names with commas between, a zero.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[start + KEY.len()..].split(|byte| *byte == 0).next();
    let value = String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    let names = value.split(',').filter(|name| !name.is_empty());
    names.map(str::to_owned).collect()
}

/// Newer Debian compresses modules.
fn is_module(file: &str, module: &str) -> bool {
    file.split('.').next() == Some(module) && file.contains(".ko")
}

/// Whether the kernel needs no module for it: `modules.builtin` has a path for each that could be one.
fn is_built_in(tree: &Path, module: &str) -> Result<bool> {
    let Some(list) = find_below_modules(tree, |file| file == "modules.builtin")? else {
        return Ok(false);
    };
    let list = std::fs::read_to_string(list).context("reading modules.builtin")?;
    let file = format!("/{module}.ko");
    Ok(list.lines().any(|path| path.ends_with(&file)))
}

/// Newer Debian keeps modules below `/usr`.
fn find_below_modules(tree: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let mut pending = vec![tree.join("lib/modules"), tree.join("usr/lib/modules")];
    while let Some(dir) = pending.pop() {
        if !dir.is_dir() {
            continue;
        }
        for path in entries(&dir)? {
            if path.is_dir() && !path.is_symlink() {
                pending.push(path);
            } else if wanted(&file_name(&path)) {
                return Ok(Some(path));
            }
        }
    }
    Ok(None)
}

/// A file's content, decompressed by its extension.
fn plain(file: &Path) -> Result<Vec<u8>> {
    match file.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => {
            packages::ensure(&[packages::Need::Xz])?;
            command::output_bytes(Command::new("xz").arg("-dc").arg(file))
        }
        Some("gz") => command::output_bytes(Command::new("gzip").arg("-dc").arg(file)),
        Some("zst") => command::output_bytes(Command::new("zstd").arg("-dc").arg(file)),
        _ => std::fs::read(file).with_context(|| format!("reading {}", file.display())),
    }
}

/// The flat arm64 image that the boot protocol asks for (Linux,
/// Documentation/arch/arm64/booting.rst): magic `ARM\x64` at byte 56.
fn raw_image(file: &Path) -> Result<Vec<u8>> {
    let mut bytes = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
    if bytes.starts_with(&[0x1f, 0x8b]) {
        bytes =
            command::output_bytes(Command::new("gzip").arg("-dc").arg(file).env_remove("GZIP"))?;
    }
    ensure!(
        bytes.get(56..60) == Some(b"ARM\x64".as_slice()),
        "{} is neither an arm64 Image nor a compressed one",
        file.display()
    );
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metapackage_names_the_kernel() {
        let text = "linux-image-arm64\n  Depends: linux-image-6.1.0-50-arm64\n  Suggests: x\n";
        assert_eq!(
            dependency(text, "linux-image-").unwrap(),
            "linux-image-6.1.0-50-arm64"
        );
        let none = "linux-image-arm64\n  Suggests: linux-image-x\n";
        assert_eq!(dependency(none, "linux-image-"), None);
    }

    #[test]
    fn a_module_says_what_it_needs() {
        let module = |depends: &str| format!("\u{7f}ELF\0license=GPL\0{depends}intree=Y\0");
        assert_eq!(depends(module("depends=\0").as_bytes()), [""; 0]);
        let two = module("depends=crc-t10dif,crc64\0");
        assert_eq!(depends(two.as_bytes()), ["crc-t10dif", "crc64"]);
        assert_eq!(depends(b"no module"), [""; 0]);
        assert_eq!(depends(b"\0depends=cut"), ["cut"]);
    }

    #[test]
    fn a_driver_is_a_file_with_what_it_needs_or_built_in() {
        let base = std::env::temp_dir().join(format!("baton-modules-{}", std::process::id()));
        let (tree, dir) = (base.join("tree"), base.join("kept"));
        let modules = tree.join("usr/lib/modules/6.12/kernel");
        for path in [&modules, &dir] {
            std::fs::create_dir_all(path).unwrap();
        }
        let builtin = tree.join("usr/lib/modules/6.12/modules.builtin");
        std::fs::write(builtin, "kernel/drivers/virtio/virtio_pci.ko\n").unwrap();
        std::fs::write(modules.join("nvme.ko"), b"\0depends=nvme-core\0").unwrap();
        std::fs::write(modules.join("nvme-core.ko"), b"\0depends=\0").unwrap();
        let mut names = vec![];
        for module in ["nvme", "virtio_pci", "nvme-core"] {
            add_module(&dir, &tree, module, &mut names).unwrap();
        }
        assert_eq!(names, ["nvme-core.ko", "nvme.ko"]);
        assert!(names.iter().all(|name| dir.join(name).is_file()));
        assert!(add_module(&dir, &tree, "virtio", &mut names).is_err());
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn images_are_recognised_plain_and_compressed() {
        let dir = std::env::temp_dir().join(format!("baton-image-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut image = vec![0u8; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        let file = dir.join("vmlinuz");
        std::fs::write(&file, &image).unwrap();
        assert_eq!(raw_image(&file).unwrap(), image);
        command::run(Command::new("gzip").arg("-k").arg(&file)).unwrap();
        assert_eq!(raw_image(&dir.join("vmlinuz.gz")).unwrap(), image);
        assert_eq!(plain(&dir.join("vmlinuz.gz")).unwrap(), image);
        std::fs::write(&file, b"MZ").unwrap();
        assert!(raw_image(&file).is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
