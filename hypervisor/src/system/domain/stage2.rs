//! Stage 2 of a domain: its tables, and what TLBs have to forget when they change.

use crate::arch;
use crate::system::tables::TableFrames;
use coproc_core::address::HostPhysical;
use platforms::translation::{Attributes, TranslationError, TranslationTable};

/// Stage 2 of a domain.
pub struct Stage2 {
    /// The tables; `None` while the domain has none.
    pub table: Option<TranslationTable>,
    /// For the TLB maintenance.
    pub vttbr: u64,
}

impl Stage2 {
    /// Maps host memory or registers.
    ///
    /// # Errors
    /// [`TranslationError`].
    pub fn map(
        &mut self,
        at: u64,
        host: HostPhysical,
        size: u64,
        how: Attributes,
    ) -> Result<(), TranslationError> {
        let table = self.table.as_mut().ok_or(TranslationError::OutOfMemory)?;
        table.map(&mut TableFrames { coherent: true }, at, host, size, how)
    }

    /// Unmaps a range; no CPU uses it any more when this returns.
    ///
    /// # Errors
    /// [`TranslationError`].
    pub fn unmap(&mut self, at: u64, size: u64) -> Result<(), TranslationError> {
        let vttbr = self.vttbr;
        let Some(table) = self.table.as_mut() else {
            return Ok(());
        };
        table.unmap(
            &mut TableFrames { coherent: true },
            at,
            size,
            &mut |range| {
                arch::mmu::invalidate_stage2(vttbr, range);
            },
        )
    }
}
