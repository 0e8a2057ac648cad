//! Registers of a firmware core for its driver: what lies beyond those that domains know.
//!
//! They stand in the same window, above everything that a domain is ever answered for. All are 8 bytes wide and accessed whole.

/// Write-only: a [`command`].
pub const COMMAND: u64 = 0x800;
/// Read-only: bits of [`state`].
pub const STATE: u64 = 0x808;
/// Read-write: number of the loaded context, plus 1; 0: none. Isn't written while the core executes.
pub const CONTEXT: u64 = 0x810;
/// Read-write: the loaded context's registers begin here, 8 bytes each, as many as [`REGISTERS`]. Not written while the core executes.
pub const REGISTER: u64 = 0x900;
/// Number of registers at [`REGISTER`].
pub const REGISTERS: usize = 17;
/// Which of them is the interrupt status: what is in it asserts the interrupt.
pub const INTERRUPT_STATUS: usize = 6;
/// Which of them enables bits of it.
pub const INTERRUPT_ENABLE: usize = 7;

/// Offset of the register `index` of the loaded context.
pub const fn register(index: usize) -> u64 {
    REGISTER.saturating_add((index as u64).saturating_mul(8))
}

/// Values of [`COMMAND`].
pub mod command {
    /// Execute the loaded context's firmware from now on.
    pub const RUN: u64 = 1;
    /// Stop as soon as the firmware lets go.
    pub const STOP: u64 = 2;
    /// Stop now.
    pub const FORCE_STOP: u64 = 3;
    /// Stop now, and go back to the state after power-on, with no context.
    pub const RESET: u64 = 4;
}

/// Bits of [`STATE`].
pub mod state {
    /// Nothing executes, and nothing will before [`RUN`](super::command::RUN).
    pub const RESTING: u64 = 1 << 0;
    /// The core may be executing an instruction of the firmware at this moment.
    pub const EXECUTING: u64 = 1 << 1;
    /// The firmware waits for an interrupt.
    pub const WAITING: u64 = 1 << 2;
    /// The firmware has something to execute.
    pub const RUNNABLE: u64 = 1 << 3;
    /// A stop is wanted, and the firmware is in a critical section.
    pub const REFUSES_CRITICAL: u64 = 1 << 4;
    /// A stop is wanted, and the firmware was asked to yield and didn't yet.
    pub const REFUSES_YIELD: u64 = 1 << 5;
}
