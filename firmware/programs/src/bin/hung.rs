//! Says that it runs, and then spins for ever with interrupts masked.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
fn run(_: u64) -> ! {
    fw_runtime::announce(fw_logic::protocol::kind::HUNG);
    loop {
        fw_runtime::spin(u64::MAX);
    }
}

firmware::firmware!(run);
