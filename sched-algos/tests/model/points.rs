//! An interrupt at every point of a switch (F8), and a hostile reader after each (F6).
//!
//! A switch is a sequence of calls into the driver and the hypervisor. The device knows nothing of it: here its job ends before the
//! first of these calls, before the second, and so on, until after many refusals.

use coproc_core::coproc::State;

use crate::machine::{MEMORY, SCRATCH, VALUE};
use crate::protocol::setup;
use crate::world::{Deed, Move, World, v};

const SECRET: [Deed; 3] = [
    Deed::Write(VALUE),
    Deed::Write(MEMORY),
    Deed::Write(SCRATCH),
];
const PRY: [Deed; 3] = [Deed::Read(VALUE), Deed::Read(MEMORY), Deed::Read(SCRATCH)];

/// One has a job running and secrets in the device, two waits; the job ends before call `at` from here.
fn world(at: u32, area: bool) -> World {
    let deeds = SECRET.iter().chain(&PRY).chain(&[Deed::Ring]);
    let plan: Vec<_> = deeds.map(|deed| (*deed, 9)).collect();
    let mut setup = setup(&plan, &[]);
    setup.area = area;
    let mut world = World::new(&setup, &[]);
    world.m().oracle.sound = true;
    for deed in SECRET {
        world.play(Move::Begin(v(1), deed));
    }
    world.play(Move::Begin(v(1), Deed::Ring));
    assert_eq!(world.m().device.job, Some(v(1)));
    world.play(Move::Begin(v(2), Deed::Ring));
    let mut m = world.m();
    m.finish_at = Some(m.calls + at);
    drop(m);
    world
}

#[test]
fn an_interrupt_at_every_point_of_a_switch_goes_to_its_owner() {
    for area in [false, true] {
        let (mut points, mut taken, mut drained) = (0, 0, 0);
        for at in 0..120 {
            let mut world = world(at, area);
            // Only the timer, until two has the device; the handler of one is slow.
            for _ in 0..400 {
                if world.m().device.irq && !world.m().masked {
                    world.play(Move::Interrupt);
                } else {
                    world.play(Move::Timer);
                }
                if world.coproc.current() == Some(v(2)) {
                    break;
                }
            }
            assert_eq!(world.m().violation, None, "point {at}");
            points += 1;
            assert_eq!(world.coproc.current(), Some(v(2)), "point {at}");
            {
                let mut m = world.m();
                assert_eq!(m.lines.get(&v(1)), Some(&true), "point {at}");
                assert_ne!(m.lines.get(&v(2)), Some(&true), "point {at}");
                m.finish_at = None;
            }
            let report = world.coproc.report(world.now());
            assert_eq!(report.vcoprocs[1].counters.interrupts, 0, "point {at}");
            match report.vcoprocs[0].counters.interrupts {
                0 => drained += 1,
                _ => taken += 1,
            }
            // Two looks for what one left behind; the checks compare every value.
            for deed in PRY {
                world.play(Move::Begin(v(2), deed));
                assert_eq!(world.m().violation, None, "point {at}, {deed:?}");
            }
            world.settle();
            assert_eq!(world.m().violation, None, "point {at}");
            for deed in PRY {
                world.play(Move::Begin(v(1), deed));
                world.settle();
                assert_eq!(world.m().violation, None, "point {at}, {deed:?}");
            }
            assert!(matches!(world.coproc.state(), State::Idle { .. }));
        }
        eprintln!("{points} points: {taken} taken, {drained} drained");
        assert!(taken > 0 && drained > 0);
    }
}
