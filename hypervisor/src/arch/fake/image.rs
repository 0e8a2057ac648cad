//! The image as the linker script lays it out: addresses of its parts, and memory for what is read and written there by address.

use std::vec::Vec;

core::arch::global_asm!(
    ".pushsection .baton_image, \"aw\", %nobits",
    ".balign 4096",
    ".global _image_start, _text_end, _rodata_end, _stacks_start, _image_end",
    ".global boot_l0, boot_tree_l1, boot_tree_l2, secondary_entry, baton_fake_pool",
    "_image_start:",
    "secondary_entry: .skip 0x10000",
    "_text_end: .skip 0x8000",
    "_rodata_end: .skip 0x8000",
    "boot_l0: .skip 4096",
    "boot_tree_l1: .skip 4096",
    "boot_tree_l2: .skip 4096",
    "baton_fake_pool: .skip 96 * 4096",
    "_stacks_start: .skip 16 * 0x9000",
    "_image_end: .skip 4096",
    ".popsection",
);

unsafe extern "C" {
    static _image_start: u8;
    static _image_end: u8;
    static _stacks_start: u8;
    static boot_l0: u8;
    static baton_fake_pool: u8;
    static secondary_entry: u8;
}

/// Where the pool of EL2's tables is.
pub fn pool() -> usize {
    (&raw const baton_fake_pool) as usize
}

fn start() -> usize {
    (&raw const _image_start) as usize
}

/// Bytes.
pub fn size() -> u64 {
    ((&raw const _image_end) as usize - start()) as u64
}

/// Offset of the first tables that EL2 has.
pub fn boot_tables() -> u64 {
    ((&raw const boot_l0) as usize - start()) as u64
}

/// Offset of the first instruction of CPUs that are started later.
pub fn secondary() -> u64 {
    ((&raw const secondary_entry) as usize - start()) as u64
}

/// Whether EL2's tables are there.
pub fn is_table(address: usize) -> bool {
    (pool()..pool() + 96 * 4096).contains(&address)
}

/// What the parts of the image may be used for: address, writable, executable. Nothing is where a stack ends.
pub fn parts() -> Vec<(usize, Option<(bool, bool)>)> {
    let address = |offset: u64| start() + offset as usize;
    let stacks = (&raw const _stacks_start) as usize;
    (0..size())
        .step_by(4096)
        .map(|offset| {
            let at = address(offset);
            let how = match offset {
                0..0x1_0000 => Some((false, true)),
                0x1_0000..0x1_8000 => Some((false, false)),
                _ if at >= stacks && (at - stacks).is_multiple_of(0x9000) => None,
                _ => Some((true, false)),
            };
            (at, how)
        })
        .collect()
}

/// A word at an offset.
pub fn word(offset: u64) -> u64 {
    assert!(offset.is_multiple_of(8) && offset + 8 <= size());
    let word = (start() + offset as usize) as *const u64;
    // SAFETY: it lies in the image, aligned; what is there is written by volatile stores of EL2's.
    unsafe { word.read_volatile() }
}
