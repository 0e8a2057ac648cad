//! Where the sharing framework meets this machine: each coprocessor with its device, interrupt, stream and domains.

mod machine;

pub use machine::Machine;

use super::domain::{Activity, Vcpu};
use super::exit::Answer;
use super::firmware::{self, CoreRegisters, FirmwareShare};
use super::node::Node;
use super::recording::{feed, tell};
use crate::arch::cpu;
use crate::arch::mmio::Region;
use crate::arch::timer;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::address::HostPhysical;
use coproc_core::coproc::{Coproc, Outcome, Settings};
use coproc_core::driver::{Hardware, Window};
use coproc_core::environment::Environment;
use coproc_core::id::{CoprocId, DomainId, SpaceId, StreamId, VcoprocId};
use coproc_core::record::{Input, Log};
use coproc_core::register::{Access, Width};
use coproc_core::time::Instant;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hypervisor::memory::frames::Piece;
use hypervisor::vpci::{FunctionAddress, FunctionDescription};
use spin::{Mutex, MutexGuard};

const NEVER: u64 = u64::MAX;

/// What is behind a PCI slot of a domain, or a node of its tree.
#[derive(Clone, Copy, Debug)]
pub struct Link {
    /// Index of the coprocessor in [`super::System::instances`].
    pub instance: usize,
    /// The domain's instance of it.
    pub who: VcoprocId,
    /// Its interrupt pin: 1 for INTA; 0 for none, as a node has.
    pub pin: u8,
}

/// One domain's part in a coprocessor, as the hypervisor keeps it.
pub struct Share {
    /// Which.
    pub who: VcoprocId,
    /// Whose.
    pub domain: DomainId,
    /// Slot of the function on the domain's bus, or which of [`Domain::fixtures`] it is.
    pub slot: u8,
    /// What the device reaches while it works for the domain.
    pub reach: Reach,
    /// Where its windows are mapped now: (guest address, size).
    pub(super) mapped: Vec<(u64, u64)>,
    /// The levels of its interrupt lines, where each is one of the domain's.
    pub(super) lines: u64,
    /// IOMMU faults not told yet, and when the last ones were.
    untold: u64,
    told: Instant,
}

/// What a device reaches for one of its domains.
pub enum Reach {
    /// Address spaces of the IOMMU.
    Spaces {
        /// The domain's RAM.
        domain: SpaceId,
        /// The same while its context is saved and restored: the save area.
        save: Option<SpaceId>,
        /// The save area: Baton's memory.
        area: Option<Piece>,
    },
    /// A firmware's memory, in tables of its own.
    Firmware(Box<FirmwareShare>),
    /// Nothing, or everything: no IOMMU is asked.
    Unasked,
}

impl Share {
    /// A share with nothing mapped.
    pub fn new(who: VcoprocId, domain: DomainId, slot: u8, reach: Reach) -> Self {
        Self {
            who,
            domain,
            slot,
            reach,
            mapped: Vec::new(),
            lines: 0,
            untold: 0,
            told: Instant::from_nanos(0),
        }
    }
}

/// What is reached only together with the framework.
pub struct Core {
    /// The framework.
    pub coproc: Coproc,
    /// The machine's side of it.
    pub side: Side,
    /// Its record, if it is recorded.
    pub log: Option<Box<Log>>,
}

/// The machine's side of one coprocessor.
pub struct Side {
    /// The device.
    pub device: Device,
    /// The domains' parts.
    pub shares: Vec<Share>,
}

/// What kind of device a coprocessor is, and where.
#[cfg_attr(
    not(feature = "sharing"),
    expect(dead_code, reason = "the same type with and without coprocessors")
)]
pub enum Device {
    /// A PCI function behind the IOMMU.
    Pci {
        /// Registers, by window index.
        registers: Registers<[Option<Region>; 6]>,
        /// Where each direct window is: index, physical address, size.
        windows: Vec<(Window, HostPhysical)>,
        /// Its address.
        function: FunctionAddress,
        /// Its stream.
        stream: StreamId,
    },
    /// A CPU that runs firmware, which is its own IOMMU.
    Firmware(CoreRegisters),
    /// A device that the machine's tree describes.
    Node(Node),
}

/// What the configuration says about how a coprocessor is shared.
pub struct Recipe {
    /// Name of the algorithm.
    pub scheduler: String,
    /// The settings.
    pub settings: Settings,
}

/// That there is a coprocessor: without the feature `sharing` there is none, and the compiler knows that whatever is done with
/// one never happens.
#[cfg(feature = "sharing")]
pub struct Presence;
#[cfg(not(feature = "sharing"))]
pub enum Presence {}

impl Presence {
    #[inline(always)]
    const fn hold(&self) {
        #[cfg(not(feature = "sharing"))]
        match *self {}
    }
}

/// One coprocessor, shared or not.
pub struct Instance {
    /// Its id.
    pub id: CoprocId,
    /// Path of its node, for messages.
    pub path: String,
    /// What its function looks like. None: domains have it as a node of their trees.
    pub description: Option<FunctionDescription>,
    /// Bytes of save area for each vcoproc.
    pub save_area: u64,
    /// Its first physical interrupt; a firmware core has none.
    interrupt: Option<u32>,
    /// The others, as its driver counts them.
    more_interrupts: Vec<u32>,
    /// How it is to be shared.
    pub recipe: Recipe,
    presence: Presence,
    /// The framework and what belongs to it.
    core: Mutex<Core>,
    /// It is being unshared.
    ending: AtomicBool,
    deadline: AtomicU64,
    /// The CPU whose timer the deadline is in.
    timer_cpu: AtomicUsize,
}

/// A coprocessor's registers as a driver sees them.
pub struct Registers<R> {
    /// Mapped windows, by index.
    pub regions: R,
}

impl<R: AsRef<[Option<Region>]>> Hardware for Registers<R> {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        match self.regions.as_ref().get(window) {
            Some(Some(region)) => region.read(offset, width),
            _ => width.mask(),
        }
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        if let Some(Some(region)) = self.regions.as_ref().get(window) {
            region.write(offset, width, value);
        }
    }

    fn now(&self) -> Instant {
        timer::now()
    }
}

impl Instance {
    /// A coprocessor with its device; not started.
    #[cfg(feature = "sharing")]
    pub fn new(
        path: String,
        description: Option<FunctionDescription>,
        mut interrupts: Vec<u32>,
        recipe: Recipe,
        coproc: Coproc,
        side: Side,
        log: Option<Box<Log>>,
    ) -> Self {
        let more_interrupts = interrupts.split_off(interrupts.len().min(1));
        Self {
            id: coproc.id(),
            path,
            description,
            save_area: coproc.description().save_area,
            interrupt: interrupts.first().copied(),
            more_interrupts,
            recipe,
            presence: Presence,
            ending: AtomicBool::new(false),
            core: Mutex::new(Core { coproc, side, log }),
            deadline: AtomicU64::new(NEVER),
            timer_cpu: AtomicUsize::new(0),
        }
    }

    /// Its physical interrupts.
    pub fn interrupts(&self) -> impl Iterator<Item = u32> {
        self.interrupt.iter().chain(&self.more_interrupts).copied()
    }

    /// The framework and what belongs to it.
    #[inline]
    pub fn core(&self) -> MutexGuard<'_, Core> {
        self.presence.hold();
        self.core.lock()
    }

    /// Whether it is being unshared.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    pub(super) fn set_ending(&self, ending: bool) {
        self.ending.store(ending, Ordering::Relaxed);
    }

    /// Calls the framework with the machine's side of it.
    pub fn with<R>(&self, call: impl FnOnce(&mut Coproc, &mut Machine<'_>) -> R) -> R {
        let mut core = self.core();
        let Core { coproc, side, log } = &mut *core;
        call(
            coproc,
            &mut Machine {
                side,
                deadline: &self.deadline,
                timer_cpu: &self.timer_cpu,
                log,
            },
        )
    }
}

/// A domain's trapped access to a window.
pub fn access(link: &Link, vcpu: &Vcpu, access: &Access) -> Answer {
    let Some(instance) = instance(link) else {
        return Answer::Abort;
    };
    instance.with(|coproc, machine| {
        if machine.core().is_some()
            && let Some(answer) = firmware_memory(coproc, machine, link.who, access)
        {
            return answer;
        }
        match enter(coproc, machine, link.who, access) {
            Outcome::Value(value) => Answer::Value(value),
            Outcome::Retry => Answer::Retry,
            Outcome::Park => {
                // Under the coprocessor's lock: a release that comes right after must find the vCPU parked.
                vcpu.set_activity(Activity::Parked);
                Answer::Parked
            }
            // Like a card that was pulled: reads are all-ones, writes vanish.
            Outcome::Fault if coproc.has_lost(link.who) => Answer::Value(u64::MAX),
            Outcome::Fault => Answer::Abort,
        }
    })
}

fn enter(
    coproc: &mut Coproc,
    machine: &mut Machine<'_>,
    who: VcoprocId,
    access: &Access,
) -> Outcome {
    let input = Input::Access(who, *access);
    let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.access(env, who, access);
    feed(coproc, machine, input, call, |outcome| (*outcome).into())
}

/// A domain's access to the memory of its firmware, or to the registers of its grants; `None`: to another register.
fn firmware_memory(
    coproc: &mut Coproc,
    machine: &mut Machine<'_>,
    who: VcoprocId,
    access: &Access,
) -> Option<Answer> {
    let target = firmware::target(access);
    if target == firmware::Target::Device {
        return None;
    }
    if coproc.has_lost(who) {
        return Some(Answer::Value(u64::MAX));
    }
    if target == firmware::Target::Grants {
        let status = enter(coproc, machine, who, &firmware::status());
        let stopped = matches!(status, Outcome::Value(status) if firmware::is_stopped(status));
        let (firmware, domain, _) = machine.firmware(who)?;
        let value = firmware.grant_access(domain, access, stopped);
        return Some(value.map_or(Answer::Abort, Answer::Value));
    }
    let (firmware, domain, slot) = machine.firmware(who)?;
    let bar = u8::try_from(access.window).ok()?;
    let address = domain.pci.lock().bus.bar_address(slot, bar);
    let placed = address.is_some_and(|address| firmware.place(domain, access.window, address));
    Some(if placed { Answer::Retry } else { Answer::Abort })
}

/// The interrupt of the firmware core that is coprocessor number `index` rose; on the core itself.
#[cfg(feature = "fw-core")]
pub fn core_interrupt(index: usize) {
    if let Some(instance) = super::get().and_then(|system| system.instances.get(index)) {
        raise(instance);
    }
}

/// The first interrupt, which is all that a function has.
fn raise(instance: &Instance) {
    let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.interrupt(env, 0);
    instance.with(|coproc, machine| {
        if let Device::Node(_) = &machine.side.device {
            return raise_node(coproc, machine, 0);
        }
        tell(coproc, machine, Input::Interrupt(0), call);
    });
}

#[inline(never)]
fn raise_other(instance: &Instance, index: usize) {
    instance.with(|coproc, machine| raise_node(coproc, machine, index));
}

/// What the interrupt controller says isn't the device's word: that is asked for right afterwards.
#[inline(never)]
fn raise_node(coproc: &mut Coproc, machine: &mut Machine<'_>, index: usize) {
    if let Device::Node(node) = &mut machine.side.device {
        node.taken(index);
    }
    let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.interrupt(env, index);
    tell(coproc, machine, Input::Interrupt(index), call);
    if let Device::Node(node) = &mut machine.side.device {
        node.told(index);
    }
    if let Some(who) = coproc.current() {
        let call =
            |coproc: &mut Coproc, env: &mut dyn Environment| coproc.resample(env, who, index);
        tell(coproc, machine, Input::Resample(who, index), call);
    }
}

#[inline]
fn instance(link: &Link) -> Option<&'static Instance> {
    super::get()?.instances.get(link.instance)
}

/// The truth about a function's interrupt.
pub fn interrupt_pending(link: &Link) -> bool {
    let (who, input) = (link.who, Input::Pending(link.who, 0));
    let call = |c: &mut Coproc, env: &mut dyn Environment| c.interrupt_pending(env, who, 0);
    instance(link).is_some_and(|instance| {
        instance.with(|coproc, machine| feed(coproc, machine, input, call, |is| (*is).into()))
    })
}

/// The domain deactivated the interrupt of a function, or changed its mask.
pub fn resample(link: &Link) {
    if let Some(instance) = instance(link) {
        let (who, input) = (link.who, Input::Resample(link.who, 0));
        let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.resample(env, who, 0);
        instance.with(|coproc, machine| tell(coproc, machine, input, call));
    }
}

/// The domain deactivated an interrupt of a node.
#[inline(never)]
pub fn resample_line(link: &Link, index: usize) {
    if let Some(instance) = instance(link) {
        let (who, input) = (link.who, Input::Resample(link.who, index));
        let call =
            |coproc: &mut Coproc, env: &mut dyn Environment| coproc.resample(env, who, index);
        instance.with(|coproc, machine| tell(coproc, machine, input, call));
    }
}

/// The domain moved its windows, or switched their decoding.
pub fn windows_changed(link: &Link) {
    if let Some(instance) = instance(link) {
        instance.with(|coproc, machine| {
            let (who, input) = (link.who, Input::WindowsChanged(link.who));
            tell(coproc, machine, input, |coproc, env| {
                coproc.windows_changed(env, who)
            });
            machine.withdraw(link.who);
        });
    }
}

/// A physical interrupt arrived; returns whether it is a coprocessor's or the IOMMU's.
pub fn interrupt(intid: u32) -> bool {
    #[cfg(feature = "sharing")]
    if super::smmu::interrupt(intid) {
        return true;
    }
    let mut known = false;
    for instance in super::get().map_or(&[][..], |system| &system.instances) {
        if instance.interrupt == Some(intid) {
            known = true;
            raise(instance);
        } else if !instance.more_interrupts.is_empty() {
            let mut more = instance.more_interrupts.iter();
            if let Some(index) = more.position(|own| *own == intid) {
                known = true;
                raise_other(instance, index.saturating_add(1));
            }
        }
    }
    known
}

/// The IOMMU has records: every coprocessor takes its own.
#[cfg(feature = "sharing")]
pub fn collect_faults() {
    for instance in super::get().map_or(&[][..], |system| &system.instances) {
        let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.collect_faults(env);
        instance.with(|coproc, machine| {
            feed(coproc, machine, Input::CollectFaults, call, |all| {
                (*all).into()
            })
        });
    }
}

/// The earliest deadline of a coprocessor that is in this CPU's timer.
pub fn next_deadline() -> Option<Instant> {
    let this = cpu::current().index();
    let instances = super::get().map_or(&[][..], |system| &system.instances);
    let earliest = instances
        .iter()
        .filter(|instance| instance.timer_cpu.load(Ordering::Relaxed) == this)
        .map(|instance| instance.deadline.load(Ordering::Relaxed))
        .min()?;
    (earliest != NEVER).then(|| Instant::from_nanos(earliest))
}

/// Serves the coprocessors whose deadline in this CPU's timer has passed.
pub fn timers(now: Instant) {
    let this = cpu::current().index();
    for instance in super::get().map_or(&[][..], |system| &system.instances) {
        let due = || {
            instance.timer_cpu.load(Ordering::Relaxed) == this
                && instance.deadline.load(Ordering::Relaxed) <= now.as_nanos()
        };
        if due() {
            instance.with(|coproc, machine| {
                // Another CPU may have armed it anew while the lock was waited for.
                if due() {
                    machine.deadline.store(NEVER, Ordering::Relaxed);
                    tell(coproc, machine, Input::Timer, |coproc, env| {
                        coproc.timer(env)
                    });
                }
            });
        }
    }
}
