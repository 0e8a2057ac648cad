//! The configuration space of one virtual function: a type 0 header as registers of 32 bits.

use super::description::{BARS, Bar, DescriptionError, FunctionDescription};
use super::msi::{self, Message, Msi};

/// Byte offsets of the header's registers.
pub(super) mod offset {
    pub const ID: u16 = 0x00;
    pub const COMMAND: u16 = 0x04;
    pub const CLASS: u16 = 0x08;
    pub const MISC: u16 = 0x0c;
    pub const BAR0: u16 = 0x10;
    pub const BAR5: u16 = 0x24;
    pub const SUBSYSTEM: u16 = 0x2c;
    pub const CAPABILITIES: u16 = 0x34;
    pub const INTERRUPT: u16 = 0x3c;
}

/// Bits of the Command register.
pub(super) mod command {
    pub const IO_SPACE: u16 = 1 << 0;
    pub const MEMORY_SPACE: u16 = 1 << 1;
    pub const BUS_MASTER: u16 = 1 << 2;
    pub const INTERRUPT_DISABLE: u16 = 1 << 10;
    pub const WRITABLE: u16 = IO_SPACE | MEMORY_SPACE | BUS_MASTER | INTERRUPT_DISABLE;
}

/// Interrupt Status, bit 3 of Status.
pub(super) const STATUS_INTERRUPT: u16 = 1 << 3;
/// Capabilities List, bit 4 of Status.
pub(super) const STATUS_CAPABILITIES: u16 = 1 << 4;

/// Type bits of a memory BAR: 64 bits wide, prefetchable.
pub(super) const BAR_WIDE: u32 = 0b10 << 1;
pub(super) const BAR_PREFETCHABLE: u32 = 1 << 3;

/// A virtual type 0 function.
#[derive(Clone, Debug)]
pub struct VirtualFunction {
    description: FunctionDescription,
    command: u16,
    cache_line: u8,
    latency: u8,
    interrupt_line: u8,
    /// What the domain wrote, cut to the writable address bits; type bits are added on reading.
    bars: [u32; BARS],
    msi: Msi,
}

impl VirtualFunction {
    /// A function out of reset: nothing decodes, no bus master.
    pub fn new(description: FunctionDescription) -> Result<Self, DescriptionError> {
        description.validate()?;
        Ok(Self {
            description,
            command: 0,
            cache_line: 0,
            latency: 0,
            interrupt_line: 0,
            bars: [0; BARS],
            msi: Msi::default(),
        })
    }

    /// The constant part.
    pub const fn description(&self) -> &FunctionDescription {
        &self.description
    }

    /// Back to the state out of reset.
    pub fn reset(&mut self) {
        self.command = 0;
        self.cache_line = 0;
        self.latency = 0;
        self.interrupt_line = 0;
        self.bars = [0; BARS];
        self.msi = Msi::default();
    }

    /// Command.Interrupt Disable.
    pub const fn interrupt_disabled(&self) -> bool {
        self.command & command::INTERRUPT_DISABLE != 0
    }

    /// Command.Bus Master Enable.
    pub const fn bus_master(&self) -> bool {
        self.command & command::BUS_MASTER != 0
    }

    /// Its MSI capability; out of reset for ever if it has none.
    pub const fn msi(&self) -> &Msi {
        &self.msi
    }

    /// The message that an interrupt of it is, if one may be sent now: MSI is enabled and not masked, and the function may
    /// be bus master. Interrupt Disable is about INTx only.
    pub fn message(&self) -> Option<Message> {
        let may = self.msi.enabled() && !self.msi.masked() && self.bus_master();
        may.then(|| self.msi.message())
    }

    /// Command.Memory Space Enable.
    pub const fn memory_enabled(&self) -> bool {
        self.command & command::MEMORY_SPACE != 0
    }

    /// The address that BAR `bar` holds and its size, whether it decodes or not.
    pub fn programmed(&self, bar: usize) -> Option<(u64, u64)> {
        let Bar { size, wide, .. } = (*self.description.bars.get(bar)?)?;
        let low = u64::from(*self.bars.get(bar)?);
        let high = if wide {
            u64::from(*self.bars.get(bar.checked_add(1)?)?)
        } else {
            0
        };
        Some((low | high << 32, size))
    }

    /// The 32-bit register at `offset` (a multiple of 4). `pending` is asked whether an interrupt is only if the register
    /// tells.
    pub(super) fn read(&self, offset: u16, pending: impl FnOnce() -> bool) -> u32 {
        let description = &self.description;
        let halves = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        match offset {
            offset::ID => halves(description.vendor, description.device),
            offset::COMMAND => {
                // Of INTx alone (PCI Express Base Specification, 7.5.1.1.4).
                let intx = !self.msi.enabled() && pending();
                let status = if intx { STATUS_INTERRUPT } else { 0 };
                let list = if self.capabilities() == 0 {
                    0
                } else {
                    STATUS_CAPABILITIES
                };
                halves(self.command, status | list)
            }
            offset::CLASS => u32::from(description.revision) | description.class << 8,
            offset::MISC => u32::from(self.cache_line) | u32::from(self.latency) << 8,
            offset::BAR0..=offset::BAR5 => self.read_bar(bar_index(offset)),
            offset::SUBSYSTEM => halves(description.subsystem_vendor, description.subsystem),
            offset::CAPABILITIES => u32::from(self.capabilities()),
            offset::INTERRUPT => {
                u32::from(self.interrupt_line) | u32::from(description.interrupt_pin) << 8
            }
            _ if description.msi && Msi::holds(offset) => {
                let next = if offset == msi::OFFSET {
                    u32::from(self.after_msi()) << 8
                } else {
                    0
                };
                self.msi.read(offset, pending) | next
            }
            _ => description.vendor_specific.read(offset),
        }
    }

    /// Writes the bytes of `value` that `enable` selects (a mask) at `offset` (a multiple of 4).
    pub(super) fn write(&mut self, offset: u16, value: u32, enable: u32) {
        let merge = |old: u32| (old & !enable) | (value & enable);
        match offset {
            // Status, the upper half, has nothing writable: none of its errors can occur.
            offset::COMMAND => {
                self.command = merge(u32::from(self.command)) as u16 & command::WRITABLE;
            }
            offset::MISC => {
                let merged = merge(u32::from(self.cache_line) | u32::from(self.latency) << 8);
                self.cache_line = merged as u8;
                self.latency = (merged >> 8) as u8;
            }
            offset::BAR0..=offset::BAR5 => {
                let index = bar_index(offset);
                let mask = self.bar_mask(index);
                if let Some(bar) = self.bars.get_mut(index) {
                    *bar = merge(*bar) & mask;
                }
            }
            offset::INTERRUPT => {
                self.interrupt_line = merge(u32::from(self.interrupt_line)) as u8;
            }
            _ if self.description.msi && Msi::holds(offset) => {
                self.msi.write(offset, value, enable);
            }
            _ => {}
        }
    }

    /// Where the list of capabilities begins; 0 if there is none.
    fn capabilities(&self) -> u16 {
        if self.description.msi {
            msi::OFFSET
        } else {
            self.after_msi()
        }
    }

    /// Where it goes on behind MSI; 0 if that is all.
    fn after_msi(&self) -> u16 {
        self.description.vendor_specific.first().unwrap_or(0)
    }

    fn read_bar(&self, index: usize) -> u32 {
        let address = self.bars.get(index).copied().unwrap_or(0);
        let kind = match self.description.bars.get(index) {
            Some(Some(bar)) => {
                let wide = if bar.wide { BAR_WIDE } else { 0 };
                let prefetchable = if bar.prefetchable {
                    BAR_PREFETCHABLE
                } else {
                    0
                };
                wide | prefetchable
            }
            _ => 0,
        };
        address | kind
    }

    /// The writable bits of the register: those above the size.
    fn bar_mask(&self, index: usize) -> u32 {
        let bar = |index: usize| self.description.bars.get(index).copied().flatten();
        if let Some(bar) = bar(index) {
            return !bar.size.wrapping_sub(1) as u32;
        }
        match index.checked_sub(1).and_then(bar) {
            Some(bar) if bar.wide => (!bar.size.wrapping_sub(1) >> 32) as u32,
            _ => 0,
        }
    }
}

fn bar_index(offset: u16) -> usize {
    usize::from(offset.saturating_sub(offset::BAR0) >> 2)
}
