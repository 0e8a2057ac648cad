//! The address map and interrupt numbers of a domain: QEMU `virt`'s.
//!
//! Kernels, U-Boot and UEFI built for that board run unchanged. These constants are the only source: the device tree
//! is generated from them and the emulation answers at them. Addresses and sizes in bytes (`hw/arm/virt.c` of QEMU, `base_memmap`
//! and `a15irqmap`).

/// Number of slots (device numbers) on the PCI bus.
pub const PCI_SLOTS: usize = 32;

/// Flash: two banks of [`crate::flash::SIZE`], code first.
pub const FLASH_BASE: u64 = 0;
/// Distributor, of either version.
pub const GICD_BASE: u64 = 0x0800_0000;
/// Size of the distributor.
pub const GICD_SIZE: u64 = 0x1_0000;
/// GICv2 CPU interface.
pub const GICC_BASE: u64 = 0x0801_0000;
/// Size that the CPU interface is said to have; it's two pages of 4 KiB.
pub const GICC_SIZE: u64 = 0x1_0000;
/// First redistributor; one for each vCPU follows another.
pub const GICR_BASE: u64 = 0x080a_0000;
/// Size of one vCPU's redistributor: RD_base and SGI_base frames.
pub const GICR_SIZE: u64 = 0x2_0000;
/// GICv2m frame: where a PCI function's message becomes an SPI.
pub const V2M_BASE: u64 = 0x0802_0000;
/// Size of the GICv2m frame.
pub const V2M_SIZE: u64 = 0x1000;
/// PL011.
pub const UART_BASE: u64 = 0x0900_0000;
/// Size of the PL011.
pub const UART_SIZE: u64 = 0x1000;
/// PL031.
pub const RTC_BASE: u64 = 0x0901_0000;
/// Size of the PL031.
pub const RTC_SIZE: u64 = 0x1000;
/// Firmware configuration device.
pub const FW_CFG_BASE: u64 = 0x0902_0000;
/// Its size.
pub const FW_CFG_SIZE: u64 = 0x18;
/// Management port, a PL011: where QEMU has the secure world's, of which a domain hears nothing.
pub const MANAGEMENT_BASE: u64 = 0x0904_0000;
/// Its size.
pub const MANAGEMENT_SIZE: u64 = 0x1000;
/// Watchdog: control frame, then refresh frame. QEMU `virt` has none; this is the first of the addresses that it leaves to
/// devices added at will.
pub const WATCHDOG_BASE: u64 = 0x0c00_0000;
/// Size of one of its two frames.
pub const WATCHDOG_FRAME: u64 = 0x1000;
/// First address of the registers of devices that the domain was given: further up among those that QEMU leaves to devices added at will.
pub const PASSTHROUGH_BASE: u64 = 0x0c20_0000;
/// Size of that window: up to PCI memory.
pub const PASSTHROUGH_SIZE: u64 = PCI_MEM32_BASE - PASSTHROUGH_BASE;
/// First address of PCI memory below 4 GiB; the same on the CPU's side and in a BAR.
pub const PCI_MEM32_BASE: u64 = 0x1000_0000;
/// Size of that window.
pub const PCI_MEM32_SIZE: u64 = 0x2eff_0000;
/// Where the CPU sees PCI I/O space, which begins at 0 on the PCI side.
pub const PCI_IO_BASE: u64 = 0x3eff_0000;
/// Size of PCI I/O space.
pub const PCI_IO_SIZE: u64 = 0x1_0000;
/// RAM.
pub const RAM_BASE: u64 = 0x4000_0000;
/// First address behind the space for RAM.
pub const RAM_END: u64 = 0x40_0000_0000;
/// PCIe configuration space of buses 0 to 255.
pub const ECAM_BASE: u64 = 0x40_1000_0000;
/// Size of PCIe configuration space.
pub const ECAM_SIZE: u64 = 0x1000_0000;
/// First address of PCI memory for 64-bit BARs; the same on the CPU's side and in a BAR.
pub const PCI_MEM64_BASE: u64 = 0x80_0000_0000;
/// Size of that window.
pub const PCI_MEM64_SIZE: u64 = 0x80_0000_0000;

/// SPI of the PL011, level-high (INTID 33).
pub const UART_SPI: u32 = 1;
/// SPI of the PL031, level-high (INTID 34).
pub const RTC_SPI: u32 = 2;
/// SPI of the management port, level-high (INTID 40): the secure world's UART's.
pub const MANAGEMENT_SPI: u32 = 8;
/// SPI of the watchdog's first time-out, level-high (INTID 42): one that QEMU `virt` doesn't use.
pub const WATCHDOG_SPI: u32 = 10;
/// SPI of INTA of PCI device 0, level-high (INTID 35). Pin `p` (0 = INTA) of device `d` is SPI
/// `PCI_INTX_SPI + (d + p) % 4`.
pub const PCI_INTX_SPI: u32 = 3;
/// First of the SPIs of devices that the domain was given: those that QEMU has for virtio's.
pub const PASSTHROUGH_SPI: u32 = 16;
/// How many.
pub const PASSTHROUGH_SPIS: u32 = 32;
/// First of the SPIs of messages, edge-triggered (INTID 80); behind it only more of them.
pub const V2M_SPI: u32 = 48;
/// How many.
pub const V2M_SPIS: u32 = 64;
/// INTID of the first.
pub const V2M_FIRST: u32 = 32 + V2M_SPI;
/// SPIs that the interrupt controller has: in whole registers of 32.
pub const SPIS: u32 = (V2M_SPI + V2M_SPIS).next_multiple_of(32);
/// PPI of the secure physical timer (INTID 29).
pub const TIMER_SECURE_PPI: u32 = 13;
/// PPI of the non-secure EL1 physical timer (INTID 30).
pub const TIMER_PHYSICAL_PPI: u32 = 14;
/// PPI of the virtual timer (INTID 27).
pub const TIMER_VIRTUAL_PPI: u32 = 11;
/// PPI of the non-secure EL2 physical timer (INTID 26).
pub const TIMER_HYPERVISOR_PPI: u32 = 10;
/// Frequency of the clock that the PL011 is told of, in Hz.
pub const UART_CLOCK_HZ: u32 = 24_000_000;

/// Most vCPUs of a domain: their MPIDRs differ in Aff0 alone.
pub const CPU_LIMIT: u32 = 8;

/// The INTID of INTx `pin` (0 = INTA to 3 = INTD) of a device on bus 0.
pub const fn intx_intid(device: u8, pin: u8) -> u32 {
    // At most 3 is added to a constant.
    PCI_INTX_SPI
        .wrapping_add(32)
        .wrapping_add((device.wrapping_add(pin) & 3) as u32)
}
