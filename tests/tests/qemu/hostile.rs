//! Domains that try everything: nobody else may notice.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, PATIENCE, assert_books, number, vcoproc};
use qemu_boot::report::Record;
use qemu_boot::{Artifacts, DomainSpec};

use crate::sharing;

/// So many pokes of each, however long they take.
const POKES: u64 = 200;

/// One domain pokes at every address that isn't its own, another at the configuration space in front of the shared device;
/// the third does its jobs on that device, and Baton answers.
#[test]
fn random_pokes_of_one_domain_do_not_hurt_the_others() -> Result<()> {
    let artifacts = Artifacts::get()?;
    let archive = artifacts.initramfs_with("hostile")?;
    let ramdisk = artifacts.save_initramfs("hostile", archive)?;
    let mut scenario = sharing("hostile", &["mode=stress seconds=24", "mode=idle"]);
    scenario.domains.pop();
    for (cpu, options, coproc) in [(1, "", false), (1, "hostile.only=configuration", true)] {
        let bootargs = format!(
            "quiet panic=-1 iomem=relaxed hostile.seconds=20 hostile.pokes={POKES} {options}"
        );
        let mut domain = DomainSpec::linux(cpu, &bootargs);
        domain.memory_kib = 256 << 10;
        domain.ramdisk = Some(ramdisk.clone());
        if coproc {
            domain = domain.with_coproc(0);
        }
        scenario.domains.push(domain);
    }
    let mut machine = Machine::boot(&scenario, LIMIT)?;
    for name in ["d2", "d3"] {
        machine.distrust(name);
        // From here on it may break itself; so far it shouldn't have.
        let halfway = machine.wait_domain(name, "half its pokes", PATIENCE, |text| {
            text.strip_prefix("hostile: halfway").map(Record::parse)
        })?;
        assert!(number(&halfway, "pokes") >= POKES, "{name}: {halfway:?}");
        if name == "d2" {
            // What has no device behind it aborts.
            assert!(number(&halfway, "killed") >= 10, "{name}: {halfway:?}");
        }
    }
    let done = machine.done("d1")?;
    assert!(number(&done, "jobs") >= 10, "{done:?}");
    assert_eq!(number(&done, "wrong"), 0, "{done:?}");
    let report = machine.query()?;
    assert_eq!(number(vcoproc(&report, "d1"), "iommu_faults"), 0);
    assert_books(&report);
    assert_eq!(machine.domains()?.len(), 3);
    machine.finish()
}
