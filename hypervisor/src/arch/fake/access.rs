//! Loads and stores of EL2: looked up in its own translation tables, noted, and carried out on the fake machine.

use super::fake::{self, Event};
use coproc_core::register::Width;

/// See the real one.
pub unsafe fn load(address: usize, width: Width) -> u64 {
    fake::with(|state, this| state.device_load(this, address, width))
}

/// See the real one.
pub unsafe fn store(address: usize, width: Width, value: u64) {
    fake::with(|state, this| state.device_store(this, address, width, value));
}

/// See the real one.
pub unsafe fn read64(word: *const u64) -> u64 {
    if fake::is_linear(word as usize) {
        fake::with(|state, this| state.check_ram(this, word as usize, 8, false));
    }
    // SAFETY: the caller's promise, which was looked at.
    unsafe { word.read_volatile() }
}

/// See the real one.
pub unsafe fn write64(word: *mut u64, value: u64) {
    stored(word as usize, 8);
    // SAFETY: likewise.
    unsafe { word.write_volatile(value) }
}

/// See the real one.
pub unsafe fn clear(start: *mut u8, bytes: usize) {
    stored(start as usize, bytes);
    // SAFETY: likewise.
    unsafe { core::ptr::write_bytes(start, 0, bytes) }
}

/// See the real one. 64 bytes, as the fake DCZID_EL0 says.
pub unsafe fn clear_block(at: usize) {
    assert_eq!(at % fake::BLOCK, 0);
    // SAFETY: likewise.
    unsafe { clear(at as *mut u8, fake::BLOCK) }
}

/// See the real one.
pub unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // Into RAM, or out of it.
    if fake::is_linear(to as usize) {
        stored(to as usize, bytes);
    } else {
        fake::with(|state, this| state.check_ram(this, from as usize, bytes, false));
    }
    // SAFETY: likewise.
    unsafe { core::ptr::copy(from, to, bytes) }
}

fn stored(address: usize, bytes: usize) {
    fake::with(|state, this| {
        // Else it is in the image: EL2's own tables.
        if fake::is_linear(address) {
            state.check_ram(this, address, bytes, true);
        }
        state.note(this, Event::Stored { address, bytes });
    });
}

/// What the crates that drive devices load and store by.
struct Pointers;

macro_rules! pointers {
    ($($read:ident $write:ident $type:ty = $width:ident),*) => {
        impl safe_mmio::MmioOps for Pointers {
            $(
                unsafe fn $read(from: *const $type) -> $type {
                    // SAFETY: the caller's promise.
                    unsafe { load(from as usize, Width::$width) as $type }
                }

                unsafe fn $write(to: *mut $type, value: $type) {
                    // SAFETY: the caller's promise.
                    unsafe { store(to as usize, Width::$width, value.into()) }
                }
            )*
        }
    };
}
pointers!(read_u8 write_u8 u8 = Byte, read_u16 write_u16 u16 = Half, read_u32 write_u32 u32 = Word, read_u64 write_u64 u64 = Double);

safe_mmio::set_mmio_ops!(Pointers);
