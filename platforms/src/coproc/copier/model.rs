//! A software model of the copier, for host tests. It is the device's manual as a program, written without a look at the driver.
#![allow(
    clippy::arithmetic_side_effects,
    reason = "test code, never in the hypervisor; a model's time doesn't overflow"
)]

use alloc::collections::BTreeMap;
use alloc::vec;

use coproc_core::driver::Hardware;
use coproc_core::register::Width;
use coproc_core::time::{Duration, Instant};

/// Where the device's transactions go: physical memory, unconfined.
pub trait Bus {
    /// Reads; `walk`: a table, else what is copied. `false`: there is no memory.
    fn read(&mut self, at: u64, into: &mut [u8], walk: bool) -> bool;
    /// Writes. `false`: there is no memory.
    fn write(&mut self, at: u64, bytes: &[u8]) -> bool;
}

const PAGE: u64 = 4096;
/// Device addresses end here.
const END: u64 = 16 * 64 * PAGE;

/// A copy under way.
#[derive(Clone, Copy, Debug)]
struct Work {
    source: u64,
    destination: u64,
    left: u64,
    /// When the next piece is copied.
    next: Instant,
}

/// The device. Time moves by [`Copier::advance`] and by each access, 100 ns. A copy takes 1 µs for each piece within a page.
#[derive(Debug)]
pub struct Copier<B> {
    /// Whether a stop or a reset has an effect.
    pub obeys: bool,
    /// A copy under way never ends.
    pub stuck: bool,
    /// What it reaches.
    pub bus: B,
    now: Instant,
    work: Option<Work>,
    source: u32,
    destination: u32,
    length: u32,
    interrupt: u32,
    enable: u32,
    /// As written, and as taken over at the flush.
    table: u64,
    used: u64,
    fault: u32,
    fault_address: u32,
    /// Page of the device's: where it is, and whether it may be written.
    tlb: BTreeMap<u64, (u64, bool)>,
}

impl<B: Bus> Copier<B> {
    /// After power-on: in bypass.
    pub const fn new(bus: B) -> Self {
        Self {
            obeys: true,
            stuck: false,
            bus,
            now: Instant::from_nanos(0),
            work: None,
            source: 0,
            destination: 0,
            length: 0,
            interrupt: 0,
            enable: 0,
            table: 0,
            used: 0,
            fault: 0,
            fault_address: 0,
            tlb: BTreeMap::new(),
        }
    }

    /// What it is connected to.
    pub const fn bus(&mut self) -> &mut B {
        &mut self.bus
    }

    /// Whether the interrupt line is asserted.
    pub const fn line(&self) -> bool {
        self.interrupt & self.enable != 0
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.now = self.now + by;
        while !self.stuck
            && let Some(mut work) = self.work.filter(|work| work.next <= self.now)
        {
            let go_on = self.piece(&mut work);
            if go_on && work.left > 0 {
                work.next = work.next + Duration::from_micros(1);
                self.work = Some(work);
            } else {
                self.work = None;
                self.interrupt |= 1;
            }
        }
    }

    /// Copies up to the next page boundary of either side; whether there was no fault.
    fn piece(&mut self, work: &mut Work) -> bool {
        let room = |at: u64| PAGE - at % PAGE;
        let size = work.left.min(room(work.source)).min(room(work.destination));
        let mut data = vec![0; size as usize];
        let from = match self.translate(work.source, false) {
            Ok(from) => from,
            Err(why) => return self.fail(work.source, why),
        };
        if !self.bus.read(from, &mut data, false) {
            return self.fail(work.source, 1);
        }
        let to = match self.translate(work.destination, true) {
            Ok(to) => to,
            Err(why) => return self.fail(work.destination, why),
        };
        if !self.bus.write(to, &data) {
            return self.fail(work.destination, 1);
        }
        work.source += size;
        work.destination += size;
        work.left -= size;
        true
    }

    fn fail(&mut self, at: u64, why: u32) -> bool {
        self.fault |= why;
        self.fault_address = at as u32;
        false
    }

    fn translate(&mut self, at: u64, write: bool) -> Result<u64, u32> {
        if self.used & 1 == 0 {
            return Ok(at);
        }
        if at >= END {
            return Err(1);
        }
        let page = at / PAGE;
        let (base, writable) = match self.tlb.get(&page) {
            Some(known) => *known,
            None => {
                let found = self.walk(page).ok_or(1_u32)?;
                self.tlb.insert(page, found);
                found
            }
        };
        if write && !writable {
            return Err(2);
        }
        Ok(base + at % PAGE)
    }

    fn entry(&mut self, table: u64, index: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        let read = self.bus.read(table + index * 8, &mut bytes, true);
        let entry = u64::from_le_bytes(bytes);
        (read && entry & 1 != 0).then_some(entry)
    }

    fn walk(&mut self, page: u64) -> Option<(u64, bool)> {
        let pages = 0xffff_ffff_f000;
        let root = self.entry(self.used & pages, page / 64)?;
        if root & 4 != 0 {
            return Some(((root & pages) + page % 64 * PAGE, root & 2 != 0));
        }
        let leaf = self.entry(root & 0xffff_ffff_fe00, page % 64)?;
        Some((leaf & pages, leaf & 2 != 0))
    }
}

impl<B: Bus> Hardware for Copier<B> {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        self.advance(Duration::from_nanos(100));
        match (window, offset, width) {
            (0, 0x00, Width::Word) => 0xc0b1_0001,
            (0, 0x04, Width::Word) => self.work.is_some().into(),
            (0, 0x08, Width::Word) => self.source.into(),
            (0, 0x0c, Width::Word) => self.destination.into(),
            (0, 0x10, Width::Word) => self.length.into(),
            (0, 0x18, Width::Word) => self.interrupt.into(),
            (0, 0x20, Width::Word) => self.enable.into(),
            (1, 0x00, Width::Double) => self.table,
            (1, 0x0c, Width::Word) => self.fault.into(),
            (1, 0x10, Width::Word) => self.fault_address.into(),
            _ => 0,
        }
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        self.advance(Duration::from_nanos(100));
        let idle = self.work.is_none();
        match (window, offset, width) {
            (0, 0x08, Width::Word) if idle => self.source = value as u32,
            (0, 0x0c, Width::Word) if idle => self.destination = value as u32,
            (0, 0x10, Width::Word) if idle => self.length = value as u32,
            (0, 0x14, Width::Word) if idle => {
                self.work = Some(Work {
                    source: self.source.into(),
                    destination: self.destination.into(),
                    left: self.length.into(),
                    next: self.now + Duration::from_micros(1),
                });
            }
            (0, 0x18, Width::Word) => self.interrupt &= !(value as u32),
            (0, 0x1c, Width::Word) => self.interrupt |= value as u32,
            (0, 0x20, Width::Word) => self.enable = value as u32,
            (1, 0x00, Width::Double) if idle => self.table = value & 0xffff_ffff_f001,
            (1, 0x08, Width::Word) if idle => {
                self.used = self.table;
                self.tlb.clear();
            }
            (1, 0x0c, Width::Word) => self.fault &= !(value as u32),
            (1, 0x10, Width::Word) => self.fault_address = value as u32,
            (1, 0x14, Width::Word) if self.obeys => {
                if value & 3 != 0 {
                    self.work = None;
                }
                if value & 2 != 0 {
                    (self.source, self.destination, self.length) = (0, 0, 0);
                    (self.interrupt, self.enable) = (0, 0);
                    (self.table, self.used) = (0, 0);
                    (self.fault, self.fault_address) = (0, 0);
                    self.tlb.clear();
                }
            }
            _ => {}
        }
    }

    fn now(&self) -> Instant {
        self.now
    }
}
