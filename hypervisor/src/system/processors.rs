//! Management of pools and vCPUs, as the console asks for it.
//!
//! CPUs have two numberings: Baton's (0 booted), in which pools are kept, and the device tree's, in which people think.

use super::domain::{Activity, Domain};
use super::schedule::{self, SharedPool};
use crate::arch::timer;
use alloc::string::ToString;
use alloc::vec::Vec;
use coproc_core::id::DomainId;
use hypervisor::config::DomainConfig;
use hypervisor::console::cpus::{Cpus, DomainSetting, PoolReport, VcpuReport};
use hypervisor::console::management::ManagementError;
use hypervisor::console::setting::shorten;
use hypervisor::devicetree::Error;
use hypervisor::vcpu_schedule::placing;
use hypervisor::vcpu_schedule::{self, CpuSet, Parameters, Place, ScheduleError, VcpuId};

/// As the device tree counts.
pub fn listed(cpus: CpuSet) -> Cpus {
    let numbers = super::get().map_or(&[][..], |system| &system.numbers);
    let places = numbers.iter().zip(0_u32..);
    Cpus(places.fold(0, |set, (number, place)| {
        let there = number.is_some_and(|number| cpus.contains(number));
        set | u64::from(there).wrapping_shl(place)
    }))
}

fn numbered(cpus: Cpus) -> CpuSet {
    let numbers = super::get().map_or(&[][..], |system| &system.numbers);
    let places = numbers.iter().zip(0_u32..);
    places
        .filter(|(_, place)| cpus.0.wrapping_shr(*place) & 1 != 0)
        .filter_map(|(number, _)| *number)
        .collect()
}

/// The pool at `index`.
pub fn pool(index: usize) -> Option<PoolReport> {
    let shared = schedule::pools().get(index)?;
    let inner = shared.lock();
    Some(PoolReport {
        id: shared.id,
        scheduler: inner.pool.algorithm(),
        cpus: listed(inner.pool.cpus()),
        vcpus: inner.pool.vcpus().count() as u64,
    })
}

/// The vCPU at `index`, of all domains in order.
pub fn vcpu(index: usize) -> Option<VcpuReport> {
    let mut all =
        super::domains().flat_map(|domain| domain.vcpus.iter().map(move |vcpu| (domain, vcpu)));
    let (domain, vcpu) = all.nth(index)?;
    let shared = schedule::pools().get(vcpu.pool)?;
    let (report, cpus) = {
        let mut inner = shared.lock();
        let report = inner.pool.report(vcpu.id, timer::now())?;
        (report, inner.pool.cpus())
    };
    Some(VcpuReport {
        domain: domain.id,
        index: vcpu.index,
        pool: shared.id,
        state: match (report.place, vcpu.activity()) {
            (_, Activity::Off) => "off",
            (Place::Running(_), _) => "running",
            (Place::Queued, _) => "ready",
            (Place::Asleep, Activity::Parked) => "parked",
            (Place::Asleep, _) => "waiting",
        },
        cpu: report
            .last
            .map(|cpu| listed(CpuSet::only(cpu)).0.trailing_zeros()),
        affinity: listed(report.parameters.affinity & cpus),
        parameters: report.parameters.share,
        ran: report.ran,
        waited: report.waited,
        longest_wait: report.longest_wait,
        switches: report.switches,
        migrations: report.migrations,
    })
}

fn failed(error: ScheduleError, remedy: &'static str) -> ManagementError {
    ManagementError::Failed {
        what: error.to_string(),
        remedy,
    }
}

/// Gives a pool another algorithm.
///
/// # Errors
/// [`ManagementError`]; the old one stays then.
pub fn set_pool(id: u32, scheduler: &str) -> Result<(), ManagementError> {
    let mut pools = schedule::pools().iter();
    let shared = pools
        .find(|pool| pool.id == id)
        .ok_or(ManagementError::NoPool(id))?;
    let mut inner = shared.lock();
    let algorithm = vcpu_schedule::by_name(scheduler, inner.pool.cpus());
    let algorithm = algorithm.ok_or_else(|| ManagementError::BadValue {
        name: shorten("scheduler"),
        value: shorten(scheduler),
        expected: "weighted, deadline or null",
    })?;
    let kick = inner.pool.replace(algorithm, timer::now());
    drop(inner);
    schedule::announce(kick.map_err(|error| failed(error, "the old algorithm stays"))?);
    log::info!("pool {id}: {scheduler} from now on");
    Ok(())
}

/// Sets something for all vCPUs of a domain, or for none.
///
/// # Errors
/// [`ManagementError`]; nothing is changed then.
pub fn set_domain(name: &str, value: &str) -> Result<(), ManagementError> {
    let (id, setting) = DomainSetting::parse(name, value)?;
    let domain = find(id)?;
    let Some(shared) = domain
        .vcpus
        .first()
        .and_then(|vcpu| schedule::pools().get(vcpu.pool))
    else {
        return Ok(());
    };
    let change = |_, before: Parameters| match setting {
        DomainSetting::Share(parameter) => Parameters {
            share: parameter.apply(before.share),
            ..before
        },
        DomainSetting::Affinity(cpus) => Parameters {
            affinity: numbered(cpus),
            ..before
        },
    };
    let kick = set_all(shared, domain, &change);
    schedule::announce(kick.map_err(|(_, error)| failed(error, "nothing was changed"))?);
    Ok(())
}

/// Asks the domain's pool for what another configuration of it says; vCPUs that it leaves out get what one gets that asks for nothing.
///
/// # Errors
/// What the pool hasn't got; then all is as it was.
#[cold]
pub fn ask_for(
    domain: &Domain,
    config: &DomainConfig,
    running: &[Option<usize>],
) -> Result<(), Error> {
    let of = |index| placing::parameters(config, index, running);
    let wanted: Result<Vec<_>, Error> = (0..config.cpus as usize).map(of).collect();
    let wanted = wanted?;
    let change = |index, before: Parameters| match wanted.get(index) {
        Some(parameters) => *parameters,
        None => Parameters {
            share: Default::default(),
            ..before
        },
    };
    let shared = schedule::pools().get(config.pool);
    let shared = shared.ok_or_else(|| placing::no_pool(config))?;
    let kick = set_all(shared, domain, &change).map_err(|(index, error)| {
        let algorithm = shared.lock().pool.algorithm();
        placing::refusal(config, index, shared.id, algorithm, error)
    });
    schedule::announce(kick?);
    Ok(())
}

/// One after another; if one is refused, which is told, those before it get back what they had.
fn set_all(
    shared: &SharedPool,
    domain: &Domain,
    change: &dyn Fn(usize, Parameters) -> Parameters,
) -> Result<CpuSet, (usize, ScheduleError)> {
    let mut inner = shared.lock();
    let now = timer::now();
    let mut done: Vec<(VcpuId, Parameters)> = Vec::new();
    let mut kick = CpuSet::NONE;
    for vcpu in &domain.vcpus {
        let report = inner.pool.report(vcpu.id, now);
        let before = report.ok_or((vcpu.index, ScheduleError::Unknown))?;
        let before = before.parameters;
        let after = change(vcpu.index, before);
        match inner.pool.set_parameters(vcpu.id, &after, now) {
            Ok(cpus) => {
                kick |= cpus;
                done.push((vcpu.id, before));
            }
            Err(error) => {
                // What was admitted a moment ago is admitted again.
                for (who, before) in done {
                    if let Ok(cpus) = inner.pool.set_parameters(who, &before, now) {
                        kick |= cpus;
                    }
                }
                drop(inner);
                schedule::announce(kick);
                return Err((vcpu.index, error));
            }
        }
    }
    Ok(kick)
}

fn find(id: DomainId) -> Result<&'static Domain, ManagementError> {
    super::domains()
        .find(|domain| domain.id == id)
        .ok_or(ManagementError::NoDomain(id))
}
