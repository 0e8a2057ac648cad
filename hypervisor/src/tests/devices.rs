//! Accesses of guests to what is emulated, and to what isn't there.

use super::boards::{self, A76};
use super::exits::{self, Access, Register, access, system_register};
use crate::arch::exits::Registers;
use crate::arch::fake::{self, Cpu, Exception, in_own_process};
use hypervisor::guest_tree::layout;
use hypervisor::trap::syndrome::encoding;
use hypervisor::vgic::Version;
use std::time::Duration;

/// What a load gets; `None`: it's aborted.
fn load(cpu: Cpu, address: u64, size: u64) -> Option<u64> {
    cpu.set_guest(|guest| guest.x[20] = 0x5a5a_5a5a_5a5a_5a5a);
    let before = cpu.guest();
    access(
        cpu,
        Access {
            address,
            write: false,
            register: 20,
            size,
        },
    );
    let after = cpu.guest();
    if after.elr == before.elr + 4 {
        let others = |registers: &Registers| {
            let mut all = registers.x;
            all[20] = 0;
            all
        };
        assert_eq!(others(&after), others(&before), "{address:#x}");
        return Some(after.x[20]);
    }
    assert_eq!(after.x, before.x);
    took(cpu, before.elr, 0x25);
    None
}

/// Whether a store was done.
fn store(cpu: Cpu, address: u64, size: u64, value: u64) -> bool {
    cpu.set_guest(|guest| guest.x[21] = value);
    let before = cpu.guest();
    access(
        cpu,
        Access {
            address,
            write: true,
            register: 21,
            size,
        },
    );
    let after = cpu.guest();
    assert_eq!(after.x, before.x, "{address:#x}");
    if after.elr != before.elr + 4 {
        took(cpu, before.elr, 0x25);
    }
    after.elr == before.elr + 4
}

/// The guest is at its vector for synchronous exceptions, from this instruction, by this class.
fn took(cpu: Cpu, elr: u64, class: u64) {
    let guest = cpu.guest();
    let vector = guest.elr - cpu.register("vbar_el1");
    assert!(matches!(vector, 0 | 0x200 | 0x400 | 0x600), "{vector:#x}");
    assert_eq!(cpu.register("elr_el1"), elr);
    assert_eq!(cpu.register("esr_el1") >> 26, class);
    cpu.set_guest(|guest| {
        guest.elr = layout::RAM_BASE + 0x20_0000;
        guest.spsr = 0x3c5;
    });
}

/// Byte, half, word, double.
const SIZES: [u64; 4] = [0, 1, 2, 3];
const WORD: u64 = 2;

#[test]
fn devices_answer_where_qemu_has_them() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        // GICD_PIDR2 and GICR_PIDR2: GICv3.
        assert_eq!(load(cpu, layout::GICD_BASE + 0xffe8, WORD), Some(0x30));
        assert_eq!(load(cpu, layout::GICR_BASE + 0xffe8, WORD), Some(0x30));
        // GICR_TYPER: the last.
        let typer = load(cpu, layout::GICR_BASE + 8, 3).unwrap();
        assert_eq!(typer & 1 << 4, 1 << 4);
        // UARTPeriphID0 and UARTFR: TXFE and RXFE, there is nothing.
        assert_eq!(load(cpu, layout::UART_BASE + 0xfe0, WORD), Some(0x11));
        let flags = load(cpu, layout::UART_BASE + 0x18, WORD).unwrap();
        assert_eq!(flags & 0x90, 0x90);
        // RTCPeriphID0; fw_cfg's signature by its data register.
        assert_eq!(load(cpu, layout::RTC_BASE + 0xfe0, WORD), Some(0x31));
        assert!(store(cpu, layout::FW_CFG_BASE + 8, 1, 0));
        let text = [0; 4].map(|_| load(cpu, layout::FW_CFG_BASE, 0).unwrap() as u8);
        assert_eq!(&text, b"QEMU");
        // Nobody in the first slots, and in PCI memory.
        assert_eq!(
            load(cpu, layout::ECAM_BASE + (3 << 15), WORD),
            Some(0xffff_ffff)
        );
        assert_eq!(load(cpu, layout::PCI_MEM32_BASE, WORD), Some(0xffff_ffff));
        assert_eq!(load(cpu, layout::PCI_MEM64_BASE, 3), Some(u64::MAX));
        assert!(store(cpu, layout::PCI_MEM32_BASE, WORD, 1));
    });
}

#[test]
fn what_a_guest_prints_is_shown_under_its_name() {
    in_own_process(|| {
        let cpus = boards::two(Version::V2, A76);
        for byte in b"hello\n" {
            for cpu in cpus {
                assert!(store(cpu, layout::UART_BASE, 0, (*byte).into()));
            }
        }
        fake::pass(Duration::from_millis(200));
        let console = fake::console();
        for line in ["[d1] hello\n", "[d2] hello\n"] {
            assert!(console.contains(line), "{console}");
        }
    });
}

/// The switch of input is Ctrl-A, three times; the domain gets its UART's interrupt, and the byte.
#[test]
fn what_is_typed_reaches_the_domain() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        // UARTIMSC: received bytes; UARTCR and FIFO as after reset.
        assert!(store(cpu, layout::UART_BASE + 0x38, WORD, 1 << 4 | 1 << 6));
        assert!(store(cpu, layout::UART_BASE + 0x30, WORD, 0x301));
        // The distributor and the redistributor let SPI 1 through.
        assert!(store(cpu, layout::GICD_BASE, WORD, 1 << 4 | 1 << 1));
        assert!(store(cpu, layout::GICD_BASE + 0x84, WORD, 1 << 1));
        assert!(store(cpu, layout::GICD_BASE + 0x104, WORD, 1 << 1));
        fake::type_in("\u{1}\u{1}\u{1}x");
        assert_eq!(
            load(cpu, layout::UART_BASE + 0x18, WORD).unwrap() & 1 << 4,
            0
        );
        assert!(exits::is_signalled(cpu, 33));
        assert_eq!(load(cpu, layout::UART_BASE, 0), Some(u64::from(b'x')));
        assert_eq!(
            load(cpu, layout::UART_BASE + 0x18, WORD).unwrap() & 1 << 4,
            1 << 4
        );
    });
}

/// As an external abort, from EL1 or EL0, whatever the size; and a fetch likewise.
#[test]
fn accesses_to_nothing_are_aborted() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        cpu.set_register("vbar_el1", layout::RAM_BASE + 0x1000);
        for address in [
            0,
            0x0810_0000,
            layout::GICR_BASE + layout::GICR_SIZE,
            0x0a00_0000,
            layout::RAM_END - 8,
            0x7f_ffff_fff8,
        ] {
            for size in SIZES {
                assert_eq!(load(cpu, address, size), None, "{address:#x}");
                assert!(!store(cpu, address, size, 1), "{address:#x}");
            }
        }
        // Misaligned.
        assert_eq!(load(cpu, layout::RTC_BASE + 1, WORD), None);
        let elr = cpu.guest().elr;
        cpu.exit(Exception::Synchronous(
            0x20 << 26 | 1 << 25 | 7,
            0x900_0000,
            0x9_0000,
        ));
        took(cpu, elr, 0x21);
        // From EL0: by the vector for the lower level.
        cpu.set_guest(|guest| guest.spsr = 0);
        let elr = cpu.guest().elr;
        cpu.exit(Exception::Synchronous(
            0x24 << 26 | 1 << 25 | 7,
            0xa00_0000,
            0xa_0000,
        ));
        assert_eq!(cpu.guest().elr - cpu.register("vbar_el1"), 0x400);
        took(cpu, elr, 0x24);
    });
}

const fn register(name: u32) -> Register {
    Register {
        name,
        register: 9,
        read: true,
    }
}

#[test]
fn registers_that_trap_are_emulated() {
    in_own_process(|| {
        let [cpu, _] = boards::two(Version::V3, A76);
        let read = |name| {
            cpu.set_guest(|guest| guest.x[9] = 0x77);
            let elr = cpu.guest().elr;
            system_register(cpu, register(name));
            (cpu.guest().elr == elr + 4).then(|| cpu.guest().x[9])
        };
        let write = |name, value| {
            cpu.set_guest(|guest| guest.x[9] = value);
            let elr = cpu.guest().elr;
            system_register(
                cpu,
                Register {
                    read: false,
                    ..register(name)
                },
            );
            cpu.guest().elr == elr + 4
        };
        // ACTLR_EL1, OSLSR_EL1, MDSCR_EL1: its SS and KDE, nothing else.
        assert_eq!(read(encoding(3, 0, 1, 0, 1)), Some(0));
        assert_eq!(read(encoding(2, 0, 1, 1, 4)), Some(8));
        assert!(write(encoding(2, 0, 0, 2, 2), u64::MAX));
        assert_eq!(
            read(encoding(2, 0, 0, 2, 2)),
            Some(1 | 1 << 12 | 1 << 13 | 1 << 15)
        );
        // ID_AA64PFR0_EL1: no EL2, but the GIC's registers.
        let features = read(encoding(3, 0, 0, 4, 0)).unwrap();
        assert_eq!((features & 0xf0f, features >> 24 & 0xf), (1, 1));
        // DC CISW.
        assert!(write(encoding(1, 0, 7, 14, 2), 0));
        // CNTP_CVAL_EL0, CNTP_CTL_EL0: it fires when its time has come.
        let now = cpu.register("cntvoff_el2");
        assert!(write(encoding(3, 3, 14, 2, 2), now + fake::FREQUENCY / 10));
        assert!(write(encoding(3, 3, 14, 2, 1), 1));
        assert_eq!(read(encoding(3, 3, 14, 2, 1)), Some(1));
        fake::pass(Duration::from_millis(150));
        assert_eq!(read(encoding(3, 3, 14, 2, 1)), Some(5));
        // An SGI to itself: in a list register once it is let through.
        assert!(store(cpu, layout::GICD_BASE, WORD, 1 << 4 | 1 << 1));
        assert!(store(cpu, layout::GICR_BASE + 0x1_0080, WORD, 0xffff_ffff));
        assert!(store(cpu, layout::GICR_BASE + 0x1_0100, WORD, 1 << 5));
        assert!(write(encoding(3, 0, 12, 11, 5), 5 << 24 | 1));
        assert!(exits::is_signalled(cpu, 5));
        // What there isn't is UNDEFINED: PMCR_EL0, ICC_PMR_EL1 by trap, an implementation-defined one.
        for name in [
            encoding(3, 3, 9, 12, 0),
            encoding(3, 0, 15, 2, 0),
            encoding(3, 5, 1, 2, 3),
        ] {
            let elr = cpu.guest().elr;
            assert_eq!(read(name), None, "{name:#x}");
            took(cpu, elr, 0);
        }
    });
}

/// Exceptions that Baton knows nothing of are the guest's, as UNDEFINED; FP it gets.
#[test]
fn unknown_exceptions_are_injected() {
    in_own_process(|| {
        let [cpu, other] = boards::two(Version::V2, A76);
        let before = other.guest();
        const SERVED: [u64; 7] = [0x01, 0x07, 0x16, 0x17, 0x18, 0x20, 0x24];
        for class in (0..64).filter(|class| !SERVED.contains(class)) {
            cpu.set_guest(|guest| guest.elr += 4);
            let elr = cpu.guest().elr;
            cpu.exit(Exception::Synchronous(
                class << 26 | 1 << 25 | 0x1ff_ffff,
                0,
                0,
            ));
            took(cpu, elr, 0);
        }
        let elr = cpu.guest().elr;
        cpu.exit(Exception::Synchronous(0x07 << 26 | 1 << 25, 0, 0));
        assert_eq!(cpu.guest().elr, elr);
        assert_eq!(cpu.register("cptr_el2") & 1 << 10, 0);
        assert_eq!(other.guest(), before);
        exits::wait_for_event(cpu);
    });
}
