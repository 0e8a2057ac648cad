//! Interrupts on their way: from pending to active to ended, by priority, to one CPU or the other.

use crate::exception::{INTERRUPTIBLE, read, run as execute, write};
use crate::gic::*;
use crate::power;
use crate::report::{check, open};

const NONE: u64 = 1023;
const IDLE: u64 = 0xff;

fn interface() {
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

fn states() {
    prepare(60, 0x80);
    set(CLEAR_ENABLE, 60);
    set(SET_PENDING, 60);
    check("disabled.not-signalled", signalled(), 0);
    check("disabled.kept-pending", bit(SET_PENDING, 60), 1);
    set(SET_ENABLE, 60);
    check("enabled.signalled", signalled(), 2);
    check("enabled.hppir1", read(HPPIR1), 60);
    set(CLEAR_PENDING, 60);
    check("cleared.not-signalled", signalled(), 0);
    check("cleared.iar1", take(), NONE);
    set(SET_PENDING, 60);
    write(PMR, 0x80);
    check("masked-by-pmr.not-signalled", signalled(), 0);
    check("masked-by-pmr.iar1", take(), NONE);
    write(PMR, 0x88);
    check("unmasked-by-pmr.signalled", signalled(), 2);
    write(PMR, 0xff);
    write(IGRPEN1, 0);
    check("group-off-in-interface", signalled(), 0);
    write(IGRPEN1, 1);
    write32(GICD, 0x1);
    check("group-off-in-distributor", signalled(), 0);
    check("group-off-in-distributor.kept", bit(SET_PENDING, 60), 1);
    write32(GICD, 0x3);
    check("group-on.signalled", signalled(), 2);
    check("taken", take(), 60);
    check("taken.active", bit(SET_ACTIVE, 60), 1);
    check("taken.not-pending", bit(SET_PENDING, 60), 0);
    check("taken.rpr", read(RPR) & 0xff, 0x80);
    set(SET_PENDING, 60);
    check("active-and-pending.not-signalled", signalled(), 0);
    check("active-and-pending.pending", bit(SET_PENDING, 60), 1);
    check("active-and-pending.active", bit(SET_ACTIVE, 60), 1);
    end(60);
    check("ended.rpr", read(RPR) & 0xff, IDLE);
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
    write(BPR1, 0);
    set(SET_PENDING, 60);
    check("preempt.first", take(), 60);
    set(SET_PENDING, 61);
    check("preempt.equal-waits", signalled(), 0);
    check("preempt.equal-waits.iar1", take(), NONE);
    set(SET_PENDING, 63);
    set(SET_PENDING, 62);
    check("preempt.higher-signalled", signalled(), 2);
    check("preempt.higher", take(), 62);
    check("preempt.higher.rpr", read(RPR) & 0xff, 0x40);
    end(62);
    check("preempt.back.rpr", read(RPR) & 0xff, 0x80);
    check("preempt.back.waits", signalled(), 0);
    end(60);
    check("preempt.next", take(), 61);
    end(61);
    check("preempt.last", take(), 63);
    check("preempt.last.rpr", read(RPR) & 0xff, 0xa0);
    // Binary point: 0x80 doesn't preempt 0xa0 when only one bit counts.
    write(BPR1, 7);
    set(SET_PENDING, 60);
    check("binary-point.waits", signalled(), 0);
    write(BPR1, 3);
    check("binary-point.preempts", signalled(), 2);
    write(BPR1, 0);
    check("binary-point.taken", take(), 60);
    end(60);
    end(63);
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
    write(CTLR, 2);
    set(SET_PENDING, 60);
    check("eoimode1.taken", take(), 60);
    end(60);
    check("eoimode1.dropped.rpr", read(RPR) & 0xff, IDLE);
    check("eoimode1.still-active", bit(SET_ACTIVE, 60), 1);
    set(SET_PENDING, 60);
    check("eoimode1.same-waits", signalled(), 0);
    set(SET_PENDING, 61);
    check("eoimode1.other", take(), 61);
    end(61);
    write(DIR, 61);
    check("eoimode1.other.inactive", bit(SET_ACTIVE, 61), 0);
    write(DIR, 60);
    check("eoimode1.deactivated", bit(SET_ACTIVE, 60), 0);
    check("eoimode1.same-again", take(), 60);
    end(60);
    write(DIR, 60);
    write(CTLR, 0);
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

fn groups() {
    prepare(60, 0x80);
    prepare(61, 0x80);
    group(60, false);
    set(SET_PENDING, 60);
    check("group0.fiq", signalled(), 1);
    check("group0.iar1", take(), NONE);
    check("group0.hppir0", read([3, 0, 12, 8, 2]), 60);
    check("group0.iar0", read(IAR0), 60);
    check("group0.rpr", read(RPR) & 0xff, 0x80);
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

fn generated() {
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
    set(SET_PENDING, 5);
    // Taken as an exception: IRQ from the current EL on SP_EL0.
    let nop = 0xd503_201f;
    let taken = execute(&[nop, nop], &[0; 32], INTERRUPTIBLE);
    check("exception.vector", taken.vector, 1);
    check(
        "exception.elr",
        u64::from(taken.elr <= crate::exception::code() + 8),
        1,
    );
    check("exception.spsr", taken.spsr & 0x3df, INTERRUPTIBLE);
    check("exception.iar1", take(), 5);
    end(5);
}

fn other_cpu() {
    power::start();
    write(SGI1R, 3 << 24 | 2);
    check("sgi.other", power::received(1), 1);
    write(SGI1R, 3 << 24 | 1 << 40);
    check("sgi.others", power::received(2), 2);
    check("sgi.others.not-self", take(), NONE);
    // By its redistributor, and an SPI routed to it.
    write32(SGI + GICR_SIZE + SET_PENDING, 1 << 3);
    check("sgi.other.by-ispendr", power::received(3), 3);
    prepare(60, 0x80);
    write64(GICD + 0x6000 + 60 * 8, 1);
    set(SET_PENDING, 60);
    check("spi.other", power::received(4), 4);
    check("spi.other.not-here", take(), NONE);
    write64(GICD + 0x6000 + 60 * 8, 0x77);
    set(SET_PENDING, 60);
    check("spi.nobody", signalled(), 0);
    check("spi.nobody.kept", bit(SET_PENDING, 60), 1);
    write64(GICD + 0x6000 + 60 * 8, 0);
    check("spi.routed-back", take(), 60);
    end(60);
    power::stop();
}

/// All of it.
pub fn run() {
    interface();
    states();
    priorities();
    end_modes();
    many();
    groups();
    generated();
    other_cpu();
}
