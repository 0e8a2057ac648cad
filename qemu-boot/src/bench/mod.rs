//! `cargo xtask bench`: what exits, interrupts and switches cost, in instructions, the same number on every machine and every day.
//!
//! Seconds on somebody's laptop under an emulator say nothing. With `-icount shift=0` QEMU's virtual time *is* the number of executed
//! instructions, so a guest that reads its virtual counter around many repetitions counts them, its own and the hypervisor's
//! together. The hypervisor is the build that ships; the guest (`tests/guests/bench`) is a domain's kernel. Cache misses and TLB
//! walks aren't seen by this; the numbers say how much is done, not how fast the memory is.
//!
//! Six boots of Baton: one domain alone with the shared device, for most rows; one that has the device for itself; two domains on one CPU, where one reads the
//! registers of the device that the other one has; a domain whose two vCPUs wake each other, on two CPUs and on one; and one that only boots, with
//! more to copy. Then, as the yardstick, four boots of Debian's Xen with the same guest (`xen`).

mod rows;
mod xen;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;

pub use rows::{KNOWN, Known, Run, Unit};

use crate::bare;
use crate::build::Artifacts;
use crate::qemu::Qemu;
use crate::scenario::{CoprocSpec, DomainSpec, Scenario};
use crate::setup::xen::Xen;
use crate::workspace::{Workspace, write_if_changed};

/// The guest's package and program.
const GUEST: &str = "bench-guest";
/// Longest time for one boot.
const LIMIT: Duration = Duration::from_secs(180);
/// The guest's ramdisks, which it doesn't read: next to nothing, and one whose copying shows.
const NONE: &str = "ramdisk";
const PADDING: u64 = 1 << 20;
/// No slice ends within a run.
const SLICE_US: u32 = 1_000_000_000;

/// One row's number for each system measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// On Baton: instructions, or bytes.
    pub baton: f64,
    /// On Xen, if it can run this row and could be had.
    pub xen: Option<f64>,
}

impl Cost {
    /// A row that nobody has but Baton.
    fn baton(baton: f64) -> Self {
        Self { baton, xen: None }
    }
}

/// All rows, by name.
pub type Costs = BTreeMap<String, Cost>;

/// The Xen to measure against; without one there is a warning and its column stays empty.
pub fn peer(workspace: &Workspace) -> Option<Xen> {
    Xen::ensure(workspace)
        .inspect_err(|error| eprintln!("warning: measuring without Xen: {error:#}"))
        .ok()
}

/// Builds the guest, boots it on Baton and on Xen, and gives every row. `name` tells runs at the same time apart.
///
/// # Errors
/// If something can't be built, a boot fails, the guest finds something wrong, or a known row is missing.
pub fn measure(artifacts: &Artifacts, name: &str, peer: Option<&Xen>) -> Result<Costs> {
    let guest = guest(artifacts.workspace())?;
    let mut costs = Costs::new();
    let scenarios = [
        alone(name, &guest, NONE),
        own(name, &guest),
        shared(name, &guest),
        pair(name, &guest, "other", &[0, 1]),
        pair(name, &guest, "pingpong", &[0, 0]),
    ];
    for scenario in scenarios {
        let run = boot(artifacts, &scenario)?;
        costs.extend(
            run.costs()?
                .into_iter()
                .map(|(row, baton)| (row, Cost::baton(baton))),
        );
    }
    without_copying(artifacts, name, &guest, &mut costs)?;
    let image = std::fs::read(&artifacts.hypervisor)
        .with_context(|| artifacts.hypervisor.display().to_string())?;
    // The header of an arm64 Image says how much memory it takes when it runs.
    let ram = image
        .get(16..24)
        .and_then(|bytes| bytes.try_into().ok())
        .map(u64::from_le_bytes)
        .context("the image has no header")?;
    for (row, bytes) in [("image_bytes", image.len() as u64), ("ram_bytes", ram)] {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
        let baton = bytes as f64;
        costs.insert(row.to_owned(), Cost::baton(baton));
    }
    let missing: Vec<&str> = KNOWN
        .iter()
        .map(|known| known.name)
        .filter(|name| !costs.contains_key(*name))
        .collect();
    if !missing.is_empty() {
        bail!("the bench guest said nothing about {}", missing.join(", "));
    }
    if let Some(peer) = peer {
        let theirs = xen::costs(artifacts.workspace(), peer, name, &guest).context("on Xen")?;
        for (row, cost) in &mut costs {
            cost.xen = theirs.get(row).copied();
        }
    }
    Ok(costs)
}

/// The rows as a table for people.
pub fn table(costs: &Costs) -> String {
    let mut text = format!(
        "{:35} {:>12} {:>12} {:>6}\n",
        "row", "Baton", "Xen", "ratio"
    );
    for known in KNOWN {
        let Some(cost) = costs.get(known.name) else {
            continue;
        };
        let number = |number: f64| match known.unit {
            Unit::Instructions => format!("{number:.1}"),
            Unit::Bytes => format!("{number:.0}"),
        };
        let ratio = |xen: f64| format!("{:.2}", cost.baton / xen);
        let limit = known
            .limit
            .map(|limit| format!("  (to reach: {limit})"))
            .unwrap_or_default();
        text.push_str(&format!(
            "{:35} {:>12} {:>12} {:>6}  {}{limit}\n",
            known.name,
            number(cost.baton),
            cost.xen.map(number).unwrap_or_default(),
            cost.xen.map(ratio).unwrap_or_default(),
            known.what
        ));
    }
    text.push_str("\nInstructions of guest and hypervisor together, for each repetition; image_bytes and ram_bytes in bytes.\n");
    text
}

/// The rows as JSON: `{"<row>": {"baton": n, "xen": n}}`, `null` where Xen has no number.
///
/// # Errors
/// None in practice: all numbers are finite.
pub fn json(costs: &Costs) -> Result<String> {
    Ok(serde_json::to_string_pretty(costs)?)
}

/// Takes the copying of the guest's files out of the row `boot`: what a byte costs is told by a second boot with a larger one.
fn without_copying(
    artifacts: &Artifacts,
    name: &str,
    guest: &Path,
    costs: &mut Costs,
) -> Result<()> {
    let padded = guest.with_extension("padded");
    write_if_changed(&padded, &vec![0; PADDING as usize])?;
    let scenario = alone(&format!("{name}-padded"), guest, "padded");
    let second: BTreeMap<_, _> = boot(artifacts, &scenario)?.costs()?.into_iter().collect();
    let slow = *second.get("boot").context("no boot in the second run")?;
    if let Some(boot) = costs.get_mut("boot") {
        let copying = copied_instructions(guest, boot.baton, slow)?;
        boot.baton = (boot.baton - copying).round();
    }
    Ok(())
}

/// Instructions that copying the guest's files took in a boot of `fast`, when one with the larger ramdisk is `slow`.
fn copied_instructions(guest: &Path, fast: f64, slow: f64) -> Result<f64> {
    let size = |path: &Path| -> Result<u64> {
        Ok(std::fs::metadata(path)
            .with_context(|| path.display().to_string())?
            .len())
    };
    let copied = size(guest)? + size(&guest.with_extension(NONE))?;
    let more = PADDING - size(&guest.with_extension(NONE))?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    let copying = (slow - fast) / more as f64 * copied as f64;
    Ok(copying)
}

/// Builds the bare-metal guest; gives its image.
///
/// # Errors
/// If it can't be built.
pub fn guest(workspace: &Workspace) -> Result<PathBuf> {
    let raw = bare::guest(workspace, GUEST)?;
    write_if_changed(&raw.with_extension(NONE), b"none")?;
    Ok(raw)
}

fn domain(guest: &Path, part: &str) -> DomainSpec {
    DomainSpec {
        memory_kib: 64 << 10,
        kernel: Some(guest.to_path_buf()),
        // It wants none; a small one is copied fast.
        ramdisk: Some(guest.with_extension(NONE)),
        ..DomainSpec::linux(0, &format!("bench={part}"))
    }
    .with_coproc(0)
}

fn machine(name: String, domains: Vec<DomainSpec>) -> Scenario {
    let mut scenario = Scenario::new(&name);
    scenario.cpus = 1;
    scenario.memory_mib = 1024;
    scenario.edu_devices = 1;
    scenario.coprocs.push(CoprocSpec {
        slice_us: SLICE_US,
        ..CoprocSpec::edu(1)
    });
    scenario.domains = domains;
    // One instruction is one nanosecond; idle time is skipped.
    scenario.qemu_args = ["-icount", "shift=0,sleep=off"].map(str::to_owned).to_vec();
    scenario
}

fn alone(name: &str, guest: &Path, ramdisk: &str) -> Scenario {
    let domain = DomainSpec {
        ramdisk: Some(guest.with_extension(ramdisk)),
        ..domain(guest, if ramdisk == NONE { "all" } else { "boot" })
    };
    machine(format!("{name}-alone"), vec![domain])
}

/// A domain that has the device for itself.
fn own(name: &str, guest: &Path) -> Scenario {
    let mut domain = domain(guest, "own").with_device("pci:0000:00:01.0");
    domain.coprocs.clear();
    let mut scenario = machine(format!("{name}-own"), vec![domain]);
    scenario.coprocs.clear();
    scenario
}

/// A domain with a vCPU on each of these CPUs.
fn pair(name: &str, guest: &Path, part: &str, affinity: &[u32; 2]) -> Scenario {
    let domain = DomainSpec {
        vcpus: 2,
        affinity: affinity.to_vec(),
        ..domain(guest, part)
    };
    let mut scenario = machine(format!("{name}-{part}"), vec![domain]);
    scenario.cpus = 1 + affinity.iter().copied().max().unwrap_or(0);
    scenario
}

fn shared(name: &str, guest: &Path) -> Scenario {
    let domains = vec![domain(guest, "emulated"), domain(guest, "hold")];
    machine(format!("{name}-shared"), domains)
}

fn boot(artifacts: &Artifacts, scenario: &Scenario) -> Result<Run> {
    let qemu = Qemu::baton(artifacts, scenario, LIMIT)?;
    let mut run = Run::default();
    let ended = |line: &str| run.take(line).transpose();
    let (_, ended) = qemu.wait_map(crate::Mark::START, "the bench guest's end", LIMIT, ended)?;
    ended.with_context(|| format!("all output is in {}", qemu.log().display()))?;
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_one_object_for_each_row() {
        let costs = Costs::from([
            (
                "hvc".to_owned(),
                Cost {
                    xen: Some(181.0),
                    ..Cost::baton(90.5)
                },
            ),
            ("image_bytes".to_owned(), Cost::baton(1234.0)),
        ]);
        let value: serde_json::Value = serde_json::from_str(&json(&costs).unwrap()).unwrap();
        assert_eq!(value["hvc"]["baton"], 90.5);
        assert_eq!(value["hvc"]["xen"], 181.0);
        assert_eq!(value["image_bytes"]["baton"], 1234.0);
        assert!(value["image_bytes"]["xen"].is_null());
        let table = table(&costs);
        assert!(
            table.contains(" 90.5 ") && table.contains(" 0.50 ") && table.contains(" 1234 "),
            "{table}"
        );
    }

    #[test]
    fn no_row_is_named_twice() {
        let names: std::collections::BTreeSet<_> = KNOWN.iter().map(|known| known.name).collect();
        assert_eq!(names.len(), KNOWN.len());
    }
}
