//! One level of data caches, memory behind it, and instruction caches that look at memory whenever they like.

use super::*;

/// Bytes of a line.
pub const LINE: usize = 64;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Data {
    /// Only caches have it.
    Dirty,
    /// On its way.
    Leaving,
    /// Memory has it.
    InMemory,
}

#[derive(Clone, Debug)]
struct Line {
    data: Data,
    /// What the instruction caches have of its old contents: this CPU's, the others'.
    old: [Held; 2],
}

#[derive(Clone, Default)]
pub struct Caches {
    lines: BTreeMap<usize, Line>,
    /// Lines that a device has written: whether this CPU's caches have what was there before.
    written: BTreeMap<usize, Held>,
    /// A load may be made before the device's register was read, whatever the program says.
    early: bool,
    /// This CPU may have fetched old contents that it hasn't executed yet.
    fetched: bool,
    /// The CPU has the erratum: what is only cleaned may stay where it is.
    cleans_badly: bool,
}

impl Caches {
    pub fn clean_badly(&mut self) {
        self.cleans_badly = true;
    }

    pub fn step(&mut self, step: Step) {
        match step {
            Step::Stored(address) => {
                let line = Line {
                    data: Data::Dirty,
                    old: [Held::Here; 2],
                };
                self.lines.insert(address & !(LINE - 1), line);
                self.fetched = true;
            }
            Step::Written(address, coherent) => {
                let old = if coherent { Held::Gone } else { Held::Here };
                self.written.insert(address & !(LINE - 1), old);
                self.early = true;
            }
            Step::Dc(operation, address) => {
                if let Some(old) = self.written.get_mut(&(address & !(LINE - 1)))
                    && operation == Dc::CleanInvalidate
                    && !self.early
                {
                    old.leave();
                }
                if let Some(line) = self.lines.get_mut(&(address & !(LINE - 1)))
                    && line.data == Data::Dirty
                    && (operation == Dc::CleanInvalidate || !self.cleans_badly)
                {
                    line.data = Data::Leaving;
                }
            }
            Step::Ic(which) => {
                for line in self.lines.values_mut() {
                    line.old[0].leave();
                    if which == Ic::IalluIs {
                        line.old[1].leave();
                    }
                }
            }
            Step::Dsb(dsb) => self.complete(dsb),
            Step::Isb => {
                self.fetched = self.lines.values().any(|line| line.old[0] != Held::Gone);
            }
            _ => {}
        }
        // Instructions are fetched from memory, whatever data caches have.
        for line in self.lines.values_mut() {
            if line.data != Data::InMemory {
                line.old = [Held::Here; 2];
            }
        }
    }

    fn complete(&mut self, dsb: Dsb) {
        if dsb == Dsb::Sy {
            self.early = false;
            self.written.values_mut().for_each(Held::complete);
        }
        for line in self.lines.values_mut() {
            // A device, or a CPU whose caches are off, isn't in the inner shareable domain.
            if dsb == Dsb::Sy && line.data == Data::Leaving {
                line.data = Data::InMemory;
                line.old = [Held::Here; 2];
                continue;
            }
            if let Some(everywhere) = completes(dsb) {
                line.old[0].complete();
                if everywhere {
                    line.old[1].complete();
                }
            }
        }
    }

    pub fn observed(&self) -> Result<(), String> {
        if self.early {
            return Err("data may be loaded before the register that tells of it".into());
        }
        match self.written.iter().find(|(_, old)| **old != Held::Gone) {
            Some((at, _)) => Err(alloc::format!("{at:#x} is loaded as it was before")),
            None => Ok(()),
        }
    }

    pub fn in_memory(&self) -> Result<(), String> {
        match self
            .lines
            .iter()
            .find(|(_, line)| line.data != Data::InMemory)
        {
            Some((at, line)) => Err(alloc::format!("{at:#x} isn't in memory: {line:?}")),
            None => Ok(()),
        }
    }

    pub fn executes(&self, everywhere: bool) -> Result<(), String> {
        self.in_memory()?;
        if self.fetched {
            return Err("this CPU may execute what it fetched before".into());
        }
        let cpus = if everywhere { 2 } else { 1 };
        for (at, line) in &self.lines {
            if line.old[..cpus].iter().any(|old| *old != Held::Gone) {
                return Err(alloc::format!(
                    "old instructions are left of {at:#x}: {line:?}"
                ));
            }
        }
        Ok(())
    }
}
