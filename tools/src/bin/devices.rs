//! `devices`: init of a domain that looks at the devices a domain has besides its coprocessors, through the drivers of an
//! unmodified kernel.
//!
//! The clock is read and set to wake; the watchdog, if `devices.watchdog` stands on the kernel's command line, is
//! started, fed for longer than its time-out, and then left alone; with `devices.shared`, memory is shared with one
//! other domain that runs this program, through `uio_pci_generic`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use baton_tools::os::{function::Function, mmio::Registers, mmio::barrier, system};

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
    clock()?;
    let options = system::command_line()?;
    if options.contains("devices.shared") {
        shared()?;
    }
    if options.contains("devices.watchdog") {
        watchdog()?;
    }
    say("done");
    Ok(())
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
