//! What Baton emulates by itself: interrupt controller, UART, system registers.
//!
//! These accesses are the most frequent exits, and none of them changes which vCPU runs. So they are served with the program counter left in
//! its system register, and the vectors go straight back to the guest unless this CPU has other work
//! ([`Cpu::demand`](crate::arch::cpu::Cpu::demand)). What is rare is kept out of line: a function that is only a few loads
//! long needs no stack frame.

use super::domain::Domain;
use super::schedule::{self, Member};
use super::{console, devices};
use crate::arch::exits::{self, Quick, Registers};
use crate::arch::guest;
use crate::arch::{entropy, gic};
use coproc_core::register::Width;
use hypervisor::guest_tree::layout;
use hypervisor::physical_timer;
use hypervisor::trap::identification;
use hypervisor::trap::syndrome::{self, encoding};
use hypervisor::vgic::{Kicks, Version};
use hypervisor::vpl011::Vpl011;

/// X0 to X18 and X30 are restored by the vectors in any case; 31 is the zero register.
#[inline(always)]
const fn resume(register: usize) -> Quick {
    if matches!(register, 19..=29) {
        Quick::ResumeAll
    } else {
        Quick::Resume
    }
}

/// A data abort: served if it is an access to something that is emulated here.
#[inline(always)]
pub fn access(member: Member, registers: &mut Registers, esr: u64) -> Quick {
    let Some(access) = syndrome::mmio(esr) else {
        return Quick::Unserved;
    };
    let address = exits::fault_address();
    if access.write {
        let value = registers.get(access.register) & access.width.mask();
        if !store(member, address, access.width, value) {
            return Quick::Unserved;
        }
        exits::skip_instruction();
        return Quick::Resume;
    }
    let value = match load(member, address, access.width) {
        Loaded::Value(value) => value,
        Loaded::Refused => return Quick::Resume, // the instruction is repeated
        Loaded::Unserved => return Quick::Unserved,
    };
    exits::skip_instruction();
    registers.set(access.register, access.extend(value));
    resume(access.register)
}

/// An emulated device, and the offset in it.
enum Device {
    Distributor(u64),
    Redistributor { frame: usize, offset: u64 },
    Uart(u64),
}

#[inline(always)]
fn device(domain: &Domain, address: u64, width: Width) -> Option<Device> {
    if address & width.bytes().wrapping_sub(1) != 0 {
        return None;
    }
    let distributor = address.wrapping_sub(layout::GICD_BASE);
    if distributor < layout::GICD_SIZE {
        return Some(Device::Distributor(distributor));
    }
    let uart = address.wrapping_sub(layout::UART_BASE);
    if uart < layout::UART_SIZE {
        return Some(Device::Uart(uart));
    }
    let redistributor = address.wrapping_sub(layout::GICR_BASE);
    let frame = (redistributor / layout::GICR_SIZE) as usize;
    if frame < domain.cpus() as usize && gic::version() == Version::V3 {
        let offset = redistributor % layout::GICR_SIZE;
        return Some(Device::Redistributor { frame, offset });
    }
    None
}

/// Offset of the SGI frame in a redistributor.
const SGI_FRAME: u64 = 0x1_0000;

/// Whether an offset may be one of ISPENDR to ICACTIVER, 0x200 to 0x3ff, of the distributor and of the SGI frame: they tell or change what list
/// registers hold. One bit is the cheapest question; [`collect`] has the others.
#[inline(always)]
const fn may_be_state(offset: u64) -> bool {
    offset & 0x200 != 0
}

/// The loaded vCPU's list registers are taken back before what they may hold is looked at. `offset` is from the start of the registers.
#[cold]
#[inline(never)]
fn collect(member: Member, offset: u64) {
    // With them a GICv2's SPENDSGIR and a few that don't matter.
    if offset < 0x1000 {
        schedule::sample_timer(member);
        member.vcpu.demand_attention();
        schedule::synchronise(member);
    }
}

/// What came of a read.
enum Loaded {
    Value(u64),
    /// The processor misreported it (Cortex-A57 834220): stage 1 has a fault for it.
    Refused,
    /// There is no such device here.
    Unserved,
}

#[inline(always)]
fn load(member: Member, address: u64, width: Width) -> Loaded {
    let Member { domain, vcpu } = member;
    let Some(device) = device(domain, address, width) else {
        return Loaded::Unserved;
    };
    Loaded::Value(match device {
        Device::Distributor(_) | Device::Redistributor { .. } if guest::is_refused(address) => {
            return Loaded::Refused;
        }
        Device::Distributor(offset) => {
            if may_be_state(offset) {
                collect(member, offset);
            }
            let mut vgic = domain.vgic.lock();
            vgic.distributor_read(vcpu.index, offset, width)
        }
        Device::Redistributor { frame, offset } => {
            if may_be_state(offset) {
                collect(member, offset.wrapping_sub(SGI_FRAME));
            }
            domain.vgic.lock().redistributor_read(frame, offset, width)
        }
        // The one register that begins a page.
        Device::Uart(offset) if Vpl011::read_has_effect(offset) => {
            return if guest::is_refused(address) {
                Loaded::Refused
            } else {
                uart_data(domain, width)
            };
        }
        Device::Uart(offset) => match &domain.uart {
            Some(uart) => uart.lock().read(offset, width),
            None => return Loaded::Unserved,
        },
    })
}

/// Takes received data, which may end the UART's interrupt.
#[inline(never)]
fn uart_data(domain: &Domain, width: Width) -> Loaded {
    let Some(uart) = &domain.uart else {
        return Loaded::Unserved;
    };
    let mut uart = uart.lock();
    let before = uart.interrupt_level();
    let value = uart.read(0, width);
    let changed = uart.interrupt_level() != before;
    drop(uart);
    if changed {
        domain.refresh_uart();
    }
    Loaded::Value(value)
}

#[inline(never)]
fn store(member: Member, address: u64, width: Width, value: u64) -> bool {
    let Member { domain, vcpu } = member;
    match device(domain, address, width) {
        Some(Device::Distributor(offset)) => {
            if may_be_state(offset) {
                collect(member, offset);
            }
            let mut vgic = domain.vgic.lock();
            let kicks = vgic.distributor_write(vcpu.index, offset, width, value);
            drop(vgic);
            kick(domain, kicks);
        }
        Some(Device::Redistributor { frame, offset }) => {
            if may_be_state(offset) {
                collect(member, offset.wrapping_sub(SGI_FRAME));
            }
            let mut vgic = domain.vgic.lock();
            let kicks = vgic.redistributor_write(frame, offset, width, value);
            drop(vgic);
            kick(domain, kicks);
        }
        Some(Device::Uart(offset)) => {
            let Some(uart) = &domain.uart else {
                return false;
            };
            let mut uart = uart.lock();
            let before = uart.interrupt_level();
            let sent = uart.write(offset, width, value);
            let changed = uart.interrupt_level() != before;
            drop(uart);
            if changed {
                domain.refresh_uart();
            }
            if let Some(byte) = sent {
                console::write_domain(domain.id, byte);
            }
        }
        None => return false,
    }
    true
}

#[inline(always)]
fn kick(domain: &Domain, kicks: Kicks) {
    if !kicks.is_empty() {
        domain.kick(kicks);
    }
}

const SGI1R: u32 = encoding(3, 0, 12, 11, 5);

/// A trapped access to a system register: served if there is such a register.
#[inline(always)]
pub fn register(member: Member, registers: &mut Registers, esr: u64) -> Quick {
    let moved = (esr >> 5) as usize & 0x1f;
    if syndrome::is_write_of(esr, SGI1R) {
        let Member { domain, vcpu } = member;
        let value = registers.get(moved);
        let kicks = domain.vgic.lock().sgi1r_write(vcpu.index, value);
        kick(domain, kicks);
    } else if !other_register(member, registers, esr) {
        return Quick::Unserved;
    }
    exits::skip_instruction();
    resume(moved)
}

/// `false`: there is no such register.
#[inline(never)]
fn other_register(member: Member, registers: &mut Registers, esr: u64) -> bool {
    const ASGI1R: u32 = encoding(3, 0, 12, 11, 6);
    const SGI0R: u32 = encoding(3, 0, 12, 11, 7);
    const DIR: u32 = encoding(3, 0, 12, 11, 1);
    const ACTLR: u32 = encoding(3, 0, 1, 0, 1);
    /// Op0 of the debug registers.
    const DEBUG: u32 = 2;
    const MDSCR: u32 = encoding(2, 0, 0, 2, 2);
    const OSLSR: u32 = encoding(2, 0, 1, 1, 4);
    const OS_LOCK_IMPLEMENTED: u64 = 1 << 3;
    const CNTP_TVAL: u32 = encoding(3, 3, 14, 2, 0);
    const CNTP_CTL: u32 = encoding(3, 3, 14, 2, 1);
    const CNTP_CVAL: u32 = encoding(3, 3, 14, 2, 2);
    const DC_ISW: u32 = encoding(1, 0, 7, 6, 2);
    const DC_CSW: u32 = encoding(1, 0, 7, 10, 2);
    const DC_CISW: u32 = encoding(1, 0, 7, 14, 2);
    let Some(access) = syndrome::system(esr) else {
        return false;
    };
    let Member { domain, vcpu } = member;
    let name = access.encoding;
    let value = registers.get(access.register);
    match (name, access.read) {
        (SGI0R | ASGI1R, false) => {
            let kicks = domain.vgic.lock().sgi0r_write(vcpu.index, value);
            domain.kick(kicks);
        }
        (DIR, false) => {
            vcpu.demand_attention();
            schedule::synchronise(member);
            let kicks = domain
                .vgic
                .lock()
                .deactivate(vcpu.index, value as u32 & 0xff_ffff);
            domain.kick(kicks);
            vcpu.demand_attention();
        }
        (CNTP_TVAL | CNTP_CTL | CNTP_CVAL, read) => {
            let register = match name {
                CNTP_TVAL => physical_timer::Register::Value,
                CNTP_CTL => physical_timer::Register::Control,
                _ => physical_timer::Register::Compare,
            };
            if read {
                registers.set(access.register, devices::read_timer(member, register));
            } else {
                devices::write_timer(member, register, value);
            }
        }
        // Implementation-defined controls are the machine's, not the domain's.
        (ACTLR, true) => registers.set(access.register, 0),
        (ACTLR, false) => {}
        // Cache operations by set and way reach one CPU's caches only, and a vCPU may move: they have no defined use under
        // a hypervisor. All of a domain's memory is coherent with them left out, once its caches are on.
        (DC_ISW | DC_CSW | DC_CISW, false) => {}
        // Self-hosted debug: single-stepping works. Breakpoints and watchpoints read as zero and ignore writes:
        // the hardware's would hit other domains, too.
        (MDSCR, true) => registers.set(access.register, guest::debug_control()),
        (MDSCR, false) => guest::set_debug_control(value),
        (OSLSR, true) => registers.set(access.register, OS_LOCK_IMPLEMENTED),
        (name, true) if name >> 14 == DEBUG => registers.set(access.register, 0),
        (name, false) if name >> 14 == DEBUG => {}
        (name, true) if identification::is_identification(name) => {
            let mut shown = identification::shown(name, guest::identification(name));
            if gic::version() == Version::V2 {
                shown = identification::without_gic_registers(name, shown);
            }
            if !entropy::on_every_cpu() {
                shown = identification::without_random_numbers(name, shown);
            }
            registers.set(access.register, shown);
        }
        _ => return false,
    }
    true
}
