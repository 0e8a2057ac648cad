//! What has to be in force, or visible, before something else: a CPU's controls, interrupt controllers, timers.

use super::boards::{self, A76, Wanted};
use super::*;
use crate::arch::fake::devices::{ACKNOWLEDGE, DEACTIVATE, END, GICC, GICH, SEND};
use crate::arch::fake::firmware;
use crate::arch::mmu::DIRECT_BASE;
use hypervisor::processor::Dc;
use hypervisor::trap::controls::{GUEST, GUEST_DEBUG, GUEST_NO_FLOAT};

/// What each CPU runs guests under, from its first one on, and that it has forgotten what it knew after reset.
fn begun(trace: &[Event], cpu: Cpu) -> Verdict {
    let mut model = Model::default();
    for register in [
        Register::Vttbr,
        Register::Vtcr,
        Register::Cptr,
        Register::Mdcr,
        Register::Hstr,
        Register::Vpidr,
    ] {
        model.registers.set(register, 0xdead_0000);
    }
    model.step(Step::Isb);
    let mut expected = Guest::default();
    let geometry = platforms::translation::Geometry::stage2(40, 40).unwrap();
    for (register, value) in [
        (Register::Vttbr, cpu.register("vttbr_el2")),
        (Register::Vtcr, platforms::translation::vtcr_el2(geometry)),
        (Register::Hcr, GUEST.bits()),
        (Register::Cptr, GUEST_NO_FLOAT),
        (Register::Mdcr, GUEST_DEBUG.bits() | 6),
        (Register::Hstr, 0),
        (Register::Vpidr, A76),
    ] {
        expected.0.insert(register, value);
    }
    let mut forgotten = false;
    for step in fake::steps(trace, &[]) {
        model.step(step);
        // Only then it can't learn from wherever VTTBR_EL2 led.
        forgotten |= step == Step::Tlbi(Tlbi::AllE1)
            && model
                .registers
                .only(Register::Vttbr)
                .is_some_and(|vttbr| vttbr != 0xdead_0000)
            && model.registers.only(Register::Hcr) == Some(GUEST.bits());
    }
    model.unused()?;
    model.runs(&expected)?;
    match (forgotten, model.registers.vectors()) {
        (true, Some(_)) => Ok(()),
        _ => Err("TLBs are as after reset".to_string()),
    }
}

#[test]
fn each_cpu_begins_with_its_controls_and_without_a_past() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            midr: &[A76; 3],
            domains: &[&[0], &[1], &[2]],
            ..Wanted::default()
        });
        for cpu in [0, 1, 2].map(Cpu) {
            let trace = cpu.trace(0);
            let trace = until(&trace, |event| matches!(event, Event::Enter(..)));
            holds(trace, |trace| begun(trace, cpu), &[is_tlbi, is_dsb, is_isb]);
        }
    });
}

/// A CPU that starts has its MMU off: what it reads must be in memory.
#[test]
fn what_a_cpu_starts_with_is_in_memory() {
    in_own_process(|| {
        boards::two(Version::V3, A76);
        let trace = Cpu(0).trace(0);
        let trace = until(&trace, |event| *event == Event::Called(firmware::CPU_ON));
        let line = firmware::boot_data(1);
        let rule = |trace: &[Event]| {
            // Written twice: the key comes last.
            let mut cleaned = 0;
            let mut model = Model::default();
            model.step(Step::Stored(line));
            for event in trace {
                if *event == Event::Step(Step::Dc(Dc::Clean, line)) {
                    cleaned += 1;
                }
            }
            for step in fake::steps(trace, &[line]) {
                model.step(step);
            }
            model.in_memory()?;
            match cleaned {
                2 => Ok(()),
                _ => Err(alloc::format!("cleaned {cleaned} times")),
            }
        };
        holds(trace, rule, &[is_dc, is_dsb]);
    });
}

/// A CPU that polls has its caches off, too.
#[test]
fn a_cpu_that_polls_finds_its_entry_in_memory() {
    in_own_process(|| {
        boards::start(Wanted {
            spin_table: true,
            ..Wanted::default()
        });
        assert!(Cpu(1).is_in_guest(), "{}", fake::console());
        let trace = Cpu(0).trace(0);
        let trace = until(&trace, |event| *event == Event::Step(Step::Sev));
        let line = DIRECT_BASE + boards::SPIN_TABLE as usize;
        let rule = |trace: &[Event]| {
            let mut model = at_end(trace, &[line, firmware::boot_data(1)]);
            model.in_memory()?;
            // Stores are visible before the event is.
            model.step(Step::Sev);
            model.told()
        };
        let stored =
            |event: &Event| matches!(event, Event::Stored { address, .. } if *address == line);
        assert!(trace.iter().any(stored));
        holds(trace, rule, &[is_dc, is_dsb]);
    });
}

/// Lets both CPUs take interrupts of all kinds: timers, SGIs, the UART's.
fn interrupt(cpus: [Cpu; 2]) {
    for cpu in cpus {
        let now = cpu.register("cntvoff_el2");
        cpu.set_register("cntv_cval_el0", now);
        cpu.set_register("cntv_ctl_el0", 1);
    }
    fake::pass(Duration::from_millis(50));
    fake::type_in("help\r");
    exits::wait(cpus[1]);
    fake::pass(Duration::from_millis(50));
    let domain = 1;
    cpus[0].run(move || {
        let system = system::get().unwrap();
        assert!(lifecycle::request(&system.domains[domain], Operation::Restart).is_ok());
    });
    fake::pass(Duration::from_secs(1));
    assert!(
        fake::console().contains("d2: restarted"),
        "{}",
        fake::console()
    );
}

/// Each of a GICv2's registers that something depends on.
#[test]
fn accesses_to_a_gicv2_are_ordered() {
    in_own_process(|| {
        let cpus = boards::two(Version::V2, A76);
        interrupt(cpus);
        for cpu in cpus {
            let trace = cpu.trace(0);
            let dsb = |event: &Event| *event == Event::Step(Step::Dsb(Dsb::Sy));
            // Inactive before its source is looked at again; and what an SGI's sender stored is looked at only then.
            holds(
                &trace,
                |trace| {
                    synchronised(
                        trace,
                        |event| matches!(event, Event::Store(DEACTIVATE, _)),
                        dsb,
                        |event| !dsb(event),
                    )
                },
                &[is_dsb],
            );
            // Set up before the first interrupt is looked for.
            holds(
                &trace,
                |trace| {
                    let first = trace
                        .iter()
                        .position(|event| matches!(event, Event::Load(ACKNOWLEDGE, _)))
                        .ok_or("no interrupt was taken")?;
                    synchronised(
                        &trace[..first + 1],
                        |event| matches!(event, Event::Store(at, _) if (GICC..GICC + 8).contains(at)),
                        dsb,
                        |event| ends(event) || matches!(event, Event::Load(ACKNOWLEDGE, _)),
                    )
                },
                &[is_dsb, |event| matches!(event, Event::Load(ACKNOWLEDGE, _))],
            );
            assert!(
                trace
                    .iter()
                    .any(|event| matches!(event, Event::Store(END, _)))
            );
            assert!(
                trace
                    .iter()
                    .any(|event| matches!(event, Event::Store(at, _) if *at >= GICH))
            );
        }
        // What it is about is visible before another CPU hears of it.
        holds(
            &cpus[0].trace(0),
            |trace| {
                let mut seen = false;
                for pair in trace.windows(2) {
                    if matches!(pair[1], Event::Store(SEND, _)) {
                        seen = true;
                        if pair[0] != Event::Step(Step::Dsb(Dsb::Ishst)) {
                            return Err(alloc::format!("{pair:x?}"));
                        }
                    }
                }
                if seen {
                    Ok(())
                } else {
                    Err("nobody was told".into())
                }
            },
            &[is_dsb],
        );
    });
}

/// A GICv3's CPU interface is system registers.
#[test]
fn accesses_to_a_gicv3_are_ordered() {
    in_own_process(|| {
        let cpus = boards::two(Version::V3, A76);
        interrupt(cpus);
        let names = |event: &Event, some: &[&str]| match event {
            Event::Write(name, _) | Event::Read(name) => {
                some.iter().any(|prefix| name.starts_with(prefix))
            }
            _ => false,
        };
        for cpu in cpus {
            let trace = cpu.trace(0);
            // The registers exist before they are used.
            let exist = |trace: &[Event]| {
                synchronised(
                    trace,
                    |event| matches!(event, Event::Write("icc_sre_el2", _)),
                    is_isb,
                    |event| names(event, &["icc_", "ich_"]) && !names(event, &["icc_sre_el2"]),
                )
            };
            holds(&trace, exist, &[is_isb]);
            // Set up, ended and deactivated before anything is looked for, or looked at again.
            for register in [
                "icc_ctlr_el1",
                "icc_pmr_el1",
                "icc_bpr1_el1",
                "icc_igrpen1_el1",
                "icc_eoir1_el1",
                "icc_dir_el1",
            ] {
                let rule = |trace: &[Event]| {
                    synchronised(
                        trace,
                        |event| matches!(event, Event::Write(name, _) if *name == register),
                        is_isb,
                        |event| {
                            ends(event)
                                || names(event, &["icc_iar1_el1"])
                                || matches!(event, Event::Load(..))
                        },
                    )
                };
                holds(&trace, rule, &[is_isb]);
            }
        }
        let told = |trace: &[Event]| {
            let mut seen = false;
            for three in trace.windows(3) {
                if matches!(three[1], Event::Step(Step::Sgi(_))) {
                    seen = true;
                    let [before, _, after] = three else { continue };
                    if *before != Event::Step(Step::Dsb(Dsb::Ishst)) || !is_isb(after) {
                        return Err(alloc::format!("{three:x?}"));
                    }
                }
            }
            if seen {
                Ok(())
            } else {
                Err("nobody was told".into())
            }
        };
        holds(&cpus[0].trace(0), told, &[is_isb, is_dsb]);
    });
}

/// The counter isn't read ahead of what precedes; EL2's timer is set before its interrupt is looked for; what others are to see is visible before a CPU sleeps.
#[test]
fn the_counter_and_sleep_are_ordered() {
    in_own_process(|| {
        let cpus = boards::two(Version::V2, A76);
        interrupt(cpus);
        fake::pass(Duration::from_millis(10));
        for cpu in cpus {
            exits::wait(cpu);
        }
        fake::pass(Duration::from_millis(10));
        for cpu in cpus {
            let trace = cpu.trace(0);
            let before = |trace: &[Event], what: fn(&Event) -> bool, barrier: Step| {
                let mut seen = false;
                for pair in trace.windows(2) {
                    if what(&pair[1]) {
                        seen = true;
                        if pair[0] != Event::Step(barrier) {
                            return Err(alloc::format!("{pair:x?}"));
                        }
                    }
                }
                if seen {
                    Ok(())
                } else {
                    Err("never".to_string())
                }
            };
            holds(
                &trace,
                |trace| {
                    before(
                        trace,
                        |event| *event == Event::Read("cntpct_el0"),
                        Step::Isb,
                    )
                },
                &[is_isb],
            );
            holds(
                &trace,
                |trace| {
                    before(
                        trace,
                        |event| *event == Event::Step(Step::Wfi),
                        Step::Dsb(Dsb::Sy),
                    )
                },
                &[is_dsb],
            );
            holds(
                &trace,
                |trace| {
                    synchronised(
                        trace,
                        |event| matches!(event, Event::Write(name, _) if name.starts_with("cnthp_")),
                        is_isb,
                        ends,
                    )
                },
                &[is_isb],
            );
        }
    });
}
