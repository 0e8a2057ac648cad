//! `batonctl`: manages Baton from a domain that has `baton,control`.
//!
//! With words, they are one command; without, each line of the standard input is. Commands and answers are the console's. Exit status: 0 done, 1 refused, 2
//! not carried out because the port can't be reached.

use std::io::{self, BufRead as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use baton_tools::definition;
use baton_tools::management::Management;
use baton_tools::os::terminal::Terminal;

/// The second UART of Baton's domains.
const PORT: &str = "/dev/ttyAMA1";
/// Its node, which only a domain that may manage has.
const NODE: &str = "/proc/device-tree/pl011@9040000";
const PATIENCE: Duration = Duration::from_secs(10);
const USAGE: &str = "\
usage: batonctl COMMAND...     one command, such as: batonctl coproc query
       batonctl domain define dN FILE
                               has domain N built from this compiled device tree
       batonctl < FILE         a command in each line
`batonctl help` lists the commands. BATON_PORT names another terminal than /dev/ttyAMA1.";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if matches!(words.first().map(String::as_str), Some("-h" | "--help")) {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("batonctl: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(words: &[String]) -> io::Result<bool> {
    let mut management = open()?;
    if let [domain, define, name, file] = words
        && (domain.as_str(), define.as_str()) == ("domain", "define")
    {
        return self::define(&mut management, name, file);
    }
    if !words.is_empty() {
        return ask(&mut management, &words.join(" "));
    }
    let mut all = true;
    for line in io::stdin().lock().lines() {
        all &= ask(&mut management, &line?)?;
    }
    Ok(all)
}

fn open() -> io::Result<Management<Terminal>> {
    let named = std::env::var("BATON_PORT").ok();
    if named.is_none() && !std::path::Path::new(NODE).exists() {
        return Err(io::Error::other(
            "this domain may not manage Baton: its node in the machine's device tree has no baton,control",
        ));
    }
    let path = named.as_deref().unwrap_or(PORT);
    let named = |error| io::Error::other(format!("{path}: {error}"));
    let terminal = Terminal::open(path, PATIENCE).map_err(named)?;
    let word = format!("batonctl-{}", std::process::id());
    Management::begin(terminal, &word).map_err(named)
}

/// Likewise.
fn define(management: &mut Management<Terminal>, name: &str, file: &str) -> io::Result<bool> {
    let named = |error| io::Error::other(format!("{file}: {error}"));
    let file = definition::pruned(std::fs::read(file).map_err(named)?, name);
    if let Err(error) = management.give(&file)? {
        eprintln!("error: {error}");
        return Ok(false);
    }
    ask(management, &format!("domain define {name}"))
}

/// Returns whether it was carried out.
fn ask(management: &mut Management<Terminal>, command: &str) -> io::Result<bool> {
    if command.contains(['\n', '\r']) {
        eprintln!("error: a command is one line");
        return Ok(false);
    }
    let mut out = io::stdout().lock();
    let mut written = Ok(());
    let ended = management.ask(command, |line| {
        if written.is_ok() {
            written = writeln!(out, "{line}");
        }
    })?;
    written?;
    if let Err(error) = &ended {
        eprintln!("error: {error}");
    }
    Ok(ended.is_ok())
}
