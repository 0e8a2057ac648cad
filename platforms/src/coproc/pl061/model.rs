//! A PL061 as its manual has it (Arm DDI 0190): levels are seen as they are, edges are remembered.
//!
//! Where the manual leaves something open it's as in QEMU: an input takes no data, and a pin that becomes an output drives what it
//! last read. Outputs are no edges.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "a model for tests, which no guest reaches"
)]

use coproc_core::driver::Hardware;
use coproc_core::register::Width;
use coproc_core::time::{Duration, Instant};

/// The device and its board.
#[derive(Debug, Default)]
pub struct Pl061 {
    now: Instant,
    /// What the board drives.
    board: u8,
    data: u8,
    direction: u8,
    sense: u8,
    both: u8,
    event: u8,
    enable: u8,
    edges: u8,
    function: u8,
}

impl Pl061 {
    /// The board drives these levels.
    pub fn drive(&mut self, levels: u8) {
        self.board = levels;
        self.update();
    }

    fn update(&mut self) {
        let before = self.data;
        self.data = (self.data & self.direction) | (self.board & !self.direction);
        let changed = (before ^ self.data) & !self.direction & !self.sense;
        self.edges |= changed & (self.both | !(self.data ^ self.event));
    }

    fn raw(&self) -> u8 {
        self.edges | (!(self.data ^ self.event) & self.sense)
    }

    /// Whether the interrupt line is asserted.
    pub fn line(&self) -> bool {
        self.raw() & self.enable != 0
    }

    /// What it drives: levels of outputs.
    pub fn driven(&self) -> u8 {
        self.data & self.direction
    }
}

impl Hardware for Pl061 {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        self.now = self.now + Duration::from_nanos(100);
        if window != 0 || width > Width::Word || !offset.is_multiple_of(width.bytes()) {
            return width.mask();
        }
        u64::from(match offset {
            0..0x400 if offset.is_multiple_of(4) => self.data & (offset >> 2) as u8,
            0x400 => self.direction,
            0x404 => self.sense,
            0x408 => self.both,
            0x40c => self.event,
            0x410 => self.enable,
            0x414 => self.raw(),
            0x418 => self.raw() & self.enable,
            0x420 => self.function,
            0xfe0 => 0x61,
            0xfe4 => 0x10,
            0xfe8 => 0x04,
            0xff0 => 0x0d,
            0xff4 => 0xf0,
            0xff8 => 0x05,
            0xffc => 0xb1,
            _ => 0,
        })
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.now = self.now + Duration::from_nanos(100);
        if window != 0 || width > Width::Word || !offset.is_multiple_of(width.bytes()) {
            return;
        }
        let value = value as u8;
        match offset {
            0..0x400 if offset.is_multiple_of(4) => {
                let bits = (offset >> 2) as u8 & self.direction;
                self.data = (self.data & !bits) | (value & bits);
            }
            0x400 => self.direction = value,
            0x404 => self.sense = value,
            0x408 => self.both = value,
            0x40c => self.event = value,
            0x410 => self.enable = value,
            0x41c => self.edges &= !value,
            0x420 => self.function = value,
            _ => {}
        }
        // Levels are no edges when they become sensitive to these.
        self.edges &= !self.sense;
        self.update();
    }

    fn now(&self) -> Instant {
        self.now
    }
}
