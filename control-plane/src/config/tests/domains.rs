//! Coprocs and domains: one good configuration, and every mistake made in it.

use super::*;
use crate::config::{CoprocConfig, DomainConfig};
use crate::lifecycle::policy::RestartPolicy;
use alloc::string::String;
use coproc_core::algorithm::Parameters;
use coproc_core::id::{CoprocId, DomainId};
use coproc_core::time::Duration;

const KNOWN: Known<'static> = Known {
    drivers: &[
        KnownName {
            name: "qemu,edu",
            feature: "edu",
            compiled_in: true,
        },
        KnownName {
            name: "renesas,rcar-dmac",
            feature: "rcar-dmac",
            compiled_in: false,
        },
    ],
    schedulers: &[KnownName {
        name: "rr",
        feature: "rr",
        compiled_in: true,
    }],
};

pub(super) fn text(fdt: &mut FdtWriter, name: &str, value: &str) {
    fdt.property_string(name, value).unwrap();
}

/// A machine with RAM, PCIe and a device-tree device, and what `chosen` adds to `/chosen`.
pub(super) fn configured(chosen: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    other_board(|fdt| {
        node(fdt, "pcie@30000000", |fdt| {
            text(fdt, "compatible", "pci-host-ecam-generic");
            cells(fdt, "#address-cells", &[3]);
            cells(fdt, "#size-cells", &[2]);
            cells(fdt, "reg", &[0, 0x3000_0000, 0x1000_0000]);
            cells(
                fdt,
                "ranges",
                &[0x0200_0000, 0, 0x4000_0000, 0, 0x4000_0000, 0, 0x1000_0000],
            );
        });
        node(fdt, "dma-controller@e6700000", |fdt| {
            cells(fdt, "reg", &[0, 0xe670_0000, 0x1000]);
            cells(fdt, "phandle", &[0x20]);
        });
        node(fdt, "chosen", chosen);
    })
}

fn coproc(fdt: &mut FdtWriter, number: u32, edit: impl FnOnce(&mut FdtWriter)) {
    node(fdt, &alloc::format!("coproc@{number}"), |fdt| {
        cells(fdt, "reg", &[number]);
        cells(fdt, "phandle", &[0x100 + number]);
        edit(fdt);
    });
}

fn edu(fdt: &mut FdtWriter) {
    text(fdt, "driver", "qemu,edu");
    text(fdt, "device", "pci:0000:00:01.0");
    text(fdt, "scheduler", "rr");
}

pub(super) fn coprocs(fdt: &mut FdtWriter, body: impl FnOnce(&mut FdtWriter)) {
    node(fdt, "coprocs", |fdt| {
        text(fdt, "compatible", "baton,coprocs");
        cells(fdt, "#address-cells", &[1]);
        cells(fdt, "#size-cells", &[0]);
        body(fdt);
    });
}

pub(super) fn module(fdt: &mut FdtWriter, kind: &str, address: u32, size: u32) {
    node(fdt, &alloc::format!("module@{address:x}"), |fdt| {
        let compatible = alloc::vec![
            alloc::format!("multiboot,{kind}"),
            "multiboot,module".into()
        ];
        fdt.property_string_list("compatible", compatible).unwrap();
        cells(fdt, "reg", &[0, address, size]);
    });
}

/// A domain's node: without `cpus`, `memory` and kernel if `bare`.
pub(super) fn domain(
    fdt: &mut FdtWriter,
    name: &str,
    bare: bool,
    edit: impl FnOnce(&mut FdtWriter),
) {
    node(fdt, name, |fdt| {
        text(fdt, "compatible", "xen,domain");
        if !bare {
            cells(fdt, "cpus", &[1]);
            cells(fdt, "memory", &[0, 0x4_0000]);
        }
        edit(fdt);
        if !bare {
            module(fdt, "kernel", 0x8a00_0000, 0x200_0000);
        }
    });
}

pub(crate) fn two_domains() -> Vec<u8> {
    configured(|fdt| {
        coprocs(fdt, |fdt| {
            coproc(fdt, 0, |fdt| {
                edu(fdt);
                cells(fdt, "slice-us", &[1_000_000]);
                cells(fdt, "refusal-bound-us", &[0, 10_000_000]);
            });
        });
        node(fdt, "domain@1", |fdt| {
            fdt.property_string("compatible", "xen,domain").unwrap();
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[1]);
            cells(fdt, "cpus", &[2]);
            cells(fdt, "memory", &[0, 0x4_0000]);
            fdt.property_null("vpl011").unwrap();
            fdt.property_null("baton,control").unwrap();
            cells(fdt, "baton,coprocs", &[0x100]);
            cells(fdt, "baton,coproc-weights", &[2]);
            cells(fdt, "baton,cpu-affinity", &[0, 1]);
            node(fdt, "module@8a000000", |fdt| {
                let compatible = alloc::vec!["multiboot,kernel".into(), "multiboot,module".into()];
                fdt.property_string_list("compatible", compatible).unwrap();
                cells(fdt, "reg", &[0x8a00_0000, 0x200_0000]);
                text(fdt, "bootargs", "console=ttyAMA0");
            });
            node(fdt, "module@8e000000", |fdt| {
                let compatible = alloc::vec!["multiboot,ramdisk".into(), "multiboot,module".into()];
                fdt.property_string_list("compatible", compatible).unwrap();
                cells(fdt, "reg", &[0x8e00_0000, 0x10_0000]);
            });
        });
        domain(fdt, "domain@2", false, |fdt| {
            cells(fdt, "baton,coprocs", &[0x100]);
            cells(fdt, "baton,cpu-affinity", &[1]);
            text(fdt, "bootargs", "quiet");
        });
    })
}

pub(crate) fn read(blob: &[u8]) -> Configuration {
    let tree = Tree::new(blob).unwrap();
    let machine = Machine::from_tree(&tree).unwrap();
    Configuration::from_tree(&tree, &machine, &KNOWN)
}

fn errors(configuration: &Configuration) -> Vec<String> {
    configuration.errors().map(ToString::to_string).collect()
}

#[test]
fn a_configuration_reads_as_it_was_written() {
    let configuration = read(&two_domains());
    assert_eq!(errors(&configuration), [""; 0]);
    assert_eq!(configuration.warnings, []);
    assert_eq!(
        configuration.coprocs,
        [CoprocConfig {
            id: CoprocId(0),
            path: "/chosen/coprocs/coproc@0".into(),
            device: DeviceLocator::Pci(PciFunction {
                segment: 0,
                bus: 0,
                device: 1,
                function: 0
            }),
            node: None,
            driver: "qemu,edu".into(),
            scheduler: "rr".into(),
            slice: Some(Duration::from_secs(1)),
            refusal_bound: Some(Duration::from_secs(10)),
            starvation_bound: None,
            record: false,
            shared: true,
        }]
    );
    let module = |path: &str, address, size| Module {
        path: path.into(),
        region: region(address, size),
    };
    let first = DomainConfig {
        id: DomainId(1),
        path: "/chosen/domain@1".into(),
        cpus: 2,
        memory: 256 << 20,
        vpl011: true,
        kernel: module("/chosen/domain@1/module@8a000000", 0x8a00_0000, 0x200_0000),
        firmware: false,
        ramdisk: Some(module(
            "/chosen/domain@1/module@8e000000",
            0x8e00_0000,
            0x10_0000,
        )),
        bootargs: "console=ttyAMA0".into(),
        coprocs: vec![Assignment {
            coproc: CoprocId(0),
            parameters: Parameters {
                weight: 2,
                ..Parameters::default()
            },
        }],
        control: true,
        restart: RestartPolicy::Never,
        enabled: true,
        affinity: vec![0, 1],
        pool: 0,
        share: Parameters::default(),
        passthrough: vec![],
        fixtures: vec![],
    };
    let second = DomainConfig {
        id: DomainId(2),
        path: "/chosen/domain@2".into(),
        cpus: 1,
        vpl011: false,
        kernel: module("/chosen/domain@2/module@8a000000", 0x8a00_0000, 0x200_0000),
        ramdisk: None,
        bootargs: "quiet".into(),
        coprocs: vec![Assignment {
            coproc: CoprocId(0),
            parameters: Parameters::default(),
        }],
        control: false,
        affinity: vec![1],
        ..first.clone()
    };
    assert_eq!(configuration.module_regions().count(), 3);
    assert_eq!(configuration.domains, [Ok(first), Ok(second)]);
}

#[test]
fn restart_policy_and_disabled_domains_are_read() {
    let configuration = read(&configured(|fdt| {
        for (name, restart, status) in [
            ("domain@1", "on-crash", "disabled"),
            ("domain@2", "always", "okay"),
            ("domain@3", "never", "fail"),
        ] {
            domain(fdt, name, false, |fdt| {
                text(fdt, "baton,restart", restart);
                text(fdt, "status", status);
            });
        }
    }));
    let read: Vec<_> = configuration
        .domains
        .iter()
        .map(|domain| domain.as_ref().map(|it| (it.id.0, it.restart, it.enabled)))
        .collect();
    assert_eq!(
        read,
        [
            Ok((1, RestartPolicy::OnCrash, false)),
            Ok((2, RestartPolicy::Always, true))
        ]
    );
    let errors = spoilt(false, |fdt| text(fdt, "baton,restart", "sometimes"));
    assert_eq!(errors.len(), 1);
    assert!(
        errors[0].contains("baton,restart: \"sometimes\""),
        "{errors:?}"
    );
    assert!(errors[0].contains("\"on-crash\""), "{errors:?}");
}

/// The errors of the first of two domains, which `edit` has spoilt; the second must not care.
fn spoilt(bare: bool, edit: impl FnOnce(&mut FdtWriter)) -> Vec<String> {
    let configuration = read(&configured(|fdt| {
        coprocs(fdt, |fdt| coproc(fdt, 0, edu));
        domain(fdt, "domain@1", bare, edit);
        domain(fdt, "domain@2", false, |fdt| {
            cells(fdt, "baton,coprocs", &[0x100])
        });
    }));
    assert!(configuration.domains[1].is_ok(), "{configuration:?}");
    assert!(configuration.domains[0].is_err(), "{configuration:?}");
    errors(&configuration)
}

#[test]
fn a_phandle_that_names_no_coproc_stops_that_domain_alone() {
    assert_eq!(
        spoilt(false, |fdt| cells(fdt, "baton,coprocs", &[9])),
        [
            "/chosen/domain@1: baton,coprocs: phandle 0x9 names no coproc; expected a phandle of a child of \
          /chosen/coprocs; add the node or drop the phandle"
        ]
    );
    // The GIC's.
    let other = spoilt(false, |fdt| cells(fdt, "baton,coprocs", &[1]));
    assert!(
        other[0].contains("phandle 0x1 names /bus/gic@10000, which is no coproc"),
        "{other:?}"
    );
    let twice = spoilt(false, |fdt| cells(fdt, "baton,coprocs", &[0x100, 0x100]));
    assert!(
        twice[0].contains("/chosen/coprocs/coproc@0 twice"),
        "{twice:?}"
    );
}

/// `disabled`: described, so that it can be shared later, but nobody's from boot on. Anything else but `okay`: not there.
#[test]
fn a_disabled_coproc_is_described_and_belongs_to_nobody() {
    let with_status = |status: &'static str| {
        read(&configured(|fdt| {
            coprocs(fdt, |fdt| {
                coproc(fdt, 0, |fdt| {
                    edu(fdt);
                    text(fdt, "status", status);
                });
            });
            domain(fdt, "domain@1", false, |fdt| {
                cells(fdt, "baton,coprocs", &[0x100]);
            });
        }))
    };
    let disabled = with_status("disabled");
    assert_eq!(disabled.coprocs.len(), 1);
    assert!(!disabled.coprocs[0].shared);
    assert_eq!(
        errors(&disabled),
        [
            "/chosen/domain@1: baton,coprocs: /chosen/coprocs/coproc@0, which is disabled; expected a coproc that is \
             shared from boot on; set its status to \"okay\", or attach the domain at run time"
        ]
    );
    assert!(with_status("okay").coprocs[0].shared);
    let reserved = with_status("reserved");
    assert_eq!(reserved.coprocs, []);
    assert!(errors(&reserved)[0].contains("is no coproc"));
}

#[test]
fn all_mistakes_of_a_domain_are_told_at_once() {
    let found = spoilt(true, |fdt| {
        cells(fdt, "cpus", &[9]);
        cells(fdt, "memory", &[0, 0x401]);
        cells(fdt, "baton,coproc", &[0x100]);
        cells(fdt, "baton,cpu-affinity", &[2]);
        fdt.property_string("vpl011", "yes").unwrap();
    });
    assert_eq!(
        found,
        [
            "/chosen/domain@1: baton,coproc: unknown property; expected a property of the schema \
             baton,domain.yaml; correct its name or drop it",
            "/chosen/domain@1: vpl011: 4 bytes; expected no value: the property is there or not",
            "/chosen/domain@1: cpus: 9; expected the number of vCPUs, 1 to 8",
            "/chosen/domain@1: memory: 1025 KiB; expected a multiple of 2048 KiB, not 0",
            "/chosen/domain@1: baton,cpu-affinity: CPU 2; expected CPUs 0 to 1, counted in the order of /cpus; \
             name a CPU that the machine has",
            "/chosen/domain@1: compatible: no kernel module; expected a child compatible with \
             \"multiboot,kernel\"; add the kernel as a module",
        ]
    );
}

#[test]
fn numbers_out_of_range_are_refused() {
    let one = |edit: &dyn Fn(&mut FdtWriter)| {
        spoilt(true, |fdt| {
            edit(fdt);
            module(fdt, "kernel", 0x8a00_0000, 0x10_0000);
        })
        .join("\n")
    };
    let with = |cpus: u32, memory: &'static [u32]| {
        one(&move |fdt| {
            cells(fdt, "cpus", &[cpus]);
            cells(fdt, "memory", memory);
        })
    };
    assert!(with(0, &[0, 0x800]).starts_with("/chosen/domain@1: cpus: 0; expected"));
    assert!(with(1, &[0, 0]).starts_with("/chosen/domain@1: memory: 0 KiB; expected"));
    assert!(
        with(1, &[0x4_0000]).contains("4 bytes; expected KiB as a 64-bit number, two cells; write")
    );
    assert!(
        with(1, &[u32::MAX, 0]).contains("expected a multiple of 2048 KiB"),
        "overflow"
    );
    let missing = one(&|_| ());
    assert!(
        missing.contains("cpus: missing") && missing.contains("memory: missing"),
        "{missing}"
    );
    let weights = |weights: &'static [u32]| {
        spoilt(false, |fdt| {
            cells(fdt, "baton,coprocs", &[0x100]);
            cells(fdt, "baton,coproc-weights", weights);
        })
        .join("\n")
    };
    assert!(weights(&[0]).contains("weight 0; expected"));
    assert!(weights(&[1, 1]).contains("2 weights; expected 1, one for each"));
    let reserved = |budget: &'static [u32], period: &'static [u32]| {
        spoilt(false, |fdt| {
            cells(fdt, "baton,coprocs", &[0x100]);
            cells(fdt, "baton,coproc-budgets-us", budget);
            cells(fdt, "baton,coproc-periods-us", period);
        })
        .join("\n")
    };
    assert!(
        reserved(&[20], &[10])
            .contains("baton,coproc-budgets-us: a budget of 20.0 us in 10.0 us; expected at most")
    );
    assert!(reserved(&[20], &[0]).contains("baton,coproc-periods-us: no period for a budget"));
    assert!(reserved(&[0], &[20]).contains("baton,coproc-budgets-us: no budget for a period"));
    assert!(reserved(&[5], &[20, 20]).contains("2 periods; expected 1"));
}

#[test]
fn modules_are_checked() {
    let modules = |list: &'static [(&str, u32, u32)]| {
        spoilt(true, |fdt| {
            cells(fdt, "cpus", &[1]);
            cells(fdt, "memory", &[0, 0x4_0000]);
            for (kind, address, size) in list {
                module(fdt, kind, *address, *size);
            }
        })
        .join("\n")
    };
    let outside = modules(&[("kernel", 0x7000_0000, 0x10_0000)]);
    assert_eq!(
        outside,
        "/chosen/domain@1/module@70000000: reg: 0x70000000+0x100000, which isn't in RAM; expected a region \
         inside one bank of memory; correct the address or give the machine more memory"
    );
    let overlap = modules(&[
        ("kernel", 0x8a00_0000, 0x10_0000),
        ("ramdisk", 0x8a08_0000, 0x10_0000),
    ]);
    assert!(
        overlap.contains("module@8a080000: reg: 0x8a080000+0x100000, which overlaps 0x8a000000"),
        "{overlap}"
    );
    let two = modules(&[
        ("kernel", 0x8a00_0000, 0x1000),
        ("kernel", 0x8b00_0000, 0x1000),
    ]);
    assert!(
        two.contains("module@8b000000: compatible: a second one besides"),
        "{two}"
    );
    assert!(modules(&[("kernel", 0x8a00_0000, 0)]).contains("expected a size that isn't 0"));
    assert!(modules(&[("ramdisk", 0x8a00_0000, 0x1000)]).contains("no kernel module"));
    let large = modules(&[("kernel", 0x8000_0000, 0x1fff_0000)]);
    assert!(
        large.contains("memory: 262144 KiB, less than kernel and ramdisk together"),
        "{large}"
    );
}

#[test]
fn firmware_takes_the_place_of_a_kernel() {
    let with = |extra: &[(&str, u32, u32)], size| {
        let blob = configured(|fdt| {
            domain(fdt, "domain@1", true, |fdt| {
                cells(fdt, "cpus", &[1]);
                cells(fdt, "memory", &[0, 0x800]);
                module(fdt, "firmware", 0x8a00_0000, size);
                for (kind, address, size) in extra {
                    module(fdt, kind, *address, *size);
                }
            });
        });
        read(&blob)
    };
    // Larger than the domain's RAM, in which it doesn't lie.
    let good = with(&[], 0x400_0000);
    let domain = good.domains[0].as_ref().unwrap();
    assert!(domain.firmware);
    assert_eq!(domain.kernel.region, region(0x8a00_0000, 0x400_0000));
    let mistakes = [
        (with(&[], 0x400_0001), "expected at most 64 MiB of firmware"),
        (
            with(&[("ramdisk", 0x8f00_2000, 0x1000)], 0x1000),
            "a ramdisk besides firmware",
        ),
        (
            with(&[("kernel", 0x8f00_2000, 0x1000)], 0x1000),
            "a second one besides /chosen/domain@1/module@8a000000",
        ),
    ];
    for (configuration, expected) in mistakes {
        let found = errors(&configuration);
        assert!(found.len() == 1 && found[0].contains(expected), "{found:?}");
    }
}

#[test]
fn a_module_may_serve_two_domains_but_not_overlap_anothers() {
    let configuration = read(&configured(|fdt| {
        domain(fdt, "domain@1", false, |_| ());
        domain(fdt, "domain@2", false, |_| ());
        domain(fdt, "domain@3", true, |fdt| {
            cells(fdt, "cpus", &[1]);
            cells(fdt, "memory", &[0, 0x4_0000]);
            module(fdt, "kernel", 0x8b00_0000, 0x200_0000);
        });
    }));
    assert!(configuration.domains[0].is_ok() && configuration.domains[1].is_ok());
    let found = errors(&configuration).join("\n");
    assert!(
        found.contains("of /chosen/domain@1/module@8a000000; expected modules that don't overlap"),
        "{found}"
    );
}

#[test]
fn numbers_of_domains_are_their_own() {
    let configuration = read(&configured(|fdt| {
        domain(fdt, "domain@1", false, |_| ());
        domain(fdt, "domain@2", false, |fdt| cells(fdt, "reg", &[1]));
        domain(fdt, "domain@zz", false, |_| ());
        domain(fdt, "domU", false, |fdt| cells(fdt, "reg", &[7]));
        domain(fdt, "domain@0", false, |_| ());
    }));
    let ids: Vec<_> = configuration
        .domains
        .iter()
        .map(|one| one.as_ref().ok().map(|one| one.id))
        .collect();
    assert_eq!(
        ids,
        [Some(DomainId(1)), None, None, Some(DomainId(7)), None]
    );
    let found = errors(&configuration);
    assert_eq!(
        found[0],
        "/chosen/domain@2: reg: 1, which /chosen/domain@1 has already; expected a number of its own"
    );
    assert!(
        found[1].starts_with("/chosen/domain@zz: unit address: no number; expected"),
        "{found:?}"
    );
    assert!(
        found[2].starts_with("/chosen/domain@0: unit address: 0x0; expected"),
        "{found:?}"
    );
}

#[test]
fn what_has_no_effect_is_a_warning() {
    let configuration = read(&configured(|fdt| {
        domain(fdt, "domain@1", false, |fdt| cells(fdt, "nr_spis", &[32]));
        node(fdt, "domain@2", |fdt| {
            text(fdt, "compatible", "xen,domain2")
        });
    }));
    assert_eq!(errors(&configuration), [""; 0]);
    let warnings: Vec<String> = configuration
        .warnings
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(warnings.len(), 2);
    assert!(
        warnings[1].starts_with("/chosen/domain@1: nr_spis: unknown property"),
        "{warnings:?}"
    );
    assert!(
        warnings[0].starts_with("/chosen/domain@2: compatible: not compatible with"),
        "{warnings:?}"
    );
}

/// What is wrong with a single coproc that says this.
fn coproc_errors(edit: impl FnOnce(&mut FdtWriter)) -> String {
    let configuration = read(&configured(|fdt| {
        coprocs(fdt, |fdt| {
            coproc(fdt, 0, edit);
            coproc(fdt, 1, |fdt| {
                text(fdt, "driver", "qemu,edu");
                text(fdt, "device", "pci:0000:00:02.0");
                text(fdt, "scheduler", "rr");
            });
        });
        domain(fdt, "domain@1", false, |fdt| {
            cells(fdt, "baton,coprocs", &[0x100])
        });
        domain(fdt, "domain@2", false, |fdt| {
            cells(fdt, "baton,coprocs", &[0x101])
        });
    }));
    assert_eq!(configuration.coprocs.len(), 1, "the other coproc is good");
    let refused = configuration.domains[0].as_ref().unwrap_err();
    assert!(
        refused.errors[0]
            .found()
            .contains("names /chosen/coprocs/coproc@0, which has a mistake"),
        "{refused:?}"
    );
    assert!(configuration.domains[1].is_ok());
    configuration
        .coproc_errors
        .iter()
        .map(|error| error.to_string() + "\n")
        .collect()
}

#[test]
fn names_of_drivers_and_algorithms_match_exactly() {
    let named = |driver: &'static str, scheduler: &'static str| {
        coproc_errors(|fdt| {
            text(fdt, "driver", driver);
            text(fdt, "device", "pci:0000:00:01.0");
            text(fdt, "scheduler", scheduler);
        })
    };
    assert_eq!(
        named("qemu,ed", "rr"),
        "/chosen/coprocs/coproc@0: driver: \"qemu,ed\", which doesn't exist; expected one of \"qemu,edu\"; \
         correct the name\n"
    );
    assert!(named("qemu,edu2", "rr").contains("which doesn't exist"));
    assert_eq!(
        named("renesas,rcar-dmac", "rr"),
        "/chosen/coprocs/coproc@0: driver: \"renesas,rcar-dmac\", which isn't compiled in; expected one of \
         \"qemu,edu\"; build with the cargo feature \"rcar-dmac\"\n"
    );
    assert!(
        named("qemu,edu", "r")
            .starts_with("/chosen/coprocs/coproc@0: scheduler: \"r\", which doesn't exist")
    );
    assert_eq!(named("x", "y").lines().count(), 2, "both mistakes are told");
}

#[test]
fn devices_of_coprocs_are_found() {
    let device = |edit: &dyn Fn(&mut FdtWriter)| {
        let configuration = read(&configured(|fdt| {
            coprocs(fdt, |fdt| {
                coproc(fdt, 0, |fdt| {
                    text(fdt, "driver", "qemu,edu");
                    text(fdt, "scheduler", "rr");
                    edit(fdt);
                });
            });
        }));
        match configuration.coprocs.first() {
            Some(coproc) => Ok(coproc.device.clone()),
            None => Err(errors(&configuration).join("\n")),
        }
    };
    let dmac = Ok(DeviceLocator::Node("/dma-controller@e6700000".into()));
    assert_eq!(
        device(&|fdt| text(fdt, "device", "/dma-controller@e6700000")),
        dmac
    );
    assert_eq!(device(&|fdt| cells(fdt, "device", &[0x20])), dmac);
    let core = DeviceLocator::Cpu {
        path: "/cpus/cpu@100".into(),
        index: 1,
    };
    assert_eq!(
        device(&|fdt| text(fdt, "device", "/cpus/cpu@100")),
        Ok(core)
    );
    let function = PciFunction {
        segment: 0,
        bus: 0x1f,
        device: 0x1f,
        function: 7,
    };
    assert_eq!(
        device(&|fdt| text(fdt, "device", "pci:0000:1f:1f.7")),
        Ok(DeviceLocator::Pci(function))
    );
    for wrong in [
        "/dma-controller@e670000",
        "/dma-controller",
        "/dma",
        "pci:0000:00:20.0",
        "pci:0000:00:1.0",
        "pci:0000:00:01.8",
        "pci:00:01.0",
        "pci:0000:00:+1.0",
        "pci:0001:00:01.0",
        "0000:00:01.0",
        "",
    ] {
        let error = device(&|fdt| text(fdt, "device", wrong)).unwrap_err();
        assert!(
            error.starts_with("/chosen/coprocs/coproc@0: device: \""),
            "{wrong}: {error}"
        );
    }
    let error = device(&|fdt| cells(fdt, "device", &[0x21])).unwrap_err();
    assert!(error.contains("phandle 0x21, which no node has"), "{error}");
    assert!(device(&|_| ()).unwrap_err().contains("device: missing"));
}

#[test]
fn coprocs_with_other_mistakes_are_refused() {
    let slice = coproc_errors(|fdt| {
        edu(fdt);
        cells(fdt, "slice-us", &[0]);
        cells(fdt, "slice", &[5]);
        cells(fdt, "baton,record", &[1]);
    });
    assert_eq!(
        slice,
        "/chosen/coprocs/coproc@0: slice: unknown property; expected a property of the schema baton,coprocs.yaml; \
         correct its name or drop it\n/chosen/coprocs/coproc@0: slice-us: 0; expected at least 1 microsecond\n\
         /chosen/coprocs/coproc@0: baton,record: 4 bytes; expected no value: the property is there or not\n"
    );
    let recorded = read(&configured(|fdt| {
        coprocs(fdt, |fdt| {
            coproc(fdt, 0, |fdt| {
                edu(fdt);
                fdt.property_null("baton,record").unwrap();
            });
        });
    }));
    assert!(recorded.coprocs[0].record);
    let twice = read(&configured(|fdt| {
        coprocs(fdt, |fdt| {
            coproc(fdt, 0, edu);
            coproc(fdt, 1, edu);
        });
    }));
    assert_eq!(twice.coprocs.len(), 1);
    assert!(
        errors(&twice)[0]
            .contains("pci:0000:00:01.0, which /chosen/coprocs/coproc@0 shares already")
    );
    let compatible = read(&configured(|fdt| {
        node(fdt, "coprocs", |fdt| {
            text(fdt, "compatible", "baton,coprocs-v2")
        });
    }));
    assert!(
        errors(&compatible)[0].starts_with("/chosen/coprocs: compatible: something else; expected")
    );
}
