//! Pools of CPUs and what domains ask of them, and every mistake in it. The machine has two CPUs.

use super::domains::{configured, domain, text};
use super::*;
use crate::config::{Configuration, DomainConfig, Known};
use alloc::string::String;
use coproc_core::time::Duration;

fn configuration(chosen: impl FnOnce(&mut FdtWriter)) -> Configuration {
    read(&configured(chosen))
}

/// With no driver and no algorithm for coprocs.
pub(super) fn read(blob: &[u8]) -> Configuration {
    let tree = Tree::new(blob).unwrap();
    let machine = Machine::from_tree(&tree).unwrap();
    let known = Known {
        drivers: &[],
        schedulers: &[],
    };
    Configuration::from_tree(&tree, &machine, &known)
}

pub(super) fn pools(fdt: &mut FdtWriter, children: impl FnOnce(&mut FdtWriter)) {
    node(fdt, "cpu-pools", |fdt| {
        text(fdt, "compatible", "baton,cpu-pools");
        cells(fdt, "#address-cells", &[1]);
        cells(fdt, "#size-cells", &[0]);
        children(fdt);
    });
}

pub(super) fn pool(
    fdt: &mut FdtWriter,
    number: u32,
    cpus: &[u32],
    edit: impl FnOnce(&mut FdtWriter),
) {
    node(fdt, &alloc::format!("pool@{number}"), |fdt| {
        cells(fdt, "reg", &[number]);
        cells(fdt, "phandle", &[0x200 + number]);
        cells(fdt, "cpus", cpus);
        edit(fdt);
    });
}

fn first(configuration: &Configuration) -> &DomainConfig {
    configuration.domains[0].as_ref().unwrap()
}

#[test]
fn without_a_word_all_cpus_are_one_pool() {
    let found = configuration(|fdt| domain(fdt, "domain@1", false, |_| {}));
    assert_eq!(found.pools.len(), 1);
    let pool = &found.pools[0];
    assert_eq!((pool.id, pool.scheduler), (0, "weighted"));
    assert_eq!(pool.cpus, [0, 1]);
    assert_eq!((first(&found).pool, first(&found).share.weight), (0, 1));
}

#[test]
fn pools_and_shares_are_read() {
    let found = configuration(|fdt| {
        pools(fdt, |fdt| {
            pool(fdt, 0, &[0], |_| {});
            pool(fdt, 7, &[1], |fdt| text(fdt, "scheduler", "deadline"));
        });
        domain(fdt, "domain@1", false, |fdt| {
            cells(fdt, "baton,cpu-pool", &[0x207]);
            cells(fdt, "baton,cpu-weight", &[5]);
            cells(fdt, "baton,cpu-budget-us", &[2_000]);
            cells(fdt, "baton,cpu-period-us", &[10_000]);
            cells(fdt, "baton,cpu-affinity", &[1]);
        });
        domain(fdt, "domain@2", false, |_| {});
    });
    assert_eq!(found.errors().count(), 0, "{found:?}");
    let seven = &found.pools[1];
    assert_eq!((seven.id, seven.scheduler), (7, "deadline"));
    assert_eq!(seven.cpus, [1]);
    let share = first(&found).share;
    assert_eq!((first(&found).pool, share.weight), (1, 5));
    assert_eq!(share.budget, Some(Duration::from_millis(2)));
    assert_eq!(share.period, Some(Duration::from_millis(10)));
    // Who doesn't say is in the first pool.
    assert_eq!(found.domains[1].as_ref().unwrap().pool, 0);
}

fn mistakes(chosen: impl FnOnce(&mut FdtWriter)) -> Vec<String> {
    let found = configuration(chosen);
    found.errors().map(ToString::to_string).collect()
}

#[test]
fn mistakes_in_pools_are_named() {
    let errors = mistakes(|fdt| {
        pools(fdt, |fdt| {
            pool(fdt, 0, &[0], |_| {});
            pool(fdt, 1, &[0], |_| {});
            pool(fdt, 2, &[4], |_| {});
            pool(fdt, 3, &[1, 1], |_| {});
            pool(fdt, 4, &[], |_| {});
            pool(fdt, 5, &[1], |fdt| text(fdt, "scheduler", "credit"));
            pool(fdt, 6, &[1], |fdt| cells(fdt, "slice-us", &[3]));
        });
    });
    let expected = [
        "/chosen/cpu-pools/pool@1: cpus: CPU 0, which /chosen/cpu-pools/pool@0 has already; expected each CPU in one pool",
        "/chosen/cpu-pools/pool@2: cpus: CPU 4; expected CPUs 0 to 1, counted in the order of /cpus",
        "/chosen/cpu-pools/pool@3: cpus: CPU 1 twice; expected each CPU once",
        "/chosen/cpu-pools/pool@4: cpus: 0 CPUs; expected 1 to 8 CPUs",
        "/chosen/cpu-pools/pool@5: scheduler: \"credit\"; expected \"weighted\", \"deadline\" or \"null\"",
        "/chosen/cpu-pools/pool@6: slice-us: unknown property; expected a property of the schema baton,cpu-pools.yaml; \
         correct its name or drop it",
    ];
    assert_eq!(errors, expected);
}

#[test]
fn mistakes_in_what_a_domain_asks_are_named() {
    let wrong = |edit: &dyn Fn(&mut FdtWriter)| {
        let errors = mistakes(|fdt| {
            pools(fdt, |fdt| pool(fdt, 0, &[0], |_| {}));
            domain(fdt, "domain@1", false, edit);
        });
        assert_eq!(errors.len(), 1, "{errors:?}");
        errors[0].clone()
    };
    let pool = wrong(&|fdt| cells(fdt, "baton,cpu-pool", &[0x999]));
    assert!(
        pool.starts_with("/chosen/domain@1: baton,cpu-pool: phandle 0x999; expected the phandle"),
        "{pool}"
    );
    let weight = wrong(&|fdt| cells(fdt, "baton,cpu-weight", &[0]));
    assert_eq!(
        weight,
        "/chosen/domain@1: baton,cpu-weight: weight 0; expected a weight of 1 to 10000"
    );
    for (budget, period) in [(50, 1000), (2000, 1000)] {
        let error = wrong(&|fdt| {
            cells(fdt, "baton,cpu-budget-us", &[budget]);
            cells(fdt, "baton,cpu-period-us", &[period]);
        });
        assert!(
            error.contains("baton,cpu-budget-us: a budget of "),
            "{error}"
        );
    }
    let half = wrong(&|fdt| cells(fdt, "baton,cpu-period-us", &[1000]));
    assert!(half.contains("expected both or none"), "{half}");
    let affinity = wrong(&|fdt| cells(fdt, "baton,cpu-affinity", &[1]));
    assert_eq!(
        affinity,
        "/chosen/domain@1: baton,cpu-affinity: CPU 1, which is not in /chosen/cpu-pools/pool@0; expected CPUs of the domain's pool"
    );
}
