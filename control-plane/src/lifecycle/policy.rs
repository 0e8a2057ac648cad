//! When a domain that has ended is started again by itself.
//!
//! A domain that can't work would otherwise be restarted for ever, and each restart costs all domains time: so there are
//! at most [`LIMIT`] in any [`WINDOW`].

use coproc_core::time::{Duration, Instant};

/// Restarts without anybody's asking …
pub const LIMIT: usize = 5;
/// … in this time.
pub const WINDOW: Duration = Duration::from_secs(60);

/// What is done about a domain that has ended. One that asks for a restart (SYSTEM_RESET) gets it under any policy.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RestartPolicy {
    /// It stays as it is.
    #[default]
    Never,
    /// It's restarted if it crashed.
    OnCrash,
    /// It's restarted also if it switched itself off.
    Always,
}

impl RestartPolicy {
    /// The policy of this name in a device tree.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "never" => Self::Never,
            "on-crash" => Self::OnCrash,
            "always" => Self::Always,
            _ => return None,
        })
    }
}

/// Counts restarts.
#[derive(Clone, Debug, Default)]
pub struct Limiter {
    /// The last ones, oldest first; `None` before there were so many.
    last: [Option<Instant>; LIMIT],
}

impl Limiter {
    /// No restarts yet.
    pub const fn new() -> Self {
        Self {
            last: [None; LIMIT],
        }
    }

    /// Whether one more is allowed now; if so it's counted.
    pub fn allow(&mut self, now: Instant) -> bool {
        let full = self
            .last
            .first()
            .copied()
            .flatten()
            .is_some_and(|oldest| now.since(oldest) < WINDOW);
        if !full {
            self.last.rotate_left(1);
            if let Some(newest) = self.last.last_mut() {
                *newest = Some(now);
            }
        }
        !full
    }
}
