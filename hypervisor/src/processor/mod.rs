//! What touches the processor, in the right order.
//!
//! A barrier that is missing shows on no emulator: so the order of register writes, barriers and maintenance is decided here, over a narrow
//! trait, and `arch` is left with single instructions. The host tests run the same code on a processor that has no instructions but
//! the rules (`fake`): what may be translated, cached or speculated between any two steps. There each step must also be *needed*: a
//! sequence without it breaks a rule.
//!
//! Source: Arm ARM DDI 0487, B2 (barriers), D7 (caches), D8 (translation, TLB maintenance), D24 (synchronisation of system registers).

pub mod caches;
pub mod controls;
pub mod faults;
pub mod signals;
pub mod stage2;
pub mod vcpu;

#[cfg(not(target_os = "none"))]
#[allow(
    missing_docs,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]
#[doc(hidden)]
pub mod fake;
#[cfg(test)]
mod tests;

/// Every system register that [`Processor`] has, as `callback! { Name = "its assembly name", … }`.
#[macro_export]
macro_rules! with_processor_registers {
    ($callback:ident) => {
        $callback! {
            // EL1's and EL0's.
            Actlr = "actlr_el1",
            Afsr0 = "afsr0_el1",
            Afsr1 = "afsr1_el1",
            Amair = "amair_el1",
            Contextidr = "contextidr_el1",
            Cpacr = "cpacr_el1",
            Csselr = "csselr_el1",
            Elr = "elr_el1",
            Esr = "esr_el1",
            Far = "far_el1",
            Mair = "mair_el1",
            Mdscr = "mdscr_el1",
            Par = "par_el1",
            Sctlr = "sctlr_el1",
            Sp0 = "sp_el0",
            Sp1 = "sp_el1",
            Spsr = "spsr_el1",
            Tcr = "tcr_el1",
            Tpidr0 = "tpidr_el0",
            Tpidr1 = "tpidr_el1",
            Tpidrro = "tpidrro_el0",
            Ttbr0 = "ttbr0_el1",
            Ttbr1 = "ttbr1_el1",
            Vbar = "vbar_el1",
            // The virtual timer.
            CntkCtl = "cntkctl_el1",
            CntvCtl = "cntv_ctl_el0",
            CntvCval = "cntv_cval_el0",
            CntVoff = "cntvoff_el2",
            // What EL2 controls EL1 by.
            Cptr = "cptr_el2",
            Hcr = "hcr_el2",
            // HCRX_EL2, where FEAT_HCX is; HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2 and HDFGWTR_EL2, where FEAT_FGT is; by their encodings.
            Hcrx = "s3_4_c1_c2_2",
            Hfgrtr = "s3_4_c1_c1_4",
            Hfgwtr = "s3_4_c1_c1_5",
            Hfgitr = "s3_4_c1_c1_6",
            Hdfgrtr = "s3_4_c3_c1_4",
            Hdfgwtr = "s3_4_c3_c1_5",
            Hstr = "hstr_el2",
            Mdcr = "mdcr_el2",
            Vmpidr = "vmpidr_el2",
            Vpidr = "vpidr_el2",
            Vtcr = "vtcr_el2",
            Vttbr = "vttbr_el2",
        }
    };
}

macro_rules! registers {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A system register that changes nothing of EL2's own translation.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Register {
            $(#[doc = concat!("`", $text, "`.")] $name),*
        }
    };
}
with_processor_registers!(registers);

/// What a `DSB` waits for, and who has seen it then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dsb {
    /// Everything, the full system.
    Sy,
    /// Everything, the inner shareable domain: all CPUs that run Baton.
    Ish,
    /// Stores, the inner shareable domain.
    Ishst,
    /// Everything, this CPU.
    Nsh,
}

/// What a `TLBI` forgets of EL1's and EL0's translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tlbi {
    /// Both stages, every VMID; this CPU.
    AllE1,
    /// What stage 1 is part of, the VMID in VTTBR_EL2; this CPU.
    VmallE1,
    /// The same; the inner shareable domain.
    VmallE1Is,
    /// Both stages, the VMID in VTTBR_EL2; the inner shareable domain.
    VmallS12E1Is,
    /// Stage 2 alone, the VMID in VTTBR_EL2, the page with this number (address divided by 4096); the inner shareable domain.
    IpaS2E1Is(u64),
}

/// Whose instruction caches forget everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ic {
    /// This CPU's.
    Iallu,
    /// Those of the inner shareable domain.
    IalluIs,
}

/// What is done with a line of the data caches, to the point of coherency.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Dc {
    /// `DC CVAC`: written back.
    Clean,
    /// `DC CIVAC`: written back and forgotten.
    CleanInvalidate,
}

/// As whom `AT` translates with EL1's stage 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum At {
    /// EL0, which reads.
    S1E0R,
    /// EL1, which reads.
    S1E1R,
}

/// The exception vectors of EL2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vectors {
    /// They go straight to Baton.
    Plain,
    /// They have the firmware clear the branch predictor first.
    Hardened,
}

/// One CPU: each method is one instruction. Nothing that it does changes how EL2 sees memory.
pub trait Processor {
    /// `MRS`.
    fn read(&mut self, register: Register) -> u64;
    /// `MSR`; in force for what follows an [`isb`](Self::isb) or a return to EL1, for speculation from now on.
    fn write(&mut self, register: Register, value: u64);
    /// `ISB`.
    fn isb(&mut self);
    /// `DSB`.
    fn dsb(&mut self, reach: Dsb);
    /// `TLBI`; complete after a [`dsb`](Self::dsb) of its reach.
    fn tlbi(&mut self, which: Tlbi);
    /// `IC`; likewise.
    fn ic(&mut self, which: Ic);
    /// `DC` on the line with this address of EL2's; likewise.
    fn dc(&mut self, operation: Dc, address: usize);
    /// Bytes of the smallest line of the data caches: a power of two.
    fn cache_line(&self) -> usize;
    /// What writes a line back on this CPU: [`Dc::CleanInvalidate`] where [`Dc::Clean`] can't be trusted
    /// ([`CACHE_CLEANING`](crate::errata::Errata::CACHE_CLEANING)).
    fn cleaning(&self) -> Dc;
    /// `AT`; PAR_EL1 has the result after an [`isb`](Self::isb).
    fn at(&mut self, who: At, address: u64);
    /// ICC_SGI1R_EL1.
    fn sgi(&mut self, value: u64);
    /// `SEV`.
    fn sev(&mut self);
    /// `WFI`.
    fn wfi(&mut self);
    /// VBAR_EL2.
    fn vectors(&mut self, which: Vectors);
}
