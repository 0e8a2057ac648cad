//! The life of a domain: which state follows which, and who may ask for it.
//!
//! A domain's life is changed from three sides at once: by people at the console, by the domain itself (PSCI), and by
//! what happens to it (crash, watchdog). What follows from what is decided here, as a plain value that knows neither
//! memory nor vCPUs; whoever carries it out gets an [`Action`] and says when it is done. Every request in every state has an
//! answer, and a refused one changes nothing.

pub mod exits;
pub mod numbers;
pub mod policy;
pub mod progress;
pub mod report;

#[cfg(test)]
mod tests;

use coproc_core::time::Instant;
use core::fmt;
use policy::{Limiter, RestartPolicy};

/// Why a domain was stopped without having asked for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Crash {
    /// An exception led to its own address again: the exception vector can't be executed.
    NoVector = 1,
    /// Exceptions within exceptions, without an end.
    Nested = 2,
    /// The watchdog's second time-out.
    Watchdog = 3,
    /// It could not be restarted.
    NotRebuilt = 4,
    /// It asked for restarts faster than is allowed.
    RestartLoop = 5,
}

impl Crash {
    /// What [`Self`] is as a number, back.
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::NoVector,
            2 => Self::Nested,
            3 => Self::Watchdog,
            4 => Self::NotRebuilt,
            5 => Self::RestartLoop,
            _ => return None,
        })
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoVector => "no-vector",
            Self::Nested => "nested-exceptions",
            Self::Watchdog => "watchdog",
            Self::NotRebuilt => "not-rebuilt",
            Self::RestartLoop => "restart-loop",
        })
    }
}

/// What a domain is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Nothing of it is there but its configuration.
    Gone,
    /// It's being built.
    Creating,
    /// Built, not started yet.
    Created,
    /// Its vCPUs run.
    Running,
    /// Its vCPUs are held.
    Paused,
    /// It switched itself off. Its memory is kept, its coprocs are not.
    Off,
    /// It was stopped. Its memory is kept, its coprocs are not.
    Crashed(Crash),
    /// It's being stopped and built anew in its memory.
    Restarting,
    /// It's being taken apart.
    Destroying,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gone => "gone",
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Off => "off",
            Self::Crashed(_) => "crashed",
            Self::Restarting => "restarting",
            Self::Destroying => "destroying",
        })
    }
}

impl State {
    /// Whether it has coprocessors, or may get one.
    pub const fn has_coprocs(self) -> bool {
        matches!(self, Self::Created | Self::Running | Self::Paused)
    }
}

/// What people can ask for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Build it from its configuration, and start it.
    Create,
    /// Hold its vCPUs.
    Pause,
    /// Let them go on.
    Resume,
    /// Stop it, and build it anew in its memory.
    Restart,
    /// Stop it, and give back everything it has.
    Destroy,
    /// Have it built from another configuration.
    Define,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Restart => "restart",
            Self::Destroy => "destroy",
            Self::Define => "define",
        })
    }
}

/// A request that doesn't fit the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a domain that is {state} can't be {}", past(*.operation))]
pub struct Refusal {
    /// What was asked for.
    pub operation: Operation,
    /// The state, which stays.
    pub state: State,
}

const fn past(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "created",
        Operation::Pause => "paused",
        Operation::Resume => "resumed",
        Operation::Restart => "restarted",
        Operation::Destroy => "destroyed",
        Operation::Define => "defined",
    }
}

impl Refusal {
    /// What helps.
    pub const fn remedy(&self) -> &'static str {
        match self.state {
            State::Gone => "`domain create` builds it",
            State::Creating | State::Restarting | State::Destroying => {
                "wait until that is done, `domains` tells"
            }
            State::Created => "wait until it runs",
            State::Running | State::Paused => "`domains` tells its state",
            State::Off | State::Crashed(_) => "`domain restart` or `domain destroy` goes",
        }
    }
}

/// What happens to a domain by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// PSCI SYSTEM_OFF, or its last CPU_OFF.
    Off,
    /// PSCI SYSTEM_RESET.
    Reset,
    /// It couldn't go on.
    Crash(Crash),
}

/// What is to be done now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// Build it; then [`Lifecycle::built`].
    Build,
    /// Hold its vCPUs.
    Hold,
    /// Let its vCPUs go on.
    Release,
    /// Stop it, give back its coprocessors.
    Retire,
    /// Stop it, give back its coprocessors, build it anew in its memory; then [`Lifecycle::built`].
    Rebuild,
    /// Stop it, give back everything; then [`Lifecycle::dismantled`].
    Dismantle,
}

/// Where a domain stands in its life.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    state: State,
    policy: RestartPolicy,
    limiter: Limiter,
}

impl Lifecycle {
    /// A domain of which there is only its configuration.
    pub const fn new(policy: RestartPolicy) -> Self {
        Self {
            state: State::Gone,
            policy,
            limiter: Limiter::new(),
        }
    }

    /// What it is doing.
    pub const fn state(&self) -> State {
        self.state
    }

    /// Whether it can get another configuration now: of what is there of it, all was built from the old one.
    ///
    /// # Errors
    /// [`Refusal`] if anything is.
    pub const fn may_be_defined(&self) -> Result<(), Refusal> {
        match self.state {
            State::Gone => Ok(()),
            state => Err(Refusal {
                operation: Operation::Define,
                state,
            }),
        }
    }

    /// It has another configuration.
    pub const fn define(&mut self, policy: RestartPolicy) {
        self.policy = policy;
    }

    /// Somebody asks for something.
    ///
    /// # Errors
    /// [`Refusal`] if it doesn't fit the state; nothing changes then.
    pub fn request(&mut self, operation: Operation) -> Result<Action, Refusal> {
        let (next, action) = match (operation, self.state) {
            (Operation::Create, State::Gone) => (State::Creating, Action::Build),
            (Operation::Pause, State::Running) => (State::Paused, Action::Hold),
            (Operation::Resume, State::Paused) => (State::Running, Action::Release),
            (
                Operation::Restart,
                State::Running | State::Paused | State::Off | State::Crashed(_),
            ) => (State::Restarting, Action::Rebuild),
            (
                Operation::Destroy,
                State::Created | State::Running | State::Paused | State::Off | State::Crashed(_),
            ) => (State::Destroying, Action::Dismantle),
            (operation, state) => return Err(Refusal { operation, state }),
        };
        if matches!(operation, Operation::Create | Operation::Restart) {
            // Somebody looks after it: what it did before doesn't count.
            self.limiter = Limiter::new();
        }
        self.state = next;
        Ok(action)
    }

    /// It ended by itself. `None` if that is no news any more: it's being stopped for another reason.
    pub fn ended(&mut self, how: Ending, now: Instant) -> Option<Action> {
        if !matches!(self.state, State::Running | State::Paused) {
            return None;
        }
        let wanted = match how {
            Ending::Off => self.policy == RestartPolicy::Always,
            Ending::Reset => true,
            Ending::Crash(_) => self.policy != RestartPolicy::Never,
        };
        if wanted && self.limiter.allow(now) {
            self.state = State::Restarting;
            return Some(Action::Rebuild);
        }
        self.state = match how {
            Ending::Off => State::Off,
            Ending::Reset => State::Crashed(Crash::RestartLoop),
            Ending::Crash(why) => State::Crashed(why),
        };
        Some(Action::Retire)
    }

    /// It was built, or couldn't be. Returns what is left to do.
    pub const fn built(&mut self, success: bool) -> Option<Action> {
        match (self.state, success) {
            (State::Creating, true) => self.state = State::Created,
            // Started at once: it ran before.
            (State::Restarting, true) => {
                self.state = State::Running;
                return Some(Action::Release);
            }
            (State::Creating, false) => {
                self.state = State::Destroying;
                return Some(Action::Dismantle);
            }
            (State::Restarting, false) => {
                self.state = State::Crashed(Crash::NotRebuilt);
                return Some(Action::Retire);
            }
            _ => {}
        }
        None
    }

    /// A domain that was built starts. Returns whether there is one.
    pub const fn start(&mut self) -> bool {
        let fits = matches!(self.state, State::Created);
        if fits {
            self.state = State::Running;
        }
        fits
    }

    /// Nothing of it is left.
    pub const fn dismantled(&mut self) {
        if matches!(self.state, State::Destroying) {
            self.state = State::Gone;
        }
    }
}
