//! Mistakes in the configuration: told by node and property, and fatal for nobody else; and told by `cargo xtask check` as they are at boot.

use anyhow::{Result, anyhow};
use baton_tests::{LIMIT, Machine, number};
use qemu_boot::check::{self, Features, Findings, Image};
use qemu_boot::{Artifacts, CoprocSpec, Edit, Scenario, qemu};

use crate::sharing;

/// A mistake: where, and what the error says besides.
#[derive(Clone, Copy)]
struct Mistake {
    node: &'static str,
    property: &'static str,
    found: &'static str,
    /// Only the hardware tells, or it follows from what the hardware tells.
    hardware: bool,
}

impl Mistake {
    fn is(&self, line: &str) -> bool {
        line.starts_with(&format!("{}: {}: ", self.node, self.property))
            && line.contains(self.found)
    }
}

/// A machine with mistakes.
struct Case {
    scenario: Scenario,
    /// The domains that are right.
    right: &'static [&'static str],
    mistakes: Vec<Mistake>,
}

/// What the checker says, with the files that boot would find.
fn checked(scenario: &Scenario) -> Result<Findings> {
    let artifacts = Artifacts::get()?;
    let mut scenario = scenario.clone();
    scenario.name += "-checked";
    let (tree, modules) = qemu::baton_tree(artifacts, &scenario)?;
    let images = modules
        .iter()
        .map(|module| Image::read(&format!("{:#x}={}", module.address, module.file.display())));
    let options = check::Options {
        define: None,
        features: Features::default(),
        images: images.collect::<Result<_>>()?,
        baton: check::size_of_baton(artifacts.workspace()),
    };
    check::check(&tree.to_blob()?, &options).map_err(|error| anyhow!("{error}"))
}

/// A line without how much memory is free: that depends on tables, too, which the checker only estimates.
fn without_amount(line: &str) -> &str {
    match line.split_once("; expected at most ") {
        Some((line, rest)) if rest.contains("which is free") => line,
        _ => line,
    }
}

impl Case {
    /// Boots: only the right domains start, each mistake is told; and the checker says the same, word for word.
    fn boot(&self) -> Result<()> {
        let machine = Machine::boot(&self.scenario, LIMIT)?;
        let errors = machine.errors();
        for mistake in &self.mistakes {
            assert!(
                errors.iter().any(|line| mistake.is(line)),
                "no error about {} {} with '{}' in {errors:#?}",
                mistake.node,
                mistake.property,
                mistake.found
            );
        }
        let checked = checked(&self.scenario)?;
        let hardware = |line: &str| {
            let mut mistakes = self.mistakes.iter();
            mistakes.any(|mistake| mistake.hardware && mistake.is(line))
        };
        let mut told: Vec<_> = errors.iter().map(String::as_str).collect();
        told.retain(|line| !line.ends_with(" is not created") && !hardware(line));
        let found = checked.errors.iter().map(|error| error.text.as_str());
        assert_eq!(
            told.into_iter().map(without_amount).collect::<Vec<_>>(),
            found.map(without_amount).collect::<Vec<_>>()
        );

        let domains = machine.domains()?;
        // What was right in itself but could not be had has a place, and nothing in it.
        let (running, gone): (Vec<_>, Vec<_>) =
            domains.iter().partition(|(_, state)| state == "running");
        let running: Vec<_> = running.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(running, self.right, "{errors:#?}");
        assert!(gone.iter().all(|(_, state)| state == "gone"), "{domains:?}");
        for name in self.right {
            let done = machine.done(name)?;
            assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (2, 0));
        }
        machine.finish()
    }
}

#[test]
fn mistakes_in_domains_are_named_and_the_others_start() -> Result<()> {
    mistakes_in_domains().boot()
}

#[test]
fn mistakes_in_coprocs_are_named_and_the_others_work() -> Result<()> {
    mistakes_in_coprocs().boot()
}

/// Without a boot: each mistake that isn't the hardware's, with the texts that a boot is tested for, and what the hardware has to answer is listed.
#[test]
fn the_checker_names_the_mistakes_of_a_boot_without_one() -> Result<()> {
    for case in [mistakes_in_domains(), mistakes_in_coprocs()] {
        let findings = checked(&case.scenario)?;
        for mistake in &case.mistakes {
            let mut errors = findings.errors.iter();
            let told = errors.any(|error| mistake.is(&error.text));
            assert_eq!(told, !mistake.hardware, "{} in\n{findings}", mistake.node);
            let unchecked = findings.not_checked.join("\n");
            if mistake.hardware && mistake.found.starts_with("pci:") {
                assert!(unchecked.contains(mistake.found), "{unchecked}");
            }
        }
        assert!(!findings.is_good());
        for name in case.right {
            let mut domains = findings.domains_that(check::findings::Fate::Starts);
            let right =
                domains.any(|domain| domain.id.map(|id| format!("d{id}")).as_deref() == Some(name));
            assert!(right, "{name} in\n{findings}");
        }
    }
    Ok(())
}

/// What is said of a virtio function that knows no IOMMU.
const PAST_IOMMU: &str = "passes the IOMMU by";

/// Of fourteen domains twelve have each its own mistake.
fn mistakes_in_domains() -> Case {
    let mut scenario = sharing("mistakes-domains", &["jobs=2"; 14]);
    // The edu's INTx is that of slot 1, which is shared; the other one's DMA reaches what it likes.
    let functions = ["edu,addr=5", "virtio-rng-pci,addr=3"];
    let arguments = functions.iter().flat_map(|function| ["-device", function]);
    scenario.qemu_args = arguments.map(str::to_owned).collect();
    let devices = [
        (9, "/virtio_mmio@a000000"),
        (10, "pci:0000:00:05.0"),
        (11, "pci:0000:00:0a.0"),
        (12, "pci:0000:00:01.0"),
        (14, "pci:0000:00:03.0"),
    ];
    for (number, device) in devices {
        let node = format!("/chosen/domain@{number:x}");
        scenario = scenario.with_edit(Edit::string(&node, "baton,passthrough", device));
    }
    let scenario = scenario
        .with_edit(Edit::cells("/chosen/domain@2", "baton,coprocs", &[0xdead]))
        .with_edit(Edit::cells("/chosen/domain@3", "memory", &[0, 0x40001]))
        .with_edit(Edit::remove_node("/chosen/domain@4/module@50000000"))
        .with_edit(Edit::cells(
            "/chosen/domain@5",
            "baton,coproc-wieghts",
            &[2],
        ))
        .with_edit(Edit::cells("/chosen/domain@6", "reg", &[1]))
        // 64 GiB: well-formed, but more than the machine has.
        .with_edit(Edit::cells("/chosen/domain@7", "memory", &[0, 0x400_0000]))
        .with_edit(Edit::cells("/chosen/domain@8", "baton,cpu-affinity", &[7]));
    let mistakes = [
        ("/chosen/domain@2", "baton,coprocs", "0xdead"),
        ("/chosen/domain@3", "memory", "262145 KiB"),
        ("/chosen/domain@4", "compatible", "no kernel module"),
        (
            "/chosen/domain@5",
            "baton,coproc-wieghts",
            "unknown property",
        ),
        ("/chosen/domain@6", "reg", "/chosen/domain@1 has already"),
        ("/chosen/domain@7", "memory", "67108864 KiB"),
        ("/chosen/domain@8", "baton,cpu-affinity", "7"),
        (
            "/chosen/domain@9",
            "baton,passthrough",
            "share a page with /virtio_mmio@a000200",
        ),
        (
            "/chosen/domain@a",
            "baton,passthrough",
            "INTID 36 is shared",
        ),
        ("/chosen/domain@b", "baton,passthrough", "pci:0000:00:0a.0"),
        (
            "/chosen/domain@c",
            "baton,passthrough",
            "/chosen/coprocs/coproc@0 shares",
        ),
        ("/chosen/domain@e", "baton,passthrough", PAST_IOMMU),
    ];
    // d13 comes after the one that took all memory before it failed: everything was given back.
    Case {
        scenario,
        right: &["d1", "d13"],
        mistakes: mistakes.map(mistake).to_vec(),
    }
}

/// Coprocs that can't be: their domains aren't created, and the right one is shared as ever.
fn mistakes_in_coprocs() -> Case {
    let mut scenario = sharing("mistakes-coprocs", &["jobs=2"; 6]);
    scenario.edu_devices = 4;
    // Slot 1 is right; 2 and 3 have edus, 9 has nothing, and 0 is the host bridge.
    scenario
        .coprocs
        .extend([2, 3, 9, 0, 4].map(CoprocSpec::edu));
    for (domain, coproc) in scenario.domains.iter_mut().zip([0, 1, 2, 3, 4, 0]) {
        domain.coprocs = vec![coproc];
    }
    scenario = scenario
        .with_edit(Edit::string(
            "/chosen/coprocs/coproc@1",
            "scheduler",
            "lottery",
        ))
        .with_edit(Edit::string(
            "/chosen/coprocs/coproc@2",
            "driver",
            "qemu,edo",
        ))
        .with_edit(Edit::cells("/chosen/coprocs/coproc@5", "slice-us", &[0]));
    let mistakes = [
        ("/chosen/coprocs/coproc@1", "scheduler", "lottery"),
        ("/chosen/coprocs/coproc@2", "driver", "qemu,edo"),
        ("/chosen/coprocs/coproc@3", "device", "pci:0000:00:09.0"),
        ("/chosen/coprocs/coproc@4", "device", "pci:0000:00:00.0"),
        ("/chosen/coprocs/coproc@5", "slice-us", "0"),
        ("/chosen/domain@2", "baton,coprocs", "coproc@1"),
        ("/chosen/domain@3", "baton,coprocs", "coproc@2"),
        ("/chosen/domain@4", "baton,coprocs", "coproc3"),
        ("/chosen/domain@5", "baton,coprocs", "coproc4"),
    ];
    Case {
        scenario,
        right: &["d1", "d6"],
        mistakes: mistakes.map(mistake).to_vec(),
    }
}

fn mistake((node, property, found): (&'static str, &'static str, &'static str)) -> Mistake {
    /// Devices that aren't there, or are others, and the domains that can't have them.
    const HARDWARE: [&str; 6] = [
        PAST_IOMMU,
        "pci:0000:00:0a.0",
        "pci:0000:00:09.0",
        "pci:0000:00:00.0",
        "coproc3",
        "coproc4",
    ];
    Mistake {
        node,
        property,
        found,
        hardware: HARDWARE.contains(&found),
    }
}
