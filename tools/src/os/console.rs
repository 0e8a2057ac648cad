//! The console, a line at a time.
//!
//! Each line is one `write`, so that kernel messages can come between lines but not into them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::OnceLock;

static CONSOLE: OnceLock<File> = OnceLock::new();

/// Opens `/dev/console`; before that, and if it can't be, lines go to standard output.
pub fn open() {
    if let Ok(file) = OpenOptions::new().write(true).open("/dev/console") {
        // Opened twice would be the same file: the first one stays.
        let _ = CONSOLE.set(file);
    }
}

/// Prints a line. There is nowhere to report a failure to.
pub fn print(line: &str) {
    let line = format!("{line}\n");
    let _ = match CONSOLE.get() {
        Some(mut console) => console.write_all(line.as_bytes()),
        None => io::stdout().write_all(line.as_bytes()),
    };
}

/// Waits for a line on the kernel's console, which PID 1 has as its standard input.
///
/// # Errors
/// When it can't be read, or has ended.
pub fn read_line() -> io::Result<String> {
    let mut line = String::new();
    match io::stdin().read_line(&mut line)? {
        0 => Err(io::Error::other("the console has no input")),
        _ => Ok(line.trim_end().to_owned()),
    }
}
