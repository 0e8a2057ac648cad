//! The machine's memory for the copier's tests: every page has an owner, and every transaction of the device is judged.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use std::sync::Mutex;

use coproc_core::address::{GuestPhysical, HostPhysical};
use coproc_core::id::VcoprocId;
use coproc_core::memory::Memory;

use super::model::Bus;

pub(super) const PAGE: u64 = 4096;
/// Where both domains see their RAM.
pub(super) const RAM: u64 = 0x4000_0000;
/// Pages that a domain has.
pub(super) const PAGES: u64 = 24;
/// Where the machine has it, both domains' pages mixed.
pub(super) const HOST: u64 = 0x8000_0000;
/// Where the machine has Baton's memory.
pub(super) const BATON: u64 = 0x9000_0000;

/// Whose a page is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    Domain(usize),
    Tables,
    Freed,
}

/// The machine's memory.
#[derive(Debug, Default)]
pub(super) struct Host {
    pub(super) pages: BTreeMap<u64, (Owner, Vec<u8>)>,
    /// Host page of each guest page.
    pub(super) maps: [Vec<u64>; 2],
    /// Whose memory the device may touch now.
    pub(super) allowed: Option<usize>,
    /// What it touched and shouldn't have.
    pub(super) violations: Vec<String>,
    /// Allocations of tables fail from this one on.
    pub(super) tables_left: Option<usize>,
    next: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Shared(pub(super) Arc<Mutex<Host>>);

impl Shared {
    pub(super) fn new() -> Self {
        let mut host = Host {
            next: BATON,
            ..Host::default()
        };
        // Even and odd pages, the second domain's in reverse: nearly nothing is contiguous.
        for i in 0..PAGES {
            let pages = [HOST + 2 * i * PAGE, HOST + (2 * (PAGES - i) - 1) * PAGE];
            for (domain, page) in pages.into_iter().enumerate() {
                host.maps[domain].push(page);
                let bytes = vec![0; PAGE as usize];
                host.pages.insert(page, (Owner::Domain(domain), bytes));
            }
        }
        Self(Arc::new(Mutex::new(host)))
    }

    /// The domain's CPU writes a word into its RAM; what isn't RAM isn't written.
    pub(super) fn store(&self, domain: usize, at: u64, word: u64) {
        let mut host = self.0.lock().unwrap();
        let Some(page) =
            (at.checked_sub(RAM)).and_then(|o| host.maps[domain].get((o / PAGE) as usize).copied())
        else {
            return;
        };
        let offset = ((at % PAGE) & !7) as usize;
        host.pages.get_mut(&page).unwrap().1[offset..offset + 8]
            .copy_from_slice(&word.to_le_bytes());
    }

    /// All that a domain has in its RAM.
    pub(super) fn ram(&self, domain: usize) -> Vec<u8> {
        let host = self.0.lock().unwrap();
        let pages = host.maps[domain].iter();
        pages.flat_map(|page| host.pages[page].1.clone()).collect()
    }

    pub(super) fn allow(&self, domain: Option<usize>) {
        self.0.lock().unwrap().allowed = domain;
    }

    pub(super) fn violations(&self) -> Vec<String> {
        self.0.lock().unwrap().violations.clone()
    }

    /// Pages of tables that are allocated now.
    pub(super) fn tables(&self) -> usize {
        let host = self.0.lock().unwrap();
        let tables = |(owner, _): &&(Owner, Vec<u8>)| *owner == Owner::Tables;
        host.pages.values().filter(tables).count()
    }

    pub(super) fn memory(&self) -> Box<dyn Memory> {
        Box::new(self.clone())
    }
}

impl Bus for Shared {
    fn read(&mut self, at: u64, into: &mut [u8], walk: bool) -> bool {
        let mut host = self.0.lock().unwrap();
        let owner = host.pages.get(&(at & !(PAGE - 1))).map(|(owner, _)| *owner);
        let expected = match walk {
            true => Some(Owner::Tables),
            false => host.allowed.map(Owner::Domain),
        };
        if owner != expected || owner.is_none() {
            let text = format!("read {at:#x} of {owner:?} instead of {expected:?}");
            host.violations.push(text);
        }
        let Some((_, bytes)) = host.pages.get(&(at & !(PAGE - 1))) else {
            return false;
        };
        let offset = (at % PAGE) as usize;
        into.copy_from_slice(&bytes[offset..offset + into.len()]);
        true
    }

    fn write(&mut self, at: u64, data: &[u8]) -> bool {
        let mut host = self.0.lock().unwrap();
        let expected = host.allowed.map(Owner::Domain);
        let owner = host.pages.get(&(at & !(PAGE - 1))).map(|(owner, _)| *owner);
        if owner != expected || owner.is_none() {
            let text = format!("wrote {at:#x} of {owner:?} instead of {expected:?}");
            host.violations.push(text);
        }
        let Some((_, bytes)) = host.pages.get_mut(&(at & !(PAGE - 1))) else {
            return false;
        };
        let offset = (at % PAGE) as usize;
        bytes[offset..offset + data.len()].copy_from_slice(data);
        true
    }
}

/// Vcoproc 1 is domain 0's, vcoproc 2 domain 1's.
pub(super) fn domain_of(who: VcoprocId) -> Option<usize> {
    (who.0 as usize).checked_sub(1).filter(|domain| *domain < 2)
}

impl Memory for Shared {
    fn translate(&self, who: VcoprocId, at: GuestPhysical, size: u64) -> Option<HostPhysical> {
        let host = self.0.lock().unwrap();
        let map = &host.maps[domain_of(who)?];
        let offset = at.get().checked_sub(RAM)?;
        let end = offset
            .checked_add(size)
            .filter(|end| *end <= PAGES * PAGE)?;
        let first = map.get((offset / PAGE) as usize)?;
        for page in offset / PAGE..end.div_ceil(PAGE) {
            if map[page as usize] != first + (page - offset / PAGE) * PAGE {
                return None;
            }
        }
        Some(HostPhysical::new(first + offset % PAGE))
    }

    fn read(&self, who: VcoprocId, at: GuestPhysical, into: &mut [u8]) -> bool {
        let mut at = at;
        let mut into = into;
        while !into.is_empty() {
            let size = into.len().min((PAGE - at.get() % PAGE) as usize);
            let Some(from) = self.translate(who, at, size as u64) else {
                return false;
            };
            let (now, later) = into.split_at_mut(size);
            let offset = (from.get() % PAGE) as usize;
            let host = self.0.lock().unwrap();
            let (_, bytes) = &host.pages[&from.align_down(PAGE).get()];
            now.copy_from_slice(&bytes[offset..offset + size]);
            let Some(next) = at.checked_add(size as u64) else {
                return later.is_empty();
            };
            (at, into) = (next, later);
        }
        true
    }

    fn allocate(&mut self, size: u64) -> Option<HostPhysical> {
        assert!(size.is_multiple_of(PAGE) && size > 0);
        let mut host = self.0.lock().unwrap();
        if let Some(left) = &mut host.tables_left {
            *left = left.checked_sub(1)?;
        }
        let first = host.next;
        // A hole behind each: who runs past its end is seen.
        host.next += size + PAGE;
        for page in (first..first + size).step_by(PAGE as usize) {
            host.pages
                .insert(page, (Owner::Tables, vec![0; PAGE as usize]));
        }
        Some(HostPhysical::new(first))
    }

    fn free(&mut self, at: HostPhysical, size: u64) {
        let mut host = self.0.lock().unwrap();
        for page in (at.get()..at.get() + size).step_by(PAGE as usize) {
            let (owner, bytes) = host.pages.get_mut(&page).unwrap();
            assert_eq!(*owner, Owner::Tables, "freed twice, or not its own");
            *owner = Owner::Freed;
            bytes.fill(0xff);
        }
    }

    fn write(&mut self, at: HostPhysical, words: &[u64]) {
        let mut host = self.0.lock().unwrap();
        for (word, at) in words.iter().zip((at.get()..).step_by(8)) {
            let (owner, bytes) = host.pages.get_mut(&(at & !(PAGE - 1))).unwrap();
            assert_eq!(*owner, Owner::Tables, "{at:#x}");
            let offset = (at % PAGE) as usize;
            bytes[offset..offset + 8].copy_from_slice(&word.to_le_bytes());
        }
    }

    fn publish(&mut self, _: HostPhysical, _: u64) {}
}
