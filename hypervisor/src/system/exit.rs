//! One exit of a guest: what it wanted, and what it gets.
//!
//! A guest can make EL2 do only what stands here. Whatever isn't known is injected into the guest as the
//! architecture says.

use super::domain::{Activity, Domain, Vcpu};
use super::schedule::{self, Member};
use super::sharing::Link;
use super::{
    devices, entropy, firmware, fixture, flash, interrupts, messages, passthrough, shared_memory,
    sharing,
};
use crate::arch::errata;
use crate::arch::exits::{Exit, Registers};
use crate::arch::guest;
use ::entropy::trng;
use coproc_core::address::GuestPhysical;
use coproc_core::register::{Access, Operation, Width};
use hypervisor::guest_tree::layout;
use hypervisor::lifecycle::{Crash, Ending};
use hypervisor::psci::{Call, Outcome};
use hypervisor::trap::inject::Exception;
use hypervisor::trap::step;
use hypervisor::trap::syndrome::{self, MmioAccess, Trap};
use hypervisor::vgic::Line;
use hypervisor::vpci::{SLOTS, intx_line};

/// What becomes of a trapped load or store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Done; a load gets this.
    Value(u64),
    /// The same instruction again, at once.
    Retry,
    /// The same instruction again when the vCPU is woken; it was put to sleep already.
    Parked,
    /// An external abort.
    Abort,
}

/// An exit that takes more than its answer, of this vCPU or (`None`) of firmware; returns who is resumed.
pub fn handle(member: Option<Member>, registers: &mut Registers, kind: Exit) -> *mut Registers {
    if let Some(member) = member {
        match kind {
            Exit::Synchronous => synchronous(member, registers),
            Exit::Served => {}
            Exit::Interrupt => interrupts::serve(),
            Exit::SError => log::warn!("{}: SError, dropped", member.domain.id),
        }
    } else if let Some(core) = firmware::here() {
        return firmware::handle(core, registers, kind);
    }
    schedule::choose()
}

fn synchronous(member: Member, registers: &mut Registers) {
    let (esr, far, hpfar) = guest::syndrome();
    match syndrome::decode(esr) {
        Trap::DataAbort {
            access,
            walk: false,
            translation: true,
            cache_maintenance: false,
        } => {
            let address = guest::abort_address((esr, far, hpfar));
            let Some(address) = address.map(GuestPhysical::new) else {
                return; // stage 1 has none, or none any more: the instruction is repeated
            };
            let abort = syndrome::external_abort(esr, far);
            data_abort(member, registers, access, address, abort);
        }
        Trap::DataAbort {
            cache_maintenance: true,
            walk: false,
            ..
        } => advance(registers),
        Trap::DataAbort { .. } => {
            inject(member, registers, syndrome::external_abort(esr, far));
        }
        Trap::InstructionAbort => inject(
            member,
            registers,
            Exception::InstructionAbort { address: far },
        ),
        Trap::Wait { event } => {
            advance(registers);
            if !event {
                wait(member);
            }
        }
        Trap::Hvc(_) => call(member, registers),
        Trap::Smc(_) => {
            advance(registers);
            call(member, registers);
        }
        // Registers that exist were served by `emulation`.
        Trap::FloatingPoint if member.vcpu.context.use_float() => {}
        Trap::System(_) | Trap::FloatingPoint | Trap::Unknown(_) => {
            inject(member, registers, Exception::Undefined)
        }
    }
}

/// The guest goes on behind the instruction of this exit.
fn advance(registers: &mut Registers) {
    let (esr, ..) = guest::syndrome();
    (registers.elr, registers.spsr) = step::over(registers.elr, registers.spsr, esr);
}

fn wait(member: Member) {
    if !schedule::interrupt_waits(member) {
        member.vcpu.set_activity(Activity::Waiting);
    }
}

fn data_abort(
    member: Member,
    registers: &mut Registers,
    access: Option<MmioAccess>,
    address: GuestPhysical,
    abort: Exception,
) {
    let Some(access) = access else {
        // No description: nothing can be emulated. But the current owner of a coprocessor may use any instruction on
        // its registers once they are mapped, so the touch is reported as if it had been a read.
        let touched = touch(member, address);
        if touched != Some(Answer::Retry) && touched != Some(Answer::Parked) {
            inject(member, registers, abort);
        }
        return;
    };
    let operation = if access.write {
        Operation::Write(registers.get(access.register) & access.width.mask())
    } else {
        Operation::Read
    };
    match mmio(member, address, access.width, operation) {
        Answer::Value(value) => {
            if !access.write {
                registers.set(access.register, access.extend(value));
            }
            advance(registers);
        }
        Answer::Retry | Answer::Parked => {}
        Answer::Abort => inject(member, registers, abort),
    }
}

pub(super) fn within(address: u64, base: u64, size: u64) -> Option<u64> {
    address.checked_sub(base).filter(|offset| *offset < size)
}

/// What [`emulation`](super::emulation) leaves: flash, the devices of `devices`, PCI configuration space, coprocessors.
fn mmio(member: Member, address: GuestPhysical, width: Width, operation: Operation) -> Answer {
    if !address.is_aligned(width.bytes()) {
        return Answer::Abort;
    }
    let (domain, at) = (member.domain, address.get());
    // One comparison for a coprocessor's registers, which are asked for more often than all of these.
    if at < layout::PCI_MEM32_BASE {
        return flash::access(domain, at, width, operation)
            .or_else(|| devices::access(domain, at, width, operation))
            .or_else(|| messages::access(domain, at, width, operation))
            .or_else(|| fixture_access(member, at, width, operation))
            .unwrap_or(Answer::Abort);
    }
    if let Some(offset) = within(at, layout::ECAM_BASE, layout::ECAM_SIZE) {
        return configuration(domain, offset, width, operation);
    }
    coproc_access(member, address, width, operation).unwrap_or(Answer::Abort)
}

fn configuration(domain: &Domain, offset: u64, width: Width, operation: Operation) -> Answer {
    let slot = (offset >> 15) as usize & (SLOTS - 1);
    match operation {
        Operation::Read => {
            // Asked for before the bus is locked: the coprocessor's lock comes first.
            let pending = domain
                .link(slot)
                .is_some_and(|link| sharing::interrupt_pending(&link));
            let pci = domain.pci.lock();
            let intx = |slot| {
                pending
                    || shared_memory::interrupt_pending(&pci, slot)
                    || passthrough::asserts(domain, slot)
            };
            Answer::Value(pci.bus.read(offset, width, intx))
        }
        Operation::Write(value) => {
            let effect = {
                let mut pci = domain.pci.lock();
                let effect = pci.bus.write(offset, width, value);
                if effect.intx_disabled.is_some() {
                    domain.refresh_interrupts(&mut pci);
                }
                if effect.bars_moved {
                    shared_memory::windows_changed(domain, &mut pci);
                }
                if !effect.is_none() {
                    passthrough::configured(domain, &mut pci, effect.slot, effect.bars_moved);
                }
                effect
            };
            if let Some(link) = domain.link(usize::from(effect.slot)) {
                if effect.bars_moved {
                    sharing::windows_changed(&link);
                    // What the coprocessor's window gave way to can be mapped only now.
                    let mut pci = domain.pci.lock();
                    shared_memory::windows_changed(domain, &mut pci);
                    passthrough::configured(domain, &mut pci, effect.slot, true);
                }
                if effect.intx_disabled.is_some() || effect.message {
                    sharing::resample(&link);
                }
            }
            if effect.message {
                // Only now: what the domain acknowledged while it wanted no messages is no reason for one.
                domain.refresh_interrupts(&mut domain.pci.lock());
            }
            Answer::Value(0)
        }
    }
}

/// What a load from PCI memory gets where no function answers: all-ones, as from QEMU's host bridge, and stores vanish.
const NOBODY: Answer = Answer::Value(u64::MAX);

fn in_window(address: u64) -> bool {
    within(address, layout::PCI_MEM32_BASE, layout::PCI_MEM32_SIZE).is_some()
        || within(address, layout::PCI_MEM64_BASE, layout::PCI_MEM64_SIZE).is_some()
}

/// What is behind an address of PCI memory: BAR, offset in it, and the share.
#[inline(always)]
fn window(domain: &Domain, address: GuestPhysical) -> Option<(u8, u64, Link)> {
    let pci = domain.pci.lock();
    let (slot, bar, offset) = pci.bus.find(address.get())?;
    let link = pci.links.get(usize::from(slot)).copied().flatten()?;
    Some((bar, offset, link))
}

/// An access to a coprocessor's window; `None` if there is no window.
#[inline(never)]
fn coproc_access(
    member: Member,
    address: GuestPhysical,
    width: Width,
    operation: Operation,
) -> Option<Answer> {
    let Some((bar, offset, link)) = window(member.domain, address) else {
        let shared = shared_memory::access(member.domain, address.get(), width, operation);
        return shared.or_else(|| in_window(address.get()).then_some(NOBODY));
    };
    let access = Access {
        window: usize::from(bar),
        offset,
        width,
        operation,
    };
    Some(sharing::access(&link, member.vcpu, &access))
}

/// The same where a coprocessor is a node of the domain's tree.
#[inline(never)]
fn fixture_access(member: Member, at: u64, width: Width, operation: Operation) -> Option<Answer> {
    let (link, window, offset) = fixture::find(member.domain, at)?;
    let Some(link) = link else {
        return Some(NOBODY);
    };
    let access = Access {
        window,
        offset,
        width,
        operation,
    };
    Some(sharing::access(&link, member.vcpu, &access))
}

/// The instruction has no description: only mapping the window helps. `None` if there is no window.
#[inline(never)]
fn touch(member: Member, address: GuestPhysical) -> Option<Answer> {
    let function = window(member.domain, address);
    let function = function.map(|(bar, offset, link)| (Some(link), usize::from(bar), offset));
    let found = function.or_else(|| fixture::find(member.domain, address.get()));
    let Some((link, window, offset)) = found else {
        return in_window(address.get()).then_some(NOBODY);
    };
    let Some(link) = link else {
        return Some(NOBODY);
    };
    let access = Access {
        window,
        offset: offset & !3,
        width: Width::Word,
        operation: Operation::Read,
    };
    Some(sharing::access(&link, member.vcpu, &access))
}

/// A level-sensitive interrupt was deactivated by the guest, or may have changed: its source is looked at again.
pub fn resample(domain: &Domain, line: Line) {
    let Line::Spi(intid) = line else {
        return;
    };
    if intid == 32 + layout::UART_SPI {
        domain.refresh_uart();
        return;
    }
    if devices::resample(intid) {
        return;
    }
    if intid >= layout::V2M_FIRST {
        messages::ended(domain, intid);
        return passthrough::ended(domain, intid);
    }
    let first = 32 + layout::PCI_INTX_SPI;
    let Some(pin) = intid.checked_sub(first).filter(|pin| *pin < 4) else {
        if !fixture::ended(domain, intid) {
            passthrough::ended(domain, intid);
        }
        return;
    };
    for slot in 0..SLOTS {
        if let Some(link) = domain.link(slot)
            && intx_line(slot as u8, link.pin) == Some(pin as u8)
        {
            sharing::resample(&link);
        }
    }
}

fn call(member: Member, registers: &mut Registers) {
    let Member { domain, vcpu } = member;
    if trng::is_call(registers.x[0]) && entropy::call(registers) {
        return;
    }
    let arguments = [
        registers.x[0],
        registers.x[1],
        registers.x[2],
        registers.x[3],
    ];
    // Held until the vCPU concerned is on or off, so that nobody sees the one without the other.
    let mut power = domain.power.lock();
    let outcome = power.serve(vcpu.index, Call::decode(arguments), |address| {
        domain.is_ram(GuestPhysical::new(address))
    });
    match outcome {
        Outcome::Return(value) => registers.set(0, value),
        Outcome::StartVcpu {
            index,
            entry,
            context,
        } => {
            registers.set(0, 0);
            if let Some(started) = domain.vcpus.get(index) {
                power.started(index);
                start_vcpu(domain, started, entry, context);
            }
        }
        Outcome::StopVcpu => {
            schedule::abandon(member);
            let last = power.all_off();
            drop(power);
            if last {
                log::info!("{}: all vCPUs are off", domain.id);
                domain.end(Ending::Off);
            }
        }
        Outcome::Suspend => {
            registers.set(0, 0);
            wait(member);
        }
        Outcome::Mitigate(workaround) => {
            errata::mitigate(workaround);
            registers.set(0, 0);
        }
        Outcome::SystemOff => domain.end(Ending::Off),
        Outcome::SystemReset => domain.end(Ending::Reset),
    }
}

/// Gives the guest an exception, unless it gets nowhere by taking it.
fn inject(member: Member, registers: &mut Registers, exception: Exception) {
    let pc = registers.elr;
    guest::inject(registers, exception);
    let progress = member
        .vcpu
        .progress
        .lock()
        .exception(pc, guest::vector_base(), registers.elr);
    if let Err(why) = progress {
        crash(member, why);
    }
}

/// The domain can't go on: what this vCPU was at is kept, and the domain stops.
fn crash(member: Member, why: Crash) {
    if member.domain.ending().is_none() {
        member.domain.describe(member.vcpu, why);
        member.domain.end(Ending::Crash(why));
    }
}

/// Starts a vCPU that is off. Its CPU may be another one: it's made ready last.
fn start_vcpu(domain: &Domain, vcpu: &Vcpu, entry: u64, argument: u64) {
    let kicks = domain.vgic.lock().reset_vcpu(vcpu.index);
    domain.kick(kicks);
    vcpu.context.reset();
    vcpu.registers.start_at(entry, argument);
    vcpu.start();
}
