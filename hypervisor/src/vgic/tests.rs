//! Behaviours: levels, edges, SGIs, hardware-linked interrupts, overflow, withdrawal.

use super::*;
use alloc::vec;
use coproc_core::register::Width::{Byte, Double, Word};

const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
const SGI: u64 = 0x1_0000;
const OPEN: CpuInterface = CpuInterface {
    priority_mask: 0xff,
    group0_enabled: true,
    group1_enabled: true,
};

/// Two vCPUs, 64 SPIs, all in group 1, enabled, priority 0xa0; SPIs 32 to 47 level, rest edge.
fn vgic() -> Vgic {
    let mut vgic = Vgic::new(2, 64);
    let _ = vgic.distributor_write(0, 0, Word, 2);
    for word in 1..3 {
        let _ = vgic.distributor_write(0, 0x80 + 4 * word, Word, 0xffff_ffff);
        let _ = vgic.distributor_write(0, ISENABLER + 4 * word, Word, 0xffff_ffff);
    }
    for byte in 32..96 {
        let _ = vgic.distributor_write(0, 0x400 + byte, Byte, 0xa0);
    }
    for register in 3..6 {
        let _ = vgic.distributor_write(0, 0xc00 + 4 * register, Word, 0xaaaa_aaaa);
    }
    for vcpu in 0..2 {
        let _ = vgic.redistributor_write(vcpu, SGI + 0x80, Word, 0xffff_ffff);
        let _ = vgic.redistributor_write(vcpu, SGI + ISENABLER, Word, 0xffff_ffff);
        for word in 0..8 {
            let _ = vgic.redistributor_write(vcpu, SGI + 0x400 + 4 * word, Word, 0xa0a0_a0a0);
        }
    }
    vgic
}

/// Collects; what was reported.
fn collect(vgic: &mut Vgic, vcpu: usize, lists: &mut ListRegisters) -> Vec<Deactivated> {
    let mut seen = vec![];
    let _ = vgic.collect(vcpu, lists, &mut |event| {
        seen.push(event);
        true
    });
    assert_eq!((lists.in_use, lists.lr), (0, [0; MAX_LISTS]));
    seen
}

fn sync(vgic: &mut Vgic, vcpu: usize, lists: &mut ListRegisters) -> Vec<Deactivated> {
    let seen = collect(vgic, vcpu, lists);
    let _ = vgic.deliver(vcpu, lists);
    seen
}

fn listed(lists: &ListRegisters) -> Vec<u32> {
    lists.entries().map(Entry::intid).collect()
}

/// The guest changes the state of the entry for `intid`.
fn set_state(lists: &mut ListRegisters, intid: u32, pending: bool, active: bool) {
    let slot = lists
        .lr
        .iter()
        .position(|&lr| lr != 0 && Entry(lr).intid() == intid)
        .expect("listed");
    lists.lr[slot] = Entry(lists.lr[slot]).with_state(pending, active).0;
}

fn only(lists: &ListRegisters) -> Entry {
    let mut entries = lists.entries();
    let entry = entries.next().expect("one entry");
    assert_eq!(entries.next(), None);
    entry
}

#[test]
fn nothing_to_do() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    assert!(!vgic.needs_sync(0));
    assert_eq!(vgic.deliver(0, &mut lists), Maintenance::default());
    assert_eq!(collect(&mut vgic, 0, &mut lists), []);
    assert!(!vgic.pending_for(0, OPEN, &lists));
}

#[test]
fn entry_bits() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.set_line(Line::Spi(33), true);
    let _ = vgic.deliver(0, &mut lists);
    assert_eq!(
        only(&lists).0,
        1 << 62 | 1 << 60 | 0xa0 << 48 | 1 << 41 | 33
    );
    let _ = collect(&mut vgic, 0, &mut lists);
    let _ = vgic.set_line(Line::Spi(33), false);
    let _ = vgic.hardware_interrupt(0, 27, 26);
    let _ = vgic.deliver(0, &mut lists);
    let bits = 1 << 62 | 1 << 61 | 1 << 60 | 0xa0 << 48 | 26 << 32 | 27;
    assert_eq!(only(&lists).0, bits);
    assert_eq!(only(&lists).physical(), Some(26));
}

#[test]
fn level_is_resampled_at_its_end() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    assert_eq!(vgic.set_line(Line::Spi(33), true), Kicks::one(0));
    assert_eq!(vgic.set_line(Line::Spi(33), true), Kicks::NONE);
    let _ = vgic.deliver(0, &mut lists);
    assert!(only(&lists).pending() && only(&lists).eoi());
    assert!(!vgic.needs_sync(0));
    // Taken, not ended, an exit in between: active only, and nothing reported.
    set_state(&mut lists, 33, false, true);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert!(!only(&lists).pending() && only(&lists).active() && only(&lists).eoi());
    // Ended with the line still up: reported, and again pending.
    set_state(&mut lists, 33, false, false);
    let line = Deactivated::Line(Line::Spi(33));
    assert_eq!(collect(&mut vgic, 0, &mut lists), [line]);
    let _ = vgic.deliver(0, &mut lists);
    assert!(only(&lists).pending());
    // Ended with the line down by then: reported, and quiet.
    set_state(&mut lists, 33, false, false);
    assert_eq!(collect(&mut vgic, 0, &mut lists), [line]);
    let _ = vgic.set_line(Line::Spi(33), false);
    let _ = vgic.deliver(0, &mut lists);
    assert_eq!(listed(&lists), []);
    assert!(!vgic.needs_sync(0));
}

#[test]
fn dropped_level_is_retracted() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let ppi = Line::Ppi { vcpu: 1, intid: 20 };
    assert_eq!(vgic.set_line(ppi, true), Kicks::one(1));
    let _ = vgic.deliver(1, &mut lists);
    assert_eq!(listed(&lists), [20]);
    assert_eq!(vgic.set_line(ppi, false), Kicks::one(1));
    assert!(vgic.needs_sync(1) && !vgic.needs_sync(0));
    assert_eq!(sync(&mut vgic, 1, &mut lists), []);
    assert_eq!(listed(&lists), []);
}

#[test]
fn level_latched_by_software_is_taken_once() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    assert_eq!(
        vgic.distributor_write(0, ISPENDR + 4, Word, 2),
        Kicks::one(0)
    );
    assert_eq!(vgic.distributor_read(0, ISPENDR + 4, Word), 2);
    let _ = vgic.deliver(0, &mut lists);
    // Not taken at this exit: stays pending.
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert!(only(&lists).pending());
    set_state(&mut lists, 33, false, false);
    let line = Deactivated::Line(Line::Spi(33));
    assert_eq!(sync(&mut vgic, 0, &mut lists), [line]);
    assert_eq!(listed(&lists), []);
}

#[test]
fn edge_again_while_active() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.pulse(Line::Spi(70));
    let _ = vgic.deliver(0, &mut lists);
    assert!(!only(&lists).eoi());
    set_state(&mut lists, 70, false, true);
    assert_eq!(vgic.pulse(Line::Spi(70)), Kicks::one(0));
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert!(only(&lists).pending() && only(&lists).active());
    // Ended, then taken and ended again: nothing is left.
    set_state(&mut lists, 70, false, false);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert_eq!(listed(&lists), []);
}

/// A message's end is reported as a level's is, wherever it happens; an edge's isn't.
#[test]
fn the_end_of_a_message_is_reported() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let ended = [Deactivated::Line(Line::Spi(60))];
    let _ = vgic.message(60);
    let _ = vgic.message(60);
    let _ = vgic.pulse(Line::Spi(61));
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert_eq!(listed(&lists), [60, 61]);
    assert!(
        lists
            .entries()
            .all(|entry| entry.eoi() == (entry.intid() == 60))
    );
    set_state(&mut lists, 60, false, true);
    assert_eq!(sync(&mut vgic, 0, &mut lists), [], "taken, not ended");
    set_state(&mut lists, 60, false, false);
    set_state(&mut lists, 61, false, false);
    assert_eq!(sync(&mut vgic, 0, &mut lists), ended);
    assert_eq!(
        listed(&lists),
        [],
        "two messages before it was taken are one"
    );

    // While it is active another one comes: it's taken once more.
    let _ = vgic.message(60);
    let _ = sync(&mut vgic, 0, &mut lists);
    set_state(&mut lists, 60, false, true);
    let _ = vgic.message(60);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert!(only(&lists).pending() && only(&lists).active());
    // Ended by ICACTIVER, and by the vCPU's reset.
    let _ = vgic.distributor_write(0, ICACTIVER + 4, Word, 1 << 28);
    assert_eq!(sync(&mut vgic, 0, &mut lists), ended);
    set_state(&mut lists, 60, false, true);
    let _ = vgic.reset_vcpu(0);
    assert_eq!(collect(&mut vgic, 0, &mut ListRegisters::new(4)), ended);
    for intid in [0, 31, 96, 1023] {
        let _ = vgic.message(intid);
    }
}

#[test]
fn edges_coalesce_until_taken_and_wait_while_disabled() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.distributor_write(0, ICENABLER + 8, Word, 1 << 6);
    assert_eq!(vgic.pulse(Line::Spi(70)), Kicks::NONE);
    assert_eq!(vgic.pulse(Line::Spi(70)), Kicks::NONE);
    assert_eq!(vgic.distributor_read(0, ISPENDR + 8, Word), 1 << 6);
    assert!(!vgic.pending_for(0, OPEN, &lists));
    assert_eq!(
        vgic.distributor_write(0, ISENABLER + 8, Word, 1 << 6),
        Kicks::one(0)
    );
    let _ = vgic.deliver(0, &mut lists);
    set_state(&mut lists, 70, false, false);
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), []);
}

#[test]
fn disabled_on_another_vcpu() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.distributor_write(0, 0x6000 + 8 * 70, Double, 1);
    assert_eq!(vgic.pulse(Line::Spi(70)), Kicks::one(1));
    let _ = vgic.deliver(1, &mut lists);
    let kicks = vgic.distributor_write(0, ICENABLER + 8, Word, 1 << 6);
    assert_eq!(kicks, Kicks::one(1));
    let _ = sync(&mut vgic, 1, &mut lists);
    assert_eq!(listed(&lists), []);
    assert_eq!(vgic.distributor_read(0, ISPENDR + 8, Word), 1 << 6);
    assert!(!vgic.needs_sync(1));
}

#[test]
fn reprioritised_and_cleared_while_listed() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.pulse(Line::Spi(70));
    let _ = vgic.deliver(0, &mut lists);
    let kicks = vgic.distributor_write(1, 0x400 + 70, Byte, 0x17);
    assert_eq!(kicks, Kicks::one(0));
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(only(&lists).priority(), 0x10);
    let kicks = vgic.distributor_write(1, ICPENDR + 8, Word, 1 << 6);
    assert_eq!(kicks, Kicks::one(0));
    assert_eq!(vgic.distributor_read(1, ISPENDR + 8, Word), 0);
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), []);
}

#[test]
fn rerouted_while_pending_in_a_list_register() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.pulse(Line::Spi(70));
    let _ = vgic.deliver(0, &mut lists);
    let kicks = vgic.distributor_write(0, 0x6000 + 8 * 70, Double, 1);
    assert_eq!(kicks, Kicks::one(0));
    assert!(!vgic.needs_sync(1));
    assert_eq!(
        vgic.collect(0, &mut lists, &mut |_| panic!()),
        Kicks::one(1)
    );
    let _ = vgic.deliver(0, &mut lists);
    assert_eq!(listed(&lists), []);
    let mut others = ListRegisters::new(4);
    let _ = vgic.deliver(1, &mut others);
    assert_eq!(listed(&others), [70]);
}

#[test]
fn rerouted_while_active_ends_where_it_began() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.set_line(Line::Spi(33), true);
    let _ = vgic.deliver(0, &mut lists);
    set_state(&mut lists, 33, false, true);
    let _ = vgic.distributor_write(0, 0x6000 + 8 * 33, Double, 1);
    let _ = sync(&mut vgic, 0, &mut lists);
    assert!(only(&lists).active());
    assert!(!vgic.needs_sync(1));
    set_state(&mut lists, 33, false, false);
    let mut ends = 0;
    let kicks = vgic.collect(0, &mut lists, &mut |_| {
        ends += 1;
        true
    });
    assert_eq!((kicks, ends), (Kicks::one(1), 1));
}

#[test]
fn sgis() {
    let mut vgic = Vgic::new(4, 32);
    let _ = vgic.distributor_write(0, 0, Word, 3);
    for vcpu in 0..4 {
        let _ = vgic.redistributor_write(vcpu, SGI + 0x80, Word, 0xff00);
        let _ = vgic.redistributor_write(vcpu, SGI + ISENABLER, Word, 0xffff);
    }
    let set = |kicks: Kicks| kicks.iter().collect::<Vec<_>>();
    assert_eq!(set(vgic.sgi1r_write(0, 9 << 24 | 0b1010)), [1, 3]);
    assert_eq!(set(vgic.sgi1r_write(0, 9 << 24 | 0b1010)), []);
    assert_eq!(set(vgic.sgi1r_write(2, 10 << 24 | 1 << 40)), [0, 1, 3]);
    // To itself; beyond the vCPUs; another cluster; another range.
    assert_eq!(set(vgic.sgi1r_write(2, 11 << 24 | 0xfff4)), [2]);
    for elsewhere in [1 << 16, 1 << 32, 1 << 48, 1 << 44] {
        assert_eq!(set(vgic.sgi1r_write(2, 12 << 24 | elsewhere | 15)), []);
    }
    // SGI0R reaches group 0 only, SGI1R both.
    assert_eq!(set(vgic.sgi0r_write(0, 13 << 24 | 2)), []);
    assert_eq!(set(vgic.sgi0r_write(0, 3 << 24 | 2)), [1]);
    assert_eq!(set(vgic.sgi1r_write(0, 4 << 24 | 2)), [1]);
    let mut lists = ListRegisters::new(8);
    let _ = vgic.deliver(1, &mut lists);
    assert_eq!(listed(&lists), [3, 4, 9, 10]);
    assert!(
        lists
            .entries()
            .all(|entry| !entry.eoi() && !entry.hardware())
    );
    assert!(lists.entries().all(|e| e.group1() == (e.intid() >= 8)));
    // Again to a vCPU that has it listed: it must come out to see it.
    assert_eq!(set(vgic.sgi1r_write(0, 9 << 24 | 2)), [1]);
}

#[test]
fn overflow_and_priorities() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(2);
    for (intid, priority) in [(70, 0x80), (71, 0x20), (72, 0x40), (73, 0x60), (74, 0x20)] {
        let _ = vgic.distributor_write(0, 0x400 + intid, Byte, priority);
        let _ = vgic.pulse(Line::Spi(intid as u32));
    }
    let mut taken = vec![];
    loop {
        let maintenance = vgic.deliver(0, &mut lists);
        assert_eq!(maintenance.no_pending, taken.len() < 4, "{taken:?}");
        assert_eq!(maintenance.hcr_bits(), if taken.len() < 4 { 8 } else { 0 });
        if lists.in_use == 0 {
            break;
        }
        for intid in listed(&lists) {
            taken.push(intid);
            set_state(&mut lists, intid, false, false);
        }
        let _ = collect(&mut vgic, 0, &mut lists);
    }
    assert_eq!(taken, [71, 74, 72, 73, 70]);
}

#[test]
fn more_urgent_one_evicts() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(2);
    for intid in [70, 71] {
        let _ = vgic.pulse(Line::Spi(intid));
    }
    let _ = vgic.deliver(0, &mut lists);
    let _ = vgic.distributor_write(0, 0x400 + 72, Byte, 0);
    assert_eq!(vgic.pulse(Line::Spi(72)), Kicks::one(0));
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), [72, 70]);
    assert!(vgic.needs_sync(0), "71 waits");
}

#[test]
fn active_overflow_leaves_room_and_counts_ends() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(2);
    for (intid, priority) in [(33, 0x80), (34, 0x60), (35, 0x40)] {
        let _ = vgic.distributor_write(0, 0x400 + u64::from(intid), Byte, priority);
        let _ = vgic.set_line(Line::Spi(intid), true);
        let _ = sync(&mut vgic, 0, &mut lists);
        assert!(listed(&lists).contains(&intid), "preempts");
        set_state(&mut lists, intid, false, true);
    }
    let _ = vgic.pulse(Line::Spi(70));
    let _ = collect(&mut vgic, 0, &mut lists);
    let maintenance = vgic.deliver(0, &mut lists);
    assert!(maintenance.entry_not_present && !maintenance.no_pending);
    assert_eq!(listed(&lists), [35, 70]);
    // Ends 35 (listed), then 34 (counted).
    set_state(&mut lists, 35, false, false);
    lists.eoi_count = 1;
    let seen = collect(&mut vgic, 0, &mut lists);
    assert_eq!(
        seen,
        [34, 35].map(|intid| Deactivated::Line(Line::Spi(intid)))
    );
    assert_eq!(vgic.distributor_read(0, ISACTIVER + 4, Word), 2);
    // ICC_DIR_EL1 for the last.
    let _ = vgic.deactivate(0, 33);
    assert_eq!(
        collect(&mut vgic, 0, &mut lists),
        [Deactivated::Line(Line::Spi(33))]
    );
    assert_eq!(vgic.distributor_read(0, ISACTIVER + 4, Word), 0);
}

#[test]
fn hardware_interrupt_cycle() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    for _ in 0..3 {
        assert_eq!(vgic.hardware_interrupt(1, 27, 27), Kicks::one(1));
        let _ = sync(&mut vgic, 1, &mut lists);
        assert!(only(&lists).hardware() && only(&lists).pending());
        set_state(&mut lists, 27, false, true);
        assert_eq!(sync(&mut vgic, 1, &mut lists), []);
        assert!(only(&lists).hardware() && !only(&lists).pending());
        assert_eq!(vgic.hardware_in_flight(1).collect::<Vec<_>>(), [(27, 27)]);
        // Deactivated by the hardware. The next may come before this is collected.
        set_state(&mut lists, 27, false, false);
    }
    assert_eq!(sync(&mut vgic, 1, &mut lists), []);
    assert_eq!(listed(&lists), []);
    assert_eq!(vgic.hardware_in_flight(1).count(), 0);
}

#[test]
fn withdrawn_hardware_interrupt_is_released() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let physical = [Deactivated::Physical(26)];
    // Cleared before it was listed, while listed, while active, and by a reset.
    let _ = vgic.hardware_interrupt(0, 27, 26);
    let _ = vgic.redistributor_write(0, SGI + ICPENDR, Word, 1 << 27);
    assert_eq!(sync(&mut vgic, 0, &mut lists), physical);
    let _ = vgic.hardware_interrupt(0, 27, 26);
    let _ = sync(&mut vgic, 0, &mut lists);
    let _ = vgic.redistributor_write(0, SGI + ICPENDR, Word, 1 << 27);
    assert_eq!(sync(&mut vgic, 0, &mut lists), physical);
    let _ = vgic.hardware_interrupt(0, 27, 26);
    let _ = sync(&mut vgic, 0, &mut lists);
    set_state(&mut lists, 27, false, true);
    let _ = vgic.redistributor_write(0, SGI + ICACTIVER, Word, 1 << 27);
    assert_eq!(sync(&mut vgic, 0, &mut lists), physical);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    let _ = vgic.hardware_interrupt(0, 27, 26);
    assert_eq!(vgic.reset_vcpu(0), Kicks::one(0));
    assert_eq!(sync(&mut vgic, 0, &mut lists), physical);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
}

#[test]
fn a_hardware_interrupt_whose_level_falls_is_not_pending_any_more() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let physical = [Deactivated::Physical(26)];
    let pending = |vgic: &mut Vgic| vgic.redistributor_read(0, SGI + ISPENDR, Word) >> 27 & 1;
    // Before it was listed, and while listed.
    for listed_before in [false, true] {
        let _ = vgic.hardware_interrupt(0, 27, 26);
        if listed_before {
            assert_eq!(sync(&mut vgic, 0, &mut lists), []);
            assert!(only(&lists).pending());
        }
        assert_eq!(pending(&mut vgic), 1);
        vgic.hardware_withdrawn(0, 27);
        assert_eq!(sync(&mut vgic, 0, &mut lists), physical);
        assert_eq!((pending(&mut vgic), listed(&lists)), (0, vec![]));
    }
    // Taken: its handler is about to lower the level, and the end is the guest's.
    let _ = vgic.hardware_interrupt(0, 27, 26);
    let _ = sync(&mut vgic, 0, &mut lists);
    set_state(&mut lists, 27, false, true);
    vgic.hardware_withdrawn(0, 27);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert!(only(&lists).active() && only(&lists).hardware());
    set_state(&mut lists, 27, false, false);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    // Another's level says nothing about what isn't linked, and there is nobody else's to withdraw.
    let _ = vgic.redistributor_write(0, SGI + ISPENDR, Word, 1 << 27);
    for (vcpu, intid) in [(0, 27), (0, 40), (9, 27), (0, u32::MAX)] {
        vgic.hardware_withdrawn(vcpu, intid);
    }
    assert_eq!(pending(&mut vgic), 1);
    assert_eq!(sync(&mut vgic, 0, &mut lists), []);
    assert!(only(&lists).pending() && !only(&lists).hardware());
}

#[test]
fn hardware_interrupt_pending_again_is_never_active_and_pending() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.hardware_interrupt(0, 27, 27);
    let _ = vgic.deliver(0, &mut lists);
    set_state(&mut lists, 27, false, true);
    let kicks = vgic.redistributor_write(0, SGI + ISPENDR, Word, 1 << 27);
    assert_eq!(kicks, Kicks::one(0));
    let _ = sync(&mut vgic, 0, &mut lists);
    let entry = only(&lists);
    assert!(entry.active() && !entry.pending() && !entry.hardware() && entry.eoi());
    // Its end is seen; the second one ends the physical interrupt.
    set_state(&mut lists, 27, false, false);
    let _ = sync(&mut vgic, 0, &mut lists);
    assert!(only(&lists).hardware() && only(&lists).pending());
}

#[test]
fn end_by_icactiver_is_reported() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.set_line(Line::Spi(33), true);
    let _ = vgic.deliver(0, &mut lists);
    set_state(&mut lists, 33, false, true);
    let _ = collect(&mut vgic, 0, &mut lists);
    // By the other vCPU, while in no list register: whoever enters next reports it.
    let _ = vgic.distributor_write(1, ICACTIVER + 4, Word, 2);
    assert!(vgic.needs_sync(1));
    let mut others = ListRegisters::new(4);
    let line = [Deactivated::Line(Line::Spi(33))];
    assert_eq!(collect(&mut vgic, 1, &mut others), line);
    assert!(!vgic.needs_sync(1));
    // While listed.
    let _ = vgic.deliver(0, &mut lists);
    set_state(&mut lists, 33, false, true);
    let kicks = vgic.distributor_write(1, ICACTIVER + 4, Word, 2);
    assert_eq!(kicks, Kicks::one(0));
    assert_eq!(collect(&mut vgic, 0, &mut lists), line);
}

#[test]
fn what_there_is_no_room_for_is_reported_later() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    // All shared ones, and a private one, level-sensitive, active, and ended behind the list registers' back.
    for word in [1, 2] {
        for half in 0..2 {
            let _ = vgic.distributor_write(0, 0xc00 + 8 * word + 4 * half, Word, 0);
        }
        let _ = vgic.distributor_write(0, ISACTIVER + 4 * word, Word, 0xffff_ffff);
    }
    let _ = vgic.redistributor_write(0, SGI + ISACTIVER, Word, 1 << 30);
    let _ = collect(&mut vgic, 0, &mut lists);
    for word in [1, 2] {
        let _ = vgic.distributor_write(1, ICACTIVER + 4 * word, Word, 0xffff_ffff);
    }
    let _ = vgic.redistributor_write(0, SGI + ICACTIVER, Word, 1 << 30);
    let mut seen = vec![];
    for room in [0, 1, 40, 20, 4] {
        assert!(vgic.needs_sync(0));
        let mut left = room;
        let _ = vgic.collect(0, &mut lists, &mut |event| {
            if left > 0 {
                seen.push(event);
                left -= 1;
                return true;
            }
            false
        });
        assert_eq!(left, 0);
    }
    let private = Deactivated::Line(Line::Ppi { vcpu: 0, intid: 30 });
    let shared = (32..96).map(|intid| Deactivated::Line(Line::Spi(intid)));
    assert_eq!(
        seen,
        [private].into_iter().chain(shared).collect::<Vec<_>>()
    );
    assert!(!vgic.needs_sync(0));
    assert_eq!(collect(&mut vgic, 0, &mut lists), []);
}

#[test]
fn wake_up() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let cpu = CpuInterface::from_vmcr(0xa8 << 24 | 2);
    let masked = CpuInterface::from_vmcr(0xa0 << 24 | 2);
    let disabled = CpuInterface::from_vmcr(0xf8 << 24 | 1);
    let _ = vgic.pulse(Line::Spi(70));
    for _ in 0..2 {
        assert!(vgic.pending_for(0, cpu, &lists));
        assert!(!vgic.pending_for(0, masked, &lists));
        assert!(!vgic.pending_for(0, disabled, &lists));
        assert!(!vgic.pending_for(1, cpu, &ListRegisters::new(4)));
        let _ = vgic.deliver(0, &mut lists); // the second time it is listed
    }
    set_state(&mut lists, 70, false, true);
    assert!(!vgic.pending_for(0, cpu, &lists));
    let _ = collect(&mut vgic, 0, &mut lists);
    assert!(
        !vgic.pending_for(0, cpu, &lists),
        "active, waiting for a list register"
    );
}

#[test]
fn disabled_distributor_withdraws_everything() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.pulse(Line::Spi(70));
    let _ = vgic.deliver(0, &mut lists);
    assert_eq!(vgic.distributor_write(1, 0, Word, 0), Kicks::one(0));
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), []);
    assert_eq!(vgic.distributor_write(1, 0, Word, 2), Kicks::one(0));
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), [70]);
}

#[test]
fn reset_gives_back_what_was_shared() {
    let mut vgic = vgic();
    let mut lists = ListRegisters::new(4);
    let _ = vgic.pulse(Line::Spi(70));
    let _ = vgic.set_line(Line::Spi(33), true);
    let _ = vgic.sgi1r_write(1, 1);
    let _ = vgic.set_line(Line::Ppi { vcpu: 0, intid: 20 }, true);
    let _ = vgic.deliver(0, &mut lists);
    assert_eq!(listed(&lists), [0, 20, 33, 70]);
    let _ = vgic.reset_vcpu(0);
    let mut lists = ListRegisters::new(4);
    let seen = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), [33, 70]);
    let ppi = Line::Ppi { vcpu: 0, intid: 20 };
    assert_eq!(seen, [ppi, Line::Spi(33)].map(Deactivated::Line));
    assert_eq!(vgic.redistributor_read(0, SGI + ISENABLER, Word), 0);
    assert_eq!(vgic.redistributor_read(0, SGI + ISPENDR, Word), 1 << 20);
}

#[test]
fn odd_arguments_are_harmless() {
    let mut vgic = vgic();
    for intid in [0, 31, 96, 1020, u32::MAX] {
        assert_eq!(vgic.set_line(Line::Spi(intid), true), Kicks::NONE);
    }
    for (vcpu, intid) in [(0, 15), (0, 32), (2, 20), (usize::MAX, 20)] {
        let line = Line::Ppi { vcpu, intid };
        assert_eq!(vgic.set_line(line, true), Kicks::NONE);
    }
    assert_eq!(vgic.hardware_interrupt(9, 27, 27), Kicks::NONE);
    assert_eq!(vgic.hardware_interrupt(0, 3, 27), Kicks::NONE);
    assert_eq!(vgic.reset_vcpu(9), Kicks::NONE);
    assert!(!vgic.needs_sync(9));
    // List registers that claim what isn't so.
    let mut lists = ListRegisters::new(99);
    assert_eq!(lists.count, 16);
    lists.lr = [u64::MAX; MAX_LISTS];
    lists.in_use = u16::MAX;
    lists.lr[3] = Entry::new(70, 0, true).with_state(true, true).0;
    lists.eoi_count = u32::MAX;
    assert_eq!(collect(&mut vgic, 0, &mut lists), []);
    assert!(!vgic.needs_sync(0));
    let vgic = Vgic::new(0, 5000);
    assert_eq!((vgic.vcpus(), vgic.spis()), (1, 960));
}

#[test]
fn kicks_are_a_set() {
    let set = Kicks::one(1) | Kicks::one(7) | Kicks::one(32);
    assert_eq!(set.iter().collect::<Vec<_>>(), [1, 7]);
    assert!(set.contains(7) && !set.contains(0) && !set.contains(64));
    assert_eq!(set.without(1), Kicks::one(7));
    assert!(Kicks::NONE.is_empty() && !set.is_empty());
}
