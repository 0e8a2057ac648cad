//! What people see when Baton itself fails: a report on the console, then this CPU stops.
//!
//! Nothing a guest does may lead here. The report takes no lock that the failing code could hold: it writes to the UART
//! directly, and waits for room, since there is nothing else left to do.

use super::cpu;
use super::mmio::Region;
use super::registers::{read, wait_for_interrupt};
use core::fmt::{self, Write};
use platforms::uart::Polled;
use spin::Once;

static CONSOLE: Once<(Region, Polled)> = Once::new();

/// Tells where reports go, and how.
pub fn use_console(region: Region, polled: Polled) {
    CONSOLE.call_once(|| (region, polled));
}

struct Raw(Region, Polled);

impl Write for Raw {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.put(b'\r');
            }
            self.put(byte);
        }
        Ok(())
    }
}

impl Raw {
    fn put(&mut self, byte: u8) {
        self.1.send(&mut self.0, byte, 1_000_000);
    }
}

/// Writes a report to the console at once.
pub fn emergency(arguments: fmt::Arguments<'_>) {
    if let Some((region, polled)) = CONSOLE.get() {
        let _ = Raw(*region, *polled).write_fmt(arguments);
    }
}

/// Stops this CPU.
pub fn halt() -> ! {
    loop {
        wait_for_interrupt();
    }
}

/// The vectors call this for an exception taken from EL2, on the CPU's second stack.
#[unsafe(no_mangle)]
extern "C" fn baton_fault(saved: &[u64; 34], kind: u64) -> ! {
    let esr = read!("esr_el2");
    let what = match (kind, esr >> 26) {
        (1, _) => "interrupt taken at EL2",
        (2, _) => "SError",
        (_, 0x21) => "instruction abort",
        (_, 0x25) => "data abort",
        (_, 0x22) => "misaligned PC",
        (_, 0x26) => "misaligned stack",
        (_, 0x00) => "undefined instruction",
        _ => "unexpected exception",
    };
    let far = read!("far_el2");
    let guard =
        cpu::guard_pages().any(|page| (far as usize) >= page && (far as usize) < page + 0x1000);
    emergency(format_args!(
        "\n[baton] fatal: {what} at EL2 on CPU {}{}\n[baton]   ELR {:#018x}  ESR {esr:#010x}  FAR {far:#018x}  SPSR {:#010x}  SP {:#018x}\n",
        cpu::current().index(),
        if guard { ": stack overflow" } else { "" },
        read!("elr_el2"),
        read!("spsr_el2"),
        saved[31],
    ));
    for (index, pair) in saved[..30].chunks(3).enumerate() {
        emergency(format_args!("[baton]  "));
        for (offset, value) in pair.iter().enumerate() {
            emergency(format_args!(" x{:<2} {value:#018x}", index * 3 + offset));
        }
        emergency(format_args!("\n"));
    }
    emergency(format_args!(
        "[baton]   x30 {:#018x}\n[baton] this CPU stops\n",
        saved[30]
    ));
    halt()
}

#[cfg(not(test))]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    emergency(format_args!(
        "\n[baton] fatal: {information}\n[baton] on CPU {}; this CPU stops\n",
        cpu::current().index()
    ));
    halt()
}
