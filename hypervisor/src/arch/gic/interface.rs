//! This CPU's virtual CPU interface: list registers, what of it a vCPU takes along, and what it tells. A GICv3's is system registers, a
//! GICv2's is [`v2`]'s.

use super::v2;
use crate::arch::registers::{read, write};
use hypervisor::vgic::{CpuInterface, ListRegisters, Maintenance};

macro_rules! list_register {
    ($operation:ident, $index:expr $(, $value:expr)?) => {
        match $index {
            0 => $operation!("ich_lr0_el2" $(, $value)?),
            1 => $operation!("ich_lr1_el2" $(, $value)?),
            2 => $operation!("ich_lr2_el2" $(, $value)?),
            3 => $operation!("ich_lr3_el2" $(, $value)?),
            4 => $operation!("ich_lr4_el2" $(, $value)?),
            5 => $operation!("ich_lr5_el2" $(, $value)?),
            6 => $operation!("ich_lr6_el2" $(, $value)?),
            7 => $operation!("ich_lr7_el2" $(, $value)?),
            8 => $operation!("ich_lr8_el2" $(, $value)?),
            9 => $operation!("ich_lr9_el2" $(, $value)?),
            10 => $operation!("ich_lr10_el2" $(, $value)?),
            11 => $operation!("ich_lr11_el2" $(, $value)?),
            12 => $operation!("ich_lr12_el2" $(, $value)?),
            13 => $operation!("ich_lr13_el2" $(, $value)?),
            14 => $operation!("ich_lr14_el2" $(, $value)?),
            _ => $operation!("ich_lr15_el2" $(, $value)?),
        }
    };
}

/// Number of list registers (ICH_VTR_EL2.ListRegs + 1).
#[inline]
pub fn list_register_count() -> usize {
    if v2::in_use() {
        return v2::list_register_count();
    }
    (read!("ich_vtr_el2") & 0x1f) as usize + 1
}

/// Reads the list registers that `lists` says are in use.
pub fn read_lists(lists: &mut ListRegisters) {
    if v2::in_use() {
        return v2::read_lists(lists);
    }
    let mut used = lists.in_use;
    while used != 0 {
        let index = used.trailing_zeros() as usize;
        used &= used - 1;
        if let Some(slot) = lists.lr.get_mut(index) {
            *slot = list_register!(read, index);
        }
    }
}

/// Writes the list registers in `which` from `lists`.
pub fn write_lists(lists: &ListRegisters, which: u16) {
    if v2::in_use() {
        return v2::write_lists(lists, which);
    }
    let mut which = which;
    while which != 0 {
        let index = which.trailing_zeros() as usize;
        which &= which - 1;
        if let Some(value) = lists.lr.get(index) {
            list_register!(write, index, *value);
        }
    }
}

/// Empties the list registers in `which`.
pub fn clear_lists(which: u16) {
    if v2::in_use() {
        return v2::clear_lists(which);
    }
    let mut which = which;
    while which != 0 {
        let index = which.trailing_zeros();
        which &= which - 1;
        list_register!(write, index, 0);
    }
}

/// ICH_HCR_EL2: virtual CPU interface on, EOIcount 0, and these maintenance interrupts. With entries not present in list
/// registers the guest's ICC_DIR_EL1 traps, too (TDIR); a GICv2's GICV_DIR only counts.
#[inline]
pub fn set_interface_control(maintenance: Maintenance) {
    if v2::in_use() {
        return v2::set_interface_control(maintenance);
    }
    let deactivation = if maintenance.entry_not_present {
        1 << 14
    } else {
        0
    };
    write!("ich_hcr_el2", 1 | maintenance.hcr_bits() | deactivation);
}

/// ICH_HCR_EL2.EOIcount: deactivations that found no list register.
#[inline]
pub fn deactivations_missed() -> u32 {
    if v2::in_use() {
        return v2::deactivations_missed();
    }
    (read!("ich_hcr_el2") >> 27) as u32 & 0x1f
}

/// What of the guest's CPU interface decides about signalling.
#[inline]
pub fn signalling() -> CpuInterface {
    if v2::in_use() {
        return v2::interface();
    }
    CpuInterface::from_vmcr(read!("ich_vmcr_el2"))
}

/// A guest's CPU interface while it isn't in a CPU. Of a GICv3's active priorities, group 1's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interface {
    vmcr: u64,
    active_priorities: [u64; 4],
}

impl Interface {
    /// Out of the CPU.
    pub fn save(&mut self) {
        if v2::in_use() {
            (self.vmcr, self.active_priorities[0]) = v2::save_interface();
            return;
        }
        self.vmcr = read!("ich_vmcr_el2");
        let groups = priority_groups();
        self.active_priorities[0] = read!("ich_ap1r0_el2");
        if groups > 1 {
            self.active_priorities[1] = read!("ich_ap1r1_el2");
        }
        if groups > 2 {
            self.active_priorities[2] = read!("ich_ap1r2_el2");
            self.active_priorities[3] = read!("ich_ap1r3_el2");
        }
    }

    /// Into the CPU.
    pub fn load(&self) {
        if v2::in_use() {
            return v2::load_interface(self.vmcr, self.active_priorities[0]);
        }
        write!("ich_vmcr_el2", self.vmcr);
        let groups = priority_groups();
        write!("ich_ap1r0_el2", self.active_priorities[0]);
        if groups > 1 {
            write!("ich_ap1r1_el2", self.active_priorities[1]);
        }
        if groups > 2 {
            write!("ich_ap1r2_el2", self.active_priorities[2]);
            write!("ich_ap1r3_el2", self.active_priorities[3]);
        }
    }
}

/// Number of ICH_AP1R registers: ICH_VTR_EL2.PREbits 5 has one, 6 two, 7 four.
fn priority_groups() -> u32 {
    match (read!("ich_vtr_el2") >> 26) & 7 {
        0..=4 => 1,
        5 => 2,
        _ => 4,
    }
}
