//! The random numbers that a domain's firmware has: the TRNG firmware interface.
//!
//! What is handed out is the hardware's entropy or nothing: a caller seeds its keys with it and can't tell good from bad. So nothing is
//! stretched here, a request is filled whole or refused, and a machine without a source hasn't got the interface at all, as its
//! specification allows.
//!
//! Source: Arm DEN 0098, True Random Number Generator Firmware Interface 1.0.

use crate::Source;

/// What TRNG_VERSION answers: 1.0.
pub const VERSION: u32 = 0x0001_0000;

/// Function identifier of TRNG_VERSION.
pub const ID_VERSION: u32 = 0x8400_0050;
/// Function identifier of TRNG_FEATURES.
pub const ID_FEATURES: u32 = 0x8400_0051;
/// Function identifier of TRNG_GET_UUID.
pub const ID_GET_UUID: u32 = 0x8400_0052;
/// Function identifier of TRNG_RND32.
pub const ID_RND32: u32 = 0x8400_0053;
/// Function identifier of TRNG_RND64.
pub const ID_RND64: u32 = 0xc400_0053;

const SUCCESS: u64 = 0;
const NOT_SUPPORTED: u64 = -1_i64 as u64;
const INVALID_PARAMETERS: u64 = -2_i64 as u64;
const NO_ENTROPY: u64 = -3_i64 as u64;

/// No first word of a UUID: it would read as NOT_SUPPORTED.
const RESERVED: u32 = u32::MAX;

/// Names the generator that is that is FEAT_RNG of the CPUs, as Baton hands it out: 2bccde58-b1d4-4e8e-a329-4b6338afff15, in the order of the
/// registers. The first byte is the lowest of the first word.
pub const UUID: [u32; 4] = [0x58de_cc2b, 0x8e4e_d4b1, 0x634b_29a3, 0x15ff_af38];

/// Whether a call with this in x0 is one of this interface.
pub const fn is_call(x0: u64) -> bool {
    matches!(x0 as u32, ID_VERSION..=ID_RND32 | ID_RND64)
}

/// x0 to x3 after a call with these in them; `None` if it isn't a call of this interface.
#[inline(never)]
pub fn answer(registers: [u64; 4], source: &mut dyn Source) -> Option<[u64; 4]> {
    let [id, argument, ..] = registers;
    let status = |status| Some([status, 0, 0, 0]);
    match id as u32 {
        ID_VERSION => status(u64::from(VERSION)),
        ID_FEATURES => match argument as u32 {
            ID_VERSION | ID_FEATURES | ID_GET_UUID | ID_RND32 | ID_RND64 => status(SUCCESS),
            _ => status(NOT_SUPPORTED),
        },
        ID_GET_UUID => {
            let uuid = source.uuid();
            let [first, ..] = uuid;
            let uuid = if first == RESERVED { UUID } else { uuid };
            Some(uuid.map(u64::from))
        }
        ID_RND32 | ID_RND64 => {
            // A 32-bit call's argument is w1 (DEN 0028, 2.6).
            let wide = id as u32 == ID_RND64;
            let (bits, width) = match wide {
                true => (argument, u64::BITS),
                false => (u64::from(argument as u32), u32::BITS),
            };
            Some(match (random(bits, width, source), wide) {
                (Err(refusal), _) => [refusal, 0, 0, 0],
                (Ok([low, middle, high]), true) => [SUCCESS, high, middle, low],
                (Ok([low, high, _]), false) => [SUCCESS, high, low >> 32, u64::from(low as u32)],
            })
        }
        _ => None,
    }
}

/// So many random bits for three registers of this width, the lowest first; bits above them are zero.
fn random(bits: u64, width: u32, source: &mut dyn Source) -> Result<[u64; 3], u64> {
    if bits == 0 || bits > u64::from(width).saturating_mul(3) {
        return Err(INVALID_PARAMETERS);
    }
    let mut words = [0; 3];
    // No more is taken than was asked for: others need it, too.
    let wanted = words.get_mut(..bits.div_ceil(64) as usize);
    if !wanted.is_some_and(|wanted| source.fill(wanted)) {
        return Err(NO_ENTROPY);
    }
    let mut left = bits as u32;
    for word in &mut words {
        *word &= u64::MAX
            .checked_shl(left)
            .map_or(u64::MAX, |unwanted| !unwanted);
        left = left.saturating_sub(u64::BITS);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    /// Gives words that tell their number, as many as it has.
    struct Fake {
        left: usize,
        uuid: [u32; 4],
    }

    const fn word(number: usize) -> u64 {
        0xf1f2_f3f4_f5f6_f700 | number as u64
    }

    impl Fake {
        fn with(left: usize) -> Self {
            Self { left, uuid: UUID }
        }
    }

    impl Source for Fake {
        fn fill(&mut self, words: &mut [u64]) -> bool {
            for (place, number) in words.iter_mut().zip(0..) {
                let Some(left) = self.left.checked_sub(1) else {
                    return false;
                };
                self.left = left;
                *place = word(number);
            }
            true
        }

        fn uuid(&mut self) -> [u32; 4] {
            self.uuid
        }
    }

    fn call(id: u32, argument: u64) -> [u64; 4] {
        assert!(is_call(0xdead_beef_0000_0000 | u64::from(id)), "{id:#x}");
        answer([u64::from(id), argument, 7, 8], &mut Fake::with(3)).unwrap()
    }

    #[test]
    fn version_features_and_uuid() {
        assert_eq!(call(0x8400_0050, 0), [0x1_0000, 0, 0, 0]);
        for id in [
            0x8400_0050,
            0x8400_0051,
            0x8400_0052,
            0x8400_0053,
            0xc400_0053,
        ] {
            assert_eq!(call(0x8400_0051, id), [0; 4], "{id:#x}");
            assert_eq!(call(0x8400_0051, 0xffff_ffff_0000_0000 | id), [0; 4]);
        }
        for id in [0, 0x8400_0054, 0xc400_0052, 0x8400_0000] {
            assert_eq!(
                call(0x8400_0051, id),
                [-1_i64 as u64, 0, 0, 0],
                "{id:#x} isn't one of the interface's"
            );
        }
        let [w0, w1, w2, w3] = call(0x8400_0052, 0);
        let bytes: Vec<u8> = [w0, w1, w2, w3]
            .iter()
            .flat_map(|word| (*word as u32).to_le_bytes())
            .collect();
        assert_eq!(
            bytes,
            0x2bcc_de58_b1d4_4e8e_a329_4b63_38af_ff15_u128.to_be_bytes()
        );
        assert_eq!((bytes[6] >> 4, bytes[8] >> 6), (4, 2), "a random UUID");
    }

    #[test]
    fn a_source_s_own_name_is_told_but_never_looks_like_an_error() {
        let mut source = Fake::with(0);
        source.uuid = [1, 2, 3, u32::MAX];
        assert_eq!(
            answer([0x8400_0052, 0, 0, 0], &mut source),
            Some([1, 2, 3, 0xffff_ffff])
        );
        source.uuid = [u32::MAX, 2, 3, 4];
        let [w0, ..] = answer([0x8400_0052, 0, 0, 0], &mut source).unwrap();
        assert_ne!(w0 as u32, u32::MAX);
    }

    #[test]
    fn most_significant_bits_come_first_and_unused_ones_are_zero() {
        let [a, b, c] = [word(0), word(1), word(2)];
        assert_eq!(call(0xc400_0053, 192), [0, c, b, a]);
        assert_eq!(call(0xc400_0053, 191), [0, c & u64::MAX >> 1, b, a]);
        assert_eq!(call(0xc400_0053, 129), [0, c & 1, b, a]);
        assert_eq!(call(0xc400_0053, 128), [0, 0, b, a]);
        assert_eq!(call(0xc400_0053, 65), [0, 0, b & 1, a]);
        assert_eq!(call(0xc400_0053, 64), [0, 0, 0, a]);
        assert_eq!(call(0xc400_0053, 7), [0, 0, 0, a & 0x7f]);
        let low = |word: u64| word & 0xffff_ffff;
        assert_eq!(call(0x8400_0053, 96), [0, low(b), a >> 32, low(a)]);
        assert_eq!(
            call(0x8400_0053, 95),
            [0, low(b) & 0x7fff_ffff, a >> 32, low(a)]
        );
        assert_eq!(call(0x8400_0053, 64), [0, 0, a >> 32, low(a)]);
        assert_eq!(call(0x8400_0053, 33), [0, 0, a >> 32 & 1, low(a)]);
        assert_eq!(call(0x8400_0053, 32), [0, 0, 0, low(a)]);
        assert_eq!(call(0x8400_0053, 1), [0, 0, 0, a & 1]);
        assert_eq!(
            call(0x8400_0053, 0xdead_beef_0000_0020),
            [0, 0, 0, low(a)],
            "w1 only"
        );
    }

    #[test]
    fn a_size_that_does_not_fit_is_refused_and_takes_nothing() {
        for (id, bits) in [
            (0xc400_0053_u64, 0),
            (0xc400_0053, 193),
            (0xc400_0053, 1 << 31),
            (0xc400_0053, 1 << 32 | 64),
            (0xc400_0053, u64::MAX),
            (0x8400_0053, 0),
            (0x8400_0053, 97),
            (0x8400_0053, 192),
            (0x8400_0053, 0xffff_ffff_0000_0000),
        ] {
            let mut source = Fake::with(3);
            assert_eq!(
                answer([id, bits, 7, 8], &mut source),
                Some([-2_i64 as u64, 0, 0, 0]),
                "{id:#x} {bits:#x}"
            );
            assert_eq!(source.left, 3);
        }
    }

    #[test]
    fn a_source_that_runs_dry_gives_nothing_of_what_it_had() {
        for (id, bits, has) in [
            (0xc400_0053_u64, 192, 2),
            (0xc400_0053, 65, 1),
            (0xc400_0053, 1, 0),
            (0x8400_0053, 96, 1),
        ] {
            assert_eq!(
                answer([id, bits, 0, 0], &mut Fake::with(has)),
                Some([-3_i64 as u64, 0, 0, 0])
            );
            let mut enough = Fake::with(has + 1);
            assert_eq!(answer([id, bits, 0, 0], &mut enough).unwrap()[0], 0);
            assert_eq!(enough.left, 0, "no more is taken than needed");
        }
    }

    #[test]
    fn other_calls_are_not_answered() {
        for id in [0x8400_004f, 0x8400_0054, 0xc400_0050, 0xc400_0052, 0, 0x53] {
            assert_eq!(answer([id, 64, 0, 0], &mut Fake::with(3)), None, "{id:#x}");
            assert!(!is_call(id), "{id:#x}");
        }
    }

    proptest! {
        #[test]
        fn no_bit_is_set_beyond_those_asked_for(bits in 1u64..=192, wide: bool) {
            let width = if wide { 64 } else { 32 };
            let id = if wide { 0xc400_0053 } else { 0x8400_0053 };
            let mut source = Ones;
            let [status, x1, x2, x3] = answer([id, bits, 0, 0], &mut source).unwrap();
            if bits > 3 * width {
                prop_assert_eq!(status as i64, -2);
            } else {
                prop_assert_eq!(status, 0);
            }
            let ones = [x1, x2, x3].map(u64::count_ones);
            prop_assert!(ones.iter().all(|ones| u64::from(*ones) <= width));
            let expected = if status == 0 { bits } else { 0 };
            prop_assert_eq!(u64::from(ones.iter().sum::<u32>()), expected);
        }
    }

    struct Ones;

    impl Source for Ones {
        fn fill(&mut self, words: &mut [u64]) -> bool {
            words.fill(u64::MAX);
            true
        }

        fn uuid(&mut self) -> [u32; 4] {
            UUID
        }
    }
}
