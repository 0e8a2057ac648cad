//! Small numbers that are lent and come back, such as VMIDs.

use core::ops::Range;

/// A pool of numbers below 128.
#[derive(Clone, Debug)]
pub struct Numbers {
    from: u8,
    to: u8,
    taken: u128,
}

impl Numbers {
    /// All of these, none taken. What lies at 128 and above isn't in the pool.
    pub const fn new(range: Range<u8>) -> Self {
        Self {
            from: range.start,
            to: if range.end > 128 { 128 } else { range.end },
            taken: 0,
        }
    }

    /// The lowest free one.
    pub fn take(&mut self) -> Option<u8> {
        #[cfg(feature = "fault-injection")]
        if crate::injection::fails(crate::injection::Kind::Allocation) {
            return None;
        }
        let free = (self.from..self.to).find(|number| self.taken & bit(*number) == 0)?;
        self.taken |= bit(free);
        Some(free)
    }

    /// One comes back. Whoever gives it back makes sure first that nobody uses it.
    pub fn give_back(&mut self, number: u8) {
        self.taken &= !bit(number);
    }

    /// How many are lent.
    pub const fn lent(&self) -> u32 {
        self.taken.count_ones()
    }
}

const fn bit(number: u8) -> u128 {
    if number < 128 {
        1u128.wrapping_shl(number as u32)
    } else {
        0
    }
}
