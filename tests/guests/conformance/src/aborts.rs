//! Accesses to where nothing is, and ones that the architecture refuses.

use crate::exception::{End, MASKED, code, go, probe};
use crate::report::{check, open};

/// Nothing is here: device memory, and beyond RAM's end in the block that maps it.
const NO_DEVICE: u64 = 0x0b80_0000;
const NO_RAM: u64 = 0x7000_0000;

const LDR_W: u32 = 0xb940_0001;
const LDR_X: u32 = 0xf940_0001;
const LDRB: u32 = 0x3940_0001;
const LDRSH: u32 = 0x7980_0001;
const STR_W: u32 = 0xb900_0001;
const STR_X: u32 = 0xf900_0001;
const STRB: u32 = 0x3900_0001;
const LDP: u32 = 0xa940_0801;
const STP: u32 = 0xa900_0801;
const LDXR: u32 = 0xc85f_7c01;
const LDR_POST: u32 = 0xb840_4401;
const STR_POST: u32 = 0xb800_4401;

/// EC 0x25 or 0x21 (same EL), IL, external abort; bit 9 says what kind, and is open; bit 6: a write.
fn syndrome(name: &str, end: &End, expected: u64) {
    check(name, end.esr & !(1 << 9), expected);
}

/// All of it.
pub fn run() {
    const READ: u64 = 0x25 << 26 | 1 << 25 | 0x10;
    const WRITE: u64 = READ | 1 << 6;
    for (names, word, expected) in [
        (["ldr-w.esr", "ldr-w.far", "ldr-w.elr"], LDR_W, READ),
        (["ldr-x.esr", "ldr-x.far", "ldr-x.elr"], LDR_X, READ),
        (["ldrb.esr", "ldrb.far", "ldrb.elr"], LDRB, READ),
        (["ldrsh.esr", "ldrsh.far", "ldrsh.elr"], LDRSH, READ),
        (["str-w.esr", "str-w.far", "str-w.elr"], STR_W, WRITE),
        (["str-x.esr", "str-x.far", "str-x.elr"], STR_X, WRITE),
        (["strb.esr", "strb.far", "strb.elr"], STRB, WRITE),
        (["ldp.esr", "ldp.far", "ldp.elr"], LDP, READ),
        (["stp.esr", "stp.far", "stp.elr"], STP, WRITE),
        (
            ["ldr-post.esr", "ldr-post.far", "ldr-post.elr"],
            LDR_POST,
            READ,
        ),
        (
            ["str-post.esr", "str-post.far", "str-post.elr"],
            STR_POST,
            WRITE,
        ),
    ] {
        for at in [NO_DEVICE, NO_DEVICE + 0x128, NO_RAM] {
            let end = probe(word, [at, 0x55, 0x66, 0]);
            syndrome(names[0], &end, expected);
            check(names[1], end.far, at);
            check(names[2], end.elr, code());
            check("abort.spsr", end.spsr & 0x3df, MASKED);
            check("abort.no-writeback", end.x[0], at);
            check("abort.no-load", end.x[1], 0x55);
        }
    }
    let end = probe(LDXR, [NO_RAM, 0x55, 0, 0]);
    syndrome("ldxr.esr", &end, READ);
    check("ldxr.far", end.far, NO_RAM);
    let fetched = go(&[0; 32], NO_RAM + 0x40, MASKED);
    syndrome("fetch.esr", &fetched, 0x21 << 26 | 1 << 25 | 0x10);
    check("fetch.far", fetched.far, NO_RAM + 0x40);
    check("fetch.elr", fetched.elr, NO_RAM + 0x40);
    check("fetch.spsr", fetched.spsr & 0x3df, MASKED);
    // Stage 1's own faults.
    let fetched = go(&[0; 32], 0x0900_0000, MASKED);
    check("fetch.device.esr", fetched.esr, 0x21 << 26 | 1 << 25 | 0x0d);
    let end = probe(LDR_W, [0x70_0000_0000, 0, 0, 0]);
    check("unmapped.esr", end.esr, 0x25 << 26 | 1 << 25 | 0x05);
    let end = probe(STR_W, [0x70_0000_0008, 0, 0, 0]);
    check(
        "unmapped.write.esr",
        end.esr,
        0x25 << 26 | 1 << 25 | 1 << 6 | 0x05,
    );
    check("unmapped.write.far", end.far, 0x70_0000_0008);
    // Unaligned: not on devices.
    for (name, at) in [
        ("unaligned.uart", 0x0900_0001),
        ("unaligned.gicd", 0x0800_0002),
        ("unaligned.nothing", NO_DEVICE + 3),
    ] {
        let end = probe(LDR_W, [at, 0, 0, 0]);
        check(name, end.esr, 0x25 << 26 | 1 << 25 | 0x21);
        check(name, end.far, at);
    }
    let end = probe(0xd50b_7420, [0x0900_0000, 0, 0, 0]);
    open(
        "dc-zva.device.esr",
        end.esr,
        "emulators let it pass, or abort: an alignment fault on hardware",
    );
    check(
        "unaligned.ram",
        probe(LDR_W, [code() + 0x101, 0, 0, 0]).outcome(),
        0,
    );
    // PC and SP.
    let end = go(&[0; 32], code() + 2, MASKED);
    check("pc-alignment", end.esr, 0x22 << 26 | 1 << 25);
    check("pc-alignment.far", end.far, code() + 2);
    // Devices that exist answer pairs or abort; both are allowed.
    open(
        "ldp.gicd",
        probe(LDP, [0x0800_0000, 0, 0, 0]).esr,
        "pairs on devices",
    );
    open(
        "ldr-x.uart",
        probe(LDR_X, [0x0900_0018, 0, 0, 0]).esr,
        "64-bit accesses of the UART",
    );
}
