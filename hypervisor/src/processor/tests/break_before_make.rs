//! The table builder, with [`stage2::invalidate`] as what it calls for, down to the instructions: an entry is made anew, and a table is another's,
//! only when no CPU uses what was there (Arm ARM DDI 0487, D8.16: break before make).

use super::*;
use crate::processor::stage2;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::rc::Rc;
use alloc::vec;
use coproc_core::address::HostPhysical;
use core::cell::RefCell;
use core::ops::Range;
use platforms::translation::{
    Geometry, Stage2Attributes, TableMemory, TranslationError, TranslationTable,
};

const PAGE: u64 = 4096;
const BLOCK: u64 = 512 * PAGE;
/// Above what is mapped, so that no page is taken for a table.
const TABLES: u64 = 0x70_0000_0000;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Tables whose walkers are the CPUs, and the processor that changes them.
struct State {
    fake: Fake,
    words: BTreeMap<u64, u64>,
    next: u64,
    root: u64,
    vttbr: u64,
    /// Entries that were valid, and aren't again yet.
    broken: BTreeSet<u64>,
    wrong: Vec<String>,
}

#[derive(Clone)]
struct Tables(Rc<RefCell<State>>);

impl State {
    /// What the entry at `slot` translates, if walks from the root get there.
    fn span(&self, slot: u64) -> Option<Range<u64>> {
        // Two tables of level 1 side by side: 40 bits.
        let mut queue = vec![(self.root, 1024u64, 0u64, 1u64 << 30)];
        while let Some((table, entries, start, size)) = queue.pop() {
            for index in 0..entries {
                let at = table + index * 8;
                let input = start + index * size;
                if at == slot {
                    return Some(input..input + size);
                }
                let value = self.words.get(&at).copied().unwrap_or(0);
                if value & 3 == 3 && size > PAGE {
                    queue.push((value & ADDRESS, 512, input, size / 512));
                }
            }
        }
        None
    }

    fn must_be_unused(&mut self, why: &str) {
        if let Err(used) = self.fake.model.unused() {
            self.wrong.push(alloc::format!("{why}: {used}"));
        }
    }
}

impl TableMemory for Tables {
    fn allocate(&mut self) -> Option<HostPhysical> {
        self.allocate_contiguous(1, PAGE)
    }

    fn allocate_contiguous(&mut self, frames: usize, alignment: u64) -> Option<HostPhysical> {
        let mut state = self.0.borrow_mut();
        let start = state.next.next_multiple_of(alignment);
        state.next = start + frames as u64 * PAGE;
        Some(HostPhysical::new(start))
    }

    fn free(&mut self, frame: HostPhysical) {
        let mut state = self.0.borrow_mut();
        state.must_be_unused("a table is freed");
        let range = frame.get()..frame.get() + PAGE;
        state.words.retain(|at, _| !range.contains(at));
        state.broken.retain(|at| !range.contains(at));
    }

    fn read(&self, descriptor: HostPhysical) -> u64 {
        let state = self.0.borrow();
        state.words.get(&descriptor.get()).copied().unwrap_or(0)
    }

    fn write(&mut self, descriptor: HostPhysical, value: u64) {
        let state = &mut *self.0.borrow_mut();
        let slot = descriptor.get();
        let span = state.span(slot);
        let old = state.words.insert(slot, value).unwrap_or(0);
        match (old & 1 != 0, value & 1 != 0) {
            (true, true) if old != value => state.wrong.push("made, not broken".into()),
            (true, false) => {
                if let Some(span) = span {
                    // Nothing is ever mapped above.
                    let (first, end) = (span.start / PAGE, span.end.min(4 * BLOCK) / PAGE);
                    state.fake.step(Step::Unmapped(first, end, state.vttbr));
                    state.broken.insert(slot);
                }
            }
            (false, true) if state.broken.remove(&slot) => state.must_be_unused("an entry is made"),
            _ => {}
        }
    }

    fn publish(&mut self, start: HostPhysical, bytes: u64) {
        let (start, bytes) = (start.get() as usize, bytes as usize);
        caches::publish(&mut self.0.borrow_mut().fake, start, bytes, true);
    }
}

/// Changes tables in several ways while a CPU runs another guest. `invalidate` does what the builder asks for. Returns what was wrong.
fn change(
    speculates: bool,
    invalidate: fn(&mut Fake, u64, Range<u64>, bool),
) -> Result<Vec<String>, TranslationError> {
    let guests = [guest(1, true), guest(2, true)];
    let mut tables = Tables(Rc::new(RefCell::new(State {
        fake: Fake::new(running(&guests, false, speculates)),
        words: BTreeMap::new(),
        next: TABLES,
        root: TABLES,
        vttbr: guests[1].0[&Register::Vttbr],
        broken: BTreeSet::new(),
        wrong: Vec::new(),
    })));
    let mut table = TranslationTable::new(&mut tables, Geometry::stage2(40, 40)?)?;
    assert_eq!(table.root().get(), TABLES);
    let state = tables.0.clone();
    let mut forget = |range| {
        let state = &mut *state.borrow_mut();
        invalidate(&mut state.fake, state.vttbr, range, speculates);
    };
    let ram = Stage2Attributes::RAM.encode();
    let no_code = Stage2Attributes::DMA.encode();
    let at = |address| HostPhysical::new(0x10_0000_0000 + address);
    table.map(&mut tables, BLOCK, at(BLOCK), 2 * BLOCK, ram)?;
    // A block becomes pages, and some of them go; others change.
    table.unmap(&mut tables, BLOCK + 3 * PAGE, 2 * PAGE, &mut forget)?;
    table.protect(
        &mut tables,
        BLOCK + 9 * PAGE,
        3 * PAGE,
        no_code,
        &mut forget,
    )?;
    // What went comes back, elsewhere.
    table.map(&mut tables, BLOCK + 3 * PAGE, at(0), PAGE, ram)?;
    // A table goes, and a block is in its place.
    table.unmap(&mut tables, BLOCK, BLOCK, &mut forget)?;
    table.map(&mut tables, BLOCK, at(BLOCK), BLOCK, ram)?;
    // Everything.
    table.unmap(&mut tables, 0, 1 << 30, &mut forget)?;
    state.borrow_mut().must_be_unused("all is unmapped");
    table.destroy(&mut tables);
    let state = state.borrow();
    let mut wrong = state.wrong.clone();
    if let Err(broken) = state.fake.model.runs(&guests[0]) {
        wrong.push(broken);
    }
    Ok(wrong)
}

#[test]
fn an_entry_is_made_only_when_nobody_uses_the_one_before() {
    for speculates in [false, true] {
        assert_eq!(
            change(speculates, |fake, vttbr, range, speculates| {
                stage2::invalidate(fake, vttbr, range, speculates);
            }),
            Ok(vec![])
        );
    }
}

/// Ways to invalidate that aren't enough are noticed.
#[test]
fn an_entry_that_somebody_uses_is_noticed() {
    let nothing = |_: &mut Fake, _, _: Range<u64>, _| ();
    // Nobody waits for the other CPUs, whose answer comes with the next barrier at the earliest.
    let no_wait = |fake: &mut Fake, vttbr, _: Range<u64>, _| {
        let before = fake.read(Register::Vttbr);
        fake.write(Register::Vttbr, vttbr);
        fake.isb();
        fake.tlbi(Tlbi::VmallS12E1Is);
        fake.write(Register::Vttbr, before);
        fake.isb();
    };
    // The running guest's VMID.
    let whose = |fake: &mut Fake, _, range, _| {
        let own = fake.read(Register::Vttbr);
        stage2::invalidate(fake, own, range, false);
    };
    for invalidate in [nothing, no_wait, whose] {
        assert!(!change(false, invalidate).unwrap().is_empty());
    }
}
