//! `devices`: init of a domain that looks at the devices a domain has besides its coprocessors, through the drivers of an
//! unmodified kernel.
//!
//! The clock is read and set to wake; the watchdog, if `devices.watchdog` stands on the kernel's command line, is
//! started, fed for longer than its time-out, and then left alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::mount::{MountFlags, mount};

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
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        // Those that the kernel has mounted already are fine.
        let _ = mount(kind, target, kind, MountFlags::empty(), None);
    }
    clock()?;
    if fs::read_to_string("/proc/cmdline")?.contains("devices.watchdog") {
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
