//! A device tree that can be edited: read from a blob, changed as a tree, written as a blob.
//!
//! The blobs read here come from QEMU on the developer's own machine, so the `fdt` crate, which
//! panics on malformed input, is good enough; the hypervisor, which can't trust its tree, reads it
//! through a validating facade of its own.

use anyhow::{Result, anyhow};
use vm_fdt::{FdtReserveEntry, FdtWriter};

/// A node with its properties and children, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// Name with unit address; empty for the root.
    pub name: String,
    /// Names and raw (big-endian) values.
    pub properties: Vec<(String, Vec<u8>)>,
    /// Child nodes.
    pub children: Vec<Node>,
}

/// A whole tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    /// The root node.
    pub root: Node,
    /// Memory reservations: address and size in bytes.
    pub reservations: Vec<(u64, u64)>,
}

impl Node {
    /// An empty node.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Sets a property to raw bytes, in place of an older value.
    pub fn set(&mut self, name: &str, value: impl Into<Vec<u8>>) -> &mut Self {
        let value = value.into();
        match self.properties.iter_mut().find(|(known, _)| known == name) {
            Some(property) => property.1 = value,
            None => self.properties.push((name.to_owned(), value)),
        }
        self
    }

    /// Sets a property to a list of 32-bit cells.
    pub fn set_cells(&mut self, name: &str, cells: &[u32]) -> &mut Self {
        self.set(name, cells_value(cells))
    }

    /// Sets a property to a list of strings.
    pub fn set_strings(&mut self, name: &str, strings: &[&str]) -> &mut Self {
        self.set(name, strings_value(strings))
    }

    /// A property's raw value.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.properties
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_slice())
    }

    /// Removes a property; tells whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.properties.len();
        self.properties.retain(|(known, _)| known != name);
        self.properties.len() != before
    }

    /// The child of this name.
    pub fn child_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.children.iter_mut().find(|child| child.name == name)
    }

    /// The greatest phandle in this node and below, or 0.
    pub fn greatest_phandle(&self) -> u32 {
        let own = self
            .get("phandle")
            .and_then(|value| value.try_into().ok())
            .map_or(0, u32::from_be_bytes);
        self.children
            .iter()
            .map(Node::greatest_phandle)
            .fold(own, u32::max)
    }

    fn read(node: fdt::node::FdtNode<'_, '_>) -> Self {
        Self {
            name: node.name.trim_start_matches('/').to_owned(),
            properties: node
                .properties()
                .map(|property| (property.name.to_owned(), property.value.to_vec()))
                .collect(),
            children: node.children().map(Node::read).collect(),
        }
    }

    fn write(&self, writer: &mut FdtWriter) -> Result<()> {
        let explain = |error| anyhow!("device tree node '{}': {error:?}", self.name);
        let open = writer.begin_node(&self.name).map_err(explain)?;
        for (name, value) in &self.properties {
            writer
                .property(name, value)
                .map_err(|error| anyhow!("device tree node '{}', {name}: {error:?}", self.name))?;
        }
        for child in &self.children {
            child.write(writer)?;
        }
        writer.end_node(open).map_err(explain)
    }
}

impl Tree {
    /// Reads a blob.
    ///
    /// # Errors
    /// If it isn't a device tree blob.
    pub fn parse(blob: &[u8]) -> Result<Self> {
        let tree = fdt::Fdt::new(blob).map_err(|error| anyhow!("device tree: {error}"))?;
        let root = tree
            .find_node("/")
            .ok_or_else(|| anyhow!("device tree without a root"))?;
        Ok(Self {
            root: Node::read(root),
            reservations: tree
                .memory_reservations()
                .map(|entry| (entry.address() as u64, entry.size() as u64))
                .collect(),
        })
    }

    /// Writes a blob.
    ///
    /// # Errors
    /// If a name is one that a device tree can't hold.
    pub fn to_blob(&self) -> Result<Vec<u8>> {
        let reservations = self
            .reservations
            .iter()
            .map(|&(address, size)| FdtReserveEntry::new(address, size))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| anyhow!("device tree reservation: {error:?}"))?;
        let mut writer = FdtWriter::new_with_mem_reserv(&reservations)
            .map_err(|error| anyhow!("device tree: {error:?}"))?;
        self.root.write(&mut writer)?;
        writer
            .finish()
            .map_err(|error| anyhow!("device tree: {error:?}"))
    }

    /// The node at a path such as `/chosen/domain@1`.
    pub fn node_mut(&mut self, path: &str) -> Option<&mut Node> {
        path.split('/')
            .filter(|part| !part.is_empty())
            .try_fold(&mut self.root, |node, part| node.child_mut(part))
    }
}

/// 32-bit cells as a property value.
pub fn cells_value(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

/// Strings as a property value, each ended by a zero byte.
pub fn strings_value(strings: &[&str]) -> Vec<u8> {
    strings
        .iter()
        .flat_map(|string| string.bytes().chain([0]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(depth: u32) -> BoxedStrategy<Node> {
        let properties = prop::collection::btree_map(
            "[a-z,#-]{1,20}",
            prop::collection::vec(any::<u8>(), 0..20),
            0..4,
        );
        let name = "[a-z]{1,10}(@[0-9a-f]{1,8})?";
        if depth == 0 {
            (name, properties)
                .prop_map(|(name, properties)| Node {
                    name,
                    properties: properties.into_iter().collect(),
                    children: vec![],
                })
                .boxed()
        } else {
            (
                name,
                properties,
                prop::collection::vec(node(depth - 1), 0..3),
            )
                .prop_map(|(name, properties, children)| Node {
                    name,
                    properties: properties.into_iter().collect(),
                    children,
                })
                .boxed()
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(mut root in node(3)) {
            root.name = String::new();
            let tree = Tree { root, reservations: vec![(0x1000, 0x2000)] };
            prop_assert_eq!(Tree::parse(&tree.to_blob().unwrap()).unwrap(), tree);
        }
    }

    #[test]
    fn paths_find_nodes_and_set_replaces() {
        let mut tree = Tree::default();
        let mut chosen = Node::new("chosen");
        chosen.children.push(Node::new("domain@1"));
        tree.root.children.push(chosen);
        let domain = tree.node_mut("/chosen/domain@1").unwrap();
        domain.set_cells("phandle", &[7]).set_cells("phandle", &[9]);
        assert_eq!(domain.properties.len(), 1);
        assert_eq!(tree.root.greatest_phandle(), 9);
        assert!(tree.node_mut("/chosen/domain@2").is_none());
    }
}
