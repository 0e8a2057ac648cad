//! The builder against a walker's view of memory that sees only what was published, and against a map of pages.

use super::*;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::vec::Vec;

/// Above everything that the tests map to, so that a table is never taken for a page.
const BASE: u64 = 0x7000_0000_0000;
const K4: u64 = 1 << 12;
const M2: u64 = 1 << 21;
const G1: u64 = 1 << 30;
const GARBAGE: u64 = 0xdead_beef_dead_beef;

/// Frames, and what the walker sees of them.
#[derive(Default)]
struct State {
    cpu: BTreeMap<u64, u64>,
    walker: BTreeMap<u64, u64>,
    used: BTreeSet<u64>,
    roots: BTreeSet<u64>,
    /// Slots made invalid since the last invalidation that covered everything.
    broken: BTreeSet<u64>,
    /// No walker uses the tables any more.
    retired: bool,
    limit: usize,
    next: u64,
    invalidations: Vec<Range<u64>>,
}

impl State {
    /// Frames that the walker can get to from the root (the first frames allocated).
    fn reachable(&self) -> BTreeSet<u64> {
        let mut found = self.roots.clone();
        let mut queue: Vec<u64> = found.iter().copied().collect();
        while let Some(frame) = queue.pop() {
            for (_, value) in self.walker.range(frame..frame + PAGE_SIZE) {
                let target = value & 0x0000_ffff_ffff_f000;
                if value & 3 == 3 && self.used.contains(&target) && found.insert(target) {
                    queue.push(target);
                }
            }
        }
        found
    }
}

#[derive(Clone, Default)]
struct Frames(Rc<RefCell<State>>);

impl Frames {
    fn new(limit: usize) -> Self {
        let frames = Self::default();
        frames.0.borrow_mut().limit = limit;
        frames
    }

    fn used(&self) -> usize {
        self.0.borrow().used.len()
    }

    fn invalidator(&self) -> impl FnMut(Range<u64>) + use<> {
        let state = self.0.clone();
        move |range| {
            let mut state = state.borrow_mut();
            // What is invalidated must already be invalid for the walker, or out of its reach.
            let reachable = state.reachable();
            for slot in &state.broken {
                let live = reachable.contains(&(slot & !0xfff));
                assert!(
                    !live || state.walker[slot] & 1 == 0,
                    "invalidated before published"
                );
            }
            state.broken.clear();
            state.invalidations.push(range);
        }
    }

    fn settled(&self) {
        let state = self.0.borrow();
        for frame in &state.used {
            for slot in (*frame..frame + PAGE_SIZE).step_by(8) {
                assert_eq!(state.cpu[&slot], state.walker[&slot], "unpublished store");
            }
        }
        assert!(state.broken.is_empty(), "missing invalidation");
    }
}

impl TableMemory for Frames {
    fn allocate(&mut self) -> Option<HostPhysical> {
        self.allocate_contiguous(1, PAGE_SIZE)
    }

    fn allocate_contiguous(&mut self, frames: usize, alignment: u64) -> Option<HostPhysical> {
        let mut state = self.0.borrow_mut();
        if state.used.len() + frames > state.limit {
            return None;
        }
        let start = (BASE + state.next).next_multiple_of(alignment);
        state.next = start - BASE + frames as u64 * PAGE_SIZE;
        for frame in (start..).step_by(4096).take(frames) {
            state.used.insert(frame);
            if state.roots.len() < frames {
                state.roots.insert(frame);
            }
            for slot in (frame..frame + PAGE_SIZE).step_by(8) {
                state.cpu.insert(slot, 0);
                // Looks like a valid table until it is published.
                state.walker.insert(slot, GARBAGE);
            }
        }
        Some(HostPhysical::new(start))
    }

    fn free(&mut self, frame: HostPhysical) {
        let mut state = self.0.borrow_mut();
        assert!(state.broken.is_empty(), "freed before invalidated");
        assert!(state.used.remove(&frame.get()), "freed twice");
        for slot in (frame.get()..frame.get() + PAGE_SIZE).step_by(8) {
            state.cpu.remove(&slot);
            state.walker.remove(&slot);
        }
    }

    fn read(&self, descriptor: HostPhysical) -> u64 {
        self.0.borrow().cpu[&descriptor.get()]
    }

    fn write(&mut self, descriptor: HostPhysical, value: u64) {
        let mut state = self.0.borrow_mut();
        let slot = descriptor.get();
        let old = state.cpu.insert(slot, value).expect("write outside tables");
        if old & 1 != 0 && value & 1 != 0 {
            assert_eq!(old, value, "no break before make");
        }
        if old & 1 == 0 && value & 1 != 0 {
            assert!(!state.broken.contains(&slot), "made before invalidated");
        }
        // Only what the walker saw valid needs an invalidation.
        let seen = state.walker[&slot] == old && !state.retired;
        if old & 1 != 0 && value & 1 == 0 && seen {
            state.broken.insert(slot);
        }
    }

    fn publish(&mut self, start: HostPhysical, bytes: u64) {
        let mut state = self.0.borrow_mut();
        assert!(start.is_aligned(8) && bytes.is_multiple_of(8) && bytes > 0);
        for slot in (start.get()..start.get() + bytes).step_by(8) {
            let value = state.cpu[&slot];
            // A link to a table is published after the table: no garbage below it (levels 0 to 2 have bits 11 for tables,
            // level 3 pages point outside the pool).
            let target = value & 0x0000_ffff_ffff_f000;
            if value & 3 == 3 && state.used.contains(&target) {
                for below in (target..target + PAGE_SIZE).step_by(8) {
                    assert_ne!(state.walker[&below], GARBAGE, "linked before published");
                }
            }
            state.walker.insert(slot, value);
        }
    }
}

fn table(frames: &mut Frames, bits: u8) -> TranslationTable {
    TranslationTable::new(frames, Geometry::stage2(bits, 48).unwrap()).unwrap()
}

fn destroy(frames: &mut Frames, tree: TranslationTable) {
    frames.settled();
    frames.0.borrow_mut().retired = true;
    tree.destroy(frames);
    assert_eq!(frames.used(), 0);
}

fn leaves(frames: &Frames, table: &TranslationTable) -> Vec<(u64, u64, u64)> {
    let mut out = Vec::new();
    table.walk(frames, &mut |leaf| {
        out.push((leaf.input, leaf.output.get(), leaf.size));
    });
    out
}

fn ram() -> Attributes {
    Stage2Attributes::RAM.encode()
}

#[test]
fn attribute_bits() {
    // 0x7fc: MemAttr 0b1111, S2AP 0b11, SH 0b11, AF.
    assert_eq!(Stage2Attributes::RAM.encode().bits(), 0x7fc);
    assert_eq!(Stage2Attributes::DMA.encode().bits(), 0x7fc | 1 << 54);
    // 0x4c4: MemAttr 0b0001, S2AP 0b11, AF.
    assert_eq!(Stage2Attributes::DEVICE.encode().bits(), 0x4c4 | 1 << 54);
    let read_only = Stage2Attributes {
        access: Stage2Access::ReadOnly,
        ..Stage2Attributes::RAM
    };
    assert!(!read_only.encode().stage2_writable());
    assert!(ram().stage2_writable());
    let text = Stage1Attributes {
        index: 1,
        access: Stage1Access::ReadOnly,
        shareability: Shareability::Inner,
        execute: true,
    };
    assert_eq!(
        text.encode().bits(),
        1 << 2 | 0b11 << 6 | 0b11 << 8 | 1 << 10
    );
    let data = Stage1Attributes {
        access: Stage1Access::ReadWrite,
        ..text
    };
    // W^X: asked for both, gets no execution.
    assert_eq!(
        data.encode().bits(),
        1 << 2 | 0b01 << 6 | 0b11 << 8 | 1 << 10 | 1 << 54
    );
}

#[test]
fn shapes() {
    let cases = [
        // ipa, start level, root frames, SL0
        (25, 2, 1, 0),
        (30, 2, 1, 0),
        (31, 1, 1, 1),
        (32, 1, 1, 1),
        (39, 1, 1, 1),
        (40, 1, 2, 1),
        (43, 1, 16, 1),
        (44, 0, 1, 2),
        (48, 0, 1, 2),
    ];
    for (ipa, level, frames, sl0) in cases {
        let shape = Geometry::stage2(ipa, 48).unwrap();
        assert_eq!(
            (shape.start_level(), shape.root_frames(), shape.sl0()),
            (level, frames, sl0),
            "{ipa} bits"
        );
        assert_eq!(shape.t0sz(), 64 - u64::from(ipa));
        assert_eq!(shape.root_alignment(), frames as u64 * 4096);
    }
    let refused = TranslationError::Unsupported {
        input_bits: 42,
        output_bits: 40,
    };
    assert_eq!(Geometry::stage2(42, 40), Err(refused));
    assert!(Geometry::stage2(24, 40).is_err());
    assert!(Geometry::stage2(49, 52).is_err());
    assert_eq!(Geometry::stage2(40, 43).unwrap().output_bits(), 42);
    let el2 = Geometry::stage1(48, 44).unwrap();
    assert_eq!((el2.start_level(), el2.root_frames()), (0, 1));
    assert_eq!(Geometry::stage1(39, 44).unwrap().start_level(), 1);
    // Concatenation is for stage 2 only.
    assert_eq!(Geometry::stage1(40, 44).unwrap().start_level(), 0);
}

#[test]
fn control_registers() {
    // T0SZ 24, SL0 1, write-back, inner shareable, 44-bit PA.
    let stage2 = Geometry::stage2(40, 44).unwrap();
    assert_eq!(vtcr_el2(stage2), 0x8004_3558);
    let el2 = Geometry::stage1(48, 44).unwrap();
    assert_eq!(tcr_el2(el2), 0x8084_3510);
    let sizes = [
        (32, 0),
        (36, 1),
        (40, 2),
        (42, 3),
        (44, 4),
        (48, 5),
        (52, 5),
    ];
    for (bits, encoding) in sizes {
        assert_eq!(physical_address_size(bits), encoding);
    }
}

#[test]
fn takes_the_largest_blocks() {
    let mut frames = Frames::new(100);
    let mut tree = table(&mut frames, 40);
    // 1 GiB + 2 MiB + 8 KiB, equally aligned on both sides, reaching back one page.
    tree.map(
        &mut frames,
        G1 - K4,
        HostPhysical::new(8 * G1 - K4),
        K4 + G1 + M2 + 2 * K4,
        ram(),
    )
    .unwrap();
    frames.settled();
    assert_eq!(
        leaves(&frames, &tree),
        [
            (G1 - K4, 8 * G1 - K4, K4),
            (G1, 8 * G1, G1),
            (2 * G1, 9 * G1, M2),
            (2 * G1 + M2, 9 * G1 + M2, K4),
            (2 * G1 + M2 + K4, 9 * G1 + M2 + K4, K4),
        ]
    );
    // Root (2) + level 2 and 3 before, level 2 and 3 after.
    assert_eq!(frames.used(), 6);
    let found = tree.translate(&frames, G1 + 0x1234_5678).unwrap();
    assert_eq!(found.output.get(), 8 * G1 + 0x1234_5678);
    assert_eq!((found.block, found.attributes), (G1, ram()));
    assert_eq!(tree.translate(&frames, 0), None);
    assert_eq!(tree.translate(&frames, 1 << 40), None);
    destroy(&mut frames, tree);
}

#[test]
fn output_alignment_limits_blocks() {
    let mut frames = Frames::new(100);
    let mut tree = table(&mut frames, 39);
    tree.map(&mut frames, 0, HostPhysical::new(M2), G1, ram())
        .unwrap();
    assert_eq!(leaves(&frames, &tree).len(), 512);
    tree.map(&mut frames, G1, HostPhysical::new(K4), M2, ram())
        .unwrap();
    assert_eq!(leaves(&frames, &tree).len(), 1024);
    destroy(&mut frames, tree);
}

#[test]
fn no_blocks_at_level_0() {
    let mut frames = Frames::new(100);
    let mut tree = table(&mut frames, 48);
    tree.map(&mut frames, 0, HostPhysical::new(0), 1 << 39, ram())
        .unwrap();
    let found = leaves(&frames, &tree);
    assert_eq!(found.len(), 512);
    assert!(found.iter().all(|leaf| leaf.2 == G1));
    destroy(&mut frames, tree);
}

#[test]
fn concatenated_root() {
    let mut frames = Frames::new(40);
    let mut tree = table(&mut frames, 43);
    let last = (1 << 43) - K4;
    tree.map(&mut frames, last, HostPhysical::new(0x1000), K4, ram())
        .unwrap();
    assert_eq!(tree.root().get() % (16 * 4096), 0);
    // The root entry is the last of the last of 16 tables.
    let entry = frames.read(tree.root().wrapping_add(16 * 4096 - 8));
    assert_eq!(entry & 3, 3);
    assert_eq!(tree.translate(&frames, last).unwrap().output.get(), 0x1000);
    destroy(&mut frames, tree);
}

#[test]
fn refuses_bad_ranges() {
    let mut frames = Frames::new(100);
    let mut tree = table(&mut frames, 39);
    let at = HostPhysical::new;
    let misaligned = |input, size| Err(TranslationError::Misaligned { input, size });
    let outside = |input, size| Err(TranslationError::OutOfRange { input, size });
    let bits = ram();
    assert_eq!(tree.map(&mut frames, 8, at(0), K4, bits), misaligned(8, K4));
    assert_eq!(tree.map(&mut frames, 0, at(8), K4, bits), misaligned(0, K4));
    assert_eq!(tree.map(&mut frames, 0, at(0), 8, bits), misaligned(0, 8));
    assert_eq!(tree.map(&mut frames, 0, at(0), 0, bits), misaligned(0, 0));
    let end = 1 << 39;
    assert_eq!(
        tree.map(&mut frames, end, at(0), K4, bits),
        outside(end, K4)
    );
    assert_eq!(
        tree.map(&mut frames, end - K4, at(0), 2 * K4, bits),
        outside(end - K4, 2 * K4)
    );
    let huge = u64::MAX - K4 + 1;
    assert_eq!(
        tree.map(&mut frames, K4, at(0), huge, bits),
        outside(K4, huge)
    );
    assert_eq!(
        tree.map(&mut frames, 0, at(1 << 48), K4, bits),
        outside(0, K4)
    );
    assert_eq!(tree.map(&mut frames, 0, at(huge), K4, bits), outside(0, K4));
    tree.map(&mut frames, M2, at(0), M2, bits).unwrap();
    assert_eq!(
        tree.map(&mut frames, 0, at(0), G1, bits),
        Err(TranslationError::Overlap { input: M2 })
    );
    assert_eq!(
        tree.map(&mut frames, M2 + 5 * K4, at(0), K4, bits),
        Err(TranslationError::Overlap { input: M2 + 5 * K4 })
    );
    assert_eq!(leaves(&frames, &tree), [(M2, 0, M2)]);
    destroy(&mut frames, tree);
}

#[test]
fn unmapping_splits_blocks_and_frees_tables() {
    let mut frames = Frames::new(100);
    let mut tree = table(&mut frames, 39);
    tree.map(&mut frames, G1, HostPhysical::new(4 * G1), G1, ram())
        .unwrap();
    assert_eq!(frames.used(), 1);
    let mut invalidate = frames.invalidator();
    let hole = G1 + 3 * M2 + 7 * K4;
    tree.unmap(&mut frames, hole, K4, &mut invalidate).unwrap();
    frames.settled();
    // 1 GiB into 512, one of them into 512, then the page.
    assert_eq!(
        frames.0.borrow().invalidations,
        [G1..2 * G1, G1 + 3 * M2..G1 + 4 * M2, hole..hole + K4,]
    );
    assert_eq!(leaves(&frames, &tree).len(), 511 + 511);
    assert_eq!(tree.translate(&frames, hole), None);
    let after = tree.translate(&frames, hole + K4).unwrap();
    assert_eq!(after.output.get(), hole + K4 + 3 * G1);
    assert_eq!(frames.used(), 3);
    // The rest of that 2 MiB: its table goes, and the invalidation covers all of it.
    tree.unmap(&mut frames, G1 + 3 * M2, M2, &mut invalidate)
        .unwrap();
    assert_eq!(frames.used(), 2);
    // Everything: no table but the root.
    tree.unmap(&mut frames, 0, 1 << 39, &mut invalidate)
        .unwrap();
    assert_eq!(frames.used(), 1);
    frames.settled();
    // Nothing there: nothing to invalidate.
    let before = frames.0.borrow().invalidations.len();
    tree.unmap(&mut frames, 0, 1 << 39, &mut invalidate)
        .unwrap();
    assert_eq!(frames.0.borrow().invalidations.len(), before);
    destroy(&mut frames, tree);
}

#[test]
fn protecting() {
    let mut frames = Frames::new(100);
    let mut tree = table(&mut frames, 39);
    tree.map(&mut frames, G1, HostPhysical::new(G1), 2 * M2, ram())
        .unwrap();
    let read_only = Stage2Attributes {
        access: Stage2Access::ReadOnly,
        ..Stage2Attributes::RAM
    }
    .encode();
    let mut invalidate = frames.invalidator();
    let from = G1 + M2 - K4;
    tree.protect(&mut frames, from, 2 * K4, read_only, &mut invalidate)
        .unwrap();
    frames.settled();
    for page in (G1..G1 + 2 * M2).step_by(4096) {
        let found = tree.translate(&frames, page).unwrap();
        assert_eq!(found.output.get(), page);
        let inside = page >= from && page < from + 2 * K4;
        assert_eq!(found.attributes == read_only, inside, "{page:#x}");
    }
    // All or nothing.
    let before = leaves(&frames, &tree);
    assert_eq!(
        tree.protect(&mut frames, G1, 3 * M2, read_only, &mut invalidate),
        Err(TranslationError::NotMapped { input: G1 + 2 * M2 })
    );
    assert_eq!(leaves(&frames, &tree), before);
    // A whole block keeps its size.
    tree.map(&mut frames, 8 * G1, HostPhysical::new(0), G1, ram())
        .unwrap();
    tree.protect(&mut frames, 8 * G1, G1, read_only, &mut invalidate)
        .unwrap();
    assert_eq!(tree.translate(&frames, 8 * G1).unwrap().block, G1);
    destroy(&mut frames, tree);
}

#[test]
fn out_of_memory_leaves_nothing_behind() {
    for limit in 1..6 {
        let mut frames = Frames::new(limit);
        let mut tree = table(&mut frames, 39);
        // Needs 4 tables beside the root: levels 2 and 3 on both ends.
        let result = tree.map(
            &mut frames,
            G1 - K4,
            HostPhysical::new(G1 - K4),
            G1 + 2 * K4,
            ram(),
        );
        if limit < 5 {
            assert_eq!(result, Err(TranslationError::OutOfMemory));
            assert_eq!(frames.used(), 1);
            assert!(leaves(&frames, &tree).is_empty());
            frames.settled();
        } else {
            result.unwrap();
            assert_eq!(frames.used(), 5);
        }
        destroy(&mut frames, tree);
    }
    // A split without memory: the block may be in smaller ones, the translation is the same.
    let mut frames = Frames::new(2);
    let mut tree = table(&mut frames, 39);
    tree.map(&mut frames, 0, HostPhysical::new(G1), G1, ram())
        .unwrap();
    let mut invalidate = frames.invalidator();
    assert_eq!(
        tree.unmap(&mut frames, 5 * K4, K4, &mut invalidate),
        Err(TranslationError::OutOfMemory)
    );
    frames.settled();
    for page in (0..G1).step_by(4096) {
        assert_eq!(
            tree.translate(&frames, page).unwrap().output.get(),
            G1 + page
        );
    }
    assert!(TranslationTable::new(&mut frames, Geometry::stage2(39, 48).unwrap()).is_err());
}

#[derive(Debug, Clone)]
enum Op {
    Map(u64, u64, u64),
    Unmap(u64, u64),
    Protect(u64, u64),
}

/// Page numbers around the edges of 2 MiB and 1 GiB blocks.
fn page() -> impl Strategy<Value = u64> {
    (0u64..3, 0u64..3, 0u64..6).prop_map(|(g, m, k)| (g << 18 | m << 9) + k)
}

fn count() -> impl Strategy<Value = u64> {
    prop_oneof![1u64..5, Just(512), 510u64..1030, Just(1 << 18)]
}

fn op() -> impl Strategy<Value = Op> {
    let output = prop_oneof![Just(0u64), Just(1 << 18), Just(1 << 20), Just(512), Just(3)];
    prop_oneof![
        (page(), output, count()).prop_map(|(i, shift, n)| Op::Map(i, i + shift, n)),
        (page(), count()).prop_map(|(i, n)| Op::Unmap(i, n)),
        (page(), count()).prop_map(|(i, n)| Op::Protect(i, n)),
    ]
}

/// Runs of pages: start → (end, output of start, writable); merged neither way, split on demand.
#[derive(Default)]
struct Model(BTreeMap<u64, (u64, u64, bool)>);

impl Model {
    fn cut(&mut self, at: u64) {
        if let Some((&start, &(end, output, rw))) = self.0.range(..at).next_back()
            && end > at
        {
            self.0.insert(start, (at, output, rw));
            self.0.insert(at, (end, output + at - start, rw));
        }
    }

    fn covered(&self, from: u64, to: u64) -> u64 {
        self.0
            .iter()
            .map(|(start, run)| run.0.min(to).saturating_sub(from.max(*start)))
            .sum()
    }

    fn get(&self, page: u64) -> Option<(u64, bool)> {
        let (start, run) = self.0.range(..=page).next_back()?;
        (run.0 > page).then(|| (run.1 + page - start, run.2))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn agrees_with_a_map_of_pages(ops in prop::collection::vec(op(), 1..16), limit in 3usize..40) {
        let mut frames = Frames::new(limit);
        let mut tree = table(&mut frames, 39);
        let mut model = Model::default();
        let mut invalidate = frames.invalidator();
        let read_only = Stage2Attributes { access: Stage2Access::ReadOnly, ..Stage2Attributes::RAM }.encode();
        for op in ops {
            let (from, to) = match op {
                Op::Map(i, o, n) => {
                    let free = model.covered(i, i + n) == 0;
                    match tree.map(&mut frames, i << 12, HostPhysical::new(o << 12), n << 12, ram()) {
                        Ok(()) => {
                            prop_assert!(free);
                            model.0.insert(i, (i + n, o, true));
                        }
                        Err(TranslationError::OutOfMemory) => prop_assert!(free),
                        Err(TranslationError::Overlap { input }) => {
                            prop_assert!(!free && model.get(input >> 12).is_some());
                        }
                        Err(other) => prop_assert!(false, "{other}"),
                    }
                    (i, i + n)
                }
                Op::Unmap(i, n) => {
                    match tree.unmap(&mut frames, i << 12, n << 12, &mut invalidate) {
                        Ok(()) => {
                            model.cut(i);
                            model.cut(i + n);
                            model.0.retain(|start, _| *start < i || *start >= i + n);
                        }
                        Err(error) => prop_assert_eq!(error, TranslationError::OutOfMemory),
                    }
                    (i, i + n)
                }
                Op::Protect(i, n) => {
                    let full = model.covered(i, i + n) == n;
                    match tree.protect(&mut frames, i << 12, n << 12, read_only, &mut invalidate) {
                        Ok(()) => {
                            prop_assert!(full);
                            model.cut(i);
                            model.cut(i + n);
                            for (_, run) in model.0.range_mut(i..i + n) {
                                run.2 = false;
                            }
                        }
                        Err(TranslationError::NotMapped { input }) => {
                            prop_assert!(!full && model.get(input >> 12).is_none());
                        }
                        Err(error) => prop_assert_eq!(error, TranslationError::OutOfMemory),
                    }
                    (i, i + n)
                }
            };
            frames.settled();
            for page in [from.wrapping_sub(1), from, from + 1, (from + to) / 2, to - 1, to, to + 1] {
                let found = tree.translate(&frames, page << 12)
                    .map(|t| (t.output.get() >> 12, t.attributes.stage2_writable()));
                prop_assert_eq!(found, model.get(page), "page {:#x}", page);
            }
            let mapped: u64 = leaves(&frames, &tree).iter().map(|leaf| leaf.2 >> 12).sum();
            prop_assert_eq!(mapped, model.covered(0, 1 << 27));
        }
        tree.unmap(&mut frames, 0, 1 << 39, &mut invalidate).unwrap();
        prop_assert_eq!(frames.used(), 1);
        destroy(&mut frames, tree);
    }
}

#[test]
fn frames_listed_once() {
    // The allocator of these tests must itself notice a double free.
    let mut frames = Frames::new(1);
    let frame = frames.allocate().unwrap();
    frames.free(frame);
    let again = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| frames.free(frame)));
    assert!(again.is_err());
}
