//! Running other programs so that a failure explains itself.
//!
//! Every program that is run is named in the error when it fails, with what it said; the caller
//! only adds why it was run.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// A command line as one would type it.
pub fn shown(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| quoted(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// One word, quoted for a POSIX shell where it has to be.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs with the console's error stream for both its streams, since what a step says is no result; an exit status other than 0 is an error.
///
/// # Errors
/// If the program can't be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    let status = command
        .status()
        .with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed ({status})", shown(command));
    }
    Ok(())
}

/// Runs silently and gives what it printed; an exit status other than 0 is an error that carries
/// the error stream.
///
/// # Errors
/// If the program can't be started, fails, or prints something other than UTF-8.
pub fn output(command: &mut Command) -> Result<String> {
    String::from_utf8(output_bytes(command)?)
        .with_context(|| format!("{} printed bytes that aren't UTF-8", shown(command)))
}

/// Like [`output`], for a program that prints any bytes.
///
/// # Errors
/// If the program can't be started or fails.
pub fn output_bytes(command: &mut Command) -> Result<Vec<u8>> {
    command.stdin(Stdio::null());
    let output = command
        .output()
        .with_context(|| format!("starting {}", shown(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed ({}): {}",
            shown(command),
            output.status,
            said.trim()
        );
    }
    Ok(output.stdout)
}

/// Whether a program of this name can be found on the search path.
pub fn exists(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_program_and_what_it_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo oops >&2; exit 3"]);
        let error = output(&mut command).unwrap_err().to_string();
        assert!(error.contains("oops") && error.contains("sh -c"), "{error}");
    }

    #[test]
    fn quoting_survives_the_shell() {
        for word in ["plain", "two words", "it's", "", "$HOME;\n\"x\""] {
            let echoed =
                output(Command::new("sh").args(["-c", &format!("printf %s {}", quoted(word))]));
            assert_eq!(echoed.unwrap(), word);
        }
    }

    #[test]
    fn exists_tells_apart() {
        assert!(exists("sh"));
        assert!(!exists("no-such-program-for-certain"));
    }
}
