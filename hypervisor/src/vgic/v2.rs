//! What GICv2 has and GICv3 has not (Arm IHI 0048B).
//!
//! The distributor serves each vCPU its own interrupts 0 to 31 (banked, 4.1.4), SPIs go by GICD_ITARGETSR, and an SGI is pending
//! *for each vCPU that sent it*: the guest reads the sender from GICC_IAR. One list register at a time holds an SGI, with the
//! source that it was filled for; what others sent waits in `sources`, and its EOI bit brings the vCPU here when the guest is done with that.
//! This loses nothing: an SGI that is active can't be taken again, whoever sent it.
//!
//! An SPI with several targets goes to the lowest one (1-of-N leaves the choice to the implementation, 3.2.3). SGIs are always enabled, and
//! the ID registers are GIC-400's. The CPU interface isn't here: a domain is given the hardware's virtual one (GICV).

use super::bank::{Bank, Bits, Groups, bit};
use super::list::Entry;
use super::registers::{Field, PIDR2, PIDR2_GICV3};
use super::{Cpu, Kicks, SGIS, Vgic};
use alloc::vec::Vec;
use coproc_core::register::Width;

const ITARGETSR: u64 = 0x800;
const ITARGETSR_END: u64 = 0xc00;
const SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;
const SPENDSGIR_END: u64 = 0xf30;
/// Peripheral and component ID registers, one byte each: GIC-400's (Arm DDI 0471B, 3.3).
const ID: u64 = 0xfd0;
const ID_BYTES: [u8; 12] = [0x04, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1];

/// Who sent a vCPU's SGIs.
#[derive(Clone, Default, Debug)]
struct Sgis {
    /// By SGI, the vCPUs for which it is pending, as far as no list register holds it.
    sources: [u8; 16],
    /// By SGI, the vCPU for which it is (or was last) in a list register or active.
    origin: [u8; 16],
}

impl Sgis {
    fn sources(&self, n: u32) -> u8 {
        self.sources.get(n as usize).copied().unwrap_or(0)
    }

    fn origin(&self, n: u32) -> u8 {
        self.origin.get(n as usize).copied().unwrap_or(0)
    }
}

/// What only a GICv2 has.
#[derive(Clone, Debug)]
pub(super) struct Legacy {
    /// By vCPU.
    sgis: Vec<Sgis>,
    /// GICD_ITARGETSR, by SPI.
    targets: Vec<u8>,
}

impl Legacy {
    /// Resets a vCPU's private interrupts; `bank` is fresh.
    pub fn reset(&mut self, vcpu: usize, bank: &mut Bank) {
        bank.enabled = SGIS;
        if let Some(sgis) = self.sgis.get_mut(vcpu) {
            *sgis = Sgis::default();
        }
    }

    /// Moves SGI `n` into a list register: active as it is, or pending for one of those that sent it.
    pub fn list(&mut self, bank: &mut Bank, n: u32, vcpu: usize, groups: Groups) -> Entry {
        let Some(sgis) = self.sgis.get_mut(vcpu) else {
            return bank.list(n, vcpu, n, groups);
        };
        let this = bit(n);
        if bank.active & this != 0 {
            bank.latch &= !this;
        } else if let (Some(sources), Some(origin)) = (
            sgis.sources.get_mut(n as usize),
            sgis.origin.get_mut(n as usize),
        ) {
            *origin = sources.trailing_zeros() as u8 & 7;
            *sources &= sources.wrapping_sub(1);
        }
        let entry = bank.list(n, vcpu, n, groups).with_source(sgis.origin(n));
        if sgis.sources(n) == 0 {
            return entry;
        }
        bank.latch |= this;
        entry.with_eoi()
    }

    /// A list register was taken back, and what it was filled for is pending still.
    #[inline]
    pub fn returned(&mut self, vcpu: usize, entry: Entry) {
        let sgis = self.sgis.get_mut(vcpu);
        if let Some(sources) = sgis.and_then(|sgis| sgis.sources.get_mut(entry.intid() as usize)) {
            *sources |= 1u8.wrapping_shl(u32::from(entry.source()));
        }
    }
}

impl Vgic {
    pub(super) fn into_v2(mut self) -> Self {
        let vcpus = self.cpus.len();
        for cpu in &mut self.cpus {
            *cpu = Cpu::default();
        }
        for (index, bank) in self.banks.iter_mut().enumerate() {
            if index < vcpus {
                bank.enabled = SGIS;
            } else if vcpus > 1 {
                // GICD_ITARGETSR resets to 0: nobody.
                *bank = Bank::new(0, usize::MAX);
            }
        }
        self.control = 0;
        // ITLinesNumber (4:0), CPUNumber (7:5); no Security Extensions.
        let cpus = (vcpus as u32).saturating_sub(1);
        self.typer = self.typer & 0x1f | (cpus & 7) << 5;
        self.v2 = Some(Legacy {
            sgis: alloc::vec![Sgis::default(); vcpus],
            targets: alloc::vec![0; self.routes.len()],
        });
        self.routes = Vec::new();
        self
    }

    /// All vCPUs, as GICD_ITARGETSR and GICD_SGIR name them.
    fn everyone(&self) -> u8 {
        (u32::MAX.wrapping_shl(self.cpus.len() as u32) ^ u32::MAX) as u8
    }

    /// A register of the interrupts 0 to 31 in the distributor: reserved in a GICv3 with affinity routing, `vcpu`'s own in a GICv2.
    #[cold]
    pub(super) fn read_private(&self, vcpu: usize, word: usize, field: Field, width: Width) -> u64 {
        match self.index(vcpu, word) {
            Some(index) if self.v2.is_some() => self.read_field(index, field, width),
            _ => 0,
        }
    }

    /// The same for a write.
    #[cold]
    pub(super) fn write_private(
        &mut self,
        vcpu: usize,
        word: usize,
        field: Field,
        width: Width,
        value: u32,
    ) -> Kicks {
        let value = match field {
            // SGIs are pending by source, and always enabled.
            Field::SetPending | Field::ClearPending | Field::ClearEnable => value & !SGIS,
            _ => value,
        };
        match self.index(vcpu, word) {
            Some(index) if self.v2.is_some() => self.write_field(vcpu, index, field, width, value),
            _ => Kicks::NONE,
        }
    }

    /// A distributor register that the two versions don't have in common, or none.
    #[cold]
    pub(super) fn read_other(&self, vcpu: usize, offset: u64, width: Width) -> u64 {
        let Some(v2) = &self.v2 else {
            return match (offset, width) {
                (PIDR2, Width::Word) => u64::from(PIDR2_GICV3),
                _ => 0,
            };
        };
        let bytes = match width {
            Width::Byte => 1,
            Width::Word => 4,
            _ => return 0,
        };
        let each = |first: u64, read: &dyn Fn(u32) -> u8| {
            let first = offset.wrapping_sub(first) as u32;
            (0..bytes).fold(0, |all, n: u32| {
                let byte = u64::from(read(first.wrapping_add(n)));
                all | byte.wrapping_shl(n.wrapping_mul(8))
            })
        };
        let this = 1u8.wrapping_shl(vcpu as u32 & 7);
        match offset {
            // With one CPU, all interrupts are its and these registers read as zero (4.3.12).
            ITARGETSR..ITARGETSR_END if self.cpus.len() > 1 => {
                each(ITARGETSR, &|intid| match intid.checked_sub(32) {
                    None => this,
                    Some(spi) => v2.targets.get(spi as usize).copied().unwrap_or(0),
                })
            }
            CPENDSGIR..SPENDSGIR => each(CPENDSGIR, &|n| self.sgi_sources(vcpu, n)),
            SPENDSGIR..SPENDSGIR_END => each(SPENDSGIR, &|n| self.sgi_sources(vcpu, n)),
            ID..0x1000 if width == Width::Word => {
                let byte = ID_BYTES.get((offset.wrapping_sub(ID) >> 2) as usize);
                u64::from(byte.copied().unwrap_or(0))
            }
            _ => 0,
        }
    }

    /// Likewise for a write.
    #[cold]
    pub(super) fn write_other(
        &mut self,
        vcpu: usize,
        offset: u64,
        width: Width,
        value: u32,
    ) -> Kicks {
        if self.v2.is_none() {
            return Kicks::NONE;
        }
        let bytes = match width {
            Width::Byte => 1,
            Width::Word => 4,
            _ => return Kicks::NONE,
        };
        let each = value.to_le_bytes().into_iter().zip(0u32..).take(bytes);
        let mut kicks = Kicks::NONE;
        match offset {
            SGIR if width == Width::Word => return self.send_sgi_v2(vcpu, value),
            ITARGETSR..ITARGETSR_END => {
                for (byte, n) in each {
                    let intid = (offset.wrapping_sub(ITARGETSR) as u32).wrapping_add(n);
                    kicks |= self.write_target(intid, byte);
                }
            }
            CPENDSGIR..SPENDSGIR => {
                for (byte, n) in each {
                    let sgi = (offset.wrapping_sub(CPENDSGIR) as u32).wrapping_add(n);
                    kicks |= self.clear_sgi(vcpu, sgi, byte);
                }
            }
            SPENDSGIR..SPENDSGIR_END => {
                for (byte, n) in each {
                    let sgi = (offset.wrapping_sub(SPENDSGIR) as u32).wrapping_add(n);
                    kicks |= self.set_sgi(vcpu, sgi, byte & self.everyone());
                }
            }
            _ => {}
        }
        kicks
    }

    fn write_target(&mut self, intid: u32, value: u8) -> Kicks {
        let value = value & self.everyone();
        let Some(spi) = intid.checked_sub(32).filter(|_| self.cpus.len() > 1) else {
            return Kicks::NONE;
        };
        let targets = self.v2.as_mut().map(|v2| &mut v2.targets);
        match targets.and_then(|targets| targets.get_mut(spi as usize)) {
            Some(target) if *target != value => *target = value,
            _ => return Kicks::NONE,
        }
        // The lowest; 8, which nobody is, for none.
        self.set_home(spi as usize, u64::from(value.trailing_zeros()))
    }

    /// GICD_SGIR (4.3.15): TargetListFilter 25:24, CPUTargetList 23:16, SGIINTID 3:0.
    fn send_sgi_v2(&mut self, from: usize, value: u32) -> Kicks {
        let this = 1u8.wrapping_shl(from as u32 & 7);
        let targets = match value >> 24 & 3 {
            0 => (value >> 16) as u8 & self.everyone(),
            1 => self.everyone() & !this,
            2 => this,
            _ => 0,
        };
        Bits(u32::from(targets)).fold(Kicks::NONE, |kicks, target| {
            kicks | self.set_sgi(target as usize, value & 15, this)
        })
    }

    /// Makes an SGI pending at `vcpu` for these sources.
    fn set_sgi(&mut self, vcpu: usize, sgi: u32, by: u8) -> Kicks {
        let sgis = self.v2.as_mut().and_then(|v2| v2.sgis.get_mut(vcpu));
        let sources = sgis.and_then(|sgis| sgis.sources.get_mut(sgi as usize));
        let (Some(sources), Some(bank)) = (sources, self.banks.get_mut(vcpu)) else {
            return Kicks::NONE;
        };
        if *sources | by == *sources {
            return Kicks::NONE;
        }
        *sources |= by;
        bank.latch |= bit(sgi);
        self.resync(vcpu, bit(sgi)) | self.refresh(vcpu)
    }

    fn clear_sgi(&mut self, vcpu: usize, sgi: u32, by: u8) -> Kicks {
        let sgis = self.v2.as_mut().and_then(|v2| v2.sgis.get_mut(vcpu));
        let (Some(sgis), Some(bank)) = (sgis, self.banks.get_mut(vcpu)) else {
            return Kicks::NONE;
        };
        let this = bit(sgi);
        let listed = by & 1u8.wrapping_shl(u32::from(sgis.origin(sgi))) != 0;
        let Some(sources) = sgis.sources.get_mut(sgi as usize) else {
            return Kicks::NONE;
        };
        *sources &= !by;
        if *sources == 0 {
            bank.latch &= !this;
        }
        if listed {
            bank.drop_pending |= this & bank.carried;
        }
        self.resync(vcpu, this) | self.refresh(vcpu)
    }

    /// For whom an SGI is pending at `vcpu`, list registers as they were filled included.
    fn sgi_sources(&self, vcpu: usize, sgi: u32) -> u8 {
        let sgis = self.v2.as_ref().and_then(|v2| v2.sgis.get(vcpu));
        let (Some(sgis), Some(bank)) = (sgis, self.banks.get(vcpu)) else {
            return 0;
        };
        let listed = bank.carried & !bank.drop_pending & bit(sgi) != 0;
        let listed = u8::from(listed).wrapping_shl(u32::from(sgis.origin(sgi)));
        sgis.sources(sgi) | listed
    }
}
