//! QEMU's command lines, in one place.
//!
//! Baton runs at EL2, on one of the known boards. `virt` boots without it, too: Linux (`native`), against which the demo proves that driver
//! and device are untouched, and a bare-metal guest (`bare`), whose answers a domain's are compared with. `firmware` starts a boot loader, which may boot Baton. The console
//! is QEMU's standard input and output; there is no monitor, network or display.

use std::ops::Deref;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::board::Board;
use crate::build::Artifacts;
use crate::command;
use crate::console::Console;
use crate::device_tree::Tree;
use crate::machine_tree::{self, Defaults, Module};
use crate::scenario::Scenario;
use crate::workspace::{Workspace, write_if_changed};

/// The emulator.
pub const PROGRAM: &str = "qemu-system-aarch64";

/// Without `dma_mask`, edu reaches no more than the lowest 256 MiB, where `virt` has no RAM.
const EDU: &str = "edu,dma_mask=0xffffffffff";

/// A running machine.
#[derive(Debug)]
pub struct Qemu {
    console: Console,
}

impl Deref for Qemu {
    type Target = Console;

    fn deref(&self) -> &Console {
        &self.console
    }
}

impl Qemu {
    /// Boots Baton with a scenario; `limit` is the longest the machine may run.
    ///
    /// # Errors
    /// If a file of the scenario is missing or QEMU can't be started.
    pub fn baton(artifacts: &Artifacts, scenario: &Scenario, limit: Duration) -> Result<Self> {
        let mut command = baton_command(artifacts, scenario)?;
        command
            .args(scenario.board.console("stdio"))
            .args(["-monitor", "none"]);
        Self::start(artifacts.workspace(), &scenario.name, command, limit)
    }

    /// Boots Debian's kernel directly, without Baton, with one `edu` and this command line.
    ///
    /// # Errors
    /// If QEMU can't be started.
    pub fn native(
        artifacts: &Artifacts,
        name: &str,
        bootargs: &str,
        limit: Duration,
    ) -> Result<Self> {
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "-M",
                "virt,gic-version=3",
                "-cpu",
                "cortex-a57",
                "-smp",
                "1",
                "-m",
                "512",
            ])
            .args(["-display", "none", "-nic", "none", "-no-reboot"])
            .args(["-serial", "stdio", "-monitor", "none"])
            .args(["-device", &format!("{EDU},addr=1")])
            .arg("-kernel")
            .arg(&artifacts.kernel.image)
            .arg("-initrd")
            .arg(&artifacts.initramfs)
            .args(["-append", bootargs]);
        Self::start(artifacts.workspace(), name, command, limit)
    }

    /// Boots a bare-metal guest directly, at EL1, with two CPUs, 64 MiB, a GIC of this version and this command line.
    ///
    /// # Errors
    /// If QEMU can't be started.
    pub fn bare(
        workspace: &Workspace,
        name: &str,
        kernel: &Path,
        gic: u32,
        bootargs: &str,
        limit: Duration,
    ) -> Result<Self> {
        let mut command = Command::new(PROGRAM);
        command
            .args(["-M", &format!("virt,gic-version={gic}")])
            .args(["-cpu", "cortex-a57", "-smp", "2", "-m", "64"])
            .args(["-display", "none", "-nic", "none", "-no-reboot"])
            .args(["-serial", "stdio", "-monitor", "none"])
            .arg("-kernel")
            .arg(kernel)
            .args(["-append", bootargs]);
        Self::start(workspace, name, command, limit)
    }

    /// Boots Debian's Xen, on the machine that Baton has: `tree` edits QEMU's own, and says what lies where in RAM.
    ///
    /// # Errors
    /// If `tree` fails or QEMU can't be started.
    pub fn xen(
        workspace: &Workspace,
        xen: &Path,
        scenario: &Scenario,
        tree: impl FnOnce(&mut Tree) -> Result<Vec<Module>>,
        limit: Duration,
    ) -> Result<Self> {
        let mut own = own_tree(&workspace.images()?, scenario)?;
        let modules = tree(&mut own)?;
        let mut command = boot_command(workspace, xen, scenario, &own, &modules)?;
        command.args(["-serial", "stdio", "-monitor", "none"]);
        Self::start(workspace, &scenario.name, command, limit)
    }

    /// Starts a boot loader as the machine's firmware, at EL2, with QEMU's own device tree and a disk with these files. Of the scenario
    /// only the machine counts; whatever boots is typed.
    ///
    /// # Errors
    /// If the disk's directory can't be made or QEMU can't be started.
    pub fn firmware(
        workspace: &Workspace,
        firmware: &Path,
        scenario: &Scenario,
        disk: &[(&str, &Path)],
        limit: Duration,
    ) -> Result<Self> {
        let files = workspace.images()?.join(format!("{}.disk", scenario.name));
        if files.exists() {
            std::fs::remove_dir_all(&files).context("removing the last disk")?;
        }
        std::fs::create_dir(&files).with_context(|| format!("making {}", files.display()))?;
        for (name, file) in disk {
            let file = file.canonicalize();
            let file = file.with_context(|| format!("{name} of the disk"))?;
            symlink(file, files.join(name)).with_context(|| format!("{name} of the disk"))?;
        }
        let files = files.display().to_string().replace(',', ",,");
        let mut command = machine(scenario, "")?;
        command.arg("-no-reboot").arg("-bios").arg(firmware);
        devices(&mut command, scenario);
        let drive = format!("if=none,id=disk,format=raw,readonly=on,file=fat:{files}");
        command
            .args(["-drive", &drive])
            .args(["-device", "virtio-blk-pci,drive=disk"])
            .args(["-serial", "stdio", "-monitor", "none"]);
        Self::start(workspace, &scenario.name, command, limit)
    }

    fn start(workspace: &Workspace, name: &str, command: Command, limit: Duration) -> Result<Self> {
        let console = Console::spawn(name, command, &workspace.logs()?, limit)?;
        Ok(Self { console })
    }
}

/// The command line for a scenario, but for where the console goes.
///
/// # Errors
/// If a file of the scenario is missing or the device tree can't be made.
pub fn baton_command(artifacts: &Artifacts, scenario: &Scenario) -> Result<Command> {
    let (tree, modules) = baton_tree(artifacts, scenario)?;
    boot_command(
        artifacts.workspace(),
        &artifacts.hypervisor,
        scenario,
        &tree,
        &modules,
    )
}

/// The device tree that Baton boots with in a scenario, and the files that lie in RAM.
///
/// # Errors
/// If a file of the scenario is missing or the device tree can't be made.
pub fn baton_tree(artifacts: &Artifacts, scenario: &Scenario) -> Result<(Tree, Vec<Module>)> {
    let images = artifacts.workspace().images()?;
    let mut tree = match scenario.board {
        Board::Virt => own_tree(&images, scenario)?,
        Board::Raspi4b => {
            let file = &artifacts.kernel.raspberry_pi;
            let blob =
                std::fs::read(file).with_context(|| format!("reading {}", file.display()))?;
            Tree::parse(&blob)?
        }
    };
    let defaults = Defaults {
        kernel: artifacts.kernel.image.clone(),
        ramdisk: artifacts.initramfs.clone(),
    };
    let modules = machine_tree::configure(&mut tree, scenario, &defaults)?;
    Ok((tree, modules))
}

/// The command line that boots a hypervisor with this tree and these files.
fn boot_command(
    workspace: &Workspace,
    hypervisor: &Path,
    scenario: &Scenario,
    tree: &Tree,
    modules: &[Module],
) -> Result<Command> {
    let images = workspace.images()?;
    let blob = images.join(format!("{}.dtb", scenario.name));
    write_if_changed(&blob, &tree.to_blob()?)?;

    let mut command = machine(scenario, "")?;
    command
        .arg("-no-reboot")
        .arg("-kernel")
        .arg(hypervisor)
        .arg("-dtb")
        .arg(&blob);
    for module in modules {
        let file = module.file.display().to_string().replace(',', ",,");
        let place = format!("loader,file={file},addr={:#x},force-raw=on", module.address);
        command.args(["-device", &place]);
    }
    devices(&mut command, scenario);
    Ok(command)
}

/// What the scenario's machine has besides.
fn devices(command: &mut Command, scenario: &Scenario) {
    for slot in 1..=scenario.edu_devices {
        command.args(["-device", &format!("{EDU},addr={slot:#x}")]);
    }
    command.args(&scenario.qemu_args);
}

fn machine(scenario: &Scenario, more: &str) -> Result<Command> {
    let mut command = Command::new(PROGRAM);
    command
        .args(scenario.board.arguments(scenario, more)?)
        .args(["-display", "none", "-nic", "none"]);
    Ok(command)
}

/// The tree that QEMU makes for this machine by itself.
fn own_tree(images: &Path, scenario: &Scenario) -> Result<Tree> {
    let dump = images.join(format!("{}.qemu.dtb", scenario.name));
    let mut command = machine(
        scenario,
        &format!(",dumpdtb={}", dump.display().to_string().replace(',', ",,")),
    )?;
    command::output(command.args(["-serial", "none", "-monitor", "none"]))
        .context("asking QEMU for its device tree")?;
    let blob = std::fs::read(&dump).with_context(|| format!("reading {}", dump.display()))?;
    Tree::parse(&blob)
}
