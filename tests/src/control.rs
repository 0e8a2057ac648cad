//! QEMU's own control socket: what a test does to a machine, or sees of it, that Baton can neither do nor tell.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use qemu_boot::{Artifacts, Scenario};

/// The control socket of a machine.
#[derive(Debug)]
pub struct Control(PathBuf);

impl Control {
    /// Gives the machine one, before it boots.
    ///
    /// # Errors
    /// If there is no directory for it.
    pub fn of(scenario: &mut Scenario) -> Result<Self> {
        let logs = Artifacts::get()?.workspace().logs()?;
        let socket = logs.join(format!("{}.qmp", scenario.name));
        let _ = std::fs::remove_file(&socket);
        let place = format!("unix:{},server=on,wait=off", socket.display());
        scenario.qemu_args.extend(["-qmp".to_owned(), place]);
        Ok(Self(socket))
    }

    /// Has QEMU do this: a command of its machine protocol (QMP), with its arguments as JSON.
    ///
    /// # Errors
    /// If QEMU isn't there, refuses, or says nothing for half a minute.
    pub fn execute(&self, command: &str, arguments: &str) -> Result<()> {
        let stream = UnixStream::connect(&self.0).context("QEMU's control socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let mut answers = BufReader::new(stream.try_clone()?).lines();
        let mut next = || {
            answers
                .next()
                .context("QEMU closed its control socket")?
                .map_err(anyhow::Error::from)
        };
        ensure!(next()?.contains("QMP"));
        for (command, arguments) in [("qmp_capabilities", "{}"), (command, arguments)] {
            let line = format!("{{\"execute\": \"{command}\", \"arguments\": {arguments}}}\n");
            (&stream).write_all(line.as_bytes())?;
            loop {
                let answer = next()?;
                ensure!(!answer.contains("\"error\""), "{command}: {answer}");
                if answer.contains("\"return\"") {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What is in the machine's memory.
    ///
    /// # Errors
    /// As for [`execute`](Self::execute), or if there is no room for a copy.
    pub fn memory(&self, start: u64, bytes: u64) -> Result<Vec<u8>> {
        let file = self.0.with_extension("memory");
        let arguments = format!(
            "{{\"val\": {start}, \"size\": {bytes}, \"filename\": \"{}\"}}",
            file.display()
        );
        self.execute("pmemsave", &arguments)?;
        let memory = std::fs::read(&file).context("the copy of the memory")?;
        let _ = std::fs::remove_file(&file);
        Ok(memory)
    }
}
