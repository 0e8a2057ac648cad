//! A domain's virtual PCIe host bridge, seen through ECAM.
//!
//! Every assigned function, shared or not, is shown to its domain as a conventional type 0
//! function in a slot of bus 0, so the domain's own enumeration, its stock drivers and
//! `uio_pci_generic` work unmodified. The domain never reaches the physical configuration space:
//! what it reads is computed from a [`FunctionDescription`] taken once from the hardware, what it
//! writes changes this model only, and the [`Effect`] of a write tells the hypervisor what to
//! do about it (move a stage 2 mapping, sample the virtual interrupt line again).
//!
//! - A BAR decodes only while it lies wholly in one of the bridge's windows. A domain that
//!   programs one over its RAM or over another BAR gets nothing there, as on a bridge that doesn't
//!   forward. Of two BARs that overlap, the one in the lower slot (then of the lower index) decodes.
//! - Status.Interrupt Status is asked for at each read, because drivers of shared INTx
//!   lines decide by it whether an interrupt is theirs.
//! - A slot can be reserved and empty, for a function attached at run time; empty slots read all
//!   ones, like a card that isn't there.
//! - The only capabilities shown are MSI and the vendor-specific ones, which are constant. While MSI is enabled the function asserts no INTx, and Status says so. A message
//!   is no write to memory: the hypervisor asks the GICv2m frame which interrupt it means.
//!
//! Source: PCI Local Bus Specification 3.0, chapter 6; PCI Express Base Specification, 7.2.2 (ECAM).

mod bus;
mod description;
mod header;
mod msi;
mod physical;
mod signals;
mod vendor_specific;
pub mod virtio;

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod reset_tests;
#[cfg(test)]
mod tests;

pub use bus::{BarMapping, Effect, SLOTS, SlotError, VirtualBus, Window, Windows, intx_line};
pub use description::{BARS, Bar, DescriptionError, FunctionDescription};
pub use header::VirtualFunction;
pub use msi::{Message, Msi};
pub use physical::{
    BarPlacement, ConfigAccess, FunctionAddress, HostWindow, PhysicalError, RESET_TIME,
    WindowAllocator, assign_bars, describe, disable_messages, interrupt_status, restore,
    set_bus_master, set_interrupt_disable, set_memory_decode, start_reset, update_command,
};
pub use signals::Signals;
pub use vendor_specific::VendorSpecific;
