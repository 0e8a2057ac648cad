//! Good trees and bad ones: what is said of each, and what would be made of the rest.

use std::path::PathBuf;
use std::sync::OnceLock;

use proptest::prelude::*;

use super::findings::Fate;
use super::*;
use crate::device_tree::Tree as Editable;
use crate::machine_tree::{Defaults, configure};
use crate::scenario::{Action, CoprocSpec, DomainSpec, Edit, Scenario, SharedMemorySpec};
use crate::workspace::write_if_changed;

/// QEMU's `virt` with two CPUs, 1 GiB, a GICv3, an SMMUv3: `control-plane/src/devicetree/tests.rs` says how it was made.
const GICV3: &[u8] =
    include_bytes!("../../../control-plane/src/devicetree/fixtures/qemu-virt-gicv3.dtb");
/// The same with a GICv2.
const GICV2: &[u8] =
    include_bytes!("../../../control-plane/src/devicetree/fixtures/qemu-virt-gicv2.dtb");

const KERNEL: u64 = 0x5000_0000;

/// Two domains of 128 MiB share an edu; their files have 64 bytes.
fn two() -> Scenario {
    let mut scenario = Scenario::sharing_edu("check", 2, 1);
    scenario.memory_mib = 1024;
    for domain in &mut scenario.domains {
        domain.memory_kib = 128 << 10;
    }
    scenario
}

fn blob(machine: &[u8], scenario: &Scenario) -> Vec<u8> {
    static FILES: OnceLock<Defaults> = OnceLock::new();
    let defaults = FILES.get_or_init(|| {
        let images = Workspace::here().images().unwrap();
        let [kernel, ramdisk] = ["check.kernel", "check.ramdisk"].map(|name| {
            let file = images.join(name);
            write_if_changed(&file, &[0; 64]).unwrap();
            file
        });
        Defaults { kernel, ramdisk }
    });
    let mut tree = Editable::parse(machine).unwrap();
    configure(&mut tree, scenario, defaults).unwrap();
    tree.to_blob().unwrap()
}

fn options() -> Options {
    Options {
        features: Features::default(),
        images: Vec::new(),
        define: None,
        baton: 8 << 20,
    }
}

fn found(scenario: &Scenario) -> Findings {
    check(&blob(GICV3, scenario), &options()).unwrap()
}

fn texts(findings: &Findings) -> Vec<&str> {
    let errors = findings.errors.iter();
    errors.map(|error| error.text.as_str()).collect()
}

fn fates(findings: &Findings) -> Vec<Fate> {
    findings.domains.iter().map(|domain| domain.fate).collect()
}

/// Exactly one mistake, which is told like this.
#[track_caller]
fn one_mistake(scenario: &Scenario, text: &str) -> Findings {
    let findings = found(scenario);
    let [error] = texts(&findings)[..] else {
        panic!("not one mistake: {:#?}", findings.errors)
    };
    assert!(error.contains(text), "{error}");
    assert!(!findings.is_good());
    findings
}

#[test]
fn a_good_tree_is_told_as_it_would_start() {
    let mut scenario = two();
    scenario.coprocs[0].scheduler = "weighted".into();
    scenario.domains[1].vcpus = 2;
    let domain = "/chosen/domain@2";
    let control = Edit {
        node: domain.to_owned(),
        action: Action::Set("baton,control".into(), Vec::new()),
    };
    let scenario = scenario
        .with_edit(Edit::cells(domain, "baton,coproc-weights", &[3]))
        .with_edit(control);
    for machine in [GICV3, GICV2] {
        let findings = check(&blob(machine, &scenario), &options()).unwrap();
        assert!(
            findings.is_good() && findings.warnings.is_empty(),
            "{findings}"
        );
        assert_eq!(fates(&findings), [Fate::Starts; 2]);
        let text = findings.to_string();
        for line in [
            "machine    2 CPUs (psci), 1024 MiB of RAM, GICv",
            "           IOMMU /smmuv3@9050000",
            "pool 0     weighted, CPUs 0, 1",
            "coproc 0   qemu,edu at pci:0000:00:01.0, weighted, slices of 1000.0 ms, may refuse for 10.0 s",
            "domain 2   starts: 2 vCPUs in pool 0, 128 MiB",
            "           kernel of 1 KiB at 0x50000000",
            "           coproc 0 under weighted, weight 3",
            "the kernel at 0x50000000: give it with --image 0x50000000=FILE",
            "/chosen/coprocs/coproc@0: that pci:0000:00:01.0 is there, is 1234:11e8",
            "No mistake: 2 of 2 domains start.",
        ] {
            assert!(text.contains(line), "no {line:?} in\n{text}");
        }
    }
    let memory = found(&scenario).memory;
    let taken = memory.before_domains_kib - memory.left_kib;
    assert!((256 << 10..257 << 10).contains(&taken), "{memory:?}");
}

#[test]
fn the_same_is_there_for_programs() {
    let scenario = two().with_edit(Edit::cells("/chosen/domain@1", "cpus", &[9]));
    let json: serde_json::Value = serde_json::from_str(&found(&scenario).json().unwrap()).unwrap();
    let error = &json["errors"][0];
    assert_eq!(error["node"], "/chosen/domain@1");
    assert_eq!(error["property"], "cpus");
    assert!(error["text"].as_str().unwrap().contains("9; expected"));
    assert_eq!(json["domains"][0]["fate"], "not_created");
    assert_eq!(json["domains"][1]["fate"], "starts");
    assert_eq!(json["domains"][1]["memory_mib"], 128);
}

/// What shows only when the tree has been read: each mistake costs its domain, and nobody else anything.
#[test]
fn what_boot_finds_after_reading_is_found() {
    let coproc = "/chosen/coprocs/coproc@0";
    let domain = "/chosen/domain@1";
    let cases: [(Edit, &str); 7] = [
        (
            Edit::cells(domain, "memory", &[0, 0x400_0000]),
            "/chosen/domain@1: memory: 67108864 KiB; expected at most",
        ),
        (
            Edit::string(domain, "baton,passthrough", "pci:0000:00:05.0"),
            "/chosen/domain@1: baton,passthrough: pci:0000:00:05.0, whose INTID 36 is shared",
        ),
        (
            Edit::string(domain, "baton,passthrough", "pci:0000:01:00.0"),
            "pci:0000:01:00.0, which is not on the first host bridge's own bus",
        ),
        (
            Edit::string(coproc, "device", "/cpus/cpu@1"),
            "/chosen/coprocs/coproc@0: device: /cpus/cpu@1 is a CPU; expected a device that driver \"qemu,edu\"",
        ),
        (
            Edit::string(coproc, "driver", "baton,fw-core"),
            "pci:0000:00:01.0 is a PCI function; expected a device that driver \"baton,fw-core\"",
        ),
        (
            Edit::string(coproc, "device", "/pl061@9030000"),
            "/chosen/coprocs/coproc@0: device: /pl061@9030000 is compatible with \"arm,pl061\"; expected a device that driver \"qemu,edu\"",
        ),
        (
            Edit::remove("/pcie@10000000", "iommu-map"),
            "pci:0000:00:01.0, which no IOMMU confines; expected a device behind an IOMMU",
        ),
    ];
    for (edit, text) in cases {
        let of_coproc = edit.node != domain;
        let mut scenario = two().with_edit(edit);
        // One that doesn't want the coproc.
        scenario.domains[1].coprocs.clear();
        let findings = found(&scenario);
        assert!(texts(&findings)[0].contains(text), "{:#?}", findings.errors);
        assert_eq!(fates(&findings), [Fate::NotCreated, Fate::Starts], "{text}");
        if of_coproc {
            let [_, second] = texts(&findings)[..] else {
                panic!("{:#?}", findings.errors)
            };
            assert!(
                second.starts_with("/chosen/domain@1: baton,coprocs: coproc0, which can't be used"),
                "{second}"
            );
            assert!(findings.coprocs.is_empty());
        }
    }
}

#[test]
fn a_device_of_the_tree_is_shared_if_it_suits_its_driver() {
    let device = "/pl061@9030000";
    let coproc = "/chosen/coprocs/coproc@0";
    let scenario = two()
        .with_edit(Edit::string(device, "compatible", "example,accumulator"))
        .with_edit(Edit::string(coproc, "device", device))
        .with_edit(Edit::string(coproc, "driver", "example,accumulator"));
    let options = Options {
        features: Features::of(&["accumulator".into()], false).unwrap(),
        ..options()
    };
    let ask = |scenario: &Scenario| check(&blob(GICV3, scenario), &options).unwrap();
    // It does no DMA, says its driver, so nothing has to confine it.
    let good = ask(&scenario);
    assert!(good.is_good(), "{good}");
    assert_eq!(good.coprocs[0].device, device);
    let silent = ask(&scenario.with_edit(Edit::remove(device, "interrupts")));
    assert!(
        texts(&silent)[0].contains("/pl061@9030000, which has 0 interrupts; expected 1"),
        "{silent}"
    );
}

/// That a device without an IOMMU does no DMA is nobody's word but the tree's.
#[test]
fn what_a_tree_does_not_say_of_a_device_is_listed() {
    let device = "/pl061@9030000";
    let findings = found(&two().with_edit(Edit::string(
        "/chosen/domain@1",
        "baton,passthrough",
        device,
    )));
    assert!(findings.is_good(), "{findings}");
    let line = "/chosen/domain@1: /pl061@9030000 has no IOMMU, and shows no DMA";
    assert!(
        findings.not_checked.iter().any(|text| text == line),
        "{findings}"
    );
}

#[test]
fn a_firmware_core_is_another_cpu_than_the_one_that_boots() {
    let core = |cpu: &str| {
        let mut scenario = two();
        scenario.coprocs = vec![CoprocSpec {
            driver: "baton,fw-core".into(),
            device: cpu.into(),
            ..CoprocSpec::edu(1)
        }];
        for domain in &mut scenario.domains {
            domain.affinity.clear();
        }
        scenario
    };
    let findings = found(&core("/cpus/cpu@1"));
    assert!(findings.is_good(), "{findings}");
    assert_eq!(findings.pools[0].cpus, [0], "the core runs no vCPU");
    let findings = found(&core("/cpus/cpu@0"));
    assert!(
        texts(&findings)[0].contains("/cpus/cpu@0, which Baton booted on"),
        "{findings}"
    );
    // Bound to the core.
    let mut bound = core("/cpus/cpu@1");
    bound.domains[1].affinity = vec![1];
    let findings = one_mistake(
        &bound,
        "/chosen/domain@2: baton,cpu-affinity: CPU 1, which does not run domains",
    );
    assert_eq!(fates(&findings), [Fate::Starts, Fate::NotCreated]);
}

#[test]
fn domains_that_are_too_large_together_are_found_and_one_that_fails_takes_nothing() {
    let mut scenario = two();
    scenario.domains[0].memory_kib = 600 << 10;
    scenario.domains[1].memory_kib = 500 << 10;
    let findings = one_mistake(&scenario, "/chosen/domain@2: memory: 512000 KiB");
    assert_eq!(fates(&findings), [Fate::Starts, Fate::NotCreated]);
    // The first gets nothing, and leaves all to the second.
    scenario.domains[0].memory_kib = 1 << 20;
    let findings = one_mistake(&scenario, "/chosen/domain@1: memory: 1048576 KiB");
    assert_eq!(fates(&findings), [Fate::NotCreated, Fate::Starts]);
    // Nor does one that is disabled.
    let disabled = Edit::string("/chosen/domain@1", "status", "disabled");
    let findings = found(&scenario.with_edit(disabled));
    assert!(findings.is_good(), "{findings}");
    assert_eq!(fates(&findings), [Fate::Waits, Fate::Starts]);
}

fn pool(scenario: Scenario, scheduler: &str) -> Scenario {
    let node = "/chosen/cpu-pools";
    scenario
        .with_edit(Edit::add_node(node))
        .with_edit(Edit::string(node, "compatible", "baton,cpu-pools"))
        .with_edit(Edit::cells(node, "#address-cells", &[1]))
        .with_edit(Edit::cells(node, "#size-cells", &[0]))
        .with_edit(Edit::add_node("/chosen/cpu-pools/pool@0"))
        .with_edit(Edit::cells("/chosen/cpu-pools/pool@0", "reg", &[0]))
        .with_edit(Edit::cells("/chosen/cpu-pools/pool@0", "cpus", &[0, 1]))
        .with_edit(Edit::string(
            "/chosen/cpu-pools/pool@0",
            "scheduler",
            scheduler,
        ))
}

#[test]
fn a_pool_takes_no_more_vcpus_than_its_algorithm_admits() {
    let mut scenario = two();
    for domain in &mut scenario.domains {
        domain.affinity.clear();
    }
    assert!(found(&pool(scenario.clone(), "null")).is_good());
    scenario.domains[1].vcpus = 2;
    let findings = one_mistake(
        &pool(scenario.clone(), "null"),
        "/chosen/domain@2: cpus: vCPU 1 in pool 0 (null): ",
    );
    assert_eq!(fates(&findings), [Fate::Starts, Fate::NotCreated]);
    // 60 % of a CPU for each of three vCPUs on two CPUs.
    let mut scenario = pool(scenario, "deadline");
    for node in ["/chosen/domain@1", "/chosen/domain@2"] {
        scenario = scenario
            .with_edit(Edit::cells(node, "baton,cpu-budget-us", &[6_000]))
            .with_edit(Edit::cells(node, "baton,cpu-period-us", &[10_000]));
    }
    let findings = one_mistake(
        &scenario,
        "/chosen/domain@2: baton,cpu-budget-us: vCPU 1 in pool 0 (deadline): ",
    );
    assert_eq!(fates(&findings), [Fate::Starts, Fate::NotCreated]);
}

/// Admission control is the algorithm's own, with the driver's declared times: edu declares 10 s of refusal.
#[test]
fn a_coproc_takes_no_more_domains_than_its_algorithm_admits() {
    let mut scenario = two();
    scenario.coprocs[0].scheduler = "null".into();
    let findings = one_mistake(
        &scenario,
        "/chosen/domain@2: baton,coprocs: /chosen/coprocs/coproc@0: ",
    );
    assert_eq!(fates(&findings), [Fate::Starts, Fate::NotCreated]);
    scenario.coprocs[0].scheduler = "reservation".into();
    let ask = |budget, period| {
        let mut scenario = scenario.clone();
        for node in ["/chosen/domain@1", "/chosen/domain@2"] {
            scenario = scenario
                .with_edit(Edit::cells(node, "baton,coproc-budgets-us", &[budget]))
                .with_edit(Edit::cells(node, "baton,coproc-periods-us", &[period]));
        }
        found(&scenario)
    };
    let modest = ask(1_000_000, 100_000_000);
    assert!(modest.is_good(), "{modest}");
    assert!(
        modest.to_string().contains("1000.0 ms in each 100.0 s"),
        "{modest}"
    );
    let greedy = ask(60_000_000, 100_000_000);
    assert_eq!(fates(&greedy), [Fate::Starts, Fate::NotCreated], "{greedy}");
}

#[test]
fn what_is_not_compiled_in_is_named_with_its_feature() {
    let bare = |list: &str| {
        let features = Features::of(&[list.to_owned()], true).unwrap();
        let options = Options {
            features,
            ..options()
        };
        check(&blob(GICV3, &two()), &options).unwrap()
    };
    let errors = bare("qemu-virt,edu,weighted");
    assert!(
        texts(&errors)[0].contains("\"rr\", which isn't compiled in")
            && texts(&errors)[0].contains("feature \"rr\""),
        "{errors}"
    );
    let errors = bare("qemu-virt");
    assert!(
        texts(&errors)[0].contains("feature \"sharing\""),
        "{errors}"
    );
    assert!(bare("qemu-virt,edu,rr").is_good());
}

fn kernel(text_offset: u64, image_size: u64) -> Vec<u8> {
    let mut file = vec![0; 64];
    file[8..16].copy_from_slice(&text_offset.to_le_bytes());
    file[16..24].copy_from_slice(&image_size.to_le_bytes());
    file[56..60].copy_from_slice(b"ARM\x64");
    file
}

#[test]
fn kernels_are_looked_at_if_they_are_given() {
    let with = |bytes: Vec<u8>, address| {
        let options = Options {
            images: vec![Image {
                address,
                file: PathBuf::from("Image"),
                bytes,
            }],
            ..options()
        };
        check(&blob(GICV3, &two()), &options).unwrap()
    };
    let good = with(kernel(0, 0x100_0000), KERNEL);
    assert!(good.is_good() && good.warnings.is_empty(), "{good}");
    assert!(!good.to_string().contains("--image"), "{good}");
    let gzip = with(vec![0x1f, 0x8b, 8, 0], KERNEL);
    assert!(
        texts(&gzip)[0].starts_with(
            "/chosen/domain@1/module@50000000: reg: a file that is not a raw arm64 Image"
        ),
        "{gzip}"
    );
    // Its header says 200 MiB of BSS.
    let large = with(kernel(0, 200 << 20), KERNEL);
    assert!(
        texts(&large)[0].starts_with("/chosen/domain@1: memory: a kernel that needs 20"),
        "{large}"
    );
    assert_eq!(fates(&large), [Fate::NotCreated; 2]);
    let cut = with([kernel(0, 0), vec![0; 100]].concat(), KERNEL);
    assert!(
        texts(&cut)[0].contains("0x40 bytes, but Image has 0xa4"),
        "{cut}"
    );
    let nowhere = with(kernel(0, 0), 0x1234);
    assert!(nowhere.is_good());
    assert!(
        nowhere.warnings[0].text.contains("--image 0x1234=Image"),
        "{nowhere}"
    );
}

#[test]
fn shared_memory_wants_domains_that_are_created() {
    let mut scenario = two();
    scenario.shared_memory = vec![SharedMemorySpec {
        size: 1 << 20,
        domains: vec![0, 1],
    }];
    let findings = found(&scenario);
    assert!(findings.is_good(), "{findings}");
    assert_eq!(findings.shared_memory[0].domains, [1, 2]);
    scenario.domains[1].memory_kib = 1 << 20;
    let findings = found(&scenario);
    let text = texts(&findings)[1];
    assert!(
        text.contains("domains: d2, which was not created"),
        "{findings}"
    );
}

/// Of 32 slots the host bridge has one, the coproc another.
#[test]
fn shared_memory_wants_slots() {
    let mut scenario = two();
    let page = SharedMemorySpec {
        size: 4096,
        domains: vec![0, 1],
    };
    scenario.shared_memory = vec![page; 31];
    let findings = one_mistake(
        &scenario,
        "domains: d1, whose PCI slots are taken; expected a free PCI slot",
    );
    assert_eq!(findings.shared_memory.len(), 30);
    assert_eq!(fates(&findings), [Fate::Starts; 2]);
}

#[test]
fn a_machine_that_cannot_be_used_is_the_only_thing_that_is_said() {
    let findings = one_mistake(
        &two().with_edit(Edit::remove_node("/timer")),
        "no timer; expected a node compatible with \"arm,armv8-timer\"",
    );
    assert!(findings.fatal && findings.domains.is_empty());
    let text = findings.to_string();
    assert!(
        text.ends_with("1 mistake: Baton can't use this machine, nothing starts.\n"),
        "{text}"
    );
}

#[test]
fn a_silent_console_and_cpus_that_stay_off_are_warnings() {
    let scenario = two()
        .with_edit(Edit::remove("/chosen", "stdout-path"))
        .with_edit(Edit::remove_node("/aliases"))
        .with_edit(Edit::remove("/chosen/domain@2", "baton,cpu-affinity"))
        .with_edit(Edit::remove("/cpus/cpu@1", "enable-method"));
    let findings = found(&scenario);
    let warnings: Vec<_> = findings
        .warnings
        .iter()
        .map(|one| one.text.as_str())
        .collect();
    assert!(findings.is_good(), "{findings}");
    assert!(warnings[0].contains("names no UART"), "{findings}");
    assert_eq!(
        warnings[1],
        "CPU 0x1 stays off: the device tree says no way to start it"
    );
    assert_eq!(findings.pools[0].cpus, [0]);
}

#[test]
fn memory_that_the_boot_loader_tells_of_takes_the_place_of_the_trees() {
    let blob = blob(GICV3, &two());
    let banks = [source::bank("0x40000000=192").unwrap()];
    let small = source::with_memory(blob, &banks).unwrap();
    let findings = check(&small, &options()).unwrap();
    // The modules lie at 256 MiB.
    assert!(
        texts(&findings)[0].contains("which isn't in RAM"),
        "{findings}"
    );
    assert_eq!(findings.memory.total_kib, 192 << 10);
    assert!(source::bank("0x40000000").is_err() && source::bank("4=x").is_err());
    assert!(source::with_memory(vec![0; 8], &banks).is_err());
}

/// A domain for every case above is one that Linux has: the default of scenarios.
#[test]
fn many_domains_are_no_more_than_there_are_vmids() {
    let mut scenario = two();
    scenario.coprocs.clear();
    let small = DomainSpec {
        memory_kib: 4096,
        coprocs: vec![],
        ..scenario.domains[0].clone()
    };
    scenario.domains = vec![small; 96];
    one_mistake(
        &scenario,
        "/chosen/domain@60: one domain more; expected at most 95",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Whatever a tree says, something is said about it.
    #[test]
    fn no_tree_ends_the_program(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)
    ) {
        let mut blob = blob(GICV3, &two());
        for (at, byte) in changes {
            let at = at.index(blob.len());
            blob[at] = byte;
        }
        if let Ok(findings) = check(&blob, &options()) {
            prop_assert!(findings.to_string().ends_with(".\n"));
        }
    }
}
