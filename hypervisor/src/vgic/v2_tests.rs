//! GICv2: registers, per-source SGIs, and random runs against a model of who sent what.

use super::*;
use alloc::collections::BTreeMap;
use alloc::vec;
use coproc_core::register::Width::{Byte, Half, Word};
use proptest::prelude::*;

const CTLR: u64 = 0;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const IPRIORITYR: u64 = 0x400;
const ITARGETSR: u64 = 0x800;
const SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;

fn vgic(vcpus: usize) -> Vgic {
    let mut vgic = Vgic::of(Version::V2, vcpus, 64);
    let _ = vgic.distributor_write(0, CTLR, Word, 3);
    vgic
}

fn sync(vgic: &mut Vgic, vcpu: usize, lists: &mut ListRegisters) -> Maintenance {
    let _ = vgic.collect(vcpu, lists, &mut |event| panic!("{event:?}"));
    vgic.deliver(vcpu, lists)
}

fn listed(lists: &ListRegisters) -> Vec<(u32, u8, bool)> {
    let entries = lists.entries();
    entries.map(|e| (e.intid(), e.source(), e.eoi())).collect()
}

#[test]
fn identification_and_control() {
    let mut vgic = Vgic::of(Version::V2, 3, 64);
    assert_eq!(vgic.version(), Version::V2);
    // ITLinesNumber 2 (96 interrupts), CPUNumber 2 (three CPUs).
    assert_eq!(vgic.distributor_read(0, 4, Word), 2 | 2 << 5);
    assert_eq!(vgic.distributor_read(0, CTLR, Word), 0);
    let _ = vgic.distributor_write(0, CTLR, Word, u64::MAX);
    assert_eq!(vgic.distributor_read(0, CTLR, Word), 3);
    let bytes: Vec<u64> = (0..12)
        .map(|n| vgic.distributor_read(0, 0xfd0 + 4 * n, Word))
        .collect();
    assert_eq!(
        bytes,
        [4, 0, 0, 0, 0x90, 0xb4, 0x2b, 0, 0x0d, 0xf0, 0x05, 0xb1]
    );
    for gicv3_only in [0x6100, 0xffe8, 0x10000] {
        let _ = vgic.distributor_write(0, gicv3_only, Word, u64::MAX);
        assert_eq!(vgic.distributor_read(0, gicv3_only, Word), 0);
    }
    // And a GICv3 has none of a GICv2's.
    let mut v3 = Vgic::new(2, 64);
    for offset in [ITARGETSR + 32, SPENDSGIR, 0xfe8, ISENABLER] {
        let _ = v3.distributor_write(0, offset, Word, u64::MAX);
        assert_eq!(v3.distributor_read(0, offset, Word), 0, "{offset:#x}");
    }
    assert!(v3.distributor_write(0, SGIR, Word, 2 << 24).is_empty());
}

#[test]
fn private_interrupts_are_banked() {
    let mut vgic = vgic(2);
    assert_eq!(vgic.distributor_read(1, ISENABLER, Word), 0xffff);
    let _ = vgic.distributor_write(1, ISENABLER, Word, 1 << 27);
    let _ = vgic.distributor_write(1, ICENABLER, Word, 0xffff);
    assert_eq!(vgic.distributor_read(1, ISENABLER, Word), 1 << 27 | 0xffff);
    assert_eq!(vgic.distributor_read(0, ISENABLER, Word), 0xffff);
    let _ = vgic.distributor_write(0, IPRIORITYR + 27, Byte, 0xff);
    assert_eq!(vgic.distributor_read(0, IPRIORITYR + 24, Word), 0xf8 << 24);
    assert_eq!(vgic.distributor_read(1, IPRIORITYR + 27, Byte), 0);
    let _ = vgic.distributor_write(0, ISPENDR, Word, 1 << 27 | 7);
    assert_eq!(vgic.distributor_read(0, ISPENDR, Word), 1 << 27, "not SGIs");
    assert_eq!(vgic.distributor_read(1, ISPENDR, Word), 0);
    let _ = vgic.distributor_write(0, 0xc00, Word, 0);
    assert_eq!(vgic.distributor_read(0, 0xc00, Word), 0xaaaa_aaaa);
}

#[test]
fn targets() {
    let mut vgic = vgic(2);
    assert_eq!(vgic.distributor_read(1, ITARGETSR + 12, Word), 0x0202_0202);
    let _ = vgic.distributor_write(1, ITARGETSR + 12, Word, 0);
    assert_eq!(vgic.distributor_read(0, ITARGETSR + 31, Byte), 1);
    let _ = vgic.distributor_write(0, ISENABLER + 4, Word, 2);
    // Nobody's at first.
    assert!(vgic.set_line(Line::Spi(33), true).is_empty());
    let kicks = vgic.distributor_write(0, ITARGETSR + 33, Byte, 0xfe);
    assert_eq!(kicks.mask(), 2);
    assert_eq!(vgic.distributor_read(0, ITARGETSR + 32, Word), 2 << 8);
    assert_eq!(vgic.distributor_read(0, ITARGETSR + 32, Half), 0);
    // Of several it's one, and only one takes it.
    let _ = vgic.distributor_write(0, ITARGETSR + 32, Word, 0x300);
    let mut lists = [ListRegisters::new(4), ListRegisters::new(4)];
    for (vcpu, lists) in lists.iter_mut().enumerate() {
        let _ = sync(&mut vgic, vcpu, lists);
    }
    assert_eq!(listed(&lists[0]), [(33, 0, true)]);
    assert_eq!(lists[1].in_use, 0);
}

#[test]
fn one_cpu_needs_no_targets() {
    let mut vgic = vgic(1);
    let _ = vgic.distributor_write(0, ITARGETSR + 32, Word, u64::MAX);
    for offset in [0, 32] {
        assert_eq!(vgic.distributor_read(0, ITARGETSR + offset, Word), 0);
    }
    let _ = vgic.distributor_write(0, ISENABLER + 4, Word, 1);
    assert_eq!(vgic.set_line(Line::Spi(32), true).mask(), 1);
}

#[test]
fn sgi_filters() {
    let mut vgic = vgic(3);
    let send = |vgic: &mut Vgic, value| vgic.distributor_write(1, SGIR, Word, value).mask();
    assert_eq!(
        send(&mut vgic, 0xf9 << 16 | 3),
        0b001,
        "list, existing ones"
    );
    assert_eq!(send(&mut vgic, 1 << 24 | 4), 0b101, "all but itself");
    assert_eq!(send(&mut vgic, 2 << 24 | 0xff << 16 | 5), 0b010, "itself");
    assert_eq!(send(&mut vgic, 3 << 24 | 0xff << 16 | 6), 0, "reserved");
    assert_eq!(vgic.distributor_read(0, SPENDSGIR + 3, Byte), 2);
    assert_eq!(vgic.distributor_read(0, SPENDSGIR + 4, Word), 2);
    assert_eq!(vgic.distributor_read(1, SPENDSGIR + 5, Byte), 2);
    assert_eq!(vgic.distributor_read(0, ISPENDR, Word), 0b11000);
    assert_eq!(vgic.distributor_read(0, SGIR, Word), 0);
    let _ = vgic.distributor_write(0, ICPENDR, Word, u64::MAX);
    assert_eq!(vgic.distributor_read(0, ISPENDR, Word), 0b11000);
    let _ = vgic.distributor_write(0, CPENDSGIR, Word, u64::MAX);
    let _ = vgic.distributor_write(0, CPENDSGIR + 4, Byte, !2);
    assert_eq!(vgic.distributor_read(0, ISPENDR, Word), 0b10000);
}

#[test]
fn each_sender_is_told() {
    let mut vgic = vgic(3);
    let mut lists = ListRegisters::new(4);
    for from in [2, 1] {
        let _ = vgic.distributor_write(from, SGIR, Word, 1 << 16 | 7);
    }
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), [(7, 1, true)], "the other one has to come");
    assert_eq!(vgic.distributor_read(0, SPENDSGIR + 7, Byte), 0b110);
    // Taken, and its sender sends again: still active when it goes back.
    lists.lr[0] = Entry(lists.lr[0]).with_state(false, true).0;
    let _ = vgic.distributor_write(1, SGIR, Word, 1 << 16 | 7);
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(listed(&lists), [(7, 1, true)]);
    let entry = Entry(lists.lr[0]);
    assert_eq!((entry.pending(), entry.active()), (false, true));
    for from in [1, 2] {
        lists.lr[0] = Entry(lists.lr[0]).with_state(false, false).0;
        let _ = sync(&mut vgic, 0, &mut lists);
        assert_eq!(listed(&lists), [(7, from, from == 1)]);
        assert!(Entry(lists.lr[0]).pending());
    }
    // Cleared while it stands in the list register.
    let _ = vgic.distributor_write(0, CPENDSGIR + 7, Byte, 0b100);
    assert_eq!(vgic.distributor_read(0, SPENDSGIR + 7, Byte), 0);
    let _ = sync(&mut vgic, 0, &mut lists);
    assert_eq!(lists.in_use, 0);
}

#[test]
fn a_reset_forgets_who_sent() {
    let mut vgic = vgic(2);
    let _ = vgic.distributor_write(0, SPENDSGIR + 1, Byte, 3);
    assert_eq!(vgic.distributor_read(0, SPENDSGIR + 1, Byte), 3);
    let _ = vgic.reset_vcpu(0);
    assert_eq!(vgic.distributor_read(0, SPENDSGIR + 1, Byte), 0);
    assert_eq!(vgic.distributor_read(0, ISPENDR, Word), 0);
    assert_eq!(vgic.distributor_read(0, ISENABLER, Word), 0xffff);
    assert!(!vgic.needs_sync(0));
}

#[test]
fn interface_of_gich() {
    let cpu = CpuInterface::from_gich_vmcr(0x15 << 27 | 1);
    assert_eq!(cpu.priority_mask, 0xa8);
    assert!(cpu.group0_enabled && !cpu.group1_enabled);
    assert_eq!(
        Entry::new(27, 0xa0, true)
            .with_state(true, false)
            .with_hardware(30)
            .to_gich(),
        1 << 31 | 1 << 30 | 1 << 28 | 0x14 << 23 | 30 << 10 | 27
    );
    assert_eq!(
        Entry::new(3, 0x80, false)
            .with_state(false, true)
            .with_source(5)
            .with_eoi()
            .to_gich(),
        1 << 29 | 0x10 << 23 | 1 << 19 | 5 << 10 | 3
    );
    assert_eq!(interface_pages(0x2000), [0, 0x1000]);
    assert_eq!(interface_pages(0x1_0000), [0, 0x1000]);
    assert_eq!(interface_pages(0x2_0000), [0, 0x1_0000]);
}

const VCPUS: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Send(usize, u32, u32),
    Set(usize, u32, u8),
    Clear(usize, u32, u8),
    Pulse,
    Target(u8),
    Priority(usize, u32, u8),
    Ack(usize),
    End(usize),
    Exit(usize, bool),
}

fn op() -> impl Strategy<Value = Op> {
    let vcpu = 0..VCPUS;
    let sgi = 0..3u32;
    prop_oneof![
        6 => (vcpu.clone(), sgi.clone(), 0..8u32).prop_map(|(v, n, to)| Op::Send(v, n, to)),
        1 => (vcpu.clone(), sgi.clone(), 0..8u8).prop_map(|(v, n, by)| Op::Set(v, n, by)),
        2 => (vcpu.clone(), sgi.clone(), 0..8u8).prop_map(|(v, n, by)| Op::Clear(v, n, by)),
        2 => Just(Op::Pulse),
        1 => any::<u8>().prop_map(Op::Target),
        1 => (vcpu.clone(), sgi, any::<u8>()).prop_map(|(v, n, p)| Op::Priority(v, n, p)),
        8 => vcpu.clone().prop_map(Op::Ack),
        7 => vcpu.clone().prop_map(Op::End),
        4 => (vcpu, any::<bool>()).prop_map(|(v, all)| Op::Exit(v, all)),
    ]
}

/// How often an interrupt may still be taken, and whether it must be.
#[derive(Clone, Copy, Default, Debug)]
struct Due {
    may: u32,
    must: bool,
}

const SPI: u32 = 40;

struct World {
    vgic: Vgic,
    lists: Vec<ListRegisters>,
    maintenance: Vec<Maintenance>,
    handling: Vec<Vec<(u8, u32)>>,
    kicked: Kicks,
    /// By target, SGI and source. The SPI is vCPU 0's here.
    due: BTreeMap<(usize, u32, u8), Due>,
}

impl World {
    fn new(lists: usize) -> Self {
        let mut vgic = vgic(VCPUS);
        let _ = vgic.distributor_write(0, ISENABLER + 4, Word, 1 << (SPI - 32));
        let _ = vgic.distributor_write(0, 0xc00 + 8, Word, 2 << (2 * (SPI - 32)));
        let _ = vgic.distributor_write(0, ITARGETSR + u64::from(SPI), Byte, 4);
        Self {
            vgic,
            lists: vec![ListRegisters::new(lists); VCPUS],
            maintenance: vec![Maintenance::default(); VCPUS],
            handling: vec![vec![]; VCPUS],
            kicked: Kicks::NONE,
            due: BTreeMap::new(),
        }
    }

    fn add(&mut self, vcpu: usize, intid: u32, sources: u8) {
        for source in Bits(sources.into()) {
            let due = self.due.entry((vcpu, intid, source as u8)).or_default();
            *due = Due {
                may: due.may + 1,
                must: true,
            };
        }
    }

    fn write(&mut self, vcpu: usize, offset: u64, width: coproc_core::register::Width, value: u64) {
        self.kicked |= self.vgic.distributor_write(vcpu, offset, width, value);
        if self.vgic.needs_sync(vcpu) {
            self.sync(vcpu);
        }
    }

    fn sync(&mut self, vcpu: usize) {
        self.kicked = self.kicked.without(vcpu);
        let kicks = self
            .vgic
            .collect(vcpu, &mut self.lists[vcpu], &mut |event| {
                panic!("{event:?}")
            });
        self.kicked |= kicks;
        self.maintenance[vcpu] = self.vgic.deliver(vcpu, &mut self.lists[vcpu]);
        // What the guest reads is between what it must and what it may still get.
        for sgi in 0..3 {
            let read = self.vgic.distributor_read(vcpu, SPENDSGIR + sgi, Byte);
            for source in 0..VCPUS as u8 {
                let key = (vcpu, sgi as u32, source);
                let due = self.due.get(&key).copied().unwrap_or_default();
                let pending = read >> source & 1 != 0;
                assert!(!due.must || pending, "{key:?} forgotten");
                assert!(due.may > 0 || !pending, "{key:?} from nowhere");
            }
        }
        let mut seen = vec![];
        for entry in self.lists[vcpu].entries() {
            assert!(!seen.contains(&entry.intid()), "listed twice");
            seen.push(entry.intid());
            assert!(entry.intid() >= 16 || !(entry.pending() && entry.active()));
            // What stands in hardware is what was meant.
            assert_eq!(Entry::from_gich(entry.to_gich()), entry);
        }
    }

    fn ack(&mut self, vcpu: usize) -> bool {
        let running = self.handling[vcpu].last().map_or(0x100, |h| u16::from(h.0));
        let lists = self.lists[vcpu].lr.iter_mut();
        let Some(lr) = lists
            .filter(|lr| Entry(**lr).pending() && !Entry(**lr).active())
            .min_by_key(|lr| (Entry(**lr).priority(), Entry(**lr).intid()))
            .filter(|lr| u16::from(Entry(**lr).priority()) < running)
        else {
            return false;
        };
        let entry = Entry(*lr);
        *lr = entry.with_state(false, true).0;
        let intid = entry.intid();
        self.handling[vcpu].push((entry.priority(), intid));
        let key = (if intid < 16 { vcpu } else { 0 }, intid, entry.source());
        let due = self.due.entry(key).or_default();
        assert!(due.may > 0, "{key:?} from nowhere");
        *due = Due {
            may: due.may - 1,
            must: false,
        };
        self.maintain(vcpu);
        true
    }

    fn end(&mut self, vcpu: usize) -> bool {
        let Some((_, intid)) = self.handling[vcpu].pop() else {
            return false;
        };
        let mut lists = self.lists[vcpu].lr.iter_mut();
        match lists.find(|lr| Entry(**lr).active() && Entry(**lr).intid() == intid) {
            Some(lr) => *lr = Entry(*lr).with_state(Entry(*lr).pending(), false).0,
            None => {
                assert!(self.maintenance[vcpu].entry_not_present);
                self.lists[vcpu].eoi_count += 1;
            }
        }
        self.maintain(vcpu);
        true
    }

    fn maintain(&mut self, vcpu: usize) {
        let (lists, maintenance) = (&self.lists[vcpu], self.maintenance[vcpu]);
        let ended = |e: Entry| e.eoi() && !e.pending() && !e.active();
        let pure = |e: Entry| e.pending() && !e.active();
        if lists.entries().any(ended)
            || maintenance.no_pending && !lists.entries().any(pure)
            || maintenance.entry_not_present && lists.eoi_count != 0
        {
            self.sync(vcpu);
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Send(from, sgi, to) => {
                for target in Bits(to) {
                    self.add(target as usize, sgi, 1 << from);
                }
                self.write(from, SGIR, Word, u64::from(to << 16 | sgi));
            }
            Op::Set(vcpu, sgi, by) => {
                self.add(vcpu, sgi, by);
                self.write(vcpu, SPENDSGIR + u64::from(sgi), Byte, by.into());
            }
            Op::Clear(vcpu, sgi, by) => {
                for source in Bits(by.into()) {
                    self.due.remove(&(vcpu, sgi, source as u8));
                }
                self.write(vcpu, CPENDSGIR + u64::from(sgi), Byte, by.into());
            }
            Op::Pulse => {
                self.add(0, SPI, 1);
                self.kicked |= self.vgic.pulse(Line::Spi(SPI));
            }
            Op::Target(to) => self.write(0, ITARGETSR + u64::from(SPI), Byte, to.into()),
            // While handled, the guest's ends couldn't be told apart (EOIcount).
            Op::Priority(vcpu, sgi, priority) => {
                if !self.handling[vcpu].iter().any(|h| h.1 == sgi) {
                    self.write(vcpu, IPRIORITYR + u64::from(sgi), Byte, priority.into());
                }
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
        }
    }

    fn drain(&mut self) {
        self.write(0, ITARGETSR + u64::from(SPI), Byte, 2);
        for _ in 0..1000 {
            let mut busy = false;
            for vcpu in 0..VCPUS {
                if self.kicked.contains(vcpu) {
                    self.sync(vcpu);
                    busy = true;
                }
                busy |= self.ack(vcpu) || self.end(vcpu);
            }
            if !busy {
                break;
            }
        }
        for (key, due) in &self.due {
            assert!(!due.must, "{key:?} lost");
        }
        for (vcpu, lists) in self.lists.iter().enumerate() {
            assert_eq!(lists.entries().find(|e| e.pending() || e.active()), None);
            assert!(self.handling[vcpu].is_empty() && !self.vgic.needs_sync(vcpu));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every SGI comes from whom it was sent by, no more often than it was sent, and at the last.
    #[test]
    fn senders_are_kept(
        lists in 1usize..=4,
        ops in proptest::collection::vec(op(), 0..200),
    ) {
        let mut world = World::new(lists);
        for op in ops {
            world.apply(op);
        }
        world.drain();
    }

    /// Whatever a guest does to the distributor has an answer.
    #[test]
    fn any_access_has_an_answer(
        vcpus in 1usize..=8,
        accesses in proptest::collection::vec(
            (0..10usize, 0..0x1_0010u64, 0..4u8, any::<u64>()), 0..60),
    ) {
        let mut vgic = Vgic::of(Version::V2, vcpus, 64);
        for (vcpu, offset, width, value) in accesses {
            let width = [Byte, Half, Word, coproc_core::register::Width::Double][usize::from(width)];
            let kicks = vgic.distributor_write(vcpu, offset, width, value);
            prop_assert_eq!(kicks.mask() >> vcpus, 0);
            let read = vgic.distributor_read(vcpu, offset, width);
            prop_assert_eq!(read & !width.mask(), 0);
        }
    }

    /// List registers survive the way through GICH's format.
    #[test]
    fn gich_keeps_entries(intid in 0..1020u32, priority in 0..32u8, bits in any::<u8>(), more in 0..1020u16) {
        let entry = Entry::new(intid, priority << 3, bits & 1 != 0).with_state(bits & 2 != 0, bits & 4 != 0);
        let entry = match (bits & 8 != 0, bits & 16 != 0) {
            (true, _) if intid >= 16 => entry.with_hardware(more),
            (_, true) => entry.with_eoi(),
            _ => entry,
        };
        let entry = if intid < 16 { entry.with_source(more as u8 & 7) } else { entry };
        prop_assert_eq!(Entry::from_gich(entry.to_gich()), entry);
    }
}
