//! Shared memory between domains with a doorbell: the registers of the inter-VM shared memory device that QEMU documents.
//!
//! One of these is one domain's end of a region. Chosen because software for it exists everywhere and because
//! `uio_pci_generic` drives it: memory in one BAR, four registers in another. It is shown as revision 0 with its legacy
//! interrupt, which `uio_pci_generic` needs: a peer's ring sets Interrupt Status, reading that clears it, and the interrupt is
//! asserted while status and mask have a bit in common: INTA#, or one MSI message at each rise. In revision 1 only MSI-X interrupts.
//!
//! Source: QEMU, docs/specs/ivshmem-spec.rst.

use crate::vpci::{Bar, FunctionDescription, VendorSpecific};
use coproc_core::register::Width;

/// BAR of the registers.
pub const REGISTERS: u8 = 0;
/// BAR of the memory.
pub const MEMORY: u8 = 2;

const INTERRUPT_MASK: u64 = 0;
const INTERRUPT_STATUS: u64 = 4;
const POSITION: u64 = 8;
const DOORBELL: u64 = 12;

/// The function's header, for `size` bytes of memory: a power of two of at least [`SMALLEST`](crate::config::shared_memory::SMALLEST).
pub const fn description(size: u64) -> FunctionDescription {
    let registers = Bar {
        size: 256,
        wide: false,
        prefetchable: false,
    };
    let memory = Bar {
        size,
        wide: true,
        prefetchable: true,
    };
    FunctionDescription {
        vendor: 0x1af4,
        device: 0x1110,
        class: 0x05_0000,
        revision: 0,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        bars: [Some(registers), None, Some(memory), None, None, None],
        interrupt_pin: 1,
        msi: true,
        vendor_specific: VendorSpecific::none(),
    }
}

/// One end's registers.
#[derive(Clone, Debug)]
pub struct Registers {
    position: u16,
    mask: u32,
    status: u32,
}

impl Registers {
    /// Those of the peer with this number, after reset.
    pub const fn new(position: u16) -> Self {
        Self {
            position,
            mask: 0,
            status: 0,
        }
    }

    /// Whether the interrupt is asserted, before the function's Interrupt Disable.
    pub const fn interrupt_level(&self) -> bool {
        self.mask & self.status != 0
    }

    /// A load. All registers are 32 bits wide; other widths and undefined offsets read zero, without effect.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        if width != Width::Word {
            return 0;
        }
        let value = match offset {
            INTERRUPT_MASK => self.mask,
            INTERRUPT_STATUS => core::mem::take(&mut self.status),
            POSITION => u32::from(self.position),
            _ => 0,
        };
        u64::from(value)
    }

    /// A store. Returns the number of the peer that is to be rung, if it was to the doorbell. There is one vector, 0; what is
    /// meant for another one goes nowhere.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<u16> {
        if width != Width::Word {
            return None;
        }
        let value = value as u32;
        match offset {
            INTERRUPT_MASK => self.mask = value,
            INTERRUPT_STATUS => self.status = value,
            DOORBELL if value & 0xffff == 0 => return Some((value >> 16) as u16),
            _ => {}
        }
        None
    }

    /// A peer rings.
    pub const fn ring(&mut self) {
        self.status |= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::shared_memory::{LARGEST, SMALLEST};

    fn get(end: &mut Registers, offset: u64) -> u64 {
        end.read(offset, Width::Word)
    }

    fn set(end: &mut Registers, offset: u64, value: u64) -> Option<u16> {
        end.write(offset, Width::Word, value)
    }

    #[test]
    fn the_function_is_one_that_can_be_shown() {
        for size in [SMALLEST, 1 << 20, LARGEST] {
            assert_eq!(description(size).validate(), Ok(()));
        }
        assert!(description(SMALLEST + 1).validate().is_err());
    }

    #[test]
    fn a_ring_interrupts_until_the_status_is_read() {
        let mut end = Registers::new(3);
        assert_eq!(get(&mut end, POSITION), 3);
        end.ring();
        assert!(!end.interrupt_level(), "masked after reset");
        set(&mut end, INTERRUPT_MASK, 0xffff_ffff);
        assert!(end.interrupt_level());
        assert_eq!(end.read(INTERRUPT_STATUS, Width::Byte), 0);
        assert!(end.interrupt_level(), "only a whole read clears");
        assert_eq!(get(&mut end, INTERRUPT_STATUS), 1);
        assert!(!end.interrupt_level());
        assert_eq!(get(&mut end, INTERRUPT_STATUS), 0);
    }

    #[test]
    fn the_mask_selects() {
        let mut end = Registers::new(0);
        set(&mut end, INTERRUPT_MASK, 2);
        end.ring();
        assert!(!end.interrupt_level());
        set(&mut end, INTERRUPT_MASK, 1);
        assert!(end.interrupt_level());
        set(&mut end, INTERRUPT_MASK, 0);
        assert!(!end.interrupt_level());
        assert_eq!(get(&mut end, INTERRUPT_MASK), 0);
    }

    #[test]
    fn the_doorbell_names_a_peer_and_vector_0() {
        let mut end = Registers::new(0);
        assert_eq!(set(&mut end, DOORBELL, 0x0007_0000), Some(7));
        assert_eq!(set(&mut end, DOORBELL, 0xffff_0000), Some(0xffff));
        assert_eq!(set(&mut end, DOORBELL, 0x0007_0001), None);
        assert_eq!(end.write(DOORBELL, Width::Half, 0), None);
        assert_eq!(get(&mut end, DOORBELL), 0, "write-only");
        assert_eq!(set(&mut end, POSITION, 9), None);
        assert_eq!(get(&mut end, POSITION), 0, "read-only");
    }
}
