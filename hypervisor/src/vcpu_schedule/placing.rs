//! A domain's vCPUs in its pool: what they ask for, and how a refusal is told, at boot as when a configuration is only checked.

use super::{CpuSet, Parameters, ScheduleError};
use crate::config::DomainConfig;
use crate::devicetree::Error;
use alloc::format;
use alloc::string::{String, ToString as _};

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
