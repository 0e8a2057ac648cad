//! The firmware's main loop: takes jobs off the ring, lets a [`Service`] do them, answers.
//!
//! Data are worked on in blocks, so that a firmware that cooperates gives the core back soon after it is asked to, and a critical section
//! stays short.

use crate::checksum::{Adler32, Crc32};
use crate::filter::Resampler;
use crate::protocol::{
    Answer, COMPLETED, Request, SLOTS, SUBMITTED, answer, exit, flag, operation, outcome, request,
    slot,
};
use fw_core_abi::SHARED_BASE;

/// Bytes of a block.
pub const BLOCK: usize = 256;
/// Most bytes that a block can produce.
pub const OUTPUT: usize = BLOCK;

/// The machine, as the loop sees it. Addresses are the firmware's, aligned to the access.
pub trait Platform {
    /// Reads 4 bytes.
    fn read32(&mut self, address: u64) -> u32;
    /// Reads 8 bytes.
    fn read64(&mut self, address: u64) -> u64;
    /// Writes 4 bytes.
    fn write32(&mut self, address: u64, value: u32);
    /// Writes 8 bytes.
    fn write64(&mut self, address: u64, value: u64);
    /// Orders what was written before against what comes after, as the domain sees it.
    fn barrier(&mut self);
    /// Writes a word to the outbox.
    fn notify(&mut self, word: u64);
    /// Enters or leaves a critical section.
    fn critical(&mut self, on: bool);
    /// Between two blocks: gives the core back if it is wanted.
    fn breathe(&mut self);
}

/// What a firmware does with data.
pub trait Service {
    /// Begins a job; false if this isn't one of its operations.
    fn begin(&mut self, operation: u32) -> bool;
    /// Takes a block of at most [`BLOCK`] bytes; gives the bytes that it put into `output`.
    fn block(&mut self, operation: u32, bytes: &[u8], output: &mut [u8; OUTPUT]) -> usize;
    /// The job's result.
    fn result(&self, operation: u32) -> u64;
}

/// The checksum firmware.
#[derive(Clone, Debug, Default)]
pub struct Checksums {
    crc: Crc32,
    adler: Adler32,
    stream: Crc32,
}

impl Service for Checksums {
    fn begin(&mut self, operation: u32) -> bool {
        self.crc = Crc32::default();
        self.adler = Adler32::default();
        matches!(
            operation,
            operation::CRC32 | operation::ADLER32 | operation::STREAM_CRC32
        )
    }

    fn block(&mut self, operation: u32, bytes: &[u8], _output: &mut [u8; OUTPUT]) -> usize {
        match operation {
            operation::ADLER32 => self.adler.update(bytes),
            operation::STREAM_CRC32 => self.stream.update(bytes),
            _ => self.crc.update(bytes),
        }
        0
    }

    fn result(&self, operation: u32) -> u64 {
        u64::from(match operation {
            operation::ADLER32 => self.adler.value(),
            operation::STREAM_CRC32 => self.stream.value(),
            _ => self.crc.value(),
        })
    }
}

/// The converter firmware. An odd last byte of a job is no sample and is passed over.
#[derive(Clone, Debug, Default)]
pub struct Converter {
    resampler: Resampler,
    produced: Crc32,
}

impl Service for Converter {
    fn begin(&mut self, operation: u32) -> bool {
        operation == operation::RESAMPLE
    }

    fn block(&mut self, _operation: u32, bytes: &[u8], output: &mut [u8; OUTPUT]) -> usize {
        let mut length = 0;
        for pair in bytes.chunks_exact(2) {
            let sample = i16::from_le_bytes([pair[0], pair[1]]);
            if let Some(converted) = self.resampler.push(sample) {
                output[length..length + 2].copy_from_slice(&converted.to_le_bytes());
                length += 2;
            }
        }
        self.produced.update(&output[..length]);
        length
    }

    fn result(&self, _operation: u32) -> u64 {
        u64::from(self.produced.value())
    }
}

/// Bytes on their way to the output, which is written in whole words.
struct Sink {
    address: u64,
    room: u32,
    produced: u32,
    word: [u8; 8],
}

impl Sink {
    fn put(&mut self, platform: &mut impl Platform, bytes: &[u8]) -> bool {
        for byte in bytes {
            if self.produced >= self.room {
                return false;
            }
            let at = self.produced as usize % 8;
            self.word[at] = *byte;
            self.produced += 1;
            if at == 7 {
                self.write(platform, u64::from(self.produced) - 8);
            }
        }
        true
    }

    fn finish(&mut self, platform: &mut impl Platform) {
        let rest = self.produced as usize % 8;
        if rest != 0 {
            self.word[rest..].fill(0);
            self.write(platform, u64::from(self.produced) - rest as u64);
        }
    }

    fn write(&self, platform: &mut impl Platform, offset: u64) {
        platform.write64(self.address + offset, u64::from_le_bytes(self.word));
    }
}

/// The loop's own state: what it knows without asking the shared memory.
#[derive(Clone, Debug, Default)]
pub struct Engine<S> {
    service: S,
    completed: u32,
}

impl<S: Service> Engine<S> {
    /// A loop that has completed nothing.
    pub fn new(service: S) -> Self {
        Self {
            service,
            completed: 0,
        }
    }

    /// Forgets what the service remembers, as if its context had been lost: for tests of those who should notice.
    pub fn forget(&mut self)
    where
        S: Default,
    {
        self.service = S::default();
    }

    /// Does all jobs that are on the ring; gives their number.
    ///
    /// # Errors
    /// The code to exit with, when the domain's half of the ring makes no sense.
    pub fn serve(&mut self, platform: &mut impl Platform) -> Result<u32, u32> {
        let mut done = 0;
        loop {
            let submitted = platform.read32(SHARED_BASE + SUBMITTED);
            let waiting = submitted.wrapping_sub(self.completed);
            if waiting == 0 {
                return Ok(done);
            }
            if waiting > SLOTS {
                return Err(exit::BAD_RING);
            }
            platform.barrier();
            let sequence = self.completed.wrapping_add(1);
            let at = SHARED_BASE + slot(sequence);
            let found = Request {
                sequence: platform.read32(at + request::SEQUENCE),
                operation: platform.read32(at + request::OPERATION),
                source: platform.read64(at + request::SOURCE),
                length: platform.read32(at + request::LENGTH),
                flags: platform.read32(at + request::FLAGS),
                output: platform.read32(at + request::OUTPUT),
                room: platform.read32(at + request::ROOM),
            };
            let answer = match found.check(sequence) {
                Ok(()) => self.job(platform, &found),
                Err(outcome) => Answer {
                    sequence,
                    outcome,
                    ..Answer::default()
                },
            };
            platform.write32(at + answer::SEQUENCE, answer.sequence);
            platform.write32(at + answer::OUTCOME, answer.outcome);
            platform.write64(at + answer::RESULT, answer.result);
            platform.write32(at + answer::PRODUCED, answer.produced);
            platform.barrier();
            self.completed = sequence;
            platform.write32(SHARED_BASE + COMPLETED, sequence);
            platform.barrier();
            platform.notify(u64::from(sequence));
            done += 1;
        }
    }

    fn job(&mut self, platform: &mut impl Platform, request: &Request) -> Answer {
        let mut answer = Answer {
            sequence: request.sequence,
            ..Answer::default()
        };
        if !self.service.begin(request.operation) {
            answer.outcome = outcome::BAD_OPERATION;
            return answer;
        }
        let mut sink = Sink {
            address: SHARED_BASE + u64::from(request.output),
            room: request.room,
            produced: 0,
            word: [0; 8],
        };
        let critical = request.flags & flag::CRITICAL != 0;
        let length = request.length as usize;
        let mut fits = true;
        let mut at = 0;
        while at < length {
            platform.breathe();
            if critical {
                platform.critical(true);
            }
            let size = (length - at).min(BLOCK);
            let mut block = [0; BLOCK];
            for (word, offset) in block[..size.next_multiple_of(8)]
                .chunks_exact_mut(8)
                .zip((0_u64..).step_by(8))
            {
                let value = platform.read64(request.source + at as u64 + offset);
                word.copy_from_slice(&value.to_le_bytes());
            }
            let mut output = [0; OUTPUT];
            let produced = self
                .service
                .block(request.operation, &block[..size], &mut output);
            // The state went on in any case: a domain that gave too little room loses samples, not their order.
            fits &= sink.put(platform, &output[..produced]);
            if critical {
                platform.critical(false);
            }
            at += size;
        }
        sink.finish(platform);
        answer.outcome = if fits {
            outcome::DONE
        } else {
            outcome::NO_ROOM
        };
        answer.result = self.service.result(request.operation);
        answer.produced = sink.produced;
        answer
    }
}

#[cfg(test)]
mod tests;
