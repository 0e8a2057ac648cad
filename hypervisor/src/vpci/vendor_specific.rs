//! A function's vendor-specific capabilities: what its driver finds its registers by.
//!
//! A virtio function, for one, says there in which BAR each of its structures is (Virtual I/O Device 1.2, 4.1.4), and
//! can't be driven without. They are copied once and shown as they were, elsewhere: drivers follow the list, and the
//! MSI capability has a fixed place. What a domain writes to them is lost, since it would otherwise reach the physical function's configuration space.
//!
//! Source: PCI Local Bus Specification 3.0, 6.7 and appendix H.

use alloc::sync::Arc;
use arrayvec::ArrayVec;

use super::msi;

/// Its ID.
pub const ID: u8 = 0x09;
/// Where they stand in configuration space: behind MSI, whether that is there or not.
const OFFSET: u16 = msi::END;
/// Words of 32 bits between there and the end of what conventional configuration space holds.
const WORDS: usize = (0x100 - OFFSET as usize) / 4;
/// The pointer to the next capability, in a capability's first word.
const NEXT: u32 = 0xff << 8;

/// Words that a capability with this first word takes: its third byte is the length in bytes, its header included.
pub(super) fn words_of(head: u32) -> usize {
    let bytes = (head >> 16) as u8;
    usize::from(bytes.div_ceil(4).max(1))
}

/// All vendor-specific capabilities of a function. Copies are one: a function is shown without an allocation, which could fail.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VendorSpecific(Option<Arc<List>>);

#[derive(Clone, PartialEq, Eq, Default, Debug)]
struct List {
    words: ArrayVec<u32, WORDS>,
    /// Index of the last one's first word.
    last: usize,
}

impl VendorSpecific {
    /// None.
    pub const fn none() -> Self {
        Self(None)
    }

    /// Adds one, whose first word has ID and length; where it led to next is forgotten. Returns whether there was room.
    pub(super) fn push(&mut self, mut words: impl ExactSizeIterator<Item = u32>) -> bool {
        let list = Arc::make_mut(self.0.get_or_insert_default());
        if words.len() > list.words.remaining_capacity() {
            return false;
        }
        let Some(head) = words.next() else {
            return true;
        };
        let start = list.words.len();
        let place = OFFSET.saturating_add((start as u16).saturating_mul(4));
        if let Some(last) = list.words.get_mut(list.last) {
            *last |= u32::from(place) << 8;
        }
        list.last = start;
        list.words.push(head & !NEXT);
        list.words.extend(words);
        true
    }

    fn words(&self) -> &[u32] {
        self.0.as_ref().map_or(&[], |list| list.words.as_slice())
    }

    /// The words of each.
    pub(super) fn each(&self) -> impl Iterator<Item = &[u32]> {
        let mut rest = self.words();
        core::iter::from_fn(move || {
            let (one, others) = rest.split_at_checked(words_of(*rest.first()?))?;
            rest = others;
            Some(one)
        })
    }

    /// Where the first one is; `None` if there is none.
    pub(super) fn first(&self) -> Option<u16> {
        (!self.words().is_empty()).then_some(OFFSET)
    }

    /// The 32-bit register at `offset`, zero if it belongs to none of them.
    pub(super) fn read(&self, offset: u16) -> u32 {
        let index = offset
            .checked_sub(OFFSET)
            .map(|bytes| usize::from(bytes / 4));
        let word = index.and_then(|index| self.words().get(index));
        word.copied().unwrap_or(0)
    }
}
