//! Domains as tools for Xen write them: in the shape of ImageBuilder's `uboot-script-gen`, carried out by U-Boot's `fdt` command.

use super::domains::{configured, domain, read, text};
use super::*;
use crate::config::DomainConfig;
use alloc::format;
use alloc::string::String;
use coproc_core::id::DomainId;
use proptest::prelude::*;

/// A module, its address and size of two cells each; its name has no `@`.
fn module(fdt: &mut FdtWriter, kind: &str, address: u32, size: u32, bootargs: Option<&str>) {
    node(fdt, &format!("module{address:#x}"), |fdt| {
        if let Some(bootargs) = bootargs {
            text(fdt, "bootargs", bootargs);
        }
        cells(fdt, "reg", &[0, address, 0, size]);
        let compatible = vec![format!("multiboot,{kind}"), "multiboot,module".into()];
        fdt.property_string_list("compatible", compatible).unwrap();
    });
}

/// `domU<number>`; `more` comes first, as whatever U-Boot adds later does.
fn dom_u(fdt: &mut FdtWriter, number: u32, more: impl FnOnce(&mut FdtWriter)) {
    node(fdt, &format!("domU{number}"), |fdt| {
        cells(fdt, "vpl011", &[1]);
        cells(fdt, "cpus", &[1]);
        cells(fdt, "memory", &[0, 0x8_0000]);
        cells(fdt, "#size-cells", &[2]);
        cells(fdt, "#address-cells", &[2]);
        text(fdt, "compatible", "xen,domain");
        more(fdt);
        module(fdt, "ramdisk", 0x8e00_0000, 0x10_0000, None);
        let bootargs = Some("console=ttyAMA0");
        module(fdt, "kernel", 0x8a00_0000, 0x200_0000, bootargs);
    });
}

fn started(configuration: &Configuration) -> Vec<&DomainConfig> {
    let domains = configuration.domains.iter();
    domains.map(|domain| domain.as_ref().unwrap()).collect()
}

fn told(errors: &[crate::devicetree::Error]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn image_builder_s_domains_start_as_they_are() {
    let configuration = read(&configured(|fdt| {
        text(fdt, "xen,dom0-bootargs", "console=hvc0");
        text(fdt, "xen,xen-bootargs", "console=dtuart sched=null");
        cells(fdt, "#size-cells", &[2]);
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "kaslr-seed", &[1, 2]);
        dom_u(fdt, 1, |fdt| text(fdt, "xen,enhanced", "enabled"));
        dom_u(fdt, 0, |_| ());
        node(fdt, "dom0", |fdt| {
            cells(fdt, "reg", &[0, 0x9000_0000, 0, 0x10_0000]);
            let compatible = ["xen,linux-zimage", "xen,multiboot-module"];
            let compatible = compatible.map(String::from).to_vec();
            fdt.property_string_list("compatible", compatible).unwrap();
        });
    }));
    assert_eq!(configuration.errors().count(), 0, "{configuration:?}");
    assert_eq!(
        told(&configuration.warnings),
        [
            "/chosen/dom0: compatible: a module of no domain; expected modules in domains: there is no dom0",
            "/chosen/domU1: xen,enhanced: unknown property; expected a property that Baton acts on; \
             correct its name or drop it",
        ]
    );
    let domains = started(&configuration);
    let ids: Vec<_> = domains.iter().map(|it| (it.path.as_str(), it.id)).collect();
    let expected = [("/chosen/domU1", 2), ("/chosen/domU0", 1)];
    assert_eq!(ids, expected.map(|(path, id)| (path, DomainId(id))));
    for domain in domains {
        assert_eq!((domain.cpus, domain.memory), (1, 512 << 20));
        assert!(domain.vpl011 && !domain.firmware && domain.enabled);
        assert_eq!(domain.kernel.region, region(0x8a00_0000, 0x200_0000));
        let ramdisk = domain.ramdisk.as_ref().unwrap();
        assert_eq!(ramdisk.region, region(0x8e00_0000, 0x10_0000));
        assert_eq!(domain.bootargs, "console=ttyAMA0");
    }
}

/// A device tree with devices for the domain means something else to Xen than anything does to Baton: it isn't started without them.
#[test]
fn devices_in_xen_s_way_are_a_mistake() {
    let configuration = read(&configured(|fdt| {
        dom_u(fdt, 0, |fdt| {
            module(fdt, "device-tree", 0x9000_0000, 0x1000, None);
        });
    }));
    let errors: Vec<_> = configuration.errors().map(ToString::to_string).collect();
    assert_eq!(
        errors,
        [
            "/chosen/domU0/module0x90000000: compatible: \"multiboot,device-tree\", which is for Xen alone; expected \
             devices in the domain's baton,passthrough"
        ]
    );
}

/// Only what ImageBuilder writes is taken for a flag.
#[test]
fn other_values_of_vpl011_are_mistakes() {
    for value in [&[0][..], &[2], &[0, 1]] {
        let configuration = read(&configured(|fdt| {
            domain(fdt, "domU0", false, |fdt| cells(fdt, "vpl011", value));
        }));
        let error = configuration.errors().next().unwrap().to_string();
        assert!(error.starts_with("/chosen/domU0: vpl011: "), "{error}");
    }
}

/// Who asks for a number has it, also if it stands last; the others have the lowest ones left, in the order of their names.
#[test]
fn numbers_that_nobody_asks_for_go_by_name() {
    let names = ["web", "domU10", "domU9", "domain@2", "domU"];
    let configuration = read(&configured(|fdt| {
        for name in names {
            domain(fdt, name, false, |_| ());
        }
        domain(fdt, "last", false, |fdt| cells(fdt, "reg", &[4]));
    }));
    let ids: Vec<_> = started(&configuration).iter().map(|it| it.id.0).collect();
    assert_eq!(ids, [6, 5, 3, 2, 1, 4]);
}

/// Names of nodes in two orders, and which of them ask for a number.
fn nodes() -> impl Strategy<Value = (Vec<String>, Vec<String>)> {
    let silent = proptest::collection::btree_set("[a-z]{1,3}[0-9]{0,2}", 0..8);
    let asking = proptest::collection::btree_set("domain@[1-9a-c]", 0..5);
    (silent, asking).prop_flat_map(|(silent, asking)| {
        let nodes: Vec<String> = silent.into_iter().chain(asking).collect();
        (Just(nodes.clone()), Just(nodes).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the order of the nodes, each domain has the same number, no two the same one, and none is left out without need.
    #[test]
    fn numbers_do_not_depend_on_the_order_of_the_tree((nodes, shuffled) in nodes()) {
        let ids = |nodes: &[String]| {
            let configuration = read(&configured(|fdt| {
                for name in nodes {
                    domain(fdt, name, false, |_| ());
                }
            }));
            let domains = started(&configuration);
            let mut ids: Vec<_> = domains.iter().map(|it| (it.id.0, it.path.clone())).collect();
            ids.sort();
            ids
        };
        let found = ids(&nodes);
        prop_assert_eq!(&found, &ids(&shuffled));
        for (at, (id, path)) in found.iter().enumerate() {
            match path.split_once('@') {
                Some((_, unit)) => prop_assert_eq!(*id, u16::from_str_radix(unit, 16).unwrap()),
                None => prop_assert_eq!(usize::from(*id), at + 1, "{:?}", found),
            }
            prop_assert!(at == 0 || found[at - 1].0 < *id, "{:?}", found);
        }
    }
}
