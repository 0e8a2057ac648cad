//! ESR_EL2 as a value with a meaning (Arm ARM DDI 0487, D19.2.37 "ESR_EL2").

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
    /// FP, SIMD or SVE that EL2 doesn't let through.
    FloatingPoint,
    /// Anything else; the exception class.
    Unknown(u8),
}

/// Decodes ESR_EL2 of a synchronous exception from a lower level.
pub const fn decode(esr: u64) -> Trap {
    let class = (esr >> 26) as u8 & 0x3f;
    let iss = esr as u32 & 0x1ff_ffff;
    match class {
        0x01 => Trap::Wait {
            event: iss & 1 != 0,
        },
        0x07 | 0x19 => Trap::FloatingPoint,
        0x16 => Trap::Hvc(iss as u16),
        0x17 => Trap::Smc(iss as u16),
        0x18 => Trap::System(SystemAccess {
            encoding: encoding(
                iss >> 20 & 3,
                iss >> 14 & 7,
                iss >> 10 & 0xf,
                iss >> 1 & 0xf,
                iss >> 17 & 7,
            ),
            read: iss & 1 != 0,
            register: (iss >> 5 & 0x1f) as usize,
        }),
        0x20 => Trap::InstructionAbort,
        0x24 => {
            let valid = iss & 1 << 24 != 0;
            let status = iss & 0x3f;
            let access = if valid {
                Some(MmioAccess {
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
                })
            } else {
                None
            };
            Trap::DataAbort {
                access,
                walk: iss & 1 << 7 != 0,
                translation: matches!(status & 0x3c, 0x04 | 0x08 | 0x0c),
                cache_maintenance: iss & 1 << 8 != 0,
            }
        }
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
    fn the_fault_address_is_put_together() {
        assert_eq!(
            fault_address(0x0009_0000, 0xffff_8000_1234_5018),
            0x0900_0018
        );
    }
}
