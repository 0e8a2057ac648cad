//! The ground under a firmware: everything that touches the core, and all of the firmwares' `unsafe`.
//!
//! A firmware core runs at EL1 with its MMU off: all memory is Device-nGnRnE, so nothing may be unaligned (the target's `strict-align`)
//! and no exclusive access works; atomics are used for plain loads and stores only. Interrupts stay masked: a firmware waits with WFI, which
//! wakes for a pending interrupt all the same (Arm ARM, D1.6.2, wake-up events are not affected by the PSTATE masks), and then reads
//! what it is. An exception that isn't expected ends the firmware with a code that names it.
//!
//! On a host there is nothing of it.
#![no_std]

#[cfg(target_os = "none")]
mod core_registers;
#[cfg(target_os = "none")]
mod exception;
#[cfg(target_os = "none")]
pub mod probe;
#[cfg(target_os = "none")]
mod start;

#[cfg(target_os = "none")]
pub use core_registers::{
    Core, announce, critical, exit, inbox, notify, read32, read64, spin, wait_doorbell, write32,
    write64,
};
#[cfg(target_os = "none")]
pub use exception::unexpected;
#[cfg(target_os = "none")]
pub use start::initial_registers;

/// Names the firmware's main function, `fn(u64) -> !`: it gets the domain's argument.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[cfg(target_os = "none")]
        const _: () = {
            // SAFETY: the one symbol that the start-up code calls; nothing else of that name exists in a firmware.
            #[unsafe(no_mangle)]
            extern "C" fn firmware_main(argument: u64) -> ! {
                $main(argument)
            }
        };
    };
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    exit(fw_logic::protocol::exit::PANIC)
}
