//! Devices given to a domain: one good configuration, and every mistake made in it.

use super::domains::{domain, read, text};
use super::*;
use crate::config::machine::Trigger;
use crate::config::{Dma, Passed, PassedNode};
use alloc::string::String;

/// A board with an SMMU, PCIe behind it, a clock, a GPIO controller, a DMA master behind the SMMU and one behind nothing, and two devices in one page; `edit` adds
/// to the tree, `chosen` to `/chosen`.
pub(super) fn board(
    edit: impl FnOnce(&mut FdtWriter),
    chosen: impl FnOnce(&mut FdtWriter),
) -> Vec<u8> {
    fn device(fdt: &mut FdtWriter, at: u32, spi: u32, edit: impl FnOnce(&mut FdtWriter)) {
        node(fdt, &alloc::format!("device@{at:x}"), |fdt| {
            text(fdt, "compatible", "vendor,device");
            cells(fdt, "reg", &[0, at, 0x1000]);
            cells(fdt, "interrupts", &[0, spi, 4, 0]);
            edit(fdt);
        });
    }
    other_board(|fdt| {
        node(fdt, "smmu@e0000000", |fdt| {
            text(fdt, "compatible", "arm,smmu-v3");
            cells(fdt, "reg", &[0, 0xe000_0000, 0x2_0000]);
            cells(fdt, "#iommu-cells", &[1]);
            cells(fdt, "phandle", &[0x30]);
        });
        node(fdt, "iommu@e1000000", |fdt| {
            text(fdt, "compatible", "vendor,iommu");
            cells(fdt, "reg", &[0, 0xe100_0000, 0x1000]);
            cells(fdt, "#iommu-cells", &[1]);
            cells(fdt, "phandle", &[0x31]);
        });
        node(fdt, "pcie@30000000", |fdt| {
            text(fdt, "compatible", "pci-host-ecam-generic");
            cells(fdt, "#address-cells", &[3]);
            cells(fdt, "#size-cells", &[2]);
            cells(fdt, "#interrupt-cells", &[1]);
            cells(fdt, "reg", &[0, 0x3000_0000, 0x1000_0000]);
            let window = [0x0200_0000, 0, 0x4000_0000, 0, 0x4000_0000, 0, 0x1000_0000];
            cells(fdt, "ranges", &window);
            // Bus 0 alone is behind the SMMU.
            cells(fdt, "iommu-map", &[0, 0x30, 0x100, 0x100]);
            cells(fdt, "interrupt-map-mask", &[0, 0, 0, 7]);
            cells(fdt, "interrupt-map", &[0, 0, 0, 1, 1, 0, 40, 4, 0]);
        });
        node(fdt, "clock", |fdt| {
            text(fdt, "compatible", "fixed-clock");
            cells(fdt, "#clock-cells", &[0]);
            cells(fdt, "clock-frequency", &[24_000_000]);
            cells(fdt, "phandle", &[0x32]);
        });
        node(fdt, "gates", |fdt| {
            text(fdt, "compatible", "vendor,gates");
            cells(fdt, "#clock-cells", &[1]);
            cells(fdt, "phandle", &[0x33]);
        });
        node(fdt, "gpio@e2000000", |fdt| {
            text(fdt, "compatible", "arm,pl061");
            cells(fdt, "reg", &[0, 0xe200_0000, 0x50]);
            cells(fdt, "interrupts", &[0, 7, 4, 0]);
            cells(fdt, "clocks", &[0x32]);
            text(fdt, "clock-names", "apb_pclk");
            cells(fdt, "#gpio-cells", &[2]);
            cells(fdt, "pinctrl-0", &[0x33]);
            cells(fdt, "phandle", &[0x34]);
        });
        device(fdt, 0xe300_0000, 8, |fdt| {
            cells(fdt, "iommus", &[0x30, 7, 0x30, 9])
        });
        device(fdt, 0xe400_0000, 9, |fdt| cells(fdt, "iommus", &[0x31, 7]));
        device(fdt, 0xe500_0000, 10, |fdt| {
            fdt.property_null("dma-coherent").unwrap()
        });
        device(fdt, 0xe600_0000, 11, |fdt| {
            cells(fdt, "clocks", &[0x33, 1]);
            cells(fdt, "vdd-supply", &[0x33]);
            node(fdt, "child", |_| {});
        });
        // In one page.
        for (name, at, spi) in [
            ("half@e7000000", 0xe700_0000, 12),
            ("half@e7000800", 0xe700_0800, 13),
        ] {
            node(fdt, name, |fdt| {
                cells(fdt, "reg", &[0, at, 0x100]);
                cells(fdt, "interrupts", &[0, spi, 4, 0]);
            });
        }
        device(fdt, 0xe800_0000, 14, |_| {});
        device(fdt, 0xe900_0000, 14, |_| {});
        device(fdt, 0xea00_0000, 40, |_| {});
        device(fdt, 0x8800_0000, 15, |_| {});
        device(fdt, 0x4100_0000, 16, |_| {});
        device(fdt, 0xeb00_0000, 17, |fdt| text(fdt, "status", "disabled"));
        device(fdt, 0xed00_0000, 18, |fdt| {
            fdt.property_null("msi-controller").unwrap()
        });
        node(fdt, "keys", |fdt| text(fdt, "compatible", "gpio-keys"));
        node(fdt, "private@ec000000", |fdt| {
            cells(fdt, "reg", &[0, 0xec00_0000, 0x1000]);
            cells(fdt, "interrupts", &[1, 7, 4, 0]);
        });
        node(fdt, "huge@f8000000", |fdt| {
            cells(fdt, "reg", &[0, 0xf800_0000, 0x400_0000])
        });
        edit(fdt);
        node(fdt, "chosen", chosen);
    })
}

fn list(fdt: &mut FdtWriter, names: &[&str]) {
    let names = names.iter().map(|name| String::from(*name)).collect();
    fdt.property_string_list("baton,passthrough", names)
        .unwrap();
}

/// A domain with these devices.
fn given(names: &[&str]) -> Configuration {
    read(&board(
        |_| {},
        |fdt| domain(fdt, "domain@1", false, |fdt| list(fdt, names)),
    ))
}

fn passed(configuration: &Configuration) -> &[Passed] {
    &configuration.domains[0].as_ref().unwrap().passthrough
}

/// The only error of a configuration.
#[track_caller]
fn mistake(configuration: &Configuration) -> String {
    let errors: Vec<String> = configuration.errors().map(ToString::to_string).collect();
    let [error] = errors.as_slice() else {
        panic!("{errors:#?}")
    };
    assert!(
        configuration.domains.iter().any(Result::is_err),
        "its domain isn't created"
    );
    error.clone()
}

#[test]
fn a_device_of_the_tree_is_read_with_all_that_is_its_own() {
    let configuration = given(&["/gpio@e2000000"]);
    assert_eq!(configuration.errors().count(), 0);
    assert_eq!(configuration.warnings, []);
    let expected = PassedNode {
        path: "/gpio@e2000000".into(),
        name: "gpio".into(),
        registers: vec![region(0xe200_0000, 0x50)],
        interrupts: vec![level(39)],
        dma: Dma::None,
        clocks: vec![24_000_000],
        properties: vec![
            ("compatible".into(), b"arm,pl061\0".to_vec()),
            ("clock-names".into(), b"apb_pclk\0".to_vec()),
            ("#gpio-cells".into(), vec![0, 0, 0, 2]),
        ],
    };
    assert_eq!(passed(&configuration), [Passed::Node(expected)]);
}

#[test]
fn what_an_iommu_confines_is_passed_with_its_streams() {
    let configuration = given(&["/device@e3000000", "pci:0000:00:02.0"]);
    assert_eq!(configuration.errors().count(), 0);
    let [Passed::Node(device), Passed::Pci(function, stream)] = passed(&configuration) else {
        panic!("{configuration:?}")
    };
    assert_eq!(device.dma, Dma::Confined(vec![StreamId(7), StreamId(9)]));
    assert_eq!(
        (function.to_string().as_str(), *stream),
        ("0000:00:02.0", StreamId(0x110))
    );
}

#[test]
fn what_a_driver_may_miss_is_a_warning() {
    let configuration = given(&["/device@e6000000"]);
    assert_eq!(configuration.errors().count(), 0);
    let warnings: Vec<_> = configuration
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    for (warning, word) in warnings.iter().zip(["clocks", "vdd-supply", "child"]) {
        assert!(warning.contains(word), "{warning}");
    }
    assert_eq!(warnings.len(), 3);
    let [Passed::Node(device)] = passed(&configuration) else {
        panic!()
    };
    assert_eq!(device.clocks, [0; 0]);
    let names: Vec<_> = device
        .properties
        .iter()
        .map(|(name, _)| name.as_str())
        .collect();
    assert_eq!(names, ["compatible"]);
}

#[test]
fn each_refusal_says_what_and_why() {
    for (name, why) in [
        ("/gpio@e2000001", "which is no node"),
        // Only a full path is unambiguous.
        ("/gpio", "which is no node"),
        ("pci:00:02.0", "in hexadecimal digits"),
        ("pci:0001:00:02.0", "below a PCIe host bridge"),
        ("pci:0000:01:00.0", "whose DMA no SMMUv3 confines"),
        ("/smmu@e0000000", "an IOMMU"),
        ("/iommu@e1000000", "an IOMMU"),
        ("/device@ed000000", "which turns messages into interrupts"),
        ("/bus/gic@10000", "the interrupt controller"),
        ("/bus/serial@800", "Baton's console"),
        ("/timer", "the timer"),
        ("/pcie@30000000", "a PCIe host bridge"),
        ("/cpus/cpu@100", "a CPU"),
        ("/keys", "no registers"),
        ("/device@eb000000", "which is disabled"),
        ("/device@e4000000", "which is behind /iommu@e1000000"),
        ("/device@e5000000", "which has dma-coherent and no iommus"),
        ("/half@e7000000", "share a page with /half@e7000800"),
        ("/half@e7000800", "begin within a page"),
        ("/device@e8000000", "INTID 46 is /device@e9000000's, too"),
        ("/device@ea000000", "INTID 72 is /pcie@30000000's, too"),
        ("/private@ec000000", "INTID 23 is no SPI"),
        ("/device@88000000", "in RAM"),
        ("/device@41000000", "in a window of PCI"),
        ("/huge@f8000000", "registers beyond"),
    ] {
        let error = mistake(&given(&[name]));
        assert!(
            error.starts_with("/chosen/domain@1: baton,passthrough: "),
            "{name}: {error}"
        );
        assert!(
            error.contains(why) && error.contains("; expected "),
            "{name}: {error}"
        );
    }
    let error = mistake(&given(&["/gpio@e2000000", "/gpio@e2000000"]));
    assert!(error.contains("/gpio@e2000000 twice"), "{error}");
}

#[test]
fn phandles_are_told_to_be_written_as_paths() {
    let configuration = read(&board(
        |_| {},
        |fdt| {
            domain(fdt, "domain@1", false, |fdt| {
                cells(fdt, "baton,passthrough", &[0x34])
            });
        },
    ));
    let error = mistake(&configuration);
    assert!(error.contains("a label stands outside of <>"), "{error}");
}

#[test]
fn a_device_belongs_to_one_domain_and_to_no_coproc() {
    let both = |first: &'static str, second: &'static str| {
        read(&board(
            |_| {},
            |fdt| {
                domain(fdt, "domain@1", false, |fdt| list(fdt, &[first]));
                domain(fdt, "domain@2", false, |fdt| list(fdt, &[second]));
            },
        ))
    };
    for name in ["/gpio@e2000000", "pci:0000:00:02.0"] {
        let error = mistake(&both(name, name));
        assert!(error.starts_with("/chosen/domain@2: "), "{error}");
        assert!(
            error.contains(&alloc::format!("{name}, which /chosen/domain@1 has")),
            "{error}"
        );
    }
    assert_eq!(
        both("pci:0000:00:02.0", "pci:0000:00:03.0")
            .errors()
            .count(),
        0
    );
    for (device, name) in [
        ("pci:0000:00:01.0", "pci:0000:00:01.0"),
        ("/gpio@e2000000", "/gpio@e2000000"),
    ] {
        let configuration = read(&board(
            |_| {},
            |fdt| {
                node(fdt, "coprocs", |fdt| {
                    text(fdt, "compatible", "baton,coprocs");
                    node(fdt, "coproc@0", |fdt| {
                        cells(fdt, "reg", &[0]);
                        text(fdt, "driver", "qemu,edu");
                        text(fdt, "device", device);
                        text(fdt, "scheduler", "rr");
                        // Not even one that is shared only when somebody says so.
                        text(fdt, "status", "disabled");
                    });
                });
                domain(fdt, "domain@1", false, |fdt| list(fdt, &[name]));
            },
        ));
        let error = mistake(&configuration);
        assert!(
            error.contains("which /chosen/coprocs/coproc@0 shares"),
            "{error}"
        );
    }
}

#[test]
fn trust_is_said_in_so_many_words() {
    let trusted = |names: &'static [&'static str]| {
        read(&board(
            |_| {},
            |fdt| {
                domain(fdt, "domain@1", false, |fdt| {
                    if !names.is_empty() {
                        list(fdt, names);
                    }
                    fdt.property_null("baton,trusted-dma").unwrap();
                });
            },
        ))
    };
    let configuration = trusted(&[
        "/device@e4000000",
        "/device@e5000000",
        "/device@e3000000",
        "/gpio@e2000000",
    ]);
    assert_eq!(configuration.errors().count(), 0);
    let dma: Vec<_> = passed(&configuration)
        .iter()
        .map(|device| match device {
            Passed::Node(device) => device.dma.clone(),
            Passed::Pci(..) => panic!(),
        })
        .collect();
    let confined = Dma::Confined(vec![StreamId(7), StreamId(9)]);
    // Trust takes no confinement away that there is.
    assert_eq!(dma, [Dma::Unconfined, Dma::Unconfined, confined, Dma::None]);
    // A function without IOMMU stays refused: nothing would tell its driver the machine's addresses.
    assert!(mistake(&trusted(&["pci:0000:01:00.0"])).contains("no SMMUv3"));
    assert!(mistake(&trusted(&[])).contains("trust without baton,passthrough"));
}

/// Trigger and number reach the GIC as the tree has them.
#[test]
fn an_edge_stays_an_edge() {
    let configuration = read(&board(
        |fdt| {
            node(fdt, "edge@ee000000", |fdt| {
                cells(
                    fdt,
                    "reg",
                    &[0, 0xee00_0000, 0x1000, 0, 0xef00_0000, 0x2000],
                );
                cells(fdt, "interrupts", &[0, 20, 1, 0, 0, 21, 4, 0]);
            });
        },
        |fdt| domain(fdt, "domain@1", false, |fdt| list(fdt, &["/edge@ee000000"])),
    ));
    let [Passed::Node(device)] = passed(&configuration) else {
        panic!("{:?}", configuration.errors().next())
    };
    let triggers: Vec<_> = device
        .interrupts
        .iter()
        .map(|one| (one.intid.0, one.trigger))
        .collect();
    assert_eq!(triggers, [(52, Trigger::Edge), (53, Trigger::Level)]);
    assert_eq!(device.registers.len(), 2);
}
