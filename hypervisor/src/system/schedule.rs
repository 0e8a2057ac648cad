//! Carries out what the scheduler of vCPUs decides ([`hypervisor::vcpu_schedule`]), and what a CPU does that has none.
//!
//! Each CPU has a *seat*: what is loaded, and what it has to see to. A vCPU that waits, waits *here*: the exit that put it to sleep returns only
//! when this CPU has a vCPU to go on with, be it the same. On the way through an ordinary exit no lock of the scheduler is taken: who changes
//! something for a CPU marks its seat ([`Seat::resched`]), demands its attention and kicks it.
//!
//! # How a vCPU moves
//! Under its pool's lock it is given to another CPU, while its registers may still be in this one. This one saves them and then says so:
//! [`Vcpu::resident`] becomes [`NOWHERE`] with release ordering. The other one, having saved its own, waits for that with acquire ordering, so it
//! sees all that was saved, list registers and virtual timer included; then it claims `resident` for itself. The wait is short: whoever was
//! told to let go does nothing else first. From then on kicks go there: `resident` and `attention` are written and read in one total
//! order (SeqCst), so a waker either sees the new CPU, or the new CPU sees what the waker left.

use super::domain::{Activity, Domain, Life, NOWHERE, Vcpu};
use super::{attachment, console, devices, exit, interrupts, lifecycle, sharing};
use crate::arch::context::Context;
use crate::arch::cpu::{self, Cpu, MAX_CPUS};
use crate::arch::exits::{self, Registers};
use crate::arch::gic::interface;
use crate::arch::guest;
use crate::arch::{gic, mmu, registers, timer};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::time::Instant;
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hypervisor::guest_tree::layout::{PASSTHROUGH_SPIS, V2M_SPIS};
use hypervisor::vcpu_schedule::{CpuSet, Pool, VcpuId};
use hypervisor::vgic::{Deactivated, Kicks};
use spin::{Mutex, Once};

const NEVER: u64 = u64::MAX;
/// How often a CPU looks again at what it has to see to before it looks for interrupts: no more than what fits into 20 µs.
const ROUNDS: u32 = 4;

/// A vCPU with its domain.
#[derive(Clone, Copy)]
pub struct Member {
    /// The domain.
    pub domain: &'static Domain,
    /// The vCPU.
    pub vcpu: &'static Vcpu,
}

/// The vCPU with this number.
fn member(number: usize) -> Option<Member> {
    if number == NOWHERE {
        return None;
    }
    let domain = super::get()?.domains.get(number >> 3)?;
    let vcpu = domain.vcpus.get(number & 7)?;
    Some(Member { domain, vcpu })
}

/// A pool of CPUs and what its numbers stand for.
pub struct SharedPool {
    /// Its number in the device tree.
    pub id: u32,
    inner: Mutex<Inner>,
}

/// What a pool's lock protects.
pub struct Inner {
    /// Who runs where.
    pub pool: Pool,
    /// By [`VcpuId`]; a vCPU whose domain isn't complete has no member yet, and isn't awake.
    members: Vec<Option<Member>>,
}

impl Inner {
    /// The vCPU with this id.
    pub fn member(&self, who: VcpuId) -> Option<Member> {
        self.members.get(who.slot()).copied().flatten()
    }
}

impl SharedPool {
    /// The pool, locked.
    #[inline]
    pub fn lock(&self) -> spin::MutexGuard<'_, Inner> {
        self.inner.lock()
    }
}

static POOLS: Once<Vec<SharedPool>> = Once::new();

/// What one CPU is about.
struct Seat {
    /// The number of the vCPU whose registers are in it ([`Vcpu::number`]), or [`NOWHERE`].
    loaded: AtomicUsize,
    /// Index of its pool in [`POOLS`]; [`NOWHERE`] if it has none.
    pool: AtomicUsize,
    /// Whether it was decided that the loaded vCPU runs.
    running: AtomicBool,
    /// The pool has to be asked before anything is resumed.
    resched: AtomicBool,
    /// When the pool wants to be asked at the latest, in ns.
    event: AtomicU64,
    /// What the timer is set to, in ns: no later than anything that this CPU has to do, but it may be earlier.
    armed: AtomicU64,
    /// What the timer is set to must be computed again.
    rearm: AtomicBool,
    /// The interrupt of the virtual timer is known to be inactive in this CPU: what asking the GIC would cost at every switch.
    timer_inactive: AtomicBool,
}

static SEATS: [Seat; MAX_CPUS] = [const {
    Seat {
        loaded: AtomicUsize::new(NOWHERE),
        pool: AtomicUsize::new(NOWHERE),
        running: AtomicBool::new(false),
        resched: AtomicBool::new(true),
        event: AtomicU64::new(NEVER),
        armed: AtomicU64::new(NEVER),
        rearm: AtomicBool::new(true),
        timer_inactive: AtomicBool::new(false),
    }
}; MAX_CPUS];

fn seat(cpu: &Cpu) -> &'static Seat {
    at(cpu.index())
}

#[expect(
    clippy::indexing_slicing,
    reason = "below MAX_CPUS, which is the length"
)]
fn at(index: usize) -> &'static Seat {
    &SEATS[index % MAX_CPUS]
}

/// Makes the pools, before any domain.
pub fn start_pools(pools: Vec<(u32, Pool)>) {
    for (index, (_, pool)) in pools.iter().enumerate() {
        for cpu in pool.cpus().iter() {
            at(cpu).pool.store(index, Ordering::SeqCst);
        }
    }
    POOLS.call_once(|| {
        let shared = pools.into_iter().map(|(id, pool)| SharedPool {
            id,
            inner: Mutex::new(Inner {
                pool,
                members: Vec::new(),
            }),
        });
        shared.collect()
    });
}

/// All pools.
#[inline]
pub fn pools() -> &'static [SharedPool] {
    POOLS.get().map_or(&[], Vec::as_slice)
}

/// Says whom a pool's number stands for.
pub fn enlist(member: Member) {
    if let Some(pool) = pools().get(member.vcpu.pool) {
        let mut inner = pool.lock();
        let slots = member.vcpu.id.slot().saturating_add(1);
        if inner.members.len() < slots {
            inner.members.resize(slots, None);
        }
        if let Some(place) = inner.members.get_mut(member.vcpu.id.slot()) {
            *place = Some(member);
        }
    }
}

/// These CPUs have to ask their pool.
pub fn announce(cpus: CpuSet) {
    if cpus.is_empty() {
        return;
    }
    let this = cpu::current().index();
    for index in cpus.iter() {
        at(index).resched.store(true, Ordering::SeqCst);
        if let Some(target) = cpu::by_index(index) {
            target.demand();
            if index != this {
                gic::kick(target.affinity.load(Ordering::Relaxed));
            }
        }
    }
}

/// A vCPU that waited, or was off, is ready.
pub fn wake(vcpu: &Vcpu) {
    if let Some(pool) = pools().get(vcpu.pool) {
        let kick = pool.lock().pool.wake(vcpu.id, timer::now());
        announce(kick);
    }
}

/// The timer of this CPU must be set anew before it goes on.
pub fn rearm() {
    let cpu = cpu::current();
    seat(cpu).rearm.store(true, Ordering::Relaxed);
    cpu.demand();
}

impl Seat {
    #[inline]
    fn loaded(&self) -> Option<Member> {
        member(self.loaded.load(Ordering::Relaxed))
    }

    #[inline]
    fn pool(&self) -> Option<&'static SharedPool> {
        pools().get(self.pool.load(Ordering::Relaxed))
    }

    /// Whether the loaded vCPU goes on without a question to the pool.
    fn may_go_on(&self, member: Member) -> bool {
        self.running.load(Ordering::Relaxed)
            && !self.resched.load(Ordering::SeqCst)
            && member.vcpu.activity() == Activity::Ready
    }

    fn set_event(&self, event: Option<Instant>) {
        self.event
            .store(event.map_or(NEVER, Instant::as_nanos), Ordering::Relaxed);
        self.needed_at(self.event.load(Ordering::Relaxed));
    }

    /// The timer is to fire at this time, in ns, or before. One that fires too early costs less than setting it at every switch.
    fn needed_at(&self, at: u64) {
        if at < self.armed.load(Ordering::Relaxed) {
            self.rearm.store(true, Ordering::Relaxed);
        }
    }
}

/// The virtual timer's interrupt was taken on this CPU, and stays active until the loaded vCPU deactivates it.
pub fn timer_taken() {
    seat(cpu::current())
        .timer_inactive
        .store(false, Ordering::Relaxed);
}

/// The vCPU that exited on this CPU.
#[inline]
pub fn loaded() -> Option<Member> {
    seat(cpu::current()).loaded()
}

/// This CPU's part from now on: run vCPUs.
pub fn run() -> ! {
    exits::start(choose())
}

/// Chooses what this CPU resumes; waits until there is something.
pub fn choose() -> *mut Registers {
    let cpu = cpu::current();
    let seat = seat(cpu);
    let mut rounds = 0u32;
    loop {
        // Before everything that a demand may be about.
        cpu.take_demand();
        console::service();
        if let Some(member) = seat.loaded()
            && !settle(seat, member)
            && seat.may_go_on(member)
        {
            synchronise(member);
            if !member.vcpu.attention() {
                set_timer(cpu, seat);
                return member.vcpu.registers.pointer();
            }
        } else {
            decide(cpu, seat);
        }
        // Others may make it look again for as long as they like, and an interrupt may be waiting that is no business of theirs.
        rounds = rounds.wrapping_add(1);
        if rounds.is_multiple_of(ROUNDS) {
            interrupts::serve();
        }
    }
}

/// Asks the pool what to do, and does it.
fn decide(cpu: &'static Cpu, seat: &'static Seat) {
    let Some(shared) = seat.pool() else {
        // In no pool: nothing but interrupts.
        idle(cpu, seat);
        return;
    };
    // Before the pool is asked, so that what changes afterwards is seen the next time.
    seat.resched.swap(false, Ordering::SeqCst);
    let index = cpu.index();
    let loaded = seat.loaded();
    // While it waits, EL2's timer stands in for its own ones once its registers are saved.
    let timers = loaded
        .filter(|member| member.vcpu.activity() != Activity::Ready)
        .and_then(|member| {
            let own = member.vcpu.context.loaded_deadline();
            let own = own.map_or(NEVER, Instant::as_nanos);
            let earliest = own.min(devices::vcpu_deadline(member.vcpu));
            (earliest != NEVER).then(|| Instant::from_nanos(earliest))
        });
    let now = timer::now();
    let (decision, next, event) = {
        let mut inner = shared.lock();
        let Inner { pool, members } = &mut *inner;
        let member = |who: VcpuId| members.get(who.slot()).copied().flatten();
        let decision = pool.reschedule(
            index,
            loaded.map(|member| member.vcpu.id),
            |who| member(who).is_some_and(|member| member.vcpu.activity() == Activity::Ready),
            timers,
            now,
        );
        let next = decision.run.and_then(member);
        (decision, next, pool.next_event(index))
    };
    seat.set_event(event);
    announce(decision.kick);
    seat.running.store(next.is_some(), Ordering::Relaxed);
    match next {
        Some(next) if loaded.is_some_and(|loaded| core::ptr::eq(loaded.vcpu, next.vcpu)) => {}
        Some(next) => {
            if let Some(before) = loaded {
                unload(seat, before);
            }
            load(cpu, seat, next);
        }
        None => {
            if let Some(before) = loaded.filter(|_| decision.unload) {
                unload(seat, before);
            }
            idle(cpu, seat);
        }
    }
}

#[inline]
fn idle(cpu: &'static Cpu, seat: &'static Seat) {
    set_timer(cpu, seat);
    // A kick that came since is pending and ends this at once.
    registers::wait_for_interrupt();
    interrupts::serve();
}

/// Carries out what was decided about the loaded vCPU elsewhere: its domain was stopped, or paused. Returns whether nothing is loaded any
/// more.
fn settle(seat: &Seat, member: Member) -> bool {
    let Member { domain, vcpu } = member;
    match domain.life() {
        Life::Stopped => {
            if let Some(why) = domain.take_capture() {
                domain.describe(vcpu, why);
            }
            abandon(member);
            true
        }
        Life::Paused if vcpu.is_held() => {
            domain.has_let_go();
            unload(seat, member);
            true
        }
        Life::Paused | Life::Running => false,
    }
}

/// The loaded vCPU goes off: nothing of it is kept, and nothing of it stays in the CPU. Interrupts linked to physical ones are given
/// back here, on the CPU that took them.
pub fn abandon(member: Member) {
    let Member { domain, vcpu } = member;
    // Room for each private interrupt and each that a device of the domain's own can have: each is given back once.
    let mut physical: ArrayVec<u32, { 32 + (PASSTHROUGH_SPIS + V2M_SPIS) as usize }> =
        ArrayVec::new();
    {
        let mut vgic = domain.vgic.lock();
        let mut lists = vcpu.lists.lock();
        refresh_lists(&mut lists);
        let used = lists.in_use;
        let mut note = |deactivated| match deactivated {
            Deactivated::Physical(intid) => physical.try_push(intid).is_ok(),
            Deactivated::Line(_) => true,
        };
        let mut kicks = vgic.collect(vcpu.index, &mut lists, &mut note);
        kicks |= vgic.reset_vcpu(vcpu.index);
        kicks |= vgic.collect(vcpu.index, &mut lists, &mut note);
        interface::write_lists(&lists, used);
        drop(lists);
        drop(vgic);
        domain.kick(kicks.without(vcpu.index));
    }
    Context::abandon();
    devices::stop_timer(member);
    for intid in physical {
        deactivate(intid);
    }
    let seat = seat(cpu::current());
    seat.timer_inactive.store(false, Ordering::Relaxed);
    seat.loaded.store(NOWHERE, Ordering::Relaxed);
    // Release: what this CPU did with it happened before another one starts it anew.
    vcpu.resident.store(NOWHERE, Ordering::SeqCst);
    vcpu.set_activity(Activity::Off);
}

/// Deactivates a physical interrupt that its domain won't: a private one of this CPU's, or a shared one wherever it was taken.
pub fn deactivate(intid: u32) {
    if intid < 32 {
        gic::deactivate(intid);
    } else if let Some(system) = super::get() {
        system.gic.lock().deactivate_shared(intid);
    }
}

/// Saves the vCPU that is loaded; from here on another CPU may load it.
fn unload(seat: &Seat, member: Member) {
    unload_lists(member);
    match super::get() {
        Some(system) if !seat.timer_inactive.load(Ordering::Relaxed) => {
            let affinity = cpu::current().affinity.load(Ordering::Relaxed);
            let virtual_timer = interrupts::virtual_timer();
            let active = system.gic.lock().private_active(virtual_timer, affinity);
            // The timer is off before its interrupt is made inactive, or it would be taken here.
            member.vcpu.context.save(active);
            if active {
                system
                    .gic
                    .lock()
                    .set_private_active(virtual_timer, affinity, false);
            }
        }
        _ => member.vcpu.context.save(false),
    }
    // Its tables may end before this CPU loads another one.
    Context::leave_tables();
    seat.timer_inactive.store(true, Ordering::Relaxed);
    seat.loaded.store(NOWHERE, Ordering::Relaxed);
    // Release: all that was saved, before the CPU that waits for it in `load`.
    member.vcpu.resident.store(NOWHERE, Ordering::SeqCst);
}

/// Loads a vCPU that the pool gave to this CPU, which has nothing loaded.
fn load(cpu: &'static Cpu, seat: &Seat, member: Member) {
    let Member { domain, vcpu } = member;
    // Acquire: all that the CPU saved that had it before. That one has been told to save it, and does nothing else first.
    while vcpu
        .resident
        .compare_exchange(NOWHERE, cpu.index(), Ordering::SeqCst, Ordering::SeqCst)
        .is_err()
    {
        core::hint::spin_loop();
    }
    // First claimed, then looked: who holds it sees that it is resident, or this sees that it is held.
    if vcpu.is_held() {
        vcpu.resident.store(NOWHERE, Ordering::SeqCst);
        return;
    }
    let active = vcpu.context.load();
    let inactive = seat.timer_inactive.load(Ordering::Relaxed);
    if (active || !inactive)
        && let Some(system) = super::get()
    {
        let affinity = cpu.affinity.load(Ordering::Relaxed);
        system
            .gic
            .lock()
            .set_private_active(interrupts::virtual_timer(), affinity, active);
        seat.timer_inactive.store(!active, Ordering::Relaxed);
    }
    // Two vCPUs of a domain may use one ASID for two address spaces; this CPU's TLB must not confuse them.
    if domain.last_on(cpu.index(), vcpu.index) {
        mmu::forget_this_guest();
    }
    seat.loaded.store(vcpu.number(), Ordering::Relaxed);
    seat.needed_at(devices::vcpu_deadline(vcpu));
    // Otherwise nothing of it is linked to the physical one.
    if active {
        sample_timer(member);
    }
    vcpu.take_attention();
    exchange(member, false);
}

/// The virtual timer is the hardware's: nobody is told when its level falls. The interrupt of the loaded vCPU follows it here;
/// [`synchronise`] then.
#[inline]
pub fn sample_timer(member: Member) {
    if !guest::timer_asserts() {
        let Member { domain, vcpu } = member;
        let mut vgic = domain.vgic.lock();
        vgic.hardware_withdrawn(vcpu.index, interrupts::virtual_timer());
    }
}

fn unload_lists(member: Member) {
    let mut lists = member.vcpu.lists.lock();
    refresh_lists(&mut lists);
    interface::clear_lists(lists.in_use);
}

/// Reads what the hardware made of the list registers in use.
pub fn refresh_lists(lists: &mut hypervisor::vgic::ListRegisters) {
    interface::read_lists(lists);
    lists.eoi_count = interface::deactivations_missed();
}

/// Brings the loaded vCPU's list registers in agreement with its interrupt controller, if anything asks for it.
#[inline]
pub fn synchronise(member: Member) {
    if member.vcpu.take_attention() {
        exchange(member, true);
    }
}

/// Takes back what the list registers held, acts upon it, and fills them anew. `in_cpu`: the CPU has them; else they are as they were saved,
/// and the CPU's are empty.
fn exchange(member: Member, in_cpu: bool) {
    let Member { domain, vcpu } = member;
    let mut changed: ArrayVec<Deactivated, 64> = ArrayVec::new();
    let mut before = 0;
    let mut vgic = domain.vgic.lock();
    let mut lists = vcpu.lists.lock();
    if in_cpu {
        refresh_lists(&mut lists);
        before = lists.in_use;
    }
    let kicks = vgic.collect(vcpu.index, &mut lists, &mut |deactivated| {
        changed.try_push(deactivated).is_ok()
    });
    if !changed.is_empty() || !kicks.is_empty() {
        if changed.is_full() {
            // The rest in another pass, when interrupts were looked for.
            vcpu.demand_attention();
        }
        drop(lists);
        drop(vgic);
        collected(member, kicks, &changed);
        vgic = domain.vgic.lock();
        lists = vcpu.lists.lock();
    }
    let maintenance = vgic.deliver(vcpu.index, &mut lists);
    interface::write_lists(&lists, before | lists.in_use);
    interface::set_interface_control(maintenance);
}

/// Acts upon what was found in the loaded vCPU's list registers, without any lock.
fn collected(member: Member, kicks: Kicks, changed: &[Deactivated]) {
    let Member { domain, vcpu } = member;
    domain.kick(kicks.without(vcpu.index));
    for deactivated in changed {
        match *deactivated {
            Deactivated::Physical(intid) => deactivate(intid),
            Deactivated::Line(line) => exit::resample(domain, line),
        }
    }
}

/// Whether something would end a WFI of the loaded vCPU at once.
pub fn interrupt_waits(member: Member) -> bool {
    let vgic = member.domain.vgic.lock();
    let mut lists = member.vcpu.lists.lock();
    refresh_lists(&mut lists);
    vgic.pending_for(member.vcpu.index, interface::signalling(), &lists)
}

/// Sets the timer of a CPU that runs no vCPU.
#[cfg(feature = "fw-core")]
pub fn program_timer() {
    let cpu = cpu::current();
    set_timer(cpu, seat(cpu));
}

/// The domains whose devices this CPU's timer looks after.
fn looked_after(cpu: &Cpu) -> impl Iterator<Item = &'static Domain> {
    let index = cpu.index();
    let domains = super::get()
        .into_iter()
        .flat_map(|system| system.domains.iter());
    domains.filter(move |domain| domain.has_time_kept_on(index))
}

/// Sets this CPU's timer to the earliest thing it has to do.
fn set_timer(cpu: &Cpu, seat: &Seat) {
    if !seat.rearm.load(Ordering::Relaxed) || !seat.rearm.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut earliest = seat.event.load(Ordering::Relaxed);
    if let Some(member) = seat.loaded() {
        earliest = earliest.min(devices::vcpu_deadline(member.vcpu));
    }
    for domain in looked_after(cpu) {
        earliest = earliest.min(devices::next_deadline(domain));
    }
    if let Some(at) = sharing::next_deadline() {
        earliest = earliest.min(at.as_nanos());
    }
    if attachment::occupied() {
        let at = timer::now().saturating_add(attachment::interval());
        earliest = earliest.min(at.as_nanos());
    }
    if lifecycle::occupied() {
        let at = timer::now().saturating_add(lifecycle::interval());
        earliest = earliest.min(at.as_nanos());
    }
    if let Some(at) = console::next_deadline() {
        earliest = earliest.min(at.as_nanos());
    }
    if seat.armed.swap(earliest, Ordering::Relaxed) != earliest {
        timer::arm((earliest != NEVER).then(|| Instant::from_nanos(earliest)));
    }
}

/// This CPU's timer expired: whatever is due is done.
pub fn timer_expired() {
    let cpu = cpu::current();
    let seat = seat(cpu);
    timer::arm(None);
    seat.armed.store(NEVER, Ordering::Relaxed);
    seat.rearm.store(true, Ordering::Relaxed);
    let now = timer::now();
    if let Some(shared) = seat.pool() {
        loop {
            // The lock is let go before the vCPU is woken.
            let due = {
                let mut inner = shared.lock();
                let who = inner.pool.due(cpu.index(), now);
                who.and_then(|who| inner.member(who))
            };
            let Some(member) = due else {
                break;
            };
            devices::vcpu_timer(member, now);
            member.vcpu.wake();
        }
        let inner = shared.lock();
        if inner.pool.is_over(cpu.index(), now) {
            seat.resched.store(true, Ordering::SeqCst);
        }
        seat.set_event(inner.pool.next_event(cpu.index()));
    }
    if let Some(member) = seat.loaded() {
        devices::vcpu_timer(member, now);
    }
    for domain in looked_after(cpu) {
        devices::timer(domain, now);
    }
    sharing::timers(now);
    attachment::attend();
    lifecycle::attend();
}
