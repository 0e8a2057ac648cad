//! One story from many rings.
//!
//! A reader is slow (a UART sends a line in milliseconds) and the rings don't wait for it, so nothing is collected first: a cursor
//! remembers the next number of each ring, and each time the earliest of the events there is the next one told. What a ring forgets
//! meanwhile is skipped, and was counted as lost. One call looks at a bounded number of events.

use super::Rings;
use arrayvec::ArrayVec;
use coproc_core::id::CoprocId;
use coproc_core::time::Instant;
use coproc_core::trace::TraceEvent;

/// Most rings that are read.
pub const MAX_RINGS: usize = 8;
/// Events passed over in one call.
const SKIPS: usize = 16;

/// What to tell, and what was told.
#[derive(Clone, Debug)]
pub struct Cursor {
    /// The next number of each ring.
    next: ArrayVec<u64, MAX_RINGS>,
    only: Option<CoprocId>,
    from: Instant,
    until: Instant,
}

/// An event and where it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Told {
    /// The CPU.
    pub cpu: usize,
    /// Its number among those of the CPU.
    pub number: u64,
    /// The event.
    pub event: TraceEvent,
}

/// What one call came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Found {
    /// The next event.
    Event(Told),
    /// Nothing yet: ask again.
    More,
    /// That was all.
    End,
}

impl Cursor {
    /// All that happened from `from` on and before `until`, on one coprocessor or on all.
    pub fn new(only: Option<CoprocId>, from: Instant, until: Instant) -> Self {
        Self {
            next: core::iter::repeat_n(0, MAX_RINGS).collect(),
            only,
            from,
            until,
        }
    }

    fn wanted(&self, event: &TraceEvent) -> bool {
        event.at >= self.from && self.only.is_none_or(|only| only == event.coproc)
    }

    /// The next event in the order of time; those of the same instant by CPU.
    pub fn next(&mut self, rings: &dyn Rings) -> Found {
        let mut skips = SKIPS;
        let mut best: Option<Told> = None;
        for cpu in 0..rings.count().min(MAX_RINGS) {
            let Some(mut number) = self.next.get(cpu).copied() else {
                break;
            };
            let mut head = None;
            rings.read(cpu, &mut |ring| {
                number = number.max(ring.lost());
                head = loop {
                    let event = ring.get(number).filter(|event| event.at < self.until);
                    match event {
                        Some(event) if !self.wanted(event) && skips > 0 => {
                            skips = skips.saturating_sub(1);
                            number = number.saturating_add(1);
                        }
                        event => break event.copied(),
                    }
                };
            });
            if let Some(next) = self.next.get_mut(cpu) {
                *next = number;
            }
            let Some(event) = head else {
                continue;
            };
            if !self.wanted(&event) {
                // Whether the one behind it comes first isn't known yet.
                return Found::More;
            }
            if best.is_none_or(|best| event.at < best.event.at) {
                best = Some(Told { cpu, number, event });
            }
        }
        let Some(best) = best else {
            return Found::End;
        };
        if let Some(next) = self.next.get_mut(best.cpu) {
            *next = best.number.saturating_add(1);
        }
        Found::Event(best)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::lost;
    use alloc::vec::Vec;
    use coproc_core::ring::Ring;
    use coproc_core::trace::TraceKind;
    use proptest::prelude::*;

    struct Rig(Vec<Ring<TraceEvent>>);

    impl Rings for Rig {
        fn count(&self) -> usize {
            self.0.len()
        }

        fn read(&self, ring: usize, visit: &mut dyn FnMut(&Ring<TraceEvent>)) {
            visit(&self.0[ring]);
        }
    }

    fn event(at: u64, coproc: u32) -> TraceEvent {
        TraceEvent {
            at: Instant::from_nanos(at),
            coproc: CoprocId(coproc),
            kind: TraceKind::Attached,
            ..TraceEvent::EMPTY
        }
    }

    fn all(rig: &Rig, mut cursor: Cursor) -> Vec<Told> {
        let mut told = Vec::new();
        let mut silent = 0;
        loop {
            match cursor.next(rig) {
                Found::Event(one) => told.push(one),
                Found::More => silent += 1,
                Found::End => return told,
            }
            assert!(silent < 10_000, "it never ends");
        }
    }

    proptest! {
        /// Whatever was kept and was asked for is told, once, in the order of time; nothing else is.
        #[test]
        fn tells_everything_kept_in_order(
            pushes in proptest::collection::vec((0..3_usize, 0..3_u64, 0..2_u32), 0..300),
            (from, until) in (0..150_u64, 0..400_u64),
            only in proptest::option::of(0..2_u32),
        ) {
            let mut rig = Rig((0..3).map(|_| Ring::new(64, TraceEvent::EMPTY).unwrap()).collect());
            let mut now = 0;
            let mut kept: Vec<Vec<Told>> = alloc::vec![Vec::new(); 3];
            for (cpu, pause, coproc) in pushes {
                now += pause;
                let event = event(now, coproc);
                let number = rig.0[cpu].written();
                rig.0[cpu].push(event);
                kept[cpu].push(Told { cpu, number, event });
            }
            let all_lost: usize = kept.iter().map(|one| one.len().saturating_sub(64)).sum();
            prop_assert_eq!(lost(&rig), all_lost as u64);
            let mut wanted: Vec<Told> = kept
                .iter()
                .flat_map(|one| &one[one.len().saturating_sub(64)..])
                .filter(|told| (from..until).contains(&told.event.at.as_nanos()))
                .filter(|told| only.is_none_or(|only| told.event.coproc.0 == only))
                .copied()
                .collect();
            wanted.sort_by_key(|told| (told.event.at, told.cpu, told.number));
            let at = Instant::from_nanos;
            let told = all(&rig, Cursor::new(only.map(CoprocId), at(from), at(until)));
            prop_assert_eq!(told, wanted);
        }
    }

    /// The rings turn while they are read: nothing is told twice, and the story ends where it was asked for.
    #[test]
    fn goes_on_while_the_rings_turn() {
        let mut rig = Rig(alloc::vec![Ring::new(4, TraceEvent::EMPTY).unwrap()]);
        let mut cursor = Cursor::new(None, Instant::from_nanos(0), Instant::from_nanos(100));
        let mut seen = Vec::new();
        for at in 0..200 {
            rig.0[0].push(event(at, 0));
            // A reader that gets to read every seventh time.
            if at % 7 == 6
                && let Found::Event(told) = cursor.next(&rig)
            {
                seen.push(told.number);
            }
        }
        assert!(
            seen.is_sorted_by(|a, b| a < b) && seen.len() > 10,
            "{seen:?}"
        );
        assert!(seen.iter().all(|number| *number < 100));
        assert_eq!(cursor.next(&rig), Found::End);
        assert_eq!(lost(&rig), 196);
    }
}
