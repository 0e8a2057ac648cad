//! Where the switch is, as one byte.
//!
//! A [`State`](super::State) says everything about the moment and is as large as that. The machine itself keeps what a state is about (whose, since
//! when, why) where it is, and goes from stage to stage by writing this one byte: a switch is a dozen of them, and each is traced.
//! A stage names what is being waited for; the step that starts the wait belongs to the transition into it.

use core::fmt;

/// A stage of the switch: a state and, if it has some, its phase. See [`State`](super::State) and the phases for their meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[expect(missing_docs, reason = "State and the phases document them")]
#[repr(u8)]
pub enum Stage {
    Off,
    Starting,
    Idle,
    RestoringOpenArea,
    RestoringRestore,
    RestoringCloseArea,
    RestoringOpenDomain,
    RestoringReplay,
    Running,
    RestingAbort,
    RestingFaults,
    Quiescing,
    SavingQuiet,
    SavingDrain,
    SavingSettle,
    SavingAbort,
    SavingFaults,
    SavingOpenArea,
    SavingSave,
    SavingScrub,
    SavingCloseArea,
    Detached,
    AbortingStreams,
    AbortingStop,
    ResettingReset,
    ResettingSettle,
    ResettingFaults,
    Quarantined,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 28] = [
        Self::Off,
        Self::Starting,
        Self::Idle,
        Self::RestoringOpenArea,
        Self::RestoringRestore,
        Self::RestoringCloseArea,
        Self::RestoringOpenDomain,
        Self::RestoringReplay,
        Self::Running,
        Self::RestingAbort,
        Self::RestingFaults,
        Self::Quiescing,
        Self::SavingQuiet,
        Self::SavingDrain,
        Self::SavingSettle,
        Self::SavingAbort,
        Self::SavingFaults,
        Self::SavingOpenArea,
        Self::SavingSave,
        Self::SavingScrub,
        Self::SavingCloseArea,
        Self::Detached,
        Self::AbortingStreams,
        Self::AbortingStop,
        Self::ResettingReset,
        Self::ResettingSettle,
        Self::ResettingFaults,
        Self::Quarantined,
    ];

    /// The state's name, for people.
    pub const fn state(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::RestoringOpenArea
            | Self::RestoringRestore
            | Self::RestoringCloseArea
            | Self::RestoringOpenDomain
            | Self::RestoringReplay => "restoring",
            Self::Running => "running",
            Self::RestingAbort | Self::RestingFaults => "resting",
            Self::Quiescing => "quiescing",
            Self::SavingQuiet
            | Self::SavingDrain
            | Self::SavingSettle
            | Self::SavingAbort
            | Self::SavingFaults
            | Self::SavingOpenArea
            | Self::SavingSave
            | Self::SavingScrub
            | Self::SavingCloseArea => "saving",
            Self::Detached => "detached",
            Self::AbortingStreams | Self::AbortingStop => "aborting",
            Self::ResettingReset | Self::ResettingSettle | Self::ResettingFaults => "resetting",
            Self::Quarantined => "quarantined",
        }
    }

    /// The phase's name, if the state has phases.
    pub const fn phase(self) -> Option<&'static str> {
        Some(match self {
            Self::Off
            | Self::Starting
            | Self::Idle
            | Self::Running
            | Self::Quiescing
            | Self::Detached
            | Self::Quarantined => return None,
            Self::RestoringOpenArea | Self::SavingOpenArea => "open-area",
            Self::RestoringRestore => "restore",
            Self::RestoringCloseArea | Self::SavingCloseArea => "close-area",
            Self::RestoringOpenDomain => "open-domain",
            Self::RestoringReplay => "replay",
            Self::RestingAbort | Self::SavingAbort => "abort",
            Self::RestingFaults | Self::SavingFaults | Self::ResettingFaults => "faults",
            Self::SavingQuiet => "quiet",
            Self::SavingDrain => "drain",
            Self::SavingSettle | Self::ResettingSettle => "settle",
            Self::SavingSave => "save",
            Self::SavingScrub => "scrub",
            Self::AbortingStreams => "streams",
            Self::AbortingStop => "stop",
            Self::ResettingReset => "reset",
        })
    }

    /// Whether a domain's slice began and isn't proven over: it runs, or is asked to stop.
    pub(super) const fn is_slice(self) -> bool {
        matches!(self, Self::Running | Self::Quiescing)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.state())?;
        match self.phase() {
            Some(phase) => write!(f, ".{phase}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use alloc::string::ToString;

    /// What a trace shows can be told apart, and is one word.
    #[test]
    fn every_stage_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Stage::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(names.len(), Stage::ALL.len());
        assert!(names.iter().all(|name| !name.contains([' ', '='])));
        assert_eq!(Stage::SavingOpenArea.to_string(), "saving.open-area");
        for (at, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, at);
        }
    }
}
