//! The switch protocol, exhaustively, in small configurations.

use crate::explore::{Explored, explore};
use crate::machine::{MEMORY, SCRATCH, VALUE};
use crate::oracle::Trick;
use crate::world::{Deed, Setup};

pub fn setup(plan: &[(Deed, u8)], tricks: &[(Trick, u8)]) -> Setup {
    Setup {
        vcoprocs: 2,
        area: false,
        any: false,
        plan: plan.to_vec(),
        tricks: tricks.to_vec(),
        mutant: None,
        named: None,
    }
}

/// Tricks more than the default in each run.
fn deeper() -> u8 {
    let depth = std::env::var("BATON_PROOF_DEPTH");
    depth.ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn sound(name: &str, setup: &Setup) -> Explored {
    let start = std::time::Instant::now();
    let explored = explore(setup, None);
    eprintln!(
        "{name}: {} states, {} transitions, depth {}, {:?}",
        explored.states,
        explored.transitions,
        explored.depth,
        start.elapsed()
    );
    if let Some((why, story)) = &explored.broken {
        panic!("{name}: {why}\n{}", story.join("\n"));
    }
    assert!(explored.complete);
    explored
}

/// Both ways of saving, under round robin and under any algorithm there could be.
fn each(name: &str, plan: &[(Deed, u8)], tricks: &[(Trick, u8)]) {
    let more = deeper();
    let tricks: Vec<_> = tricks.iter().map(|(trick, n)| (*trick, n + more)).collect();
    for (area, any) in [(false, false), (true, true)] {
        let mut setup = setup(plan, &tricks);
        (setup.area, setup.any) = (area, any);
        if any && more == 0 {
            // The algorithm is a trick of its own.
            let one = (plan.len() == 1).then(|| (tricks[0].0, 1));
            setup.tricks = one.into_iter().collect();
        }
        let name = format!("{name}, save area {area}, any algorithm {any}");
        let explored = sound(&name, &setup);
        assert!(explored.states > 200, "{explored:?}");
    }
}

const RING: (Deed, u8) = (Deed::Ring, 1);
const KEEP: (Deed, u8) = (Deed::Write(MEMORY), 1);
const LOOK: (Deed, u8) = (Deed::Read(MEMORY), 1);

/// Every step of every kind may take time, at every moment.
#[test]
fn slow_steps() {
    each("slow steps", &[RING], &[(Trick::Again, 2)]);
}

/// Every step, sync and pointing of streams may fail: the guilty one loses the device, if the reset works; else all do.
#[test]
fn failing_steps() {
    each("failing steps", &[RING], &[(Trick::Fail, 2)]);
}

/// The timer may come later than every limit while a step is slow.
#[test]
fn late_timers() {
    let tricks = [(Trick::Late, 1), (Trick::Again, 1)];
    each("late timers", &[RING], &tricks);
}

/// The device's own memory, written and read by both; accesses that have to wait.
#[test]
fn memory_stays_with_its_owner() {
    each("memory", &[KEEP, LOOK], &[(Trick::Again, 1)]);
}

/// What no context holds is scrubbed before another one may look.
#[test]
fn scratch_is_never_seen_by_another() {
    let plan = [(Deed::Write(SCRATCH), 1), (Deed::Read(SCRATCH), 1)];
    each("scratch", &plan, &[(Trick::Retry, 1)]);
}

/// A register that is answered from the saved context at any time, and a doorbell.
#[test]
fn registers_in_the_saved_context() {
    let plan = [(Deed::Write(VALUE), 1), (Deed::Read(VALUE), 1)];
    each("registers", &plan, &[(Trick::Again, 1)]);
}

/// Interrupts that are early, late or nobody's, and guests that sample their lines at any moment.
#[test]
fn interrupts_at_every_event() {
    let tricks = [(Trick::Spurious, 1), (Trick::Meddle, 1), (Trick::Early, 1)];
    each("interrupts", &[RING], &tricks);
}

/// One is detached at any moment of a switch, and attached again under the same number.
#[test]
fn detach_and_attach() {
    let tricks = [(Trick::Detach, 1), (Trick::Attach, 1), (Trick::Again, 1)];
    each("detach and attach", &[RING], &tricks);
}

/// ... while steps fail.
#[test]
fn detach_while_failing() {
    let tricks = [(Trick::Detach, 1), (Trick::Attach, 1), (Trick::Fail, 1)];
    each("detach while failing", &[LOOK], &tricks);
}

/// Windows that the domain has moved, or nowhere; vCPUs that look again without being told.
#[test]
fn moving_windows() {
    let tricks = [(Trick::Meddle, 1), (Trick::Unplaced, 1), (Trick::Retry, 1)];
    each("moving windows", &[LOOK], &tricks);
}

/// DMA that the IOMMU stops is booked on the one whose job it was, however late the records are read.
#[test]
fn stray_dma() {
    let tricks = [(Trick::Stray, 1), (Trick::Again, 1)];
    each("stray DMA", &[RING], &tricks);
}

/// Three of them.
#[test]
fn three_vcoprocs() {
    let mut setup = setup(&[RING], &[(Trick::Again, deeper())]);
    setup.vcoprocs = 3;
    sound("three", &setup);
}
