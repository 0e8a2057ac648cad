//! Random runs against a model of guests and interrupt sources.
//!
//! The model knows what a GIC may not do: deliver an edge more often than it rose, or never;
//! have one interrupt in two list registers, or active on two vCPUs; deactivate a physical
//! interrupt that isn't active, or leave one so. vCPUs sync *only* when they were kicked, made
//! an access themselves or got a maintenance interrupt, so a forgotten kick fails the test, too.

use super::*;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use coproc_core::register::Width::{Byte, Double, Word};
use proptest::prelude::*;

const VCPUS: usize = 3;
const SGI_FRAME: u64 = 0x1_0000;
const TIMER: u32 = 27;
/// Level-sensitive SPIs, and edge-triggered ones.
const LEVELS: core::ops::Range<u32> = 32..36;
const EDGES: core::ops::Range<u32> = 64..72;

#[derive(Clone, Debug)]
enum Op {
    Pulse(u32),
    Line(u32, bool),
    Sgi(usize, u32, u32),
    Timer(usize),
    /// The timer's level falls, which is seen at an exit.
    TimerFell(usize),
    Ack(usize),
    End(usize),
    /// An exit; synced if kicked, or in any case.
    Exit(usize, bool),
    Enable(usize, u32, bool),
    Priority(usize, u32, u8),
    Route(usize, u32, u8),
    /// ISPENDR, ICPENDR, ISACTIVER, ICACTIVER of a level-sensitive SPI or the timer.
    Junk(usize, u32, u64),
    Groups(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let vcpu = 0..VCPUS;
    let shared = prop_oneof![LEVELS, EDGES];
    let mixed = prop_oneof![LEVELS, Just(TIMER)];
    let every = prop_oneof![LEVELS, EDGES, Just(TIMER), 0..3u32];
    prop_oneof![
        6 => EDGES.prop_map(Op::Pulse),
        4 => (LEVELS, any::<bool>()).prop_map(|(n, level)| Op::Line(n, level)),
        3 => (vcpu.clone(), 0..8u32, 0..3u32).prop_map(|(v, to, n)| Op::Sgi(v, to, n)),
        2 => vcpu.clone().prop_map(Op::Timer),
        1 => vcpu.clone().prop_map(Op::TimerFell),
        12 => vcpu.clone().prop_map(Op::Ack),
        10 => vcpu.clone().prop_map(Op::End),
        8 => (vcpu.clone(), any::<bool>()).prop_map(|(v, all)| Op::Exit(v, all)),
        2 => (vcpu.clone(), every.clone(), any::<bool>()).prop_map(|(v, n, on)| Op::Enable(v, n, on)),
        2 => (vcpu.clone(), every, any::<u8>()).prop_map(|(v, n, p)| Op::Priority(v, n, p)),
        2 => (vcpu.clone(), shared, 0..4u8).prop_map(|(v, n, to)| Op::Route(v, n, to)),
        2 => (vcpu.clone(), mixed, prop_oneof![Just(0x200u64), Just(0x280), Just(0x300), Just(0x380)])
            .prop_map(|(v, n, offset)| Op::Junk(v, n, offset)),
        1 => (vcpu, any::<bool>()).prop_map(|(v, on)| Op::Groups(v, on)),
    ]
}

/// A physical CPU with a vCPU loaded.
struct Core {
    lists: ListRegisters,
    maintenance: Maintenance,
    /// The interrupts being handled, with the priority they were taken at.
    handling: Vec<(u8, u32)>,
    /// The physical timer interrupt is active.
    timer: bool,
}

#[derive(Default, Debug)]
struct Edges {
    rose: u32,
    taken: u32,
    unserved: bool,
}

struct World {
    vgic: Vgic,
    cores: Vec<Core>,
    kicked: Kicks,
    /// By vCPU (SPIs: 0) and INTID.
    edges: BTreeMap<(usize, u32), Edges>,
    lines: BTreeSet<u32>,
    /// Something was made active by hand.
    meddled: bool,
    /// SPIs whose route isn't as at the start.
    rerouted: BTreeSet<u32>,
    /// Handlers lower the lines.
    draining: bool,
}

impl World {
    fn new(lists: usize) -> Self {
        let mut world = Self {
            vgic: Vgic::new(VCPUS, 64),
            cores: (0..VCPUS)
                .map(|_| Core {
                    lists: ListRegisters::new(lists),
                    maintenance: Maintenance::default(),
                    handling: Vec::new(),
                    timer: false,
                })
                .collect(),
            kicked: Kicks::NONE,
            edges: BTreeMap::new(),
            lines: BTreeSet::new(),
            meddled: false,
            rerouted: BTreeSet::new(),
            draining: false,
        };
        for intid in EDGES {
            let offset = 0xc00 + u64::from(intid / 16) * 4;
            let _ = world.vgic.distributor_write(0, offset, Word, 0xaaaa_aaaa);
        }
        world.enable_all();
        world
    }

    fn enable_all(&mut self) {
        self.write(0, 0, 0, Word, 3);
        for vcpu in 0..VCPUS {
            self.write(vcpu, 0, 0x100, Word, 0xffff_ffff);
            self.write(vcpu, 32, 0x100, Word, 0xffff_ffff);
            self.write(vcpu, 64, 0x100, Word, 0xffff_ffff);
        }
    }

    /// A 32-bit register with one bit per interrupt, or a whole offset for INTID 0 and GICD_CTLR.
    fn write(
        &mut self,
        vcpu: usize,
        intid: u32,
        offset: u64,
        width: coproc_core::register::Width,
        value: u64,
    ) {
        let kicks = if offset == 0 {
            self.vgic.distributor_write(vcpu, 0, width, value)
        } else if intid < 32 {
            self.vgic
                .redistributor_write(vcpu, SGI_FRAME + offset, width, value)
        } else {
            let step = u64::from(intid / 32) * 4;
            self.vgic
                .distributor_write(vcpu, offset + step, width, value)
        };
        self.trapped(vcpu, kicks);
    }

    /// An access of the vCPU's own: it syncs on its way back, if need be.
    fn trapped(&mut self, vcpu: usize, kicks: Kicks) {
        self.kicked |= kicks;
        if self.vgic.needs_sync(vcpu) {
            self.sync(vcpu);
        }
    }

    fn key(&self, vcpu: usize, intid: u32) -> (usize, u32) {
        (if intid < 32 { vcpu } else { 0 }, intid)
    }

    fn rise(&mut self, vcpu: usize, intid: u32) {
        let key = self.key(vcpu, intid);
        let edges = self.edges.entry(key).or_default();
        edges.rose += 1;
        edges.unserved = true;
    }

    fn sync(&mut self, vcpu: usize) {
        self.kicked = self.kicked.without(vcpu);
        let core = &mut self.cores[vcpu];
        let timer = &mut core.timer;
        let mut acted = |event| {
            match event {
                Deactivated::Physical(intid) => {
                    assert_eq!(intid, TIMER);
                    assert!(core::mem::take(timer), "not active");
                }
                Deactivated::Line(Line::Spi(intid)) => assert!(LEVELS.contains(&intid)),
                Deactivated::Line(Line::Ppi { vcpu: of, intid }) => {
                    assert_eq!((of, intid), (vcpu, TIMER));
                }
            }
            true
        };
        let kicks = self.vgic.collect(vcpu, &mut core.lists, &mut acted);
        assert!(!kicks.contains(vcpu));
        self.kicked |= kicks;
        core.maintenance = self.vgic.deliver(vcpu, &mut core.lists);
        let pure = core.lists.entries().any(|e| e.pending() && !e.active());
        assert!(pure || !core.maintenance.no_pending, "would exit forever");
        // What is left needs a maintenance interrupt to be seen to.
        let wanting = core.maintenance != Maintenance::default();
        assert_eq!(self.vgic.needs_sync(vcpu), wanting);
        self.check();
    }

    fn check(&self) {
        let mut shared = BTreeSet::new();
        for core in &self.cores {
            let mut private = BTreeSet::new();
            for entry in core.lists.entries() {
                let intid = entry.intid();
                let set = if intid < 32 {
                    &mut private
                } else {
                    &mut shared
                };
                assert!(set.insert(intid), "{intid} listed twice");
                let both = entry.pending() && entry.active();
                assert!(!both || !entry.hardware() && !LEVELS.contains(&intid));
                assert!(!entry.hardware() || intid == TIMER);
            }
        }
    }

    /// The guest reads ICC_IAR_EL1; false if that is spurious.
    fn ack(&mut self, vcpu: usize) -> bool {
        let core = &mut self.cores[vcpu];
        let running = core.handling.last().map_or(0x100, |h| u16::from(h.0));
        let pending = core
            .lists
            .lr
            .iter_mut()
            .filter(|lr| Entry(**lr).pending() && !Entry(**lr).active())
            .min_by_key(|lr| (Entry(**lr).priority(), Entry(**lr).intid()));
        let Some(lr) = pending.filter(|lr| u16::from(Entry(**lr).priority()) < running) else {
            return false;
        };
        let entry = Entry(*lr);
        *lr = entry.with_state(false, true).0;
        let intid = entry.intid();
        core.handling.push((entry.priority(), intid));
        assert!(!entry.hardware() || core.timer, "linked to nothing");
        if EDGES.contains(&intid) || intid < 16 {
            let key = self.key(vcpu, intid);
            let edges = self.edges.entry(key).or_default();
            edges.taken += 1;
            edges.unserved = false;
            assert!(edges.taken <= edges.rose, "{intid}: {edges:?}");
        }
        if EDGES.contains(&intid) {
            let handlers = self.cores.iter().flat_map(|c| &c.handling);
            assert_eq!(handlers.filter(|h| h.1 == intid).count(), 1);
        }
        if self.draining && self.lines.remove(&intid) {
            let kicks = self.vgic.set_line(Line::Spi(intid), false);
            self.trapped(vcpu, kicks);
        }
        self.maintain(vcpu);
        true
    }

    /// The guest ends the innermost handler; false if there is none.
    fn end(&mut self, vcpu: usize) -> bool {
        let core = &mut self.cores[vcpu];
        let Some((_, intid)) = core.handling.pop() else {
            return false;
        };
        let lr = core
            .lists
            .lr
            .iter_mut()
            .find(|lr| Entry(**lr).active() && Entry(**lr).intid() == intid);
        if let Some(lr) = lr {
            let entry = Entry(*lr);
            *lr = entry.with_state(entry.pending(), false).0;
            if entry.hardware() {
                assert!(core::mem::take(&mut core.timer), "not active");
            }
        } else {
            assert!(core.maintenance.entry_not_present, "{intid} ends unseen");
            core.lists.eoi_count += 1;
        }
        self.maintain(vcpu);
        true
    }

    /// Syncs if the hardware would raise a maintenance interrupt.
    fn maintain(&mut self, vcpu: usize) {
        let core = &self.cores[vcpu];
        let ended = |e: Entry| e.eoi() && !e.pending() && !e.active();
        let pure = |e: Entry| e.pending() && !e.active();
        if core.lists.entries().any(ended)
            || core.maintenance.no_pending && !core.lists.entries().any(pure)
            || core.maintenance.entry_not_present && core.lists.eoi_count != 0
        {
            self.sync(vcpu);
        }
    }

    fn handled(&self, vcpu: usize, intid: u32) -> bool {
        let mut cores = self.cores.iter().enumerate();
        cores.any(|(v, core)| {
            (intid >= 32 || v == vcpu) && core.handling.iter().any(|h| h.1 == intid)
        })
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Pulse(intid) => {
                self.rise(0, intid);
                self.kicked |= self.vgic.pulse(Line::Spi(intid));
            }
            Op::Line(intid, level) => {
                if level {
                    self.lines.insert(intid);
                } else {
                    self.lines.remove(&intid);
                }
                self.kicked |= self.vgic.set_line(Line::Spi(intid), level);
            }
            Op::Sgi(vcpu, to, intid) => {
                for target in Bits(to & 7) {
                    self.rise(target as usize, intid);
                }
                let value = u64::from(intid) << 24 | u64::from(to);
                let kicks = self.vgic.sgi1r_write(vcpu, value);
                self.trapped(vcpu, kicks);
            }
            Op::Timer(vcpu) => {
                if !core::mem::replace(&mut self.cores[vcpu].timer, true) {
                    let kicks = self.vgic.hardware_interrupt(vcpu, TIMER, TIMER);
                    self.trapped(vcpu, kicks);
                }
            }
            Op::TimerFell(vcpu) => {
                self.vgic.hardware_withdrawn(vcpu, TIMER);
                self.sync(vcpu);
                // Active, be it by hand: the end of that is waited for.
                let taken = self.meddled || self.handled(vcpu, TIMER);
                let mut entries = self.cores[vcpu].lists.entries();
                let signalled = entries.any(|e| e.hardware() && e.pending());
                assert!(!signalled && (taken || !self.cores[vcpu].timer));
            }
            Op::Ack(vcpu) => {
                self.ack(vcpu);
            }
            Op::End(vcpu) => {
                self.end(vcpu);
            }
            Op::Exit(vcpu, all) => {
                if all || self.kicked.contains(vcpu) {
                    self.sync(vcpu);
                }
            }
            Op::Enable(vcpu, intid, on) => {
                let offset = if on { 0x100 } else { 0x180 };
                self.write(vcpu, intid, offset, Word, 1 << (intid % 32));
            }
            // While handled, the guest's ends couldn't be told apart (EOIcount).
            Op::Priority(vcpu, intid, priority) if !self.handled(vcpu, intid) => {
                let (offset, value) = (0x400 + u64::from(intid), u64::from(priority));
                let kicks = if intid < 32 {
                    self.vgic
                        .redistributor_write(vcpu, SGI_FRAME + offset, Byte, value)
                } else {
                    self.vgic.distributor_write(vcpu, offset, Byte, value)
                };
                self.trapped(vcpu, kicks);
            }
            Op::Route(vcpu, intid, to) => {
                self.rerouted.insert(intid);
                self.route(vcpu, intid, to);
            }
            Op::Junk(vcpu, intid, offset) if !self.handled(vcpu, intid) => {
                self.meddled |= offset == 0x300;
                self.write(vcpu, intid, offset, Word, 1 << (intid % 32));
                // Cleared and, before the vCPU comes out, taken: the known limit.
                for vcpu in self.kicked.iter().filter(|_| offset == 0x380) {
                    self.sync(vcpu);
                }
            }
            Op::Priority(..) | Op::Junk(..) => {}
            Op::Groups(vcpu, on) => self.write(vcpu, 0, 0, Word, if on { 3 } else { 0 }),
        }
    }

    fn route(&mut self, vcpu: usize, intid: u32, to: u8) {
        let offset = 0x6000 + u64::from(intid) * 8;
        let kicks = self.vgic.distributor_write(vcpu, offset, Double, to.into());
        self.trapped(vcpu, kicks);
    }

    fn settle(&mut self, ack: bool) {
        for _ in 0..1000 {
            let mut busy = false;
            for vcpu in 0..VCPUS {
                if self.kicked.contains(vcpu) {
                    self.sync(vcpu);
                    busy = true;
                }
                busy |= ack && self.ack(vcpu) || self.end(vcpu);
            }
            if !busy {
                return;
            }
        }
        panic!("never settles");
    }

    /// Everything enabled and routed, the guests take what comes: nothing may be left.
    fn drain(&mut self) {
        // As few writes as possible, since each may sync what should have been kicked.
        if self.meddled {
            self.settle(false);
            for vcpu in 0..VCPUS {
                for intid in [0, 32, 64] {
                    self.write(vcpu, intid, 0x380, Word, 0xffff_ffff);
                }
            }
        }
        self.enable_all();
        for intid in core::mem::take(&mut self.rerouted) {
            self.route(0, intid, (intid % VCPUS as u32) as u8);
        }
        self.draining = true;
        self.settle(true);
        for (key, edges) in &self.edges {
            assert!(!edges.unserved, "{key:?} lost: {edges:?}");
        }
        assert!(self.lines.is_empty(), "never taken: {:?}", self.lines);
        for (vcpu, core) in self.cores.iter().enumerate() {
            assert!(!core.timer, "the timer of {vcpu} is dead");
            assert!(core.handling.is_empty());
            let mut live = core.lists.entries().filter(|e| e.pending() || e.active());
            assert_eq!(live.next(), None);
            assert!(!self.vgic.needs_sync(vcpu));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn nothing_is_lost_or_doubled(
        lists in 1usize..=4,
        ops in proptest::collection::vec(op(), 0..250),
    ) {
        let mut world = World::new(lists);
        for op in ops {
            world.apply(op);
        }
        world.drain();
    }
}
