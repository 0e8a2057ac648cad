//! `devices`: init of a domain that looks at the devices a domain has besides its coprocessors, through the drivers of an
//! unmodified kernel.
//!
//! The clock is read and set to wake; the watchdog, if `devices.watchdog` stands on the kernel's command line, is
//! started, fed for longer than its time-out, and then left alone; with `devices.shared`, memory is shared with one
//! other domain that runs this program, through `uio_pci_generic`; with `devices.manage` it asks Baton what a person at the console
//! would, by the program `batonctl`, and holds the second domain. With `devices.passed` there is nothing but the machine's own
//! PL031 and PL061, which the domain was given, and the disks that `devices.disks` names, PCI functions of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, poll};

use baton_tools::os::{disk, function::Function, mmio::Registers, mmio::barrier, system};

const RTC: &str = "/sys/class/rtc/rtc0";
/// The watchdog's time-out in seconds, both stages together.
const TIME_OUT: u32 = 6;

fn say(text: &str) {
    println!("devices: {text}");
}

fn main() {
    if let Err(error) = run() {
        say(&format!("ERROR {error}"));
    }
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

fn run() -> io::Result<()> {
    system::mount_all()?;
    let options = system::command_line()?;
    let value = |key| {
        let mut words = options.split_whitespace();
        words.find_map(|word: &str| word.strip_prefix(key))
    };
    if let Some(names) = value("devices.disks=") {
        disks(names)?;
    }
    if options.contains("devices.passed") {
        return passed();
    }
    clock()?;
    if options.contains("devices.shared") {
        shared()?;
    }
    if options.contains("devices.watchdog") {
        watchdog()?;
    }
    if options.contains("devices.manage") {
        manage()?;
    }
    say("done");
    Ok(())
}

/// What it asks, one program for each, and at last all of a file by one.
const COMMANDS: [&str; 11] = [
    "domains",
    "coproc set 0 slice-us 7000",
    "coproc query 0",
    "coproc set 0 slice-us none",
    "domain pause d2",
    "vcpu list d2",
    "domain define d2 /etc/domains.dtb",
    "domain define d3 /etc/domains.dtb",
    "domain create d3",
    "domain define d4 /etc/domains.dtb",
    "domain create d4",
];

fn manage() -> io::Result<()> {
    for command in COMMANDS {
        let ended = Command::new("/bin/batonctl")
            .args(command.split(' '))
            .output()?;
        told(command, &ended);
    }
    // Long answers, whose reader is slow.
    let mut all = Command::new("/bin/batonctl")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut commands) = all.stdin.take() {
        commands.write_all(b"help\ntrace\nnonsense\nhelp\n")?;
    }
    told("file", &all.wait_with_output()?);
    Ok(())
}

fn told(command: &str, ended: &Output) {
    let words = command.replace(' ', "_");
    let status = ended.status.code().unwrap_or(-1);
    let text = String::from_utf8_lossy(&ended.stdout);
    let lines = text.lines().count();
    say(&format!(
        "manage command={words} status={status} lines={lines}"
    ));
    for line in text.lines().take(8) {
        say(&format!("manage> {line}"));
    }
    let errors = String::from_utf8_lossy(&ended.stderr);
    for line in errors.lines() {
        say(&format!("manage! {line}"));
    }
}

fn read(path: &str) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(io::Error::other(format!("{path}: {error}"))),
    }
}

fn clock() -> io::Result<()> {
    let name = read(&format!("{RTC}/name"))?;
    let epoch = read(&format!("{RTC}/since_epoch"))?;
    let kernel = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |span| span.as_secs());
    let before = interrupts("rtc-pl031")?;
    fs::write(format!("{RTC}/wakealarm"), "+2")?;
    let started = Instant::now();
    while interrupts("rtc-pl031")? == before && started.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let alarms = interrupts("rtc-pl031")? - before;
    let waited = started.elapsed().as_millis();
    say(&format!(
        "clock name={} epoch={epoch} kernel={kernel} alarms={alarms} waited_ms={waited}",
        name.split(' ').next().unwrap_or("")
    ));
    Ok(())
}

/// How often the interrupt with this name came, on all CPUs.
fn interrupts(name: &str) -> io::Result<u64> {
    let table = read("/proc/interrupts")?;
    let line = table.lines().find(|line| line.ends_with(name));
    let line = line.ok_or_else(|| io::Error::other(format!("no interrupt {name}")))?;
    let counts = line.split_whitespace().skip(1);
    Ok(counts.map_while(|word| word.parse::<u64>().ok()).sum())
}

/// What is written to each disk, in bytes.
const WRITTEN: u64 = 4 << 20;

/// Disks named with commas between: each is written and read back.
fn disks(names: &str) -> io::Result<()> {
    for driver in read("/lib/modules/drivers")?.lines() {
        system::load_module(driver)?;
    }
    for (name, seed) in names.split(',').zip(1..) {
        let disk::Tried { size, wrong } = disk::tried(name, seed, WRITTEN)?;
        say(&format!(
            "disk name={name} size={size} seed={seed} written={WRITTEN} wrong={wrong}"
        ));
    }
    Ok(())
}

/// Where a domain finds what it was given.
const PASSED: &str = "c20";
/// The line of QEMU's PL061 that its power button drives.
const BUTTON: u32 = 3;

/// The clock's alarm interrupts on each CPU in turn; then the button is waited for.
fn passed() -> io::Result<()> {
    let clock = entry("/sys/class/rtc", "name", PASSED)?;
    let name = read(&format!("{clock}/name"))?;
    let irq = interrupt_of(&name)?;
    for cpu in 0..2 {
        fs::write(
            format!("/proc/irq/{irq}/smp_affinity_list"),
            format!("{cpu}"),
        )?;
        let before = counts(&irq)?;
        fs::write(format!("{clock}/wakealarm"), "+1")?;
        let started = Instant::now();
        let mut now = counts(&irq)?;
        while now == before && started.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(20));
            now = counts(&irq)?;
        }
        // A level that stays up would go on interrupting.
        std::thread::sleep(Duration::from_millis(200));
        now = counts(&irq)?;
        let new: Vec<u64> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| now - before)
            .collect();
        say(&format!(
            "alarm cpu={cpu} cpu0={} cpu1={} epoch={}",
            new[0],
            new[1],
            read(&format!("{clock}/since_epoch"))?
        ));
    }

    let chip = entry("/sys/class/gpio", "label", PASSED)?;
    let first: u32 = read(&format!("{chip}/base"))?
        .parse()
        .map_err(io::Error::other)?;
    let line = first + BUTTON;
    fs::write("/sys/class/gpio/export", format!("{line}"))?;
    let directory = format!("/sys/class/gpio/gpio{line}");
    fs::write(format!("{directory}/edge"), "both")?;
    let value = File::open(format!("{directory}/value"))?;
    let level = || -> io::Result<u8> {
        let mut byte = [0];
        value.read_exact_at(&mut byte, 0)?;
        Ok(byte[0] - b'0')
    };
    let mut last = level()?;
    say(&format!("button ready level={last}"));
    let mut edges = 0;
    loop {
        let mut fds = [PollFd::new(&value, PollFlags::PRI | PollFlags::ERR)];
        poll(&mut fds, None)?;
        let now = level()?;
        // Two edges may have passed before this program ran.
        edges += if now == last { 2 } else { 1 };
        last = now;
        say(&format!("button level={now} edges={edges}"));
    }
}

/// The directory below `class` in which the file `name` has this text.
fn entry(class: &str, name: &str, text: &str) -> io::Result<String> {
    for found in fs::read_dir(class)?.flatten() {
        let path = found.path().display().to_string();
        if read(&format!("{path}/{name}")).is_ok_and(|content| content.contains(text)) {
            return Ok(path);
        }
    }
    Err(io::Error::other(format!(
        "{class}: nothing with {name} {text}"
    )))
}

/// The number of a clock's interrupt: the last one of that driver, as the clock of the board is found first.
fn interrupt_of(clock: &str) -> io::Result<String> {
    let table = read("/proc/interrupts")?;
    let driver = clock.split(' ').next().unwrap_or(clock);
    let line = table.lines().rfind(|line| line.ends_with(driver));
    line.and_then(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .ok_or_else(|| io::Error::other(format!("no interrupt {driver}")))
}

/// How often an interrupt came, by CPU.
fn counts(irq: &str) -> io::Result<Vec<u64>> {
    let table = read("/proc/interrupts")?;
    let line = table.lines().find_map(|line| {
        let (number, rest) = line.split_once(':')?;
        (number.trim() == irq).then_some(rest)
    });
    let line = line.ok_or_else(|| io::Error::other(format!("no interrupt {irq}")))?;
    let counts = line.split_whitespace().map_while(|word| word.parse().ok());
    Ok(counts.take(2).collect())
}

fn watchdog() -> io::Result<()> {
    let module = File::open("/lib/modules/sbsa_gwdt.ko")?;
    let parameters = std::ffi::CString::new(format!("timeout={TIME_OUT}"))?;
    rustix::system::finit_module(&module, &parameters, 0)?;
    let mut device = OpenOptions::new().write(true).open("/dev/watchdog")?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2 * u64::from(TIME_OUT)) {
        device.write_all(b".")?;
        std::thread::sleep(Duration::from_millis(500));
    }
    say(&format!(
        "watchdog identity={} fed_s={}",
        read("/sys/class/watchdog/watchdog0/identity")
            .unwrap_or_default()
            .replace(' ', "-"),
        started.elapsed().as_secs()
    ));
    std::thread::sleep(Duration::from_secs(20 * u64::from(TIME_OUT)));
    Err(io::Error::other("still here, unfed"))
}

/// Registers of the inter-VM shared memory device (QEMU, docs/specs/ivshmem-spec.rst).
const INTERRUPT_MASK: usize = 0;
const INTERRUPT_STATUS: usize = 4;
const POSITION: usize = 8;
const DOORBELL: usize = 12;
/// In the memory: peer 1 waits for its first ring.
const READY: usize = 0;
/// In the memory: what is exchanged.
const TEXT: usize = 4096;

/// Peer 0 writes, rings, is rung and finds the answer; peer 1 the other way round.
fn shared() -> io::Result<()> {
    for module in ["uio", "uio_pci_generic"] {
        system::load_module(module)?;
    }
    let functions = Function::find(0x1af4, 0x1110)?;
    let [function] = functions.as_slice() else {
        let found = format!("{} functions of shared memory", functions.len());
        return Err(io::Error::other(found));
    };
    let (start, _) = bar(function, 0)?;
    let (_, size) = bar(function, 2)?;
    let mut uio = function.bind()?;
    let page = Registers::map(&function.resource(0)?, 4096)?;
    // A BAR smaller than a page lies anywhere in one.
    let at = |register: usize| (start & 0xfff) as usize + register;
    let memory = Registers::map(&function.resource(2)?, size)?;
    let words = || (TEXT..size).step_by(8);
    let peer = page.read32(at(POSITION));
    let pattern = |word: usize| (word as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;

    page.write32(at(INTERRUPT_MASK), 1);
    let mut wrong = 0;
    if peer == 0 {
        wrong += words().filter(|word| memory.read64(*word) != 0).count();
        let limit = Instant::now() + Duration::from_secs(120);
        while memory.read32(READY) == 0 && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(20));
        }
        for word in words() {
            memory.write64(word, pattern(word));
        }
        barrier();
        page.write32(at(DOORBELL), 1 << 16);
    } else {
        memory.write32(READY, 1);
    }
    let interrupts = uio.wait(Duration::from_secs(120))?;
    let statuses = [0; 2].map(|_: u32| page.read32(at(INTERRUPT_STATUS)));
    uio.unmask()?;
    barrier();
    let expected = |word| match peer {
        0 => !pattern(word),
        _ => pattern(word),
    };
    wrong += words()
        .filter(|word| memory.read64(*word) != expected(*word))
        .count();
    if peer != 0 {
        for word in words() {
            memory.write64(word, !pattern(word));
        }
        barrier();
        page.write32(at(DOORBELL), 0);
    }
    // Nobody rings any more: cleared, the interrupt stays away.
    let late = uio.wait(Duration::from_millis(500))?;
    say(&format!(
        "shared peer={peer} size={size} interrupts={interrupts} status={} again={} late={late} wrong={wrong}",
        statuses[0], statuses[1]
    ));
    Ok(())
}

/// Address and size of a BAR.
fn bar(function: &Function, index: usize) -> io::Result<(u64, usize)> {
    let path = format!("/sys/bus/pci/devices/{}/resource", function.slot());
    let text = read(&path)?;
    let mut numbers = text
        .lines()
        .nth(index)
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|word| u64::from_str_radix(word.trim_start_matches("0x"), 16).ok());
    match (numbers.next(), numbers.next()) {
        (Some(start), Some(end)) if end > start => Ok((start, (end - start + 1) as usize)),
        _ => Err(io::Error::other(format!("{path}: no BAR {index}"))),
    }
}
