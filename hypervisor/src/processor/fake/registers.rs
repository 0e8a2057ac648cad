//! Registers of which old values may be in force until an ISB, and a TLB that a speculative AT fills with whatever they say.

use super::*;
use crate::processor::vcpu::{MMU, NO_WALKS};
use alloc::collections::BTreeSet;

/// What a guest's registers are while it runs.
#[derive(Clone, Debug, Default)]
pub struct Guest(pub BTreeMap<Register, u64>);

impl Guest {
    fn value(&self, register: Register) -> u64 {
        self.0.get(&register).copied().unwrap_or(0)
    }
}

#[derive(Clone, Default)]
pub struct Registers {
    values: BTreeMap<Register, u64>,
    /// What may be in force besides, since no ISB came after it was changed.
    before: BTreeMap<Register, BTreeSet<u64>>,
    /// The CPU has the erratum.
    pub speculates: bool,
    /// All guests that there are.
    pub guests: Vec<Guest>,
    /// Values of VTTBR_EL2 whose tables map nothing.
    pub nobody: BTreeSet<u64>,
    /// TLB entries that are nobody's truth, with what made them.
    wrong: BTreeMap<String, Held>,
    /// What an AT finds at EL0 and at EL1: PAR_EL1.
    pub translations: [u64; 2],
    /// The vectors in force; none, while others may be.
    vectors: Option<Vectors>,
    vectors_set: Option<Vectors>,
    /// An AT's result was read before it was there.
    too_early: bool,
    translating: bool,
    /// VTTBR_EL2 named memory that has no tables, and a walk went there: a device's registers, for instance.
    strayed: bool,
}

impl Registers {
    /// What is written and in force.
    pub fn set(&mut self, register: Register, value: u64) {
        self.values.insert(register, value);
    }

    pub fn value(&self, register: Register) -> u64 {
        self.values.get(&register).copied().unwrap_or(0)
    }

    /// A register's value, if no other is possible.
    pub fn only(&self, register: Register) -> Option<u64> {
        let old = self.before.get(&register);
        let value = self.value(register);
        old.is_none_or(|old| old.iter().all(|old| *old == value))
            .then_some(value)
    }

    fn possible(&self, register: Register) -> BTreeSet<u64> {
        let mut all = self.before.get(&register).cloned().unwrap_or_default();
        all.insert(self.value(register));
        all
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Write(register, value) => {
                let old = self.values.insert(register, value).unwrap_or(0);
                self.before.entry(register).or_default().insert(old);
            }
            Step::Isb => {
                self.before.clear();
                self.vectors = self.vectors_set;
                self.translating = false;
            }
            Step::At(who, _) => {
                let result = self.translations[usize::from(who == At::S1E1R)];
                self.values.insert(Register::Par, result);
                self.translating = true;
            }
            Step::Read(Register::Par) => self.too_early |= self.translating,
            Step::Vectors(which) => {
                self.vectors_set = Some(which);
                self.vectors = None;
            }
            Step::Tlbi(Tlbi::AllE1) => self.wrong.values_mut().for_each(Held::leave),
            Step::Dsb(dsb) if completes(dsb).is_some() => {
                self.wrong.values_mut().for_each(Held::complete);
                self.wrong.retain(|_, held| *held != Held::Gone);
            }
            _ => {}
        }
        if self.speculates {
            self.speculate();
        }
    }

    /// A speculative AT, with any of the values that may be in force.
    fn speculate(&mut self) {
        use Register::{Hcr, Mair, Sctlr, Tcr, Ttbr0, Ttbr1, Vttbr};
        const USED: [Register; 7] = [Hcr, Vttbr, Sctlr, Tcr, Mair, Ttbr0, Ttbr1];
        let mut all = Vec::from([BTreeMap::new()]);
        for register in USED {
            let values = self.possible(register);
            all = all
                .iter()
                .flat_map(|one| {
                    values.iter().map(move |value| {
                        let mut one = one.clone();
                        one.insert(register, *value);
                        one
                    })
                })
                .collect();
        }
        for one in all {
            let one = Guest(one);
            if self.is_wrong(&one) {
                self.wrong.insert(alloc::format!("{one:x?}"), Held::Here);
            }
        }
    }

    /// Whether a translation by these registers makes an entry, and one that doesn't belong to the guest whose VMID it has.
    fn is_wrong(&mut self, used: &Guest) -> bool {
        use Register::{Hcr, Mair, Sctlr, Tcr, Ttbr0, Ttbr1, Vttbr};
        let on = used.value(Sctlr) & MMU != 0;
        if on && used.value(Tcr) & NO_WALKS == NO_WALKS {
            return false;
        }
        if used.value(Hcr) & 1 != 0 && self.nobody.contains(&used.value(Vttbr)) {
            return false;
        }
        let owner = self
            .guests
            .iter()
            .find(|guest| guest.value(Vttbr) == used.value(Vttbr));
        self.strayed |= owner.is_none() && used.value(Hcr) & 1 != 0;
        let Some(owner) = owner.filter(|_| used.value(Hcr) & 1 != 0) else {
            return true;
        };
        let same = |register| owner.value(register) == used.value(register);
        if on {
            !(owner.value(Sctlr) & MMU != 0 && [Tcr, Mair, Ttbr0, Ttbr1].into_iter().all(same))
        } else {
            owner.value(Sctlr) & MMU != 0
        }
    }

    pub fn settled(&self) -> Result<(), String> {
        let pending = self.before.keys().find(|name| self.only(**name).is_none());
        if let Some(register) = pending {
            return Err(alloc::format!("{register:?} isn't in force"));
        }
        if self.vectors != self.vectors_set {
            return Err("the vectors aren't in force".into());
        }
        if self.too_early {
            return Err("PAR_EL1 was read before AT's result was there".into());
        }
        if self.strayed {
            return Err("a walk by whatever was in VTTBR_EL2".into());
        }
        if let Some((entry, _)) = self.wrong.first_key_value() {
            return Err(alloc::format!("the TLB has an entry by {entry}"));
        }
        Ok(())
    }

    /// What is in force, with nothing wrong.
    pub fn runs(&self, guest: &Guest) -> Result<(), String> {
        self.settled()?;
        for (register, expected) in &guest.0 {
            let value = self.value(*register);
            if value != *expected {
                return Err(alloc::format!(
                    "{register:?} is {value:#x} instead of {expected:#x}"
                ));
            }
        }
        Ok(())
    }

    pub fn vectors(&self) -> Option<Vectors> {
        self.vectors
    }
}
