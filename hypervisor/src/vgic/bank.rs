//! The state of 32 interrupts, one bit each.
//!
//! Bits rather than structures per interrupt, because the guest's registers, the questions on
//! the hot paths ("is anything deliverable?") and their answers are all 32 interrupts wide.
//!
//! While an interrupt stands in a list register (`listed`), the guest changes its state without
//! telling. So what the list register took over leaves the bank (`latch` moves to `carried`,
//! `active` to `listed_active`), what happens meanwhile gathers in the bank's own bits, and
//! folding the list register back adds the two: nothing is counted twice, nothing gets lost.

use super::MAX_VCPUS;
use super::list::Entry;

/// The numbers of the bits set, ascending.
#[derive(Clone, Copy)]
pub(super) struct Bits(pub u32);

impl Iterator for Bits {
    type Item = u32;
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        Some(bit)
    }
}

/// Bit n (n below 32).
pub(super) const fn bit(n: u32) -> u32 {
    1u32.wrapping_shl(n)
}

/// Priorities have 32 levels, like the virtual CPU interface of the common cores.
pub(super) const PRIORITY_MASK: u8 = 0xf8;

/// 32 interrupts: the private ones of a vCPU, or 32 shared ones.
#[derive(Clone, Debug)]
pub(super) struct Bank {
    /// Group 1 (else 0).
    pub group: u32,
    /// Enabled.
    pub enabled: u32,
    /// Edge-triggered (else level-sensitive).
    pub edge: u32,
    /// Pending by an edge, an SGI, a hardware interrupt or a write to ISPENDR.
    pub latch: u32,
    /// Level of the input.
    pub line: u32,
    /// Active, and in no list register; or made active by a write while listed.
    pub active: u32,
    /// In a list register of the vCPU that holds it.
    pub listed: u32,
    /// The latch moved to the list register's *pending* bit.
    pub carried: u32,
    /// The list register was filled with *active*.
    pub listed_active: u32,
    /// The guest cleared it while listed: the list register's *pending* doesn't count.
    pub drop_pending: u32,
    /// Likewise *active*.
    pub drop_active: u32,
    /// A physical interrupt is active and waits for this one to be deactivated.
    pub hardware: u32,
    /// It came again while listed, so the hardware has deactivated the earlier one.
    pub again: u32,
    /// The physical interrupt must be deactivated by EL2, since the guest never will.
    pub release: u32,
    /// Edge-triggered, but its deactivation is reported as that of a level-sensitive one.
    pub watched: u32,
    /// Deactivated, and level-sensitive or watched: the source must be sampled again.
    pub resample: u32,
    priority: [u8; 32],
    physical: [u16; 32],
    /// Where they are routed: by vCPU. Private ones: always their own.
    pub home: [u32; MAX_VCPUS],
    /// Which are active on, or listed by, which vCPU.
    pub held: [u32; MAX_VCPUS],
    /// What each vCPU should take into list registers.
    pub wanted: [u32; MAX_VCPUS],
}

impl Bank {
    /// All disabled, level-sensitive (those in `edge` excepted), inactive, priority 0, group 0.
    pub fn new(edge: u32, home: usize) -> Self {
        let mut bank = Self {
            group: 0,
            enabled: 0,
            edge,
            latch: 0,
            line: 0,
            active: 0,
            listed: 0,
            carried: 0,
            listed_active: 0,
            drop_pending: 0,
            drop_active: 0,
            hardware: 0,
            again: 0,
            release: 0,
            watched: 0,
            resample: 0,
            priority: [0; 32],
            physical: [0; 32],
            home: [0; MAX_VCPUS],
            held: [0; MAX_VCPUS],
            wanted: [0; MAX_VCPUS],
        };
        if let Some(home) = bank.home.get_mut(home) {
            *home = u32::MAX;
        }
        bank
    }

    /// Priority of interrupt `n` of the bank.
    pub fn priority(&self, n: u32) -> u8 {
        self.priority.get(n as usize).copied().unwrap_or(0xff)
    }

    /// Sets it; true if that changed something.
    pub fn set_priority(&mut self, n: u32, value: u8) -> bool {
        let value = value & PRIORITY_MASK;
        match self.priority.get_mut(n as usize) {
            Some(priority) if *priority != value => {
                *priority = value;
                true
            }
            _ => false,
        }
    }

    /// Physical interrupt that `n` was last linked to.
    pub fn physical(&self, n: u32) -> u16 {
        self.physical.get(n as usize).copied().unwrap_or(0)
    }

    /// Latches a hardware interrupt.
    pub fn latch_hardware(&mut self, n: u32, physical: u16) {
        if let Some(slot) = self.physical.get_mut(n as usize) {
            *slot = physical;
        }
        self.latch |= bit(n);
        self.hardware |= bit(n);
        self.again |= bit(n) & self.listed;
        self.release &= !bit(n);
    }

    /// Those whose source is sampled when they are deactivated.
    pub fn sampled(&self) -> u32 {
        !self.edge | self.watched
    }

    /// Pending by latch or level, as far as the bank knows.
    pub fn pending(&self) -> u32 {
        self.latch | self.line & !self.edge
    }

    /// Pending, with what list registers were given: what ISPENDR reads.
    pub fn pending_seen(&self) -> u32 {
        self.pending() | self.carried & !self.drop_pending
    }

    /// Active, with what list registers were given: what ISACTIVER reads.
    pub fn active_seen(&self) -> u32 {
        self.active | self.listed_active & !self.drop_active
    }

    /// Pending, enabled, and in a group that the distributor forwards.
    pub fn forwarded(&self, groups: Groups) -> u32 {
        let one = if groups.one { self.group } else { 0 };
        let zero = if groups.zero { !self.group } else { 0 };
        self.pending() & self.enabled & (one | zero)
    }

    /// Not pending any more, unless by level; what a list register has of it doesn't count.
    pub fn clear_pending(&mut self, bits: u32) {
        self.latch &= !bits;
        self.drop_pending |= bits & self.listed;
    }

    /// The shared rest of a clear-active write: level sources to sample, holders to forget.
    #[inline]
    pub fn clear_active(&mut self, bits: u32) {
        self.resample |= self.active & bits & self.sampled();
        self.active &= !bits;
        self.drop_active |= bits & self.listed;
        let gone = bits & !self.listed;
        for held in &mut self.held {
            *held &= !gone;
        }
    }

    /// After any change: what vCPUs should take, whichever. A physical interrupt whose virtual one is neither pending nor active any more can
    /// only be deactivated by EL2.
    #[inline]
    pub fn settle(&mut self, groups: Groups) -> Wanted {
        let lost = self.hardware & !(self.latch | self.active | self.listed);
        if lost != 0 {
            self.hardware &= !lost;
            self.release |= lost;
        }
        Wanted {
            forwarded: self.forwarded(groups) & !self.active & !self.listed,
            active: self.active & !self.listed,
        }
    }

    /// Whether EL2 has something to do about it.
    pub const fn has_chores(&self) -> bool {
        self.release | self.resample != 0
    }

    /// Moves interrupt `n` into a list register of `vcpu`; the entry for it.
    pub fn list(&mut self, n: u32, vcpu: usize, intid: u32, groups: Groups) -> Entry {
        let this = bit(n);
        let active = self.active & this != 0;
        let level = self.edge & this == 0;
        let linked = self.hardware & this != 0;
        let again = active && self.pending() & this != 0;
        // HW = 1 can't be active and pending; then EL2 deactivates the physical one itself.
        let hardware = linked && !again;
        // A level-sensitive one that is active isn't made pending as well: its handler is about
        // to lower the line; whether it did is seen when it deactivates (EOI).
        let pending = self.forwarded(groups) & this != 0 && (!active || !level && !hardware);
        let mut entry =
            Entry::new(intid, self.priority(n), self.group & this != 0).with_state(pending, active);
        if hardware {
            entry = entry.with_hardware(self.physical(n));
        } else if level || linked || self.watched & this != 0 {
            entry = entry.with_eoi();
        }
        self.listed |= this;
        if pending {
            self.carried |= self.latch & this;
            self.latch &= !this;
        }
        self.listed_active |= self.active & this;
        self.active &= !this;
        if let Some(held) = self.held.get_mut(vcpu) {
            *held |= this;
        }
        if let Some(wanted) = self.wanted.get_mut(vcpu) {
            *wanted &= !this;
        }
        entry
    }

    /// Takes interrupt `n` back from a list register of `vcpu`; whether what it was listed pending for is pending still.
    /// Ignored if that vCPU doesn't hold it.
    pub fn fold(&mut self, n: u32, vcpu: usize, entry: Entry) -> bool {
        let this = bit(n);
        let sampled = self.sampled();
        let Some(held) = self.held.get_mut(vcpu) else {
            return false;
        };
        if self.listed & *held & this == 0 {
            return false;
        }
        let pending = entry.pending() && self.drop_pending & this == 0;
        let active = entry.active() && self.drop_active & this == 0;
        let returned = pending && self.carried & this != 0;
        if pending {
            self.latch |= self.carried & this;
        }
        if active {
            self.active |= this;
        }
        let deactivated = !entry.active() && !entry.pending() || entry.active() && !active;
        if deactivated && entry.eoi() {
            self.resample |= this & sampled;
        }
        if self.active & this == 0 {
            *held &= !this;
        }
        if entry.hardware() && !entry.pending() && !entry.active() {
            // Deactivated by the hardware when the guest did; this may be the next one already.
            self.hardware = self.hardware & !this | self.again & this;
        }
        for mask in [
            &mut self.listed,
            &mut self.carried,
            &mut self.listed_active,
            &mut self.drop_pending,
            &mut self.drop_active,
            &mut self.again,
        ] {
            *mask &= !this;
        }
        returned
    }
}

/// What should be in list registers and isn't.
pub(super) struct Wanted {
    /// Pending, and forwarded to where they are routed.
    pub forwarded: u32,
    /// Active, where they are.
    pub active: u32,
}

/// GICD_CTLR's enables.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Groups {
    /// EnableGrp0.
    pub zero: bool,
    /// EnableGrp1.
    pub one: bool,
}
