//! The device tree that a domain gets.
//!
//! Generated, not copied from the machine: a domain sees the same board, QEMU `virt` with a GIC of the machine's version, wherever Baton
//! runs, so the same kernels boot everywhere and nothing of the real board leaks. What a domain doesn't have is
//! left out, so nothing in the tree is a promise that the emulation doesn't keep: no ITS, but a GICv2m frame, as on that board with a GICv2, and flash only
//! with firmware in it.
//! The watchdog and, for who may manage Baton, a second UART are all that QEMU's board hasn't. The kernel's seeds are there if the caller has any.

pub mod layout;
mod passthrough;
#[cfg(test)]
mod tests;

use crate::config::{DomainConfig, Fixture, Passed};
use crate::devicetree::{self, Region};
use crate::flash;
use crate::passthrough::{Full, Place, plan};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use entropy::seeds::Seeds;
use layout::{
    CPU_LIMIT, ECAM_BASE, ECAM_SIZE, FLASH_BASE, FW_CFG_BASE, FW_CFG_SIZE, GICC_BASE, GICC_SIZE,
    GICD_BASE, GICD_SIZE, GICR_BASE, GICR_SIZE, MANAGEMENT_BASE, MANAGEMENT_SPI, PCI_INTX_SPI,
    PCI_IO_BASE, PCI_IO_SIZE, PCI_MEM32_BASE, PCI_MEM32_SIZE, PCI_MEM64_BASE, PCI_MEM64_SIZE,
    PCI_SLOTS, RAM_BASE, RAM_END, RTC_BASE, RTC_SIZE, RTC_SPI, TIMER_HYPERVISOR_PPI,
    TIMER_PHYSICAL_PPI, TIMER_SECURE_PPI, TIMER_VIRTUAL_PPI, UART_BASE, UART_CLOCK_HZ, UART_SIZE,
    UART_SPI, V2M_BASE, V2M_SIZE, WATCHDOG_BASE, WATCHDOG_FRAME, WATCHDOG_SPI,
};
use vm_fdt::FdtWriter;

const PHANDLE_GIC: u32 = 1;
const PHANDLE_CLOCK: u32 = 2;
const PHANDLE_V2M: u32 = 3;
const SPI: u32 = 0;
const PPI: u32 = 1;
const LEVEL_HIGH: u32 = 4;

/// Version of the interrupt controller's architecture.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum GicVersion {
    /// GICv2: distributor and a memory-mapped CPU interface.
    V2,
    /// GICv3: distributor, redistributors, and system registers.
    #[default]
    V3,
}

/// What differs between domains.
#[derive(Clone, Copy, Debug, Default)]
pub struct GuestTree<'a> {
    /// Size of RAM in bytes; it begins at [`layout::RAM_BASE`].
    pub memory: u64,
    /// Version of the interrupt controller.
    pub gic: GicVersion,
    /// Number of vCPUs, 1 to 8; vCPU n has MPIDR Aff0 = n.
    pub cpus: u32,
    /// Whether there is a PL011.
    pub uart: bool,
    /// Whether there is a management port.
    pub management: bool,
    /// Whether there are two banks of flash.
    pub flash: bool,
    /// Whether there is a PCIe host bridge.
    pub pci: bool,
    /// The kernel's command line; none if empty.
    pub bootargs: &'a str,
    /// Where the initial ramdisk is, in guest-physical addresses.
    pub initrd: Option<Region>,
    /// Seeds for the kernel, of its own; none if there is no entropy.
    pub seeds: Option<Seeds>,
    /// The devices that the domain has for itself.
    pub devices: &'a [Passed],
    /// Its coprocs that are devices of the machine's tree.
    pub fixtures: &'a [Fixture],
    /// Where its RAM is in the machine, in order: address and size. Needed only for devices with unconfined DMA.
    pub host_memory: &'a [Region],
}

/// Why no tree was made.
#[derive(PartialEq, Eq, Debug)]
pub enum Error {
    /// RAM of this size doesn't fit the address map.
    Memory(u64),
    /// There is no board with this number of CPUs.
    Cpus(u32),
    /// The ramdisk isn't in RAM.
    Initrd(Region),
    /// The devices don't fit.
    Devices(Full),
    /// The writer refused, for example a command line with a NUL in it.
    Writer(vm_fdt::Error),
}

impl From<vm_fdt::Error> for Error {
    fn from(error: vm_fdt::Error) -> Self {
        Self::Writer(error)
    }
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        Self::Devices(full)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory(size) => {
                write!(f, "{size:#x} bytes of RAM don't fit a domain's address map")
            }
            Self::Cpus(count) => write!(f, "{count} vCPUs; expected 1 to {CPU_LIMIT}"),
            Self::Initrd(region) => write!(f, "the ramdisk at {region} isn't in the domain's RAM"),
            Self::Devices(full) => write!(f, "devices with {full}"),
            Self::Writer(error) => write!(f, "device tree writer: {error}"),
        }
    }
}

impl core::error::Error for Error {}

/// Makes the blob for a domain of this configuration. `host_memory`: see [`GuestTree::host_memory`].
///
/// # Errors
/// See [`build`].
pub fn of_domain(
    config: &DomainConfig,
    gic: GicVersion,
    initrd: Option<Region>,
    seeds: Option<Seeds>,
    host_memory: &[Region],
) -> Result<Vec<u8>, devicetree::Error> {
    let guest = GuestTree {
        memory: config.memory,
        gic,
        cpus: config.cpus,
        uart: config.vpl011,
        management: config.control,
        flash: config.firmware,
        pci: true,
        bootargs: &config.bootargs,
        initrd,
        seeds,
        devices: &config.passthrough,
        fixtures: &config.fixtures,
        host_memory,
    };
    build(&guest).map_err(|error| {
        devicetree::Error::new(
            config.path.clone(),
            format!("device tree: {error}"),
            "a description that a tree can hold",
        )
    })
}

/// Makes the blob for a domain.
///
/// # Errors
/// A number is out of range, or a text can't stand in a device tree.
pub fn build(guest: &GuestTree<'_>) -> Result<Vec<u8>, Error> {
    let space = RAM_END.saturating_sub(RAM_BASE);
    if guest.memory == 0 || guest.memory > space {
        return Err(Error::Memory(guest.memory));
    }
    if guest.cpus == 0 || guest.cpus > CPU_LIMIT {
        return Err(Error::Cpus(guest.cpus));
    }
    let ram = Region {
        address: RAM_BASE,
        size: guest.memory,
    };
    if let Some(initrd) = guest.initrd.filter(|initrd| !ram.contains(initrd)) {
        return Err(Error::Initrd(initrd));
    }

    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", PHANDLE_GIC)?;
    fdt.property_string("model", "linux,dummy-virt")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    chosen(&mut fdt, guest)?;
    if guest.uart || guest.management {
        let aliases = fdt.begin_node("aliases")?;
        if guest.uart {
            fdt.property_string("serial0", &uart_path(UART_BASE))?;
        }
        if guest.management {
            fdt.property_string("serial1", &uart_path(MANAGEMENT_BASE))?;
        }
        fdt.end_node(aliases)?;
    }
    let memory = fdt.begin_node(&format!("memory@{RAM_BASE:x}"))?;
    fdt.property_string("device_type", "memory")?;
    fdt.property_array_u64("reg", &[ram.address, ram.size])?;
    fdt.end_node(memory)?;
    cpus(&mut fdt, guest.cpus)?;
    psci(&mut fdt)?;
    timer(&mut fdt, guest)?;
    gic(&mut fdt, guest)?;
    clock(&mut fdt)?;
    if guest.uart {
        uart(&mut fdt, UART_BASE, UART_SPI)?;
    }
    if guest.management {
        uart(&mut fdt, MANAGEMENT_BASE, MANAGEMENT_SPI)?;
    }
    rtc(&mut fdt)?;
    fw_cfg(&mut fdt)?;
    if guest.flash {
        flash(&mut fdt)?;
    }
    watchdog(&mut fdt)?;
    let places = plan(guest.devices, guest.fixtures)?;
    if guest.pci {
        pcie(&mut fdt, &places)?;
    }
    passthrough::nodes(&mut fdt, guest, &places)?;
    fdt.end_node(root)?;
    Ok(fdt.finish()?)
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| String::from(*text)).collect()
}

fn uart_path(base: u64) -> String {
    format!("/pl011@{base:x}")
}

fn chosen(fdt: &mut FdtWriter, guest: &GuestTree<'_>) -> Result<(), Error> {
    let node = fdt.begin_node("chosen")?;
    if !guest.bootargs.is_empty() {
        fdt.property_string("bootargs", guest.bootargs)?;
    }
    if guest.uart {
        fdt.property_string("stdout-path", &uart_path(UART_BASE))?;
    }
    if let Some(initrd) = guest.initrd {
        fdt.property_u64("linux,initrd-start", initrd.address)?;
        fdt.property_u64("linux,initrd-end", initrd.end())?;
    }
    if let Some(seeds) = &guest.seeds {
        fdt.property_u64("kaslr-seed", seeds.kaslr)?;
        fdt.property("rng-seed", &seeds.rng)?;
    }
    Ok(fdt.end_node(node)?)
}

fn cpus(fdt: &mut FdtWriter, count: u32) -> Result<(), Error> {
    let node = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for mpidr in 0..count {
        let cpu = fdt.begin_node(&format!("cpu@{mpidr:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        // The generic name: which core it is, MIDR_EL1 says.
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_string("enable-method", "psci")?;
        fdt.property_u32("reg", mpidr)?;
        fdt.end_node(cpu)?;
    }
    Ok(fdt.end_node(node)?)
}

fn psci(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node("psci")?;
    fdt.property_string_list("compatible", strings(&["arm,psci-1.0", "arm,psci-0.2"]))?;
    fdt.property_string("method", "hvc")?;
    Ok(fdt.end_node(node)?)
}

fn timer(fdt: &mut FdtWriter, guest: &GuestTree<'_>) -> Result<(), Error> {
    let node = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    let ppis = [
        TIMER_SECURE_PPI,
        TIMER_PHYSICAL_PPI,
        TIMER_VIRTUAL_PPI,
        TIMER_HYPERVISOR_PPI,
    ];
    // A GICv2's specifier says whose they are, too (bits 15:8).
    let flags = match guest.gic {
        GicVersion::V2 => LEVEL_HIGH | (!u32::MAX.wrapping_shl(guest.cpus) & 0xff) << 8,
        GicVersion::V3 => LEVEL_HIGH,
    };
    let cells: Vec<u32> = ppis.iter().flat_map(|ppi| [PPI, *ppi, flags]).collect();
    fdt.property_array_u32("interrupts", &cells)?;
    // It counts while the vCPU idles, so Linux needs no other tick for that.
    fdt.property_null("always-on")?;
    Ok(fdt.end_node(node)?)
}

fn gic(fdt: &mut FdtWriter, guest: &GuestTree<'_>) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("intc@{GICD_BASE:x}"))?;
    let compatible = match guest.gic {
        GicVersion::V2 => "arm,cortex-a15-gic",
        GicVersion::V3 => "arm,gic-v3",
    };
    fdt.property_string("compatible", compatible)?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_null("ranges")?;
    match guest.gic {
        GicVersion::V2 => {
            fdt.property_array_u64("reg", &[GICD_BASE, GICD_SIZE, GICC_BASE, GICC_SIZE])?;
        }
        GicVersion::V3 => {
            fdt.property_u32("#redistributor-regions", 1)?;
            let redistributors = GICR_SIZE.saturating_mul(u64::from(guest.cpus));
            fdt.property_array_u64("reg", &[GICD_BASE, GICD_SIZE, GICR_BASE, redistributors])?;
        }
    }
    fdt.property_phandle(PHANDLE_GIC)?;
    let frame = fdt.begin_node(&format!("v2m@{V2M_BASE:x}"))?;
    fdt.property_string("compatible", "arm,gic-v2m-frame")?;
    fdt.property_null("msi-controller")?;
    fdt.property_array_u64("reg", &[V2M_BASE, V2M_SIZE])?;
    fdt.property_phandle(PHANDLE_V2M)?;
    fdt.end_node(frame)?;
    Ok(fdt.end_node(node)?)
}

/// Of the PrimeCells.
fn clock(fdt: &mut FdtWriter) -> Result<(), Error> {
    let clock = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", UART_CLOCK_HZ)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(PHANDLE_CLOCK)?;
    Ok(fdt.end_node(clock)?)
}

fn uart(fdt: &mut FdtWriter, base: u64, spi: u32) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("pl011@{base:x}"))?;
    fdt.property_string_list("compatible", strings(&["arm,pl011", "arm,primecell"]))?;
    fdt.property_array_u64("reg", &[base, UART_SIZE])?;
    fdt.property_array_u32("interrupts", &[SPI, spi, LEVEL_HIGH])?;
    fdt.property_string_list("clock-names", strings(&["uartclk", "apb_pclk"]))?;
    fdt.property_array_u32("clocks", &[PHANDLE_CLOCK, PHANDLE_CLOCK])?;
    Ok(fdt.end_node(node)?)
}

fn rtc(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("pl031@{RTC_BASE:x}"))?;
    fdt.property_string_list("compatible", strings(&["arm,pl031", "arm,primecell"]))?;
    fdt.property_array_u64("reg", &[RTC_BASE, RTC_SIZE])?;
    fdt.property_array_u32("interrupts", &[SPI, RTC_SPI, LEVEL_HIGH])?;
    fdt.property_string("clock-names", "apb_pclk")?;
    fdt.property_u32("clocks", PHANDLE_CLOCK)?;
    Ok(fdt.end_node(node)?)
}

fn fw_cfg(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("fw-cfg@{FW_CFG_BASE:x}"))?;
    fdt.property_string("compatible", "qemu,fw-cfg-mmio")?;
    fdt.property_array_u64("reg", &[FW_CFG_BASE, FW_CFG_SIZE])?;
    fdt.property_null("dma-coherent")?;
    Ok(fdt.end_node(node)?)
}

fn flash(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("flash@{FLASH_BASE:x}"))?;
    fdt.property_string("compatible", "cfi-flash")?;
    let second = FLASH_BASE.wrapping_add(flash::SIZE);
    fdt.property_array_u64("reg", &[FLASH_BASE, flash::SIZE, second, flash::SIZE])?;
    fdt.property_u32("bank-width", 4)?;
    Ok(fdt.end_node(node)?)
}

fn watchdog(fdt: &mut FdtWriter) -> Result<(), Error> {
    let node = fdt.begin_node(&format!("watchdog@{WATCHDOG_BASE:x}"))?;
    fdt.property_string("compatible", "arm,sbsa-gwdt")?;
    let refresh = WATCHDOG_BASE.wrapping_add(WATCHDOG_FRAME);
    fdt.property_array_u64(
        "reg",
        &[WATCHDOG_BASE, WATCHDOG_FRAME, refresh, WATCHDOG_FRAME],
    )?;
    fdt.property_array_u32("interrupts", &[SPI, WATCHDOG_SPI, LEVEL_HIGH])?;
    Ok(fdt.end_node(node)?)
}

fn pcie(fdt: &mut FdtWriter, places: &[Place]) -> Result<(), Error> {
    // Named after its memory window, as QEMU does.
    let node = fdt.begin_node(&format!("pcie@{PCI_MEM32_BASE:x}"))?;
    fdt.property_string("compatible", "pci-host-ecam-generic")?;
    fdt.property_string("device_type", "pci")?;
    fdt.property_u32("#address-cells", 3)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("#interrupt-cells", 1)?;
    fdt.property_u32("linux,pci-domain", 0)?;
    fdt.property_array_u32("bus-range", &[0, 255])?;
    fdt.property_null("dma-coherent")?;
    fdt.property_array_u64("reg", &[ECAM_BASE, ECAM_SIZE])?;
    // Space code in bits 25:24 of phys.hi, PCI address, CPU address, size.
    let windows = [
        (0x0100_0000, 0, PCI_IO_BASE, PCI_IO_SIZE),
        (0x0200_0000, PCI_MEM32_BASE, PCI_MEM32_BASE, PCI_MEM32_SIZE),
        (0x0300_0000, PCI_MEM64_BASE, PCI_MEM64_BASE, PCI_MEM64_SIZE),
    ];
    let ranges = windows.iter().flat_map(|&(space, pci, cpu, size)| {
        let halves = [pci, cpu, size]
            .into_iter()
            .flat_map(|value: u64| [(value >> 32) as u32, value as u32]);
        core::iter::once(space).chain(halves)
    });
    fdt.property_array_u32("ranges", &ranges.collect::<Vec<u32>>())?;
    // All requester ids.
    fdt.property_array_u32("msi-map", &[0, PHANDLE_V2M, 0, 0x1_0000])?;
    // A function of the domain's own has an interrupt of its own, whatever its pin; without one the mask leaves device modulo 4 and the pin.
    let own = |device: u32| {
        let mut places = places.iter();
        let place = places.find(|place| place.slot.map(u32::from) == Some(device));
        place.and_then(|place| place.spis.first().copied())
    };
    let devices = match places.iter().any(|place| place.slot.is_some()) {
        true => PCI_SLOTS as u32,
        false => 4,
    };
    let mask = devices.wrapping_sub(1) << 11;
    fdt.property_array_u32("interrupt-map-mask", &[mask, 0, 0, 7])?;
    let rows = (0..devices).flat_map(|device| (0..4_u32).map(move |pin| (device, pin)));
    let map = rows.flat_map(|(device, pin)| {
        let swizzled = PCI_INTX_SPI.wrapping_add(device.wrapping_add(pin) & 3);
        let spi = own(device).unwrap_or(swizzled);
        // Child address and pin; controller and its unit address; the interrupt there.
        [
            device << 11,
            0,
            0,
            pin.wrapping_add(1),
            PHANDLE_GIC,
            0,
            0,
            SPI,
            spi,
            LEVEL_HIGH,
        ]
    });
    fdt.property_array_u32("interrupt-map", &map.collect::<Vec<u32>>())?;
    Ok(fdt.end_node(node)?)
}
