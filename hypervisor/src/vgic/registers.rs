//! The guest's view: the distributor's and the redistributors' registers.
//!
//! Both have the same banks of per-interrupt registers at the same offsets (Arm IHI 0069H, 12.8
//! and 12.10: GICD_x&lt;n&gt; and GICR_x0), which differ only in whose interrupts they mean: with
//! affinity routing, word 0 of the distributor's is reserved (12.9) and lives in
//! the redistributor's SGI frame. So one decoder and one implementation serve both.
//!
//! Accesses of a width that the specification doesn't list for a register (12.1.3), unaligned
//! ones, and reserved offsets read as zero and ignore writes.

use super::bank::{Bits, Groups, bit};
use super::{Kicks, MAX_VCPUS, SGIS, Vgic};
use coproc_core::register::Width;

/// Bytes of the distributor's frame.
pub const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// Bytes of a redistributor's two frames, RD_base and SGI_base.
pub const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// Of the distributor alone.
const GICD_CTLR: u64 = 0x0000;
const GICD_TYPER: u64 = 0x0004;
const GICD_IIDR: u64 = 0x0008;
const GICD_IROUTER: u64 = 0x6000;
const GICD_IROUTER_END: u64 = 0x7fe0;
/// Of RD_base.
const GICR_IIDR: u64 = 0x0004;
const GICR_TYPER: u64 = 0x0008;
const GICR_WAKER: u64 = 0x0014;
/// Of both.
pub(super) const PIDR2: u64 = 0xffe8;
const SGI_FRAME: u64 = 0x1_0000;

const CTLR_GROUP0: u32 = 1 << 0;
const CTLR_GROUP1: u32 = 1 << 1;
/// ARE and DS, both read-as-one here. RWP (31) is always 0: writes take effect at once.
pub(super) const CTLR_FIXED: u32 = 1 << 4 | 1 << 6;
/// No1N (25), and 10 bits of INTID (IDbits, 23:19).
pub(super) const TYPER_FIXED: u32 = 1 << 25 | 9 << 19;
/// Product `B`, implementer Arm (JEP106 0x43b), as virtual GICs commonly say.
pub(super) const IIDR: u32 = 0x4200_043b;
/// ArchRev: GICv3.
pub(super) const PIDR2_GICV3: u32 = 0x30;
const WAKER_PROCESSOR_SLEEP: u32 = 1 << 1;
const WAKER_CHILDREN_ASLEEP: u32 = 1 << 2;
/// Aff3 (39:32) and Aff2 to Aff0 (23:0). Interrupt_Routing_Mode (31) is RES0: No1N.
const IROUTER_MASK: u64 = 0xff_00ff_ffff;

/// A per-interrupt register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Field {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    /// Four interrupts (or, by byte, one) from this bit number on.
    Priority(u32),
    /// 16 interrupts from this bit number on.
    Config(u32),
}

/// The word (INTID / 32) and register at an offset of GICD, or of GICR's SGI frame.
#[inline(always)]
fn decode(offset: u64, width: Width) -> Option<(usize, Field)> {
    let field = match offset & !0x7f {
        0x080 => Field::Group,
        0x100 => Field::SetEnable,
        0x180 => Field::ClearEnable,
        0x200 => Field::SetPending,
        0x280 => Field::ClearPending,
        0x300 => Field::SetActive,
        0x380 => Field::ClearActive,
        0x400..0x800 => {
            let n = Field::Priority(offset as u32 & 31);
            let allowed = matches!(width, Width::Byte | Width::Word);
            return allowed.then_some(((offset as usize & 0x3ff) >> 5, n));
        }
        0xc00 | 0xc80 => {
            let n = Field::Config(if offset & 4 == 0 { 0 } else { 16 });
            return (width == Width::Word).then_some(((offset as usize & 0xff) >> 3, n));
        }
        _ => return None,
    };
    (width == Width::Word).then_some(((offset as usize & 0x7f) >> 2, field))
}

fn aligned(offset: u64, width: Width) -> bool {
    offset & width.bytes().wrapping_sub(1) == 0
}

/// What an access to a 64-bit register, or to one of its halves, reads.
fn half(value: u64, offset: u64, width: Width) -> u64 {
    match (width, offset & 4) {
        (Width::Double, _) => value,
        (Width::Word, 0) => value & 0xffff_ffff,
        (Width::Word, _) => value >> 32,
        _ => 0,
    }
}

/// A bit of each interrupt, spread to the upper of two bits each: ICFGR's shape.
fn spread(bits: u32) -> u32 {
    Bits(bits & 0xffff).fold(0, |all, n| all | 2u32.wrapping_shl(n.wrapping_mul(2)))
}

/// And back.
fn gather(value: u32) -> u32 {
    Bits(value & 0xaaaa_aaaa).fold(0, |all, n| all | bit(n >> 1))
}

impl Vgic {
    /// The guest reads the distributor. `offset` in bytes from its start.
    pub fn distributor_read(&mut self, vcpu: usize, offset: u64, width: Width) -> u64 {
        if !aligned(offset, width) || offset >= DISTRIBUTOR_SIZE {
            return 0;
        }
        if (GICD_IROUTER..GICD_IROUTER_END).contains(&offset) {
            let route = route_index(offset).and_then(|n| self.routes.get(n));
            return route.map_or(0, |&route| half(route, offset, width));
        }
        if let Some((word, field)) = decode(offset, width) {
            return match self.index(vcpu, word) {
                Some(index) if word != 0 => self.read_field(index, field, width),
                _ => self.read_private(vcpu, word, field, width),
            };
        }
        if width != Width::Word {
            return self.read_other(vcpu, offset, width);
        }
        u64::from(match offset {
            GICD_CTLR => {
                let zero = if self.groups.zero { CTLR_GROUP0 } else { 0 };
                let one = if self.groups.one { CTLR_GROUP1 } else { 0 };
                self.control | zero | one
            }
            GICD_TYPER => self.typer,
            GICD_IIDR => IIDR,
            _ => return self.read_other(vcpu, offset, width),
        })
    }

    /// `vcpu` writes the distributor. `offset` in bytes from its start.
    pub fn distributor_write(
        &mut self,
        vcpu: usize,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Kicks {
        let value = value & width.mask();
        if !aligned(offset, width) || offset >= DISTRIBUTOR_SIZE {
            return Kicks::NONE;
        }
        if (GICD_IROUTER..GICD_IROUTER_END).contains(&offset) {
            return self.write_route(offset, width, value);
        }
        if let Some((word, field)) = decode(offset, width) {
            return match self.index(vcpu, word) {
                Some(index) if word != 0 => {
                    self.write_field(vcpu, index, field, width, value as u32)
                }
                _ => self.write_private(vcpu, word, field, width, value as u32),
            };
        }
        if offset == GICD_CTLR && width == Width::Word {
            return self.write_control(value as u32);
        }
        self.write_other(vcpu, offset, width, value as u32)
    }

    /// The guest reads redistributor `frame_vcpu`. `offset` in bytes from RD_base; SGI_base
    /// follows at 0x1_0000.
    pub fn redistributor_read(&mut self, frame_vcpu: usize, offset: u64, width: Width) -> u64 {
        let Some(cpu) = self.cpus.get(frame_vcpu) else {
            return 0;
        };
        if !aligned(offset, width) {
            return 0;
        }
        if let Some(offset) = offset.checked_sub(SGI_FRAME) {
            return match (decode(offset, width), self.index(frame_vcpu, 0)) {
                (Some((0, field)), Some(index)) => self.read_field(index, field, width),
                _ => 0,
            };
        }
        match (offset & !7, width) {
            (GICR_TYPER, _) => half(self.redistributor_type(frame_vcpu), offset, width),
            (_, Width::Word) => u64::from(match offset {
                GICR_IIDR => IIDR,
                GICR_WAKER if cpu.asleep => WAKER_PROCESSOR_SLEEP | WAKER_CHILDREN_ASLEEP,
                PIDR2 => PIDR2_GICV3,
                _ => 0,
            }),
            _ => 0,
        }
    }

    /// The guest writes redistributor `frame_vcpu`; from which vCPU doesn't matter.
    pub fn redistributor_write(
        &mut self,
        frame_vcpu: usize,
        offset: u64,
        width: Width,
        value: u64,
    ) -> Kicks {
        let value = (value & width.mask()) as u32;
        if !aligned(offset, width) {
            return Kicks::NONE;
        }
        if let Some(offset) = offset.checked_sub(SGI_FRAME) {
            return match (decode(offset, width), self.index(frame_vcpu, 0)) {
                (Some((0, field)), Some(index)) => {
                    self.write_field(frame_vcpu, index, field, width, value)
                }
                _ => Kicks::NONE,
            };
        }
        if offset == GICR_WAKER
            && width == Width::Word
            && let Some(cpu) = self.cpus.get_mut(frame_vcpu)
        {
            cpu.asleep = value & WAKER_PROCESSOR_SLEEP != 0;
        }
        Kicks::NONE
    }

    /// GICR_TYPER: Affinity_Value (63:32), Processor_Number (23:8), Last (4).
    fn redistributor_type(&self, vcpu: usize) -> u64 {
        let number = vcpu as u64 & 0xff;
        let last = vcpu.saturating_add(1) == self.cpus.len();
        number << 32 | number << 8 | u64::from(last) << 4
    }

    pub(super) fn read_field(&self, index: usize, field: Field, width: Width) -> u64 {
        let Some(bank) = self.banks.get(index) else {
            return 0;
        };
        u64::from(match field {
            Field::Group => bank.group,
            Field::SetEnable | Field::ClearEnable => bank.enabled,
            Field::SetPending | Field::ClearPending => bank.pending_seen(),
            Field::SetActive | Field::ClearActive => bank.active_seen(),
            Field::Priority(n) => {
                let byte = |i: u32| u32::from(bank.priority(n.wrapping_add(i)));
                match width {
                    Width::Byte => byte(0),
                    _ => byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24,
                }
            }
            Field::Config(n) => spread(bank.edge.wrapping_shr(n)),
        })
    }

    /// `vcpu` is the one that made an interrupt active which is routed nowhere.
    pub(super) fn write_field(
        &mut self,
        vcpu: usize,
        index: usize,
        field: Field,
        width: Width,
        value: u32,
    ) -> Kicks {
        let private = index < self.cpus.len();
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        // Those whose list register, if any, the write makes outdated.
        let changed = match field {
            Field::Group => {
                let changed = bank.group ^ value;
                bank.group = value;
                changed
            }
            Field::SetEnable => {
                let changed = value & !bank.enabled;
                bank.enabled |= value;
                changed & bank.latch
            }
            Field::ClearEnable => {
                let changed = value & bank.enabled;
                bank.enabled &= !value;
                changed
            }
            Field::SetPending => {
                bank.latch |= value;
                value & (bank.edge | bank.hardware)
            }
            Field::ClearPending => {
                bank.clear_pending(value);
                value
            }
            Field::SetActive => {
                let new = value & !bank.active_seen();
                bank.active |= new;
                let mut homeless = new & !bank.listed;
                for (home, held) in bank.home.iter().zip(&mut bank.held) {
                    *held |= homeless & home;
                    homeless &= !home;
                }
                if let Some(held) = bank.held.get_mut(vcpu) {
                    *held |= homeless;
                }
                new
            }
            Field::ClearActive => {
                bank.clear_active(value);
                value
            }
            Field::Priority(n) => {
                let bytes = if width == Width::Byte { 1 } else { 4 };
                let mut changed = 0;
                for (byte, n) in value.to_le_bytes().into_iter().zip(n..32).take(bytes) {
                    if bank.set_priority(n, byte) {
                        changed |= bit(n);
                    }
                }
                changed
            }
            Field::Config(n) => {
                let fixed = if private { SGIS } else { 0 };
                let written = 0xffffu32.wrapping_shl(n) & !fixed;
                let edge = gather(value).wrapping_shl(n) & written | bank.edge & !written;
                let changed = bank.edge ^ edge;
                bank.edge = edge;
                changed
            }
        };
        self.resync(index, changed) | self.refresh(index)
    }

    fn write_control(&mut self, value: u32) -> Kicks {
        let groups = Groups {
            zero: value & CTLR_GROUP0 != 0,
            one: value & CTLR_GROUP1 != 0,
        };
        if groups == self.groups {
            return Kicks::NONE;
        }
        self.groups = groups;
        let mut kicks = Kicks::NONE;
        for index in 0..self.banks.len() {
            kicks |= self.resync(index, u32::MAX) | self.refresh(index);
        }
        kicks
    }

    fn write_route(&mut self, offset: u64, width: Width, value: u64) -> Kicks {
        let Some(spi) = route_index(offset) else {
            return Kicks::NONE;
        };
        let Some(route) = self.routes.get_mut(spi) else {
            return Kicks::NONE;
        };
        *route = IROUTER_MASK
            & match (width, offset & 4) {
                (Width::Double, _) => value,
                (Width::Word, 0) => *route & !0xffff_ffff | value,
                (Width::Word, _) => *route & 0xffff_ffff | value << 32,
                _ => return Kicks::NONE,
            };
        // Affinity 0.0.0.n is vCPU n; all others are nobody, so it stays pending.
        let home = *route;
        self.set_home(spi, home)
    }

    /// Routes an SPI (counted from 0) to this vCPU; to nobody if there is no such.
    pub(super) fn set_home(&mut self, spi: usize, home: u64) -> Kicks {
        let Some((index, n)) = self.find(0, (spi as u32).wrapping_add(32)) else {
            return Kicks::NONE;
        };
        let vcpus = self.cpus.len();
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        for (vcpu, mask) in (0u64..MAX_VCPUS as u64).zip(&mut bank.home).take(vcpus) {
            if vcpu == home {
                *mask |= bit(n);
            } else {
                *mask &= !bit(n);
            }
        }
        self.resync(index, bit(n)) | self.refresh(index)
    }
}

/// Which SPI's GICD_IROUTER (8 bytes each, from INTID 0 on) an offset is in.
fn route_index(offset: u64) -> Option<usize> {
    let intid = offset.checked_sub(GICD_IROUTER)? >> 3;
    usize::try_from(intid.checked_sub(32)?).ok()
}
