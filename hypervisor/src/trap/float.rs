//! Whose FP and SIMD registers are in a CPU: they are exchanged only for a vCPU that uses them.
//!
//! A vCPU starts each turn with them trapped ([`Unit::enter`]), and its first use brings in its own ([`Unit::used`]). At its turn's end they are
//! saved if it used them ([`Unit::leave`]), always: so what is saved is the truth wherever the vCPU runs next, and no CPU has to be asked for what
//! it kept. Two refinements:
//!
//! - A trap costs about six exchanges. Who has just used them gets them at once for the next [`EAGER`] turns, then has to show it again.
//! - What was saved stays in the CPU under a name that is given only once, so the trap of a vCPU that comes back to its own registers
//!   loads nothing.
//!
//! Registers that were let be changed have no name until they are saved, so nothing goes wrong if they never are ([`Unit::forget`]).

/// Turns for which a vCPU that used the registers gets them without a trap.
pub const EAGER: u8 = 8;

/// The registers themselves, and the trap on them: touching them while they are trapped is a fault of EL2's own.
pub trait Registers {
    /// Where they are saved.
    type Area;
    /// Lets whoever runs use them, or traps that; in force when this returns.
    fn set_trapped(&mut self, trapped: bool);
    /// Out of the CPU.
    fn save(&mut self, into: &mut Self::Area);
    /// Into the CPU.
    fn load(&mut self, from: &Self::Area);
}

/// A vCPU's registers while another one runs.
#[derive(Clone, Debug)]
pub struct Saved<A> {
    area: A,
    /// Names what is in the area; 0: no CPU has that.
    name: u64,
    /// Turns left without a trap.
    eager: u8,
}

impl<A> Saved<A> {
    /// These contents, which are in no CPU.
    pub const fn new(area: A) -> Self {
        Self {
            area,
            name: 0,
            eager: 0,
        }
    }
}

/// One CPU's registers.
#[derive(Debug, Default)]
pub struct Unit {
    /// The name of what is in them; 0: nothing that was saved.
    held: u64,
    /// The vCPU that runs may use them.
    open: bool,
}

impl Unit {
    /// Nothing is in them, and they are trapped.
    pub const fn new() -> Self {
        Self {
            held: 0,
            open: false,
        }
    }

    /// A vCPU's turn begins.
    pub fn enter<R: Registers>(&mut self, registers: &mut R, saved: &mut Saved<R::Area>) {
        self.forget(registers);
        if let Some(left) = saved.eager.checked_sub(1) {
            self.open(registers, saved);
            saved.eager = left;
        }
    }

    /// The vCPU that runs was trapped. Returns whether it can repeat that now; if not, it was for another reason.
    #[must_use]
    pub fn used<R: Registers>(&mut self, registers: &mut R, saved: &mut Saved<R::Area>) -> bool {
        if self.open {
            return false;
        }
        self.open(registers, saved);
        saved.eager = EAGER;
        true
    }

    #[inline]
    fn open<R: Registers>(&mut self, registers: &mut R, saved: &Saved<R::Area>) {
        registers.set_trapped(false);
        if saved.name == 0 || saved.name != self.held {
            registers.load(&saved.area);
        }
        self.held = 0;
        self.open = true;
    }

    /// The vCPU's turn ends. `name` gives a number that it gave to nobody before, and not 0.
    pub fn leave<R: Registers>(
        &mut self,
        registers: &mut R,
        saved: &mut Saved<R::Area>,
        name: impl FnOnce() -> u64,
    ) {
        if self.open {
            registers.save(&mut saved.area);
            saved.name = name();
            self.held = saved.name;
            self.open = false;
            registers.set_trapped(true);
        }
    }

    /// What the vCPU that ran has in them isn't wanted any more.
    pub fn forget<R: Registers>(&mut self, registers: &mut R) {
        if self.open {
            self.open = false;
            registers.set_trapped(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// A CPU's registers, as one number: whoever touches them while they are trapped is wrong.
    #[derive(Debug)]
    struct Fake {
        value: u32,
        trapped: bool,
        loads: u32,
        saves: u32,
    }

    impl Registers for Fake {
        type Area = u32;
        fn set_trapped(&mut self, trapped: bool) {
            assert_ne!(self.trapped, trapped, "set twice");
            self.trapped = trapped;
        }
        fn save(&mut self, into: &mut u32) {
            assert!(!self.trapped, "EL2 would trap");
            self.saves += 1;
            *into = self.value;
        }
        fn load(&mut self, from: &u32) {
            assert!(!self.trapped, "EL2 would trap");
            self.loads += 1;
            self.value = *from;
        }
    }

    struct Machine {
        cpus: Vec<(Unit, Fake)>,
        vcpus: Vec<Saved<u32>>,
        names: u64,
    }

    impl Machine {
        fn new(cpus: usize, vcpus: usize) -> Self {
            let fake = || Fake {
                value: 0xdead,
                trapped: true,
                loads: 0,
                saves: 0,
            };
            Self {
                cpus: (0..cpus).map(|_| (Unit::new(), fake())).collect(),
                vcpus: (0..vcpus).map(|_| Saved::new(0)).collect(),
                names: 0,
            }
        }

        fn enter(&mut self, cpu: usize, vcpu: usize) {
            let (unit, fake) = &mut self.cpus[cpu];
            unit.enter(fake, &mut self.vcpus[vcpu]);
        }

        /// The vCPU reads and writes its registers; what it read.
        fn exchange(&mut self, cpu: usize, vcpu: usize, value: u32) -> u32 {
            let (unit, fake) = &mut self.cpus[cpu];
            if fake.trapped {
                assert!(unit.used(fake, &mut self.vcpus[vcpu]));
            }
            assert!(!fake.trapped);
            core::mem::replace(&mut fake.value, value)
        }

        fn leave(&mut self, cpu: usize, vcpu: usize) {
            let (unit, fake) = &mut self.cpus[cpu];
            unit.leave(fake, &mut self.vcpus[vcpu], || {
                self.names += 1;
                self.names
            });
            assert!(fake.trapped);
        }
    }

    #[test]
    fn who_does_not_use_them_costs_nothing() {
        let mut machine = Machine::new(1, 2);
        machine.enter(0, 0);
        assert_eq!(machine.exchange(0, 0, 7), 0);
        machine.leave(0, 0);
        for _ in 0..5 {
            machine.enter(0, 1);
            machine.leave(0, 1);
        }
        assert_eq!((machine.cpus[0].1.loads, machine.cpus[0].1.saves), (1, 1));
        // They are still there.
        machine.enter(0, 0);
        assert_eq!(machine.exchange(0, 0, 8), 7);
        assert_eq!(machine.cpus[0].1.loads, 1);
    }

    #[test]
    fn who_used_them_gets_them_without_a_trap_for_some_turns() {
        let mut machine = Machine::new(1, 1);
        machine.enter(0, 0);
        assert!(machine.cpus[0].1.trapped);
        machine.exchange(0, 0, 1);
        machine.leave(0, 0);
        for _ in 0..EAGER {
            machine.enter(0, 0);
            assert!(!machine.cpus[0].1.trapped);
            machine.leave(0, 0);
        }
        machine.enter(0, 0);
        assert!(machine.cpus[0].1.trapped);
    }

    #[test]
    fn a_trap_while_they_are_open_is_something_else() {
        let mut machine = Machine::new(1, 1);
        machine.enter(0, 0);
        machine.exchange(0, 0, 1);
        let (unit, fake) = &mut machine.cpus[0];
        assert!(!unit.used(fake, &mut machine.vcpus[0]));
    }

    #[derive(Clone, Copy, Debug)]
    enum Act {
        /// A vCPU runs on a CPU, and uses the registers so many times.
        Turn(usize, usize, u8),
        /// It goes off in the middle of that, and starts anew.
        Off(usize, usize, u8),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            8 => (0..3usize, 0..4usize, 0..3u8).prop_map(|(c, v, n)| Act::Turn(c, v, n)),
            1 => (0..3usize, 0..4usize, 0..3u8).prop_map(|(c, v, n)| Act::Off(c, v, n)),
        ]
    }

    proptest! {
        /// Each vCPU finds what it left, wherever it was and whoever was there meanwhile; after a start, zeros.
        #[test]
        fn everybody_finds_their_own(acts in proptest::collection::vec(act(), 1..120)) {
            let mut machine = Machine::new(3, 4);
            let mut expected = [0u32; 4];
            let mut next = 1;
            for act in acts {
                let (Act::Turn(cpu, vcpu, uses) | Act::Off(cpu, vcpu, uses)) = act;
                machine.enter(cpu, vcpu);
                for _ in 0..uses {
                    prop_assert_eq!(machine.exchange(cpu, vcpu, next), expected[vcpu]);
                    expected[vcpu] = next;
                    next += 1;
                }
                if matches!(act, Act::Turn(..)) {
                    machine.leave(cpu, vcpu);
                } else {
                    let (unit, fake) = &mut machine.cpus[cpu];
                    unit.forget(fake);
                    machine.vcpus[vcpu] = Saved::new(0);
                    expected[vcpu] = 0;
                }
            }
        }
    }
}
