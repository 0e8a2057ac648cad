//! `kernel-check`: init of a domain that asks its kernel whether the machine is in order.
//!
//! By the kernel command line: `check.hotplug=ROUNDS` takes each CPU but the first down and up again through sysfs;
//! `check.stress=SECONDS` runs `stress-ng`, which verifies what it computes, and `cyclictest` at the same time. At the end comes what
//! the kernel's log holds of complaints.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use baton_tools::os::{console, system};
use baton_tools::{kernel_log, report, stress};
use rustix::fs::OFlags;
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};

const CPUS: &str = "/sys/devices/system/cpu";
/// The classes of `stress-ng`, one stressor each.
const CLASSES: [&str; 5] = ["cpu", "vm", "switch", "timer", "futex"];
/// What the programs may take longer than they were told.
const GRACE: Duration = Duration::from_secs(60);
/// No more lines than this of complaints.
const SHOWN: usize = 40;

fn say(text: &str) {
    console::print(&format!("check: {text}"));
}

fn main() {
    if let Err(error) = run() {
        console::print(&report::error(&error.to_string()));
        let _ = complaints();
    }
    system::rest();
}

fn run() -> io::Result<()> {
    system::mount_all()?;
    console::open();
    let line = system::command_line()?;
    let option = |name: &str| -> io::Result<Option<u64>> {
        let mut words = line.split_ascii_whitespace();
        let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let number = value.map(str::parse).transpose();
        number.map_err(|error| io::Error::other(format!("{name}: {error}")))
    };
    let efi = fs::exists("/sys/firmware/efi").unwrap_or(false);
    say(&format!(
        "kernel release={} cpus={} efi={efi}",
        system::kernel(),
        online()?.len()
    ));
    if let Some(rounds) = option("check.hotplug")? {
        hotplug(rounds)?;
    }
    if let Some(seconds) = option("check.stress")? {
        stress(seconds)?;
    }
    let (found, moved) = complaints()?;
    say(&format!(
        "done cpus={} complaints={found} kaslr={moved}",
        online()?.len()
    ));
    Ok(())
}

/// The numbers of the CPUs that the kernel's scheduler has.
fn online() -> io::Result<Vec<usize>> {
    let stat = fs::read_to_string("/proc/stat").map_err(|error| system::about("stat", error))?;
    let cpus = stat.lines().filter_map(|line| line.strip_prefix("cpu"));
    Ok(cpus
        .filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect())
}

/// Every CPU but the first goes down and comes up again; then this thread runs there.
fn hotplug(rounds: u64) -> io::Result<()> {
    let all = online()?;
    let (mut downs, mut ups) = (0, 0);
    for _ in 0..rounds {
        for &cpu in all.iter().filter(|cpu| **cpu != 0) {
            let file = format!("{CPUS}/cpu{cpu}/online");
            let set = |value: &str| {
                fs::write(&file, value)
                    .map_err(|error| system::about(format_args!("{value} to {file}"), error))
            };
            set("0")?;
            downs += u64::from(!online()?.contains(&cpu));
            set("1")?;
            ups += u64::from(online()? == all && runs_on(cpu)?);
        }
    }
    say(&format!(
        "hotplug cpus={} rounds={rounds} downs={downs} ups={ups}",
        all.len() - 1
    ));
    Ok(())
}

fn runs_on(cpu: usize) -> io::Result<bool> {
    let thread = std::thread::spawn(move || -> io::Result<bool> {
        let mut set = CpuSet::new();
        set.set(cpu);
        sched_setaffinity(None, &set)?;
        Ok(sched_getcpu() == cpu)
    });
    let joined = thread.join();
    joined.unwrap_or_else(|_| Err(io::Error::other("a thread ended badly")))
}

/// A program that writes to a file, and when it must have ended.
struct Job {
    name: &'static str,
    child: Child,
    output: String,
    deadline: Instant,
}

impl Job {
    fn start(name: &'static str, arguments: &str, seconds: u64) -> io::Result<Self> {
        let output = format!("/tmp/{name}.txt");
        let file = File::create(&output).map_err(|error| system::about(&output, error))?;
        let child = Command::new(format!("/bin/{name}"))
            .args(arguments.split(' '))
            .current_dir("/tmp")
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| system::about(name, error))?;
        let deadline = Instant::now() + Duration::from_secs(seconds) + GRACE;
        Ok(Self {
            name,
            child,
            output,
            deadline,
        })
    }

    /// Its exit code (or why it has none) and what it printed.
    fn end(mut self) -> io::Result<(String, String)> {
        let exit = loop {
            match self.child.try_wait()? {
                Some(status) => match status.code() {
                    Some(code) => break code.to_string(),
                    None => break format!("signal-{}", status.signal().unwrap_or(0)),
                },
                None if Instant::now() > self.deadline => {
                    self.child.kill()?;
                    break "too-late".to_owned();
                }
                None => std::thread::sleep(Duration::from_millis(200)),
            }
        };
        let text = fs::read(&self.output)?;
        let text = String::from_utf8_lossy(&text).into_owned();
        if exit != "0" {
            for line in text.lines() {
                say(&format!("{}: {line}", self.name));
            }
        }
        Ok((exit, text))
    }
}

fn stress(seconds: u64) -> io::Result<()> {
    let classes: Vec<String> = CLASSES.iter().map(|class| format!("--{class} 1")).collect();
    let stressors = format!(
        "{} --vm-bytes 24m --verify --metrics --temp-path /tmp --timeout {seconds}",
        classes.join(" ")
    );
    let threads = online()?.len();
    let cyclic = format!("-q -m -p 80 -i 10000 -t {threads} -a -D {seconds}");
    let first = Job::start("stress-ng", &stressors, seconds)?;
    let second = Job::start("cyclictest", &cyclic, seconds)?;
    say("stressing");
    let (exit, text) = first.end()?;
    let done: BTreeMap<String, u64> = stress::operations(&text);
    let counts = CLASSES.map(|class| format!("{class}={}", done.get(class).unwrap_or(&0)));
    say(&format!(
        "stress-ng exit={exit} failures={} {}",
        text.lines().filter(|line| line.contains("fail:")).count(),
        counts.join(" ")
    ));
    let (exit, text) = second.end()?;
    let latencies = stress::latencies(&text);
    let most = |value: fn(&stress::Latency) -> u64| latencies.iter().map(value).max().unwrap_or(0);
    say(&format!(
        "cyclictest exit={exit} threads={} wakeups={} min_us={} average_us={} max_us={}",
        latencies.len(),
        latencies
            .iter()
            .map(|thread| thread.wakeups)
            .min()
            .unwrap_or(0),
        latencies.iter().map(|thread| thread.min).min().unwrap_or(0),
        most(|thread| thread.average),
        most(|thread| thread.max)
    ));
    Ok(())
}

/// Prints the complaints in the kernel's log, with what follows the first one, and counts them.
fn complaints() -> io::Result<(usize, bool)> {
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open("/dev/kmsg")
        .map_err(|error| system::about("/dev/kmsg", error))?;
    let (mut found, mut shown, mut moved) = (0, 0, false);
    let mut buffer = vec![0; 8192];
    loop {
        let record = match log.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            // Records were overwritten: nobody knows what they said.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                say("complaint: the log was overrun");
                found += 1;
                continue;
            }
            Err(error) => return Err(system::about("/dev/kmsg", error)),
        };
        moved |= kernel_log::is_moved(&record);
        let complaint = kernel_log::complaint(&record);
        found += usize::from(complaint.is_some());
        if found > 0 && shown < SHOWN {
            shown += 1;
            let text = record.lines().next().unwrap_or_default();
            say(&format!("complaint: {text}"));
        }
    }
    Ok((found, moved))
}
