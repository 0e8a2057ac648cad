//! Tries what a firmware has no business with, tells the domain what came of it, and checks that its own context survives.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
mod on_core {
    use fw_core_abi::SHARED_BASE;
    use fw_logic::probes::{
        LEAKED, LOST, PROBED, PROBES, REPORT_STRIDE, REPORTS, ROUNDS, WENT_THROUGH, task,
    };
    use fw_logic::protocol::kind;
    use fw_runtime::{
        announce, exit, inbox, initial_registers, notify, probe, read32, spin, write32, write64,
    };

    pub fn run(argument: u64) -> ! {
        // Before anything else could change them.
        let leaked = probe::not_zero() + u64::from(initial_registers() != 0);
        match argument {
            task::READ => {
                announce(kind::HOSTILE);
                let _ = read32(inbox());
                notify(WENT_THROUGH);
            }
            task::WRITE => {
                announce(kind::HOSTILE);
                write32(inbox(), 0xffff_ffff);
                notify(WENT_THROUGH);
            }
            task::BRANCH => {
                announce(kind::HOSTILE);
                probe::branch(inbox());
                notify(WENT_THROUGH);
            }
            task::EXIT => exit(inbox() as u32),
            task::PANIC => panic!("as asked"),
            _ => probes(leaked),
        }
        loop {
            spin(u64::MAX);
        }
    }

    fn probes(leaked: u64) -> ! {
        let seed = inbox();
        write64(SHARED_BASE + LEAKED, leaked);
        announce(kind::HOSTILE);
        probe::allow_floating_point();
        for (index, at) in
            (0..PROBES.len()).zip((SHARED_BASE + REPORTS..).step_by(REPORT_STRIDE as usize))
        {
            let (came, value) = probe::run(index);
            write64(at, came);
            write64(at + 8, value);
        }
        notify(PROBED);
        let kept = probe::fill(seed);
        let (mut rounds, mut lost) = (0_u64, 0_u64);
        loop {
            spin(1000);
            lost += probe::changed(&kept);
            rounds += 1;
            write64(SHARED_BASE + LOST, lost);
            write64(SHARED_BASE + ROUNDS, rounds);
        }
    }
}

#[cfg(target_os = "none")]
use on_core::run;

firmware::firmware!(run);
