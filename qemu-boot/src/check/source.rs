//! Where the tree comes from: a blob, or a source that `dtc` compiles.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, anyhow};
use control_plane::devicetree;

use crate::command;
use crate::device_tree::{Node, Tree};
use crate::setup::packages::{self, Need};

/// The blob in this file; a `.dts` is compiled first.
///
/// # Errors
/// If the file can't be read, or is a source with a mistake: then with what `dtc` says.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    if file.extension().is_some_and(|extension| extension == "dts") {
        // Before the compiler is fetched.
        std::fs::metadata(file).with_context(|| format!("reading {}", file.display()))?;
        packages::ensure(&[Need::DeviceTreeCompiler])?;
        let mut dtc = Command::new("dtc");
        dtc.args(["-q", "-I", "dts", "-O", "dtb"]).arg(file);
        return command::output_bytes(&mut dtc);
    }
    std::fs::read(file).with_context(|| format!("reading {}", file.display()))
}

/// RAM that the boot loader tells of: address, and MiB.
///
/// # Errors
/// If the text isn't `ADDRESS=MIB`.
pub fn bank(text: &str) -> Result<(u64, u64)> {
    let wrong = || format!("--memory {text}: expected ADDRESS=MIB");
    let (address, size) = text.split_once('=').with_context(wrong)?;
    let size: u64 = size.parse().with_context(wrong)?;
    let bytes = size.checked_mul(1 << 20).with_context(wrong)?;
    Ok((number(address).with_context(wrong)?, bytes))
}

/// A number, hexadecimal as `0x…`.
pub fn number(text: &str) -> std::result::Result<u64, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    }
}

/// The tree with these banks of RAM in place of its own, as a boot loader completes one that leaves them open.
///
/// # Errors
/// If the blob is no device tree.
pub fn with_memory(blob: Vec<u8>, banks: &[(u64, u64)]) -> Result<Vec<u8>> {
    if banks.is_empty() {
        return Ok(blob);
    }
    devicetree::Tree::new(&blob).map_err(|error| anyhow!("{error}"))?;
    let mut tree = Tree::parse(&blob)?;
    let cells = |name: &str, default: u32| {
        let value = tree.root.get(name).and_then(|value| value.try_into().ok());
        value.map_or(default, u32::from_be_bytes) as usize
    };
    let cells = [cells("#address-cells", 2), cells("#size-cells", 1)];
    let memory = |node: &Node| node.get("device_type") == Some(b"memory\0");
    tree.root.children.retain(|node| !memory(node));
    for (address, size) in banks {
        let mut reg = Vec::new();
        for (value, cells) in [*address, *size].into_iter().zip(cells) {
            let bytes = u128::from(value).to_be_bytes();
            let first = bytes.len().saturating_sub(cells * 4);
            reg.extend(bytes.iter().skip(first));
        }
        let mut node = Node::new(format!("memory@{address:x}"));
        node.set_strings("device_type", &["memory"]).set("reg", reg);
        tree.root.children.push(node);
    }
    tree.to_blob()
}
