//! The pools, and a domain's vCPUs in its pool: what they ask for, and how a refusal is told, at boot as when a configuration is only checked.

use super::{CpuSet, Parameters, Pool, ScheduleError, VcpuId, by_name};
use crate::config::pools::POOLS_PATH;
use crate::config::{DomainConfig, PoolConfig};
use crate::devicetree::Error;
use crate::startup::Voice;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use coproc_core::time::Instant;

/// Makes the pools of those of their CPUs that run vCPUs. One without any stays empty, and refuses every domain. `running`: for each CPU of the device
/// tree its number, if it runs vCPUs.
pub fn pools(
    configs: &[PoolConfig],
    running: &[Option<usize>],
    voice: &mut dyn Voice,
) -> Vec<(u32, Pool)> {
    let mut used = CpuSet::NONE;
    let mut pools = Vec::new();
    for config in configs {
        let cpus = config.cpus.iter();
        let cpus: CpuSet = cpus
            .filter_map(|cpu| running.get(*cpu).copied().flatten())
            .collect();
        if cpus.is_empty() {
            let expected = "a CPU that starts and is no firmware core";
            let error = Error::new(config.path.clone(), "none of them runs vCPUs", expected);
            voice.error(&error.property("cpus"));
        }
        used |= cpus;
        // The configuration has looked the name up in the same list.
        if let Some(algorithm) = by_name(config.scheduler, cpus) {
            pools.push((config.id, Pool::new(cpus, algorithm)));
        }
    }
    for (index, cpu) in running.iter().enumerate() {
        if cpu.is_some_and(|cpu| !used.contains(cpu)) {
            let line = format_args!("CPU {index} is in no pool: it runs no vCPU");
            voice.warning(POOLS_PATH, line);
        }
    }
    pools
}

/// Takes a domain's vCPUs into its pool, which has number `id`: all of them, asleep, or none. The CPUs of `kick` have to reschedule then.
///
/// # Errors
/// Which one the pool didn't take, and why.
pub fn add(
    config: &DomainConfig,
    id: u32,
    pool: &mut Pool,
    running: &[Option<usize>],
    now: Instant,
    kick: &mut CpuSet,
) -> Result<Vec<VcpuId>, Error> {
    let mut added = Vec::new();
    let mut one = |index| {
        let parameters = parameters(config, index, running)?;
        let taken = pool.add(&parameters, now);
        let (vcpu, cpus) =
            taken.map_err(|error| refusal(config, index, id, pool.algorithm(), error))?;
        *kick |= cpus;
        added.push(vcpu);
        Ok(())
    };
    if let Err(error) = (0..config.cpus as usize).try_for_each(&mut one) {
        for vcpu in added {
            // It never ran, so nothing is in its way.
            let _ = pool.remove(vcpu);
        }
        return Err(error);
    }
    Ok(added)
}

fn refused(
    config: &DomainConfig,
    property: &'static str,
    found: String,
    expected: &'static str,
) -> Error {
    Error::new(config.path.clone(), found, expected).property(property)
}

/// The error that a domain's pool isn't there.
pub fn no_pool(config: &DomainConfig) -> Error {
    let found = "no pool".to_string();
    refused(
        config,
        "baton,cpu-pool",
        found,
        "a pool with a CPU that runs",
    )
}

/// What vCPU `index` of a domain asks of its pool. `running`: for each CPU of the device tree its number, if it runs vCPUs.
///
/// # Errors
/// If it is bound to a CPU that doesn't.
pub fn parameters(
    config: &DomainConfig,
    index: usize,
    running: &[Option<usize>],
) -> Result<Parameters, Error> {
    let affinity = match config.affinity.get(index) {
        None => CpuSet::ALL,
        Some(wanted) => {
            let cpu = running.get(*wanted).copied().flatten().ok_or_else(|| {
                let found = format!("CPU {wanted}, which does not run domains");
                let expected = "a CPU that started and is no firmware core";
                refused(config, "baton,cpu-affinity", found, expected)
            })?;
            CpuSet::only(cpu)
        }
    };
    Ok(Parameters {
        share: config.share,
        affinity,
    })
}

/// The error that pool number `pool`, under `algorithm`, didn't take vCPU `index` of a domain.
pub fn refusal(
    config: &DomainConfig,
    index: usize,
    pool: u32,
    algorithm: &str,
    error: ScheduleError,
) -> Error {
    let found = format!("vCPU {index} in pool {pool} ({algorithm}): {error}");
    let property = match error {
        ScheduleError::NoCpu => "baton,cpu-affinity",
        ScheduleError::OutOfRange { .. } => "baton,cpu-weight",
        _ if config.share.budget.is_some() => "baton,cpu-budget-us",
        _ => "cpus",
    };
    refused(config, property, found, "what the pool can give")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::machine::Machine;
    use crate::config::{Configuration, Known, Module};
    use crate::devicetree::{Region, Tree};
    use crate::lifecycle::policy::RestartPolicy;
    use coproc_core::id::DomainId;
    use core::fmt;

    /// QEMU's `virt` with two CPUs.
    const TREE: &[u8] =
        include_bytes!("../../../control-plane/src/devicetree/fixtures/qemu-virt-gicv3.dtb");
    #[derive(Default)]
    struct Lines(Vec<String>);

    impl Voice for Lines {
        fn error(&mut self, error: &Error) {
            self.0.push(error.to_string());
        }

        fn warning(&mut self, _: &str, line: fmt::Arguments<'_>) {
            self.0.push(line.to_string());
        }

        fn note(&mut self, path: &str, line: fmt::Arguments<'_>) {
            self.warning(path, line);
        }
    }

    /// The pool that there is if nobody writes one down.
    fn config(cpus: &[usize]) -> PoolConfig {
        let tree = Tree::new(TREE).unwrap();
        let machine = Machine::from_tree(&tree).unwrap();
        let known = Known {
            drivers: &[],
            schedulers: &[],
        };
        let mut config = Configuration::from_tree(&tree, &machine, &known)
            .pools
            .remove(0);
        config.cpus = cpus.to_vec();
        config
    }

    #[test]
    fn a_pool_has_those_of_its_cpus_that_run_vcpus() {
        // The numbers at run time aren't those of the tree.
        let running = [Some(1), Some(0), None];
        let mut lines = Lines::default();
        let mut made = |cpus: &[usize]| {
            let mut pools = pools(&[config(cpus)], &running, &mut lines);
            pools.remove(0).1.cpus()
        };
        let both = CpuSet::only(0) | CpuSet::only(1);
        assert_eq!(made(&[0, 1, 2]), both);
        assert_eq!(made(&[1, 2]), CpuSet::only(0));
        assert!(made(&[2]).is_empty());
        let idle = |cpu| format!("CPU {cpu} is in no pool: it runs no vCPU");
        let none = "/chosen/cpu-pools: cpus: none of them runs vCPUs; \
                    expected a CPU that starts and is no firmware core";
        assert_eq!(lines.0, [idle(0), none.to_string(), idle(0), idle(1)]);
    }

    /// A domain of two vCPUs, the second of which is bound to CPU `second` of the tree.
    fn domain(second: usize) -> DomainConfig {
        let module = |path: &str| Module {
            path: path.into(),
            region: Region {
                address: 0,
                size: 0,
            },
        };
        DomainConfig {
            id: DomainId(1),
            path: "/chosen/domain@1".into(),
            cpus: 2,
            memory: 2 << 20,
            vpl011: false,
            kernel: module("/chosen/domain@1/module@0"),
            firmware: false,
            ramdisk: None,
            bootargs: String::new(),
            coprocs: Vec::new(),
            control: false,
            restart: RestartPolicy::default(),
            enabled: true,
            affinity: [0, second].to_vec(),
            pool: 0,
            share: Default::default(),
            passthrough: Vec::new(),
            fixtures: Vec::new(),
        }
    }

    #[test]
    fn a_pool_takes_all_vcpus_of_a_domain_or_none() {
        let running = [Some(0), Some(1), None];
        let mut lines = Lines::default();
        let (id, mut pool) = pools(&[config(&[0])], &running, &mut lines).remove(0);
        let mut kick = CpuSet::NONE;
        let mut ask = |second| {
            let now = Instant::from_nanos(0);
            let added = add(&domain(second), id, &mut pool, &running, now, &mut kick);
            (
                added.map_err(|error| error.to_string()),
                pool.vcpus().count(),
            )
        };
        let (error, left) = ask(1);
        let text = "/chosen/domain@1: baton,cpu-affinity: vCPU 1 in pool 0 (weighted): none of";
        assert!(error.as_ref().unwrap_err().starts_with(text), "{error:?}");
        assert_eq!(left, 0, "the first one stayed");
        let (error, left) = ask(2);
        let text = "CPU 2, which does not run domains";
        assert!(error.as_ref().unwrap_err().contains(text), "{error:?}");
        assert_eq!(left, 0);
        assert_eq!(ask(0), (Ok([VcpuId(0), VcpuId(1)].to_vec()), 2));
    }
}
