//! The management operations on the running system.

use super::definition::{self, Unread};
use super::domain::Domain;
use super::fixture::{self, Fixture};
use super::lifecycle::{self, Refused};
use super::load;
use super::passthrough;
use super::processors;
use super::recording::feed;
use super::schedule;
use super::sharing::Instance;
use super::{attachment, boot, custody, firmware};
use crate::arch::{self, timer};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Condition, Coproc, Settings, Spread, Stage, State};
use coproc_core::environment::Environment;
use coproc_core::id::{CoprocId, DomainId, VcoprocId};
use coproc_core::record::Input;
use core::fmt;
use hypervisor::console::coprocs::{
    CoprocReport, HistogramReport, RecordReport, SliceReport, VcoprocReport, VcoprocState,
};
use hypervisor::console::cpus::{PoolReport, VcpuReport};
use hypervisor::console::devices::DeviceReport;
use hypervisor::console::domains::{DomainReport, MemoryReport};
use hypervisor::console::management::{Definition, Management, ManagementError};
use hypervisor::console::setting::{Setting, shorten};
use hypervisor::lifecycle::Operation;
use hypervisor::trace::Rings;
use hypervisor::vcpu_schedule::CpuSet;

/// The console's face of it, and that of the domain that has this number.
pub struct Face(pub Option<DomainId>);

fn instance(id: CoprocId) -> Option<&'static Instance> {
    super::get()?
        .instances
        .iter()
        .find(|instance| instance.id == id)
}

fn position(id: CoprocId) -> Option<(usize, &'static Instance)> {
    super::get()?
        .instances
        .iter()
        .enumerate()
        .find(|(_, instance)| instance.id == id)
}

fn find_domain(id: DomainId) -> Result<&'static Domain, ManagementError> {
    super::domains()
        .find(|domain| domain.id == id)
        .ok_or(ManagementError::NoDomain(id))
}

/// The domain's vcoproc of this coprocessor, unless it is on its way out.
fn find_share(instance: &Instance, domain: DomainId) -> Option<VcoprocId> {
    let core = instance.core();
    let mut vcoprocs = core.coproc.report(timer::now()).vcoprocs.into_iter();
    vcoprocs
        .find(|vcoproc| vcoproc.domain == domain && vcoproc.condition != Condition::Detaching)
        .map(|vcoproc| vcoproc.id)
}

/// Gives the coprocessor another algorithm, live.
fn exchange(instance: &Instance, name: &str) -> Result<(), ManagementError> {
    let known = sched_algos::KNOWN
        .iter()
        .find(|(known, _, _)| *known == name);
    match known {
        Some((_, _, true)) => {}
        Some((_, feature, false)) => {
            let what = format!("algorithm {name} needs the cargo feature {feature}");
            return Err(ManagementError::Failed {
                what,
                remedy: "which is not in this build",
            });
        }
        None => {
            return Err(ManagementError::BadValue {
                name: shorten("scheduler"),
                value: shorten(name),
                expected: sched_algos::NAMES,
            });
        }
    }
    instance
        .with(|coproc, machine| {
            let tuning = coproc.tuning();
            let algorithm = sched_algos::by_name(name, &tuning);
            algorithm.map_or(Ok(()), |algorithm| {
                let call = |coproc: &mut Coproc, env: &mut dyn Environment| {
                    coproc.replace_algorithm(env, algorithm)
                };
                feed(coproc, machine, Input::Algorithm(name), call, |result| {
                    result.into()
                })
            })
        })
        .map_err(|error| failed(&error, "the old algorithm stays"))
}

/// An error unless the coprocessor is shared.
fn shared(instance: &Instance) -> Result<(), ManagementError> {
    if instance.is_ending() {
        return Err(ManagementError::Unsharing(instance.id));
    }
    if instance.with(|coproc, _| coproc.stage()) == Stage::Off {
        return Err(ManagementError::NotShared(instance.id));
    }
    Ok(())
}

fn failed(what: &impl ToString, remedy: &'static str) -> ManagementError {
    ManagementError::Failed {
        what: what.to_string(),
        remedy,
    }
}

fn refused(why: Refused) -> ManagementError {
    match why {
        Refused::State(refusal) => ManagementError::Refused(refusal),
        Refused::NotStill => failed(&"its CPUs haven't let go of it yet", "ask again"),
        Refused::Cycling => failed(&"it is being created and destroyed", "wait for the end"),
    }
}

/// Takes the function out of its slot, which reads all-ones from here on, like a card that was pulled.
fn pull(domain: &Domain, who: VcoprocId) {
    let mut pci = domain.pci.lock();
    let slot = pci
        .links
        .iter()
        .position(|link| link.is_some_and(|link| link.who == who));
    if let Some(slot) = slot {
        if let Err(error) = pci.bus.detach(slot as u8) {
            log::error!("{}: {error}", domain.id);
        }
        if let Some(place) = pci.links.get_mut(slot) {
            *place = None;
        }
        pci.signals.set(slot as u8, false);
        domain.refresh_interrupts(&mut pci);
    }
    drop(pci);
    fixture::pull(domain, who);
}

impl Management for Face {
    fn memory(&mut self) -> MemoryReport {
        MemoryReport {
            free: super::FRAMES.lock().total(),
            heap: arch::heap::heap_use().0 as u64,
            spaces: boot::iommu().map_or(0, |iommu| iommu.lock().spaces() as u64),
            firmware_vmids: u64::from(firmware::vmids_in_use()),
            pending: attachment::occupied() || lifecycle::occupied(),
            domain_vmids: u64::from(super::load::vmids_lent()),
        }
    }

    fn domain(&mut self, index: usize) -> Option<DomainReport> {
        let system = super::get()?;
        let domain = system.domains.get(index)?;
        let mut coprocs = ArrayVec::new();
        let links = domain.pci.lock().links;
        let fixtures = domain.fixtures.read();
        let fixtures = fixtures.iter().filter_map(Fixture::link);
        for link in links.into_iter().flatten().chain(fixtures) {
            if let Some(instance) = system.instances.get(link.instance) {
                let _ = coprocs.try_push(instance.id);
            }
        }
        let may_run = domain.vcpus.iter().fold(CpuSet::NONE, |cpus, vcpu| {
            cpus | schedule::pools()
                .get(vcpu.pool)
                .map_or(CpuSet::NONE, |pool| {
                    let mut inner = pool.lock();
                    let report = inner.pool.report(vcpu.id, timer::now());
                    let affinity = report.map_or(CpuSet::NONE, |report| report.parameters.affinity);
                    affinity & inner.pool.cpus()
                })
        });
        Some(DomainReport {
            id: domain.id,
            state: domain.control.lock().life.state(),
            vcpus: domain.cpus(),
            memory_mib: domain.memory_size() >> 20,
            cpus: processors::listed(may_run).0,
            coprocs,
        })
    }

    fn coproc(&mut self, index: usize) -> Option<CoprocReport> {
        let instance = super::get()?.instances.get(index)?;
        let (report, settings) =
            instance.with(|coproc, _| (coproc.report(timer::now()), coproc.settings()));
        Some(CoprocReport {
            id: report.id,
            driver: report.driver,
            scheduler: report.algorithm,
            state: if instance.is_ending() {
                "unsharing"
            } else if report.state == Stage::Off.state() {
                "unshared"
            } else {
                report.state
            },
            current: report.holder,
            switches: report.switches,
            refusals: report.refusals,
            elapsed: report.time.elapsed,
            charge: report.time.charge,
            overhead: report.time.overhead,
            idle: report.time.idle,
            fault: report.time.fault,
            switch_min: report.switch_time.min,
            switch_mean: report.switch_time.mean(),
            switch_max: report.switch_time.max,
            settings,
            declared: report.declared,
            measured: report.measured,
        })
    }

    fn vcoproc(&mut self, coproc: CoprocId, index: usize) -> Option<VcoprocReport> {
        let instance = instance(coproc)?;
        let report = instance.with(|coproc, _| coproc.report(timer::now()));
        let vcoproc = report.vcoprocs.get(index)?;
        let mut parameters = None;
        let wait = instance.with(|coproc, _| {
            coproc.parameters(&mut |who, found, _| {
                if who == vcoproc.id {
                    parameters = Some(*found);
                }
            });
            coproc.spreads(vcoproc.id).map(|spreads| spreads.wait)
        });
        let wait = wait.unwrap_or(Spread::EMPTY);
        let counters = &vcoproc.counters;
        Some(VcoprocReport {
            id: vcoproc.id,
            coproc,
            domain: vcoproc.domain,
            state: match vcoproc.condition {
                Condition::Current => VcoprocState::Current,
                Condition::Queued => VcoprocState::Queued,
                Condition::Asleep => VcoprocState::Asleep,
                Condition::Faulted(_) | Condition::Detaching => VcoprocState::Faulted,
            },
            charge: vcoproc.charge,
            charge_total: report.time.charge,
            overhead: vcoproc.overhead,
            refused: counters.refused,
            slices: counters.slices,
            touches: counters.touches,
            max_exits_per_slice: counters.max_exits,
            emulated: counters.emulated,
            interrupts: counters.interrupts,
            iommu_faults: counters.iommu_faults,
            last_fault_address: counters.last_fault.map(|address| address.get()),
            parameters,
            wait_p50: wait.quantile(500),
            wait_p99: wait.quantile(990),
            wait_max: wait.max,
        })
    }

    fn histogram(
        &mut self,
        coproc: CoprocId,
        vcoproc: usize,
        histogram: usize,
    ) -> Option<HistogramReport> {
        instance(coproc)?.with(|framework, _| {
            let (who, _) = framework.vcoprocs().nth(vcoproc)?;
            let spreads = framework.spreads(who)?;
            let (of, spread) = *[
                ("switch", spreads.switch),
                ("refusal", spreads.refusal),
                ("wait", spreads.wait),
            ]
            .get(histogram)?;
            Some(HistogramReport {
                coproc,
                vcoproc: who,
                of,
                spread,
            })
        })
    }

    fn trace(&mut self) -> &dyn Rings {
        &super::trace::All
    }

    fn set(&mut self, coproc: CoprocId, name: &str, value: &str) -> Result<(), ManagementError> {
        let instance = instance(coproc).ok_or(ManagementError::NoCoproc(coproc))?;
        // The next one who shares it begins with the configuration again.
        shared(instance)?;
        let tune = |change: &dyn Fn(Settings) -> Settings| {
            instance
                .with(|coproc, machine| {
                    let settings = change(coproc.settings());
                    let call = |c: &mut Coproc, env: &mut dyn Environment| c.tune(env, settings);
                    feed(coproc, machine, Input::Tune(settings), call, |result| {
                        result.into()
                    })
                })
                .map_err(|error| failed(&error, "nothing was changed"))
        };
        match Setting::parse(name, value)? {
            Setting::Slice(slice) => tune(&|settings| Settings { slice, ..settings }),
            Setting::RefusalBound(refusal_bound) => tune(&|settings| Settings {
                refusal_bound,
                ..settings
            }),
            Setting::StarvationBound(starvation_bound) => tune(&|settings| Settings {
                starvation_bound,
                ..settings
            }),
            Setting::Scheduler(name) => exchange(instance, name),
            Setting::Share(domain, parameter) => {
                let who = find_share(instance, domain)
                    .ok_or(ManagementError::NotAttached { coproc, domain })?;
                instance
                    .with(|coproc, machine| {
                        let mut parameters = Parameters::default();
                        coproc.parameters(&mut |other, found, _| {
                            if other == who {
                                parameters = *found;
                            }
                        });
                        let parameters = parameter.apply(parameters);
                        let input = Input::Parameters(who, parameters);
                        let call = |coproc: &mut Coproc, env: &mut dyn Environment| {
                            coproc.set_parameters(env, who, &parameters)
                        };
                        feed(coproc, machine, input, call, |result| result.into())
                    })
                    .map_err(|error| failed(&error, "nothing was changed"))
            }
        }
    }

    fn device(&mut self, index: usize) -> Option<DeviceReport> {
        let mut left = index;
        for domain in super::domains() {
            if let Some(report) = passthrough::list(domain).nth(left) {
                return Some(report);
            }
            left = left.saturating_sub(passthrough::list(domain).count());
        }
        None
    }

    fn pool(&mut self, index: usize) -> Option<PoolReport> {
        processors::pool(index)
    }

    fn vcpu(&mut self, index: usize) -> Option<VcpuReport> {
        processors::vcpu(index)
    }

    fn set_pool(&mut self, pool: u32, scheduler: &str) -> Result<(), ManagementError> {
        processors::set_pool(pool, scheduler)
    }

    fn set_domain(&mut self, name: &str, value: &str) -> Result<(), ManagementError> {
        processors::set_domain(name, value)
    }

    fn attach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError> {
        let (index, instance) = position(coproc).ok_or(ManagementError::NoCoproc(coproc))?;
        let domain = find_domain(domain)?;
        shared(instance)?;
        // Until it's attached, nobody takes the domain apart.
        let control = domain.control.lock();
        if !control.life.state().has_coprocs() || domain.ending().is_some() {
            let what = format!("{} is {}", domain.id, control.life.state());
            return Err(failed(&what, "attach when it runs"));
        }
        if find_share(instance, domain.id).is_some() {
            return Err(ManagementError::AlreadyAttached {
                coproc,
                domain: domain.id,
            });
        }
        let slot = if instance.description.is_some() {
            // A slot that was used before comes first, so that a coprocessor comes back where it was.
            let pci = domain.pci.lock();
            let slot = pci.bus.reserved().or_else(|| pci.bus.free());
            slot.ok_or_else(|| failed(&"all PCI slots are taken", "detach another coproc"))?
        } else {
            // Its tree is made when it starts.
            fixture::position(domain, coproc).ok_or_else(|| {
                let what = format!("{}'s tree has no node for coproc {}", domain.id, coproc.0);
                failed(&what, "name it in the domain's baton,coprocs")
            })?
        };
        let link = attachment::attach(
            index,
            instance,
            domain.id,
            &domain.memory.read(),
            &Parameters::default(),
            slot,
        )
        .map_err(|error| failed(&error, "nothing was attached"))?;
        if let Err(error) = load::show(domain, instance, slot, link) {
            if let Err(error) = attachment::detach(index, instance, link.who) {
                log::error!("{}: {error}", link.who);
            }
            return Err(failed(&error, "nothing was attached"));
        }
        let place = match &instance.description {
            Some(_) => "in PCI slot",
            None => "as node",
        };
        log::info!(
            "{}: {} attached to coproc {} {place} {slot}",
            domain.id,
            link.who,
            coproc.0
        );
        Ok(())
    }

    fn operate(&mut self, domain: DomainId, operation: Operation) -> Result<(), ManagementError> {
        let domain = find_domain(domain)?;
        lifecycle::request(domain, operation).map_err(refused)
    }

    fn put(&mut self, offset: u32, part: &[u8]) -> Result<usize, ManagementError> {
        Ok(definition::put(self.0, offset, part)?)
    }

    fn define(&mut self, domain: DomainId) -> Result<Definition, ManagementError> {
        let found = definition::define(self.0, domain);
        let found = found.map_err(|error| match error {
            Unread::File(error) => error.into(),
            Unread::Domain(why) => refused(why),
            Unread::NoPlace => failed(
                &"no place is left for a new domain",
                "use the number of one that is gone",
            ),
        })?;
        Ok(Definition {
            mistakes: found.errors,
            warnings: found.warnings,
        })
    }

    fn crash(
        &mut self,
        domain: DomainId,
        index: usize,
        line: &mut dyn fmt::Write,
    ) -> Result<bool, ManagementError> {
        let domain = find_domain(domain)?;
        let report = domain.report.lock();
        let report = (report.as_ref()).ok_or(ManagementError::NoReport(domain.id))?;
        let Some(text) = report.line(index) else {
            return Ok(false);
        };
        Ok(write!(line, "{text}").is_ok())
    }

    fn cycle(&mut self, domain: DomainId, rounds: u32) -> Result<(), ManagementError> {
        let domain = find_domain(domain)?;
        lifecycle::cycle(domain, rounds).map_err(refused)
    }

    fn detach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError> {
        let (index, instance) = position(coproc).ok_or(ManagementError::NoCoproc(coproc))?;
        let domain = find_domain(domain)?;
        let who = find_share(instance, domain.id).ok_or(ManagementError::NotAttached {
            coproc,
            domain: domain.id,
        })?;
        attachment::detach(index, instance, who)
            .map_err(|error| failed(&error, "see `coproc query`"))?;
        pull(domain, who);
        log::info!("{}: {who} detached from coproc {}", domain.id, coproc.0);
        Ok(())
    }

    fn recorded(&mut self, coproc: CoprocId) -> Result<RecordReport, ManagementError> {
        let instance = instance(coproc).ok_or(ManagementError::NoCoproc(coproc))?;
        let core = instance.core();
        let log = (core.log.as_ref()).ok_or(ManagementError::NotRecorded(coproc))?;
        Ok(RecordReport {
            coproc,
            bytes: log.bytes() as u64,
            lines: log.lines(),
            lost: log.lost(),
        })
    }

    fn record(&mut self, coproc: CoprocId, from: u64, line: &mut dyn fmt::Write) -> Option<u64> {
        let core = instance(coproc)?.core();
        let (text, next) = core.log.as_ref()?.line_at(usize::try_from(from).ok()?)?;
        line.write_str(text).ok()?;
        Some(next as u64)
    }

    fn share(&mut self, coproc: CoprocId) -> Result<(), ManagementError> {
        let instance = instance(coproc).ok_or(ManagementError::NoCoproc(coproc))?;
        match shared(instance) {
            Ok(()) => return Err(ManagementError::AlreadyShared(coproc)),
            Err(ManagementError::NotShared(_)) => {}
            Err(error) => return Err(error),
        }
        custody::begin(instance).map_err(|error| failed(&error, "see `coproc list`"))?;
        log::info!("{}: shared by {}", instance.path, instance.recipe.scheduler);
        Ok(())
    }

    fn unshare(&mut self, coproc: CoprocId) -> Result<(), ManagementError> {
        let (index, instance) = position(coproc).ok_or(ManagementError::NoCoproc(coproc))?;
        shared(instance)?;
        if instance.core().log.is_some() {
            let what = format!("coproc {} is recorded", coproc.0);
            let remedy = "drop `baton,record` from its node to unshare it";
            return Err(ManagementError::Failed { what, remedy });
        }
        let everybody: Vec<(VcoprocId, DomainId)> =
            instance.with(|coproc, _| coproc.vcoprocs().collect());
        for (who, domain) in everybody {
            // One that is on its way out already has gone from its slot, too.
            if let Ok(domain) = find_domain(domain)
                && find_share(instance, domain.id) == Some(who)
            {
                attachment::detach(index, instance, who)
                    .map_err(|error| failed(&error, "see `coproc query`"))?;
                pull(domain, who);
            }
        }
        custody::end(instance);
        Ok(())
    }

    fn slice(&mut self, coproc: CoprocId, from: u64) -> Option<(u64, SliceReport)> {
        instance(coproc)?.with(|coproc, _| {
            let lost = coproc.slices_lost();
            let index = from.saturating_sub(lost);
            let recorded = coproc.slices().nth(usize::try_from(index).ok()?);
            if let Some(record) = recorded {
                return Some((
                    lost.saturating_add(index),
                    SliceReport {
                        coproc: coproc.id(),
                        vcoproc: record.vcoproc,
                        domain: record.domain,
                        from: record.from,
                        to: record.to,
                    },
                ));
            }
            // Behind the last one that is over comes the one that runs.
            let State::Running(slice) = coproc.state() else {
                return None;
            };
            let count = coproc.slices().count() as u64;
            let domain = coproc.vcoprocs().find(|(who, _)| *who == slice.who)?.1;
            (index == count).then(|| {
                (
                    lost.saturating_add(index),
                    SliceReport {
                        coproc: coproc.id(),
                        vcoproc: slice.who,
                        domain,
                        from: slice.since,
                        to: timer::now(),
                    },
                )
            })
        })
    }
}
