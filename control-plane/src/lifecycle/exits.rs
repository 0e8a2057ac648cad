//! The last exits of a vCPU: what a report on its crash begins with.
//!
//! Kept at every exit that EL2 does something about, so it must cost next to nothing: one word each, in a ring whose size is a
//! power of two, never read unless something went wrong.

/// Exits kept.
pub const KEPT: usize = 16;

/// The ring.
#[derive(Clone, Debug)]
#[repr(C)]
pub struct Exits {
    kept: [u64; KEPT],
    count: u64,
}

impl Default for Exits {
    fn default() -> Self {
        Self::new()
    }
}

/// One exit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exit {
    /// ESR_EL2, its low half.
    pub syndrome: u32,
    /// The low half of the address of the instruction; 0 if the exit was served at once, where reading it would be felt.
    pub pc: u32,
}

impl Exits {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            kept: [0; KEPT],
            count: 0,
        }
    }

    /// Keeps one.
    pub fn keep(&mut self, syndrome: u64, pc: u64) {
        self.keep_word(pc << 32 | syndrome & 0xffff_ffff);
    }

    /// Keeps one without its address.
    #[inline(always)]
    pub fn keep_word(&mut self, syndrome: u64) {
        let place = self.count as usize % KEPT;
        if let Some(kept) = self.kept.get_mut(place) {
            *kept = syndrome;
        }
        self.count = self.count.wrapping_add(1);
    }

    /// Those that are kept, the newest first.
    pub fn newest(&self) -> impl Iterator<Item = Exit> + '_ {
        let count = self.count.min(KEPT as u64);
        (0..count).filter_map(|back| {
            let place = self.count.wrapping_sub(back).wrapping_sub(1) as usize % KEPT;
            let word = self.kept.get(place)?;
            Some(Exit {
                syndrome: *word as u32,
                pc: (word >> 32) as u32,
            })
        })
    }
}
