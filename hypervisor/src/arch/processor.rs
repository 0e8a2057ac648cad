//! This CPU, as the library's sequences ([`hypervisor::processor`]) know it: one instruction each. Names and kinds are constants where they
//! are used, so nothing is left of the choices below.

use super::errata;
use super::registers::{read, write};
use aarch64_cpu::asm::barrier;
use core::arch::asm;
use hypervisor::errata::Errata;
use hypervisor::processor::{At, Dc, Dsb, Ic, Processor, Register, Tlbi, Vectors};
use hypervisor::trap::controls::HypervisorControl;

pub use smccc::{Hvc, Smc};

/// The CPU that this code runs on.
pub struct This;

unsafe extern "C" {
    static baton_vectors: u8;
    static baton_vectors_hardened: u8;
}

macro_rules! read_by_name {
    ($($name:ident = $text:literal),* $(,)?) => {
        #[inline(always)]
        fn read(&mut self, register: Register) -> u64 {
            match register {
                $(Register::$name => read!($text)),*
            }
        }
    };
}

macro_rules! write_by_name {
    ($($name:ident = $text:literal),* $(,)?) => {
        #[inline(always)]
        fn write(&mut self, register: Register, value: u64) {
            let value = match register {
                // No other bit: E2H and TGE would change EL2's own translation.
                Register::Hcr => HypervisorControl::from_bits_truncate(value).bits(),
                _ => value,
            };
            match register {
                $(Register::$name => write!($text, value)),*
            }
        }
    };
}

/// An instruction with at most one operand.
macro_rules! maintain {
    ($text:literal) => {
        // SAFETY: invalidating TLBs of EL1 and instruction caches, and cleaning data caches, changes no value that anybody sees.
        unsafe { asm!($text, options(nostack, preserves_flags)) }
    };
    ($text:literal, $operand:expr) => {
        // SAFETY: as above; `at` changes PAR_EL1 only, which is the guest's.
        unsafe { asm!(concat!($text, ", {}"), in(reg) $operand, options(nostack, preserves_flags)) }
    };
}

impl Processor for This {
    hypervisor::with_processor_registers!(read_by_name);
    hypervisor::with_processor_registers!(write_by_name);

    #[inline(always)]
    fn isb(&mut self) {
        barrier::isb(barrier::SY);
    }

    #[inline(always)]
    fn dsb(&mut self, reach: Dsb) {
        match reach {
            Dsb::Sy => barrier::dsb(barrier::SY),
            Dsb::Ish => barrier::dsb(barrier::ISH),
            Dsb::Ishst => barrier::dsb(barrier::ISHST),
            Dsb::Nsh => barrier::dsb(barrier::NSH),
        }
    }

    #[inline(always)]
    fn tlbi(&mut self, which: Tlbi) {
        match which {
            Tlbi::AllE1 => maintain!("tlbi alle1"),
            Tlbi::VmallE1 => maintain!("tlbi vmalle1"),
            Tlbi::VmallE1Is => maintain!("tlbi vmalle1is"),
            Tlbi::VmallS12E1Is => maintain!("tlbi vmalls12e1is"),
            Tlbi::IpaS2E1Is(page) => maintain!("tlbi ipas2e1is", page),
        }
    }

    #[inline(always)]
    fn ic(&mut self, which: Ic) {
        match which {
            Ic::Iallu => maintain!("ic iallu"),
            Ic::IalluIs => maintain!("ic ialluis"),
        }
    }

    #[inline(always)]
    fn dc(&mut self, operation: Dc, address: usize) {
        match operation {
            Dc::Clean => maintain!("dc cvac", address),
            Dc::CleanInvalidate => maintain!("dc civac", address),
        }
    }

    #[inline(always)]
    fn cache_line(&self) -> usize {
        4 << (read!("ctr_el0") >> 16 & 0xf)
    }

    #[inline(always)]
    fn cleaning(&self) -> Dc {
        if errata::has(Errata::CACHE_CLEANING) {
            Dc::CleanInvalidate
        } else {
            Dc::Clean
        }
    }

    #[inline(always)]
    fn at(&mut self, who: At, address: u64) {
        match who {
            At::S1E0R => maintain!("at s1e0r", address),
            At::S1E1R => maintain!("at s1e1r", address),
        }
    }

    #[inline(always)]
    fn sgi(&mut self, value: u64) {
        write!("icc_sgi1r_el1", value);
    }

    #[inline(always)]
    fn sev(&mut self) {
        aarch64_cpu::asm::sev();
    }

    #[inline(always)]
    fn wfi(&mut self) {
        aarch64_cpu::asm::wfi();
    }

    #[inline(always)]
    fn vectors(&mut self, which: Vectors) {
        let vectors = match which {
            Vectors::Plain => &raw const baton_vectors,
            Vectors::Hardened => &raw const baton_vectors_hardened,
        };
        write!("vbar_el2", vectors as u64);
    }
}
