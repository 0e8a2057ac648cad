//! CRC-32 and Adler-32, a piece at a time.
//!
//! Both keep a state between pieces on purpose: a checksum over many jobs comes out right only if the firmware's memory and registers
//! survived every switch in between.

/// The reflected polynomial of IEEE 802.3 (3.2.9), as in ISO-HDLC, gzip and PNG.
const POLYNOMIAL: u32 = 0xedb8_8320;

const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut value = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ POLYNOMIAL
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[byte] = value;
        byte += 1;
    }
    table
};

/// A CRC-32 under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crc32(u32);

impl Default for Crc32 {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Crc32 {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |crc, byte| {
            let index = (crc ^ u32::from(*byte)) & 0xff;
            TABLE[index as usize] ^ (crc >> 8)
        });
    }

    /// The checksum of all bytes so far.
    pub const fn value(self) -> u32 {
        !self.0
    }
}

/// The modulus of RFC 1950, 8.2: the largest prime below 65536.
const MODULUS: u32 = 65521;

/// An Adler-32 under way (RFC 1950).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adler32 {
    low: u32,
    high: u32,
}

impl Default for Adler32 {
    fn default() -> Self {
        Self { low: 1, high: 0 }
    }
}

impl Adler32 {
    /// Takes in more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.low = (self.low + u32::from(*byte)) % MODULUS;
            self.high = (self.high + self.low) % MODULUS;
        }
    }

    /// The checksum of all bytes so far.
    pub const fn value(self) -> u32 {
        (self.high << 16) | self.low
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn crc(bytes: &[u8]) -> u32 {
        let mut crc = Crc32::default();
        crc.update(bytes);
        crc.value()
    }

    fn adler(bytes: &[u8]) -> u32 {
        let mut adler = Adler32::default();
        adler.update(bytes);
        adler.value()
    }

    #[test]
    fn published_values() {
        // The check value of CRC-32/ISO-HDLC; RFC 1950's example for Adler-32 as zlib computes it.
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(b""), 0);
        assert_eq!(crc(&[0; 32]), 0x190a_55ad);
        assert_eq!(adler(b"Wikipedia"), 0x11e6_0398);
        assert_eq!(adler(b""), 1);
    }

    #[test]
    fn a_long_adler_does_not_overflow() {
        // 0xff a million times, by the definition's sums in u64.
        let bytes = vec![0xff_u8; 1_000_000];
        let (mut low, mut high) = (1_u64, 0_u64);
        for byte in &bytes {
            low += u64::from(*byte);
            high += low;
        }
        let expected = ((high % 65521) << 16) | (low % 65521);
        assert_eq!(u64::from(adler(&bytes)), expected);
    }

    proptest! {
        #[test]
        fn pieces_make_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..600), cut in 0usize..600) {
            let cut = cut.min(bytes.len());
            let (mut one, mut two) = (Crc32::default(), Adler32::default());
            for piece in [&bytes[..cut], &bytes[cut..]] {
                one.update(piece);
                two.update(piece);
            }
            prop_assert_eq!(one.value(), crc(&bytes));
            prop_assert_eq!(two.value(), adler(&bytes));
        }

        #[test]
        fn one_bit_makes_a_difference(mut bytes in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let before = (crc(&bytes), adler(&bytes));
            *at.get_mut(&mut bytes) ^= 1 << bit;
            prop_assert_ne!(crc(&bytes), before.0);
            prop_assert_ne!(adler(&bytes), before.1);
        }
    }
}
