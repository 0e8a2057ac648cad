//! Bus 0 of the virtual host bridge: slots, ECAM decoding, and which address belongs to which BAR.

use alloc::vec::Vec;
use coproc_core::register::Width;
use coproc_core::sort;

use super::description::{BARS, DescriptionError, FunctionDescription};
use super::header::{VirtualFunction, offset};

pub use crate::guest_tree::layout::PCI_SLOTS as SLOTS;

/// A range of guest physical addresses that the bridge forwards.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// First address.
    pub base: u64,
    /// Number of bytes.
    pub size: u64,
}

impl Window {
    /// Whether `size` bytes from `base` lie wholly inside.
    pub fn holds(&self, base: u64, size: u64) -> bool {
        let Some(offset) = base.checked_sub(self.base) else {
            return false;
        };
        offset.checked_add(size).is_some_and(|end| end <= self.size)
    }
}

/// The bridge's memory windows, as the domain's device tree tells it in `ranges`. PCI addresses
/// equal guest physical ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Windows {
    /// Below 4 GiB.
    pub mem32: Window,
    /// Above, for 64-bit BARs; size 0 for none.
    pub mem64: Window,
}

/// What a write changed, besides the register itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Effect {
    /// The slot written to.
    pub slot: u8,
    /// [`VirtualBus::mappings`] differ from before: unmap and map accordingly. Another slot's BAR
    /// can be concerned too, where two overlapped.
    pub bars_moved: bool,
    /// Interrupt Disable changed to this.
    pub intx_disabled: Option<bool>,
    /// Bus Master Enable changed to this.
    pub bus_master: Option<bool>,
    /// Whether the function interrupts by messages, by which one, or whether it may, changed.
    pub message: bool,
}

impl Effect {
    /// Nothing beyond the register.
    pub const fn none(slot: u8) -> Self {
        Self {
            slot,
            bars_moved: false,
            intx_disabled: None,
            bus_master: None,
            message: false,
        }
    }

    /// Whether there is nothing to do.
    pub const fn is_none(&self) -> bool {
        !self.bars_moved
            && self.intx_disabled.is_none()
            && self.bus_master.is_none()
            && !self.message
    }
}

/// A BAR that decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BarMapping {
    /// First guest physical address.
    pub base: u64,
    /// Number of bytes.
    pub size: u64,
    /// Slot of its function.
    pub slot: u8,
    /// Index of the BAR.
    pub bar: u8,
}

/// Why a slot can't be filled or emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SlotError {
    /// Not 1 to 31, the slots that functions may have.
    #[error("slot {0} is not one of 1 to 31")]
    Range(u8),
    /// A function is there already.
    #[error("slot {0} is occupied")]
    Occupied(u8),
    /// No function is there.
    #[error("slot {0} is empty")]
    Empty(u8),
    /// The function can't be shown.
    #[error(transparent)]
    Description(#[from] DescriptionError),
}

#[derive(Clone, Debug, Default)]
enum Slot {
    #[default]
    Free,
    Reserved,
    // A header is small; boxing it would put an allocation into attach, which may run out.
    Function(VirtualFunction),
}

impl Slot {
    const fn function(&self) -> Option<&VirtualFunction> {
        match self {
            Self::Function(function) => Some(function),
            Self::Free | Self::Reserved => None,
        }
    }

    const fn function_mut(&mut self) -> Option<&mut VirtualFunction> {
        match self {
            Self::Function(function) => Some(function),
            Self::Free | Self::Reserved => None,
        }
    }
}

/// A domain's host bridge with what is plugged into it.
#[derive(Clone, Debug)]
pub struct VirtualBus {
    slots: Vec<Slot>,
    windows: Windows,
    ecam_size: u64,
    /// The BARs that decode, sorted by address; and the buffer that the next list is built in.
    /// Both keep room for every BAR there can be, so no guest access allocates.
    mappings: Vec<BarMapping>,
    scratch: Vec<BarMapping>,
}

/// Decoded ECAM offset of a present register.
struct Place {
    slot: u8,
    register: u16,
}

impl VirtualBus {
    /// A bridge with nothing but itself on its bus. `ecam_size`: size in bytes of the window, 1 MiB
    /// for each bus that it covers; only bus 0 has anything.
    pub fn new(windows: Windows, ecam_size: u64) -> Self {
        let mut slots = Vec::with_capacity(SLOTS);
        slots.resize_with(SLOTS, Slot::default);
        let bridge = VirtualFunction::new(FunctionDescription::host_bridge());
        if let (Some(slot), Ok(bridge)) = (slots.first_mut(), bridge) {
            *slot = Slot::Function(bridge);
        }
        let most = SLOTS * BARS;
        let mappings = Vec::with_capacity(most);
        let scratch = Vec::with_capacity(most);
        Self {
            slots,
            windows,
            ecam_size,
            mappings,
            scratch,
        }
    }

    /// Keeps `slot` for a function that is attached later.
    pub fn reserve(&mut self, slot: u8) -> Result<(), SlotError> {
        match self.slot_mut(slot)? {
            Slot::Function(_) => Err(SlotError::Occupied(slot)),
            free => {
                *free = Slot::Reserved;
                Ok(())
            }
        }
    }

    /// The first slot that is reserved and empty.
    #[inline]
    pub fn reserved(&self) -> Option<u8> {
        let position = self
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Reserved))?;
        u8::try_from(position).ok()
    }

    /// The first slot that is neither reserved nor filled.
    pub fn free(&self) -> Option<u8> {
        let position = self
            .slots
            .iter()
            .position(|slot| matches!(slot, Slot::Free))?;
        u8::try_from(position).ok()
    }

    /// Plugs a function into `slot`. It decodes nothing until the domain sets it up.
    pub fn attach(&mut self, slot: u8, description: FunctionDescription) -> Result<(), SlotError> {
        match self.slot_mut(slot)? {
            Slot::Function(_) => Err(SlotError::Occupied(slot)),
            free => {
                *free = Slot::Function(VirtualFunction::new(description)?);
                Ok(())
            }
        }
    }

    /// Pulls the function out of `slot`, which stays reserved. Its mappings are gone.
    pub fn detach(&mut self, slot: u8) -> Result<Effect, SlotError> {
        match self.slot_mut(slot)? {
            filled @ Slot::Function(_) => *filled = Slot::Reserved,
            _ => return Err(SlotError::Empty(slot)),
        }
        let bars_moved = self.rebuild();
        Ok(Effect {
            bars_moved,
            ..Effect::none(slot)
        })
    }

    /// Resets every function, as a reset of the domain does. Mappings are gone.
    pub fn reset(&mut self) {
        for function in self.slots.iter_mut().filter_map(Slot::function_mut) {
            function.reset();
        }
        self.rebuild();
    }

    /// The function in `slot`, if one is present.
    pub fn function(&self, slot: u8) -> Option<&VirtualFunction> {
        self.slots.get(usize::from(slot))?.function()
    }

    /// The BARs that decode, sorted by address; none overlap.
    pub fn mappings(&self) -> &[BarMapping] {
        &self.mappings
    }

    /// Where BAR `bar` of `slot` decodes, if it does.
    #[inline]
    pub fn bar_address(&self, slot: u8, bar: u8) -> Option<u64> {
        let mut mappings = self.mappings.iter();
        let mapping = mappings.find(|mapping| mapping.slot == slot && mapping.bar == bar)?;
        Some(mapping.base)
    }

    /// The slot, BAR and offset within it that `address` belongs to.
    #[inline]
    pub fn find(&self, address: u64) -> Option<(u8, u8, u64)> {
        let after = self
            .mappings
            .partition_point(|mapping| mapping.base <= address);
        let mapping = self.mappings.get(after.checked_sub(1)?)?;
        let offset = address.checked_sub(mapping.base)?;
        (offset < mapping.size).then_some((mapping.slot, mapping.bar, offset))
    }

    /// A load at `offset` in the ECAM window. `pending` tells whether the function in a slot asserts
    /// its interrupt (before any masking); it is asked only by reads of registers that tell.
    pub fn read(&self, offset: u64, width: Width, mut pending: impl FnMut(u8) -> bool) -> u64 {
        if !aligned(offset, width) {
            return width.mask();
        }
        match width {
            Width::Double => {
                let low = self.read_word(offset, &mut pending);
                let high = self.read_word(offset | 4, &mut pending);
                u64::from(low) | u64::from(high) << 32
            }
            _ => {
                let shift = shift(offset);
                let touched = width.mask().wrapping_shl(shift);
                let word = self.read_word_touching(offset & !3, touched, &mut pending);
                u64::from(word).wrapping_shr(shift) & width.mask()
            }
        }
    }

    /// A store at `offset` in the ECAM window.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Effect {
        let Some(Place { slot, register }) = self.place(offset) else {
            return Effect::none(0);
        };
        if !aligned(offset, width) {
            return Effect::none(slot);
        }
        let Some(function) = self
            .slots
            .get_mut(usize::from(slot))
            .and_then(Slot::function_mut)
        else {
            return Effect::none(slot);
        };
        let state = |function: &VirtualFunction| {
            let message = (function.msi().enabled(), function.message());
            (
                function.interrupt_disabled(),
                function.bus_master(),
                message,
            )
        };
        let before = state(function);
        let register = register & !3;
        if width == Width::Double {
            function.write(register, value as u32, u32::MAX);
            function.write(register | 4, (value >> 32) as u32, u32::MAX);
        } else {
            let shift = shift(offset);
            let enable = width.mask().wrapping_shl(shift) as u32;
            function.write(register, (value as u32).wrapping_shl(shift), enable);
        }
        let after = state(function);
        let bars = register <= offset::BAR5
            && (register >= offset::BAR0 || register == offset::COMMAND || width == Width::Double);
        Effect {
            slot,
            bars_moved: bars && self.rebuild(),
            intx_disabled: (before.0 != after.0).then_some(after.0),
            bus_master: (before.1 != after.1).then_some(after.1),
            message: before.2 != after.2,
        }
    }

    fn slot_mut(&mut self, slot: u8) -> Result<&mut Slot, SlotError> {
        match self.slots.get_mut(usize::from(slot)) {
            Some(found) if slot != 0 => Ok(found),
            _ => Err(SlotError::Range(slot)),
        }
    }

    /// The register that an ECAM offset names, or `None` where nothing can be.
    fn place(&self, offset: u64) -> Option<Place> {
        let bus_and_function = (offset >> 12) & 0xff07;
        (offset < self.ecam_size && bus_and_function == 0).then_some(Place {
            slot: ((offset >> 15) & 0x1f) as u8,
            register: (offset & 0xfff) as u16,
        })
    }

    fn read_word(&self, offset: u64, pending: &mut impl FnMut(u8) -> bool) -> u32 {
        self.read_word_touching(offset, u64::MAX, pending)
    }

    /// The register at `offset`, of which only the bits in `touched` matter.
    fn read_word_touching(
        &self,
        offset: u64,
        touched: u64,
        pending: &mut impl FnMut(u8) -> bool,
    ) -> u32 {
        let Some(Place { slot, register }) = self.place(offset) else {
            return u32::MAX;
        };
        match self.function(slot) {
            Some(function) => function.read(register, || {
                // Status is the upper half of its register.
                (register != offset::COMMAND || touched & 0xffff_0000 != 0) && pending(slot)
            }),
            None => u32::MAX,
        }
    }

    /// Finds the BARs that decode anew; returns whether they changed.
    fn rebuild(&mut self) -> bool {
        self.scratch.clear();
        for (slot, function) in (0u8..).zip(self.slots.iter().map(Slot::function)) {
            let Some(function) = function.filter(|function| function.memory_enabled()) else {
                continue;
            };
            for bar in 0..BARS {
                let Some((base, size)) = function.programmed(bar) else {
                    continue;
                };
                let Windows { mem32, mem64 } = self.windows;
                if !mem32.holds(base, size) && !mem64.holds(base, size) {
                    continue;
                }
                // In a window, so neither sum overflows; the check costs nothing here.
                let overlaps = |other: &BarMapping| {
                    base < other.base.saturating_add(other.size)
                        && other.base < base.saturating_add(size)
                };
                if !self.scratch.iter().any(overlaps) {
                    self.scratch.push(BarMapping {
                        base,
                        size,
                        slot,
                        bar: bar as u8,
                    });
                }
            }
        }
        sort::by_key(&mut self.scratch, |mapping| mapping.base);
        let changed = self.scratch != self.mappings;
        core::mem::swap(&mut self.scratch, &mut self.mappings);
        changed
    }
}

/// The host bridge's interrupt line, 0 to 3, that `pin` (1 to 4) of the function in `slot` drives
/// (PCI-to-PCI Bridge Architecture Specification 1.2, table 9-1). `None` without a pin.
pub const fn intx_line(slot: u8, pin: u8) -> Option<u8> {
    match pin {
        1..=4 => Some(slot.wrapping_add(pin).wrapping_sub(1) % 4),
        _ => None,
    }
}

const fn aligned(offset: u64, width: Width) -> bool {
    offset & width.bytes().wrapping_sub(1) == 0
}

const fn shift(offset: u64) -> u32 {
    ((offset & 3) as u32).wrapping_mul(8)
}
