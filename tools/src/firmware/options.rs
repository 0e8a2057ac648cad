//! The workload's options, each `firmware.NAME=VALUE` on the kernel command line.
//!
//! They have a prefix of their own, so that one domain can run this program and `edu-workload` side by side.

use crate::options::{count, seconds, switch};
use fw_logic::protocol::SLOTS;
use std::time::Duration;

/// What the program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Jobs whose every result is checked.
    Jobs,
    /// Lets a firmware count its work.
    Meter,
    /// Runs a firmware that misbehaves, and watches for the loss of the core.
    Watch,
    /// Runs the hostile firmware, and judges what it could do.
    Hostile,
    /// Tries the limits of firmware, grants and registers.
    Limits,
}

const MODES: [(&str, Mode, &str); 5] = [
    ("jobs", Mode::Jobs, "checksum"),
    ("meter", Mode::Meter, "meter"),
    ("watch", Mode::Watch, "hung"),
    ("hostile", Mode::Hostile, "hostile"),
    ("limits", Mode::Limits, "hostile"),
];

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = MODES.iter().find(|(_, mode, _)| mode == self);
        f.write_str(name.map_or("?", |(name, ..)| name))
    }
}

/// All of the program's options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `name`: what the lines on the console call this program.
    pub name: String,
    /// `mode`.
    pub mode: Mode,
    /// `image`: the firmware's name; each mode has its own by default.
    pub image: String,
    /// `jobs`: how many jobs, unless `seconds` is given.
    pub jobs: u64,
    /// `seconds`: run that long; what watches or measures does so for 10 s by default.
    pub seconds: Option<u64>,
    /// `seed`: of all that is random; the name is mixed in.
    pub seed: u64,
    /// `depth`: jobs on the ring at once, 1 to 4 (default 2).
    pub depth: usize,
    /// `grant=0`: all data in the shared memory, none in granted RAM.
    pub grant: bool,
    /// `critical=1`: some jobs are done in critical sections.
    pub critical: bool,
    /// `paravirtual=1`: accepts to be asked for the core.
    pub paravirtual: bool,
    /// `timeout`: seconds for one job (default 60).
    pub timeout: Duration,
    /// `device`: which of several functions, in order of their addresses.
    pub device: usize,
    /// `huge=0`: RAM to grant in single pages even where a huge one could be had.
    pub huge: bool,
    /// `wait=1`: start only when a line arrives on the console.
    pub wait: bool,
    /// `poweroff=1`: switch the machine off at the end.
    pub poweroff: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "linux".into(),
            mode: Mode::Jobs,
            image: String::new(),
            jobs: 400,
            seconds: None,
            seed: 1,
            depth: 2,
            grant: true,
            critical: false,
            paravirtual: false,
            timeout: Duration::from_secs(60),
            device: 0,
            huge: true,
            wait: false,
            poweroff: false,
        }
    }
}

impl Options {
    /// Reads the options out of a kernel command line; words of others are left alone.
    ///
    /// # Errors
    /// One message per mistake, with what was found and what was expected; what was right is in the options.
    pub fn parse(line: &str) -> (Self, Vec<String>) {
        let mut options = Self::default();
        let mut errors = Vec::new();
        for word in line.split_ascii_whitespace() {
            let Some(option) = word.strip_prefix("firmware.") else {
                continue;
            };
            let (key, value) = option.split_once('=').unwrap_or((option, ""));
            if let Err(expected) = options.set(key, value) {
                errors.push(format!("firmware.{key}: found \"{value}\", {expected}"));
            }
        }
        if options.image.is_empty() {
            let of_mode = MODES.iter().find(|(_, mode, _)| *mode == options.mode);
            options.image = of_mode.map_or("", |(.., image)| image).to_owned();
        }
        (options, errors)
    }

    /// How long modes without an end of their own go on.
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(10))
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        let count = || count(value);
        let seconds = || seconds(value);
        let switch = || switch(value);
        let word = || match value
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'-')
        {
            true if !value.is_empty() => Ok(value.to_owned()),
            _ => Err("expected a name of letters, digits and '-'".to_string()),
        };
        match key {
            "name" => self.name = word()?,
            "mode" => {
                let found = MODES.iter().find(|(name, ..)| *name == value);
                let names = MODES.map(|(name, ..)| name).join(", ");
                self.mode = found.ok_or(format!("expected one of {names}"))?.1;
            }
            "image" => self.image = word()?,
            "jobs" => self.jobs = count()?,
            "seconds" => self.seconds = Some(seconds()?),
            "seed" => self.seed = count()?,
            "depth" => {
                let depth = count()?;
                let allowed = 1..=u64::from(SLOTS);
                if !allowed.contains(&depth) {
                    return Err(format!("expected a number from 1 to {SLOTS}"));
                }
                self.depth = depth as usize;
            }
            "grant" => self.grant = switch()?,
            "critical" => self.critical = switch()?,
            "paravirtual" => self.paravirtual = switch()?,
            "timeout" => self.timeout = Duration::from_secs(seconds()?),
            "device" => {
                self.device = usize::try_from(count()?).map_err(|_| "expected an index")?;
            }
            "huge" => self.huge = switch()?,
            "wait" => self.wait = switch()?,
            "poweroff" => self.poweroff = switch()?,
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
    fn a_whole_line_beside_the_other_program() {
        let (options, errors) = Options::parse(
            "console=ttyAMA0 workload.name=d1 workload.jobs=3 firmware.name=d1 firmware.mode=meter firmware.seconds=4 \
             firmware.paravirtual=1 firmware.depth=4",
        );
        assert_eq!(errors, Vec::<String>::new());
        assert_eq!(
            (options.mode, options.image.as_str()),
            (Mode::Meter, "meter")
        );
        assert_eq!((options.seconds, options.depth), (Some(4), 4));
        assert!(options.paravirtual && !options.wait);
        let (other, errors) = crate::options::Options::parse("workload.jobs=3 firmware.jobs=4");
        assert_eq!((other.jobs, errors.len()), (3, 0));
    }

    #[test]
    fn every_mistake_is_named() {
        let (options, errors) = Options::parse(
            "firmware.jbos=1 firmware.mode=dance firmware.depth=5 firmware.image=../init firmware.name=d2",
        );
        assert_eq!(options.name, "d2");
        assert_eq!(errors.len(), 4, "{errors:?}");
        assert!(errors[1].contains("watch") && errors[2].contains("1 to 4"));
    }

    proptest! {
        #[test]
        fn any_line_is_survived(line in "(firmware\\.[a-z]{0,8}=?[0-9a-z]{0,24} ?){0,6}.{0,30}") {
            let _ = Options::parse(&line);
        }
    }
}
