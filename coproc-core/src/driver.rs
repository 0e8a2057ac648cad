//! The interface that a kind of coprocessor plugs in through.
//!
//! A driver knows how one kind of device keeps a context: what is in it, when the device is quiet, how to take
//! the context out and put another one in, and how the registers answer a domain that isn't current. It
//! doesn't know domains, interrupt controllers, page tables, or who is next.
//!
//! Nothing in a driver waits. A step that needs time answers [`Step::Again`] and is called again; the driver keeps
//! its progress in the context it is working on. The registers are reached through [`Hardware`], so the
//! same driver runs on MMIO, on a model in a host test, and later in another container.

use alloc::boxed::Box;

use crate::address::DeviceAddress;
use crate::id::VcoprocId;
use crate::memory::Memory;
use crate::register::{Access, Width};
use crate::time::{Duration, Instant};

/// Answer of a step that may take time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Finished.
    Done,
    /// Not yet: call the same step again after this time.
    Again(Duration),
    /// Can't be done.
    Failed(Failure),
}

/// Why a step failed; the text is for people.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Failure(pub &'static str);

/// The registers of the physical coprocessor.
///
/// Accesses outside a window, or wider than the window allows, read all-ones and write nothing.
pub trait Hardware {
    /// Reads a register.
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64;
    /// Writes a register.
    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64);
    /// Now.
    fn now(&self) -> Instant;
}

/// One register window.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// What it is called in messages.
    pub name: &'static str,
    /// Which entry of the device's list it is (PCI: BAR number; device tree: index in `reg`).
    pub index: usize,
    /// Size in bytes that the driver needs; the physical window must have at least this.
    pub size: u64,
    /// Whether the current domain may reach it directly. A window with a register that is always trapped may not.
    pub direct: bool,
}

/// What a driver needs to know of the device that it is to drive, to accept or refuse it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Match {
    /// A PCI function with this vendor and device id.
    Pci {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// A device tree node with this `compatible` string.
    Compatible(&'static str),
    /// A CPU that is set aside as a firmware core.
    FirmwareCore,
}

/// Longest times that the driver's author promises; compared with measured ones, used by admission control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WorstCase {
    /// From the request to stop until quiet, if the domain doesn't start anything new.
    pub refusal: Duration,
    /// Stopping, once quiet.
    pub stop: Duration,
    /// Saving and scrubbing.
    pub save: Duration,
    /// Restoring, up to the first instruction that may touch the device.
    pub restore: Duration,
}

/// The constant facts of a kind of coprocessor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Description {
    /// The driver's name, as `driver` in the device tree has it.
    pub name: &'static str,
    /// Devices it drives.
    pub matches: &'static [Match],
    /// Register windows.
    pub windows: &'static [Window],
    /// Number of interrupts.
    pub interrupts: usize,
    /// Number of IOMMU streams; with 0 and without an IOMMU of its own the device does no DMA, and that nothing confines it does no harm.
    pub streams: usize,
    /// The device's only IOMMU is a part of itself, and this driver confines its DMA: the registers of it are always trapped and shadowed, and the
    /// device uses tables that the driver built ([`Driver::connect`]). Without this, a device that no IOMMU confines isn't shared.
    pub own_iommu: bool,
    /// Bytes of memory that the device itself saves its context into by DMA; 0 if it doesn't. The area is
    /// contiguous, zeroed, per vcoproc, belongs to Baton, and is seen by the device at [`SAVE_AREA`] while
    /// [`Driver::save`] and [`Driver::restore`] run with `save_area` set.
    pub save_area: u64,
    /// Declared worst-case times.
    pub worst_case: WorstCase,
    /// Refusal bound if the configuration gives none: past it the framework aborts.
    pub refusal_bound: Duration,
    /// Slice length if the configuration gives none.
    pub slice: Duration,
}

/// What keeps a device's DMA inside the memory of the domain that it works for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Confinement {
    /// An IOMMU in front of it, which the hypervisor owns.
    Iommu,
    /// Its own, which its driver shadows.
    Own,
    /// Nothing, and there is nothing to confine: it does no DMA.
    NoDma,
}

/// Why a device may not be shared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unconfined {
    /// Nothing confines its DMA.
    #[error("no IOMMU confines it, and its driver doesn't either")]
    Nothing,
    /// Its driver builds tables for the machine's addresses, but another IOMMU translates what comes out of them.
    #[error("its driver shadows its own IOMMU, but it is behind another one too")]
    Twice,
    /// The driver wants a save area, which only an IOMMU in front of the device can show to it.
    #[error("its driver shadows its own IOMMU and wants a save area too")]
    SaveArea,
}

impl Description {
    /// What confines the device, which is behind an IOMMU of the hypervisor's or not.
    ///
    /// # Errors
    /// [`Unconfined`]: then it must not be shared.
    pub const fn confinement(&self, behind_iommu: bool) -> Result<Confinement, Unconfined> {
        match (self.own_iommu, behind_iommu) {
            (false, true) => Ok(Confinement::Iommu),
            (false, false) if self.streams == 0 => Ok(Confinement::NoDma),
            (false, false) => Err(Unconfined::Nothing),
            (true, true) => Err(Unconfined::Twice),
            (true, false) if self.save_area != 0 => Err(Unconfined::SaveArea),
            (true, false) => Ok(Confinement::Own),
        }
    }
}

/// Device address of the save area in every save context.
pub const SAVE_AREA: DeviceAddress = DeviceAddress::new(0x10_0000);

/// How a domain's access is answered while its vcoproc is not current, or the register is always trapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Done from the saved context. A read returns this value; for a write it is ignored.
    Value(u64),
    /// Done, and the vcoproc now has work to be replayed when it becomes current (a doorbell).
    Queued(u64),
    /// Not to be answered before the vcoproc is current: the vCPU waits.
    Park,
    /// The domain did what the device would answer with a bus error.
    Fault,
}

/// Why a driver refused to make a context or to take a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DriverError {
    /// The device isn't what it claims to be.
    #[error("{what}: expected {expected:#x}, found {found:#x}")]
    WrongDevice {
        /// What was looked at.
        what: &'static str,
        /// What should have been there.
        expected: u64,
        /// What was there.
        found: u64,
    },
    /// No memory for the context.
    #[error("no memory for the context")]
    OutOfMemory,
    /// The vcoproc has a context already.
    #[error("{0} already has a context")]
    Duplicate(VcoprocId),
    /// The vcoproc has no context.
    #[error("{0} has no context")]
    Unknown(VcoprocId),
    /// A driver that confines its device itself was not given the memory: see [`Driver::connect`].
    #[error("the driver has no access to the domains' memory")]
    Unconnected,
}

/// A driver instance for one physical coprocessor.
///
/// The framework calls in this order, per switch: [`quiet`](Driver::quiet) until done (this is the refusal),
/// [`drain`](Driver::drain) until done, [`save`](Driver::save) until done, [`scrub`](Driver::scrub) until done; then for the next one
/// [`restore`](Driver::restore) until done, [`replay`](Driver::replay) until done. `drain` runs in every switch; `save` and `scrub` are
/// skipped when the slice never touched the device. While `save` and `restore` run the framework has pointed the streams at the
/// vcoproc's save area (if [`Description::save_area`] isn't 0) and nothing else. All of these are abandoned, without a further call, when
/// the framework escalates; then come [`abort`](Driver::abort), [`reset`](Driver::reset).
pub trait Driver: Send {
    /// The constant facts.
    fn description(&self) -> &'static Description;

    /// Gives a driver whose device has its own IOMMU ([`Description::own_iommu`]) the memory that it needs. Called once, before [`probe`](Driver::probe).
    fn connect(&mut self, _memory: Box<dyn Memory>) {}

    /// Looks at the device before it is shared and puts it into a defined state: quiet, interrupts acknowledged.
    ///
    /// # Errors
    /// [`DriverError::WrongDevice`].
    fn probe(&mut self, hardware: &mut dyn Hardware) -> Result<(), DriverError>;

    /// Makes the context of a new vcoproc: as the device is after reset.
    ///
    /// # Errors
    /// [`DriverError::OutOfMemory`], [`DriverError::Duplicate`].
    fn create(&mut self, who: VcoprocId) -> Result<(), DriverError>;

    /// Ends a context; unknown ones are ignored. The context isn't in the device any more.
    fn destroy(&mut self, who: VcoprocId);

    /// Asks the device to stop at its next boundary, without starting anything (only the first of a row of calls need do it), and
    /// says whether it is quiet, proven by its own status. `Again` is a refusal.
    fn quiet(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step;

    /// Takes the interrupt status into the context, clears it in the device and reads it back.
    /// The interrupt is masked at its source meanwhile.
    fn drain(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step;

    /// Takes the rest of the context out of the device.
    fn save(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step;

    /// Clears what is left in the device and wouldn't be overwritten by every restore.
    fn scrub(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step;

    /// Puts the context into the device, all of it, with no part of an earlier one left. Interrupts stay quiet:
    /// a pending one is put back by [`replay`](Driver::replay).
    fn restore(
        &mut self,
        who: VcoprocId,
        hardware: &mut dyn Hardware,
        save_area: Option<DeviceAddress>,
    ) -> Step;

    /// Puts pending interrupts back and replays queued doorbells, in order. The streams point at the domain's memory
    /// from here on. Answers `Done` or `Failed`.
    fn replay(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step;

    /// Answers a domain's access from the saved context (`hardware` is `None`: not current), or to an always-trapped
    /// register (`hardware` given: current). Never panics, whatever the access.
    fn access(
        &mut self,
        who: VcoprocId,
        access: &Access,
        hardware: Option<&mut dyn Hardware>,
    ) -> Verdict;

    /// Whether the current vcoproc may reach the direct windows now. `false` keeps them trapped although they are direct: as long as the context
    /// has something for the domain that the device can't show. Asked at each access until they are mapped.
    fn shows_all(&self, _who: VcoprocId) -> bool {
        true
    }

    /// Whether the saved context has queued doorbells, or unfinished work that goes on once it is restored.
    fn has_work(&self, who: VcoprocId) -> bool;

    /// Whether the device is doing something for the current vcoproc, by its own status.
    fn busy(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> bool;

    /// Whether the vcoproc's interrupt `index` is pending: by the device when current (`hardware` given), else by the saved context.
    fn interrupt_pending(
        &mut self,
        who: VcoprocId,
        index: usize,
        hardware: Option<&mut dyn Hardware>,
    ) -> bool;

    /// Forces the device to stop what it does, losing it. `Failed` if it has no such means.
    fn abort(&mut self, who: VcoprocId, hardware: &mut dyn Hardware) -> Step;

    /// Resets the device to its state after power-on, with nothing of any context left. `Failed` if it has no such means.
    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step;
}
