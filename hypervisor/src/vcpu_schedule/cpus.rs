//! Sets of CPUs.

use core::ops::{BitAnd, BitOr, BitOrAssign};

pub use crate::config::pools::MAX_CPUS;

/// A set of CPUs by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct CpuSet(u8);

impl CpuSet {
    /// None.
    pub const NONE: Self = Self(0);
    /// All there could be.
    pub const ALL: Self = Self(u8::MAX);

    /// This one; none if there is no such CPU.
    pub const fn only(cpu: usize) -> Self {
        if cpu < MAX_CPUS {
            Self(1_u8.wrapping_shl(cpu as u32))
        } else {
            Self::NONE
        }
    }

    /// Whether it is in.
    pub const fn contains(self, cpu: usize) -> bool {
        self.0 & Self::only(cpu).0 != 0
    }

    /// Whether nobody is in.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    /// Those that aren't in the other set.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// In ascending order.
    pub fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        core::iter::from_fn(move || {
            let cpu = left.trailing_zeros() as usize;
            left &= left.wrapping_sub(1);
            (cpu < MAX_CPUS).then_some(cpu)
        })
    }
}

impl FromIterator<usize> for CpuSet {
    fn from_iter<I: IntoIterator<Item = usize>>(cpus: I) -> Self {
        cpus.into_iter()
            .fold(Self::NONE, |set, cpu| set | Self::only(cpu))
    }
}

impl BitOr for CpuSet {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for CpuSet {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for CpuSet {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}
