//! This CPU's instructions, and what is below EL2: noted, and carried out on the fake machine.

use super::errata;
use super::fake::{self, Event, firmware};
use hypervisor::errata::Errata;
use hypervisor::processor::fake::Step;
use hypervisor::processor::{At, Dc, Dsb, Ic, Processor, Register, Tlbi, Vectors};
use hypervisor::trap::controls::HypervisorControl;

/// The firmware, called by `smc`.
pub struct Smc;
/// A hypervisor below, called by `hvc`: there is none.
pub struct Hvc;

impl smccc::Call for Smc {
    fn call32(function: u32, arguments: [u32; 7]) -> [u32; 8] {
        let [first, second, third, ..] = arguments.map(u64::from);
        let mut answer = [0; 8];
        answer[0] = firmware::call(function, [first, second, third]) as u32;
        answer
    }

    fn call64(function: u32, arguments: [u64; 17]) -> [u64; 18] {
        let [first, second, third, ..] = arguments;
        let mut answer = [0; 18];
        answer[0] = firmware::call(function, [first, second, third]);
        answer
    }
}

impl smccc::Call for Hvc {
    fn call32(function: u32, _arguments: [u32; 7]) -> [u32; 8] {
        panic!("hvc {function:#x}")
    }

    fn call64(function: u32, _arguments: [u64; 17]) -> [u64; 18] {
        panic!("hvc {function:#x}")
    }
}

/// The CPU that this code runs on.
pub struct This;

macro_rules! names {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// What the assembler calls it.
        pub const fn name(register: Register) -> &'static str {
            match register {
                $(Register::$name => $text),*
            }
        }

        /// The register of the trait with this name.
        pub fn by_name(name: &str) -> Option<Register> {
            match name {
                $($text => Some(Register::$name),)*
                _ => None,
            }
        }
    };
}
hypervisor::with_processor_registers!(names);

fn step(step: Step) {
    fake::with(|state, this| state.step(this, step));
}

impl Processor for This {
    fn read(&mut self, register: Register) -> u64 {
        fake::with(|state, this| state.read(this, name(register)))
    }

    fn write(&mut self, register: Register, value: u64) {
        let value = match register {
            Register::Hcr => HypervisorControl::from_bits_truncate(value).bits(),
            _ => value,
        };
        fake::with(|state, this| state.write(this, name(register), value));
    }

    fn isb(&mut self) {
        step(Step::Isb);
    }

    fn dsb(&mut self, reach: Dsb) {
        step(Step::Dsb(reach));
    }

    fn tlbi(&mut self, which: Tlbi) {
        step(Step::Tlbi(which));
    }

    fn ic(&mut self, which: Ic) {
        step(Step::Ic(which));
    }

    fn dc(&mut self, operation: Dc, address: usize) {
        step(Step::Dc(operation, address));
    }

    fn cache_line(&self) -> usize {
        hypervisor::processor::fake::LINE
    }

    fn cleaning(&self) -> Dc {
        if errata::has(Errata::CACHE_CLEANING) {
            Dc::CleanInvalidate
        } else {
            Dc::Clean
        }
    }

    fn at(&mut self, who: At, address: u64) {
        step(Step::At(who, address));
    }

    fn sgi(&mut self, value: u64) {
        step(Step::Sgi(value));
        fake::with(|state, this| state.send_sgi(this, value));
    }

    fn sev(&mut self) {
        step(Step::Sev);
        fake::wake();
    }

    fn wfi(&mut self) {
        step(Step::Wfi);
        fake::sleep();
    }

    fn vectors(&mut self, which: Vectors) {
        step(Step::Vectors(which));
        fake::with(|state, this| state.note(this, Event::Write("vbar_el2", which as u64)));
    }
}
