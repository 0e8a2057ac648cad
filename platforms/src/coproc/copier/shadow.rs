//! The tables that the device walks, built from those that a domain wrote.
//!
//! Every word comes from a copy that the domain can't change any more, every address that leaves here was translated by [`Memory`] for the one whose tables
//! they are, and the work is bounded by the format: a table that points to itself is read as often as any other.

use alloc::boxed::Box;

use coproc_core::address::{GuestPhysical, HostPhysical, PAGE_SIZE};
use coproc_core::id::VcoprocId;
use coproc_core::memory::Memory;

/// Entries of a root table.
pub const ROOT_ENTRIES: usize = 16;
/// Entries of a leaf table.
pub const LEAF_ENTRIES: usize = 64;
/// Bits of an entry that are the address of a page.
pub const PAGES: u64 = 0x0000_ffff_ffff_f000;
/// Bits of a root entry that are the address of a leaf table.
pub const LEAVES: u64 = 0x0000_ffff_ffff_fe00;
/// Entry bit: there is something.
pub const VALID: u64 = 1 << 0;
/// Entry bit: may be written.
pub const WRITE: u64 = 1 << 1;
/// Root entry bit: not a leaf table but 64 consecutive pages.
pub const BLOCK: u64 = 1 << 2;

const LEAF_BYTES: usize = LEAF_ENTRIES * 8;
/// Where the leaf tables begin in a set; the root is at 0.
const FIRST_LEAF: u64 = PAGE_SIZE;
/// Bytes of one set: root, 16 leaf tables.
const SET: u64 = FIRST_LEAF + (ROOT_ENTRIES * LEAF_BYTES) as u64;

/// One context's two sets of tables.
#[derive(Clone, Copy, Debug, Default)]
pub struct Own {
    who: Option<VcoprocId>,
    sets: [u64; 2],
    /// Root of the set that holds the context's present translations; 0 in a context that was never made.
    active: u64,
}

impl Own {
    pub(super) const fn active(&self) -> u64 {
        self.active
    }

    pub(super) fn activate(&mut self, root: u64) {
        if self.sets.contains(&root) {
            self.active = root;
        }
    }
}

/// The tables of all contexts of one device.
pub(super) struct Tables {
    memory: Box<dyn Memory>,
    empty: u64,
    /// Root of what the device uses.
    pub(super) installed: u64,
}

impl Tables {
    /// With a root that maps nothing.
    pub(super) fn new(mut memory: Box<dyn Memory>) -> Option<Self> {
        let empty = memory.allocate(PAGE_SIZE)?;
        memory.publish(empty, PAGE_SIZE);
        Some(Self {
            memory,
            empty: empty.get(),
            installed: 0,
        })
    }

    /// The root that maps nothing.
    pub(super) const fn empty(&self) -> u64 {
        self.empty
    }

    pub(super) fn create(&mut self, who: VcoprocId) -> Option<Own> {
        let first = self.memory.allocate(SET)?;
        let Some(second) = self.memory.allocate(SET) else {
            self.memory.free(first, SET);
            return None;
        };
        self.memory.publish(first, SET);
        self.memory.publish(second, SET);
        Some(Own {
            who: Some(who),
            sets: [first.get(), second.get()],
            active: first.get(),
        })
    }

    /// Frees what isn't in the device; whether that is all.
    pub(super) fn destroy(&mut self, own: &Own) -> bool {
        if own.who.is_none() {
            return true;
        }
        let mut all = true;
        for set in own.sets {
            if set == self.installed {
                all = false;
            } else {
                self.memory.free(HostPhysical::new(set), SET);
            }
        }
        all
    }

    /// Builds what `guest`, the domain's value of the table register, means: in a set that isn't in the device. Its root; 0 if there is none.
    pub(super) fn build(&mut self, own: &Own, guest: u64) -> u64 {
        let Some(who) = own.who else { return 0 };
        let free = own.sets.iter().find(|set| **set != self.installed);
        let Some(&set) = free else { return 0 };
        let mut root = [0; ROOT_ENTRIES];
        let mut bytes = [0; ROOT_ENTRIES * 8];
        // Bypass is refused: to the domain it is as if nothing were mapped.
        if guest & super::TRANSLATE != 0
            && self
                .memory
                .read(who, GuestPhysical::new(guest & PAGES), &mut bytes)
        {
            root = words(&bytes);
        }
        let mut shadow = [0; ROOT_ENTRIES];
        let leaves = (set.wrapping_add(FIRST_LEAF)..).step_by(LEAF_BYTES);
        for ((entry, shadow), at) in root.into_iter().zip(&mut shadow).zip(leaves) {
            let leaf = self.leaf(who, entry);
            if leaf.iter().any(|entry| entry & VALID != 0) {
                self.memory.write(HostPhysical::new(at), &leaf);
                *shadow = at | VALID;
            }
        }
        self.memory.write(HostPhysical::new(set), &shadow);
        self.memory.publish(HostPhysical::new(set), SET);
        set
    }

    /// What the device may have of what a root entry says.
    fn leaf(&self, who: VcoprocId, entry: u64) -> [u64; LEAF_ENTRIES] {
        let mut leaf = [0; LEAF_ENTRIES];
        if entry & VALID == 0 {
            return leaf;
        }
        if entry & BLOCK != 0 {
            let first = GuestPhysical::new(entry & PAGES);
            for (page, at) in (0..).zip(&mut leaf) {
                if let Some(guest) = first.checked_add(PAGE_SIZE.wrapping_mul(page)) {
                    *at = self.page(who, guest, entry & WRITE);
                }
            }
            return leaf;
        }
        let mut bytes = [0; LEAF_BYTES];
        let table = GuestPhysical::new(entry & LEAVES);
        if self.memory.read(who, table, &mut bytes) {
            for (at, entry) in leaf.iter_mut().zip(words::<LEAF_ENTRIES>(&bytes)) {
                if entry & VALID != 0 {
                    *at = self.page(who, GuestPhysical::new(entry & PAGES), entry & WRITE);
                }
            }
        }
        leaf
    }

    /// An entry for one page of the domain's RAM; nothing if it isn't.
    fn page(&self, who: VcoprocId, guest: GuestPhysical, write: u64) -> u64 {
        match self.memory.translate(who, guest, PAGE_SIZE) {
            Some(host) if host.get() & !PAGES == 0 => host.get() | write | VALID,
            _ => 0,
        }
    }
}

/// Little-endian words.
fn words<const N: usize>(bytes: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    words
}
