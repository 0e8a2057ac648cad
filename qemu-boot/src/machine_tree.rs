//! The device tree that Baton boots with: the machine's own, plus the configuration in `/chosen`.
//!
//! QEMU describes its `virt` machine itself, and Linux the others, so only `/chosen` is written here, in the shape of Xen's
//! dom0less boot (Xen, docs/misc/arm/device-tree/booting.txt) with Baton's properties beside it.
//! The domains' files lie in RAM where this module says, put there by QEMU's loader device, as a
//! boot loader would on a board; a file that two domains use lies there once.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::device_tree::{Node, Tree};
use crate::scenario::{Action, CoprocSpec, DomainSpec, Scenario};

/// Where in RAM the first module lies: above Baton, which QEMU loads at 2 MiB, and the device tree, which it
/// puts 128 MiB into RAM.
const MODULES_OFFSET: u64 = 0x1000_0000;
/// Modules start at multiples of this, so that they can be mapped by blocks.
const MODULE_ALIGN: u64 = 2 << 20;

/// A file placed in RAM before boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// The file.
    pub file: PathBuf,
    /// Its physical address.
    pub address: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// What a domain boots when its specification leaves it open.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// The kernel image.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub ramdisk: PathBuf,
}

/// Gives every file a place, each file once.
#[derive(Debug)]
struct Placer {
    modules: Vec<Module>,
    next: u64,
    end: u64,
}

impl Placer {
    fn place(&mut self, file: &Path) -> Result<Module> {
        if let Some(known) = self.modules.iter().find(|module| module.file == file) {
            return Ok(known.clone());
        }
        let size = std::fs::metadata(file)
            .with_context(|| format!("module {}", file.display()))?
            .len();
        let module = Module {
            file: file.to_path_buf(),
            address: self.next,
            size,
        };
        self.next = (self.next + size).next_multiple_of(MODULE_ALIGN);
        ensure!(
            self.next <= self.end,
            "module {} ({size} bytes) doesn't fit below {:#x}: give the machine more memory",
            file.display(),
            self.end
        );
        self.modules.push(module.clone());
        Ok(module)
    }
}

/// Adds the scenario's configuration to the machine's tree, and says which files go where.
///
/// # Errors
/// If a file is missing or doesn't fit in RAM, a coproc index is out of range, or an edit names
/// a node or property that isn't there.
pub fn configure(
    machine: &mut Tree,
    scenario: &Scenario,
    defaults: &Defaults,
) -> Result<Vec<Module>> {
    let ram = scenario.board.ram(scenario);
    let mut placer = Placer {
        modules: Vec::new(),
        next: ram.start + MODULES_OFFSET,
        end: ram.end,
    };
    let first_phandle = machine.root.greatest_phandle() + 1;
    let phandle = |index: usize| -> Result<u32> {
        ensure!(
            index < scenario.coprocs.len(),
            "there is no coproc {index} in the scenario"
        );
        Ok(first_phandle + u32::try_from(index)?)
    };

    let domain_phandle = |index: usize| -> Result<u32> {
        ensure!(
            index < scenario.domains.len(),
            "there is no domain {index} in the scenario"
        );
        Ok(first_phandle + u32::try_from(scenario.coprocs.len() + index)?)
    };

    let mut chosen = Node::new("chosen");
    chosen
        .set_cells("#address-cells", &[2])
        .set_cells("#size-cells", &[2]);
    if let Some(old) = machine.root.child_mut("chosen") {
        // Bootargs are not for Baton: of the old one, only the console.
        if let Some(console) = old.get("stdout-path") {
            chosen.set("stdout-path", console);
        }
    }
    // As firmware does on a board. Not under -icount, where each run is to be the same.
    if !scenario.qemu_args.iter().any(|word| word == "-icount") {
        chosen.set("rng-seed", seed().context("a seed for the machine")?);
    }
    if !scenario.coprocs.is_empty() {
        let mut coprocs = Node::new("coprocs");
        coprocs
            .set_strings("compatible", &["baton,coprocs"])
            .set_cells("#address-cells", &[1])
            .set_cells("#size-cells", &[0]);
        for (index, coproc) in scenario.coprocs.iter().enumerate() {
            coprocs
                .children
                .push(coproc_node(u32::try_from(index)?, phandle(index)?, coproc));
        }
        chosen.children.push(coprocs);
    }
    for (index, domain) in scenario.domains.iter().enumerate() {
        let modules = if let Some(firmware) = &domain.firmware {
            vec![module_node(&placer.place(firmware)?, "multiboot,firmware")]
        } else {
            let kernel = placer.place(domain.kernel.as_ref().unwrap_or(&defaults.kernel))?;
            let ramdisk = placer.place(domain.ramdisk.as_ref().unwrap_or(&defaults.ramdisk))?;
            let mut kernel = module_node(&kernel, "multiboot,kernel");
            kernel.set_strings("bootargs", &[&domain.bootargs]);
            vec![kernel, module_node(&ramdisk, "multiboot,ramdisk")]
        };
        let coprocs = domain
            .coprocs
            .iter()
            .map(|&index| phandle(index))
            .collect::<Result<Vec<_>>>()?;
        let mut node = domain_node(index + 1, domain, &coprocs, modules);
        if !scenario.shared_memory.is_empty() {
            node.set_cells("phandle", &[domain_phandle(index)?]);
        }
        chosen.children.push(node);
    }
    for (index, shared) in scenario.shared_memory.iter().enumerate() {
        let domains = shared
            .domains
            .iter()
            .map(|&index| domain_phandle(index))
            .collect::<Result<Vec<_>>>()?;
        let mut node = Node::new(format!("shared-memory@{index:x}"));
        node.set_strings("compatible", &["baton,shared-memory"])
            .set("size", shared.size.to_be_bytes())
            .set_cells("domains", &domains);
        chosen.children.push(node);
    }
    machine.root.children.retain(|child| child.name != "chosen");
    machine.root.children.push(chosen);
    for edit in &scenario.edits {
        apply(machine, &edit.node, &edit.action)?;
    }
    Ok(placer.modules)
}

fn seed() -> std::io::Result<[u8; 32]> {
    let mut seed = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn coproc_node(number: u32, phandle: u32, coproc: &CoprocSpec) -> Node {
    let mut node = Node::new(format!("coproc@{number:x}"));
    node.set_cells("reg", &[number])
        .set_cells("phandle", &[phandle])
        .set_strings("driver", &[&coproc.driver])
        .set_strings("device", &[&coproc.device])
        .set_strings("scheduler", &[&coproc.scheduler])
        .set_cells("slice-us", &[coproc.slice_us])
        .set_cells("refusal-bound-us", &[coproc.refusal_bound_us]);
    node
}

fn domain_node(number: usize, domain: &DomainSpec, coprocs: &[u32], modules: Vec<Node>) -> Node {
    let mut node = Node::new(format!("domain@{number:x}"));
    node.set_strings("compatible", &["xen,domain"])
        .set_cells("#address-cells", &[2])
        .set_cells("#size-cells", &[2])
        .set_cells("cpus", &[domain.vcpus])
        .set("memory", domain.memory_kib.to_be_bytes())
        .set("vpl011", []);
    if !coprocs.is_empty() {
        node.set_cells("baton,coprocs", coprocs);
    }
    if !domain.passthrough.is_empty() {
        let names: Vec<&str> = domain.passthrough.iter().map(String::as_str).collect();
        node.set_strings("baton,passthrough", &names);
    }
    if !domain.affinity.is_empty() {
        node.set_cells("baton,cpu-affinity", &domain.affinity);
    }
    node.children = modules;
    node
}

/// A file's node below its domain's, of this kind (`multiboot,…`).
pub(crate) fn module_node(module: &Module, kind: &str) -> Node {
    let mut node = Node::new(format!("module@{:x}", module.address));
    let reg: Vec<u8> = module
        .address
        .to_be_bytes()
        .into_iter()
        .chain(module.size.to_be_bytes())
        .collect();
    node.set_strings("compatible", &[kind, "multiboot,module"])
        .set("reg", reg);
    node
}

fn apply(tree: &mut Tree, path: &str, action: &Action) -> Result<()> {
    let missing = || format!("edit: no node {path} in the machine's device tree");
    match action {
        Action::Set(name, value) => {
            tree.node_mut(path)
                .with_context(missing)?
                .set(name, value.as_slice());
        }
        Action::Remove(name) => {
            if !tree.node_mut(path).with_context(missing)?.remove(name) {
                bail!("edit: {path} has no property {name}");
            }
        }
        Action::RemoveNode => {
            let (parent, name) = path.rsplit_once('/').with_context(missing)?;
            let parent = tree.node_mut(parent).with_context(missing)?;
            parent.child_mut(name).with_context(missing)?;
            parent.children.retain(|child| child.name != name);
        }
        Action::AddNode => {
            let (parent, name) = path.rsplit_once('/').with_context(missing)?;
            let parent = tree.node_mut(parent).with_context(missing)?;
            if parent.children.iter().any(|child| child.name == name) {
                bail!("edit: {path} is in the machine's device tree already");
            }
            parent.children.push(Node::new(name.to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Edit;

    struct Files(PathBuf);

    impl Files {
        fn new(name: &str, kernel_size: usize) -> (Self, Defaults) {
            let dir =
                std::env::temp_dir().join(format!("baton-tree-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let defaults = Defaults {
                kernel: dir.join("kernel"),
                ramdisk: dir.join("ramdisk"),
            };
            std::fs::write(&defaults.kernel, vec![0; kernel_size]).unwrap();
            std::fs::write(&defaults.ramdisk, vec![0; 100]).unwrap();
            (Self(dir), defaults)
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn machine() -> Tree {
        let mut tree = Tree::default();
        let mut chosen = Node::new("chosen");
        chosen
            .set_strings("stdout-path", &["/pl011@9000000"])
            .set("rng-seed", [1, 2, 3, 4]);
        let mut gic = Node::new("intc@8000000");
        gic.set_cells("phandle", &[0x8005]);
        tree.root.children = vec![gic, chosen];
        tree
    }

    #[test]
    fn each_run_has_a_seed_of_its_own_or_none_where_all_are_alike() {
        let (_files, defaults) = Files::new("seed", 1);
        let mut scenario = Scenario::sharing_edu("x", 2, 40);
        let seed = |scenario: &Scenario| {
            let mut tree = machine();
            configure(&mut tree, scenario, &defaults).unwrap();
            let chosen = tree.node_mut("/chosen").unwrap();
            chosen.get("rng-seed").map(<[u8]>::to_vec)
        };
        assert_ne!(seed(&scenario), seed(&scenario));
        scenario.qemu_args = vec!["-icount".into(), "shift=0".into()];
        assert_eq!(seed(&scenario), None);
    }

    #[test]
    fn two_domains_share_files_and_the_coproc() {
        let (_files, defaults) = Files::new("share", (2 << 20) + 1);
        let mut tree = machine();
        let scenario = Scenario::sharing_edu("x", 2, 40);
        let modules = configure(&mut tree, &scenario, &defaults).unwrap();
        assert_eq!(modules.len(), 2);
        assert_eq!(
            (modules[0].address, modules[0].size),
            (0x5000_0000, (2 << 20) + 1)
        );
        assert_eq!((modules[1].address, modules[1].size), (0x5040_0000, 100));

        let mut tree = Tree::parse(&tree.to_blob().unwrap()).unwrap();
        let chosen = tree.node_mut("/chosen").unwrap();
        assert_eq!(chosen.get("stdout-path").unwrap(), b"/pl011@9000000\0");
        let seed = chosen.get("rng-seed").unwrap().to_vec();
        assert_eq!(seed.len(), 32, "its own, not the machine's");
        let coproc = tree.node_mut("/chosen/coprocs/coproc@0").unwrap().clone();
        assert_eq!(coproc.get("phandle").unwrap(), 0x8006u32.to_be_bytes());
        assert_eq!(coproc.get("device").unwrap(), b"pci:0000:00:01.0\0");
        for (path, cpu) in [("/chosen/domain@1", 0u32), ("/chosen/domain@2", 1)] {
            let domain = tree.node_mut(path).unwrap();
            assert_eq!(domain.get("baton,coprocs"), coproc.get("phandle"));
            assert_eq!(domain.get("baton,cpu-affinity").unwrap(), cpu.to_be_bytes());
            assert_eq!(domain.get("memory").unwrap(), [0, 0, 0, 0, 0, 8, 0, 0]);
            let kernel = &domain.children[0];
            assert_eq!(kernel.name, "module@50000000");
            assert_eq!(
                kernel.get("compatible").unwrap(),
                b"multiboot,kernel\0multiboot,module\0"
            );
            assert_eq!(
                kernel.get("reg").unwrap(),
                [0, 0, 0, 0, 0x50, 0, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 1]
            );
            assert!(
                String::from_utf8_lossy(kernel.get("bootargs").unwrap())
                    .contains("workload.jobs=40")
            );
        }
    }

    #[test]
    fn edits_are_made_last_and_must_hit() {
        let (_files, defaults) = Files::new("edit", 10);
        let base = Scenario::sharing_edu("x", 2, 1);
        let mut tree = machine();
        let scenario = base
            .clone()
            .with_edit(Edit::cells("/chosen/domain@1", "baton,coprocs", &[0xdead]))
            .with_edit(Edit::string(
                "/chosen/coprocs/coproc@0",
                "scheduler",
                "lottery",
            ))
            .with_edit(Edit::remove("/chosen/domain@2", "memory"))
            .with_edit(Edit::remove_node("/chosen/domain@2/module@50000000"));
        configure(&mut tree, &scenario, &defaults).unwrap();
        assert_eq!(
            tree.node_mut("/chosen/domain@1")
                .unwrap()
                .get("baton,coprocs")
                .unwrap(),
            [0, 0, 0xde, 0xad]
        );
        assert_eq!(
            tree.node_mut("/chosen/coprocs/coproc@0")
                .unwrap()
                .get("scheduler")
                .unwrap(),
            b"lottery\0"
        );
        let second = tree.node_mut("/chosen/domain@2").unwrap();
        assert_eq!(second.get("memory"), None);
        assert_eq!(second.children.len(), 1);

        for edit in [
            Edit::cells("/chosen/domain@9", "cpus", &[1]),
            Edit::remove("/chosen/domain@1", "no-such"),
            Edit::remove_node("/chosen/domain@1/module@1"),
        ] {
            assert!(configure(&mut machine(), &base.clone().with_edit(edit), &defaults).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_or_exist_is_told() {
        let (_files, defaults) = Files::new("fit", 4 << 20);
        let mut scenario = Scenario::sharing_edu("x", 1, 1);
        scenario.memory_mib = 256 + 2;
        let error = configure(&mut machine(), &scenario, &defaults)
            .unwrap_err()
            .to_string();
        assert!(error.contains("more memory"), "{error}");

        let mut scenario = Scenario::sharing_edu("x", 1, 1);
        scenario.domains[0].coprocs = vec![3];
        assert!(configure(&mut machine(), &scenario, &defaults).is_err());
        scenario.domains[0].coprocs = vec![];
        scenario.domains[0].ramdisk = Some("/no/such/file".into());
        assert!(configure(&mut machine(), &scenario, &defaults).is_err());
    }
}
