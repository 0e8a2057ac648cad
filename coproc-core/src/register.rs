//! Register accesses as values.
//!
//! The same three types describe a guest's trapped access, an emulated device's answer and a
//! driver's access to the hardware, so one driver runs on real MMIO, on a model in a host test,
//! and later in another container.

/// Width of one access.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Half,
    /// 32 bits.
    Word,
    /// 64 bits.
    Double,
}

impl Width {
    /// Number of bytes: 1, 2, 4 or 8.
    #[inline]
    pub const fn bytes(self) -> u64 {
        1u64.wrapping_shl(self as u32)
    }

    /// A value with all the bits set that an access of this width carries.
    #[inline]
    pub const fn mask(self) -> u64 {
        let unused = 64u32.wrapping_sub(8u32.wrapping_shl(self as u32));
        u64::MAX.wrapping_shr(unused)
    }
}

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// A load.
    Read,
    /// A store of this value, already cut to the access width.
    Write(u64),
}

/// One access to a register window of a coprocessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// Index of the window (PCI: the BAR; device tree: the entry of `reg`).
    pub window: usize,
    /// Offset in bytes from the window's start; within the window.
    pub offset: u64,
    /// Width of the access.
    pub width: Width,
    /// Load or store.
    pub operation: Operation,
}
