//! A vCPU's system registers, and the order in which they are exchanged.
//!
//! While that goes on EL1's registers are two guests', and a translation with them would belong to neither. EL2 causes none, and processors
//! don't speculate on another exception level's, except those with Cortex-A57 1319537, Cortex-A72 1319367, Cortex-A55 1530923 or Cortex-A76 1165522:
//! an AT that is only speculated walks with whatever is there, and leaves an entry in the TLB for good (Arm's Software Developer Errata
//! Notices). The remedy is in those notices: walks are switched off, and the MMU on, from before the first register is changed until after the last.

use super::{Processor, Register};

/// What says whether and how EL1 and EL0 are translated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Regime {
    sctlr: u64,
    tcr: u64,
}

/// SCTLR_EL1.M.
pub(super) const MMU: u64 = 1;
/// TCR_EL1.EPD0 and EPD1.
pub(super) const NO_WALKS: u64 = 1 << 7 | 1 << 23;

impl Regime {
    /// SCTLR_EL1 after reset: MMU and caches off, the RES1 bits.
    const RESET: Self = Self {
        sctlr: 0x30d0_0800,
        tcr: 0,
    };

    #[inline(always)]
    fn save(cpu: &mut impl Processor) -> Self {
        Self {
            sctlr: cpu.read(Register::Sctlr),
            tcr: cpu.read(Register::Tcr),
        }
    }

    /// Nothing is translated from here to [`Self::resume`], not even speculatively: no walk begins, and then with the MMU on an address that isn't in
    /// the TLB has no translation. Returns what there was.
    #[inline(always)]
    pub(super) fn suspend(cpu: &mut impl Processor) -> Self {
        let was = Self::save(cpu);
        cpu.write(Register::Tcr, was.tcr | NO_WALKS);
        cpu.isb(); // no walks before ...
        cpu.write(Register::Sctlr, was.sctlr | MMU);
        cpu.isb(); // ... the MMU is on, and both before any other register changes
        was
    }

    /// In the opposite order: walks come last. An ISB must follow before they are relied upon.
    #[inline(always)]
    pub(super) fn resume(&self, cpu: &mut impl Processor) {
        cpu.isb(); // stage 2 and all other registers are one guest's
        cpu.write(Register::Sctlr, self.sctlr);
        cpu.isb(); // with the MMU as it has it
        cpu.write(Register::Tcr, self.tcr);
    }

    #[inline(always)]
    fn load(&self, cpu: &mut impl Processor) {
        cpu.write(Register::Sctlr, self.sctlr);
        cpu.write(Register::Tcr, self.tcr);
    }
}

macro_rules! system_registers {
    ($($field:ident = $register:ident),* $(,)?) => {
        /// EL1's and EL0's that a vCPU changes by itself.
        #[derive(Clone, Debug, Default)]
        struct SystemRegisters { $($field: u64),* }

        impl SystemRegisters {
            #[inline(always)]
            fn save(&mut self, cpu: &mut impl Processor) {
                $(self.$field = cpu.read(Register::$register);)*
            }

            #[inline(always)]
            fn load(&self, cpu: &mut impl Processor) {
                $(cpu.write(Register::$register, self.$field);)*
            }
        }

        #[cfg(test)]
        pub(super) const SWITCHED: &[Register] = &[$(Register::$register),*];
    };
}

system_registers! {
    actlr = Actlr, cpacr = Cpacr,
    ttbr0 = Ttbr0, ttbr1 = Ttbr1, mair = Mair, amair = Amair,
    vbar = Vbar, contextidr = Contextidr, esr = Esr, far = Far,
    afsr0 = Afsr0, afsr1 = Afsr1, par = Par, csselr = Csselr,
    tpidr_el0 = Tpidr0, tpidrro = Tpidrro, tpidr_el1 = Tpidr1,
    sp_el0 = Sp0, sp_el1 = Sp1, elr = Elr, spsr = Spsr,
    cntkctl = CntkCtl, mdscr = Mdscr,
}

/// What a vCPU's place is, when it is loaded: not its own to change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// VTTBR_EL2: its stage 2.
    pub vttbr: u64,
    /// CNTVOFF_EL2: its virtual time.
    pub timer_offset: u64,
}

/// A vCPU's system registers while it isn't in a CPU.
#[derive(Clone, Debug)]
pub struct Vcpu {
    regime: Regime,
    system: SystemRegisters,
    timer_control: u64,
    timer_compare: u64,
    vmpidr: u64,
}

impl Vcpu {
    /// As after reset: MMU off, timer off. It is the one with this affinity.
    pub fn new(affinity: u64) -> Self {
        Self {
            regime: Regime::RESET,
            system: SystemRegisters::default(),
            timer_control: 0,
            timer_compare: 0,
            vmpidr: 1 << 31 | affinity,
        }
    }

    /// Back to that.
    pub fn reset(&mut self) {
        self.regime = Regime::RESET;
        self.system = SystemRegisters::default();
        self.timer_control = 0;
    }

    /// Out of the CPU, whose virtual timer is off then. `rest` saves what else there is.
    #[inline(always)]
    pub fn save<P: Processor>(&mut self, cpu: &mut P, rest: impl FnOnce(&mut P)) {
        self.regime = Regime::save(cpu);
        self.system.save(cpu);
        rest(cpu);
        self.timer_control = cpu.read(Register::CntvCtl);
        self.timer_compare = cpu.read(Register::CntvCval);
        stop_timer(cpu);
    }

    /// Into the CPU. `rest` loads what else there is. `speculates`: a CPU has [`SPECULATIVE_TRANSLATION`](crate::errata::Errata).
    #[inline(always)]
    pub fn load<P: Processor>(
        &self,
        cpu: &mut P,
        place: Place,
        speculates: bool,
        rest: impl FnOnce(&mut P),
    ) {
        if speculates {
            Regime::suspend(cpu);
        } else {
            self.regime.load(cpu);
        }
        cpu.write(Register::Vttbr, place.vttbr);
        cpu.write(Register::Vmpidr, self.vmpidr);
        self.system.load(cpu);
        rest(cpu);
        cpu.write(Register::CntVoff, place.timer_offset);
        cpu.write(Register::CntvCval, self.timer_compare);
        cpu.write(Register::CntvCtl, self.timer_control);
        if speculates {
            self.regime.resume(cpu);
        }
        cpu.isb(); // all of it before the guest's first instruction
    }
}

/// Stops the virtual timer.
#[inline(always)]
pub fn stop_timer(cpu: &mut impl Processor) {
    cpu.write(Register::CntvCtl, 0);
    cpu.isb(); // the timer is off before its interrupt's state is looked at
}
