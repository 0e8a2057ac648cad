//! The register map of QEMU's `edu` device (QEMU, docs/specs/edu.rst).
//!
//! The workload is that device's stock driver in spirit: it knows nothing of Baton. Two properties of
//! the device shape everything else: its 4 KiB buffer is reached by its own DMA alone, and the device
//! range of a transfer isn't checked in earnest (an error there ends QEMU), so [`DeviceRange`] can only
//! be built inside the buffer.

/// PCI vendor of the device.
pub const VENDOR: u16 = 0x1234;
/// PCI device id.
pub const DEVICE: u16 = 0x11e8;
/// Length of BAR 0 in bytes.
pub const BAR_LEN: usize = 1 << 20;

/// Identification, read-only: [`ID_VALUE`].
pub const ID: usize = 0x00;
/// Liveness check: reads the inverse of what was written.
pub const LIVENESS: usize = 0x04;
/// Factorial: write n to start, read the result (modulo 2³²).
pub const FACTORIAL: usize = 0x08;
/// Status: [`STATUS_COMPUTING`], [`STATUS_INTERRUPT`].
pub const STATUS: usize = 0x20;
/// Interrupt status, read-only.
pub const INTERRUPT_STATUS: usize = 0x24;
/// Raises the interrupts whose bits are written.
pub const INTERRUPT_RAISE: usize = 0x60;
/// Clears the interrupts whose bits are written.
pub const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
/// DMA source address (4 or 8 bytes wide).
pub const DMA_SOURCE: usize = 0x80;
/// DMA destination address (4 or 8 bytes wide).
pub const DMA_DESTINATION: usize = 0x88;
/// DMA byte count (4 or 8 bytes wide).
pub const DMA_COUNT: usize = 0x90;
/// DMA command: [`DMA_START`], [`DMA_FROM_DEVICE`], [`DMA_INTERRUPT`].
pub const DMA_COMMAND: usize = 0x98;

/// What [`ID`] reads.
pub const ID_VALUE: u32 = 0x0100_00ed;
/// A factorial is being computed (read-only).
pub const STATUS_COMPUTING: u32 = 0x01;
/// Raise an interrupt when a factorial is done.
pub const STATUS_INTERRUPT: u32 = 0x80;
/// Interrupt status bit of the factorial, set by the device itself.
pub const INTERRUPT_FACTORIAL: u32 = 0x001;
/// Interrupt status bit of a finished transfer, set by the device itself.
pub const INTERRUPT_DMA: u32 = 0x100;
/// Starts a transfer; reads as 1 until it is done.
pub const DMA_START: u32 = 0x1;
/// Direction: from the device's buffer to memory.
pub const DMA_FROM_DEVICE: u32 = 0x2;
/// Raise an interrupt when the transfer is done.
pub const DMA_INTERRUPT: u32 = 0x4;

/// Device address of the buffer.
pub const BUFFER_BASE: u64 = 0x4_0000;
/// Length of the buffer in bytes.
pub const BUFFER_LEN: usize = 4096;

/// n! modulo 2³², as the device computes it (0 from n = 34 on).
pub fn factorial(n: u32) -> u32 {
    (1..=n).fold(1u32, |product, factor| product.wrapping_mul(factor))
}

/// A part of the device's buffer that lies inside it, by construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRange {
    offset: usize,
    len: usize,
}

impl DeviceRange {
    /// The whole buffer.
    pub const FULL: Self = Self {
        offset: 0,
        len: BUFFER_LEN,
    };

    /// `len` bytes (at least 1) at `offset` within the buffer; `None` if any of it would lie outside.
    pub fn new(offset: usize, len: usize) -> Option<Self> {
        let end = offset.checked_add(len)?;
        (len > 0 && end <= BUFFER_LEN).then_some(Self { offset, len })
    }

    /// Byte offset within the buffer.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// Never: a range has at least one byte.
    pub fn is_empty(self) -> bool {
        false
    }

    /// One past the last byte, as an offset within the buffer.
    pub fn end(self) -> usize {
        self.offset + self.len
    }

    /// The address the device calls it by.
    pub fn address(self) -> u64 {
        BUFFER_BASE + self.offset as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factorials_modulo_2_to_the_32() {
        assert_eq!(factorial(0), 1);
        assert_eq!(factorial(12), 479_001_600);
        assert_eq!(factorial(13), 1_932_053_504);
        assert_eq!(factorial(33), 0x8000_0000);
        assert_eq!(factorial(34), 0);
        assert_eq!(factorial(60), 0);
    }

    #[test]
    fn ranges_never_leave_the_buffer() {
        assert_eq!(DeviceRange::new(0, BUFFER_LEN), Some(DeviceRange::FULL));
        assert_eq!(DeviceRange::new(1, BUFFER_LEN), None);
        assert_eq!(DeviceRange::new(BUFFER_LEN, 1), None);
        assert_eq!(DeviceRange::new(10, 0), None);
        assert_eq!(DeviceRange::new(usize::MAX, 2), None);
        let last = DeviceRange::new(BUFFER_LEN - 1, 1).unwrap();
        assert_eq!(last.address(), 0x4_0fff);
    }
}
