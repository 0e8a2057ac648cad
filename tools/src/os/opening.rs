//! What every workload does before its work, once it knows what it is to do.

use super::{console, system};
use crate::report;
use std::io;

/// Says what this program is, refuses options with mistakes, and waits for a line on the console if it is to.
///
/// # Errors
/// The mistakes; what reading the console answered.
pub fn begin(name: &str, mode: &str, mistakes: &[String], wait: bool) -> io::Result<()> {
    console::print(&report::start(name, mode, &system::kernel()));
    if !mistakes.is_empty() {
        return Err(io::Error::other(mistakes.join("; ")));
    }
    if wait {
        console::print("workload: waiting for a line");
        let line = console::read_line()?;
        console::print(&format!("workload: read \"{line}\""));
    }
    Ok(())
}
