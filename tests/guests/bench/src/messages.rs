//! Checks of message-signalled interrupts: the frame, the function's capability, and that no message is lost, doubled or led astray.
//!
//! Measures nothing. Every wait has an end, so that what is missing is said.

use crate::device::{ACKNOWLEDGE, Device, RAISE, STATUS};
use crate::interrupts;
use core::fmt::Write as _;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use guest_runtime::machine::{self, TIMER, enable_edge, read, ticks, write};

/// The GICv2m frame and its registers.
const FRAME: u64 = 0x0802_0000;
const TYPER: u64 = FRAME + 0x008;
const SETSPI: u64 = FRAME + 0x040;
/// Its interrupts, as on QEMU's board.
const FIRST: u32 = 80;
const COUNT: u32 = 64;
/// The function's, and one that the program rings itself.
const MESSAGE: u32 = FIRST + 3;
const RING: u32 = FIRST + COUNT - 1;

/// edu: its factorial register, status with "interrupt when done".
const FACTORIAL: u64 = 0x08;
const CONTROL: u64 = 0x20;
const INTERRUPT_WHEN_DONE: u32 = 0x80;
const COMPUTED: u32 = 0x1;

static REGISTERS: AtomicU64 = AtomicU64::new(0);
static MESSAGES: AtomicU32 = AtomicU32::new(0);
static RINGS: AtomicU32 = AtomicU32::new(0);
/// All status bits that the handler acknowledged.
static SEEN: AtomicU32 = AtomicU32::new(0);
/// The handler raises another interrupt right after it acknowledged the first one.
static AGAIN: AtomicBool = AtomicBool::new(false);

/// The handler's part: whether the interrupt is one of these.
pub fn take(intid: u32) -> bool {
    match intid {
        RING => {
            RINGS.fetch_add(1, Ordering::Relaxed);
        }
        MESSAGE => {
            let registers = REGISTERS.load(Ordering::Relaxed);
            let status = read(registers + STATUS);
            write(registers + ACKNOWLEDGE, status);
            if AGAIN.swap(false, Ordering::Relaxed) {
                write(registers + RAISE, 2);
            }
            SEEN.fetch_or(status, Ordering::Relaxed);
            MESSAGES.fetch_add(1, Ordering::Relaxed);
        }
        _ => return false,
    }
    true
}

/// Waits until there were so many, for at most so many ms.
fn wait_for(counter: &AtomicU32, count: u32, milliseconds: u64) -> bool {
    let step = machine::frequency() / 1000;
    let end = ticks() + step * milliseconds;
    loop {
        if counter.load(Ordering::Relaxed) >= count {
            return true;
        }
        if ticks() >= end {
            return false;
        }
        interrupts::sleep(step);
    }
}

/// Sleeps; then whether there were exactly so many.
fn stays(counter: &AtomicU32, count: u32, milliseconds: u64) -> bool {
    interrupts::sleep(machine::frequency() / 1000 * milliseconds);
    counter.load(Ordering::Relaxed) == count
}

/// A virtual function's MSI capability.
struct Capability {
    space: u64,
    at: u64,
}

impl Capability {
    fn find(device: &Device) -> Result<Self, &'static str> {
        let space = device.space;
        if read(space + 4) & 1 << 20 == 0 {
            return Err("the function has no list of capabilities");
        }
        let at = u64::from(read(space + 0x34) & 0xfc);
        let head = read(space + at);
        if head & 0xff != 5 {
            return Err("its first capability isn't MSI");
        }
        if head >> 16 & 0x180 != 0x180 {
            return Err("MSI isn't capable of 64 bits and of masking");
        }
        Ok(Self { space, at })
    }

    fn set(&self, offset: u64, value: u32) {
        write(self.space + self.at + offset, value);
    }

    fn aim(&self, address: u64, data: u32) {
        self.set(4, address as u32);
        self.set(8, (address >> 32) as u32);
        self.set(12, data);
    }

    fn enable(&self, on: bool) {
        self.set(0, u32::from(on) << 16);
    }

    fn mask(&self, on: bool) {
        self.set(16, on.into());
    }

    fn pending(&self) -> bool {
        read(self.space + self.at + 20) & 1 != 0
    }

    fn asserts_intx(&self) -> bool {
        read(self.space + 4) & 1 << 19 != 0
    }
}

fn check_frame() -> Result<(), &'static str> {
    let typer = read(TYPER);
    if (typer >> 16 & 0x3ff, typer & 0x3ff) != (FIRST, COUNT) {
        return Err("MSI_TYPER isn't that of QEMU's board");
    }
    enable_edge(RING);
    for count in 1..4 {
        write(SETSPI, RING);
        if !wait_for(&RINGS, count, 20_000) {
            return Err("MSI_SETSPI_NS rings nothing");
        }
    }
    write(SETSPI, FIRST + COUNT);
    write(SETSPI, 33);
    if stays(&RINGS, 3, 20) {
        Ok(())
    } else {
        Err("MSI_SETSPI_NS rings too often")
    }
}

fn expect(count: u32, otherwise: &'static str) -> Result<(), &'static str> {
    if wait_for(&MESSAGES, count, 20_000) {
        Ok(())
    } else {
        Err(otherwise)
    }
}

/// One after the other, each one message: while nobody else uses the device.
fn check_delivery(registers: u64, msi: &Capability) -> Result<(), &'static str> {
    for round in 1..=100 {
        write(registers + RAISE, 1);
        expect(round, "a message is lost")?;
    }
    if !stays(&MESSAGES, 100, 50) {
        return Err("more messages than interrupts");
    }

    msi.mask(true);
    write(registers + RAISE, 1);
    if !stays(&MESSAGES, 100, 50) {
        return Err("a masked message came");
    }
    if !msi.pending() || msi.asserts_intx() {
        return Err("a masked message isn't pending, or INTx is");
    }
    msi.mask(false);
    expect(101, "an unmasked message is lost")?;
    if msi.pending() {
        return Err("a message that was sent is pending");
    }

    // The handler acknowledges, and before it has ended the device raises again: nobody sees the status fall.
    for round in 0..10 {
        AGAIN.store(true, Ordering::Relaxed);
        SEEN.store(0, Ordering::Relaxed);
        write(registers + RAISE, 1);
        expect(
            103 + 2 * round,
            "an interrupt raised within the handler is lost",
        )?;
        if SEEN.load(Ordering::Relaxed) != 3 {
            return Err("the handler saw other interrupts than were raised");
        }
    }
    Ok(())
}

/// Messages to anywhere else do nothing: to memory, and to interrupts that aren't messages'.
fn check_strays(registers: u64, msi: &Capability) -> Result<(), &'static str> {
    let memory: u32 = 0x600d_600d;
    let place = (&raw const memory).expose_provenance() as u64;
    let before = MESSAGES.load(Ordering::Relaxed);
    for (address, data) in [
        (place, MESSAGE),
        (SETSPI, 33),
        (SETSPI, TIMER),
        (SETSPI + 4, MESSAGE),
        (SETSPI | 1 << 32, MESSAGE),
    ] {
        msi.aim(address, data);
        write(registers + RAISE, 1);
        if !stays(&MESSAGES, before, 20) {
            return Err("a stray message interrupts");
        }
        write(registers + ACKNOWLEDGE, 1);
    }
    // SAFETY: a local variable. Volatile: it may have been changed behind the compiler's back.
    if unsafe { (&raw const memory).read_volatile() } != 0x600d_600d {
        return Err("a stray message was written to memory");
    }
    msi.aim(SETSPI, MESSAGE);
    Ok(())
}

/// Computes with the other domain's work in between; each result is told by a message.
fn check_sharing(registers: u64) -> Result<(), &'static str> {
    for round in 0..40u32 {
        let n = round % 12 + 1;
        SEEN.store(0, Ordering::Relaxed);
        let before = MESSAGES.load(Ordering::Relaxed);
        write(registers + CONTROL, INTERRUPT_WHEN_DONE);
        write(registers + FACTORIAL, n);
        expect(before + 1, "a computation's message is lost")?;
        if SEEN.load(Ordering::Relaxed) != COMPUTED {
            return Err("another interrupt than the computation's");
        }
        if read(registers + FACTORIAL) != (1..=n).product() {
            return Err("a wrong result");
        }
        interrupts::sleep(machine::frequency() / 20);
    }
    Ok(())
}

/// All of it; `alone`: nobody else uses the device, so that what it does can be told exactly.
pub fn check(alone: bool) -> Result<(), &'static str> {
    check_frame()?;
    let device = Device::find()?;
    device.touch()?;
    let registers = device.registers;
    REGISTERS.store(registers, Ordering::Relaxed);
    let msi = Capability::find(&device)?;
    // Enabled at the interrupt controller, too: the handler would count it as unknown.
    machine::enable_interrupt(device.intid);
    enable_edge(MESSAGE);
    msi.aim(SETSPI, MESSAGE);
    msi.enable(true);
    if alone {
        check_delivery(registers, &msi)?;
        check_strays(registers, &msi)?;
    } else {
        check_sharing(registers)?;
    }
    if interrupts::unknown() != 0 {
        return Err("INTx came besides, or an interrupt that nobody asked for");
    }
    let count = MESSAGES.load(Ordering::Relaxed);
    let _ = writeln!(machine::Console, "bench: messages={count}");
    Ok(())
}
