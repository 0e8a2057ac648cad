//! What the switch can be doing, with every wait of it a state of its own.
//!
//! A switch takes as long as the device needs, and the CPU does other work meanwhile. So nothing of its
//! progress lives on a stack: all of it is kept between events, each of which takes it one or more
//! steps further. A [`State`] shows it as one value, a plain copy, with just what means something at the moment; the machine itself goes from
//! [`Stage`] to stage. A phase names what is being waited for; the step that starts the wait belongs to the transition into it.

use super::Coproc;
use super::stage::Stage;
use crate::id::{Epoch, VcoprocId};
use crate::time::{Duration, Instant};

/// One slice of the running vcoproc.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slice {
    /// Whose.
    pub who: VcoprocId,
    /// Residence it belongs to; a renewed slice keeps it.
    pub epoch: Epoch,
    /// When it began.
    pub since: Instant,
    /// When it is over; `None`: when something else wakes.
    pub until: Option<Instant>,
    /// Whether the domain reached the device in this slice, or doorbells were replayed into it.
    pub touched: bool,
    /// Whether the vcoproc was made current for a parked access that may not have been retried yet. Such a slice isn't given away for
    /// being untouched, or two parked domains could chase each other off the device for ever.
    pub claimed: bool,
    /// Whether the direct windows are mapped.
    pub mapped: bool,
    /// Exits by accesses to direct windows, in this slice: one maps them, and there should be no other.
    pub exits: u64,
}

/// What a coprocessor is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// Not started.
    Off,
    /// Started; the streams are on their way to abort.
    Starting,
    /// Nobody has work. The context of `resident` may still be in the device: then it is quiet, unmapped and its streams abort.
    Idle {
        /// Whose context is in the device.
        resident: Option<VcoprocId>,
    },
    /// `next`'s context goes into the device.
    Restoring {
        /// Whose.
        next: VcoprocId,
        /// How long it may run.
        slice: Option<Duration>,
        /// The context was in the device already: only the streams are turned.
        resident: bool,
        /// What is waited for.
        phase: RestorePhase,
    },
    /// A domain has the device.
    Running(Slice),
    /// The running one has no work, nor has anybody else: its streams go to abort, its context stays.
    Resting {
        /// Whose context stays.
        who: VcoprocId,
        /// What is waited for.
        phase: RestPhase,
    },
    /// The slice is over, the windows are unmapped, the device isn't proven quiet yet.
    Quiescing {
        /// The slice that is over.
        slice: Slice,
        /// Since when it is asked to stop.
        since: Instant,
        /// Whether it refused at least once.
        refused: bool,
        /// Why the slice ended.
        why: Reason,
    },
    /// The context goes out of the device.
    Saving {
        /// Whose.
        who: VcoprocId,
        /// What is waited for.
        phase: SavePhase,
    },
    /// No context is in the device, the streams abort: the moment to choose.
    Detached,
    /// A step failed or took too long: the device is stopped by force.
    Aborting {
        /// Whose work it was.
        guilty: VcoprocId,
        /// What failed.
        why: &'static str,
        /// What is waited for.
        phase: AbortPhase,
    },
    /// The device is being reset.
    Resetting {
        /// Whose work it was.
        guilty: VcoprocId,
        /// What failed.
        why: &'static str,
        /// What is waited for.
        phase: ResetPhase,
    },
    /// The device could not be brought back: nobody reaches it any more.
    Quarantined {
        /// What failed.
        why: &'static str,
    },
}

/// Phases of [`State::Restoring`], in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestorePhase {
    /// Streams to the save area: until the IOMMU has done it.
    OpenArea,
    /// The driver restores.
    Restore,
    /// Streams to abort: until the IOMMU has done it.
    CloseArea,
    /// Streams to the domain: until the IOMMU has done it.
    OpenDomain,
    /// The driver replays queued doorbells.
    Replay,
}

/// Phases of [`State::Saving`], in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SavePhase {
    /// Quiet is proven once more: only for a context that stayed in an idle device.
    Quiet,
    /// The driver takes the interrupt status.
    Drain,
    /// Until the interrupt lines are neither pending nor active.
    Settle,
    /// Streams to abort: until the IOMMU has done it.
    Abort,
    /// The IOMMU's fault records are read up to the present.
    Faults,
    /// Streams to the save area: until the IOMMU has done it.
    OpenArea,
    /// The driver saves.
    Save,
    /// The driver scrubs.
    Scrub,
    /// Streams to abort: until the IOMMU has done it.
    CloseArea,
}

/// Phases of [`State::Resting`], in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RestPhase {
    /// Streams to abort: until the IOMMU has done it.
    Abort,
    /// The IOMMU's fault records are read up to the present.
    Faults,
}

/// Phases of [`State::Aborting`], in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AbortPhase {
    /// Streams to abort: until the IOMMU has done it.
    Streams,
    /// The driver stops the device.
    Stop,
}

/// Phases of [`State::Resetting`], in order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ResetPhase {
    /// The driver resets the device.
    Reset,
    /// Until the interrupt lines are neither pending nor active.
    Settle,
    /// The IOMMU's fault records are read up to the present.
    Faults,
}

/// Why a slice ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Its time was over, another one's turn came.
    Expired,
    /// Its time was over and it got another one.
    Renewed,
    /// Another one woke and went first.
    Preempted,
    /// It had no work any more.
    Slept,
    /// The algorithm lets nobody run, though this one had work.
    Throttled,
    /// Its vcoproc was detached.
    Detached,
    /// The device had to be stopped by force.
    Aborted,
}

impl Reason {
    /// One word, for people and programs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Renewed => "renewed",
            Self::Preempted => "preempted",
            Self::Slept => "slept",
            Self::Throttled => "throttled",
            Self::Detached => "detached",
            Self::Aborted => "aborted",
        }
    }
}

impl State {
    /// The vcoproc that the device's context or its present work belongs to.
    pub const fn holder(&self) -> Option<VcoprocId> {
        match self {
            Self::Off | Self::Starting | Self::Detached | Self::Quarantined { .. } => None,
            Self::Idle { resident } => *resident,
            Self::Restoring { next, .. } => Some(*next),
            Self::Running(slice) | Self::Quiescing { slice, .. } => Some(slice.who),
            Self::Resting { who, .. } | Self::Saving { who, .. } => Some(*who),
            Self::Aborting { guilty, .. } | Self::Resetting { guilty, .. } => Some(*guilty),
        }
    }
}

/// What is kept while the device is asked to stop, besides the slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    /// Since when it is asked.
    pub(super) since: Instant,
    /// Whether it refused at least once.
    pub(super) refused: bool,
    /// Why the slice ended.
    pub(super) reason: Reason,
}

impl Coproc {
    /// What it is doing.
    pub fn state(&self) -> State {
        let resident = self.holder;
        let Some(who) = self.holder else {
            return match self.stage {
                Stage::Off => State::Off,
                Stage::Starting | Stage::ResettingReset | Stage::ResettingSettle => State::Starting,
                Stage::Quarantined => State::Quarantined { why: self.why },
                Stage::Idle => State::Idle { resident },
                _ => State::Detached,
            };
        };
        let saving = |phase| State::Saving { who, phase };
        let resting = |phase| State::Resting { who, phase };
        let (guilty, why) = (who, self.why);
        let aborting = |phase| State::Aborting { guilty, why, phase };
        let resetting = |phase| State::Resetting { guilty, why, phase };
        let restoring = |phase| State::Restoring {
            next: who,
            slice: self.length,
            resident: self.resident,
            phase,
        };
        match self.stage {
            Stage::Off => State::Off,
            Stage::Starting => State::Starting,
            Stage::Idle => State::Idle { resident },
            Stage::RestoringOpenArea => restoring(RestorePhase::OpenArea),
            Stage::RestoringRestore => restoring(RestorePhase::Restore),
            Stage::RestoringCloseArea => restoring(RestorePhase::CloseArea),
            Stage::RestoringOpenDomain => restoring(RestorePhase::OpenDomain),
            Stage::RestoringReplay => restoring(RestorePhase::Replay),
            Stage::Running => State::Running(self.slice),
            Stage::RestingAbort => resting(RestPhase::Abort),
            Stage::RestingFaults => resting(RestPhase::Faults),
            Stage::Quiescing => State::Quiescing {
                slice: self.slice,
                since: self.stopping.since,
                refused: self.stopping.refused,
                why: self.stopping.reason,
            },
            Stage::SavingQuiet => saving(SavePhase::Quiet),
            Stage::SavingDrain => saving(SavePhase::Drain),
            Stage::SavingSettle => saving(SavePhase::Settle),
            Stage::SavingAbort => saving(SavePhase::Abort),
            Stage::SavingFaults => saving(SavePhase::Faults),
            Stage::SavingOpenArea => saving(SavePhase::OpenArea),
            Stage::SavingSave => saving(SavePhase::Save),
            Stage::SavingScrub => saving(SavePhase::Scrub),
            Stage::SavingCloseArea => saving(SavePhase::CloseArea),
            Stage::Detached => State::Detached,
            Stage::AbortingStreams => aborting(AbortPhase::Streams),
            Stage::AbortingStop => aborting(AbortPhase::Stop),
            Stage::ResettingReset => resetting(ResetPhase::Reset),
            Stage::ResettingSettle => resetting(ResetPhase::Settle),
            Stage::ResettingFaults => resetting(ResetPhase::Faults),
            Stage::Quarantined => State::Quarantined { why },
        }
    }

    /// Where the switch is, state and phase in one.
    pub const fn stage(&self) -> Stage {
        self.stage
    }

    /// Where the truth about `who`'s registers and interrupts is now.
    #[inline(always)]
    pub(super) fn place(&self, who: VcoprocId) -> Place {
        if self.holder != Some(who) {
            return Place::Context;
        }
        match self.stage {
            Stage::Running => Place::Current,
            Stage::Quiescing => Place::Stopping,
            Stage::Idle | Stage::RestingAbort | Stage::RestingFaults => Place::Resident,
            Stage::RestoringOpenArea
            | Stage::RestoringRestore
            | Stage::RestoringCloseArea
            | Stage::RestoringOpenDomain
            | Stage::RestoringReplay => {
                if self.resident {
                    Place::Resident
                } else {
                    Place::Arriving
                }
            }
            Stage::SavingQuiet => Place::Resident,
            Stage::SavingDrain => Place::Draining,
            Stage::SavingSettle
            | Stage::SavingAbort
            | Stage::SavingFaults
            | Stage::SavingOpenArea
            | Stage::SavingSave
            | Stage::SavingScrub
            | Stage::SavingCloseArea => Place::Leaving,
            Stage::Off
            | Stage::Starting
            | Stage::Detached
            | Stage::AbortingStreams
            | Stage::AbortingStop
            | Stage::ResettingReset
            | Stage::ResettingSettle
            | Stage::ResettingFaults
            | Stage::Quarantined => Place::Lost,
        }
    }
}

/// Where the truth about one vcoproc is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// In its saved context.
    Context,
    /// In the device, which it may use.
    Current,
    /// In the device, which is asked to stop.
    Stopping,
    /// In the device, which is idle.
    Resident,
    /// On the way out: its interrupts partly in the device, partly in the context.
    Draining,
    /// On the way out: its interrupts are in the context, other registers anywhere.
    Leaving,
    /// On the way in; its interrupts are in the context.
    Arriving,
    /// Nowhere: the device is being stopped by force.
    Lost,
}
