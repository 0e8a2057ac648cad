//! What is too large to be gone through: random runs of nine vcoprocs under every algorithm that is compiled in.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::machine::{MEMORY, SCRATCH, SLICE, VALUE};
use crate::oracle::Trick;
use crate::protocol::setup;
use crate::world::{Deed, Move, Vcpu, World};

fn compiled_in() -> impl Iterator<Item = &'static str> {
    let known = sched_algos::KNOWN.iter();
    known.filter(|(_, _, there)| *there).map(|(name, ..)| *name)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// Every rule of the model, whatever guests, device, driver, IOMMU and timer do; and in the end everything is done.
    #[test]
    fn nine_vcoprocs_under_every_algorithm(
        script in proptest::collection::vec(any::<u8>(), 1..400),
        area in any::<bool>(),
        tricks in proptest::collection::vec(0..6_u8, 11),
    ) {
        let all = [
            Trick::Again, Trick::Fail, Trick::Early, Trick::Late, Trick::Spurious, Trick::Retry,
            Trick::Meddle, Trick::Unplaced, Trick::Detach, Trick::Attach, Trick::Stray,
        ];
        let tricks: Vec<_> = all.into_iter().zip(tricks).collect();
        let plan = [Deed::Ring, Deed::Write(VALUE), Deed::Read(VALUE), Deed::Write(MEMORY),
            Deed::Read(MEMORY), Deed::Write(SCRATCH), Deed::Read(SCRATCH)].map(|deed| (deed, 4));
        for name in compiled_in() {
            let mut setup = setup(&plan, &tricks);
            (setup.vcoprocs, setup.area, setup.named) = (9, area, Some(name));
            let mut world = World::new(&setup, &script);
            // A lone possibility takes nothing from the script.
            for _ in 0..script.len() {
                if world.m().violation.is_some() || world.step().is_none() {
                    break;
                }
            }
            world.settle();
            let violation = world.m().violation.clone();
            prop_assert_eq!(violation, None, "{}", name);
        }
    }

    /// Nine that always have work: nobody waits longer than the algorithm promises.
    #[test]
    fn waiting_is_bounded(script in proptest::collection::vec(any::<u8>(), 500)) {
        for name in compiled_in() {
            let mut setup = setup(&[(Deed::Ring, 1)], &[(Trick::Again, 60)]);
            (setup.vcoprocs, setup.named) = (9, Some(name));
            let mut world = World::new(&setup, &script);
            let begin = world.now();
            for _ in 0..250 {
                let ids: Vec<_> = world.guests.keys().copied().collect();
                for who in ids {
                    if let Vcpu::Ready(_) = world.guests[&who].vcpus[0] {
                        world.play(Move::Go(who, 0));
                    }
                    let guest = world.guests.get_mut(&who).unwrap();
                    if guest.vcpus[0] == Vcpu::Free {
                        guest.plan.insert(Deed::Ring, 1);
                        world.play(Move::Begin(who, Deed::Ring));
                    }
                }
                world.step();
            }
            let violation = world.m().violation.clone();
            prop_assert_eq!(violation, None, "{}", name);
            let report = world.coproc.report(world.now());
            let n = report.vcoprocs.len() as u64;
            let rounds = match name {
                // Levels are equal here, and nothing is reserved.
                "rr" | "priority" => n - 1,
                "null" => 0,
                _ => 2 * (n - 1),
            };
            // 3 ns for each event of a slice, of which there are fewer than a hundred thousand.
            let turn = SLICE + report.measured.refusal + report.switch_time.max;
            let bound = rounds * (turn.as_nanos() + 100_000);
            let mut last = BTreeMap::new();
            for slice in world.coproc.slices() {
                let since = last.insert(slice.vcoproc, slice.to).unwrap_or(begin);
                let waited = slice.from.since(since).as_nanos();
                prop_assert!(waited <= bound + 100_000, "{name}: {} waited {waited} of {bound}", slice.vcoproc);
            }
            let now = world.now();
            if let Some(current) = world.coproc.current() {
                last.insert(current, now);
            }
            for who in world.guests.keys() {
                let since = last.get(who).copied().unwrap_or(begin);
                let waits = now.since(since).as_nanos();
                prop_assert!(waits <= bound + turn.as_nanos(), "{name}: {who} waits {waits}");
            }
            let served = report.vcoprocs.iter().filter(|v| v.counters.slices > 0).count();
            prop_assert!(name == "null" || served > 2, "{name}: {served} of {n} had the device");
        }
    }
}
