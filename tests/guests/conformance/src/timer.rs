//! The EL1 virtual and physical timers.

use crate::exception::{read, write};
use crate::gic::*;
use crate::power;
use crate::report::{check, open};
use core::arch::asm;
use guest_runtime::machine;

const SHORT: u64 = 20_000;

struct Timer {
    names: [&'static str; 16],
    intid: u64,
    value: [u32; 5],
    control: [u32; 5],
    compare: [u32; 5],
    counter: fn() -> u64,
}

macro_rules! names {
    ($prefix:literal: $($name:literal)*) => { [$(concat!($prefix, $name)),*] };
}

const VIRTUAL: Timer = Timer {
    names: names!("cntv" : ".off" ".future" ".compare" ".value" ".due" ".pending" ".unclearable" ".masked" ".not-pending" ".negative" ".taken"
        ".early" ".ended-still-due" ".wfi" ".suspend" ".value-set"),
    intid: 27,
    value: [3, 3, 14, 3, 0],
    control: [3, 3, 14, 3, 1],
    compare: [3, 3, 14, 3, 2],
    counter: machine::ticks,
};

const PHYSICAL: Timer = Timer {
    names: names!("cntp" : ".off" ".future" ".compare" ".value" ".due" ".pending" ".unclearable" ".masked" ".not-pending" ".negative" ".taken"
        ".early" ".ended-still-due" ".wfi" ".suspend" ".value-set"),
    intid: 30,
    value: [3, 3, 14, 2, 0],
    control: [3, 3, 14, 2, 1],
    compare: [3, 3, 14, 2, 2],
    counter: machine::physical_ticks,
};

impl Timer {
    fn run(&self) {
        let [
            off,
            future,
            compare,
            value,
            due,
            pending,
            unclearable,
            masked,
            not_pending,
            negative,
            taken,
            early,
            still,
            wfi,
            suspend,
            set_value,
        ] = self.names;
        prepare_ppi(self.intid);
        write(self.control, 0);
        check(off, read(self.control) & 3, 0);
        let far = (self.counter)() + (1 << 40);
        write(self.compare, far);
        write(self.control, 1);
        check(future, read(self.control), 1);
        check(compare, u64::from(read(self.compare) == far), 1);
        check(not_pending, bit(SET_PENDING, self.intid), 0);
        check(value, read(self.value) >> 32, 0);
        write(self.value, 0x7000_0000);
        let ahead = read(self.compare).wrapping_sub((self.counter)());
        check(
            set_value,
            u64::from(ahead <= 0x7000_0000 && ahead > 0x6000_0000),
            1,
        );
        // Due: pending as long as it is, whatever is written.
        write(self.compare, 0);
        check(due, read(self.control), 5);
        check(pending, bit(SET_PENDING, self.intid), 1);
        set(CLEAR_PENDING, self.intid);
        check(unclearable, bit(SET_PENDING, self.intid), 1);
        check(pending, signalled(), 2);
        write(self.control, 3);
        check(masked, read(self.control), 7);
        // In a domain the virtual timer is the hardware's: that its level falls is seen at the next exit, "in finite time" (Arm IHI 0069, 4.5).
        if self.intid == VIRTUAL.intid {
            let reason = "a level that falls is withdrawn in finite time";
            open(not_pending, signalled(), reason);
        } else {
            check(not_pending, signalled(), 0);
        }
        check(not_pending, bit(SET_PENDING, self.intid), 0);
        check(not_pending, signalled(), 0);
        write(self.control, 1);
        check(pending, bit(SET_PENDING, self.intid), 1);
        // Switched off, and set to later: likewise.
        write(self.control, 0);
        check(not_pending, bit(SET_PENDING, self.intid), 0);
        check(not_pending, take(), 1023);
        write(self.control, 1);
        check(pending, signalled(), 2);
        write(self.compare, far);
        check(not_pending, bit(SET_PENDING, self.intid), 0);
        check(not_pending, take(), 1023);
        write(self.control, 3);
        write(self.value, 0xffff_ff00);
        check(negative, read(self.value) >> 31, 1);
        write(self.control, 1);
        check(taken, take(), self.intid);
        end(self.intid);
        let again = signalled();
        let taken = take();
        if is_v2() && self.intid == VIRTUAL.intid {
            // In a domain its end is that of a physical interrupt: QEMU's GICv2 doesn't look at that one's level then.
            open(still, again, "pending again at once on hardware");
            open(still, taken, "the same");
        } else {
            check(still, again, 2);
            check(still, taken, self.intid);
        }
        write(self.control, 0);
        if taken == self.intid {
            end(taken);
        }
        check(off, bit(SET_PENDING, self.intid), 0);
        check(off, signalled(), 0);
        // Ends a WFI, no earlier than set.
        for (name, sleep) in [(wfi, false), (suspend, true)] {
            let until = (self.counter)() + SHORT;
            write(self.compare, until);
            write(self.control, 1);
            let mut answers = 0;
            while signalled() == 0 {
                if sleep {
                    answers |= power::suspend();
                } else {
                    // SAFETY: waits.
                    unsafe { asm!("wfi", options(nostack)) };
                }
            }
            check(name, answers, 0);
            check(early, u64::from((self.counter)() < until), 0);
            check(name, take(), self.intid);
            write(self.control, 2);
            end(self.intid);
            check(name, signalled(), 0);
        }
    }
}

fn prepare_ppi(intid: u64) {
    group(intid, !is_v2());
    priority(intid, 0x80);
    set(SET_ENABLE, intid);
}

/// Both.
pub fn run() {
    check("cntfrq", u64::from(machine::frequency() != 0), 1);
    VIRTUAL.run();
    PHYSICAL.run();
    // Both at once: the lower priority value first.
    priority(30, 0x40);
    for timer in [&VIRTUAL, &PHYSICAL] {
        write(timer.compare, 0);
        write(timer.control, 1);
    }
    check("both.first", take(), 30);
    write(PHYSICAL.control, 2);
    end(30);
    check("both.second", take(), 27);
    write(VIRTUAL.control, 2);
    end(27);
    check("both.none", take(), 1023);
    let (before, physical) = (machine::ticks(), machine::physical_ticks());
    check(
        "counters.forward",
        u64::from(machine::ticks() >= before && machine::physical_ticks() >= physical),
        1,
    );
}
