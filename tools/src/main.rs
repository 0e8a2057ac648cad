//! `edu-workload`: init of a domain that shares an edu device, or of a Linux that has it alone.
//!
//! It is the initramfs's only program, started by an unmodified kernel, and uses the device the way any
//! user-space driver would: `uio_pci_generic` for interrupts, the function's resource file for registers, its
//! own locked memory for DMA. It can't tell whether it shares the device, which is what it is there to show.
//! What it does is chosen on the kernel command line; see [`baton_tools::options`].
//!
//! As PID 1 it must never return: every end, errors and panics included, prints its line and then sleeps
//! or, with `workload.poweroff=1`, switches off, or, with `workload.reboot=1`, restarts.

use baton_tools::edu;
use baton_tools::modes;
use baton_tools::options::{Mode, Options};
use baton_tools::os::{
    console, function::Function, memory::DmaMemory, opening, real::RealMachine, system,
};
use baton_tools::report;
use std::io;
use std::panic;

fn main() {
    panic::set_hook(Box::new(|info| {
        console::print(&report::error(&format!("panic: {info}")));
        system::rest();
    }));
    let mut options = Options::default();
    if let Err(error) = run(&mut options) {
        console::print(&report::error(&error.to_string()));
    }
    if options.poweroff {
        system::power_off();
    }
    if options.reboot {
        system::restart();
    }
    system::rest();
}

fn run(options: &mut Options) -> io::Result<()> {
    system::mount_all()?;
    console::open();
    let (parsed, mistakes) = Options::parse(&system::command_line()?);
    *options = parsed;
    let mode = options.mode.to_string();
    opening::begin(&options.name, &mode, &mistakes, options.wait)?;
    if options.mode == Mode::Idle {
        console::print("workload: ready");
        return Ok(());
    }

    for module in ["uio", "uio_pci_generic"] {
        system::load_module(module)?;
    }
    let mut huge = options.huge;
    loop {
        match use_device(options, huge) {
            Err(error) if options.hotplug && error.kind() == io::ErrorKind::NotConnected => {}
            result => return result,
        }
        for function in Function::find(edu::VENDOR, edu::DEVICE)? {
            function.remove()?;
        }
        console::print("workload: the device is gone");
        let line = console::read_line()?;
        console::print(&format!("workload: read \"{line}\""));
        Function::rescan()?;
        // The kernel has one only, and keeps it.
        huge = false;
    }
}

/// Uses the device until the mode is over, or the device is gone.
fn use_device(options: &Options, huge: bool) -> io::Result<()> {
    let functions = Function::find(edu::VENDOR, edu::DEVICE)?;
    let Some(function) = functions.get(options.device) else {
        return Err(io::Error::other(format!(
            "edu function {} (PCI {:04x}:{:04x}): not found, there are {}",
            options.device,
            edu::VENDOR,
            edu::DEVICE,
            functions.len()
        )));
    };
    let memory = DmaMemory::allocate(huge)?;
    let mut machine = RealMachine::open(function, memory)?;
    console::print(&format!(
        "workload: device slot={} functions={} {}",
        function.slot(),
        functions.len(),
        machine.describe()?
    ));
    machine.check_identity()?;
    modes::run(machine, options)
}
