//! `workloads`: init of a domain that has an edu device, a firmware core, or both.
//!
//! Starts `edu-workload` if the kernel command line has options for it (`workload.…`), and `fw-workload` likewise (`firmware.…`).

use baton_tools::os::{console, system};
use baton_tools::report;
use std::io;
use std::process::Command;

const PROGRAMS: [(&str, &str); 2] = [
    ("workload.", "/bin/edu-workload"),
    ("firmware.", "/bin/fw-workload"),
];

fn main() {
    if let Err(error) = run() {
        console::print(&report::error(&error.to_string()));
    }
    system::rest();
}

fn run() -> io::Result<()> {
    system::mount_all()?;
    console::open();
    let line = system::command_line()?;
    // Before the programs do: two that load the same module at once get in each other's way.
    for module in ["uio", "uio_pci_generic"] {
        system::load_module(module)?;
    }
    let mut children = Vec::new();
    for (prefix, program) in PROGRAMS {
        if line
            .split_ascii_whitespace()
            .any(|word| word.starts_with(prefix))
        {
            let child = Command::new(program).spawn();
            children.push((
                program,
                child.map_err(|error| system::about(program, error))?,
            ));
        }
    }
    if children.is_empty() {
        return Err(io::Error::other("no options for any program"));
    }
    for (program, mut child) in children {
        let status = child.wait()?;
        // They never end by themselves.
        console::print(&report::error(&format!("{program}: {status}")));
    }
    Ok(())
}
