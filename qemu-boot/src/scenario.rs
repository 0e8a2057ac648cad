//! What is to be booted, as values.
//!
//! Tests and the demo say what they want (domains, coprocs, memory) and, for the tests of bad
//! configurations, which mistake to make; addresses, phandles and the shape of the device tree
//! follow from that in [`crate::machine_tree`].

use std::path::{Path, PathBuf};

use crate::board::Board;
use crate::device_tree::{cells_value, strings_value};

/// The name by which a guest program is told its jobs, on its kernel's command line.
pub const GUEST_CONSOLE: &str = "console=ttyAMA0";

/// A machine with Baton at EL2 and its domains.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Names the log and the generated files; unique among runs at the same time.
    pub name: String,
    /// Which board of QEMU's it is.
    pub board: Board,
    /// The machine's memory in MiB.
    pub memory_mib: u32,
    /// The machine's CPUs.
    pub cpus: u32,
    /// What they are, as QEMU names it.
    pub cpu: String,
    /// Version of the interrupt controller, 2 or 3.
    pub gic: u32,
    /// Number of `edu` devices, in PCI slots 1, 2, ….
    pub edu_devices: u32,
    /// The shared coprocessors.
    pub coprocs: Vec<CoprocSpec>,
    /// The domains, numbered from 1 in this order.
    pub domains: Vec<DomainSpec>,
    /// Memory that domains share.
    pub shared_memory: Vec<SharedMemorySpec>,
    /// Changes to the finished device tree, mistakes usually.
    pub edits: Vec<Edit>,
    /// More arguments for QEMU.
    pub qemu_args: Vec<String>,
}

/// A coprocessor under `/chosen/coprocs`.
#[derive(Clone, Debug)]
pub struct CoprocSpec {
    /// The driver's name.
    pub driver: String,
    /// The device: a PCI function `pci:SSSS:BB:DD.F`, or a device tree path.
    pub device: String,
    /// The scheduling algorithm's name.
    pub scheduler: String,
    /// Length of a time slice in µs.
    pub slice_us: u32,
    /// Longest time for which a refusal to switch is honoured, in µs.
    pub refusal_bound_us: u32,
}

/// A domain under `/chosen`.
#[derive(Clone, Debug)]
pub struct DomainSpec {
    /// Number of vCPUs.
    pub vcpus: u32,
    /// The physical CPU of each vCPU; empty leaves the choice to Baton.
    pub affinity: Vec<u32>,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Indices into [`Scenario::coprocs`].
    pub coprocs: Vec<usize>,
    /// The kernel image; `None` stands for Debian's.
    pub kernel: Option<PathBuf>,
    /// The initial RAM file system; `None` stands for the demo workload's.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub bootargs: String,
    /// Firmware that it starts with, in place of kernel and ramdisk.
    pub firmware: Option<PathBuf>,
    /// Devices that it has for itself: paths of nodes, or `pci:SSSS:BB:DD.F`.
    pub passthrough: Vec<String>,
}

/// Memory under `/chosen` that domains share.
#[derive(Clone, Debug)]
pub struct SharedMemorySpec {
    /// Its size in bytes.
    pub size: u64,
    /// Indices into [`Scenario::domains`], in the order of the peers' numbers.
    pub domains: Vec<usize>,
}

/// A change to the machine's device tree, made last.
#[derive(Clone, Debug)]
pub struct Edit {
    /// The node's path, such as `/chosen/domain@1`.
    pub node: String,
    /// What happens to it.
    pub action: Action,
}

/// What an [`Edit`] does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Sets a property to raw bytes.
    Set(String, Vec<u8>),
    /// Removes a property.
    Remove(String),
    /// Removes the node.
    RemoveNode,
    /// Makes the node, below one that exists.
    AddNode,
}

impl Edit {
    /// Sets a property to cells.
    pub fn cells(node: &str, property: &str, cells: &[u32]) -> Self {
        let action = Action::Set(property.to_owned(), cells_value(cells));
        Self {
            node: node.to_owned(),
            action,
        }
    }

    /// Sets a property to a string.
    pub fn string(node: &str, property: &str, value: &str) -> Self {
        let action = Action::Set(property.to_owned(), strings_value(&[value]));
        Self {
            node: node.to_owned(),
            action,
        }
    }

    /// Removes a property.
    pub fn remove(node: &str, property: &str) -> Self {
        Self {
            node: node.to_owned(),
            action: Action::Remove(property.to_owned()),
        }
    }

    /// Makes a node without properties.
    pub fn add_node(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            action: Action::AddNode,
        }
    }

    /// Removes a node with all below it.
    pub fn remove_node(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            action: Action::RemoveNode,
        }
    }
}

impl CoprocSpec {
    /// The `edu` device in a PCI slot, shared round-robin.
    ///
    /// The slice is long because saving edu's buffer takes two DMAs of 100 ms of virtual time; the
    /// refusal bound is that of its longest computation.
    pub fn edu(slot: u32) -> Self {
        Self {
            driver: "qemu,edu".to_owned(),
            device: format!("pci:0000:00:{slot:02x}.0"),
            scheduler: "rr".to_owned(),
            slice_us: 1_000_000,
            refusal_bound_us: 10_000_000,
        }
    }
}

impl CoprocSpec {
    /// A CPU of the machine as a firmware core, shared round-robin.
    pub fn fw_core(cpu: u32) -> Self {
        Self {
            driver: "baton,fw-core".to_owned(),
            device: format!("/cpus/cpu@{cpu:x}"),
            scheduler: "rr".to_owned(),
            slice_us: 5_000,
            refusal_bound_us: 100_000,
        }
    }
}

impl DomainSpec {
    /// A domain of one vCPU on this physical CPU with 512 MiB, running Debian's kernel and
    /// the demo workload.
    pub fn linux(cpu: u32, bootargs: &str) -> Self {
        Self {
            vcpus: 1,
            affinity: vec![cpu],
            memory_kib: 512 << 10,
            coprocs: Vec::new(),
            kernel: None,
            ramdisk: None,
            bootargs: format!("{GUEST_CONSOLE} {bootargs}").trim_end().to_owned(),
            firmware: None,
            passthrough: Vec::new(),
        }
    }

    /// A domain of one vCPU on this physical CPU with 256 MiB that starts with this firmware.
    pub fn firmware(cpu: u32, file: PathBuf) -> Self {
        Self {
            memory_kib: 256 << 10,
            bootargs: String::new(),
            firmware: Some(file),
            ..Self::linux(cpu, "")
        }
    }

    /// The same domain with a device of its own.
    #[must_use]
    pub fn with_device(mut self, device: &str) -> Self {
        self.passthrough.push(device.to_owned());
        self
    }

    /// The same domain with access to a coproc.
    #[must_use]
    pub fn with_coproc(mut self, index: usize) -> Self {
        self.coprocs.push(index);
        self
    }
}

impl Scenario {
    /// A `virt` machine of two CPUs without domains or devices.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            board: Board::Virt,
            memory_mib: 3072,
            cpus: 2,
            cpu: "cortex-a57".to_owned(),
            gic: 3,
            edu_devices: 0,
            coprocs: Vec::new(),
            domains: Vec::new(),
            shared_memory: Vec::new(),
            edits: Vec::new(),
            qemu_args: Vec::new(),
        }
    }

    /// Plugs a disk into a PCI slot: `kind` is QEMU's name of the device, with its options; what is in `file` is its content, where what is written stays
    /// unless `options` of the drive, each with a comma in front, say otherwise. Returns how a domain is given it.
    pub fn add_disk(&mut self, slot: u32, kind: &str, file: &Path, options: &str) -> String {
        let file = file.display().to_string().replace(',', ",,");
        let drive = format!("if=none,format=raw{options},id=disk{slot},file={file}");
        let device = format!("{kind},drive=disk{slot},addr={slot:#x}");
        let arguments = ["-drive", &drive, "-device", &device];
        self.qemu_args.extend(arguments.map(str::to_owned));
        format!("pci:0000:00:{slot:02x}.0")
    }

    /// A Raspberry Pi 4 without domains.
    pub fn raspi4b(name: &str) -> Self {
        Self {
            board: Board::Raspi4b,
            memory_mib: 2048,
            cpus: 4,
            cpu: "cortex-a72".to_owned(),
            gic: 2,
            ..Self::new(name)
        }
    }

    /// This many Linux domains that share one `edu`; domain N is named dN and does `jobs` jobs.
    pub fn sharing_edu(name: &str, domains: u32, jobs: u32) -> Self {
        let mut scenario = Self::new(name);
        scenario.edu_devices = 1;
        scenario.coprocs.push(CoprocSpec::edu(1));
        scenario.domains = (1..=domains)
            .map(|number| {
                let bootargs = format!(
                    "quiet panic=-1 workload.name=d{number} workload.jobs={jobs} workload.seed={number}"
                );
                DomainSpec::linux((number - 1) % scenario.cpus, &bootargs).with_coproc(0)
            })
            .collect();
        scenario
    }

    /// Linux domains that share a CPU as firmware core, coproc 0, which is the last of the machine's; domain N is named dN, has these options
    /// (each `firmware.…`), and runs `ramdisk`. The other CPUs take turns.
    pub fn firmware(name: &str, cpus: u32, ramdisk: &Path, options: &[&str]) -> Self {
        let mut scenario = Self::new(name);
        scenario.cpus = cpus.max(2);
        let core = scenario.cpus - 1;
        scenario.coprocs.push(CoprocSpec::fw_core(core));
        for (options, number) in options.iter().zip(1_u32..) {
            let mut line = format!("quiet panic=-1 firmware.name=d{number} firmware.seed={number}");
            for option in options.split_whitespace() {
                line.push_str(" firmware.");
                line.push_str(option);
            }
            let mut domain = DomainSpec::linux((number - 1) % core, &line).with_coproc(0);
            domain.memory_kib = 256 << 10;
            domain.ramdisk = Some(ramdisk.to_path_buf());
            scenario.domains.push(domain);
        }
        scenario
    }

    /// The same scenario with one more change to its device tree.
    #[must_use]
    pub fn with_edit(mut self, edit: Edit) -> Self {
        self.edits.push(edit);
        self
    }
}
