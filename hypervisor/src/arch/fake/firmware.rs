//! Firmware at EL3: PSCI 1.1, and what tests want of SMCCC.

use super::{Event, image, switch_on, with};
use crate::arch::boot;

/// PSCI CPU_ON, called with 64-bit arguments.
pub const CPU_ON: u32 = 0xc400_0003;
/// SMCCC_ARCH_WORKAROUND_1 to 3.
pub const WORKAROUND_1: u32 = 0x8000_8000;
/// Likewise.
pub const WORKAROUND_2: u32 = 0x8000_7fff;
/// Likewise.
pub const WORKAROUND_3: u32 = 0x8000_3fff;

const NOT_SUPPORTED: u64 = u64::MAX;

unsafe extern "C" {
    /// Each CPU's affinity and bit 63, tables, stack, number: what `boot.S` looks for.
    static baton_secondaries: [[u64; 8]; 8];
}

/// Where what a CPU starts with is.
pub fn boot_data(index: usize) -> usize {
    (&raw const baton_secondaries) as usize + index * 64
}

/// A call; X0.
pub fn call(function: u32, [first, second, _]: [u64; 3]) -> u64 {
    let (workarounds, secondary) = with(|state, this| {
        state.note(this, Event::Called(function));
        (
            state.board.workarounds,
            state.board.image + image::secondary(),
        )
    });
    match function {
        // PSCI_VERSION, SMCCC_VERSION.
        0x8400_0000 => 0x1_0001,
        0x8000_0000 => 0x1_0001,
        // SMCCC_ARCH_FEATURES.
        0x8000_0001 if workarounds.contains(&(first as u32)) => 0,
        _ if workarounds.contains(&function) => 0,
        CPU_ON => {
            assert_eq!(second, secondary, "the entry");
            begin(first);
            0
        }
        _ => NOT_SUPPORTED,
    }
}

/// The CPU with this affinity does what `boot.S` does: it looks for what it starts with.
pub fn begin(affinity: u64) {
    // SAFETY: the boot CPU has written it, and does nothing else meanwhile.
    let all = unsafe { (&raw const baton_secondaries).read_volatile() };
    let found = all.iter().find(|entry| entry[0] == affinity | 1 << 63);
    let index = found.expect("a CPU without boot data")[3];
    assert_eq!(index, affinity, "CPUs of this board are in order");
    switch_on(index as usize, move || {
        boot::baton_start_secondary(index);
    });
}
