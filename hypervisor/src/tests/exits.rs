//! Exits of guests: what they are made of.

use super::boards::{self, A76};
use crate::arch::fake::{self, Cpu, Exception, in_own_process};
use alloc::vec::Vec;
use hypervisor::guest_tree::layout::{RTC_BASE, UART_BASE};
use hypervisor::vgic::Version;
use std::time::Duration;

/// An access to memory that isn't mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Where.
    pub address: u64,
    /// It's a store.
    pub write: bool,
    /// Of which register.
    pub register: u64,
    /// Binary logarithm of its bytes.
    pub size: u64,
}

/// ESR_EL2.IL: an instruction of 32 bits.
const LONG: u64 = 1 << 25;

/// The guest makes it.
pub fn access(cpu: Cpu, access: Access) {
    const VALID: u64 = 1 << 24;
    const TRANSLATION: u64 = 7;
    /// SF: Xt, not Wt.
    const FULL: u64 = 1 << 15;
    let Access {
        address,
        write,
        register,
        size,
    } = access;
    let esr = 0x24 << 26
        | LONG
        | VALID
        | size << 22
        | register << 16
        | u64::from(write) << 6
        | TRANSLATION
        | if size == 3 { FULL } else { 0 };
    cpu.exit(Exception::Synchronous(esr, address, address >> 12 << 4));
}

/// HVC with these in X0 to X3; what X0 to X3 are afterwards, if the guest goes on.
pub fn smccc(cpu: Cpu, arguments: [u64; 4]) -> Option<Vec<u64>> {
    cpu.set_guest(|guest| {
        guest.x[..4].copy_from_slice(&arguments);
        // The preferred return address is the next instruction's.
        guest.elr += 4;
    });
    cpu.exit(Exception::Synchronous(0x16 << 26 | LONG, 0, 0));
    cpu.is_in_guest().then(|| cpu.guest().x[..4].to_vec())
}

/// SMC likewise: the guest stands at the instruction.
pub fn smc(cpu: Cpu, arguments: [u64; 4]) -> Option<Vec<u64>> {
    cpu.set_guest(|guest| guest.x[..4].copy_from_slice(&arguments));
    cpu.exit(Exception::Synchronous(0x17 << 26 | LONG, 0, 0));
    cpu.is_in_guest().then(|| cpu.guest().x[..4].to_vec())
}

/// A trapped MSR or MRS.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Register {
    /// As `encoding` has it.
    pub name: u32,
    /// Of which general register.
    pub register: u64,
    /// MRS.
    pub read: bool,
}

/// The syndrome of one.
pub const fn system_syndrome(what: Register) -> u64 {
    let name = what.name as u64;
    let (op0, op1, crn) = (name >> 14 & 3, name >> 11 & 7, name >> 7 & 0xf);
    let (crm, op2) = (name >> 3 & 0xf, name & 7);
    0x18 << 26
        | LONG
        | op0 << 20
        | op2 << 17
        | op1 << 14
        | crn << 10
        | what.register << 5
        | crm << 1
        | what.read as u64
}

/// The guest does one.
pub fn system_register(cpu: Cpu, what: Register) {
    cpu.exit(Exception::Synchronous(system_syndrome(what), 0, 0));
}

/// Whether a list register of a GICv3's CPU interface has this interrupt, pending.
pub fn is_signalled(cpu: Cpu, intid: u64) -> bool {
    let mut values = fake::LISTS.into_iter().map(|name| cpu.register(name));
    values.any(|value| value & 0xffff_ffff == intid && value >> 62 == 1)
}

/// WFE.
pub fn wait_for_event(cpu: Cpu) {
    cpu.exit(Exception::Synchronous(0x01 << 26 | LONG | 1, 0, 0));
}

/// WFI.
pub fn wait(cpu: Cpu) {
    cpu.exit(Exception::Synchronous(0x01 << 26 | LONG, 0, 0));
}

#[test]
fn an_serror_of_a_guest_is_dropped_and_said() {
    in_own_process(|| {
        let cpus = boards::two(Version::V3, A76);
        let before = cpus.map(Cpu::guest);
        cpus[0].exit(Exception::SError);
        fake::pass(Duration::from_millis(1));
        assert_eq!(cpus.map(Cpu::guest), before);
        assert!(fake::console().contains("d1: SError, dropped"));
    });
}

/// A 32-bit program of a domain's loads from a device with a Thumb instruction of two bytes, the second of an IT block's three: both ways
/// that an access is served, the short and the long one.
#[test]
fn a_thumb_program_goes_on_behind_its_instruction() {
    /// USR, Thumb, ITTE EQ at its second instruction; behind it.
    const BEFORE: u64 = 0x10 | 1 << 5 | 0b11 << 10;
    const BEHIND: u64 = 0x10 | 1 << 5 | 0b110 << 10;
    /// EC of a data abort, IL clear, a word to X2, level 3 of the translation.
    const LOAD: u64 = 0x24 << 26 | 1 << 24 | 2 << 22 | 2 << 16 | 7;
    in_own_process(|| {
        let cpus = boards::two(Version::V3, A76);
        for device in [UART_BASE + 0x18, RTC_BASE + 0xfe0] {
            cpus[0].set_guest(|guest| {
                guest.elr = 0x1_0002;
                guest.spsr = BEFORE;
                guest.x[2] = u64::MAX;
            });
            cpus[0].exit(Exception::Synchronous(LOAD, device, device >> 12 << 4));
            let guest = cpus[0].guest();
            assert_eq!((guest.elr, guest.spsr), (0x1_0004, BEHIND), "{device:#x}");
            assert_ne!(guest.x[2], u64::MAX, "it was answered");
        }
    });
}
