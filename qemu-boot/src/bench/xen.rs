//! The same guest on Debian's Xen: the yardstick, taken on the same emulated machine in the same command.
//!
//! Xen boots the guest by itself, without a dom0 (docs/features/dom0less.pandoc), as an ordinary domain with a vpl011. For the
//! row `spi_irq` it gets the `edu` function passed through: bus 0's configuration space and the window where the guest puts the BAR, under a node of the
//! host's tree that carries the interrupt. Xen needs no IOMMU for that, since nothing here does DMA.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::rows::Run;
use super::{LIMIT, NONE, copied_instructions, domain, machine};
use crate::device_tree::{Node, Tree};
use crate::machine_tree::{self, Defaults, Module};
use crate::qemu::Qemu;
use crate::scenario::{DomainSpec, Scenario};
use crate::setup::xen::Xen;
use crate::workspace::{Workspace, write_if_changed};

/// Xen's command line: its console, whose input stays Xen's own. All else is as Xen has it by itself; Debian's has no `null`
/// scheduler, so that is credit2.
const COMMAND_LINE: &str = "console=dtuart dtuart=/pl011@9000000 conswitch=ax sched=credit2";
/// GUEST_PHANDLE_GIC (Xen, public/device_tree_defs.h).
const GIC: u32 = 65000;
/// Where the guest puts edu's BAR, and its size in bytes.
const BAR: [u32; 2] = [0x1000_0000, 0x10_0000];
/// INTA of slot 1, where `edu` is: SPI 4, level-sensitive.
const INTERRUPT: [u32; 3] = [0, 4, 4];
/// What Xen says about free memory at the key `m`.
const FREE: &str = "Dom heap: ";

/// Instructions of every row that Xen can run, and its sizes in bytes.
///
/// # Errors
/// If Xen doesn't boot or the guest finds something wrong.
pub fn costs(
    workspace: &Workspace,
    xen: &Xen,
    name: &str,
    guest: &Path,
) -> Result<BTreeMap<String, f64>> {
    let one = |part: &str, ramdisk: &str| DomainSpec {
        ramdisk: Some(guest.with_extension(ramdisk)),
        ..domain(guest, part)
    };
    let two = |part: &str| DomainSpec {
        vcpus: 2,
        ..domain(guest, part)
    };
    let boot = |part: &str, cpus: u32, domain| {
        let mut scenario = machine(format!("{name}-xen-{part}"), vec![domain]);
        scenario.cpus = cpus;
        boot(workspace, xen, &scenario)
    };
    let (mut costs, free) = boot("peer", 1, one("peer", NONE))?;
    let (padded, _) = boot("padded", 1, one("boot", "padded"))?;
    for (part, cpus) in [("other", 2), ("pingpong", 1)] {
        costs.extend(boot(part, cpus, two(part))?.0);
    }
    // These mean something only in comparison with the loops of this guest.
    let begun = |costs: &BTreeMap<String, f64>| costs.get("boot").copied().context("no boot");
    let (fast, slow) = (begun(&costs)?, begun(&padded)?);
    let copying = copied_instructions(guest, fast, slow)?;
    costs.insert("boot".to_owned(), (fast - copying).round());
    let image = std::fs::metadata(&xen.image).context("Xen's image")?.len();
    let scenario = machine(String::new(), vec![domain(guest, "")]);
    let domains: u64 = scenario
        .domains
        .iter()
        .map(|domain| domain.memory_kib)
        .sum();
    let ram = ((u64::from(scenario.memory_mib) << 10) - domains - free) << 10;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 bytes")]
    costs.extend([
        ("image_bytes".to_owned(), image as f64),
        ("ram_bytes".to_owned(), ram as f64),
    ]);
    Ok(costs)
}

/// Boots a scenario; gives the guest's rows, and the KiB that Xen has free at the end.
fn boot(
    workspace: &Workspace,
    xen: &Xen,
    scenario: &Scenario,
) -> Result<(BTreeMap<String, f64>, u64)> {
    let partial = workspace.images()?.join("bench-xen-edu.dtb");
    write_if_changed(&partial, &passthrough().to_blob()?)?;
    let qemu = Qemu::xen(
        workspace,
        &xen.image,
        scenario,
        |tree| configure(tree, scenario, &partial),
        LIMIT,
    )?;
    let output = || format!("all output is in {}", qemu.log().display());
    let mut run = Run::default();
    let mut ended = |line: &str| {
        if line.contains("Panic on CPU") {
            return Some(Err(anyhow::anyhow!("{line}")));
        }
        run.take(line).transpose()
    };
    let (mark, ended) = qemu
        .wait_map(
            crate::Mark::START,
            "the bench guest's end",
            LIMIT,
            &mut ended,
        )
        .with_context(output)?;
    ended.with_context(output)?;
    qemu.send("m")?;
    let seconds = Duration::from_secs(30);
    let line = qemu
        .wait_for_after(mark, FREE, seconds)
        .with_context(output)?;
    Ok((run.costs()?.into_iter().collect(), free_kib(&line)?))
}

/// Reads `(XEN)     Dom heap: 123456kB free`.
fn free_kib(line: &str) -> Result<u64> {
    let number = line
        .split_once(FREE)
        .and_then(|(_, rest)| rest.split_once("kB free")?.0.trim().parse().ok());
    match number {
        Some(kib) => Ok(kib),
        None => bail!("'{line}' doesn't tell Xen's free memory"),
    }
}

/// Turns what Baton would be told into what Xen has to be told.
fn configure(tree: &mut Tree, scenario: &Scenario, partial: &Path) -> Result<Vec<Module>> {
    let nothing = Defaults {
        kernel: "/nonexistent".into(),
        ramdisk: "/nonexistent".into(),
    };
    let plain = Scenario {
        coprocs: Vec::new(),
        domains: scenario
            .domains
            .iter()
            .map(|domain| DomainSpec {
                coprocs: Vec::new(),
                affinity: Vec::new(),
                ..domain.clone()
            })
            .collect(),
        ..scenario.clone()
    };
    let mut modules = machine_tree::configure(tree, &plain, &nothing)?;
    let last = modules.last().context("the scenario has no files")?;
    let added = Module {
        file: partial.to_path_buf(),
        address: (last.address + last.size).next_multiple_of(2 << 20),
        size: std::fs::metadata(partial).context("edu's tree")?.len(),
    };
    let chosen = tree.root.child_mut("chosen").context("no /chosen")?;
    chosen.set_strings("xen,xen-bootargs", &[COMMAND_LINE]);
    for domain in &mut chosen.children {
        // Xen looks for the command line by a name without unit address.
        domain.name = "domU1".to_owned();
        let module = machine_tree::module_node(&added, "multiboot,device-tree");
        domain.children.push(module);
    }
    modules.push(added);
    tree.root.children.push(edu());
    Ok(modules)
}

/// `edu` as the host's tree tells Xen of it.
fn edu() -> Node {
    let mut edu = Node::new("edu@10000000");
    edu.set_strings("compatible", &["qemu,edu"])
        .set_cells("reg", &[0, BAR[0], 0, BAR[1]])
        .set_cells("interrupts", &INTERRUPT)
        .set("xen,passthrough", []);
    edu
}

/// The partial tree with what the domain gets (Xen, docs/misc/arm/passthrough.txt).
fn passthrough() -> Tree {
    let mut edu = edu();
    edu.remove("xen,passthrough");
    edu.set_cells("interrupt-parent", &[GIC])
        .set_strings("xen,path", &["/edu@10000000"])
        .set(
            "xen,reg",
            // Physical address, size, address in the domain: the BAR, and bus 0's configuration space.
            [
                [0, BAR[0], 0, BAR[1], 0, BAR[0]],
                [0x40, 0x1000_0000, 0, 0x10_0000, 0x40, 0x1000_0000],
            ]
            .concat()
            .into_iter()
            .flat_map(u32::to_be_bytes)
            .collect::<Vec<u8>>(),
        )
        .set("xen,force-assign-without-iommu", []);
    let cells = |node: &mut Node| {
        node.set_cells("#address-cells", &[2])
            .set_cells("#size-cells", &[2]);
    };
    let mut bus = Node::new("passthrough");
    cells(&mut bus);
    bus.set_strings("compatible", &["simple-bus"])
        .set("ranges", []);
    bus.children.push(edu);
    let mut tree = Tree::default();
    cells(&mut tree.root);
    tree.root.children.push(bus);
    tree
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_memory_is_read() {
        let line = "(XEN)     Dom heap: 901236kB free";
        assert_eq!(free_kib(line).unwrap(), 901_236);
        assert!(free_kib("(XEN)     Dom heap: ?kB free").is_err());
    }

    #[test]
    fn xen_is_told_of_its_command_line_and_of_the_function_to_pass_through() {
        let dir = std::env::temp_dir().join(format!("baton-xen-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let guest = dir.join("guest.img");
        let partial = dir.join("partial.dtb");
        std::fs::write(&guest, "guest").unwrap();
        std::fs::write(guest.with_extension(NONE), "none").unwrap();
        std::fs::write(&partial, passthrough().to_blob().unwrap()).unwrap();
        let scenario = machine("x".to_owned(), vec![domain(&guest, "peer")]);
        let mut tree = Tree::default();
        let modules = configure(&mut tree, &scenario, &partial).unwrap();
        assert_eq!(modules.len(), 3);
        let chosen = tree.root.child_mut("chosen").unwrap();
        let arguments = String::from_utf8(chosen.get("xen,xen-bootargs").unwrap().to_vec());
        assert!(arguments.unwrap().ends_with("sched=credit2\0"));
        // Nothing that only Baton knows.
        assert_eq!(chosen.children.len(), 1);
        let domain = &chosen.children[0];
        assert!(
            domain
                .properties
                .iter()
                .all(|(name, _)| !name.starts_with("baton,"))
        );
        assert_eq!(domain.children.len(), 3);
        assert!(tree.node_mut("/edu@10000000").is_some());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
