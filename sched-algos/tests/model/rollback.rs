//! Each step that can fail is made to fail, in turn, and nothing is left behind (S4).

use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Detach, State};
use coproc_core::id::DomainId;

use crate::machine::{MEMORY, VALUE};
use crate::protocol::setup;
use crate::world::{Deed, Move, World, v};

/// Everything that an attach could leave behind.
fn traces(world: &World) -> String {
    let report = world.coproc.report(world.now());
    let books = world.books.lock().unwrap();
    let contexts = world.contexts.lock().unwrap();
    format!(
        "{:?} {:?} {:?} {:?} {:?}",
        report,
        books.known,
        books.awake,
        contexts,
        world.coproc.situation()
    )
}

/// The driver's context first, the algorithm's admission second: either refuses once.
#[test]
fn a_failed_attach_leaves_nothing() {
    for step in 0..2 {
        let mut world = World::new(&setup(&[], &[]), &[]);
        let before = traces(&world);
        world.m().fail_in = Some(step);
        let (coproc, env) = world.env();
        let refused = coproc.attach(env, v(7), DomainId(7), &Parameters::default());
        assert!(refused.is_err(), "step {step}");
        assert!(world.m().fail_in.is_none(), "the step was reached");
        assert_eq!(traces(&world), before, "step {step}");
        // The number is free.
        assert!(world.attach(v(7)));
        assert!(world.coproc.is_attached(v(7)));
        let (coproc, env) = world.env();
        assert_eq!(coproc.detach(env, v(7)), Ok(Detach::Done));
        assert_eq!(traces(&world), before, "attached and detached again");
    }
}

/// One vcoproc at work, another one waiting, the machine sound but for one call.
fn scene(fail_in: Option<u32>, area: bool) -> World {
    let plan = [
        (Deed::Write(VALUE), 1),
        (Deed::Ring, 1),
        (Deed::Read(MEMORY), 1),
    ];
    let mut setup = setup(&plan, &[]);
    setup.area = area;
    let mut world = World::new(&setup, &[]);
    world.m().oracle.sound = true;
    world.m().fail_in = fail_in;
    for deed in [Deed::Write(VALUE), Deed::Ring] {
        world.play(Move::Begin(v(1), deed));
    }
    world.play(Move::Begin(v(2), Deed::Read(MEMORY)));
    world.settle();
    world
}

/// Each call of the driver and of the IOMMU, in a switch there and back, fails once: one vcoproc is faulted, told, detached, and attached
/// again under its number; the other one never notices. Or the reset failed, and it says so.
#[test]
fn each_call_of_a_switch_fails_in_turn() {
    for area in [false, true] {
        let mut calls = 0;
        for fail_in in 0.. {
            let mut world = scene(Some(fail_in), area);
            if world.m().fail_in.is_some() {
                break;
            }
            calls += 1;
            let m = world.m().violation.clone();
            assert_eq!(m, None, "call {fail_in}");
            assert!(
                !matches!(world.coproc.state(), State::Quarantined { .. }),
                "one failure is no reason"
            );
            let faulted: Vec<_> = world
                .coproc
                .situation()
                .vcoprocs
                .iter()
                .filter(|own| own.faulted)
                .map(|own| own.id)
                .collect();
            assert_eq!(faulted.len(), 1, "call {fail_in}");
            let who = faulted[0];
            let contexts = world.contexts.lock().unwrap().len();
            let (coproc, env) = world.env();
            assert_eq!(coproc.detach(env, who), Ok(Detach::Done), "call {fail_in}");
            assert!(!world.coproc.is_attached(who));
            world.retire();
            assert_eq!(world.contexts.lock().unwrap().len(), contexts - 1);
            assert!(!world.books.lock().unwrap().known.contains_key(&who));
            assert!(world.coproc.report(world.now()).time.balanced());
            assert!(world.attach(who), "the number is free");
            let plan = &mut world.guests.get_mut(&who).unwrap().plan;
            plan.insert(Deed::Ring, 1);
            world.play(Move::Begin(who, Deed::Ring));
            world.settle();
            assert_eq!(world.m().violation, None, "call {fail_in}, after attach");
            assert_eq!(world.m().executed[&who].len(), 1);
        }
        assert!(calls >= 20, "{calls} calls that can fail");
        assert!(scene(None, area).m().violation.is_none());
    }
}
