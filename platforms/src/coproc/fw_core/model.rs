//! A processor that executes tiny firmware against the device, as the reserved CPU would.
//!
//! It stands for all that the hypervisor adds to the device: it keeps each context's processor state, asks for orders after every trap and a while after every kick
//! (an interrupt takes its time), and obeys the stage 2 that the streams stand for. What it asserts by itself is the isolation: no instruction is ever
//! executed while the streams point at somebody else's memory.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use coproc_core::driver::Hardware;
use coproc_core::environment::Stream;
use coproc_core::id::VcoprocId;
use coproc_core::register::Width::{self, Double, Word};
use coproc_core::time::{Duration, Instant};
use fw_core_abi::{local, local_interrupt};

use super::{Device, Orders, Start};

/// What one instruction takes that isn't [`Op::Work`], and what one access to a register takes.
const TICK: Duration = Duration::from_nanos(100);
/// From a kick until the reserved CPU is at EL2.
const KICK: Duration = Duration::from_micros(2);

/// One instruction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// Computes for so many nanoseconds.
    Work(u64),
    /// `x = x * 31 + inbox`.
    Checksum,
    /// `x = (x + inbox) / 2`.
    Filter,
    /// `x` to the outbox.
    Outbox,
    /// Writes a local register of 4 bytes.
    Set(u64, u32),
    /// Waits for a doorbell and acknowledges it.
    Doorbell,
    /// Spins for ever.
    Hang,
    /// Ends with `x`.
    Exit,
    /// Accesses what isn't there.
    Crash,
    /// Any access to the local registers; `x` becomes what it reads. An external abort is a crash.
    Local(u64, Width, Option<u64>),
    /// Goes on at this instruction.
    Jump(usize),
}

/// A context's processor state.
#[derive(Clone, Copy, Debug)]
struct Cpu {
    pc: u64,
    x: u64,
    /// Done of the present [`Op::Work`], in ns.
    worked: u64,
}

/// The core, with its device and the time.
pub struct Core {
    /// What the framework and the core share.
    pub device: Device,
    /// Whose memory it reaches.
    pub stream: Stream,
    /// Image memory: instructions, 4 bytes each from address 0.
    pub images: BTreeMap<u32, Vec<Op>>,
    /// Contexts whose firmware answers the request to yield.
    pub polite: Vec<u32>,
    /// Time in which [`Op::Work`] went on.
    pub useful: BTreeMap<u32, Duration>,
    /// Times that firmware yielded.
    pub yields: u64,
    now: Instant,
    kick_at: Option<Instant>,
    executing: Option<u32>,
    cpus: BTreeMap<u32, Cpu>,
}

impl Default for Core {
    fn default() -> Self {
        Self {
            device: Device::new(),
            stream: Stream::Abort,
            images: BTreeMap::new(),
            polite: Vec::new(),
            useful: BTreeMap::new(),
            yields: 0,
            now: Instant::default(),
            kick_at: None,
            executing: None,
            cpus: BTreeMap::new(),
        }
    }
}

impl Core {
    /// At EL2: what next?
    fn ask(&mut self) {
        self.executing = match self.device.orders() {
            Orders::Rest => None,
            Orders::Run { context, start } => {
                if let Some(Start { entry, argument }) = start {
                    let cpu = Cpu {
                        pc: entry,
                        x: argument,
                        worked: 0,
                    };
                    self.cpus.insert(context, cpu);
                }
                Some(context)
            }
        };
        self.look_for_kick();
    }

    fn look_for_kick(&mut self) {
        if self.device.take_kick() {
            self.kick_at.get_or_insert(self.now + KICK);
        }
    }

    /// Lets time pass; ends early when the interrupt's level changes.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        let line = self.device.interrupt_asserted();
        while self.now < end && self.device.interrupt_asserted() == line {
            if self.kick_at.is_some_and(|at| at <= self.now) {
                self.kick_at = None;
                self.ask();
            }
            let until = self.kick_at.map_or(end, |at| at.min(end));
            match self.executing {
                None => self.now = until,
                Some(context) => self.execute(context, until.since(self.now)),
            }
        }
    }

    /// One instruction, or as much of it as there is time for.
    fn execute(&mut self, context: u32, limit: Duration) {
        let cpu = self.cpus[&context];
        self.now = self.now + TICK.min(limit);
        match self.stream {
            Stream::Domain(VcoprocId(owner)) if owner == context => {}
            Stream::Abort => {
                self.device.crashed(0x8200_0004, cpu.pc, cpu.pc);
                return self.ask();
            }
            other => panic!("{context} executes while the streams point at {other:?}"),
        }
        let mut next = cpu;
        next.pc += 4;
        let asked = self.local(local::PENDING, Word, None).unwrap_or(0)
            & self.local(local::ENABLE, Word, None).unwrap_or(0)
            & u64::from(local_interrupt::YIELD);
        if asked != 0 && self.device.virtual_interrupt() && self.polite.contains(&context) {
            // The interrupt handler. It returns to where it was.
            self.yields += 1;
            self.local(local::YIELD, Word, Some(1));
            return self.ask();
        }
        let op = usize::try_from(cpu.pc / 4)
            .ok()
            .and_then(|index| self.images.get(&context)?.get(index).copied());
        let answer = match op {
            Some(Op::Work(total)) => {
                let done = limit.as_nanos().min(total.saturating_sub(cpu.worked));
                let surplus = done.saturating_sub(TICK.min(limit).as_nanos());
                self.now = self.now + Duration::from_nanos(surplus);
                *self.useful.entry(context).or_default() += Duration::from_nanos(done);
                next.worked = cpu.worked + done;
                if next.worked < total {
                    next.pc = cpu.pc;
                } else {
                    next.worked = 0;
                }
                // No trap.
                self.cpus.insert(context, next);
                return;
            }
            Some(Op::Hang) => {
                self.now = self.now + limit.saturating_sub(TICK);
                return;
            }
            Some(Op::Jump(to)) => {
                next.pc = 4 * to as u64;
                Some(0)
            }
            Some(Op::Checksum) => {
                let word = self.local(local::INBOX, Double, None).unwrap();
                next.x = cpu.x.wrapping_mul(31).wrapping_add(word);
                Some(0)
            }
            Some(Op::Filter) => {
                let word = self.local(local::INBOX, Double, None).unwrap();
                next.x = (cpu.x / 2).wrapping_add(word / 2);
                Some(0)
            }
            Some(Op::Outbox) => self.local(local::OUTBOX, Double, Some(cpu.x)),
            Some(Op::Set(offset, value)) => self.local(offset, Word, Some(value.into())),
            Some(Op::Doorbell) => {
                let bell = u64::from(local_interrupt::DOORBELL);
                if self.local(local::PENDING, Word, None).unwrap() & bell != 0 {
                    self.local(local::ACKNOWLEDGE, Word, Some(bell))
                } else {
                    next.pc = cpu.pc;
                    self.device.waits();
                    Some(0)
                }
            }
            Some(Op::Exit) => self.local(local::EXIT, Word, Some(cpu.x & 0xffff_ffff)),
            Some(Op::Local(offset, width, write)) => {
                let answer = self.local(offset, width, write);
                if write.is_none() {
                    next.x = answer.unwrap_or(next.x);
                }
                answer
            }
            Some(Op::Crash) | None => None,
        };
        if answer.is_none() {
            self.device.crashed(0x9200_0010, 0xdead, cpu.pc);
        }
        self.cpus.insert(context, next);
        self.ask();
    }

    fn local(&mut self, offset: u64, width: Width, write: Option<u64>) -> Option<u64> {
        self.device.local_access(offset, width, write)
    }

    /// Loads firmware.
    pub fn load(&mut self, context: u32, image: &[Op]) {
        self.images.insert(context, image.to_vec());
    }
}

/// The framework's side. The core goes on meanwhile.
impl Hardware for Core {
    fn read(&mut self, window: usize, offset: u64, width: Width) -> u64 {
        assert_eq!(window, 0);
        self.advance(TICK);
        self.device.read(offset, width)
    }

    fn write(&mut self, window: usize, offset: u64, width: Width, value: u64) {
        assert_eq!(window, 0);
        self.advance(TICK);
        self.device.write(offset, width, value);
        self.look_for_kick();
    }

    fn now(&self) -> Instant {
        self.now
    }
}
