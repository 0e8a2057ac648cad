//! Which CPUs run, and as which number.

use super::Voice;
use crate::config::Machine;
use crate::config::machine::{Conduit, Cpu, EnableMethod};
use crate::config::pools::MAX_CPUS;
use crate::devicetree::Region;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use coproc_core::address::HostPhysical;

/// How a CPU is started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Starter {
    /// By PSCI CPU_ON.
    Psci(Conduit),
    /// By its entry's address in this word of RAM.
    SpinTable(HostPhysical),
}

/// Why a CPU can't be started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unstartable {
    /// By nothing that is known.
    #[error("the device tree says no way to start it")]
    NoWay,
    /// What it polls is no memory.
    #[error("cpu-release-addr: {0} is not a word of RAM")]
    Word(HostPhysical),
}

fn starter(machine: &Machine, cpu: &Cpu) -> Result<Starter, Unstartable> {
    match (cpu.enable, machine.psci) {
        (EnableMethod::Psci, Some(psci)) => Ok(Starter::Psci(psci.conduit)),
        (EnableMethod::SpinTable { release }, _) => {
            let word = Region {
                address: release.get(),
                size: 8,
            };
            let usable = word.address.is_multiple_of(8) && machine.is_ram(&word);
            if usable {
                Ok(Starter::SpinTable(release))
            } else {
                Err(Unstartable::Word(release))
            }
        }
        _ => Err(Unstartable::NoWay),
    }
}

/// Starts all CPUs but the one that booted, number `booted` of the tree, one after another. Returns, for each CPU of the tree, its number if it
/// runs: the one that booted is 0, the others count on from 1 in the order of the tree, and one that stays off keeps its number.
///
/// `start` gets number, CPU and way, and returns whether the CPU has come, or why it couldn't be started.
pub fn start_cpus(
    machine: &Machine,
    booted: Option<usize>,
    voice: &mut dyn Voice,
    start: &mut dyn FnMut(usize, &Cpu, Starter) -> Result<bool, String>,
) -> Vec<Option<usize>> {
    let mut others = 1..;
    let mut left = false;
    let cpus = machine.cpus.iter().enumerate();
    let numbers = cpus.map(|(index, cpu)| {
        if Some(index) == booted {
            return Some(0);
        }
        let number = others.next()?;
        if number >= MAX_CPUS {
            left = true;
            return None;
        }
        let started = starter(machine, cpu).map_err(|error| error.to_string());
        match started.and_then(|way| start(number, cpu, way)) {
            Ok(came) => came.then_some(number),
            Err(why) => {
                let line = format_args!("CPU {:#x} stays off: {why}", cpu.mpidr);
                voice.warning(&cpu.path, line);
                None
            }
        }
    });
    let numbers = numbers.collect();
    if left {
        let line = format_args!("more than {MAX_CPUS} CPUs: the others stay off");
        voice.warning("/cpus", line);
    }
    numbers
}

#[cfg(test)]
mod tests {
    use super::super::tests::Notes;
    use super::*;
    use crate::config::tests;
    use crate::devicetree::tests::QEMU_GICV3;
    use alloc::format;
    use alloc::vec;

    /// Ten CPUs, of which the fourth booted; 1 says no way, 2 has its word in RAM, 4 in none, 5 in the middle of two.
    fn machine() -> Machine {
        let mut machine = tests::machine(QEMU_GICV3);
        let release = |release| EnableMethod::SpinTable {
            release: HostPhysical::new(release),
        };
        let ram = machine.memory[0].address;
        let ways = [
            (1, EnableMethod::None),
            (2, release(ram + 8)),
            (4, release(0x900_0000)),
            (5, release(ram + 4)),
        ];
        let one = machine.cpus[0].clone();
        machine.cpus = (0..10)
            .map(|index| Cpu {
                mpidr: index,
                path: format!("/cpus/cpu@{index}"),
                enable: (ways.iter().find(|(at, _)| *at == index))
                    .map_or(EnableMethod::Psci, |(_, way)| *way),
                ..one.clone()
            })
            .collect();
        machine
    }

    #[test]
    fn one_that_stays_off_keeps_its_number() {
        let machine = machine();
        let mut notes = Notes::default();
        let mut tried = vec![];
        let numbers = start_cpus(&machine, Some(3), &mut notes, &mut |number, cpu, way| {
            tried.push((number, cpu.mpidr, way));
            match cpu.mpidr {
                6 => Ok(false),
                7 => Err("refused".into()),
                _ => Ok(true),
            }
        });
        let ram = machine.memory[0].address;
        let psci = Starter::Psci(machine.psci.unwrap().conduit);
        let word = Starter::SpinTable(HostPhysical::new(ram + 8));
        assert_eq!(
            tried,
            [(1, 0, psci), (3, 2, word), (6, 6, psci), (7, 7, psci)]
        );
        let mut expected = [None; 10];
        expected[..4].copy_from_slice(&[Some(1), None, Some(3), Some(0)]);
        assert_eq!(numbers, expected);
        let off = |cpu, why| format!("warning /cpus/cpu@{cpu} CPU {cpu:#x} stays off: {why}");
        assert_eq!(
            notes.said,
            [
                off(1, "the device tree says no way to start it"),
                off(4, "cpu-release-addr: 0x9000000 is not a word of RAM"),
                off(
                    5,
                    &format!("cpu-release-addr: {:#x} is not a word of RAM", ram + 4)
                ),
                off(7, "refused"),
                "warning /cpus more than 8 CPUs: the others stay off".into(),
            ]
        );
    }

    #[test]
    fn psci_is_a_way_only_where_there_is_one() {
        let mut machine = machine();
        machine.psci = None;
        machine.cpus.truncate(1);
        let mut notes = Notes::default();
        let mut never = |_: usize, _: &Cpu, _| -> Result<bool, String> { panic!("started") };
        // The one that booted isn't in the tree.
        let numbers = start_cpus(&machine, None, &mut notes, &mut never);
        assert_eq!(numbers, [None]);
        assert!(notes.said[0].contains("no way to start it"));
    }
}
