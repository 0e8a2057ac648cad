//! What becomes of each domain, in words.

use control_plane::config::{DomainConfig, Module};
use control_plane::devicetree::Region;
use coproc_core::algorithm::Parameters;

use super::super::findings::{self, Fate};
use super::Plan;

impl Plan<'_> {
    /// All domains, in the order of the tree.
    pub(super) fn summary(&mut self) {
        for domain in &self.configuration.domains {
            match domain {
                Ok(config) if self.left_out.contains(&config.path) => {
                    self.describe(config, Fate::NotCreated);
                }
                Ok(config) if config.enabled => self.describe(config, Fate::Starts),
                Ok(config) => self.describe(config, Fate::Waits),
                Err(rejected) => self.rejected(&rejected.path),
            }
        }
    }

    fn rejected(&mut self, path: &str) {
        self.findings.domains.push(findings::Domain {
            node: path.to_owned(),
            id: None,
            fate: Fate::NotCreated,
            vcpus: 0,
            pool: None,
            memory_mib: 0,
            has: Vec::new(),
        });
    }

    fn describe(&mut self, config: &DomainConfig, fate: Fate) {
        let pool = self.configuration.pools.get(config.pool);
        let mut domain = findings::Domain {
            node: config.path.clone(),
            id: Some(config.id.0),
            fate,
            vcpus: config.cpus,
            pool: pool.map(|pool| pool.id),
            memory_mib: config.memory >> 20,
            has: Vec::new(),
        };
        if fate != Fate::NotCreated {
            let kind = if config.firmware {
                "firmware"
            } else {
                "kernel"
            };
            domain.has.push(module(kind, &config.kernel));
            let ramdisk = config.ramdisk.as_ref();
            domain
                .has
                .extend(ramdisk.map(|file| module("ramdisk", file)));
            for assignment in &config.coprocs {
                let mut instances = self.instances.iter();
                let instance = instances.find(|instance| instance.id == assignment.coproc);
                let algorithm = instance.map_or("unknown", |instance| instance.algorithm.name());
                let part = part(algorithm, &assignment.parameters);
                let id = assignment.coproc.0;
                domain
                    .has
                    .push(format!("coproc {id} under {algorithm}{part}"));
            }
            for passed in &config.passthrough {
                domain.has.push(format!("{passed} for itself"));
            }
        }
        self.findings.domains.push(domain);
    }
}

fn module(kind: &str, module: &Module) -> String {
    let Region { address, size } = module.region;
    format!("{kind} of {} KiB at {address:#x}", size.div_ceil(1024))
}

/// What an algorithm makes of a domain's parameters.
fn part(algorithm: &str, parameters: &Parameters) -> String {
    match (algorithm, parameters.budget, parameters.period) {
        ("reservation", Some(budget), Some(period)) => format!(", {budget} in each {period}"),
        ("weighted" | "reservation", _, _) => format!(", weight {}", parameters.weight),
        ("priority", _, _) => format!(", priority {}", parameters.priority),
        _ => String::new(),
    }
}
