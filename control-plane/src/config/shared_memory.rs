//! Memory that domains share: children of `/chosen` with their own binding, `docs/bindings/baton,shared-memory.yaml`.
//!
//! They name the domains, not the other way round, so that a domain's node stays one that Xen's tools understand, and
//! the order of the names is the order of the peers' numbers. A region with a mistake is left out; its domains start without it.

use super::coprocs::{keep, unknown};
use super::domains::{DomainConfig, Rejected};
use crate::devicetree::{Error, Node, Tree};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::id::DomainId;

/// Smallest memory: a page, which is what can be mapped.
pub const SMALLEST: u64 = 4096;
/// Largest memory in bytes.
pub const LARGEST: u64 = 1 << 30;

const COMPATIBLE: &str = "baton,shared-memory";
const PROPERTIES: &[&str] = &[
    "compatible",
    "size",
    "domains",
    "phandle",
    "linux,phandle",
    "status",
];

/// A region to be shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedMemory {
    /// Path of its node.
    pub path: String,
    /// Bytes: a power of two, 4 KiB to 1 GiB.
    pub size: u64,
    /// Whose: at least two, in the order of their peer numbers.
    pub domains: Vec<DomainId>,
}

/// Reads all regions.
pub(super) fn read(
    tree: &Tree<'_>,
    domains: &[Result<DomainConfig, Rejected>],
) -> (Vec<SharedMemory>, Vec<Error>) {
    let (mut regions, mut errors) = (Vec::new(), Vec::new());
    let chosen = tree.find("/chosen");
    let nodes = chosen.iter().flat_map(Node::children);
    for node in nodes.filter(|node| node.is_available() && node.is_compatible(&[COMPATIBLE])) {
        let before = errors.len();
        for property in node.properties() {
            if !PROPERTIES.contains(&property.name()) {
                errors.push(unknown(
                    &property,
                    "a property of the schema baton,shared-memory.yaml",
                ));
            }
        }
        let size = keep(&mut errors, size(&node));
        let peers = keep(&mut errors, peers(&node, domains));
        if let (Some(size), Some(domains)) = (size, peers)
            && errors.len() == before
        {
            regions.push(SharedMemory {
                path: node.path(),
                size,
                domains,
            });
        }
    }
    (regions, errors)
}

fn size(node: &Node<'_>) -> Result<u64, Error> {
    const EXPECTED: &str = "bytes as a 64-bit number: a power of two, 4 KiB to 1 GiB";
    let property = node.required("size", EXPECTED)?;
    let Ok(size) = <[u8; 8]>::try_from(property.value()).map(u64::from_be_bytes) else {
        return Err(property
            .error(format!("{} bytes", property.value().len()), EXPECTED)
            .remedy("write <0 0x100000> for 1 MiB"));
    };
    if size.is_power_of_two() && (SMALLEST..=LARGEST).contains(&size) {
        Ok(size)
    } else {
        Err(property.error(format!("{size:#x}"), EXPECTED))
    }
}

fn peers(
    node: &Node<'_>,
    domains: &[Result<DomainConfig, Rejected>],
) -> Result<Vec<DomainId>, Error> {
    const EXPECTED: &str = "phandles of at least two domains";
    let property = node.required("domains", EXPECTED)?;
    let mut list: Vec<DomainId> = Vec::new();
    for phandle in property.cells()? {
        let target = property.resolve(phandle)?;
        let path = target.path();
        let found = domains.iter().find_map(|domain| match domain {
            Ok(domain) if domain.path == path => Some(Ok(domain.id)),
            Err(rejected) if rejected.path == path => Some(Err(())),
            _ => None,
        });
        let Some(found) = found else {
            return Err(property.error(format!("{path}, which is no domain"), EXPECTED));
        };
        let Ok(id) = found else {
            return Err(property
                .error(format!("{path}, which has a mistake"), EXPECTED)
                .remedy("correct that node first"));
        };
        if list.contains(&id) {
            return Err(property.error(format!("{path} twice"), "each domain once"));
        }
        list.push(id);
    }
    if list.len() < 2 {
        return Err(property.error(format!("{} domains", list.len()), EXPECTED));
    }
    Ok(list)
}
