//! What a PCI function is, apart from its state: the part that a virtual function copies from a
//! physical one.

use super::vendor_specific::VendorSpecific;

/// Number of base address registers in a type 0 header.
pub const BARS: usize = 6;

/// A memory BAR. I/O BARs are never shown to a domain: Arm has no I/O instructions, and every
/// function made since PCI Express must work without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Size in bytes, a power of two of at least 16.
    pub size: u64,
    /// Whether it is a 64-bit BAR, which takes the next register too.
    pub wide: bool,
    /// Whether reads have no side effects.
    pub prefetchable: bool,
}

/// The constant part of a type 0 function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FunctionDescription {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Class code, 24 bits: base class, sub-class, programming interface.
    pub class: u32,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
    /// The memory BARs, by index; the second half of a 64-bit one is `None`.
    pub bars: [Option<Bar>; BARS],
    /// Interrupt Pin: 0 none, 1 INTA# to 4 INTD#.
    pub interrupt_pin: u8,
    /// Whether it can send messages in place of that.
    pub msi: bool,
    /// What else its driver must know.
    pub vendor_specific: VendorSpecific,
}

/// Why a [`FunctionDescription`] can't be a PCI function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DescriptionError {
    /// A BAR's size is no power of two, below 16, or too large for its width.
    #[error("BAR {bar}: size {size:#x} is not possible for its width")]
    Size {
        /// Index of the BAR.
        bar: usize,
        /// Its size in bytes.
        size: u64,
    },
    /// A 64-bit BAR has no free register after it.
    #[error("BAR {bar}: 64 bits wide, but the next register is in use or missing")]
    Pair {
        /// Index of the BAR.
        bar: usize,
    },
    /// Interrupt Pin above 4.
    #[error("interrupt pin {pin} is reserved")]
    Pin {
        /// The value found.
        pin: u8,
    },
    /// The vendor ID means "no function here".
    #[error("vendor ID 0xffff means that there is no function")]
    Vendor,
}

impl FunctionDescription {
    /// The host bridge that fills slot 0: QEMU's generic PCIe host bridge, without BARs, that no
    /// driver binds to.
    pub const fn host_bridge() -> Self {
        Self {
            vendor: 0x1b36,
            device: 0x0008,
            class: 0x06_0000,
            revision: 0,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
            bars: [None; BARS],
            interrupt_pin: 0,
            msi: false,
            vendor_specific: VendorSpecific::none(),
        }
    }

    /// Checks what the emulation relies on.
    pub fn validate(&self) -> Result<(), DescriptionError> {
        if self.vendor == 0xffff {
            return Err(DescriptionError::Vendor);
        }
        if self.interrupt_pin > 4 {
            return Err(DescriptionError::Pin {
                pin: self.interrupt_pin,
            });
        }
        let mut pair = None;
        for (index, bar) in self.bars.iter().enumerate() {
            if let (Some(first), Some(_)) = (pair, bar) {
                return Err(DescriptionError::Pair { bar: first });
            }
            pair = None;
            let Some(bar) = bar else { continue };
            let largest = if bar.wide { 1 << 63 } else { 1 << 31 };
            if !bar.size.is_power_of_two() || bar.size < 16 || bar.size > largest {
                return Err(DescriptionError::Size {
                    bar: index,
                    size: bar.size,
                });
            }
            if bar.wide {
                pair = Some(index);
            }
        }
        match (pair, self.bars.last()) {
            (Some(bar), Some(Some(_))) => Err(DescriptionError::Pair { bar }),
            _ => Ok(()),
        }
    }
}
