//! A domain's configuration that comes when Baton runs: a file of the schema that the tree of boot has.
//!
//! It is read by the same code. What it refers to is found by what is the same in every tree: coprocs and pools by their numbers, CPUs by their places
//! in `/cpus` at boot, modules by where the boot loader has put them. All else that the file says of these is passed over, so that the tree of boot,
//! less the machine, with a domain edited is such a file. Memory that nobody's module had at boot is somebody's by now, so it isn't taken for one.

use super::numbers;
use super::reader::{Later, Reader};
use super::{COMPATIBLE, DomainConfig, is_disabled};
use crate::config::coprocs::{COPROCS_PATH, CoprocConfig, Entry};
use crate::config::machine::Machine;
use crate::config::pools::{self, PoolConfig};
use crate::devicetree::{Error, Node, Region, Tree};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::id::{CoprocId, DomainId};

/// Most bytes of a file: what one answer's time at EL2, and what all mistakes in it may take of EL2's heap, are bounded by.
pub const FILE_LIMIT: usize = 4096;

/// What there is for a domain, since boot.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// The coprocs that can be used.
    pub coprocs: &'a [CoprocConfig],
    /// The pools.
    pub pools: &'a [PoolConfig],
    /// Where modules are, of any domain.
    pub modules: &'a [Region],
    /// The domain, if it has a place already.
    pub place: Option<Place<'a>>,
}

/// The place of a domain.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// What is in force for it.
    pub config: &'a DomainConfig,
    /// For how many vCPUs it is.
    pub vcpus: u32,
}

/// What was found in a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Found {
    /// The domain, if there is no mistake.
    pub domain: Option<DomainConfig>,
    /// All mistakes.
    pub errors: Vec<Error>,
    /// What has no effect, and probably should have.
    pub warnings: Vec<Error>,
}

impl Found {
    fn mistake(error: Error) -> Self {
        Self {
            errors: Vec::from([error]),
            ..Self::default()
        }
    }
}

/// Reads the node of domain `id` in the tree that is the `file`. Other domains' nodes are passed over.
#[inline(never)]
pub fn read(file: &[u8], id: DomainId, ground: &Ground<'_>) -> Found {
    let tree = match Tree::new(file) {
        Ok(tree) => tree,
        Err(error) => return Found::mistake(error),
    };
    let node = match find(&tree, id) {
        Ok(node) => node,
        Err(error) => return Found::mistake(error),
    };
    let (entries, pools) = (
        coprocs(&node, ground.coprocs),
        pools::renamed(ground.pools, &tree),
    );
    let mut reader = Reader {
        node,
        number: Some(id),
        machine: ground.machine,
        coprocs: &entries,
        pools: &pools,
        before: &[],
        modules: &[],
        later: Some(Later {
            modules: ground.modules,
            passthrough: ground.place.map_or(&[], |place| &place.config.passthrough),
        }),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    let domain = reader.read();
    let Reader {
        mut errors,
        warnings,
        ..
    } = reader;
    errors.extend(
        entries
            .into_iter()
            .filter_map(|entry| entry.config.err())
            .flatten(),
    );
    if let (Some(domain), Some(place)) = (&domain, &ground.place) {
        unchangeable(&node, domain, place, ground.pools, &mut errors);
    }
    Found {
        domain: domain.filter(|_| errors.is_empty()),
        errors,
        warnings,
    }
}

/// The one node of this domain.
fn find<'t>(tree: &'t Tree<'_>, id: DomainId) -> Result<Node<'t>, Error> {
    let chosen = tree.find("/chosen");
    let there = |node: &Node<'_>| {
        node.is_compatible(&[COMPATIBLE]) && (node.is_available() || is_disabled(node))
    };
    let all = chosen.iter().flat_map(Node::children);
    let all: Vec<Node<'t>> = all.filter(there).collect();
    let numbers = numbers::given(&all).into_iter();
    let mut nodes = all.into_iter().zip(numbers).filter_map(|(node, given)| {
        let asked = numbers::asked(&node).ok()?.map(|(_, asked)| asked);
        (asked.or(given) == Some(id)).then_some(node)
    });
    let node = nodes.next().ok_or_else(|| {
        let found = format!("no domain {}", id.0);
        Error::new(
            "/chosen",
            found,
            "a child compatible with \"xen,domain\" with its number",
        )
    })?;
    match nodes.next() {
        Some(other) => {
            let found = format!("{}, which {} has already", id.0, node.path());
            Err(other.error(found, "a number of its own").property("reg"))
        }
        None => Ok(node),
    }
}

/// The coprocs that a domain's node names: those of the machine, with the numbers that the file's nodes have.
fn coprocs<'t>(node: &Node<'t>, machine: &[CoprocConfig]) -> Vec<Entry<'t>> {
    let parent = node.tree().find(COPROCS_PATH);
    let property = node.property("baton,coprocs");
    let named = property.and_then(|property| property.cells().ok());
    let mut entries: Vec<Entry<'t>> = Vec::new();
    for phandle in named.into_iter().flatten() {
        let Some(node) = node.tree().by_phandle(phandle) else {
            continue;
        };
        if parent.is_none()
            || node.parent() != parent
            || entries.iter().any(|entry| entry.node == node)
        {
            continue;
        }
        let config = coproc(&node, machine).map_err(|error| Vec::from([error]));
        entries.push(Entry { node, config });
    }
    entries
}

fn coproc(node: &Node<'_>, machine: &[CoprocConfig]) -> Result<CoprocConfig, Error> {
    const EXPECTED: &str = "the number of a coproc of this machine";
    let property = node.required("reg", EXPECTED)?;
    let id = CoprocId(property.u32()?);
    let known = machine.iter().find(|coproc| coproc.id == id);
    let known = known.ok_or_else(|| {
        let error = property.error(format!("{}", id.0), EXPECTED);
        error.remedy("`coproc list` lists them")
    })?;
    Ok(CoprocConfig {
        // Whether it's shared may have changed, and may change until the domain is created.
        shared: true,
        ..known.clone()
    })
}

/// What was laid out with the place stays as it is.
fn unchangeable(
    node: &Node<'_>,
    domain: &DomainConfig,
    place: &Place<'_>,
    pools: &[PoolConfig],
    errors: &mut Vec<Error>,
) {
    let before = place.config;
    let mut differs = |name: &'static str, found: String, expected: String| {
        let error = node.error(found, format!("{expected}, as it was before"));
        errors.push(error.property(name));
    };
    if domain.cpus > place.vcpus {
        let expected = format!("at most {}", place.vcpus);
        differs("cpus", format!("{}", domain.cpus), expected);
    }
    let there = |is: bool| if is { "there" } else { "missing" };
    for (name, is, was) in [
        ("vpl011", domain.vpl011, before.vpl011),
        ("baton,control", domain.control, before.control),
    ] {
        if is != was {
            differs(name, there(is).into(), there(was).into());
        }
    }
    let pool = |at: usize| {
        let id = pools.get(at).map_or(0, |pool| pool.id);
        format!("pool {id}")
    };
    if domain.pool != before.pool {
        differs("baton,cpu-pool", pool(domain.pool), pool(before.pool));
    }
}
