//! Memory that the device may reach: locked, and with a known physical address.
//!
//! A huge page gives two slots of 1 MiB, contiguous, so that transfers can cross pages and lie anywhere;
//! where the kernel has none to spare, two single pages do. The kernel may move even locked pages, so
//! their address is looked up before each transfer.
#![allow(unsafe_code)]

use super::mmio::barrier;
use super::system::about;
use crate::machine::Slot;
use rustix::mm::{MapFlags, ProtFlags, mlock, mmap_anonymous};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::{self, NonNull};

const PAGE: usize = 4096;
const HUGE: usize = 2 << 20;
/// Entry of `/proc/self/pagemap` (Linux, Documentation/admin-guide/mm/pagemap.rst).
const PAGEMAP_PRESENT: u64 = 1 << 63;
const PAGEMAP_FRAME: u64 = (1 << 55) - 1;

/// Two slots of DMA memory.
pub struct DmaMemory {
    base: NonNull<u8>,
    slot_len: usize,
    pagemap: File,
}

fn map(len: usize, flags: MapFlags) -> io::Result<NonNull<u8>> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice.
    let base = unsafe { mmap_anonymous(ptr::null_mut(), len, access, MapFlags::PRIVATE | flags) }?;
    // SAFETY: the whole of the mapping just made; locking changes none of its bytes.
    unsafe { mlock(base, len) }?;
    let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("memory at null"))?;
    // SAFETY: the mapping just made, which nothing else refers to. Touched, so that its pages are there.
    unsafe { base.write_bytes(0, len) };
    Ok(base)
}

impl DmaMemory {
    /// A huge page if wanted and the kernel has one, else two small ones.
    pub fn allocate(huge: bool) -> io::Result<Self> {
        let pagemap = "/proc/self/pagemap";
        let pagemap = File::open(pagemap).map_err(|error| about(pagemap, error))?;
        let huge = huge && fs::write("/proc/sys/vm/nr_hugepages", "1").is_ok();
        let (base, slot_len) = match huge.then(|| map(HUGE, MapFlags::HUGETLB)) {
            Some(Ok(base)) => (base, HUGE / 2),
            _ => {
                let base = map(2 * PAGE, MapFlags::empty());
                (base.map_err(|error| about("DMA memory", error))?, PAGE)
            }
        };
        Ok(Self {
            base,
            slot_len,
            pagemap,
        })
    }

    /// Length of each slot in bytes.
    pub fn slot_len(&self) -> usize {
        self.slot_len
    }

    fn offset(&self, slot: Slot, offset: usize, len: usize) -> usize {
        assert!(
            offset
                .checked_add(len)
                .is_some_and(|end| end <= self.slot_len)
        );
        match slot {
            Slot::Outgoing => offset,
            Slot::Incoming => self.slot_len + offset,
        }
    }

    /// The physical address of a byte.
    pub fn physical(&self, slot: Slot, offset: usize) -> io::Result<u64> {
        let address = self.base.as_ptr() as usize + self.offset(slot, offset, 1);
        let mut entry = [0; 8];
        let at = (address / PAGE * entry.len()) as u64;
        self.pagemap
            .read_exact_at(&mut entry, at)
            .map_err(|error| about("pagemap", error))?;
        let entry = u64::from_ne_bytes(entry);
        let frame = entry & PAGEMAP_FRAME;
        if entry & PAGEMAP_PRESENT == 0 || frame == 0 {
            let message = format!("pagemap: no frame for DMA memory (entry {entry:#x})");
            return Err(io::Error::other(message));
        }
        Ok(frame * PAGE as u64 + (address % PAGE) as u64)
    }

    /// Writes; the device sees it afterwards.
    pub fn store(&mut self, slot: Slot, offset: usize, bytes: &[u8]) {
        let at = self.offset(slot, offset, bytes.len());
        // SAFETY: inside our mapping, as `offset` checked; no reference points into it, and the device is
        // only given addresses in it while we don't touch them.
        unsafe {
            let target = self.base.as_ptr().add(at);
            ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        barrier();
    }

    /// Makes what was written visible to a master that doesn't look into caches (a firmware core, whose MMU is off).
    pub fn clean(&self, slot: Slot, offset: usize, len: usize) {
        let at = self.offset(slot, offset, len);
        for line in (at & !15..at + len).step_by(16) {
            // SAFETY: inside our mapping, as `offset` checked (its start is a multiple of 16 too); the bytes don't change.
            unsafe { clean_line(self.base.as_ptr().add(line)) };
        }
        barrier();
    }

    /// Reads what the device left.
    pub fn load(&mut self, slot: Slot, offset: usize, bytes: &mut [u8]) {
        let at = self.offset(slot, offset, bytes.len());
        barrier();
        // SAFETY: as in `store`.
        unsafe {
            let source = self.base.as_ptr().add(at);
            ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len());
        }
    }
}

/// Cleans the cache line of an address to the point of coherency; Linux lets programs do that (SCTLR_EL1.UCI).
///
/// # Safety
/// The address is mapped.
unsafe fn clean_line(address: *const u8) {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: the caller's promise; memory keeps its values.
    unsafe {
        std::arch::asm!("dc cvac, {0}", in(reg) address, options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    let _ = address;
}
