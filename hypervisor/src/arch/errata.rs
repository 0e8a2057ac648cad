//! Carries out what [`hypervisor::errata`] decides.

use super::power::Conduit;
use super::processor::This;
use super::registers::read;
use super::timer;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use hypervisor::errata::{BranchPredictor, Errata, Hardening, Midr, Offer};
use hypervisor::processor::controls;
use hypervisor::psci::{Mitigation, Workarounds};
use smccc::{Smc, arch};
use spin::Once;

/// SMCCC_ARCH_WORKAROUND_1 (Arm DEN 0028, 7.4).
const WORKAROUND_1: u32 = 0x8000_8000;

/// What the CPUs have that have started, together.
static FOUND: AtomicU8 = AtomicU8::new(0);
/// One of them calls its firmware at exits; one of them may need it and can't.
static CALLED: AtomicBool = AtomicBool::new(false);
static EXPOSED: AtomicBool = AtomicBool::new(false);

/// Whether there is firmware below EL2, and what is wanted.
static CONFIGURED: Once<(bool, Hardening)> = Once::new();

/// What was decided for this CPU.
pub struct Decision {
    /// Which core it is.
    pub midr: Midr,
    /// Its errata.
    pub errata: Errata,
    /// What it does about its branch predictor.
    pub predictor: BranchPredictor,
    /// What one call of the firmware takes, in ns, if it's called.
    pub cost: u64,
}

/// Whether a CPU has it.
#[inline(always)]
pub fn has(erratum: Errata) -> bool {
    FOUND.load(Ordering::Relaxed) & erratum.bits() != 0
}

/// All that a CPU has.
pub fn found() -> Errata {
    Errata::from_bits_truncate(FOUND.load(Ordering::Relaxed))
}

/// What `start` goes by on all CPUs. Before the first of them.
pub fn configure(conduit: Option<Conduit>, wanted: Hardening) {
    CONFIGURED.call_once(|| (conduit == Some(Conduit::Smc), wanted));
}

/// Looks at this CPU, and lets its exits do what it needs. Before there are domains, since they're told the sum.
pub fn start() -> Decision {
    let midr = Midr(read!("midr_el1"));
    let errata = Errata::of(midr);
    FOUND.fetch_or(errata.bits(), Ordering::Relaxed);
    let (firmware, wanted) = CONFIGURED.get().copied().unwrap_or_default();
    let offer = if firmware { offer() } else { Offer::None };
    // Without firmware an SMC is UNDEFINED, or worse.
    let wanted = if firmware { wanted } else { Hardening::Auto };
    let predictor = BranchPredictor::policy(midr, read!("id_aa64pfr0_el1"), offer, wanted);
    let mut cost = 0;
    if controls::protect_exits(&mut This, predictor) {
        CALLED.store(true, Ordering::Relaxed);
        const CALLS: u64 = 16;
        let before = timer::now();
        for _ in 0..CALLS {
            invalidate_predictor();
        }
        cost = timer::now().since(before).as_nanos() / CALLS;
    }
    if predictor == BranchPredictor::Exposed {
        EXPOSED.store(true, Ordering::Relaxed);
    }
    Decision {
        midr,
        errata,
        predictor,
        cost,
    }
}

/// What the firmware offers for this CPU.
fn offer() -> Offer {
    // PSCI 1.0 tells whether there is an SMCCC that can be asked; every later function identifier is answered then.
    match arch::features::<Smc>(WORKAROUND_1) {
        Ok(0) => Offer::Call,
        Ok(_) | Err(arch::Error::NotRequired) => Offer::Unneeded,
        Err(_) => Offer::None,
    }
}

/// Lets the firmware invalidate this CPU's branch predictor: for the vectors' other half, a guest that asks for it.
pub fn invalidate_predictor() {
    // What it answers changes nothing: the call itself is the remedy.
    let _ = arch::arch_workaround_1::<Smc>();
}

/// What guests are told about the calls that would protect *them*: a vCPU may go to any CPU, so the answers of all count.
pub fn workarounds() -> Workarounds {
    let branch_target = match (
        CALLED.load(Ordering::Relaxed),
        EXPOSED.load(Ordering::Relaxed),
    ) {
        (_, true) => Mitigation::Unknown,
        (true, false) => Mitigation::Required,
        (false, false) => Mitigation::NotAffected,
    };
    Workarounds {
        branch_target,
        ..Workarounds::default()
    }
}
