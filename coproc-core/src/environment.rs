//! What the framework asks of the hypervisor, for one coprocessor.
//!
//! The hypervisor calls the framework with the coprocessor's lock held and hands it an `Environment`; the framework
//! calls back only through this trait. Every call is short and none waits; those that take effect
//! later say so by [`Step`]. A fake of it runs the whole framework on the host.

use crate::driver::{Hardware, Step};
use crate::id::VcoprocId;
use crate::iommu::Faults;
use crate::time::Instant;
use crate::trace::TraceEvent;

/// Where the coprocessor's streams go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stream {
    /// Nowhere.
    Abort,
    /// The vcoproc's save area and nothing else.
    Save(VcoprocId),
    /// The RAM of the vcoproc's domain and nothing else.
    Domain(VcoprocId),
}

/// What befell a vcoproc, for its domain and for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The vcoproc is faulted: its accesses read all-ones from now on.
    Faulted(&'static str),
    /// The whole coprocessor is quarantined.
    Quarantined(&'static str),
    /// The IOMMU recorded faults against it.
    IommuFault(Faults),
}

/// The hypervisor, as one coprocessor sees it.
pub trait Environment {
    /// Now.
    fn now(&self) -> Instant;

    /// Arms this coprocessor's own timer, replacing what was armed; `None` stops it. When it expires the
    /// hypervisor calls the framework's timer entry. An instant in the past expires at once.
    fn arm_timer(&mut self, at: Option<Instant>);

    /// The device's registers.
    fn hardware(&mut self) -> &mut dyn Hardware;

    /// Masks or unmasks the device's interrupts at their source (PCI: Interrupt Disable; otherwise the distributor).
    fn mask_interrupts(&mut self, masked: bool);

    /// Whether the device asserts its interrupt `index` now, seen at its source (PCI: Interrupt Status).
    fn interrupt_asserted(&mut self, index: usize) -> bool;

    /// Whether the interrupt lines are neither pending nor active in the interrupt controller on account of this
    /// device; on a line shared with other devices, whether this device doesn't assert it.
    fn interrupts_settled(&mut self) -> bool;

    /// Lets the vcoproc's domain reach the direct windows without an exit. `false` if the domain has not
    /// placed them anywhere (PCI: decoding off): nothing is mapped then, the accesses stay trapped.
    fn map_windows(&mut self, who: VcoprocId) -> bool;

    /// Takes the direct windows from the vcoproc's domain again. When it returns no CPU can start a new access: tables changed,
    /// TLBs invalidated.
    fn unmap_windows(&mut self, who: VcoprocId);

    /// Points the device's streams. Takes effect when [`Environment::sync_streams`] says so.
    fn point_streams(&mut self, target: Stream) -> Result<(), crate::iommu::IommuError>;

    /// Whether the last [`Environment::point_streams`] has taken effect.
    fn sync_streams(&mut self) -> Step;

    /// Reads the IOMMU's records up to the present and takes those against this device's streams. `None`: not all could be read
    /// in bounded time, ask again.
    fn take_faults(&mut self) -> Option<Faults>;

    /// Sets the vcoproc's virtual interrupt line `index` (before the domain's own masking, which the hypervisor applies).
    fn set_interrupt(&mut self, who: VcoprocId, index: usize, pending: bool);

    /// Lets vCPUs go on that were parked on an access of this vcoproc: they retry it.
    fn release_parked(&mut self, who: VcoprocId);

    /// Tells the domain and people.
    fn notify(&mut self, who: VcoprocId, event: Event);

    /// Something happened that a trace shows. Called in the middle of everything, a dozen times a switch: keep it, or don't, at once.
    fn trace(&mut self, _event: &TraceEvent) {}
}
