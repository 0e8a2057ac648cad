//! Drivers as data: a table of registers, and the few functions that are truly the device's own.
//!
//! Nine tenths of a hand-written coprocessor driver are the same for every device: keep a shadow of each register, answer from it
//! while somebody else has the device, queue the writes that start work, take the interrupt status out and put it back,
//! write everything back in the right order. Those nine tenths are also where one forgotten register is a leak between domains. So they are written once, here, and
//! a device says in a [`Table`] what its registers *are*: [`Kind`], what an access gets while the vcoproc isn't current ([`Away`]),
//! whether it is always trapped ([`Trap`]), what it is after reset and after a scrub. The position in the table is the order
//! of saving, restoring and scrubbing.
//!
//! A table is data that can be wrong, so it is checked before it can be used: [`Table::check`] names the register and what is
//! wrong with it, and [`TableDriver`] doesn't compile with a table that fails.
//!
//! What is left is [`Device`]: is it busy, stop, settle, the state that no register shows, abort, reset. All have defaults; a
//! device that needs none is a table and nothing else. The machinery, [`TableDriver`], implements [`Driver`](crate::Driver) from both.
//!
//! # Who holds the truth
//! A vcoproc's context is in one of three phases. **Away**: the shadows are the truth. **Present**: the device is. Between them, from
//! the request to stop until the device is quiet, **leaving**: registers that only the domain changes are in the shadows
//! already, those that the device changes by itself ([`Register::volatile`]) are looked at in the device at each access and writes to them are
//! passed on; a doorbell is queued, so that the device comes to rest.
//!
//! # Latched status
//! A status bit that the device sets and somebody acknowledges ([`Kind::WriteOneToClear`], [`Kind::ReadToClear`], or a volatile
//! read-only register with a [`Kind::Clear`] alias) can't be written back like a value. It is taken out and cleared in the device at
//! the drain, answered from the shadow while away, and goes back at replay through a [`Kind::Set`] alias if there is one. If not, the bits are
//! *carried*: the register is always trapped, and what the device shows is shown to the domain together with the carried bits until
//! the domain acknowledges them. [`Register::held`] is for those that are seldom there at a switch: the register is trapped only while bits
//! are carried. [`Register::regenerated`] is for bits that the restored device raises again by itself.

mod check;
mod context;
mod device;
mod driver;
mod emulate;
mod register;
#[cfg(test)]
mod tests;

pub use check::TableError;
pub use context::Context;
pub use device::{Device, default_busy, default_pending};
pub use driver::TableDriver;
pub use register::{
    Away, Doorbell, Full, Hole, Identity, Interrupt, Kind, Narrow, Poll, Reads, Reg, Register,
    Rules, Scrub, Table, Trap,
};
