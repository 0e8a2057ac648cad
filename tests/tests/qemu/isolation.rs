//! What one domain leaves in the device, or aims it at, doesn't reach the other.
//!
//! That the reader's checks can fail is shown where they are written: `tools` runs them against a model of a device that
//! keeps another's secret, and against one whose DMA reaches everywhere.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, coproc, number, text, vcoproc};
use qemu_boot::report::Record;

use crate::sharing;

/// Boots a writer with these options, and when its secret is in the device, a reader.
fn secret(name: &str, writer: &str, rounds: u64) -> Result<()> {
    let writer = format!("mode=secret-write secret=sesame {writer}");
    let reader = format!("mode=secret-read secret=sesame rounds={rounds} wait=1");
    let machine = Machine::boot(&sharing(name, &[&writer, &reader]), LIMIT)?;
    machine.wait_domain("d1", "the secret", PATIENCE, |text| {
        (text == "workload: secret written").then_some(())
    })?;
    assert_eq!(
        text(coproc(&machine.query()?), "current"),
        text(vcoproc(&machine.query()?, "d1"), "id"),
        "the secret is in the device"
    );
    machine.release("d2")?;
    let done = machine.done("d2")?;
    assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    let found = machine.wait_domain("d2", "what it found", PATIENCE, |text| {
        text.starts_with("workload: secret found=")
            .then(|| Record::parse(text))
    })?;
    assert_eq!(number(&found, "rounds"), rounds);
    for key in ["found", "nonzero_bytes", "nonzero_registers"] {
        assert_eq!(number(&found, key), 0, "{key}: {found:?}");
    }
    // It did look into the device, not at an emulation.
    let report = machine.query()?;
    assert!(number(&done, "dma_bytes") >= rounds * 4096, "{done:?}");
    assert!(number(vcoproc(&report, "d2"), "charge_ns") > 0);
    assert!(number(coproc(&report), "switches") >= 1);
    assert_books(&report);

    let writer = machine.done("d1")?;
    assert_eq!(number(&writer, "wrong"), 0, "{writer:?}");
    machine.finish()
}

/// The writer lets go for good: its secret must leave the device with it.
#[test]
fn a_secret_left_in_the_device_is_not_found_by_the_next_domain() -> Result<()> {
    secret("secret-left", "", 6)
}

/// The writer keeps using the device: its secret goes in and out with every switch, and is still right for it.
#[test]
fn a_secret_in_use_is_not_found_between_its_owners_slices() -> Result<()> {
    secret("secret-held", "hold=1 seconds=14", 11)
}

/// Where the DMA is aimed: outside the domain's 192 MiB at 0x4000_0000.
const OUTSIDE: [u64; 3] = [
    // The host's memory, and there another domain's. RAM ends at 0x9000_0000 and the modules at about 0x5300_0000; wherever
    // the other domain's 640 MiB begin in between, they hold 0x6800_0000 to 0x7b00_0000.
    0x7000_0000,
    // The interrupt controller, the host's and the domain's.
    0x0800_0000,
    // Nothing at all.
    0x3f_0000_0000,
];

/// DMA out of a domain's memory faults, the faults are its own, and the others don't notice.
#[test]
fn dma_outside_a_domains_memory_faults_and_hurts_nobody_else() -> Result<()> {
    let mut options = vec!["mode=stress jobs=16".to_owned()];
    options.extend(OUTSIDE.map(|at| format!("mode=dma-outside outside={at:#x} jobs=4")));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut scenario = sharing("dma-outside", &options);
    scenario.memory_mib = 1280;
    for (domain, mib) in scenario.domains.iter_mut().zip([640, 192, 192, 192]) {
        domain.memory_kib = mib << 10;
    }
    let machine = Machine::boot(&scenario, LIMIT)?;
    let honest = machine.done("d1")?;
    let guilty = ["d2", "d3", "d4"].map(|name| machine.done(name));
    let report = machine.query()?;

    assert_eq!(number(&honest, "jobs"), 16);
    assert_eq!(number(&honest, "wrong"), 0, "{honest:?}");
    let innocent = vcoproc(&report, "d1");
    assert_eq!(number(innocent, "iommu_faults"), 0, "{innocent:?}");
    assert_eq!(text(innocent, "last_fault_address"), "-");
    for ((name, done), address) in ["d2", "d3", "d4"].iter().zip(guilty).zip(OUTSIDE) {
        let done = done?;
        // Its own jobs go on being right: a fault isn't a punishment.
        assert_eq!(number(&done, "jobs"), 4);
        assert_eq!(number(&done, "wrong"), 0, "{done:?}");
        assert!(number(&done, "attempts") >= 4, "{done:?}");
        assert_eq!(number(&done, "leaked_bytes"), 0, "{done:?}");
        let vcoproc = vcoproc(&report, name);
        assert!(number(vcoproc, "iommu_faults") > 0, "{vcoproc:?}");
        let last = number(vcoproc, "last_fault_address");
        assert!(
            (address..address + 4096).contains(&last),
            "{name} aimed at {address:#x}: {vcoproc:?}"
        );
        machine.wait_baton("the warning", PATIENCE, |text| {
            (text.contains(&format!("{name}: ")) && text.contains("DMA outside its memory"))
                .then_some(())
        })?;
    }
    assert_books(&report);
    machine.finish()
}
