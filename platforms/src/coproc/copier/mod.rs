//! A made-up coprocessor with an IOMMU of its own, `example,copier`: how such a one is shared without a hole.
//!
//! It copies memory. Source and destination are *device addresses*, translated by a small IOMMU inside the device: two levels of
//! tables in memory, whose root a register names. No other IOMMU stands in front of it, so whoever programs that one reaches all of the
//! machine's memory. Therefore:
//!
//! - The IOMMU's registers have a window of their own, always trapped. What a domain writes there stays in the shadow
//!   ([`Trap::Shadow`]) and never reaches the device. The window with the copy registers is direct: all that is written there are device addresses.
//! - At the domain's flush the driver reads the domain's tables, each word once, judges the copy, and writes *shadow tables* in Baton's memory:
//!   only leaf entries, only whole pages of that domain's RAM, at their place in the machine. The device walks these and no others; what the domain
//!   writes into its tables afterwards is seen at its next flush. The walk takes 16 tables of 64 entries at most, whatever they say.
//! - The device is never without tables: off means *bypass*, so it is given an empty one instead. A domain that switches translation off gets that too.
//! - Each context has two sets of shadow tables. A flush builds the one that isn't in the device, then tells the device, which takes
//!   it only at rest. So no table moves under a transfer, even if another of the domain's CPUs starts one meanwhile.
//! - When a context leaves, the empty table goes in and the device's TLB is flushed; nothing of it translates for the next one.
//!
//! No machine has this device; it lives in its model (`model`), for the tests of a hostile domain.

#[cfg(test)]
mod framework;
#[cfg(test)]
mod hostile;
#[cfg(any(test, feature = "model"))]
pub mod model;
mod shadow;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use alloc::boxed::Box;

use coproc_core::address::DeviceAddress;
use coproc_core::driver::{
    Description, DriverError, Failure, Hardware, Match, Step, Window, WorstCase,
};
use coproc_core::id::VcoprocId;
use coproc_core::memory::Memory;
use coproc_core::register::Width::{Double, Word};
use coproc_core::table::{
    Away, Context, Device, Doorbell, Hole, Identity, Interrupt, Poll, Reg, Register, Rules, Scrub,
    Table, TableDriver, Trap,
};
use coproc_core::time::Duration;

pub use shadow::Own;

/// Index of the window with the copy registers.
pub const COPY: usize = 0;
/// Index of the window with the IOMMU's registers.
pub const MMU: usize = 1;

/// Offsets of the registers in both windows.
pub mod offset {
    /// Reads [`super::IDENTIFICATION`].
    pub const ID: u64 = 0x00;
    /// Bit 0: busy.
    pub const STATUS: u64 = 0x04;
    /// Device address to copy from.
    pub const SOURCE: u64 = 0x08;
    /// Device address to copy to.
    pub const DESTINATION: u64 = 0x0c;
    /// Bytes.
    pub const LENGTH: u64 = 0x10;
    /// Any write starts; ignored while busy. Reads 0.
    pub const START: u64 = 0x14;
    /// Bit 0: the copy is over, or was ended by a fault. A 1 written clears it.
    pub const INTERRUPT: u64 = 0x18;
    /// Sets bits of [`INTERRUPT`]. Reads 0.
    pub const INTERRUPT_FORCE: u64 = 0x1c;
    /// Which interrupt status bits assert the line.
    pub const ENABLE: u64 = 0x20;

    /// IOMMU: root table's address, 4 KiB-aligned; bit 0: translate (else bypass). Takes effect at the flush, and while idle only.
    pub const TABLE: u64 = 0x00;
    /// IOMMU: any write takes over the tables and empties the TLB; ignored while busy. Reads 0.
    pub const FLUSH: u64 = 0x08;
    /// IOMMU: bit 0: nothing is mapped there; bit 1: written, but mapped read-only. A 1 written clears it.
    pub const FAULT: u64 = 0x0c;
    /// IOMMU: device address of the latest fault.
    pub const FAULT_ADDRESS: u64 = 0x10;
    /// IOMMU: bit 0: stop the copy. Bit 1: reset, after which it is in bypass. Reads 0.
    pub const CONTROL: u64 = 0x14;
}

/// What [`offset::ID`] reads.
pub const IDENTIFICATION: u64 = 0xc0b1_0001;
/// [`offset::STATUS`]: a copy is under way.
pub const BUSY: u64 = 1 << 0;
/// [`offset::CONTROL`]: stop.
pub const STOP: u64 = 1 << 0;
/// [`offset::CONTROL`]: reset.
pub const RESET: u64 = 1 << 1;
/// [`offset::TABLE`]: translate.
pub const TRANSLATE: u64 = 1 << 0;

const TABLE: &Table = &Table {
    description: Description {
        name: "example,copier",
        matches: &[Match::Compatible("example,copier")],
        windows: &[
            Window {
                name: "copy",
                index: COPY,
                size: 0x1000,
                direct: true,
            },
            Window {
                name: "mmu",
                index: MMU,
                size: 0x1000,
                direct: false,
            },
        ],
        interrupts: 1,
        streams: 0,
        own_iommu: true,
        save_area: 0,
        worst_case: WorstCase {
            // All of its address space, at 1 µs a page.
            refusal: Duration::from_millis(3),
            stop: Duration::from_micros(50),
            save: Duration::from_micros(50),
            restore: Duration::from_micros(50),
        },
        refusal_bound: Duration::from_millis(50),
        slice: Duration::from_millis(5),
    },
    rules: &[
        Rules {
            window: COPY,
            narrowest: Word,
            widest: Word,
            hole: Hole::Zero,
        },
        Rules {
            window: MMU,
            narrowest: Word,
            widest: Double,
            hole: Hole::Zero,
        },
    ],
    identity: &[Identity {
        what: "copier: identification",
        window: COPY,
        offset: offset::ID,
        mask: Word.mask(),
        value: IDENTIFICATION,
    }],
    registers: &[
        Register::constant("id", offset::ID, Word, IDENTIFICATION),
        Register::status("status", offset::STATUS, Word),
        Register::read_write("source", offset::SOURCE, Word),
        Register::read_write("destination", offset::DESTINATION, Word),
        Register::read_write("length", offset::LENGTH, Word),
        Register::doorbell(
            "start",
            offset::START,
            Word,
            Doorbell {
                busy: Some((offset::STATUS, BUSY)),
                locks: &[offset::SOURCE, offset::DESTINATION, offset::LENGTH],
                ..Doorbell::ANY
            },
        )
        .reads(0),
        Register::write_one_to_clear("interrupt", offset::INTERRUPT, Word),
        Register::set_of("force", offset::INTERRUPT_FORCE, Word, offset::INTERRUPT).reads(0),
        Register::read_write("enable", offset::ENABLE, Word),
        // What the domain believes; the device has a table of the driver's.
        Register::read_write("table", offset::TABLE, Double)
            .window(MMU)
            .writable(TRANSLATE | shadow::PAGES)
            .scrub(Scrub::Never)
            .trap(Trap::Shadow),
        Register::read_write("flush", offset::FLUSH, Word)
            .window(MMU)
            .writable(0)
            .reads(0)
            .scrub(Scrub::Never)
            .trap(Trap::Shadow),
        // Can't be put back: carried.
        Register::write_one_to_clear("fault", offset::FAULT, Word)
            .window(MMU)
            .trap(Trap::Forward),
        Register::read_write("fault address", offset::FAULT_ADDRESS, Word)
            .window(MMU)
            .volatile(Word.mask())
            .trap(Trap::Forward),
        // A reset would switch the translation off.
        Register::side_effect("control", offset::CONTROL, Word)
            .window(MMU)
            .reads(0)
            .away(Away::Fault)
            .trap(Trap::Fault),
    ],
    interrupts: &[Interrupt {
        window: COPY,
        status: offset::INTERRUPT,
        enable: Some(offset::ENABLE),
    }],
    poll: Poll {
        first: Duration::from_micros(20),
        last: Duration::from_micros(500),
    },
};

const STATUS: Reg = TABLE.reg(COPY, offset::STATUS);
const ROOT: Reg = TABLE.reg(MMU, offset::TABLE);
const FLUSH: Reg = TABLE.reg(MMU, offset::FLUSH);
const CONTROL: Reg = TABLE.reg(MMU, offset::CONTROL);

const UNTAKEN: Step = Step::Failed(Failure("the device's IOMMU doesn't take a table"));

/// The driver, for one device.
pub type Copier = TableDriver<CopierDevice>;

/// What is the device's own.
#[derive(Default)]
pub struct CopierDevice {
    tables: Option<shadow::Tables>,
}

/// Has the device use the tables at this root, and says whether it does: not while it is busy.
fn install(hardware: &mut dyn Hardware, root: u64) -> bool {
    ROOT.write(hardware, root | TRANSLATE);
    FLUSH.write(hardware, 1);
    ROOT.read(hardware) == root | TRANSLATE
}

/// Commands, and says whether the device is at rest now.
fn command(hardware: &mut dyn Hardware, bits: u64) -> Step {
    CONTROL.write(hardware, bits);
    if STATUS.read(hardware) & BUSY == 0 {
        Step::Done
    } else {
        Step::Again(Duration::from_micros(50))
    }
}

impl CopierDevice {
    /// Cuts the device off: it translates nothing.
    fn cut_off(&mut self, hardware: &mut dyn Hardware) -> bool {
        let Some(tables) = &mut self.tables else {
            return false;
        };
        let taken = install(hardware, tables.empty());
        if taken {
            tables.installed = tables.empty();
        }
        taken
    }

    /// Puts a context's present tables into the device, unless they are there.
    fn put_in(&mut self, own: &Own, hardware: &mut dyn Hardware) -> bool {
        let Some(tables) = &mut self.tables else {
            return false;
        };
        let root = own.active();
        let taken = root != 0 && (tables.installed == root || install(hardware, root));
        if taken {
            tables.installed = root;
        }
        taken
    }
}

impl Device for CopierDevice {
    const TABLE: &'static Table = TABLE;
    type Own = Own;

    fn connect(&mut self, memory: Box<dyn Memory>) {
        self.tables = shadow::Tables::new(memory);
    }

    fn create(&mut self, who: VcoprocId, context: &mut Context<Own>) -> Result<(), DriverError> {
        let tables = self.tables.as_mut().ok_or(DriverError::Unconnected)?;
        context.own = tables.create(who).ok_or(DriverError::OutOfMemory)?;
        Ok(())
    }

    fn destroy(&mut self, who: VcoprocId, context: &mut Context<Own>) {
        if let Some(tables) = &mut self.tables
            && !tables.destroy(&context.own)
        {
            log::error!("{who}: its tables are still in the device, so they are never used again");
        }
    }

    fn probe(&mut self, hardware: &mut dyn Hardware) -> Result<(), DriverError> {
        let tables = self.tables.as_ref().ok_or(DriverError::Unconnected)?;
        let expected = tables.empty() | TRANSLATE;
        if self.cut_off(hardware) {
            return Ok(());
        }
        Err(DriverError::WrongDevice {
            what: "copier: table",
            expected,
            found: ROOT.read(hardware),
        })
    }

    fn shadowed(
        &mut self,
        context: &mut Context<Own>,
        reg: Reg,
        _value: u64,
        hardware: Option<&mut dyn Hardware>,
    ) {
        let Some(tables) = &mut self.tables else {
            return;
        };
        if reg != FLUSH {
            return;
        }
        let guest = context.saved(ROOT);
        match hardware {
            Some(hardware) => {
                if STATUS.read(hardware) & BUSY != 0 {
                    return;
                }
                let root = tables.build(&context.own, guest);
                // It may have become busy meanwhile: then the flush is ignored, and the tables that it uses are as they were.
                if root != 0 && install(hardware, root) {
                    tables.installed = root;
                    context.own.activate(root);
                }
            }
            // A copy that is queued has begun, as far as the domain can tell.
            None if context.get(STATUS) & BUSY != 0 => {}
            None => {
                let root = tables.build(&context.own, guest);
                context.own.activate(root);
            }
        }
    }

    // Not in `scrub`, which an untouched slice skips.
    fn settle(&mut self, _context: &mut Context<Own>, hardware: &mut dyn Hardware) -> Step {
        if self.cut_off(hardware) {
            Step::Done
        } else {
            UNTAKEN
        }
    }

    fn restore(
        &mut self,
        context: &mut Context<Own>,
        hardware: &mut dyn Hardware,
        _area: Option<DeviceAddress>,
    ) -> Step {
        if self.put_in(&context.own, hardware) {
            Step::Done
        } else {
            UNTAKEN
        }
    }

    fn start(&mut self, context: &mut Context<Own>, hardware: &mut dyn Hardware) {
        // The domain may have flushed since the restore. If the device doesn't take that it goes on with what it has: the domain's earlier tables.
        self.put_in(&context.own, hardware);
    }

    fn abort(&mut self, hardware: &mut dyn Hardware) -> Step {
        command(hardware, STOP)
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        match command(hardware, RESET) {
            // It is in bypass now.
            Step::Done if self.cut_off(hardware) => Step::Done,
            Step::Done => UNTAKEN,
            other => other,
        }
    }
}
