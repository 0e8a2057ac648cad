//! The modes: what the program does with the device, from start to last line.

use crate::edu::{self, DeviceRange};
use crate::job::Job;
use crate::machine::{Machine, Slot};
use crate::operation::{Completion, Edu, Stop, Transfer};
use crate::options::{Mode, Options};
use crate::random::{Random, hash, secret, windows_in_common};
use crate::report;
use std::io;
use std::time::Duration;

/// Jobs between two progress lines.
const PROGRESS: u64 = 5;
/// How long `touch` runs when nothing is said.
const TOUCH_SECONDS: u64 = 10;

/// Runs the mode in `options` to its end and prints its last line; idle modes come back at once.
///
/// # Errors
/// When the operating system fails; wrong results are counted, not errors.
pub fn run<M: Machine>(machine: M, options: &Options) -> io::Result<()> {
    let mut edu = Edu::new(machine, options.timeout);
    edu.hotplug = options.hotplug;
    let started = edu.machine.now();
    let extra = match options.mode {
        Mode::Jobs | Mode::Stress => jobs(&mut edu, options)?,
        Mode::SecretWrite => secret_write(&mut edu, options)?,
        Mode::SecretRead => secret_read(&mut edu, options)?,
        Mode::DmaOutside => dma_outside(&mut edu, options)?,
        Mode::Touch => touch(&mut edu, options)?,
        Mode::Idle => String::new(),
    };
    let elapsed = edu.machine.now() - started;
    let mode = options.mode.to_string();
    let line = report::done(&options.name, &mode, &edu.totals, elapsed, &extra);
    edu.machine.print(&line);
    Ok(())
}

/// Whether the time-bound or the counted run goes on.
fn goes_on<M: Machine>(edu: &Edu<M>, options: &Options, started: Duration) -> bool {
    match options.seconds {
        Some(seconds) => edu.machine.now() - started < Duration::from_secs(seconds),
        None => edu.totals.jobs < options.jobs,
    }
}

fn progress<M: Machine>(edu: &mut Edu<M>) {
    if edu.totals.jobs.is_multiple_of(PROGRESS) {
        let line = report::progress(&edu.totals);
        edu.machine.print(&line);
    }
}

fn whole(completion: Completion) -> Transfer {
    Transfer {
        range: DeviceRange::FULL,
        memory_offset: 0,
        wide: true,
        completion,
    }
}

fn alternate(number: u64) -> Completion {
    if number.is_multiple_of(2) {
        Completion::Polling
    } else {
        Completion::Interrupt
    }
}

fn plan<M: Machine>(edu: &Edu<M>, options: &Options, number: u64) -> Job {
    let stress = options.mode == Mode::Stress;
    let slot_len = edu.machine.slot_len();
    Job::plan(&options.name, options.seed, number, slot_len, stress)
}

fn jobs<M: Machine>(edu: &mut Edu<M>, options: &Options) -> io::Result<String> {
    let started = edu.machine.now();
    while goes_on(edu, options, started) {
        let job = plan(edu, options, edu.totals.jobs + 1);
        let outcome = edu.begin(job.number).and_then(|()| job.run(edu));
        edu.end(outcome)?;
        progress(edu);
    }
    Ok(String::new())
}

/// The secret's share in the registers, as far as one can leave it there without starting anything.
fn secret_registers(secret: &[u8]) -> (u32, u64, u64) {
    let word = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&secret[at..at + 8]);
        u64::from_le_bytes(bytes)
    };
    (word(0) as u32, word(8), word(16))
}

fn secret_write<M: Machine>(edu: &mut Edu<M>, options: &Options) -> io::Result<String> {
    let secret = secret(options.secret);
    let (liveness, source, destination) = secret_registers(&secret);
    let leave = |edu: &mut Edu<M>| {
        edu.set_liveness(liveness);
        edu.set_dma(source, destination, 8, true);
    };
    let outcome = edu.begin(1).and_then(|()| {
        edu.to_device(&secret, whole(Completion::Interrupt), None)?;
        leave(edu);
        Ok(())
    });
    let written = outcome.is_ok();
    edu.end(outcome)?;
    if written {
        edu.machine.print("workload: secret written");
    }

    // Held: the domain stays willing, so switches go back and forth with the secret in its context.
    let started = edu.machine.now();
    let goes_on = |edu: &Edu<M>| match options.seconds {
        Some(seconds) => edu.machine.now() - started < Duration::from_secs(seconds),
        None => true,
    };
    while options.hold && goes_on(edu) {
        let number = edu.totals.jobs + 1;
        let outcome = edu.begin(number).and_then(|()| {
            if edu.buffer().is_none() {
                edu.to_device(&secret, whole(Completion::Interrupt), None)?;
                leave(edu);
            }
            edu.factorial((number % 61) as u32, alternate(number))?;
            edu.check_registers();
            if number.is_multiple_of(16) {
                edu.from_device(whole(alternate(number / 16)), None)?;
                leave(edu);
            }
            Ok(())
        });
        edu.end(outcome)?;
        edu.machine.sleep(options.pause);
    }
    Ok(String::new())
}

fn secret_read<M: Machine>(edu: &mut Edu<M>, options: &Options) -> io::Result<String> {
    let secret = secret(options.secret);
    let mut random = Random::keyed(&[hash(&options.name), options.seed]);
    let (mut found, mut nonzero_bytes) = (0, 0);

    // Registers first, before anything of ours is in them.
    let machine = &mut edu.machine;
    let narrow = [
        edu::LIVENESS,
        edu::FACTORIAL,
        edu::STATUS,
        edu::INTERRUPT_STATUS,
        edu::DMA_COMMAND,
    ]
    .map(|offset| u64::from(machine.read32(offset)));
    let wide = [edu::DMA_SOURCE, edu::DMA_DESTINATION, edu::DMA_COUNT]
        .map(|offset| machine.read64(offset));
    let registers = || narrow.iter().chain(&wide);
    let mut nonzero_registers = registers().filter(|value| **value != 0).count();
    let (liveness, source, destination) = secret_registers(&secret);
    let secrets = [u64::from(!liveness), source, destination];
    found += registers().filter(|v| secrets.contains(v)).count();

    let mut rounds = 0;
    while rounds < options.rounds {
        rounds += 1;
        let outcome = edu.begin(rounds).and_then(|()| {
            let transfer = Transfer {
                memory_offset: random.below(edu.machine.slot_len() - edu::BUFFER_LEN + 1),
                ..whole(alternate(rounds))
            };
            let bytes = edu.from_device(transfer, None)?;
            found += windows_in_common(&bytes, &secret);
            nonzero_bytes += bytes.iter().filter(|byte| **byte != 0).count();
            // Again, now that the device itself was ours for a while: what we never wrote.
            for offset in [edu::LIVENESS, edu::FACTORIAL, edu::STATUS] {
                nonzero_registers += usize::from(edu.machine.read32(offset) != 0);
            }
            edu.check("secret", 0, found as u64);
            Ok(())
        });
        edu.end(outcome)?;
        edu.machine.sleep(options.pause);
    }
    edu.machine.print(&format!(
        "workload: secret found={found} rounds={rounds} nonzero_bytes={nonzero_bytes} \
         nonzero_registers={nonzero_registers}"
    ));
    Ok(format!("found={found}"))
}

fn dma_outside<M: Machine>(edu: &mut Edu<M>, options: &Options) -> io::Result<String> {
    let Some(address) = options.outside else {
        return Err(io::Error::other("workload.outside is missing"));
    };
    let mut random = Random::keyed(&[hash("outside"), options.seed]);
    let (mut attempts, mut leaked) = (0, 0);
    let started = edu.machine.now();
    while goes_on(edu, options, started) {
        let job = plan(edu, options, edu.totals.jobs + 1);
        let outcome = edu.begin(job.number).and_then(|()| {
            job.run(edu)?;
            if job.number.is_multiple_of(2) {
                attempts += 2;
                leaked += outside(edu, address, &mut random)?;
            }
            Ok(())
        });
        edu.end(outcome)?;
        progress(edu);
    }
    edu.machine
        .print(&format!("workload: outside attempts={attempts}"));
    Ok(format!("attempts={attempts} leaked_bytes={leaked}"))
}

/// Aims one transfer in each direction at an address that isn't ours; returns how many bytes came from there.
fn outside<M: Machine>(edu: &mut Edu<M>, address: u64, random: &mut Random) -> Result<usize, Stop> {
    // Mostly short, since an IOMMU reports a fault for every few bytes; now and then the whole buffer.
    let range = match random.once_in(4) {
        true => DeviceRange::FULL,
        false => DeviceRange::new(4 * random.below(512), 4 * (1 + random.below(64)))
            .unwrap_or(DeviceRange::FULL),
    };
    let before = edu.buffer().map(<[u8]>::to_vec);
    let transfer = Transfer {
        range,
        ..whole(alternate(random.next_u64()))
    };
    edu.transfer_at(address, false, transfer)?;
    let after = edu.from_device(whole(alternate(random.next_u64())), None)?;
    let mut leaked = 0;
    if let Some(before) = before {
        // Inside the range either nothing came, or an aborted read's zeros; beside it nothing may change.
        let mut expected = before.clone();
        for at in range.offset()..range.end() {
            match after[at] == before[at] || after[at] == 0 {
                true => expected[at] = after[at],
                false => leaked += 1,
            }
        }
        edu.compare("outside-read", 0, &expected, &after);
    }
    edu.set_buffer(after);
    edu.transfer_at(address, true, transfer)?;
    Ok(leaked)
}

fn touch<M: Machine>(edu: &mut Edu<M>, options: &Options) -> io::Result<String> {
    let mut random = Random::keyed(&[hash(&options.name), options.seed]);
    let seconds = Duration::from_secs(options.seconds.unwrap_or(TOUCH_SECONDS));
    let started = edu.machine.now();
    let (mut reads, mut doorbells) = (0, 0);
    edu.adopt_result();
    while edu.machine.now() - started < seconds {
        let number = edu.totals.jobs + 1;
        let outcome = edu.begin(number).and_then(|()| {
            edu.set_liveness(random.next_u32());
            // Values that would be valid for a transfer, though none is started.
            let memory = edu.machine.physical(Slot::Incoming, random.below(64))?;
            let count = 1 + random.below(edu::BUFFER_LEN) as u64;
            edu.set_dma(edu::BUFFER_BASE, memory, count, random.once_in(2));
            let interrupt = random.once_in(2);
            edu.set_factorial_interrupt(interrupt);
            if options.doorbell {
                edu.factorial(random.below(61) as u32, alternate(number))?;
                doorbells += 1;
            } else {
                let flag = if interrupt { edu::STATUS_INTERRUPT } else { 0 };
                for _ in 0..8 {
                    let status = edu.machine.read32(edu::STATUS);
                    edu.check("status", flag.into(), status.into());
                    let pending = edu.machine.read32(edu::INTERRUPT_STATUS);
                    edu.check("interrupt-status", 0, pending.into());
                    reads += 2 + edu.check_registers();
                }
            }
            reads += edu.check_registers();
            Ok(())
        });
        edu.end(outcome)?;
        edu.machine.sleep(options.pause);
    }
    let busy = edu.busy_reads;
    Ok(format!(
        "reads={reads} doorbells={doorbells} busy_reads={busy}"
    ))
}

#[cfg(test)]
mod tests;
