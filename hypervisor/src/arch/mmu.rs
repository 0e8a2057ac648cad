//! EL2's own translation and the TLB maintenance of stage 2.
//!
//! EL2 sees three things: the image at its linked address with W^X, RAM linearly at [`DIRECT_BASE`] (except the image, so that no
//! writable alias of code exists), and device registers at [`DEVICE_BASE`]. All of it is the same on every CPU.
//! The tables come from a static pool: they must exist before any allocator does.

use super::access;
use super::cpu;
use super::errata;
use super::memory;
use super::mmio::{Region, device_address};
use super::processor::This;
use super::registers::{far_address, isb};
use arrayvec::ArrayVec;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use core::cell::UnsafeCell;
use hypervisor::errata::Errata;
use hypervisor::processor::{Dsb, Processor, stage2};
use platforms::translation::{
    Geometry, Shareability, Stage1Access, Stage1Attributes, TableMemory, TranslationError,
    TranslationTable,
};
use spin::{Mutex, Once};

/// RAM appears here plus its physical address.
pub const DIRECT_BASE: usize = 0x4000_0000_0000;
/// Device registers appear here plus their physical address.
pub const DEVICE_BASE: usize = 0x6000_0000_0000;

const POOL_FRAMES: usize = 96;
const BLOCK: u64 = 0x20_0000;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<[[u64; 512]; POOL_FRAMES]>);

// SAFETY: reached only by volatile word accesses through `Tables`, which a lock guards.
unsafe impl Sync for Pool {}

#[unsafe(link_section = ".bss..large")]
static POOL: Pool = Pool(UnsafeCell::new([[0; 512]; POOL_FRAMES]));

/// Frames of the static pool as table memory.
struct Tables {
    next: usize,
    image: HostPhysical,
}

impl Tables {
    fn frame(&self, index: usize) -> HostPhysical {
        physical(self.image, far_address!(POOL) + index * PAGE_SIZE as usize)
    }

    fn word(&self, address: HostPhysical) -> Option<*mut u64> {
        let offset = address.get().checked_sub(self.frame(0).get())? as usize;
        (offset + 8 <= POOL_FRAMES * PAGE_SIZE as usize && offset.is_multiple_of(8))
            .then(|| (far_address!(POOL) + offset) as *mut u64)
    }
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<HostPhysical> {
        (self.next < POOL_FRAMES).then(|| {
            self.next += 1;
            self.frame(self.next - 1)
        })
    }

    fn allocate_contiguous(&mut self, frames: usize, _alignment: u64) -> Option<HostPhysical> {
        if frames == 1 { self.allocate() } else { None }
    }

    fn free(&mut self, _frame: HostPhysical) {
        // EL2's tables only grow; a frame that a failed operation gives back is lost, which the pool allows for.
    }

    fn read(&self, descriptor: HostPhysical) -> u64 {
        // SAFETY: `word` checked that it lies in the pool and is aligned.
        self.word(descriptor)
            .map_or(0, |word| unsafe { access::read64(word) })
    }

    fn write(&mut self, descriptor: HostPhysical, value: u64) {
        if let Some(word) = self.word(descriptor) {
            // SAFETY: `word` checked that it lies in the pool; `&mut self` and the lock make this the only writer.
            unsafe { access::write64(word, value) }
        }
    }

    fn publish(&mut self, _start: HostPhysical, _bytes: u64) {
        This.dsb(Dsb::Ishst); // EL2's walks are cacheable: visible is enough
    }
}

struct Own {
    table: TranslationTable,
    tables: Tables,
}

static OWN: Mutex<Option<Own>> = Mutex::new(None);
static ROOT: Once<(HostPhysical, HostPhysical)> = Once::new();

unsafe extern "C" {
    static _image_start: u8;
    static _text_end: u8;
    static _rodata_end: u8;
    static _image_end: u8;
    static mut boot_l0: [u64; 512];
    static mut boot_tree_l1: [u64; 512];
    static mut boot_tree_l2: [u64; 512];
    fn switch_tables(root: u64, image: u64);
}

fn address_of(symbol: *const u8) -> usize {
    symbol as usize
}

/// Bytes that the image takes in memory, to the next 2 MiB.
pub fn image_size() -> u64 {
    (far_address!(_image_end) - address_of(&raw const _image_start)) as u64
}

/// Physical address of something in the image.
pub fn physical(image: HostPhysical, linked: usize) -> HostPhysical {
    HostPhysical::new(image.get() + (linked - address_of(&raw const _image_start)) as u64)
}

/// Makes the device tree readable on the boot tables: 4 MiB of the linear mapping from the block that holds `tree`.
/// Called once, first thing, by the boot CPU.
pub fn map_tree_early(image: HostPhysical, tree: HostPhysical) {
    let start = tree.align_down(BLOCK).get();
    let linear = DIRECT_BASE as u64 + start;
    let table = |symbol: *const u64| physical(image, symbol as usize).get() | 0b11;
    // SAFETY: one CPU runs, nothing else knows these tables, and the entries were invalid, so no TLB holds them.
    unsafe {
        let l0 = (&raw mut boot_l0).cast::<u64>();
        let l1 = (&raw mut boot_tree_l1).cast::<u64>();
        let l2 = (&raw mut boot_tree_l2).cast::<u64>();
        l0.add((linear >> 39 & 511) as usize)
            .write_volatile(table(l1));
        l1.add((linear >> 30 & 511) as usize)
            .write_volatile(table(l2));
        for block in 0..2 {
            let index = (linear >> 21 & 511) + block;
            if index < 512 {
                // Normal, inner shareable, accessed, read-only, never executed.
                l2.add(index as usize)
                    .write_volatile((start + block * BLOCK) | 0x7c1 | 1 << 54);
            }
        }
    }
    super::registers::dsb_sy(); // entries are visible to the walker
    isb(); // before the first access through them
    memory::announce_early(start, start + 2 * BLOCK);
}

/// Builds the final tables and switches to them.
///
/// # Errors
/// [`TranslationError`] if the pool is too small or ranges overlap.
pub fn initialise(
    image: HostPhysical,
    pa_bits: u8,
    ram: &[(u64, u64)],
) -> Result<(), TranslationError> {
    let mut tables = Tables { next: 0, image };
    let geometry = Geometry::stage1(48, pa_bits)?;
    let mut table = TranslationTable::new(&mut tables, geometry)?;
    let attributes = |access, execute| {
        Stage1Attributes {
            index: 0,
            access,
            shareability: Shareability::Inner,
            execute,
        }
        .encode()
    };
    let code = attributes(Stage1Access::ReadOnly, true);
    let constant = attributes(Stage1Access::ReadOnly, false);
    let data = attributes(Stage1Access::ReadWrite, false);

    let start = address_of(&raw const _image_start);
    let mut map = |from: usize, to: usize, attributes| -> Result<(), TranslationError> {
        if from == to {
            return Ok(());
        }
        table.map(
            &mut tables,
            from as u64,
            physical(image, from),
            (to - from) as u64,
            attributes,
        )
    };
    map(start, address_of(&raw const _text_end), code)?;
    map(
        address_of(&raw const _text_end),
        address_of(&raw const _rodata_end),
        constant,
    )?;
    let mut from = address_of(&raw const _rodata_end);
    for guard in cpu::guard_pages() {
        map(from, guard, data)?;
        from = guard + PAGE_SIZE as usize;
    }
    map(from, far_address!(_image_end), data)?;

    // The page that switches the MMU on, at its physical address.
    table.map(&mut tables, image.get(), image, PAGE_SIZE, code)?;

    // RAM, without the image.
    let hole = (image.get(), image.get() + image_size());
    let mut announced = ArrayVec::new();
    for &(low, high) in ram {
        for (from, to) in [(low, high.min(hole.0)), (low.max(hole.1), high)] {
            let from = from.next_multiple_of(PAGE_SIZE);
            let to = to & !(PAGE_SIZE - 1);
            if from < to {
                let linear = DIRECT_BASE as u64 + from;
                table.map(
                    &mut tables,
                    linear,
                    HostPhysical::new(from),
                    to - from,
                    data,
                )?;
                let _ = announced.try_push((from, to));
            }
        }
    }

    let root = table.root();
    // SAFETY: the new tables map this code, its data and its stack as the old ones do, and the identity page.
    unsafe { switch_tables(root.get(), image.get()) };
    memory::announce(announced);
    ROOT.call_once(|| (root, image));
    *OWN.lock() = Some(Own { table, tables });
    Ok(())
}

/// Root of EL2's tables and the image's physical address, for CPUs that start later.
pub fn root() -> Option<(HostPhysical, HostPhysical)> {
    ROOT.get().copied()
}

/// Maps device registers; mapping the same pages again is no error.
///
/// # Errors
/// [`TranslationError`].
pub fn map_device(start: HostPhysical, size: u64) -> Result<Region, TranslationError> {
    let mut own = OWN.lock();
    let Some(Own { table, tables }) = own.as_mut() else {
        return Err(TranslationError::OutOfMemory);
    };
    let device = Stage1Attributes {
        index: 1,
        access: Stage1Access::ReadWrite,
        shareability: Shareability::Outer,
        execute: false,
    }
    .encode();
    let from = start.align_down(PAGE_SIZE).get();
    let to = start.get().saturating_add(size).next_multiple_of(PAGE_SIZE);
    let mapped = (from..to)
        .step_by(PAGE_SIZE as usize)
        .all(|page| table.translate(tables, DEVICE_BASE as u64 + page).is_some());
    if !mapped {
        table.map(
            tables,
            DEVICE_BASE as u64 + from,
            HostPhysical::new(from),
            to - from,
            device,
        )?;
    }
    isb(); // new entries before the first access through them
    Ok(Region::new(device_address(start), size as usize))
}

/// See [`stage2::invalidate`].
pub fn invalidate_stage2(vttbr: u64, range: core::ops::Range<u64>) {
    let speculates = errata::has(Errata::SPECULATIVE_TRANSLATION);
    stage2::invalidate(&mut This, vttbr, range, speculates);
}

/// See [`stage2::forget_guest`].
pub fn forget_this_guest() {
    stage2::forget_guest(&mut This);
}
