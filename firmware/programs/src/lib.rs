//! What several firmwares have in common: their main loops.
#![no_std]
#![forbid(unsafe_code)]

#[cfg(target_os = "none")]
mod on_core {
    use fw_core_abi::SHARED_BASE;
    use fw_logic::engine::{Engine, Platform as _, Service};
    use fw_logic::protocol::{WORK, kind};
    use fw_runtime::{Core, announce, critical, exit, spin, wait_doorbell, write64};

    /// Does jobs whenever the domain rings.
    pub fn serve(kind: u32, service: impl Service) -> ! {
        let mut core = Core::new();
        let mut engine = Engine::new(service);
        announce(kind);
        loop {
            wait_doorbell(&mut core);
            if let Err(code) = engine.serve(&mut core) {
                exit(code);
            }
        }
    }

    /// Rounds of [`spin`] in a unit of work.
    const UNIT: u64 = 20_000;

    /// Units that [`reluctant`] does in one critical section: longer than a slice, shorter than the refusal bound.
    const SECTION: u64 = 200;

    /// Works and counts, for ever, almost all of it in critical sections.
    pub fn reluctant() -> ! {
        announce(kind::METER);
        let mut units = 0_u64;
        loop {
            critical(|| {
                for _ in 0..SECTION {
                    spin(UNIT);
                    units = units.wrapping_add(1);
                    write64(SHARED_BASE + WORK, units);
                }
            });
            spin(1);
        }
    }

    /// Works and counts, for ever; looks between two units whether the core is wanted, or never does.
    pub fn meter(cooperates: bool) -> ! {
        let mut core = Core::new();
        announce(kind::METER);
        let mut units = 0_u64;
        loop {
            spin(UNIT);
            units = units.wrapping_add(1);
            write64(SHARED_BASE + WORK, units);
            if cooperates {
                core.breathe();
            }
        }
    }
}

#[cfg(target_os = "none")]
pub use on_core::{meter, reluctant, serve};

/// Ends a firmware's file: its entry on the core, a word of explanation on a host.
#[macro_export]
macro_rules! firmware {
    ($main:path) => {
        #[cfg(target_os = "none")]
        fw_runtime::entry!($main);

        /// On a host there is nothing to run.
        #[cfg(not(target_os = "none"))]
        fn main() {
            eprintln!("firmware for a firmware core: `cargo xtask build` makes its image");
        }
    };
}
