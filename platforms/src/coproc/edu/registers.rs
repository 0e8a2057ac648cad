//! The register map of QEMU's `edu` device, and the rules that stand in no register.
//!
//! Source: QEMU's docs/specs/edu.rst and the behaviour of its hw/misc/edu.c. Shared by the driver and by the model, so that a
//! number can't differ between them; the *behaviour* is written twice, once in each, so that one tests the other.

use coproc_core::register::Width;

/// PCI vendor id.
pub const VENDOR: u16 = 0x1234;
/// PCI device id.
pub const DEVICE: u16 = 0x11e8;

/// Size of BAR 0 in bytes.
pub const WINDOW_SIZE: u64 = 0x10_0000;

/// Identification (read-only).
pub const ID: u64 = 0x00;
/// What [`ID`] reads: version 1.0 and the letters "ed" as a number.
pub const ID_VALUE: u64 = 0x0100_00ed;
/// Liveness: reads as the inverse of what was written.
pub const LIVENESS: u64 = 0x04;
/// Factorial: a write of n starts the computation of n! modulo 2³².
pub const FACTORIAL: u64 = 0x08;
/// Status.
pub const STATUS: u64 = 0x20;
/// [`STATUS`]: a factorial is being computed (read-only).
pub const STATUS_COMPUTING: u64 = 1 << 0;
/// [`STATUS`]: raise [`INTERRUPT_FACTORIAL`] when a computation ends.
pub const STATUS_IRQFACT: u64 = 1 << 7;
/// Interrupt status (read-only): the line is asserted while it isn't 0.
pub const INTERRUPT_STATUS: u64 = 0x24;
/// [`INTERRUPT_STATUS`]: a factorial is ready.
pub const INTERRUPT_FACTORIAL: u64 = 0x001;
/// [`INTERRUPT_STATUS`]: a DMA has ended.
pub const INTERRUPT_DMA: u64 = 0x100;
/// Interrupt raise (write-only): sets bits of the interrupt status.
pub const RAISE: u64 = 0x60;
/// Interrupt acknowledge (write-only): clears bits of the interrupt status.
pub const ACKNOWLEDGE: u64 = 0x64;
/// DMA source address.
pub const DMA_SOURCE: u64 = 0x80;
/// DMA destination address.
pub const DMA_DESTINATION: u64 = 0x88;
/// DMA count in bytes.
pub const DMA_COUNT: u64 = 0x90;
/// DMA command: a write with [`DMA_RUN`] starts, one without is ignored.
pub const DMA_COMMAND: u64 = 0x98;
/// [`DMA_COMMAND`]: started; reads as set until the transfer is over.
pub const DMA_RUN: u64 = 1 << 0;
/// [`DMA_COMMAND`]: from the buffer to memory; without it from memory to the buffer.
pub const DMA_TO_MEMORY: u64 = 1 << 1;
/// [`DMA_COMMAND`]: raise [`INTERRUPT_DMA`] at the end.
pub const DMA_INTERRUPT: u64 = 1 << 2;

/// Registers from here on take 4 and 8 bytes, those below 4 only.
pub const FIRST_WIDE: u64 = 0x80;

/// Where the device's own DMA sees its buffer.
pub const BUFFER: u64 = 0x4_0000;
/// Size of the buffer in bytes.
pub const BUFFER_SIZE: u64 = 4096;

/// How the device takes an access, by its shape alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// The bus answers with an error: narrower than 4 bytes, not aligned, or outside the window.
    BusError,
    /// Taken, but of a width that the registers there don't have: reads all-ones, writes nothing.
    Ignored,
    /// Taken.
    Served,
}

/// Says how the device takes an access.
pub fn shape(offset: u64, width: Width) -> Shape {
    let bytes = width.bytes();
    let inside = offset
        .checked_add(bytes)
        .is_some_and(|end| end <= WINDOW_SIZE);
    if bytes < 4 || offset & bytes.wrapping_sub(1) != 0 || !inside {
        Shape::BusError
    } else if offset < FIRST_WIDE && bytes != 4 {
        Shape::Ignored
    } else {
        Shape::Served
    }
}

/// Whether the device's side of a transfer lies in the buffer.
///
/// QEMU either stops with an error on one that doesn't, or (since 8.0) logs it and then copies past
/// its buffer all the same, so no such command may ever reach the device. The memory side isn't judged here: that
/// is the IOMMU's work. Both directions are judged by the direction bit that *this* command carries: the buffer's address in the wrong one of
/// the two registers is the same error.
pub fn dma_in_range(command: u64, source: u64, destination: u64, count: u64) -> bool {
    let start = if command & DMA_TO_MEMORY != 0 {
        source
    } else {
        destination
    };
    let limit = BUFFER.wrapping_add(BUFFER_SIZE);
    start >= BUFFER && start.checked_add(count).is_some_and(|end| end <= limit)
}

/// n! modulo 2³² for n = 0 to 34. 34! has 32 factors of two, so it is 0, and so is each one after it.
pub const FACTORIALS: [u32; 35] = factorials();

#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler, which refuses both faults"
)]
const fn factorials() -> [u32; 35] {
    let mut table = [1_u32; 35];
    let mut n = 1;
    while n < table.len() {
        table[n] = table[n - 1].wrapping_mul(n as u32);
        n += 1;
    }
    table
}

/// An n whose factorial is `value`: what to compute so that the factorial register holds it again.
pub fn factorial_argument(value: u32) -> Option<u32> {
    FACTORIALS
        .iter()
        .position(|&factorial| factorial == value)
        .and_then(|n| u32::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_result_has_an_argument() {
        for n in 0..100_u32 {
            let value = (1..=n).fold(1_u32, u32::wrapping_mul);
            let found = factorial_argument(value).unwrap();
            assert_eq!((1..=found).fold(1_u32, u32::wrapping_mul), value, "{n}!");
        }
        assert_eq!(factorial_argument(0), Some(34), "the value after power-on");
        assert_eq!(factorial_argument(3), None);
    }

    #[test]
    fn only_the_buffer_is_in_range() {
        let to = DMA_RUN | DMA_TO_MEMORY;
        assert!(dma_in_range(to, BUFFER, 0, 4096));
        assert!(dma_in_range(DMA_RUN, 0, BUFFER + 4095, 1));
        assert!(
            !dma_in_range(to, 0, BUFFER, 16),
            "wrong direction crashes the device"
        );
        assert!(!dma_in_range(DMA_RUN, BUFFER, 0, 16));
        assert!(!dma_in_range(to, BUFFER + 1, 0, 4096));
        assert!(!dma_in_range(to, BUFFER - 1, 0, 1));
        assert!(!dma_in_range(to, BUFFER, 0, u64::MAX));
        assert!(!dma_in_range(to, u64::MAX, 0, 2));
    }
}
