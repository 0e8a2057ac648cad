//! Distributor and redistributors, register by register.

use crate::gic::*;
use crate::report::{check, open, own};

/// Pairs of registers that set and clear, and what they are about.
const ENABLE: (&str, u64, u64) = ("enable", SET_ENABLE, CLEAR_ENABLE);
const PENDING: (&str, u64, u64) = ("pending", SET_PENDING, CLEAR_PENDING);
const ACTIVE: (&str, u64, u64) = ("active", SET_ACTIVE, CLEAR_ACTIVE);

/// One word of such pairs.
fn pairs(unit: &str, base: u64, bits: u64, pairs: &[(&str, u64, u64)]) {
    for &(what, set, clear) in pairs {
        write32(base + clear, 0xffff_ffff & bits);
        check(
            format_args!("{unit}.{what}.none"),
            read32(base + set) & bits,
            0,
        );
        write32(base + set, bits);
        write32(base + set, 0);
        check(
            format_args!("{unit}.{what}.set"),
            read32(base + set) & bits,
            bits,
        );
        let half = bits & 0x0f0f_0f0f;
        write32(base + clear, half);
        check(
            format_args!("{unit}.{what}.clear"),
            read32(base + clear) & bits,
            bits & !half,
        );
        write32(base + clear, bits);
    }
}

/// This CPU's own interrupts, which a GICv2 has in the distributor: 0 to 31. Leaves their groups as `group`.
fn private(unit: &str, base: u64, group: u64) {
    write32(base + CONFIG, 0);
    check(
        format_args!("{unit}.icfgr0.ro"),
        read32(base + CONFIG) & 0xaaaa_aaaa,
        0xaaaa_aaaa,
    );
    open(
        format_args!("{unit}.icfgr1"),
        read32(base + CONFIG + 4),
        "which PPIs are level-sensitive",
    );
    let at = base + PRIORITY + 4;
    write32(at, 0x2040_6080);
    check(
        format_args!("{unit}.priority0.word"),
        read32(at),
        0x2040_6080,
    );
    write8(at + 1, 0xf0);
    check(
        format_args!("{unit}.priority0.one-byte"),
        read32(at),
        0x2040_f080,
    );
    check(format_args!("{unit}.priority0.byte"), read8(at + 1), 0xf0);
    for value in [0xffff_ffff, 0xffff_a5a5, group] {
        write32(base + GROUP, value);
        check(format_args!("{unit}.igroupr0"), read32(base + GROUP), value);
    }
}

fn distributor() {
    write32(GICD, 0);
    check("gicd.ctlr.off", read32(GICD) & 0x53, 0x50);
    write32(GICD, 0x1);
    check("gicd.ctlr.group0", read32(GICD) & 0x53, 0x51);
    write32(GICD, 0x3);
    check("gicd.ctlr.on", read32(GICD) & 0x53, 0x53);
    check("gicd.ctlr.rwp", read32(GICD) >> 31, 0);
    let typer = read32(GICD + 4);
    open("gicd.typer", typer, "implemented INTIDs and features");
    check("gicd.typer.at-least-96", u64::from(typer & 0x1f >= 2), 1);
    check(
        "gicd.typer.idbits-at-least-10",
        u64::from(typer >> 19 & 0x1f >= 9),
        1,
    );
    write32(GICD + 4, 0);
    check("gicd.typer.ro", u64::from(read32(GICD + 4) == typer), 1);
    open("gicd.iidr", read32(GICD + 8), "implementer");
    check("gicd.pidr2.archrev", read32(GICD + 0xffe8) >> 4 & 0xf, 3);
    for (name, offset) in [
        ("gicd.igroupr0", GROUP),
        ("gicd.isenabler0", SET_ENABLE),
        ("gicd.icenabler0", CLEAR_ENABLE),
        ("gicd.ispendr0", SET_PENDING),
        ("gicd.icpendr0", CLEAR_PENDING),
        ("gicd.isactiver0", SET_ACTIVE),
        ("gicd.icactiver0", CLEAR_ACTIVE),
        ("gicd.ipriorityr0", PRIORITY),
        ("gicd.ipriorityr7", PRIORITY + 28),
        ("gicd.icfgr1", CONFIG + 4),
        ("gicd.isenabler31", SET_ENABLE + 31 * 4),
        ("gicd.ispendr31", SET_PENDING + 31 * 4),
        ("gicd.isactiver31", SET_ACTIVE + 31 * 4),
        ("gicd.itargetsr8", 0x820),
        ("gicd.igrpmodr2", 0xd08),
        ("gicd.nsacr2", 0xe08),
        ("gicd.cpendsgir0", 0xf10),
        ("gicd.spendsgir0", 0xf20),
        ("gicd.reserved-14", 0x14),
        ("gicd.reserved-30", 0x30),
    ] {
        write32(GICD + offset, 0xffff_ffff);
        check(name, read32(GICD + offset), 0);
    }
    shared();
    let route = GICD + 0x6000 + 64 * 8;
    write64(route, 1);
    check("gicd.irouter.double", read64(route), 1);
    check("gicd.irouter.low", read32(route), 1);
    check("gicd.irouter.high", read32(route + 4), 0);
    write32(route, 0);
    check("gicd.irouter.word", read64(route), 0);
    check("gicd.irouter31", read64(GICD + 0x6000 + 31 * 8), 0);
}

/// What is the same in both versions: shared interrupts, 64 to 95, which nothing drives.
fn shared() {
    let word = 8;
    pairs("gicd", GICD + word, 0xffff_ffff, &[ENABLE]);
    for edge in [0xaaaa_aaaa, 0] {
        write32(GICD + CONFIG + 16, edge);
        write32(GICD + CONFIG + 20, edge);
        check(
            "gicd.icfgr4",
            read32(GICD + CONFIG + 16) & 0xaaaa_aaaa,
            edge,
        );
        check(
            "gicd.icfgr5",
            read32(GICD + CONFIG + 20) & 0xaaaa_aaaa,
            edge,
        );
        pairs("gicd", GICD + word, 0xffff_ffff, &[PENDING, ACTIVE]);
    }
    for value in [0xffff_ffff, 0x5a5a_a5a5, 0] {
        write32(GICD + GROUP + word, value);
        check("gicd.igroupr2", read32(GICD + GROUP + word), value);
    }
    let at = GICD + PRIORITY + 64;
    write32(at, 0xa0c0_4080);
    check("gicd.priority.word", read32(at), 0xa0c0_4080);
    check("gicd.priority.byte0", read8(at), 0x80);
    check("gicd.priority.byte3", read8(at + 3), 0xa0);
    write8(at + 1, 0x10);
    check("gicd.priority.one-byte", read32(at), 0xa0c0_1080);
    write32(at, 0xffff_ffff);
    open("gicd.priority.bits", read32(at), "number of priority bits");
    check(
        "gicd.priority.upper-bits",
        read32(at) & 0xf0f0_f0f0,
        0xf0f0_f0f0,
    );
    // Widths that the specification doesn't list.
    let reason = "width not listed for the register";
    open("gicd.typer.half", read16(GICD + 4), reason);
    open("gicd.typer.byte", read8(GICD + 4), reason);
    open("gicd.typer.double", read64(GICD), reason);
    open("gicd.isenabler2.byte", read8(GICD + SET_ENABLE + 8), reason);
    write32(at, 0x8080_8080);
    write16(at, 0x4040);
    open("gicd.priority.half", read32(at), reason);
    write32(at, 0);
    check("gicd.priority.after", read32(at), 0);
    write32(GICD + CLEAR_ENABLE + word, 0xffff_ffff);
}

/// A GICv2's distributor.
fn distributor_v2() {
    for value in [0, 1, 2, 3] {
        write32(GICD, value);
        check("gicd.ctlr", read32(GICD), value);
    }
    let typer = read32(GICD + 4);
    open("gicd.typer", typer, "implemented INTIDs");
    check("gicd.typer.at-least-96", u64::from(typer & 0x1f >= 2), 1);
    check("gicd.typer.cpus", typer >> 5 & 7, 1);
    write32(GICD + 4, 0);
    check("gicd.typer.ro", u64::from(read32(GICD + 4) == typer), 1);
    open("gicd.iidr", read32(GICD + 8), "implementer");
    check("gicd.pidr2.archrev", read32(GICD + 0xfe8) >> 4 & 0xf, 2);
    for (name, offset) in [
        ("gicd.isenabler31", SET_ENABLE + 31 * 4),
        ("gicd.ispendr31", SET_PENDING + 31 * 4),
        ("gicd.isactiver31", SET_ACTIVE + 31 * 4),
        ("gicd.reserved-14", 0x14),
        ("gicd.reserved-30", 0x30),
        ("gicd.reserved-f30", 0xf30),
    ] {
        write32(GICD + offset, 0xffff_ffff);
        check(name, read32(GICD + offset), 0);
    }
    // This CPU's own interrupts.
    open(
        "gicd.isenabler0",
        read32(GICD + SET_ENABLE),
        "SGIs may always be enabled",
    );
    for ppi in [1 << 20, 1 << 24 | 1 << 28] {
        pairs("gicd.private", GICD, ppi, &[ENABLE, PENDING, ACTIVE]);
    }
    write32(GICD + SET_PENDING, 0xffff);
    check("gicd.ispendr0.sgis", read32(GICD + SET_PENDING) & 0xffff, 0);
    private("gicd", GICD, 0);
    for n in [0, 28] {
        write32(GICD + TARGETS + n, 0);
        check(
            "gicd.itargetsr0.ro",
            read32(GICD + TARGETS + n),
            0x0101_0101,
        );
    }
    let at = GICD + TARGETS + 64;
    write32(at, 0x0102_0300);
    check("gicd.itargetsr.word", read32(at), 0x0102_0300);
    check("gicd.itargetsr.byte", read8(at + 2), 2);
    write8(at + 3, 0xff);
    // QEMU's has these bits for CPUs that aren't.
    own("gicd.itargetsr.no-such-cpu", read32(at), 0x0302_0300);
    for intid in 64..96 {
        write8(GICD + TARGETS + intid, 1);
    }
    check("gicd.itargetsr.one-byte", read32(at), 0x0101_0101);
    shared();
    check("gicd.sgir.wo", read32(SGIR), 0);
    write32(CLEAR_SGI, 0xffff_ffff);
    check("gicd.cpendsgir", read32(CLEAR_SGI), 0);
}

fn redistributors() {
    check("gicr0.typer", read64(GICR + 8) & 0xffff_ffff_00ff_ff10, 0);
    let second = GICR + GICR_SIZE;
    check(
        "gicr1.typer",
        read64(second + 8) & 0xffff_ffff_00ff_ff10,
        0x1_0000_0110,
    );
    check("gicr1.typer.low", read32(second + 8) & 0x00ff_ff10, 0x110);
    check("gicr1.typer.high", read32(second + 12), 1);
    open("gicr0.typer.features", read32(GICR + 8) & 0xff, "LPIs");
    check("gicr0.pidr2.archrev", read32(GICR + 0xffe8) >> 4 & 0xf, 3);
    open("gicr0.iidr", read32(GICR + 4), "implementer");
    check("gicr0.ctlr.rwp", read32(GICR) & (1 << 3 | 1 << 31), 0);
    check("gicr1.waker.reset", read32(second + 0x14) & 6, 6);
    write32(second + 0x14, 0);
    check("gicr1.waker.awake", read32(second + 0x14) & 6, 0);
    write32(second + 0x14, 2);
    check("gicr1.waker.asleep", read32(second + 0x14) & 6, 6);
    check("gicr0.waker", read32(GICR + 0x14) & 6, 0);

    pairs("gicr0", SGI, 0xffff, &[ENABLE, PENDING, ACTIVE]);
    pairs("gicr1", SGI + GICR_SIZE, 0xffff, &[ENABLE, PENDING]);
    check("gicr0.igrpmodr0", read32(SGI + 0xd00), 0);
    check("gicr0.nsacr", read32(SGI + 0xe00), 0);
    check("gicr0.isenabler1", read32(SGI + SET_ENABLE + 4), 0);
    check("gicr0.ispendr1", read32(SGI + SET_PENDING + 4), 0);
    private("gicr0", SGI, 0xffff_ffff);
}

/// All of them.
pub fn run() {
    if is_v2() {
        return distributor_v2();
    }
    distributor();
    redistributors();
}
