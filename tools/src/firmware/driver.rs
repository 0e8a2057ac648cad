//! The function's driver: load, start, stop, grant, wait.

use super::host::{Host, Window};
use crate::report::{self, Totals};
use coproc_core::paravirtual;
use fw_core_abi::{IMAGE_BASE, IMAGE_SIZE, control, host, interrupt, status};
use fw_logic::protocol::{COMPLETED, READY, SUBMITTED, WORK};
use std::io;
use std::time::Duration;

/// All registers of a function that its domain lost read so.
pub const LOST: u32 = u32::MAX;
/// Longest sleep without a look at the status: losing the core raises no interrupt that one could rely on.
const LOOK: Duration = Duration::from_millis(100);
/// Wrong results that are reported one by one.
const WRONG_LINES: u64 = 20;

/// The driver's state.
pub struct Driver<H> {
    /// The machine.
    pub host: H,
    /// What was counted.
    pub totals: Totals,
    /// How often something was found that no interrupt had announced.
    pub unannounced: u64,
    timeout: Duration,
}

/// A grant, as it is written to the registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Address for the domain.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Address for the firmware.
    pub target: u64,
}

impl<H: Host> Driver<H> {
    /// A driver that waits this long for one thing.
    pub fn new(host: H, timeout: Duration) -> Self {
        Self {
            host,
            totals: Totals::default(),
            unannounced: 0,
            timeout,
        }
    }

    /// Reads a register of 4 bytes.
    pub fn register(&mut self, offset: u64) -> u32 {
        self.host.read32(Window::Registers, offset)
    }

    /// Reads a register of 8 bytes.
    pub fn register64(&mut self, offset: u64) -> u64 {
        self.host.read64(Window::Registers, offset)
    }

    /// Writes a register of 4 bytes.
    pub fn set(&mut self, offset: u64, value: u32) {
        self.host.write32(Window::Registers, offset, value);
    }

    /// Writes a register of 8 bytes.
    pub fn set64(&mut self, offset: u64, value: u64) {
        self.host.write64(Window::Registers, offset, value);
    }

    /// A [`status`], or [`LOST`].
    pub fn status(&mut self) -> u32 {
        self.register(host::STATUS)
    }

    /// Reports a wrong result; counted always, printed only so often.
    pub fn wrong(&mut self, what: &str, expected: &str, found: &str) {
        self.totals.wrong += 1;
        if self.totals.wrong <= WRONG_LINES {
            let line = report::wrong(self.totals.jobs, what, expected, found);
            self.host.print(&line);
        }
    }

    /// Reports `found` if it isn't `expected`.
    pub fn check(&mut self, what: &str, expected: u64, found: u64) {
        if expected != found {
            self.wrong(what, &format!("{expected:#x}"), &format!("{found:#x}"));
        }
    }

    /// Puts an image at the start of the image memory, zeros behind it, and reads it back.
    ///
    /// # Errors
    /// If it is too large, or isn't there afterwards.
    pub fn load(&mut self, image: &[u8]) -> io::Result<()> {
        if image.len() as u64 > IMAGE_SIZE {
            let length = image.len();
            let message = format!("image of {length} bytes: expected at most {IMAGE_SIZE}");
            return Err(io::Error::other(message));
        }
        let word = |offset: u64| {
            let mut bytes = [0; 8];
            let rest = image.get(offset as usize..).unwrap_or_default();
            let length = rest.len().min(8);
            bytes[..length].copy_from_slice(&rest[..length]);
            u64::from_le_bytes(bytes)
        };
        let offsets = || (0..IMAGE_SIZE).step_by(8);
        for offset in offsets() {
            self.host.write64(Window::Image, offset, word(offset));
        }
        self.host.barrier();
        for offset in offsets() {
            let found = self.host.read64(Window::Image, offset);
            if found != word(offset) {
                let expected = word(offset);
                let message =
                    format!("image at {offset:#x}: found {found:#x}, expected {expected:#x}");
                return Err(io::Error::other(message));
            }
        }
        Ok(())
    }

    /// Loads a firmware by name.
    ///
    /// # Errors
    /// As for [`Self::load`], or if there is none of that name.
    pub fn load_named(&mut self, name: &str) -> io::Result<()> {
        let image = self.host.firmware(name)?;
        self.load(&image)
    }

    /// Starts what was loaded, with a fresh ring.
    pub fn start(&mut self, argument: u64, inbox: u64) {
        self.start_at(IMAGE_BASE, argument, inbox);
    }

    /// Starts at an address of the caller's choice.
    pub fn start_at(&mut self, entry: u64, argument: u64, inbox: u64) {
        self.host.write32(Window::Shared, SUBMITTED, 0);
        self.host.write32(Window::Shared, COMPLETED, 0);
        self.host.write64(Window::Shared, WORK, 0);
        self.set(host::INTERRUPT_ACKNOWLEDGE, interrupt::ALL);
        self.set(host::INTERRUPT_ENABLE, interrupt::ALL);
        self.set64(host::ENTRY, entry);
        self.set64(host::ARGUMENT, argument);
        self.set64(host::INBOX, inbox);
        self.host.barrier();
        self.set(host::CONTROL, control::START);
    }

    /// Stops it, running or not.
    pub fn stop(&mut self) {
        self.set(host::CONTROL, control::STOP);
        self.set(host::INTERRUPT_ACKNOWLEDGE, interrupt::ALL);
    }

    /// Accepts to be asked for the core.
    ///
    /// # Errors
    /// If that isn't offered.
    pub fn accept_yield(&mut self) -> io::Result<()> {
        let at = host::PARAVIRTUAL + paravirtual::register::ACCEPTED;
        self.set(at, paravirtual::feature::YIELD);
        match self.register(at) {
            paravirtual::feature::YIELD => Ok(()),
            other => Err(io::Error::other(format!(
                "paravirtual yield: found {other:#x}, expected it to be offered"
            ))),
        }
    }

    /// Tries a grant; whether it holds.
    pub fn grant(&mut self, index: u64, grant: Grant) -> bool {
        let at = host::GRANT + index * host::GRANT_STRIDE;
        self.set64(at + host::GRANT_ADDRESS, grant.address);
        self.set64(at + host::GRANT_SIZE, grant.size);
        self.set64(at + host::GRANT_TARGET, grant.target);
        self.set(at + host::GRANT_CONTROL, 1);
        self.register(at + host::GRANT_CONTROL) == 1
    }

    /// Takes a grant back; whether it no longer holds.
    pub fn take_back(&mut self, index: u64) -> bool {
        let at = host::GRANT + index * host::GRANT_STRIDE;
        self.set(at + host::GRANT_CONTROL, 0);
        self.register(at + host::GRANT_CONTROL) == 0
    }

    /// Waits until `look` gives something, looking at each interrupt and now and then; `None` when it takes longer than `limit`.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(&mut Self) -> Option<T>,
    ) -> io::Result<Option<T>> {
        let deadline = self.host.now() + limit;
        let mut announced = true;
        loop {
            // What is pending is acknowledged before it is looked at, so that what comes later raises the interrupt again.
            let pending = self.register(host::INTERRUPT_STATUS);
            if pending != LOST && pending != 0 {
                self.set(host::INTERRUPT_ACKNOWLEDGE, pending);
            }
            self.host.barrier();
            if let Some(found) = look(self) {
                self.unannounced += u64::from(!announced);
                return Ok(Some(found));
            }
            let left = deadline.saturating_sub(self.host.now());
            if left.is_zero() {
                return Ok(None);
            }
            self.host.unmask_interrupt()?;
            let events = self.host.wait_interrupt(left.min(LOOK))?;
            self.totals.interrupts += u64::from(events);
            announced = events > 0;
        }
    }

    /// Whether the firmware can no longer answer; what became of it then.
    pub fn ended(&mut self) -> Option<String> {
        match self.status() {
            status::RUNNING | status::WAITING => None,
            _ => Some(self.describe()),
        }
    }

    /// What the registers tell about the firmware's end.
    pub fn describe(&mut self) -> String {
        format!(
            "status={:#x} exit_code={:#x} syndrome={:#x} address={:#x} pc={:#x} outbox={:#x}",
            self.status(),
            self.register(host::EXIT_CODE),
            self.register64(host::CRASH_SYNDROME),
            self.register64(host::CRASH_ADDRESS),
            self.register64(host::CRASH_PC),
            self.register64(host::OUTBOX),
        )
    }

    /// Waits until the firmware says that it runs.
    ///
    /// # Errors
    /// If it doesn't, or says that it is another one.
    pub fn wait_ready(&mut self, kind: u32) -> io::Result<()> {
        let expected = READY | u64::from(kind);
        let timeout = self.timeout;
        let outcome = self.wait_for(timeout, |driver| {
            let word = driver.register64(host::OUTBOX);
            if word == expected {
                return Some(Ok(()));
            }
            driver.ended().map(Err)
        })?;
        let problem = match outcome {
            Some(Ok(())) => {
                self.host
                    .print(&format!("workload: firmware ready kind={kind}"));
                return Ok(());
            }
            Some(Err(end)) => end,
            None => self.describe(),
        };
        Err(io::Error::other(format!(
            "the firmware doesn't say that it is ready: {problem}"
        )))
    }

    /// How long one thing may take.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }
}
