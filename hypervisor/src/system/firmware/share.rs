//! What one domain's firmware sees: image, shared memory, and what the domain grants of its RAM.
//!
//! All of it is in tables of the firmware's own, with a VMID of its own; nothing else of the domain's memory is in them. Image and shared memory are Baton's, given to
//! this one share, mapped non-cacheable on both sides: domain and firmware may use what attributes they like and still see the same bytes. A grant is the domain's own cacheable
//! RAM; a firmware that uses it with its caches off leaves their maintenance to the domain.

use super::FirmwareCore;
use crate::arch::memory;
use crate::system::FRAMES;
use crate::system::domain::{Domain, Stage2};
use crate::system::tables::TableFrames;
use alloc::string::{String, ToString};
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use coproc_core::id::VcoprocId;
use coproc_core::register::{Access, Operation, Width};
use core::sync::atomic::{AtomicU32, Ordering};
use fw_core_abi::{IMAGE_BAR, IMAGE_SIZE, SHARED_BAR, SHARED_SIZE, host};
use hypervisor::guest_tree::layout;
use hypervisor::memory::frames::Piece;
use platforms::translation::{
    Geometry, Shareability, Stage2Access, Stage2Attributes, Stage2Memory, TranslationTable,
};

/// VMIDs of firmware; those below are the domains', those above the IOMMU's.
const FIRST: u64 = 96;
const COUNT: u32 = 31;
/// The VMID of tables that map nothing.
pub const NOBODY: u64 = 127;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// A VMID for one firmware: free again when this is dropped, which is after the TLBs have forgotten it.
struct Vmid(u32);

impl Vmid {
    fn take() -> Option<Self> {
        #[cfg(feature = "fault-injection")]
        if hypervisor::injection::fails(hypervisor::injection::Kind::Allocation) {
            return None;
        }
        let free = |taken: u32| (0..COUNT).find(|bit| taken & 1u32.wrapping_shl(*bit) == 0);
        let mut found = None;
        TAKEN
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                found = free(taken);
                found.map(|bit| taken | 1u32.wrapping_shl(bit))
            })
            .ok()?;
        found.map(Self)
    }

    /// How many are taken.
    fn taken() -> u32 {
        TAKEN.load(Ordering::Relaxed).count_ones()
    }

    fn number(&self) -> u64 {
        FIRST.saturating_add(u64::from(self.0))
    }
}

impl Drop for Vmid {
    fn drop(&mut self) {
        TAKEN.fetch_and(!1u32.wrapping_shl(self.0), Ordering::Relaxed);
    }
}

/// A piece of the domain's RAM that its firmware may see.
#[derive(Clone, Copy, Default)]
struct Grant {
    address: u64,
    size: u64,
    target: u64,
    /// What is mapped: where the firmware sees it, and how much.
    mapped: Option<(u64, u64)>,
}

/// One domain's part in a firmware core.
pub struct FirmwareShare {
    stage2: Stage2,
    vmid: Vmid,
    memory: Piece,
    grants: [Grant; host::GRANTS as usize],
    /// Where the domain has image and shared memory mapped.
    placed: [Option<u64>; 2],
}

/// VMIDs of firmware in use.
pub fn vmids_in_use() -> u32 {
    Vmid::taken()
}

const SHARED: Stage2Attributes = Stage2Attributes {
    memory: Stage2Memory::NonCacheable,
    access: Stage2Access::ReadWrite,
    shareability: Shareability::Outer,
    execute: false,
};
const IMAGE: Stage2Attributes = Stage2Attributes {
    execute: true,
    ..SHARED
};
const MEMORY_SIZE: u64 = IMAGE_SIZE.wrapping_add(SHARED_SIZE);

impl FirmwareShare {
    /// Takes memory, tables and a VMID for `who`, and a place in the core.
    ///
    /// # Errors
    /// What could not be had; nothing is left behind.
    pub fn new(
        core: &'static FirmwareCore,
        who: VcoprocId,
        geometry: Geometry,
    ) -> Result<Self, String> {
        let vmid = Vmid::take().ok_or("all 31 VMIDs of firmware are in use")?;
        let memory = FRAMES
            .lock()
            .allocate(MEMORY_SIZE, PAGE_SIZE)
            .map_err(|error| error.to_string())?;
        memory::zero(memory.start, memory.size);
        // Both sides see it past the caches.
        memory::flush(memory.start, memory.size);
        let mut frames = TableFrames { coherent: true };
        let mut table = match TranslationTable::new(&mut frames, geometry) {
            Ok(table) => table,
            Err(error) => {
                give_back(memory);
                return Err(error.to_string());
            }
        };
        let shared = memory.start.wrapping_add(IMAGE_SIZE);
        let mapped = table
            .map(
                &mut frames,
                fw_core_abi::IMAGE_BASE,
                memory.start,
                IMAGE_SIZE,
                IMAGE.encode(),
            )
            .and_then(|()| {
                table.map(
                    &mut frames,
                    fw_core_abi::SHARED_BASE,
                    shared,
                    SHARED_SIZE,
                    SHARED.encode(),
                )
            });
        if let Err(error) = mapped {
            table.destroy(&mut frames);
            give_back(memory);
            return Err(error.to_string());
        }
        let vttbr = vmid.number() << 48 | table.root().get();
        core.add(who, vttbr);
        Ok(Self {
            stage2: Stage2 {
                table: Some(table),
                vttbr,
            },
            vmid,
            memory,
            grants: [Grant::default(); host::GRANTS as usize],
            placed: [None; 2],
        })
    }

    /// Gives everything back but the memory, which is returned: it isn't scrubbed yet. The core has let go of it, and the domain's
    /// windows are unmapped.
    pub fn end(self) -> Piece {
        let Self {
            stage2,
            vmid,
            memory,
            ..
        } = self;
        crate::arch::mmu::invalidate_stage2(stage2.vttbr, 0..fw_core_abi::GRANT_END);
        if let Some(table) = stage2.table {
            table.destroy(&mut TableFrames { coherent: true });
        }
        drop(vmid);
        memory
    }

    /// The memory behind a BAR: where it is, its size, and its place in `placed`.
    fn window(&self, bar: usize) -> Option<(HostPhysical, u64, usize)> {
        match bar {
            IMAGE_BAR => Some((self.memory.start, IMAGE_SIZE, 0)),
            SHARED_BAR => Some((self.memory.start.wrapping_add(IMAGE_SIZE), SHARED_SIZE, 1)),
            _ => None,
        }
    }

    /// The domain touched the memory behind `bar`, which its configuration space has at `address`: from now on it reaches it
    /// directly. `false` if that can't be.
    pub fn place(&mut self, domain: &Domain, bar: usize, address: u64) -> bool {
        let Some((host, size, index)) = self.window(bar) else {
            return false;
        };
        let Some(placed) = self.placed.get_mut(index) else {
            return false;
        };
        // Another vCPU was faster.
        if *placed == Some(address) {
            return true;
        }
        if placed.is_some() {
            return false;
        }
        let mapped = domain
            .stage2
            .lock()
            .map(address, host, size, SHARED.encode());
        if let Err(error) = mapped {
            log::error!("{}: window {bar} at {address:#x}: {error}", domain.id);
            return false;
        }
        *placed = Some(address);
        true
    }

    /// Takes image and shared memory out of the domain's address space, until it touches them again.
    pub fn displace(&mut self, domain: &Domain) {
        for (placed, size) in self.placed.iter_mut().zip([IMAGE_SIZE, SHARED_SIZE]) {
            if let Some(address) = placed.take()
                && let Err(error) = domain.stage2.lock().unmap(address, size)
            {
                // A mapping of its own: nothing is split, no memory needed.
                log::error!("{}: window at {address:#x}: {error}", domain.id);
            }
        }
    }

    /// An access to the registers of the grants. `stopped`: the firmware doesn't run. `None`: no such register.
    pub fn grant_access(&mut self, domain: &Domain, access: &Access, stopped: bool) -> Option<u64> {
        let Access {
            offset,
            width,
            operation,
            ..
        } = *access;
        let offset = offset.checked_sub(host::GRANT)?;
        let index = usize::try_from(offset / host::GRANT_STRIDE).ok()?;
        let register = offset % host::GRANT_STRIDE;
        let grant = self.grants.get_mut(index)?;
        let field = match (register, width) {
            (host::GRANT_ADDRESS, Width::Double) => &mut grant.address,
            (host::GRANT_SIZE, Width::Double) => &mut grant.size,
            (host::GRANT_TARGET, Width::Double) => &mut grant.target,
            (host::GRANT_CONTROL, Width::Word) => {
                return match operation {
                    Operation::Read => Some(u64::from(grant.mapped.is_some())),
                    Operation::Write(value) => {
                        if stopped {
                            self.revoke(index);
                            if value & 1 != 0 {
                                self.grant(domain, index);
                            }
                        }
                        Some(0)
                    }
                };
            }
            _ => return None,
        };
        match operation {
            Operation::Read => Some(*field),
            Operation::Write(value) => {
                *field = value;
                Some(0)
            }
        }
    }

    fn revoke(&mut self, index: usize) {
        if let Some((target, size)) = self
            .grants
            .get_mut(index)
            .and_then(|grant| grant.mapped.take())
        {
            // At worst the mapping of a block is split; without memory for that it stays, and so does the grant.
            if let Err(error) = self.stage2.unmap(target, size) {
                log::error!("a grant at {target:#x} can't be taken back: {error}");
                if let Some(grant) = self.grants.get_mut(index) {
                    grant.mapped = Some((target, size));
                }
            }
        }
    }

    /// Grants what the registers say, if that may be.
    fn grant(&mut self, domain: &Domain, index: usize) {
        let Some(wanted) = self.grants.get(index).copied() else {
            return;
        };
        if wanted.mapped.is_some() {
            return;
        }
        let aligned =
            (wanted.address | wanted.size | wanted.target) & PAGE_SIZE.wrapping_sub(1) == 0;
        let target_end = wanted.target.checked_add(wanted.size);
        let within = wanted.target >= fw_core_abi::GRANT_BASE
            && target_end.is_some_and(|end| end <= fw_core_abi::GRANT_END);
        let sized = wanted.size > 0 && wanted.size <= fw_core_abi::GRANT_MAX;
        if !aligned || !within || !sized {
            return;
        }
        let first = wanted.address.checked_sub(layout::RAM_BASE);
        let Some((first, last)) =
            first.and_then(|first| Some((first, first.checked_add(wanted.size)?)))
        else {
            return;
        };
        if last > domain.memory_size() {
            return;
        }
        // The domain's RAM is contiguous for it, in pieces for the host.
        let mut base = 0_u64;
        let mut done = 0_u64;
        for piece in domain.memory.read().iter() {
            let end = base.saturating_add(piece.size);
            let (from, to) = (first.max(base), last.min(end));
            if from < to {
                let host = piece.start.wrapping_add(from.saturating_sub(base));
                let size = to.saturating_sub(from);
                let at = wanted.target.saturating_add(from.saturating_sub(first));
                // An overlap with another grant is an error of the table's.
                if self
                    .stage2
                    .map(at, host, size, Stage2Attributes::DMA.encode())
                    .is_err()
                {
                    break;
                }
                done = done.saturating_add(size);
            }
            base = end;
        }
        let complete = done == wanted.size;
        if let Some(grant) = self.grants.get_mut(index) {
            grant.mapped = (done > 0).then_some((wanted.target, done));
        }
        if !complete {
            self.revoke(index);
        }
    }
}

fn give_back(memory: Piece) {
    if let Err(error) = FRAMES.lock().free(memory) {
        log::error!("memory could not be taken back: {error}");
    }
}
