//! Hypercalls: PSCI and SMCCC, by HVC and by SMC.

use super::boards::{self, A76, Wanted};
use super::exits::{self, Access, smc, smccc, wait};
use crate::arch::fake::{self, Cpu, Exception, in_own_process};
use crate::system;
use alloc::collections::BTreeMap;
use hypervisor::guest_tree::layout;
use hypervisor::lifecycle::State;
use hypervisor::vgic::Version;
use std::time::Duration;

const VERSION: u64 = 0x8400_0000;
const CPU_OFF: u64 = 0x8400_0002;
const CPU_ON: u64 = 0xc400_0003;
const AFFINITY_INFO: u64 = 0xc400_0004;
const SYSTEM_OFF: u64 = 0x8400_0008;
const FEATURES: u64 = 0x8400_000a;
const SMCCC_VERSION: u64 = 0x8000_0000;

const NOT_SUPPORTED: u64 = u64::MAX;
const INVALID_PARAMETERS: u64 = u64::MAX - 1;
const ALREADY_ON: u64 = u64::MAX - 3;

fn state(domain: usize) -> State {
    let system = system::get().unwrap();
    system.domains[domain].control.lock().life.state()
}

/// The same answers by either way, and nothing but X0 to X3 changed.
#[test]
fn calls_are_answered_by_either_conduit() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        for (call, answer) in [
            ([VERSION, 0, 0, 0], 0x1_0001),
            ([SMCCC_VERSION, 0, 0, 0], 0x1_0002),
            ([FEATURES, CPU_ON, 0, 0], 0),
            ([FEATURES, 0x8400_00ff, 0, 0], NOT_SUPPORTED),
            ([AFFINITY_INFO, 0, 0, 0], 0),
            ([AFFINITY_INFO, 1, 0, 0], INVALID_PARAMETERS),
            ([CPU_ON, 0, layout::RAM_BASE, 0], ALREADY_ON),
            ([CPU_ON, 1, layout::RAM_BASE, 0], INVALID_PARAMETERS),
            ([0x8400_00ff, 1, 2, 3], NOT_SUPPORTED),
            ([0xc600_0001, 1, 2, 3], NOT_SUPPORTED),
        ] {
            for conduit in [smccc, smc] {
                cpu.set_guest(|guest| {
                    let values = 1000..;
                    for (register, value) in guest.x[4..].iter_mut().zip(values) {
                        *register = value;
                    }
                });
                let before = cpu.guest();
                let found = conduit(cpu, call).expect("the guest goes on");
                let version = |x0: u64| x0 & 0xffff_ffff;
                if call[0] == SMCCC_VERSION {
                    assert!(found[0] >= 0x1_0001, "{:#x}", found[0]);
                } else if answer == NOT_SUPPORTED {
                    assert_eq!(found[0] as u32, answer as u32, "{call:x?}");
                } else {
                    assert_eq!(version(found[0]), version(answer), "{call:x?}");
                }
                let after = cpu.guest();
                assert_eq!(after.elr, before.elr + 4, "{call:x?}");
                assert_eq!((&after.x[4..], after.spsr), (&before.x[4..], before.spsr));
            }
        }
    });
}

#[test]
fn vcpus_go_on_and_off() {
    in_own_process(|| {
        boards::start(Wanted {
            domains: &[&[0, 1]],
            ..Wanted::default()
        });
        let cpus = [Cpu(0), Cpu(1)];
        assert!(cpus[1].is_asleep());
        let entry = layout::RAM_BASE + 0x12_3000;
        let info = || smccc(cpus[0], [AFFINITY_INFO, 1, 0, 0]).unwrap()[0];
        assert_eq!(info(), 1);
        // Not in RAM.
        let bad = smccc(cpus[0], [CPU_ON, 1, layout::UART_BASE, 0]).unwrap()[0];
        assert_eq!(bad as i32, -9);
        assert_eq!(smccc(cpus[0], [CPU_ON, 1, entry, 0x77]).unwrap()[0], 0);
        let guest = cpus[1].guest();
        assert_eq!((guest.elr, guest.spsr, guest.x[0]), (entry, 0x3c5, 0x77));
        assert_eq!(cpus[1].register("vmpidr_el2"), 1 << 31 | 1);
        assert_eq!(info(), 0);
        // EL1's registers are as after reset when it comes back.
        cpus[1].set_register("ttbr0_el1", 0x1234);
        cpus[1].set_register("sctlr_el1", 0x30d0_0801);
        assert_eq!(smccc(cpus[1], [CPU_OFF, 0, 0, 0]), None);
        assert_eq!(info(), 1);
        assert_eq!(smccc(cpus[0], [CPU_ON, 1, entry, 0]).unwrap()[0], 0);
        assert!(cpus[1].is_in_guest());
        assert_eq!(cpus[1].register("ttbr0_el1"), 0);
        assert_eq!(cpus[1].register("sctlr_el1"), 0x30d0_0800);
        // The last to go off takes the domain with it.
        for cpu in cpus {
            assert_eq!(smccc(cpu, [CPU_OFF, 0, 0, 0]), None);
        }
        fake::pass(Duration::from_millis(100));
        assert_eq!(state(0), State::Off);
        assert!(fake::console().contains("d1: all vCPUs are off"));
    });
}

#[test]
fn a_domain_that_switches_itself_off_leaves_the_other_alone() {
    in_own_process(|| {
        let [cpu, other] = boards::two(Version::V2, A76);
        let before = other.guest();
        assert_eq!(smccc(cpu, [SYSTEM_OFF, 0, 0, 0]), None);
        fake::pass(Duration::from_millis(100));
        assert_eq!((state(0), state(1)), (State::Off, State::Running));
        assert_eq!(other.guest(), before);
        assert!(fake::console().contains("d1: switched itself off; it is off"));
    });
}

/// It sleeps, and its timer wakes it; WFE doesn't stop it.
#[test]
fn a_vcpu_that_waits_is_woken_by_its_timer() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        // GICD_CTLR, GICR_IGROUPR0 and GICR_ISENABLER0: its timer's interrupt is let through.
        for (address, value) in [
            (layout::GICD_BASE, 1 << 4 | 1 << 1),
            (layout::GICR_BASE + 0x1_0080, 0xffff_ffff),
            (layout::GICR_BASE + 0x1_0100, 1 << 27),
        ] {
            let (write, register, size) = (true, 2, 2);
            cpu.set_guest(|guest| guest.x[2] = value);
            exits::access(
                cpu,
                Access {
                    address,
                    write,
                    register,
                    size,
                },
            );
        }
        let elr = cpu.guest().elr;
        exits::wait_for_event(cpu);
        assert_eq!(cpu.guest().elr, elr + 4);
        let later = cpu.register("cntvoff_el2") + fake::FREQUENCY / 10;
        cpu.set_register("cntv_cval_el0", later);
        cpu.set_register("cntv_ctl_el0", 1);
        wait(cpu);
        assert!(cpu.is_asleep());
        fake::pass(Duration::from_millis(20));
        assert!(cpu.is_asleep(), "too early");
        fake::pass(Duration::from_millis(100));
        assert_eq!(cpu.guest().elr, elr + 8);
        assert!(exits::is_signalled(cpu, 27));
    });
}

/// FP and SIMD registers are switched when they are used: each of two domains on a CPU has its own, and one that hasn't used them yet has none of the other's.
#[test]
fn everybody_finds_their_own_floating_point_registers() {
    in_own_process(|| {
        boards::start(Wanted {
            midr: &[A76],
            domains: &[&[0], &[0], &[0]],
            ..Wanted::default()
        });
        let cpu = Cpu(0);
        let trap = || cpu.exit(Exception::Synchronous(0x07 << 26 | 1 << 25, 0, 0));
        let traps = || cpu.register("cptr_el2") & 1 << 10 != 0;
        let mut kept = BTreeMap::new();
        for round in 0..12 {
            let who = cpu.register("vttbr_el2");
            if round % 3 != 2 {
                if traps() {
                    let elr = cpu.guest().elr;
                    trap();
                    assert_eq!(cpu.guest().elr, elr, "it is repeated");
                }
                assert!(!traps());
                let before = kept.insert(who, round + 1).unwrap_or(0);
                assert_eq!(cpu.float(), [before; 66], "round {round}");
                cpu.set_float(round + 1);
            }
            // It wakes soon, when the others have had their turns.
            let now = cpu.register("cntvoff_el2");
            cpu.set_register("cntv_cval_el0", now + fake::FREQUENCY / 100 * (round + 1));
            cpu.set_register("cntv_ctl_el0", 1);
            wait(cpu);
            if !cpu.is_in_guest() {
                fake::pass(Duration::from_secs(1));
            }
            assert!(cpu.is_in_guest(), "round {round}");
        }
        assert!(kept.len() > 1, "nobody else came");
    });
}
