//! What the trace says, against what happened and what the books say.

use crate::bench::*;
use coproc_core::algorithm::{Parameters, Tuning};
use coproc_core::coproc::{Reason, Settings, Spread, Stage};
use coproc_core::environment::Environment;
use coproc_core::iommu::Faults;
use coproc_core::time::Duration;
use coproc_core::trace::{TraceEvent, TraceKind};

/// The transitions: (event, from, to, reason).
fn transitions(rig: &Rig) -> Vec<(TraceEvent, Stage, Stage, Option<Reason>)> {
    let all = rig.bench.trace.iter();
    all.filter_map(|event| match event.kind {
        TraceKind::Transition { from, to, reason } => Some((*event, from, to, reason)),
        _ => None,
    })
    .collect()
}

/// Every transition is there, in order, and the spans add up: to the time that passed, and to what the ledger booked, which
/// keeps its own count.
pub fn agrees_with_the_books(rig: &Rig) {
    let (mut stage, mut at) = (Stage::Off, rig.start);
    let (mut used, mut idle, mut all) = (0, 0, 0);
    let mut book = |stage: Stage, spent: u64| {
        all += spent;
        match stage {
            Stage::Running | Stage::Quiescing => used += spent,
            Stage::Off | Stage::Starting | Stage::Idle => idle += spent,
            _ => {}
        }
    };
    for (event, from, to, reason) in transitions(rig) {
        assert_eq!(from, stage, "a transition is missing before {event:?}");
        assert_eq!(
            event.at.as_nanos(),
            at + event.spent.as_nanos(),
            "{event:?}"
        );
        assert_eq!(
            reason.is_some(),
            from == Stage::Running || to == Stage::AbortingStreams && from == Stage::Quiescing
        );
        book(from, event.spent.as_nanos());
        (stage, at) = (to, event.at.as_nanos());
    }
    assert_eq!(stage, rig.coproc.stage(), "the last transition is missing");
    book(stage, rig.bench.now - at);
    let time = rig.coproc.report(rig.bench.now()).time;
    assert_eq!(all, time.elapsed.as_nanos());
    assert_eq!(used, time.charge.as_nanos(), "what the slices used");
    assert_eq!(idle, time.idle.as_nanos());
    let rest = time.overhead.saturating_add(time.fault);
    assert_eq!(all - used - idle, rest.as_nanos());
}

/// Every interrupt is told with an epoch of its owner's: whose residence that was, the transitions say. Returns how many were given
/// to the one that has the device, and how often one left with some pending.
pub fn interrupts_have_their_owners_epoch(rig: &Rig) -> (usize, usize) {
    let mut owners = std::collections::BTreeMap::new();
    let (mut given, mut drained) = (0, 0);
    for event in &rig.bench.trace {
        match event.kind {
            TraceKind::Transition {
                to: Stage::Running, ..
            } => {
                // A renewed slice is of the same residence.
                let owner = *owners.entry(event.epoch).or_insert(event.vcoproc);
                assert_eq!(owner, event.vcoproc, "{event:?}");
            }
            TraceKind::Interrupt(_) => given += 1,
            TraceKind::Drained => drained += 1,
            _ => continue,
        }
        assert_eq!(owners.get(&event.epoch), Some(&event.vcoproc), "{event:?}");
    }
    (given, drained)
}

/// What comes while its owner has the device is told with its epoch, and what is taken along at a switch, too.
#[test]
fn interrupts_are_told_with_their_epoch() {
    let mut rig = two(true);
    rig.handlers = false;
    rig.bench.device.job_time = SLICE.as_nanos() / 2;
    rig.write(1, DOORBELL, 1);
    rig.run(3 * SLICE.as_nanos());
    // One's next job ends while it is asked to stop, as two wants the device.
    rig.bench.device.job_time = 2 * SLICE.as_nanos();
    rig.write(1, DOORBELL, 1);
    rig.write(2, VALUE, 2);
    let _ = rig.read(2, BUFFER);
    rig.run(4 * SLICE.as_nanos());
    let (given, drained) = interrupts_have_their_owners_epoch(&rig);
    assert!(
        given >= 1 && drained >= 1,
        "{given} given, {drained} drained"
    );
}

fn two(area: bool) -> Rig {
    let mut rig = Rig::new(2, area);
    rig.write(1, VALUE, 1);
    rig.write(2, VALUE, 2);
    rig
}

/// One switch of a device that saves by DMA: all of its stages, whose they were, and why it began.
#[test]
fn a_switch_is_told_step_by_step() {
    use Stage::*;
    let mut rig = two(true);
    rig.run(50_000);
    rig.bench.trace.clear();
    rig.write(2, DOORBELL, 1);
    rig.run(3 * SLICE.as_nanos() / 2);
    let told = transitions(&rig);
    let way: Vec<_> = told.iter().map(|(_, _, to, _)| *to).take(15).collect();
    let expected = [
        Quiescing,
        SavingDrain,
        SavingSettle,
        SavingAbort,
        SavingFaults,
        SavingOpenArea,
        SavingSave,
        SavingScrub,
        SavingCloseArea,
        Detached,
        RestoringOpenArea,
        RestoringRestore,
        RestoringCloseArea,
        RestoringOpenDomain,
        RestoringReplay,
    ];
    assert_eq!(way, expected);
    assert!(matches!(
        told[0].3,
        Some(Reason::Expired | Reason::Preempted)
    ));
    for (n, (event, _, to, _)) in told.iter().take(15).enumerate() {
        assert_eq!(event.vcoproc, Some(v(if n < 10 { 1 } else { 2 })), "{to:?}");
    }
    assert_eq!(told[15].2, Running);
    assert_eq!(told[15].0.epoch.0, told[0].0.epoch.0 + 1);
    // Saving and restoring are a DMA each, which takes its time.
    for stage in [SavingSave, RestoringRestore] {
        let (event, ..) = told.iter().find(|(_, from, ..)| *from == stage).unwrap();
        assert!(event.spent >= Duration::from_nanos(100), "{event:?}");
    }
    agrees_with_the_books(&{
        let mut rig = two(true);
        rig.run(20 * SLICE.as_nanos());
        rig
    });
}

/// What isn't a transition, but changes who may use the device or how.
#[test]
fn what_changes_is_told() {
    let mut rig = two(false);
    let (coproc, env) = (&mut rig.coproc, &mut rig.bench);
    let doubled = Parameters {
        weight: 2,
        ..Parameters::default()
    };
    coproc.set_parameters(env, v(2), &doubled).unwrap();
    let settings = Settings {
        refusal_bound: BOUND.saturating_mul(2),
        ..coproc.settings()
    };
    coproc.tune(env, settings).unwrap();
    let weighted = sched_algos::by_name("weighted", &Tuning::new(SLICE)).unwrap();
    coproc.replace_algorithm(env, weighted).unwrap();
    coproc.interrupt(env, 0);
    env.iommu = Faults {
        count: 5,
        ..Faults::default()
    };
    assert!(coproc.collect_faults(env));
    rig.run(3 * SLICE.as_nanos());
    rig.knobs().fail.insert(Op::Save, 1);
    rig.write(1, DOORBELL, 3);
    rig.write(2, DOORBELL, 3);
    rig.run(5 * SLICE.as_nanos());
    let _ = rig.detach(1);
    let _ = rig.detach(2);
    rig.run(5 * SLICE.as_nanos());
    let others = rig.bench.trace.iter().filter_map(|event| match event.kind {
        TraceKind::Transition { .. } | TraceKind::Interrupt(_) | TraceKind::Drained => None,
        kind => Some((event.vcoproc.map(|who| who.0), kind)),
    });
    let others: Vec<_> = others.collect();
    let current = others[6].0;
    assert!(current.is_some());
    let (guilty, innocent) = (others[7].0, Some(3 - others[7].0.unwrap()));
    let expected = [
        (Some(1), TraceKind::Attached),
        (Some(2), TraceKind::Attached),
        (Some(2), TraceKind::Parameters),
        (None, TraceKind::Tuned),
        (None, TraceKind::Algorithm("weighted")),
        (None, TraceKind::SpuriousInterrupt(0)),
        (current, TraceKind::IommuFaults(5)),
        (guilty, TraceKind::Failed("as told")),
        (guilty, TraceKind::Faulted("as told")),
        (Some(1), TraceKind::Detaching),
    ];
    assert_eq!(others[..expected.len()], expected);
    let ends: Vec<_> = others[expected.len()..].to_vec();
    for who in [guilty, innocent] {
        assert_eq!(
            ends.iter()
                .filter(|end| **end == (who, TraceKind::Detached))
                .count(),
            1
        );
    }
    assert!(ends.contains(&(Some(2), TraceKind::Detaching)));
    agrees_with_the_books(&rig);
}

/// A late interrupt, and a device that nothing can bring back.
#[test]
fn stray_interrupts_and_the_end_are_told() {
    let mut rig = two(false);
    rig.knobs().fail.insert(Op::Reset, 1);
    rig.knobs().fail.insert(Op::Drain, 1);
    rig.run(3 * SLICE.as_nanos());
    let told = |rig: &Rig, kind| {
        rig.bench
            .trace
            .iter()
            .filter(|event| event.kind == kind)
            .count()
    };
    assert_eq!(told(&rig, TraceKind::Failed("as told")), 1);
    assert_eq!(told(&rig, TraceKind::Quarantined("as told")), 1);
    assert_eq!(told(&rig, TraceKind::Faulted("as told")), 2, "both lose it");
    rig.bench.spurious_assert = true;
    rig.coproc.interrupt(&mut rig.bench, 0);
    assert_eq!(told(&rig, TraceKind::LateInterrupt(0)), 1);
    agrees_with_the_books(&rig);
}

/// Who waits, who refuses and who is switched to shows in its own histograms, and nobody else's.
#[test]
fn waits_refusals_and_switches_are_counted_for_each() {
    let mut rig = two(false);
    let spreads = |rig: &Rig, id| *rig.coproc.spreads(v(id)).unwrap();
    // The second one found the device taken, untouched since: it had to wait for one switch only, or for a slice at most.
    rig.run(2 * SLICE.as_nanos());
    let (first, second) = (spreads(&rig, 1), spreads(&rig, 2));
    assert!(first.wait.count >= 1 && second.wait.count >= 1);
    assert!(second.wait.max < SLICE.saturating_mul(2));
    assert_eq!(
        (first.refusal, second.refusal),
        (Spread::EMPTY, Spread::EMPTY)
    );

    // The first one's job outlasts its slice while the second one waits.
    rig.bench.device.job_time = 3 * SLICE.as_nanos();
    rig.knobs().again.insert(Op::Quiet, (0, 0));
    rig.write(1, DOORBELL, 1);
    rig.run(SLICE.as_nanos() / 2);
    rig.write(2, DOORBELL, 2);
    let before = spreads(&rig, 2).wait.count;
    rig.run(20 * SLICE.as_nanos());
    let (first, second) = (spreads(&rig, 1), spreads(&rig, 2));
    assert_eq!(first.refusal.count, 1, "{first:?}");
    assert!(first.refusal.max > SLICE, "{first:?}");
    assert_eq!(first.refusal.total, rig.counters(1).refused);
    assert!(second.wait.count > before);
    assert!(second.wait.max > SLICE.saturating_mul(2), "{second:?}");
    let report = rig.coproc.report(rig.bench.now());
    let (one, two) = (first.switch.count, second.switch.count);
    assert_eq!(report.switch_time.count, one + two);
    assert_eq!(
        (rig.counters(1).switches, rig.counters(2).switches),
        (one, two)
    );
    // Those of one that is gone stay in the sum.
    let _ = rig.detach(2);
    rig.run(5 * SLICE.as_nanos());
    assert!(rig.coproc.spreads(v(2)).is_none());
    let report = rig.coproc.report(rig.bench.now());
    assert!(report.switch_time.count >= one + two);
}
