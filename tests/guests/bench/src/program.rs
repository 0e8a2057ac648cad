//! The program: which rows, in which order; what it says.
//!
//! The kernel's command line says which part this domain plays: `bench=all` measures everything that one domain can alone,
//! `bench=peer` what any hypervisor has, `bench=boot` only how long it took to get here;
//! `bench=timer` measures nothing and checks the physical timer; so do `bench=messages` and `bench=share` with messages,
//! `bench=gpioeven` and `bench=gpioodd` with a GPIO that they share (`…brief`: not for long);
//! `bench=emulated` reads the registers of a coprocessor that the domain with `bench=hold` has; with `bench=other` and `bench=pingpong` its two
//! vCPUs wake each other, on two CPUs and on one.

use core::fmt::Write as _;
use core::panic::PanicInfo;

use crate::device::Device;
use crate::{exits, framework, gpio, interrupts, messages, pair, repoint};
use guest_runtime::machine::{self, Console};
use guest_runtime::tree::Tree;

core::arch::global_asm!(include_str!("../../runtime/src/start.S"));
core::arch::global_asm!(include_str!("vectors.S"));

/// One tick is 16 instructions, so a row's error is below 0.001 instructions.
const REPETITIONS: u64 = 20_000;
const MOST_ROWS: usize = 32;

struct Rows {
    /// Name, ticks, repetitions.
    rows: [(&'static str, u64, u64); MOST_ROWS],
    count: usize,
}

impl Rows {
    fn add(&mut self, name: &'static str, ticks: u64) {
        self.add_repeated(name, ticks, REPETITIONS);
    }

    fn add_repeated(&mut self, name: &'static str, ticks: u64, repetitions: u64) {
        if let Some(row) = self.rows.get_mut(self.count) {
            *row = (name, ticks, repetitions);
        }
        self.count += 1;
    }

    fn show(&self) -> Result<(), &'static str> {
        let rows = self.rows.get(..self.count).ok_or("too many rows")?;
        let _ = writeln!(Console, "bench: frequency={}", machine::frequency());
        for (name, ticks, repetitions) in rows {
            let _ = writeln!(
                Console,
                "bench: row={name} ticks={ticks} repetitions={repetitions}"
            );
        }
        Ok(())
    }
}

fn interrupts_row(
    rows: &mut Rows,
    names: [&'static str; 2],
    took: interrupts::Delivery,
) -> Result<(), &'static str> {
    if took.taken != REPETITIONS || took.unknown != 0 {
        return Err("interrupts were lost, or came unasked");
    }
    rows.add(names[0], took.delivery);
    rows.add(names[1], took.round_trip);
    Ok(())
}

/// SPI 16.
const OWN_INTID: u32 = 48;

/// Time for the hypervisor to show what it has to show, in seconds.
fn settle(seconds: u64) {
    interrupts::sleep(machine::frequency() * seconds);
}

/// What a kernel does all day, whatever it runs on.
fn exits_and_interrupts(rows: &mut Rows) -> Result<(), &'static str> {
    settle(1);
    exits::run(REPETITIONS, &mut |name, ticks| rows.add(name, ticks));
    let took = interrupts::timer(REPETITIONS);
    interrupts_row(rows, ["timer_irq", "timer_irq_round_trip"], took)?;
    let took = interrupts::sgi_self(REPETITIONS);
    interrupts_row(rows, ["sgi_self", "sgi_self_round_trip"], took)?;
    rows.add("eoi", took.ends);
    Ok(())
}

/// The rows that a peer has, too; edu is the domain's alone there.
fn peer(rows: &mut Rows) -> Result<(), &'static str> {
    let device = Device::find()?;
    exits_and_interrupts(rows)?;
    device.touch()?;
    let took = device.interrupts(REPETITIONS);
    interrupts_row(rows, ["spi_irq", "spi_irq_round_trip"], took)
}

/// The row that is about a device of the domain's own, on Baton.
fn own(rows: &mut Rows) -> Result<(), &'static str> {
    let mut device = Device::find()?;
    // Its interrupt is its own: the first of those that a domain's own devices have.
    device.intid = OWN_INTID;
    settle(1);
    device.touch()?;
    let took = device.interrupts(REPETITIONS);
    interrupts_row(rows, ["spi_irq", "spi_irq_round_trip"], took)
}

fn all(rows: &mut Rows) -> Result<(), &'static str> {
    let device = Device::find()?;
    exits_and_interrupts(rows)?;
    device.touch()?;
    // Not in the middle of a switch any more.
    settle(1);
    rows.add("coproc_direct_read", device.reads(REPETITIONS));
    let took = device.interrupts(REPETITIONS);
    let names = ["coproc_irq_delivery", "coproc_irq_round_trip"];
    interrupts_row(rows, names, took)?;
    framework::run(REPETITIONS, &mut |name, ticks| rows.add(name, ticks))?;
    rows.add("iommu_repoint", repoint::run(REPETITIONS)?);
    Ok(())
}

fn turns(rows: &mut Rows, name: &'static str) -> Result<(), &'static str> {
    settle(1);
    rows.add(name, pair::run(REPETITIONS)?);
    Ok(())
}

fn emulated(rows: &mut Rows) -> Result<(), &'static str> {
    let device = Device::find()?;
    // The other domain takes the device meanwhile.
    settle(5);
    device.touch()?;
    rows.add("coproc_emulated_read", device.reads(REPETITIONS));
    Ok(())
}

fn hold() -> ! {
    let held = Device::find().and_then(|device| device.touch());
    let _ = match held {
        Ok(()) => writeln!(Console, "bench: holding"),
        Err(error) => writeln!(Console, "bench: error: {error}"),
    };
    loop {
        machine::wait();
    }
}

#[unsafe(no_mangle)]
extern "C" fn guest_main(tree: u64, begun: u64) -> ! {
    let tree = Tree::at(tree);
    machine::find_devices(&tree);
    machine::start_interrupts();
    machine::enable_interrupt(machine::TIMER);
    machine::enable_interrupt(1);
    let mut rows = Rows {
        rows: [("", 0, 0); MOST_ROWS],
        count: 0,
    };
    let result = match tree.word_after(b"bench=") {
        Some(b"all") => {
            rows.add_repeated("boot", begun, 1);
            all(&mut rows)
        }
        Some(b"peer") => {
            rows.add_repeated("boot", begun, 1);
            peer(&mut rows)
        }
        Some(b"own") => own(&mut rows),
        Some(b"boot") => {
            rows.add_repeated("boot", begun, 1);
            Ok(())
        }
        Some(b"other") => turns(&mut rows, "sgi_other_cpu"),
        Some(b"pingpong") => turns(&mut rows, "switch_pingpong"),
        Some(b"emulated") => emulated(&mut rows),
        Some(b"hold") => hold(),
        Some(b"timer") => {
            machine::enable_interrupt(machine::PHYSICAL_TIMER);
            interrupts::check_physical_timer()
        }
        Some(b"messages") => messages::check(true),
        Some(b"share") => messages::check(false),
        // Two domains with different pins, one of which loses the device at the end.
        Some(b"gpioeven") => gpio::check(&tree, 0x55, 2000, true),
        Some(b"gpioodd") => gpio::check(&tree, 0xee, 2000, false),
        Some(b"gpioevenbrief") => gpio::check(&tree, 0x55, 100, true),
        Some(b"gpiooddbrief") => gpio::check(&tree, 0xee, 100, false),
        _ => Err("the command line doesn't say which part this is"),
    };
    let _ = match result.and_then(|()| rows.show()) {
        Ok(()) => writeln!(Console, "bench: done"),
        Err(error) => writeln!(Console, "bench: error: {error}"),
    };
    machine::off()
}

#[unsafe(no_mangle)]
extern "C" fn bench_unexpected(esr: u64, elr: u64, far: u64) -> ! {
    let _ = writeln!(
        Console,
        "bench: error: exception at {elr:#x}, ESR {esr:#x}, FAR {far:#x}"
    );
    machine::off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(Console, "bench: error: {info}");
    machine::off()
}
