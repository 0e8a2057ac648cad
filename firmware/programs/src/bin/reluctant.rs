//! Counts the work that it gets done, and refuses to be switched at almost every moment, though never for long.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
fn run(_: u64) -> ! {
    firmware::reluctant()
}

firmware::firmware!(run);
