//! Boards like QEMU `virt`, and the domains that a test wants on them.

use crate::arch::fake::{self, Board, Cpu};
use alloc::string::String;
use alloc::vec::Vec;
use hypervisor::vgic::Version;
use std::format;
use vm_fdt::FdtWriter;

/// MIDR_EL1: Cortex-A76 r4p1, which has none of the errata.
pub const A76: u64 = 0x414f_d0b1;
/// Cortex-A53 r0p4: its cleaning can't be trusted.
pub const A53: u64 = 0x410f_d034;
/// Cortex-A57 r1p2: it has 834220 and 1319537.
pub const A57: u64 = 0x411f_d072;

/// Start of RAM, which has 256 MiB.
pub const RAM: u64 = 0x4000_0000;
/// Where the other CPUs look for their entry.
pub const SPIN_TABLE: u64 = RAM + 0x1000;
const IMAGE: u64 = RAM + 0x20_0000;
const TREE: u64 = RAM + 0x800_0000;
const KERNEL: u64 = RAM + 0xa00_0000;

/// Where the boot loader puts the kernel of domain `number`.
pub const fn kernel_at(number: u64) -> u64 {
    KERNEL + number * 0x10_0000
}

/// Bytes of a domain's RAM.
pub const MEMORY: u64 = 4 << 20;
/// The word that a kernel of domain `number` begins with, and each of the following up to its header has one more.
pub const fn first_word(number: u64) -> u64 {
    number << 56 | 0x1400_0010
}
/// Bytes of a kernel's file.
pub const KERNEL_SIZE: usize = 0x1_2345;

pub fn node(fdt: &mut FdtWriter, name: &str, body: impl FnOnce(&mut FdtWriter)) {
    let node = fdt.begin_node(name).unwrap();
    body(fdt);
    fdt.end_node(node).unwrap();
}

pub fn cells(fdt: &mut FdtWriter, name: &str, cells: &[u32]) {
    fdt.property_array_u32(name, cells).unwrap();
}

pub fn text(fdt: &mut FdtWriter, name: &str, value: &str) {
    fdt.property_string(name, value).unwrap();
}

/// A raw arm64 Image that is told from others.
pub fn kernel(number: u64) -> Vec<u8> {
    let mut file: Vec<u8> = (0..KERNEL_SIZE).map(|at| (at * 7) as u8).collect();
    let mut put = |at: usize, value: u64| file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    put(0, first_word(number));
    put(8, 0);
    put(16, 0x2_0000);
    put(24, 0xa);
    put(56, u64::from(u32::from_le_bytes(*b"ARM\x64")));
    file
}

fn tree(board: &Board, domains: &[&[u32]], coproc: Option<Shared>) -> Vec<u8> {
    let mut fdt = FdtWriter::new().unwrap();
    node(&mut fdt, "", |fdt| {
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[2]);
        cells(fdt, "interrupt-parent", &[1]);
        text(fdt, "compatible", "linux,dummy-virt");
        node(fdt, "memory@40000000", |fdt| {
            text(fdt, "device_type", "memory");
            let size = (board.ram.end - board.ram.start) as u32;
            cells(fdt, "reg", &[0, RAM as u32, 0, size]);
        });
        node(fdt, "psci", |fdt| {
            text(fdt, "compatible", "arm,psci-1.0");
            text(fdt, "method", "smc");
        });
        node(fdt, "cpus", |fdt| {
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[0]);
            for index in 0..board.midr.len() as u32 {
                node(fdt, &format!("cpu@{index}"), |fdt| {
                    text(fdt, "device_type", "cpu");
                    text(fdt, "compatible", "arm,cortex-a57");
                    if let Some(release) = &board.release {
                        let word = release.start as u32 + (index.max(1) - 1) * 8;
                        text(fdt, "enable-method", "spin-table");
                        cells(fdt, "cpu-release-addr", &[0, word]);
                    } else {
                        text(fdt, "enable-method", "psci");
                    }
                    cells(fdt, "reg", &[index]);
                });
            }
        });
        node(fdt, "intc@8000000", |fdt| {
            cells(fdt, "#interrupt-cells", &[3]);
            cells(fdt, "phandle", &[1]);
            cells(fdt, "interrupts", &[1, 9, 4]);
            fdt.property_null("interrupt-controller").unwrap();
            if board.gic == Version::V2 {
                text(fdt, "compatible", "arm,cortex-a15-gic");
                let part = |base: u32| [0, base, 0, 0x1_0000];
                let parts = [0x800_0000, 0x801_0000, 0x803_0000, 0x804_0000].map(part);
                cells(fdt, "reg", parts.as_flattened());
            } else {
                text(fdt, "compatible", "arm,gic-v3");
                cells(fdt, "#redistributor-regions", &[1]);
                let redistributors = board.midr.len() as u32 * 0x2_0000;
                cells(
                    fdt,
                    "reg",
                    &[0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, redistributors],
                );
            }
        });
        node(fdt, "timer", |fdt| {
            text(fdt, "compatible", "arm,armv8-timer");
            cells(fdt, "interrupts", &[1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
        });
        node(fdt, "pl011@9000000", |fdt| {
            text(fdt, "compatible", "arm,pl011");
            cells(fdt, "reg", &[0, 0x900_0000, 0, 0x1000]);
            cells(fdt, "interrupts", &[0, 1, 4]);
        });
        node(fdt, "accumulator@a100000", |fdt| {
            text(fdt, "compatible", "example,accumulator");
            cells(fdt, "reg", &[0, 0xa10_0000, 0, 0x1000]);
            cells(fdt, "interrupts", &[0, 50, 4]);
        });
        node(fdt, "chosen", |fdt| {
            text(fdt, "stdout-path", "/pl011@9000000");
            cells(fdt, "#address-cells", &[2]);
            cells(fdt, "#size-cells", &[2]);
            if let Some(shared) = coproc {
                shared.describe(fdt);
            }
            for (number, cpus) in (1u32..).zip(domains) {
                domain(fdt, number, cpus, coproc.is_some());
            }
        });
    });
    fdt.finish().unwrap()
}

/// A coprocessor that all domains share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shared {
    /// The CPU with this number, as a firmware core.
    #[cfg(feature = "fw-core")]
    Core(u32),
    /// The accumulator.
    #[cfg(feature = "sharing")]
    Accumulator,
}

impl Shared {
    fn describe(self, fdt: &mut FdtWriter) {
        let (driver, device): (&str, String) = match self {
            #[cfg(feature = "fw-core")]
            Self::Core(core) => ("baton,fw-core", format!("/cpus/cpu@{core}")),
            #[cfg(feature = "sharing")]
            Self::Accumulator => ("example,accumulator", "/accumulator@a100000".into()),
        };
        node(fdt, "coprocs", |fdt| {
            text(fdt, "compatible", "baton,coprocs");
            cells(fdt, "#address-cells", &[1]);
            cells(fdt, "#size-cells", &[0]);
            node(fdt, "coproc@0", |fdt| {
                cells(fdt, "reg", &[0]);
                cells(fdt, "phandle", &[2]);
                text(fdt, "driver", driver);
                text(fdt, "device", &device);
                text(fdt, "scheduler", "weighted");
            });
        });
    }
}

fn domain(fdt: &mut FdtWriter, number: u32, cpus: &[u32], coproc: bool) {
    node(fdt, &format!("domain@{number}"), |fdt| {
        text(fdt, "compatible", "xen,domain");
        cells(fdt, "#address-cells", &[2]);
        cells(fdt, "#size-cells", &[2]);
        cells(fdt, "cpus", &[cpus.len() as u32]);
        cells(fdt, "memory", &[0, (MEMORY >> 10) as u32]);
        cells(fdt, "baton,cpu-affinity", cpus);
        if coproc {
            cells(fdt, "baton,coprocs", &[2]);
        }
        fdt.property_null("vpl011").unwrap();
        let at = kernel_at(number.into()) as u32;
        node(fdt, &format!("module@{at:x}"), |fdt| {
            let compatible = ["multiboot,kernel", "multiboot,module"];
            let compatible = compatible.map(String::from).to_vec();
            fdt.property_string_list("compatible", compatible).unwrap();
            cells(fdt, "reg", &[0, at, 0, KERNEL_SIZE as u32]);
            text(fdt, "bootargs", &format!("number={number}"));
        });
    });
}

/// What a test wants: a core's MIDR_EL1 for each CPU, and for each domain its vCPUs' CPUs.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The interrupt controller.
    pub gic: Version,
    /// Cores.
    pub midr: &'a [u64],
    /// Which of SMCCC_ARCH_WORKAROUND_1 to 3 the firmware has.
    pub workarounds: &'static [u32],
    /// Whether the other CPUs poll.
    pub spin_table: bool,
    /// Domains.
    pub domains: &'a [&'a [u32]],
    /// What all domains share.
    pub coproc: Option<Shared>,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self {
            gic: Version::V2,
            midr: &[A76; 2],
            workarounds: &[],
            spin_table: false,
            domains: &[&[0], &[1]],
            coproc: None,
        }
    }
}

/// Boots such a machine.
pub fn start(wanted: Wanted<'_>) {
    let board = Board {
        gic: wanted.gic,
        midr: wanted.midr.to_vec(),
        workarounds: wanted.workarounds,
        release: wanted.spin_table.then_some(SPIN_TABLE..SPIN_TABLE + 64),
        ram: RAM..RAM + (256 << 20),
        image: IMAGE,
        tree: TREE,
    };
    let domains = wanted.domains;
    let mut loaded = std::vec![(TREE, tree(&board, domains, wanted.coproc))];
    for number in 1..=domains.len() as u64 {
        loaded.push((kernel_at(number), kernel(number)));
    }
    // What was there before is nobody's zeroes.
    loaded.push((RAM + 0x200_0000, std::vec![0xa5; 0x500_0000]));
    fake::boot(board, &loaded);
}

/// Two domains of one vCPU, each on its own CPU.
pub fn two(gic: Version, midr: u64) -> [Cpu; 2] {
    start(Wanted {
        gic,
        midr: &[midr; 2],
        ..Wanted::default()
    });
    [Cpu(0), Cpu(1)]
}
