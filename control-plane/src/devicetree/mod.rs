//! The device tree behind a facade that can't panic.
//!
//! A device tree is input: a bootloader, a user or a script wrote it. The `fdt` crate trusts it and
//! panics on a bad length, a missing terminator, a NOP in the wrong place or a missing node, which
//! at EL2 would be a machine that dies silently. So [`Tree::new`] first checks the whole blob
//! (Devicetree Specification v0.4, chapter 5): header, memory reservation block, every token,
//! name, length and string offset of the structure block. While it does, it notes where each node
//! starts; after that, finding a parent, a child or a phandle is a table look-up on offsets known
//! to be good, and no second parse of the raw bytes is needed. `fdt` itself reads the header and the
//! memory reservations, the two things it does without risk once they are checked, and serves the tests as
//! a second opinion on everything else.
//!
//! Meaning is checked where it is asked for: each accessor answers `Err` with the node, the property,
//! what was found and what was expected. Names may be of any length up to 255 bytes: the
//! specification's 31 is exceeded by trees of real boards.
//!
//! Of two properties with the same name in a node the first counts, as in libfdt.

mod address;
mod error;
mod interrupt;
mod node;
mod property;
#[cfg(test)]
pub(crate) mod tests;
mod validate;

pub use address::Region;
pub use error::{Error, quote};
pub use interrupt::{InterruptMap, MapEntry, Specifier};
pub use node::{Node, Nodes};
pub use property::{Cells, Property};

use alloc::vec::Vec;
use validate::Entry;

/// A device tree blob that was found to be well formed.
#[derive(Debug)]
pub struct Tree<'a> {
    fdt: fdt::Fdt<'a>,
    structure: &'a [u8],
    strings: &'a [u8],
    nodes: Vec<Entry>,
    /// Phandle and index of its node, sorted by phandle.
    phandles: Vec<(u32, u32)>,
}

impl<'a> Tree<'a> {
    /// Checks the blob at the start of `data` and opens it. Bytes behind the blob's own
    /// `totalsize` are ignored.
    ///
    /// # Errors
    /// The first breach of the format, of a limit (32 levels, 16384 nodes, names of 255 bytes), or two nodes
    /// with one phandle.
    pub fn new(data: &'a [u8]) -> Result<Self, Error> {
        validate::validate(data)
    }

    /// Size of the blob in bytes, as its header tells.
    pub fn total_size(&self) -> usize {
        self.fdt.total_size()
    }

    /// The memory reservation block (`/memreserve/`): regions that nothing may be put into.
    pub fn memory_reservations(&self) -> impl Iterator<Item = Region> + '_ {
        self.fdt.memory_reservations().map(|entry| Region {
            address: entry.address() as u64,
            size: entry.size() as u64,
        })
    }

    /// The root node.
    pub fn root(&self) -> Node<'_> {
        Node::new(self, 0)
    }

    /// All nodes, each before its children, in the order of the blob.
    pub fn nodes(&self) -> Nodes<'_> {
        Nodes::all(self)
    }

    /// The node with this path (`/soc/uart@1000`). Names match exactly; only where a step of `path` has
    /// no unit address does it also match the one node that has this name with some unit address.
    /// A path that doesn't start with `/` starts with an alias.
    pub fn find(&self, path: &str) -> Option<Node<'_>> {
        let (mut node, rest) = match path.strip_prefix('/') {
            Some(rest) => (self.root(), rest),
            None => {
                let (alias, rest) = path.split_once('/').unwrap_or((path, ""));
                let target = self
                    .root()
                    .child("aliases")?
                    .property(alias)?
                    .string()
                    .ok()?;
                if !target.starts_with('/') {
                    return None;
                }
                (self.find(target)?, rest)
            }
        };
        for step in rest.split('/').filter(|step| !step.is_empty()) {
            node = node.child(step)?;
        }
        Some(node)
    }

    /// The node with this phandle.
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'_>> {
        let at = self
            .phandles
            .binary_search_by_key(&phandle, |(phandle, _)| *phandle)
            .ok()?;
        let (_, index) = self.phandles.get(at)?;
        Some(Node::new(self, *index))
    }

    /// All nodes compatible with one of these, that aren't disabled, in the order of the blob.
    pub fn find_compatible<'t>(&'t self, any: &'t [&str]) -> impl Iterator<Item = Node<'t>> {
        self.nodes()
            .filter(move |node| node.is_compatible(any) && node.is_available())
    }

    fn entry(&self, index: u32) -> Option<&Entry> {
        self.nodes.get(usize::try_from(index).ok()?)
    }
}
