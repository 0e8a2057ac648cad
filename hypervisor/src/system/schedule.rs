//! Which vCPU runs on a CPU, and what a CPU does that has none.
//!
//! A vCPU belongs to one CPU. Those that are ready take turns; a vCPU that waits, waits *here*: the exit that put it to
//! sleep returns only when a vCPU of this CPU can go on, be it the same. This is the place where a scheduler for
//! vCPUs plugs in; today's is round robin.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::domain::{Activity, Domain, Life, Vcpu};
use super::{attachment, console, devices, exit, interrupts, sharing};
use crate::arch::context::{self, Context, Registers};
use crate::arch::cpu::{self, Cpu, MAX_CPUS};
use crate::arch::{gic, registers, timer};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use coproc_core::time::{Duration, Instant};
use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use hypervisor::vgic::Deactivated;
use spin::Once;

/// How long a vCPU runs while others on its CPU are ready, too.
const TURN: Duration = Duration::from_millis(5);
const NEVER: u64 = u64::MAX;
/// Most vCPUs on a CPU.
pub const MEMBERS: usize = 16;

/// A vCPU with its domain.
#[derive(Clone, Copy)]
pub struct Member {
    /// The domain.
    pub domain: &'static Domain,
    /// The vCPU.
    pub vcpu: &'static Vcpu,
}

/// What a CPU runs.
struct Queue {
    members: Once<Vec<Member>>,
    /// Index of the vCPU whose state is in the CPU.
    loaded: AtomicUsize,
    /// End of the loaded one's turn, in ns; [`NEVER`] if nobody else is ready.
    turn_end: AtomicU64,
    /// For each member that isn't loaded: when its virtual timer fires.
    wake_at: [AtomicU64; MEMBERS],
    /// What the timer is set to must be computed again.
    rearm: AtomicBool,
}

const NONE: usize = usize::MAX;

static QUEUES: [Queue; MAX_CPUS] = [const {
    Queue {
        members: Once::new(),
        loaded: AtomicUsize::new(NONE),
        turn_end: AtomicU64::new(NEVER),
        wake_at: [const { AtomicU64::new(NEVER) }; MEMBERS],
        rearm: AtomicBool::new(true),
    }
}; MAX_CPUS];

fn queue(cpu: &Cpu) -> &'static Queue {
    at(cpu.index())
}

#[expect(
    clippy::indexing_slicing,
    reason = "below MAX_CPUS, which is the length"
)]
fn at(index: usize) -> &'static Queue {
    &QUEUES[index % MAX_CPUS]
}

/// Tells which vCPUs CPU `index` runs.
pub fn assign(index: usize, members: Vec<Member>) {
    at(index).members.call_once(|| members);
}

/// The timer of CPU `index` must be set anew before that CPU goes on; it is told.
pub fn rearm_at(index: usize) {
    at(index).rearm.store(true, Ordering::SeqCst);
    if let Some(target) = cpu::by_index(index) {
        target.demand();
        if index != cpu::current().index() {
            gic::kick(target.affinity.load(Ordering::Relaxed));
        }
    }
}

/// The timer of this CPU must be set anew before it goes on.
pub fn rearm() {
    let cpu = cpu::current();
    queue(cpu).rearm.store(true, Ordering::Relaxed);
    cpu.demand();
}

impl Queue {
    fn members(&'static self) -> &'static [Member] {
        self.members.get().map_or(&[][..], Vec::as_slice)
    }

    fn loaded(&'static self) -> Option<Member> {
        self.members()
            .get(self.loaded.load(Ordering::Relaxed))
            .copied()
    }

    /// Whether the loaded one's turn is over. The clock is read only if somebody waits for that.
    fn turn_is_over(&self) -> bool {
        let end = self.turn_end.load(Ordering::Relaxed);
        end != NEVER && timer::now().as_nanos() >= end
    }

    /// The next ready vCPU after the loaded one, in turn; the loaded one comes last.
    fn next(&'static self) -> Option<usize> {
        let members = self.members();
        let after = match self.loaded.load(Ordering::Relaxed) {
            NONE => 0,
            loaded => loaded.saturating_add(1),
        };
        (0..members.len())
            .map(|offset| {
                after
                    .wrapping_add(offset)
                    .checked_rem(members.len())
                    .unwrap_or(0)
            })
            .find(|index| {
                members
                    .get(*index)
                    .is_some_and(|member| member.vcpu.activity() == Activity::Ready)
            })
    }
}

/// The vCPU that exited on this CPU.
pub fn loaded() -> Option<Member> {
    queue(cpu::current()).loaded()
}

/// This CPU's part from now on: run vCPUs.
pub fn run() -> ! {
    context::start(choose())
}

/// Chooses what this CPU resumes; waits until there is something.
pub fn choose() -> *mut Registers {
    let cpu = cpu::current();
    let queue = queue(cpu);
    loop {
        // Before everything that a demand may be about.
        cpu.take_demand();
        console::service();
        if let Some(member) = queue.loaded() {
            settle(member);
        }
        if let Some(member) = queue.loaded()
            && member.vcpu.activity() == Activity::Ready
            && !queue.turn_is_over()
        {
            synchronise(member);
            if member.vcpu.attention() {
                continue;
            }
            set_timer(queue);
            return member.vcpu.registers.pointer();
        }
        match queue.next() {
            Some(index) => {
                switch_to(queue, index);
                let others = queue.members().iter().enumerate().any(|(other, member)| {
                    other != index && member.vcpu.activity() == Activity::Ready
                });
                let end = if others {
                    timer::now().saturating_add(TURN).as_nanos()
                } else {
                    NEVER
                };
                queue.turn_end.store(end, Ordering::Relaxed);
                queue.rearm.store(true, Ordering::Relaxed);
            }
            None => {
                set_timer(queue);
                registers::wait_for_interrupt();
                interrupts::serve();
            }
        }
    }
}

/// Carries out what was decided about the loaded vCPU elsewhere: its domain was stopped.
fn settle(member: Member) {
    if matches!(member.domain.life(), Life::Off | Life::Crashed) {
        abandon(member);
    }
}

/// The loaded vCPU goes off: nothing of it is kept, and nothing of it stays in the CPU. Interrupts linked to physical ones are given
/// back here, on the CPU that took them.
pub fn abandon(member: Member) {
    let Member { domain, vcpu } = member;
    let mut physical: ArrayVec<u32, 32> = ArrayVec::new();
    {
        let mut vgic = domain.vgic.lock();
        let mut lists = vcpu.lists.lock();
        refresh_lists(&mut lists);
        let used = lists.in_use;
        let mut note = |deactivated| {
            if let Deactivated::Physical(intid) = deactivated {
                // At most one for each private interrupt.
                let _ = physical.try_push(intid);
            }
        };
        let mut kicks = vgic.collect(vcpu.index, &mut lists, &mut note);
        kicks |= vgic.reset_vcpu(vcpu.index);
        kicks |= vgic.collect(vcpu.index, &mut lists, &mut note);
        context::write_lists(&lists, used);
        drop(lists);
        drop(vgic);
        domain.kick(kicks.without(vcpu.index));
    }
    Context::abandon();
    devices::stop_timer(member);
    for intid in physical {
        gic::deactivate(intid);
    }
    queue(cpu::current()).loaded.store(NONE, Ordering::Relaxed);
    vcpu.set_activity(Activity::Off);
}

/// A vCPU of this CPU was woken: unless it is the loaded one, the loaded one's turn is limited from now on.
pub fn woken_here(vcpu: &Vcpu) {
    if !loaded().is_some_and(|member| core::ptr::eq(member.vcpu, vcpu)) {
        notice_ready();
    }
}

/// Another vCPU became ready on this CPU: the loaded one's turn is limited from now on.
pub fn notice_ready() {
    let queue = queue(cpu::current());
    let loaded = queue.loaded.load(Ordering::Relaxed);
    let others = queue
        .members()
        .iter()
        .enumerate()
        .any(|(index, member)| index != loaded && member.vcpu.activity() == Activity::Ready);
    if others && queue.turn_end.load(Ordering::Relaxed) == NEVER {
        queue.turn_end.store(
            timer::now().saturating_add(TURN).as_nanos(),
            Ordering::Relaxed,
        );
        queue.rearm.store(true, Ordering::Relaxed);
    }
}

fn switch_to(queue: &'static Queue, index: usize) {
    let from = queue.loaded.load(Ordering::Relaxed);
    if from == index {
        return;
    }
    let affinity = cpu::current().affinity.load(Ordering::Relaxed);
    let virtual_timer = interrupts::virtual_timer();
    if let Some(member) = queue.loaded() {
        unload_lists(member);
        let active = super::get()
            .is_some_and(|system| system.gic.lock().private_active(virtual_timer, affinity));
        let deadline = member.vcpu.context.save(active);
        if let Some(slot) = queue.wake_at.get(from) {
            slot.store(deadline.map_or(NEVER, Instant::as_nanos), Ordering::Relaxed);
        }
    }
    if let Some(member) = queue.members().get(index) {
        let active = member.vcpu.context.load();
        {
            let lists = member.vcpu.lists.lock();
            context::write_lists(&lists, lists.in_use);
        }
        if let Some(system) = super::get() {
            system
                .gic
                .lock()
                .set_private_active(virtual_timer, affinity, active);
        }
        if let Some(slot) = queue.wake_at.get(index) {
            slot.store(NEVER, Ordering::Relaxed);
        }
        member.vcpu.demand_attention();
        queue.loaded.store(index, Ordering::Relaxed);
    }
}

fn unload_lists(member: Member) {
    let mut lists = member.vcpu.lists.lock();
    refresh_lists(&mut lists);
    let used = lists.in_use;
    let mut empty = lists.clone();
    empty.lr = [0; 16];
    context::write_lists(&empty, used);
}

/// Reads what the hardware made of the list registers in use.
pub fn refresh_lists(lists: &mut hypervisor::vgic::ListRegisters) {
    context::read_lists(lists);
    lists.eoi_count = context::deactivations_missed();
}

/// Brings the loaded vCPU's list registers in agreement with its interrupt controller, if anything asks for it.
pub fn synchronise(member: Member) {
    let Member { domain, vcpu } = member;
    if !vcpu.take_attention() {
        return;
    }
    let mut changed: ArrayVec<Deactivated, 32> = ArrayVec::new();
    let before;
    {
        let mut vgic = domain.vgic.lock();
        let mut lists = vcpu.lists.lock();
        refresh_lists(&mut lists);
        before = lists.in_use;
        let kicks = vgic.collect(vcpu.index, &mut lists, &mut |deactivated| {
            // No more than list registers and chores of one pass; more would be sampled by the next change.
            let _ = changed.try_push(deactivated);
        });
        drop(lists);
        drop(vgic);
        for index in kicks.iter().filter(|index| *index != vcpu.index) {
            if let Some(other) = domain.vcpus.get(index) {
                other.wake();
            }
        }
    }
    for deactivated in &changed {
        match *deactivated {
            Deactivated::Physical(intid) => gic::deactivate(intid),
            Deactivated::Line(line) => exit::resample(domain, line),
        }
    }
    let mut vgic = domain.vgic.lock();
    let mut lists = vcpu.lists.lock();
    let maintenance = vgic.deliver(vcpu.index, &mut lists);
    let after = lists.in_use;
    context::write_lists(&lists, before | after);
    context::set_interface_control(maintenance);
}

/// Whether something would end a WFI of the loaded vCPU at once.
pub fn interrupt_waits(member: Member) -> bool {
    let vgic = member.domain.vgic.lock();
    let mut lists = member.vcpu.lists.lock();
    refresh_lists(&mut lists);
    vgic.pending_for(member.vcpu.index, context::interface(), &lists)
}

/// Sets the timer of a CPU that runs no vCPU.
#[cfg(feature = "fw-core")]
pub fn program_timer() {
    set_timer(queue(cpu::current()));
}

/// Sets this CPU's timer to the earliest thing it has to do.
fn set_timer(queue: &'static Queue) {
    if !queue.rearm.load(Ordering::Relaxed) || !queue.rearm.swap(false, Ordering::Relaxed) {
        return;
    }
    let mut earliest = queue.turn_end.load(Ordering::Relaxed);
    for slot in &queue.wake_at {
        earliest = earliest.min(slot.load(Ordering::Relaxed));
    }
    for member in queue.members() {
        earliest = earliest.min(devices::next_deadline(*member));
    }
    if let Some(at) = sharing::next_deadline() {
        earliest = earliest.min(at.as_nanos());
    }
    if attachment::occupied() {
        let at = timer::now().saturating_add(attachment::interval());
        earliest = earliest.min(at.as_nanos());
    }
    if let Some(at) = console::next_deadline() {
        earliest = earliest.min(at.as_nanos());
    }
    timer::arm((earliest != NEVER).then(|| Instant::from_nanos(earliest)));
}

/// This CPU's timer expired: whatever is due is done.
pub fn timer_expired() {
    let queue = queue(cpu::current());
    timer::arm(None);
    queue.rearm.store(true, Ordering::Relaxed);
    let now = timer::now();
    for (slot, member) in queue.wake_at.iter().zip(queue.members()) {
        if slot.load(Ordering::Relaxed) <= now.as_nanos() {
            slot.store(NEVER, Ordering::Relaxed);
            member.vcpu.wake();
        }
    }
    for member in queue.members() {
        devices::timer(*member, now);
    }
    sharing::timers(now);
    attachment::attend();
    notice_ready();
}
