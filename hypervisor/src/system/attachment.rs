//! Giving a domain a share of a coprocessor, and taking it away, at boot as at run time.
//!
//! A share has two address spaces in the IOMMU (the domain's RAM; the save area), a save area, a context in the driver, a place in the
//! algorithm's queue and a function on the domain's PCI bus. [`attach`] takes them one by one and gives all of them back if
//! one can't be had. Taking away is slower: the context must leave the device, then the IOMMU must confirm that it forgot the
//! spaces, and only then is the memory free. What waits for that is *buried*, and [`attend`] looks after it; nobody waits.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use super::sharing::{Instance, Link, Share};
use super::{FRAMES, boot};
use crate::arch::{memory, timer};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use coproc_core::address::{DeviceAddress, PAGE_SIZE};
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::Detach;
use coproc_core::driver::{SAVE_AREA, Step};
use coproc_core::id::{DomainId, SpaceId, VcoprocId};
use coproc_core::iommu::Mapping;
use coproc_core::time::Duration;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hypervisor::guest_tree::layout;
use hypervisor::memory::frames::Piece;
use spin::Mutex;

/// How often buried things are looked after.
pub const INTERVAL: Duration = Duration::from_millis(10);

/// Things that can be given back only after the IOMMU has forgotten them.
#[derive(Default)]
struct Remains {
    spaces: Vec<SpaceId>,
    memory: Vec<Piece>,
}

/// A share on its way out of its coprocessor.
struct Leaving {
    instance: usize,
    who: VcoprocId,
}

#[derive(Default)]
struct Graveyard {
    leaving: Vec<Leaving>,
    /// Not told to the IOMMU yet.
    fresh: Vec<Remains>,
    /// Told: free when it has synchronised.
    told: Vec<Remains>,
}

static GRAVEYARD: Mutex<Graveyard> = Mutex::new(Graveyard {
    leaving: Vec::new(),
    fresh: Vec::new(),
    told: Vec::new(),
});
static OCCUPIED: AtomicBool = AtomicBool::new(false);
static NEXT_VCOPROC: AtomicU32 = AtomicU32::new(0);

/// Gives memory and address spaces back as soon as the IOMMU no longer knows them.
pub fn bury(spaces: Vec<SpaceId>, memory: Vec<Piece>) {
    GRAVEYARD.lock().fresh.push(Remains { spaces, memory });
    OCCUPIED.store(true, Ordering::Release);
    super::schedule::rearm();
}

/// Whether something is buried that [`attend`] must look after, in [`INTERVAL`] at the latest.
pub fn occupied() -> bool {
    OCCUPIED.load(Ordering::Acquire)
}

/// Looks after what is buried, one step; cheap when there is nothing.
pub fn attend() {
    if occupied() {
        step(super::get().map_or(&[][..], |system| &system.instances));
    }
}

fn step(instances: &[Instance]) {
    let Some(mut graveyard) = GRAVEYARD.try_lock() else {
        return;
    };
    let graveyard = &mut *graveyard;
    let fresh = &mut graveyard.fresh;
    graveyard.leaving.retain(|leaving| {
        let Some(instance) = instances.get(leaving.instance) else {
            return false;
        };
        let mut core = instance.core.lock();
        if core.coproc.is_attached(leaving.who) {
            return true;
        }
        fresh.extend(remains(&mut core.side.shares, leaving.who));
        false
    });
    if let Some(iommu) = boot::iommu() {
        let mut iommu = iommu.lock();
        for mut remains in core::mem::take(&mut graveyard.fresh) {
            // A space that a stream still points at can't end yet: it's tried again, and its memory waits.
            remains
                .spaces
                .retain(|space| iommu.destroy_space(*space).is_err());
            if remains.spaces.is_empty() {
                graveyard.told.push(remains);
            } else {
                graveyard.fresh.push(remains);
            }
        }
        if matches!(iommu.sync(), Step::Again(_) | Step::Failed(_)) {
            return;
        }
    } else {
        graveyard.told.append(&mut graveyard.fresh);
    }
    for remains in graveyard.told.drain(..) {
        for piece in remains.memory {
            memory::zero(piece.start, piece.size);
            if let Err(error) = FRAMES.lock().free(piece) {
                log::error!("memory could not be taken back: {error}");
            }
        }
    }
    if graveyard.leaving.is_empty() && graveyard.fresh.is_empty() {
        OCCUPIED.store(false, Ordering::Release);
    }
}

/// Waits until nothing is buried any more, for at most a second: at boot only, when no domain runs.
pub fn settle(instances: &[Instance]) {
    let limit = timer::now().saturating_add(Duration::from_secs(1));
    while occupied() && timer::now() < limit {
        step(instances);
    }
}

/// What a share leaves behind.
fn remains(shares: &mut Vec<Share>, who: VcoprocId) -> Option<Remains> {
    let at = shares.iter().position(|share| share.who == who)?;
    let share = shares.swap_remove(at);
    Some(Remains {
        spaces: [Some(share.domain_space), share.save_space]
            .into_iter()
            .flatten()
            .collect(),
        memory: share.save_area.into_iter().collect(),
    })
}

/// Gives `domain`, which has `ram`, a share of the coprocessor at `index`, to be shown as the function in `slot`.
/// The domain's bus isn't touched: its lock comes after the coprocessor's.
///
/// # Errors
/// What could not be had, for people; nothing is left behind.
pub fn attach(
    index: usize,
    instance: &Instance,
    domain: DomainId,
    ram: &[Piece],
    parameters: &Parameters,
    slot: u8,
) -> Result<Link, String> {
    let mut taken = Remains::default();
    let result = build(index, instance, domain, ram, parameters, slot, &mut taken);
    if result.is_err() {
        bury(taken.spaces, taken.memory);
    }
    result
}

fn build(
    index: usize,
    instance: &Instance,
    domain: DomainId,
    ram: &[Piece],
    parameters: &Parameters,
    slot: u8,
    taken: &mut Remains,
) -> Result<Link, String> {
    let iommu = boot::iommu().ok_or_else(|| "there is no IOMMU".to_string())?;

    let mut mappings = Vec::with_capacity(ram.len());
    let mut at = layout::RAM_BASE;
    for piece in ram {
        mappings.push(Mapping {
            device: DeviceAddress::new(at),
            host: piece.start,
            size: piece.size,
        });
        at = at.saturating_add(piece.size);
    }
    let domain_space = iommu
        .lock()
        .create_space(&mappings)
        .map_err(|error| error.to_string())?;
    taken.spaces.push(domain_space);

    let bytes = instance
        .save_area
        .checked_next_multiple_of(PAGE_SIZE)
        .unwrap_or(0);
    let mut save_space = None;
    let mut save_area = None;
    if bytes > 0 {
        let area = FRAMES
            .lock()
            .allocate(bytes, PAGE_SIZE)
            .map_err(|error| error.to_string())?;
        taken.memory.push(area);
        memory::zero(area.start, area.size);
        memory::flush(area.start, area.size);
        let mapping = Mapping {
            device: SAVE_AREA,
            host: area.start,
            size: bytes,
        };
        let space = iommu
            .lock()
            .create_space(&[mapping])
            .map_err(|error| error.to_string())?;
        taken.spaces.push(space);
        save_space = Some(space);
        save_area = Some(area);
    }

    let who = VcoprocId(NEXT_VCOPROC.fetch_add(1, Ordering::Relaxed));
    let share = Share::new(who, domain, slot, domain_space, save_space, save_area);
    instance.core.lock().side.shares.push(share);
    let attached = instance.with(|coproc, machine| coproc.attach(machine, who, domain, parameters));
    if let Err(error) = attached {
        // `taken` has all that the share had.
        instance
            .core
            .lock()
            .side
            .shares
            .retain(|share| share.who != who);
        return Err(format!("{}: {error}", instance.path));
    }
    Ok(Link {
        instance: index,
        who,
        pin: instance.description.interrupt_pin,
    })
}

/// Takes a share away: its context leaves the device, then everything is given back, by and by.
///
/// # Errors
/// What the framework answered, for people.
pub fn detach(index: usize, instance: &Instance, who: VcoprocId) -> Result<(), String> {
    let left = instance.with(|coproc, machine| coproc.detach(machine, who));
    match left {
        Ok(Detach::Done | Detach::Pending) => {
            GRAVEYARD.lock().leaving.push(Leaving {
                instance: index,
                who,
            });
            OCCUPIED.store(true, Ordering::Release);
            super::schedule::rearm();
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
