//! Firmware cores: CPUs that were set aside to run coprocessor firmware, and nothing else.
//!
//! To the framework a firmware core is a device like any other: it has registers ([`Device`], which the driver `baton,fw-core` knows), an interrupt, and an IOMMU. Here is what makes
//! it real. The device's registers are kept in memory, the "core" behind them is a CPU at EL2 that looks at its [`Orders`] at
//! every exit and whenever it is kicked, and its IOMMU is the stage 2 that it runs the firmware under: pointed at a vcoproc's tables by the framework, and if it isn't, no
//! instruction of that firmware is executed.
//!
//! The CPU never runs a vCPU, and firmware never runs on another CPU. [`exit`] says what firmware can make EL2 do,
//! [`share`] what memory it sees.

mod exit;
pub mod share;

pub use exit::handle;
pub use share::{FirmwareShare, vmids_in_use};

use super::{console, interrupts, schedule};
use crate::arch::context::Context;
use crate::arch::cpu::{self, MAX_CPUS};
use crate::arch::exits::{self, RegisterFile, Registers};
use crate::arch::{firmware, gic, registers, timer};
use alloc::boxed::Box;
use alloc::vec::Vec;
use coproc_core::address::{DeviceAddress, HostPhysical};
use coproc_core::driver::{Hardware, Step};
use coproc_core::id::VcoprocId;
use coproc_core::iommu::Faults;
use coproc_core::register::{Access, Operation, Width};
use coproc_core::time::{Duration, Instant};
use core::sync::atomic::{AtomicUsize, Ordering};
use fw_core_abi::{host, status};
use hypervisor::vpci::{Bar, FunctionDescription, VendorSpecific};
use platforms::coproc::fw_core::{Device, Orders};
use spin::{Mutex, Once};

/// How soon it is asked again whether the core has left the firmware: about what a kick takes.
const LEAVING: Duration = Duration::from_micros(10);

/// What a domain's access to the function reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target {
    /// The device's registers.
    Device,
    /// The registers of the grants: they are the IOMMU's, not the device's.
    Grants,
    /// Image or shared memory.
    Memory,
}

/// Which of them it is.
pub fn target(access: &Access) -> Target {
    const GRANTS: core::ops::Range<u64> =
        host::GRANT..host::GRANT + host::GRANTS * host::GRANT_STRIDE;
    match access.window {
        fw_core_abi::REGISTERS_BAR if GRANTS.contains(&access.offset) => Target::Grants,
        fw_core_abi::REGISTERS_BAR => Target::Device,
        _ => Target::Memory,
    }
}

/// A read of the register that says whether the firmware runs.
pub const fn status() -> Access {
    Access {
        window: fw_core_abi::REGISTERS_BAR,
        offset: host::STATUS,
        width: Width::Word,
        operation: Operation::Read,
    }
}

/// Whether firmware with this status doesn't run, so that what it sees may change.
pub const fn is_stopped(value: u64) -> bool {
    const STOPPED: u64 = status::STOPPED as u64;
    const EXITED: u64 = status::EXITED as u64;
    const CRASHED: u64 = status::CRASHED as u64;
    matches!(value, STOPPED | EXITED | CRASHED)
}

/// A firmware core.
pub struct FirmwareCore {
    /// Number of its CPU.
    cpu: usize,
    /// Index of its coprocessor in the system's list.
    instance: AtomicUsize,
    state: Mutex<State>,
}

/// What the framework (on any CPU) and the core share.
struct State {
    device: Device,
    /// Whose tables the core may use.
    aim: Option<VcoprocId>,
    /// Whether the core may be executing firmware.
    executing: bool,
    #[expect(
        clippy::vec_box,
        reason = "the vectors keep the address of its registers"
    )]
    contexts: Vec<Box<Slot>>,
    /// Whose context is in the CPU's registers.
    loaded: Option<VcoprocId>,
    /// Accesses outside what the firmware was given.
    faults: Faults,
    /// VTTBR_EL2 while no firmware is loaded: tables that map nothing.
    nothing: u64,
}

/// One firmware's CPU registers.
struct Slot {
    who: VcoprocId,
    registers: RegisterFile,
    context: Context,
    /// It ends as soon as the core has unloaded it.
    ending: bool,
}

static CORES: [Once<FirmwareCore>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

/// The firmware core that this CPU is, if it is one.
pub fn here() -> Option<&'static FirmwareCore> {
    CORES.get(cpu::current().index())?.get()
}

/// Whether CPU `number` is one.
pub fn is_core(number: usize) -> bool {
    CORES.get(number).is_some_and(Once::is_completed)
}

/// Sets a CPU aside, before it runs anything. `nothing`: tables that map nothing.
///
/// # Errors
/// The CPU is a firmware core already, or isn't one of Baton's.
pub fn reserve(cpu: usize, nothing: HostPhysical) -> Result<&'static FirmwareCore, &'static str> {
    let place = CORES.get(cpu).ok_or("a CPU that Baton doesn't use")?;
    if place.is_completed() {
        return Err("a CPU that is a firmware core already");
    }
    Ok(place.call_once(|| FirmwareCore {
        cpu,
        instance: AtomicUsize::new(usize::MAX),
        state: Mutex::new(State {
            device: Device::new(),
            aim: None,
            executing: false,
            contexts: Vec::new(),
            loaded: None,
            faults: Faults::default(),
            nothing: share::NOBODY << 48 | nothing.get(),
        }),
    }))
}

impl FirmwareCore {
    /// What its function looks like to a domain.
    pub fn function(&self) -> FunctionDescription {
        function()
    }
}

fn function() -> FunctionDescription {
    let memory = |size| {
        Some(Bar {
            size,
            wide: false,
            prefetchable: false,
        })
    };
    let mut bars = [None; hypervisor::vpci::BARS];
    for (bar, size) in [
        (fw_core_abi::REGISTERS_BAR, fw_core_abi::REGISTERS_SIZE),
        (fw_core_abi::IMAGE_BAR, fw_core_abi::IMAGE_SIZE),
        (fw_core_abi::SHARED_BAR, fw_core_abi::SHARED_SIZE),
    ] {
        if let Some(place) = bars.get_mut(bar) {
            *place = memory(size);
        }
    }
    FunctionDescription {
        vendor: fw_core_abi::VENDOR,
        device: fw_core_abi::DEVICE,
        class: fw_core_abi::CLASS,
        revision: 0,
        subsystem_vendor: fw_core_abi::VENDOR,
        subsystem: 0,
        bars,
        interrupt_pin: 1,
        msi: true,
        vendor_specific: VendorSpecific::none(),
    }
}

impl FirmwareCore {
    /// Tells which coprocessor this is.
    pub fn belongs_to(&self, instance: usize) {
        self.instance.store(instance, Ordering::Relaxed);
    }

    /// This CPU's part from now on.
    pub fn run(&'static self) -> ! {
        firmware::dedicate();
        firmware::use_tables(self.state.lock().nothing);
        exits::start(self.next())
    }

    /// What this CPU resumes; waits until there is something.
    fn next(&'static self) -> *mut Registers {
        loop {
            console::service();
            let resumed = self.state.lock().resume();
            schedule::program_timer();
            if let Some(registers) = resumed {
                return registers;
            }
            // A kick that came since is pending and ends this at once.
            registers::wait_for_interrupt();
            interrupts::serve();
        }
    }

    /// Makes the core look at its orders.
    fn kick(&self) {
        if self.cpu != cpu::current().index()
            && let Some(target) = cpu::by_index(self.cpu)
        {
            gic::kick(target.affinity.load(Ordering::Relaxed));
        }
    }

    /// Whether the core asserts its interrupt.
    pub fn interrupt_asserted(&self) -> bool {
        self.state.lock().device.interrupt_asserted()
    }

    /// Lets the core use `who`'s tables only, or nobody's.
    pub fn aim(&self, who: Option<VcoprocId>) {
        let mut state = self.state.lock();
        if state.aim == who {
            return;
        }
        state.aim = who;
        let executing = state.executing;
        drop(state);
        if executing {
            self.kick();
        }
    }

    /// Whether the last [`aim`](Self::aim) has taken effect: the core executes nothing under other tables.
    pub fn aimed(&self) -> Step {
        let state = self.state.lock();
        if state.executing && state.aim != state.loaded {
            drop(state);
            self.kick();
            return Step::Again(LEAVING);
        }
        Step::Done
    }

    /// What firmware did outside its memory since this was last asked.
    pub fn take_faults(&self) -> Faults {
        core::mem::take(&mut self.state.lock().faults)
    }

    /// Makes room for a firmware's registers.
    fn add(&self, who: VcoprocId, vttbr: u64) {
        let slot = Box::new(Slot {
            who,
            registers: RegisterFile::new(),
            context: Context::new(0, vttbr, timer::counter()),
            ending: false,
        });
        self.state.lock().contexts.push(slot);
    }

    /// Ends a firmware's registers, whose tables can go when this returns true. Else the core still has them loaded; it was asked to
    /// let them go.
    pub fn forget(&self, who: VcoprocId) -> bool {
        let mut state = self.state.lock();
        if state.loaded == Some(who) {
            for slot in state.contexts.iter_mut().filter(|slot| slot.who == who) {
                slot.ending = true;
            }
            drop(state);
            self.kick();
            return false;
        }
        state.contexts.retain(|slot| slot.who != who);
        true
    }
}

impl State {
    /// What the CPU goes on with; the firmware isn't executing when this is called.
    fn resume(&mut self) -> Option<*mut Registers> {
        self.executing = false;
        let orders = self.device.orders();
        self.unload_ending();
        let Orders::Run { context, start } = orders else {
            return None;
        };
        let who = VcoprocId(context);
        if self.aim != Some(who) {
            return None;
        }
        let slot = self.contexts.iter().find(|slot| slot.who == who)?;
        if self.loaded != Some(who) {
            if let Some(before) = self.loaded
                && let Some(before) = self.contexts.iter().find(|slot| slot.who == before)
            {
                before.context.save(false);
            }
            self.loaded = Some(who);
            if start.is_none() {
                slot.context.load();
            }
        }
        if let Some(start) = start {
            slot.context.reset();
            slot.registers.start_at(start.entry, start.argument);
            slot.context.load();
            firmware::forget_firmware();
        }
        firmware::set_virtual_interrupt(self.device.virtual_interrupt());
        self.executing = true;
        Some(slot.registers.pointer())
    }

    /// Lets go of a context that is to end.
    fn unload_ending(&mut self) {
        let Some(loaded) = self.loaded else {
            return;
        };
        let ends = |slot: &Slot| slot.who == loaded && slot.ending;
        if self.contexts.iter().any(|slot| ends(slot)) {
            firmware::use_tables(self.nothing);
            self.loaded = None;
            self.contexts.retain(|slot| slot.who != loaded);
        }
    }

    fn fault(&mut self, address: u64, write: bool) {
        self.faults.count = self.faults.count.saturating_add(1);
        self.faults.last = Some(DeviceAddress::new(address));
        self.faults.write = write;
    }
}

/// A firmware core's registers as its driver sees them.
pub struct CoreRegisters(pub &'static FirmwareCore);

impl Hardware for CoreRegisters {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        if window != 0 {
            return width.mask();
        }
        self.0.state.lock().device.read(offset, width)
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        if window != 0 {
            return;
        }
        let mut state = self.0.state.lock();
        state.device.write(offset, width, value);
        let kick = state.device.take_kick();
        drop(state);
        if kick {
            self.0.kick();
        }
    }

    fn now(&self) -> Instant {
        timer::now()
    }
}
