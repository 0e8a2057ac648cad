//! Where typed bytes go: one focus at a time, changed by pressing Ctrl-A three times.
//!
//! The same escape as Xen's, for the same reason: nothing that one types into a shell or an editor
//! has it. One or two Ctrl-A followed by something else reach the focus like any other byte.

use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::id::DomainId;
use core::fmt;

/// Ctrl-A.
pub const ESCAPE: u8 = 0x01;
/// How often it must be pressed.
const PRESSES: u8 = 3;

/// Who gets the input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Focus {
    /// Baton's command line.
    Baton,
    /// A domain's UART.
    Domain(DomainId),
}

impl fmt::Display for Focus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Baton => f.write_str("baton"),
            Self::Domain(domain) => domain.fmt(f),
        }
    }
}

/// What became of a byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Routed {
    /// It may be part of the escape; nothing yet.
    Held,
    /// It completed the escape: the focus has moved on.
    Rotated,
    /// These bytes are for this focus.
    Deliver(Focus, ArrayVec<u8, 3>),
}

/// The focus and the domains that it rotates over.
#[derive(Clone, Debug)]
pub struct Router {
    domains: Vec<DomainId>,
    focus: Focus,
    held: u8,
}

impl Default for Router {
    fn default() -> Self {
        Self::new()
    }
}

impl Router {
    /// The focus is on Baton, and there are no domains.
    pub const fn new() -> Self {
        Self {
            domains: Vec::new(),
            focus: Focus::Baton,
            held: 0,
        }
    }

    /// Adds a domain at the end of the rotation.
    pub fn add(&mut self, domain: DomainId) {
        if !self.domains.contains(&domain) {
            self.domains.push(domain);
        }
    }

    /// How many domains there are.
    pub const fn domains(&self) -> usize {
        self.domains.len()
    }

    /// Who gets the input.
    pub const fn focus(&self) -> Focus {
        self.focus
    }

    /// Moves the focus. Returns false if there is no such domain.
    pub fn set_focus(&mut self, focus: Focus) -> bool {
        let known = match focus {
            Focus::Baton => true,
            Focus::Domain(domain) => self.domains.contains(&domain),
        };
        if known {
            self.focus = focus;
            self.held = 0;
        }
        known
    }

    /// Takes a typed byte.
    pub fn feed(&mut self, byte: u8) -> Routed {
        if byte == ESCAPE {
            self.held = self.held.saturating_add(1);
            if self.held < PRESSES {
                return Routed::Held;
            }
            self.held = 0;
            self.focus = self.next();
            return Routed::Rotated;
        }
        let mut bytes = ArrayVec::new();
        for _ in 0..core::mem::take(&mut self.held) {
            let _ = bytes.try_push(ESCAPE);
        }
        let _ = bytes.try_push(byte);
        Routed::Deliver(self.focus, bytes)
    }

    fn next(&self) -> Focus {
        let next = match self.focus {
            Focus::Baton => self.domains.first(),
            Focus::Domain(current) => {
                let mut after = self.domains.iter().skip_while(|domain| **domain != current);
                after.next();
                after.next()
            }
        };
        next.map_or(Focus::Baton, |domain| Focus::Domain(*domain))
    }
}
