//! The claims of first light, each as a test on a booted machine.

mod boot;
mod configuration;
mod conformance;
mod console;
mod devices;
mod everything;
mod firmware;
mod fuzz;
mod hostile;
mod isolation;
mod lifecycle;
mod linux;
mod live;
mod machines;
mod many;
mod messages;
mod passthrough;
mod pools;
mod recording;
mod registers;
mod sharing;
mod tree;
mod variants;
mod vcpus;

use qemu_boot::scenario::CoprocSpec;
use qemu_boot::{DomainSpec, Scenario};

/// A machine with one edu that all these domains share; domain N gets these options besides its name and seed, and the
/// CPUs take turns.
fn sharing(name: &str, options: &[&str]) -> Scenario {
    let mut scenario = Scenario::new(name);
    scenario.edu_devices = 1;
    scenario.coprocs.push(CoprocSpec::edu(1));
    for (options, number) in options.iter().zip(1..) {
        let cpu = (number - 1) % scenario.cpus;
        let bootargs = format!("quiet panic=-1 {}", workload(number, options));
        let mut domain = DomainSpec::linux(cpu, &bootargs).with_coproc(0);
        domain.memory_kib = 256 << 10;
        scenario.domains.push(domain);
    }
    scenario
}

/// The workload's options on domain N's kernel command line.
fn workload(number: u32, options: &str) -> String {
    let mut line = format!("workload.name=d{number} workload.seed={number}");
    for option in options.split_whitespace() {
        line.push_str(" workload.");
        line.push_str(option);
    }
    line
}
