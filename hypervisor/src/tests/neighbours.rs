//! What a domain can take from its neighbours without reaching them: time of their CPUs.

use super::boards::{self, Wanted};
use super::exits::{self, Access};
use crate::arch::fake::{self, Cpu, Event, in_own_process};
use crate::arch::gic;
use crate::system;
use hypervisor::guest_tree::layout;
use hypervisor::vgic::Version;
use std::time::{Duration, Instant};

fn store(cpu: Cpu, address: u64, value: u64) {
    cpu.set_guest(|guest| guest.x[1] = value);
    exits::access(
        cpu,
        Access {
            address,
            write: true,
            register: 1,
            size: 2,
        },
    );
}

const WATCHDOG_CONTROL: u64 = layout::WATCHDOG_BASE;
const WATCHDOG_OFFSET: u64 = layout::WATCHDOG_BASE + 8;

/// Whatever a domain does with its clock and watchdog, the CPUs of other domains aren't told; and what is due comes all the same.
#[test]
fn timers_of_a_domain_cost_others_no_time() {
    in_own_process(|| {
        boards::start(Wanted {
            domains: &[&[1], &[0]],
            ..Wanted::default()
        });
        let (own, other) = (Cpu(1), Cpu(0));
        let from = other.events();
        // 10 ms, and a tick less each time.
        for tick in 0..20 {
            store(own, WATCHDOG_OFFSET, 625_000 - tick);
            store(own, WATCHDOG_CONTROL, 1);
            store(own, layout::RTC_BASE + 4, 100 + tick);
        }
        let exits = other.trace(from);
        let exits = exits.iter().filter(|event| **event == Event::Exit).count();
        assert_eq!(exits, 0, "exits of a domain that did nothing");
        // Twice the watchdog's time: it is the end of its domain, and of no other.
        fake::pass(Duration::from_millis(30));
        let console = fake::console();
        assert!(console.contains("d1: crashed (watchdog)"), "{console}");
        assert!(!own.is_in_guest() && other.is_in_guest());
    });
}

/// A virtual timer that is never to fire wakes nobody, whatever is added to its compare value on the way to the machine's time.
#[test]
fn a_timer_at_the_end_of_time_never_wakes() {
    in_own_process(|| {
        boards::start(Wanted {
            domains: &[&[0], &[0]],
            ..Wanted::default()
        });
        let cpu = Cpu(0);
        let first = cpu.register("vttbr_el2");
        cpu.set_register("cntv_cval_el0", u64::MAX);
        cpu.set_register("cntv_ctl_el0", 1);
        exits::wait(cpu);
        assert!(cpu.is_in_guest());
        let second = cpu.register("vttbr_el2");
        assert_ne!(first, second, "the other domain's turn");
        let from = cpu.events();
        fake::pass(Duration::from_millis(50));
        let entered = cpu.trace(from).into_iter().filter_map(|event| match event {
            Event::Enter(vttbr, _) => Some(vttbr),
            _ => None,
        });
        assert_eq!(
            entered.filter(|vttbr| *vttbr == first).count(),
            0,
            "the one that waits was woken"
        );
    });
}

/// While the other vCPUs of a domain tell one something without end, its CPU looks for interrupts all the same: they may be another domain's.
#[test]
fn a_cpu_that_is_told_something_without_end_looks_for_interrupts() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            domains: &[&[0, 1]],
            ..Wanted::default()
        });
        let from = Cpu(0).events();
        Cpu(1).run(|| {
            let domains = &system::get().expect("the system").domains;
            let told = &domains[0].vcpus[0];
            let limit = Instant::now() + Duration::from_secs(1);
            while Instant::now() < limit {
                gic::kick(0);
                for _ in 0..100_000 {
                    told.demand_attention();
                }
            }
        });
        // Each time round, list registers are filled; in between, the guest runs or interrupts are acknowledged.
        let (mut all, mut rounds, mut most) = (0, 0, 0);
        for event in Cpu(0).trace(from) {
            match event {
                Event::Write("ich_hcr_el2", _) => {
                    all += 1;
                    rounds += 1;
                }
                Event::Read("icc_iar1_el1") | Event::Enter(..) => rounds = 0,
                _ => {}
            }
            most = most.max(rounds);
        }
        assert!(all > 20, "it wasn't told much: {all}");
        assert!(most <= 6, "{most} of {all} rounds without a look");
    });
}
