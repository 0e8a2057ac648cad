//! Arm SMMUv3 (IHI 0070), stage 2 only: one VMID and one set of tables per address space.
//!
//! **Nothing waits.** A stream's configuration is 64 bytes that the SMMU may read at any time, in any order, and cache. So moving a
//! stream takes up to three rounds, each ended by CMD_CFGI_STE and CMD_SYNC (3.21.3.1): word 0 says
//! *abort*; words 1 to 3 are filled in, while word 0 still says abort; word 0 says *translate*. Each stream remembers which round
//! it is in (`Phase`), each space whether a TLB invalidation is owed to it, and [`Iommu::sync`] takes a step whenever the
//! hardware consumed the last batch. Nothing else is queued in software, so a slow or full command queue costs memory of a fixed
//! size, and a stream moved again while on its way just changes its mind.
//!
//! **What was left is invalidated.** CMD_TLBI_S12_VMALL for a space goes out only after the CMD_SYNC that proves that no stream's old
//! configuration can still start a walk in it; its tables and VMID are reused only after a further CMD_SYNC.
//!
//! **Lost events.** The architecture signals an overflow of the event queue by OVFLG; QEMU signals it by
//! GERROR.EVENTQ_ABT_ERR. Both count as *overflow* for every stream that could have translated since the queue was last seen empty,
//! also one that is on abort again meanwhile, because that is when the framework asks.
//!
//! An illegal command, or service failure mode, is final: [`Iommu::sync`] then fails for ever, because what the
//! SMMU holds isn't known any more. [`Smmu::stop`] then makes every transaction abort without the help of any table.

mod bus;
#[cfg(test)]
mod model;
mod queue;
mod registers;
mod setup;
#[cfg(test)]
mod tests;

pub use bus::SmmuBus;
pub use registers::event_name;
pub use setup::{Features, Setup};

use crate::translation::{Stage2Attributes, TranslationError, TranslationTable};
use alloc::vec::Vec;
use bus::Tables;
use coproc_core::Iommu;
use coproc_core::address::{DeviceAddress, HostPhysical};
use coproc_core::driver::{Failure, Step};
use coproc_core::id::{SpaceId, StreamId};
use coproc_core::iommu::{Faults, IommuError, Mapping, Target};
use coproc_core::time::Duration;
use registers::{
    Command, GERROR, GERROR_CMDQ, GERROR_EVENTQ_ABORT, GERROR_SFM, GERRORN, STE_ABORT, STE_BYTES,
    STE_STAGE2, ste_body,
};
use setup::Structures;

/// Event records read per call.
const EVENTS_PER_CALL: u32 = 64;
/// Batches that one call of `sync` takes if the hardware keeps pace: three rounds of a stream and a TLB invalidation.
const BATCHES_PER_CALL: u32 = 6;
/// When to ask again: a CMD_SYNC takes some microseconds.
const POLL_INTERVAL: Duration = Duration::from_micros(5);

/// Where a stream's entry is on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// The hardware uses what memory says.
    Settled,
    /// Word 0 says abort; what is cached may not.
    Breaking,
    /// Abort for certain; words 1 to 3 are new.
    Filling,
    /// Word 0 says translate; what is cached may still say abort.
    Making,
}

/// One stream that was ever pointed anywhere.
#[derive(Debug)]
struct Stream {
    id: StreamId,
    target: Target,
    phase: Phase,
    /// The phase's CMD_CFGI_STE is in the batch on its way.
    sent: bool,
    /// The space that word 0 and words 1 to 3 make it translate by.
    live: Option<SpaceId>,
    /// The space that it may still translate by, while `Breaking`.
    leaving: Option<SpaceId>,
    /// It may have caused an event since the queue was last seen empty.
    suspect: bool,
    faults: Faults,
}

/// Whether a space's translations must be invalidated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stale {
    No,
    Wanted,
    /// CMD_TLBI_S12_VMALL is in the batch on its way.
    Sent,
}

/// One address space.
#[derive(Debug)]
struct Space {
    id: SpaceId,
    vmid: u16,
    tables: Option<TranslationTable>,
    stale: Stale,
    /// Destroyed; only waits for its invalidation.
    retiring: bool,
}

/// Things that went wrong or were lost, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// Commands that the SMMU refused, and its reason code for the last one (1 illegal, 2 abort on fetch, 3 ATC invalidation).
    pub command_errors: u64,
    /// See [`Status::command_errors`].
    pub command_error: u32,
    /// Times that event records were lost.
    pub overflows: u64,
    /// Event records read.
    pub events: u64,
    /// Of these, from streams that were never pointed anywhere.
    pub stray_events: u64,
    /// Number of the latest event: see [`event_name`].
    pub last_event: Option<u8>,
}

/// One SMMUv3.
#[derive(Debug)]
pub struct Smmu<B: SmmuBus> {
    bus: B,
    setup: Setup,
    features: Features,
    structures: Structures,
    streams: Vec<Stream>,
    spaces: Vec<Space>,
    next_space: u32,
    /// A batch of commands was handed over and not seen consumed.
    in_flight: bool,
    failed: Option<Failure>,
    status: Status,
}

impl<B: SmmuBus> Smmu<B> {
    /// Takes the SMMU over from firmware: everything invalidated, every stream on abort, translation on, both
    /// interrupts enabled.
    ///
    /// # Errors
    /// [`IommuError::Hardware`] if it lacks something or doesn't answer; [`IommuError::OutOfMemory`]. Transactions abort then.
    pub fn new(mut bus: B, setup: Setup) -> Result<Self, IommuError> {
        let features = Features::read(&mut bus)?;
        let structures = setup::bring_up(&mut bus, &setup, &features)?;
        Ok(Self {
            bus,
            setup,
            features,
            structures,
            streams: Vec::new(),
            spaces: Vec::new(),
            next_space: 0,
            in_flight: false,
            failed: None,
            status: Status::default(),
        })
    }

    /// What the hardware is able to do.
    pub const fn features(&self) -> Features {
        self.features
    }

    /// What went wrong so far.
    pub const fn status(&self) -> Status {
        self.status
    }

    /// The streams that were ever pointed anywhere, and where they are to go.
    pub fn streams(&self) -> impl Iterator<Item = (StreamId, Target)> + '_ {
        self.streams.iter().map(|stream| (stream.id, stream.target))
    }

    /// To be called from the event queue's and the global error interrupt, again while it returns true (the lines
    /// may be edges: a record that is left raises no new one).
    pub fn interrupt(&mut self) -> bool {
        self.collect_faults()
    }

    /// Makes every transaction abort by switching translation off with GBPA.ABORT set, as the last resort when the SMMU
    /// no longer takes commands. There is no way back but [`Smmu::new`].
    ///
    /// # Errors
    /// [`IommuError::Hardware`] if even that isn't acknowledged.
    pub fn stop(&mut self) -> Result<(), IommuError> {
        self.failed = Some(Failure("the SMMU was stopped"));
        setup::quiesce(&mut self.bus, self.setup.polls)
    }

    fn entry(&self, stream: StreamId) -> HostPhysical {
        self.structures
            .stream_table
            .wrapping_add(u64::from(stream.0).wrapping_mul(STE_BYTES))
    }

    /// Writes word 0 of an entry and makes it visible.
    fn write_head(&mut self, stream: StreamId, value: u64) {
        let entry = self.entry(stream);
        self.bus.write_memory(entry, value);
        self.bus.publish(entry, 8, self.features.coherent);
    }

    /// Writes words 1 to 3 of an entry whose word 0 says abort.
    fn write_body(&mut self, stream: StreamId, space: SpaceId) {
        let Some((root, vmid)) = self
            .spaces
            .iter()
            .find(|candidate| candidate.id == space)
            .and_then(|found| Some((found.tables.as_ref()?.root(), found.vmid)))
        else {
            return;
        };
        let entry = self.entry(stream);
        let coherent = self.features.coherent;
        let body = ste_body(
            self.structures.geometry,
            root,
            vmid,
            coherent,
            self.features.attribute_override,
        );
        let mut at = entry;
        for word in body {
            at = at.wrapping_add(8);
            self.bus.write_memory(at, word);
        }
        self.bus.publish(entry, STE_BYTES, coherent);
    }

    /// Takes notice of global errors (IHI 0070, 7.5) and acknowledges them.
    fn errors(&mut self) {
        let raised = self.bus.read32(GERROR);
        let active = raised ^ self.bus.read32(GERRORN);
        if active == 0 {
            return;
        }
        if active & GERROR_CMDQ != 0 {
            let commands = &mut self.structures.commands;
            let reason = commands.replace_bad(&mut self.bus, self.features.coherent);
            self.status.command_errors = self.status.command_errors.saturating_add(1);
            self.status.command_error = reason;
            self.failed = Some(Failure("the SMMU refused a command"));
            log::error!("SMMU: command refused, reason {reason}");
        }
        if active & GERROR_SFM != 0 {
            self.failed = Some(Failure("the SMMU is in service failure mode"));
            log::error!("SMMU: service failure mode");
        }
        if active & GERROR_EVENTQ_ABORT != 0 {
            self.overflowed();
        }
        self.bus.write32(GERRORN, raised);
    }

    fn overflowed(&mut self) {
        self.status.overflows = self.status.overflows.saturating_add(1);
        for stream in &mut self.streams {
            if stream.suspect {
                stream.faults.overflow = true;
            }
        }
    }

    /// One step: what the consumed batch achieved, then the next batch. Never waits.
    fn advance(&mut self) {
        self.errors();
        if self.failed.is_some() {
            return;
        }
        if self.in_flight {
            if !self.structures.commands.empty(&mut self.bus) {
                return;
            }
            self.in_flight = false;
            self.complete();
        }
        self.start();
    }

    fn complete(&mut self) {
        for index in 0..self.streams.len() {
            let Some(stream) = self.streams.get_mut(index) else {
                break;
            };
            if !stream.sent {
                continue;
            }
            stream.sent = false;
            let (id, phase, target) = (stream.id, stream.phase, stream.target);
            match (phase, target) {
                (Phase::Breaking, _) => {
                    let left = stream.leaving.take();
                    stream.phase = Phase::Settled;
                    for space in &mut self.spaces {
                        if Some(space.id) == left {
                            space.stale = Stale::Wanted;
                        }
                    }
                    if let Target::Space(space) = target {
                        self.fill(index, id, space);
                    }
                }
                (Phase::Filling, Target::Space(space)) => {
                    stream.phase = Phase::Making;
                    stream.live = Some(space);
                    stream.suspect = true;
                    self.write_head(id, STE_STAGE2);
                }
                _ => stream.phase = Phase::Settled,
            }
        }
        let mut index = 0;
        while let Some(space) = self.spaces.get_mut(index) {
            if space.stale == Stale::Sent {
                space.stale = Stale::No;
                if space.retiring {
                    let space = self.spaces.swap_remove(index);
                    if let Some(tables) = space.tables {
                        tables.destroy(&mut Tables {
                            bus: &mut self.bus,
                            coherent: self.features.coherent,
                        });
                    }
                    continue;
                }
            }
            index = index.saturating_add(1);
        }
    }

    fn fill(&mut self, index: usize, id: StreamId, space: SpaceId) {
        self.write_body(id, space);
        if let Some(stream) = self.streams.get_mut(index) {
            stream.phase = Phase::Filling;
            stream.sent = false;
        }
    }

    /// Starts a batch of all that is owed, as far as it fits; the queue is empty.
    fn start(&mut self) {
        let commands = &mut self.structures.commands;
        for stream in &mut self.streams {
            if stream.phase != Phase::Settled && !stream.sent {
                let command = Command::invalidate_stream(stream.id.0);
                stream.sent = commands.push(&mut self.bus, command);
            }
        }
        for space in &mut self.spaces {
            // One that goes out with the stream's own invalidation would have to be repeated.
            let left = |stream: &Stream| stream.leaving == Some(space.id);
            if space.stale == Stale::Wanted && !self.streams.iter().any(left) {
                let command = Command::invalidate_vmid(space.vmid);
                if commands.push(&mut self.bus, command) {
                    space.stale = Stale::Sent;
                }
            }
        }
        self.in_flight = commands.submit(&mut self.bus, self.features.coherent);
    }

    /// What a call that queued something answers.
    fn accepted(&self) -> Result<(), IommuError> {
        match self.failed {
            None => Ok(()),
            Some(Failure(what)) => Err(IommuError::Hardware(what)),
        }
    }

    fn free_vmid(&self) -> Option<u16> {
        self.setup
            .vmids
            .clone()
            .find(|vmid| self.spaces.iter().all(|space| space.vmid != *vmid))
    }
}

impl<B: SmmuBus> Iommu for Smmu<B> {
    fn create_space(&mut self, mappings: &[Mapping]) -> Result<SpaceId, IommuError> {
        self.advance();
        self.accepted()?;
        let vmid = self.free_vmid().ok_or(IommuError::OutOfSpaces)?;
        self.spaces
            .try_reserve(1)
            .map_err(|_| IommuError::OutOfMemory)?;
        let memory = &mut Tables {
            bus: &mut self.bus,
            coherent: self.features.coherent,
        };
        let mut tables = TranslationTable::new(memory, self.structures.geometry)
            .map_err(|_| IommuError::OutOfMemory)?;
        for mapping in mappings {
            let result = tables.map(
                memory,
                mapping.device.get(),
                mapping.host,
                mapping.size,
                Stage2Attributes::DMA.encode(),
            );
            if let Err(error) = result {
                // No stream ever pointed here, so no walker saw it.
                tables.destroy(memory);
                return Err(match error {
                    TranslationError::OutOfMemory => IommuError::OutOfMemory,
                    _ => IommuError::BadMapping {
                        device: mapping.device,
                        size: mapping.size,
                    },
                });
            }
        }
        while self
            .spaces
            .iter()
            .any(|space| space.id.0 == self.next_space)
        {
            self.next_space = self.next_space.wrapping_add(1);
        }
        let id = SpaceId(self.next_space);
        self.next_space = self.next_space.wrapping_add(1);
        self.spaces.push(Space {
            id,
            vmid,
            tables: Some(tables),
            stale: Stale::No,
            retiring: false,
        });
        Ok(id)
    }

    fn spaces(&self) -> usize {
        self.spaces.len()
    }

    fn destroy_space(&mut self, space: SpaceId) -> Result<(), IommuError> {
        let used = |stream: &Stream| stream.target == Target::Space(space);
        let in_use = self.streams.iter().any(used);
        let found = self
            .spaces
            .iter_mut()
            .find(|candidate| candidate.id == space && !candidate.retiring)
            .ok_or(IommuError::UnknownSpace(space))?;
        if in_use {
            return Err(IommuError::SpaceInUse(space));
        }
        found.retiring = true;
        found.stale = Stale::Wanted;
        self.advance();
        Ok(())
    }

    fn point(&mut self, stream: StreamId, target: Target) -> Result<(), IommuError> {
        if u64::from(stream.0) >= 1u64.wrapping_shl(u32::from(self.structures.stream_bits)) {
            return Err(IommuError::UnknownStream(stream));
        }
        if let Target::Space(space) = target {
            let exists = |candidate: &Space| candidate.id == space && !candidate.retiring;
            if !self.spaces.iter().any(exists) {
                return Err(IommuError::UnknownSpace(space));
            }
            self.accepted()?;
        }
        let index = match self.streams.iter().position(|known| known.id == stream) {
            Some(index) => index,
            None => {
                self.streams
                    .try_reserve(1)
                    .map_err(|_| IommuError::OutOfMemory)?;
                self.streams.push(Stream {
                    id: stream,
                    target: Target::Abort,
                    phase: Phase::Settled,
                    sent: false,
                    live: None,
                    leaving: None,
                    suspect: false,
                    faults: Faults::default(),
                });
                self.streams.len().saturating_sub(1)
            }
        };
        let Some(known) = self.streams.get_mut(index) else {
            return Err(IommuError::UnknownStream(stream));
        };
        known.target = target;
        match (known.live, known.phase, target) {
            (Some(live), _, _) if target == Target::Space(live) => {}
            (Some(live), _, _) => {
                known.live = None;
                known.leaving = Some(live);
                known.phase = Phase::Breaking;
                known.sent = false;
                self.write_head(stream, STE_ABORT);
            }
            // What comes next is decided when the abort is certain.
            (None, Phase::Breaking, _) => {}
            (None, _, Target::Space(space)) => self.fill(index, stream, space),
            (None, _, Target::Abort) => {
                known.phase = Phase::Settled;
                known.sent = false;
            }
        }
        self.advance();
        self.accepted()
    }

    fn sync(&mut self) -> Step {
        for _ in 0..BATCHES_PER_CALL {
            self.advance();
            if let Some(failure) = self.failed {
                return Step::Failed(failure);
            }
            if !self.in_flight {
                // Nothing was left to start either.
                return Step::Done;
            }
        }
        Step::Again(POLL_INTERVAL)
    }

    fn collect_faults(&mut self) -> bool {
        self.errors();
        let (streams, status) = (&mut self.streams, &mut self.status);
        let events = &mut self.structures.events;
        let coherent = self.features.coherent;
        let collected = events.collect(&mut self.bus, coherent, EVENTS_PER_CALL, |event| {
            status.events = status.events.saturating_add(1);
            status.last_event = Some(event.kind);
            let source = StreamId(event.stream);
            let Some(stream) = streams.iter_mut().find(|stream| stream.id == source) else {
                status.stray_events = status.stray_events.saturating_add(1);
                return;
            };
            stream.faults.count = stream.faults.count.saturating_add(1);
            if let Some((address, write)) = event.access {
                stream.faults.last = Some(DeviceAddress::new(address));
                stream.faults.write = write;
            }
        });
        if collected.overflow {
            self.overflowed();
        }
        if !collected.more {
            for stream in &mut self.streams {
                stream.suspect = stream.live.is_some() || stream.leaving.is_some();
            }
        }
        collected.more
    }

    fn take_faults(&mut self, stream: StreamId) -> Faults {
        self.streams
            .iter_mut()
            .find(|known| known.id == stream)
            .map(|known| core::mem::take(&mut known.faults))
            .unwrap_or_default()
    }
}
