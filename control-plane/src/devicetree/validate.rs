//! The check of a whole blob, which also makes the table of its nodes.
//!
//! Two passes over the structure block with the same walker: the first checks and counts, the
//! second fills a table of exactly that many entries, so memory use is bounded by the blob and the table never grows.

use super::{Error, Node, Tree};
use alloc::format;
use alloc::vec::Vec;
use coproc_core::sort;
use core::ffi::CStr;

pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
pub(super) const NOP: u32 = 4;
pub(super) const END: u32 = 9;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: usize = 40;
/// Version 17 brought `size_dt_struct` (Devicetree Specification v0.4, 5.2).
const VERSION: u32 = 17;
const DEPTH_LIMIT: usize = 32;
const NODE_LIMIT: usize = 16384;
const NAME_LIMIT: usize = 255;
const BLOB: &str = "device tree blob";

/// Where a node is in the structure block.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Offset and length of the name.
    pub name: u32,
    pub name_length: u32,
    /// Offset of the first token after the name.
    pub body: u32,
    /// Index of the parent; the root is its own.
    pub parent: u32,
    /// Index of the first node after this one's subtree.
    pub subtree_end: u32,
}

/// The big-endian 32-bit word at a byte offset.
pub(super) fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

fn double_word(bytes: &[u8], offset: usize) -> Option<u64> {
    let bytes = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

pub(super) fn align4(offset: usize) -> Option<usize> {
    Some(offset.checked_add(3)? & !3)
}

/// The text up to the next NUL, if it ends within the limit.
pub(super) fn name_at(bytes: &[u8], offset: usize) -> Option<&str> {
    let tail = bytes.get(offset..)?;
    let limited = tail.get(..=NAME_LIMIT).unwrap_or(tail);
    CStr::from_bytes_until_nul(limited).ok()?.to_str().ok()
}

/// Whether a name is printable ASCII without a space.
fn is_printable(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn blob_error(field: &'static str, found: u64, expected: &'static str) -> Error {
    Error::new(BLOB, format!("{found:#x}"), expected).property(field)
}

pub(super) fn validate(data: &[u8]) -> Result<Tree<'_>, Error> {
    let header = |field: &'static str, index: usize| {
        word(data, index.saturating_mul(4)).ok_or_else(|| {
            blob_error(
                field,
                data.len() as u64,
                "a header of 40 bytes; the blob is shorter",
            )
        })
    };
    let magic = header("magic", 0)?;
    if magic != MAGIC {
        return Err(blob_error("magic", magic.into(), "0xd00dfeed"));
    }
    let total = header("totalsize", 1)? as usize;
    let Some(blob) = data.get(..total).filter(|_| total >= HEADER_SIZE) else {
        return Err(blob_error(
            "totalsize",
            total as u64,
            "at least 40 and at most the bytes there are",
        ));
    };
    let version = header("version", 5)?;
    let compatible = header("last_comp_version", 6)?;
    if version < VERSION || compatible > VERSION {
        return Err(blob_error(
            "version",
            version.into(),
            "17, or later and compatible with 17",
        ));
    }
    check_reservations(blob, header("off_mem_rsvmap", 4)? as usize)?;
    let (at, size) = (
        header("off_dt_struct", 2)? as usize,
        header("size_dt_struct", 9)? as usize,
    );
    let structure = at.checked_add(size).and_then(|end| blob.get(at..end));
    let Some(structure) = structure.filter(|_| at.is_multiple_of(4)) else {
        return Err(blob_error(
            "off_dt_struct",
            at as u64,
            "a block inside the blob, at a multiple of 4",
        ));
    };
    let (at, size) = (
        header("off_dt_strings", 3)? as usize,
        header("size_dt_strings", 8)? as usize,
    );
    let Some(strings) = at.checked_add(size).and_then(|end| blob.get(at..end)) else {
        return Err(blob_error(
            "off_dt_strings",
            at as u64,
            "a block inside the blob",
        ));
    };

    let count = Walk::new(structure, strings).run(&mut |_, _, _| Ok(()))?;
    let nodes = table(structure, strings, count)?;
    let fdt = fdt::Fdt::new(blob)
        .map_err(|error| Error::new(BLOB, format!("{error}"), "a readable header"))?;
    let mut tree = Tree {
        fdt,
        structure,
        strings,
        nodes,
        phandles: Vec::new(),
    };
    tree.phandles = phandles(&tree)?;
    Ok(tree)
}

fn check_reservations(blob: &[u8], start: usize) -> Result<(), Error> {
    let mut at = start;
    if !at.is_multiple_of(8) {
        return Err(blob_error("off_mem_rsvmap", at as u64, "a multiple of 8"));
    }
    loop {
        let entry =
            double_word(blob, at).zip(at.checked_add(8).and_then(|next| double_word(blob, next)));
        let Some((address, size)) = entry else {
            return Err(blob_error(
                "off_mem_rsvmap",
                start as u64,
                "a list inside the blob that ends with a zero entry",
            ));
        };
        if address == 0 && size == 0 {
            return Ok(());
        }
        if address.checked_add(size).is_none() {
            return Err(blob_error(
                "memory reservation",
                address,
                "a region inside the address space",
            ));
        }
        at = at.saturating_add(16);
    }
}

fn table(structure: &[u8], strings: &[u8], count: usize) -> Result<Vec<Entry>, Error> {
    let mut nodes: Vec<Entry> = Vec::new();
    nodes.try_reserve_exact(count).map_err(|_| {
        Error::new(
            BLOB,
            format!("{count} nodes"),
            "few enough nodes for the heap",
        )
    })?;
    let mut open: Vec<u32> = Vec::new();
    Walk::new(structure, strings).run(&mut |event, offset, length| {
        match event {
            Event::Begin => {
                let index = nodes.len() as u32;
                let name = offset as u32;
                // The walker has checked that name and padding are inside the block.
                let body = (name.saturating_add(length as u32).saturating_add(4)) & !3;
                let parent = open.last().copied().unwrap_or(0);
                nodes.push(Entry {
                    name,
                    name_length: length as u32,
                    body,
                    parent,
                    subtree_end: 0,
                });
                open.push(index);
            }
            Event::End => {
                let end = nodes.len() as u32;
                if let Some(entry) = open.pop().and_then(|index| nodes.get_mut(index as usize)) {
                    entry.subtree_end = end;
                }
            }
        }
        Ok(())
    })?;
    Ok(nodes)
}

fn phandles(tree: &Tree<'_>) -> Result<Vec<(u32, u32)>, Error> {
    let mut list = Vec::new();
    for node in tree.nodes() {
        // "linux,phandle" is the older name (Devicetree Specification v0.4, 2.3.3).
        let property = node
            .property("phandle")
            .or_else(|| node.property("linux,phandle"));
        if let Some(property) = property {
            let phandle = property.u32()?;
            if phandle == 0 || phandle == u32::MAX {
                return Err(property.error(format!("{phandle:#x}"), "neither 0 nor 0xffffffff"));
            }
            list.push((phandle, node.index()));
        }
    }
    sort::by_key(&mut list, |entry| *entry);
    for (one, two) in list.iter().zip(list.iter().skip(1)) {
        if one.0 == two.0 {
            let (first, second) = (Node::new(tree, one.1), Node::new(tree, two.1));
            return Err(Error::new(
                second.path(),
                format!("{:#x}, which {} has already", one.0, first.path()),
                "a phandle of its own",
            )
            .property("phandle"));
        }
    }
    Ok(list)
}

enum Event {
    Begin,
    End,
}

struct Walk<'a> {
    structure: &'a [u8],
    strings: &'a [u8],
    at: usize,
    depth: usize,
    nodes: usize,
}

impl<'a> Walk<'a> {
    fn new(structure: &'a [u8], strings: &'a [u8]) -> Self {
        Self {
            structure,
            strings,
            at: 0,
            depth: 0,
            nodes: 0,
        }
    }

    /// Checks everything; reports each node's begin (offset and length of its name) and end.
    /// Returns the number of nodes.
    fn run(
        mut self,
        report: &mut dyn FnMut(Event, usize, usize) -> Result<(), Error>,
    ) -> Result<usize, Error> {
        // Properties come before children, so they are refused once a child has been closed.
        let mut properties_allowed = false;
        loop {
            let here = self.at;
            let Some(token) = word(self.structure, here) else {
                return Err(structure_error(
                    here,
                    "the block's end",
                    "the token FDT_END",
                ));
            };
            self.at = here.saturating_add(4);
            match token {
                BEGIN_NODE => {
                    let length = self.begin_node(here)?;
                    report(Event::Begin, here.saturating_add(4), length)?;
                    properties_allowed = true;
                }
                END_NODE => {
                    self.depth = self
                        .depth
                        .checked_sub(1)
                        .ok_or_else(|| structure_error(here, "FDT_END_NODE", "an open node"))?;
                    report(Event::End, 0, 0)?;
                    properties_allowed = false;
                }
                PROP if properties_allowed => self.property(here)?,
                PROP => {
                    return Err(structure_error(
                        here,
                        "FDT_PROP",
                        "properties before children",
                    ));
                }
                NOP => {}
                END if self.depth == 0 && self.nodes > 0 => return Ok(self.nodes),
                END => return Err(structure_error(here, "FDT_END", "a root node, closed")),
                other => {
                    return Err(Error::new(
                        BLOB,
                        format!("token {other:#x}"),
                        "a token of the specification",
                    )
                    .property(format!("structure block offset {here:#x}")));
                }
            }
        }
    }

    fn begin_node(&mut self, here: usize) -> Result<usize, Error> {
        let root = self.nodes == 0;
        if self.depth == 0 && !root {
            return Err(structure_error(here, "a second root node", "FDT_END"));
        }
        let name = name_at(self.structure, self.at)
            .filter(|name| name.is_empty() == root && is_printable(name) && !name.contains('/'))
            .ok_or_else(|| {
                structure_error(
                    here,
                    "a bad node name",
                    "1 to 255 printable characters and NUL; none for the root",
                )
            })?;
        self.at = self
            .at
            .checked_add(name.len().saturating_add(1))
            .and_then(align4)
            .ok_or_else(|| structure_error(here, "an endless name", "a name inside the block"))?;
        self.depth = self.depth.saturating_add(1);
        self.nodes = self.nodes.saturating_add(1);
        if self.depth > DEPTH_LIMIT {
            return Err(structure_error(
                here,
                "a node too deep",
                "at most 32 levels",
            ));
        }
        if self.nodes > NODE_LIMIT {
            return Err(structure_error(
                here,
                "one node too many",
                "at most 16384 nodes",
            ));
        }
        Ok(name.len())
    }

    fn property(&mut self, here: usize) -> Result<(), Error> {
        let truncated = || structure_error(here, "a truncated property", "length, name and value");
        let length = word(self.structure, self.at).ok_or_else(truncated)? as usize;
        let name = word(self.structure, self.at.saturating_add(4)).ok_or_else(truncated)? as usize;
        let value = self.at.saturating_add(8);
        let end = value
            .checked_add(length)
            .filter(|end| *end <= self.structure.len());
        let end = end.and_then(align4).ok_or_else(|| {
            structure_error(
                here,
                "a property longer than the block",
                "a value inside the block",
            )
        })?;
        if !name_at(self.strings, name).is_some_and(|name| !name.is_empty() && is_printable(name)) {
            return Err(structure_error(
                here,
                "a bad property name offset",
                "1 to 255 printable characters and NUL in the strings block",
            ));
        }
        self.at = end;
        Ok(())
    }
}

fn structure_error(offset: usize, found: &'static str, expected: &'static str) -> Error {
    Error::new(BLOB, found, expected).property(format!("structure block offset {offset:#x}"))
}
