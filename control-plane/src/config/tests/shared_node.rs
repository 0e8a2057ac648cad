//! Coprocs that are devices of the tree: what is read, what their driver says to it, and every mistake.

use super::domains::{domain, read, text};
use super::passthrough::board;
use super::*;
use crate::config::{Dma, Fixture};
use alloc::string::String;
use coproc_core::driver::{Description, Match, Window, WorstCase};
use coproc_core::id::CoprocId;
use coproc_core::time::Duration;

/// A board where these devices are coprocs 0, 1, …, and a domain has them all.
fn shared(devices: &[&str], edit: impl Fn(&mut FdtWriter)) -> Configuration {
    read(&board(
        |fdt| {
            node(fdt, "wide@ee000000", |fdt| {
                text(fdt, "compatible", "vendor,wide");
                let two = [0, 0xee00_0000, 0x1000, 0, 0xef00_0000, 0x2000];
                cells(fdt, "reg", &two);
                cells(fdt, "interrupts", &[0, 20, 1, 0, 0, 21, 4, 0]);
                cells(fdt, "iommus", &[0x30, 20, 0x30, 21, 0x30, 22]);
            });
            node(fdt, "twin@f2000000", |fdt| {
                cells(fdt, "reg", &[0, 0xf200_0000, 0x1000]);
                cells(fdt, "iommus", &[0x30, 40]);
            });
            node(fdt, "twin@f3000000", |fdt| {
                cells(fdt, "reg", &[0, 0xf300_0000, 0x1000]);
                cells(fdt, "iommus", &[0x30, 41, 0x30, 40]);
            });
        },
        |fdt| {
            node(fdt, "coprocs", |fdt| {
                text(fdt, "compatible", "baton,coprocs");
                for (number, device) in (0u32..).zip(devices) {
                    node(fdt, &alloc::format!("coproc@{number}"), |fdt| {
                        cells(fdt, "reg", &[number]);
                        cells(fdt, "phandle", &[0x100 + number]);
                        text(fdt, "driver", "qemu,edu");
                        text(fdt, "device", device);
                        text(fdt, "scheduler", "rr");
                        edit(fdt);
                    });
                }
            });
            domain(fdt, "domain@1", false, |fdt| {
                let all = (0x100..).take(devices.len());
                cells(fdt, "baton,coprocs", &all.collect::<Vec<u32>>());
            });
        },
    ))
}

fn one(device: &str) -> CoprocConfig {
    let configuration = shared(&[device], |_| {});
    let errors: Vec<_> = configuration.errors().map(ToString::to_string).collect();
    assert_eq!(errors, [""; 0]);
    configuration.coprocs[0].clone()
}

fn trusted(fdt: &mut FdtWriter) {
    fdt.property_null("baton,trusted-dma").unwrap();
}

const WINDOW: Window = Window {
    name: "registers",
    index: 0,
    size: 0x1000,
    direct: true,
};

/// A driver of anything on the board.
pub(crate) const FACTS: Description = Description {
    name: "qemu,edu",
    matches: &[
        Match::Pci {
            vendor: 1,
            device: 2,
        },
        Match::Compatible("vendor,wide"),
        Match::Compatible("arm,pl061"),
        Match::Compatible("vendor,device"),
    ],
    windows: &[WINDOW],
    interrupts: 1,
    streams: 1,
    own_iommu: false,
    save_area: 0,
    worst_case: WorstCase {
        refusal: Duration::ZERO,
        stop: Duration::ZERO,
        save: Duration::ZERO,
        restore: Duration::ZERO,
    },
    refusal_bound: Duration::ZERO,
    slice: Duration::ZERO,
};

fn suits(config: &CoprocConfig, facts: &Description) -> Result<(), String> {
    let node = config.node.as_ref().unwrap();
    let suits = node.suits(config, facts, true);
    suits.map_err(|error| error.to_string())
}

#[test]
fn any_number_of_windows_interrupts_and_streams_is_read() {
    let configuration = shared(&["/wide@ee000000", "/gpio@e2000000"], |_| {});
    assert_eq!(configuration.errors().count(), 0);
    let wide = configuration.coprocs[0].node.as_ref().unwrap();
    assert_eq!(
        wide.node.registers,
        [region(0xee00_0000, 0x1000), region(0xef00_0000, 0x2000)]
    );
    assert_eq!(wide.node.interrupts, [edge(52), level(53)]);
    assert_eq!(wide.streams(), [20, 21, 22].map(StreamId));
    assert_eq!(wide.compatible, ["vendor,wide"]);
    let gpio = configuration.coprocs[1].node.as_ref().unwrap();
    assert_eq!((&gpio.node.dma, gpio.streams()), (&Dma::None, &[][..]));
    // The domain's tree has both, in the order of the domain's list.
    let domain = configuration.domains[0].as_ref().unwrap();
    let fixture = |coproc, node: &crate::config::SharedNode| Fixture {
        coproc: CoprocId(coproc),
        node: node.node.clone(),
    };
    assert_eq!(domain.fixtures, [fixture(0, wide), fixture(1, gpio)]);
    for config in &configuration.coprocs {
        let facts = Description {
            streams: config.node.as_ref().unwrap().streams().len(),
            ..FACTS
        };
        assert_eq!(suits(config, &facts), Ok(()));
    }
}

/// What the driver says of DMA counts; without a word of it the tree's is not enough.
#[test]
fn a_device_that_nothing_confines_is_shared_only_if_it_does_no_dma_or_all_are_trusted() {
    let idle = Description {
        streams: 0,
        ..FACTS
    };
    for device in ["/gpio@e2000000", "/device@e4000000", "/device@e5000000"] {
        let config = one(device);
        assert_eq!(suits(&config, &idle), Ok(()), "{device}");
        let error = suits(&config, &FACTS).unwrap_err();
        assert!(error.contains("say so by baton,trusted-dma"), "{error}");
        let configuration = shared(&[device], trusted);
        let config = &configuration.coprocs[0];
        assert_eq!(suits(config, &FACTS), Ok(()), "{device}");
        let domain = configuration.domains[0].as_ref().unwrap();
        assert_eq!(domain.fixtures[0].node.dma, Dma::Unconfined);
    }
    // Trust takes no confinement away that there is.
    let configuration = shared(&["/device@e3000000"], trusted);
    let node = configuration.coprocs[0].node.as_ref().unwrap();
    assert_eq!(node.streams(), [7, 9].map(StreamId));
}

#[test]
fn what_does_not_suit_the_driver_is_named() {
    let (wide, gpio) = (one("/wide@ee000000"), one("/gpio@e2000000"));
    let window = |index, size| Window {
        index,
        size,
        ..WINDOW
    };
    let with = |windows| Description { windows, ..FACTS };
    let third = [window(0, 0x1000), window(2, 0x1000)];
    let large = [window(1, 0x2001)];
    let (third, large): (&'static _, &'static _) = (
        alloc::boxed::Box::leak(alloc::boxed::Box::new(third)),
        alloc::boxed::Box::leak(alloc::boxed::Box::new(large)),
    );
    let other = Description {
        matches: &[Match::FirmwareCore, Match::Compatible("vendor,wid")],
        ..FACTS
    };
    let three = Description {
        interrupts: 3,
        ..FACTS
    };
    let four = Description {
        streams: 4,
        ..FACTS
    };
    let saves = Description {
        streams: 0,
        save_area: 4096,
        ..FACTS
    };
    let own = Description {
        own_iommu: true,
        ..FACTS
    };
    for (config, facts, why) in [
        (&wide, &other, "compatible with \"vendor,wide\""),
        (&wide, &with(third), "has no reg entry 2"),
        (&wide, &with(large), "reg entry 1 has 0x2000 bytes"),
        (&wide, &three, "has 2 interrupts"),
        (&wide, &four, "iommus has 3 streams"),
        (&wide, &own, "behind another one too"),
        (&gpio, &own, "whose only IOMMU is its own"),
        (&gpio, &saves, "which no IOMMU confines"),
        (&gpio, &FACTS, "which has no iommus"),
        (&one("/device@e4000000"), &FACTS, "behind /iommu@e1000000"),
        (&one("/device@e5000000"), &FACTS, "has dma-coherent"),
    ] {
        let error = suits(config, facts).unwrap_err();
        assert!(
            error.starts_with("/chosen/coprocs/coproc@0: device: /"),
            "{error}"
        );
        // What, where, what was expected, and what to do.
        assert!(error.contains(why), "{why}: {error}");
        let rest = error.split_once("; expected ").unwrap().1;
        assert!(rest.contains("; "), "no remedy: {error}");
    }
    let node = wide.node.as_ref().unwrap();
    let error = node.suits(&wide, &FACTS, false).unwrap_err().to_string();
    assert!(error.contains("whose IOMMU doesn't work"), "{error}");
}

#[test]
fn what_belongs_to_others_is_not_shared() {
    for (device, why) in [
        ("/gpio", "which is no node"),
        ("/smmu@e0000000", "an IOMMU"),
        ("/bus/gic@10000", "the interrupt controller"),
        ("/bus/serial@800", "Baton's console"),
        ("/pcie@30000000", "a PCIe host bridge"),
        ("/keys", "no registers"),
        ("/device@eb000000", "which is disabled"),
        ("/half@e7000000", "share a page with /half@e7000800"),
        ("/half@e7000800", "begin within a page"),
        ("/device@e8000000", "INTID 46 is /device@e9000000's, too"),
        ("/device@ea000000", "INTID 72 is /pcie@30000000's, too"),
        ("/private@ec000000", "INTID 23 is no SPI"),
        ("/device@88000000", "in RAM"),
        ("/device@41000000", "in a window of PCI"),
        ("/twin@f2000000", "is /twin@f3000000's, too"),
    ] {
        let configuration = shared(&[device], |_| {});
        let [error] = configuration.coproc_errors.as_slice() else {
            panic!("{device}: {:?}", configuration.coproc_errors)
        };
        let error = error.to_string();
        assert!(
            error.starts_with("/chosen/coprocs/coproc@0: device: "),
            "{error}"
        );
        assert!(error.contains(why), "{device}: {error}");
        assert!(error.contains("; expected "), "{error}");
        // Its domain isn't created, and says why.
        assert!(configuration.domains[0].is_err());
    }
    let configuration = shared(&["pci:0000:00:01.0"], trusted);
    let error = configuration.coproc_errors[0].to_string();
    assert!(
        error.contains("baton,trusted-dma: trust for pci:0000:00:01.0"),
        "{error}"
    );
}

/// What its driver may miss in the domain's tree is told, as of a device given away.
#[test]
fn what_is_left_out_of_the_domain_s_tree_is_a_warning() {
    let configuration = shared(&["/device@e6000000"], |_| {});
    assert_eq!(configuration.errors().count(), 0);
    assert_eq!(configuration.warnings.len(), 3);
}

#[test]
fn more_than_a_domain_has_room_for_stops_it() {
    let configuration = shared(&["/huge@f8000000"], |_| {});
    let errors: Vec<_> = configuration.errors().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "/chosen/domain@1: baton,coprocs: registers beyond 62 MiB; expected fewer or smaller coprocs"
        ]
    );
}
