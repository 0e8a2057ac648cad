//! A physical CPU set aside as a firmware core, `baton,fw-core`: a coprocessor that runs whatever firmware a domain brings.
//!
//! Real hardware of this kind is a small processor with a page of control registers. Here the processor is one of the machine's own CPUs and the page
//! is a program, in two halves that meet in nothing but registers:
//!
//! * [`Device`] is the hardware. One stands for each firmware core, behind a lock that the framework's CPUs and the reserved CPU
//!   share: the framework reads and writes its registers, the reserved CPU asks it what to execute and tells it what
//!   the firmware did. It holds the registers of *one* context and knows no domains.
//! * [`FwCore`] shares it, like the driver of any other coprocessor: it stops it, takes the registers out, puts others in, and answers the domains
//!   that aren't in it. It knows no CPU.
//!
//! What the firmware's *instructions* change (general and system registers, memory) is neither's: the hypervisor keeps them by the number of the context, and
//! swaps them when the number changes.
//!
//! The registers on the domain's and on the firmware's side are fixed in `fw_core_abi`; what they do stands once, in `context`, for the device and for the context that
//! waits for it.
mod context;
pub mod core_registers;
mod device;
#[cfg(test)]
mod device_tests;
mod driver;
#[cfg(test)]
mod model;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod tests;

pub use context::Start;
pub use device::{Device, Orders};
pub use driver::FwCore;
