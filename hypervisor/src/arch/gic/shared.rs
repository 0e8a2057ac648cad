//! Shared interrupts in the distributor, as far as GICv2 and GICv3 have the same registers for them (Arm IHI 0048, 4.3; Arm IHI 0069, 12.9).

use crate::arch::mmio::Region;

/// One bit for each interrupt, from here on.
pub(super) const GICD_ISENABLER: u64 = 0x100;
pub(super) const GICD_ICENABLER: u64 = 0x180;
pub(super) const GICD_ICPENDR: u64 = 0x280;
const GICD_ISACTIVER: u64 = 0x300;
pub(super) const GICD_ICACTIVER: u64 = 0x380;

const GICD_CTLR: u64 = 0;
/// Register Write Pending; a GICv2 has none, and shows 0.
const GICD_CTLR_RWP: u32 = 1 << 31;

/// Writes a 1 to an interrupt's bit.
pub(super) fn write_bit(distributor: &Region, register: u64, intid: u32) {
    let word = u64::from(intid / 32) * 4;
    distributor.write32(register + word, 1 << (intid % 32));
}

/// Whether it is a shared interrupt's number.
pub(super) fn is_shared(intid: u32) -> bool {
    (32..1020).contains(&intid)
}

/// See [`super::Gic::disable`].
pub(super) fn disable(distributor: &Region, intid: u32) {
    if !is_shared(intid) {
        return;
    }
    for register in [GICD_ICENABLER, GICD_ICPENDR, GICD_ICACTIVER] {
        write_bit(distributor, register, intid);
        // In force when this is over.
        for _ in 0..1_000_000 {
            if distributor.read32(GICD_CTLR) & GICD_CTLR_RWP == 0 {
                break;
            }
        }
    }
}

/// See [`super::Gic::mask`].
pub(super) fn mask(distributor: &Region, intid: u32, masked: bool) {
    if is_shared(intid) {
        let register = if masked {
            GICD_ICENABLER
        } else {
            GICD_ISENABLER
        };
        write_bit(distributor, register, intid);
    }
}

/// See [`super::Gic::deactivate_shared`].
pub(super) fn deactivate(distributor: &Region, intid: u32) {
    if is_shared(intid) {
        write_bit(distributor, GICD_ICACTIVER, intid);
    }
}

/// One shared interrupt in the distributor, for who may not wait for the [`super::Gic`]'s lock: each access is one register that is set or cleared bit by bit.
#[derive(Clone, Copy, Debug)]
pub struct SharedLine {
    distributor: Region,
    intid: u32,
}

impl SharedLine {
    #[cfg(feature = "sharing")]
    pub(super) const fn new(distributor: Region, intid: u32) -> Self {
        Self { distributor, intid }
    }

    /// Its number.
    #[cfg(feature = "sharing")]
    pub const fn intid(&self) -> u32 {
        self.intid
    }

    /// Masks or unmasks it; what comes meanwhile stays pending.
    pub fn mask(&self, masked: bool) {
        mask(&self.distributor, self.intid, masked);
    }

    /// Whether a CPU has taken it and not ended it.
    pub fn is_active(&self) -> bool {
        let word = u64::from(self.intid / 32) * 4;
        let active = self.distributor.read32(GICD_ISACTIVER + word);
        is_shared(self.intid) && active & 1 << (self.intid % 32) != 0
    }

    /// Forgets an edge that nobody has taken.
    pub fn forget(&self) {
        if is_shared(self.intid) {
            write_bit(&self.distributor, GICD_ICPENDR, self.intid);
        }
    }
}
