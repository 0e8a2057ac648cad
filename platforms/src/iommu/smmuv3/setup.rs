//! From whatever firmware left behind to an SMMU on which every stream aborts.
//!
//! The order matters: GBPA says *abort* before translation is switched off, or every master would be let through untranslated
//! meanwhile; caches are invalidated while nothing can be inserted into them; translation is switched on last. The
//! stream table is linear: at most 2^16 entries of 64 bytes, sized by the stream numbers that the board really has (PCI:
//! bus « 8 | function, so 16 KiB a bus), and complete, so that every number has an entry of its own that says *abort*. A two-level table
//! would save memory only where numbers are sparse. Numbers past its end abort, too, and are recorded.
//!
//! This is the only part that waits for the hardware, bounded, at boot.

use super::bus::SmmuBus;
use super::queue::{COMMAND_BYTES, Commands, EVENT_BYTES, Events, Ring};
use super::registers::*;
use crate::translation::Geometry;
use coproc_core::address::{HostPhysical, PAGE_SIZE};
use coproc_core::iommu::IommuError;
use core::ops::Range;

/// What the board needs of its SMMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setup {
    /// Bits of the stream numbers in use, 1 to 16.
    pub stream_bits: u8,
    /// Bits of a device address, 25 to 48; reduced to the SMMU's output size if that is smaller.
    pub input_bits: u8,
    /// VMIDs that are the driver's to give out, one per address space. Not shared with the CPUs' if they broadcast
    /// their invalidations (IDR0.BTM), else the same numbers do no harm.
    pub vmids: Range<u16>,
    /// log2 of the number of commands in the command queue; at least 1, reduced to what the SMMU has.
    pub command_bits: u8,
    /// log2 of the number of records in the event queue; reduced to what the SMMU has.
    pub event_bits: u8,
    /// How often a register is read before the SMMU is given up, while it is set up.
    pub polls: u32,
}

impl Setup {
    /// Queues of one page of commands and 1024 events, and plenty of patience.
    pub const fn new(stream_bits: u8, input_bits: u8, vmids: Range<u16>) -> Self {
        Self {
            stream_bits,
            input_bits,
            vmids,
            command_bits: 8,
            event_bits: 10,
            polls: 1_000_000,
        }
    }
}

/// What the SMMU is able to do, out of its ID registers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Its accesses to tables and queues are coherent with the CPUs' caches.
    pub coherent: bool,
    /// Bits of a VMID: 8 or 16.
    pub vmid_bits: u8,
    /// Bits of an output address, as this driver uses it: at most 48.
    pub output_bits: u8,
    /// Bits of a stream number.
    pub stream_bits: u8,
    pub(super) command_bits: u8,
    pub(super) event_bits: u8,
    pub(super) broadcast: bool,
    pub(super) ats: bool,
    pub(super) msi: bool,
    pub(super) attribute_override: bool,
}

impl Features {
    /// Reads the ID registers; refuses what the driver can't work with.
    pub(super) fn read<B: SmmuBus>(bus: &mut B) -> Result<Self, IommuError> {
        let (idr0, idr1, idr5) = (bus.read32(IDR0), bus.read32(IDR1), bus.read32(IDR5));
        let require = |condition: bool, what| {
            if condition {
                Ok(())
            } else {
                Err(IommuError::Hardware(what))
            }
        };
        require(idr0 & IDR0_S2P != 0, "no stage 2 (IDR0.S2P = 0)")?;
        require(
            idr0 & IDR0_TTF_AARCH64 != 0,
            "no VMSAv8-64 tables (IDR0.TTF)",
        )?;
        require(
            idr0 >> 21 & 3 != 0b11,
            "big-endian tables only (IDR0.TTENDIAN)",
        )?;
        require(
            idr0 >> 24 & 3 != 0b10,
            "faults always stall (IDR0.STALL_MODEL)",
        )?;
        require(
            idr1 & (IDR1_TABLES_PRESET | IDR1_QUEUES_PRESET) == 0,
            "tables or queues are preset (IDR1)",
        )?;
        require(idr5 & IDR5_GRAN4K != 0, "no 4 KiB granule (IDR5.GRAN4K)")?;
        let output_bits = match idr5 & 7 {
            0 => 32,
            1 => 36,
            2 => 40,
            3 => 42,
            4 => 44,
            _ => 48,
        };
        Ok(Self {
            coherent: idr0 & IDR0_COHACC != 0,
            vmid_bits: if idr0 & IDR0_VMID16 != 0 { 16 } else { 8 },
            output_bits,
            stream_bits: (idr1 & 0x3f) as u8,
            command_bits: (idr1 >> 21 & 0x1f) as u8,
            event_bits: (idr1 >> 16 & 0x1f) as u8,
            broadcast: idr0 & IDR0_BTM != 0,
            ats: idr0 & IDR0_ATS != 0,
            msi: idr0 & IDR0_MSI != 0,
            attribute_override: idr1 & IDR1_ATTR_TYPES_OVR != 0,
        })
    }
}

/// Memory that the SMMU reads and writes, and how it is used.
#[derive(Debug)]
pub(super) struct Structures {
    pub(super) geometry: Geometry,
    pub(super) stream_table: HostPhysical,
    pub(super) stream_bits: u8,
    pub(super) commands: Commands,
    pub(super) events: Events,
}

/// Brings the SMMU up with every stream on abort.
pub(super) fn bring_up<B: SmmuBus>(
    bus: &mut B,
    setup: &Setup,
    features: &Features,
) -> Result<Structures, IommuError> {
    if setup.stream_bits == 0 || setup.stream_bits > 16 || setup.stream_bits > features.stream_bits
    {
        return Err(IommuError::Hardware(
            "more bits of stream number are needed than the SMMU (IDR1.SIDSIZE) or the driver (16) has",
        ));
    }
    if setup.vmids.is_empty() || setup.vmids.end > 1u16.wrapping_shl(8) && features.vmid_bits == 8 {
        return Err(IommuError::Hardware("the range of VMIDs doesn't fit"));
    }
    let input_bits = setup.input_bits.min(features.output_bits);
    let geometry = Geometry::stage2(input_bits, features.output_bits)
        .map_err(|_| IommuError::Hardware("no stage 2 tables for this size of device address"))?;
    let command_bits = setup.command_bits.min(features.command_bits).max(1);
    let event_bits = setup.event_bits.min(features.event_bits);

    quiesce(bus, setup.polls)?;

    let table_bytes = STE_BYTES.wrapping_shl(u32::from(setup.stream_bits));
    let command_bytes = COMMAND_BYTES.wrapping_shl(u32::from(command_bits));
    let event_bytes = EVENT_BYTES.wrapping_shl(u32::from(event_bits));
    let [table, commands, events] = allocate(bus, [table_bytes, command_bytes, event_bytes])?;
    let structures = Structures {
        geometry,
        stream_table: table,
        stream_bits: setup.stream_bits,
        commands: Commands::new(Ring::new(commands, command_bits, COMMAND_BYTES)),
        events: Events::new(Ring::new(events, event_bits, EVENT_BYTES)),
    };
    let mut at = table;
    let end = table.wrapping_add(table_bytes);
    while at < end {
        bus.write_memory(at, STE_ABORT);
        at = at.wrapping_add(STE_BYTES);
    }
    bus.publish(table, table_bytes, features.coherent);
    bus.publish(events, event_bytes, features.coherent);

    let result = enable(bus, setup, features, structures);
    if result.is_err() && quiesce(bus, setup.polls).is_ok() {
        // Off for certain: nothing reads this memory any more.
        bus.free(table, round_up(table_bytes));
        bus.free(commands, round_up(command_bytes));
        bus.free(events, round_up(event_bytes));
    }
    result
}

/// Everything off, every transaction aborted.
pub(super) fn quiesce<B: SmmuBus>(bus: &mut B, polls: u32) -> Result<(), IommuError> {
    let gbpa = bus.read32(GBPA) & !GBPA_UPDATE;
    bus.write32(GBPA, gbpa | GBPA_ABORT | GBPA_UPDATE);
    wait(bus, polls, GBPA, GBPA_UPDATE, 0, "GBPA isn't updated")?;
    bus.write32(IRQ_CTRL, 0);
    wait(
        bus,
        polls,
        IRQ_CTRLACK,
        u32::MAX,
        0,
        "IRQ_CTRL isn't acknowledged",
    )?;
    control(bus, polls, 0)
}

fn enable<B: SmmuBus>(
    bus: &mut B,
    setup: &Setup,
    features: &Features,
    mut structures: Structures,
) -> Result<Structures, IommuError> {
    let coherent = features.coherent;
    let hint = if coherent { BASE_ALLOCATE } else { 0 };
    let cr1 = if coherent {
        CR1_COHERENT
    } else {
        CR1_NON_CACHEABLE
    };
    bus.write32(CR1, cr1);
    let private = if features.broadcast { CR2_PTM } else { 0 };
    bus.write32(CR2, CR2_RECINVSID | private);
    bus.write64(STRTAB_BASE, structures.stream_table.get() | hint);
    // FMT = 0: linear.
    bus.write32(STRTAB_BASE_CFG, u32::from(structures.stream_bits));
    bus.write64(CMDQ_BASE, structures.commands.base_register() | hint);
    bus.write32(CMDQ_PROD, 0);
    bus.write32(CMDQ_CONS, 0);
    bus.write64(EVENTQ_BASE, structures.events.base_register() | hint);
    bus.write32(EVENTQ_PROD, 0);
    bus.write32(EVENTQ_CONS, 0);
    let errors = bus.read32(GERROR);
    bus.write32(GERRORN, errors);

    let mut enabled = CR0_CMDQEN;
    control(bus, setup.polls, enabled)?;
    let commands = &mut structures.commands;
    commands.push(bus, Command::INVALIDATE_CONFIGURATION);
    commands.submit(bus, coherent);
    drain(bus, setup.polls, commands)?;
    commands.push(bus, Command::INVALIDATE_TRANSLATIONS);
    commands.submit(bus, coherent);
    drain(bus, setup.polls, commands)?;

    enabled |= CR0_EVENTQEN;
    control(bus, setup.polls, enabled)?;
    if features.msi {
        // Address 0: the interrupts are wires.
        bus.write64(GERROR_IRQ_CFG0, 0);
        bus.write64(EVENTQ_IRQ_CFG0, 0);
    }
    let interrupts = IRQ_GERROR | IRQ_EVENTQ;
    bus.write32(IRQ_CTRL, interrupts);
    wait(
        bus,
        setup.polls,
        IRQ_CTRLACK,
        interrupts,
        interrupts,
        "IRQ_CTRL isn't acknowledged",
    )?;
    enabled |= CR0_SMMUEN | if features.ats { CR0_ATSCHK } else { 0 };
    control(bus, setup.polls, enabled)?;
    Ok(structures)
}

fn control<B: SmmuBus>(bus: &mut B, polls: u32, value: u32) -> Result<(), IommuError> {
    bus.write32(CR0, value);
    let fields = CR0_SMMUEN | CR0_EVENTQEN | CR0_CMDQEN | CR0_ATSCHK;
    wait(bus, polls, CR0ACK, fields, value, "CR0 isn't acknowledged")
}

fn drain<B: SmmuBus>(bus: &mut B, polls: u32, commands: &Commands) -> Result<(), IommuError> {
    for _ in 0..polls {
        if (bus.read32(GERROR) ^ bus.read32(GERRORN)) & GERROR_CMDQ != 0 {
            return Err(IommuError::Hardware("the first commands were refused"));
        }
        if commands.empty(bus) {
            return Ok(());
        }
    }
    Err(IommuError::Hardware("commands aren't consumed"))
}

fn wait<B: SmmuBus>(
    bus: &mut B,
    polls: u32,
    register: u64,
    mask: u32,
    value: u32,
    what: &'static str,
) -> Result<(), IommuError> {
    for _ in 0..polls {
        if bus.read32(register) & mask == value {
            return Ok(());
        }
    }
    Err(IommuError::Hardware(what))
}

/// All or none, each aligned to its size, as base registers demand.
fn allocate<B: SmmuBus>(bus: &mut B, bytes: [u64; 3]) -> Result<[HostPhysical; 3], IommuError> {
    let [first, second, third] = bytes.map(round_up);
    let failed = IommuError::OutOfMemory;
    let one = bus.allocate(first, first).ok_or(failed)?;
    let Some(two) = bus.allocate(second, second) else {
        bus.free(one, first);
        return Err(failed);
    };
    let Some(three) = bus.allocate(third, third) else {
        bus.free(one, first);
        bus.free(two, second);
        return Err(failed);
    };
    Ok([one, two, three])
}

/// Sizes are powers of two: a page, or already a multiple of one.
fn round_up(bytes: u64) -> u64 {
    bytes.max(PAGE_SIZE)
}
