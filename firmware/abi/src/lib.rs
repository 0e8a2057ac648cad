//! What a firmware core looks like: to the domain that loads firmware into it, and to the firmware.
//!
//! Three parties must agree on these numbers: Baton, the domain's driver and the firmware. They stand in a crate of their own, without
//! dependencies, so that all three are built from the same ones.
//!
//! The domain sees a PCI function with three windows: [`host`] registers, the *image* memory that the firmware is loaded to and runs in, and
//! *shared* memory. The firmware sees the same two memories, [`local`] registers, and whatever pieces of its RAM the domain *granted*.
//! All registers are little-endian, 4 or 8 bytes wide as their type says, and accessed whole.
#![no_std]
#![forbid(unsafe_code)]

/// PCI vendor id of the function. Not assigned by the PCI-SIG to anybody: the function exists in Baton's domains only.
pub const VENDOR: u16 = 0xba70;
/// PCI device id.
pub const DEVICE: u16 = 0xf1c0;
/// PCI class code: processor, co-processor.
pub const CLASS: u32 = 0x0b_4000;
/// What [`host::ID`] and [`local::ID`] read: "FwCo" and the interface's version in one: a change that old software can't know changes it.
pub const ID: u32 = 0x4677_4301;

/// BAR of the [`host`] registers: 4 KiB, always emulated.
pub const REGISTERS_BAR: usize = 0;
/// BAR of the image memory.
pub const IMAGE_BAR: usize = 2;
/// BAR of the shared memory.
pub const SHARED_BAR: usize = 4;
/// Bytes of registers, on either side.
pub const REGISTERS_SIZE: u64 = 0x1000;
/// Bytes of image memory.
pub const IMAGE_SIZE: u64 = 0x4_0000;
/// Bytes of shared memory.
pub const SHARED_SIZE: u64 = 0x1_0000;

/// Where the firmware sees its [`local`] registers.
pub const LOCAL_BASE: u64 = 0x7000_0000;
/// Where it sees its image memory.
pub const IMAGE_BASE: u64 = 0x8000_0000;
/// Where it sees the shared memory.
pub const SHARED_BASE: u64 = 0x9000_0000;
/// Where it may be granted pieces of the domain's RAM: from here …
pub const GRANT_BASE: u64 = 0xa000_0000;
/// … up to here, exclusive.
pub const GRANT_END: u64 = 0x1_0000_0000;
/// Most bytes of one grant.
pub const GRANT_MAX: u64 = 0x20_0000;

/// Registers on the domain's side, in [`REGISTERS_BAR`].
pub mod host {
    /// Read-only, u32: [`ID`](super::ID).
    pub const ID: u64 = 0x00;
    /// Read-only, u32: a [`status`](super::status).
    pub const STATUS: u64 = 0x04;
    /// Write-only, u32: a [`control`](super::control) command.
    pub const CONTROL: u64 = 0x08;
    /// Read-write, u64: address of the first instruction, as the firmware sees it. Taken at the next start.
    pub const ENTRY: u64 = 0x10;
    /// Read-write, u64: X0 at the first instruction. Taken at the next start.
    pub const ARGUMENT: u64 = 0x18;
    /// Read-write, u64: a word for the firmware, its [`local::INBOX`](super::local::INBOX).
    pub const INBOX: u64 = 0x20;
    /// Write-only, u32: any value interrupts the firmware ([`local_interrupt::DOORBELL`](super::local_interrupt::DOORBELL)).
    pub const DOORBELL: u64 = 0x28;
    /// Read-only, u64: the last word that the firmware wrote to [`local::OUTBOX`](super::local::OUTBOX).
    pub const OUTBOX: u64 = 0x30;
    /// Read-only, u32: [`interrupt`](super::interrupt)s that are pending, enabled or not.
    pub const INTERRUPT_STATUS: u64 = 0x38;
    /// Read-write, u32: [`interrupt`](super::interrupt)s that raise the function's interrupt.
    pub const INTERRUPT_ENABLE: u64 = 0x3c;
    /// Write-1-to-clear, u32: acknowledges [`interrupt`](super::interrupt)s.
    pub const INTERRUPT_ACKNOWLEDGE: u64 = 0x40;
    /// Read-only, u32: code that the firmware ended with ([`local::EXIT`](super::local::EXIT)).
    pub const EXIT_CODE: u64 = 0x44;
    /// Read-only, u64: after a crash the exception's syndrome, in the form of ESR_EL2.
    pub const CRASH_SYNDROME: u64 = 0x48;
    /// Read-only, u64: after a crash the address that was accessed, as the firmware sees it.
    pub const CRASH_ADDRESS: u64 = 0x50;
    /// Read-only, u64: after a crash the address of the instruction.
    pub const CRASH_PC: u64 = 0x58;
    /// The paravirtual block begins here: see `coproc_core::paravirtual`.
    pub const PARAVIRTUAL: u64 = 0x80;
    /// Granted pieces of RAM begin here, [`GRANTS`] times [`GRANT_STRIDE`] bytes.
    pub const GRANT: u64 = 0x100;
    /// Number of grants.
    pub const GRANTS: u64 = 4;
    /// Bytes of registers of one grant.
    pub const GRANT_STRIDE: u64 = 0x20;
    /// In a grant, read-write, u64: address of the piece for the domain, a multiple of 4 KiB.
    pub const GRANT_ADDRESS: u64 = 0x00;
    /// In a grant, read-write, u64: bytes, a multiple of 4 KiB, at most [`GRANT_MAX`](super::GRANT_MAX).
    pub const GRANT_SIZE: u64 = 0x08;
    /// In a grant, read-write, u64: where the firmware sees it, a multiple of 4 KiB within `GRANT_BASE..GRANT_END`.
    pub const GRANT_TARGET: u64 = 0x10;
    /// In a grant, u32: writing 1 grants, 0 takes back, both only while the firmware doesn't run; reads what holds. What can't be granted
    /// (not the domain's RAM, not aligned, overlapping another grant, firmware running) stays 0.
    pub const GRANT_CONTROL: u64 = 0x18;
}

/// Registers on the firmware's side, at [`LOCAL_BASE`].
pub mod local {
    /// Read-only, u32: [`ID`](super::ID).
    pub const ID: u64 = 0x00;
    /// Read-only, u32: [`local_interrupt`](super::local_interrupt)s that are pending, enabled or not.
    pub const PENDING: u64 = 0x04;
    /// Read-write, u32: [`local_interrupt`](super::local_interrupt)s that raise the core's IRQ. All off at start.
    pub const ENABLE: u64 = 0x08;
    /// Write-1-to-clear, u32: acknowledges [`local_interrupt`](super::local_interrupt)s.
    pub const ACKNOWLEDGE: u64 = 0x0c;
    /// Read-only, u64: what the domain wrote to [`host::INBOX`](super::host::INBOX) last.
    pub const INBOX: u64 = 0x10;
    /// Write-only, u64: a word for the domain; raises [`interrupt::OUTBOX`](super::interrupt::OUTBOX).
    pub const OUTBOX: u64 = 0x18;
    /// Read-write, u32: not 0 while the firmware is in a critical section, in which the core must not be taken from it. Staying in one for longer than
    /// the refusal bound costs the domain its firmware core.
    pub const CRITICAL: u64 = 0x20;
    /// Write-only, u32: any value gives the core back, as asked by [`local_interrupt::YIELD`](super::local_interrupt::YIELD). The write completes when
    /// the core comes back. Without such a request it does nothing.
    pub const YIELD: u64 = 0x24;
    /// Read-only, u32: the paravirtual features that the domain accepted.
    pub const FEATURES: u64 = 0x28;
    /// Write-only, u32: the firmware ends, with this code.
    pub const EXIT: u64 = 0x2c;
}

/// Values of [`host::STATUS`].
pub mod status {
    /// Not started, or stopped.
    pub const STOPPED: u32 = 0;
    /// Started: executes instructions whenever the core is the domain's.
    pub const RUNNING: u32 = 1;
    /// Started, in WFI with no enabled interrupt pending.
    pub const WAITING: u32 = 2;
    /// Ended by itself: see [`host::EXIT_CODE`](super::host::EXIT_CODE).
    pub const EXITED: u32 = 3;
    /// Did something that it can't go on from: see [`host::CRASH_SYNDROME`](super::host::CRASH_SYNDROME).
    pub const CRASHED: u32 = 4;
}

/// Commands of [`host::CONTROL`].
pub mod control {
    /// Starts the firmware afresh at [`host::ENTRY`](super::host::ENTRY): EL1, MMU off, interrupts masked, all registers 0 but X0. Ignored while it runs.
    pub const START: u32 = 1;
    /// Stops it where it is, critical section or not. What it was doing is lost.
    pub const STOP: u32 = 2;
}

/// Bits of [`host::INTERRUPT_STATUS`].
pub mod interrupt {
    /// The firmware wrote to its outbox.
    pub const OUTBOX: u32 = 1 << 0;
    /// The firmware exited or crashed.
    pub const ENDED: u32 = 1 << 1;
    /// All of them.
    pub const ALL: u32 = OUTBOX | ENDED;
}

/// Bits of [`local::PENDING`].
pub mod local_interrupt {
    /// The domain rang.
    pub const DOORBELL: u32 = 1 << 0;
    /// The core is wanted back: write to [`local::YIELD`](super::local::YIELD). Only if the domain accepted that.
    pub const YIELD: u32 = 1 << 1;
    /// All of them.
    pub const ALL: u32 = DOORBELL | YIELD;
}
