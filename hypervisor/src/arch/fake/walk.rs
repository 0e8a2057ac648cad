//! Translation: EL2's own of every access that it makes, and stage 2 of a guest's.

use super::{Event, State, image};
use crate::arch::mmu::{DEVICE_BASE, DIRECT_BASE};
use coproc_core::register::Width;

/// Address bits of a descriptor.
const ADDRESS: u64 = 0xffff_ffff_f000;
/// AP[2] of stage 1: read-only.
const READ_ONLY: u64 = 1 << 7;

/// VTCR_EL2.SL0.
fn start_level(vtcr: u64) -> u32 {
    match vtcr >> 6 & 3 {
        0 => 2,
        1 => 1,
        _ => 0,
    }
}

impl State {
    /// A word of RAM or of the image, as a walker sees it.
    fn descriptor(&self, at: u64) -> u64 {
        match at.checked_sub(self.board.image) {
            Some(offset) if offset < image::size() => image::word(offset),
            _ => self.ram_word(at),
        }
    }

    /// Where an address leads, and the leaf's descriptor; `start`: the first level.
    fn walk(&self, root: u64, start: u32, address: u64) -> Option<(u64, u64)> {
        let mut table = root;
        for level in start..=3 {
            let shift = 39 - 9 * level;
            // The root may be several tables side by side.
            let mask = if level == start { 0x1fff } else { 0x1ff };
            let descriptor = self.descriptor(table + (address >> shift & mask) * 8);
            let block = descriptor & 0b11 == 0b01 && (1..3).contains(&level);
            if block || descriptor & 0b11 == 0b11 && level == 3 {
                let inside = address & ((1 << shift) - 1);
                return Some((
                    descriptor & ADDRESS & !((1 << shift) - 1) | inside,
                    descriptor,
                ));
            }
            if descriptor & 0b11 != 0b11 {
                return None;
            }
            table = descriptor & ADDRESS;
        }
        None
    }

    /// EL2's translation.
    pub fn own(&self, address: usize) -> Option<(u64, u64)> {
        let root = self.root.unwrap_or(self.board.image + image::boot_tables());
        self.walk(root, 0, address as u64)
    }

    /// EL2 reaches RAM there, or this is a fault of Baton.
    pub fn check_ram(&mut self, this: usize, address: usize, bytes: usize, write: bool) {
        let pages = address >> 12..(address + bytes).div_ceil(4096);
        for page in pages {
            let at = page << 12;
            let writable = match self.known.get(&page) {
                Some(writable) => *writable,
                None => {
                    let (physical, leaf) = self
                        .own(at)
                        .unwrap_or_else(|| panic!("CPU {this}: EL2 can't reach {at:#x}"));
                    assert_eq!(physical as usize + DIRECT_BASE, at, "linear mapping");
                    assert_eq!(leaf >> 2 & 7, 0, "{at:#x} isn't normal memory");
                    assert_eq!(leaf >> 54 & 1, 1, "{at:#x} can be executed");
                    let writable = leaf & READ_ONLY == 0;
                    self.known.insert(page, writable);
                    writable
                }
            };
            assert!(writable || !write, "CPU {this}: EL2 can't write {at:#x}");
        }
    }

    fn device(&mut self, this: usize, address: usize, width: Width) -> u64 {
        let (physical, leaf) = self
            .own(address)
            .unwrap_or_else(|| panic!("CPU {this}: EL2 can't reach {address:#x}"));
        assert_eq!(physical as usize + DEVICE_BASE, address, "device mapping");
        assert_eq!(leaf >> 2 & 7, 1, "{address:#x} isn't device memory");
        assert_eq!(leaf >> 54 & 1, 1, "{address:#x} can be executed");
        assert!(physical.is_multiple_of(width.bytes()));
        physical
    }

    /// EL2 loads from a register.
    pub fn device_load(&mut self, this: usize, address: usize, width: Width) -> u64 {
        let at = self.device(this, address, width);
        let levels = self.levels();
        let value = self.devices.load(this, at, width, &levels) & width.mask();
        self.note(this, Event::Load(at, value));
        value
    }

    /// EL2 stores to a register.
    pub fn device_store(&mut self, this: usize, address: usize, width: Width, value: u64) {
        let at = self.device(this, address, width);
        let value = value & width.mask();
        self.note(this, Event::Store(at, value));
        self.devices.store(this, at, width, value);
        super::machine().changed.notify_all();
    }

    /// Where a guest's access leads that this CPU runs, by its TLB.
    pub fn guest_address(&mut self, cpu: usize, address: u64) -> Option<u64> {
        let (vtcr, vttbr) = (self.value(cpu, "vtcr_el2"), self.value(cpu, "vttbr_el2"));
        if let Some(page) = self.cpus[cpu].tlb.find(vttbr, address >> 12) {
            return Some(page << 12 | address & 0xfff);
        }
        assert!(address >> (64 - (vtcr & 0x3f)) == 0, "beyond VTCR_EL2.T0SZ");
        let start = start_level(vtcr);
        let (found, _) = self.walk(vttbr & ADDRESS, start, address)?;
        self.cpus[cpu].tlb.learn(vttbr, address >> 12, found >> 12);
        Some(found)
    }

    /// What the CPU remembers of the guest that it is about to run is what its tables say, or this is a fault of Baton.
    pub fn check_tlb(&self, cpu: usize) {
        let (vtcr, vttbr) = (self.value(cpu, "vtcr_el2"), self.value(cpu, "vttbr_el2"));
        for (page, remembered) in self.cpus[cpu].tlb.pages(vttbr) {
            let found = self.walk(vttbr & ADDRESS, start_level(vtcr), page << 12);
            let found = found.map(|(to, _)| to >> 12);
            assert_eq!(
                found,
                Some(remembered),
                "CPU {cpu}: the TLB has page {page:#x} of {vttbr:#x}"
            );
        }
    }
}

/// `boot.S`'s: EL2 goes on with other tables.
#[unsafe(no_mangle)]
extern "C" fn switch_tables(root: u64, image: u64) {
    super::with(|state, this| {
        assert_eq!(image, state.board.image);
        state.root = Some(root);
        state.known.clear();
        state.note(this, Event::Tables(root));
        // The page that it switches from, where it is.
        let (page, leaf) = state.own(image as usize).expect("no identity page");
        assert_eq!((page, leaf >> 54 & 1), (image, 0));
    });
}
