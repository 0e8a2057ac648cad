//! Who starts Baton, where it may lie in memory, and what it says if it can't use the machine.

use anyhow::{Context as _, Result, ensure};
use baton_tests::{LIMIT, Machine, PATIENCE, number};
use qemu_boot::scenario::Edit;
use qemu_boot::{Artifacts, Scenario};

use crate::sharing;

/// Offset of text_offset in the header of an arm64 Image.
const TEXT_OFFSET: std::ops::Range<usize> = 8..16;

/// The boot loader decides where Baton lies, at any 2 MiB boundary: here 32 MiB further on than where QEMU usually puts it.
#[test]
fn the_image_runs_wherever_it_is_loaded() -> Result<()> {
    let artifacts = Artifacts::get()?;
    let mut image = std::fs::read(&artifacts.hypervisor)?;
    image[TEXT_OFFSET].copy_from_slice(&(32u64 << 20).to_le_bytes());
    let moved = artifacts
        .workspace()
        .target("images")
        .join("baton-moved.img");
    std::fs::write(&moved, image)?;
    let mut scenario = sharing("moved", &["jobs=2", "jobs=2"]);
    // The last one counts.
    let path = moved.to_str().context("a path in UTF-8")?;
    scenario
        .qemu_args
        .extend(["-kernel".to_owned(), path.to_owned()]);
    let machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d1", "d2"] {
        let done = machine.done(name)?;
        assert_eq!(
            (number(&done, "jobs"), number(&done, "wrong")),
            (2, 0),
            "{done:?}"
        );
    }
    machine.finish()
}

/// A machine that Baton can't use isn't a silent one: the reason stands on the console that its tree names.
#[test]
fn an_unusable_machine_is_told_why() {
    let scenario = sharing("unusable", &["jobs=1"]).with_edit(Edit::string(
        "/timer",
        "compatible",
        "acme,sundial",
    ));
    let error = match Machine::boot(&scenario, LIMIT) {
        Ok(_) => panic!("Baton started without a timer"),
        Err(error) => format!("{error:#}"),
    };
    assert!(
        error.contains("fatal: /: no timer; expected a node compatible with"),
        "{error}"
    );
}

/// What the guide has a person type at U-Boot's prompt.
fn typed() -> Result<Vec<String>> {
    let guide = Artifacts::get()?.workspace().root();
    let guide = std::fs::read_to_string(guide.join("docs/guides/board.md"))?;
    let lines = guide
        .lines()
        .filter_map(|line| line.strip_prefix("    => "));
    let typed: Vec<String> = lines.map(str::to_owned).collect();
    ensure!(typed.len() > 10, "the guide has these lines: {typed:#?}");
    Ok(typed)
}

/// Debian's unmodified U-Boot, the machine's firmware, starts Baton as the guide says: it loads files from a disk, adds a coprocessor and a domain
/// to the machine's own tree as tools for Xen do, and knows nothing of Baton. It has found the PCI devices and placed their BARs. Debian's kernel
/// comes up on two vCPUs, and its program works with the device.
#[test]
fn u_boot_starts_it_with_a_tree_made_by_hand() -> Result<()> {
    let artifacts = Artifacts::get()?;
    let disk = [
        ("Image", artifacts.kernel.image.as_path()),
        ("workload.cpio", &artifacts.initramfs),
    ];
    for gic in [3, 2] {
        let mut scenario = Scenario::new(&format!("u-boot-gic{gic}"));
        scenario.gic = gic;
        scenario.memory_mib = 1024;
        scenario.edu_devices = 1;
        let mut commands = typed()?;
        if gic == 2 {
            // Where an image can't run: U-Boot moves it to the next 2 MiB boundary.
            for command in &mut commands {
                *command = command.replace("0x42000000", "0x42080000");
            }
        }
        let machine = Machine::boot_from_u_boot(&scenario, &disk, &commands, LIMIT)?;
        assert_eq!(machine.errors(), [""; 0]);
        let lines = machine.lines();
        let moved = |line: &String| line.starts_with("Moving Image from 0x42080000 to 0x42200000");
        assert_eq!(lines.iter().any(moved), gic == 2);
        let both = |line: &String| line.starts_with("[baton] Baton") && line.ends_with("2 CPUs");
        assert!(lines.iter().any(both), "{lines:?}");
        machine.wait_domain("d1", "its CPUs", PATIENCE, |line| {
            line.contains("smp: Brought up 1 node, 2 CPUs")
                .then_some(())
        })?;
        let done = machine.done("d1")?;
        let found = ["jobs", "wrong"].map(|key| number(&done, key));
        assert_eq!(found, [2, 0], "{done:?}");
        machine.finish()?;
    }
    Ok(())
}
