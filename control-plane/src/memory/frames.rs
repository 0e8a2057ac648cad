//! The allocator of physical memory.
//!
//! Domains get few, large, contiguous pieces, which a sorted list of free ranges serves best: an allocation can
//! fail gracefully, alignment costs nothing, and freed neighbours melt together, so that 2 MiB and 1 GiB
//! blocks stay possible. Large pieces come from the top of the largest fitting range, single frames (tables) from the bottom
//! of the lowest one, so that frames don't cut the large ranges to pieces.

use alloc::vec::Vec;
use coproc_core::address::{HostPhysical, PAGE_SIZE};

const BLOCK: u64 = 0x20_0000;
const GIBIBYTE: u64 = 1 << 30;

/// A piece of physical memory; start and size are multiples of [`PAGE_SIZE`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// First byte.
    pub start: HostPhysical,
    /// Length in bytes.
    pub size: u64,
}

impl Piece {
    const fn end(&self) -> u64 {
        self.start.get().saturating_add(self.size)
    }
}

/// Why memory wasn't given or taken back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// No free range is large enough.
    #[error("{wanted:#x} bytes of contiguous memory wanted, largest free range is {largest:#x}")]
    Exhausted {
        /// Bytes asked for.
        wanted: u64,
        /// Bytes of the largest free range.
        largest: u64,
    },
    /// A size of 0, not a multiple of the page size, or an alignment that isn't a power of two.
    #[error("size {size:#x} or alignment {alignment:#x} is no multiple of a page")]
    Misaligned {
        /// Bytes asked for.
        size: u64,
        /// Alignment asked for.
        alignment: u64,
    },
    /// The piece is, in part, free already.
    #[error("{0} was freed twice")]
    FreedTwice(HostPhysical),
}

/// Free physical memory.
#[derive(Debug, Default)]
pub struct Frames {
    /// Sorted by start; no two adjacent or overlapping.
    free: Vec<Piece>,
}

impl Frames {
    /// No memory.
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// Adds RAM, shrunk to whole pages.
    ///
    /// # Errors
    /// [`FrameError::FreedTwice`] if a part of it is here already.
    pub fn add(&mut self, start: HostPhysical, size: u64) -> Result<(), FrameError> {
        let end = start.get().saturating_add(size) & !(PAGE_SIZE - 1);
        let Some(start) = start.align_up(PAGE_SIZE) else {
            return Ok(());
        };
        if end <= start.get() {
            return Ok(());
        }
        self.free(Piece {
            start,
            size: end.saturating_sub(start.get()),
        })
    }

    /// Takes a range out, whatever of it is here, grown to whole pages: memory that somebody else owns.
    pub fn reserve(&mut self, start: HostPhysical, size: u64) {
        let from = start.align_down(PAGE_SIZE).get();
        let to = start
            .get()
            .saturating_add(size)
            .div_ceil(PAGE_SIZE)
            .saturating_mul(PAGE_SIZE);
        let mut kept = Vec::with_capacity(self.free.len().saturating_add(1));
        for piece in self.free.drain(..) {
            let (start, end) = (piece.start.get(), piece.end());
            for (low, high) in [(start, end.min(from)), (start.max(to), end)] {
                if low < high {
                    kept.push(Piece {
                        start: HostPhysical::new(low),
                        size: high.saturating_sub(low),
                    });
                }
            }
        }
        kept.dedup();
        self.free = kept;
    }

    /// Allocates `size` bytes at a multiple of `alignment`.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`], [`FrameError::Misaligned`].
    pub fn allocate(&mut self, size: u64, alignment: u64) -> Result<Piece, FrameError> {
        if size == 0 || !size.is_multiple_of(PAGE_SIZE) || !alignment.is_power_of_two() {
            return Err(FrameError::Misaligned { size, alignment });
        }
        #[cfg(feature = "fault-injection")]
        if crate::injection::fails(crate::injection::Kind::Allocation) {
            let largest = self.largest();
            let wanted = size;
            return Err(FrameError::Exhausted { wanted, largest });
        }
        let low = |piece: &Piece| {
            let start = piece.start.align_up(alignment)?;
            (start.checked_add(size)?.get() <= piece.end()).then_some(start)
        };
        let high = |piece: &Piece| {
            let start = HostPhysical::new(piece.end().checked_sub(size)?).align_down(alignment);
            (start >= piece.start).then_some(start)
        };
        let small = size < 0x20_0000;
        let found = if small {
            self.free.iter().find_map(low)
        } else {
            self.free
                .iter()
                .filter(|piece| high(piece).is_some())
                .max_by_key(|piece| piece.size)
                .and_then(high)
        };
        let Some(start) = found else {
            return Err(FrameError::Exhausted {
                wanted: size,
                largest: self.largest(),
            });
        };
        self.reserve(start, size);
        Ok(Piece { start, size })
    }

    /// Allocates what a domain gets next of the `left` bytes that it lacks: all of it, in one piece and aligned as blocks want it, if there is
    /// such a piece, else the largest there is, in whole blocks of 2 MiB.
    ///
    /// # Errors
    /// [`FrameError::Exhausted`], [`FrameError::Misaligned`].
    pub fn allocate_blocks(&mut self, left: u64) -> Result<Piece, FrameError> {
        let alignment = if left >= GIBIBYTE { GIBIBYTE } else { BLOCK };
        let whole = self
            .allocate(left, alignment)
            .or_else(|_| self.allocate(left, BLOCK));
        whole.or_else(|error| match error {
            FrameError::Exhausted { largest, .. } if largest >= 2 * BLOCK && largest < left => {
                self.allocate(largest.saturating_sub(BLOCK) & !(BLOCK - 1), BLOCK)
            }
            error => Err(error),
        })
    }

    /// Gives a piece back.
    ///
    /// # Errors
    /// [`FrameError::FreedTwice`]; nothing is changed then.
    pub fn free(&mut self, piece: Piece) -> Result<(), FrameError> {
        let at = self.free.partition_point(|other| other.start < piece.start);
        let before = at
            .checked_sub(1)
            .and_then(|index| self.free.get(index))
            .copied();
        let after = self.free.get(at).copied();
        if before.is_some_and(|other| other.end() > piece.start.get())
            || after.is_some_and(|other| piece.end() > other.start.get())
        {
            return Err(FrameError::FreedTwice(piece.start));
        }
        let joins_before = before.is_some_and(|other| other.end() == piece.start.get());
        let joins_after = after.is_some_and(|other| piece.end() == other.start.get());
        let mut merged = piece;
        if let (true, Some(other)) = (joins_after, after) {
            merged.size = merged.size.saturating_add(other.size);
            self.free.remove(at);
        }
        if joins_before {
            if let Some(other) = at.checked_sub(1).and_then(|index| self.free.get_mut(index)) {
                other.size = other.size.saturating_add(merged.size);
            }
        } else {
            self.free.insert(at, merged);
        }
        Ok(())
    }

    /// Free bytes in all.
    pub fn total(&self) -> u64 {
        self.free.iter().map(|piece| piece.size).sum()
    }

    /// Bytes of the largest free range.
    pub fn largest(&self) -> u64 {
        self.free.iter().map(|piece| piece.size).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn machine() -> Frames {
        let mut frames = Frames::new();
        frames
            .add(HostPhysical::new(0x4000_0000), 1024 * MIB)
            .unwrap();
        frames.reserve(HostPhysical::new(0x4020_0000), 4 * MIB + 1);
        frames
    }

    #[test]
    fn reserved_memory_is_never_given() {
        let mut frames = machine();
        assert_eq!(frames.total(), 1020 * MIB - PAGE_SIZE);
        while let Ok(piece) = frames.allocate(PAGE_SIZE * 512, PAGE_SIZE) {
            assert!(piece.end() <= 0x4020_0000 || piece.start.get() > 0x4060_0000);
        }
    }

    #[test]
    fn large_pieces_are_aligned_and_leave_the_bottom_alone() {
        let mut frames = machine();
        let large = frames.allocate(512 * MIB, 2 * MIB).unwrap();
        assert!(large.start.is_aligned(2 * MIB));
        let small = frames.allocate(PAGE_SIZE, PAGE_SIZE).unwrap();
        assert_eq!(small.start.get(), 0x4000_0000);
    }

    #[test]
    fn what_does_not_fit_says_how_much_would() {
        let mut frames = machine();
        let error = frames.allocate(2048 * MIB, 2 * MIB).unwrap_err();
        assert_eq!(
            error,
            FrameError::Exhausted {
                wanted: 2048 * MIB,
                largest: frames.largest()
            }
        );
    }

    #[test]
    fn a_domain_gets_one_piece_or_as_few_as_there_are() {
        let mut frames = machine();
        let whole = frames.allocate_blocks(512 * MIB).unwrap();
        assert_eq!(whole.size, 512 * MIB);
        frames.free(whole).unwrap();
        // 1018 MiB above the hole, 2 below: neither is enough, and the first isn't cut within a block.
        let first = frames.allocate_blocks(1019 * MIB).unwrap();
        assert!(first.size < 1018 * MIB && first.size.is_multiple_of(2 * MIB));
        assert!(first.start.is_aligned(2 * MIB));
        assert!(frames.allocate_blocks(64 * MIB).is_err());
    }

    #[test]
    fn freeing_twice_is_refused() {
        let mut frames = machine();
        let piece = frames.allocate(MIB, PAGE_SIZE).unwrap();
        frames.free(piece).unwrap();
        assert!(matches!(frames.free(piece), Err(FrameError::FreedTwice(_))));
    }

    proptest! {
        #[test]
        fn nothing_is_given_twice_and_all_comes_back(
            operations in prop::collection::vec((any::<bool>(), 1u64..600, 12u32..22), 1..200)
        ) {
            let mut frames = machine();
            let total = frames.total();
            let mut held: Vec<Piece> = Vec::new();
            for (allocate, pages, alignment) in operations {
                if allocate {
                    if let Ok(piece) = frames.allocate(pages * PAGE_SIZE, 1 << alignment) {
                        prop_assert!(piece.start.is_aligned(1 << alignment));
                        for other in &held {
                            prop_assert!(piece.end() <= other.start.get() || other.end() <= piece.start.get());
                        }
                        held.push(piece);
                    }
                } else if let Some(piece) = held.pop() {
                    frames.free(piece).unwrap();
                }
                let taken: u64 = held.iter().map(|piece| piece.size).sum();
                prop_assert_eq!(frames.total() + taken, total);
            }
            for piece in held.drain(..) {
                frames.free(piece).unwrap();
            }
            prop_assert_eq!(frames.total(), total);
            prop_assert_eq!(frames.free.len(), machine().free.len());
        }
    }
}
