//! Registers of a device that isn't one's own just then.

use anyhow::Result;
use baton_tests::{LIMIT, Machine, assert_books, number, vcoproc};

use crate::sharing;

/// A domain that touches the registers while another has the device reads its own values; one that rings the doorbell
/// gets its own results.
#[test]
fn a_domain_reads_its_own_registers_while_another_has_the_device() -> Result<()> {
    let options = [
        "mode=stress seconds=18",
        "mode=touch seconds=14",
        "mode=touch doorbell=1 seconds=14 pause=50",
    ];
    let machine = Machine::boot(&sharing("touch", &options), LIMIT)?;
    let done = ["d1", "d2", "d3"].map(|name| machine.done(name));
    let report = machine.query()?;
    let [busy, reader, ringer] = done;
    let (busy, reader, ringer) = (busy?, reader?, ringer?);
    for done in [&busy, &reader, &ringer] {
        assert_eq!(number(done, "wrong"), 0, "{done:?}");
        assert!(number(done, "jobs") > 5, "{done:?}");
    }
    assert!(number(&reader, "reads") > 100, "{reader:?}");
    assert_eq!(number(&reader, "doorbells"), 0);
    assert!(number(&ringer, "doorbells") > 5, "{ringer:?}");
    assert!(number(&ringer, "interrupts") > 0, "{ringer:?}");
    for name in ["d2", "d3"] {
        let vcoproc = vcoproc(&report, name);
        assert!(number(vcoproc, "emulated") > 20, "{name}: {vcoproc:?}");
        assert!(number(vcoproc, "max_exits_per_slice") <= 1, "{vcoproc:?}");
    }
    assert_books(&report);
    machine.finish()
}
