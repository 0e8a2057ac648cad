//! Random numbers: the TRNG firmware interface (Arm DEN 0098), FEAT_RNG, and the seeds in the device tree.

use crate::exception::{MASKED, UNDEFINED, mrs, probe, read, run as execute};
use crate::report::{check, open, own};
use core::fmt::Write as _;
use guest_runtime::machine::Console;
use guest_runtime::tree::Tree;

const HVC: u32 = 0xd400_0002;
const VERSION: u64 = 0x8400_0050;
const FEATURES: u64 = 0x8400_0051;
const GET_UUID: u64 = 0x8400_0052;
const RND32: u64 = 0x8400_0053;
const RND64: u64 = 0xc400_0053;

/// Error codes are compared as 32 bits: the upper half of a 32-bit function's is open.
const NOT_SUPPORTED: u64 = 0xffff_ffff;
const INVALID_PARAMETERS: u64 = 0xffff_fffe;

const ISAR0: [u32; 5] = [3, 0, 0, 6, 0];

fn call(id: u64, argument: u64) -> [u64; 4] {
    let mut registers = [0; 32];
    registers[..2].copy_from_slice(&[id, argument]);
    // What isn't a result is anything before.
    registers[2..4].fill(u64::MAX);
    execute(&[HVC], &registers, MASKED).x
}

fn status(id: u64, argument: u64) -> u64 {
    call(id, argument)[0] & 0xffff_ffff
}

/// TRNG: there, whole; or not there at all. Returns whether it is there.
pub fn interface() -> bool {
    let version = status(VERSION, 0);
    open("trng_version", version, "optional");
    if version == NOT_SUPPORTED {
        for (name, id) in [
            ("trng.features", FEATURES),
            ("trng.uuid", GET_UUID),
            ("trng.rnd32", RND32),
            ("trng.rnd64", RND64),
        ] {
            check(name, status(id, RND32), NOT_SUPPORTED);
        }
        return false;
    }
    own("trng.version.major", version >> 16, 1);
    for id in [VERSION, FEATURES, GET_UUID, RND32, RND64] {
        own("trng.features", status(FEATURES, id), 0);
    }
    own("trng.features.none", status(FEATURES, 0x8400_0054), {
        NOT_SUPPORTED
    });
    own(
        "trng.uuid",
        u64::from(status(GET_UUID, 0) == NOT_SUPPORTED),
        0,
    );
    for (id, sizes) in [(RND64, [0, 193, 1 << 31]), (RND32, [0, 97, 192])] {
        for bits in sizes {
            own("trng.bits", status(id, bits), INVALID_PARAMETERS);
        }
    }
    for (id, width) in [(RND64, 64), (RND32, 32)] {
        for bits in [1, 31, 32, 33, 63, 64, 65, 96, 127, 128, 191, 192] {
            if bits > 3 * width {
                continue;
            }
            let [status, x1, x2, x3] = call(id, bits);
            own("trng.rnd", status, 0);
            for (word, below) in [(x3, 0), (x2, width), (x1, 2 * width)] {
                let left = bits.saturating_sub(below).min(width);
                let unused = word.checked_shr(left as u32).unwrap_or(0);
                own("trng.rnd.unused", unused, 0);
            }
        }
    }
    let [one, other] = [call(RND64, 192), call(RND64, 192)];
    for (one, other) in one.into_iter().zip(other).skip(1) {
        // 64 bits are alike once in a very long time.
        own("trng.rnd.anew", u64::from(one == other), 0);
    }
    true
}

struct Hex<'a>(&'a [u8]);

impl core::fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What a domain has on a CPU with FEAT_RNG or without; tells its seeds.
pub fn run(tree: &Tree<'_>) {
    let shown = read(ISAR0) >> 60;
    open("isar0.rndr", shown, "CPU");
    let expected = if shown == 0 { UNDEFINED } else { 0 };
    for (name, register) in [("rndr", [3, 3, 2, 4, 0]), ("rndrrs", [3, 3, 2, 4, 1])] {
        check(name, probe(mrs(register), [0; 4]).outcome(), expected);
    }
    let there = interface();
    own("trng", u64::from(there), u64::from(shown != 0));
    let property = |name: &[u8]| tree.property(name).unwrap_or_default();
    let (rng, kaslr) = (property(b"rng-seed"), property(b"kaslr-seed"));
    let _ = writeln!(Console, "seeds rng={} kaslr={}", Hex(rng), Hex(kaslr));
}
