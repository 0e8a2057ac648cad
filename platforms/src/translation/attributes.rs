//! The attribute bits of block and page descriptors (Arm ARM DDI 0487, D8.3.1 stage 1, D8.3.2 stage 2).
//!
//! The two stages put different fields into the same bits, so each has its own constructor; what comes out
//! is one opaque [`Attributes`], which is all that the builder carries. The Access flag is always set: Baton doesn't page, and a
//! walker without hardware update of it would fault.

/// Bits of a leaf descriptor that are not address and not type.
const MASK: u64 = 0xfff0_0000_0000_0ffc;

const ACCESS_FLAG: u64 = 1 << 10;
const EXECUTE_NEVER: u64 = 1 << 54;

/// The attribute bits of a leaf descriptor, as a walker reads them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Attributes(u64);

impl Attributes {
    /// The attribute bits of a descriptor.
    pub(super) const fn of(descriptor: u64) -> Self {
        Self(descriptor & MASK)
    }

    /// The bits, in their places in the descriptor.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether a stage 2 descriptor with these attributes allows writes.
    pub const fn stage2_writable(self) -> bool {
        self.0 & (1 << 7) != 0
    }
}

/// Shareability of normal memory (SH, bits 9:8). Devices are always outer shareable, whatever it says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shareability {
    /// Not shared.
    Non = 0b00,
    /// Shared beyond the inner domain.
    Outer = 0b10,
    /// Shared by all CPUs that run one operating system: what RAM is.
    Inner = 0b11,
}

/// Memory type at stage 2 (MemAttr, bits 5:2, without FEAT_S2FWB).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage2Memory {
    /// Device-nGnRE: what stage 1 asks for is strengthened to at least this.
    Device = 0b0001,
    /// Normal, non-cacheable.
    NonCacheable = 0b0101,
    /// Normal, write-back: stage 1 decides alone.
    WriteBack = 0b1111,
}

/// Access at stage 2 (S2AP, bits 7:6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage2Access {
    /// Reads only.
    ReadOnly = 0b01,
    /// Writes only.
    WriteOnly = 0b10,
    /// Reads and writes.
    ReadWrite = 0b11,
}

/// Attributes of a stage 2 leaf.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Attributes {
    /// Memory type.
    pub memory: Stage2Memory,
    /// Reads, writes.
    pub access: Stage2Access,
    /// Shareability.
    pub shareability: Shareability,
    /// Whether EL1 and EL0 may execute from it.
    pub execute: bool,
}

impl Stage2Attributes {
    /// RAM of a domain: write-back, inner shareable, everything allowed.
    pub const RAM: Self = Self {
        memory: Stage2Memory::WriteBack,
        access: Stage2Access::ReadWrite,
        shareability: Shareability::Inner,
        execute: true,
    };

    /// Memory reached by a master's DMA: as [`RAM`](Self::RAM), without execution.
    pub const DMA: Self = Self {
        execute: false,
        ..Self::RAM
    };

    /// Registers of a device passed to a domain.
    pub const DEVICE: Self = Self {
        memory: Stage2Memory::Device,
        access: Stage2Access::ReadWrite,
        shareability: Shareability::Non,
        execute: false,
    };

    /// The descriptor bits. XN is bit 54 alone, which means the same with and without FEAT_XNX.
    pub const fn encode(self) -> Attributes {
        let bits = (self.memory as u64) << 2
            | (self.access as u64) << 6
            | (self.shareability as u64) << 8
            | ACCESS_FLAG
            | if self.execute { 0 } else { EXECUTE_NEVER };
        Attributes(bits)
    }
}

/// Access at EL2's stage 1 (AP\[2\], bit 7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage1Access {
    /// Reads and writes.
    ReadWrite = 0,
    /// Reads only.
    ReadOnly = 1,
}

/// Attributes of a leaf of EL2's stage 1 (HCR_EL2.E2H = 0: one privilege level).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1Attributes {
    /// Index into MAIR_EL2, 0 to 7; higher bits are ignored.
    pub index: u8,
    /// Reads, writes.
    pub access: Stage1Access,
    /// Shareability.
    pub shareability: Shareability,
    /// Whether EL2 may execute from it. Never together with [`Stage1Access::ReadWrite`] (W^X): then it is not executable.
    pub execute: bool,
}

impl Stage1Attributes {
    /// The descriptor bits. AP\[1\] is RES1 in a regime with one privilege level.
    pub const fn encode(self) -> Attributes {
        let executable = self.execute && matches!(self.access, Stage1Access::ReadOnly);
        let bits = ((self.index & 7) as u64) << 2
            | 1 << 6
            | (self.access as u64) << 7
            | (self.shareability as u64) << 8
            | ACCESS_FLAG
            | if executable { 0 } else { EXECUTE_NEVER };
        Attributes(bits)
    }
}
