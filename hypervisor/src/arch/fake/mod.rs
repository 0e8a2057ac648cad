//! A machine for host tests: what is below `arch` there.
//!
//! Its CPUs are threads that run Baton as it is, down to single instructions; RAM is the host's, at the addresses that EL2's linear mapping has; devices are
//! those of [`devices`]. What EL2 does is noted ([`Event`]), so that a test can show by it what no emulator shows: that barriers and maintenance are where
//! they must be. What *can* be carried out is: EL2's own tables are walked for each of its accesses, and TLBs ([`tlb`]) forget only what they're told to.
//!
//! Guests are the test: a CPU that resumed one waits until it is told which exception the guest takes ([`Cpu::exit`]).
//! There is one machine in a process, as Baton has one system: so each test has a process ([`in_own_process`]).

pub mod devices;
pub mod firmware;
pub mod gic;
pub mod image;
mod system_registers;
pub mod tlb;
mod vectors;
mod walk;

use super::exits::Registers;
use super::mmu::DIRECT_BASE;
use super::processor::by_name;
use coproc_core::register::Width;
use devices::Devices;
use hypervisor::processor::Register;
use hypervisor::processor::fake::Step;
use hypervisor::vgic::Version;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};
use std::vec::Vec;

/// Bytes that `DC ZVA` fills.
pub const BLOCK: usize = 64;
/// Ticks of the system counter in a second.
pub const FREQUENCY: u64 = 62_500_000;

/// A GICv3's list registers.
pub const LISTS: [&str; 4] = ["ich_lr0_el2", "ich_lr1_el2", "ich_lr2_el2", "ich_lr3_el2"];

/// What a test wants of the machine.
#[derive(Clone, Debug)]
pub struct Board {
    /// Its interrupt controller.
    pub gic: Version,
    /// MIDR_EL1 of each CPU.
    pub midr: Vec<u64>,
    /// Which of SMCCC_ARCH_WORKAROUND_1 to 3 the firmware has.
    pub workarounds: &'static [u32],
    /// The other CPUs poll these words of RAM, each its own, instead of being started by the firmware.
    pub release: Option<Range<u64>>,
    /// Its RAM.
    pub ram: Range<u64>,
    /// Where the boot loader puts the image and the device tree.
    pub image: u64,
    /// The latter.
    pub tree: u64,
}

/// What EL2 does on a CPU, in order, and what besides changes what it may rely on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// An instruction of the library's sequences, or an access to one of their registers.
    Step(Step),
    /// A system register that they don't know was read.
    Read(&'static str),
    /// Likewise written.
    Write(&'static str, u64),
    /// A device's register was loaded from, by its physical address.
    Load(u64, u64),
    /// Likewise stored to.
    Store(u64, u64),
    /// RAM was stored to.
    Stored {
        /// Where EL2 sees it.
        address: usize,
        /// How much of it.
        bytes: usize,
    },
    /// EL2's own tables were changed for others.
    Tables(u64),
    /// The firmware was called.
    Called(u32),
    /// A guest is resumed: its VTTBR_EL2, and where.
    Enter(u64, u64),
    /// A guest took an exception.
    Exit,
}

/// An exception of a guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// ESR_EL2, FAR_EL2, HPFAR_EL2.
    Synchronous(u64, u64, u64),
    /// An interrupt.
    Interrupt,
    /// An SError.
    SError,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Off,
    El2,
    Guest,
    Asleep,
}

type Task = std::boxed::Box<dyn FnOnce() + Send>;

enum Request {
    Exit(Exception),
    Run(Task),
}

/// A CPU as the machine sees it.
pub struct CpuState {
    registers: BTreeMap<&'static str, u64>,
    trace: Vec<Event>,
    mode: Mode,
    request: Option<Request>,
    guest: Registers,
    float: [u64; 66],
    tlb: tlb::Tlb,
    /// Results of an AT at EL0 and EL1.
    translations: [u64; 2],
}

/// Everything that the machine is.
pub struct State {
    board: Board,
    cpus: Vec<CpuState>,
    counter: u64,
    /// EL2's tables; none: those that it began with.
    root: Option<u64>,
    /// Pages of EL2's that were looked up, and whether they can be written.
    known: BTreeMap<usize, bool>,
    devices: Devices,
}

struct Machine {
    state: Mutex<State>,
    changed: Condvar,
}

static MACHINE: OnceLock<Machine> = OnceLock::new();

thread_local! {
    static THIS: Cell<usize> = const { Cell::new(0) };
}

fn machine() -> &'static Machine {
    MACHINE.get().expect("no machine")
}

fn lock() -> MutexGuard<'static, State> {
    match machine().state.lock() {
        Ok(state) => state,
        Err(_) => {
            // Another CPU has failed, and said why.
            std::process::abort()
        }
    }
}

/// Does something on the machine, on the CPU that this thread is.
pub fn with<T>(act: impl FnOnce(&mut State, usize) -> T) -> T {
    act(&mut lock(), THIS.get())
}

/// Whether EL2 has RAM at this address.
pub fn is_linear(address: usize) -> bool {
    (DIRECT_BASE..DIRECT_BASE + (1 << 40)).contains(&address)
}

/// WFI.
pub fn sleep() {
    let this = THIS.get();
    let mut state = lock();
    state.cpus[this].mode = Mode::Asleep;
    machine().changed.notify_all();
    loop {
        if state.interrupted(this) {
            break;
        }
        if let Some(Request::Run(task)) = state.cpus[this].request.take() {
            state.cpus[this].mode = Mode::El2;
            drop(state);
            task();
            return;
        }
        state = wait(state);
    }
    state.cpus[this].mode = Mode::El2;
}

fn wait(state: MutexGuard<'static, State>) -> MutexGuard<'static, State> {
    match machine().changed.wait(state) {
        Ok(state) => state,
        Err(_) => std::process::abort(),
    }
}

impl State {
    /// Notes what EL2 did.
    pub fn note(&mut self, this: usize, event: Event) {
        self.cpus[this].trace.push(event);
    }

    /// An instruction.
    pub fn step(&mut self, this: usize, step: Step) {
        self.note(this, Event::Step(step));
        match step {
            Step::Tlbi(which) => {
                let vttbr = self.value(this, "vttbr_el2");
                for (index, cpu) in self.cpus.iter_mut().enumerate() {
                    cpu.tlb.invalidate(which, vttbr, index == this);
                }
            }
            Step::At(who, _) => {
                let result = self.cpus[this].translations
                    [usize::from(who == hypervisor::processor::At::S1E1R)];
                self.cpus[this].registers.insert("par_el1", result);
            }
            _ => {}
        }
    }

    fn interrupted(&self, this: usize) -> bool {
        self.devices.gic.most_urgent(this, &self.levels()).is_some()
    }

    /// Interrupt inputs that are high: CPU, or none if it is shared, and number.
    fn levels(&self) -> BTreeSet<(Option<usize>, u32)> {
        let mut levels = BTreeSet::new();
        for index in 0..self.cpus.len() {
            let value = |name| self.value(index, name);
            if value("cnthp_ctl_el2") & 3 == 1 && value("cnthp_cval_el2") <= self.counter {
                levels.insert((Some(index), 26));
            }
            let now = self.counter.wrapping_sub(value("cntvoff_el2"));
            if value("cntv_ctl_el0") & 3 == 1 && value("cntv_cval_el0") <= now {
                levels.insert((Some(index), 27));
            }
        }
        if self.devices.uart.asserts() {
            levels.insert((None, 33));
        }
        if self.devices.accumulator_asserts() {
            levels.insert((None, devices::ACCUMULATOR_INTERRUPT));
        }
        levels
    }

    fn is_quiet(&self) -> bool {
        self.cpus.iter().enumerate().all(|(index, cpu)| {
            cpu.request.is_none()
                && match cpu.mode {
                    Mode::Off => true,
                    Mode::El2 => false,
                    Mode::Guest | Mode::Asleep => !self.interrupted(index),
                }
        })
    }
}

/// Starts the machine with what the boot loader put into RAM; returns when all CPUs have come to rest.
pub fn boot(board: Board, loaded: &[(u64, Vec<u8>)]) {
    let ram = board.ram.clone();
    map(
        DIRECT_BASE + ram.start as usize,
        (ram.end - ram.start) as usize,
    );
    for (address, bytes) in loaded {
        assert!(ram.start <= *address && address + bytes.len() as u64 <= ram.end);
        // SAFETY: it was just mapped, and nothing else uses it yet.
        unsafe {
            let to = (DIRECT_BASE + *address as usize) as *mut u8;
            core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
        }
    }
    let cpus = (0..board.midr.len()).map(|index| CpuState {
        registers: system_registers::after_reset(&board, index),
        trace: Vec::new(),
        mode: Mode::Off,
        request: None,
        guest: Registers::default(),
        float: [0; 66],
        tlb: tlb::Tlb::default(),
        translations: [1; 2],
    });
    let (tree, image) = (board.tree, board.image);
    let state = State {
        cpus: cpus.collect(),
        counter: 1_000_000,
        root: None,
        known: BTreeMap::new(),
        devices: Devices::new(&board),
        board,
    };
    let machine = Machine {
        state: Mutex::new(state),
        changed: Condvar::new(),
    };
    assert!(MACHINE.set(machine).is_ok(), "one machine in a process");
    switch_on(0, move || {
        super::boot::baton_start(tree, image);
    });
    settle();
}

/// SEV: CPUs that poll look again.
pub fn wake() {
    let begin = with(|state, _| {
        let release = state.board.release.clone()?;
        let entry = state.board.image + image::secondary();
        let mut others = (1..state.cpus.len()).zip(release.step_by(8));
        others
            .find(|(index, word)| {
                state.cpus[*index].mode == Mode::Off && state.ram_word(*word) == entry
            })
            .map(|(index, _)| index)
    });
    if let Some(index) = begin {
        firmware::begin(index as u64);
    }
}

/// A CPU begins.
fn switch_on(index: usize, first: impl FnOnce() + Send + 'static) {
    with(|state, _| state.cpus[index].mode = Mode::El2);
    let thread = std::thread::Builder::new().name(std::format!("CPU {index}"));
    thread
        .stack_size(8 << 20)
        .spawn(move || {
            THIS.set(index);
            first()
        })
        .expect("a thread");
}

fn map(address: usize, bytes: usize) {
    let how =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: new memory where none was.
    let mapped = unsafe {
        libc::mmap(
            address as *mut libc::c_void,
            bytes,
            libc::PROT_READ | libc::PROT_WRITE,
            how,
            -1,
            0,
        )
    };
    assert_eq!(
        mapped as usize,
        address,
        "{}",
        std::io::Error::last_os_error()
    );
}

/// Waits until no CPU has anything to do by itself.
pub fn settle() {
    let limit = Instant::now() + Duration::from_secs(120);
    let mut state = lock();
    while !state.is_quiet() {
        let left = limit.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let modes: Vec<Mode> = state.cpus.iter().map(|cpu| cpu.mode).collect();
            let text = state.devices.uart.text();
            panic!("the CPUs go on and on: {modes:?}\n{text}");
        }
        state = match machine().changed.wait_timeout(state, left) {
            Ok((state, _)) => state,
            Err(_) => std::process::abort(),
        };
    }
}

/// Time goes by while all CPUs wait, and they do what is due then.
pub fn pass(time: Duration) {
    settle();
    let until = with(|state, _| state.counter) + time.as_nanos() as u64 * FREQUENCY / 1_000_000_000;
    loop {
        let done = with(|state, _| {
            state.counter = state
                .next_timer()
                .clamp(state.counter, until.max(state.counter));
            state.devices.advance(state.counter);
            state.counter >= until
        });
        machine().changed.notify_all();
        settle();
        if done {
            return;
        }
    }
}

impl State {
    fn next_timer(&self) -> u64 {
        let all = (0..self.cpus.len()).flat_map(|index| {
            let value = |name| self.value(index, name);
            let hypervisor = (value("cnthp_ctl_el2") & 3 == 1).then(|| value("cnthp_cval_el2"));
            let virt = (value("cntv_ctl_el0") & 3 == 1)
                .then(|| value("cntv_cval_el0").wrapping_add(value("cntvoff_el2")));
            [hypervisor, virt].into_iter().flatten()
        });
        // One that has fired already waits for something else.
        let next = all.filter(|at| *at > self.counter).min();
        // And devices do something by themselves now and then.
        let device = self.counter + FREQUENCY / 1000;
        next.map_or(device, |at| at.min(device))
    }
}

/// What was noted until now is noted no more.
pub fn forget() {
    with(|state, _| state.cpus.iter_mut().for_each(|cpu| cpu.trace.clear()));
}

/// The system counter.
pub fn counter() -> u64 {
    with(|state, _| state.counter)
}

/// What came out of the UART.
pub fn console() -> std::string::String {
    with(|state, _| state.devices.uart.text())
}

/// Somebody types.
pub fn type_in(text: &str) {
    with(|state, _| state.devices.uart.input.extend(text.bytes()));
    machine().changed.notify_all();
    settle();
}

/// The CPU with this number.
#[derive(Clone, Copy, Debug)]
pub struct Cpu(pub usize);

impl Cpu {
    /// What it has done, from an event on.
    pub fn trace(self, from: usize) -> Vec<Event> {
        with(|state, _| state.cpus[self.0].trace[from..].to_vec())
    }

    /// Number of its events.
    pub fn events(self) -> usize {
        with(|state, _| state.cpus[self.0].trace.len())
    }

    /// Whether it runs a guest.
    pub fn is_in_guest(self) -> bool {
        with(|state, _| state.cpus[self.0].mode == Mode::Guest)
    }

    /// Whether it sleeps.
    pub fn is_asleep(self) -> bool {
        with(|state, _| state.cpus[self.0].mode == Mode::Asleep)
    }

    /// The general registers of the guest that it runs.
    pub fn guest(self) -> Registers {
        assert!(self.is_in_guest());
        with(|state, _| state.cpus[self.0].guest.clone())
    }

    /// The guest changes them.
    pub fn set_guest(self, change: impl FnOnce(&mut Registers)) {
        assert!(self.is_in_guest());
        with(|state, _| change(&mut state.cpus[self.0].guest));
    }

    /// The guest, or who else is asked, has this in a system register.
    pub fn register(self, name: &'static str) -> u64 {
        with(|state, _| state.value(self.0, name))
    }

    /// The guest writes one, or somebody before Baton.
    pub fn set_register(self, name: &'static str, value: u64) {
        with(|state, _| state.cpus[self.0].registers.insert(name, value));
    }

    /// The registers that the library's sequences know, as they are now.
    pub fn registers(self) -> Vec<(Register, u64)> {
        with(|state, _| {
            let all = state.cpus[self.0].registers.iter();
            all.filter_map(|(name, value)| Some((by_name(name)?, *value)))
                .collect()
        })
    }

    /// Pages that its TLB has of the guest with this VTTBR_EL2.
    pub fn remembers(self, vttbr: u64) -> usize {
        with(|state, _| state.cpus[self.0].tlb.pages(vttbr).count())
    }

    /// Whether a physical interrupt of its own, or a shared one, is active.
    pub fn is_active(self, intid: u32) -> bool {
        with(|state, _| state.devices.gic.is_active(self.0, intid))
    }

    /// The guest takes an interrupt that a list register of a GICv3 has pending, or ends an active one, as its CPU interface would have it: what is linked to a
    /// physical one is deactivated with it. Returns whether there was such a list register.
    pub fn guest_acts(self, intid: u64, ends: bool) -> bool {
        const HARDWARE: u64 = 1 << 61;
        let wanted = if ends { 2 } else { 1 };
        let found = with(|state, _| {
            for name in LISTS {
                let value = state.value(self.0, name);
                if value & 0xffff_ffff == intid && value >> 62 == wanted {
                    let rest = value & !(3 << 62);
                    let value = if ends { rest } else { rest | 2 << 62 };
                    state.cpus[self.0].registers.insert(name, value);
                    if ends && value & HARDWARE != 0 {
                        let physical = (value >> 32) as u32 & 0x3ff;
                        state.devices.gic.deactivate(self.0, physical);
                    }
                    return true;
                }
            }
            false
        });
        machine().changed.notify_all();
        settle();
        found
    }

    /// Its FP and SIMD registers.
    pub fn float(self) -> [u64; 66] {
        with(|state, _| state.cpus[self.0].float)
    }

    /// The guest, which may, fills them.
    pub fn set_float(self, value: u64) {
        assert_eq!(self.register("cptr_el2") & 1 << 10, 0, "it traps");
        with(|state, _| state.cpus[self.0].float = [value; 66]);
    }

    /// What an AT finds from now on: at EL0 and at EL1.
    pub fn set_translations(self, results: [u64; 2]) {
        with(|state, _| state.cpus[self.0].translations = results);
    }

    /// The guest takes an exception; returns when all is quiet again.
    pub fn exit(self, exception: Exception) {
        assert!(self.is_in_guest());
        self.ask(Request::Exit(exception));
    }

    /// EL2 does something on it.
    pub fn run(self, task: impl FnOnce() + Send + 'static) {
        self.ask(Request::Run(std::boxed::Box::new(task)));
    }

    fn ask(self, request: Request) {
        with(|state, _| state.cpus[self.0].request = Some(request));
        machine().changed.notify_all();
        settle();
    }

    /// The guest loads a word, by this CPU's TLB and its tables. `None`: a fault of stage 2.
    pub fn guest_load(self, address: u64) -> Option<u64> {
        assert!(self.is_in_guest());
        with(|state, _| {
            let at = state.guest_address(self.0, address)?;
            Some(state.ram_word(at))
        })
    }

    /// The guest loads from a register of 32 bits that it has mapped, or stores to it (`value`). `None`: a fault of stage 2.
    pub fn guest_register(self, address: u64, value: Option<u64>) -> Option<u64> {
        assert!(self.is_in_guest());
        let found = with(|state, _| {
            let at = state.guest_address(self.0, address)?;
            state.devices.advance(state.counter);
            Some(match value {
                Some(value) => {
                    state.devices.store(self.0, at, Width::Word, value);
                    0
                }
                None => state
                    .devices
                    .load(self.0, at, Width::Word, &BTreeSet::new()),
            })
        });
        machine().changed.notify_all();
        found
    }

    /// The guest stores a word.
    pub fn guest_store(self, address: u64, value: u64) -> Option<()> {
        assert!(self.is_in_guest());
        with(|state, _| {
            let at = state.guest_address(self.0, address)?;
            assert!(state.board.ram.contains(&at), "{at:#x} isn't RAM");
            // SAFETY: RAM is mapped, and no Rust object is there.
            unsafe { ((DIRECT_BASE + at as usize) as *mut u64).write_volatile(value) };
            Some(())
        })
    }
}

impl State {
    fn ram_word(&self, at: u64) -> u64 {
        assert!(
            self.board.ram.contains(&at) && at.is_multiple_of(8),
            "{at:#x} isn't RAM"
        );
        // SAFETY: RAM is mapped; others may write it.
        unsafe { ((DIRECT_BASE + at as usize) as *const u64).read_volatile() }
    }
}

/// Runs a test in a process that has nothing else in it. To be called first thing by a test.
pub fn in_own_process(body: fn()) {
    const WHO: &str = "BATON_FAKE_MACHINE";
    let thread = std::thread::current();
    let name = thread.name().expect("a test").to_owned();
    if std::env::var(WHO).as_deref() == Ok(name.as_str()) {
        return body();
    }
    let program = std::env::current_exe().expect("a path");
    let output = std::process::Command::new(program)
        .args([
            name.as_str(),
            "--exact",
            "--nocapture",
            "--test-threads=2",
            "--include-ignored",
        ])
        .env(WHO, &name)
        .env("RUST_BACKTRACE", "0")
        .output()
        .expect("a process");
    let text = std::string::String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = std::string::String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}{errors}"
    );
}

use std::borrow::ToOwned;

/// A trace for the library's model: its own steps, and which of these cache lines EL2 has stored to, as it sees them.
pub fn steps(trace: &[Event], lines: &[usize]) -> Vec<Step> {
    const LINE: usize = hypervisor::processor::fake::LINE;
    let mut steps = Vec::new();
    for event in trace {
        match *event {
            Event::Step(Step::Dc(operation, address)) => {
                let line = address & !(LINE - 1);
                if lines.contains(&line) {
                    steps.push(Step::Dc(operation, line));
                }
            }
            Event::Step(step) => steps.push(step),
            Event::Stored { address, bytes } => {
                let stored = lines.iter().filter(|line| {
                    **line < address.saturating_add(bytes) && address < **line + LINE
                });
                steps.extend(stored.map(|line| Step::Stored(*line)));
            }
            _ => {}
        }
    }
    steps
}

/// EL2's own translation of an address: where it leads, whether it can be written, and whether executed.
pub fn own_translation(address: usize) -> Option<(u64, bool, bool)> {
    const READ_ONLY: u64 = 1 << 7;
    const NO_EXECUTION: u64 = 1 << 54;
    let (to, leaf) = with(|state, _| state.own(address))?;
    Some((to, leaf & READ_ONLY == 0, leaf & NO_EXECUTION == 0))
}

/// Whether a step writes this register.
pub fn writes(event: &Event, register: Register) -> bool {
    matches!(event, Event::Step(Step::Write(written, _)) if *written == register)
}
