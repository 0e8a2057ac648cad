//! A domain: memory, vCPUs, interrupt controller, emulated devices.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::devices::Devices;
use super::flash::Bank;
use super::schedule;
use super::shared_memory::Port;
use super::sharing::Link;
use super::tables::TableFrames;
use crate::arch::{self, context, cpu};
use alloc::string::String;
use alloc::vec::Vec;
use coproc_core::address::{GuestPhysical, HostPhysical};
use coproc_core::id::DomainId;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use hypervisor::guest_tree::layout;
use hypervisor::memory::frames::Piece;
use hypervisor::physical_timer::PhysicalTimer;
use hypervisor::psci::DomainPower;
use hypervisor::vcpu_schedule::VcpuId;
use hypervisor::vgic::{Kicks, Line, ListRegisters, Vgic};
use hypervisor::vpci::{SLOTS, VirtualBus, intx_line};
use hypervisor::vpl011::Vpl011;
use platforms::translation::{Attributes, TranslationError, TranslationTable};
use spin::Mutex;

/// What a vCPU is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Activity {
    /// Powered off.
    Off = 0,
    /// Runs, or would if it had a CPU.
    Ready = 1,
    /// Waits for an interrupt.
    Waiting = 2,
    /// Waits for its vcoproc to become current, or for an interrupt.
    Parked = 3,
}

/// No CPU.
pub const NOWHERE: usize = usize::MAX;

/// A virtual CPU.
pub struct Vcpu {
    /// Index within its domain.
    pub index: usize,
    /// Index of its pool.
    pub pool: usize,
    /// What it is called there.
    pub id: VcpuId,
    /// Domain and index in one ([`Self::number`]).
    number: AtomicUsize,
    /// The CPU in which its registers are; [`NOWHERE`]: they are saved. Changed by that CPU only.
    pub resident: AtomicUsize,
    /// General registers.
    pub registers: context::RegisterFile,
    /// Everything else.
    pub context: context::Context,
    /// Its list registers, as last seen.
    pub lists: Mutex<ListRegisters>,
    /// Its physical timer.
    pub timer: Mutex<PhysicalTimer>,
    /// In ns, when that fires: its CPU looks at it then.
    pub alarm: AtomicU64,
    activity: AtomicU8,
    /// Something happened that it has to look at before it goes on (or goes to sleep).
    attention: AtomicBool,
}

impl Vcpu {
    /// A vCPU that is off.
    pub const fn new(
        index: usize,
        pool: usize,
        id: VcpuId,
        context: context::Context,
        lists: ListRegisters,
    ) -> Self {
        Self {
            index,
            pool,
            id,
            number: AtomicUsize::new(NOWHERE),
            resident: AtomicUsize::new(NOWHERE),
            registers: context::RegisterFile::new(),
            context,
            lists: Mutex::new(lists),
            timer: Mutex::new(PhysicalTimer::new()),
            alarm: AtomicU64::new(u64::MAX),
            activity: AtomicU8::new(Activity::Off as u8),
            attention: AtomicBool::new(false),
        }
    }

    /// Says which it is: index `index` of the domain at `position` of the system's list.
    pub fn set_number(&self, position: usize) {
        let number = position.wrapping_shl(3) | self.index;
        self.number.store(number, Ordering::SeqCst);
    }

    /// Position of its domain in the system's list times 8, plus its index.
    pub fn number(&self) -> usize {
        self.number.load(Ordering::Relaxed)
    }

    /// What it is doing.
    pub fn activity(&self) -> Activity {
        match self.activity.load(Ordering::SeqCst) {
            1 => Activity::Ready,
            2 => Activity::Waiting,
            3 => Activity::Parked,
            _ => Activity::Off,
        }
    }

    /// Changes what it is doing. Only its own CPU does this to a vCPU that isn't off.
    pub fn set_activity(&self, activity: Activity) {
        self.activity.store(activity as u8, Ordering::SeqCst);
        // A wake-up that came before the store found nothing to wake; it left its mark.
        if matches!(activity, Activity::Waiting | Activity::Parked) && self.attention() {
            self.activity.store(Activity::Ready as u8, Ordering::SeqCst);
        }
    }

    /// Whether it has to be looked at.
    #[inline(always)]
    pub fn attention(&self) -> bool {
        self.attention.load(Ordering::SeqCst)
    }

    /// It is to be looked at before it goes on. Another CPU's must be told besides ([`Self::wake`]).
    #[inline]
    pub fn demand_attention(&self) {
        self.attention.store(true, Ordering::SeqCst);
        // If nobody has it loaded, who loads it looks at it.
        if let Some(cpu) = cpu::by_index(self.resident.load(Ordering::SeqCst)) {
            cpu.demand();
        }
    }

    /// It's being looked at; returns whether it had to be.
    pub fn take_attention(&self) -> bool {
        // Looked at first: mostly there is nothing, and a load costs less than an exchange.
        self.attention() && self.attention.swap(false, Ordering::SeqCst)
    }

    /// Lets a waiting vCPU go on; makes its CPU look at it.
    pub fn wake(&self) {
        self.demand_attention();
        let woken = [Activity::Waiting, Activity::Parked].map(|from| {
            self.activity
                .compare_exchange(
                    from as u8,
                    Activity::Ready as u8,
                    Ordering::SeqCst,
                    Ordering::SeqCst,
                )
                .is_ok()
        });
        if woken.contains(&true) {
            schedule::wake(self);
        } else {
            self.kick();
        }
    }

    /// Lets one that is off run.
    pub fn start(&self) {
        self.set_activity(Activity::Ready);
        self.demand_attention();
        schedule::wake(self);
    }

    /// Makes the CPU that has it loaded look at it.
    fn kick(&self) {
        let resident = self.resident.load(Ordering::SeqCst);
        if resident != cpu::current().index()
            && let Some(target) = cpu::by_index(resident)
        {
            arch::gic::kick(target.affinity.load(Ordering::Relaxed));
        }
    }
}

/// What a domain is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Life {
    /// Being built.
    Created = 0,
    /// Its vCPUs run.
    Running = 1,
    /// It switched itself off.
    Off = 2,
    /// Stopped for something that it couldn't go on from.
    Crashed = 3,
}

/// The functions on a domain's PCI bus.
pub struct Pci {
    /// Configuration spaces.
    pub bus: VirtualBus,
    /// What is behind each slot.
    pub links: [Option<Link>; SLOTS],
    /// The domain's ends of shared memory.
    pub ports: Vec<Port>,
    /// Whether each slot's function asserts its interrupt, before the domain's own masking.
    pub pending: u32,
}

impl Pci {
    /// Levels of the four INTx lines, as all functions on them make them: bit n is line n.
    fn levels(&self) -> u8 {
        let mut levels = 0u8;
        let mut left = self.pending;
        while left != 0 {
            let slot = left.trailing_zeros() as u8;
            left &= left.wrapping_sub(1);
            let line = self
                .bus
                .function(slot)
                .filter(|function| !function.interrupt_disabled())
                .and_then(|function| intx_line(slot, function.description().interrupt_pin));
            if let Some(line) = line {
                levels |= 1u8.wrapping_shl(u32::from(line));
            }
        }
        levels
    }
}

/// Stage 2 of a domain.
pub struct Stage2 {
    /// The tables.
    pub table: TranslationTable,
    /// For the TLB maintenance.
    pub vttbr: u64,
}

impl Stage2 {
    /// Maps host memory or registers.
    ///
    /// # Errors
    /// [`TranslationError`].
    pub fn map(
        &mut self,
        at: u64,
        host: HostPhysical,
        size: u64,
        how: Attributes,
    ) -> Result<(), TranslationError> {
        self.table
            .map(&mut TableFrames { coherent: true }, at, host, size, how)
    }

    /// Unmaps a range; no CPU uses it any more when this returns.
    ///
    /// # Errors
    /// [`TranslationError`].
    pub fn unmap(&mut self, at: u64, size: u64) -> Result<(), TranslationError> {
        let vttbr = self.vttbr;
        self.table.unmap(
            &mut TableFrames { coherent: true },
            at,
            size,
            &mut |range| {
                arch::mmu::invalidate_stage2(vttbr, range);
            },
        )
    }
}

/// A virtual machine.
pub struct Domain {
    /// Its id.
    pub id: DomainId,
    /// Path of its node, for messages.
    pub path: String,
    life: AtomicU8,
    /// Its vCPUs.
    pub vcpus: Vec<Vcpu>,
    /// Its RAM: contiguous for the domain, from RAM_BASE on.
    pub memory: Vec<Piece>,
    /// Power states of its vCPUs.
    pub power: Mutex<DomainPower>,
    /// Its PCI bus.
    pub pci: Mutex<Pci>,
    /// Its UART, if it has one.
    pub uart: Option<Mutex<Vpl011>>,
    /// Its flash, if it started with firmware.
    pub flash: Option<Mutex<[Bank; 2]>>,
    /// Its clock and watchdog.
    pub devices: Mutex<Devices>,
    /// In ns, when its devices have to be looked at.
    pub alarm: AtomicU64,
    /// The CPU whose timer sees to that, wherever the vCPUs are.
    pub timekeeper: usize,
    /// For each CPU the index of the vCPU that it had loaded last.
    last: [AtomicU8; cpu::MAX_CPUS],
    /// Its stage 2.
    pub stage2: Mutex<Stage2>,
    /// Its interrupt controller.
    pub vgic: Mutex<Vgic>,
}

impl Domain {
    /// A domain in the state "created".
    #[expect(
        clippy::too_many_arguments,
        reason = "one for each part, each of another type"
    )]
    pub fn new(
        id: DomainId,
        path: String,
        vcpus: Vec<Vcpu>,
        memory: Vec<Piece>,
        power: DomainPower,
        bus: VirtualBus,
        links: [Option<Link>; SLOTS],
        uart: bool,
        devices: Devices,
        flash: Option<[Bank; 2]>,
        timekeeper: usize,
        stage2: Stage2,
        vgic: Vgic,
    ) -> Self {
        Self {
            id,
            path,
            life: AtomicU8::new(Life::Created as u8),
            vcpus,
            memory,
            power: Mutex::new(power),
            pci: Mutex::new(Pci {
                bus,
                links,
                ports: Vec::new(),
                pending: 0,
            }),
            uart: uart.then(|| Mutex::new(Vpl011::new())),
            flash: flash.map(Mutex::new),
            devices: Mutex::new(devices),
            alarm: AtomicU64::new(u64::MAX),
            timekeeper,
            last: [const { AtomicU8::new(u8::MAX) }; cpu::MAX_CPUS],
            stage2: Mutex::new(stage2),
            vgic: Mutex::new(vgic),
        }
    }

    /// What it is doing.
    pub fn life(&self) -> Life {
        match self.life.load(Ordering::SeqCst) {
            0 => Life::Created,
            1 => Life::Running,
            2 => Life::Off,
            _ => Life::Crashed,
        }
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

    /// Changes what it is doing.
    pub fn set_life(&self, life: Life) {
        self.life.store(life as u8, Ordering::SeqCst);
    }

    /// Stops all vCPUs: the domain is off, or crashed.
    pub fn stop(&self, life: Life) {
        self.set_life(life);
        for vcpu in &self.vcpus {
            vcpu.wake();
        }
    }

    /// Bytes of RAM.
    pub fn memory_size(&self) -> u64 {
        self.memory.iter().map(|piece| piece.size).sum()
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
        for piece in &self.memory {
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
    pub fn set_line(&self, line: Line, level: bool) {
        let kicks = self.vgic.lock().set_line(line, level);
        self.kick(kicks);
    }

    /// Brings the UART's interrupt line in agreement with the UART.
    pub fn refresh_uart(&self) {
        if let Some(uart) = &self.uart {
            let uart = uart.lock();
            self.set_line(Line::Spi(32 + layout::UART_SPI), uart.interrupt_level());
        }
    }

    /// Notes whether the function in `slot` asserts its interrupt.
    pub fn set_function_pending(&self, slot: u8, pending: bool) {
        let mut pci = self.pci.lock();
        let bit = 1u32.wrapping_shl(u32::from(slot));
        // Said after every access and at every sample; mostly nothing has changed.
        if (pci.pending & bit != 0) == pending {
            return;
        }
        pci.pending ^= bit;
        self.refresh_intx(&pci);
    }

    /// What is behind a slot.
    pub fn link(&self, slot: usize) -> Option<Link> {
        self.pci.lock().links.get(slot).copied().flatten()
    }

    /// Brings the four INTx lines in agreement with the functions. Under the lock of `pci`, so that two updates
    /// reach the interrupt controller in their order.
    pub fn refresh_intx(&self, pci: &Pci) {
        let levels = pci.levels();
        let mut vgic = self.vgic.lock();
        let mut kicks = Kicks::NONE;
        for line in 0..4u32 {
            let intid = (32 + layout::PCI_INTX_SPI).wrapping_add(line);
            kicks |= vgic.set_line(Line::Spi(intid), levels.wrapping_shr(line) & 1 != 0);
        }
        drop(vgic);
        self.kick(kicks);
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
