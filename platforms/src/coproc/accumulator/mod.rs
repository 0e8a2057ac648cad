//! An example: a made-up coprocessor that adds, `example,accumulator`, driven by a table.
//!
//! It adds `term` to `sum`, `rounds` times over, 1 µs each, then raises an interrupt. It has what an ordinary small coprocessor has:
//! parameters, a start, a result that is also context, a status, an interrupt status cleared by writing ones, an interrupt mask
//! with set and clear registers, a way to stop and a reset. No machine has it; it lives in its model (`model`), for the guide
//! *Your coprocessor in an afternoon*, which quotes this file, and for the tests of what happens to a coprocessor that
//! doesn't stop when asked.

#[cfg(test)]
mod escalation;
#[cfg(any(test, feature = "model"))]
pub mod model;
#[cfg(test)]
mod tests;

use coproc_core::driver::{Description, Hardware, Match, Step, Window, WorstCase};
use coproc_core::register::Width::Word;
use coproc_core::table::{
    Device, Doorbell, Hole, Identity, Interrupt, Poll, Reg, Register, Rules, Table, TableDriver,
};
use coproc_core::time::Duration;

/// Offsets of the registers.
pub mod offset {
    /// Reads [`super::IDENTIFICATION`].
    pub const ID: u64 = 0x00;
    /// What is added.
    pub const TERM: u64 = 0x04;
    /// How often.
    pub const ROUNDS: u64 = 0x08;
    /// Any write starts; ignored while busy. Reads 0.
    pub const START: u64 = 0x0c;
    /// The sum, modulo 2³².
    pub const SUM: u64 = 0x10;
    /// Bit 0: busy.
    pub const STATUS: u64 = 0x14;
    /// Which interrupt status bits assert the line.
    pub const ENABLE: u64 = 0x18;
    /// Sets bits of [`ENABLE`].
    pub const ENABLE_SET: u64 = 0x1c;
    /// Clears bits of [`ENABLE`].
    pub const ENABLE_CLEAR: u64 = 0x20;
    /// Bit 0: the addition is over. A 1 written clears it.
    pub const INTERRUPT: u64 = 0x24;
    /// Sets bits of [`INTERRUPT`]. Reads 0.
    pub const INTERRUPT_FORCE: u64 = 0x28;
    /// Bit 0: stop what is going on. Bit 1: reset. Reads 0.
    pub const CONTROL: u64 = 0x2c;
}

/// What [`offset::ID`] reads.
pub const IDENTIFICATION: u64 = 0xacc0_0001;
/// [`offset::STATUS`]: an addition is under way.
pub const BUSY: u64 = 1 << 0;
/// [`offset::INTERRUPT`]: an addition is over.
pub const OVER: u64 = 1 << 0;
/// [`offset::CONTROL`]: stop. What was added so far stays in the sum; no interrupt.
pub const STOP: u64 = 1 << 0;
/// [`offset::CONTROL`]: reset.
pub const RESET: u64 = 1 << 1;

const TABLE: &Table = &Table {
    description: Description {
        name: "example,accumulator",
        matches: &[Match::Compatible("example,accumulator")],
        windows: &[Window {
            name: "registers",
            index: 0,
            size: 0x1000,
            direct: true,
        }],
        interrupts: 1,
        streams: 0,
        own_iommu: false,
        save_area: 0,
        worst_case: WorstCase {
            refusal: Duration::from_millis(50),
            stop: Duration::from_micros(20),
            save: Duration::from_micros(20),
            restore: Duration::from_micros(20),
        },
        refusal_bound: Duration::from_millis(50),
        slice: Duration::from_millis(5),
    },
    rules: &[Rules {
        window: 0,
        narrowest: Word,
        widest: Word,
        hole: Hole::Zero,
    }],
    identity: &[Identity {
        what: "accumulator: identification",
        window: 0,
        offset: offset::ID,
        mask: Word.mask(),
        value: IDENTIFICATION,
    }],
    registers: &[
        Register::constant("id", offset::ID, Word, IDENTIFICATION),
        Register::read_write("term", offset::TERM, Word),
        Register::read_write("rounds", offset::ROUNDS, Word),
        Register::doorbell(
            "start",
            offset::START,
            Word,
            Doorbell {
                busy: Some((offset::STATUS, BUSY)),
                locks: &[offset::TERM, offset::ROUNDS],
                ..Doorbell::ANY
            },
        )
        .reads(0),
        Register::status("status", offset::STATUS, Word),
        // The domain writes it, and the device does.
        Register::read_write("sum", offset::SUM, Word).volatile(Word.mask()),
        Register::write_one_to_clear("interrupt", offset::INTERRUPT, Word),
        Register::set_of("force", offset::INTERRUPT_FORCE, Word, offset::INTERRUPT).reads(0),
        Register::aliased("enable", offset::ENABLE, Word),
        Register::set_of("enable set", offset::ENABLE_SET, Word, offset::ENABLE),
        Register::clear_of("enable clear", offset::ENABLE_CLEAR, Word, offset::ENABLE),
        // A stop is for the work that goes on, and while away there is none: it waits until there can be.
        Register::side_effect("control", offset::CONTROL, Word).reads(0),
    ],
    interrupts: &[Interrupt {
        window: 0,
        status: offset::INTERRUPT,
        enable: Some(offset::ENABLE),
    }],
    poll: Poll {
        first: Duration::from_micros(20),
        last: Duration::from_millis(1),
    },
};

const STATUS: Reg = TABLE.reg(0, offset::STATUS);
const CONTROL: Reg = TABLE.reg(0, offset::CONTROL);

/// The driver, for one device.
pub type Accumulator = TableDriver<AccumulatorDevice>;

/// What is the device's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct AccumulatorDevice;

/// Commands, and says whether the device is at rest now.
fn command(hardware: &mut dyn Hardware, bits: u64) -> Step {
    CONTROL.write(hardware, bits);
    if STATUS.read(hardware) & BUSY == 0 {
        Step::Done
    } else {
        Step::Again(Duration::from_micros(50))
    }
}

impl Device for AccumulatorDevice {
    const TABLE: &'static Table = TABLE;
    type Own = ();

    fn abort(&mut self, hardware: &mut dyn Hardware) -> Step {
        command(hardware, STOP)
    }

    fn reset(&mut self, hardware: &mut dyn Hardware) -> Step {
        command(hardware, RESET)
    }
}
