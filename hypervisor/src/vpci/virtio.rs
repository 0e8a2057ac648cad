//! Whether a virtio function keeps to what an IOMMU lets it reach.
//!
//! It is the one kind of function whose DMA may go past the IOMMU that the device tree puts in front of it: without
//! VIRTIO_F_ACCESS_PLATFORM it takes physical addresses and reaches all memory, as QEMU's do unless they are told otherwise. Whoever had
//! such a function would have the machine.
//!
//! Source: Virtual I/O Device 1.2, 4.1.2 (ids), 4.1.4 (capabilities), 4.1.4.3 (common configuration), 6 (VIRTIO_F_ACCESS_PLATFORM).

use super::description::FunctionDescription;

const VENDOR: u16 = 0x1af4;
/// Device ids, of transitional functions, too.
const DEVICES: core::ops::RangeInclusive<u16> = 0x1000..=0x107f;
/// The capability's type that leads to the common configuration.
const COMMON: u32 = 1;
/// There: which 32 feature bits are shown, and they.
const FEATURE_SELECT: u64 = 0;
const FEATURES: u64 = 4;
/// VIRTIO_F_ACCESS_PLATFORM, bit 33: in the second 32 bits.
const ACCESS_PLATFORM: u32 = 1 << 1;

/// Registers of a function.
pub trait Registers {
    /// Reads 32 bits at `offset` in BAR `bar`; all ones if there are none.
    fn read32(&mut self, bar: u8, offset: u64) -> u32;
    /// Writes them.
    fn write32(&mut self, bar: u8, offset: u64, value: u32);
}

/// Where a virtio function's common configuration is: BAR and offset. `None` if it has none that can be.
fn common(description: &FunctionDescription) -> Option<(u8, u64)> {
    description.vendor_specific.each().find_map(|words| {
        let [head, place, offset, ..] = *words else {
            return None;
        };
        let bar = place as u8;
        let size = description.bars.get(usize::from(bar)).copied()??.size;
        let offset = u64::from(offset);
        let end = offset.checked_add(FEATURES)?.checked_add(4)?;
        (head >> 24 == COMMON && offset & 3 == 0 && end <= size).then_some((bar, offset))
    })
}

/// Whether the function may pass the IOMMU by. Its BARs decode, its driver isn't there: the select register is written.
pub fn passes_iommu_by(description: &FunctionDescription, registers: &mut impl Registers) -> bool {
    if description.vendor != VENDOR || !DEVICES.contains(&description.device) {
        return false;
    }
    // A legacy one has none, and knows no IOMMU.
    let Some((bar, common)) = common(description) else {
        return true;
    };
    registers.write32(bar, common.saturating_add(FEATURE_SELECT), 1);
    let features = registers.read32(bar, common.saturating_add(FEATURES));
    features == u32::MAX || features & ACCESS_PLATFORM == 0
}

#[cfg(test)]
mod tests {
    use super::super::{Bar, VendorSpecific};
    use super::*;
    use alloc::vec;
    use alloc::vec::Vec;

    /// BAR 4 of 16 KiB with the common configuration at 0x1000.
    struct Function {
        features: [u32; 2],
        select: u32,
        log: Vec<(u8, u64)>,
    }

    impl Registers for Function {
        fn read32(&mut self, bar: u8, offset: u64) -> u32 {
            self.log.push((bar, offset));
            match (bar, offset) {
                (4, 0x1004) => self.features[self.select as usize],
                _ => u32::MAX,
            }
        }
        fn write32(&mut self, bar: u8, offset: u64, value: u32) {
            assert_eq!((bar, offset), (4, 0x1000));
            self.select = value;
        }
    }

    fn description(device: u16, capabilities: &[[u32; 4]]) -> FunctionDescription {
        let mut vendor_specific = VendorSpecific::none();
        for words in capabilities {
            assert!(vendor_specific.push(words.iter().copied()));
        }
        let mut bars = [None; 6];
        bars[4] = Some(Bar {
            size: 0x4000,
            wide: true,
            prefetchable: true,
        });
        FunctionDescription {
            vendor: VENDOR,
            device,
            bars,
            vendor_specific,
            ..FunctionDescription::host_bridge()
        }
    }

    /// Capabilities of 16 bytes: notification at 0, then common configuration.
    const BOTH: [[u32; 4]; 2] = [
        [0x0210_0009, 4, 0x3000, 0x1000],
        [0x0110_0009, 4, 0x1000, 0x38],
    ];

    fn passes(description: &FunctionDescription, features: [u32; 2]) -> (bool, Vec<(u8, u64)>) {
        let mut function = Function {
            features,
            select: 0,
            log: vec![],
        };
        let passes = passes_iommu_by(description, &mut function);
        (passes, function.log)
    }

    #[test]
    fn one_that_keeps_to_the_platforms_addresses_says_so() {
        let virtio = description(0x1042, &BOTH);
        assert_eq!(passes(&virtio, [0, 0b10]), (false, vec![(4, 0x1004)]));
        assert!(
            passes(&virtio, [u32::MAX, 0b01]).0,
            "VIRTIO_F_VERSION_1 alone"
        );
        assert!(passes(&virtio, [0, u32::MAX]).0, "it doesn't answer");
    }

    #[test]
    fn what_cannot_say_so_passes_by() {
        let place = |bar, offset| [[0x0110_0009, bar, offset, 0x38]];
        for list in [
            &[][..],
            &BOTH[..1],
            &place(3, 0),
            &place(4, 0x3ffc),
            &place(4, 2),
            &place(9, 0),
        ] {
            assert_eq!(passes(&description(0x1001, list), [0, 2]), (true, vec![]));
        }
    }

    #[test]
    fn other_functions_are_what_the_tree_says() {
        let shared_memory = description(0x1110, &[]);
        assert_eq!(passes(&shared_memory, [0, 0]), (false, vec![]));
        let other = FunctionDescription {
            vendor: 0x1b36,
            ..description(0x1042, &BOTH)
        };
        assert_eq!(passes(&other, [0, 0]), (false, vec![]));
    }
}
