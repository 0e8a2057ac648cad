//! Which part this machine plays, by the kernel's command line.

use crate::{
    aborts, delivery, exception, features, fuzz, gic, identification, power, random, registers,
    report, timer, work,
};
use core::fmt::Write as _;
use core::panic::PanicInfo;
use guest_runtime::machine::{self, Console};
use guest_runtime::tree::Tree;

core::arch::global_asm!(include_str!("../../runtime/src/start.S"));
core::arch::global_asm!(include_str!("vectors.S"));

fn checks(domain: bool) {
    if domain {
        report::in_a_domain();
    }
    if !gic::is_v2() {
        gic::write32(gic::GICR + 0x14, 0);
        exception::write(gic::SRE, 7);
    }
    registers::run();
    gic::forward(true);
    power::run(domain);
    delivery::run();
    timer::run();
    identification::run(domain);
    aborts::run();
    report::done();
}

#[unsafe(no_mangle)]
extern "C" fn guest_main(tree: u64, _begun: u64) -> ! {
    let tree = Tree::at(tree);
    gic::find(&tree);
    match tree.word_after(b"conformance=") {
        Some(b"check") => checks(false),
        Some(b"domain") => checks(true),
        Some(b"fuzz") => fuzz::run(tree.word_after(b"seed=").unwrap_or_default()),
        Some(b"turn") => work::run(1),
        Some(b"work") => work::run(u64::MAX),
        Some(b"spin") => work::spin(),
        Some(b"features") => {
            report::in_a_domain();
            features::run();
            report::done();
        }
        Some(b"random") => {
            report::in_a_domain();
            random::run(&tree);
            report::done();
            loop {
                machine::wait();
            }
        }
        _ => {
            let _ = writeln!(
                Console,
                "error: the command line doesn't say which part this is"
            );
        }
    }
    machine::off()
}

#[unsafe(no_mangle)]
extern "C" fn guest_lost(esr: u64, elr: u64, far: u64) -> ! {
    fuzz::go_on(esr, elr);
    let _ = writeln!(
        Console,
        "error: exception at {elr:#x}, ESR {esr:#x}, FAR {far:#x}"
    );
    machine::off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "error: {info}");
    machine::off()
}
