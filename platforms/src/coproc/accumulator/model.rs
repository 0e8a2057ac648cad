//! A software model of the accumulator, for host tests. It is the device's manual as a program, written without a look at the driver.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "test code, never in the hypervisor; a model's time doesn't overflow"
)]

use coproc_core::driver::Hardware;
use coproc_core::register::Width;
use coproc_core::time::{Duration, Instant};

/// An addition under way.
#[derive(Clone, Copy, Debug)]
struct Work {
    begun: Instant,
    end: Instant,
    term: u32,
}

/// The device. Time moves by [`Accumulator::advance`] and by each access, 100 ns.
#[derive(Debug)]
pub struct Accumulator {
    /// Whether a stop has an effect.
    pub stops: bool,
    /// Whether a reset has an effect.
    pub resets: bool,
    now: Instant,
    work: Option<Work>,
    term: u32,
    rounds: u32,
    sum: u32,
    enable: u32,
    interrupt: u32,
}

impl Default for Accumulator {
    fn default() -> Self {
        Self {
            stops: true,
            resets: true,
            now: Instant::from_nanos(0),
            work: None,
            term: 0,
            rounds: 0,
            sum: 0,
            enable: 0,
            interrupt: 0,
        }
    }
}

impl Accumulator {
    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        if let Some(work) = self.work.filter(|work| work.end <= self.now) {
            self.add(work, work.end);
            self.work = None;
            self.interrupt |= 1;
        }
    }

    /// Whether the interrupt line is asserted.
    pub fn line(&self) -> bool {
        self.interrupt & self.enable != 0
    }

    fn add(&mut self, work: Work, until: Instant) {
        let rounds = until.since(work.begun).as_micros() as u32;
        self.sum = self.sum.wrapping_add(work.term.wrapping_mul(rounds));
    }
}

impl Hardware for Accumulator {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        self.advance(Duration::from_nanos(100));
        if window != 0 || width != Width::Word {
            return width.mask();
        }
        match offset {
            0x00 => 0xacc0_0001,
            0x04 => self.term.into(),
            0x08 => self.rounds.into(),
            0x10 => self.sum.into(),
            0x14 => self.work.is_some().into(),
            0x18 | 0x1c | 0x20 => self.enable.into(),
            0x24 => self.interrupt.into(),
            _ => 0,
        }
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.advance(Duration::from_nanos(100));
        if window != 0 || width != Width::Word {
            return;
        }
        let value = value as u32;
        let busy = self.work.is_some();
        match offset {
            0x04 if !busy => self.term = value,
            0x08 if !busy => self.rounds = value,
            0x0c if !busy => {
                self.work = Some(Work {
                    begun: self.now,
                    end: self.now + Duration::from_micros(self.rounds.into()),
                    term: self.term,
                });
            }
            0x10 => self.sum = value,
            0x1c => self.enable |= value,
            0x20 => self.enable &= !value,
            0x24 => self.interrupt &= !value,
            0x28 => self.interrupt |= value,
            0x2c => {
                if value & 1 != 0
                    && self.stops
                    && let Some(work) = self.work.take()
                {
                    self.add(work, self.now);
                }
                if value & 2 != 0 && self.resets {
                    *self = Self {
                        stops: self.stops,
                        resets: self.resets,
                        now: self.now,
                        ..Self::default()
                    };
                }
            }
            _ => {}
        }
    }

    fn now(&self) -> Instant {
        self.now
    }
}
