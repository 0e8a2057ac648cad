//! `hostile`: init of a domain that pokes at what isn't its own.
//!
//! Everything a kernel can be talked into reaching is tried at random through `/dev/mem` (which `iomem=relaxed` on the
//! kernel's command line opens wholly): addresses where nothing is, the domain's own emulated devices, the configuration
//! space; with loads and stores of every width, and with instructions whose exit tells a hypervisor nothing about them. Most
//! pokes end in a signal, so children do the poking and this program counts them. What it does to its own
//! domain is its own business: the test looks at the *other* one.
//!
//! Options on the kernel command line: `hostile.seed=N`, `hostile.seconds=N`, `hostile.pokes=N` (longer, until there were so many before
//! half of it and after), `hostile.only=configuration` (nothing but configuration space, for a domain that has a device).

use baton_tools::random::Random;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::mount::{MountFlags, mount};

const PAGE: u64 = 4096;
/// Pokes that a child tries.
const POKES: usize = 48;

/// Start and end of a range of physical addresses.
type Range = (u64, u64);

/// Where a domain has nothing, but for a few pages of small devices: below, between and above its devices and RAM, up to and beyond the
/// end of stage 2.
const HOLES: [Range; 12] = [
    (0, 0x0800_0000),
    (0x0801_0000, 0x080a_0000),
    (0x0810_0000, 0x0900_0000),
    (0x0900_1000, 0x0910_0000),
    (0x0a00_0000, 0x0a01_0000),
    (0x0b00_0000, 0x1000_0000),
    (0x1000_0000, 0x3eff_0000),
    (0x3eff_0000, 0x4000_0000),
    (0x6000_0000, 0x1_0000_0000),
    (0x40_2000_0000, 0x40_3000_0000),
    (0x80_0000_0000, 0x100_0000_0000),
    (0x100_0000_0000, 0x1000_0000_0000),
];
/// The domain's emulated interrupt controller and UART.
const DEVICES: [Range; 3] = [
    (0x0800_0000, 0x0801_0000),
    (0x080a_0000, 0x080c_0000),
    (0x0900_0000, 0x0900_1000),
];
/// Configuration space: the first devices, and all of it.
const CONFIGURATION: [Range; 3] = [
    (0x40_1000_0000, 0x40_1000_0000 + PAGE),
    (0x40_1000_8000, 0x40_1000_8000 + PAGE),
    (0x40_1000_0000, 0x40_2000_0000),
];

fn say(text: &str) {
    println!("hostile: {text}");
}

fn option(line: &str, name: &str) -> Option<String> {
    let mut words = line.split_ascii_whitespace();
    words.find_map(|word| {
        let value = word.strip_prefix("hostile.")?.strip_prefix(name)?;
        Some(value.strip_prefix('=')?.to_owned())
    })
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--poke", seed, daring, only] => {
            poke_all(seed.parse().unwrap_or(0), daring == "1", only)
        }
        _ => attack(),
    };
    if let Err(error) = result {
        eprintln!("hostile: ERROR {error}");
    }
    if std::process::id() == 1 {
        loop {
            std::thread::sleep(Duration::from_secs(3600));
        }
    }
}

/// Sends children out until the time is over: first so that the domain itself should survive, then without restraint.
fn attack() -> io::Result<()> {
    for (kind, target) in [("proc", "/proc"), ("devtmpfs", "/dev")] {
        fs::create_dir_all(target)?;
        match mount(kind, target, kind, MountFlags::empty(), None) {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let line = fs::read_to_string("/proc/cmdline")?;
    let number = |name| option(&line, name).and_then(|text| text.parse::<u64>().ok());
    let mut seed = number("seed").unwrap_or(1) << 32;
    let only = option(&line, "only").unwrap_or_else(|| "all".into());
    let time = Duration::from_secs(number("seconds").unwrap_or(10)) / 2;
    let least = number("pokes").unwrap_or(0) as usize;
    say(&format!("start only={only}"));
    for (daring, phase) in [("0", "halfway"), ("1", "done")] {
        let started = Instant::now();
        let (mut children, mut killed, mut pokes) = (0u64, 0u64, 0);
        while started.elapsed() < time || pokes < least {
            seed += 1;
            let child = Command::new("/proc/self/exe")
                .args(["--poke", &seed.to_string(), daring, &only])
                .stderr(Stdio::inherit())
                .output()?;
            children += 1;
            killed += u64::from(child.status.signal().is_some());
            pokes += child.stdout.len();
        }
        say(&format!(
            "{phase} children={children} killed={killed} pokes={pokes}"
        ));
    }
    Ok(())
}

/// One child's pokes, until one of them is its last.
fn poke_all(seed: u64, daring: bool, only: &str) -> io::Result<()> {
    let mut random = Random::keyed(&[seed]);
    let memory = OpenOptions::new().read(true).write(true).open("/dev/mem")?;
    for _ in 0..POKES {
        let own = random.once_in(2);
        let ranges: &[Range] = match (only, own) {
            ("configuration", _) => &CONFIGURATION,
            (_, false) => &HOLES,
            (_, true) if random.once_in(3) => &CONFIGURATION,
            (_, true) => &DEVICES,
        };
        let (start, end) = ranges[random.below(ranges.len())];
        let pages = (end - start) / PAGE;
        let page = start + random.next_u64() % pages * PAGE;
        // Registers gather at the start of a page.
        let reach = if random.once_in(2) {
            0x100
        } else {
            PAGE as usize
        };
        let harmless = !std::ptr::eq(ranges, &HOLES) && !daring;
        poke(&memory, page, random.below(reach), harmless, &mut random)?;
    }
    Ok(())
}

/// One access within a page of physical memory; `harmless`: only a load.
fn poke(
    memory: &File,
    page: u64,
    offset: usize,
    harmless: bool,
    random: &mut Random,
) -> io::Result<()> {
    let access = ProtFlags::READ | ProtFlags::WRITE;
    let length = PAGE as usize;
    // SAFETY: a new mapping at an address of the kernel's choice; what it shows is nothing that this program relies on.
    let base = unsafe {
        mmap(
            std::ptr::null_mut(),
            length,
            access,
            MapFlags::SHARED,
            memory,
            page,
        )
    };
    // Beyond what the kernel maps: nothing to be had.
    let Ok(base) = base else { return Ok(()) };
    let value = random.next_u64();
    // A child's output is one byte for each poke that it came to.
    io::stdout().write_all(b".")?;
    io::stdout().flush()?;
    // Mostly aligned, as Device memory demands; now and then not. 16 bytes fit in any case.
    let offset = match random.once_in(32) {
        true => offset.min(length - 16),
        false => (offset & !7).min(length - 16),
    };
    let kind = random.below(if harmless { 6 } else { 14 });
    // SAFETY: within the mapping made above. The access may end this process by a signal, which its parent expects.
    unsafe { access_once(base.cast::<u8>().add(offset), kind, value) };
    // SAFETY: the mapping made above, which nothing refers to any more.
    unsafe { munmap(base, length) }?;
    Ok(())
}

/// # Safety
/// 16 bytes at `at` are mapped, and nothing of this program's is there.
#[cfg(target_arch = "aarch64")]
unsafe fn access_once(at: *mut u8, kind: usize, value: u64) {
    use core::arch::asm;
    macro_rules! one {
        ($instruction:literal) => {
            // SAFETY: the caller's promise; registers other than the named ones aren't changed.
            unsafe {
                // The comment uses every operand, as is demanded of a template.
                asm!(concat!($instruction, " // {a} {v} {w}"), a = inout(reg) at => _, v = inout(reg) value => _, w = out(reg) _, out("v0") _, options(nostack))
            }
        };
    }
    match kind {
        0 => one!("ldrb {v:w}, [{a}]"),
        1 => one!("ldrh {v:w}, [{a}]"),
        2 => one!("ldr {v:w}, [{a}]"),
        3 => one!("ldr {v}, [{a}]"),
        4 => one!("ldrsb {v}, [{a}]"),
        // No description in the syndrome from here on: pairs, write-back, vectors, exclusives, cache maintenance.
        5 => one!("ldp {v}, {w}, [{a}]"),
        6 => one!("strb {v:w}, [{a}]"),
        7 => one!("strh {v:w}, [{a}]"),
        8 => one!("str {v:w}, [{a}]"),
        9 => one!("str {v}, [{a}]"),
        10 => one!("str {v}, [{a}], #8"),
        11 => one!("stp {v}, {v}, [{a}]"),
        12 => one!("str q0, [{a}]"),
        _ => one!("dc civac, {a}"),
    }
}

/// # Safety
/// None is needed: this program is only for AArch64, and elsewhere only compiled.
#[cfg(not(target_arch = "aarch64"))]
unsafe fn access_once(_at: *mut u8, _kind: usize, _value: u64) {}
