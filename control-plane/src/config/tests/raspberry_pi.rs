//! A Raspberry Pi 4 in the shape of Linux's device tree for it: RAM from address 0, a bus that moves addresses, spin tables, and a
//! console that is neither the first UART nor a PL011.

use super::{level, node, region};
use crate::config::machine::*;
use crate::devicetree::Tree;
use crate::devicetree::tests::cells;
use alloc::format;
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::address::HostPhysical;
use vm_fdt::{FdtReserveEntry, FdtWriter};

fn board(release: impl Fn(u32) -> u32) -> Vec<u8> {
    let reserved = [FdtReserveEntry::new(0, 0x1000).unwrap()];
    let mut fdt = FdtWriter::new_with_mem_reserv(&reserved).unwrap();
    node(&mut fdt, "", |fdt| {
        fdt.property_string_list(
            "compatible",
            vec!["raspberrypi,4-model-b".into(), "brcm,bcm2711".into()],
        )
        .unwrap();
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[1]);
        cells(fdt, "interrupt-parent", &[1]);
        node(fdt, "aliases", |fdt| {
            fdt.property_string("serial0", "/soc/serial@7e201000")
                .unwrap();
            fdt.property_string("serial1", "/soc/serial@7e215040")
                .unwrap();
        });
        node(fdt, "chosen", |fdt| {
            fdt.property_string("stdout-path", "serial1:115200n8")
                .unwrap();
        });
        node(fdt, "memory@0", |fdt| {
            fdt.property_string("device_type", "memory").unwrap();
            cells(fdt, "reg", &[0, 0, 0x3c00_0000]);
        });
        node(fdt, "reserved-memory", |fdt| {
            cells(fdt, "#address-cells", &[2]);
            cells(fdt, "#size-cells", &[1]);
            fdt.property_null("ranges").unwrap();
            node(fdt, "linux,cma", |fdt| {
                cells(fdt, "size", &[0x400_0000]);
                cells(fdt, "alloc-ranges", &[0, 0, 0x4000_0000]);
            });
            node(fdt, "nvram@0", |fdt| {
                cells(fdt, "reg", &[0, 0, 0]);
                fdt.property_string("status", "disabled").unwrap();
            });
        });
        node(fdt, "soc", |fdt| {
            fdt.property_string("compatible", "simple-bus").unwrap();
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[1]);
            cells(
                fdt,
                "ranges",
                &[
                    0x7e00_0000,
                    0,
                    0xfe00_0000,
                    0x180_0000,
                    0x7c00_0000,
                    0,
                    0xfc00_0000,
                    0x200_0000,
                    0x4000_0000,
                    0,
                    0xff80_0000,
                    0x80_0000,
                ],
            );
            for (name, compatible, at, size, spi) in [
                ("serial@7e201000", "arm,pl011", 0x7e20_1000, 0x200, 121),
                (
                    "serial@7e215040",
                    "brcm,bcm2835-aux-uart",
                    0x7e21_5040,
                    0x40,
                    93,
                ),
            ] {
                node(fdt, name, |fdt| {
                    fdt.property_string("compatible", compatible).unwrap();
                    cells(fdt, "reg", &[at, size]);
                    cells(fdt, "interrupts", &[0, spi, 4]);
                });
            }
            // The controller of the CPUs' mailboxes: takes interrupts, and is not the GIC.
            node(fdt, "interrupt-controller@40000000", |fdt| {
                fdt.property_string("compatible", "brcm,bcm2836-l1-intc")
                    .unwrap();
                cells(fdt, "reg", &[0x4000_0000, 0x100]);
            });
            node(fdt, "interrupt-controller@40041000", |fdt| {
                fdt.property_string("compatible", "arm,gic-400").unwrap();
                fdt.property_null("interrupt-controller").unwrap();
                cells(fdt, "#interrupt-cells", &[3]);
                cells(
                    fdt,
                    "reg",
                    &[
                        0x4004_1000,
                        0x1000,
                        0x4004_2000,
                        0x2000,
                        0x4004_4000,
                        0x2000,
                        0x4004_6000,
                        0x2000,
                    ],
                );
                cells(fdt, "interrupts", &[1, 9, 0xf04]);
                fdt.property_phandle(1).unwrap();
            });
        });
        node(fdt, "timer", |fdt| {
            fdt.property_string("compatible", "arm,armv8-timer")
                .unwrap();
            cells(
                fdt,
                "interrupts",
                &[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08],
            );
        });
        node(fdt, "cpus", |fdt| {
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[0]);
            // For 32-bit kernels; each CPU has its own.
            fdt.property_string("enable-method", "brcm,bcm2836-smp")
                .unwrap();
            for number in 0..4 {
                node(fdt, &format!("cpu@{number}"), |fdt| {
                    fdt.property_string("device_type", "cpu").unwrap();
                    fdt.property_string("compatible", "arm,cortex-a72").unwrap();
                    cells(fdt, "reg", &[number]);
                    fdt.property_string("enable-method", "spin-table").unwrap();
                    cells(fdt, "cpu-release-addr", &[0, release(number)]);
                });
            }
            node(fdt, "l2-cache0", |fdt| {
                fdt.property_string("compatible", "cache").unwrap();
            });
        });
    });
    fdt.finish().unwrap()
}

fn machine(blob: &[u8]) -> Machine {
    Machine::from_tree(&Tree::new(blob).unwrap()).unwrap()
}

#[test]
fn a_raspberry_pi_is_read_by_its_bindings() {
    let machine = machine(&board(|number| 0xd8 + 8 * number));
    assert_eq!(machine.memory, [region(0, 0x3c00_0000)]);
    assert_eq!(
        machine.gic,
        Gic::V2(GicV2 {
            distributor: region(0xff84_1000, 0x1000),
            cpu_interface: region(0xff84_2000, 0x2000),
            hypervisor_interface: region(0xff84_4000, 0x2000),
            virtual_cpu_interface: region(0xff84_6000, 0x2000),
            maintenance: level(25),
        })
    );
    assert_eq!(
        machine.timer,
        Timer {
            secure: Some(level(29)),
            physical: level(30),
            virt: level(27),
            hypervisor: level(26),
            frequency: None,
        }
    );
    let uart = machine.uart.unwrap();
    assert_eq!(uart.path, "/soc/serial@7e215040");
    assert_eq!(uart.compatible, ["brcm,bcm2835-aux-uart"]);
    assert_eq!(uart.registers, region(0xfe21_5040, 0x40));
    assert_eq!(uart.interrupt, Some(level(125)));
    assert_eq!(uart.options.as_deref(), Some("115200n8"));
    assert_eq!((machine.psci, machine.rtc), (None, None));
    assert!(machine.pci_hosts.is_empty() && machine.smmus.is_empty());
}

#[test]
fn its_cpus_are_started_by_their_words_which_nobody_is_given() {
    let inside = machine(&board(|number| 0xd8 + 8 * number));
    let releases = |machine: &Machine| -> Vec<(u64, EnableMethod)> {
        let cpus = machine.cpus.iter();
        cpus.map(|cpu| (cpu.mpidr, cpu.enable)).collect()
    };
    let spin = |release| EnableMethod::SpinTable {
        release: HostPhysical::new(release),
    };
    assert_eq!(
        releases(&inside),
        [
            (0, spin(0xd8)),
            (1, spin(0xe0)),
            (2, spin(0xe8)),
            (3, spin(0xf0))
        ]
    );
    assert_eq!(inside.free_memory(&[]), [region(0x1000, 0x3bff_f000)]);
    // A tree that forgets to reserve the word, which all of them poll.
    let outside = machine(&board(|_| 0x20_0ff8));
    assert_eq!(
        releases(&outside).last(),
        Some(&(3, spin(0x20_0ff8))),
        "they may share one"
    );
    assert_eq!(
        outside.free_memory(&[]),
        [region(0x1000, 0x1f_f000), region(0x20_1000, 0x3bdf_f000)]
    );
    // One that is nowhere hurts nobody: that CPU stays off.
    let nowhere = machine(&board(|_| u32::MAX));
    assert_eq!(nowhere.free_memory(&[]), [region(0x1000, 0x3bff_f000)]);
}
