//! A child process seen through its console, which never outlives whoever started it.
//!
//! A test that hangs, panics or is killed must not leave a QEMU behind, since a dozen of
//! those make a machine unusable. So there are four nets: dropping the handle kills the child; a time
//! limit, kept by a thread of its own, kills it although nobody waits; the kernel kills it when the
//! process that started it dies for whatever reason; and it has no terminal to hang on to.
//!
//! Waiting is by line and by position ([`Mark`]): a caller takes a mark, types a command, and looks
//! only at what came after, so that an older `ok` is never taken for the answer, and two callers
//! can wait for different things in the same stream.
//!
//! A line that Baton cut off to show another source's, and will show again from its start, is none:
//! whoever looked at one as at a line would read `jobs=4` where `jobs=40` is to come.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use control_plane::console::multiplexer::CUT;

use crate::command::shown;
use crate::report::{Origin, split_tag};

/// A position in the console's output: how many ended lines came before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark(usize);

impl Mark {
    /// Before the first line.
    pub const START: Self = Self(0);
}

/// A running child and what it has said so far.
#[derive(Debug)]
pub struct Console {
    name: String,
    log: PathBuf,
    pid: u32,
    shared: Arc<Shared>,
    input: Mutex<Option<ChildStdin>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    child: Mutex<Child>,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    partial: Vec<u8>,
    /// Reader threads that haven't seen the end of their stream.
    readers: usize,
    /// The time limit struck.
    timed_out: bool,
    /// The handle was dropped or killed.
    stopped: bool,
    log_error: Option<String>,
}

/// What stood in one line of the screen.
#[derive(Debug)]
struct Line {
    text: String,
    /// Baton will show it again from its start.
    beginning: bool,
}

impl Line {
    fn new(bytes: &[u8]) -> Self {
        Self {
            text: line_text(bytes),
            beginning: is_beginning(bytes),
        }
    }

    fn whole(&self) -> Option<&str> {
        (!self.beginning).then_some(&self.text)
    }
}

impl State {
    /// The whole lines from a position on, with their positions.
    fn whole(&self, from: usize) -> impl Iterator<Item = (usize, String)> {
        let lines = self.lines.iter().enumerate().skip(from);
        lines.filter_map(|(at, line)| Some((at, line.whole()?.to_owned())))
    }
}

impl Console {
    /// Starts a child with pipes for its standard streams.
    ///
    /// All its output goes to `<logs>/<name>.log` too. `limit` is the longest it may live.
    ///
    /// # Errors
    /// If the child or the log can't be made.
    pub fn spawn(name: &str, mut command: Command, logs: &Path, limit: Duration) -> Result<Self> {
        let log = logs.join(format!("{name}.log"));
        let mut file = File::create(&log).with_context(|| format!("making {}", log.display()))?;
        writeln!(file, "# {}", shown(&command))?;
        let error_file = file.try_clone()?;

        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let line = shown(&command);
        let mut child = spawn_bound(command).with_context(|| format!("starting {line}"))?;
        let (input, output, errors) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let pid = child.id();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                readers: 2,
                ..State::default()
            }),
            changed: Condvar::new(),
            child: Mutex::new(child),
        });
        let (output, errors) = output.zip(errors).context("the child has no output pipe")?;
        let reader = Arc::clone(&shared);
        thread::spawn(move || reader.read(output, file, true));
        let reader = Arc::clone(&shared);
        thread::spawn(move || reader.read(errors, error_file, false));
        let watched = Arc::clone(&shared);
        thread::spawn(move || watched.watch(limit));
        Ok(Self {
            name: name.to_owned(),
            log,
            pid,
            shared,
            input: Mutex::new(input),
        })
    }

    /// The name it was started under.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its output is also written.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The child's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All complete lines so far, without line ends. The log has the beginnings of lines that were shown again, too.
    pub fn lines(&self) -> Vec<String> {
        self.lines_after(Mark::START)
    }

    /// The complete lines after a mark.
    pub fn lines_after(&self, mark: Mark) -> Vec<String> {
        let state = self.shared.state();
        state.whole(mark.0).map(|(_, text)| text).collect()
    }

    /// The position now.
    pub fn mark(&self) -> Mark {
        Mark(self.shared.state().lines.len())
    }

    /// Waits for a line that contains `text`, looking from the first line on.
    ///
    /// # Errors
    /// If none comes within `timeout`, or the child ends first.
    pub fn wait_for(&self, text: &str, timeout: Duration) -> Result<String> {
        self.wait_for_after(Mark::START, text, timeout)
    }

    /// Waits for a line after `mark` that contains `text`.
    ///
    /// # Errors
    /// If none comes within `timeout`, or the child ends first.
    pub fn wait_for_after(&self, mark: Mark, text: &str, timeout: Duration) -> Result<String> {
        let found = |line: &str| line.contains(text).then(|| line.to_owned());
        Ok(self.wait_map(mark, &format!("'{text}'"), timeout, found)?.1)
    }

    /// Shows every complete line after `mark` to `look`, once and in order, until it gives
    /// something; gives that with the position behind its line. `what` names it in the error.
    ///
    /// # Errors
    /// If nothing is found within `timeout`, or the child ends first.
    pub fn wait_map<T>(
        &self,
        mark: Mark,
        what: &str,
        timeout: Duration,
        mut look: impl FnMut(&str) -> Option<T>,
    ) -> Result<(Mark, T)> {
        let deadline = Instant::now() + timeout;
        let mut next = mark.0;
        let mut state = self.shared.state();
        loop {
            // `look` may print or take its time: it must not hold up the reader.
            let fresh: Vec<(usize, String)> = state.whole(next).collect();
            next = state.lines.len();
            let readers = state.readers;
            drop(state);
            for (at, line) in &fresh {
                if let Some(found) = look(line) {
                    return Ok((Mark(at + 1), found));
                }
            }
            if readers == 0 {
                return Err(self.missed(what, &self.ending()));
            }
            state = self.shared.state();
            if state.lines.len() > next || state.readers == 0 {
                continue;
            }
            let now = Instant::now();
            if now >= deadline {
                drop(state);
                return Err(self.missed(what, &format!("within {timeout:?}")));
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits for `text` in the line that isn't ended yet (a prompt) or in any line, or beginning of one, after `mark`.
    ///
    /// # Errors
    /// If it doesn't come within `timeout`, or the child ends first.
    pub fn wait_for_prompt(&self, mark: Mark, text: &str, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let mut state = self.shared.state();
        loop {
            let partial = String::from_utf8_lossy(&state.partial);
            let mut lines = state.lines.iter().skip(mark.0);
            if partial.contains(text) || lines.any(|line| line.text.contains(text)) {
                return Ok(());
            }
            let now = Instant::now();
            if now >= deadline || state.readers == 0 {
                drop(state);
                return Err(self.missed(&format!("'{text}'"), &format!("within {timeout:?}")));
            }
            state = self
                .shared
                .changed
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Types `text` as it is; line ends are the caller's.
    ///
    /// # Errors
    /// If the child no longer reads.
    pub fn send(&self, text: &str) -> Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(pipe) = input.as_mut() else {
            bail!("{}: the input is closed", self.name);
        };
        pipe.write_all(text.as_bytes())
            .and_then(|()| pipe.flush())
            .with_context(|| format!("{}: typing {text:?}", self.name))
    }

    /// Closes the child's standard input.
    pub fn close_input(&self) {
        self.input
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
    }

    /// Whether the child has ended, and how.
    pub fn exited(&self) -> Option<ExitStatus> {
        self.shared.child().try_wait().ok().flatten()
    }

    /// Waits for the child to end by itself.
    ///
    /// # Errors
    /// If it doesn't within `timeout`.
    pub fn wait_exit(&self, timeout: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(self.missed("its end", &format!("within {timeout:?}")));
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Kills the child and waits for its end; harmless when it has ended already.
    pub fn kill(&self) {
        self.shared.state().stopped = true;
        self.shared.changed.notify_all();
        self.shared.kill();
    }

    fn ending(&self) -> String {
        if self.shared.state().timed_out {
            return "before the time limit for the whole run struck".to_owned();
        }
        // The pipes close a moment before the process can be collected.
        for _ in 0..100 {
            if let Some(status) = self.exited() {
                return format!("before it ended ({status})");
            }
            thread::sleep(Duration::from_millis(10));
        }
        "before it closed its output".to_owned()
    }

    fn missed(&self, what: &str, why: &str) -> anyhow::Error {
        let state = self.shared.state();
        let from = state.lines.len().saturating_sub(20);
        let tail = state.lines.iter().skip(from);
        let tail: Vec<&str> = tail.map(|line| line.text.as_str()).collect();
        let mut tail = tail.join("\n    ");
        if !state.partial.is_empty() {
            tail = format!("{tail}\n    {}", String::from_utf8_lossy(&state.partial));
        }
        let log_error = state
            .log_error
            .as_deref()
            .map(|e| format!(" (log: {e})"))
            .unwrap_or_default();
        anyhow!(
            "{}: {what} didn't come {why}; all output is in {}{log_error}; the last of it:\n    {tail}",
            self.name,
            self.log.display(),
        )
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        let mut child = self.child();
        // Only errors when it has ended already.
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Collects one stream; only the console proper may leave a line unfinished.
    fn read(&self, mut stream: impl Read, mut log: File, console: bool) {
        let mut chunk = [0; 4096];
        let mut own = Vec::new();
        loop {
            let count = match stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            let bytes = chunk.get(..count).unwrap_or_default();
            let written = log.write_all(bytes);
            let mut state = self.state();
            if let Err(error) = written {
                state.log_error = Some(error.to_string());
            }
            for &byte in bytes {
                let line = if console {
                    &mut state.partial
                } else {
                    &mut own
                };
                if byte == b'\n' {
                    let whole = Line::new(line);
                    line.clear();
                    state.lines.push(whole);
                } else {
                    line.push(byte);
                }
            }
            drop(state);
            self.changed.notify_all();
        }
        let mut state = self.state();
        let rest = if console {
            std::mem::take(&mut state.partial)
        } else {
            own
        };
        if !rest.is_empty() {
            state.lines.push(Line::new(&rest));
        }
        state.readers -= 1;
        drop(state);
        self.changed.notify_all();
    }

    fn watch(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        while !state.stopped && state.readers > 0 {
            let now = Instant::now();
            if now >= deadline {
                state.timed_out = true;
                drop(state);
                self.kill();
                return;
            }
            state = self
                .changed
                .wait_timeout(state, deadline - now)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A line without its carriage returns (a serial line ends in CR LF, sometimes CR CR LF).
fn line_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.trim_matches('\r').to_owned()
}

/// Whether Baton says that it will show this line again from its start ([`CUT`]). Without Baton's tag it's a line of another program that happens to
/// end so.
fn is_beginning(bytes: &[u8]) -> bool {
    let tagged = split_tag(&String::from_utf8_lossy(bytes)).0 != Origin::Untagged;
    tagged
        && CUT
            .strip_suffix(b"\n")
            .is_some_and(|cut| bytes.ends_with(cut))
}

/// Starts a child that the kernel kills when this process dies.
///
/// Linux ties that to the *thread* that forked, and test harnesses end threads all the time, so one
/// thread that lives as long as the process does all the starting.
fn spawn_bound(mut command: Command) -> Result<Child> {
    type Request = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();

    let parent = rustix::process::getpid();
    // SAFETY: the closure runs between fork and exec, where only async-signal-safe functions may
    // be called: it makes two plain system calls and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
            // The parent may have died before the line above: then nobody would ever send it.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    let starter = STARTER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in requests {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, started) = mpsc::channel();
    starter
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .map_err(|_| anyhow!("the thread that starts processes is gone"))?;
    Ok(started
        .recv()
        .context("the thread that starts processes is gone")??)
}

#[cfg(test)]
mod tests;
