//! Counts the work that it gets done, and never gives the core back, whatever its domain accepted.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
fn run(_: u64) -> ! {
    firmware::meter(false)
}

firmware::firmware!(run);
