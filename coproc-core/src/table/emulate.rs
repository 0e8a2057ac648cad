//! One access of a domain, answered by what the table says.

use super::context::{Context, Phase};
use super::device::Device;
use super::register::{Full, Kind, Narrow, Part, Reads, Reg, Register, Trap};
use crate::driver::{Hardware, Verdict};
use crate::register::{Access, Operation};

/// A register as the device shows it to its current owner, with what is carried for it.
#[inline]
pub(super) fn live<S>(context: &mut Context<S>, reg: Reg, hardware: &mut dyn Hardware) -> u64 {
    match context.register(reg) {
        Some(r) if r.trap == Trap::Shadow => return context.value(reg.index),
        // Reading takes them.
        Some(r) if r.kind == Kind::ReadToClear => context.carry(reg.index, reg.read(hardware)),
        _ => return reg.read(hardware) | context.carried(reg.index),
    }
    context.carried(reg.index)
}

/// The current vcoproc's access, trapped or not mapped: passed on, unless it mustn't reach the device.
pub(super) fn forward<D: Device>(
    device: &mut D,
    context: &mut Context<D::Own>,
    access: &Access,
    part: Part,
    hardware: &mut dyn Hardware,
) -> Verdict {
    let index = part.index;
    let (Some(register), Some(reg)) = (D::TABLE.registers.get(index), D::TABLE.at(index)) else {
        return Verdict::Fault;
    };
    match register.trap {
        Trap::Never | Trap::Forward => {}
        Trap::Shadow => return emulate(device, context, access, part, Some(hardware)),
        Trap::Fault => return Verdict::Fault,
    }
    let Operation::Write(written) = access.operation else {
        if let Reads::Fixed(value) = register.reads {
            return Verdict::Value(part.extract(value));
        }
        if register.kind == Kind::ReadToClear {
            let bits = live(context, reg, hardware);
            context.uncarry(index, bits);
            return Verdict::Value(part.extract(bits));
        }
        let bits = hardware.read(access.window, access.offset, access.width) & access.width.mask();
        return Verdict::Value(bits | part.extract(context.carried(index)));
    };
    let written = written & access.width.mask();
    let value = part.place(written);
    match register.kind {
        Kind::Doorbell(bell) if bell.starts == 0 || value & bell.starts != 0 => {
            let busy = bell.busy.is_some_and(|(offset, bits)| {
                let at = D::TABLE.find(register.window, offset);
                let at = at.and_then(|at| D::TABLE.at(at));
                at.is_some_and(|at| at.read(hardware) & bits != 0)
            });
            if busy && bell.depth == 1 && bell.full == Full::Ignore {
                return Verdict::Value(0);
            }
            if !device.allows(reg, value, &mut |reg| live(context, reg, hardware)) {
                return Verdict::Fault;
            }
        }
        Kind::ReadWrite | Kind::Inverted if register.reads != Reads::Value => {
            // Write-only, so this is the only way to know it.
            remember(context, register, part, value);
        }
        Kind::WriteOneToClear => context.uncarry(index, value),
        Kind::Clear(of) => {
            if let Some(target) = D::TABLE.find(register.window, of) {
                context.uncarry(target, value);
            }
        }
        _ => {}
    }
    hardware.write(access.window, access.offset, access.width, written);
    device.forwarded(context, reg, value);
    Verdict::Value(0)
}

/// An access out of the context. `hardware` is given while the context is leaving, and for the current one's write to a register that is kept from the device.
pub(super) fn emulate<D: Device>(
    device: &mut D,
    context: &mut Context<D::Own>,
    access: &Access,
    part: Part,
    mut hardware: Option<&mut dyn Hardware>,
) -> Verdict {
    let index = part.index;
    let (Some(register), Some(reg)) = (D::TABLE.registers.get(index), D::TABLE.at(index)) else {
        return Verdict::Fault;
    };
    match register.away {
        super::Away::Park => return Verdict::Park,
        super::Away::Fault => return Verdict::Fault,
        super::Away::Shadow | super::Away::Queue => {}
    }
    if register.trap == Trap::Fault {
        return Verdict::Fault;
    }
    let Operation::Write(written) = access.operation else {
        let value = context.effective(index);
        if register.kind == Kind::ReadToClear {
            context.uncarry(index, value);
        }
        return Verdict::Value(part.extract(value));
    };
    let value = part.place(written);
    // Where the write goes while leaving: what the device changes too is still there.
    let target = match register.kind {
        Kind::Set(of) | Kind::Clear(of) => D::TABLE.find(register.window, of),
        _ => Some(index),
    };
    let volatile = target.and_then(|at| D::TABLE.registers.get(at));
    let in_device = context.phase == Phase::Leaving && volatile.is_some_and(|r| r.volatile != 0);
    match register.kind {
        Kind::Doorbell(_) | Kind::SideEffect => return ring(device, context, register, reg, value),
        Kind::ReadOnly | Kind::ReadToClear => return Verdict::Value(0),
        Kind::ReadWrite | Kind::Inverted if context.locked(index) => return Verdict::Value(0),
        _ => {}
    }
    if in_device {
        let Some(hardware) = &mut hardware else {
            return Verdict::Park;
        };
        let written = written & access.width.mask();
        hardware.write(access.window, access.offset, access.width, written);
    }
    match (register.kind, target) {
        (Kind::ReadWrite | Kind::Inverted, _) => remember(context, register, part, value),
        (Kind::WriteOneToClear | Kind::Clear(_), Some(target)) => {
            let bits = context.value(target) & !value;
            context.set_value(target, bits);
            context.uncarry(target, value);
        }
        // Seen at the next look.
        (Kind::Set(_), Some(_)) if in_device => {}
        (Kind::Set(_), Some(target)) if D::TABLE.latched(target) => context.carry(target, value),
        (Kind::Set(_), Some(target)) => {
            let writable = D::TABLE.registers.get(target).map_or(0, |r| r.writable);
            let bits = context.value(target) | (value & writable);
            context.set_value(target, bits);
        }
        _ => {}
    }
    if register.trap == Trap::Shadow {
        let hardware = hardware.filter(|_| context.phase == Phase::Present);
        device.shadowed(context, reg, value, hardware);
    } else {
        device.wrote(context, reg, value);
    }
    if context.wanted() {
        return Verdict::Queued(0);
    }
    Verdict::Value(0)
}

/// A domain's write into the shadow of a plain register.
fn remember<S>(context: &mut Context<S>, register: &Register, part: Part, value: u64) {
    let old = context.value(part.index);
    let whole = |old: u64| match register.narrow {
        Narrow::Merged | Narrow::Addressed(_) => (old & !part.mask) | value,
        Narrow::Refused | Narrow::ZeroExtended => value,
    };
    let new = match register.kind {
        Kind::Inverted => !whole(!old) & register.width.mask(),
        _ => (old & !register.writable) | (whole(old) & register.writable),
    };
    context.set_value(part.index, new);
}

fn ring<D: Device>(
    device: &mut D,
    context: &mut Context<D::Own>,
    register: &Register,
    reg: Reg,
    value: u64,
) -> Verdict {
    let full = match register.kind {
        Kind::Doorbell(bell) if bell.starts != 0 && value & bell.starts == 0 => {
            return Verdict::Value(0);
        }
        Kind::Doorbell(bell) => bell.full,
        _ => Full::Park,
    };
    if context.full(reg.index) {
        return match full {
            Full::Ignore => Verdict::Value(0),
            Full::Park => Verdict::Park,
        };
    }
    if !device.allows(reg, value, &mut |reg| context.get(reg)) {
        return Verdict::Fault;
    }
    context.ring(reg.index, value);
    device.wrote(context, reg, value);
    Verdict::Queued(0)
}
