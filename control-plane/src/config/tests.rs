//! Tests of what is read from a device tree: machines here, coprocs and domains in their own file.

mod domains;
mod file;
mod foreign;
mod passthrough;
mod pools;
mod raspberry_pi;
mod rcar_gen3;
mod shared_memory;
mod shared_node;

use super::machine::*;
use super::*;
use crate::devicetree::tests::{QEMU_GICV2, QEMU_GICV3, build, cells, node};
use crate::devicetree::{Region, Tree};
use crate::speculation::Hardening;
use alloc::string::ToString;
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::address::HostPhysical;
use coproc_core::id::StreamId;
use vm_fdt::FdtWriter;

pub(crate) use domains::{read, two_domains};
pub(crate) use shared_node::FACTS;

const fn region(address: u64, size: u64) -> Region {
    Region { address, size }
}

const fn level(intid: u32) -> Interrupt {
    Interrupt {
        intid: IntId(intid),
        trigger: Trigger::Level,
    }
}

const fn edge(intid: u32) -> Interrupt {
    Interrupt {
        intid: IntId(intid),
        trigger: Trigger::Edge,
    }
}

pub(crate) fn machine(blob: &[u8]) -> Machine {
    Machine::from_tree(&Tree::new(blob).unwrap()).unwrap()
}

fn error(blob: &[u8]) -> alloc::string::String {
    Machine::from_tree(&Tree::new(blob).unwrap())
        .unwrap_err()
        .to_string()
}

#[test]
fn qemu_virt_with_gicv3_is_read_whole() {
    let machine = machine(QEMU_GICV3);
    assert_eq!(machine.memory, [region(0x4000_0000, 0x4000_0000)]);
    assert_eq!(machine.reserved, []);
    let cpu = |mpidr: u64| Cpu {
        path: alloc::format!("/cpus/cpu@{mpidr:x}"),
        mpidr,
        enable: EnableMethod::Psci,
        kind: "arm,cortex-a57".into(),
    };
    assert_eq!(machine.cpus, [cpu(0), cpu(1)]);
    assert_eq!(
        machine.psci,
        Some(Psci {
            conduit: Conduit::Smc,
            version: PsciVersion::V1_0
        })
    );
    assert_eq!(
        machine.gic,
        Gic::V3(GicV3 {
            distributor: region(0x800_0000, 0x1_0000),
            redistributors: vec![region(0x80a_0000, 0xf6_0000)],
            redistributor_stride: None,
            maintenance: level(25),
        })
    );
    let timer = Timer {
        secure: Some(level(29)),
        physical: level(30),
        virt: level(27),
        hypervisor: level(26),
        frequency: None,
    };
    assert_eq!(machine.timer, timer);
    let uart = machine.uart.unwrap();
    assert_eq!((uart.path.as_str(), uart.options), ("/pl011@9000000", None));
    assert_eq!(
        (uart.registers, uart.interrupt),
        (region(0x900_0000, 0x1000), Some(level(33)))
    );
    let [smmu] = machine.smmus.as_slice() else {
        panic!("{:?}", machine.smmus)
    };
    assert_eq!(smmu.registers, region(0x905_0000, 0x2_0000));
    assert_eq!(
        [smmu.event, smmu.pri, smmu.sync, smmu.error],
        [106, 107, 108, 109].map(|id| Some(edge(id)))
    );
    assert!(smmu.dma_coherent && smmu.combined.is_none());
}

#[test]
fn qemu_virt_has_a_pcie_host() {
    let machine = machine(QEMU_GICV3);
    let [host] = machine.pci_hosts.as_slice() else {
        panic!("{:?}", machine.pci_hosts)
    };
    assert_eq!(
        (host.ecam, host.segment),
        (region(0x40_1000_0000, 0x1000_0000), 0)
    );
    assert_eq!(
        (host.first_bus, host.last_bus, host.dma_coherent),
        (0, 255, true)
    );
    let window = |kind, pci_address, cpu| PciWindow {
        kind,
        prefetchable: false,
        pci_address,
        cpu,
    };
    assert_eq!(
        host.windows,
        [
            window(WindowKind::Io, 0, region(0x3eff_0000, 0x1_0000)),
            window(
                WindowKind::Mem32,
                0x1000_0000,
                region(0x1000_0000, 0x2eff_0000)
            ),
            window(
                WindowKind::Mem64,
                0x80_0000_0000,
                region(0x80_0000_0000, 0x80_0000_0000)
            ),
        ]
    );
    let function = |device, function| PciFunction {
        segment: 0,
        bus: 0,
        device,
        function,
    };
    // Device 1, INTA: SPI 4, as QEMU swizzles; the same for devices 5 and 29.
    for device in [1, 5, 29] {
        assert_eq!(host.intx_interrupt(function(device, 0), 1), Some(level(36)));
    }
    assert_eq!(host.intx_interrupt(function(3, 0), 4), Some(level(37)));
    assert_eq!(host.intx_interrupt(function(3, 0), 5), None);
    assert_eq!(host.intx_interrupt(function(3, 0), 0), None);
    assert_eq!(host.stream(function(1, 2)), Some((0, StreamId(0x0a))));
    assert_eq!(
        host.configuration_space(function(1, 0)),
        Some(region(0x40_1000_8000, 0x1000))
    );
    let outside = PciFunction {
        segment: 1,
        ..function(1, 0)
    };
    assert_eq!(host.configuration_space(outside), None);
    let bar = host.to_cpu(WindowKind::Mem32, region(0x1010_0000, 0x10_0000));
    assert_eq!(bar, Some(region(0x1010_0000, 0x10_0000)));
    assert_eq!(
        host.to_cpu(WindowKind::Mem32, region(0x3ef0_0000, 0x10_0000)),
        None
    );
    assert_eq!(
        host.to_cpu(WindowKind::Io, region(0x1000, 0x10)),
        Some(region(0x3eff_1000, 0x10))
    );
}

#[test]
fn qemu_virt_with_gicv2_has_its_four_regions() {
    let machine = machine(QEMU_GICV2);
    assert_eq!(
        machine.gic,
        Gic::V2(GicV2 {
            distributor: region(0x800_0000, 0x1_0000),
            cpu_interface: region(0x801_0000, 0x1_0000),
            hypervisor_interface: region(0x803_0000, 0x1_0000),
            virtual_cpu_interface: region(0x804_0000, 0x1_0000),
            maintenance: level(25),
        })
    );
}

/// A board unlike QEMU's: other cells, a bus with ranges, spin tables, two redistributor regions, named timers, reserved memory,
/// a UART of unknown kind on a bus.
fn other_board(edit: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    build(|fdt| {
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[1]);
        cells(fdt, "interrupt-parent", &[1]);
        node(fdt, "aliases", |fdt| {
            fdt.property_string("serial0", "/bus/serial@800").unwrap()
        });
        node(fdt, "memory@0", |fdt| {
            fdt.property_string("device_type", "memory").unwrap();
            cells(
                fdt,
                "reg",
                &[
                    0,
                    0x8000_0000,
                    0x1000_0000,
                    0,
                    0x9000_0000,
                    0x1000_0000,
                    0,
                    0,
                    0,
                ],
            );
        });
        node(fdt, "memory@100000000", |fdt| {
            fdt.property_string("device_type", "memory").unwrap();
            cells(fdt, "reg", &[1, 0, 0x1000_0000]);
        });
        node(fdt, "reserved-memory", |fdt| {
            cells(fdt, "#address-cells", &[2]);
            cells(fdt, "#size-cells", &[1]);
            fdt.property_null("ranges").unwrap();
            node(fdt, "firmware@8f000800", |fdt| {
                cells(fdt, "reg", &[0, 0x8f00_0800, 0x1000])
            });
            node(fdt, "pool", |fdt| cells(fdt, "size", &[0x10_0000]));
        });
        node(fdt, "cpus", |fdt| {
            cells(fdt, "#address-cells", &[2]);
            cells(fdt, "#size-cells", &[0]);
            for (name, mpidr) in [("cpu@0", 0), ("cpu@100", 0x100)] {
                node(fdt, name, |fdt| {
                    fdt.property_string("device_type", "cpu").unwrap();
                    cells(fdt, "reg", &[1, mpidr]);
                    fdt.property_string("enable-method", "spin-table").unwrap();
                    cells(fdt, "cpu-release-addr", &[0, 0x8000 + mpidr]);
                });
            }
        });
        node(fdt, "bus", |fdt| {
            fdt.property_string("compatible", "simple-bus").unwrap();
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[1]);
            cells(fdt, "ranges", &[0, 0, 0xf000_0000, 0x100_0000]);
            node(fdt, "gic@10000", |fdt| {
                fdt.property_string_list(
                    "compatible",
                    vec!["vendor,gic".into(), "arm,gic-v3".into()],
                )
                .unwrap();
                cells(fdt, "#interrupt-cells", &[4]);
                cells(fdt, "#redistributor-regions", &[2]);
                cells(fdt, "redistributor-stride", &[0, 0x4_0000]);
                cells(
                    fdt,
                    "reg",
                    &[0x1_0000, 0x1_0000, 0x10_0000, 0x8_0000, 0x20_0000, 0x8_0000],
                );
                cells(fdt, "interrupts", &[1, 9, 4, 0]);
                fdt.property_phandle(1).unwrap();
            });
            node(fdt, "serial@800", |fdt| {
                fdt.property_string("compatible", "vendor,uart").unwrap();
                cells(fdt, "reg", &[0x800, 0x100]);
                cells(fdt, "interrupts", &[2, 3, 1, 0]);
            });
        });
        node(fdt, "timer", |fdt| {
            fdt.property_string("compatible", "arm,armv8-timer")
                .unwrap();
            let names = ["virt", "phys", "hyp-phys"];
            fdt.property_string_list("interrupt-names", names.map(Into::into).to_vec())
                .unwrap();
            cells(fdt, "interrupts", &[1, 11, 8, 0, 1, 14, 8, 0, 1, 10, 8, 0]);
            cells(fdt, "clock-frequency", &[19_200_000]);
        });
        edit(fdt);
    })
}

#[test]
fn another_board_is_read_by_its_bindings() {
    let machine = machine(&other_board(|fdt| {
        node(fdt, "chosen", |fdt| {
            fdt.property_string("stdout-path", "serial0:9600n8")
                .unwrap()
        });
    }));
    assert_eq!(
        machine.memory,
        [
            region(0x8000_0000, 0x2000_0000),
            region(0x1_0000_0000, 0x1000_0000)
        ]
    );
    // The spin tables' words are not in RAM here; the next is from the memory reservation block.
    assert_eq!(
        machine.reserved,
        [
            region(0x8000, 8),
            region(0x8100, 8),
            region(0x8000_0000, 0x1000),
            region(0x8f00_0800, 0x1000)
        ]
    );
    assert_eq!(
        machine.free_memory(&[region(0x1_0000_0000, 0x1000_0000)]),
        [
            region(0x8000_1000, 0xeff_f000),
            region(0x8f00_2000, 0x10ff_e000)
        ]
    );
    let cpu = |mpidr: u64, release| Cpu {
        path: alloc::format!("/cpus/cpu@{:x}", mpidr & 0xfff),
        mpidr,
        enable: EnableMethod::SpinTable {
            release: HostPhysical::new(release),
        },
        kind: "".into(),
    };
    assert_eq!(
        machine.cpus,
        [cpu(0x1_0000_0000, 0x8000), cpu(0x1_0000_0100, 0x8100)]
    );
    assert_eq!(machine.psci, None);
    assert_eq!(
        machine.gic,
        Gic::V3(GicV3 {
            distributor: region(0xf001_0000, 0x1_0000),
            redistributors: vec![region(0xf010_0000, 0x8_0000), region(0xf020_0000, 0x8_0000)],
            redistributor_stride: Some(0x4_0000),
            maintenance: level(25),
        })
    );
    assert_eq!(
        (machine.timer.secure, machine.timer.physical),
        (None, level(30))
    );
    assert_eq!(
        (machine.timer.virt, machine.timer.hypervisor),
        (level(27), level(26))
    );
    assert_eq!(machine.timer.frequency, Some(19_200_000));
    let uart = machine.uart.unwrap();
    assert_eq!(uart.compatible, ["vendor,uart"]);
    assert_eq!(uart.registers, region(0xf000_0800, 0x100));
    // An extended SPI.
    assert_eq!(
        (uart.interrupt, uart.options.as_deref()),
        (Some(edge(4099)), Some("9600n8"))
    );
    assert!(machine.pci_hosts.is_empty() && machine.smmus.is_empty());
}

#[test]
fn the_machine_s_seed_is_in_chosen() {
    let blob = other_board(|fdt| {
        node(fdt, "chosen", |fdt| {
            fdt.property("rng-seed", &[5; 64]).unwrap();
        });
    });
    assert_eq!(machine::seed(&Tree::new(&blob).unwrap()), [5; 64]);
    let blob = other_board(|_| ());
    assert_eq!(machine::seed(&Tree::new(&blob).unwrap()), []);
    let qemu = Tree::new(QEMU_GICV3).unwrap();
    assert_eq!(machine::seed(&qemu).len(), 32, "as QEMU has it");
}

#[test]
fn hardening_is_asked_for_by_name() {
    let with = |value: &'static str| {
        other_board(|fdt| {
            node(fdt, "chosen", |fdt| {
                fdt.property_string("baton,branch-hardening", value)
                    .unwrap();
            });
        })
    };
    assert_eq!(machine(&other_board(|_| ())).hardening, Hardening::Auto);
    assert_eq!(machine(&with("on")).hardening, Hardening::On);
    assert_eq!(machine(&with("off")).hardening, Hardening::Off);
    // A typing error must leave no machine less protected than was meant.
    assert_eq!(
        error(&with("of")),
        "/chosen: baton,branch-hardening: \"of\"; expected \"auto\", \"on\" or \"off\""
    );
}

#[test]
fn a_machine_without_what_is_needed_is_refused() {
    assert_eq!(
        error(&build(|_| ())),
        "/: no interrupt controller; expected a GICv3, or a GICv2 with virtualisation extensions"
    );
    let psci = |method: &'static str| {
        other_board(|fdt| {
            node(fdt, "psci", |fdt| {
                fdt.property_string("compatible", "arm,psci-0.2").unwrap();
                fdt.property_string("method", method).unwrap();
            });
        })
    };
    assert_eq!(
        machine(&psci("hvc")).psci,
        Some(Psci {
            conduit: Conduit::Hvc,
            version: PsciVersion::V0_2
        })
    );
    assert_eq!(
        error(&psci("hvcx")),
        "/psci: method: \"hvcx\"; expected \"smc\" or \"hvc\""
    );
    let stdout = other_board(|fdt| {
        node(fdt, "chosen", |fdt| {
            fdt.property_string("stdout-path", "/bus/serial@80")
                .unwrap()
        });
    });
    assert_eq!(
        error(&stdout),
        "/chosen: stdout-path: \"/bus/serial@80\", which is no node; expected the path or alias of a UART"
    );
}

#[test]
fn pcie_hosts_with_mistakes_are_refused() {
    let host = |reg: &[u32], extra: &dyn Fn(&mut FdtWriter)| {
        other_board(|fdt| {
            node(fdt, "pcie@30000000", |fdt| {
                fdt.property_string("compatible", "pci-host-ecam-generic")
                    .unwrap();
                cells(fdt, "#address-cells", &[3]);
                cells(fdt, "#size-cells", &[2]);
                cells(fdt, "bus-range", &[2, 3]);
                cells(fdt, "reg", reg);
                cells(fdt, "ranges", &[0x4300_0000, 1, 0, 2, 0, 0, 0x1000_0000]);
                extra(fdt);
            });
        })
    };
    let good = machine(&host(&[0, 0x3000_0000, 0x20_0000], &|_| ()));
    let [bridge] = good.pci_hosts.as_slice() else {
        panic!("{good:?}")
    };
    assert_eq!(
        bridge.windows,
        [PciWindow {
            kind: WindowKind::Mem64,
            prefetchable: true,
            pci_address: 0x1_0000_0000,
            cpu: region(0x2_0000_0000, 0x1000_0000),
        }]
    );
    let function = PciFunction {
        segment: 0,
        bus: 3,
        device: 0,
        function: 1,
    };
    assert_eq!(
        bridge.configuration_space(function),
        Some(region(0x3010_1000, 0x1000))
    );
    assert_eq!(
        (bridge.stream(function), bridge.intx_interrupt(function, 1)),
        (None, None)
    );
    assert_eq!(
        bridge.configuration_space(PciFunction { bus: 1, ..function }),
        None
    );
    assert_eq!(
        error(&host(&[0, 0x3000_0000, 0x10_0000], &|_| ())),
        "/pcie@30000000: reg: 0x100000 bytes of ECAM; expected 1 MiB for each of 2 buses"
    );
    let mapped = |phandle: u32| {
        host(&[0, 0x3000_0000, 0x20_0000], &move |fdt| {
            cells(fdt, "iommu-map", &[0, phandle, 0, 0x1_0000]);
        })
    };
    // The GIC's phandle: an IOMMU of a kind that isn't driven counts as none.
    assert_eq!(machine(&mapped(1)).pci_hosts[0].stream(function), None);
    let dangling = error(&mapped(9));
    assert!(
        dangling.starts_with("/pcie@30000000: iommu-map: phandle 0x9, which no node has"),
        "{dangling}"
    );
}
