//! Taking a coprocessor into use, and out of use again: at boot as at run time.
//!
//! A coprocessor that is described belongs to the hypervisor alone until it is shared, and again when it no longer is: no bus mastering,
//! no decoding of its registers, interrupts masked at the source, streams on abort. Ending takes as long as the last
//! context takes to leave; [`attend`] finishes it, called like everything that is buried.

use super::sharing::Instance;
use super::{attachment, recording};
use alloc::format;
use alloc::string::{String, ToString};
use coproc_core::algorithm::Tuning;
use coproc_core::coproc::{Coproc, Stage, State};
use coproc_core::environment::Environment;
use coproc_core::record::Input;

/// Starts to share it, with the algorithm and the settings of the configuration.
///
/// # Errors
/// What the driver, the algorithm or the IOMMU has against it, for people; then it stays unshared, unless it had been quarantined and
/// doesn't let itself be reset: then it is quarantined.
pub fn begin(instance: &Instance) -> Result<(), String> {
    instance.with(|coproc, machine| {
        let recipe = &instance.recipe;
        // The rest of the settings it is told when it starts.
        let tuning = Tuning::new(recipe.settings.slice);
        let algorithm = sched_algos::by_name(&recipe.scheduler, &tuning)
            .ok_or_else(|| format!("algorithm {} is not compiled in", recipe.scheduler))?;
        coproc
            .configure(algorithm, recipe.settings)
            .map_err(|error| error.to_string())?;
        machine.open();
        let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.start(env);
        let started = recording::feed(coproc, machine, Input::Start, call, |result| result.into());
        if let Err(error) = started {
            machine.isolate();
            return Err(error.to_string());
        }
        match coproc.state() {
            State::Quarantined { why } => Err(why.to_string()),
            _ => Ok(()),
        }
    })
}

/// Ends the sharing; [`Instance::is_ending`] tells when that is over.
pub fn end(instance: &Instance) {
    instance.set_ending(true);
    let _ = instance.with(|coproc, machine| coproc.stop(machine));
    attachment::occupy();
}

/// Finishes what [`end`] began, if the last context is gone. Returns whether something is left to do.
pub fn attend(instance: &Instance) -> bool {
    if !instance.is_ending() {
        return false;
    }
    let over = instance.with(|coproc, machine| {
        // What its shares had is given back, too.
        let over = coproc.stage() == Stage::Off && machine.is_deserted();
        if over {
            machine.isolate();
        }
        over
    });
    if over {
        instance.set_ending(false);
        log::info!("{}: not shared any more", instance.path);
    }
    !over
}
