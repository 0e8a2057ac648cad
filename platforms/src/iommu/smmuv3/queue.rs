//! The two circular queues (IHI 0070, 3.5): commands out, events in.
//!
//! An index has one bit more than the queue's size has, the *wrap* bit, so that full and empty differ. The
//! command queue here holds one *batch* at a time: commands and a CMD_SYNC behind them. The next batch starts
//! only when the SMMU consumed this one, so the queue can't be overrun, and "all that was queued is complete" is the
//! same as "the queue is empty". More commands than fit go into the next batch.

use super::bus::SmmuBus;
use super::registers::{CMDQ_CONS, CMDQ_PROD, Command, EVENTQ_CONS, EVENTQ_PROD, Event, OVERFLOW};
use coproc_core::address::HostPhysical;

pub(super) const COMMAND_BYTES: u64 = 16;
pub(super) const EVENT_BYTES: u64 = 32;

/// Where a queue lies and how far it is used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ring {
    base: HostPhysical,
    bits: u8,
    entry: u64,
}

impl Ring {
    pub(super) const fn new(base: HostPhysical, bits: u8, entry: u64) -> Self {
        Self { base, bits, entry }
    }

    /// The base register's value, without hints: address and log2 of the number of entries.
    pub(super) const fn base_register(&self) -> u64 {
        self.base.get() | self.bits as u64
    }

    const fn entries(&self) -> u32 {
        1u32.wrapping_shl(self.bits as u32)
    }

    /// Index and wrap bit.
    const fn mask(&self) -> u32 {
        self.entries().wrapping_mul(2).wrapping_sub(1)
    }

    const fn next(&self, index: u32) -> u32 {
        index.wrapping_add(1) & self.mask()
    }

    const fn at(&self, index: u32) -> HostPhysical {
        let position = index & self.entries().wrapping_sub(1);
        self.base
            .wrapping_add((position as u64).wrapping_mul(self.entry))
    }
}

/// The command queue.
#[derive(Debug)]
pub(super) struct Commands {
    ring: Ring,
    /// Where the next command goes; what the SMMU was told.
    produced: u32,
    /// Commands written since, of the batch that is being put together.
    batch: u32,
}

impl Commands {
    pub(super) const fn new(ring: Ring) -> Self {
        Self {
            ring,
            produced: 0,
            batch: 0,
        }
    }

    pub(super) const fn base_register(&self) -> u64 {
        self.ring.base_register()
    }

    /// Whether the SMMU consumed everything, so that a batch may start.
    pub(super) fn empty<B: SmmuBus>(&self, bus: &mut B) -> bool {
        bus.read32(CMDQ_CONS) & self.ring.mask() == self.produced
    }

    /// Adds a command to the batch; false if only the CMD_SYNC still fits.
    pub(super) fn push<B: SmmuBus>(&mut self, bus: &mut B, command: Command) -> bool {
        if self.batch.wrapping_add(1) >= self.ring.entries() {
            return false;
        }
        let index = self.produced.wrapping_add(self.batch) & self.ring.mask();
        self.write(bus, index, command);
        self.batch = self.batch.wrapping_add(1);
        true
    }

    /// Ends the batch with a CMD_SYNC and hands it over. Nothing if it has no commands.
    pub(super) fn submit<B: SmmuBus>(&mut self, bus: &mut B, coherent: bool) -> bool {
        if self.batch == 0 {
            return false;
        }
        let sync = self.produced.wrapping_add(self.batch) & self.ring.mask();
        self.write(bus, sync, Command::SYNC);
        let mut index = self.produced;
        let end = self.ring.next(sync);
        while index != end {
            bus.publish(self.ring.at(index), COMMAND_BYTES, coherent);
            index = self.ring.next(index);
        }
        self.produced = end;
        self.batch = 0;
        bus.write32(CMDQ_PROD, end);
        true
    }

    /// Puts a CMD_SYNC in place of the command that the SMMU stopped at, and returns the reason code (IHI 0070, 7.1).
    pub(super) fn replace_bad<B: SmmuBus>(&mut self, bus: &mut B, coherent: bool) -> u32 {
        let consumed = bus.read32(CMDQ_CONS);
        let index = consumed & self.ring.mask();
        self.write(bus, index, Command::SYNC);
        bus.publish(self.ring.at(index), COMMAND_BYTES, coherent);
        consumed >> 24 & 0x7f
    }

    fn write<B: SmmuBus>(&self, bus: &mut B, index: u32, command: Command) {
        let at = self.ring.at(index);
        let [low, high] = command.0;
        bus.write_memory(at, low);
        bus.write_memory(at.wrapping_add(8), high);
    }
}

/// What reading the event queue found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Collected {
    /// Records were lost since the last time.
    pub(super) overflow: bool,
    /// Records are left.
    pub(super) more: bool,
}

/// The event queue.
#[derive(Debug)]
pub(super) struct Events {
    ring: Ring,
    /// What the SMMU was told last: index, wrap bit, overflow acknowledged.
    consumed: u32,
}

impl Events {
    pub(super) const fn new(ring: Ring) -> Self {
        Self { ring, consumed: 0 }
    }

    pub(super) const fn base_register(&self) -> u64 {
        self.ring.base_register()
    }

    /// Reads up to `limit` records, gives the room back and acknowledges an overflow.
    pub(super) fn collect<B: SmmuBus>(
        &mut self,
        bus: &mut B,
        coherent: bool,
        limit: u32,
        mut each: impl FnMut(Event),
    ) -> Collected {
        let mask = self.ring.mask();
        let register = bus.read32(EVENTQ_PROD);
        let produced = register & mask;
        let overflow = (register ^ self.consumed) & OVERFLOW != 0;
        let mut index = self.consumed & mask;
        let mut count = 0u32;
        while index != produced && count < limit {
            let at = self.ring.at(index);
            bus.observe(at, EVENT_BYTES, coherent);
            each(Event::decode([
                bus.read_memory(at),
                bus.read_memory(at.wrapping_add(8)),
                bus.read_memory(at.wrapping_add(16)),
            ]));
            index = self.ring.next(index);
            count = count.wrapping_add(1);
        }
        let told = index | register & OVERFLOW;
        if told != self.consumed {
            self.consumed = told;
            bus.write32(EVENTQ_CONS, told);
        }
        Collected {
            overflow,
            more: index != produced,
        }
    }
}
