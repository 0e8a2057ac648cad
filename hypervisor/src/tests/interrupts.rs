//! Interrupts, from where they come to a list register.

use super::boards::{self, A76, Wanted};
use super::exits::{self, Access, is_signalled, wait};
use crate::arch::fake::{self, Cpu, in_own_process};
use hypervisor::guest_tree::layout;
use hypervisor::trap::syndrome::encoding;
use hypervisor::vgic::Version;
use std::time::Duration;

const TIMER: u64 = 27;

/// The domain's interrupt controller lets a private interrupt of this vCPU through.
fn enable(cpu: Cpu, vcpu: u64, intid: u64) {
    let frame = layout::GICR_BASE + vcpu * layout::GICR_SIZE + 0x1_0000;
    for (address, value) in [
        (layout::GICD_BASE, 1 << 4 | 1 << 1),
        (frame + 0x80, 0xffff_ffff),
        (frame + 0x100, 1 << intid),
    ] {
        cpu.set_guest(|guest| guest.x[2] = value);
        exits::access(
            cpu,
            Access {
                address,
                write: true,
                register: 2,
                size: 2,
            },
        );
    }
    // ICH_VMCR_EL2: group 1 on, priority mask open.
    cpu.set_register("ich_vmcr_el2", 0xf8 << 24 | 1 << 1);
}

fn set_timer(cpu: Cpu, after: Duration) {
    let ticks = after.as_nanos() as u64 * fake::FREQUENCY / 1_000_000_000;
    let now = fake::counter() - cpu.register("cntvoff_el2");
    cpu.set_register("cntv_cval_el0", now + ticks);
    cpu.set_register("cntv_ctl_el0", 1);
}

/// Linked to the physical one, which stays active until the guest has ended it: nothing of Baton runs then.
#[test]
fn the_virtual_timers_interrupt_is_the_guests_to_end() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        enable(cpu, 0, TIMER);
        for _ in 0..3 {
            set_timer(cpu, Duration::from_millis(5));
            fake::pass(Duration::from_millis(4));
            assert!(!is_signalled(cpu, TIMER), "too early");
            fake::pass(Duration::from_millis(2));
            assert!(is_signalled(cpu, TIMER));
            assert!(cpu.is_active(TIMER as u32));
            let from = cpu.events();
            assert!(cpu.guest_acts(TIMER, false));
            cpu.set_register("cntv_ctl_el0", 0);
            assert!(cpu.guest_acts(TIMER, true));
            assert!(!cpu.is_active(TIMER as u32));
            assert_eq!(cpu.trace(from), [], "an exit");
        }
    });
}

/// Two domains take turns while one of them is about to serve its timer: active is active for that one alone.
#[test]
fn an_active_timer_interrupt_goes_with_its_vcpu() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            midr: &[A76],
            domains: &[&[0], &[0]],
            ..Wanted::default()
        });
        let cpu = Cpu(0);
        let first = cpu.register("vttbr_el2");
        enable(cpu, 0, TIMER);
        set_timer(cpu, Duration::from_micros(10));
        fake::pass(Duration::from_micros(20));
        assert_eq!(cpu.register("vttbr_el2"), first);
        assert!(cpu.guest_acts(TIMER, false));
        // Its handler has begun; from here on only the active state tells.
        cpu.set_register("cntv_ctl_el0", 0);
        let mut turns = 0;
        for _ in 0..40 {
            let own = cpu.register("vttbr_el2") == first;
            let lists = fake::LISTS.map(|name| cpu.register(name));
            let listed = lists
                .iter()
                .any(|list| list & 0xffff_ffff == TIMER && list >> 62 == 2);
            assert_eq!(
                (cpu.is_active(TIMER as u32), listed),
                (own, own),
                "{lists:x?}"
            );
            turns += usize::from(!own);
            fake::pass(Duration::from_millis(7));
        }
        assert!(turns > 3 && turns < 37, "{turns}");
    });
}

/// To a vCPU on another CPU, that runs or waits.
#[test]
fn an_sgi_reaches_a_vcpu_on_another_cpu() {
    in_own_process(|| {
        boards::start(Wanted {
            gic: Version::V3,
            domains: &[&[0, 1]],
            ..Wanted::default()
        });
        let [cpu, other] = [Cpu(0), Cpu(1)];
        let entry = layout::RAM_BASE + 0x1000;
        assert_eq!(exits::smccc(cpu, [0xc400_0003, 1, entry, 0]).unwrap()[0], 0);
        enable(other, 1, 3);
        for waits in [false, true] {
            let elr = other.guest().elr;
            if waits {
                wait(other);
                assert!(other.is_asleep());
            }
            // ICC_SGI1R_EL1: SGI 3, to Aff0 1.
            cpu.set_guest(|guest| guest.x[4] = 3 << 24 | 1 << 1);
            let register = exits::Register {
                name: encoding(3, 0, 12, 11, 5),
                register: 4,
                read: false,
            };
            exits::system_register(cpu, register);
            assert!(is_signalled(other, 3), "waits: {waits}");
            assert_eq!(other.guest().elr, elr + if waits { 4 } else { 0 });
            assert!(other.guest_acts(3, false));
            assert!(other.guest_acts(3, true));
            assert!(!is_signalled(cpu, 3));
        }
    });
}
