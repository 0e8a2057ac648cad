//! What answers at physical addresses: QEMU `virt`'s interrupt controller and UART, as far as Baton uses them.

use super::gic::{Gic, Id};
use super::{Board, FREQUENCY};
use coproc_core::driver::Hardware;
use coproc_core::register::Width;
use coproc_core::time::Duration;
use hypervisor::vgic::Version;
use platforms::coproc::accumulator::model::Accumulator;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::string::String;
use std::vec::Vec;

/// Distributor.
pub const GICD: u64 = 0x800_0000;
/// A GICv2's CPU interface.
pub const GICC: u64 = 0x801_0000;
/// Its control of virtual ones.
pub const GICH: u64 = 0x803_0000;
/// A GICv3's redistributors, 128 KiB each.
pub const GICR: u64 = 0x80a_0000;
/// PL011.
pub const UART: u64 = 0x900_0000;

/// The accumulator, a coprocessor (`platforms::coproc::accumulator`).
pub const ACCUMULATOR: u64 = 0xa10_0000;
/// Its interrupt, level-sensitive.
pub const ACCUMULATOR_INTERRUPT: u32 = 32 + 50;

/// GICC_IAR.
pub const ACKNOWLEDGE: u64 = GICC + 0xc;
/// GICC_EOIR.
pub const END: u64 = GICC + 0x10;
/// GICC_DIR.
pub const DEACTIVATE: u64 = GICC + 0x1000;
/// GICD_SGIR.
pub const SEND: u64 = GICD + 0xf00;

/// A PL011.
#[derive(Default)]
pub struct Uart {
    output: Vec<u8>,
    /// What was typed.
    pub input: VecDeque<u8>,
    mask: u64,
}

impl Uart {
    /// What it sent.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output).replace('\r', "")
    }

    /// There is room at any time.
    pub fn asserts(&self) -> bool {
        const RECEIVE: u64 = 1 << 4 | 1 << 6;
        const TRANSMIT: u64 = 1 << 5;
        self.mask & TRANSMIT != 0 || self.mask & RECEIVE != 0 && !self.input.is_empty()
    }

    fn load(&mut self, offset: u64) -> u64 {
        match offset {
            0 => self.input.pop_front().unwrap_or(0).into(),
            0x18 => 1 << 7 | u64::from(self.input.is_empty()) << 4,
            0x38 => self.mask,
            _ => 0,
        }
    }

    fn store(&mut self, offset: u64, value: u64) {
        match offset {
            0 => self.output.push(value as u8),
            0x38 => self.mask = value,
            _ => {}
        }
    }
}

/// All of them.
pub struct Devices {
    version: Version,
    cpus: usize,
    /// The interrupt controller.
    pub gic: Gic,
    /// The UART.
    pub uart: Uart,
    /// The coprocessor, and the system counter when it was told the time.
    accumulator: Accumulator,
    told: u64,
    /// GICH, of each CPU: list registers and the rest.
    virtual_interfaces: BTreeMap<(usize, u64), u64>,
}

impl Devices {
    /// After reset.
    pub fn new(board: &Board) -> Self {
        Self {
            version: board.gic,
            cpus: board.midr.len(),
            gic: Gic::new(board.gic),
            uart: Uart::default(),
            accumulator: Accumulator::default(),
            told: 0,
            virtual_interfaces: BTreeMap::new(),
        }
    }

    /// Tells those that do something by themselves what the system counter is.
    pub fn advance(&mut self, counter: u64) {
        let ticks = counter.saturating_sub(self.told);
        self.told = counter;
        let nanoseconds = ticks * 1_000_000_000 / FREQUENCY;
        self.accumulator.advance(Duration::from_nanos(nanoseconds));
    }

    /// Whether the coprocessor interrupts.
    pub fn accumulator_asserts(&self) -> bool {
        self.accumulator.line()
    }

    /// Whose redistributor an address is in, and the offset in it.
    fn redistributor(&self, at: u64) -> Option<(usize, u64)> {
        let offset = at.checked_sub(GICR)?;
        let frame = (offset / 0x2_0000) as usize;
        (self.version == Version::V3 && frame < self.cpus).then_some((frame, offset % 0x2_0000))
    }

    /// A CPU loads.
    pub fn load(&mut self, cpu: usize, at: u64, width: Width, levels: &BTreeSet<Id>) -> u64 {
        let bytes = width.bytes();
        if let Some((whose, offset)) = self.redistributor(at) {
            let last = u64::from(whose + 1 == self.cpus) << 4;
            return match offset {
                8 if bytes == 8 => (whose as u64) << 32 | last,
                8 => last,
                12 => whose as u64,
                0x1_0000.. => self.gic.load(whose, true, offset - 0x1_0000, bytes),
                _ => 0,
            };
        }
        let v2 = self.version == Version::V2;
        match at {
            GICD..GICC => self.gic.load(cpu, false, at - GICD, bytes),
            ACKNOWLEDGE if v2 => self.gic.acknowledge(cpu, levels).unwrap_or(1023).into(),
            GICC..GICH if v2 => 0,
            0x803_0004 if v2 => 3,
            GICH..0x804_0000 if v2 => {
                let value = self.virtual_interfaces.get(&(cpu, at));
                value.copied().unwrap_or(0)
            }
            UART..0x900_1000 => self.uart.load(at - UART),
            ACCUMULATOR..0xa10_1000 => self.accumulator.read(0, at - ACCUMULATOR, width),
            _ => panic!("a load from {at:#x}, where there is nothing"),
        }
    }

    /// A CPU stores.
    pub fn store(&mut self, cpu: usize, at: u64, width: Width, value: u64) {
        let bytes = width.bytes();
        if let Some((whose, offset)) = self.redistributor(at) {
            if let Some(offset) = offset.checked_sub(0x1_0000) {
                self.gic.store(whose, true, offset, bytes, value);
            }
            return;
        }
        let v2 = self.version == Version::V2;
        match at {
            SEND if v2 => {
                for target in (0..self.cpus).filter(|target| value >> 16 & 1 << target != 0) {
                    self.gic.raise(target, value as u32 & 0xf, cpu);
                }
            }
            GICD..GICC => self.gic.store(cpu, false, at - GICD, bytes, value),
            DEACTIVATE if v2 => self.gic.deactivate(cpu, value as u32),
            GICC..GICH if v2 => {}
            GICH..0x804_0000 if v2 => {
                self.virtual_interfaces.insert((cpu, at), value);
            }
            UART..0x900_1000 => self.uart.store(at - UART, value),
            ACCUMULATOR..0xa10_1000 => self.accumulator.write(0, at - ACCUMULATOR, width, value),
            _ => panic!("a store to {at:#x}, where there is nothing"),
        }
    }
}
