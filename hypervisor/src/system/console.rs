//! The one UART, shared by Baton and all domains.
//!
//! Messages are collected in a buffer of their own, because a message may be logged under any lock, while the console, which
//! carries out commands, comes before all locks. Whoever leaves EL2 moves what has collected on.

use super::domain::Domain;
use super::{management, schedule};
use crate::arch::{cpu, timer};
use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use coproc_core::id::DomainId;
use coproc_core::time::Instant;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use hypervisor::console::session::{Door, Port, Session};
use hypervisor::console::{Console, Event};
use hypervisor::management_port::ManagementPort;
use platforms::uart::Uart;
use spin::{Mutex, Once};

/// Bytes of messages that wait; what doesn't fit is lost, and said to be.
const MESSAGES: usize = 16 << 10;
/// Bytes given to the UART in one go: its FIFO has 8 to 32.
const BURST: usize = 64;
const NEVER: u64 = u64::MAX;

struct Face {
    console: Console,
    uart: Box<dyn Uart>,
    /// A byte that found no room.
    held: Option<u8>,
    /// For each domain, in the order of the system's, what its management port is being answered.
    sessions: Vec<Session>,
}

/// A board without a UART, or with one that has no driver: whoever manages Baton from a domain is answered all the same.
struct Nowhere;

impl Uart for Nowhere {
    fn listen(&mut self) {}

    fn notify_room(&mut self, _wanted: bool) {}

    fn acknowledge(&mut self) {}

    fn try_send(&mut self, _byte: u8) -> bool {
        true
    }

    fn receive(&mut self) -> Option<u8> {
        None
    }
}

/// A domain's management port.
struct PortOf<'a>(&'a Domain, &'a Mutex<ManagementPort>);

impl Door for PortOf<'_> {
    fn with<R>(&self, how: impl FnOnce(&mut Port) -> R) -> R {
        self.0.at_port(self.1, |port| port.with(how))
    }
}

static FACE: Once<Mutex<Face>> = Once::new();
static MESSAGE_BUFFER: Mutex<(VecDeque<u8>, u64)> = Mutex::new((VecDeque::new(), 0));
static BUSY: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(NEVER);

/// Something has collected, or somebody asks: this CPU moves it on before it resumes a guest.
pub fn mark_busy() {
    BUSY.store(true, Ordering::Release);
    cpu::current().demand();
}

struct Buffer<'a>(&'a mut (VecDeque<u8>, u64));

impl Write for Buffer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (bytes, lost) = &mut *self.0;
        if bytes.len().saturating_add(text.len()) > MESSAGES {
            *lost = lost.saturating_add(text.len() as u64);
        } else {
            bytes.extend(text.bytes());
        }
        Ok(())
    }
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut messages = MESSAGE_BUFFER.lock();
        let mark = match record.level() {
            log::Level::Error => "error: ",
            log::Level::Warn => "warning: ",
            _ => "",
        };
        let _ = writeln!(Buffer(&mut messages), "{mark}{}", record.args());
        mark_busy();
    }

    fn flush(&self) {}
}

/// Takes messages from now on; they show when there is a UART.
pub fn start_log() {
    static LOGGER: Logger = Logger;
    MESSAGE_BUFFER.lock().0.reserve(MESSAGES);
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
}

/// Shows everything on this UART, or nowhere.
pub fn start(uart: Option<Box<dyn Uart>>) {
    let uart = uart.unwrap_or_else(|| Box::new(Nowhere));
    FACE.call_once(|| {
        Mutex::new(Face {
            console: Console::new(),
            uart,
            held: None,
            sessions: Vec::new(),
        })
    });
    flush();
}

/// Gives a domain its place, at boot. One that comes later gets it when the console is looked after.
pub fn add_domain(domain: DomainId) {
    if let Some(face) = FACE.get() {
        face.lock().console.add_domain(domain);
    }
}

/// Listens for input and shows the prompt.
pub fn listen() {
    if let Some(face) = FACE.get() {
        let mut face = face.lock();
        face.uart.listen();
        face.console.start(timer::now());
        mark_busy();
    }
}

/// A domain's UART sent a byte.
pub fn write_domain(domain: DomainId, byte: u8) {
    if let Some(face) = FACE.get() {
        face.lock()
            .console
            .write_domain(domain, &[byte], timer::now());
        mark_busy();
    }
}

/// The UART interrupts: bytes came, or there is room.
pub fn receive() {
    let Some(face) = FACE.get() else {
        return;
    };
    loop {
        let event = {
            let mut face = face.lock();
            face.uart.acknowledge();
            match face.uart.receive() {
                Some(byte) => face.console.input(byte, timer::now()),
                None => break,
            }
        };
        if let (Event::ToDomain(id, bytes), Some(system)) = (event, super::get()) {
            for domain in system.domains.all().filter(|domain| domain.id == id) {
                if let Some(uart) = &domain.uart {
                    for byte in &bytes {
                        uart.lock().deliver(*byte);
                    }
                }
                domain.refresh_uart();
            }
        }
    }
    mark_busy();
}

/// Moves on what has collected, a bounded amount. Cheap when there is nothing: every exit that isn't short comes here.
#[inline(always)]
pub fn service() {
    let due = NEXT.load(Ordering::Relaxed);
    if BUSY.load(Ordering::Acquire) || (due != NEVER && timer::now().as_nanos() >= due) {
        work();
    }
}

#[cold]
#[inline(never)]
fn work() {
    // Another CPU is at it already: it will see what this one has left, or the next exit does.
    let Some(mut face) = FACE.get().and_then(Mutex::try_lock) else {
        cpu::current().demand();
        return;
    };
    BUSY.store(false, Ordering::Release);
    let rest = pass(&mut face);
    if rest.more {
        mark_busy();
    }
    face.uart.notify_room(rest.room);
    let next = face.console.next_flush().map_or(NEVER, Instant::as_nanos);
    if NEXT.swap(next, Ordering::Relaxed) != next {
        schedule::rearm();
    }
}

/// What a pass left.
struct Rest {
    /// Bytes that wait for room in the UART.
    room: bool,
    /// These or others.
    more: bool,
}

/// One pass.
fn pass(face: &mut Face) -> Rest {
    let now = timer::now();
    for domain in super::domains().skip(face.console.domains()) {
        face.console.add_domain(domain.id);
    }
    {
        let mut messages = MESSAGE_BUFFER.lock();
        let (bytes, lost) = &mut *messages;
        let (first, second) = bytes.as_slices();
        face.console.log(first, now);
        face.console.log(second, now);
        bytes.clear();
        if *lost != 0 {
            let mut text = arrayvec::ArrayString::<64>::new();
            let _ = writeln!(text, "({lost} bytes of messages lost)");
            face.console.log(text.as_bytes(), now);
            *lost = 0;
        }
    }
    face.console.flush_idle(now);
    let more = answer_domains(&mut face.sessions, now);
    let mut answering = face.console.poll(&mut management::Face(None), now);
    for _ in 0..BURST {
        let Some(byte) = face.held.take().or_else(|| face.console.next_byte()) else {
            if answering {
                answering = face.console.poll(&mut management::Face(None), now);
                continue;
            }
            return Rest { room: false, more };
        };
        if !face.uart.try_send(byte) {
            face.held = Some(byte);
            break;
        }
    }
    Rest {
        room: true,
        more: true,
    }
}

/// Goes on with what domains asked at their management ports, a step each. Returns whether there is more to do.
fn answer_domains(sessions: &mut Vec<Session>, now: Instant) -> bool {
    let Some(system) = super::get() else {
        return false;
    };
    let mut more = false;
    sessions.resize_with(system.domains.len(), Session::default);
    for (domain, session) in system.domains.all().zip(sessions) {
        if let Some(port) = &domain.management {
            let changed = |line: &str| log::info!("{}: {line}", domain.id);
            let port = PortOf(domain, port);
            more |= session.poll(&port, &mut management::Face(Some(domain.id)), now, changed);
        }
    }
    more
}

/// Shows everything that has collected, however long it takes: at boot, when nothing else can run.
pub fn flush() {
    if let Some(face) = FACE.get() {
        let mut face = face.lock();
        let mut rounds = 0u32;
        while pass(&mut face).more && rounds < 100_000 {
            rounds = rounds.saturating_add(1);
        }
    }
}

/// When an unfinished line is to be shown.
pub fn next_deadline() -> Option<Instant> {
    let next = NEXT.load(Ordering::Relaxed);
    (next != NEVER).then(|| Instant::from_nanos(next))
}
