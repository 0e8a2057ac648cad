//! Mistakes in the configuration: told by node and property, and fatal for nobody else.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, number};
use qemu_boot::{CoprocSpec, Edit, Scenario};

use crate::sharing;

/// A mistake: where, and what the error says besides.
struct Mistake {
    node: &'static str,
    property: &'static str,
    found: &'static str,
}

/// Boots a scenario of which only these domains are right.
fn boot(scenario: &Scenario, right: &[&str], mistakes: &[Mistake]) -> Result<()> {
    let machine = Machine::boot(scenario, LIMIT)?;
    let errors = machine.errors();
    for Mistake {
        node,
        property,
        found,
    } in mistakes
    {
        let named = |line: &&String| {
            line.starts_with(&format!("{node}: {property}: ")) && line.contains(found)
        };
        assert!(
            errors.iter().any(|line| named(&line)),
            "no error about {node} {property} with '{found}' in {errors:#?}"
        );
    }
    let domains = machine.domains()?;
    // What was right in itself but could not be had has a place, and nothing in it.
    let (running, gone): (Vec<_>, Vec<_>) =
        domains.iter().partition(|(_, state)| state == "running");
    let running: Vec<_> = running.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(running, right, "{errors:#?}");
    assert!(gone.iter().all(|(_, state)| state == "gone"), "{domains:?}");
    for name in right {
        let done = machine.done(name)?;
        assert_eq!((number(&done, "jobs"), number(&done, "wrong")), (2, 0));
    }
    machine.finish()
}

/// Of thirteen domains eleven have each its own mistake.
#[test]
fn mistakes_in_domains_are_named_and_the_others_start() -> Result<()> {
    let mut scenario = sharing("mistakes-domains", &["jobs=2"; 13]);
    // Its INTx is that of slot 1, which is shared.
    scenario.qemu_args = ["-device", "edu,addr=5"].map(str::to_owned).to_vec();
    let devices = [
        (9, "/virtio_mmio@a000000"),
        (10, "pci:0000:00:05.0"),
        (11, "pci:0000:00:0a.0"),
        (12, "pci:0000:00:01.0"),
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
        ("/chosen/domain@b", "baton,passthrough", "no device answers"),
        (
            "/chosen/domain@c",
            "baton,passthrough",
            "/chosen/coprocs/coproc@0 shares",
        ),
    ];
    // The last one comes after the one that took all memory before it failed: everything was given back.
    boot(&scenario, &["d1", "d13"], &mistakes.map(mistake))
}

/// Coprocs that can't be: their domains aren't created, and the right one is shared as ever.
#[test]
fn mistakes_in_coprocs_are_named_and_the_others_work() -> Result<()> {
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
        ("/chosen/domain@4", "baton,coprocs", ""),
        ("/chosen/domain@5", "baton,coprocs", ""),
    ];
    boot(&scenario, &["d1", "d6"], &mistakes.map(mistake))
}

fn mistake((node, property, found): (&'static str, &'static str, &'static str)) -> Mistake {
    Mistake {
        node,
        property,
        found,
    }
}
