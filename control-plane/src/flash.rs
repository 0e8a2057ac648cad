//! One bank of CFI flash with the Intel command set, as QEMU `virt` has two for firmware and its variables.
//!
//! Two 16-bit chips side by side, so every command and every status comes twice in a 32-bit word. In the state that it is nearly always
//! in, array mode, the flash is memory that the domain reads and executes without an exit; the caller maps it
//! ([`Flash::array`]) and only writes come here. Any other state answers reads with status or identification, so the caller takes
//! the mapping away. Programming clears bits, as real cells do, and takes no time. Erasing a sector goes on with each access, a bit at a time
//! ([`STEP`]), as software that waits for the status expects, so no exit takes long; until it is done the bank is busy and takes no command.
//!
//! Only the first part of a bank needs memory behind it; the rest reads erased and can't be programmed.
//!
//! Source: JEDEC JESD68.01 (CFI); Intel P30 datasheet 306666 (commands, status bits); sizes and identification as `hw/arm/virt.c` and
//! `hw/block/pflash_cfi01.c` of QEMU show them.

use coproc_core::register::Width;

/// Bytes in a bank.
pub const SIZE: u64 = 64 << 20;
/// Bytes erased at a time, in both chips.
pub const SECTOR: u64 = 256 << 10;
/// Bytes erased in one step.
pub const STEP: u64 = 16 << 10;
/// Words of 32 bits that one buffered program takes at most.
const BUFFER: u32 = 1024;

/// Status: ready, and what went wrong (erase, program, sequence is both).
const READY: u8 = 1 << 7;
const ERASE_ERROR: u8 = 1 << 5;
const PROGRAM_ERROR: u8 = 1 << 4;

/// The memory behind a bank.
pub trait Cells {
    /// Number of bytes, a multiple of [`SECTOR`].
    fn len(&self) -> u64;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Reads a 32-bit word at a multiple of 4 below [`Self::len`].
    fn load(&self, offset: u64) -> u32;
    /// Writes one.
    fn store(&mut self, offset: u64, value: u32);
    /// Sets the [`STEP`] bytes at a multiple of that to all ones.
    fn erase(&mut self, offset: u64);
}

/// What reads give.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Array,
    Status,
    Identification,
    Query,
}

/// What the next write is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expected {
    Command,
    /// The word to be programmed.
    Word,
    /// The confirmation of an erase.
    Erase,
    /// What is to be done with a block's lock.
    Lock,
    /// How many words are to be programmed.
    Count,
    /// Those words; so many after this one.
    Words(u32),
    /// The confirmation.
    Program,
}

/// The state of one bank.
#[derive(Clone, Debug)]
pub struct Flash {
    writable: bool,
    shown: Shown,
    expected: Expected,
    status: u8,
    /// What is still to be erased: from here to the end of its sector. Only while busy.
    erasing: Option<u64>,
}

impl Flash {
    /// After reset: array mode. If it isn't `writable`, programs and erasures end in an error.
    pub const fn new(writable: bool) -> Self {
        Self {
            writable,
            shown: Shown::Array,
            expected: Expected::Command,
            status: READY,
            erasing: None,
        }
    }

    /// Whether reads give the contents: it may be mapped, read-only.
    pub fn array(&self) -> bool {
        self.shown == Shown::Array
    }

    /// A load.
    pub fn read(&mut self, cells: &mut impl Cells, offset: u64, width: Width) -> u64 {
        self.go_on(cells);
        let low = u64::from(self.word(cells, offset & !3));
        let value = match width {
            Width::Double => low | u64::from(self.word(cells, offset | 4)) << 32,
            _ => low.wrapping_shr(((offset & 3) as u32).wrapping_mul(8)),
        };
        value & width.mask()
    }

    /// The next step of an erasure.
    fn go_on(&mut self, cells: &mut impl Cells) {
        let Some(at) = self.erasing else {
            return;
        };
        cells.erase(at);
        let next = at.wrapping_add(STEP);
        if next.is_multiple_of(SECTOR) {
            self.erasing = None;
            self.status |= READY;
        } else {
            self.erasing = Some(next);
        }
    }

    fn word(&self, cells: &impl Cells, offset: u64) -> u32 {
        let both = |chip: u16| u32::from(chip) | u32::from(chip) << 16;
        let chip = offset >> 2;
        match self.shown {
            Shown::Array if offset < cells.len() => cells.load(offset),
            Shown::Array => u32::MAX,
            Shown::Status => both(u16::from(self.status)),
            Shown::Identification => both(match chip & 0xff {
                0 => 0x89, // Intel
                1 => 0x18,
                _ => 0, // among others: this block isn't locked
            }),
            Shown::Query => both(u16::from(query(chip & 0xff))),
        }
    }

    /// A store. Commands stand in the lowest byte.
    pub fn write(&mut self, cells: &mut impl Cells, offset: u64, width: Width, value: u64) {
        if self.erasing.is_some() {
            self.go_on(cells);
            return;
        }
        let word = offset & !3;
        if width == Width::Double {
            self.cycle(cells, word, value as u32, u32::MAX);
            self.cycle(cells, word | 4, (value >> 32) as u32, u32::MAX);
            return;
        }
        let shift = ((offset & 3) as u32).wrapping_mul(8);
        let value = (value & width.mask()) as u32;
        // For a command's sake the value itself; for data its place in the word.
        match self.expected {
            Expected::Word | Expected::Words(_) => {
                let enable = (width.mask() as u32).wrapping_shl(shift);
                self.cycle(cells, word, value.wrapping_shl(shift), enable);
            }
            _ => self.cycle(cells, word, value, u32::MAX),
        }
    }

    fn cycle(&mut self, cells: &mut impl Cells, offset: u64, value: u32, enable: u32) {
        if self.erasing.is_some() {
            return; // the second half of a store whose first half began this
        }
        let command = value as u8;
        self.expected = match self.expected {
            Expected::Command => return self.command(command),
            Expected::Word => {
                self.program(cells, offset, value | !enable);
                Expected::Command
            }
            Expected::Erase => {
                if command == 0xd0 {
                    self.erase(cells, offset);
                } else {
                    self.status |= ERASE_ERROR | PROGRAM_ERROR;
                }
                Expected::Command
            }
            Expected::Lock => {
                // Lock (0x01), unlock (0xd0), lock down (0x2f): blocks are never locked.
                if !matches!(command, 0x01 | 0xd0 | 0x2f) {
                    self.status |= ERASE_ERROR | PROGRAM_ERROR;
                }
                Expected::Command
            }
            Expected::Count => {
                let more = value & 0xffff;
                if more < BUFFER {
                    Expected::Words(more)
                } else {
                    self.status |= ERASE_ERROR | PROGRAM_ERROR;
                    Expected::Command
                }
            }
            Expected::Words(more) => {
                self.program(cells, offset, value | !enable);
                more.checked_sub(1)
                    .map_or(Expected::Program, Expected::Words)
            }
            Expected::Program => {
                if command != 0xd0 {
                    self.status |= ERASE_ERROR | PROGRAM_ERROR;
                }
                Expected::Command
            }
        };
    }

    fn command(&mut self, command: u8) {
        (self.shown, self.expected) = match command {
            0x10 | 0x40 => (Shown::Status, Expected::Word),
            0x20 => (Shown::Status, Expected::Erase),
            0x50 => {
                self.status = READY;
                (self.shown, Expected::Command)
            }
            0x60 => (Shown::Status, Expected::Lock),
            0x70 => (Shown::Status, Expected::Command),
            0x90 => (Shown::Identification, Expected::Command),
            0x98 => (Shown::Query, Expected::Command),
            0xe8 => (Shown::Status, Expected::Count),
            // 0xff; what isn't known here, such as the reset command of other makes, does as much.
            _ => (Shown::Array, Expected::Command),
        };
    }

    fn program(&mut self, cells: &mut impl Cells, offset: u64, value: u32) {
        if self.writable && offset < cells.len() {
            let old = cells.load(offset);
            cells.store(offset, old & value);
        } else {
            self.status |= PROGRAM_ERROR;
        }
    }

    fn erase(&mut self, cells: &mut impl Cells, offset: u64) {
        let sector = offset & !SECTOR.wrapping_sub(1);
        if self.writable && sector < cells.len() {
            self.erasing = Some(sector);
            self.status &= !READY;
        } else {
            self.status |= ERASE_ERROR;
        }
    }
}

/// The query structure of one chip (JESD68.01, table 1 to 4): 32 MiB in 256 blocks of 128 KiB.
const fn query(address: u64) -> u8 {
    match address {
        0x10 => b'Q',
        0x11 => b'R',
        0x12 => b'Y',
        // Command set 1 (Intel), its table at 0x31.
        0x13 => 0x01,
        0x15 => 0x31,
        // 4.5 to 5.5 V, no programming voltage.
        0x1b => 0x45,
        0x1c => 0x55,
        // Times as powers of two: 128 µs for a word and a buffer, 1 s for a block; up to 16 times that.
        0x1f | 0x20 => 0x07,
        0x21 => 0x0a,
        0x23..=0x25 => 0x04,
        // 2^25 bytes, x8 and x16, 2^11 bytes in the buffer.
        0x27 => 25,
        0x28 => 0x02,
        0x2a => 0x0b,
        // One region of 255 + 1 blocks of 0x200 times 256 bytes.
        0x2c => 1,
        0x2d => 255,
        0x30 => 0x02,
        0x31 => b'P',
        0x32 => b'R',
        0x33 => b'I',
        0x34 => b'1',
        0x35 => b'0',
        // One protection field.
        0x3f => 1,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const BOTH: u64 = 0x0001_0001;

    #[derive(Clone, PartialEq, Debug)]
    struct Ram(Vec<u32>);

    impl Cells for Ram {
        fn len(&self) -> u64 {
            self.0.len() as u64 * 4
        }
        fn load(&self, offset: u64) -> u32 {
            self.0[offset as usize / 4]
        }
        fn store(&mut self, offset: u64, value: u32) {
            self.0[offset as usize / 4] = value;
        }
        fn erase(&mut self, offset: u64) {
            assert_eq!(offset % STEP, 0);
            let start = offset as usize / 4;
            self.0[start..start + STEP as usize / 4].fill(u32::MAX);
        }
    }

    fn bank() -> (Flash, Ram) {
        (
            Flash::new(true),
            Ram(alloc::vec![0x1234_5678; 2 * SECTOR as usize / 4]),
        )
    }

    fn set(flash: &mut Flash, ram: &mut Ram, offset: u64, value: u64) {
        flash.write(ram, offset, Width::Word, value);
    }

    fn get(flash: &mut Flash, ram: &mut Ram, offset: u64) -> u64 {
        flash.read(ram, offset, Width::Word)
    }

    #[test]
    fn the_array_reads_at_any_width() {
        let (mut flash, mut ram) = bank();
        assert!(flash.array());
        assert_eq!(flash.read(&mut ram, 1, Width::Byte), 0x56);
        assert_eq!(flash.read(&mut ram, 2, Width::Half), 0x1234);
        assert_eq!(
            flash.read(&mut ram, 8, Width::Double),
            0x1234_5678_1234_5678
        );
        assert_eq!(
            get(&mut flash, &mut ram, 2 * SECTOR),
            0xffff_ffff,
            "nothing behind it"
        );
    }

    #[test]
    fn a_word_is_programmed_into_an_erased_sector() {
        let (mut flash, mut ram) = bank();
        set(&mut flash, &mut ram, SECTOR + 8, 0x20 * BOTH);
        assert!(!flash.array());
        set(&mut flash, &mut ram, SECTOR + 8, 0xd0 * BOTH);
        // Busy, and deaf, for as many accesses as steps.
        for step in 1..SECTOR / STEP {
            let shown = match step % 2 {
                0 => get(&mut flash, &mut ram, 0),
                _ => {
                    set(&mut flash, &mut ram, 0, 0xff * BOTH);
                    0
                }
            };
            assert_eq!(shown, 0, "step {step}");
            assert!(!flash.array());
        }
        assert_eq!(get(&mut flash, &mut ram, SECTOR), 0x80 * BOTH);
        set(&mut flash, &mut ram, SECTOR + 4, 0x40 * BOTH);
        set(&mut flash, &mut ram, SECTOR + 4, 0xdead_beef);
        assert_eq!(
            get(&mut flash, &mut ram, SECTOR + 4),
            0x80 * BOTH,
            "status, not data"
        );
        set(&mut flash, &mut ram, 0, 0xff * BOTH);
        assert!(flash.array());
        assert_eq!(get(&mut flash, &mut ram, SECTOR), 0xffff_ffff);
        assert_eq!(get(&mut flash, &mut ram, SECTOR + 4), 0xdead_beef);
        assert_eq!(
            get(&mut flash, &mut ram, SECTOR - 4),
            0x1234_5678,
            "the sector before"
        );
    }

    #[test]
    fn programming_only_clears_bits() {
        let (mut flash, mut ram) = bank();
        set(&mut flash, &mut ram, 0, 0x40);
        set(&mut flash, &mut ram, 0, 0xff00_ff00);
        assert_eq!(ram.0[0], 0x1200_5600);
        // A narrow one leaves the rest of the word.
        set(&mut flash, &mut ram, 0, 0x10);
        flash.write(&mut ram, 5, Width::Byte, 0);
        assert_eq!(ram.0[1], 0x1234_0078);
    }

    #[test]
    fn a_buffer_is_programmed() {
        let (mut flash, mut ram) = bank();
        set(&mut flash, &mut ram, 0, 0xe8 * BOTH);
        assert_eq!(get(&mut flash, &mut ram, 0), 0x80 * BOTH);
        set(&mut flash, &mut ram, 0, 2 * BOTH);
        for word in 0..3 {
            set(&mut flash, &mut ram, 4 * word, 0);
        }
        set(&mut flash, &mut ram, 0, 0xd0 * BOTH);
        assert_eq!(get(&mut flash, &mut ram, 0), 0x80 * BOTH);
        assert_eq!(ram.0[..4], [0, 0, 0, 0x1234_5678]);
        set(&mut flash, &mut ram, 0, 0x90 * BOTH);
        assert_eq!(get(&mut flash, &mut ram, 0), 0x89 * BOTH, "commands again");
        assert_eq!(get(&mut flash, &mut ram, 4), 0x18 * BOTH);
    }

    #[test]
    fn errors_show_in_the_status_until_they_are_cleared() {
        let (mut flash, mut ram) = bank();
        let cases: [(&[u64], u64); 4] = [
            (&[0x20, 0xaa], 0xb0),
            (&[0x60, 0xaa], 0xb0),
            (&[0xe8, 0xffff], 0xb0),
            (&[0xe8, 0, 0, 0xaa], 0xb0),
        ];
        for (writes, status) in cases {
            for value in writes {
                set(&mut flash, &mut ram, 0, *value);
            }
            set(&mut flash, &mut ram, 0, 0x70);
            assert_eq!(get(&mut flash, &mut ram, 0), status * BOTH, "{writes:x?}");
            set(&mut flash, &mut ram, 0, 0x50);
            set(&mut flash, &mut ram, 0, 0x70);
            assert_eq!(get(&mut flash, &mut ram, 0), 0x80 * BOTH);
        }
    }

    #[test]
    fn what_is_read_only_stays_as_it_is() {
        for (mut flash, at) in [(Flash::new(false), 0), (Flash::new(true), 2 * SECTOR)] {
            let (_, mut ram) = bank();
            let before = ram.clone();
            set(&mut flash, &mut ram, at, 0x40);
            set(&mut flash, &mut ram, at, 0);
            assert_eq!(get(&mut flash, &mut ram, at), 0x90 * BOTH);
            set(&mut flash, &mut ram, at, 0x20);
            set(&mut flash, &mut ram, at, 0xd0);
            assert_eq!(get(&mut flash, &mut ram, at), 0xb0 * BOTH);
            assert_eq!(ram, before);
        }
    }

    #[test]
    fn a_driver_finds_its_geometry() {
        let (mut flash, mut ram) = bank();
        set(&mut flash, &mut ram, 0x55 * 4, 0x98 * BOTH);
        let mut at = |address: u64| {
            let word = get(&mut flash, &mut ram, address * 4);
            assert_eq!(word & 0xffff, word >> 16, "both chips");
            word & 0xffff
        };
        assert_eq!([at(0x10), at(0x11), at(0x12)], [0x51, 0x52, 0x59]);
        assert_eq!(2 << at(0x27), SIZE);
        let blocks = at(0x2d) + (at(0x2e) << 8) + 1;
        let block = (at(0x2f) + (at(0x30) << 8)) * 256;
        assert_eq!((2 * block, 2 * block * blocks), (SECTOR, SIZE));
        assert_eq!((1 << at(0x2a)) * 2, u64::from(BUFFER) * 4);
        let table = at(0x15);
        assert_eq!(at(table), u64::from(b'P'));
    }

    proptest! {
        /// Whatever is written: no panic, 0xff brings the array back after at most a buffer's length, and a read-only bank stays.
        #[test]
        fn any_writes_do_no_harm(writes in prop::collection::vec((0u64..SIZE, 0u8..4, any::<u64>()), 0..60), writable: bool) {
            let (_, mut ram) = bank();
            let before = ram.clone();
            let mut flash = Flash::new(writable);
            for (offset, width, value) in writes {
                let width = [Width::Byte, Width::Half, Width::Word, Width::Double][usize::from(width)];
                let offset = offset & !(width.bytes() - 1);
                // Commands more often than chance has it.
                let value = if value % 3 == 0 { value } else { [0x40, 0x20, 0xd0, 0xe8, 0x60, 0x98, 0x70, 3][value as usize % 8] };
                flash.write(&mut ram, offset, width, value);
                prop_assert_eq!(flash.read(&mut ram, offset, width) & !width.mask(), 0);
            }
            if !writable {
                prop_assert_eq!(&ram, &before);
            }
            for _ in 0..BUFFER + 3 + (SECTOR / STEP) as u32 {
                flash.write(&mut ram, SIZE - 4, Width::Word, 0xff);
            }
            prop_assert!(flash.array());
        }
    }
}
