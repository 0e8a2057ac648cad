//! One exit of firmware: what it wanted, and what it gets.
//!
//! Firmware has memory, its local registers, WFI, and nothing else. An access to anything else is an external abort, counted against its domain like the DMA
//! of any device; system registers, HVC and SMC are UNDEFINED; and one that can't even fetch its instructions has crashed.

use super::FirmwareCore;
use crate::arch::exits::{Exit, Registers};
use crate::arch::guest;
use crate::system::{interrupts, sharing};
use core::sync::atomic::Ordering;
use hypervisor::trap::identification;
use hypervisor::trap::inject::Exception;
use hypervisor::trap::syndrome::{self, Trap};

/// An exception of the firmware on this core brought it here.
pub fn handle(
    core: &'static FirmwareCore,
    registers: &mut Registers,
    kind: Exit,
) -> *mut Registers {
    let raised = match kind {
        Exit::Synchronous => core.synchronous(registers),
        Exit::Interrupt => {
            interrupts::serve();
            false
        }
        Exit::Served => false,
        Exit::SError => core.observe(|state| state.device.crashed(0, 0, registers.elr)),
    };
    if raised {
        sharing::core_interrupt(core.instance.load(Ordering::Relaxed));
    }
    core.next()
}

impl FirmwareCore {
    /// Does something to the core's device; returns whether that raised its interrupt.
    fn observe(&self, act: impl FnOnce(&mut super::State)) -> bool {
        let mut state = self.state.lock();
        let before = state.device.interrupt_asserted();
        act(&mut state);
        !before && state.device.interrupt_asserted()
    }

    fn synchronous(&self, registers: &mut Registers) -> bool {
        let (esr, far, hpfar) = guest::syndrome();
        let undefined = |registers: &mut Registers| {
            guest::inject(registers, Exception::Undefined);
            false
        };
        match syndrome::decode(esr) {
            Trap::DataAbort {
                access,
                walk: false,
                translation,
                cache_maintenance: false,
            } => {
                let address = if translation {
                    guest::abort_address((esr, far, hpfar))
                } else {
                    Some(syndrome::fault_address(hpfar, far))
                };
                let Some(address) = address else {
                    return false; // stage 1 has none: the instruction is repeated
                };
                let write = esr & WRITE != 0;
                let local = address
                    .checked_sub(fw_core_abi::LOCAL_BASE)
                    .filter(|offset| *offset < fw_core_abi::REGISTERS_SIZE);
                if let (Some(offset), Some(access), true) = (local, access, translation) {
                    return self.local(registers, offset, access, far);
                }
                guest::inject(registers, syndrome::external_abort(esr, far));
                self.observe(|state| state.fault(address, write))
            }
            Trap::DataAbort { .. } => {
                guest::inject(registers, syndrome::external_abort(esr, far));
                let address = syndrome::fault_address(hpfar, far);
                self.observe(|state| state.fault(address, false))
            }
            Trap::InstructionAbort => {
                let address = syndrome::fault_address(hpfar, far);
                self.observe(|state| {
                    state.fault(address, false);
                    state.device.crashed(esr, address, registers.elr);
                })
            }
            Trap::Wait { event } => {
                registers.elr = registers.elr.wrapping_add(4);
                if event {
                    return false;
                }
                self.observe(|state| state.device.waits())
            }
            Trap::Hvc(_) => {
                // The return address is the next instruction's already; an UNDEFINED one's is its own.
                registers.elr = registers.elr.wrapping_sub(4);
                undefined(registers)
            }
            Trap::System(access)
                if access.read && identification::is_identification(access.encoding) =>
            {
                let value = guest::identification(access.encoding);
                registers.set(
                    access.register,
                    identification::shown(access.encoding, value),
                );
                registers.elr = registers.elr.wrapping_add(4);
                false
            }
            Trap::FloatingPoint if self.use_float() => false,
            Trap::Smc(_) | Trap::System(_) | Trap::FloatingPoint | Trap::Unknown(_) => {
                undefined(registers)
            }
        }
    }

    /// FP or SIMD registers for the firmware that is loaded.
    fn use_float(&self) -> bool {
        let state = self.state.lock();
        let mut slots = state.contexts.iter();
        slots
            .find(|slot| Some(slot.who) == state.loaded)
            .is_some_and(|slot| slot.context.use_float())
    }

    /// An access to the local registers.
    fn local(
        &self,
        registers: &mut Registers,
        offset: u64,
        access: syndrome::MmioAccess,
        far: u64,
    ) -> bool {
        let value = access
            .write
            .then(|| registers.get(access.register) & access.width.mask());
        let mut answer = None;
        let raised = self.observe(|state| {
            answer = state.device.local_access(offset, access.width, value);
        });
        match answer {
            Some(value) => {
                if !access.write {
                    registers.set(access.register, access.extend(value));
                }
                registers.elr = registers.elr.wrapping_add(4);
            }
            None => {
                let write = access.write;
                guest::inject(
                    registers,
                    Exception::DataAbort {
                        address: far,
                        write,
                    },
                );
            }
        }
        raised
    }
}

/// ESR_EL2.ISS.WnR.
const WRITE: u64 = 1 << 6;
