//! A virtual CPU: what it is doing, what is kept of it, and how one CPU tells another that there is something for it.

use crate::arch::{self, context, cpu, exits};
use crate::system::schedule;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use hypervisor::lifecycle::progress::Progress;
use hypervisor::physical_timer::PhysicalTimer;
use hypervisor::vcpu_schedule::VcpuId;
use hypervisor::vgic::ListRegisters;
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
    /// Would be ready, but its domain is paused.
    Held = 4,
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
    pub registers: exits::RegisterFile,
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
    /// Its domain is paused.
    held: AtomicBool,
    /// Whether its exceptions lead anywhere.
    pub progress: Mutex<Progress>,
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
            registers: exits::RegisterFile::new(),
            context,
            lists: Mutex::new(lists),
            timer: Mutex::new(PhysicalTimer::new()),
            alarm: AtomicU64::new(u64::MAX),
            activity: AtomicU8::new(Activity::Off as u8),
            attention: AtomicBool::new(false),
            held: AtomicBool::new(false),
            progress: Mutex::new(Progress::new()),
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

    /// Whether its domain is paused: its CPU takes its state out and doesn't run it.
    pub fn is_held(&self) -> bool {
        self.held.load(Ordering::SeqCst)
    }

    /// Whether its state is in a CPU. Once it's held and this is false, it stays false until it is released.
    pub fn is_loaded(&self) -> bool {
        self.resident.load(Ordering::SeqCst) != NOWHERE
    }

    pub(super) fn hold(&self) {
        self.held.store(true, Ordering::SeqCst);
        self.wake();
    }

    #[inline]
    pub(super) fn release(&self) {
        self.held.store(false, Ordering::SeqCst);
        self.wake();
        // It may have been ready all the time, and was put to sleep only because it was held.
        if self.activity() == Activity::Ready {
            schedule::wake(self);
        }
    }

    /// What it is doing.
    #[inline]
    pub fn activity(&self) -> Activity {
        match self.activity.load(Ordering::SeqCst) {
            1 if self.is_held() => Activity::Held,
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
    #[inline]
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
