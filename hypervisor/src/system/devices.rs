//! The small devices of a domain: real-time clock, watchdog, firmware configuration; and its vCPUs' physical timers.
//!
//! What they decide is in the library. Here they get the clock, their interrupts reach the domain's interrupt controller, and
//! what is due is kept as one alarm for each domain, which one CPU, its timekeeper, has among what its timer is set to: the CPU on which it was
//! changed last. Another one would have to be told each time, and a domain that changes it without end would take that CPU's time from others.

use super::console;
use super::domain::{Domain, Life, Vcpu};
use super::exit::{Answer, within};
use super::messages;
use super::schedule::{self, Member};
use crate::arch::{memory, timer};
use coproc_core::register::{Operation, Width};
use coproc_core::time::Instant;
use core::sync::atomic::{AtomicU64, Ordering};
use hypervisor::config::DomainConfig;
use hypervisor::fw_cfg::{FwCfg, GuestMemory};
use hypervisor::guest_tree::layout;
use hypervisor::lifecycle::{Crash, Ending};
use hypervisor::physical_timer::{PhysicalTimer, Register};
use hypervisor::vgic::Line;
use hypervisor::vpl031::Vpl031;
use hypervisor::watchdog::Watchdog;

const NEVER: u64 = u64::MAX;
const SECOND: u64 = 1_000_000_000;

/// The time of day at instant zero, in ns since 1970 (modulo 2⁶⁴); nobody said: 1970.
static WALL_CLOCK: AtomicU64 = AtomicU64::new(0);

/// Tells what the time is now, in seconds since 1970.
pub fn set_wall_clock(seconds: u32) {
    let zero = u64::from(seconds)
        .saturating_mul(SECOND)
        .wrapping_sub(timer::now().as_nanos());
    WALL_CLOCK.store(zero, Ordering::Relaxed);
}

/// A domain's clock and watchdog.
#[derive(Debug)]
pub struct Devices {
    rtc: Vpl031,
    watchdog: Watchdog,
    fw_cfg: FwCfg,
    /// What the physical counter is ahead of the domain's virtual one, in ticks.
    offset: u64,
}

impl Devices {
    /// After reset, in a domain whose virtual counter is `offset` ticks behind.
    pub fn new(offset: u64, config: &DomainConfig) -> Self {
        let now = timer::now();
        let wall = WALL_CLOCK
            .load(Ordering::Relaxed)
            .wrapping_add(now.as_nanos());
        Self {
            rtc: Vpl031::new((wall / SECOND) as u32, now),
            watchdog: Watchdog::default(),
            fw_cfg: FwCfg::new(config.memory, config.cpus as u16),
            offset,
        }
    }

    fn ticks(&self) -> u64 {
        timer::counter().wrapping_sub(self.offset)
    }

    /// When something happens by itself, in ns.
    fn deadline(&self) -> u64 {
        let rtc = self.rtc.deadline().map_or(NEVER, Instant::as_nanos);
        let watchdog = self.watchdog.deadline().map_or(NEVER, |ticks| {
            timer::instant(ticks.saturating_add(self.offset)).as_nanos()
        });
        rtc.min(watchdog)
    }
}

/// An access to one of these devices; `None` if none is there.
pub fn access(domain: &Domain, at: u64, width: Width, operation: Operation) -> Option<Answer> {
    if let Some(offset) = within(at, layout::RTC_BASE, layout::RTC_SIZE) {
        return Some(change(domain, |devices| {
            let now = timer::now();
            match operation {
                Operation::Read => devices.rtc.read(offset, width, now),
                Operation::Write(value) => {
                    devices.rtc.write(offset, width, value, now);
                    0
                }
            }
        }));
    }
    if let Some(offset) = within(at, layout::MANAGEMENT_BASE, layout::MANAGEMENT_SIZE) {
        let port = domain.management.as_ref()?;
        let (value, work) = domain.at_port(port, |port| port.access(offset, width, operation));
        if work {
            console::mark_busy();
        }
        return Some(Answer::Value(value));
    }
    if let Some(offset) = within(at, layout::FW_CFG_BASE, layout::FW_CFG_SIZE) {
        return Some(configuration(domain, offset, width, operation));
    }
    let frames = layout::WATCHDOG_FRAME.saturating_mul(2);
    let offset = within(at, layout::WATCHDOG_BASE, frames)?;
    Some(change(domain, |devices| {
        let now = devices.ticks();
        let watchdog = &mut devices.watchdog;
        match (offset.checked_sub(layout::WATCHDOG_FRAME), operation) {
            (None, Operation::Read) => watchdog.read_control(offset, width, now),
            (Some(offset), Operation::Read) => watchdog.read_refresh(offset, width),
            (None, Operation::Write(value)) => {
                watchdog.write_control(offset, width, value, now);
                0
            }
            (Some(offset), Operation::Write(_)) => {
                watchdog.write_refresh(offset, now);
                0
            }
        }
    }))
}

fn configuration(domain: &Domain, offset: u64, width: Width, operation: Operation) -> Answer {
    let fw_cfg = &mut domain.devices.lock().fw_cfg;
    match operation {
        Operation::Read => Answer::Value(fw_cfg.read(offset, width)),
        Operation::Write(value) => {
            if let Some(request) = fw_cfg.write(offset, width, value) {
                fw_cfg.transfer(&mut Ram(domain), request);
            }
            Answer::Value(0)
        }
    }
}

/// A domain's RAM, as a device without caches reaches it.
struct Ram<'a>(&'a Domain);

impl GuestMemory for Ram<'_> {
    fn read(&mut self, at: u64, into: &mut [u8]) -> bool {
        let mut left = into;
        self.0.each_part(at, left.len() as u64, |host, size| {
            let (part, rest) = core::mem::take(&mut left).split_at_mut(size as usize);
            memory::load(host, part);
            left = rest;
        })
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
        self.0.store(at, bytes)
    }
}

/// Something may change: afterwards interrupts and alarm are as the devices want them.
fn change(domain: &Domain, how: impl FnOnce(&mut Devices) -> u64) -> Answer {
    let mut devices = domain.devices.lock();
    let value = how(&mut devices);
    follow_up(domain, &devices);
    Answer::Value(value)
}

/// Under the devices' lock, so that two changes reach the interrupt controller in their order.
fn follow_up(domain: &Domain, devices: &Devices) {
    domain.set_line(
        Line::Spi(32 + layout::RTC_SPI),
        devices.rtc.interrupt_level(),
    );
    domain.set_line(
        Line::Spi(32 + layout::WATCHDOG_SPI),
        devices.watchdog.interrupt_level(),
    );
    let deadline = devices.deadline();
    if domain.alarm.swap(deadline, Ordering::SeqCst) != deadline {
        domain.keep_time_here();
    }
    if devices.watchdog.expired() && domain.life() == Life::Running {
        domain.end(Ending::Crash(Crash::Watchdog));
    }
}

/// The domain's virtual time stood still for so many ticks, and goes on. Its clock shows the real time.
pub fn shift(domain: &Domain, ticks: u64) {
    let mut devices = domain.devices.lock();
    devices.offset = devices.offset.wrapping_add(ticks);
    devices.rtc.advance(timer::now());
    follow_up(domain, &devices);
}

/// A level-sensitive interrupt may have changed; whether it is one of these devices'. Its level is always up to date.
pub const fn resample(intid: u32) -> bool {
    matches!(
        intid.wrapping_sub(32),
        layout::RTC_SPI | layout::WATCHDOG_SPI | layout::MANAGEMENT_SPI
    )
}

/// Reads a register of the loaded vCPU's physical timer.
pub fn read_timer(member: Member, register: Register) -> u64 {
    member.vcpu.timer.lock().read(register, timer::counter())
}

/// Writes one.
pub fn write_timer(member: Member, register: Register, value: u64) {
    let mut state = member.vcpu.timer.lock();
    state.write(register, value, timer::counter());
    follow_timer(member, &state);
}

/// The vCPU goes off: its timer is as after reset.
pub fn stop_timer(member: Member) {
    let mut state = member.vcpu.timer.lock();
    *state = PhysicalTimer::new();
    follow_timer(member, &state);
}

/// Brings interrupt and alarm in agreement with the timer. Under the timer's lock.
fn follow_timer(member: Member, state: &PhysicalTimer) {
    let Member { domain, vcpu } = member;
    let level = state.interrupt_level(timer::counter());
    let line = Line::Ppi {
        vcpu: vcpu.index,
        intid: 16 + layout::TIMER_PHYSICAL_PPI,
    };
    domain.set_line(line, level);
    let deadline = state
        .deadline()
        .filter(|_| !level)
        .map_or(NEVER, |ticks| timer::instant(ticks).as_nanos());
    if vcpu.alarm.swap(deadline, Ordering::SeqCst) != deadline {
        schedule::rearm();
    }
}

/// When a vCPU's physical timer has to be looked at, in ns: by the CPU that has it loaded, or, while it sleeps, by the one that saved it. One that waits
/// for a CPU is looked at when it gets one.
pub fn vcpu_deadline(vcpu: &Vcpu) -> u64 {
    vcpu.alarm.load(Ordering::SeqCst)
}

/// Looks at it.
#[inline]
pub fn vcpu_timer(member: Member, now: Instant) {
    if vcpu_deadline(member.vcpu) <= now.as_nanos() {
        follow_timer(member, &member.vcpu.timer.lock());
    }
}

/// When the domain's devices have to be looked at, in ns.
pub fn next_deadline(domain: &Domain) -> u64 {
    let look = domain.look.load(Ordering::SeqCst);
    domain.alarm.load(Ordering::SeqCst).min(look)
}

/// The timer of the CPU that looks after them expired.
pub fn timer(domain: &Domain, now: Instant) {
    messages::look(domain, now);
    if domain.alarm.load(Ordering::SeqCst) > now.as_nanos() {
        return;
    }
    domain.alarm.store(NEVER, Ordering::SeqCst);
    if domain.life() != Life::Running {
        return;
    }
    let mut devices = domain.devices.lock();
    devices.rtc.advance(now);
    let ticks = devices.ticks();
    devices.watchdog.advance(ticks);
    follow_up(domain, &devices);
}
