//! Who paid for every nanosecond.
//!
//! Time isn't measured here and there and summed up afterwards, which always leaves gaps. There is one account open at
//! any moment, and turning to another one books the time since it was opened. So
//! *elapsed = Σ charge + overhead + idle + fault* holds by construction, to the nanosecond.

use alloc::vec::Vec;
use core::cell::Cell;

use crate::id::VcoprocId;
use crate::time::{Duration, Instant};

/// The account that time goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bucket {
    /// The vcoproc had the device, from its slice's begin until quiet, refused time included.
    Charge(VcoprocId),
    /// The device was being switched: out of this vcoproc (save, scrub, IOMMU) or into it (IOMMU, restore).
    Overhead(VcoprocId),
    /// Nobody had work.
    Idle,
    /// The device was being stopped by force, reset, or is quarantined.
    Fault,
}

/// What one vcoproc has used up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// Time it had the device.
    pub charge: Duration,
    /// Switch time that it caused.
    pub overhead: Duration,
}

impl Account {
    #[inline(always)]
    fn add(&mut self, overhead: bool, time: Duration) {
        let sum = if overhead {
            &mut self.overhead
        } else {
            &mut self.charge
        };
        *sum = sum.saturating_add(time);
    }
}

/// The books of one coprocessor.
#[derive(Clone, Debug)]
pub struct Ledger {
    start: Instant,
    last: Instant,
    open: Bucket,
    /// Counted for the open account, not booked on it yet.
    owed: Duration,
    idle: Duration,
    fault: Duration,
    gone: Account,
    /// Sorted by id.
    accounts: Vec<(VcoprocId, Account)>,
    /// Where the last account was found: mostly the next one is the same.
    near: Cell<usize>,
}

impl Ledger {
    /// Books that begin now, idle.
    pub const fn new(now: Instant) -> Self {
        Self {
            start: now,
            last: now,
            open: Bucket::Idle,
            owed: Duration::ZERO,
            idle: Duration::ZERO,
            fault: Duration::ZERO,
            gone: Account {
                charge: Duration::ZERO,
                overhead: Duration::ZERO,
            },
            accounts: Vec::new(),
            near: Cell::new(0),
        }
    }

    /// Opens an account. `false`: no memory for it.
    #[must_use]
    #[inline(always)]
    pub fn add(&mut self, who: VcoprocId) -> bool {
        if self.accounts.try_reserve(1).is_err() {
            return false;
        }
        // Of an earlier one with this id.
        self.book();
        if let Err(at) = self.find(who) {
            self.accounts.insert(at, (who, Account::default()));
        }
        true
    }

    /// Closes an account; what was on it stays in the sums.
    pub fn remove(&mut self, who: VcoprocId) {
        self.book();
        if let Ok(at) = self.find(who) {
            let (_, account) = self.accounts.remove(at);
            self.gone.charge = self.gone.charge.saturating_add(account.charge);
            self.gone.overhead = self.gone.overhead.saturating_add(account.overhead);
        }
    }

    /// Counts the time until `now` for the open account, which stays open, and returns what was counted. An instant before the last
    /// one (counters of two CPUs) counts nothing.
    #[inline(always)]
    pub fn settle(&mut self, now: Instant) -> Duration {
        let time = now.since(self.last);
        self.last = self.last.max(now);
        self.owed = self.owed.saturating_add(time);
        time
    }

    /// The same, and opens `next`.
    #[inline(always)]
    pub fn turn(&mut self, now: Instant, next: Bucket) -> Duration {
        let time = self.settle(now);
        self.book();
        self.open = next;
        time
    }

    /// Where the next account is likely to be found.
    #[inline(always)]
    pub(super) fn hint(&self, place: usize) {
        self.near.set(place);
    }

    /// Books what was counted on the open account.
    #[inline(always)]
    pub(super) fn book(&mut self) {
        let owed = core::mem::replace(&mut self.owed, Duration::ZERO);
        if owed == Duration::ZERO {
            return;
        }
        let (who, overhead) = match self.open {
            Bucket::Idle => return self.idle = self.idle.saturating_add(owed),
            Bucket::Fault => return self.fault = self.fault.saturating_add(owed),
            Bucket::Charge(who) => (who, false),
            Bucket::Overhead(who) => (who, true),
        };
        match self.accounts.get_mut(self.near.get()) {
            Some((id, account)) if *id == who => account.add(overhead, owed),
            _ => self.book_elsewhere(who, overhead, owed),
        }
    }

    #[inline(never)]
    fn book_elsewhere(&mut self, who: VcoprocId, overhead: bool, owed: Duration) {
        let place = self.find(who);
        self.near.set(place.unwrap_or_default());
        match place.ok().and_then(|at| self.accounts.get_mut(at)) {
            Some((_, account)) => account.add(overhead, owed),
            None => self.gone.add(overhead, owed),
        }
    }

    #[inline(always)]
    fn find(&self, who: VcoprocId) -> Result<usize, usize> {
        self.accounts.binary_search_by_key(&who, |(id, _)| *id)
    }

    /// The account that is open.
    pub const fn open(&self) -> Bucket {
        self.open
    }

    /// The books as they are at `now`.
    pub fn at(&self, now: Instant) -> Totals {
        let mut books = self.clone();
        books.turn(now, self.open);
        let mut all = books.gone;
        for (_, account) in &books.accounts {
            all.charge = all.charge.saturating_add(account.charge);
            all.overhead = all.overhead.saturating_add(account.overhead);
        }
        Totals {
            elapsed: books.last.since(books.start),
            charge: all.charge,
            overhead: all.overhead,
            idle: books.idle,
            fault: books.fault,
            gone: books.gone,
            accounts: books.accounts,
        }
    }
}

/// The sums of a [`Ledger`] at one instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Totals {
    /// Time since the books began.
    pub elapsed: Duration,
    /// Σ of all charges, those of detached vcoprocs included.
    pub charge: Duration,
    /// Σ of all overhead, likewise.
    pub overhead: Duration,
    /// Time in which nobody had work.
    pub idle: Duration,
    /// Time in which the device was stopped by force, reset, or quarantined.
    pub fault: Duration,
    /// What detached vcoprocs had used.
    pub gone: Account,
    /// What each attached vcoproc has used.
    pub accounts: Vec<(VcoprocId, Account)>,
}

impl Totals {
    /// What one attached vcoproc has used.
    pub fn of(&self, who: VcoprocId) -> Account {
        self.accounts
            .binary_search_by_key(&who, |(id, _)| *id)
            .ok()
            .and_then(|at| self.accounts.get(at))
            .map(|(_, account)| *account)
            .unwrap_or_default()
    }

    /// Whether elapsed = Σ charge + overhead + idle + fault, to the nanosecond.
    pub fn balanced(&self) -> bool {
        self.charge
            .saturating_add(self.overhead)
            .saturating_add(self.idle)
            .saturating_add(self.fault)
            == self.elapsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bucket() -> impl Strategy<Value = Bucket> {
        prop_oneof![
            (0..4_u32).prop_map(|n| Bucket::Charge(VcoprocId(n))),
            (0..4_u32).prop_map(|n| Bucket::Overhead(VcoprocId(n))),
            Just(Bucket::Idle),
            Just(Bucket::Fault),
        ]
    }

    proptest! {
        /// Whatever is opened, closed or removed, and even if the clock jumps back, not a nanosecond is lost or counted twice.
        #[test]
        fn balanced_whatever_happens(
            start in 0..1_000_000_u64,
            events in proptest::collection::vec((0..2_000_000_u64, bucket(), 0..8_u32), 1..60),
        ) {
            let mut books = Ledger::new(Instant::from_nanos(start));
            let (mut latest, mut attached) = (start, [false; 4]);
            for (at, next, action) in events {
                latest = latest.max(at);
                books.turn(Instant::from_nanos(at), next);
                let id = action % 4;
                let slot = &mut attached[id as usize];
                if action < 4 && !*slot {
                    prop_assert!(books.add(VcoprocId(id)));
                    *slot = true;
                } else if action >= 4 && *slot {
                    books.remove(VcoprocId(id));
                    *slot = false;
                }
                let totals = books.at(Instant::from_nanos(latest));
                prop_assert!(totals.balanced(), "{:?}", totals);
                prop_assert_eq!(totals.elapsed.as_nanos(), latest - start);
            }
        }
    }

    #[test]
    fn each_account_gets_its_own_time() {
        let (a, b) = (VcoprocId(1), VcoprocId(2));
        let at = Instant::from_nanos;
        let mut books = Ledger::new(at(100));
        assert!(books.add(a) && books.add(b));
        books.turn(at(110), Bucket::Overhead(a));
        books.turn(at(113), Bucket::Charge(a));
        assert_eq!(books.turn(at(163), Bucket::Overhead(b)).as_nanos(), 50);
        books.turn(at(170), Bucket::Fault);
        let totals = books.at(at(200));
        assert_eq!(totals.of(a).charge.as_nanos(), 50);
        assert_eq!(totals.of(a).overhead.as_nanos(), 3);
        assert_eq!(totals.of(b).overhead.as_nanos(), 7);
        assert_eq!(totals.idle.as_nanos(), 10);
        assert_eq!(totals.fault.as_nanos(), 30);
        assert_eq!(totals.elapsed.as_nanos(), 100);
        books.remove(a);
        let totals = books.at(at(200));
        assert_eq!(totals.gone.charge.as_nanos(), 50);
        assert_eq!(totals.charge.as_nanos(), 50);
        assert!(totals.balanced());
    }
}
