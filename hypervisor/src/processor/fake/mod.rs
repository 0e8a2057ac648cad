//! A processor that has no instructions but the rules for them: the worst that the architecture, or an erratum, allows happens between any two steps.
//!
//! [`Fake`] records a sequence. [`prove`] shows that it keeps the rules, and that it doesn't without any one of its steps: so a test fails both when
//! a barrier is taken out of the code and when the model has become blind to it.

mod caches;
mod registers;
mod signals;
mod tlb;

use super::*;
use crate::errata::Errata;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

pub use caches::LINE;
pub use registers::{Guest, Registers};

/// A step of a sequence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Read(Register),
    Write(Register, u64),
    Isb,
    Dsb(Dsb),
    Tlbi(Tlbi),
    Ic(Ic),
    Dc(Dc, usize),
    At(At, u64),
    Vectors(Vectors),
    Sgi(u64),
    Sev,
    Wfi,
    /// EL2 has stored what another CPU is to see.
    Left,
    /// EL2 has stored to the cache line with this address.
    Stored(usize),
    /// A device that isn't coherent, or is, has written to the line with this address, and a register has just told of it.
    Written(usize, bool),
    /// Another vCPU of the guest with this VTTBR_EL2 has run on this CPU, with other address spaces by the same ASIDs.
    Shared(u64),
    /// EL2 has taken a range of pages out of a guest's tables, which are changed in this CPU's caches alone: first page, end, VTTBR_EL2.
    Unmapped(u64, u64, u64),
}

/// The state of everything that steps are about.
#[derive(Clone, Default)]
pub struct Model {
    pub registers: Registers,
    tlb: tlb::Tlb,
    caches: caches::Caches,
    signals: signals::Signals,
}

/// Where a translation, a line or an instruction is remembered, until it is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
enum Held {
    /// Nowhere, and it can't come back.
    #[default]
    Gone,
    /// An instruction is about to forget it; it may still be used.
    Leaving,
    /// The same, and with it all that was made of it.
    LeavingWithAll,
    /// Possibly still there.
    Here,
}

impl Held {
    fn leave(&mut self) {
        if *self == Self::Here {
            *self = Self::Leaving;
        }
    }

    fn complete(&mut self) {
        if *self != Self::Here {
            *self = Self::Gone;
        }
    }
}

/// A barrier that waits for everything, with its reach: whether other CPUs' maintenance is complete, too.
fn completes(dsb: Dsb) -> Option<bool> {
    match dsb {
        Dsb::Sy | Dsb::Ish => Some(true),
        Dsb::Nsh => Some(false),
        Dsb::Ishst => None,
    }
}

impl Model {
    /// A CPU with [`Errata::CACHE_CLEANING`].
    pub fn that_cleans_badly() -> Self {
        let mut model = Self::default();
        model.caches.clean_badly();
        model
    }

    /// What the step does, and then the worst that may happen before the next one.
    pub fn step(&mut self, step: Step) {
        let vttbr = self.registers.only(Register::Vttbr);
        self.registers.step(step);
        self.tlb.step(step, vttbr);
        self.caches.step(step);
        self.signals.step(step);
    }

    /// A guest runs: all registers are its own and in force, what this CPU runs it under, too, and no TLB entry is wrong.
    pub fn runs(&self, guest: &Guest) -> Result<(), String> {
        self.registers.runs(guest)
    }

    /// Nobody uses what was unmapped.
    pub fn unused(&self) -> Result<(), String> {
        self.tlb.unused()
    }

    /// A guest with its MMU off, or a device that doesn't snoop, finds what was stored.
    pub fn in_memory(&self) -> Result<(), String> {
        self.caches.in_memory()
    }

    /// What a device has written is what EL2 loads.
    pub fn observed(&self) -> Result<(), String> {
        self.caches.observed()
    }

    /// CPUs execute what was stored: this one, and all of them.
    pub fn executes(&self, everywhere: bool) -> Result<(), String> {
        self.caches.executes(everywhere)
    }

    /// Another CPU was told, or can tell this one, and sees what it is about.
    pub fn told(&self) -> Result<(), String> {
        self.signals.told()
    }

    /// Nothing that was written isn't in force yet.
    pub fn settled(&self) -> Result<(), String> {
        self.registers.settled()
    }
}

/// The processor that code under test runs on.
#[derive(Clone)]
pub struct Fake {
    start: Model,
    pub model: Model,
    pub steps: Vec<Step>,
    /// What the code is told of the CPU that it runs on.
    pub errata: Errata,
}

impl Fake {
    pub fn new(start: Model) -> Self {
        Self {
            model: start.clone(),
            start,
            steps: Vec::new(),
            errata: Errata::empty(),
        }
    }

    /// What happens besides the processor's instructions.
    pub fn step(&mut self, step: Step) {
        self.model.step(step);
        self.steps.push(step);
    }

    /// What would be, had the step with this number been left out.
    pub fn without(&self, left_out: usize) -> Model {
        let mut model = self.start.clone();
        for (index, step) in self.steps.iter().enumerate() {
            if index != left_out {
                model.step(*step);
            }
        }
        model
    }
}

impl Processor for Fake {
    fn read(&mut self, register: Register) -> u64 {
        self.step(Step::Read(register));
        self.model.registers.value(register)
    }

    fn write(&mut self, register: Register, value: u64) {
        self.step(Step::Write(register, value));
    }

    fn isb(&mut self) {
        self.step(Step::Isb);
    }

    fn dsb(&mut self, reach: Dsb) {
        self.step(Step::Dsb(reach));
    }

    fn tlbi(&mut self, which: Tlbi) {
        self.step(Step::Tlbi(which));
    }

    fn ic(&mut self, which: Ic) {
        self.step(Step::Ic(which));
    }

    fn dc(&mut self, operation: Dc, address: usize) {
        self.step(Step::Dc(operation, address));
    }

    fn cache_line(&self) -> usize {
        LINE
    }

    fn cleaning(&self) -> Dc {
        match self.errata.contains(Errata::CACHE_CLEANING) {
            true => Dc::CleanInvalidate,
            false => Dc::Clean,
        }
    }

    fn at(&mut self, who: At, address: u64) {
        self.step(Step::At(who, address));
    }

    fn sgi(&mut self, value: u64) {
        self.step(Step::Sgi(value));
    }

    fn sev(&mut self) {
        self.step(Step::Sev);
    }

    fn wfi(&mut self) {
        self.step(Step::Wfi);
    }

    fn vectors(&mut self, which: Vectors) {
        self.step(Step::Vectors(which));
    }
}

/// A rule, looked at when a sequence is over.
pub type Rule<'a> = &'a dyn Fn(&Model) -> Result<(), String>;

/// Shows that the sequences keep their rules, and that they need each of their steps. They are the same code under several circumstances: a step
/// is needed if one of those needs it.
pub fn prove(sequences: &[(Fake, Rule<'_>)]) {
    for (fake, rule) in sequences {
        if let Err(broken) = rule(&fake.model) {
            panic!("{broken}, after {:x?}", fake.steps);
        }
    }
    let (first, _) = &sequences[0];
    for (index, step) in first.steps.iter().enumerate() {
        // What happens besides, and reads, aren't the sequence's to leave out.
        if matches!(
            step,
            Step::Stored(_)
                | Step::Left
                | Step::Written(..)
                | Step::Shared(_)
                | Step::Unmapped(..)
                | Step::Read(_)
                | Step::At(..)
        ) {
            continue;
        }
        for (other, _) in sequences {
            let same = core::mem::discriminant(&other.steps[index]);
            assert_eq!(same, core::mem::discriminant(step), "another sequence");
            assert_eq!(other.steps.len(), first.steps.len(), "another sequence");
        }
        let needed = sequences
            .iter()
            .any(|(fake, rule)| rule(&fake.without(index)).is_err());
        assert!(
            needed,
            "step {index}, {step:x?}, is needed for nothing in {:x?}",
            first.steps
        );
    }
}
