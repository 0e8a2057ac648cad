//! A domain: memory, vCPUs, interrupt controller, emulated devices.

mod stage2;
mod vcpu;

pub use stage2::Stage2;
pub use vcpu::{Activity, NOWHERE, Vcpu};

use super::devices::Devices;
use super::fixture::{self, Fixture};
use super::flash::Bank;
use super::lifecycle::Control;
use super::messages;
use super::passthrough::Given;
use super::schedule;
use super::shared_memory::Port;
use super::sharing::Link;
use crate::arch::{self, cpu, errata, guest, memory, timer};
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::address::{GuestPhysical, HostPhysical};
use coproc_core::id::DomainId;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use hypervisor::config::DomainConfig;
use hypervisor::guest_tree::layout;
use hypervisor::lifecycle::report::Report;
use hypervisor::lifecycle::{Crash, Ending};
use hypervisor::management_port::ManagementPort;
use hypervisor::memory::frames::Piece;
use hypervisor::psci::DomainPower;
use hypervisor::v2m;
use hypervisor::vgic::{Kicks, Line, Vgic};
use hypervisor::vpci::{SLOTS, Signals, VirtualBus};
use hypervisor::vpl011::Vpl011;
use spin::{Mutex, RwLock};

/// Values of [`Domain::ending`]; the others are those of [`Crash`].
const NOT_ENDED: u8 = 0;
const ENDED_OFF: u8 = 0xfe;
const ENDED_RESET: u8 = 0xff;

/// What a domain's vCPUs may do: what each exit has to know of its [`Lifecycle`](hypervisor::lifecycle::Lifecycle).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Life {
    /// Nothing: those that are on go off.
    Stopped = 0,
    /// Run.
    Running = 1,
    /// Wait until they are released.
    Paused = 2,
}

/// The functions on a domain's PCI bus.
pub struct Pci {
    /// Configuration spaces.
    pub bus: VirtualBus,
    /// What is behind each slot.
    pub links: [Option<Link>; SLOTS],
    /// The domain's ends of shared memory.
    pub ports: Vec<Port>,
    /// Which functions assert their interrupts, before the domain's own masking.
    pub signals: Signals,
    /// Messages to anywhere but the domain's frame, which went nowhere.
    pub stray: u64,
}

/// A virtual machine.
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Path of its node, for messages.
    pub path: String,
    life: AtomicU8,
    /// Why it was stopped, until that was acted upon: see [`Self::end`].
    ending: AtomicU8,
    /// Its life, and what is being done about it.
    pub control: Mutex<Control>,
    /// The last crash.
    pub report: Mutex<Option<Box<Report>>>,
    /// Not 0: of the first vCPU to go off a report is wanted, with this reason.
    capture: AtomicU8,
    /// What the physical counter is ahead of its virtual one, in ticks.
    pub offset: AtomicU64,
    /// The physical counter when the last vCPU was held.
    held_since: AtomicU64,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// Its RAM: contiguous for the domain, from RAM_BASE on. Changes only while all vCPUs are off and no share is left.
    pub memory: RwLock<Vec<Piece>>,
    /// Power states of its vCPUs.
    pub power: Mutex<DomainPower>,
    /// Its PCI bus.
    pub pci: Mutex<Pci>,
    /// The devices that it has for itself.
    pub given: Given,
    /// The places of its coprocessors that the machine's tree describes. Changes only while nothing of it is there.
    pub fixtures: RwLock<Vec<Fixture>>,
    /// Bytes of RAM; likewise.
    ram: AtomicU64,
    /// How many of its vCPUs it can start; likewise.
    cpus: AtomicU32,
    /// Its UART, if it has one.
    pub uart: Option<Mutex<Vpl011>>,
    /// Where it manages Baton, if it may. Elsewhere: few have it, and it's larger than what is needed often.
    pub management: Option<Box<Mutex<ManagementPort>>>,
    /// Its flash, if it started with firmware.
    pub flash: Mutex<Option<[Bank; 2]>>,
    /// Its clock and watchdog.
    pub devices: Mutex<Devices>,
    /// In ns, when its devices have to be looked at.
    pub alarm: AtomicU64,
    /// The CPU whose timer sees to that: the one on which it was changed, since that is the domain's own time.
    timekeeper: AtomicUsize,
    /// For each CPU the index of the vCPU that it had loaded last.
    last: [AtomicU8; cpu::MAX_CPUS],
    /// In ns, when the sources of messages have to be looked at again: likewise.
    pub look: AtomicU64,
    /// Its stage 2.
    pub stage2: Mutex<Stage2>,
    /// Its interrupt controller.
    pub vgic: Mutex<Vgic>,
}

impl Domain {
    /// A domain of which there is nothing but a place.
    pub fn new(config: DomainConfig, vcpus: Vec<Vcpu>, bus: VirtualBus, given: Given) -> Self {
        let affinities = 0..u64::from(config.cpus);
        Self {
            id: config.id,
            path: config.path.clone(),
            life: AtomicU8::new(Life::Stopped as u8),
            ending: AtomicU8::new(NOT_ENDED),
            report: Mutex::new(None),
            capture: AtomicU8::new(0),
            offset: AtomicU64::new(0),
            held_since: AtomicU64::new(0),
            vcpus,
            memory: RwLock::new(Vec::new()),
            power: Mutex::new(DomainPower::new(affinities, errata::remedies())),
            pci: Mutex::new(Pci {
                bus,
                links: [None; SLOTS],
                ports: Vec::new(),
                signals: Signals::new(),
                stray: 0,
            }),
            given,
            fixtures: RwLock::new(fixture::of(&config)),
            ram: AtomicU64::new(config.memory),
            cpus: AtomicU32::new(config.cpus),
            uart: config.vpl011.then(|| Mutex::new(Vpl011::new())),
            management: config.control.then(Box::default),
            flash: Mutex::new(None),
            devices: Mutex::new(Devices::new(0, &config)),
            alarm: AtomicU64::new(u64::MAX),
            timekeeper: AtomicUsize::new(0),
            last: [const { AtomicU8::new(u8::MAX) }; cpu::MAX_CPUS],
            look: AtomicU64::new(u64::MAX),
            stage2: Mutex::new(Stage2 {
                table: None,
                vttbr: 0,
            }),
            vgic: Mutex::new(Vgic::of(
                arch::gic::version(),
                config.cpus as usize,
                layout::SPIS as usize,
            )),
            control: Mutex::new(Control::new(config)),
        }
    }

    /// It is to be built from another configuration: what is there of it even while it's gone becomes as that has it.
    pub fn reshape(&self, config: &DomainConfig) {
        self.ram.store(config.memory, Ordering::Relaxed);
        self.cpus.store(config.cpus, Ordering::Relaxed);
        *self.power.lock() = DomainPower::new(0..u64::from(config.cpus), errata::remedies());
        *self.fixtures.write() = fixture::of(config);
    }

    /// What its vCPUs may do.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::SeqCst) {
            1 => Life::Running,
            2 => Life::Paused,
            _ => Life::Stopped,
        }
    }

    /// When its devices have to be looked at has changed: this CPU's timer sees to it from now on, whatever another one's is set to.
    pub fn keep_time_here(&self) {
        // After the change (SeqCst): of two CPUs that do this, the later one sees what both have changed.
        self.timekeeper
            .store(cpu::current().index(), Ordering::SeqCst);
        schedule::rearm();
    }

    /// Whether that is this CPU.
    pub fn has_time_kept_on(&self, cpu: usize) -> bool {
        self.timekeeper.load(Ordering::SeqCst) == cpu
    }

    /// Notes that a CPU loads one of its vCPUs. Returns whether it had another one of them before.
    pub fn last_on(&self, cpu: usize, vcpu: usize) -> bool {
        let vcpu = vcpu as u8;
        self.last.get(cpu).is_some_and(|last| {
            let before = last.load(Ordering::Relaxed);
            last.store(vcpu, Ordering::Relaxed);
            before != vcpu && before != u8::MAX
        })
    }

    /// Changes what its vCPUs may do.
    pub fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::SeqCst);
    }

    /// It ends by itself: its vCPUs go off, what follows is decided later. Of several reasons the first one counts. May be called under any
    /// lock before the interrupt controller's.
    pub fn end(&self, how: Ending) {
        let number = match how {
            Ending::Off => ENDED_OFF,
            Ending::Reset => ENDED_RESET,
            Ending::Crash(why) => why as u8,
        };
        let first =
            self.ending
                .compare_exchange(NOT_ENDED, number, Ordering::SeqCst, Ordering::SeqCst);
        if first.is_ok() {
            if let Ending::Crash(Crash::Watchdog) = how {
                // Nobody's exit: what the vCPUs were at is seen when they go off.
                self.capture.store(number, Ordering::SeqCst);
            }
            self.stop();
            super::lifecycle::notice();
        }
    }

    /// Why it ended, if that wasn't acted upon yet.
    pub fn ending(&self) -> Option<Ending> {
        match self.ending.load(Ordering::SeqCst) {
            ENDED_OFF => Some(Ending::Off),
            ENDED_RESET => Some(Ending::Reset),
            number => Crash::from_number(number).map(Ending::Crash),
        }
    }

    /// It begins anew.
    pub fn forget_ending(&self) {
        self.capture.store(0, Ordering::SeqCst);
        self.ending.store(NOT_ENDED, Ordering::SeqCst);
    }

    /// Why a report is wanted of a vCPU that goes off: once.
    pub fn take_capture(&self) -> Option<Crash> {
        let wanted = self.capture.load(Ordering::SeqCst) != 0;
        wanted
            .then(|| Crash::from_number(self.capture.swap(0, Ordering::SeqCst)))
            .flatten()
    }

    /// Keeps a report on a vCPU that this CPU has loaded.
    pub fn describe(&self, vcpu: &Vcpu, reason: Crash) {
        let (registers, exits) = vcpu.registers.snapshot();
        *self.report.lock() = Some(Box::new(Report {
            domain: self.id,
            reason,
            vcpu: vcpu.index,
            x: registers.x,
            pc: registers.elr,
            pstate: registers.spsr,
            el1: guest::exception_state(),
            exits: exits.newest().collect(),
        }));
    }

    /// All vCPUs go off, each on its own CPU; [`Self::is_stopped`] tells when they have.
    pub fn stop(&self) {
        self.set_life(Life::Stopped);
        for vcpu in &self.vcpus {
            vcpu.release();
        }
    }

    /// Whether all vCPUs are off, and no CPU has anything of them.
    pub fn is_stopped(&self) -> bool {
        let mut vcpus = self.vcpus.iter();
        vcpus.all(|vcpu| vcpu.activity() == Activity::Off && !vcpu.is_loaded())
    }

    /// Its vCPUs stay where they are, until [`Self::release`]; [`Self::is_still`] tells when they do.
    pub fn hold(&self) {
        self.held_since.store(timer::counter(), Ordering::SeqCst);
        self.set_life(Life::Paused);
        for vcpu in &self.vcpus {
            vcpu.hold();
        }
    }

    /// A CPU has taken the state of one of its vCPUs out, because it's held: its time stands still from here on.
    pub fn has_let_go(&self) {
        self.held_since
            .fetch_max(timer::counter(), Ordering::SeqCst);
    }

    /// Its virtual time goes on where it stood. While it's held and still.
    pub fn continue_time(&self) {
        let stood = timer::counter().saturating_sub(self.held_since.load(Ordering::SeqCst));
        let offset = self.offset.load(Ordering::SeqCst).wrapping_add(stood);
        self.set_offset(offset);
        super::devices::shift(self, stood);
    }

    /// Sets what the physical counter is ahead of its virtual one, in ticks. While no vCPU is loaded.
    pub fn set_offset(&self, offset: u64) {
        self.offset.store(offset, Ordering::SeqCst);
        for vcpu in &self.vcpus {
            vcpu.context.set_timer_offset(offset);
        }
    }

    /// Whether no CPU has anything of its vCPUs.
    pub fn is_still(&self) -> bool {
        self.vcpus.iter().all(|vcpu| !vcpu.is_loaded())
    }

    /// Its vCPUs go on. Those that waited look again at what they waited for.
    #[inline]
    pub fn release(&self) {
        self.set_life(Life::Running);
        for vcpu in &self.vcpus {
            vcpu.release();
        }
    }

    /// Bytes of RAM.
    pub fn memory_size(&self) -> u64 {
        self.ram.load(Ordering::Relaxed)
    }

    /// How many of its vCPUs it can start.
    pub fn cpus(&self) -> u32 {
        self.cpus.load(Ordering::Relaxed)
    }

    /// Calls `visit` with each part of a range of the domain's RAM, in order: where it is, and its size in bytes. Returns whether all
    /// of it is RAM; if not, `visit` isn't called.
    pub fn each_part(&self, at: u64, size: u64, mut visit: impl FnMut(HostPhysical, u64)) -> bool {
        let Some(start) = at.checked_sub(layout::RAM_BASE) else {
            return false;
        };
        let Some(end) = start
            .checked_add(size)
            .filter(|end| *end <= self.memory_size())
        else {
            return false;
        };
        let mut base = 0u64;
        for piece in self.memory.read().iter() {
            let next = base.saturating_add(piece.size);
            let (from, to) = (start.max(base), end.min(next));
            if from < to {
                let host = piece.start.wrapping_add(from.wrapping_sub(base));
                visit(host, to.wrapping_sub(from));
            }
            base = next;
        }
        true
    }

    /// Writes to the domain's RAM so that it sees that with its caches off. Returns whether all of it is RAM; if not, nothing is written.
    pub fn store(&self, at: u64, bytes: &[u8]) -> bool {
        let mut left = bytes;
        self.each_part(at, left.len() as u64, |host, size| {
            let (part, rest) = left.split_at(size as usize);
            memory::store(host, part);
            memory::clean(host, size);
            left = rest;
        })
    }

    /// Whether an address is in the domain's RAM.
    pub fn is_ram(&self, address: GuestPhysical) -> bool {
        address
            .get()
            .checked_sub(layout::RAM_BASE)
            .is_some_and(|offset| offset < self.memory_size())
    }

    /// Wakes the vCPUs that the interrupt controller has something for.
    #[inline(never)]
    pub fn kick(&self, kicks: Kicks) {
        for index in kicks.iter() {
            if let Some(vcpu) = self.vcpus.get(index) {
                vcpu.wake();
            }
        }
    }

    /// Sets the level of an interrupt input.
    #[inline]
    pub fn set_line(&self, line: Line, level: bool) {
        let kicks = self.vgic.lock().set_line(line, level);
        self.kick(kicks);
    }

    /// Brings the UART's interrupt line in agreement with the UART.
    #[inline]
    pub fn refresh_uart(&self) {
        if let Some(uart) = &self.uart {
            let uart = uart.lock();
            self.set_line(Line::Spi(32 + layout::UART_SPI), uart.interrupt_level());
        }
    }

    /// Does something at the domain's management port, whose interrupt line is in agreement with it afterwards.
    pub fn at_port<R>(
        &self,
        port: &Mutex<ManagementPort>,
        how: impl FnOnce(&mut ManagementPort) -> R,
    ) -> R {
        let mut port = port.lock();
        let before = port.interrupt_level();
        let result = how(&mut port);
        let level = port.interrupt_level();
        if level != before {
            self.set_line(Line::Spi(32 + layout::MANAGEMENT_SPI), level);
        }
        result
    }

    /// Notes whether the function in `slot` asserts its interrupt.
    pub fn set_function_pending(&self, slot: u8, pending: bool) {
        self.set_pending(&mut self.pci.lock(), slot, pending);
    }

    /// The same, for who has the lock.
    #[inline]
    pub fn set_pending(&self, pci: &mut Pci, slot: u8, pending: bool) {
        // Said after every access and at every sample; mostly nothing has changed.
        if pci.signals.set(slot, pending) {
            self.refresh_interrupts(pci);
        }
    }

    /// What is behind a slot.
    #[inline]
    pub fn link(&self, slot: usize) -> Option<Link> {
        self.pci.lock().links.get(slot).copied().flatten()
    }

    /// Brings the four INTx lines in agreement with the functions, and sends their messages. Under the lock of `pci`, so that two updates
    /// reach the interrupt controller in their order.
    pub fn refresh_interrupts(&self, pci: &mut Pci) {
        let Pci {
            bus,
            links,
            signals,
            stray,
            ..
        } = pci;
        let levels = signals.levels(bus);
        let mut vgic = self.vgic.lock();
        let mut kicks = Kicks::NONE;
        for line in 0..4u32 {
            let intid = (32 + layout::PCI_INTX_SPI).wrapping_add(line);
            kicks |= vgic.set_line(Line::Spi(intid), levels.wrapping_shr(line) & 1 != 0);
        }
        signals.send(bus, timer::now, |slot, message| {
            let Some(intid) = v2m::target(message) else {
                if *stray == 0 {
                    log::warn!(
                        "{}: a message of its PCI function {slot} goes to {:#x}, where there is no frame; it is dropped, as more may be",
                        self.id,
                        message.address
                    );
                }
                *stray = stray.saturating_add(1);
                return false;
            };
            kicks |= vgic.message(intid);
            // A coprocessor's registers may be mapped. Shared memory's never are, so its levels are exact.
            matches!(links.get(usize::from(slot)), Some(Some(_)))
        });
        drop(vgic);
        self.kick(kicks);
        messages::watch(self, signals);
    }

    /// Lets the vCPUs go on that are parked on a coprocessor.
    pub fn release_parked(&self) {
        for vcpu in &self.vcpus {
            if vcpu.activity() == Activity::Parked {
                vcpu.wake();
            }
        }
    }
}
