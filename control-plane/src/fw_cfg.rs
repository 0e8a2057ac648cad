//! QEMU's firmware configuration device: what U-Boot and UEFI ask the machine.
//!
//! A domain's device tree says all that there is to say, so this device has only what firmware built for QEMU `virt`
//! reads without asking whether it is there; what isn't there reads as zeroes, an item of length 0, as from QEMU. Requests by
//! DMA are carried out at once. They are served from small items only, and at most [`LONGEST`] bytes in one, so that an exit
//! stays short; a longer one is answered with the error bit.
//!
//! Source: QEMU, docs/specs/fw_cfg.rst.

use alloc::vec::Vec;
use coproc_core::register::Width;

/// Longest transfer in bytes.
pub const LONGEST: u32 = 0x4000;

/// Data register: 8 bytes, any width.
const DATA: u64 = 0;
/// Selector: 16 bits, big-endian.
const SELECTOR: u64 = 8;
/// Address of a request: 64 bits, big-endian.
const DMA: u64 = 16;
const DMA_LOW: u64 = 20;

const SIGNATURE: u16 = 0x00;
const IDENTIFICATION: u16 = 0x01;
const RAM_SIZE: u16 = 0x03;
const NO_GRAPHICS: u16 = 0x04;
const CPUS: u16 = 0x05;
const MOST_CPUS: u16 = 0x0f;
const DIRECTORY: u16 = 0x19;

/// Bits of a request's control word.
const ERROR: u32 = 1;
const READ: u32 = 1 << 1;
const SKIP: u32 = 1 << 2;
const SELECT: u32 = 1 << 3;
const WRITE: u32 = 1 << 4;

/// Bytes in a request: control, length, address.
const REQUEST: usize = 16;

/// A domain's RAM as this device reaches it. Each returns whether all of it was RAM.
pub trait GuestMemory {
    /// Reads from a guest-physical address.
    fn read(&mut self, at: u64, into: &mut [u8]) -> bool;
    /// Writes to one.
    fn write(&mut self, at: u64, bytes: &[u8]) -> bool;
}

/// The device, with what it knows.
#[derive(Clone, Debug)]
pub struct FwCfg {
    items: Vec<(u16, Vec<u8>)>,
    selected: u16,
    offset: usize,
    /// Upper half of a request's address, until the lower one comes.
    high: u32,
}

impl FwCfg {
    /// For a domain with `memory` bytes of RAM and `cpus` vCPUs.
    pub fn new(memory: u64, cpus: u16) -> Self {
        let item = |key: u16, bytes: &[u8]| (key, bytes.to_vec());
        Self {
            items: [
                item(SIGNATURE, b"QEMU"),
                // Bit 0: the registers, bit 1: DMA.
                item(IDENTIFICATION, &3u32.to_le_bytes()),
                item(RAM_SIZE, &memory.to_le_bytes()),
                item(NO_GRAPHICS, &1u16.to_le_bytes()),
                item(CPUS, &cpus.to_le_bytes()),
                item(MOST_CPUS, &cpus.to_le_bytes()),
                // No files.
                item(DIRECTORY, &0u32.to_be_bytes()),
            ]
            .into(),
            selected: SIGNATURE,
            offset: 0,
            high: 0,
        }
    }

    /// A load.
    pub fn read(&mut self, offset: u64, width: Width) -> u64 {
        match offset {
            DATA..SELECTOR => {
                let mut bytes = [0; 8];
                if let Some(part) = bytes.get_mut(..width.bytes() as usize) {
                    self.take(part);
                }
                // The bytes keep their order in the guest's memory, which is little-endian.
                u64::from_le_bytes(bytes)
            }
            DMA..24 => {
                let shift = ((offset & 7) as u32).wrapping_mul(8);
                u64::from_le_bytes(*b"QEMU CFG").wrapping_shr(shift) & width.mask()
            }
            _ => 0,
        }
    }

    /// A store. Returns the address of a request, if this makes one: [`Self::transfer`] carries it out.
    pub fn write(&mut self, offset: u64, width: Width, value: u64) -> Option<u64> {
        match (offset, width) {
            (SELECTOR, Width::Half) => self.select((value as u16).swap_bytes()),
            (DMA, Width::Double) => return Some(value.swap_bytes()),
            (DMA, Width::Word) => self.high = (value as u32).swap_bytes(),
            (DMA_LOW, Width::Word) => {
                let high = core::mem::take(&mut self.high);
                return Some(u64::from(high) << 32 | u64::from((value as u32).swap_bytes()));
            }
            // The data register is read-only since QEMU 2.4.
            _ => {}
        }
        None
    }

    /// Carries out the request at `at`.
    pub fn transfer(&mut self, memory: &mut impl GuestMemory, at: u64) {
        let mut request = [0; REQUEST];
        if !memory.read(at, &mut request) {
            return; // no place for an answer either
        }
        let request = u128::from_be_bytes(request);
        let (control, length) = ((request >> 96) as u32, (request >> 64) as u32);
        if control & SELECT != 0 {
            self.select((control >> 16) as u16);
        }
        let done = if control & READ != 0 {
            length <= LONGEST && self.copy(memory, request as u64, length as usize)
        } else if control & WRITE != 0 {
            false // nothing here can be written
        } else {
            if control & SKIP != 0 {
                self.offset = self.offset.saturating_add(length as usize);
            }
            true
        };
        let answer = if done { 0 } else { ERROR };
        memory.write(at, &answer.to_be_bytes());
    }

    fn copy(&mut self, memory: &mut impl GuestMemory, at: u64, length: usize) -> bool {
        // In pieces: a guest can't make Baton allocate.
        let mut piece = [0; 256];
        let mut at = at;
        let mut left = length;
        while left != 0 {
            let size = left.min(piece.len());
            let Some(part) = piece.get_mut(..size) else {
                return false;
            };
            self.take(part);
            if !memory.write(at, part) {
                return false;
            }
            at = at.wrapping_add(size as u64);
            left = left.saturating_sub(size);
        }
        true
    }

    fn select(&mut self, key: u16) {
        self.selected = key;
        self.offset = 0;
    }

    /// The next bytes of the selected item; behind its end zeroes.
    fn take(&mut self, into: &mut [u8]) {
        into.fill(0);
        let mut items = self.items.iter();
        let item = items.find(|(key, _)| *key == self.selected);
        let left = item.and_then(|(_, bytes)| bytes.get(self.offset..));
        for (to, from) in into.iter_mut().zip(left.unwrap_or(&[])) {
            *to = *from;
        }
        self.offset = self.offset.saturating_add(into.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// RAM at 0x1000.
    struct Ram(Vec<u8>);

    impl GuestMemory for Ram {
        fn read(&mut self, at: u64, into: &mut [u8]) -> bool {
            let Some(start) = at.checked_sub(0x1000).map(|start| start as usize) else {
                return false;
            };
            let end = start.checked_add(into.len());
            match end.and_then(|end| self.0.get(start..end)) {
                Some(bytes) => into.copy_from_slice(bytes),
                None => return false,
            }
            true
        }

        fn write(&mut self, at: u64, bytes: &[u8]) -> bool {
            let Some(start) = at.checked_sub(0x1000).map(|start| start as usize) else {
                return false;
            };
            let end = start.checked_add(bytes.len());
            match end.and_then(|end| self.0.get_mut(start..end)) {
                Some(place) => place.copy_from_slice(bytes),
                None => return false,
            }
            true
        }
    }

    fn device() -> FwCfg {
        FwCfg::new(0x1234_5678_9abc, 3)
    }

    fn select(device: &mut FwCfg, key: u16) {
        // As a driver on a little-endian CPU does: swapped.
        device.write(SELECTOR, Width::Half, key.swap_bytes().into());
    }

    fn bytes<const N: usize>(device: &mut FwCfg, key: u16) -> [u8; N] {
        select(device, key);
        [(); N].map(|()| device.read(DATA, Width::Byte) as u8)
    }

    fn request(control: u32, length: u32, address: u64) -> Vec<u8> {
        let parts = [control.to_be_bytes(), length.to_be_bytes()].concat();
        [parts, address.to_be_bytes().to_vec()].concat()
    }

    /// Carries out one request; the control word afterwards.
    fn carry_out(
        device: &mut FwCfg,
        ram: &mut Ram,
        control: u32,
        length: u32,
        address: u64,
    ) -> u32 {
        ram.0[..16].copy_from_slice(&request(control, length, address));
        let at = device.write(DMA, Width::Double, 0x1000u64.swap_bytes());
        device.transfer(ram, at.unwrap());
        u32::from_be_bytes(ram.0[..4].try_into().unwrap())
    }

    #[test]
    fn firmware_finds_it() {
        let mut device = device();
        assert_eq!(&bytes(&mut device, SIGNATURE), b"QEMU");
        assert_eq!(bytes(&mut device, IDENTIFICATION), [3, 0, 0, 0]);
        let signature = device.read(DMA, Width::Double).to_le_bytes();
        assert_eq!(&signature, b"QEMU CFG");
        assert_eq!(
            device.read(DMA_LOW, Width::Word),
            u64::from(u32::from_le_bytes(*b" CFG"))
        );
    }

    #[test]
    fn items_read_at_any_width_and_end_in_zeroes() {
        let mut device = device();
        select(&mut device, RAM_SIZE);
        assert_eq!(device.read(DATA, Width::Word), 0x5678_9abc);
        assert_eq!(device.read(DATA, Width::Half), 0x1234);
        assert_eq!(device.read(DATA, Width::Double), 0);
        assert_eq!(bytes(&mut device, CPUS), [3, 0, 0]);
        assert_eq!(bytes(&mut device, MOST_CPUS), [3, 0]);
        assert_eq!(bytes(&mut device, DIRECTORY), [0, 0, 0, 0]);
        assert_eq!(bytes(&mut device, 0x20), [0], "there is no such item");
    }

    #[test]
    fn a_request_reads_into_memory() {
        let (mut device, mut ram) = (device(), Ram(alloc::vec![0xaa; 64]));
        let control = READ | SELECT | u32::from(RAM_SIZE) << 16;
        assert_eq!(carry_out(&mut device, &mut ram, control, 10, 0x1020), 0);
        assert_eq!(
            ram.0[32..43],
            [0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12, 0, 0, 0, 0, 0xaa]
        );
        // Longer than a piece: zeroes up to the very end.
        let mut long = Ram(alloc::vec![0xaa; 16 + 1000]);
        assert_eq!(carry_out(&mut device, &mut long, control, 999, 0x1010), 0);
        assert_eq!(
            (long.0[16], long.0[22], long.0[1014], long.0[1015]),
            (0xbc, 0, 0, 0xaa)
        );
        // And goes on where it ended; without a selection.
        select(&mut device, SIGNATURE);
        assert_eq!(carry_out(&mut device, &mut ram, SKIP, 2, 0), 0);
        assert_eq!(carry_out(&mut device, &mut ram, READ, 2, 0x1030), 0);
        assert_eq!(ram.0[48..50], *b"MU");
    }

    #[test]
    fn the_address_may_come_in_halves() {
        let mut device = device();
        assert_eq!(
            device.write(DMA, Width::Word, 0x12u32.swap_bytes().into()),
            None
        );
        let low = u64::from(0x3456u32.swap_bytes());
        assert_eq!(
            device.write(DMA_LOW, Width::Word, low),
            Some(0x12_0000_3456)
        );
        assert_eq!(
            device.write(DMA_LOW, Width::Word, low),
            Some(0x3456),
            "used up"
        );
    }

    #[test]
    fn what_can_not_be_is_an_error() {
        let (mut device, mut ram) = (device(), Ram(alloc::vec![0; 64]));
        for (control, length, address) in [
            (READ, 4, 0x103e),
            (READ, LONGEST + 1, 0x1000),
            (WRITE, 2, 0x1010),
            (READ, 1, u64::MAX),
        ] {
            assert_eq!(
                carry_out(&mut device, &mut ram, control, length, address),
                ERROR
            );
        }
        let before = ram.0.clone();
        device.transfer(&mut ram, 0x1038);
        assert_eq!(ram.0, before, "a request that isn't wholly in RAM");
    }

    proptest! {
        #[test]
        fn no_access_panics(accesses in prop::collection::vec((0u64..32, 0u8..4, any::<u64>(), any::<bool>()), 0..50), contents in prop::collection::vec(any::<u8>(), 4096)) {
            let (mut device, mut ram) = (device(), Ram(contents));
            for (offset, width, value, write) in accesses {
                let width = [Width::Byte, Width::Half, Width::Word, Width::Double][usize::from(width)];
                if write {
                    if let Some(at) = device.write(offset, width, value) {
                        device.transfer(&mut ram, 0x1000 + at % 0x1000);
                    }
                } else {
                    prop_assert_eq!(device.read(offset, width) & !width.mask(), 0);
                }
            }
        }
    }
}
