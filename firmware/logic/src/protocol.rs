//! How a domain and its firmware talk: a ring of jobs in the shared memory.
//!
//! The domain fills a slot, raises [`SUBMITTED`] and rings the doorbell; the firmware fills in the slot's answer, raises [`COMPLETED`] and
//! writes [`COMPLETED`]'s new value to its outbox, which interrupts the domain. Jobs are done in order. All fields are little-endian.
//!
//! Neither side trusts the other's half: each keeps its own counters and reads a field of the other's once, into a copy that it then checks.
//! What a request may refer to is decided in [`Request::check`] alone.

use fw_core_abi::{GRANT_BASE, GRANT_END, SHARED_BASE, SHARED_SIZE};

/// First word in the outbox after start, with the firmware's [`kind`] in bits 7:0.
pub const READY: u64 = 0x5245_4144_5900;

/// Which firmware it is.
pub mod kind {
    /// Checksums.
    pub const CHECKSUM: u32 = 1;
    /// Sample-rate converter.
    pub const FILTER: u32 = 2;
    /// Counts work.
    pub const METER: u32 = 3;
    /// Spins.
    pub const HUNG: u32 = 4;
    /// Never leaves a critical section.
    pub const REFUSES: u32 = 5;
    /// Tries what isn't allowed.
    pub const HOSTILE: u32 = 6;
}

/// In the shared memory, u32, written by the domain: how many jobs it submitted, modulo 2³².
pub const SUBMITTED: u64 = 0x00;
/// u32, written by the firmware: how many it completed, modulo 2³².
pub const COMPLETED: u64 = 0x08;
/// u64, written by the firmware: units of work done ([`kind::METER`]).
pub const WORK: u64 = 0x10;

/// Jobs that may be submitted and not yet completed.
pub const SLOTS: u32 = 4;
/// The first slot.
pub const SLOT_BASE: u64 = 0x100;
/// Bytes of a slot.
pub const SLOT_STRIDE: u64 = 0x40;

/// Where slot N's data may be put: from `DATA_BASE + N * DATA_STRIDE` on.
pub const DATA_BASE: u64 = 0x1000;
/// Bytes of data space of each slot.
pub const DATA_STRIDE: u64 = 0x3c00;
/// Where in a slot's data space results may go.
pub const OUTPUT_OFFSET: u64 = 0x2000;
/// Longest job in bytes.
pub const LONGEST: u32 = 0x2000;

/// Offsets of a slot's fields: the request, by the domain.
pub mod request {
    /// u32: the job's number, the value of `SUBMITTED` that submits it.
    pub const SEQUENCE: u64 = 0x00;
    /// u32: an [`operation`](super::operation).
    pub const OPERATION: u64 = 0x04;
    /// u64: address of the data as the firmware sees it, a multiple of 8.
    pub const SOURCE: u64 = 0x08;
    /// u32: bytes of data, at most [`LONGEST`](super::LONGEST).
    pub const LENGTH: u64 = 0x10;
    /// u32: [`flag`](super::flag)s.
    pub const FLAGS: u64 = 0x14;
    /// u32: offset in the shared memory where produced data goes, a multiple of 8.
    pub const OUTPUT: u64 = 0x18;
    /// u32: room there in bytes, a multiple of 8.
    pub const ROOM: u64 = 0x1c;
}

/// Offsets of a slot's fields: the answer, by the firmware.
pub mod answer {
    /// u32: the job's number again.
    pub const SEQUENCE: u64 = 0x20;
    /// u32: an [`outcome`](super::outcome).
    pub const OUTCOME: u64 = 0x24;
    /// u64: the result.
    pub const RESULT: u64 = 0x28;
    /// u32: bytes produced.
    pub const PRODUCED: u64 = 0x30;
}

/// Values of [`request::OPERATION`].
pub mod operation {
    /// CRC-32 of the data.
    pub const CRC32: u32 = 1;
    /// Adler-32 of the data.
    pub const ADLER32: u32 = 2;
    /// CRC-32 of this and all earlier data given to this operation since the start.
    pub const STREAM_CRC32: u32 = 3;
    /// Converts samples (i16), going on where the last job ended; the result is the CRC-32 of all that was produced since the start.
    pub const RESAMPLE: u32 = 4;
}

/// Bits of [`request::FLAGS`].
pub mod flag {
    /// Each block is worked on in a critical section.
    pub const CRITICAL: u32 = 1 << 0;
    /// All of them.
    pub const ALL: u32 = CRITICAL;
}

/// Values of [`answer::OUTCOME`].
pub mod outcome {
    /// Done.
    pub const DONE: u32 = 1;
    /// The job's number isn't what its place says.
    pub const BAD_SEQUENCE: u32 = 2;
    /// Not an operation of this firmware, or unknown flags.
    pub const BAD_OPERATION: u32 = 3;
    /// Data or output lie where they mustn't, or aren't aligned.
    pub const BAD_RANGE: u32 = 4;
    /// The output doesn't fit.
    pub const NO_ROOM: u32 = 5;
}

/// Codes that firmware exits with.
pub mod exit {
    /// `SUBMITTED` is further ahead than the ring is long.
    pub const BAD_RING: u32 = 0xbad0_0001;
    /// A Rust panic.
    pub const PANIC: u32 = 0xbad0_0002;
    /// The firmware's main function came back.
    pub const RETURNED: u32 = 0xbad0_0003;
    /// An unexpected exception: its class (ESR_EL1.EC) is in bits 5:0.
    pub const EXCEPTION: u32 = 0xbade_c000;
    /// An exception that isn't synchronous, or comes from where none can: number of the vector (0 to 15) in bits 3:0.
    pub const VECTOR: u32 = 0xbade_d000;
}

/// A request as read from its slot, once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// [`request::SEQUENCE`].
    pub sequence: u32,
    /// [`request::OPERATION`].
    pub operation: u32,
    /// [`request::SOURCE`].
    pub source: u64,
    /// [`request::LENGTH`].
    pub length: u32,
    /// [`request::FLAGS`].
    pub flags: u32,
    /// [`request::OUTPUT`].
    pub output: u32,
    /// [`request::ROOM`].
    pub room: u32,
}

/// What the firmware makes of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// [`answer::SEQUENCE`].
    pub sequence: u32,
    /// [`answer::OUTCOME`].
    pub outcome: u32,
    /// [`answer::RESULT`].
    pub result: u64,
    /// [`answer::PRODUCED`].
    pub produced: u32,
}

/// Whether `length` bytes at `start` lie in `from..to`.
fn within(start: u64, length: u64, from: u64, to: u64) -> bool {
    start >= from && start.checked_add(length).is_some_and(|end| end <= to)
}

impl Request {
    /// Whether everything that the request refers to may be touched: the data in the data part of the shared memory or where grants are,
    /// the output in the data part of the shared memory. The ring itself is neither.
    ///
    /// # Errors
    /// The [`outcome`] to answer with.
    pub fn check(&self, sequence: u32) -> Result<(), u32> {
        if self.sequence != sequence {
            return Err(outcome::BAD_SEQUENCE);
        }
        if self.flags & !flag::ALL != 0 {
            return Err(outcome::BAD_OPERATION);
        }
        // Data are read in words of 8 bytes, the last one too.
        let reach = u64::from(self.length).next_multiple_of(8);
        let (source, output) = (self.source, u64::from(self.output));
        let shared = (SHARED_BASE + DATA_BASE, SHARED_BASE + SHARED_SIZE);
        let readable = within(source, reach, shared.0, shared.1)
            || within(source, reach, GRANT_BASE, GRANT_END);
        let aligned = source.is_multiple_of(8) && (output | u64::from(self.room)) % 8 == 0;
        let writable =
            self.room == 0 || within(output, u64::from(self.room), DATA_BASE, SHARED_SIZE);
        if !aligned || !readable || !writable || self.length > LONGEST {
            return Err(outcome::BAD_RANGE);
        }
        Ok(())
    }
}

/// Offset of a slot in the shared memory, of the job with this number.
pub const fn slot(sequence: u32) -> u64 {
    SLOT_BASE + index(sequence) * SLOT_STRIDE
}

/// Offset of its data space.
pub const fn data(sequence: u32) -> u64 {
    DATA_BASE + index(sequence) * DATA_STRIDE
}

const fn index(sequence: u32) -> u64 {
    (sequence % SLOTS) as u64
}

const _: () = assert!(SLOTS.is_power_of_two());
const _: () = assert!(DATA_BASE + SLOTS as u64 * DATA_STRIDE <= SHARED_SIZE);
const _: () = assert!(LONGEST as u64 <= OUTPUT_OFFSET);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn good() -> Request {
        Request {
            sequence: 7,
            operation: operation::CRC32,
            source: SHARED_BASE + DATA_BASE,
            length: 100,
            flags: 0,
            output: DATA_BASE as u32,
            room: 64,
        }
    }

    #[test]
    fn each_limit_counts() {
        assert_eq!(good().check(7), Ok(()));
        assert_eq!(good().check(8), Err(outcome::BAD_SEQUENCE));
        let end = SHARED_BASE + SHARED_SIZE;
        let sources = [
            (SHARED_BASE, 8, false),
            (SHARED_BASE + DATA_BASE - 8, 16, false),
            (SHARED_BASE + DATA_BASE + 4, 4, false),
            (end - 8, 8, true),
            (end - 8, 9, false),
            (end, 0, true),
            (0, 8, false),
            (fw_core_abi::IMAGE_BASE, 8, false),
            (fw_core_abi::LOCAL_BASE, 8, false),
            (GRANT_BASE, 8, true),
            (GRANT_END - 8, 8, true),
            (GRANT_END - 8, 16, false),
            (u64::MAX - 7, 8, false),
            (GRANT_BASE, LONGEST, true),
            (GRANT_BASE, LONGEST + 1, false),
            (GRANT_BASE, u32::MAX, false),
        ];
        for (source, length, allowed) in sources {
            let request = Request {
                source,
                length,
                ..good()
            };
            assert_eq!(request.check(7).is_ok(), allowed, "{source:#x} {length}");
        }
        let outputs = [
            (DATA_BASE - 8, 8, false),
            (SHARED_SIZE - 8, 8, true),
            (SHARED_SIZE - 8, 16, false),
            (0, 0, true),
            (DATA_BASE + 4, 8, false),
            (DATA_BASE, 12, false),
            (u64::from(u32::MAX) & !7, 0xffff_fff8, false),
        ];
        for (output, room, allowed) in outputs {
            let request = Request {
                output: output as u32,
                room,
                ..good()
            };
            assert_eq!(request.check(7).is_ok(), allowed, "{output:#x} {room}");
        }
        let request = Request { flags: 2, ..good() };
        assert_eq!(request.check(7), Err(outcome::BAD_OPERATION));
    }

    proptest! {
        #[test]
        fn what_passes_stays_inside(source in any::<u64>(), near in 0u64..0x2_0000, length in any::<u32>(), output in any::<u32>(), room in any::<u32>(), choice in 0..3) {
            let source = match choice { 0 => source, 1 => SHARED_BASE + near, _ => GRANT_END - near };
            let request = Request { sequence: 1, operation: 1, source, length: length % 0x3000, flags: 0, output: output % 0x2_0000, room: room % 0x2_0000 };
            if request.check(1).is_ok() {
                let end = u128::from(source) + u128::from(request.length.next_multiple_of(8));
                let shared = source >= SHARED_BASE + DATA_BASE && end <= u128::from(SHARED_BASE + SHARED_SIZE);
                let grant = source >= GRANT_BASE && end <= u128::from(GRANT_END);
                prop_assert!(shared || grant);
                prop_assert!(request.room == 0 || (u64::from(request.output) >= DATA_BASE && u64::from(request.output) + u64::from(request.room) <= SHARED_SIZE));
            }
        }
    }
}
