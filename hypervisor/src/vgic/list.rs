//! List registers as plain values, and what else of the virtual CPU interface matters here.
//!
//! Bits of ICH_LR&lt;n&gt;_EL2 (Arm IHI 0069H, 12.4 "ICH_LR&lt;n&gt;_EL2"), as used:
//!
//! | bits  | field    | meaning |
//! |-------|----------|---------|
//! | 31:0  | vINTID   | what the guest reads from ICC_IAR1_EL1 |
//! | 44:32 | pINTID   | HW = 1: the physical interrupt that the guest's deactivation deactivates |
//! | 41    | EOI      | HW = 0: maintenance interrupt when the guest deactivates it |
//! | 55:48 | Priority | 0 is the highest |
//! | 60    | Group    | 1: virtual IRQ, 0: virtual FIQ |
//! | 61    | HW       | linked to a physical interrupt |
//! | 63:62 | State    | 00 invalid, 01 pending, 10 active, 11 active and pending |

use super::bank::Bits;

/// Most list registers that the architecture allows.
pub const MAX_LISTS: usize = 16;

const EOI: u64 = 1 << 41;
const GROUP1: u64 = 1 << 60;
const HARDWARE: u64 = 1 << 61;
const PENDING: u64 = 1 << 62;
const ACTIVE: u64 = 1 << 63;

/// One vCPU's list registers: what stands in the hardware while it is loaded, or will.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListRegisters {
    /// The values of ICH_LR&lt;n&gt;_EL2. Those not in use are 0.
    pub lr: [u64; MAX_LISTS],
    /// How many the hardware implements (ICH_VTR_EL2.ListRegs + 1).
    pub count: usize,
    /// Bit n: list register n holds something that hasn't been collected. Only these need to be
    /// read back from the hardware before a collection.
    pub in_use: u16,
    /// ICH_HCR_EL2.EOIcount as read at the exit: deactivations that found no list register.
    /// [`Vgic::collect`](super::Vgic::collect) consumes it (sets it to 0).
    pub eoi_count: u32,
}

impl ListRegisters {
    /// Empty ones; `count` is cut to 16.
    pub const fn new(count: usize) -> Self {
        Self {
            lr: [0; MAX_LISTS],
            count: if count > MAX_LISTS { MAX_LISTS } else { count },
            in_use: 0,
            eoi_count: 0,
        }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.count
            .min(MAX_LISTS)
            .saturating_sub(self.in_use.count_ones() as usize)
    }

    /// Whether none is free.
    pub(super) fn is_full(&self) -> bool {
        self.in_use.trailing_ones() as usize >= self.count
    }

    /// Puts an entry into the first free register; false if there is none.
    pub(super) fn put(&mut self, entry: Entry) -> bool {
        let slot = self.in_use.trailing_ones();
        match self.lr.get_mut(slot as usize) {
            Some(lr) if (slot as usize) < self.count => {
                *lr = entry.0;
                self.in_use |= 1u16.wrapping_shl(slot);
                true
            }
            _ => false,
        }
    }

    /// Takes the lowest entry out and clears its register.
    pub(super) fn take(&mut self) -> Option<Entry> {
        let slot = self.in_use.trailing_zeros();
        let lr = self.lr.get_mut(slot as usize)?;
        self.in_use &= !1u16.wrapping_shl(slot);
        Some(Entry(core::mem::take(lr)))
    }

    /// The entries in use.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        Bits(u32::from(self.in_use))
            .filter_map(|slot| self.lr.get(slot as usize).copied())
            .map(Entry)
    }
}

/// One list register's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry(pub u64);

impl Entry {
    /// An entry for this virtual interrupt, invalid (state 00) as yet.
    pub const fn new(intid: u32, priority: u8, group1: bool) -> Self {
        let group = if group1 { GROUP1 } else { 0 };
        Self(intid as u64 | (priority as u64) << 48 | group)
    }

    /// With this state.
    pub const fn with_state(self, pending: bool, active: bool) -> Self {
        let pending = if pending { PENDING } else { 0 };
        let active = if active { ACTIVE } else { 0 };
        Self(self.0 & !(PENDING | ACTIVE) | pending | active)
    }

    /// Linked to this physical interrupt.
    pub const fn with_hardware(self, physical: u16) -> Self {
        Self(self.0 | HARDWARE | (physical as u64 & 0x1fff) << 32)
    }

    /// With a maintenance interrupt on deactivation. Not for hardware-linked ones.
    pub const fn with_eoi(self) -> Self {
        Self(self.0 | EOI)
    }

    /// A GICv2's SGI, by this CPU (0 to 7). Kept in bits that ICH_LR has no use for (34:32, HW = 0).
    pub const fn with_source(self, source: u8) -> Self {
        Self(self.0 | (source as u64 & 7) << 32)
    }

    /// Which CPU sent a GICv2's SGI.
    pub const fn source(self) -> u8 {
        (self.0 >> 32) as u8 & 7
    }

    /// The virtual interrupt.
    pub const fn intid(self) -> u32 {
        self.0 as u32
    }

    /// Its priority; 0 is the highest.
    pub const fn priority(self) -> u8 {
        (self.0 >> 48) as u8
    }

    /// Whether it is in group 1.
    pub const fn group1(self) -> bool {
        self.0 & GROUP1 != 0
    }

    /// State bit *pending*.
    pub const fn pending(self) -> bool {
        self.0 & PENDING != 0
    }

    /// State bit *active*.
    pub const fn active(self) -> bool {
        self.0 & ACTIVE != 0
    }

    /// Whether it is linked to a physical interrupt.
    pub const fn hardware(self) -> bool {
        self.0 & HARDWARE != 0
    }

    /// The physical interrupt, if linked to one.
    pub const fn physical(self) -> Option<u32> {
        if self.hardware() {
            Some((self.0 >> 32) as u32 & 0x1fff)
        } else {
            None
        }
    }

    /// Whether its deactivation raises a maintenance interrupt.
    pub const fn eoi(self) -> bool {
        self.0 & EOI != 0 && !self.hardware()
    }
}

/// Which maintenance interrupts the vCPU needs while it runs with the list registers just filled.
///
/// The one for deactivated level interrupts (ICH_LR.EOI) needs no enable and isn't here.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Maintenance {
    /// More interrupts are pending than fit: exit when the guest has taken all that did
    /// (ICH_HCR_EL2.NPIE). Set only if a list register is in the state *pending*, else the guest
    /// would exit at once, forever. The *underflow* interrupt (UIE) is never needed: it would
    /// come later when others are active, and at once, forever, with a single list register.
    pub no_pending: bool,
    /// More interrupts are active than fit: exit when the guest deactivates one that stands in
    /// no list register (ICH_HCR_EL2.LRENPIE). The guest's ICC_DIR_EL1, which names the
    /// interrupt, is then best trapped (ICH_HCR_EL2.TDIR) to
    /// [`Vgic::deactivate`](super::Vgic::deactivate).
    pub entry_not_present: bool,
}

impl Maintenance {
    /// The enable bits of ICH_HCR_EL2: NPIE (3), LRENPIE (2).
    pub const fn hcr_bits(self) -> u64 {
        (self.no_pending as u64) << 3 | (self.entry_not_present as u64) << 2
    }
}

/// What of a vCPU's CPU interface decides whether a pending interrupt is signalled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CpuInterface {
    /// ICC_PMR_EL1: only priorities numerically below are signalled.
    pub priority_mask: u8,
    /// ICC_IGRPEN0_EL1.Enable.
    pub group0_enabled: bool,
    /// ICC_IGRPEN1_EL1.Enable.
    pub group1_enabled: bool,
}

impl CpuInterface {
    /// From ICH_VMCR_EL2: VPMR 31:24, VENG1 bit 1, VENG0 bit 0.
    pub const fn from_vmcr(vmcr: u64) -> Self {
        Self {
            priority_mask: (vmcr >> 24) as u8,
            group0_enabled: vmcr & 1 != 0,
            group1_enabled: vmcr & 2 != 0,
        }
    }

    /// Whether it lets this one through.
    pub const fn signals(self, priority: u8, group1: bool) -> bool {
        let enabled = if group1 {
            self.group1_enabled
        } else {
            self.group0_enabled
        };
        enabled && priority < self.priority_mask
    }
}
