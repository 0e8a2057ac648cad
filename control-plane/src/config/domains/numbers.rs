//! Domains' numbers, also of those that have none.
//!
//! Tools that write domains for Xen give them names only: `domU0`, `domU1`, …. Their order in the tree says little, since U-Boot's `fdt mknod`
//! puts a new node before the older ones. So it is by their names that they get the numbers that nobody asks for.

use crate::devicetree::{Error, Node};
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::id::DomainId;

/// A number that a node asks for, and where; `None` if it doesn't.
pub(super) fn asked(node: &Node<'_>) -> Result<Option<(&'static str, DomainId)>, Error> {
    let (name, value) = match (node.property("reg"), node.unit_address()) {
        (Some(property), _) => ("reg", Some(property.u64()?)),
        (None, Some(unit)) => ("unit address", u64::from_str_radix(unit, 16).ok()),
        (None, None) => return Ok(None),
    };
    let valid = value
        .and_then(|value| u16::try_from(value).ok())
        .filter(|value| *value != 0);
    match valid {
        Some(valid) => Ok(Some((name, DomainId(valid)))),
        None => {
            let found =
                value.map_or_else(|| String::from("no number"), |value| format!("{value:#x}"));
            let expected = "the domain's number, 1 to 0xffff, in reg or as unit address";
            Err(node.error(found, expected).property(name))
        }
    }
}

/// For each of the nodes that asks for no number: the lowest one that is left, in the order of their names.
pub(super) fn given(nodes: &[Node<'_>]) -> Vec<Option<DomainId>> {
    let mut given = vec![None; nodes.len()];
    let mut taken = Vec::new();
    let mut others = Vec::new();
    for (node, place) in nodes.iter().zip(&mut given) {
        match asked(node) {
            Ok(Some((_, id))) => taken.push(id.0),
            Ok(None) => others.push((node.name(), place)),
            Err(_) => {}
        }
    }
    taken.sort_unstable();
    others.sort_unstable_by_key(|(name, _)| order(name));
    let free = (1..=u16::MAX).filter(|number| taken.binary_search(number).is_err());
    for ((_, place), number) in others.into_iter().zip(free) {
        *place = Some(DomainId(number));
    }
    given
}

/// Sorts `domU9` before `domU10`.
fn order(name: &str) -> (&str, usize, &str) {
    let base = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let digits = name.strip_prefix(base).unwrap_or("");
    (base, digits.len(), digits)
}
