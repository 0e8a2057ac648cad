//! Seeds for the domains' kernels: each device tree gets numbers that nobody else has.
//!
//! QEMU's board gives a kernel `rng-seed` and `kaslr-seed`, so a domain has them, too. They come of a pool that begins with what the
//! machine's own tree says and is stirred by the hardware's generator, if there is one, whenever it is used. A pool that
//! got nothing gives nothing: a seed that could be guessed is worse than none, as kernels believe it.
//!
//! The pool's state is a key, hashed with what is new by Ascon-XOF128 (NIST SP 800-232). Each use replaces it by the first part of the output and hands
//! out what follows: neither from a seed nor from a later state can the state or another seed be computed.

use crate::Source;
use ascon_core::State;

/// Words of the pool's state: twice as long as Ascon's strength needs.
const STATE: usize = 4;
/// Bytes of a machine's `rng-seed` from which on it can't be guessed.
const LEAST: usize = 16;

/// Ascon-XOF128 (NIST SP 800-232, 5.2) of whole words.
struct Xof(State);

impl Xof {
    fn of<'w>(words: impl Iterator<Item = &'w u64>) -> Self {
        const PARAMETERS: u64 = 0x0000_0800_00cc_0003;
        const PADDING: u64 = 1;
        let mut xof = Self(State::new(PARAMETERS, 0, 0, 0, 0));
        xof.0.permute_n(12);
        for word in words.chain([&PADDING]) {
            xof.0[0] ^= word;
            xof.0.permute_n(12);
        }
        xof
    }

    fn next(&mut self) -> u64 {
        let word = self.0[0];
        self.0.permute_n(12);
        word
    }
}

/// What one start of a domain's kernel gets in `/chosen`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Seeds {
    /// `rng-seed`: for the kernel's generator of random numbers.
    pub rng: [u8; 32],
    /// `kaslr-seed`: for where the kernel moves itself to.
    pub kaslr: u64,
}

/// Where seeds come from.
pub struct Pool {
    state: [u64; STATE],
    filled: bool,
}

impl Pool {
    /// One that has got nothing yet.
    pub const fn new() -> Self {
        Self {
            state: [0; STATE],
            filled: false,
        }
    }

    /// Begins with the `rng-seed` of the machine's tree; empty if it has none.
    pub fn begin(&mut self, secret: &[u8]) {
        if secret.len() < LEAST {
            return;
        }
        for part in secret.chunks(8) {
            let mut word = [0; 8];
            for (place, byte) in word.iter_mut().zip(part) {
                *place = *byte;
            }
            self.step(&[u64::from_ne_bytes(word)]);
        }
        self.filled = true;
    }

    /// Moves on to the next state, with what is new; what comes back can be handed out.
    #[inline(never)]
    fn step(&mut self, new: &[u64]) -> [u64; 5] {
        let mut xof = Xof::of(self.state.iter().chain(new));
        let mut rest = [0; 5];
        for place in self.state.iter_mut().chain(&mut rest) {
            *place = xof.next();
        }
        rest
    }

    /// The next seeds, for a kernel that starts, with new entropy of `source` if it has any; `None` if there never was any.
    #[inline(never)]
    pub fn draw(&mut self, source: Option<&mut dyn Source>) -> Option<Seeds> {
        let mut new = [0; 3];
        let fresh = source.is_some_and(|source| source.fill(&mut new));
        self.filled |= fresh;
        if !self.filled {
            return None;
        }
        let [a, b, c, d, kaslr] = self.step(if fresh { &new } else { &[] });
        let mut rng = [0; 32];
        rng.copy_from_slice([a, b, c, d].map(u64::to_ne_bytes).as_flattened());
        Some(Seeds { rng, kaslr })
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::vec::Vec;
    use ascon_hash::{AsconXof128, ExtendableOutput, Update, XofReader};
    use proptest::prelude::*;

    /// Gives the same word again and again, or nothing.
    struct Fake(Option<u64>);

    impl Source for Fake {
        fn fill(&mut self, words: &mut [u64]) -> bool {
            words.fill(self.0.unwrap_or(0));
            self.0.is_some()
        }

        fn uuid(&mut self) -> [u32; 4] {
            [0; 4]
        }
    }

    fn pool(secret: &[u8]) -> Pool {
        let mut pool = Pool::new();
        pool.begin(secret);
        pool
    }

    fn draw(pool: &mut Pool) -> Seeds {
        pool.draw(None).unwrap()
    }

    #[test]
    fn domains_and_restarts_get_seeds_of_their_own() {
        let secret = [9; 32];
        let mut pool = pool(&secret);
        let seeds: Vec<Seeds> = (0..200).map(|_| draw(&mut pool)).collect();
        let rng: BTreeSet<_> = seeds.iter().map(|seeds| seeds.rng).collect();
        let kaslr: BTreeSet<_> = seeds.iter().map(|seeds| seeds.kaslr).collect();
        assert_eq!((rng.len(), kaslr.len()), (200, 200));
        assert!(!rng.contains(&secret), "the machine's own");
        let state = pool.state.map(u64::to_ne_bytes);
        let mut all = seeds.iter().flat_map(|seeds| seeds.rng.chunks(8));
        assert!(!all.any(|part| state.iter().any(|word| word == part)));
        for seeds in &seeds {
            let kaslr = seeds.kaslr.to_ne_bytes();
            assert!(!seeds.rng.chunks(8).any(|part| part == kaslr));
        }
    }

    proptest! {
        /// Whoever reads the pool later learns nothing that was: no word of it outlives a use, nor is one of the secret, of the source or of what was
        /// handed out in it.
        #[test]
        fn a_use_leaves_nothing_of_what_was(
            secret in proptest::collection::vec(any::<u64>(), 2..9),
            fresh in proptest::collection::vec(proptest::option::of(any::<u64>()), 1..9),
        ) {
            let bytes: Vec<u8> = secret.iter().flat_map(|word| word.to_ne_bytes()).collect();
            let mut pool = pool(&bytes);
            let mut past: BTreeSet<u64> = secret.into_iter().collect();
            for word in fresh {
                prop_assert!(pool.state.iter().all(|word| !past.contains(word)));
                past.extend(pool.state);
                past.extend(word);
                let seeds = pool.draw(Some(&mut Fake(word))).unwrap();
                past.extend(seeds.rng.as_chunks().0.iter().map(|word| u64::from_ne_bytes(*word)));
                past.insert(seeds.kaslr);
            }
            prop_assert!(pool.state.iter().all(|word| !past.contains(word)));
        }
    }

    #[test]
    fn there_are_none_without_a_source() {
        let mut nothing = Pool::new();
        nothing.begin(&[]);
        assert_eq!(nothing.draw(None), None);
        assert_eq!(nothing.draw(Some(&mut Fake(None))), None, "it ran dry");
        let first = nothing.draw(Some(&mut Fake(Some(5))));
        assert!(first.is_some(), "the hardware's generator is enough");
        assert_ne!(nothing.draw(Some(&mut Fake(None))), first);
    }

    #[test]
    fn every_bit_of_the_secret_counts() {
        let secret: Vec<u8> = (0..70).collect();
        let mut seen = BTreeSet::from([draw(&mut pool(&secret)).rng]);
        for bit in 0..secret.len() * 8 {
            let mut other = secret.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(draw(&mut pool(&other)).rng), "bit {bit}");
        }
        assert!(seen.insert(draw(&mut pool(&secret[..64])).rng));
        let mut two = pool(&secret);
        two.begin(&[1; 16]);
        assert!(seen.insert(draw(&mut two).rng), "a second secret");
    }

    #[test]
    fn fresh_entropy_changes_what_follows() {
        let [mut without, mut with] = [pool(&[1; 32]), pool(&[1; 32])];
        assert_eq!(draw(&mut without), draw(&mut with));
        let stirred = with.draw(Some(&mut Fake(Some(3)))).unwrap();
        assert_ne!(draw(&mut without), stirred);
        assert_ne!(draw(&mut without), draw(&mut with), "from then on");
    }

    #[test]
    fn the_hash_is_the_standard_s() {
        for length in 0..9 {
            let words: Vec<u64> = (0..length).map(|n| n * 0x0123_4567_89ab_cdef).collect();
            let mut theirs = AsconXof128::default();
            for word in &words {
                theirs.update(&word.to_le_bytes());
            }
            let mut theirs = theirs.finalize_xof();
            let mut ours = Xof::of(words.iter());
            for _ in 0..9 {
                let mut word = [0; 8];
                theirs.read(&mut word);
                assert_eq!(ours.next().to_le_bytes(), word, "{length} words");
            }
        }
    }

    #[test]
    fn a_machine_s_short_seed_is_no_source() {
        for (length, enough) in [(0, false), (8, false), (15, false), (16, true), (64, true)] {
            let mut pool = Pool::new();
            pool.begin(&[3; 64][..length]);
            let seeds = pool.draw(None);
            assert_eq!(seeds.is_some(), enough, "{length} bytes");
        }
    }
}
