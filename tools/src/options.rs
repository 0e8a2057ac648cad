//! The kernel command line as the program's arguments.
//!
//! A program that is PID 1 has no other arguments that every loader can give it: QEMU's `-append`, and a
//! domain's `bootargs` under Baton. Every mistake is an error: a misspelt option that is silently ignored
//! would turn a test into one that tests nothing.

use crate::random::hash;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Jobs whose every result is checked.
    Jobs,
    /// Jobs back to back, without the sleeps.
    Stress,
    /// Leaves a secret in the device and lets go of it.
    SecretWrite,
    /// Looks for that secret.
    SecretRead,
    /// Jobs, and between them transfers from and to an address outside the domain's memory.
    DmaOutside,
    /// Register accesses, with or without doorbells.
    Touch,
    /// Nothing.
    Idle,
}

const MODES: [(&str, Mode); 7] = [
    ("jobs", Mode::Jobs),
    ("stress", Mode::Stress),
    ("secret-write", Mode::SecretWrite),
    ("secret-read", Mode::SecretRead),
    ("dma-outside", Mode::DmaOutside),
    ("touch", Mode::Touch),
    ("idle", Mode::Idle),
];

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = MODES.iter().find(|(_, mode)| mode == self);
        f.write_str(name.map_or("?", |(name, _)| name))
    }
}

impl FromStr for Mode {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let found = MODES.iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| *mode).ok_or(())
    }
}

/// All of the program's options, each `workload.NAME=VALUE` on the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `name`: what the lines on the console call this program.
    pub name: String,
    /// `mode`.
    pub mode: Mode,
    /// `jobs`: how many jobs, unless `seconds` is given.
    pub jobs: u64,
    /// `seed`: of all that is random; the name is mixed in.
    pub seed: u64,
    /// `seconds`: run that long instead of a number of jobs.
    pub seconds: Option<u64>,
    /// `secret`: a number or any word that writer and reader share.
    pub secret: u64,
    /// `hold=1`: the secret's writer keeps computing instead of going idle.
    pub hold: bool,
    /// `rounds`: how often the secret's reader looks.
    pub rounds: u64,
    /// `outside`: the physical address for `dma-outside`.
    pub outside: Option<u64>,
    /// `doorbell=1`: `touch` starts factorials too.
    pub doorbell: bool,
    /// `pause`: ms between the batches of `touch` and the rounds of `secret-read`.
    pub pause: Duration,
    /// `timeout`: seconds for one operation of the device (default 60).
    pub timeout: Duration,
    /// `device`: which of several edu functions, in order of their addresses.
    pub device: usize,
    /// `huge=0`: DMA memory in single pages even where a huge one could be had.
    pub huge: bool,
    /// `wait=1`: start only when a line arrives on the console.
    pub wait: bool,
    /// `hotplug=1`: when the device is gone (it reads as all-ones), waits for a line, looks for it again and starts anew.
    pub hotplug: bool,
    /// `poweroff=1`: switch the machine off at the end.
    pub poweroff: bool,
    /// `reboot=1`: restart the machine at the end.
    pub reboot: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "linux".into(),
            mode: Mode::Jobs,
            jobs: 40,
            seed: 1,
            seconds: None,
            secret: hash("baton"),
            hold: false,
            rounds: 20,
            outside: None,
            doorbell: false,
            pause: Duration::from_millis(20),
            timeout: Duration::from_secs(60),
            device: 0,
            huge: true,
            wait: false,
            hotplug: false,
            poweroff: false,
            reboot: false,
        }
    }
}

pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// An option's value as a number; the error says what was expected.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    number(text).ok_or_else(|| "expected a number".to_string())
}

/// The same as seconds, a century at most: keeps every later sum of times far from overflow.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    match count(text) {
        Ok(seconds @ 0..=3_153_600_000) => Ok(seconds),
        _ => Err("expected a number of seconds".to_string()),
    }
}

/// The same as 0 or 1.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err("expected 0 or 1".to_string()),
    }
}

impl Options {
    /// Reads the options out of a kernel command line; words of others are left alone.
    ///
    /// What was right is in the options even when there is an error, so that the error can be reported
    /// under the right name, and the machine still switched off.
    ///
    /// # Errors
    /// One message per mistake, with what was found and what was expected.
    pub fn parse(line: &str) -> (Self, Vec<String>) {
        let mut options = Self::default();
        let mut errors = Vec::new();
        for word in line.split_ascii_whitespace() {
            let Some(option) = word.strip_prefix("workload.") else {
                continue;
            };
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if let Err(expected) = options.set(key, value) {
                errors.push(format!("workload.{key}: found \"{value}\", {expected}"));
            }
        }
        if options.mode == Mode::DmaOutside && options.outside.is_none() {
            errors.push("workload.outside: missing, mode dma-outside expects an address".into());
        }
        (options, errors)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let count = || count(value);
        let seconds = || seconds(value);
        let switch = || switch(value);
        match key {
            "name" if value.is_empty() => return Err("expected a name".into()),
            "name" => self.name = value.into(),
            "mode" => {
                self.mode = value.parse().map_err(|()| {
                    let names: Vec<_> = MODES.iter().map(|(name, _)| *name).collect();
                    format!("expected one of {}", names.join(", "))
                })?;
            }
            "jobs" => self.jobs = count()?,
            "seed" => self.seed = count()?,
            "seconds" => self.seconds = Some(seconds()?),
            "secret" => self.secret = number(value).unwrap_or_else(|| hash(value)),
            "hold" => self.hold = switch()?,
            "rounds" => self.rounds = count()?,
            "outside" => self.outside = Some(count()?),
            "doorbell" => self.doorbell = switch()?,
            "pause" => self.pause = Duration::from_millis(seconds()?),
            "timeout" => self.timeout = Duration::from_secs(seconds()?),
            "device" => {
                self.device = usize::try_from(count()?).map_err(|_| "expected an index")?;
            }
            "huge" => self.huge = switch()?,
            "wait" => self.wait = switch()?,
            "hotplug" => self.hotplug = switch()?,
            "poweroff" => self.poweroff = switch()?,
            "reboot" => self.reboot = switch()?,
            _ => return Err("no such option".into()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_whole_line() {
        let (options, errors) = Options::parse(
            "console=ttyAMA0 workload.name=d1 workload.mode=dma-outside quiet \
             workload.outside=0x8000000000 workload.jobs=7 workload.seed=9 workload.poweroff=1 workload.reboot=1 workload.wait=1\n",
        );
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(options.name, "d1");
        assert_eq!(options.mode, Mode::DmaOutside);
        assert_eq!(options.outside, Some(0x80_0000_0000));
        assert_eq!((options.jobs, options.seed), (7, 9));
        assert!(options.poweroff && options.reboot && options.wait);
        assert!(!options.hold);
    }

    #[test]
    fn every_mistake_is_named_and_the_rest_kept() {
        let (options, errors) = Options::parse(
            "workload.jbos=4 workload.jobs=four workload.mode=dance workload.hold=yes workload.name=d2 workload.pause",
        );
        assert_eq!(options.name, "d2");
        assert_eq!(errors.len(), 5, "{errors:?}");
        assert!(errors[0].contains("workload.jbos") && errors[0].contains("no such option"));
        assert!(errors[1].contains("\"four\"") && errors[1].contains("number"));
        assert!(errors[2].contains("secret-read"));
        assert!(errors[3].contains("0 or 1"));
    }

    #[test]
    fn an_address_is_needed_outside() {
        let (_, errors) = Options::parse("workload.mode=dma-outside");
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn every_mode_has_its_name() {
        for (name, mode) in MODES {
            assert_eq!(mode.to_string(), name);
            assert_eq!(name.parse(), Ok(mode));
        }
    }

    #[test]
    fn secrets_may_be_words() {
        let (word, _) = Options::parse("workload.secret=sesame");
        let (other, _) = Options::parse("workload.secret=0x10");
        assert_eq!(word.secret, hash("sesame"));
        assert_eq!(other.secret, 16);
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "(workload\\.[a-z]{0,8}=?[0-9a-z]{0,24} ?){0,6}.{0,30}") {
            let _ = Options::parse(&line);
        }
    }
}
