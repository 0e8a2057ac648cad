//! What it costs to move a stream from one domain to another: the SMMUv3 driver on registers that answer at once.
//!
//! The stream goes to abort, that is confirmed, it goes to the next domain's tables, that is confirmed: what the switch does without a save
//! area. Stream table, queues and tables are real memory; the commands are never executed.

use alloc::alloc::{Layout, alloc_zeroed};
use core::arch::asm;
use core::hint::black_box;

use coproc_core::Iommu;
use coproc_core::address::{DeviceAddress, HostPhysical};
use coproc_core::driver::Step;
use coproc_core::id::{SpaceId, StreamId};
use coproc_core::iommu::{Mapping, Target};
use platforms::iommu::smmuv3::{Setup, Smmu, SmmuBus};

use crate::exits::measure;

const STREAM: StreamId = StreamId(8);

// Register offsets (Arm IHI 0070, chapter 6).
const CR0: u64 = 0x20;
const CR0ACK: u64 = 0x24;
const IRQ_CTRL: u64 = 0x50;
const IRQ_CTRLACK: u64 = 0x54;
const CMDQ_PROD: u64 = 0x98;
const CMDQ_CONS: u64 = 0x9c;

/// An SMMU that has consumed every command when it is asked.
#[derive(Debug, Default)]
struct Prompt {
    control: u32,
    interrupts: u32,
    produced: u32,
}

impl SmmuBus for Prompt {
    fn read32(&mut self, offset: u64) -> u32 {
        match offset {
            // QEMU 10.0's ID registers.
            0x0 => 0x0d44_101b,
            0x4 => 0x0273_0010,
            0x14 => 0x74,
            CR0ACK => self.control,
            IRQ_CTRLACK => self.interrupts,
            CMDQ_CONS => self.produced,
            _ => 0,
        }
    }

    fn write32(&mut self, offset: u64, value: u32) {
        match offset {
            CR0 => self.control = value,
            IRQ_CTRL => self.interrupts = value,
            CMDQ_PROD => self.produced = value,
            _ => {}
        }
    }

    fn write64(&mut self, _offset: u64, _value: u64) {}

    fn allocate(&mut self, bytes: u64, alignment: u64) -> Option<HostPhysical> {
        let layout = Layout::from_size_align(bytes as usize, alignment as usize).ok()?;
        if layout.size() == 0 {
            return None;
        }
        // SAFETY: the size isn't 0.
        let block = unsafe { alloc_zeroed(layout) };
        (!block.is_null()).then(|| HostPhysical::new(block.expose_provenance() as u64))
    }

    fn free(&mut self, _start: HostPhysical, _bytes: u64) {}

    fn read_memory(&self, address: HostPhysical) -> u64 {
        let at = core::ptr::with_exposed_provenance::<u64>(address.get() as usize);
        // SAFETY: the driver names memory that it got from `allocate`, identity-mapped, aligned.
        unsafe { at.read_volatile() }
    }

    fn write_memory(&mut self, address: HostPhysical, value: u64) {
        let at = core::ptr::with_exposed_provenance_mut::<u64>(address.get() as usize);
        // SAFETY: as above.
        unsafe { at.write_volatile(value) };
    }

    fn publish(&mut self, _start: HostPhysical, _bytes: u64, _coherent: bool) {
        // SAFETY: a barrier.
        unsafe { asm!("dsb ishst", options(nostack)) };
    }

    fn observe(&mut self, _start: HostPhysical, _bytes: u64, _coherent: bool) {
        // SAFETY: a barrier.
        unsafe { asm!("dmb ishld", options(nostack)) };
    }
}

fn point(iommu: &mut dyn Iommu, target: Target) -> bool {
    if iommu.point(STREAM, target).is_err() {
        return false;
    }
    for _ in 0..16 {
        match iommu.sync() {
            Step::Done => return true,
            Step::Again(_) => {}
            Step::Failed(_) => return false,
        }
    }
    false
}

fn space(iommu: &mut dyn Iommu, host: u64) -> Result<SpaceId, &'static str> {
    let mapping = Mapping {
        device: DeviceAddress::new(0x4000_0000),
        host: HostPhysical::new(host),
        size: 64 << 20,
    };
    iommu
        .create_space(&[mapping])
        .map_err(|_| "no address space")
}

/// Ticks that `repetitions` moves of a stream took.
pub fn run(repetitions: u64) -> Result<u64, &'static str> {
    let setup = Setup::new(8, 40, 1..8);
    let mut smmu = Smmu::new(Prompt::default(), setup).map_err(|_| "the SMMU driver failed")?;
    let iommu: &mut dyn Iommu = black_box(&mut smmu);
    let spaces = [space(iommu, 0x5000_0000)?, space(iommu, 0x6000_0000)?];
    let mut wrong = 0u64;
    let ticks = measure(repetitions, |n| {
        for round in 0..n {
            let to = if round % 2 == 0 { spaces[0] } else { spaces[1] };
            if !point(iommu, Target::Abort) || !point(iommu, Target::Space(to)) {
                wrong += 1;
            }
        }
    });
    if wrong == 0 {
        Ok(ticks)
    } else {
        Err("a stream didn't move")
    }
}
