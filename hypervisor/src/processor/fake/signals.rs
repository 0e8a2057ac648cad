//! What other CPUs are told, and what they see of what it is about.

use super::*;

#[derive(Clone, Default)]
pub struct Signals {
    /// A store isn't visible yet.
    unseen: bool,
    /// One was told of, or slept over, before it was visible.
    blind: bool,
    /// An SGI may not have been sent.
    waits: bool,
    /// There was a signal, or a sleep.
    done: bool,
}

impl Signals {
    pub fn step(&mut self, step: Step) {
        match step {
            Step::Left => self.unseen = true,
            Step::Dsb(Dsb::Sy | Dsb::Ish | Dsb::Ishst) => self.unseen = false,
            Step::Isb => self.waits = false,
            Step::Sgi(_) | Step::Sev | Step::Wfi => {
                self.blind |= self.unseen;
                self.waits |= matches!(step, Step::Sgi(_));
                self.done = true;
            }
            _ => {}
        }
    }

    pub fn told(&self) -> Result<(), String> {
        if self.blind || self.unseen {
            return Err("what it is about isn't visible".into());
        }
        if self.waits {
            return Err("an SGI isn't sent".into());
        }
        match self.done {
            true => Ok(()),
            false => Err("nobody was told".into()),
        }
    }
}
