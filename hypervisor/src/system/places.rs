//! The places of domains: those of boot, and those that were added since.
//!
//! A place is for good, since vCPUs, exits and interrupts refer to it without a lock. So the list only grows, at its end.

use super::domain::Domain;
use alloc::boxed::Box;
use alloc::vec::Vec;
use spin::Once;

/// How many can be added.
const LATER: usize = 32;

/// All places.
pub struct Places {
    boot: Vec<Domain>,
    later: [Once<Box<Domain>>; LATER],
}

impl Places {
    /// Those of boot.
    pub const fn new(boot: Vec<Domain>) -> Self {
        Self {
            boot,
            later: [const { Once::new() }; LATER],
        }
    }

    /// The place at this position, which never changes.
    #[inline]
    pub fn get(&self, position: usize) -> Option<&Domain> {
        if let Some(domain) = self.boot.get(position) {
            return Some(domain);
        }
        let domain = self.later.get(position.checked_sub(self.boot.len())?)?;
        Some(&**domain.get()?)
    }

    /// All of them, by position, for who is in a hurry: a loop for each part. The others are served by [`Self::all`].
    #[inline]
    pub fn iter(&self) -> impl Iterator<Item = &Domain> {
        let later = self.later.iter().map_while(Once::get);
        self.boot.iter().chain(later.map(|domain| &**domain))
    }

    /// All of them, by position.
    pub const fn all(&self) -> All<'_> {
        All {
            places: Some(self),
            next: 0,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let later = self.later.iter().take_while(|place| place.is_completed());
        self.boot.len().saturating_add(later.count())
    }

    /// How many can be added.
    pub fn room(&self) -> usize {
        let all = self.boot.len().saturating_add(LATER);
        all.saturating_sub(self.len())
    }

    /// Adds a place, and returns it with its position; `None`: there is no room. One at a time.
    pub fn add(&self, domain: Box<Domain>) -> Option<(usize, &Domain)> {
        let position = self.len();
        let place = self.later.get(position.checked_sub(self.boot.len())?)?;
        let domain = place.call_once(|| domain);
        Some((position, domain))
    }
}

/// Goes through them by one function for all who do; by default there are none.
#[derive(Default)]
pub struct All<'a> {
    places: Option<&'a Places>,
    next: usize,
}

impl<'a> Iterator for All<'a> {
    type Item = &'a Domain;

    #[inline(never)]
    fn next(&mut self) -> Option<&'a Domain> {
        let domain = self.places?.get(self.next)?;
        self.next = self.next.saturating_add(1);
        Some(domain)
    }
}
