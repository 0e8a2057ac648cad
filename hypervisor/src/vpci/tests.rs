//! Tests of the virtual bridge against what Linux does to it, and of the physical side against a
//! function modelled by the virtual one.

use super::header::command;
use super::*;
use alloc::vec;
use alloc::vec::Vec;
use coproc_core::address::HostPhysical;
use coproc_core::register::Width;
use proptest::prelude::*;

const ECAM: u64 = 1 << 28;
const WINDOWS: Windows = Windows {
    mem32: Window {
        base: 0x1000_0000,
        size: 0x2eff_0000,
    },
    mem64: Window {
        base: 0x80_0000_0000,
        size: 0x80_0000_0000,
    },
};
const NONE: [Option<Bar>; 6] = [None; 6];

fn edu() -> FunctionDescription {
    let mut bars = NONE;
    bars[0] = Some(Bar {
        size: 1 << 20,
        wide: false,
        prefetchable: false,
    });
    FunctionDescription {
        vendor: 0x1234,
        device: 0x11e8,
        class: 0x00ff00,
        revision: 0x10,
        subsystem_vendor: 0x1af4,
        subsystem: 0x1100,
        bars,
        interrupt_pin: 1,
        msi: false,
        vendor_specific: VendorSpecific::none(),
    }
}

fn wide() -> FunctionDescription {
    let mut bars = NONE;
    bars[0] = Some(Bar {
        size: 0x4000,
        wide: true,
        prefetchable: true,
    });
    bars[2] = Some(Bar {
        size: 1 << 33,
        wide: true,
        prefetchable: true,
    });
    bars[4] = Some(Bar {
        size: 16,
        wide: false,
        prefetchable: false,
    });
    FunctionDescription {
        device: 0x77,
        bars,
        ..edu()
    }
}

/// Two vendor-specific capabilities, the first one of a length that isn't a multiple of four; where they lead to means nothing.
const CAPABILITIES: [&[u32]; 2] = [&[0x010e_aa09, 1, 2, 3], &[0x0314_0009, 4, 5, 6, 7]];

fn virtio(msi: bool) -> FunctionDescription {
    let mut vendor_specific = VendorSpecific::none();
    for words in CAPABILITIES {
        assert!(vendor_specific.push(words.iter().copied()));
    }
    FunctionDescription {
        msi,
        vendor_specific,
        ..edu()
    }
}

fn bus() -> VirtualBus {
    let mut bus = VirtualBus::new(WINDOWS, ECAM);
    bus.attach(1, edu()).unwrap();
    bus
}

const fn at(slot: u64, register: u64) -> u64 {
    slot << 15 | register
}

fn read(bus: &VirtualBus, offset: u64, width: Width) -> u64 {
    bus.read(offset, width, |_| false)
}

fn word(bus: &VirtualBus, offset: u64) -> u64 {
    read(bus, offset, Width::Word)
}

/// Sizing as Linux's `__pci_size_bars` does it; returns the register's value and its mask.
fn size_as_linux(bus: &mut VirtualBus, offset: u64) -> (u64, u64) {
    let before = word(bus, offset);
    bus.write(offset, Width::Word, 0xffff_ffff);
    let mask = word(bus, offset);
    bus.write(offset, Width::Word, before);
    assert_eq!(word(bus, offset), before);
    (before, mask)
}

#[test]
fn slot_0_is_a_host_bridge_and_the_rest_is_absent() {
    let bus = bus();
    assert_eq!(word(&bus, at(0, 0)), 0x0008_1b36);
    assert_eq!(word(&bus, at(0, 8)) >> 8, 0x06_0000);
    assert_eq!(word(&bus, at(2, 0)), 0xffff_ffff);
    assert_eq!(word(&bus, at(1, 0) | 1 << 12), 0xffff_ffff, "function 1");
    assert_eq!(word(&bus, 1 << 20), 0xffff_ffff, "bus 1");
    assert_eq!(word(&bus, ECAM), 0xffff_ffff, "past the window");
    let small = VirtualBus::new(WINDOWS, 1 << 20);
    assert_eq!(word(&small, 1 << 20), 0xffff_ffff);
}

#[test]
fn the_header_shows_the_description() {
    let bus = bus();
    assert_eq!(word(&bus, at(1, 0)), 0x11e8_1234);
    assert_eq!(word(&bus, at(1, 8)), 0x00ff_0010);
    assert_eq!(word(&bus, at(1, 0x2c)), 0x1100_1af4);
    assert_eq!(read(&bus, at(1, 0x0e), Width::Byte), 0, "header type");
    assert_eq!(read(&bus, at(1, 0x3d), Width::Byte), 1, "interrupt pin");
    assert_eq!(word(&bus, at(1, 0x30)), 0, "no ROM");
    assert_eq!(word(&bus, at(1, 0x100)), 0, "no extended capabilities");
}

/// The list of a function's capabilities, as drivers follow it: each one's words, without the pointer to the next.
fn capabilities(bus: &VirtualBus, slot: u64) -> Vec<Vec<u64>> {
    let mut list = vec![];
    let mut next = match read(bus, at(slot, 6), Width::Half) & 0x10 {
        0 => 0,
        _ => read(bus, at(slot, 0x34), Width::Byte),
    };
    while next != 0 {
        let head = word(bus, at(slot, next));
        let bytes = match head & 0xff {
            5 => 0x18,
            _ => head >> 16 & 0xff,
        };
        let mut words = vec![head & !0xff00];
        words.extend(
            (4..bytes)
                .step_by(4)
                .map(|from| word(bus, at(slot, next + from))),
        );
        list.push(words);
        next = head >> 8 & 0xff;
        assert!(list.len() < 48, "a circle");
    }
    list
}

#[test]
fn vendor_specific_capabilities_are_shown_and_constant() {
    let shown = CAPABILITIES.map(|words| {
        let mut words: Vec<_> = words.iter().map(|word| u64::from(*word)).collect();
        words[0] &= !0xff00;
        words
    });
    let mut bus = bus();
    bus.attach(2, virtio(false)).unwrap();
    bus.attach(3, virtio(true)).unwrap();
    assert_eq!(capabilities(&bus, 1), [[0; 0]; 0]);
    assert_eq!(capabilities(&bus, 2), shown);
    let with_msi = capabilities(&bus, 3);
    assert_eq!(with_msi[0][0], 0x0180_0005);
    assert_eq!(with_msi[1..], shown);
    for register in (0x58..0x100).step_by(4) {
        let before = word(&bus, at(2, register));
        let effect = bus.write(at(2, register), Width::Word, !before);
        assert!(effect.is_none());
        assert_eq!(word(&bus, at(2, register)), before);
    }
}

#[test]
fn as_many_vendor_specific_capabilities_as_have_room_are_shown() {
    let mut vendor_specific = VendorSpecific::none();
    // 42 words: from 0x58 to the end of 256 bytes.
    let mut room = |words: u32| vendor_specific.push([0x09; 42].into_iter().take(words as usize));
    assert!(room(30) && !room(13) && room(12) && !room(1));
}

#[test]
fn bars_are_sized_as_linux_does_it() {
    let mut bus = bus();
    bus.attach(2, wide()).unwrap();
    assert_eq!(size_as_linux(&mut bus, at(1, 0x10)), (0, 0xfff0_0000));
    assert_eq!(size_as_linux(&mut bus, at(1, 0x14)), (0, 0));
    assert_eq!(size_as_linux(&mut bus, at(1, 0x30)), (0, 0));
    assert_eq!(size_as_linux(&mut bus, at(2, 0x10)), (0xc, 0xffff_c00c));
    assert_eq!(size_as_linux(&mut bus, at(2, 0x14)), (0, 0xffff_ffff));
    assert_eq!(size_as_linux(&mut bus, at(2, 0x18)), (0xc, 0xc));
    assert_eq!(size_as_linux(&mut bus, at(2, 0x1c)), (0, 0xffff_fffe));
    assert_eq!(size_as_linux(&mut bus, at(2, 0x20)), (0, 0xffff_fff0));
}

#[test]
fn a_bar_decodes_when_enabled_and_inside_a_window_only() {
    let mut bus = bus();
    let none = Effect::none(1);
    assert_eq!(bus.write(at(1, 0x10), Width::Word, 0x1010_0000), none);
    assert_eq!(bus.bar_address(1, 0), None);
    let moved = Effect {
        bars_moved: true,
        ..none
    };
    assert_eq!(bus.write(at(1, 4), Width::Half, 0x2), moved);
    assert_eq!(bus.bar_address(1, 0), Some(0x1010_0000));
    assert_eq!(bus.find(0x1010_0000), Some((1, 0, 0)));
    assert_eq!(bus.find(0x101f_ffff), Some((1, 0, 0xf_ffff)));
    assert_eq!(bus.find(0x1020_0000), None);
    assert_eq!(bus.find(0x100f_ffff), None);
    assert_eq!(
        bus.write(at(1, 0x10), Width::Word, 0x1010_0000),
        none,
        "same again"
    );
    assert_eq!(
        bus.write(at(1, 0x10), Width::Word, 0x4000_0000),
        moved,
        "onto RAM"
    );
    assert_eq!(bus.find(0x4000_0000), None);
    assert_eq!(
        bus.write(at(1, 0x10), Width::Word, 0x3ef0_0000),
        none,
        "crosses the end"
    );
    assert_eq!(
        bus.write(at(1, 0x10), Width::Word, 0x3ee0_0000),
        moved,
        "the last one fits"
    );
    bus.reset();
    assert!(bus.mappings().is_empty());
}

#[test]
fn a_64_bit_bar_moves_by_halves() {
    let mut bus = bus();
    bus.attach(2, wide()).unwrap();
    bus.write(at(2, 4), Width::Word, 2);
    assert!(!bus.write(at(2, 0x18), Width::Word, 0).bars_moved);
    assert!(bus.write(at(2, 0x1c), Width::Word, 0x80).bars_moved);
    assert_eq!(bus.find(0x81_ffff_ffff), Some((2, 2, 0x1_ffff_ffff)));
    assert!(
        bus.write(at(2, 0x10), Width::Double, 0x84_0000_4000)
            .bars_moved,
        "both halves at once"
    );
    assert_eq!(bus.bar_address(2, 0), Some(0x84_0000_4000));
    assert_eq!(read(&bus, at(2, 0x10), Width::Double), 0x84_0000_400c);
}

#[test]
fn of_two_overlapping_bars_the_lower_slot_decodes() {
    let mut bus = bus();
    bus.attach(2, edu()).unwrap();
    for slot in [2, 1] {
        bus.write(at(slot, 0x10), Width::Word, 0x2000_0000);
        assert!(bus.write(at(slot, 4), Width::Word, 2).bars_moved);
    }
    assert_eq!(bus.mappings().len(), 1);
    assert_eq!(bus.find(0x2000_0000), Some((1, 0, 0)));
    assert!(bus.write(at(1, 4), Width::Word, 0).bars_moved);
    assert_eq!(bus.find(0x2000_0000), Some((2, 0, 0)));
}

#[test]
fn command_and_status_in_one_word() {
    let mut bus = bus();
    let effect = bus.write(at(1, 4), Width::Word, 0xffff_ffff);
    assert_eq!(effect.intx_disabled, Some(true));
    assert_eq!(effect.bus_master, Some(true));
    assert_eq!(bus.read(at(1, 4), Width::Word, |_| true), 0x0008_0407);
    assert_eq!(bus.read(at(1, 6), Width::Half, |slot| slot == 1), 0x0008);
    assert_eq!(
        bus.read(at(1, 4), Width::Half, |_| panic!("Status isn't read")),
        0x0407
    );
    assert_eq!(bus.read(at(1, 7), Width::Byte, |_| true), 0);
    assert!(bus.function(1).unwrap().interrupt_disabled());
    let effect = bus.write(at(1, 5), Width::Byte, 0);
    assert_eq!(
        effect,
        Effect {
            intx_disabled: Some(false),
            ..Effect::none(1)
        }
    );
    assert_eq!(word(&bus, at(1, 4)), 0x7, "the other byte keeps its value");
    assert!(bus.write(at(1, 6), Width::Half, 0xffff).is_none());
}

#[test]
fn scratch_registers_hold_what_drivers_write() {
    let mut bus = bus();
    bus.write(at(1, 0x3c), Width::Byte, 0x2a);
    bus.write(at(1, 0x3d), Width::Byte, 0xff);
    assert_eq!(read(&bus, at(1, 0x3c), Width::Half), 0x012a);
    bus.write(at(1, 0x0c), Width::Half, 0x4010);
    assert_eq!(word(&bus, at(1, 0x0c)), 0x4010);
}

#[test]
fn unaligned_accesses_are_refused() {
    let mut bus = bus();
    assert_eq!(read(&bus, at(1, 1), Width::Half), 0xffff);
    assert_eq!(read(&bus, at(1, 2), Width::Word), 0xffff_ffff);
    assert_eq!(read(&bus, at(1, 4), Width::Double), u64::MAX);
    assert_eq!(read(&bus, at(1, 0), Width::Double), 0x11e8_1234);
    assert!(bus.write(at(1, 5), Width::Half, 0x2).is_none());
    assert_eq!(word(&bus, at(1, 4)), 0);
}

#[test]
fn slots_are_reserved_filled_and_emptied() {
    let mut bus = bus();
    assert_eq!(bus.reserve(0), Err(SlotError::Range(0)));
    assert_eq!(bus.reserve(32), Err(SlotError::Range(32)));
    assert_eq!(bus.reserve(1), Err(SlotError::Occupied(1)));
    assert_eq!(bus.free(), Some(2));
    bus.reserve(3).unwrap();
    assert_eq!(bus.reserved(), Some(3));
    assert_eq!(word(&bus, at(3, 0)), 0xffff_ffff);
    bus.attach(3, edu()).unwrap();
    assert_eq!(bus.reserved(), None);
    assert_eq!(bus.attach(3, edu()), Err(SlotError::Occupied(3)));
    bus.write(at(3, 0x10), Width::Word, 0x2000_0000);
    bus.write(at(3, 4), Width::Word, 2);
    assert!(bus.detach(3).unwrap().bars_moved);
    assert_eq!(bus.find(0x2000_0000), None);
    assert_eq!(word(&bus, at(3, 0)), 0xffff_ffff);
    assert!(bus.write(at(3, 4), Width::Word, 2).is_none());
    assert_eq!(bus.detach(3), Err(SlotError::Empty(3)));
    assert_eq!(bus.detach(0), Err(SlotError::Range(0)));
    assert_eq!(bus.reserved(), Some(3));
}

#[test]
fn interrupt_lines_are_swizzled_as_on_qemu_s_virt() {
    assert_eq!(intx_line(1, 1), Some(1));
    assert_eq!(intx_line(4, 1), Some(0));
    assert_eq!(intx_line(3, 2), Some(0));
    assert_eq!(intx_line(1, 0), None);
    assert_eq!(intx_line(1, 5), None);
}

#[test]
fn impossible_descriptions_are_refused() {
    let with = |index: usize, size, wide| {
        let mut description = edu();
        description.bars[index] = Some(Bar {
            size,
            wide,
            prefetchable: false,
        });
        description.validate()
    };
    assert_eq!(
        with(1, 24, false),
        Err(DescriptionError::Size { bar: 1, size: 24 })
    );
    assert_eq!(
        with(1, 8, false),
        Err(DescriptionError::Size { bar: 1, size: 8 })
    );
    assert_eq!(
        with(1, 0, true),
        Err(DescriptionError::Size { bar: 1, size: 0 })
    );
    assert_eq!(
        with(1, 1 << 32, false),
        Err(DescriptionError::Size {
            bar: 1,
            size: 1 << 32
        })
    );
    assert_eq!(with(1, 1 << 32, true), Ok(()));
    assert_eq!(with(5, 4096, true), Err(DescriptionError::Pair { bar: 5 }));
    let mut pair = wide();
    pair.bars[1] = pair.bars[4];
    assert_eq!(pair.validate(), Err(DescriptionError::Pair { bar: 0 }));
    let pin = FunctionDescription {
        interrupt_pin: 5,
        ..edu()
    };
    assert_eq!(pin.validate(), Err(DescriptionError::Pin { pin: 5 }));
}

/// A physical function: a virtual one, whose Status has an error bit that a written one clears.
struct Fake {
    bus: VirtualBus,
    status_error: bool,
    header_type: u8,
    /// Every write, with whether memory was decoding at that time.
    log: Vec<(u16, u32, bool)>,
}

const THERE: FunctionAddress = FunctionAddress {
    bus: 0,
    device: 1,
    function: 0,
};

impl Fake {
    fn new(description: FunctionDescription) -> Self {
        let mut bus = VirtualBus::new(WINDOWS, ECAM);
        bus.attach(1, description).unwrap();
        Self {
            bus,
            status_error: true,
            header_type: 0x80,
            log: vec![],
        }
    }
}

impl ConfigAccess for Fake {
    fn read32(&mut self, function: FunctionAddress, offset: u16) -> u32 {
        assert_eq!(offset % 4, 0);
        let mut value = self.bus.read(
            function.ecam_offset() | u64::from(offset),
            Width::Word,
            |_| true,
        ) as u32;
        if function == THERE && offset == 4 && self.status_error {
            value |= 1 << 31;
        }
        if function == THERE && offset == 0xc {
            value |= u32::from(self.header_type) << 16;
        }
        value
    }

    fn write32(&mut self, function: FunctionAddress, offset: u16, value: u32) {
        let decoding = self.bus.function(1).unwrap().memory_enabled();
        self.log.push((offset, value, decoding));
        if offset == 4 && value >> 31 != 0 {
            self.status_error = false;
        }
        self.bus.write(
            function.ecam_offset() | u64::from(offset),
            Width::Word,
            value.into(),
        );
    }
}

fn host_windows() -> WindowAllocator {
    WindowAllocator::new([
        HostWindow {
            bus: 0x1000_0000,
            host: HostPhysical::new(0x1000_0000),
            size: 0x2eff_0000,
        },
        HostWindow {
            bus: 0x80_0000_0000,
            host: HostPhysical::new(0x90_0000_0000),
            size: 1 << 39,
        },
    ])
}

#[test]
fn a_physical_function_is_described_and_left_as_it_was() {
    let with_msi = FunctionDescription { msi: true, ..edu() };
    for description in [edu(), wide(), with_msi, virtio(false), virtio(true)] {
        let mut fake = Fake::new(description.clone());
        fake.write32(THERE, 0x10, 0x1230_0000);
        fake.write32(
            THERE,
            4,
            u32::from(command::MEMORY_SPACE | command::BUS_MASTER),
        );
        fake.log.clear();
        let before = fake.bus.function(1).unwrap().programmed(0);
        assert_eq!(describe(&mut fake, THERE), Ok(description));
        assert_eq!(fake.bus.function(1).unwrap().programmed(0), before);
        assert_eq!(fake.read32(THERE, 4) & 0xffff, 6);
        assert!(fake.status_error, "no one was written to Status");
        let sized_while_decoding = fake
            .log
            .iter()
            .any(|(offset, _, decoding)| *offset != 4 && *decoding);
        assert!(!sized_while_decoding);
    }
}

#[test]
fn what_is_not_an_ordinary_function_is_refused() {
    let mut fake = Fake::new(edu());
    let absent = FunctionAddress { device: 9, ..THERE };
    assert_eq!(
        describe(&mut fake, absent),
        Err(PhysicalError::Absent(absent))
    );
    fake.header_type = 0x81;
    assert_eq!(
        describe(&mut fake, THERE),
        Err(PhysicalError::HeaderType(THERE, 1))
    );
    assert!(fake.log.is_empty());
}

#[test]
fn bars_without_firmware_get_addresses() {
    let mut windows = host_windows();
    let mut fake = Fake::new(edu());
    let placed = assign_bars(&mut fake, THERE, &edu(), &mut windows).unwrap();
    let first = placed[0].unwrap();
    assert_eq!((first.bus, first.size), (0x1000_0000, 1 << 20));
    assert_eq!(
        fake.bus.function(1).unwrap().programmed(0),
        Some((0x1000_0000, 1 << 20))
    );
    assert_eq!(fake.bus.bar_address(1, 0), None, "decoding stays off");
    set_memory_decode(&mut fake, THERE, true);
    assert_eq!(fake.bus.bar_address(1, 0), Some(0x1000_0000));

    let mut other = Fake::new(wide());
    let placed = assign_bars(&mut other, THERE, &wide(), &mut windows).unwrap();
    assert_eq!(placed[0].unwrap().bus, 0x80_0000_0000);
    assert_eq!(
        placed[0].unwrap().address,
        HostPhysical::new(0x90_0000_0000)
    );
    assert_eq!(
        placed[2].unwrap().bus,
        0x82_0000_0000,
        "aligned to its size"
    );
    assert_eq!(
        placed[4].unwrap().bus,
        0x1010_0000,
        "after the first function's"
    );
    assert!(placed[1].is_none() && placed[3].is_none() && placed[5].is_none());
}

#[test]
fn bars_that_firmware_assigned_stay_unless_they_clash() {
    let mut windows = host_windows();
    for expected in [0x1230_0000, 0x1000_0000] {
        let mut fake = Fake::new(edu());
        fake.write32(THERE, 0x10, 0x1230_0000);
        fake.write32(THERE, 4, 2);
        let placed = assign_bars(&mut fake, THERE, &edu(), &mut windows).unwrap();
        assert_eq!(placed[0].unwrap().bus, expected);
        assert_eq!(fake.bus.bar_address(1, 0), Some(expected), "decodes again");
    }
}

#[test]
fn full_windows_are_an_error() {
    let host = HostPhysical::new(0x1000_0000);
    let mut windows = WindowAllocator::new([HostWindow {
        bus: 0x1000_0000,
        host,
        size: 0x18_0000,
    }]);
    let mut fake = Fake::new(edu());
    assert!(assign_bars(&mut fake, THERE, &edu(), &mut windows).is_ok());
    let mut fake = Fake::new(edu());
    let error = assign_bars(&mut fake, THERE, &edu(), &mut windows);
    assert_eq!(error, Err(PhysicalError::NoRoom(THERE, 0, 1 << 20)));
}

#[test]
fn physical_messages_are_switched_off() {
    for msi in [true, false] {
        let mut fake = Fake::new(FunctionDescription { msi, ..edu() });
        disable_messages(&mut fake, THERE);
        assert!(fake.log.is_empty(), "they are off");
        fake.write32(THERE, 0x40, 1 << 16);
        assert_eq!(fake.bus.function(1).unwrap().msi().enabled(), msi);
        disable_messages(&mut fake, THERE);
        assert!(!fake.bus.function(1).unwrap().msi().enabled());
        assert!(fake.status_error);
    }
}

/// Capabilities that lead in a circle, or into the header.
#[test]
fn a_damaged_list_of_capabilities_has_an_end() {
    struct Circle(u32, u32);
    impl ConfigAccess for Circle {
        fn read32(&mut self, _: FunctionAddress, offset: u16) -> u32 {
            match offset {
                4 => 1 << 20,
                0x34 => self.0,
                _ => self.1,
            }
        }
        fn write32(&mut self, _: FunctionAddress, _: u16, _: u32) {
            panic!("there is no MSI");
        }
    }
    for (first, next) in [(0x40, 0x4009), (0x40, 0), (0x10, 5), (0xff, 0xff00)] {
        disable_messages(&mut Circle(first, next), THERE);
    }
    // The same one again and again, until there is no room; one that says to be longer than what is left.
    let copied = |head| physical::vendor_specific(&mut Circle(0xfc, head), THERE);
    assert_eq!(copied(0x0004_fc09).each().count(), 42);
    assert_eq!(copied(0x0008_fc09).each().count(), 0);
}

#[test]
fn command_bits_change_one_by_one() {
    let mut fake = Fake::new(edu());
    set_interrupt_disable(&mut fake, THERE, true);
    set_bus_master(&mut fake, THERE, true);
    assert_eq!(fake.read32(THERE, 4) & 0xffff, 0x404);
    set_interrupt_disable(&mut fake, THERE, false);
    assert_eq!(fake.read32(THERE, 4) & 0xffff, 0x004);
    assert!(interrupt_status(&mut fake, THERE));
    assert!(!interrupt_status(
        &mut fake,
        FunctionAddress { device: 9, ..THERE }
    ));
    assert!(fake.status_error);
    assert_eq!(THERE.requester_id(), 8);
    assert_eq!(alloc::format!("{THERE}"), "00:01.0");
}

fn any_width() -> impl Strategy<Value = Width> {
    prop::sample::select(vec![Width::Byte, Width::Half, Width::Word, Width::Double])
}

proptest! {
    #[test]
    fn random_accesses_keep_the_mappings_sound(
        steps in proptest::collection::vec(
            (any::<bool>(), prop_oneof![0u64..4 << 15, 0x8000u64..0x8040, 0x10000u64..0x10040, any::<u64>()],
             any_width(), prop_oneof![any::<u64>(), 0u64..8, Just(0x2000_0000u64), Just(u64::MAX)]), 0..200)
    ) {
        let mut bus = bus();
        bus.attach(2, wide()).unwrap();
        bus.attach(3, edu()).unwrap();
        for (is_write, offset, width, value) in steps {
            if is_write {
                let before = bus.mappings().to_vec();
                let effect = bus.write(offset, width, value & width.mask());
                prop_assert_eq!(effect.bars_moved, before != bus.mappings());
            } else {
                prop_assert_eq!(read(&bus, offset, width) & !width.mask(), 0);
            }
            let mut end = 0;
            for mapping in bus.mappings() {
                prop_assert!(mapping.base >= end, "sorted, none overlap");
                end = mapping.base + mapping.size;
                prop_assert!(WINDOWS.mem32.holds(mapping.base, mapping.size)
                    || WINDOWS.mem64.holds(mapping.base, mapping.size));
                let last = mapping.size - 1;
                let found = bus.find(mapping.base + last);
                prop_assert_eq!(found, Some((mapping.slot, mapping.bar, last)));
                prop_assert!(bus.function(mapping.slot).unwrap().memory_enabled());
            }
            prop_assert_eq!(word(&bus, at(1, 0)), 0x11e8_1234);
        }
    }

    #[test]
    fn narrow_reads_agree_with_wide_ones(register in 0u64..0x40, command in any::<u16>()) {
        let mut bus = bus();
        bus.write(at(1, 4), Width::Half, command.into());
        let whole = bus.read(at(1, register & !3), Width::Word, |_| true);
        let byte = bus.read(at(1, register), Width::Byte, |_| true);
        prop_assert_eq!(byte, whole >> (8 * (register & 3)) & 0xff);
        let half = bus.read(at(1, register & !1), Width::Half, |_| true);
        prop_assert_eq!(half, whole >> (8 * (register & 2)) & 0xffff);
    }
}
