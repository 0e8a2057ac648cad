//! A set of vCPUs, small enough to travel in a register.
//!
//! Every operation on the virtual GIC answers *whom it concerns*, and leaves to the caller how
//! they are told: a vCPU that runs on another CPU needs an IPI so that it exits and syncs its
//! list registers, a blocked one is woken, the calling one syncs anyway before it goes on.

use super::bank::Bits;
use core::ops::{BitOr, BitOrAssign};

/// vCPUs of one domain that must be kicked (if they run) or woken (if they are blocked).
#[must_use = "vCPUs that aren't kicked miss their interrupts"]
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Kicks(u32);

impl Kicks {
    /// Nobody.
    pub const NONE: Self = Self(0);

    /// One vCPU; nobody if the number is 32 or more.
    pub const fn one(vcpu: usize) -> Self {
        if vcpu < 32 {
            Self(1u32.wrapping_shl(vcpu as u32))
        } else {
            Self(0)
        }
    }

    /// The set as a mask: bit n = vCPU n.
    pub const fn mask(self) -> u32 {
        self.0
    }

    /// Whether it is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this vCPU is in it.
    pub const fn contains(self, vcpu: usize) -> bool {
        self.0 & Self::one(vcpu).0 != 0
    }

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The set without this vCPU, typically the caller's own.
    pub const fn without(self, vcpu: usize) -> Self {
        Self(self.0 & !Self::one(vcpu).0)
    }

    /// The vCPUs, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        Bits(self.0).map(|bit| bit as usize)
    }
}

impl BitOr for Kicks {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        self.union(other)
    }
}

impl BitOrAssign for Kicks {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.union(other);
    }
}
