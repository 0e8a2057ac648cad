//! Giving a domain a share of a coprocessor, and taking it away, at boot as at run time.
//!
//! A share has two address spaces in the IOMMU (the domain's RAM; the save area), a save area, a context in the driver, a place in the
//! algorithm's queue and a function on the domain's PCI bus. [`attach`] takes them one by one and gives all of them back if
//! one can't be had. Taking away is slower: the context must leave the device, then the IOMMU must confirm that it forgot the
//! spaces, and only then is the memory free. What waits for that is *buried*, and [`attend`] looks after it; nobody waits. So it does for
//! a coprocessor that is being unshared.

use super::firmware::FirmwareShare;
use super::recording::feed;
use super::sharing::{Device, Instance, Link, Reach, Share};
use super::{FRAMES, boot, custody};
use crate::arch::{memory, timer};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use coproc_core::address::{DeviceAddress, PAGE_SIZE};
use coproc_core::algorithm::Parameters;
use coproc_core::coproc::{Coproc, Detach};
use coproc_core::driver::{SAVE_AREA, Step};
use coproc_core::environment::Environment;
use coproc_core::id::{DomainId, SpaceId, VcoprocId};
use coproc_core::iommu::Mapping;
use coproc_core::record::Input;
use coproc_core::time::Duration;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use hypervisor::guest_tree::layout;
use hypervisor::memory::frames::Piece;
use hypervisor::reminder::Reminder;
use spin::Mutex;

/// How often buried things are looked after, while something else is waited for …
const INTERVAL: Duration = Duration::from_millis(10);
/// … and while memory is scrubbed, which nothing waits for but time.
const SCRUB_INTERVAL: Duration = Duration::from_micros(100);
/// Bytes scrubbed at a time: what takes no longer than EL2 may go without looking for an interrupt.
const SCRUB: u64 = 0x8000;

/// Things that can be given back only after the IOMMU has forgotten them.
#[derive(Default)]
struct Remains {
    domain: Option<DomainId>,
    spaces: Vec<SpaceId>,
    memory: Vec<Piece>,
    firmware: Option<Box<FirmwareShare>>,
}

/// Memory that nobody uses any more.
struct Dirt {
    domain: Option<DomainId>,
    piece: Piece,
    scrubbed: u64,
}

/// A share on its way out of its coprocessor.
struct Leaving {
    domain: Option<DomainId>,
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
    /// To be scrubbed, then free.
    dirty: Vec<Dirt>,
}

static GRAVEYARD: Mutex<Graveyard> = Mutex::new(Graveyard {
    leaving: Vec::new(),
    fresh: Vec::new(),
    told: Vec::new(),
    dirty: Vec::new(),
});
static SCRUBBING: AtomicBool = AtomicBool::new(false);
static OCCUPIED: Reminder = Reminder::new();
static NEXT_VCOPROC: AtomicU32 = AtomicU32::new(0);

/// Gives memory and address spaces back as soon as the IOMMU no longer knows them.
pub fn bury(domain: DomainId, spaces: Vec<SpaceId>, memory: Vec<Piece>) {
    put_away(Remains {
        domain: Some(domain),
        spaces,
        memory,
        firmware: None,
    });
}

fn put_away(remains: Remains) {
    GRAVEYARD.lock().fresh.push(remains);
    occupy();
}

/// There is something to look after.
pub fn occupy() {
    OCCUPIED.set();
    super::schedule::rearm();
}

/// Whether something of this domain isn't given back yet.
pub fn holds(domain: DomainId) -> bool {
    let graveyard = GRAVEYARD.lock();
    let mut remains = graveyard.fresh.iter().chain(&graveyard.told);
    let mut dirty = graveyard.dirty.iter();
    graveyard
        .leaving
        .iter()
        .any(|leaving| leaving.domain == Some(domain))
        || remains.any(|remains| remains.domain == Some(domain))
        || dirty.any(|dirt| dirt.domain == Some(domain))
}

/// How long [`attend`] may be put off.
pub fn interval() -> Duration {
    if SCRUBBING.load(Ordering::Relaxed) {
        SCRUB_INTERVAL
    } else {
        INTERVAL
    }
}

/// Whether something is buried that [`attend`] must look after, in [`interval`] at the latest.
pub fn occupied() -> bool {
    OCCUPIED.is_set()
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
    OCCUPIED.attend(|| advance(&mut graveyard, instances));
}

/// Returns whether something is left to look after.
fn advance(graveyard: &mut Graveyard, instances: &[Instance]) -> bool {
    let fresh = &mut graveyard.fresh;
    graveyard.leaving.retain(|leaving| {
        let Some(instance) = instances.get(leaving.instance) else {
            return false;
        };
        let mut core = instance.core();
        if core.coproc.is_attached(leaving.who) {
            return true;
        }
        // A firmware core may still have its registers, and so its tables.
        if let Device::Firmware(registers) = &core.side.device
            && !registers.0.forget(leaving.who)
        {
            return true;
        }
        fresh.extend(remains(&mut core.side.shares, leaving.who));
        false
    });
    let mut ending = false;
    for instance in instances {
        ending |= custody::attend(instance);
    }
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
            return true;
        }
    } else {
        graveyard.told.append(&mut graveyard.fresh);
    }
    for remains in graveyard.told.drain(..) {
        let domain = remains.domain;
        let firmware = remains.firmware.map(|firmware| firmware.end());
        graveyard.dirty.extend(
            remains
                .memory
                .into_iter()
                .chain(firmware)
                .map(|piece| Dirt {
                    domain,
                    piece,
                    scrubbed: 0,
                }),
        );
    }
    scrub(&mut graveyard.dirty);
    SCRUBBING.store(!graveyard.dirty.is_empty(), Ordering::Relaxed);
    ending
        || !graveyard.leaving.is_empty()
        || !graveyard.fresh.is_empty()
        || !graveyard.dirty.is_empty()
}

/// Scrubs the next bit; what is clean is free.
fn scrub(dirty: &mut Vec<Dirt>) {
    let Some(next) = dirty.last_mut() else {
        return;
    };
    let left = next.piece.size.saturating_sub(next.scrubbed);
    let size = left.min(SCRUB);
    memory::zero(next.piece.start.wrapping_add(next.scrubbed), size);
    next.scrubbed = next.scrubbed.saturating_add(size);
    if next.scrubbed >= next.piece.size
        && let Some(clean) = dirty.pop()
        && let Err(error) = FRAMES.lock().free(clean.piece)
    {
        log::error!("memory could not be taken back: {error}");
    }
}

/// Waits until nothing is buried any more, for at most a second besides scrubbing: at boot only, when no domain runs.
pub fn settle(instances: &[Instance]) {
    let mut limit = timer::now().saturating_add(Duration::from_secs(1));
    while occupied() && timer::now() < limit {
        step(instances);
        // Scrubbing comes to an end by itself, however much it is.
        if SCRUBBING.load(Ordering::Relaxed) {
            limit = timer::now().saturating_add(Duration::from_secs(1));
        }
    }
}

/// What a share leaves behind.
fn remains(shares: &mut Vec<Share>, who: VcoprocId) -> Option<Remains> {
    let at = shares.iter().position(|share| share.who == who)?;
    let share = shares.swap_remove(at);
    let domain_id = Some(share.domain);
    Some(match share.reach {
        Reach::Spaces { domain, save, area } => Remains {
            domain: domain_id,
            spaces: [Some(domain), save].into_iter().flatten().collect(),
            memory: area.into_iter().collect(),
            firmware: None,
        },
        Reach::Firmware(firmware) => Remains {
            domain: domain_id,
            firmware: Some(firmware),
            ..Remains::default()
        },
        Reach::Unasked => Remains {
            domain: domain_id,
            ..Remains::default()
        },
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
    let mut taken = Remains {
        domain: Some(domain),
        ..Remains::default()
    };
    let result = build(index, instance, domain, ram, parameters, slot, &mut taken);
    if result.is_err() {
        put_away(taken);
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
    let who = VcoprocId(NEXT_VCOPROC.fetch_add(1, Ordering::Relaxed));
    let (core, asked) = match &instance.core().side.device {
        Device::Firmware(registers) => (Some(registers.0), false),
        Device::Node(node) => (None, !node.streams.is_empty()),
        Device::Pci { .. } => (None, true),
    };
    let reach = match core {
        Some(core) => {
            let share = FirmwareShare::new(core, who, super::start::stage2_geometry())?;
            Reach::Firmware(Box::new(share))
        }
        None if asked => spaces(instance, ram, taken)?,
        None => Reach::Unasked,
    };
    let share = Share::new(who, domain, slot, reach);
    instance.core().side.shares.push(share);
    let input = Input::Attach(who, domain, *parameters);
    let call = |coproc: &mut Coproc, env: &mut dyn Environment| {
        coproc.attach(env, who, domain, parameters)
    };
    let attached =
        instance.with(|coproc, machine| feed(coproc, machine, input, call, |result| result.into()));
    if let Err(error) = attached {
        let left = remains(&mut instance.core().side.shares, who);
        if let Some(core) = core {
            core.forget(who);
        }
        if let Some(left) = left {
            taken.firmware = left.firmware;
        }
        return Err(format!("{}: {error}", instance.path));
    }
    Ok(Link {
        instance: index,
        who,
        pin: (instance.description.as_ref()).map_or(0, |function| function.interrupt_pin),
    })
}

/// Address spaces and save area of a share of a device behind the IOMMU.
fn spaces(instance: &Instance, ram: &[Piece], taken: &mut Remains) -> Result<Reach, String> {
    let iommu = boot::iommu().ok_or_else(|| "there is no IOMMU".to_string())?;
    #[cfg(feature = "fault-injection")]
    if hypervisor::injection::fails(hypervisor::injection::Kind::Allocation) {
        return Err("no VMID of the IOMMU is free".to_string());
    }

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

    Ok(Reach::Spaces {
        domain: domain_space,
        save: save_space,
        area: save_area,
    })
}

/// Takes a share away: its context leaves the device, then everything is given back, by and by.
///
/// # Errors
/// What the framework answered, for people.
pub fn detach(index: usize, instance: &Instance, who: VcoprocId) -> Result<(), String> {
    let domain = {
        let core = instance.core();
        let mut shares = core.side.shares.iter();
        shares
            .find(|share| share.who == who)
            .map(|share| share.domain)
    };
    let left = instance.with(|coproc, machine| {
        let call = |coproc: &mut Coproc, env: &mut dyn Environment| coproc.detach(env, who);
        let left = feed(coproc, machine, Input::Detach(who), call, |result| {
            result.into()
        });
        if left.is_ok() {
            machine.withdraw(who);
        }
        left
    });
    match left {
        Ok(Detach::Done | Detach::Pending) => {
            GRAVEYARD.lock().leaving.push(Leaving {
                domain,
                instance: index,
                who,
            });
            occupy();
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}
