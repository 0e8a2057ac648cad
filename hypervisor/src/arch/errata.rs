//! Carries out what [`hypervisor::errata`] and [`hypervisor::speculation`] decide.

use super::power::Conduit;
use super::processor::This;
use super::registers::read;
use super::{cpu, entropy, timer};
use core::sync::atomic::{AtomicU8, Ordering};
use hypervisor::errata::{Errata, Midr};
use hypervisor::processor::controls;
use hypervisor::speculation::{BranchPredictor, Hardening, NOT_SUPPORTED, Remedies, Workaround};
use spin::{Mutex, Once};

/// What the CPUs have that have started, together.
static FOUND: AtomicU8 = AtomicU8::new(0);
/// What there is on all of them.
static REMEDIES: Mutex<Option<Remedies>> = Mutex::new(None);

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
    // Without firmware an SMC is UNDEFINED, or worse.
    let wanted = if firmware { wanted } else { Hardening::Auto };
    let remedies = Remedies::find(midr, read!("id_aa64pfr0_el1"), |function, argument| {
        if firmware {
            let [answer, ..] = entropy::call(function, argument.into());
            answer as i32
        } else {
            NOT_SUPPORTED
        }
    });
    let mut all = REMEDIES.lock();
    *all = Some(all.map_or(remedies, |all| all.and(remedies)));
    drop(all);
    let predictor = BranchPredictor::policy(remedies, wanted);
    let mut cost = 0;
    if let BranchPredictor::Firmware(workaround) = predictor {
        cpu::current().clear_predictor_by(workaround as u32);
        const CALLS: u64 = 16;
        let before = timer::now();
        for _ in 0..CALLS {
            mitigate(workaround);
        }
        cost = timer::now().since(before).as_nanos() / CALLS;
    }
    controls::protect_exits(&mut This, predictor);
    Decision {
        midr,
        errata,
        predictor,
        cost,
    }
}

/// Lets the firmware do this on this CPU: for the vectors' other half, a guest that asks for it.
pub fn mitigate(workaround: Workaround) {
    // What it answers changes nothing: the call itself is the remedy.
    let _ = entropy::call(workaround as u32, 0);
}

/// What there is on every CPU: guests are told what would protect *them*.
pub fn remedies() -> Remedies {
    REMEDIES.lock().unwrap_or_default()
}
