//! A domain's parts in coprocs: which, and what their algorithms are told of it.

use super::reader::Reader;
use super::{Assignment, Fixture, WEIGHT_LIMIT};
use crate::config::coprocs::{CoprocConfig, keep};
use crate::config::passthrough::Passed;
use crate::devicetree::Error;
use crate::passthrough::plan;
use alloc::format;
use alloc::string::ToString as _;
use alloc::vec::Vec;
use coproc_core::algorithm::Parameters;
use coproc_core::time::Duration;

/// Most coprocs of a domain: there are as many slots on its bus besides the bridge's.
const COPROC_LIMIT: usize = 31;

/// Properties with one cell for each of baton,coprocs, and what their cells are. A time of 0 is none.
const PER_COPROC: [(&str, &str); 4] = [
    ("baton,coproc-weights", "weights"),
    ("baton,coproc-priorities", "priorities"),
    ("baton,coproc-budgets-us", "budgets"),
    ("baton,coproc-periods-us", "periods"),
];

impl Reader<'_, '_> {
    pub(super) fn assignments(&mut self) -> Vec<Assignment> {
        let Some(property) = self.node.property("baton,coprocs") else {
            for (name, _) in PER_COPROC {
                if let Some(found) = self.node.property(name) {
                    let error =
                        found.error("values without baton,coprocs", "a value for each coproc");
                    self.errors.push(error);
                }
            }
            return Vec::new();
        };
        let Some(phandles) = keep(&mut self.errors, property.cells()) else {
            return Vec::new();
        };
        let count = phandles.count_left();
        if count > COPROC_LIMIT {
            let error = property.error(format!("{count} coprocs"), "at most 31");
            self.errors.push(error);
            return Vec::new();
        }
        let parameters = self.parameters(count);
        let mut list: Vec<Assignment> = Vec::new();
        for (at, phandle) in phandles.enumerate() {
            const EXPECTED: &str = "a phandle of a child of /chosen/coprocs";
            let target = self.node.tree().by_phandle(phandle);
            let entry = self.coprocs.iter().find(|entry| Some(entry.node) == target);
            match entry.map(|entry| (entry, &entry.config)) {
                None => {
                    let found = match target {
                        Some(node) => format!(
                            "phandle {phandle:#x} names {}, which is no coproc",
                            node.path()
                        ),
                        None => format!("phandle {phandle:#x} names no coproc"),
                    };
                    let error = property.error(found, EXPECTED);
                    self.errors
                        .push(error.remedy("add the node or drop the phandle"));
                }
                Some((entry, Err(_))) => {
                    let found = format!(
                        "phandle {phandle:#x} names {}, which has a mistake",
                        entry.node.path()
                    );
                    let error = property.error(found, "a coproc without mistakes");
                    self.errors.push(error.remedy("correct that node first"));
                }
                Some((_, Ok(coproc))) if !coproc.shared => {
                    let found = format!("{}, which is disabled", coproc.path);
                    let error = property.error(found, "a coproc that is shared from boot on");
                    self.errors
                        .push(error.remedy(
                            "set its status to \"okay\", or attach the domain at run time",
                        ));
                }
                Some((_, Ok(coproc))) if list.iter().any(|other| other.coproc == coproc.id) => {
                    self.errors
                        .push(property.error(format!("{} twice", coproc.path), "each coproc once"));
                }
                Some((_, Ok(coproc))) => {
                    list.push(Assignment {
                        coproc: coproc.id,
                        parameters: parameters.get(at).copied().unwrap_or_default(),
                    });
                }
            }
        }
        list
    }

    /// What the algorithms are told, for each of `count` coprocs.
    fn parameters(&mut self, count: usize) -> Vec<Parameters> {
        let [weights, priorities, budgets, periods] = PER_COPROC.map(|(name, kind)| {
            let values = self.values(name, kind, count);
            keep(&mut self.errors, values).unwrap_or_default()
        });
        let time = |times: &[u32], at: usize| {
            let time = times.get(at).copied().filter(|time| *time > 0)?;
            Some(Duration::from_micros(u64::from(time)))
        };
        let mut list = Vec::new();
        for at in 0..count {
            let (budget, period) = (time(&budgets, at), time(&periods, at));
            let wrong = match (budget, period) {
                (Some(budget), Some(period)) if budget > period => Some((
                    "baton,coproc-budgets-us",
                    format!("a budget of {budget} in {period}"),
                    "at most the period",
                )),
                (Some(_), None) => Some((
                    "baton,coproc-periods-us",
                    "no period for a budget".to_string(),
                    "a period for each budget",
                )),
                (None, Some(_)) => Some((
                    "baton,coproc-budgets-us",
                    "no budget for a period".to_string(),
                    "a budget for each period",
                )),
                _ => None,
            };
            if let Some((name, found, expected)) = wrong {
                self.errors
                    .push(self.node.error(found, expected).property(name));
            }
            list.push(Parameters {
                weight: weights.get(at).copied().unwrap_or(1),
                priority: priorities.get(at).copied().unwrap_or(0),
                budget,
                period,
            });
        }
        list
    }

    fn values(&self, name: &str, kind: &str, count: usize) -> Result<Vec<u32>, Error> {
        let Some(property) = self.node.property(name) else {
            return Ok(Vec::new());
        };
        let values: Vec<u32> = property.cells()?.collect();
        if values.len() != count {
            let expected = format!("{count}, one for each cell of baton,coprocs");
            return Err(property.error(format!("{} {kind}", values.len()), expected));
        }
        let bad = values
            .iter()
            .find(|value| kind == "weights" && !(1..=WEIGHT_LIMIT).contains(*value));
        match bad {
            Some(weight) => {
                Err(property.error(format!("weight {weight}"), "weights of 1 to 10000"))
            }
            None => Ok(values),
        }
    }

    /// The coprocs that are devices of the tree, if there is room for them behind the devices given away.
    pub(super) fn fixtures(
        &mut self,
        coprocs: &[Assignment],
        passthrough: &[Passed],
    ) -> Vec<Fixture> {
        let entries = self.coprocs.iter();
        let known: Vec<&CoprocConfig> =
            entries.filter_map(|one| one.config.as_ref().ok()).collect();
        let fixture = |assignment: &Assignment| {
            let coproc = known.iter().find(|one| one.id == assignment.coproc)?;
            let node = coproc.node.as_ref()?.node.clone();
            Some(Fixture {
                coproc: coproc.id,
                node,
            })
        };
        let fixtures: Vec<Fixture> = coprocs.iter().filter_map(fixture).collect();
        if let Err(full) = plan(passthrough, &fixtures)
            && plan(passthrough, &[]).is_ok()
        {
            let error = self
                .node
                .error(full.to_string(), "fewer or smaller coprocs");
            self.errors.push(error.property("baton,coprocs"));
        }
        fixtures
    }
}
