//! A terminal that passes bytes as they are, and doesn't let its user wait for ever.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use super::ready::readable;

/// A terminal in raw mode, which nobody else has at the same time.
#[derive(Debug)]
pub struct Terminal {
    file: File,
    patience: Duration,
}

impl Terminal {
    /// Opens it, waiting for who has it. A read gives up after `patience`.
    ///
    /// # Errors
    /// If there is none, or it's no terminal.
    pub fn open(path: &str, patience: Duration) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32)
            .open(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        let mut modes = tcgetattr(&file)?;
        modes.make_raw();
        tcsetattr(&file, OptionalActions::Flush, &modes)?;
        Ok(Self { file, patience })
    }
}

impl Read for Terminal {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if !readable(&self.file, self.patience)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"));
        }
        self.file.read(into)
    }
}

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
