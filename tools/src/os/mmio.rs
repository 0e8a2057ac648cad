//! A BAR, mapped.
//!
//! Accesses are single load and store instructions with a plain base register: a hypervisor that emulates
//! one learns from the syndrome what it was (Arm ARM, ESR_EL2.ISV), which it can't for the write-back forms
//! that a compiler may choose for a volatile access.
#![allow(unsafe_code)]

use super::system::about;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::File;
use std::io;
use std::ptr::{self, NonNull};

/// A mapped register window, for the rest of the program's life.
pub struct Registers {
    base: NonNull<u8>,
    len: usize,
}

impl Registers {
    /// Maps the first `len` bytes of a PCI resource file.
    pub fn map(resource: &File, len: usize) -> io::Result<Self> {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; nothing of ours is replaced.
        let base = unsafe { mmap(ptr::null_mut(), len, access, MapFlags::SHARED, resource, 0) }
            .map_err(|error| about("mapping a BAR", error))?;
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("a BAR at null"))?;
        Ok(Self { base, len })
    }

    fn at<T>(&self, offset: usize) -> *mut T {
        let size = size_of::<T>();
        assert!(
            offset.is_multiple_of(size)
                && offset.checked_add(size).is_some_and(|end| end <= self.len)
        );
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.base.as_ptr().add(offset) }.cast()
    }

    /// Reads 4 bytes.
    pub fn read32(&self, offset: usize) -> u32 {
        let address: *const u32 = self.at(offset);
        // SAFETY: `at` gives an aligned address inside the mapping, which lives as long as the program.
        unsafe { load32(address) }
    }

    /// Writes 4 bytes.
    pub fn write32(&self, offset: usize, value: u32) {
        let address = self.at(offset);
        // SAFETY: as in `read32`; the device's own memory accesses reach DMA memory only, which no reference
        // of Rust's points into.
        unsafe { store32(address, value) }
    }

    /// Reads 8 bytes.
    pub fn read64(&self, offset: usize) -> u64 {
        let address: *const u64 = self.at(offset);
        // SAFETY: as in `read32`.
        unsafe { load64(address) }
    }

    /// Writes 8 bytes.
    pub fn write64(&self, offset: usize, value: u64) {
        let address = self.at(offset);
        // SAFETY: as in `write32`.
        unsafe { store64(address, value) }
    }
}

/// Orders accesses to normal memory and to the device against each other, in both directions.
pub fn barrier() {
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a barrier changes no state that Rust knows of.
    unsafe {
        std::arch::asm!("dsb sy", options(nostack, preserves_flags));
    }
    #[cfg(not(target_arch = "aarch64"))]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

macro_rules! access {
    ($load:ident, $store:ident, $type:ty, $ldr:literal, $str:literal) => {
        /// # Safety
        /// `address` is aligned and inside a mapped register window.
        unsafe fn $load(address: *const $type) -> $type {
            #[cfg(target_arch = "aarch64")]
            {
                let value: $type;
                // SAFETY: the caller's promise.
                unsafe {
                    std::arch::asm!($ldr, value = out(reg) value, address = in(reg) address,
                        options(nostack, preserves_flags));
                }
                value
            }
            #[cfg(not(target_arch = "aarch64"))]
            // SAFETY: the caller's promise.
            unsafe {
                address.read_volatile()
            }
        }

        /// # Safety
        /// `address` is aligned and inside a mapped register window.
        unsafe fn $store(address: *mut $type, value: $type) {
            #[cfg(target_arch = "aarch64")]
            // SAFETY: the caller's promise.
            unsafe {
                std::arch::asm!($str, value = in(reg) value, address = in(reg) address,
                    options(nostack, preserves_flags));
            }
            #[cfg(not(target_arch = "aarch64"))]
            // SAFETY: the caller's promise.
            unsafe {
                address.write_volatile(value);
            }
        }
    };
}

access!(
    load32,
    store32,
    u32,
    "ldr {value:w}, [{address}]",
    "str {value:w}, [{address}]"
);
access!(
    load64,
    store64,
    u64,
    "ldr {value:x}, [{address}]",
    "str {value:x}, [{address}]"
);
