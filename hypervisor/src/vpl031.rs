//! A domain's real-time clock: a PL031 on top of the system counter.
//!
//! Nothing ticks here. The count is the caller's clock plus an offset, computed when it is looked at, so an RTC costs nothing while
//! nobody reads it; a match is a deadline that the caller keeps. As with hardware, a match happens when the
//! count *reaches* the match register: one set to the past comes after the count has wrapped, in 136 years, and is dropped. The
//! clock runs from the start, as on QEMU `virt`, since firmware may rely on that; setting it is private to the domain.
//!
//! Source: Arm DDI 0224 (PrimeCell Real Time Clock PL031 TRM), chapter 3; offsets and bits are its tables.

use coproc_core::register::Width;
use coproc_core::time::Instant;

const DR: u64 = 0x00;
const MR: u64 = 0x04;
const LR: u64 = 0x08;
const CR: u64 = 0x0c;
const IMSC: u64 = 0x10;
const RIS: u64 = 0x14;
const MIS: u64 = 0x18;
const ICR: u64 = 0x1c;

const SECOND: u64 = 1_000_000_000;

/// A virtual PL031, revision r1p0.
#[derive(Clone, Debug)]
pub struct Vpl031 {
    /// What is added to the caller's clock (modulo 2⁶⁴), in ns: the sum in seconds is the count.
    offset: u64,
    matched: u32,
    loaded: u32,
    /// The sum, in seconds, at which the match happens, if one is to come.
    alarm: Option<u64>,
    mask: bool,
    raw: bool,
}

impl Vpl031 {
    /// A clock that shows `epoch` seconds at `now`.
    pub fn new(epoch: u32, now: Instant) -> Self {
        Self {
            offset: offset(epoch, now),
            matched: 0,
            loaded: 0,
            alarm: None,
            mask: false,
            raw: false,
        }
    }

    /// Level of the interrupt output RTCINTR.
    pub const fn interrupt_level(&self) -> bool {
        self.raw && self.mask
    }

    /// When the interrupt's level rises by itself, if it does.
    pub fn deadline(&self) -> Option<Instant> {
        let at = self.alarm.filter(|_| self.mask && !self.raw)?;
        Some(Instant::from_nanos(
            at.saturating_mul(SECOND).wrapping_sub(self.offset),
        ))
    }

    /// Brings the raw interrupt status up to `now`.
    pub fn advance(&mut self, now: Instant) {
        if self.alarm.is_some_and(|at| self.seconds(now) >= at) {
            self.alarm = None;
            self.raw = true;
        }
    }

    /// A load of `width` at `offset` from the window's start. Undefined registers read zero.
    pub fn read(&mut self, offset: u64, width: Width, now: Instant) -> u64 {
        self.advance(now);
        let value = match offset & !3 {
            DR => self.seconds(now) as u32,
            MR => self.matched,
            LR => self.loaded,
            CR => 1,
            IMSC => u32::from(self.mask),
            RIS => u32::from(self.raw),
            MIS => u32::from(self.interrupt_level()),
            // PeriphID0-3 (part 0x031, designer 0x41, revision 1) and PCellID0-3.
            0xfe0 => 0x31,
            0xfe4 => 0x10,
            0xfe8 => 0x14,
            0xfec => 0x00,
            0xff0 => 0x0d,
            0xff4 => 0xf0,
            0xff8 => 0x05,
            0xffc => 0xb1,
            _ => 0,
        };
        let shift = ((offset & 3) as u32).wrapping_mul(8);
        u64::from(value.checked_shr(shift).unwrap_or(0)) & width.mask()
    }

    /// A store of `value` at `offset`. Stores that don't start on a register, and stores to read-only registers, are ignored.
    pub fn write(&mut self, offset: u64, width: Width, value: u64, now: Instant) {
        self.advance(now);
        let value = (value & width.mask()) as u32;
        match offset {
            MR => {
                self.matched = value;
                self.set_alarm(now);
            }
            LR => {
                self.loaded = value;
                self.offset = self::offset(value, now);
                self.set_alarm(now);
            }
            IMSC => self.mask = value & 1 != 0,
            ICR if value & 1 != 0 => self.raw = false,
            // CR too: once started the clock can't be stopped but by reset (3.3.4).
            _ => {}
        }
    }

    fn seconds(&self, now: Instant) -> u64 {
        now.as_nanos().wrapping_add(self.offset) / SECOND
    }

    fn set_alarm(&mut self, now: Instant) {
        let now = self.seconds(now);
        match self.matched.wrapping_sub(now as u32) {
            0 => {
                self.alarm = None;
                self.raw = true;
            }
            // More than half the range ahead: it is in the past.
            ahead if ahead > u32::MAX >> 1 => self.alarm = None,
            ahead => self.alarm = Some(now.saturating_add(u64::from(ahead))),
        }
    }
}

fn offset(epoch: u32, now: Instant) -> u64 {
    u64::from(epoch)
        .saturating_mul(SECOND)
        .wrapping_sub(now.as_nanos())
}

#[cfg(test)]
mod tests {
    use super::*;
    use coproc_core::time::Duration;
    use proptest::prelude::*;

    const EPOCH: u32 = 1_700_000_000;

    fn at(nanos: u64) -> Instant {
        Instant::from_nanos(nanos)
    }

    fn get(rtc: &mut Vpl031, offset: u64, now: Instant) -> u32 {
        rtc.read(offset, Width::Word, now) as u32
    }

    fn set(rtc: &mut Vpl031, offset: u64, value: u32, now: Instant) {
        rtc.write(offset, Width::Word, value.into(), now);
    }

    #[test]
    fn it_shows_the_time_and_goes_on_with_the_clock() {
        let start = at(7 * SECOND + 3);
        let mut rtc = Vpl031::new(EPOCH, start);
        assert_eq!(get(&mut rtc, DR, start), EPOCH);
        assert_eq!(get(&mut rtc, DR, at(17 * SECOND + 2)), EPOCH + 9);
        assert_eq!(get(&mut rtc, DR, at(17 * SECOND + 3)), EPOCH + 10);
        assert_eq!(get(&mut rtc, CR, start), 1);
        set(&mut rtc, CR, 0, start);
        assert_eq!(get(&mut rtc, CR, start), 1, "it can't be stopped");
    }

    #[test]
    fn linux_recognises_it() {
        let mut rtc = Vpl031::new(EPOCH, at(0));
        let mut word = |base: u64| {
            (0..4).fold(0u32, |id, n| {
                id | get(&mut rtc, base + 4 * n, at(0)) << (8 * n)
            })
        };
        // The AMBA bus matches PL031 by id 0x00041031 under mask 0x000fffff.
        assert_eq!(word(0xfe0) & 0x000f_ffff, 0x0004_1031);
        assert_eq!(word(0xff0), 0xb105_f00d);
    }

    #[test]
    fn setting_it_moves_the_count_only() {
        let mut rtc = Vpl031::new(EPOCH, at(0));
        set(&mut rtc, LR, 1000, at(5 * SECOND));
        assert_eq!(get(&mut rtc, LR, at(6 * SECOND)), 1000);
        assert_eq!(get(&mut rtc, DR, at(6 * SECOND)), 1001);
        assert_eq!(Vpl031::new(9, at(0)).read(DR, Width::Byte, at(0)), 9);
    }

    #[test]
    fn the_count_wraps_after_32_bits() {
        let mut rtc = Vpl031::new(u32::MAX, at(0));
        assert_eq!(get(&mut rtc, DR, at(SECOND)), 0);
        // A match beyond the wrap is one ahead.
        set(&mut rtc, IMSC, 1, at(0));
        set(&mut rtc, MR, 4, at(0));
        assert_eq!(rtc.deadline(), Some(at(5 * SECOND)));
    }

    #[test]
    fn a_match_interrupts_once_it_is_reached() {
        let mut rtc = Vpl031::new(EPOCH, at(0));
        set(&mut rtc, MR, EPOCH + 3, at(SECOND / 2));
        assert_eq!(rtc.deadline(), None, "nobody waits while it is masked");
        set(&mut rtc, IMSC, 1, at(SECOND));
        assert_eq!(rtc.deadline(), Some(at(3 * SECOND)));
        rtc.advance(at(3 * SECOND - 1));
        assert!(!rtc.interrupt_level());
        rtc.advance(at(3 * SECOND));
        assert!(rtc.interrupt_level());
        assert_eq!(rtc.deadline(), None);
        assert_eq!(get(&mut rtc, MIS, at(4 * SECOND)), 1);
        set(&mut rtc, ICR, 1, at(4 * SECOND));
        assert_eq!(get(&mut rtc, RIS, at(5 * SECOND)), 0);
        assert!(!rtc.interrupt_level(), "not again");
    }

    #[test]
    fn a_masked_match_is_still_seen_in_the_raw_status() {
        let mut rtc = Vpl031::new(EPOCH, at(0));
        set(&mut rtc, MR, EPOCH + 1, at(0));
        assert_eq!(get(&mut rtc, RIS, at(2 * SECOND)), 1);
        assert_eq!(get(&mut rtc, MIS, at(2 * SECOND)), 0);
    }

    #[test]
    fn a_match_with_the_count_as_it_is_comes_at_once_and_a_past_one_never() {
        let mut rtc = Vpl031::new(EPOCH, at(0));
        set(&mut rtc, IMSC, 1, at(0));
        set(&mut rtc, MR, EPOCH, at(0));
        assert!(rtc.interrupt_level());
        set(&mut rtc, ICR, 1, at(0));
        set(&mut rtc, MR, EPOCH - 1, at(0));
        assert_eq!((rtc.interrupt_level(), rtc.deadline()), (false, None));
    }

    #[test]
    fn setting_the_clock_moves_the_match() {
        let mut rtc = Vpl031::new(EPOCH, at(0));
        set(&mut rtc, IMSC, 1, at(0));
        set(&mut rtc, MR, EPOCH + 100, at(0));
        set(&mut rtc, LR, EPOCH + 90, at(SECOND));
        assert_eq!(rtc.deadline(), Some(at(11 * SECOND)));
    }

    proptest! {
        /// Whatever was written: at its deadline, and not a nanosecond before, the interrupt is there.
        #[test]
        fn deadlines_are_true(writes in prop::collection::vec((0u64..0x24, any::<u32>(), 0u64..4 * SECOND), 0..20), epoch: u32) {
            let mut now = at(0);
            let mut rtc = Vpl031::new(epoch, now);
            for (offset, value, pause) in writes {
                now = now.saturating_add(Duration::from_nanos(pause));
                // Near matches more often than chance has it.
                let value = if offset == MR { get(&mut rtc, DR, now).wrapping_add(value % 8) } else { value };
                rtc.write(offset, Width::Word, value.into(), now);
                if let Some(deadline) = rtc.deadline() {
                    prop_assert!(deadline > now && !rtc.interrupt_level());
                    let mut later = rtc.clone();
                    later.advance(at(deadline.as_nanos() - 1));
                    prop_assert!(!later.interrupt_level());
                    later.advance(deadline);
                    prop_assert!(later.interrupt_level());
                    prop_assert_eq!(later.read(DR, Width::Word, deadline) as u32, rtc.matched);
                }
            }
        }
    }
}
