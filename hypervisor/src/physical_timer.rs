//! A vCPU's EL1 physical timer.
//!
//! CNTHCTL_EL2 has no offset for it, and the real one would go on ticking for whoever runs next, so its three registers trap
//! (EL1PCEN = 0) and it is kept here, compared with the physical counter, which a domain reads directly (EL1PCTEN = 1) and
//! which isn't offset: CNTPCT_EL0 shows the machine's time since power-on, CNTVCT_EL0 the domain's since it was created. Systems that run
//! at EL1 use the virtual timer; this one is for those that insist.
//!
//! Source: Arm ARM DDI 0487, D11.2.4 "Timers": CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTP_TVAL_EL0.

const ENABLE: u64 = 1;
const MASK: u64 = 1 << 1;
const STATUS: u64 = 1 << 2;

/// A register of the timer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Register {
    /// CNTP_CTL_EL0.
    Control,
    /// CNTP_CVAL_EL0.
    Compare,
    /// CNTP_TVAL_EL0: how far the compare value is ahead of the counter.
    Value,
}

/// The timer; all counts in ticks of the physical counter. Reset: off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PhysicalTimer {
    /// ENABLE and IMASK.
    control: u64,
    compare: u64,
}

impl Default for PhysicalTimer {
    fn default() -> Self {
        Self::new()
    }
}

impl PhysicalTimer {
    /// After reset.
    pub const fn new() -> Self {
        Self {
            control: 0,
            compare: 0,
        }
    }

    /// An MRS.
    pub const fn read(&self, register: Register, now: u64) -> u64 {
        match register {
            Register::Control => self.control | if self.met(now) { STATUS } else { 0 },
            Register::Compare => self.compare,
            Register::Value => self.compare.wrapping_sub(now) & 0xffff_ffff,
        }
    }

    /// An MSR.
    pub const fn write(&mut self, register: Register, value: u64, now: u64) {
        match register {
            Register::Control => self.control = value & (ENABLE | MASK),
            Register::Compare => self.compare = value,
            // The value is signed, 32 bits.
            Register::Value => self.compare = now.wrapping_add(value as u32 as i32 as u64),
        }
    }

    /// Level of the timer's interrupt.
    pub const fn interrupt_level(&self, now: u64) -> bool {
        self.control & MASK == 0 && self.met(now)
    }

    /// When the level rises by itself, if it does: where the counter has passed it already, it has risen.
    pub const fn deadline(&self) -> Option<u64> {
        if self.control == ENABLE {
            Some(self.compare)
        } else {
            None
        }
    }

    const fn met(&self, now: u64) -> bool {
        self.control & ENABLE != 0 && now >= self.compare
    }
}

/// When the interrupt of a *virtual* timer comes, in ticks of the physical counter, from which the virtual one is `offset` behind; `None`: it's off or
/// masked, or the counter never gets there. `control` and `compare` are CNTV_CTL_EL0 and CNTV_CVAL_EL0.
pub const fn virtual_deadline(control: u64, compare: u64, offset: u64) -> Option<u64> {
    if control & (ENABLE | MASK) == ENABLE {
        compare.checked_add(offset)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn on(compare: u64) -> PhysicalTimer {
        let mut timer = PhysicalTimer::new();
        timer.write(Register::Compare, compare, 0);
        timer.write(Register::Control, ENABLE, 0);
        timer
    }

    #[test]
    fn a_virtual_timer_that_is_never_met_has_no_deadline() {
        assert_eq!(virtual_deadline(ENABLE, 100, 5), Some(105));
        assert_eq!(virtual_deadline(ENABLE | STATUS, 100, 5), Some(105));
        assert_eq!(virtual_deadline(0, 100, 5), None);
        assert_eq!(virtual_deadline(ENABLE | MASK, 100, 5), None);
        // The sum isn't in the past.
        assert_eq!(virtual_deadline(ENABLE, u64::MAX, 1), None);
        assert_eq!(virtual_deadline(ENABLE, u64::MAX, 0), Some(u64::MAX));
    }

    #[test]
    fn the_condition_is_met_at_the_compare_value() {
        let timer = on(100);
        assert_eq!(timer.read(Register::Control, 99), ENABLE);
        assert_eq!(timer.read(Register::Control, 100), ENABLE | STATUS);
        assert!(!timer.interrupt_level(99));
        assert!(timer.interrupt_level(100) && timer.interrupt_level(u64::MAX));
        assert_eq!(timer.deadline(), Some(100));
    }

    #[test]
    fn off_and_masked_it_is_silent() {
        let mut timer = on(0);
        timer.write(Register::Control, MASK | ENABLE, 5);
        assert_eq!(timer.read(Register::Control, 5), MASK | ENABLE | STATUS);
        assert!(!timer.interrupt_level(5));
        assert_eq!(timer.deadline(), None);
        timer.write(Register::Control, 0, 5);
        assert_eq!(timer.read(Register::Control, 5), 0);
        assert_eq!((timer.interrupt_level(5), timer.deadline()), (false, None));
    }

    #[test]
    fn the_timer_value_is_signed_and_relative() {
        let mut timer = on(0);
        timer.write(Register::Value, 10, 1000);
        assert_eq!(timer.read(Register::Compare, 0), 1010);
        assert_eq!(timer.read(Register::Value, 1003), 7);
        assert_eq!(
            timer.read(Register::Value, 1011),
            0xffff_ffff,
            "and 32 bits"
        );
        timer.write(Register::Value, 0xffff_fff0, 1000);
        assert_eq!(timer.read(Register::Compare, 0), 984);
        timer.write(Register::Value, 0xffff_ffff_8000_0000, 1 << 40);
        assert_eq!(timer.read(Register::Compare, 0), (1 << 40) - (1 << 31));
    }

    #[test]
    fn only_two_bits_of_the_control_are_kept() {
        let mut timer = PhysicalTimer::new();
        timer.write(Register::Control, u64::MAX, 0);
        assert_eq!(timer.read(Register::Control, 0), ENABLE | MASK | STATUS);
    }

    proptest! {
        /// The level changes by itself at the deadline and nowhere else.
        #[test]
        fn deadlines_are_true(writes in prop::collection::vec((0u8..3, any::<u64>()), 0..10), now: u64, later: u64) {
            let mut timer = PhysicalTimer::new();
            for (register, value) in writes {
                let register = [Register::Control, Register::Compare, Register::Value][usize::from(register)];
                timer.write(register, value, now);
            }
            let later = later.max(now);
            let expected = timer.deadline().is_some_and(|deadline| later >= deadline);
            prop_assert_eq!(timer.interrupt_level(later), expected);
        }
    }
}
