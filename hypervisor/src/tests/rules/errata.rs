//! Cores with errata.

use super::boards::{self, A53, A57, A76, Wanted};
use super::exits::Access;
use super::*;
use crate::arch::fake::firmware;
use hypervisor::processor::{At, Vectors};

/// SCTLR_EL1.M.
const MMU: u64 = 1;

/// Cortex-A57 834220: a load from an emulated register may be reported although stage 1 has a fault for it, where the register begins a page.
#[test]
fn a_misreported_load_is_repeated_and_nothing_read() {
    in_own_process(|| {
        const NONE: u64 = 0x809;
        let [cpu, _] = boards::two(Version::V3, A57);
        let ats = |from: usize| {
            let trace = cpu.trace(from);
            trace
                .iter()
                .filter(|event| matches!(event, Event::Step(Step::At(..))))
                .count()
        };
        // On the way that is short, and the one that isn't: the clock's.
        for (at, sees) in [
            (layout::GICD_BASE, 0x10),
            (layout::GICR_BASE, 0),
            (layout::UART_BASE, 0),
            (layout::RTC_BASE, 0),
        ] {
            let access = Access {
                address: at,
                write: false,
                register: 3,
                size: 2,
            };
            let before = cpu.guest();
            cpu.set_guest(|guest| guest.x[3] = 0x5a5a);
            cpu.set_register("par_el1", 0x1234);
            cpu.set_translations([NONE; 2]);
            let from = cpu.events();
            exits::access(cpu, access);
            let after = cpu.guest();
            assert_eq!((after.elr, after.x[3]), (before.elr, 0x5a5a), "{at:#x}");
            assert_eq!(ats(from), 1, "{at:#x}");
            // AT's result is there before it is read, and the guest's register is its own.
            holds(
                &cpu.trace(from),
                |trace| {
                    let mut model = at_end(trace, &[]);
                    // The return to the guest is one, too.
                    model.step(Step::Isb);
                    model.settled()
                },
                &[is_isb],
            );
            assert_eq!(cpu.register("par_el1"), 0x1234);

            cpu.set_translations([NONE, at & !0xfff]);
            exits::access(cpu, access);
            let after = cpu.guest();
            assert_eq!(after.elr, before.elr + 4, "{at:#x}");
            assert_ne!(after.x[3], 0x5a5a, "{at:#x}: {sees:#x}");
        }
        // Nowhere else, it costs something.
        cpu.set_translations([NONE; 2]);
        for access in [
            Access {
                address: layout::GICD_BASE + 4,
                write: false,
                register: 1,
                size: 2,
            },
            Access {
                address: layout::GICD_BASE,
                write: true,
                register: 1,
                size: 2,
            },
            Access {
                address: layout::UART_BASE + 0x18,
                write: false,
                register: 1,
                size: 2,
            },
        ] {
            let (elr, from) = (cpu.guest().elr, cpu.events());
            exits::access(cpu, access);
            assert_eq!((cpu.guest().elr, ats(from)), (elr + 4, 0), "{access:x?}");
        }
    });
}

/// A core that doesn't have it isn't asked.
#[test]
fn other_cores_believe_what_is_reported() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        cpu.set_translations([1; 2]);
        for address in [layout::GICD_BASE, layout::RTC_BASE] {
            let (elr, from) = (cpu.guest().elr, cpu.events());
            exits::access(
                cpu,
                Access {
                    address,
                    write: false,
                    register: 1,
                    size: 2,
                },
            );
            assert_eq!(cpu.guest().elr, elr + 4);
            let asked =
                |event: &Event| matches!(event, Event::Step(Step::At(At::S1E0R | At::S1E1R, _)));
            assert!(!cpu.trace(from).iter().any(asked));
        }
    });
}

/// Cortex-A57 1319537 and its like: two domains take turns on a CPU, and no translation mixes them, nor one of them with nobody.
#[test]
fn speculative_translations_never_mix_two_domains() {
    in_own_process(|| {
        boards::start(Wanted {
            midr: &[A57],
            domains: &[&[0], &[0]],
            ..Wanted::default()
        });
        let cpu = Cpu(0);
        let own = |number: u64| {
            cpu.set_register("sctlr_el1", 0x30d0_0800 | MMU);
            cpu.set_register("tcr_el1", number << 32 | 0x3510);
            cpu.set_register("ttbr0_el1", number << 20);
            cpu.set_register("ttbr1_el1", number << 21);
            cpu.set_register("mair_el1", number << 8);
        };
        const KEPT: [Register; 6] = [
            Register::Vttbr,
            Register::Sctlr,
            Register::Tcr,
            Register::Ttbr0,
            Register::Ttbr1,
            Register::Mair,
        ];
        let as_guest = || {
            Guest(
                cpu.registers()
                    .into_iter()
                    .filter(|(name, _)| KEPT.contains(name))
                    .collect(),
            )
        };
        let first = cpu.register("vttbr_el2");
        own(1);
        let mut guests = Vec::from([as_guest()]);
        // It wakes by its timer, later.
        let later = cpu.register("cntvoff_el2") + fake::FREQUENCY / 100;
        cpu.set_register("cntv_cval_el0", later);
        cpu.set_register("cntv_ctl_el0", 1);
        exits::wait(cpu);
        let second = cpu.register("vttbr_el2");
        assert!(cpu.is_in_guest() && first != second);
        own(2);
        guests.push(as_guest());

        // From the second to nobody, to the first.
        let mut start = Model::default();
        start.registers.speculates = true;
        start.registers.guests.clone_from(&guests);
        let trace = cpu.trace(0);
        let nobody = trace.iter().find_map(|event| match event {
            Event::Step(Step::Write(Register::Vttbr, value)) => Some(*value),
            _ => None,
        });
        start.registers.nobody.extend(nobody);
        for (register, value) in cpu.registers() {
            start.registers.set(register, value);
        }
        let from = cpu.events();
        exits::wait(cpu);
        assert!(cpu.is_asleep());
        fake::pass(Duration::from_secs(1));
        assert!(cpu.is_in_guest());
        assert_eq!(cpu.register("vttbr_el2"), first);
        let left = |event: &Event| matches!(event, Event::Step(Step::Write(Register::Vttbr, value)) if Some(*value) == nobody);
        assert!(cpu.trace(from).iter().any(left));
        let rule = |trace: &[Event]| {
            let mut model = start.clone();
            for step in fake::steps(trace, &[]) {
                model.step(step);
            }
            model.runs(&guests[0])
        };
        holds(
            &cpu.trace(from),
            rule,
            &[is_isb, |event| fake::writes(event, Register::Vttbr)],
        );
    });
}

/// The same while a CPU that runs one of them unmaps a page of the other's.
#[test]
fn speculative_translations_never_mix_domains_while_one_is_unmapped() {
    in_own_process(|| {
        let cpus = boards::two(Version::V2, A57);
        let mut guests = Vec::new();
        for (cpu, number) in cpus.into_iter().zip(1u64..) {
            cpu.set_register("sctlr_el1", 0x30d0_0800 | MMU);
            cpu.set_register("tcr_el1", number << 32 | 0x3510);
            cpu.set_register("ttbr0_el1", number << 20);
            guests.push(Guest(cpu.registers().into_iter().collect()));
        }
        let mut start = Model::default();
        start.registers.speculates = true;
        start.registers.guests.clone_from(&guests);
        for (register, value) in cpus[0].registers() {
            start.registers.set(register, value);
        }
        let vttbr = cpus[1].register("vttbr_el2");
        let page = layout::RAM_BASE + 0x30_0000;
        let from = cpus[0].events();
        cpus[0].run(move || {
            let domain = &system::get().unwrap().domains[1];
            domain.stage2.lock().unmap(page, 0x1000).unwrap();
        });
        let trace = cpus[0].trace(from);
        let back = |event: &Event| {
            matches!(
                event,
                Event::Step(Step::Tlbi(Tlbi::VmallE1Is | Tlbi::VmallS12E1Is))
            )
        };
        assert!(trace.iter().any(back));
        let rule = |trace: &[Event]| {
            let mut model = start.clone();
            model.step(Step::Unmapped(page >> 12, (page >> 12) + 1, vttbr));
            for step in fake::steps(trace, &[]) {
                model.step(step);
            }
            model.unused()?;
            model.runs(&guests[0])
        };
        let walks = |event: &Event| fake::writes(event, Register::Tcr);
        holds(&trace, rule, &[is_isb, is_tlbi, walks]);
    });
}

/// Spectre variant 2: a core whose branch predictor guests can train calls its firmware at exits, and for guests that ask for it.
#[test]
fn exits_call_the_firmware_where_it_is_offered() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            midr: &[A57, A53],
            workarounds: &[firmware::WORKAROUND_1],
            ..Wanted::default()
        });
        for (cpu, vectors) in [(Cpu(0), Vectors::Hardened), (Cpu(1), Vectors::Plain)] {
            let trace = cpu.trace(0);
            let set = |event: &Event| matches!(event, Event::Step(Step::Vectors(_)));
            let last = trace.iter().rfind(|event| set(event));
            assert_eq!(last, Some(&Event::Step(Step::Vectors(vectors))));
            let in_force = |trace: &[Event]| synchronised(trace, set, is_isb, ends);
            holds(&trace, in_force, &[is_isb]);
            // All domains are told the same, wherever their vCPUs are.
            let features = [0x8000_0001, u64::from(firmware::WORKAROUND_1), 0, 0];
            assert_eq!(exits::smccc(cpu, features).unwrap()[0], 0);
            let from = cpu.events();
            exits::smccc(cpu, [firmware::WORKAROUND_1.into(), 0, 0, 0]).unwrap();
            assert!(
                cpu.trace(from)
                    .contains(&Event::Called(firmware::WORKAROUND_1))
            );
        }
    });
}

/// Spectre-BHB and variant 4: the call that does more is the one that exits make, and the mitigation of store bypass goes on once, for good.
#[test]
fn the_firmware_s_later_workarounds_are_used_and_told() {
    use firmware::{WORKAROUND_1, WORKAROUND_2, WORKAROUND_3};
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            midr: &[A57, A53],
            workarounds: &[WORKAROUND_1, WORKAROUND_2, WORKAROUND_3],
            ..Wanted::default()
        });
        let called = |cpu: Cpu, from: usize, function: u32| {
            let trace = cpu.trace(from);
            let calls = trace.iter().filter(|one| **one == Event::Called(function));
            calls.count()
        };
        for (cpu, by_exits, switched) in [(Cpu(0), true, 1), (Cpu(1), false, 0)] {
            assert_eq!(called(cpu, 0, WORKAROUND_1), 0);
            assert_eq!(called(cpu, 0, WORKAROUND_2), switched);
            assert_eq!(called(cpu, 0, WORKAROUND_3) > 0, by_exits);
            for (id, told, answer, made) in [
                (WORKAROUND_1, 0, 0, 1),
                (WORKAROUND_2, -2, -1, 0),
                (WORKAROUND_3, 0, 0, 1),
            ] {
                let features = [0x8000_0001, id.into(), 0, 0];
                assert_eq!(exits::smccc(cpu, features).unwrap()[0] as i64, told);
                let from = cpu.events();
                let answered = exits::smccc(cpu, [id.into(), 0, 0, 0]).unwrap();
                assert_eq!(answered[0] as i64, answer, "{id:#x}");
                assert_eq!(called(cpu, from, id), made, "{id:#x}");
            }
        }
    });
}
