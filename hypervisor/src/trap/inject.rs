//! Giving a guest an exception at EL1 (Arm ARM DDI 0487, D1.3.1 and the pseudocode AArch64.TakeException).

/// EL1 state that taking an exception reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Before {
    /// Where the guest stands.
    pub pc: u64,
    /// Its processor state.
    pub pstate: u64,
    /// VBAR_EL1.
    pub vbar: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
}

/// What taking an exception writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct After {
    /// Where the guest goes on: its vector.
    pub pc: u64,
    /// EL1h with everything masked.
    pub pstate: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception has one.
    pub far: Option<u64>,
}

/// What the guest gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// The instruction is undefined.
    Undefined,
    /// A synchronous external abort of a load or store at this virtual address.
    DataAbort {
        /// FAR_EL1.
        address: u64,
        /// It was a store: ESR_EL1.WnR.
        write: bool,
    },
    /// A synchronous external abort of an instruction fetch at this virtual address.
    InstructionAbort {
        /// FAR_EL1.
        address: u64,
    },
}

const MODE: u64 = 0x1f;
const EL1H: u64 = 0x5;
const EL1T: u64 = 0x4;
const MASKED: u64 = 0x3c0;
const FLAGS: u64 = 0xf000_0000;
const PAN: u64 = 1 << 22;
const SSBS: u64 = 1 << 12;
/// SCTLR_EL1: PSTATE.PAN stays as it is; PSTATE.SSBS at an exception. Both are RES0 or RES1 where there is no such state.
const SPAN: u64 = 1 << 23;
const DSSBS: u64 = 1 << 44;

/// Computes the guest's state after taking `exception`.
pub const fn take(exception: Exception, before: Before) -> After {
    let mode = before.pstate & MODE;
    let lower = mode & 0x1c == 0;
    let offset = match mode {
        EL1H => 0x200,
        EL1T => 0x000,
        0x00 => 0x400,
        _ => 0x600,
    };
    let (class, status, far) = match exception {
        Exception::Undefined => (0x00u64, 0u64, None),
        Exception::DataAbort { address, write } => {
            let write = if write { 1 << 6 } else { 0 };
            (if lower { 0x24 } else { 0x25 }, 0x10 | write, Some(address))
        }
        Exception::InstructionAbort { address } => {
            (if lower { 0x20 } else { 0x21 }, 0x10, Some(address))
        }
    };
    let pan = if before.sctlr & SPAN == 0 {
        PAN
    } else {
        before.pstate & PAN
    };
    let ssbs = if before.sctlr & DSSBS == 0 { 0 } else { SSBS };
    After {
        pc: before.vbar.wrapping_add(offset),
        pstate: before.pstate & FLAGS | pan | ssbs | MASKED | EL1H,
        elr: before.pc,
        spsr: before.pstate,
        esr: class << 26 | 1 << 25 | status,
        far,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_the_kernel_with_its_own_stack() {
        let after = take(
            Exception::DataAbort {
                address: 0xdead_0008,
                write: true,
            },
            Before {
                pc: 0x8000,
                pstate: 0x6000_0005,
                vbar: 0x1_0000,
                sctlr: SPAN,
            },
        );
        assert_eq!(after.pc, 0x1_0200);
        assert_eq!(after.elr, 0x8000);
        assert_eq!(after.spsr, 0x6000_0005);
        assert_eq!(after.pstate, 0x6000_03c5);
        assert_eq!(after.esr, 0x25 << 26 | 1 << 25 | 1 << 6 | 0x10);
        assert_eq!(after.far, Some(0xdead_0008));
    }

    #[test]
    fn from_user_space_the_lower_vector_and_class_are_used() {
        let after = take(
            Exception::InstructionAbort { address: 0x10 },
            Before {
                pc: 0x10,
                pstate: 0,
                vbar: 0x1_0000,
                sctlr: SPAN,
            },
        );
        assert_eq!((after.pc, after.esr >> 26), (0x1_0400, 0x20));
        let undefined = take(
            Exception::Undefined,
            Before {
                pc: 4,
                pstate: 0x4,
                vbar: 0,
                sctlr: SPAN,
            },
        );
        assert_eq!(
            (undefined.pc, undefined.esr, undefined.far),
            (0, 1 << 25, None)
        );
    }

    /// PAN and SSBS are the guest's own affair (AArch64.TakeException): SCTLR_EL1 says what they are in a handler.
    #[test]
    fn protections_are_as_sctlr_has_them() {
        let taken = |pstate: u64, sctlr| {
            let before = Before {
                pc: 0,
                pstate: pstate | EL1H,
                vbar: 0,
                sctlr,
            };
            take(Exception::Undefined, before).pstate & (PAN | SSBS)
        };
        for (pstate, sctlr, expected) in [
            (0, SPAN, 0),
            (PAN, SPAN, PAN),
            (0, 0, PAN),
            (SSBS, SPAN, 0),
            (0, SPAN | DSSBS, SSBS),
            (SSBS | PAN, DSSBS, SSBS | PAN),
        ] {
            assert_eq!(taken(pstate, sctlr), expected, "{pstate:#x} {sctlr:#x}");
        }
    }
}
