//! The core's registers and what is done with them.

use core::arch::asm;
use fw_core_abi::{LOCAL_BASE, local, local_interrupt};
use fw_logic::engine::Platform;
use fw_logic::protocol::READY;

// Single loads and stores with a plain base register: Baton learns from the syndrome what they are, which it can't for other forms.

/// Reads 4 bytes. An address where the firmware has nothing ends it.
#[inline]
pub fn read32(address: u64) -> u32 {
    let value;
    // SAFETY: a load into a register. Whatever lies there, reading it changes nothing that Rust relies on; the interface's registers read
    // without side effects.
    unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Reads 8 bytes.
#[inline]
pub fn read64(address: u64) -> u64 {
    let value;
    // SAFETY: as in `read32`.
    unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) address, options(nostack)) };
    value
}

/// Whether a store of so many bytes can't change what Rust knows of: everywhere but in the image.
fn beside_image(address: u64, size: u64) -> bool {
    let end = fw_core_abi::IMAGE_BASE + fw_core_abi::IMAGE_SIZE;
    address >= end || address.saturating_add(size) <= fw_core_abi::IMAGE_BASE
}

/// Writes 4 bytes, not into the image.
#[inline]
pub fn write32(address: u64, value: u32) {
    assert!(beside_image(address, 4));
    // SAFETY: not in the image, which holds all that Rust knows of.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Writes 8 bytes, not into the image.
#[inline]
pub fn write64(address: u64, value: u64) {
    assert!(beside_image(address, 8));
    // SAFETY: as in `write32`.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack)) };
}

/// Writes a word to the outbox, which interrupts the domain. What was written to memory before is there when it reads.
pub fn notify(word: u64) {
    barrier();
    write64(LOCAL_BASE + local::OUTBOX, word);
}

/// The word that the domain wrote last.
pub fn inbox() -> u64 {
    read64(LOCAL_BASE + local::INBOX)
}

/// Tells the domain that this kind of firmware runs.
pub fn announce(kind: u32) {
    notify(READY | u64::from(kind));
}

/// Ends the firmware.
#[unsafe(export_name = "fw_exit")]
pub extern "C" fn exit(code: u32) -> ! {
    barrier();
    write32(LOCAL_BASE + local::EXIT, code);
    loop {
        wait();
    }
}

fn barrier() {
    // SAFETY: a barrier changes no state that Rust knows of.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

fn wait() {
    // SAFETY: waits; interrupts are masked, so nothing else runs here.
    unsafe { asm!("wfi", options(nostack, preserves_flags)) };
}

/// Keeps the core busy for this many rounds of two instructions.
#[inline(never)]
pub fn spin(rounds: u64) {
    // SAFETY: counts a register down.
    unsafe {
        asm!("0: subs {0}, {0}, #1", "b.ne 0b", inout(reg) rounds.max(1) => _, options(nomem, nostack));
    }
}

/// Runs `action` in a critical section: the core isn't taken away until its end.
pub fn critical<T>(action: impl FnOnce() -> T) -> T {
    write32(LOCAL_BASE + local::CRITICAL, 1);
    let value = action();
    write32(LOCAL_BASE + local::CRITICAL, 0);
    value
}

/// Waits until the domain rings, and takes note of that: what it did before it rang is there to be seen.
pub fn wait_doorbell(core: &mut Core) {
    let mut enable = local_interrupt::DOORBELL;
    if core.cooperates {
        enable |= local_interrupt::YIELD;
    }
    write32(LOCAL_BASE + local::ENABLE, enable);
    loop {
        let pending = read32(LOCAL_BASE + local::PENDING);
        if pending & local_interrupt::DOORBELL != 0 {
            write32(LOCAL_BASE + local::ACKNOWLEDGE, local_interrupt::DOORBELL);
            barrier();
            return;
        }
        if core.cooperates && pending & local_interrupt::YIELD != 0 {
            write32(LOCAL_BASE + local::YIELD, 1);
            continue;
        }
        wait();
    }
}

/// The machine under the firmware's main loop.
#[derive(Debug)]
pub struct Core {
    cooperates: bool,
}

impl Core {
    /// As the domain wants it: a request to yield comes only if it accepted that, so otherwise nobody looks.
    pub fn new() -> Self {
        Self {
            cooperates: read32(LOCAL_BASE + local::FEATURES) != 0,
        }
    }
}

impl Default for Core {
    fn default() -> Self {
        Self::new()
    }
}

impl Platform for Core {
    fn read32(&mut self, address: u64) -> u32 {
        read32(address)
    }

    fn read64(&mut self, address: u64) -> u64 {
        read64(address)
    }

    fn write32(&mut self, address: u64, value: u32) {
        write32(address, value);
    }

    fn write64(&mut self, address: u64, value: u64) {
        write64(address, value);
    }

    fn barrier(&mut self) {
        barrier();
    }

    fn notify(&mut self, word: u64) {
        notify(word);
    }

    fn critical(&mut self, on: bool) {
        write32(LOCAL_BASE + local::CRITICAL, u32::from(on));
    }

    fn breathe(&mut self) {
        if self.cooperates && read32(LOCAL_BASE + local::PENDING) & local_interrupt::YIELD != 0 {
            write32(LOCAL_BASE + local::YIELD, 1);
        }
    }
}
