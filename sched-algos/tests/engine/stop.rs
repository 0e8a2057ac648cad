//! Ending the sharing of a device, and beginning it again.

use crate::bench::*;
use coproc_core::Environment;
use coproc_core::coproc::{AttachError, Detach, Stage, StartError, State};

/// Whatever is going on when it is stopped, everybody's context leaves, and afterwards it works as if it were new.
#[test]
fn stopped_at_every_moment_and_started_again() {
    for moment in 0..400 {
        let mut rig = Rig::new(2, moment % 2 == 0);
        rig.knobs().sync_again = 3;
        rig.write(1, BUFFER, 1);
        rig.write(2, DOORBELL, 2);
        rig.run(1_000_000 + moment * 5);
        rig.bench.log.clear();
        let answer = rig.stop();
        assert_eq!(answer == Detach::Done, rig.coproc.stage() == Stage::Off);
        assert_eq!(rig.attach(3), Err(AttachError::Off), "{moment}");
        let off = |rig: &Rig| rig.coproc.stage() == Stage::Off;
        if !off(&rig) {
            assert!(rig.coproc.is_ending());
            assert_eq!(rig.start(), Err(StartError::Started));
            rig.run(5 * SLICE.as_nanos());
        }
        assert!(off(&rig) && !rig.coproc.is_ending(), "{moment}");
        for id in [1, 2] {
            rig.read(id, VALUE);
            assert!(rig.guests[&v(id)].faulted, "{moment}");
        }
        // Nobody's secret stays in the device.
        assert_eq!(rig.stop(), Detach::Done);
        rig.start().unwrap();
        for id in [1, 2] {
            rig.attach(id).unwrap();
            rig.read(id, BUFFER);
            rig.run(2 * SLICE.as_nanos());
            assert_eq!(rig.guests[&v(id)].reads.last(), Some(&(BUFFER, 0)));
            rig.write(id, DOORBELL, 7);
            rig.run(2 * SLICE.as_nanos());
            assert!(rig.bench.executed.contains(&(v(id), 7)), "{moment}");
        }
    }
}

/// An idle one that nobody has used is off at once.
#[test]
fn an_unused_one_is_off_at_once() {
    let mut rig = Rig::new(2, true);
    assert_eq!(rig.stop(), Detach::Done);
    assert_eq!(rig.coproc.state(), State::Off);
    let elapsed = |rig: &Rig| rig.coproc.report(rig.bench.now()).time.idle;
    let before = elapsed(&rig);
    rig.run(1_000);
    assert_eq!(elapsed(&rig).as_nanos(), before.as_nanos() + 1_000);
}

/// The last one's refusal is waited for; past its bound the device is taken by force, and then it is off all the same.
#[test]
fn a_hung_device_is_stopped_by_force() {
    let mut rig = Rig::new(2, true);
    rig.bench.device.hang = true;
    rig.write(1, DOORBELL, 1);
    rig.run(50_000);
    assert_eq!(rig.stop(), Detach::Pending);
    rig.run(1_000);
    assert_eq!(rig.coproc.stage(), Stage::Quiescing);
    rig.run(2_000_000_000);
    assert_eq!(rig.coproc.stage(), Stage::Off);
    rig.bench.device.hang = false;
    rig.start().unwrap();
    assert_eq!(rig.coproc.state(), State::Idle { resident: None });
}

fn quarantined() -> Rig {
    let mut rig = Rig::new(2, true);
    rig.write(1, VALUE, 1);
    rig.write(2, VALUE, 2);
    rig.run(50_000);
    rig.knobs().fail.insert(Op::Save, 1);
    rig.knobs().fail.insert(Op::Reset, 1);
    let _ = rig.read(2, BUFFER);
    rig.run(5 * SLICE.as_nanos());
    assert!(matches!(rig.coproc.state(), State::Quarantined { .. }));
    rig
}

/// A quarantined one is off at once, and comes back through a reset, which may take its time.
#[test]
fn a_quarantined_one_comes_back_if_it_can_be_reset() {
    for waits in [0, 3] {
        let mut rig = quarantined();
        assert_eq!(rig.stop(), Detach::Done);
        rig.knobs().again.insert(Op::Reset, (waits, 20_000));
        rig.knobs().unsettled = waits;
        rig.bench.log.clear();
        rig.start().unwrap();
        rig.run(1_000_000);
        assert_eq!(rig.coproc.state(), State::Idle { resident: None });
        let resets = rig.bench.log.iter();
        let resets = resets.filter(|log| **log == Log::Driver(Op::Reset, v(0)));
        assert_eq!(resets.count() as u32, waits + 1);
        rig.attach(1).unwrap();
        rig.write(1, DOORBELL, 7);
        rig.run(SLICE.as_nanos());
        assert_eq!(rig.bench.executed, [(v(1), 7)]);
        // The reset is for the quarantine, not for every start.
        let _ = rig.stop();
        rig.run(5 * SLICE.as_nanos());
        rig.bench.log.clear();
        rig.start().unwrap();
        rig.run(1_000_000);
        assert!(!rig.bench.log.contains(&Log::Driver(Op::Reset, v(0))));
    }
}

/// One that can't be reset is quarantined again, as often as it is tried.
#[test]
fn a_quarantined_one_that_cannot_be_reset_stays_so() {
    let mut rig = quarantined();
    for _ in 0..3 {
        assert_eq!(rig.stop(), Detach::Done);
        rig.knobs().fail.insert(Op::Reset, 1);
        rig.start().unwrap();
        assert!(matches!(rig.coproc.state(), State::Quarantined { .. }));
        assert!(matches!(rig.attach(3), Err(AttachError::Quarantined(_))));
    }
}

/// If the device breaks while it is being stopped, it is off in the end.
#[test]
fn a_device_that_breaks_while_it_is_stopped_is_off() {
    let mut rig = Rig::new(2, true);
    rig.write(1, VALUE, 1);
    rig.run(50_000);
    rig.knobs().fail.insert(Op::Save, 1);
    rig.knobs().fail.insert(Op::Reset, 1);
    let _ = rig.stop();
    rig.run(5 * SLICE.as_nanos());
    assert_eq!(rig.coproc.stage(), Stage::Off);
    rig.start().unwrap();
    rig.run(1_000_000);
    assert_eq!(rig.coproc.state(), State::Idle { resident: None });
}
