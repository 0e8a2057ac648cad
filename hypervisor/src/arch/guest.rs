//! What Baton reads and changes of the guest that is loaded: its system registers are in the hardware while EL2 works.

use super::errata;
use super::exits::Registers;
use super::processor::This;
use super::registers::{ESR_EL2, FAR_EL2, HPFAR_EL2, read, write};
use hypervisor::errata::Errata;
use hypervisor::lifecycle::report;
use hypervisor::processor::faults;
use hypervisor::trap::inject::{self, Before, Exception};
use tock_registers::interfaces::Readable;

/// Whether the loaded guest's virtual timer asserts its interrupt: CNTV_CTL_EL0 ENABLE and ISTATUS, not IMASK.
#[inline]
pub fn timer_asserts() -> bool {
    read!("cntv_ctl_el0") & 7 == 5
}

/// What the loaded guest's EL1 says about its last exception.
pub fn exception_state() -> report::Exception {
    report::Exception {
        sp: read!("sp_el1"),
        vbar: read!("vbar_el1"),
        esr: read!("esr_el1"),
        elr: read!("elr_el1"),
        far: read!("far_el1"),
        spsr: read!("spsr_el1"),
        sctlr: read!("sctlr_el1"),
        ttbr: [read!("ttbr0_el1"), read!("ttbr1_el1")],
    }
}

/// The loaded guest's VBAR_EL1.
pub fn vector_base() -> u64 {
    read!("vbar_el1")
}

/// Gives the running guest an exception; its registers are changed to go on at its vector.
#[inline]
pub fn inject(registers: &mut Registers, exception: Exception) {
    let before = Before {
        pc: registers.elr,
        pstate: registers.spsr,
        vbar: read!("vbar_el1"),
        sctlr: read!("sctlr_el1"),
    };
    let after = inject::take(exception, before);
    write!("elr_el1", after.elr);
    write!("spsr_el1", after.spsr);
    write!("esr_el1", after.esr);
    if let Some(far) = after.far {
        write!("far_el1", far);
    }
    registers.elr = after.pc;
    registers.spsr = after.pstate;
}

/// Reads the ID register with this name (`trap::syndrome::encoding`).
pub fn identification(name: u32) -> u64 {
    macro_rules! table {
        ($($crm:literal $op2:literal $text:literal)*) => {
            match (name >> 3 & 0xf, name & 7) {
                $(($crm, $op2) => read!($text),)*
                _ => 0,
            }
        };
    }
    table! {
        1 0 "s3_0_c0_c1_0" 1 1 "s3_0_c0_c1_1" 1 2 "s3_0_c0_c1_2" 1 3 "s3_0_c0_c1_3"
        1 4 "s3_0_c0_c1_4" 1 5 "s3_0_c0_c1_5" 1 6 "s3_0_c0_c1_6" 1 7 "s3_0_c0_c1_7"
        2 0 "s3_0_c0_c2_0" 2 1 "s3_0_c0_c2_1" 2 2 "s3_0_c0_c2_2" 2 3 "s3_0_c0_c2_3"
        2 4 "s3_0_c0_c2_4" 2 5 "s3_0_c0_c2_5" 2 6 "s3_0_c0_c2_6" 2 7 "s3_0_c0_c2_7"
        3 0 "s3_0_c0_c3_0" 3 1 "s3_0_c0_c3_1" 3 2 "s3_0_c0_c3_2" 3 4 "s3_0_c0_c3_4"
        3 5 "s3_0_c0_c3_5" 3 6 "s3_0_c0_c3_6"
        4 0 "s3_0_c0_c4_0" 4 1 "s3_0_c0_c4_1" 4 2 "s3_0_c0_c4_2" 4 4 "s3_0_c0_c4_4" 4 5 "s3_0_c0_c4_5"
        5 0 "s3_0_c0_c5_0" 5 1 "s3_0_c0_c5_1" 5 4 "s3_0_c0_c5_4" 5 5 "s3_0_c0_c5_5"
        6 0 "s3_0_c0_c6_0" 6 1 "s3_0_c0_c6_1" 6 2 "s3_0_c0_c6_2" 6 3 "s3_0_c0_c6_3"
        7 0 "s3_0_c0_c7_0" 7 1 "s3_0_c0_c7_1" 7 2 "s3_0_c0_c7_2" 7 3 "s3_0_c0_c7_3" 7 4 "s3_0_c0_c7_4"
    }
}

/// The loaded guest's MDSCR_EL1, which is switched with it.
pub fn debug_control() -> u64 {
    read!("mdscr_el1")
}

/// Changes it: single-stepping (SS) and its lock (KDE, MDE, TDCC) are the guest's own; halting debug isn't offered.
pub fn set_debug_control(value: u64) {
    const GUEST: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;
    write!("mdscr_el1", value & GUEST);
}

/// Physical address bits that the CPU implements (ID_AA64MMFR0_EL1.PARange), at most 48.
pub fn physical_address_bits() -> u8 {
    match read!("id_aa64mmfr0_el1") & 0xf {
        0 => 32,
        1 => 36,
        2 => 40,
        3 => 42,
        4 => 44,
        _ => 48,
    }
}

/// The syndrome of the exit that is being handled: ESR_EL2, FAR_EL2, HPFAR_EL2.
#[inline]
pub fn syndrome() -> (u64, u64, u64) {
    (ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get())
}

/// Where the data abort that is being handled went, from [`syndrome`]: see [`faults::address`].
pub fn abort_address(syndrome: (u64, u64, u64)) -> Option<u64> {
    faults::address(&mut This, errata::found(), syndrome, read!("spsr_el2"))
}

/// Whether a read that HPFAR_EL2 has at this address is one that stage 1 refused, and the processor misreported: asked where it can be.
#[inline(always)]
pub fn is_refused(address: u64) -> bool {
    #[cold]
    #[inline(never)]
    fn look() -> bool {
        abort_address(syndrome()).is_none()
    }
    faults::may_cross_pages(address) && errata::has(Errata::STAGE2_FAULT_ADDRESS) && look()
}
