//! Recording what a coprocessor is asked and told, and replaying it without the device.
//!
//! [`Coproc`](crate::Coproc) decides from two things only: what is fed into it (accesses, timers, interrupts, management) and what its
//! [`Environment`](crate::Environment) and the device's registers answer. So a record of both, in their order, is enough to run the *real* framework, driver and algorithm
//! again on any host, step by step, and see whether they do what they did: a fault that was seen once on a machine becomes a test.
//!
//! - [`Event`]: one line of a record, and its text.
//! - [`Log`]: the lines, in memory of a fixed size. What doesn't fit ends the record at the last whole input: a record may be short, but never lies.
//! - [`Recorder`]: stands between the framework and its environment and writes the lines. It keeps the windows unmapped, so that every access is seen.
//! - [`replay`]: feeds a record's inputs, gives its answers, and demands the same calls with the same arguments in the same order, and the same answers.
//!
//! Not recorded: memory. A driver that reads it ([`Memory`](crate::memory::Memory)) can't be replayed; what a device does by DMA needn't be.

mod event;
mod log;
mod recorder;
mod replay;
#[cfg(test)]
mod tests;
mod text;

pub use event::{Answer, Call, Event, Header, Input, Told};
pub use log::Log;
pub use recorder::Recorder;
pub use replay::{Factory, ReplayError, Summary, replay};
pub use text::{Clock, SyntaxError};
