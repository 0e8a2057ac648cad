//! Compiling the hypervisor and the domains' programs, and making the images they boot from.
//!
//! Each has a target directory of its own: an integration test, which runs inside `cargo test`, can
//! then call cargo without waiting for a lock that its own parent may hold, and the host's builds
//! never throw away the target's. cargo decides what is out of date, so a repeated run takes a second.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow};

use crate::command;
use crate::image;
use crate::initramfs::Initramfs;
use crate::setup::kernel::Kernel;
use crate::setup::toolchain::{BARE, Toolchain};
use crate::setup::{self, Tools};
use crate::workspace::{Workspace, write_if_changed};

/// The demo's guest program.
pub const WORKLOAD: &str = "edu-workload";
/// The program that drives a firmware core.
pub const FIRMWARE_WORKLOAD: &str = "fw-workload";
/// The init that starts either or both.
const BOTH: &str = "workloads";
/// Firmwares, by the names that [`FIRMWARE_WORKLOAD`] loads them by; their binaries' names have `fw-` in front.
pub const FIRMWARES: [&str; 8] = [
    "checksum",
    "filter",
    "meter",
    "reluctant",
    "no-yield",
    "hung",
    "refuses",
    "hostile",
];

/// Everything that a run needs, as files.
#[derive(Clone, Debug)]
pub struct Artifacts {
    workspace: Workspace,
    /// Baton as an ELF file, with symbols.
    pub hypervisor_elf: PathBuf,
    /// Baton as a raw image for `-kernel`.
    pub hypervisor: PathBuf,
    /// The domains' kernel and modules.
    pub kernel: Kernel,
    /// The initial RAM file system whose `/init` is the demo's workload.
    pub initramfs: PathBuf,
    programs: PathBuf,
    firmware: PathBuf,
}

impl Artifacts {
    /// Sets up and builds once per process; safe to call from many tests at once.
    ///
    /// # Errors
    /// If setting up or building fails; every later call gives the same message.
    pub fn get() -> Result<&'static Self> {
        static ARTIFACTS: OnceLock<std::result::Result<Artifacts, String>> = OnceLock::new();
        ARTIFACTS
            .get_or_init(|| Self::prepare(&Workspace::here()).map_err(|error| format!("{error:#}")))
            .as_ref()
            .map_err(|error| anyhow!("{error}"))
    }

    /// Sets up and builds, one process at a time.
    ///
    /// # Errors
    /// If setting up or building fails.
    pub fn prepare(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let tools = setup::ensure(workspace)?;
        build(workspace, tools)
    }

    /// Sets up and builds only what a run without Baton needs.
    ///
    /// # Errors
    /// If setting up or building fails.
    pub fn prepare_native(workspace: &Workspace) -> Result<Self> {
        let _lock = workspace.lock()?;
        let tools = setup::ensure(workspace)?;
        build_guests(workspace, tools)
    }

    /// Where these were built.
    pub fn workspace(&self) -> &Workspace {
        &self.workspace
    }

    /// A program for the domains, by its binary's name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn program(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.programs.join(name);
        std::fs::read(&path).with_context(|| format!("no guest program at {}", path.display()))
    }

    /// An initial RAM file system with this program as `/init` and the kernel modules, not yet
    /// finished, for a test to add to.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn initramfs_with(&self, init: &str) -> Result<Initramfs> {
        base_initramfs(&self.kernel, &self.program(init)?)
    }

    /// The same with the drivers of PCI functions besides, and `lib/modules/drivers`, which lists them in the order in which they must be loaded.
    ///
    /// # Errors
    /// If there is no such program.
    pub fn initramfs_with_drivers(&self, init: &str) -> Result<Initramfs> {
        let mut archive = self.initramfs_with(init)?;
        add_modules(&mut archive, &self.kernel.drivers)?;
        let names = self.kernel.drivers.iter().map(|(name, _)| name.as_str());
        let list = names.collect::<Vec<_>>().join("\n");
        archive.file("lib/modules/drivers", 0o644, list.as_bytes())?;
        Ok(archive)
    }

    /// An initial RAM file system for domains with a firmware core: both workloads, of which the kernel command line chooses, and all
    /// firmwares, which are built first.
    ///
    /// # Errors
    /// If something can't be built or written.
    pub fn firmware_initramfs(&self) -> Result<PathBuf> {
        let mut archive = self.initramfs_with(BOTH)?;
        for name in [WORKLOAD, FIRMWARE_WORKLOAD] {
            archive.file(&format!("bin/{name}"), 0o755, &self.program(name)?)?;
        }
        for name in FIRMWARES {
            let path = self.firmware.join(format!("fw-{name}"));
            let elf = std::fs::read(&path)
                .with_context(|| format!("no firmware at {}", path.display()))?;
            let flat = image::firmware(&elf).with_context(|| path.display().to_string())?;
            archive.file(&format!("firmware/{name}.bin"), 0o644, &flat)?;
        }
        self.save_initramfs("firmware", archive)
    }

    /// The same with another Baton: built with these arguments for cargo, as `hypervisor-NAME`.
    ///
    /// # Errors
    /// If it can't be built.
    pub fn variant(&self, name: &str, arguments: &[&str]) -> Result<Self> {
        let _lock = self.workspace.lock()?;
        let tools = setup::ensure(&self.workspace)?;
        let name = format!("hypervisor-{name}");
        let (elf, raw) = hypervisor(&self.workspace, &tools, &name, arguments)?;
        Ok(Self {
            hypervisor_elf: elf,
            hypervisor: raw,
            ..self.clone()
        })
    }

    /// Writes an initial RAM file system to a file that scenarios can name.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn save_initramfs(&self, name: &str, archive: Initramfs) -> Result<PathBuf> {
        let path = self.workspace.images()?.join(format!("{name}.cpio"));
        write_if_changed(&path, &archive.finish()?)?;
        Ok(path)
    }
}

/// Builds Baton, with these arguments for cargo besides; gives the program and the image.
fn hypervisor(
    workspace: &Workspace,
    tools: &Tools,
    name: &str,
    arguments: &[&str],
) -> Result<(PathBuf, PathBuf)> {
    let mut cargo = tools.toolchain.cargo(workspace, "build", BARE);
    let dir = workspace.target(name);
    cargo
        .args([
            "--package",
            "hypervisor",
            "--bin",
            "baton",
            "--release",
            "--target-dir",
        ])
        .arg(&dir)
        .args(arguments);
    command::run(&mut cargo).with_context(|| format!("building {name}"))?;
    let elf = dir.join(BARE).join("release/baton");
    let bytes = std::fs::read(&elf).with_context(|| format!("reading {}", elf.display()))?;
    let flat = image::flatten(&bytes).with_context(|| elf.display().to_string())?;
    let raw = workspace.images()?.join(format!("{name}.img"));
    write_if_changed(&raw, &flat)?;
    Ok((elf, raw))
}

fn build(workspace: &Workspace, tools: Tools) -> Result<Artifacts> {
    let (elf, raw) = hypervisor(workspace, &tools, "hypervisor", &[])?;
    let firmware = firmwares(workspace, &tools.toolchain)?;
    let mut artifacts = build_guests(workspace, tools)?;
    artifacts.firmware = firmware;
    artifacts.hypervisor_elf = elf;
    artifacts.hypervisor = raw;
    Ok(artifacts)
}

fn build_guests(workspace: &Workspace, tools: Tools) -> Result<Artifacts> {
    let programs = guest_programs(workspace, &tools.toolchain, "baton-tools")?;
    let mut artifacts = Artifacts {
        workspace: workspace.clone(),
        hypervisor_elf: PathBuf::new(),
        hypervisor: PathBuf::new(),
        kernel: tools.kernel,
        initramfs: PathBuf::new(),
        programs,
        firmware: PathBuf::new(),
    };
    let archive = artifacts.initramfs_with(WORKLOAD)?;
    artifacts.initramfs = artifacts.save_initramfs("workload", archive)?;
    Ok(artifacts)
}

/// Builds the firmwares; gives the directory that holds them, as ELF files.
fn firmwares(workspace: &Workspace, toolchain: &Toolchain) -> Result<PathBuf> {
    let mut cargo = toolchain.cargo(workspace, "build", BARE);
    // The hypervisor's directory: the target and some dependencies are the same.
    let dir = workspace.target("hypervisor");
    cargo
        .args([
            "--package",
            "firmware",
            "--bins",
            "--release",
            "--target-dir",
        ])
        .arg(&dir);
    command::run(&mut cargo).context("building the firmwares")?;
    Ok(dir.join(BARE).join("release"))
}

/// Builds a package's programs for the domains, static; gives the directory that holds them.
fn guest_programs(workspace: &Workspace, toolchain: &Toolchain, package: &str) -> Result<PathBuf> {
    let target = toolchain.linux_target();
    let mut cargo = toolchain.cargo(workspace, "build", target);
    let dir = workspace.target("guest");
    cargo
        .args(["--package", package, "--bins", "--release", "--target-dir"])
        .arg(&dir);
    command::run(&mut cargo).with_context(|| format!("building {package}"))?;
    Ok(Path::new(&dir).join(target).join("release"))
}

fn base_initramfs(kernel: &Kernel, init: &[u8]) -> Result<Initramfs> {
    let mut archive = Initramfs::with_init(init)?;
    add_modules(&mut archive, &kernel.modules)?;
    Ok(archive)
}

fn add_modules(archive: &mut Initramfs, modules: &[(String, PathBuf)]) -> Result<()> {
    for (name, file) in modules {
        let module = std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
        archive.file(&format!("lib/modules/{name}.ko"), 0o644, &module)?;
    }
    Ok(())
}
