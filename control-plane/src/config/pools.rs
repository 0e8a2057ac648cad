//! Pools of CPUs: which CPUs run vCPUs together, under which algorithm, and what a domain asks of its pool.
//!
//! Schema: `docs/bindings/baton,cpu-pools.yaml`. Nobody has to write pools down: without the node, all CPUs are one.
//!
//! A pool's CPUs are of one kind. Which core it runs on an operating system asks once, when it starts a CPU, and from that it decides what to work
//! around: a vCPU that came from a Cortex-A57 to a Cortex-A53 would have the wrong remedies.

use super::coprocs::{keep, unknown};
use super::machine::Machine;
use crate::devicetree::{Error, Node, Tree, quote};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::algorithm::Parameters;
use coproc_core::time::Duration;
use sched_algos::bandwidth::Reserve;

/// Most CPUs that there can be.
pub const MAX_CPUS: usize = 8;

/// Names of the algorithms that vCPUs can be scheduled by.
pub mod algorithm {
    /// Shares by weight.
    pub const WEIGHTED: &str = "weighted";
    /// Reservations, earliest deadline first.
    pub const DEADLINE: &str = "deadline";
    /// A CPU for each vCPU.
    pub const NULL: &str = "null";
    /// All of them.
    pub const NAMES: [&str; 3] = [WEIGHTED, DEADLINE, NULL];
}

/// Path of the node that holds them.
pub const POOLS_PATH: &str = "/chosen/cpu-pools";
/// The algorithm of a pool that names none.
pub const DEFAULT_SCHEDULER: &str = algorithm::WEIGHTED;

const COMPATIBLE: &str = "baton,cpu-pools";
const PROPERTIES: &[&str] = &[
    "reg",
    "cpus",
    "scheduler",
    "phandle",
    "linux,phandle",
    "status",
];

/// A pool of CPUs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PoolConfig {
    /// Its number: `reg`.
    pub id: u32,
    /// Path of its node, for messages; [`POOLS_PATH`] for the one that nobody wrote down.
    pub path: String,
    /// Its CPUs, as indices in [`Machine::cpus`].
    pub cpus: Vec<usize>,
    /// The name of its algorithm.
    pub scheduler: &'static str,
    phandle: Option<u32>,
}

/// Reads the pools. At least one is returned: if none is right, one with all CPUs of the first one's kind.
pub(super) fn read(tree: &Tree<'_>, machine: &Machine) -> (Vec<PoolConfig>, Vec<Error>) {
    let mut pools: Vec<PoolConfig> = Vec::new();
    let mut errors = Vec::new();
    if let Some(parent) = tree.find(POOLS_PATH).filter(Node::is_available) {
        if !parent.is_compatible(&[COMPATIBLE]) {
            let error = parent.error("not compatible with \"baton,cpu-pools\"", "this");
            errors.push(error.property("compatible"));
        }
        for node in parent.children().filter(Node::is_available) {
            if let Some(pool) = pool(&node, machine, &pools, &mut errors) {
                pools.push(pool);
            }
        }
    }
    if pools.is_empty() {
        let kind = kind(machine, 0);
        let cpus = 0..machine.cpus.len();
        pools.push(PoolConfig {
            id: 0,
            path: POOLS_PATH.into(),
            cpus: cpus
                .filter(|cpu| self::kind(machine, *cpu) == kind)
                .collect(),
            scheduler: DEFAULT_SCHEDULER,
            phandle: None,
        });
    }
    (pools, errors)
}

fn pool(
    node: &Node<'_>,
    machine: &Machine,
    before: &[PoolConfig],
    errors: &mut Vec<Error>,
) -> Option<PoolConfig> {
    for property in node
        .properties()
        .filter(|property| !PROPERTIES.contains(&property.name()))
    {
        errors.push(unknown(
            &property,
            "a property of the schema baton,cpu-pools.yaml",
        ));
    }
    let id = keep(errors, id(node, before));
    let cpus = keep(errors, cpus(node, machine, before));
    let scheduler = keep(errors, scheduler(node));
    Some(PoolConfig {
        id: id?,
        path: node.path(),
        cpus: cpus?,
        scheduler: scheduler?,
        phandle: node
            .property("phandle")
            .and_then(|phandle| phandle.u32().ok()),
    })
}

fn id(node: &Node<'_>, before: &[PoolConfig]) -> Result<u32, Error> {
    let property = node.required("reg", "the pool's number, one cell")?;
    let id = property.u32()?;
    match before.iter().find(|pool| pool.id == id) {
        Some(other) => Err(property.error(
            format!("{id}, which {} has already", other.path),
            "a number of its own",
        )),
        None => Ok(id),
    }
}

fn cpus(node: &Node<'_>, machine: &Machine, before: &[PoolConfig]) -> Result<Vec<usize>, Error> {
    let property = node.required("cpus", "the pool's CPUs, a cell each")?;
    let cpus: Vec<usize> = property.cells()?.map(|cpu| cpu as usize).collect();
    if cpus.is_empty() || cpus.len() > MAX_CPUS {
        let found = format!("{} CPUs", cpus.len());
        return Err(property.error(found, "1 to 8 CPUs"));
    }
    let there = machine.cpus.len();
    for (at, cpu) in cpus.iter().enumerate() {
        if *cpu >= there {
            let expected = format!(
                "CPUs 0 to {}, counted in the order of /cpus",
                there.saturating_sub(1)
            );
            return Err(property.error(format!("CPU {cpu}"), expected));
        }
        if cpus.iter().take(at).any(|other| other == cpu) {
            return Err(property.error(format!("CPU {cpu} twice"), "each CPU once"));
        }
        if let Some(other) = before.iter().find(|pool| pool.cpus.contains(cpu)) {
            let found = format!("CPU {cpu}, which {} has already", other.path);
            return Err(property.error(found, "each CPU in one pool"));
        }
        let first = cpus.first().copied().unwrap_or(*cpu);
        if kind(machine, *cpu) != kind(machine, first) {
            let of = |cpu| format!("CPU {cpu} ({})", quote(kind(machine, cpu)));
            let found = format!("{} and {}", of(first), of(*cpu));
            let error = property.error(found, "CPUs of one kind (compatible)");
            return Err(error.remedy("give each kind a pool of its own"));
        }
    }
    Ok(cpus)
}

/// Which core a CPU is.
fn kind(machine: &Machine, cpu: usize) -> &str {
    machine.cpus.get(cpu).map_or("", |cpu| &cpu.kind)
}

/// The CPUs that aren't in a pool because nobody wrote pools down and they're not of the first one's kind.
pub(super) fn left_out(machine: &Machine, pools: &[PoolConfig]) -> Option<Error> {
    let first = machine.cpus.first()?;
    let nobody = pools.iter().all(|pool| pool.path == POOLS_PATH);
    let other = machine.cpus.iter().find(|cpu| cpu.kind != first.kind);
    let other = other.filter(|_| nobody)?;
    let found = format!(
        "{}, which is not {} as {} is: such CPUs run no vCPU",
        quote(&other.kind),
        quote(&first.kind),
        first.path
    );
    let error = Error::new(other.path.clone(), found, "CPUs of one kind in a pool");
    let remedy = "give each kind a pool in /chosen/cpu-pools";
    Some(error.property("compatible").remedy(remedy))
}

fn scheduler(node: &Node<'_>) -> Result<&'static str, Error> {
    let Some(property) = node.property("scheduler") else {
        return Ok(DEFAULT_SCHEDULER);
    };
    let name = property.string()?;
    let known = algorithm::NAMES.iter().find(|known| **known == name);
    known
        .copied()
        .ok_or_else(|| property.error(quote(name), "\"weighted\", \"deadline\" or \"null\""))
}

/// The pool of a domain, as an index in `pools`.
pub(super) fn of_domain(node: &Node<'_>, pools: &[PoolConfig]) -> Result<usize, Error> {
    let Some(property) = node.property("baton,cpu-pool") else {
        return Ok(0);
    };
    let phandle = property.u32()?;
    let found = pools.iter().position(|pool| pool.phandle == Some(phandle));
    found.ok_or_else(|| {
        property
            .error(
                format!("phandle {phandle:#x}"),
                "the phandle of a child of /chosen/cpu-pools without mistakes",
            )
            .remedy("correct that node, or drop the property for the first pool")
    })
}

/// The pools, in their order, by the phandles that another tree's nodes with their numbers have.
pub(super) fn renamed(pools: &[PoolConfig], tree: &Tree<'_>) -> Vec<PoolConfig> {
    let phandle = |pool: &PoolConfig| {
        let parent = tree.find(POOLS_PATH)?;
        let is =
            |node: &Node<'_>| node.property("reg").and_then(|reg| reg.u32().ok()) == Some(pool.id);
        let mut nodes = parent.children();
        nodes.find(is)?.property("phandle")?.u32().ok()
    };
    let one = |pool: &PoolConfig| PoolConfig {
        phandle: phandle(pool),
        ..pool.clone()
    };
    pools.iter().map(one).collect()
}

/// What each vCPU of a domain asks of its pool's algorithm.
pub(super) fn share(node: &Node<'_>) -> Result<Parameters, Error> {
    let number = |name| {
        let property = node.property(name);
        property.map(|property| property.u32()).transpose()
    };
    let weight = number("baton,cpu-weight")?.unwrap_or(1);
    if !(1..=super::domains::WEIGHT_LIMIT).contains(&weight) {
        return Err(node
            .error(format!("weight {weight}"), "a weight of 1 to 10000")
            .property("baton,cpu-weight"));
    }
    let time = |micros: Option<u32>| micros.map(|micros| Duration::from_micros(micros.into()));
    let parameters = Parameters {
        weight,
        budget: time(number("baton,cpu-budget-us")?),
        period: time(number("baton,cpu-period-us")?),
        ..Parameters::default()
    };
    match Reserve::of(&parameters) {
        Ok(_) => Ok(parameters),
        Err(error) => {
            let show =
                |time: Option<Duration>| time.map_or("none".into(), |time| format!("{time}"));
            let found = format!(
                "a budget of {} in a period of {}: {error}",
                show(parameters.budget),
                show(parameters.period)
            );
            Err(node
                .error(found, "both or none, and 100 <= budget <= period")
                .property("baton,cpu-budget-us"))
        }
    }
}
