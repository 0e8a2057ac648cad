//! Baton started by U-Boot, as on a board: nothing is prepared but files on a disk, and all is typed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use qemu_boot::demo::ENTER;
use qemu_boot::setup::firmware::Firmware;
use qemu_boot::{Artifacts, Qemu, Scenario};

use crate::{Machine, turn};

/// U-Boot's prompt.
const PROMPT: &str = "=> ";
/// Longest wait for U-Boot, which takes less than a second for anything on an idle host.
const SOON: Duration = Duration::from_secs(60);

impl Machine {
    /// Starts Debian's U-Boot on the scenario's machine, types `commands`, the last of which starts Baton, and waits until Baton takes
    /// commands. The disk has `baton.img` and these files.
    ///
    /// # Errors
    /// If something can't be built, or U-Boot or Baton don't start.
    pub fn boot_from_u_boot(
        scenario: &Scenario,
        disk: &[(&str, &Path)],
        commands: &[String],
        limit: Duration,
    ) -> Result<Self> {
        let artifacts = Artifacts::get()?;
        let workspace = artifacts.workspace();
        let firmware = Firmware::ensure(workspace)?;
        let mut disk = disk.to_vec();
        disk.push(("baton.img", &artifacts.hypervisor));
        let turn = turn(&workspace.target("boots.lock"))?;
        let qemu = Qemu::firmware(workspace, &firmware.u_boot, scenario, &disk, limit)?;
        let machine = Self::new(qemu, turn);
        let mark = machine.mark();
        machine.wait_for_prompt(mark, "Hit any key", SOON)?;
        machine.send(ENTER)?;
        for command in commands {
            machine.wait_for_prompt(machine.mark(), PROMPT, SOON)?;
            let mark = machine.mark();
            machine.send(&format!("{command}{ENTER}"))?;
            // Its echo is a prompt that has been answered.
            machine.wait_for_after(mark, &format!("{PROMPT}{command}"), SOON)?;
        }
        machine
            .wait_for("Starting kernel ...", SOON)
            .context("U-Boot doesn't start Baton")?;
        machine.wait_for_commands()?;
        Ok(machine)
    }
}
