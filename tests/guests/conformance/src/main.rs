//! A domain's kernel that checks what the architecture promises, and ones that try everything and that work beside it.
//!
//! It runs at EL1 on QEMU `virt`'s address map, as a domain or on the bare machine, with two CPUs. `conformance=check` prints a line for each check,
//! `check name=N got=G expected=E`; on the bare machine the same lines must come. What the architecture leaves open is
//! printed as `open name=N got=G reason=R`, and what only a domain is promised, with `conformance=domain`, as `own name=N got=G expected=E`.
//! The end is `done checks=N wrong=W`.
//!
//! `conformance=fuzz seed=WORD` executes and accesses what a seeded generator says, for ever; `conformance=work` does known work and times it
//! (`turn`: once); `conformance=features` uses all that the ID registers show, whatever CPU it is;
//! `conformance=spin` only takes its CPU's time. `conformance=random` checks the random numbers that a domain has, tells its seeds and waits.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod aborts;
#[cfg(target_os = "none")]
mod delivery;
#[cfg(target_os = "none")]
mod exception;
#[cfg(target_os = "none")]
mod features;
#[cfg(target_os = "none")]
mod fuzz;
#[cfg(target_os = "none")]
mod gic;
#[cfg(target_os = "none")]
mod identification;
#[cfg(target_os = "none")]
mod power;
#[cfg(target_os = "none")]
mod program;
#[cfg(target_os = "none")]
mod random;
#[cfg(target_os = "none")]
mod registers;
#[cfg(target_os = "none")]
mod report;
#[cfg(target_os = "none")]
mod timer;
#[cfg(target_os = "none")]
mod work;

/// On a host there is nothing to run.
#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("conformance-guest runs as a domain's kernel, booted by the tests");
}
