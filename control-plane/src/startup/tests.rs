//! The order, and that a mistake costs what needs it and nothing else.

use super::*;
use crate::config::Rejected;
use crate::config::tests::{read, two_domains};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use coproc_core::id::DomainId;

/// Notes what is asked of it; what is in `fails` can't be done.
#[derive(Default)]
pub(super) struct Notes {
    fails: Vec<&'static str>,
    pub said: Vec<String>,
}

impl Notes {
    fn step(&mut self, what: &str, path: &str) -> Result<(), Error> {
        let step = format!("{what} {path}");
        let result = match self.fails.contains(&step.as_str()) {
            true => Err(Error::new(path.to_string(), "nothing", "something")),
            false => Ok(()),
        };
        self.said.push(step);
        result
    }
}

impl Voice for Notes {
    fn error(&mut self, error: &Error) {
        self.said.push(format!("error {error}"));
    }

    fn warning(&mut self, path: &str, line: fmt::Arguments<'_>) {
        self.said.push(format!("warning {path} {line}"));
    }

    fn note(&mut self, path: &str, line: fmt::Arguments<'_>) {
        self.said.push(format!("note {path} {line}"));
    }
}

impl Site for Notes {
    fn voice(&mut self) -> &mut dyn Voice {
        self
    }

    fn coproc(&mut self, config: &CoprocConfig) -> Result<(), Error> {
        self.step("coproc", &config.path)
    }

    fn pools(&mut self, configs: &[PoolConfig]) {
        self.said.push(format!("pools {}", configs.len()));
    }

    fn place(&mut self, config: &DomainConfig) -> Result<(), Error> {
        self.step("place", &config.path)
    }

    fn create(&mut self, config: &DomainConfig) -> bool {
        self.step("create", &config.path).is_ok()
    }

    fn share_memory(&mut self, config: &SharedMemory) -> Result<(), Error> {
        self.step("share", &config.path)
    }

    fn left_out(&mut self, path: &str) {
        self.said.push(format!("not {path}"));
    }
}

/// Two domains, a rejected one between them, a coproc, shared memory.
pub(super) fn configuration() -> Configuration {
    let mut configuration = read(&two_domains());
    let rejected = Rejected {
        path: "/r".into(),
        errors: vec![Error::new("/r", "bad", "good")],
    };
    configuration.domains.insert(1, Err(rejected));
    configuration.shared.push(SharedMemory {
        path: "/s".into(),
        size: 4096,
        domains: vec![DomainId(1), DomainId(2)],
    });
    configuration
}

const COPROC: &str = "coproc /chosen/coprocs/coproc@0";

fn done(configuration: &Configuration, fails: &[&'static str]) -> Vec<String> {
    let mut notes = Notes {
        fails: fails.to_vec(),
        ..Notes::default()
    };
    run(configuration, &mut notes);
    notes.said
}

#[test]
fn all_have_their_places_before_the_first_is_created() {
    let mut configuration = configuration();
    let all = [
        COPROC,
        "pools 1",
        "place /chosen/domain@1",
        "place /chosen/domain@2",
        "create /chosen/domain@1",
        "create /chosen/domain@2",
        "not /r",
        "share /s",
    ];
    assert_eq!(done(&configuration, &[]), all);
    // A disabled one has its place, too.
    configuration.domains[0].as_mut().unwrap().enabled = false;
    let without = all.iter().filter(|step| **step != all[4]);
    let without: Vec<_> = without.map(ToString::to_string).collect();
    assert_eq!(done(&configuration, &[]), without);
}

#[test]
fn what_fails_is_told_once_and_costs_nobody_else_a_step() {
    let fails = [
        COPROC,
        "place /chosen/domain@1",
        "create /chosen/domain@2",
        "share /s",
    ];
    assert_eq!(
        done(&configuration(), &fails),
        [
            COPROC,
            "error /chosen/coprocs/coproc@0: nothing; expected something",
            "pools 1",
            "place /chosen/domain@1",
            "error /chosen/domain@1: nothing; expected something",
            "not /chosen/domain@1",
            "place /chosen/domain@2",
            "create /chosen/domain@2",
            "not /chosen/domain@2",
            "not /r",
            "share /s",
            "error /s: nothing; expected something",
            "not /s",
        ]
    );
}

#[test]
fn what_reading_found_is_told_mistakes_first() {
    let mut configuration = configuration();
    configuration.warnings.push(Error::new("/w", "odd", "even"));
    let mut notes = Notes::default();
    tell(&configuration, &mut notes);
    assert_eq!(
        notes.said,
        [
            "error /r: bad; expected good",
            "warning /w /w: odd; expected even"
        ]
    );
}
