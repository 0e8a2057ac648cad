//! What `batonctl` says over a domain's management port and how it reads the answer.
//!
//! The protocol is the console's (`docs/guides/console.md`): a line, and lines back up to `ok` or `error: …`. Whoever used the port before may
//! have left in the middle of an answer, so a conversation begins with a word that nobody else says: its own error is where the past ends.

use base64ct::{Base64, Encoding as _};
use std::io::{self, BufRead, BufReader, Read, Write};

/// The port, from this end.
pub struct Management<T> {
    terminal: BufReader<T>,
}

/// Lines to be skipped at most until the past has ended: more than any answer has but a record's.
const PAST: usize = 100_000;

/// Bytes of a file in a line of 200, which a command has at most: whole groups of base64.
const PART: usize = 138;

impl<T: Read + Write> Management<T> {
    /// Begins a conversation; `word` is nobody else's, and no command.
    ///
    /// # Errors
    /// If the terminal fails, or nobody answers.
    pub fn begin(terminal: T, word: &str) -> io::Result<Self> {
        let mut management = Self {
            terminal: BufReader::new(terminal),
        };
        // A line that was begun ends here.
        management.say(&format!("\n{word}"))?;
        for _ in 0..PAST {
            let line = management.line()?;
            if line.starts_with("error: ") && line.contains(word) {
                return Ok(management);
            }
        }
        Err(io::Error::other("an answer to somebody else never ends"))
    }

    /// Has a command carried out. Each line of the answer goes to `line`; the error, if it's one, is returned within.
    ///
    /// # Errors
    /// If the terminal fails, or nobody answers.
    pub fn ask(
        &mut self,
        command: &str,
        mut line: impl FnMut(&str),
    ) -> io::Result<Result<(), String>> {
        if command.trim().is_empty() {
            return Ok(Ok(()));
        }
        self.say(command)?;
        loop {
            let told = self.line()?;
            if told == "ok" {
                return Ok(Ok(()));
            }
            if let Some(error) = told.strip_prefix("error: ") {
                return Ok(Err(error.to_owned()));
            }
            line(&told);
        }
    }

    /// Gives a file, in lines of base64; what is answered to each isn't shown.
    ///
    /// # Errors
    /// As for [`Self::ask`].
    pub fn give(&mut self, file: &[u8]) -> io::Result<Result<(), String>> {
        let mut offset = 0;
        for part in file.chunks(PART) {
            let mut buffer = [0; PART / 3 * 4];
            let text = Base64::encode(part, &mut buffer).map_err(io::Error::other)?;
            let told = self.ask(&format!("file put {offset} {text}"), |_| ())?;
            if told.is_err() {
                return Ok(told);
            }
            offset += part.len();
        }
        Ok(Ok(()))
    }

    fn say(&mut self, line: &str) -> io::Result<()> {
        // In one write: two programs' lines must not mix.
        let terminal = self.terminal.get_mut();
        terminal.write_all(format!("{line}\n").as_bytes())?;
        terminal.flush()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.terminal.read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the terminal ended",
            ));
        }
        String::from_utf8(line).map_err(|_| io::Error::other("an answer that is no text"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Answers each line by a list.
    struct Fake {
        from: VecDeque<u8>,
        said: Vec<u8>,
    }

    impl Read for Fake {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            // A few at a time, as a terminal does.
            let length = into.len().min(7);
            self.from.read(&mut into[..length])
        }
    }

    impl Write for Fake {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.said.extend(bytes);
            for line in std::str::from_utf8(bytes).unwrap().lines() {
                let answer = match line {
                    "" => "",
                    "two" => "first\nsecond\nok\n",
                    "none" => "ok\n",
                    "file put 276 eA==" => "error: full\n",
                    put if put.starts_with("file put ") && put.len() <= 200 => "file bytes=1\nok\n",
                    _ => &format!("error: unknown command `{line}`, try help\n"),
                };
                self.from.extend(answer.bytes());
            }
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn fake(past: &str) -> Fake {
        Fake {
            from: past.bytes().collect(),
            said: Vec::new(),
        }
    }

    #[test]
    fn answers_are_read_to_their_end_and_no_further() {
        for past in ["", "the rest\nof an answer\nok\n", "error: something\nok\n"] {
            let mut management = Management::begin(fake(past), "word").unwrap();
            for _ in 0..2 {
                let mut lines = Vec::new();
                let ended = management.ask("two", |line| lines.push(line.to_owned()));
                assert_eq!(ended.unwrap(), Ok(()));
                assert_eq!(lines, ["first", "second"]);
                let ended = management.ask("none", |line| panic!("{line}"));
                assert_eq!(ended.unwrap(), Ok(()));
                assert_eq!(management.ask("  ", |_| ()).unwrap(), Ok(()));
                let error = management.ask("three", |line| panic!("{line}")).unwrap();
                assert_eq!(error.unwrap_err(), "unknown command `three`, try help");
            }
        }
    }

    #[test]
    fn a_file_goes_in_lines_of_base64() {
        let mut management = Management::begin(fake(""), "word").unwrap();
        let before = management.terminal.get_ref().said.len();
        let file: Vec<u8> = (0..300u32).map(|at| at as u8).collect();
        assert_eq!(management.give(&file).unwrap(), Ok(()));
        let said = management.terminal.get_ref().said[before..].to_vec();
        let mut found = Vec::new();
        for line in String::from_utf8(said).unwrap().lines() {
            let (offset, text) = line
                .strip_prefix("file put ")
                .unwrap()
                .split_once(' ')
                .unwrap();
            assert_eq!(offset.parse(), Ok(found.len()));
            let mut buffer = [0; 200];
            found.extend_from_slice(Base64::decode(text, &mut buffer).unwrap());
        }
        assert_eq!(found, file);
        // The first refusal ends it.
        let file = [[0; 276].as_slice(), b"x"].concat();
        assert_eq!(management.give(&file).unwrap(), Err("full".to_owned()));
    }

    #[test]
    fn a_port_that_ends_is_an_error() {
        let mut management = Management::begin(fake(""), "word").unwrap();
        management.terminal.get_mut().from.extend(b"half a line");
        let error = management.line().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
