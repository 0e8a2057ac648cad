//! Between the virtual GIC's state and a vCPU's list registers.
//!
//! Filling goes by urgency, with one exception. An *active* interrupt should have a list
//! register, or the guest's deactivation of it only counts (ICH_HCR_EL2.EOIcount) and raises a
//! maintenance interrupt. But if the active ones alone would fill all of them, one is kept for the
//! most urgent pending one, which may preempt; else it would wait for the end of a handler
//! that may itself wait for it.

use super::bank::{Bank, Bits, bit};
use super::list::{ListRegisters, MAX_LISTS, Maintenance};
use super::{Kicks, Line, Vgic};
use arrayvec::ArrayVec;

/// Something that collecting a vCPU's list registers found, for EL2 to act upon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deactivated {
    /// The guest deactivated this level-sensitive interrupt, or this message ([`Vgic::message`]): sample its source again, set
    /// the line accordingly ([`Vgic::set_line`]), unmask the source.
    Line(Line),
    /// The guest's interrupt linked to this physical one was withdrawn, so that its deactivation
    /// won't do it: deactivate this physical INTID (ICC_DIR_EL1, on the CPU that took it).
    Physical(u32),
}

/// One that wants a list register; ordered by urgency.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    priority: u8,
    intid: u32,
}

/// The most urgent ones of those seen, and how many were seen.
#[derive(Default)]
struct Best {
    kept: ArrayVec<Candidate, MAX_LISTS>,
    seen: usize,
}

impl Best {
    fn offer(&mut self, candidate: Candidate) {
        self.seen = self.seen.saturating_add(1);
        let place = self.kept.partition_point(|kept| *kept < candidate);
        if self.kept.is_full() {
            if place >= MAX_LISTS {
                return;
            }
            self.kept.pop();
        }
        let _ = self.kept.try_insert(place, candidate);
    }
}

impl Bank {
    /// Carries over, from the bank before a reset, the physical interrupts that nobody else will
    /// deactivate, and the sources that wait for a deactivation.
    pub(super) fn inherit(&mut self, before: &Bank) {
        let orphans = before.hardware | before.release;
        for n in Bits(orphans) {
            self.latch_hardware(n, before.physical(n));
        }
        self.latch = 0;
        self.hardware = 0;
        self.release = orphans;
        self.resample = before.resample | (before.active | before.listed) & before.sampled();
    }

    /// A vCPU's list registers and active interrupts are void.
    pub(super) fn abandon(&mut self, vcpu: usize) {
        let Some(held) = self.held.get_mut(vcpu) else {
            return;
        };
        let gone = core::mem::take(held);
        self.resample |= gone & (self.active | self.listed) & self.sampled();
        self.active &= !gone;
        self.latch |= self.carried & gone & !self.drop_pending;
        for mask in [
            &mut self.listed,
            &mut self.carried,
            &mut self.listed_active,
            &mut self.drop_pending,
            &mut self.drop_active,
            &mut self.again,
        ] {
            *mask &= !gone;
        }
    }
}

impl Vgic {
    /// Fills free list registers with what this vCPU should take, most urgent first.
    ///
    /// Call it after [`collect`](Self::collect) (or with nothing in use): otherwise it
    /// only adds to what stands there, and can't replace it by something more urgent.
    pub fn deliver(&mut self, vcpu: usize, lists: &mut ListRegisters) -> Maintenance {
        match self.cpus.get(vcpu) {
            Some(cpu) if cpu.summary != 0 => self.fill(vcpu, cpu.summary, lists),
            _ => Maintenance::default(),
        }
    }

    fn fill(&mut self, vcpu: usize, summary: u32, lists: &mut ListRegisters) -> Maintenance {
        // Mostly there is one, and nothing else.
        if lists.in_use == 0
            && summary.is_power_of_two()
            && let Some(index) = self.index(vcpu, summary.trailing_zeros() as usize)
            && let Some(bank) = self.banks.get(index)
            && let Some(wanted) = bank.wanted.get(vcpu)
            && wanted.is_power_of_two()
        {
            let intid = summary.trailing_zeros().wrapping_shl(5) | wanted.trailing_zeros();
            self.list(vcpu, intid, lists);
            return Maintenance::default();
        }
        self.choose(vcpu, summary, lists)
    }

    /// More than one word has something, or more than there are free list registers: in the order of urgency, as many as fit.
    fn choose(&mut self, vcpu: usize, summary: u32, lists: &mut ListRegisters) -> Maintenance {
        let (mut active, mut pending) = (Best::default(), Best::default());
        for word in Bits(summary) {
            let index = self.index(vcpu, word as usize);
            let Some(bank) = index.and_then(|index| self.banks.get(index)) else {
                continue;
            };
            for n in Bits(bank.wanted.get(vcpu).copied().unwrap_or(0)) {
                let candidate = Candidate {
                    priority: bank.priority(n),
                    intid: word.wrapping_shl(5) | n,
                };
                if bank.active & bit(n) != 0 {
                    active.offer(candidate);
                } else {
                    pending.offer(candidate);
                }
            }
        }
        let free = lists.free();
        let reserved = usize::from(pending.seen != 0);
        let actives = active.kept.len().min(free.saturating_sub(reserved));
        let pendings = pending.kept.len().min(free.saturating_sub(actives));
        let chosen = active.kept.iter().take(actives);
        for candidate in chosen.chain(pending.kept.iter().take(pendings)) {
            self.list(vcpu, candidate.intid, lists);
        }
        let waits = lists
            .entries()
            .any(|entry| entry.pending() && !entry.active());
        Maintenance {
            no_pending: pending.seen > pendings && waits,
            entry_not_present: active.seen > actives,
        }
    }

    fn list(&mut self, vcpu: usize, intid: u32, lists: &mut ListRegisters) {
        let Some((index, n)) = self.find(vcpu, intid) else {
            return;
        };
        let word = intid >> 5;
        let groups = self.groups;
        let Some(bank) = self.banks.get_mut(index) else {
            return;
        };
        if lists.is_full() {
            return;
        }
        let entry = match &mut self.v2 {
            Some(v2) if intid < 16 => v2.list(bank, n, vcpu, groups),
            _ => bank.list(n, vcpu, intid, groups),
        };
        let empty = bank.wanted.get(vcpu).is_none_or(|wanted| *wanted == 0);
        lists.put(entry);
        if empty && let Some(cpu) = self.cpus.get_mut(vcpu) {
            cpu.summary &= !bit(word);
        }
    }

    /// Takes everything back from this vCPU's list registers, which are then empty, and reports
    /// what EL2 has to act upon. Answers other vCPUs that got something to do by it. What `deactivated` has no room for, told by
    /// `false`, is reported by the next call.
    ///
    /// The list registers must be as the hardware left them. With none in use and nothing
    /// changed it returns at once.
    pub fn collect(
        &mut self,
        vcpu: usize,
        lists: &mut ListRegisters,
        deactivated: &mut impl FnMut(Deactivated) -> bool,
    ) -> Kicks {
        let Some(cpu) = self.cpus.get(vcpu) else {
            return Kicks::NONE;
        };
        if lists.in_use == 0 && lists.eoi_count == 0 && !cpu.resync && self.chores == 0 {
            return Kicks::NONE;
        }
        let mut kicks = Kicks::NONE;
        // While those listed are still marked so: the count is of those that aren't.
        for _ in 0..core::mem::take(&mut lists.eoi_count).min(31) {
            match self.most_urgent_unlisted(vcpu) {
                Some(intid) => kicks |= self.deactivate(vcpu, intid),
                None => break,
            }
        }
        let mut touched = 0;
        while let Some(entry) = lists.take() {
            if let Some((index, n)) = self.find(vcpu, entry.intid())
                && let Some(bank) = self.banks.get_mut(index)
            {
                let returned = bank.fold(n, vcpu, entry);
                if returned && let Some(v2) = &mut self.v2 {
                    v2.returned(vcpu, entry);
                }
                touched |= bit(entry.intid() >> 5);
            }
        }
        for word in Bits(touched) {
            if let Some(index) = self.index(vcpu, word as usize) {
                kicks |= self.refresh(index);
            }
        }
        let left = self.drain(vcpu, 0, deactivated);
        for word in Bits(core::mem::take(&mut self.chores)) {
            if self.drain(vcpu, word, deactivated) {
                self.chores |= bit(word);
            }
        }
        if let Some(cpu) = self.cpus.get_mut(vcpu) {
            cpu.resync = left;
        }
        kicks.without(vcpu)
    }

    /// Reports what a word's interrupts have to be acted upon for. Returns whether something is left.
    #[inline]
    fn drain(
        &mut self,
        vcpu: usize,
        word: u32,
        deactivated: &mut impl FnMut(Deactivated) -> bool,
    ) -> bool {
        let index = self.index(vcpu, word as usize);
        let Some(bank) = index.and_then(|index| self.banks.get_mut(index)) else {
            return false;
        };
        for n in Bits(bank.release) {
            if !deactivated(Deactivated::Physical(u32::from(bank.physical(n)))) {
                return true;
            }
            bank.release &= !bit(n);
        }
        for n in Bits(bank.resample) {
            let line = if word == 0 {
                Line::Ppi { vcpu, intid: n }
            } else {
                Line::Spi(word.wrapping_shl(5) | n)
            };
            if !deactivated(Deactivated::Line(line)) {
                return true;
            }
            bank.resample &= !bit(n);
        }
        false
    }

    /// The interrupt that the guest's end of interrupt meant if it found no list register: the
    /// most urgent active one, since it ends them in that order.
    fn most_urgent_unlisted(&self, vcpu: usize) -> Option<u32> {
        let mut best: Option<Candidate> = None;
        for word in Bits(self.cpus.get(vcpu)?.summary) {
            let index = self.index(vcpu, word as usize);
            let Some(bank) = index.and_then(|index| self.banks.get(index)) else {
                continue;
            };
            let wanted = bank.wanted.get(vcpu).copied().unwrap_or(0);
            for n in Bits(wanted & bank.active) {
                let candidate = Candidate {
                    priority: bank.priority(n),
                    intid: word.wrapping_shl(5) | n,
                };
                best = Some(best.map_or(candidate, |best| best.min(candidate)));
            }
        }
        best.map(|best| best.intid)
    }

    /// Deactivates an interrupt, as `vcpu`'s trapped write to ICC_DIR_EL1 asks, wherever it is
    /// active. Level sources to be sampled are reported by the next [`collect`](Self::collect).
    pub fn deactivate(&mut self, vcpu: usize, intid: u32) -> Kicks {
        let Some((index, n)) = self.find(vcpu, intid) else {
            return Kicks::NONE;
        };
        let Some(bank) = self.banks.get_mut(index) else {
            return Kicks::NONE;
        };
        bank.clear_active(bit(n));
        self.resync(index, bit(n)) | self.refresh(index)
    }
}
