//! The bench guest: counts what exits, interrupts and coprocessor switches cost, in instructions.
//!
//! It runs at EL1 as the kernel of a domain (one vCPU or two, no operating system), on the hypervisor as it is shipped; on Xen, the
//! same program does, as the yardstick. QEMU's `-icount shift=0` makes one instruction one nanosecond of virtual time, so the virtual counter, read around
//! many repetitions, counts the instructions of guest and hypervisor together, and the same ones each time.
//!
//! What a guest can't provoke alone, the cost of the framework's own code in a switch, is measured by running that very code here, on the
//! same instruction set and compiled alike, against a device and an environment that do nothing ([`framework`], [`repoint`]).
//!
//! Output is one line a row, `bench: row=NAME ticks=N repetitions=N`, and `bench: done`; a line with `bench: error` instead means
//! that no number of this run is worth anything. Nothing is printed while something is measured: a byte sent makes work for the
//! hypervisor's console later.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
extern crate alloc;

#[cfg(target_os = "none")]
mod device;
#[cfg(target_os = "none")]
mod exits;
#[cfg(target_os = "none")]
mod framework;
#[cfg(target_os = "none")]
mod gpio;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod interrupts;
#[cfg(target_os = "none")]
mod messages;
#[cfg(target_os = "none")]
mod pair;
#[cfg(target_os = "none")]
mod program;
#[cfg(target_os = "none")]
mod repoint;

/// On a host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("bench-guest runs as a domain's kernel: `cargo xtask bench` builds and boots it");
}
