//! The EL2 program: [`arch`] touches the hardware, [`system`] runs domains, the library decides.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(any(target_os = "none", test))]
extern crate alloc;

#[cfg(any(target_os = "none", test))]
mod arch;
#[cfg(any(target_os = "none", test))]
mod system;
#[cfg(test)]
mod tests;

/// On a host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!(
        "baton is a program for EL2 of an AArch64 machine: `cargo xtask demo` builds and boots it"
    );
}
