//! Nodes: names, paths, families.

use super::validate::{NOP, PROP, align4, name_at, word};
use super::{Error, Property, Tree};
use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;

/// A node of a [`Tree`].
#[derive(Clone, Copy, Debug)]
pub struct Node<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.tree.structure, other.tree.structure) && self.index == other.index
    }
}

impl Eq for Node<'_> {}

impl<'t> Node<'t> {
    pub(super) fn new(tree: &'t Tree<'_>, index: u32) -> Self {
        Self { tree, index }
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// The tree that the node belongs to.
    pub fn tree(&self) -> &'t Tree<'t> {
        self.tree
    }

    /// Full name with the unit address (`uart@1000`); empty for the root.
    pub fn name(&self) -> &'t str {
        let text = self.tree.entry(self.index).and_then(|entry| {
            let start = entry.name as usize;
            self.tree
                .structure
                .get(start..start.checked_add(entry.name_length as usize)?)
        });
        text.and_then(|text| core::str::from_utf8(text).ok())
            .unwrap_or("")
    }

    /// The name before `@`.
    pub fn base_name(&self) -> &'t str {
        self.name()
            .split_once('@')
            .map_or(self.name(), |(base, _)| base)
    }

    /// The text after `@`.
    pub fn unit_address(&self) -> Option<&'t str> {
        self.name().split_once('@').map(|(_, unit)| unit)
    }

    /// The full path, `/` for the root.
    pub fn path(&self) -> String {
        let mut names: Vec<&str> = Vec::new();
        let mut node = *self;
        while let Some(parent) = node.parent() {
            names.push(node.name());
            node = parent;
        }
        let mut path = String::new();
        for name in names.iter().rev() {
            path.push('/');
            path.push_str(name);
        }
        if path.is_empty() {
            path.push('/');
        }
        path
    }

    /// The parent; `None` for the root.
    pub fn parent(&self) -> Option<Node<'t>> {
        let entry = self.tree.entry(self.index).filter(|_| self.index != 0)?;
        Some(Node {
            tree: self.tree,
            index: entry.parent,
        })
    }

    /// The children, in the order of the blob.
    pub fn children(&self) -> Nodes<'t> {
        Nodes {
            tree: self.tree,
            next: self.index.saturating_add(1),
            end: self.subtree_end(),
            skip: true,
        }
    }

    /// The child of this name. A `name` without a unit address also matches the only child of that
    /// base name; two such children are an ambiguity and match nothing.
    pub fn child(&self, name: &str) -> Option<Node<'t>> {
        if let Some(child) = self.children().find(|child| child.name() == name) {
            return Some(child);
        }
        let mut same = self.children().filter(|child| child.base_name() == name);
        let child = same.next()?;
        same.next().is_none().then_some(child)
    }

    /// The properties, in the order of the blob.
    pub fn properties(&self) -> impl Iterator<Item = Property<'t>> + use<'t> {
        let node = *self;
        self.raw_properties().filter_map(move |(name, value)| {
            Some(Property::new(
                node,
                name_at(node.tree.strings, name)?,
                value,
            ))
        })
    }

    /// The property of exactly this name.
    pub fn property(&self, name: &str) -> Option<Property<'t>> {
        let strings = self.tree.strings;
        let (at, value) = self.raw_properties().find(|(at, _)| {
            let tail = strings
                .get(*at..)
                .and_then(|tail| tail.strip_prefix(name.as_bytes()));
            tail.is_some_and(|tail| tail.first() == Some(&0))
        })?;
        Some(Property::new(*self, name_at(strings, at)?, value))
    }

    /// Offset of the name in the strings block, and value, of each property.
    fn raw_properties(&self) -> impl Iterator<Item = (usize, &'t [u8])> + use<'t> {
        let structure = self.tree.structure;
        let mut at = self.tree.entry(self.index).map(|entry| entry.body as usize);
        core::iter::from_fn(move || {
            loop {
                let here = at?;
                match word(structure, here)? {
                    NOP => at = here.checked_add(4),
                    PROP => {
                        let length = word(structure, here.checked_add(4)?)? as usize;
                        let name = word(structure, here.checked_add(8)?)? as usize;
                        let start = here.checked_add(12)?;
                        let end = start.checked_add(length)?;
                        at = align4(end);
                        return Some((name, structure.get(start..end)?));
                    }
                    _ => return None,
                }
            }
        })
    }

    /// The property of exactly this name, or an error that it's missing.
    ///
    /// # Errors
    /// There is none; the error says that `expected` was expected.
    pub fn required(
        &self,
        name: &'static str,
        expected: impl Into<Cow<'static, str>>,
    ) -> Result<Property<'t>, Error> {
        self.property(name)
            .ok_or_else(|| Error::new(self.path(), "missing", expected).property(name))
    }

    /// An error about this node.
    pub fn error(
        &self,
        found: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Error {
        Error::new(self.path(), found, expected)
    }

    /// The strings of `compatible`, most specific first; none if there is no such property or it
    /// isn't a list of strings.
    pub fn compatible(&self) -> impl Iterator<Item = &'t str> + use<'t> {
        self.property("compatible")
            .and_then(|property| property.strings().ok())
            .into_iter()
            .flatten()
    }

    /// Whether one of these is among the `compatible` strings, exactly.
    pub fn is_compatible(&self, any: &[&str]) -> bool {
        self.compatible().any(|one| any.contains(&one))
    }

    /// Whether the node is there to be used: `status` is absent, `okay` or `ok`
    /// (Devicetree Specification v0.4, 2.3.4).
    pub fn is_available(&self) -> bool {
        self.property("status")
            .is_none_or(|status| matches!(status.string(), Ok("okay" | "ok")))
    }

    /// Whether DMA of this device is coherent with the CPUs' caches: `dma-coherent` here or in the nearest ancestor
    /// that has this or `dma-noncoherent`.
    pub fn is_dma_coherent(&self) -> bool {
        let mut node = Some(*self);
        while let Some(this) = node {
            if this.property("dma-noncoherent").is_some() {
                return false;
            }
            if this.property("dma-coherent").is_some() {
                return true;
            }
            node = this.parent();
        }
        false
    }

    fn subtree_end(&self) -> u32 {
        self.tree
            .entry(self.index)
            .map_or(0, |entry| entry.subtree_end)
    }
}

/// Nodes of a tree, in the order of the blob.
#[derive(Clone, Debug)]
pub struct Nodes<'t> {
    tree: &'t Tree<'t>,
    next: u32,
    end: u32,
    /// Whether to pass over the children of each.
    skip: bool,
}

impl<'t> Nodes<'t> {
    pub(super) fn all(tree: &'t Tree<'_>) -> Self {
        Self {
            tree,
            next: 0,
            end: Node::new(tree, 0).subtree_end(),
            skip: false,
        }
    }
}

impl<'t> Iterator for Nodes<'t> {
    type Item = Node<'t>;

    fn next(&mut self) -> Option<Node<'t>> {
        if self.next >= self.end {
            return None;
        }
        let node = Node {
            tree: self.tree,
            index: self.next,
        };
        self.next = if self.skip {
            node.subtree_end()
        } else {
            self.next.saturating_add(1)
        };
        Some(node)
    }
}
