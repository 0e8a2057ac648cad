//! DESIGN.md's hardware rules where Baton has to think of them.
//!
//! That the sequences are right is shown on the library's model of a processor (`processor::tests`). Here the whole program runs, and what it did is shown to
//! the same model, or to a rule that names what must come between. Each test also leaves the steps in question out of what was noted, and sees its rule
//! break ([`holds`]): so it isn't blind.

mod errata;
#[cfg(feature = "fw-core")]
mod firmware;
mod memory;
mod order;

#[cfg(feature = "fw-core")]
use super::cores;
use super::{boards, exits};
use crate::arch::fake::{self, Cpu, Event, in_own_process};
use crate::system::{self, lifecycle};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use hypervisor::guest_tree::layout;
use hypervisor::lifecycle::Operation;
use hypervisor::processor::fake::{Guest, Model, Step};
use hypervisor::processor::{Dsb, Register, Tlbi};
use hypervisor::vgic::Version;
use std::time::Duration;

type Verdict = Result<(), String>;

/// A rule holds for what was noted, and doesn't if any of these kinds of steps is left out of it.
fn holds(trace: &[Event], rule: impl Fn(&[Event]) -> Verdict, kinds: &[fn(&Event) -> bool]) {
    if let Err(broken) = rule(trace) {
        panic!("{broken}");
    }
    for (number, kind) in kinds.iter().enumerate() {
        let rest: Vec<Event> = trace.iter().filter(|event| !kind(event)).copied().collect();
        assert_ne!(rest.len(), trace.len(), "there is nothing of kind {number}");
        assert!(rule(&rest).is_err(), "kind {number} isn't needed");
    }
}

fn is_ic(event: &Event) -> bool {
    matches!(event, Event::Step(Step::Ic(_)))
}

fn is_dc(event: &Event) -> bool {
    matches!(event, Event::Step(Step::Dc(..)))
}

fn is_tlbi(event: &Event) -> bool {
    matches!(event, Event::Step(Step::Tlbi(_)))
}

fn is_isb(event: &Event) -> bool {
    *event == Event::Step(Step::Isb)
}

fn is_dsb(event: &Event) -> bool {
    matches!(event, Event::Step(Step::Dsb(_)))
}

/// The model at the end of what was noted, which knows of these lines.
fn at_end(trace: &[Event], lines: &[usize]) -> Model {
    from(Model::default(), trace, lines)
}

/// The same from another beginning.
fn from(mut model: Model, trace: &[Event], lines: &[usize]) -> Model {
    for step in fake::steps(trace, lines) {
        model.step(step);
    }
    model
}

/// Until it tells another CPU, or runs a guest itself.
fn until(trace: &[Event], end: impl Fn(&Event) -> bool) -> &[Event] {
    let end = trace.iter().position(end).expect("it never comes");
    &trace[..end]
}

/// What has to be in force before something is looked at or begun: after each of `writes` comes a barrier before any of `uses`.
fn synchronised(
    trace: &[Event],
    writes: impl Fn(&Event) -> bool,
    barrier: impl Fn(&Event) -> bool,
    uses: impl Fn(&Event) -> bool,
) -> Verdict {
    let mut pending = None;
    let mut seen = false;
    for (index, event) in trace.iter().enumerate() {
        if let (Some(written), true) = (pending, uses(event)) {
            let between = &trace[written..=index];
            return Err(alloc::format!("not in force: {between:x?}"));
        }
        if writes(event) {
            pending = Some(index);
            seen = true;
        } else if barrier(event) {
            pending = None;
        }
    }
    if seen {
        Ok(())
    } else {
        Err("nothing was written".to_string())
    }
}

/// A guest that is resumed, or sleep.
fn ends(event: &Event) -> bool {
    matches!(event, Event::Enter(..) | Event::Step(Step::Wfi))
}
