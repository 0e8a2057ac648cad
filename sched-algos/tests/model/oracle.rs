//! Whatever the world may decide, decided by a script.
//!
//! One run of the world is a list of small numbers, one for each decision that was open to the machine, the driver or the guests.
//! Running the same list again gives the same world, so a state needs no copy: its list is enough. Past the
//! end of the list every decision is 0, which always stands for what a sound machine does at once.

use std::collections::BTreeMap;

/// What the adversary may do only so often, which makes the space of all runs finite.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Trick {
    /// A step, a sync or a reading of records isn't finished yet.
    Again,
    /// A step or a sync fails, or the IOMMU refuses to point the streams.
    Fail,
    /// The timer expires without being due.
    Early,
    /// The timer expires later than every limit of time.
    Late,
    /// An interrupt is delivered that the device doesn't assert any more, or never did.
    Spurious,
    /// A parked vCPU looks again without having been released (it took a virtual interrupt).
    Retry,
    /// A domain moves its windows, or has its lines sampled again.
    Meddle,
    /// A domain has its windows off when they are to be mapped.
    Unplaced,
    /// A vcoproc is detached.
    Detach,
    /// One is attached again under the same number.
    Attach,
    /// The device's DMA leaves its domain's memory.
    Stray,
}

/// The script and what is left of the tricks.
#[derive(Debug, Default)]
pub struct Oracle {
    script: Vec<u8>,
    at: usize,
    /// The script is any bytes, for random runs: each is taken modulo the number of possibilities.
    pub any_bytes: bool,
    /// What was decided, and out of how many.
    pub taken: Vec<(u8, u8)>,
    /// From now on everything is as a sound machine does it.
    pub sound: bool,
    /// Tricks left.
    pub left: BTreeMap<Trick, u8>,
}

impl Oracle {
    pub fn new(script: &[u8], tricks: &[(Trick, u8)]) -> Self {
        Self {
            script: script.to_vec(),
            at: 0,
            any_bytes: false,
            taken: Vec::with_capacity(64),
            sound: false,
            left: tricks.iter().copied().filter(|(_, n)| *n > 0).collect(),
        }
    }

    /// Decides between `of` possibilities.
    pub fn choose(&mut self, of: usize) -> usize {
        if self.sound || of <= 1 {
            return 0;
        }
        let mut choice = self.script.get(self.at).copied().unwrap_or(0);
        if self.any_bytes {
            choice %= u8::try_from(of).unwrap();
        }
        assert!(usize::from(choice) < of, "a script of another world");
        self.at += 1;
        self.taken.push((choice, u8::try_from(of).unwrap()));
        usize::from(choice)
    }

    /// Whether the script is played to its end.
    pub fn over(&self) -> bool {
        self.at >= self.script.len()
    }

    pub fn can(&self, trick: Trick) -> bool {
        !self.sound && self.left.get(&trick).is_some_and(|n| *n > 0)
    }

    pub fn spend(&mut self, trick: Trick) {
        let left = self.left.get_mut(&trick).expect("a trick that is left");
        *left -= 1;
    }

    /// Whether the trick is played now.
    pub fn plays(&mut self, trick: Trick) -> bool {
        let plays = self.can(trick) && self.choose(2) == 1;
        if plays {
            self.spend(trick);
        }
        plays
    }

    /// The next script after the decisions made past the first `fixed`; `None`: there is none.
    pub fn next_script(&self, fixed: usize) -> Option<Vec<u8>> {
        let last = (fixed..self.taken.len())
            .rev()
            .find(|at| self.taken[*at].0 + 1 < self.taken[*at].1)?;
        let mut script: Vec<u8> = self.taken[..=last].iter().map(|(c, _)| *c).collect();
        script[last] += 1;
        Some(script)
    }

    pub fn path(&self) -> Vec<u8> {
        self.taken.iter().map(|(choice, _)| *choice).collect()
    }
}
