//! The GICv2m frame: where a message turns into a shared interrupt.
//!
//! Chosen over an ITS because its whole state is the interrupt controller's: a message's data names an SPI, and there are no tables
//! in the domain's memory that Baton would have to walk. It goes with either GIC version, and Linux looks for one below a GICv3
//! that has no LPIs. Address and SPIs are those that QEMU `virt` gives its own.
//!
//! Source: Server Base System Architecture 3.0 (Arm DEN 0029), appendix E.

use crate::guest_tree::layout::{V2M_BASE, V2M_FIRST, V2M_SPIS};
use crate::vpci::Message;
use coproc_core::register::Width;

/// MSI_TYPER, read-only: the first INTID in bits 25:16, their number in 9:0.
const TYPER: u64 = 0x008;
/// MSI_SETSPI_NS, write-only: the INTID in bits 9:0.
const SETSPI: u64 = 0x040;
/// MSI_IIDR, read-only: who made it.
const IIDR: u64 = 0xfcc;

/// Product 'B', no implementer's code: nothing that a driver has a workaround for.
const IIDR_VALUE: u32 = 0x4200_0000;

/// A load from the frame. Registers are 32 bits wide; other widths and what can't be read give zero.
pub fn read(offset: u64, width: Width) -> u64 {
    if width != Width::Word {
        return 0;
    }
    u64::from(match offset {
        TYPER => V2M_FIRST << 16 | V2M_SPIS,
        IIDR => IIDR_VALUE,
        _ => 0,
    })
}

/// A store to the frame: the INTID that becomes pending, if any. MSI_SETSPI_NS takes 16 bits, too.
pub fn write(offset: u64, width: Width, value: u64) -> Option<u32> {
    match width {
        Width::Half | Width::Word if offset == SETSPI => spi(value as u32 & 0x3ff),
        _ => None,
    }
}

/// The INTID that a function's message makes pending. `None`: the message goes anywhere but to this frame, or its data is
/// none of the frame's interrupts.
pub fn target(message: Message) -> Option<u32> {
    let register = V2M_BASE.wrapping_add(SETSPI);
    (message.address == register)
        .then(|| spi(u32::from(message.data)))
        .flatten()
}

fn spi(intid: u32) -> Option<u32> {
    (intid.wrapping_sub(V2M_FIRST) < V2M_SPIS).then_some(intid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DOORBELL: u64 = 0x0802_0040;

    fn word(offset: u64) -> u64 {
        read(offset, Width::Word)
    }

    /// What Linux's driver asks for (irq-gic-v2m.c): a first SPI from 32 on, a number that doesn't lead past 1019, and a maker
    /// that none of its workarounds are for.
    #[test]
    fn the_registers_are_what_linux_wants() {
        let (first, count) = (word(TYPER) >> 16 & 0x3ff, word(TYPER) & 0x3ff);
        assert_eq!((first, count), (80, 64), "as on QEMU's board");
        assert!(![0x0600_0170, 0x0000_013f].contains(&word(IIDR)));
        assert_eq!(word(SETSPI), 0, "write-only");
        assert_eq!(word(0), 0);
        assert_eq!(read(TYPER, Width::Byte), 0);
    }

    #[test]
    fn a_message_reaches_the_frame_or_nothing() {
        let to = |address, data| target(Message { address, data });
        assert_eq!(to(DOORBELL, 80), Some(80));
        assert_eq!(to(DOORBELL, 143), Some(143));
        for data in [0, 33, 79, 144, 80 | 1 << 10, u16::MAX] {
            assert_eq!(to(DOORBELL, data), None, "{data}");
        }
        for address in [0, DOORBELL + 4, DOORBELL | 1 << 32, 0x4000_0000, u64::MAX] {
            assert_eq!(to(address, 80), None, "{address:#x}");
        }
    }

    #[test]
    fn the_domain_can_ring_itself() {
        assert_eq!(write(SETSPI, Width::Word, 0xffff_0050), Some(80));
        assert_eq!(write(SETSPI, Width::Half, 143), Some(143));
        assert_eq!(write(SETSPI, Width::Byte, 80), None);
        assert_eq!(write(SETSPI, Width::Word, 79), None);
        assert_eq!(write(TYPER, Width::Word, 80), None);
    }

    proptest! {
        #[test]
        fn only_its_own_interrupts_ever_come_of_it(offset: u64, value: u64, address: u64, data: u16) {
            let widths = [Width::Byte, Width::Half, Width::Word, Width::Double];
            let written = widths.map(|width| write(offset & 0xfff, width, value));
            for intid in written.into_iter().chain([target(Message { address, data })]).flatten() {
                prop_assert!((80..144).contains(&intid));
            }
            for width in widths {
                prop_assert_eq!(read(offset & 0xfff, width) & !width.mask(), 0);
            }
        }
    }
}
