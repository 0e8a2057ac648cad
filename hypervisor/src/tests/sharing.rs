//! Two domains share a coprocessor: the accumulator, whose model is a device of the machine.

use super::boards::{self, Shared, Wanted};
use super::exits::{self, Access};
use crate::arch::fake::{self, Cpu, in_own_process};
use crate::system;
use hypervisor::vgic::Version;
use platforms::coproc::accumulator::{BUSY, IDENTIFICATION, offset};
use std::time::Duration;

/// A domain's program: it adds, and looks whether it is done.
struct Program {
    cpu: Cpu,
    registers: u64,
    term: u64,
    rounds: u64,
    step: usize,
    additions: u64,
    /// How often it reached the device without an exit.
    direct: usize,
}

impl Program {
    fn new(number: usize, cpu: Cpu, term: u64, rounds: u64) -> Self {
        let domain = &system::get().unwrap().domains[number];
        Self {
            cpu,
            registers: domain.fixtures.read()[0].registers[0].at,
            term,
            rounds,
            step: 0,
            additions: 0,
            direct: 0,
        }
    }

    /// An access, if it is done at once; else the same instruction comes again.
    fn access(&mut self, offset: u64, value: Option<u64>) -> Option<u64> {
        let (cpu, address) = (self.cpu, self.registers + offset);
        if !cpu.is_in_guest() {
            return None;
        }
        if let Some(found) = cpu.guest_register(address, value) {
            self.direct += 1;
            fake::settle();
            return Some(found);
        }
        cpu.set_guest(|guest| guest.x[5] = value.unwrap_or(0));
        let elr = cpu.guest().elr;
        exits::access(
            cpu,
            Access {
                address,
                write: value.is_some(),
                register: 5,
                size: 2,
            },
        );
        (cpu.is_in_guest() && cpu.guest().elr == elr + 4).then(|| cpu.guest().x[5])
    }

    fn go_on(&mut self) {
        let done = match self.step {
            0 => self.access(offset::TERM, Some(self.term)).is_some(),
            1 => self.access(offset::ROUNDS, Some(self.rounds)).is_some(),
            2 => self.access(offset::START, Some(1)).is_some(),
            3 => self
                .access(offset::STATUS, None)
                .is_some_and(|status| status & BUSY == 0),
            _ => {
                let Some(sum) = self.access(offset::SUM, None) else {
                    return;
                };
                self.additions += 1;
                let expected = self.term * self.rounds * self.additions;
                assert_eq!(sum, expected & 0xffff_ffff, "addition {}", self.additions);
                self.step = 0;
                return;
            }
        };
        self.step += usize::from(done);
    }

    /// Whether it reaches the device without an exit: by the tables, or by what its CPU remembers of them.
    fn reaches(&self) -> bool {
        self.cpu.is_in_guest()
            && self.cpu.guest_register(self.registers + offset::ID, None) == Some(IDENTIFICATION)
    }
}

fn two_domains_share_a_coprocessor(gic: Version) {
    boards::start(Wanted {
        gic,
        coproc: Some(Shared::Accumulator),
        ..Wanted::default()
    });
    let console = fake::console();
    assert!(console.contains("2 domains, 1 coprocs"), "{console}");
    let mut both = [
        Program::new(0, Cpu(0), 3, 2000),
        Program::new(1, Cpu(1), 0x1_0001, 3000),
    ];
    for _ in 0..600 {
        for program in &mut both {
            program.go_on();
        }
        fake::pass(Duration::from_micros(200));
        let reach = both.iter().filter(|program| program.reaches()).count();
        assert!(reach <= 1, "two domains reach the device");
        fake::forget();
    }
    for program in &both {
        assert!(program.additions > 3, "{} additions", program.additions);
        assert!(
            program.direct > 10,
            "{} accesses without an exit",
            program.direct
        );
    }
}

#[test]
fn two_domains_share_a_coprocessor_on_a_gicv2() {
    in_own_process(|| two_domains_share_a_coprocessor(Version::V2));
}

#[test]
fn two_domains_share_a_coprocessor_on_a_gicv3() {
    in_own_process(|| two_domains_share_a_coprocessor(Version::V3));
}
