//! Jobs whose every result is checked.
//!
//! The domain computes each result itself before it asks, with the same code as the firmware but in its own memory, so a
//! state that the firmware lost, or that another domain's firmware got into, makes this and all later results wrong.

use super::driver::{Driver, Grant};
use super::host::{Host, Window};
use super::options::Options;
use crate::random::{Random, hash};
use crate::report;
use fw_core_abi::{GRANT_BASE, SHARED_BASE};
use fw_logic::checksum::{Adler32, Crc32};
use fw_logic::filter::Resampler;
use fw_logic::protocol::{
    Answer, COMPLETED, LONGEST, OUTPUT_OFFSET, Request, SLOTS, SUBMITTED, answer, data, flag, kind,
    operation, outcome, request, slot,
};
use std::collections::VecDeque;
use std::io;
use std::time::Duration;

/// Jobs between two progress lines.
const PROGRESS: u64 = 100;
/// One job in so many is one that must be refused.
const NONSENSE: usize = 16;

/// A job and what must come of it.
struct Expected {
    answer: Answer,
    output: Vec<u8>,
    bytes: u64,
}

/// What the domain keeps beside the firmware.
struct Jobs<'o> {
    options: &'o Options,
    kind: u32,
    /// Bytes of granted RAM for each slot; 0: none.
    grant: usize,
    granted_jobs: u64,
    critical_jobs: u64,
    submitted: u32,
    waiting: VecDeque<Expected>,
    stream: Crc32,
    resampler: Resampler,
    produced: Crc32,
}

/// Runs jobs until there were enough; what the mode adds to the last line.
///
/// # Errors
/// When the system fails, or the firmware no longer answers.
pub fn run<H: Host>(driver: &mut Driver<H>, options: &Options) -> io::Result<String> {
    let kind = match options.image.as_str() {
        "checksum" => kind::CHECKSUM,
        "filter" => kind::FILTER,
        other => {
            let message = format!("firmware.image: found \"{other}\", expected checksum or filter");
            return Err(io::Error::other(message));
        }
    };
    let mut grant = 0;
    if options.grant {
        let size = driver
            .host
            .grant_len()
            .min(SLOTS as usize * LONGEST as usize);
        let wanted = Grant {
            address: driver.host.grant_address()?,
            size: size as u64,
            target: GRANT_BASE,
        };
        if !driver.grant(0, wanted) {
            return Err(io::Error::other(format!("not granted: {wanted:x?}")));
        }
        grant = size / SLOTS as usize;
    }
    driver.start(0, 0);
    driver.wait_ready(kind)?;
    let mut jobs = Jobs {
        options,
        kind,
        grant,
        granted_jobs: 0,
        critical_jobs: 0,
        submitted: 0,
        waiting: VecDeque::new(),
        stream: Crc32::default(),
        resampler: Resampler::default(),
        produced: Crc32::default(),
    };
    let started = driver.host.now();
    loop {
        while jobs.waiting.len() < options.depth && jobs.goes_on(driver, started) {
            jobs.submit(driver);
        }
        if jobs.waiting.is_empty() {
            break;
        }
        jobs.complete(driver)?;
    }
    driver.stop();
    Ok(format!(
        "image={} granted={} critical={} unannounced={}",
        options.image, jobs.granted_jobs, jobs.critical_jobs, driver.unannounced
    ))
}

impl Jobs<'_> {
    fn goes_on<H: Host>(&self, driver: &Driver<H>, started: Duration) -> bool {
        match self.options.seconds {
            Some(seconds) => driver.host.now() - started < Duration::from_secs(seconds),
            None => u64::from(self.submitted) < self.options.jobs,
        }
    }

    fn submit<H: Host>(&mut self, driver: &mut Driver<H>) {
        let sequence = self.submitted.wrapping_add(1);
        let keys = [
            hash(&self.options.name),
            self.options.seed,
            u64::from(sequence),
        ];
        let mut random = Random::keyed(&keys);
        let granted = self.grant > 0 && random.once_in(3);
        let longest = match granted {
            true => self.grant.min(LONGEST as usize),
            false => LONGEST as usize,
        };
        let mut bytes = vec![0; 2 + random.below(longest - 1)];
        random.fill(&mut bytes);
        let source = if granted {
            let offset = (sequence % SLOTS) as usize * self.grant;
            driver.host.grant_store(offset, &bytes);
            self.granted_jobs += 1;
            GRANT_BASE + offset as u64
        } else {
            store(driver, data(sequence), &bytes);
            SHARED_BASE + data(sequence)
        };
        let mut job = Request {
            sequence,
            operation: self.operation(&mut random),
            source,
            length: bytes.len() as u32,
            flags: 0,
            output: (data(sequence) + OUTPUT_OFFSET) as u32,
            room: 0x1c00,
        };
        if self.options.critical && random.once_in(4) {
            job.flags = flag::CRITICAL;
            self.critical_jobs += 1;
        }
        let expected = if random.once_in(NONSENSE) {
            job.operation = 0x4a55_4e4b;
            Expected {
                answer: Answer {
                    sequence,
                    outcome: outcome::BAD_OPERATION,
                    ..Answer::default()
                },
                output: Vec::new(),
                bytes: 0,
            }
        } else {
            self.expect(&job, &bytes)
        };
        self.waiting.push_back(expected);
        self.submitted = sequence;

        let at = slot(sequence);
        let shared = Window::Shared;
        driver
            .host
            .write32(shared, at + request::SEQUENCE, sequence);
        driver
            .host
            .write32(shared, at + request::OPERATION, job.operation);
        driver
            .host
            .write64(shared, at + request::SOURCE, job.source);
        driver
            .host
            .write32(shared, at + request::LENGTH, job.length);
        driver.host.write32(shared, at + request::FLAGS, job.flags);
        driver
            .host
            .write32(shared, at + request::OUTPUT, job.output);
        driver.host.write32(shared, at + request::ROOM, job.room);
        // What can't be right, so that an answer that never comes shows.
        driver.host.write32(shared, at + answer::OUTCOME, 0);
        driver
            .host
            .write32(shared, at + answer::SEQUENCE, !sequence);
        driver.host.barrier();
        driver.host.write32(shared, SUBMITTED, sequence);
        driver.host.barrier();
        driver.set(fw_core_abi::host::DOORBELL, 1);
    }

    fn operation(&self, random: &mut Random) -> u32 {
        match self.kind {
            kind::FILTER => operation::RESAMPLE,
            _ => [
                operation::CRC32,
                operation::ADLER32,
                operation::STREAM_CRC32,
            ][random.below(3)],
        }
    }

    fn expect(&mut self, job: &Request, bytes: &[u8]) -> Expected {
        let mut output = Vec::new();
        let result = match job.operation {
            operation::RESAMPLE => {
                for pair in bytes.chunks_exact(2) {
                    let sample = i16::from_le_bytes([pair[0], pair[1]]);
                    if let Some(converted) = self.resampler.push(sample) {
                        output.extend(converted.to_le_bytes());
                    }
                }
                self.produced.update(&output);
                self.produced.value()
            }
            operation::STREAM_CRC32 => {
                self.stream.update(bytes);
                self.stream.value()
            }
            operation::ADLER32 => {
                let mut adler = Adler32::default();
                adler.update(bytes);
                adler.value()
            }
            _ => {
                let mut crc = Crc32::default();
                crc.update(bytes);
                crc.value()
            }
        };
        Expected {
            answer: Answer {
                sequence: job.sequence,
                outcome: outcome::DONE,
                result: u64::from(result),
                produced: output.len() as u32,
            },
            output,
            bytes: bytes.len() as u64,
        }
    }

    /// Waits for the oldest job and checks it, and those that are done with it.
    fn complete<H: Host>(&mut self, driver: &mut Driver<H>) -> io::Result<()> {
        let before = self
            .submitted
            .wrapping_sub(u32::try_from(self.waiting.len()).unwrap_or(0));
        let timeout = driver.timeout();
        let outcome = driver.wait_for(timeout, |driver| {
            let completed = driver.host.read32(Window::Shared, COMPLETED);
            if completed != before {
                return Some(Ok(completed.wrapping_sub(before)));
            }
            driver.ended().map(Err)
        })?;
        let done = match outcome {
            Some(Ok(done)) => done,
            Some(Err(end)) => return Err(io::Error::other(format!("the firmware ended: {end}"))),
            None => {
                let state = driver.describe();
                return Err(io::Error::other(format!("no answer in time: {state}")));
            }
        };
        if done as usize > self.waiting.len() {
            let message = format!("{done} jobs completed, {} submitted", self.waiting.len());
            return Err(io::Error::other(message));
        }
        for _ in 0..done {
            if let Some(expected) = self.waiting.pop_front() {
                judge(driver, &expected);
            }
        }
        Ok(())
    }
}

fn judge<H: Host>(driver: &mut Driver<H>, expected: &Expected) {
    driver.totals.jobs += 1;
    let wrong = driver.totals.wrong;
    let sequence = expected.answer.sequence;
    let at = slot(sequence);
    let right = &expected.answer;
    for (what, offset, right) in [
        ("answer-sequence", answer::SEQUENCE, right.sequence),
        ("outcome", answer::OUTCOME, right.outcome),
        ("produced", answer::PRODUCED, right.produced),
    ] {
        let found = driver.host.read32(Window::Shared, at + offset);
        driver.check(what, right.into(), found.into());
    }
    let found = driver.host.read64(Window::Shared, at + answer::RESULT);
    driver.check("result", right.result, found);
    for (offset, bytes) in (0_u64..).step_by(8).zip(expected.output.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let place = data(sequence) + OUTPUT_OFFSET + offset;
        let found = driver.host.read64(Window::Shared, place);
        if found != u64::from_le_bytes(word) {
            driver.check("output", u64::from_le_bytes(word), found);
            break;
        }
    }
    // One job, however much of it is wrong.
    driver.totals.wrong = driver.totals.wrong.min(wrong + 1);
    driver.totals.dma_bytes += expected.bytes;
    if driver.totals.jobs.is_multiple_of(PROGRESS) {
        let line = report::progress(&driver.totals);
        driver.host.print(&line);
    }
}

fn store<H: Host>(driver: &mut Driver<H>, at: u64, bytes: &[u8]) {
    for (offset, bytes) in (at..).step_by(8).zip(bytes.chunks(8)) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let word = u64::from_le_bytes(word);
        driver.host.write64(Window::Shared, offset, word);
    }
}
