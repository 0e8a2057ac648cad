//! A guest that tries everything: whatever exceptions it takes, with whatever in its registers, Baton goes on, and the domain beside it has lost nothing.
//!
//! What is tried comes from proptest's strategies, and is the same each time. A panic of Baton ends the process; the last exits are told then.

use super::boards::{self, A76, KERNEL_SIZE, MEMORY, Wanted, kernel};
#[cfg(feature = "fw-core")]
use super::cores;
use super::exits::{Register, system_syndrome};
use crate::arch::exits::Registers;
use crate::arch::fake::{self, Cpu, Exception, in_own_process};
use crate::arch::memory;
use crate::system::domain::Activity;
use crate::system::{self, lifecycle};
use alloc::string::String;
use alloc::vec::Vec;
use hypervisor::guest_tree::layout;
use hypervisor::lifecycle::{Operation, State};
use hypervisor::trap::syndrome::encoding;
use hypervisor::vgic::Version;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use std::format;
use std::sync::Mutex;
use std::time::Duration;

/// Exits in a run: some seconds.
const EXITS: usize = 5000;

const BASES: &[u64] = &[
    0,
    layout::GICD_BASE,
    layout::GICC_BASE,
    layout::V2M_BASE,
    layout::GICR_BASE,
    layout::GICR_BASE + 0x1_0000,
    layout::GICR_BASE + 0x2_0000,
    layout::UART_BASE,
    layout::RTC_BASE,
    layout::FW_CFG_BASE,
    layout::WATCHDOG_BASE,
    layout::WATCHDOG_BASE + 0x1000,
    layout::PASSTHROUGH_BASE,
    layout::PCI_MEM32_BASE,
    layout::PCI_IO_BASE,
    layout::RAM_BASE,
    layout::RAM_BASE + MEMORY - 16,
    layout::RAM_BASE + MEMORY,
    layout::ECAM_BASE,
    layout::ECAM_BASE + (1 << 15),
    layout::PCI_MEM64_BASE,
    u64::MAX - 0xfff,
];

const CALLS: &[u64] = &[
    0x8400_0000,
    0x8400_0001,
    0xc400_0001,
    0x8400_0002,
    0x8400_0003,
    0xc400_0003,
    0x8400_0004,
    0xc400_0004,
    0x8400_0005,
    0x8400_0006,
    0xc400_0007,
    0x8400_000a,
    0x8400_000c,
    0xc400_000e,
    0xc400_0012,
    0x8400_0050,
    0x8400_0053,
    0xc400_0053,
    0x8000_0000,
    0x8000_0001,
    0x8000_0002,
    0x8000_8000,
    0x8000_7fff,
    0x8000_3fff,
    0x8600_ff01,
];

const NAMES: &[u32] = &[
    encoding(3, 0, 12, 11, 5),
    encoding(3, 0, 12, 11, 6),
    encoding(3, 0, 12, 11, 7),
    encoding(3, 0, 12, 11, 1),
    encoding(3, 0, 1, 0, 1),
    encoding(2, 0, 0, 2, 2),
    encoding(2, 0, 1, 1, 4),
    encoding(3, 3, 14, 2, 0),
    encoding(3, 3, 14, 2, 1),
    encoding(3, 3, 14, 2, 2),
    encoding(1, 0, 7, 14, 2),
    encoding(3, 0, 0, 4, 0),
    encoding(3, 0, 0, 6, 1),
];

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (select(BASES), 0u64..0x1000).prop_map(|(base, offset)| base.wrapping_add(offset)),
        4 => (select(BASES), 0u64..0x400).prop_map(|(base, word)| base.wrapping_add(word * 4)),
        2 => (select(BASES), 0u64..0x1_0000).prop_map(|(base, offset)| base.wrapping_add(offset)),
        1 => any::<u64>(),
    ]
}

fn value() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(u64::MAX),
        0u64..0x100,
        (0u32..64).prop_map(|bit| 1 << bit),
        select(CALLS),
        address(),
        any::<u64>(),
    ]
}

/// A syndrome, and where the guest is said to have gone.
fn synchronous() -> impl Strategy<Value = Exception> {
    let access = (0u64..1 << 24, prop_oneof![4 => Just(7u64), 1 => 0u64..64]);
    let access = access.prop_map(|(how, status)| {
        // Sizes, registers and directions; mostly plain.
        0x24 << 26 | 1 << 25 | 1 << 24 | how & 0xff_0040 | status
    });
    let register = (
        prop_oneof![4 => select(NAMES), 1 => 0u32..1 << 16],
        0u64..32,
        any::<bool>(),
    );
    let register = register.prop_map(|(name, register, read)| {
        system_syndrome(Register {
            name,
            register,
            read,
        })
    });
    let syndrome = prop_oneof![
        8 => access,
        4 => register,
        4 => select(&[0x16u64 << 26, 0x17 << 26][..]),
        2 => (0u64..64, 0u64..1 << 25).prop_map(|(class, rest)| class << 26 | 1 << 25 | rest),
        1 => any::<u64>(),
    ];
    (syndrome, address(), any::<u64>(), 0u32..20).prop_map(|(esr, address, other, odd)| {
        // FAR_EL2 and HPFAR_EL2 needn't agree.
        let (far, hpfar) = if odd == 0 {
            (other, address)
        } else {
            (address, address >> 12 << 4 & 0xff_ffff_fff0)
        };
        Exception::Synchronous(esr, far, hpfar)
    })
}

fn exception() -> impl Strategy<Value = Exception> {
    prop_oneof![
        60 => synchronous(),
        1 => Just(Exception::Interrupt),
        1 => Just(Exception::SError),
    ]
}

/// What a domain has, and nobody else may change.
#[derive(PartialEq, Debug)]
struct Domain {
    guest: Registers,
    registers: Vec<(hypervisor::processor::Register, u64)>,
    interrupts: String,
    power: String,
    uart: String,
    devices: String,
    bus: String,
    state: State,
}

impl Domain {
    fn of(number: usize, cpu: Cpu) -> Self {
        let domain = &system::get().unwrap().domains[number];
        Self {
            guest: cpu.guest(),
            registers: cpu.registers(),
            interrupts: format!(
                "{:?} {:?}",
                domain.vgic.lock(),
                domain.vcpus[0].lists.lock()
            ),
            power: format!("{:?}", domain.power.lock()),
            uart: format!("{:?}", domain.uart.as_ref().map(|uart| uart.lock().clone())),
            devices: format!("{:?}", domain.devices.lock()),
            bus: format!("{:?}", domain.pci.lock().bus),
            state: domain.control.lock().life.state(),
        }
    }
}

fn ram(number: usize) -> &'static [u8] {
    let domain = &system::get().unwrap().domains[number];
    let piece = domain.memory.read()[0];
    // Nobody writes it, or the test fails.
    memory::shared(piece.start, piece.size).unwrap()
}

static LAST: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn tell_last_exits() {
    let before = std::panic::take_hook();
    std::panic::set_hook(std::boxed::Box::new(move |information| {
        before(information);
        let last = LAST.lock().map(|last| last.clone());
        for line in last.unwrap_or_default() {
            std::eprintln!("{line}");
        }
    }));
}

/// Its vCPU runs again, if it was stopped, or waits for nothing that would come.
fn revive(cpu: Cpu, by: Cpu) {
    for _ in 0..100 {
        if cpu.is_in_guest() {
            return;
        }
        by.run(|| {
            let domain = &system::get().unwrap().domains[0];
            let vcpu = &domain.vcpus[0];
            if matches!(vcpu.activity(), Activity::Waiting | Activity::Parked) {
                return vcpu.wake();
            }
            let operation = match domain.control.lock().life.state() {
                State::Gone => Operation::Create,
                State::Paused => Operation::Resume,
                _ => Operation::Restart,
            };
            let _ = lifecycle::request(domain, operation);
        });
        if !cpu.is_in_guest() {
            fake::pass(Duration::from_millis(100));
        }
    }
    panic!("the domain can't be restarted\n{}", fake::console());
}

/// The exits of a guest, one after the other, each with whatever in its registers.
struct Attempts {
    runner: TestRunner,
    number: usize,
}

impl Attempts {
    fn new(seed: u8) -> Self {
        tell_last_exits();
        // The cheaper generator: not optimised, the other one takes longer than the exits.
        let random = TestRng::from_seed(RngAlgorithm::XorShift, &[seed; 16]);
        Self {
            runner: TestRunner::new_with_rng(Config::default(), random),
            number: 0,
        }
    }

    /// One more; returns where the guest was.
    fn next(&mut self, cpu: Cpu) -> u64 {
        let registers = proptest::collection::vec(value(), 31);
        let every = (exception(), registers, value(), any::<u64>(), 0u32..50);
        let tree = every.new_tree(&mut self.runner).unwrap();
        let (exception, x, elr, spsr, odd) = tree.current();
        self.number += 1;
        {
            let mut last = LAST.lock().unwrap();
            if last.len() == 3 {
                last.remove(0);
            }
            last.push(format!("exit {}: {exception:x?}, x {x:x?}", self.number));
        }
        cpu.set_guest(|guest| {
            guest.x.copy_from_slice(&x);
            guest.elr = elr;
            // EL0, EL1t or EL1h, mostly.
            guest.spsr = if odd == 0 {
                spsr
            } else {
                [0, 0x3c4, 0x3c5][odd as usize % 3]
            };
        });
        // Without vectors it would crash soon, and be restarted, which takes longer.
        cpu.set_register("vbar_el1", if odd == 1 { 0 } else { layout::RAM_BASE });
        cpu.exit(exception);
        elr
    }
}

/// The domain beside, as it was.
struct Bystander {
    number: usize,
    cpu: Cpu,
    before: Domain,
    memory: Vec<u8>,
}

impl Bystander {
    fn new(number: usize, cpu: Cpu) -> Self {
        let memory = ram(number).to_vec();
        assert_eq!(
            &memory[0x20_0000..][..KERNEL_SIZE],
            kernel(number as u64 + 1)
        );
        Self {
            number,
            cpu,
            before: Domain::of(number, cpu),
            memory,
        }
    }

    fn look(&self, attempts: &Attempts) {
        if attempts.number.is_multiple_of(64) {
            assert_eq!(Domain::of(self.number, self.cpu), self.before);
            fake::forget();
        }
        if attempts.number.is_multiple_of(500) {
            assert!(ram(self.number) == self.memory, "its memory has changed");
        }
    }
}

fn nothing_a_guest_does_reaches_the_other(gic: Version) {
    boards::start(Wanted {
        gic,
        midr: &[A76; 2],
        ..Wanted::default()
    });
    let [cpu, other] = [Cpu(0), Cpu(1)];
    let vttbr = cpu.register("vttbr_el2");
    let bystander = Bystander::new(1, other);
    let mut attempts = Attempts::new(gic as u8 + 1);
    let mut served = 0;
    for _ in 0..EXITS {
        let elr = attempts.next(cpu);
        if cpu.is_in_guest() {
            assert_eq!(cpu.register("vttbr_el2"), vttbr);
            served += usize::from(cpu.guest().elr == elr.wrapping_add(4));
        } else {
            revive(cpu, other);
        }
        bystander.look(&attempts);
    }
    // It wasn't all refused.
    assert!(served > EXITS / 10, "{served}");
}

/// Firmware of the first domain's, on a core that both share; not even that domain's memory is its own, since nothing was granted.
#[cfg(feature = "fw-core")]
#[test]
fn nothing_firmware_does_reaches_a_domain() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            midr: &[A76; 3],
            domains: &[&[0], &[2]],
            coproc: Some(boards::Shared::Core(1)),
            ..Wanted::default()
        });
        let [cpu, core, other] = [0, 1, 2].map(Cpu);
        cores::place(cpu);
        cores::start(cpu);
        assert!(core.is_in_guest(), "{}", fake::console());
        let vttbr = core.register("vttbr_el2");
        let bystander = Bystander::new(1, other);
        let own = ram(0).to_vec();
        let mut attempts = Attempts::new(7);
        let mut starts = 0;
        for _ in 0..EXITS / 2 {
            attempts.next(core);
            if core.is_in_guest() {
                assert_eq!(core.register("vttbr_el2"), vttbr);
            } else {
                cores::start(cpu);
                starts += 1;
                assert!(core.is_in_guest(), "{}", fake::console());
            }
            bystander.look(&attempts);
        }
        assert!(ram(0) == own, "its own domain's memory has changed");
        assert!(starts > 0 && starts < EXITS / 4, "{starts}");
    });
}

#[test]
fn nothing_a_guest_does_reaches_the_other_on_a_gicv2() {
    in_own_process(|| nothing_a_guest_does_reaches_the_other(Version::V2));
}

#[test]
fn nothing_a_guest_does_reaches_the_other_on_a_gicv3() {
    in_own_process(|| nothing_a_guest_does_reaches_the_other(Version::V3));
}
