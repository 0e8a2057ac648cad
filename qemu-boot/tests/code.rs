//! What compiler and linker made of Baton, where a core gets instructions wrong: nothing in the source shows whether they were told to care.
//!
//! Cortex-A53, to r0p4 (Arm's Software Developer Errata Notice): 835769, a 64-bit multiply-accumulate right behind a load or store may give a wrong
//! result; 843419, a load or store by an ADRP that is one of the last two words of a 4 KiB page may go to a wrong address.

use object::elf::{FileHeader64, PF_X, PT_LOAD};
use object::endian::LittleEndian;
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use qemu_boot::Artifacts;

/// Loads, stores and prefetches of any kind (Arm ARM DDI 0487, C4.1.94).
const fn accesses_memory(word: u32) -> bool {
    word >> 25 & 0b0101 == 0b0100
}

/// MADD, MSUB, SMADDL, SMSUBL, UMADDL and UMSUBL of 64 bits that add to something.
const fn accumulates(word: u32) -> bool {
    let kind = word >> 21 & 7;
    word >> 24 == 0x9b && matches!(kind, 0 | 1 | 5) && word >> 10 & 31 != 31
}

const fn is_adrp(word: u32) -> bool {
    word & 0x9f00_0000 == 0x9000_0000
}

/// A load or store with an unsigned immediate, by this register.
const fn accesses_by(word: u32, register: u32) -> bool {
    word & 0x3b00_0000 == 0x3900_0000 && word >> 5 & 31 == register
}

/// The addresses of what a Cortex-A53 may get wrong, each with its erratum.
fn wrong(code: &[u32], address: u64) -> Vec<(u64, u32)> {
    let place = |index: usize| address + 4 * index as u64;
    let mut found = Vec::new();
    for (index, pair) in code.windows(2).enumerate() {
        if accesses_memory(pair[0]) && accumulates(pair[1]) {
            found.push((place(index + 1), 835_769));
        }
    }
    for (index, four) in code.windows(4).enumerate() {
        let base = four[0] & 31;
        if is_adrp(four[0])
            && place(index) & 0xfff >= 0xff8
            && accesses_memory(four[1])
            && (accesses_by(four[2], base) || accesses_by(four[3], base))
        {
            found.push((place(index), 843_419));
        }
    }
    found
}

#[test]
fn baton_has_no_sequence_that_a_cortex_a53_gets_wrong() {
    let artifacts = Artifacts::get().unwrap();
    let elf = std::fs::read(&artifacts.hypervisor_elf).unwrap();
    let header = FileHeader64::<LittleEndian>::parse(&*elf).unwrap();
    let endian = header.endian().unwrap();
    let mut words = 0;
    for segment in header.program_headers(endian, &*elf).unwrap() {
        if segment.p_type(endian) != PT_LOAD || segment.p_flags(endian) & PF_X == 0 {
            continue;
        }
        let bytes = segment.data(endian, &*elf).unwrap();
        let code: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        words += code.len();
        let found = wrong(&code, segment.p_vaddr(endian));
        assert!(found.is_empty(), "{found:x?}");
    }
    assert!(words > 50_000, "{words} instructions are not Baton");
}

#[test]
fn sequences_are_recognised() {
    const LDR: u32 = 0xf940_0008; // ldr x8, [x0]
    const STP: u32 = 0xa900_0801; // stp x1, x2, [x0]
    const MADD: u32 = 0x9b01_2040; // madd x0, x2, x1, x8
    const UMADDL: u32 = 0x9ba1_2040; // umaddl x0, w2, w1, x8
    const MUL: u32 = 0x9b01_7c40; // mul x0, x2, x1
    const MADD32: u32 = 0x1b01_2040; // madd w0, w2, w1, w8
    const UMULH: u32 = 0x9bc1_7c40; // umulh x0, x2, x1
    const NOP: u32 = 0xd503_201f;
    for (first, second, hit) in [
        (LDR, MADD, true),
        (STP, MADD, true),
        (STP, UMADDL, true),
        (LDR, MUL, false),
        (LDR, MADD32, false),
        (LDR, UMULH, false),
        (NOP, MADD, false),
        (MADD, LDR, false),
    ] {
        let found = wrong(&[NOP, first, second], 0x1000);
        let expected = if hit { vec![(0x1008, 835_769)] } else { vec![] };
        assert_eq!(found, expected, "{first:#x} {second:#x}");
    }

    const ADRP: u32 = 0x9000_0003; // adrp x3, .
    const BY_IT: u32 = 0xf940_0461; // ldr x1, [x3, #8]
    const BY_OTHER: u32 = 0xf940_0481; // ldr x1, [x4, #8]
    for (code, at, hit) in [
        ([ADRP, LDR, BY_IT, NOP], 0xff8, true),
        ([ADRP, LDR, NOP, BY_IT], 0xffc, true),
        ([ADRP, LDR, BY_OTHER, BY_IT], 0x5ff8, true),
        ([ADRP, LDR, BY_IT, NOP], 0xff4, false),
        ([ADRP, LDR, BY_IT, NOP], 0x1000, false),
        ([ADRP, NOP, BY_IT, NOP], 0xff8, false),
        ([ADRP, LDR, BY_OTHER, NOP], 0xff8, false),
    ] {
        let expected = if hit { vec![(at, 843_419)] } else { vec![] };
        assert_eq!(wrong(&code, at), expected, "{code:x?} at {at:#x}");
    }
}
