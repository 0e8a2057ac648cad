//! The loop against a memory that notes what is done to it.

use super::*;
use crate::protocol::{DATA_BASE, LONGEST, data};
use fw_core_abi::{GRANT_BASE, SHARED_SIZE};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Shared memory and one granted page; every other address is a failed test.
struct Memory {
    shared: Vec<u8>,
    grant: Vec<u8>,
    notes: Vec<u64>,
    critical: bool,
    blocks_in_critical: u32,
    breaths: u32,
    written: BTreeSet<u64>,
}

impl Memory {
    fn new() -> Self {
        Self {
            shared: vec![0; SHARED_SIZE as usize],
            grant: (0..4096_u32).map(|n| (n * 7) as u8).collect(),
            notes: Vec::new(),
            critical: false,
            blocks_in_critical: 0,
            breaths: 0,
            written: BTreeSet::new(),
        }
    }

    fn at(&mut self, address: u64, size: u64) -> &mut [u8] {
        assert_eq!(address % size, 0, "unaligned at {address:#x}");
        let (memory, base) = match address {
            GRANT_BASE.. => (&mut self.grant, GRANT_BASE),
            _ => (&mut self.shared, SHARED_BASE),
        };
        let offset = (address - base) as usize;
        &mut memory[offset..offset + size as usize]
    }

    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let offset = offset as usize;
        self.shared[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn submit(&mut self, job: Request) {
        let at = slot(job.sequence);
        self.put(at + request::SEQUENCE, &job.sequence.to_le_bytes());
        self.put(at + request::OPERATION, &job.operation.to_le_bytes());
        self.put(at + request::SOURCE, &job.source.to_le_bytes());
        self.put(at + request::LENGTH, &job.length.to_le_bytes());
        self.put(at + request::FLAGS, &job.flags.to_le_bytes());
        self.put(at + request::OUTPUT, &job.output.to_le_bytes());
        self.put(at + request::ROOM, &job.room.to_le_bytes());
        self.put(SUBMITTED, &job.sequence.to_le_bytes());
    }

    fn answer(&mut self, sequence: u32) -> Answer {
        let at = SHARED_BASE + slot(sequence);
        Answer {
            sequence: self.read32(at + answer::SEQUENCE),
            outcome: self.read32(at + answer::OUTCOME),
            result: self.read64(at + answer::RESULT),
            produced: self.read32(at + answer::PRODUCED),
        }
    }
}

impl Platform for Memory {
    fn read32(&mut self, address: u64) -> u32 {
        u32::from_le_bytes(self.at(address, 4).try_into().unwrap())
    }

    fn read64(&mut self, address: u64) -> u64 {
        u64::from_le_bytes(self.at(address, 8).try_into().unwrap())
    }

    fn write32(&mut self, address: u64, value: u32) {
        self.written.insert(address);
        self.at(address, 4).copy_from_slice(&value.to_le_bytes());
    }

    fn write64(&mut self, address: u64, value: u64) {
        assert!(address < GRANT_BASE, "the firmware writes no grants");
        self.written.insert(address);
        self.at(address, 8).copy_from_slice(&value.to_le_bytes());
    }

    fn barrier(&mut self) {}

    fn notify(&mut self, word: u64) {
        self.notes.push(word);
    }

    fn critical(&mut self, on: bool) {
        assert_ne!(self.critical, on, "critical sections don't nest");
        self.critical = on;
        self.blocks_in_critical += u32::from(on);
    }

    fn breathe(&mut self) {
        assert!(!self.critical, "the core isn't given back while critical");
        self.breaths += 1;
    }
}

fn crc(sequence: u32, source: u64, length: u32) -> Request {
    Request {
        sequence,
        operation: operation::CRC32,
        source,
        length,
        ..Request::default()
    }
}

#[test]
fn jobs_are_answered_in_order_from_shared_memory_and_grants() {
    let mut memory = Memory::new();
    memory.put(data(1), b"123456789");
    memory.submit(crc(1, SHARED_BASE + data(1), 9));
    memory.submit(crc(2, GRANT_BASE + 8, 1000));
    let mut engine = Engine::new(Checksums::default());
    assert_eq!(engine.serve(&mut memory), Ok(2));
    assert_eq!(memory.notes, [1, 2]);
    let answer = memory.answer(1);
    assert_eq!((answer.outcome, answer.sequence), (outcome::DONE, 1));
    assert_eq!(answer.result, 0xcbf4_3926);
    let mut expected = Crc32::default();
    expected.update(&memory.grant[8..1008]);
    assert_eq!(memory.answer(2).result, u64::from(expected.value()));
    assert_eq!(engine.serve(&mut memory), Ok(0));
    assert_eq!(memory.read32(SHARED_BASE + COMPLETED), 2);
}

#[test]
fn a_stream_goes_on_across_jobs_and_a_single_job_does_not_disturb_it() {
    let mut memory = Memory::new();
    let mut engine = Engine::new(Checksums::default());
    let mut sequence = 0;
    let mut result = 0;
    for (operation, text) in [
        (operation::STREAM_CRC32, "12345"),
        (operation::CRC32, "else"),
        (operation::ADLER32, "else"),
        (operation::STREAM_CRC32, "6789"),
    ] {
        sequence += 1;
        memory.put(data(sequence), text.as_bytes());
        let source = SHARED_BASE + data(sequence);
        memory.submit(Request {
            operation,
            ..crc(sequence, source, text.len() as u32)
        });
        engine.serve(&mut memory).unwrap();
        result = memory.answer(sequence).result;
    }
    assert_eq!(result, 0xcbf4_3926);
}

#[test]
fn samples_are_converted_into_the_room_that_was_given() {
    let samples: Vec<i16> = (0..1200).map(|n| (n * 37 % 9000) as i16).collect();
    let mut resampler = Resampler::default();
    let expected: Vec<u8> = samples
        .iter()
        .filter_map(|s| resampler.push(*s))
        .flat_map(i16::to_le_bytes)
        .collect();
    let bytes: Vec<u8> = samples.iter().flat_map(|s| s.to_le_bytes()).collect();
    let mut memory = Memory::new();
    memory.put(data(1), &bytes);
    let output = data(2);
    let job = |sequence, room| Request {
        sequence,
        operation: operation::RESAMPLE,
        source: SHARED_BASE + data(1),
        length: bytes.len() as u32,
        flags: 0,
        output: output as u32,
        room,
    };
    let mut engine = Engine::new(Converter::default());
    memory.submit(job(1, 2048));
    engine.serve(&mut memory).unwrap();
    let answer = memory.answer(1);
    assert_eq!(answer.outcome, outcome::DONE);
    assert_eq!(answer.produced as usize, expected.len());
    let found = &memory.shared[output as usize..][..expected.len()];
    assert_eq!(found, expected);

    memory.submit(job(2, 400));
    engine.serve(&mut memory).unwrap();
    let answer = memory.answer(2);
    assert_eq!((answer.outcome, answer.produced), (outcome::NO_ROOM, 400));
}

#[test]
fn wrong_requests_are_answered_and_touch_nothing() {
    let wrong = [
        (
            Request {
                operation: 99,
                ..crc(1, GRANT_BASE, 8)
            },
            outcome::BAD_OPERATION,
        ),
        (crc(1, SHARED_BASE, 8), outcome::BAD_RANGE),
        (crc(1, GRANT_BASE, LONGEST + 1), outcome::BAD_RANGE),
        (
            Request {
                output: 8,
                room: 8,
                ..crc(1, GRANT_BASE, 8)
            },
            outcome::BAD_RANGE,
        ),
    ];
    for (request, expected) in wrong {
        let mut memory = Memory::new();
        memory.submit(request);
        assert_eq!(
            Engine::new(Checksums::default()).serve(&mut memory),
            Ok(1),
            "{request:?}"
        );
        assert_eq!(memory.answer(1).outcome, expected, "{request:?}");
        assert!(
            memory
                .written
                .iter()
                .all(|at| *at < SHARED_BASE + DATA_BASE)
        );
        assert_eq!(memory.breaths, 0);
    }
    // The slot says another number than its place.
    let mut memory = Memory::new();
    memory.submit(crc(1, GRANT_BASE, 8));
    memory.put(slot(1) + request::SEQUENCE, &5_u32.to_le_bytes());
    Engine::new(Checksums::default())
        .serve(&mut memory)
        .unwrap();
    assert_eq!(memory.answer(1).outcome, outcome::BAD_SEQUENCE);
}

#[test]
fn a_ring_that_is_too_full_ends_the_firmware() {
    for submitted in [SLOTS + 1, u32::MAX] {
        let mut memory = Memory::new();
        memory.put(SUBMITTED, &submitted.to_le_bytes());
        let result = Engine::new(Checksums::default()).serve(&mut memory);
        assert_eq!(result, Err(exit::BAD_RING));
        assert!(memory.written.is_empty());
    }
}

#[test]
fn numbers_wrap() {
    let mut memory = Memory::new();
    memory.put(SUBMITTED, &(u32::MAX - 1).to_le_bytes());
    let mut engine = Engine {
        service: Checksums::default(),
        completed: u32::MAX - 1,
    };
    for sequence in [u32::MAX, 0, 1] {
        memory.submit(crc(sequence, GRANT_BASE, 64));
        assert_eq!(engine.serve(&mut memory), Ok(1));
        assert_eq!(memory.answer(sequence).outcome, outcome::DONE);
    }
}

#[test]
fn every_block_breathes_and_is_critical_if_asked() {
    let mut memory = Memory::new();
    memory.submit(Request {
        flags: flag::CRITICAL,
        ..crc(1, GRANT_BASE, 1000)
    });
    Engine::new(Checksums::default())
        .serve(&mut memory)
        .unwrap();
    assert_eq!((memory.breaths, memory.blocks_in_critical), (4, 4));
    assert!(!memory.critical);
}

proptest! {
    /// Whatever the domain writes into the ring: the loop ends, answers or exits, and reads and writes nothing outside.
    #[test]
    fn any_ring_is_survived(ring in prop::collection::vec(any::<u8>(), 0x200), submitted in 0u32..6, plausible in any::<bool>(), source in 0u64..0x1_0000) {
        let mut memory = Memory::new();
        memory.grant = vec![0; 1 << 20];
        memory.put(0, &ring);
        memory.put(SUBMITTED, &submitted.to_le_bytes());
        for sequence in 1..=SLOTS {
            // Numbers that get past the first check; a source in the grants must be one that the model has.
            memory.put(slot(sequence) + request::SEQUENCE, &sequence.to_le_bytes());
            let base = if plausible { SHARED_BASE } else { GRANT_BASE };
            memory.put(slot(sequence) + request::SOURCE, &(base + (source & !7)).to_le_bytes());
            memory.put(slot(sequence) + request::FLAGS, &(submitted & 1).to_le_bytes());
            memory.put(slot(sequence) + request::OPERATION, &(1 + sequence % 3).to_le_bytes());
        }
        let outcome = Engine::new(Checksums::default()).serve(&mut memory);
        prop_assert_eq!(outcome.is_ok(), submitted <= SLOTS);
    }
}
