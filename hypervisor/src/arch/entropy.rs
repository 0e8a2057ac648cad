//! The hardware's entropy: the CPUs' own generator (FEAT_RNG), or that of the firmware below EL2.
//!
//! A vCPU may go to any CPU, so the CPUs' generator counts only if all have it.

use super::power::Conduit;
use super::processor::Smc;
use super::registers::{read, rndrrs};
use core::sync::atomic::{AtomicBool, Ordering};
use entropy::{Source, trng};
use smccc::Call;

/// How often a CPU's generator that has nothing is asked for a word: each time takes what the CPU finds reasonable.
const TRIES: usize = 4;
/// What the TRNG interface demands of firmware that is asked for it: SMCCC 1.1.
const SMCCC_VERSION: i32 = 0x0001_0001;

/// Whether a CPU has no generator.
static LACKING: AtomicBool = AtomicBool::new(false);
/// Whether the firmware has one.
static FIRMWARE: AtomicBool = AtomicBool::new(false);

/// Where the entropy comes from.
#[derive(Clone, Copy)]
pub enum Entropy {
    /// The CPU's RNDRRS.
    Cpu,
    /// The firmware's TRNG_RND64.
    Firmware,
}

/// Asks the firmware what it has.
pub fn configure(conduit: Option<Conduit>) {
    // Without firmware an SMC is UNDEFINED, or worse.
    if conduit != Some(Conduit::Smc) {
        return;
    }
    let at_least = |id, argument, least| {
        let [answer, ..] = call(id, argument);
        answer as i32 >= least
    };
    let there = at_least(smccc::arch::SMCCC_VERSION, 0, SMCCC_VERSION)
        && at_least(trng::ID_VERSION, 0, trng::VERSION as i32)
        && at_least(trng::ID_FEATURES, u64::from(trng::ID_RND64), 0);
    FIRMWARE.store(there, Ordering::Relaxed);
}

/// Calls the firmware: what it leaves in X0 to X3.
#[inline(never)]
pub(super) fn call(id: u32, argument: u64) -> [u64; 4] {
    let mut arguments = [0; 17];
    let [first, ..] = &mut arguments;
    *first = argument;
    let [x0, x1, x2, x3, ..] = Smc::call64(id, arguments);
    [x0, x1, x2, x3]
}

/// Looks at this CPU. Before there are domains.
pub fn start() {
    // ID_AA64ISAR0_EL1.RNDR.
    if read!("id_aa64isar0_el1") >> 60 == 0 {
        LACKING.store(true, Ordering::Relaxed);
    }
}

/// Whether every CPU has FEAT_RNG.
pub fn on_every_cpu() -> bool {
    !LACKING.load(Ordering::Relaxed)
}

/// The best source of the machine, if it has one.
pub fn source() -> Option<Entropy> {
    match (on_every_cpu(), FIRMWARE.load(Ordering::Relaxed)) {
        (true, _) => Some(Entropy::Cpu),
        (false, true) => Some(Entropy::Firmware),
        (false, false) => None,
    }
}

impl Source for Entropy {
    fn fill(&mut self, words: &mut [u64]) -> bool {
        match self {
            Self::Cpu => words.iter_mut().all(|place| {
                let word = (0..TRIES).find_map(|_| rndrrs());
                *place = word.unwrap_or(0);
                word.is_some()
            }),
            Self::Firmware => {
                let [status, x1, x2, x3] = call(trng::ID_RND64, words.len() as u64 * 64);
                for (place, word) in words.iter_mut().zip([x3, x2, x1]) {
                    *place = word;
                }
                // Errors are negative.
                status as i32 >= 0
            }
        }
    }

    fn uuid(&mut self) -> [u32; 4] {
        match self {
            Self::Cpu => trng::UUID,
            Self::Firmware => call(trng::ID_GET_UUID, 0).map(|word| word as u32),
        }
    }
}
