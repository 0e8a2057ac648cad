//! The two flash banks of a domain that starts with firmware: code at 0, variables behind it.
//!
//! In array mode a bank is mapped read-only, so firmware runs from it without an exit, and only stores trap; in any other mode the mapping
//! is taken away, and reads trap, too.

use super::domain::{Domain, Stage2};
use super::exit::{Answer, within};
use crate::arch::memory;
use coproc_core::address::HostPhysical;
use coproc_core::register::{Operation, Width};
use hypervisor::flash::{Cells, Flash, SIZE, STEP};
use hypervisor::guest_tree::layout;
use hypervisor::memory::frames::Piece;
use platforms::translation::{Attributes, Stage2Access, Stage2Attributes, TranslationError};

/// Erased flash.
const ERASED: [u8; 4096] = [0xff; 4096];

/// How a bank is mapped.
fn attributes() -> Attributes {
    Stage2Attributes {
        access: Stage2Access::ReadOnly,
        ..Stage2Attributes::RAM
    }
    .encode()
}

/// A bank with its memory.
pub struct Bank {
    base: u64,
    chip: Flash,
    memory: Piece,
    mapped: bool,
}

impl Bank {
    /// Bank `index` after reset, mapped.
    pub const fn new(index: u64, memory: Piece) -> Self {
        Self {
            base: layout::FLASH_BASE.wrapping_add(index.wrapping_mul(SIZE)),
            chip: Flash::new(index != 0),
            memory,
            mapped: true,
        }
    }

    /// Its memory.
    pub const fn memory(&self) -> Piece {
        self.memory
    }
}

/// Gives a domain both banks, whose memory is the domain's from then on, and maps them. They are filled by [`fill`].
///
/// # Errors
/// If there is no memory for tables.
pub fn install(domain: &Domain, [code, variables]: [Piece; 2]) -> Result<(), TranslationError> {
    let mut flash = domain.flash.lock();
    let banks = flash.insert([Bank::new(0, code), Bank::new(1, variables)]);
    for bank in banks {
        let Piece { start, size } = bank.memory;
        let mut stage2 = domain.stage2.lock();
        stage2.map(bank.base, start, size, attributes())?;
    }
    Ok(())
}

/// Fills the next bit of both banks, `most` bytes from `offset` on: firmware, else erased. Returns where to go on; `None`: they are full.
pub fn fill(domain: &Domain, firmware: &[u8], offset: u64, most: u64) -> Option<u64> {
    let flash = domain.flash.lock();
    let [code, variables] = flash.as_ref()?;
    let (piece, at) = match offset.checked_sub(code.memory.size) {
        None => (code.memory, offset),
        Some(at) => (variables.memory, at),
    };
    let size = most.min(piece.size.saturating_sub(at));
    if size == 0 {
        return None;
    }
    let start = piece.start.wrapping_add(at);
    erase(start, size);
    let end = offset.saturating_add(size).min(firmware.len() as u64);
    if let Some(part) = firmware.get(offset as usize..end as usize) {
        memory::store(start, part);
        memory::clean(start, part.len() as u64);
    }
    Some(offset.saturating_add(size))
}

/// Both chips are as after reset; what is in them stays.
pub fn reset(domain: &Domain) {
    let mut flash = domain.flash.lock();
    for (index, bank) in (0u64..).zip(flash.iter_mut().flatten()) {
        bank.chip = Flash::new(index != 0);
        remap(domain, bank);
    }
}

fn erase(start: HostPhysical, size: u64) {
    for offset in (0..size).step_by(ERASED.len()) {
        memory::store(start.wrapping_add(offset), &ERASED);
    }
    // It may be looked at uncached.
    memory::clean(start, size);
}

/// A bank's memory as its chip sees it.
struct Memory(Piece);

impl Cells for Memory {
    fn len(&self) -> u64 {
        self.0.size
    }

    fn load(&self, offset: u64) -> u32 {
        let double = memory::read64(self.0.start.wrapping_add(offset & !7));
        double.wrapping_shr(((offset & 4) as u32).wrapping_mul(8)) as u32
    }

    fn store(&mut self, offset: u64, value: u32) {
        let at = self.0.start.wrapping_add(offset);
        memory::store(at, &value.to_le_bytes());
        memory::clean(at, 4);
    }

    fn erase(&mut self, offset: u64) {
        self::erase(self.0.start.wrapping_add(offset), STEP);
    }
}

/// An access to the banks' addresses; `None` if there are none.
pub fn access(domain: &Domain, at: u64, width: Width, operation: Operation) -> Option<Answer> {
    let offset = within(at, layout::FLASH_BASE, SIZE.saturating_mul(2))?;
    let mut flash = domain.flash.lock();
    let banks = flash.as_mut()?;
    let bank = banks.get_mut((offset / SIZE) as usize)?;
    let offset = offset % SIZE;
    let mut cells = Memory(bank.memory);
    let value = match operation {
        Operation::Read => bank.chip.read(&mut cells, offset, width),
        Operation::Write(value) => {
            bank.chip.write(&mut cells, offset, width, value);
            remap(domain, bank);
            0
        }
    };
    Some(Answer::Value(value))
}

/// Brings the mapping in agreement with the mode.
fn remap(domain: &Domain, bank: &mut Bank) {
    let wanted = bank.chip.array();
    if bank.mapped == wanted {
        return;
    }
    let mut stage2: spin::MutexGuard<'_, Stage2> = domain.stage2.lock();
    let Piece { start, size, .. } = bank.memory;
    let result = if wanted {
        stage2.map(bank.base, start, size, attributes())
    } else {
        stage2.unmap(bank.base, size)
    };
    match result {
        Ok(()) => bank.mapped = wanted,
        // Out of memory for tables: reads trap, which is as right and slower; stale contents would be wrong, but unmapping
        // whole blocks takes no memory.
        Err(error) => log::warn!("{}: flash at {:#x}: {error}", domain.id, bank.base),
    }
}
