//! Behind an instruction that was carried out for its guest.
//!
//! In AArch64 that is four bytes further. A 32-bit program at EL0 may have done it with a Thumb instruction of two bytes, inside of an IT block, which has to
//! move on as well: or the next instruction would be executed under the wrong condition.
//!
//! Source: Arm ARM DDI 0487, C5.2.19 (SPSR_EL2), D24.2.40 (ESR_EL2.IL), F1.2 (IT blocks; AArch32.ITAdvance).

/// SPSR_EL2.M\[4\]: the guest is in AArch32.
pub const AARCH32: u64 = 1 << 4;
/// SPSR_EL2.T.
const THUMB: u64 = 1 << 5;
/// ESR_EL2.IL: the instruction has 32 bits.
const LONG: u64 = 1 << 25;
/// SPSR_EL2.IT\[7:2\] and \[1:0\].
const IT_HIGH: u64 = 0x3f << 10;
const IT_LOW: u64 = 3 << 25;

/// PC and PSTATE (as in SPSR_EL2) behind the instruction at `pc` whose exit had this syndrome.
pub const fn over(pc: u64, pstate: u64, esr: u64) -> (u64, u64) {
    if pstate & AARCH32 == 0 {
        return (pc.wrapping_add(4), pstate);
    }
    let length = if esr & LONG != 0 { 4 } else { 2 };
    // Addresses have 32 bits there.
    let next = pc.wrapping_add(length) & 0xffff_ffff;
    if pstate & THUMB == 0 {
        return (next, pstate);
    }
    let block = (pstate >> 8 & 0xfc) | (pstate >> 25 & 3);
    let block = if block & 7 == 0 {
        0
    } else {
        (block & 0xe0) | (block << 1 & 0x1f)
    };
    let others = pstate & !(IT_HIGH | IT_LOW);
    (next, others | (block & 0xfc) << 8 | (block & 3) << 25)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: u64 = 0x10;

    #[test]
    fn a_64_bit_guest_is_four_bytes_further() {
        for esr in [0, LONG] {
            for pstate in [0, 5, 0x3c5, 0x8000_0020] {
                assert_eq!(over(0x1000, pstate, esr), (0x1004, pstate));
            }
        }
        assert_eq!(over(u64::MAX - 3, 5, LONG), (0, 5));
    }

    #[test]
    fn a_32_bit_guest_is_as_far_as_the_instruction_is_long() {
        assert_eq!(over(0x1000, USER, LONG), (0x1004, USER));
        assert_eq!(over(0x1002, USER | THUMB, 0), (0x1004, USER | THUMB));
        assert_eq!(over(0x1002, USER | THUMB, LONG), (0x1006, USER | THUMB));
        assert_eq!(over(0xffff_fffe, USER | THUMB, 0), (0, USER | THUMB));
    }

    /// The block's states one after another, as F1.2 has them: condition, then the mask that shifts out.
    #[test]
    fn an_it_block_moves_on_and_ends() {
        let pstate =
            |block: u64| USER | THUMB | 0xf000_0000 | (block & 3) << 25 | (block >> 2) << 10;
        // ITTEE EQ: four instructions, the last two under NE.
        for states in [
            [0b0000_0111, 0b0000_1110, 0b0001_1100, 0b0001_1000, 0],
            [0b1010_0001, 0b1010_0010, 0b1010_0100, 0b1010_1000, 0],
        ] {
            for pair in states.windows(2) {
                let (_, after) = over(0x1000, pstate(pair[0]), 0);
                assert_eq!(after, pstate(pair[1]), "{:#010b}", pair[0]);
            }
        }
        // Not Thumb's: the bits have no meaning, and stay.
        let arm = pstate(0b1010_0001) & !THUMB;
        assert_eq!(over(0x1000, arm, LONG), (0x1004, arm));
    }
}
