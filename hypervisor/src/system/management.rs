//! The management operations on the running system.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::domain::Life;
use super::sharing::Instance;
use crate::arch::timer;
use arrayvec::ArrayVec;
use coproc_core::coproc::{Condition, State};
use coproc_core::id::CoprocId;
use hypervisor::console::management::{
    CoprocReport, DomainReport, DomainState, Management, SliceReport, VcoprocReport, VcoprocState,
};

/// The console's face of it.
pub struct Face;

fn instance(id: CoprocId) -> Option<&'static Instance> {
    super::get()?
        .instances
        .iter()
        .find(|instance| instance.id == id)
}

impl Management for Face {
    fn domain(&mut self, index: usize) -> Option<DomainReport> {
        let system = super::get()?;
        let domain = system.domains.get(index)?;
        let mut coprocs = ArrayVec::new();
        for link in domain.links.iter().flatten() {
            if let Some(instance) = system.instances.get(link.instance) {
                let _ = coprocs.try_push(instance.id);
            }
        }
        Some(DomainReport {
            id: domain.id,
            state: match domain.life() {
                Life::Created => DomainState::Created,
                Life::Running => DomainState::Running,
                Life::Off => DomainState::Off,
                Life::Crashed => DomainState::Crashed,
            },
            vcpus: domain.vcpus.len() as u32,
            memory_mib: domain.memory_size() >> 20,
            cpus: domain
                .vcpus
                .iter()
                .fold(0, |cpus, vcpu| cpus | 1 << vcpu.cpu),
            coprocs,
        })
    }

    fn coproc(&mut self, index: usize) -> Option<CoprocReport> {
        let instance = super::get()?.instances.get(index)?;
        let report = instance.with(|coproc, _| coproc.report(timer::now()));
        Some(CoprocReport {
            id: report.id,
            driver: report.driver,
            scheduler: report.algorithm,
            state: report.state,
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
        })
    }

    fn vcoproc(&mut self, coproc: CoprocId, index: usize) -> Option<VcoprocReport> {
        let report = instance(coproc)?.with(|coproc, _| coproc.report(timer::now()));
        let vcoproc = report.vcoprocs.get(index)?;
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
        })
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
