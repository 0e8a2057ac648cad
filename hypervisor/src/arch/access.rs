//! Loads and stores as the hardware is to see them, and nothing else: what host tests have another one of.
//!
//! Accesses to registers are single instructions of exactly the width asked for: a compiler-chosen addressing mode with
//! write-back couldn't be emulated by a hypervisor below us, and Rust's volatile accesses don't promise a form.

use coproc_core::register::Width;
use core::arch::asm;

/// Loads a device register.
///
/// # Safety
/// It is mapped, as device memory, and aligned.
#[inline(always)]
pub unsafe fn load(address: usize, width: Width) -> u64 {
    let value: u64;
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            Width::Byte => {
                asm!("ldrb {v:w}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
            Width::Half => {
                asm!("ldrh {v:w}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
            Width::Word => {
                asm!("ldr {v:w}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
            Width::Double => {
                asm!("ldr {v}, [{a}]", v = out(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
        }
    }
    value
}

/// Stores to a device register.
///
/// # Safety
/// It is mapped, as device memory, and aligned.
#[inline(always)]
pub unsafe fn store(address: usize, width: Width, value: u64) {
    // SAFETY: the caller's promise.
    unsafe {
        match width {
            Width::Byte => {
                asm!("strb {v:w}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
            Width::Half => {
                asm!("strh {v:w}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
            Width::Word => {
                asm!("str {v:w}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
            Width::Double => {
                asm!("str {v}, [{a}]", v = in(reg) value, a = in(reg) address, options(nostack, preserves_flags))
            }
        }
    }
}

/// Loads a word that others may store to meanwhile.
///
/// # Safety
/// It is mapped RAM, and aligned.
#[inline(always)]
pub unsafe fn read64(word: *const u64) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { word.read_volatile() }
}

/// Stores a word, at once.
///
/// # Safety
/// It is mapped RAM, aligned, and no Rust object.
#[inline(always)]
pub unsafe fn write64(word: *mut u64, value: u64) {
    // SAFETY: the caller's promise.
    unsafe { word.write_volatile(value) }
}

/// Fills with zeroes, by stores.
///
/// # Safety
/// It is mapped RAM, and no Rust object.
#[inline(always)]
pub unsafe fn clear(start: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::write_bytes(start, 0, bytes) }
}

/// `DC ZVA`: fills a block with zeroes.
///
/// # Safety
/// Likewise, and the CPU has the instruction.
#[inline(always)]
pub unsafe fn clear_block(at: usize) {
    // SAFETY: the caller's promise.
    unsafe { asm!("dc zva, {}", in(reg) at, options(nostack, preserves_flags)) }
}

/// Copies to RAM.
///
/// # Safety
/// `to` is mapped RAM, no Rust object, and `from` readable.
#[inline(always)]
pub unsafe fn copy(from: *const u8, to: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { core::ptr::copy(from, to, bytes) }
}
