//! Finds what is wrong with a table.
//!
//! All of it runs in the compiler: a driver whose table fails doesn't build, and the message names the register. Some of these
//! faults would otherwise be found by a domain: two registers at one offset, a write-only register that can't be saved, a status
//! that can't be put back, an always-trapped register in a window that domains reach directly.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "for the compiler, which refuses to build with each of these; sees tables only, nothing of a guest"
)]

use super::register::{
    Away, Doorbell, Kind, Narrow, Reads, Reg, Register, Rules, Scrub, Table, Trap,
};
use crate::driver::Window;

/// What is wrong with a table.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("driver table `{driver}`, `{entry}`: {problem}")]
pub struct TableError {
    /// [`Description::name`](crate::driver::Description::name).
    pub driver: &'static str,
    /// The register, window or list.
    pub entry: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl Table {
    /// Looks for faults.
    ///
    /// # Errors
    /// The first that is found.
    pub const fn check(&self) -> Result<(), TableError> {
        match self.fault() {
            None => Ok(()),
            Some((entry, problem)) => Err(TableError {
                driver: self.description.name,
                entry,
                problem,
            }),
        }
    }

    /// Stops the compiler if the table has a fault. To be used in a `const`.
    pub(super) const fn assert_valid(&self) {
        let Some((entry, problem)) = self.fault() else {
            return;
        };
        let mut text = Text::new();
        text.push("driver table `");
        text.push(self.description.name);
        text.push("`, `");
        text.push(entry);
        text.push("`: ");
        text.push(problem);
        panic!("{}", text.get());
    }

    /// The register at this offset. To be used in a `const`, where an unknown one is an error of the compiler.
    ///
    /// # Panics
    /// If there is none.
    pub const fn reg(&self, window: usize, offset: u64) -> Reg {
        let Some(index) = self.position(window, offset) else {
            panic!("the driver's table has no register at this offset");
        };
        Reg {
            index,
            window,
            offset,
            width: self.registers[index].width,
        }
    }

    const fn position(&self, window: usize, offset: u64) -> Option<usize> {
        let mut i = 0;
        while i < self.registers.len() {
            if self.registers[i].window == window && self.registers[i].offset == offset {
                return Some(i);
            }
            i += 1;
        }
        None
    }

    const fn known_window(&self, index: usize) -> Option<Window> {
        let windows = self.description.windows;
        let mut i = 0;
        while i < windows.len() {
            if windows[i].index == index {
                return Some(windows[i]);
            }
            i += 1;
        }
        None
    }

    const fn rules_of(&self, window: usize) -> (usize, Option<Rules>) {
        let (mut i, mut count, mut found) = (0, 0, None);
        while i < self.rules.len() {
            if self.rules[i].window == window {
                count += 1;
                found = Some(self.rules[i]);
            }
            i += 1;
        }
        (count, found)
    }

    const fn has_alias(&self, of: &Register, set: bool) -> bool {
        let mut i = 0;
        while i < self.registers.len() {
            let alias = &self.registers[i];
            let target = match alias.kind {
                Kind::Set(target) if set => Some(target),
                Kind::Clear(target) if !set => Some(target),
                _ => None,
            };
            if let Some(target) = target
                && target == of.offset
                && alias.window == of.window
            {
                return true;
            }
            i += 1;
        }
        false
    }

    const fn fault(&self) -> Option<(&'static str, &'static str)> {
        if let Some(fault) = self.fault_of_lists() {
            return Some(fault);
        }
        let mut i = 0;
        while i < self.registers.len() {
            let r = &self.registers[i];
            let problem = match self.fault_of_place(i) {
                None => self.fault_of_kind(r),
                some => some,
            };
            if let Some(problem) = problem {
                return Some((r.name, problem));
            }
            i += 1;
        }
        None
    }

    const fn fault_of_lists(&self) -> Option<(&'static str, &'static str)> {
        let windows = self.description.windows;
        let mut i = 0;
        while i < windows.len() {
            let (count, _) = self.rules_of(windows[i].index);
            if count != 1 {
                let problem = "the window needs one entry in `rules`, no less and no more";
                return Some((windows[i].name, problem));
            }
            i += 1;
        }
        if self.rules.len() != windows.len() {
            return Some(("rules", "an entry names a window that doesn't exist"));
        }
        if self.interrupts.len() != self.description.interrupts {
            let problem = "must be as many as the description's `interrupts`";
            return Some(("interrupts", problem));
        }
        let mut i = 0;
        while i < self.interrupts.len() {
            let interrupt = &self.interrupts[i];
            let enable = match interrupt.enable {
                Some(offset) => self.position(interrupt.window, offset).is_some(),
                None => true,
            };
            if !enable || self.position(interrupt.window, interrupt.status).is_none() {
                let problem = "names a register that doesn't exist";
                return Some(("interrupts", problem));
            }
            i += 1;
        }
        let mut i = 0;
        while i < self.identity.len() {
            let identity = &self.identity[i];
            if self.position(identity.window, identity.offset).is_none() {
                return Some((identity.what, "names a register that doesn't exist"));
            }
            i += 1;
        }
        let mut shadowed = false;
        let mut i = 0;
        while i < self.registers.len() {
            shadowed |= matches!(self.registers[i].trap, Trap::Shadow);
            i += 1;
        }
        if self.description.own_iommu && !shadowed {
            let problem = "the device's own IOMMU confines it, but no register is shadowed";
            return Some(("own_iommu", problem));
        }
        let (first, last) = (self.poll.first.as_nanos(), self.poll.last.as_nanos());
        if first == 0 || first > last {
            return Some(("poll", "`first` must be above 0 and not above `last`"));
        }
        None
    }

    /// Whether bits of some register may have to be held.
    pub(super) const fn holds(&self) -> bool {
        let mut i = 0;
        while i < self.registers.len() {
            if self.registers[i].held {
                return true;
            }
            i += 1;
        }
        false
    }

    const fn fault_of_place(&self, index: usize) -> Option<&'static str> {
        let r = &self.registers[index];
        let bytes = r.width.bytes();
        let (Some(window), (_, Some(rules))) =
            (self.known_window(r.window), self.rules_of(r.window))
        else {
            return Some("its window doesn't exist");
        };
        if r.offset & (bytes - 1) != 0 {
            return Some("not aligned to its width");
        }
        if window.size < bytes || r.offset > window.size - bytes {
            return Some("outside its window");
        }
        let small = bytes < rules.narrowest.bytes();
        let large = bytes > rules.widest.bytes() && matches!(r.narrow, Narrow::Refused);
        if small || large {
            return Some("can't be accessed: the window's rules refuse its width");
        }
        if !matches!(r.trap, Trap::Never) && window.direct {
            return Some("always trapped, so its window can't be direct");
        }
        let mut i = 0;
        while i < index {
            let other = &self.registers[i];
            if other.window == r.window
                && other.first < r.offset + bytes
                && r.first < other.offset + other.width.bytes()
            {
                return Some("overlaps an earlier register");
            }
            i += 1;
        }
        let mask = r.width.mask();
        let scrub = match r.scrub {
            Scrub::Value(value) => value,
            _ => 0,
        };
        if (r.reset | r.writable | r.volatile | scrub) & !mask != 0 {
            return Some("a value or mask is wider than the register");
        }
        None
    }

    const fn fault_of_kind(&self, r: &Register) -> Option<&'static str> {
        let queues = matches!(r.away, Away::Queue);
        let shadows = matches!(r.away, Away::Shadow);
        let bell = matches!(r.kind, Kind::Doorbell(_) | Kind::SideEffect);
        if queues && !bell {
            return Some("only a doorbell or a side effect can be queued");
        }
        if shadows && bell {
            return Some("starts something, so a shadow can't stand for it: queue, park or fault");
        }
        let valued = matches!(r.kind, Kind::ReadWrite | Kind::Inverted | Kind::ReadOnly);
        if matches!(r.trap, Trap::Shadow) && (!valued || r.volatile != 0) {
            return Some("only a plain value can be kept in the shadow for the current one");
        }
        if r.restored && !matches!(r.trap, Trap::Shadow) {
            let fixed = matches!(r.reads, Reads::Fixed(_));
            match r.kind {
                Kind::ReadWrite | Kind::Inverted if fixed && matches!(r.trap, Trap::Never) => {
                    return Some("write-only and not trapped: what was written can't be saved");
                }
                Kind::ReadWrite | Kind::Inverted => {}
                Kind::ReadOnly if self.has_alias(r, true) && self.has_alias(r, false) => {}
                _ => return Some("the table can't restore it: it takes no values"),
            }
        }
        let scrubbed = !matches!(r.scrub, Scrub::Never);
        if scrubbed && !matches!(r.kind, Kind::ReadWrite | Kind::Inverted) && !r.restored {
            return Some("can't be scrubbed: it takes no values");
        }
        let latched = match r.kind {
            Kind::WriteOneToClear | Kind::ReadToClear => true,
            Kind::ReadOnly => r.volatile != 0 && self.has_alias(r, false),
            _ => false,
        };
        let carried = r.regenerated || r.held || matches!(r.trap, Trap::Forward);
        if latched && !carried && !self.has_alias(r, true) {
            return Some(
                "a latched status that can't be put back: needs a set alias, always trapped, held, or regenerated",
            );
        }
        if r.held && (!latched || r.regenerated || self.has_alias(r, true)) {
            return Some("held, but no latched status that can't be put back");
        }
        if let Narrow::Addressed(from) = r.narrow {
            let plain = matches!(r.kind, Kind::ReadWrite) && matches!(r.reads, Reads::Value);
            if !plain || from & (r.width.bytes() - 1) != 0 || from > r.offset {
                return Some(
                    "addressed bit by bit, so it must be a plain register behind aligned words",
                );
            }
        }
        match r.kind {
            Kind::ReadToClear if !matches!(r.trap, Trap::Forward) => {
                Some("read to clear, so it must be always trapped")
            }
            Kind::ReadToClear | Kind::Doorbell(_) if matches!(r.narrow, Narrow::Merged) => {
                Some("acts, so a part of it can't be accessed")
            }
            Kind::Set(of) | Kind::Clear(of) => self.fault_of_alias(r, of),
            Kind::Doorbell(bell) => self.fault_of_bell(r, &bell),
            _ => None,
        }
    }

    const fn fault_of_alias(&self, r: &Register, of: u64) -> Option<&'static str> {
        let Some(target) = self.position(r.window, of) else {
            return Some("an alias of a register that doesn't exist");
        };
        let target = &self.registers[target];
        if !matches!(
            target.kind,
            Kind::ReadWrite | Kind::ReadOnly | Kind::WriteOneToClear
        ) {
            return Some("an alias of a register that holds no bits");
        }
        if target.width.bytes() != r.width.bytes() {
            return Some("not as wide as the register that it is an alias of");
        }
        None
    }

    const fn fault_of_bell(&self, r: &Register, bell: &Doorbell) -> Option<&'static str> {
        if bell.depth == 0 {
            return Some("a doorbell that takes nothing: `depth` is 0");
        }
        if let Some((offset, bits)) = bell.busy {
            let Some(at) = self.position(r.window, offset) else {
                return Some("its busy bits are in a register that doesn't exist");
            };
            if bits == 0 || self.registers[at].volatile & bits != bits {
                return Some("its busy bits aren't volatile bits of that register");
            }
        }
        let mut i = 0;
        while i < bell.locks.len() {
            let Some(at) = self.position(r.window, bell.locks[i]) else {
                return Some("locks a register that doesn't exist");
            };
            if !matches!(self.registers[at].kind, Kind::ReadWrite | Kind::Inverted) {
                return Some("locks a register that can't be written anyhow");
            }
            i += 1;
        }
        None
    }
}

/// A message put together by the compiler, which can't format.
struct Text {
    bytes: [u8; 256],
    length: usize,
}

impl Text {
    const fn new() -> Self {
        Self {
            bytes: [0; 256],
            length: 0,
        }
    }

    const fn push(&mut self, text: &str) {
        let text = text.as_bytes();
        let mut i = 0;
        while i < text.len() && self.length < self.bytes.len() {
            self.bytes[self.length] = text[i];
            self.length += 1;
            i += 1;
        }
    }

    const fn get(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => "the message can't be shown",
        }
    }
}
