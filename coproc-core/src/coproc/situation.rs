//! What the coprocessor's next step depends on, without its books.
//!
//! A [`Report`](super::Report) says what happened; a [`Situation`] says where things stand. Two coprocessors in the same situation, with
//! the same driver and algorithm state, answer the same events alike: the model checker merges states by it, and it
//! is what to look at when a coprocessor doesn't do what was expected.

use alloc::vec::Vec;

use super::Coproc;
use super::state::State;
use crate::id::VcoprocId;
use crate::time::Instant;

/// Where one coprocessor stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Situation {
    /// What it is doing.
    pub state: State,
    /// When it entered this state or phase.
    pub entered: Instant,
    /// When the present step is to be asked again.
    pub resume: Option<Instant>,
    /// Whether the context in the device must be saved and scrubbed when it leaves.
    pub dirty: bool,
    /// Whose address space the streams pointed at last.
    pub suspect: Option<VcoprocId>,
    /// Whether the last decision was another algorithm's.
    pub stale: bool,
    /// Whether it is being stopped.
    pub ending: bool,
    /// Whether it was quarantined, and not reset since.
    pub broken: bool,
    /// The vcoprocs, by id.
    pub vcoprocs: Vec<Standing>,
}

/// Where one vcoproc stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Which.
    pub id: VcoprocId,
    /// The algorithm was told that it has work.
    pub awake: bool,
    /// It has accessed the device at least once.
    pub used: bool,
    /// A vCPU waits on an access.
    pub parked: bool,
    /// It lost the device.
    pub faulted: bool,
    /// It is on its way out.
    pub detaching: bool,
}

impl Coproc {
    /// Where it stands.
    pub fn situation(&self) -> Situation {
        Situation {
            state: self.state(),
            entered: self.entered,
            resume: self.resume,
            dirty: self.dirty,
            suspect: self.suspect,
            stale: self.stale,
            ending: self.ending,
            broken: self.broken,
            vcoprocs: self
                .vcoprocs
                .iter()
                .map(|v| Standing {
                    id: v.id,
                    awake: v.awake,
                    used: v.used,
                    parked: v.parked,
                    faulted: v.faulted.is_some(),
                    detaching: v.detaching,
                })
                .collect(),
        }
    }
}
