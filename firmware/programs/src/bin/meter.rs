//! Counts the work that it gets done, and gives the core back when asked to, if its domain accepted that it is asked.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
fn run(_: u64) -> ! {
    firmware::meter(true)
}

firmware::firmware!(run);
