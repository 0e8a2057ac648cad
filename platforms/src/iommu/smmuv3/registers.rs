//! Register offsets, stream table entries, commands and events, as Arm IHI 0070 has them (chapters 4 to 7).
//!
//! Only what the driver uses. Registers of one bit each are plain constants; what is built from several fields is a function.

use crate::translation::{Geometry, vtcr_el2};
use coproc_core::address::HostPhysical;

pub(super) const IDR0: u64 = 0x0;
pub(super) const IDR1: u64 = 0x4;
pub(super) const IDR5: u64 = 0x14;
pub(super) const CR0: u64 = 0x20;
pub(super) const CR0ACK: u64 = 0x24;
pub(super) const CR1: u64 = 0x28;
pub(super) const CR2: u64 = 0x2c;
pub(super) const GBPA: u64 = 0x44;
pub(super) const IRQ_CTRL: u64 = 0x50;
pub(super) const IRQ_CTRLACK: u64 = 0x54;
pub(super) const GERROR: u64 = 0x60;
pub(super) const GERRORN: u64 = 0x64;
pub(super) const GERROR_IRQ_CFG0: u64 = 0x68;
pub(super) const STRTAB_BASE: u64 = 0x80;
pub(super) const STRTAB_BASE_CFG: u64 = 0x88;
pub(super) const CMDQ_BASE: u64 = 0x90;
pub(super) const CMDQ_PROD: u64 = 0x98;
pub(super) const CMDQ_CONS: u64 = 0x9c;
pub(super) const EVENTQ_BASE: u64 = 0xa0;
pub(super) const EVENTQ_IRQ_CFG0: u64 = 0xb0;
/// On page 1, unlike its base.
pub(super) const EVENTQ_PROD: u64 = 0x1_00a8;
pub(super) const EVENTQ_CONS: u64 = 0x1_00ac;

pub(super) const IDR0_S2P: u32 = 1 << 0;
/// Bit 1 of TTF: VMSAv8-64 tables.
pub(super) const IDR0_TTF_AARCH64: u32 = 1 << 3;
pub(super) const IDR0_COHACC: u32 = 1 << 4;
pub(super) const IDR0_BTM: u32 = 1 << 5;
pub(super) const IDR0_ATS: u32 = 1 << 10;
pub(super) const IDR0_MSI: u32 = 1 << 13;
pub(super) const IDR0_VMID16: u32 = 1 << 18;
pub(super) const IDR1_ATTR_TYPES_OVR: u32 = 1 << 27;
pub(super) const IDR1_QUEUES_PRESET: u32 = 1 << 29;
pub(super) const IDR1_TABLES_PRESET: u32 = 1 << 30;
pub(super) const IDR5_GRAN4K: u32 = 1 << 4;

pub(super) const CR0_SMMUEN: u32 = 1 << 0;
pub(super) const CR0_EVENTQEN: u32 = 1 << 2;
pub(super) const CR0_CMDQEN: u32 = 1 << 3;
/// ATS-translated transactions are checked against the STE (whose EATS = 0 refuses them) and don't just pass.
pub(super) const CR0_ATSCHK: u32 = 1 << 4;
/// Tables and queues in inner shareable, write-back memory: TABLE_SH, OC, IC and QUEUE_SH, OC, IC.
pub(super) const CR1_COHERENT: u32 =
    0b11 << 10 | 0b01 << 8 | 0b01 << 6 | 0b11 << 4 | 0b01 << 2 | 0b01;
/// Tables and queues read and written past the caches.
pub(super) const CR1_NON_CACHEABLE: u32 = 0b10 << 10 | 0b10 << 4;
/// Transactions with a stream number past the table's end are recorded.
pub(super) const CR2_RECINVSID: u32 = 1 << 1;
/// Private TLB maintenance: broadcasts of the CPUs are ignored, since VMIDs here aren't theirs.
pub(super) const CR2_PTM: u32 = 1 << 2;
pub(super) const GBPA_ABORT: u32 = 1 << 20;
pub(super) const GBPA_UPDATE: u32 = 1 << 31;
pub(super) const IRQ_GERROR: u32 = 1 << 0;
pub(super) const IRQ_EVENTQ: u32 = 1 << 2;
pub(super) const GERROR_CMDQ: u32 = 1 << 0;
pub(super) const GERROR_EVENTQ_ABORT: u32 = 1 << 2;
pub(super) const GERROR_SFM: u32 = 1 << 8;
/// Read-allocate (stream table, commands) or write-allocate (events) hint in a base register.
pub(super) const BASE_ALLOCATE: u64 = 1 << 62;
/// OVFLG in EVENTQ_PROD, OVACKFLG in EVENTQ_CONS.
pub(super) const OVERFLOW: u32 = 1 << 31;

/// Bytes of a stream table entry.
pub(super) const STE_BYTES: u64 = 64;
/// Word 0 of an STE: V = 1, Config = 0b000, each transaction aborted and not recorded.
pub(super) const STE_ABORT: u64 = 1;
/// Word 0 of an STE: V = 1, Config = 0b110, stage 1 bypassed, stage 2 translates.
pub(super) const STE_STAGE2: u64 = 1 | 0b110 << 1;

/// Words 1 to 3 of an STE that translates at stage 2.
///
/// S2R = 1 (faults are recorded), S2S = 0 (and don't stall: a stalled transaction would keep the device from becoming quiet), MEV = 1
/// (equal events in a row may be merged into one, which spares the queue), S2AFFD = 0 (irrelevant: all leaves have AF set), EATS = 0.
pub(super) fn ste_body(
    geometry: Geometry,
    root: HostPhysical,
    vmid: u16,
    coherent: bool,
    attribute_override: bool,
) -> [u64; 3] {
    let shareability = if attribute_override { 0b01 << 44 } else { 0 };
    let mev = 1 << 19;
    // T0SZ, SL0, IR0, OR0, SH0, TG, PS lie in STE bits 178:160 as in VTCR_EL2 bits 18:0.
    let mut control = vtcr_el2(geometry) & 0x7_ffff;
    if !coherent {
        control = control & !0x3f00 | 0b10 << 12;
    }
    let aarch64 = 1 << 51;
    let record = 1 << 58;
    [
        mev | shareability,
        u64::from(vmid) | control << 32 | aarch64 | record,
        root.get() & 0x000f_ffff_ffff_fff0,
    ]
}

/// A command: 16 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Command(pub(super) [u64; 2]);

impl Command {
    /// CMD_CFGI_STE, Leaf = 1: forget this stream's configuration.
    pub(super) fn invalidate_stream(stream: u32) -> Self {
        Self([0x03 | u64::from(stream) << 32, 1])
    }

    /// CMD_CFGI_ALL (CMD_CFGI_STE_RANGE with Range = 31).
    pub(super) const INVALIDATE_CONFIGURATION: Self = Self([0x04, 31]);

    /// CMD_TLBI_S12_VMALL: forget all translations of this VMID.
    pub(super) fn invalidate_vmid(vmid: u16) -> Self {
        Self([0x28 | u64::from(vmid) << 32, 0])
    }

    /// CMD_TLBI_NSNH_ALL: forget all translations of all VMIDs.
    pub(super) const INVALIDATE_TRANSLATIONS: Self = Self([0x30, 0]);

    /// CMD_SYNC with CS = SIG_NONE: completion is seen by the consumer index alone.
    pub(super) const SYNC: Self = Self([0x46, 0]);
}

/// What an event record tells that a caller can use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Event {
    pub(super) kind: u8,
    pub(super) stream: u32,
    /// Address and whether it was a write, for events that have them.
    pub(super) access: Option<(u64, bool)>,
}

impl Event {
    /// Decodes the first three words of a record (IHI 0070, 7.3).
    pub(super) fn decode(words: [u64; 3]) -> Self {
        let [head, detail, address] = words;
        let kind = head as u8;
        let addressed = matches!(kind, 0x01 | 0x05 | 0x07 | 0x0b | 0x10..=0x13 | 0x20);
        Self {
            kind,
            stream: (head >> 32) as u32,
            access: addressed.then_some((address, detail & 1 << 35 == 0)),
        }
    }
}

/// The architecture's name of an event.
pub fn event_name(kind: u8) -> &'static str {
    match kind {
        0x01 => "F_UUT",
        0x02 => "C_BAD_STREAMID",
        0x03 => "F_STE_FETCH",
        0x04 => "C_BAD_STE",
        0x05 => "F_BAD_ATS_TREQ",
        0x06 => "F_STREAM_DISABLED",
        0x07 => "F_TRANSL_FORBIDDEN",
        0x08 => "C_BAD_SUBSTREAMID",
        0x09 => "F_CD_FETCH",
        0x0a => "C_BAD_CD",
        0x0b => "F_WALK_EABT",
        0x10 => "F_TRANSLATION",
        0x11 => "F_ADDR_SIZE",
        0x12 => "F_ACCESS",
        0x13 => "F_PERMISSION",
        0x20 => "F_TLB_CONFLICT",
        0x21 => "F_CFG_CONFLICT",
        0x24 => "E_PAGE_REQUEST",
        0x25 => "F_VMS_FETCH",
        _ => "unknown event",
    }
}
