//! What one job is: planned from its number alone, then run.
//!
//! Jobs differ in all that a context switch could get wrong: when the factorial runs relative to the
//! transfers, interrupts or polling, sizes and offsets, widths of accesses, and how long data stays in the
//! device before it is read back, so that switches fall into every gap. The buffer is compared with all that
//! was ever written to it, not just with this job's part.

use crate::edu::{BUFFER_LEN, DeviceRange};
use crate::machine::Machine;
use crate::operation::{Completion, Edu, Stop, Transfer};
use crate::random::{Random, hash};
use std::time::Duration;

/// When the job's factorial runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Before both transfers.
    First,
    /// While data moves to the device.
    DuringOutgoing,
    /// While the data is in the device.
    Between,
    /// While data moves back.
    DuringIncoming,
    /// After both transfers.
    Last,
}

/// A job's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Its number, from 1.
    pub number: u64,
    /// What goes into the liveness register for the job's duration.
    pub liveness: u32,
    /// Compute the factorial of this.
    pub n: u32,
    /// When.
    pub place: Place,
    /// How its end is noticed; while a transfer runs it is polled for.
    pub completion: Completion,
    /// Data to the device.
    pub outgoing: Transfer,
    /// Data from the device.
    pub incoming: Transfer,
    /// Sleeps: before the transfers, with data in the device, after the transfers.
    pub pauses: [Duration; 3],
    /// The data.
    pub pattern: Vec<u8>,
}

fn range(random: &mut Random) -> DeviceRange {
    // Half of the transfers are the whole buffer; the others any part of it, down to a byte.
    if random.once_in(2) {
        return DeviceRange::FULL;
    }
    let offset = random.below(BUFFER_LEN);
    let len = 1 + random.below(BUFFER_LEN - offset);
    DeviceRange::new(offset, len).unwrap_or(DeviceRange::FULL)
}

fn transfer(range: DeviceRange, slot_len: usize, random: &mut Random) -> Transfer {
    Transfer {
        range,
        memory_offset: random.below(slot_len.saturating_sub(range.len()) + 1),
        wide: random.once_in(2),
        completion: completion(random),
    }
}

fn completion(random: &mut Random) -> Completion {
    if random.once_in(3) {
        Completion::Polling
    } else {
        Completion::Interrupt
    }
}

fn pause(random: &mut Random) -> Duration {
    let longest = match random.below(12) {
        0 => 400,
        1..=5 => 8,
        _ => return Duration::ZERO,
    };
    Duration::from_millis(1 + random.below(longest) as u64)
}

impl Job {
    /// Plans job `number` (from 1) of the program called `name` with this seed, for slots of DMA memory of
    /// `slot_len` bytes. A job of `stress` has no pauses, and always a factorial beside a transfer.
    pub fn plan(name: &str, seed: u64, number: u64, slot_len: usize, stress: bool) -> Self {
        let mut random = Random::keyed(&[hash(name), seed, number]);
        let n = if random.once_in(8) {
            35 + random.below(26)
        } else {
            random.below(35)
        };
        let outgoing = match number {
            1 => DeviceRange::FULL,
            _ => range(&mut random),
        };
        let incoming = range(&mut random);
        // Both ways of completion come in turn, whatever chance says about the transfers.
        let completion = if number.is_multiple_of(3) {
            Completion::Polling
        } else {
            Completion::Interrupt
        };
        let places: &[Place] = if stress {
            &[Place::DuringOutgoing, Place::DuringIncoming]
        } else {
            &[
                Place::First,
                Place::DuringOutgoing,
                Place::Between,
                Place::DuringIncoming,
                Place::Last,
            ]
        };
        let place = places[(number % places.len() as u64) as usize];
        let pauses = if stress {
            [Duration::ZERO; 3]
        } else {
            [(); 3].map(|()| pause(&mut random))
        };
        let mut pattern = vec![0; outgoing.len()];
        let liveness = random.next_u32();
        let outgoing = transfer(outgoing, slot_len, &mut random);
        let incoming = transfer(incoming, slot_len, &mut random);
        random.fill(&mut pattern);
        Self {
            number,
            liveness,
            n: n as u32,
            place,
            completion,
            outgoing,
            incoming,
            pauses,
            pattern,
        }
    }

    /// Runs the job.
    ///
    /// # Errors
    /// [`Stop`]; what was abandoned has been reported.
    pub fn run<M: Machine>(&self, edu: &mut Edu<M>) -> Result<(), Stop> {
        if edu.buffer().is_none() && self.outgoing.range != DeviceRange::FULL {
            // Nothing known to compare with, after an abandoned job: begin with the whole buffer.
            let whole = Transfer {
                range: DeviceRange::FULL,
                memory_offset: 0,
                ..self.outgoing
            };
            let mut bytes = vec![0; BUFFER_LEN];
            Random::keyed(&[self.liveness.into()]).fill(&mut bytes);
            edu.to_device(&bytes, whole, None)?;
        }
        let meanwhile = |place| (self.place == place).then_some(self.n);

        edu.set_liveness(self.liveness);
        if self.place == Place::First {
            edu.factorial(self.n, self.completion)?;
        }
        edu.machine.sleep(self.pauses[0]);
        edu.to_device(
            &self.pattern,
            self.outgoing,
            meanwhile(Place::DuringOutgoing),
        )?;
        if self.place == Place::Between {
            edu.factorial(self.n, self.completion)?;
        }
        edu.machine.sleep(self.pauses[1]);
        edu.check_registers();
        edu.from_device(self.incoming, meanwhile(Place::DuringIncoming))?;
        edu.machine.sleep(self.pauses[2]);
        if self.place == Place::Last {
            edu.factorial(self.n, self.completion)?;
        }
        edu.check_registers();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn transfers_stay_inside(name in "[a-z]{1,4}", seed: u64, number in 1u64.., pages in 1usize..256) {
            let slot_len = pages * 4096;
            let job = Job::plan(&name, seed, number, slot_len, seed % 2 == 0);
            for transfer in [job.outgoing, job.incoming] {
                prop_assert!(transfer.range.end() <= BUFFER_LEN);
                prop_assert!(!transfer.range.is_empty());
                prop_assert!(transfer.memory_offset + transfer.range.len() <= slot_len);
            }
            prop_assert_eq!(job.pattern.len(), job.outgoing.range.len());
            prop_assert!(job.n <= 60);
        }
    }

    #[test]
    fn jobs_vary_and_repeat() {
        let plan = |name, seed, number| Job::plan(name, seed, number, 1 << 20, false);
        assert_eq!(plan("d1", 1, 5), plan("d1", 1, 5));
        assert_ne!(plan("d1", 1, 1).pattern, plan("d2", 1, 1).pattern);
        assert_ne!(plan("d1", 1, 1).pattern, plan("d1", 2, 1).pattern);

        let jobs: Vec<_> = (1..=40).map(|number| plan("d1", 1, number)).collect();
        let some = |wanted: &dyn Fn(&Job) -> bool| jobs.iter().any(wanted);
        assert!(some(&|job| job.completion == Completion::Polling));
        assert!(some(&|job| job.completion == Completion::Interrupt));
        assert!(some(&|job| job.incoming.completion == Completion::Polling));
        assert!(some(&|job| job.outgoing.range.len() < BUFFER_LEN));
        assert!(some(&|job| job.pauses[1] > Duration::from_millis(10)));
        assert!(some(&|job| job.n >= 35));
        for place in [
            Place::First,
            Place::DuringOutgoing,
            Place::Between,
            Place::DuringIncoming,
            Place::Last,
        ] {
            assert!(some(&|job| job.place == place), "{place:?}");
        }
    }
}
