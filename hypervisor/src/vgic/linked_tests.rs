//! Shared interrupts that are linked to physical ones: those of a device that the domain has for itself. A physical interrupt
//! is taken once, and from then on active until somebody ends it; so for each there must be one end, and no second one before it comes again.

use super::*;
use alloc::vec;
use coproc_core::register::Width::{Byte, Double, Word};
use proptest::prelude::*;

/// The domain's, in word 1, bit 16.
const INTID: u32 = 48;
const BIT: u64 = 1 << 16;
const PHYSICAL: u32 = 300;

const ISENABLER: u64 = 0x104;
const ICENABLER: u64 = 0x184;
const ISPENDR: u64 = 0x204;
const ICPENDR: u64 = 0x284;
const ICACTIVER: u64 = 0x384;
const IROUTER: u64 = 0x6000 + 8 * INTID as u64;

/// Two vCPUs; the interrupt is level-sensitive, enabled, in group 1.
fn vgic() -> Vgic {
    let mut vgic = Vgic::new(2, 32);
    for (offset, width, value) in [
        (0, Word, 2),
        (0x84, Word, 0xffff_ffff),
        (0x400 + u64::from(INTID), Byte, 0xa0),
        (ISENABLER, Word, BIT),
    ] {
        let _ = vgic.distributor_write(0, offset, width, value);
    }
    vgic
}

fn write(vgic: &mut Vgic, offset: u64) -> Kicks {
    vgic.distributor_write(0, offset, Word, BIT)
}

fn route(vgic: &mut Vgic, vcpu: u64) -> Kicks {
    vgic.distributor_write(0, IROUTER, Double, vcpu)
}

fn arrive(vgic: &mut Vgic) -> Kicks {
    vgic.hardware_interrupt(0, INTID, PHYSICAL)
}

/// Collects and delivers: what was reported, and whom that kicks. Levels to be sampled are left out: a linked interrupt has none here.
fn sync(vgic: &mut Vgic, vcpu: usize, lists: &mut ListRegisters) -> (Vec<Deactivated>, Kicks) {
    let mut seen = vec![];
    let kicks = vgic.collect(vcpu, lists, &mut |event| {
        if matches!(event, Deactivated::Physical(_)) {
            seen.push(event);
        }
        true
    });
    let _ = vgic.deliver(vcpu, lists);
    (seen, kicks)
}

fn only(lists: &ListRegisters) -> Option<Entry> {
    let mut entries = lists.entries();
    let entry = entries.next();
    assert_eq!(entries.next(), None);
    entry
}

/// The guest changes the state of the only entry.
fn set(lists: &mut ListRegisters, pending: bool, active: bool) {
    let slot = lists.lr.iter_mut().find(|lr| **lr != 0).expect("listed");
    *slot = Entry(*slot).with_state(pending, active).0;
}

#[test]
fn the_guest_ends_it_without_an_exit() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    for _ in 0..3 {
        assert_eq!(arrive(&mut vgic), Kicks::one(0));
        assert_eq!(sync(&mut vgic, 0, &mut lists).0, []);
        let entry = only(&lists).unwrap();
        assert_eq!(
            (entry.intid(), entry.physical(), entry.eoi()),
            (INTID, Some(PHYSICAL), false)
        );
        assert!(entry.pending() && !entry.active());
        // Taken, ended; the hardware deactivates the physical one. Nobody looks before the next one comes.
        set(&mut lists, false, true);
        set(&mut lists, false, false);
    }
    assert_eq!(sync(&mut vgic, 0, &mut lists), (vec![], Kicks::NONE));
    assert_eq!(only(&lists), None);
}

#[test]
fn it_follows_its_route() {
    let mut vgic = vgic();
    let mut lists = [ListRegisters::new(4), ListRegisters::new(4)];
    let _ = arrive(&mut vgic);
    let _ = sync(&mut vgic, 0, &mut lists[0]);
    // Pending with vCPU 0, but not taken: it moves at once.
    assert_eq!(route(&mut vgic, 1), Kicks::one(0));
    assert_eq!(sync(&mut vgic, 0, &mut lists[0]), (vec![], Kicks::one(1)));
    assert_eq!(only(&lists[0]), None);
    assert_eq!(sync(&mut vgic, 1, &mut lists[1]).0, []);
    assert_eq!(only(&lists[1]).unwrap().physical(), Some(PHYSICAL));
    // Taken there: it stays there until its end, wherever it is routed.
    set(&mut lists[1], false, true);
    let _ = route(&mut vgic, 0);
    assert_eq!(sync(&mut vgic, 1, &mut lists[1]).0, []);
    let entry = only(&lists[1]).unwrap();
    assert!(entry.active() && entry.physical() == Some(PHYSICAL));
    set(&mut lists[1], false, false);
    // The next one comes before vCPU 1 was looked at: that one gives it away.
    assert_eq!(arrive(&mut vgic), Kicks::one(1));
    assert_eq!(sync(&mut vgic, 1, &mut lists[1]), (vec![], Kicks::one(0)));
    let _ = sync(&mut vgic, 0, &mut lists[0]);
    assert_eq!(only(&lists[0]).unwrap().physical(), Some(PHYSICAL));
}

/// It was active on a vCPU that went off, pending on one, or waited for one that is disabled: EL2 ends it, once.
#[test]
fn what_the_guest_never_ends_is_reported_once() {
    let physical = vec![Deactivated::Physical(PHYSICAL)];
    let mut lists = ListRegisters::new(4);

    let mut active = vgic();
    let _ = arrive(&mut active);
    let _ = sync(&mut active, 0, &mut lists);
    set(&mut lists, false, true);
    let _ = sync(&mut active, 0, &mut lists);
    lists = ListRegisters::new(4);
    let _ = active.reset_vcpu(0);
    assert_eq!(sync(&mut active, 0, &mut lists).0, physical);
    assert_eq!(sync(&mut active, 0, &mut lists).0, []);

    // Pending isn't lost with a vCPU: it waits for where it's routed.
    let mut pending = vgic();
    let _ = arrive(&mut pending);
    let _ = sync(&mut pending, 0, &mut lists);
    lists = ListRegisters::new(4);
    assert_eq!(pending.reset_vcpu(0), Kicks::one(0));
    let _ = route(&mut pending, 1);
    assert_eq!(sync(&mut pending, 1, &mut lists).0, []);
    assert_eq!(only(&lists).unwrap().physical(), Some(PHYSICAL));

    let mut disabled = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = write(&mut disabled, ICENABLER);
    assert_eq!(arrive(&mut disabled), Kicks::NONE);
    assert_eq!(sync(&mut disabled, 0, &mut lists).0, []);
    assert_eq!(only(&lists), None);
    // Taken back by the guest: the device may ask again, if it still wants.
    let _ = write(&mut disabled, ICPENDR);
    assert_eq!(sync(&mut disabled, 0, &mut lists).0, physical);
    let _ = write(&mut disabled, ISENABLER);
    assert_eq!(sync(&mut disabled, 0, &mut lists).0, []);
    assert_eq!(only(&lists), None);
}

/// One that isn't linked tells its end, level-sensitive or not; and one that is linked after it doesn't.
#[test]
fn a_reported_one_tells_its_end() {
    for config in [0, 2u64] {
        let mut vgic = vgic();
        // ICFGR3: interrupts 48 to 63.
        let _ = vgic.distributor_write(0, 0xc0c, Word, config);
        assert_eq!(vgic.home(INTID), Some(0));
        let _ = route(&mut vgic, 1);
        assert_eq!(vgic.home(INTID), Some(1));
        let mut lists = ListRegisters::new(4);
        for _ in 0..2 {
            assert_eq!(vgic.reported_interrupt(INTID), Kicks::one(1));
            let _ = sync(&mut vgic, 1, &mut lists);
            let entry = only(&lists).unwrap();
            assert!(entry.pending() && !entry.hardware() && entry.eoi());
            set(&mut lists, false, true);
            set(&mut lists, false, false);
            let mut ends = vec![];
            let _ = vgic.collect(1, &mut lists, &mut |event| {
                ends.push(event);
                true
            });
            assert_eq!(ends, [Deactivated::Line(Line::Spi(INTID))]);
        }
        assert_eq!(arrive(&mut vgic), Kicks::one(1));
        let _ = sync(&mut vgic, 1, &mut lists);
        assert_eq!(only(&lists).unwrap().physical(), Some(PHYSICAL));
    }
    let mut vgic = vgic();
    assert_eq!(vgic.reported_interrupt(27), Kicks::NONE);
    assert_eq!(vgic.reported_interrupt(500), Kicks::NONE);
    let _ = route(&mut vgic, 7);
    assert_eq!(
        (vgic.home(INTID), vgic.home(27), vgic.home(500)),
        (None, None, None)
    );
}

#[derive(Clone, Copy, Debug)]
enum Act {
    Arrive,
    Sync(usize),
    /// The guest takes what is pending, or ends what is active, on this vCPU.
    Take(usize),
    End(usize),
    Write(u64),
    Route(u64),
    Reset(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Arrive),
        4 => (0..2usize).prop_map(Act::Sync),
        4 => (0..2usize).prop_map(Act::Take),
        4 => (0..2usize).prop_map(Act::End),
        2 => prop::sample::select(vec![ISENABLER, ICENABLER, ISPENDR, ICPENDR, ICACTIVER]).prop_map(Act::Write),
        1 => (0..3u64).prop_map(Act::Route),
        1 => (0..2usize).prop_map(Act::Reset),
    ]
}

proptest! {
    /// Whatever the guest does, the physical interrupt is ended once for each time that it comes, by the guest or by EL2; and when
    /// the guest wants it in the end, it isn't active for ever.
    #[test]
    fn one_end_for_each_arrival(acts in prop::collection::vec(act(), 0..60)) {
        let mut vgic = vgic();
        let mut lists = [ListRegisters::new(2), ListRegisters::new(2)];
        let mut active = false;
        let finish = [Act::Write(ICPENDR), Act::Write(ICACTIVER), Act::Sync(0), Act::Sync(1), Act::Sync(0)];
        for act in acts.into_iter().chain(finish) {
            let reported = match act {
                // The distributor doesn't signal what is active.
                Act::Arrive if active => continue,
                Act::Arrive => {
                    let _ = arrive(&mut vgic);
                    active = true;
                    continue;
                }
                Act::Sync(vcpu) => sync(&mut vgic, vcpu, &mut lists[vcpu]).0,
                Act::Take(vcpu) => {
                    for lr in lists[vcpu].lr.iter_mut().filter(|lr| Entry(**lr).pending() && !Entry(**lr).active()) {
                        *lr = Entry(*lr).with_state(false, true).0;
                    }
                    continue;
                }
                Act::End(vcpu) => {
                    for lr in lists[vcpu].lr.iter_mut().filter(|lr| Entry(**lr).active()) {
                        let entry = Entry(*lr);
                        *lr = entry.with_state(entry.pending(), false).0;
                        if entry.physical() == Some(PHYSICAL) {
                            prop_assert!(active, "ended twice");
                            active = false;
                        }
                    }
                    continue;
                }
                Act::Write(offset) => {
                    let _ = write(&mut vgic, offset);
                    continue;
                }
                Act::Route(vcpu) => {
                    let _ = route(&mut vgic, vcpu);
                    continue;
                }
                Act::Reset(vcpu) => {
                    // As EL2 does it: what the hardware has is taken back first.
                    let mut seen = sync(&mut vgic, vcpu, &mut lists[vcpu]).0;
                    let _ = vgic.reset_vcpu(vcpu);
                    lists[vcpu] = ListRegisters::new(2);
                    seen.extend(sync(&mut vgic, vcpu, &mut lists[vcpu]).0);
                    seen
                }
            };
            for event in reported {
                if event == Deactivated::Physical(PHYSICAL) {
                    prop_assert!(active, "ended twice");
                    active = false;
                }
            }
        }
        prop_assert!(!active, "active for ever");
    }
}
