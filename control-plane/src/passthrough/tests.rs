use super::*;
use crate::config::machine::{IntId, Interrupt, Trigger};
use crate::config::{Dma, PassedNode, PciFunction};
use crate::devicetree::Region;
use crate::guest_tree::layout::{PCI_MEM32_BASE, V2M_SPI, WATCHDOG_BASE, WATCHDOG_FRAME};
use alloc::vec;
use coproc_core::id::StreamId;
use proptest::prelude::*;

fn node(sizes: &[u64], interrupts: u32) -> Passed {
    Passed::Node(PassedNode {
        path: "/x".into(),
        name: "x".into(),
        registers: sizes
            .iter()
            .map(|size| Region {
                address: 0xe000_0000,
                size: *size,
            })
            .collect(),
        interrupts: (0..interrupts)
            .map(|number| Interrupt {
                intid: IntId::spi(number),
                trigger: Trigger::Level,
            })
            .collect(),
        dma: Dma::None,
        clocks: vec![],
        properties: vec![],
    })
}

fn function(device: u8) -> Passed {
    let function = PciFunction {
        segment: 0,
        bus: 0,
        device,
        function: 0,
    };
    Passed::Pci(function, StreamId(0))
}

#[test]
fn devices_follow_each_other() {
    let devices = [
        node(&[0x50, 0x1001], 1),
        function(1),
        node(&[4 << 20], 2),
        function(2),
    ];
    let places = plan(&devices, &[]).unwrap();
    let at = |place: &Place| -> Vec<(u64, u64)> {
        place
            .registers
            .iter()
            .map(|pages| (pages.at, pages.size))
            .collect()
    };
    assert_eq!(
        at(&places[0]),
        [(0x0c20_0000, 0x1000), (0x0c20_1000, 0x2000)]
    );
    assert_eq!(at(&places[2]), [(0x0c40_0000, 4 << 20)]);
    let spis: Vec<_> = places.iter().map(|place| place.spis.clone()).collect();
    assert_eq!(spis, [vec![16], vec![17], vec![18, 19], vec![20]]);
    let slots: Vec<_> = places.iter().map(|place| place.slot).collect();
    assert_eq!(slots, [None, Some(31), None, Some(30)]);
}

#[test]
fn what_does_not_fit_is_told() {
    assert_eq!(plan(&[node(&[0x400_0000], 0)], &[]), Err(Full::Registers));
    assert_eq!(plan(&[node(&[u64::MAX], 0)], &[]), Err(Full::Registers));
    assert_eq!(plan(&[node(&[0x1000], 33)], &[]), Err(Full::Interrupts));
    let functions: Vec<_> = (0..17).map(function).collect();
    assert_eq!(plan(&functions, &[]), Err(Full::Functions));
    assert!(plan(&functions[..16], &[]).is_ok());
}

proptest! {
    /// Nothing is in two places, or outside of its window, or shares a block that isn't its own's alignment.
    #[test]
    fn places_never_overlap(devices in prop::collection::vec((prop::collection::vec(1u64..0x60_0000, 0..4), 0u32..5), 0..8)) {
        let devices: Vec<_> = devices.iter().map(|(sizes, interrupts)| node(sizes, *interrupts)).collect();
        let Ok(places) = plan(&devices, &[]) else { return Ok(()) };
        let mut next = WATCHDOG_BASE + 2 * WATCHDOG_FRAME;
        let mut spi = 16;
        for (place, device) in places.iter().zip(&devices) {
            let Passed::Node(device) = device else { continue };
            prop_assert_eq!(place.registers.len(), device.registers.len());
            for (pages, region) in place.registers.iter().zip(&device.registers) {
                prop_assert!(pages.at >= next && pages.at % 4096 == 0 && pages.size % 4096 == 0);
                prop_assert!((region.size..region.size + 4096).contains(&pages.size));
                next = pages.at + pages.size;
            }
            for found in &place.spis {
                prop_assert_eq!(*found, spi);
                spi += 1;
            }
        }
        prop_assert!(next <= PCI_MEM32_BASE && spi <= V2M_SPI);
    }
}
