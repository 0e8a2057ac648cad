//! A firmware core that runs the firmwares' own code, at once and in this process, and can be told to go wrong.
//!
//! An image is its name as text; starting looks at the image memory for it.

use super::host::{Host, Window};
use coproc_core::paravirtual;
use fw_core_abi::{
    GRANT_BASE, GRANT_END, ID, IMAGE_BASE, IMAGE_SIZE, SHARED_BASE, SHARED_SIZE, control, host,
    interrupt, status,
};
use fw_logic::engine::{Checksums, Converter, Engine, Platform};
use fw_logic::probes::{
    Expectation, LEAKED, LOST, PROBED, PROBES, REPORTS, ROUNDS, WENT_THROUGH, came, task,
};
use fw_logic::protocol::{READY, WORK, exit, kind};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// After 20 jobs the firmware begins anew: its context was lost.
    ContextLost,
    /// A bit of each granted byte is another.
    Grant,
    /// The output of the first job of each doorbell changes afterwards.
    Output,
    /// The firmware crashes at its 20th doorbell.
    Crash,
    /// It never hears the doorbell.
    Deaf,
    /// No interrupt ever comes.
    Silent,
    /// Accesses outside go through.
    Open,
    /// Every grant holds.
    Generous,
    /// A probe that must be undefined isn't.
    Hole,
    /// A register isn't zero at start.
    Leak,
    /// The domain loses the core.
    Lost,
    /// It doesn't load what is written.
    ImageRot,
}

const RAM: u64 = 0x4000_0000;
const RAM_END: u64 = 0x4040_0000;
const GRANT_AT: u64 = RAM + 0x20_0000;
const GRANT_LEN: usize = 0x1_0000;

enum Running {
    Nothing,
    Checksum(Box<Engine<Checksums>>),
    Filter(Box<Engine<Converter>>),
    Spinning,
    Hostile,
    Meter,
}

/// All memories, and what the firmware did to them.
struct Memory {
    registers: Vec<u8>,
    image: Vec<u8>,
    shared: Vec<u8>,
    ram: Vec<u8>,
    grants: [Option<(u64, u64, u64)>; host::GRANTS as usize],
    pending: u32,
    fault: Fault,
}

pub struct Model {
    memory: Memory,
    running: Running,
    /// Rung, and not yet served: the firmware works while the domain waits.
    rung: bool,
    doorbells: u32,
    events: u32,
    masked: bool,
    clock: Duration,
    lost: bool,
    pub lines: Rc<RefCell<Vec<String>>>,
}

impl Memory {
    fn window(&mut self, window: Window) -> &mut Vec<u8> {
        match window {
            Window::Registers => &mut self.registers,
            Window::Image => &mut self.image,
            Window::Shared => &mut self.shared,
        }
    }

    fn set(&mut self, window: Window, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        self.window(window)[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn get(&mut self, window: Window, offset: u64) -> u64 {
        let offset = offset as usize;
        let bytes = &self.window(window)[offset..offset + 8];
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    fn register(&mut self, offset: u64) -> u64 {
        self.get(Window::Registers, offset)
    }

    fn raise(&mut self, bits: u32) {
        self.pending |= bits;
    }

    fn end(&mut self, status: u32, code: u32, address: u64) {
        let registers = Window::Registers;
        self.set(registers, host::STATUS, &status.to_le_bytes());
        self.set(registers, host::EXIT_CODE, &code.to_le_bytes());
        self.set(registers, host::CRASH_ADDRESS, &address.to_le_bytes());
        self.raise(interrupt::ENDED);
    }

    /// The granted byte of RAM that the firmware sees at an address.
    fn granted(&self, address: u64) -> Option<usize> {
        let grants = self.grants.iter().flatten();
        grants
            .filter(|(_, size, target)| address.checked_sub(*target).is_some_and(|at| at < *size))
            .map(|(at, _, target)| (at + address - target - RAM) as usize)
            .next()
    }

    fn seen(&self, address: u64) -> bool {
        (IMAGE_BASE..IMAGE_BASE + IMAGE_SIZE).contains(&address)
            || (SHARED_BASE..SHARED_BASE + SHARED_SIZE).contains(&address)
            || self.granted(address).is_some()
    }

    fn grant(&mut self, index: usize, on: bool) {
        let at = host::GRANT + index as u64 * host::GRANT_STRIDE;
        let grant = [host::GRANT_ADDRESS, host::GRANT_SIZE, host::GRANT_TARGET]
            .map(|offset| self.register(at + offset));
        let [address, size, target] = grant;
        let inside = |start: u64, from: u64, to: u64| {
            start >= from && start.checked_add(size).is_some_and(|end| end <= to)
        };
        let overlaps = self.grants.iter().flatten().any(|(_, other, at)| {
            target < at.saturating_add(*other) && *at < target.saturating_add(size)
        });
        let stopped = self.register(host::STATUS) as u32 != status::RUNNING;
        if !on {
            if stopped {
                self.grants[index] = None;
            }
        } else {
            let good = size > 0
                && grant.iter().all(|value| value % 4096 == 0)
                && inside(address, RAM, RAM_END)
                && inside(target, GRANT_BASE, GRANT_END)
                && !overlaps
                && stopped;
            if good || self.fault == Fault::Generous {
                self.grants[index] = Some((address, size, target));
            }
        }
        let holds = u32::from(self.grants[index].is_some());
        self.set(
            Window::Registers,
            at + host::GRANT_CONTROL,
            &holds.to_le_bytes(),
        );
    }
}

impl Platform for Memory {
    fn read32(&mut self, address: u64) -> u32 {
        let offset = (address - SHARED_BASE) as usize;
        u32::from_le_bytes(self.shared[offset..offset + 4].try_into().expect("four"))
    }

    fn read64(&mut self, address: u64) -> u64 {
        if address < GRANT_BASE {
            return self.get(Window::Shared, address - SHARED_BASE);
        }
        let at = self.granted(address).expect("granted");
        let value = u64::from_le_bytes(self.ram[at..at + 8].try_into().expect("eight"));
        value ^ u64::from(self.fault == Fault::Grant)
    }

    fn write32(&mut self, address: u64, value: u32) {
        self.set(Window::Shared, address - SHARED_BASE, &value.to_le_bytes());
    }

    fn write64(&mut self, address: u64, value: u64) {
        self.set(Window::Shared, address - SHARED_BASE, &value.to_le_bytes());
    }

    fn barrier(&mut self) {}

    fn notify(&mut self, word: u64) {
        self.set(Window::Registers, host::OUTBOX, &word.to_le_bytes());
        self.raise(interrupt::OUTBOX);
    }

    fn critical(&mut self, _: bool) {}

    fn breathe(&mut self) {}
}

impl Model {
    pub fn new(fault: Fault) -> Self {
        let mut memory = Memory {
            registers: vec![0; 0x1000],
            image: vec![0; IMAGE_SIZE as usize],
            shared: vec![0; SHARED_SIZE as usize],
            ram: vec![0; (RAM_END - RAM) as usize],
            grants: [None; host::GRANTS as usize],
            pending: 0,
            fault,
        };
        memory.set(Window::Registers, host::ID, &ID.to_le_bytes());
        Self {
            memory,
            running: Running::Nothing,
            rung: false,
            doorbells: 0,
            events: 0,
            masked: false,
            clock: Duration::ZERO,
            lost: false,
            lines: Rc::default(),
        }
    }

    fn assert_interrupt(&mut self) {
        if self.memory.pending != 0 && !self.masked {
            self.masked = true;
            self.events += 1;
        }
    }

    fn start(&mut self) {
        let entry = self.memory.register(host::ENTRY);
        if self.memory.register(host::STATUS) as u32 == status::RUNNING {
            return;
        }
        let running = status::RUNNING.to_le_bytes();
        self.memory.set(Window::Registers, host::STATUS, &running);
        if entry != IMAGE_BASE {
            return self.memory.end(status::CRASHED, 0, entry);
        }
        let end = self.memory.image.iter().position(|byte| *byte == 0);
        let name = String::from_utf8_lossy(&self.memory.image[..end.unwrap_or(0)]).into_owned();
        let (running, kind) = match name.as_str() {
            "checksum" => (
                Running::Checksum(Box::new(Engine::new(Checksums::default()))),
                kind::CHECKSUM,
            ),
            "filter" => (
                Running::Filter(Box::new(Engine::new(Converter::default()))),
                kind::FILTER,
            ),
            "meter" => (Running::Meter, kind::METER),
            "hung" => (Running::Spinning, kind::HUNG),
            "refuses" => (Running::Spinning, kind::REFUSES),
            "hostile" => (Running::Hostile, kind::HOSTILE),
            other => panic!("no firmware '{other}'"),
        };
        self.running = running;
        self.memory.notify(READY | u64::from(kind));
        if matches!(self.running, Running::Hostile) {
            self.hostile();
        }
    }

    fn hostile(&mut self) {
        let inbox = self.memory.register(host::INBOX);
        let open = self.memory.fault == Fault::Open;
        match self.memory.register(host::ARGUMENT) {
            task::EXIT => self.memory.end(status::EXITED, inbox as u32, 0),
            task::PANIC => self.memory.end(status::EXITED, exit::PANIC, 0),
            task::READ | task::WRITE | task::BRANCH => {
                if self.memory.seen(inbox) || open {
                    self.memory.notify(WENT_THROUGH);
                } else {
                    self.memory.end(status::CRASHED, 0, inbox);
                }
            }
            _ => {
                for (at, (_, expectation)) in (REPORTS..).step_by(16).zip(PROBES) {
                    let came = match expectation {
                        Expectation::Undefined => came::UNDEFINED,
                        _ => came::EXECUTED,
                    };
                    self.memory.write64(SHARED_BASE + at, came);
                    self.memory.write64(SHARED_BASE + at + 8, 0);
                }
                if self.memory.fault == Fault::Hole {
                    self.memory.write64(SHARED_BASE + REPORTS, came::EXECUTED);
                }
                let leaked = u64::from(self.memory.fault == Fault::Leak);
                self.memory.write64(SHARED_BASE + LEAKED, leaked);
                self.memory.write64(SHARED_BASE + LOST, leaked);
                self.memory.notify(PROBED);
            }
        }
    }

    fn ring(&mut self) {
        self.doorbells += 1;
        let fault = self.memory.fault;
        if fault == Fault::Deaf {
            return;
        }
        if fault == Fault::Crash && self.doorbells == 20 {
            return self.memory.end(status::CRASHED, 0, 0x1234);
        }
        let result = match &mut self.running {
            Running::Checksum(engine) => {
                if fault == Fault::ContextLost && self.doorbells == 20 {
                    engine.forget();
                }
                engine.serve(&mut self.memory)
            }
            Running::Filter(engine) => {
                if fault == Fault::ContextLost && self.doorbells == 20 {
                    engine.forget();
                }
                engine.serve(&mut self.memory)
            }
            _ => Ok(0),
        };
        if fault == Fault::Output {
            for slot in 0..4 {
                let at = fw_logic::protocol::data(slot) + fw_logic::protocol::OUTPUT_OFFSET;
                let byte = &mut self.memory.shared[at as usize];
                *byte = byte.wrapping_add(1);
            }
        }
        if let Err(code) = result {
            self.memory.end(status::EXITED, code, 0);
        }
    }

    fn register_written(&mut self, offset: u64, value: u64) {
        match offset {
            host::CONTROL if value == u64::from(control::START) => self.start(),
            host::CONTROL => {
                self.running = Running::Nothing;
                let stopped = status::STOPPED.to_le_bytes();
                self.memory.set(Window::Registers, host::STATUS, &stopped);
                self.memory.set(Window::Registers, host::OUTBOX, &[0; 8]);
            }
            host::DOORBELL => self.rung = true,
            host::INTERRUPT_ACKNOWLEDGE => self.memory.pending &= !(value as u32),
            _ if offset >= host::GRANT => {
                let (index, field) = (
                    (offset - host::GRANT) / host::GRANT_STRIDE,
                    (offset - host::GRANT) % host::GRANT_STRIDE,
                );
                if field == host::GRANT_CONTROL {
                    self.memory.grant(index as usize, value == 1);
                }
            }
            _ => {}
        }
        self.assert_interrupt();
    }
}

impl Host for Model {
    fn read32(&mut self, window: Window, offset: u64) -> u32 {
        if self.lost {
            return u32::MAX;
        }
        if window == Window::Registers && offset == host::INTERRUPT_STATUS {
            return self.memory.pending;
        }
        let offset = offset as usize;
        let bytes = &self.memory.window(window)[offset..offset + 4];
        u32::from_le_bytes(bytes.try_into().expect("four bytes"))
    }

    fn read64(&mut self, window: Window, offset: u64) -> u64 {
        if self.lost {
            return u64::MAX;
        }
        if window == Window::Shared && matches!(offset, WORK | ROUNDS) {
            // As if it had worked in the meantime.
            let value = self.memory.get(window, offset) + 7;
            self.memory.set(window, offset, &value.to_le_bytes());
        }
        self.memory.get(window, offset)
    }

    fn write32(&mut self, window: Window, offset: u64, value: u32) {
        if self.lost {
            return;
        }
        let grant_control = window == Window::Registers
            && offset >= host::GRANT
            && (offset - host::GRANT) % host::GRANT_STRIDE == host::GRANT_CONTROL;
        let stored = match offset {
            // What isn't offered doesn't stick.
            o if o == host::PARAVIRTUAL + paravirtual::register::ACCEPTED => value & 1,
            _ => value,
        };
        if !grant_control {
            self.memory.set(window, offset, &stored.to_le_bytes());
        }
        if window == Window::Registers {
            self.register_written(offset, value.into());
        }
    }

    fn write64(&mut self, window: Window, offset: u64, value: u64) {
        if self.lost {
            return;
        }
        let rot =
            self.memory.fault == Fault::ImageRot && window == Window::Image && offset == 0x800;
        let value = value ^ u64::from(rot);
        self.memory.set(window, offset, &value.to_le_bytes());
    }

    fn barrier(&mut self) {}

    fn wait_interrupt(&mut self, limit: Duration) -> io::Result<u32> {
        if std::mem::take(&mut self.rung) {
            self.ring();
            self.clock += Duration::from_micros(100);
            self.assert_interrupt();
        }
        if self.memory.fault == Fault::Silent {
            self.events = 0;
        }
        if self.events == 0 {
            self.clock += limit;
            let spinning = matches!(self.running, Running::Spinning);
            self.lost |= spinning && self.memory.fault == Fault::Lost;
        }
        Ok(std::mem::take(&mut self.events))
    }

    fn unmask_interrupt(&mut self) -> io::Result<()> {
        self.masked = false;
        self.assert_interrupt();
        Ok(())
    }

    fn grant_len(&self) -> usize {
        GRANT_LEN
    }

    fn grant_address(&mut self) -> io::Result<u64> {
        Ok(GRANT_AT)
    }

    fn grant_store(&mut self, offset: usize, bytes: &[u8]) {
        let at = (GRANT_AT - RAM) as usize + offset;
        self.memory.ram[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn firmware(&mut self, name: &str) -> io::Result<Vec<u8>> {
        Ok(name.as_bytes().to_vec())
    }

    fn now(&self) -> Duration {
        self.clock
    }

    fn sleep(&mut self, time: Duration) {
        self.clock += time;
    }

    fn print(&mut self, line: &str) {
        self.lines.borrow_mut().push(line.to_owned());
    }
}
