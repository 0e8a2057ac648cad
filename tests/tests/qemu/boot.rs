//! Where Baton may lie in memory, and what it says if it can't use the machine.

use anyhow::{Context as _, Result};
use baton_tests::{LIMIT, Machine, number};
use qemu_boot::Artifacts;
use qemu_boot::scenario::Edit;

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
