//! PSCI and SMCCC, call by call (Arm DEN 0022, DEN 0028); the second CPU.

use crate::exception::{MASKED, run as execute};
use crate::report::{check, open, own};
use crate::{gic, random};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use guest_runtime::machine;

const HVC: u32 = 0xd400_0002;
const SMC: u32 = 0xd400_0003;

const NOT_SUPPORTED: u64 = 0xffff_ffff;
const NOT_REQUIRED: u64 = 0xffff_fffe;
const INVALID_PARAMETERS: u64 = 0xffff_fffe;
const ALREADY_ON: u64 = 0xffff_fffc;
const INVALID_ADDRESS: u64 = 0xffff_fff7;

const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const CONTEXT: u64 = 0x1234_5678_9abc_def0;

unsafe extern "C" {
    static second_start: u8;
}

static RECEIVED: AtomicU64 = AtomicU64::new(0);
static STARTED: AtomicU64 = AtomicU64::new(0);

fn with(instruction: u32, x: [u64; 4]) -> u64 {
    let mut registers = [0; 32];
    registers[..4].copy_from_slice(&x);
    let end = execute(&[instruction], &registers, MASKED);
    // Error codes are compared as 32 bits: the upper half of a 32-bit function's is open.
    if end.completed() {
        end.x[0] & 0xffff_ffff
    } else {
        1 << 32 | end.class()
    }
}

fn call(x: [u64; 4]) -> u64 {
    with(HVC, x)
}

fn entry() -> u64 {
    (&raw const second_start).expose_provenance() as u64
}

/// Waits until there is `wanted`, for so many seconds at most: a busy host lets the emulator's threads wait.
pub fn wait_for(wanted: u64, seconds: u64, get: impl Fn() -> u64) -> u64 {
    let limit = machine::ticks() + machine::frequency() * seconds;
    loop {
        let got = get();
        if got == wanted || machine::ticks() > limit {
            return got;
        }
    }
}

fn until(wanted: u64, get: impl Fn() -> u64) -> u64 {
    wait_for(wanted, 10, get)
}

/// Starts the second CPU and waits for it.
pub fn start() {
    STARTED.store(0, Ordering::SeqCst);
    check("cpu_on.second", call([CPU_ON, 1, entry(), CONTEXT]), 0);
    let context = until(CONTEXT, || STARTED.load(Ordering::SeqCst));
    check("cpu_on.second.context", context, CONTEXT);
    check("affinity_info.on", call([AFFINITY_INFO, 1, 0, 0]), 0);
    check(
        "cpu_on.second.again",
        call([CPU_ON, 1, entry(), 0]),
        ALREADY_ON,
    );
}

/// Interrupts that the second CPU has taken, when they are `wanted`, or a second later.
pub fn received(wanted: u64) -> u64 {
    until(wanted, || RECEIVED.load(Ordering::SeqCst))
}

/// Lets the second CPU switch itself off.
pub fn stop() {
    gic::send(4, 2);
    let off = until(1, || call([AFFINITY_INFO, 1, 0, 0]));
    check("cpu_off.affinity_info", off, 1);
}

#[unsafe(no_mangle)]
extern "C" fn guest_second(context: u64) -> ! {
    gic::start(&[3, 4]);
    STARTED.store(context, Ordering::SeqCst);
    loop {
        machine::wait();
        let taken = gic::take_here();
        let intid = taken & 0x3ff;
        if intid >= 1020 {
            continue;
        }
        gic::end_here(taken);
        if intid == 4 {
            // SAFETY: CPU_OFF; it doesn't come back, unless refused.
            unsafe { asm!("hvc #0", in("x0") 0x8400_0002u64, options(nostack)) };
            RECEIVED.store(u64::MAX, Ordering::SeqCst);
        }
        // 5 came while it was off: a GICv2's SGIs may always be enabled.
        if intid != 5 {
            RECEIVED.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn versions(domain: bool) {
    let version = call([0x8400_0000, 0, 0, 0]);
    check("psci_version.major", version >> 16, 1);
    open("psci_version", version, "minor version");
    check("migrate_info_type", call([0x8400_0006, 0, 0, 0]), 2);
    for (name, id) in [
        ("features.psci_version", 0x8400_0000),
        ("features.cpu_off", 0x8400_0002),
        ("features.cpu_on32", 0x8400_0003),
        ("features.cpu_on64", CPU_ON),
        ("features.affinity_info32", 0x8400_0004),
        ("features.affinity_info64", AFFINITY_INFO),
        ("features.migrate_info_type", 0x8400_0006),
        ("features.system_off", 0x8400_0008),
        ("features.system_reset", 0x8400_0009),
        ("features.features", 0x8400_000a),
    ] {
        check(name, call([0x8400_000a, id, 0, 0]), 0);
    }
    for (name, id) in [
        ("features.cpu_suspend32", 0x8400_0001),
        ("features.cpu_suspend64", 0xc400_0001),
    ] {
        let got = call([0x8400_000a, id, 0, 0]);
        check(name, got & !3, 0);
        open(name, got, "format of power_state");
    }
    for (name, id) in [
        ("features.migrate", 0x8400_0005),
        ("features.migrate64", 0xc400_0005),
        ("features.migrate_info_up_cpu", 0xc400_0007),
        ("features.psci_version64", 0xc400_0000),
        ("features.none-1f", 0x8400_001f),
        ("features.foreign", 0x8200_0000),
    ] {
        check(name, call([0x8400_000a, id, 0, 0]), NOT_SUPPORTED);
    }
    for (name, id) in [
        ("migrate32", 0x8400_0005),
        ("migrate64", 0xc400_0005),
        ("migrate_info_up_cpu32", 0x8400_0007),
        ("migrate_info_up_cpu64", 0xc400_0007),
        ("psci_version64", 0xc400_0000),
        ("cpu_off64", 0xc400_0002),
        ("none-1f", 0x8400_001f),
        ("none-1f-64", 0xc400_001f),
        ("none-vendor", 0x8600_ff01),
        ("none-trusted-os", 0xb200_0000),
        ("none-zero", 0),
        ("none-all-ones", 0xffff_ffff),
    ] {
        check(name, call([id, 0, 0, 0]), NOT_SUPPORTED);
    }
    random::interface();
    if domain {
        own("smccc_version", call([0x8000_0000, 0, 0, 0]), 0x1_0002);
        own(
            "features.smccc_version",
            call([0x8400_000a, 0x8000_0000, 0, 0]),
            0,
        );
        own(
            "arch_features.version",
            call([0x8000_0001, 0x8000_0000, 0, 0]),
            0,
        );
        own(
            "arch_features.self",
            call([0x8000_0001, 0x8000_0001, 0, 0]),
            0,
        );
        own(
            "arch_features.none",
            call([0x8000_0001, 0x8000_3ffe, 0, 0]),
            NOT_SUPPORTED,
        );
        for id in [0x8000_8000, 0x8000_7fff, 0x8000_3fff] {
            // Mitigated by a call, not affected, or not known; and where the hypervisor keeps the mitigation on, not required. The call itself
            // agrees.
            let feature = call([0x8000_0001, id, 0, 0]);
            open("arch_features.workaround", feature, "depends on the CPU");
            let called = call([id, 0, 0, 0]);
            let (known, callable) = match (id, feature) {
                (_, NOT_SUPPORTED) => (true, false),
                (0x8000_7fff, feature) => (feature == NOT_REQUIRED, false),
                (_, feature) => (matches!(feature, 0 | 1), true),
            };
            own("workaround.known", u64::from(known), 1);
            own(
                "workaround.call",
                u64::from(called == NOT_SUPPORTED),
                u64::from(!callable),
            );
        }
        own(
            "smc.psci_version",
            with(SMC, [0x8400_0000, 0, 0, 0]),
            0x1_0001,
        );
        own(
            "smc.not_supported",
            with(SMC, [0x8400_001f, 0, 0, 0]),
            NOT_SUPPORTED,
        );
        // The function identifier is W0 alone.
        own(
            "upper-half-ignored",
            call([0xdead_beef_8400_0000, 0, 0, 0]),
            0x1_0001,
        );
    }
}

fn cpus(domain: bool) {
    check("affinity_info.self", call([AFFINITY_INFO, 0, 0, 0]), 0);
    check("affinity_info.off", call([AFFINITY_INFO, 1, 0, 0]), 1);
    check("affinity_info32.off", call([0x8400_0004, 1, 0, 0]), 1);
    for (name, target) in [
        ("no-such-cpu", 2),
        ("no-such-cluster", 0x100),
        ("no-such-aff3", 1 << 32),
    ] {
        check(
            name,
            call([AFFINITY_INFO, target, 0, 0]),
            INVALID_PARAMETERS,
        );
        check(name, call([CPU_ON, target, entry(), 0]), INVALID_PARAMETERS);
    }
    check("cpu_on.self", call([CPU_ON, 0, entry(), 0]), ALREADY_ON);
    check(
        "cpu_on32.self",
        call([0x8400_0003, 0, entry(), 0]),
        ALREADY_ON,
    );
    check(
        "cpu_on32.no-such-cpu",
        call([0x8400_0003, 9, entry(), 0]),
        INVALID_PARAMETERS,
    );
    open(
        "affinity_info.level1",
        call([AFFINITY_INFO, 0, 1, 0]),
        "levels above 0 are optional",
    );
    if domain {
        for (name, at) in [
            ("cpu_on.address.device", 0x0900_0000),
            ("cpu_on.address.beyond-ram", 0x7000_0000),
            ("cpu_on.address.unaligned", entry() + 2),
            ("cpu_on.address.huge", !3),
        ] {
            own(name, call([CPU_ON, 1, at, 0]), INVALID_ADDRESS);
        }
        own("affinity_info.still-off", call([AFFINITY_INFO, 1, 0, 0]), 1);
        own(
            "cpu_suspend.address",
            call([0xc400_0001, 1 << 30, 0x7000_0000, 0]),
            INVALID_ADDRESS,
        );
    }
}

/// SMCCC 1.1: X4 on are kept.
fn kept() {
    let mut registers = [0u64; 32];
    for (n, register) in registers.iter_mut().enumerate() {
        *register = 0x5a5a_0000 + n as u64;
    }
    registers[0] = 0x8400_0000;
    // eor x4..x17 into x1: add them up.
    let mut words = [0u32; 15];
    words[0] = HVC;
    for (n, word) in words.iter_mut().enumerate().skip(1) {
        let from = n as u32 + 3;
        *word = if n == 1 {
            0xaa00_03e1 | from << 16
        } else {
            0x8b00_0021 | from << 16
        };
    }
    let end = execute(&words, &registers, MASKED);
    let sum = (4..18).map(|n| registers[n]).sum();
    check("hvc.x4-to-x17-kept", end.x[1], sum);
}

/// All of it, but what needs interrupts ([`start`] to [`stop`], suspend).
pub fn run(domain: bool) {
    versions(domain);
    cpus(domain);
    kept();
}

/// CPU_SUSPEND to standby with an interrupt that comes later.
pub fn suspend() -> u64 {
    call([0xc400_0001, 0, 0, 0])
}
