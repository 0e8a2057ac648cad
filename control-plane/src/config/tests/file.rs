//! A domain's configuration from a file: what it may change, what it may not, and every mistake in it.

use super::domains::{configured, coprocs, domain, module, read as boot, text};
use super::pools::{pool, pools};
use super::*;
use crate::config::domains::file::{FILE_LIMIT, Found, Ground, Place, read};
use crate::config::{CoprocConfig, DomainConfig};
use crate::devicetree::Error;
use crate::lifecycle::policy::RestartPolicy;
use alloc::string::String;
use coproc_core::id::{CoprocId, DomainId};
use coproc_core::time::Duration;
use proptest::prelude::*;

/// What there is since boot: coprocs 0 and 3, two pools, domain 1 with two vCPUs, a UART, and modules at 0x8a000000 and 0x8e000000.
struct Machine {
    machine: crate::config::Machine,
    configuration: Configuration,
    modules: Vec<Region>,
}

fn machine_of_boot() -> Machine {
    let blob = configured(|fdt| {
        coprocs(fdt, |fdt| {
            for (number, device) in [(0, 1), (3, 2)] {
                node(fdt, &alloc::format!("coproc@{number}"), |fdt| {
                    cells(fdt, "reg", &[number]);
                    text(fdt, "driver", "qemu,edu");
                    text(fdt, "device", &alloc::format!("pci:0000:00:0{device}.0"));
                    text(fdt, "scheduler", "rr");
                    if number == 3 {
                        text(fdt, "status", "disabled");
                    }
                });
            }
        });
        pools(fdt, |fdt| {
            pool(fdt, 4, &[0], |_| {});
            pool(fdt, 7, &[1], |_| {});
        });
        domain(fdt, "domain@1", false, |fdt| {
            fdt.property_null("vpl011").unwrap();
            module(fdt, "ramdisk", 0x8e00_0000, 0x10_0000);
        });
    });
    let configuration = boot(&blob);
    assert_eq!(
        configuration.errors().collect::<Vec<_>>(),
        [] as [&Error; 0]
    );
    Machine {
        machine: machine(&blob),
        modules: configuration.module_regions().collect(),
        configuration,
    }
}

impl Machine {
    fn domain(&self) -> &DomainConfig {
        self.configuration.domains[0].as_ref().unwrap()
    }

    fn ground(&self) -> Ground<'_> {
        Ground {
            machine: &self.machine,
            coprocs: &self.configuration.coprocs,
            pools: &self.configuration.pools,
            modules: &self.modules,
            place: Some(Place {
                config: self.domain(),
                vcpus: 2,
            }),
        }
    }

    fn read(&self, file: &[u8]) -> Found {
        read(file, DomainId(1), &self.ground())
    }

    fn mistakes(&self, file: &[u8]) -> Vec<String> {
        let found = self.read(file);
        assert_eq!(found.domain.is_some(), found.errors.is_empty());
        found.errors.iter().map(ToString::to_string).collect()
    }
}

/// A file with nothing of the machine in it.
fn file(chosen: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    build(|fdt| node(fdt, "chosen", chosen))
}

/// One with domain 1 as it was at boot, but for this.
fn changed(edit: impl FnOnce(&mut FdtWriter)) -> Vec<u8> {
    file(|fdt| {
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[1]);
        coprocs(fdt, |fdt| {
            for number in [0, 3, 5] {
                node(fdt, &alloc::format!("coproc@{number}"), |fdt| {
                    cells(fdt, "reg", &[number]);
                    cells(fdt, "phandle", &[0x30 + number]);
                });
            }
        });
        pools(fdt, |fdt| pool(fdt, 7, &[], |_| {}));
        domain(fdt, "domain@1", false, |fdt| {
            fdt.property_null("vpl011").unwrap();
            edit(fdt);
        });
    })
}

#[test]
fn a_file_has_what_the_tree_of_boot_may_have() {
    let boot = machine_of_boot();
    let file = file(|fdt| {
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[1]);
        // What else it says of them isn't looked at, nor are other domains.
        coprocs(fdt, |fdt| {
            node(fdt, "coproc@0", |fdt| {
                cells(fdt, "reg", &[3]);
                cells(fdt, "phandle", &[9]);
                text(fdt, "driver", "none");
            });
            node(fdt, "coproc@8", |fdt| cells(fdt, "reg", &[8]));
        });
        domain(fdt, "domain@2", true, |_| {});
        node(fdt, "domain@1", |fdt| {
            text(fdt, "compatible", "xen,domain");
            text(fdt, "status", "disabled");
            cells(fdt, "cpus", &[2]);
            cells(fdt, "memory", &[0, 0x1_0000]);
            fdt.property_null("vpl011").unwrap();
            cells(fdt, "baton,coprocs", &[9]);
            cells(fdt, "baton,coproc-weights", &[5]);
            cells(fdt, "baton,coproc-priorities", &[2]);
            cells(fdt, "baton,coproc-budgets-us", &[100]);
            cells(fdt, "baton,coproc-periods-us", &[1000]);
            cells(fdt, "baton,cpu-weight", &[7]);
            text(fdt, "baton,restart", "always");
            module(fdt, "kernel", 0x8e00_0000, 0x8_0000);
            module(fdt, "ramdisk", 0x8a10_0000, 0x10_0000);
        });
    });
    let found = boot.read(&file);
    assert_eq!((&found.errors, &found.warnings), (&vec![], &vec![]));
    let domain = found.domain.unwrap();
    let [part] = domain.coprocs.as_slice() else {
        panic!("{domain:?}");
    };
    assert_eq!(part.coproc, CoprocId(3));
    let parameters = part.parameters;
    assert_eq!((parameters.weight, parameters.priority), (5, 2));
    assert_eq!(parameters.budget, Some(Duration::from_micros(100)));
    assert_eq!(parameters.period, Some(Duration::from_micros(1000)));
    assert_eq!((domain.cpus, domain.memory), (2, 64 << 20));
    assert_eq!(domain.restart, RestartPolicy::Always);
    assert_eq!((domain.share.weight, domain.pool), (7, 0));
    assert_eq!(domain.kernel.region, region(0x8e00_0000, 0x8_0000));
    assert_eq!(
        domain.ramdisk.unwrap().region,
        region(0x8a10_0000, 0x10_0000)
    );
}

#[test]
fn every_mistake_is_told_and_named() {
    let boot = machine_of_boot();
    assert_eq!(boot.mistakes(&changed(|_| {})), [""; 0]);
    type Edit = fn(&mut FdtWriter);
    let mistakes: [(Edit, &[&str]); 10] = [
        (
            |fdt| cells(fdt, "baton,coprocs", &[0x207]),
            &[
                "/chosen/domain@1: baton,coprocs: phandle 0x207 names /chosen/cpu-pools/pool@7, which is no coproc; expected a phandle of a child of /chosen/coprocs; add the node or drop the phandle",
            ],
        ),
        (
            |fdt| cells(fdt, "baton,coprocs", &[0x30; 32]),
            &["/chosen/domain@1: baton,coprocs: 32 coprocs; expected at most 31"],
        ),
        (
            |fdt| cells(fdt, "baton,coprocs", &[0x35]),
            &[
                "/chosen/domain@1: baton,coprocs: phandle 0x35 names /chosen/coprocs/coproc@5, which has a mistake; expected a coproc without mistakes; correct that node first",
                "/chosen/coprocs/coproc@5: reg: 5; expected the number of a coproc of this machine; `coproc list` lists them",
            ],
        ),
        (
            |fdt| cells(fdt, "baton,coprocs", &[0x99]),
            &[
                "/chosen/domain@1: baton,coprocs: phandle 0x99 names no coproc; expected a phandle of a child of /chosen/coprocs; add the node or drop the phandle",
            ],
        ),
        (
            |fdt| {
                cells(fdt, "baton,coprocs", &[0x30, 0x30]);
                cells(fdt, "baton,coproc-weights", &[1, 0]);
            },
            &[
                "/chosen/domain@1: baton,coproc-weights: weight 0; expected weights of 1 to 10000",
                "/chosen/domain@1: baton,coprocs: /chosen/coprocs/coproc@0 twice; expected each coproc once",
            ],
        ),
        (
            |fdt| cells(fdt, "baton,cpu-pool", &[0x207]),
            &["/chosen/domain@1: baton,cpu-pool: pool 7; expected pool 4, as it was before"],
        ),
        (
            |fdt| module(fdt, "ramdisk", 0x8e0f_0000, 0x2_0000),
            &[
                "/chosen/domain@1/module@8e0f0000: reg: 0x8e0f0000+0x20000, which is not kept since boot; expected a region in which the tree of boot has a domain's module; have the boot loader load it, as a module of some domain",
            ],
        ),
        (
            |fdt| text(fdt, "baton,passthrough", "pci:0000:00:03.0"),
            &["/chosen/domain@1: baton,passthrough: other devices; expected none, as at boot"],
        ),
        (
            |fdt| fdt.property_null("baton,control").unwrap(),
            &["/chosen/domain@1: baton,control: there; expected missing, as it was before"],
        ),
        (
            |fdt| text(fdt, "baton,cpu-wieght", "3"),
            &[
                "/chosen/domain@1: baton,cpu-wieght: unknown property; expected a property of the schema baton,domain.yaml; correct its name or drop it",
            ],
        ),
    ];
    for (edit, told) in mistakes {
        assert_eq!(boot.mistakes(&changed(edit)), told);
    }
    let three = file(|fdt| {
        node(fdt, "domain@1", |fdt| {
            text(fdt, "compatible", "xen,domain");
            cells(fdt, "cpus", &[3]);
            cells(fdt, "memory", &[0, 0x4_0000]);
            cells(fdt, "#address-cells", &[2]);
            module(fdt, "kernel", 0x8a00_0000, 0x200_0000);
        });
    });
    assert_eq!(
        boot.mistakes(&three),
        [
            "/chosen/domain@1: cpus: 3; expected at most 2, as it was before",
            "/chosen/domain@1: vpl011: missing; expected there, as it was before",
        ]
    );
}

#[test]
fn a_file_without_the_domain_or_with_two_of_it_is_told() {
    let boot = machine_of_boot();
    let none =
        "/chosen: no domain 1; expected a child compatible with \"xen,domain\" with its number";
    assert_eq!(boot.mistakes(&file(|_| {})), [none]);
    assert_eq!(boot.mistakes(&build(|_| {})), [none]);
    // One without a number has the lowest that is left, as at boot.
    let named = file(|fdt| {
        domain(fdt, "domain@2", false, |_| {});
        domain(fdt, "domU0", false, |fdt| {
            fdt.property_null("vpl011").unwrap()
        });
    });
    assert_ne!(boot.mistakes(&named), [none]);
    let other = file(|fdt| domain(fdt, "domain@2", false, |_| {}));
    assert_eq!(boot.mistakes(&other), [none]);
    let both = file(|fdt| {
        domain(fdt, "domain@1", false, |_| {});
        domain(fdt, "domain@b", false, |fdt| cells(fdt, "reg", &[1]));
    });
    let [mistake] = &boot.mistakes(&both)[..] else {
        panic!("one mistake");
    };
    assert!(
        mistake.starts_with("/chosen/domain@b: reg: 1, which /chosen/domain@1 has already"),
        "{mistake}"
    );
    let mut cut = file(|fdt| domain(fdt, "domain@1", false, |_| {}));
    cut.truncate(cut.len() - 1);
    let [mistake] = &boot.mistakes(&cut)[..] else {
        panic!("one mistake");
    };
    assert!(
        mistake.starts_with("device tree blob: totalsize: "),
        "{mistake}"
    );
}

/// A domain keeps the devices that it has for itself: it says so, or nothing is done.
#[test]
fn devices_of_its_own_stay() {
    let mut boot = machine_of_boot();
    let function = PciFunction::parse("0000:00:03.0").unwrap();
    let own = Passed::Pci(function, StreamId(24));
    let config = boot.configuration.domains[0].as_mut().unwrap();
    config.passthrough = vec![own.clone()];
    let same = changed(|fdt| text(fdt, "baton,passthrough", "pci:0000:00:03.0"));
    assert_eq!(boot.read(&same).domain.unwrap().passthrough, [own]);
    assert_eq!(
        boot.mistakes(&changed(|_| {})),
        ["/chosen/domain@1: baton,passthrough: missing; expected those of boot: pci:0000:00:03.0"]
    );
    let (three, four) = ("pci:0000:00:03.0", "pci:0000:00:04.0");
    let kept = boot.configuration.domains[0].as_mut().unwrap();
    let function = PciFunction::parse("0000:00:04.0").unwrap();
    kept.passthrough.push(Passed::Pci(function, StreamId(32)));
    for names in [vec![three], vec![four, three], vec![three, four, three]] {
        let names: Vec<String> = names.into_iter().map(Into::into).collect();
        let other = changed(|fdt| {
            fdt.property_string_list("baton,passthrough", names)
                .unwrap();
        });
        assert_eq!(
            boot.mistakes(&other),
            [
                "/chosen/domain@1: baton,passthrough: other devices; expected those of boot: pci:0000:00:03.0, pci:0000:00:04.0"
            ]
        );
    }
}

/// A domain that has no place yet may be as it likes, but for devices of its own.
#[test]
fn a_new_domain_begins_with_its_file() {
    let boot = machine_of_boot();
    let new = file(|fdt| {
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[1]);
        pools(fdt, |fdt| pool(fdt, 7, &[], |_| {}));
        domain(fdt, "domain@9", false, |fdt| {
            fdt.property_null("baton,control").unwrap();
            cells(fdt, "baton,cpu-pool", &[0x207]);
        });
    });
    let ground = Ground {
        place: None,
        ..boot.ground()
    };
    let found = read(&new, DomainId(9), &ground);
    assert_eq!(found.errors, []);
    let domain = found.domain.unwrap();
    assert_eq!((domain.id, domain.pool), (DomainId(9), 1));
    assert!(domain.control && !domain.vpl011);
}

proptest! {
    /// Whatever comes, there is an answer, and no domain out of a file with a mistake; and whatever comes out refers to what there is.
    #[test]
    fn any_file_is_answered(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        words in prop::collection::vec((any::<prop::sample::Index>(), 0u32..64), 0..3),
        good in any::<bool>(),
    ) {
        let boot = machine_of_boot();
        let mut file = if good {
            changed(|fdt| {
                cells(fdt, "baton,coprocs", &[0x30, 0x33]);
                module(fdt, "ramdisk", 0x8e00_0000, 0x10_0000);
            })
        } else {
            bytes
        };
        prop_assert!(file.len() <= FILE_LIMIT);
        if !file.is_empty() {
            for (at, value) in changes {
                *at.get_mut::<u8>(&mut file) = value;
            }
            for (at, value) in words {
                let at = at.index(file.len()) & !3;
                if let Some(word) = file.get_mut(at..at + 4) {
                    word.copy_from_slice(&value.to_be_bytes());
                }
            }
        }
        let found = boot.read(&file);
        prop_assert_eq!(found.domain.is_some(), found.errors.is_empty());
        if let Some(domain) = found.domain {
            let mut modules = domain.ramdisk.iter().chain([&domain.kernel]);
            prop_assert!(modules.all(|module| boot.modules.iter().any(|kept| kept.contains(&module.region))));
            let known = |id| boot.configuration.coprocs.iter().any(|coproc: &CoprocConfig| coproc.id == id);
            prop_assert!(domain.coprocs.iter().all(|part| known(part.coproc)));
            prop_assert!(domain.cpus <= 2 && domain.pool == 0 && domain.passthrough.is_empty());
        }
    }
}
