//! Feeding the framework, with or without a record.
//!
//! Whoever calls the framework does it through [`feed`], which costs a coprocessor that isn't recorded one test.

use super::sharing::Machine;
use coproc_core::coproc::Coproc;
use coproc_core::environment::Environment;
use coproc_core::record::{Answer, Input, Recorder};

/// Room for the text of one coprocessor's record, in bytes.
#[cfg(feature = "sharing")]
pub const CAPACITY: usize = 1 << 20;

/// Calls the framework: `call` must be what `input` names. `answer` says what its result is in a record.
pub fn feed<R>(
    coproc: &mut Coproc,
    machine: &mut Machine<'_>,
    input: Input<'_>,
    call: impl FnOnce(&mut Coproc, &mut dyn Environment) -> R,
    answer: impl FnOnce(&R) -> Answer,
) -> R {
    let Some(mut log) = machine.log.take() else {
        return call(coproc, machine);
    };
    let result = Recorder::feed(machine, &mut log, coproc, input, call, answer);
    *machine.log = Some(log);
    result
}

/// Calls the framework where it answers nothing.
pub fn tell(
    coproc: &mut Coproc,
    machine: &mut Machine<'_>,
    input: Input<'_>,
    call: impl FnOnce(&mut Coproc, &mut dyn Environment),
) {
    feed(coproc, machine, input, call, |()| Answer::Done);
}
