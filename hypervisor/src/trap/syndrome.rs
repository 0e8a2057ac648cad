//! ESR_EL2 as a value with a meaning (Arm ARM DDI 0487, D19.2.37 "ESR_EL2").

use super::inject::Exception;
use coproc_core::register::Width;

/// A general register that an access names; 31 is the zero register.
pub type RegisterNumber = usize;

/// A load or store that stage 2 didn't let through, with a syndrome that describes it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MmioAccess {
    /// Store, not load.
    pub write: bool,
    /// Bytes accessed.
    pub width: Width,
    /// Which register is loaded or stored.
    pub register: RegisterNumber,
    /// A load extends the sign.
    pub sign_extend: bool,
    /// A load fills all 64 bits (else the upper 32 become zero).
    pub full: bool,
}

impl MmioAccess {
    /// What a load puts into the register.
    pub const fn extend(&self, value: u64) -> u64 {
        let value = value & self.width.mask();
        let bits = self.width.bytes().saturating_mul(8) as u32;
        let shift = 64u32.saturating_sub(bits);
        let extended = if self.sign_extend {
            (value.wrapping_shl(shift) as i64).wrapping_shr(shift) as u64
        } else {
            value
        };
        if self.full {
            extended
        } else {
            extended & 0xffff_ffff
        }
    }
}

/// A system register access.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemAccess {
    /// Op0, Op1, CRn, CRm, Op2 packed as [`encoding`] does.
    pub encoding: u32,
    /// MRS (or SYSL), not MSR.
    pub read: bool,
    /// Register moved.
    pub register: RegisterNumber,
}

/// Packs a system register's name.
pub const fn encoding(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// Why a guest exited by a synchronous exception.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trap {
    /// WFI, or WFE.
    Wait {
        /// It was WFE.
        event: bool,
    },
    /// HVC with this immediate.
    Hvc(u16),
    /// SMC with this immediate; the guest stands *at* the instruction.
    Smc(u16),
    /// MSR, MRS or a system instruction.
    System(SystemAccess),
    /// A load or store to something that stage 2 doesn't map; `access` is `None` if the syndrome doesn't describe it.
    DataAbort {
        /// The access.
        access: Option<MmioAccess>,
        /// The address is that of a stage 1 table walk.
        walk: bool,
        /// It's a stage 2 translation or permission fault; otherwise something external.
        translation: bool,
        /// It's a cache maintenance instruction.
        cache_maintenance: bool,
    },
    /// An instruction fetch from something that stage 2 doesn't map.
    InstructionAbort,
    /// FP or SIMD that EL2 doesn't let through.
    FloatingPoint,
    /// Anything else; the exception class.
    Unknown(u8),
}

const CLASS: u64 = 0x3f << 26;
const CLASS_SYSTEM: u64 = 0x18 << 26;
const CLASS_DATA_ABORT: u64 = 0x24 << 26;
/// ISV: the syndrome describes the access.
const VALID: u64 = 1 << 24;
/// WnR: it was a store.
const WRITE: u64 = 1 << 6;
/// S1PTW: it was a stage 1 table walk.
const WALK: u64 = 1 << 7;
/// CM: it was cache maintenance.
const MAINTENANCE: u64 = 1 << 8;

/// DFSC 0b0001xx, 0b0010xx and 0b0011xx are translation, access flag and permission faults, by level (xx): the upper two of its six
/// bits are zero, the next two aren't.
const STATUS_UPPER: u64 = 0x30;
const STATUS_KIND: u64 = 0x0c;
const TRANSLATION: u64 = 0x04;
const PERMISSION: u64 = 0x0c;

/// The load or store, if it is one to an emulated device: described, to what stage 2 doesn't map, nothing besides.
#[inline(always)]
pub const fn mmio(esr: u64) -> Option<MmioAccess> {
    const ALL: u64 = CLASS | VALID | WALK | MAINTENANCE | STATUS_UPPER | STATUS_KIND;
    if esr & ALL == CLASS_DATA_ABORT | VALID | TRANSLATION {
        Some(MmioAccess::new(esr as u32))
    } else {
        None
    }
}

/// What the guest gets for a data abort of its own at `address`.
pub const fn external_abort(esr: u64, address: u64) -> Exception {
    Exception::DataAbort {
        address,
        write: esr & WRITE != 0,
    }
}

/// Whether a data abort is for a stage 2 permission: then HPFAR_EL2 has no address (Arm ARM DDI 0487, D19.2.59).
pub const fn is_permission_fault(esr: u64) -> bool {
    esr & (WALK | STATUS_UPPER | STATUS_KIND) == PERMISSION
}

/// Whether it is a write to the system register with this name; one comparison, for what happens often.
#[inline(always)]
pub const fn is_write_of(esr: u64, name: u32) -> bool {
    /// All of the syndrome but the length of the instruction (25) and the register moved (9:5).
    const NAME: u64 = CLASS | 0x1ff_fc1f;
    let (op0, op1, op2) = (name >> 14 & 3, name >> 11 & 7, name & 7);
    let (crn, crm) = (name >> 7 & 0xf, name >> 3 & 0xf);
    let iss = op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1;
    esr & NAME == CLASS_SYSTEM | iss as u64
}

/// The system register access, if it is one.
#[inline(always)]
pub const fn system(esr: u64) -> Option<SystemAccess> {
    if esr & CLASS == CLASS_SYSTEM {
        Some(SystemAccess::new(esr as u32))
    } else {
        None
    }
}

impl MmioAccess {
    #[inline(always)]
    const fn new(iss: u32) -> Self {
        Self {
            write: iss & 1 << 6 != 0,
            width: match iss >> 22 & 3 {
                0 => Width::Byte,
                1 => Width::Half,
                2 => Width::Word,
                _ => Width::Double,
            },
            register: (iss >> 16 & 0x1f) as usize,
            sign_extend: iss & 1 << 21 != 0,
            full: iss & 1 << 15 != 0,
        }
    }
}

impl SystemAccess {
    #[inline(always)]
    const fn new(iss: u32) -> Self {
        Self {
            encoding: encoding(
                iss >> 20 & 3,
                iss >> 14 & 7,
                iss >> 10 & 0xf,
                iss >> 1 & 0xf,
                iss >> 17 & 7,
            ),
            read: iss & 1 != 0,
            register: (iss >> 5 & 0x1f) as usize,
        }
    }
}

/// Decodes ESR_EL2 of a synchronous exception from a lower level.
pub const fn decode(esr: u64) -> Trap {
    let class = (esr >> 26) as u8 & 0x3f;
    let iss = esr as u32 & 0x1ff_ffff;
    match class {
        0x01 => Trap::Wait {
            event: iss & 1 != 0,
        },
        0x07 => Trap::FloatingPoint,
        0x16 => Trap::Hvc(iss as u16),
        0x17 => Trap::Smc(iss as u16),
        0x18 => Trap::System(SystemAccess::new(iss)),
        0x20 => Trap::InstructionAbort,
        0x24 => Trap::DataAbort {
            access: if esr & VALID != 0 {
                Some(MmioAccess::new(iss))
            } else {
                None
            },
            walk: esr & WALK != 0,
            translation: esr & STATUS_UPPER == 0 && esr & STATUS_KIND != 0,
            cache_maintenance: esr & MAINTENANCE != 0,
        },
        _ => Trap::Unknown(class),
    }
}

/// Guest-physical address of a stage 2 fault: page from HPFAR_EL2, rest from FAR_EL2.
pub const fn fault_address(hpfar: u64, far: u64) -> u64 {
    (hpfar & 0xfff_ffff_fff0) << 8 | far & 0xfff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_store_is_described() {
        // EC 0x24, IL, ISV, SAS = word, SRT = 3, WnR, translation fault level 3.
        let esr = 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 1 << 6 | 0x07;
        let Trap::DataAbort {
            access: Some(access),
            walk: false,
            translation: true,
            cache_maintenance: false,
        } = decode(esr)
        else {
            panic!("{:?}", decode(esr));
        };
        assert_eq!(
            access,
            MmioAccess {
                write: true,
                width: Width::Word,
                register: 3,
                sign_extend: false,
                full: false
            }
        );
    }

    #[test]
    fn pairs_have_no_description() {
        assert!(matches!(
            decode(0x24 << 26 | 1 << 25 | 0x07),
            Trap::DataAbort { access: None, .. }
        ));
    }

    #[test]
    fn external_aborts_are_no_translation_faults() {
        assert!(matches!(
            decode(0x24 << 26 | 0x10),
            Trap::DataAbort {
                translation: false,
                ..
            }
        ));
    }

    #[test]
    fn loads_extend_as_the_instruction_says() {
        let load = |width, sign_extend, full| MmioAccess {
            write: false,
            width,
            register: 0,
            sign_extend,
            full,
        };
        assert_eq!(load(Width::Byte, true, false).extend(0x80), 0xffff_ff80);
        assert_eq!(
            load(Width::Byte, true, true).extend(0x80),
            0xffff_ffff_ffff_ff80
        );
        assert_eq!(load(Width::Half, false, true).extend(0x1_8001), 0x8001);
        assert_eq!(
            load(Width::Word, true, true).extend(0x8000_0000),
            0xffff_ffff_8000_0000
        );
        assert_eq!(load(Width::Double, false, true).extend(u64::MAX), u64::MAX);
    }

    #[test]
    fn system_registers_keep_their_name() {
        // msr ICC_SGI1R_EL1 (3, 0, 12, 11, 5), x7
        let iss = 3 << 20 | 5 << 17 | 12 << 10 | 7 << 5 | 11 << 1;
        assert_eq!(
            decode(0x18 << 26 | iss),
            Trap::System(SystemAccess {
                encoding: encoding(3, 0, 12, 11, 5),
                read: false,
                register: 7
            })
        );
    }

    #[test]
    fn a_write_is_recognised_by_its_name_alone() {
        const SGI1R: u32 = encoding(3, 0, 12, 11, 5);
        let write = 0x18 << 26 | 3 << 20 | 5 << 17 | 12 << 10 | 11 << 1;
        for esr in [write, write | 1 << 25, write | 0x1f << 5] {
            assert!(is_write_of(esr, SGI1R), "{esr:#x}");
        }
        // A read, and each field of the name changed.
        for bit in [0, 1, 10, 14, 17, 20, 26] {
            assert!(!is_write_of(write ^ 1 << bit, SGI1R), "bit {bit}");
        }
        for op2 in 0..8u64 {
            let esr = write & !(7 << 17) | op2 << 17;
            let Trap::System(access) = decode(esr) else {
                panic!("{esr:#x} is a system register access");
            };
            assert_eq!(is_write_of(esr, SGI1R), access.encoding == SGI1R, "{op2}");
        }
    }

    #[test]
    fn what_can_be_emulated_is_described_and_a_fault_of_stage_2_s_own_translation() {
        let good = 0x24 << 26 | 1 << 25 | 1 << 24 | 2 << 22 | 3 << 16 | 0x07;
        assert!(mmio(good).is_some());
        for status in 0..64u64 {
            let esr = good & !0x3f | status;
            // Permission faults have no address in HPFAR_EL2, and no emulated device is mapped; there are no access flag faults.
            let expected = status >> 2 == 1;
            assert_eq!(mmio(esr).is_some(), expected, "status {status:#x}");
            let permission = status >> 2 == 3;
            assert_eq!(is_permission_fault(esr), permission, "status {status:#x}");
            assert!(
                !is_permission_fault(esr | 1 << 7),
                "a walk's is another one"
            );
        }
        // No description; a table walk; cache maintenance; an instruction abort.
        for esr in [
            good & !(1 << 24),
            good | 1 << 7,
            good | 1 << 8,
            good & !(0x3f << 26) | 0x20 << 26,
        ] {
            assert_eq!(mmio(esr), None, "{esr:#x}");
        }
    }

    #[test]
    fn the_fault_address_is_put_together() {
        assert_eq!(
            fault_address(0x0009_0000, 0xffff_8000_1234_5018),
            0x0900_0018
        );
    }
}
