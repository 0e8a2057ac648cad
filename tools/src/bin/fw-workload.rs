//! `fw-workload`: drives a firmware core from a domain, as [`baton_tools::firmware`] says.
//!
//! It runs as init, or beside `edu-workload` under the init `workloads`. What it does is chosen on the kernel command line; see
//! [`baton_tools::firmware::options`].

use baton_tools::firmware::modes;
use baton_tools::firmware::options::Options;
use baton_tools::os::{
    console, function::Function, memory::DmaMemory, opening, real_core::RealCore, system,
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
    system::rest();
}

fn run(options: &mut Options) -> io::Result<()> {
    system::mount_all()?;
    console::open();
    let (parsed, mistakes) = Options::parse(&system::command_line()?);
    *options = parsed;
    let mode = options.mode.to_string();
    opening::begin(&options.name, &mode, &mistakes, options.wait)?;
    for module in ["uio", "uio_pci_generic"] {
        system::load_module(module)?;
    }
    let functions = Function::find(fw_core_abi::VENDOR, fw_core_abi::DEVICE)?;
    let Some(function) = functions.get(options.device) else {
        return Err(io::Error::other(format!(
            "firmware core {} (PCI {:04x}:{:04x}): not found, there are {}",
            options.device,
            fw_core_abi::VENDOR,
            fw_core_abi::DEVICE,
            functions.len()
        )));
    };
    let memory = DmaMemory::allocate(options.huge)?;
    let mut core = RealCore::open(function, memory)?;
    console::print(&format!(
        "workload: device slot={} functions={} {}",
        function.slot(),
        functions.len(),
        core.describe()?
    ));
    modes::run(core, options)
}
