//! Addresses, a distinct type for each address space.
//!
//! A guest-physical address used as a host-physical one is a hole in the wall between domains;
//! the compiler refuses it.

use core::fmt;

/// Size of the smallest page and of a frame, in bytes.
pub const PAGE_SIZE: u64 = 4096;

macro_rules! address {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(u64);

        // An alignment is a power of two, never 0.
        #[allow(clippy::arithmetic_side_effects)]
        impl $name {
            /// The address with this numeric value.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The numeric value.
            pub const fn get(self) -> u64 {
                self.0
            }

            /// The address `bytes` further on, or `None` past the end of the address space.
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }

            /// The address `bytes` further on, wrapping: for values that were range-checked before.
            #[must_use]
            pub const fn wrapping_add(self, bytes: u64) -> Self {
                Self(self.0.wrapping_add(bytes))
            }

            /// Whether the address is a multiple of `alignment` (a power of two).
            pub const fn is_aligned(self, alignment: u64) -> bool {
                self.0 & (alignment - 1) == 0
            }

            /// The nearest multiple of `alignment` (a power of two) at or below the address.
            #[must_use]
            pub const fn align_down(self, alignment: u64) -> Self {
                Self(self.0 & !(alignment - 1))
            }

            /// The nearest multiple of `alignment` (a power of two) at or above the address.
            pub const fn align_up(self, alignment: u64) -> Option<Self> {
                match self.0.checked_add(alignment - 1) {
                    Some(value) => Some(Self(value & !(alignment - 1))),
                    None => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(
    /// A physical address of the machine.
    HostPhysical
);
address!(
    /// A physical address as a domain sees it (Arm: intermediate physical address).
    GuestPhysical
);
address!(
    /// An address as a coprocessor puts it on the bus, before its IOMMU.
    DeviceAddress
);
