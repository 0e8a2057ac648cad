//! The last slices, for the timeline.
//!
//! A bounded ring that forgets the oldest and counts what it forgot: a trace must never be the reason
//! that memory runs out.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

use alloc::collections::VecDeque;

use super::state::Reason;
use crate::id::{DomainId, Epoch, VcoprocId};
use crate::time::Instant;

/// Slices kept per coprocessor.
pub const CAPACITY: usize = 1024;

/// One slice that is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record {
    /// Whose.
    pub vcoproc: VcoprocId,
    /// Its domain.
    pub domain: DomainId,
    /// Residence that it belongs to.
    pub epoch: Epoch,
    /// When it began.
    pub from: Instant,
    /// When the device was quiet again, or the slice was renewed.
    pub to: Instant,
    /// Why it ended.
    pub reason: Reason,
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    records: VecDeque<Record>,
    lost: u64,
}

impl Ring {
    /// An empty ring with all the memory that it will ever need.
    pub(super) fn new() -> Self {
        Self {
            records: VecDeque::with_capacity(CAPACITY),
            lost: 0,
        }
    }

    pub(super) fn push(&mut self, record: Record) {
        if self.records.len() >= CAPACITY {
            self.records.pop_front();
            self.lost = self.lost.saturating_add(1);
        }
        self.records.push_back(record);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }
}
