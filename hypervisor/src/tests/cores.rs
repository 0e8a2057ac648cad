//! What a domain does to have firmware run on a firmware core.

use super::exits::{self, Access};
use crate::arch::fake::{self, Cpu};
use fw_core_abi::{control, host};
use hypervisor::guest_tree::layout;
use std::time::Duration;

/// Where the registers are placed.
const REGISTERS: u64 = layout::PCI_MEM32_BASE;

fn access(cpu: Cpu, address: u64, write: bool, size: u64, value: u64) -> u64 {
    let register = 5;
    cpu.set_guest(|guest| guest.x[5] = value);
    // Should the CPU be asked.
    cpu.set_translations([address & !0xfff; 2]);
    exits::access(
        cpu,
        Access {
            address,
            write,
            register,
            size,
        },
    );
    cpu.guest().x[5]
}

/// Gives the function's registers their place; it is found by its id.
pub fn place(cpu: Cpu) {
    let id = u64::from(fw_core_abi::DEVICE) << 16 | u64::from(fw_core_abi::VENDOR);
    let mut slots = (0..32).map(|slot| layout::ECAM_BASE + (slot << 15));
    let function = slots.find(|slot| access(cpu, *slot, false, 2, 0) == id);
    let function = function.expect("a function");
    access(cpu, function + 0x10, true, 2, REGISTERS);
    access(cpu, function + 4, true, 1, 0b110);
    let found = access(cpu, REGISTERS + host::ID, false, 2, 0);
    assert_eq!(found, fw_core_abi::ID.into());
}

/// Starts firmware at the beginning of its image, from whatever state.
pub fn start(cpu: Cpu) {
    access(
        cpu,
        REGISTERS + host::CONTROL,
        true,
        2,
        control::STOP.into(),
    );
    fake::pass(Duration::from_millis(10));
    access(
        cpu,
        REGISTERS + host::ENTRY,
        true,
        3,
        fw_core_abi::IMAGE_BASE,
    );
    access(
        cpu,
        REGISTERS + host::CONTROL,
        true,
        2,
        control::START.into(),
    );
    fake::pass(Duration::from_millis(10));
}
