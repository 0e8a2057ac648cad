//! A domain's watchdog: the generic watchdog of Arm's Base System Architecture.
//!
//! It is the one for which stock systems have a driver and that needs nothing but the system counter. Two stages of the same
//! length: the first time-out raises an interrupt (WS0), the second one (WS1) is the end of the domain, which is the
//! caller's business. Time is the domain's virtual counter, in ticks, because drivers compute the time left from what
//! they read there. The second stage begins when the first time-out is *noticed*, so a domain that wasn't run still has all of it.
//!
//! Source: Arm DEN0094 (BSA), Appendix "Generic watchdog": registers, and the pseudocode that [`Watchdog`] follows.

use coproc_core::register::Width;

/// Refresh frame: watchdog refresh.
const WRR: u64 = 0x000;
/// Control frame: control and status.
const WCS: u64 = 0x000;
/// Offset, 48 bits.
const WOR: u64 = 0x008;
const WOR_HIGH: u64 = 0x00c;
/// Compare value.
const WCV: u64 = 0x010;
const WCV_HIGH: u64 = 0x014;
/// Both frames: identification.
const W_IIDR: u64 = 0xfcc;

const ENABLE: u32 = 1;
const WS0: u32 = 1 << 1;
const WS1: u32 = 1 << 2;

/// Architecture version 1 (48-bit offset), implementer Arm (JEP106 0x43b).
const IDENTIFICATION: u32 = 1 << 16 | 0x43b;

/// A generic watchdog, revision 1. Reset: disabled.
#[derive(Clone, Default, Debug)]
pub struct Watchdog {
    enabled: bool,
    first: bool,
    second: bool,
    /// Ticks from a refresh to a time-out.
    offset: u64,
    compare: u64,
}

impl Watchdog {
    /// Level of the interrupt WS0.
    pub const fn interrupt_level(&self) -> bool {
        self.first
    }

    /// Whether the second time-out has come (WS1).
    pub const fn expired(&self) -> bool {
        self.second
    }

    /// The tick at which [`Self::advance`] is to be called next, if any.
    pub fn deadline(&self) -> Option<u64> {
        let runs = self.enabled && !self.second;
        // A compare value of all-ones is never passed.
        runs.then(|| self.compare.checked_add(1)).flatten()
    }

    /// Lets time pass up to `now`, in ticks.
    pub fn advance(&mut self, now: u64) {
        if !self.enabled || now <= self.compare {
            return;
        }
        if self.first {
            self.second = true;
        } else {
            self.first = true;
            self.load(now);
        }
    }

    /// A load from the control frame. Undefined registers read zero.
    pub fn read_control(&mut self, offset: u64, width: Width, now: u64) -> u64 {
        self.advance(now);
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let low = match offset & !7 {
            WCS => u64::from(
                flag(self.enabled, ENABLE) | flag(self.first, WS0) | flag(self.second, WS1),
            ),
            WOR => self.offset,
            WCV => self.compare,
            0xfc8 => u64::from(IDENTIFICATION) << 32,
            _ => 0,
        };
        part(low, offset, width)
    }

    /// A load from the refresh frame.
    pub fn read_refresh(&self, offset: u64, width: Width) -> u64 {
        if offset == W_IIDR {
            u64::from(IDENTIFICATION) & width.mask()
        } else {
            0
        }
    }

    /// A store to the control frame. Registers are 32 bits wide, pairs may be written by 64-bit stores; other widths and
    /// offsets are ignored.
    pub fn write_control(&mut self, offset: u64, width: Width, value: u64, now: u64) {
        self.advance(now);
        let wide = width == Width::Double;
        if !wide && width != Width::Word {
            return;
        }
        let value = value & width.mask();
        const LOW: u64 = 0xffff_ffff;
        match (offset, wide) {
            (WCS, _) => {
                self.enabled = value & 1 != 0;
                self.refresh(now);
            }
            (WOR, true) => self.set_offset(value, now),
            (WOR, false) => self.set_offset(self.offset & !LOW | value, now),
            (WOR_HIGH, false) => self.set_offset(self.offset & LOW | value << 32, now),
            (WCV, true) => self.compare = value,
            (WCV, false) => self.compare = self.compare & !LOW | value,
            (WCV_HIGH, false) => self.compare = self.compare & LOW | value << 32,
            _ => {}
        }
    }

    /// A store to the refresh frame.
    pub fn write_refresh(&mut self, offset: u64, now: u64) {
        self.advance(now);
        if offset == WRR {
            self.refresh(now);
        }
    }

    fn set_offset(&mut self, offset: u64, now: u64) {
        self.offset = offset & 0xffff_ffff_ffff;
        self.refresh(now);
    }

    /// An explicit refresh.
    fn refresh(&mut self, now: u64) {
        // Past WS1 there is no way back: the domain is being ended.
        if self.second {
            return;
        }
        self.load(now);
        self.first = false;
    }

    fn load(&mut self, now: u64) {
        self.compare = now.saturating_add(self.offset);
    }
}

/// The part of an aligned doubleword that a load gets.
fn part(double: u64, offset: u64, width: Width) -> u64 {
    let shift = ((offset & 7) as u32).wrapping_mul(8);
    double.checked_shr(shift).unwrap_or(0) & width.mask()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn get(watchdog: &mut Watchdog, offset: u64, now: u64) -> u64 {
        watchdog.read_control(offset, Width::Word, now)
    }

    fn set(watchdog: &mut Watchdog, offset: u64, value: u64, now: u64) {
        watchdog.write_control(offset, Width::Word, value, now);
    }

    /// As Linux starts it: the offset, then on.
    fn started(offset: u64, now: u64) -> Watchdog {
        let mut watchdog = Watchdog::default();
        watchdog.write_control(WOR, Width::Double, offset, now);
        set(&mut watchdog, WCS, 1, now);
        watchdog
    }

    #[test]
    fn off_it_does_nothing() {
        let mut watchdog = Watchdog::default();
        set(&mut watchdog, WOR, 10, 0);
        assert_eq!(watchdog.deadline(), None);
        assert_eq!(get(&mut watchdog, WCS, 1000), 0);
        assert!(!watchdog.interrupt_level());
    }

    #[test]
    fn two_time_outs_end_it() {
        let mut watchdog = started(100, 1000);
        assert_eq!(get(&mut watchdog, WCV, 1000), 1100);
        assert_eq!(watchdog.deadline(), Some(1101));
        assert_eq!(get(&mut watchdog, WCS, 1100), 1);
        watchdog.advance(1101);
        assert!(watchdog.interrupt_level() && !watchdog.expired());
        assert_eq!(get(&mut watchdog, WCS, 1101), 0b11);
        assert_eq!(watchdog.deadline(), Some(1202));
        watchdog.advance(1202);
        assert!(watchdog.expired());
        assert_eq!(get(&mut watchdog, WCS, 1202), 0b111);
        assert_eq!(watchdog.deadline(), None);
        watchdog.write_refresh(WRR, 1203);
        assert!(watchdog.expired(), "too late");
    }

    #[test]
    fn a_late_look_leaves_the_second_stage_whole() {
        let mut watchdog = started(100, 0);
        watchdog.advance(5000);
        assert!(watchdog.interrupt_level() && !watchdog.expired());
        assert_eq!(watchdog.deadline(), Some(5101));
    }

    #[test]
    fn every_explicit_refresh_begins_anew() {
        let refreshes: [fn(&mut Watchdog); 4] = [
            |watchdog| watchdog.write_refresh(WRR, 150),
            |watchdog| set(watchdog, WCS, 1, 150),
            |watchdog| set(watchdog, WOR, 100, 150),
            |watchdog| set(watchdog, WOR_HIGH, 0, 150),
        ];
        for refresh in refreshes {
            let mut watchdog = started(100, 0);
            watchdog.advance(101);
            refresh(&mut watchdog);
            assert!(!watchdog.interrupt_level());
            assert_eq!(watchdog.deadline(), Some(251));
        }
        let mut watchdog = started(100, 0);
        watchdog.write_refresh(8, 50);
        assert_eq!(
            watchdog.deadline(),
            Some(101),
            "no other register refreshes"
        );
    }

    #[test]
    fn switching_it_off_ends_the_interrupt() {
        let mut watchdog = started(100, 0);
        watchdog.advance(101);
        set(&mut watchdog, WCS, 0, 102);
        assert!(!watchdog.interrupt_level());
        assert_eq!(watchdog.deadline(), None);
    }

    #[test]
    fn registers_read_back_in_halves_and_whole() {
        let mut watchdog = Watchdog::default();
        set(&mut watchdog, WOR, 0x89ab_cdef, 0);
        set(&mut watchdog, WOR_HIGH, 0xffff_1234, 0);
        assert_eq!(
            watchdog.read_control(WOR, Width::Double, 0),
            0x1234_89ab_cdef
        );
        assert_eq!(get(&mut watchdog, WOR_HIGH, 0), 0x1234, "48 bits");
        watchdog.write_control(WCV, Width::Double, 0x0123_4567_89ab_cdef, 0);
        assert_eq!(get(&mut watchdog, WCV_HIGH, 0), 0x0123_4567);
        set(&mut watchdog, WCV, 7, 0);
        assert_eq!(
            watchdog.read_control(WCV, Width::Double, 0),
            0x0123_4567_0000_0007
        );
        // Linux takes the width of the offset from bits 19:16.
        assert_eq!(get(&mut watchdog, W_IIDR, 0) >> 16 & 0xf, 1);
        assert_eq!(watchdog.read_refresh(W_IIDR, Width::Word), 0x1043b);
    }

    #[test]
    fn the_largest_values_do_no_harm() {
        let mut watchdog = started(u64::MAX, u64::MAX - 3);
        assert_eq!(watchdog.deadline(), None, "never comes");
        watchdog.advance(u64::MAX);
        assert!(!watchdog.interrupt_level());
        let mut zero = started(0, 5);
        zero.advance(5);
        assert!(!zero.interrupt_level());
        zero.advance(6);
        zero.advance(7);
        assert!(zero.expired());
    }

    proptest! {
        /// Whatever is written, `deadline` is when something happens, and nothing happens before.
        #[test]
        fn deadlines_are_true(steps in prop::collection::vec((0u64..0x20, 0u64..50, any::<bool>(), 0u64..60), 0..40)) {
            let (mut watchdog, mut now) = (Watchdog::default(), 0);
            for (offset, value, refresh, pause) in steps {
                now += pause;
                if refresh {
                    watchdog.write_refresh(offset, now);
                } else {
                    set(&mut watchdog, offset, value, now);
                }
                let state = |watchdog: &Watchdog| (watchdog.first, watchdog.second);
                let before = state(&watchdog);
                let end = watchdog.deadline().unwrap_or(now + 1000);
                let mut later = watchdog.clone();
                later.advance(end.saturating_sub(1).max(now));
                if end > now {
                    prop_assert_eq!(state(&later), before);
                }
                later.advance(end);
                prop_assert_eq!(state(&later) != before, watchdog.deadline().is_some());
            }
        }
    }
}
