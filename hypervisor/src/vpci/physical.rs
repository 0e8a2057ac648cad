//! The physical function behind a virtual one: reading what it is, giving its BARs addresses
//! where no firmware did, and the few bits of Command that stay the hypervisor's own.
//!
//! Written by hand and not with the `pci_types` crate, which panics on reserved BAR types and
//! writes the value read back into Status, whose error bits are cleared by writing ones.

use alloc::vec::Vec;
use coproc_core::address::HostPhysical;
use coproc_core::time::Duration;
use core::fmt;

use super::description::{BARS, Bar, DescriptionError, FunctionDescription};
use super::header::{
    BAR_PREFETCHABLE, BAR_WIDE, STATUS_CAPABILITIES, STATUS_INTERRUPT, command, offset,
};
use super::msi;
use super::vendor_specific::{self, VendorSpecific, words_of};

/// A physical function on a host bridge.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct FunctionAddress {
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

impl FunctionAddress {
    /// The Requester ID that its transactions carry.
    pub const fn requester_id(self) -> u16 {
        (self.bus as u16) << 8 | (self.device as u16 & 0x1f) << 3 | (self.function as u16 & 7)
    }

    /// Offset in bytes of its configuration space in an ECAM window that starts at bus 0.
    pub const fn ecam_offset(self) -> u64 {
        (self.requester_id() as u64) << 12
    }
}

impl fmt::Display for FunctionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{}", self.bus, self.device, self.function)
    }
}

/// Access to the physical configuration space below one host bridge, in aligned 32-bit registers.
/// A function that isn't there reads all ones.
pub trait ConfigAccess {
    /// Reads the register at byte `offset`, a multiple of 4.
    fn read32(&mut self, function: FunctionAddress, offset: u16) -> u32;
    /// Writes it.
    fn write32(&mut self, function: FunctionAddress, offset: u16, value: u32);
}

/// Why a physical function can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum PhysicalError {
    /// Nothing answers there.
    #[error("no PCI function at {0}")]
    Absent(FunctionAddress),
    /// A bridge (1), CardBus bridge (2) or an unknown kind.
    #[error("PCI function {0} has header type {1}, expected an ordinary function (type 0)")]
    HeaderType(FunctionAddress, u8),
    /// A memory BAR of a reserved type, or a size that no BAR can have.
    #[error("PCI function {0}: BAR {1} reads {2:#010x}, which is no valid kind of memory BAR")]
    BarType(FunctionAddress, u8, u32),
    /// The BARs contradict each other.
    #[error("PCI function {0}: {1}")]
    Description(FunctionAddress, DescriptionError),
    /// No host window has room.
    #[error("PCI function {0}: no room for BAR {1} of {2:#x} bytes in the host bridge's windows")]
    NoRoom(FunctionAddress, u8, u64),
    /// The BAR doesn't hold what was written to it.
    #[error("PCI function {0}: BAR {1} reads {2:#x} after {3:#x} was written")]
    NotHeld(FunctionAddress, u8, u64, u64),
}

/// Changes Command: clears the bits in `clear`, sets those in `set`. Status gets zeros, so none of
/// its write-one-to-clear bits is touched. Returns the previous Command.
pub fn update_command(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
    clear: u16,
    set: u16,
) -> u16 {
    let before = access.read32(function, offset::COMMAND) as u16;
    let after = (before & !clear) | set;
    if after != before {
        access.write32(function, offset::COMMAND, u32::from(after));
    }
    before
}

fn switch(access: &mut impl ConfigAccess, function: FunctionAddress, bit: u16, on: bool) {
    update_command(access, function, bit, if on { bit } else { 0 });
}

/// Switches memory decoding. I/O decoding is never on.
pub fn set_memory_decode(access: &mut impl ConfigAccess, function: FunctionAddress, on: bool) {
    switch(access, function, command::MEMORY_SPACE, on);
}

/// Switches bus mastering: whether the function may do DMA and MSI.
pub fn set_bus_master(access: &mut impl ConfigAccess, function: FunctionAddress, on: bool) {
    switch(access, function, command::BUS_MASTER, on);
}

/// Switches Interrupt Disable, the mask at the source of the function's INTx.
pub fn set_interrupt_disable(access: &mut impl ConfigAccess, function: FunctionAddress, on: bool) {
    switch(access, function, command::INTERRUPT_DISABLE, on);
}

/// Whether the function wants its INTx asserted, masked or not (Status.Interrupt Status). A
/// function that is gone (all ones) wants nothing.
pub fn interrupt_status(access: &mut impl ConfigAccess, function: FunctionAddress) -> bool {
    let register = access.read32(function, offset::COMMAND);
    register != u32::MAX && (register >> 16) as u16 & STATUS_INTERRUPT != 0
}

/// Switches MSI and MSI-X off, if the function has them: its interrupts are INTx.
pub fn disable_messages(access: &mut impl ConfigAccess, function: FunctionAddress) {
    for (id, enable) in [(msi::ID, msi::ENABLE), (MSIX, MSIX_ENABLE)] {
        if let Some(at) = capability(access, function, id) {
            let control = access.read32(function, at);
            if control & enable != 0 {
                access.write32(function, at, control & !enable);
            }
        }
    }
}

/// MSI-X (PCI 3.0, 6.8.2): bit 15 of Message Control.
const MSIX: u8 = 0x11;
const MSIX_ENABLE: u32 = 1 << 31;
/// PCI Express (PCI Express Base Specification, 7.5.3): Device Capabilities, Device Control, and of each the bit about function level reset.
const EXPRESS: u8 = 0x10;
const DEVICE_CAPABILITIES: u16 = 4;
const DEVICE_CAPABLE: u32 = 1 << 28;
const DEVICE_CONTROL: u16 = 8;
const DEVICE_RESET: u32 = 1 << 15;
/// Advanced Features for Conventional PCI (ECN of 2008): likewise.
const ADVANCED: u8 = 0x13;
const ADVANCED_CAPABLE: u32 = 1 << 25;
const ADVANCED_CONTROL: u16 = 4;
const ADVANCED_RESET: u32 = 1 << 0;

/// How long a function may take for [`start_reset`] (PCI Express Base Specification, 6.6.2).
pub const RESET_TIME: Duration = Duration::from_millis(100);

/// Begins a function level reset; returns whether the function has it. It must not be touched for [`RESET_TIME`], and has lost its
/// BARs and Command then: see [`restore`].
pub fn start_reset(access: &mut impl ConfigAccess, function: FunctionAddress) -> bool {
    if let Some(at) = capability(access, function, EXPRESS)
        && access.read32(function, at.saturating_add(DEVICE_CAPABILITIES)) & DEVICE_CAPABLE != 0
    {
        let control = at.saturating_add(DEVICE_CONTROL);
        // Device Status, the upper half, has bits that a one clears.
        let value = access.read32(function, control) & 0xffff | DEVICE_RESET;
        access.write32(function, control, value);
        return true;
    }
    if let Some(at) = capability(access, function, ADVANCED)
        && access.read32(function, at) & ADVANCED_CAPABLE != 0
    {
        access.write32(
            function,
            at.saturating_add(ADVANCED_CONTROL),
            ADVANCED_RESET,
        );
        return true;
    }
    false
}

/// Gives a function its BARs again after a reset: they decode, and it neither interrupts nor masters the bus.
pub fn restore(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
    description: &FunctionDescription,
    placements: &[Option<BarPlacement>; BARS],
) {
    disable_messages(access, function);
    let everything = command::IO_SPACE | command::MEMORY_SPACE | command::BUS_MASTER;
    update_command(access, function, everything, command::INTERRUPT_DISABLE);
    let bars = description.bars.iter().zip(placements).enumerate();
    for (index, (bar, placement)) in bars {
        if let (Some(bar), Some(placement)) = (bar, placement) {
            write_bar(access, function, index, bar.wide, placement.bus);
        }
    }
    update_command(access, function, 0, command::MEMORY_SPACE);
}

/// The first capability in the function's list, which may be damaged, of which `wanted` says so: asked for each with its offset and first register.
fn find_capability<A: ConfigAccess>(
    access: &mut A,
    function: FunctionAddress,
    mut wanted: impl FnMut(&mut A, u16, u32) -> bool,
) -> Option<u16> {
    /// First offset behind the header, and as many capabilities as have room there.
    const FIRST: u16 = 0x40;
    const MOST: usize = 48;
    let status = (access.read32(function, offset::COMMAND) >> 16) as u16;
    if status & STATUS_CAPABILITIES == 0 {
        return None;
    }
    let mut at = access.read32(function, offset::CAPABILITIES) as u16 & 0xfc;
    for _ in 0..MOST {
        if at < FIRST {
            return None;
        }
        let head = access.read32(function, at);
        if wanted(access, at, head) {
            return Some(at);
        }
        at = (head >> 8) as u16 & 0xfc;
    }
    None
}

fn capability(access: &mut impl ConfigAccess, function: FunctionAddress, id: u8) -> Option<u16> {
    find_capability(access, function, |_, _, head| head as u8 == id)
}

/// Copies the vendor-specific capabilities, as many as there is room for.
pub(super) fn vendor_specific(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
) -> VendorSpecific {
    /// Where configuration space ends for capabilities.
    const END: u16 = 0x100;
    let mut copied = VendorSpecific::none();
    find_capability(access, function, |access, at, head| {
        if head as u8 == vendor_specific::ID {
            let words = words_of(head);
            let registers = (at..END).step_by(4).take(words);
            // One that says to be longer than what is left isn't shown.
            if registers.len() == words {
                copied.push(registers.map(|register| access.read32(function, register)));
            }
        }
        false
    });
    copied
}

/// Reads what `function` is. Its BARs are sized with decoding off and hold their values again
/// afterwards, so nobody may access its windows meanwhile.
pub fn describe(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
) -> Result<FunctionDescription, PhysicalError> {
    let id = access.read32(function, offset::ID);
    if id as u16 == u16::MAX {
        return Err(PhysicalError::Absent(function));
    }
    let header_type = (access.read32(function, offset::MISC) >> 16) as u8 & 0x7f;
    if header_type != 0 {
        return Err(PhysicalError::HeaderType(function, header_type));
    }
    let decode = command::IO_SPACE | command::MEMORY_SPACE;
    let before = update_command(access, function, decode, 0);
    let bars = size_bars(access, function);
    update_command(access, function, 0, before & decode);
    let class = access.read32(function, offset::CLASS);
    let subsystem = access.read32(function, offset::SUBSYSTEM);
    let description = FunctionDescription {
        vendor: id as u16,
        device: (id >> 16) as u16,
        class: class >> 8,
        revision: class as u8,
        subsystem_vendor: subsystem as u16,
        subsystem: (subsystem >> 16) as u16,
        bars: bars?,
        interrupt_pin: (access.read32(function, offset::INTERRUPT) >> 8) as u8,
        msi: capability(access, function, msi::ID).is_some(),
        vendor_specific: vendor_specific(access, function),
    };
    match description.validate() {
        Ok(()) => Ok(description),
        Err(error) => Err(PhysicalError::Description(function, error)),
    }
}

fn bar_offset(index: usize) -> u16 {
    offset::BAR0.saturating_add((index as u16).saturating_mul(4))
}

/// Writes all ones, reads what sticks, restores.
fn probe(access: &mut impl ConfigAccess, function: FunctionAddress, register: u16) -> u32 {
    let before = access.read32(function, register);
    access.write32(function, register, u32::MAX);
    let sticks = access.read32(function, register);
    access.write32(function, register, before);
    sticks
}

fn size_bars(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
) -> Result<[Option<Bar>; BARS], PhysicalError> {
    let mut bars = [None; BARS];
    let mut upper_half = false;
    for (index, slot) in bars.iter_mut().enumerate() {
        if core::mem::take(&mut upper_half) {
            continue;
        }
        let register = bar_offset(index);
        let sticks = probe(access, function, register);
        // Bit 0: an I/O BAR, which is left alone and not shown.
        if sticks == 0 || sticks & 1 != 0 {
            continue;
        }
        let wrong = PhysicalError::BarType(function, index as u8, sticks);
        let wide = match sticks & 0b110 {
            0 => false,
            BAR_WIDE if register < offset::BAR5 => true,
            _ => return Err(wrong),
        };
        let high = if wide {
            upper_half = true;
            probe(access, function, register.saturating_add(4))
        } else {
            u32::MAX
        };
        let mask = u64::from(sticks & !0xf) | u64::from(high) << 32;
        let size = mask.wrapping_neg();
        if !size.is_power_of_two() {
            return Err(wrong);
        }
        *slot = Some(Bar {
            size,
            wide,
            prefetchable: sticks & BAR_PREFETCHABLE != 0,
        });
    }
    Ok(bars)
}

/// A memory window of the physical host bridge.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HostWindow {
    /// First address on the PCI bus, as BARs hold it.
    pub bus: u64,
    /// The CPU's address of the same place.
    pub host: HostPhysical,
    /// Number of bytes.
    pub size: u64,
}

impl HostWindow {
    fn end(&self) -> u64 {
        self.bus.saturating_add(self.size)
    }
}

/// Where a physical BAR lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarPlacement {
    /// First address as the CPU sees it.
    pub address: HostPhysical,
    /// First address on the PCI bus.
    pub bus: u64,
    /// Number of bytes.
    pub size: u64,
}

/// Hands out parts of the host bridge's windows; never the same twice.
#[derive(Clone, Debug)]
pub struct WindowAllocator {
    windows: Vec<HostWindow>,
    /// Bus address and size of what is taken.
    taken: Vec<(u64, u64)>,
}

impl WindowAllocator {
    /// All of `windows` is free.
    pub fn new(windows: impl IntoIterator<Item = HostWindow>) -> Self {
        Self {
            windows: windows.into_iter().collect(),
            taken: Vec::new(),
        }
    }

    /// Takes `size` bytes at bus address `bus`, for example those that firmware gave to a function.
    /// `None` if they aren't wholly in one window or not wholly free.
    pub fn reserve(&mut self, bus: u64, size: u64) -> Option<BarPlacement> {
        let end = bus.checked_add(size)?;
        let window = self
            .windows
            .iter()
            .find(|w| w.bus <= bus && end <= w.end())?;
        if self.conflict(bus, end).is_some() {
            return None;
        }
        let address = window.host.checked_add(bus.checked_sub(window.bus)?)?;
        self.taken.push((bus, size));
        Some(BarPlacement { address, bus, size })
    }

    /// Takes `size` bytes (a power of two), aligned to it, at least to 4 KiB so that two functions
    /// never share a page. 64-bit BARs go above 4 GiB where possible.
    fn allocate(&mut self, size: u64, wide: bool) -> Option<BarPlacement> {
        let high = if wide { self.search(size, true) } else { None };
        let bus = high.or_else(|| self.search(size, false))?;
        self.reserve(bus, size)
    }

    fn search(&self, size: u64, high: bool) -> Option<u64> {
        const FOUR_GIB: u64 = 1 << 32;
        let alignment = size.max(coproc_core::address::PAGE_SIZE);
        for window in &self.windows {
            let (start, limit) = match high {
                true => (window.bus.max(FOUR_GIB), window.end()),
                false => (window.bus, window.end().min(FOUR_GIB)),
            };
            // Bus address 0 means "not assigned" in a BAR.
            let mut candidate = start.max(1).checked_next_multiple_of(alignment);
            while let Some(base) = candidate {
                let Some(end) = base.checked_add(size).filter(|end| *end <= limit) else {
                    break;
                };
                match self.conflict(base, end) {
                    None => return Some(base),
                    Some(after) => candidate = after.checked_next_multiple_of(alignment),
                }
            }
        }
        None
    }

    /// The end of something taken that overlaps `base..end`.
    fn conflict(&self, base: u64, end: u64) -> Option<u64> {
        let ends = self
            .taken
            .iter()
            .map(|(start, size)| (*start, start.saturating_add(*size)));
        ends.filter(|(start, stop)| *start < end && base < *stop)
            .map(|(_, stop)| stop)
            .max()
    }
}

/// Makes sure that every memory BAR of `function` has an address of its own in the host's windows.
///
/// What firmware assigned is kept if it is usable and free, everything else is allocated. Decoding
/// is off meanwhile and afterwards as before; switching it on is the caller's step.
pub fn assign_bars(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
    description: &FunctionDescription,
    windows: &mut WindowAllocator,
) -> Result<[Option<BarPlacement>; BARS], PhysicalError> {
    let decode = command::IO_SPACE | command::MEMORY_SPACE;
    let before = update_command(access, function, decode, 0);
    let mut placements = [None; BARS];
    let bars = description
        .bars
        .iter()
        .zip(placements.iter_mut())
        .enumerate();
    for (index, (bar, placement)) in bars {
        if let Some(bar) = bar {
            *placement = Some(assign_bar(access, function, index, *bar, windows)?);
        }
    }
    update_command(access, function, 0, before & command::MEMORY_SPACE);
    Ok(placements)
}

fn read_bar(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
    index: usize,
    wide: bool,
) -> u64 {
    let register = bar_offset(index);
    let low = access.read32(function, register) & !0xf;
    let high = if wide {
        access.read32(function, register.saturating_add(4))
    } else {
        0
    };
    u64::from(low) | u64::from(high) << 32
}

fn write_bar(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
    index: usize,
    wide: bool,
    address: u64,
) {
    let register = bar_offset(index);
    access.write32(function, register, address as u32);
    if wide {
        access.write32(function, register.saturating_add(4), (address >> 32) as u32);
    }
}

fn assign_bar(
    access: &mut impl ConfigAccess,
    function: FunctionAddress,
    index: usize,
    bar: Bar,
    windows: &mut WindowAllocator,
) -> Result<BarPlacement, PhysicalError> {
    let held = read_bar(access, function, index, bar.wide);
    if held != 0
        && let Some(kept) = windows.reserve(held, bar.size)
    {
        return Ok(kept);
    }
    let Some(placement) = windows.allocate(bar.size, bar.wide) else {
        return Err(PhysicalError::NoRoom(function, index as u8, bar.size));
    };
    write_bar(access, function, index, bar.wide, placement.bus);
    let held = read_bar(access, function, index, bar.wide);
    if held == placement.bus {
        Ok(placement)
    } else {
        Err(PhysicalError::NotHeld(
            function,
            index as u8,
            held,
            placement.bus,
        ))
    }
}
