//! Whether a guest that takes exceptions still gets anywhere.
//!
//! Each exception that Baton gives a guest may be one that the guest can't take: its vector is not there, or what stands there
//! causes the next one. On a machine of its own it would hang; here it would keep EL2 busy as well. It's noticed by two
//! signs: the exception leads to the instruction that caused it, or [`DEPTH`] in a row were caused by the guest's own vectors.

use super::Crash;

/// Exceptions in a row from within the vector table that nobody survives.
pub const DEPTH: u8 = 32;
/// Size of a vector table in bytes (Arm ARM DDI 0487, D1.3.1.5).
const TABLE: u64 = 0x800;

/// What one vCPU's exceptions were like so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    nested: u8,
}

impl Progress {
    /// None so far.
    pub const fn new() -> Self {
        Self { nested: 0 }
    }

    /// An exception at `pc` with the vector table at `vbar` goes on at `target`.
    ///
    /// # Errors
    /// Why this guest gets nowhere.
    pub fn exception(&mut self, pc: u64, vbar: u64, target: u64) -> Result<(), Crash> {
        if pc == target {
            return Err(Crash::NoVector);
        }
        let inside = pc.wrapping_sub(vbar & !(TABLE.wrapping_sub(1))) < TABLE;
        self.nested = if inside {
            self.nested.saturating_add(1)
        } else {
            0
        };
        if self.nested >= DEPTH {
            return Err(Crash::Nested);
        }
        Ok(())
    }
}
