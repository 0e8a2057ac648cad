//! Reproducible randomness: what only this domain knows.
//!
//! Each job's pattern comes from the domain's name, its seed and the job's number, so a byte of another
//! domain, or of an older job, can't pass for the right one. SplitMix64 (Steele, Lea, Flood: *Fast
//! splittable pseudorandom number generators*, 2014) is enough: nothing here is cryptographic, and a test
//! that fails must be repeatable from its seed.

/// A SplitMix64 generator.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator whose stream depends on every one of `keys`, in order.
    pub fn keyed(keys: &[u64]) -> Self {
        let state = keys.iter().fold(0x6a09_e667_f3bc_c908, |state, key| {
            Self(state ^ key).next_u64().rotate_left(17)
        });
        Self(state)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// The next 32 bits.
    pub fn next_u32(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A number below `bound` (0 if `bound` is 0); the bias of the remainder doesn't matter here.
    pub fn below(&mut self, bound: usize) -> usize {
        match bound {
            0 => 0,
            _ => (self.next_u64() % bound as u64) as usize,
        }
    }

    /// True once in `times` on average.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// FNV-1a of a name, to key a generator with.
pub fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The secret that two programs agree on by its key, in its whole length.
pub fn secret(key: u64) -> Vec<u8> {
    let mut bytes = vec![0; crate::edu::BUFFER_LEN];
    Random::keyed(&[hash("secret"), key]).fill(&mut bytes);
    bytes
}

/// How many 8-byte windows of `haystack`, at any alignment, are also windows of `secret`.
pub fn windows_in_common(haystack: &[u8], secret: &[u8]) -> usize {
    let known: std::collections::HashSet<&[u8]> = secret.windows(8).collect();
    haystack
        .windows(8)
        .filter(|window| known.contains(window))
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_depend_on_every_key() {
        let first = Random::keyed(&[1, 2]).next_u64();
        assert_eq!(first, Random::keyed(&[1, 2]).next_u64());
        assert_ne!(first, Random::keyed(&[2, 1]).next_u64());
        assert_ne!(first, Random::keyed(&[1, 3]).next_u64());
        assert_ne!(first, Random::keyed(&[0, 2]).next_u64());
    }

    #[test]
    fn the_generator_is_splitmix64() {
        // First outputs for the seed 1234567, as published with the reference implementation.
        let mut random = Random(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
    }

    #[test]
    fn a_leak_is_found_at_any_alignment() {
        let secret = secret(7);
        let mut haystack = vec![0u8; 4096];
        assert_eq!(windows_in_common(&haystack, &secret), 0);
        haystack[1001..1009].copy_from_slice(&secret[3..11]);
        assert_eq!(windows_in_common(&haystack, &secret), 1);
        haystack[2000..2020].copy_from_slice(&secret[100..120]);
        assert_eq!(windows_in_common(&haystack, &secret), 14);
        assert_eq!(windows_in_common(&super::secret(8), &secret), 0);
    }
}
