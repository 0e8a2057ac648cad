//! Interrupts on their way: from pending to active to ended, by priority, to one CPU or the other.

use crate::exception::{INTERRUPTIBLE, read, run as execute, write};
use crate::gic::*;
use crate::power;
use crate::report::{check, open, own};

const NONE: u64 = 1023;
const IDLE: u64 = 0xff;

fn interface_v3() {
    check("icc.sre", read(SRE) & 1, 1);
    for value in [0x80, 0x40, 0] {
        write(PMR, value);
        check("icc.pmr", read(PMR), value);
    }
    write(PMR, 0xff);
    open("icc.pmr.all", read(PMR), "number of priority bits");
    check("icc.pmr.upper-bits", read(PMR) & 0xf0, 0xf0);
    for (name, register) in [("icc.bpr0", BPR0), ("icc.bpr1", BPR1)] {
        for value in [7, 4] {
            write(register, value);
            check(name, read(register), value);
        }
        write(register, 0);
        open(name, read(register), "smallest binary point");
    }
    for (name, register) in [("icc.igrpen0", IGRPEN0), ("icc.igrpen1", IGRPEN1)] {
        for value in [0, 1] {
            write(register, value);
            check(name, read(register) & 1, value);
        }
    }
    for value in [0, 1, 2, 3, 0] {
        write(CTLR, value);
        check("icc.ctlr", read(CTLR) & 3, value);
    }
    open(
        "icc.ctlr.fields",
        read(CTLR),
        "priority and identifier bits",
    );
    check("icc.rpr.idle", read(RPR) & 0xff, IDLE);
    check("icc.hppir1.idle", read(HPPIR1), NONE);
    check("icc.iar1.idle", take(), NONE);
    check("icc.isr.idle", signalled(), 0);
}

fn interface_v2() {
    for value in [0x80, 0x40, 0] {
        write32(GICC_PMR, value);
        check("gicc.pmr", read32(GICC_PMR), value);
    }
    write32(GICC_PMR, 0xff);
    open("gicc.pmr.all", read32(GICC_PMR), "number of priority bits");
    check("gicc.pmr.upper-bits", read32(GICC_PMR) & 0xf0, 0xf0);
    for value in [7, 4] {
        write32(GICC_BPR, value);
        check("gicc.bpr", read32(GICC_BPR), value);
    }
    write32(GICC_BPR, 0);
    open("gicc.bpr", read32(GICC_BPR), "smallest binary point");
    // Groups, AckCtl, FIQEn, CBPR, EOImode.
    for value in [0x21f, 0x201, 0, 2, 1] {
        write32(GICC_CTLR, value);
        check("gicc.ctlr", read32(GICC_CTLR), value);
    }
    check("gicc.rpr.idle", read32(GICC_RPR), IDLE);
    check("gicc.hppir.idle", read32(GICC_HPPIR), NONE);
    check("gicc.iar.idle", read32(GICC_IAR), NONE);
    check("gicc.isr.idle", signalled(), 0);
    check("gicc.iidr.architecture", read32(GICC + 0xfc) >> 16 & 0xf, 2);
    // Write-only ones.
    for (name, at) in [("gicc.eoir", GICC_EOIR), ("gicc.aeoir", GICC_AEOIR)] {
        open(name, read32(at), "write-only");
    }
}

fn states() {
    prepare(60, 0x80);
    set(CLEAR_ENABLE, 60);
    set(SET_PENDING, 60);
    check("disabled.not-signalled", signalled(), 0);
    check("disabled.kept-pending", bit(SET_PENDING, 60), 1);
    set(SET_ENABLE, 60);
    check("enabled.signalled", signalled(), 2);
    check("enabled.hppir1", highest(), 60);
    set(CLEAR_PENDING, 60);
    check("cleared.not-signalled", signalled(), 0);
    check("cleared.iar1", take(), NONE);
    set(SET_PENDING, 60);
    mask(0x80);
    check("masked-by-pmr.not-signalled", signalled(), 0);
    check("masked-by-pmr.iar1", take(), NONE);
    mask(0x88);
    check("unmasked-by-pmr.signalled", signalled(), 2);
    mask(0xff);
    interface(false, false);
    check("group-off-in-interface", signalled(), 0);
    interface(true, false);
    forward(false);
    check("group-off-in-distributor", signalled(), 0);
    check("group-off-in-distributor.kept", bit(SET_PENDING, 60), 1);
    forward(true);
    check("group-on.signalled", signalled(), 2);
    check("taken", take(), 60);
    check("taken.active", bit(SET_ACTIVE, 60), 1);
    check("taken.not-pending", bit(SET_PENDING, 60), 0);
    check("taken.rpr", running(), 0x80);
    set(SET_PENDING, 60);
    check("active-and-pending.not-signalled", signalled(), 0);
    check("active-and-pending.pending", bit(SET_PENDING, 60), 1);
    check("active-and-pending.active", bit(SET_ACTIVE, 60), 1);
    end(60);
    check("ended.rpr", running(), IDLE);
    check("ended.inactive", bit(SET_ACTIVE, 60), 0);
    check("ended.again", take(), 60);
    end(60);
    check("ended.nothing-left", signalled(), 0);
    // An interrupt made active by software isn't delivered until it's made inactive.
    set(SET_ACTIVE, 60);
    set(SET_PENDING, 60);
    check("software-active.not-signalled", signalled(), 0);
    set(CLEAR_ACTIVE, 60);
    check("software-inactive.signalled", signalled(), 2);
    check("software-inactive.taken", take(), 60);
    end(60);
    // A level-sensitive one set pending by software is pending until it's taken.
    edge(60, false);
    set(SET_PENDING, 60);
    check("level.signalled", signalled(), 2);
    check("level.taken", take(), 60);
    check("level.not-pending", bit(SET_PENDING, 60), 0);
    end(60);
    check("level.once", signalled(), 0);
    set(SET_PENDING, 60);
    set(CLEAR_PENDING, 60);
    check("level.cleared", signalled(), 0);
}

fn priorities() {
    for (intid, value) in [(60, 0x80), (61, 0x80), (62, 0x40), (63, 0xa0)] {
        prepare(intid, value);
    }
    binary_point(8);
    set(SET_PENDING, 60);
    check("preempt.first", take(), 60);
    set(SET_PENDING, 61);
    check("preempt.equal-waits", signalled(), 0);
    check("preempt.equal-waits.iar1", take(), NONE);
    set(SET_PENDING, 63);
    set(SET_PENDING, 62);
    check("preempt.higher-signalled", signalled(), 2);
    check("preempt.higher", take(), 62);
    check("preempt.higher.rpr", running(), 0x40);
    end(62);
    check("preempt.back.rpr", running(), 0x80);
    check("preempt.back.waits", signalled(), 0);
    end(60);
    check("preempt.next", take(), 61);
    end(61);
    check("preempt.last", take(), 63);
    check("preempt.last.rpr", running(), 0xa0);
    end(63);
    // Binary point: 0x80 doesn't preempt 0xa0 when only one bit counts.
    for (name, bits, preempts) in [
        ("binary-point.waits", 1, false),
        ("binary-point.preempts", 5, true),
    ] {
        binary_point(bits);
        set(SET_PENDING, 63);
        check(name, take(), 63);
        set(SET_PENDING, 60);
        check(name, signalled(), if preempts { 2 } else { 0 });
        if !preempts {
            end(63);
        }
        check(name, take(), 60);
        end(60);
        if preempts {
            end(63);
        }
        check(name, running(), IDLE);
    }
    binary_point(8);
    // A priority changed while pending.
    set(SET_PENDING, 60);
    set(SET_PENDING, 61);
    priority(61, 0x20);
    check("priority-raised", take(), 61);
    end(61);
    check("priority-raised.then", take(), 60);
    end(60);
}

fn end_modes() {
    prepare(60, 0x80);
    prepare(61, 0x80);
    interface(true, true);
    set(SET_PENDING, 60);
    check("eoimode1.taken", take(), 60);
    end(60);
    check("eoimode1.dropped.rpr", running(), IDLE);
    check("eoimode1.still-active", bit(SET_ACTIVE, 60), 1);
    set(SET_PENDING, 60);
    check("eoimode1.same-waits", signalled(), 0);
    set(SET_PENDING, 61);
    check("eoimode1.other", take(), 61);
    end(61);
    deactivate(61);
    check("eoimode1.other.inactive", bit(SET_ACTIVE, 61), 0);
    deactivate(60);
    check("eoimode1.deactivated", bit(SET_ACTIVE, 60), 0);
    check("eoimode1.same-again", take(), 60);
    end(60);
    deactivate(60);
    interface(true, false);
    check("eoimode1.nothing-left", signalled(), 0);
}

/// 40 at once, more than any CPU interface has list registers.
fn many() {
    for intid in 56..96 {
        prepare(intid, 8 + (intid * 7 % 20) * 8);
    }
    for intid in 56..96 {
        set(SET_PENDING, intid);
    }
    check("many.pending1", read32(GICD + SET_PENDING + 4) >> 24, 0xff);
    check("many.pending2", read32(GICD + SET_PENDING + 8), 0xffff_ffff);
    let (mut seen, mut last, mut disordered, mut twice) = (0u128, 0, 0, 0);
    for _ in 0..40 {
        let intid = take();
        if intid >= NONE {
            break;
        }
        let rank = intid * 7 % 20;
        disordered += u64::from(rank < last);
        last = rank;
        twice += u64::from(seen >> intid & 1 == 1);
        seen |= 1 << intid;
        end(intid);
    }
    check("many.taken", u64::from(seen.count_ones()), 40);
    check("many.out-of-order", disordered, 0);
    check("many.twice", twice, 0);
    check("many.left", take(), NONE);
    // All active at once, by software, and again not.
    write32(GICD + SET_ACTIVE + 8, 0xffff_ffff);
    check("many.active", read32(GICD + SET_ACTIVE + 8), 0xffff_ffff);
    write32(GICD + CLEAR_ACTIVE + 8, 0xffff_ffff);
    check("many.inactive", read32(GICD + SET_ACTIVE + 8), 0);
    // Withdrawn while more wait than fit.
    write32(GICD + SET_PENDING + 8, 0xffff_ffff);
    write32(GICD + CLEAR_PENDING + 8, 0xffff_fffe);
    check("many.withdrawn", read32(GICD + SET_PENDING + 8), 1);
    check("many.withdrawn.taken", take(), 64);
    end(64);
    check("many.withdrawn.left", take(), NONE);
    for intid in 56..96 {
        set(CLEAR_ENABLE, intid);
    }
}

fn groups_v3() {
    prepare(60, 0x80);
    prepare(61, 0x80);
    group(60, false);
    set(SET_PENDING, 60);
    check("group0.fiq", signalled(), 1);
    check("group0.iar1", take(), NONE);
    check("group0.hppir0", read([3, 0, 12, 8, 2]), 60);
    check("group0.iar0", read(IAR0), 60);
    check("group0.rpr", running(), 0x80);
    check("group0.active", bit(SET_ACTIVE, 60), 1);
    write(EOIR0, 60);
    check("group0.ended", bit(SET_ACTIVE, 60), 0);
    check("group0.idle", read(IAR0), NONE);
    set(SET_PENDING, 60);
    group(60, true);
    check("group-changed.irq", signalled(), 2);
    check("group-changed.iar0", read(IAR0), NONE);
    check("group-changed.iar1", take(), 60);
    end(60);
}

fn generated_v3() {
    for intid in [3, 5, 15] {
        prepare(intid, 0x80);
    }
    write(SGI1R, 5 << 24 | 1);
    check("sgi.self.pending", bit(SET_PENDING, 5), 1);
    check("sgi.self.signalled", signalled(), 2);
    check("sgi.self.taken", take(), 5);
    write(SGI1R, 5 << 24 | 1);
    check("sgi.self.active-and-pending", bit(SET_PENDING, 5), 1);
    end(5);
    check("sgi.self.again", take(), 5);
    end(5);
    write(SGI1R, 15 << 24 | 1);
    write(SGI1R, 15 << 24 | 1);
    check("sgi.twice-is-once", take(), 15);
    end(15);
    check("sgi.twice-is-once.left", take(), NONE);
    for (name, value) in [
        ("sgi.nobody", 5 << 24),
        ("sgi.no-such-cpu", 5 << 24 | 0xfffc),
        ("sgi.no-such-aff1", 5 << 24 | 7 << 16 | 1),
        ("sgi.no-such-aff3", 5 << 24 | 9 << 48 | 1),
        ("sgi.all-but-self", 5 << 24 | 1 << 40),
    ] {
        write(SGI1R, value);
        check(name, take(), NONE);
    }
    set(CLEAR_ENABLE, 5);
    write(SGI1R, 5 << 24 | 1);
    check("sgi.disabled", signalled(), 0);
    check("sgi.disabled.kept", bit(SET_PENDING, 5), 1);
    set(SET_ENABLE, 5);
    check("sgi.enabled", take(), 5);
    end(5);
    set(SET_PENDING, 5);
    check("sgi.by-ispendr", take(), 5);
    end(5);
}

/// An IRQ taken as an exception: from the current EL on SP_EL0.
fn exception() {
    prepare(60, 0x80);
    set(SET_PENDING, 60);
    let nop = 0xd503_201f;
    let taken = execute(&[nop, nop], &[0; 32], INTERRUPTIBLE);
    check("exception.vector", taken.vector, 1);
    let at_once = taken.elr <= crate::exception::code() + 8;
    check("exception.elr", u64::from(at_once), 1);
    check("exception.spsr", taken.spsr & 0x3df, INTERRUPTIBLE);
    check("exception.iar", take(), 60);
    end(60);
}

fn groups_v2() {
    prepare(60, 0x80);
    prepare(61, 0x90);
    write32(GICD, 3);
    // Group 0 as an FIQ, group 1 as an IRQ.
    write32(GICC_CTLR, 0b1011);
    set(SET_PENDING, 60);
    check("group0.fiq", signalled(), 1);
    check("group0.iar", take(), 60);
    end(60);
    check("group0.ended", bit(SET_ACTIVE, 60), 0);
    // Group 1 by its own registers, which QEMU's GICC doesn't have.
    group(60, true);
    set(SET_PENDING, 60);
    check("group1.irq", signalled(), 2);
    check("group1.hppir", highest(), 1022);
    check("group1.iar", take(), 1022);
    let reason = "in QEMU, neither GICC nor GICV has it";
    open("group1.ahppir", read32(GICC_AHPPIR), reason);
    let taken = read32(GICC_AIAR);
    open("group1.aiar", taken, reason);
    if taken == 60 {
        check("group1.active", bit(SET_ACTIVE, 60), 1);
        check("group1.rpr", running(), 0x80);
        write32(GICC_AEOIR, 60);
        check("group1.ended", bit(SET_ACTIVE, 60), 0);
    }
    check("group1.ended.rpr", running(), IDLE);
    set(CLEAR_PENDING, 60);
    // AckCtl: IAR takes those, too.
    write32(GICC_CTLR, 0b1111);
    set(SET_PENDING, 60);
    check("ackctl.hppir", highest(), 60);
    check("ackctl.iar", take(), 60);
    end(60);
    check("ackctl.ended", bit(SET_ACTIVE, 60), 0);
    // One group off: it waits.
    write32(GICC_CTLR, 0b1101);
    set(SET_PENDING, 60);
    check("group1-off.waits", signalled(), 0);
    set(SET_PENDING, 61);
    // The distributor passes on the highest only: whether the interface looks past it is open.
    open(
        "group1-off.other",
        signalled(),
        "which of two groups is looked at",
    );
    set(CLEAR_PENDING, 60);
    set(CLEAR_PENDING, 61);
    group(60, false);
    write32(GICC_CTLR, 1);
    write32(GICD, 1);
    check("groups.none", take(), NONE);
}

/// SGIs by GICD_SGIR, for each sender one.
fn generated_v2() {
    for intid in [3, 5, 7] {
        prepare(intid, 0x80);
    }
    send(5, 1);
    check("sgi.self.pending", bit(SET_PENDING, 5), 1);
    check("sgi.self.spendsgir", read8(SET_SGI + 5), 1);
    check("sgi.self.signalled", signalled(), 2);
    check("sgi.self.taken", take(), 5);
    check("sgi.self.active", bit(SET_ACTIVE, 5), 1);
    send(5, 1);
    check("sgi.self.active-and-pending", bit(SET_PENDING, 5), 1);
    end(5);
    check("sgi.self.again", take(), 5);
    end(5);
    write32(SGIR, 2 << 24 | 5);
    check("sgi.filter-self", take(), 5);
    end(5);
    send(7, 1);
    send(7, 1);
    check("sgi.twice-is-once", take(), 7);
    end(7);
    check("sgi.twice-is-once.left", take(), NONE);
    for (name, value) in [
        ("sgi.nobody", 5),
        ("sgi.no-such-cpu", 0xfc << 16 | 5),
        ("sgi.all-but-self", 1 << 24 | 5),
    ] {
        write32(SGIR, value);
        check(name, take(), NONE);
    }
    // ISPENDR's bits of SGIs are read-only.
    set(SET_PENDING, 5);
    check("sgi.by-ispendr", take(), NONE);
    // Pending for both CPUs: taken once for each, in either order.
    write8(SET_SGI + 7, 3);
    check("sgi.sources", read8(SET_SGI + 7), 3);
    check("sgi.sources.word", read32(CLEAR_SGI + 4), 3 << 24);
    let first = take();
    end(first);
    check(
        "sgi.sources.one-left",
        read8(CLEAR_SGI + 7).count_ones().into(),
        1,
    );
    let second = take();
    end(second);
    check("sgi.sources.first", first & 0x3ff, 7);
    check("sgi.sources.second", second & 0x3ff, 7);
    check("sgi.sources.both", first ^ second, 1 << 10);
    check("sgi.sources.none", take(), NONE);
    // One of them cleared before.
    write8(SET_SGI + 7, 3);
    write8(CLEAR_SGI + 7, 1);
    check("sgi.sources.cleared", read8(SET_SGI + 7), 2);
    check("sgi.sources.other", take(), 1 << 10 | 7);
    end(1 << 10 | 7);
    write32(SET_SGI + 4, 0x0101_0101);
    check("sgi.sources.all", read32(SET_SGI + 4), 0x0101_0101);
    write32(CLEAR_SGI + 4, 0xffff_ffff);
    check("sgi.sources.none-left", read32(SET_SGI + 4), 0);
    check("sgi.sources.all-cleared", take(), NONE);
}

fn other_cpu() {
    power::start();
    send(3, 2);
    check("sgi.other", power::received(1), 1);
    send_others(3);
    check("sgi.others", power::received(2), 2);
    check("sgi.others.not-self", take(), NONE);
    // By its own registers, which only a GICv3 shows to others; and an SPI routed to it.
    if is_v2() {
        send(3, 2);
    } else {
        write32(SGI + GICR_SIZE + SET_PENDING, 1 << 3);
    }
    check("sgi.other.by-ispendr", power::received(3), 3);
    prepare(60, 0x80);
    route(60, Some(1));
    set(SET_PENDING, 60);
    check("spi.other", power::received(4), 4);
    check("spi.other.not-here", take(), NONE);
    route(60, None);
    set(SET_PENDING, 60);
    check("spi.nobody", signalled(), 0);
    let kept = bit(SET_PENDING, 60);
    route(60, Some(0));
    // In finite time: the other CPU may have to let go of it first. A second is plenty.
    power::wait_for(2, 1, signalled);
    let back = take();
    if is_v2() {
        // QEMU's GICv2 forgets an SPI that is made pending while it has no target.
        own("spi.nobody.kept", kept, 1);
        own("spi.routed-back", back, 60);
    } else {
        check("spi.nobody.kept", kept, 1);
        check("spi.routed-back", back, 60);
    }
    if back != NONE {
        end(back);
    }
    power::stop();
}

/// All of it.
pub fn run() {
    if is_v2() {
        interface_v2();
    } else {
        interface_v3();
    }
    states();
    priorities();
    end_modes();
    many();
    if is_v2() {
        groups_v2();
        generated_v2();
    } else {
        groups_v3();
        generated_v3();
    }
    exception();
    other_cpu();
}
