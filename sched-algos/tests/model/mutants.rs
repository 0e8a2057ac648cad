//! The checker can fail: surroundings with a seeded fault are found out, each within a small configuration.

use crate::explore::explore;
use crate::machine::{MEMORY, Mutant, SCRATCH};
use crate::oracle::Trick;
use crate::protocol::setup;
use crate::world::Deed;

/// The rule that the shortest run to this fault breaks.
fn broken(mutant: Mutant, plan: &[Deed], tricks: &[(Trick, u8)]) -> String {
    let plan: Vec<_> = plan.iter().map(|deed| (*deed, 1)).collect();
    let mut setup = setup(&plan, tricks);
    assert!(
        explore(&setup, Some(9)).broken.is_none(),
        "without the fault all is well"
    );
    setup.mutant = Some(mutant);
    let (why, story) = explore(&setup, None)
        .broken
        .unwrap_or_else(|| panic!("{mutant:?} was not found"));
    eprintln!("{mutant:?}: {why}, in {} moves", story.len());
    why
}

macro_rules! found {
    ($($name:ident: $mutant:ident, $plan:expr, $tricks:expr, $why:expr;)*) => {
        $(
            #[test]
            fn $name() {
                let why = broken(Mutant::$mutant, &$plan, &$tricks);
                assert!(why.contains($why), "{why}");
            }
        )*
    };
}

const RING: Deed = Deed::Ring;
const KEEP: Deed = Deed::Write(MEMORY);
const LOOK: Deed = Deed::Read(MEMORY);

found! {
    windows_left_mapped: KeepsWindows, [RING], [], "windows";
    streams_left_open: KeepsStreams, [RING], [], "treams";
    sync_that_lies: SyncsEarly, [RING], [], "treams";
    no_scrub: ForgetsScrub, [Deed::Write(SCRATCH), Deed::Read(SCRATCH)], [], "gave";
    a_lost_doorbell: DropsDoorbell, [RING], [], "rang";
    a_doorbell_twice: ReplaysTwice, [RING], [], "rang";
    an_interrupt_left_in_the_device: LeaksInterrupt, [RING], [(Trick::Again, 1)], "its own";
    an_interrupt_lost: LosesInterrupt, [RING], [(Trick::Again, 1)], "never heard";
    another_s_context: SwapsContext, [KEEP, LOOK], [], "gave";
    no_save: SkipsSave, [KEEP, LOOK], [], "gave";
    parked_for_ever: NeverReleases, [LOOK], [], "waits for ever";
    a_timer_not_armed: DeafTimer, [RING], [(Trick::Again, 1)], "timer";
    quiet_that_lies: LiesQuiet, [RING], [], "job";
    somebody_else_s_line: WrongLine, [RING], [], "its own";
    a_clock_that_jumps: SkewedClock, [RING], [], "books";
    a_wake_up_ignored: ForgetsWake, [LOOK], [], "ever";
    a_reset_that_leaves_memory: ResetLeavesScratch, [Deed::Write(SCRATCH), Deed::Read(SCRATCH)], [(Trick::Fail, 1)], "gave";
}
