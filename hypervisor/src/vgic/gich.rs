//! The GICv2 virtual interface control block's view of the same values.
//!
//! [`Entry`] and the rest keep GICv3's layout everywhere, so that one state machine serves both versions; only what stands between
//! it and GICH converts. GICH_LR&lt;n&gt; (Arm IHI 0048B, 5.3.9): virtual ID 9:0; HW = 1: physical ID 19:10; HW = 0: EOI 19, source of
//! an SGI 12:10; priority 27:23; state 29:28; group 1 30; HW 31.

use super::list::{CpuInterface, Entry};

const EOI: u32 = 1 << 19;
const GROUP1: u32 = 1 << 30;
const HARDWARE: u32 = 1 << 31;

impl Entry {
    /// As GICH_LR.
    pub const fn to_gich(self) -> u32 {
        let mut value = self.intid() & 0x3ff
            | (self.priority() as u32 >> 3) << 23
            | (self.pending() as u32) << 28
            | (self.active() as u32) << 29;
        if self.group1() {
            value |= GROUP1;
        }
        match self.physical() {
            Some(physical) => value |= HARDWARE | (physical & 0x3ff) << 10,
            None => {
                if self.eoi() {
                    value |= EOI;
                }
                if self.intid() < 16 {
                    value |= (self.source() as u32) << 10;
                }
            }
        }
        value
    }

    /// From GICH_LR.
    pub const fn from_gich(value: u32) -> Self {
        let intid = value & 0x3ff;
        let entry = Self::new(intid, (value >> 23 << 3) as u8, value & GROUP1 != 0)
            .with_state(value & 1 << 28 != 0, value & 1 << 29 != 0);
        if value & HARDWARE != 0 {
            return entry.with_hardware((value >> 10 & 0x3ff) as u16);
        }
        let entry = if value & EOI != 0 {
            entry.with_eoi()
        } else {
            entry
        };
        if intid < 16 {
            entry.with_source((value >> 10 & 7) as u8)
        } else {
            entry
        }
    }
}

impl CpuInterface {
    /// From GICH_VMCR (5.3.3): VMPriMask 31:27, VMGrp1En 1, VMGrp0En 0.
    pub const fn from_gich_vmcr(vmcr: u32) -> Self {
        Self {
            priority_mask: (vmcr >> 27 << 3) as u8,
            group0_enabled: vmcr & 1 != 0,
            group1_enabled: vmcr & 2 != 0,
        }
    }
}

/// Where the two 4 KiB pages of a GICv2 CPU interface are in its region of this size: the second one holds the Deactivate register.
///
/// Boards with 64 KiB pages in mind repeat each page 16 times: then the region has 128 KiB or more (as Linux's `irq-gic.c` takes it).
pub const fn interface_pages(region_size: u64) -> [u64; 2] {
    if region_size >= 0x2_0000 {
        [0, 0x1_0000]
    } else {
        [0, 0x1000]
    }
}
