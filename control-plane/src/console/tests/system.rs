//! A system to be managed, with nothing behind it.

use super::*;
use crate::console::file::File;
use crate::devicetree::Error;

/// A system with two domains that share coproc 0; coproc 3 has nobody.
#[derive(Default)]
pub(super) struct System {
    pub(super) slices: u64,
    pub(super) rings: RingsOf,
    pub(super) cycles: u32,
    pub(super) file: File,
}

/// The traces of its CPUs.
#[derive(Default)]
pub(super) struct RingsOf(pub(super) Vec<Ring<TraceEvent>>);

impl Rings for RingsOf {
    fn count(&self) -> usize {
        self.0.len()
    }

    fn read(&self, ring: usize, visit: &mut dyn FnMut(&Ring<TraceEvent>)) {
        visit(&self.0[ring]);
    }
}

impl System {
    pub(super) fn with_slices(slices: u64) -> Self {
        Self {
            slices,
            ..Self::default()
        }
    }
}

pub(super) fn worst(ns: u64) -> WorstCase {
    let time = Duration::from_nanos;
    WorstCase {
        refusal: time(ns),
        stop: time(ns + 1),
        save: time(ns + 2),
        restore: time(ns + 3),
    }
}

impl Management for System {
    fn operate(&mut self, domain: DomainId, operation: Operation) -> Result<(), ManagementError> {
        if domain != DomainId(1) {
            return Err(ManagementError::NoDomain(domain));
        }
        match operation {
            Operation::Pause => Ok(()),
            operation => Err(ManagementError::Refused(Refusal {
                operation,
                state: State::Paused,
            })),
        }
    }

    fn put(&mut self, offset: u32, part: &[u8]) -> Result<usize, ManagementError> {
        Ok(self.file.put(None, offset as usize, part)?)
    }

    /// Each byte is a mistake, or a warning if it's a capital letter.
    fn define(&mut self, domain: DomainId) -> Result<Definition, ManagementError> {
        self.operate(domain, Operation::Pause)?;
        let file = self.file.get(None)?;
        let error = |byte: &u8| Error::new("/", format!("{}", *byte as char), "none");
        let (warnings, mistakes): (Vec<_>, Vec<_>) =
            file.iter().partition(|byte| byte.is_ascii_uppercase());
        Ok(Definition {
            mistakes: mistakes.into_iter().map(error).collect(),
            warnings: warnings.into_iter().map(error).collect(),
        })
    }

    fn crash(
        &mut self,
        domain: DomainId,
        index: usize,
        line: &mut dyn core::fmt::Write,
    ) -> Result<bool, ManagementError> {
        if domain != DomainId(1) {
            return Err(ManagementError::NoReport(domain));
        }
        if index < 3 {
            let _ = write!(line, "crash line={index}");
        }
        Ok(index < 3)
    }

    fn cycle(&mut self, _: DomainId, rounds: u32) -> Result<(), ManagementError> {
        self.cycles += rounds;
        Ok(())
    }

    fn memory(&mut self) -> MemoryReport {
        MemoryReport {
            free: 4096,
            heap: 7,
            spaces: 2,
            firmware_vmids: 1,
            pending: true,
            domain_vmids: 2,
        }
    }

    fn set(&mut self, coproc: CoprocId, name: &str, value: &str) -> Result<(), ManagementError> {
        let _ = coproc;
        super::setting::Setting::parse(name, value).map(drop)
    }

    fn attach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError> {
        Err(ManagementError::AlreadyAttached { coproc, domain })
    }

    fn detach(&mut self, coproc: CoprocId, domain: DomainId) -> Result<(), ManagementError> {
        Err(ManagementError::NotAttached { coproc, domain })
    }

    fn share(&mut self, coproc: CoprocId) -> Result<(), ManagementError> {
        Err(ManagementError::AlreadyShared(coproc))
    }

    fn unshare(&mut self, coproc: CoprocId) -> Result<(), ManagementError> {
        if coproc.0 == 7 {
            return Err(ManagementError::NoCoproc(coproc));
        }
        Err(ManagementError::NotShared(coproc))
    }

    fn domain(&mut self, index: usize) -> Option<DomainReport> {
        (index < 2).then(|| DomainReport {
            id: DomainId(index as u16 + 1),
            state: State::Running,
            vcpus: 1,
            memory_mib: 512,
            cpus: if index == 0 { 1 } else { 6 },
            coprocs: [CoprocId(0), CoprocId(3)]
                .into_iter()
                .take(index + 1)
                .collect(),
        })
    }

    fn coproc(&mut self, index: usize) -> Option<CoprocReport> {
        let ns = Duration::from_nanos;
        (index < 2).then(|| CoprocReport {
            id: CoprocId(3 * index as u32),
            driver: "qemu,edu",
            scheduler: "rr",
            state: if index == 0 { "running" } else { "idle" },
            current: (index == 0).then_some(VcoprocId(0)),
            switches: 5,
            refusals: 2,
            elapsed: ns(100),
            charge: ns(60),
            overhead: ns(30),
            idle: ns(9),
            fault: ns(1),
            switch_min: ns(3),
            switch_mean: ns(4),
            switch_max: ns(7),
            settings: Settings {
                slice: ns(1000),
                refusal_bound: ns(5000),
                starvation_bound: None,
            },
            declared: worst(50),
            measured: worst(20),
        })
    }

    fn vcoproc(&mut self, coproc: CoprocId, index: usize) -> Option<VcoprocReport> {
        let ns = Duration::from_nanos;
        (coproc.0 == 0 && index < 2).then(|| VcoprocReport {
            id: VcoprocId(index as u32),
            coproc,
            domain: DomainId(index as u16 + 1),
            state: if index == 0 {
                VcoprocState::Current
            } else {
                VcoprocState::Asleep
            },
            charge: ns(20 + 20 * index as u64),
            charge_total: ns(60),
            overhead: ns(15),
            refused: ns(4),
            slices: 3,
            touches: 2,
            max_exits_per_slice: 1,
            emulated: 8,
            interrupts: 6,
            iommu_faults: index as u64,
            last_fault_address: (index == 1).then_some(0xdead_0000),
            parameters: (index == 0).then(|| Parameters {
                weight: 3,
                budget: Some(ns(400)),
                ..Parameters::default()
            }),
            wait_p50: ns(10),
            wait_p99: ns(11),
            wait_max: ns(12),
        })
    }

    fn histogram(
        &mut self,
        coproc: CoprocId,
        vcoproc: usize,
        histogram: usize,
    ) -> Option<HistogramReport> {
        let of = *["switch", "refusal", "wait"].get(histogram)?;
        let mut spread = Spread::EMPTY;
        if of == "wait" {
            for us in [0, 3, 3, u64::MAX / 1000] {
                spread.record(Duration::from_micros(us));
            }
        }
        (coproc.0 == 0 && vcoproc < 2).then_some(HistogramReport {
            coproc,
            vcoproc: VcoprocId(vcoproc as u32),
            of,
            spread,
        })
    }

    fn device(&mut self, index: usize) -> Option<devices::DeviceReport> {
        let last_fault = [
            None,
            Some(coproc_core::address::DeviceAddress::new(0x7000_0000)),
        ];
        let names = ["/gpio@e2000000", "pci:0000:00:02.0"];
        Some(devices::DeviceReport {
            domain: DomainId(2),
            name: names.get(index)?,
            given: index == 1,
            interrupts: 3,
            faults: index as u64,
            last_fault: *last_fault.get(index)?,
        })
    }

    fn pool(&mut self, index: usize) -> Option<cpus::PoolReport> {
        (index == 0).then_some(cpus::PoolReport {
            id: 4,
            scheduler: "weighted",
            cpus: cpus::Cpus(0b101),
            vcpus: 2,
        })
    }

    fn vcpu(&mut self, index: usize) -> Option<cpus::VcpuReport> {
        let ns = Duration::from_nanos;
        (index < 2).then(|| cpus::VcpuReport {
            domain: DomainId(index as u16 + 1),
            index: 0,
            pool: 4,
            state: if index == 0 { "running" } else { "off" },
            cpu: (index == 0).then_some(2),
            affinity: cpus::Cpus(0b100),
            parameters: Parameters {
                weight: 3,
                budget: (index == 0).then_some(ns(500)),
                period: (index == 0).then_some(ns(900)),
                ..Parameters::default()
            },
            ran: ns(10),
            waited: ns(20),
            longest_wait: ns(5),
            switches: 7,
            migrations: 1,
        })
    }

    fn set_pool(&mut self, pool: u32, scheduler: &str) -> Result<(), ManagementError> {
        match pool {
            4 => {
                assert_eq!(scheduler, "deadline");
                Ok(())
            }
            _ => Err(ManagementError::NoPool(pool)),
        }
    }

    fn set_domain(&mut self, name: &str, value: &str) -> Result<(), ManagementError> {
        cpus::DomainSetting::parse(name, value).map(drop)
    }

    fn trace(&mut self) -> &dyn Rings {
        &self.rings
    }

    fn recorded(&mut self, coproc: CoprocId) -> Result<RecordReport, ManagementError> {
        match coproc.0 {
            0 => Ok(RecordReport {
                coproc,
                bytes: 10 * RECORD_LINES,
                lines: RECORD_LINES,
                lost: 3,
            }),
            _ => Err(ManagementError::NotRecorded(coproc)),
        }
    }

    fn record(
        &mut self,
        coproc: CoprocId,
        from: u64,
        line: &mut dyn core::fmt::Write,
    ) -> Option<u64> {
        // It grows while it is told.
        let there = from.is_multiple_of(10) && from < 20 * RECORD_LINES;
        (coproc.0 == 0 && there).then(|| {
            write!(line, "{from:09}").unwrap();
            from + 10
        })
    }

    fn slice(&mut self, coproc: CoprocId, from: u64) -> Option<(u64, SliceReport)> {
        // The two oldest have been overwritten.
        let number = from.max(2);
        (coproc.0 == 0 && number < self.slices).then(|| {
            let vcoproc = VcoprocId((number % 2) as u32);
            let slice = SliceReport {
                coproc,
                vcoproc,
                domain: DomainId(vcoproc.0 as u16 + 1),
                from: at(number),
                to: at(number + 1),
            };
            (number, slice)
        })
    }
}

/// Lines of ten bytes in a record.
pub(super) const RECORD_LINES: u64 = 10_000;
