//! An R-Car H3 (Salvator-XS) in the shape of Linux's device tree for it: memory in banks above and below 4 GiB, two kinds of CPUs, PSCI by SMC, a
//! GIC-400 inside of the bus whose second pages lie 64 KiB apart, a timer that names its interrupt controller itself, and a console that is a SCIF.

use super::pools::{pool, pools, read};
use super::{level, node, region};
use crate::config::Configuration;
use crate::config::machine::*;
use crate::devicetree::Tree;
use crate::devicetree::tests::cells;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use vm_fdt::FdtWriter;

const GIC: u32 = 1;
const CLOCKS: u32 = 2;
const POWER: u32 = 3;
const MAIN_IOMMU: u32 = 4;

fn board(chosen: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    let mut fdt = FdtWriter::new().unwrap();
    node(&mut fdt, "", |fdt| {
        fdt.property_string_list(
            "compatible",
            vec!["renesas,salvator-xs".into(), "renesas,r8a7795".into()],
        )
        .unwrap();
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[2]);
        node(fdt, "aliases", |fdt| {
            fdt.property_string("serial0", "/soc/serial@e6e88000")
                .unwrap();
            fdt.property_string("serial1", "/soc/serial@e6550000")
                .unwrap();
        });
        node(fdt, "chosen", |fdt| {
            fdt.property_string("stdout-path", "serial0:115200n8")
                .unwrap();
            chosen(fdt);
        });
        for (name, high, low, size) in [
            ("memory@48000000", 0, 0x4800_0000, 0x7800_0000),
            ("memory@500000000", 5, 0, 0x4000_0000),
            ("memory@600000000", 6, 0, 0x4000_0000),
            ("memory@700000000", 7, 0, 0x4000_0000),
        ] {
            node(fdt, name, |fdt| {
                fdt.property_string("device_type", "memory").unwrap();
                cells(fdt, "reg", &[high, low, 0, size]);
            });
        }
        node(fdt, "cpus", |fdt| {
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[0]);
            node(fdt, "cpu-map", |fdt| {
                node(fdt, "cluster0", |_| {});
            });
            for number in [0, 1, 2, 3, 0x100, 0x101, 0x102, 0x103] {
                node(fdt, &format!("cpu@{number:x}"), |fdt| {
                    let core = if number < 0x100 { 57 } else { 53 };
                    fdt.property_string("compatible", &format!("arm,cortex-a{core}"))
                        .unwrap();
                    cells(fdt, "reg", &[number]);
                    fdt.property_string("device_type", "cpu").unwrap();
                    cells(fdt, "power-domains", &[POWER, number]);
                    fdt.property_string("enable-method", "psci").unwrap();
                });
            }
            node(fdt, "cache-controller-0", |fdt| {
                fdt.property_string("compatible", "cache").unwrap();
            });
            node(fdt, "idle-states", |fdt| {
                fdt.property_string("entry-method", "psci").unwrap();
            });
        });
        node(fdt, "extal", |fdt| {
            fdt.property_string("compatible", "fixed-clock").unwrap();
            cells(fdt, "clock-frequency", &[16_666_666]);
        });
        node(fdt, "psci", |fdt| {
            fdt.property_string_list(
                "compatible",
                vec!["arm,psci-1.0".into(), "arm,psci-0.2".into()],
            )
            .unwrap();
            fdt.property_string("method", "smc").unwrap();
        });
        node(fdt, "soc", bus);
        node(fdt, "timer", |fdt| {
            fdt.property_string("compatible", "arm,armv8-timer")
                .unwrap();
            let mut interrupts = Vec::new();
            for number in [13, 14, 11, 10] {
                interrupts.extend([GIC, 1, number, 0xff08]);
            }
            cells(fdt, "interrupts-extended", &interrupts);
        });
    });
    fdt.finish().unwrap()
}

fn bus(fdt: &mut FdtWriter) {
    fdt.property_string("compatible", "simple-bus").unwrap();
    cells(fdt, "interrupt-parent", &[GIC]);
    cells(fdt, "#address-cells", &[2]);
    cells(fdt, "#size-cells", &[2]);
    fdt.property_null("ranges").unwrap();
    node(fdt, "clock-controller@e6150000", |fdt| {
        fdt.property_string("compatible", "renesas,r8a7795-cpg-mssr")
            .unwrap();
        cells(fdt, "reg", &[0, 0xe615_0000, 0, 0x1000]);
        fdt.property_phandle(CLOCKS).unwrap();
    });
    node(fdt, "system-controller@e6180000", |fdt| {
        fdt.property_string("compatible", "renesas,r8a7795-sysc")
            .unwrap();
        cells(fdt, "reg", &[0, 0xe618_0000, 0, 0x400]);
        fdt.property_phandle(POWER).unwrap();
    });
    for (name, kind, at, interrupt) in [
        ("serial@e6550000", "hscif", 0xe655_0000, 155),
        ("serial@e6e88000", "scif", 0xe6e8_8000, 164),
    ] {
        node(fdt, name, |fdt| {
            fdt.property_string_list(
                "compatible",
                vec![
                    format!("renesas,{kind}-r8a7795"),
                    format!("renesas,rcar-gen3-{kind}"),
                    format!("renesas,{kind}"),
                ],
            )
            .unwrap();
            cells(fdt, "reg", &[0, at, 0, 64]);
            cells(fdt, "interrupts", &[0, interrupt, 4]);
            cells(fdt, "clocks", &[CLOCKS, 1, 310]);
            cells(fdt, "power-domains", &[POWER, 32]);
        });
    }
    node(fdt, "iommu@e67b0000", |fdt| {
        fdt.property_string("compatible", "renesas,ipmmu-r8a7795")
            .unwrap();
        cells(fdt, "reg", &[0, 0xe67b_0000, 0, 0x1000]);
        cells(fdt, "interrupts", &[0, 196, 4, 0, 197, 4]);
        cells(fdt, "#iommu-cells", &[1]);
        fdt.property_phandle(MAIN_IOMMU).unwrap();
    });
    node(fdt, "interrupt-controller@f1010000", |fdt| {
        fdt.property_string("compatible", "arm,gic-400").unwrap();
        cells(fdt, "#interrupt-cells", &[3]);
        cells(fdt, "#address-cells", &[0]);
        fdt.property_null("interrupt-controller").unwrap();
        let mut registers = Vec::new();
        for (at, size) in [
            (0xf101_0000, 0x1000),
            (0xf102_0000, 0x2_0000),
            (0xf104_0000, 0x2_0000),
            (0xf106_0000, 0x2_0000),
        ] {
            registers.extend([0, at, 0, size]);
        }
        cells(fdt, "reg", &registers);
        cells(fdt, "interrupts", &[1, 9, 0xff04]);
        fdt.property_phandle(GIC).unwrap();
    });
    node(fdt, "pcie@fe000000", |fdt| {
        fdt.property_string_list(
            "compatible",
            vec![
                "renesas,pcie-r8a7795".into(),
                "renesas,pcie-rcar-gen3".into(),
            ],
        )
        .unwrap();
        fdt.property_string("device_type", "pci").unwrap();
        cells(fdt, "#address-cells", &[3]);
        cells(fdt, "#size-cells", &[2]);
        cells(fdt, "reg", &[0, 0xfe00_0000, 0, 0x8_0000]);
        fdt.property_string("status", "disabled").unwrap();
    });
}

#[test]
fn an_r_car_h3_is_read_by_its_bindings() {
    let machine = Machine::from_tree(&Tree::new(&board(|_| {})).unwrap()).unwrap();
    assert_eq!(
        machine.memory,
        [
            region(0x4800_0000, 0x7800_0000),
            region(0x5_0000_0000, 0x4000_0000),
            region(0x6_0000_0000, 0x4000_0000),
            region(0x7_0000_0000, 0x4000_0000),
        ]
    );
    assert_eq!(
        machine.gic,
        Gic::V2(GicV2 {
            distributor: region(0xf101_0000, 0x1000),
            cpu_interface: region(0xf102_0000, 0x2_0000),
            hypervisor_interface: region(0xf104_0000, 0x2_0000),
            virtual_cpu_interface: region(0xf106_0000, 0x2_0000),
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
    let cpus: Vec<(u64, EnableMethod)> = machine
        .cpus
        .iter()
        .map(|cpu| (cpu.mpidr, cpu.enable))
        .collect();
    let expected = [0, 1, 2, 3, 0x100, 0x101, 0x102, 0x103];
    assert_eq!(cpus, expected.map(|mpidr| (mpidr, EnableMethod::Psci)));
    assert_eq!(machine.psci.map(|psci| psci.conduit), Some(Conduit::Smc));
    let uart = machine.uart.unwrap();
    assert_eq!(uart.path, "/soc/serial@e6e88000");
    assert_eq!(uart.registers, region(0xe6e8_8000, 64));
    assert_eq!(uart.interrupt, Some(level(196)));
    assert!(
        uart.compatible
            .iter()
            .any(|name| name == "renesas,rcar-gen3-scif")
    );
    // Its IPMMU and PCIe are none that Baton drives.
    assert!(machine.pci_hosts.is_empty() && machine.smmus.is_empty());
}

fn configuration(cpus: &[&[u32]]) -> Configuration {
    read(&board(|fdt| {
        if !cpus.is_empty() {
            pools(fdt, |fdt| {
                for (number, cpus) in (0..).zip(cpus) {
                    pool(fdt, number, cpus, |_| {});
                }
            });
        }
    }))
}

#[test]
fn vcpus_stay_on_cpus_of_one_kind() {
    let plain = configuration(&[]);
    assert_eq!(plain.pools.len(), 1);
    assert_eq!(plain.pools[0].cpus, [0, 1, 2, 3]);
    let warnings: Vec<_> = plain.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "/cpus/cpu@100: compatible: \"arm,cortex-a53\", which is not \"arm,cortex-a57\" as /cpus/cpu@0 is: such CPUs run no vCPU; \
             expected CPUs of one kind in a pool; give each kind a pool in /chosen/cpu-pools"
        ]
    );

    let two = configuration(&[&[0, 1, 2, 3], &[4, 5, 6, 7]]);
    assert!(two.pool_errors.is_empty() && two.warnings.is_empty());
    assert_eq!(two.pools[1].cpus, [4, 5, 6, 7]);
    // Whoever wrote pools down has left out what they left out.
    assert!(configuration(&[&[0, 1]]).warnings.is_empty());

    let mixed = configuration(&[&[2, 3, 5], &[4, 6]]);
    let errors: Vec<_> = mixed.pool_errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "/chosen/cpu-pools/pool@0: cpus: CPU 2 (\"arm,cortex-a57\") and CPU 5 (\"arm,cortex-a53\"); \
             expected CPUs of one kind (compatible); give each kind a pool of its own"
        ]
    );
    assert_eq!(mixed.pools.len(), 1);
    assert_eq!(mixed.pools[0].cpus, [4, 6]);
}
