//! A function's MSI capability: one vector, 64-bit address, per-vector mask.
//!
//! The same whatever the physical function's looks like, which stays off: a virtual message is made of the physical INTx.
//!
//! Source: PCI Local Bus Specification 3.0, 6.8.1.

/// Where it stands in configuration space.
pub const OFFSET: u16 = 0x40;
/// Its ID.
pub const ID: u8 = 0x05;
/// Offset behind its last register.
pub(super) const END: u16 = OFFSET + 0x18;

/// Bits of the register with Message Control in its upper half.
pub(super) const ENABLE: u32 = 1 << 16;
/// 64 bit address capable, per-vector masking capable; no Multiple Message Capable: one vector.
const CAPABLE: u32 = (1 << 7 | 1 << 8) << 16;
const MASKED: u32 = 1;

/// A message: a write of 16 bits, extended by zeroes to 32.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where to.
    pub address: u64,
    /// What.
    pub data: u16,
}

/// What a domain wrote to it.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Msi {
    enabled: bool,
    masked: bool,
    low: u32,
    high: u32,
    data: u16,
}

impl Msi {
    /// MSI Enable: messages in place of INTx.
    pub const fn enabled(&self) -> bool {
        self.enabled
    }

    /// The vector's mask bit.
    pub const fn masked(&self) -> bool {
        self.masked
    }

    /// What is sent.
    pub const fn message(&self) -> Message {
        Message {
            address: self.low as u64 | (self.high as u64) << 32,
            data: self.data,
        }
    }

    /// Whether the register at `offset` belongs to it.
    pub(super) const fn holds(offset: u16) -> bool {
        offset >= OFFSET && offset < END
    }

    /// The 32-bit register at `offset`; `pending` is asked for by the one with the pending bit.
    pub(super) fn read(&self, offset: u16, pending: impl FnOnce() -> bool) -> u32 {
        match offset.wrapping_sub(OFFSET) {
            0x00 => u32::from(ID) | CAPABLE | if self.enabled { ENABLE } else { 0 },
            0x04 => self.low,
            0x08 => self.high,
            0x0c => u32::from(self.data),
            0x10 => u32::from(self.masked),
            0x14 => u32::from(self.masked && pending()),
            _ => 0,
        }
    }

    /// Writes the bits of `value` that `enable` selects. Multiple Message Enable is cut to what the function is capable of:
    /// one vector, so all of the data is the domain's.
    pub(super) fn write(&mut self, offset: u16, value: u32, enable: u32) {
        let merge = |old: u32| (old & !enable) | (value & enable);
        match offset.wrapping_sub(OFFSET) {
            0x00 => self.enabled = merge(if self.enabled { ENABLE } else { 0 }) & ENABLE != 0,
            0x04 => self.low = merge(self.low) & !3,
            0x08 => self.high = merge(self.high),
            0x0c => self.data = merge(u32::from(self.data)) as u16,
            0x10 => self.masked = merge(u32::from(self.masked)) & MASKED != 0,
            _ => {}
        }
    }
}
